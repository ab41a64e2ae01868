//! The suite that every place where rates are counted passes. Its clock stands still until it is moved.

use std::time::Duration;

use super::{Allowance, Key, Limit, MemoryRates, Strategy, Subject};

pub const ALICE: Subject = Subject::Address(1);
const BOB: Subject = Subject::User(uuid::Uuid::from_u128(2));

/// One store, and its clock.
pub trait Counted {
    async fn count(&mut self, limit: &Limit, key: Key, now_ms: u64) -> Allowance;
    /// Nothing is counted yet.
    async fn clear(&mut self);
}

#[derive(Default)]
pub struct InProcess(MemoryRates);

impl Counted for InProcess {
    async fn count(&mut self, limit: &Limit, key: Key, now_ms: u64) -> Allowance {
        self.0.count_at(limit, key, now_ms)
    }

    async fn clear(&mut self) {
        self.0 = MemoryRates::default();
    }
}

pub fn rule(strategy: Strategy, requests: u32, window_ms: u64) -> Limit {
    Limit { strategy, requests, window_ms }
}

fn of(subject: Subject) -> Key {
    Key { counter: 7, subject }
}

async fn allowed(store: &mut impl Counted, rule: &Limit, subject: Subject, times: u32, now_ms: u64) -> u32 {
    let mut allowed = 0;
    for _ in 0..times {
        allowed += u32::from(store.count(rule, of(subject), now_ms).await.is_allowed);
    }
    allowed
}

pub async fn suite(store: &mut impl Counted) {
    a_fixed_window_counts_from_the_first_request_on(store).await;
    store.clear().await;
    a_sliding_window_has_no_double_burst_at_its_border(store).await;
    store.clear().await;
    a_token_bucket_gives_a_burst_and_refills_evenly(store).await;
    who_waits_as_long_as_told_passes(store).await;
}

async fn a_fixed_window_counts_from_the_first_request_on(store: &mut impl Counted) {
    let rule = rule(Strategy::FixedWindow, 5, 1_000);
    assert_eq!(allowed(store, &rule, ALICE, 9, 500).await, 5);
    assert_eq!(allowed(store, &rule, BOB, 9, 500).await, 5, "each for himself");
    let refused = store.count(&rule, of(ALICE), 1_499).await;
    assert_eq!((refused.is_allowed, refused.remaining, refused.reset), (false, 0, Duration::from_millis(1)));
    assert_eq!(allowed(store, &rule, ALICE, 9, 1_500).await, 5);
    let other = store.count(&rule, Key { counter: 8, subject: ALICE }, 1_500).await;
    assert_eq!((other.is_allowed, other.remaining), (true, 4), "another route");
}

async fn a_sliding_window_has_no_double_burst_at_its_border(store: &mut impl Counted) {
    let rule = rule(Strategy::SlidingWindow, 10, 1_000);
    assert_eq!(allowed(store, &rule, ALICE, 20, 1).await, 10);
    assert_eq!(allowed(store, &rule, ALICE, 20, 1_001).await, 0);
    assert_eq!(allowed(store, &rule, ALICE, 20, 1_501).await, 5);
    assert_eq!(allowed(store, &rule, ALICE, 20, 9_001).await, 10);
}

async fn a_token_bucket_gives_a_burst_and_refills_evenly(store: &mut impl Counted) {
    let rule = rule(Strategy::TokenBucket, 10, 1_000);
    assert_eq!(allowed(store, &rule, ALICE, 20, 1_000).await, 10);
    let refused = store.count(&rule, of(ALICE), 1_000).await;
    assert_eq!((refused.is_allowed, refused.reset), (false, Duration::from_millis(100)));
    assert_eq!(allowed(store, &rule, ALICE, 20, 1_250).await, 2);
    assert_eq!(allowed(store, &rule, ALICE, 20, 60_000).await, 10);
}

async fn who_waits_as_long_as_told_passes(store: &mut impl Counted) {
    for strategy in [Strategy::FixedWindow, Strategy::SlidingWindow, Strategy::TokenBucket] {
        for limit in [1, 3, 10] {
            store.clear().await;
            let rule = rule(strategy, limit, 1_000);
            let mut now_ms = 12_345;
            for round in 0..20 {
                allowed(store, &rule, ALICE, limit * 2, now_ms).await;
                let refused = store.count(&rule, of(ALICE), now_ms).await;
                assert!(!refused.is_allowed, "{strategy:?}");
                now_ms += refused.reset.as_micros().div_ceil(1_000) as u64;
                let after = store.count(&rule, of(ALICE), now_ms).await;
                assert!(after.is_allowed, "{strategy:?}, limit {limit}, round {round}: waited {:?} in vain", refused.reset);
            }
        }
    }
}
