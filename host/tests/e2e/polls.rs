//! Polls: asked as a message, voted on, closed.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{Ask, Person, TestApp, in_seconds, until};

const MESSAGES: &str = "/api/v1/messages";

fn path_of(message: &Value) -> String {
    format!("{MESSAGES}/{}", message["id"].as_str().expect("id"))
}

fn ask(app: &TestApp, person: &Person, talk: &str, key: &str, poll: Value) -> Ask {
    let body = json!({ "conversation_id": talk, "client_message_id": key, "type": "poll", "poll": poll });
    app.post(MESSAGES, body).by(person)
}

fn vote(app: &TestApp, person: &Person, poll: &Value, options: &[u32]) -> Ask {
    app.put(&format!("{}/vote", path_of(poll)), json!({ "options": options })).by(person)
}

fn close(app: &TestApp, person: &Person, poll: &Value) -> Ask {
    app.request(Method::POST, &format!("{}/close", path_of(poll))).json(json!({})).by(person)
}

/// `(votes of each option, voters, own votes, closed)`.
fn results(message: &Value) -> (Vec<u64>, u64, Value, bool) {
    let poll = &message["poll"];
    let votes = poll["options"].as_array().expect("options").iter().map(|option| option["votes"].as_u64().expect("a count"));
    (votes.collect(), poll["voters"].as_u64().expect("a count"), poll["own_votes"].clone(), poll["closed"].as_bool().expect("closed"))
}

#[tokio::test]
async fn a_poll_is_asked_voted_on_and_closed() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let chen = app.someone().await;
    let group = app.group(&chen, &[&ada, &bala]).await;
    let mut of_bala = app.socket(&bala, None).await;
    of_bala.next_of("connection_ack").await;
    let asked = json!({ "question": "Where do we meet?", "options": ["bridge", "café", "station"] });
    let poll = ask(&app, &ada, &group, "where", asked.clone()).send().await.expect(StatusCode::CREATED);
    assert_eq!((&poll["type"], &poll["content"]), (&json!("poll"), &json!("Where do we meet?")));
    assert_eq!(results(&poll), (vec![0, 0, 0], 0, json!([]), false));
    assert_eq!(of_bala.next_of("message").await["payload"]["poll"], poll["poll"]);
    // The same again is the same; another under its client id is not.
    let again = ask(&app, &ada, &group, "where", asked).send().await.expect(StatusCode::CREATED);
    assert_eq!(again, poll);
    let other = json!({ "question": "Where do we meet?", "options": ["bridge", "café"] });
    ask(&app, &ada, &group, "where", other).send().await.expect_problem(409, "client_message_id_reused");

    let voted = vote(&app, &bala, &poll, &[1]).send().await.expect(StatusCode::OK);
    assert_eq!(results(&voted), (vec![0, 1, 0], 1, json!([1]), false));
    let frame = of_bala.next_of("poll").await;
    assert!(frame["seq"].is_u64(), "{frame}");
    let payload = &frame["payload"];
    assert_eq!((&payload["message_id"], &payload["votes"], &payload["voters"]), (&poll["id"], &json!([0, 1, 0]), &json!(1)));
    // Another choice takes its place, and one's vote can be taken back.
    for (options, expect) in [(&[0][..], (vec![1, 0, 0], 1, json!([0]), false)), (&[], (vec![0, 0, 0], 0, json!([]), false))] {
        assert_eq!(results(&vote(&app, &bala, &poll, options).send().await.expect(StatusCode::OK)), expect);
    }
    vote(&app, &bala, &poll, &[2]).send().await.expect(StatusCode::OK);
    vote(&app, &chen, &poll, &[2, 2]).send().await.expect(StatusCode::OK);
    // In the message, wherever it is seen, with one's own choice.
    let list = app.get(&format!("{MESSAGES}?conversation_id={group}")).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!(results(&list["items"][0]), (vec![0, 0, 2], 2, json!([]), false));
    let conversation = app.get(&format!("{MESSAGES}/conversations/{group}")).by(&chen).send().await.expect(StatusCode::OK);
    assert_eq!(results(&conversation["last_message"]), (vec![0, 0, 2], 2, json!([2]), false));

    vote(&app, &bala, &poll, &[0, 1]).send().await.expect_problem(422, "invalid");
    let refused = vote(&app, &bala, &poll, &[3]).send().await.expect_problem(422, "invalid");
    assert_eq!(refused["errors"][0]["field"], "options[0]");
    let stranger = app.someone().await;
    vote(&app, &stranger, &poll, &[0]).send().await.expect_problem(404, "not_found");
    close(&app, &stranger, &poll).send().await.expect_problem(404, "not_found");
    let text = app.say(&ada, &group, "Hello").await;
    vote(&app, &bala, &text, &[0]).send().await.expect_problem(409, "not_a_poll");
    app.patch(&path_of(&poll), json!({ "content": "Whom do we meet?" })).by(&ada).send().await.expect_problem(409, "poll_unchangeable");

    close(&app, &bala, &poll).send().await.expect_problem(403, "not_allowed");
    for person in [&ada, &chen] {
        assert!(results(&close(&app, person, &poll).send().await.expect(StatusCode::OK)).3);
    }
    vote(&app, &bala, &poll, &[0]).send().await.expect_problem(409, "poll_closed");
    while of_bala.next_of("poll").await["payload"]["closed"] != true {}

    // Deleted, it has neither question nor options.
    app.delete(&format!("{}?for=everyone", path_of(&poll))).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let seen = app.get(&path_of(&poll)).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!((&seen["type"], &seen["content"], &seen["poll"]), (&json!("poll"), &Value::Null, &Value::Null));
    vote(&app, &bala, &poll, &[0]).send().await.expect_problem(409, "message_deleted");
}

#[tokio::test]
async fn a_poll_may_take_several_choices_and_close_by_its_time() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let asked = json!({ "question": "Which?", "options": ["a", "b", "c"], "multiple": true });
    let poll = ask(&app, &ada, &talk, "which", asked).send().await.expect(StatusCode::CREATED);
    let voted = vote(&app, &bala, &poll, &[2, 0]).send().await.expect(StatusCode::OK);
    assert_eq!(results(&voted), (vec![1, 0, 1], 1, json!([0, 2]), false));

    let timed = json!({ "question": "Now?", "options": ["yes", "no"], "closes_at": in_seconds(2) });
    let poll = ask(&app, &ada, &talk, "now", timed.clone()).send().await.expect(StatusCode::CREATED);
    until("it closes by itself", async || {
        let seen = app.get(&path_of(&poll)).by(&bala).send().await.expect(StatusCode::OK);
        results(&seen).3.then_some(())
    })
    .await;
    vote(&app, &bala, &poll, &[0]).send().await.expect_problem(409, "poll_closed");
    // What was accepted once stays accepted; a new one would be late.
    ask(&app, &ada, &talk, "now", timed.clone()).send().await.expect(StatusCode::CREATED);
    ask(&app, &ada, &talk, "late", timed).send().await.expect_problem(422, "invalid");

    for (key, poll, code) in [
        ("one option", json!({ "question": "?", "options": ["a"] }), "invalid"),
        ("thirteen", json!({ "question": "?", "options": (0..13).map(|number| number.to_string()).collect::<Vec<_>>() }), "invalid"),
        ("twice", json!({ "question": "?", "options": ["a", "a"] }), "repeated"),
    ] {
        ask(&app, &ada, &talk, key, poll).send().await.expect_problem(422, code);
    }
}
