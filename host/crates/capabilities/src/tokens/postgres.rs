//! Tokens of all hosts of a PostgreSQL database: signing keys, revocations and tickets are in the host's own schema there. What is asked for every request is
//! answered from memory; a host learns of what another does by the bus, where there is one, and by a look into the database every `TOKENS_POLL_MS`.
//!
//! - A key is sealed by the operator's master key, and in the memory of all hosts for `TOKEN_KEY_PUBLISHED_MS` before it signs.
//! - A revocation is committed before the call returns. Hosts read those of transactions that had not ended when they last looked, so that the order of
//!   commits does not matter.
//! - A ticket is redeemed by one statement, so by one host.
//! - Times that hosts compare are the database's (`postgres/clock.rs`), and still differ by up to `TOKEN_CLOCK_MARGIN_MS`.
//!
//! While the database is away tokens are signed and verified as before, revocations known so far hold, and there are no tickets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::clock::DatabaseClock;
use self::keys::{Ring, Sealer};
use super::in_force::{InForce, Revoked};
use super::signed::{Accepted, Refused, Signed, fingerprint, seconds};
use super::{AccessToken, Claims, Clock, MasterKey, Revocation, Revocations, TokenError, TokenSettings, Tokens};
use crate::bus::{Delivery, HubBus};
use crate::context::Caller;
use crate::sql::postgres::pool::Pooled;
use crate::sql::postgres::{PostgresBackend, Shared};
use crate::sql::{ErrorClass, SqlError, Value};
use echo_base::limits;

mod clock;
mod keys;
#[cfg(test)]
mod tests;

const READ_COMMITTED: &str = "READ COMMITTED";
/// As that of `sql::postgres`: tables are made, and keys decided on, by one host at a time.
const SETUP_LOCK: i64 = 0x4563_686f_0004;
/// On the bus.
const SUBJECT: &str = "revocations";
const MARGIN_US: u64 = limits::TOKEN_CLOCK_MARGIN_MS * 1_000;

/// `xid`: the transaction that wrote the row last. Tickets need not outlive a crash of the server.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS token_key (kid TEXT PRIMARY KEY, sealed BYTEA NOT NULL, created_at_us BIGINT NOT NULL, signs_from_us BIGINT NOT NULL,
        access_ttl_s BIGINT NOT NULL);
    CREATE TABLE IF NOT EXISTS token_revocation (kind TEXT NOT NULL, id UUID NOT NULL, at_us BIGINT NOT NULL, until_us BIGINT NOT NULL,
        xid XID8 NOT NULL DEFAULT pg_current_xact_id(), PRIMARY KEY (kind, id));
    CREATE INDEX IF NOT EXISTS token_revocation_xid ON token_revocation (xid);
    CREATE INDEX IF NOT EXISTS token_revocation_until ON token_revocation (until_us);
    CREATE UNLOGGED TABLE IF NOT EXISTS token_ticket (fingerprint BYTEA PRIMARY KEY, caller TEXT NOT NULL, until_us BIGINT NOT NULL,
        is_redeemed BOOLEAN NOT NULL DEFAULT false);
    CREATE INDEX IF NOT EXISTS token_ticket_until ON token_ticket (until_us)";

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error(
        "tokens.master_key does not open the signing keys in the database: it is not the one that they were sealed with. All hosts of a database have the same"
    )]
    WrongMasterKey,
}

pub struct PostgresTokens {
    shared: Arc<Shared>,
    signed: Signed,
    sealer: Sealer,
    clock: Clock,
    /// None where the clock was given from outside.
    database_clock: Option<Arc<DatabaseClock>>,
    ring: ArcSwap<Ring>,
    in_force: InForce,
    /// Full: the subscriber that is behind is given `Resync`.
    revoked: broadcast::Sender<Revocation>,
    /// How far this host has read.
    seen: tokio::sync::Mutex<Seen>,
    /// When the keys were last read because of one that was not known, and whether that succeeded.
    asked_for_key: tokio::sync::Mutex<Option<(Instant, bool)>>,
    /// When the tickets of this host end, oldest first.
    tickets: Mutex<VecDeque<u64>>,
    bus: Option<Arc<dyn HubBus>>,
}

