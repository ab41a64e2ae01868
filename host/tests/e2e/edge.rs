//! What every request meets, whichever service it is for: the host's own routes, ids, headers, limits, keys, and the end of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::app::{ALL, PATIENCE, TestApp, until, unused_phone};

const LOOKUP: &str = "/api/v1/location/lookup?phone=%2B14155552671";

/// The API page's routes of services, as far as they are built; and those of the host that answer everybody.
const ROUTES: &str = "
    POST /api/v1/auth/register
    POST /api/v1/auth/verify-otp
    POST /api/v1/auth/resend-otp
    POST /api/v1/auth/login
    POST /api/v1/auth/refresh
    POST /api/v1/auth/logout
    POST /api/v1/auth/logout-all
    GET /api/v1/auth/sessions
    DELETE /api/v1/auth/sessions/{id}
    POST /api/v1/auth/password/forgot
    POST /api/v1/auth/password/reset
    POST /api/v1/auth/password/change
    GET /api/v1/auth/login-history
    POST /api/v1/auth/ws-ticket
    POST /api/v1/auth/totp
    POST /api/v1/auth/totp/confirm
    DELETE /api/v1/auth/totp
    POST /api/v1/auth/oauth/{provider}
    GET /api/v1/auth/oauth
    DELETE /api/v1/auth/oauth
    DELETE /api/v1/auth/account
    POST /api/v1/auth/account/export
    GET /api/v1/auth/account/export
    GET /api/v1/users/me
    PATCH /api/v1/users/me
    GET /api/v1/users/{id}
    POST /api/v1/users/batch
    GET /api/v1/users/search
    GET /api/v1/users/me/privacy
    PUT /api/v1/users/me/privacy
    GET /api/v1/users/contacts
    POST /api/v1/users/contacts
    PATCH /api/v1/users/contacts/{user_id}
    DELETE /api/v1/users/contacts/{user_id}
    POST /api/v1/users/contacts/match
    GET /api/v1/users/blocked
    GET /api/v1/users/blocked/{user_id}
    PUT /api/v1/users/blocked/{user_id}
    DELETE /api/v1/users/blocked/{user_id}
    POST /api/v1/users/reports
    GET /api/v1/users/export
    POST /api/v1/messages/conversations
    GET /api/v1/messages/conversations
    GET /api/v1/messages/conversations/{id}
    PATCH /api/v1/messages/conversations/{id}
    DELETE /api/v1/messages/conversations/{id}
    GET /api/v1/messages/conversations/{id}/participants
    POST /api/v1/messages/conversations/{id}/participants
    PATCH /api/v1/messages/conversations/{id}/participants/{user_id}
    DELETE /api/v1/messages/conversations/{id}/participants/{user_id}
    PUT /api/v1/messages/conversations/{id}/settings
    POST /api/v1/messages
    GET /api/v1/messages
    GET /api/v1/messages/{id}
    PATCH /api/v1/messages/{id}
    DELETE /api/v1/messages/{id}
    GET /api/v1/messages/{id}/edits
    GET /api/v1/messages/{id}/status
    POST /api/v1/messages/read
    POST /api/v1/messages/delivered
    POST /api/v1/messages/typing
    POST /api/v1/messages/scheduled
    GET /api/v1/messages/scheduled
    PATCH /api/v1/messages/scheduled/{id}
    DELETE /api/v1/messages/scheduled/{id}
    POST /api/v1/messages/conversations/{id}/invites
    GET /api/v1/messages/conversations/{id}/invites
    DELETE /api/v1/messages/conversations/{id}/invites/{code}
    POST /api/v1/messages/join/{code}
    GET /api/v1/messages/search
    GET /api/v1/messages/{id}/thread
    PUT /api/v1/messages/{id}/pin
    DELETE /api/v1/messages/{id}/pin
    PUT /api/v1/messages/{id}/reactions/{emoji}
    DELETE /api/v1/messages/{id}/reactions/{emoji}
    GET /api/v1/messages/{id}/reactions
    PUT /api/v1/messages/{id}/vote
    POST /api/v1/messages/{id}/close
    PUT /api/v1/messages/{id}/star
    DELETE /api/v1/messages/{id}/star
    GET /api/v1/messages/starred
    GET /api/v1/messages/export
    GET /api/v1/messages/conversations/{id}/draft
    PUT /api/v1/messages/conversations/{id}/draft
    DELETE /api/v1/messages/conversations/{id}/draft
    PUT /api/v1/messages/conversations/{id}/unread
    POST /api/v1/analytics/events
    GET /api/v1/analytics/summary
    GET /api/v1/analytics/timeseries
    GET /api/v1/analytics/top
    GET /api/v1/analytics/export
    GET /api/v1/presence
    PUT /api/v1/presence
    POST /api/v1/presence/heartbeat
    GET /api/v1/presence/devices
    GET /api/v1/presence/export
    GET /api/v1/location/lookup
    POST /api/v1/media
    PATCH /api/v1/media/{id}
    POST /api/v1/media/upload
    GET /api/v1/media/{id}
    GET /api/v1/media/{id}/content
    GET /api/v1/media/{id}/thumbnail
    DELETE /api/v1/media/{id}
    GET /api/v1/media/usage
    GET /api/v1/media/export
    GET /api/v1/notifications/devices
    POST /api/v1/notifications/devices
    DELETE /api/v1/notifications/devices
    GET /api/v1/notifications/preferences
    PUT /api/v1/notifications/preferences
    GET /api/v1/notifications
    POST /api/v1/notifications/read
    GET /api/v1/notifications/trace/{message_id}
    GET /api/v1/notifications/export
    GET /dev/outbox
    GET /docs/errors
    GET /docs/errors/{code}
