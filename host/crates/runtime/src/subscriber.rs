//! Events that reach a service, and functions that the host calls on a schedule.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use wasmtime::component::Val;

use super::call::{self, CallFrame};
use super::catalogue::Generation;
use super::long_calls::Origin;
use super::schedules::Turn;
use super::{CallError, ErrorKind, Runtime, internal_context};
use echo_base::backoff::Backoff;
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::events::{Event, Handler, Outcome};
use echo_capabilities::leases::Leases;
use echo_contract::codec::{EncodeError, Encoded};

impl Runtime {
    /// Subscribes to the topics of the live generation. The handler looks up the live generation for each event. A failed subscription is
    /// tried again until it succeeds; the events wait in the queue meanwhile.
    pub(super) async fn follow_topics(&self, service: &ServiceName) {
        // The first try is awaited by the deployment.
        if self.try_to_follow(service).await {
            return;
        }
        let (runtime, service) = (self.myself.clone(), service.clone());
        tokio::spawn(with_growing_pauses(move || {
            let (runtime, service) = (runtime.clone(), service.clone());
            async move {
                match runtime.upgrade() {
                    Some(runtime) => runtime.try_to_follow(&service).await,
                    // Ends with the host.
                    None => true,
                }
            }
        }));
    }

    async fn try_to_follow(&self, service: &ServiceName) -> bool {
        let Ok(_turn) = self.subscribing.enter(service).await else { return false };
        let catalogue = self.pin();
        let Some(generation) = catalogue.generation(service.as_str()) else { return true };
        let topics: Vec<String> = generation.topics.keys().cloned().collect();
        let handler = Arc::new(Subscriber { runtime: self.myself.clone(), service: service.clone() });
        let subscribed = self.queue.subscribe(service, topics, handler).await;
        subscribed.inspect_err(|error| tracing::error!(%service, %error, "cannot subscribe yet; its events wait in the queue")).is_ok()
    }

    /// Calls scheduled functions when they are due, each never twice at a time and by one host alone (see `schedules`), until `shutdown`.
    pub async fn run_schedules(self: Arc<Self>, leases: Arc<dyn Leases>, shutdown: CancellationToken) {
        let mut turns: HashMap<(ServiceName, String), Arc<Turn>> = HashMap::new();
        let mut running: HashMap<(ServiceName, String), tokio::task::JoinHandle<()>> = HashMap::new();
        let mut sweep_at = Instant::now() + Duration::from_millis(limits::INSTANCE_IDLE_MS);
        while tokio::time::timeout(Duration::from_millis(limits::SCHEDULE_TICK_MS), shutdown.cancelled()).await.is_err() {
            let now = Instant::now();
            let catalogue = self.pin();
            for generation in catalogue.generations().filter(|generation| !catalogue.is_off(generation.service.as_str())) {
                for (schedule, export) in &generation.schedules {
                    let key = (generation.service.clone(), schedule.call.clone());
                    let turn = turns.entry(key.clone()).or_insert_with(|| Arc::new(Turn::new(&key, schedule.every, now)));
                    if turn.every != schedule.every {
                        // Another version is live.
                        *turn = Arc::new(Turn::new(&key, schedule.every, now));
                    }
                    if now < turn.next_at() || running.get(&key).is_some_and(|task| !task.is_finished()) {
                        continue;
                    }
                    let frame = CallFrame::root(catalogue.clone(), generation.service.clone());
                    let call = self.clone().call_on_schedule(generation.clone(), *export, frame);
                    let (turn, leases) = (turn.clone(), leases.clone());
                    running.insert(key, tokio::spawn(async move { turn.call(&*leases, call).await }));
                }
            }
            if now >= sweep_at {
                catalogue.generations().for_each(|generation| generation.pool.sweep());
                sweep_at = now + Duration::from_millis(limits::INSTANCE_IDLE_MS);
            }
        }
        for task in running.into_values() {
            // A scheduled call ends by its own deadline; a panic in it was logged where it happened.
            let _ = task.await;
        }
        for turn in turns.values() {
            turn.end(&*leases).await;
        }
    }

    async fn call_on_schedule(self: Arc<Self>, generation: Arc<Generation>, export: usize, frame: CallFrame) {
        let context = internal_context("schedule", generation.pool.limits().wall);
        let reply = call::run_root(&self.long_calls, Origin::Host, generation.clone(), export, Vec::new(), frame, context.into()).await;
        if let Ok(Val::Result(Err(error))) = reply {
            tracing::warn!(service = %generation.service, function = generation.exports[export].name, ?error, "a scheduled call answers an error");
        }
    }
}

