//! Interrupting SQLite: the state behind the progress handler of one connection. It says on whose behalf the running statement runs, when it must end,
//! and when the thread's other tasks should move to another thread.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

use echo_base::limits;

/// On whose behalf a statement runs. It decides which functions and tables it may use, and how long its values may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StatementOwner {
    Host,
    Service,
    /// A service's statement that says RECURSIVE.
    RecursiveService,
    /// A service's migration that passed the check for additive changes.
    Migration,
}

impl StatementOwner {
    pub(super) fn value_bytes_max(self) -> usize {
        match self {
            Self::Host | Self::Migration => limits::SQLITE_HOST_VALUE_BYTES_MAX,
            Self::Service | Self::RecursiveService => limits::SQL_VALUE_BYTES_MAX,
        }
    }
}

/// Shared by a connection, its progress handler and whoever cancels the running statement.
pub(super) struct Progress {
    began: Instant,
    /// Calls of the progress handler, and how many there were when the running statement began.
    pub(super) checks: AtomicU64,
    checks_before: AtomicU64,
    /// When the running statement began, when it must end, and when the thread's other tasks are to move; in microseconds since `began`.
    started_us: AtomicU64,
    deadline_us: AtomicU64,
    hand_over_us: AtomicU64,
    /// It runs in place, where it is interrupted when it takes long (to run again on a worker thread); `was_long` says that this happened.
    is_in_place: AtomicBool,
    pub(super) was_long: AtomicBool,
    /// Its caller has gone away.
    pub(super) is_cancelled: AtomicBool,
    /// A `StatementOwner`, as its number.
    pub(super) owner: AtomicU8,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            checks: AtomicU64::new(0),
            checks_before: AtomicU64::new(0),
            started_us: AtomicU64::new(0),
            deadline_us: AtomicU64::new(u64::MAX),
            hand_over_us: AtomicU64::new(u64::MAX),
            is_in_place: AtomicBool::new(false),
            was_long: AtomicBool::new(false),
            is_cancelled: AtomicBool::new(false),
            owner: AtomicU8::new(StatementOwner::Host as u8),
        }
    }
}

impl Progress {
    pub(super) fn owner(&self) -> StatementOwner {
        match self.owner.load(Ordering::Relaxed) {
            owner if owner == StatementOwner::Host as u8 => StatementOwner::Host,
            owner if owner == StatementOwner::Service as u8 => StatementOwner::Service,
            owner if owner == StatementOwner::Migration as u8 => StatementOwner::Migration,
            _ => StatementOwner::RecursiveService,
        }
    }

    pub(super) fn begin(&self, time: Duration, is_in_place: bool) {
        let now_us = self.began.elapsed().as_micros() as u64;
        self.started_us.store(now_us, Ordering::Relaxed);
        self.deadline_us.store(now_us + time.as_micros() as u64, Ordering::Relaxed);
        self.hand_over_us.store(now_us + limits::SQLITE_TASKS_GIVEN_AFTER_US, Ordering::Relaxed);
        self.checks_before.store(self.checks.load(Ordering::Relaxed), Ordering::Relaxed);
        self.is_in_place.store(is_in_place, Ordering::Relaxed);
        self.was_long.store(false, Ordering::Relaxed);
    }

    /// Whether to interrupt the running statement. Called by SQLite every `SQLITE_STEPS_PER_CHECK` steps, and by functions that may work for long.
    pub(super) fn must_end(&self) -> bool {
        let checks = self.checks.fetch_add(1, Ordering::Relaxed) + 1;
        let now_us = self.began.elapsed().as_micros() as u64;
        if self.is_in_place.load(Ordering::Relaxed) {
            let ran_us = now_us.saturating_sub(self.started_us.load(Ordering::Relaxed));
            let own_checks = checks - self.checks_before.load(Ordering::Relaxed);
            if ran_us >= limits::SQLITE_IN_PLACE_US && own_checks >= limits::SQLITE_IN_PLACE_CHECKS
                || ran_us >= limits::SQLITE_IN_PLACE_US_MAX
            {
                self.was_long.store(true, Ordering::Relaxed);
                return true;
            }
        } else if now_us >= self.hand_over_us.load(Ordering::Relaxed) {
            self.hand_over_us.store(u64::MAX, Ordering::Relaxed);
            hand_over_tasks();
        }
        now_us >= self.deadline_us.load(Ordering::Relaxed) || self.is_cancelled.load(Ordering::Relaxed)
    }
}

/// Lets another thread of the runtime take over the tasks of this one, while the statement goes on here. Does nothing on a runtime with one thread.
pub(super) fn hand_over_tasks() {
    let Ok(runtime) = Handle::try_current() else { return };
    if runtime.runtime_flavor() != RuntimeFlavor::MultiThread {
        return;
    }
    tokio::task::block_in_place(|| {
        // If the statement ended before another worker has stolen this worker's tasks, they would stay here. So wait until a task runs elsewhere;
        // without a free thread, only for this time.
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        runtime.spawn(async move { sender.try_send(()) });
        let _ = receiver.recv_timeout(Duration::from_millis(limits::SQLITE_TASKS_GIVEN_WAIT_MS));
    });
}
