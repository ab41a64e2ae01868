//! Checks of a request's fields that name every wrong one at once.

use std::ops::RangeInclusive;

use crate::text::{self, UNREADABLE_TEXT};
use crate::{Error, ErrorKind, FieldError};

/// Gathers wrong fields; `finish` declines if there is any.
#[derive(Debug, Default)]
pub struct Checks {
    wrong: Vec<FieldError>,
}

impl Checks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes the field as wrong unless the condition holds.
    pub fn require(&mut self, holds: bool, field: &str, code: &str, detail: &str) -> &mut Self {
        if !holds {
            self.wrong.push(FieldError { field: field.to_owned(), code: code.to_owned(), detail: detail.to_owned() });
        }
        self
    }

    /// A text's length in characters: `too_short` or `too_long`. None is fine.
    pub fn length<'a>(&mut self, field: &str, text: impl Into<Option<&'a str>>, range: RangeInclusive<usize>) -> &mut Self {
        let Some(text) = text.into() else { return self };
        let length = text.chars().count();
        self.require(length >= *range.start(), field, "too_short", &format!("at least {} characters", range.start()));
        self.require(length <= *range.end(), field, "too_long", &format!("at most {} characters", range.end()))
    }

    /// A name of one line that is shown to others (a title, an alias, a device's name): its length, and `unreadable_text` for control
    /// characters, line breaks, bidirectional overrides and what is invisible. None is fine.
    pub fn name<'a>(&mut self, field: &str, text: impl Into<Option<&'a str>>, range: RangeInclusive<usize>) -> &mut Self {
        self.readable(field, text.into(), range, text::name_fault)
    }

    /// A text of several lines that is shown to others (a bio, a description): as a name, with newlines and tabs.
    pub fn prose<'a>(&mut self, field: &str, text: impl Into<Option<&'a str>>, range: RangeInclusive<usize>) -> &mut Self {
        self.readable(field, text.into(), range, text::prose_fault)
    }

    /// The text of a message: its length, and `unreadable_text` for control characters but newline and tab. None is fine.
    pub fn content<'a>(&mut self, field: &str, text: impl Into<Option<&'a str>>, range: RangeInclusive<usize>) -> &mut Self {
        self.readable(field, text.into(), range, text::content_fault)
    }

    fn readable(
        &mut self,
        field: &str,
        text: Option<&str>,
        range: RangeInclusive<usize>,
        fault: fn(&str) -> Option<&'static str>,
    ) -> &mut Self {
        if let Some(wanted) = text.and_then(fault) {
            self.require(false, field, UNREADABLE_TEXT, wanted);
        }
        self.length(field, text, range)
    }

    /// How many items a list has: `too_few` or `too_many`.
    pub fn count(&mut self, field: &str, count: usize, range: RangeInclusive<usize>) -> &mut Self {
        self.require(count >= *range.start(), field, "too_few", &format!("at least {}", range.start()));
        self.require(count <= *range.end(), field, "too_many", &format!("at most {}", range.end()))
    }

    /// 422 with all wrong fields. The error's code is the field's where it is one alone, else `invalid`.
    pub fn finish(&mut self) -> Result<(), Error> {
        let fields = std::mem::take(&mut self.wrong);
        let code = match fields.as_slice() {
            [] => return Ok(()),
            [only] => only.code.clone(),
            _ => "invalid".to_owned(),
        };
        let mut error = Error::new(ErrorKind::Invalid, &code, "the request is not valid");
        error.fields = fields;
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_wrong_fields_are_named() {
        let error = Checks::new()
            .length("name", "", 1..=3)
            .length("bio", Some("äöüß"), 0..=4)
            .length("alias", None, 1..=3)
            .count("ids", 5, 1..=4)
            .finish()
            .expect_err("two are wrong");
        let named: Vec<_> = error.fields.iter().map(|field| (field.field.as_str(), field.code.as_str())).collect();
        assert_eq!(named, [("name", "too_short"), ("ids", "too_many")]);
        assert_eq!(error.code, "invalid");
    }

    #[test]
    fn texts_that_nobody_can_read_are_named() {
        for text in ["abc\u{202E}txt.exe", "\u{200B}", "\u{3164}", "a\0b"] {
            for error in [
                Checks::new().name("title", text, 0..=100).finish().expect_err("a name"),
                Checks::new().prose("bio", Some(text), 0..=100).finish().expect_err("a bio"),
            ] {
                assert_eq!((error.code.as_str(), error.fields[0].code.as_str()), (UNREADABLE_TEXT, UNREADABLE_TEXT), "{text:?}");
            }
        }
        assert!(Checks::new().content("content", "a\0b", 0..=100).finish().is_err());
        assert!(Checks::new().content("content", "abc\u{202E}\n\u{200B}", 0..=100).name("alias", None, 1..=9).finish().is_ok());
        let error = Checks::new().name("title", "", 1..=3).finish().expect_err("too short");
        assert_eq!(error.code, "too_short");
    }

    #[test]
    fn one_wrong_field_gives_its_code() {
        let error = Checks::new().require(false, "phone", "invalid_phone", "no number").finish().expect_err("wrong");
        assert_eq!(error.code, "invalid_phone");
        assert!(Checks::new().require(true, "phone", "x", "y").finish().is_ok());
    }
}
