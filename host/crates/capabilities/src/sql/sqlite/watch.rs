//! Looks at a running statement: in whose name it runs, how long it may, and when its thread's other work goes elsewhere.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

use echo_base::limits;

/// In whose name a statement runs: which functions and tables it may name, and how long its values may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Speaker {
    Host,
    Service,
    /// A service's statement that says RECURSIVE.
    RecursiveService,
    /// A service's migration, which was found to add.
    Migration,
}

impl Speaker {
    pub(super) fn value_bytes_max(self) -> usize {
        match self {
            Self::Host | Self::Migration => limits::SQLITE_HOST_VALUE_BYTES_MAX,
            Self::Service | Self::RecursiveService => limits::SQL_VALUE_BYTES_MAX,
        }
    }
}

/// Looks at the time while a statement runs.
pub(super) struct Watch {
    began: Instant,
    /// How often SQLite has asked, and how often before the running statement.
    pub(super) checks: AtomicU64,
    checks_before: AtomicU64,
    /// When the running statement began, is ended, and gives its thread's other work away; in microseconds since `began`.
    started_us: AtomicU64,
    deadline_us: AtomicU64,
    gives_way_us: AtomicU64,
    /// It runs in place, and is ended there when it turns out to take long; and that it was.
    is_in_place: AtomicBool,
    pub(super) was_long: AtomicBool,
    /// Nobody waits for it any more.
    pub(super) is_cancelled: AtomicBool,
    /// A `Speaker`.
    pub(super) speaker: AtomicU8,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            checks: AtomicU64::new(0),
            checks_before: AtomicU64::new(0),
            started_us: AtomicU64::new(0),
            deadline_us: AtomicU64::new(u64::MAX),
            gives_way_us: AtomicU64::new(u64::MAX),
            is_in_place: AtomicBool::new(false),
            was_long: AtomicBool::new(false),
            is_cancelled: AtomicBool::new(false),
            speaker: AtomicU8::new(Speaker::Host as u8),
        }
    }
}

impl Watch {
    pub(super) fn speaker(&self) -> Speaker {
        match self.speaker.load(Ordering::Relaxed) {
            speaker if speaker == Speaker::Host as u8 => Speaker::Host,
            speaker if speaker == Speaker::Service as u8 => Speaker::Service,
            speaker if speaker == Speaker::Migration as u8 => Speaker::Migration,
            _ => Speaker::RecursiveService,
        }
    }

    pub(super) fn begin(&self, time: Duration, is_in_place: bool) {
        let now_us = self.began.elapsed().as_micros() as u64;
        self.started_us.store(now_us, Ordering::Relaxed);
        self.deadline_us.store(now_us + time.as_micros() as u64, Ordering::Relaxed);
        self.gives_way_us.store(now_us + limits::SQLITE_GIVES_WAY_US, Ordering::Relaxed);
        self.checks_before.store(self.checks.load(Ordering::Relaxed), Ordering::Relaxed);
        self.is_in_place.store(is_in_place, Ordering::Relaxed);
        self.was_long.store(false, Ordering::Relaxed);
    }

    /// Asked by SQLite every `SQLITE_STEPS_PER_CHECK` steps, and by functions that work for long.
    pub(super) fn is_over(&self) -> bool {
        let checks = self.checks.fetch_add(1, Ordering::Relaxed) + 1;
        let now_us = self.began.elapsed().as_micros() as u64;
        if self.is_in_place.load(Ordering::Relaxed) {
            let ran_us = now_us.saturating_sub(self.started_us.load(Ordering::Relaxed));
            let asked = checks - self.checks_before.load(Ordering::Relaxed);
            if ran_us >= limits::SQLITE_IN_PLACE_US && asked >= limits::SQLITE_IN_PLACE_CHECKS || ran_us >= limits::SQLITE_IN_PLACE_US_MAX {
                self.was_long.store(true, Ordering::Relaxed);
                return true;
            }
        } else if now_us >= self.gives_way_us.load(Ordering::Relaxed) {
            self.gives_way_us.store(u64::MAX, Ordering::Relaxed);
            give_way();
        }
        now_us >= self.deadline_us.load(Ordering::Relaxed) || self.is_cancelled.load(Ordering::Relaxed)
    }
}

/// The other tasks of this thread go on elsewhere; where there are none (tests with a single thread) there is nothing to give.
pub(super) fn give_way() {
    let Ok(runtime) = Handle::try_current() else { return };
    if runtime.runtime_flavor() != RuntimeFlavor::MultiThread {
        return;
    }
    tokio::task::block_in_place(|| {
        // Who comes back before another thread has taken them over takes them back: so a task says when one runs.
        let (says, hears) = std::sync::mpsc::sync_channel(1);
        runtime.spawn(async move { says.try_send(()) });
        // Where no thread can be had, nothing is gained by waiting on.
        let _ = hears.recv_timeout(Duration::from_millis(limits::SQLITE_HANDOVER_MS));
    });
}