struct Seen {
    /// Transactions below this one had ended, and what they wrote was read.
    xid: String,
    /// The keys, as the database describes them without their secrets.
    keys: String,
}

impl PostgresTokens {
    /// Makes the tables, and the first key, where they are missing. `bus`: where there is none, other hosts learn of a revocation by looking.
    pub async fn open(
        backend: &PostgresBackend,
        master_key: &MasterKey,
        bus: Option<Arc<dyn HubBus>>,
        settings: TokenSettings,
    ) -> Result<Arc<Self>, OpenError> {
        let database_clock = Arc::new(DatabaseClock::default());
        let clock = database_clock.clock();
        Self::open_with(backend, master_key, bus, settings, clock, Some(database_clock)).await
    }

    /// For `echod migrate`: the signing keys of the host whose data comes here, oldest first, each with its seed, when it was made and the longest life of
    /// its tokens (`embedded::keys::exported`). Tokens that they have signed stay good.
    pub async fn fill(backend: &PostgresBackend, master_key: &MasterKey, keys: &[([u8; 32], u64, u64)]) -> Result<(), SqlError> {
        let sealer = Sealer::new(master_key);
        let mut connection = backend.shared().host.take().await?;
        connection.begin(READ_COMMITTED).await?;
        lock(&mut connection).await?;
        connection.raw(TABLES).await?;
        for (seed, created_at_us, access_ttl_s) in keys {
            keys::put(&mut connection, &sealer, seed, *access_ttl_s, *created_at_us, *created_at_us).await?;
        }
        connection.commit().await
    }

    async fn open_with(
        backend: &PostgresBackend,
        master_key: &MasterKey,
        bus: Option<Arc<dyn HubBus>>,
        settings: TokenSettings,
        clock: Clock,
        database_clock: Option<Arc<DatabaseClock>>,
    ) -> Result<Arc<Self>, OpenError> {
        let shared = backend.shared();
        let sealer = Sealer::new(master_key);
        let mut connection = shared.host.take().await?;
        connection.begin(READ_COMMITTED).await?;
        lock(&mut connection).await?;
        connection.raw(TABLES).await?;
        if let Some(database_clock) = &database_clock {
            let asked_at = Instant::now();
            database_clock.set(unsigned(&connection.rows(NOW, vec![]).await?)?, asked_at);
        }
        let ring = keys::read_or_make(&mut connection, &sealer, settings.access_ttl.as_secs(), clock()).await?;
        connection.commit().await?;
        let tokens = Self {
            shared,
            signed: Signed::new(settings),
            sealer,
            clock,
            database_clock,
            ring: ArcSwap::from_pointee(ring),
            in_force: InForce::new(MARGIN_US),
            revoked: broadcast::Sender::new(limits::REVOCATIONS_QUEUE_MAX),
            seen: tokio::sync::Mutex::new(Seen { xid: "0".to_owned(), keys: String::new() }),
            asked_for_key: tokio::sync::Mutex::default(),
            tickets: Mutex::default(),
            bus,
        };
        tokens.look().await?;
        Ok(Arc::new(tokens))
    }

    /// Reads what other hosts have done since the last time.
    async fn look(&self) -> Result<(), SqlError> {
        let mut seen = self.seen.lock().await;
        let mut connection = self.shared.host.take().await?;
        // The transactions that are under way are asked for before the rows: what they commit from here on is read the next time.
        let asked_at = Instant::now();
        let state = connection.rows(STATE, vec![]).await?;
        let Some([Value::S64(now_us), Value::Text(xid), Value::Text(keys)]) = state.first().map(Vec::as_slice) else {
            return Err(unreadable());
        };
        if let Some(database_clock) = &self.database_clock {
            database_clock.measure(*now_us as u64, asked_at);
        }
        connection
            .run(NEW_REVOCATIONS, vec![seen.xid.as_str().into()], &mut |row: &PgRow| {
                let (revocation, revoked) = revocation_of(row)?;
                self.learn(revocation, revoked);
                Ok(())
            })
            .await?;
        seen.xid.clone_from(xid);
        if seen.keys != *keys {
            let ring = keys::read_for(&mut connection, &self.sealer, self.signed.ttl_s(), (self.clock)()).await?;
            self.ring.store(Arc::new(ring));
            seen.keys.clone_from(keys);
        }
        Ok(())
    }

