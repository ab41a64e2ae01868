//! kill -9 of the host at random points under a workload: every answered message exists once and reached every device once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::{Method, StatusCode};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::TestApp;
use workload::{Answered, Expected, name_of, set_up, start};
pub use workload::{Scale, Workload};

mod workload;

pub const SERVICES: [&str; 5] = ["auth", "location", "message", "notification", "user"];
/// So soon that decisions fall due while the host is being killed.
pub const SETTINGS: [(&str, &str); 1] = [("ECHO_SERVICES__NOTIFICATION__ACK_WAIT_S", "1")];

const SEED: u64 = 20_260_913;
const KILLS: usize = 50;
/// How long the host serves before it is killed, in milliseconds.
pub const LIFE_MS: Range<u64> = 100..900;
/// Every so many kills the host is killed while it still starts, after this long, in milliseconds.
const EARLY_KILL_EVERY: usize = 5;
const EARLY_LIFE_MS: Range<u64> = 5..400;
/// Messages whose statuses and traces are asked for.
const STATUSES_MAX: usize = 4_000;
/// How long the final state may take.
const EVENTUALLY_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_lose_nothing_and_double_nothing() {
    let begun = Instant::now();
    let mut app = TestApp::with(&SERVICES, &SETTINGS).await;
    let (addresses, _) = watch::channel(vec![app.url.clone()]);
    people_write_while_the_host_is_killed(&mut app, &addresses, (KILLS, LIFE_MS), |_| {}).await;
    println!("all checks done after {:.1?}", begun.elapsed());
}

/// Kills the host so often, each time after so many milliseconds, while people write to each other, with whatever else happens when it is down, and looks
/// whether something is missing then. `addresses`: where the host is while it is up.
pub async fn people_write_while_the_host_is_killed(
    app: &mut TestApp,
    addresses: &watch::Sender<Vec<String>>,
    (kills, life_ms): (usize, Range<u64>),
    when_down: impl FnMut(&mut StdRng),
) {
    let begun = Instant::now();
    let mut restarts = Vec::new();
    let seen = people_write_while(app, addresses, async |app, workload| {
        restarts = kill_again_and_again(app, addresses, workload, (kills, life_ms), when_down).await;
    })
    .await;
    println!(
        "{kills} kills in {:.1?}; {} messages answered, {} requests cut off and repeated, {} connections of devices; restart {}",
        begun.elapsed(),
        seen.answered,
        seen.retries,
        seen.connections,
        summary(&restarts),
    );
    // Otherwise the kills interrupted nothing.
    assert!(seen.answered > kills * Scale::default().people, "only {} messages in {kills} lives of the host", seen.answered);
    assert!(seen.retries > kills as u64 / 2, "only {} requests were cut off by {kills} kills", seen.retries);
}

/// What there was to see while people wrote.
pub struct Seen {
    pub answered: usize,
    pub retries: u64,
    pub connections: u64,
    /// From the loss of a device's connection until it had everything again.
    pub longest_silence: Duration,
    /// What hosts said to sockets that they closed when they ended in order: after how long to come back.
    pub goodbyes_ms: Vec<u64>,
    pub devices: usize,
    /// How long people wrote.
    pub lasted: Duration,
}

/// People write to each other through these addresses while something happens to the hosts; in the end nothing may be missing, double or out of order.
pub async fn people_write_while(
    app: &mut TestApp,
    addresses: &watch::Sender<Vec<String>>,
    happens: impl AsyncFnOnce(&mut TestApp, &Workload),
) -> Seen {
    people_write_while_at(Scale::default(), app, addresses, happens).await
}

