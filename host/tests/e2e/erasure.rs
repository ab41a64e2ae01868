//! Deleting an account: its owner can have it back for a while, and after that nothing of the person is left anywhere.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::app::{TestApp, in_seconds, until, unused_phone};
use crate::exports;
use crate::stored::holding;

const ACCOUNT: &str = "/api/v1/auth/account";
const SERVICES: &[&str] = &["analytics", "auth", "location", "media", "message", "notification", "presence", "user"];

/// How long something may be found in a file afterwards.
const A_MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_deleted_account_is_had_back_by_signing_in() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let message = app.say(&ada, &talk, "still here").await;
    let mut socket = app.socket(&ada, None).await;
    socket.next_of("connection_ack").await;

    app.delete(ACCOUNT).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(socket.closed().await, Some(4401));
    app.get("/api/v1/users/me").by(&ada).send().await.expect_problem(401, "token_revoked");
    let refresh = json!({ "refresh_token": ada.refresh_token });
    app.post("/api/v1/auth/refresh", refresh).send().await.expect_problem(401, "refresh_invalid");
    let register = json!({ "phone": ada.phone, "password": "another horse 8" });
    app.post("/api/v1/auth/register", register).send().await.expect_problem(409, "phone_taken");

    let back = app.log_in(&ada, "laptop").await;
    assert_eq!(back.id, ada.id);
    let path = format!("/api/v1/messages/{}", message["id"].as_str().expect("id"));
    assert_eq!(app.get(&path).by(&back).send().await.expect(StatusCode::OK)["content"], "still here");
}

