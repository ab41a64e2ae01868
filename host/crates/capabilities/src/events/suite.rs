//! What every queue must do, whatever lies below it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use uuid::Uuid;

use super::embedded::EmbeddedQueue;
use super::*;
use crate::sql::sqlite::Durability;
use echo_base::limits;
use echo_fixture::killed;

/// `make(name)` opens the queue that keeps its data under this name: the same name, the same data. `close` ends what was opened.
pub async fn suite<F, Made, C, Closed>(make: F, close: C)
where
    F: Fn(&'static str) -> Made,
    Made: Future<Output = Arc<dyn Queue>>,
    C: Fn() -> Closed,
    Closed: Future<Output = ()>,
{
    every_consumer_gets_what_it_subscribed_to(make("fan-out").await).await;
    a_key_is_handled_in_order(make("order").await).await;
    different_keys_go_side_by_side(make("side by side").await).await;
    a_replayed_batch_adds_nothing(make("replayed batch").await).await;
    neighbours_are_handled_together_where_they_may(make("gathers").await).await;
    one_that_fails_among_neighbours_fails_alone(make("gathers-fails").await).await;
    a_retry_holds_back_its_key_alone(make("retry").await).await;
    pauses_grow(make("pauses").await).await;
    what_cannot_be_handled_becomes_a_dead_letter(make("dead").await).await;
    dead_letters_expire(make("expired").await).await;
    a_panicking_handler_is_a_failed_try(make("panic").await).await;
    a_consumer_that_is_away_misses_nothing(make("away").await).await;
    stopping_waits_for_the_event_at_hand(make("stop").await).await;
    more_than_fits_into_memory(make("many").await).await;

    // Over a restart: what waits, how often it was tried, and how far a source has come.
    let queue = make("reopened").await;
    let failing = Recorder::new(|_, _| Outcome::Retry { after: Some(Duration::from_secs(3_600)), reason: "later".to_owned() });
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), failing.clone()).await.expect("subscribes");
    queue.publish("s", &[(1, event("a.a", "k", "first")), (2, event("a.a", "other", "second"))]).await.expect("publishes");
    failing.wait_for(2).await;
    close().await;
    let queue = make("reopened").await;
    queue.publish("s", &[(2, event("a.a", "other", "second")), (3, event("a.a", "new", "third"))]).await.expect("publishes");
    let done = Recorder::done();
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), done.clone()).await.expect("subscribes");
    assert_eq!(done.wait_for(1).await, ["third"], "the others are due in an hour");
    lag_becomes(queue.as_ref(), "alpha", "a.a", 2).await;
    close().await;
}

type Decide = dyn Fn(&Event, usize) -> Outcome + Send + Sync;

/// A handler that writes down the payloads; what it answers is decided by the event and how many it saw before.
struct Recorder {
    decide: Box<Decide>,
    seen: Mutex<Vec<String>>,
    changed: Notify,
}

impl Recorder {
    fn new(decide: impl Fn(&Event, usize) -> Outcome + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { decide: Box::new(decide), seen: Mutex::default(), changed: Notify::new() })
    }

    fn done() -> Arc<Self> {
        Self::new(|_, _| Outcome::Done)
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }

    /// At least so many, within a bounded time.
    async fn wait_for(&self, count: usize) -> Vec<String> {
        let enough = async {
            while self.seen.lock().len() < count {
                self.changed.notified().await;
            }
        };
        if timeout(Duration::from_secs(20), enough).await.is_err() {
            panic!("only {} of {count} came: {:?}", self.seen.lock().len(), self.seen());
        }
        self.seen()
    }
}

#[async_trait]
impl Handler for Recorder {
    async fn handle(&self, event: &Event) -> Outcome {
        let before = self.seen.lock().len();
        let outcome = (self.decide)(event, before);
        self.seen.lock().push(event.payload.clone());
        self.changed.notify_one();
        outcome
    }
}

