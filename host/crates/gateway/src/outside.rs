//! An outside service behind the gateway: a prefix of the operator's whose requests go to an address of the operator's, and nowhere else. Read `forward` for the
//! way of one request, whose client, rate and access are known already. Knows no services and no routes.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::{Body, HttpBody as _};
use axum::response::Response;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version, request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower_http::timeout::{TimeoutBody, TimeoutError};

use super::breaker::{Breaker, CallOutcome};
use super::header_rules::HeaderRules;
use super::rate_limit::Rule;
use body::{BodyFault, DelayedFailure, Late, Sending};
use client::ClientError;
use tunnel::{Guard, Tunnel};

use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::context::Caller;
use echo_capabilities::tokens::Tokens;
use echo_contract::changes::BodyChanges;
use echo_edge::problem::MadeElsewhere;
use echo_runtime::manifest::rate_counter;
use echo_runtime::route_settings::OutsidePrefix;

mod body;
mod client;
pub mod headers;
mod signature;
#[cfg(test)]
mod tests;
mod tunnel;

pub use client::OutsideClient;

/// In place of a service's name, in the log and in metrics.
pub const OUTSIDE: &str = "outside";
/// The methods that are sent on.
pub const METHODS: [Method; 7] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// A prefix with all that lasts as long as its settings.
pub struct Outside {
    pub settings: Arc<OutsidePrefix>,
    pub rate: Rule,
    /// Under which it is counted.
    pub rate_counter: u64,
    /// What the operator changes of JSON bodies, and of headers.
    pub request_fields: Option<BodyChanges>,
    pub response_fields: Option<BodyChanges>,
    request_headers: Option<HeaderRules>,
    response_headers: Option<HeaderRules>,
    breaker: Breaker,
    requests: Arc<Semaphore>,
    tunnels: Arc<Semaphore>,
    started_at: Instant,
    health: Mutex<Option<(Instant, Health)>>,
    is_asking: AtomicBool,
}

/// A request that may be sent on.
pub struct Arrived {
    pub head: request::Parts,
    pub body: Body,
    pub request_id: Arc<str>,
    pub correlation_id: Arc<str>,
    pub address: Option<IpAddr>,
    /// `https` or `http`, on the client's side.
    pub scheme: &'static str,
    pub is_head: bool,
    /// The path had a slash at its end, which is gone from `head`.
    pub ends_with_slash: bool,
    pub caller: Option<Arc<Caller>>,
    /// By which the caller is known.
    pub token: Option<String>,
    /// Its `Authorization` is for the target.
    pub keeps_authorization: bool,
    /// Any number that differs between clients.
    pub client_number: u64,
}

/// Why there is no answer of the target's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    MethodNotAllowed,
    /// The path has `.` or `..` in it.
    PathRefused,
    /// The request has passed this host before.
    Loop,
    Busy,
    CircuitOpen(Duration),
    Unreachable,
    Broken,
    TimedOut,
    ClientLate,
    ClientBroken,
    TooLarge,
}

/// How a target is, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Up,
    /// Most requests failed: they are refused for a pause.
    CircuitOpen,
    /// Its `health` path gives no success.
    Down,
}

impl Outside {
    pub fn new(settings: Arc<OutsidePrefix>, rate_scale: u32) -> Self {
        let name = ServiceName::parse(OUTSIDE).expect("a good name");
        Self {
            rate: Rule::new(&settings.rate, rate_scale),
            rate_counter: rate_counter(&name, &settings.prefix),
            request_fields: BodyChanges::new(&settings.request_fields),
            response_fields: BodyChanges::new(&settings.response_fields),
            request_headers: HeaderRules::new(&settings.request_headers),
            response_headers: HeaderRules::new(&settings.response_headers),
            breaker: Breaker::of_prefix(&settings.prefix),
            requests: Arc::new(Semaphore::new(limits::OUTSIDE_REQUESTS_MAX)),
            tunnels: Arc::new(Semaphore::new(limits::OUTSIDE_TUNNELS_MAX)),
            started_at: Instant::now(),
            health: Mutex::new(None),
            is_asking: AtomicBool::new(false),
            settings,
        }
    }

