//! The gateway as a client sees it, over fake services.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::routing::get;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use http::HeaderMap;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use super::fakes::{FakeCache, FakeSnapshot, TestGateway, reply, route};
use super::{CheckState, GatewaySettings, Need, Problem};
use echo_base::limits;
use echo_edge::in_flight::{InFlight, InFlightBounds};
use echo_runtime::route_settings::RouteHeaders;
use echo_runtime::{CallError, ErrorKind, FieldError, Reply, RouteEntry, ServiceError};

const JSON: &str = "content-type: application/json";

/// Routes of the service `test`, answered with `{}`.
fn gateway(routes: &[(&str, &str, &str)]) -> TestGateway {
    with_settings(GatewaySettings::default(), routes)
}

fn with_settings(settings: GatewaySettings, routes: &[(&str, &str, &str)]) -> TestGateway {
    let routes = routes.iter().map(|(http, access, more)| route("test", http, access, more)).collect();
    TestGateway::with(settings, [], routes, async |_| reply(json!({})))
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

fn assert_problem(answer: &(u16, HeaderMap, Value), status: u16, code: &str) {
    let (found, headers, body) = answer;
    assert_eq!((*found, body["code"].as_str(), body["status"].as_u64()), (status, Some(code), Some(status.into())), "{body}");
    assert_eq!(text(headers, "content-type"), "application/problem+json");
    assert_eq!(body["type"], format!("/docs/errors/{code}"));
    assert_eq!(body["request_id"], text(headers, "x-request-id"));
    assert!(!body["title"].as_str().unwrap().is_empty());
    assert_eq!(text(headers, "cache-control"), "no-store");
}

async fn assert_eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_request_reaches_its_service_with_all_that_belongs_to_it() {
    let routes = vec![
        route("test", "POST /m/{id}/x/{name}", "user", "status = 201"),
        route("test", "GET /m", "public", ""),
        route("test", "DELETE /m/{id}", "user", "status = 204"),
    ];
    let gateway = TestGateway::new(routes, async |seen| match seen.route.as_str() {
        "DELETE /m/{id}" => Ok(Reply { body: None, status_flag: None }),
        _ => reply(json!({"ok": true})),
    });
    let headers = [
        JSON,
        "authorization: Bearer alice",
        "x-request-id: r-1",
        "x-correlation-id: c-1",
        "user-agent: curl/8",
        "traceparent: 00-a-b-01",
        "x-user-id: 00000000-0000-0000-0000-000000000001",
        "x-forwarded-for: 203.0.113.9",
    ];
    let (status, answer, body) = gateway.send("POST /m/1%202/x/%E2%9C%93?ignored=1", &headers, "{\"a\":1}").await;
    assert_eq!((status, body), (201, json!({"ok": true})));
    assert_eq!((text(&answer, "x-request-id"), text(&answer, "x-correlation-id")), ("r-1", "c-1"));
    let seen = gateway.last_seen();
    assert_eq!(seen.path, [("id".to_owned(), "1 2".to_owned()), ("name".to_owned(), "✓".to_owned())]);
    assert_eq!((seen.query.as_deref(), seen.body.as_deref()), (None, Some("{\"a\":1}")));
    let context = seen.context;
    assert_eq!(context.caller.as_ref().unwrap().device_id, "alice-phone");
    assert_eq!((&*context.request_id, &*context.correlation_id), ("r-1", "c-1"));
    assert_eq!((context.user_agent.as_deref(), context.trace_parent.as_deref()), (Some("curl/8"), Some("00-a-b-01")));
    assert_eq!(context.client_address, Some("192.0.2.1".parse().unwrap()), "no proxy is trusted");

    let (status, answer, _) = gateway.send("GET /m/?q=a%20b", &[], "").await;
    assert_eq!(status, 200, "a trailing slash is accepted");
    assert_eq!(text(&answer, "cache-control"), "no-store");
    let seen = gateway.last_seen();
    assert_eq!((seen.query.as_deref(), seen.body, seen.context.caller.as_ref()), (Some("q=a%20b"), None, None));

    let (status, answer, body) = gateway.send("DELETE /m/7", &["authorization: Bearer bob"], "").await;
    assert_eq!((status, body, answer.get("content-type")), (204, Value::Null, None));
}

#[tokio::test]
async fn the_status_may_depend_on_a_field_of_the_reply() {
    for (status_flag, expect) in [(Some(true), 201), (Some(false), 200), (None, 201)] {
        let routes = vec![route("test", "POST /c", "public", "status = 201\nstatus_unless = { field = \"created\", status = 200 }")];
        let gateway = TestGateway::new(routes, move |_| async move { Ok(Reply { body: Some(Bytes::from_static(b"{}")), status_flag }) });
        assert_eq!(gateway.send("POST /c", &[], "").await.0, expect, "{status_flag:?}");
    }
}

#[tokio::test]
async fn every_answer_has_ids_and_security_headers() {
    let gateway = gateway(&[("GET /x", "public", "")]);
    for line in ["GET /x", "GET /nothing", "GET /health", "DELETE /health", "OPTIONS /x"] {
        let (_, headers, _) = gateway.send(line, &["x-request-id: bad id"], "").await;
        let id = text(&headers, "x-request-id");
        assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7, "{line}");
        assert_eq!(text(&headers, "x-correlation-id"), id);
        assert_eq!(text(&headers, "x-content-type-options"), "nosniff", "{line}");
        assert_eq!(text(&headers, "x-frame-options"), "DENY");
        assert_eq!(text(&headers, "referrer-policy"), "no-referrer");
        assert!(text(&headers, "content-security-policy").starts_with("default-src 'none'"));
    }
}

#[tokio::test]
async fn a_request_for_no_host_or_for_two_is_refused() {
    let gateway = gateway(&[("GET /x", "public", "")]);
    for headers in [&["host: a", "host: b"][..], &["host: a", "host: a"], &["host: a b"], &["host: "], &["host: user@a"]] {
        let answer = gateway.send("GET /x", headers, "").await;
        assert_problem(&answer, 400, "bad_host");
        assert_eq!(text(&answer.1, "x-content-type-options"), "nosniff");
    }
    assert_eq!(gateway.send("GET /x", &["host: echo.example:8080"], "").await.0, 200);
}

/// Its body never ends.
async fn half_a_body(gateway: &TestGateway, by: &str, from: &str) -> (u16, HeaderMap, Value) {
    let begin = stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 8_000]))]);
    let endless = futures_util::StreamExt::chain(begin, stream::pending());
    let headers = [JSON, &format!("authorization: Bearer {by}"), &format!("x-forwarded-for: {from}")];
    gateway.send("POST /x", &headers, Body::from_stream(endless)).await
}

