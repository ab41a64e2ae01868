//! What people write: names that nobody could read are refused with their field, everything else comes back byte for byte.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{Ask, TestApp, until, unused_phone};

const CONVERSATIONS: &str = "/api/v1/messages/conversations";
const UNREADABLE: [&str; 11] = [
    "abc\u{202E}txt.exe",
    "abc\u{2066}txt",
    "\u{200B}",
    "\u{3164}",
    "\u{2800}",
    "\u{115F}",
    "a\0b",
    "a\u{1B}[31mb",
    "a\u{85}b",
    "a\u{FFF9}b",
    " \u{3000}",
];
const READABLE: [&str; 5] = ["👨\u{200D}👩\u{200D}👧\u{200D}👦", "می\u{200C}خواهم", "क्\u{200D}ष", "❤\u{FE0F}", "שלום\u{200F} 42"];

async fn refused(what: &str, given: Ask, field: &str) {
    let problem = given.send().await;
    let errors = problem.body["errors"].clone();
    let problem = problem.expect_problem(422, "unreadable_text");
    let named: Vec<(&Value, &Value)> = errors.as_array().into_iter().flatten().map(|error| (&error["field"], &error["code"])).collect();
    assert_eq!(named, [(&json!(field), &json!("unreadable_text"))], "{what}: {problem}");
}

#[tokio::test]
async fn names_that_nobody_can_read_are_refused_in_every_field() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let group = app.group(&ada, &[&bala]).await;
    app.post("/api/v1/users/contacts", json!({ "user_id": bala.id })).by(&ada).send().await.expect(StatusCode::CREATED);
    let contact = format!("/api/v1/users/contacts/{}", bala.id);
    let send = |kind: &str, field: &str, value: Value| {
        let message = json!({ "conversation_id": talk, "client_message_id": "unreadable", "type": kind, field: value });
        app.post("/api/v1/messages", message).by(&ada)
    };
    for text in UNREADABLE {
        for field in ["display_name", "bio", "status_text"] {
            refused(text, app.patch("/api/v1/users/me", json!({ field: text })).by(&ada), field).await;
        }
        refused(text, app.post("/api/v1/users/contacts", json!({ "user_id": bala.id, "alias": text })).by(&ada), "alias").await;
        refused(text, app.patch(&contact, json!({ "alias": text })).by(&ada), "alias").await;
        for field in ["name", "platform", "model", "os", "app_version", "id"] {
            let mut login = json!({ "phone": ada.phone, "password": ada.password, "device": { "id": "phone" } });
            login["device"][field] = json!(text);
            refused(text, app.post("/api/v1/auth/login", login), &format!("device.{field}")).await;
        }
        let register = json!({ "phone": unused_phone(), "password": "correct horse battery 7", "name": text });
        refused(text, app.post("/api/v1/auth/register", register), "name").await;
        for field in ["title", "description"] {
            let open = json!({ "type": "group", "participant_ids": [bala.id], field: text });
            refused(text, app.post(CONVERSATIONS, open).by(&ada), field).await;
            refused(text, app.patch(&format!("{CONVERSATIONS}/{group}"), json!({ field: text })).by(&ada), field).await;
        }
        let place = |field: &str| json!({ "latitude": 1.0, "longitude": 2.0, field: text });
        refused(text, send("location", "location", place("name")), "location.name").await;
        refused(text, send("location", "location", place("address")), "location.address").await;
        refused(text, send("contact", "contact", json!({ "name": text, "phones": [] })), "contact.name").await;
        let card = json!({ "name": "Ada", "phones": ["1", text] });
        refused(text, send("contact", "contact", card), "contact.phones[1]").await;
        let push = json!({ "token": "t", "provider": "fcm", "platform": text });
        refused(text, app.post("/api/v1/notifications/devices", push).by(&ada), "platform").await;
    }
    for text in ["a\0b", "a\u{1B}b", "a\u{7F}b", "a\rb"] {
        refused(text, send("text", "content", json!(text)), "content").await;
    }
}

