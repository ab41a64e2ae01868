//! Uploads and downloads: the bytes go between a client and the service's blobs and never into a guest's memory; the service is called with a record that
//! describes them. Knows no domain noun.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Extensions, HeaderMap, HeaderValue, StatusCode, Version};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::body::{body_late, too_large};
use super::{Gateway, ServiceReply, ServiceRequest, on_its_own};
use crate::idempotency::{self, IDEMPOTENT_REPLAYED};
use crate::problem::Problem;
use crate::services::Services;
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::blob::{BlobError, ByteStream};
use echo_edge::problem::MadeElsewhere;
use echo_edge::rates::Subject;
use echo_runtime::manifest::{Stream as RouteStream, StreamKind};

mod download;
mod range;
pub mod tus;

/// An extension of answers whose bytes are a file's: sent as they are.
#[derive(Clone, Copy)]
struct File;

/// Whether an answer may be compressed. One of an outside service is compressed by that service, if at all: it may come piece by piece.
pub fn is_no_file(_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions) -> bool {
    extensions.get::<File>().is_none() && extensions.get::<MadeElsewhere>().is_none()
}

/// What a service is called with when a file has come as a form.
#[derive(Serialize)]
struct Received<'a> {
    upload: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
}

pub(super) async fn answer<S: Services>(call: Box<ServiceRequest<S>>, body: Body) -> Result<Response, Problem> {
    let Some(stream) = call.route.route.stream else { return Err(Problem::internal()) };
    match stream.kind {
        StreamKind::Download => download::answer(call).await,
        StreamKind::TusCreate => tus::create(call, body, stream.bytes_max).await,
        StreamKind::TusState => tus::state(call).await,
        // In a task of its own: if the client's connection breaks, the bytes received so far are kept.
        StreamKind::Upload => on_its_own(&call.gateway.background.clone(), upload(call, body, stream)).await,
        StreamKind::TusAppend => on_its_own(&call.gateway.background.clone(), tus::append(call, body)).await,
    }
}

