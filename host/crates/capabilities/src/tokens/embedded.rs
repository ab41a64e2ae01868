//! Tokens signed by keys in the data folder, revocations in a small SQLite file, tickets in memory. For one host.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::in_force::Revoked;
use super::signed::{Accepted, Fingerprint, Signed, fingerprint, seconds};
use super::{AccessToken, Claims, Clock, Revocation, TokenError, TokenSettings, Tokens, system_clock};
use crate::context::Caller;
use echo_base::limits;
use keys::Keys;
use revocations::Revocations;

pub mod keys;
mod revocations;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is no signing key: {reason}", path.display())]
    BadKey { path: PathBuf, reason: String },
    #[error("the revocations cannot be opened: {0}")]
    Revocations(#[from] sqlx::Error),
}

impl OpenError {
    fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}

pub struct EmbeddedTokens {
    signed: Signed,
    clock: Clock,
    keys: Arc<Keys>,
    revocations: Revocations,
    /// Full: the subscriber that is behind is given `Resync`.
    revoked: broadcast::Sender<Revocation>,
    /// The last moment that was given to a token or a revocation; no two are the same, so each token is on one side of each revocation.
    last_moment_us: AtomicU64,
    tickets: Mutex<HashMap<Fingerprint, Ticket>>,
}

impl EmbeddedTokens {
    /// Opens `<dir>/keys/` and `<dir>/tokens.sqlite`, making what is missing.
    pub async fn open(dir: &Path, settings: TokenSettings) -> Result<Arc<Self>, OpenError> {
        Self::open_with_clock(dir, settings, system_clock()).await
    }

    pub async fn open_with_clock(dir: &Path, settings: TokenSettings, clock: Clock) -> Result<Arc<Self>, OpenError> {
        let now_us = clock();
        let keys = Keys::open(&dir.join("keys"), settings.access_ttl.as_secs(), now_us)?;
        let revocations = Revocations::open(&dir.join("tokens.sqlite"), now_us).await?;
        Ok(Arc::new(Self {
            keys: Arc::new(keys),
            last_moment_us: AtomicU64::new(revocations.in_force().latest_at_us()),
            revocations,
            revoked: broadcast::Sender::new(limits::REVOCATIONS_QUEUE_MAX),
            tickets: Mutex::default(),
            signed: Signed::new(settings),
            clock,
        }))
    }

    /// One round of `upkeep`.
    pub async fn look_over(&self) {
        let now_us = (self.clock)();
        let key_age_us = now_us.saturating_sub(self.keys.ring().active.created_at_us());
        if Duration::from_micros(key_age_us) >= self.signed.settings().rotate_every && self.rotate().await.is_ok() {
            tracing::info!(kid = self.keys.ring().active.kid(), "a new key signs the access tokens");
        }
        let keys = self.keys.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || keys.drop_ended(now_us)).await {
            tracing::error!(%error, "ended keys could not be dropped");
        }
        if let Err(error) = self.revocations.purge(now_us).await {
            tracing::error!(%error, "ended revocations could not be dropped");
        }
        self.tickets.lock().retain(|_, ticket| ticket.until_us > now_us);
    }

    /// A moment later than every one given before.
    fn next_moment_us(&self) -> u64 {
        let now_us = (self.clock)();
        let next = |last: u64| now_us.max(last + 1);
        let last = self.last_moment_us.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last)));
        next(last.expect("the update is never declined"))
    }

    fn accept(&self, token: &str) -> Result<Arc<Accepted>, TokenError> {
        let ring = self.keys.ring();
        let accepted = self.signed.check(token, |kid| ring.find(kid).map(|key| key.pair.clone()))?;
        let caller = &accepted.caller;
        if caller.expires_at_us <= (self.clock)() {
            return Err(TokenError::Expired);
        }
        self.check_revocations(caller)?;
        Ok(accepted)
    }

    fn check_revocations(&self, caller: &Caller) -> Result<(), TokenError> {
        if self.revocations.in_force().concerns(caller) { Err(TokenError::Revoked) } else { Ok(()) }
    }

    async fn revoke(&self, revocation: Revocation) -> Result<(), TokenError> {
        let at_us = self.next_moment_us();
        let longest_ttl_s = self.keys.ring().longest_ttl_s().max(limits::TICKET_TTL_S);
        let until_us = at_us + (longest_ttl_s + 1) * 1_000_000;
        self.revocations.in_force().has_room(revocation)?;
        self.revocations.in_force().insert(revocation, Revoked { at_us, until_us });
        // Nobody listening is fine.
        let _ = self.revoked.send(revocation);
        self.revocations.save(revocation, at_us, until_us).await
    }
}

