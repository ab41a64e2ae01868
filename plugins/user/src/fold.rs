//! Names as they are searched: lower case, without the marks of Latin letters, from each word on.

use echo_sdk::text::fold;

use crate::bounds::{NAME_PART_BYTES_MAX, NAME_PARTS_MAX};

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

#[cfg(test)]
mod tests {
    use super::*;

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
