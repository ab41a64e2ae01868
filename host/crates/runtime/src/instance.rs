//! The data of a wasmtime store, one per instance: the guest as its capabilities see it, its meters, and an empty WASI.

use wasmtime::{ResourceLimiter, Store, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::call::CallFrame;
use super::cpu::{CpuMeter, Tick};
use super::stdout::LogLines;
use echo_base::limits;
use echo_capabilities::guest::Guest;

pub struct InstanceState {
    pub guest: Guest,
    /// Where in the chain of calls this instance is working; none between calls.
    pub frame: Option<CallFrame>,
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
pub fn new_store(engine: &wasmtime::Engine, guest: Guest, memory_bytes_max: u64) -> Store<InstanceState> {
    let lines = LogLines::new(guest.service.clone());
    // Clocks, random and output to the log only: no preopened folders, no sockets, no environment, no arguments.
    let wasi = WasiCtxBuilder::new().stdout(lines.clone()).stderr(lines).build();
    let state = InstanceState { guest, frame: None, cpu: CpuMeter::default(), memory: MemoryBound::new(memory_bytes_max), wasi };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(limits::GUEST_TRANSFER_BYTES_MAX);
    store.call_hook(|mut context, hook| {
        context.data_mut().cpu.crosses(hook);
        Ok(())
    });
    store.epoch_deadline_callback(on_tick);
    store
}

/// A tick passed since the guest was entered or last yielded: ends it if its time is used up, else lets other tasks run.
fn on_tick(mut context: StoreContextMut<'_, InstanceState>) -> wasmtime::Result<UpdateDeadline> {
    let InstanceState { cpu, guest, .. } = context.data_mut();
    match cpu.on_tick() {
        // Other calls of its service wait for its transaction; hardly any call sees a second tick.
        Tick::First if guest.transaction.is_some() => Ok(UpdateDeadline::Continue(1)),
        Tick::First | Tick::Later => Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))),
        Tick::BudgetUsed => Err(Exhausted::Cpu.into()),
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
