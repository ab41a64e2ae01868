//! Rate limits: fixed window, sliding window, token bucket; counted in this process, for all edges together. Knows no HTTP and no sockets.
//!
//! What is counted per address counts a whole /64 of IPv6: a client may take any address in it.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

use echo_base::limits;
use echo_runtime::manifest::{Rate, RateStrategy, RateSubject};

const SHARDS: usize = 64;

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

/// A manifest's rate, scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub subject: RateSubject,
    strategy: RateStrategy,
    /// Requests per window.
    pub requests: u32,
    window_ms: u64,
}

impl Limit {
    pub fn new(rate: &Rate, scale: u32) -> Self {
        Self {
            subject: rate.per,
            strategy: rate.strategy,
            requests: rate.limit.saturating_mul(scale.max(1)).max(1),
            window_ms: u64::try_from(rate.window.as_millis()).unwrap_or(u64::MAX).max(1),
        }
    }

    pub fn window(&self) -> Duration {
        Duration::from_millis(self.window_ms)
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

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    pub is_allowed: bool,
    pub remaining: u32,
    /// Until all of it is there again, or, when refused, until the next request can pass.
    pub reset: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    counter: u64,
    subject: Subject,
}

/// All counters of this host, at most `RATE_KEYS_MAX`.
pub struct RateLimiter {
    started_at: Instant,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    keys_per_generation_max: usize,
}

impl Default for RateLimiter {
    fn default() -> Self {
        Self::with_keys_max(limits::RATE_KEYS_MAX)
    }
}

impl RateLimiter {
    fn with_keys_max(keys_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { started_at: Instant::now(), hasher: RandomState::new(), shards, keys_per_generation_max: (keys_max / SHARDS / 2).max(1) }
    }

    /// Counts one request. `counter` is a function's number (see `manifest::rate_counter`): whatever has the same one is counted together.
    pub fn check(&self, limit: &Limit, counter: u64, subject: Subject, at: Instant) -> Allowance {
        self.check_at(limit, counter, subject, at.saturating_duration_since(self.started_at).as_millis() as u64)
    }

    /// Counts a token that is no good. Errors: how long to wait, where this address gave too many of them.
    pub fn count_bad_token(&self, scale: u32, address: Option<IpAddr>, at: Instant) -> Result<(), Duration> {
        let (rate, counter) = &BAD_TOKENS;
        let limit = Limit::new(rate, scale);
        let allowance = self.check(&limit, *counter, limit.subject_of(None, address), at);
        if allowance.is_allowed { Ok(()) } else { Err(allowance.reset) }
    }

    /// `now_ms` never goes back by much.
    fn check_at(&self, limit: &Limit, counter: u64, subject: Subject, now_ms: u64) -> Allowance {
        let key = Key { counter, subject };
        let shard = &self.shards[self.hasher.hash_one(key) as usize % SHARDS];
        let mut shard = shard.lock();
        let counter = shard.counter(key, self.keys_per_generation_max);
        match limit.strategy {
            RateStrategy::FixedWindow => counter.fixed_window(limit, now_ms),
            RateStrategy::SlidingWindow => counter.sliding_window(limit, now_ms),
            RateStrategy::TokenBucket => counter.token_bucket(limit, now_ms),
        }
    }
}

/// Two generations: what is used moves into the young one, and when that is full the old one goes. So the counters longest unused are
/// dropped first, without a list to keep.
#[derive(Default)]
struct Shard {
    young: HashMap<Key, Counter>,
    old: HashMap<Key, Counter>,
}

impl Shard {
    fn counter(&mut self, key: Key, keys_max: usize) -> &mut Counter {
        if !self.young.contains_key(&key) {
            let counter = self.old.remove(&key).unwrap_or_default();
            if self.young.len() >= keys_max {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(key, counter);
        }
        self.young.get_mut(&key).expect("just put there")
    }
}

#[derive(Clone, Copy, Default)]
struct Counter {
    /// Windows: when the present one began, and one more, so that 0 is "never". Bucket: when it is full again, in microseconds.
    mark: u64,
    count: u32,
    count_before: u32,
}

impl Counter {
    fn fixed_window(&mut self, limit: &Limit, now_ms: u64) -> Allowance {
        if self.mark == 0 || now_ms.saturating_sub(self.mark - 1) >= limit.window_ms {
            *self = Self { mark: now_ms + 1, count: 0, count_before: 0 };
        }
        let is_allowed = self.count < limit.requests;
        self.count += u32::from(is_allowed);
        let reset_ms = limit.window_ms - now_ms.saturating_sub(self.mark - 1);
        Allowance { is_allowed, remaining: limit.requests - self.count, reset: Duration::from_millis(reset_ms) }
    }

