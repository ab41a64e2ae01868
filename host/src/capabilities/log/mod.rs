//! A guest's log lines, with the request's ids attached by the host.

pub mod host;
