//! One call: a slot, an instance, the two clocks (CPU and wall time), the answer. Root calls and calls between services pass here.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::SemaphorePermit;
use wasmtime::component::Val;

use super::catalogue::{Catalogue, Generation};
use super::instance::Exhausted;
use super::long_calls::{LongCalls, Origin};
use super::pool::PooledInstance;
use super::{CallError, ErrorKind, ServiceError};
use echo_base::deadline::timeout_at;
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::context::CallContext;

/// The place of a call in its chain: the snapshot that its root request pinned, and the services on the way here.
#[derive(Clone)]
pub struct CallFrame {
    pub catalogue: Arc<Catalogue>,
    chain: Arc<ChainEntry>,
}

struct ChainEntry {
    service: ServiceName,
    depth: usize,
    caller: Option<Arc<ChainEntry>>,
}

impl CallFrame {
    pub fn root(catalogue: Arc<Catalogue>, service: ServiceName) -> Self {
        Self { catalogue, chain: Arc::new(ChainEntry { service, depth: 1, caller: None }) }
    }

    /// The frame of a call from here to `service`.
    /// Errors: a service that is already in the chain (it could wait for itself for ever), or a chain longer than `CALL_DEPTH_MAX`.
    pub fn call(&self, service: &ServiceName) -> Result<Self, String> {
        let mut entry = Some(&self.chain);
        while let Some(here) = entry {
            if here.service == *service {
                return Err(format!("{} calls {service}, which is already waiting for this call", self.chain.service));
            }
            entry = here.caller.as_ref();
        }
        if self.chain.depth >= limits::CALL_DEPTH_MAX {
            return Err(format!("a chain of more than {} calls", limits::CALL_DEPTH_MAX));
        }
        let chain = ChainEntry { service: service.clone(), depth: self.chain.depth + 1, caller: Some(self.chain.clone()) };
        Ok(Self { catalogue: self.catalogue.clone(), chain: Arc::new(chain) })
    }
}

/// A call that no service made; if it takes long, it moves to the long-call threads.
pub async fn run_root(
    long_calls: &LongCalls,
    origin: Origin,
    generation: Arc<Generation>,
    export: usize,
    params: Vec<Val>,
    frame: CallFrame,
    context: Arc<CallContext>,
) -> Result<Val, CallError> {
    // A call that has to replace a destroyed instance counts as long: else a client that makes a service trap would cost the serving threads.
    let is_long = generation.pool.take_credit_of_broken();
    let called = generation.clone();
    let call = Box::pin(async move { run(&called, export, &params, frame, context).await });
    long_calls.run(origin, &generation.exports[export].predictor, is_long, call).await
}

/// Calls the export with this index. The function's one result is returned as it is.
pub async fn run(
    generation: &Arc<Generation>,
    export: usize,
    params: &[Val],
    frame: CallFrame,
    context: Arc<CallContext>,
) -> Result<Val, CallError> {
    let started = Instant::now();
    let _running = generation.stats.running();
    let deadline = context.deadline;
    let outcome = run_within(generation, export, params, frame, context, started).await;
    // A caller that had no time left is no fault of this service.
    let is_fault = deadline > started && matches!(outcome, Err(CallError::Failed(_) | CallError::TimedOut(_)));
    generation.stats.record(started.elapsed(), &outcome, is_fault);
    if let Err(CallError::Failed(reason) | CallError::TimedOut(reason)) = &outcome {
        tracing::warn!(service = %generation.service, generation = generation.number(), function = generation.exports[export].name, reason, "a call failed");
    }
    outcome
}

async fn run_within(
    generation: &Arc<Generation>,
    export: usize,
    params: &[Val],
    frame: CallFrame,
    context: Arc<CallContext>,
    started: Instant,
) -> Result<Val, CallError> {
    let pool = &generation.pool;
    if context.deadline <= started {
        return Err(CallError::TimedOut("the request's time was used up before this call".to_owned()));
    }
    let (_slot, since) = slot(generation, started, context.deadline).await?;
    let until = context.deadline.min(since + pool.limits().wall);
    match timeout_at(until, pin!(on_an_instance(generation, export, params, frame, context))).await {
        Ok(outcome) => outcome,
        Err(_) => Err(CallError::TimedOut(format!("no answer within {} ms", (until - since).as_millis()))),
    }
}

