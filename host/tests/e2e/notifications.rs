//! What a person wants pushes of, and the list of notifications in the app.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{Ask, Person, TestApp, until};

const NOTIFICATIONS: &str = "/api/v1/notifications";
const PREFERENCES: &str = "/api/v1/notifications/preferences";

async fn prefers(app: &TestApp, person: &Person, preferences: Value) {
    let answer = app.put(PREFERENCES, preferences.clone()).by(person).send().await.expect(StatusCode::OK);
    assert_eq!(answer, app.get(PREFERENCES).by(person).send().await.expect(StatusCode::OK));
}

fn mention(app: &TestApp, by: &Person, talk: &str, key: &str, whom: &Person) -> Ask {
    let body = json!({ "conversation_id": talk, "client_message_id": key, "type": "text", "content": key, "mentions": [whom.id] });
    app.post("/api/v1/messages", body).by(by)
}

/// Why the person got a push for the message, or not, once it is decided.
async fn decided(app: &TestApp, person: &Person, message: &Value) -> String {
    let path = format!("{NOTIFICATIONS}/trace/{}", message["id"].as_str().expect("id"));
    until("it is decided", async || {
        let trace = app.get(&path).by(person).send().await;
        if trace.status != StatusCode::OK {
            return None;
        }
        let own = trace.body["items"].as_array()?.first()?["decision"].as_str()?.to_owned();
        (own != "waiting").then_some(own)
    })
    .await
}

/// What was to be pushed to this device.
async fn pushed(app: &TestApp, token: &str) -> Vec<String> {
    let outbox = app.get("/dev/outbox").send().await.expect(StatusCode::OK);
    let items = outbox["items"].as_array().expect("items").iter().filter(|item| item["to"] == token);
    items.map(|item| item["body"].as_str().expect("body").to_owned()).collect()
}

#[tokio::test]
async fn pushes_are_sent_as_their_recipient_wants_them_and_the_sender_sees_no_difference() {
    let settings = [("ECHO_SERVICES__NOTIFICATION__ACK_WAIT_S", "0")];
    let app = TestApp::with(&["auth", "location", "message", "notification", "user"], &settings).await;
    let (ada, bala) = app.two().await;
    let device = json!({ "token": "of-bala", "provider": "fcm" });
    app.post("/api/v1/notifications/devices", device).by(&bala).send().await.expect(StatusCode::CREATED);
    let talk = app.conversation(&ada, &bala).await;
    let chosen = app.get(PREFERENCES).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(chosen, json!({ "messages": "all", "previews": true, "quiet_hours": null }));

    prefers(&app, &bala, json!({ "messages": "mentions", "previews": false, "quiet_hours": null })).await;
    let unwanted = app.say(&ada, &talk, "unwanted").await;
    assert_eq!(decided(&app, &bala, &unwanted).await, "unwanted");
    assert_eq!(decided(&app, &ada, &unwanted).await, "pushed");
    let wanted = mention(&app, &ada, &talk, "wanted", &bala).send().await.expect(StatusCode::CREATED);
    assert_eq!(decided(&app, &bala, &wanted).await, "pushed");
    assert_eq!(pushed(&app, "of-bala").await, ["You have a new message"]);
    let path = format!("/api/v1/messages/{}", wanted["id"].as_str().expect("id"));
    app.patch(&path, json!({ "content": "wanted more" })).by(&ada).send().await.expect(StatusCode::OK);

    let always = json!({ "start": "00:00", "end": "00:00", "timezone": "Asia/Kolkata" });
    prefers(&app, &bala, json!({ "messages": "all", "previews": true, "quiet_hours": always })).await;
    let at_night = app.say(&ada, &talk, "at night").await;
    assert_eq!((decided(&app, &bala, &at_night).await, decided(&app, &ada, &at_night).await), ("quiet".into(), "pushed".into()));
    assert_eq!(pushed(&app, "of-bala").await, ["You have a new message"], "an edit shows no more of it");

    let wrongs =
        [("timezone", "Mars/Olympus", "invalid_timezone"), ("timezone", "Factory", "invalid_timezone"), ("start", "24:00", "invalid_time")];
    for (field, wrong, code) in wrongs {
        let mut hours = always.clone();
        hours[field] = json!(wrong);
        let preferences = json!({ "messages": "all", "previews": true, "quiet_hours": hours });
        app.put(PREFERENCES, preferences).by(&bala).send().await.expect_problem(422, code);
    }
    let hours = json!({ "start": "00:00", "end": "00:00", "timezone": "europe/BERLIN" });
    let kept = app.put(PREFERENCES, json!({ "messages": "all", "previews": true, "quiet_hours": hours })).by(&bala).send().await;
    assert_eq!(kept.expect(StatusCode::OK)["quiet_hours"]["timezone"], "Europe/Berlin", "as the database writes it");
}

