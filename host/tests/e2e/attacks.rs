//! What somebody with bad intentions tries on a running host, and what comes of it.

mod accounts;
mod blocks;
mod harvest;
mod push_tokens;
