//! The power goes, again and again, while people write, register and delete: what was answered is there afterwards, every feed is without a gap, and
//! each device was given what the feed says.
//!
//! The data folder lies on a disk that forgets what was not flushed (`disk`). `ECHO_POWER_CUTS=200` cuts two hundred times instead of `CUTS`:
//! `ECHO_POWER_CUTS=200 cargo test -p echod --test e2e power -- --nocapture`.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::app::{Person, TestApp, data_folder, unused_phone};
use crate::kill::{LIFE_MS, SERVICES, SETTINGS, people_write_while_the_host_is_killed};
use disk::Disk;

mod disk;

/// As many as there is time for in each run of the tests.
const CUTS: usize = 20;
const PASSWORD: &str = "correct horse battery 7";
const MESSAGES: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_answered_is_lost_with_the_power() {
    let cuts = std::env::var("ECHO_POWER_CUTS").ok().map_or(CUTS, |cuts| cuts.parse().expect("ECHO_POWER_CUTS is a number"));
    let (mut disk, mut app, folder) = host_on_a_disk().await;
    let (addresses, _) = watch::channel(vec![app.url.clone()]);
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let done = Arc::new(Mutex::new(Done::default()));
    let chores = tokio::spawn(register_and_delete(addresses.subscribe(), ada.clone(), talk, done.clone()));
    people_write_while_the_host_is_killed(&mut app, &addresses, (cuts, LIFE_MS), |random| {
        disk.power_off(random);
        disk.power_on(&folder);
    })
    .await;
    chores.abort();

    let Done { registered, deleted } = std::mem::take(&mut *done.lock());
    println!("{} registered, {} messages deleted", registered.len(), deleted.len());
    assert!(!registered.is_empty() && !deleted.is_empty(), "the power went before anybody was answered");
    for phone in registered {
        let login = json!({ "phone": phone, "password": PASSWORD, "device": { "id": "another" } });
        app.post("/api/v1/auth/login", login).send().await.expect(StatusCode::OK);
    }
    for id in deleted {
        let reply = app.get(&format!("/api/v1/messages/{id}")).by(&bala).send().await;
        assert!(reply.body["content"].is_null(), "{id} is there again: {reply:?}");
    }
    app.kill();
    disk.power_off(&mut StdRng::seed_from_u64(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_flush_loses_what_was_answered() {
    assert_eq!(lost_with_the_power(3, |_| {}).await, 0);
    // So the test of the power can fail.
    let lost = lost_with_the_power(1, Disk::ignore_flushes).await;
    assert!(lost > 0, "nothing was flushed, and nothing is lost");
}

/// How many of some answered messages are gone after the power was, so many times.
async fn lost_with_the_power(cuts: usize, prepare: impl Fn(&Disk)) -> usize {
    let (mut disk, mut app, folder) = host_on_a_disk().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    prepare(&disk);
    let mut lost = 0;
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..cuts {
        let mut answered = Vec::new();
        for _ in 0..MESSAGES {
            answered.push(app.say(&ada, &talk, "said").await["id"].as_str().expect("id").to_owned());
        }
        app.kill();
        disk.power_off(&mut random);
        disk.power_on(&folder);
        app.restart().await;
        for id in answered {
            let reply = app.get(&format!("/api/v1/messages/{id}")).by(&bala).send().await;
            lost += usize::from(reply.status != StatusCode::OK);
        }
    }
    app.kill();
    disk.power_off(&mut random);
    lost
}

async fn host_on_a_disk() -> (Disk, TestApp, std::path::PathBuf) {
    let temporary = TempDir::new().expect("a temporary folder");
    let folder = data_folder(&temporary);
    std::fs::create_dir(&folder).expect("a folder to mount at");
    let disk = Disk::mount(&folder);
    let app = TestApp::launch_on(temporary, "dev", &SERVICES, &SETTINGS).await;
    (disk, app, folder)
}

/// What was answered.
#[derive(Default)]
struct Done {
    /// Phone numbers.
    registered: Vec<String>,
    /// Ids of messages.
    deleted: Vec<String>,
}

/// Runs until it is ended. What is cut off in its middle is begun anew with something else.
async fn register_and_delete(mut addresses: watch::Receiver<Vec<String>>, ada: Person, talk: String, done: Arc<Mutex<Done>>) {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().expect("a client");
    for number in 0.. {
        let url = addresses.wait_for(|urls| !urls.is_empty()).await.expect("the test outlives it")[0].clone();
        let host = Host { client: &client, url };
        if let Some(phone) = host.register().await {
            done.lock().registered.push(phone);
        }
        if let Some(id) = host.say_and_delete(&ada, &talk, number).await {
            done.lock().deleted.push(id);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Host<'a> {
    client: &'a reqwest::Client,
    url: String,
}

impl Host<'_> {
    /// The answer, if it came and is this one.
    async fn ask(&self, method: Method, path: &str, token: &str, body: Value, expect: StatusCode) -> Option<Value> {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        let reply = request.send().await.ok().filter(|reply| reply.status() == expect)?;
        let text = reply.text().await.ok()?;
        Some(serde_json::from_str(&text).unwrap_or_default())
    }

    async fn register(&self) -> Option<String> {
        let phone = unused_phone();
        let register = json!({ "phone": phone, "password": PASSWORD, "name": "Somebody" });
        let registered = self.ask(Method::POST, "/api/v1/auth/register", "", register, StatusCode::CREATED).await?;
        let outbox = self.ask(Method::GET, "/dev/outbox", "", Value::Null, StatusCode::OK).await?;
        let otp = outbox["items"].as_array()?.iter().find(|item| item["to"] == phone.as_str())?["code"].clone();
        let verify = json!({ "registration_id": registered["registration_id"], "phone": phone, "otp": otp, "device": { "id": "phone" } });
        self.ask(Method::POST, "/api/v1/auth/verify-otp", "", verify, StatusCode::OK).await?;
        Some(phone)
    }

    async fn say_and_delete(&self, person: &Person, talk: &str, number: usize) -> Option<String> {
        let message =
            json!({ "conversation_id": talk, "client_message_id": format!("deleted-{number}"), "type": "text", "content": "gone" });
        let said = self.ask(Method::POST, "/api/v1/messages", &person.access_token, message, StatusCode::CREATED).await?;
        let id = said["id"].as_str()?.to_owned();
        let path = format!("/api/v1/messages/{id}?for=everyone");
        self.ask(Method::DELETE, &path, &person.access_token, Value::Null, StatusCode::NO_CONTENT).await?;
        Some(id)
    }
}
