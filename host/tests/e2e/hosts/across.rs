//! People and requests on one host, those whom they concern on the other.

use std::sync::{Arc, Weak};

use echo_engines::postgres::Database;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::hosts_of;
use crate::app::{ALL, Person, Socket, TestApp, until};

/// Of the tests of this module.
struct Pair {
    hosts: Vec<TestApp>,
    /// Gone after the hosts.
    _database: Database,
}

impl Pair {
    fn hosts(&self) -> (&TestApp, &TestApp) {
        (&self.hosts[0], &self.hosts[1])
    }
}

async fn pair() -> Arc<Pair> {
    static PAIR: tokio::sync::Mutex<Weak<Pair>> = tokio::sync::Mutex::const_new(Weak::new());
    let mut pair = PAIR.lock().await;
    if let Some(pair) = pair.upgrade() {
        return pair;
    }
    let (database, mut hosts) = hosts_of(&ALL, 2, &[]).await;
    for host in &mut hosts {
        // A kept connection belongs to the test that opened it, and ends with that test.
        host.client = reqwest::Client::builder().pool_max_idle_per_host(0).build().expect("a client");
    }
    let made = Arc::new(Pair { hosts, _database: database });
    *pair = Arc::downgrade(&made);
    made
}

async fn open(app: &TestApp, person: &Person) -> Socket {
    let mut socket = app.socket(person, None).await;
    socket.next_of("connection_ack").await;
    socket
}

#[tokio::test]
async fn presence_and_typing_are_seen_from_the_other_host() {
    let pair = pair().await;
    let (one, other) = pair.hosts();
    let (ada, bala) = (one.someone().await, other.someone().await);
    one.post("/api/v1/users/contacts", json!({ "user_id": bala.id })).by(&ada).send().await.expect(StatusCode::CREATED);
    let talk = one.conversation(&ada, &bala).await;
    let mut of_bala = open(other, &bala).await;
    // Whoever asks hears of changes.
    other.get(&format!("/api/v1/presence?user_ids={}", ada.id)).by(&bala).send().await.expect(StatusCode::OK);
    let mut of_ada = open(one, &ada).await;
    let online = of_bala.next_of("presence").await["payload"].clone();
    assert_eq!((&online["user_id"], &online["status"]), (&json!(ada.id), &json!("online")));

    of_ada.call("presence", json!({ "status": "busy" })).await;
    assert_eq!(of_bala.next_of("presence").await["payload"]["status"], "busy");
    let asked = other.get(&format!("/api/v1/presence?user_ids={}", ada.id)).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(asked["items"][0]["status"], "busy");

    of_ada.call("typing", json!({ "conversation_id": talk, "is_typing": true })).await;
    let typing = of_bala.next_of("typing").await["payload"].clone();
    assert_eq!((&typing["user_id"], &typing["is_typing"]), (&json!(ada.id), &json!(true)));
}

#[tokio::test]
async fn a_session_that_ends_at_one_host_ends_its_socket_and_its_token_at_the_other() {
    let pair = pair().await;
    let (one, other) = pair.hosts();
    let phone = one.someone().await;
    let tablet = one.log_in(&phone, "tablet").await;
    let laptop = other.log_in(&phone, "laptop").await;
    let (mut of_phone, mut of_tablet, mut of_laptop) = (open(other, &phone).await, open(other, &tablet).await, open(other, &laptop).await);

    // One session by its id, another by its owner's leave, and the rest together.
    let ended = one.delete(&format!("/api/v1/auth/sessions/{}", tablet.session_id)).by(&phone).send().await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT, "{:?}", ended.body);
    assert_eq!(of_tablet.closed().await, Some(4401));
    refused(other, &tablet).await;
    let left = one.post("/api/v1/auth/logout", json!({})).by(&laptop).send().await;
    assert_eq!(left.status, StatusCode::NO_CONTENT, "{:?}", left.body);
    assert_eq!(of_laptop.closed().await, Some(4401));
    refused(other, &laptop).await;
    assert_eq!(of_phone.call("ping", json!({})).await, json!({}), "the others' ends are not its own");
    let left = one.post("/api/v1/auth/logout-all", json!({})).by(&phone).send().await;
    assert_eq!(left.status, StatusCode::NO_CONTENT, "{:?}", left.body);
    assert_eq!(of_phone.closed().await, Some(4401));
    refused(other, &phone).await;
}