/// A slot, and when it was taken.
async fn slot(generation: &Generation, now: Instant, deadline: Instant) -> Result<(SemaphorePermit<'_>, Instant), CallError> {
    let slots = &generation.pool.slots;
    if let Ok(slot) = slots.try_acquire() {
        return Ok((slot, now));
    }
    // Bounded also for a caller that holds a slot of its own: this resolves two services waiting for each other's slots.
    let until = deadline.min(now + Duration::from_millis(limits::SLOT_WAIT_MS));
    match timeout_at(until, pin!(slots.acquire())).await {
        Ok(slot) => Ok((slot.expect("the pool's semaphore is never closed"), Instant::now())),
        Err(_) => Err(CallError::Busy),
    }
}

async fn on_an_instance(
    generation: &Arc<Generation>,
    export: usize,
    params: &[Val],
    frame: CallFrame,
    context: Arc<CallContext>,
) -> Result<Val, CallError> {
    let pool = &generation.pool;
    let mut pooled = match pool.take() {
        Some(pooled) => pooled,
        None => pool.make(context.clone()).await.map_err(|error| failure(&error))?,
    };
    let PooledInstance { store, functions, .. } = &mut pooled;
    let state = store.data_mut();
    state.guest.begin_call(context);
    state.frame = Some(frame);
    state.cpu.begin(pool.limits().cpu);
    store.set_epoch_deadline(1);
    let mut results = [Val::Bool(false)];
    let called = functions[export].call_async(&mut *store, params, &mut results).await;
    let state = store.data_mut();
    state.frame = None;
    state.guest.end_call();
    if let Err(error) = called {
        pool.note_broken();
        return Err(failure(&error));
    }
    if let Some(transaction) = store.data_mut().guest.transaction.take() {
        pool.note_broken();
        // A failed rollback changes nothing: what is not committed does not exist.
        let _ = transaction.rollback().await;
        return Err(CallError::Failed("a transaction was left open; it is rolled back".to_owned()));
    }
    pool.put_back(pooled);
    let [result] = results;
    Ok(result)
}

fn failure(error: &wasmtime::Error) -> CallError {
    match error.downcast_ref::<Exhausted>() {
        Some(Exhausted::Cpu) => CallError::TimedOut(Exhausted::Cpu.to_string()),
        Some(Exhausted::Memory) => CallError::Failed(Exhausted::Memory.to_string()),
        None => match error.downcast_ref::<wasmtime::Trap>() {
            Some(trap) => CallError::Failed(trap.to_string()),
            None => CallError::Failed(format!("{error:#}")),
        },
    }
}

pub fn switched_off(service: &ServiceName) -> String {
    format!("{service} is switched off")
}

/// The error that a calling service gets when its callee gave no reply: one of the contract, never a trap.
pub fn as_service_error(error: CallError) -> ServiceError {
    let mut retry_after = None;
    let (kind, code, message) = match error {
        CallError::Declined(error) => return error,
        CallError::SwitchedOff(service) => {
            retry_after = Some(Duration::from_secs(limits::SERVICE_OFF_RETRY_S));
            (ErrorKind::Unavailable, "service_off", switched_off(&service))
        }
        CallError::Busy => (ErrorKind::Unavailable, "service_busy", "the service is busy".to_owned()),
        CallError::Unavailable(reason) => (ErrorKind::Unavailable, "service_unavailable", reason),
        CallError::TimedOut(reason) => (ErrorKind::Unavailable, "service_timed_out", reason),
        CallError::Unreadable(reason) | CallError::Failed(reason) => (ErrorKind::Internal, "service_failed", reason),
        CallError::Invalid(_) => (ErrorKind::Internal, "service_failed", "the request does not fit the service".to_owned()),
    };
    ServiceError { kind, code: code.to_owned(), message, fields: Vec::new(), retry_after }
}

