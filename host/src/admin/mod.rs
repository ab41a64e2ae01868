//! The operator API: an own listener, a bearer token, plugins and the queue.

pub mod client;
