//! The state of the host: `/health`, `/ready`, `/metrics`; and its documents: `/openapi.json`, `/asyncapi.json`, `/docs`, `/docs/errors`, `/.well-known/jwks.json`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;
use serde::Serialize;

use super::host_routes::HostRoutes;
use super::outside::Health;
use super::rate_limit::Rule;
use super::routes::Live;
use super::services::{Services, Snapshot};
use super::{GatewayState, Problem, response_cache, web};
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::tokens::Tokens;
use echo_edge::error_pages;
use echo_edge::problem::ERROR_PAGES;
use echo_runtime::manifest::{Rate, RateSubject, rate_counter};

/// What a check found; an error is "down", with the reason for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckState {
    Up,
    /// The host serves on with less.
    Degraded,
}

/// What the host is without a part of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing can be served: `/ready` says down.
    Essential,
    /// The host serves with less: `/ready` says degraded.
    Helpful,
}

pub type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<CheckState, String>> + Send + Sync>;

/// The checks behind `/ready`. `app` registers them, and says when the host drains.
#[derive(Default)]
pub struct Readiness {
    checks: Mutex<BTreeMap<String, (Need, Check)>>,
    is_draining: AtomicBool,
    last: Mutex<Option<(Instant, BTreeMap<String, CheckReport>)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Up,
    Degraded,
    Down,
}

/// A service, as `/ready` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum ServiceStatus {
    Up,
    /// Its circuit breaker is open.
    Degraded,
    /// The operator wants it so: the host is no worse for it.
    Off,
}

impl ServiceStatus {
    fn weight(self) -> Status {
        match self {
            ServiceStatus::Up | ServiceStatus::Off => Status::Up,
            ServiceStatus::Degraded => Status::Degraded,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    pub status: Status,
    /// Whether the host is down without it.
    pub essential: bool,
    pub duration_ms: f64,
}

impl CheckReport {
    /// What this part makes of the whole.
    fn weight(&self) -> Status {
        if self.essential { self.status } else { self.status.min(Status::Degraded) }
    }
}

impl Readiness {
    /// A check of the same name is replaced.
    pub fn register(&self, name: impl Into<String>, need: Need, check: Check) {
        self.checks.lock().insert(name.into(), (need, check));
        *self.last.lock() = None;
    }

    /// From now on `/ready` says down, so that no more traffic is sent here.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Asks all at once, each for at most `READY_CHECK_TIMEOUT_MS`; within `READY_REUSE_MS` the last answers stand.
    pub async fn check(&self) -> BTreeMap<String, CheckReport> {
        self.check_within(Duration::from_millis(limits::READY_CHECK_TIMEOUT_MS)).await
    }

    async fn check_within(&self, timeout: Duration) -> BTreeMap<String, CheckReport> {
        if let Some((at, reports)) = &*self.last.lock()
            && at.elapsed() < Duration::from_millis(limits::READY_REUSE_MS)
        {
            return reports.clone();
        }
        let checks: Vec<_> = self.checks.lock().iter().map(|(name, (need, check))| (name.clone(), *need, check.clone())).collect();
        let reports: BTreeMap<_, _> =
            join_all(checks.into_iter().map(|(name, need, check)| self.ask(name, need, check, timeout))).await.into_iter().collect();
        *self.last.lock() = Some((Instant::now(), reports.clone()));
        reports
    }

    async fn ask(&self, name: String, need: Need, check: Check, timeout: Duration) -> (String, CheckReport) {
        let begun_at = Instant::now();
        let outcome = tokio::time::timeout(timeout, check()).await;
        let (status, reason) = match outcome {
            Ok(Ok(CheckState::Up)) => (Status::Up, String::new()),
            Ok(Ok(CheckState::Degraded)) => (Status::Degraded, String::new()),
            Ok(Err(reason)) => (Status::Down, reason),
            Err(_) => (Status::Down, "no answer in time".to_owned()),
        };
        let before = self.last.lock().as_ref().and_then(|(_, reports)| reports.get(&name)).map_or(Status::Up, |report| report.status);
        if status != before {
            // The reason may name addresses and files: it is for the operator's log alone.
            tracing::warn!(check = name, ?status, reason, "a part of the host changed its state");
        }
        (name, CheckReport { status, essential: need == Need::Essential, duration_ms: begun_at.elapsed().as_micros() as f64 / 1_000.0 })
    }
}

/// Adds the gateway's own routes.
pub(super) fn add_routes<S: Services>(routes: &mut HostRoutes, state: &GatewayState<S>, live: Arc<Live<S>>) {
    let (readiness, tokens, settings) = (state.readiness.clone(), state.tokens.clone(), &state.settings);
    let host = ServiceName::parse("host").expect("a good name");
    let rate_of = |path| {
        let rate = Rule::new(&Rate::per_minute(RateSubject::Ip, limits::HOST_REQUESTS_PER_MINUTE), settings.rate_scale);
        Some((rate, rate_counter(&host, path)))
    };
    web::PAGES.into_iter().for_each(|path| routes.add_tree(path, rate_of("/"), web::index()));
    routes.add_tree(ERROR_PAGES, rate_of(ERROR_PAGES), web::error_page());
    let mut add = |path, handlers| routes.add(path, rate_of(path), handlers);
    add(error_pages::STYLE, web::error_page());
    add("/", web::index());
    web::files().for_each(|(path, handlers)| add(path, handlers));
    add("/health", get(async || ([(CONTENT_TYPE, "application/json")], "{\"status\":\"up\"}")));
    if settings.docs {
        add("/docs", web::docs());
        web::docs_files().for_each(|(path, handlers)| add(path, handlers));
        add("/openapi.json", get(openapi::<S>).with_state(live.clone()));
        add("/asyncapi.json", get(asyncapi::<S>).with_state(live.clone()));
    }
    add("/ready", get(move || ready(readiness.clone(), live.clone())));
    add("/.well-known/jwks.json", get(async move || jwks(&*tokens)));
    if settings.public_metrics {
        let render = state.render_metrics.clone();
        add("/metrics", get(async move || ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], render())));
    }
}

