//! Messages between hosts: what one host says, the others hear at once, or not at all. Nothing is kept, and a message may be lost, so whoever listens can do
//! without: what was missed is in PostgreSQL, and `Delivery::Interrupted` says when to look there.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

pub mod nats;
pub mod redis;
#[cfg(test)]
mod suite;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bus between hosts cannot be reached: {0}")]
pub struct BusError(pub String);

/// What a subscription yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    Message(Bytes),
    /// The connection was lost and is there again, or the subscriber was too slow: messages may be missing before this.
    Interrupted,
}

/// Never ends while the bus is there.
pub type Subscription = BoxStream<'static, Delivery>;

#[async_trait]
pub trait HubBus: Send + Sync {
    /// Sends to whoever subscribes to the subject just now, on this host too. A subject's messages of one host arrive in their order. At most
    /// `BUS_MESSAGE_BYTES_MAX`. Errors: the bus is away; the message is lost then.
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError>;
    /// Subscribes to all of these subjects. Also while the bus is away: `Interrupted` comes when it is there.
    async fn subscribe(&self, subjects: &[&str]) -> Subscription;
    async fn ping(&self) -> Result<(), BusError>;
}
