//! What is deleted for everyone, what a message said before an edit, and what has disappeared: looked for wherever it might still be.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{Person, TestApp, until};
use crate::exports;
use crate::stored::holding;

/// How long it may be found in a file afterwards.
const A_MINUTE: Duration = Duration::from_secs(60);

const MESSAGES: &str = "/api/v1/messages";

fn path_of(message: &Value) -> String {
    format!("{MESSAGES}/{}", message["id"].as_str().expect("id"))
}

/// All of the person's feed, as GET /api/v1/sync gives it.
async fn feed_of(app: &TestApp, person: &Person) -> Vec<Value> {
    let (mut items, mut since) = (Vec::new(), 0);
    loop {
        let page = app.get(&format!("/api/v1/sync?since={since}")).by(person).send().await.expect(StatusCode::OK);
        items.extend(page["items"].as_array().expect("items").iter().cloned());
        match page["next_cursor"].as_u64() {
            Some(cursor) => since = cursor,
            None => return items,
        }
    }
}

/// What is kept in the feeds for this message: type and content, in order.
async fn said_of(app: &TestApp, person: &Person, message: &Value) -> Vec<(String, Value)> {
    let items = feed_of(app, person).await;
    assert!(items.iter().zip(1..).all(|(item, seq)| item["seq"] == seq), "the numbers stay: {items:?}");
    let about = items.iter().filter(|item| item["payload"]["id"] == message["id"] || item["payload"]["message_id"] == message["id"]);
    let about = about.filter(|item| item["type"] != "message_status");
    about.map(|item| (item["type"].as_str().expect("type").to_owned(), item["payload"]["content"].clone())).collect()
}

async fn outbox_holds(app: &TestApp, text: &str) -> bool {
    Value::Array(app.outbox().await).to_string().contains(text)
}

