//! `echod migrate`: the data of a host at work moves to PostgreSQL; people go on where they were.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use echo_engines::postgres::Database;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::app::{ALL, Person, TestApp, new_database, on_postgres, until};
use crate::backing::shared_by_hosts;
use crate::media;

/// What the hosts on the database are started with: the keys that are derived from secrets are those of the host before.
fn settings_on(database: &Database, data: &Path) -> Vec<(String, String)> {
    let mut settings = on_postgres(database).to_vec();
    for (setting, file) in [("ECHO_PASSWORDS__FINGERPRINT_KEY", "fingerprint.key"), ("ECHO_SERVER__CURSOR_KEY", "cursor.key")] {
        settings.push((setting.to_owned(), format!("file:{}", data.join("secrets").join(file).display())));
    }
    settings
}

fn echod(arguments: &[&str], settings: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echod"));
    command.args(arguments).envs(settings.iter().map(|(key, value)| (key, value))).stdin(Stdio::null());
    command
}

fn migrate(data: &Path, settings: &[(String, String)]) -> Command {
    echod(&["migrate", "--from", &format!("sqlite:{}", data.display())], settings)
}

#[track_caller]
fn done(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[track_caller]
fn refused(output: Output, expect: &str) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(expect), "{said:?} does not say {expect:?}");
}

