//! Sending, exactly once: a client id makes one message for ever, whatever is repeated, lost or raced; and typing, which is kept nowhere.
//!
//! The hot path. Beside the transaction one statement reads the roster; inside it one takes the seq and one inserts; the push and the event
//! are the transaction's effects. The roster is read before the transaction, so that the writer is held for little; its version is checked
//! where the seq is taken, so that nothing is sent by an old roster.

use echo_sdk::sql::{Database, SqlError, Transaction, transaction};
use echo_sdk::wit::cache;
use echo_sdk::{Error, ErrorKind, FieldError, Timestamp, caller, ids, time};

use crate::bindings::echo::media::api as media;
use crate::bindings::echo::message::events::{self, SentMessage, SentMessages};
use crate::bindings::echo::message::model::PollOption;
use crate::bindings::echo::message::pushes;
use crate::bindings::exports::echo::message::api::{Message, MessageStatus, MessageType, NewPoll, Poll, SendRequest, TypingRequest};
use crate::bounds::{TRIES_MAX, TYPING_BURST_MAX, TYPING_BURST_MS};
use crate::store::conversations::{Roster, roster_for, who_may_see_typing};
use crate::store::{messages, polls};
use crate::{disappearing, names, payload, rules, send_request};

/// Why a try came to nothing.
enum Stopped {
    /// The roster changed meanwhile: look again.
    Stale,
    /// The client id was used before.
    Repeated,
    Declined(Error),
}

impl From<SqlError> for Stopped {
    fn from(error: SqlError) -> Self {
        Stopped::Declined(error.into())
    }
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Stopped::Declined(error)
    }
}

pub fn send(draft: SendRequest) -> Result<Message, Error> {
    let sender = caller()?.user_id;
    send_request::check(&draft)?;
    send_as(sender, draft, &|_| Ok(()))
}

/// As this person, who need not be calling, with something more in the transaction that sends.
pub fn send_as(sender: String, draft: SendRequest, beside: &dyn Fn(&Transaction) -> Result<(), Error>) -> Result<Message, Error> {
    let fingerprint = send_request::fingerprint(&draft);
    let mut message = new_message(draft, sender);
    for _ in 0..TRIES_MAX {
        match try_to_send(&mut message, &fingerprint, beside) {
            Ok(()) => return Ok(message),
            Err(Stopped::Stale) => {}
            Err(Stopped::Repeated) => {
                return sent_before(&mut message, &fingerprint)?
                    .then_some(message)
                    .ok_or_else(|| Error::unavailable("the message was taken back while it was looked at"));
            }
            // What was accepted once stays accepted, even where it would be declined by now.
            Err(Stopped::Declined(error)) => return if sent_before(&mut message, &fingerprint)? { Ok(message) } else { Err(error) },
        }
    }
    Err(Error::unavailable("the conversation changes too quickly"))
}

fn try_to_send(message: &mut Message, fingerprint: &[u8], beside: &dyn Fn(&Transaction) -> Result<(), Error>) -> Result<(), Stopped> {
    let roster = roster_for(&Database, &message.conversation_id, &message.sender_id)?.ok_or_else(rules::no_conversation)?;
    admit(message, &roster)?;
    message.created_at = time::now_us();
    let expires_at = disappearing::time_after(roster.disappearing_after, message.created_at);
    transaction(|tx| {
        message.seq = messages::take_seq(tx, &message.conversation_id, &roster, message.created_at)?.ok_or(Stopped::Stale)?;
        if !messages::insert(tx, message, fingerprint.to_vec(), expires_at)? {
            return Err(Stopped::Repeated);
        }
        if let Some(poll) = &message.poll {
            polls::insert(tx, &message.id, poll)?;
        }
        beside(tx)?;
        announce(tx, message, &roster)
    })
}

/// Whether the sender may send this now.
pub fn may_send(sender: String, draft: SendRequest) -> Result<(), Error> {
    let message = new_message(draft, sender);
    admit(&message, &roster_for(&Database, &message.conversation_id, &message.sender_id)?.ok_or_else(rules::no_conversation)?)
}

