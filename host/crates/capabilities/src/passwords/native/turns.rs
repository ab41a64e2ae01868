//! Who gets the next worker. Known clients (live sessions, devices that signed in before) come before strangers, but for one turn in some; among
//! equals each client has its turn, however many it waits with. Both kinds wait within a bound of their own, and where it is reached, the client that
//! waits with most gives way.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use crate::passwords::{PasswordError, Requester, Standing};
use echo_base::limits;

/// The workers of this host, and who waits for one.
pub struct Turns(Mutex<State>);

struct State {
    free: usize,
    known: WaitingQueue,
    strangers: WaitingQueue,
    /// Turns of known clients since the last of a stranger.
    known_in_a_row: u32,
    next_number: u64,
}

/// Those of one standing, by client.
struct WaitingQueue {
    by_client: HashMap<String, VecDeque<Waiting>>,
    /// Whose turn is next; each client that waits stands here once.
    order: VecDeque<String>,
    count: usize,
    count_max: usize,
}

struct Waiting {
    number: u64,
    granted: oneshot::Sender<Result<(), PasswordError>>,
}

impl Turns {
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            free: workers,
            known: WaitingQueue::new(limits::PASSWORD_KNOWN_WAITING_MAX),
            strangers: WaitingQueue::new(limits::PASSWORD_STRANGERS_WAITING_MAX),
            known_in_a_row: 0,
            next_number: 0,
        })))
    }

    /// A worker. Errors: `Busy` at once where too many wait already, and later for the client that waits with most, when others need the room.
    pub async fn take(self: &Arc<Self>, requester: &Requester) -> Result<Turn, PasswordError> {
        let mut queued = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return Ok(Turn(self.clone()));
            }
            let number = state.next_number;
            state.next_number += 1;
            let (granted, outcome) = oneshot::channel();
            state.queue(requester.standing).add(&requester.client, Waiting { number, granted })?;
            QueuedRequest {
                turns: self.clone(),
                standing: requester.standing,
                client: requester.client.clone(),
                number,
                outcome,
                is_done: false,
            }
        };
        let outcome = (&mut queued.outcome).await.expect("a waiting client is answered before it is removed");
        queued.is_done = true;
        outcome.map(|()| Turn(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics under this lock")
    }

    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        let state = self.lock();
        state.known.count + state.strangers.count
    }
}

impl State {
    fn queue(&mut self, standing: Standing) -> &mut WaitingQueue {
        match standing {
            Standing::Known => &mut self.known,
            Standing::Stranger => &mut self.strangers,
        }
    }

    fn give(&mut self) {
        while self.free > 0 {
            let strangers_turn = self.known.count == 0 || (self.known_in_a_row >= limits::PASSWORD_KNOWN_TURNS && self.strangers.count > 0);
            let next = if strangers_turn { self.strangers.next() } else { self.known.next() };
            let Some(next) = next else { return };
            self.known_in_a_row = if strangers_turn { 0 } else { self.known_in_a_row + 1 };
            self.free -= 1;
            // Whoever gave up was removed under this lock: there is a receiver.
            let _ = next.granted.send(Ok(()));
        }
    }
}

impl WaitingQueue {
    fn new(count_max: usize) -> Self {
        Self { by_client: HashMap::new(), order: VecDeque::new(), count: 0, count_max }
    }

    fn add(&mut self, client: &str, waiting: Waiting) -> Result<(), PasswordError> {
        if self.count >= self.count_max {
            self.make_room_for(client)?;
        }
        let queue = self.by_client.entry(client.to_owned()).or_default();
        if queue.is_empty() {
            self.order.push_back(client.to_owned());
        }
        queue.push_back(waiting);
        self.count += 1;
        Ok(())
    }

    /// Turns away the last of the client that waits with most. Errors: `Busy` where that is this client.
    fn make_room_for(&mut self, client: &str) -> Result<(), PasswordError> {
        let own = self.by_client.get(client).map_or(0, VecDeque::len);
        let most = self.by_client.iter().max_by_key(|(_, queue)| queue.len()).map(|(client, queue)| (client.clone(), queue.len()));
        let Some((greedy, _)) = most.filter(|(_, count)| *count > own + 1) else { return Err(PasswordError::Busy) };
        let number = self.by_client[&greedy].back().map(|waiting| waiting.number);
        if let Some(turned_away) = number.and_then(|number| self.remove(&greedy, number)) {
            let _ = turned_away.granted.send(Err(PasswordError::Busy));
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Waiting> {
        let client = self.order.pop_front()?;
        let queue = self.by_client.get_mut(&client)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.by_client.remove(&client);
        } else {
            self.order.push_back(client);
        }
        self.count -= 1;
        next
    }

    fn remove(&mut self, client: &str, number: u64) -> Option<Waiting> {
        let queue = self.by_client.get_mut(client)?;
        let at = queue.iter().position(|waiting| waiting.number == number)?;
        let removed = queue.remove(at);
        if queue.is_empty() {
            self.by_client.remove(client);
            self.order.retain(|other| other != client);
        }
        self.count -= 1;
        removed
    }
}

/// A worker, until dropped.
pub struct Turn(Arc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.free += 1;
        state.give();
    }
}