#[async_trait]
impl Tokens for EmbeddedTokens {
    fn sign(&self, claims: &Claims) -> Result<AccessToken, TokenError> {
        // A refresh that crosses a logout must not bring the session back.
        if self.revocations.in_force().session_is_revoked(claims.session_id) {
            return Err(TokenError::Revoked);
        }
        self.signed.sign(&self.keys.ring().active.pair, claims, (self.clock)(), self.next_moment_us())
    }

    async fn verify(&self, token: &str) -> Result<Arc<Caller>, TokenError> {
        self.accept(token).map(|accepted| accepted.caller.clone())
    }

    fn jti(&self, token: &str) -> Result<Uuid, TokenError> {
        self.accept(token).map(|accepted| accepted.jti)
    }

    async fn revoke_session(&self, session: Uuid) -> Result<(), TokenError> {
        self.revoke(Revocation::Session(session)).await
    }

    async fn revoke_user(&self, user: Uuid) -> Result<(), TokenError> {
        self.revoke(Revocation::User(user)).await
    }

    fn revocations(&self) -> super::Revocations {
        super::Revocations::new(self.revoked.subscribe())
    }

    async fn issue_ticket(&self, claims: &Claims) -> Result<(String, u32), TokenError> {
        if self.revocations.in_force().session_is_revoked(claims.session_id) {
            return Err(TokenError::Revoked);
        }
        let now_us = (self.clock)();
        let caller = self.signed.caller_of(claims, now_us, self.next_moment_us());
        let ticket = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let mut tickets = self.tickets.lock();
        if tickets.len() >= limits::TICKETS_MAX {
            tickets.retain(|_, ticket| ticket.until_us > now_us);
            if tickets.len() >= limits::TICKETS_MAX {
                return Err(TokenError::Unavailable);
            }
        }
        let until_us = now_us + limits::TICKET_TTL_S * 1_000_000;
        tickets.insert(fingerprint(&ticket), Ticket { caller: Arc::new(caller), until_us, is_redeemed: false });
        Ok((ticket, seconds(limits::TICKET_TTL_S)))
    }

    async fn redeem_ticket(&self, ticket: &str) -> Result<Arc<Caller>, TokenError> {
        if ticket.len() > limits::TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        let caller = {
            let mut tickets = self.tickets.lock();
            let ticket = tickets.get_mut(&fingerprint(ticket)).filter(|ticket| !ticket.is_redeemed).ok_or(TokenError::Invalid)?;
            if ticket.until_us <= (self.clock)() {
                return Err(TokenError::Expired);
            }
            ticket.is_redeemed = true;
            ticket.caller.clone()
        };
        self.check_revocations(&caller)?;
        Ok(caller)
    }

    async fn return_ticket(&self, ticket: &str) {
        if let Some(ticket) = self.tickets.lock().get_mut(&fingerprint(ticket)) {
            ticket.is_redeemed = false;
        }
    }

    fn jwks(&self) -> serde_json::Value {
        self.keys.ring().jwks()
    }

    async fn rotate(&self) -> Result<(), TokenError> {
        let (keys, ttl_s, now_us) = (self.keys.clone(), self.signed.ttl_s(), (self.clock)());
        let rotated = tokio::task::spawn_blocking(move || keys.rotate(ttl_s, now_us)).await;
        match rotated {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(%error, "the signing key could not be replaced; the old one goes on");
                Err(TokenError::Unavailable)
            }
            Err(error) => {
                tracing::error!(%error, "the rotation of keys failed");
                Err(TokenError::Unavailable)
            }
        }
    }

    async fn upkeep(&self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(Duration::from_millis(limits::TOKEN_UPKEEP_INTERVAL_MS));
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            self.look_over().await;
        }
    }

    /// Closes the file of revocations.
    async fn close(&self) {
        self.revocations.close().await;
    }
}

struct Ticket {
    caller: Arc<Caller>,
    until_us: u64,
    /// Kept until its time is over, as the socket may still be refused.
    is_redeemed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::suite::{self, ManualClock, claims};
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn it_passes_the_suite() {
        let folder = tempfile::tempdir().unwrap();
        suite::suite(async |name: &str, settings, clock| {
            let tokens = EmbeddedTokens::open_with_clock(&folder.path().join(name), settings, clock).await.unwrap();
            tokens as Arc<dyn Tokens>
        })
        .await;
    }

