//! Reactions: each person's emoji under a message, each once.

use echo_sdk::sql::{Database, Transaction, transaction};
use echo_sdk::{Error, Id, Page, caller, time};

use crate::bindings::echo::message::pushes::{self, ReactionChange};
use crate::bindings::exports::echo::message::api::{Message, ReactionRequest, Reactions, ReactionsRequest};
use crate::bounds::REACTIONS_OF_ONE_MAX;
use crate::history::seen_by;
use crate::store::{marks, messages};
use crate::{changes, emoji};

pub fn add(request: &ReactionRequest) -> Result<(), Error> {
    let me = caller()?.user_id;
    let (message, emoji) = reacted_to(&me, request)?;
    if message.deleted_at.is_some() {
        return Err(changes::deleted());
    }
    let blockers = changes::blockers_of(&me, &message.conversation_id)?;
    transaction(|tx| {
        if !marks::add_reaction(tx, &message.id, &me, &emoji, &request.emoji, time::now_us())? {
            return Ok(());
        }
        if marks::reactions_of_one(tx, &message.id, &me)? > REACTIONS_OF_ONE_MAX {
            return Err(Error::conflict("too_many_reactions", format!("at most {REACTIONS_OF_ONE_MAX} different ones")));
        }
        announce(tx, &message, change(&message, &me, &request.emoji, emoji.clone(), true), &blockers)
    })
}

pub fn remove(request: &ReactionRequest) -> Result<(), Error> {
    let me = caller()?.user_id;
    let (message, emoji) = reacted_to(&me, request)?;
    let blockers = changes::blockers_of(&me, &message.conversation_id)?;
    transaction(|tx| match marks::remove_reaction(tx, &message.id, &me, &emoji)? {
        Some(spelling) => announce(tx, &message, change(&message, &me, &spelling, emoji.clone(), false), &blockers),
        None => Ok(()),
    })
}

/// Not those of people whom the caller blocks.
pub fn list(request: &ReactionsRequest) -> Result<Reactions, Error> {
    let me = caller()?.user_id;
    let page = Page::<(u64, Id, String)>::new(request.limit, request.cursor.as_deref())?;
    let message = seen_by(&me, &request.id)?;
    let after = page.after.clone().map_or_else(Default::default, |(at, Id(user), emoji)| (at, user, emoji));
    let rows = marks::reactions_seen_by(&Database, &me, &message.id, &after, page.fetch())?;
    let (rows, next_cursor) = page.finish(rows, |row| (row.created_at, Id(row.user_id.clone()), row.emoji.clone()));
    Ok(Reactions { items: rows.into_iter().map(Into::into).collect(), next_cursor })
}

fn reacted_to(me: &str, request: &ReactionRequest) -> Result<(Message, String), Error> {
    let emoji = emoji::canonical(&request.emoji).ok_or_else(|| Error::invalid_field("emoji", "not_an_emoji", "one emoji"))?;
    Ok((seen_by(me, &request.id)?, emoji))
}

fn change(message: &Message, me: &str, spelling: &str, canonical: String, present: bool) -> ReactionChange {
    ReactionChange {
        message_id: message.id.clone(),
        conversation_id: message.conversation_id.clone(),
        seq: message.seq,
        user_id: me.to_owned(),
        emoji: spelling.to_owned(),
        canonical,
        present,
        at: time::now_us(),
    }
}

/// Whoever blocks the caller is not disturbed. Of one reaction that goes on and off each gets the first word and the last.
fn announce(tx: &Transaction, message: &Message, change: ReactionChange, blockers: &[String]) -> Result<(), Error> {
    let mut users = messages::audience_of(tx, &message.conversation_id, message.seq)?;
    users.retain(|user| !blockers.contains(user));
    pushes::reaction(&users, &change)
}
