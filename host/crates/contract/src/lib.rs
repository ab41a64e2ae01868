//! The contract of a component: decoding its WIT, JSON to values and back, OpenAPI and AsyncAPI, compatibility. Knows no HTTP, no stores, no pools.

use std::time::Duration;

pub mod adapt;
pub mod asyncapi;
pub mod bounds;
pub mod changes;
pub mod codec;
pub mod compat;
#[cfg(test)]
pub mod fixture;
pub mod openapi;
pub mod readable;
pub mod schema;
pub mod secrets;
pub mod wit;

/// Where a request's fields come from.
pub enum Input<'a> {
    /// HTTP: path variables in the route's order (already percent-decoded), the raw query (GET, DELETE), else the body.
    Http { path: &'a [(&'a str, &'a str)], query: Option<&'a str>, body: Option<&'a [u8]> },
    /// One JSON document: a socket frame's payload.
    Json(&'a [u8]),
}

/// The code of a field whose text cannot be kept or shown; the services' SDK has the same.
pub const UNREADABLE_TEXT: &str = "unreadable_text";

/// The code of a cursor that its list did not give to its caller; the services' SDK has the same.
pub const CURSOR_INVALID: &str = "cursor_invalid";

/// One wrong field.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    pub field: String,
    pub code: String,
    pub detail: String,
}

/// `echo:types/types.error-kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    Invalid,
    Unauthenticated,
    Forbidden,
    NotFound,
    Conflict,
    Locked,
    TooLarge,
    RateLimited,
    Unavailable,
    Internal,
}

/// `echo:types/types.error`: what a service answers when it declines.
#[derive(Clone, Debug)]
pub struct ServiceError {
    pub kind: ErrorKind,
    pub code: String,
    pub message: String,
    pub fields: Vec<FieldError>,
    pub retry_after: Option<Duration>,
}

/// Of a documentation, without its full stop.
fn first_sentence(docs: &str) -> &str {
    let line = docs.lines().next().unwrap_or_default();
    line.find(". ").map_or(line, |end| &line[..=end]).trim_end_matches('.')
}