fn consumer(name: &str) -> ServiceName {
    ServiceName::parse(name).expect("a good name")
}

fn topics(topics: &[&str]) -> Vec<String> {
    topics.iter().map(|topic| (*topic).to_owned()).collect()
}

pub fn event(topic: &str, key: &str, payload: &str) -> Event {
    Event {
        id: Uuid::now_v7(),
        topic: topic.to_owned(),
        key: key.to_owned(),
        payload: payload.to_owned(),
        at_us: 7,
        correlation_id: "c".to_owned(),
    }
}

async fn lag(queue: &dyn Queue, consumer: &str, topic: &str) -> u64 {
    let states = queue.state().await.expect("answers");
    states.iter().find(|state| state.consumer == consumer && state.topic == topic).expect("it is known").lag
}

/// What a handler has just seen counts as waiting until its answer is known, a moment later.
async fn lag_becomes(queue: &dyn Queue, consumer: &str, topic: &str, expect: u64) {
    let reached = async {
        while lag(queue, consumer, topic).await != expect {
            tokio::task::yield_now().await;
        }
    };
    if timeout(Duration::from_secs(10), reached).await.is_err() {
        panic!("{} of {topic} wait for {consumer}, not {expect}", lag(queue, consumer, topic).await);
    }
}

async fn every_consumer_gets_what_it_subscribed_to(queue: Arc<dyn Queue>) {
    let (alpha, beta, late) = (Recorder::done(), Recorder::done(), Recorder::done());
    queue.subscribe(&consumer("alpha"), topics(&["a.a", "b.b"]), alpha.clone()).await.expect("subscribes");
    queue.subscribe(&consumer("beta"), topics(&["b.b"]), beta.clone()).await.expect("subscribes");
    let odd = event("b.b", "k", r#"{"odd":"\"\\\n✓"}"#);
    let events = [(1, event("a.a", "k", "a")), (2, odd.clone()), (3, event("c.c", "k", "nobody's"))];
    queue.publish("s", &events).await.expect("publishes");
    let mut seen = alpha.wait_for(2).await;
    seen.sort();
    assert_eq!(seen, ["a", odd.payload.as_str()]);
    assert_eq!(beta.wait_for(1).await, [odd.payload.as_str()]);
    queue.subscribe(&consumer("late"), topics(&["a.a", "b.b", "c.c"]), late.clone()).await.expect("subscribes");
    // Alpha gives up one of its topics.
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), alpha.clone()).await.expect("subscribes");
    queue.publish("s", &[(4, event("b.b", "k", "after")), (5, event("a.a", "k", "end"))]).await.expect("publishes");
    let mut seen = late.wait_for(2).await;
    seen.sort();
    assert_eq!(seen, ["after", "end"], "a new consumer starts with what is published from now on");
    assert_eq!(alpha.wait_for(3).await[2], "end");
    beta.wait_for(2).await;
    let known: Vec<_> = queue.state().await.expect("answers").into_iter().map(|state| (state.consumer, state.topic)).collect();
    let expect = [("alpha", "a.a"), ("beta", "b.b"), ("late", "a.a"), ("late", "b.b"), ("late", "c.c")];
    assert_eq!(known, expect.map(|(consumer, topic)| (consumer.to_owned(), topic.to_owned())));
    for (consumer, topic) in expect {
        lag_becomes(queue.as_ref(), consumer, topic, 0).await;
    }
    queue.ping().await.expect("answers");
}

/// Hands the events back as they come, each after a different short while.
struct Uneven(mpsc::UnboundedSender<(String, u64)>);

#[async_trait]
impl Handler for Uneven {
    async fn handle(&self, event: &Event) -> Outcome {
        let number: u64 = event.payload.parse().expect("a number");
        for _ in 0..number % 4 {
            tokio::task::yield_now().await;
        }
        self.0.send((event.key.clone(), number)).expect("the test listens");
        // Every seventh has to come again.
        if number.is_multiple_of(7) && event.at_us == 7 && rand::random_bool(0.5) {
            return Outcome::Retry { after: Some(Duration::from_millis(number % 3)), reason: "again".to_owned() };
        }
        Outcome::Done
    }
}

