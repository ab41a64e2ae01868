//! The HTTP edge: layers, identity, dispatch, problem+json. Knows no SQL, no wasmtime and no domain noun.
//!
//! Read `router` for what every request passes, then `dispatch` for what a request to a service passes after that.

use std::any::Any;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE,
    RETRY_AFTER,
};
use http::{HeaderName, HeaderValue, Method};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{Predicate as _, SizeAbove};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::normalize_path::NormalizePathLayer;

use dispatch::Gateway;
use dispatch::stream::{self, tus};
use host_routes::HostRoutes;
use routes::Live;

use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::blob::Blobs;
use echo_capabilities::cache::Cache;
use echo_capabilities::tokens::Tokens;
use echo_edge::in_flight::InFlight;
use echo_edge::rates::RateLimiter;
use echo_runtime::Runtime;

mod answering;
mod authority;
mod bare_answer;
mod breaker;
mod connection;
mod connection_limits;
mod dispatch;
mod edge;
#[cfg(test)]
pub(crate) mod fakes;
mod framing;
mod head_timer;
mod header_rules;
pub mod health;
mod host_name;
mod host_routes;
mod http2;
mod idempotency;
pub mod identity;
mod outside;
mod rate_limit;
pub mod request;
mod response_cache;
mod routes;
pub mod server;
pub mod services;
mod shared_calls;
#[cfg(test)]
mod tests;
mod tls;
mod web;

pub use answering::Answering;
pub use authority::check_host;
pub use echo_edge::problem::{self, Problem};
pub use health::{CheckState, Need, Readiness};
pub use request::{PeerAddress, RequestInfo};
pub use server::{ServeOutcome, ServerSettings, serve};
pub use tls::{Tls, TlsError};

/// What the operator decides of the gateway.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    pub dev_mode: bool,
    /// Multiplies every rate limit.
    pub rate_scale: u32,
    /// Origins whose pages may call, e.g. `https://app.example.org`; `*` for any.
    pub allowed_origins: Vec<String>,
    pub request_timeout: Duration,
    pub body_bytes_max: usize,
    /// Bytes of requests that are in memory at one time; one for all edges.
    pub in_flight: Arc<InFlight>,
    /// Serve `/metrics` here too, not only to the operator.
    pub public_metrics: bool,
    /// Serve `/docs` and `/openapi.json`.
    pub docs: bool,
    /// Answer only requests whose `Host` is this machine's own name or address.
    pub loopback_names_only: bool,
    /// Proxies in front of the host, each of which appends to `X-Forwarded-For`; with 0 that header is ignored.
    pub trusted_proxies_count: usize,
    /// Clients come by TLS; outside services are told so.
    pub is_encrypted: bool,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            dev_mode: false,
            rate_scale: 1,
            allowed_origins: Vec::new(),
            request_timeout: Duration::from_millis(limits::REQUEST_TIMEOUT_MS),
            body_bytes_max: limits::BODY_BYTES_MAX,
            in_flight: Arc::default(),
            public_metrics: true,
            docs: true,
            loopback_names_only: false,
            trusted_proxies_count: 0,
            is_encrypted: false,
        }
    }
}

/// Which services' circuit breakers are open, for the operator's list of services.
#[derive(Default)]
pub struct Breakers(OnceLock<Box<IsOpen>>);

type IsOpen = dyn Fn(&ServiceName) -> bool + Send + Sync;

impl Breakers {
    /// False before the gateway is there.
    pub fn is_open(&self, service: &ServiceName) -> bool {
        self.0.get().is_some_and(|is_open| is_open(service))
    }

    fn follow<S: services::Services>(&self, live: Arc<Live<S>>) {
        // The first gateway of a host is its only one.
        let _ = self.0.set(Box::new(move |service| live.pin().1.is_breaker_open(service)));
    }
}

/// What the gateway is made of. `S` is the runtime, or what a test puts in its place.
pub struct GatewayState<S = Runtime> {
    pub runtime: Arc<S>,
    pub tokens: Arc<dyn Tokens>,
    /// Where files are streamed to and from.
    pub blobs: Arc<dyn Blobs>,
    /// Where answers to requests with an `Idempotency-Key` are kept, under `gateway:`; its bound is theirs.
    pub idempotency_cache: Arc<dyn Cache>,
    /// Where the answers of cacheable routes are kept, under `gateway:`; `RESPONSE_CACHE_BYTES_MAX` is meant for it.
    pub response_cache: Arc<dyn Cache>,
    /// What is counted, for the sockets' frames too.
    pub rates: Arc<RateLimiter>,
    pub settings: GatewaySettings,
    pub readiness: Arc<Readiness>,
    /// Filled in by `router`.
    pub breakers: Arc<Breakers>,
    /// The Prometheus text. The recorder must be installed before `router` is called.
    pub render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Requests that outlive their client (see `idempotency`); at shutdown the host closes it and waits, at most a request's time-out.
    pub background: TaskTracker,
    /// Ends upgraded connections to outside services.
    pub ending: CancellationToken,
}

