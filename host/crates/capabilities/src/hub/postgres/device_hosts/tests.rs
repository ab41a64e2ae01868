//! Two hosts and one table.

use super::*;
use crate::hub::Feed;
use crate::nodes::postgres::PostgresNodes;
use crate::nodes::{Engines, NodeIdentity};
use crate::sql::postgres::fixture::{Server, settings};
use crate::sql::{Effect, Outbox};

const ALL: Announced = Announced { connected: true, disconnected: true };
const NONE: Announced = Announced { connected: false, disconnected: false };

struct Pair {
    one: PostgresFeed,
    other: PostgresFeed,
}

impl Pair {
    async fn new(server: &Server, database: &str) -> Self {
        let open = async |node: &str| PostgresFeed::open(&server.backend_of(node, database, settings(4)).await).await.expect("opens");
        Self { one: open("one").await, other: open("other").await }
    }

    /// The topics and devices of the events that were written, oldest first.
    async fn events(&self) -> Vec<(String, String)> {
        let effects = self.one.peek(i64::MIN, 1_000).await.expect("peeks");
        let event = |(_, effect)| match effect {
            Effect::Event(event) => {
                let payload: serde_json::Value = serde_json::from_str(&event.payload).expect("as the WIT says");
                (event.topic, payload["device_id"].as_str().expect("a device").to_owned())
            }
            other => panic!("no event: {other:?}"),
        };
        effects.into_iter().map(event).collect()
    }
}

fn socket(user: Uuid, device: &str) -> DeviceSocket {
    DeviceSocket { connection_id: Uuid::now_v7(), user_id: user, device_id: device.to_owned(), session_id: Uuid::now_v7() }
}

fn said(topic: &str, device: &str) -> (String, String) {
    (format!("hub.{topic}"), device.to_owned())
}

#[tokio::test]
async fn a_device_is_on_one_host_and_only_its_first_coming_and_last_going_is_an_event() {
    let server = Server::start().await;
    let pair = Pair::new(&server, "devices").await;
    let (user, stranger) = (Uuid::now_v7(), Uuid::now_v7());
    let phone = socket(user, "phone");
    let first = pair.one.claim(&phone, 5, ALL).await.expect("claims");
    assert_eq!(first.replaced, None);
    assert_eq!(pair.one.locate(&[user]).await.expect("locates"), [], "its own is not another's");
    assert_eq!(pair.other.locate(&[user, stranger]).await.expect("locates"), [(user, "one".to_owned())]);

    let again = pair.one.claim(&phone, 5, ALL).await.expect("claims");
    assert!(again.replaced.is_none() && again.epoch > first.epoch, "a newer socket of the same host");
    let moved = pair.other.claim(&phone, 5, ALL).await.expect("claims");
    assert!(moved.replaced.as_deref() == Some("one") && moved.epoch > again.epoch, "{moved:?}");
    assert_eq!(pair.one.online(&[stranger, user]).await.expect("answers"), [user]);
    assert_eq!(pair.one.claimed(Uuid::nil(), 100).await.expect("answers").devices, []);
    assert_eq!(pair.other.claimed(Uuid::nil(), 100).await.expect("answers").devices, [(user, "phone".to_owned(), moved.epoch)]);

    // What is no longer theirs nobody releases: not the old host, not under an old epoch.
    pair.one.release_devices(&[(phone.clone(), again.epoch)], ALL).await.expect("releases");
    pair.other.release_devices(&[(phone.clone(), again.epoch)], ALL).await.expect("releases");
    assert_eq!(pair.one.claim_again(&phone, ALL).await.expect("answers"), None, "it is the other's");
    pair.other.release_devices(&[(phone.clone(), moved.epoch)], ALL).await.expect("releases");
    assert!(pair.one.online(&[user]).await.expect("answers").is_empty());
    assert!(pair.one.claim_again(&phone, ALL).await.expect("answers").is_some_and(|epoch| epoch > moved.epoch));
    assert_eq!(pair.events().await, [said("connected", "phone"), said("disconnected", "phone"), said("connected", "phone")]);
}

#[tokio::test]
async fn devices_are_counted_over_all_hosts_however_they_come() {
    let server = Server::start().await;
    let pair = Pair::new(&server, "count").await;
    let user = Uuid::now_v7();
    let sockets: Vec<DeviceSocket> = (0..8).map(|number| socket(user, &format!("device {number}"))).collect();
    let host = |number: usize| if number.is_multiple_of(2) { &pair.one } else { &pair.other };
    let claims = sockets.iter().enumerate().map(async |(number, socket)| host(number).claim(socket, 3, NONE).await);
    let outcomes = futures_util::future::join_all(claims).await;
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(ClaimError::TooManyDevices))).count();
    assert_eq!(refused, 5, "{outcomes:?}");
    let taken = outcomes.iter().position(Result::is_ok).expect("three were");
    host(taken + 1).claim(&sockets[taken], 3, NONE).await.expect("a device that is counted may move");
    assert_eq!(pair.events().await, [], "nobody subscribes");
}

#[tokio::test]
async fn what_a_killed_host_had_goes_at_its_next_start_and_the_others_stay() {
    let server = Server::start().await;
    let pair = Pair::new(&server, "killed").await;
    let (user, neighbour) = (Uuid::now_v7(), Uuid::now_v7());
    pair.one.claim(&socket(user, "phone"), 5, NONE).await.expect("claims");
    pair.other.claim(&socket(neighbour, "laptop"), 5, NONE).await.expect("claims");
    assert_eq!(pair.one.release_own(ALL).await.expect("releases"), 1);
    assert_eq!(pair.one.online(&[user, neighbour]).await.expect("answers"), [neighbour]);
    assert_eq!(pair.events().await, [said("disconnected", "phone")]);
}

#[tokio::test]
async fn what_a_host_had_that_is_gone_is_released_by_another() {
    let server = Server::start().await;
    let pair = Pair::new(&server, "gone").await;
    let folder = tempfile::tempdir().expect("a folder");
    let backend = server.backend_of("one", "gone", settings(4)).await;
    // The one is there, the other is not.
    let identity = NodeIdentity { name: "one".to_owned(), advertise: String::new(), version: "1".to_owned(), engines: Engines::default() };
    let _nodes = PostgresNodes::open(&backend, identity, folder.path()).await.expect("opens");
    let (user, neighbour) = (Uuid::now_v7(), Uuid::now_v7());
    pair.one.claim(&socket(user, "phone"), 5, NONE).await.expect("claims");
    pair.other.claim(&socket(neighbour, "laptop"), 5, NONE).await.expect("claims");
    assert_eq!(pair.one.release_of_lost_hosts(ALL).await.expect("releases"), 1);
    assert_eq!(pair.one.online(&[user, neighbour]).await.expect("answers"), [user]);
    assert_eq!(pair.events().await, [said("disconnected", "laptop")]);
}

#[tokio::test]
async fn heads_are_those_of_the_feeds() {
    let server = Server::start().await;
    let pair = Pair::new(&server, "heads").await;
    let user = Uuid::now_v7();
    let push = crate::hub::Push {
        users: vec![user],
        event: "message".to_owned(),
        payload: "{}".to_owned(),
        class: crate::hub::Class::Durable,
        receipt: None,
        subject: None,
        state: None,
    };
    for position in 1..=3 {
        pair.one.apply("alpha:1", &[(position, crate::hub::FeedChange::Push(push.clone()))]).await.expect("applies");
    }
    assert_eq!(pair.other.heads(&[user, Uuid::now_v7()]).await.expect("reads"), [(user, 3)]);
}
