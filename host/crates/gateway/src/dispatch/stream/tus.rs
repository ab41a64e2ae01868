//! Resumable uploads: tus 1.0.0 (tus.io/protocols/resumable-upload) with the extension `creation`. A service makes the upload and says how long it
//! is; the host keeps what comes and says how much that is. Termination is a DELETE route of the service's own.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};

use super::super::{ServiceReply, ServiceRequest, on_its_own};
use crate::idempotency;
use crate::problem::Problem;
use crate::services::Services;
use echo_capabilities::blob::BlobError;

pub const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
pub const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
pub const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
pub const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
pub const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
pub const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
pub const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");

const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");

#[derive(Serialize)]
struct Wanted {
    length: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
}

/// Of a service's reply.
#[derive(Deserialize)]
struct Upload {
    id: String,
    /// While it comes: how long it will be.
    #[serde(default)]
    upload_length: Option<u64>,
    /// Once it is whole: how many bytes came.
    #[serde(default)]
    uploaded: Option<u64>,
}

/// What a client may know before it begins.
pub fn options(allow: &HeaderValue, bytes_max: u64) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ALLOW, allow.clone());
    headers.insert(TUS_RESUMABLE, VERSION);
    headers.insert(TUS_VERSION, VERSION);
    headers.insert(TUS_EXTENSION, HeaderValue::from_static("creation,termination"));
    headers.insert(TUS_MAX_SIZE, bytes_max.into());
    response
}

pub(super) async fn create<S: Services>(mut call: Box<ServiceRequest<S>>, body: Body, bytes_max: u64) -> Result<Response, Problem> {
    let headers = &call.request.headers;
    check_version(headers)?;
    let key: Option<Arc<str>> = idempotency::key_of(headers)?.map(Arc::from);
    if !body.is_end_stream() {
        return Err(Problem::invalid("Upload-Length", "unexpected_body", "the bytes come by PATCH"));
    }
    let length = number(headers, &UPLOAD_LENGTH)?;
    if length > bytes_max {
        let detail = format!("{} is beyond the {bytes_max} bytes that a file may have", shown(&UPLOAD_LENGTH));
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail));
    }
    let metadata = |key| metadata(headers, key);
    let file_name = metadata("filename")?.as_deref().and_then(super::base_name);
    let wanted = Wanted { length, file_name, content_type: metadata("filetype")? };
    call.body = serde_json::to_vec(&wanted).expect("strings and numbers always serialise").into();
    let path = call.request.uri.path().trim_end_matches('/').to_owned();
    let answered = match key {
        Some(key) => {
            let fingerprint = idempotency::fingerprint(&path, None, &call.body);
            on_its_own(&call.gateway.background.clone(), call.answer_once(key, fingerprint)).await
        }
        None => call.run(None).await.map(ServiceReply::into_response),
    };
    let mut response = answered?;
    if !response.status().is_success() {
        return Ok(response);
    }
    // The whole of it is in memory already.
    let body = std::mem::take(response.body_mut()).collect().await.map_err(|_| Problem::internal())?.to_bytes();
    let upload: Upload = serde_json::from_slice(&body).map_err(|_| Problem::internal())?;
    *response.body_mut() = Body::from(body);
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_str(&format!("{path}/{}", upload.id)).map_err(|_| Problem::internal())?);
    headers.insert(TUS_RESUMABLE, VERSION);
    headers.insert(UPLOAD_OFFSET, 0.into());
    Ok(response)
}

/// What is wrong, by the names that the client gave: the service knows fields of a record.
pub fn as_headers(mut problem: Problem) -> Problem {
    for error in &mut problem.errors {
        let header = if error.field == "length" { &UPLOAD_LENGTH } else { &UPLOAD_METADATA };
        error.field = shown(header);
    }
    problem
}

/// As the protocol writes it.
fn shown(header: &HeaderName) -> String {
    let words = header.as_str().split('-').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_ascii_uppercase() + rest
    });
    words.collect::<Vec<_>>().join("-")
}

