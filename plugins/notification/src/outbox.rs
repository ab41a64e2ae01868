//! What is to leave: text messages and pushes. No provider of text messages is connected; in development mode everyone can look at what would have left.

use echo_sdk::sql::Database;
use echo_sdk::{Error, Timestamp, config, log, once};

use crate::bindings::exports::echo::notification::api::{Channel, Outbox, Outgoing};
use crate::store;

/// Handled twice it is sent once: its id is the event's. One-time codes and the bodies with them are kept in development mode alone.
pub fn text_message(to: &str, body: &str, code: Option<&str>, at: Timestamp) -> Result<(), Error> {
    let event_id = once::event_id()?;
    if !config::dev_mode() {
        log::warn("a text message was not sent: no SMS provider is connected", &[("event", &event_id)]);
        return Ok(());
    }
    let row = store::Outgoing {
        channel: "sms".to_owned(),
        recipient: to.to_owned(),
        title: None,
        body: body.to_owned(),
        code: code.map(str::to_owned),
        at,
        message_id: None,
        shows_text: true,
        provider: None,
        conversation_id: None,
        user_id: None,
        token_hash: None,
        send_at: None,
    };
    Ok(store::insert_outgoing(&Database, &[(event_id, row)])?)
}

pub fn shown() -> Result<Outbox, Error> {
    if !config::dev_mode() {
        return Err(Error::not_found("the outbox is shown in development mode only"));
    }
    let rows = store::newest_outgoing()?;
    let items = rows.into_iter().map(|row| Outgoing {
        channel: channel_of(&row.channel),
        to: row.recipient,
        title: row.title,
        body: row.body,
        code: row.code,
        at: row.at,
    });
    Ok(Outbox { items: items.collect(), next_cursor: None })
}

/// What the table's CHECK lets in.
fn channel_of(name: &str) -> Channel {
    match name {
        "sms" => Channel::Sms,
        "email" => Channel::Email,
        _ => Channel::Push,
    }
}
