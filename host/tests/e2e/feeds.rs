//! What one person can do to the feed of another, and what a device may say of a feed.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{Person, TestApp, until};
use crate::stored;

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

#[tokio::test]
async fn a_device_that_begins_at_the_head_makes_nothing_before_delivered() {
    let settings = [("ECHO_SERVICES__NOTIFICATION__ACK_WAIT_S", "3")];
    let app = TestApp::with(&["auth", "location", "message", "notification", "user"], &settings).await;
    let (ada, bala) = app.two().await;
    let token = json!({ "token": "bala's", "provider": "fcm" });
    app.post("/api/v1/notifications/devices", token).by(&bala).send().await.expect(StatusCode::CREATED);
    let talk = app.conversation(&ada, &bala).await;
    let status_of = async |message: &Value| {
        let path = format!("{MESSAGES}/{}/status", message["id"].as_str().expect("id"));
        app.get(&path).by(&ada).send().await.expect(StatusCode::OK)["items"][0]["status"].clone()
    };
    let in_the_feed = async |message: &Value| {
        until("the feed has it", async || {
            let page = app.get("/api/v1/sync?since=0").by(&ada).send().await.expect(StatusCode::OK);
            page.to_string().contains(message["id"].as_str().expect("id")).then_some(())
        })
        .await;
    };
    let (first, second) = (app.say(&ada, &talk, "while nobody was there").await, app.say(&ada, &talk, "nor then").await);
    in_the_feed(&second).await;

    // A new device says nothing of where it goes on, gets the third message and acknowledges it.
    let tablet = app.log_in(&bala, "tablet").await;
    let mut of_tablet = app.socket(&tablet, None).await;
    of_tablet.next_of("connection_ack").await;
    let mut of_ada = app.socket(&ada, None).await;
    let third = app.say(&ada, &talk, "and now").await;
    let event = of_tablet.next_of("message").await;
    assert_eq!(event["payload"]["id"], third["id"]);
    let beyond = event["seq"].as_u64().expect("seq") + 1;
    let refused = of_tablet.ask("ack", json!({ "seq": beyond })).await;
    assert_eq!((&refused["payload"]["status"], &refused["payload"]["errors"][0]["field"]), (&json!(422), &json!("seq")), "{refused}");
    of_tablet.ack(&event).await;
    let told = of_ada.next_of("message_status").await;
    assert_eq!((&told["payload"]["message_id"], &told["payload"]["up_to_seq"]), (&third["id"], &Value::Null), "of this one alone");
    assert_eq!(
        (status_of(&first).await, status_of(&second).await, status_of(&third).await),
        (json!("sent"), json!("sent"), json!("delivered"))
    );
    let seen = app.get(&format!("{MESSAGES}?conversation_id={talk}")).by(&ada).send().await.expect(StatusCode::OK);
    let seen: Vec<&Value> = seen["items"].as_array().expect("items").iter().map(|message| &message["status"]).collect();
    assert_eq!(seen, ["delivered", "sent", "sent"]);

    // Nor does it keep away the pushes for them.
    until("the pushes", async || {
        let outbox = Value::Array(app.outbox().await).to_string();
        (outbox.contains("while nobody was there") && outbox.contains("nor then")).then_some(())
    })
    .await;
    assert!(!Value::Array(app.outbox().await).to_string().contains("and now"));

    // The device of before comes and has them.
    let mut of_phone = app.socket(&bala, Some(0)).await;
    loop {
        let event = of_phone.next_of("message").await;
        if event["payload"]["id"] == second["id"] {
            of_phone.ack(&event).await;
            break;
        }
    }
    until("delivered after all", async || {
        (status_of(&first).await == "delivered" && status_of(&second).await == "delivered").then_some(())
    })
    .await;

    // A new device that fetches what was before has it, too.
    drop(of_phone);
    drop(of_tablet);
    let fourth = app.say(&ada, &talk, "again nobody").await;
    in_the_feed(&fourth).await;
    let watch = app.log_in(&bala, "watch").await;
    let mut of_watch = app.socket(&watch, None).await;
    let cursor = of_watch.next_of("connection_ack").await["payload"]["cursor"].clone();
    app.get("/api/v1/sync?since=0").by(&watch).send().await.expect(StatusCode::OK);
    of_watch.call("ack", json!({ "seq": cursor })).await;
    until("what was fetched is delivered", async || (status_of(&fourth).await == "delivered").then_some(())).await;
}

#[tokio::test]
async fn times_of_receipts_are_kept_for_a_while_and_the_status_for_good() {
    let settings = [("ECHO_SERVICES__MESSAGE__RECEIPT_TIMES_KEPT_S", "3")];
    let app = TestApp::with(&["auth", "location", "message", "notification", "user"], &settings).await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let message = app.say(&ada, &talk, "hello").await;
    app.post(&format!("{MESSAGES}/read"), json!({ "conversation_id": talk, "up_to_seq": 1 })).by(&bala).send().await.expect(StatusCode::OK);
    let path = format!("{MESSAGES}/{}/status", message["id"].as_str().expect("id"));
    let status = async || app.get(&path).by(&ada).send().await.expect(StatusCode::OK)["items"][0].clone();
    let first = status().await;
    assert!(first["status"] == "read" && first["read_at"].is_string(), "{first}");
    until("the time passes", async || status().await["read_at"].is_null().then_some(())).await;
    assert_eq!(status().await["status"], "read");
    // And the rows are gone.
    until("the rows go", async || (stored::number(&app, "message", "SELECT count(*) FROM receipt_marks") == Some(0)).then_some(())).await;
}