async fn refused(app: &TestApp, person: &Person) {
    until("the token to be refused", async || {
        let asked = app.get("/api/v1/users/me").by(person).send().await;
        (asked.status == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_request_with_a_key_is_done_once_whichever_hosts_it_comes_to() {
    let pair = pair().await;
    let (one, other) = pair.hosts();
    let (ada, bala) = (one.someone().await, other.someone().await);
    let group = |title: &str| json!({ "type": "group", "title": title, "participant_ids": [bala.id] });
    let ask = |app: &TestApp, title: &str| {
        app.post("/api/v1/messages/conversations", group(title)).by(&ada).header("idempotency-key", "the same").send()
    };
    let made = ask(one, "Ours").await.expect(StatusCode::CREATED);
    let again = ask(other, "Ours").await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (StatusCode::CREATED, "true"));
    assert_eq!(again.body["id"], made["id"]);
    assert_eq!(ask(other, "Another").await.status, StatusCode::UNPROCESSABLE_ENTITY);

    // At once, and also under the id that the message itself has.
    let at_once = join_all((0..10).map(|number| {
        let app = if number % 2 == 0 { one } else { other };
        let asked = app.post("/api/v1/messages/conversations", group("At once")).by(&ada);
        asked.header("idempotency-key", "at once").send()
    }));
    let answers = at_once.await;
    let made: Vec<_> = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).map(|answer| &answer.body["id"]).collect();
    assert!(!made.is_empty() && made.iter().all(|id| **id == *made[0]), "{answers:?}");
    assert!(answers.iter().all(|answer| [201, 409].contains(&answer.status.as_u16())), "{answers:?}");
    let talk = made[0].as_str().expect("an id").to_owned();
    let sent = join_all((0..10).map(|number| {
        let app = if number % 2 == 0 { one } else { other };
        app.text(&ada, &talk, "one message", "Hello").send()
    }));
    let sent: Vec<_> = sent.await.into_iter().map(|answer| answer.expect(StatusCode::CREATED)["id"].clone()).collect();
    assert!(sent.iter().all(|id| *id == sent[0]), "{sent:?}");
}

#[tokio::test]
async fn a_ticket_of_one_host_opens_one_socket_at_the_other() {
    let pair = pair().await;
    let (one, other) = pair.hosts();
    let ada = one.someone().await;
    let ticket = one.request(Method::POST, "/api/v1/auth/ws-ticket").by(&ada).send().await.expect(StatusCode::CREATED);
    let query = format!("?ticket={}", ticket["ticket"].as_str().expect("ticket"));
    let mut socket = other.open_socket(&query, &[]).await.expect("it is good there");
    assert_eq!(socket.next_of("connection_ack").await["payload"]["user_id"], json!(ada.id));
    assert!(one.open_socket(&query, &[]).await.is_err() && other.open_socket(&query, &[]).await.is_err(), "it is used up everywhere");
}

#[tokio::test]
async fn an_answer_that_one_host_keeps_is_known_to_the_other() {
    let pair = pair().await;
    let (one, other) = pair.hosts();
    let ada = one.someone().await;
    let path = "/api/v1/location/lookup?phone=%2B12125550100";
    let first = one.get(path).by(&ada).send().await;
    assert_eq!(first.status, StatusCode::OK, "{:?}", first.body);
    let known = other.get(path).by(&ada).header("if-none-match", first.header("etag")).send().await;
    assert_eq!(known.status, StatusCode::NOT_MODIFIED, "{:?}", known.body);
    // And from what that host keeps itself by now.
    let second = other.get(path).by(&ada).send().await;
    assert_eq!((second.header("etag"), &second.body), (first.header("etag"), &first.body));
}
