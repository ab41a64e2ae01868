//! What an event adds to the numbers. Each event counts once, however often it is delivered: it is noted in the transaction that counts it.

use std::collections::{BTreeMap, HashMap, HashSet};

use echo_sdk::sql::{SqlError, Transaction, transaction};
use echo_sdk::{Error, Timestamp, exports, once, once_each, time};

use crate::bindings::exports::echo::analytics::api::{Metric, Step};
use crate::bindings::exports::echo::analytics::events::ReportedEvents;
use crate::bindings::exports::echo::message::events::{ChangedMessage, SentMessage};
use crate::bindings::exports::echo::user::events::Registration;
use crate::bounds::{COHORT_DAYS_MAX, LABELS_MAX, MESSAGES_TOGETHER_MAX};
use crate::metrics::{Additions, OTHER, Sum, UNKNOWN};
use crate::{deliveries, latency, steps, store};

const ONE: Sum = Sum { events: 1, total: 0 };

pub fn sent(messages: &[SentMessage]) -> Result<(), Error> {
    deliveries::note_senders(messages)?;
    for messages in messages.chunks(MESSAGES_TOGETHER_MAX) {
        transaction(|tx| count_sent(tx, messages))?;
    }
    Ok(())
}

/// Each message once, whichever messages come with it: a call that takes several events has no event's identifier.
fn count_sent(tx: &Transaction, messages: &[SentMessage]) -> Result<(), SqlError> {
    let id_of = |message: &SentMessage| format!("sent {}", message.message_id);
    let fresh = once_each(tx, &messages.iter().map(id_of).collect::<Vec<_>>())?;
    let fresh: Vec<&SentMessage> = messages.iter().filter(|message| fresh.contains(&id_of(message))).collect();
    let mut additions = Additions::default();
    for message in &fresh {
        let label = message.type_.as_deref().unwrap_or(UNKNOWN);
        additions.add(Metric::Messages, label, message.at, ONE);
    }
    active(tx, &mut additions, fresh.iter().map(|message| (message.sender_id.as_str(), message.at)))?;
    store::add(tx, &additions)
}

pub fn edited(messages: &[ChangedMessage]) -> Result<(), Error> {
    count(|_, additions| {
        messages.iter().for_each(|message| additions.count(Metric::MessagesEdited, message.at, 1));
        Ok(())
    })
}

pub fn deleted(messages: &[ChangedMessage]) -> Result<(), Error> {
    count(|_, additions| {
        messages.iter().for_each(|message| additions.count(Metric::MessagesDeleted, message.at, 1));
        Ok(())
    })
}

pub fn registered(registration: &Registration) -> Result<(), Error> {
    count(|tx, additions| {
        let Registration { user_id, country, at, .. } = registration;
        let day = steps::beginning(Step::Day, *at);
        active(tx, additions, [(user_id.as_str(), *at)].into_iter())?;
        if store::set_registered(tx, user_id, day)? {
            store::add_to_cohort(tx, day, 0)?;
            additions.add(Metric::Registrations, country.as_deref().unwrap_or(UNKNOWN), *at, ONE);
        }
        Ok(())
    })
}

/// What was counted stays; that it was this person goes.
pub fn erased(user_id: &str) -> Result<(), Error> {
    transaction(|tx| {
        exports::close(tx, user_id)?;
        Ok(store::forget_person(tx, user_id)?)
    })
}

/// The user did something, or a device came.
pub fn seen(user_id: &str, at: Timestamp) -> Result<(), Error> {
    count(|tx, additions| active(tx, additions, [(user_id, at)].into_iter()))
}

pub fn connected(user_id: &str) -> Result<(), Error> {
    let at = event_time()?;
    count(|tx, additions| {
        additions.count(Metric::Connections, at, 1);
        active(tx, additions, [(user_id, at)].into_iter())
    })
}

pub fn happened(metric: Metric, times: u64) -> Result<(), Error> {
    let at = event_time()?;
    count(|_, additions| {
        additions.count(metric, at, times);
        Ok(())
    })
}

pub fn reported(event: &ReportedEvents) -> Result<(), Error> {
    count(|tx, additions| {
        for reported in &event.items {
            let sum = Sum { events: 1, total: reported.value.unwrap_or_default().into() };
            additions.add(Metric::ClientEvents, &reported.name, reported.at, sum);
        }
        bound_labels(tx, additions)?;
        active(tx, additions, event.items.iter().map(|reported| (event.user_id.as_str(), reported.at)))
    })
}

