//! Stand-ins for the runtime, the tokens and the cache, for the gateway's tests.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use axum::body::Body;
use axum::response::Response;
use axum::routing::MethodRouter;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use uuid::Uuid;

use super::services::{Services, Snapshot};
use super::{GatewaySettings, GatewayState, PeerAddress, Readiness, router};
use echo_base::names::ServiceName;
use echo_capabilities::blob::{Blobs, ObjectStoreBlobs};
use echo_capabilities::cache::{Cache, CacheError};
use echo_capabilities::context::{CallContext, Caller};
use echo_capabilities::tokens::{AccessToken, Claims, Revocations, TokenError, Tokens};
use echo_runtime::manifest::Manifest;
use echo_runtime::route_settings::{AddedPrefix, OutsidePrefix};
use echo_runtime::{CallError, CallTarget, Input, Reply, RouteEntry};

/// A route as a manifest says it; `more` are further lines of it, and without a rate among them nothing is limited. The binding is 0, and the
/// function is named as the route.
pub fn route(service: &str, http: &str, access: &str, more: &str) -> RouteEntry {
    let rate = if more.contains("rate = ") {
        ""
    } else {
        "rate = { per = \"route\", strategy = \"fixed-window\", limit = 1000000, window = \"1m\" }"
    };
    let text = format!(
        "name = \"{service}\"\nversion = \"0.1.0\"\n[[route]]\nhttp = \"{http}\"\ncall = \"{http}\"\naccess = \"{access}\"\n{rate}\n{more}\n"
    );
    let route = Manifest::parse(&text).unwrap().routes.remove(0);
    let target = CallTarget { service: ServiceName::parse(service).unwrap(), binding: 0, changed: None };
    RouteEntry::new(target, route.full_path(""), Arc::new(route))
}

pub struct FakeSnapshot {
    number: u64,
    routes: Vec<RouteEntry>,
    outside: Vec<Arc<OutsidePrefix>>,
}

impl FakeSnapshot {
    /// The routes' places are their bindings.
    pub fn new(number: u64, mut routes: Vec<RouteEntry>) -> Self {
        for (binding, route) in routes.iter_mut().enumerate() {
            route.target.binding = binding;
        }
        Self { number, routes, outside: Vec::new() }
    }

    /// With entries of `[[gateway.prefixes]]`.
    pub fn with_outside(self, entries: &[String]) -> Self {
        let outside = entries.iter().map(|entry| {
            let added: AddedPrefix = toml::from_str(entry).unwrap();
            Arc::new(added.outside().unwrap().unwrap())
        });
        Self { outside: outside.collect(), ..self }
    }
}

impl Snapshot for FakeSnapshot {
    fn number(&self) -> u64 {
        self.number
    }

    fn routes(&self) -> &[RouteEntry] {
        &self.routes
    }

    fn outside(&self) -> &[Arc<OutsidePrefix>] {
        &self.outside
    }

    fn openapi(&self) -> Bytes {
        json!({ "openapi": "3.1.0", "info": { "title": "Echo", "version": self.number.to_string() } }).to_string().into()
    }

    fn asyncapi(&self) -> Bytes {
        json!({ "asyncapi": "3.0.0", "info": { "title": "Echo", "version": self.number.to_string() } }).to_string().into()
    }