";
/// Those that the host answers by itself: they are no service's contract.
const OF_THE_HOST: [&str; 3] = ["GET /dev/outbox", "GET /docs/errors", "GET /docs/errors/{code}"];
/// Those of the host that the document describes beside the services'.
const DESCRIBED: [&str; 4] = ["GET /.well-known/jwks.json", "GET /api/v1/sync", "GET /health", "GET /ready"];
/// Those that want the role `admin`.
const OF_ADMINS: [&str; 3] = ["GET /api/v1/analytics/summary", "GET /api/v1/analytics/timeseries", "GET /api/v1/analytics/top"];
/// Those that want no token.
const PUBLIC: [&str; 12] = [
    "POST /api/v1/auth/register",
    "POST /api/v1/auth/verify-otp",
    "POST /api/v1/auth/resend-otp",
    "POST /api/v1/auth/login",
    "POST /api/v1/auth/oauth/{provider}",
    "POST /api/v1/auth/refresh",
    "POST /api/v1/auth/password/forgot",
    "POST /api/v1/auth/password/reset",
    "GET /api/v1/location/lookup",
    SIGNED[0],
    SIGNED[1],
    "GET /dev/outbox",
];
/// A signed address is good without a token.
const SIGNED: [&str; 2] = ["GET /api/v1/media/{id}/content", "GET /api/v1/media/{id}/thumbnail"];

fn routes() -> impl Iterator<Item = &'static str> {
    ROUTES.lines().map(str::trim).filter(|line| !line.is_empty())
}

