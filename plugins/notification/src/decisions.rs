//! Whether a message needs a push: it waits for a while, then the hub is asked who has no device that acknowledged it.
//!
//! Only who has a push device is asked about: for the others there is nothing to decide, and most messages cost one row and no question. Those
//! who block the sender are no recipients, and those who muted the conversation get no push; but the sender is to see no difference, so for
//! them too it is decided as for everybody else, and only the push is left out.

use std::collections::HashMap;

use echo_sdk::sql::transaction;
use echo_sdk::time::{DAY_US, SECOND_US};
use echo_sdk::wit::{context, hub};
use echo_sdk::{Error, Timestamp, config, ids, time};

use crate::bindings::exports::echo::message::events::SentMessage;
use crate::bounds::{DUE_BATCH, DUE_BATCHES_PER_RUN, DUE_RECIPIENTS_MAX, DUE_TIME_LEFT_MS, ENDED_SESSIONS_KEPT_US};
use crate::store::{self, Awaited, Outgoing};

/// Where the settings are missing.
const ACK_WAIT_S: u64 = 5;
const TRACE_KEPT_DAYS: u64 = 7;

const TITLE: &str = "New message";
/// For a message without text.
const BODY: &str = "You have a new message";

pub fn awaited(sent: &[SentMessage]) -> Result<(), Error> {
    let wait_us = config::number("ack_wait_s", ACK_WAIT_S) * SECOND_US;
    let with_recipients = sent.iter().filter(|message| !message.recipient_ids.is_empty() || !message.withheld_ids.is_empty());
    let awaited: Vec<Awaited> = with_recipients
        .map(|message| Awaited {
            message_id: message.message_id.clone(),
            conversation_id: message.conversation_id.clone(),
            sender_id: message.sender_id.clone(),
            recipient_ids: message.recipient_ids.join(" "),
            muted_ids: message.muted_ids.join(" "),
            withheld_ids: message.withheld_ids.join(" "),
            preview: message.preview.clone(),
            sent_at: message.at,
            due_at: message.at + wait_us,
            decided_at: None,
        })
        .collect();
    Ok(store::insert_awaited(&awaited)?)
}

/// One run of the schedule: decides on what is due. What it does not manage, the next run does; many short runs hold nobody up, where one that
/// decides on a second's messages takes a processor for as long as a person is to wait for a message.
pub fn decide_due() -> Result<(), Error> {
    for _ in 0..DUE_BATCHES_PER_RUN {
        let now = time::now_us();
        let due = store::due(now)?;
        let whole = due.len() == DUE_BATCH as usize;
        let taken = take(&due);
        let more = whole || taken < due.len();
        decide_batch(&due[..taken], now)?;
        if !more || context::remaining_ms() < DUE_TIME_LEFT_MS {
            break;
        }
    }
    Ok(())
}

/// Clears away what is old, some at a time.
pub fn clear_away() -> Result<(), Error> {
    store::trim_outbox()?;
    store::forget_ended(time::now_us().saturating_sub(ENDED_SESSIONS_KEPT_US))?;
    let kept_us = config::number("trace_kept_days", TRACE_KEPT_DAYS).saturating_mul(DAY_US);
    Ok(store::forget_before(&ids::uuid_v7_of(time::now_us().saturating_sub(kept_us), 0))?)
}

/// How many of them may be looked at together: always one, and further ones within the bound of recipients.
fn take(due: &[Awaited]) -> usize {
    let mut recipients = 0;
    let fits = due.iter().take_while(|awaited| {
        recipients += everybody(awaited).count();
        recipients <= DUE_RECIPIENTS_MAX
    });
    fits.count().max(1).min(due.len())
}

