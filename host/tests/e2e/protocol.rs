//! HTTP itself, as clients that are not ours speak it: RFC 9110, 9112 and 9113, byte by byte where no library would send it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::{Method, StatusCode, Version};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::app::{PATIENCE, TestApp, until};

const LOOKUP: &str = "/api/v1/location/lookup?phone=%2B14155552671";

/// What the host says to these bytes until it closes.
async fn say(app: &TestApp, bytes: &[u8]) -> String {
    let mut connection = app.connect().await;
    connection.write_all(bytes).await.expect("the host reads");
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, connection.read_to_end(&mut answer)).await.expect("an answer in time").expect("an answer");
    String::from_utf8(answer).expect("an answer is text")
}

/// The last of several answers is this problem, whole, and the end.
#[track_caller]
fn assert_problem(answers: &str, status: u16, code: &str) {
    let begin = answers.rfind("HTTP/1.1 ").unwrap_or_else(|| panic!("no answer: {answers:?}"));
    let (head, body) = answers[begin..].split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.to_lowercase().strip_prefix(&format!("{name}: ")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("no {name} in {head}"))
    };
    assert_eq!(header("content-type"), "application/problem+json");
    assert_eq!(header("content-length"), body.len().to_string(), "{head}");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert!(!header("date").is_empty());
    let problem: Value = serde_json::from_str(body).expect("a problem is JSON");
    assert_eq!((&problem["status"], &problem["code"]), (&status.into(), &code.into()), "{problem}");
    assert_eq!(problem["request_id"], header("x-request-id"), "{head}");
}

#[tokio::test]
async fn a_request_is_for_one_host() {
    let app = TestApp::shared().await;
    for hosts in ["", "host: a\r\nhost: b\r\n", "host: a\r\nhost: a\r\n", "host: a b\r\n", "host: \r\n", "host: u@a\r\n", "host: a:x\r\n"] {
        let answer = say(&app, format!("GET /health HTTP/1.1\r\n{hosts}connection: close\r\n\r\n").as_bytes()).await;
        assert_problem(&answer, 400, "bad_host");
        let mut operators = TcpStream::connect(app.admin_url.trim_start_matches("http://")).await.expect("the host listens");
        let request = format!("GET /admin/v1/plugins HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        operators.write_all(request.as_bytes()).await.expect("the host reads");
        let mut answer = String::new();
        operators.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"bad_host\""), "{answer}");
    }
    for good in [
        "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close",
        "GET /health HTTP/1.0\r\nhost: localhost",
        "GET http://localhost/health HTTP/1.1\r\nhost: a\r\nconnection: close",
    ] {
        let answer = say(&app, format!("{good}\r\n\r\n").as_bytes()).await;
        assert!(answer.split_once(' ').expect("a status line").1.starts_with("200 OK"), "{good}: {answer}");
    }
}

