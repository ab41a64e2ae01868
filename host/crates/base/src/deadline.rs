//! A time-out that sets its timer only if the future is not ready at once. Knows nothing of what it waits for.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Instant;

use tokio::task::unconstrained;
use tokio::time::sleep_until;

/// The time was over first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time is over")]
pub struct Elapsed;

/// What the future gives, or that it gave nothing until `deadline`. The timer is made when there is something to wait for: most calls have no
/// use for one, and all timers of the process stand behind one lock.
/// It takes a pinned one: what is moved on its way in is copied, and some are of kilobytes.
pub async fn timeout_at<F: Future + Unpin>(deadline: Instant, mut future: F) -> Result<F::Output, Elapsed> {
    let mut timer = pin!(None);
    poll_fn(|context| {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(context) {
            return Poll::Ready(Ok(output));
        }
        if timer.is_none() {
            // Looked at also when the future has used up what tokio lets a task do in one go.
            timer.set(Some(unconstrained(sleep_until(deadline.into()))));
        }
        let timer = timer.as_mut().as_pin_mut().expect("it was made above");
        timer.poll(context).map(|()| Err(Elapsed))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::future::pending;
    use std::time::Duration;

    fn in_ms(ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms)
    }

    #[tokio::test]
    async fn what_is_ready_is_taken_and_what_is_late_is_not() {
        assert_eq!(timeout_at(Instant::now(), pin!(async { 1 })).await, Ok(1), "ready at once, however late it is");
        assert_eq!(timeout_at(in_ms(60_000), pin!(tokio::time::sleep(Duration::from_millis(1)))).await, Ok(()));
        assert_eq!(timeout_at(in_ms(5), pending::<()>()).await, Err(Elapsed));
    }

    #[tokio::test]
    async fn a_future_that_never_rests_is_late_too() {
        let busy = async {
            loop {
                tokio::task::consume_budget().await;
            }
        };
        assert_eq!(timeout_at(in_ms(5), pin!(busy)).await, Err::<(), _>(Elapsed));
    }
}
