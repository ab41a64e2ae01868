//! Transactions that follow each other on a file's writer share one commit, and with it one flush to the disk (group commit). The first begins
//! the outer transaction, each later one is a savepoint in it. Each is answered when the commit is on the disk, or that it failed for
//! all of them.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::sql::{ErrorClass, SqlError};
use echo_base::limits;

/// Called with the outcome of the commit, in the order of the transactions, before the writer has its next user.
pub type OnEnd = Box<dyn FnOnce(&Result<(), SqlError>) + Send>;

/// The transactions that have ended on the writer and are not committed yet.
#[derive(Default)]
pub(super) struct Group {
    /// When its first transaction began; none where no transaction is open.
    began_at: Option<Instant>,
    members: Vec<Member>,
}

/// A transaction that has ended, or a reader that has seen the uncommitted changes of those before it.
struct Member {
    on_end: Option<OnEnd>,
    answer: oneshot::Sender<Result<(), SqlError>>,
}

impl Group {
    pub(super) fn open(&mut self) {
        self.began_at.get_or_insert_with(Instant::now);
    }

    pub(super) fn is_open(&self) -> bool {
        self.began_at.is_some()
    }

    pub(super) fn is_full(&self) -> bool {
        self.members.len() >= limits::SQLITE_GROUP_TRANSACTIONS_MAX
            || self.began_at.is_some_and(|at| at.elapsed() >= Duration::from_micros(limits::SQLITE_GROUP_US))
    }

    /// Adds a member. Returns where it receives the outcome of the commit.
    pub(super) fn add(&mut self, on_end: Option<OnEnd>) -> oneshot::Receiver<Result<(), SqlError>> {
        let (answer, outcome) = oneshot::channel();
        self.members.push(Member { on_end, answer });
        outcome
    }

    /// Answers all members. The next transaction begins a new group.
    pub(super) fn end(&mut self, outcome: &Result<(), SqlError>) {
        self.began_at = None;
        for Member { on_end, answer } in self.members.drain(..) {
            if let Some(on_end) = on_end {
                on_end(outcome);
            }
            // The caller may have gone away.
            let _ = answer.send(outcome.clone());
        }
    }
}

/// SQLite had to roll back all that was open, because a statement of one of them broke off in the middle of a change.
pub(super) fn rolled_back() -> SqlError {
    SqlError {
        sqlstate: Some("40001".to_owned()),
        ..SqlError::new(ErrorClass::Serialization, "another transaction of this commit broke off: nothing was changed, try again")
    }
}
