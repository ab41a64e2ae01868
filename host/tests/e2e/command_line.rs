//! The command line as people and programs use it: exit statuses, JSON, colours, completions, pages of the manual.

use std::path::Path;
use std::process::{Command, Output};

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::app::{TestApp, packed};
use crate::candidate::{Candidate, repacked};

fn echod(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echod"));
    command.args(arguments).current_dir(std::env::temp_dir()).env_remove("CLICOLOR_FORCE").env_remove("NO_COLOR");
    command
}

fn run(arguments: &[&str]) -> Output {
    echod(arguments).output().expect("echod runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn ends_with(output: &Output, status: i32, says: &str) {
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(status) && said.contains(says), "{}: {said}{}", output.status, text(&output.stdout));
}

#[track_caller]
fn json(output: &Output) -> Value {
    ends_with(output, 0, "");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

#[tokio::test]
async fn the_exit_status_says_whose_fault_it_is() {
    let app = TestApp::with(&["location"], &[]).await;
    let data = app.data_folder().display().to_string();
    let empty = tempfile::tempdir().expect("a folder");
    let nowhere = empty.path().display().to_string();
    ends_with(&run(&["plugin", "list", "--data", &data]), 0, "");
    ends_with(&run(&["plugin", "inspect", "/nowhere.wasm"]), 1, "/nowhere.wasm");
    ends_with(&run(&["fly"]), 2, "fly");
    ends_with(&run(&["plugin", "history", "No Name", "--data", &data]), 2, "name");
    ends_with(&run(&["plugin", "list", "--admin", "127.0.0.1:9090", "--token", "t"]), 2, "address");
    ends_with(&echod(&["serve", "--check"]).env("ECHO_SERVER__LISTN", "x").output().expect("echod runs"), 2, "listen");
    ends_with(&run(&["plugin", "rollback", "location", "--data", &data]), 3, "nothing_to_roll_back");
    ends_with(&run(&["token", "end", "nobody", "--data", &data]), 3, "nobody");
    ends_with(&run(&["plugin", "list", "--data", &nowhere]), 4, "no host");
    ends_with(&run(&["plugin", "list", "--admin", "http://127.0.0.1:1", "--token", "t"]), 4, "does not answer");
    ends_with(&run(&["ready", "--data", &nowhere]), 4, "no host");
    for page in [text(&run(&["--help"]).stdout), std::fs::read_to_string(manual(empty.path())).expect("a page")] {
        assert!(["Exit status:", "2  the command line or the settings are wrong"].iter().all(|part| page.contains(part)), "{page}");
    }
}

fn manual(folder: &Path) -> std::path::PathBuf {
    let pages = folder.join("man1");
    ends_with(&run(&["man", &pages.display().to_string()]), 0, "");
    pages.join("echod.1")
}

#[tokio::test]
async fn what_is_a_table_is_json_on_demand() {
    let app = TestApp::with(&["location"], &[]).await;
    let data = app.data_folder().display().to_string();
    let ask = |words: &str| {
        let words: Vec<&str> = words.split(' ').chain(["--data", &data, "--json"]).collect();
        json(&run(&words))
    };
    let made = ask("token new ci --scope read");
    assert!(made["token"].as_str().expect("a token").starts_with("echo_op_"), "{made}");
    assert_eq!(ask("token list")["items"][0]["name"], "ci");
    assert_eq!(ask("plugin list")["items"][0]["name"], "location");
    assert_eq!(ask("plugin history location")["items"][0]["action"], "start");
    let audit = ask("token audit");
    assert_eq!(audit["items"][0]["request"], "POST /admin/v1/tokens", "{audit}");
    assert_eq!(ask("token end ci")["ended"], "ci");
    // As the operator's API answers.
    let list = app.admin(Method::GET, "/admin/v1/plugins").send().await.expect(StatusCode::OK);
    assert_eq!(ask("plugin list")["items"][0]["sha256"], list["items"][0]["sha256"]);

    let file = packed("location").display().to_string();
    let inspected = json(&run(&["plugin", "inspect", &file, "--json"]));
    assert_eq!((&inspected["name"], &inspected["routes"][0]["call"]), (&"location".into(), &"lookup".into()), "{inspected}");
    // What cannot be written was not said.
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there");
    ends_with(&echod(&["plugin", "inspect", &file]).stdout(full).output().expect("echod runs"), 1, "standard output");
    let plain = text(&run(&["plugin", "inspect", &file]).stdout);
    assert!(plain.contains("GET    /api/v1/location/lookup  lookup  (public)") && plain.contains("calls at once"), "{plain}");
}

#[tokio::test]
async fn what_differs_and_what_the_gate_says_are_known_before_a_deployment() {
    let app = TestApp::with(&["location"], &[]).await;
    let data = app.data_folder().display().to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path.display().to_string()
    };
    let rate = "limit = 60, window = \"1m\"";
    let good =
        file("good.wasm", &repacked("location", &[("version = \"0.1.0\"", "version = \"0.1.1\""), (rate, "limit = 30, window = \"1m\"")]));
    let looser = file(
        "looser.wasm",
        &repacked("location", &[("version = \"0.1.0\"", "version = \"0.1.2\""), (rate, "limit = 90, window = \"1m\"")]),
    );
    let broken = Candidate::of("location").contract("valid: bool,", "valid: string,").contract("/// @length ..=64", "/// @length ..=32");
    let broken = file("broken.wasm", &broken.packed());
    let plugin = |words: &[&str]| run(&[&["plugin"], words, &["--data", &data]].concat());

    ends_with(&plugin(&["verify", &good]), 0, "");
    ends_with(&plugin(&["verify", &looser]), 3, "wants --allow \"route-rate:GET /api/v1/location/lookup\"");
    let planned = plugin(&["verify", &looser, "--json"]);
    ends_with(&planned, 3, "");
    let planned: Value = serde_json::from_slice(&planned.stdout).expect("the plan is JSON");
    assert_eq!(planned["plan"]["changes"][0]["name"], "route-rate:GET /api/v1/location/lookup", "{planned}");
    ends_with(&plugin(&["verify", &looser, "--allow", "route-rate:GET /api/v1/location/lookup"]), 0, "");
    ends_with(&plugin(&["verify", &broken]), 3, "reply.valid was bool and is string");
    let garbage = plugin(&["verify", &file("garbage.wasm", b"garbage")]);
    ends_with(&garbage, 1, "this is no WebAssembly");
    assert!(!text(&garbage.stderr).contains('['), "{}", text(&garbage.stderr));
    let list = || app.admin(Method::GET, "/admin/v1/plugins/location").send();
    let before = list().await.expect(StatusCode::OK);
    assert_eq!((&before["active"], before["versions"].to_string().contains("0.1.1")), (&"0.1.0".into(), false), "nothing was kept");

    let said = |words: &[&str]| {
        let output = plugin(&[&["diff"], words].concat());
        ends_with(&output, 0, "");
        text(&output.stdout)
    };
    let running = packed("location").display().to_string();
    assert_eq!(said(&[&running]), "location 0.1.0 -> 0.1.0\n  the same manifest and contracts\n");
    let differs = said(&[&broken]);
    for part in [
        "location 0.1.0 -> 0.1.1\n",
        "\n  - echo:location, interface api, record location: valid: bool\n",
        "\n  + echo:location, interface api, record location: valid: string\n",
        "record lookup-request: phone: string @length ..=32",
        "\n  refused: echo:location/api@0.1.0, lookup: reply.valid was bool and is string",
    ] {
        assert!(differs.contains(part), "{part:?} is missing in\n{differs}");
    }
    ends_with(&plugin(&["diff", "location"]), 1, "say which version: `echod plugin diff location 0.1.0`");
    let two = json(&plugin(&["diff", "location", &good, &looser, "--json"]));
    assert_eq!(two["changes"][0]["name"], "route-rate:GET /api/v1/location/lookup", "{two}");
    assert!(two["removed"][0].as_str().is_some_and(|line| line.contains("30 per 60000 ms")), "{two}");

    // Versions that the host keeps.
    ends_with(&plugin(&["deploy", &good]), 0, "");
    assert!(said(&["location", "0.1.0"]).starts_with("location 0.1.1 -> 0.1.0\n"));
    assert!(said(&["location", "0.1.0", "live"]).starts_with("location 0.1.0 -> 0.1.1\n"));
    ends_with(&plugin(&["diff", "location", "9.9.9"]), 3, "no_such_version");
    ends_with(&plugin(&["diff", "nothing", "live", "live"]), 3, "no_such_service");
    ends_with(&plugin(&["diff", "message", &good, &good]), 1, "is a version of location");
}

