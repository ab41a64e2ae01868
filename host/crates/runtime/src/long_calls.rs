//! Moves calls that use much CPU from the serving threads to a few threads of their own, which have a low priority in the operating system.
//! Knows no instances and no services.
//!
//! So a short call never waits behind a long one for a thread, and less for a processor, since the kernel prefers the serving threads.
//! Timers and stores that a long call waits for are still driven by the serving runtime.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::cpu;
use echo_base::limits;
use echo_base::priority;

/// The threads for long calls. Cheap to clone; they end with the last clone, and with the calls that they have then.
#[derive(Clone)]
pub struct LongCalls {
    queue: mpsc::Sender<BoxFuture<'static, ()>>,
    /// Of the engine: it counts up while time passes.
    ticks: Arc<AtomicU64>,
}

/// Predicts from the last calls of a function whether the next one is long. A single call of the other kind does not change the prediction, as in
/// a branch predictor of two bits (J. E. Smith, "A study of branch prediction strategies", 1981).
#[derive(Default)]
pub struct Predictor(AtomicU8);

impl Predictor {
    fn predicts_long(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= 2
    }

    fn note(&self, was_long: bool) {
        let score = self.0.load(Ordering::Relaxed);
        let next = if was_long { (score + 1).min(3) } else { score.saturating_sub(1) };
        // When two calls end at once, one of them may not be counted.
        if next != score {
            self.0.store(next, Ordering::Relaxed);
        }
    }
}

/// When a call was last found to be long, in milliseconds since `BEGAN`, plus one; 0 before the first.
static LAST_SEEN_MS: AtomicU64 = AtomicU64::new(0);
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Whether a call was long within the last `LONG_CALLS_SEEN_MS`.
pub fn were_seen() -> bool {
    let last_ms = LAST_SEEN_MS.load(Ordering::Relaxed);
    last_ms != 0 && (BEGAN.elapsed().as_millis() as u64).saturating_sub(last_ms) < limits::LONG_CALLS_SEEN_MS
}

