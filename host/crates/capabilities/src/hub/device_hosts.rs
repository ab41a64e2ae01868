//! On which host each connected device is, where several hosts share a database.

use async_trait::async_trait;
use serde_json::json;
use uuid::Uuid;

use super::FeedError;
use crate::events::Event;

pub const CONNECTED: &str = "hub.connected";
pub const DISCONNECTED: &str = "hub.disconnected";

/// A device's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSocket {
    pub connection_id: Uuid,
    pub user_id: Uuid,
    pub device_id: String,
    pub session_id: Uuid,
}

impl DeviceSocket {
    /// The event of `echo:hub/events` that says so. `id`: the same however often it is written. `at_us`: microseconds since 1970.
    pub fn event(&self, topic: &str, id: Uuid, at_us: u64) -> Event {
        let Self { connection_id, user_id, device_id, session_id } = self;
        let payload = json!({ "connection_id": connection_id, "user_id": user_id, "device_id": device_id, "session_id": session_id });
        Event { id, topic: topic.to_owned(), key: user_id.to_string(), payload: payload.to_string(), at_us, correlation_id: id.to_string() }
    }
}

/// A device that this host has claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Of two claims of one device the newer has the higher one.
    pub epoch: u64,
    /// The host that had the device before, where that is another one.
    pub replaced: Option<String>,
}

/// Some of what a host has claimed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimedPage {
    /// User, device, epoch.
    pub devices: Vec<(Uuid, String, u64)>,
    /// The last user of the page; none where there are no further ones.
    pub up_to: Option<Uuid>,
}

impl ClaimedPage {
    /// `devices`: in the order of the users' ids, at most `limit`. Where there are so many, the last user's may not be all.
    pub fn of(mut devices: Vec<(Uuid, String, u64)>, limit: usize) -> Self {
        if devices.len() < limit {
            return Self { devices, up_to: None };
        }
        let last = devices.last().map(|(user, ..)| *user);
        if devices.first().map(|(user, ..)| *user) != last {
            devices.retain(|(user, ..)| Some(*user) != last);
        }
        let up_to = devices.last().map(|(user, ..)| *user);
        Self { devices, up_to }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("the user has as many devices connected as may be")]
    TooManyDevices,
    #[error(transparent)]
    Unavailable(#[from] FeedError),
}

/// Which events the queue has subscribers for; the others need not be written.
#[derive(Clone, Copy, Debug)]
pub struct Announced {
    pub connected: bool,
    pub disconnected: bool,
}

#[async_trait]
pub trait DeviceHosts: Send + Sync {
    /// The device is on this host from now on, wherever it was. Writes `hub.connected` in the same transaction where it was nowhere.
    async fn claim(&self, socket: &DeviceSocket, devices_max: usize, announced: Announced) -> Result<Claimed, ClaimError>;
    /// As `claim`, for a socket that is open and is claimed by no host any more; its new epoch. None: another host has the device.
    async fn claim_again(&self, socket: &DeviceSocket, announced: Announced) -> Result<Option<u64>, FeedError>;
    /// Devices have gone, those that are still claimed under these epochs; writes `hub.disconnected` for them in the same transaction.
    async fn release_devices(&self, sockets: &[(DeviceSocket, u64)], announced: Announced) -> Result<(), FeedError>;
    /// As `release_devices`, for what this host claimed before it was started.
    async fn release_own(&self, announced: Announced) -> Result<u64, FeedError>;
    /// As `release_devices`, for some of what hosts claimed that are no longer there; how many.
    async fn release_of_lost_hosts(&self, announced: Announced) -> Result<u64, FeedError>;
    /// The other hosts where these users have devices.
    async fn locate(&self, users: &[Uuid]) -> Result<Vec<(Uuid, String)>, FeedError>;
    /// Which of the users have a device connected, on whichever host.
    async fn online(&self, users: &[Uuid]) -> Result<Vec<Uuid>, FeedError>;
    /// About so many devices that this host has claimed, of the users after this one in the order of their ids, and of each of these users all.
    async fn claimed(&self, after: Uuid, limit: usize) -> Result<ClaimedPage, FeedError>;
    /// The newest seq of these users' feeds; none for an empty feed.
    async fn heads(&self, users: &[Uuid]) -> Result<Vec<(Uuid, u64)>, FeedError>;
}
