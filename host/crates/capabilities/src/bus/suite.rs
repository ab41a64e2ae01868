//! What every bus between hosts does.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;

use super::nats::NatsBus;
use super::redis::RedisBus;
use super::{Delivery, HubBus, Subscription};

const PATIENCE: Duration = Duration::from_secs(20);

async fn message(subscription: &mut Subscription) -> Bytes {
    loop {
        match tokio::time::timeout(PATIENCE, subscription.next()).await.expect("a message in time").expect("it never ends") {
            Delivery::Message(payload) => return payload,
            // The first connection counts as one.
            Delivery::Interrupted => {}
        }
    }
}

async fn interruption(subscription: &mut Subscription) {
    let until = async { while subscription.next().await.expect("it never ends") != Delivery::Interrupted {} };
    tokio::time::timeout(PATIENCE, until).await.expect("told in time");
}

/// Until it arrives: a subscription begins at some time after it was asked for.
async fn publish_until_there(bus: &dyn HubBus, subject: &str, payload: &'static [u8], subscription: &mut Subscription) {
    for _ in 0..400 {
        // While it is away there is nothing to be done but to ask again.
        let _ = bus.publish(subject, Bytes::from_static(payload)).await;
        if let Ok(Some(Delivery::Message(arrived))) = tokio::time::timeout(Duration::from_millis(50), subscription.next()).await {
            assert_eq!(arrived, payload);
            return;
        }
    }
    panic!("nothing arrives");
}

async fn passes(one: &dyn HubBus, other: &dyn HubBus) {
    let mut here = one.subscribe(&["hosts", "host.one"]).await;
    let mut there = other.subscribe(&["hosts"]).await;
    publish_until_there(one, "hosts", b"begin", &mut there).await;

    // All subscribers of a subject, in the order of the publisher, whatever bytes.
    for number in 0..200_u32 {
        one.publish("hosts", Bytes::copy_from_slice(&number.to_be_bytes())).await.expect("is there");
    }
    let mut next = 0_u32;
    while next < 200 {
        let payload = message(&mut there).await;
        if payload.len() == 4 {
            assert_eq!(payload, next.to_be_bytes()[..]);
            next += 1;
        }
    }
    next = 0;
    while next < 200 {
        let payload = message(&mut here).await;
        if payload.len() == 4 {
            assert_eq!(payload, next.to_be_bytes()[..], "who publishes hears it too");
            next += 1;
        }
    }

    // One subject alone.
    other.publish("host.one", Bytes::from_static(b"to one")).await.expect("is there");
    assert_eq!(message(&mut here).await, "to one");
    one.publish("hosts", Bytes::from_static(b"end")).await.expect("is there");
    assert_eq!(message(&mut there).await, "end", "what is for one is not for the other");
    assert_eq!(message(&mut here).await, "end");

    let large = Bytes::from(vec![b'x'; echo_base::limits::BUS_MESSAGE_BYTES_MAX]);
    one.publish("hosts", large.clone()).await.expect("within the bound");
    assert_eq!(message(&mut there).await, large);
    one.ping().await.expect("is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut nats = started(move || echo_engines::nats::Nats::start(folder.path(), 1).map(|nats| (nats, folder))).await;
    let urls = nats.0.urls().join(",");
    let (one, other) = (NatsBus::open(&urls, "t").await.expect("opens"), NatsBus::open(&urls, "t").await.expect("opens"));
    passes(&one, &other).await;

    // Away: it says so, at once, and keeps nothing for later; there again: subscriptions are told, and go on.
    let mut there = other.subscribe(&["hosts"]).await;
    publish_until_there(&one, "hosts", b"before", &mut there).await;
    nats.0.end_with_all_they_store();
    while one.ping().await.is_ok() {}
    assert!(one.publish("hosts", Bytes::from_static(b"lost")).await.is_err());
    let mut early = other.subscribe(&["hosts"]).await;
    nats = started(move || nats.0.start_empty().map(|()| nats)).await;
    interruption(&mut there).await;
    publish_until_there(&one, "hosts", b"after", &mut there).await;
    assert_eq!(message(&mut early).await, "after", "a subscription made while it was away");
    drop(nats);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    let redis = started(move || echo_engines::redis::Redis::start(&path)).await;
    let url = redis.url();
    let (one, other) = (RedisBus::open(&url, "t").expect("opens"), RedisBus::open(&url, "t").expect("opens"));
    passes(&one, &other).await;

    let mut there = other.subscribe(&["hosts"]).await;
    let (path, port) = (folder.path().to_owned(), redis.port());
    drop(redis);
    while one.ping().await.is_ok() {}
    assert!(one.publish("hosts", Bytes::from_static(b"lost")).await.is_err());
    let redis = started(move || echo_engines::redis::Redis::start_on(&path, port)).await;
    interruption(&mut there).await;
    publish_until_there(&one, "hosts", b"after", &mut there).await;
    drop(redis);
}

/// Starting a server waits.
async fn started<T: Send + 'static>(start: impl FnOnce() -> Result<T, echo_engines::EngineError> + Send + 'static) -> T {
    tokio::task::spawn_blocking(start).await.expect("no panic").expect("a server")
}