async fn ready<S: Services>(readiness: Arc<Readiness>, live: Arc<Live<S>>) -> Response {
    #[derive(Serialize)]
    struct Served {
        status: Status,
    }
    #[derive(Serialize)]
    struct Checks {
        #[serde(flatten)]
        reports: BTreeMap<String, CheckReport>,
        /// By prefix.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        outside: BTreeMap<String, Served>,
        plugins: BTreeMap<String, Plugin>,
    }
    #[derive(Serialize)]
    struct Plugin {
        status: ServiceStatus,
    }
    #[derive(Serialize)]
    struct ReadinessReport {
        status: Status,
        timestamp: String,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        draining: bool,
        checks: Checks,
    }
    let reports = readiness.check().await;
    let (snapshot, table) = live.pin();
    let plugins: BTreeMap<_, _> = (snapshot.services().into_iter())
        .map(|name| {
            let status = if snapshot.is_off(&name) {
                ServiceStatus::Off
            } else if table.is_breaker_open(&name) {
                ServiceStatus::Degraded
            } else {
                ServiceStatus::Up
            };
            (name.to_string(), Plugin { status })
        })
        .collect();
    let outside: BTreeMap<_, _> = join_all(table.all_outside().iter().map(async |outside| {
        let status = match outside.health(&live.outside_client).await {
            Health::Up => Status::Up,
            Health::CircuitOpen => Status::Degraded,
            Health::Down => Status::Down,
        };
        (outside.settings.prefix.clone(), Served { status })
    }))
    .await
    .into_iter()
    .collect();
    let draining = readiness.is_draining();
    let parts = reports.values().map(CheckReport::weight).chain(plugins.values().map(|plugin| plugin.status.weight()));
    // Whatever becomes of an outside service, this host serves on.
    let parts = parts.chain(outside.values().map(|outside| outside.status.min(Status::Degraded)));
    // Without a service every path of theirs is 404.
    let status = if draining || plugins.is_empty() { Status::Down } else { parts.max().unwrap_or(Status::Up) };
    let code = if status == Status::Down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let timestamp = format!("{:.6}", jiff::Timestamp::now());
    let report = ReadinessReport { status, timestamp, draining, checks: Checks { reports, outside, plugins } };
    let body = serde_json::to_vec(&report).expect("strings and numbers always serialise");
    (code, [(CONTENT_TYPE, "application/json")], body).into_response()
}

async fn openapi<S: Services>(State(live): State<Arc<Live<S>>>, headers: HeaderMap) -> Response {
    let (snapshot, table) = live.pin();
    let (document, etag) = table.openapi(&*snapshot);
    description(&headers, document, etag)
}

async fn asyncapi<S: Services>(State(live): State<Arc<Live<S>>>, headers: HeaderMap) -> Response {
    let (snapshot, table) = live.pin();
    let (document, etag) = table.asyncapi(&*snapshot);
    description(&headers, document, etag)
}

fn description(headers: &HeaderMap, document: &Bytes, etag: &HeaderValue) -> Response {
    let mut response = if response_cache::matches(headers, etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, "application/json")], document.clone()).into_response()
    };
    response.headers_mut().insert(ETAG, etag.clone());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn jwks(tokens: &dyn Tokens) -> Result<Response, Problem> {
    let body = serde_json::to_vec(&tokens.jwks()).map_err(|_| Problem::internal())?;
    Ok(([(CONTENT_TYPE, "application/jwk-set+json"), (CACHE_CONTROL, "public, max-age=300")], body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: Result<CheckState, &'static str>) -> Check {
        Arc::new(move || Box::pin(async move { outcome.map_err(str::to_owned) }))
    }

    #[tokio::test]
    async fn checks_run_at_once_and_a_silent_one_is_down() {
        let readiness = Readiness::default();
        readiness.register("up", Need::Essential, check(Ok(CheckState::Up)));
        readiness.register("degraded", Need::Essential, check(Ok(CheckState::Degraded)));
        readiness.register("broken", Need::Helpful, check(Err("no such file")));
        for name in ["silent", "mute"] {
            readiness.register(name, Need::Essential, Arc::new(|| Box::pin(std::future::pending())));
        }
        let timeout = Duration::from_millis(500);
        let begun_at = Instant::now();
        let reports = readiness.check_within(timeout).await;
        let waited = begun_at.elapsed();
        assert!(waited < timeout * 2, "one after the other: {waited:?}");
        let found: Vec<_> = reports.iter().map(|(name, report)| (name.as_str(), report.status)).collect();
        assert_eq!(
            found,
            [
                ("broken", Status::Down),
                ("degraded", Status::Degraded),
                ("mute", Status::Down),
                ("silent", Status::Down),
                ("up", Status::Up)
            ]
        );
    }

    #[tokio::test]
    async fn answers_are_used_again_for_a_moment() {
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let readiness = Readiness::default();
        let counter = asked.clone();
        readiness.register(
            "counted",
            Need::Essential,
            Arc::new(move || {
                counter.fetch_add(1, Ordering::Relaxed);
                Box::pin(async { Ok(CheckState::Up) })
            }),
        );
        for _ in 0..100 {
            readiness.check().await;
        }
        assert!(asked.load(Ordering::Relaxed) < 100);
    }
}
