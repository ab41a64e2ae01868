//! How far a source has come in a life of the streams, and which of its events every consumer is done with. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::progress::Progress;

/// Where an event of a source is in the stream, or at the latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub topic: String,
    pub partition: usize,
    pub seq: u64,
}

#[derive(Default)]
pub struct Source {
    life: u64,
    /// The highest that was appended; None where nothing was, or where it is not read yet.
    pub position: Option<i64>,
    pub is_read: bool,
    /// By position.
    unconfirmed: BTreeMap<i64, Published>,
}

impl Source {
    /// In another life nothing of it is published yet.
    pub fn enter(&mut self, life: u64) {
        if self.life != life {
            *self = Self { life, ..Self::default() };
        }
    }

    pub fn is_of(&self, life: u64) -> bool {
        self.life == life
    }

    pub fn unconfirmed_count(&self) -> u64 {
        self.unconfirmed.len() as u64
    }

    pub fn is_unconfirmed(&self, position: i64) -> bool {
        self.unconfirmed.contains_key(&position)
    }

    pub fn published(&mut self, position: i64, published: Published) {
        self.unconfirmed.insert(position, published);
    }

    /// The topics and partitions in which there is something to confirm.
    pub fn open(&self) -> BTreeSet<(String, usize)> {
        self.unconfirmed.values().map(|published| (published.topic.clone(), published.partition)).collect()
    }

    /// Takes out what all are done with: by topic and partition, how far each consumer has come there. What is in none of these is left.
    pub fn confirm(&mut self, progress: &BTreeMap<(String, usize), Vec<Progress>>) -> Vec<i64> {
        let mut confirmed = Vec::new();
        self.unconfirmed.retain(|position, published| {
            let consumers = progress.get(&(published.topic.clone(), published.partition));
            let is_done = consumers.is_some_and(|consumers| consumers.iter().all(|progress| progress.is_done(published.seq)));
            if is_done {
                confirmed.push(*position);
            }
            !is_done
        });
        confirmed
    }
}

/// The places of events among which those of one key follow each other: each list is published when the one before it was acknowledged, so that an event that is
/// lost on the way, and published again, does not come after a later one of its key.
pub fn waves<'a>(keys: impl Iterator<Item = &'a str>) -> Vec<Vec<usize>> {
    let mut next_of_key: BTreeMap<&str, usize> = BTreeMap::new();
    let mut waves: Vec<Vec<usize>> = Vec::new();
    for (place, key) in keys.enumerate() {
        let next = next_of_key.entry(key).or_default();
        if waves.len() == *next {
            waves.push(Vec::new());
        }
        waves[*next].push(place);
        *next += 1;
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(partition: usize, seq: u64) -> Published {
        Published { topic: "a.a".to_owned(), partition, seq }
    }

    #[test]
    fn an_event_is_confirmed_when_all_are_done_with_it_and_others_do_not_hold_it_back() {
        let mut source = Source::default();
        source.enter(1);
        for position in 1..=4 {
            source.published(position, published(0, position as u64));
        }
        source.published(5, published(1, 9));
        assert_eq!(source.open().len(), 2);
        let ahead = Progress { read: 4, open: BTreeMap::from([(2, (3, 7))]), ..Progress::default() };
        let behind = Progress { read: 3, ..Progress::default() };
        let known = BTreeMap::from([(("a.a".to_owned(), 0), vec![ahead, behind])]);
        assert_eq!(source.confirm(&known), [1, 3], "2 is tried again, 4 was not reached by all, of 5 nothing is known");
        assert_eq!(source.confirm(&known), [] as [i64; 0]);
        assert_eq!(source.unconfirmed_count(), 3);
        let nobody = BTreeMap::from([(("a.a".to_owned(), 1), Vec::new())]);
        assert_eq!(source.confirm(&nobody), [5], "nobody subscribes to it");
        source.enter(2);
        assert_eq!(source.unconfirmed_count(), 0, "it is handed over again");
    }

    #[test]
    fn events_of_one_key_are_published_one_after_another() {
        let keys = ["a", "b", "a", "c", "a", "b"];
        assert_eq!(waves(keys.into_iter()), [vec![0, 1, 3], vec![2, 5], vec![4]]);
        assert_eq!(waves(std::iter::empty()), Vec::<Vec<usize>>::new());
    }
}
