//! Limits the events and pushes of calls: how many one call may make, and how fast a service makes those beyond its free allowance. They cost the host most
//! after the call, on threads that all services share, so a rate per service bounds them, however many calls and clients they come from.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::sql::{ErrorClass, SqlError};
use echo_base::limits;

const TURN: Duration = Duration::from_micros(1_000_000 / limits::EFFECTS_PACED_PER_SECOND);

/// The rate of one service's effects beyond each call's free allowance: a leaky bucket as a queue, kept as the time at which it is empty.
pub struct Pace {
    free_at: Mutex<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { free_at: Mutex::new(Instant::now()) }
    }
}

impl Pace {
    /// Adds so many turns to the queue, and returns when they are over. Never more than `EFFECTS_BEHIND_MS` from now: a caller after a flood does not wait for
    /// all of it.
    pub fn take(&self, turns: u32) -> Instant {
        let now = Instant::now();
        let mut free_at = self.free_at.lock();
        *free_at = (now.max(*free_at) + TURN * turns).min(now + Duration::from_millis(limits::EFFECTS_BEHIND_MS));
        *free_at
    }
}

/// The effects of one call.
#[derive(Default)]
pub struct Made {
    effects: usize,
    bytes: usize,
    users: usize,
    /// Turns that were taken for it.
    paced: u32,
}

impl Made {
    /// One more, for so many users. Errors: `TooLarge` where that is too much for a call; it is not counted then.
    pub fn add(&mut self, bytes: usize, users: usize) -> Result<(), SqlError> {
        if self.effects >= limits::EFFECTS_PER_CALL_MAX || self.bytes + bytes > limits::EFFECT_BYTES_PER_CALL_MAX {
            let message = format!(
                "more than {} events and pushes, or {} bytes of them, in one call",
                limits::EFFECTS_PER_CALL_MAX,
                limits::EFFECT_BYTES_PER_CALL_MAX
            );
            return Err(SqlError::new(ErrorClass::TooLarge, message));
        }
        self.effects += 1;
        self.bytes += bytes;
        self.users += users;
        Ok(())
    }

    /// The turns to take for the effects since the last time this was called, as far as they are beyond the call's free allowance.
    pub fn turns(&mut self, free: usize) -> u32 {
        let all = self.effects.saturating_sub(free * limits::EFFECTS_FREE)
            + self.users.saturating_sub(free * limits::EFFECT_USERS_FREE) / limits::EFFECT_TURN_USERS
            + self.bytes.saturating_sub(free * limits::EFFECT_BYTES_FREE) / limits::EFFECT_TURN_BYTES;
        let all = u32::try_from(all).unwrap_or(u32::MAX);
        all - std::mem::replace(&mut self.paced, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_makes_so_many_and_no_more() {
        let mut made = Made::default();
        for _ in 0..limits::EFFECTS_PER_CALL_MAX {
            made.add(1, 1).expect("within the bound");
        }
        assert_eq!(made.add(1, 1).expect_err("one too many").class, ErrorClass::TooLarge);
        let mut made = Made::default();
        made.add(limits::EFFECT_BYTES_PER_CALL_MAX - 10, 1).expect("within the bound");
        assert_eq!(made.add(11, 1).expect_err("too large").class, ErrorClass::TooLarge);
        made.add(10, 1).expect("what is refused takes no room");
    }

    #[test]
    fn what_is_free_is_free_and_everything_else_has_its_turn_once() {
        let mut made = Made::default();
        let mut turns_after = |effects: usize, bytes: usize, users: usize| {
            (0..effects).for_each(|_| made.add(bytes, users).expect("within the bound"));
            made.turns(2)
        };
        assert_eq!(turns_after(2, limits::EFFECT_BYTES_FREE, limits::EFFECT_USERS_FREE), 0);
        assert_eq!(turns_after(1, 4 * limits::EFFECT_TURN_BYTES, 3 * limits::EFFECT_TURN_USERS), 7, "bytes and users");
        assert_eq!(turns_after(0, 0, 0), 0);
        assert_eq!(turns_after(2 * limits::EFFECTS_FREE, 0, 0), 3, "and these were three more before");
    }

    #[test]
    fn turns_queue_up_and_not_without_end() {
        let pace = Pace::default();
        let begin = Instant::now();
        let first = pace.take(10);
        assert!(first >= begin + 10 * TURN);
        let second = pace.take(10);
        assert!(second >= first + 10 * TURN, "one after the other, whoever takes them");
        let last = (0..100).map(|_| pace.take(u32::from(u16::MAX))).last().expect("some");
        assert!(last <= Instant::now() + Duration::from_millis(limits::EFFECTS_BEHIND_MS));
    }
}
