//! Requests through a whole gateway to real servers on this machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{Outside, has_dots};
use crate::ServerSettings;
use crate::fakes::{FakeSnapshot, TestGateway, reply, route};
use echo_base::limits;
use echo_runtime::route_settings::{AddedPrefix, OutsidePrefix};

const PATIENCE: Duration = Duration::from_secs(20);
const KEY: &str = "0123456789abcdef0123456789abcdef";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server that answers each request with what the test says; without an answer it closes the connection.
struct Target {
    address: SocketAddr,
    /// The requests, head and body, as they came.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Target {
    async fn start(answer: impl Fn(usize) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen, answer) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default(), Arc::new(answer));
        let requests = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_all(stream, requests.clone(), answer.clone()));
            }
        });
        Self { address, seen }
    }

    fn last(&self) -> String {
        self.seen.lock().last().expect("a request").clone()
    }

    fn count(&self) -> usize {
        self.seen.lock().len()
    }

    /// The first value of a header of the last request.
    fn header(&self, name: &str) -> Option<String> {
        self.last().lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    }
}

/// Where the first request in these bytes ends, if all of it is there. Its length is said in its head.
fn end_of_request(came: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(came);
    let (head, _) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
    let end = head.len() + 4 + length.unwrap_or(0);
    (came.len() >= end).then_some(end)
}

async fn answer_all(mut stream: TcpStream, seen: Arc<Mutex<Vec<String>>>, answer: Arc<impl Fn(usize) -> Option<String>>) {
    let mut came = Vec::new();
    loop {
        let end = loop {
            match end_of_request(&came) {
                Some(end) => break end,
                None if stream.read_buf(&mut came).await.unwrap_or(0) == 0 => return,
                None => {}
            }
        };
        let request: Vec<u8> = came.drain(..end).collect();
        let number = {
            let mut seen = seen.lock();
            seen.push(String::from_utf8(request).unwrap());
            seen.len()
        };
        let Some(text) = answer(number) else { return };
        if stream.write_all(text.as_bytes()).await.is_err() || text.contains("connection: close") {
            return;
        }
    }
}

/// An entry of `[[gateway.prefixes]]` for `/out`; `more` are further lines of it.
fn entry(target: SocketAddr, access: &str, more: &str) -> String {
    format!(
        "prefix = \"/out\"\ntarget = \"http://{target}\"\naccess = \"{access}\"\nidentity_key = \"{KEY}\"\n\
         rate = {{ per = \"ip\", strategy = \"fixed-window\", limit = 1000, window = \"1h\" }}\n{more}\n"
    )
}

fn settings(entry: &str) -> OutsidePrefix {
    toml::from_str::<AddedPrefix>(entry).unwrap().outside().unwrap().unwrap()
}

