//! Limits how many durable events one person may cause in another's feed, and one service in any feed. A feed keeps its newest `FEED_EVENTS_MAX` entries: without
//! a limit a stranger could push out what others wrote. A leaky bucket for each pair (ITU-T I.371, generic cell rate algorithm).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

use echo_base::limits;

const SHARDS: usize = 16;
const DAY_US: u64 = 24 * 60 * 60 * 1_000_000;

/// Persons, of all services together; or one service.
pub struct Senders {
    began: Instant,
    /// Multiplies the limits.
    scale: u32,
    /// One event's room is free again after so many microseconds; and so many events may come at once.
    interval_us: u64,
    burst: u64,
    /// By pair: when all its room is free again, in microseconds since `began`. A sender's pairs are all in one shard.
    shards: [Mutex<HashMap<(Uuid, Uuid), u64>>; SHARDS],
    pairs_per_shard_max: usize,
}

impl Senders {
    /// `scale` multiplies the limits.
    pub fn new(scale: u32) -> Self {
        Self::with_pairs_max(limits::FEED_SENDER_EVENTS_PER_DAY, limits::FEED_SENDER_EVENTS_BURST, scale, limits::FEED_SENDER_PAIRS_MAX)
    }

    /// One service, whose manifest says how many a day in the feed of one user. The scale is that of the persons.
    pub fn of_service(per_day: u32, persons: &Senders) -> Self {
        let per_day = u64::from(per_day.max(1));
        // All of its pairs are in one of the shards.
        let burst = (per_day / limits::FEED_SERVICE_BURST_SHARE).max(1);
        Self::with_pairs_max(per_day, burst, persons.scale, limits::FEED_SENDER_PAIRS_MAX)
    }

    fn with_pairs_max(per_day: u64, burst: u64, scale: u32, pairs_max: usize) -> Self {
        let scale = scale.max(1);
        Self {
            began: Instant::now(),
            scale,
            interval_us: (DAY_US / per_day / u64::from(scale)).max(1),
            burst: burst * u64::from(scale),
            shards: std::array::from_fn(|_| Mutex::default()),
            pairs_per_shard_max: pairs_max / SHARDS,
        }
    }

    /// Counts an event of the sender in each of these feeds; the sender's own feed has no limit. Errors: how long until there is room in all of them; nothing
    /// is counted then.
    pub fn take(&self, sender: Uuid, users: &[Uuid]) -> Result<(), Duration> {
        self.take_at(sender, users, u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// As `take`, for what the service itself pushes, whoever caused it.
    pub fn take_of_service(&self, users: &[Uuid]) -> Result<(), Duration> {
        self.take(Uuid::nil(), users)
    }

    fn take_at(&self, sender: Uuid, users: &[Uuid], now_us: u64) -> Result<(), Duration> {
        let burst_us = self.interval_us * self.burst;
        // The last byte of a UUIDv7 is random.
        let mut pairs = self.shards[usize::from(sender.as_bytes()[15]) % SHARDS].lock();
        let others = || users.iter().filter(|user| **user != sender);
        for user in others() {
            let free_at_us = pairs.get(&(sender, *user)).map_or(now_us, |at| now_us.max(*at)) + self.interval_us;
            if free_at_us > now_us + burst_us {
                return Err(Duration::from_micros(free_at_us - now_us - burst_us));
            }
        }
        if pairs.len() + users.len() > self.pairs_per_shard_max {
            pairs.retain(|_, free_at_us| *free_at_us > now_us);
            if pairs.len() + users.len() > self.pairs_per_shard_max {
                // Full: forget the pairs that caused little, and keep those that flood.
                pairs.retain(|_, free_at_us| *free_at_us > now_us + burst_us / 2);
            }
        }
        for user in others() {
            let free_at_us = pairs.entry((sender, *user)).or_insert(now_us);
            *free_at_us = now_us.max(*free_at_us) + self.interval_us;
        }
        Ok(())
    }
}

const _: () = assert!(
    limits::FEED_SENDER_EVENTS_BURST + limits::FEED_SENDER_EVENTS_PER_DAY < limits::FEED_EVENTS_MAX,
    "nobody fills another's feed within a day"
);

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: u64 = limits::FEED_SENDER_EVENTS_BURST;

    #[test]
    fn a_person_causes_so_many_events_in_anothers_feed_and_no_more() {
        let senders = Senders::new(1);
        let [sender, other, third] = [(); 3].map(|()| Uuid::now_v7());
        for _ in 0..BURST {
            senders.take_at(sender, &[sender, other], 0).expect("within the burst");
        }
        let wait = senders.take_at(sender, &[third, other], 0).expect_err("one too many");
        assert_eq!(wait, Duration::from_micros(senders.interval_us));
        senders.take_at(sender, &[third], 0).expect("what was refused was not counted");
        senders.take_at(third, &[other], 0).expect("another sender");
        for _ in 0..2 * BURST {
            senders.take_at(sender, &[sender], 0).expect("one's own");
        }
        senders.take_at(sender, &[other], senders.interval_us).expect("one came free");
        senders.take_at(sender, &[other], senders.interval_us).expect_err("and only one");
        let all_day = (0..).map_while(|_| senders.take_at(other, &[third], DAY_US).ok()).count() as u64;
        assert_eq!(all_day, BURST);
    }

    #[test]
    fn the_scale_multiplies_what_is_allowed() {
        let senders = Senders::new(1_000);
        let [sender, other] = [(); 2].map(|()| Uuid::now_v7());
        let at_once = (0..).map_while(|_| senders.take_at(sender, &[other], 0).ok()).count() as u64;
        assert_eq!(at_once, 1_000 * BURST);
        senders.take_at(sender, &[other], DAY_US / limits::FEED_SENDER_EVENTS_PER_DAY / 1_000).expect("one came free");
    }

    #[test]
    fn who_floods_is_remembered_though_there_are_many() {
        let senders = Senders::with_pairs_max(limits::FEED_SENDER_EVENTS_PER_DAY, BURST, 1, SHARDS * 1_000);
        let [sender, victim] = [(); 2].map(|()| Uuid::now_v7());
        for _ in 0..BURST {
            senders.take_at(sender, &[victim], 0).expect("within the burst");
        }
        for _ in 0..20 {
            let many: Vec<Uuid> = (0..100).map(|_| Uuid::now_v7()).collect();
            senders.take_at(sender, &many, 0).expect("others");
        }
        senders.take_at(sender, &[victim], 0).expect_err("still too many");
        assert!(senders.shards.iter().map(|shard| shard.lock().len()).sum::<usize>() <= 1_000);
    }
}
