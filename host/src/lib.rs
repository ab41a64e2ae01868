//! Echo's host. Dependencies point one way: `main → app → gateway | hub | admin → runtime → contract, capabilities/*/host → trait ← backends`.
//! See `docs/ARCHITECTURE.md`.

pub mod admin;
pub mod app;
pub mod capabilities;
pub mod cli;
pub mod config;
pub mod contract;
mod deadline;
mod descriptors;
pub mod gateway;
pub mod hub;
pub mod in_flight;
mod json_text;
pub mod limits;
pub mod names;
pub mod new_plugin;
mod priority;
pub mod private_file;
pub mod problem;
pub mod rates;
pub mod relay;
pub mod runtime;
pub mod telemetry;
pub mod watch;