/// So many people.
pub async fn people_write_while_at(
    scale: Scale,
    app: &mut TestApp,
    addresses: &watch::Sender<Vec<String>>,
    happens: impl AsyncFnOnce(&mut TestApp, &Workload),
) -> Seen {
    println!("seed {SEED}");
    let workload = Arc::new(set_up(scale, app, addresses.subscribe()).await);
    let begun = Instant::now();
    let mut tasks = start(&workload);
    happens(app, &workload).await;
    let lasted = begun.elapsed();

    workload.stop.send_replace(true);
    finish(&mut tasks.writers).await;
    workload.until("every message to be answered", || workload.unanswered.load(Ordering::SeqCst) == 0).await;
    let answered: Vec<Answered> = workload.answered.lock().clone();
    let expected = workload.expected_by_person(&answered);
    workload
        .until("every device to have every message and every receipt", || {
            workload.devices.iter().all(|device| device.received.lock().is_at_least(&expected[device.person]))
        })
        .await;
    workload.done.send_replace(true);
    finish(&mut tasks.devices).await;

    conversations_hold_what_was_answered(app, &workload, &answered).await;
    feeds_hold_what_devices_received(app, &workload, &expected).await;
    statuses_and_traces_are_there(app, &workload, &answered).await;
    the_queue_is_empty(app).await;
    Seen {
        answered: answered.len(),
        retries: workload.retries.load(Ordering::SeqCst),
        connections: workload.connections.load(Ordering::SeqCst),
        longest_silence: *workload.longest_silence.lock(),
        goodbyes_ms: workload.goodbyes_ms.lock().clone(),
        devices: workload.devices.len(),
        lasted,
    }
}

// --- Killing ---------------------------------------------------------------------------------------------------------------------------

/// How long each start took until the host was ready.
async fn kill_again_and_again(
    app: &mut TestApp,
    addresses: &watch::Sender<Vec<String>>,
    workload: &Workload,
    (kills, life_ms): (usize, Range<u64>),
    mut when_down: impl FnMut(&mut StdRng),
) -> Vec<Duration> {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut restarts = Vec::new();
    for kill in 1..=kills {
        tokio::time::sleep(Duration::from_millis(random.random_range(life_ms.clone()))).await;
        let before = workload.answered.lock().len();
        // A user that is cut off waits for the next address, because the old port may belong to another process by then.
        addresses.send_replace(Vec::new());
        app.kill();
        when_down(&mut random);
        if kill.is_multiple_of(EARLY_KILL_EVERY) {
            app.begin_restart();
            tokio::time::sleep(Duration::from_millis(random.random_range(EARLY_LIFE_MS))).await;
            app.kill();
            when_down(&mut random);
        }
        let started = Instant::now();
        app.restart().await;
        restarts.push(started.elapsed());
        addresses.send_replace(vec![app.url.clone()]);
        if kill.is_multiple_of(10) {
            println!("{kill} kills, {before} messages answered, restart {:.0?}", restarts[kill - 1]);
        }
    }
    restarts
}

fn summary(durations: &[Duration]) -> String {
    let mut sorted = durations.to_vec();
    sorted.sort();
    format!("median {:.0?}, longest {:.0?}", sorted[sorted.len() / 2], sorted[sorted.len() - 1])
}

async fn finish(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no user panics");
    }
}

// --- The final state -----------------------------------------------------------------------------------------------------------

async fn conversations_hold_what_was_answered(app: &TestApp, workload: &Workload, answered: &[Answered]) {
    let mut by_conversation: HashMap<usize, BTreeMap<u64, &Answered>> = HashMap::new();
    for message in answered {
        let double = by_conversation.entry(message.conversation).or_default().insert(message.seq, message);
        assert!(double.is_none(), "one seq for two messages: {message:?} and {double:?}");
    }
    for (at, conversation) in workload.conversations.iter().enumerate() {
        let expected = by_conversation.remove(&at).unwrap_or_default();
        let seqs: Vec<u64> = expected.keys().copied().collect();
        assert_eq!(seqs, (1..=expected.len() as u64).collect::<Vec<_>>(), "the sequence of {} has a gap", conversation.id);
        for member in &conversation.members {
            let mut listed = Vec::new();
            loop {
                let path = format!("/api/v1/messages?conversation_id={}&after_seq={}&limit=100", conversation.id, listed.len());
                let page = app.get(&path).by(&workload.people[*member]).send().await.expect(StatusCode::OK);
                let items = page["items"].as_array().expect("items").clone();
                if items.is_empty() {
                    break;
                }
                listed.extend(items);
            }
            assert_eq!(listed.len(), expected.len(), "messages of {}", conversation.id);
            for (item, message) in listed.iter().zip(expected.values()) {
                assert_eq!(item["seq"], message.seq, "{item}");
                assert_eq!(item["id"], message.id, "{item}");
                assert_eq!(item["client_message_id"], message.client_message_id, "{item}");
                assert_eq!(item["sender_id"], workload.people[message.sender].id, "{item}");
            }
        }
    }
}