/// The service's own answer, with how much has come of an upload that is not whole.
pub(super) async fn state<S: Services>(call: Box<ServiceRequest<S>>) -> Result<Response, Problem> {
    let done = call.run(None).await?;
    let upload: Upload = super::read(&call, done.body.as_ref())?;
    let mut response = done.into_response();
    let headers = response.headers_mut();
    // Of one that is whole all has come (tus 1.0.0, "HEAD": the offset is there always).
    if let (None, Some(uploaded)) = (upload.upload_length, upload.uploaded) {
        headers.insert(UPLOAD_OFFSET, uploaded.into());
        headers.insert(UPLOAD_LENGTH, uploaded.into());
        headers.insert(TUS_RESUMABLE, VERSION);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    } else if let Some(length) = upload.upload_length {
        let come = match call.gateway.blobs.upload_size(&call.route.target.service, &upload.id).await {
            Err(BlobError::NotFound) => 0,
            other => other.map_err(super::problem_of)?,
        };
        headers.insert(UPLOAD_OFFSET, come.into());
        headers.insert(UPLOAD_LENGTH, length.into());
        headers.insert(TUS_RESUMABLE, VERSION);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(response)
}

pub(super) async fn append<S: Services>(mut call: Box<ServiceRequest<S>>, body: Body) -> Result<Response, Problem> {
    check_version(&call.request.headers)?;
    if call.request.headers.get(CONTENT_TYPE).is_none_or(|value| value != "application/offset+octet-stream") {
        let detail = "send the bytes as application/offset+octet-stream";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    let offset = number(&call.request.headers, &UPLOAD_OFFSET)?;
    // First whether the caller may at all.
    call.body = "{}".into();
    let may = call.run(None).await?;
    let upload: Upload = super::read(&call, may.body.as_ref())?;
    let Some(length) = upload.upload_length else {
        return Err(upload_whole());
    };
    let service = call.route.target.service.clone();
    let (bytes, stopped) = super::receive(&mut call, body)?;
    let size = match call.gateway.blobs.append(&service, &upload.id, offset, length, bytes).await {
        Ok(size) => size,
        // Of two at one offset the other was taken, and the file is whole by now, or it was given up: the service knows.
        Err(BlobError::NotFound) => {
            let now = call.run(None).await?;
            let upload: Upload = super::read(&call, now.body.as_ref())?;
            return Err(if upload.upload_length.is_none() { upload_whole() } else { Problem::not_found() });
        }
        Err(error) => return Err(stopped.of_blob(error, call.request.version)),
    };
    (call.since, call.held) = (Instant::now(), None);
    call.body = format!("{{\"size\":{size}}}").into();
    call.run(None).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(UPLOAD_OFFSET, size.into());
    response.headers_mut().insert(TUS_RESUMABLE, VERSION);
    Ok(response)
}

fn upload_whole() -> Problem {
    Problem::new(StatusCode::CONFLICT, "upload_whole", "this upload is whole already")
}

/// Errors: 412 for another version, with the one that is spoken.
fn check_version(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.get(TUS_RESUMABLE).is_some_and(|version| *version == VERSION) {
        return Ok(());
    }
    let problem = Problem::new(StatusCode::PRECONDITION_FAILED, "tus_version", "this wants Tus-Resumable: 1.0.0");
    Err(problem.with(TUS_VERSION, VERSION))
}

/// Errors: 400 where it is missing, or no number.
fn number(headers: &HeaderMap, name: &HeaderName) -> Result<u64, Problem> {
    let unreadable = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "unreadable", detail);
    let Some(value) = headers.get(name) else {
        return Err(unreadable(format!("the header {} is missing: a number of bytes", shown(name))));
    };
    let text = value.to_str().unwrap_or_default();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(unreadable(format!("the header {} is no number of bytes in decimal digits", shown(name))));
    }
    // More than there can be is too large, not unreadable.
    Ok(text.parse().unwrap_or(u64::MAX))
}

/// One value of `Upload-Metadata`: pairs of a key and Base64, with commas between. Errors: 400.
fn metadata(headers: &HeaderMap, key: &str) -> Result<Option<String>, Problem> {
    let text = headers.get(UPLOAD_METADATA).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let value = text.split(',').find_map(|pair| {
        let (name, value) = pair.trim().split_once(' ')?;
        (name == key).then(|| value.trim().to_owned())
    });
    let unreadable = || Problem::new(StatusCode::BAD_REQUEST, "unreadable", "Upload-Metadata is no Base64 of UTF-8");
    let decode = |value: String| STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(unreadable);
    value.map(decode).transpose().map(|value| value.filter(|value| !value.is_empty()))
}