    /// The path is this prefix or below it.
    pub fn covers(&self, path: &str) -> bool {
        path.strip_prefix(&*self.settings.prefix).is_some_and(|below| below.is_empty() || below.starts_with('/'))
    }

    /// Sends the request on and gives the target's answer, whose body is still coming. An upgraded connection goes on by itself until `ending`.
    pub async fn forward(
        &self,
        client: &OutsideClient,
        tokens: &Arc<dyn Tokens>,
        ending: &CancellationToken,
        mut arrived: Arrived,
    ) -> Result<Response, Failure> {
        let method = if arrived.is_head { Method::HEAD } else { arrived.head.method.clone() };
        if !METHODS.contains(&method) {
            return Err(Failure::MethodNotAllowed);
        }
        if headers::has_passed(&arrived.head.headers) {
            return Err(Failure::Loop);
        }
        let path = self.path_of(arrived.head.uri.path(), arrived.ends_with_slash).ok_or(Failure::PathRefused)?;
        let upgrade = if headers::wants_websocket(&arrived.head) { arrived.head.extensions.remove::<OnUpgrade>() } else { None };
        let slots = if upgrade.is_some() { &self.tunnels } else { &self.requests };
        let slot = slots.clone().try_acquire_owned().map_err(|_| Failure::Busy)?;
        let permit = self.breaker.admit(0, self.now_ms()).map_err(Failure::CircuitOpen)?;
        let attempt = Attempt::new(self, &arrived, method, &path, upgrade.is_some())?;
        let sending = Sending::new(std::mem::take(&mut arrived.body));
        let answered = self.attempts(client, &attempt, &sending, &arrived.request_id).await;
        let (outcome, number) = outcome(&answered, arrived.client_number);
        permit.complete(outcome, number, self.now_ms());
        let answer = answered.inspect_err(|failure| {
            if outcome == CallOutcome::Fault {
                metrics::counter!("echo_outside_failures_total", "prefix" => self.settings.prefix.clone(), "reason" => failure.reason())
                    .increment(1);
            }
        })?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(self.answer(answer, slot));
        }
        // What nobody asked for is no answer (RFC 9110 section 15.2.2).
        let Some(upgrade) = upgrade.filter(|_| headers::names_upgrade(answer.headers())) else { return Err(Failure::Broken) };
        let guard = match (arrived.caller, arrived.token) {
            (Some(caller), Some(token)) => Some(Guard { tokens: tokens.clone(), token, caller }),
            _ => None,
        };
        Ok(self.upgrade(answer, upgrade, guard, slot, ending))
    }

    /// The first attempt, and others where it is safe to make them: nothing was sent, or the method may be repeated (RFC 9110 section 9.2.2) and no body was
    /// begun.
    async fn attempts(
        &self,
        client: &OutsideClient,
        attempt: &Attempt,
        sending: &Arc<Sending>,
        request_id: &str,
    ) -> Result<http::Response<Body>, Failure> {
        let mut pause = Duration::from_millis(limits::OUTSIDE_RETRY_PAUSE_MS);
        let mut retries_left = self.settings.retries;
        loop {
            let answered = sending.within(self.settings.timeout, client.request(attempt.request(sending.body()))).await;
            let (failure, reason) = match answered {
                Ok(Ok(answer)) => match self.whole_if_small(answer).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => (failure, "the answer broke off".to_owned()),
                },
                Err(Late::Client) => return Err(Failure::ClientLate),
                Err(Late::Target) => (Failure::TimedOut, "no answer in time".to_owned()),
                Ok(Err(error)) => match (sending.fault(), error) {
                    (Some(BodyFault::TooLarge), _) => return Err(Failure::TooLarge),
                    (Some(BodyFault::Broken), _) => return Err(Failure::ClientBroken),
                    (None, ClientError::Unreachable(reason)) => (Failure::Unreachable, reason),
                    (None, ClientError::Broken(reason)) => (Failure::Broken, reason),
                },
            };
            let is_safe = match failure {
                Failure::Unreachable => sending.is_untouched(),
                Failure::Broken => sending.is_untouched() && attempt.method.is_idempotent(),
                _ => false,
            };
            let (prefix, will_retry) = (&*self.settings.prefix, is_safe && retries_left > 0);
            tracing::warn!(prefix, request_id, reason, will_retry, "an outside service did not answer");
            if !will_retry {
                return Err(failure);
            }
            retries_left -= 1;
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// The answer with its body in memory where it says to be short, so that one that breaks off can still be told by its status; else with its body streaming.
    async fn whole_if_small(&self, answer: http::Response<Incoming>) -> Result<http::Response<Body>, Failure> {
        let (head, body) = answer.into_parts();
        let is_small = body.size_hint().exact().is_some_and(|length| length <= limits::OUTSIDE_SMALL_BODY_BYTES);
        let body = TimeoutBody::new(self.settings.idle_timeout, body);
        if !is_small || head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(http::Response::from_parts(head, Body::new(body)));
        }
        match tokio::time::timeout(self.settings.timeout, body.collect()).await {
            Ok(Ok(whole)) => Ok(http::Response::from_parts(head, Body::from(whole.to_bytes()))),
            Ok(Err(error)) if error.is::<TimeoutError>() => Err(Failure::TimedOut),
            Ok(Err(_)) => Err(Failure::Broken),
            Err(_) => Err(Failure::TimedOut),
        }
    }

    fn answer(&self, answer: http::Response<Body>, slot: OwnedSemaphorePermit) -> Response {
        let (head, body) = answer.into_parts();
        // The slot is given back when the body is over, or nobody wants it any more.
        let body = DelayedFailure::new(body).map_frame(move |frame| {
            let _ = &slot;
            frame
        });
        let mut response = Response::new(Body::new(body));
        *response.status_mut() = head.status;
        *response.headers_mut() = self.headers_for_client(&head.headers);
        response.extensions_mut().insert(MadeElsewhere);
        response
    }

    fn upgrade(
        &self,
        mut answer: http::Response<Body>,
        client: OnUpgrade,
        guard: Option<Guard>,
        slot: OwnedSemaphorePermit,
        ending: &CancellationToken,
    ) -> Response {
        let target = hyper::upgrade::on(&mut answer);
        let tunnel = Tunnel { client, target, idle_timeout: self.settings.idle_timeout, guard, slot };
        tokio::spawn(ending.clone().run_until_cancelled_owned(tunnel.run()));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = self.headers_for_client(answer.headers());
        headers::upgraded(response.headers_mut());
        response.extensions_mut().insert(MadeElsewhere);
        response
    }

    fn headers_for_client(&self, answer: &HeaderMap) -> HeaderMap {
        let mut headers = headers::for_client(answer, &self.settings);
        if let Some(rules) = &self.response_headers {
            rules.apply(&mut headers);
        }
        headers
    }

    /// The path that the target is asked for. None where `.` or `..` would lead out of its base.
    fn path_of(&self, path: &str, ends_with_slash: bool) -> Option<String> {
        if has_dots(path) {
            return None;
        }
        let own = if self.settings.strips_prefix { path.strip_prefix(&*self.settings.prefix)? } else { path };
        let mut wanted = format!("{}{own}", self.settings.base);
        if (ends_with_slash && !wanted.ends_with('/')) || wanted.is_empty() {
            wanted.push('/');
        }
        Some(wanted)
    }

    /// What is known of the target. Where it has a path for that, it is asked at most each `READY_REUSE_MS`, once at a time and for at most
    /// `READY_CHECK_TIMEOUT_MS`.
    pub async fn health(&self, client: &OutsideClient) -> Health {
        if self.breaker.is_open() {
            return Health::CircuitOpen;
        }
        let Some(path) = &self.settings.health else { return Health::Up };
        let last = *self.health.lock();
        if let Some((at, health)) = last
            && at.elapsed() < Duration::from_millis(limits::READY_REUSE_MS)
        {
            return health;
        }
        if self.is_asking.swap(true, Ordering::AcqRel) {
            return last.map_or(Health::Up, |(_, health)| health);
        }
        let _asking = Asking(&self.is_asking);
        let health = self.ask(client, path).await;
        if last.map_or(Health::Up, |(_, health)| health) != health {
            tracing::warn!(prefix = self.settings.prefix, ?health, "an outside service changed its state");
        }
        *self.health.lock() = Some((Instant::now(), health));
        health
    }

    async fn ask(&self, client: &OutsideClient, path: &str) -> Health {
        let Ok(uri) = self.uri(&format!("{}{path}", self.settings.base)) else { return Health::Down };
        let mut request = Request::new(Sending::new(Body::empty()).body());
        *request.uri_mut() = uri;
        request.headers_mut().extend(self.settings.authority.parse().ok().map(|host| (http::header::HOST, host)));
        let asked = tokio::time::timeout(Duration::from_millis(limits::READY_CHECK_TIMEOUT_MS), client.request(request)).await;
        if matches!(asked, Ok(Ok(answer)) if answer.status().is_success()) { Health::Up } else { Health::Down }
    }

    fn uri(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        Uri::builder().scheme(self.settings.scheme).authority(&*self.settings.authority).path_and_query(path_and_query).build()
    }

    fn now_ms(&self) -> u64 {
        self.started_at.elapsed().as_millis() as u64
    }
}

