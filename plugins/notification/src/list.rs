//! The list of notifications that a person looks at in the app: who mentioned them, and what happened to their account.

use std::collections::BTreeSet;

use echo_sdk::sql::{Database, transaction};
use echo_sdk::wit::random;
use echo_sdk::{Error, Id, Page, caller, ids, once};

use crate::bindings::exports::echo::auth::events::PasswordChange;
use crate::bindings::exports::echo::message::events::SentMessage;
use crate::bindings::exports::echo::notification::api::{InApp, InAppList, Kind, ListRequest};
use crate::bounds::CHANGED_AT_ONCE;
use crate::decisions;
use crate::store::{self, Entry};

/// Above every id.
const LAST_ID: &str = "ffffffff-ffff-ffff-ffff-ffffffffffff";

/// Mentions of people whom the message reaches. An event that comes again changes nothing.
pub fn mentioned(sent: &[SentMessage]) -> Result<(), Error> {
    let mut entries = Vec::new();
    for message in sent {
        for user in message.mentioned_ids.iter().flatten().filter(|user| message.recipient_ids.contains(user)) {
            entries.push(Entry {
                // In order of time, as the message's is.
                id: ids::uuid_v7_of(message.at, random::get_random_u64()),
                user_id: user.clone(),
                kind: "mention".to_owned(),
                // One of each message and user.
                about: message.message_id.clone(),
                conversation_id: Some(message.conversation_id.clone()),
                sender_id: Some(message.sender_id.clone()),
                at: message.at,
                read: false,
            });
        }
    }
    if entries.is_empty() {
        return Ok(());
    }
    insert(&entries)?;
    // A deletion may have been handled before; one that comes later finds what was inserted.
    let messages: Vec<String> = entries.into_iter().map(|entry| entry.about).collect::<BTreeSet<_>>().into_iter().collect();
    for messages in messages.chunks(CHANGED_AT_ONCE) {
        let there = decisions::previews_of(messages)?;
        let gone: Vec<String> = messages.iter().filter(|id| !there.contains_key(*id)).cloned().collect();
        transaction(|tx| store::forget_entries_about(tx, &gone))?;
    }
    Ok(())
}

pub fn password_changed(event: &PasswordChange) -> Result<(), Error> {
    let entry = Entry {
        id: ids::uuid_v7_of(event.at, random::get_random_u64()),
        user_id: event.user_id.clone(),
        kind: "password-changed".to_owned(),
        about: once::event_id()?,
        conversation_id: None,
        sender_id: None,
        at: event.at,
        read: false,
    };
    insert(&[entry])
}

/// Together, and no list grows without end.
fn insert(entries: &[Entry]) -> Result<(), Error> {
    store::insert_entries(&Database, entries)?;
    let users: BTreeSet<&str> = entries.iter().map(|entry| entry.user_id.as_str()).collect();
    Ok(users.into_iter().try_for_each(store::trim_entries_of)?)
}

pub fn list(request: &ListRequest) -> Result<InAppList, Error> {
    let me = caller()?.user_id;
    let page = Page::<Id>::new(request.limit, request.cursor.as_deref())?;
    let before = page.after.clone().map_or_else(|| LAST_ID.to_owned(), |Id(id)| id);
    let (items, next_cursor) = page.finish(store::entries_of(&me, &before, page.fetch())?, |entry| Id(entry.id.clone()));
    let unread_count = store::unread_entries_of(&me)?;
    Ok(InAppList { items: items.into_iter().map(view).collect(), next_cursor, unread_count })
}

pub fn mark_read(up_to: &str) -> Result<(), Error> {
    let is_own = store::set_entries_read(&caller()?.user_id, up_to)?;
    is_own.then_some(()).ok_or_else(|| Error::not_found("there is no such notification"))
}

pub fn view(entry: Entry) -> InApp {
    let is_mention = entry.kind == "mention";
    InApp {
        id: entry.id,
        kind: if is_mention { Kind::Mention } else { Kind::PasswordChanged },
        message_id: is_mention.then_some(entry.about),
        conversation_id: entry.conversation_id,
        sender_id: entry.sender_id,
        at: entry.at,
        read: entry.read,
    }
}
