//! The JSON body of a request: bounded, checked to be JSON, read whole and counted.

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::APPLICATION_JSON;
use crate::problem::Problem;
use crate::request::RequestInfo;
use echo_edge::in_flight::Held;

/// Bounds a body: by its Content-Length before a byte is read, else while it is read. Errors: 413.
pub fn limited(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Body, Problem> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large());
    }
    if body.is_end_stream() { Ok(body) } else { Ok(Body::new(Limited::new(body, bytes_max))) }
}

/// The body, which must be empty or plain JSON, also where the route reads none: a form or a file that was sent to the wrong path is then refused instead of
/// ignored. Errors: 415.
pub async fn json_only(headers: &HeaderMap, mut body: Body, info: &RequestInfo) -> Result<Body, Problem> {
    if body.is_end_stream() || (headers.get(CONTENT_TYPE).is_some_and(is_json) && !headers.contains_key(CONTENT_ENCODING)) {
        return Ok(body);
    }
    info.receives(true);
    // HTTP/2 and chunked bodies may say only at their end that they are empty.
    while !body.is_end_stream() {
        let is_empty = body.size_hint().lower() == 0
            && match body.frame().await {
                Some(Ok(frame)) => frame.data_ref().is_none_or(Bytes::is_empty),
                Some(Err(error)) => return Err(broken(&error)),
                None => break,
            };
        if !is_empty {
            let detail = "send the body as plain application/json";
            let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail);
            return Err(problem.with(ACCEPT, APPLICATION_JSON));
        }
    }
    info.receives(false);
    Ok(Body::empty())
}

/// The client did not send all of its request in time, and the connection is not to be used again (RFC 9110 section 15.5.9).
pub fn body_late(version: Version) -> Problem {
    let problem = Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timed_out", "the request's body did not arrive in time");
    // HTTP/2 knows no such header (RFC 9113 section 8.2.2).
    if version < Version::HTTP_2 { problem.with(CONNECTION, HeaderValue::from_static("close")) } else { problem }
}

/// Errors: 413 over the bound, 429 and 503 where too many bytes are held already, 400 for a body that breaks off.
pub async fn read_body(mut body: Body, held: &mut Held) -> Result<Bytes, Problem> {
    // Most bodies come in one piece, which is taken as it is.
    let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        held.take(data.len())?;
        if first.is_empty() {
            first = data;
        } else {
            if whole.is_empty() {
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

fn broken(error: &(dyn std::error::Error + 'static)) -> Problem {
    if is_too_large(error) { too_large() } else { Problem::new(StatusCode::BAD_REQUEST, "unreadable", "the request's body broke off") }
}

pub fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the request's body is too large")
}

fn is_json(content_type: &HeaderValue) -> bool {
    let text = content_type.to_str().unwrap_or_default();
    let mut parts = text.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
    // JSON is UTF-8 (RFC 8259 section 8.1): a body that names another charset is refused.
    is_json
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.trim_end().eq_ignore_ascii_case("charset") => {
                value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<LengthLimitError>())
}