#[tokio::test]
async fn bodies_that_are_held_are_bounded_per_user_per_address_and_in_total() {
    let bounds = InFlightBounds { total: 28_000, per_address: 20_000, per_user: 10_000 };
    let in_flight = Arc::new(InFlight::with_room_for(bounds, 9_000));
    let settings = GatewaySettings { body_bytes_max: 9_000, in_flight, trusted_proxies_count: 1, ..GatewaySettings::default() };
    let gateway = with_settings(settings, &[("POST /x", "user", "")]);
    let mut held = Vec::new();
    let mut hold = |by: &'static str, from: &'static str| {
        let mut request = Box::pin(half_a_body(&gateway, by, from));
        let now = futures_util::FutureExt::now_or_never(&mut request);
        held.push(request);
        now
    };
    assert!(hold("alice", "192.0.2.1").is_none(), "it waits for the rest");
    let by_user = hold("alice", "192.0.2.2").expect("one user has no more");
    assert!(hold("bob", "192.0.2.1").is_none());
    let by_address = hold("admin", "192.0.2.1").expect("one address has no more");
    for refused in [by_user, by_address] {
        assert_problem(&refused, 429, "too_many_bytes");
        assert_eq!(text(&refused.1, "retry-after"), "1");
    }
    assert!(hold("admin", "192.0.2.3").is_none());
    let of_all = hold("bob", "192.0.2.4").expect("all together have no more");
    assert_problem(&of_all, 503, "too_many_bytes");
    assert_eq!(text(&of_all.1, "retry-after"), "1");
    // Who gives up makes room.
    held.clear();
    let whole = gateway.send("POST /x", &[JSON, "authorization: Bearer alice"], " ".repeat(8_000)).await;
    assert_eq!(whole.0, 200);
}

#[tokio::test]
async fn head_has_the_headers_of_get() {
    let gateway =
        TestGateway::new(vec![route("test", "GET /x", "public", "etag = true"), route("test", "POST /x", "public", "")], async |_| {
            reply(json!({ "text": "x".repeat(2_000) }))
        });
    for path in ["/x", "/health", "/ready", "/metrics", "/openapi.json", "/asyncapi.json", "/docs", "/nothing"] {
        for encoding in ["identity", "gzip"] {
            let (get, head) = (format!("GET {path}"), format!("HEAD {path}"));
            let headers = ["x-request-id: r", &format!("accept-encoding: {encoding}")];
            let (get, head) = (gateway.send_raw(&get, &headers, "").await, gateway.send_raw(&head, &headers, "").await);
            assert_eq!(get.status(), head.status(), "{path}");
            let mut expect = get.headers().clone();
            if let Some(length) = get.body().size_hint().exact() {
                expect.insert("content-length", length.into());
            }
            let mut found = head.headers().clone();
            for used_up in ["ratelimit", "x-ratelimit-remaining"] {
                assert_eq!(found.remove(used_up).is_some(), expect.remove(used_up).is_some(), "{path}");
            }
            if matches!(path, "/ready" | "/metrics") {
                // What it says changes from one question to the next.
                assert_eq!(found.remove("content-length").is_some(), expect.remove("content-length").is_some(), "{path} {encoding}");
            }
            assert_eq!(found, expect, "{path} {encoding}");
            assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty(), "{path}");
        }
    }
}

#[tokio::test]
async fn bad_requests_have_their_status_and_code() {
    let routes = [("POST /x", "public", ""), ("GET /x/{id}", "user", ""), ("GET /admin", "role:admin", "")];
    let gateway = with_settings(GatewaySettings { body_bytes_max: 1_000, ..GatewaySettings::default() }, &routes);
    let answer = gateway.send("GET /nothing", &[], "").await;
    assert_problem(&answer, 404, "not_found");

    let answer = gateway.send("PATCH /x", &[], "").await;
    assert_problem(&answer, 405, "method_not_allowed");
    assert_eq!(text(&answer.1, "allow"), "POST, OPTIONS");

    let answer = gateway.send("POST /health", &[], "").await;
    assert_problem(&answer, 405, "method_not_allowed");
    assert!(text(&answer.1, "allow").contains("GET"));

    for headers in [&[][..], &["content-type: text/plain"], &["content-type: application/jsonp"], &[JSON, "content-encoding: gzip"]] {
        let answer = gateway.send("POST /x", headers, "{}").await;
        assert_problem(&answer, 415, "unsupported_media_type");
        assert_eq!(text(&answer.1, "accept"), "application/json");
    }
    for charset in ["utf-8", "\"UTF-8\"", "utf-8; v=1"] {
        let content_type = format!("content-type: Application/JSON; charset={charset}");
        assert_eq!(gateway.send("POST /x", &[&content_type], "{}").await.0, 200, "{charset}");
    }
    for charset in ["latin1", "iso-8859-1", "utf-16"] {
        let content_type = format!("content-type: application/json; charset={charset}");
        assert_problem(&gateway.send("POST /x", &[&content_type], "{}").await, 415, "unsupported_media_type");
    }
    assert_eq!(gateway.send("POST /x", &["content-type: text/plain"], "").await.0, 200, "no body, no type");
    // Also where nobody reads it.
    for line in ["GET /x/1", "GET /health", "POST /health"] {
        let answer = gateway.send(line, &["authorization: Bearer alice", "content-type: text/plain"], "x=1").await;
        assert_problem(&answer, 415, "unsupported_media_type");
        let empty = Body::from_stream(stream::iter([Ok::<_, std::io::Error>(Bytes::new())]));
        let answer = gateway.send(line, &["authorization: Bearer alice"], empty).await;
        assert_ne!(answer.0, 415, "{line}: a body that proves empty needs no type");
    }

    assert_problem(&gateway.send("POST /x", &[JSON, "content-length: 1001"], "x".repeat(1_001)).await, 413, "too_large");
    let chunks = stream::iter((0..11).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 100]))));
    assert_problem(&gateway.send("POST /x", &[JSON], Body::from_stream(chunks)).await, 413, "too_large");
    assert_eq!(gateway.send("POST /x", &[JSON], "x".repeat(1_000)).await.0, 200);
    let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("reset"))]);
    assert_problem(&gateway.send("POST /x", &[JSON], Body::from_stream(broken)).await, 400, "unreadable");

    assert_problem(&gateway.send("GET /x/%ff", &["authorization: Bearer alice"], "").await, 400, "unreadable");
    for (token, status, code) in [
        ("", 401, "token_missing"),
        ("nonsense", 401, "token_invalid"),
        ("expired", 401, "token_expired"),
        ("revoked", 401, "token_revoked"),
        ("unavailable", 503, "tokens_unavailable"),
    ] {
        let header = format!("authorization: Bearer {token}");
        let answer = gateway.send("GET /x/1", &[&header], "").await;
        assert_problem(&answer, status, code);
        assert_eq!(text(&answer.1, "www-authenticate").starts_with("Bearer"), status == 401);
        assert_eq!(text(&answer.1, "retry-after"), if status == 503 { "1" } else { "" });
    }
    assert_problem(&gateway.send("GET /admin", &["authorization: Bearer alice"], "").await, 403, "role_required");
    assert_eq!(gateway.send("GET /admin", &["authorization: Bearer admin"], "").await.0, 200);
}