#[tokio::test]
async fn mentions_and_changes_of_the_password_are_in_the_list_until_they_are_read_or_deleted() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let group = app.group(&ada, &[&bala]).await;
    let list = async |person: &Person| app.get(NOTIFICATIONS).by(person).send().await.expect(StatusCode::OK);
    let first = mention(&app, &ada, &group, "first", &bala).send().await.expect(StatusCode::CREATED);
    let second = mention(&app, &ada, &group, "second", &bala).send().await.expect(StatusCode::CREATED);
    app.say(&ada, &group, "nobody in particular").await;
    until("both are listed", async || (list(&bala).await["unread_count"] == 2).then_some(())).await;
    let listed = list(&bala).await;
    let of_message = |at: usize| &listed["items"][at];
    assert_eq!((&of_message(0)["message_id"], &of_message(1)["message_id"]), (&second["id"], &first["id"]));
    assert_eq!((&of_message(0)["kind"], &of_message(0)["sender_id"]), (&json!("mention"), &json!(ada.id)));
    assert_eq!(list(&ada).await["items"], json!([]));
    let page = app.get(&format!("{NOTIFICATIONS}?limit=1")).by(&bala).send().await.expect(StatusCode::OK);
    let next = format!("{NOTIFICATIONS}?limit=1&cursor={}", page["next_cursor"].as_str().expect("there is more"));
    let last = app.get(&next).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(json!([page["items"][0], last["items"][0]]), listed["items"]);
    assert_eq!(last["next_cursor"], Value::Null);
    app.get(&next).by(&ada).send().await.expect_problem(422, "cursor_invalid");

    let read = format!("{NOTIFICATIONS}/read");
    app.post(&read, json!({ "up_to": of_message(1)["id"] })).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(list(&bala).await["unread_count"], 1);
    app.delete(&format!("/api/v1/messages/{}?for=everyone", second["id"].as_str().expect("id")))
        .by(&ada)
        .send()
        .await
        .expect(StatusCode::NO_CONTENT);
    until("it goes with its message", async || (list(&bala).await["items"].as_array().map(Vec::len) == Some(1)).then_some(())).await;

    let change = json!({ "current_password": bala.password, "new_password": "another horse 8" });
    app.post("/api/v1/auth/password/change", change).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    until("the change is listed", async || (list(&bala).await["items"][0]["kind"] == "password_changed").then_some(())).await;
}

#[tokio::test]
async fn a_mention_in_a_message_that_is_deleted_at_once_does_not_stay_in_the_list() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let group = app.group(&ada, &[&bala]).await;
    for n in 0..10 {
        let message = mention(&app, &ada, &group, &format!("gone {n}"), &bala).send().await.expect(StatusCode::CREATED);
        let path = format!("/api/v1/messages/{}?for=everyone", message["id"].as_str().expect("id"));
        app.delete(&path).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    }
    let last = mention(&app, &ada, &group, "stays", &bala).send().await.expect(StatusCode::CREATED);
    until("the last one alone is listed", async || {
        let list = app.get(NOTIFICATIONS).by(&bala).send().await.expect(StatusCode::OK);
        let listed = list["items"].as_array().expect("items").iter().map(|item| &item["message_id"]).collect::<Vec<_>>();
        (listed == [&last["id"]]).then_some(())
    })
    .await;
}