#[tokio::test]
async fn what_can_be_read_comes_back_byte_for_byte() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    for (at, text) in READABLE.into_iter().enumerate() {
        let profile = json!({ "display_name": text, "bio": format!("{text}\n{text}"), "status_text": text });
        let changed = app.patch("/api/v1/users/me", profile).by(&ada).send().await.expect(StatusCode::OK);
        assert_eq!((&changed["display_name"], &changed["bio"]), (&json!(text), &json!(format!("{text}\n{text}"))));
        let open = json!({ "type": "group", "participant_ids": [bala.id], "title": text });
        let opened = app.post(CONVERSATIONS, open).by(&ada).send().await.expect(StatusCode::CREATED);
        assert_eq!(opened["title"], text);
        // A message keeps what a name may not have, but for control characters.
        let content = format!("{text}\n\t\u{202E}\u{200B}");
        let sent = app.text(&ada, &talk, &at.to_string(), &content).send().await.expect(StatusCode::CREATED);
        assert_eq!(sent["content"], content);
    }
}

#[tokio::test]
async fn metadata_that_readers_would_not_agree_about_is_refused_and_not_rounded() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let send = |metadata: &str| {
        let id = format!("metadata {metadata}").replace(['"', '\\'], "'");
        let body =
            format!(r#"{{"conversation_id":"{talk}","client_message_id":"{id}","type":"text","content":"x","metadata":{metadata}}}"#);
        app.request(Method::POST, "/api/v1/messages").header("content-type", "application/json").bytes(body).by(&ada)
    };
    for (metadata, code) in [
        (r#"{"x":1e400}"#, "out_of_range"),
        (r#"{"x":[-1e400]}"#, "out_of_range"),
        (r#"{"n":9007199254740993}"#, "out_of_range"),
        ("9007199254740993", "out_of_range"),
        (r#"{"k":1,"k":2}"#, "duplicate_field"),
        (r#"{"a":[{"k":1,"\u006b":2}]}"#, "duplicate_field"),
        (r#"{"a\u0000":1}"#, "unreadable_text"),
        (r#"{"a":"b\u0000"}"#, "unreadable_text"),
        (r#"{"a":"\ud800"}"#, "unreadable_text"),
        (r#"{"a":"\ufffe"}"#, "unreadable_text"),
        (r#"{"a":"\u001b[31m"}"#, "unreadable_text"),
        (r#"{"a\u202eb":1}"#, "unreadable_text"),
    ] {
        let reply = send(metadata).send().await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{metadata}: {}", reply.body);
        let error = &reply.body["errors"][0];
        assert_eq!((&error["field"], &error["code"]), (&json!("metadata"), &json!(code)), "{metadata}: {}", reply.body);
    }
    // Kept as it was written, not as some reader writes it.
    for metadata in [r#"{"k":1.50,"K":[9007199254740992,-0.0,1e20],"e\u0301":"\ud83d\ude00"}"#, "null", r#""text""#] {
        let sent = send(metadata).send().await.expect(StatusCode::CREATED);
        let given: Value = serde_json::from_str(metadata).expect("JSON");
        assert_eq!(sent["metadata"], given, "{metadata}");
    }
}

#[tokio::test]
async fn a_push_ends_between_graphemes() {
    const FAMILY: &str = "👨\u{200D}👩\u{200D}👧\u{200D}👦";
    let settings = [("ECHO_SERVICES__NOTIFICATION__ACK_WAIT_S", "0")];
    let app = TestApp::with(&["auth", "location", "message", "notification", "user"], &settings).await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let device = json!({ "token": "a-push-token", "provider": "fcm" });
    app.post("/api/v1/notifications/devices", device).by(&bala).send().await.expect(StatusCode::CREATED);
    app.text(&ada, &talk, "families", &FAMILY.repeat(60)).send().await.expect(StatusCode::CREATED);
    let body = until("the push", async || {
        app.outbox().await.into_iter().find(|item| item["channel"] == "push").map(|item| item["body"].as_str().expect("a text").to_owned())
    })
    .await;
    assert_eq!(body, FAMILY.repeat(14), "as many whole families as fit into 100 characters");
}
