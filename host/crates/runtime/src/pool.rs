//! The pooled instances of one generation: taken out before a call, put back only after a success, retired after a number of calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, Func, InstancePre};

use super::instance::{InstanceState, new_store};
use super::manifest::{Isolation, Limits};
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::context::CallContext;
use echo_capabilities::guest::{Capabilities, Guest};
use echo_capabilities::http::HttpGrants;
use echo_capabilities::senders::Senders;

pub struct InstancePool {
    service: ServiceName,
    instance: InstancePre<InstanceState>,
    exports: Vec<ComponentExportIndex>,
    capabilities: Arc<Capabilities>,
    /// How much of each user's feed is theirs.
    feed_share: Arc<Senders>,
    http_grants: Arc<HttpGrants>,
    limits: Limits,
    idle: Mutex<Vec<PooledInstance>>,
    /// One permit per concurrent call.
    pub slots: Semaphore,
    retired: AtomicBool,
    live_count: Arc<AtomicU32>,
    made_count: AtomicU64,
    /// Instances that failed calls have destroyed and that were not replaced yet.
    broken_count: AtomicU32,
}

/// An instance and its functions, in the order of the pool's exports.
pub struct PooledInstance {
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

impl InstancePool {
    pub fn new(
        service: ServiceName,
        instance: InstancePre<InstanceState>,
        exports: Vec<ComponentExportIndex>,
        capabilities: Arc<Capabilities>,
        limits: Limits,
        http_grants: HttpGrants,
    ) -> Self {
        Self {
            service,
            instance,
            exports,
            feed_share: Arc::new(Senders::of_service(limits.feed_events_per_day, &capabilities.senders)),
            http_grants: Arc::new(http_grants),
            capabilities,
            slots: Semaphore::new(limits.concurrency as usize),
            limits,
            idle: Mutex::new(Vec::new()),
            retired: AtomicBool::new(false),
            live_count: Arc::default(),
            made_count: AtomicU64::new(0),
            broken_count: AtomicU32::new(0),
        }
    }

    /// The service's capabilities.
    pub fn capabilities(&self) -> &Arc<Capabilities> {
        &self.capabilities
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The instance that was used last, so that the others become idle and are dropped.
    pub fn take(&self) -> Option<PooledInstance> {
        self.idle.lock().pop()
    }

    /// A new instance, 40 µs and more. The guest's own start code is metered like a call.
    pub async fn make(&self, context: Arc<CallContext>) -> wasmtime::Result<PooledInstance> {
        let guest = Guest::new(self.service.clone(), context, self.capabilities.clone(), self.feed_share.clone(), self.http_grants.clone());
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
        Ok(PooledInstance {
            store,
            functions,
            calls_left: rand::random_range(limits::INSTANCE_CALLS),
            first_call_bytes: None,
            idle_since: Instant::now(),
            _alive: Alive(self.live_count.clone()),
        })
    }

    /// Only after a success: after any failure the instance is dropped, because its memory can no longer be trusted.
    pub fn put_back(&self, mut pooled: PooledInstance) {
        pooled.calls_left = pooled.calls_left.saturating_sub(1);
        let bytes = pooled.store.data().memory.bytes();
        let first_bytes = *pooled.first_call_bytes.get_or_insert(bytes);
        let worn = pooled.calls_left == 0 || bytes > first_bytes.saturating_mul(limits::INSTANCE_GROWTH_FACTOR);
        if worn || self.limits.isolation == Isolation::Call || self.retired.load(Ordering::Relaxed) {
            return;
        }
        pooled.idle_since = Instant::now();
        self.idle.lock().push(pooled);
    }

    /// Notes that a failed call has destroyed its instance.
    pub fn note_broken(&self) {
        // Bounded by the number of instances at once, so that old failures do not count for ever.
        let bound = self.limits.concurrency;
        let _ = self.broken_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < bound).then_some(count + 1));
    }

    /// Whether the next call has to replace an instance that a failed call destroyed.
    pub fn take_credit_of_broken(&self) -> bool {
        self.broken_count.load(Ordering::Relaxed) > 0
            && self.idle.lock().is_empty()
            && self.broken_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).is_ok()
    }

    /// Keeps no instance from now on; calls of requests that pinned this generation still run, each on a new one.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        let idle = std::mem::take(&mut *self.idle.lock());
        drop(idle);
    }

    /// Drops what has been idle for `INSTANCE_IDLE_MS`.
    pub fn sweep(&self) {
        let now = Instant::now();
        let old: Vec<PooledInstance> = {
            let mut idle = self.idle.lock();
            let kept = idle.iter().position(|pooled| now - pooled.idle_since < Duration::from_millis(limits::INSTANCE_IDLE_MS));
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
        self.idle.lock().iter().map(|pooled| pooled.store.data().memory.bytes()).sum()
    }

    pub fn calls_running(&self) -> usize {
        (self.limits.concurrency as usize).saturating_sub(self.slots.available_permits())
    }
}
