//! Rate limits of the manifests and of the host, counted once for all edges; over all hosts where they share a store, and in this process where they do not, or
//! while the store is away. Knows no HTTP and no sockets.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use uuid::Uuid;

use echo_base::limits;
use echo_capabilities::rates::{self, Key, MemoryRates, Rates, Strategy};
use echo_runtime::manifest::{Rate, RateStrategy, RateSubject};

pub use echo_capabilities::rates::{Allowance, Subject};

/// A manifest's rate, scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub subject: RateSubject,
    counted: rates::Limit,
}

impl Limit {
    pub fn new(rate: &Rate, scale: u32) -> Self {
        let strategy = match rate.strategy {
            RateStrategy::FixedWindow => Strategy::FixedWindow,
            RateStrategy::SlidingWindow => Strategy::SlidingWindow,
            RateStrategy::TokenBucket => Strategy::TokenBucket,
        };
        let requests = rate.limit.saturating_mul(scale.max(1)).max(1);
        let window_ms = u64::try_from(rate.window.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { subject: rate.per, counted: rates::Limit { strategy, requests, window_ms } }
    }

    /// Per window.
    pub fn requests(&self) -> u32 {
        self.counted.requests
    }

    pub fn window(&self) -> Duration {
        Duration::from_millis(self.counted.window_ms)
    }

    /// Whose requests this limit counts together: without a user, a limit per user counts per address.
    pub fn subject_of(&self, user: Option<Uuid>, address: Option<IpAddr>) -> Subject {
        match (self.subject, user) {
            (RateSubject::Route, _) => Subject::Everybody,
            (RateSubject::User, Some(user)) => Subject::User(user),
            (RateSubject::User | RateSubject::Ip, _) => Subject::of_address(address),
        }
    }
}

/// Tokens that are no good, of one address on all edges. Its number is that of no function, which are hashes.
const BAD_TOKENS: (Rate, u64) = (Rate::per_minute(RateSubject::Ip, limits::BAD_TOKENS_PER_MINUTE), 6);

/// All counters of this host, and the way to those that it shares.
#[derive(Default)]
pub struct RateLimiter {
    here: MemoryRates,
    shared: Option<Shared>,
}

struct Shared {
    rates: Arc<dyn Rates>,
    opened_at: Instant,
    /// It did not answer: until then nobody asks, in milliseconds since `opened_at`.
    away_until_ms: AtomicU64,
}

impl RateLimiter {
    pub fn shared(rates: Arc<dyn Rates>) -> Self {
        let shared = Shared { rates, opened_at: Instant::now(), away_until_ms: AtomicU64::new(0) };
        Self { here: MemoryRates::default(), shared: Some(shared) }
    }

    /// Counts one request, over all hosts that share a store. `counter` is a function's number (see `manifest::rate_counter`): whatever has the same one is
    /// counted together. At most one question to the store; without one there is nothing to wait for.
    pub async fn check(&self, limit: &Limit, counter: u64, subject: Subject, at: Instant) -> Allowance {
        if let Some(shared) = &self.shared
            && let Some(allowance) = shared.count(limit, Key { counter, subject }).await
        {
            return allowance;
        }
        self.check_here(limit, counter, subject, at)
    }

    /// As `check`, on this host alone: for what protects the host and not what stands behind it.
    pub fn check_here(&self, limit: &Limit, counter: u64, subject: Subject, at: Instant) -> Allowance {
        self.here.count(&limit.counted, Key { counter, subject }, at)
    }

