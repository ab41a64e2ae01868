//! Limits how many transactions of a service run concurrently. Those that conflict fail and are retried, and where many write the same row, each commit makes
//! the others fail. So a conflict halves the limit, down to one, and successes raise it again (additive increase, multiplicative
//! decrease, as TCP's congestion window, RFC 5681).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::sql::{ErrorClass, SqlError};
use echo_base::limits;

/// How much the limit rises after as many commits as it allows at once. Little, as a transaction is retried only a few times.
const INCREASE: f64 = 0.125;

pub struct Admission {
    state: Mutex<State>,
    most: f64,
}

struct State {
    running: usize,
    limit: f64,
    /// First come, first served.
    waiting: VecDeque<oneshot::Sender<Admitted>>,
}

/// A transaction that may run; dropping it ends it.
pub struct Admitted {
    admission: Arc<Admission>,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Rolled back, or failed without a conflict: says nothing about the limit.
    Other,
    Committed,
    Collided,
}

impl Admission {
    pub fn new(most: usize) -> Arc<Self> {
        let most = most.max(1) as f64;
        Arc::new(Self { state: Mutex::new(State { running: 0, limit: most, waiting: VecDeque::new() }), most })
    }

    /// Waits for its turn. Errors: `Timeout` after `SQL_TIMEOUT_MS`.
    pub async fn admit(self: &Arc<Self>) -> Result<Admitted, SqlError> {
        let turn = {
            let mut state = self.state.lock();
            if state.waiting.is_empty() && (state.running as f64) < state.limit.floor() {
                state.running += 1;
                return Ok(self.admitted());
            }
            let (turn, waits) = oneshot::channel();
            state.waiting.push_back(turn);
            waits
        };
        match tokio::time::timeout(Duration::from_millis(limits::SQL_TIMEOUT_MS), turn).await {
            Ok(Ok(admitted)) => Ok(admitted),
            _ => Err(SqlError::new(ErrorClass::Timeout, "the database has too many transactions to run")),
        }
    }

    fn admitted(self: &Arc<Self>) -> Admitted {
        Admitted { admission: self.clone(), outcome: Outcome::Other }
    }

    fn end(self: &Arc<Self>, outcome: Outcome) {
        let mut turns = Vec::new();
        {
            let mut state = self.state.lock();
            state.running -= 1;
            match outcome {
                Outcome::Committed => state.limit = (state.limit + INCREASE / state.limit).min(self.most),
                Outcome::Collided => state.limit = (state.limit / 2.0).max(1.0),
                Outcome::Other => {}
            }
            while (state.running as f64) < state.limit.floor()
                && let Some(turn) = state.waiting.pop_front()
            {
                if !turn.is_closed() {
                    state.running += 1;
                    turns.push(turn);
                }
            }
        }
        for turn in turns {
            // Where it waits no more, dropping what was sent ends it.
            drop(turn.send(self.admitted()));
        }
    }
}

impl Admitted {
    pub fn note(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let admission = self.admission.clone();
        admission.end(self.outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use futures_util::FutureExt;

    #[tokio::test]
    async fn collisions_lead_to_one_after_another_and_commits_back() {
        let admission = Admission::new(8);
        let mut running: Vec<Admitted> = Vec::new();
        for _ in 0..8 {
            running.push(admission.admit().now_or_never().expect("there is room").expect("admitted"));
        }
        for mut one in running.drain(..) {
            one.note(Outcome::Collided);
        }
        let mut first = admission.admit().now_or_never().expect("there is room").expect("admitted");
        let mut second = Box::pin(admission.admit());
        assert!((&mut second).now_or_never().is_none(), "one after another");
        first.note(Outcome::Committed);
        drop(first);
        drop(second.await.expect("its turn"));
        for _ in 0..1_000 {
            let mut one = admission.admit().now_or_never().expect("there is room").expect("admitted");
            one.note(Outcome::Committed);
        }
        for _ in 0..8 {
            running.push(admission.admit().now_or_never().expect("there is room again").expect("admitted"));
        }
    }

    #[tokio::test]
    async fn those_that_gave_up_take_no_turn() {
        let admission = Admission::new(1);
        let first = admission.admit().await.expect("admitted");
        let mut gone = Box::pin(admission.admit());
        assert!((&mut gone).now_or_never().is_none());
        drop(gone);
        drop(first);
        assert!(admission.admit().now_or_never().is_some());
    }
}