#[tokio::test]
async fn what_a_service_answers_instead_of_a_reply_becomes_a_problem() {
    let fields: Vec<FieldError> = (0..limits::FIELD_ERRORS_MAX + 9)
        .map(|i| FieldError { field: format!("f[{i}]"), code: "too_long".to_owned(), detail: String::new() })
        .collect();
    let gateway = TestGateway::new(vec![route("test", "GET /x/{case}", "public", "")], move |seen| {
        let fields = fields.clone();
        async move {
            let declined = |kind, code: &str, after| {
                CallError::Declined(ServiceError {
                    kind,
                    code: code.to_owned(),
                    message: "for people".to_owned(),
                    fields: Vec::new(),
                    retry_after: after,
                })
            };
            Err(match seen.path[0].1.as_str() {
                "unreadable" => CallError::Unreadable("expected `}` at 7".to_owned()),
                "invalid" => CallError::Invalid(fields),
                "locked" => declined(ErrorKind::Locked, "account_locked", Some(Duration::from_millis(90_500))),
                "conflict" => declined(ErrorKind::Conflict, "phone_taken", None),
                "internal" => declined(ErrorKind::Internal, "broken", None),
                "busy" => CallError::Busy,
                "unavailable" => CallError::Unavailable("secret".to_owned()),
                "slow" => CallError::TimedOut("secret".to_owned()),
                _ => CallError::Failed("secret".to_owned()),
            })
        }
    });
    for (case, status, code, retry_after, detail) in [
        ("unreadable", 400, "unreadable", "", "expected `}` at 7"),
        ("invalid", 422, "invalid", "", "the request has wrong fields"),
        ("locked", 423, "account_locked", "91", "for people"),
        ("conflict", 409, "phone_taken", "", "for people"),
        ("internal", 500, "broken", "", ""),
        ("busy", 503, "service_busy", "1", "the service has too much to do"),
        ("unavailable", 503, "service_unavailable", "1", "the service cannot be reached now"),
        ("slow", 504, "service_timed_out", "", "the service did not answer in time"),
        ("failed", 500, "service_failed", "", ""),
    ] {
        let answer = gateway.send(&format!("GET /x/{case}"), &[], "").await;
        assert_problem(&answer, status, code);
        assert_eq!(text(&answer.1, "retry-after"), retry_after, "{case}");
        assert_eq!(answer.2["detail"].as_str().unwrap_or(""), detail, "{case}");
        if case == "invalid" {
            assert_eq!(answer.2["errors"].as_array().unwrap().len(), limits::FIELD_ERRORS_MAX);
            assert_eq!(answer.2["errors"][0]["field"], "f[0]");
        }
    }
}

