//! The path of one request to a service, from top to bottom: route → identity and access → rate → body → idempotency or cached response →
//! circuit breaker → the call → the answer. A route that streams a file goes on in `stream`. Knows HTTP and the services' catalogue; no domain noun.

use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONTENT_TYPE, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::body::{body_late, json_only, limited, read_body};
use super::breaker::CallOutcome;
use super::host_routes::{HostRoute, HostRoutes};
use super::idempotency::{self, Answer, Begin, IDEMPOTENT_REPLAYED, Idempotency, Owner};
use super::problem::{PROBLEM_JSON, Problem};
use super::rate_limit::Rule;
use super::request::{RequestInfo, Served};
use super::response_cache::{self, RequestKey, ResponseCache, StoredResponse};
use super::routes::{CompiledRoute, Found, Live, Values, percent_decode};
use super::services::{Services, Snapshot as _};
use super::shared_calls::SharedCalls;
use super::{GatewayState, host_name, identity};
use echo_base::deadline::{Elapsed, timeout_at};
use echo_base::limits;
use echo_capabilities::blob::Blobs;
use echo_capabilities::context::{CallContext, Caller, ClientAddress};
use echo_capabilities::tokens::Tokens;
use echo_edge::in_flight::{Held, InFlight};
use echo_edge::rates::{Allowance, RateLimiter, Subject};
use echo_runtime::manifest::{Access, CacheScope, StreamKind};
use echo_runtime::{CallError, ErrorKind, Input, Reply};

mod body;
mod changed_body;
mod outside;
pub mod stream;

const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Shared by all requests.
pub(super) struct Gateway<S> {
    live: Arc<Live<S>>,
    host_routes: HostRoutes,
    tokens: Arc<dyn Tokens>,
    blobs: Arc<dyn Blobs>,
    rates: Arc<RateLimiter>,
    idempotency: Idempotency,
    responses: ResponseCache,
    calls: SharedCalls<Result<StoredResponse, Problem>>,
    in_flight: Arc<InFlight>,
    background: TaskTracker,
    ending: CancellationToken,
    hasher: RandomState,
    started_at: Instant,
}

impl<S: Services> Gateway<S> {
    pub fn new(state: &GatewayState<S>, live: Arc<Live<S>>, host_routes: HostRoutes) -> Self {
        Self {
            live,
            host_routes,
            tokens: state.tokens.clone(),
            blobs: state.blobs.clone(),
            rates: state.rates.clone(),
            idempotency: Idempotency::new(state.idempotency_cache.clone(), state.settings.request_timeout),
            responses: ResponseCache::new(state.response_cache.clone()),
            calls: SharedCalls::default(),
            in_flight: state.settings.in_flight.clone(),
            background: state.background.clone(),
            ending: state.ending.clone(),
            hasher: RandomState::new(),
            started_at: Instant::now(),
        }
    }

    /// Answers a request by the host's own handler or by the service whose path it is.
    pub async fn dispatch(self: Arc<Self>, request: Request) -> Response {
        let info = request.extensions().get::<Arc<RequestInfo>>().expect("the edge gives every request one").clone();
        let deadline = info.received_at + self.live.settings.request_timeout;
        if self.live.settings.loopback_names_only && !host_name::is_loopback(&request) {
            return Problem::new(
                StatusCode::MISDIRECTED_REQUEST,
                "host_not_served",
                "in development mode this host answers to localhost only",
            )
            .into_response();
        }
        let (seen, version) = (info.clone(), request.version());
        let mut answer = pin!(async move {
            let answered = match self.host_routes.find(request.method(), request.uri().path()) {
                Some(route) => self.answer_by_host(route, request, info).await,
                None => self.answer_by_service(request, info).await,
            };
            answered.unwrap_or_else(Problem::into_response)
        });
        // The time-out covers reading the body and the whole call, but no upgraded socket, whose answer is the 101.
        match timeout_at(deadline, answer.as_mut()).await {
            Ok(response) => response,
            // A file may take any time; it must make progress, which is checked where it is read.
            Err(Elapsed) if seen.is_streaming() => answer.await,
            Err(Elapsed) if seen.is_receiving() => body_late(version).into_response(),
            Err(Elapsed) => StatusCode::GATEWAY_TIMEOUT.into_response(),
        }
    }

