//! What people write, for people to read: which texts are refused because nobody could see what they say. Everything else is kept byte for
//! byte. `checks::Checks` asks here; call it directly only for text that comes from elsewhere than a request.
//!
//! After Unicode TR 36 (section 2.5 on bidirectional text, section 3.5 on invisible characters) and UTS 39. Joiners (ZWJ, ZWNJ),
//! variation selectors, tags and the marks LRM, RLM and ALM stay: emoji and several scripts are written with them.

use unicode_segmentation::UnicodeSegmentation;

/// The code of a field whose text is refused here.
pub const UNREADABLE_TEXT: &str = "unreadable_text";

/// Why this is no name of one line (a display name, a title, an alias, a device's name): control characters, line breaks, bidirectional
/// embeddings, overrides and isolates, or nothing visible at all. An empty text is fine; whether there must be one is a matter of length.
pub fn name_fault(text: &str) -> Option<&'static str> {
    if text.chars().any(|c| is_control(c) || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Some("no control characters and no line breaks");
    }
    shown_fault(text)
}

/// The same for a text of several lines (a bio, a description), where newline and tab are allowed.
pub fn prose_fault(text: &str) -> Option<&'static str> {
    content_fault(text).or_else(|| shown_fault(text))
}

/// The same for the text of a message: control characters but newline and tab.
pub fn content_fault(text: &str) -> Option<&'static str> {
    let refused = |c| is_control(c) && !matches!(c, '\n' | '\t');
    text.chars().any(refused).then_some("no control characters but newline and tab")
}

/// Whether there is anything to see: not white space, fillers and default ignorables alone.
pub fn is_visible(text: &str) -> bool {
    text.chars().any(|c| !c.is_whitespace() && !is_control(c) && !is_ignorable(c) && !is_blank(c))
}

/// The beginning of a text: at most so many characters (code points), and never a part of what is seen as one (an emoji of several people, a
/// letter with its marks; extended grapheme clusters, UAX 29). Empty where the first of them alone is longer.
pub fn beginning(text: &str, chars_max: usize) -> &str {
    let mut chars = 0;
    let mut end = 0;
    for cluster in text.graphemes(true) {
        chars += cluster.chars().count();
        if chars > chars_max {
            break;
        }
        end += cluster.len();
    }
    &text[..end]
}

fn shown_fault(text: &str) -> Option<&'static str> {
    if text.chars().any(is_bidi_control) {
        Some("no bidirectional embeddings, overrides or isolates")
    } else if !text.is_empty() && !is_visible(text) {
        Some("something to see")
    } else {
        None
    }
}

/// C0, C1 and DEL, and the code points that are no characters (RFC 7493 section 2.1).
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{FDD0}'..='\u{FDEF}') || u32::from(c) & 0xFFFE == 0xFFFE
}

/// Embeddings, overrides and isolates (UAX 9 sections 2.1 to 2.5), and the deprecated controls beside them.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{206F}')
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
            assert_eq!((name_fault(text), prose_fault(text), content_fault(text)), (None, None, None), "{text:?}");
        }
    }

    #[test]
    fn control_characters_are_refused_everywhere() {
        for text in ["a\0b", "\u{1}", "a\u{7F}", "a\u{85}b", "a\u{9B}b", "a\rb", "\u{1B}[31m", "a\u{FFFE}", "\u{FDD0}b", "\u{10FFFF}x"] {
            assert!(name_fault(text).is_some() && prose_fault(text).is_some() && content_fault(text).is_some(), "{text:?}");
        }
        for text in ["two\nlines", "a\ttab"] {
            assert!(name_fault(text).is_some() && prose_fault(text).is_none() && content_fault(text).is_none(), "{text:?}");
        }
        assert!(name_fault("two\u{2028}lines").is_some());
    }

    #[test]
    fn names_are_not_reordered() {
        for control in ('\u{202A}'..='\u{202E}').chain('\u{2066}'..='\u{2069}') {
            let text = format!("abc{control}txt.exe");
            assert!(name_fault(&text).is_some() && prose_fault(&text).is_some(), "{text:?}");
            assert_eq!(content_fault(&text), None, "a message is kept as it was written");
        }
    }

    #[test]
    fn a_beginning_ends_between_graphemes() {
        const FAMILY: &str = "👨\u{200D}👩\u{200D}👧\u{200D}👦";
        assert_eq!(beginning(&FAMILY.repeat(60), 100), FAMILY.repeat(14));
        for (text, chars_max, expect) in [
            ("hello", 3, "hel"),
            ("hello", 5, "hello"),
            ("", 5, ""),
            ("ae\u{301}", 2, "a"),
            ("ae\u{301}", 3, "ae\u{301}"),
            ("a\r\nb", 2, "a"),
            ("🇩🇪🇫🇷", 3, "🇩🇪"),
            ("👍🏽👍🏽", 3, "👍🏽"),
            ("नमस्ते", 3, "नम"),
            (FAMILY, 6, ""),
        ] {
            assert_eq!(beginning(text, chars_max), expect, "{text:?} {chars_max}");
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
            assert!(name_fault(text).is_some() && prose_fault(text).is_some(), "{text:?}");
            assert!(!is_visible(text), "{text:?}");
        }
        assert!(is_visible("\u{3164}a"));
    }
}
