//! Echo's client library: one device of one person, with one socket; nothing is lost, and nothing is shown twice. The twin of `@echo/client`
//! (`host/web/client`), which has the same in TypeScript; both pass the scenarios in `host/tests/e2e/client/scenarios.json`.
//!
//! ```no_run
//! use echo_client::{EchoClient, Event, FeedPayload, NewMessage};
//! use futures_util::StreamExt;
//!
//! # async fn example(friend: uuid::Uuid) -> Result<(), echo_client::Error> {
//! let echo = EchoClient::builder("http://127.0.0.1:8080").folder("/home/ann/.echo").build()?;
//! echo.sign_in("+14155550101", "correct horse 7", None).await?;
//! let mut events = echo.events();
//! echo.connect();
//! let conversation = echo.direct(friend).await?;
//! echo.send(NewMessage::text(conversation.id, "Hello")).await?; // kept; sent now, or when there is a connection
//! while let Some(event) = events.next().await {
//!     if let Event::Feed(event) = event
//!         && let FeedPayload::Message(message) = event.payload
//!     {
//!         println!("{}", message.content.unwrap_or_default());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | it does | how |
//! | --- | --- |
//! | sends each message once | [`EchoClient::send`] keeps it in the outbox (a file; memory without [`Builder::folder`]) under a client id before it leaves; after a lost connection it goes again under the same id, which the server answers with the first one's message; in order within a conversation |
//! | hands out each event once, in order | every durable event has a `seq` one above the last; what was seen is dropped, a gap makes it resume from before it |
//! | misses nothing | the cursor is kept; a new connection resumes after it. [`Event::ResyncRequired`] says that the server no longer has what was missed: load the state anew. A program that crashed may be handed again what it had not finished |
//! | acknowledges what was handled | when every reader has asked for the next event; those of 200 ms leave as one |
//! | keeps the tokens fresh | renewed when four fifths of their life are over, once for all clones, in place on the open socket |
//! | opens one socket | clones are one client; a folder belongs to one client at a time; one that was replaced by another of the same device (4409) rests for 30 s |
//! | spares a server in trouble | pauses at random below a ceiling that doubles from 0.5 to 30 s; `retry_after_ms` of a `goodbye` and `Retry-After` are kept |
//!
//! Failures are [`Error`]; what the server says is a [`Problem`] with a stable `code`. The core's types (accounts, conversations, messages, frames) are
//! kept by hand and held to `/openapi.json` and `/asyncapi.json` by a test; [`EchoClient::request`] is for every other route. Files are not uploaded
//! here: `@echo/client` does.

mod client;
mod connect;
mod credentials;
mod error;
mod events;
mod feed;
mod limits;
mod outbox;
mod request;
mod session;
mod shared;
mod socket;
mod storage;
mod transport;
mod types;

pub use client::{Account, Builder, EchoClient};
pub use error::{Error, FieldError, Problem};
pub use events::{ConnectionState, Ephemeral, Event, FeedEvent, FeedPayload};
pub use feed::Events;
pub use http::Method;
pub use outbox::OutboxEntry;
pub use request::Request;
pub use transport::Answer;
pub use types::*;