    async fn answer_by_host(&self, route: &HostRoute, request: Request, info: Arc<RequestInfo>) -> Result<Response, Problem> {
        info.serve(Served::Host(route.path));
        let (parts, body) = request.into_parts();
        let body = limited(&parts.headers, body, self.live.settings.body_bytes_max)?;
        let body = json_only(&parts.headers, body, &info).await?;
        let mut request = Request::from_parts(parts, body);
        if let Some(address) = info.client_address {
            request.extensions_mut().insert(ClientAddress(address));
        }
        let Some((rule, counter)) = &route.rate else { return Ok(self.host_routes.answer(request).await) };
        let subject = rule.limit.subject_of(None, info.client_address);
        // In this process alone: a health check must not wait for another server.
        let allowance = self.rates.check_here(&rule.limit, *counter, subject, info.received_at);
        Ok(if allowance.is_allowed { self.host_routes.answer(request).await } else { refused(route.path, rule, allowance) })
    }

    async fn answer_by_service(self: Arc<Self>, request: Request, info: Arc<RequestInfo>) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        // Pinned once: every service that this request reaches is taken from this snapshot.
        let (snapshot, table) = self.live.pin();
        let (route, values) = match table.find(&parts.method, parts.uri.path()) {
            Found::Route(route, values) => (route.clone(), values),
            Found::WrongMethod { allow } if parts.method == Method::OPTIONS => match table.tus_bytes_max(parts.uri.path()) {
                Some(bytes_max) => return Ok(stream::tus::options(allow, bytes_max)),
                None => return Err(Problem::method_not_allowed(allow)),
            },
            Found::WrongMethod { allow } => return Err(Problem::method_not_allowed(allow)),
            Found::Nothing => {
                let outside = table.outside(parts.uri.path()).cloned().ok_or_else(Problem::not_found)?;
                return self.answer_by_outside(outside, parts, body, info).await;
            }
        };
        info.serve(Served::Service(route.clone()));
        let values = decode_values(values);
        let answered = self.answer_by_route(snapshot, route.clone(), values, parts, body, info).await;
        let Some(rules) = &route.response_headers else { return answered };
        let mut response = answered.unwrap_or_else(Problem::into_response);
        rules.apply(response.headers_mut());
        Ok(response)
    }

    async fn answer_by_route(
        self: Arc<Self>,
        snapshot: Arc<S::Snapshot>,
        route: Arc<CompiledRoute>,
        values: Result<Vec<String>, Problem>,
        mut parts: request::Parts,
        body: Body,
        info: Arc<RequestInfo>,
    ) -> Result<Response, Problem> {
        let caller = self.caller(&route.route.access, &parts.headers, &info).await?;
        let limit = &route.rate.limit;
        let subject = limit.subject_of(caller.as_ref().map(|caller| caller.user_id), info.client_address);
        let allowance = self.rates.check(limit, route.rate_counter, subject, info.received_at).await;
        if !allowance.is_allowed {
            return Ok(refused(&route.pattern, &route.rate, allowance));
        }
        let values = values?;
        if let Some(rules) = &route.request_headers {
            rules.apply(&mut parts.headers);
        }
        let (body_read, held, since) = (Bytes::new(), None, info.received_at);
        let call = ServiceRequest {
            gateway: self,
            snapshot,
            route: route.clone(),
            info,
            caller,
            values,
            request: parts,
            body: body_read,
            held,
            since,
        };
        let call = Box::new(call);
        let answer = if route.route.stream.is_some() { stream::answer(call, body).await } else { call.answer(body).await };
        let mut response = answer.unwrap_or_else(Problem::into_response);
        route.rate.write_headers(&allowance, response.headers_mut());
        Ok(response)
    }

    /// The caller, if the access rule lets one through; tokens that are no good are counted.
    async fn caller(&self, access: &Access, headers: &HeaderMap, info: &RequestInfo) -> Result<Option<Arc<Caller>>, Problem> {
        match identity::caller(access, &*self.tokens, headers).await {
            Err(problem) if problem.status == StatusCode::UNAUTHORIZED && identity::bearer(headers).is_some() => {
                let counted = self.rates.count_bad_token(self.live.settings.rate_scale, info.client_address, info.received_at).await;
                Err(counted.map_or_else(Problem::rate_limited, |()| problem))
            }
            identified => identified,
        }
    }

    /// Milliseconds since the gateway began.
    fn ms_at(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.started_at).as_millis() as u64
    }
}