#[tokio::test]
async fn colours_are_for_terminals_alone() {
    let app = TestApp::with(&["location"], &[]).await;
    let data = app.data_folder().display().to_string();
    let list = || echod(&["plugin", "list", "--data", &data]);
    let said = |mut command: Command| text(&command.output().expect("echod runs").stdout);
    let plain = said(list());
    assert!(plain.starts_with("SERVICE") && plain.contains("live") && !plain.contains('\u{1b}'), "{plain:?}");
    let mut forced = list();
    forced.env("CLICOLOR_FORCE", "1");
    assert!(said(forced).contains("\u{1b}[32mlive"), "as on a terminal");
    let mut declined = list();
    declined.env("NO_COLOR", "1");
    assert_eq!(said(declined), plain);
}

#[test]
fn shells_and_the_manual_know_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        ends_with(&output, 0, "");
        let script = folder.path().join(shell);
        std::fs::write(&script, &output.stdout).expect("written");
        assert!(
            ["doctor", "rollback", "--dry-run"].iter().all(|word| text(&output.stdout).contains(word.trim_start_matches('-'))),
            "{shell}"
        );
        // The shell itself reads it, where it is installed.
        if let Ok(read) = Command::new(shell).arg("-n").arg(&script).output() {
            assert!(read.status.success(), "{shell}: {}", text(&read.stderr));
        }
    }
    // A reader that has seen enough is no error.
    let closed =
        Command::new("sh").args(["-c", "\"$0\" completions bash | head -n 1", env!("CARGO_BIN_EXE_echod")]).output().expect("a shell");
    assert!(closed.status.success() && closed.stderr.is_empty(), "{}", text(&closed.stderr));
    let first = manual(folder.path());
    for page in ["echod-doctor.1", "echod-plugin-deploy.1", "echod-token-audit.1"] {
        let text = std::fs::read_to_string(first.with_file_name(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
}
