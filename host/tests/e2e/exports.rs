//! Account exports: a person reads all that is kept of them, page by page and as it is then; nobody else does, and no service that is away loses it.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::app::{ALL, Person, TestApp, in_seconds, packed, until};
use crate::media::{self, bytes_of};
use crate::stored::{execute, number};

const EXPORT: &str = "/api/v1/auth/account/export";

/// Asks for an export and waits until these parts of it can be read.
pub async fn export(app: &TestApp, person: &Person, parts: &[&str]) -> Value {
    app.request(Method::POST, EXPORT).by(person).send().await.expect(StatusCode::ACCEPTED);
    prepared(app, person, parts).await
}

pub async fn prepared(app: &TestApp, person: &Person, parts: &[&str]) -> Value {
    until("the parts can be read", async || {
        let export = app.get(EXPORT).by(person).send().await.expect(StatusCode::OK);
        let is_missing = |part: &&str| export["missing"].as_array().expect("missing").contains(&json!(part));
        (!parts.iter().any(is_missing)).then_some(export)
    })
    .await
}

/// What an address has, all pages together: lists one after the other, and what is on the first page alone.
pub async fn read(app: &TestApp, person: &Person, address: &str, limit: u32) -> Map<String, Value> {
    let (mut all, mut cursor) = (Map::new(), String::new());
    loop {
        let page = app.get(&format!("{address}?limit={limit}{cursor}")).by(person).send().await.expect(StatusCode::OK);
        let page = page.as_object().expect("an object").clone();
        let next = page["next_cursor"].as_str().map(|next| format!("&cursor={next}"));
        for (name, value) in page {
            let is_on_every_page = name == "parts" || name == "missing";
            let place = all.entry(name).or_insert(Value::Null);
            if place.is_null() {
                *place = value;
            } else if !is_on_every_page && let (Some(items), Value::Array(more)) = (place.as_array_mut(), value) {
                items.extend(more);
            }
        }
        match next {
            Some(next) => cursor = next,
            None => return all,
        }
    }
}

/// All that the export has so far, as text.
pub async fn text_of(app: &TestApp, person: &Person) -> String {
    let own = read(app, person, EXPORT, 100).await;
    let mut text = Value::Object(own.clone()).to_string();
    for part in own["parts"].as_array().expect("parts").iter().filter(|part| !part["prepared_at"].is_null()) {
        text += &Value::Object(read(app, person, part["address"].as_str().expect("an address"), 100).await).to_string();
    }
    text
}

fn contents(messages: &Value) -> BTreeSet<&str> {
    messages.as_array().expect("messages").iter().filter_map(|message| message["content"].as_str()).collect()
}