/// Adds latencies in milliseconds, each with the time of the delivery.
pub fn add_deliveries(additions: &mut Additions, delivered: &[(Timestamp, u64)]) {
    for (at, ms) in delivered {
        additions.add(Metric::Deliveries, &latency::class_of(*ms), *at, Sum { events: 1, total: *ms });
    }
}

/// Adds what the work adds, once for each event.
pub fn count(work: impl Fn(&Transaction, &mut Additions) -> Result<(), SqlError>) -> Result<(), Error> {
    let id = once::event_id()?;
    transaction(|tx| {
        if !once(tx, &id)? {
            return Ok(());
        }
        let mut additions = Additions::default();
        work(tx, &mut additions)?;
        store::add(tx, &additions)
    })?;
    Ok(())
}

/// When it happened, as the event's own identifier tells it: late handling makes nothing later.
pub fn event_time() -> Result<Timestamp, Error> {
    Ok(steps::time_of(&once::event_id()?).unwrap_or_else(time::now_us))
}

/// Client event names are the clients' own: of one day only so many are told apart.
fn bound_labels(tx: &Transaction, additions: &mut Additions) -> Result<(), SqlError> {
    let mut known: BTreeMap<Timestamp, HashSet<String>> = BTreeMap::new();
    additions.relabel(Metric::ClientEvents, |label, day| {
        if let std::collections::btree_map::Entry::Vacant(vacant) = known.entry(day) {
            vacant.insert(store::labels_of_day(tx, Metric::ClientEvents, day, LABELS_MAX + 1)?.into_iter().collect());
        }
        let labels = known.get_mut(&day).expect("put there above");
        if labels.contains(label) || labels.len() < LABELS_MAX as usize {
            labels.insert(label.to_owned());
            Ok(label.to_owned())
        } else {
            Ok(OTHER.to_owned())
        }
    })
}

/// Counts people once in each minute, hour and day, and those whose registration was so many days ago.
fn active<'a>(tx: &Transaction, additions: &mut Additions, people: impl Iterator<Item = (&'a str, Timestamp)>) -> Result<(), SqlError> {
    let mut latest: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for (user, at) in people {
        let known = latest.entry(user).or_default();
        *known = at.max(*known);
    }
    let ids: Vec<String> = latest.keys().map(|user| (*user).to_owned()).collect();
    let known: HashMap<String, store::Person> =
        store::people(tx, &ids)?.into_iter().map(|person| (person.user_id.clone(), person)).collect();
    let mut newly = Vec::new();
    for (user, at) in latest {
        let before = known.get(user);
        let minute = steps::beginning(Step::Minute, at);
        if before.is_some_and(|person| person.active_at >= minute) {
            continue;
        }
        newly.push((user, minute));
        for step in steps::ALL {
            if before.is_none_or(|person| steps::beginning(step, person.active_at) != steps::beginning(step, at)) {
                additions.add_to(step, Metric::ActiveUsers, "", at, ONE);
            }
        }
        let day = steps::beginning(Step::Day, at);
        if let Some(person) = before
            && let Some(registered_on) = person.registered_on
            && steps::beginning(Step::Day, person.active_at) < day
        {
            let days = (day - registered_on) / steps::length_us(Step::Day);
            if (1..=COHORT_DAYS_MAX).contains(&days) {
                store::add_to_cohort(tx, registered_on, days)?;
            }
        }
    }
    store::set_active(tx, &newly)
}

#[cfg(test)]
mod tests {
    use echo_sdk::params;
    use echo_sdk::sql::{Database, Sql};
    use echo_testing::Store;

    use super::*;
    use crate::metrics;

    fn message(number: u32) -> SentMessage {
        let id = format!("01890000-0000-7000-8000-{number:012}");
        SentMessage {
            message_id: id.clone(),
            conversation_id: id.clone(),
            seq: 1,
            sender_id: id,
            recipient_ids: Vec::new(),
            muted_ids: Vec::new(),
            mentioned_ids: None,
            withheld_ids: Vec::new(),
            type_: None,
            at: 1,
        }
    }

    #[test]
    fn a_message_counts_once_whichever_messages_come_with_it() {
        let _store = Store::open("analytics");
        for numbers in [vec![1, 2], vec![2, 3], vec![3], vec![]] {
            let messages: Vec<SentMessage> = numbers.into_iter().map(message).collect();
            transaction(|tx| count_sent(tx, &messages)).expect("commits");
        }
        let sql = "SELECT SUM(events) FROM rollups WHERE metric = $1 AND step = $2";
        let counted: (i64,) = Database.one(sql, params![metrics::name(Metric::Messages), steps::name(Step::Day)]).expect("counts");
        assert_eq!(counted.0, 3);
    }
}
