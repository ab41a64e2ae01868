//! The timer of one connection for its clients' request heads.
//!
//! hyper creates a timer for each request and drops it when the head is there. Tokio's timers share one lock, so here a connection has one timer that is
//! never reset: when it fires, it checks whether a deadline has passed by then, and is set to the next one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;

/// For one connection, which waits for one head at a time.
#[derive(Default)]
pub struct HeadTimer {
    timer: Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Wait { deadline: deadline.into(), timer: self.timer.clone() })
    }
}

struct Wait {
    deadline: tokio::time::Instant,
    timer: Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>,
}

impl Sleep for Wait {}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut timer = self.timer.lock();
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(self.deadline)));
        if timer.deadline() > self.deadline {
            timer.as_mut().reset(self.deadline);
        }
        // It was set for a head that came in time.
        while timer.deadline() < self.deadline {
            ready!(timer.as_mut().poll(context));
            timer.as_mut().reset(self.deadline);
        }
        timer.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_wait_ends_at_its_own_time() {
        let timer = HeadTimer::default();
        let begin = Instant::now();
        let check = async |ms: u64| {
            let deadline = begin + Duration::from_millis(ms);
            timer.sleep_until(deadline).await;
            let late = deadline.elapsed();
            assert!(Instant::now() >= deadline && late < Duration::from_secs(10), "{ms}: {late:?}");
        };
        check(20).await;
        check(40).await;
        // Waited for and given up, as for a head that came: the ones after it are not held up, nor let go too early.
        let given_up = tokio::time::timeout(Duration::from_millis(1), timer.sleep_until(begin + Duration::from_millis(100)));
        assert!(given_up.await.is_err());
        check(140).await;
        let given_up = tokio::time::timeout(Duration::from_millis(1), timer.sleep_until(begin + Duration::from_secs(3_600)));
        assert!(given_up.await.is_err());
        check(200).await;
        check(0).await;
    }
}
