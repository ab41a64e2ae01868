//! What JetStream adds to the suite of queues: several hosts, and servers that are away or lose what they keep.

use std::collections::BTreeSet;
use std::time::Instant;

use async_nats::jetstream;
use async_nats::jetstream::stream::Config;
use echo_engines::nats::Nats;
use parking_lot::Mutex;
use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::events::Outcome;
use crate::events::suite::{self, event};
use crate::sql::SqlBackend;
use crate::sql::postgres::fixture::{Server, settings as pool};

fn settings(urls: &str, prefix: &str) -> JetStreamSettings {
    JetStreamSettings {
        urls: urls.to_owned(),
        prefix: prefix.to_owned(),
        replicas: 3,
        bytes_max: 64 * limits::MIB_BYTES,
        old_servers: false,
        dead_letters_max: limits::DEAD_LETTERS_MAX,
        waiting_max: limits::QUEUE_WAITING_MAX,
    }
}

fn prefix() -> String {
    format!("t{}", &Uuid::new_v4().simple().to_string()[..12])
}

fn nats() -> String {
    echo_engines::nats::of_this_process().unwrap_or_else(|error| panic!("{error}"))
}

fn name(name: &str) -> ServiceName {
    ServiceName::parse(name).expect("a good name")
}

fn topics(topics: &[&str]) -> Vec<String> {
    topics.iter().map(|topic| (*topic).to_owned()).collect()
}

/// A host: its queue, on the database and the servers that it shares with others.
struct Host {
    queue: Arc<JetStreamQueue>,
    backend: PostgresBackend,
}

impl Host {
    async fn start(server: &Server, node: &str, database: &str, settings: JetStreamSettings) -> Self {
        let backend = server.backend_of(node, database, pool(8)).await;
        let queue = Arc::new(JetStreamQueue::open(settings, &backend).await.expect("opens"));
        Self { queue, backend }
    }

    async fn end(self) {
        timeout(Duration::from_secs(20), self.queue.close()).await.expect("closes");
        self.backend.close().await;
    }
}

/// Writes down what comes.
#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl Seen {
    fn all(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    /// Each once, in the order in which they came first.
    fn firsts(&self) -> Vec<String> {
        let mut known = BTreeSet::new();
        self.all().into_iter().filter(|payload| known.insert(payload.clone())).collect()
    }
}

