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

/// As texts are searched: lower case, Latin letters without marks, no variation selectors, one space between words.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        for character in word.chars().flat_map(char::to_lowercase) {
            match plain(character) {
                Some(plain) => folded.push_str(plain),
                // Marks that stand alone (a decomposed é) are dropped, and so is what chooses between the text and the picture of an emoji.
                None if matches!(character, '\u{300}'..='\u{36f}' | '\u{fe0e}' | '\u{fe0f}') => {}
                None => folded.push(character),
            }
        }
    }
    folded
}

fn plain(character: char) -> Option<&'static str> {
    Some(match character {
        'à' | 'á' | 'â' | 'ã' | 'ä' | 'å' | 'ā' | 'ă' | 'ą' => "a",
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => "c",
        'ď' | 'đ' | 'ð' => "d",
        'è' | 'é' | 'ê' | 'ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => "e",
        'ĝ' | 'ğ' | 'ġ' | 'ģ' => "g",
        'ĥ' | 'ħ' => "h",
        'ì' | 'í' | 'î' | 'ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' => "i",
        'ĵ' => "j",
        'ķ' => "k",
        'ĺ' | 'ļ' | 'ľ' | 'ł' => "l",
        'ñ' | 'ń' | 'ņ' | 'ň' => "n",
        'ò' | 'ó' | 'ô' | 'õ' | 'ö' | 'ø' | 'ō' | 'ŏ' | 'ő' => "o",
        'ŕ' | 'ŗ' | 'ř' => "r",
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => "s",
        'ţ' | 'ť' | 'ŧ' | 'ț' => "t",
        'ù' | 'ú' | 'û' | 'ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => "u",
        'ŵ' => "w",
        'ý' | 'ÿ' | 'ŷ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'þ' => "th",
        _ => return None,
    })
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

    #[test]
    fn texts_are_folded() {
        for (name, expect) in [
            ("  Ada   LOVELACE ", "ada lovelace"),
            ("Jürgen Groß", "jurgen gross"),
            ("Jose\u{301}", "jose"),
            ("Łukasz Œuvre", "lukasz oeuvre"),
            ("Дмитрий", "дмитрий"),
            ("❤\u{fe0f}", "❤"),
            ("   ", ""),
        ] {
            assert_eq!(fold(name), expect, "{name}");
        }
    }
}
