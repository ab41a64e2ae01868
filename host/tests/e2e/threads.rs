//! What holds a conversation together: threads, pins, mentions.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{Ask, Person, TestApp};

const MESSAGES: &str = "/api/v1/messages";

fn id_of(message: &Value) -> &str {
    message["id"].as_str().expect("id")
}

fn reply(app: &TestApp, person: &Person, talk: &str, key: &str, refers: Value) -> Ask {
    let mut body = json!({ "conversation_id": talk, "client_message_id": key, "type": "text", "content": key });
    body.as_object_mut().expect("an object").extend(refers.as_object().expect("an object").clone());
    app.post(MESSAGES, body).by(person)
}

fn contents(list: &Value) -> Vec<&str> {
    list["items"].as_array().expect("items").iter().map(|message| message["content"].as_str().unwrap_or("(deleted)")).collect()
}

#[tokio::test]
async fn a_thread_is_read_from_its_beginning() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let first = app.say(&ada, &talk, "Where do we meet?").await;
    let mut replies = Vec::new();
    for (person, key) in [(&bala, "at the bridge"), (&ada, "which one?"), (&bala, "the old one")] {
        replies.push(reply(app.as_ref(), person, &talk, key, json!({ "thread_id": first["id"] })).send().await.expect(StatusCode::CREATED));
        app.say(person, &talk, "something else").await;
    }
    let path = format!("{MESSAGES}/{}/thread", id_of(&first));
    let all = app.get(&path).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!(contents(&all), ["at the bridge", "which one?", "the old one"]);
    // From any message of it, page by page.
    let inside = format!("{MESSAGES}/{}/thread?limit=2", id_of(&replies[1]));
    let page = app.get(&inside).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(contents(&page), ["at the bridge", "which one?"]);
    let next = format!("{inside}&cursor={}", page["next_cursor"].as_str().expect("a further page"));
    let rest = app.get(&next).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!((contents(&rest), &rest["next_cursor"]), (vec!["the old one"], &Value::Null));

    // A thread has one beginning, in its own conversation.
    let refused = reply(app.as_ref(), &ada, &talk, "deeper", json!({ "thread_id": replies[0]["id"] })).send().await;
    assert_eq!(refused.expect_problem(422, "in_a_thread")["errors"][0]["field"], "thread_id");
    let elsewhere = app.group(&ada, &[&bala]).await;
    let refused = reply(app.as_ref(), &ada, &elsewhere, "elsewhere", json!({ "thread_id": first["id"] })).send().await;
    refused.expect_problem(422, "unknown_message");

    // What is deleted keeps its place and says nothing; a stranger finds none of it.
    app.delete(&format!("{MESSAGES}/{}?for=everyone", id_of(&replies[1]))).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let all = app.get(&path).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(contents(&all), ["at the bridge", "(deleted)", "the old one"]);
    let stranger = app.someone().await;
    app.get(&path).by(&stranger).send().await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn what_is_pinned_is_pinned_for_all() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let group = app.group(&ada, &[&bala]).await;
    let mut messages = Vec::new();
    for number in 0..21 {
        messages.push(app.say(&bala, &group, &format!("number {number}")).await);
    }
    let pin = |person: &Person, message: &Value| app.request(Method::PUT, &format!("{MESSAGES}/{}/pin", id_of(message))).by(person);
    let unpin = |person: &Person, message: &Value| app.delete(&format!("{MESSAGES}/{}/pin", id_of(message))).by(person);
    let pinned = async |person: &Person| {
        app.get(&format!("{MESSAGES}/conversations/{group}")).by(person).send().await.expect(StatusCode::OK)["pinned_message_ids"].clone()
    };
    pin(&bala, &messages[0]).send().await.expect_problem(403, "not_allowed");
    let mut of_bala = app.socket(&bala, None).await;
    of_bala.next_of("connection_ack").await;
    for message in [&messages[0], &messages[1], &messages[0]] {
        pin(&ada, message).send().await.expect(StatusCode::NO_CONTENT);
    }
    let both = json!([messages[1]["id"], messages[0]["id"]]);
    assert_eq!((pinned(&ada).await, pinned(&bala).await), (both.clone(), both.clone()));
    while of_bala.next_of("conversation").await["payload"]["pinned_message_ids"] != both {}

    // Whoever joins now does not see what was said before, so it is not pinned for them.
    let chen = app.someone().await;
    let path = format!("{MESSAGES}/conversations/{group}/participants");
    app.post(&path, json!({ "user_ids": [chen.id] })).by(&ada).send().await.expect(StatusCode::CREATED);
    assert_eq!(pinned(&chen).await, json!([]));

    unpin(&bala, &messages[0]).send().await.expect_problem(403, "not_allowed");
    for _ in 0..2 {
        unpin(&ada, &messages[0]).send().await.expect(StatusCode::NO_CONTENT);
    }
    app.delete(&format!("{MESSAGES}/{}?for=everyone", id_of(&messages[1]))).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(pinned(&bala).await, json!([]));
    pin(&ada, &messages[1]).send().await.expect_problem(409, "message_deleted");

    messages.remove(1);
    for message in &messages {
        pin(&ada, message).send().await.expect(StatusCode::NO_CONTENT);
    }
    let further = app.say(&ada, &group, "one too many").await;
    pin(&ada, &further).send().await.expect_problem(409, "too_many_pins");
    assert_eq!(pinned(&ada).await.as_array().expect("ids").len(), 20);

    // In a direct conversation either of the two pins; to others it does not exist.
    let talk = app.conversation(&ada, &bala).await;
    let message = app.say(&ada, &talk, "Hello").await;
    pin(&bala, &message).send().await.expect(StatusCode::NO_CONTENT);
    pin(&chen, &message).send().await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn only_participants_are_mentioned() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let stranger = app.someone().await;
    let group = app.group(&ada, &[&bala]).await;
    let sent = reply(app.as_ref(), &ada, &group, "look here", json!({ "mentions": [bala.id] })).send().await.expect(StatusCode::CREATED);
    let seen = app.get(&format!("{MESSAGES}/{}", id_of(&sent))).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(seen["mentions"], json!([bala.id]));
    let refused = reply(app.as_ref(), &ada, &group, "and you", json!({ "mentions": [bala.id, stranger.id] })).send().await;
    assert_eq!(refused.expect_problem(422, "unknown_participant")["errors"][0]["field"], "mentions[1]");
    app.delete(&format!("{MESSAGES}/{}?for=everyone", id_of(&sent))).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let seen = app.get(&format!("{MESSAGES}/{}", id_of(&sent))).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(seen["mentions"], json!([]));
}