    async fn look_and_log(&self) {
        if let Err(error) = self.look().await {
            tracing::warn!(%error, "revocations and keys of other hosts cannot be read; those known so far hold");
        }
    }

    /// A revocation of this or of another host, from wherever it comes.
    fn learn(&self, revocation: Revocation, revoked: Revoked) {
        if self.in_force.insert(revocation, revoked) {
            // Nobody listening is fine.
            let _ = self.revoked.send(revocation);
        }
    }

    /// A token of another host names a key that is not known here. Errors: `Unavailable` where the database cannot be asked.
    async fn read_keys(&self) -> Result<(), TokenError> {
        let mut asked = self.asked_for_key.lock().await;
        let pause = Duration::from_millis(limits::TOKEN_KEYS_READ_PAUSE_MS);
        // Whoever waited for another's question has its answer; and forged tokens are not to make questions without end.
        let is_fresh = asked.is_some_and(|(at, _)| at.elapsed() < pause);
        if !is_fresh {
            let time = Duration::from_millis(limits::TOKEN_KEYS_READ_MS);
            let outcome = tokio::time::timeout(time, async {
                let mut connection = self.shared.host.take().await?;
                keys::read(&mut connection, &self.sealer).await
            });
            let ring = outcome.await.ok().and_then(Result::ok);
            *asked = Some((Instant::now(), ring.is_some()));
            if let Some(ring) = ring {
                self.ring.store(Arc::new(ring));
            }
        }
        if asked.is_some_and(|(_, succeeded)| succeeded) { Ok(()) } else { Err(TokenError::Unavailable) }
    }

    fn check_signature(&self, token: &str) -> Result<Arc<Accepted>, Refused> {
        let ring = self.ring.load();
        self.signed.check(token, |kid| ring.find(kid))
    }

    /// What was signed by us: whether it is good still.
    fn hold(&self, accepted: Arc<Accepted>) -> Result<Arc<Accepted>, TokenError> {
        if accepted.caller.expires_at_us <= (self.clock)() {
            return Err(TokenError::Expired);
        }
        self.check_revocations(&accepted.caller)?;
        Ok(accepted)
    }

    fn check_revocations(&self, caller: &Caller) -> Result<(), TokenError> {
        if self.in_force.concerns(caller) { Err(TokenError::Revoked) } else { Ok(()) }
    }

    /// For what is issued now. Errors: `Revoked`.
    fn issue_moment(&self, claims: &Claims, now_us: u64) -> Result<u64, TokenError> {
        // A refresh that crosses a logout must not bring the session back.
        if self.in_force.session_is_revoked(claims.session_id) {
            return Err(TokenError::Revoked);
        }
        Ok(now_us.max(self.in_force.earliest_issue_us(claims.user_id)))
    }

    async fn revoke(&self, revocation: Revocation) -> Result<(), TokenError> {
        self.in_force.has_room(revocation)?;
        let at_us = (self.clock)();
        let longest_ttl_s = self.ring.load().longest_ttl_s().max(self.signed.ttl_s()).max(limits::TICKET_TTL_S);
        let until_us = at_us + (longest_ttl_s + 1) * 1_000_000 + 2 * MARGIN_US;
        let revoked = self.save(revocation, at_us, until_us).await.map_err(|error| unavailable(&error, "a revocation cannot be saved"))?;
        self.learn(revocation, revoked);
        if let Some(bus) = &self.bus {
            let message = serde_json::json!({
                "kind": revocation.kind(), "id": revocation.id(), "at_us": revoked.at_us, "until_us": revoked.until_us,
            });
            if let Err(error) = bus.publish(SUBJECT, Bytes::from(message.to_string())).await {
                tracing::warn!(%error, "other hosts learn of a revocation by looking into the database");
            }
        }
        Ok(())
    }