#[tokio::test]
async fn head_has_the_headers_of_get_on_every_route() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    let get =
        "/health /docs /openapi.json /.well-known/jwks.json /dev/outbox /api/v1/auth/sessions /api/v1/users/me /api/v1/sync /nothing /ws";
    for path in get.split(' ').chain([LOOKUP, "/api/v1/messages/conversations", "/api/v1/messages/x"]) {
        for encoding in ["identity", "gzip"] {
            let ask = |method| app.request(method, path).by(&ada).header("x-request-id", "r").header("accept-encoding", encoding);
            let (get, head) = (ask(Method::GET).send().await, ask(Method::HEAD).send().await);
            assert_eq!(get.status, head.status, "{path}");
            assert_eq!(head.body, "", "{path}");
            let headers = |reply: &crate::app::Reply| {
                let mut headers = reply.headers.clone();
                // The moment, and what the first of the two used up; a length that is known only when all is sent.
                for name in ["date", "ratelimit", "x-ratelimit-remaining", "x-ratelimit-reset", "transfer-encoding"] {
                    headers.remove(name);
                }
                if path == "/dev/outbox" {
                    headers.remove("content-length");
                }
                headers
            };
            assert_eq!(headers(&get), headers(&head), "{path} {encoding}");
        }
    }
    app.get("/health").send().await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_path_refuses_the_methods_that_it_does_not_take_and_names_those_that_it_takes() {
    let app = TestApp::shared().await;
    let document = app.get("/openapi.json").send().await.expect(StatusCode::OK);
    let described = document["paths"].as_object().expect("paths").iter().map(|(path, operations)| {
        let taken = operations.as_object().expect("operations").keys().map(|method| method.to_uppercase()).collect::<Vec<_>>();
        (false, path.replace(['{', '}'], ""), taken)
    });
    let of = |is_operators: bool, path: &str, taken: &str| {
        (is_operators, path.to_owned(), taken.split(' ').map(str::to_owned).collect::<Vec<_>>())
    };
    let besides = ["/", "/docs", "/openapi.json", "/asyncapi.json", "/dev/outbox", "/ws"].map(|path| of(false, path, "GET"));
    let operators = [
        ("/admin/v1/plugins", "GET"),
        ("/admin/v1/plugins/auth", "GET"),
        ("/admin/v1/plugins/auth/history", "GET"),
        ("/admin/v1/plugins/auth/versions", "POST"),
        ("/admin/v1/plugins/auth/versions/1", "GET DELETE"),
        ("/admin/v1/plugins/auth/active", "PUT"),
        ("/admin/v1/plugins/auth/rollback", "POST"),
        ("/admin/v1/queue", "GET"),
        ("/admin/v1/queue/dead-letters", "GET"),
        ("/admin/v1/queue/dead-letters/1", "DELETE"),
        ("/admin/v1/queue/dead-letters/1/replay", "POST"),
        ("/admin/v1/nodes", "GET"),
        ("/admin/v1/connections", "GET"),
        ("/admin/v1/audit", "GET"),
        ("/admin/v1/backup", "POST"),
        ("/admin/v1/reload", "POST"),
        ("/admin/v1/drain", "POST"),
        ("/admin/v1/tokens", "GET POST"),
        ("/admin/v1/tokens/1", "DELETE"),
        ("/metrics", "GET"),
        ("/console", "GET"),
        ("/ready", "GET"),
    ]
    .map(|(path, taken)| of(true, path, taken));
    let mut asked = 0;
    for (is_operators, path, mut taken) in described.chain(besides).chain(operators) {
        if taken.iter().any(|method| method == "GET") {
            taken.push("HEAD".to_owned());
        }
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            // tus 1.0 tells by OPTIONS what it can do.
            if taken.iter().any(|other| other == method) || (method == "OPTIONS" && path.starts_with("/api/v1/media")) {
                continue;
            }
            let method: Method = method.parse().expect("a method");
            let ask = if is_operators { app.admin(method.clone(), &path) } else { app.request(method.clone(), &path) };
            let reply = ask.send().await;
            assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            let allow = reply.header("allow").to_owned();
            reply.expect_problem(405, "method_not_allowed");
            for other in &taken {
                assert!(allow.split(',').any(|named| named.trim() == other), "{method} {path}: {other} is not in {allow:?}");
            }
            asked += 1;
        }
    }
    assert!(asked > 500, "{asked}");
}

#[tokio::test]
async fn a_body_that_is_no_json_is_refused_whatever_the_route() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    for (method, path) in [
        (Method::GET, "/health"),
        (Method::GET, "/api/v1/sync"),
        (Method::GET, "/api/v1/users/me"),
        (Method::POST, "/api/v1/auth/logout"),
        (Method::POST, "/api/v1/auth/ws-ticket"),
        (Method::DELETE, "/api/v1/auth/sessions/01890000-0000-7000-8000-000000000000"),
        (Method::POST, "/api/v1/users/batch"),
    ] {
        for content_type in [None, Some("application/x-www-form-urlencoded")] {
            let mut ask = app.request(method.clone(), path).by(&ada);
            if let Some(content_type) = content_type {
                ask = ask.header("content-type", content_type);
            }
            ask.bytes("a=1").send().await.expect_problem(415, "unsupported_media_type");
        }
    }
}