fn gateway(entries: &[String]) -> TestGateway {
    let gateway = TestGateway::new(Vec::new(), async |_| reply(json!({})));
    gateway
        .services
        .snapshot
        .store(Arc::new(FakeSnapshot::new(2, vec![route("test", "GET /out/own", "public", "")]).with_outside(entries)));
    gateway
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

fn code(answer: &(u16, HeaderMap, Value)) -> (u16, &str) {
    (answer.0, answer.2["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn headers_of_one_connection_and_forged_ones_end_at_the_gateway() {
    let target = Target::start(|_| {
        Some(
            "HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\nconnection: x-inner\r\nx-inner: 1\r\nkeep-alive: timeout=5\r\nx-outer: 2\r\n\
             alt-svc: h3\r\nx-frame-options: SAMEORIGIN\r\ncontent-length: 5\r\n\r\nnope!"
                .to_owned(),
        )
    })
    .await;
    let gateway = gateway(&[entry(target.address, "public", "")]);
    let headers = [
        "connection: close, X-Private",
        "x-private: 1",
        "te: trailers",
        "keep-alive: 5",
        "proxy-authorization: Basic eA==",
        "x-user-id: 00000000-0000-0000-0000-000000000001",
        "x_user_id: 00000000-0000-0000-0000-000000000001",
        "x_api_key: of-the-client",
        "x-user-roles: admin",
        "signature: echo=:AAAA:",
        "x-forwarded-for: 203.0.113.9",
        "forwarded: for=203.0.113.9",
        "x-request-id: r-1",
        "cookie: a=1",
        "cookie: b=2",
        "x-kept: yes",
        "expect: 100-continue",
        "host: echo.test",
    ];
    let (status, answer, body) = gateway.send("GET /out/a", &headers, "").await;
    assert_eq!((status, body, text(&answer, "content-type")), (404, json!("nope!"), Some("text/html")), "a failure is sent as it is");
    assert_eq!((text(&answer, "x-outer"), text(&answer, "x-inner"), text(&answer, "keep-alive")), (Some("2"), None, None));
    assert_eq!((text(&answer, "alt-svc"), text(&answer, "x-frame-options")), (None, Some("SAMEORIGIN")));
    assert_eq!((text(&answer, "x-content-type-options"), text(&answer, "x-request-id")), (Some("nosniff"), Some("r-1")));
    assert!(text(&answer, "ratelimit").is_some());
    let seen = target.last().to_ascii_lowercase();
    for gone in [
        "x-private",
        "\nte:",
        "keep-alive",
        "proxy-authorization",
        "user-id",
        "user_id",
        "of-the-client",
        "roles",
        "aaaa",
        "203.0.113.9",
        "expect",
    ] {
        assert!(!seen.contains(gone), "{gone} is in {seen}");
    }
    for (name, value) in [
        ("host", &*target.address.to_string()),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-host", "echo.test"),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "r-1"),
        ("cookie", "a=1; b=2"),
        ("x-kept", "yes"),
    ] {
        assert_eq!(target.header(name).as_deref(), Some(value), "{name}");
    }
    assert!(target.header("via").unwrap().starts_with("1.1 echo-"));
}

/// Checks the last request's signature as RFC 9421 section 3.2 says, from what came alone; gives what it covers.
fn verified(target: &Target, key: &str) -> Result<Vec<String>, String> {
    let input = target.header("signature-input").ok_or("no Signature-Input")?;
    let signature = target.header("signature").ok_or("no Signature")?;
    let parameters = input.strip_prefix("echo=").ok_or("another label")?;
    let (names, _) = parameters.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or("no list")?;
    let names: Vec<String> = names.split(' ').map(|name| name.trim_matches('"').to_owned()).collect();
    let head = target.last();
    let (method, uri) = head.lines().next().and_then(|line| line.split_once(' ')).ok_or("no request line")?;
    let uri = uri.split(' ').next().unwrap_or_default();
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let mut base = String::new();
    for name in &names {
        let value = match name.as_str() {
            "@method" => method.to_owned(),
            "@path" => path.to_owned(),
            "@query" => format!("?{query}"),
            name => target.header(name).ok_or(format!("{name} is missing"))?,
        };
        base += &format!("\"{name}\": {value}\n");
    }
    base += &format!("\"@signature-params\": {parameters}");
    let bytes = signature.strip_prefix("echo=:").and_then(|rest| rest.strip_suffix(':')).ok_or("no bytes")?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(bytes).map_err(|error| error.to_string())?;
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(base.as_bytes());
    mac.verify_slice(&bytes).map_err(|error| error.to_string())?;
    Ok(names)
}

#[tokio::test]
async fn who_calls_is_said_in_signed_headers_and_the_token_stays_here() {
    let target = Target::start(|_| Some(OK.to_owned())).await;
    let gateway = gateway(&[entry(target.address, "user", "")]);
    assert_eq!(code(&gateway.send("GET /out/a", &[], "").await), (401, "token_missing"));
    assert_eq!(code(&gateway.send("GET /out/a", &["authorization: Bearer expired"], "").await), (401, "token_expired"));
    assert_eq!(target.count(), 0);
    let answer = gateway.send("GET /out/a?q=1&r=%20", &["authorization: Bearer admin"], "").await;
    assert_eq!((answer.0, answer.2), (200, json!("ok")));
    let names = verified(&target, KEY).unwrap();
    let expect = ["@method", "@path", "@query", "x-user-id", "x-device-id", "x-session-id", "x-user-roles", "x-request-id"];
    assert_eq!(names, expect);
    assert_eq!((target.header("x-device-id").as_deref(), target.header("x-user-roles").as_deref()), (Some("admin-phone"), Some("admin")));
    assert!(verified(&target, &KEY.replace('0', "1")).is_err(), "another key");
    assert_eq!(target.header("authorization"), None);
}

#[tokio::test]
async fn a_role_is_wanted_where_the_operator_says_so() {
    let target = Target::start(|_| Some(OK.to_owned())).await;
    let gateway = gateway(&[entry(target.address, "role:admin", "")]);
    assert_eq!(code(&gateway.send("GET /out", &["authorization: Bearer alice"], "").await), (403, "role_required"));
    assert_eq!(gateway.send("GET /out", &["authorization: Bearer admin"], "").await.0, 200);
}

#[tokio::test]
async fn on_a_public_prefix_only_tokens_of_others_reach_the_target() {
    let target = Target::start(|_| Some(OK.to_owned())).await;
    let gateway = gateway(&[entry(target.address, "public", "")]);
    for (authorization, passes) in [
        ("Bearer of-another-issuer", true),
        ("Basic eA==", true),
        ("Bearer alice", false),
        ("Bearer expired", false),
        ("Bearer revoked", false),
        ("Bearer unavailable", false),
        ("alice", false),
        ("Token alice", false),
        ("Bearer\talice", false),
        ("Digest username=\"x\", response=\"alice\"", false),
        ("Bearer x x x x x x x x x x x x x x x x", false),
        ("Bearer of-another-issuer\r\nauthorization: Bearer alice", false),
    ] {
        let headers = format!("authorization: {authorization}");
        let headers: Vec<&str> = headers.split("\r\n").collect();
        assert_eq!(gateway.send("GET /out", &headers, "").await.0, 200);
        assert_eq!(target.header("authorization").is_some(), passes, "{authorization}");
        assert_eq!(target.header("x-user-id").is_some(), authorization == "Bearer alice");
        assert!(verified(&target, KEY).is_ok(), "also where nobody is known: the gateway says so");
    }
}

#[tokio::test]
async fn a_path_reaches_the_target_without_the_prefix_or_with_it_and_leads_nowhere_else() {
    let target = Target::start(|_| Some(OK.to_owned())).await;
    let kept = entry(target.address, "public", "strip_prefix = false").replace("/out", "/kept");
    let based = entry(target.address, "public", "").replace("/out", "/out/based").replace("\"\naccess", "/base/v1\"\naccess");
    let gateway = gateway(&[entry(target.address, "public", ""), kept, based]);
    for (line, expect) in [
        ("GET /out", "GET / HTTP"),
        ("GET /out/", "GET / HTTP"),
        ("GET /out/a%20b/c?x=1", "GET /a%20b/c?x=1 HTTP"),
        ("PUT /out/a/", "PUT /a/ HTTP"),
        ("DELETE /out/a..b/...", "DELETE /a..b/... HTTP"),
        ("OPTIONS /out/a", "OPTIONS /a HTTP"),
        ("GET /kept/a", "GET /kept/a HTTP"),
        ("GET /out/based", "GET /base/v1 HTTP"),
        ("GET /out/based/a", "GET /base/v1/a HTTP"),
        ("GET /out/basedon", "GET /basedon HTTP"),
    ] {
        let (status, _, body) = gateway.send(line, &[], "").await;
        assert_eq!(status, 200, "{line} {body}");
        assert!(target.last().starts_with(expect), "{line}: {}", target.last());
    }
    let count = target.count();
    for line in ["GET /out/based/../x", "GET /out/%2e%2E/x", "GET /out/a/..%2fx", "GET /out/a/..;p/x", "GET /out/.%2e%3b/x", "GET /out/./x"]
    {
        assert_eq!(code(&gateway.send(line, &[], "").await), (400, "unreadable"), "{line}");
    }
    assert!(has_dots("/a/..\\b") && has_dots("/a%5c..") && !has_dots("/a/..b"));
    assert_eq!(code(&gateway.send("GET /outer", &[], "").await), (404, "not_found"));
    assert_eq!(code(&gateway.send("TRACE /out", &[], "").await), (405, "method_not_allowed"));
    assert_eq!(gateway.send("GET /out/own", &[], "").await.2, json!({}), "services go first");
    assert_eq!(target.count(), count);
}

#[tokio::test]
async fn head_is_asked_of_the_target_as_head() {
    let target = Target::start(|_| Some("HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n".to_owned())).await;
    let gateway = gateway(&[entry(target.address, "public", "")]);
    let (status, headers, body) = gateway.send("HEAD /out/a", &[], "").await;
    assert_eq!((status, text(&headers, "content-length"), body), (200, Some("12345"), Value::Null));
    assert!(target.last().starts_with("HEAD /a HTTP"));
}

#[tokio::test]
async fn a_redirection_of_the_target_leads_back_through_the_gateway() {
    let address: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let based = |more: &str, base: &str| settings(&entry(address, "public", more).replace("\"\naccess", &format!("{base}\"\naccess")));
    let mut answer = HeaderMap::new();
    for (settings, location, expect) in [
        (based("", ""), "/login?x=1".to_owned(), "/out/login?x=1"),
        (based("", ""), format!("http://{address}/login"), "/out/login"),
        (based("", ""), "https://elsewhere.example/login".to_owned(), "https://elsewhere.example/login"),
        (based("", ""), "//elsewhere.example/".to_owned(), "//elsewhere.example/"),
        (based("", ""), "login".to_owned(), "login"),
        (based("", "/base"), "/base/login".to_owned(), "/out/login"),
        (based("", "/base"), "/other".to_owned(), "/other"),
        (based("strip_prefix = false", ""), "/out/login".to_owned(), "/out/login"),
    ] {
        answer.insert("location", location.parse().unwrap());
        assert_eq!(text(&super::headers::for_client(&answer, &settings), "location"), Some(expect), "{location}");
    }
}

#[tokio::test]
async fn bodies_are_streamed_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = axum::Router::new().fallback(async |request: axum::extract::Request| Response::new(request.into_body()));
    tokio::spawn(crate::serve(listener, echo, ServerSettings::default(), CancellationToken::new()));
    let gateway = gateway(&[entry(address, "public", "")]);
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let pieces = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    let (sent, mut answer) = tokio::join!(
        sender.send(Ok(Bytes::from_static(b"one"))),
        gateway.send_raw("POST /out/echo", &["content-type: text/event-stream", "accept-encoding: gzip"], Body::from_stream(pieces))
    );
    sent.unwrap();
    assert_eq!(answer.status(), 200);
    for piece in ["one", "two", "three"] {
        if piece != "one" {
            sender.send(Ok(Bytes::from_static(piece.as_bytes()))).await.unwrap();
        }
        let came = tokio::time::timeout(PATIENCE, answer.body_mut().frame()).await.expect("it does not wait for the end");
        assert_eq!(came.unwrap().unwrap().into_data().unwrap(), piece);
    }
    drop(sender);
    assert!(answer.body_mut().frame().await.is_none());
}

#[tokio::test]
async fn a_request_is_made_again_only_where_that_is_safe() {
    let target = Target::start(|number| number.is_multiple_of(2).then(|| OK.to_owned())).await;
    let gateway = gateway(&[entry(target.address, "public", "")]);
    for (line, body, expect, attempts) in [
        ("GET /out", "", (200, ""), 2),
        ("DELETE /out", "", (200, ""), 2),
        // Its body was sent once, and is gone.
        ("PUT /out", "body", (502, "outside_failed"), 1),
        ("GET /out", "", (200, ""), 1),
        ("POST /out", "", (502, "outside_failed"), 1),
        ("GET /out", "", (200, ""), 1),
        ("PATCH /out", "body", (502, "outside_failed"), 1),
    ] {
        let before = target.count();
        assert_eq!(code(&gateway.send(line, &[], body).await), expect, "{line}");
        assert_eq!(target.count() - before, attempts, "{line}");
    }
}

/// The address of a server that has gone.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_target_that_is_away_is_said_and_then_left_alone_and_others_are_served() {
    let target = Target::start(|_| Some(OK.to_owned())).await;
    let well = entry(target.address, "public", "").replace("/out", "/well");
    let gateway = gateway(&[entry(nobody().await, "public", "retries = 0"), well]);
    let ready = async || gateway.send("GET /ready", &[], "").await.2;
    assert_eq!(ready().await["checks"]["outside"], json!({ "/out": { "status": "up" }, "/well": { "status": "up" } }));
    for _ in 0..limits::BREAKER_CALLS_MIN {
        let answer = gateway.send("POST /out", &[], "body").await;
        assert_eq!(code(&answer), (503, "outside_unreachable"));
        assert!(text(&answer.1, "retry-after").is_some());
    }
    assert_eq!(code(&gateway.send("GET /out", &[], "").await), (503, "circuit_open"));
    assert_eq!(gateway.send("GET /well", &[], "").await.0, 200);
    let report = ready().await;
    assert_eq!((&report["status"], &report["checks"]["outside"]["/out"]["status"]), (&json!("degraded"), &json!("degraded")), "{report}");
}

#[tokio::test]
async fn a_target_is_asked_how_it_is_where_it_has_a_path_for_that() {
    let target = Target::start(|_| Some("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_owned())).await;
    let gateway = gateway(&[entry(target.address, "public", "health = \"/healthz\"")]);
    let (status, _, report) = gateway.send("GET /ready", &[], "").await;
    assert_eq!((status, &report["status"], &report["checks"]["outside"]["/out"]["status"]), (200, &json!("degraded"), &json!("down")));
    assert!(target.last().starts_with("GET /healthz HTTP"));
}

#[tokio::test]
async fn whoever_is_late_is_told_from_the_other() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = gateway(&[entry(silent.local_addr().unwrap(), "public", "timeout = \"100ms\"")]);
    assert_eq!(code(&gateway.send("GET /out", &[], "").await), (504, "outside_timed_out"));
    assert_eq!(code(&gateway.send("POST /out", &[], "body").await), (504, "outside_timed_out"));
    let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    assert_eq!(code(&gateway.send("POST /out", &[], never).await), (408, "body_timed_out"));
    let broken = Body::from_stream(futures_util::stream::iter([Ok(Bytes::from_static(b"a")), Err(std::io::Error::other("gone"))]));
    assert_eq!(code(&gateway.send("POST /out", &[], broken).await), (400, "unreadable"));
    let length = format!("content-length: {}", limits::OUTSIDE_BODY_BYTES_MAX + 1);
    assert_eq!(code(&gateway.send("POST /out", &[&length], "body").await), (413, "too_large"));
}

#[tokio::test]
async fn an_answer_that_stops_half_way_is_cut_off() {
    let short = Target::start(|_| Some("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_owned())).await;
    let answer = gateway(&[entry(short.address, "public", "idle_timeout = \"100ms\"")]).send("GET /out", &[], "").await;
    assert_eq!(code(&answer), (504, "outside_timed_out"));
    let target = Target::start(|_| Some("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nhalf".to_owned())).await;
    let gateway = gateway(&[entry(target.address, "public", "idle_timeout = \"100ms\"")]);
    let mut answer = gateway.send_raw("GET /out", &[], "").await;
    assert_eq!(answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    let end = tokio::time::timeout(PATIENCE, answer.body_mut().frame()).await.expect("it is not waited for without end");
    assert!(end.unwrap().is_err());
}

/// A gateway on a port of its own, whose `/out` leads to `target`; without one to itself.
async fn listening(target: Option<SocketAddr>, more: &str) -> (SocketAddr, TestGateway) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = gateway(&[entry(target.unwrap_or(address), "public", more)]);
    serve(listener, &gateway);
    (address, gateway)
}

fn serve(listener: TcpListener, gateway: &TestGateway) {
    tokio::spawn(crate::serve(listener, gateway.router.clone(), ServerSettings::default(), CancellationToken::new()));
}

#[tokio::test]
async fn a_target_that_leads_back_here_is_no_endless_loop() {
    let (_, gateway) = listening(None, "strip_prefix = false").await;
    assert_eq!(code(&gateway.send("GET /out", &[], "").await), (508, "outside_loop"));
}

const HANDSHAKE: &str = "GET /out/chat HTTP/1.1\r\nhost: echo.test\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut came = Vec::new();
    let read = tokio::time::timeout(PATIENCE, async {
        while !String::from_utf8_lossy(&came).ends_with(end) && stream.read_buf(&mut came).await.unwrap_or(0) > 0 {}
    });
    read.await.expect("it comes");
    String::from_utf8(came).unwrap()
}

#[tokio::test]
async fn a_websocket_goes_through_both_ways_and_ends_with_either_side() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, _gateway) = listening(Some(listener.local_addr().unwrap()), "").await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(HANDSHAKE.as_bytes()).await.unwrap();
    let (mut target, _) = listener.accept().await.unwrap();
    let head = read_until(&mut target, "\r\n\r\n").await.to_ascii_lowercase();
    assert!(head.starts_with("get /chat http/1.1\r\n"), "{head}");
    for line in ["connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n"] {
        assert!(head.contains(line), "{line} is missing in {head}");
    }
    let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    target.write_all(answer.as_bytes()).await.unwrap();
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    for round in 0..3 {
        let (there, back) = (format!("there {round};"), format!("back {round};"));
        client.write_all(there.as_bytes()).await.unwrap();
        assert_eq!(read_until(&mut target, ";").await, there);
        target.write_all(back.as_bytes()).await.unwrap();
        assert_eq!(read_until(&mut client, ";").await, back);
    }
    drop(client);
    assert_eq!(read_until(&mut target, "never").await, "", "the end of one is the end of the other");
}

#[tokio::test]
async fn a_websocket_is_known_by_its_subprotocol_and_neither_token_nor_ticket_goes_on() {
    for (access, protocols, authorization, is_known) in [
        ("user", "chat, bearer.alice", "", true),
        ("public", "bearer.alice,chat", "", true),
        ("public", "bearer.alice, chat", "authorization: Bearer of-another-issuer\r\n", false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let (own, gateway) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), gateway(&[entry(target, access, "")]));
        let address = own.local_addr().unwrap();
        serve(own, &gateway);
        let mut client = TcpStream::connect(address).await.unwrap();
        let further = format!("\r\n{authorization}sec-websocket-protocol: {protocols}\r\n\r\n");
        let handshake = HANDSHAKE.replace("/out/chat", "/out/chat?a=1&ticket=t").replace("\r\n\r\n", &further);
        client.write_all(handshake.as_bytes()).await.unwrap();
        let (mut target, _) = listener.accept().await.unwrap();
        let head = read_until(&mut target, "\r\n\r\n").await.to_ascii_lowercase();
        assert!(head.starts_with("get /chat?a=1 http/1.1\r\n") && head.contains("sec-websocket-protocol: chat\r\n"), "{head}");
        assert!(!head.contains("bearer.") && !head.contains("bearer alice"), "{head}");
        assert_eq!(head.contains("x-device-id: alice-phone"), is_known, "{head}");
    }
}