    /// Counts a token that is no good. Errors: how long to wait, where this address gave too many of them.
    pub async fn count_bad_token(&self, scale: u32, address: Option<IpAddr>, at: Instant) -> Result<(), Duration> {
        let (rate, counter) = &BAD_TOKENS;
        let limit = Limit::new(rate, scale);
        let allowance = self.check(&limit, *counter, limit.subject_of(None, address), at).await;
        if allowance.is_allowed { Ok(()) } else { Err(allowance.reset) }
    }
}

impl Shared {
    /// None while the store is away: one request finds that out, and one more each `RATES_AWAY_MS`; the others do not wait for it.
    async fn count(&self, limit: &Limit, key: Key) -> Option<Allowance> {
        let now_ms = self.opened_at.elapsed().as_millis() as u64;
        let until_ms = self.away_until_ms.load(Ordering::Relaxed);
        let again_ms = now_ms + limits::RATES_AWAY_MS;
        if until_ms > 0 {
            let is_mine =
                now_ms >= until_ms && self.away_until_ms.compare_exchange(until_ms, again_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            if !is_mine {
                return None;
            }
        }
        match self.rates.count(&limit.counted, key).await {
            Ok(allowance) => {
                if until_ms > 0 {
                    self.away_until_ms.store(0, Ordering::Relaxed);
                    tracing::info!("rates are counted over all hosts again");
                }
                Some(allowance)
            }
            Err(error) => {
                if self.away_until_ms.swap(again_ms, Ordering::Relaxed) == 0 {
                    tracing::warn!(%error, "each host counts rates by itself for now");
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use async_trait::async_trait;
    use echo_capabilities::rates::RatesError;

    use super::*;

    const ALICE: Subject = Subject::Address(1);

    fn five_a_minute(scale: u32) -> Limit {
        let rate = Rate { per: RateSubject::User, strategy: RateStrategy::FixedWindow, limit: 5, window: Duration::from_secs(60) };
        Limit::new(&rate, scale)
    }

    /// One store for two hosts, that can be away.
    #[derive(Default)]
    struct FakeRates {
        counted: MemoryRates,
        is_away: AtomicBool,
        asked: AtomicU64,
    }

    #[async_trait]
    impl Rates for FakeRates {
        async fn count(&self, limit: &rates::Limit, key: Key) -> Result<Allowance, RatesError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            match self.is_away.load(Ordering::SeqCst) {
                true => Err(RatesError("away".to_owned())),
                false => Ok(self.counted.count(limit, key, Instant::now())),
            }
        }
    }

    async fn allowed(limiter: &RateLimiter, limit: &Limit, times: u32) -> u32 {
        let mut allowed = 0;
        for _ in 0..times {
            allowed += u32::from(limiter.check(limit, 7, ALICE, Instant::now()).await.is_allowed);
        }
        allowed
    }

    #[tokio::test]
    async fn the_scale_multiplies_the_limit() {
        let scaled = five_a_minute(1_000);
        assert_eq!((scaled.requests(), scaled.window()), (5_000, Duration::from_secs(60)));
        assert_eq!(allowed(&RateLimiter::default(), &scaled, 6_000).await, 5_000);
    }

    #[tokio::test]
    async fn an_address_may_give_so_many_bad_tokens() {
        let (limiter, now) = (RateLimiter::default(), Instant::now());
        let (one, other) = (Some("192.0.2.1".parse().unwrap()), Some("192.0.2.2".parse().unwrap()));
        let mut taken = 0;
        for _ in 0..2 * limits::BAD_TOKENS_PER_MINUTE {
            taken += u32::from(limiter.count_bad_token(1, one, now).await.is_ok());
        }
        assert_eq!(taken, limits::BAD_TOKENS_PER_MINUTE);
        limiter.count_bad_token(1, other, now).await.expect("another address");
    }

    #[tokio::test]
    async fn hosts_that_share_a_store_let_through_as_many_as_one_would() {
        let store = Arc::new(FakeRates::default());
        let [a, b] = [RateLimiter::shared(store.clone()), RateLimiter::shared(store.clone())];
        let limit = five_a_minute(1);
        assert_eq!(allowed(&a, &limit, 3).await, 3);
        assert_eq!(allowed(&b, &limit, 3).await, 2);
        assert_eq!(store.asked.load(Ordering::SeqCst), 6, "once for each request");
        assert!(a.check_here(&limit, 7, ALICE, Instant::now()).is_allowed, "what protects the host alone is counted there");
        assert_eq!(store.asked.load(Ordering::SeqCst), 6);
    }

    #[tokio::test]
    async fn while_the_store_is_away_each_host_has_its_limit_and_hardly_asks() {
        let store = Arc::new(FakeRates::default());
        let host = RateLimiter::shared(store.clone());
        let limit = five_a_minute(1);
        store.is_away.store(true, Ordering::SeqCst);
        assert_eq!(allowed(&host, &limit, 1_000).await, 5);
        assert!(store.asked.load(Ordering::SeqCst) < 10, "{:?} questions", store.asked);
        store.is_away.store(false, Ordering::SeqCst);
        let began = Instant::now();
        while !host.check(&limit, 7, ALICE, Instant::now()).await.is_allowed {
            assert!(began.elapsed() < Duration::from_millis(20 * limits::RATES_AWAY_MS), "it was not found again");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
