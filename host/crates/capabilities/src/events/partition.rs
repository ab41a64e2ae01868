//! The order within one partition of one consumer: which event may be handled now. Pure memory; the backend's file or stream is behind it.
//!
//! Events come in the order of their ids, from whoever publishes while all is in memory, else from the file page by page. One at a time is
//! handled. A key that is to be tried again later is set aside with everything of it that comes meanwhile; other keys go on.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::Event;
use super::backlog::Weight;
use echo_base::limits;

#[derive(Clone, Debug)]
pub struct Item {
    pub id: i64,
    pub event: Arc<Event>,
    /// What it counts of its publisher's backlog.
    pub weight: Weight,
    /// How often it was handled in vain.
    pub tries: u32,
    /// Not before.
    pub due: Option<Instant>,
    /// It was handled with others, in vain.
    pub alone: bool,
}

impl Item {
    fn bytes(&self) -> usize {
        self.event.payload.len() + self.event.key.len() + size_of::<Event>()
    }
}

#[derive(Default)]
pub struct Partition {
    ready: VecDeque<Item>,
    /// Keys set aside, each with the time from which its first event may be tried again.
    aside: HashMap<String, (Instant, VecDeque<Item>)>,
    count: usize,
    bytes: usize,
    /// The newest id that came in.
    newest: i64,
    /// The file has events after `newest`.
    behind: bool,
    loading: bool,
}

#[derive(Debug)]
pub enum Next {
    Handle(Item),
    /// Ask the file for what comes after this id.
    Load(i64),
    /// Nothing to do until something comes in, or until then.
    Wait(Option<Instant>),
}

impl Partition {
    /// A partition that begins with what the file holds.
    pub fn from_file() -> Self {
        Self { behind: true, ..Self::default() }
    }

    /// One that goes on after `newest`, with events before it that are not done, in their order.
    pub fn after(newest: i64, open: Vec<Item>) -> Self {
        let mut partition = Self { newest: i64::MIN, ..Self::from_file() };
        open.into_iter().for_each(|item| partition.push(item));
        partition.newest = newest;
        partition
    }

    /// Takes an event that is in the file already, if there is room and nothing before it is missing.
    pub fn offer(&mut self, item: Item) {
        if self.behind || self.loading || self.is_full() {
            self.behind = true;
        } else {
            self.push(item);
        }
    }

    /// Takes a page of the file; `more` when there may be a further one.
    pub fn loaded(&mut self, items: Vec<Item>, more: bool) {
        self.loading = false;
        self.behind |= more;
        for item in items {
            self.push(item);
        }
    }

    /// What comes next is after this one, though it was nothing for this consumer.
    pub fn passed(&mut self, id: i64) {
        self.newest = self.newest.max(id);
    }

    /// The file did not answer.
    pub fn not_loaded(&mut self) {
        self.loading = false;
        self.behind = true;
    }

    /// As a slow check that nothing was overlooked.
    pub fn look_again(&mut self) {
        self.behind = true;
    }

    pub fn next(&mut self, now: Instant) -> Next {
        let due = self.aside.iter().filter(|(_, (due, _))| *due <= now).min_by_key(|(_, (due, _))| *due);
        if let Some((key, _)) = due.map(|(key, _)| (key.clone(), ())) {
            // All of the key that came meanwhile was set aside too, so this is its order.
            let (_, items) = self.aside.remove(&key).unwrap_or((now, VecDeque::new()));
            for item in items.into_iter().rev() {
                self.ready.push_front(item);
            }
        }
        while let Some(mut item) = self.ready.pop_front() {
            if let Some((_, waiting)) = self.aside.get_mut(&item.event.key) {
                waiting.push_back(item);
                continue;
            }
            match item.due.take() {
                Some(due) if due > now => {
                    self.aside.insert(item.event.key.clone(), (due, VecDeque::from([item])));
                }
                _ => {
                    self.count -= 1;
                    self.bytes -= item.bytes();
                    return Next::Handle(item);
                }
            }
        }
        if self.behind && !self.is_full() {
            (self.behind, self.loading) = (false, true);
            return Next::Load(self.newest);
        }
        Next::Wait(self.aside.values().map(|(due, _)| *due).min())
    }

    /// Adds what may be handled together with the first: the events after it that nothing holds back.
    pub fn gather(&mut self, items: &mut Vec<Item>) {
        let mut bytes: usize = items.iter().map(|item| item.event.payload.len()).sum();
        while items.len() < limits::EVENTS_GATHERED_MAX {
            let Some(next) = self.ready.front() else { return };
            let held_back = next.alone || next.tries > 0 || next.due.is_some() || self.aside.contains_key(&next.event.key);
            bytes += next.event.payload.len();
            if held_back || bytes > limits::EVENT_GATHERED_BYTES_MAX {
                return;
            }
            items.extend(self.ready.pop_front());
            let taken = items.last().map_or(0, Item::bytes);
            self.count -= 1;
            self.bytes -= taken;
        }
    }

    /// What was handled together in vain, in its order: each is handled alone.
    pub fn put_back_alone(&mut self, items: Vec<Item>) {
        for item in items.into_iter().rev() {
            self.count += 1;
            self.bytes += item.bytes();
            self.ready.push_front(Item { alone: true, ..item });
        }
    }

