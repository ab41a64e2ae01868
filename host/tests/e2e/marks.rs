//! What people put on messages and conversations: reactions, stars, drafts, the mark as unread.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{Person, Socket, TestApp, until};

const MESSAGES: &str = "/api/v1/messages";

fn path_of(message: &Value) -> String {
    format!("{MESSAGES}/{}", message["id"].as_str().expect("id"))
}

/// Percent-encoded (RFC 3986), as a path wants it.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

async fn react(app: &TestApp, person: &Person, message: &Value, emoji: &str) {
    let path = format!("{}/reactions/{}", path_of(message), encoded(emoji));
    app.request(Method::PUT, &path).by(person).send().await.expect(StatusCode::NO_CONTENT);
}

async fn reactions_of(app: &TestApp, viewer: &Person, message: &Value) -> Vec<(String, String)> {
    let reply = app.get(&format!("{}/reactions", path_of(message))).by(viewer).send().await.expect(StatusCode::OK);
    let text = |item: &Value, key: &str| item[key].as_str().expect("text").to_owned();
    reply["items"].as_array().expect("items").iter().map(|item| (text(item, "user_id"), text(item, "emoji"))).collect()
}

async fn open(app: &TestApp, person: &Person) -> Socket {
    let mut socket = app.socket(person, None).await;
    socket.next_of("connection_ack").await;
    socket
}

/// What came before the answer to a ping.
async fn frames_so_far(socket: &mut Socket) -> Vec<Value> {
    socket.send(json!({ "type": "ping" })).await;
    let mut frames = Vec::new();
    loop {
        let frame = socket.next().await;
        if frame["type"] == "pong" {
            return frames;
        }
        frames.push(frame);
    }
}

#[tokio::test]
async fn people_react_each_with_an_emoji_once() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let message = app.say(&ada, &talk, "Hello").await;
    let mut of_ada = open(&app, &ada).await;

    react(&app, &bala, &message, "❤️").await;
    let frame = of_ada.next_of("reaction").await;
    assert!(frame["seq"].is_u64(), "{frame}");
    let payload = &frame["payload"];
    assert_eq!((&payload["message_id"], &payload["conversation_id"]), (&message["id"], &json!(talk)));
    assert_eq!((&payload["user_id"], &payload["emoji"], &payload["present"]), (&json!(bala.id), &json!("❤️"), &json!(true)));

    // The same in another spelling, and another one by its skin tone; each person has their own.
    react(&app, &bala, &message, "❤").await;
    react(&app, &bala, &message, "👍").await;
    react(&app, &bala, &message, "👍🏽").await;
    react(&app, &ada, &message, "❤").await;
    let pair = |person: &Person, emoji: &str| (person.id.clone(), emoji.to_owned());
    let all = [pair(&bala, "❤️"), pair(&bala, "👍"), pair(&bala, "👍🏽"), pair(&ada, "❤")];
    assert_eq!(reactions_of(&app, &ada, &message).await, all);
    let page = app.get(&format!("{}/reactions?limit=3", path_of(&message))).by(&ada).send().await.expect(StatusCode::OK);
    let next = format!("{}/reactions?limit=3&cursor={}", path_of(&message), page["next_cursor"].as_str().expect("a further page"));
    let rest = app.get(&next).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!((&rest["items"][0]["user_id"], &rest["next_cursor"]), (&json!(ada.id), &Value::Null));

    // Taken away in whichever spelling; again is fine.
    for _ in 0..2 {
        let path = format!("{}/reactions/{}", path_of(&message), encoded("❤"));
        app.delete(&path).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    }
    assert_eq!(reactions_of(&app, &bala, &message).await, all[1..]);
    loop {
        let payload = of_ada.next_of("reaction").await["payload"].clone();
        if payload["present"] == false {
            assert_eq!((&payload["user_id"], &payload["emoji"]), (&json!(bala.id), &json!("❤️")));
            break;
        }
    }

    // What is no emoji, whose message it is not, what is not there any more.
    for text in ["ok", "👍👍", "1", "a"] {
        let path = format!("{}/reactions/{}", path_of(&message), encoded(text));
        app.request(Method::PUT, &path).by(&bala).send().await.expect_problem(422, "not_an_emoji");
    }
    let stranger = app.someone().await;
    let path = format!("{}/reactions/{}", path_of(&message), encoded("👍"));
    app.request(Method::PUT, &path).by(&stranger).send().await.expect_problem(404, "not_found");
    app.get(&format!("{}/reactions", path_of(&message))).by(&stranger).send().await.expect_problem(404, "not_found");
    app.delete(&format!("{}?for=everyone", path_of(&message))).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(reactions_of(&app, &ada, &message).await, []);
    app.request(Method::PUT, &path).by(&bala).send().await.expect_problem(409, "message_deleted");
}

