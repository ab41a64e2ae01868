//! Messages until they are answered: sent in order within a conversation, one at a time, and again under the same client id after a lost
//! connection. The server answers a second sending with the first one's message. No I/O.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use echo_base::backoff::Backoff;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Problem;
use crate::types::NewMessage;

/// A message that has not been answered yet, or that was refused for good (`problem`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutboxEntry {
    /// Grows with each entry of this device.
    pub order: u64,
    /// Milliseconds since 1970, by this device's clock.
    pub created_at_ms: u64,
    pub message: NewMessage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Box<Problem>>,
}

pub(crate) struct Outbox {
    entries: BTreeMap<u64, OutboxEntry>,
    by_id: HashMap<String, u64>,
    last_order: u64,
    /// Conversations of which one message is on its way.
    busy: HashSet<Uuid>,
    /// Conversations whose next message waits, as the server wanted it or could not take it.
    pauses: HashMap<Uuid, Pause>,
    backoff: Backoff,
}

struct Pause {
    backoff: Backoff,
    until: Instant,
}

impl Outbox {
    pub fn new(entries: BTreeMap<u64, OutboxEntry>, backoff: Backoff) -> Self {
        let by_id = entries.values().map(|entry| (entry.message.client_message_id.clone(), entry.order)).collect();
        let last_order = entries.keys().next_back().copied().unwrap_or_default();
        Self { entries, by_id, last_order, busy: HashSet::new(), pauses: HashMap::new(), backoff }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn entries(&self) -> Vec<OutboxEntry> {
        self.entries.values().cloned().collect()
    }

    /// The place of the next entry.
    pub fn next_order(&mut self) -> u64 {
        self.last_order += 1;
        self.last_order
    }

    pub fn put(&mut self, entry: OutboxEntry) {
        self.by_id.insert(entry.message.client_message_id.clone(), entry.order);
        self.entries.insert(entry.order, entry);
    }

    pub fn get(&self, client_message_id: &str) -> Option<&OutboxEntry> {
        self.entries.get(self.by_id.get(client_message_id)?)
    }

    /// It needs no more sending.
    pub fn remove(&mut self, client_message_id: &str) -> Option<OutboxEntry> {
        let entry = self.entries.remove(&self.by_id.remove(client_message_id)?)?;
        self.pauses.remove(&entry.message.conversation_id);
        Some(entry)
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.by_id.clear();
        self.pauses.clear();
    }

    /// What is to be sent now; its conversation is busy until `free`.
    pub fn next(&mut self, now: Instant) -> Option<NewMessage> {
        let waits =
            |conversation: &Uuid| self.busy.contains(conversation) || self.pauses.get(conversation).is_some_and(|pause| pause.until > now);
        let entry = self.entries.values().find(|entry| entry.problem.is_none() && !waits(&entry.message.conversation_id))?;
        self.busy.insert(entry.message.conversation_id);
        Some(entry.message.clone())
    }

    /// When something is to be sent that waits now.
    pub fn next_at(&self) -> Option<Instant> {
        let paused = self.pauses.iter().filter(|(conversation, _)| !self.busy.contains(conversation));
        paused.map(|(_, pause)| pause.until).min()
    }

    /// It was answered.
    pub fn free(&mut self, conversation: Uuid) {
        self.busy.remove(&conversation);
    }

    /// It was answered that it cannot be taken now.
    pub fn pause(&mut self, conversation: Uuid, retry_after: Option<Duration>, now: Instant) {
        let fresh = self.backoff;
        let pause = self.pauses.entry(conversation).or_insert(Pause { backoff: fresh, until: now });
        pause.until = now + retry_after.unwrap_or_else(|| jittered(&mut pause.backoff));
    }

    /// The connection was lost: what was on its way goes again.
    pub fn interrupted(&mut self) {
        self.busy.clear();
        self.pauses.clear();
    }
}

/// At random between nothing and a ceiling that doubles ("full jitter"), so that clients that lost a host do not come back at one time.
pub(crate) fn jittered(backoff: &mut Backoff) -> Duration {
    rand::random_range(Duration::ZERO..=backoff.pause())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> Outbox {
        Outbox::new(BTreeMap::new(), Backoff::from_ms(100, 1_000))
    }

    fn add(outbox: &mut Outbox, conversation: u128, text: &str) -> String {
        let message = NewMessage::text(Uuid::from_u128(conversation), text);
        let (order, id) = (outbox.next_order(), message.client_message_id.clone());
        outbox.put(OutboxEntry { order, created_at_ms: 0, message, problem: None });
        id
    }

    fn next(outbox: &mut Outbox, now: Instant) -> Option<String> {
        outbox.next(now).and_then(|message| message.content)
    }

    #[test]
    fn messages_of_a_conversation_go_one_after_the_other_and_others_do_not_wait() {
        let (mut outbox, now) = (outbox(), Instant::now());
        let first = add(&mut outbox, 1, "a1");
        add(&mut outbox, 1, "a2");
        add(&mut outbox, 2, "b1");
        let taken = [next(&mut outbox, now), next(&mut outbox, now), next(&mut outbox, now)];
        assert_eq!(taken, [Some("a1".to_owned()), Some("b1".to_owned()), None]);
        outbox.remove(&first);
        outbox.free(Uuid::from_u128(1));
        assert_eq!(next(&mut outbox, now), Some("a2".to_owned()));
        outbox.interrupted();
        assert_eq!((next(&mut outbox, now), next(&mut outbox, now)), (Some("a2".to_owned()), Some("b1".to_owned())));
    }

    #[test]
    fn what_cannot_be_taken_now_waits_and_what_was_refused_holds_nothing_up() {
        let (mut outbox, now) = (outbox(), Instant::now());
        let first = add(&mut outbox, 1, "a1");
        add(&mut outbox, 1, "a2");
        let conversation = Uuid::from_u128(1);
        assert_eq!(next(&mut outbox, now), Some("a1".to_owned()));
        outbox.pause(conversation, Some(Duration::from_secs(1)), now);
        outbox.free(conversation);
        assert_eq!((next(&mut outbox, now), outbox.next_at()), (None, Some(now + Duration::from_secs(1))));
        assert_eq!(next(&mut outbox, now + Duration::from_secs(2)), Some("a1".to_owned()));
        let mut refused = outbox.get(&first).expect("it is there").clone();
        refused.problem = Some(Box::new(Problem::of_answer(422, None, b"")));
        outbox.put(refused);
        outbox.free(conversation);
        assert_eq!(next(&mut outbox, now + Duration::from_secs(2)), Some("a2".to_owned()));
        assert_eq!(outbox.len(), 2);
    }

    #[test]
    fn pauses_are_drawn_below_a_ceiling_that_doubles() {
        for _ in 0..100 {
            let mut backoff = Backoff::from_ms(100, 400);
            for ceiling in [100, 200, 400, 400] {
                assert!(jittered(&mut backoff) <= Duration::from_millis(ceiling));
            }
        }
    }
}