    /// The event that was just handled is to be tried again.
    pub fn set_aside(&mut self, item: Item, due: Instant) {
        self.count += 1;
        self.bytes += item.bytes();
        self.aside.insert(item.event.key.clone(), (due, VecDeque::from([item])));
    }

    fn push(&mut self, item: Item) {
        if item.id > self.newest {
            self.newest = item.id;
            self.count += 1;
            self.bytes += item.bytes();
            self.ready.push_back(item);
        }
    }

    fn is_full(&self) -> bool {
        self.count >= limits::QUEUE_PARTITION_EVENTS_MAX || self.bytes >= limits::QUEUE_PARTITION_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    fn item(id: i64, key: &str) -> Item {
        let event = Event {
            id: Uuid::nil(),
            topic: "t.t".to_owned(),
            key: key.to_owned(),
            payload: String::new(),
            at_us: 0,
            correlation_id: String::new(),
        };
        Item { id, event: Arc::new(event), weight: Weight::default(), tries: 0, due: None, alone: false }
    }

    fn handled(partition: &mut Partition, now: Instant) -> Vec<i64> {
        let mut ids = Vec::new();
        while let Next::Handle(item) = partition.next(now) {
            ids.push(item.id);
        }
        ids
    }

    #[test]
    fn what_came_during_a_load_is_not_handled_before_it() {
        let mut partition = Partition::from_file();
        let now = Instant::now();
        partition.offer(item(3, "a"));
        assert!(matches!(partition.next(now), Next::Load(0)));
        partition.offer(item(4, "a"));
        partition.loaded(vec![item(1, "a"), item(2, "a"), item(3, "a")], false);
        assert_eq!(handled(&mut partition, now), [1, 2, 3]);
        // `handled` saw the next load begin.
        partition.loaded(vec![item(4, "a")], false);
        partition.offer(item(5, "a"));
        partition.offer(item(5, "a"));
        assert_eq!(handled(&mut partition, now), [4, 5]);
        assert!(matches!(partition.next(now), Next::Wait(None)));
    }

    #[test]
    fn a_key_set_aside_keeps_its_order_and_others_go_on() {
        let mut partition = Partition::default();
        let now = Instant::now();
        let due = now + Duration::from_secs(1);
        for (id, key) in [(1, "a"), (2, "b"), (3, "a"), (4, "b"), (5, "a")] {
            partition.offer(item(id, key));
        }
        let Next::Handle(first) = partition.next(now) else { panic!("an event is there") };
        partition.set_aside(first, due);
        assert_eq!(handled(&mut partition, now), [2, 4]);
        partition.offer(item(6, "a"));
        assert!(matches!(partition.next(now), Next::Wait(Some(until)) if until == due));
        assert_eq!(handled(&mut partition, due), [1, 3, 5, 6]);
    }

    #[test]
    fn neighbours_gather_up_to_what_is_held_back() {
        let mut partition = Partition::default();
        let now = Instant::now();
        for (id, key) in [(1, "a"), (2, "b"), (3, "a"), (4, "c"), (5, "a")] {
            partition.offer(item(id, key));
        }
        let Next::Handle(first) = partition.next(now) else { panic!("an event is there") };
        partition.set_aside(first, now + Duration::from_secs(1));
        let Next::Handle(second) = partition.next(now) else { panic!("an event is there") };
        let mut items = vec![second];
        partition.gather(&mut items);
        assert_eq!(items.iter().map(|item| item.id).collect::<Vec<_>>(), [2], "the next one's key waits");
        let Next::Handle(fourth) = partition.next(now) else { panic!("an event is there") };
        assert_eq!(fourth.id, 4);
        let mut partition = Partition::default();
        (1..=limits::EVENTS_GATHERED_MAX as i64 + 2).for_each(|id| partition.offer(item(id, "a")));
        let Next::Handle(first) = partition.next(now) else { panic!("an event is there") };
        let mut items = vec![first];
        partition.gather(&mut items);
        assert_eq!(items.len(), limits::EVENTS_GATHERED_MAX);
        partition.put_back_alone(items);
        let Next::Handle(again) = partition.next(now) else { panic!("an event is there") };
        let mut items = vec![again];
        partition.gather(&mut items);
        assert_eq!(items.iter().map(|item| (item.id, item.alone)).collect::<Vec<_>>(), [(1, true)], "the others are alone too");
        assert_eq!(handled(&mut partition, now).len(), limits::EVENTS_GATHERED_MAX + 1);
    }

    #[test]
    fn a_full_lane_leaves_the_rest_in_the_file() {
        let mut partition = Partition::default();
        let now = Instant::now();
        let max = limits::QUEUE_PARTITION_EVENTS_MAX as i64;
        for id in 1..=max + 5 {
            partition.offer(item(id, "a"));
        }
        let ids = std::iter::from_fn(|| match partition.next(now) {
            Next::Handle(item) => Some(item.id),
            _ => None,
        });
        assert_eq!(ids.count() as i64, max);
        partition.not_loaded();
        assert!(matches!(partition.next(now), Next::Load(newest) if newest == max));
    }
}
