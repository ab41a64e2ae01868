//! Calls that take long leave the threads that serve everybody: from their first long stretch of guest CPU on they are polled by a few
//! threads of their own, at a low priority of the operating system. Knows no instances and no services.
//!
//! So a short call never waits behind a long one for a thread, and less for a processor, since the kernel prefers the serving threads.
//! What a long call waits for (timers, stores) is still driven by the runtime that serves.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::thread;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::limits;

/// The threads for long calls. Cheap to clone; they end with the last clone, and with the calls that they have then.
#[derive(Clone)]
pub struct LongCalls {
    queue: mpsc::Sender<BoxFuture<'static, ()>>,
}

/// Set by a guest that has run for long; read by whoever polls the root call that it belongs to.
#[derive(Clone, Default)]
pub struct LongMark(Arc<AtomicBool>);

/// When the last one was marked, in milliseconds since `BEGAN`, plus one; 0 before the first.
static LAST_MARKED_MS: AtomicU64 = AtomicU64::new(0);
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Whether a call was long within the last `LONG_CALLS_SEEN_MS`.
pub fn were_seen() -> bool {
    let last_ms = LAST_MARKED_MS.load(Ordering::Relaxed);
    last_ms != 0 && (BEGAN.elapsed().as_millis() as u64).saturating_sub(last_ms) < limits::LONG_CALLS_SEEN_MS
}

impl LongMark {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
        LAST_MARKED_MS.store(BEGAN.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

const THREAD: &str = "long-calls";

impl LongCalls {
    /// Half of the processors, at least one thread. To be called within the runtime that serves.
    pub fn start() -> Self {
        // Every long call holds an instance, so there is always room; were there none, a call would stay where it is.
        let (queue, calls) = mpsc::channel(limits::INSTANCES_MAX as usize);
        let calls = Arc::new(Mutex::new(calls));
        let threads_count = thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1));
        for _ in 0..threads_count {
            let (calls, runtime) = (calls.clone(), Handle::current());
            thread::Builder::new()
                .name(THREAD.to_owned())
                .spawn(move || {
                    // Of this thread alone (Linux). Where it is refused, long calls still have only their own threads.
                    if let Err(error) = rustix::process::setpriority_process(None, limits::LONG_CALL_NICENESS) {
                        tracing::warn!(%error, "the threads of long calls have the priority of all others");
                    }
                    runtime.block_on(poll_in_turns(&calls));
                })
                .expect("a host that cannot start a thread cannot run at all");
        }
        Self { queue }
    }

    /// Runs a root call to its end: on a thread of long calls where its mark is set, else here until it is and the call gives way. Dropping the
    /// future ends the call.
    pub async fn run<T: Send + 'static>(&self, mark: LongMark, mut call: BoxFuture<'static, T>) -> T {
        if !mark.is_set() {
            let here = poll_fn(|context| match call.as_mut().poll(context) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending if mark.is_set() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            if let Some(outcome) = here.await {
                return outcome;
            }
        }
        let Ok(place) = self.queue.try_reserve() else { return call.await };
        let (mut sender, receiver) = oneshot::channel();
        place.send(Box::pin(async move {
            let call = AssertUnwindSafe(call).catch_unwind();
            tokio::select! {
                biased;
                () = sender.closed() => {}
                outcome = call => drop(sender.send(outcome)),
            }
        }));
        match receiver.await.expect("a call is answered, or its asker is gone") {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// One thread's loop: all its calls, each as far as it gets until it gives way.
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

    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn is_here() -> bool {
        thread::current().name() == Some(THREAD)
    }

    #[tokio::test]
    async fn a_marked_call_goes_on_elsewhere_and_a_short_one_stays() {
        let calls = LongCalls::start();
        let where_it_ends = |mark: LongMark, is_long: bool| async move {
            if is_long {
                mark.set();
            }
            tokio::task::yield_now().await;
            is_here()
        };
        for is_long in [false, true] {
            let mark = LongMark::default();
            assert_eq!(calls.run(mark.clone(), Box::pin(where_it_ends(mark, is_long))).await, is_long);
        }
    }

    #[tokio::test]
    async fn long_calls_take_turns_and_their_timers_work() {
        let calls = LongCalls::start();
        let spinner = LongMark::default();
        let endless = {
            let mark = spinner.clone();
            async move {
                mark.set();
                loop {
                    tokio::task::yield_now().await;
                }
            }
        };
        let spinning = tokio::spawn({
            let calls = calls.clone();
            async move { calls.run::<()>(spinner, Box::pin(endless)).await }
        });
        let mark = LongMark::default();
        let sleeper = {
            let mark = mark.clone();
            async move {
                mark.set();
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                is_here()
            }
        };
        assert!(tokio::time::timeout(PATIENCE, calls.run(mark, Box::pin(sleeper))).await.expect("it gets its turn"));
        spinning.abort();
    }

    #[tokio::test]
    async fn a_call_ends_with_its_asker() {
        struct Ended(Option<oneshot::Sender<()>>);
        impl Drop for Ended {
            fn drop(&mut self) {
                let _ = self.0.take().expect("dropped once").send(());
            }
        }
        let calls = LongCalls::start();
        let (ended, hears) = oneshot::channel();
        let mark = LongMark::default();
        let endless = {
            let (mark, ended) = (mark.clone(), Ended(Some(ended)));
            async move {
                let _ended = ended;
                mark.set();
                std::future::pending::<()>().await;
            }
        };
        let asker = tokio::time::timeout(Duration::from_millis(20), calls.run(mark, Box::pin(endless)));
        assert!(asker.await.is_err(), "it has no end of its own");
        tokio::time::timeout(PATIENCE, hears).await.expect("it ends").expect("it was dropped");
    }

    #[tokio::test]
    async fn a_panic_reaches_the_asker_alone() {
        let calls = LongCalls::start();
        let mark = LongMark::default();
        let broken = {
            let mark = mark.clone();
            async move {
                mark.set();
                tokio::task::yield_now().await;
                panic!("on demand");
            }
        };
        let asker = calls.clone();
        let panicked = tokio::spawn(async move { asker.run::<()>(mark, Box::pin(broken)).await }).await.expect_err("it panics");
        assert!(panicked.is_panic());
        let marked = LongMark::default();
        marked.set();
        assert!(calls.run(marked, Box::pin(async { is_here() })).await, "the thread goes on, and one that is marked begins there");
    }
}
