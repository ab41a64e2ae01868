//! The guest's side of transactions, and a guest for tests that need no more than its database, feed and sockets.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wasmtime::component::Resource;

use super::wit::{Host, HostTransaction};
use super::*;
use crate::blob::ObjectStoreBlobs;
use crate::cache::{Cache, CacheError};
use crate::config::ServiceSettings;
use crate::context::{CallContext, Caller};
use crate::guest::Capabilities;
use crate::http::{Http, HttpError, HttpGrants, OutgoingRequest, OutgoingResponse};
use crate::hub::embedded::EmbeddedFeed;
use crate::hub::{Class, FeedEntry, FeedError, Push, Sockets};
use crate::pace::Pace;
use crate::passwords::{Algorithm, PasswordError, Passwords, Requester, Verification};
use crate::senders::Senders;
use crate::sql::sqlite::{Durability, SqliteBackend};
use crate::sql::{Effect, Migration, SqlBackend};
use crate::tokens::{AccessToken, Claims, Revocations, TokenError, Tokens};
use echo_base::names::ServiceName;

/// Two guests of one service, as two calls at once.
pub(crate) async fn two_guests(folder: &Path, sockets: Arc<dyn Sockets>) -> [Guest; 2] {
    let service = ServiceName::parse("alpha").expect("a good name");
    let database = SqliteBackend::new(folder).open(&service).await.expect("opens");
    let table =
        Migration { name: "0001".to_owned(), dialect: "sqlite".to_owned(), sql: "CREATE TABLE note (id TEXT PRIMARY KEY)".to_owned() };
    database.migrate(&[table]).await.expect("migrates");
    let capabilities = Arc::new(Capabilities {
        database,
        cache: Arc::new(Nothing),
        blobs: Arc::new(ObjectStoreBlobs::in_folder(&folder.join("blobs")).expect("opens")),
        feed: Arc::new(EmbeddedFeed::open(folder, Durability::default()).await.expect("opens")),
        sockets,
        passwords: Arc::new(Nothing),
        tokens: Arc::new(Nothing),
        http: Arc::new(Nothing),
        settings: ServiceSettings::default(),
        pace: Pace::default(),
        senders: Arc::new(Senders::new(1)),
    });
    [(); 2].map(|()| {
        let feed_share = Arc::new(Senders::of_service(1_000_000, &capabilities.senders));
        Guest::new(service.clone(), context(Duration::from_secs(30)).into(), capabilities.clone(), feed_share, Arc::default())
    })
}

pub(crate) fn context(time: Duration) -> CallContext {
    CallContext {
        caller: None,
        request_id: "r".into(),
        correlation_id: "c".into(),
        client_address: None,
        user_agent: None,
        trace_parent: None,
        idempotency_key: None,
        event_id: None,
        deadline: Instant::now() + time,
    }
}

/// Writes down what it is asked to show.
#[derive(Default)]
pub(crate) struct Screen {
    pub(crate) shown: Mutex<Vec<String>>,
}

#[async_trait]
impl Sockets for Screen {
    fn deliver(&self, _: &[FeedEntry]) {}

    fn deliver_ephemeral(&self, push: &Push) {
        self.shown.lock().push(push.payload.clone());
    }

    async fn online(&self, users: &[Uuid]) -> Result<Vec<Uuid>, FeedError> {
        Ok(users[..1].to_vec())
    }

    fn disconnect_session(&self, session: Uuid) {
        self.shown.lock().push(format!("bye {session}"));
    }

    fn disconnect_user(&self, _: Uuid) {}
}

pub(crate) const ADD: &str = "INSERT INTO note (id) VALUES ($1)";

pub(crate) fn text(text: &str) -> Vec<wit::Value> {
    vec![wit::Value::Text(text.to_owned())]
}

pub(crate) fn again(handle: &Resource<TransactionHandle>) -> Resource<TransactionHandle> {
    Resource::new_borrow(handle.rep())
}

async fn notes(guest: &mut Guest) -> u64 {
    let rows = Host::query(guest, "SELECT id FROM note".to_owned(), vec![]).await.expect("no trap").expect("reads");
    rows.rows.len() as u64
}

fn says<T: std::fmt::Debug>(answer: Answer<T>, expect: &str) {
    let error = answer.expect("no trap").expect_err(expect);
    assert!(error.message.contains(expect), "{:?} does not say {expect:?}", error.message);
}

async fn begun(guest: &mut Guest) -> Resource<TransactionHandle> {
    HostTransaction::begin(guest).await.expect("no trap").expect("begins")
}

