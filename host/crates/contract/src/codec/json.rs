//! A pull reader over JSON text (RFC 8259). Builds no tree, never recurses deeper than `JSON_DEPTH_MAX`, and knows nothing of types.

use std::borrow::Cow;
use std::fmt;

use echo_base::json_text::plain_length;
use echo_base::limits;

/// What comes next in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    Boolean,
    Number,
    Text,
    Array,
    Object,
}

/// Why the text is no JSON, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub at: usize,
    pub reason: String,
}

/// A position in the text. Cheap to copy: a copy is a mark to come back to.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// Whether half of a surrogate pair is read, as U+FFFD, instead of ending it all; and whether one was since the last question.
    reads_surrogates: bool,
    lone_surrogate: bool,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self, Broken> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self::of_text(text)),
            Err(error) => Err(Broken { at: error.valid_up_to(), reason: "this is no UTF-8".to_owned() }),
        }
    }

    pub fn of_text(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, reads_surrogates: false, lone_surrogate: false }
    }

    /// Whether nothing but white space is left.
    pub fn is_at_end(&mut self) -> bool {
        self.next_byte().is_none()
    }

    pub fn finish(mut self) -> Result<(), Broken> {
        if self.is_at_end() { Ok(()) } else { self.broken("nothing may follow the document") }
    }

    pub fn peek(&mut self) -> Result<Kind, Broken> {
        match self.next_byte() {
            Some(b'"') => Ok(Kind::Text),
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Boolean),
            Some(b'n') => Ok(Kind::Null),
            Some(_) => self.broken("a value is expected"),
            None => self.broken("the document ends where a value is expected"),
        }
    }

    pub fn null(&mut self) -> Result<(), Broken> {
        self.word("null")
    }

    pub fn boolean(&mut self) -> Result<bool, Broken> {
        if self.next_byte() == Some(b't') { self.word("true").map(|()| true) } else { self.word("false").map(|()| false) }
    }

    /// The number as it is written.
    pub fn number(&mut self) -> Result<&'a str, Broken> {
        self.next_byte();
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    /// The string's content; borrowed unless it has escapes.
    pub fn string(&mut self) -> Result<Cow<'a, str>, Broken> {
        if self.next_byte() != Some(b'"') {
            return self.broken("a string is expected");
        }
        let start = self.at + 1;
        let end = start + plain_length(&self.text.as_bytes()[start..]);
        self.at = end;
        if self.byte() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(&self.text[start..end]));
        }
        let mut content = String::with_capacity(2 * (end - start) + 16);
        content.push_str(&self.text[start..end]);
        loop {
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(content));
                }
                Some(b'\\') => content.push(self.escape()?),
                Some(_) => return self.broken("a control character must be escaped"),
                None => return self.broken("the document ends within a string"),
            }
            let plain = plain_length(&self.text.as_bytes()[self.at..]);
            content.push_str(&self.text[self.at..self.at + plain]);
            self.at += plain;
        }
    }

    pub fn open_object(&mut self) -> Result<(), Broken> {
        self.open(b'{')
    }

    pub fn open_array(&mut self) -> Result<(), Broken> {
        self.open(b'[')
    }

    /// The next member's name, the reader standing before its value; none at the object's end. `first`: true before the first call.
    pub fn next_key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>, Broken> {
        if !self.next_of(first, b'}')? {
            return Ok(None);
        }
        if self.next_byte() != Some(b'"') {
            return self.broken("a name in double quotes is expected");
        }
        let key = self.string()?;
        if self.next_byte() != Some(b':') {
            return self.broken("a colon is expected");
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Whether the array has a next item, the reader standing before it. `first`: true before the first call.
    pub fn next_item(&mut self, first: &mut bool) -> Result<bool, Broken> {
        self.next_of(first, b']')
    }

    /// Steps over one value of any kind, checking it, and gives its text.
    pub fn skip(&mut self) -> Result<&'a str, Broken> {
        let kind = self.peek()?;
        let start = self.at;
        let mut first = true;
        match kind {
            Kind::Null => self.null()?,
            Kind::Boolean => drop(self.boolean()?),
            Kind::Number => drop(self.number()?),
            Kind::Text => drop(self.string()?),
            Kind::Array => {
                self.open_array()?;
                while self.next_item(&mut first)? {
                    self.skip()?;
                }
            }
            Kind::Object => {
                self.open_object()?;
                while self.next_key(&mut first)?.is_some() {
                    self.skip()?;
                }
            }
        }
        Ok(&self.text[start..self.at])
    }

    /// Reads one value with halves of surrogate pairs let through (see `took_lone_surrogate`), and gives its text.
    pub fn reading_surrogates(&mut self, read: impl FnOnce(&mut Self) -> Result<(), Broken>) -> Result<&'a str, Broken> {
        self.peek()?;
        let start = self.at;
        self.reads_surrogates = true;
        let outcome = read(self);
        self.reads_surrogates = false;
        outcome.map(|()| &self.text[start..self.at])
    }

    /// Whether the strings read since the last call had half of a surrogate pair.
    pub fn took_lone_surrogate(&mut self) -> bool {
        std::mem::take(&mut self.lone_surrogate)
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Steps over white space.
    fn next_byte(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at).copied() {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    fn open(&mut self, bracket: u8) -> Result<(), Broken> {
        if self.next_byte() != Some(bracket) {
            return self.broken(if bracket == b'{' { "an object is expected" } else { "an array is expected" });
        }
        if self.depth == limits::JSON_DEPTH_MAX {
            return self.broken(&format!("the document is nested deeper than {}", limits::JSON_DEPTH_MAX));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn next_of(&mut self, first: &mut bool, end: u8) -> Result<bool, Broken> {
        match self.next_byte() {
            Some(byte) if byte == end => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            Some(_) if std::mem::take(first) => Ok(true),
            Some(b',') => {
                self.at += 1;
                if self.next_byte() == Some(end) { self.broken("a comma with nothing after it") } else { Ok(true) }
            }
            Some(_) => self.broken("a comma or the end is expected"),
            None => self.broken("the document ends too early"),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), Broken> {
        self.next_byte();
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            self.broken("a value is expected")
        }
    }

    fn digits(&mut self) -> Result<(), Broken> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        if self.at == start { self.broken("a digit is expected") } else { Ok(()) }
    }

    fn escape(&mut self) -> Result<char, Broken> {
        self.at += 1;
        let plain = match self.byte() {
            Some(b'u') => return self.escaped_scalar(),
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            _ => return self.broken("there is no such escape"),
        };
        self.at += 1;
        Ok(plain)
    }

    fn escaped_scalar(&mut self) -> Result<char, Broken> {
        let high = self.escaped_unit()?;
        let after_high = self.at;
        let code = match high {
            0xD800..=0xDBFF if self.text.as_bytes()[self.at..].starts_with(b"\\u") => {
                self.at += 1;
                match self.escaped_unit()? {
                    low @ 0xDC00..=0xDFFF => 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00),
                    _ => high,
                }
            }
            other => other,
        };
        match char::from_u32(code) {
            Some(scalar) => Ok(scalar),
            None if self.reads_surrogates => {
                self.at = after_high;
                self.lone_surrogate = true;
                Ok(char::REPLACEMENT_CHARACTER)
            }
            None => self.broken("half of a surrogate pair"),
        }
    }

    /// `u` and four hexadecimal digits.
    fn escaped_unit(&mut self) -> Result<u32, Broken> {
        let digits = self.text.as_bytes().get(self.at + 1..self.at + 5);
        let unit = digits.and_then(|digits| digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?)));
        match unit {
            Some(unit) => {
                self.at += 5;
                Ok(unit)
            }
            None => self.broken("four hexadecimal digits are expected"),
        }
    }

    fn broken<T>(&self, reason: &str) -> Result<T, Broken> {
        Err(Broken { at: self.at, reason: reason.to_owned() })
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.reason, self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use echo_base::json_text::write_string;

    fn check(text: &str) {
        let ours = Reader::of_text(text).skip_whole();
        let theirs = serde_json::from_str::<serde_json::Value>(text);
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{text:?}: {ours:?} {theirs:?}");
    }

    impl Reader<'_> {
        fn skip_whole(mut self) -> Result<(), Broken> {
            self.skip()?;
            self.finish()
        }
    }

    #[test]
    fn the_grammar_is_that_of_serde_json() {
        for text in [
            "null",
            "nul",
            "true",
            "truefalse",
            "false ",
            " 0",
            "-0",
            "-",
            "01",
            "1.",
            "1.5",
            ".5",
            "1e5",
            "1E+5",
            "1e",
            "-1.25e-3",
            "\"\"",
            "\"a",
            "\"\\n\\u00e9\\ud83d\\ude00\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\n\"",
            "\"\u{7f}é\"",
            "[]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1,2]",
            "{}",
            "{\"a\":1}",
            "{\"a\" 1}",
            "{a:1}",
            "{\"a\":1,}",
            "{\"a\":1,\"b\":[{}]}",
            "",
            " ",
            "[",
            "{",
            "{\"a\"",
            "]",
            "1 1",
            "\u{feff}1",
            "+1",
            "Infinity",
            "NaN",
            "{\"a\":}",
            "[1]x",
        ] {
            check(text);
        }
    }

    #[test]
    fn strings_come_back_as_they_were() {
        for length in 0..40 {
            for special in ["", "\"", "\\", "\n", "\u{1}", "\u{1f}", " ", "é", "😀", "\u{7f}"] {
                let text = format!("{}{special}{}{special}", "a".repeat(length), "b".repeat(length / 2));
                let mut out = Vec::new();
                write_string(&mut out, &text);
                assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
                assert_eq!(Reader::new(&out).unwrap().string().unwrap(), text);
            }
        }
    }

    #[test]
    fn deep_nesting_is_refused_at_once() {
        let deep = vec![b'['; 1 << 20];
        let broken = Reader::new(&deep).unwrap().skip_whole().unwrap_err();
        assert_eq!(broken.at, limits::JSON_DEPTH_MAX);
        let good = format!("{}{}", "[".repeat(limits::JSON_DEPTH_MAX), "]".repeat(limits::JSON_DEPTH_MAX));
        assert!(Reader::of_text(&good).skip_whole().is_ok());
    }

    #[test]
    fn errors_say_where() {
        let at = |bytes: &[u8]| Reader::new(bytes).and_then(Reader::skip_whole).unwrap_err().at;
        assert_eq!(at(b"{\"a\": 1, }"), 9);
        assert_eq!(at(b"[1, tru]"), 4);
        assert_eq!(at(b"\"ab\xff\""), 3);
        assert_eq!(at(b"{} {}"), 3);
    }
}