/// A request in the queue. Dropped before its turn, it leaves the queue; dropped with its turn, the turn goes to the next.
struct QueuedRequest {
    turns: Arc<Turns>,
    standing: Standing,
    client: String,
    number: u64,
    outcome: oneshot::Receiver<Result<(), PasswordError>>,
    is_done: bool,
}

impl Drop for QueuedRequest {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let mut state = self.turns.lock();
        // Answers are given under this lock: there is one now, or never.
        if let Ok(Ok(())) = self.outcome.try_recv() {
            state.free += 1;
            state.give();
        } else {
            state.queue(self.standing).remove(&self.client, self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::{FutureExt, poll};

    use super::*;

    fn stranger(client: &str) -> Requester {
        Requester { standing: Standing::Stranger, client: client.to_owned() }
    }

    fn known(client: &str) -> Requester {
        Requester { standing: Standing::Known, client: client.to_owned() }
    }

    type Waits = Pin<Box<dyn Future<Output = Result<Turn, PasswordError>>>>;

    /// One worker, which is taken; who asks meanwhile, in this order.
    struct Story {
        turns: Arc<Turns>,
        taken: Option<Turn>,
        waiting: Vec<(String, Waits)>,
    }

    impl Story {
        async fn new() -> Self {
            let turns = Turns::new(1);
            let taken = turns.take(&stranger("first")).await.ok();
            Self { turns, taken, waiting: Vec::new() }
        }

        /// Whether it waits.
        async fn asks(&mut self, requester: Requester) -> bool {
            let name = requester.client.clone();
            let turns = self.turns.clone();
            let mut waits: Waits = Box::pin(async move { turns.take(&requester).await });
            let pending = poll!(&mut waits).is_pending();
            if pending {
                self.waiting.push((name, waits));
            }
            pending
        }

        /// The order in which they are served; `!` before those that are turned away.
        fn order(mut self) -> Vec<String> {
            let mut order = Vec::new();
            let mut turn = self.taken.take();
            loop {
                let mut served = None;
                self.waiting.retain_mut(|(name, waits)| match waits.now_or_never() {
                    None => true,
                    Some(Ok(next)) => {
                        order.push(name.clone());
                        served = Some(next);
                        false
                    }
                    Some(Err(_)) => {
                        order.push(format!("!{name}"));
                        false
                    }
                });
                if served.is_none() && turn.is_none() {
                    return order;
                }
                // The one before ends only now: there is one worker.
                drop(std::mem::replace(&mut turn, served));
            }
        }
    }

    #[tokio::test]
    async fn a_known_client_does_not_wait_behind_strangers() {
        let mut story = Story::new().await;
        for _ in 0..limits::PASSWORD_STRANGERS_WAITING_MAX {
            assert!(story.asks(stranger("flood")).await);
        }
        assert!(story.asks(known("owner")).await);
        assert_eq!(story.order()[0], "owner");
    }

    #[tokio::test]
    async fn clients_take_turns_however_many_each_waits_with() {
        let mut story = Story::new().await;
        for _ in 0..20 {
            story.asks(stranger("flood")).await;
        }
        story.asks(stranger("one")).await;
        story.asks(stranger("two")).await;
        story.asks(stranger("two")).await;
        assert_eq!(story.order()[..6], ["flood", "one", "two", "flood", "two", "flood"]);
    }

    #[tokio::test]
    async fn strangers_have_one_turn_in_some_beside_known_clients_that_never_pause() {
        let mut story = Story::new().await;
        story.asks(stranger("stranger")).await;
        for _ in 0..20 {
            story.asks(known("busy")).await;
        }
        let order = story.order();
        assert_eq!(order.iter().position(|name| name == "stranger"), Some(limits::PASSWORD_KNOWN_TURNS as usize));
        assert_eq!(order.len(), 21);
    }

    #[tokio::test]
    async fn where_all_places_are_taken_the_client_that_has_most_gives_way() {
        let mut story = Story::new().await;
        for _ in 0..limits::PASSWORD_STRANGERS_WAITING_MAX {
            assert!(story.asks(stranger("flood")).await);
        }
        assert!(!story.asks(stranger("flood")).await, "the flood is answered at once");
        assert!(story.asks(stranger("one")).await);
        assert_eq!(story.turns.waiting(), limits::PASSWORD_STRANGERS_WAITING_MAX);
        assert!(story.asks(known("owner")).await, "known clients have places of their own");
        let order = story.order();
        assert_eq!(order.iter().filter(|name| *name == "!flood").count(), 1);
        assert_eq!(order.iter().filter(|name| *name == "one" || *name == "owner").count(), 2);
    }

    #[tokio::test]
    async fn whoever_gives_up_leaves_the_queue_and_a_turn_that_came_too_late_goes_on() {
        let mut story = Story::new().await;
        story.asks(stranger("gives up")).await;
        story.asks(stranger("too late")).await;
        story.asks(stranger("next")).await;
        drop(story.waiting.remove(0));
        assert_eq!(story.turns.waiting(), 2);
        story.taken = None;
        // Granted, and never looked at.
        drop(story.waiting.remove(0));
        assert_eq!(story.order(), ["next"]);
    }
}