async fn a_key_is_handled_in_order(queue: Arc<dyn Queue>) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), Arc::new(Uneven(sender))).await.expect("subscribes");
    let (publishers, each) = (8, 150);
    join_all((0..publishers).map(|publisher| {
        let queue = queue.clone();
        tokio::spawn(async move {
            let mut position = 0;
            for chunk in (1..=each).collect::<Vec<u64>>().chunks(7) {
                let mut events = Vec::new();
                for number in chunk {
                    for key in ["x", "y"] {
                        position += 1;
                        events.push((position, event("a.a", &format!("{publisher}{key}"), &number.to_string())));
                    }
                }
                queue.publish(&format!("s{publisher}"), &events).await.expect("publishes");
            }
        })
    }))
    .await;
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    while last.len() < 2 * publishers || last.values().any(|number| *number < each) {
        let (key, number) = timeout(Duration::from_secs(20), receiver.recv()).await.expect("all come").expect("the handler lives");
        let before = last.entry(key.clone()).or_default();
        assert!(number == *before + 1 || number == *before, "{key}: {number} came after {before}");
        *before = number;
    }
}

/// Stays until somebody else is there too, at any time.
#[derive(Default)]
struct Meeting {
    present: AtomicUsize,
    met: AtomicUsize,
}

#[async_trait]
impl Handler for Meeting {
    async fn handle(&self, _: &Event) -> Outcome {
        self.present.fetch_add(1, Ordering::SeqCst);
        let meet = async {
            while self.present.load(Ordering::SeqCst) < 2 && self.met.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            self.met.store(1, Ordering::SeqCst);
        };
        let _ = timeout(Duration::from_secs(1), meet).await;
        self.present.fetch_sub(1, Ordering::SeqCst);
        Outcome::Done
    }
}

async fn different_keys_go_side_by_side(queue: Arc<dyn Queue>) {
    let meeting = Arc::new(Meeting::default());
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), meeting.clone()).await.expect("subscribes");
    // Among so many keys there are some of different partitions.
    let events: Vec<_> = (0..64).map(|number| (number, event("a.a", &number.to_string(), "x"))).collect();
    queue.publish("s", &events).await.expect("publishes");
    lag_becomes(queue.as_ref(), "alpha", "a.a", 0).await;
    assert_eq!(meeting.met.load(Ordering::SeqCst), 1, "nobody met anybody");
}

async fn a_replayed_batch_adds_nothing(queue: Arc<dyn Queue>) {
    let recorder = Recorder::done();
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), recorder.clone()).await.expect("subscribes");
    let batch = [(5, event("a.a", "k", "5")), (6, event("a.a", "k", "6"))];
    queue.publish("s", &batch).await.expect("publishes");
    queue.publish("s", &batch).await.expect("skips");
    queue.publish("s", &[(1, event("a.a", "k", "1")), batch[1].clone(), (7, event("a.a", "k", "7"))]).await.expect("publishes 7");
    queue.publish("other", &[(1, event("a.a", "k", "other"))]).await.expect("publishes");
    queue.publish("s", &[]).await.expect("nothing to do");
    assert_eq!(recorder.wait_for(4).await, ["5", "6", "7", "other"]);
}

/// Takes neighbours together, and refuses those with a payload of `bad` in them.
struct Gatherer {
    calls: Mutex<Vec<Vec<String>>>,
    /// The first call waits for it, so that others gather behind it.
    go: tokio::sync::Semaphore,
}

impl Gatherer {
    async fn handle_all(&self, payloads: Vec<String>) -> Outcome {
        let bad = payloads.iter().any(|payload| payload == "bad");
        self.calls.lock().push(payloads);
        self.go.acquire().await.expect("open").forget();
        if bad { Outcome::Reject { reason: "bad".to_owned() } } else { Outcome::Done }
    }