    /// Committed when it returns. A second one of the same user is later than the first, whatever the clock says.
    async fn save(&self, revocation: Revocation, at_us: u64, until_us: u64) -> Result<Revoked, SqlError> {
        let sql = "INSERT INTO token_revocation AS known (kind, id, at_us, until_us) VALUES ($1, $2::uuid, $3, $4)
            ON CONFLICT (kind, id) DO UPDATE SET at_us = greatest(excluded.at_us, known.at_us + 1),
                until_us = greatest(excluded.until_us, known.until_us), xid = pg_current_xact_id()
            RETURNING at_us, until_us";
        let values = vec![revocation.kind().into(), Value::Uuid(revocation.id()), (at_us as i64).into(), (until_us as i64).into()];
        match self.shared.host.take().await?.rows(sql, values).await?.first().map(Vec::as_slice) {
            Some([Value::S64(at_us), Value::S64(until_us)]) => Ok(Revoked { at_us: *at_us as u64, until_us: *until_us as u64 }),
            _ => Err(unreadable()),
        }
    }

    /// What another host has announced.
    async fn take_message(&self, message: &[u8]) {
        #[derive(serde::Deserialize)]
        struct Announced {
            kind: String,
            id: Uuid,
            at_us: u64,
            until_us: u64,
        }
        let announced = serde_json::from_slice::<Announced>(message).ok();
        match announced.and_then(|it| Some((Revocation::of(&it.kind, it.id)?, Revoked { at_us: it.at_us, until_us: it.until_us }))) {
            Some((revocation, revoked)) => self.learn(revocation, revoked),
            // Of a later version, perhaps: the database has it as well.
            None => self.look_and_log().await,
        }
    }

    async fn listen(&self) {
        let Some(bus) = &self.bus else { return };
        let mut deliveries = bus.subscribe(&[SUBJECT]).await;
        while let Some(delivery) = deliveries.next().await {
            match delivery {
                Delivery::Message(message) => self.take_message(&message).await,
                Delivery::Interrupted => self.look_and_log().await,
            }
        }
    }

    async fn look_again_and_again(&self) {
        let mut looks = tokio::time::interval(Duration::from_millis(limits::TOKENS_POLL_MS));
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.look_and_log().await;
        }
    }

    async fn look_over_again_and_again(&self) {
        let mut interval = tokio::time::interval(Duration::from_millis(limits::TOKEN_UPKEEP_INTERVAL_MS));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.look_over().await;
        }
    }

    /// Makes a new key when its time has come, and forgets what has ended. Every host does; what one has done, the next finds done.
    async fn look_over(&self) {
        let now_us = (self.clock)();
        let key_age = Duration::from_micros(now_us.saturating_sub(self.ring.load().newest().created_at_us));
        if key_age >= self.signed.settings().rotate_every && self.rotate().await.is_ok() {
            tracing::info!(kid = self.ring.load().newest().pair.kid, "a new key will sign the access tokens");
        }
        if let Err(error) = self.forget_ended(now_us).await {
            tracing::warn!(%error, "ended keys, revocations and tickets stay in the database for now");
        }
        self.in_force.purge(now_us);
    }

    async fn forget_ended(&self, now_us: u64) -> Result<(), SqlError> {
        let mut connection = self.shared.host.take().await?;
        let now = || vec![Value::S64(now_us as i64)];
        connection.rows("DELETE FROM token_revocation WHERE until_us <= $1", now()).await?;
        connection.rows("DELETE FROM token_ticket WHERE until_us <= $1", now()).await?;
        for kid in self.ring.load().ended(now_us) {
            connection.rows("DELETE FROM token_key WHERE kid = $1", vec![kid.into()]).await?;
        }
        Ok(())
    }

    /// Errors: `Unavailable` where this host has too many that are good still.
    fn count_ticket(&self, now_us: u64, until_us: u64) -> Result<(), TokenError> {
        let mut tickets = self.tickets.lock();
        while tickets.front().is_some_and(|ends_us| *ends_us <= now_us) {
            tickets.pop_front();
        }
        if tickets.len() >= limits::TICKETS_MAX {
            return Err(TokenError::Unavailable);
        }
        tickets.push_back(until_us);
        Ok(())
    }
}