fn note_seen() {
    LAST_SEEN_MS.store(BEGAN.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
}

const THREAD: &str = "long-calls";

/// Where a call comes from; it decides how much CPU the call may use before it counts as long.
#[derive(Clone, Copy)]
pub enum Origin {
    Client,
    /// An event, a schedule, an activation.
    Host,
}

impl Origin {
    const fn cpu_budget(self) -> Duration {
        Duration::from_millis(match self {
            Self::Client => limits::LONG_CALL_MS,
            Self::Host => limits::LONG_HANDLING_MS,
        })
    }
}

impl LongCalls {
    /// Half of the processors, at least one thread. To be called within the runtime that serves.
    pub fn start(ticks: Arc<AtomicU64>) -> Self {
        // Every long call holds an instance, so the channel is never full; if it were, the call would stay where it is.
        let (queue, calls) = mpsc::channel(limits::INSTANCES_MAX as usize);
        let calls = Arc::new(Mutex::new(calls));
        let threads_count = thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1));
        for _ in 0..threads_count {
            let (calls, runtime) = (calls.clone(), Handle::current());
            thread::Builder::new()
                .name(THREAD.to_owned())
                .spawn(move || {
                    priority::step_back(limits::LONG_CALL_NICENESS);
                    runtime.block_on(poll_in_turns(&calls));
                })
                .expect("a host that cannot start a thread cannot run at all");
        }
        Self { queue, ticks }
    }

    /// Runs a root call to its end: on a long-call thread if `is_long` or the predictor says so, else here until it turns out to be long.
    /// Dropping the future ends the call.
    pub async fn run<T: Send + 'static>(&self, origin: Origin, predictor: &Predictor, is_long: bool, mut call: BoxFuture<'static, T>) -> T {
        let starts_there = is_long || predictor.predicts_long();
        if !starts_there {
            let outcome = self.run_while_short(origin, &mut call).await;
            predictor.note(outcome.is_none());
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
        note_seen();
        let Ok(place) = self.queue.try_reserve() else { return call.await };
        let (mut sender, receiver) = oneshot::channel();
        place.send(Box::pin(async move {
            let call = AssertUnwindSafe(measured(call)).catch_unwind();
            tokio::select! {
                biased;
                () = sender.closed() => {}
                outcome = call => drop(sender.send(outcome)),
            }
        }));
        match receiver.await.expect("a call is answered, or its caller is gone") {
            Ok((outcome, used)) => {
                if starts_there {
                    predictor.note(used >= origin.cpu_budget());
                }
                outcome
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// None: the call is long.
    async fn run_while_short<T>(&self, origin: Origin, call: &mut BoxFuture<'static, T>) -> Option<T> {
        let (mut is_measured, mut used, mut polls) = (false, Duration::ZERO, 0);
        poll_fn(|context| {
            let tick = self.ticks.load(Ordering::Relaxed);
            let begin = is_measured.then(cpu::of_this_thread);
            if let Poll::Ready(outcome) = call.as_mut().poll(context) {
                return Poll::Ready(Some(outcome));
            }
            if let Some(begin) = begin {
                used += cpu::of_this_thread() - begin;
                if used >= origin.cpu_budget() {
                    return Poll::Ready(None);
                }
            }
            // Most calls end before either. A single tick may be chance, or the thread had to wait for a processor: the next polls are measured.
            polls += 1;
            is_measured = polls >= limits::LONG_CALL_POLLS || self.ticks.load(Ordering::Relaxed) != tick;
            Poll::Pending
        })
        .await
    }
}

/// The call with the processor time that it took.
async fn measured<T>(mut call: BoxFuture<'static, T>) -> (T, Duration) {
    let mut used = Duration::ZERO;
    let outcome = poll_fn(|context| {
        let begin = cpu::of_this_thread();
        let polled = call.as_mut().poll(context);
        used += cpu::of_this_thread() - begin;
        polled
    });
    let outcome = outcome.await;
    (outcome, used)
}

/// One thread's loop: polls all its calls, each until it yields.
async fn poll_in_turns(calls: &Mutex<mpsc::Receiver<BoxFuture<'static, ()>>>) {
    let mut running = FuturesUnordered::new();
    loop {
        let next = async { calls.lock().await.recv().await };
        tokio::select! {
            biased;
            call = next => match call {
                Some(call) => running.push(call),
                None => break,
            },
            Some(()) = running.next() => {}
        }
    }
    while running.next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST_TIMEOUT: Duration = Duration::from_secs(10);
    const LONG_CALL: Duration = Origin::Client.cpu_budget();

    fn start() -> (LongCalls, Arc<AtomicU64>) {
        let ticks = Arc::new(AtomicU64::new(0));
        (LongCalls::start(ticks.clone()), ticks)
    }

    fn is_here() -> bool {
        thread::current().name() == Some(THREAD)
    }

    /// Spins for so much processor time.
    fn work(duration: Duration) {
        let begin = cpu::of_this_thread();
        while cpu::of_this_thread() - begin < duration {
            std::hint::spin_loop();
        }
    }

    /// Yields after each of these stretches of work, in some of which a tick passes; whether it is on a long-call thread after each.
    async fn places(calls: &LongCalls, ticks: &Arc<AtomicU64>, works: &[(Duration, bool)]) -> Vec<bool> {
        let (works, ticks) = (works.to_vec(), ticks.clone());
        let call = async move {
            let mut places = Vec::new();
            for (duration, a_tick_passes) in works {
                work(duration);
                ticks.fetch_add(u64::from(a_tick_passes), Ordering::Relaxed);
                tokio::task::yield_now().await;
                places.push(is_here());
            }
            places
        };
        calls.run(Origin::Client, &Predictor::default(), false, Box::pin(call)).await
    }

    #[tokio::test]
    async fn a_call_longer_than_one_tick_moves_to_the_long_call_threads() {
        let (calls, ticks) = start();
        assert_eq!(places(&calls, &ticks, &[(LONG_CALL, true), (LONG_CALL, true), (Duration::ZERO, false)]).await, [false, true, true]);
    }

    #[tokio::test]
    async fn a_call_that_yields_in_time_stays_on_its_thread() {
        let (calls, ticks) = start();
        let short = Duration::ZERO;
        assert_eq!(places(&calls, &ticks, &[(LONG_CALL, false), (LONG_CALL, false)]).await, [false, false], "no tick, no clock");
        assert_eq!(places(&calls, &ticks, &[(short, true), (short, true), (short, true)]).await, [false, false, false], "ticks by chance");
        assert_eq!(places(&calls, &ticks, &[(short, true), (short, false), (LONG_CALL, false)]).await, [false, false, false], "forgotten");
    }

    #[tokio::test]
    async fn a_call_marked_as_long_starts_on_the_long_call_threads() {
        let (calls, _) = start();
        assert!(calls.run(Origin::Client, &Predictor::default(), true, Box::pin(async { is_here() })).await);
        assert!(were_seen());
    }

    #[tokio::test]
    async fn a_function_with_long_calls_starts_on_the_long_call_threads_until_they_are_short() {
        let (calls, ticks) = start();
        let predictor = Predictor::default();
        let starts_here = async |works: [Duration; 2]| {
            let ticks = ticks.clone();
            let call = async move {
                let starts_here = !is_here();
                for duration in works {
                    work(duration);
                    ticks.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
                starts_here
            };
            calls.run(Origin::Client, &predictor, false, Box::pin(call)).await
        };
        let (long, short) = ([LONG_CALL; 2], [Duration::ZERO; 2]);
        let mut here = Vec::new();
        for works in [long, short, long, long, long, short, long, short, short, short, short] {
            here.push(starts_here(works).await);
        }
        assert_eq!(here, [true, true, true, true, false, false, false, false, false, true, true]);
    }

    #[tokio::test]
    async fn long_calls_take_turns_and_their_timers_work() {
        let (calls, _) = start();
        let spinning = tokio::spawn({
            let calls = calls.clone();
            let endless = async {
                loop {
                    tokio::task::yield_now().await;
                }
            };
            async move { calls.run::<()>(Origin::Client, &Predictor::default(), true, Box::pin(endless)).await }
        });
        let sleeper = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            is_here()
        };
        assert!(
            tokio::time::timeout(TEST_TIMEOUT, calls.run(Origin::Client, &Predictor::default(), true, Box::pin(sleeper)))
                .await
                .expect("it gets its turn")
        );
        spinning.abort();
    }

    #[tokio::test]
    async fn a_call_ends_with_its_caller() {
        struct Ended(Option<oneshot::Sender<()>>);
        impl Drop for Ended {
            fn drop(&mut self) {
                let _ = self.0.take().expect("dropped once").send(());
            }
        }
        let (calls, _) = start();
        let (ended, was_dropped) = oneshot::channel();
        let ended = Ended(Some(ended));
        let endless = async move {
            let _ended = ended;
            std::future::pending::<()>().await;
        };
        let predictor = Predictor::default();
        let caller = tokio::time::timeout(Duration::from_millis(20), calls.run(Origin::Client, &predictor, true, Box::pin(endless)));
        assert!(caller.await.is_err(), "it has no end of its own");
        tokio::time::timeout(TEST_TIMEOUT, was_dropped).await.expect("it ends").expect("it was dropped");
    }

    #[tokio::test]
    async fn a_panic_reaches_the_caller_alone() {
        let (calls, _) = start();
        let caller = calls.clone();
        let panicked = tokio::spawn(async move {
            caller.run::<()>(Origin::Client, &Predictor::default(), true, Box::pin(async { panic!("on demand") })).await
        });
        assert!(panicked.await.expect_err("it panics").is_panic());
        assert!(calls.run(Origin::Client, &Predictor::default(), true, Box::pin(async { is_here() })).await, "the thread goes on");
    }
}
