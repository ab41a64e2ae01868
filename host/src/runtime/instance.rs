//! What a store holds for one instance: the guest as its capabilities see it, its meters, and WASI shut tight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{AsContextMut, CallHook, ResourceLimiter, Store, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::call::Frame;
use super::stdout::LogLines;
use crate::capabilities::guest::Guest;
use crate::limits;

pub struct InstanceState {
    pub guest: Guest,
    /// Where in the chain of calls this instance is working; none between calls.
    pub frame: Option<Frame>,
    pub cpu: CpuMeter,
    pub memory: MemoryBound,
    wasi: WasiCtx,
}

/// Why the host ended a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    #[error("its CPU time for one call is used up")]
    Cpu,
    #[error("its memory is used up")]
    Memory,
}

/// A store with its meters running, not yet instantiated.
pub fn new_store(engine: &wasmtime::Engine, ticks: Arc<AtomicU64>, guest: Guest, memory_bytes_max: u64) -> Store<InstanceState> {
    let lines = LogLines::new(guest.service.clone());
    // Nothing is preopened, no sockets, no environment, no arguments: clocks, random and lines for the log are all there is.
    let wasi = WasiCtxBuilder::new().stdout(lines.clone()).stderr(lines).build();
    let state = InstanceState { guest, frame: None, cpu: CpuMeter::new(ticks), memory: MemoryBound::new(memory_bytes_max), wasi };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(limits::GUEST_TRANSFER_BYTES_MAX);
    store.call_hook(|mut context, hook| {
        if context.data_mut().cpu.crossing(hook) {
            context.as_context_mut().set_epoch_deadline(1);
        }
        Ok(())
    });
    store.epoch_deadline_callback(on_tick);
    store
}

/// A tick passed while the guest was running: end it when its time is used up, else let others run first; when it has run for long, it goes
/// on where nobody waits for it.
fn on_tick(mut context: StoreContextMut<'_, InstanceState>) -> wasmtime::Result<UpdateDeadline> {
    let InstanceState { cpu, frame, .. } = context.data_mut();
    if cpu.clock.is_watched.load(Ordering::Relaxed) {
        if cpu.used() > cpu.limit {
            return Err(Exhausted::Cpu.into());
        }
        if cpu.running() >= Duration::from_micros(limits::LONG_CALL_US)
            && let Some(frame) = frame
        {
            frame.long.set();
        }
        cpu.leave();
    } else if !cpu.was_found {
        // Once is chance, or the thread had to wait for a processor.
        cpu.was_found = true;
        cpu.armed_at = cpu.tick();
        return Ok(UpdateDeadline::Yield(1));
    } else {
        // From here on it is measured; up to here it cannot have used more than two ticks.
        cpu.clock.is_watched.store(true, Ordering::Relaxed);
    }
    let clock = cpu.clock.clone();
    Ok(UpdateDeadline::YieldCustom(
        1,
        Box::pin(async move {
            tokio::task::yield_now().await;
            clock.enter();
        }),
    ))
}

/// What this thread has used of a processor. Asks the kernel.
fn thread_cpu() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32)
}

/// CPU time of the guest in one call since a tick found it twice: from entering its code to leaving it, waits for the host and for other tasks
/// taken out. Most calls are over before, and are not measured at all: asking a clock at each crossing was 4 % of the host's time. A tick that
/// passes while the host is at work for the guest, or lets it wait, does not find it.
pub struct CpuMeter {
    used: Duration,
    limit: Duration,
    clock: Arc<GuestClock>,
    ticks: Arc<AtomicU64>,
    was_found: bool,
    /// The tick after this one finds the guest.
    armed_at: u64,
    /// When the host was called.
    host_at: u64,
}

/// Shared with the yielding future, which starts the clock again when the guest goes on, on whichever thread.
#[derive(Default)]
struct GuestClock {
    /// When the guest's code was entered, in nanoseconds of `thread_cpu`: a thread may have to wait for a processor, which is not its guest's
    /// fault. 0 outside it.
    entered_ns: AtomicU64,
    /// Ticks have found this call twice.
    is_watched: AtomicBool,
}

impl GuestClock {
    fn enter(&self) {
        self.entered_ns.store(thread_cpu().as_nanos().max(1) as u64, Ordering::Relaxed);
    }
}

impl CpuMeter {
    fn new(ticks: Arc<AtomicU64>) -> Self {
        Self { used: Duration::ZERO, limit: Duration::ZERO, clock: Arc::default(), ticks, was_found: false, armed_at: 0, host_at: 0 }
    }

    /// The store's deadline is to be the next tick.
    pub fn begin(&mut self, limit: Duration) {
        self.armed_at = self.tick();
        self.was_found = false;
        self.used = Duration::ZERO;
        self.limit = limit;
        self.clock.entered_ns.store(0, Ordering::Relaxed);
        self.clock.is_watched.store(false, Ordering::Relaxed);
    }

    fn running(&self) -> Duration {
        match self.clock.entered_ns.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            entered_ns => thread_cpu().saturating_sub(Duration::from_nanos(entered_ns)),
        }
    }

    fn used(&self) -> Duration {
        self.used + self.running()
    }

    fn leave(&mut self) {
        self.used = self.used();
        self.clock.entered_ns.store(0, Ordering::Relaxed);
    }

    fn tick(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Whether the store's deadline is to be the next tick again: the last one was not the guest's.
    fn crossing(&mut self, hook: CallHook) -> bool {
        if self.clock.is_watched.load(Ordering::Relaxed) {
            match hook {
                CallHook::CallingWasm | CallHook::ReturningFromHost => self.clock.enter(),
                CallHook::ReturningFromWasm | CallHook::CallingHost => self.leave(),
            }
            return false;
        }
        match hook {
            CallHook::CallingHost => self.host_at = self.tick(),
            CallHook::ReturningFromHost if self.host_at == self.armed_at => {
                let now = self.tick();
                if now != self.armed_at {
                    self.armed_at = now;
                    return true;
                }
            }
            _ => {}
        }
        false
    }
}

/// The linear memory of one instance.
pub struct MemoryBound {
    bytes: usize,
    bytes_max: u64,
}

impl MemoryBound {
    fn new(bytes_max: u64) -> Self {
        Self { bytes: 0, bytes_max }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl ResourceLimiter for MemoryBound {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let total = self.bytes.saturating_sub(current).saturating_add(desired);
        if total as u64 > self.bytes_max {
            return Err(Exhausted::Memory.into());
        }
        self.bytes = total;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= limits::TABLE_ELEMENTS_MAX && maximum.is_none_or(|maximum| desired <= maximum))
    }
}

impl WasiView for InstanceState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.guest.table }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_while_the_host_works_are_not_the_guests() {
        let ticks = Arc::new(AtomicU64::new(7));
        let mut meter = CpuMeter::new(ticks.clone());
        meter.begin(Duration::from_secs(1));
        let mut host_call = |before: u64, within: u64| {
            ticks.fetch_add(before, Ordering::Relaxed);
            assert!(!meter.crossing(CallHook::CallingHost));
            ticks.fetch_add(within, Ordering::Relaxed);
            meter.crossing(CallHook::ReturningFromHost)
        };
        assert!(!host_call(0, 0), "no tick passed");
        assert!(host_call(0, 3), "the host's ticks are forgiven");
        assert!(host_call(0, 1), "each time");
        assert!(!host_call(1, 0), "the guest's own is not");
        assert!(!host_call(0, 1), "also where the host's come after it");
    }
}
