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
    was_ticked: bool,
    is_measured: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Tick {
    /// Most calls see no tick, and hardly any sees two.
    First,
    Later,
    /// The guest's CPU time for the call.
    BudgetUsed,
}

impl CpuMeter {
    /// A call begins.
    pub fn begin(&mut self, limit: Duration) {
        *self = Self { limit, ..Self::default() };
    }

    /// A tick interrupted the guest, which has left its code as for any call of the host.
    pub fn on_tick(&mut self) -> Tick {
        if self.used > self.limit {
            return Tick::BudgetUsed;
        }
        if !self.was_ticked {
            self.was_ticked = true;
            return Tick::First;
        }
        // Up to here it used no more than two ticks.
        self.is_measured = true;
        Tick::Later
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

    fn find(meter: &mut CpuMeter) -> Tick {
        meter.crosses(CallHook::CallingHost);
        let outcome = meter.on_tick();
        meter.crosses(CallHook::ReturningFromHost);
        outcome
    }

    #[test]
    fn the_guests_time_is_measured_from_the_second_find_on() {
        let mut meter = CpuMeter::default();
        meter.begin(LIMIT);
        meter.crosses(CallHook::CallingWasm);
        for found in [Tick::First, Tick::Later] {
            work();
            assert_eq!(find(&mut meter), found, "not measured yet");
        }
        work();
        assert_eq!(find(&mut meter), Tick::BudgetUsed);
        meter.begin(LIMIT);
        assert_eq!(find(&mut meter), Tick::First, "another call begins anew");
    }

    #[test]
    fn the_hosts_time_is_not_the_guests() {
        let mut meter = CpuMeter::default();
        meter.begin(LIMIT);
        meter.crosses(CallHook::CallingWasm);
        for found in [Tick::First, Tick::Later, Tick::Later] {
            assert_eq!(find(&mut meter), found);
        }
        meter.crosses(CallHook::CallingHost);
        work();
        meter.crosses(CallHook::ReturningFromHost);
        assert_eq!(find(&mut meter), Tick::Later);
        // Nor is a wait of the thread.
        std::thread::sleep(2 * LIMIT);
        assert_eq!(find(&mut meter), Tick::Later);
    }
}