// --- The host's own routes ---------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_host_says_how_it_is() {
    let app = TestApp::shared().await;
    let health = app.get("/health").send().await.expect(StatusCode::OK);
    assert_eq!(health["status"], "up");

    let ready = app.get("/ready").send().await.expect(StatusCode::OK);
    assert_eq!(ready["status"], "up", "{ready}");
    assert!(ready["timestamp"].as_str().is_some_and(|at| at.len() == 27 && at.ends_with('Z')), "{ready}");
    for check in ["database", "cache", "queue", "blobs"] {
        assert_eq!(ready["checks"][check]["status"], "up", "{check}: {ready}");
        assert!(ready["checks"][check]["duration_ms"].is_number(), "{check}: {ready}");
    }
    let plugins = ready["checks"]["plugins"].as_object().expect("plugins");
    assert_eq!(plugins.keys().map(String::as_str).collect::<Vec<_>>(), ALL);

    app.get(LOOKUP).send().await.expect(StatusCode::OK);
    let metrics = app.get("/metrics").send().await;
    assert!(metrics.header("content-type").starts_with("text/plain"));
    let text = metrics.body.as_str().expect("text").to_owned();
    for line in ["# TYPE echo_http_requests_total counter", "echo_http_requests_in_flight", "route=\"/api/v1/location/lookup\""] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    // To the operator as well.
    let operators = app.admin(Method::GET, "/metrics").send().await;
    assert_eq!(operators.status, StatusCode::OK);

    let docs = app.get("/docs").send().await;
    assert!(docs.header("content-type").starts_with("text/html"));
    assert!(docs.header("content-security-policy").contains("script-src 'self';"));
    assert!(docs.expect(StatusCode::OK).as_str().expect("text").contains("/openapi.json"));

    let jwks = app.get("/.well-known/jwks.json").send().await.expect(StatusCode::OK);
    let keys = jwks["keys"].as_array().expect("keys");
    assert!(!keys.is_empty());
    for key in keys {
        assert_eq!((&key["kty"], &key["crv"], &key["alg"]), (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA")), "{key}");
        assert_eq!(URL_SAFE_NO_PAD.decode(key["x"].as_str().expect("x")).expect("base64url").len(), 32);
        assert!(key["kid"].is_string() && key.get("d").is_none(), "{key}");
    }
}

#[tokio::test]
async fn every_error_code_has_a_page_and_the_type_of_a_refusal_leads_there() {
    let app = TestApp::shared().await;
    let list = app.get("/docs/errors").send().await;
    assert_eq!((list.status, list.header("content-type")), (StatusCode::OK, "text/html; charset=utf-8"));
    let list = list.body.as_str().expect("text").to_owned();
    let table = include_str!("../../docs/ERRORS.md").lines().filter(|line| line.starts_with('|'));
    let codes: BTreeSet<&str> = table.flat_map(|row| row.split('|').nth(2).unwrap_or_default().split('`').skip(1).step_by(2)).collect();
    assert!(codes.len() > 150, "{codes:?}");
    for code in &codes {
        let page = app.get(&format!("/docs/errors/{code}")).send().await;
        let policy = page.header("content-security-policy").to_owned();
        assert!(policy.starts_with("default-src 'none'; style-src 'self'; base-uri 'none'"), "{policy}");
        let text = page.expect(StatusCode::OK);
        assert!(text.as_str().is_some_and(|text| text.contains(&format!("<h1><code>{code}</code></h1>"))), "{code}: {text}");
        assert!(list.contains(&format!("\"/docs/errors/{code}\"")), "{code} is not in the list");
    }
    let unknown = app.get("/docs/errors/no_such_code").send().await;
    assert_eq!((unknown.status, unknown.header("content-type")), (StatusCode::NOT_FOUND, "text/html; charset=utf-8"));
    assert!(unknown.body.as_str().is_some_and(|text| text.contains("/docs/errors/phone_taken")), "{}", unknown.body);

    // As a client follows it, on the listener that answered.
    let refused = [
        (app.get("/api/v1/users/me").send().await, &app.url),
        (app.post("/api/v1/auth/register", json!({ "phone": "1", "password": "correct horse 7" })).send().await, &app.url),
        (app.admin(Method::POST, "/admin/v1/plugins/nothing/rollback").send().await, &app.admin_url),
    ];
    for (reply, base) in refused {
        let (problem, code) = (reply.body.clone(), reply["code"].as_str().expect("a code").to_owned());
        let url = reqwest::Url::parse(base).and_then(|base| base.join(problem["type"].as_str().expect("a type"))).expect("a reference");
        assert_eq!(url.path(), format!("/docs/errors/{code}"), "{problem}");
        let page = app.client.get(url).send().await.expect("answers");
        assert_eq!(page.status(), StatusCode::OK, "{problem}");
        assert!(page.text().await.expect("text").contains(&format!("<h1><code>{code}</code></h1>")), "{problem}");
    }
}

#[tokio::test]
async fn the_openapi_document_is_whole_and_has_every_route_of_the_page() {
    let app = TestApp::shared().await;
    let answer = app.get("/openapi.json").send().await;
    let etag = answer.header("etag").to_owned();
    let document = answer.expect(StatusCode::OK);
    let again = app.get("/openapi.json").header("if-none-match", &etag).send().await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);

    // OpenAPI 3.1, section 4.8: what must be there.
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let mut found = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let variables: BTreeSet<&str> = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        for (method, operation) in item.as_object().expect("a path item") {
            let name = format!("{} {path}", method.to_uppercase());
            assert!(ids.insert(operation["operationId"].as_str().expect("an id").to_owned()), "{name}: the id is there twice");
            let responses = operation["responses"].as_object().expect("responses");
            assert!(responses.keys().any(|status| status.starts_with('2')), "{name}");
            assert!(responses.values().all(|response| response["description"].is_string() || response["$ref"].is_string()), "{name}");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let in_path: BTreeSet<&str> = (parameters.iter())
                .filter(|parameter| parameter["in"] == "path" && parameter["required"] == true)
                .filter_map(|parameter| parameter["name"].as_str())
                .collect();
            assert_eq!(in_path, variables, "{name}");
            assert!(parameters.iter().all(|parameter| parameter["schema"].is_object()), "{name}");
            assert!(method != "get" || operation.get("requestBody").is_none(), "{name}");
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{name} is not documented");
            found.insert(name, operation["security"].clone());
        }
    }
    references(&document, &mut |reference| {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads out of the document"));
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    });
    let routes: BTreeSet<&str> = routes().filter(|route| !OF_THE_HOST.contains(route)).chain(DESCRIBED).collect();
    assert_eq!(found.keys().map(String::as_str).collect::<BTreeSet<_>>(), routes);
    for (name, security) in &found {
        let expect = match name.as_str() {
            name if PUBLIC.contains(&name) || (DESCRIBED.contains(&name) && name != "GET /api/v1/sync") => json!([]),
            name if OF_ADMINS.contains(&name) => json!([{ "bearer": ["admin"] }]),
            _ => json!([{ "bearer": [] }]),
        };
        assert_eq!(*security, expect, "{name}");
    }
}