    async fn wait_for(&self, calls: usize) -> Vec<Vec<String>> {
        let until = Instant::now() + Duration::from_secs(20);
        while self.calls.lock().len() < calls {
            assert!(Instant::now() < until, "{:?} came, not {calls} calls", self.calls.lock());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.calls.lock().clone()
    }
}

#[async_trait]
impl Handler for Gatherer {
    async fn handle(&self, event: &Event) -> Outcome {
        self.handle_all(vec![event.payload.clone()]).await
    }

    fn gathers(&self, topic: &str) -> bool {
        topic == "a.a"
    }

    async fn handle_together(&self, events: &[Arc<Event>]) -> Outcome {
        self.handle_all(events.iter().map(|event| event.payload.clone()).collect()).await
    }
}

async fn neighbours_are_handled_together_where_they_may(queue: Arc<dyn Queue>) {
    let gatherer = Arc::new(Gatherer { calls: Mutex::default(), go: tokio::sync::Semaphore::new(0) });
    queue.subscribe(&consumer("alpha"), topics(&["a.a", "a.b"]), gatherer.clone()).await.expect("subscribes");
    let events: Vec<(i64, Event)> = (1..=6).map(|number| (number, event("a.a", "k", &number.to_string()))).collect();
    queue.publish("s", &events[..1]).await.expect("publishes");
    gatherer.wait_for(1).await;
    queue.publish("s", &events).await.expect("publishes, and skips the first");
    gatherer.go.add_permits(100);
    let mut calls = gatherer.wait_for(2).await;
    // A backend may cut them elsewhere; each comes once, in order, and some come together.
    while calls.concat().len() < 6 {
        calls = gatherer.wait_for(calls.len() + 1).await;
    }
    assert_eq!(calls.concat(), ["1", "2", "3", "4", "5", "6"]);
    assert!(calls.len() < 6, "none came together: {calls:?}");
    queue.publish("s", &[(7, event("a.b", "k", "7")), (8, event("a.b", "k", "8"))]).await.expect("publishes");
    let later = gatherer.wait_for(calls.len() + 2).await;
    assert_eq!(later[calls.len()..], [["7"], ["8"]], "this topic does not gather");
}

async fn one_that_fails_among_neighbours_fails_alone(queue: Arc<dyn Queue>) {
    let gatherer = Arc::new(Gatherer { calls: Mutex::default(), go: tokio::sync::Semaphore::new(0) });
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), gatherer.clone()).await.expect("subscribes");
    queue.publish("s", &[(1, event("a.a", "k", "1"))]).await.expect("publishes");
    gatherer.wait_for(1).await;
    let others = [(2, event("a.a", "k", "2")), (3, event("a.a", "k", "bad")), (4, event("a.a", "k", "4"))];
    queue.publish("s", &others).await.expect("publishes");
    gatherer.go.add_permits(100);
    let until = Instant::now() + Duration::from_secs(20);
    while queue.dead_letters(Some("alpha"), 10).await.expect("answers").is_empty() || lag(queue.as_ref(), "alpha", "a.a").await > 0 {
        assert!(Instant::now() < until, "{:?}", gatherer.calls.lock());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let dead = queue.dead_letters(Some("alpha"), 10).await.expect("answers");
    assert_eq!(dead.iter().map(|letter| letter.event.payload.as_str()).collect::<Vec<_>>(), ["bad"]);
    let alone: Vec<String> = gatherer.calls.lock().iter().filter(|call| call.len() == 1).map(|call| call[0].clone()).collect();
    assert!(alone.ends_with(&["2".to_owned(), "bad".to_owned(), "4".to_owned()]), "{alone:?}");
}