#[tokio::test]
async fn a_websocket_that_the_target_refuses_or_nothing_uses_does_not_stay() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, gateway) = listening(Some(listener.local_addr().unwrap()), "idle_timeout = \"100ms\"").await;
    for (answer, expect) in [
        ("HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 403"),
        ("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n", "HTTP/1.1 502"),
        ("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", "HTTP/1.1 101"),
    ] {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(HANDSHAKE.as_bytes()).await.unwrap();
        let (mut target, _) = listener.accept().await.unwrap();
        read_until(&mut target, "\r\n\r\n").await;
        target.write_all(answer.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(std::str::from_utf8(&head), Ok(expect));
        if expect.ends_with("101") {
            // Nothing passes: it is ended.
            read_until(&mut client, "never").await;
        }
    }
    // What nobody asked for.
    let (answer, _) = tokio::join!(gateway.send("POST /out", &[], ""), async {
        let (mut target, _) = listener.accept().await.unwrap();
        read_until(&mut target, "\r\n\r\n").await;
        target.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await.unwrap();
        target
    });
    assert_eq!(code(&answer), (502, "outside_failed"));
}

#[tokio::test]
async fn a_reload_keeps_the_circuit_breaker_of_a_prefix_that_did_not_change() {
    let away = nobody().await;
    let gateway = gateway(&[entry(away, "public", "retries = 0")]);
    for _ in 0..limits::BREAKER_CALLS_MIN {
        gateway.send("GET /out", &[], "").await;
    }
    for (number, more, expect) in [(3, "retries = 0", "circuit_open"), (4, "retries = 1", "outside_unreachable")] {
        gateway.services.snapshot.store(Arc::new(FakeSnapshot::new(number, Vec::new()).with_outside(&[entry(away, "public", more)])));
        assert_eq!(code(&gateway.send("GET /out", &[], "").await), (503, expect));
    }
}

