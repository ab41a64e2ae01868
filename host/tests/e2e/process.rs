//! The process on its machine: its memory, its open files, and its data folder.

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

/// A host started by a shell with these limits of open files; its process's own limits, and its log.
#[cfg(target_os = "linux")]
fn limits_of_a_host(ulimit: &str) -> (String, String) {
    let data = tempfile::tempdir().expect("a folder");
    let (log, addresses) = (data.path().join("log"), data.path().join("data/run/addresses.json"));
    let command = format!("{ulimit} && exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        &command,
        env!("CARGO_BIN_EXE_echod"),
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--data",
    ]);
    let file = std::fs::File::create(&log).expect("a log");
    shell.arg(data.path().join("data")).stdout(file.try_clone().expect("a handle")).stderr(file);
    let mut host = shell.spawn().expect("a shell");
    let until = std::time::Instant::now() + crate::app::PATIENCE;
    while !addresses.exists() && std::time::Instant::now() < until && host.try_wait().expect("our own child").is_none() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", host.id())).unwrap_or_default();
    host.kill().expect("it runs");
    host.wait().expect("it ends");
    (limits, std::fs::read_to_string(log).expect("a log"))
}

#[cfg(target_os = "linux")]
#[test]
fn as_many_files_may_be_open_as_the_system_allows_and_connections_follow() {
    let open_files = |limits: &str| -> (String, String) {
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_else(|| panic!("no limits: {limits}"));
        let mut values = line.trim_start_matches("Max open files").split_whitespace();
        (values.next().expect("soft").to_owned(), values.next().expect("hard").to_owned())
    };
    let (limits, _) = limits_of_a_host("ulimit -Sn 256");
    let (soft, hard) = open_files(&limits);
    assert!(soft == hard && soft != "256", "{limits}");

    let (limits, log) = limits_of_a_host("ulimit -n 2000");
    assert_eq!(open_files(&limits), ("2000".to_owned(), "2000".to_owned()));
    for says in ["fewer connections are taken than configured", "\"connections_max\":1000", "LimitNOFILE"] {
        assert!(log.contains(says), "{says} is missing in\n{log}");
    }
}

/// Said by the allocator itself, which is in the program only where it takes the place of `malloc`.
#[test]
fn the_allocator_is_mimalloc() {
    let Output { stderr, .. } =
        Command::new(env!("CARGO_BIN_EXE_echod")).arg("--version").env("MIMALLOC_VERBOSE", "1").output().expect("echod runs");
    let says = String::from_utf8_lossy(&stderr);
    assert!(says.contains("mimalloc: process init"), "{says}");
}
