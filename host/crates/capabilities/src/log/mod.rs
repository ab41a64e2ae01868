//! A guest's log lines, with the request's ids attached by the host.

use std::borrow::Cow;

pub mod host;

/// At most `bytes_max` of the text, control characters escaped, so that no guest can start a line of its own in a readable log.
pub fn readable(text: &str, bytes_max: usize) -> Cow<'_, str> {
    let text = &text[..text.floor_char_boundary(bytes_max)];
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        if c.is_control() {
            escaped.extend(c.escape_default())
        } else {
            escaped.push(c)
        }
        escaped
    }))
}
