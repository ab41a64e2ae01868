//! What the parts of one client share.

use std::sync::Arc;
use std::time::Duration;

use echo_base::backoff::Backoff;
use parking_lot::Mutex;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::credentials::Credentials;
use crate::error::Error;
use crate::events::{ConnectionState, Event};
use crate::feed::Feed;
use crate::outbox::Outbox;
use crate::storage::Storage;
use crate::transport::Http;
use crate::types::DeviceInput;

pub(crate) struct Shared {
    pub http: Http,
    pub storage: Storage,
    pub feed: Arc<Feed>,
    pub outbox: Mutex<Outbox>,
    /// There is more to be sent.
    pub outbox_changed: Notify,
    pub credentials: watch::Sender<Option<Arc<Credentials>>>,
    pub renewing: tokio::sync::Mutex<()>,
    pub connection: watch::Sender<ConnectionState>,
    /// A pause is cut short.
    pub wake: Notify,
    pub commands: mpsc::Sender<Command>,
    pub closed: CancellationToken,
    pub device: DeviceInput,
    pub backoff: Backoff,
    pub ack_gather: Duration,
}

/// A frame to be sent.
pub(crate) struct Command {
    pub kind: String,
    pub payload: Value,
    /// Told when it is answered; dropped when the connection ends before.
    pub answer: Option<oneshot::Sender<Result<Box<RawValue>, Error>>>,
}

impl Shared {
    pub fn now(&self, connection: ConnectionState) {
        if self.connection.send_replace(connection) != connection {
            self.feed.publish(&Event::Connection(connection));
        }
    }
}