    /// The window before counts by the part of it that the sliding window still covers.
    fn sliding_window(&mut self, limit: &Limit, now_ms: u64) -> Allowance {
        if self.mark == 0 {
            self.mark = now_ms + 1;
        }
        let windows = now_ms.saturating_sub(self.mark - 1) / limit.window_ms;
        if windows > 0 {
            let count_before = if windows == 1 { self.count } else { 0 };
            *self = Self { mark: self.mark + windows * limit.window_ms, count: 0, count_before };
        }
        let left_ms = limit.window_ms - now_ms.saturating_sub(self.mark - 1);
        let weight = |count: u32, left_ms: u64| (u128::from(count) * u128::from(left_ms)).div_ceil(u128::from(limit.window_ms)) as u32;
        let used = self.count + weight(self.count_before, left_ms);
        if used < limit.requests {
            self.count += 1;
            return Allowance {
                is_allowed: true,
                remaining: limit.requests - used - 1,
                reset: Duration::from_millis(left_ms + limit.window_ms),
            };
        }
        // Refused until enough of the window before has slid out; or, if this window alone is full, until it begins to slide out itself.
        let wait_ms = if self.count < limit.requests {
            let spare = u128::from(limit.requests - 1 - self.count);
            let covered = spare * u128::from(limit.window_ms) / u128::from(self.count_before.max(1));
            left_ms.saturating_sub(covered as u64).max(1)
        } else {
            left_ms + limit.window_ms.div_ceil(u64::from(self.count))
        };
        Allowance { is_allowed: false, remaining: 0, reset: Duration::from_millis(wait_ms) }
    }