#[tokio::test]
async fn what_is_no_request_is_answered_with_a_problem() {
    let app = TestApp::shared().await;
    assert_problem(&say(&app, b"nonsense\r\n\r\n").await, 400, "unreadable");
    let head = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx-long: {}\r\n\r\n", "x".repeat(80_000));
    assert_problem(&say(&app, head.as_bytes()).await, 431, "head_too_large");
    let after = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGET /health HTTP/1.1\r\nhost a\r\n\r\n";
    let answers = say(&app, after.as_bytes()).await;
    assert!(answers.starts_with("HTTP/1.1 200 OK"), "{answers}");
    assert_problem(&answers, 400, "unreadable");
}

#[tokio::test]
async fn http_2_passes_the_same_layers() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    let ask = |method: Method, path: &str| client.request(method, format!("{}{path}", app.url)).bearer_auth(&ada.access_token);

    let me = ask(Method::GET, "/api/v1/users/me").header("x-request-id", "my-request-2").send().await.expect("an answer");
    assert_eq!((me.version(), me.status()), (Version::HTTP_2, StatusCode::OK));
    assert_eq!(me.headers()["x-request-id"], "my-request-2");
    assert_eq!(me.headers()["x-content-type-options"], "nosniff");
    let me: Value = serde_json::from_slice(&me.bytes().await.expect("a body")).expect("JSON");
    assert_eq!(me["id"], ada.id);

    let long = "x".repeat(20_000);
    for (method, path, header, body, status, code) in [
        (Method::GET, "/nothing", ("x-a", "b"), "", 404, "not_found"),
        (Method::GET, "/ws", ("x-a", "b"), "", 426, "upgrade_required"),
        (Method::GET, "/api/v1/users/me", ("x-long", long.as_str()), "", 431, "head_too_large"),
        (Method::POST, "/api/v1/users/batch", ("content-type", "text/plain"), "{}", 415, "unsupported_media_type"),
        (Method::POST, "/api/v1/users/batch", ("content-type", "application/json"), "{}", 422, "invalid"),
        (Method::GET, "/health", ("host", "elsewhere.example"), "", 400, "bad_host"),
    ] {
        let reply = ask(method, path).header(header.0, header.1).body(body.to_owned()).send().await.expect("an answer");
        assert_eq!((reply.version(), reply.status().as_u16()), (Version::HTTP_2, status), "{path}");
        assert_eq!(reply.headers()["content-type"], "application/problem+json", "{path}");
        let id = reply.headers()["x-request-id"].to_str().expect("text").to_owned();
        let problem: Value = serde_json::from_slice(&reply.bytes().await.expect("a body")).expect("JSON");
        assert_eq!((&problem["code"], &problem["request_id"]), (&code.into(), &id.into()), "{path}");
    }
    let (get, head) = (ask(Method::GET, "/health").send().await, ask(Method::HEAD, "/health").send().await);
    let (get, head) = (get.expect("an answer"), head.expect("an answer"));
    assert_eq!(head.headers().get("content-length"), get.headers().get("content-length"));
    assert!(head.headers().contains_key("content-length"));

    // Side by side on one connection, a body of half a megabyte among them.
    let padded = format!("{}{{\"ids\":[\"{}\"]}}", " ".repeat(500_000), ada.id);
    let large = ask(Method::POST, "/api/v1/users/batch").header("content-type", "application/json").body(padded).send();
    let many = futures_util::future::join_all((0..50).map(|_| ask(Method::GET, "/api/v1/users/me").send()));
    let (large, many) = tokio::join!(large, many);
    assert_eq!(large.expect("an answer").status(), StatusCode::OK);
    assert!(many.into_iter().all(|reply| reply.expect("an answer").status() == StatusCode::OK));
}

/// A certificate for `localhost`, in files; as clients trust it.
pub fn certificate(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    // As tools do it: beside the old ones, then in their place.
    for (name, text) in [("key.pem", made.signing_key.serialize_pem()), ("cert.pem", made.cert.pem())] {
        std::fs::write(folder.join("new"), text).expect("a file");
        std::fs::rename(folder.join("new"), folder.join(name)).expect("its place");
    }
    made.cert.der().clone()
}

