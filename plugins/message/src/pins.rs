//! Messages that are pinned in a conversation, for all its participants.

use echo_sdk::sql::{Database, Transaction, transaction};
use echo_sdk::{Error, caller, time};

use crate::bindings::exports::echo::message::api::Message;
use crate::bounds::PINS_MAX;
use crate::conversations::{announce, roster};
use crate::history::seen_by;
use crate::store::conversations::{lock, membership, update_texts};
use crate::store::marks;
use crate::{changes, rules};

pub fn pin(id: &str) -> Result<(), Error> {
    let me = caller()?.user_id;
    let message = of_who_may_pin(&me, id)?;
    if message.deleted_at.is_some() {
        return Err(changes::deleted());
    }
    change(&me, &message, |tx| {
        if !marks::pin(tx, &message, &me, time::now_us())? {
            return Ok(false);
        }
        if marks::pins_of(tx, &message.conversation_id)?.len() as u64 > PINS_MAX {
            return Err(Error::conflict("too_many_pins", format!("at most {PINS_MAX} pinned messages in a conversation")));
        }
        Ok(true)
    })
}

pub fn unpin(id: &str) -> Result<(), Error> {
    let me = caller()?.user_id;
    let message = of_who_may_pin(&me, id)?;
    change(&me, &message, |tx| Ok(marks::unpin(tx, &message.id)?))
}

fn of_who_may_pin(me: &str, id: &str) -> Result<Message, Error> {
    let message = seen_by(me, id)?;
    let place = membership(&Database, &message.conversation_id, me)?.ok_or_else(rules::no_message)?;
    rules::may_pin(place.kind, place.role)?;
    Ok(message)
}

/// With the conversation locked, so that two at once keep the bound; what changed is said to all.
fn change(me: &str, message: &Message, work: impl Fn(&Transaction) -> Result<bool, Error>) -> Result<(), Error> {
    transaction(|tx| {
        if !lock(tx, &message.conversation_id)? {
            return Err(rules::no_message());
        }
        if work(tx)? {
            update_texts(tx, &message.conversation_id, None, None, time::now_us())?;
            announce(tx, &message.conversation_id, &roster(tx, &message.conversation_id, me)?)?;
        }
        Ok(())
    })
}
