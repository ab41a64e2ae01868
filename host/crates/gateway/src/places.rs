//! The places of open connections: so many in all, and so many of one address. Knows no HTTP.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use echo_edge::rates::Subject;

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    Full,
    /// This address, or its /64 of IPv6, has as many as one may have.
    FullForAddress,
}

pub struct Places {
    room: Arc<Semaphore>,
    per_address_max: usize,
    by_address: Mutex<HashMap<Subject, usize>>,
}

impl Places {
    pub fn new(max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self { room: Arc::new(Semaphore::new(max)), per_address_max, by_address: Mutex::default() })
    }

    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, NoPlace> {
        let permit = self.room.clone().try_acquire_owned().map_err(|_| NoPlace::Full)?;
        let address = Subject::of_address(Some(address.to_canonical()));
        let mut by_address = self.by_address.lock();
        let count = by_address.entry(address).or_default();
        if *count >= self.per_address_max {
            return Err(NoPlace::FullForAddress);
        }
        *count += 1;
        Ok(Place { places: self.clone(), address, _permit: permit })
    }
}

/// Free again when it is dropped.
pub struct Place {
    places: Arc<Places>,
    address: Subject,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.places.by_address.lock();
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
        let places = Places::new(4, 2);
        let take = |address: &str| places.take(address.parse().unwrap());
        let (one, two) = (take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap());
        assert_eq!(take("2001:db8::3").err(), Some(NoPlace::FullForAddress), "one /64 is one address");
        let three = take("192.0.2.1").unwrap();
        let four = take("::ffff:192.0.2.1").unwrap();
        assert_eq!(take("198.51.100.1").err(), Some(NoPlace::Full));
        drop(one);
        let _five = take("2001:db8::3").unwrap();
        drop((two, three, four));
        assert_eq!(places.by_address.lock().len(), 1, "who is gone is forgotten");
    }
}
