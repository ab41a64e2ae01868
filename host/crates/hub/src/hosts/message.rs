//! What hosts send each other over the bus, as JSON.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Batch;
use echo_base::limits;
use echo_capabilities::hub::{FeedEntry, Push};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Message {
    /// The start of a host that it comes from.
    pub from: Uuid,
    /// Counted from 1 for each host that it is for; 0 where nobody needs to know that it was lost.
    pub number: u64,
    pub items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Item {
    /// One push for several users.
    Durable {
        event: String,
        payload: String,
        at_us: u64,
        /// Each user with the event's seq in the user's feed.
        to: Vec<(Uuid, u64)>,
    },
    Ephemeral(Push),
    /// The device is on the sender's host now, under this epoch.
    Replaced {
        user: Uuid,
        device: String,
        epoch: u64,
    },
    DisconnectSession(Uuid),
    DisconnectUser(Uuid),
}

impl Message {
    pub fn bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("strings and numbers always encode").into()
    }

    pub fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

impl Item {
    /// Roughly.
    fn bytes(&self) -> usize {
        const BESIDE: usize = 128;
        const USER: usize = 64;
        match self {
            Item::Durable { event, payload, to, .. } => BESIDE + event.len() + payload.len() + to.len() * USER,
            Item::Ephemeral(push) => BESIDE + push.event.len() + push.payload.len() + push.users.len() * USER,
            Item::Replaced { device, .. } => BESIDE + device.len(),
            Item::DisconnectSession(_) | Item::DisconnectUser(_) => BESIDE,
        }
    }
}

/// What each host gets of these batches, in their order. `located`: where users have devices.
pub(super) fn by_host(batches: &[Batch], located: &HashMap<Uuid, Vec<String>>) -> BTreeMap<String, Vec<Item>> {
    let mut hosts: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    let nodes_of = |user: &Uuid| located.get(user).map_or(&[][..], Vec::as_slice);
    for batch in batches {
        match batch {
            Batch::Durable(entries) => {
                for of_push in entries.chunk_by(super::super::registry::is_same_push) {
                    let mut to: BTreeMap<&str, Vec<(Uuid, u64)>> = BTreeMap::new();
                    for entry in of_push {
                        nodes_of(&entry.user).iter().for_each(|node| to.entry(node).or_default().push((entry.user, entry.seq)));
                    }
                    let FeedEntry { event, payload, at_us, .. } = &of_push[0];
                    for (node, to) in to {
                        let item =
                            |to: &[_]| Item::Durable { event: event.clone(), payload: payload.to_string(), at_us: *at_us, to: to.to_vec() };
                        hosts.entry(node.to_owned()).or_default().extend(to.chunks(limits::BUS_ITEM_USERS_MAX).map(item));
                    }
                }
            }
            Batch::Ephemeral(push) => {
                let mut users: BTreeMap<&str, Vec<Uuid>> = BTreeMap::new();
                for user in &push.users {
                    nodes_of(user).iter().for_each(|node| users.entry(node).or_default().push(*user));
                }
                for (node, users) in users {
                    let item = |users: &[Uuid]| Item::Ephemeral(Push { users: users.to_vec(), ..push.clone() });
                    hosts.entry(node.to_owned()).or_default().extend(users.chunks(limits::BUS_ITEM_USERS_MAX).map(item));
                }
            }
        }
    }
    hosts
}

/// As many messages as the bus wants of them. Of one item that is too large for it there is a message with nothing in it, which is not to be sent: the feed
/// has it, and the missing number says so.
pub(super) fn within_bound(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut messages: Vec<Vec<Item>> = Vec::new();
    let mut bytes = usize::MAX;
    for item in items {
        // Text as JSON within JSON takes up to twice its bytes, and seldom that.
        let own = item.bytes() * 2;
        if own > limits::BUS_MESSAGE_BYTES_MAX {
            messages.push(Vec::new());
            bytes = usize::MAX;
            continue;
        }
        if bytes.saturating_add(own) > limits::BUS_MESSAGE_BYTES_MAX {
            messages.push(Vec::new());
            bytes = 0;
        }
        bytes += own;
        messages.last_mut().expect("one was begun").push(item);
    }
    messages
}
