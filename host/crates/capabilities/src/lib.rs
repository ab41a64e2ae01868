//! The capabilities that a service can be granted. One folder each, of one shape: `mod.rs` (trait, types, errors) · `host.rs` (WIT to trait,
//! lengths and counts checked) · the embedded backend · the production backend where there is one · `suite.rs` (the contract tests every backend passes).

pub mod blob;
pub mod bus;
pub mod cache;
mod certificates;
pub mod config;
pub mod context;
pub mod events;
pub mod guest;
pub mod http;
pub mod hub;
pub mod leases;
pub mod log;
pub mod nodes;
pub mod operators;
pub mod pace;
pub mod passwords;
pub mod rates;
mod redis_connection;
pub mod senders;
pub mod sql;
pub mod tokens;
pub mod versions;
