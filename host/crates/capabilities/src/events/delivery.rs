//! What every queue makes of a handler's answer: how long it waits before it tries again, when it gives up, in which partition a key lies.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;

use super::Outcome;
use echo_base::limits;

/// The handler's answer; a panic or silence of `REQUEST_TIMEOUT_MS` is a failed try.
pub async fn outcome_of(handling: impl Future<Output = Outcome>) -> Outcome {
    let handling = AssertUnwindSafe(handling).catch_unwind();
    match tokio::time::timeout(Duration::from_millis(limits::REQUEST_TIMEOUT_MS), handling).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Outcome::Retry { after: None, reason: "the handler panicked".to_owned() },
        Err(_) => Outcome::Retry { after: None, reason: "the handler took too long".to_owned() },
    }
}

/// What the handler asked for, within bounds, else a pause that grows with the tries.
pub fn pause(after: Option<Duration>, tries: u32) -> Duration {
    let asked_max = Duration::from_millis(limits::EVENT_RETRY_ASKED_MAX_MS);
    after.map_or_else(|| pause_after(tries), |after| after.min(asked_max))
}

/// Doubling, with a quarter more or less, so that what failed together does not come back together.
fn pause_after(tries: u32) -> Duration {
    let doubled = limits::EVENT_RETRY_FIRST_MS.saturating_mul(1 << tries.saturating_sub(1).min(20));
    let pause = doubled.min(limits::EVENT_RETRY_LAST_MS);
    Duration::from_millis(pause).mul_f64(rand::random_range(0.75..1.25))
}

/// A reason that is short enough to be kept.
pub fn cut(mut reason: String) -> String {
    let mut end = limits::EVENT_REASON_BYTES_MAX.min(reason.len());
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason
}

/// FNV-1a, 32 bits: it must stay the same over restarts and versions.
pub fn hash_of(key: &str) -> u32 {
    key.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

pub fn partition_of(hash: u32) -> usize {
    (hash % limits::QUEUE_PARTITIONS) as usize
}
