//! What somebody with bad intentions tries on a running host, and what comes of it.

mod accounts;
mod harvest;
mod push_tokens;
