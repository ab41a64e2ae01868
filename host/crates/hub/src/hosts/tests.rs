//! Two hosts in one process, over a bus that loses what the test wants lost.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::stream::{StreamExt, unfold};
use tokio::sync::broadcast;

use super::*;
use crate::registry::Registration;
use echo_capabilities::bus::{BusError, Subscription};
use echo_capabilities::events::embedded::EmbeddedQueue;
use echo_capabilities::hub::{Claimed, ClaimedPage, Class};
use echo_capabilities::sql::sqlite::Durability;

/// What the hosts share.
#[derive(Default)]
struct Shared {
    devices: Mutex<BTreeMap<(Uuid, String), (String, u64)>>,
    heads: Mutex<HashMap<Uuid, u64>>,
    epoch: Mutex<u64>,
}

struct Store {
    node: &'static str,
    shared: Arc<Shared>,
}

impl Store {
    fn key(socket: &DeviceSocket) -> (Uuid, String) {
        (socket.user_id, socket.device_id.clone())
    }

    fn put(&self, socket: &DeviceSocket) -> (u64, Option<String>) {
        let mut epoch = self.shared.epoch.lock();
        *epoch += 1;
        let before = self.shared.devices.lock().insert(Self::key(socket), (self.node.to_owned(), *epoch));
        (*epoch, before.map(|(node, _)| node))
    }
}

#[async_trait]
impl DeviceHosts for Store {
    async fn claim(&self, socket: &DeviceSocket, _: usize, _: Announced) -> Result<Claimed, ClaimError> {
        let (epoch, before) = self.put(socket);
        Ok(Claimed { epoch, replaced: before.filter(|node| node != self.node) })
    }
    async fn claim_again(&self, socket: &DeviceSocket, _: Announced) -> Result<Option<u64>, FeedError> {
        let is_free = !self.shared.devices.lock().contains_key(&Self::key(socket));
        Ok(is_free.then(|| self.put(socket).0))
    }
    async fn release_devices(&self, sockets: &[(DeviceSocket, u64)], _: Announced) -> Result<(), FeedError> {
        let mut devices = self.shared.devices.lock();
        for (socket, epoch) in sockets {
            if devices.get(&Self::key(socket)) == Some(&(self.node.to_owned(), *epoch)) {
                devices.remove(&Self::key(socket));
            }
        }
        Ok(())
    }
    async fn release_own(&self, _: Announced) -> Result<u64, FeedError> {
        self.shared.devices.lock().retain(|_, (node, _)| node != self.node);
        Ok(0)
    }
    async fn release_of_lost_hosts(&self, _: Announced) -> Result<u64, FeedError> {
        Ok(0)
    }
    async fn locate(&self, users: &[Uuid]) -> Result<Vec<(Uuid, String)>, FeedError> {
        let devices = self.shared.devices.lock();
        let found = devices.iter().filter(|((user, _), (node, _))| users.contains(user) && node != self.node);
        Ok(found.map(|((user, _), (node, _))| (*user, node.clone())).collect())
    }
    async fn online(&self, users: &[Uuid]) -> Result<Vec<Uuid>, FeedError> {
        let devices = self.shared.devices.lock();
        Ok(users.iter().copied().filter(|user| devices.keys().any(|(other, _)| other == user)).collect())
    }
    async fn claimed(&self, after: Uuid, _: usize) -> Result<ClaimedPage, FeedError> {
        let devices = self.shared.devices.lock();
        let own = devices.iter().filter(|((user, _), (node, _))| node == self.node && *user > after);
        // As small as pages can be.
        Ok(ClaimedPage::of(own.map(|((user, device), (_, epoch))| (*user, device.clone(), *epoch)).take(2).collect(), 2))
    }
    async fn heads(&self, users: &[Uuid]) -> Result<Vec<(Uuid, u64)>, FeedError> {
        let heads = self.shared.heads.lock();
        Ok(users.iter().filter_map(|user| heads.get(user).map(|head| (*user, *head))).collect())
    }
}

/// A bus that loses so many of the next messages, and is away when told to be.
struct LossyBus {
    sent: broadcast::Sender<(String, Bytes)>,
    to_lose: Mutex<usize>,
    is_away: AtomicBool,
}

#[async_trait]
impl HubBus for LossyBus {
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(BusError("away".to_owned()));
        }
        let mut to_lose = self.to_lose.lock();
        match to_lose.checked_sub(1) {
            Some(left) => *to_lose = left,
            None => drop(self.sent.send((subject.to_owned(), payload))),
        }
        Ok(())
    }
    async fn subscribe(&self, subjects: &[&str]) -> Subscription {
        let subjects: Vec<String> = subjects.iter().map(|&subject| subject.to_owned()).collect();
        unfold((self.sent.subscribe(), subjects), |(mut sent, subjects)| async move {
            loop {
                let (subject, payload) = sent.recv().await.ok()?;
                if subjects.contains(&subject) {
                    return Some((Delivery::Message(payload), (sent, subjects)));
                }
            }
        })
        .boxed()
    }
    async fn ping(&self) -> Result<(), BusError> {
        if self.is_away.load(Ordering::SeqCst) { Err(BusError("away".to_owned())) } else { Ok(()) }
    }
}

