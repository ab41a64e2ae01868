//! How many connections may be open: in all, and from one address. Knows no HTTP.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use echo_edge::rates::Subject;

/// Why a connection is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitReached {
    Total,
    /// This address, or its /64 of IPv6, has as many as one may have.
    OfAddress,
}

/// Counts the open connections.
pub struct ConnectionLimits {
    permits: Arc<Semaphore>,
    per_address_max: usize,
    by_address: Mutex<HashMap<Subject, usize>>,
}

impl ConnectionLimits {
    pub fn new(max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self { permits: Arc::new(Semaphore::new(max)), per_address_max, by_address: Mutex::default() })
    }

    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionPermit, LimitReached> {
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| LimitReached::Total)?;
        let address = Subject::of_address(Some(address.to_canonical()));
        let mut by_address = self.by_address.lock();
        let count = by_address.entry(address).or_default();
        if *count >= self.per_address_max {
            return Err(LimitReached::OfAddress);
        }
        *count += 1;
        Ok(ConnectionPermit { limits: self.clone(), address, _permit: permit })
    }
}

/// Counts one open connection until it is dropped.
pub struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    address: Subject,
    _permit: OwnedSemaphorePermit,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut by_address = self.limits.by_address.lock();
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_leaves_the_others_theirs() {
        let limits = ConnectionLimits::new(4, 2);
        let take = |address: &str| limits.take(address.parse().unwrap());
        let (one, two) = (take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap());
        assert_eq!(take("2001:db8::3").err(), Some(LimitReached::OfAddress), "one /64 is one address");
        let three = take("192.0.2.1").unwrap();
        let four = take("::ffff:192.0.2.1").unwrap();
        assert_eq!(take("198.51.100.1").err(), Some(LimitReached::Total));
        drop(one);
        let _five = take("2001:db8::3").unwrap();
        drop((two, three, four));
        assert_eq!(limits.by_address.lock().len(), 1, "who is gone is forgotten");
    }
}
