//! Which events newly reached a user, and the events of `echo:hub/events` that say so. Pure: no I/O.

use serde_json::json;
use uuid::Uuid;

use super::reached::{Reached, Span};
use crate::events::Event;
use echo_base::clock::now_us;
use echo_base::limits;

/// How far a user's devices have come.
pub struct Step {
    pub user: Uuid,
    /// That which has come furthest.
    pub device: String,
    pub to: u64,
    pub reached: Reached,
    /// What no device had acknowledged before.
    pub fresh: Vec<Span>,
    pub receipts: Vec<String>,
}

/// The events of `echo:hub/events`: as few as hold all that was newly reached.
pub fn acknowledged<'a>(steps: impl Iterator<Item = &'a Step>) -> Vec<Event> {
    let mut events = Vec::new();
    let (mut items, mut room) = (Vec::new(), limits::ACK_RECEIPTS_MAX);
    for step in steps {
        let mut rest = step.receipts.as_slice();
        while !rest.is_empty() {
            let receipts;
            (receipts, rest) = rest.split_at(rest.len().min(room));
            room -= receipts.len();
            let behind = !step.reached.gaps.is_empty();
            items.push(json!({ "user_id": step.user, "device_id": step.device, "seq": step.to, "receipts": receipts, "behind": behind }));
            if room == 0 {
                events.push(acknowledgements(std::mem::take(&mut items)));
                room = limits::ACK_RECEIPTS_MAX;
            }
        }
    }
    if !items.is_empty() {
        events.push(acknowledgements(items));
    }
    events
}

fn acknowledgements(items: Vec<serde_json::Value>) -> Event {
    let id = Uuid::now_v7();
    Event {
        id,
        topic: "hub.acknowledged".to_owned(),
        key: "all".to_owned(),
        payload: json!({ "items": items }).to_string(),
        at_us: now_us(),
        correlation_id: id.to_string(),
        // Gathered already, within its own bound.
    }
}