async fn a_retry_holds_back_its_key_alone(queue: Arc<dyn Queue>) {
    let failures = AtomicI64::new(2);
    let recorder = Recorder::new(move |event, _| match event.payload.as_str() {
        "slow 1" if failures.fetch_sub(1, Ordering::SeqCst) > 0 => {
            Outcome::Retry { after: Some(Duration::from_millis(60)), reason: "not yet".to_owned() }
        }
        _ => Outcome::Done,
    });
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), recorder.clone()).await.expect("subscribes");
    let mut events = vec![(1, event("a.a", "slow", "slow 1")), (2, event("a.a", "slow", "slow 2"))];
    // Enough keys that some share the slow one's partition.
    events.extend((0..40).map(|number| (10 + number, event("a.a", &format!("key {number}"), "quick"))));
    let begin = Instant::now();
    queue.publish("s", &events).await.expect("publishes");
    let seen = recorder.wait_for(44).await;
    assert!(begin.elapsed() >= Duration::from_millis(120), "the pause that was asked for was cut short");
    let slow: Vec<_> = seen.iter().filter(|payload| payload.starts_with("slow")).cloned().collect();
    assert_eq!(slow, ["slow 1", "slow 1", "slow 1", "slow 2"]);
    let second = seen.iter().rposition(|payload| payload == "slow 1").expect("it came");
    assert_eq!(seen[..second].iter().filter(|payload| *payload == "quick").count(), 40, "other keys waited for the slow one");
}

async fn pauses_grow(queue: Arc<dyn Queue>) {
    let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let kept = times.clone();
    let recorder = Recorder::new(move |_, before| {
        kept.lock().push(Instant::now());
        if before < 3 { Outcome::Retry { after: None, reason: "not yet".to_owned() } } else { Outcome::Done }
    });
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), recorder.clone()).await.expect("subscribes");
    queue.publish("s", &[(1, event("a.a", "k", "x"))]).await.expect("publishes");
    recorder.wait_for(4).await;
    let times = times.lock().clone();
    for (index, pair) in times.windows(2).enumerate() {
        let least = Duration::from_millis(limits::EVENT_RETRY_FIRST_MS * (1 << index)).mul_f64(0.7);
        assert!(pair[1] - pair[0] >= least, "pause {index} was {:?}, not {least:?}", pair[1] - pair[0]);
    }
}

async fn what_cannot_be_handled_becomes_a_dead_letter(queue: Arc<dyn Queue>) {
    let mended = Arc::new(AtomicUsize::new(0));
    let flag = mended.clone();
    let recorder = Recorder::new(move |event, _| match event.payload.as_str() {
        "bad" if flag.load(Ordering::SeqCst) == 0 => Outcome::Reject { reason: "é".repeat(limits::EVENT_REASON_BYTES_MAX) },
        "hopeless" => Outcome::Retry { after: Some(Duration::ZERO), reason: "never".to_owned() },
        _ => Outcome::Done,
    });
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), recorder.clone()).await.expect("subscribes");
    let bad = event("a.a", "k", "bad");
    let hopeless = event("a.a", "k", "hopeless");
    queue.publish("s", &[(1, bad.clone()), (2, hopeless.clone()), (3, event("a.a", "k", "good"))]).await.expect("publishes");
    let seen = recorder.wait_for(2 + limits::EVENT_TRIES_MAX as usize).await;
    assert_eq!((seen[0].as_str(), seen.last().map(String::as_str)), ("bad", Some("good")), "a dead letter does not stop its key");

    let letters = queue.dead_letters(None, 10).await.expect("answers");
    let shown: Vec<_> = letters.iter().map(|letter| (letter.event.clone(), letter.tries, letter.consumer.as_str())).collect();
    assert_eq!(shown, [(hopeless, limits::EVENT_TRIES_MAX, "alpha"), (bad.clone(), 1, "alpha")], "newest first");
    assert_eq!(letters[0].reason, "never");
    assert!(letters[1].reason.len() <= limits::EVENT_REASON_BYTES_MAX && letters[1].reason.starts_with("éé"));
    assert_eq!(queue.dead_letters(Some("alpha"), 1).await.expect("answers").len(), 1);
    assert_eq!(queue.dead_letters(Some("beta"), 10).await.expect("answers").len(), 0);
    assert_eq!(queue.state().await.expect("answers")[0].dead_letters, 2);
    lag_becomes(queue.as_ref(), "alpha", "a.a", 0).await;

    mended.store(1, Ordering::SeqCst);
    queue.replay(&letters[1].id).await.expect("replays");
    let seen = recorder.wait_for(3 + limits::EVENT_TRIES_MAX as usize).await;
    assert_eq!(seen.last(), Some(&bad.payload));
    queue.drop_dead_letter(&letters[0].id).await.expect("drops");
    assert_eq!(queue.dead_letters(None, 10).await.expect("answers").len(), 0);
    for letter in &letters {
        assert!(matches!(queue.replay(&letter.id).await, Err(QueueError::NoSuchDeadLetter(id)) if id == letter.id));
        assert!(matches!(queue.drop_dead_letter(&letter.id).await, Err(QueueError::NoSuchDeadLetter(id)) if id == letter.id));
    }
}