/// A request that passed identity and rate limit, on its way to a service. Owns all it needs, so that it can go on when its client has gone away.
struct ServiceRequest<S: Services> {
    gateway: Arc<Gateway<S>>,
    snapshot: Arc<S::Snapshot>,
    route: Arc<CompiledRoute>,
    info: Arc<RequestInfo>,
    caller: Option<Arc<Caller>>,
    request: request::Parts,
    values: Vec<String>,
    body: Bytes,
    /// The bytes of the body, counted until the service is done with it.
    held: Option<Held>,
    /// When the service's time-out begins: with the request, or once its file is received.
    since: Instant,
}

/// A successful reply of a service.
struct ServiceReply {
    status: StatusCode,
    body: Option<Bytes>,
}

impl<S: Services> ServiceRequest<S> {
    async fn answer(mut self: Box<Self>, body: Body) -> Result<Response, Problem> {
        let body = limited(&self.request.headers, body, self.gateway.live.settings.body_bytes_max)?;
        let body = json_only(&self.request.headers, body, &self.info).await?;
        if self.route.has_body && !body.is_end_stream() {
            let user = self.caller.as_ref().map(|caller| Subject::User(caller.user_id));
            let held = self.held.insert(self.gateway.in_flight.hold(Subject::of_address(self.info.client_address), user));
            self.info.receives(true);
            self.body = read_body(body, held).await?;
            self.info.receives(false);
        }
        if self.request.method == Method::POST
            && let Some(key) = idempotency::key_of(&self.request.headers)?
        {
            let key: Arc<str> = key.into();
            let fingerprint = idempotency::fingerprint(self.request.uri.path(), self.request.uri.query(), &self.body);
            // If the client's connection breaks now, its retry finds the answer.
            return on_its_own(&self.gateway.background.clone(), self.answer_once(key, fingerprint)).await;
        }
        if self.route.route.etag || self.route.route.cache.is_some() {
            return Arc::<Self>::from(self).answer_tagged().await;
        }
        if self.route.deduplicates {
            let called = Arc::<Self>::from(self).called(None).await?;
            return Ok(respond(StatusCode::from_u16(called.status).unwrap_or_default(), called.body, APPLICATION_JSON));
        }
        let done = self.run(None).await?;
        Ok(done.into_response())
    }

    /// POST with an `Idempotency-Key`: runs it, or answers as the first time.
    async fn answer_once(self: Box<Self>, key: Arc<str>, fingerprint: [u8; 32]) -> Result<Response, Problem> {
        let idempotency = &self.gateway.idempotency;
        let owner = match &self.caller {
            Some(caller) if self.route.route.access != Access::Public => Owner::User(caller.user_id),
            _ => Owner::Request,
        };
        let slot = match idempotency.begin(owner, &self.route.key, &key, fingerprint).await? {
            Begin::Run(slot) => Some(slot),
            Begin::Unkept => None,
            Begin::Replay(answer) if self.route.route.replay_calls && (200..300).contains(&answer.status) => {
                let mut response = self.run(Some(key)).await?.into_response();
                response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
                return Ok(response);
            }
            Begin::Replay(answer) => return Ok(replay(answer)),
        };
        let result = self.run(Some(key)).await;
        if let Some(slot) = slot {
            if self.route.route.has_secret_answer() {
                idempotency.release(slot).await;
                return result.map(ServiceReply::into_response);
            }
            let answer = match &result {
                Ok(done) if self.route.route.replay_calls => Answer { status: done.status.as_u16(), body: Bytes::new() },
                Ok(done) => Answer { status: done.status.as_u16(), body: done.body.clone().unwrap_or_default() },
                Err(problem) => Answer { status: problem.status.as_u16(), body: problem.render(Some(&self.info.request_id)).into() },
            };
            idempotency.finish(slot, &answer, fingerprint).await;
        }
        result.map(ServiceReply::into_response)
    }

    /// GET with an ETag.
    async fn answer_tagged(self: Arc<Self>) -> Result<Response, Problem> {
        let kept = self.cached_or_called().await?;
        let etag = response_cache::etag_of(&kept.body);
        let mut response = if response_cache::matches(&self.request.headers, &etag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            respond(StatusCode::from_u16(kept.status).unwrap_or_default(), kept.body, APPLICATION_JSON)
        };
        self.route.sharing.write_headers(response.headers_mut(), etag);
        Ok(response)
    }

