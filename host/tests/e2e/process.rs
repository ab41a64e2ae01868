//! What the process is to the machine that it runs on: its memory, and the folder that it has for itself.

use std::process::{Command, Output};

use reqwest::StatusCode;

use crate::app::TestApp;

const LOOKUP: &str = "/api/v1/location/lookup?phone=%2B14155552671";

/// Linux says so since 5.0.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn memory_comes_in_small_pages() {
    let app = TestApp::start().await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", app.pid())).expect("it runs");
    let huge_pages = status.lines().find_map(|line| line.strip_prefix("THP_enabled:")).expect("a line of huge pages");
    assert_eq!(huge_pages.trim(), "0");
}

#[tokio::test]
async fn a_data_folder_serves_one_host_at_a_time() {
    let app = TestApp::with(&["location"], &[]).await;
    let mut second = Command::new(env!("CARGO_BIN_EXE_echod"));
    second.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data"]).arg(app.data_folder());
    let Output { status, stderr, .. } = second.output().expect("echod runs");
    let says = String::from_utf8_lossy(&stderr);
    assert!(!status.success() && says.contains("in use by another process") && says.contains("--data"), "{status}: {says}");
    assert!(app.data_folder().join("run/addresses.json").exists(), "the second took away where the first is found");
    app.get(LOOKUP).send().await.expect(StatusCode::OK);
}

/// Said by the allocator itself, which is in the program only where it takes the place of `malloc`.
#[test]
fn the_allocator_is_mimalloc() {
    let Output { stderr, .. } =
        Command::new(env!("CARGO_BIN_EXE_echod")).arg("--version").env("MIMALLOC_VERBOSE", "1").output().expect("echod runs");
    let says = String::from_utf8_lossy(&stderr);
    assert!(says.contains("mimalloc: process init"), "{says}");
}