#[tokio::test]
async fn no_more_requests_than_may_are_with_a_target_at_one_time() {
    let outside = Outside::new(settings(&entry(nobody().await, "public", "")).into(), 1);
    let all = outside.requests.clone().acquire_many_owned(limits::OUTSIDE_REQUESTS_MAX as u32).await.unwrap();
    let arrived = || super::Arrived {
        head: http::Request::get("http://echo.test/out").body(()).unwrap().into_parts().0,
        body: Body::empty(),
        request_id: "r".into(),
        correlation_id: "c".into(),
        address: None,
        scheme: "http",
        is_head: false,
        ends_with_slash: false,
        caller: None,
        token: None,
        keeps_authorization: false,
        client_number: 0,
    };
    let tokens: Arc<dyn echo_capabilities::tokens::Tokens> = Arc::new(crate::fakes::FakeTokens);
    let (client, ending) = (super::OutsideClient::default(), CancellationToken::new());
    let forward = async || outside.forward(&client, &tokens, &ending, arrived()).await.map(|_| ()).unwrap_err();
    assert_eq!(forward().await, super::Failure::Busy);
    drop(all);
    assert_eq!(forward().await, super::Failure::Unreachable);
}

const FIELDS: &str = "request_fields = { rename = { title = \"name\" }, default = { currency = \"EUR\" } }\n\
    response_fields = { rename = { \"items.name\" = \"title\" }, default = { page = 1 } }";

