//! What a person has in a conversation for themselves, the same on all their devices: an unfinished message, and a mark that it is unread.

use echo_sdk::sql::{Database, transaction};
use echo_sdk::{Error, caller, time};

use crate::bindings::echo::message::pushes;
use crate::bindings::exports::echo::message::api::{Draft, SetDraftRequest, SetUnreadRequest};
use crate::store::conversations::membership;
use crate::store::{marks, messages};
use crate::{payload, rules};

pub fn draft(conversation_id: &str) -> Result<Draft, Error> {
    let me = caller()?.user_id;
    member(conversation_id, &me)?;
    marks::draft(conversation_id, &me)?.ok_or_else(|| Error::not_found("there is no draft"))
}

/// The devices that are connected are told; the others ask when they show the conversation. So no feed holds a word of it.
pub fn set_draft(request: SetDraftRequest) -> Result<Draft, Error> {
    let me = caller()?.user_id;
    member(&request.id, &me)?;
    if let Some(reply_to) = &request.reply_to {
        let there = messages::visible_to(&Database, &me, reply_to, time::now_us())?;
        if there.is_none_or(|there| there.conversation_id != request.id) {
            return Err(Error::invalid_field("reply_to", "unknown_message", "no message of this conversation"));
        }
    }
    let draft = Draft { conversation_id: request.id, content: request.content, reply_to: request.reply_to, updated_at: time::now_us() };
    marks::set_draft(&me, &draft)?;
    pushes::draft(&[me], &payload::draft(&draft))?;
    Ok(draft)
}

pub fn delete_draft(conversation_id: &str) -> Result<(), Error> {
    let me = caller()?.user_id;
    member(conversation_id, &me)?;
    if marks::delete_draft(conversation_id, &me)? {
        pushes::draft(&[me], &payload::no_draft(conversation_id, time::now_us()))?;
    }
    Ok(())
}

/// A mark alone: what was read stays read, also for others.
pub fn set_unread(request: &SetUnreadRequest) -> Result<(), Error> {
    let me = caller()?.user_id;
    member(&request.id, &me)?;
    transaction(|tx| match marks::set_unread(tx, &request.id, &me, request.unread)? {
        true => pushes::unread(std::slice::from_ref(&me), &payload::unread(&request.id, request.unread)),
        false => Ok(()),
    })
}

fn member(conversation_id: &str, me: &str) -> Result<(), Error> {
    membership(&Database, conversation_id, me)?.map(|_| ()).ok_or_else(rules::no_conversation)
}
