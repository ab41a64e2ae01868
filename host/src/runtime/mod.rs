//! The services: which versions are live, how a call reaches an instance, how a version is swapped. Knows no HTTP and no backends.

use std::sync::Arc;

use bytes::Bytes;

use crate::capabilities::context::CallContext;
pub use crate::contract::{ErrorKind, FieldError, Input, ServiceError};
use crate::names::ServiceName;

pub mod artifact;
pub mod manifest;

/// A snapshot of what is live. A root request pins one and every service it reaches is taken from it.
pub struct Catalogue {
    /// Rises with every swap.
    pub number: u64,
}

/// A function of a service, found by a route, a socket frame or a schedule in one catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallTarget {
    pub service: ServiceName,
    /// Index into the service's bindings; meaningful only in the catalogue it came from.
    pub binding: usize,
}

/// A route of a live service.
pub struct RouteEntry {
    pub target: CallTarget,
    /// The whole path with `{variables}`, without a trailing slash.
    pub path: String,
    pub route: Arc<manifest::Route>,
}

impl Catalogue {
    pub fn routes(&self) -> &[RouteEntry] {
        &[]
    }

    /// The function bound to a frame's type.
    pub fn socket(&self, event: &str) -> Option<&CallTarget> {
        let _ = event;
        None
    }

    /// The OpenAPI 3.1 document of all live services; made once per catalogue.
    pub fn openapi(&self) -> Bytes {
        Bytes::new()
    }

    /// Live services and whether each is able to serve, for `/ready`.
    pub fn services(&self) -> Vec<ServiceName> {
        Vec::new()
    }
}

/// A success.
pub struct Reply {
    /// The JSON document; none for functions without a result.
    pub body: Option<Bytes>,
    /// The boolean that the route's `status_unless` asks for.
    pub status_flag: Option<bool>,
}

/// Why a call gave no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No JSON at all, or nested too deep (400).
    #[error("the request cannot be read: {0}")]
    Unreadable(String),
    /// JSON of the wrong shape (422), every wrong field named.
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    /// The service answered with an error.
    #[error("declined: {}", .0.code)]
    Declined(ServiceError),
    /// No slot became free in time (503).
    #[error("the service is busy")]
    Busy,
    /// The service is not there, or its breaker is open (503).
    #[error("the service is unavailable: {0}")]
    Unavailable(String),
    /// CPU or wall time is used up (504).
    #[error("the call took too long: {0}")]
    TimedOut(String),
    /// Trap, memory bound, reply over the bound, transaction left open, cycle of calls (500).
    #[error("the service failed: {0}")]
    Failed(String),
}

/// The live services and the way into them. Cheap to clone by `Arc`.
pub struct Runtime {}

impl Runtime {
    /// The newest snapshot; hold it for the whole root request.
    pub fn pin(&self) -> Arc<Catalogue> {
        Arc::new(Catalogue { number: 0 })
    }

    /// Calls a function in the pinned snapshot. `context.deadline` and the service's own `wall` bound it.
    pub async fn call(
        &self,
        catalogue: &Arc<Catalogue>,
        target: &CallTarget,
        input: Input<'_>,
        context: CallContext,
    ) -> Result<Reply, CallError> {
        let _ = (catalogue, target, input, context);
        Err(CallError::Unavailable("no runtime".to_owned()))
    }
}
