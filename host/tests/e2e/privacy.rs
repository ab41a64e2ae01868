//! What each choice of privacy shows to a stranger, to a contact and to somebody who is blocked, wherever it could be seen. Presence and last seen, which go over
//! sockets too, have their table in `presence.rs`.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{Person, TestApp, until};

const USERS: &str = "/api/v1/users";

/// The owner has the contact and the blocked one in the address book; the block holds all the same.
struct Scene {
    owner: Person,
    stranger: Person,
    contact: Person,
    blocked: Person,
}

async fn scene(app: &TestApp) -> Scene {
    let (owner, stranger) = app.two().await;
    let (contact, blocked) = app.two().await;
    for other in [&contact, &blocked] {
        app.post(&format!("{USERS}/contacts"), json!({ "user_id": other.id })).by(&owner).send().await.expect(StatusCode::CREATED);
    }
    app.put(&format!("{USERS}/blocked/{}", blocked.id), json!({})).by(&owner).send().await.expect(StatusCode::NO_CONTENT);
    Scene { owner, stranger, contact, blocked }
}

/// Everything is for everyone but what the line of a table is about.
async fn chooses(app: &TestApp, owner: &Person, setting: &str, value: &str) {
    let mut privacy =
        json!({ "phone_visible": "everyone", "profile_visible": "everyone", "read_receipts": "everyone", "groups": "everyone" });
    privacy[setting] = value.into();
    app.put(&format!("{USERS}/me/privacy"), privacy).by(owner).send().await.expect(StatusCode::OK);
}

/// In words, in this order: the number and the rest of the profile in GET and in a batch; whether a search by name, one by number and a look through an address
/// book find the owner; whether the owner can be added to a group.
async fn seen(app: &TestApp, viewer: &Person, owner: &Person, name: &str) -> String {
    let profile = app.get(&format!("{USERS}/{}", owner.id)).by(viewer).send().await.expect(StatusCode::OK);
    let batch = app.post(&format!("{USERS}/batch"), json!({ "ids": [owner.id] })).by(viewer).send().await.expect(StatusCode::OK);
    assert_eq!(batch["items"], json!([profile]), "a batch shows what one profile does");
    let found = async |text: &str| {
        let path = format!("{USERS}/search?q={}", text.replace('+', "%2B"));
        let people = app.get(&path).by(viewer).send().await.expect(StatusCode::OK)["items"].clone();
        let one = people.as_array().expect("items").iter().find(|person| person["id"] == owner.id.as_str()).cloned();
        assert!(one.as_ref().is_none_or(|person| *person == profile), "a search shows what the profile does");
        one.is_some()
    };
    let matching = json!({ "phones": [owner.phone] });
    let matched = app.post(&format!("{USERS}/contacts/match"), matching).by(viewer).send().await.expect(StatusCode::OK);
    let group = json!({ "type": "group", "title": "Group", "participant_ids": [owner.id] });
    let group = app.post("/api/v1/messages/conversations", group).by(viewer).send().await.expect(StatusCode::CREATED);
    let is_full = |list: &Value| list.as_array().is_some_and(|items| !items.is_empty());
    let words = [
        ("phone", profile["phone"] == owner.phone.as_str()),
        ("profile", profile["bio"] == "all about me"),
        ("name", found(name).await),
        ("number", found(&owner.phone).await),
        ("match", is_full(&matched["items"])),
        ("group", !is_full(&group["not_added"])),
    ];
    words.into_iter().filter(|(_, is_seen)| *is_seen).map(|(word, _)| word).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn each_choice_shows_to_each_viewer_what_the_table_says() {
    const ALL: &str = "phone profile name number match group";
    // By setting and value: what a stranger and what a contact sees. Somebody who is blocked sees nothing, whatever is chosen.
    const TABLE: [(&str, &str, &str, &str); 9] = [
        ("phone_visible", "everyone", ALL, ALL),
        ("phone_visible", "contacts", "profile name group", ALL),
        ("phone_visible", "nobody", "profile name group", "profile name group"),
        ("profile_visible", "everyone", ALL, ALL),
        ("profile_visible", "contacts", "phone number match group", ALL),
        ("profile_visible", "nobody", "phone number match group", "phone number match group"),
        ("groups", "everyone", ALL, ALL),
        ("groups", "contacts", "phone profile name number match", ALL),
        ("groups", "nobody", "phone profile name number match", "phone profile name number match"),
    ];
    let app = TestApp::shared().await;
    let Scene { owner, stranger, contact, blocked } = scene(&app).await;
    // A name that nobody else has.
    let name = format!("Olga{}", &owner.id[24..]);
    let profile = json!({ "display_name": name, "bio": "all about me" });
    app.patch(&format!("{USERS}/me"), profile).by(&owner).send().await.expect(StatusCode::OK);
    for (setting, value, to_stranger, to_contact) in TABLE {
        chooses(&app, &owner, setting, value).await;
        for (who, viewer, expected) in [("stranger", &stranger, to_stranger), ("contact", &contact, to_contact), ("blocked", &blocked, "")]
        {
            assert_eq!(seen(&app, viewer, &owner, &name).await, expected, "{setting} = {value}, to the {who}");
        }
    }
}

#[tokio::test]
async fn each_choice_shows_to_each_sender_whether_a_message_was_read() {
    let app = TestApp::shared().await;
    let Scene { owner, stranger, contact, blocked } = scene(&app).await;
    // Of the contact, so that the blocked one can be in it with the owner.
    let group = app.group(&contact, &[&owner, &stranger, &blocked]).await;
    let path_of = |message: &Value| format!("/api/v1/messages/{}", message["id"].as_str().expect("id"));
    // The block travels by the queue.
    until("the block is in force", async || {
        let probe = app.say(&blocked, &group, "probe").await;
        (app.get(&path_of(&probe)).by(&owner).send().await.status == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    for (value, to_stranger, to_contact) in
        [("everyone", "read", "read"), ("contacts", "delivered", "read"), ("nobody", "delivered", "delivered")]
    {
        chooses(&app, &owner, "read_receipts", value).await;
        for (who, sender, expected) in
            [("stranger", &stranger, to_stranger), ("contact", &contact, to_contact), ("blocked", &blocked, "sent")]
        {
            let message = app.say(sender, &group, value).await;
            let read = json!({ "conversation_id": group, "up_to_seq": message["seq"] });
            app.post("/api/v1/messages/read", read).by(&owner).send().await.expect(StatusCode::OK);
            let statuses = app.get(&format!("{}/status", path_of(&message))).by(sender).send().await.expect(StatusCode::OK);
            let of_owner = statuses["items"].as_array().expect("items").iter().find(|item| item["user_id"] == owner.id.as_str());
            assert_eq!(of_owner.expect("a recipient")["status"], expected, "read_receipts = {value}, to the {who}");
        }
    }
}