#[tokio::test]
async fn a_person_reads_all_that_is_kept_of_them_and_nothing_that_others_wrote() {
    let app = TestApp::start().await;
    let (ada, bala) = app.two().await;
    let chen = app.someone().await;
    let id_of = |value: Value| value["id"].as_str().expect("id").to_owned();
    app.patch("/api/v1/users/me", json!({ "display_name": "Ada", "bio": "Counts" })).by(&ada).send().await.expect(StatusCode::OK);
    // The tests' people are called by their numbers.
    app.patch("/api/v1/users/me", json!({ "display_name": "Bala" })).by(&bala).send().await.expect(StatusCode::OK);
    app.put("/api/v1/users/me/privacy", json!({ "groups": "contacts" })).by(&ada).send().await.expect(StatusCode::OK);
    let contact = json!({ "user_id": bala.id, "alias": "B." });
    app.post("/api/v1/users/contacts", contact).by(&ada).send().await.expect(StatusCode::CREATED);
    app.put(&format!("/api/v1/users/blocked/{}", chen.id), json!({})).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let report = json!({ "user_id": chen.id, "reason": "spam" });
    app.post("/api/v1/users/reports", report).by(&ada).send().await.expect(StatusCode::CREATED);

    let (talk, group) = (app.conversation(&ada, &bala).await, app.group(&ada, &[&bala]).await);
    for text in ["one", "two", "three"] {
        app.say(&ada, &talk, text).await;
    }
    let left = app.group(&bala, &[&ada]).await;
    app.say(&ada, &left, "said and left").await;
    let leave = format!("/api/v1/messages/conversations/{left}/participants/{}", ada.id);
    app.delete(&leave).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let answer = app.say(&bala, &group, "what bala wrote").await;
    let message = |path: &str| format!("/api/v1/messages/{}/{path}", answer["id"].as_str().expect("id"));
    app.put(&message("star"), json!({})).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    app.put(&message("reactions/%F0%9F%91%8D"), json!({})).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let later =
        json!({ "conversation_id": talk, "client_message_id": "later", "type": "text", "content": "later", "send_at": in_seconds(3_600) });
    app.post("/api/v1/messages/scheduled", later).by(&ada).send().await.expect(StatusCode::CREATED);
    let draft = format!("/api/v1/messages/conversations/{group}/draft");
    app.put(&draft, json!({ "content": "begun" })).by(&ada).send().await.expect(StatusCode::OK);
    let invites = format!("/api/v1/messages/conversations/{group}/invites");
    app.post(&invites, json!({})).by(&ada).send().await.expect(StatusCode::CREATED);
    let poll = json!({ "question": "when?", "options": ["today", "tomorrow"], "multiple": false });
    let poll = json!({ "conversation_id": group, "client_message_id": "poll", "type": "poll", "poll": poll });
    let poll = id_of(app.post("/api/v1/messages", poll).by(&ada).send().await.expect(StatusCode::CREATED));
    let vote = format!("/api/v1/messages/{poll}/vote");
    app.put(&vote, json!({ "options": [1] })).by(&ada).send().await.expect(StatusCode::OK);
    let file = media::form(&app, &ada, "note.txt", "text/plain", b"some text").send().await.expect(StatusCode::CREATED);
    let device = json!({ "token": "token-of-ada", "provider": "fcm" });
    app.post("/api/v1/notifications/devices", device).by(&ada).send().await.expect(StatusCode::CREATED);
    let preferences = json!({ "messages": "mentions", "previews": false });
    app.put("/api/v1/notifications/preferences", preferences).by(&ada).send().await.expect(StatusCode::OK);

    app.get(EXPORT).by(&ada).send().await.expect_problem(404, "not_found");
    let asked = app.request(Method::POST, EXPORT).by(&ada).send().await.expect(StatusCode::ACCEPTED);
    let addresses: Vec<String> =
        asked["parts"].as_array().expect("parts").iter().map(|part| part["address"].as_str().expect("an address").to_owned()).collect();
    let ready = until("all is prepared", async || {
        let export = app.get(EXPORT).by(&ada).send().await.expect(StatusCode::OK);
        (export["state"] == "ready").then_some(export)
    })
    .await;
    assert_eq!((&ready["id"], &ready["requested_at"], &ready["missing"]), (&asked["id"], &asked["requested_at"], &json!([])));
    // Within a day there is no other.
    let again = app.request(Method::POST, EXPORT).by(&ada).send().await;
    assert!(again.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 80_000), "{again:?}");
    again.expect_problem(429, "too_soon");
    app.say(&ada, &talk, "said later").await;

    // With pages of one or two all lists are cut somewhere.
    for limit in [1, 2, 100] {
        let own = read(&app, &ada, EXPORT, limit).await;
        assert_eq!((&own["account"]["phone"], &own["account"]["user_id"]), (&json!(ada.phone), &json!(ada.id)));
        assert_eq!((&own["has_second_factor"], &own["sessions"][0]["device"]["id"]), (&json!(false), &json!("phone")));
        assert_eq!(own["sessions"][0]["current"], true);

        let user = read(&app, &ada, "/api/v1/users/export", limit).await;
        assert_eq!((&user["profile"]["display_name"], &user["profile"]["bio"]), (&json!("Ada"), &json!("Counts")));
        assert_eq!((&user["profile"]["phone"], &user["privacy"]["groups"]), (&json!(ada.phone), &json!("contacts")));
        assert_eq!((&user["contacts"][0]["alias"], &user["contacts"][0]["user_id"]), (&json!("B."), &json!(bala.id)));
        assert_eq!(user["contacts"][0]["profile"]["phone"], Value::Null, "bala shows it to contacts alone");
        assert_eq!((&user["blocked"][0]["user_id"], &user["reports"][0]["reason"]), (&json!(chen.id), &json!("spam")));

        let messages = read(&app, &ada, "/api/v1/messages/export", limit).await;
        assert_eq!(contents(&messages["messages"]), BTreeSet::from(["one", "two", "three", "said and left", "when?"]));
        let conversations = messages["conversations"].as_array().expect("conversations");
        assert!(conversations.iter().any(|conversation| conversation["id"] == *talk && conversation["other_id"] == bala.id));
        assert!(conversations.iter().any(|conversation| conversation["id"] == *group && conversation["role"] == "owner"));
        assert_eq!((&messages["scheduled"][0]["content"], &messages["drafts"][0]["content"]), (&json!("later"), &json!("begun")));
        assert_eq!((&messages["starred"][0]["message_id"], &messages["reactions"][0]["emoji"]), (&answer["id"], &json!("\u{1f44d}")));
        assert_eq!(messages["votes"], json!([{ "message_id": poll, "choice": 1 }]));
        assert_eq!(messages["invites"][0]["conversation_id"], *group);

        let files = read(&app, &ada, "/api/v1/media/export", limit).await;
        assert_eq!((&files["files"][0]["id"], &files["files"][0]["file_name"]), (&file["id"], &json!("note.txt")));
        let address = files["files"][0]["content_url"].as_str().expect("an address").to_owned();
        assert_eq!(bytes_of(&app, None, &address).await.2, b"some text");

        let notifications = read(&app, &ada, "/api/v1/notifications/export", limit).await;
        assert_eq!(
            (&notifications["devices"][0]["token"], &notifications["preferences"]["messages"]),
            (&json!("token-of-ada"), &json!("mentions"))
        );
    }
    let presence = read(&app, &ada, "/api/v1/presence/export", 100).await;
    assert_eq!(presence["presence"]["user_id"], *ada.id);
    until("analytics has counted her registration", async || {
        read(&app, &ada, "/api/v1/analytics/export", 100).await["registered_on"].is_string().then_some(())
    })
    .await;
    let text = text_of(&app, &ada).await;
    for others in ["what bala wrote", &bala.phone, &chen.phone] {
        assert!(!text.contains(others), "{others} in {text}");
    }
    // Nobody else has an export by it. What `presence` knows of a person is theirs to see at any time.
    app.get(EXPORT).by(&bala).send().await.expect_problem(404, "not_found");
    for address in addresses.iter().filter(|address| !address.contains("presence")) {
        app.get(address).by(&bala).send().await.expect_problem(404, "not_found");
        app.get(address).send().await.expect_problem(401, "token_missing");
    }
}

