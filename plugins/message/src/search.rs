//! Searching messages by their words, and keeping the index of words: a schedule takes new messages into it, so that sending costs no statement more.

use echo_sdk::sql::{Database, transaction};
use echo_sdk::wit::context;
use echo_sdk::{Error, Id, Page, caller, time};

use crate::bindings::exports::echo::message::api::{Message, Messages, SearchRequest};
use crate::bounds::{
    CANDIDATE_STEPS_MAX, CANDIDATES_AT_ONCE, CONVERSATIONS_INDEXED_AT_ONCE, EXPIRING_TIME_LEFT_MS, INDEXED_AT_ONCE, INDEXED_BYTES_AT_ONCE,
    INDEXED_BYTES_PER_RUN,
};
use crate::rules;
use crate::store::conversations::membership;
use crate::store::messages::visible_among;
use crate::store::words::{self, Unindexed};
use crate::words::{Query, words_of};

/// Sorts after every message's id.
const LAST_ID: &str = "ffffffff-ffff-ffff-ffff-ffffffffffff";

pub fn search(request: &SearchRequest) -> Result<Messages, Error> {
    let me = caller()?.user_id;
    let query = Query::of(&request.q).ok_or_else(|| Error::invalid_field("q", "required", "something to look for"))?;
    let page = Page::<Id>::new(request.limit, request.cursor.as_deref())?;
    if let Some(id) = &request.conversation_id {
        membership(&Database, id, &me)?.ok_or_else(rules::no_conversation)?;
    }
    let mut before = page.after.clone().map_or_else(|| LAST_ID.to_owned(), |Id(id)| id);
    let mut found: Vec<Message> = Vec::new();
    for _ in 0..CANDIDATE_STEPS_MAX {
        let candidates = words::candidates(&me, request.conversation_id.as_deref(), &query.words, &before, CANDIDATES_AT_ONCE)?;
        // The index knows what everybody sees; what this person sees decides.
        let mut seen = visible_among(&me, &candidates, time::now_us())?;
        seen.retain(|message| message.content.as_deref().is_some_and(|content| query.is_in(content)));
        seen.sort_unstable_by(|one, other| other.id.cmp(&one.id));
        found.extend(seen);
        let is_over = (candidates.len() as i64) < CANDIDATES_AT_ONCE;
        if is_over || found.len() as i64 >= page.fetch() {
            let (items, next_cursor) = page.finish(found, |message| Id(message.id.clone()));
            return Ok(Messages { items, next_cursor });
        }
        before = candidates.into_iter().next_back().unwrap_or_default();
    }
    // There may be more below what was looked at.
    let next_cursor = page.cursor(&Id(before));
    Ok(Messages { items: found, next_cursor: Some(next_cursor) })
}

/// One run of the schedule. What it does not manage, the next one does.
pub fn index() -> Result<(), Error> {
    let mut bytes = 0;
    loop {
        let unindexed = words::unindexed(CONVERSATIONS_INDEXED_AT_ONCE)?;
        for conversation in &unindexed {
            if bytes > INDEXED_BYTES_PER_RUN || context::remaining_ms() < EXPIRING_TIME_LEFT_MS {
                return Ok(());
            }
            bytes += index_some(conversation)?;
        }
        if unindexed.is_empty() {
            return Ok(());
        }
    }
}

/// The next messages of one conversation; how many bytes they had. The messages are locked, so that one that is changed or deleted at the same time is
/// indexed as it is in the end.
fn index_some(conversation: &Unindexed) -> Result<usize, Error> {
    let Unindexed { id, indexed_seq, last_seq } = conversation;
    transaction(|tx| {
        let mut up_to = (*last_seq).min(indexed_seq + INDEXED_AT_ONCE);
        let mut bytes = 0;
        for (message_id, seq, content) in words::lock_contents(tx, id, *indexed_seq, up_to)? {
            if bytes > INDEXED_BYTES_AT_ONCE {
                up_to = seq - 1;
                break;
            }
            bytes += content.len();
            words::insert(tx, id, &message_id, &words_of(&content))?;
        }
        // Another run may have been here meanwhile: what it has inserted is the same.
        words::set_indexed(tx, id, *indexed_seq, up_to)?;
        // A conversation of messages without words is work too.
        Ok(bytes + (up_to - indexed_seq) as usize)
    })
}
