//! Access for the operator alone: the data folder, the metrics, and a host in development mode.

use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use reqwest::StatusCode;

use crate::app::{TestApp, until};
use crate::backing::Backing;

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