#[tokio::test]
async fn an_export_that_is_being_prepared_is_the_only_one_and_one_that_has_expired_is_read_by_nobody() {
    let app = TestApp::with(&ALL, &[("ECHO_SERVICES__AUTH__EXPORT_TTL_S", "3")]).await;
    let ada = app.someone().await;
    let asked = app.request(Method::POST, EXPORT).by(&ada).send().await.expect(StatusCode::ACCEPTED);
    let again = app.request(Method::POST, EXPORT).by(&ada).send().await;
    assert!(again.status == StatusCode::TOO_MANY_REQUESTS || again.body["id"] == asked["id"], "{again:?}");
    let addresses: Vec<&str> =
        asked["parts"].as_array().expect("parts").iter().map(|part| part["address"].as_str().expect("one")).collect();
    for address in [&[EXPORT][..], &addresses].concat().into_iter().filter(|address| !address.contains("presence")) {
        until("it has expired", async || (app.get(address).by(&ada).send().await.status == StatusCode::NOT_FOUND).then_some(())).await;
    }
    let tables = [
        ("auth", "account_exports"),
        ("auth", "account_export_parts"),
        ("message", "open_exports"),
        ("notification", "open_exports"),
        ("analytics", "open_exports"),
    ];
    for (service, table) in tables {
        let count = format!("SELECT COUNT(*) FROM {table}");
        until("the rows are cleared away", async || (number(&app, service, &count) == Some(0)).then_some(())).await;
    }
    let next = app.request(Method::POST, EXPORT).by(&ada).send().await.expect(StatusCode::ACCEPTED);
    assert_ne!(next["id"], asked["id"]);
}

