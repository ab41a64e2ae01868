//! Sent, delivered, read: watermarks per participant that only rise. A message's status is where its seq stands against them.
//!
//! Each step first sees where the watermark is, and moves it only from there; where another was faster, it looks again. So of two receipts
//! at once each message is told of once.

use echo_sdk::sql::{Database, SqlError, Transaction, transaction};
use echo_sdk::time::SECOND_US;
use echo_sdk::{Error, Timestamp, caller, config, exports, time};

use crate::bindings::echo::message::pushes;
use crate::bindings::echo::user::api as users;
use crate::bindings::exports::echo::hub::events::Acknowledgements;
use crate::bindings::exports::echo::message::api::{MessageStatus, ReadRequest, ReadState, RecipientStatus, SetUnreadRequest, Statuses};
use crate::bounds::{EXPORTS_CLEARED_PER_RUN, MARKS_CLEARED_PER_RUN, RECEIPTS_AT_ONCE, TRIES_MAX};
use crate::history::seen_by;
use crate::rules::{self, Shown};
use crate::store::conversations::{membership, unread_count};
use crate::store::receipts::{self, Marked, Reached, Step, Undelivered};
use crate::{payload, private_marks};

/// Why a receipt came to nothing.
enum Stopped {
    /// The watermark stands elsewhere by now: look again.
    Moved,
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

fn until_it_holds<T>(mut step: impl FnMut() -> Result<T, Stopped>) -> Result<T, Error> {
    for _ in 0..TRIES_MAX {
        match step() {
            Ok(value) => return Ok(value),
            Err(Stopped::Moved) => {}
            Err(Stopped::Declined(error)) => return Err(error),
        }
    }
    Err(Error::unavailable("too many receipts at once"))
}

// --- From a device's acknowledgement ---------------------------------------------------------------------------------------------------

/// The receipts are ids of messages that reached a device of a user. A feed is in order, so all before them in their conversations did too, unless
/// the device began later than what no other one has: then those are noted one by one.
/// An acknowledgement of one's own messages tells nobody anything.
pub fn acknowledged(event: &Acknowledgements) -> Result<(), Error> {
    let reached: Vec<Reached<'_>> = event
        .items
        .iter()
        .flat_map(|one| {
            one.receipts.iter().map(|receipt| Reached { user_id: &one.user_id, message_id: receipt, behind: one.behind == Some(true) })
        })
        .filter(|reached| is_uuid(reached.message_id))
        .collect();
    reached.chunks(RECEIPTS_AT_ONCE).try_for_each(|some| until_it_holds(|| delivered(some)))
}

fn delivered(reached: &[Reached<'_>]) -> Result<(), Stopped> {
    let undelivered = receipts::undelivered_among(reached)?;
    if undelivered.is_empty() {
        return Ok(());
    }
    let behind: Vec<&str> = reached.iter().filter(|reached| reached.behind).map(|reached| reached.user_id).collect();
    let groups: Vec<&[Undelivered]> = undelivered.chunk_by(is_same_watermark).collect();
    let steps: Vec<Step> = groups.iter().filter_map(|group| step(group)).collect();
    let now = time::now_us();
    transaction(|tx| {
        if !receipts::raise_all_delivered(tx, &steps, now)? {
            return Err(Stopped::Moved);
        }
        for &group in &groups {
            let began_later = behind.contains(&group[0].user_id.as_str()) || group[0].message.seq <= group[0].delivered_seq;
            if began_later && pass_over(tx, group)? {
                // Of those before them nothing is said.
                for Undelivered { user_id, message, .. } in group {
                    tell_alone(message, user_id, MessageStatus::Delivered, now)?;
                }
                continue;
            }
            for Undelivered { user_id, message, .. } in newest_of_each(group) {
                tell(message, user_id, MessageStatus::Delivered, now)?;
            }
        }
        Ok(())
    })
}

/// Notes what of one conversation no device of the user has though these have reached one, and takes out what was noted before. Whether some is left.
fn pass_over(tx: &Transaction, group: &[Undelivered]) -> Result<bool, Stopped> {
    let (Some(first), Some(newest)) = (group.first(), group.last()) else { return Ok(false) };
    let (conversation_id, user_id) = (&first.message.conversation_id, &first.user_id);
    for one in group.iter().filter(|one| one.message.seq <= one.delivered_seq) {
        receipts::forget_undelivered(tx, conversation_id, user_id, one.message.seq, one.message.seq)?;
    }
    if let Some(step) = step(group) {
        let seqs: Vec<u64> = group.iter().map(|one| one.message.seq).collect();
        receipts::note_undelivered(tx, &step, &seqs)?;
    }
    Ok(receipts::oldest_undelivered(tx, conversation_id, user_id, newest.message.seq)?.is_some())
}

fn is_same_watermark(one: &Undelivered, other: &Undelivered) -> bool {
    (&one.user_id, &one.message.conversation_id) == (&other.user_id, &other.message.conversation_id)
}

/// Of each sender's messages under one watermark the newest. They are by watermark and seq.
fn newest_of_each(undelivered: &[Undelivered]) -> impl Iterator<Item = &Undelivered> {
    undelivered.iter().enumerate().filter_map(move |(at, one)| {
        let later = undelivered[at + 1..].iter().take_while(|later| is_same_watermark(one, later));
        let is_newest = later.into_iter().all(|later| later.message.sender_id != one.message.sender_id);
        is_newest.then_some(one)
    })
}

/// Up to the newest of these messages, which are under one watermark; none where that is beyond them.
fn step(undelivered: &[Undelivered]) -> Option<Step> {
    let newest = undelivered.last().filter(|newest| newest.message.seq > newest.delivered_seq)?;
    Some(Step {
        conversation_id: newest.message.conversation_id.clone(),
        user_id: newest.user_id.clone(),
        from: newest.delivered_seq,
        to: newest.message.seq,
    })
}

/// The hub gives receipts back as they were given; an id that is none never came from here.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

// --- From a person ---------------------------------------------------------------------------------------------------------------------

pub fn mark_read(request: &ReadRequest) -> Result<ReadState, Error> {
    let me = caller()?.user_id;
    let id = &request.conversation_id;
    let read_seq = until_it_holds(|| {
        let place = membership(&Database, id, &me)?.ok_or_else(rules::no_conversation)?;
        if place.marked_unread {
            private_marks::set_unread(&SetUnreadRequest { id: id.clone(), unread: false })?;
        }
        let to = request.up_to_seq.min(place.last_seq);
        if to <= place.read_seq {
            return Ok(place.read_seq);
        }
        // Before the transaction: nobody else writes while one is open, and asking another service may take its time.
        let newest = receipts::newest_per_sender(&Database, id, &me, place.read_seq, to)?;
        let (shown, may_know) = who_may_know(&newest)?;
        let now = time::now_us();
        transaction(|tx| {
            if !receipts::raise_read(tx, id, &me, place.read_seq, to, shown)? {
                return Err(Stopped::Moved);
            }
            if shown != Shown::KeptBack || !may_know.is_empty() {
                receipts::mark(tx, id, &me, "read", to, now)?;
            }
            if place.delivered_seq < to {
                receipts::mark(tx, id, &me, "delivered", to, now)?;
            }
            receipts::forget_undelivered(tx, id, &me, 0, to)?;
            for message in &newest {
                let knows = may_know.contains(&message.sender_id);
                if knows && shown == Shown::KeptBack {
                    receipts::show_to(tx, id, &me, &message.sender_id, to)?;
                }
                if let Some(status) = rules::told(knows, message.seq, place.delivered_seq) {
                    tell(message, &me, status, now)?;
                }
            }
            Ok(to)
        })
    })?;
    Ok(ReadState { conversation_id: id.clone(), read_seq, unread_count: unread_count(&me, id, time::now_us())? })
}

/// What others see of reading these messages, and which of their senders are told.
fn who_may_know(newest: &[Marked]) -> Result<(Shown, Vec<String>), Error> {
    if newest.is_empty() {
        return Ok((rules::shown(false, false), Vec::new()));
    }
    let ids = newest.iter().map(|message| message.sender_id.clone()).collect();
    let audience = users::read_receipts_for(&users::ReceiptsRequest { ids })?;
    Ok((rules::shown(true, audience.everyone), audience.ids))
}

pub fn mark_delivered(request: &ReadRequest) -> Result<(), Error> {
    let me = caller()?.user_id;
    let id = &request.conversation_id;
    until_it_holds(|| {
        let place = membership(&Database, id, &me)?.ok_or_else(rules::no_conversation)?;
        let to = request.up_to_seq.min(place.last_seq);
        let oldest = receipts::oldest_undelivered(&Database, id, &me, to)?;
        if to <= place.delivered_seq && oldest.is_none() {
            return Ok(());
        }
        let now = time::now_us();
        transaction(|tx| {
            if to > place.delivered_seq && !receipts::raise_delivered(tx, id, &me, place.delivered_seq, to)? {
                return Err(Stopped::Moved);
            }
            receipts::mark(tx, id, &me, "delivered", to, now)?;
            receipts::forget_undelivered(tx, id, &me, 0, to)?;
            let above = oldest.map_or(place.delivered_seq, |oldest| place.delivered_seq.min(oldest - 1));
            for message in receipts::newest_per_sender(tx, id, &me, above, to)? {
                tell(&message, &me, MessageStatus::Delivered, now)?;
            }
            Ok(())
        })
    })
}

/// Of a sender's newest message, and by `up_to_seq` of all of theirs before it: a later one makes an earlier one of the same status superfluous.
/// Nothing to a sender whom the recipient blocks.
fn tell(message: &Marked, recipient: &str, status: MessageStatus, at: Timestamp) -> Result<(), Error> {
    if message.withheld {
        return Ok(());
    }
    let payload = payload::status(&message.conversation_id, &message.id, recipient, status, Some(message.seq), at);
    pushes::message_status(std::slice::from_ref(&message.sender_id), &payload)
}

/// Of one message, and of no other. Nothing to a sender whom the recipient blocks.
fn tell_alone(message: &Marked, recipient: &str, status: MessageStatus, at: Timestamp) -> Result<(), Error> {
    if message.withheld {
        return Ok(());
    }
    let payload = payload::status(&message.conversation_id, &message.id, recipient, status, None, at);
    pushes::message_status_alone(std::slice::from_ref(&message.sender_id), &payload)
}

/// Where the setting is missing, in seconds: 90 days.
const TIMES_KEPT_S: u64 = 90 * 24 * 60 * 60;

/// Nothing is told any more of when a message was delivered and read that was sent before this.
fn times_kept_since(now: Timestamp) -> Timestamp {
    now.saturating_sub(config::number("receipt_times_kept_s", TIMES_KEPT_S).saturating_mul(SECOND_US))
}

pub fn clear_away() -> Result<(), Error> {
    let now = time::now_us();
    exports::close_expired(&Database, now, EXPORTS_CLEARED_PER_RUN)?;
    Ok(receipts::drop_marks(times_kept_since(now), MARKS_CLEARED_PER_RUN)?)
}

// --- For the sender ----------------------------------------------------------------------------------------------------------------------

pub fn statuses(id: &str) -> Result<Statuses, Error> {
    let me = caller()?.user_id;
    let message = seen_by(&me, id)?;
    if message.sender_id != me {
        return Err(Error::forbidden("not_allowed", "only the sender sees who has got a message"));
    }
    let recipients = receipts::recipients_of(&message.conversation_id, message.seq, &me)?;
    // Of an older message the marks may be gone, and a later message's mark must not pass for its own.
    let are_known = message.created_at >= times_kept_since(time::now_us());
    let items = recipients.into_iter().map(|recipient| {
        let status = rules::status(message.seq, recipient.delivered_seq, recipient.shown_read_seq, recipient.kept_back);
        let (read_at, delivered_at) = match status {
            _ if !are_known => (None, None),
            MessageStatus::Sent => (None, None),
            MessageStatus::Delivered => (None, recipient.delivered_at),
            MessageStatus::Read => (recipient.read_at, recipient.delivered_at.or(recipient.read_at)),
        };
        RecipientStatus { user_id: recipient.user_id, status, delivered_at, read_at }
    });
    Ok(Statuses { items: items.collect(), next_cursor: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_that_are_no_ids_are_passed_over() {
        for (text, expect) in [
            ("018f4c5e-7b1a-7c3d-8e9f-0123456789ab", true),
            ("018f4c5e-7b1a-7c3d-8e9f-0123456789a", false),
            ("018f4c5e_7b1a_7c3d_8e9f_0123456789ab", false),
            ("018f4c5e-7b1a-7c3d-8e9f-0123456789ag", false),
            ("", false),
        ] {
            assert_eq!(is_uuid(text), expect, "{text}");
        }
    }
}
