//! Access for the operator alone: the data folder, the metrics, and a host in development mode.

use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{TestApp, until};
use crate::backing::Backing;
use crate::candidate::repacked;

const LOOKUP: &str = "/api/v1/location/lookup?phone=%2B14155552671";

/// Every folder and file below, the folder itself first, with its mode.
fn modes(folder: &Path) -> Vec<(String, bool, u32)> {
    let mut found = vec![(folder.display().to_string(), true, mode(folder))];
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(modes(&path));
        } else if let Ok(metadata) = path.symlink_metadata() {
            found.push((path.display().to_string(), false, metadata.permissions().mode() & 0o7777));
        }
    }
    found
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("it is there").permissions().mode() & 0o7777
}

#[track_caller]
fn assert_private(folder: &Path) {
    let found = modes(folder);
    // With PostgreSQL the host has but few of its own.
    let least = if Backing::of_this_test() == Backing::Embedded { 5 } else { 1 };
    assert!(found.iter().filter(|(path, ..)| path.ends_with(".sqlite") || path.ends_with("-wal")).count() >= least, "{found:?}");
    for (path, is_folder, mode) in found {
        assert_eq!(mode, if is_folder { 0o700 } else { 0o600 }, "{path} has mode {mode:o}");
    }
}

#[tokio::test]
async fn nobody_else_reads_the_data_folder_whatever_was_there_before() {
    let mut app = TestApp::start().await;
    let person = app.someone().await;
    assert_private(&app.data_folder());
    // As another version left it, or a restored backup: all of it open, in the middle of its life.
    app.kill();
    for (path, is_folder, _) in modes(&app.data_folder()) {
        std::fs::set_permissions(path, Permissions::from_mode(if is_folder { 0o777 } else { 0o666 })).expect("our own files");
    }
    app.restart().await;
    app.get("/api/v1/users/me").by(&person).send().await.expect(StatusCode::OK);
    assert_private(&app.data_folder());
}