#[tokio::test]
async fn a_panic_costs_one_request() {
    let routes = vec![route("test", "GET /x", "public", ""), route("test", "POST /x", "public", "")];
    let gateway = TestGateway::new(routes, async |_| panic!("the password is 1234"));
    assert_problem(&gateway.send("GET /x", &["x-request-id: r-1"], "").await, 500, "internal");
    let answer = gateway.send("POST /x", &["idempotency-key: k"], "").await;
    assert_problem(&answer, 500, "internal");
    assert!(!answer.2.to_string().contains("1234"));
    assert_eq!(gateway.send("GET /health", &[], "").await.0, 200);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered() {
    let settings = GatewaySettings { request_timeout: Duration::from_millis(20), ..GatewaySettings::default() };
    let routes = vec![route("test", "POST /x", "public", "")];
    let gateway = TestGateway::with(settings, [], routes, async |_| std::future::pending().await);
    assert_problem(&gateway.send("POST /x", &[JSON], "{}").await, 504, "timed_out");
    let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    // Whoever does not send all of it was the one who was late.
    let late = gateway.send("POST /x", &[JSON], never).await;
    assert_problem(&late, 408, "body_timed_out");
    assert_eq!(text(&late.1, "connection"), "close");
    let chunked = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    assert_problem(&gateway.send("POST /x", &[], chunked).await, 408, "body_timed_out");
    assert_eq!(gateway.calls_count(), 1, "without its body a request reaches no service");
}

#[tokio::test]
async fn an_address_that_gives_too_many_bad_tokens_is_told_to_wait() {
    let settings = GatewaySettings { trusted_proxies_count: 1, ..GatewaySettings::default() };
    let gateway = with_settings(settings, &[("GET /x", "user", "")]);
    let ask = async |authorization: &str, address: &str| {
        let headers = [&*format!("authorization: {authorization}"), &*format!("x-forwarded-for: {address}")];
        gateway.send("GET /x", &headers, "").await
    };
    for _ in 0..limits::BAD_TOKENS_PER_MINUTE {
        assert_eq!(ask("Bearer nonsense", "192.0.2.1").await.0, 401);
    }
    let refused = ask("Bearer nonsense", "192.0.2.1").await;
    assert_problem(&refused, 429, "rate_limited");
    assert!(text(&refused.1, "retry-after").parse::<u64>().is_ok_and(|wait| wait >= 1));
    assert_eq!(ask("Bearer nonsense", "192.0.2.2").await.0, 401, "another address");
    assert_eq!(ask("Bearer alice", "192.0.2.1").await.0, 200, "a good token is a good token");
}

#[tokio::test]
async fn rate_limits_are_told_and_held() {
    let rate = "rate = { per = \"user\", strategy = \"fixed-window\", limit = 2, window = \"1m\" }";
    let gateway = gateway(&[("GET /x", "user", rate)]);
    for remaining in ["1", "0"] {
        let (status, headers, _) = gateway.send("GET /x", &["authorization: Bearer alice"], "").await;
        assert_eq!((status, text(&headers, "x-ratelimit-remaining")), (200, remaining));
        assert_eq!(text(&headers, "x-ratelimit-limit"), "2");
        assert_eq!(text(&headers, "ratelimit-policy"), "\"user\";q=2;w=60");
        assert_eq!(text(&headers, "ratelimit"), format!("\"user\";r={remaining};t={}", text(&headers, "x-ratelimit-reset")));
    }
    let answer = gateway.send("GET /x", &["authorization: Bearer alice"], "").await;
    assert_problem(&answer, 429, "rate_limited");
    let retry_after: u64 = text(&answer.1, "retry-after").parse().unwrap();
    assert!((1..=60).contains(&retry_after));
    assert_eq!(text(&answer.1, "x-ratelimit-remaining"), "0");
    assert_eq!(gateway.calls_count(), 2);
    assert_eq!(gateway.send("GET /x", &["authorization: Bearer bob"], "").await.0, 200);
}

#[tokio::test]
async fn limits_outlive_a_swap_and_obey_the_scale() {
    let rate = "rate = { per = \"ip\", strategy = \"sliding-window\", limit = 1, window = \"1h\" }";
    let gateway = with_settings(GatewaySettings { rate_scale: 2, ..GatewaySettings::default() }, &[("GET /x", "public", rate)]);
    assert_eq!(gateway.send("GET /x", &[], "").await.0, 200);
    gateway.services.snapshot.store(Arc::new(FakeSnapshot::new(2, vec![route("test", "GET /x", "public", rate)])));
    assert_eq!(gateway.send("GET /x", &[], "").await.0, 200);
    assert_eq!(gateway.send("GET /x", &[], "").await.0, 429);
}

#[tokio::test]
async fn the_hosts_own_paths_have_a_limit_per_address() {
    let gateway = gateway(&[]);
    for _ in 0..limits::HOST_REQUESTS_PER_MINUTE {
        assert_eq!(gateway.send("GET /health", &[], "").await.0, 200);
    }
    // A bucket fills while it is emptied.
    let mut refused = gateway.send("GET /health", &[], "").await;
    for _ in 0..limits::HOST_REQUESTS_PER_MINUTE {
        if refused.0 == 429 {
            break;
        }
        refused = gateway.send("GET /health", &[], "").await;
    }
    assert_problem(&refused, 429, "rate_limited");
    assert_eq!(text(&refused.1, "ratelimit-policy"), format!("\"ip\";q={};w=60", limits::HOST_REQUESTS_PER_MINUTE));
    assert_eq!(gateway.send("GET /.well-known/jwks.json", &[], "").await.0, 200, "each path for itself");
}

#[tokio::test]
async fn a_key_on_a_public_route_outlives_a_change_of_network_and_of_token() {
    let made = Arc::new(AtomicUsize::new(0));
    let gateway = TestGateway::new(vec![route("test", "POST /y", "public", "status = 201")], move |_| {
        let number = made.fetch_add(1, Ordering::Relaxed);
        async move { reply(json!({ "number": number })) }
    });
    let key = "idempotency-key: k-1";
    let first = gateway.send("POST /y", &[JSON, key], "{\"a\":1}").await;
    assert_eq!((first.0, text(&first.1, "idempotent-replayed")), (201, ""));
    for (address, token) in [("198.51.100.7:1", "nonsense"), ("192.0.2.1:50000", "alice"), ("203.0.113.9:1", "expired")] {
        let again = gateway.send_from(address, "POST /y", &[JSON, key, &format!("authorization: Bearer {token}")], "{\"a\":1}").await;
        assert_eq!((again.0, &again.2, text(&again.1, "idempotent-replayed")), (201, &first.2, "true"), "{address} {token}");
    }
    let other = gateway.send("POST /y", &[JSON, key], "{\"a\":2}").await;
    assert_eq!((other.0, &other.2["number"]), (201, &json!(1)), "another request, whoever chose the same key");
}

#[tokio::test]
async fn an_answer_with_a_secret_is_given_to_nobody_twice() {
    let made = Arc::new(AtomicUsize::new(0));
    let (running, may_end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (is_running, ends) = (running.clone(), may_end.clone());
    let routes = ["public", "user"].map(|access| route("test", &format!("POST /{access}"), access, "secret_answer = true")).into();
    let gateway = TestGateway::new(routes, move |seen| {
        let token = format!("token-{}", made.fetch_add(1, Ordering::Relaxed));
        let (is_running, ends) = (is_running.clone(), ends.clone());
        async move {
            if seen.body.as_deref() == Some("\"slow\"") {
                is_running.notify_one();
                ends.notified().await;
            }
            reply(json!({ "access_token": token }))
        }
    });
    let headers = [JSON, "authorization: Bearer alice", "idempotency-key: k-1"];
    for (line, expect) in [("POST /public", ["token-0", "token-1"]), ("POST /user", ["token-2", "token-3"])] {
        for token in expect {
            let answer = gateway.send(line, &headers, "{}").await;
            assert_eq!((answer.0, &answer.2["access_token"], text(&answer.1, "idempotent-replayed")), (200, &json!(token), ""));
        }
    }
    // Twice at once it is not done all the same.
    let first = gateway.send("POST /public", &headers, "\"slow\"");
    let second = async {
        running.notified().await;
        let second = gateway.send("POST /public", &headers, "\"slow\"").await;
        may_end.notify_one();
        second
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.0, &first.2["access_token"]), (200, &json!("token-4")));
    assert_problem(&second, 409, "idempotency_key_in_use");
    assert_eq!(text(&second.1, "retry-after"), "1");
}

#[tokio::test]
async fn a_replay_that_calls_says_what_is_so_now() {
    let made = Arc::new(AtomicUsize::new(0));
    let gateway = TestGateway::new(vec![route("test", "POST /m", "user", "status = 201\nreplay_calls = true")], move |_| {
        let number = made.fetch_add(1, Ordering::Relaxed);
        async move { reply(json!({ "number": number })) }
    });
    let headers = [JSON, "authorization: Bearer alice", "idempotency-key: k-1"];
    for (number, replayed) in [(0, ""), (1, "true"), (2, "true")] {
        let answer = gateway.send("POST /m", &headers, "{}").await;
        assert_eq!((answer.0, &answer.2["number"], text(&answer.1, "idempotent-replayed")), (201, &json!(number), replayed));
    }
    assert_problem(&gateway.send("POST /m", &headers, "{\"a\":1}").await, 422, "idempotency_key_reused");
}

#[tokio::test]
async fn a_post_with_a_key_is_done_once() {
    let made = Arc::new(AtomicUsize::new(0));
    let routes = vec![route("test", "POST /x", "user", "status = 201"), route("test", "POST /y", "public", "")];
    let gateway = TestGateway::new(routes, move |seen| {
        let number = made.fetch_add(1, Ordering::Relaxed);
        async move {
            match seen.body.as_deref() {
                Some("\"taken\"") => Err(CallError::Declined(ServiceError {
                    kind: ErrorKind::Conflict,
                    code: "taken".to_owned(),
                    message: String::new(),
                    fields: Vec::new(),
                    retry_after: None,
                })),
                Some("\"fails\"") if number.is_multiple_of(2) => Err(CallError::Failed("odd".to_owned())),
                _ => reply(json!({ "number": number })),
            }
        }
    });
    let alice = [JSON, "authorization: Bearer alice", "idempotency-key: k-1"];
    let first = gateway.send("POST /x", &alice, "{\"a\":1}").await;
    assert_eq!((first.0, text(&first.1, "idempotent-replayed")), (201, ""));
    assert_eq!(gateway.last_seen().context.idempotency_key.as_deref(), Some("k-1"));
    let again = gateway.send("POST /x", &alice, "{\"a\":1}").await;
    assert_eq!((again.0, &again.2, text(&again.1, "idempotent-replayed")), (201, &first.2, "true"));
    assert_eq!(text(&again.1, "content-type"), "application/json");
    assert_eq!(gateway.calls_count(), 1);
    assert_problem(&gateway.send("POST /x", &alice, "{\"a\":2}").await, 422, "idempotency_key_reused");

    let bob = [JSON, "authorization: Bearer bob", "idempotency-key: k-1"];
    assert_eq!(gateway.send("POST /x", &bob, "{\"a\":2}").await.2, json!({"number": 1}), "keys are each user's own");
    let anonymous = [JSON, "idempotency-key: k-1"];
    assert_eq!(gateway.send("POST /y", &anonymous, "{}").await.2, json!({"number": 2}), "and each route's own");

    let taken = [JSON, "idempotency-key: k-2"];
    let first = gateway.send("POST /y", &taken, "\"taken\"").await;
    let again = gateway.send("POST /y", &taken, "\"taken\"").await;
    assert_eq!(first.2, again.2, "the very same problem");
    assert_eq!((again.0, text(&again.1, "content-type")), (409, "application/problem+json"));

    let fails = [JSON, "idempotency-key: k-3"];
    assert_problem(&gateway.send("POST /y", &fails, "\"fails\"").await, 500, "service_failed");
    assert_eq!(gateway.send("POST /y", &fails, "\"fails\"").await.0, 200, "a fault is not kept");

    let long = format!("idempotency-key: {}", "k".repeat(limits::REQUEST_ID_BYTES_MAX + 1));
    assert_problem(&gateway.send("POST /y", &[&long], "").await, 400, "idempotency_key_invalid");

    gateway.cache.break_down();
    assert_eq!(gateway.send("POST /x", &alice, "{\"a\":1}").await.0, 201, "without its cache the host serves on");
}

#[tokio::test]
async fn a_key_in_use_is_refused_and_a_client_that_went_away_finds_its_answer() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begin, wait) = (begun.clone(), go_on.clone());
    let gateway = Arc::new(TestGateway::new(vec![route("test", "POST /x", "public", "")], move |_| {
        let (begin, wait) = (begin.clone(), wait.clone());
        async move {
            begin.notify_one();
            wait.notified().await;
            reply(json!({"done": true}))
        }
    }));
    let client = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.send("POST /x", &["idempotency-key: k"], "").await }
    });
    begun.notified().await;
    let answer = gateway.send("POST /x", &["idempotency-key: k"], "").await;
    assert_problem(&answer, 409, "idempotency_key_in_use");
    assert_eq!(text(&answer.1, "retry-after"), "1");

    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    go_on.notify_one();
    let found = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let answer = gateway.send("POST /x", &["idempotency-key: k"], "").await;
            if answer.0 != 409 {
                break answer;
            }
            tokio::task::yield_now().await;
        }
    });
    let (status, headers, body) = found.await.expect("the request goes on without its client");
    assert_eq!((status, text(&headers, "idempotent-replayed"), body), (200, "true", json!({"done": true})));
    assert_eq!(gateway.calls_count(), 1);
}

