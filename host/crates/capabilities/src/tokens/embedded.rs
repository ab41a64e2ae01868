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
use jsonwebtoken::{Algorithm, Header, Validation};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{AccessToken, Claims, Clock, Revocation, TokenError, TokenSettings, Tokens, system_clock};
use crate::context::Caller;
use echo_base::limits;
use keys::Keys;
use revocations::Revocations;

mod keys;
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
    settings: TokenSettings,
    clock: Clock,
    keys: Arc<Keys>,
    /// `iss` and `aud` of every token that is accepted; `exp` is compared with our own clock.
    validation: Validation,
    revocations: Revocations,
    /// Full: the subscriber that is behind gets `Lagged` and has to look at everything it holds.
    revoked: broadcast::Sender<Revocation>,
    /// The last moment that was given to a token or a revocation; no two are the same, so each token is on one side of each revocation.
    last_moment_us: AtomicU64,
    remembered: Remembered,
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
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.validate_exp = false;
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&settings.issuer]);
        validation.set_audience(&[&settings.audience]);
        Ok(Arc::new(Self {
            keys: Arc::new(keys),
            validation,
            last_moment_us: AtomicU64::new(revocations.latest_at_us()),
            revocations,
            revoked: broadcast::Sender::new(limits::REVOCATIONS_QUEUE_MAX),
            remembered: Remembered::default(),
            tickets: Mutex::default(),
            settings,
            clock,
        }))
    }

    /// Rotates the key when its time has come, and forgets what has ended, until told to stop.
    pub async fn upkeep(&self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(Duration::from_millis(limits::TOKEN_UPKEEP_INTERVAL_MS));
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            self.look_over().await;
        }
    }

    /// One round of `upkeep`.
    pub async fn look_over(&self) {
        let now_us = (self.clock)();
        let key_age_us = now_us.saturating_sub(self.keys.ring().active.created_at_us());
        if Duration::from_micros(key_age_us) >= self.settings.rotate_every && self.rotate().await.is_ok() {
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

    /// Writes back and closes the file of revocations.
    pub async fn close(&self) {
        self.revocations.close().await;
    }

    /// A moment later than every one given before.
    fn next_moment_us(&self) -> u64 {
        let now_us = (self.clock)();
        let next = |last: u64| now_us.max(last + 1);
        let last = self.last_moment_us.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last)));
        next(last.expect("the update is never declined"))
    }

    fn accept(&self, token: &str) -> Result<Arc<Accepted>, TokenError> {
        if token.len() > limits::TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        let fingerprint = fingerprint(token);
        let accepted = match self.remembered.get(&fingerprint) {
            Some(accepted) => accepted,
            None => {
                let accepted = Arc::new(self.check_signature(token)?);
                self.remembered.put(fingerprint, accepted.clone());
                accepted
            }
        };
        let caller = &accepted.caller;
        if caller.expires_at_us <= (self.clock)() {
            return Err(TokenError::Expired);
        }
        self.check_revocations(caller)?;
        Ok(accepted)
    }

    fn check_signature(&self, token: &str) -> Result<Accepted, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        // RFC 7515 §4.1.11: who does not understand an extension that is marked critical must refuse it. We understand none.
        if header.alg != Algorithm::EdDSA || header.crit.is_some() {
            return Err(TokenError::Invalid);
        }
        let ring = self.keys.ring();
        let key = header.kid.as_deref().and_then(|kid| ring.find(kid)).ok_or(TokenError::Invalid)?;
        let decoded = jsonwebtoken::decode::<Payload>(token, &key.verifying, &self.validation).map_err(|_| TokenError::Invalid)?;
        let payload = decoded.claims;
        let caller = Caller {
            user_id: payload.user_id,
            device_id: payload.device_id,
            session_id: payload.session_id,
            roles: payload.roles,
            issued_at_us: payload.iat_us,
            expires_at_us: payload.exp.saturating_mul(1_000_000),
        };
        Ok(Accepted { caller: Arc::new(caller), jti: payload.jti })
    }

    fn check_revocations(&self, caller: &Caller) -> Result<(), TokenError> {
        let revoked = self.revocations.concern(caller.user_id, caller.session_id, caller.issued_at_us);
        if revoked { Err(TokenError::Revoked) } else { Ok(()) }
    }

    async fn revoke(&self, revocation: Revocation) -> Result<(), TokenError> {
        let at_us = self.next_moment_us();
        let longest_ttl_s = self.keys.ring().longest_ttl_s().max(limits::TICKET_TTL_S);
        let until_us = at_us + (longest_ttl_s + 1) * 1_000_000;
        self.revocations.enforce(revocation, at_us, until_us)?;
        // Nobody listening is fine.
        let _ = self.revoked.send(revocation);
        self.revocations.save(revocation, at_us, until_us).await
    }

    fn ttl_s(&self) -> u64 {
        self.settings.access_ttl.as_secs()
    }
}

#[async_trait]
impl Tokens for EmbeddedTokens {
    fn sign(&self, claims: &Claims) -> Result<AccessToken, TokenError> {
        // A refresh that crosses a logout must not bring the session back.
        if self.revocations.session_is_revoked(claims.session_id) {
            return Err(TokenError::Revoked);
        }
        let ring = self.keys.ring();
        let now_s = (self.clock)() / 1_000_000;
        let payload = Payload {
            user_id: claims.user_id,
            device_id: claims.device_id.clone(),
            session_id: claims.session_id,
            roles: claims.roles.clone(),
            jti: Uuid::now_v7(),
            iat: now_s,
            iat_us: self.next_moment_us(),
            exp: now_s + self.ttl_s(),
            iss: self.settings.issuer.clone(),
            aud: self.settings.audience.clone(),
        };
        let header = Header { kid: Some(ring.active.kid().to_owned()), ..Header::new(Algorithm::EdDSA) };
        let token = jsonwebtoken::encode(&header, &payload, &ring.active.signing).map_err(|error| {
            tracing::error!(%error, "an access token could not be signed");
            TokenError::Unavailable
        })?;
        Ok(AccessToken { token, jti: payload.jti, expires_in_s: seconds(self.ttl_s()) })
    }

