//! The circumstances of a call: who, from where, until when. Made by the edge that received the root request, carried along every
//! call from service to service, never made by a guest.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

pub mod host;

/// The person and device behind a verified access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub user_id: Uuid,
    pub device_id: String,
    pub session_id: Uuid,
    pub roles: Vec<String>,
    /// Microseconds since 1970.
    pub issued_at_us: u64,
    pub expires_at_us: u64,
}

/// The client's network address, seen through the proxies that the operator trusts: an extension of every request to
/// the host itself. A service finds it in its call's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// One per root request; all the calls that it leads to share it.
#[derive(Clone, Debug)]
pub struct CallContext {
    pub caller: Option<Arc<Caller>>,
    pub request_id: Arc<str>,
    pub correlation_id: Arc<str>,
    pub client_address: Option<IpAddr>,
    pub user_agent: Option<Arc<str>>,
    /// W3C trace context header, handed on as it came.
    pub trace_parent: Option<Arc<str>>,
    pub idempotency_key: Option<Arc<str>>,
    pub event_id: Option<Arc<str>>,
    /// When the root request ends, whatever it is doing.
    pub deadline: Instant,
}
