//! Words, as messages are found by them, and what a person looks for. Pure.
//!
//! A word is what stands between two word boundaries (UAX 29), folded: letters and digits together, and each sign by itself, so that a sign is found
//! too. Signs that connect words to longer ones (`_`) are signs here, too: people write `_so_` to stress a word. Nothing in what is looked for is an operator.

use std::collections::BTreeSet;

use echo_sdk::text::fold;
use unicode_segmentation::UnicodeSegmentation;

use crate::bounds::{WORD_BYTES_MAX, WORDS_LOOKED_UP_MAX, WORDS_MAX};

/// Each once, cut to the length that stands in the index.
pub fn words_of(content: &str) -> Vec<String> {
    let folded = fold(content);
    let mut words = BTreeSet::new();
    for word in segments(&folded) {
        if words.len() == WORDS_MAX {
            break;
        }
        words.insert(cut(word));
    }
    words.into_iter().map(str::to_owned).collect()
}

fn segments(folded: &str) -> impl Iterator<Item = &str> {
    folded
        .split_word_bounds()
        .flat_map(|word| word.split_inclusive(connects).flat_map(without_connector))
        .filter(|word| !word.trim().is_empty())
}

/// A word and the sign behind it, which may be all there is.
fn without_connector(word: &str) -> [&str; 2] {
    let at = word.strip_suffix(connects).map_or(word.len(), str::len);
    [&word[..at], &word[at..]]
}

/// Connector punctuation, which UAX 29 takes for a part of the word (`ExtendNumLet`).
fn connects(sign: char) -> bool {
    matches!(sign, '_' | '\u{202f}' | '\u{203f}' | '\u{2040}' | '\u{2054}' | '\u{fe33}' | '\u{fe34}' | '\u{fe4d}'..='\u{fe4f}' | '\u{ff3f}')
}

fn cut(word: &str) -> &str {
    &word[..word.floor_char_boundary(WORD_BYTES_MAX)]
}

/// What a person looks for.
pub struct Query {
    /// A message has all of them in it.
    parts: Vec<String>,
    /// A message has words that begin with these; the longest first, which most likely stands in the fewest messages.
    pub words: Vec<String>,
}

impl Query {
    /// None where there is nothing to look for.
    pub fn of(text: &str) -> Option<Self> {
        let folded = fold(text);
        let all: BTreeSet<&str> = segments(&folded).map(cut).collect();
        let (mut words, signs): (Vec<&str>, Vec<&str>) = all.into_iter().partition(|word| word.contains(char::is_alphanumeric));
        // Signs are in so many messages that they are looked up only where there is nothing else; they are looked for in what is found.
        if words.is_empty() {
            words = signs;
        }
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        words.truncate(WORDS_LOOKED_UP_MAX);
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        (!words.is_empty()).then(|| Self { parts: folded.split(' ').map(str::to_owned).collect(), words })
    }

    /// Whether the content, as it is seen, says what is looked for.
    pub fn is_in(&self, content: &str) -> bool {
        let folded = fold(content);
        self.parts.iter().all(|part| folded.contains(part.as_str()))
    }
}

/// The range of words that begin with this one: from it on, and below the second.
pub fn beginning_with(word: &str) -> (String, String) {
    // No character sorts after this one, in UTF-8 and by code point alike.
    (word.to_owned(), format!("{word}\u{10ffff}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_digits_stand_together_and_signs_alone() {
        for (content, expect) in [
            ("Hello, hello WORLD", vec![",", "hello", "world"]),
            ("100% of \"it\"", vec!["\"", "%", "100", "it", "of"]),
            ("NEAR(a b)", vec!["(", ")", "a", "b", "near"]),
            ("don't", vec!["don't"]),
            ("_under_ a snake_case", vec!["_", "a", "case", "snake", "under"]),
            ("Café\ncafe\u{301}", vec!["cafe"]),
            ("你好", vec!["你", "好"]),
            ("❤\u{fe0f} 👍🏽", vec!["❤", "👍🏽"]),
            (" \n\t", vec![]),
        ] {
            assert_eq!(words_of(content), expect, "{content}");
        }
    }

    #[test]
    fn words_are_bounded() {
        let many: String = (0..5_000).map(|number| format!("w{number} ")).collect();
        assert_eq!(words_of(&many).len(), WORDS_MAX);
        let long = words_of(&"é語".repeat(5_000));
        assert!(long.iter().all(|word| word.len() <= WORD_BYTES_MAX), "{long:?}");
        assert_eq!(words_of(&"a".repeat(5_000)), ["a".repeat(WORD_BYTES_MAX)]);
    }

    #[test]
    fn what_is_looked_for_is_text() {
        let finds = |query: &str, content: &str| {
            let query = Query::of(query).expect("something to look for");
            let words = words_of(content);
            let is_indexed = query.words.iter().all(|wanted| words.iter().any(|word| word.starts_with(wanted.as_str())));
            is_indexed && query.is_in(content)
        };
        for (query, content, expect) in [
            ("bridge", "At the old Bridge.", true),
            ("brid", "At the old Bridge.", true),
            ("OLD at", "At the old Bridge.", true),
            ("ridge", "At the old Bridge.", false),
            ("old new", "At the old Bridge.", false),
            ("%", "100 per cent", false),
            ("%", "100% sure", true),
            ("100%", "100 per cent, 5%", false),
            ("_", "a b", false),
            ("under", "go _under_ it", true),
            ("_under_", "go _under_ it", true),
            ("_under_", "go under it", false),
            ("_case", "a snake_case", true),
            ("case", "a snake_case", true),
            ("\"old bridge\"", "At the old Bridge.", false),
            ("\"old", "the \"old\" one", true),
            ("NEAR(", "nearly", false),
            ("NEAR(", "NEAR(a b)", true),
            ("a OR b", "a", false),
            ("*", "anything", false),
            ("cafe", "Café", true),
            ("你好", "你好吗", true),
            ("好你", "你好吗", false),
            ("❤", "❤\u{fe0f}!", true),
        ] {
            assert_eq!(finds(query, content), expect, "{query:?} in {content:?}");
        }
    }

    #[test]
    fn the_longest_words_are_looked_up() {
        let words = |text| Query::of(text).map(|query| query.words);
        assert_eq!(words("a bridge, at %"), Some(vec!["bridge".to_owned(), "at".to_owned(), "a".to_owned()]));
        assert_eq!(words("a b c d e f g h").map(|words| words.len()), Some(WORDS_LOOKED_UP_MAX));
        assert_eq!(words(" \n "), None);
    }

    #[test]
    fn a_beginning_is_a_range() {
        let (from, below) = beginning_with("ad");
        for inside in ["ad", "ada", "ad\u{fffd}"] {
            assert!(from.as_str() <= inside && inside < below.as_str(), "{inside}");
        }
        for outside in ["ac", "ae", "a"] {
            assert!(!(from.as_str() <= outside && outside < below.as_str()), "{outside}");
        }
    }
}
