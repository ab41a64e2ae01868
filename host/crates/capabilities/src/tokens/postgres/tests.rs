//! Two hosts on one database, each with its clock, with and without a bus between them.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream::BoxStream;
use serde_json::Value as Json;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::sync::broadcast::error::RecvError;

use super::*;
use crate::bus::{BusError, Subscription};
use crate::sql::SqlBackend;
use crate::sql::postgres::fixture::{Server, settings};
use crate::tokens::RevocationEvent;
use crate::tokens::suite::{self, ManualClock, claims};

/// A bus within this process, that can be made to lose everything.
#[derive(Default)]
struct FakeBus {
    sender: Option<broadcast::Sender<Bytes>>,
    is_away: AtomicBool,
}

impl FakeBus {
    fn new() -> Arc<Self> {
        Arc::new(Self { sender: Some(broadcast::Sender::new(16)), is_away: AtomicBool::new(false) })
    }
}

#[async_trait]
impl HubBus for FakeBus {
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        assert_eq!(subject, SUBJECT);
        if self.is_away.load(Ordering::SeqCst) {
            return Err(BusError("away".to_owned()));
        }
        let _ = self.sender.as_ref().expect("made by new").send(payload);
        Ok(())
    }

    async fn subscribe(&self, subjects: &[&str]) -> Subscription {
        assert_eq!(subjects, [SUBJECT]);
        let receiver = self.sender.as_ref().expect("made by new").subscribe();
        let stream: BoxStream<'static, Delivery> =
            futures_util::stream::unfold(receiver, async |mut receiver| match receiver.recv().await {
                Ok(message) => Some((Delivery::Message(message), receiver)),
                Err(RecvError::Lagged(_)) => Some((Delivery::Interrupted, receiver)),
                Err(RecvError::Closed) => None,
            })
            .boxed();
        stream
    }

    async fn ping(&self) -> Result<(), BusError> {
        Ok(())
    }
}

const MASTER_KEY: &str = "0123456789abcdef0123456789abcdef";

fn master_key() -> MasterKey {
    MasterKey::of_text(MASTER_KEY).unwrap()
}

/// One host.
struct Host {
    backend: PostgresBackend,
    tokens: Arc<PostgresTokens>,
    clock: ManualClock,
    stop: CancellationToken,
}

impl Host {
    async fn start(server: &Server, database: &str, node: &str, bus: Option<Arc<FakeBus>>) -> Self {
        let clock = ManualClock::start();
        let backend = server.backend_of(node, database, settings(8)).await;
        let bus = bus.map(|bus| bus as Arc<dyn HubBus>);
        let tokens = PostgresTokens::open_with(&backend, &master_key(), bus, TokenSettings::default(), clock.clock(), None).await.unwrap();
        Self { backend, tokens, clock, stop: CancellationToken::new() }
    }

    /// Runs what a host does all the time.
    fn keeps_up(self) -> Self {
        let (tokens, stop) = (self.tokens.clone(), self.stop.clone());
        tokio::spawn(async move { tokens.upkeep(stop).await });
        self
    }

