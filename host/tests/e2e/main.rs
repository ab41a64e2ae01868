//! End to end: `echod` as its own process, and people who use it as the API page says.

mod app;
mod kill;
