//! The operator's settings of routes: what they change, over HTTP and over sockets, and what becomes of a file with mistakes.

use std::process::{Command, Output};

use reqwest::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;

use crate::app::{TestApp, until};

const LOOKUP: &str = "/api/v1/location/lookup?phone=%2B14155552671";

fn folder_with(settings: &str) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    write(folder.path(), settings);
    folder
}

fn write(folder: &std::path::Path, settings: &str) {
    std::fs::write(folder.join("echo.toml"), settings).expect("the settings are written");
}

/// The output of `serve --check`.
fn check(folder: &std::path::Path, app: &TestApp) -> (bool, String) {
    let mut check = Command::new(env!("CARGO_BIN_EXE_echod"));
    check.args(["serve", "--check", "--plugins"]).arg(app.plugins()).current_dir(folder);
    let Output { status, stderr, .. } = check.output().expect("echod runs");
    (status.success(), String::from_utf8_lossy(&stderr).into_owned())
}

#[tokio::test]
async fn settings_of_routes_are_read_again_and_a_mistake_changes_nothing() {
    let folder = folder_with("[gateway]\nrate_scale = 1\n");
    let path = folder.path().to_owned();
    let app = TestApp::launch_on(folder, "serve", &["location"], &[("ECHO_PASSWORDS__COST", "production")]).await;
    app.get(LOOKUP).send().await.expect(StatusCode::OK);

    // Stricter access, under a second prefix too, and both as the documents say.
    write(
        &path,
        "[[gateway.routes]]\nmatch = \"GET /api/v1/location/lookup\"\naccess = \"user\"\n[[gateway.prefixes]]\nprefix = \"/v2/numbers\"\n\
         service = \"location\"\n",
    );
    assert_eq!(check(&path, &app), (true, String::new()));
    let reloaded = app.admin(Method::POST, "/admin/v1/reload").send().await.expect(StatusCode::OK);
    assert_eq!((&reloaded["overrides"], &reloaded["prefixes"]), (&json!(1), &json!(1)), "{reloaded}");
    app.get(LOOKUP).send().await.expect_problem(401, "token_missing");
    app.get("/v2/numbers/lookup?phone=%2B14155552671").send().await.expect_problem(401, "token_missing");
    let document = app.get("/openapi.json").send().await.expect(StatusCode::OK);
    for path in ["/api/v1/location/lookup", "/v2/numbers/lookup"] {
        assert_eq!(document["paths"][path]["get"]["security"], json!([{ "bearer": [] }]), "{path}");
    }

    // A rate, by SIGHUP: what went before is counted too, so the first request may be one too many.
    write(
        &path,
        "[[gateway.routes]]\nmatch = \"GET /api/v1/location/lookup\"\nrate = { per = \"ip\", strategy = \"fixed-window\", limit = 2, window = \"1h\" }\n",
    );
    app.signal("HUP");
    until("the access is as before", async || (app.get(LOOKUP).send().await.status != StatusCode::UNAUTHORIZED).then_some(())).await;
    until("the rate is the operator's", async || (app.get(LOOKUP).send().await.status == StatusCode::TOO_MANY_REQUESTS).then_some(()))
        .await;
    app.get("/v2/numbers/lookup").send().await.expect_problem(404, "not_found");

    // Mistakes: each with its line, and nothing changes.
    write(
        &path,
        "[[gateway.routes]]\nmatch = \"GET /api/v1/location/lokup\"\naccess = \"user\"\n[[gateway.routes]]\nmatch = \"GET /api/v1/location/lookup\"\n\
         timeout = \"29s\"\n",
    );
    let refused = app.admin(Method::POST, "/admin/v1/reload").send().await.expect_problem(422, "settings_refused");
    let said = refused["errors"].to_string();
    let (is_good, checked) = check(&path, &app);
    assert!(!is_good);
    for said in [said, checked] {
        for expect in ["echo.toml, line 1", "did you mean GET /api/v1/location/lookup?", "echo.toml, line 4", "limits.wall"] {
            assert!(said.contains(expect), "{said} does not say {expect}");
        }
    }
    write(&path, "[[gateway.routes]]\nmatch = \"GET /api/v1/location/lookup\"\nacess = \"user\"\n");
    let refused = app.admin(Method::POST, "/admin/v1/reload").send().await.expect_problem(422, "settings_refused");
    assert!(refused["errors"].to_string().contains("echo.toml, line 3"), "{refused}");
    app.get(LOOKUP).send().await.expect_problem(429, "rate_limited");

    // Other settings wait for a restart, and without its entries a route is as its manifest says.
    write(&path, "[gateway]\nrate_scale = 1\n[feed]\ncursors_kept = \"30d\"\n");
    let reloaded = app.admin(Method::POST, "/admin/v1/reload").send().await.expect(StatusCode::OK);
    assert_eq!(reloaded, json!({ "overrides": 0, "prefixes": 0, "after_restart": ["feed.cursors_kept"] }));
    app.get(LOOKUP).send().await.expect(StatusCode::OK);
}

#[tokio::test]
async fn an_override_holds_for_the_frames_that_call_the_same_function() {
    let folder = folder_with(
        "[[gateway.routes]]\nmatch = \"POST /api/v1/messages/typing\"\naccess = \"role:support\"\n\
         rate = { per = \"user\", strategy = \"fixed-window\", limit = 4, window = \"1h\" }\n",
    );
    let services = ["auth", "location", "message", "notification", "user"];
    let app = TestApp::launch_on(folder, "dev", &services, &[("ECHO_GATEWAY__RATE_SCALE", "1")]).await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let typing = json!({ "conversation_id": talk, "is_typing": true });
    app.post("/api/v1/messages/typing", typing.clone()).by(&ada).send().await.expect_problem(403, "role_required");
    let mut socket = app.socket(&ada, None).await;
    // Four are counted at most in the hour, and a fifth is one too many even where the hour begins anew between them.
    let mut codes = Vec::new();
    for _ in 0..10 {
        let answer = socket.ask("typing", typing.clone()).await;
        codes.push(answer["payload"]["code"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(codes[0], "role_required");
    assert_eq!(codes.last().map(String::as_str), Some("rate_limited"));
}