#[async_trait]
impl Tokens for PostgresTokens {
    fn sign(&self, claims: &Claims) -> Result<AccessToken, TokenError> {
        let now_us = (self.clock)();
        let issued_at_us = self.issue_moment(claims, now_us)?;
        self.signed.sign(&self.ring.load().signing(now_us).pair, claims, now_us, issued_at_us)
    }

    async fn verify(&self, token: &str) -> Result<Arc<Caller>, TokenError> {
        let accepted = match self.check_signature(token) {
            Err(Refused::UnknownKey) => {
                self.read_keys().await?;
                self.check_signature(token)?
            }
            checked => checked?,
        };
        Ok(self.hold(accepted)?.caller.clone())
    }

    fn jti(&self, token: &str) -> Result<Uuid, TokenError> {
        Ok(self.hold(self.check_signature(token)?)?.jti)
    }

    async fn revoke_session(&self, session: Uuid) -> Result<(), TokenError> {
        self.revoke(Revocation::Session(session)).await
    }

    async fn revoke_user(&self, user: Uuid) -> Result<(), TokenError> {
        self.revoke(Revocation::User(user)).await
    }

    fn revocations(&self) -> Revocations {
        Revocations::new(self.revoked.subscribe())
    }

    async fn issue_ticket(&self, claims: &Claims) -> Result<(String, u32), TokenError> {
        let now_us = (self.clock)();
        let issued_at_us = self.issue_moment(claims, now_us)?;
        let until_us = now_us + limits::TICKET_TTL_S * 1_000_000;
        self.count_ticket(now_us, until_us)?;
        let ticket = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let caller = Kept::of(&self.signed.caller_of(claims, now_us, issued_at_us));
        let caller = serde_json::to_string(&caller).expect("texts and numbers");
        let put = "INSERT INTO token_ticket (fingerprint, caller, until_us) VALUES ($1, $2, $3)";
        let values = vec![Value::Bytes(fingerprint(&ticket).to_vec()), caller.as_str().into(), (until_us as i64).into()];
        let outcome = async { self.shared.host.take().await?.rows(put, values).await }.await;
        outcome.map_err(|error| unavailable(&error, "a ticket cannot be issued"))?;
        Ok((ticket, seconds(limits::TICKET_TTL_S)))
    }

    async fn redeem_ticket(&self, ticket: &str) -> Result<Arc<Caller>, TokenError> {
        if ticket.len() > limits::TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        let now_us = (self.clock)();
        // The row is locked from here to the commit: of two that redeem it at one time the second finds it redeemed.
        let take = "UPDATE token_ticket SET is_redeemed = true WHERE fingerprint = $1 AND NOT is_redeemed RETURNING caller, until_us";
        let values = vec![Value::Bytes(fingerprint(ticket).to_vec())];
        let rows = async { self.shared.host.take().await?.rows(take, values).await }.await;
        let rows = rows.map_err(|error| unavailable(&error, "a ticket cannot be redeemed"))?;
        let Some([Value::Text(caller), Value::S64(until_us)]) = rows.first().map(Vec::as_slice) else { return Err(TokenError::Invalid) };
        if *until_us as u64 <= now_us {
            return Err(TokenError::Expired);
        }
        let caller: Kept = serde_json::from_str(caller).map_err(|_| TokenError::Invalid)?;
        let caller = Arc::new(Caller::from(caller));
        self.check_revocations(&caller)?;
        Ok(caller)
    }