/// `result::err(error)` as a value of `echo:types/types.error`.
pub fn error_value(error: &ServiceError) -> Val {
    let kind = match error.kind {
        ErrorKind::Invalid => "invalid",
        ErrorKind::Unauthenticated => "unauthenticated",
        ErrorKind::Forbidden => "forbidden",
        ErrorKind::NotFound => "not-found",
        ErrorKind::Conflict => "conflict",
        ErrorKind::Locked => "locked",
        ErrorKind::TooLarge => "too-large",
        ErrorKind::RateLimited => "rate-limited",
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::Internal => "internal",
    };
    let fields = error
        .fields
        .iter()
        .map(|field| {
            Val::Record(vec![
                ("field".to_owned(), Val::String(field.field.clone())),
                ("code".to_owned(), Val::String(field.code.clone())),
                ("detail".to_owned(), Val::String(field.detail.clone())),
            ])
        })
        .collect();
    let retry_after_ms = error.retry_after.map(|pause| Box::new(Val::U64(pause.as_millis() as u64)));
    Val::Result(Err(Some(Box::new(Val::Record(vec![
        ("kind".to_owned(), Val::Enum(kind.to_owned())),
        ("code".to_owned(), Val::String(error.code.clone())),
        ("message".to_owned(), Val::String(error.message.clone())),
        ("fields".to_owned(), Val::List(fields)),
        ("retry-after-ms".to_owned(), Val::Option(retry_after_ms)),
    ])))))
}

/// Traffic of one generation.
#[derive(Default)]
pub struct Stats {
    calls: std::sync::atomic::AtomicU64,
    declined: std::sync::atomic::AtomicU64,
    failed: std::sync::atomic::AtomicU64,
    faults: std::sync::atomic::AtomicU64,
    running: std::sync::atomic::AtomicU32,
    busy_us: std::sync::atomic::AtomicU64,
    /// Microseconds, up to a minute, two significant digits.
    durations_us: parking_lot::Mutex<Option<hdrhistogram::Histogram<u64>>>,
}

/// A snapshot of `Stats`.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct StatsView {
    pub calls: u64,
    /// Calls answered with an error of the contract.
    pub errors: u64,
    /// Calls that gave no answer: traps, time-outs, bounds, no slot.
    pub traps: u64,
    /// Of them, traps and time-outs of the service itself.
    pub faults: u64,
    pub running: u32,
    /// All calls' durations together: what it grew by, over the calls that came, is their mean.
    pub busy_us: u64,
    pub p50_us: u64,
    pub p99_us: u64,
}

pub struct Running<'a>(&'a Stats);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stats {
    fn running(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(self)
    }

    fn record(&self, duration: Duration, outcome: &Result<Val, CallError>, is_fault: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if is_fault {
            self.faults.fetch_add(1, Ordering::Relaxed);
        }
        match outcome {
            Ok(Val::Result(Err(_))) => drop(self.declined.fetch_add(1, Ordering::Relaxed)),
            Ok(_) => {}
            Err(_) => drop(self.failed.fetch_add(1, Ordering::Relaxed)),
        }
        let duration_us = duration.as_micros().max(1) as u64;
        self.busy_us.fetch_add(duration_us, Ordering::Relaxed);
        let mut durations = self.durations_us.lock();
        let durations =
            durations.get_or_insert_with(|| hdrhistogram::Histogram::new_with_bounds(1, 60_000_000, 2).expect("these bounds are valid"));
        durations.saturating_record(duration_us);
    }

    pub fn in_flight(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    pub fn view(&self) -> StatsView {
        let durations = self.durations_us.lock();
        let quantile = |q: f64| durations.as_ref().map_or(0, |durations| durations.value_at_quantile(q));
        StatsView {
            calls: self.calls.load(Ordering::Relaxed),
            errors: self.declined.load(Ordering::Relaxed),
            traps: self.failed.load(Ordering::Relaxed),
            faults: self.faults.load(Ordering::Relaxed),
            running: self.running.load(Ordering::Relaxed),
            busy_us: self.busy_us.load(Ordering::Relaxed),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
        }
    }
}
