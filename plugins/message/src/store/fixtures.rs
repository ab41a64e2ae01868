//! What the tests of the store functions have in common.

use echo_sdk::sql::{Database, ErrorClass, Sql, SqlError, Transaction, uuid};
use echo_sdk::{Timestamp, params, transaction};
use echo_testing::Store;

use super::conversations::{self, NewConversation, roster_for};
use super::marks;
use super::messages::{self, take_seq};
use super::polls;
use super::receipts;
use crate::bindings::echo::message::model::PollOption;
use crate::bindings::exports::echo::message::api::{ConversationType, Draft, Message, MessageStatus, MessageType, Poll, Role};
use crate::rules::Shown;

/// After everything in time and id: where a list of the newest begins.
pub const FIRST: (u64, &str) = (253_402_300_799_000_000, "ffffffff-ffff-ffff-ffff-ffffffffffff");
/// Before everything.
pub const NIL: &str = "00000000-0000-0000-0000-000000000000";

pub fn store() -> Store {
    Store::open("message")
}

pub fn id(number: u32) -> String {
    format!("01890000-0000-7000-8000-{number:012}")
}

pub fn ids(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(id).collect()
}

pub fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_unstable();
    ids
}

#[track_caller]
pub fn committed<T>(work: impl Fn(&Transaction) -> Result<T, SqlError>) -> T {
    transaction(work).expect("commits")
}

/// To give a transaction up with.
pub fn undone() -> SqlError {
    SqlError { class: ErrorClass::Other, constraint: None, sqlstate: None, message: "given up".to_owned() }
}

pub fn count(table: &str) -> i64 {
    Database.one::<(i64,)>(&format!("SELECT COUNT(*) FROM {table}"), params![]).expect("counts").0
}

/// A group, made at 50 by the first of the users, who all take part from the beginning.
pub fn group(conversation: u32, users: impl IntoIterator<Item = u32>) {
    let users = ids(users);
    let conversation_id = id(conversation);
    let new = NewConversation {
        id: &conversation_id,
        kind: ConversationType::Group,
        pair_key: None,
        title: Some("Title"),
        description: None,
        created_by: users.first().map_or(NIL, String::as_str),
        at: 50,
    };
    committed(|tx| {
        assert!(conversations::insert(tx, &new)?);
        conversations::insert_participants(tx, &conversation_id, &users, Role::Member, 0, 50)
    });
}

/// One who joins after so many messages.
pub fn joined(conversation: u32, user: u32, joined_seq: u64) {
    committed(|tx| conversations::insert_participants(tx, &id(conversation), &ids([user]), Role::Member, joined_seq, 60));
}

pub fn ended(conversation: u32) {
    committed(|tx| conversations::end(tx, &id(conversation), 90));
}

/// Of a conversation's message.
pub fn message_id(conversation: u32, seq: u64) -> String {
    id(conversation * 1_000_000 + seq as u32)
}

pub fn text(conversation: u32, seq: u64, sender: u32, at: Timestamp) -> Message {
    Message {
        id: message_id(conversation, seq),
        conversation_id: id(conversation),
        seq,
        sender_id: id(sender),
        client_message_id: format!("{conversation}/{seq}"),
        type_: MessageType::Text,
        content: Some(format!("text {seq}")),
        media_id: None,
        location: None,
        contact: None,
        poll: None,
        reply_to: None,
        thread_id: None,
        mentions: Vec::new(),
        metadata: None,
        status: MessageStatus::Sent,
        created_at: at,
        edited_at: None,
        deleted_at: None,
    }
}

/// The next message of the conversation, in the thread that another begins.
pub fn said_in_thread(conversation: u32, sender: u32, first: &Message, expires_at: Option<Timestamp>) -> Message {
    said_as(conversation, sender, 100, expires_at, |message| Message { thread_id: Some(first.id.clone()), ..message })
}

/// The next message of the conversation.
pub fn said(conversation: u32, sender: u32, at: Timestamp, expires_at: Option<Timestamp>) -> Message {
    said_as(conversation, sender, at, expires_at, |message| message)
}