/// Tries until it succeeds, beginning with a pause.
async fn with_growing_pauses<F: Future<Output = bool>>(mut attempt: impl FnMut() -> F) {
    let mut backoff = Backoff::from_ms(limits::SUBSCRIBE_RETRY_FIRST_MS, limits::SUBSCRIBE_RETRY_LAST_MS);
    loop {
        tokio::time::sleep(backoff.pause()).await;
        if attempt().await {
            return;
        }
    }
}

struct Subscriber {
    runtime: Weak<Runtime>,
    service: ServiceName,
}

impl Subscriber {
    async fn call(&self, events: &[&Event]) -> Outcome {
        let later = |reason: String| Outcome::Retry { after: None, reason };
        let Some(runtime) = self.runtime.upgrade() else { return later("the host is stopping".to_owned()) };
        let [first, others @ ..] = events else { return Outcome::Done };
        let catalogue = runtime.pin();
        let Some(generation) = catalogue.generation(self.service.as_str()) else {
            return later(format!("{} is not live", self.service));
        };
        if catalogue.is_off(self.service.as_str()) {
            return later(call::switched_off(&self.service));
        }
        let Some(subscription) = generation.topics.get(&first.topic) else {
            return later(format!("{} {} does not subscribe to {}", self.service, generation.version, first.topic));
        };
        let decoded: Result<Vec<_>, _> = events.iter().map(|event| subscription.codec.decode(&event.key, &event.payload)).collect();
        let params = match decoded {
            Ok(mut params) if others.is_empty() => params.remove(0),
            Ok(params) => match subscription.codec.gather(params) {
                Some(params) if subscription.gathers => params,
                // Another version is live than the one that the queue asked.
                _ => return later(format!("{} {} takes one {} at a time", self.service, generation.version, first.topic)),
            },
            Err(error) => return Outcome::Reject { reason: format!("the event does not fit: {error}") },
        };
        let mut context = internal_context("event", generation.pool.limits().wall);
        context.correlation_id = first.correlation_id.as_str().into();
        context.event_id = others.is_empty().then(|| first.id.to_string().into());
        let frame = CallFrame::root(catalogue.clone(), self.service.clone());
        match call::run_root(&runtime.long_calls, Origin::Host, generation.clone(), subscription.export, params, frame, context.into())
            .await
        {
            Ok(reply) => outcome_of(subscription.reply.encode(&reply)),
            Err(CallError::Invalid(_) | CallError::Unreadable(_)) => Outcome::Reject { reason: "the event does not fit".to_owned() },
            Err(error) => later(error.to_string()),
        }
    }
}

#[async_trait]
impl Handler for Subscriber {
    async fn handle(&self, event: &Event) -> Outcome {
        self.call(&[event]).await
    }

    fn gathers(&self, topic: &str) -> bool {
        let catalogue = self.runtime.upgrade().map(|runtime| runtime.pin());
        let generation = catalogue.as_ref().and_then(|catalogue| catalogue.generation(self.service.as_str()));
        generation.and_then(|generation| generation.topics.get(topic)).is_some_and(|subscription| subscription.gathers)
    }

    async fn handle_together(&self, events: &[Arc<Event>]) -> Outcome {
        self.call(&events.iter().map(Arc::as_ref).collect::<Vec<_>>()).await
    }
}

