//! What people write, for people to read. Which texts are refused because nobody could see what they say, the contract says (`@text`).

use unicode_segmentation::UnicodeSegmentation;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
