//! JSON bodies of an outside service whose fields the operator changes: read whole, within a bound, and written anew. Other bodies are streamed as they are.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;

use super::APPLICATION_JSON;
use super::body::{limited, read_body};
use crate::problem::Problem;
use echo_base::limits;
use echo_contract::changes::{BodyChanges, BodyError};
use echo_edge::in_flight::{Full, Held};

/// What speaks of the bytes that are not sent any more.
const OF_OTHER_BYTES: [HeaderName; 8] = [
    CONTENT_LENGTH,
    ETAG,
    LAST_MODIFIED,
    ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// Why an answer cannot be given its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchanged {
    TooLarge,
    Encoded,
    Unreadable,
    /// The service broke off.
    Broken,
    TimedOut,
    /// Too many bytes of bodies are held at one time.
    NoRoom(Full),
}

/// The client's body with the fields that the service knows, where it is JSON. Errors: 413 beyond the bound, 415 for a compressed one and for two types, 400 for what is no JSON,
/// 422 for two fields that become one.
pub async fn request(headers: &mut HeaderMap, body: Body, changes: &BodyChanges, held: &mut Held) -> Result<Body, Problem> {
    let unsupported = |detail: &'static str| {
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail).with(ACCEPT, APPLICATION_JSON))
    };
    // The service might read another one of them than this does.
    if headers.get_all(CONTENT_TYPE).iter().nth(1).is_some() {
        return unsupported("say the Content-Type once");
    }
    if body.is_end_stream() || !is_json(headers) {
        return Ok(body);
    }
    if is_encoded(headers) {
        return unsupported("send the body as plain application/json");
    }
    let came = read_body(limited(headers, body, limits::OUTSIDE_CHANGED_BODY_BYTES_MAX)?, held).await?;
    if came.is_empty() {
        return Ok(Body::empty());
    }
    let changed = changes.apply(&came).map_err(|error| match error {
        BodyError::Unreadable(_) => Problem::new(StatusCode::BAD_REQUEST, "unreadable", error.to_string()),
        BodyError::Twice(ref field) => Problem::invalid(field, "duplicate_field", error.to_string()),
    })?;
    OF_OTHER_BYTES.iter().for_each(|name| drop(headers.remove(name)));
    Ok(Body::from(changed))
}

/// Asks for answers that can be changed: whole ones, plain, and whether or not the client has an older one.
pub fn ask_for_whole(headers: &mut HeaderMap) {
    for name in [RANGE, IF_RANGE, IF_NONE_MATCH, IF_MODIFIED_SINCE] {
        headers.remove(name);
    }
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// A success with the fields that clients know, where it is JSON; all other answers are as they came, and still stream.
pub async fn answer(
    answer: Response,
    changes: &BodyChanges,
    is_head: bool,
    timeout: Duration,
    held: &mut Held,
) -> Result<Response, Unchanged> {
    let has_body = answer.status().is_success() && !matches!(answer.status(), StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
    if !has_body || !is_json(answer.headers()) {
        return Ok(answer);
    }
    let (mut head, body) = answer.into_parts();
    if is_head {
        OF_OTHER_BYTES.iter().for_each(|name| drop(head.headers.remove(name)));
        return Ok(Response::from_parts(head, body));
    }
    if is_encoded(&head.headers) || head.status == StatusCode::PARTIAL_CONTENT {
        return Err(Unchanged::Encoded);
    }
    let bytes_max = limits::OUTSIDE_CHANGED_BODY_BYTES_MAX;
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > bytes_max) {
        return Err(Unchanged::TooLarge);
    }
    let came = tokio::time::timeout(timeout, whole(body, bytes_max, held)).await.map_err(|_| Unchanged::TimedOut)??;
    let changed = if came.is_empty() { Vec::new() } else { changes.apply(&came).map_err(|_| Unchanged::Unreadable)? };
    OF_OTHER_BYTES.iter().for_each(|name| drop(head.headers.remove(name)));
    Ok(Response::from_parts(head, Body::from(changed)))
}

async fn whole(mut body: Body, bytes_max: usize, held: &mut Held) -> Result<Vec<u8>, Unchanged> {
    let mut came = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Unchanged::Broken)?.into_data() else { continue };
        held.take(data.len()).map_err(Unchanged::NoRoom)?;
        if came.len() + data.len() > bytes_max {
            return Err(Unchanged::TooLarge);
        }
        came.extend_from_slice(&data);
    }
    Ok(came)
}

/// `application/json`, or a type that is written in it (RFC 6839 section 3.1).
fn is_json(headers: &HeaderMap) -> bool {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == "application/json" || (media.starts_with("application/") && media.ends_with("+json"))
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}
