//! Files: their bytes go between a client and the service's blobs and are in no guest's memory; the service decides beside them, by a call with a
//! record. Knows no domain noun: what a file is, the service knows.

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
use uuid::Uuid;

use super::{Call, body_late, too_large};
use crate::backend::Backend;
use crate::problem::Problem;
use echo_base::limits;
use echo_capabilities::blob::{BlobError, ByteStream};
use echo_edge::rates::Subject;
use echo_runtime::manifest::{Stream as RouteStream, StreamKind};

mod download;
mod range;
pub mod tus;

/// An extension of answers whose bytes are a file's: sent as they are.
#[derive(Clone, Copy)]
struct File;

/// Whether an answer may be compressed.
pub fn is_no_file(_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions) -> bool {
    extensions.get::<File>().is_none()
}

/// What a service is told of a file that has come as a form.
#[derive(Serialize)]
struct Received<'a> {
    upload: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
}

pub(super) async fn answer<B: Backend>(call: Box<Call<B>>, body: Body) -> Result<Response, Problem> {
    let Some(stream) = call.route.route.stream else { return Err(Problem::internal()) };
    match stream.kind {
        StreamKind::Download => download::answer(call).await,
        StreamKind::TusCreate => tus::create(call, body, stream.bytes_max).await,
        StreamKind::TusState => tus::state(call).await,
        // In a task of its own: should the client's connection break, what has come is kept.
        StreamKind::Upload => on_its_own(&call.gateway.background.clone(), upload(call, body, stream)).await,
        StreamKind::TusAppend => on_its_own(&call.gateway.background.clone(), tus::append(call, body)).await,
    }
}

async fn on_its_own(
    tasks: &tokio_util::task::TaskTracker,
    work: impl Future<Output = Result<Response, Problem>> + Send + 'static,
) -> Result<Response, Problem> {
    tasks.spawn(work).await.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(Problem::unavailable("shutting_down", "this host is shutting down", Duration::from_secs(1))),
    })
}

/// multipart/form-data (RFC 7578) with one file, in its field `file`.
async fn upload<B: Backend>(mut call: Box<Call<B>>, body: Body, stream: RouteStream) -> Result<Response, Problem> {
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
    let service = call.route.target.service.clone();
    let (body, stopped) = receive(&mut call, body)?;
    let sizes = multer::SizeLimit::new().whole_stream(whole_max);
    let mut form = multer::Multipart::with_constraints(body, boundary, multer::Constraints::new().size_limit(sizes));
    let mut received = None;
    loop {
        let field = match form.next_field().await {
            Ok(Some(field)) => field,
            Ok(None) => break,
            Err(error) => return Err(discarding(&call, &received, stopped.of_form(&error, call.request.version)).await),
        };
        if field.name() != Some("file") {
            continue;
        }
        if received.is_some() {
            return Err(discarding(&call, &received, Problem::invalid("file", "too_many", "one file at a time")).await);
        }
        let upload = Uuid::now_v7().to_string();
        let (file_name, content_type) = (field.file_name().map(str::to_owned), field.content_type().map(ToString::to_string));
        let bytes: ByteStream = field.map_err(io::Error::other).boxed();
        match call.gateway.blobs.append(&service, &upload, 0, stream.bytes_max, bytes).await {
            Ok(size) => received = Some((upload, size, file_name, content_type)),
            Err(error) => {
                let problem = stopped.of_blob(error, call.request.version);
                return Err(discarding(&call, &Some((upload, 0, None, None)), problem).await);
            }
        }
    }
    let Some((upload, size, file_name, content_type)) = received else {
        return Err(Problem::invalid("file", "required", "the form has no file in its field `file`"));
    };
    (call.since, call.held) = (Instant::now(), None);
    let told = Received { upload: &upload, size, file_name, content_type };
    call.body = serde_json::to_vec(&told).expect("strings and numbers always serialise").into();
    match call.run(None).await {
        Ok(done) => Ok(done.into_response()),
        Err(problem) => Err(discarding(&call, &Some((upload, 0, None, None)), problem).await),
    }
}

type Came = (String, u64, Option<String>, Option<String>);

/// What is refused is not kept.
async fn discarding<B: Backend>(call: &Call<B>, came: &Option<Came>, problem: Problem) -> Problem {
    if let Some((upload, ..)) = came
        && let Err(error) = call.gateway.blobs.discard(&call.route.target.service, upload).await
    {
        tracing::warn!(service = %call.route.target.service, upload, %error, "a refused upload cannot be discarded");
    }
    problem
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Why a body gave no more, seen where it is read.
#[derive(Clone, Default)]
struct Stopped(Arc<Mutex<Option<Reason>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Late,
    Broken,
}

impl Stopped {
    fn note(&self, reason: Reason) -> io::Error {
        *self.0.lock() = Some(reason);
        io::Error::other("the body stopped")
    }

    fn problem(&self, version: Version) -> Option<Problem> {
        Some(match (*self.0.lock())? {
            Reason::Late => body_late(version),
            Reason::Broken => Problem::new(StatusCode::BAD_REQUEST, "unreadable", "the request's body broke off"),
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
fn receive<B: Backend>(call: &mut Call<B>, body: Body) -> Result<(ByteStream, Stopped), Problem> {
    let user = call.caller.as_ref().map(|caller| Subject::User(caller.user_id));
    let held = call.held.insert(call.gateway.in_flight.hold(Subject::of_address(call.info.client_address), user));
    held.take(2 * limits::BLOB_CHUNK_BYTES)?;
    call.info.streams();
    let stopped = Stopped::default();
    let noting = stopped.clone();
    let frames = futures_util::stream::try_unfold(body, move |mut body| {
        let noting = noting.clone();
        async move {
            loop {
                let idle = Duration::from_millis(limits::STREAM_IDLE_MS);
                match tokio::time::timeout(idle, body.frame()).await {
                    Err(_) => return Err(noting.note(Reason::Late)),
                    Ok(None) => return Ok(None),
                    Ok(Some(Err(_))) => return Err(noting.note(Reason::Broken)),
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
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_pieces", "this upload came in too many pieces; begin it anew")
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
fn read<B: Backend, T: serde::de::DeserializeOwned>(call: &Call<B>, body: Option<&Bytes>) -> Result<T, Problem> {
    serde_json::from_slice(body.map_or(&[][..], |body| &body[..])).map_err(|error| {
        tracing::error!(service = %call.route.target.service, route = &*call.route.key, %error, "the reply does not fit the route's stream");
        Problem::internal()
    })
}

#[cfg(test)]
mod tests;
