//! Password hashing: native, off the async threads, bounded.

use async_trait::async_trait;

#[cfg(test)]
mod contract;
pub mod host;
pub mod native;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Argon2id,
    Bcrypt,
    Scrypt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
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
    async fn hash(&self, password: &str, algorithm: Algorithm) -> Result<String, PasswordError>;
    /// Without a stored hash: the same work, and no match.
    async fn verify(&self, password: &str, stored: Option<&str>) -> Result<Verdict, PasswordError>;
    /// HMAC-SHA-256 under the host's key, hex.
    fn fingerprint(&self, secret: &str) -> String;
}
