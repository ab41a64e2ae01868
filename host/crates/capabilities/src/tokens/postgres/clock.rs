//! The database's time, as this host knows it: asked for now and then, and carried on by the monotonic clock in between. So the clocks of hosts are not
//! compared with each other, nor set back by their operators.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::tokens::Clock;
use echo_base::limits;

#[derive(Default)]
pub struct DatabaseClock(Mutex<Option<Measured>>);

#[derive(Clone, Copy)]
struct Measured {
    /// Microseconds since 1970.
    database_us: u64,
    at: Instant,
}

impl DatabaseClock {
    /// Nothing before the first measurement.
    pub fn clock(self: &Arc<Self>) -> Clock {
        let this = self.clone();
        Arc::new(move || this.0.lock().map_or(0, |measured| measured.database_us + measured.at.elapsed().as_micros() as u64))
    }

    /// What the database said, between `asked_at` and now.
    pub fn set(&self, database_us: u64, asked_at: Instant) {
        let round_trip = asked_at.elapsed();
        *self.0.lock() = Some(Measured { database_us, at: asked_at + round_trip / 2 });
    }

    /// As `set`, where the answer came soon enough to be worth more than what is known: half of the round trip is the error, of each of two hosts.
    pub fn measure(&self, database_us: u64, asked_at: Instant) {
        if asked_at.elapsed() <= Duration::from_millis(limits::TOKEN_CLOCK_MARGIN_MS) {
            self.set(database_us, asked_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_does_not_move_the_clock() {
        let database = Arc::new(DatabaseClock::default());
        let clock = database.clock();
        database.set(5_000_000_000, Instant::now());
        let late =
            Instant::now().checked_sub(Duration::from_millis(limits::TOKEN_CLOCK_MARGIN_MS + 1)).expect("this machine has run for longer");
        database.measure(9_000_000_000, late);
        assert!((5_000_000_000..6_000_000_000).contains(&clock()));
        database.measure(9_000_000_000, Instant::now());
        assert!((9_000_000_000..9_100_000_000).contains(&clock()));
    }
}