/// The public HTTP interface. The layers, from the outside in, are passed by services' routes and by `host_routes` (sockets, sync …), whose paths have no
/// variables. A `Problem` travels out through the layers as a bare status, and gets its body at the edge.
pub fn router<S: services::Services>(
    state: GatewayState<S>,
    host_routes: impl IntoIterator<Item = (&'static str, MethodRouter)>,
) -> impl Answering {
    let settings = state.settings.clone();
    let live = Arc::new(Live::new(state.runtime.clone(), settings.clone()));
    let mut own = HostRoutes::default();
    host_routes.into_iter().for_each(|(path, handlers)| own.add(path, None, handlers));
    health::add_routes(&mut own, &state, live.clone());
    state.breakers.follow(live.clone());
    let gateway = Arc::new(Gateway::new(&state, live, own));

    let layers = ServiceBuilder::new()
        // Outermost, so that every failure of the inner layers is logged, counted and answered with the request's ids.
        .layer(edge::EdgeLayer { trusted_proxies_count: settings.trusted_proxies_count })
        // On every answer, so outside of the layers that may answer themselves.
        .map_response(edge::common_headers)
        // Before anything can refuse: a page must be able to read a refusal, and a preflight carries no identity.
        .option_layer((!settings.allowed_origins.is_empty()).then(|| cors(&settings.allowed_origins)))
        // Outside of all that makes bodies. A problem gets its body further out and is not compressed.
        .layer(CompressionLayer::new().compress_when(SizeAbove::new(limits::COMPRESSION_BYTES_MIN).and(stream::is_no_file)))
        // A panic fails this request alone. The layers outside of this one handle no client's data.
        .layer(CatchPanicLayer::custom(panicked))
        // Innermost: the routes have no trailing slashes.
        .layer(NormalizePathLayer::trim_trailing_slash());

    // Then the request's time-out (504) and the routes, see `Gateway::dispatch`. Not in an `axum::Router`: routing a second time cost an eighth of a cheap
    // request.
    layers.service(tower::service_fn(move |request: http::Request<_>| {
        let gateway = gateway.clone();
        // Boxed: without it each layer copies these kilobytes into its own future.
        Box::pin(async move { Ok(gateway.dispatch(request.map(Body::new)).await) })
    }))
}

fn cors(allowed_origins: &[String]) -> CorsLayer {
    let allow_origin = if allowed_origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(allowed_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    CorsLayer::new()
        .allow_origin(allow_origin)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            IF_NONE_MATCH,
            idempotency::IDEMPOTENCY_KEY,
            request::X_REQUEST_ID,
            request::X_CORRELATION_ID,
            HeaderName::from_static("traceparent"),
            RANGE,
            IF_RANGE,
            tus::TUS_RESUMABLE,
            tus::UPLOAD_LENGTH,
            tus::UPLOAD_METADATA,
            tus::UPLOAD_OFFSET,
        ])
        .expose_headers([
            ETAG,
            RETRY_AFTER,
            ACCEPT_RANGES,
            CONTENT_DISPOSITION,
            CONTENT_RANGE,
            LOCATION,
            tus::TUS_RESUMABLE,
            tus::TUS_VERSION,
            tus::TUS_EXTENSION,
            tus::TUS_MAX_SIZE,
            tus::UPLOAD_LENGTH,
            tus::UPLOAD_OFFSET,
            idempotency::IDEMPOTENT_REPLAYED,
            request::X_REQUEST_ID,
            request::X_CORRELATION_ID,
            rate_limit::RATELIMIT,
            rate_limit::RATELIMIT_POLICY,
            rate_limit::X_RATELIMIT_LIMIT,
            rate_limit::X_RATELIMIT_REMAINING,
            rate_limit::X_RATELIMIT_RESET,
        ])
        .max_age(Duration::from_secs(limits::PREFLIGHT_MAX_AGE_S))
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let reason = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(reason = reason.unwrap_or("no text"), "a request panicked");
    Problem::internal().into_response()
}