/// Sends one message after another until the host is gone; those that were answered.
async fn write(url: String, person: Person, conversation: String, stop: CancellationToken) -> Vec<String> {
    let client = reqwest::Client::new();
    let mut answered = Vec::new();
    while !stop.is_cancelled() {
        let message = json!({
            "conversation_id": conversation, "client_message_id": format!("during-{}", answered.len()), "type": "text", "content": "during",
        });
        let sent = client.post(format!("{url}/api/v1/messages")).bearer_auth(&person.access_token).json(&message).send().await;
        match sent {
            Ok(reply) if reply.status() == StatusCode::CREATED => {
                let message: Value = reply.json().await.expect("a message");
                answered.push(message["id"].as_str().expect("an id").to_owned());
            }
            _ => break,
        }
        // Few enough that a device reads all of them soon.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    answered
}

async fn unread(app: &TestApp, person: &Person, conversation: &str) -> Value {
    app.get(&format!("/api/v1/messages/conversations/{conversation}")).by(person).send().await.expect(StatusCode::OK)["unread_count"]
        .clone()
}

fn start_with(app: &mut TestApp, settings: &[(String, String)]) {
    settings.iter().for_each(|(key, value)| app.set(key, value));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_at_work_moves_to_postgresql_and_everybody_goes_on_where_they_were() {
    let mut app = TestApp::with(&ALL, &[]).await;
    let database = new_database();
    let data = app.data_folder();
    let (ada, bala, cleo) = (app.someone().await, app.someone().await, app.someone().await);
    let talk = app.group(&ada, &[&bala, &cleo]).await;
    let mut phone = app.socket(&bala, Some(0)).await;
    let laptop = app.log_in(&bala, "laptop").await;
    let mut before = Vec::new();
    for number in 0..30 {
        before.push(app.say(&ada, &talk, &format!("before {number}")).await["id"].as_str().expect("an id").to_owned());
        if number < 10 {
            let message = phone.next_of("message").await;
            phone.ack(&message).await;
        }
    }
    app.put(&format!("/api/v1/messages/{}/reactions/%F0%9F%91%8D", before[3]), json!({})).by(&cleo).send().await;
    app.delete(&format!("/api/v1/messages/{}?for=everyone", before[4])).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    until("the receipts", async || {
        let status = app.get(&format!("/api/v1/messages/{}/status", before[9])).by(&ada).send().await.expect(StatusCode::OK);
        status["items"].as_array()?.iter().any(|item| item["status"] == "delivered").then_some(())
    })
    .await;
    app.post("/api/v1/messages/read", json!({ "conversation_id": talk, "up_to_seq": 5 })).by(&bala).send().await;
    let picture = media::form(&app, &ada, "a.png", "image/png", &media::png(8, b"")).send().await.expect(StatusCode::CREATED);
    let page = app.get(&format!("/api/v1/messages?conversation_id={talk}&limit=5")).by(&bala).send().await.expect(StatusCode::OK);
    let page_cursor = page["next_cursor"].clone();
    let unread_before = unread(&app, &cleo, &talk).await.as_u64().expect("a number");
    let cursor = phone.cursor();
    let named = json!({ "name": "ci", "scopes": ["read"] });
    let named = app.admin(Method::POST, "/admin/v1/tokens").json(named).send().await.expect(StatusCode::CREATED);

    // Keys that are another's are refused before anything is done.
    let without_keys = on_postgres(&database).to_vec();
    refused(migrate(&data, &without_keys).output().expect("echod runs"), "passwords.fingerprint_key = \"file:");
    let mut settings = settings_on(&database, &data);
    let stop = CancellationToken::new();
    let writing = tokio::spawn(write(app.url.clone(), ada.clone(), talk.clone(), stop.clone()));
    settings.extend(tokio::task::spawn_blocking(shared_by_hosts).await.expect("no panic"));
    // The files stay in the data folder.
    settings.retain(|(key, _)| !key.starts_with("ECHO_BLOB__"));
    let moving = tokio::task::spawn_blocking({
        let (data, settings) = (data.clone(), settings.clone());
        move || migrate(&data, &settings).output().expect("echod runs")
    });
    let said = done(moving.await.expect("no panic"));
    stop.cancel();
    let during = writing.await.expect("it wrote");
    assert!(said.contains("on both sides") && said.contains("nobody could write for"), "{said}");
    assert!(!said.contains(database.url()), "{said}");
    println!("{} messages were answered meanwhile\n{said}", during.len());
    app.ended().await;

    refused(
        echod(&["serve", "--check", "--data", &data.display().to_string()], &[]).output().expect("echod runs"),
        "was moved to postgres://",
    );
    let again = migrate(&data, &settings).output().expect("echod runs");
    assert!(done(again).contains("the data is in postgres://"));
    // To another database: nothing of the folder is touched, and what was put aside stays.
    let elsewhere = new_database();
    let mut wrong = settings.clone();
    wrong.extend(on_postgres(&elsewhere));
    let kept = std::fs::metadata(data.join("moved/feed.sqlite")).expect("it is put aside").len();
    refused(migrate(&data, &wrong).output().expect("echod runs"), "was moved to postgres://");
    assert!(!data.join("feed.sqlite").exists() && std::fs::metadata(data.join("moved/feed.sqlite")).is_ok_and(|file| file.len() == kept));
    start_with(&mut app, &settings);
    app.restart().await;

    // The token from before, which signs nothing new, and what it opens.
    let me = app.get("/api/v1/users/me").by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!(me["id"], ada.id.as_str());
    let refreshed = app.post("/api/v1/auth/refresh", json!({ "refresh_token": ada.refresh_token })).send().await;
    assert_eq!(refreshed.status, StatusCode::OK, "{:?}", refreshed.body);
    // Unread messages are counted up to a thousand.
    assert_eq!(unread(&app, &cleo, &talk).await.as_u64(), Some((unread_before + during.len() as u64).min(1_000)));
    let listed =
        app.get(&format!("/api/v1/messages?conversation_id={talk}&after_seq=0&limit=100")).by(&bala).send().await.expect(StatusCode::OK);
    let seqs: Vec<u64> = listed["items"].as_array().expect("items").iter().filter_map(|item| item["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    let deleted = listed["items"].as_array().expect("items").iter().find(|item| item["id"] == before[4].as_str()).expect("its place");
    assert!(deleted["deleted_at"].is_string() && deleted["content"].is_null(), "{deleted}");
    for id in during.iter().chain(&before[5..]) {
        app.get(&format!("/api/v1/messages/{id}")).by(&cleo).send().await.expect(StatusCode::OK);
    }
    if page_cursor.is_string() {
        let page = app.get(&format!("/api/v1/messages?conversation_id={talk}&limit=5&cursor={}", page_cursor.as_str().expect("text")));
        page.by(&bala).send().await.expect(StatusCode::OK);
    }
    let content = app.get(&format!("/api/v1/media/{}/content", picture["id"].as_str().expect("an id"))).by(&ada).send().await;
    assert_eq!(content.status, StatusCode::OK);

    // The old cursor goes on without a gap: `Socket` checks every number.
    let mut phone = app.socket(&bala, Some(cursor)).await;
    let mut seen = Vec::new();
    while seen.len() < 20 + during.len() {
        seen.push(phone.next_of("message").await["payload"]["id"].as_str().expect("an id").to_owned());
    }
    phone.send(json!({ "type": "ack", "payload": { "seq": phone.cursor() } })).await;
    assert_eq!(seen, before[10..].iter().chain(&during).cloned().collect::<Vec<_>>());
    let mut other = app.socket(&laptop, Some(0)).await;
    assert_eq!(other.next_of("message").await["payload"]["id"], before[0].as_str());
    let new = app.say(&ada, &talk, "after").await;
    let message = until("the new message", async || {
        let message = phone.next_of("message").await;
        (message["payload"]["id"] == new["id"]).then_some(message)
    })
    .await;
    phone.ack(&message).await;
    for id in [new["id"].as_str().expect("an id"), &before[29]] {
        until("the receipt", async || {
            let status = app.get(&format!("/api/v1/messages/{id}/status")).by(&ada).send().await.expect(StatusCode::OK);
            status["items"]
                .as_array()?
                .iter()
                .any(|item| item["user_id"] == bala.id.as_str() && item["status"] == "delivered")
                .then_some(())
        })
        .await;
    }
    // A person that comes new.
    app.someone().await;
    // Operators' tokens went along.
    let request = app.client.get(format!("{}/admin/v1/nodes", app.admin_url)).bearer_auth(named["token"].as_str().expect("a token"));
    assert_eq!(request.send().await.expect("answers").status(), StatusCode::OK);
}

/// A connection that holds the lock under which versions are written (`versions::postgres::LOCK`): a move waits there, with all rows copied.
struct Held(Child);

impl Held {
    fn take(database: &Database) -> Self {
        let mut psql = Command::new("psql")
            .args(["-qAt", "-d", database.url()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("psql is there");
        let stdin = psql.stdin.as_mut().expect("piped");
        writeln!(stdin, "SELECT 'held' FROM pg_advisory_lock({});", 0x4563_686f_0005_i64).expect("psql reads");
        let mut line = String::new();
        BufReader::new(psql.stdout.take().expect("piped")).read_line(&mut line).expect("psql answers");
        assert_eq!(line.trim(), "held");
        Self(psql)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_was_killed_serves_from_neither_side_and_begins_anew_and_there_is_a_way_back() {
    let mut app = TestApp::with(&ALL, &[]).await;
    let database = new_database();
    let data = app.data_folder();
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let message = app.say(&ada, &talk, "before").await;
    let path = format!("/api/v1/messages/{}", message["id"].as_str().expect("an id"));
    let settings = settings_on(&database, &data);

    let held = Held::take(&database);
    let mut moving = migrate(&data, &settings).stdout(Stdio::piped()).spawn().expect("echod runs");
    // The last of the tables is compared.
    let lines = BufReader::new(moving.stdout.take().expect("piped")).lines();
    let last = lines.map(|line| line.expect("text")).find(|line| line.starts_with("user.reports:"));
    assert!(last.is_some(), "it ended before");
    moving.kill().expect("it waits for the lock");
    moving.wait().expect("a killed process ends");
    drop(held);
    app.ended().await;

    let on_files =
        || echod(&["serve", "--data", &data.display().to_string(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"], &[]);
    refused(on_files().output().expect("echod runs"), "is being moved to postgres://");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let on_database = |settings: &[(String, String)]| {
        echod(
            &["serve", "--data", &elsewhere.path().display().to_string(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"],
            settings,
        )
    };
    refused(on_database(&settings).output().expect("echod runs"), "half filled");

    let said = done(migrate(&data, &settings).output().expect("echod runs"));
    assert!(said.contains("was cut off"), "{said}");
    let before: Vec<(String, String)> = settings.iter().map(|(key, _)| (key.clone(), String::new())).collect();
    start_with(&mut app, &settings);
    app.restart().await;
    app.get(&path).by(&bala).send().await.expect(StatusCode::OK);
    let lost = app.say(&ada, &talk, "on PostgreSQL").await;
    // Not onto a database with data.
    let other = TestApp::with(&["auth"], &[]).await;
    refused(migrate(&other.data_folder(), &settings_on(&database, &other.data_folder())).output().expect("echod runs"), "was filled from");

    let used = new_database();
    let made =
        Command::new("psql").args(["-qAt", "-d", used.url(), "-c", "CREATE TABLE invoices (id INT)"]).status().expect("psql is there");
    assert!(made.success());
    refused(migrate(&other.data_folder(), &settings_on(&used, &other.data_folder())).output().expect("echod runs"), "public.invoices");

    let back = || echod(&["migrate", "back", "--data", &data.display().to_string()], &[]).output().expect("echod runs");
    refused(back(), "a host runs on");
    app.terminate().await;
    done(back());
    start_with(&mut app, &before);
    app.restart().await;
    app.get(&path).by(&bala).send().await.expect(StatusCode::OK);
    app.get(&format!("/api/v1/messages/{}", lost["id"].as_str().expect("an id"))).by(&bala).send().await.expect(StatusCode::NOT_FOUND);
    let mut phone = app.socket(&bala, Some(1)).await;
    phone.next_of("resync_required").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_are_applied_without_a_host() {
    let app = TestApp::with(&["user"], &[]).await;
    let database = new_database();
    let plugins = app.plugins().display().to_string();
    let empty = tempfile::tempdir().expect("a folder");
    let folder = empty.path().display().to_string();
    for settings in [on_postgres(&database).to_vec(), Vec::new()] {
        let run =
            |what: &str| done(echod(&["migrate", what, "--data", &folder, "--plugins", &plugins], &settings).output().expect("echod runs"));
        let engine = if settings.is_empty() { "sqlite" } else { "postgres" };
        let status = run("status");
        assert!(status.contains(engine) && status.contains("0001_profiles") && status.contains("outstanding"), "{status}");
        assert!(run("up").contains("user: 0001_profiles is applied"));
        let status = run("status");
        assert!(!status.contains("outstanding") && status.contains("applied"), "{status}");
        assert!(run("up").contains("0 migrations were outstanding"));
    }
    let busy = echod(&["migrate", "status", "--data", &app.data_folder().display().to_string(), "--plugins", &plugins], &[]);
    let mut busy = busy;
    refused(busy.output().expect("echod runs"), "a host runs on");
}
