//! Access tokens: EdDSA (RFC 8037) JWTs, JWKS, key rotation, revocation, socket tickets. And the signatures of other issuers' ID Tokens.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::context::Caller;
use echo_base::clock::now_us;
use echo_base::limits;

pub mod embedded;
pub mod host;
mod id_token;
mod in_force;
mod master_key;
pub mod postgres;
mod signed;
#[cfg(test)]
mod suite;

pub use master_key::MasterKey;

/// What tokens say of their origin and how long they and their keys live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    pub issuer: String,
    pub audience: String,
    /// Whole seconds.
    pub access_ttl: Duration,
    pub rotate_every: Duration,
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self {
            issuer: "echo".to_owned(),
            audience: "echo".to_owned(),
            access_ttl: Duration::from_secs(limits::ACCESS_TOKEN_TTL_S),
            rotate_every: Duration::from_secs(limits::TOKEN_KEY_ROTATION_S),
        }
    }
}

/// Tells the time in microseconds since 1970; given from outside so that tests need not wait.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

pub fn system_clock() -> Clock {
    Arc::new(now_us)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    pub user_id: Uuid,
    pub device_id: String,
    pub session_id: Uuid,
    pub roles: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct AccessToken {
    pub token: String,
    pub jti: Uuid,
    pub expires_in_s: u32,
}

/// Why a token is not accepted; `code` is what a client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("not an access token of this service")]
    Invalid,
    #[error("the access token has expired")]
    Expired,
    #[error("the access token was revoked")]
    Revoked,
    #[error("tokens cannot be checked now")]
    Unavailable,
}

impl TokenError {
    /// Stable, for clients.
    pub fn code(self) -> &'static str {
        match self {
            TokenError::Invalid => "token_invalid",
            TokenError::Expired => "token_expired",
            TokenError::Revoked => "token_revoked",
            TokenError::Unavailable => "tokens_unavailable",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Revocation {
    Session(Uuid),
    User(Uuid),
}

impl Revocation {
    /// As it is kept.
    fn kind(self) -> &'static str {
        match self {
            Revocation::Session(_) => "session",
            Revocation::User(_) => "user",
        }
    }

    fn id(self) -> Uuid {
        match self {
            Revocation::Session(id) | Revocation::User(id) => id,
        }
    }

    fn of(kind: &str, id: Uuid) -> Option<Self> {
        match kind {
            "session" => Some(Revocation::Session(id)),
            "user" => Some(Revocation::User(id)),
            _ => None,
        }
    }
}

/// What a subscriber to revocations is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationEvent {
    Revoked(Revocation),
    /// Some were missed: nothing that was let in before this is known to be good still.
    Resync,
}

/// Revocations from the moment of the subscription on, those of other hosts too. A subscriber that falls behind by `REVOCATIONS_QUEUE_MAX` is given `Resync`.
pub struct Revocations(broadcast::Receiver<Revocation>);

impl Revocations {
    pub fn new(receiver: broadcast::Receiver<Revocation>) -> Self {
        Self(receiver)
    }

    /// None when there will be no more.
    pub async fn next(&mut self) -> Option<RevocationEvent> {
        match self.0.recv().await {
            Ok(revocation) => Some(RevocationEvent::Revoked(revocation)),
            Err(RecvError::Lagged(_)) => Some(RevocationEvent::Resync),
            Err(RecvError::Closed) => None,
        }
    }

    /// None when there is none just now.
    pub fn try_next(&mut self) -> Option<RevocationEvent> {
        match self.0.try_recv() {
            Ok(revocation) => Some(RevocationEvent::Revoked(revocation)),
            Err(TryRecvError::Lagged(_)) => Some(RevocationEvent::Resync),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

#[async_trait]
pub trait Tokens: Send + Sync {
    fn sign(&self, claims: &Claims) -> Result<AccessToken, TokenError>;
    /// Signature, `kid`, `alg`, `iss`, `aud`, `exp`, revocation. The same token again is answered from memory, revocation checked anew. It waits only where
    /// the token names a key that is not known here yet.
    async fn verify(&self, token: &str) -> Result<Arc<Caller>, TokenError>;
    /// The jti of a token that `verify` has accepted.
    fn jti(&self, token: &str) -> Result<Uuid, TokenError>;
    /// Durable before it returns.
    async fn revoke_session(&self, session: Uuid) -> Result<(), TokenError>;
    /// Every token of the user issued up to now.
    async fn revoke_user(&self, user: Uuid) -> Result<(), TokenError>;
    fn revocations(&self) -> Revocations;
    /// A single-use ticket for one socket, and the seconds that it is good for. Errors: `Revoked`; `Unavailable`.
    async fn issue_ticket(&self, claims: &Claims) -> Result<(String, u32), TokenError>;
    /// Who the ticket was issued to; a second time it is `Invalid`.
    async fn redeem_ticket(&self, ticket: &str) -> Result<Arc<Caller>, TokenError>;
    /// The redeemed ticket opened no socket: it may be redeemed again for what is left of its time. If that cannot be noted, it stays redeemed.
    async fn return_ticket(&self, ticket: &str);
    /// The JWKS document (RFC 7517): keys that sign, those still accepted, and those that will sign soon.
    fn jwks(&self) -> serde_json::Value;
    /// Makes a new signing key. It signs after at most `TOKEN_KEY_PUBLISHED_MS`; the one before stays accepted until its last token ends.
    async fn rotate(&self) -> Result<(), TokenError>;
    /// Replaces the key when its time has come, forgets what has ended and, where hosts share their tokens, learns of what the others do; until `stop`.
    async fn upkeep(&self, stop: CancellationToken);
    /// Writes back what is to be kept. Nothing is asked of it afterwards.
    async fn close(&self) {}
}