    fn verify(&self, token: &str) -> Result<Arc<Caller>, TokenError> {
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

    fn revocations(&self) -> broadcast::Receiver<Revocation> {
        self.revoked.subscribe()
    }

    fn issue_ticket(&self, claims: &Claims) -> Result<(String, u32), TokenError> {
        if self.revocations.session_is_revoked(claims.session_id) {
            return Err(TokenError::Revoked);
        }
        let now_us = (self.clock)();
        let caller = Caller {
            user_id: claims.user_id,
            device_id: claims.device_id.clone(),
            session_id: claims.session_id,
            roles: claims.roles.clone(),
            issued_at_us: self.next_moment_us(),
            expires_at_us: now_us + self.ttl_s() * 1_000_000,
        };
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

    fn redeem_ticket(&self, ticket: &str) -> Result<Arc<Caller>, TokenError> {
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

    fn return_ticket(&self, ticket: &str) {
        if let Some(ticket) = self.tickets.lock().get_mut(&fingerprint(ticket)) {
            ticket.is_redeemed = false;
        }
    }

    fn jwks(&self) -> serde_json::Value {
        self.keys.ring().jwks()
    }

    async fn rotate(&self) -> Result<(), TokenError> {
        let (keys, ttl_s, now_us) = (self.keys.clone(), self.ttl_s(), (self.clock)());
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
}

/// What is signed. `iat_us` is finer than `iat`, so that a token issued in the second of a revocation is on the right side of it.
#[derive(Serialize, Deserialize)]
struct Payload {
    user_id: Uuid,
    device_id: String,
    session_id: Uuid,
    roles: Vec<String>,
    jti: Uuid,
    iat: u64,
    iat_us: u64,
    exp: u64,
    iss: String,
    aud: String,
}

struct Accepted {
    caller: Arc<Caller>,
    jti: Uuid,
}

struct Ticket {
    caller: Arc<Caller>,
    until_us: u64,
    /// Kept until its time is over, as the socket may still be refused.
    is_redeemed: bool,
}

/// SHA-256 of a token or ticket: memory that leaks gives nobody a working one, and it is a tenth of the size.
type Fingerprint = [u8; 32];

fn fingerprint(token: &str) -> Fingerprint {
    Sha256::digest(token).into()
}

fn seconds(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Tokens whose signature was found good. Two generations: when the young one is full it becomes the old one, and what nobody asked for
/// in the meantime is forgotten.
#[derive(Default)]
struct Remembered {
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Fingerprint, Arc<Accepted>>,
    old: HashMap<Fingerprint, Arc<Accepted>>,
}

impl Remembered {
    fn get(&self, fingerprint: &Fingerprint) -> Option<Arc<Accepted>> {
        let mut generations = self.generations.lock();
        if let Some(accepted) = generations.young.get(fingerprint) {
            return Some(accepted.clone());
        }
        let accepted = generations.old.remove(fingerprint)?;
        generations.put(*fingerprint, accepted.clone());
        Some(accepted)
    }

    fn put(&self, fingerprint: Fingerprint, accepted: Arc<Accepted>) {
        self.generations.lock().put(fingerprint, accepted);
    }
}

impl Generations {
    fn put(&mut self, fingerprint: Fingerprint, accepted: Arc<Accepted>) {
        if self.young.len() >= limits::TOKEN_MEMORY_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(fingerprint, accepted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::contract::{self, ManualClock, claims};
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn it_passes_the_suite() {
        let folder = tempfile::tempdir().unwrap();
        contract::suite(async |name: &str, settings, clock| {
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
        assert!(tokens.verify(&token).is_ok());
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
    async fn a_signature_is_checked_once_and_the_memory_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = open(folder.path(), &ManualClock::start()).await;
        let token = tokens.sign(&claims()).unwrap().token;
        let (first, second) = (tokens.verify(&token).unwrap(), tokens.verify(&token).unwrap());
        assert!(Arc::ptr_eq(&first, &second), "the second time it comes from memory");
        let accepted = tokens.accept(&token).unwrap();
        for n in 0..limits::TOKEN_MEMORY_MAX as u64 * 2 {
            let mut other = [0; 32];
            other[..8].copy_from_slice(&n.to_le_bytes());
            tokens.remembered.put(other, accepted.clone());
        }
        let generations = tokens.remembered.generations.lock();
        assert!(generations.young.len() + generations.old.len() <= limits::TOKEN_MEMORY_MAX);
    }

    #[tokio::test]
    async fn tickets_are_bounded_and_ended_ones_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::start();
        let tokens = open(folder.path(), &clock).await;
        let claims = claims();
        for _ in 0..limits::TICKETS_MAX {
            tokens.issue_ticket(&claims).unwrap();
        }
        assert_eq!(tokens.issue_ticket(&claims), Err(TokenError::Unavailable));
        clock.forward(Duration::from_secs(limits::TICKET_TTL_S));
        assert!(tokens.issue_ticket(&claims).is_ok());
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
        assert!(tokens.revocations.latest_at_us() > 0, "a token may just be left");
        clock.forward(Duration::from_secs(2));
        tokens.look_over().await;
        assert_eq!(tokens.revocations.latest_at_us(), 0);
    }
}