fn references(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(object) => {
            if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
                found(reference);
            }
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_route_is_served_and_only_the_public_ones_to_anybody() {
    let app = TestApp::shared().await;
    for route in routes() {
        let (method, path) = route.split_once(' ').expect("a method and a path");
        let method: Method = method.parse().expect("a method");
        let path = path
            .replace("{id}", "01890000-0000-7000-8000-000000000000")
            .replace("{user_id}", "x")
            .replace("{message_id}", "x")
            .replace("{emoji}", "x")
            .replace("{code}", "x");
        let reply = app.request(method, &path).send().await;
        if route == "GET /docs/errors/{code}" {
            assert_eq!(reply.status, StatusCode::NOT_FOUND, "there is no code x");
        } else if OF_THE_HOST.contains(&route) {
            reply.expect(StatusCode::OK);
        } else if SIGNED.contains(&route) {
            reply.expect_problem(401, "unauthenticated");
        } else if PUBLIC.contains(&route) {
            // It reached the service's contract, which wants fields.
            reply.expect_problem(422, "invalid");
        } else {
            reply.expect_problem(401, "token_missing");
        }
    }
}

#[tokio::test]
async fn in_production_nobody_sees_the_outbox_and_limits_are_as_they_are_written() {
    let services = ["auth", "location", "notification", "user"];
    let app = TestApp::launch("serve", &services, &[("ECHO_PASSWORDS__COST", "production")]).await;
    app.get("/dev/outbox").send().await.expect_problem(404, "not_found");
    let document = app.get("/openapi.json").send().await.expect(StatusCode::OK);
    assert!(document["paths"].get("/dev/outbox").is_none() && document["paths"].get("/api/v1/auth/register").is_some());
    let lookup = app.get(LOOKUP).send().await;
    assert_eq!(lookup.header("x-ratelimit-limit"), "60");
    lookup.expect(StatusCode::OK);
    // One JSON object a line, with what one looks for in it.
    let logged = until("the request's line", async || {
        let lines: Vec<Value> = app.log().lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
        lines.into_iter().find(|line| line.to_string().contains("/api/v1/location/lookup"))
    })
    .await;
    assert!(logged["timestamp"].is_string() && logged["level"] == "INFO", "{logged}");
    assert!(!app.log().contains("4155552671"), "a query is nobody's business");
}

#[tokio::test]
async fn the_operator_needs_the_token() {
    let app = TestApp::shared().await;
    let url = format!("{}/admin/v1/plugins", app.admin_url);
    for authorization in [None, Some("Bearer nonsense"), Some("Bearer ")] {
        let mut request = app.client.get(&url);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let reply = request.send().await.expect("an answer");
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED, "{authorization:?}");
        assert_eq!(reply.headers()["content-type"], "application/problem+json");
    }
    let ada = app.someone().await;
    let reply = app.client.get(&url).bearer_auth(&ada.access_token).send().await.expect("an answer");
    assert_eq!(reply.status(), StatusCode::UNAUTHORIZED, "a user is no operator");
    let plugins = app.admin(Method::GET, "/admin/v1/plugins").send().await.expect(StatusCode::OK);
    let names: Vec<_> = plugins["items"].as_array().expect("items").iter().map(|plugin| plugin["name"].clone()).collect();
    assert_eq!(names, ALL);
    // The operator's routes are not among the public ones.
    app.get("/admin/v1/plugins").send().await.expect_problem(404, "not_found");
}

