//! How far a consumer has come in a partition, as it is kept in the bucket. No I/O.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Numbers are those of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Of which subscription; one that was given up and made again begins anew.
    pub subscription: i64,
    /// All up to here is done but what is open.
    pub read: u64,
    /// By number: how often it was tried, and not before when it is tried again (microseconds since 1970).
    pub open: BTreeMap<u64, (u32, u64)>,
}

impl Progress {
    pub fn is_done(&self, seq: u64) -> bool {
        seq <= self.read && !self.open.contains_key(&seq)
    }

    /// Up to here nothing is needed any more.
    pub fn done_up_to(&self) -> u64 {
        self.open.keys().next().map_or(self.read, |first| first.saturating_sub(1).min(self.read))
    }
}

/// The key of a partition's progress.
pub fn progress_key(consumer: &str, topic: &str, partition: usize) -> String {
    format!("progress.{consumer}.{topic}.{partition}")
}

/// The key of a source's position. Keys of a bucket have no colons.
pub fn position_key(source: &str) -> String {
    format!("position.{}", source.replace(':', "="))
}