    async fn open(folder: &Path, clock: &ManualClock) -> Arc<EmbeddedTokens> {
        EmbeddedTokens::open_with_clock(folder, TokenSettings::default(), clock.clock()).await.unwrap()
    }

    #[tokio::test]
    async fn keys_are_private_files_and_forgotten_with_their_last_token() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::start();
        let tokens = open(folder.path(), &clock).await;
        let files = || std::fs::read_dir(folder.path().join("keys")).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        tokens.rotate().await.unwrap();
        assert_eq!(files().len(), 2);
        for file in files() {
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        clock.forward(Duration::from_secs(limits::ACCESS_TOKEN_TTL_S + 1));
        tokens.look_over().await;
        assert_eq!(files().len(), 1);
        assert_eq!(tokens.jwks()["keys"].as_array().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn upkeep_rotates_when_the_time_has_come_and_ends_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::start();
        let tokens = open(folder.path(), &clock).await;
        let first = tokens.keys.ring().active.kid().to_owned();
        tokens.look_over().await;
        assert_eq!(tokens.keys.ring().active.kid(), first);
        clock.forward(TokenSettings::default().rotate_every);
        tokens.look_over().await;
        assert_ne!(tokens.keys.ring().active.kid(), first);
        let stop = CancellationToken::new();
        stop.cancel();
        tokens.upkeep(stop).await;
    }

    #[tokio::test]
    async fn a_host_that_died_while_rotating_goes_on_with_the_newer_key() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::start();
        let tokens = open(folder.path(), &clock).await;
        let old_file = folder.path().join("keys").join(format!("{}.json", tokens.keys.ring().active.kid()));
        let before_retirement = std::fs::read(&old_file).unwrap();
        let token = tokens.sign(&claims()).unwrap().token;
        clock.forward(Duration::from_secs(1));
        tokens.rotate().await.unwrap();
        let newer = tokens.keys.ring().active.kid().to_owned();
        std::fs::write(&old_file, before_retirement).unwrap();
        let tokens = open(folder.path(), &clock).await;
        assert_eq!(tokens.keys.ring().active.kid(), newer);
        assert!(tokens.verify(&token).await.is_ok());
        assert!(!String::from_utf8(std::fs::read(&old_file).unwrap()).unwrap().contains("\"retired_at_us\": null"));
    }

    #[tokio::test]
    async fn a_key_file_that_was_tampered_with_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::start();
        let tokens = open(folder.path(), &clock).await;
        let file = folder.path().join("keys").join(format!("{}.json", tokens.keys.ring().active.kid()));
        let text = std::fs::read_to_string(&file).unwrap();
        let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
        record["d"] = URL_SAFE_NO_PAD.encode([1; 32]).into();
        std::fs::write(&file, record.to_string()).unwrap();
        let refused = EmbeddedTokens::open_with_clock(folder.path(), TokenSettings::default(), clock.clock()).await;
        assert!(matches!(refused, Err(OpenError::BadKey { .. })));
    }

    #[tokio::test]
    async fn tickets_are_bounded_and_ended_ones_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::start();
        let tokens = open(folder.path(), &clock).await;
        let claims = claims();
        for _ in 0..limits::TICKETS_MAX {
            tokens.issue_ticket(&claims).await.unwrap();
        }
        assert_eq!(tokens.issue_ticket(&claims).await, Err(TokenError::Unavailable));
        clock.forward(Duration::from_secs(limits::TICKET_TTL_S));
        assert!(tokens.issue_ticket(&claims).await.is_ok());
        assert_eq!(tokens.tickets.lock().len(), 1);
    }

    #[tokio::test]
    async fn revocations_are_forgotten_when_nothing_is_left_to_revoke() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::start();
        let tokens = open(folder.path(), &clock).await;
        tokens.revoke_session(claims().session_id).await.unwrap();
        clock.forward(Duration::from_secs(limits::ACCESS_TOKEN_TTL_S));
        tokens.look_over().await;
        assert!(tokens.revocations.in_force().latest_at_us() > 0, "a token may just be left");
        clock.forward(Duration::from_secs(2));
        tokens.look_over().await;
        assert_eq!(tokens.revocations.in_force().latest_at_us(), 0);
    }
}