// --- Every request -----------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_request_has_its_ids_and_every_answer_its_headers() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    for (what, path, status) in [
        ("a success", "/health", 200),
        ("a service's success", LOOKUP, 200),
        ("a refusal", "/api/v1/users/me", 401),
        ("a wrong field", "/api/v1/location/lookup?phone=x", 422),
        ("nothing", "/nothing", 404),
        ("the feed's refusal", "/api/v1/sync", 401),
        ("a socket's refusal", "/ws", 401),
    ] {
        let reply = app.get(path).header("x-request-id", "my-request-1").header("x-correlation-id", "my-journey").send().await;
        assert_eq!(reply.status.as_u16(), status, "{what}");
        assert_eq!((reply.header("x-request-id"), reply.header("x-correlation-id")), ("my-request-1", "my-journey"), "{what}");
        if !reply.status.is_success() {
            assert_eq!(reply["request_id"], "my-request-1", "{what}");
            let other = app.get(path).send().await;
            assert_eq!(other["request_id"], other.header("x-request-id"), "{what}: an id that was made");
        }
        for (name, value) in [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"), ("referrer-policy", "no-referrer")] {
            assert_eq!(reply.header(name), value, "{what}");
        }
        assert!(reply.header("content-security-policy").contains("default-src 'none'"), "{what}");
        assert!(!reply.header("cache-control").is_empty(), "{what}");
    }
    // What could do harm in a log or a header is not taken.
    for id in ["", "two words", "<script>", &"x".repeat(129)] {
        let reply = app.get("/health").header("x-request-id", id).send().await;
        let made = reply.header("x-request-id");
        assert_ne!(made, id);
        assert_eq!(made.len(), 36, "{made}");
        assert_eq!(reply.header("x-correlation-id"), made);
    }
    // Nothing of a person is kept on the way.
    assert_eq!(app.get("/api/v1/users/me").by(&ada).send().await.header("cache-control"), "no-store");
    // A slash at the end is one too many, and taken all the same.
    app.get("/api/v1/users/me/").by(&ada).send().await.expect(StatusCode::OK);
    let head = app.request(Method::HEAD, LOOKUP).send().await;
    assert_eq!((head.status, head.body), (StatusCode::OK, json!("")));
    let compressed = app.get("/openapi.json").header("accept-encoding", "gzip").send().await;
    assert_eq!(compressed.header("content-encoding"), "gzip");
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call() {
    let origin = "https://app.example.org";
    let app = TestApp::with(&["location"], &[("ECHO_SERVER__ALLOWED_ORIGINS", origin)]).await;
    let preflight = |origin: &str| {
        let ask = app.request(Method::OPTIONS, LOOKUP).header("origin", origin).header("access-control-request-method", "GET");
        ask.header("access-control-request-headers", "authorization,content-type,idempotency-key")
    };
    let allowed = preflight(origin).send().await;
    assert_eq!(allowed.status, StatusCode::OK);
    assert_eq!(allowed.header("access-control-allow-origin"), origin);
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        assert!(allowed.header("access-control-allow-methods").contains(method), "{method}");
    }
    for name in ["authorization", "content-type", "idempotency-key"] {
        assert!(allowed.header("access-control-allow-headers").contains(name), "{name}");
    }
    // Refusals can be read too, and what a page must see of their headers.
    for path in [LOOKUP, "/nothing"] {
        let reply = app.get(path).header("origin", origin).send().await;
        assert_eq!(reply.header("access-control-allow-origin"), origin, "{path}");
        assert!(reply.header("access-control-expose-headers").contains("x-request-id"), "{path}");
    }
    for other in ["https://evil.example", "http://app.example.org", "null"] {
        for reply in [preflight(other).send().await, app.get(LOOKUP).header("origin", other).send().await] {
            assert!(!reply.headers.contains_key("access-control-allow-origin"), "{other}");
        }
    }
}