fn said_as(conversation: u32, sender: u32, at: Timestamp, expires_at: Option<Timestamp>, change: impl Fn(Message) -> Message) -> Message {
    committed(|tx| {
        let roster = roster_for(tx, &id(conversation), &id(sender))?.expect("a conversation");
        let seq = take_seq(tx, &id(conversation), &roster, at)?.expect("the roster of now");
        let message = change(text(conversation, seq, sender, at));
        assert!(messages::insert(tx, &message, vec![1, 2, 3], expires_at)?);
        Ok(message)
    })
}

/// The next messages, at 100, by these.
pub fn all_said(conversation: u32, senders: impl IntoIterator<Item = u32>) {
    for sender in senders {
        said(conversation, sender, 100, None);
    }
}

/// Replaces the content; those who block the sender do not see it.
pub fn edited(message: &Message, content: &str, at: Timestamp, withheld_from: &[u32]) {
    committed(|tx| {
        let (number, before, written_at) = messages::begin_edit(tx, &message.id)?.expect("a message");
        messages::keep_edit(tx, &message.id, number, &before.unwrap_or_default(), written_at)?;
        messages::set_content(tx, &message.id, content, at)?;
        messages::withhold_edit(tx, &message.id, number, &ids(withheld_from.iter().copied()))
    });
}

/// From now on, with what the other may know kept as it is; as the event of the user service does.
pub fn blocked(user: u32, other: u32) {
    committed(|tx| {
        super::withhold_receipts(tx, &id(user), &id(other))?;
        super::record_block(tx, &id(user), &id(other), true, revision(tx, user, other)? + 1)
    });
}

pub fn unblocked(user: u32, other: u32) {
    committed(|tx| super::record_block(tx, &id(user), &id(other), false, revision(tx, user, other)? + 1));
}

fn revision(tx: &Transaction, user: u32, other: u32) -> Result<u64, SqlError> {
    let sql = "SELECT revision FROM blocks WHERE user_id = $1 AND blocked_user_id = $2";
    Ok(tx.row::<(u64,)>(sql, params![uuid(id(user)), uuid(id(other))])?.map_or(0, |(revision,)| revision))
}

/// (delivered, read).
pub fn watermarks(conversation: u32, user: u32) -> (u64, u64) {
    let place = conversations::membership(&Database, &id(conversation), &id(user)).expect("reads").expect("a participant");
    (place.delivered_seq, place.read_seq)
}

pub fn delivered(conversation: u32, user: u32, to: u64) {
    let (from, _) = watermarks(conversation, user);
    assert!(committed(|tx| receipts::raise_delivered(tx, &id(conversation), &id(user), from, to)));
}

pub fn read(conversation: u32, user: u32, to: u64, shown: Shown) {
    let (_, from) = watermarks(conversation, user);
    assert!(committed(|tx| receipts::raise_read(tx, &id(conversation), &id(user), from, to, shown)));
}

/// The next message of the conversation: a poll of three options.
pub fn asked(conversation: u32, sender: u32, multiple: bool, closes_at: Option<Timestamp>) -> Message {
    let options = ["a", "b", "c"].map(|text| PollOption { text: text.to_owned(), votes: 0 }).into();
    let question = "Which?".to_owned();
    let poll = Poll { question, options, multiple, closes_at, closed: false, voters: 0, own_votes: Vec::new() };
    let message = said_as(conversation, sender, 100, None, |message| Message {
        type_: MessageType::Poll,
        content: Some(poll.question.clone()),
        ..message
    });
    committed(|tx| polls::insert(tx, &message.id, &poll));
    Message { poll: Some(poll), ..message }
}

pub fn voted(message: &Message, user: u32, numbers: &[u32]) {
    assert!(committed(|tx| polls::set_votes(tx, &message.id, &id(user), numbers)));
}

/// With an emoji of one code point, which has one spelling.
pub fn reacted(message: &Message, user: u32, emoji: &str, at: Timestamp) {
    assert!(committed(|tx| marks::add_reaction(tx, &message.id, &id(user), emoji, emoji, at)));
}

pub fn drafted(conversation: u32, user: u32, content: &str) {
    let draft = Draft { conversation_id: id(conversation), content: content.to_owned(), reply_to: None, updated_at: 100 };
    marks::set_draft(&id(user), &draft).expect("keeps a draft");
}