async fn add(guest: &mut Guest, handle: &Resource<TransactionHandle>, id: &str) {
    let count = HostTransaction::execute(guest, again(handle), ADD.to_owned(), text(id)).await.expect("no trap").expect("inserts");
    assert_eq!(count, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_transaction_at_a_time_and_nothing_beside_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let [mut guest, mut other] = two_guests(folder.path(), Arc::new(Screen::default())).await;
    let handle = begun(&mut guest).await;
    add(&mut guest, &handle, "a").await;
    says(HostTransaction::begin(&mut guest).await.map(|begun| begun.map(drop)), "one at a time");
    says(Host::execute(&mut guest, ADD.to_owned(), text("b")).await, "a transaction is open");
    says(Host::query(&mut guest, "SELECT 1".to_owned(), vec![]).await, "a transaction is open");
    says(Host::batch(&mut guest, vec![]).await, "a transaction is open");
    HostTransaction::commit(&mut guest, handle).await.expect("no trap").expect("commits");
    assert_eq!((notes(&mut guest).await, notes(&mut other).await), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_handle_rolls_back_and_a_stale_one_reaches_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let [mut guest, _] = two_guests(folder.path(), Arc::new(Screen::default())).await;
    let handle = begun(&mut guest).await;
    add(&mut guest, &handle, "a").await;
    HostTransaction::drop(&mut guest, handle).await.expect("no trap");
    assert!(guest.transaction.is_none());
    assert_eq!(notes(&mut guest).await, 0);

    // The runtime took the first one away; its handle must not reach the second.
    let first = begun(&mut guest).await;
    guest.transaction = None;
    let second = begun(&mut guest).await;
    says(HostTransaction::execute(&mut guest, again(&first), ADD.to_owned(), text("x")).await, "has ended");
    says(HostTransaction::commit(&mut guest, first).await, "has ended");
    add(&mut guest, &second, "b").await;
    HostTransaction::rollback(&mut guest, second).await.expect("no trap").expect("rolls back");
    assert_eq!(notes(&mut guest).await, 0);
    let unknown = Resource::new_borrow(77);
    assert!(HostTransaction::query(&mut guest, unknown, "SELECT 1".to_owned(), vec![]).await.is_err(), "a handle that never was traps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_the_database_ends_with_the_call() {
    let folder = tempfile::tempdir().expect("a folder");
    let [mut guest, mut other] = two_guests(folder.path(), Arc::new(Screen::default())).await;
    let handle = begun(&mut guest).await;
    other.begin_call(context(Duration::from_millis(30)).into());
    let begin = Instant::now();
    says(HostTransaction::begin(&mut other).await.map(|begun| begun.map(drop)), "no time is left");
    assert!(begin.elapsed() < Duration::from_secs(2));
    HostTransaction::rollback(&mut guest, handle).await.expect("no trap").expect("rolls back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_are_counted_and_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let [mut guest, _] = two_guests(folder.path(), Arc::new(Screen::default())).await;
    let many = vec![wit::Value::Null; limits::SQL_PARAMS_MAX + 1];
    let error = Host::query(&mut guest, "SELECT 1".to_owned(), many).await.expect("no trap").expect_err("too many");
    assert_eq!(error.class as u8, wit::ErrorClass::TooLarge as u8);
    says(Host::query(&mut guest, "SELECT $1".to_owned(), vec![wit::Value::Uuid("x".to_owned())]).await, "no uuid");
    let statement = wit::Statement { sql: ADD.to_owned(), params: text("a") };
    let error = Host::batch(&mut guest, vec![statement; limits::SQL_BATCH_MAX + 1]).await.expect("no trap").expect_err("too many");
    assert_eq!(error.class as u8, wit::ErrorClass::TooLarge as u8);
    let row = Host::query_one(&mut guest, "SELECT $1, $2".to_owned(), vec![wit::Value::Boolean(true), wit::Value::F64(1.5)]).await;
    let row = row.expect("no trap").expect("reads").expect("a row");
    assert!(matches!(row[..], [wit::Value::S64(1), wit::Value::F64(1.5)]), "{row:?}");
}

/// Capabilities that these tests do not use.
struct Nothing;

#[async_trait]
impl Http for Nothing {
    async fn send(&self, _: &HttpGrants, _: OutgoingRequest) -> Result<OutgoingResponse, HttpError> {
        unreachable!()
    }

    fn public_key(&self, _: &str) -> Option<String> {
        unreachable!()
    }
}

#[async_trait]
impl Cache for Nothing {
    async fn get(&self, _: &str) -> Result<Option<Bytes>, CacheError> {
        unreachable!()
    }

    async fn set(&self, _: &str, _: Bytes, _: Option<Duration>) -> Result<(), CacheError> {
        unreachable!()
    }

    async fn delete(&self, _: &str) -> Result<bool, CacheError> {
        unreachable!()
    }

    async fn get_multi(&self, _: &[String]) -> Result<Vec<Option<Bytes>>, CacheError> {
        unreachable!()
    }

    async fn set_multi(&self, _: Vec<(String, Bytes)>, _: Option<Duration>) -> Result<(), CacheError> {
        unreachable!()
    }

    async fn add(&self, _: &str, _: i64, _: Option<Duration>) -> Result<i64, CacheError> {
        unreachable!()
    }

    async fn expire(&self, _: &str, _: Duration) -> Result<bool, CacheError> {
        unreachable!()
    }

    async fn ttl(&self, _: &str) -> Result<Option<Duration>, CacheError> {
        unreachable!()
    }

    async fn set_if_absent(&self, _: &str, _: Bytes, _: Option<Duration>) -> Result<bool, CacheError> {
        unreachable!()
    }

    async fn compare_and_swap(&self, _: &str, _: Option<Bytes>, _: Bytes, _: Option<Duration>) -> Result<bool, CacheError> {
        unreachable!()
    }

    async fn compare_and_delete(&self, _: &str, _: &[u8]) -> Result<bool, CacheError> {
        unreachable!()
    }

    async fn set_add(&self, _: &str, _: &[String], _: Option<Duration>) -> Result<u32, CacheError> {
        unreachable!()
    }

    async fn set_remove(&self, _: &str, _: &[String]) -> Result<u32, CacheError> {
        unreachable!()
    }

    async fn set_members(&self, _: &str) -> Result<Vec<String>, CacheError> {
        unreachable!()
    }

    async fn set_contains(&self, _: &str, _: &str) -> Result<bool, CacheError> {
        unreachable!()
    }

    async fn ping(&self) -> Result<(), CacheError> {
        unreachable!()
    }
}

#[async_trait]
impl Passwords for Nothing {
    async fn hash(&self, _: &str, _: Algorithm, _: &Requester) -> Result<String, PasswordError> {
        unreachable!()
    }

    async fn verify(&self, _: &str, _: Option<&str>, _: &Requester) -> Result<Verification, PasswordError> {
        unreachable!()
    }

    fn fingerprint(&self, _: &str) -> String {
        unreachable!()
    }
}

#[async_trait]
impl Tokens for Nothing {
    fn sign(&self, _: &Claims) -> Result<AccessToken, TokenError> {
        unreachable!()
    }

    async fn verify(&self, _: &str) -> Result<Arc<Caller>, TokenError> {
        unreachable!()
    }

    fn jti(&self, _: &str) -> Result<Uuid, TokenError> {
        unreachable!()
    }

    async fn revoke_session(&self, _: Uuid) -> Result<(), TokenError> {
        unreachable!()
    }

    async fn revoke_user(&self, _: Uuid) -> Result<(), TokenError> {
        unreachable!()
    }

    fn revocations(&self) -> Revocations {
        unreachable!()
    }

    async fn issue_ticket(&self, _: &Claims) -> Result<(String, u32), TokenError> {
        unreachable!()
    }

    async fn redeem_ticket(&self, _: &str) -> Result<Arc<Caller>, TokenError> {
        unreachable!()
    }

    async fn return_ticket(&self, _: &str) {
        unreachable!()
    }

    fn jwks(&self) -> serde_json::Value {
        unreachable!()
    }

    async fn rotate(&self) -> Result<(), TokenError> {
        unreachable!()
    }

    async fn upkeep(&self, _: CancellationToken) {
        unreachable!()
    }
}

fn push() -> Effect {
    Effect::Push(Push {
        users: vec![Uuid::nil()],
        event: "e".to_owned(),
        payload: "1".to_owned(),
        class: Class::Durable,
        receipt: None,
        subject: None,
        state: None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_makes_effects_in_masses_waits_when_it_holds_nothing() {
    const BEYOND: u32 = 300;
    let waits = BEYOND * Duration::from_micros(1_000_000 / limits::EFFECTS_PACED_PER_SECOND);
    let folder = tempfile::tempdir().expect("a folder");
    let [mut guest, mut other] = two_guests(folder.path(), Arc::new(Screen::default())).await;
    let capabilities = guest.capabilities.clone();
    let nobody_waits = || capabilities.pace.take(0) <= Instant::now();
    for _ in 0..limits::EFFECTS_FREE {
        guest.emit(push()).await.expect("emits");
    }
    assert!(nobody_waits(), "they are free");

    let handle = begun(&mut guest).await;
    for _ in 0..BEYOND {
        guest.emit(push()).await.expect("emits");
    }
    assert!(nobody_waits(), "others wait for the writer");
    let begin = Instant::now();
    HostTransaction::commit(&mut guest, handle).await.expect("no trap").expect("commits");
    assert!(begin.elapsed() >= waits, "{:?}", begin.elapsed());
    Host::execute(&mut other, ADD.to_owned(), text("a")).await.expect("no trap").expect("the writer is free");

    // All calls of the service stand in one line, and what leaves at once stands in it too.
    let begin = Instant::now();
    capabilities.pace.take(BEYOND);
    for _ in 0..=limits::EFFECTS_FREE {
        other.made.add(0, 1).expect("within the bound");
    }
    other.keep_pace().await;
    assert!(begin.elapsed() >= waits, "{:?}", begin.elapsed());

    // Who handles an event has more for free, ...
    other.begin_call(CallContext { event_id: Some("e".into()), ..context(Duration::from_secs(1)) }.into());
    for _ in 0..=limits::EFFECTS_FREE {
        other.emit(push()).await.expect("emits");
    }
    assert!(nobody_waits());
    // ... and whoever waits keeps some of its time.
    let deadline = Instant::now() + Duration::from_secs(1);
    capabilities.pace.take(u32::MAX);
    other.begin_call(CallContext { deadline, ..context(Duration::ZERO) }.into());
    other.made.add(limits::EFFECT_BYTES_PER_CALL_MAX, 1).expect("within the bound");
    other.keep_pace().await;
    assert!(Instant::now() < deadline);
}