#[tokio::test]
async fn a_deleted_account_is_to_others_as_if_there_were_none() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let chen = app.someone().await;
    let group = app.group(&ada, &[&bala]).await;
    let (talk, other_group) = (app.conversation(&ada, &bala).await, app.group(&bala, &[]).await);
    let invites = format!("/api/v1/messages/conversations/{group}/invites");
    let invite = app.post(&invites, json!({})).by(&ada).send().await.expect(StatusCode::CREATED);
    let join = format!("/api/v1/messages/join/{}", invite["code"].as_str().expect("code"));
    let later =
        json!({ "conversation_id": talk, "client_message_id": "later", "type": "text", "content": "later", "send_at": in_seconds(3) });
    app.post("/api/v1/messages/scheduled", later).by(&ada).send().await.expect(StatusCode::CREATED);
    app.post("/api/v1/users/contacts", json!({ "user_id": ada.id })).by(&bala).send().await.expect(StatusCode::CREATED);
    let (profile, batch) = (format!("/api/v1/users/{}", ada.id), json!({ "ids": [ada.id, bala.id] }));

    app.delete(ACCOUNT).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    until("the profile is gone", async || (app.get(&profile).by(&bala).send().await.status == StatusCode::NOT_FOUND).then_some(())).await;
    let found = app.post("/api/v1/users/batch", batch.clone()).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(found["items"].as_array().map(Vec::len), Some(1));
    let contacts = app.get("/api/v1/users/contacts").by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(contacts["items"], json!([]));
    let path = format!("/api/v1/messages/conversations/{other_group}/participants");
    app.post(&path, json!({ "user_ids": [ada.id] })).by(&bala).send().await.expect_problem(422, "unknown_participant");
    let direct = json!({ "type": "direct", "participant_ids": [ada.id] });
    app.post("/api/v1/messages/conversations", direct.clone()).by(&chen).send().await.expect_problem(422, "unknown_participant");
    until("the link is gone", async || {
        let reply = app.post(&join, json!({})).by(&bala).send().await;
        (reply.status == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    app.post(&join, json!({})).by(&chen).send().await.expect_problem(404, "not_found");

    let back = app.log_in(&ada, "laptop").await;
    until("the profile is back", async || (app.get(&profile).by(&bala).send().await.status == StatusCode::OK).then_some(())).await;
    let failed = app.get("/api/v1/messages/scheduled").by(&back).send().await.expect(StatusCode::OK);
    assert_eq!((&failed["items"][0]["failure"], &failed["items"][0]["content"]), (&json!("account_deleted"), &json!("later")));
    let said = app.get(&format!("/api/v1/messages?conversation_id={talk}")).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(said["items"], json!([]));
    until("the link is back", async || (app.post(&join, json!({})).by(&chen).send().await.status == StatusCode::OK).then_some(())).await;
    app.post("/api/v1/messages/conversations", direct).by(&chen).send().await.expect(StatusCode::CREATED);
    assert_eq!(
        app.post("/api/v1/users/batch", batch).by(&bala).send().await.expect(StatusCode::OK)["items"].as_array().map(Vec::len),
        Some(2)
    );
}

#[tokio::test]
async fn of_an_erased_person_nothing_is_left() {
    let settings = [("ECHO_SERVICES__AUTH__ERASURE_DELAY_S", "0"), ("ECHO_SERVICES__NOTIFICATION__ACK_WAIT_S", "0")];
    let app = TestApp::with(SERVICES, &settings).await;
    let (phone, bala) = (unused_phone(), app.someone().await);
    let ada = app.sign_up(&phone, "phone").await;
    let [name, bio, said, reworded, in_group, draft, alias] =
        ["adaname", "adabio", "adasaid", "adareworded", "adagroup", "adadraft", "adaalias"].map(|word| format!("{word}c0ffee"));

    let profile = json!({ "display_name": name, "bio": bio });
    app.patch("/api/v1/users/me", profile).by(&ada).send().await.expect(StatusCode::OK);
    let contact = json!({ "user_id": ada.id, "alias": alias });
    app.post("/api/v1/users/contacts", contact).by(&bala).send().await.expect(StatusCode::CREATED);
    app.put(&format!("/api/v1/users/blocked/{}", app.someone().await.id), json!({})).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let device = json!({ "token": "of-bala", "provider": "fcm" });
    app.post("/api/v1/notifications/devices", device).by(&bala).send().await.expect(StatusCode::CREATED);
    let device = json!({ "token": "adatokenc0ffee", "provider": "fcm" });
    app.post("/api/v1/notifications/devices", device).by(&ada).send().await.expect(StatusCode::CREATED);
    let talk = app.conversation(&ada, &bala).await;
    let message = app.say(&ada, &talk, &said).await;
    let edited = app.say(&ada, &talk, &reworded).await;
    let path_of = |message: &serde_json::Value| format!("/api/v1/messages/{}", message["id"].as_str().expect("id"));
    app.patch(&path_of(&edited), json!({ "content": format!("{reworded} again") })).by(&ada).send().await.expect(StatusCode::OK);
    let group = app.group(&ada, &[&bala]).await;
    app.say(&ada, &group, &in_group).await;
    let of_bala = app.say(&bala, &group, "balaremains").await;
    let path = format!("/api/v1/messages/conversations/{group}/draft");
    app.put(&path, json!({ "content": draft })).by(&ada).send().await.expect(StatusCode::OK);
    let file = "adafilec0ffee";
    let form = format!("--B\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n{file}\r\n--B--\r\n");
    let upload = app.request(Method::POST, "/api/v1/media/upload").by(&ada).header("content-type", "multipart/form-data; boundary=B");
    upload.bytes(form).send().await.expect(StatusCode::CREATED);
    // It is in the files, in the other's feed and about to be pushed: else the search below would say nothing.
    for text in [&phone[1..], &name, &said, &reworded, &in_group, &draft, &alias, file] {
        until("it is in a file", async || (!holding(&app, text).is_empty()).then_some(())).await;
    }

    let parts = ["analytics", "media", "message", "notification", "presence", "user"];
    exports::export(&app, &bala, &parts).await;
    let export = exports::export(&app, &ada, &parts).await;
    let export_id = export["id"].as_str().expect("id").to_owned();
    let (of_bala_before, of_ada) = (exports::text_of(&app, &bala).await, exports::text_of(&app, &ada).await);
    assert!(
        [&name, &alias].into_iter().all(|text| of_bala_before.contains(text)),
        "else it would say nothing that they are not there later"
    );
    assert!([&said, &in_group, &draft, &bio].into_iter().all(|text| of_ada.contains(text)));

    app.delete(ACCOUNT).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let erased_at = Instant::now();
    for address in std::iter::once("/api/v1/auth/account/export")
        .chain(export["parts"].as_array().into_iter().flatten().filter_map(|part| part["address"].as_str()))
    {
        app.get(address).by(&ada).send().await.expect_problem(401, "token_revoked");
    }
    let profile = format!("/api/v1/users/{}", ada.id);
    until("the profile is gone", async || (app.get(&profile).by(&bala).send().await.status == StatusCode::NOT_FOUND).then_some(())).await;
    until("the messages are gone", async || {
        (app.get(&path_of(&message)).by(&bala).send().await.status == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    until("the group goes on without them", async || {
        let path = format!("/api/v1/messages/conversations/{group}");
        let conversation = app.get(&path).by(&bala).send().await.expect(StatusCode::OK);
        (conversation["role"] == "owner" && conversation["participant_ids"] == json!([bala.id])).then_some(())
    })
    .await;
    assert_eq!(app.get(&path_of(&of_bala)).by(&bala).send().await.expect(StatusCode::OK)["content"], "balaremains");
    let contacts = app.get("/api/v1/users/contacts").by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(contacts["items"], json!([]));
    let exported = exports::text_of(&app, &bala).await;
    for text in [&phone, &name, &bio, &said, &reworded, &in_group, &draft, &alias] {
        assert!(!exported.contains(text.as_str()), "{text} in {exported}");
    }

    for text in [&phone[1..], &name, &bio, &said, &reworded, &in_group, &draft, &alias, "adatokenc0ffee", file, &export_id] {
        loop {
            let found = holding(&app, text);
            if found.is_empty() {
                break;
            }
            assert!(erased_at.elapsed() < A_MINUTE, "{text} is still in {found:?}");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    // The number is free, and whoever has it now is somebody else.
    let login = json!({ "phone": phone, "password": ada.password, "device": { "id": "phone" } });
    app.post("/api/v1/auth/login", login).send().await.expect_problem(401, "invalid_credentials");
    let next = app.sign_up(&phone, "phone").await;
    assert_ne!(next.id, ada.id);
    let typing = app.request(Method::GET, &path_of(&message)).by(&next).send().await;
    typing.expect_problem(404, "not_found");
}
