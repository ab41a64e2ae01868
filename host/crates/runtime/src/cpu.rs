//! CPU time of a thread, and of a guest in one call.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::CallHook;

/// Processor time of this thread, without the time it waited for a processor. Asks the kernel.
pub fn of_this_thread() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32)
}

/// CPU time of the guest in one call from its second tick on: from entering its code to leaving it, without the host's work and without waiting for
/// other tasks. Most calls end before and are not measured: reading a clock at each crossing was 4 % of the host's time.
#[derive(Default)]
pub struct CpuMeter {
    used: Duration,
    limit: Duration,
    /// The thread's time when it entered the guest's code; none outside it, and while the guest is not measured.
    entered: Option<Duration>,
    was_found: bool,
    is_measured: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Find {
    /// Most calls see no tick, and hardly any sees two.
    First,
    Again,
    /// The guest's CPU time for the call.
    UsedUp,
}

impl CpuMeter {
    /// A call begins.
    pub fn begin(&mut self, limit: Duration) {
        *self = Self { limit, ..Self::default() };
    }

    /// A tick interrupted the guest, which has left its code as for any call of the host.
    pub fn found(&mut self) -> Find {
        if self.used > self.limit {
            return Find::UsedUp;
        }
        if !self.was_found {
            self.was_found = true;
            return Find::First;
        }
        // Up to here it used no more than two ticks.
        self.is_measured = true;
        Find::Again
    }

    /// The guest's code is entered or left.
    pub fn crosses(&mut self, hook: CallHook) {
        match hook {
            CallHook::CallingWasm | CallHook::ReturningFromHost if self.is_measured => self.entered = Some(of_this_thread()),
            CallHook::CallingWasm | CallHook::ReturningFromHost => {}
            CallHook::ReturningFromWasm | CallHook::CallingHost => {
                if let Some(entered) = self.entered.take() {
                    self.used += of_this_thread().saturating_sub(entered);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    /// Uses a little more than the limit.
    fn work() {
        let begin = of_this_thread();
        while of_this_thread() - begin <= LIMIT {
            std::hint::spin_loop();
        }
    }

    fn find(meter: &mut CpuMeter) -> Find {
        meter.crosses(CallHook::CallingHost);
        let outcome = meter.found();
        meter.crosses(CallHook::ReturningFromHost);
        outcome
    }

    #[test]
    fn the_guests_time_is_measured_from_the_second_find_on() {
        let mut meter = CpuMeter::default();
        meter.begin(LIMIT);
        meter.crosses(CallHook::CallingWasm);
        for found in [Find::First, Find::Again] {
            work();
            assert_eq!(find(&mut meter), found, "not measured yet");
        }
        work();
        assert_eq!(find(&mut meter), Find::UsedUp);
        meter.begin(LIMIT);
        assert_eq!(find(&mut meter), Find::First, "another call begins anew");
    }

    #[test]
    fn the_hosts_time_is_not_the_guests() {
        let mut meter = CpuMeter::default();
        meter.begin(LIMIT);
        meter.crosses(CallHook::CallingWasm);
        for found in [Find::First, Find::Again, Find::Again] {
            assert_eq!(find(&mut meter), found);
        }
        meter.crosses(CallHook::CallingHost);
        work();
        meter.crosses(CallHook::ReturningFromHost);
        assert_eq!(find(&mut meter), Find::Again);
        // Nor is a wait of the thread.
        std::thread::sleep(2 * LIMIT);
        assert_eq!(find(&mut meter), Find::Again);
    }
}