fn decide_batch(due: &[Awaited], now: Timestamp) -> Result<(), Error> {
    if due.is_empty() {
        return Ok(());
    }
    let mut reachable: Vec<String> = due.iter().flat_map(everybody).map(str::to_owned).collect();
    reachable.sort_unstable();
    reachable.dedup();
    let mut tokens: HashMap<String, Vec<String>> = HashMap::new();
    for (user, token) in store::devices_among(&reachable)? {
        tokens.entry(user).or_default().push(token);
    }
    let (asked, unasked): (Vec<&Awaited>, Vec<&Awaited>) =
        due.iter().partition(|awaited| everybody(awaited).any(|user| tokens.contains_key(user)));
    store::set_decided(&unasked.into_iter().map(|awaited| awaited.message_id.clone()).collect::<Vec<_>>(), now)?;
    for awaited in asked {
        let with_device: Vec<String> = everybody(awaited).filter(|user| tokens.contains_key(*user)).map(str::to_owned).collect();
        let missed = hub::unacknowledged(&awaited.message_id, &with_device)?;
        let (missed, reached): (Vec<String>, Vec<String>) = with_device.into_iter().partition(|user| missed.contains(user));
        let pushes: Vec<_> = missed
            .iter()
            .filter(|user| is_pushed_to(awaited, user))
            .flat_map(|user| &tokens[user])
            .map(|token| (ids::uuid_v7(), push(awaited, token, now)))
            .collect();
        transaction(|tx| {
            if store::decide(tx, &awaited.message_id, now)? {
                store::insert_traces(tx, &awaited.message_id, &missed, "pushed", now)?;
                store::insert_traces(tx, &awaited.message_id, &reached, "acknowledged", now)?;
                store::insert_outgoing(tx, &pushes)?;
            }
            Ok::<_, Error>(())
        })?;
    }
    Ok(())
}

fn push(awaited: &Awaited, token: &str, at: Timestamp) -> Outgoing {
    Outgoing {
        channel: "push".to_owned(),
        recipient: token.to_owned(),
        title: Some(TITLE.to_owned()),
        body: awaited.preview.clone().unwrap_or_else(|| BODY.to_owned()),
        code: None,
        at,
    }
}

pub fn users(ids: &str) -> impl Iterator<Item = &str> {
    ids.split_whitespace()
}

/// Whom the sender knows as recipients.
pub fn everybody(awaited: &Awaited) -> impl Iterator<Item = &str> {
    users(&awaited.recipient_ids).chain(users(&awaited.withheld_ids))
}

/// Whether this one of them, who did not acknowledge, is to get a push.
fn is_pushed_to(awaited: &Awaited, user_id: &str) -> bool {
    !users(&awaited.muted_ids).chain(users(&awaited.withheld_ids)).any(|spared| spared == user_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn awaited(recipients: &str, muted: &str, withheld: &str) -> Awaited {
        Awaited {
            message_id: "m".into(),
            conversation_id: "c".into(),
            sender_id: "s".into(),
            recipient_ids: recipients.into(),
            muted_ids: muted.into(),
            withheld_ids: withheld.into(),
            preview: None,
            sent_at: 0,
            due_at: 0,
            decided_at: None,
        }
    }

    #[test]
    fn who_muted_or_blocks_is_decided_on_and_gets_no_push() {
        let awaited = awaited("a b c", "b", "d");
        assert_eq!(everybody(&awaited).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        assert_eq!(everybody(&awaited).filter(|user| is_pushed_to(&awaited, user)).collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn a_batch_is_bounded_by_recipients() {
        let crowd = vec!["u"; DUE_RECIPIENTS_MAX / 2 + 1].join(" ");
        let of = |all: &[&str]| take(&all.iter().map(|recipients| awaited(recipients, "", "")).collect::<Vec<_>>());
        assert_eq!(of(&["a", "b c"]), 2);
        assert_eq!(of(&["a", &crowd, &crowd]), 2);
        assert_eq!(of(&[&format!("{crowd} {crowd}"), "a"]), 1);
        assert_eq!(of(&[]), 0);
    }

    #[test]
    fn a_push_shows_the_preview() {
        assert_eq!(push(&Awaited { preview: Some("hi".into()), ..awaited("a", "", "") }, "t", 1).body, "hi");
        assert_eq!(push(&awaited("a", "", ""), "t", 1).body, BODY);
    }
}
