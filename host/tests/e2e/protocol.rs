//! HTTP itself, as clients that are not ours speak it: RFC 9110, 9112 and 9113, byte by byte where no library would send it.

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::app::{PATIENCE, TestApp};

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
        "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close",
        "GET /health HTTP/1.0",
        "GET http://b/health HTTP/1.1\r\nhost: a\r\nconnection: close",
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
