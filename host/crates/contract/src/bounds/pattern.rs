//! Regular expressions of contracts. They run in Rust's `regex` here and in readers of JSON Schema elsewhere (ECMA-262, Python), so only syntax with the same
//! meaning in all of them is allowed.

use std::fmt;

use regex::{Regex, RegexBuilder};
use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{
    AssertionKind, Ast, ClassSetItem, GroupKind, HexLiteralKind, Literal, LiteralKind, SpecialLiteralKind, Visitor, visit,
};

use echo_base::limits;

#[derive(Clone)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

impl Pattern {
    /// Errors: why it is none, or none that all readers take alike.
    pub fn parse(source: &str) -> Result<Self, String> {
        if source.is_empty() || source.len() > limits::PATTERN_BYTES_MAX {
            return Err(format!("1 to {} bytes are wanted", limits::PATTERN_BYTES_MAX));
        }
        let ast = Parser::new().parse(source).map_err(|error| error.kind().to_string())?;
        visit(&ast, Portable)?;
        let regex = RegexBuilder::new(source).size_limit(limits::PATTERN_COMPILED_BYTES_MAX).build().map_err(|error| error.to_string())?;
        Ok(Self { source: source.to_owned(), regex })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn fits(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.source)
    }
}

/// Refuses what means something else elsewhere, or nothing.
struct Portable;

impl Visitor for Portable {
    type Output = ();
    type Err = String;

    fn finish(self) -> Result<(), String> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), String> {
        match ast {
            Ast::Dot(_) => Err("write [^\\n] for ., which leaves out more elsewhere".to_owned()),
            Ast::Empty(_) | Ast::ClassBracketed(_) | Ast::Repetition(_) | Ast::Alternation(_) | Ast::Concat(_) => Ok(()),
            Ast::Literal(literal) => check_literal(literal),
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine | AssertionKind::EndLine => Ok(()),
                _ => Err("no assertions but ^ and $".to_owned()),
            },
            Ast::Group(group) => match &group.kind {
                GroupKind::CaptureIndex(_) => Ok(()),
                GroupKind::NonCapturing(flags) if flags.items.is_empty() => Ok(()),
                _ => Err("no named groups and no flags".to_owned()),
            },
            Ast::Flags(_) => Err("no flags".to_owned()),
            Ast::ClassUnicode(_) | Ast::ClassPerl(_) => Err(CLASSES.to_owned()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), String> {
        match item {
            ClassSetItem::Empty(_) | ClassSetItem::Union(_) => Ok(()),
            ClassSetItem::Literal(literal) => check_literal(literal),
            ClassSetItem::Range(range) => check_literal(&range.start).and_then(|()| check_literal(&range.end)),
            ClassSetItem::Ascii(_) | ClassSetItem::Unicode(_) | ClassSetItem::Perl(_) => Err(CLASSES.to_owned()),
            ClassSetItem::Bracketed(_) => Err("no class within a class".to_owned()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &regex_syntax::ast::ClassSetBinaryOp) -> Result<(), String> {
        Err("no operations on classes".to_owned())
    }
}

const CLASSES: &str = "write classes out, such as [0-9] for \\d, which is not the same everywhere";

fn check_literal(literal: &Literal) -> Result<(), String> {
    use SpecialLiteralKind::{CarriageReturn, FormFeed, LineFeed, Tab, VerticalTab};
    match &literal.kind {
        LiteralKind::Verbatim | LiteralKind::Meta => Ok(()),
        LiteralKind::HexFixed(HexLiteralKind::X | HexLiteralKind::UnicodeShort) => Ok(()),
        LiteralKind::Special(FormFeed | Tab | LineFeed | CarriageReturn | VerticalTab) => Ok(()),
        _ => Err("no escapes but \\xHH, \\uHHHH, \\t, \\n, \\r, \\f, \\v and those of punctuation that means something".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_readers_take_alike_is_let_in() {
        for (pattern, fits, fits_not) in [
            ("^[0-9]{6}$", "012345", "012345\n"),
            ("^(?:en|de)(-[A-Z]{2})?$", "de-DE", "de-de"),
            ("b+", "abc", "ac"),
            (r"^[^\u0000-\u001F\x7F]*$", "é", "\u{1}"),
            (r"^\+?[0-9 .()-]+$", "+1 (2)", "1a"),
            ("^[^\\n]$", "😀", "ab"),
        ] {
            let parsed = Pattern::parse(pattern).expect(pattern);
            assert!(parsed.fits(fits) && !parsed.fits(fits_not), "{pattern}");
        }
    }

    #[test]
    fn what_they_take_otherwise_is_refused() {
        for pattern in [
            "",
            "(",
            ".",
            r"\d",
            r"[\d]",
            r"\w",
            r"\s",
            r"\p{L}",
            r"\bword\b",
            r"\Aa\z",
            "(?i)a",
            "(?i:a)",
            "(?P<n>a)",
            "(?<n>a)",
            "(?=a)",
            "[[:alpha:]]",
            "[a&&b]",
            "[a[b]]",
            r"\x{1F600}",
            r"\u{1F600}",
            r"\a",
            "(a)\\1",
        ] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
        assert!(Pattern::parse(&"a".repeat(limits::PATTERN_BYTES_MAX + 1)).is_err());
        assert!(Pattern::parse("((((a{100}){100}){100}){100})").unwrap_err().contains("size"), "a small one that becomes large");
    }
}