    /// As GCRA (ITU-T I.371): one number, the time at which the bucket is full again.
    fn token_bucket(&mut self, limit: &Limit, now_ms: u64) -> Allowance {
        let (now_us, size_us) = (now_ms * 1_000, limit.window_ms.saturating_mul(1_000));
        let token_us = (size_us / u64::from(limit.requests)).max(1);
        let full_at_us = self.mark.max(now_us) + token_us;
        let is_allowed = full_at_us - now_us <= size_us;
        if is_allowed {
            self.mark = full_at_us;
        }
        let missing_us = self.mark.saturating_sub(now_us);
        let reset_us = if is_allowed { missing_us } else { full_at_us - now_us - size_us };
        let remaining = (size_us.saturating_sub(missing_us) / token_us) as u32;
        Allowance { is_allowed, remaining: remaining.min(limit.requests), reset: Duration::from_micros(reset_us) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Subject = Subject::Address(1);
    const BOB: Subject = Subject::Address(2);

    fn rule(strategy: RateStrategy, limit: u32, window_ms: u64) -> Limit {
        Limit::new(&Rate { per: RateSubject::Ip, strategy, limit, window: Duration::from_millis(window_ms) }, 1)
    }

    fn allowed(limiter: &RateLimiter, rule: &Limit, subject: Subject, times: u32, now_ms: u64) -> u32 {
        (0..times).map(|_| u32::from(limiter.check_at(rule, 7, subject, now_ms).is_allowed)).sum()
    }

    #[test]
    fn a_fixed_window_counts_from_the_first_request_on() {
        let (limiter, rule) = (RateLimiter::default(), rule(RateStrategy::FixedWindow, 5, 1_000));
        assert_eq!(allowed(&limiter, &rule, ALICE, 9, 500), 5);
        assert_eq!(allowed(&limiter, &rule, BOB, 9, 500), 5, "each for himself");
        let refused = limiter.check_at(&rule, 7, ALICE, 1_499);
        assert_eq!((refused.is_allowed, refused.remaining, refused.reset), (false, 0, Duration::from_millis(1)));
        assert_eq!(allowed(&limiter, &rule, ALICE, 9, 1_500), 5);
        assert!(limiter.check_at(&rule, 8, ALICE, 1_500).is_allowed, "another route");
    }

    #[test]
    fn a_sliding_window_has_no_double_burst_at_its_border() {
        let (limiter, rule) = (RateLimiter::default(), rule(RateStrategy::SlidingWindow, 10, 1_000));
        assert_eq!(allowed(&limiter, &rule, ALICE, 20, 0), 10);
        assert_eq!(allowed(&limiter, &rule, ALICE, 20, 1_000), 0);
        assert_eq!(allowed(&limiter, &rule, ALICE, 20, 1_500), 5);
        assert_eq!(allowed(&limiter, &rule, ALICE, 20, 9_000), 10);
    }

    #[test]
    fn a_token_bucket_gives_a_burst_and_refills_evenly() {
        let (limiter, rule) = (RateLimiter::default(), rule(RateStrategy::TokenBucket, 10, 1_000));
        assert_eq!(allowed(&limiter, &rule, ALICE, 20, 1_000), 10);
        let refused = limiter.check_at(&rule, 7, ALICE, 1_000);
        assert_eq!((refused.is_allowed, refused.reset), (false, Duration::from_millis(100)));
        assert_eq!(allowed(&limiter, &rule, ALICE, 20, 1_250), 2);
        assert_eq!(allowed(&limiter, &rule, ALICE, 20, 60_000), 10);
    }

    #[test]
    fn who_waits_as_long_as_told_passes() {
        for strategy in [RateStrategy::FixedWindow, RateStrategy::SlidingWindow, RateStrategy::TokenBucket] {
            for limit in [1, 3, 10] {
                let (limiter, rule) = (RateLimiter::default(), rule(strategy, limit, 1_000));
                let mut now_ms = 12_345;
                for round in 0..20 {
                    allowed(&limiter, &rule, ALICE, limit * 2, now_ms);
                    let refused = limiter.check_at(&rule, 7, ALICE, now_ms);
                    assert!(!refused.is_allowed, "{strategy:?}");
                    now_ms += refused.reset.as_micros().div_ceil(1_000) as u64;
                    let after = limiter.check_at(&rule, 7, ALICE, now_ms);
                    assert!(after.is_allowed, "{strategy:?}, limit {limit}, round {round}: waited {:?} in vain", refused.reset);
                }
            }
        }
    }

    #[test]
    fn the_scale_multiplies_the_limit() {
        let rate = Rate { per: RateSubject::User, strategy: RateStrategy::FixedWindow, limit: 5, window: Duration::from_secs(60) };
        let scaled = Limit::new(&rate, 1_000);
        assert_eq!((scaled.requests, scaled.window()), (5_000, Duration::from_secs(60)));
        assert_eq!(allowed(&RateLimiter::default(), &scaled, ALICE, 6_000, 0), 5_000);
    }

    #[test]
    fn a_flood_of_keys_stays_within_the_bound_and_spares_who_keeps_coming() {
        let keys_max = 6_400;
        let (limiter, rule) = (RateLimiter::with_keys_max(keys_max), rule(RateStrategy::FixedWindow, 5, 1_000_000));
        assert_eq!(allowed(&limiter, &rule, ALICE, 5, 0), 5);
        for i in 0..100_000 {
            limiter.check_at(&rule, 7, Subject::Address(i + 100), 0);
            if i % 100 == 0 {
                assert!(!limiter.check_at(&rule, 7, ALICE, 0).is_allowed, "forgotten after {i} others");
            }
        }
        let shards = limiter.shards.iter().map(|shard| shard.lock());
        let kept: usize = shards.map(|shard| shard.young.len() + shard.old.len()).sum();
        assert!(kept <= keys_max, "{kept} counters");
    }

    #[test]
    fn an_address_may_give_so_many_bad_tokens() {
        let (limiter, now) = (RateLimiter::default(), Instant::now());
        let (one, other) = (Some("192.0.2.1".parse().unwrap()), Some("192.0.2.2".parse().unwrap()));
        let taken = (0..2 * limits::BAD_TOKENS_PER_MINUTE).filter(|_| limiter.count_bad_token(1, one, now).is_ok()).count();
        assert_eq!(taken, limits::BAD_TOKENS_PER_MINUTE as usize);
        limiter.count_bad_token(1, other, now).expect("another address");
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let of = |text: &str| Subject::of_address(Some(text.parse().unwrap()));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
