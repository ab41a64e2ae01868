//! Editing and deleting messages.

use echo_sdk::sql::{Database, Transaction, transaction};
use echo_sdk::{Error, Timestamp, caller, config, time};

use crate::bindings::echo::message::events::{self, ChangedMessage, ChangedMessages};
use crate::bindings::echo::message::pushes::{self, MessageView};
use crate::bindings::exports::echo::message::api::{DeleteRequest, DeleteScope, EditRequest, Message, MessageType};
use crate::bounds::EDITS_MAX;
use crate::history::seen_by;
use crate::store::conversations::{membership, roster_for};
use crate::store::messages::{self, Emptied};
use crate::store::words;
use crate::words::words_of;
use crate::{payload, rules, send_request};

/// Where the settings are missing, in seconds: 15 minutes and two days.
const EDIT_WINDOW_S: u64 = 15 * 60;
const DELETE_WINDOW_S: u64 = 48 * 60 * 60;

pub fn edit(request: &EditRequest) -> Result<Message, Error> {
    let me = caller()?.user_id;
    send_request::check_content(&request.content)?;
    let mut message = seen_by(&me, &request.id)?;
    let now = time::now_us();
    if message.deleted_at.is_some() {
        return Err(deleted());
    }
    rules::may_edit(message.sender_id == me, message.created_at, now, config::number("edit_window_s", EDIT_WINDOW_S))?;
    if message.type_ == MessageType::Poll {
        return Err(Error::conflict("poll_unchangeable", "what was voted on stays as it is"));
    }
    if message.content.as_deref() == Some(&request.content) {
        return Ok(message);
    }
    let blockers = blockers_of(&me, &message.conversation_id)?;
    transaction(|tx| {
        let (number, content, written_at) = messages::begin_edit(tx, &message.id)?.ok_or_else(deleted)?;
        if number > EDITS_MAX {
            return Err(Error::conflict("too_many_edits", format!("a message is edited at most {EDITS_MAX} times")));
        }
        messages::keep_edit(tx, &message.id, number, content.as_deref().unwrap_or_default(), written_at)?;
        messages::set_content(tx, &message.id, &request.content, now)?;
        words::delete(tx, &message.id)?;
        words::insert(tx, &message.conversation_id, &message.id, &words_of(&request.content))?;
        message.content = Some(request.content.clone());
        message.edited_at = Some(now);
        let mut users = messages::audience_of(tx, &message.conversation_id, message.seq)?;
        // Who blocks the sender by now goes on seeing what was written before, but no feed holds it.
        users.retain(|user| !blockers.contains(user));
        messages::withhold_edit(tx, &message.id, number, &blockers)?;
        pushes::message_replaced(&replayed(&message, !blockers.is_empty()))?;
        pushes::message_edited(&users, &payload::message(&message))?;
        let items = vec![changed(&message.id, &message.conversation_id, message.seq, &message.sender_id, now)];
        events::edited(&message.conversation_id, &ChangedMessages { items })
    })?;
    Ok(message)
}

/// What feeds say from now on where they said something of this message. All who are told of the edit find the new text in the event that
/// follows; where somebody is not told, the feeds, which say the same to all, hold neither text.
fn replayed(message: &Message, withheld_from_somebody: bool) -> MessageView {
    if withheld_from_somebody {
        return payload::message(&Message { content: None, edited_at: None, ..message.clone() });
    }
    payload::message(message)
}

pub fn delete(request: &DeleteRequest) -> Result<(), Error> {
    let me = caller()?.user_id;
    let message = seen_by(&me, &request.id)?;
    match request.for_.unwrap_or(DeleteScope::Me) {
        DeleteScope::Me => Ok(messages::delete_for(&me, &message)?),
        DeleteScope::Everyone => delete_for_everyone(&me, &message),
    }
}

fn delete_for_everyone(me: &str, message: &Message) -> Result<(), Error> {
    let membership = membership(&Database, &message.conversation_id, me)?.ok_or_else(rules::no_message)?;
    let now = time::now_us();
    let window_s = config::number("delete_window_s", DELETE_WINDOW_S);
    rules::may_delete_for_everyone(membership.kind, membership.role, message.sender_id == me, message.created_at, now, window_s)?;
    // Who blocks the sender is not disturbed; what an admin takes away is told to everybody.
    let blockers = if message.sender_id == me { blockers_of(me, &message.conversation_id)? } else { Vec::new() };
    transaction(|tx| {
        if !messages::delete_for_everyone(tx, &message.id, now)? {
            return Ok(());
        }
        let emptied = Emptied {
            id: message.id.clone(),
            conversation_id: message.conversation_id.clone(),
            seq: message.seq,
            sender_id: message.sender_id.clone(),
            media_id: message.media_id.clone(),
        };
        announce_deleted(tx, &[emptied], &blockers, now)
    })
}

/// The participants who block this one.
pub fn blockers_of(user_id: &str, conversation_id: &str) -> Result<Vec<String>, Error> {
    let roster = roster_for(&Database, conversation_id, user_id)?.ok_or_else(rules::no_message)?;
    Ok(roster.members.into_iter().filter(|member| member.blocks).map(|member| member.user_id).collect())
}

/// Tells devices, but not those of some people, and services of messages that were emptied just now, and takes what they said out of all feeds.
pub fn announce_deleted(tx: &Transaction, emptied: &[Emptied], undisturbed: &[String], at: Timestamp) -> Result<(), Error> {
    for message in emptied {
        let payload = payload::deleted(message, at);
        let mut users = messages::audience_of(tx, &message.conversation_id, message.seq)?;
        users.retain(|user| !undisturbed.contains(user));
        pushes::message_withdrawn(&payload)?;
        pushes::message_deleted(&users, &payload)?;
    }
    publish_deleted(emptied, at)
}

/// As `announce_deleted`, of a conversation that was ended: devices know that it is over, and no feed is filled with its messages one by one.
pub fn announce_ended(_: &Transaction, emptied: &[Emptied], at: Timestamp) -> Result<(), Error> {
    for message in emptied {
        pushes::message_withdrawn(&payload::deleted(message, at))?;
    }
    publish_deleted(emptied, at)
}

fn publish_deleted(emptied: &[Emptied], at: Timestamp) -> Result<(), Error> {
    for of_one in emptied.chunk_by(|one, next| one.conversation_id == next.conversation_id) {
        let items = of_one.iter().map(|message| ChangedMessage {
            media_id: message.media_id.clone(),
            ..changed(&message.id, &message.conversation_id, message.seq, &message.sender_id, at)
        });
        events::deleted(&of_one[0].conversation_id, &ChangedMessages { items: items.collect() })?;
    }
    Ok(())
}

fn changed(id: &str, conversation_id: &str, seq: u64, sender_id: &str, at: Timestamp) -> ChangedMessage {
    let (message_id, conversation_id, sender_id) = (id.to_owned(), conversation_id.to_owned(), sender_id.to_owned());
    ChangedMessage { message_id, conversation_id, seq, sender_id, at, media_id: None }
}

pub fn deleted() -> Error {
    Error::conflict("message_deleted", "the message is deleted")
}
