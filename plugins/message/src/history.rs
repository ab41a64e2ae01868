//! Reading messages: pages of a conversation, one message, its earlier contents.

use echo_sdk::sql::Database;
use echo_sdk::{Error, Page, caller, time};

use crate::bindings::exports::echo::message::api::{
    Edits, ListMessagesRequest, MediaUsage, Message, Messages, Preview, Previews, PreviewsRequest, ThreadRequest,
};
use crate::store::conversations::membership;
use crate::store::messages::{self, Span};
use crate::{rules, send_request};

/// The direction goes with the cursor, so that the next page needs nothing else.
const NEWEST_FIRST: u64 = 0;
const OLDEST_FIRST: u64 = 1;

pub fn list(request: &ListMessagesRequest) -> Result<Messages, Error> {
    let me = caller()?.user_id;
    let page = Page::<(u64, u64)>::new(request.limit, request.cursor.as_deref())?;
    membership(&Database, &request.conversation_id, &me)?.ok_or_else(rules::no_conversation)?;
    let (direction, above, below) = range(request.after_seq, request.before_seq, page.after);
    let span = Span { conversation_id: &request.conversation_id, above, below, limit: page.fetch() };
    let read = if direction == OLDEST_FIRST { messages::oldest_first } else { messages::newest_first };
    let (items, next_cursor) = page.finish(read(&me, &span, time::now_us())?, |message| (direction, message.seq));
    Ok(Messages { items, next_cursor })
}

/// The direction, and the seqs that bound the page on both sides, left out themselves.
fn range(after_seq: Option<u64>, before_seq: Option<u64>, cursor: Option<(u64, u64)>) -> (u64, u64, u64) {
    let (above, below) = (after_seq.unwrap_or(0), before_seq.unwrap_or(u64::MAX));
    match cursor {
        Some((OLDEST_FIRST, last)) => (OLDEST_FIRST, above.max(last), below),
        Some((_, last)) => (NEWEST_FIRST, above, below.min(last)),
        None if after_seq.is_some() => (OLDEST_FIRST, above, below),
        None => (NEWEST_FIRST, above, below),
    }
}

pub fn get(id: &str) -> Result<Message, Error> {
    seen_by(&caller()?.user_id, id)
}

pub fn seen_by(user_id: &str, id: &str) -> Result<Message, Error> {
    messages::visible_to(&Database, user_id, id, time::now_us())?.ok_or_else(rules::no_message)
}

/// Of the thread that the message begins, or that it is in.
pub fn thread(request: &ThreadRequest) -> Result<Messages, Error> {
    let me = caller()?.user_id;
    let page = Page::<u64>::new(request.limit, request.cursor.as_deref())?;
    let message = seen_by(&me, &request.id)?;
    let first_id = message.thread_id.as_deref().unwrap_or(&message.id);
    let items = messages::thread_of(&me, first_id, page.after.unwrap_or(0), page.fetch(), time::now_us())?;
    let (items, next_cursor) = page.finish(items, |message| message.seq);
    Ok(Messages { items, next_cursor })
}

pub fn edits(id: &str) -> Result<Edits, Error> {
    let me = caller()?.user_id;
    let message = seen_by(&me, id)?;
    Ok(Edits { items: messages::edits_of(&me, &message.id)?, next_cursor: None })
}

/// For other services, which know who may see what.
pub fn media_use(media_id: &str) -> Result<MediaUsage, Error> {
    let now = time::now_us();
    let visible = match caller() {
        Ok(caller) => messages::media_seen_by(&caller.user_id, media_id, now)?,
        Err(_) => false,
    };
    Ok(MediaUsage { visible, used: visible || messages::media_is_used(media_id, now)? })
}

pub fn previews(request: &PreviewsRequest) -> Result<Previews, Error> {
    let contents = messages::contents_of(&request.ids, time::now_us())?;
    let items = contents.into_iter().map(|(message_id, content)| Preview { message_id, text: send_request::preview(content.as_deref()) });
    Ok(Previews { items: items.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_lies_between_its_bounds() {
        for (after, before, cursor, expect) in [
            (None, None, None, (NEWEST_FIRST, 0, u64::MAX)),
            (None, Some(9), None, (NEWEST_FIRST, 0, 9)),
            (Some(3), None, None, (OLDEST_FIRST, 3, u64::MAX)),
            (Some(3), Some(9), None, (OLDEST_FIRST, 3, 9)),
            (None, Some(9), Some((NEWEST_FIRST, 5)), (NEWEST_FIRST, 0, 5)),
            (None, None, Some((OLDEST_FIRST, 5)), (OLDEST_FIRST, 5, u64::MAX)),
            (Some(3), Some(9), Some((OLDEST_FIRST, 5)), (OLDEST_FIRST, 5, 9)),
        ] {
            assert_eq!(range(after, before, cursor), expect);
        }
    }
}
