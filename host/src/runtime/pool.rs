//! Warm instances of one generation: taken out before a call, put back only after a success, retired before they grow old.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, Func, InstancePre};

use super::instance::{InstanceState, new_store};
use super::manifest::{Isolation, Limits};
use crate::capabilities::context::CallContext;
use crate::capabilities::guest::{Guest, Powers};
use crate::limits;
use crate::names::ServiceName;

pub struct Pool {
    service: ServiceName,
    instance: InstancePre<InstanceState>,
    exports: Vec<ComponentExportIndex>,
    powers: Arc<Powers>,
    /// The types of the frames that its instances may push.
    pushes: Arc<[String]>,
    limits: Limits,
    idle: Mutex<Vec<Warm>>,
    /// One permit per call at once.
    pub slots: Semaphore,
    retired: AtomicBool,
    live_count: Arc<AtomicU32>,
    made_count: AtomicU64,
    /// Instances that a failed call took with it and that no new one has replaced yet.
    broken_count: AtomicU32,
}

/// An instance and its functions, in the order of the pool's exports.
pub struct Warm {
    pub store: Store<InstanceState>,
    pub functions: Vec<Func>,
    calls_left: u32,
    first_call_bytes: Option<usize>,
    idle_since: Instant,
    _alive: Alive,
}

/// Counts an instance for as long as it exists.
struct Alive(Arc<AtomicU32>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    pub fn new(
        service: ServiceName,
        instance: InstancePre<InstanceState>,
        exports: Vec<ComponentExportIndex>,
        powers: Arc<Powers>,
        pushes: Arc<[String]>,
        limits: Limits,
    ) -> Self {
        Self {
            service,
            instance,
            exports,
            powers,
            pushes,
            slots: Semaphore::new(limits.concurrency as usize),
            limits,
            idle: Mutex::new(Vec::new()),
            retired: AtomicBool::new(false),
            live_count: Arc::default(),
            made_count: AtomicU64::new(0),
            broken_count: AtomicU32::new(0),
        }
    }

    /// What its instances can use.
    pub fn powers(&self) -> &Arc<Powers> {
        &self.powers
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The instance that was used last, so that the others can grow idle and go.
    pub fn take(&self) -> Option<Warm> {
        self.idle.lock().pop()
    }

    /// A fresh instance, 40 µs and more. The guest's own start code is metered like a call.
    pub async fn make(&self, context: Arc<CallContext>) -> wasmtime::Result<Warm> {
        let guest = Guest::new(self.service.clone(), context, self.powers.clone(), self.pushes.clone());
        let mut store = new_store(self.instance.engine(), guest, self.limits.memory);
        store.data_mut().cpu.begin(self.limits.cpu);
        store.set_epoch_deadline(1);
        let instance = self.instance.instantiate_async(&mut store).await?;
        let functions = self
            .exports
            .iter()
            .map(|export| instance.get_func(&mut store, *export))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| wasmtime::Error::msg("an export is no function"))?;
        self.live_count.fetch_add(1, Ordering::Relaxed);
        self.made_count.fetch_add(1, Ordering::Relaxed);
        Ok(Warm {
            store,
            functions,
            calls_left: rand::random_range(limits::INSTANCE_CALLS),
            first_call_bytes: None,
            idle_since: Instant::now(),
            _alive: Alive(self.live_count.clone()),
        })
    }

    /// After a success only: whatever else happened, the instance is dropped, because its memory can no longer be trusted.
    pub fn put_back(&self, mut warm: Warm) {
        warm.calls_left = warm.calls_left.saturating_sub(1);
        let bytes = warm.store.data().memory.bytes();
        let first_bytes = *warm.first_call_bytes.get_or_insert(bytes);
        let worn = warm.calls_left == 0 || bytes > first_bytes.saturating_mul(limits::INSTANCE_GROWTH_FACTOR);
        if worn || self.limits.isolation == Isolation::Call || self.retired.load(Ordering::Relaxed) {
            return;
        }
        warm.idle_since = Instant::now();
        self.idle.lock().push(warm);
    }

    /// The call's instance is lost with the call.
    pub fn note_broken(&self) {
        // No more than there can be at once: what is long past is not held against calls to come.
        let bound = self.limits.concurrency;
        let _ = self.broken_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < bound).then_some(count + 1));
    }

    /// Whether the next call has to make an instance in the place of one that a failed call took with it.
    pub fn replaces_a_broken_one(&self) -> bool {
        self.broken_count.load(Ordering::Relaxed) > 0
            && self.idle.lock().is_empty()
            && self.broken_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).is_ok()
    }

    /// No instance is kept from now on; calls of requests that pinned this generation still run, each on a fresh one.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        let idle = std::mem::take(&mut *self.idle.lock());
        drop(idle);
    }

    /// Drops what has been idle for `INSTANCE_IDLE_MS`.
    pub fn sweep(&self) {
        let now = Instant::now();
        let old: Vec<Warm> = {
            let mut idle = self.idle.lock();
            let kept = idle.iter().position(|warm| now - warm.idle_since < Duration::from_millis(limits::INSTANCE_IDLE_MS));
            let kept = kept.unwrap_or(idle.len());
            idle.drain(..kept).collect()
        };
        drop(old);
    }

    pub fn live_count(&self) -> u32 {
        self.live_count.load(Ordering::Relaxed)
    }

    pub fn made_count(&self) -> u64 {
        self.made_count.load(Ordering::Relaxed)
    }

    /// Linear memory of the idle instances, in bytes.
    pub fn idle_memory_bytes(&self) -> usize {
        self.idle.lock().iter().map(|warm| warm.store.data().memory.bytes()).sum()
    }

    pub fn calls_running(&self) -> usize {
        (self.limits.concurrency as usize).saturating_sub(self.slots.available_permits())
    }
}
