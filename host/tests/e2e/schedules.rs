//! `[[schedule]]`: functions that the host calls by the clock, without anybody asking.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;

use crate::app::{TestApp, until};
use crate::candidate::repacked;

const EVERY: Duration = Duration::from_millis(200);

/// The test service with these functions called every `EVERY`.
async fn deploy(app: &TestApp, version: &str, calls: &[&str]) {
    deploy_with(app, version, calls, &[]).await;
}

/// ... and with other replacements in its manifest.
async fn deploy_with(app: &TestApp, version: &str, calls: &[&str], manifest: &[(&str, &str)]) {
    let every = EVERY.as_millis();
    let schedules: String = calls.iter().map(|call| format!("[[schedule]]\ncall = \"{call}\"\nevery = \"{every}ms\"\n\n")).collect();
    let (version, schedules) = (format!("version = \"{version}\""), format!("{schedules}[events]"));
    let own = [("version = \"0.1.0\"", version.as_str()), ("[events]", schedules.as_str())];
    app.deploy("hostile", repacked("hostile", &[&own, manifest].concat())).await.expect(StatusCode::OK);
}

/// How often `mark` was called: each call leaves a row.
async fn marks(app: &TestApp) -> u64 {
    app.get("/api/v1/hostile/marks").send().await.expect(StatusCode::OK)["count"].as_u64().expect("a number")
}

async fn until_marks(app: &TestApp, count: u64) {
    until("the scheduled function was called", async || (marks(app).await >= count).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_function_is_called_again_and_again_and_not_too_often() {
    let app = TestApp::with(&["hostile"], &[]).await;
    assert_eq!(marks(&app).await, 0);
    let begin = Instant::now();
    deploy(&app, "0.1.1", &["mark"]).await;
    until_marks(&app, 5).await;
    let (called, periods) = (marks(&app).await, begin.elapsed().as_millis() / EVERY.as_millis());
    assert!(u128::from(called) <= periods + 1, "{called} calls within {periods} periods");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_function_that_traps_is_called_again_and_holds_up_no_other() {
    let app = TestApp::with(&["hostile"], &[]).await;
    // Half of its calls trap; more would take the version back.
    deploy(&app, "0.1.1", &["mark", "trap"]).await;
    until_marks(&app, 4).await;
    until("it is called after a trap", async || (app.log().matches("the service panicked").count() >= 3).then_some(())).await;
    app.post("/api/v1/hostile/fine", json!({})).send().await.expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_not_over_is_not_made_a_second_time() {
    let app = TestApp::with(&["hostile"], &[]).await;
    // It runs until there is a mark. With a slot for one more, a second call at the same time would leave none to anybody else.
    let limits = [("concurrency = 16", "concurrency = 2"), ("cpu = \"150ms\"", "cpu = \"10s\"")];
    deploy_with(&app, "0.1.1", &["wait-for-mark"], &limits).await;
    let begin = Instant::now();
    while begin.elapsed() < 6 * EVERY {
        app.post("/api/v1/hostile/fine", json!({})).send().await.expect(StatusCode::OK);
    }
    app.post("/api/v1/hostile/mark", json!({})).send().await.expect(StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_follow_the_live_version() {
    let app = TestApp::with(&["hostile"], &[]).await;
    deploy(&app, "0.1.1", &["mark"]).await;
    until_marks(&app, 2).await;
    deploy(&app, "0.1.2", &[]).await;
    // A call may have begun on the version before.
    let after = marks(&app).await + 1;
    // Nothing can be waited for here: what is shown is that nothing comes.
    tokio::time::sleep(5 * EVERY).await;
    assert!(marks(&app).await <= after, "the new version has no schedule");
    deploy(&app, "0.1.3", &["mark"]).await;
    until_marks(&app, after + 2).await;
}