fn with_body(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn headers_are_changed_on_the_way_to_a_target_and_back() {
    let target = Target::start(|_| Some(with_body("200 OK", "server: old\r\nx-trace: 7\r\nset-cookie: a=b\r\n", "ok"))).await;
    let changes = "request_headers = { set = { X-Api-Key = \"k\" }, remove = [\"X-Debug\"], rename = { X-Old = \"X-New\" } }\n\
        response_headers = { set = { Cache-Control = \"no-cache\" }, remove = [\"Set-Cookie\", \"Server\"], rename = { X-Trace = \"X-Trace-ID\" } }";
    let gateway = gateway(&[entry(target.address, "public", changes)]);
    let sent = ["x-debug: 1", "x-old: 2", "x-new: 3", "x-api-key: forged"];
    let (status, headers, _) = gateway.send("GET /out", &sent, "").await;
    assert_eq!(status, 200);
    let seen = |name: &str| target.header(name);
    assert_eq!((seen("x-api-key").as_deref(), seen("x-new").as_deref()), (Some("k"), Some("2")));
    assert_eq!((seen("x-debug"), seen("x-old")), (None, None));
    assert_eq!((text(&headers, "cache-control"), text(&headers, "x-trace-id")), (Some("no-cache"), Some("7")));
    assert_eq!((text(&headers, "server"), text(&headers, "set-cookie"), text(&headers, "x-trace")), (None, None, None));
}

#[tokio::test]
async fn json_fields_are_changed_on_the_way_to_a_target_and_back() {
    let answer = with_body(
        "200 OK",
        "content-type: application/json\r\netag: \"1\"\r\naccept-ranges: bytes\r\n",
        r#"{"items": [{"name": "a", "price": 1.50}, {"name": "b"}]}"#,
    );
    let target = Target::start(move |_| Some(answer.clone())).await;
    let gateway = gateway(&[entry(target.address, "public", FIELDS)]);
    let json = "content-type: application/json";
    let sent = [json, "accept-encoding: gzip", "range: bytes=0-1", "if-none-match: \"1\""];
    let (status, headers, body) = gateway.send("POST /out", &sent, r#"{"title": "tea", "amount": 1e2}"#).await;
    assert_eq!((status, &body), (200, &json!({ "items": [{ "title": "a", "price": 1.5 }, { "title": "b" }], "page": 1 })));
    assert_eq!((text(&headers, "etag"), text(&headers, "accept-ranges")), (None, None), "they are of other bytes");
    assert!(target.last().ends_with(r#"{"name":"tea","amount":1e2,"currency":"EUR"}"#), "{}", target.last());
    assert_eq!(target.header("accept-encoding").as_deref(), Some("identity"));
    assert_eq!((target.header("range"), target.header("if-none-match")), (None, None));

    // What is no JSON goes as it is; what is to be JSON and is not, does not go.
    gateway.send("POST /out", &["content-type: text/plain"], r#"{"title": "tea"}"#).await;
    assert!(target.last().ends_with(r#"{"title": "tea"}"#), "{}", target.last());
    gateway.send("POST /out", &[json], "").await;
    assert!(target.last().ends_with("\r\n\r\n"), "no body stays none: {}", target.last());
    let count = target.count();
    let large = format!("\"{}\"", "a".repeat(limits::OUTSIDE_CHANGED_BODY_BYTES_MAX));
    for (body, headers, expect) in [
        (r#"{"title""#, vec![json], (400, "unreadable")),
        (r#"{"title": 1, "name": 2}"#, vec![json], (422, "invalid")),
        ("{}", vec![json, "content-encoding: gzip"], (415, "unsupported_media_type")),
        ("{}", vec!["content-type: text/plain", json], (415, "unsupported_media_type")),
        (&large, vec![json], (413, "too_large")),
    ] {
        assert_eq!(code(&gateway.send("POST /out", &headers, body.to_owned()).await), expect, "{}", &body[..body.len().min(40)]);
    }
    assert_eq!(target.count(), count);
}

#[tokio::test]
async fn an_answer_whose_fields_cannot_be_changed_is_said_so_and_others_pass_as_they_are() {
    let large = format!("[\"{}\"]", "a".repeat(limits::OUTSIDE_CHANGED_BODY_BYTES_MAX));
    let json = "content-type: application/json\r\n";
    let old = r#"{"items":[{"name":"a"}]}"#;
    let answers = [
        (with_body("200 OK", json, &large), 502),
        // Without a length, beyond the bound: known only when so much has come.
        (format!("HTTP/1.1 200 OK\r\n{json}connection: close\r\n\r\n{large}"), 502),
        (with_body("200 OK", &format!("{json}content-encoding: gzip\r\n"), "x"), 502),
        (with_body("200 OK", json, "{\"items\":"), 502),
        (with_body("404 Not Found", json, old), 404),
        (with_body("200 OK", "content-type: text/plain\r\netag: \"1\"\r\n", old), 200),
        (with_body("200 OK", "content-type: text/plain\r\n", &large), 200),
        (with_body("200 OK", json, ""), 200),
    ];
    let texts: Vec<String> = answers.iter().map(|(text, _)| text.clone()).collect();
    let target = Target::start(move |number| texts.get(number - 1).cloned()).await;
    let gateway = gateway(&[entry(target.address, "public", &format!("retries = 0\n{FIELDS}"))]);
    for (index, (sent, expect)) in answers.iter().enumerate() {
        let answer = gateway.send("GET /out", &[], "").await;
        assert_eq!(answer.0, *expect, "{index}");
        if *expect == 502 {
            assert_eq!(code(&answer), (502, "outside_unreadable"), "{index}");
        } else if sent.contains(old) {
            assert_eq!(answer.2, serde_json::from_str::<Value>(old).unwrap(), "{index}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_problem_and_what_was_begun_has_its_status_line() {
    let cut = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\n\r\nhello";
    let target = Target::start(move |_| Some(cut.to_owned())).await;
    let gateway = gateway(&[entry(target.address, "public", "retries = 1")]);
    assert_eq!(code(&gateway.send("POST /out", &[], "body").await), (502, "outside_failed"));
    assert_eq!(target.count(), 1, "what may not be repeated is not");
    assert_eq!(code(&gateway.send("GET /out", &[], "").await), (502, "outside_failed"));
    assert_eq!(target.count(), 3, "what may is");

    // A long one is not waited for: the client has the head and what came.
    for head in ["content-length: 100000\r\n", "transfer-encoding: chunked\r\n"] {
        let body = if head.starts_with("transfer") { "5\r\nhello\r\n" } else { "hello" };
        let cut = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{head}\r\n{body}");
        let target = Target::start(move |_| Some(cut.clone())).await;
        let (address, _gateway) = listening(Some(target.address), "retries = 0").await;
        for _ in 0..20 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET /out HTTP/1.1\r\nhost: echo.test\r\n\r\n").await.unwrap();
            let mut came = Vec::new();
            let _ = tokio::time::timeout(PATIENCE, client.read_to_end(&mut came)).await.expect("it ends");
            let came = String::from_utf8_lossy(&came);
            assert!(came.starts_with("HTTP/1.1 200 OK\r\n") && came.contains("hello"), "{head}: {came:?}");
        }
    }
}