#[tokio::test]
async fn an_idempotency_key_makes_a_request_once() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let group = |title: &str| json!({ "type": "group", "title": title, "participant_ids": [bala.id] });
    let open = |key: &str, title: &str| app.post("/api/v1/messages/conversations", group(title)).by(&ada).header("idempotency-key", key);
    let first = open("key-1", "one").send().await;
    assert!(!first.headers.contains_key("idempotent-replayed"));
    let first = first.expect(StatusCode::CREATED);
    let again = open("key-1", "one").send().await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.expect(StatusCode::CREATED), first);
    open("key-1", "two").send().await.expect_problem(422, "idempotency_key_reused");
    // A key is its user's, and a route's.
    let other = app.post("/api/v1/messages/conversations", json!({ "type": "group", "participant_ids": [ada.id] }));
    let other = other.by(&bala).header("idempotency-key", "key-1").send().await.expect(StatusCode::CREATED);
    assert_ne!(other["id"], first["id"]);
    let batch = app.post("/api/v1/users/batch", json!({ "ids": [ada.id] })).by(&ada).header("idempotency-key", "key-1");
    batch.send().await.expect(StatusCode::OK);

    // At once: one is done, the others are told the same or to come back.
    let replies = join_all((0..12).map(|_| open("key-2", "at once").send())).await;
    let fresh = replies.iter().filter(|reply| reply.status == StatusCode::CREATED && !reply.headers.contains_key("idempotent-replayed"));
    assert_eq!(fresh.count(), 1, "{replies:?}");
    for reply in replies {
        if reply.status != StatusCode::CREATED {
            assert!(!reply.header("retry-after").is_empty());
            reply.expect_problem(409, "idempotency_key_in_use");
        }
    }
    let listed = app.get("/api/v1/messages/conversations").by(&ada).send().await.expect(StatusCode::OK);
    let made = listed["items"].as_array().expect("items").iter().filter(|listed| listed["title"] == "at once").count();
    assert_eq!(made, 1);

    // A refusal is an answer too; a key that is none is refused.
    for replayed in [false, true] {
        let reply = open("key-3", &"x".repeat(201)).send().await;
        assert_eq!(reply.headers.contains_key("idempotent-replayed"), replayed);
        reply.expect_problem(422, "invalid");
    }
    open(&"x".repeat(129), "three").send().await.expect_problem(400, "idempotency_key_invalid");
}

