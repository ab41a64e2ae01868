//! The API page's WebSocket section, line by line, over real connections.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use axum::Router;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, StatusCode};
use parking_lot::Mutex;
use rand::RngExt;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, broadcast};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as ClientError, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use uuid::Uuid;

use super::*;
use echo_base::clock::now_us;
use echo_base::names::ServiceName;
use echo_capabilities::context::Caller;
use echo_capabilities::events::embedded::EmbeddedQueue;
use echo_capabilities::events::{Event, Handler, Outcome, Queue};
use echo_capabilities::hub::embedded::EmbeddedFeed;
use echo_capabilities::hub::{Acknowledgement, Class, DeviceCursor, FeedChange, FeedEntry, FeedError, FeedPage, Push};
use echo_capabilities::sql::sqlite::Durability;
use echo_capabilities::sql::{Effect, Outbox, SqlError};
use echo_capabilities::tokens::{AccessToken, Claims, Revocation, Revocations, TokenError};
use echo_contract::codec::EventCodec;
use echo_contract::wit::{Contract, wit_text};
use echo_edge::in_flight::InFlightBounds;
use echo_edge::problem;
use echo_edge::rates::Subject;
use echo_relay::Relay;
use echo_runtime::{ErrorKind, ServiceError};

/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

// --- A feed, tokens and services as simple as they can be ------------------------------------------------------------------------

#[derive(Default)]
struct MemoryFeed {
    users: Mutex<HashMap<Uuid, UserFeed>>,
    cursors: Mutex<BTreeMap<(Uuid, String), DeviceCursor>>,
    acknowledge_calls: AtomicUsize,
    failing: AtomicBool,
    signal: Arc<Notify>,
}

#[derive(Default)]
struct UserFeed {
    entries: Vec<FeedEntry>,
    head: u64,
}

impl MemoryFeed {
    fn add(&self, user: Uuid, event: &str, payload: &Arc<str>) -> FeedEntry {
        let mut users = self.users.lock();
        let feed = users.entry(user).or_default();
        feed.head += 1;
        let entry = FeedEntry { user, seq: feed.head, event: event.to_owned(), payload: payload.clone(), at_us: feed.head };
        feed.entries.push(entry.clone());
        entry
    }

    fn expire_up_to(&self, user: Uuid, seq: u64) {
        self.users.lock().entry(user).or_default().entries.retain(|entry| entry.seq > seq);
    }

    fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), FeedError> {
        if self.failing.load(Ordering::SeqCst) { Err(FeedError("told to fail".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl Outbox for MemoryFeed {
    fn source(&self) -> &str {
        "memory"
    }
    fn signal(&self) -> Arc<Notify> {
        self.signal.clone()
    }
    fn start_above(&self, _position: i64) {}
    async fn peek(&self, _after: i64, _limit: usize) -> Result<Vec<(i64, Effect)>, SqlError> {
        Ok(Vec::new())
    }
    fn refuse_events(&self, _refuse: bool) {}
    async fn remove_up_to(&self, _position: i64) -> Result<(), SqlError> {
        Ok(())
    }
}

#[async_trait]
impl Feed for MemoryFeed {
    async fn apply(&self, _source: &str, changes: &[(i64, FeedChange)]) -> Result<Vec<FeedEntry>, FeedError> {
        let mut entries = Vec::new();
        for (_, change) in changes {
            let FeedChange::Push(push) = change else { continue };
            let payload: Arc<str> = push.payload.as_str().into();
            entries.extend(push.users.iter().map(|user| self.add(*user, &push.event, &payload)));
        }
        Ok(entries)
    }

    async fn position(&self, _source: &str) -> Result<Option<i64>, FeedError> {
        Ok(None)
    }

    async fn release(&self, _source: &str) -> Result<Vec<FeedEntry>, FeedError> {
        Ok(Vec::new())
    }

    async fn read(&self, user: Uuid, since: u64, limit: usize) -> Result<FeedPage, FeedError> {
        self.check()?;
        // So that reads and deliveries really interleave.
        tokio::task::yield_now().await;
        let users = self.users.lock();
        let Some(feed) = users.get(&user) else { return Ok(FeedPage { entries: Vec::new(), head: 0, oldest: 1 }) };
        Ok(FeedPage {
            entries: feed.entries.iter().filter(|entry| entry.seq > since).take(limit).cloned().collect(),
            head: feed.head,
            oldest: feed.entries.first().map_or(feed.head + 1, |entry| entry.seq),
        })
    }

    async fn acknowledge(&self, acknowledgements: &[Acknowledgement]) -> Result<(), FeedError> {
        self.check()?;
        self.acknowledge_calls.fetch_add(1, Ordering::SeqCst);
        let mut cursors = self.cursors.lock();
        for Acknowledgement { user, device, above, seq } in acknowledgements {
            let head = self.users.lock().get(user).map_or(0, |feed| feed.head);
            let cursor = cursors.entry((*user, device.clone())).or_insert(DeviceCursor { above: 0, acknowledged: 0 });
            cursor.acknowledged = cursor.acknowledged.max((*seq).min(head));
            cursor.above = *above;
        }
        Ok(())
    }

    async fn announce(&self, _events: &[Event]) -> Result<(), FeedError> {
        Ok(())
    }

    async fn device(&self, user: Uuid, device: &str) -> Result<Option<DeviceCursor>, FeedError> {
        self.check()?;
        Ok(self.cursors.lock().get(&(user, device.to_owned())).copied())
    }

    async fn unacknowledged(&self, _receipt: &str, users: &[Uuid]) -> Result<Vec<Uuid>, FeedError> {
        Ok(users.to_vec())
    }

    async fn expire(&self, _now_us: u64, _cursors_kept: Duration) -> Result<u64, FeedError> {
        Ok(0)
    }
}

struct FakeTokens {
    callers: Mutex<HashMap<String, Arc<Caller>>>,
    tickets: Mutex<HashMap<String, Arc<Caller>>>,
    redeemed: Mutex<HashMap<String, Arc<Caller>>>,
    revoked: Mutex<HashSet<Uuid>>,
    revocations: broadcast::Sender<Revocation>,
}

impl FakeTokens {
    fn new() -> Self {
        Self {
            callers: Mutex::default(),
            tickets: Mutex::default(),
            redeemed: Mutex::default(),
            revoked: Mutex::default(),
            revocations: broadcast::channel(16).0,
        }
    }
}

#[async_trait]
impl Tokens for FakeTokens {
    fn sign(&self, _claims: &Claims) -> Result<AccessToken, TokenError> {
        Err(TokenError::Unavailable)
    }
    async fn verify(&self, token: &str) -> Result<Arc<Caller>, TokenError> {
        let caller = self.callers.lock().get(token).cloned().ok_or(TokenError::Invalid)?;
        if self.revoked.lock().contains(&caller.session_id) {
            return Err(TokenError::Revoked);
        }
        if caller.expires_at_us <= now_us() {
            return Err(TokenError::Expired);
        }
        Ok(caller)
    }
    fn jti(&self, _token: &str) -> Result<Uuid, TokenError> {
        Err(TokenError::Invalid)
    }
    async fn revoke_session(&self, session: Uuid) -> Result<(), TokenError> {
        self.revoked.lock().insert(session);
        _ = self.revocations.send(Revocation::Session(session));
        Ok(())
    }
    async fn revoke_user(&self, user: Uuid) -> Result<(), TokenError> {
        _ = self.revocations.send(Revocation::User(user));
        Ok(())
    }
    fn revocations(&self) -> Revocations {
        Revocations::new(self.revocations.subscribe())
    }
    async fn issue_ticket(&self, _claims: &Claims) -> Result<(String, u32), TokenError> {
        Err(TokenError::Unavailable)
    }
    async fn redeem_ticket(&self, ticket: &str) -> Result<Arc<Caller>, TokenError> {
        let caller = self.tickets.lock().remove(ticket).ok_or(TokenError::Invalid)?;
        self.redeemed.lock().insert(ticket.to_owned(), caller.clone());
        Ok(caller)
    }
    async fn return_ticket(&self, ticket: &str) {
        let caller = self.redeemed.lock().remove(ticket);
        self.tickets.lock().extend(caller.map(|caller| (ticket.to_owned(), caller)));
    }
    fn jwks(&self) -> Value {
        json!({"keys": []})
    }
    async fn rotate(&self) -> Result<(), TokenError> {
        Ok(())
    }
    async fn upkeep(&self, _stop: CancellationToken) {}
}

/// Services: `echo` answers what it was sent, `slow` does so when `gate` has a permit, `typing` has no result, `decline` fails.
#[derive(Clone)]
struct FakeServices {
    called: Arc<Mutex<Vec<String>>>,
    gate: Arc<Semaphore>,
}

/// What `echo` counts under; a route may share it.
const ECHO: u64 = 77;

#[async_trait]
impl Calls for FakeServices {
    fn rate(&self, event: &str) -> Option<FrameRate> {
        Some(match event {
            "echo" => FrameRate::of_host(ECHO, 10_000),
            "typing" => FrameRate::of_host(ECHO + 1, 10_000),
            "seldom" => FrameRate::of_host(ECHO, 3),
            "slow" | "decline" => FrameRate::of_host(ECHO + 2, 10_000),
            _ => return None,
        })
    }

    async fn call(&self, event: &str, payload: &[u8], context: CallContext) -> Option<Result<Reply, CallError>> {
        assert!(context.caller.is_some() && context.deadline > Instant::now());
        let payload = payload.to_vec();
        if event == "slow" {
            self.gate.acquire().await.expect("open").forget();
        }
        self.called.lock().push(format!("{event} {}", String::from_utf8_lossy(&payload)));
        match event {
            "echo" | "seldom" | "slow" => Some(Ok(Reply { body: Some(payload.into()), status_flag: None })),
            "typing" => Some(Ok(Reply { body: None, status_flag: None })),
            "decline" => Some(Err(CallError::Declined(ServiceError {
                kind: ErrorKind::NotFound,
                code: "no_such_conversation".to_owned(),
                message: "there is no such conversation".to_owned(),
                fields: Vec::new(),
                retry_after: None,
            }))),
            _ => None,
        }
    }
}

// --- A host with nothing but the hub, and its clients ------------------------------------------------------------------------------

struct TestHub {
    address: SocketAddr,
    hub: Arc<Hub>,
    registry: Arc<Registry>,
    feed: Arc<MemoryFeed>,
    tokens: Arc<FakeTokens>,
    services: FakeServices,
    changes: Arc<Mutex<Vec<Change>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for TestHub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Person {
    user: Uuid,
    device: String,
    session: Uuid,
}

impl Person {
    fn new() -> Self {
        Self { user: Uuid::now_v7(), device: "phone".to_owned(), session: Uuid::now_v7() }
    }

    fn with_device(&self, device: &str) -> Self {
        Self { user: self.user, device: device.to_owned(), session: Uuid::now_v7() }
    }

    fn caller(&self, lives: Duration) -> Arc<Caller> {
        Arc::new(Caller {
            user_id: self.user,
            device_id: self.device.clone(),
            session_id: self.session,
            roles: Vec::new(),
            issued_at_us: now_us(),
            expires_at_us: now_us() + lives.as_micros() as u64,
        })
    }
}

impl TestHub {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut HubSettings)) -> Self {
        Self::telling(|_| {}, change).await
    }

    /// `told` hears of each change too.
    async fn telling(told: impl Fn(Change) + Send + Sync + 'static, change: impl FnOnce(&mut HubSettings)) -> Self {
        let mut settings = HubSettings { close_timeout: Duration::from_secs(10), ..HubSettings::default() };
        change(&mut settings);
        let changes = Arc::new(Mutex::new(Vec::new()));
        let seen = changes.clone();
        let tell = move |change: Change, _: u64| {
            seen.lock().push(change.clone());
            told(change);
        };
        let registry = Registry::new(Some(Box::new(tell)));
        let feed = Arc::new(MemoryFeed::default());
        let tokens = Arc::new(FakeTokens::new());
        let services = FakeServices { called: Arc::default(), gate: Arc::new(Semaphore::new(0)) };
        let hub = Hub::new(settings, registry.clone(), None, tokens.clone(), feed.clone(), Arc::new(services.clone()), Arc::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        // The edge writes a refusal's body; here nobody knows an id.
        let app = routes(hub.clone()).into_iter().fold(Router::new(), |app, (path, handlers)| app.route(path, handlers));
        let app = app.layer(axum::middleware::map_response(async |response| problem::finish(response, None)));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.expect("serves") });
        Self { address, hub, registry, feed, tokens, services, changes, server }
    }

    fn token_for(&self, person: &Person, lives: Duration) -> String {
        let token = format!("token-{}", Uuid::now_v7());
        self.tokens.callers.lock().insert(token.clone(), person.caller(lives));
        token
    }

    async fn connect(&self, person: &Person) -> Client {
        self.connect_with(person, "").await
    }

    async fn connect_since(&self, person: &Person, since: u64) -> Client {
        self.connect_with(person, &format!("?since={since}")).await
    }

    async fn connect_with(&self, person: &Person, query: &str) -> Client {
        let bearer = format!("Bearer {}", self.token_for(person, Duration::from_secs(600)));
        self.open(query, &[("authorization", &bearer)]).await.expect("the socket opens").0
    }

    /// The client and the chosen subprotocol, or the status and the problem.
    async fn open(&self, query: &str, headers: &[(&str, &str)]) -> Result<(Client, Option<String>), (StatusCode, Value)> {
        let stream = TcpStream::connect(self.address).await.expect("connects");
        self.open_over(stream, query, headers).await
    }

    async fn open_over(
        &self,
        stream: TcpStream,
        query: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Client, Option<String>), (StatusCode, Value)> {
        let mut request = format!("ws://{}/ws{query}", self.address).into_client_request().expect("a request");
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
            request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a header's value"));
        }
        match client_async(request, stream).await {
            Ok((stream, response)) => {
                let protocol = response.headers().get("sec-websocket-protocol").map(|value| value.to_str().expect("text").to_owned());
                Ok((Client { stream }, protocol))
            }
            Err(ClientError::Http(response)) => {
                assert_eq!(response.headers()["content-type"], "application/problem+json");
                let body = response.body().as_ref().expect("a problem");
                Err((response.status(), serde_json::from_slice(body).expect("JSON")))
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn refused(&self, query: &str, headers: &[(&str, &str)]) -> (u16, String) {
        match self.open(query, headers).await {
            Ok(_) => panic!("was let in"),
            Err((status, problem)) => (status.as_u16(), problem["code"].as_str().expect("a code").to_owned()),
        }
    }

    /// Keeps a durable event and hands it to who is connected, as the relay does.
    fn push(&self, users: &[Uuid], event: &str, payload: &str) {
        let payload: Arc<str> = payload.into();
        let entries: Vec<FeedEntry> = users.iter().map(|user| self.feed.add(*user, event, &payload)).collect();
        self.registry.deliver(&entries);
    }

    fn push_ephemeral(&self, users: &[Uuid], event: &str, payload: &str) {
        self.registry.deliver_ephemeral(&Push {
            users: users.to_vec(),
            event: event.to_owned(),
            payload: payload.to_owned(),
            class: Class::Ephemeral,
            receipt: None,
            subject: None,
            state: None,
        });
    }

    async fn get(&self, path: &str, token: Option<&str>) -> (u16, Value) {
        let mut request = reqwest::Client::new().get(format!("http://{}{path}", self.address));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.expect("answers");
        let status = response.status().as_u16();
        let body = response.bytes().await.expect("whole");
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

struct Client {
    stream: WebSocketStream<TcpStream>,
}

impl Client {
    async fn send(&mut self, frame: Value) {
        self.send_raw(Message::text(frame.to_string())).await;
    }

    async fn send_raw(&mut self, message: Message) {
        self.stream.send(message).await.expect("sends");
    }

    /// The next frame, or the close code.
    async fn next(&mut self) -> Result<Value, u16> {
        let next = async {
            loop {
                match self.stream.next().await.expect("a frame or a close").expect("no error") {
                    Message::Text(text) => return Ok(serde_json::from_str(&text).expect("frames are JSON")),
                    Message::Close(close) => return Err(close.expect("a code").code.into()),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("something comes")
    }

    async fn frame(&mut self) -> Value {
        self.next().await.expect("a frame, not a close")
    }

    async fn expect(&mut self, kind: &str) -> Value {
        let frame = self.frame().await;
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    /// Reads on to the close.
    async fn closed(&mut self) -> u16 {
        loop {
            if let Err(code) = self.next().await {
                return code;
            }
        }
    }

    /// Closed with this code, nothing before it.
    async fn expect_close(&mut self, code: u16) {
        assert_eq!(self.next().await.expect_err("a close, not a frame"), code);
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

// --- Identity ----------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn three_ways_to_say_who_one_is() {
    let host = TestHub::start().await;
    let person = Person::new();
    let token = host.token_for(&person, Duration::from_secs(60));

    let (mut client, protocol) = host.open("", &[("authorization", &format!("bearer {token}"))]).await.expect("a header");
    assert_eq!(client.expect("connection_ack").await["payload"]["user_id"], person.user.to_string());
    assert_eq!(protocol, None);

    let offered = format!("echo.v1, bearer.{token}");
    let (mut client, protocol) = host.open("", &[("sec-websocket-protocol", &offered)]).await.expect("a subprotocol");
    client.expect("connection_ack").await;
    assert_eq!(protocol.as_deref(), Some("echo.v1"));

    host.tokens.tickets.lock().insert("once".to_owned(), person.caller(Duration::from_secs(60)));
    let (mut client, _) = host.open("?ticket=once", &[]).await.expect("a ticket");
    client.expect("connection_ack").await;
    assert_eq!(host.refused("?ticket=once", &[]).await, (401, "token_invalid".to_owned()), "a ticket is good once");
}

#[tokio::test]
async fn a_ticket_is_spent_by_the_socket_that_it_opens_and_by_nothing_else() {
    let host = TestHub::with(|settings| settings.devices_per_user_max = 1).await;
    let person = Person::new();
    host.tokens.tickets.lock().insert("once".to_owned(), person.caller(Duration::from_secs(60)));
    let evil = [("origin", "https://evil.example")];
    assert_eq!(host.refused("?ticket=once", &evil).await.1, "origin_refused");
    assert_eq!(host.refused("?ticket=once&since=x", &[]).await.1, "invalid");
    assert_eq!(host.get("/ws?ticket=once", None).await.0, 426);
    host.feed.set_failing(true);
    assert_eq!(host.refused("?ticket=once", &[]).await.1, "feed_unavailable");
    host.feed.set_failing(false);
    let elsewhere = person.with_device("tablet");
    let tablet = host.connect(&elsewhere).await;
    assert_eq!(host.refused("?ticket=once", &[]).await.1, "too_many_devices");
    drop(tablet);
    until("the tablet is gone", || host.registry.count() == 0).await;

    let (mut client, _) = host.open("?ticket=once", &[]).await.expect("the ticket is still good");
    client.expect("connection_ack").await;
    assert_eq!(host.refused("?ticket=once", &[]).await, (401, "token_invalid".to_owned()));
}

#[tokio::test]
async fn an_acknowledgement_that_cannot_be_read_names_its_fields() {
    let host = TestHub::start().await;
    let mut client = host.connect(&Person::new()).await;
    client.expect("connection_ack").await;
    for (kind, payload, expect) in [
        ("ack", json!({"seq": "9"}), json!([["seq", "wrong_type"]])),
        ("ack", json!({"seq": 1.5}), json!([["seq", "wrong_type"]])),
        ("ack", json!({"seq": null}), json!([["seq", "wrong_type"]])),
        ("ack", json!({"seq": -1}), json!([["seq", "out_of_range"]])),
        ("ack", json!({}), json!([["seq", "required"]])),
        ("ack", json!({"sequence": 1}), json!([["sequence", "unknown_field"], ["seq", "required"]])),
        ("ack", json!({"seq": 1, "x".repeat(100): 1}), json!([["x".repeat(64), "unknown_field"]])),
        ("ack", json!([1]), json!([["payload", "wrong_type"]])),
        ("auth", json!({"access_token": 1}), json!([["access_token", "wrong_type"]])),
        ("auth", json!({"token": "x"}), json!([["token", "unknown_field"], ["access_token", "required"]])),
    ] {
        client.send(json!({"type": kind, "payload": payload})).await;
        let problem = client.expect("error").await["payload"].clone();
        assert_eq!((&problem["status"], &problem["code"]), (&json!(422), &json!("invalid")), "{problem}");
        let errors = problem["errors"].as_array().expect("errors");
        let found: Vec<_> = errors.iter().map(|error| json!([error["field"], error["code"]])).collect();
        assert_eq!(json!(found), expect, "{payload}");
    }
    client.send_raw(Message::text(r#"{"type":"ack","payload":{"seq":1,"seq":2}}"#)).await;
    assert_eq!(client.expect("error").await["payload"]["errors"][0]["code"], "duplicate_field");
}

#[tokio::test]
async fn whoever_is_nobody_is_refused_before_the_upgrade() {
    let host = TestHub::start().await;
    let person = Person::new();
    let good = format!("Bearer {}", host.token_for(&person, Duration::from_secs(60)));
    let expired = format!("Bearer {}", host.token_for(&person, Duration::ZERO));
    let ended = Person::new();
    let revoked = format!("Bearer {}", host.token_for(&ended, Duration::from_secs(60)));
    host.tokens.revoke_session(ended.session).await.expect("revoked");
    let long = format!("Bearer {}", "x".repeat(limits::TOKEN_BYTES_MAX + 1));

    type Headers<'a> = &'a [(&'a str, &'a str)];
    let refusals: &[(&str, Headers<'_>, u16, &str)] = &[
        ("", &[], 401, "token_missing"),
        ("", &[("authorization", "Basic eDp5")], 401, "token_missing"),
        ("", &[("authorization", "Bearer nonsense")], 401, "token_invalid"),
        ("", &[("authorization", &expired)], 401, "token_expired"),
        ("", &[("authorization", &revoked)], 401, "token_revoked"),
        ("", &[("authorization", &long)], 401, "token_invalid"),
        ("", &[("sec-websocket-protocol", "echo.v1, bearer.nonsense")], 401, "token_invalid"),
        ("", &[("sec-websocket-protocol", "echo.v1")], 401, "token_missing"),
        ("?ticket=nonsense", &[], 401, "token_invalid"),
        ("?since=abc", &[("authorization", &good)], 422, "invalid"),
        ("?since=-1", &[("authorization", &good)], 422, "invalid"),
        ("?since=99999999999999999999", &[("authorization", &good)], 422, "invalid"),
        ("", &[("authorization", &good), ("origin", "https://evil.example")], 403, "origin_refused"),
        ("", &[("authorization", &good), ("origin", "null")], 403, "origin_refused"),
    ];
    for (query, headers, status, code) in refusals {
        assert_eq!(host.refused(query, headers).await, (*status, (*code).to_owned()), "{query} {headers:?}");
    }
    assert_eq!(host.registry.count(), 0, "no refused client keeps a place");
    assert_eq!(host.get("/ws", None).await.0, 401);
    let token = good.trim_start_matches("Bearer ");
    assert_eq!(host.get("/ws", Some(token)).await.0, 426, "a plain GET is told to upgrade");
}

#[tokio::test]
async fn pages_of_allowed_origins_and_of_the_host_itself_may_connect() {
    let host = TestHub::with(|settings| settings.allowed_origins = vec!["https://chat.example".to_owned()]).await;
    let person = Person::new();
    let bearer = format!("Bearer {}", host.token_for(&person, Duration::from_secs(60)));
    for origin in ["https://chat.example".to_owned(), format!("http://{}", host.address)] {
        host.open("", &[("authorization", &bearer), ("origin", &origin)]).await.expect("an allowed origin");
    }
    assert_eq!(host.refused("", &[("authorization", &bearer), ("origin", "https://chat.example.evil")]).await.0, 403);
}

#[tokio::test]
async fn without_its_feed_the_host_opens_no_socket() {
    let host = TestHub::start().await;
    let bearer = format!("Bearer {}", host.token_for(&Person::new(), Duration::from_secs(60)));
    host.feed.set_failing(true);
    assert_eq!(host.refused("", &[("authorization", &bearer)]).await, (503, "feed_unavailable".to_owned()));
    assert_eq!(host.registry.count(), 0);
}

// --- Greeting, delivery, resume ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_first_frame_says_who_and_where() {
    let host = TestHub::start().await;
    let person = Person::new();
    host.push(&[person.user], "message", r#"{"n":1}"#);
    host.push(&[person.user], "message", r#"{"n":2}"#);
    let mut client = host.connect(&person).await;
    let ack = client.expect("connection_ack").await;
    assert_eq!(
        ack["payload"],
        json!({"connection_id": ack["payload"]["connection_id"], "user_id": person.user, "device_id": "phone",
               "heartbeat_interval": 30, "idle_timeout": 60, "cursor": 2})
    );
    host.push(&[person.user], "message", r#"{"n":3}"#);
    assert_eq!(client.frame().await, json!({"type": "message", "seq": 3, "at": "1970-01-01T00:00:00.000003Z", "payload": {"n": 3}}));
    host.push_ephemeral(&[Uuid::now_v7(), person.user], "typing", r#"{"is_typing":true}"#);
    assert_eq!(client.frame().await, json!({"type": "typing", "payload": {"is_typing": true}}));
}

#[tokio::test]
async fn a_push_reaches_every_device_of_every_user_under_its_own_number() {
    let host = TestHub::start().await;
    let (one, two) = (Person::new(), Person::new());
    host.push(&[two.user], "message", "{}");
    let mut clients = Vec::new();
    for person in [&one, &one.with_device("tablet"), &two] {
        let mut client = host.connect(person).await;
        client.expect("connection_ack").await;
        clients.push(client);
    }
    assert_eq!(host.registry.online(&[one.user, Uuid::now_v7(), two.user]).await.expect("answers"), [one.user, two.user]);
    host.push(&[one.user, two.user], "message", r#"{"shared":true}"#);
    for (client, seq) in clients.iter_mut().zip([1, 1, 2]) {
        let frame = client.expect("message").await;
        assert_eq!((frame["seq"].as_u64(), &frame["payload"]["shared"]), (Some(seq), &Value::Bool(true)));
    }
}

#[tokio::test]
async fn what_was_missed_follows_in_order_and_then_caught_up() {
    let host = TestHub::with(|settings| settings.resume_page = 3).await;
    let person = Person::new();
    (0..10).for_each(|n| host.push(&[person.user], "message", &format!("{n}")));
    let mut client = host.connect_since(&person, 2).await;
    assert_eq!(client.expect("connection_ack").await["payload"]["cursor"], 2);
    for seq in 3..=10 {
        assert_eq!(client.expect("message").await["seq"], seq);
    }
    assert_eq!(client.expect("caught_up").await["payload"], json!({"cursor": 10}));
    host.push(&[person.user], "reaction", "{}");
    assert_eq!(client.expect("reaction").await["seq"], 11);

    let mut newest = host.connect_since(&person.with_device("tablet"), 11).await;
    newest.expect("connection_ack").await;
    assert_eq!(newest.expect("caught_up").await["payload"], json!({"cursor": 11}));
}

#[tokio::test]
async fn a_cursor_that_the_feed_no_longer_reaches_asks_for_a_resync() {
    let host = TestHub::start().await;
    let person = Person::new();
    (0..10).for_each(|_| host.push(&[person.user], "message", "{}"));
    host.feed.expire_up_to(person.user, 6);
    for (since, good) in [(5, false), (6, true), (11, false)] {
        let mut client = host.connect_since(&person.with_device(&since.to_string()), since).await;
        client.expect("connection_ack").await;
        if good {
            assert_eq!(client.expect("message").await["seq"], 7);
        } else {
            assert_eq!(client.expect("resync_required").await["payload"], json!({"cursor": 10}));
        }
    }
    let mut client = host.connect_since(&person, 0).await;
    client.expect("connection_ack").await;
    client.expect("resync_required").await;
    host.push(&[person.user], "message", "{}");
    assert_eq!(client.expect("message").await["seq"], 11, "live events go on after the head");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_anywhere_nothing_is_missing_and_nothing_comes_twice() {
    let host = Arc::new(
        TestHub::with(|settings| {
            settings.resume_page = 7;
            settings.queue_frames_max = 5;
        })
        .await,
    );
    let person = Person::new();
    const EVENTS: u64 = 1_500;
    let (sender, user) = (host.clone(), person.user);
    let sending = tokio::spawn(async move {
        for n in 1..=EVENTS {
            sender.push(&[user], "message", &n.to_string());
            // Now and then an entry whose delivery is late or lost: the relay hands it over again, or a later one shows the gap.
            if rand::random_bool(0.1) {
                let entry = sender.feed.users.lock()[&user].entries[rand::random_range(0..n as usize)].clone();
                sender.registry.deliver(&[entry]);
            }
            if rand::random_bool(0.3) {
                tokio::task::yield_now().await;
            }
        }
    });
    let mut received = 0;
    let mut connections = 0;
    while received < EVENTS {
        let mut client = host.connect_since(&person, received).await;
        connections += 1;
        client.expect("connection_ack").await;
        let cut_after = rand::rng().random_range(0..200);
        let mut caught_up = false;
        for _ in 0..cut_after {
            if received == EVENTS && caught_up {
                break;
            }
            let frame = client.frame().await;
            match frame["type"].as_str() {
                Some("message") => {
                    assert_eq!((frame["seq"].as_u64(), frame["payload"].as_u64()), (Some(received + 1), Some(received + 1)));
                    received += 1;
                }
                Some("caught_up") => {
                    assert!(!caught_up, "once");
                    assert_eq!(frame["payload"]["cursor"].as_u64(), Some(received));
                    caught_up = true;
                }
                other => panic!("{other:?}"),
            }
        }
        // Cut: no close frame, the connection just ends.
        drop(client);
    }
    sending.await.expect("sent");
    assert!(connections > 3, "{connections} connections");
    until("all places are given up", || host.registry.count() == 0).await;
}

#[tokio::test]
async fn a_delivery_that_was_lost_is_found_in_the_feed() {
    let host = TestHub::start().await;
    let person = Person::new();
    let mut client = host.connect(&person).await;
    client.expect("connection_ack").await;
    for n in 1..=3 {
        host.feed.add(person.user, "message", &Arc::from(n.to_string()));
    }
    // The feed cannot be read when the gap shows; the socket waits and goes on.
    host.feed.set_failing(true);
    host.push(&[person.user], "message", "4");
    client.send(json!({"type": "ping"})).await;
    client.expect("pong").await;
    host.feed.set_failing(false);
    for seq in 1..=4 {
        assert_eq!(client.expect("message").await["seq"], seq);
    }
}

#[tokio::test]
async fn acknowledgements_are_written_together_and_never_go_back() {
    let host = TestHub::with(|settings| settings.ack_flush = Duration::from_millis(200)).await;
    let people: Vec<Person> = (0..5).map(|_| Person::new()).collect();
    let users: Vec<Uuid> = people.iter().map(|person| person.user).collect();
    (0..9).for_each(|_| host.push(&users, "message", "{}"));
    let mut clients = Vec::new();
    for person in &people {
        let mut client = host.connect(person).await;
        client.expect("connection_ack").await;
        clients.push(client);
    }
    let begun = host.feed.acknowledge_calls.load(Ordering::SeqCst);
    host.feed.set_failing(true);
    for client in &mut clients {
        for seq in [4, 7, 2] {
            client.send(json!({"type": "ack", "id": seq, "payload": {"seq": seq}})).await;
            assert_eq!(client.frame().await, json!({"type": "reply", "id": seq, "payload": {}}));
        }
    }
    host.feed.set_failing(false);
    let cursor = |user: &Uuid| host.feed.cursors.lock()[&(*user, "phone".to_owned())].acknowledged;
    until("all are written", || users.iter().all(|user| cursor(user) == 7)).await;
    assert!(host.feed.acknowledge_calls.load(Ordering::SeqCst) - begun < 5, "fifteen acknowledgements, a few writes");

    for seq in [json!(10), json!(u64::MAX), json!("9"), json!(-1), json!(null)] {
        clients[0].send(json!({"type": "ack", "id": "a", "payload": {"seq": seq}})).await;
        let error = clients[0].expect("error").await;
        assert_eq!((&error["payload"]["status"], &error["payload"]["errors"][0]["field"]), (&json!(422), &json!("seq")), "{error}");
    }
    clients[0].send(json!({"type": "ack", "payload": {"seq": 9}})).await;
    until("the last that was sent", || cursor(&users[0]) == 9).await;
}

#[tokio::test]
async fn a_device_acknowledges_what_it_was_given_and_nothing_before() {
    let host = TestHub::with(|settings| settings.ack_flush = Duration::from_millis(1)).await;
    let person = Person::new();
    let noted = |device: &str| host.feed.cursors.lock().get(&(person.user, device.to_owned())).copied();
    let cursor = |above, acknowledged| Some(DeviceCursor { above, acknowledged });
    (0..5).for_each(|_| host.push(&[person.user], "message", "{}"));

    // A device that says nothing begins at the head.
    let mut client = host.connect(&person).await;
    assert_eq!(client.expect("connection_ack").await["payload"]["cursor"], 5);
    assert_eq!(noted("phone"), cursor(5, 0));
    host.push(&[person.user], "message", "{}");
    client.expect("message").await;
    client.send(json!({"type": "ack", "payload": {"seq": 6}})).await;
    until("acknowledged", || noted("phone") == cursor(5, 6)).await;
    // It comes back: what it was given before is its own still; what it fetches is from then on.
    drop(client);
    let mut client = host.connect_since(&person, 6).await;
    client.expect("connection_ack").await;
    client.expect("caught_up").await;
    assert_eq!(noted("phone"), cursor(5, 6));
    let token = host.token_for(&person, Duration::from_secs(60));
    host.get("/api/v1/sync?since=2&limit=2", Some(&token)).await;
    client.send(json!({"type": "ping"})).await;
    client.expect("pong").await;
    assert_eq!(noted("phone"), cursor(5, 6), "number five is missing");
    host.get("/api/v1/sync?since=4&limit=2", Some(&token)).await;
    until("fetched without a gap", || noted("phone") == cursor(2, 6)).await;
    // A device that names no cursor starts at the head of the feed.
    drop(client);
    host.push(&[person.user], "message", "{}");
    let mut client = host.connect(&person).await;
    client.expect("connection_ack").await;
    until("from the head", || noted("phone") == cursor(7, 6)).await;
    // Where the feed no longer goes back to, it goes on from the head.
    drop(client);
    (0..3).for_each(|_| host.push(&[person.user], "message", "{}"));
    host.feed.expire_up_to(person.user, 9);
    let mut client = host.connect_since(&person, 7).await;
    client.expect("connection_ack").await;
    client.expect("resync_required").await;
    until("from there", || noted("phone") == cursor(10, 6)).await;
    // Another device with a cursor of its own begins there; one that fetched and has no socket, where it fetched from.
    let mut tablet = host.connect_since(&person.with_device("tablet"), 9).await;
    tablet.expect("connection_ack").await;
    tablet.expect("message").await;
    tablet.expect("caught_up").await;
    assert_eq!(noted("tablet"), cursor(9, 0));
    let watch = host.token_for(&person.with_device("watch"), Duration::from_secs(60));
    host.get("/api/v1/sync?since=9", Some(&watch)).await;
    assert_eq!(noted("watch"), cursor(9, 0));
}

#[tokio::test]
async fn the_same_feed_over_rest() {
    let host = TestHub::start().await;
    let person = Person::new();
    let token = host.token_for(&person, Duration::from_secs(60));
    (1..=5).for_each(|n| host.push(&[person.user], "message", &format!(r#"{{"n":{n}}}"#)));

    let (status, page) = host.get("/api/v1/sync?since=1&limit=2", Some(&token)).await;
    let at = |seq: u64| format!("1970-01-01T00:00:00.{seq:06}Z");
    let item = |seq: u64| json!({"type": "message", "seq": seq, "at": at(seq), "payload": {"n": seq}});
    assert_eq!((status, page), (200, json!({"items": [item(2), item(3)], "next_cursor": 3})));
    let (_, page) = host.get("/api/v1/sync?since=3", Some(&token)).await;
    assert_eq!(page, json!({"items": [item(4), item(5)], "next_cursor": null}));
    let (_, page) = host.get("/api/v1/sync?since=5", Some(&token)).await;
    assert_eq!(page, json!({"items": [], "next_cursor": null}));
    assert_eq!(host.get("/api/v1/sync", Some(&token)).await.1["items"].as_array().map(Vec::len), Some(5));

    host.feed.expire_up_to(person.user, 2);
    for since in [1, 6] {
        let (status, problem) = host.get(&format!("/api/v1/sync?since={since}"), Some(&token)).await;
        assert_eq!((status, &problem["code"], &problem["cursor"]), (410, &json!("resync_required"), &json!(5)));
    }
    assert_eq!(host.get("/api/v1/sync", None).await.0, 401);
    for query in ["since=x", "limit=0", "limit=501", "limit=x"] {
        assert_eq!(host.get(&format!("/api/v1/sync?{query}"), Some(&token)).await.0, 422, "{query}");
    }
}

// --- Frames ------------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_frame_with_an_id_is_answered_under_it() {
    let host = TestHub::start().await;
    let mut client = host.connect(&Person::new()).await;
    client.expect("connection_ack").await;

    client.send(json!({"type": "echo", "id": "a-1", "payload": {"x": [1, null]}})).await;
    assert_eq!(client.frame().await, json!({"type": "reply", "id": "a-1", "payload": {"x": [1, null]}}));
    client.send(json!({"type": "typing", "id": 7, "payload": {}})).await;
    assert_eq!(client.frame().await, json!({"type": "reply", "id": 7, "payload": null}));
    client.send(json!({"type": "decline", "id": "a-2"})).await;
    let error = client.expect("error").await;
    assert_eq!(
        (&error["id"], &error["payload"]["status"], &error["payload"]["code"]),
        (&json!("a-2"), &json!(404), &json!("no_such_conversation"))
    );
    assert!(error["payload"]["request_id"].is_string());

    client.send(json!({"type": "ping"})).await;
    assert_eq!(client.frame().await, json!({"type": "pong", "payload": {}}));
    client.send(json!({"type": "ping", "id": 1})).await;
    client.expect("pong").await;
    assert_eq!(client.expect("reply").await["id"], 1);

    // Without an id: served, and answered only when it fails.
    client.send(json!({"type": "typing", "payload": {"is_typing": true}})).await;
    client.send(json!({"type": "decline", "payload": {}})).await;
    let error = client.expect("error").await;
    assert_eq!((&error["id"], &error["payload"]["code"]), (&Value::Null, &json!("no_such_conversation")));
    assert_eq!(host.services.called.lock()[3..], ["typing {\"is_typing\":true}", "decline {}"]);
}

#[tokio::test]
async fn bad_frames_are_answered_and_the_socket_stays() {
    let host = TestHub::start().await;
    let mut client = host.connect(&Person::new()).await;
    client.expect("connection_ack").await;
    let nested = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let bad = [
        (Message::text("{"), 400, "bad_frame"),
        (Message::text(""), 400, "bad_frame"),
        (Message::text(nested), 400, "bad_frame"),
        (Message::text(r#"{"payload":{}}"#), 400, "bad_frame"),
        (Message::text(r#"{"type":"echo","surprise":1}"#), 400, "bad_frame"),
        (Message::text(r#"{"type":"no_such_type","payload":{}}"#), 404, "unknown_type"),
        (Message::text(r#"{"type":"connection_ack"}"#), 404, "unknown_type"),
        (Message::binary(vec![1, 2, 3]), 400, "binary_frame"),
    ];
    for (message, status, code) in bad {
        client.send_raw(message).await;
        let error = client.expect("error").await;
        assert_eq!((&error["payload"]["status"], &error["payload"]["code"]), (&json!(status), &json!(code)));
    }
    client.send(json!({"type": "echo", "id": 1, "payload": 1})).await;
    client.expect("reply").await;
}

#[tokio::test]
async fn frames_of_one_socket_are_served_in_their_order_while_events_go_on() {
    let host = TestHub::with(|settings| settings.calls_max = 3).await;
    let person = Person::new();
    let mut client = host.connect(&person).await;
    client.expect("connection_ack").await;
    for n in 0..10 {
        client.send(json!({"type": "slow", "id": n, "payload": n})).await;
    }
    host.push(&[person.user], "message", "{}");
    client.expect("message").await;
    assert!(host.services.called.lock().is_empty());
    host.services.gate.add_permits(10);
    for n in 0..10 {
        assert_eq!(client.expect("reply").await["payload"], n);
    }
    assert_eq!(*host.services.called.lock(), (0..10).map(|n| format!("slow {n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_was_accepted_is_done_even_when_its_sender_leaves() {
    let host = TestHub::start().await;
    let mut client = host.connect(&Person::new()).await;
    client.expect("connection_ack").await;
    for n in 0..3 {
        client.send(json!({"type": "slow", "payload": n})).await;
    }
    client.send(json!({"type": "ping"})).await;
    client.expect("pong").await;
    client.stream.close(None).await.expect("closes");
    until("the place is given up", || host.registry.count() == 0).await;
    host.services.gate.add_permits(3);
    until("all are done", || host.services.called.lock().len() == 3).await;
}

#[tokio::test]
async fn frames_that_wait_count_with_the_bytes_of_all_requests_in_flight() {
    let bounds = InFlightBounds { total: 25_000, per_address: 20_000, per_user: 10_000 };
    let in_flight = Arc::new(InFlight::with_room_for(bounds, 1_000));
    let shared = in_flight.clone();
    let host = TestHub::with(|settings| settings.in_flight = shared).await;
    let frame = |id: u32| json!({"type": "slow", "id": id, "payload": "x".repeat(6_000)});
    let refusal = async |client: &mut Client| {
        let error = client.expect("error").await;
        assert_eq!(error["payload"]["code"], "too_many_bytes");
        assert_eq!(error["payload"]["retry_after_ms"], 1_000);
        (error["id"].as_u64(), error["payload"]["status"].as_u64())
    };
    let person = Person::new();
    let mut phone = host.connect(&person).await;
    let mut laptop = host.connect(&person.with_device("laptop")).await;
    for client in [&mut phone, &mut laptop] {
        client.expect("connection_ack").await;
    }
    phone.send(frame(1)).await;
    phone.send(frame(2)).await;
    assert_eq!(refusal(&mut phone).await, (Some(2), Some(429)), "of one user, on one socket");
    laptop.send(frame(3)).await;
    assert_eq!(refusal(&mut laptop).await, (Some(3), Some(429)), "and on all of them");
    // A body of a request is beside them.
    let mut body = in_flight.hold(Subject::of_address(Some([192, 0, 2, 9].into())), None);
    body.take(18_000).expect("there is room");
    let mut other = host.connect(&Person::new()).await;
    other.expect("connection_ack").await;
    other.send(frame(4)).await;
    assert_eq!(refusal(&mut other).await, (Some(4), Some(503)), "of all together");
    drop(body);
    // What was refused is not held, and what is answered makes room.
    host.services.gate.add_permits(2);
    assert_eq!(phone.expect("reply").await["id"], 1);
    laptop.send(frame(5)).await;
    assert_eq!(laptop.expect("reply").await["id"], 5);
    let mut all = in_flight.hold(Subject::of_address(None), None);
    all.take(20_000).expect("nothing else is held");
}

// --- The end of a socket -----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_newer_connection_of_the_same_device_replaces_the_older() {
    let host = TestHub::start().await;
    let person = Person::new();
    let mut older = host.connect(&person).await;
    older.expect("connection_ack").await;
    let mut other_device = host.connect(&person.with_device("tablet")).await;
    other_device.expect("connection_ack").await;
    let mut newer = host.connect(&person).await;
    newer.expect("connection_ack").await;
    older.expect_close(4409).await;
    until("the older has left", || host.registry.count() == 2).await;
    host.push(&[person.user], "message", "{}");
    newer.expect("message").await;
    other_device.expect("message").await;

    let changes = host.changes.lock().clone();
    let said: Vec<(bool, &str)> = changes
        .iter()
        .map(|change| match change {
            Change::Connected(info) => (true, info.device_id.as_str()),
            Change::Disconnected(info) => (false, info.device_id.as_str()),
        })
        .collect();
    assert_eq!(said, [(true, "phone"), (true, "tablet")], "the phone neither came again nor went");
}

#[tokio::test]
async fn services_hear_which_devices_come_and_go() {
    struct Listener(Arc<Mutex<Vec<Event>>>);

    #[async_trait]
    impl Handler for Listener {
        async fn handle(&self, event: &Event) -> Outcome {
            self.0.lock().push(event.clone());
            Outcome::Done
        }
    }

    let folder = tempfile::tempdir().expect("a folder");
    let feed = Arc::new(EmbeddedFeed::open(folder.path(), Durability::default()).await.expect("opens"));
    let queue = Arc::new(EmbeddedQueue::open(folder.path(), Durability::default()).await.expect("opens"));
    let announcer = Announcer::new(feed.clone(), queue.clone());
    let noting = announcer.clone();
    let host = TestHub::telling(move |change| noting.note(change), |_| {}).await;
    let come = async |person: &Person| {
        let mut client = host.connect(person).await;
        client.expect("connection_ack").await;
        client
    };

    // While nobody listens nothing is written.
    let person = Person::new();
    let phone = come(&person).await;
    announcer.flush().await.expect("flushes");
    assert_eq!(feed.peek(i64::MIN, 10).await.expect("peeks"), []);

    let heard = Arc::new(Mutex::new(Vec::new()));
    let topics = vec!["hub.connected".to_owned(), "hub.disconnected".to_owned()];
    let name = ServiceName::parse("listener").expect("a good name");
    queue.subscribe(&name, topics, Arc::new(Listener(heard.clone()))).await.expect("subscribes");
    let stop = CancellationToken::new();
    let relay = Relay::spawn(feed.clone(), queue.clone(), feed.clone(), host.registry.clone(), stop.clone());
    let announcing = tokio::spawn(announcer.clone().run());
    let mut newer_phone = come(&person).await;
    drop(phone);
    let mut tablet = come(&person.with_device("tablet")).await;
    for (client, left) in [(&mut tablet, 1), (&mut newer_phone, 0)] {
        client.stream.close(None).await.expect("closes");
        until("its place is given up", || host.registry.count() == left).await;
    }
    let last = come(&person.with_device("tablet")).await;
    until("all is heard", || heard.lock().len() >= 4).await;

    // The two topics may overtake each other; the ids say what was when.
    let contract = contract_of("message");
    let mut said: Vec<(String, bool, String)> = (heard.lock().iter())
        .map(|event| {
            let name = event.topic.strip_prefix("hub.").expect("a topic of the hub");
            let codec = {
                let exports = contract.exports().iter().filter(|export| export.name == "events");
                let mut functions = exports.flat_map(|export| &export.functions);
                let function = functions.find(|function| function.name == name).expect("it subscribes to this event");
                EventCodec::compile(function).expect("compiles")
            };
            codec.decode(&event.key, &event.payload).expect("it is what the contract says");
            let payload: Value = serde_json::from_str(&event.payload).expect("JSON");
            assert_eq!((&event.key, &payload["user_id"]), (&person.user.to_string(), &json!(person.user)));
            let text = |key: &str| payload[key].as_str().expect("text").to_owned();
            (text("connection_id"), name == "disconnected", text("device_id"))
        })
        .collect();
    let topic =
        |went: bool| said.iter().filter(move |(_, gone, _)| *gone == went).map(|(_, _, device)| device.as_str()).collect::<Vec<_>>();
    assert_eq!((topic(false), topic(true)), (vec!["tablet", "tablet"], vec!["tablet", "phone"]), "each topic in its order");
    said.sort();
    let by_id: Vec<(bool, &str)> = said.iter().map(|(_, went, device)| (*went, device.as_str())).collect();
    assert_eq!(by_id, [(true, "phone"), (false, "tablet"), (true, "tablet"), (false, "tablet")]);
    drop(last);
    announcing.abort();
    stop.cancel();
    relay.await.expect("no panic");
}

/// What the repository says of a service.
fn contract_of(world: &str) -> Contract {
    let text = wit_text(&echo_fixture::wit_dir(), world).expect("it prints");
    Contract::decode(&echo_fixture::component(world), Some(&text)).expect("it decodes")
}

#[tokio::test]
async fn a_user_has_so_many_devices_and_no_more() {
    let host = TestHub::with(|settings| settings.devices_per_user_max = 2).await;
    let person = Person::new();
    let mut clients = Vec::new();
    for device in ["a", "b", "a"] {
        clients.push(host.connect(&person.with_device(device)).await);
    }
    let bearer = format!("Bearer {}", host.token_for(&person.with_device("c"), Duration::from_secs(60)));
    assert_eq!(host.refused("", &[("authorization", &bearer)]).await, (409, "too_many_devices".to_owned()));
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_then_let_go() {
    let host = TestHub::with(|settings| {
        settings.heartbeat_interval = Duration::from_millis(200);
        settings.idle_timeout = Duration::from_millis(1_500);
    })
    .await;
    // One that answers the heartbeats stays, one that does not is gone.
    let mut attentive = host.connect(&Person::new()).await;
    attentive.expect("connection_ack").await;
    let mut silent = host.connect(&Person::new()).await;
    silent.expect("connection_ack").await;
    let attention = tokio::spawn(async move {
        let mut pings = 0;
        while pings < 8 {
            let message = attentive.stream.next().await.expect("stays open").expect("no error");
            assert!(message.is_ping(), "{message:?}");
            pings += 1;
        }
        attentive
    });
    // Not read, the client answers no ping.
    until("the silent one is let go", || host.registry.count() == 1).await;
    assert_eq!(silent.closed().await, 4408);
    let mut attentive = tokio::time::timeout(PATIENCE, attention).await.expect("eight pings").expect("no panic");
    attentive.send(json!({"type": "echo", "id": 1})).await;
    attentive.expect("reply").await;
}

#[tokio::test]
async fn a_socket_lives_as_long_as_its_token_unless_renewed() {
    let host = TestHub::start().await;
    let person = Person::new();
    let open = async |person: &Person| {
        let bearer = format!("Bearer {}", host.token_for(person, Duration::from_secs(2)));
        let (mut client, _) = host.open("", &[("authorization", &bearer)]).await.expect("opens");
        client.expect("connection_ack").await;
        client
    };
    let mut renewed = open(&person).await;
    let mut left_alone = open(&Person::new()).await;

    let token = host.token_for(&person, Duration::from_secs(60));
    renewed.send(json!({"type": "auth", "id": 1, "payload": {"access_token": token}})).await;
    assert!(renewed.expect("reply").await["payload"]["expires_at"].is_string());

    let stranger = host.token_for(&Person::new(), Duration::from_secs(60));
    let other_device = host.token_for(&person.with_device("tablet"), Duration::from_secs(60));
    let other_session = host.token_for(&Person { session: Uuid::now_v7(), ..person.with_device("phone") }, Duration::from_secs(60));
    for (token, status, code) in [
        (stranger.as_str(), 403, "identity_mismatch"),
        (other_device.as_str(), 403, "identity_mismatch"),
        (other_session.as_str(), 403, "identity_mismatch"),
        ("nonsense", 401, "token_invalid"),
    ] {
        renewed.send(json!({"type": "auth", "id": "x", "payload": {"access_token": token}})).await;
        let error = renewed.expect("error").await;
        assert_eq!((&error["id"], &error["payload"]["status"], &error["payload"]["code"]), (&json!("x"), &json!(status), &json!(code)));
    }
    left_alone.send(json!({"type": "auth", "payload": {}})).await;
    left_alone.expect("error").await;
    left_alone.expect_close(4401).await;

    renewed.send(json!({"type": "ping"})).await;
    renewed.expect("pong").await;
}

#[tokio::test]
async fn revoked_sessions_and_users_are_let_go_at_once() {
    let host = TestHub::start().await;
    let person = Person::new();
    let tablet = person.with_device("tablet");
    let bystander = Person::new();
    let mut clients = Vec::new();
    for person in [&person, &tablet, &bystander] {
        let mut client = host.connect(person).await;
        client.expect("connection_ack").await;
        clients.push(client);
    }
    host.tokens.revoke_session(person.session).await.expect("revoked");
    clients[0].expect_close(4401).await;
    assert!(host.registry.online(&[person.user]).await.expect("answers").contains(&person.user), "the tablet stays");
    host.tokens.revoke_user(person.user).await.expect("revoked");
    clients[1].expect_close(4401).await;
    // And by the capability `hub.disconnect`.
    host.registry.disconnect_session(bystander.session);
    clients[2].expect_close(4401).await;
}

#[tokio::test]
async fn requests_of_a_revoked_token_are_not_carried_on() {
    let host = TestHub::with(|settings| settings.close_timeout = Duration::from_millis(100)).await;
    let person = Person::new();
    let mut client = host.connect(&person).await;
    client.expect("connection_ack").await;
    client.send(json!({"type": "slow", "payload": 1})).await;
    client.send(json!({"type": "slow", "payload": 2})).await;
    client.send(json!({"type": "ping"})).await;
    client.expect("pong").await;
    host.tokens.revoke_session(person.session).await.expect("revoked");
    client.expect_close(4401).await;
    until("the socket has ended", || host.hub.sockets.is_empty()).await;
    host.services.gate.add_permits(2);
    assert!(host.services.called.lock().is_empty());
}

#[tokio::test]
async fn too_large_a_frame_ends_the_socket() {
    let host = TestHub::start().await;
    for size in [limits::FRAME_BYTES_MAX + 1, 40 * limits::FRAME_BYTES_MAX] {
        let mut client = host.connect(&Person::new()).await;
        client.expect("connection_ack").await;
        let largest = json!({"type": "echo", "id": 1, "payload": "x".repeat(limits::FRAME_BYTES_MAX - 100)});
        client.send(largest).await;
        client.expect("reply").await;
        // What is far too large is not read to its end, so that sending it may fail.
        _ = client.stream.send(Message::text("x".repeat(size))).await;
        if size < 16 * limits::FRAME_BYTES_MAX {
            client.expect_close(4413).await;
        }
        until("it is gone", || host.registry.count() == 0).await;
    }
}

#[tokio::test]
async fn what_is_no_websocket_ends_the_socket() {
    let host = TestHub::start().await;
    let mut client = host.connect(&Person::new()).await;
    client.expect("connection_ack").await;
    // A text frame, masked with zeros, of one byte that begins no UTF-8 sequence.
    use tokio::io::AsyncWriteExt;
    client.stream.get_mut().write_all(&[0x81, 0x81, 0, 0, 0, 0, 0xff]).await.expect("written");
    client.expect_close(1007).await;
    let mut client = host.connect(&Person::new()).await;
    client.expect("connection_ack").await;
    // A frame without a mask.
    client.stream.get_mut().write_all(&[0x81, 0x01, b'x']).await.expect("written");
    client.expect_close(1002).await;
}

/// A frame counts under its function's number; the gateway's tests and the manifest's hold that a route has the same one.
#[tokio::test]
async fn a_frame_over_its_rate_is_answered_and_the_socket_stays() {
    let host = TestHub::start().await;
    let (ada, bala) = (Person::new(), Person::new());
    let mut client = host.connect(&ada).await;
    client.expect("connection_ack").await;
    // What was sent elsewhere under the same number counts.
    let limit = Limit::new(&FrameRate::of_host(ECHO, 3).rate, 1);
    assert!(host.hub.rates.check(&limit, ECHO, limit.subject_of(Some(ada.user), None), Instant::now()).await.is_allowed);
    for id in [1, 2] {
        client.send(json!({"type": "seldom", "id": id, "payload": {}})).await;
        client.expect("reply").await;
    }
    client.send(json!({"type": "seldom", "id": 3, "payload": {}})).await;
    let refusal = client.expect("error").await;
    assert_eq!(
        (&refusal["id"], &refusal["payload"]["status"], &refusal["payload"]["code"]),
        (&json!(3), &json!(429), &json!("rate_limited"))
    );
    assert!((1..=60_000).contains(&refusal["payload"]["retry_after_ms"].as_u64().expect("when to come back")), "{refusal}");
    // Of whichever socket of the same person, and of nobody else.
    let mut tablet = host.connect(&ada.with_device("tablet")).await;
    tablet.expect("connection_ack").await;
    tablet.send(json!({"type": "seldom", "id": 4, "payload": {}})).await;
    tablet.expect("error").await;
    let mut other = host.connect(&bala).await;
    other.expect("connection_ack").await;
    other.send(json!({"type": "seldom", "id": 5, "payload": {}})).await;
    other.expect("reply").await;
    client.send(json!({"type": "ping", "id": 6})).await;
    client.expect("pong").await;
    assert_eq!(host.services.called.lock().len(), 3, "what is refused reaches no service");
}

#[tokio::test]
async fn the_hosts_own_frames_and_paths_have_rates() {
    let host = TestHub::with(|settings| settings.frames_burst = 10_000).await;
    let person = Person::new();
    let token = host.token_for(&person, Duration::from_secs(60));
    let mut client = host.connect(&person).await;
    client.expect("connection_ack").await;
    for (kind, limit) in [("auth", limits::RENEWALS_PER_MINUTE), ("ping", limits::PINGS_PER_MINUTE)] {
        let mut refused = 0;
        for id in 0..limit + limit / 10 {
            client.send(json!({"type": kind, "id": id, "payload": {"access_token": token}})).await;
            let mut answer = client.frame().await;
            if answer["type"] == "pong" {
                answer = client.frame().await;
            }
            refused += u32::from(answer["payload"]["code"] == "rate_limited");
        }
        assert!((1..=limit / 10).contains(&refused), "{refused} of {kind}");
    }
    let mut statuses = HashSet::new();
    for _ in 0..limits::SOCKETS_PER_MINUTE + 20 {
        // No upgrade, but a socket that was asked for.
        statuses.insert(host.get("/ws", Some(&token)).await.0);
    }
    assert_eq!(statuses, HashSet::from([426, 429]));
    statuses.clear();
    for _ in 0..limits::SYNC_PAGES_PER_MINUTE + 60 {
        statuses.insert(host.get("/api/v1/sync", Some(&token)).await.0);
    }
    assert_eq!(statuses, HashSet::from([200, 429]));
}

#[tokio::test]
async fn too_many_frames_end_the_socket() {
    let host = TestHub::with(|settings| {
        settings.frames_burst = 20;
        settings.frames_per_s = 1;
    })
    .await;
    let mut client = host.connect(&Person::new()).await;
    client.expect("connection_ack").await;
    for n in 0..20 {
        client.send(json!({"type": "echo", "id": n})).await;
        assert_eq!(client.expect("reply").await["id"], n);
    }
    for _ in 0..5 {
        client.send(json!({"type": "echo"})).await;
    }
    client.expect_close(4429).await;
}

#[tokio::test]
async fn too_slow_a_reader_is_let_go_and_finds_everything_in_the_feed() {
    let host = TestHub::with(|settings| {
        settings.queue_frames_max = 8;
        settings.stall_timeout = Duration::from_millis(300);
    })
    .await;
    let person = Person::new();
    let bearer = format!("Bearer {}", host.token_for(&person, Duration::from_secs(600)));
    // Small buffers, so that little is in flight.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("set");
    let stream = socket.connect(host.address).await.expect("connects");
    let (mut slow, _) = host.open_over(stream, "", &[("authorization", &bearer)]).await.expect("opens");
    slow.expect("connection_ack").await;
    let big = format!("\"{}\"", "x".repeat(200_000));
    const EVENTS: u64 = 60;
    for _ in 0..EVENTS {
        host.push(&[person.user], "message", &big);
        host.push_ephemeral(&[person.user], "typing", "{}");
        tokio::task::yield_now().await;
    }
    until("it is let go", || host.registry.count() == 0).await;
    let mut last_seq = 0;
    let code = loop {
        match slow.next().await {
            Ok(frame) if frame["type"] == "message" => {
                assert_eq!(frame["seq"], last_seq + 1);
                last_seq += 1;
            }
            Ok(frame) => assert_eq!(frame["type"], "typing"),
            Err(code) => break code,
        }
    };
    assert_eq!(code, 4430);
    assert!(last_seq < EVENTS);
    let mut again = host.connect_since(&person, last_seq).await;
    again.expect("connection_ack").await;
    for seq in last_seq + 1..=EVENTS {
        assert_eq!(again.expect("message").await["seq"], seq);
    }
    again.expect("caught_up").await;
}

#[tokio::test]
async fn a_burst_beyond_the_queue_is_no_reason_to_let_a_good_reader_go() {
    let host = TestHub::with(|settings| {
        settings.queue_frames_max = 4;
        settings.resume_page = 10;
    })
    .await;
    let person = Person::new();
    let mut client = host.connect(&person).await;
    client.expect("connection_ack").await;
    // All at once: this thread delivers before the socket's task runs.
    (0..100).for_each(|_| host.push(&[person.user], "message", "{}"));
    for seq in 1..=100 {
        assert_eq!(client.expect("message").await["seq"], seq);
    }
    host.push_ephemeral(&[person.user], "typing", "{}");
    client.expect("typing").await;
}

#[tokio::test]
async fn shutting_down_says_when_to_come_back() {
    let host = TestHub::start().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = host.connect(&Person::new()).await;
        client.expect("connection_ack").await;
        clients.push(client);
    }
    clients[0].send(json!({"type": "slow", "id": 1, "payload": "accepted"})).await;
    clients[0].send(json!({"type": "ping"})).await;
    clients[0].expect("pong").await;
    clients[1].send(json!({"type": "ack", "payload": {"seq": 0}})).await;

    let hub = host.hub.clone();
    let draining = tokio::spawn(async move { hub.drain(PATIENCE).await });
    let mut pauses = HashSet::new();
    for client in &mut clients[1..] {
        let goodbye = client.expect("goodbye").await;
        let retry_after_ms = goodbye["payload"]["retry_after_ms"].as_u64().expect("a number");
        assert!((limits::RECONNECT_FIRST_MS..=limits::RECONNECT_LAST_MS).contains(&retry_after_ms));
        pauses.insert(retry_after_ms);
        client.expect_close(1012).await;
    }
    assert!(pauses.len() > 1, "not all at the same time");
    let bearer = format!("Bearer {}", host.token_for(&Person::new(), Duration::from_secs(60)));
    assert_eq!(host.refused("", &[("authorization", &bearer)]).await, (503, "shutting_down".to_owned()));

    assert!(!draining.is_finished(), "one request is still being served");
    host.services.gate.add_permits(1);
    assert_eq!(clients[0].expect("reply").await["payload"], "accepted");
    clients[0].expect("goodbye").await;
    clients[0].expect_close(1012).await;
    for client in &mut clients {
        // The client's answer to the close.
        assert!(client.stream.next().await.is_none_or(|end| end.is_err()));
    }
    let left = tokio::time::timeout(PATIENCE, draining).await.expect("ends").expect("no panic");
    assert_eq!(left, 0);
}

#[tokio::test]
async fn missed_revocations_make_everybody_come_back() {
    let host = TestHub::start().await;
    let mut client = host.connect(&Person::new()).await;
    client.expect("connection_ack").await;
    // More than the channel holds, before the hub's task runs.
    for _ in 0..100 {
        _ = host.tokens.revocations.send(Revocation::Session(Uuid::now_v7()));
    }
    client.expect("goodbye").await;
    client.expect_close(1012).await;
    host.connect(&Person::new()).await.expect("connection_ack").await;
}

#[test]
fn an_idle_socket_is_small() {
    let bytes = size_of::<socket::Socket>() + size_of::<connection::Connection>();
    assert!(bytes <= 2 * 1024, "{bytes} bytes beside the read buffer");
}