async fn dead_letters_expire(queue: Arc<dyn Queue>) {
    let recorder = Recorder::new(|_, _| Outcome::Reject { reason: "never".to_owned() });
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), recorder.clone()).await.expect("subscribes");
    for (position, payload) in [(1, "first"), (2, "second"), (3, "third")] {
        queue.publish("s", &[(position, event("a.a", "k", payload))]).await.expect("publishes");
        recorder.wait_for(position as usize).await;
        lag_becomes(queue.as_ref(), "alpha", "a.a", 0).await;
    }
    let letters = queue.dead_letters(None, 10).await.expect("answers");
    let (newest, oldest) = (letters[0].at_us, letters[2].at_us);
    // Thirty days later, say: what is older than the time that is given goes.
    assert_eq!(queue.expire_dead_letters(oldest).await.expect("expires"), 0);
    assert_eq!(queue.expire_dead_letters(newest).await.expect("expires"), 2);
    let left: Vec<_> = queue.dead_letters(None, 10).await.expect("answers").iter().map(|letter| letter.event.payload.clone()).collect();
    assert_eq!(left, ["third"]);
    assert_eq!(queue.expire_dead_letters(newest + 1).await.expect("expires"), 1);
    assert_eq!(queue.dead_letters(None, 10).await.expect("answers").len(), 0);
}

async fn a_panicking_handler_is_a_failed_try(queue: Arc<dyn Queue>) {
    let tries = AtomicUsize::new(0);
    let recorder = Recorder::new(move |event, _| {
        assert!(event.payload != "odd" || tries.fetch_add(1, Ordering::SeqCst) > 0, "a handler's mistake");
        Outcome::Done
    });
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), recorder.clone()).await.expect("subscribes");
    queue.publish("s", &[(1, event("a.a", "k", "odd")), (2, event("a.a", "k", "next"))]).await.expect("publishes");
    assert_eq!(recorder.wait_for(2).await, ["odd", "next"]);
}

async fn a_consumer_that_is_away_misses_nothing(queue: Arc<dyn Queue>) {
    let (before, after) = (Recorder::done(), Recorder::done());
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), before.clone()).await.expect("subscribes");
    queue.publish("s", &[(1, event("a.a", "k", "1"))]).await.expect("publishes");
    before.wait_for(1).await;
    queue.stop().await;
    queue.publish("s", &[(2, event("a.a", "k", "2")), (3, event("a.a", "k", "3"))]).await.expect("publishes");
    lag_becomes(queue.as_ref(), "alpha", "a.a", 2).await;
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), after.clone()).await.expect("subscribes");
    queue.publish("s", &[(4, event("a.a", "k", "4"))]).await.expect("publishes");
    assert_eq!(after.wait_for(3).await, ["2", "3", "4"]);
    // Replaced while it runs: the same place in the queue, another handler.
    let replaced = Recorder::done();
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), replaced.clone()).await.expect("subscribes");
    queue.publish("s", &[(5, event("a.a", "k", "5"))]).await.expect("publishes");
    assert_eq!(replaced.wait_for(1).await, ["5"]);
    assert_eq!((before.seen().len(), after.seen().len()), (1, 3));
    lag_becomes(queue.as_ref(), "alpha", "a.a", 0).await;
}

