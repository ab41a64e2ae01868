//! The bytes of requests that are in memory at one time, bounded per user, per address and in total: bodies, and frames of sockets that wait
//! to be handled. Counted once for all edges. Knows no HTTP and no sockets.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::rates::Subject;
use echo_base::limits;

const SHARDS: usize = 16;

/// Bytes that may be held.
#[derive(Clone, Copy, Debug)]
pub struct InFlightBounds {
    pub total: usize,
    /// Of one IPv4 address or one /64 of IPv6.
    pub per_address: usize,
    pub per_user: usize,
}

impl Default for InFlightBounds {
    fn default() -> Self {
        Self { total: limits::BODIES_BYTES_MAX, per_address: limits::BODIES_ADDRESS_BYTES_MAX, per_user: limits::BODIES_USER_BYTES_MAX }
    }
}

/// Whose bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Total,
    Client,
}

/// What is held, of all clients and of each.
#[derive(Debug)]
pub struct InFlight {
    bounds: InFlightBounds,
    total: AtomicUsize,
    /// Of requests beyond `BODY_BYTES_SMALL`, by user and by address.
    clients: [Mutex<HashMap<Subject, usize>>; SHARDS],
    hasher: RandomState,
}

impl Default for InFlight {
    fn default() -> Self {
        Self::with_room_for(InFlightBounds::default(), limits::BODY_BYTES_MAX)
    }
}

impl InFlight {
    /// One request of `body_bytes_max` fits everywhere.
    pub fn with_room_for(bounds: InFlightBounds, body_bytes_max: usize) -> Self {
        let bounds = InFlightBounds {
            total: bounds.total.max(body_bytes_max),
            per_address: bounds.per_address.max(body_bytes_max),
            per_user: bounds.per_user.max(body_bytes_max),
        };
        Self { bounds, total: AtomicUsize::new(0), clients: Default::default(), hasher: RandomState::new() }
    }

    /// For one request of this client, or for all that wait of one socket; there are no bytes yet.
    pub fn hold(self: &Arc<Self>, address: Subject, user: Option<Subject>) -> Held {
        Held { all: self.clone(), address, user, bytes: 0, of_address: 0, of_user: 0 }
    }

    fn shard(&self, subject: &Subject) -> &Mutex<HashMap<Subject, usize>> {
        &self.clients[self.hasher.hash_one(subject) as usize % SHARDS]
    }

    fn add(&self, subject: Subject, bytes: usize, max: usize) -> Result<(), Full> {
        let mut clients = self.shard(&subject).lock();
        let held = clients.get(&subject).copied().unwrap_or_default() + bytes;
        if held > max {
            return Err(Full::Client);
        }
        clients.insert(subject, held);
        Ok(())
    }

    fn give_back(&self, subject: Subject, bytes: usize) {
        let mut clients = self.shard(&subject).lock();
        if let Some(held) = clients.get_mut(&subject) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                clients.remove(&subject);
            }
        }
    }
}

/// The bytes of one request's body, or of one socket's frames; they are free again when it is dropped.
pub struct Held {
    all: Arc<InFlight>,
    address: Subject,
    user: Option<Subject>,
    bytes: usize,
    of_address: usize,
    of_user: usize,
}

impl Held {
    /// So many more. After an error the request is to be refused.
    pub fn take(&mut self, bytes: usize) -> Result<(), Full> {
        let bounds = self.all.bounds;
        let before = self.all.total.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > bounds.total {
            return Err(Full::Total);
        }
        if self.bytes > limits::BODY_BYTES_SMALL {
            self.all.add(self.address, self.bytes - self.of_address, bounds.per_address)?;
            self.of_address = self.bytes;
            if let Some(user) = self.user {
                self.all.add(user, self.bytes - self.of_user, bounds.per_user)?;
                self.of_user = self.bytes;
            }
        }
        Ok(())
    }

