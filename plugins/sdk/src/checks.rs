//! Checks of a request's fields that name every wrong one at once: rules that need data, or several fields. What one field keeps by itself is the
//! contract's to say (`@length 1..=100` and its like), and the host's to check.

use std::ops::RangeInclusive;

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
            .require(false, "title", "not_for_direct", "no title")
            .require(true, "bio", "x", "y")
            .count("ids", 5, 1..=4)
            .finish()
            .expect_err("two are wrong");
        let named: Vec<_> = error.fields.iter().map(|field| (field.field.as_str(), field.code.as_str())).collect();
        assert_eq!(named, [("title", "not_for_direct"), ("ids", "too_many")]);
        assert_eq!(error.code, "invalid");
    }

    #[test]
    fn one_wrong_field_gives_its_code() {
        let error = Checks::new().require(false, "phone", "invalid_phone", "no number").finish().expect_err("wrong");
        assert_eq!(error.code, "invalid_phone");
        assert!(Checks::new().require(true, "phone", "x", "y").finish().is_ok());
    }
}
