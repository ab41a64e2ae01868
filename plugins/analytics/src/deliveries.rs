//! How long a message takes to the first device of each recipient. A message's identifier tells when it was sent, the acknowledgement's event when it
//! arrived; what is needed besides is who sent it, so that the sender's own devices are not counted. That is known for an hour, in the cache: what is
//! forgotten there is not counted.

use std::collections::HashMap;

use echo_sdk::sql::transaction;
use echo_sdk::wit::cache;
use echo_sdk::{Error, Timestamp, time};

use crate::bindings::exports::echo::hub::events::Acknowledgements;
use crate::bindings::exports::echo::message::events::SentMessage;
use crate::bounds::{CACHE_KEYS_MAX, LATE_KEPT_US, LATE_STEP_US, LATE_STEPS, SENDERS_KEPT_US};
use crate::metrics::Additions;
use crate::{counting, steps, store};

/// A message reached a user.
#[derive(Clone, Debug, PartialEq)]
struct Arrival {
    message_id: String,
    user_id: String,
    at: Timestamp,
}

pub fn note_senders(messages: &[SentMessage]) -> Result<(), Error> {
    let entries: Vec<(String, Vec<u8>)> =
        messages.iter().map(|message| (sender_key(&message.message_id), message.sender_id.clone().into_bytes())).collect();
    for entries in entries.chunks(CACHE_KEYS_MAX) {
        cache::set_multi(entries, Some(SENDERS_KEPT_US / 1_000))?;
    }
    Ok(())
}

pub fn acknowledged(event: &Acknowledgements) -> Result<(), Error> {
    let at = counting::event_time()?;
    let arrivals: Vec<Arrival> = event
        .items
        .iter()
        .flat_map(|item| item.receipts.iter().map(|receipt| (receipt, &item.user_id)))
        .filter(|(receipt, _)| steps::time_of(receipt).is_some())
        .map(|(receipt, user)| Arrival { message_id: receipt.clone(), user_id: user.clone(), at })
        .collect();
    if arrivals.is_empty() {
        return Ok(());
    }
    let senders = senders_of(&arrivals)?;
    let Split { delivered, late } = split(arrivals, &senders);
    counting::count(|_, additions| {
        counting::add_deliveries(additions, &delivered);
        Ok(())
    })?;
    // The message's own event comes by another way, and may be behind: another time.
    let late: Vec<String> = late.iter().map(Arrival::written).collect();
    if !late.is_empty() {
        match cache::set_add(&late_key(time::now_us() / LATE_STEP_US), &late, Some(LATE_KEPT_US / 1_000)) {
            Ok(_) | Err(cache::CacheError::TooLarge) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// One run of the schedule: what is still not known then is of no message, or forgotten.
pub fn count_late() -> Result<(), Error> {
    let now = time::now_us() / LATE_STEP_US;
    for step in now.saturating_sub(LATE_STEPS)..now {
        let key = late_key(step);
        let written = cache::set_members(&key)?;
        if written.is_empty() || !cache::delete(&key)? {
            continue;
        }
        let arrivals: Vec<Arrival> = written.iter().filter_map(|text| Arrival::read(text)).collect();
        let senders = senders_of(&arrivals)?;
        let delivered = split(arrivals, &senders).delivered;
        let mut additions = Additions::default();
        counting::add_deliveries(&mut additions, &delivered);
        transaction(|tx| store::add(tx, &additions))?;
    }
    Ok(())
}

/// What is known of messages that arrived.
#[derive(Debug, Default, PartialEq)]
struct Split {
    /// To others: when, and after how many milliseconds.
    delivered: Vec<(Timestamp, u64)>,
    /// Of messages whose sender is not known.
    late: Vec<Arrival>,
}

/// `senders` by message.
fn split(arrivals: Vec<Arrival>, senders: &HashMap<String, String>) -> Split {
    let mut split = Split::default();
    for arrival in arrivals {
        match senders.get(&arrival.message_id) {
            Some(sender) if *sender == arrival.user_id => {}
            Some(_) => {
                let sent_at = steps::time_of(&arrival.message_id).unwrap_or(arrival.at);
                split.delivered.push((arrival.at, arrival.at.saturating_sub(sent_at) / 1_000));
            }
            None => split.late.push(arrival),
        }
    }
    split
}

fn senders_of(arrivals: &[Arrival]) -> Result<HashMap<String, String>, Error> {
    let mut ids: Vec<&str> = arrivals.iter().map(|arrival| arrival.message_id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut senders = HashMap::new();
    for ids in ids.chunks(CACHE_KEYS_MAX) {
        let keys: Vec<String> = ids.iter().map(|id| sender_key(id)).collect();
        for (id, sender) in ids.iter().zip(cache::get_multi(&keys)?) {
            if let Some(sender) = sender.and_then(|sender| String::from_utf8(sender).ok()) {
                senders.insert((*id).to_owned(), sender);
            }
        }
    }
    Ok(senders)
}

fn sender_key(message_id: &str) -> String {
    format!("sender:{message_id}")
}

fn late_key(step: u64) -> String {
    format!("late:{step}")
}

impl Arrival {
    fn written(&self) -> String {
        format!("{} {} {}", self.message_id, self.user_id, self.at)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let (message_id, user_id) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some(Self { message_id, user_id, at: parts.next()?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_deliveries_to_others_count_and_unknown_messages_wait() {
        let sent_at = 1_645_557_742_000_000;
        let known = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
        let arrival = |message: &str, user: &str, ms: u64| Arrival {
            message_id: message.to_owned(),
            user_id: user.to_owned(),
            at: sent_at + ms * 1_000,
        };
        let late = arrival("017f22e2-79b1-7cc3-98c4-dc0c0c07398f", "bala", 3);
        let arrivals = vec![arrival(known, "ada", 1), arrival(known, "bala", 12), late.clone()];
        let senders = HashMap::from([(known.to_owned(), "ada".to_owned())]);
        let split = split(arrivals, &senders);
        assert_eq!(split, Split { delivered: vec![(sent_at + 12_000, 12)], late: vec![late.clone()] });
        assert_eq!(Arrival::read(&late.written()), Some(late));
        assert_eq!(Arrival::read("nothing"), None);
    }
}