/// Whether the sender may send this here.
fn admit(message: &Message, roster: &Roster) -> Result<(), Error> {
    let own = roster.members.iter().find(|member| member.user_id == message.sender_id).ok_or_else(rules::no_conversation)?;
    rules::may_send(roster.kind, own.role)?;
    let mut fields = Vec::new();
    for (at, mention) in message.mentions.iter().enumerate() {
        if !roster.members.iter().any(|member| member.user_id == *mention) {
            fields.push(wrong(format!("mentions[{at}]"), "unknown_participant", "takes no part in this conversation"));
        }
    }
    if message.poll.as_ref().and_then(|poll| poll.closes_at).is_some_and(|at| at <= time::now_us()) {
        fields.push(wrong("poll.closes_at".to_owned(), "out_of_range", "it is in the future"));
    }
    for (field, id) in [("reply_to", &message.reply_to), ("thread_id", &message.thread_id)] {
        if let Some(id) = id {
            let there = messages::visible_to(&Database, &message.sender_id, id, time::now_us())?;
            match there.filter(|there| there.conversation_id == message.conversation_id) {
                None => fields.push(wrong(field.to_owned(), "unknown_message", "no message of this conversation")),
                Some(there) if field == "thread_id" && there.thread_id.is_some() => {
                    fields.push(wrong(field.to_owned(), "in_a_thread", "a message of a thread begins none"));
                }
                Some(_) => {}
            }
        }
    }
    if let Some(id) = &message.media_id {
        let field = "media_id".to_owned();
        match attached(&message.sender_id, id, message.type_)? {
            Attached::Fits => {}
            Attached::Unknown => {
                fields.push(wrong(field, "unknown_media", "no file of yours that has come whole, and none of a message that you see"));
            }
            Attached::OfAnotherType => fields.push(wrong(field, "not_for_type", "the file is of another type than the message")),
        }
    }
    if fields.is_empty() {
        return Ok(());
    }
    let mut error = Error::invalid("invalid", "the message refers to what is not there");
    if let [only] = fields.as_slice() {
        error.code = only.code.clone();
    }
    error.fields = fields;
    Err(error)
}

/// How a message's file goes with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Attached {
    Fits,
    Unknown,
    OfAnotherType,
}

/// The sender's own file, whole, goes as what it is; one of a message that the sender sees is passed on as it was sent. Either goes as a document too.
fn attached(sender: &str, media_id: &str, wanted: MessageType) -> Result<Attached, Error> {
    let kinds = messages::media_kinds_seen_by(sender, media_id, time::now_us())?;
    if is_sent_as(&kinds, wanted) {
        return Ok(Attached::Fits);
    }
    match media::check_own(&media::OwnRequest { id: media_id.to_owned(), owner_id: sender.to_owned() }) {
        Ok(file) => Ok(if may_go_as(file.kind, wanted) { Attached::Fits } else { Attached::OfAnotherType }),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(if kinds.is_empty() { Attached::Unknown } else { Attached::OfAnotherType }),
        Err(error) => Err(error),
    }
}

fn is_sent_as(kinds: &[String], wanted: MessageType) -> bool {
    kinds.iter().any(|kind| wanted == MessageType::Document || kind.as_str() == names::of_message(wanted))
}

fn may_go_as(file: media::Kind, wanted: MessageType) -> bool {
    match wanted {
        MessageType::Image => file == media::Kind::Image,
        MessageType::Video => file == media::Kind::Video,
        MessageType::Audio => file == media::Kind::Audio,
        // Of the others the shape of the request says that they have no file.
        _ => true,
    }
}

/// Pushes and one event. Who blocks the sender gets neither, and never sees the message.
fn announce(tx: &Transaction, message: &Message, roster: &Roster) -> Result<(), Stopped> {
    let mut recipient_ids = Vec::with_capacity(roster.members.len());
    let mut muted_ids = Vec::new();
    let mut withheld_ids = Vec::new();
    for member in &roster.members {
        if member.blocks {
            withheld_ids.push(member.user_id.clone());
            continue;
        }
        if member.user_id != message.sender_id {
            recipient_ids.push(member.user_id.clone());
            if member.muted_until.is_some_and(|until| until > message.created_at) {
                muted_ids.push(member.user_id.clone());
            }
        }
    }
    messages::keep_back(tx, &message.conversation_id, &withheld_ids, message.seq)?;
    // One push for all, so that it is kept once: the receipts of the sender's own devices are passed over when they come.
    let everyone: Vec<String> = recipient_ids.iter().chain([&message.sender_id]).cloned().collect();
    pushes::message(&everyone, &payload::message(message))?;
    let mentioned_ids = message.mentions.iter().filter(|mention| recipient_ids.contains(mention)).cloned().collect();
    let event = SentMessage {
        message_id: message.id.clone(),
        conversation_id: message.conversation_id.clone(),
        seq: message.seq,
        sender_id: message.sender_id.clone(),
        recipient_ids,
        muted_ids,
        mentioned_ids: Some(mentioned_ids),
        withheld_ids,
        type_: Some(names::of_message(message.type_).to_owned()),
        at: message.created_at,
    };
    Ok(events::sent(&message.conversation_id, &SentMessages { items: vec![event] })?)
}

