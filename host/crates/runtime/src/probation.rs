//! Watches a new version for its first minutes: if most of its calls trap or time out, the service is rolled back to the last good version.
//!
//! Only a version that was deployed over a good one is watched. So a version that was rolled back to is never left automatically, and one
//! that was rolled away from is marked and never chosen automatically.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Runtime;
use super::call::StatsView;
use super::catalogue::Generation;
use super::gate::{Decisions, SwapError};
use echo_base::limits;

impl Runtime {
    /// Checks the generations that are on probation, until `shutdown`.
    pub async fn run_probation(self: Arc<Self>, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_millis(limits::PROBATION_TICK_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            let catalogue = self.pin();
            for generation in catalogue.generations() {
                let Some(age) = generation.probation_age() else { continue };
                match verdict(&generation.stats.view(), age) {
                    Verdict::Wait => {}
                    Verdict::Passed => generation.on_probation.store(false, Ordering::Relaxed),
                    Verdict::Failed { reason } => {
                        generation.on_probation.store(false, Ordering::Relaxed);
                        self.take_back(generation, &reason).await;
                    }
                }
            }
        }
    }

    async fn take_back(&self, generation: &Generation, reason: &str) {
        let service = &generation.service;
        tracing::error!(%service, version = generation.version, reason, "a new version is taken back");
        match self.roll_back(service, "automatic-rollback", reason, &Decisions::default(), Some(generation.number())).await {
            Ok(_) => {}
            // Another activation was quicker.
            Err(SwapError::Overtaken(_)) => {}
            Err(error) => tracing::error!(%service, version = generation.version, %error, "it cannot be taken back and stays live"),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Wait,
    Passed,
    Failed { reason: String },
}

/// Enough calls, and more than half of them trapped or timed out. An error of the contract is an answer.
fn verdict(stats: &StatsView, age: Duration) -> Verdict {
    if is_failing(stats) {
        return Verdict::Failed { reason: format!("{} of its first {} calls trapped or timed out", stats.faults, stats.calls) };
    }
    if age >= Duration::from_millis(limits::PROBATION_MS) { Verdict::Passed } else { Verdict::Wait }
}

/// Also shown to the operator.
pub fn is_failing(stats: &StatsView) -> bool {
    stats.calls >= limits::PROBATION_CALLS_MIN && 2 * stats.faults > stats.calls
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(calls: u64, faults: u64, age_ms: u64, expect: &Verdict) {
        let stats = StatsView { calls, faults, ..StatsView::default() };
        assert_eq!(verdict(&stats, Duration::from_millis(age_ms)), *expect, "{calls} {faults} {age_ms}");
    }

    #[test]
    fn a_version_fails_by_most_of_its_calls_and_passes_by_its_age() {
        let (enough, long) = (limits::PROBATION_CALLS_MIN, limits::PROBATION_MS);
        check(enough - 1, enough - 1, 0, &Verdict::Wait);
        check(enough, enough / 2, 0, &Verdict::Wait);
        let reason = format!("{} of its first {enough} calls trapped or timed out", enough / 2 + 1);
        check(enough, enough / 2 + 1, 0, &Verdict::Failed { reason });
        check(0, 0, long - 1, &Verdict::Wait);
        check(0, 0, long, &Verdict::Passed);
        check(1_000, 400, long, &Verdict::Passed);
    }
}