#[tokio::test]
async fn a_repeat_at_another_host_finds_the_first_ones_answer_and_while_that_runs_it_is_refused() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let cache = Arc::new(FakeCache::default());
    let host = |name: &'static str| {
        let (begun, go_on) = (begun.clone(), go_on.clone());
        let routes = vec![route("test", "POST /x", "user", "status = 201"), route("test", "POST /y", "user", "")];
        Arc::new(TestGateway::on(cache.clone(), GatewaySettings::default(), [], routes, move |_| {
            let (begun, go_on) = (begun.clone(), go_on.clone());
            async move {
                begun.notify_one();
                go_on.notified().await;
                reply(json!({"by": name}))
            }
        }))
    };
    let [first, second] = [host("first"), host("second")];
    let alice = [JSON, "authorization: Bearer alice", "idempotency-key: k"];
    let running = tokio::spawn({
        let first = first.clone();
        async move { first.send("POST /x", &alice, "{\"a\":1}").await }
    });
    begun.notified().await;
    assert_problem(&second.send("POST /x", &alice, "{\"a\":1}").await, 409, "idempotency_key_in_use");
    assert_problem(&second.send("POST /x", &alice, "{\"a\":2}").await, 422, "idempotency_key_reused");
    go_on.notify_one();
    let answer = running.await.unwrap();
    assert_eq!((answer.0, &answer.2["by"]), (201, &json!("first")));
    let repeat = second.send("POST /x", &alice, "{\"a\":1}").await;
    assert_eq!((repeat.0, text(&repeat.1, "idempotent-replayed"), &repeat.2), (201, "true", &answer.2));
    assert_eq!(second.calls_count(), 0);
    // Another route, another user: their keys are their own.
    go_on.notify_one();
    assert_eq!(second.send("POST /y", &alice, "{\"a\":1}").await.2["by"], "second");
    go_on.notify_one();
    let bob = [JSON, "authorization: Bearer bob", "idempotency-key: k"];
    assert_eq!(second.send("POST /x", &bob, "{\"a\":1}").await.2["by"], "second");
}

#[tokio::test]
async fn tags_and_kept_answers() {
    let public = "cache = { ttl = \"1m\", per = \"public\" }";
    let routes = vec![
        route("test", "GET /tagged", "public", "etag = true"),
        route("test", "GET /public", "public", public),
        route("test", "GET /mine", "user", "cache = { ttl = \"1m\", per = \"user\" }"),
    ];
    let gateway = TestGateway::new(routes, async |seen| {
        reply(json!({ "query": seen.query, "caller": seen.context.caller.as_ref().map(|caller| caller.device_id.clone()) }))
    });
    let (status, headers, body) = gateway.send("GET /tagged", &[], "").await;
    let etag = text(&headers, "etag").to_owned();
    assert_eq!((status, text(&headers, "cache-control")), (200, "no-cache"));
    assert!(etag.starts_with('"') && !body.is_null());
    let (status, headers, body) = gateway.send("GET /tagged", &[&format!("if-none-match: W/{etag}")], "").await;
    assert_eq!((status, text(&headers, "etag"), body), (304, etag.as_str(), Value::Null));
    let (status, ..) = gateway.send("GET /tagged?q=1", &[&format!("if-none-match: {etag}")], "").await;
    assert_eq!((status, gateway.calls_count()), (200, 3), "a tag alone keeps nothing");

    let (_, headers, first) = gateway.send("GET /public?q=1", &[], "").await;
    assert_eq!(text(&headers, "cache-control"), "public, max-age=60");
    gateway.send("GET /public?q=1", &[], "").await;
    assert_eq!(gateway.calls_count(), 5, "kept when it is asked for the second time");
    assert_eq!(gateway.send("GET /public?q=1", &["authorization: Bearer bob"], "").await.2, first);
    assert_eq!(gateway.calls_count(), 5);
    assert_ne!(gateway.send("GET /public?q=2", &[], "").await.2, first);

    let (_, headers, alice) = gateway.send("GET /mine", &["authorization: Bearer alice"], "").await;
    assert_eq!(text(&headers, "cache-control"), "private, max-age=60");
    assert!(headers.get_all("vary").iter().any(|value| value == "authorization"));
    assert_ne!(gateway.send("GET /mine", &["authorization: Bearer bob"], "").await.2, alice);
    gateway.send("GET /mine", &["authorization: Bearer alice"], "").await;
    let calls_count = gateway.calls_count();
    assert_eq!(gateway.send("GET /mine", &["authorization: Bearer alice"], "").await.2, alice);
    assert_problem(&gateway.send("GET /mine", &[], "").await, 401, "token_missing");
    assert_eq!(gateway.calls_count(), calls_count);

    gateway.cache.advance(Duration::from_secs(60));
    gateway.send("GET /mine", &["authorization: Bearer alice"], "").await;
    assert_eq!(gateway.calls_count(), calls_count + 1, "kept for its time");

    let public_again = vec![route("test", "GET /public", "public", public)];
    gateway.send("GET /public?q=1", &[], "").await;
    gateway.services.snapshot.store(Arc::new(FakeSnapshot::new(2, public_again)));
    let calls_count = gateway.calls_count();
    gateway.send("GET /public?q=1", &[], "").await;
    assert_eq!(gateway.calls_count(), calls_count + 1, "a swap forgets what the old version said");
}

