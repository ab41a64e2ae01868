//! The outermost layer: gives every request its ids and every answer its headers, writes the body of a problem, and logs and counts the request.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, ETAG, RANGE, UPGRADE};
use http::{HeaderName, HeaderValue, Method, StatusCode, Version};
use metrics::Gauge;
use tower::{Layer, Service};

use super::request::{PeerAddress, RequestInfo, Served, X_CORRELATION_ID, X_REQUEST_ID, id_value};
use super::{Problem, authority, http2, problem};
use echo_base::limits;
use echo_edge::problem::MadeElsewhere;

/// The status under which a request is counted whose client went away before the answer.
const CLIENT_GONE: u16 = 499;

#[derive(Clone)]
pub(super) struct EdgeLayer {
    pub trusted_proxies_count: usize,
}

#[derive(Clone)]
pub(super) struct Edge<S> {
    inner: S,
    trusted_proxies_count: usize,
}

/// One for the process: a handle of its own for every request would be counted up and down by all threads.
static IN_FLIGHT: LazyLock<Gauge> = LazyLock::new(|| metrics::gauge!("echo_http_requests_in_flight"));

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        Edge { inner, trusted_proxies_count: self.trusted_proxies_count }
    }
}

impl<S, B> Service<Request> for Edge<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let peer = request.extensions().get::<PeerAddress>().copied();
        let is_head = request.method() == Method::HEAD;
        let ends_with_slash = request.uri().path().ends_with('/');
        let mut info = RequestInfo::new(request.headers(), peer, self.trusted_proxies_count);
        (info.is_head, info.ends_with_slash) = (is_head, ends_with_slash);
        let info = Arc::new(info);
        request.extensions_mut().insert(info.clone());
        tracing::debug!(request_id = &*info.request_id, method = %request.method(), path = request.uri().path(), "received");
        let account = Account::open(info, request.method().clone());
        if is_head {
            as_get(&mut request);
        }
        let answer = check(&mut request).map(|()| self.inner.call(request));
        Box::pin(async move {
            let response = match answer {
                Ok(answer) => {
                    let Ok(response) = answer.await;
                    response.map(Body::new)
                }
                Err(problem) => common_headers(problem.into_response()),
            };
            let mut response = problem::finish(response, Some(&account.info.request_id));
            if is_head {
                response = without_body(response);
            }
            let headers = response.headers_mut();
            headers.insert(X_REQUEST_ID, id_value(&account.info.request_id));
            headers.insert(X_CORRELATION_ID, id_value(&account.info.correlation_id));
            account.close(response.status());
            Ok(response)
        })
    }
}

/// What is wrong with a request, whatever its path. HTTP/1.1's heads are bounded by the connection's buffer.
fn check(request: &mut Request) -> Result<(), Problem> {
    if request.version() == Version::HTTP_2 && http2::head_bytes(request.headers(), request.uri()) > limits::HTTP_BUFFER_BYTES_MAX {
        return Err(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", "the request's head is too large"));
    }
    authority::resolve_host(request)
}

/// HEAD is GET without the body (RFC 9110, section 9.3.2); the layers within see a GET, so the headers are the same.
fn as_get(request: &mut Request) {
    *request.method_mut() = Method::GET;
    // But for this: what is upgraded is no HEAD any more.
    request.headers_mut().remove(UPGRADE);
    // Ranges are defined for GET alone (section 14.2).
    request.headers_mut().remove(RANGE);
}

fn without_body(mut response: Response) -> Response {
    let length =
        response.body().size_hint().exact().filter(|_| !matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED));
    // An outside service was asked for the head, and gave no body.
    if let Some(length) = length.filter(|_| response.extensions().get::<MadeElsewhere>().is_none()) {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    *response.body_mut() = Body::empty();
    response
}

/// Headers that belong on every answer, unless the handler has a better one (the documentation page allows its own script).
pub(super) fn common_headers<B>(mut response: Response<B>) -> Response<B> {
    const FIXED: [(HeaderName, HeaderValue); 4] = [
        (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
        (HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY")),
        (HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    ];
    let headers = response.headers_mut();
    for (name, value) in FIXED {
        // Other answers of the host's have none of them.
        headers.entry(name).or_insert(value);
    }
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    // Compressed bytes are other bytes than the tag was made of: the tag says then that the meaning is the same, not the bytes.
    if headers.contains_key(CONTENT_ENCODING)
        && let Some(etag) = headers.get(ETAG).filter(|etag| etag.as_bytes().starts_with(b"\""))
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat())
    {
        headers.insert(ETAG, weak);
    }
    response
}

/// One request's line in the log and count in the metrics, also if its client goes away.
struct Account {
    info: Arc<RequestInfo>,
    method: Method,
    is_closed: bool,
}

impl Account {
    fn open(info: Arc<RequestInfo>, method: Method) -> Self {
        IN_FLIGHT.increment(1.0);
        Self { info, method, is_closed: false }
    }

    fn close(mut self, status: StatusCode) {
        self.is_closed = true;
        let duration = self.info.received_at.elapsed();
        self.count(status.as_u16(), duration);
        let (route, service) = self.info.labels();
        tracing::info!(
            request_id = &*self.info.request_id,
            correlation_id = &*self.info.correlation_id,
            method = self.method.as_str(),
            route,
            service,
            status = status.as_u16(),
            duration_ms = milliseconds(duration),
            "completed"
        );
    }

    fn count(&self, status: u16, duration: Duration) {
        if let Some(Served::Service(route)) = self.info.served() {
            route.duration.record(duration);
            if status == route.route.status {
                route.successes.increment(1);
                return;
            }
        }
        let (route, service) = self.info.labels();
        let method = if is_known(&self.method) { self.method.as_str() } else { "OTHER" };
        metrics::counter!(
            "echo_http_requests_total",
            "method" => method.to_owned(), "route" => route.to_owned(), "service" => service.to_owned(), "status" => status.to_string()
        )
        .increment(1);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        IN_FLIGHT.decrement(1.0);
        if !self.is_closed {
            let duration = self.info.received_at.elapsed();
            self.count(CLIENT_GONE, duration);
            let (route, service) = self.info.labels();
            tracing::info!(
                request_id = &*self.info.request_id,
                method = self.method.as_str(),
                route,
                service,
                duration_ms = milliseconds(duration),
                "the client went away"
            );
        }
    }
}

/// A client may make methods up; a metric's label must not grow with them.
fn is_known(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS].contains(method)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}