#[tokio::test]
async fn a_reaction_reaches_nobody_who_blocks_its_author() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let chen = app.someone().await;
    let group = app.group(&ada, &[&bala, &chen]).await;
    let message = app.say(&chen, &group, "Hello, all").await;
    app.request(Method::PUT, &format!("/api/v1/users/blocked/{}", ada.id)).by(&chen).send().await.expect(StatusCode::NO_CONTENT);
    // The block reaches the message service as an event.
    until("the block is known", async || {
        let probe = app.say(&ada, &group, "are you there?").await;
        let seen = app.get(&path_of(&probe)).by(&chen).send().await;
        (seen.status == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    let (mut of_bala, mut of_chen) = (open(&app, &bala).await, open(&app, &chen).await);
    react(&app, &ada, &message, "👎").await;
    assert_eq!(of_bala.next_of("reaction").await["payload"]["emoji"], "👎");
    let frames = frames_so_far(&mut of_chen).await;
    assert!(frames.iter().all(|frame| frame["type"] != "reaction"), "{frames:?}");
    assert_eq!(reactions_of(&app, &chen, &message).await, []);
    assert_eq!(reactions_of(&app, &bala, &message).await.len(), 1);
}

#[tokio::test]
async fn stars_are_ones_own() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let mut messages = Vec::new();
    for number in 0..3 {
        let message = app.say(&ada, &talk, &format!("number {number}")).await;
        for _ in 0..2 {
            app.request(Method::PUT, &format!("{}/star", path_of(&message))).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
        }
        messages.push(message);
    }
    let starred = async |person: &Person| {
        let list = app.get(&format!("{MESSAGES}/starred")).by(person).send().await.expect(StatusCode::OK);
        let items = list["items"].as_array().expect("items").clone();
        items.iter().map(|message| message["content"].as_str().expect("content").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(starred(&bala).await, ["number 2", "number 1", "number 0"]);
    assert_eq!(starred(&ada).await, [""; 0]);
    app.delete(&format!("{}/star", path_of(&messages[1]))).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    app.delete(&format!("{}?for=everyone", path_of(&messages[0]))).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(starred(&bala).await, ["number 2"]);
    let stranger = app.someone().await;
    app.request(Method::PUT, &format!("{}/star", path_of(&messages[2]))).by(&stranger).send().await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_draft_is_the_same_on_all_devices_and_in_no_feed() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let tablet = app.log_in(&ada, "tablet").await;
    let (mut of_tablet, mut of_bala) = (open(&app, &tablet).await, open(&app, &bala).await);
    let path = format!("{MESSAGES}/conversations/{talk}/draft");
    app.get(&path).by(&ada).send().await.expect_problem(404, "not_found");
    let words = "what I have not said yet";
    let kept = app.request(Method::PUT, &path).json(json!({ "content": words })).by(&ada).send().await.expect(StatusCode::OK);
    let frame = of_tablet.next_of("draft").await;
    assert!(frame.get("seq").is_none(), "{frame}");
    assert_eq!(frame["payload"], kept);
    assert_eq!(app.get(&path).by(&tablet).send().await.expect(StatusCode::OK), kept);
    app.get(&path).by(&bala).send().await.expect_problem(404, "not_found");
    app.delete(&path).by(&tablet).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(of_tablet.next_of("draft").await["payload"]["content"], Value::Null);
    app.get(&path).by(&ada).send().await.expect_problem(404, "not_found");

    let feed = app.get("/api/v1/sync?since=0").by(&ada).send().await.expect(StatusCode::OK);
    assert!(!feed.to_string().contains(words), "{feed}");
    let frames = frames_so_far(&mut of_bala).await;
    assert!(frames.iter().all(|frame| frame["type"] != "draft"), "{frames:?}");
    let stranger = app.someone().await;
    app.request(Method::PUT, &path).json(json!({ "content": "x" })).by(&stranger).send().await.expect_problem(404, "not_found");
    let too_long = json!({ "content": "x".repeat(10_001) });
    app.request(Method::PUT, &path).json(too_long).by(&ada).send().await.expect_problem(422, "invalid");
}

#[tokio::test]
async fn a_draft_replies_to_what_its_author_sees_in_the_conversation() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let chen = app.someone().await;
    let (talk, elsewhere) = (app.conversation(&ada, &bala).await, app.conversation(&ada, &chen).await);
    let foreign = app.conversation(&bala, &chen).await;
    let path = format!("{MESSAGES}/conversations/{talk}/draft");
    let reply_to = |message: &Value| json!({ "content": "as you said", "reply_to": message["id"] });
    let put = |body: Value| app.request(Method::PUT, &path).json(body).by(&ada);
    let here = app.say(&bala, &talk, "here").await;
    assert_eq!(put(reply_to(&here)).send().await.expect(StatusCode::OK)["reply_to"], here["id"]);
    for (person, conversation) in [(&chen, &elsewhere), (&bala, &foreign)] {
        let message = app.say(person, conversation, "elsewhere").await;
        put(reply_to(&message)).send().await.expect_problem(422, "unknown_message");
    }
    assert_eq!(app.get(&path).by(&ada).send().await.expect(StatusCode::OK)["reply_to"], here["id"]);
}

#[tokio::test]
async fn a_conversation_is_marked_as_unread_and_stays_read_for_others() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let message = app.say(&ada, &talk, "Hello").await;
    let read = json!({ "conversation_id": talk, "up_to_seq": 1 });
    app.post(&format!("{MESSAGES}/read"), read.clone()).by(&bala).send().await.expect(StatusCode::OK);
    let mut of_bala = open(&app, &bala).await;
    let path = format!("{MESSAGES}/conversations/{talk}");
    let marked = async || {
        let seen = app.get(&path).by(&bala).send().await.expect(StatusCode::OK);
        assert_eq!((&seen["read_seq"], &seen["unread_count"]), (&json!(1), &json!(0)), "a mark alone: {seen}");
        seen["marked_unread"].clone()
    };
    assert_eq!(marked().await, false);
    app.request(Method::PUT, &format!("{path}/unread"))
        .json(json!({ "unread": true }))
        .by(&bala)
        .send()
        .await
        .expect(StatusCode::NO_CONTENT);
    assert_eq!(of_bala.next_of("unread").await["payload"], json!({ "conversation_id": talk, "unread": true }));
    assert_eq!(marked().await, true);
    let status = app.get(&format!("{}/status", path_of(&message))).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!(status["items"][0]["status"], "read");
    assert_eq!(app.get(&path).by(&ada).send().await.expect(StatusCode::OK)["marked_unread"], false);

    // Reading takes it off, though there is nothing new to read.
    app.post(&format!("{MESSAGES}/read"), read).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(of_bala.next_of("unread").await["payload"]["unread"], false);
    assert_eq!(marked().await, false);
    let stranger = app.someone().await;
    let unread = json!({ "unread": true });
    app.request(Method::PUT, &format!("{path}/unread")).json(unread).by(&stranger).send().await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn delivered_goes_no_further_than_what_is_there() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let first = app.say(&ada, &talk, "one").await;
    // Far beyond the newest message: those that come later are not delivered by it.
    let delivered = json!({ "conversation_id": talk, "up_to_seq": 1_000_000 });
    app.post(&format!("{MESSAGES}/delivered"), delivered).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    let second = app.say(&ada, &talk, "two").await;
    let status_of = async |message: &Value| {
        let status = app.get(&format!("{}/status", path_of(message))).by(&ada).send().await.expect(StatusCode::OK);
        status["items"][0]["status"].clone()
    };
    assert_eq!((status_of(&first).await, status_of(&second).await), (json!("delivered"), json!("sent")));
}