/// Whether the client id was used before; then the message becomes what was answered that time: the content is the same, and so is the rest. One that was
/// changed or taken away since is what it is now.
/// Errors: 409 for another content.
fn sent_before(message: &mut Message, fingerprint: &[u8]) -> Result<bool, Error> {
    let Some(before) = messages::sent_before(&message.sender_id, &message.client_message_id)? else {
        return Ok(false);
    };
    if before.content_hash != fingerprint {
        return Err(Error::conflict("client_message_id_reused", "this client_message_id was used for another message"));
    }
    let now = time::now_us();
    if before.edited_at.is_some() || before.deleted_at.is_some() || before.expires_at.is_some_and(|at| at <= now) {
        match messages::visible_to(&Database, &message.sender_id, &before.id, now)? {
            Some(seen) => *message = seen,
            None => gone(message, &before, now),
        }
        return Ok(true);
    }
    (message.id, message.seq, message.created_at) = (before.id, before.seq, before.created_at);
    Ok(true)
}

/// What is left of a message that its sender does not see any more: it has disappeared, or its conversation is over.
fn gone(message: &mut Message, before: &messages::SentBefore, now: Timestamp) {
    let ended_at = before.deleted_at.or(before.expires_at).map_or(now, |at| at.min(now));
    *message = Message {
        id: before.id.clone(),
        seq: before.seq,
        created_at: before.created_at,
        deleted_at: Some(ended_at),
        content: None,
        media_id: None,
        location: None,
        contact: None,
        poll: None,
        mentions: Vec::new(),
        metadata: None,
        ..message.clone()
    };
}

fn new_message(draft: SendRequest, sender_id: String) -> Message {
    const NOT_YET: (u64, Timestamp) = (0, 0);
    Message {
        id: ids::uuid_v7(),
        conversation_id: draft.conversation_id,
        seq: NOT_YET.0,
        sender_id,
        client_message_id: draft.client_message_id,
        type_: draft.type_,
        content: draft.content.or_else(|| draft.poll.as_ref().map(|poll| poll.question.clone())),
        media_id: draft.media_id,
        location: draft.location,
        contact: draft.contact,
        poll: draft.poll.map(new_poll),
        reply_to: draft.reply_to,
        thread_id: draft.thread_id,
        mentions: draft.mentions.unwrap_or_default(),
        metadata: draft.metadata,
        status: MessageStatus::Sent,
        created_at: NOT_YET.1,
        edited_at: None,
        deleted_at: None,
    }
}

fn new_poll(poll: NewPoll) -> Poll {
    Poll {
        question: poll.question,
        options: poll.options.into_iter().map(|text| PollOption { text, votes: 0 }).collect(),
        multiple: poll.multiple.unwrap_or(false),
        closes_at: poll.closes_at,
        closed: false,
        voters: 0,
        own_votes: Vec::new(),
    }
}

fn wrong(field: String, code: &str, detail: &str) -> FieldError {
    FieldError { field, code: code.to_owned(), detail: detail.to_owned() }
}

pub fn typing(request: &TypingRequest) -> Result<(), Error> {
    let me = caller()?.user_id;
    let mut others = who_may_see_typing(&request.conversation_id, &me)?;
    if !others.contains(&me) {
        return Err(rules::no_conversation());
    }
    others.retain(|user| *user != me);
    // Without the cache the rate of the route is all that bounds it.
    let key = format!("typing:{}:{me}", request.conversation_id);
    if cache::increment(&key, 1, Some(TYPING_BURST_MS)).is_ok_and(|count| count > TYPING_BURST_MAX) {
        return Ok(());
    }
    pushes::typing(&others, &payload::typing(&request.conversation_id, &me, request.is_typing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_as_what_it_is_or_as_a_document() {
        use media::Kind;
        for (file, wanted, expect) in [
            (Kind::Image, MessageType::Image, true),
            (Kind::Audio, MessageType::Image, false),
            (Kind::Image, MessageType::Video, false),
            (Kind::Video, MessageType::Video, true),
            (Kind::Document, MessageType::Audio, false),
            (Kind::Image, MessageType::Document, true),
            (Kind::Document, MessageType::Document, true),
        ] {
            assert_eq!(may_go_as(file, wanted), expect, "{file:?} as {wanted:?}");
        }
        let sent = |kinds: &[&str], wanted| is_sent_as(&kinds.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted);
        assert!(sent(&["image"], MessageType::Image) && sent(&["image"], MessageType::Document));
        assert!(!sent(&["image"], MessageType::Audio) && !sent(&["document"], MessageType::Image) && !sent(&[], MessageType::Document));
    }
}
