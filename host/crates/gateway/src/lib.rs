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
pub mod backend;
mod bare_answer;
mod breaker;
mod connection;
mod dispatch;
mod docs;
mod edge;
#[cfg(test)]
pub(crate) mod fakes;
mod framing;
mod head_timer;
pub mod health;
mod host_name;
mod host_routes;
mod http2;
mod idempotency;
pub mod identity;
mod places;
mod rate_limit;
pub mod request;
mod response_cache;
mod routes;
pub mod server;
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
    /// Proxies in front of the host, each of which appends to `X-Forwarded-For`; 0: nobody is believed.
    pub trusted_proxies_count: usize,
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
        }
    }
}

/// Which services are left alone by their breakers, for whoever shows the services to the operator.
#[derive(Default)]
pub struct Breakers(OnceLock<Box<IsOpen>>);

type IsOpen = dyn Fn(&ServiceName) -> bool + Send + Sync;

impl Breakers {
    /// False before the gateway is there.
    pub fn is_open(&self, service: &ServiceName) -> bool {
        self.0.get().is_some_and(|is_open| is_open(service))
    }

    fn follow<B: backend::Backend>(&self, live: Arc<Live<B>>) {
        // The first gateway of a host is its only one.
        let _ = self.0.set(Box::new(move |service| live.pin().1.is_breaker_open(service)));
    }
}

/// What the gateway is made of. `B` is the runtime but for tests.
pub struct GatewayState<B = Runtime> {
    pub runtime: Arc<B>,
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
    /// Told of the services' breakers when the gateway is made.
    pub breakers: Arc<Breakers>,
    /// The Prometheus text. The recorder must be installed before `router` is called.
    pub render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Requests that outlive their client (see `idempotency`); whoever ends the host closes it and waits, at most a request's time-out.
    pub background: TaskTracker,
}

/// The whole public HTTP side. `host_routes` (sockets, sync …), by paths without variables, pass the same layers.
///
/// From the outside in. A `Problem` travels out through the layers as a bare status, and gets its body at the edge.
pub fn router<B: backend::Backend>(
    state: GatewayState<B>,
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
        // Outermost: the request's ids, so that whatever fails further in is logged, counted and answered with them.
        .layer(edge::EdgeLayer { trusted_proxies_count: settings.trusted_proxies_count })
        // On every answer, so outside of all that answers by itself.
        .map_response(edge::common_headers)
        // Before anything can refuse: a page must be able to read a refusal, and a preflight carries no identity.
        .option_layer((!settings.allowed_origins.is_empty()).then(|| cors(&settings.allowed_origins)))
        // Outside of whatever makes bodies; problems have none yet and leave uncompressed.
        .layer(CompressionLayer::new().compress_when(SizeAbove::new(limits::COMPRESSION_BYTES_MIN).and(stream::is_no_file)))
        // A panic costs this request alone. What stands further out is a few lines without a client's data.
        .layer(CatchPanicLayer::custom(panicked))
        // Next to the routes, which know a path without its trailing slash only.
        .layer(NormalizePathLayer::trim_trailing_slash());

    // Within all of them the time that a request has (504) and the paths, see `Gateway::dispatch`.
    // Not a router of axum's around all of them: what it costs to be a route twice was an eighth of a cheap request.
    layers.service(tower::service_fn(move |request: http::Request<_>| {
        let gateway = gateway.clone();
        // A box: each layer would else copy these kilobytes into its own future.
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
