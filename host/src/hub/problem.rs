//! Refusals as the API page writes them (RFC 9457): before the upgrade as an answer, on the socket as the payload of an `error` frame.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::capabilities::tokens::TokenError;
use crate::runtime::{CallError, ErrorKind, FieldError};

#[derive(Debug)]
pub(super) struct Problem {
    pub status: StatusCode,
    pub code: Cow<'static, str>,
    detail: String,
    fields: Vec<FieldError>,
    retry_after: Option<Duration>,
    /// Where to go on after `resync_required`.
    cursor: Option<u64>,
}

impl Problem {
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self { status, code: code.into(), detail: detail.into(), fields: Vec::new(), retry_after: None, cursor: None }
    }

    pub fn bad_frame(code: &'static str, detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub fn invalid(field: &str, code: &str, detail: &str) -> Self {
        let field = FieldError { field: field.to_owned(), code: code.to_owned(), detail: detail.to_owned() };
        Self { fields: vec![field], ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "the request is not valid") }
    }

    /// Not now (503).
    pub fn unavailable(code: &'static str, detail: &str, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail) }
    }

    /// The feed does not go back to this cursor any more (410); `head` is where it goes on.
    pub fn resync_required(head: u64) -> Self {
        let detail = "the feed no longer holds what follows this cursor; load the state anew and go on from `cursor`";
        Self { cursor: Some(head), ..Self::new(StatusCode::GONE, "resync_required", detail) }
    }

    /// The document, as the payload of an `error` frame or the body of an answer.
    pub fn to_json(&self, request_id: &str) -> String {
        #[derive(Serialize)]
        struct Document<'a> {
            r#type: &'static str,
            title: &'a str,
            status: u16,
            code: &'a str,
            detail: &'a str,
            request_id: &'a str,
            errors: &'a [FieldError],
            #[serde(skip_serializing_if = "Option::is_none")]
            retry_after_ms: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            cursor: Option<u64>,
        }
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: &self.code,
            detail: &self.detail,
            request_id,
            errors: &self.fields,
            retry_after_ms: self.retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            cursor: self.cursor,
        };
        serde_json::to_string(&document).expect("strings and numbers are always JSON")
    }

    pub fn into_response(self, request_id: &str) -> Response {
        let mut response = Response::new(Body::from(self.to_json(request_id)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_millis().div_ceil(1_000).clamp(1, 86_400) as u64));
        }
        match self.status {
            StatusCode::UNAUTHORIZED => _ = headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            StatusCode::UPGRADE_REQUIRED => _ = headers.insert(header::UPGRADE, HeaderValue::from_static("websocket")),
            _ => {}
        }
        response
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Invalid | TokenError::Expired | TokenError::Revoked => {
                Problem::new(StatusCode::UNAUTHORIZED, error.code(), error.to_string())
            }
            TokenError::Unavailable => Problem::unavailable(error.code(), &error.to_string(), Duration::from_secs(1)),
        }
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        let retry_after = Duration::from_secs(1);
        match error {
            CallError::Unreadable(reason) => Problem::new(StatusCode::BAD_REQUEST, "unreadable", reason),
            CallError::Invalid(fields) => {
                Self { fields, ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "the request is not valid") }
            }
            CallError::Declined(error) => {
                let status = match error.kind {
                    ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
                    ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
                    ErrorKind::Forbidden => StatusCode::FORBIDDEN,
                    ErrorKind::NotFound => StatusCode::NOT_FOUND,
                    ErrorKind::Conflict => StatusCode::CONFLICT,
                    ErrorKind::Locked => StatusCode::LOCKED,
                    ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                    ErrorKind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
                    ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
                    ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
                };
                Self { fields: error.fields, retry_after: error.retry_after, ..Problem::new(status, error.code, error.message) }
            }
            CallError::Busy => Problem::unavailable("busy", "the service is busy", retry_after),
            CallError::Unavailable(_) => Problem::unavailable("unavailable", "the service is unavailable", retry_after),
            CallError::TimedOut(_) => Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "the call took too long"),
            // What went wrong inside is for the log, not for a client.
            CallError::Failed(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the service failed"),
        }
    }
}
