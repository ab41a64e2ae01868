//! Names as they are searched: lower case, without the marks of Latin letters, from each word on.

use crate::bounds::{NAME_PART_BYTES_MAX, NAME_PARTS_MAX};

/// Lower case, Latin letters without marks, one space between words.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        for character in word.chars().flat_map(char::to_lowercase) {
            match plain(character) {
                Some(plain) => folded.push_str(plain),
                // Marks that stand alone (a decomposed é) are dropped.
                None if ('\u{300}'..='\u{36f}').contains(&character) => {}
                None => folded.push(character),
            }
        }
    }
    folded
}

/// The folded name from each of its words on, without repetitions.
pub fn name_parts(name: &str) -> Vec<String> {
    let folded = fold(name);
    let mut parts: Vec<String> = Vec::new();
    let starts = std::iter::once(0).chain(folded.match_indices(' ').map(|(at, _)| at + 1));
    for start in starts.take(NAME_PARTS_MAX) {
        let part = cut(&folded[start..]);
        if !part.is_empty() && !parts.iter().any(|known| known == part) {
            parts.push(part.to_owned());
        }
    }
    parts
}

/// The range of parts that begin with this text: from it on, and below the second.
pub fn prefix_range(folded: &str) -> (String, String) {
    let from = cut(folded).to_owned();
    // No character sorts after this one, in UTF-8 and by code point alike.
    let below = format!("{from}\u{10ffff}");
    (from, below)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(NAME_PART_BYTES_MAX)]
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
    fn names_are_folded() {
        for (name, expect) in [
            ("  Ada   LOVELACE ", "ada lovelace"),
            ("Jürgen Groß", "jurgen gross"),
            ("Jose\u{301}", "jose"),
            ("Łukasz Œuvre", "lukasz oeuvre"),
            ("Дмитрий", "дмитрий"),
            ("   ", ""),
        ] {
            assert_eq!(fold(name), expect, "{name}");
        }
    }

    #[test]
    fn a_name_is_found_from_each_word_on() {
        assert_eq!(name_parts("Ada King Lovelace"), ["ada king lovelace", "king lovelace", "lovelace"]);
        assert_eq!(name_parts("Yo Yo"), ["yo yo", "yo"]);
        assert_eq!(name_parts("a a"), ["a a", "a"]);
        assert!(name_parts(" ").is_empty());
        assert_eq!(name_parts("a b c d e f g h i j").len(), NAME_PARTS_MAX);
        assert!(name_parts(&"é語".repeat(200)).iter().all(|part| part.len() <= NAME_PART_BYTES_MAX));
    }

    #[test]
    fn a_prefix_is_a_range() {
        let (from, below) = prefix_range("ad");
        for inside in ["ad", "ada lovelace", "ad\u{fffd}"] {
            assert!(from.as_str() <= inside && inside < below.as_str(), "{inside}");
        }
        for outside in ["ac", "ae", "a"] {
            assert!(!(from.as_str() <= outside && outside < below.as_str()), "{outside}");
        }
    }
}
