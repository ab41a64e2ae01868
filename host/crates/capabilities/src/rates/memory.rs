//! Counters in this process.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Allowance, Key, Limit, Strategy};
use echo_base::limits;

const SHARDS: usize = 64;

/// All counters of this host, at most `RATE_KEYS_MAX`.
pub struct MemoryRates {
    started_at: Instant,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    keys_per_generation_max: usize,
}

impl Default for MemoryRates {
    fn default() -> Self {
        Self::with_keys_max(limits::RATE_KEYS_MAX)
    }
}

impl MemoryRates {
    fn with_keys_max(keys_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { started_at: Instant::now(), hasher: RandomState::new(), shards, keys_per_generation_max: (keys_max / SHARDS / 2).max(1) }
    }

    /// Counts one request.
    pub fn count(&self, limit: &Limit, key: Key, at: Instant) -> Allowance {
        self.count_at(limit, key, at.saturating_duration_since(self.started_at).as_millis() as u64)
    }

    /// `now_ms` never goes back by much.
    pub(super) fn count_at(&self, limit: &Limit, key: Key, now_ms: u64) -> Allowance {
        let shard = &self.shards[self.hasher.hash_one(key) as usize % SHARDS];
        let mut shard = shard.lock();
        let counter = shard.counter(key, self.keys_per_generation_max);
        match limit.strategy {
            Strategy::FixedWindow => counter.fixed_window(limit, now_ms),
            Strategy::SlidingWindow => counter.sliding_window(limit, now_ms),
            Strategy::TokenBucket => counter.token_bucket(limit, now_ms),
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
    use crate::rates::Subject;
    use crate::rates::suite::{self, ALICE, rule};

    #[tokio::test]
    async fn it_passes_the_suite() {
        suite::suite(&mut suite::InProcess::default()).await;
    }

    #[test]
    fn a_flood_of_keys_stays_within_the_bound_and_spares_who_keeps_coming() {
        let keys_max = 6_400;
        let (rates, rule) = (MemoryRates::with_keys_max(keys_max), rule(Strategy::FixedWindow, 5, 1_000_000));
        let is_allowed = |subject: Subject| rates.count_at(&rule, Key { counter: 7, subject }, 0).is_allowed;
        assert_eq!((0..9).filter(|_| is_allowed(ALICE)).count(), 5);
        for i in 0..100_000 {
            is_allowed(Subject::Address(i + 100));
            if i % 100 == 0 {
                assert!(!is_allowed(ALICE), "forgotten after {i} others");
            }
        }
        let shards = rates.shards.iter().map(|shard| shard.lock());
        let kept: usize = shards.map(|shard| shard.young.len() + shard.old.len()).sum();
        assert!(kept <= keys_max, "{kept} counters");
    }
}
