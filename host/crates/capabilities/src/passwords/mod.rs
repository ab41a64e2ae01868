//! Password hashing: native, off the async threads, bounded, its workers shared fairly among those who ask.

use async_trait::async_trait;

pub mod host;
pub mod native;
#[cfg(test)]
mod suite;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Argon2id,
    Bcrypt,
    Scrypt,
}

/// How well a client is known to the service that asks: it decides who waits behind whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Stranger,
    /// A live session, or a device that signed in before.
    Known,
}

/// For whom the work is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    pub standing: Standing,
    /// Whose turns these are: a user, or an address.
    pub client: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    pub matches: bool,
    pub needs_rehash: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("all password workers are busy")]
    Busy,
    #[error("the password is too long")]
    TooLong,
    #[error("the stored hash cannot be read")]
    MalformedHash,
}

#[async_trait]
pub trait Passwords: Send + Sync {
    async fn hash(&self, password: &str, algorithm: Algorithm, requester: &Requester) -> Result<String, PasswordError>;
    /// Without a stored hash: the same work, and no match.
    async fn verify(&self, password: &str, stored: Option<&str>, requester: &Requester) -> Result<Verification, PasswordError>;
    /// HMAC-SHA-256 under the host's key, hex.
    fn fingerprint(&self, secret: &str) -> String;
}
