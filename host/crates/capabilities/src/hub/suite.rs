//! What every feed must do, whatever lies below it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use super::embedded::EmbeddedFeed;
use super::*;
use crate::sql::Effect;
use crate::sql::sqlite::Durability;
use echo_base::limits;

/// `make(name)` opens the feed that keeps its data under this name: the same name, the same data. `close` ends one.
pub async fn suite<F, Made, C, Closed>(make: F, close: C)
where
    F: Fn(&'static str) -> Made,
    Made: Future<Output = Arc<dyn Feed>>,
    C: Fn() -> Closed,
    Closed: Future<Output = ()>,
{
    numbers_have_no_gaps(make("gapless").await).await;
    a_replayed_batch_adds_nothing(make("replay").await).await;
    pages_lead_through_the_feed(make("pages").await).await;
    cursors_only_rise(make("cursors").await).await;
    what_no_device_was_given_is_not_acknowledged(make("gaps").await).await;
    receipts_are_told_once(make("receipts").await).await;
    who_has_not_acknowledged(make("unacknowledged").await).await;
    old_and_superfluous_entries_go(make("expiry").await).await;
    cursors_of_devices_that_are_away_for_long_go(make("away").await).await;
    large_batches_fit(make("large").await).await;
    what_is_replaced_is_said_no_more(make("replaced").await).await;
    a_burst_of_a_state_is_two_events(make("states").await).await;
    announced_events_leave_by_the_outbox(make("announced").await).await;

    let user = Uuid::now_v7();
    let waiting = make("waiting").await;
    waiting.apply("a:1", &states(&[user], 0..3)).await.expect("applies");
    let first = make("reopened").await;
    first.append("a", &[(1, push(&[user], "one"))]).await.expect("appends");
    first.acknowledge(&[ack(user, "phone", 1)]).await.expect("acknowledges");
    let emptied = make("emptied").await;
    emptied.append("a", &[(1, push(&[user], "one")), (2, push(&[user], "two"))]).await.expect("appends");
    emptied.acknowledge(&[ack(user, "phone", 1)]).await.expect("acknowledges");
    let at_us = emptied.read(user, 1, 1).await.expect("reads").entries[0].at_us;
    assert_eq!(emptied.expire(at_us + limits::FEED_TTL_S * 1_000_000 + 1, CURSORS_KEPT).await.expect("expires"), 2);
    let source = first.source().to_owned();
    close().await;
    let waiting = make("waiting").await;
    assert_eq!(waiting.apply("a:1", &states(&[user], 0..3)).await.expect("skips"), []);
    let released = waiting.release("a:1").await.expect("releases");
    assert_eq!(released.iter().map(|entry| (entry.seq, text(entry))).collect::<Vec<_>>(), [(2, "2".to_owned())], "what waits is kept");
    assert_eq!(waiting.release("a:1").await.expect("releases"), []);
    let again = make("reopened").await;
    assert_eq!(again.source(), source, "a source keeps its name");
    assert_eq!(cursor(&again, user, "phone").await, 1);
    assert_eq!(told(again.as_ref()).await, [(user, 1, vec!["one".to_owned()])], "an acknowledgement was forgotten");
    assert_eq!(again.append("a", &[(1, push(&[user], "one"))]).await.expect("skips"), []);
    let entries = again.append("a", &[(2, push(&[user], "two"))]).await.expect("appends");
    assert_eq!(entries[0].seq, 2);

    let again = make("emptied").await;
    assert_eq!(again.read(user, 0, 1).await.expect("reads").head, 2, "a number would be given twice");
    let entries = again.append("a", &[(3, push(&[user], "three"))]).await.expect("appends");
    assert_eq!(entries[0].seq, 3);
    again.acknowledge(&[ack(user, "phone", 3)]).await.expect("acknowledges");
    assert_eq!(told(again.as_ref()).await.pop(), Some((user, 3, vec!["three".to_owned()])));
}

const CURSORS_KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// A batch of pushes alone.
trait Append {
    async fn append(&self, source: &str, pushes: &[(i64, Push)]) -> Result<Vec<FeedEntry>, FeedError>;
}

impl Append for Arc<dyn Feed> {
    async fn append(&self, source: &str, pushes: &[(i64, Push)]) -> Result<Vec<FeedEntry>, FeedError> {
        let changes: Vec<_> = pushes.iter().map(|(position, push)| (*position, FeedChange::Push(push.clone()))).collect();
        self.apply(source, &changes).await
    }
}

/// The receipt is the payload's text.
fn push(users: &[Uuid], text: &str) -> Push {
    Push {
        users: users.to_vec(),
        event: "message".to_owned(),
        payload: json!({ "text": text, "odd": "\"\\\u{1F600}\n" }).to_string(),
        class: Class::Durable,
        receipt: Some(text.to_owned()),
        subject: None,
        state: None,
    }
}

fn ack(user: Uuid, device: &str, seq: u64) -> Acknowledgement {
    Acknowledgement { user, device: device.to_owned(), above: 0, seq }
}

async fn cursor(feed: &Arc<dyn Feed>, user: Uuid, device: &str) -> u64 {
    feed.device(user, device).await.expect("reads").map_or(0, |device| device.acknowledged)
}

fn text(entry: &FeedEntry) -> String {
    let payload: Value = serde_json::from_str(&entry.payload).expect("the payload comes back as it was");
    payload["text"].as_str().expect("a text").to_owned()
}

/// As `echo:hub/events` says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Acknowledgements {
    items: Vec<Acknowledged>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Acknowledged {
    user_id: Uuid,
    #[serde(rename = "device_id")]
    _device_id: String,
    seq: u64,
    receipts: Vec<String>,
    #[serde(rename = "behind")]
    _behind: bool,
}

/// What the outbox tells: user, seq, receipts.
async fn told(feed: &dyn Feed) -> Vec<(Uuid, u64, Vec<String>)> {
    let mut all = Vec::new();
    for (_, effect) in feed.peek(i64::MIN, 10_000).await.expect("peeks") {
        let Effect::Event(event) = effect else { panic!("no event: {effect:?}") };
        assert_eq!(event.topic, "hub.acknowledged");
        let Acknowledgements { items } = serde_json::from_str(&event.payload).expect("as the WIT says");
        let receipts = items.iter().map(|item| item.receipts.len());
        assert!(receipts.clone().all(|receipts| receipts > 0) && receipts.sum::<usize>() <= limits::ACK_RECEIPTS_MAX);
        all.extend(items.into_iter().map(|item| (item.user_id, item.seq, item.receipts)));
    }
    all
}

async fn announced_events_leave_by_the_outbox(feed: Arc<dyn Feed>) {
    let event = |number: usize| Event {
        id: Uuid::now_v7(),
        topic: "hub.connected".to_owned(),
        key: "user".to_owned(),
        // All of them together are more than the outbox takes in one statement.
        payload: json!({ "number": number, "text": "x".repeat(8 * 1024) }).to_string(),
        at_us: 1,
        correlation_id: String::new(),
    };
    let events: Vec<Event> = (0..limits::RELAY_BATCH).map(event).collect();
    let wake = feed.signal();
    feed.announce(&events).await.expect("announces");
    timeout(Duration::from_secs(5), wake.notified()).await.expect("the relay is called");
    let mut left = Vec::new();
    while left.len() < events.len() {
        let effects = feed.peek(i64::MIN, limits::RELAY_BATCH).await.expect("peeks");
        let last = effects.last().expect("some are left").0;
        left.extend(effects.into_iter().map(|(_, effect)| effect));
        feed.remove_up_to(last).await.expect("removes");
    }
    assert_eq!(left, events.into_iter().map(Effect::Event).collect::<Vec<_>>());
}

async fn numbers_have_no_gaps(feed: Arc<dyn Feed>) {
    let users: Vec<Uuid> = (0..5).map(|_| Uuid::now_v7()).collect();
    let (appenders, batches) = (16, 20);
    let tasks = (0..appenders).map(|appender: i64| {
        let (feed, users) = (feed.clone(), users.clone());
        tokio::spawn(async move {
            let mut entries = Vec::new();
            for batch in 0..batches {
                let some = &users[(batch % 3) as usize..];
                let pushes = [(batch * 2, push(some, &format!("{appender}.{batch}"))), (batch * 2 + 1, push(&users[..1], "second"))];
                entries.extend(feed.append(&format!("source {appender}"), &pushes).await.expect("appends"));
            }
            entries
        })
    });
    let mut given: BTreeMap<Uuid, Vec<u64>> = BTreeMap::new();
    for entries in join_all(tasks).await {
        for entry in entries.expect("no panic") {
            given.entry(entry.user).or_default().push(entry.seq);
        }
    }
    for user in users {
        let seqs = given.get_mut(&user).expect("everybody got some");
        seqs.sort_unstable();
        assert_eq!(*seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "a gap or a number given twice");
        let page = feed.read(user, 0, limits::FEED_PAGE_MAX).await.expect("reads");
        assert_eq!(page.head, seqs.len() as u64);
        let kept: Vec<u64> = page.entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(kept[..], seqs[..limits::FEED_PAGE_MAX.min(seqs.len())]);
    }
}

async fn a_replayed_batch_adds_nothing(feed: Arc<dyn Feed>) {
    let user = Uuid::now_v7();
    let batch: Vec<_> = (1..=3).map(|position| (position, push(&[user, user], &position.to_string()))).collect();
    let entries = feed.append("a", &batch).await.expect("appends");
    assert_eq!(
        entries.iter().map(|entry| (entry.seq, text(entry))).collect::<Vec<_>>(),
        [(1, "1".to_owned()), (2, "2".to_owned()), (3, "3".to_owned())]
    );
    assert_eq!(feed.append("a", &batch).await.expect("skips"), []);
    let longer = [batch[2].clone(), (4, push(&[user], "4"))];
    assert_eq!(feed.append("a", &longer).await.expect("appends the new one").len(), 1);
    assert_eq!(feed.append("b", &batch[..1]).await.expect("another source").len(), 1);
    assert_eq!(feed.append("a", &[]).await.expect("nothing to do"), []);
    assert_eq!(feed.read(user, 0, 100).await.expect("reads").head, 5);
}

async fn pages_lead_through_the_feed(feed: Arc<dyn Feed>) {
    let (user, other) = (Uuid::now_v7(), Uuid::now_v7());
    let empty = feed.read(user, 0, 10).await.expect("reads");
    assert_eq!((empty.entries.len(), empty.head, empty.oldest), (0, 0, 1));
    let pushes: Vec<_> = (1..=25).map(|position| (position, push(&[user, other], &position.to_string()))).collect();
    let appended = feed.append("a", &pushes).await.expect("appends");
    let mut since = 0;
    let mut seen = Vec::new();
    loop {
        let page = feed.read(user, since, 10).await.expect("reads");
        assert_eq!((page.head, page.oldest), (25, 1));
        let Some(last) = page.entries.last() else { break };
        assert!(page.entries.len() <= 10);
        since = last.seq;
        seen.extend(page.entries);
    }
    let mine: Vec<_> = appended.into_iter().filter(|entry| entry.user == user).collect();
    assert_eq!(seen, mine, "what is read later is not what was delivered");
    let beyond = feed.read(user, u64::MAX, 10).await.expect("reads");
    assert_eq!((beyond.entries.len(), beyond.head), (0, 25));
}

async fn cursors_only_rise(feed: Arc<dyn Feed>) {
    let (user, stranger) = (Uuid::now_v7(), Uuid::now_v7());
    let pushes: Vec<_> = (1..=5).map(|position| (position, push(&[user], &position.to_string()))).collect();
    feed.append("a", &pushes).await.expect("appends");
    for (seq, expect) in [(0, 0), (3, 3), (2, 3), (4, 4), (99, 5)] {
        feed.acknowledge(&[ack(user, "phone", seq)]).await.expect("acknowledges");
        assert_eq!(cursor(&feed, user, "phone").await, expect, "after {seq}");
    }
    assert_eq!(cursor(&feed, user, "laptop").await, 0);
    feed.acknowledge(&[ack(stranger, "phone", 7)]).await.expect("is ignored");
    assert_eq!(cursor(&feed, stranger, "phone").await, 0);
    feed.acknowledge(&[]).await.expect("nothing to do");
}

async fn what_no_device_was_given_is_not_acknowledged(feed: Arc<dyn Feed>) {
    let user = Uuid::now_v7();
    let pushes: Vec<_> = (1..=6).map(|position| (position, push(&[user], &position.to_string()))).collect();
    feed.append("a", &pushes).await.expect("appends");
    let receipts = |range: std::ops::RangeInclusive<u32>| range.map(|number| number.to_string()).collect::<Vec<_>>();
    feed.acknowledge(&[ack(user, "phone", 2)]).await.expect("acknowledges");
    // A tablet begins after 4.
    let began = Acknowledgement { above: 4, ..ack(user, "tablet", 0) };
    feed.acknowledge(std::slice::from_ref(&began)).await.expect("notes");
    assert_eq!(feed.device(user, "tablet").await.expect("reads"), Some(DeviceCursor { above: 4, acknowledged: 0 }));
    feed.acknowledge(&[Acknowledgement { seq: 5, ..began }]).await.expect("acknowledges");
    assert_eq!(feed.device(user, "tablet").await.expect("reads"), Some(DeviceCursor { above: 4, acknowledged: 5 }));
    let missed = async |receipt: &str| !feed.unacknowledged(receipt, &[user]).await.expect("answers").is_empty();
    assert_eq!(
        [missed("2").await, missed("3").await, missed("4").await, missed("5").await, missed("6").await],
        [false, true, true, false, true]
    );
    assert_eq!(told(feed.as_ref()).await, [(user, 2, receipts(1..=2)), (user, 5, receipts(5..=5))]);
    // The phone comes back.
    feed.acknowledge(&[ack(user, "phone", 6)]).await.expect("acknowledges");
    let rest = vec!["3".to_owned(), "4".to_owned(), "6".to_owned()];
    assert_eq!(told(feed.as_ref()).await.pop(), Some((user, 6, rest)));
    assert!(!missed("3").await);
    // A device of somebody who was never pushed to, and then is.
    let newcomer = Uuid::now_v7();
    feed.acknowledge(&[Acknowledgement { above: 0, ..ack(newcomer, "phone", 0) }]).await.expect("notes");
    assert_eq!(feed.device(newcomer, "phone").await.expect("reads"), Some(DeviceCursor { above: 0, acknowledged: 0 }));
    assert_eq!(feed.append("a", &[(7, push(&[newcomer], "7"))]).await.expect("appends")[0].seq, 1);
}

async fn receipts_are_told_once(feed: Arc<dyn Feed>) {
    let (user, other) = (Uuid::now_v7(), Uuid::now_v7());
    let signal = feed.signal();
    let mut pushes: Vec<_> = (1..=4).map(|position| (position, push(&[user, other], &position.to_string()))).collect();
    pushes[1].1.receipt = None;
    feed.append("a", &pushes).await.expect("appends");
    let receipts = |range: &[u32]| range.iter().map(u32::to_string).collect::<Vec<_>>();

    feed.acknowledge(&[ack(user, "phone", 1), ack(user, "laptop", 3), ack(user, "phone", 2)]).await.expect("acknowledges");
    timeout(Duration::from_secs(2), signal.notified()).await.expect("the relay is called");
    assert_eq!(told(feed.as_ref()).await, [(user, 3, receipts(&[1, 3]))]);
    feed.acknowledge(&[ack(user, "phone", 3), ack(user, "laptop", 3)]).await.expect("acknowledges");
    assert_eq!(told(feed.as_ref()).await.len(), 1, "told twice");
    feed.acknowledge(&[ack(user, "phone", 4), ack(other, "phone", 2)]).await.expect("acknowledges");
    let mut rest = told(feed.as_ref()).await.split_off(1);
    rest.sort_by_key(|(_, seq, _)| *seq);
    assert_eq!(rest, [(other, 2, receipts(&[1])), (user, 4, receipts(&[4]))]);
    assert_eq!((cursor(&feed, user, "phone").await, cursor(&feed, user, "laptop").await), (4, 3));

    // More receipts than one event may hold.
    let patient = Uuid::now_v7();
    let count = limits::ACK_RECEIPTS_MAX as i64 + 10;
    let pushes: Vec<_> = (1..=count).map(|number| (100 + number, push(&[patient], &number.to_string()))).collect();
    feed.append("a", &pushes).await.expect("appends");
    feed.acknowledge(&[ack(patient, "phone", u64::MAX)]).await.expect("acknowledges");
    let events: Vec<_> = told(feed.as_ref()).await.into_iter().filter(|(user, ..)| *user == patient).collect();
    assert_eq!(events.len(), 2);
    let all: Vec<String> = events.into_iter().flat_map(|(_, _, receipts)| receipts).collect();
    assert_eq!(all, (1..=count).map(|number| number.to_string()).collect::<Vec<_>>(), "oldest first, each once");

    // Many devices at once: still once per user and receipt.
    let many: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
    let pushes: Vec<_> = (1..=30).map(|number| (10_000 + number, push(&many, &format!("many {number}")))).collect();
    feed.append("a", &pushes).await.expect("appends");
    join_all((1..=30u64).flat_map(|seq| many.iter().map(move |user| (seq, *user))).map(|(seq, user)| {
        let feed = feed.clone();
        async move { feed.acknowledge(&[ack(user, &format!("device {}", seq % 3), seq)]).await.expect("acknowledges") }
    }))
    .await;
    let events = told(feed.as_ref()).await;
    for user in many {
        let mut receipts: Vec<_> = events.iter().filter(|(told, ..)| *told == user).flat_map(|(_, _, receipts)| receipts.clone()).collect();
        receipts.sort();
        let mut expect: Vec<_> = (1..=30).map(|number| format!("many {number}")).collect();
        expect.sort();
        assert_eq!(receipts, expect);
    }
}

async fn who_has_not_acknowledged(feed: Arc<dyn Feed>) {
    let [reached, unreached, uninvited] = [(); 3].map(|()| Uuid::now_v7());
    let all = [reached, unreached, uninvited];
    let ask = |receipt: &'static str| async { feed.unacknowledged(receipt, &all).await.expect("answers") };
    assert_eq!(ask("m").await, all, "nothing was pushed yet");
    feed.append("a", &[(1, push(&[reached, unreached], "m")), (2, push(&all, "n"))]).await.expect("appends");
    assert_eq!(ask("m").await, all);
    feed.acknowledge(&[ack(reached, "phone", 1), ack(uninvited, "phone", 1)]).await.expect("acknowledges");
    assert_eq!(ask("m").await, [unreached, uninvited]);
    assert_eq!(ask("n").await, [reached, unreached]);
    assert!(feed.unacknowledged("m", &[]).await.expect("answers").is_empty());
}

async fn old_and_superfluous_entries_go(feed: Arc<dyn Feed>) {
    let (user, busy) = (Uuid::now_v7(), Uuid::now_v7());
    feed.append("a", &[(1, push(&[user], "1")), (2, push(&[user], "2"))]).await.expect("appends");
    let at_us = feed.read(user, 0, 10).await.expect("reads").entries[1].at_us;
    assert_eq!(feed.expire(at_us, CURSORS_KEPT).await.expect("expires"), 0, "all are young");
    let later = at_us + limits::FEED_TTL_S * 1_000_000 + 1;
    assert_eq!(feed.expire(later, CURSORS_KEPT).await.expect("expires"), 2);
    let page = feed.read(user, 0, 10).await.expect("reads");
    assert_eq!((page.entries.len(), page.head, page.oldest), (0, 2, 3));
    let entries = feed.append("a", &[(3, push(&[user], "3"))]).await.expect("appends");
    assert_eq!(entries[0].seq, 3, "numbers go on after an expiry");
    assert_eq!(feed.read(user, 0, 10).await.expect("reads").oldest, 3);

    feed.append("a", &[(4, push(&[busy, user], "shared"))]).await.expect("appends");
    feed.acknowledge(&[ack(busy, "phone", 1)]).await.expect("acknowledges");
    let over = 7;
    let count = limits::FEED_EVENTS_MAX as i64 + over;
    for chunk in (1..count).collect::<Vec<_>>().chunks(2_000) {
        let pushes: Vec<_> = chunk.iter().map(|number| (10 + number, push(&[busy], "x"))).collect();
        feed.append("a", &pushes).await.expect("appends");
    }
    assert_eq!(feed.expire(at_us, CURSORS_KEPT).await.expect("expires"), over as u64);
    let page = feed.read(busy, 0, 1).await.expect("reads");
    assert_eq!((page.oldest, page.head, page.entries[0].seq), (over as u64 + 1, count as u64, over as u64 + 1));
    assert_eq!(feed.read(user, 0, 10).await.expect("reads").entries.len(), 2, "another user's entry went too");
    assert_eq!(feed.unacknowledged("shared", &[busy, user]).await.expect("answers"), [user], "what went was acknowledged before");
}

/// Pushes of one state to these users, each at the position of its number and one.
fn states(users: &[Uuid], numbers: std::ops::Range<i64>) -> Vec<(i64, FeedChange)> {
    let state = |number: i64| Push { state: Some("k".to_owned()), receipt: None, ..push(users, &number.to_string()) };
    numbers.map(|number| (number + 1, FeedChange::Push(state(number)))).collect()
}

async fn a_burst_of_a_state_is_two_events(feed: Arc<dyn Feed>) {
    let [user, other] = [(); 2].map(|()| Uuid::now_v7());
    let count = limits::FEED_EVENTS_MAX as i64 + 100;
    let before = feed.apply("b:1", &[(1, FeedChange::Push(push(&[user], "kept")))]).await.expect("applies");
    assert_eq!(before.len(), 1);
    for from in (0..count).step_by(limits::RELAY_BATCH) {
        let to = count.min(from + limits::RELAY_BATCH as i64);
        let entries = feed.apply("a:1", &states(&[user, other], from..to)).await.expect("applies");
        assert_eq!(entries.len(), if from == 0 { 2 } else { 0 }, "the first goes at once");
    }
    feed.apply("b:1", &[(2, FeedChange::Push(push(&[user], "between")))]).await.expect("applies");
    assert_eq!(feed.release("b:1").await.expect("releases"), [], "another source's");
    let released = feed.release("a:1").await.expect("releases");
    assert_eq!(released.len(), 2);
    let texts: Vec<String> = feed.read(user, 0, 100).await.expect("reads").entries.iter().map(text).collect();
    assert_eq!(texts, ["kept", "0", "between", &(count - 1).to_string()]);
}

async fn what_is_replaced_is_said_no_more(feed: Arc<dyn Feed>) {
    let user = Uuid::now_v7();
    let about = |subject: &str, text: &str| FeedChange::Push(Push { subject: Some(subject.to_owned()), ..push(&[user], text) });
    let replace = |subject: &str, event: Option<&str>, text: &str| {
        let payload = json!({ "text": text }).to_string();
        FeedChange::Replace(Replacement { subject: subject.to_owned(), event: event.map(str::to_owned), payload })
    };
    let said = || async {
        let page = feed.read(user, 0, 100).await.expect("reads");
        assert!(page.entries.iter().zip(1..).all(|(entry, seq)| entry.seq == seq), "the numbers stay");
        page.entries.iter().map(|entry| format!("{} {}", entry.event, text(entry))).collect::<Vec<_>>()
    };
    feed.apply("a:1", &[(1, about("m", "one")), (2, about("n", "two"))]).await.expect("applies");
    feed.apply("b:1", &[(1, about("m", "another service's"))]).await.expect("applies");
    feed.apply("a:1", &[(3, replace("m", None, "edited"))]).await.expect("applies");
    assert_eq!(said().await, ["message edited", "message two", "message another service's"]);

    // Within one batch: what came before is replaced, also as it is delivered; what comes later is not.
    let batch = [(4, about("m", "three")), (5, replace("m", Some("message_deleted"), "gone")), (6, about("m", "four"))];
    let delivered = feed.apply("a:1", &batch).await.expect("applies");
    let delivered: Vec<_> = delivered.iter().map(|entry| format!("{} {}", entry.event, text(entry))).collect();
    assert_eq!(delivered, ["message_deleted gone", "message four"]);
    let expect = ["message_deleted gone", "message two", "message another service's", "message_deleted gone", "message four"];
    assert_eq!(said().await, expect);
    // Handed over again after a crash it is not made again.
    feed.apply("a:1", &[(5, replace("m", None, "once more"))]).await.expect("skips");
    // The same service's after its file was made anew.
    feed.apply("a:2", &[(1, replace("n", None, "restored"))]).await.expect("applies");
    assert_eq!(said().await[..2], ["message_deleted gone", "message restored"]);
    feed.acknowledge(&[ack(user, "phone", 1)]).await.expect("acknowledges");
    assert_eq!(told(feed.as_ref()).await, [(user, 1, vec!["one".to_owned()])], "it reached the device all the same");
}

async fn cursors_of_devices_that_are_away_for_long_go(feed: Arc<dyn Feed>) {
    let user = Uuid::now_v7();
    feed.append("a", &[(1, push(&[user], "one")), (2, push(&[user], "two"))]).await.expect("appends");
    feed.acknowledge(&[ack(user, "phone", 1)]).await.expect("acknowledges");
    let now_us = feed.read(user, 0, 1).await.expect("reads").entries[0].at_us;
    // Shorter than the entries are kept.
    let day = Duration::from_secs(24 * 60 * 60);
    let kept = day.as_micros() as u64;
    feed.expire(now_us + kept, day).await.expect("expires");
    assert_eq!(feed.device(user, "phone").await.expect("reads"), Some(DeviceCursor { above: 0, acknowledged: 1 }));
    // A minute and a bit later, so that the clock of the machine has no say.
    feed.expire(now_us + kept + 100_000_000, day).await.expect("expires");
    assert_eq!(feed.device(user, "phone").await.expect("reads"), None);
    // What was acknowledged stays so.
    feed.acknowledge(&[ack(user, "laptop", 2)]).await.expect("acknowledges");
    assert_eq!(told(feed.as_ref()).await.iter().map(|(_, seq, _)| *seq).collect::<Vec<_>>(), [1, 2]);
}

async fn large_batches_fit(feed: Arc<dyn Feed>) {
    let many: Vec<Uuid> = (0..limits::PUSH_USERS_MAX).map(|_| Uuid::now_v7()).collect();
    let mut large = push(&many, "to all");
    large.payload = json!({ "text": "\"".repeat(limits::PUSH_PAYLOAD_BYTES_MAX / 2 - 20) }).to_string();
    assert!(large.payload.len() <= limits::PUSH_PAYLOAD_BYTES_MAX);
    let pushes: Vec<_> = (1..=3).map(|position| (position, large.clone())).collect();
    let entries = feed.append("a", &pushes).await.expect("appends");
    assert_eq!(entries.len(), 3 * many.len());
    assert_eq!(feed.read(many[9_999], 2, 10).await.expect("reads").entries[0].payload.as_ref(), large.payload);
    assert_eq!(feed.unacknowledged("to all", &many).await.expect("answers").len(), many.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    let open: parking_lot::Mutex<Vec<Arc<EmbeddedFeed>>> = parking_lot::Mutex::default();
    suite(
        |name| {
            let (folder, open) = (folder.path().join(name), &open);
            async move {
                let feed = Arc::new(EmbeddedFeed::open(&folder, Durability::default()).await.expect("opens"));
                open.lock().push(feed.clone());
                feed as Arc<dyn Feed>
            }
        },
        || async {
            let feeds = std::mem::take(&mut *open.lock());
            for feed in feeds {
                feed.close().await;
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_passes() {
    let server = crate::sql::postgres::fixture::Server::start().await;
    let open: parking_lot::Mutex<Vec<crate::sql::postgres::PostgresBackend>> = parking_lot::Mutex::default();
    suite(
        |name| {
            let (server, open) = (&server, &open);
            async move {
                let backend = server.backend_with(name, crate::sql::postgres::fixture::settings(8)).await;
                let feed = super::postgres::PostgresFeed::open(&backend).await.expect("opens");
                open.lock().push(backend);
                Arc::new(feed) as Arc<dyn Feed>
            }
        },
        || async {
            let backends = std::mem::take(&mut *open.lock());
            for backend in backends {
                crate::sql::SqlBackend::close(&backend).await;
            }
        },
    )
    .await;
}