    async fn return_ticket(&self, ticket: &str) {
        let put = "UPDATE token_ticket SET is_redeemed = false WHERE fingerprint = $1";
        let values = vec![Value::Bytes(fingerprint(ticket).to_vec())];
        let outcome = async { self.shared.host.take().await?.rows(put, values).await }.await;
        if let Err(error) = outcome {
            tracing::warn!(%error, "a ticket that opened no socket stays redeemed");
        }
    }

    fn jwks(&self) -> serde_json::Value {
        self.ring.load().jwks((self.clock)())
    }

    async fn rotate(&self) -> Result<(), TokenError> {
        let known = self.ring.load().newest().pair.kid.clone();
        let rotated = async {
            let mut connection = self.shared.host.take().await?;
            connection.begin(READ_COMMITTED).await?;
            lock(&mut connection).await?;
            let now_us = (self.clock)();
            let ring = keys::add(&mut connection, &self.sealer, &known, self.signed.ttl_s(), now_us).await?;
            connection.commit().await?;
            Ok::<_, SqlError>(ring)
        };
        let ring = rotated.await.map_err(|error| unavailable(&error, "the signing key cannot be replaced; the old one goes on"))?;
        self.ring.store(Arc::new(ring));
        Ok(())
    }

    async fn upkeep(&self, stop: CancellationToken) {
        let work = async { tokio::join!(self.listen(), self.look_again_and_again(), self.look_over_again_and_again()) };
        stop.run_until_cancelled(work).await;
    }
}

/// What is kept of whoever a ticket was issued to.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    user_id: Uuid,
    device_id: String,
    session_id: Uuid,
    roles: Vec<String>,
    issued_at_us: u64,
    expires_at_us: u64,
}

impl Kept {
    fn of(caller: &Caller) -> Self {
        let Caller { user_id, device_id, session_id, roles, issued_at_us, expires_at_us } = caller.clone();
        Self { user_id, device_id, session_id, roles, issued_at_us, expires_at_us }
    }
}

impl From<Kept> for Caller {
    fn from(Kept { user_id, device_id, session_id, roles, issued_at_us, expires_at_us }: Kept) -> Self {
        Self { user_id, device_id, session_id, roles, issued_at_us, expires_at_us }
    }
}

const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

const STATE: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, pg_snapshot_xmin(pg_current_snapshot())::text,
    (SELECT coalesce(string_agg(kid || ' ' || signs_from_us || ' ' || access_ttl_s, ',' ORDER BY kid), '') FROM token_key)";

const NEW_REVOCATIONS: &str = "SELECT kind, id::text, at_us, until_us FROM token_revocation WHERE xid >= $1::text::xid8";

async fn lock(connection: &mut Pooled) -> Result<(), SqlError> {
    connection.rows("SELECT pg_advisory_xact_lock($1)::text", vec![SETUP_LOCK.into()]).await.map(drop)
}

fn revocation_of(row: &PgRow) -> Result<(Revocation, Revoked), SqlError> {
    let bad = |_: sqlx::Error| unreadable();
    let (kind, id) = (row.try_get::<String, _>(0).map_err(bad)?, row.try_get::<String, _>(1).map_err(bad)?);
    let (at_us, until_us) = (row.try_get::<i64, _>(2).map_err(bad)?, row.try_get::<i64, _>(3).map_err(bad)?);
    let revocation = id.parse().ok().and_then(|id| Revocation::of(&kind, id)).ok_or_else(unreadable)?;
    Ok((revocation, Revoked { at_us: at_us as u64, until_us: until_us as u64 }))
}

fn unsigned(rows: &[Vec<Value>]) -> Result<u64, SqlError> {
    match rows.first().map(Vec::as_slice) {
        Some([Value::S64(number)]) => Ok(*number as u64),
        _ => Err(unreadable()),
    }
}

fn unreadable() -> SqlError {
    SqlError::new(ErrorClass::Other, "a row of the tokens is not as it was written")
}

fn unavailable(error: &SqlError, what: &str) -> TokenError {
    tracing::warn!(%error, "{what}");
    TokenError::Unavailable
}