#[tokio::test]
async fn metrics_want_a_token_and_are_not_public() {
    let settings = [("ECHO_PASSWORDS__COST", "production"), ("ECHO_SERVER__METRICS_TOKEN", "env:SCRAPER"), ("SCRAPER", "for the scraper")];
    let app = TestApp::launch("serve", &["location"], &settings).await;
    app.get("/metrics").send().await.expect_problem(404, "not_found");
    let bare = app.client.get(format!("{}/metrics", app.admin_url)).send().await.expect("answers");
    assert_eq!(bare.status(), StatusCode::UNAUTHORIZED);
    let with = |path: &str, token: &str| app.client.get(format!("{}{path}", app.admin_url)).bearer_auth(token).send();
    for token in [app.admin_token.as_str(), "for the scraper"] {
        let answer = with("/metrics", token).await.expect("answers");
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(answer.text().await.expect("text").contains("# TYPE echo_http_requests_total counter"));
    }
    let refused = with("/admin/v1/plugins", "for the scraper").await.expect("answers");
    assert_eq!(refused.status(), StatusCode::FORBIDDEN, "it opens the metrics and nothing else");
    assert_eq!(with("/metrics", "guessed").await.expect("answers").status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn development_mode_answers_to_this_machines_names_alone() {
    let app = TestApp::with(&["location", "notification"], &[("ECHO_SERVER__DOCS", "false")]).await;
    for path in ["/dev/outbox", LOOKUP, "/health", "/ws"] {
        app.get(path).header("host", "evil.example").send().await.expect_problem(421, "host_not_served");
    }
    for host in ["localhost", "127.0.0.1:1", "[::1]"] {
        app.get("/dev/outbox").header("host", host).send().await.expect(StatusCode::OK);
    }
    // And what describes the host can be switched off.
    for path in ["/docs", "/openapi.json"] {
        app.get(path).send().await.expect_problem(404, "not_found");
    }
}

fn dev(data: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echod"));
    command.args(["dev", "--listen", "0.0.0.0:0", "--admin-listen", "127.0.0.1:0", "--plugins", "none", "--data"]).arg(data).args(more);
    command.current_dir(data.parent().expect("below a temporary folder"));
    command
}

#[tokio::test]
async fn development_mode_is_exposed_on_demand_alone_and_shows_no_token_then() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let Output { status, stderr, .. } = dev(&data, &[]).output().expect("echod runs");
    let says = String::from_utf8_lossy(&stderr);
    assert!(!status.success() && says.contains("server.listen") && says.contains("--expose-dev"), "{status}: {says}");

    std::fs::create_dir(folder.path().join("none")).expect("a folder in the temporary one");
    let mut process = dev(&data, &["--expose-dev"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("echod runs");
    let addresses = until("it serves", async || {
        let text = std::fs::read(data.join("run/addresses.json")).ok()?;
        serde_json::from_slice::<serde_json::Value>(&text).ok()
    })
    .await;
    let port = addresses["public"].as_str().and_then(|address| address.rsplit(':').next()).expect("an address").to_owned();
    let asked = reqwest::Client::new().get(format!("http://127.0.0.1:{port}/health")).header("host", "echo.example").send().await;
    assert_eq!(asked.expect("answers").status(), StatusCode::OK, "exposed, it answers to every name");
    process.kill().expect("it runs");
    process.wait().expect("it ends");
    let mut said = String::new();
    process.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    let token = addresses["admin_token"].as_str().expect("a token");
    assert!(said.contains("operator") && !said.contains(token), "{said}");
}

/// With a token other than the operator's own.
async fn ask(app: &TestApp, token: &str, method: &Method, path: &str, body: Option<&Value>) -> (u16, Value) {
    let request = app.client.request(method.clone(), format!("{}{path}", app.admin_url)).bearer_auth(token);
    let request = match body {
        Some(body) => request.json(body),
        None => request,
    };
    let answer = request.send().await.expect("answers");
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

async fn token(app: &TestApp, name: &str, scopes: &[&str]) -> Value {
    let new = json!({ "name": name, "scopes": scopes });
    app.admin(Method::POST, "/admin/v1/tokens").json(new).send().await.expect(StatusCode::CREATED)
}

#[tokio::test]
async fn a_token_opens_what_its_scope_includes_and_nothing_else() {
    let app = TestApp::with(&["location"], &[]).await;
    let scopes = ["metrics", "read", "deploy", "admin"];
    let mut tokens = Vec::new();
    for scope in scopes {
        tokens.push(token(&app, &format!("of-{scope}"), &[scope]).await["token"].as_str().expect("a token").to_owned());
    }
    let nobody = "0193e3a6-0b7e-7cc0-8000-000000000000";
    // The least scope that opens it. What is opened is asked for in a way that changes nothing.
    let routes = [
        ("metrics", Method::GET, "/metrics".to_owned()),
        ("metrics", Method::GET, "/admin/v1/tokens/current".to_owned()),
        ("read", Method::GET, "/admin/v1/plugins".to_owned()),
        ("read", Method::GET, "/admin/v1/plugins/location".to_owned()),
        ("read", Method::GET, "/admin/v1/plugins/location/history".to_owned()),
        ("read", Method::GET, "/admin/v1/plugins/location/versions/live".to_owned()),
        ("read", Method::GET, "/admin/v1/queue".to_owned()),
        ("read", Method::GET, "/admin/v1/queue/dead-letters".to_owned()),
        ("read", Method::GET, "/admin/v1/nodes".to_owned()),
        ("read", Method::GET, "/admin/v1/connections".to_owned()),
        ("read", Method::GET, "/admin/v1/audit".to_owned()),
        ("deploy", Method::POST, "/admin/v1/plugins/location/versions?dry_run=true".to_owned()),
        ("deploy", Method::PUT, "/admin/v1/plugins/location/active".to_owned()),
        ("deploy", Method::POST, "/admin/v1/plugins/nothing/rollback".to_owned()),
        ("deploy", Method::DELETE, "/admin/v1/plugins/location/versions/9.9.9".to_owned()),
        ("admin", Method::GET, "/admin/v1/tokens".to_owned()),
        ("admin", Method::POST, "/admin/v1/tokens".to_owned()),
        ("admin", Method::DELETE, format!("/admin/v1/tokens/{nobody}")),
        ("admin", Method::POST, "/admin/v1/queue/dead-letters/nothing/replay".to_owned()),
        ("admin", Method::DELETE, "/admin/v1/queue/dead-letters/nothing".to_owned()),
        ("admin", Method::POST, "/admin/v1/backup".to_owned()),
        // Last, as it ends the host.
        ("admin", Method::POST, "/admin/v1/drain".to_owned()),
    ];
    for (least, method, path) in &routes {
        if path.ends_with("/drain") {
            // A token that opens nothing cannot fill the record of what was done.
            let audit = app.admin(Method::GET, "/admin/v1/audit").send().await.expect(StatusCode::OK);
            let seen = audit["items"].as_array().expect("items");
            assert!(seen.iter().all(|entry| entry["operator"] != "of-metrics" && entry["operator"] != "of-read"), "{audit}");
        }
        let least = scopes.iter().position(|scope| scope == least).expect("a scope");
        for (at, token) in tokens.iter().enumerate() {
            let (status, answer) = ask(&app, token, method, path, Some(&json!({}))).await;
            let what = format!("{method} {path} with {}: {status} {answer}", scopes[at]);
            if at < least {
                assert_eq!((status, answer["code"].as_str()), (403, Some("scope_missing")), "{what}");
            } else {
                assert!(status != 401 && status != 403 && status != 404 || answer["code"] != "not_found", "{what}");
                assert!(![401, 403, 405, 500].contains(&status), "{what}");
            }
        }
        let bare = app.client.request(method.clone(), format!("{}{path}", app.admin_url)).send().await.expect("answers");
        assert_eq!(bare.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
    }
}

#[tokio::test]
async fn a_named_token_is_shown_once_works_across_restarts_and_ends() {
    let mut app = TestApp::with(&["location"], &[]).await;
    let made = token(&app, "ci", &["read", "deploy"]).await;
    let (text, id) = (made["token"].as_str().expect("a token").to_owned(), made["id"].as_str().expect("an id").to_owned());
    let listed = app.admin(Method::GET, "/admin/v1/tokens").send().await.expect(StatusCode::OK);
    assert_eq!((&listed["items"][0]["name"], &listed["items"][0]["scopes"]), (&json!("ci"), &json!(["read", "deploy"])), "{listed}");
    assert!(!listed.to_string().contains(&text), "it is shown once");
    let stored = std::fs::read_to_string(app.data_folder().join("secrets/operators.json")).unwrap_or_default();
    assert!(!stored.contains(&text), "only its hash is kept");
    for (wrong, code) in [
        (json!({ "name": "ci", "scopes": ["read"] }), "name_taken"),
        (json!({ "name": "operator", "scopes": ["read"] }), "name_taken"),
        (json!({ "name": "a b", "scopes": ["read"] }), "invalid_name"),
        (json!({ "name": "a", "scopes": [] }), "required"),
        (json!({ "name": "a", "scopes": ["root"] }), "unknown_value"),
        (json!({ "name": "a", "scopes": ["read"], "expires_in": 0 }), "out_of_range"),
    ] {
        let refused = app.admin(Method::POST, "/admin/v1/tokens").json(wrong).send().await;
        assert!(refused.status.is_client_error() && refused.body.to_string().contains(code), "{code}: {}", refused.body);
    }

    // What it does is in its name: in the service's history, and in the record of operators' requests.
    let version = repacked("location", &[("version = \"0.1.0\"", "version = \"0.1.1\"")]);
    let with = |request: reqwest::RequestBuilder| request.bearer_auth(&text);
    let url = format!("{}/admin/v1/plugins/location", app.admin_url);
    let staged = with(app.client.post(format!("{url}/versions"))).body(version).send().await.expect("answers");
    assert_eq!(staged.status(), StatusCode::CREATED);
    let (status, _) = ask(&app, &text, &Method::PUT, "/admin/v1/plugins/location/active", Some(&json!({ "version": "0.1.1" }))).await;
    assert_eq!(status, 200);
    let (status, granted) = ask(&app, &text, &Method::POST, "/admin/v1/plugins/location/versions?grant=echo:sql", None).await;
    assert_eq!((status, &granted["code"]), (403, &json!("scope_missing")), "grants are the administrator's");
    app.admin(Method::POST, "/admin/v1/plugins/location/rollback").send().await.expect(StatusCode::OK);
    let history = app.admin(Method::GET, "/admin/v1/plugins/location/history").send().await.expect(StatusCode::OK);
    let who: Vec<_> = history["items"].as_array().expect("items").iter().map(|item| (&item["action"], &item["operator"])).collect();
    assert_eq!(
        who[..3],
        [(&json!("rollback"), &json!("operator")), (&json!("activate"), &json!("ci")), (&json!("start"), &Value::Null)],
        "{history}"
    );
    let service = app.admin(Method::GET, "/admin/v1/plugins/location").send().await.expect(StatusCode::OK);
    let generations = service["generations"].as_array().expect("a list");
    let versions: Vec<_> = generations.iter().map(|one| one["version"].as_str().expect("a version")).collect();
    assert_eq!((versions, &generations[0]["state"]), (vec!["0.1.0", "0.1.1", "0.1.0"], &json!("live")), "{service}");
    let audit = app.admin(Method::GET, "/admin/v1/audit").send().await.expect(StatusCode::OK);
    let seen: Vec<String> = audit["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| format!("{} {} {}", item["operator"], item["request"], item["status"]))
        .collect();
    for expect in [
        "\"operator\" \"POST /admin/v1/tokens\" 201",
        "\"ci\" \"PUT /admin/v1/plugins/location/active\" 200",
        "\"ci\" \"POST /admin/v1/plugins/location/versions?grant=echo:sql\" 403",
    ] {
        assert!(seen.iter().any(|line| line == expect), "{expect} in {seen:#?}");
    }
    assert!(!audit.to_string().contains(&text) && !app.log().contains(&text), "the token is written down nowhere");

    app.terminate().await;
    app.restart().await;
    assert_eq!(
        ask(&app, &text, &Method::GET, "/admin/v1/tokens/current", None).await.1,
        json!({ "name": "ci", "scopes": ["read", "deploy"] })
    );
    app.admin(Method::DELETE, &format!("/admin/v1/tokens/{id}")).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(ask(&app, &text, &Method::GET, "/admin/v1/plugins", None).await.0, 401, "ended");
    app.admin(Method::DELETE, &format!("/admin/v1/tokens/{id}")).send().await.expect_problem(404, "no_such_token");
}

#[tokio::test]
async fn the_record_of_what_was_done_is_paged() {
    let app = TestApp::with(&["location"], &[]).await;
    for name in ["a", "b", "c", "d", "e"] {
        token(&app, name, &["read"]).await;
    }
    let page = async |query: &str| {
        let page = app.admin(Method::GET, &format!("/admin/v1/audit{query}")).send().await.expect(StatusCode::OK);
        let detail = |item: &Value| item["detail"].as_str().expect("text").split(' ').nth(1).expect("a name").to_owned();
        let details: Vec<_> = page["items"].as_array().expect("items").iter().map(detail).collect();
        (details.concat(), page["next_cursor"].clone())
    };
    let (newest, next) = page("?limit=2").await;
    assert_eq!(newest, "ed", "newest first");
    // What is noted meanwhile moves nothing.
    token(&app, "f", &["read"]).await;
    let (before, next) = page(&format!("?limit=2&cursor={}", next.as_str().expect("a cursor"))).await;
    assert_eq!(before, "cb");
    let (last, next) = page(&format!("?limit=2&cursor={}", next.as_str().expect("a cursor"))).await;
    assert_eq!((last.as_str(), next), ("a", Value::Null));
    assert_eq!(page("").await, ("fedcba".to_owned(), Value::Null));
    let (exact, next) = page("?limit=6").await;
    assert_eq!((exact.as_str(), next), ("fedcba", Value::Null), "no page follows the last");

    for list in ["audit", "queue/dead-letters", "tokens"] {
        for limit in ["0", "-1", "101", "many", ""] {
            let reply = app.admin(Method::GET, &format!("/admin/v1/{list}?limit={limit}")).send().await;
            let problem = reply.expect_problem(422, "invalid");
            assert_eq!(
                (&problem["errors"][0]["field"], &problem["errors"][0]["code"]),
                (&json!("limit"), &json!("out_of_range")),
                "{problem}"
            );
        }
        app.admin(Method::GET, &format!("/admin/v1/{list}?limit=100")).send().await.expect(StatusCode::OK);
        app.admin(Method::GET, &format!("/admin/v1/{list}?curser=1")).send().await.expect_problem(400, "unknown_option");
    }
    // A cursor is good for the list and the operator that it was given to.
    let of_audit = app.admin(Method::GET, "/admin/v1/audit?limit=1").send().await.expect(StatusCode::OK)["next_cursor"].clone();
    let of_audit = of_audit.as_str().expect("a cursor").to_owned();
    for cursor in ["here", "5", &of_audit[1..]] {
        app.admin(Method::GET, &format!("/admin/v1/audit?cursor={cursor}")).send().await.expect_problem(422, "cursor_invalid");
    }
    app.admin(Method::GET, &format!("/admin/v1/tokens?cursor={of_audit}")).send().await.expect_problem(422, "cursor_invalid");
    let other = token(&app, "g", &["admin"]).await["token"].as_str().expect("a token").to_owned();
    assert_eq!(ask(&app, &other, &Method::GET, &format!("/admin/v1/audit?cursor={of_audit}"), None).await.0, 422);
    let (mut names, mut cursor) = (Vec::new(), String::new());
    while names.len() < 10 {
        let page = app.admin(Method::GET, &format!("/admin/v1/tokens?limit=3{cursor}")).send().await.expect(StatusCode::OK);
        names.extend(page["items"].as_array().expect("items").iter().map(|item| item["name"].as_str().expect("a name").to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(names, ["a", "b", "c", "d", "e", "f", "g"]);
}

#[tokio::test]
async fn names_of_tokens_are_plain_and_an_expired_one_is_free_again() {
    let app = TestApp::with(&["location"], &[]).await;
    let make = |new: Value| app.admin(Method::POST, "/admin/v1/tokens").json(new).send();
    for name in ["", ".", "..", ".hidden", "-rf", "_x", "a/b", "a b", "a@b", "é", "a\n", &"a".repeat(65)] {
        let problem = make(json!({ "name": name, "scopes": ["read"] })).await.expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["code"], "invalid_name", "{name:?}: {problem}");
    }
    for name in ["operator", "Operator", "METRICS"] {
        make(json!({ "name": name, "scopes": ["read"] })).await.expect_problem(409, "name_taken");
    }
    for name in ["7", "ann.b_c-d", &"a".repeat(64)] {
        make(json!({ "name": name, "scopes": ["read"] })).await.expect(StatusCode::CREATED);
    }
    let short = json!({ "name": "ci", "scopes": ["read"], "expires_in": 1 });
    let first = make(short.clone()).await.expect(StatusCode::CREATED);
    let again = until("the name is free", async || {
        let reply = make(short.clone()).await;
        (reply.status == StatusCode::CREATED).then_some(reply)
    })
    .await;
    assert_ne!(again.body["id"], first["id"]);
    let tokens = app.admin(Method::GET, "/admin/v1/tokens").send().await.expect(StatusCode::OK);
    assert_eq!(tokens["items"].as_array().expect("items").iter().filter(|token| token["name"] == "ci").count(), 1, "{tokens}");
}

#[tokio::test]
async fn the_operators_side_answers_to_its_own_names_and_pages_alone() {
    let app = TestApp::with(&["location"], &[("ECHO_SERVER__ADMIN_NAMES", "echo-admin.internal")]).await;
    let ask = |header: &'static str, value: String| app.admin(Method::GET, "/admin/v1/plugins").header(header, &value).send();
    ask("host", "evil.example:9090".to_owned()).await.expect_problem(421, "host_not_served");
    ask("host", "echo-admin.internal:9090".to_owned()).await.expect(StatusCode::OK);
    ask("origin", "https://evil.example".to_owned()).await.expect_problem(403, "origin_refused");
    ask("origin", "null".to_owned()).await.expect_problem(403, "origin_refused");
    ask("origin", app.url.clone()).await.expect_problem(403, "origin_refused");
    ask("origin", app.admin_url.clone()).await.expect(StatusCode::OK);
    let kept = app.client.get(format!("{}/admin/v1/plugins", app.admin_url)).bearer_auth(&app.admin_token).send().await.expect("answers");
    assert_eq!(kept.headers()["cache-control"], "no-store");
}

#[tokio::test]
async fn the_console_is_a_page_of_the_operators_side_alone() {
    let app = TestApp::with(&["location"], &[]).await;
    let page = app.client.get(format!("{}/console", app.admin_url)).header("accept-encoding", "gzip").send().await.expect("answers");
    assert_eq!((page.status(), page.headers()["content-type"].to_str().expect("text")), (StatusCode::OK, "text/html; charset=utf-8"));
    let policy = page.headers()["content-security-policy"].to_str().expect("text").to_owned();
    assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    let tag = page.headers()["etag"].clone();
    let script = |tag: Option<&reqwest::header::HeaderValue>| {
        let request = app.client.get(format!("{}/console/console.js", app.admin_url)).header("accept-encoding", "gzip");
        tag.map_or(request.try_clone().expect("no body"), |tag| request.header("if-none-match", tag)).send()
    };
    let whole = script(None).await.expect("answers");
    assert_eq!(
        (whole.status(), &whole.headers()["content-encoding"], &whole.headers()["etag"]),
        (StatusCode::OK, &"gzip".parse().expect("text"), &tag)
    );
    assert_eq!(script(Some(&tag)).await.expect("answers").status(), StatusCode::NOT_MODIFIED);
    let rebound = app.client.get(format!("{}/console", app.admin_url)).header("host", "evil.example").send().await.expect("answers");
    assert_eq!(rebound.status(), StatusCode::MISDIRECTED_REQUEST);
    app.get("/console").send().await.expect_problem(404, "not_found");
}
