//! Texts that people write for people: which are refused because a reader could not see what they say (invisible, reordered). Everything else is kept byte for
//! byte. The tag `@text` of a contract says which of the rules applies.
//!
//! After Unicode TR 36 (section 2.5 on bidirectional text, section 3.5 on invisible characters) and UTS 39. Joiners (ZWJ, ZWNJ),
//! variation selectors, tags and the marks LRM, RLM and ALM stay: emoji and several scripts are written with them.

/// Each refuses what the ones before it refuse, and more. An empty text is fine; whether there must be one is a matter of length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readable {
    /// The text of a message: no control characters but newline and tab.
    Content,
    /// A text of several lines (a bio, a description): nor bidirectional embeddings, overrides and isolates, nor interlinear annotations, nor nothing visible at all.
    Prose,
    /// One line (a display name, a title, an alias, a device's name): nor tabs and line breaks.
    Name,
}

impl Readable {
    pub fn parse(name: &str) -> Option<Self> {
        [Readable::Content, Readable::Prose, Readable::Name].into_iter().find(|rule| rule.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Readable::Content => "content",
            Readable::Prose => "prose",
            Readable::Name => "name",
        }
    }

    /// What the text lacks.
    pub fn fault(self, text: &str) -> Option<&'static str> {
        let refused = match self {
            Readable::Content | Readable::Prose => |c: char| is_control(c) && !matches!(c, '\n' | '\t'),
            Readable::Name => |c: char| is_control(c) || matches!(c, '\u{2028}' | '\u{2029}'),
        };
        if text.chars().any(refused) {
            return Some(match self {
                Readable::Content | Readable::Prose => "no control characters but newline and tab",
                Readable::Name => "no control characters and no line breaks",
            });
        }
        if self == Readable::Content {
            return None;
        }
        if text.chars().any(is_bidi_control) {
            Some("no bidirectional embeddings, overrides or isolates")
        } else if text.chars().any(is_annotation) {
            Some("no interlinear annotations")
        } else if !text.is_empty() && !text.chars().any(is_visible) {
            Some("something to see")
        } else {
            None
        }
    }

    /// The same as a regular expression of JSON Schema (ECMA-262 with the flag `u`), but for the noncharacters beyond U+FFFF, which no document
    /// may hold.
    pub fn pattern(self) -> String {
        let no_control = match self {
            Readable::Content => return format!("^[^{CONTROLS_OF_TEXT}{NONCHARACTERS}]*$"),
            Readable::Prose => CONTROLS_OF_TEXT,
            Readable::Name => CONTROLS_OF_NAMES,
        };
        let allowed = format!(r"[^{no_control}\u202A-\u202E\u2066-\u206F\uFFF9-\uFFFB{NONCHARACTERS}]");
        format!("^(?:{allowed}*[^{INVISIBLE}{NONCHARACTERS}]{allowed}*)?$")
    }
}

/// What the codec lets into no text of a client, whatever it is for, in the same form.
pub fn plain_pattern() -> String {
    format!(r"^[^\u0000{NONCHARACTERS}]*$")
}

/// Of the names in a JSON value, in the same form.
pub fn names_pattern() -> String {
    format!(r"^[^\u0000-\u001F\u007F-\u009F\u202A-\u202E\u2066-\u206F{NONCHARACTERS}]*$")
}

const NONCHARACTERS: &str = r"\uFDD0-\uFDEF\uFFFE\uFFFF";
const CONTROLS_OF_TEXT: &str = r"\u0000-\u0008\u000B-\u001F\u007F-\u009F";
const CONTROLS_OF_NAMES: &str = r"\u0000-\u001F\u007F-\u009F\u2028\u2029";
/// Control characters, white space, bidirectional controls, annotations, `is_ignorable` and `is_blank`; those beyond U+FFFF as themselves, since readers
/// differ in how they are escaped.
const INVISIBLE: &str = concat!(
    r"\u0000-\u0020\u007F-\u00A0\u00AD\u034F\u061C\u115F\u1160\u1680\u17B4\u17B5\u180B-\u180F\u2000-\u200F\u2028-\u202F\u205F-\u206F\u2800",
    r"\u3000\u3164\uFE00-\uFE0F\uFEFF\uFFA0\uFFF0-\uFFFB",
    "\u{13441}\u{13442}\u{16FE4}\u{1BCA0}-\u{1BCA3}\u{1D159}\u{1D173}-\u{1D17A}\u{E0000}-\u{E0FFF}"
);

/// Not white space, fillers and default ignorables.
fn is_visible(c: char) -> bool {
    !c.is_whitespace() && !is_control(c) && !is_ignorable(c) && !is_blank(c) && !is_annotation(c)
}

/// C0, C1 and DEL, and the code points that are no characters (RFC 7493 section 2.1).
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{FDD0}'..='\u{FDEF}') || u32::from(c) & 0xFFFE == 0xFFFE
}

/// Embeddings, overrides and isolates (UAX 9 sections 2.1 to 2.5), and the deprecated controls beside them.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{206F}')
}

/// A program that does not support them shows the text and its annotation as one (Unicode 17, section 23.8).
fn is_annotation(c: char) -> bool {
    matches!(c, '\u{FFF9}'..='\u{FFFB}')
}