    /// The cached response, where the manifest allows a cache; else the service's, which is then cached from the second request on.
    async fn cached_or_called(self: &Arc<Self>) -> Result<StoredResponse, Problem> {
        let responses = &self.gateway.responses;
        let place = self.route.route.cache.as_ref().and_then(|cache| {
            let request = RequestKey {
                snapshot: self.snapshot.number(),
                route: &self.route.key,
                path: self.request.uri.path(),
                query: self.request.uri.query(),
                user: self.caller.as_ref().filter(|_| cache.per == CacheScope::User).map(|caller| caller.user_id),
            };
            Some((responses.key_of(&request)?, cache.ttl))
        });
        if let Some((key, _)) = &place
            && let Some(kept) = responses.get(key).await
        {
            return Ok(kept);
        }
        self.called(place).await
    }

    /// The service's response, of a call that identical requests may share; cached where there is a place.
    async fn called(self: &Arc<Self>, place: Option<(String, Duration)>) -> Result<StoredResponse, Problem> {
        let this = self.clone();
        let call = async move {
            let kept = this.run(None).await?.into_stored();
            if let Some((key, ttl)) = place {
                this.gateway.responses.put(&key, &kept, ttl).await;
            }
            Ok(kept)
        };
        match self.shared_key() {
            Some(key) => self.gateway.calls.join(key, || call.boxed()).await,
            None => call.await,
        }
    }

    /// What the answer depends on. None where each request has a call of its own.
    fn shared_key(&self) -> Option<String> {
        if !self.route.deduplicates {
            return None;
        }
        let is_public = self.route.route.cache.as_ref().is_some_and(|cache| cache.per == CacheScope::Public);
        let caller = self.caller.as_ref().filter(|_| !is_public);
        // Nobody knows whether two requests without a token are one person's.
        if caller.is_none() && !is_public {
            return None;
        }
        let request = RequestKey {
            snapshot: self.snapshot.number(),
            route: &self.route.key,
            path: self.request.uri.path(),
            query: self.request.uri.query(),
            user: caller.map(|caller| caller.user_id),
        };
        let session = caller.map(|caller| format!("{}:{}:", caller.session_id.simple(), caller.device_id)).unwrap_or_default();
        Some(session + &request.key())
    }

    /// The breaker, then the service.
    async fn run(&self, idempotency_key: Option<Arc<str>>) -> Result<ServiceReply, Problem> {
        let (gateway, route, headers) = (&*self.gateway, &*self.route, &self.request.headers);
        let permit = route.breaker.admit(route.breaker_index, gateway.ms_at(Instant::now())).map_err(|wait| {
            Problem::unavailable("circuit_open", "the circuit breaker is open: too many of this service's calls failed", wait)
        })?;
        let path: Vec<(&str, &str)> = route.variables.iter().map(|name| &**name).zip(self.values.iter().map(String::as_str)).collect();
        let input = Input::Http {
            path: &path,
            query: if route.has_body { None } else { self.request.uri.query() },
            body: (!self.body.is_empty()).then_some(&*self.body),
        };
        let context = Arc::new(CallContext {
            caller: self.caller.clone(),
            request_id: self.info.request_id.clone(),
            correlation_id: self.info.correlation_id.clone(),
            client_address: self.info.client_address,
            user_agent: client_text(headers, &USER_AGENT),
            trace_parent: client_text(headers, &TRACEPARENT),
            idempotency_key,
            event_id: None,
            deadline: self.since + route.timeout.unwrap_or(gateway.live.settings.request_timeout),
        });
        let result = gateway.live.services.call(&self.snapshot, &route.target, input, context).await;
        let outcome = outcome(&result);
        let caller_number = if outcome == CallOutcome::Fault { gateway.hasher.hash_one(self.subject()) } else { 0 };
        permit.complete(outcome, caller_number, gateway.ms_at(Instant::now()));
        match result {
            Ok(reply) => Ok(self.service_reply(reply)),
            Err(error) => {
                self.log(&error);
                let begins_upload = route.route.stream.is_some_and(|stream| stream.kind == StreamKind::TusCreate);
                Err(if begins_upload { stream::tus::as_headers(error.into()) } else { error.into() })
            }
        }
    }

