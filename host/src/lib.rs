//! Echo's host: where its crates are joined, the operator's API and the command line. Dependencies point one way:
//! `main → app → gateway | hub | admin → edge → runtime → contract, capabilities/*/host → trait ← backends`, and cargo holds it.
//! See `docs/ARCHITECTURE.md`.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
mod descriptors;
pub mod new_plugin;
pub mod telemetry;
pub mod watch;