#[async_trait]
impl Handler for Seen {
    async fn handle(&self, event: &Event) -> Outcome {
        self.0.lock().push(event.payload.clone());
        Outcome::Done
    }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !is_so().await {
        assert!(begin.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn numbered(from: i64, to: i64, key: impl Fn(i64) -> String) -> Vec<(i64, Event)> {
    (from..=to).map(|number| (number, event("a.a", &key(number), &number.to_string()))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_passes_the_suite() {
    let (server, urls, run) = (Server::start().await, nats(), prefix());
    let opened: Mutex<Vec<Host>> = Mutex::default();
    suite::suite(
        |name| {
            let (server, opened) = (&server, &opened);
            let settings = settings(&urls, &format!("{run}-{}", name.replace(' ', "-")));
            async move {
                let host = Host::start(server, "one", name, settings).await;
                let queue: Arc<dyn Queue> = host.queue.clone();
                opened.lock().push(host);
                queue
            }
        },
        || async {
            let hosts = std::mem::take(&mut *opened.lock());
            for host in hosts {
                host.end().await;
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_has_so_many_unconfirmed_events_and_others_go_on() {
    let server = Server::start().await;
    let settings = JetStreamSettings { waiting_max: 5, ..settings(&nats(), &prefix()) };
    let host = Host::start(&server, "one", "full", settings).await;
    let seen = Arc::new(Seen::default());
    host.queue.declare(&name("alpha"), topics(&["a.a"])).await.expect("declares");
    host.queue.publish("noisy:1", &numbered(1, 5, |_| "k".to_owned())).await.expect("up to the bound");
    let full = host.queue.publish("noisy:1", &numbered(6, 6, |_| "k".to_owned())).await;
    assert!(matches!(&full, Err(QueueError::Full { publisher }) if publisher == "noisy"), "{full:?}");
    host.queue.publish("quiet:2", &numbered(1, 1, |_| "k".to_owned())).await.expect("another source has its own share");
    host.queue.consume(&name("alpha"), seen.clone()).await.expect("consumes");
    let mut confirmed = BTreeSet::new();
    until("all are confirmed", async || {
        let Confirmed::Positions(positions) = host.queue.confirmed("noisy:1").await.expect("answers") else {
            panic!("as durable as what?")
        };
        confirmed.extend(positions);
        confirmed.len() == 5
    })
    .await;
    host.queue.publish("noisy:1", &numbered(6, 6, |_| "k".to_owned())).await.expect("there is room again");
    until("all are handled", async || seen.firsts().len() == 6).await;
    host.end().await;
}

/// One that fails always is not confirmed and holds back no other; when it has become a dead letter it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_waits_holds_back_no_other_ones_confirmation() {
    struct Later;
    #[async_trait]
    impl Handler for Later {
        async fn handle(&self, event: &Event) -> Outcome {
            let after = Some(Duration::from_secs(3_600));
            if event.payload == "1" { Outcome::Retry { after, reason: "later".to_owned() } } else { Outcome::Done }
        }
    }
    let server = Server::start().await;
    let host = Host::start(&server, "one", "waits", settings(&nats(), &prefix())).await;
    host.queue.subscribe(&name("alpha"), topics(&["a.a"]), Arc::new(Later)).await.expect("subscribes");
    host.queue.subscribe(&name("beta"), topics(&["a.a"]), Arc::new(Seen::default())).await.expect("subscribes");
    host.queue.publish("s", &numbered(1, 40, |number| number.to_string())).await.expect("publishes");
    let mut confirmed = BTreeSet::new();
    until("the others are confirmed", async || {
        let Confirmed::Positions(positions) = host.queue.confirmed("s").await.expect("answers") else { panic!("as durable as what?") };
        confirmed.extend(positions);
        confirmed.len() == 39
    })
    .await;
    assert!(!confirmed.contains(&1));
    host.end().await;
}

/// Two hosts in a rollout, with versions of a service that subscribe to different topics.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_does_not_take_another_hosts_subscription() {
    let (server, settings) = (Server::start().await, settings(&nats(), &prefix()));
    let one = Host::start(&server, "one", "rollout", settings.clone()).await;
    let two = Host::start(&server, "two", "rollout", settings).await;
    let (first, second) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
    one.queue.subscribe(&name("alpha"), topics(&["a.a", "b.b"]), first.clone()).await.expect("subscribes");
    two.queue.subscribe(&name("alpha"), topics(&["a.a", "c.c"]), second.clone()).await.expect("subscribes");
    let events: Vec<(i64, Event)> = ["a.a", "b.b", "c.c"].iter().zip(1..).map(|(topic, at)| (at, event(topic, "k", topic))).collect();
    one.queue.publish("s", &events).await.expect("publishes");
    until("each topic reaches a host that has it", async || {
        let (first, second) = (first.all(), second.all());
        first.contains(&"b.b".to_owned()) && second.contains(&"c.c".to_owned()) && [first, second].concat().contains(&"a.a".to_owned())
    })
    .await;
    // The first version goes everywhere.
    one.queue.subscribe(&name("alpha"), topics(&["a.a", "c.c"]), first.clone()).await.expect("subscribes");
    let known: Vec<String> = one.queue.state().await.expect("answers").into_iter().map(|state| state.topic).collect();
    assert_eq!(known, ["a.a", "c.c"]);
    one.end().await;
    two.end().await;
}

/// The partitions of a topic are shared, and go to those that are left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_share_partitions_and_take_over_those_of_a_host_that_ends() {
    let (server, settings) = (Server::start().await, settings(&nats(), &prefix()));
    let one = Host::start(&server, "one", "shares", settings.clone()).await;
    let two = Host::start(&server, "two", "shares", settings).await;
    let (first, second) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
    one.queue.subscribe(&name("alpha"), topics(&["a.a"]), first.clone()).await.expect("subscribes");
    two.queue.subscribe(&name("alpha"), topics(&["a.a"]), second.clone()).await.expect("subscribes");
    let mut position = 0;
    until("both handle some", async || {
        one.queue.publish("s", &numbered(position + 1, position + 32, |number| number.to_string())).await.expect("publishes");
        position += 32;
        tokio::time::sleep(Duration::from_millis(200)).await;
        !first.all().is_empty() && !second.all().is_empty()
    })
    .await;
    one.end().await;
    two.queue.publish("s", &numbered(position + 1, position + 32, |number| number.to_string())).await.expect("publishes");
    until("one host handles all that is left", async || {
        let all: BTreeSet<String> = first.all().into_iter().chain(second.all()).collect();
        all.len() as i64 == position + 32
    })
    .await;
    two.end().await;
}

/// A runtime of its own, on one thread, which the handler of this payload stops: so nothing of that host goes on, as under SIGSTOP.
struct Freezing {
    seen: Arc<Seen>,
    frozen: std::sync::mpsc::Sender<()>,
    thaw: Mutex<std::sync::mpsc::Receiver<()>>,
}

#[async_trait]
impl Handler for Freezing {
    async fn handle(&self, event: &Event) -> Outcome {
        if event.payload == "3" && self.frozen.send(()).is_ok() {
            let _ = self.thaw.lock().recv();
        }
        self.seen.0.lock().push(event.payload.clone());
        Outcome::Done
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_stood_still_beyond_its_leases_handles_nothing_that_another_has_taken() {
    // Of a partition that the other host keeps when both share them again.
    const KEY: &str = "c";
    assert!(partition_of(hash_of(KEY)) < limits::QUEUE_PARTITIONS as usize / 2);
    let (server, settings) = (Arc::new(Server::start().await), settings(&nats(), &prefix()));
    let (frozen, is_frozen) = std::sync::mpsc::channel();
    let (thaw, thawed) = std::sync::mpsc::channel();
    let stale = Arc::new(Seen::default());
    let stop = CancellationToken::new();
    let stale_host = std::thread::spawn({
        let (server, settings, stop) = (server.clone(), settings.clone(), stop.clone());
        let handler = Arc::new(Freezing { seen: stale.clone(), frozen, thaw: Mutex::new(thawed) });
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let host = Host::start(&server, "stale", "frozen", settings).await;
                host.queue.declare(&name("alpha"), topics(&["a.a"])).await.expect("declares");
                host.queue.publish("s", &numbered(1, 10, |_| KEY.to_owned())).await.expect("publishes");
                // 1 and 2 are handled here, 3 is at hand as it stops.
                host.queue.consume(&name("alpha"), handler).await.expect("consumes");
                stop.cancelled().await;
                host.end().await;
            });
        }
    });
    tokio::task::spawn_blocking(move || is_frozen.recv_timeout(Duration::from_secs(60)).expect("it comes to 3")).await.expect("no panic");
    let other = Host::start(&server, "other", "frozen", settings).await;
    let seen = Arc::new(Seen::default());
    other.queue.subscribe(&name("alpha"), topics(&["a.a"]), seen.clone()).await.expect("subscribes");
    until("the other host has taken the partition", async || seen.all().last().is_some_and(|last| last == "10")).await;
    other.queue.publish("t", &numbered(11, 20, |_| KEY.to_owned())).await.expect("publishes");
    thaw.send(()).expect("it waits");
    until("all are handled", async || seen.all().last().is_some_and(|last| last == "20")).await;
    // The one at hand ends; its effect is the other's already, by the event's id. It begins no other.
    until("it goes on", async || stale.all().len() >= 3).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stale.all(), ["1", "2", "3"]);
    let taken_over = seen.firsts();
    let expect: Vec<String> = (1..=20).map(|number| number.to_string()).collect();
    assert!(expect.ends_with(&taken_over) && taken_over.len() >= 18, "{taken_over:?}");
    assert_eq!(seen.all(), taken_over, "once on that host, in order");
    stop.cancel();
    stale_host.join().expect("ends");
    other.end().await;
}

/// Events of sources that keep what is not confirmed, as the relay does.
async fn publish_all(queue: &JetStreamQueue, source: &str, kept: &Mutex<BTreeMap<i64, Event>>) {
    let mut losses = queue.losses();
    let mut after = 0;
    loop {
        if losses != queue.losses() {
            (losses, after) = (queue.losses(), 0);
        }
        let batch: Vec<(i64, Event)> = kept.lock().range(after + 1..).take(50).map(|(at, event)| (*at, event.clone())).collect();
        let Some((last, _)) = batch.last() else { return };
        match timeout(Duration::from_secs(5), queue.publish_since(losses, source, &batch)).await {
            Ok(Ok(())) => after = *last,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn remove_confirmed(queue: &JetStreamQueue, source: &str, kept: &Mutex<BTreeMap<i64, Event>>) {
    if let Ok(Confirmed::Positions(positions)) = queue.confirmed(source).await {
        kept.lock().retain(|position, _| !positions.contains(position));
    }
}

/// Three servers, whose stores are all deleted under load and which start empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_outlive_the_loss_of_all_that_jetstream_keeps() {
    const EVENTS: i64 = 1_500;
    let server = Server::start().await;
    let mut cluster = tokio::task::spawn_blocking(|| Nats::start(&std::env::temp_dir(), 3).expect("a cluster")).await.expect("no panic");
    let settings = settings(&cluster.urls().join(","), &prefix());
    let one = Host::start(&server, "one", "lost", settings.clone()).await;
    let two = Host::start(&server, "two", "lost", settings).await;
    let (alpha, beta) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
    for host in [&one, &two] {
        until("JetStream is ready", async || {
            let subscribed = host.queue.subscribe(&name("alpha"), topics(&["a.a"]), alpha.clone()).await;
            subscribed.is_ok() && host.queue.subscribe(&name("beta"), topics(&["a.a"]), beta.clone()).await.is_ok()
        })
        .await;
    }
    let kept: Mutex<BTreeMap<i64, Event>> = Mutex::default();
    let is_complete = std::sync::atomic::AtomicBool::new(false);
    let load = async {
        for number in 1..=EVENTS {
            kept.lock().insert(number, event("a.a", &(number % 20).to_string(), &number.to_string()));
            if number % 50 == 0 {
                publish_all(&one.queue, "s", &kept).await;
                remove_confirmed(&one.queue, "s", &kept).await;
            }
        }
        is_complete.store(true, Ordering::SeqCst);
    };
    let loss = async {
        until("some are handled", async || alpha.all().len() as i64 > EVENTS / 5).await;
        assert!(!is_complete.load(Ordering::SeqCst), "the load is over before the loss");
        let emptied = tokio::task::spawn_blocking(move || {
            cluster.start_empty().expect("starts again");
            cluster
        });
        emptied.await.expect("no panic")
    };
    let ((), cluster) = tokio::join!(load, loss);
    let expect: BTreeSet<String> = (1..=EVENTS).map(|number| number.to_string()).collect();
    until("every event reaches every consumer, and is confirmed", async || {
        publish_all(&one.queue, "s", &kept).await;
        remove_confirmed(&one.queue, "s", &kept).await;
        kept.lock().is_empty() && [&alpha, &beta].iter().all(|seen| seen.all().into_iter().collect::<BTreeSet<_>>() == expect)
    })
    .await;
    assert!(one.queue.losses() >= 2, "nothing was lost");
    for seen in [&alpha, &beta] {
        // What came again came before; the first of each is in order, by key.
        let mut last: BTreeMap<i64, i64> = BTreeMap::new();
        for number in seen.firsts().iter().map(|payload| payload.parse::<i64>().expect("a number")) {
            let before = last.insert(number % 20, number).unwrap_or(0);
            assert!(before < number, "{number} came first after {before}");
        }
    }
    one.end().await;
    two.end().await;
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_deleted_begins_another_life() {
    let (server, urls, prefix) = (Server::start().await, nats(), prefix());
    let host = Host::start(&server, "one", "fallen", settings(&urls, &prefix)).await;
    let seen = Arc::new(Seen::default());
    host.queue.subscribe(&name("alpha"), topics(&["a.a"]), seen.clone()).await.expect("subscribes");
    host.queue.publish("s", &numbered(1, 3, |_| "k".to_owned())).await.expect("publishes");
    let first = host.queue.losses();
    let operator = jetstream::new(async_nats::connect(&urls).await.expect("connects"));
    operator.delete_stream(format!("{prefix}-events-{first}")).await.expect("deletes");
    until("the loss is noticed", async || host.queue.losses() > first && host.queue.ping().await.is_ok()).await;
    let lost = host.queue.publish_since(first, "s", &numbered(4, 4, |_| "k".to_owned())).await;
    assert!(matches!(lost, Err(QueueError::Lost)), "{lost:?}");
    assert_eq!(host.queue.position("s").await.expect("answers"), None, "it has seen nothing");
    host.queue.publish("s", &numbered(1, 4, |_| "k".to_owned())).await.expect("publishes");
    until("all are handled", async || seen.firsts() == ["1", "2", "3", "4"]).await;
    host.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nats_is_away_events_are_refused_and_go_on_when_it_is_back() {
    let server = Server::start().await;
    let mut nats = tokio::task::spawn_blocking(|| Nats::start(&std::env::temp_dir(), 1).expect("a server")).await.expect("no panic");
    let urls = nats.urls().join(",");
    nats.end_with_all_they_store();
    let host = Host::start(&server, "one", "away", settings(&urls, &prefix())).await;
    assert!(matches!(host.queue.ping().await, Err(QueueError::Unavailable(_))));
    assert!(matches!(
        host.queue.publish("s", &numbered(1, 1, |_| "k".to_owned())).await,
        Err(QueueError::Unavailable(_) | QueueError::Lost)
    ));
    let seen = Arc::new(Seen::default());
    assert!(host.queue.subscribe(&name("alpha"), topics(&["a.a"]), seen.clone()).await.is_err());
    assert!(host.queue.has_subscribers("a.a").await.expect("answers"), "it is declared, though not begun");
    let _nats = tokio::task::spawn_blocking(move || {
        nats.start_empty().expect("starts");
        nats
    })
    .await
    .expect("no panic");
    until("it is back", async || host.queue.subscribe(&name("alpha"), topics(&["a.a"]), seen.clone()).await.is_ok()).await;
    host.queue.publish("s", &numbered(1, 3, |_| "k".to_owned())).await.expect("publishes");
    until("all are handled", async || seen.firsts() == ["1", "2", "3"]).await;
    host.end().await;
}

/// A dead letter that was published again, and lost before it was handled, is a dead letter still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_outlive_the_loss_of_jetstream_also_while_they_are_replayed() {
    struct Refuses;
    #[async_trait]
    impl Handler for Refuses {
        async fn handle(&self, _: &Event) -> Outcome {
            Outcome::Reject { reason: "never".to_owned() }
        }
    }
    let (server, urls, prefix) = (Server::start().await, nats(), prefix());
    let host = Host::start(&server, "one", "dead", settings(&urls, &prefix)).await;
    host.queue.subscribe(&name("alpha"), topics(&["a.a"]), Arc::new(Refuses)).await.expect("subscribes");
    host.queue.publish("s", &numbered(1, 1, |_| "k".to_owned())).await.expect("publishes");
    until("it is a dead letter", async || host.queue.dead_letters(None, 10).await.expect("answers").len() == 1).await;
    host.queue.stop().await;
    let letter = host.queue.dead_letters(None, 10).await.expect("answers").remove(0);
    host.queue.replay(&letter.id).await.expect("replays");
    assert!(host.queue.dead_letters(None, 10).await.expect("answers").is_empty());
    let life = host.queue.losses();
    let operator = jetstream::new(async_nats::connect(&urls).await.expect("connects"));
    operator.delete_stream(format!("{prefix}-events-{life}")).await.expect("deletes");
    until("the loss is noticed", async || host.queue.losses() > life).await;
    let back = host.queue.dead_letters(None, 10).await.expect("answers");
    assert_eq!(back.iter().map(|letter| &letter.event).collect::<Vec<_>>(), [&letter.event]);
    host.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_have_no_room_for_the_events_are_said_with_what_to_do() {
    let server = Server::start().await;
    let nats = tokio::task::spawn_blocking(|| Nats::start(&std::env::temp_dir(), 1).expect("a server")).await.expect("no panic");
    let urls = nats.urls().join(",");
    let operator = jetstream::new(async_nats::connect(&urls).await.expect("connects"));
    // Somebody else has set aside all that there is.
    let mut bytes = 1_i64 << 60;
    while bytes >= 1 << 20 {
        let other =
            Config { name: format!("other-{bytes}"), subjects: vec![format!("other.{bytes}")], max_bytes: bytes, ..Config::default() };
        if operator.create_stream(other).await.is_err() {
            bytes /= 2;
        }
    }
    let host = Host::start(&server, "one", "room", settings(&urls, &prefix())).await;
    let refused = host.queue.ping().await.expect_err("there is no room");
    assert!(refused.to_string().contains("raise max_file_store"), "{refused}");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nats_has_less_room_a_part_of_it_is_set_aside() {
    let server = Server::start().await;
    for nodes in [1, 3] {
        let nats =
            tokio::task::spawn_blocking(move || Nats::start(&std::env::temp_dir(), nodes).expect("servers")).await.expect("no panic");
        // More than any disk has.
        let wanted = JetStreamSettings { bytes_max: 1 << 60, ..settings(&nats.urls().join(","), &prefix()) };
        let host = Host::start(&server, "a", &format!("room{nodes}"), wanted).await;
        let there = async {
            while host.queue.ping().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(60), there).await.expect("the streams are there");
        host.end().await;
    }
}