/// `Default_Ignorable_Code_Point` (Unicode 17, DerivedCoreProperties.txt).
fn is_ignorable(c: char) -> bool {
    matches!(
        c,
        '\u{00AD}'
            | '\u{034F}'
            | '\u{061C}'
            | '\u{115F}'..='\u{1160}'
            | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200F}'
            | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{3164}'
            | '\u{FE00}'..='\u{FE0F}'
            | '\u{FEFF}'
            | '\u{FFA0}'
            | '\u{FFF0}'..='\u{FFF8}'
            | '\u{1BCA0}'..='\u{1BCA3}'
            | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E0FFF}'
    )
}

/// Letters and symbols that are drawn as nothing: the blank Braille pattern, the null note head, Khitan's filler, the Egyptian blanks.
fn is_blank(c: char) -> bool {
    matches!(c, '\u{2800}' | '\u{1D159}' | '\u{16FE4}' | '\u{13441}'..='\u{13442}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Readable; 3] = [Readable::Content, Readable::Prose, Readable::Name];

    /// Which of content, prose and name refuse it.
    fn refusals(text: &str) -> [bool; 3] {
        ALL.map(|rule| rule.fault(text).is_some())
    }

    #[test]
    fn what_people_write_is_readable() {
        for text in [
            "Ada",
            "",
            "Zoë O’Neil-Müller",
            "नरेश",
            "می\u{200C}خواهم",
            "क्\u{200D}ष",
            "👨\u{200D}👩\u{200D}👧\u{200D}👦",
            "❤\u{FE0F}",
            "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
            "שלום \u{200F}(42)",
            "\u{061C}علي",
            "a\u{00A0}b",
            "e\u{0301}",
        ] {
            assert_eq!(refusals(text), [false; 3], "{text:?}");
        }
    }

    #[test]
    fn control_characters_are_refused_everywhere() {
        for text in ["a\0b", "\u{1}", "a\u{7F}", "a\u{85}b", "a\u{9B}b", "a\rb", "\u{1B}[31m", "a\u{FFFE}", "\u{FDD0}b", "\u{10FFFF}x"] {
            assert_eq!(refusals(text), [true; 3], "{text:?}");
        }
        for text in ["two\nlines", "a\ttab", "two\u{2028}lines"] {
            assert_eq!(refusals(text), [false, false, true], "{text:?}");
        }
    }

    #[test]
    fn names_are_not_reordered() {
        for control in ('\u{202A}'..='\u{202E}').chain('\u{2066}'..='\u{2069}') {
            // A message is kept as it was written.
            assert_eq!(refusals(&format!("abc{control}txt.exe")), [false, true, true], "{control:?}");
        }
    }

    #[test]
    fn names_have_no_text_between_the_lines() {
        for text in ["a\u{FFF9}b", "a\u{FFFA}b", "a\u{FFFB}b"] {
            assert_eq!(refusals(text), [false, true, true], "{text:?}");
        }
    }

    #[test]
    fn something_is_to_be_seen() {
        for text in [
            " ",
            "\u{3000}",
            "\u{200B}",
            "\u{3164}",
            "\u{2800}",
            "\u{115F}\u{1160}",
            "\u{FFA0}",
            "\u{FEFF}",
            "\u{200D}",
            "\u{00AD}",
            "\u{FE0F}",
            "\u{034F}\u{2060}",
            "\u{E0041}",
            "\u{1D159}",
            " \u{200B}\u{3164} ",
        ] {
            assert_eq!(refusals(text), [false, true, true], "{text:?}");
        }
        assert_eq!(refusals("\u{3164}a"), [false; 3]);
    }

    #[test]
    fn the_patterns_say_the_same_as_the_rules() {
        let compiled = ALL.map(|rule| regex::Regex::new(&rule.pattern()).expect("a pattern"));
        let plain = regex::Regex::new(&plain_pattern()).expect("a pattern");
        let beyond = |c: char| u32::from(c) > 0xFFFF && u32::from(c) & 0xFFFE == 0xFFFE;
        // All where there are rules, and some of each hundred elsewhere.
        let told_apart = |c: char| matches!(u32::from(c), ..0x2_0000 | 0xE_0000..0xE_2000) || u32::from(c) % 97 == 0;
        for c in ('\0'..=char::MAX).filter(|c| told_apart(*c) && !beyond(*c)) {
            for text in [format!("{c}"), format!("a{c}")] {
                for (rule, pattern) in ALL.iter().zip(&compiled) {
                    assert_eq!(pattern.is_match(&text), rule.fault(&text).is_none(), "{rule:?} {text:?}");
                }
            }
            let refused = c == '\0' || matches!(c, '\u{FDD0}'..='\u{FDEF}' | '\u{FFFE}' | '\u{FFFF}');
            assert_eq!(plain.is_match(&c.to_string()), !refused, "{c:?}");
        }
        for text in ["", "\u{200B}a\u{200B}", "\u{200B}\u{200B}", "a\nb", " a "] {
            for (rule, pattern) in ALL.iter().zip(&compiled) {
                assert_eq!(pattern.is_match(text), rule.fault(text).is_none(), "{rule:?} {text:?}");
            }
        }
    }
}