/// multipart/form-data (RFC 7578) with one file, in its field `file`, and nothing else.
async fn upload<S: Services>(mut call: Box<ServiceRequest<S>>, body: Body, stream: RouteStream) -> Result<Response, Problem> {
    let content_type = call.request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Ok(boundary) = multer::parse_boundary(content_type) else {
        let detail = "send the file as multipart/form-data, in the field `file`";
        let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail);
        return Err(problem.with(ACCEPT, HeaderValue::from_static("multipart/form-data")));
    };
    let whole_max = stream.bytes_max.saturating_add(limits::FORM_OVERHEAD_BYTES_MAX);
    if declared_length(&call.request.headers).is_some_and(|length| length > whole_max) {
        return Err(too_large());
    }
    let key: Option<Arc<str>> = idempotency::key_of(&call.request.headers)?.map(Arc::from);
    let (gateway, service) = (call.gateway.clone(), call.route.target.service.clone());
    let (body, stopped) = receive(&mut call, body)?;
    let sizes = multer::SizeLimit::new().whole_stream(whole_max);
    let mut form = multer::Multipart::with_constraints(body, boundary, multer::Constraints::new().size_limit(sizes));
    let mut received: Option<ReceivedFile> = None;
    loop {
        let before = received.as_ref().map(|came| came.upload.as_str());
        let field = match form.next_field().await {
            Ok(Some(field)) => field,
            Ok(None) => break,
            Err(error) => return Err(discarding(&gateway, &service, before, stopped.of_form(&error, call.request.version)).await),
        };
        if field.name() != Some("file") {
            let name: String = field.name().unwrap_or_default().chars().take(FIELD_CHARS_SHOWN).collect();
            return Err(discarding(
                &gateway,
                &service,
                before,
                Problem::invalid(&name, "unknown_field", "the form has the field `file` alone"),
            )
            .await);
        }
        if received.is_some() {
            return Err(discarding(&gateway, &service, before, Problem::invalid("file", "too_many", "one file at a time")).await);
        }
        let upload = Uuid::now_v7().to_string();
        let (file_name, content_type) = (field.file_name().and_then(base_name), field.content_type().map(ToString::to_string));
        let hash = Arc::new(Mutex::new(Sha256::new()));
        let hashing = key.is_some().then(|| hash.clone());
        let bytes: ByteStream = field
            .map_err(io::Error::other)
            .inspect_ok(move |bytes: &Bytes| {
                if let Some(hash) = &hashing {
                    hash.lock().update(bytes);
                }
            })
            .boxed();
        match gateway.blobs.append(&service, &upload, 0, stream.bytes_max, bytes).await {
            Ok(size) => {
                let hash = hash.lock().clone().finalize().into();
                received = Some(ReceivedFile { upload, size, file_name, content_type, hash });
            }
            Err(error) => return Err(discarding(&gateway, &service, Some(&upload), stopped.of_blob(error, call.request.version)).await),
        }
    }
    let Some(ReceivedFile { upload, size, file_name, content_type, hash }) = received else {
        return Err(Problem::invalid("file", "required", "the form has no file in its field `file`"));
    };
    (call.since, call.held) = (Instant::now(), None);
    // The same file is the same request, whatever the boundary of its form.
    let same = fingerprint_of(&call, hash, file_name.as_deref(), content_type.as_deref());
    let received = Received { upload: &upload, size, file_name, content_type };
    call.body = serde_json::to_vec(&received).expect("strings and numbers always serialise").into();
    let answered = match key {
        Some(key) => call.answer_once(key, same).await,
        None => call.run(None).await.map(ServiceReply::into_response),
    };
    match answered {
        Ok(replayed) if replayed.headers().contains_key(IDEMPOTENT_REPLAYED) => {
            discard(&gateway, &service, &upload).await;
            Ok(replayed)
        }
        Ok(response) => Ok(response),
        Err(problem) => Err(discarding(&gateway, &service, Some(&upload), problem).await),
    }
}

/// A file that was received as a form.
struct ReceivedFile {
    upload: String,
    size: u64,
    file_name: Option<String>,
    content_type: Option<String>,
    /// SHA-256 of its bytes, where it is needed.
    hash: [u8; 32],
}

/// The fingerprint by which two uploads are the same.
fn fingerprint_of<S: Services>(call: &ServiceRequest<S>, hash: [u8; 32], file_name: Option<&str>, content_type: Option<&str>) -> [u8; 32] {
    let parts = serde_json::to_vec(&(hash, file_name, content_type)).expect("strings and numbers always serialise");
    idempotency::fingerprint(call.request.uri.path(), call.request.uri.query(), &parts)
}

/// How much of a name that a client made up comes back in the answer, in characters.
const FIELD_CHARS_SHOWN: usize = 64;

/// The last part of what a client calls its file: a path is none of its name (RFC 7578 section 4.2, RFC 6266 section 4.3).
pub(super) fn base_name(file_name: &str) -> Option<String> {
    let name = file_name.rsplit(['/', '\\']).next().unwrap_or_default();
    (!matches!(name, "" | "." | "..")).then(|| name.to_owned())
}

/// Discards the upload of a request that is refused with this problem.
async fn discarding<S: Services>(gateway: &Gateway<S>, service: &ServiceName, upload: Option<&str>, problem: Problem) -> Problem {
    if let Some(upload) = upload {
        discard(gateway, service, upload).await;
    }
    problem
}

