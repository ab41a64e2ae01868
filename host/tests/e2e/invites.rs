//! Joining a group or channel by a link.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{Ask, Person, TestApp, in_seconds, until};

const MESSAGES: &str = "/api/v1/messages";

fn invites(conversation: &str) -> String {
    format!("{MESSAGES}/conversations/{conversation}/invites")
}

fn join(app: &TestApp, person: &Person, invite: &Value) -> Ask {
    let path = format!("{MESSAGES}/join/{}", invite["code"].as_str().expect("code"));
    app.request(Method::POST, &path).json(json!({})).by(person)
}

#[tokio::test]
async fn people_join_by_a_link_until_it_is_used_up() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let (chen, dora) = app.two().await;
    let group = app.group(&ada, &[&bala]).await;
    app.say(&ada, &group, "before").await;
    let invite = app.post(&invites(&group), json!({ "uses_max": 1 })).by(&ada).send().await.expect(StatusCode::CREATED);
    assert_eq!((&invite["uses"], &invite["uses_max"], &invite["expires_at"]), (&json!(0), &json!(1), &Value::Null));
    let mut of_ada = app.socket(&ada, None).await;
    of_ada.next_of("connection_ack").await;

    // Who takes part already is not counted.
    join(&app, &bala, &invite).send().await.expect(StatusCode::OK);
    let joined = join(&app, &chen, &invite).send().await.expect(StatusCode::OK);
    assert_eq!((&joined["id"], &joined["role"], &joined["participant_count"]), (&json!(group), &json!("member"), &json!(3)));
    while of_ada.next_of("conversation").await["payload"]["participant_count"] != 3 {}
    join(&app, &chen, &invite).send().await.expect(StatusCode::OK);
    join(&app, &dora, &invite).send().await.expect_problem(404, "not_found");
    let list = app.get(&invites(&group)).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!((&list["items"][0]["uses"], list["items"].as_array().expect("items").len()), (&json!(1), 1));
    // As anybody who joins: what was said before is not theirs to see.
    let seen = app.get(&format!("{MESSAGES}?conversation_id={group}")).by(&chen).send().await.expect(StatusCode::OK);
    assert_eq!(seen["items"], json!([]));
    app.say(&chen, &group, "Hello, all").await;
}

#[tokio::test]
async fn a_link_ends_by_its_time_by_who_made_it_and_with_the_conversation() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let (chen, _) = app.two().await;
    let group = app.group(&ada, &[&bala]).await;
    let make = |body: Value| app.post(&invites(&group), body).by(&ada);
    let timed = make(json!({ "expires_at": in_seconds(1) })).send().await.expect(StatusCode::CREATED);
    until("its end", async || is_past(&timed).then_some(())).await;
    join(&app, &chen, &timed).send().await.expect_problem(404, "not_found");
    make(json!({ "expires_at": in_seconds(-1) })).send().await.expect_problem(422, "invalid");
    make(json!({ "uses_max": 0 })).send().await.expect_problem(422, "invalid");

    let invite = make(json!({})).send().await.expect(StatusCode::CREATED);
    let path = format!("{}/{}", invites(&group), invite["code"].as_str().expect("code"));
    // Members neither make links nor see them; to strangers the group does not exist.
    let (_, stranger) = app.two().await;
    for (person, status, code) in [(&bala, 403, "not_allowed"), (&stranger, 404, "not_found")] {
        app.post(&invites(&group), json!({})).by(person).send().await.expect_problem(status, code);
        app.get(&invites(&group)).by(person).send().await.expect_problem(status, code);
        app.delete(&path).by(person).send().await.expect_problem(status, code);
    }
    app.delete(&path).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    app.delete(&path).by(&ada).send().await.expect_problem(404, "not_found");
    join(&app, &stranger, &invite).send().await.expect_problem(404, "not_found");

    let last = make(json!({})).send().await.expect(StatusCode::CREATED);
    app.delete(&format!("{MESSAGES}/conversations/{group}")).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    join(&app, &stranger, &last).send().await.expect_problem(404, "not_found");
    let talk = app.conversation(&ada, &bala).await;
    app.post(&invites(&talk), json!({})).by(&ada).send().await.expect_problem(409, "direct_conversation");
}

fn is_past(invite: &Value) -> bool {
    let at: jiff::Timestamp = invite["expires_at"].as_str().expect("an end").parse().expect("a time");
    at <= jiff::Timestamp::now()
}

#[tokio::test]
async fn as_many_join_at_once_as_may() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    let group = app.group(&ada, &[]).await;
    let invite = app.post(&invites(&group), json!({ "uses_max": 2 })).by(&ada).send().await.expect(StatusCode::CREATED);
    let mut people = Vec::new();
    for _ in 0..4 {
        people.push(app.someone().await);
    }
    let tries = futures_util::future::join_all(people.iter().map(|person| join(&app, person, &invite).send())).await;
    assert_eq!(tries.iter().filter(|reply| reply.status == StatusCode::OK).count(), 2);
    let seen = app.get(&format!("{MESSAGES}/conversations/{group}")).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!(seen["participant_count"], 3);
}

#[tokio::test]
async fn a_link_lets_nobody_in_who_was_removed_or_whom_the_owner_blocks() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let (chen, dora) = app.two().await;
    let group = app.group(&ada, &[&bala, &chen]).await;
    let invite = app.post(&invites(&group), json!({})).by(&ada).send().await.expect(StatusCode::CREATED);
    let participants = format!("{MESSAGES}/conversations/{group}/participants");
    let take_out = |person: &Person| app.delete(&format!("{participants}/{}", person.id));

    take_out(&bala).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    join(&app, &bala, &invite).send().await.expect_problem(404, "not_found");
    // Whoever leaves may come back.
    take_out(&chen).by(&chen).send().await.expect(StatusCode::NO_CONTENT);
    join(&app, &chen, &invite).send().await.expect(StatusCode::OK);
    // Somebody who manages the group takes the removal back.
    app.post(&participants, json!({ "user_ids": [bala.id] })).by(&ada).send().await.expect(StatusCode::CREATED);
    take_out(&bala).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    join(&app, &bala, &invite).send().await.expect(StatusCode::OK);

    let blocked = format!("/api/v1/users/blocked/{}", dora.id);
    app.put(&blocked, json!({})).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let path = format!("{MESSAGES}/conversations/{group}");
    // The message service learns of a block by an event.
    until("the block counts", async || {
        let reply = join(&app, &dora, &invite).send().await;
        if reply.status == StatusCode::OK {
            take_out(&dora).by(&dora).send().await.expect(StatusCode::NO_CONTENT);
        }
        (reply.status == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    app.get(&path).by(&dora).send().await.expect_problem(404, "not_found");
    app.delete(&blocked).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    until("the block is over", async || (join(&app, &dora, &invite).send().await.status == StatusCode::OK).then_some(())).await;
}
