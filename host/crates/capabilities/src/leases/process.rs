//! The leases of a host that is alone: it has all that it asks for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{HeldLease, Lease, LeaseError, Leases};

pub struct ProcessLeases {
    node: String,
    /// By name: the epoch, and until when.
    taken: Mutex<BTreeMap<String, (u64, Option<Instant>)>>,
}

impl ProcessLeases {
    pub fn new(node: &str) -> Self {
        Self { node: node.to_owned(), taken: Mutex::default() }
    }
}

#[async_trait]
impl Leases for ProcessLeases {
    async fn take(&self, name: &str, ttl: Duration) -> Result<Option<Lease>, LeaseError> {
        let mut taken = self.taken.lock();
        let (epoch, until) = taken.entry(name.to_owned()).or_insert((0, None));
        if until.is_none() {
            *epoch += 1;
        }
        *until = Some(Instant::now() + ttl);
        Ok(Some(Lease { epoch: *epoch }))
    }

    async fn give_back(&self, name: &str) -> Result<(), LeaseError> {
        if let Some((_, until)) = self.taken.lock().get_mut(name) {
            *until = None;
        }
        Ok(())
    }

    async fn held(&self) -> Result<Vec<HeldLease>, LeaseError> {
        let now = Instant::now();
        let taken = self.taken.lock();
        let held = taken.iter().filter(|(_, (_, until))| until.is_some_and(|until| until > now));
        Ok(held.map(|(name, (epoch, _))| HeldLease { name: name.clone(), node: self.node.clone(), epoch: *epoch }).collect())
    }
}