    fn signs_with(&self) -> String {
        kid(&self.tokens.sign(&claims()).unwrap().token)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn kid(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Json>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

fn kids(tokens: &PostgresTokens) -> Vec<String> {
    tokens.jwks()["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

async fn within_a_few_seconds(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_passes_the_suite() {
    let server = Server::start().await;
    suite::suite(async |name: &str, token_settings, clock| {
        let backend = server.backend_of("a", &format!("suite-{name}"), settings(4)).await;
        let tokens = PostgresTokens::open_with(&backend, &master_key(), None, token_settings, clock, None).await.unwrap();
        // What upkeep does again and again.
        tokens.look_over().await;
        tokens as Arc<dyn Tokens>
    })
    .await;
}

#[tokio::test]
async fn a_token_of_one_host_is_good_at_another_at_once_also_right_after_a_rotation() {
    let server = Server::start().await;
    let [a, b] = [Host::start(&server, "rotation", "a", None).await, Host::start(&server, "rotation", "b", None).await];
    let first = a.tokens.sign(&claims()).unwrap().token;
    assert!(b.tokens.verify(&first).await.is_ok());
    a.tokens.rotate().await.unwrap();
    assert_eq!(a.signs_with(), kid(&first), "published before it signs");
    assert_eq!(kids(&a.tokens).len(), 2);
    // `b` has missed the whole time of publication: its upkeep does not run in this test.
    for host in [&a, &b] {
        host.clock.forward(Duration::from_millis(limits::TOKEN_KEY_PUBLISHED_MS));
    }
    let second = a.tokens.sign(&claims()).unwrap().token;
    assert_ne!(kid(&second), kid(&first));
    assert_eq!(kids(&b.tokens).len(), 1);
    assert!(b.tokens.verify(&second).await.is_ok(), "an unknown key is looked for at once");
    assert!(b.tokens.verify(&first).await.is_ok());
    assert_eq!(b.signs_with(), kid(&second));
}

#[tokio::test]
async fn forged_keys_make_few_questions_to_the_database() {
    let server = Server::start().await;
    let host = Host::start(&server, "forged", "a", None).await;
    let other = Host::start(&server, "forged-elsewhere", "a", None).await;
    let forged = other.tokens.sign(&claims()).unwrap().token;
    let began = Instant::now();
    let mut reads = Vec::new();
    for _ in 0..200 {
        assert_eq!(host.tokens.verify(&forged).await, Err(TokenError::Invalid));
        reads.push(host.tokens.asked_for_key.lock().await.unwrap().0);
    }
    reads.dedup();
    let most = began.elapsed().as_millis() / u128::from(limits::TOKEN_KEYS_READ_PAUSE_MS) + 1;
    assert!(reads.len() as u128 <= most, "{} questions in {:?}", reads.len(), began.elapsed());
}

#[tokio::test]
async fn two_hosts_that_rotate_at_one_time_make_one_key() {
    let server = Server::start().await;
    let [a, b] = [Host::start(&server, "two", "a", None).await, Host::start(&server, "two", "b", None).await];
    for host in [&a, &b] {
        host.clock.forward(TokenSettings::default().rotate_every);
    }
    tokio::join!(a.tokens.look_over(), b.tokens.look_over());
    b.tokens.look().await.unwrap();
    a.tokens.look().await.unwrap();
    assert_eq!(kids(&a.tokens).len(), 2);
    assert_eq!(kids(&a.tokens), kids(&b.tokens));
    // Both forget the first one when its last token has ended.
    let ended = Duration::from_millis(limits::TOKEN_KEY_PUBLISHED_MS + limits::TOKEN_CLOCK_MARGIN_MS + 1)
        + Duration::from_secs(limits::ACCESS_TOKEN_TTL_S);
    for host in [&a, &b] {
        host.clock.forward(ended);
    }
    tokio::join!(a.tokens.look_over(), b.tokens.look_over());
    b.tokens.look().await.unwrap();
    assert_eq!(b.tokens.ring.load().ended(u64::MAX).len(), 0, "the row is gone");
    assert_eq!(a.signs_with(), b.signs_with());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_host_revokes_the_others_refuse_by_the_bus_at_once() {
    let server = Server::start().await;
    let bus = FakeBus::new();
    let a = Host::start(&server, "bus", "a", Some(bus.clone())).await;
    let b = Host::start(&server, "bus", "b", Some(bus.clone())).await;
    // `b` hears and does not look by itself.
    let listening = b.tokens.clone();
    let listener = tokio::spawn(async move { listening.listen().await });
    within_a_few_seconds("the subscription", async || bus.sender.as_ref().unwrap().receiver_count() == 1).await;
    let mut sockets_of_b = b.tokens.revocations();
    let claims = claims();
    let token = a.tokens.sign(&claims).unwrap().token;
    assert!(b.tokens.verify(&token).await.is_ok());
    a.tokens.revoke_session(claims.session_id).await.unwrap();
    assert_eq!(sockets_of_b.next().await, Some(RevocationEvent::Revoked(Revocation::Session(claims.session_id))));
    assert_eq!(b.tokens.verify(&token).await, Err(TokenError::Revoked));
    // What the database says of it again is no news.
    b.tokens.look().await.unwrap();
    assert_eq!(sockets_of_b.try_next(), None);
    // Messages that were missed, and one that nobody understands: the database is read.
    bus.is_away.store(true, Ordering::SeqCst);
    a.tokens.revoke_user(claims.user_id).await.unwrap();
    bus.sender.as_ref().unwrap().send(Bytes::from_static(b"?")).unwrap();
    assert_eq!(sockets_of_b.next().await, Some(RevocationEvent::Revoked(Revocation::User(claims.user_id))));
    listener.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_bus_a_revocation_is_found_by_looking() {
    let server = Server::start().await;
    let a = Host::start(&server, "look", "a", None).await;
    let b = Host::start(&server, "look", "b", None).await.keeps_up();
    let mut sockets_of_b = b.tokens.revocations();
    let claims = claims();
    let token = a.tokens.sign(&claims).unwrap().token;
    a.tokens.revoke_user(claims.user_id).await.unwrap();
    let began = Instant::now();
    assert_eq!(sockets_of_b.next().await, Some(RevocationEvent::Revoked(Revocation::User(claims.user_id))));
    assert!(began.elapsed() < Duration::from_millis(5 * limits::TOKENS_POLL_MS), "{:?}", began.elapsed());
    assert_eq!(b.tokens.verify(&token).await, Err(TokenError::Revoked));
}

/// Transactions get their numbers in one order and end in another: one that began first and ends last is not passed over.
#[tokio::test]
async fn revocations_are_read_in_whatever_order_they_are_committed() {
    let server = Server::start().await;
    let host = Host::start(&server, "order", "a", None).await;
    let url = server.url("order").await;
    let mut slow = PgConnection::connect(&url).await.unwrap();
    let mut quick = PgConnection::connect(&url).await.unwrap();
    let put = "INSERT INTO echo.token_revocation (kind, id, at_us, until_us) VALUES ('session', gen_random_uuid(), 1, 9223372036854775807)";
    sqlx::raw_sql("BEGIN").execute(&mut slow).await.unwrap();
    sqlx::raw_sql(put).execute(&mut slow).await.unwrap();
    sqlx::raw_sql(put).execute(&mut quick).await.unwrap();
    let mut revocations = host.tokens.revocations();
    host.tokens.look().await.unwrap();
    host.tokens.look().await.unwrap();
    assert!(revocations.try_next().is_some() && revocations.try_next().is_none(), "the quick one alone, and once");
    sqlx::raw_sql("COMMIT").execute(&mut slow).await.unwrap();
    host.tokens.look().await.unwrap();
    assert!(revocations.try_next().is_some(), "the slow one is found, though a later one was read before");
    host.tokens.look().await.unwrap();
    assert!(revocations.try_next().is_none());
}

#[tokio::test]
async fn hosts_whose_clocks_differ_agree_on_which_token_was_before_a_revocation() {
    let server = Server::start().await;
    let [ahead, behind] = [Host::start(&server, "clocks", "a", None).await, Host::start(&server, "clocks", "b", None).await];
    ahead.clock.forward(Duration::from_millis(limits::TOKEN_CLOCK_MARGIN_MS - 1));
    let claims = claims();
    let before = ahead.tokens.sign(&claims).unwrap().token;
    behind.tokens.revoke_user(claims.user_id).await.unwrap();
    ahead.tokens.look().await.unwrap();
    let login = Claims { session_id: Uuid::now_v7(), ..claims.clone() };
    let after = [ahead.tokens.sign(&login).unwrap().token, behind.tokens.sign(&login).unwrap().token];
    for host in [&ahead, &behind] {
        assert_eq!(host.tokens.verify(&before).await, Err(TokenError::Revoked), "signed earlier, though its time is later");
        for token in &after {
            assert!(host.tokens.verify(token).await.is_ok(), "signed by a host that knew");
        }
    }
    // Once more at once: what was signed in between is on the other side.
    ahead.tokens.revoke_user(claims.user_id).await.unwrap();
    behind.tokens.look().await.unwrap();
    for host in [&ahead, &behind] {
        for token in &after {
            assert_eq!(host.tokens.verify(token).await, Err(TokenError::Revoked));
        }
        assert!(host.tokens.verify(&host.tokens.sign(&login).unwrap().token).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_of_one_host_is_redeemed_at_another_and_once_only() {
    let server = Server::start().await;
    let [a, b] = [Host::start(&server, "tickets", "a", None).await, Host::start(&server, "tickets", "b", None).await];
    let claims = claims();
    for round in 0..10 {
        let (ticket, _) = a.tokens.issue_ticket(&claims).await.unwrap();
        let redeemed = tokio::join!(
            a.tokens.redeem_ticket(&ticket),
            b.tokens.redeem_ticket(&ticket),
            a.tokens.redeem_ticket(&ticket),
            b.tokens.redeem_ticket(&ticket),
        );
        let redeemed = [redeemed.0, redeemed.1, redeemed.2, redeemed.3];
        assert_eq!(redeemed.iter().filter(|redeemed| redeemed.is_ok()).count(), 1, "round {round}: {redeemed:?}");
        b.tokens.return_ticket(&ticket).await;
        assert_eq!(a.tokens.redeem_ticket(&ticket).await.unwrap().session_id, claims.session_id);
        assert_eq!(b.tokens.redeem_ticket(&ticket).await, Err(TokenError::Invalid));
    }
    // Ended ones are forgotten.
    a.clock.forward(Duration::from_secs(limits::TICKET_TTL_S + 1));
    a.tokens.look_over().await;
    let mut operator = PgConnection::connect(&server.url("tickets").await).await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM echo.token_ticket").fetch_one(&mut operator).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn tickets_of_one_host_are_bounded() {
    let server = Server::start().await;
    let host = Host::start(&server, "bounded", "a", None).await;
    let now_us = (host.tokens.clock)();
    host.tokens.tickets.lock().extend(std::iter::repeat_n(now_us + 1, limits::TICKETS_MAX));
    assert_eq!(host.tokens.issue_ticket(&claims()).await, Err(TokenError::Unavailable));
    host.clock.forward(Duration::from_micros(1));
    assert!(host.tokens.issue_ticket(&claims()).await.is_ok());
    assert_eq!(host.tokens.tickets.lock().len(), 1);
}

#[tokio::test]
async fn another_master_key_is_refused_with_the_reason() {
    let server = Server::start().await;
    let host = Host::start(&server, "master", "a", None).await;
    let other = MasterKey::of_text(&"x".repeat(32)).unwrap();
    let refused = PostgresTokens::open(&host.backend, &other, None, TokenSettings::default()).await.err().expect("refused").to_string();
    assert!(refused.contains("tokens.master_key"), "{refused}");
    // The database's own clock, and what is sealed is not to be read there.
    let again = PostgresTokens::open(&host.backend, &master_key(), None, TokenSettings::default()).await.unwrap();
    let now_us = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
    assert!((again.clock)().abs_diff(now_us) < 10_000_000, "one machine, one time");
    let mut operator = PgConnection::connect(&server.url("master").await).await.unwrap();
    let sealed: Vec<u8> = sqlx::query_scalar("SELECT sealed FROM echo.token_key").fetch_one(&mut operator).await.unwrap();
    assert_eq!(sealed.len(), 12 + 32 + 16);
}

#[tokio::test]
async fn without_the_database_known_keys_and_revocations_hold() {
    let server = Server::start().await;
    let [a, b] = [Host::start(&server, "away", "a", None).await, Host::start(&server, "away", "b", None).await];
    let (ended, other) = (claims(), claims());
    let tokens = [a.tokens.sign(&ended).unwrap().token, a.tokens.sign(&other).unwrap().token];
    a.tokens.revoke_session(ended.session_id).await.unwrap();
    b.tokens.look().await.unwrap();
    a.tokens.rotate().await.unwrap();
    a.clock.forward(Duration::from_millis(limits::TOKEN_KEY_PUBLISHED_MS));
    let of_new_key = a.tokens.sign(&other).unwrap().token;
    b.backend.close().await;
    assert!(b.tokens.look().await.is_err());
    assert_eq!(b.tokens.verify(&tokens[0]).await, Err(TokenError::Revoked));
    assert!(b.tokens.verify(&tokens[1]).await.is_ok());
    assert!(b.tokens.verify(&b.tokens.sign(&other).unwrap().token).await.is_ok());
    assert_eq!(b.tokens.verify(&of_new_key).await, Err(TokenError::Unavailable), "nobody knows whether there is such a key");
    assert_eq!(b.tokens.issue_ticket(&other).await, Err(TokenError::Unavailable));
    assert_eq!(b.tokens.redeem_ticket("x").await, Err(TokenError::Unavailable));
    assert_eq!(b.tokens.revoke_user(other.user_id).await, Err(TokenError::Unavailable));
    assert!(b.tokens.verify(&tokens[1]).await.is_ok(), "what could not be saved holds nowhere");
}

/// Tokens of a host that lets them live longer than others do are accepted as long.
#[tokio::test]
async fn a_key_is_kept_for_the_longest_lived_token_of_any_host() {
    let server = Server::start().await;
    let short = Host::start(&server, "long", "a", None).await;
    let day = TokenSettings { access_ttl: Duration::from_secs(limits::ACCESS_TOKEN_TTL_MAX_S), ..TokenSettings::default() };
    let long = PostgresTokens::open_with(&short.backend, &master_key(), None, day, short.clock.clock(), None).await.unwrap();
    let token = long.sign(&claims()).unwrap().token;
    short.tokens.look().await.unwrap();
    short.tokens.rotate().await.unwrap();
    long.look().await.unwrap();
    short.clock.forward(Duration::from_secs(limits::ACCESS_TOKEN_TTL_MAX_S - 1));
    short.tokens.look_over().await;
    let fresh = Host::start(&server, "long", "c", None).await;
    fresh.clock.forward(Duration::from_secs(limits::ACCESS_TOKEN_TTL_MAX_S - 1));
    assert!(fresh.tokens.verify(&token).await.is_ok());
}
