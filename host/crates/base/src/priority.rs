//! Low-priority threads: work that takes long runs at a low priority of the operating system, so that the serving threads are preferred.
//! Knows nothing of what runs there.

use std::cell::Cell;

use crate::limits;

thread_local! {
    static IS_LOW: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread has stepped back.
pub fn is_low() -> bool {
    IS_LOW.get()
}

/// From now on this thread has this niceness. Where the operating system refuses that, it is preferred like all others, which is logged.
pub fn step_back(niceness: i32) {
    IS_LOW.set(true);
    if let Err(error) = set_niceness(niceness) {
        tracing::warn!(%error, niceness, "a thread for long work is preferred like all others");
    }
}

#[cfg(target_os = "linux")]
fn set_niceness(niceness: i32) -> std::io::Result<()> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: niceness,
        sched_priority: 0,
        // The slice (sched(7), since Linux 6.12): a thread that wakes with a shorter one runs at once instead of at the end of this one. No effect before 6.12.
        sched_runtime: limits::LONG_CALL_SLICE_MS * 1_000_000,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: sched_setattr(2) reads a struct of the size that the struct names, and changes only this thread (0).
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
fn set_niceness(_: i32) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}