#[tokio::test]
async fn what_is_deleted_is_readable_nowhere() {
    let settings = [("ECHO_SERVICES__NOTIFICATION__ACK_WAIT_S", "0")];
    let app = TestApp::with(&["auth", "location", "message", "notification", "user"], &settings).await;
    let (ada, bala) = app.two().await;
    // Bala is away, and would be called.
    let device = json!({ "token": "bala's", "provider": "fcm" });
    app.post("/api/v1/notifications/devices", device).by(&bala).send().await.expect(StatusCode::CREATED);
    let talk = app.conversation(&ada, &bala).await;
    let [taken_back, reworded, second, fleeting] =
        ["takenback", "reworded", "secondwording", "fleeting"].map(|word| format!("{word}c0ffee"));

    let deleted = app.say(&ada, &talk, &taken_back).await;
    let edited = app.say(&ada, &talk, &reworded).await;
    for text in [&taken_back, &reworded] {
        until("the push", async || outbox_holds(&app, text).await.then_some(())).await;
    }
    // A word each, so that the files are looked through for the index of words too.
    let found = async |text: &str| {
        let path = format!("{MESSAGES}/search?q={text}");
        let list = app.get(&path).by(&bala).send().await.expect(StatusCode::OK);
        list["items"].as_array().expect("items").iter().map(|message| message["content"].clone()).collect::<Vec<_>>()
    };
    until("they are found", async || (found(&taken_back).await.len() + found(&reworded).await.len() == 2).then_some(())).await;
    let quote =
        json!({ "conversation_id": talk, "client_message_id": "quote", "type": "text", "content": "see above", "reply_to": deleted["id"] });
    let quote = app.post(MESSAGES, quote).by(&ada).send().await.expect(StatusCode::CREATED);
    let change = json!({ "disappearing_after": 3 });
    app.put(&format!("{MESSAGES}/conversations/{talk}/settings"), change).by(&ada).send().await.expect(StatusCode::OK);
    let gone = app.say(&ada, &talk, &fleeting).await;
    let before = [("message".to_owned(), json!(fleeting))];
    until("it is there at first", async || (said_of(&app, &bala, &gone).await == before).then_some(())).await;
    // An export that was asked for before.
    let parts = ["message", "notification", "user"];
    exports::export(&app, &bala, &parts).await;
    exports::export(&app, &ada, &parts).await;
    let exported = exports::text_of(&app, &ada).await;
    for text in [&taken_back, &reworded] {
        assert!(exported.contains(text), "else it would say nothing that it is not there later");
    }

    app.patch(&path_of(&edited), json!({ "content": second })).by(&ada).send().await.expect(StatusCode::OK);
    app.delete(&format!("{}?for=everyone", path_of(&deleted))).by(&ada).send().await.expect(StatusCode::NO_CONTENT);

    // The feed, also on a device that never saw it before: the number stays, the text does not.
    let tablet = app.log_in(&bala, "tablet").await;
    let deletion = ("message_deleted".to_owned(), Value::Null);
    for (message, expect) in [
        (&deleted, vec![deletion.clone(), deletion.clone()]),
        (&edited, vec![("message".to_owned(), json!(second)), ("message_edited".to_owned(), json!(second))]),
        // By schedule: nobody has sent anything since.
        (&gone, vec![deletion.clone(), deletion]),
    ] {
        for person in [&ada, &bala, &tablet] {
            until("the feed says so", async || (said_of(&app, person, message).await == expect).then_some(())).await;
        }
    }
    let mut socket = app.socket(&tablet, Some(0)).await;
    loop {
        let frame = socket.next().await;
        let text = frame.to_string();
        assert!(![&taken_back, &reworded, &fleeting].into_iter().any(|secret| text.contains(secret.as_str())), "{frame}");
        if frame["type"] == "caught_up" {
            break;
        }
    }
    // Lists, previews and quotes.
    for path in [format!("{MESSAGES}?conversation_id={talk}"), format!("{MESSAGES}/conversations"), path_of(&quote), path_of(&deleted)] {
        let seen = app.get(&path).by(&bala).send().await.expect(StatusCode::OK).to_string();
        assert!(![&taken_back, &reworded, &fleeting].into_iter().any(|secret| seen.contains(secret.as_str())), "{path}: {seen}");
    }
    for text in [&taken_back, &reworded, &fleeting] {
        assert_eq!(found(text).await, [] as [Value; 0], "{text}");
    }
    until("the new wording is found", async || (found(&second).await == [json!(second)]).then_some(())).await;
    app.get(&path_of(&gone)).by(&bala).send().await.expect_problem(404, "not_found");
    for person in [&ada, &bala] {
        let exported = exports::text_of(&app, person).await;
        for text in [&taken_back, &reworded, &fleeting] {
            assert!(!exported.contains(text), "{text} in {exported}");
        }
        assert_eq!(exported.contains(&second), person.id == ada.id, "what one wrote and is there");
    }
    // Pushes that have not left.
    for text in [&taken_back, &reworded, &fleeting] {
        until("nothing of it is to leave", async || (!outbox_holds(&app, text).await).then_some(())).await;
    }
    until("what is to leave says what the message says", async || outbox_holds(&app, &second).await.then_some(())).await;

    // An edited message's history is there to be read until it is deleted as well.
    let edits = app.get(&format!("{}/edits", path_of(&edited))).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(edits["items"][0]["content"], json!(reworded));
    let since = Instant::now();
    let history = |place: &str| place.contains("/services/message.sqlite") || place.starts_with("echo_message.");
    loop {
        let left: Vec<(String, &str)> = [&taken_back, &reworded, &fleeting]
            .into_iter()
            .flat_map(|text| holding(&app, text).into_iter().map(move |place| (place, text.as_str())))
            .filter(|(place, text)| *text != reworded || !history(place))
            .collect();
        if left.is_empty() {
            break;
        }
        assert!(since.elapsed() < A_MINUTE, "still there: {left:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    app.delete(&format!("{}?for=everyone", path_of(&edited))).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    assert!(!exports::text_of(&app, &ada).await.contains(&second));
    let edits = app.get(&format!("{}/edits", path_of(&edited))).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(edits["items"], json!([]));
    let since = Instant::now();
    while let Some(place) = [&reworded, &second].into_iter().find_map(|text| holding(&app, text).pop()) {
        assert!(since.elapsed() < A_MINUTE, "still in {place}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn what_was_said_in_a_group_that_was_ended_is_in_no_file_and_no_feed() {
    let app = TestApp::start().await;
    let (ada, bala) = app.two().await;
    let group = app.group(&ada, &[&bala]).await;
    // More than are emptied at once.
    let words: Vec<String> = (0..60).map(|number| format!("ended{number}c0ffee")).collect();
    let mut last = Value::Null;
    for word in &words {
        last = app.say(&ada, &group, word).await;
    }
    app.patch(&path_of(&last), json!({ "content": "reworded-c0ffee" })).by(&ada).send().await.expect(StatusCode::OK);
    let talk = app.conversation(&ada, &bala).await;
    app.say(&ada, &talk, "another-c0ffee").await;
    app.delete(&format!("{MESSAGES}/conversations/{group}")).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    until("the feed says so", async || {
        let feed = Value::Array(feed_of(&app, &bala).await).to_string();
        (!feed.contains("ended-") && !feed.contains("reworded-")).then_some(())
    })
    .await;
    assert!(Value::Array(feed_of(&app, &bala).await).to_string().contains("another-c0ffee"), "of no other conversation");
    let since = Instant::now();
    loop {
        let left: Vec<String> = ["ended-", "reworded-c0ffee"].iter().flat_map(|text| holding(&app, text)).collect();
        if left.is_empty() {
            break;
        }
        assert!(since.elapsed() < A_MINUTE, "still in {left:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(!holding(&app, "another-c0ffee").is_empty());
}

#[tokio::test]
async fn a_retry_is_answered_with_the_message_as_it_is_now() {
    let app = TestApp::start().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let first = app.text(&ada, &talk, "retried", "first").send().await.expect(StatusCode::CREATED);
    let again = async |content: &str| app.text(&ada, &talk, "retried", content).send().await;
    // With a key of the request itself too.
    let keyed = async || app.text(&ada, &talk, "keyed", "by key").header("idempotency-key", "k").send().await;
    let by_key = keyed().await.expect(StatusCode::CREATED);
    app.delete(&format!("{}?for=everyone", path_of(&by_key))).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let replayed = keyed().await;
    assert_eq!(replayed.header("idempotent-replayed"), "true");
    let replayed = replayed.expect(StatusCode::CREATED);
    assert_eq!((&replayed["id"], &replayed["content"]), (&by_key["id"], &Value::Null), "{replayed}");

    assert_eq!(again("first").await.expect(StatusCode::CREATED), first, "nothing has changed");
    app.patch(&path_of(&first), json!({ "content": "second" })).by(&ada).send().await.expect(StatusCode::OK);
    let edited = again("first").await.expect(StatusCode::CREATED);
    assert_eq!((&edited["id"], &edited["seq"], &edited["content"]), (&first["id"], &first["seq"], &json!("second")));
    assert!(edited["edited_at"].is_string(), "{edited}");
    // What was sent is what the id stands for, not what became of it.
    again("second").await.expect_problem(409, "client_message_id_reused");
    app.delete(&format!("{}?for=everyone", path_of(&first))).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let deleted = again("first").await.expect(StatusCode::CREATED);
    assert_eq!((&deleted["id"], &deleted["seq"], &deleted["content"]), (&first["id"], &first["seq"], &Value::Null));
    assert!(deleted["deleted_at"].is_string(), "{deleted}");
    again("second").await.expect_problem(409, "client_message_id_reused");

    // Hidden from its sender alone, and over with its conversation.
    let hidden = app.text(&ada, &talk, "hidden", "hidden").send().await.expect(StatusCode::CREATED);
    app.delete(&format!("{}?for=me", path_of(&hidden))).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let group = app.group(&ada, &[&bala]).await;
    let over = app.text(&ada, &group, "over", "over").send().await.expect(StatusCode::CREATED);
    app.delete(&format!("{MESSAGES}/conversations/{group}")).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    until("it says nothing any more", async || {
        let seen = app.text(&ada, &group, "over", "over").send().await.expect(StatusCode::CREATED);
        (seen["id"] == over["id"] && seen["content"].is_null() && seen["deleted_at"].is_string()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_deleted_stays_so_though_the_host_is_killed_at_once() {
    let mut app = TestApp::start().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    for round in 0..3 {
        let secret = format!("secret-{round}-c0ffee");
        let message = app.say(&ada, &talk, &secret).await;
        app.delete(&format!("{}?for=everyone", path_of(&message))).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
        app.kill();
        app.restart().await;
        until("the feed says so", async || {
            let said = said_of(&app, &bala, &message).await;
            (said.len() == 2 && said.iter().all(|(kind, _)| kind == "message_deleted")).then_some(())
        })
        .await;
        assert!(!feed_of(&app, &bala).await.iter().any(|item| item.to_string().contains(&secret)));
    }
}

#[tokio::test]
async fn a_trace_says_that_a_message_was_deleted_before_its_push() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let message = app.say(&ada, &talk, "gone before it leaves").await;
    let id = message["id"].as_str().expect("id");
    app.delete(&format!("/api/v1/messages/{id}?for=everyone")).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let trace = format!("/api/v1/notifications/trace/{id}");
    let decision = until("a decision", async || {
        let reply = app.get(&trace).by(&ada).send().await;
        (reply.status == StatusCode::OK).then(|| reply["items"][0]["decision"].clone()).filter(|decision| *decision != json!("waiting"))
    })
    .await;
    assert_eq!(decision, json!("message_deleted"));
}