async fn discard<S: Services>(gateway: &Gateway<S>, service: &ServiceName, upload: &str) {
    if let Err(error) = gateway.blobs.discard(service, upload).await {
        tracing::warn!(%service, upload, %error, "an upload that is not used cannot be discarded");
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Why a body ended early, noted where it is read.
#[derive(Clone, Default)]
struct Stopped(Arc<Mutex<Option<StopReason>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StopReason {
    Late,
    Broken,
}

impl Stopped {
    fn note(&self, reason: StopReason) -> io::Error {
        *self.0.lock() = Some(reason);
        io::Error::other("the body stopped")
    }

    fn problem(&self, version: Version) -> Option<Problem> {
        Some(match (*self.0.lock())? {
            StopReason::Late => body_late(version),
            StopReason::Broken => Problem::new(StatusCode::BAD_REQUEST, "unreadable", "the request's body broke off"),
        })
    }

    fn of_form(&self, error: &multer::Error, version: Version) -> Problem {
        let unreadable = || match error {
            multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. } => too_large(),
            _ => Problem::new(StatusCode::BAD_REQUEST, "unreadable", "the body is no whole multipart/form-data"),
        };
        self.problem(version).unwrap_or_else(unreadable)
    }

    fn of_blob(&self, error: BlobError, version: Version) -> Problem {
        self.problem(version).unwrap_or_else(|| problem_of(error))
    }
}

/// The bytes of a body, which must make progress; and why it stopped, if it did. What is in memory of it is counted for its client.
/// Errors: 429 and 503 where too many bytes are held already.
fn receive<S: Services>(call: &mut ServiceRequest<S>, body: Body) -> Result<(ByteStream, Stopped), Problem> {
    let user = call.caller.as_ref().map(|caller| Subject::User(caller.user_id));
    let held = call.held.insert(call.gateway.in_flight.hold(Subject::of_address(call.info.client_address), user));
    let declared = declared_length(&call.request.headers).map_or(usize::MAX, |length| usize::try_from(length).unwrap_or(usize::MAX));
    held.take(call.gateway.blobs.append_bytes().min(declared))?;
    call.info.streams();
    let stopped = Stopped::default();
    let noting = stopped.clone();
    let frames = futures_util::stream::try_unfold(body, move |mut body| {
        let noting = noting.clone();
        async move {
            loop {
                let idle = Duration::from_millis(limits::STREAM_IDLE_MS);
                match tokio::time::timeout(idle, body.frame()).await {
                    Err(_) => return Err(noting.note(StopReason::Late)),
                    Ok(None) => return Ok(None),
                    Ok(Some(Err(_))) => return Err(noting.note(StopReason::Broken)),
                    Ok(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => return Ok(Some((data, body))),
                        Err(_) => continue,
                    },
                }
            }
        }
    });
    Ok((frames.boxed(), stopped))
}

fn problem_of(error: BlobError) -> Problem {
    match error {
        BlobError::TooLarge => too_large(),
        BlobError::TooManyPieces => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_pieces", "this upload came in too many pieces; start it again")
        }
        BlobError::NotFound | BlobError::BadName(_) => Problem::not_found(),
        BlobError::Conflict { size } => {
            let problem = Problem::new(StatusCode::CONFLICT, "wrong_offset", "the upload has another size than Upload-Offset says");
            problem.with(tus::UPLOAD_OFFSET, size.into())
        }
        BlobError::BrokeOff { .. } => Problem::new(StatusCode::BAD_REQUEST, "unreadable", "the request's body broke off"),
        BlobError::Unavailable(reason) => {
            tracing::warn!(reason, "the blob store cannot be reached");
            Problem::unavailable("blobs_unavailable", "files cannot be stored or read now", Duration::from_secs(1))
        }
    }
}

/// Reads what a service answered to a call that goes with a file. Errors: 500 where it has another form, which is the manifest's fault.
fn read<S: Services, T: serde::de::DeserializeOwned>(call: &ServiceRequest<S>, body: Option<&Bytes>) -> Result<T, Problem> {
    serde_json::from_slice(body.map_or(&[][..], |body| &body[..])).map_err(|error| {
        tracing::error!(service = %call.route.target.service, route = &*call.route.key, %error, "the reply does not fit the route's stream");
        Problem::internal()
    })
}

#[cfg(test)]
mod tests;
