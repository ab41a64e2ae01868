//! Counting requests against limits: fixed window, sliding window, token bucket. In this process, or in a store that hosts share. Knows no HTTP, no sockets and no
//! manifest.
//!
//! What is counted per address counts a whole /64 of IPv6: a client may take any address in it.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

mod memory;
pub mod redis;
#[cfg(test)]
mod suite;

pub use memory::MemoryRates;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// From the first request on.
    FixedWindow,
    /// The window before counts by the part of it that is still covered.
    SlidingWindow,
    TokenBucket,
}

/// So many requests in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub strategy: Strategy,
    /// At least 1.
    pub requests: u32,
    /// At least 1.
    pub window_ms: u64,
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Address(u128),
    User(Uuid),
    Everybody,
}

impl Subject {
    pub fn of_address(address: Option<IpAddr>) -> Self {
        match address {
            Some(IpAddr::V4(v4)) => Subject::Address(u128::from(v4.to_ipv6_mapped())),
            Some(IpAddr::V6(v6)) => Subject::Address(u128::from(v6) >> 64 << 64),
            None => Subject::Address(0),
        }
    }
}

/// What is counted, for whom. `counter`: a number that is the same on every host and in every build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub counter: u64,
    pub subject: Subject,
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    pub is_allowed: bool,
    pub remaining: u32,
    /// Until all of it is there again, or, when refused, until the next request can pass.
    pub reset: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store of rates cannot be reached: {0}")]
pub struct RatesError(pub String);

/// Counters that hosts share.
#[async_trait]
pub trait Rates: Send + Sync {
    /// Counts one request, in one step for all hosts. Errors: the store does not answer within `RATE_ANSWER_MS`.
    async fn count(&self, limit: &Limit, key: Key) -> Result<Allowance, RatesError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_client() {
        let of = |text: &str| Subject::of_address(Some(text.parse().unwrap()));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
