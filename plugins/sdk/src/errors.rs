//! How a service says no: constructors of the one error that every function returns, and what the capabilities' own errors become.

use crate::wit::cache::CacheError;
use crate::wit::hub::HubError;
use crate::wit::passwords::PasswordError;
use crate::wit::sql::{ErrorClass, SqlError};
use crate::wit::tokens::TokenError;
use crate::wit::types::{Error, ErrorKind, FieldError};

/// After how long an `unavailable` answer is worth another try, in milliseconds.
const UNAVAILABLE_RETRY_MS: u64 = 500;

impl Error {
    /// An error of any kind; `code` is stable and documented, `message` is for people.
    pub fn new(kind: ErrorKind, code: &str, message: impl Into<String>) -> Self {
        Self { kind, code: code.to_owned(), message: message.into(), fields: Vec::new(), retry_after_ms: None }
    }

    /// 422 of the whole request.
    pub fn invalid(code: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, code, message)
    }

    /// 422 of one field; the error's own code is the field's.
    pub fn invalid_field(field: &str, code: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let mut error = Self::new(ErrorKind::Invalid, code, detail.clone());
        error.fields.push(FieldError { field: field.to_owned(), code: code.to_owned(), detail });
        error
    }

    /// 401.
    pub fn unauthenticated(code: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unauthenticated, code, message)
    }

    /// 403.
    pub fn forbidden(code: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, code, message)
    }

    /// 404 with the code `not_found`; also for what the caller may not know of.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, "not_found", message)
    }

    /// 409.
    pub fn conflict(code: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, code, message)
    }

    /// 423, until the time is over.
    pub fn locked(code: &str, message: impl Into<String>, retry_after_ms: u64) -> Self {
        Self::new(ErrorKind::Locked, code, message).retry_after(retry_after_ms)
    }

    /// 413.
    pub fn too_large(code: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::TooLarge, code, message)
    }

    /// 429.
    pub fn rate_limited(code: &str, message: impl Into<String>, retry_after_ms: u64) -> Self {
        Self::new(ErrorKind::RateLimited, code, message).retry_after(retry_after_ms)
    }

    /// 503; a subscriber that answers so is asked again.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, "unavailable", message).retry_after(UNAVAILABLE_RETRY_MS)
    }

    /// 500. The message stays in the host's log.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, "internal", message)
    }

    pub fn retry_after(mut self, retry_after_ms: u64) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }
}

impl SqlError {
    pub fn is_unique_violation(&self) -> bool {
        self.class == ErrorClass::UniqueViolation
    }

    /// The service's share of the disk is used up: nothing can be added until something is deleted.
    pub fn is_full(&self) -> bool {
        self.sqlstate.as_deref() == Some("53100")
    }

    /// A row that has not the shape the service expects; a fault of the service.
    pub(crate) fn shape(message: String) -> Self {
        Self { class: ErrorClass::Other, constraint: None, sqlstate: None, message }
    }
}

/// What may pass by itself is `unavailable`; the rest is the service's own fault. Unique violations that mean something to a client are
/// matched before this.
impl From<SqlError> for Error {
    fn from(error: SqlError) -> Self {
        if error.is_full() {
            return Error::new(ErrorKind::Unavailable, "storage_full", error.message).retry_after(UNAVAILABLE_RETRY_MS);
        }
        match error.class {
            ErrorClass::Unavailable | ErrorClass::Timeout | ErrorClass::Serialization => Error::unavailable(error.message),
            ErrorClass::UniqueViolation | ErrorClass::ForeignKey | ErrorClass::Check | ErrorClass::TooLarge | ErrorClass::Other => {
                Error::internal(format!("sql: {}", error.message))
            }
        }
    }
}

impl From<HubError> for Error {
    fn from(error: HubError) -> Self {
        match error {
            HubError::Unavailable => Error::unavailable("the hub cannot be reached"),
            HubError::TooLarge => Error::internal("the hub was asked about too many users"),
            HubError::Invalid => Error::internal("the hub was asked with no identifier"),
        }
    }
}

impl From<CacheError> for Error {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Unavailable => Error::unavailable("the cache cannot be reached"),
            CacheError::TooLarge => Error::internal("the entry is larger than the cache takes"),
            CacheError::WrongKind => Error::internal("the cache holds another kind of value under this key"),
        }
    }
}

impl From<PasswordError> for Error {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Error::unavailable("too many passwords are being checked"),
            PasswordError::TooLong => Error::invalid("too_long", "the password is too long"),
            PasswordError::MalformedHash => Error::internal("a stored password hash cannot be read"),
        }
    }
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Unavailable => Error::unavailable("tokens cannot be signed or revoked now"),
            TokenError::Invalid => Error::unauthenticated("token_invalid", "not a token of this service"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_errors_are_sorted_by_whether_trying_again_helps() {
        let kind_of = |class| Error::from(SqlError { class, constraint: None, sqlstate: None, message: String::new() }).kind;
        assert_eq!(kind_of(ErrorClass::Serialization), ErrorKind::Unavailable);
        assert_eq!(kind_of(ErrorClass::Timeout), ErrorKind::Unavailable);
        assert_eq!(kind_of(ErrorClass::Unavailable), ErrorKind::Unavailable);
        assert_eq!(kind_of(ErrorClass::UniqueViolation), ErrorKind::Internal);
        let full = SqlError { class: ErrorClass::Unavailable, constraint: None, sqlstate: Some("53100".into()), message: String::new() };
        assert_eq!(Error::from(full).code, "storage_full");
    }

    #[test]
    fn a_wrong_field_is_named() {
        let error = Error::invalid_field("device.id", "too_long", "at most 128 characters");
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert_eq!(error.code, "too_long");
        assert_eq!(error.fields[0].field, "device.id");
    }
}
