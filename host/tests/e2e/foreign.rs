//! A service in a language whose components import WASI whether they use it or not: it runs, and WASI is empty.

use std::path::Path;
use std::time::{Duration, Instant};

use echo_contract::wit::wit_text;
use echo_runtime::artifact::pack;
use reqwest::{Method, StatusCode};
use serde_json::json;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::app::{TestApp, until};

const MANIFEST: &str = r#"
name = "foreign"
version = "0.1.0"
prefix = "/api/v1/foreign"

[[route]]
http = "GET /look"
call = "look"
access = "public"
rate = { per = "ip", strategy = "token-bucket", limit = 600, window = "1m" }

[[route]]
http = "POST /hoard"
call = "hoard"
access = "public"
rate = { per = "ip", strategy = "token-bucket", limit = 600, window = "1m" }
"#;

fn packed() -> Vec<u8> {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wit");
    let mut resolve = Resolve::new();
    let (package, _) = resolve.push_dir(&wit).unwrap_or_else(|error| panic!("{error:#}"));
    let world = resolve.select_world(&[package], Some("foreign")).expect("the world is there");
    let mut module = wat::parse_str(include_str!("foreign/look.wat")).unwrap_or_else(|error| panic!("{error}"));
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("embeds");
    let component = ComponentEncoder::default().module(&module).expect("a module").validate(true).encode();
    let component = component.unwrap_or_else(|error| panic!("{error:#}"));
    let text = wit_text(&wit, "foreign").expect("the contracts print");
    pack(&component, MANIFEST, &text, &[]).expect("it packs")
}

#[tokio::test]
async fn what_wasi_offers_leads_nowhere() {
    let app = TestApp::with(&["location"], &[]).await;
    app.deploy("foreign", packed()).await.expect(StatusCode::OK);
    let found = app.get("/api/v1/foreign/look").send().await.expect(StatusCode::OK);
    let nothing = json!({
        "environment": 0, "arguments": 0, "folders": 0, "has_folder": false,
        "tcp": "access_denied", "udp": "access_denied", "lookup": "no_resolver",
    });
    assert_eq!(found, nothing);

    // What it prints is lines of the log under its name, and nothing that could be taken for another's.
    let lines = until("what it printed", async || {
        let log = app.log();
        let lines: Vec<String> =
            log.lines().filter(|line| line.contains("of another language") || line.contains("pretends")).map(str::to_owned).collect();
        (lines.len() >= 2).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in lines {
        assert!(line.contains("guest") && line.contains("service=foreign") && !line.contains(['\u{1b}', '\r']), "{line:?}");
    }
}

#[tokio::test]
async fn who_hoards_what_wasi_offers_is_ended() {
    let app = TestApp::with(&["location"], &[]).await;
    app.deploy("foreign", packed()).await.expect(StatusCode::OK);
    for _ in 0..3 {
        let begin = Instant::now();
        app.request(Method::POST, "/api/v1/foreign/hoard").json(json!({})).send().await.expect_problem(500, "service_failed");
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        app.get("/api/v1/foreign/look").send().await.expect(StatusCode::OK);
    }
}