#[tokio::test]
async fn a_service_that_is_away_hands_its_part_over_when_it_is_there() {
    let parts = "user=/api/v1/users/export message=/api/v1/messages/export notification=/api/v1/notifications/export";
    let settings = [("ECHO_SERVICES__AUTH__EXPORT_RETRY_S", "1"), ("ECHO_SERVICES__AUTH__EXPORT_PARTS", parts)];
    let app = TestApp::with(&["auth", "location", "notification", "user"], &settings).await;
    let ada = app.someone().await;
    let export = export(&app, &ada, &["user", "notification"]).await;
    assert_eq!((&export["state"], &export["missing"]), (&json!("preparing"), &json!(["message"])));
    assert_eq!(read(&app, &ada, "/api/v1/users/export", 100).await["profile"]["id"], *ada.id);
    let again = app.request(Method::POST, EXPORT).by(&ada).send().await.expect(StatusCode::ACCEPTED);
    assert_eq!(again["id"], export["id"], "it is the only one as long as it is being prepared");
    let file = std::fs::read(packed("message")).expect("a packed file");
    app.deploy("message", file).await.expect(StatusCode::OK);
    let whole = prepared(&app, &ada, &["message"]).await;
    assert_eq!((&whole["state"], &whole["id"]), (&json!("ready"), &export["id"]));
    assert_eq!(read(&app, &ada, "/api/v1/messages/export", 100).await["messages"], json!([]));
}

#[tokio::test]
async fn an_export_of_fifty_thousand_messages_is_read_page_by_page() {
    const MESSAGES: usize = 50_000;
    let mut app = TestApp::with(&["auth", "location", "message", "notification", "user"], &[]).await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    app.terminate().await;
    // The statement is the same but for what the engines call their types.
    let (uuid, at, bytes) = match app.database() {
        Some(_) => ("::uuid", "now()", "'\\x00'::bytea"),
        None => ("", "1700000000000000", "x'00'"),
    };
    let sql = format!(
        "INSERT INTO messages (id, conversation_id, seq, sender_id, client_message_id, content_hash, kind, content, created_at) \
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MESSAGES}) \
         SELECT ('01890000-0000-7000-8000-' || substr(CAST(1000000000000 + i AS TEXT), 2)){uuid}, '{talk}'{uuid}, i, '{}'{uuid}, \
         'of before ' || CAST(i AS TEXT), {bytes}, 'text', 'text ' || CAST(i AS TEXT), {at} FROM n",
        ada.id
    );
    execute(&app, "message", &sql);
    app.restart().await;

    export(&app, &ada, &["message"]).await;
    let all = read(&app, &ada, "/api/v1/messages/export", 100).await;
    let found = contents(&all["messages"]);
    assert_eq!((all["messages"].as_array().map(Vec::len), found.len()), (Some(MESSAGES), MESSAGES), "each once");
}
