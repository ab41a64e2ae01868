//! The form of every failure: problem+json (RFC 9457). The only file that names the status of a kind of failure.
//!
//! A handler returns a `Problem`; its answer leaves the handler without a body, and the edge writes the body once it knows the request's id.
//! A socket sends the same document in a frame.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use crate::in_flight::Full;
use echo_base::limits;
use echo_capabilities::tokens::TokenError;
use echo_runtime::{CallError, ErrorKind, FieldError};

/// Where each code is explained. The `type` of a problem is a reference with the whole path, as RFC 9457 (section 3.1.1) wants of one without a host: a host does
/// not know by which name its clients reach it.
pub const ERROR_PAGES: &str = "/docs/errors";
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const WRONG_FIELDS: &str = "the request has wrong fields";

/// One failure as a client sees it.
#[derive(Clone, Debug)]
pub struct Problem {
    pub status: StatusCode,
    /// Stable, for programs.
    pub code: Cow<'static, str>,
    /// For people; empty where there is nothing to add.
    pub detail: Cow<'static, str>,
    pub errors: Vec<FieldError>,
    pub retry_after: Option<Duration>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Where a feed goes on that cannot go on where the client wanted.
    cursor: Option<u64>,
}

impl Problem {
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code: code.into(), detail: detail.into(), errors: Vec::new(), retry_after: None, headers: Vec::new(), cursor: None }
    }

    /// 422 for one wrong field.
    pub fn invalid(field: &str, code: &str, detail: impl Into<String>) -> Self {
        let error = FieldError { field: field.to_owned(), code: code.to_owned(), detail: detail.into() };
        Self { errors: vec![error], ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", WRONG_FIELDS) }
    }

    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
    }

    pub fn method_not_allowed(allow: &HeaderValue) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not take this method").with(ALLOW, allow.clone())
    }

    /// 401 with the challenge that RFC 6750 wants.
    pub fn unauthenticated(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
    }

    pub fn token_missing() -> Self {
        Self::unauthenticated("token_missing", "this wants an access token: Authorization: Bearer <token>")
    }

    /// 429 with Retry-After.
    pub fn rate_limited(retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many requests").retry_after(retry_after)
    }

    /// 503 with Retry-After.
    pub fn unavailable(code: &'static str, detail: &'static str, retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(retry_after)
    }

    /// 500; why is in the log, under the request's id.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "")
    }

    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn with_cursor(mut self, cursor: u64) -> Self {
        self.cursor = Some(cursor);
        self
    }

    /// The JSON document.
    pub fn render(&self, request_id: Option<&str>) -> Vec<u8> {
        serde_json::to_vec(&self.document(request_id)).expect("strings and numbers always serialise")
    }

    /// The JSON document as a frame carries it: what an answer says in its headers is in there.
    pub fn render_for_frame(&self, request_id: &str) -> String {
        let retry_after = self.retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        let document = Document { retry_after_ms: retry_after, ..self.document(Some(request_id)) };
        serde_json::to_string(&document).expect("strings and numbers always serialise")
    }

    fn document<'a>(&'a self, request_id: Option<&'a str>) -> Document<'a> {
        Document {
            r#type: format!("{ERROR_PAGES}/{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Failure"),
            status: self.status.as_u16(),
            code: &self.code,
            detail: &self.detail,
            request_id,
            errors: &self.errors,
            cursor: self.cursor,
            retry_after_ms: None,
        }
    }

    /// The whole answer with its body, for servers without the gateway's edge layer.
    pub fn into_full_response(self, request_id: Option<&str>) -> Response {
        finish(self.into_response(), request_id)
    }

    fn write_headers(&self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        let retry_after = self.retry_after.or_else(|| default_retry_after(self.status));
        if let Some(after) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
        }
        if self.status == StatusCode::UNAUTHORIZED && !headers.contains_key(WWW_AUTHENTICATE) {
            headers.insert(WWW_AUTHENTICATE, challenge(&self.code));
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        self.write_headers(response.headers_mut());
        response.extensions_mut().insert(self);
        response
    }
}

/// The status of a kind of failure.
pub fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
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
    }
}

impl From<Full> for Problem {
    fn from(full: Full) -> Self {
        let again = Duration::from_secs(1);
        match full {
            Full::Client => {
                let detail = "too many bytes of this client's requests are being served";
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_bytes", detail).retry_after(again)
            }
            Full::Total => Problem::unavailable("too_many_bytes", "too many bytes of requests are being served", again),
        }
    }
}