/// A question about the target's health; others are asked when it is over, or was given up.
struct Asking<'a>(&'a AtomicBool);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The head of a request to the target, the same for all attempts.
struct Attempt {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Attempt {
    fn new(outside: &Outside, arrived: &Arrived, method: Method, path: &str, upgrades: bool) -> Result<Self, Failure> {
        // A ticket opens a socket of this host's.
        let query = arrived
            .head
            .uri
            .query()
            .filter(|_| !upgrades)
            .map(str::to_owned)
            .or_else(|| headers::without_ticket(arrived.head.uri.query()?));
        let query = query.as_deref();
        let uri =
            outside.uri(&query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))).map_err(|_| Failure::PathRefused)?;
        let client = headers::Client {
            address: arrived.address,
            scheme: arrived.scheme,
            request_id: &arrived.request_id,
            correlation_id: &arrived.correlation_id,
            caller: arrived.caller.as_deref().filter(|_| outside.settings.identity_key.is_some()),
            keeps_authorization: arrived.keeps_authorization,
        };
        let mut headers = headers::for_target(&arrived.head, &outside.settings, &client, upgrades);
        if let Some(rules) = &outside.request_headers {
            rules.apply(&mut headers);
        }
        if let Some(key) = &outside.settings.identity_key {
            let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            signature::sign(&mut headers, key.text(), &method, path, query, now_s);
        }
        Ok(Self { method, uri, headers })
    }

    fn request(&self, body: body::SentBody) -> Request<body::SentBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.headers.clone();
        request
    }
}