#[tokio::test]
async fn large_answers_are_compressed_for_who_wants_it() {
    let gateway = TestGateway::new(vec![route("test", "GET /x", "public", "etag = true")], async |seen| {
        reply(json!({ "text": "a".repeat(seen.query.unwrap().parse().unwrap()) }))
    });
    let response = gateway.send_raw("GET /x?5000", &["accept-encoding: gzip"], "").await;
    assert_eq!(text(response.headers(), "content-encoding"), "gzip");
    assert!(text(response.headers(), "etag").starts_with("W/\""), "other bytes, so no strong tag");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(&[0x1f, 0x8b]) && body.len() < 1_000, "{} bytes", body.len());
    for (line, headers) in [("GET /x?100", &["accept-encoding: gzip"][..]), ("GET /x?5000", &[])] {
        let (_, headers, body) = gateway.send(line, headers, "").await;
        assert_eq!((text(&headers, "content-encoding"), body.is_object()), ("", true), "{line}");
        assert!(text(&headers, "etag").starts_with('"'));
    }
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call() {
    let settings = GatewaySettings { allowed_origins: vec!["https://app.example".to_owned()], ..GatewaySettings::default() };
    let gateway = with_settings(settings, &[("POST /x", "user", "")]);
    let preflight = async |origin: &str| {
        let origin = format!("origin: {origin}");
        let headers = [&origin, "access-control-request-method: POST", "access-control-request-headers: authorization"];
        gateway.send("OPTIONS /x", &headers, "").await
    };
    let (status, headers, _) = preflight("https://app.example").await;
    assert_eq!((status, text(&headers, "access-control-allow-origin")), (200, "https://app.example"));
    assert!(text(&headers, "access-control-allow-methods").contains("POST"));
    assert!(text(&headers, "access-control-allow-headers").contains("idempotency-key"));
    assert_eq!(text(&headers, "access-control-max-age"), "600");

    let (_, headers, _) = preflight("https://evil.example").await;
    assert_eq!(headers.get("access-control-allow-origin"), None);
    assert_eq!(gateway.calls_count(), 0);

    let answer = gateway.send("POST /x", &["origin: https://app.example"], "").await;
    assert_problem(&answer, 401, "token_missing");
    assert_eq!(text(&answer.1, "access-control-allow-origin"), "https://app.example", "a page can read a refusal");
    assert!(text(&answer.1, "access-control-expose-headers").contains("x-request-id"));
}

#[tokio::test]
async fn a_failing_service_is_left_alone_and_comes_back_with_its_next_version() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let broken = is_broken.clone();
    let routes = vec![route("test", "GET /x", "public", ""), route("test", "GET /y", "user", ""), route("other", "GET /o", "public", "")];
    let settings = GatewaySettings { trusted_proxies_count: 1, ..GatewaySettings::default() };
    let gateway = TestGateway::with(settings, [], routes, move |seen| {
        let is_broken = broken.load(Ordering::Relaxed) && seen.route != "GET /o";
        async move { if is_broken { Err(CallError::Failed("trap".to_owned())) } else { reply(json!({})) } }
    });
    for i in 0..limits::BREAKER_CALLS_MIN {
        let address = format!("x-forwarded-for: 198.51.100.{i}");
        let path = if i % 2 == 0 { "GET /x" } else { "GET /y" };
        assert_eq!(gateway.send(path, &[&address, "authorization: Bearer alice"], "").await.0, 500);
    }
    // All faults so far were alice's where there is a token: one caller opens nothing.
    assert_eq!(gateway.send("GET /x", &["authorization: Bearer alice"], "").await.0, 500);
    for i in 0..limits::BREAKER_CALLS_MIN {
        let address = format!("x-forwarded-for: 198.51.100.{i}");
        gateway.send("GET /x", &[&address], "").await;
    }
    let calls_count = gateway.calls_count();
    for path in ["GET /x", "GET /y"] {
        let answer = gateway.send(path, &["authorization: Bearer bob"], "").await;
        assert_problem(&answer, 503, "circuit_open");
        assert!((1..=5).contains(&text(&answer.1, "retry-after").parse::<u64>().unwrap()));
    }
    assert_eq!(gateway.calls_count(), calls_count, "nobody asked it");
    assert_eq!(gateway.send("GET /o", &[], "").await.0, 200);
    let (status, _, body) = gateway.send("GET /ready", &[], "").await;
    assert_eq!((status, &body["status"], &body["checks"]["plugins"]["test"]["status"]), (200, &json!("degraded"), &json!("degraded")));

    is_broken.store(false, Ordering::Relaxed);
    gateway.services.snapshot.store(Arc::new(FakeSnapshot::new(2, vec![route("test", "GET /x", "public", "")])));
    assert_eq!(gateway.send("GET /x", &[], "").await.0, 200);
}

