//! The service that answers the requests of a connection, and how a connection can end: the same for HTTP/1.1 and HTTP/2.

use std::convert::Infallible;

use axum::extract::Request;
use axum::response::Response;
use tower::Service;

/// What answers requests: the gateway's `router`, or one of axum's. Always ready.
pub trait Answering:
    Service<Request, Response = Response, Error = Infallible, Future: Send + 'static> + Clone + Send + Sync + Unpin + 'static
{
}

impl<S> Answering for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send + 'static> + Clone + Send + Sync + Unpin + 'static
{
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client or the protocol ended it, or it is upgraded.
    Orderly,
    Cut,
}