struct Held {
    begun: Notify,
    go_on: Notify,
    ended: AtomicUsize,
}

#[async_trait]
impl Handler for Held {
    async fn handle(&self, _: &Event) -> Outcome {
        self.begun.notify_one();
        self.go_on.notified().await;
        self.ended.fetch_add(1, Ordering::SeqCst);
        Outcome::Done
    }
}

async fn stopping_waits_for_the_event_at_hand(queue: Arc<dyn Queue>) {
    let held = Arc::new(Held { begun: Notify::new(), go_on: Notify::new(), ended: AtomicUsize::new(0) });
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), held.clone()).await.expect("subscribes");
    queue.publish("s", &[(1, event("a.a", "k", "1")), (2, event("a.a", "k", "2"))]).await.expect("publishes");
    timeout(Duration::from_secs(5), held.begun.notified()).await.expect("it is handled");
    let stop = queue.stop();
    tokio::pin!(stop);
    assert!(timeout(Duration::from_millis(50), &mut stop).await.is_err(), "it did not wait");
    held.go_on.notify_one();
    timeout(Duration::from_secs(5), stop).await.expect("stops");
    assert_eq!(held.ended.load(Ordering::SeqCst), 1);
    lag_becomes(queue.as_ref(), "alpha", "a.a", 1).await;
}