#[tokio::test]
async fn ready_says_how_the_host_is() {
    let gateway = gateway(&[("GET /x", "public", "")]);
    let register = |name: &str, outcome: Result<CheckState, String>| {
        let need = if name == "database" { Need::Essential } else { Need::Helpful };
        gateway.readiness.register(name, need, Arc::new(move || Box::pin(std::future::ready(outcome.clone()))));
    };
    register("database", Ok(CheckState::Up));
    let (status, _, body) = gateway.send("GET /ready", &[], "").await;
    assert_eq!((status, &body["status"]), (200, &json!("up")));
    assert_eq!(body["checks"]["plugins"], json!({"test": {"status": "up"}}));
    assert!(body["checks"]["database"]["duration_ms"].is_number());
    let timestamp: jiff::Timestamp = body["timestamp"].as_str().unwrap().parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(timestamp).as_secs() < 60);

    register("cache", Ok(CheckState::Degraded));
    let (status, _, body) = gateway.send("GET /ready", &[], "").await;
    assert_eq!((status, &body["status"], &body["checks"]["cache"]["status"]), (200, &json!("degraded"), &json!("degraded")));

    for away in ["cache", "queue"] {
        register(away, Err("no answer".to_owned()));
        let (status, _, body) = gateway.send("GET /ready", &[], "").await;
        assert_eq!((status, &body["status"]), (200, &json!("degraded")), "without the {away} it serves on");
        assert_eq!((&body["checks"][away]["status"], &body["checks"][away]["essential"]), (&json!("down"), &json!(false)));
        assert_eq!(body["checks"]["database"]["essential"], true);
        register(away, Ok(CheckState::Up));
    }

    register("database", Err("/var/lib/echo: disk full".to_owned()));
    let (status, _, body) = gateway.send("GET /ready", &[], "").await;
    assert_eq!((status, &body["status"], &body["checks"]["database"]["status"]), (503, &json!("down"), &json!("down")));
    assert!(!body.to_string().contains("/var/lib"), "the reason is the operator's");

    register("database", Ok(CheckState::Up));
    register("cache", Ok(CheckState::Up));
    gateway.readiness.drain();
    let (status, _, body) = gateway.send("GET /ready", &[], "").await;
    assert_eq!((status, &body["status"], &body["draining"]), (503, &json!("down"), &json!(true)));
    assert_eq!(gateway.send("GET /health", &[], "").await.0, 200);
}

#[tokio::test]
async fn a_host_without_a_service_is_not_ready() {
    let gateway = gateway(&[]);
    let (status, _, body) = gateway.send("GET /ready", &[], "").await;
    assert_eq!((status, &body["status"], &body["checks"]["plugins"]), (503, &json!("down"), &json!({})));
    assert_eq!(gateway.send("GET /health", &[], "").await.0, 200);
}

#[tokio::test]
async fn the_host_describes_itself() {
    let gateway = gateway(&[]);
    let (status, headers, body) = gateway.send("GET /openapi.json", &[], "").await;
    assert_eq!((status, &body["openapi"]), (200, &json!("3.1.0")));
    let etag = format!("if-none-match: {}", text(&headers, "etag"));
    assert_eq!(gateway.send("GET /openapi.json", &[&etag], "").await.0, 304);
    let (status, _, body) = gateway.send("GET /asyncapi.json", &[], "").await;
    assert_eq!((status, &body["asyncapi"]), (200, &json!("3.0.0")));
    gateway.services.snapshot.store(Arc::new(FakeSnapshot::new(2, Vec::new())));
    assert_eq!(gateway.send("GET /openapi.json", &[&etag], "").await.0, 200, "another snapshot, another document");

    let (status, headers, _) = gateway.send("GET /docs", &[], "").await;
    assert_eq!((status, text(&headers, "content-type")), (200, "text/html; charset=utf-8"));
    assert!(text(&headers, "content-security-policy").contains("script-src 'self';"));
    assert_eq!(gateway.send("GET /docs-viewer.js", &[], "").await.0, 200);

    let (_, headers, body) = gateway.send("GET /.well-known/jwks.json", &[], "").await;
    assert_eq!((text(&headers, "content-type"), &body["keys"][0]["kid"]), ("application/jwk-set+json", &json!("one")));

    let (status, headers, body) = gateway.send("GET /metrics", &[], "").await;
    assert_eq!((status, body), (200, json!("echo_up 1\n")));
    assert!(text(&headers, "content-type").starts_with("text/plain; version=0.0.4"));
    let private = with_settings(GatewaySettings { public_metrics: false, ..GatewaySettings::default() }, &[]);
    assert_problem(&private.send("GET /metrics", &[], "").await, 404, "not_found");
}

#[tokio::test]
async fn every_error_code_has_a_page_whatever_else_is_switched_off() {
    let bare = with_settings(GatewaySettings { docs: false, ..GatewaySettings::default() }, &[]);
    for path in ["/docs/errors", "/docs/errors/", "/docs/errors/phone_taken", "/docs/errors/phone_taken/"] {
        let (status, headers, page) = bare.send(&format!("GET {path}"), &[], "").await;
        assert_eq!((status, text(&headers, "content-type")), (200, "text/html; charset=utf-8"), "{path}");
        assert!(text(&headers, "content-security-policy").starts_with("default-src 'none'; style-src 'self';"));
        assert!(page.as_str().unwrap().contains("phone_taken"), "{path}: {page}");
    }
    assert_eq!(text(&bare.send("GET /docs/errors.css", &[], "").await.1, "content-type"), "text/css; charset=utf-8");
    let (status, headers, page) = bare.send("GET /docs/errors/no_such_code", &[], "").await;
    assert_eq!((status, text(&headers, "content-type")), (404, "text/html; charset=utf-8"));
    assert!(page.as_str().unwrap().contains("href=\"/docs/errors/phone_taken\""), "{page}");
    assert_eq!(bare.send("HEAD /docs/errors/phone_taken", &[], "").await.0, 200);
    for path in ["/docs", "/docs/other", "/docs/errorsx"] {
        assert_problem(&bare.send(&format!("GET {path}"), &[], "").await, 404, "not_found");
    }
}

#[tokio::test]
async fn the_web_client_is_served_at_the_root_and_at_its_pages() {
    let gateway = gateway(&[]);
    let (status, headers, document) = gateway.send("GET /", &[], "").await;
    assert_eq!((status, text(&headers, "content-type"), text(&headers, "cache-control")), (200, "text/html; charset=utf-8", "no-cache"));
    assert!(text(&headers, "content-security-policy").contains("script-src 'self';"));
    assert_eq!(text(&headers, "x-content-type-options"), "nosniff");
    let etag = format!("if-none-match: {}", text(&headers, "etag"));
    for page in ["/c", "/c/01a21e7d-c4a2-7e20-86cc-d7559bf51ea5/details", "/join/code", "/new", "/settings/privacy", "/sign-in/"] {
        let (status, _, body) = gateway.send(&format!("GET {page}"), &[], "").await;
        assert_eq!((status, &body), (200, &document), "{page}");
        assert_eq!(gateway.send(&format!("GET {page}"), &[&etag], "").await.0, 304, "{page}");
    }
    for (file, content_type) in
        [("/client.js", "text/javascript; charset=utf-8"), ("/client.css", "text/css; charset=utf-8"), ("/icon.svg", "image/svg+xml")]
    {
        let (status, headers, _) = gateway.send(&format!("GET {file}"), &["accept-encoding: gzip"], "").await;
        assert_eq!((status, text(&headers, "content-type")), (200, content_type));
        assert_eq!(gateway.send(&format!("GET {file}"), &[&etag], "").await.0, 304, "{file}");
        assert_eq!(gateway.send(&format!("HEAD {file}"), &[], "").await.0, 200, "{file}");
    }
    assert_problem(&gateway.send("GET /client.js/x", &[], "").await, 404, "not_found");
    assert_problem(&gateway.send("GET /other.js", &[], "").await, 404, "not_found");
    assert_eq!(gateway.send("POST /", &[], "").await.0, 405);
}

