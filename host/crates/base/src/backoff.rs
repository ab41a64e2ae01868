//! Pauses between attempts that fail.

use std::time::Duration;

/// Each pause is twice as long as the one before, up to a bound.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    next: Duration,
    first: Duration,
    last: Duration,
}

impl Backoff {
    pub fn from_ms(first: u64, last: u64) -> Self {
        let (first, last) = (Duration::from_millis(first), Duration::from_millis(last));
        Self { next: first, first, last }
    }

    /// The pause that comes now; the one after it is longer.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.last);
        pause
    }

    /// No attempt has failed since the last success.
    pub fn is_fresh(&self) -> bool {
        self.next == self.first
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::from_ms(100, 500);
        assert!(backoff.is_fresh());
        let pauses = [(); 5].map(|()| backoff.pause().as_millis());
        assert_eq!(pauses, [100, 200, 400, 500, 500]);
        assert!(!backoff.is_fresh());
        backoff.reset();
        assert_eq!(backoff.pause().as_millis(), 100);
    }
}