/// What a client learns of a call that gave no reply. Reasons that only the operator may know (traps, back ends) do not pass.
impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unreadable(detail) => Problem::new(StatusCode::BAD_REQUEST, "unreadable", detail),
            CallError::Invalid(fields) => {
                let mut problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code_of(&fields), WRONG_FIELDS);
                problem.errors = bounded(fields);
                problem
            }
            CallError::Declined(declined) => {
                let status = status_of(declined.kind);
                let is_plain = declined.kind == ErrorKind::Invalid && !declined.fields.is_empty() && is_plain(&declined.code);
                let code = if is_plain {
                    Cow::Borrowed("invalid")
                } else if is_code(&declined.code) {
                    Cow::Owned(declined.code)
                } else {
                    Cow::Borrowed(default_code(status))
                };
                let detail = if status.is_server_error() { Cow::Borrowed("") } else { Cow::Owned(declined.message) };
                let mut problem = Problem::new(status, code, detail);
                problem.errors = bounded(declined.fields);
                problem.retry_after = declined.retry_after;
                problem
            }
            CallError::Busy => Problem::unavailable("service_busy", "the service has too much to do", Duration::from_secs(1)),
            CallError::Unavailable(_) => {
                Problem::unavailable("service_unavailable", "the service cannot be reached now", Duration::from_secs(1))
            }
            CallError::SwitchedOff(_) => Problem::unavailable(
                "service_off",
                "the operator has switched this service off",
                Duration::from_secs(limits::SERVICE_OFF_RETRY_S),
            ),
            CallError::TimedOut(_) => Problem::new(StatusCode::GATEWAY_TIMEOUT, "service_timed_out", "the service did not answer in time"),
            CallError::Failed(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "service_failed", ""),
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Invalid => Problem::unauthenticated(error.code(), "this is no access token of this service"),
            TokenError::Expired => Problem::unauthenticated(error.code(), "the access token has expired; refresh it"),
            TokenError::Revoked => Problem::unauthenticated(error.code(), "the access token was revoked; log in again"),
            TokenError::Unavailable => Problem::unavailable(error.code(), "tokens cannot be checked now", Duration::from_secs(1)),
        }
    }
}

/// In the extensions of a failure that has a body for people, which it keeps.
#[derive(Clone, Copy, Debug)]
pub struct OwnPage;

/// An extension of answers of outside services, which are sent as they are, failures too.
#[derive(Clone, Copy, Debug)]
pub struct MadeElsewhere;

/// Gives a failure its body: the handler's own problem, or, for a layer's or a library's bare answer, the plain one of its status.
pub fn finish(mut response: Response, request_id: Option<&str>) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || response.extensions().get::<MadeElsewhere>().is_some() {
        return response;
    }
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if is_json(response.headers()) || response.extensions().get::<OwnPage>().is_some() => return response,
        None => {
            let problem = Problem::new(status, default_code(status), "");
            problem.write_headers(response.headers_mut());
            problem
        }
    };
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.remove(CONTENT_ENCODING);
    *response.body_mut() = Body::from(problem.render(request_id));
    response
}

/// Rounded up: a client that waits so long is never early.
pub fn whole_seconds(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX)
}

/// `invalid`, but for what is refused by the codec and by services alike: one wrong field of that kind has the same code from both.
/// What is wrong with a value whatever it stands for: its place is in `errors`, and the answer's own code is `invalid`.
fn is_plain(code: &str) -> bool {
    const PLAIN: [&str; 18] = [
        "required",
        "unknown_field",
        "duplicate_field",
        "unknown_value",
        "wrong_type",
        "wrong_length",
        "invalid_uuid",
        "invalid_phone",
        "invalid_timestamp",
        "invalid_char",
        "invalid_base64",
        "invalid_json",
        "invalid_format",
        "too_short",
        "too_long",
        "too_few",
        "too_many",
        "out_of_range",
    ];
    PLAIN.contains(&code)
}

/// One wrong field alone gives its code where that says what the value stands for, such as `weak_password`.
fn code_of(fields: &[FieldError]) -> Cow<'static, str> {
    match fields {
        [only] if !is_plain(&only.code) => Cow::Owned(only.code.clone()),
        _ => Cow::Borrowed("invalid"),
    }
}

fn default_code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "unreadable",
        StatusCode::UNAUTHORIZED => "unauthenticated",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::CONFLICT => "conflict",
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
        StatusCode::UNPROCESSABLE_ENTITY => "invalid",
        StatusCode::LOCKED => "locked",
        StatusCode::UPGRADE_REQUIRED => "upgrade_required",
        StatusCode::TOO_MANY_REQUESTS => "rate_limited",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        StatusCode::GATEWAY_TIMEOUT => "timed_out",
        status if status.is_client_error() => "refused",
        _ => "internal",
    }
}

fn default_retry_after(status: StatusCode) -> Option<Duration> {
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some(Duration::from_secs(1)),
        StatusCode::LOCKED => Some(Duration::from_secs(60)),
        _ => None,
    }
}

/// RFC 6750 section 3: no error code where no token was given.
fn challenge(code: &str) -> HeaderValue {
    match code {
        "token_invalid" => HeaderValue::from_static("Bearer error=\"invalid_token\", error_description=\"not an access token\""),
        "token_expired" => HeaderValue::from_static("Bearer error=\"invalid_token\", error_description=\"expired\""),
        "token_revoked" => HeaderValue::from_static("Bearer error=\"invalid_token\", error_description=\"revoked\""),
        _ => HeaderValue::from_static("Bearer"),
    }
}