#[tokio::test]
async fn routes_of_the_host_pass_the_same_layers() {
    let host_routes = [
        ("/own", get(async || "own")),
        ("/refused", get(async || Problem::unauthenticated("token_missing", "no"))),
        ("/bare", get(async || http::StatusCode::BAD_REQUEST)),
        ("/panics", get(async || -> &'static str { panic!("on purpose") })),
    ];
    let gateway = TestGateway::with(GatewaySettings::default(), host_routes, Vec::new(), async |_| reply(json!({})));
    let (status, headers, body) = gateway.send("GET /own/", &["x-request-id: r-1"], "").await;
    assert_eq!((status, body, text(&headers, "x-request-id")), (200, json!("own"), "r-1"));
    assert_problem(&gateway.send("GET /refused", &[], "").await, 401, "token_missing");
    assert_problem(&gateway.send("GET /bare", &[], "").await, 400, "unreadable");
    assert_problem(&gateway.send("GET /panics", &[], "").await, 500, "internal");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_request() {
    let (begun, dropped) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let (begin, flag) = (begun.clone(), dropped.clone());
    struct OnDrop(Arc<AtomicBool>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let gateway = Arc::new(TestGateway::new(vec![route("test", "POST /x", "public", "")], move |_| {
        let (begin, guard) = (begin.clone(), OnDrop(flag.clone()));
        async move {
            let _guard = guard;
            begin.notify_one();
            std::future::pending().await
        }
    }));
    let client = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.send("POST /x", &[], "").await }
    });
    begun.notified().await;
    client.abort();
    assert_eventually("the call is dropped", || dropped.load(Ordering::Relaxed)).await;
}

#[tokio::test]
async fn identical_gets_of_one_person_at_one_time_are_one_call_where_the_route_says_so() {
    let go = Arc::new(Semaphore::new(0));
    let gate = go.clone();
    let kept = "cache = { ttl = \"1m\", per = \"user\" }";
    let routes = vec![route("test", "GET /kept", "user", kept), route("test", "GET /plain", "user", "")];
    let gateway = TestGateway::new(routes, move |seen| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.expect("it stays open").forget();
            reply(json!({ "device": seen.context.caller.as_ref().expect("a caller").device_id }))
        }
    });
    let alice = join_all((0..20).map(|_| gateway.send("GET /kept?a=1", &["authorization: Bearer alice"], "")));
    let bob = join_all((0..2).map(|_| gateway.send("GET /kept?a=1", &["authorization: Bearer bob"], "")));
    let other = gateway.send("GET /kept?a=2", &["authorization: Bearer alice"], "");
    let plain = join_all((0..3).map(|_| gateway.send("GET /plain", &["authorization: Bearer alice"], "")));
    let opening = async {
        assert_eventually("each has begun", || gateway.calls_count() >= 6).await;
        go.add_permits(100);
    };
    let (alice, bob, other, plain, ()) = tokio::join!(alice, bob, other, plain, opening);
    assert_eq!(gateway.calls_count(), 6, "one for alice, one for bob, one for another query, and three where the route does not say so");
    for (status, _, body) in alice.iter().chain([&other]).chain(&plain) {
        assert_eq!((*status, &body["device"]), (200, &json!("alice-phone")));
    }
    assert!(bob.iter().all(|(status, _, body)| (*status, &body["device"]) == (200, &json!("bob-phone"))));
}

/// A route whose headers the operator changes.
fn with_headers(http: &str, access: &str, more: &str, request: &str, response: &str) -> RouteEntry {
    let headers = RouteHeaders { request: toml::from_str(request).unwrap(), response: toml::from_str(response).unwrap() };
    RouteEntry { headers: Some(Arc::new(headers)), ..route("test", http, access, more) }
}

#[tokio::test]
async fn headers_of_a_route_are_changed_for_requests_and_for_every_answer() {
    let request = "rename = { X-Client = \"User-Agent\", X-Once = \"Idempotency-Key\" }";
    let response = "set = { X-Robots-Tag = \"noindex\" }\nrename = { X-RateLimit-Limit = \"X-Limit\" }\nremove = [\"X-RateLimit-Reset\"]";
    let routes = vec![
        with_headers("POST /x", "user", "", request, response),
        with_headers("GET /cached", "public", "cache = { ttl = \"1m\", per = \"public\" }", "", response),
    ];
    let gateway = TestGateway::new(routes, async |_| reply(json!({ "made": Uuid::now_v7() })));
    let sent = ["authorization: Bearer alice", "content-type: application/json", "x-client: mine", "user-agent: library", "x-once: 1"];
    let (status, headers, first) = gateway.send("POST /x", &sent, "{}").await;
    assert_eq!(status, 200);
    assert_eq!(gateway.last_seen().context.user_agent.as_deref(), Some("mine"));
    let changed = |headers: &HeaderMap| {
        assert_eq!((text(headers, "x-robots-tag"), text(headers, "x-limit")), ("noindex", "1000000"));
        assert_eq!((text(headers, "x-ratelimit-limit"), text(headers, "x-ratelimit-reset")), ("", ""));
    };
    changed(&headers);
    // The key that came under another name is one.
    let (_, headers, again) = gateway.send("POST /x", &sent, "{}").await;
    assert_eq!((text(&headers, "idempotent-replayed"), again), ("true", first));
    changed(&headers);
    assert_eq!(gateway.calls_count(), 1);
    let refused = gateway.send("POST /x", &["content-type: application/json"], "{}").await;
    assert_problem(&refused, 401, "token_missing");
    assert_eq!(text(&refused.1, "x-robots-tag"), "noindex");

    // From the second request on it is kept; a kept answer, and one that the client has, have them too.
    for _ in 0..3 {
        let (status, headers, _) = gateway.send("GET /cached", &[], "").await;
        assert_eq!((status, text(&headers, "x-robots-tag")), (200, "noindex"));
    }
    let etag = format!("if-none-match: {}", text(&gateway.send("GET /cached", &[], "").await.1, "etag"));
    let (status, headers, _) = gateway.send("GET /cached", &[&etag], "").await;
    assert_eq!((status, text(&headers, "x-robots-tag")), (304, "noindex"));
}
