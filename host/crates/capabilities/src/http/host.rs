//! `echo:http/http` for a guest: counts and lengths are checked here, before anything is sent.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use wasmtime::component::{HasSelf, Linker};

use super::{HttpError, OutgoingRequest, OutgoingResponse};
use crate::guest::Guest;
use bindings::echo::http::http::{Header, Host, HttpError as GuestError, Request, Response};
use echo_base::limits;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        inline: "package echo:host; world capability { import echo:http/http@0.1.0; }",
        imports: { "echo:http/http@0.1.0.send": async | trappable, default: trappable },
    });
}

/// Gives the interface to whatever is instantiated with this linker.
pub fn add_to_linker<T: Send + 'static>(linker: &mut Linker<T>, get: fn(&mut T) -> &mut Guest) -> wasmtime::Result<()> {
    bindings::echo::http::http::add_to_linker::<T, HasSelf<Guest>>(linker, get)
}

impl Host for Guest {
    async fn send(&mut self, requests: Vec<Request>) -> wasmtime::Result<Vec<Result<Response, GuestError>>> {
        wasmtime::ensure!(requests.len() <= limits::HTTP_REQUESTS_AT_ONCE_MAX, "{} requests at once", requests.len());
        // An open transaction holds up all others of the service for as long as somebody else takes to answer.
        wasmtime::ensure!(self.transaction.is_none(), "a request within a transaction");
        let left = self.context().deadline.saturating_duration_since(Instant::now());
        let (http, grants) = (&self.capabilities.http, &self.http_grants);
        let answers = join_all(requests.into_iter().map(async |request| http.send(grants, checked(request, left)?).await)).await;
        Ok(answers
            .into_iter()
            .map(|answer| {
                metrics::counter!("echo_service_requests_total", "service" => self.service.to_string(), "outcome" => outcome(&answer))
                    .increment(1);
                answer.map(response).map_err(|error| {
                    tracing::debug!(service = %self.service, %error, "an outgoing request failed");
                    guest_error(&error)
                })
            })
            .collect())
    }

    fn public_key(&mut self, credential: String) -> wasmtime::Result<Option<String>> {
        Ok(if self.http_grants.has_credential(&credential) { self.capabilities.http.public_key(&credential) } else { None })
    }
}

fn checked(request: Request, left: Duration) -> Result<OutgoingRequest, HttpError> {
    let headers_bytes: usize = request.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
    if request.body.len() > limits::HTTP_BODY_BYTES_MAX
        || request.url.len() > limits::HTTP_URL_BYTES_MAX
        || request.headers.len() > limits::HTTP_HEADERS_MAX
        || headers_bytes > limits::HTTP_HEADERS_BYTES_MAX
    {
        return Err(HttpError::TooLarge);
    }
    Ok(OutgoingRequest {
        method: request.method,
        url: request.url,
        headers: request.headers.into_iter().map(|header| (header.name, header.value)).collect(),
        body: request.body,
        credential: request.credential,
        timeout: Duration::from_millis(u64::from(request.timeout_ms).min(limits::HTTP_TIMEOUT_MS)).min(left),
    })
}

/// For the metric: a class of status codes, or what kept the request from an answer.
fn outcome(answer: &Result<OutgoingResponse, HttpError>) -> &'static str {
    match answer {
        Ok(OutgoingResponse { status: 200..=299, .. }) => "2xx",
        Ok(OutgoingResponse { status: 400..=499, .. }) => "4xx",
        Ok(OutgoingResponse { status: 500..=599, .. }) => "5xx",
        Ok(_) => "other",
        Err(HttpError::NotGranted(_)) => "not_granted",
        Err(HttpError::Invalid(_)) => "invalid",
        Err(HttpError::Unreachable(_)) => "unreachable",
        Err(HttpError::TimedOut) => "timed_out",
        Err(HttpError::TooLarge) => "too_large",
        Err(HttpError::NoCredential(_)) => "no_credential",
    }
}

fn response(response: OutgoingResponse) -> Response {
    let OutgoingResponse { status, headers, body } = response;
    Response { status, headers: headers.into_iter().map(|(name, value)| Header { name, value }).collect(), body }
}

fn guest_error(error: &HttpError) -> GuestError {
    match error {
        HttpError::NotGranted(_) => GuestError::NotGranted,
        HttpError::Invalid(_) => GuestError::Invalid,
        HttpError::Unreachable(_) => GuestError::Unreachable,
        HttpError::TimedOut => GuestError::TimedOut,
        HttpError::TooLarge => GuestError::TooLarge,
        HttpError::NoCredential(_) => GuestError::NoCredential,
    }
}