async fn more_than_fits_into_memory(queue: Arc<dyn Queue>) {
    let held = Arc::new(Held { begun: Notify::new(), go_on: Notify::new(), ended: AtomicUsize::new(0) });
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), held.clone()).await.expect("subscribes");
    let count = 3 * limits::QUEUE_PARTITION_EVENTS_MAX;
    let large = "x".repeat(limits::EVENT_BYTES_MAX);
    for chunk in (0..count).collect::<Vec<_>>().chunks(limits::RELAY_BATCH) {
        let events: Vec<_> = chunk.iter().map(|number| (*number as i64, event("a.a", "k", &number.to_string()))).collect();
        queue.publish("s", &events).await.expect("publishes");
    }
    let events: Vec<_> = (0..10).map(|number| ((count + number) as i64, event("a.a", "k", &large))).collect();
    queue.publish("s", &events).await.expect("publishes");
    timeout(Duration::from_secs(5), held.begun.notified()).await.expect("it is handled");
    let recorder = Recorder::done();
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), recorder.clone()).await.expect("subscribes");
    held.go_on.notify_one();
    let seen = recorder.wait_for(count - 1 + 10).await;
    let expect: Vec<String> = (1..count).map(|number| number.to_string()).chain(std::iter::repeat_n(large, 10)).collect();
    assert!(seen == expect, "out of order, or not all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_has_so_many_events_waiting_and_others_go_on() {
    const MOST: u64 = 5;
    let folder = tempfile::tempdir().expect("a folder");
    let open = async || EmbeddedQueue::open_within(folder.path(), Durability::default(), 10, MOST).await.expect("opens");
    let queue = open().await;
    let later = Recorder::new(|_, _| Outcome::Retry { after: Some(Duration::from_millis(500)), reason: "later".to_owned() });
    for name in ["alpha", "beta"] {
        queue.subscribe(&consumer(name), topics(&["a.a"]), later.clone()).await.expect("subscribes");
    }
    // One for each subscriber.
    let events = |from: i64, to: i64| (from..=to).map(|at| (at, event("a.a", "k", &at.to_string()))).collect::<Vec<_>>();
    queue.publish("noisy:1", &events(1, 3)).await.expect("up to the bound and a batch beyond");
    let full = queue.publish("noisy:1", &events(4, 4)).await;
    assert!(matches!(&full, Err(QueueError::Full { publisher }) if publisher == "noisy"), "{full:?}");
    queue.publish("quiet:2", &events(1, 1)).await.expect("another publisher has its own share");
    // Also after a restart.
    queue.close().await;
    let queue = open().await;
    assert!(matches!(queue.publish("noisy:1", &events(4, 4)).await, Err(QueueError::Full { .. })));
    // What was handled makes room; nothing that was taken is lost.
    let recorders = [Recorder::done(), Recorder::done()];
    for (name, recorder) in ["alpha", "beta"].into_iter().zip(&recorders) {
        queue.subscribe(&consumer(name), topics(&["a.a"]), recorder.clone()).await.expect("subscribes");
    }
    for recorder in &recorders {
        recorder.wait_for(4).await;
    }
    timeout(Duration::from_secs(5), async {
        while queue.publish("noisy:1", &events(4, 4)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("there is room again");
    for recorder in &recorders {
        assert_eq!(recorder.wait_for(5).await.last().map(String::as_str), Some("4"));
    }
    queue.stop().await;
}

async fn open(folder: &Path) -> EmbeddedQueue {
    EmbeddedQueue::open(folder, Durability::default()).await.expect("opens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened: Mutex<Vec<Arc<EmbeddedQueue>>> = Mutex::default();
    suite(
        |name| {
            let (folder, opened) = (folder.path().join(name), &opened);
            async move {
                let queue = Arc::new(open(&folder).await);
                opened.lock().push(queue.clone());
                queue as Arc<dyn Queue>
            }
        },
        || async {
            let queues = std::mem::take(&mut *opened.lock());
            for queue in queues {
                timeout(Duration::from_secs(20), queue.close()).await.expect("closes");
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_no_published_event() {
    const TEST: &str = "events::suite::a_killed_process_loses_no_published_event";
    if let Some(folder) = killed::folder() {
        let queue = open(&folder).await;
        let told = Recorder::new(|event, _| {
            killed::acknowledge(format!("handled {}", event.payload));
            Outcome::Done
        });
        queue.subscribe(&consumer("alpha"), topics(&["a.a"]), told).await.expect("subscribes");
        let source = Uuid::now_v7().to_string();
        for position in 0.. {
            let payload = format!("{source}/{position}");
            let event = event("a.a", &(position % 20).to_string(), &payload);
            // Handed over twice, as after a crash of the relay.
            for _ in 0..2 {
                queue.publish(&source, &[(position, event.clone())]).await.expect("publishes");
            }
            killed::acknowledge(format!("published {payload}"));
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (mut published, mut handled) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..4 {
        let mut at_once = BTreeSet::new();
        for line in killed::run(TEST, folder.path(), rand::random_range(1..600)) {
            match line.split_once(' ').expect("a word and a payload") {
                ("published", payload) => assert!(published.insert(payload.to_owned())),
                (_, payload) => assert!(at_once.insert(payload.to_owned()), "{payload} was handed over twice without a crash"),
            }
        }
        handled.append(&mut at_once);
    }
    let queue = open(folder.path()).await;
    let rest = Recorder::done();
    let waiting = lag(&queue, "alpha", "a.a").await as usize;
    queue.subscribe(&consumer("alpha"), topics(&["a.a"]), rest.clone()).await.expect("subscribes");
    let rest = rest.wait_for(waiting).await;
    let unique: BTreeSet<String> = rest.iter().cloned().collect();
    assert_eq!(rest.len(), unique.len(), "an event stands in the queue twice");
    for payload in published {
        assert!(handled.contains(&payload) || unique.contains(&payload), "{payload} was published and is lost");
    }
}
