//! State-like pushes on their way into the feeds. The first of a key is numbered at once; those that follow within `FEED_STATE_GATHER_MS` of
//! the last numbered one wait, and each user gets the last of them. What waits is a row of the feed's file. Pure: no I/O.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::Push;
use echo_base::limits;

const GATHER: Duration = Duration::from_millis(limits::FEED_STATE_GATHER_MS);

#[derive(Default)]
pub struct States {
    keys: HashMap<Key, Held>,
    next_id: i64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    source: String,
    state: String,
}

#[derive(Default)]
struct Held {
    numbered_at: Option<Instant>,
    /// The oldest first; no user is in two of them.
    waiting: Vec<Waiting>,
}

pub struct Waiting {
    pub id: i64,
    pub push: Push,
}

/// What is to be written of those that wait: by id the push, or none where it waits no more.
pub type Rows = BTreeMap<i64, Option<Push>>;

impl States {
    /// Takes in what the file says.
    pub fn load(&mut self, id: i64, source: &str, push: Push) {
        self.next_id = self.next_id.max(id + 1);
        let key = Key { source: source.to_owned(), state: push.state.clone().unwrap_or_default() };
        self.keys.entry(key).or_default().waiting.push(Waiting { id, push });
    }

    /// Whether this push is to be numbered now. Otherwise it waits, and those before it wait for nobody whom it is for.
    pub fn admit(&mut self, source: &str, state: &str, push: &Push, now: Instant, rows: &mut Rows) -> bool {
        if self.keys.len() >= limits::FEED_STATE_KEYS_KEPT {
            self.keys.retain(|_, held| !held.waiting.is_empty() || held.is_recent(now));
        }
        let held = self.keys.entry(Key { source: source.to_owned(), state: state.to_owned() }).or_default();
        if held.waiting.is_empty() && !held.is_recent(now) {
            held.numbered_at = Some(now);
            return true;
        }
        let users: HashSet<_> = push.users.iter().copied().collect();
        for waiting in &mut held.waiting {
            let before = waiting.push.users.len();
            waiting.push.users.retain(|user| !users.contains(user));
            if waiting.push.users.is_empty() {
                rows.insert(waiting.id, None);
            } else if waiting.push.users.len() < before {
                rows.insert(waiting.id, Some(waiting.push.clone()));
            }
        }
        held.waiting.retain(|waiting| !waiting.push.users.is_empty());
        let id = self.next_id;
        self.next_id += 1;
        rows.insert(id, Some(push.clone()));
        held.waiting.push(Waiting { id, push: push.clone() });
        false
    }

    /// All that wait of this source, in their order; they are to be numbered now.
    pub fn release(&mut self, source: &str, now: Instant) -> Vec<Waiting> {
        let mut released = Vec::new();
        for (key, held) in &mut self.keys {
            if key.source == source && !held.waiting.is_empty() {
                held.numbered_at = Some(now);
                released.append(&mut held.waiting);
            }
        }
        released.sort_unstable_by_key(|waiting| waiting.id);
        released
    }
}

impl Held {
    fn is_recent(&self, now: Instant) -> bool {
        self.numbered_at.is_some_and(|at| now < at + GATHER)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::hub::Class;

    fn push(users: &[u128], payload: &str) -> Push {
        Push {
            users: users.iter().map(|user| Uuid::from_u128(*user)).collect(),
            event: "conversation".to_owned(),
            payload: payload.to_owned(),
            class: Class::Durable,
            receipt: None,
            subject: None,
            state: Some("k".to_owned()),
        }
    }

    fn released(states: &mut States, now: Instant) -> Vec<(Vec<u128>, String)> {
        let released = states.release("a", now).into_iter();
        released.map(|Waiting { push, .. }| (push.users.iter().map(Uuid::as_u128).collect(), push.payload)).collect()
    }

    #[test]
    fn the_first_goes_at_once_and_each_user_gets_the_last_of_the_rest() {
        let (mut states, mut rows, now) = (States::default(), Rows::new(), Instant::now());
        let mut admit = |states: &mut States, source: &str, push: &Push, now| states.admit(source, "k", push, now, &mut rows);
        assert!(admit(&mut states, "a", &push(&[1, 2, 3], "first"), now));
        assert!(admit(&mut states, "b", &push(&[1], "another source's"), now));
        for number in 0..100 {
            assert!(!admit(&mut states, "a", &push(&[1, 2, 3], &number.to_string()), now + GATHER / 2));
        }
        assert!(!admit(&mut states, "a", &push(&[3], "you left"), now + GATHER / 2));
        // They wait until they are released, however long that takes.
        assert!(!admit(&mut states, "a", &push(&[2], "last"), now + 10 * GATHER));
        let expect = [(vec![1], "99".to_owned()), (vec![3], "you left".to_owned()), (vec![2], "last".to_owned())];
        assert_eq!(released(&mut states, now + 10 * GATHER), expect);
        assert!(!admit(&mut states, "a", &push(&[1], "soon after"), now + 11 * GATHER - Duration::from_millis(1)));
        assert_eq!(released(&mut states, now + 11 * GATHER).len(), 1);
        assert!(admit(&mut states, "a", &push(&[1], "later"), now + 12 * GATHER), "nothing waits and the last is long ago");
        let kept = rows.values().flatten().count();
        assert_eq!(kept, 4, "what is superseded leaves no row");
    }

    #[test]
    fn keys_that_are_quiet_are_forgotten() {
        let (mut states, now) = (States::default(), Instant::now());
        for number in 0..3 * limits::FEED_STATE_KEYS_KEPT as u64 {
            let at = now + GATHER * u32::try_from(number / 100).expect("few");
            assert!(states.admit("a", &number.to_string(), &push(&[1], ""), at, &mut Rows::new()));
        }
        assert!(states.keys.len() <= limits::FEED_STATE_KEYS_KEPT + 1);
    }
}