/// A guest's code is passed on only if it is one.
fn is_code(code: &str) -> bool {
    (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn bounded(mut fields: Vec<FieldError>) -> Vec<FieldError> {
    fields.truncate(limits::FIELD_ERRORS_MAX);
    fields
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    content_type.starts_with(b"application/json") || content_type.starts_with(b"application/problem+json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use echo_runtime::ServiceError;

    async fn json_of(response: Response) -> (u16, HeaderMap, serde_json::Value) {
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (parts.status.as_u16(), parts.headers, serde_json::from_slice(&bytes).unwrap())
    }

    fn declined(kind: ErrorKind, code: &str) -> CallError {
        CallError::Declined(ServiceError {
            kind,
            code: code.to_owned(),
            message: "SELECT * FROM secrets".to_owned(),
            fields: Vec::new(),
            retry_after: None,
        })
    }

    #[test]
    fn the_kind_alone_decides_the_status() {
        let cases = [
            (ErrorKind::Invalid, 422),
            (ErrorKind::Unauthenticated, 401),
            (ErrorKind::Forbidden, 403),
            (ErrorKind::NotFound, 404),
            (ErrorKind::Conflict, 409),
            (ErrorKind::Locked, 423),
            (ErrorKind::TooLarge, 413),
            (ErrorKind::RateLimited, 429),
            (ErrorKind::Unavailable, 503),
            (ErrorKind::Internal, 500),
        ];
        for (kind, status) in cases {
            let response = Problem::from(declined(kind, "some_code")).into_response();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers().contains_key(RETRY_AFTER), [423, 429, 503].contains(&status), "{status}");
            assert_eq!(response.headers().contains_key(WWW_AUTHENTICATE), status == 401, "{status}");
        }
    }

    #[tokio::test]
    async fn a_fault_tells_its_code_and_nothing_else() {
        let (status, _, body) = json_of(Problem::from(declined(ErrorKind::Internal, "broken")).into_full_response(Some("r-1"))).await;
        assert_eq!(status, 500);
        assert_eq!(
            body,
            serde_json::json!({
                "type": "/docs/errors/broken", "title": "Internal Server Error", "status": 500, "code": "broken", "request_id": "r-1"
            })
        );
        let trap = Problem::from(CallError::Failed("wasm trap: unreachable".to_owned())).render(None);
        assert!(!String::from_utf8(trap).unwrap().contains("trap"));
    }

    #[test]
    fn plain_validation_is_invalid_and_a_code_that_says_more_stands_for_itself() {
        let wrong = |code: &str| FieldError { field: "a".to_owned(), code: code.to_owned(), detail: String::new() };
        for (codes, expect) in [
            (&["too_long"][..], "invalid"),
            (&["out_of_range"], "invalid"),
            (&["required"], "invalid"),
            (&["weak_password"], "weak_password"),
            (&["unreadable_text"], "unreadable_text"),
            (&["weak_password", "too_long"], "invalid"),
        ] {
            let fields: Vec<FieldError> = codes.iter().map(|code| wrong(code)).collect();
            assert_eq!(Problem::from(CallError::Invalid(fields.clone())).code, expect, "{codes:?}, by the contract");
            // A service's own check of one field, and of several.
            let code = if let [only] = codes { only } else { "invalid" };
            let CallError::Declined(error) = declined(ErrorKind::Invalid, code) else { unreachable!("it was made so") };
            let problem = Problem::from(CallError::Declined(ServiceError { fields, ..error }));
            assert_eq!((&*problem.code, problem.errors.len()), (expect, codes.len()), "{codes:?}, by a service");
        }
        assert_eq!(Problem::from(declined(ErrorKind::Invalid, "phone_not_served")).code, "phone_not_served");
    }

    #[test]
    fn a_code_that_is_none_is_replaced() {
        for code in ["", "Phone Taken", "x\r\ny", &"a".repeat(65)] {
            assert_eq!(Problem::from(declined(ErrorKind::Conflict, code)).code, "conflict", "{code:?}");
        }
    }

    #[test]
    fn waiting_times_are_rounded_up() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1_001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(60)), 60);
    }

    #[tokio::test]
    async fn a_bare_failure_becomes_a_problem_and_a_json_one_stays() {
        let bare = (StatusCode::GATEWAY_TIMEOUT, "plain text").into_response();
        let (_, headers, body) = json_of(finish(bare, Some("r-2"))).await;
        assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!((body["code"].as_str(), body["request_id"].as_str()), (Some("timed_out"), Some("r-2")));

        let json = (StatusCode::BAD_REQUEST, [(CONTENT_TYPE, "application/json")], "{\"own\":1}").into_response();
        assert_eq!(json_of(finish(json, Some("r-3"))).await.2, serde_json::json!({"own": 1}));
    }
}