#[tokio::test]
async fn what_a_client_has_already_is_not_sent_again() {
    let app = TestApp::shared().await;
    let first = app.get(LOOKUP).send().await;
    let etag = first.header("etag").to_owned();
    assert_eq!(first.header("cache-control"), "public, max-age=3600");
    assert_eq!(first["country"], "US");
    for given in [etag.as_str(), "*", &format!("\"other\", W/{etag}")] {
        let again = app.get(LOOKUP).header("if-none-match", given).send().await;
        assert_eq!((again.status, &again.body), (StatusCode::NOT_MODIFIED, &json!("")), "{given}");
        assert_eq!(again.header("etag"), etag);
    }
    app.get(LOOKUP).header("if-none-match", "\"other\"").send().await.expect(StatusCode::OK);
    let other = app.get("/api/v1/location/lookup?phone=%2B918123456789").header("if-none-match", &etag).send().await;
    assert_eq!(other.expect(StatusCode::OK)["country"], "IN");
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let app = TestApp::with(&["auth", "location", "notification"], &[("ECHO_GATEWAY__RATE_SCALE", "1")]).await;
    let mut refused = None;
    for n in 1..=61 {
        let reply = app.get(LOOKUP).send().await;
        assert_eq!(reply.header("x-ratelimit-limit"), "60");
        assert_eq!(reply.header("ratelimit-policy"), "\"ip\";q=60;w=60");
        if n <= 60 {
            assert_eq!(reply.header("x-ratelimit-remaining"), (60 - n).to_string());
            assert_eq!(reply.status, StatusCode::OK);
        } else {
            refused = Some(reply);
        }
    }
    let refused = refused.expect("the last one");
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    // A window full at once counts on into the next one.
    assert!((1..=61).contains(&wait), "{wait}");
    assert!(refused.header("ratelimit").starts_with("\"ip\";r=0;t="), "{:?}", refused.headers);
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");
    refused.expect_problem(429, "rate_limited");
    // Another route counts for itself, and what a client says of its address is not believed.
    let forwarded = app.get(LOOKUP).header("x-forwarded-for", "198.51.100.7").send().await;
    forwarded.expect_problem(429, "rate_limited");
    let phone = unused_phone();
    for n in 1..=6 {
        let login = json!({ "phone": phone, "password": "wrong password 1", "device": { "id": "phone" } });
        let reply = app.post("/api/v1/auth/login", login).send().await;
        let code = if n <= 5 { (401, "invalid_credentials") } else { (429, "rate_limited") };
        reply.expect_problem(code.0, code.1);
    }
}

#[tokio::test]
async fn the_metrics_rise_by_just_what_was_done() {
    let app = TestApp::with(&["auth", "location", "notification"], &[("ECHO_GATEWAY__RATE_SCALE", "1")]).await;
    let before = Metrics::of(&app).await;
    let times = async |count: usize, path: &str, status: u16| {
        for _ in 0..count {
            assert_eq!(app.get(path).send().await.status.as_u16(), status, "{path}");
        }
    };
    times(3, LOOKUP, 200).await;
    times(2, "/api/v1/location/lookup?phone=x", 422).await;
    times(55, LOOKUP, 200).await;
    // Sixty in a minute, the refused ones included.
    times(4, LOOKUP, 429).await;
    times(5, "/health", 200).await;
    times(6, "/nothing", 404).await;
    times(1, "/api/v1/auth/sessions", 401).await;
    let after = Metrics::of(&app).await;

    let requests = |route: &str, service: &str, status: &str| {
        let labels = [("method", "GET"), ("route", route), ("service", service), ("status", status)];
        after.rose_since(&before, "echo_http_requests_total", &labels)
    };
    let (lookup, sessions) = ("/api/v1/location/lookup", "/api/v1/auth/sessions");
    for (route, service, status, expect) in [
        (lookup, "location", "200", 58.0),
        (lookup, "location", "422", 2.0),
        (lookup, "location", "429", 4.0),
        ("/health", "host", "200", 5.0),
        ("", "", "404", 6.0),
        (sessions, "auth", "401", 1.0),
    ] {
        assert_eq!(requests(route, service, status), expect, "{route} {status}");
    }
    // The question for the metrics is counted when it is answered.
    assert_eq!(after.rose_since(&before, "echo_http_requests_total", &[]), 77.0);
    let durations = |route| after.rose_since(&before, "echo_http_request_duration_seconds_count", &[("route", route)]);
    assert_eq!((durations(lookup), durations(sessions)), (64.0, 1.0));
    let longest = [("route", lookup), ("le", "+Inf")];
    assert_eq!(after.rose_since(&before, "echo_http_request_duration_seconds_bucket", &longest), 64.0);
    assert_eq!(after.rose_since(&before, "echo_http_rate_limited_total", &[("route", lookup)]), 4.0);
    assert_eq!(after.rose_since(&before, "echo_http_rate_limited_total", &[]), 4.0);
    assert_eq!(after.of_all("echo_http_requests_in_flight", &[]), 1.0, "the question itself");
}

/// What `/metrics` said at one moment.
struct Metrics(String);