impl Failure {
    fn reason(self) -> &'static str {
        match self {
            Failure::Unreachable => "unreachable",
            Failure::TimedOut => "timed_out",
            _ => "broken",
        }
    }
}

/// What the circuit breaker counts, and as whose. Nobody can make a target unreachable by asking: each such failure counts as another client's.
fn outcome(answered: &Result<http::Response<Body>, Failure>, client_number: u64) -> (CallOutcome, u64) {
    match answered {
        Ok(answer) if answer.status().is_server_error() && answer.status() != StatusCode::NOT_IMPLEMENTED => {
            (CallOutcome::Fault, client_number)
        }
        Ok(_) => (CallOutcome::Good, 0),
        Err(Failure::Unreachable) => (CallOutcome::Fault, rand::random()),
        Err(Failure::Broken | Failure::TimedOut) => (CallOutcome::Fault, client_number),
        Err(_) => (CallOutcome::Neutral, 0),
    }
}

/// A part of the path is `.` or `..`, in any way that servers read one.
fn has_dots(path: &str) -> bool {
    let mut plain = path.to_ascii_lowercase();
    for (written, meant) in [("%2e", "."), ("%2f", "/"), ("%5c", "/"), ("\\", "/"), ("%3b", ";")] {
        plain = plain.replace(written, meant);
    }
    plain.split('/').any(|part| matches!(part.split(';').next(), Some("." | "..")))
}