/// The feed over REST is what came over the sockets, event for event, and its messages and receipts are those that must be.
async fn feeds_hold_what_devices_received(app: &TestApp, workload: &Workload, expected: &[Expected]) {
    for (at, person) in workload.people.iter().enumerate() {
        let mut feed = Vec::new();
        loop {
            let page = app.get(&format!("/api/v1/sync?since={}&limit=500", feed.len())).by(person).send().await.expect(StatusCode::OK);
            for item in page["items"].as_array().expect("items") {
                assert_eq!(item["seq"], feed.len() as u64 + 1, "the feed of {} has a gap", person.id);
                feed.push(name_of(item));
            }
            if page["next_cursor"].is_null() {
                break;
            }
        }
        for device in workload.devices.iter().filter(|device| device.person == at) {
            let received = device.received.lock();
            assert!(received.feed.len() <= feed.len() && feed[..received.feed.len()] == received.feed, "{} got another feed", person.id);
            assert_eq!(received.messages.iter().cloned().collect::<BTreeSet<_>>(), expected[at].messages, "messages of {}", person.id);
            assert_eq!(received.receipts, expected[at].receipts, "receipts of {}", person.id);
        }
        let distinct: HashSet<&String> = feed.iter().filter(|name| name.starts_with("message ")).collect();
        assert_eq!(distinct.len(), expected[at].messages.len(), "messages in the feed of {}", person.id);
        assert_eq!(feed.iter().filter(|name| name.starts_with("message ")).count(), distinct.len(), "{} has one twice", person.id);
    }
}

/// `hub.acknowledged` reached the message service for every message, and `message.sent` the notification service, which decided on each.
async fn statuses_and_traces_are_there(app: &TestApp, workload: &Workload, answered: &[Answered]) {
    // Of very many, some: each takes two requests.
    for message in answered.iter().step_by(answered.len().div_ceil(STATUSES_MAX).max(1)) {
        let sender = &workload.people[message.sender];
        let members = &workload.conversations[message.conversation].members;
        let recipients: BTreeSet<&str> =
            members.iter().filter(|at| **at != message.sender).map(|at| workload.people[*at].id.as_str()).collect();

        let statuses = app.get(&format!("/api/v1/messages/{}/status", message.id)).by(sender).send().await.expect(StatusCode::OK);
        let items = statuses["items"].as_array().expect("items");
        assert!(items.iter().all(|item| item["status"] == "delivered"), "{message:?}: {statuses}");
        assert_eq!(items.iter().filter_map(|item| item["user_id"].as_str()).collect::<BTreeSet<_>>(), recipients, "{message:?}");

        let until = Instant::now() + EVENTUALLY_WITHIN;
        loop {
            let trace = app.get(&format!("/api/v1/notifications/trace/{}", message.id)).by(sender).send().await.expect(StatusCode::OK);
            let items = trace["items"].as_array().expect("items");
            assert_eq!(items.iter().filter_map(|item| item["user_id"].as_str()).collect::<BTreeSet<_>>(), recipients, "{message:?}");
            if items.iter().all(|item| item["decision"] != "waiting") {
                break;
            }
            assert!(Instant::now() < until, "no decision on {message:?}: {trace}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn the_queue_is_empty(app: &TestApp) {
    let until = Instant::now() + EVENTUALLY_WITHIN;
    loop {
        let state = app.admin(Method::GET, "/admin/v1/queue").send().await.expect(StatusCode::OK);
        let consumers = state["consumers"].as_array().expect("consumers");
        let topics: BTreeSet<&str> = consumers.iter().filter_map(|consumer| consumer["topic"].as_str()).collect();
        assert!(topics.contains("message.sent") && topics.contains("hub.acknowledged"), "{state}");
        assert!(consumers.iter().all(|consumer| consumer["dead_letters"] == 0), "a dead letter: {state}");
        if consumers.iter().all(|consumer| consumer["lag"] == 0) {
            return;
        }
        assert!(Instant::now() < until, "events stay in the queue: {state}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
