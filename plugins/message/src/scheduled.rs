//! Messages that are sent at their time. A message is sent and forgotten here in one transaction, so that it is sent exactly once.

use echo_sdk::checks::Checks;
use echo_sdk::sql::{Database, transaction};
use echo_sdk::time::SECOND_US;
use echo_sdk::wit::context;
use echo_sdk::{Error, ErrorKind, Id, Page, Timestamp, caller, ids, log, time};

use crate::bindings::exports::echo::message::api::{
    MessageType, PageRequest, ScheduleRequest, ScheduledMessage, ScheduledMessages, SendRequest, UpdateScheduledRequest,
};
use crate::bounds::{EXPIRING_TIME_LEFT_MS, SCHEDULED_AHEAD_MAX_S, SCHEDULED_MAX, SCHEDULED_PER_RUN};
use crate::store::messages::sent_before;
use crate::store::scheduled::{self, Scheduled};
use crate::{send_request, sending};

/// Sorts before every id.
const FIRST_ID: &str = "00000000-0000-0000-0000-000000000000";

pub fn schedule(request: ScheduleRequest) -> Result<ScheduledMessage, Error> {
    let me = caller()?.user_id;
    let (draft, send_at) = parts_of(request);
    send_request::check(&draft)?;
    let content_hash = send_request::fingerprint(&draft);
    if let Some(before) = scheduled::of_client_id(&me, &draft.client_message_id)? {
        return again(before, &content_hash);
    }
    let now = time::now_us();
    check_time(send_at, now)?;
    sending::may_send(me.clone(), draft.clone())?;
    if sent_before(&me, &draft.client_message_id)?.is_some() {
        return Err(reused());
    }
    let new =
        Scheduled { id: ids::uuid_v7(), sender_id: me.clone(), revision: 1, draft, send_at, created_at: now, failure: None, content_hash };
    let is_new = transaction(|tx| {
        if !scheduled::insert(tx, &new)? {
            return Ok(false);
        }
        if scheduled::count_of(tx, &me)? > SCHEDULED_MAX {
            return Err(Error::conflict("too_many_scheduled", format!("at most {SCHEDULED_MAX} messages wait to be sent")));
        }
        Ok(true)
    })?;
    if is_new {
        return Ok(view(new));
    }
    // Asked for twice at once.
    match scheduled::of_client_id(&me, &new.draft.client_message_id)? {
        Some(before) => again(before, &new.content_hash),
        None => Err(Error::unavailable("the message was sent or taken back while it was looked at")),
    }
}

fn again(before: Scheduled, content_hash: &[u8]) -> Result<ScheduledMessage, Error> {
    if before.content_hash == content_hash { Ok(view(before)) } else { Err(reused()) }
}

fn reused() -> Error {
    Error::conflict("client_message_id_reused", "this client_message_id was used for another message")
}

pub fn list(request: &PageRequest) -> Result<ScheduledMessages, Error> {
    let me = caller()?.user_id;
    let page = Page::<(u64, Id)>::new(request.limit, request.cursor.as_deref())?;
    let after = page.after.clone().map_or_else(|| (0, FIRST_ID.to_owned()), |(at, Id(id))| (at, id));
    let (rows, next_cursor) = page.finish(scheduled::of_sender(&me, &after, page.fetch())?, |row| (row.send_at, Id(row.id.clone())));
    Ok(ScheduledMessages { items: rows.into_iter().map(view).collect(), next_cursor })
}

pub fn update(request: &UpdateScheduledRequest) -> Result<ScheduledMessage, Error> {
    let me = caller()?.user_id;
    let before = scheduled::one_of(&Database, &me, &request.id)?.ok_or_else(not_there)?;
    if let Some(content) = &request.content {
        if before.draft.type_ == MessageType::Poll {
            return Err(Error::invalid_field("content", "not_for_type", "a poll has its question instead"));
        }
        send_request::check_content(content)?;
    }
    request.send_at.map_or(Ok(()), |send_at| check_time(send_at, time::now_us()))?;
    transaction(|tx| {
        if !scheduled::update(tx, &me, &request.id, request.content.as_deref(), request.send_at)? {
            return Err(not_there());
        }
        Ok(view(scheduled::one_of(tx, &me, &request.id)?.ok_or_else(not_there)?))
    })
}

pub fn cancel(id: &str) -> Result<(), Error> {
    let me = caller()?.user_id;
    if scheduled::cancel(&me, id)? { Ok(()) } else { Err(not_there()) }
}

fn not_there() -> Error {
    Error::not_found("there is no such message, or it is sent by now")
}

fn check_time(send_at: Timestamp, now: Timestamp) -> Result<(), Error> {
    let is_in_range = send_at > now && send_at <= now.saturating_add(SCHEDULED_AHEAD_MAX_S * SECOND_US);
    Checks::new().require(is_in_range, "send_at", "out_of_range", "in the future, within a year").finish()
}

/// One run of the schedule. What it does not manage, the next one does.
pub fn send_due() -> Result<(), Error> {
    for due in scheduled::due(time::now_us(), SCHEDULED_PER_RUN)? {
        if context::remaining_ms() < EXPIRING_TIME_LEFT_MS {
            break;
        }
        send_one(due)?;
    }
    Ok(())
}

/// What cannot be sent for good stays with the reason, for its sender to see; everything else is tried again.
fn send_one(due: Scheduled) -> Result<(), Error> {
    let Scheduled { id, sender_id, revision, draft, .. } = due;
    // Changed, taken back or sent by another host since it was read: then nothing is sent.
    let taken = |tx: &echo_sdk::Transaction| {
        if scheduled::take(tx, &id, revision)? { Ok(()) } else { Err(Error::unavailable("it is not as it was read")) }
    };
    match sending::send_as(sender_id, draft, &taken) {
        // Where its sender had sent it by the same client id before, it is still here.
        Ok(_) => Ok(scheduled::forget(&id, revision)?),
        Err(error) if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::RateLimited | ErrorKind::Internal) => {
            log::info("a scheduled message waits", &[("code", &error.code)]);
            Ok(())
        }
        Err(error) => Ok(scheduled::fail(&id, revision, &error.code)?),
    }
}

fn parts_of(request: ScheduleRequest) -> (SendRequest, Timestamp) {
    let draft = SendRequest {
        conversation_id: request.conversation_id,
        client_message_id: request.client_message_id,
        type_: request.type_,
        content: request.content,
        media_id: request.media_id,
        location: request.location,
        contact: request.contact,
        poll: request.poll,
        reply_to: request.reply_to,
        thread_id: request.thread_id,
        mentions: request.mentions,
        metadata: request.metadata,
    };
    (draft, request.send_at)
}

pub fn view(scheduled: Scheduled) -> ScheduledMessage {
    let Scheduled { id, draft, send_at, created_at, failure, .. } = scheduled;
    ScheduledMessage {
        id,
        conversation_id: draft.conversation_id,
        client_message_id: draft.client_message_id,
        type_: draft.type_,
        content: draft.content,
        media_id: draft.media_id,
        location: draft.location,
        contact: draft.contact,
        poll: draft.poll,
        reply_to: draft.reply_to,
        thread_id: draft.thread_id,
        mentions: draft.mentions.unwrap_or_default(),
        metadata: draft.metadata,
        send_at,
        created_at,
        failure,
    }
}
