//! What one person can do to the feed of another, and what a device may say of a feed.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{Person, TestApp, until};

const MESSAGES: &str = "/api/v1/messages";

async fn head_of(app: &TestApp, person: &Person) -> u64 {
    app.socket(person, None).await.next_of("connection_ack").await["payload"]["cursor"].as_u64().expect("a cursor")
}

#[tokio::test]
async fn a_burst_of_titles_is_few_events_and_the_last_title_arrives() {
    let app = TestApp::start().await;
    let (stranger, victim) = app.two().await;
    let group = app.group(&stranger, &[&victim]).await;
    let before = head_of(&app, &victim).await;
    let path = format!("{MESSAGES}/conversations/{group}");
    let change = async |title: String| app.patch(&path, json!({ "title": title })).by(&stranger).send().await.expect(StatusCode::OK);
    let mut socket = app.socket(&victim, None).await;
    for round in 0..20 {
        join_all((0..20).map(|number| change(format!("title {round}.{number}")))).await;
    }
    let began = std::time::Instant::now();
    change("the last".to_owned()).await;
    loop {
        let event = socket.next_of("conversation").await;
        if event["payload"]["title"] == "the last" {
            break;
        }
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    // Two a second, however fast they come.
    let events = head_of(&app, &victim).await - before;
    assert!(events <= 40, "{events} events of 401 changes");
}

#[tokio::test]
async fn who_floods_anothers_feed_is_refused_and_nothing_of_it_is_kept() {
    let app = TestApp::with(&["auth", "location", "message", "notification", "user"], &[("ECHO_GATEWAY__RATE_SCALE", "1")]).await;
    let (stranger, victim) = app.two().await;
    let talk = app.conversation(&stranger, &victim).await;
    let before = head_of(&app, &victim).await;
    let first = app.say(&stranger, &talk, "hello").await;
    // With everything that reaches another's feed, as fast as the routes' own rates allow.
    let (mut accepted, mut edits, mut refused) = (0, 0, None);
    let until_s = std::time::Instant::now() + Duration::from_secs(100);
    while refused.is_none() {
        assert!(std::time::Instant::now() < until_s, "no bound after {accepted} messages and {edits} edits");
        let said = app.text(&stranger, &talk, &format!("flood-{accepted}"), "spam").send().await;
        let is_said = said.status == StatusCode::CREATED;
        accepted += u64::from(is_said);
        let edited = app.patch(&format!("{MESSAGES}/{}", first["id"].as_str().expect("id")), json!({ "content": format!("spam {edits}") }));
        let edited = edited.by(&stranger).send().await;
        edits += u64::from(edited.status == StatusCode::OK);
        let of_the_feed = |reply: &crate::app::Reply| reply.body["code"] == "too_many_events";
        if !is_said && !of_the_feed(&said) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        refused = Some(said).filter(of_the_feed);
    }
    let refused = refused.expect("a bound");
    assert!(refused.header("retry-after").parse::<u64>().expect("seconds") > 0);
    refused.expect_problem(429, "too_many_events");
    let seen = app.get(&format!("{MESSAGES}?conversation_id={talk}&limit=1")).by(&victim).send().await.expect(StatusCode::OK);
    assert_eq!(seen["items"][0]["seq"], accepted + 1, "what was refused is not there, what was accepted is");
    let caused = until("all of it is in the feed", async || {
        let caused = head_of(&app, &victim).await - before;
        (caused >= accepted + edits).then_some(caused)
    })
    .await;
    assert!(caused <= 1_100, "{caused}");
    // The victim's own answer is refused nobody.
    let answer: Value = app.say(&victim, &talk, "stop").await;
    assert_eq!(answer["seq"], accepted + 2);
}