    fn services(&self) -> Vec<ServiceName> {
        let mut names: Vec<_> = self.routes.iter().map(|route| route.target.service.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    fn is_off(&self, service: &ServiceName) -> bool {
        service.as_str() == "off"
    }
}

/// A call as a service sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub route: String,
    pub path: Vec<(String, String)>,
    pub query: Option<String>,
    pub body: Option<String>,
    pub context: Arc<CallContext>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Reply, CallError>> + Send>>;
type Handler = Box<dyn Fn(Seen) -> Answer + Send + Sync>;

/// All services: one function answers every call.
pub struct FakeServices {
    pub snapshot: ArcSwap<FakeSnapshot>,
    handler: Handler,
    pub seen: Mutex<Vec<Seen>>,
}

impl Services for FakeServices {
    type Snapshot = FakeSnapshot;

    fn pin(&self) -> Arc<FakeSnapshot> {
        self.snapshot.load_full()
    }

    fn call(
        &self,
        snapshot: &Arc<FakeSnapshot>,
        target: &CallTarget,
        input: Input<'_>,
        context: Arc<CallContext>,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send {
        let Input::Http { path, query, body } = input else { panic!("the gateway speaks HTTP") };
        let seen = Seen {
            route: snapshot.routes[target.binding].route.http.clone(),
            path: path.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            query: query.map(str::to_owned),
            body: body.map(|body| String::from_utf8(body.to_vec()).unwrap()),
            context,
        };
        self.seen.lock().push(seen.clone());
        (self.handler)(seen)
    }
}

pub fn reply(body: Value) -> Result<Reply, CallError> {
    Ok(Reply { body: Some(body.to_string().into()), status_flag: None })
}

fn caller(name: &str, roles: &[&str]) -> Arc<Caller> {
    let number = name.bytes().fold(0u128, |number, byte| number * 256 + u128::from(byte));
    Arc::new(Caller {
        user_id: Uuid::from_u128(number),
        device_id: format!("{name}-phone"),
        session_id: Uuid::from_u128(1),
        roles: roles.iter().map(ToString::to_string).collect(),
        issued_at_us: 0,
        expires_at_us: u64::MAX,
    })
}

/// A token is its owner's name: alice, bob or admin.
pub struct FakeTokens;

#[async_trait]
impl Tokens for FakeTokens {
    fn sign(&self, _: &Claims) -> Result<AccessToken, TokenError> {
        Err(TokenError::Unavailable)
    }

    async fn verify(&self, token: &str) -> Result<Arc<Caller>, TokenError> {
        match token {
            "alice" | "bob" => Ok(caller(token, &[])),
            "admin" => Ok(caller(token, &["admin"])),
            "expired" => Err(TokenError::Expired),
            "revoked" => Err(TokenError::Revoked),
            "unavailable" => Err(TokenError::Unavailable),
            _ => Err(TokenError::Invalid),
        }
    }

    fn jti(&self, _: &str) -> Result<Uuid, TokenError> {
        Err(TokenError::Unavailable)
    }

    async fn revoke_session(&self, _: Uuid) -> Result<(), TokenError> {
        Err(TokenError::Unavailable)
    }

    async fn revoke_user(&self, _: Uuid) -> Result<(), TokenError> {
        Err(TokenError::Unavailable)
    }

    fn revocations(&self) -> Revocations {
        Revocations::new(broadcast::channel(1).1)
    }

    async fn issue_ticket(&self, _: &Claims) -> Result<(String, u32), TokenError> {
        Err(TokenError::Unavailable)
    }

    async fn redeem_ticket(&self, _: &str) -> Result<Arc<Caller>, TokenError> {
        Err(TokenError::Unavailable)
    }

    async fn return_ticket(&self, _: &str) {}

    fn jwks(&self) -> Value {
        json!({ "keys": [{ "kid": "one" }] })
    }

    async fn rotate(&self) -> Result<(), TokenError> {
        Err(TokenError::Unavailable)
    }

    async fn upkeep(&self, _: CancellationToken) {}
}

/// A cache with a clock of its own, that can be broken. The gateway keeps bytes alone in it.
#[derive(Default)]
pub struct FakeCache {
    state: Mutex<CacheState>,
}

#[derive(Default)]
struct CacheState {
    now: Duration,
    is_broken: bool,
    values: HashMap<String, (Bytes, Option<Duration>)>,
}

impl FakeCache {
    pub fn advance(&self, by: Duration) {
        self.state.lock().now += by;
    }

    pub fn break_down(&self) {
        self.state.lock().is_broken = true;
    }

    fn with<T>(&self, key: &str, act: impl FnOnce(&mut Option<(Bytes, Option<Duration>)>, Duration) -> T) -> Result<T, CacheError> {
        let mut state = self.state.lock();
        if state.is_broken {
            return Err(CacheError::Unavailable);
        }
        let now = state.now;
        let mut slot = state.values.remove(key).filter(|(_, until)| until.is_none_or(|until| until > now));
        let done = act(&mut slot, now);
        if let Some(value) = slot {
            state.values.insert(key.to_owned(), value);
        }
        Ok(done)
    }
}

#[async_trait]
impl Cache for FakeCache {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, CacheError> {
        self.with(key, |slot, _| slot.as_ref().map(|(value, _)| value.clone()))
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<(), CacheError> {
        self.with(key, |slot, now| *slot = Some((value, ttl.map(|ttl| now + ttl))))
    }

    async fn delete(&self, key: &str) -> Result<bool, CacheError> {
        self.with(key, |slot, _| slot.take().is_some())
    }

    async fn set_if_absent(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<bool, CacheError> {
        self.compare_and_swap(key, None, value, ttl).await
    }

    async fn compare_and_swap(&self, key: &str, expected: Option<Bytes>, value: Bytes, ttl: Option<Duration>) -> Result<bool, CacheError> {
        self.with(key, |slot, now| {
            let is_expected = slot.as_ref().map(|(value, _)| value) == expected.as_ref();
            if is_expected {
                *slot = Some((value, ttl.map(|ttl| now + ttl)));
            }
            is_expected
        })
    }

    async fn compare_and_delete(&self, key: &str, expected: &[u8]) -> Result<bool, CacheError> {
        self.with(key, |slot, _| slot.take_if(|(value, _)| value == expected).is_some())
    }

    async fn get_multi(&self, _: &[String]) -> Result<Vec<Option<Bytes>>, CacheError> {
        Err(CacheError::Unavailable)
    }

    async fn set_multi(&self, _: Vec<(String, Bytes)>, _: Option<Duration>) -> Result<(), CacheError> {
        Err(CacheError::Unavailable)
    }

    async fn add(&self, _: &str, _: i64, _: Option<Duration>) -> Result<i64, CacheError> {
        Err(CacheError::Unavailable)
    }

    async fn expire(&self, _: &str, _: Duration) -> Result<bool, CacheError> {
        Err(CacheError::Unavailable)
    }

    async fn ttl(&self, _: &str) -> Result<Option<Duration>, CacheError> {
        Err(CacheError::Unavailable)
    }

    async fn set_add(&self, _: &str, _: &[String], _: Option<Duration>) -> Result<u32, CacheError> {
        Err(CacheError::Unavailable)
    }

    async fn set_remove(&self, _: &str, _: &[String]) -> Result<u32, CacheError> {
        Err(CacheError::Unavailable)
    }

    async fn set_members(&self, _: &str) -> Result<Vec<String>, CacheError> {
        Err(CacheError::Unavailable)
    }

    async fn set_contains(&self, _: &str, _: &str) -> Result<bool, CacheError> {
        Err(CacheError::Unavailable)
    }

    async fn ping(&self) -> Result<(), CacheError> {
        self.with("", |_, _| ())
    }
}

/// A whole gateway over fake services.
pub struct TestGateway {
    pub router: BoxCloneSyncService<Request<Body>, Response, Infallible>,
    pub services: Arc<FakeServices>,
    pub readiness: Arc<Readiness>,
    pub cache: Arc<FakeCache>,
    pub blobs: Arc<dyn Blobs>,
}

impl TestGateway {
    pub fn new<F, A>(routes: Vec<RouteEntry>, handler: F) -> Self
    where
        F: Fn(Seen) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Reply, CallError>> + Send + 'static,
    {
        Self::with(GatewaySettings::default(), [], routes, handler)
    }

    pub fn with<F, A>(
        settings: GatewaySettings,
        host_routes: impl IntoIterator<Item = (&'static str, MethodRouter)>,
        routes: Vec<RouteEntry>,
        handler: F,
    ) -> Self
    where
        F: Fn(Seen) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Reply, CallError>> + Send + 'static,
    {
        Self::on(Arc::default(), settings, host_routes, routes, handler)
    }

    /// With a cache that another gateway may have too.
    pub fn on<F, A>(
        cache: Arc<FakeCache>,
        settings: GatewaySettings,
        host_routes: impl IntoIterator<Item = (&'static str, MethodRouter)>,
        routes: Vec<RouteEntry>,
        handler: F,
    ) -> Self
    where
        F: Fn(Seen) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Reply, CallError>> + Send + 'static,
    {
        let services = Arc::new(FakeServices {
            snapshot: ArcSwap::from_pointee(FakeSnapshot::new(1, routes)),
            handler: Box::new(move |seen| Box::pin(handler(seen))),
            seen: Mutex::default(),
        });
        let blobs: Arc<dyn Blobs> = Arc::new(ObjectStoreBlobs::in_memory());
        let readiness = Arc::new(Readiness::default());
        let state = GatewayState {
            runtime: services.clone(),
            tokens: Arc::new(FakeTokens),
            blobs: blobs.clone(),
            idempotency_cache: cache.clone(),
            response_cache: cache.clone(),
            rates: Arc::default(),
            settings,
            readiness: readiness.clone(),
            breakers: Default::default(),
            render_metrics: Arc::new(|| "echo_up 1\n".to_owned()),
            background: Default::default(),
            ending: Default::default(),
        };
        Self { router: BoxCloneSyncService::new(router(state, host_routes)), services, readiness, cache, blobs }
    }

    pub fn calls_count(&self) -> usize {
        self.services.seen.lock().len()
    }

    pub fn last_seen(&self) -> Seen {
        self.services.seen.lock().last().expect("a call").clone()
    }

    /// Status, headers and body of `METHOD /path`, with headers written `name: value`.
    pub async fn send(&self, line: &str, headers: &[&str], body: impl Into<Body>) -> (u16, HeaderMap, Value) {
        json_of(self.send_raw(line, headers, body).await).await
    }

    /// The same from another address.
    pub async fn send_from(&self, address: &str, line: &str, headers: &[&str], body: impl Into<Body>) -> (u16, HeaderMap, Value) {
        json_of(self.send_raw_from(address, line, headers, body).await).await
    }

    pub async fn send_raw(&self, line: &str, headers: &[&str], body: impl Into<Body>) -> Response {
        self.send_raw_from("192.0.2.1:50000", line, headers, body).await
    }

    async fn send_raw_from(&self, address: &str, line: &str, headers: &[&str], body: impl Into<Body>) -> Response {
        let (method, path) = line.split_once(' ').unwrap();
        let peer: SocketAddr = address.parse().unwrap();
        let mut request = Request::builder().method(method).uri(path).extension(PeerAddress(peer));
        for header in headers {
            let (name, value) = header.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        if !headers.iter().any(|header| header.starts_with("host: ")) {
            request = request.header("host", "echo.test");
        }
        self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()
    }
}

/// The body as JSON; `null` for none, a string for what is no JSON.
pub async fn json_of(response: Response) -> (u16, HeaderMap, Value) {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let value = match &bytes[..] {
        [] => Value::Null,
        bytes => serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into()),
    };
    (parts.status.as_u16(), parts.headers, value)
}
