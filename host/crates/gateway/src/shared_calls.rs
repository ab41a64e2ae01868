//! Identical GETs at one time are served by one call, where the route says so: those that come while it runs are given its answer. It goes on as long as one
//! of them waits. Knows no HTTP.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

type Call<T> = BoxFuture<'static, T>;
type Running<T> = Arc<Mutex<HashMap<String, WeakShared<Call<T>>>>>;

/// The calls that run now, by what their answers depend on.
pub struct SharedCalls<T>(Running<T>);

impl<T> Default for SharedCalls<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + Sync + 'static> SharedCalls<T> {
    /// The answer of the call that runs under this key, else of a new one. Its size is bounded by the requests that wait.
    pub async fn join(&self, key: String, call: impl FnOnce() -> Call<T>) -> T {
        // Dropped after the call, so that it sees whether it was the last one.
        let waiting = Waiting { calls: self.0.clone(), key };
        let shared = {
            let mut calls = self.0.lock();
            match calls.get(&waiting.key).and_then(WeakShared::upgrade) {
                Some(running) => running,
                None => {
                    let (call, calls_after, key) = (call(), self.0.clone(), waiting.key.clone());
                    let shared: Shared<Call<T>> = async move {
                        let answer = call.await;
                        // Whoever comes from now on wants a newer answer.
                        calls_after.lock().remove(&key);
                        answer
                    }
                    .boxed()
                    .shared();
                    calls.extend(shared.downgrade().map(|weak| (waiting.key.clone(), weak)));
                    shared
                }
            }
        };
        shared.await
    }
}

/// A request that waits for a call. The last one takes the call along if its client goes away.
struct Waiting<T> {
    calls: Running<T>,
    key: String,
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        let mut calls = self.calls.lock();
        if calls.get(&self.key).is_some_and(|call| call.upgrade().is_none()) {
            calls.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn who_comes_while_a_call_runs_is_given_its_answer_and_who_comes_later_is_not() {
        let (calls, count, go) = (SharedCalls::default(), Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let join = |key: &str| {
            let (count, go) = (count.clone(), go.clone());
            calls.join(key.to_owned(), move || {
                async move {
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    go.acquire().await.expect("it stays open").forget();
                    number
                }
                .boxed()
            })
        };
        let mut same = Box::pin(join_all((0..50).map(|_| join("a"))));
        let mut other = Box::pin(join("b"));
        assert!(futures_util::poll!(&mut same).is_pending() && futures_util::poll!(&mut other).is_pending());
        assert_eq!(count.load(Ordering::SeqCst), 2, "one for each key");
        go.add_permits(3);
        assert_eq!(same.await, vec![0; 50]);
        assert_eq!(other.await, 1);
        assert_eq!(join("a").await, 2, "what is over is not given again");
        assert!(calls.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_call_goes_on_without_its_first_request_and_ends_with_its_last() {
        let (calls, go) = (SharedCalls::default(), Arc::new(Semaphore::new(0)));
        let join = |answer: u32| {
            let go = go.clone();
            calls.join("a".to_owned(), move || {
                async move {
                    go.acquire().await.expect("it stays open").forget();
                    answer
                }
                .boxed()
            })
        };
        let (mut first, mut second) = (Box::pin(join(1)), Box::pin(join(2)));
        assert!(futures_util::poll!(&mut first).is_pending() && futures_util::poll!(&mut second).is_pending());
        drop(first);
        go.add_permits(1);
        assert_eq!(second.await, 1);
        let mut third = Box::pin(join(3));
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(third);
        assert!(calls.0.lock().is_empty());
    }
}