async fn connect(app: &TestApp, trusted: &CertificateDer<'static>, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(app.url.trim_start_matches("https://")).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    tokio::time::timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.expect("a handshake in time")
}

/// One request of HTTP/1.1 on a connection that stays open; the head of the answer.
async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("the host reads");
    let mut answer = Vec::new();
    while !answer.ends_with(b"{\"status\":\"up\"}") {
        let mut byte = [0];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut byte)).await.expect("an answer in time").expect("an answer");
        answer.extend(byte);
    }
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn the_host_speaks_tls_and_reads_its_certificate_again_when_it_changes() {
    let mut app = TestApp::start().await;
    let ada = app.someone().await;
    let folder = tempfile::tempdir().expect("a folder");
    let first = certificate(folder.path());
    app.set("ECHO_SERVER__TLS_CERT", &folder.path().join("cert.pem").display().to_string());
    app.set("ECHO_SERVER__TLS_KEY", &folder.path().join("key.pem").display().to_string());
    app.terminate().await;
    app.restart().await;

    // HTTP/1.1 for a client that says nothing, or wants it; HTTP/2 where both speak it.
    let mut old = connect(&app, &first, &[]).await.expect("TLS");
    assert!(ask(&mut old).await.starts_with("HTTP/1.1 200 OK"));
    let mut http1 = connect(&app, &first, &["http/1.1"]).await.expect("TLS");
    assert_eq!(http1.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(ask(&mut http1).await.starts_with("HTTP/1.1 200 OK"));
    let stream = connect(&app, &first, &["h2", "http/1.1"]).await.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request = http::Request::builder().uri("https://localhost/api/v1/users/me");
    let request = request.header("authorization", format!("Bearer {}", ada.access_token)).body(()).expect("a request");
    let answer = client.send_request(request, true).expect("a stream").0.await.expect("an answer");
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));

    // A socket opens over TLS.
    let stream = connect(&app, &first, &["http/1.1"]).await.expect("TLS");
    let mut request = "wss://localhost/ws".into_client_request().expect("a request");
    request.headers_mut().insert("authorization", format!("Bearer {}", ada.access_token).parse().expect("a header"));
    request.headers_mut().insert("origin", "https://localhost".parse().expect("a header"));
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("a socket");
    let hello = tokio::time::timeout(PATIENCE, socket.next()).await.expect("in time").expect("a frame").expect("a frame");
    assert!(hello.to_text().expect("text").contains("connection_ack"), "{hello}");

    // Who does not speak TLS gets nothing.
    let mut plain = TcpStream::connect(app.url.trim_start_matches("https://")).await.expect("the host listens");
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("the host reads");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut answer)).await.expect("the end");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    // A key that is another's is not taken, a whole new pair is, and who is connected stays so.
    let key = std::fs::read(folder.path().join("key.pem")).expect("the key");
    let second = certificate(folder.path());
    let new_key = std::fs::read(folder.path().join("key.pem")).expect("the key");
    std::fs::write(folder.path().join("key.pem"), key).expect("the old key");
    until("the host says that the pair is no good", async || app.log().contains("cannot be taken").then_some(())).await;
    connect(&app, &first, &[]).await.expect("the old one is used on");
    std::fs::write(folder.path().join("key.pem"), new_key).expect("the new key");
    until("the new certificate", async || connect(&app, &second, &[]).await.ok()).await;
    connect(&app, &first, &[]).await.expect_err("the old one is gone");
    assert!(ask(&mut old).await.starts_with("HTTP/1.1 200 OK"));
    let request = http::Request::builder().uri("https://localhost/health").body(()).expect("a request");
    assert_eq!(client.send_request(request, true).expect("a stream").0.await.expect("an answer").status(), StatusCode::OK);

    // At the end HTTP/2 says goodbye, and the socket too.
    let status = app.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", app.log());
    tokio::time::timeout(Duration::from_secs(5), connection).await.expect("the connection ends").expect("no panic").ok();
}
