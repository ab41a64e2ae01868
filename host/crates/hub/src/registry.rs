//! Who is connected: users, their devices, the connection of each. Takes deliveries for them and never blocks; the services' `Sockets`.
//! Knows no protocol: what it hands over is taken up by each socket's own loop.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::RwLock;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use uuid::Uuid;

use super::close::Close;
use super::connection::Connection;
use super::frame::{self, DurableBody};
use echo_base::limits;
use echo_capabilities::hub::DeviceSocket;
use echo_capabilities::hub::{FeedEntry, FeedError, Push, Sockets};

/// A device came, with its first socket, or went, with its last: one that takes another's place changes nothing. `echo:hub/events` is
/// published from these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Connected(DeviceSocket),
    Disconnected(DeviceSocket),
}

/// Called with every change, in the order of each device's changes, and with the epoch of the device's claim, where it has one. Must not block.
pub type ChangeSink = Box<dyn Fn(Change, u64) + Send + Sync>;

/// Users are spread over this many locks.
const SHARDS: usize = 64;

pub struct Registry {
    shards: [RwLock<HashMap<Uuid, Vec<Arc<Connection>>>>; SHARDS],
    open: AtomicUsize,
    draining: AtomicBool,
    changes: Option<ChangeSink>,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    TooManyDevices,
    GoingDown,
}

/// A place in the registry; given up when dropped.
pub(super) struct Registration {
    registry: Arc<Registry>,
    connection: Arc<Connection>,
    left: bool,
}

impl Registry {
    pub fn new(changes: Option<ChangeSink>) -> Arc<Self> {
        Arc::new(Self {
            shards: std::array::from_fn(|_| RwLock::default()),
            open: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            changes,
        })
    }

    /// Open sockets.
    pub fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The open sockets, at most `limit` of them, in no order.
    pub fn connections(&self, limit: usize) -> Vec<DeviceSocket> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.read();
            found.extend(shard.values().flatten().take(limit - found.len()).map(|connection| connection.socket()));
        }
        found
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Takes a connection in. One of the same device that is here already is asked to close.
    pub(super) fn register(self: &Arc<Self>, mut connection: Connection, devices_max: usize) -> Result<Registration, Refused> {
        let connection = {
            let mut shard = self.shard(connection.user).write();
            // Looked at under the lock: a drain that has passed this shard has set it before.
            if self.is_draining() {
                return Err(Refused::GoingDown);
            }
            // Given under the lock, so that of two sockets of one device the newer has the higher one.
            connection.id = Uuid::now_v7();
            let connection = Arc::new(connection);
            let devices = shard.entry(connection.user).or_insert_with(|| Vec::with_capacity(1));
            match devices.iter().position(|other| other.device == connection.device) {
                Some(older) => std::mem::replace(&mut devices[older], connection.clone()).close(Close::Replaced),
                None if devices.len() >= devices_max => return Err(Refused::TooManyDevices),
                None => {
                    devices.push(connection.clone());
                    self.note(Change::Connected, &connection);
                }
            }
            connection
        };
        self.set_open(self.open.fetch_add(1, Ordering::Relaxed) + 1);
        Ok(Registration { registry: self.clone(), connection, left: false })
    }

    /// The socket of this device, where it has one.
    pub(super) fn connection_of(&self, user: Uuid, device: &str) -> Option<Arc<Connection>> {
        let shard = self.shard(user).read();
        shard.get(&user)?.iter().find(|connection| &*connection.device == device).cloned()
    }

    /// Takes no more connections, and says goodbye to those that are here.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.send_away();
    }

    /// Closes all with a goodbye, each to come back at its own time.
    pub(super) fn send_away(&self) {
        let window_ms =
            limits::RECONNECT_FIRST_MS + (self.count() as u64).clamp(1_000, limits::RECONNECT_LAST_MS - limits::RECONNECT_FIRST_MS);
        self.for_each(|connection| {
            connection.close(Close::GoingDown { retry_after_ms: rand::random_range(limits::RECONNECT_FIRST_MS..=window_ms) });
        });
    }

    /// Those who have a socket here.
    pub(super) fn users(&self) -> Vec<Uuid> {
        self.shards.iter().flat_map(|shard| shard.read().keys().copied().collect::<Vec<_>>()).collect()
    }

    /// All sockets here.
    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        self.shards.iter().flat_map(|shard| shard.read().values().flatten().cloned().collect::<Vec<_>>()).collect()
    }

    /// The feed of the user reaches up to here: sockets that are not so far read it.
    pub(super) fn note_head(&self, user: Uuid, head: u64) {
        for connection in self.shard(user).read().get(&user).into_iter().flatten() {
            connection.note_head(head);
        }
    }

    fn shard(&self, user: Uuid) -> &RwLock<HashMap<Uuid, Vec<Arc<Connection>>>> {
        // The last byte of a UUIDv7 is random.
        &self.shards[usize::from(user.as_bytes()[15]) % SHARDS]
    }

    fn for_each(&self, mut visit: impl FnMut(&Connection)) {
        for shard in &self.shards {
            shard.read().values().flatten().for_each(|connection| visit(connection));
        }
    }

    fn unregister(&self, connection: &Arc<Connection>) {
        {
            let mut shard = self.shard(connection.user).write();
            // It is no longer there where a newer one took its place.
            if let Some(devices) = shard.get_mut(&connection.user)
                && let Some(at) = devices.iter().position(|other| Arc::ptr_eq(other, connection))
            {
                devices.remove(at);
                if devices.is_empty() {
                    shard.remove(&connection.user);
                }
                self.note(Change::Disconnected, connection);
            }
        }
        self.set_open(self.open.fetch_sub(1, Ordering::Relaxed) - 1);
    }

    fn note(&self, change: fn(DeviceSocket) -> Change, connection: &Connection) {
        if let Some(changes) = &self.changes {
            changes(change(connection.socket()), connection.epoch.load(Ordering::SeqCst));
        }
    }

    fn set_open(&self, count: usize) {
        metrics::gauge!("echo_hub_sockets").set(count as f64);
    }
}

