//! A file for a client: conditions, ranges, and headers with which a browser runs nothing that is in it.

use std::fmt::Write as _;
use std::io;
use std::ops::Range;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_RANGE, RANGE, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use uuid::Uuid;

use super::super::ServiceRequest;
use super::File;
use super::range::{RequestedRange, requested};
use crate::problem::Problem;
use crate::response_cache;
use crate::services::Services;

/// Characters of RFC 8187's `attr-char` that stay as they are.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// Of a service's reply.
#[derive(Deserialize)]
struct Content {
    blob: String,
    content_type: String,
    file_name: Option<String>,
    is_inline: bool,
    /// Whoever has the address may have the file for so long.
    public_max_age_s: Option<u64>,
}

pub(super) async fn answer<S: Services>(call: Box<ServiceRequest<S>>) -> Result<Response, Problem> {
    let done = call.run(None).await?;
    let content: Content = super::read(&call, done.body.as_ref())?;
    let (service, headers) = (&call.route.target.service, &call.request.headers);
    let size = call.gateway.blobs.size(service, &content.blob).await.map_err(super::problem_of)?;
    // An object never changes: its name says which bytes it has.
    let etag = HeaderValue::from_str(&format!("\"{}\"", content.blob)).map_err(|_| Problem::internal())?;
    let mut response = if response_cache::matches(headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let wanted = headers.get(RANGE).and_then(|value| value.to_str().ok()).filter(|_| is_current(headers, &etag));
        let media_type = HeaderValue::from_str(&content.content_type).map_err(|_| Problem::internal())?;
        match requested(wanted, size) {
            RequestedRange::Outside => {
                let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range_outside", "the file has nothing in this range");
                return Err(problem.with(CONTENT_RANGE, value(format!("bytes */{size}"))));
            }
            RequestedRange::Whole => file(&call, &content.blob, StatusCode::OK, media_type, vec![Part::Bytes(0..size)]).await?,
            RequestedRange::Parts(parts) => match &*parts {
                [part] => {
                    let mut response =
                        file(&call, &content.blob, StatusCode::PARTIAL_CONTENT, media_type, vec![Part::Bytes(part.clone())]).await?;
                    response.headers_mut().insert(CONTENT_RANGE, value(content_range(part, size)));
                    response
                }
                parts => {
                    let boundary = Uuid::now_v7().simple().to_string();
                    let pieces = multipart(parts, size, &content.content_type, &boundary);
                    let media_type = value(format!("multipart/byteranges; boundary={boundary}"));
                    file(&call, &content.blob, StatusCode::PARTIAL_CONTENT, media_type, pieces).await?
                }
            },
        }
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, etag);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.insert(CONTENT_DISPOSITION, value(disposition(content.is_inline, content.file_name.as_deref())));
    headers.insert(
        CACHE_CONTROL,
        match content.public_max_age_s {
            Some(seconds) => value(format!("public, max-age={seconds}, immutable")),
            None => HeaderValue::from_static("private, no-cache"),
        },
    );
    if content.public_max_age_s.is_none() {
        headers.insert(VARY, HeaderValue::from_static("authorization"));
    }
    Ok(response)
}

/// Whether a range is of the file that the client knows (RFC 9110 section 13.1.5). No answer has a Last-Modified, so that no date is right.
fn is_current(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers.get(IF_RANGE).is_none_or(|known| known == etag)
}

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Bytes(Range<u64>),
    Text(String),
}

impl Part {
    fn size(&self) -> u64 {
        match self {
            Part::Bytes(range) => range.end - range.start,
            Part::Text(text) => text.len() as u64,
        }
    }
}

/// RFC 9110 section 14.6.
fn multipart(parts: &[Range<u64>], size: u64, content_type: &str, boundary: &str) -> Vec<Part> {
    let mut pieces = Vec::with_capacity(2 * parts.len() + 1);
    for part in parts {
        let range = content_range(part, size);
        pieces.push(Part::Text(format!("\r\n--{boundary}\r\ncontent-type: {content_type}\r\ncontent-range: {range}\r\n\r\n")));
        pieces.push(Part::Bytes(part.clone()));
    }
    pieces.push(Part::Text(format!("\r\n--{boundary}--\r\n")));
    pieces
}

async fn file<S: Services>(
    call: &ServiceRequest<S>,
    blob: &str,
    status: StatusCode,
    content_type: HeaderValue,
    parts: Vec<Part>,
) -> Result<Response, Problem> {
    let length: u64 = parts.iter().map(Part::size).sum();
    let (blobs, service, blob) = (call.gateway.blobs.clone(), call.route.target.service.clone(), blob.to_owned());
    // One after the other: one file is open at a time.
    let bytes = stream::iter(parts).then(move |part| {
        let (blobs, service, blob) = (blobs.clone(), service.clone(), blob.clone());
        async move {
            match part {
                Part::Text(text) => stream::iter([Ok(Bytes::from(text))]).boxed(),
                Part::Bytes(range) => match blobs.read(&service, &blob, range).await {
                    Ok(bytes) => bytes,
                    Err(error) => stream::iter([Err(io::Error::other(error))]).boxed(),
                },
            }
        }
    });
    let mut response = Response::new(Body::from_stream(bytes.flatten()));
    *response.status_mut() = status;
    response.extensions_mut().insert(File);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    Ok(response)
}

fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end - 1)
}

/// RFC 6266: the name in ASCII, and whole as RFC 8187 writes it.
fn disposition(is_inline: bool, file_name: Option<&str>) -> String {
    let mut text = if is_inline { "inline" } else { "attachment" }.to_owned();
    if let Some(name) = file_name.and_then(super::base_name) {
        let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || "._- ".contains(c) { c } else { '_' }).collect();
        write!(text, "; filename=\"{plain}\"; filename*=UTF-8''{}", utf8_percent_encode(&name, KEPT)).expect("a string takes all");
    }
    text
}

fn value(text: String) -> HeaderValue {
    HeaderValue::from_str(&text).expect("ASCII")
}
