//! Messages that are sent at their time, exactly once.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{Ask, Person, TestApp, in_seconds, until};

const MESSAGES: &str = "/api/v1/messages";
const SCHEDULED: &str = "/api/v1/messages/scheduled";

fn schedule(app: &TestApp, person: &Person, talk: &str, key: &str, send_at: &str) -> Ask {
    let body = json!({ "conversation_id": talk, "client_message_id": key, "type": "text", "content": key, "send_at": send_at });
    app.post(SCHEDULED, body).by(person)
}

fn path_of(message: &Value) -> String {
    format!("{SCHEDULED}/{}", message["id"].as_str().expect("id"))
}

async fn contents(app: &TestApp, person: &Person, talk: &str) -> Vec<String> {
    let list = app.get(&format!("{MESSAGES}?conversation_id={talk}")).by(person).send().await.expect(StatusCode::OK);
    list["items"].as_array().expect("items").iter().map(|message| message["content"].as_str().expect("content").to_owned()).collect()
}

async fn waiting(app: &TestApp, person: &Person) -> Vec<Value> {
    app.get(SCHEDULED).by(person).send().await.expect(StatusCode::OK)["items"].as_array().expect("items").clone()
}

#[tokio::test]
async fn a_message_is_sent_at_its_time_and_once() {
    let mut app = TestApp::start().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let later = in_seconds(3600);
    let kept = schedule(&app, &ada, &talk, "later", &later).send().await.expect(StatusCode::CREATED);
    assert_eq!((&kept["content"], &kept["failure"]), (&json!("later"), &Value::Null));
    assert_eq!(schedule(&app, &ada, &talk, "later", &later).send().await.expect(StatusCode::CREATED), kept);
    let body = json!({ "conversation_id": talk, "client_message_id": "later", "type": "text", "content": "else", "send_at": later });
    app.post(SCHEDULED, body).by(&ada).send().await.expect_problem(409, "client_message_id_reused");

    let mut of_bala = app.socket(&bala, None).await;
    of_bala.next_of("connection_ack").await;
    for key in ["soon", "sooner"] {
        schedule(&app, &ada, &talk, key, &in_seconds(1)).send().await.expect(StatusCode::CREATED);
    }
    assert_eq!(contents(&app, &bala, &talk).await, [""; 0]);
    let mut sent = [of_bala.next_of("message").await, of_bala.next_of("message").await].map(|frame| frame["payload"]["content"].clone());
    sent.sort_unstable_by_key(Value::to_string);
    assert_eq!(sent, [json!("soon"), json!("sooner")]);
    until("only one waits", async || (waiting(&app, &ada).await == [kept.clone()]).then_some(())).await;
    schedule(&app, &ada, &talk, "soon", &later).send().await.expect_problem(409, "client_message_id_reused");

    // Brought forward, in other words, across kill -9 at its time.
    let change = json!({ "content": "now", "send_at": in_seconds(1) });
    let changed = app.patch(&path_of(&kept), change).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!(changed["content"], "now");
    app.kill();
    app.restart().await;
    until("it is sent", async || contents(&app, &bala, &talk).await.contains(&"now".to_owned()).then_some(())).await;
    until("none waits", async || waiting(&app, &ada).await.is_empty().then_some(())).await;
    assert_eq!(contents(&app, &bala, &talk).await.len(), 3);
    app.patch(&path_of(&kept), json!({ "content": "too late" })).by(&ada).send().await.expect_problem(404, "not_found");
    app.delete(&path_of(&kept)).by(&ada).send().await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn what_waits_is_ones_own_and_can_be_taken_back() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let kept = schedule(&app, &ada, &talk, "later", &in_seconds(3600)).send().await.expect(StatusCode::CREATED);
    assert!(waiting(&app, &bala).await.is_empty());
    app.patch(&path_of(&kept), json!({ "content": "x" })).by(&bala).send().await.expect_problem(404, "not_found");
    app.delete(&path_of(&kept)).by(&bala).send().await.expect_problem(404, "not_found");
    for send_at in [in_seconds(-1), in_seconds(400 * 86_400)] {
        schedule(&app, &ada, &talk, "when", &send_at).send().await.expect_problem(422, "invalid");
        app.patch(&path_of(&kept), json!({ "send_at": send_at })).by(&ada).send().await.expect_problem(422, "invalid");
    }
    let stranger = app.someone().await;
    schedule(&app, &stranger, &talk, "x", &in_seconds(60)).send().await.expect_problem(404, "not_found");
    app.delete(&path_of(&kept)).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    assert!(waiting(&app, &ada).await.is_empty());
}

#[tokio::test]
async fn what_cannot_be_sent_stays_with_the_reason() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let group = app.group(&bala, &[&ada]).await;
    let first = app.say(&ada, &group, "first").await;
    let body = json!({ "conversation_id": group, "client_message_id": "reply", "type": "text", "content": "as I said", "mentions": [bala.id],
        "reply_to": first["id"], "send_at": in_seconds(2) });
    app.post(SCHEDULED, body).by(&ada).send().await.expect(StatusCode::CREATED);
    // Deleted for oneself, there is nothing to reply to.
    app.delete(&format!("{MESSAGES}/{}", first["id"].as_str().expect("id"))).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let failed =
        until("it could not be sent", async || waiting(&app, &ada).await.into_iter().find(|one| one["failure"] != Value::Null)).await;
    assert_eq!((&failed["failure"], &failed["client_message_id"]), (&json!("unknown_message"), &json!("reply")));

    // Who leaves takes along what was to be said; nothing of it is kept.
    schedule(&app, &ada, &group, "never", &in_seconds(3600)).send().await.expect(StatusCode::CREATED);
    let path = format!("{MESSAGES}/conversations/{group}/participants/{}", ada.id);
    app.request(Method::DELETE, &path).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    assert!(waiting(&app, &ada).await.is_empty());
}

#[tokio::test]
async fn whoever_is_removed_finds_what_was_to_be_said_as_failed() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let group = app.group(&bala, &[&ada]).await;
    let talk = app.conversation(&ada, &bala).await;
    for (conversation, key) in [(&group, "in the group"), (&talk, "elsewhere")] {
        schedule(&app, &ada, conversation, key, &in_seconds(3600)).send().await.expect(StatusCode::CREATED);
    }
    let path = format!("{MESSAGES}/conversations/{group}/participants/{}", ada.id);
    app.delete(&path).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    let mut found: Vec<_> = waiting(&app, &ada).await.iter().map(|one| (one["content"].clone(), one["failure"].clone())).collect();
    found.sort_by_key(|one| one.0.to_string());
    assert_eq!(found, [(json!("elsewhere"), Value::Null), (json!("in the group"), json!("not_found"))]);
}