impl Metrics {
    async fn of(app: &TestApp) -> Self {
        Self(app.get("/metrics").send().await.expect(StatusCode::OK).as_str().expect("text").to_owned())
    }

    /// The sum over all series of this name with these labels, whatever others they have.
    fn of_all(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let series = self.0.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
        let named = series.filter(|(rest, _)| rest.is_empty() || rest.starts_with('{'));
        let wanted: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let with_labels = named.filter(|(rest, _)| {
            let given: Vec<&str> = rest.trim_matches(['{', '}']).split(',').collect();
            wanted.iter().all(|label| given.contains(&label.as_str()))
        });
        with_labels.map(|(_, value)| value.parse::<f64>().expect("a number")).sum()
    }

    fn rose_since(&self, before: &Self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of_all(name, labels) - before.of_all(name, labels)
    }
}

// --- The end -----------------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_host_ends_in_order_and_begins_again_where_it_was() {
    let mut app = TestApp::start().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let addresses = app.addresses();
    assert_eq!(std::fs::metadata(&addresses).expect("addresses.json").permissions().mode() & 0o777, 0o600);
    let known: Value = serde_json::from_slice(&std::fs::read(&addresses).expect("a file")).expect("JSON");
    assert_eq!(known["pid"], app.pid());

    let mut socket = app.socket(&bala, None).await;
    let before = app.say(&ada, &talk, "before").await;
    assert_eq!(socket.next_of("message").await["payload"]["id"], before["id"]);

    // A request that has begun: its head is read, of its body a half is still to come.
    let body = json!({ "conversation_id": talk, "client_message_id": "late", "type": "text", "content": "in flight" }).to_string();
    let head = format!(
        "POST /api/v1/messages HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        ada.access_token,
        body.len()
    );
    let (first, second) = body.split_at(body.len() / 2);
    let mut connection = app.connect().await;
    connection.write_all(format!("{head}{first}").as_bytes()).await.expect("the host reads");
    in_flight(&app).await;

    app.signal("TERM");
    let goodbye = socket.next_of("goodbye").await;
    assert!(goodbye["payload"]["retry_after_ms"].as_u64().is_some_and(|after| after > 0), "{goodbye}");
    assert_eq!(socket.closed().await, Some(1012));
    // Nobody new is let in, and what was begun is finished.
    until("the door is shut", async || app.get("/health").try_send().await.err()).await;
    connection.write_all(second.as_bytes()).await.expect("the host reads on");
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, connection.read_to_string(&mut answer)).await.expect("an answer in time").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let status = app.ended().await;
    assert_eq!(status.code(), Some(0), "{}", app.log());
    assert!(!addresses.exists(), "addresses.json is still there");

    // All is there again: the accounts, the sessions, the messages, and the feed goes on.
    app.restart().await;
    let mut socket = app.socket(&bala, Some(socket.cursor())).await;
    assert_eq!(socket.next_of("message").await["payload"]["content"], "in flight");
    let after = app.say(&ada, &talk, "after").await;
    assert_eq!(after["seq"], 3);
    assert_eq!(socket.next_of("message").await["payload"]["id"], after["id"]);
    let refresh = app.post("/api/v1/auth/refresh", json!({ "refresh_token": ada.refresh_token }));
    refresh.send().await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_request_without_end_does_not_hold_up_the_end() {
    let services = ["auth", "location", "notification"];
    let mut app = TestApp::with(&services, &[("ECHO_SERVER__DRAIN_TIMEOUT", "1s")]).await;
    let mut connection = app.connect().await;
    let head = "POST /api/v1/auth/register HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    connection.write_all(head.as_bytes()).await.expect("the host reads");
    in_flight(&app).await;
    app.signal("INT");
    let status = app.ended().await;
    assert_eq!(status.code(), Some(0), "{}", app.log());
}

/// Waits until the host has begun another request than the question itself.
async fn in_flight(app: &TestApp) {
    until("the request is in flight", async || {
        let metrics = app.get("/metrics").send().await;
        let line = metrics.body.as_str().expect("text").lines().find_map(|line| line.strip_prefix("echo_http_requests_in_flight "));
        line.and_then(|count| count.trim().parse::<f64>().ok()).filter(|count| *count >= 2.0)
    })
    .await;
}
