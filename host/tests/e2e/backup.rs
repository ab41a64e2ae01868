//! `echod backup` of a host at work and `echod restore`: what was answered before the backup is there again, and the story goes on.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::app::{Person, TestApp, until};

fn echod(arguments: &[&str], paths: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echod"));
    command.args(arguments);
    for (flag, path) in paths {
        if !flag.is_empty() {
            command.arg(flag);
        }
        command.arg(path);
    }
    command.output().expect("echod runs")
}

fn back_up(app: &TestApp, folder: &Path) -> Output {
    echod(&["backup"], &[("", folder), ("--data", &app.data_folder())])
}

fn restore(folder: &Path, data: &Path, more: &[&str]) -> Output {
    echod(&[&["restore"], more].concat(), &[("", folder), ("--data", data)])
}

#[track_caller]
fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn assert_refused(output: &Output, expect: &str) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(expect), "{said:?} does not say {expect:?}");
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files_below(&path)),
            path => found.push(path),
        }
    }
    found
}

/// Sends one message after another until it is told to stop; the ids of those that were answered.
async fn write(url: String, person: Person, conversation: String, stop: CancellationToken) -> Vec<String> {
    let client = reqwest::Client::new();
    let mut answered = Vec::new();
    while !stop.is_cancelled() {
        let message = json!({
            "conversation_id": conversation, "client_message_id": format!("beside-{}", answered.len()), "type": "text", "content": "beside",
        });
        let request = client.post(format!("{url}/api/v1/messages")).bearer_auth(&person.access_token).json(&message);
        let reply = request.send().await.expect("an answer");
        assert_eq!(reply.status(), StatusCode::CREATED);
        let message: Value = reply.json().await.expect("a message");
        answered.push(message["id"].as_str().expect("an id").to_owned());
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_host_at_work_is_whole_and_the_story_goes_on_after_it() {
    let mut app = TestApp::start().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let mut before = Vec::new();
    for _ in 0..20 {
        before.push(app.say(&ada, &talk, "before").await["id"].as_str().expect("an id").to_owned());
    }
    let mut phone = app.socket(&bala, Some(0)).await;
    for _ in 0..before.len() {
        let message = phone.next_of("message").await;
        phone.ack(&message).await;
    }

    let stop = CancellationToken::new();
    let writing = tokio::spawn(write(app.url.clone(), ada.clone(), talk.clone(), stop.clone()));
    // A running host makes it, and answers others meanwhile.
    let folder = app.data.path().join("backups/monday");
    std::fs::create_dir(folder.parent().expect("above it")).expect("a folder");
    let backup = tokio::task::spawn_blocking({
        let (folder, data) = (folder.clone(), app.data_folder());
        move || echod(&["backup"], &[("", &folder), ("--data", &data)])
    });
    assert_done(&backup.await.expect("no panic"));
    stop.cancel();
    let beside = writing.await.expect("it wrote");
    assert!(beside.len() > 2, "nobody wrote meanwhile");
    for path in files_below(&folder) {
        let mode = path.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{} has mode {mode:o}", path.display());
    }
    let seen = app.say(&ada, &talk, "after").await;
    until("the message after the backup", async || {
        let frame = phone.next_of("message").await;
        (frame["payload"]["id"] == seen["id"]).then_some(())
    })
    .await;
    let cursor = phone.cursor();

    let data = app.data_folder();
    assert_refused(&restore(&folder, &data, &["--replace"]), "a host runs");
    app.kill();
    assert_refused(&restore(&folder, &data, &[]), "--replace");
    assert_done(&restore(&folder, &data, &["--replace"]));
    app.restart().await;

    for id in &before {
        app.get(&format!("/api/v1/messages/{id}")).by(&bala).send().await.expect(StatusCode::OK);
    }
    app.get(&format!("/api/v1/messages/{}", seen["id"].as_str().expect("an id"))).by(&bala).send().await.expect(StatusCode::NOT_FOUND);
    let listed = app.get(&format!("/api/v1/messages?conversation_id={talk}&after_seq=0&limit=100")).by(&bala).send().await;
    let listed = listed.expect(StatusCode::OK);
    let seqs: Vec<u64> = listed["items"].as_array().expect("items").iter().filter_map(|item| item["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    // What the device has seen is of a life that never was: it is told to load its state, and gets what is new.
    let mut phone = app.socket(&bala, Some(cursor)).await;
    phone.next_of("resync_required").await;
    let new = app.say(&ada, &talk, "new").await;
    until("the new message", async || {
        let frame = phone.next_of("message").await;
        (frame["payload"]["id"] == new["id"]).then_some(())
    })
    .await;
    assert!(phone.cursor() > cursor);
    phone.ack(&json!({ "seq": phone.cursor() })).await;
    let path = format!("/api/v1/messages/{}/status", new["id"].as_str().expect("an id"));
    until("the receipt", async || {
        let status = app.get(&path).by(&ada).send().await.expect(StatusCode::OK);
        (status["items"][0]["status"] == "delivered").then_some(())
    })
    .await;

    // The same backup again: what was seen after the first time has other numbers than what comes now.
    let cursor = phone.cursor();
    app.kill();
    assert_done(&restore(&folder, &data, &["--replace"]));
    app.restart().await;
    let mut phone = app.socket(&bala, Some(cursor)).await;
    phone.next_of("resync_required").await;
    let newer = app.say(&ada, &talk, "newer").await;
    until("the newer message", async || {
        let frame = phone.next_of("message").await;
        (frame["payload"]["id"] == newer["id"]).then_some(())
    })
    .await;
    assert!(phone.cursor() > cursor);
}

#[tokio::test]
async fn what_is_no_whole_backup_of_this_version_is_not_put_back() {
    let app = TestApp::start().await;
    app.someone().await;
    let (folder, data) = (app.data.path().join("backup"), app.data.path().join("elsewhere/data"));
    assert_done(&back_up(&app, &folder));
    assert_refused(&back_up(&app, &folder), "is not empty");
    let relative = app.admin(Method::POST, "/admin/v1/backup").json(json!({ "folder": "backup" })).send().await;
    relative.expect_problem(422, "folder_invalid");
    assert_refused(&back_up(&app, &app.data_folder().join("backup")), "lie in each other");
    // Of two at once into one folder one is there, whole, and what lies beside them is nobody's to remove.
    let (twice, precious) = (app.data.path().join("twice.of-today"), app.data.path().join("twice.unfinished/precious"));
    std::fs::create_dir_all(&precious).expect("a folder");
    let done = std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| back_up(&app, &twice)));
        both.map(|one| one.join().expect("no panic")).iter().filter(|one| one.status.success()).count()
    });
    assert_eq!(done, 1);
    assert!(precious.exists());
    let beside: Vec<_> = std::fs::read_dir(app.data.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(!beside.iter().any(|name| name.to_string_lossy().starts_with("twice.of-today.")), "{beside:?}");

    let change = |file: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>, expect: &str| {
        let path = folder.join(file);
        let before = std::fs::read(&path).expect("a file of the backup");
        std::fs::write(&path, change(before.clone())).expect("changed");
        assert_refused(&restore(&folder, &data, &[]), expect);
        std::fs::write(&path, before).expect("as it was");
    };
    change(
        "feed.sqlite",
        &|mut bytes| {
            bytes[5_000] ^= 1;
            bytes
        },
        "was changed",
    );
    change("backup.json", &|_| b"{".to_vec(), "is no backup");
    let later = |bytes: Vec<u8>| {
        let mut index: Value = serde_json::from_slice(&bytes).expect("JSON");
        index["version"] = json!("99.0.0");
        index.to_string().into_bytes()
    };
    change("backup.json", &later, "99.0.0");
    let other_format = |bytes: Vec<u8>| String::from_utf8(bytes).expect("JSON").replace("\"format\": 1", "\"format\": 2").into_bytes();
    change("backup.json", &other_format, "has format 2, and this echod reads 1");
    let without_feed = |bytes: Vec<u8>| {
        let mut index: Value = serde_json::from_slice(&bytes).expect("JSON");
        index["files"].as_object_mut().expect("files").remove("feed.sqlite");
        index.to_string().into_bytes()
    };
    change("backup.json", &without_feed, "does not name feed.sqlite");
    assert_refused(&restore(&folder, &folder, &["--replace"]), "lie in each other");
    assert_refused(&restore(&folder, &folder.join("below"), &[]), "lie in each other");
    std::fs::rename(folder.join("keys"), folder.join("gone")).expect("renamed");
    assert_refused(&restore(&folder, &data, &[]), "is no backup");
    std::fs::rename(folder.join("gone"), folder.join("keys")).expect("renamed back");
    assert!(!data.exists(), "nothing was put anywhere");
    assert_done(&restore(&folder, &data, &[]));
    // A link stays one.
    let link = app.data.path().join("link");
    std::os::unix::fs::symlink(&data, &link).expect("a link");
    assert_done(&restore(&folder, &link, &["--replace"]));
    assert!(link.is_symlink() && data.join("feed.sqlite").exists());
}
