//! Echo from outside: every test drives the real binary over HTTP and sockets, as a client or an operator would.

mod app;
mod bad_input;
mod edge;
mod socket;
mod story;