#[async_trait]
impl Sockets for Registry {
    fn deliver(&self, entries: &[FeedEntry]) {
        let mut encoded: Option<(&FeedEntry, Arc<DurableBody>)> = None;
        for entry in entries {
            let shard = self.shard(entry.user).read();
            let Some(devices) = shard.get(&entry.user) else { continue };
            let body = match &encoded {
                Some((other, body)) if is_same_push(other, entry) => body,
                Some(_) | None => &encoded.insert((entry, DurableBody::of(entry))).1,
            };
            for device in devices {
                device.push_durable(entry.seq, body);
            }
        }
    }

    fn deliver_ephemeral(&self, push: &Push) {
        let mut encoded: Option<Utf8Bytes> = None;
        for user in &push.users {
            let shard = self.shard(*user).read();
            let Some(devices) = shard.get(user) else { continue };
            let text = encoded.get_or_insert_with(|| frame::event(&push.event, &push.payload).into());
            for device in devices {
                if !device.push_ephemeral(text) {
                    metrics::counter!("echo_hub_ephemeral_dropped_total").increment(1);
                }
            }
        }
    }

    async fn online(&self, users: &[Uuid]) -> Result<Vec<Uuid>, FeedError> {
        Ok(users.iter().copied().filter(|user| self.shard(*user).read().contains_key(user)).collect())
    }

    fn disconnect_session(&self, session: Uuid) {
        self.for_each(|connection| {
            if connection.session == session {
                connection.close(Close::TokenRevoked);
            }
        });
    }

    fn disconnect_user(&self, user: Uuid) {
        for connection in self.shard(user).read().get(&user).into_iter().flatten() {
            connection.close(Close::TokenRevoked);
        }
    }
}

/// Entries of one push stand together and share their payload; then they differ in nothing but user and seq.
pub(super) fn is_same_push(one: &FeedEntry, other: &FeedEntry) -> bool {
    Arc::ptr_eq(&one.payload, &other.payload) && one.event == other.event && one.at_us == other.at_us
}

impl Connection {
    pub fn socket(&self) -> DeviceSocket {
        DeviceSocket { connection_id: self.id, user_id: self.user, device_id: self.device.to_string(), session_id: self.session }
    }
}

impl Registration {
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Gives the place up before the socket is quite closed.
    pub fn leave(&mut self) {
        if !std::mem::replace(&mut self.left, true) {
            self.registry.unregister(&self.connection);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.leave();
    }
}