/// A failure that may pass is tried again; a fault of the event itself makes a dead letter.
fn outcome_of(reply: Result<Encoded, EncodeError>) -> Outcome {
    match reply {
        Ok(Encoded::Ok { .. }) => Outcome::Done,
        Ok(Encoded::Declined(error)) => {
            let reason = format!("{}: {}", error.code, error.message);
            match error.kind {
                ErrorKind::Unavailable | ErrorKind::RateLimited | ErrorKind::Locked | ErrorKind::Internal => {
                    Outcome::Retry { after: error.retry_after, reason }
                }
                _ => Outcome::Reject { reason },
            }
        }
        Err(error) => Outcome::Retry { after: None, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::artifact::pack;
    use crate::engine::Engine;
    use crate::permissions::Permissions;
    use crate::swap::Decisions;
    use crate::{CapabilitySource, RuntimeSettings};
    use echo_capabilities::blob::ObjectStoreBlobs;
    use echo_capabilities::cache::memory::MemoryCache;
    use echo_capabilities::config::ServiceSettings;
    use echo_capabilities::events::embedded::EmbeddedQueue;
    use echo_capabilities::events::{ConsumerState, DeadLetter, Queue, QueueError};
    use echo_capabilities::guest::Capabilities;
    use echo_capabilities::http::HttpSettings;
    use echo_capabilities::http::client::HttpClient;
    use echo_capabilities::hub::embedded::EmbeddedFeed;
    use echo_capabilities::hub::{FeedEntry, FeedError, Push, Sockets};
    use echo_capabilities::leases::{HeldLease, Lease, LeaseError};
    use echo_capabilities::pace::Pace;
    use echo_capabilities::passwords::native::{Cost, NativePasswords};
    use echo_capabilities::senders::Senders;
    use echo_capabilities::sql::sqlite::{Durability, SqliteBackend};
    use echo_capabilities::sql::{Migration, SqlBackend};
    use echo_capabilities::tokens::TokenSettings;
    use echo_capabilities::tokens::embedded::EmbeddedTokens;
    use echo_capabilities::versions::files::FileVersions;

    struct NoSockets;

    #[async_trait]
    impl Sockets for NoSockets {
        fn deliver(&self, _: &[FeedEntry]) {}
        fn deliver_ephemeral(&self, _: &Push) {}
        async fn online(&self, _: &[uuid::Uuid]) -> Result<Vec<uuid::Uuid>, FeedError> {
            Ok(Vec::new())
        }
        fn disconnect_session(&self, _: uuid::Uuid) {}
        fn disconnect_user(&self, _: uuid::Uuid) {}
    }

    /// Refuses so many subscriptions before it takes one.
    struct FlakyQueue {
        queue: EmbeddedQueue,
        refusals: AtomicUsize,
    }

    #[async_trait]
    impl Queue for FlakyQueue {
        async fn publish_since(&self, losses: u64, source: &str, events: &[(i64, Event)]) -> Result<(), QueueError> {
            self.queue.publish_since(losses, source, events).await
        }
        async fn position(&self, source: &str) -> Result<Option<i64>, QueueError> {
            self.queue.position(source).await
        }
        async fn declare(&self, consumer: &ServiceName, topics: Vec<String>) -> Result<(), QueueError> {
            if self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return Err(QueueError::Unavailable("not now".to_owned()));
            }
            self.queue.declare(consumer, topics).await
        }
        async fn consume(&self, consumer: &ServiceName, handler: Arc<dyn Handler>) -> Result<(), QueueError> {
            self.queue.consume(consumer, handler).await
        }
        async fn has_subscribers(&self, topic: &str) -> Result<bool, QueueError> {
            self.queue.has_subscribers(topic).await
        }
        async fn stop(&self) {
            self.queue.stop().await;
        }
        async fn state(&self) -> Result<Vec<ConsumerState>, QueueError> {
            self.queue.state().await
        }
        async fn dead_letters(&self, consumer: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
            self.queue.dead_letters(consumer, limit).await
        }
        async fn replay(&self, id: &str) -> Result<(), QueueError> {
            self.queue.replay(id).await
        }
        async fn drop_dead_letter(&self, id: &str) -> Result<(), QueueError> {
            self.queue.drop_dead_letter(id).await
        }
        async fn expire_dead_letters(&self, before_us: u64) -> Result<u64, QueueError> {
            self.queue.expire_dead_letters(before_us).await
        }
        async fn ping(&self) -> Result<(), QueueError> {
            self.queue.ping().await
        }
        async fn close(&self) {
            self.queue.close().await;
        }
    }

    struct Backends(Arc<Capabilities>);

    #[async_trait]
    impl CapabilitySource for Backends {
        async fn capabilities_of(&self, _: &ServiceName, _: &BTreeMap<String, toml::Value>) -> Result<Arc<Capabilities>, String> {
            Ok(self.0.clone())
        }
        fn dialect(&self) -> &'static str {
            "sqlite"
        }
    }

    async fn runtime(folder: &Path, queue: Arc<FlakyQueue>) -> Arc<Runtime> {
        let service = ServiceName::parse("listener").expect("a good name");
        let capabilities = Capabilities {
            database: SqliteBackend::new(folder).open(&service).await.expect("opens"),
            cache: Arc::new(MemoryCache::new(limits::MIB_BYTES)),
            blobs: Arc::new(ObjectStoreBlobs::in_folder(&folder.join("blobs")).expect("opens")),
            feed: Arc::new(EmbeddedFeed::open(folder, Durability::default()).await.expect("opens")),
            sockets: Arc::new(NoSockets),
            passwords: Arc::new(NativePasswords::new([0; 32], Cost::light())),
            tokens: EmbeddedTokens::open(folder, TokenSettings::default()).await.expect("opens"),
            http: Arc::new(HttpClient::new(HttpSettings::default()).expect("opens")),
            settings: ServiceSettings::default(),
            pace: Pace::default(),
            senders: Arc::new(Senders::new(1)),
        };
        let settings = RuntimeSettings {
            node: "this".to_owned(),
            versions: Arc::new(FileVersions::open(&folder.join("plugins")).expect("opens")),
            versions_kept: limits::VERSIONS_KEPT,
            permissions: Permissions::new(None),
            cursor_key: [0; 32],
            migration_timeout: Duration::from_secs(1),
            dev_mode: false,
            routes: Default::default(),
        };
        let engine = Engine::start(&folder.join("code")).expect("starts");
        Runtime::new(engine, Arc::new(Backends(Arc::new(capabilities))), queue, settings).await.expect("opens")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_service_whose_subscription_failed_at_its_deployment_gets_its_events_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let queue = EmbeddedQueue::open(folder.path(), Durability::default()).await.expect("opens");
        let queue = Arc::new(FlakyQueue { queue, refusals: AtomicUsize::new(2) });
        let runtime = runtime(folder.path(), queue.clone()).await;
        let wit = "world listener { export echo:listener/api@0.1.0; export echo:user/events@0.1.0; }
            package echo:listener@0.1.0 { interface api { use echo:types/types@0.1.0.{error}; go: func() -> result<_, error>; } }";
        let component = echo_fixture::component_of(wit, "listener");
        let manifest = "name = \"listener\"\nversion = \"0.1.0\"\n[events]\nsubscribe = [\"user.registered\"]\n";
        let packed = pack(&component, manifest, "", &[]).expect("packs");
        runtime.deploy(packed, &Decisions::default()).await.expect("it is live though the queue refused");
        assert!(!queue.has_subscribers("user.registered").await.expect("answers"), "refused");
        let until = Instant::now() + Duration::from_secs(20);
        while !queue.has_subscribers("user.registered").await.expect("answers") {
            assert!(Instant::now() < until, "it never subscribed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let event = Event {
            id: uuid::Uuid::now_v7(),
            topic: "user.registered".to_owned(),
            key: "k".to_owned(),
            payload: "no such event".to_owned(),
            at_us: 1,
            correlation_id: String::new(),
        };
        queue.publish("test", &[(1, event)]).await.expect("publishes");
        // It reaches the service's codec, which does not take it.
        while queue.dead_letters(Some("listener"), 1).await.expect("answers").is_empty() {
            assert!(Instant::now() < until, "the event reached nobody");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        queue.stop().await;
    }

    /// What two hosts share: who has each lease, for as long as the test says.
    #[derive(Default)]
    struct Store(parking_lot::Mutex<HashMap<String, &'static str>>);

    struct LeasesOf(&'static str, Arc<Store>);

    #[async_trait]
    impl Leases for LeasesOf {
        async fn take(&self, name: &str, _: Duration) -> Result<Option<Lease>, LeaseError> {
            let node = *self.1.0.lock().entry(name.to_owned()).or_insert(self.0);
            Ok((node == self.0).then_some(Lease { epoch: 1 }))
        }
        async fn give_back(&self, name: &str) -> Result<(), LeaseError> {
            self.1.0.lock().retain(|held, node| held != name || *node != self.0);
            Ok(())
        }
        async fn held(&self) -> Result<Vec<HeldLease>, LeaseError> {
            Ok(Vec::new())
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_two_hosts_one_calls_a_scheduled_function_and_the_other_when_the_first_is_gone() {
        let store = Arc::new(Store::default());
        let wit = "world listener { export echo:listener/api@0.1.0; }
            package echo:listener@0.1.0 { interface api { use echo:types/types@0.1.0.{error}; go: func() -> result<_, error>; } }";
        let manifest = "name = \"listener\"\nversion = \"0.1.0\"\n[[schedule]]\ncall = \"go\"\nevery = \"100ms\"\n";
        let mut hosts = Vec::new();
        for node in ["a", "b"] {
            let folder = tempfile::tempdir().expect("a folder");
            let queue = EmbeddedQueue::open(folder.path(), Durability::default()).await.expect("opens");
            let runtime = runtime(folder.path(), Arc::new(FlakyQueue { queue, refusals: AtomicUsize::new(0) })).await;
            let packed = pack(&echo_fixture::component_of(wit, "listener"), manifest, "", &[]).expect("packs");
            runtime.deploy(packed, &Decisions::default()).await.expect("is live");
            let leases = Arc::new(LeasesOf(node, store.clone()));
            let task = tokio::spawn(runtime.clone().run_schedules(leases, CancellationToken::new()));
            hosts.push((folder, runtime, task));
        }
        let calls = |host: usize| hosts[host].1.pin().generation("listener").expect("is live").stats.view().calls;
        let until = Instant::now() + Duration::from_secs(30);
        let called = async |least: u64, host: usize| {
            while calls(host) < least {
                assert!(Instant::now() < until, "it was not called");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        while calls(0) + calls(1) < 10 {
            assert!(Instant::now() < until, "it was not called");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (first, other) = if calls(0) > 0 { (0, 1) } else { (1, 0) };
        assert_eq!(calls(other), 0, "one host alone");
        // It dies, with its lease in its hand; and the lease ends.
        hosts[first].2.abort();
        called(calls(first), first).await;
        assert_eq!(calls(other), 0, "the lease lasts");
        store.0.lock().clear();
        called(5, other).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn while_another_host_fills_in_this_one_waits_and_it_goes_on_when_that_one_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let queue = EmbeddedQueue::open(folder.path(), Durability::default()).await.expect("opens");
        let runtime = runtime(folder.path(), Arc::new(FlakyQueue { queue, refusals: AtomicUsize::new(0) })).await;
        let wit = "world listener { export echo:listener/api@0.1.0; }
            package echo:listener@0.1.0 { interface api { use echo:types/types@0.1.0.{error}; go: func() -> result<_, error>; } }";
        let migration = |name: &str, sql: &str| Migration { name: name.to_owned(), dialect: "sqlite".to_owned(), sql: sql.to_owned() };
        let migrations = [
            migration("0001_marks", "CREATE TABLE marks (id INTEGER PRIMARY KEY)"),
            migration("0002_colour", "ALTER TABLE marks ADD COLUMN colour TEXT"),
            migration("0002_colour.backfill", "UPDATE marks SET colour = 'red' WHERE id > 0"),
        ];
        let manifest = "name = \"listener\"\nversion = \"0.1.0\"\n";
        let packed = pack(&echo_fixture::component_of(wit, "listener"), manifest, "", &migrations).expect("packs");
        runtime.deploy(packed, &Decisions::default()).await.expect("is live");
        let generation = runtime.pin().generation("listener").expect("is live").clone();
        let database = &generation.pool.capabilities().database;
        database.execute("INSERT INTO marks (id) VALUES (1), (2), (3)", Vec::new()).await.expect("rows");

        let store = Arc::new(Store::default());
        store.0.lock().insert("backfills".to_owned(), "another");
        let task = tokio::spawn(runtime.clone().run_backfills(Arc::new(LeasesOf("this", store.clone())), CancellationToken::new()));
        let until = Instant::now() + Duration::from_secs(30);
        let view = || runtime.backfills.views(&generation).first().cloned().unwrap_or_default();
        while view().state.is_empty() {
            assert!(Instant::now() < until, "it was not looked up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Longer than it would take.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!((view().state, view().rows), ("waiting", 0), "another host fills in");
        store.0.lock().clear();
        while view().state != "done" {
            assert!(Instant::now() < until, "it never went on: {:?}", view());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(view().rows, 3);
        task.abort();
    }

    #[tokio::test]
    async fn a_subscription_that_fails_is_tried_again_until_it_succeeds() {
        let mut tries_at = Vec::new();
        let begin = Instant::now();
        with_growing_pauses(|| {
            tries_at.push(begin.elapsed());
            std::future::ready(tries_at.len() == 3)
        })
        .await;
        let first = Duration::from_millis(limits::SUBSCRIBE_RETRY_FIRST_MS);
        assert_eq!(tries_at.len(), 3);
        assert!(tries_at[0] >= first && tries_at[1] >= 3 * first && tries_at[2] >= 7 * first, "{tries_at:?}");
    }
}
