//! Whether a message needs a push: it waits for a while, then the hub is asked who has no device that acknowledged it.
//!
//! Only who has a push device is asked about: for the others there is nothing to decide, and most messages cost one row and no question. Those
//! who block the sender are no recipients, and those who muted the conversation get no push; but the sender is to see no difference, so for
//! them too it is decided as for everybody else, and only the push is left out.
//!
//! What a push shows is asked of the message service when it is decided on, and changes and goes with its message.

use std::collections::HashMap;

use echo_sdk::sql::{Database, transaction};
use echo_sdk::time::{DAY_US, SECOND_US};
use echo_sdk::wit::{context, hub};
use echo_sdk::{Error, Timestamp, config, exports, ids, time};

use crate::bindings::echo::message::api as messages;
use crate::bindings::exports::echo::message::events::{ChangedMessage, SentMessage};
use crate::bounds::{
    CHANGED_AT_ONCE, DUE_BATCH, DUE_BATCHES_PER_RUN, DUE_RECIPIENTS_MAX, DUE_TIME_LEFT_MS, ENDED_SESSIONS_KEPT_US, ENTRIES_KEPT_US,
    EXPORTS_CLEARED_PER_RUN,
};
use crate::preferences::{self, Reason};
use crate::providers::Providers;
use crate::store::{self, Awaited, Outgoing, Stored};

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
            mentioned_ids: message.mentioned_ids.as_ref().map(|ids| ids.join(" ")).unwrap_or_default(),
            sent_at: message.at,
            due_at: message.at + wait_us,
            decided_at: None,
            changes: 0,
        })
        .collect();
    Ok(store::insert_awaited(&awaited)?)
}

/// What is about to leave is looked at again, and what has not left says what the message says now.
pub fn edited(changed: &[ChangedMessage]) -> Result<(), Error> {
    let ids: Vec<String> = changed.iter().map(|message| message.message_id.clone()).collect();
    for ids in ids.chunks(CHANGED_AT_ONCE) {
        // First of all: whoever decides meanwhile either finds this, or has written what is found below.
        store::note_change(&Database, ids)?;
        let outgoing = store::messages_in_outbox(ids)?;
        if outgoing.is_empty() {
            continue;
        }
        let previews = previews_of(&outgoing)?;
        transaction(|tx| {
            for id in &outgoing {
                match previews.get(id) {
                    Some(text) => store::set_body(tx, id, text.as_deref().unwrap_or(BODY))?,
                    None => store::delete_outgoing(tx, std::slice::from_ref(id))?,
                }
            }
            Ok::<_, Error>(())
        })?;
    }
    Ok(())
}

/// Nothing leaves of what has not left.
pub fn deleted(changed: &[ChangedMessage]) -> Result<(), Error> {
    let now = time::now_us();
    let ids: Vec<String> = changed.iter().map(|message| message.message_id.clone()).collect();
    for ids in ids.chunks(CHANGED_AT_ONCE) {
        transaction(|tx| {
            store::forget_awaited(tx, ids, now)?;
            store::forget_entries_about(tx, ids)?;
            Ok::<_, Error>(store::delete_outgoing(tx, ids)?)
        })?;
    }
    Ok(())
}

