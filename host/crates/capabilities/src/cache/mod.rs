//! Bytes with a time to live. Keys are already prefixed with the service's name.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub mod fallback;
pub mod host;
pub mod memory;
pub mod redis;
#[cfg(test)]
mod suite;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    #[error("the cache cannot be reached")]
    Unavailable,
    #[error("key, value or count over the bound")]
    TooLarge,
    #[error("the value is of another kind")]
    WrongKind,
}

/// May forget at any time; one value has one kind (bytes, number or set).
#[async_trait]
pub trait Cache: Send + Sync {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, CacheError>;
    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<(), CacheError>;
    async fn delete(&self, key: &str) -> Result<bool, CacheError>;
    async fn get_multi(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, CacheError>;
    async fn set_multi(&self, entries: Vec<(String, Bytes)>, ttl: Option<Duration>) -> Result<(), CacheError>;
    /// Adds (or takes away) and returns the sum; a missing key counts as 0 and gets the ttl.
    async fn add(&self, key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, CacheError>;
    async fn expire(&self, key: &str, ttl: Duration) -> Result<bool, CacheError>;
    async fn ttl(&self, key: &str) -> Result<Option<Duration>, CacheError>;
    async fn set_if_absent(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<bool, CacheError>;
    async fn compare_and_swap(&self, key: &str, expected: Option<Bytes>, value: Bytes, ttl: Option<Duration>) -> Result<bool, CacheError>;
    /// Deletes the key where it holds just these bytes.
    async fn compare_and_delete(&self, key: &str, expected: &[u8]) -> Result<bool, CacheError>;
    async fn set_add(&self, key: &str, members: &[String], ttl: Option<Duration>) -> Result<u32, CacheError>;
    async fn set_remove(&self, key: &str, members: &[String]) -> Result<u32, CacheError>;
    async fn set_members(&self, key: &str) -> Result<Vec<String>, CacheError>;
    async fn set_contains(&self, key: &str, member: &str) -> Result<bool, CacheError>;
    async fn ping(&self) -> Result<(), CacheError>;
}
