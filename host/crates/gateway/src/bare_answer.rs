//! HTTP/1.1 answers without a request: to bytes that are no request, and to connections over the limits.

use axum::response::IntoResponse;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::{HeaderName, HeaderValue, StatusCode};

use super::Problem;
use super::edge::common_headers;
use super::request::{X_REQUEST_ID, fresh_id, id_value};

/// A whole answer, after which the connection is closed, and the id under which it is logged.
pub struct BareAnswer {
    pub request_id: std::sync::Arc<str>,
    pub bytes: Vec<u8>,
}

impl BareAnswer {
    pub fn new(problem: Problem) -> Self {
        let request_id = fresh_id();
        let body = problem.render(Some(&request_id));
        let mut response = common_headers(problem.into_response());
        let headers = response.headers_mut();
        headers.insert(X_REQUEST_ID, id_value(&request_id));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&jiff::Timestamp::now());
        if let Some(date) = date.ok().and_then(|date| HeaderValue::from_str(&date).ok()) {
            headers.insert(DATE, date);
        }
        let status = response.status();
        let mut bytes = format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or_default()).into_bytes();
        let mut line = |name: &HeaderName, value: &[u8]| bytes.extend([name.as_str().as_bytes(), b": ", value, b"\r\n"].concat());
        response.headers().iter().for_each(|(name, value)| line(name, value.as_bytes()));
        bytes.extend(b"\r\n");
        bytes.extend(body);
        Self { request_id, bytes }
    }

    /// What hyper could not read, in the status that it found.
    pub fn to_unreadable(status: u16) -> (StatusCode, Self) {
        let problem = match status {
            431 => Problem::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head_too_large",
                "the request's head is too large or has too many fields",
            ),
            414 => Problem::new(StatusCode::URI_TOO_LONG, "uri_too_long", "the request's target is too long"),
            _ => Problem::new(StatusCode::BAD_REQUEST, "unreadable", "this is no request of HTTP/1.1"),
        };
        (problem.status, Self::new(problem))
    }
}