/// What may be shown of those messages that are there.
pub fn previews_of(message_ids: &[String]) -> Result<HashMap<String, Option<String>>, Error> {
    if message_ids.is_empty() {
        return Ok(HashMap::new());
    }
    let previews = messages::preview_messages(&messages::PreviewsRequest { ids: message_ids.to_vec() })?;
    Ok(previews.items.into_iter().map(|preview| (preview.message_id, preview.text)).collect())
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
    exports::close_expired(&Database, time::now_us(), EXPORTS_CLEARED_PER_RUN)?;
    store::forget_ended(time::now_us().saturating_sub(ENDED_SESSIONS_KEPT_US))?;
    store::forget_old_entries(&ids::uuid_v7_of(time::now_us().saturating_sub(ENTRIES_KEPT_US), 0))?;
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
    let mut tokens: HashMap<String, Vec<Device>> = HashMap::new();
    for (user_id, token, hash, provider) in store::devices_among(&reachable)? {
        tokens.entry(user_id.clone()).or_default().push(Device { user_id, token, hash, provider });
    }
    let (asked, unasked): (Vec<&Awaited>, Vec<&Awaited>) =
        due.iter().partition(|awaited| everybody(awaited).any(|user| tokens.contains_key(user)));
    store::set_decided(&unasked.into_iter().map(|awaited| awaited.message_id.clone()).collect::<Vec<_>>(), now)?;
    let mut decisions = Vec::with_capacity(asked.len());
    for awaited in asked {
        let with_device: Vec<String> = everybody(awaited).filter(|user| tokens.contains_key(*user)).map(str::to_owned).collect();
        let missed = hub::unacknowledged(&awaited.message_id, &with_device)?;
        let (missed, reached): (Vec<String>, Vec<String>) = with_device.into_iter().partition(|user| missed.contains(user));
        decisions.push((awaited, missed, reached));
    }
    let to_push: Vec<String> =
        decisions.iter().filter(|(_, missed, _)| !missed.is_empty()).map(|(awaited, ..)| awaited.message_id.clone()).collect();
    let previews = previews_of(&to_push)?;
    let missing: Vec<String> = decisions.iter().flat_map(|(_, missed, _)| missed).cloned().collect();
    let chosen: HashMap<String, Stored> =
        store::preferences_among(&missing)?.into_iter().map(|stored| (stored.user_id.clone(), stored)).collect();
    let providers = if to_push.is_empty() { None } else { Some(Providers::configured()) };
    let sent_by = &|provider: &str| providers.as_ref().is_some_and(|providers| providers.sends(provider));
    for (awaited, missed, reached) in decisions {
        let id = &awaited.message_id;
        // Deleted meanwhile: nobody is told that it was there.
        let (missed, body) = match previews.get(id) {
            Some(text) => (missed, text.as_deref().unwrap_or(BODY)),
            None => (Vec::new(), BODY),
        };
        let reason = |user: &String| {
            let mentioned = users(&awaited.mentioned_ids).any(|mentioned| mentioned == user);
            chosen.get(user).and_then(|stored| preferences::reason_against(stored, mentioned, now))
        };
        let of_reason = |wanted: Reason| missed.iter().filter(|user| reason(user) == Some(wanted)).cloned().collect::<Vec<_>>();
        let (unwanted, quiet) = (of_reason(Reason::Unwanted), of_reason(Reason::Quiet));
        let pushes: Vec<_> = missed
            .iter()
            .filter(|user| is_pushed_to(awaited, user) && reason(user).is_none())
            .flat_map(|user| {
                let shows_text = chosen.get(user).is_none_or(|stored| stored.previews);
                let body = if shows_text { body } else { BODY };
                tokens[user].iter().map(move |device| {
                    let send_at = sent_by(&device.provider).then_some(now);
                    (ids::uuid_v7(), Outgoing { shows_text, send_at, ..push(awaited, body, device, now) })
                })
            })
            .collect();
        transaction(|tx| {
            if store::decide(tx, awaited, now)? {
                store::insert_traces(tx, id, &missed, "pushed", now)?;
                store::insert_traces(tx, id, &reached, "acknowledged", now)?;
                store::note_reasons(tx, id, &unwanted, "unwanted")?;
                store::note_reasons(tx, id, &quiet, "quiet")?;
                store::insert_outgoing(tx, &pushes)?;
                store::drop_pushes_without_device(tx, id)?;
            }
            Ok::<_, Error>(())
        })?;
    }
    Ok(())
}

/// Where a push goes.
struct Device {
    user_id: String,
    token: String,
    hash: String,
    provider: String,
}

fn push(awaited: &Awaited, body: &str, device: &Device, at: Timestamp) -> Outgoing {
    Outgoing {
        channel: "push".to_owned(),
        recipient: device.token.clone(),
        title: Some(TITLE.to_owned()),
        body: body.to_owned(),
        code: None,
        at,
        message_id: Some(awaited.message_id.clone()),
        shows_text: true,
        provider: Some(device.provider.clone()),
        conversation_id: Some(awaited.conversation_id.clone()),
        user_id: Some(device.user_id.clone()),
        token_hash: Some(device.hash.clone()),
        send_at: None,
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
            mentioned_ids: String::new(),
            sent_at: 0,
            due_at: 0,
            decided_at: None,
            changes: 0,
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
        let many = vec!["u"; DUE_RECIPIENTS_MAX / 2 + 1].join(" ");
        let of = |all: &[&str]| take(&all.iter().map(|recipients| awaited(recipients, "", "")).collect::<Vec<_>>());
        assert_eq!(of(&["a", "b c"]), 2);
        assert_eq!(of(&["a", &many, &many]), 2);
        assert_eq!(of(&[&format!("{many} {many}"), "a"]), 1);
        assert_eq!(of(&[]), 0);
    }
}