struct Pair {
    shared: Arc<Shared>,
    bus: Arc<LossyBus>,
    one: Arc<Hosts>,
    other: Arc<Hosts>,
    _folder: tempfile::TempDir,
}

impl Pair {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let queue = Arc::new(EmbeddedQueue::open(folder.path(), Durability::default()).await.expect("opens"));
        let shared = Arc::new(Shared::default());
        let bus = Arc::new(LossyBus { sent: broadcast::channel(64).0, to_lose: Mutex::new(0), is_away: AtomicBool::new(false) });
        let start = |node: &'static str| {
            let hosts = Hosts::new(node, Arc::new(Store { node, shared: shared.clone() }), bus.clone(), queue.clone());
            tokio::spawn(hosts.clone().run());
            hosts
        };
        let (one, other) = (start("one"), start("other.example"));
        // Both listen.
        while bus.sent.receiver_count() < 2 {
            tokio::task::yield_now().await;
        }
        Self { shared, bus, one, other, _folder: folder }
    }

    /// The next event of the user, as the relay hands it over at one host.
    fn deliver(&self, hosts: &Hosts, user: Uuid) -> u64 {
        let seq = {
            let mut heads = self.shared.heads.lock();
            let head = heads.entry(user).or_default();
            *head += 1;
            *head
        };
        hosts.deliver(&[FeedEntry { user, seq, event: "message".to_owned(), payload: r#"{"text":"hello"}"#.into(), at_us: 1 }]);
        seq
    }
}

async fn connect(hosts: &Arc<Hosts>, user: Uuid, device: &str) -> Registration {
    let registration = hosts.registry().register(Connection::new(user, device, Uuid::now_v7(), 100, 100_000), 10).expect("is taken");
    hosts.claim(registration.connection(), 10).await.expect("is claimed");
    registration
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let reached = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn frames(registration: &Registration) -> usize {
    registration.connection().inbox().frames.len()
}

fn head(registration: &Registration) -> u64 {
    registration.connection().inbox().head
}

#[tokio::test(start_paused = true)]
async fn what_one_host_delivers_reaches_the_sockets_of_the_other() {
    let pair = Pair::new().await;
    let (user, stranger) = (Uuid::now_v7(), Uuid::now_v7());
    let there = connect(&pair.other, user, "phone").await;
    let here = connect(&pair.one, user, "laptop").await;
    let untouched = connect(&pair.other, stranger, "phone").await;
    pair.deliver(&pair.one, user);
    assert_eq!(frames(&here), 1, "at once where it is delivered");
    until("it is there too", || frames(&there) == 1).await;
    let push = Push {
        users: vec![user],
        event: "typing".to_owned(),
        payload: "{}".to_owned(),
        class: Class::Ephemeral,
        receipt: None,
        subject: None,
        state: None,
    };
    pair.other.deliver_ephemeral(&push);
    until("an ephemeral one goes the other way", || frames(&here) == 2 && frames(&there) == 2).await;
    assert_eq!(frames(&untouched), 0);
    assert_eq!(pair.one.online(&[user, stranger, Uuid::nil()]).await.expect("answers"), [user, stranger]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_message_is_noticed_by_the_next_one() {
    let pair = Pair::new().await;
    let user = Uuid::now_v7();
    let there = connect(&pair.other, user, "phone").await;
    pair.deliver(&pair.one, user);
    until("the first arrives", || frames(&there) == 1).await;
    *pair.bus.to_lose.lock() = 1;
    pair.deliver(&pair.one, user);
    until("it is lost", || *pair.bus.to_lose.lock() == 0).await;
    // For somebody else: what is missing is missing for whoever it was for.
    let neighbour = Uuid::now_v7();
    let beside = connect(&pair.other, neighbour, "phone").await;
    let begin = Instant::now();
    pair.deliver(&pair.one, neighbour);
    until("the head is noted", || head(&there) == 2).await;
    assert!(begin.elapsed() < Duration::from_millis(limits::HEADS_COMPARED_MS), "not by the sweep: {:?}", begin.elapsed());
    assert_eq!((frames(&there), frames(&beside)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_push_to_very_many_users_reaches_all_of_them_at_once() {
    let pair = Pair::new().await;
    let users: Vec<Uuid> = (0..limits::PUSH_USERS_MAX).map(|_| Uuid::now_v7()).collect();
    let (first, last) = (connect(&pair.other, users[0], "phone").await, connect(&pair.other, users[users.len() - 1], "phone").await);
    let devices = users.iter().map(|user| ((*user, "tablet".to_owned()), ("other.example".to_owned(), 1)));
    pair.shared.devices.lock().extend(devices);
    let payload: Arc<str> = format!(r#"{{"text":"{}"}}"#, "x".repeat(64 * 1024)).into();
    let entry = |user: &Uuid| FeedEntry { user: *user, seq: 1, event: "message".to_owned(), payload: payload.clone(), at_us: 1 };
    let begin = Instant::now();
    pair.one.deliver(&users.iter().map(entry).collect::<Vec<_>>());
    until("it is there", || frames(&first) == 1 && frames(&last) == 1).await;
    assert!(begin.elapsed() < Duration::from_millis(limits::HEADS_COMPARED_MS), "not by the sweep");
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_for_the_bus_is_left_to_the_feed_and_said() {
    let pair = Pair::new().await;
    let user = Uuid::now_v7();
    let there = connect(&pair.other, user, "phone").await;
    pair.shared.heads.lock().insert(user, 1);
    let payload: Arc<str> = "x".repeat(limits::BUS_MESSAGE_BYTES_MAX).into();
    let begin = Instant::now();
    pair.one.deliver(&[FeedEntry { user, seq: 1, event: "message".to_owned(), payload, at_us: 1 }]);
    pair.deliver(&pair.one, user);
    until("the head is noted", || head(&there) == 2).await;
    assert!(begin.elapsed() < Duration::from_millis(limits::HEADS_COMPARED_MS), "not by the sweep");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_notices_is_found_by_the_sweep() {
    let pair = Pair::new().await;
    let user = Uuid::now_v7();
    let there = connect(&pair.other, user, "phone").await;
    *pair.bus.to_lose.lock() = usize::MAX;
    pair.deliver(&pair.one, user);
    let begin = Instant::now();
    until("the head is noted", || head(&there) == 1).await;
    assert!(begin.elapsed() <= 3 * Duration::from_millis(limits::HEADS_COMPARED_MS), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn while_the_bus_is_away_heads_are_compared_within_a_second() {
    let pair = Pair::new().await;
    let user = Uuid::now_v7();
    let there = connect(&pair.other, user, "phone").await;
    pair.bus.is_away.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let seq = pair.deliver(&pair.one, user);
        let begin = Instant::now();
        until("the head is noted", || head(&there) == seq).await;
        assert!(begin.elapsed() <= Duration::from_secs(1), "{:?}", begin.elapsed());
    }
    pair.bus.is_away.store(false, Ordering::SeqCst);
    pair.deliver(&pair.one, user);
    until("the bus brings it again", || frames(&there) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_moves_to_another_host_closes_its_socket_here() {
    let pair = Pair::new().await;
    let user = Uuid::now_v7();
    let old = connect(&pair.one, user, "phone").await;
    let new = connect(&pair.other, user, "phone").await;
    until("the old one is asked to close", || old.connection().close_asked() == Some(Close::Replaced)).await;
    drop(old);
    pair.one.flush().await.expect("releases");
    assert_eq!(pair.shared.devices.lock().len(), 1, "what the other host has is not released by the old one's end");
    assert_eq!(new.connection().close_asked(), None);

    // The message is lost: the sweep finds it.
    *pair.bus.to_lose.lock() = 1;
    let back = connect(&pair.one, user, "phone").await;
    until("the sweep closes it", || new.connection().close_asked() == Some(Close::Replaced)).await;
    drop((back, new));
    until("nobody is left", || pair.shared.devices.lock().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_was_taken_for_lost_claims_its_devices_again() {
    let pair = Pair::new().await;
    let (user, moved) = (Uuid::now_v7(), Uuid::now_v7());
    let stays = connect(&pair.one, user, "phone").await;
    let goes = connect(&pair.one, moved, "phone").await;
    // Others have released them, and one has come back elsewhere meanwhile.
    pair.shared.devices.lock().clear();
    *pair.bus.to_lose.lock() = usize::MAX;
    let elsewhere = connect(&pair.other, moved, "phone").await;
    until("it is claimed again", || pair.shared.devices.lock().contains_key(&(user, "phone".to_owned()))).await;
    until("the other is closed", || goes.connection().close_asked() == Some(Close::Replaced)).await;
    assert_eq!((stays.connection().close_asked(), elsewhere.connection().close_asked()), (None, None));
    drop(stays);
    until("it goes under its new epoch", || pair.shared.devices.lock().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_socket_never_opened_is_released() {
    let pair = Pair::new().await;
    let socket =
        DeviceSocket { connection_id: Uuid::now_v7(), user_id: Uuid::now_v7(), device_id: "phone".to_owned(), session_id: Uuid::now_v7() };
    pair.one.store.claim(&socket, 10, pair.one.announced().await).await.expect("is claimed");
    until("the sweep releases it", || pair.shared.devices.lock().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn many_devices_are_compared_page_by_page() {
    let pair = Pair::new().await;
    let users: Vec<Uuid> = (0..7).map(|_| Uuid::now_v7()).collect();
    let mut here = Vec::new();
    for user in &users {
        here.push(connect(&pair.one, *user, "phone").await);
    }
    // Others have released every second one.
    for user in users.iter().step_by(2) {
        pair.shared.devices.lock().remove(&(*user, "phone".to_owned()));
    }
    until("all are claimed again", || pair.shared.devices.lock().len() == users.len()).await;
    assert!(here.iter().all(|socket| socket.connection().close_asked().is_none()));
}
