//! The turn of a scheduled function on this host. Of the hosts that share a database one calls each function, under a lease of its own, and another when that
//! one's lease has ended.
//!
//! A lease lasts longer than the pause between two calls, so that it stays with its host; and while a call runs, it is renewed. A host that was stopped for longer
//! than its lease asks for it again before the next call. One that is stopped in the middle of a call goes on with it afterwards, while another host may call the
//! same function: so what a scheduled function does is decided in its transactions, as with any two calls at one time.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::leases::Leases;

pub(super) struct Turn {
    /// Of its lease.
    name: String,
    pub every: Duration,
    ttl: Duration,
    state: Mutex<State>,
}

struct State {
    /// When it is called, or its lease asked for, next.
    next_at: Instant,
    /// The lease is this host's until then, at least.
    until: Option<Instant>,
}

impl Turn {
    pub fn new((service, function): &(ServiceName, String), every: Duration, now: Instant) -> Self {
        Self {
            name: format!("schedule.{service}.{function}"),
            every,
            ttl: every + Duration::from_millis(limits::SCHEDULE_LEASE_MS),
            state: Mutex::new(State { next_at: now + every, until: None }),
        }
    }

    pub fn next_at(&self) -> Instant {
        self.state.lock().next_at
    }

    /// Calls, where the lease is this host's or becomes so.
    pub async fn call(&self, leases: &dyn Leases, call: impl Future<Output = ()>) {
        let began = Instant::now();
        let has_enough = self.state.lock().until.is_some_and(|until| until > began + self.ttl / 2);
        if !has_enough && !self.take(leases).await {
            self.state.lock().next_at = Instant::now() + Duration::from_millis(limits::SCHEDULE_LEASE_ASK_MS);
            return;
        }
        self.state.lock().next_at = began + self.every;
        let renewing = async {
            loop {
                tokio::time::sleep(self.ttl / 3).await;
                if !self.take(leases).await {
                    tracing::warn!(lease = self.name, "the lease of a scheduled call ended before the call");
                }
            }
        };
        tokio::select! {
            () = call => {}
            () = renewing => {}
        }
    }

    /// Whether this host has it for a while yet.
    async fn take(&self, leases: &dyn Leases) -> bool {
        let asked_at = Instant::now();
        let taken = leases.take(&self.name, self.ttl).await;
        // The answer may be old: this host may have been stopped while it came.
        let until = match taken {
            Ok(taken) => taken.map(|_| asked_at + self.ttl).filter(|_| asked_at.elapsed() < self.ttl / 2),
            Err(error) => {
                tracing::warn!(lease = self.name, %error, "a scheduled function waits");
                None
            }
        };
        self.state.lock().until = until;
        until.is_some()
    }

    /// A function that is called rarely keeps its lease: another host would call it at once, which is too soon.
    pub async fn end(&self, leases: &dyn Leases) {
        let is_held = self.state.lock().until.take().is_some();
        if is_held
            && self.every <= Duration::from_millis(limits::SCHEDULE_LEASE_MS)
            && let Err(error) = leases.give_back(&self.name).await
        {
            tracing::warn!(lease = self.name, %error, "a lease ends by its time only");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;

    use super::*;
    use echo_capabilities::leases::{HeldLease, Lease, LeaseError};

    /// Answers as it is told to.
    #[derive(Default)]
    struct FakeLeases {
        answers: Mutex<Vec<Result<Option<Lease>, LeaseError>>>,
        asked: AtomicU64,
        given_back: AtomicU64,
    }

    #[async_trait]
    impl Leases for FakeLeases {
        async fn take(&self, name: &str, ttl: Duration) -> Result<Option<Lease>, LeaseError> {
            assert_eq!((name, ttl), ("schedule.message.sweep", EVERY + Duration::from_millis(limits::SCHEDULE_LEASE_MS)));
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.answers.lock().pop().unwrap_or(Ok(Some(Lease { epoch: 1 })))
        }

        async fn give_back(&self, _: &str) -> Result<(), LeaseError> {
            self.given_back.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }

        async fn held(&self) -> Result<Vec<HeldLease>, LeaseError> {
            Ok(Vec::new())
        }
    }

    const EVERY: Duration = Duration::from_millis(100);

    fn turn(every: Duration) -> Turn {
        Turn::new(&(ServiceName::parse("message").unwrap(), "sweep".to_owned()), every, Instant::now())
    }

    /// Whether it was called.
    async fn is_called(turn: &Turn, leases: &FakeLeases) -> bool {
        let mut called = false;
        turn.call(leases, async { called = true }).await;
        called
    }

    #[tokio::test]
    async fn it_calls_under_its_lease_and_asks_anew_when_half_of_it_is_over() {
        let (turn, leases) = (turn(EVERY), FakeLeases::default());
        for _ in 0..10 {
            assert!(is_called(&turn, &leases).await);
        }
        assert_eq!(leases.asked.load(Ordering::SeqCst), 1);
        turn.state.lock().until = Some(Instant::now() + turn.ttl / 3);
        assert!(is_called(&turn, &leases).await);
        assert_eq!(leases.asked.load(Ordering::SeqCst), 2);
        // Stopped for longer than the lease, after which another host has it.
        turn.state.lock().until = Instant::now().checked_sub(Duration::from_secs(1));
        leases.answers.lock().push(Ok(None));
        assert!(!is_called(&turn, &leases).await);
        assert!(
            turn.next_at() > Instant::now() + Duration::from_millis(limits::SCHEDULE_LEASE_ASK_MS / 2),
            "it asks again, and not at once"
        );
        assert!(is_called(&turn, &leases).await, "free again");
    }

    #[tokio::test]
    async fn while_nobody_knows_whose_the_lease_is_nothing_is_called() {
        let (turn, leases) = (turn(EVERY), FakeLeases::default());
        leases.answers.lock().push(Err(LeaseError("away".to_owned())));
        assert!(!is_called(&turn, &leases).await);
        assert!(is_called(&turn, &leases).await);
    }

    #[tokio::test]
    async fn a_host_that_ends_gives_back_what_is_called_often() {
        let (often, leases) = (turn(EVERY), FakeLeases::default());
        often.end(&leases).await;
        assert_eq!(leases.given_back.load(Ordering::SeqCst), 0, "it has none");
        assert!(is_called(&often, &leases).await);
        often.end(&leases).await;
        assert_eq!(leases.given_back.load(Ordering::SeqCst), 1);
        let seldom = turn(Duration::from_secs(60));
        seldom.state.lock().until = Some(Instant::now() + Duration::from_secs(60));
        seldom.end(&leases).await;
        assert_eq!(leases.given_back.load(Ordering::SeqCst), 1, "its lease ends when the next call is due");
    }
}