    fn service_reply(&self, reply: Reply) -> ServiceReply {
        let route = &self.route.route;
        let status = match &route.status_unless {
            Some(unless) if reply.status_flag == Some(false) => unless.status,
            _ => route.status,
        };
        ServiceReply { status: StatusCode::from_u16(status).expect("the manifest's check lets only 200 to 299 pass"), body: reply.body }
    }

    /// The one place where a service's fault is logged; the client gets its code and no more.
    fn log(&self, error: &CallError) {
        let (service, route, request_id) = (&self.route.target.service, &*self.route.key, &*self.info.request_id);
        match error {
            CallError::Declined(declined) if declined.kind == ErrorKind::Internal => {
                tracing::error!(%service, route, request_id, code = declined.code, reason = declined.message, "the service failed");
            }
            CallError::Failed(reason) => tracing::error!(%service, route, request_id, reason, "the service failed"),
            CallError::TimedOut(reason) => tracing::warn!(%service, route, request_id, reason, "the service timed out"),
            CallError::Unavailable(reason) => tracing::warn!(%service, route, request_id, reason, "the service is unavailable"),
            CallError::Busy => tracing::warn!(%service, route, request_id, "the service is busy"),
            // Of what the operator wanted nobody needs to be reminded.
            CallError::Unreadable(_) | CallError::Invalid(_) | CallError::Declined(_) | CallError::SwitchedOff(_) => {}
        }
    }

    /// The user, or the address of an anonymous client.
    fn subject(&self) -> Subject {
        self.caller.as_ref().map_or_else(|| Subject::of_address(self.info.client_address), |caller| Subject::User(caller.user_id))
    }
}

/// Runs in a task of its own, which goes on when the client's connection breaks.
async fn on_its_own(
    tasks: &TaskTracker,
    work: impl Future<Output = Result<Response, Problem>> + Send + 'static,
) -> Result<Response, Problem> {
    tasks.spawn(work).await.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(Problem::unavailable("shutting_down", "this host is shutting down", Duration::from_secs(1))),
    })
}

impl ServiceReply {
    fn into_stored(self) -> StoredResponse {
        StoredResponse { status: self.status.as_u16(), body: self.body.unwrap_or_default() }
    }
}

impl IntoResponse for ServiceReply {
    fn into_response(self) -> Response {
        respond(self.status, self.body.unwrap_or_default(), APPLICATION_JSON)
    }
}

/// See `breaker`: a declined call is a good one, and what never reached the guest is none.
fn outcome(result: &Result<Reply, CallError>) -> CallOutcome {
    match result {
        Ok(_) | Err(CallError::Declined(_)) => CallOutcome::Good,
        Err(CallError::Failed(_) | CallError::TimedOut(_)) => CallOutcome::Fault,
        Err(CallError::Unreadable(_) | CallError::Invalid(_) | CallError::Busy | CallError::Unavailable(_) | CallError::SwitchedOff(_)) => {
            CallOutcome::Neutral
        }
    }
}

fn refused(pattern: &str, rule: &Rule, allowance: Allowance) -> Response {
    metrics::counter!("echo_http_rate_limited_total", "route" => pattern.to_owned()).increment(1);
    let mut response = Problem::rate_limited(allowance.reset).into_response();
    rule.write_headers(&allowance, response.headers_mut());
    response
}

fn replay(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = if status.is_success() { APPLICATION_JSON } else { PROBLEM_JSON };
    let mut response = respond(status, answer.body, content_type);
    response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn respond(status: StatusCode, body: Bytes, content_type: HeaderValue) -> Response {
    let has_body = !body.is_empty();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    // Room for the headers that the layers add; without it the map grows three times on the way out.
    *response.headers_mut() = HeaderMap::with_capacity(24);
    if has_body {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

fn decode_values(values: Values<'_>) -> Result<Vec<String>, Problem> {
    let decoded = values.into_iter().map(|value| percent_decode(value).map(std::borrow::Cow::into_owned)).collect::<Option<_>>();
    decoded.ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "unreadable", "the path is not percent-encoded UTF-8"))
}

fn client_text(headers: &HeaderMap, name: &HeaderName) -> Option<Arc<str>> {
    let text = headers.get(name)?.to_str().ok()?;
    // ASCII, so that any place is a good one to cut.
    Some(text[..text.len().min(limits::CLIENT_TEXT_BYTES_MAX)].into())
}
