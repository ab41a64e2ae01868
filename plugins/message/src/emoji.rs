//! What may be reacted with: one emoji, in one spelling. Pure.

use unicode_properties::UnicodeEmoji;
use unicode_segmentation::UnicodeSegmentation;

use crate::bounds::EMOJI_BYTES_MAX;

/// Variation selectors choose between the text and the picture of the same emoji.
const TEXT_STYLE: char = '\u{FE0E}';
const PICTURE_STYLE: char = '\u{FE0F}';
const KEYCAP: char = '\u{20E3}';

/// The emoji without variation selectors, so that all its spellings are one; skin tones and whatever else it is made of stay. None for what is not
/// one emoji (UTS 51: a single user-perceived character that is or contains an emoji).
pub fn canonical(text: &str) -> Option<String> {
    if text.is_empty() || text.len() > EMOJI_BYTES_MAX || text.graphemes(true).count() != 1 {
        return None;
    }
    let canonical: String = text.chars().filter(|c| !matches!(*c, TEXT_STYLE | PICTURE_STYLE)).collect();
    let mut chars = canonical.chars();
    let first = chars.next()?;
    let rest = chars.as_str();
    let is_emoji = match first {
        // Digits are emoji characters in keycaps alone.
        '0'..='9' | '#' | '*' => rest.chars().eq([KEYCAP]),
        first if is_regional_indicator(first) => rest.chars().count() == 1 && rest.chars().all(is_regional_indicator),
        first => first.is_emoji_char() && !is_skin_tone(first),
    };
    is_emoji.then_some(canonical)
}

fn is_regional_indicator(c: char) -> bool {
    ('\u{1F1E6}'..='\u{1F1FF}').contains(&c)
}

fn is_skin_tone(c: char) -> bool {
    ('\u{1F3FB}'..='\u{1F3FF}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_emoji_are_one_and_skin_tones_are_not() {
        assert_eq!(canonical("❤️"), canonical("❤"));
        assert_eq!(canonical("❤\u{FE0E}"), canonical("❤"));
        assert_eq!(canonical("🏳️‍🌈"), canonical("🏳‍🌈"));
        assert_ne!(canonical("👍"), canonical("👍🏽"));
        assert_ne!(canonical("👍🏻"), canonical("👍🏿"));
    }

    #[test]
    fn one_emoji_is_taken_and_nothing_else() {
        for emoji in ["👍", "👍🏽", "❤️", "☹", "👨‍👩‍👧‍👦", "👩🏻‍❤️‍💋‍👨🏿", "🇩🇪", "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}", "1️⃣", "#⃣", "🫠"]
        {
            assert!(canonical(emoji).is_some(), "{emoji}");
        }
        for other in ["", "a", "1", "#", "1\u{FE0F}", "👍👍", "👍a", "🇩", "🏽", "é", " ", "\u{FE0F}", "\u{200D}", "ok", &"👍".repeat(30)]
        {
            assert!(canonical(other).is_none(), "{other:?}");
        }
    }
}