    /// So many of those that were taken are free again.
    pub fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.all.total.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
        // Below the small size they count for their client no more, as if they had never been more.
        let counted = if self.bytes > limits::BODY_BYTES_SMALL { self.bytes } else { 0 };
        if self.of_address > counted {
            self.all.give_back(self.address, self.of_address - counted);
            self.of_address = counted;
        }
        if let Some(user) = self.user.filter(|_| self.of_user > counted) {
            self.all.give_back(user, self.of_user - counted);
            self.of_user = counted;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.total.fetch_sub(self.bytes, Ordering::Relaxed);
        if self.of_address > 0 {
            self.all.give_back(self.address, self.of_address);
        }
        if let Some(user) = self.user.filter(|_| self.of_user > 0) {
            self.all.give_back(user, self.of_user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const KIB: usize = 1024;

    fn address(text: &str) -> Subject {
        Subject::of_address(Some(text.parse().unwrap()))
    }

    fn bodies() -> Arc<InFlight> {
        Arc::new(InFlight::with_room_for(InFlightBounds { total: 100 * KIB, per_address: 40 * KIB, per_user: 20 * KIB }, 10 * KIB))
    }

    #[test]
    fn each_client_has_its_share_and_what_ends_makes_room() {
        let bodies = bodies();
        let (ada, bala) = (Some(Subject::User(Uuid::from_u128(1))), Some(Subject::User(Uuid::from_u128(2))));
        let mut of_ada = bodies.hold(address("192.0.2.1"), ada);
        of_ada.take(20 * KIB).unwrap();
        let mut more = bodies.hold(address("192.0.2.2"), ada);
        more.take(4 * KIB).expect("a small one does not count for its client");
        assert_eq!(more.take(1), Err(Full::Client), "from another address too");
        let mut of_bala = bodies.hold(address("192.0.2.1"), bala);
        of_bala.take(20 * KIB).unwrap();
        let mut of_nobody = bodies.hold(address("192.0.2.1"), None);
        assert_eq!(of_nobody.take(5 * KIB), Err(Full::Client), "the address is full");
        drop((of_ada, more));
        bodies.hold(address("192.0.2.1"), None).take(20 * KIB).unwrap();
        drop((of_bala, of_nobody));
        assert_eq!(bodies.total.load(Ordering::Relaxed), 0);
        assert!(bodies.clients.iter().all(|clients| clients.lock().is_empty()));
    }

    #[test]
    fn what_one_socket_gives_back_is_free_for_its_next_frames() {
        let bodies = bodies();
        let ada = Some(Subject::User(Uuid::from_u128(1)));
        let mut socket = bodies.hold(address("192.0.2.1"), ada);
        for _ in 0..5 {
            socket.take(4 * KIB).expect("within the user's bound");
        }
        assert_eq!(socket.take(KIB), Err(Full::Client));
        // What was refused is not held.
        socket.give_back(KIB);
        socket.give_back(4 * KIB);
        socket.take(4 * KIB).expect("one frame was handled");
        for _ in 0..5 {
            socket.give_back(4 * KIB);
        }
        assert!(socket.is_empty());
        assert_eq!(bodies.total.load(Ordering::Relaxed), 0);
        assert!(bodies.clients.iter().all(|clients| clients.lock().is_empty()));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let bodies = bodies();
        let mut one = bodies.hold(address("2001:db8::1"), None);
        one.take(40 * KIB).unwrap();
        assert_eq!(bodies.hold(address("2001:db8::ffff:2"), None).take(5 * KIB), Err(Full::Client));
        bodies.hold(address("2001:db8:0:1::1"), None).take(5 * KIB).unwrap();
    }

    #[test]
    fn all_together_have_a_bound_and_small_bodies_count_there() {
        let bodies = bodies();
        let held: Vec<_> = (0..25)
            .map(|n| {
                let mut held = bodies.hold(address(&format!("192.0.2.{n}")), None);
                held.take(4 * KIB).unwrap();
                held
            })
            .collect();
        assert_eq!(bodies.hold(address("198.51.100.1"), None).take(1), Err(Full::Total));
        drop(held);
        bodies.hold(address("198.51.100.1"), None).take(1).unwrap();
    }
}
