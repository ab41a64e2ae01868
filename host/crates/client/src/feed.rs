//! The events of this device: each durable one once and in order, handed to every reader. No I/O.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::Stream;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::events::{Event, FeedEvent};
use crate::limits::EVENTS_WAITING_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    New,
    Duplicate,
    /// Something before it is missing, and it was not taken.
    Gap,
}

pub(crate) struct Feed {
    inner: Mutex<Inner>,
    /// More may have been handled, or fewer events wait.
    pub moved: Notify,
}

#[derive(Default)]
struct Inner {
    /// The `seq` of the last event that was taken; none before the first connection.
    last: Option<u64>,
    readers: HashMap<u64, Reader>,
    next_reader: u64,
    ended: bool,
}

struct Reader {
    waiting: VecDeque<Event>,
    /// Durable events that were not handled yet.
    durable: usize,
    /// The `seq` of the event that was given last, until the next one is asked for.
    given: Option<u64>,
    /// The `seq` of the last durable event that was handled; none while there was none.
    handled: Option<u64>,
    waker: Option<Waker>,
}

impl Feed {
    pub fn new(last: Option<u64>) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::new(Inner { last, ..Inner::default() }), moved: Notify::new() })
    }

    pub fn last(&self) -> Option<u64> {
        self.inner.lock().last
    }

    /// Goes on after `cursor`.
    pub fn start(&self, cursor: u64) {
        let mut inner = self.inner.lock();
        inner.last = Some(cursor);
        for reader in inner.readers.values_mut().filter(|reader| reader.durable == 0) {
            reader.handled = Some(cursor);
        }
    }

    /// Another user's feed, from its head on.
    pub fn forget(&self) {
        let mut inner = self.inner.lock();
        inner.last = None;
        for reader in inner.readers.values_mut() {
            reader.waiting.retain(|event| seq_of(event).is_none());
            (reader.durable, reader.given, reader.handled) = (0, None, None);
        }
    }

    pub fn accept(&self, event: FeedEvent) -> Accepted {
        let mut inner = self.inner.lock();
        match inner.last {
            Some(last) if event.seq <= last => return Accepted::Duplicate,
            Some(last) if event.seq > last + 1 => return Accepted::Gap,
            _ => {}
        }
        inner.last = Some(event.seq);
        inner.publish(&Event::Feed(event));
        self.note_moved(&inner);
        Accepted::New
    }

    pub fn publish(&self, event: &Event) {
        self.inner.lock().publish(event);
    }

    /// Up to here every reader has handled everything; without readers, what was taken.
    pub fn handled(&self) -> Option<u64> {
        let inner = self.inner.lock();
        let last = inner.last?;
        inner.readers.values().try_fold(last, |least, reader| Some(least.min(reader.handled?)))
    }

    /// The slowest reader has too much before it.
    pub fn is_full(&self) -> bool {
        self.inner.lock().readers.values().any(|reader| reader.waiting.len() >= EVENTS_WAITING_MAX)
    }

    pub fn end(&self) {
        let mut inner = self.inner.lock();
        inner.ended = true;
        for reader in inner.readers.values_mut() {
            reader.wake();
        }
    }

    pub fn events(self: &Arc<Self>) -> Events {
        let mut inner = self.inner.lock();
        let id = inner.next_reader;
        inner.next_reader += 1;
        let handled = inner.last;
        inner.readers.insert(id, Reader { waiting: VecDeque::new(), durable: 0, given: None, handled, waker: None });
        Events { feed: self.clone(), id }
    }

    /// Without readers what was taken is handled.
    fn note_moved(&self, inner: &Inner) {
        if inner.readers.is_empty() {
            self.moved.notify_one();
        }
    }
}

impl Inner {
    fn publish(&mut self, event: &Event) {
        for reader in self.readers.values_mut() {
            reader.durable += usize::from(seq_of(event).is_some());
            reader.waiting.push_back(event.clone());
            reader.wake();
        }
    }
}

impl Reader {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

fn seq_of(event: &Event) -> Option<u64> {
    match event {
        Event::Feed(event) => Some(event.seq),
        _ => None,
    }
}

/// One reader's events. An event counts as handled, and is acknowledged, when the next one is asked for. It ends with the client. While 2,000 events wait
/// for it, the client takes no more from the server: a reader that is not read any more has to be dropped.
pub struct Events {
    feed: Arc<Feed>,
    id: u64,
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut inner = self.feed.inner.lock();
        let ended = inner.ended;
        let Some(reader) = inner.readers.get_mut(&self.id) else { return Poll::Ready(None) };
        if let Some(given) = reader.given.take() {
            reader.handled = Some(given);
            reader.durable -= 1;
            self.feed.moved.notify_one();
        }
        match reader.waiting.pop_front() {
            Some(event) => {
                reader.given = seq_of(&event);
                Poll::Ready(Some(event))
            }
            None if ended => Poll::Ready(None),
            None => {
                reader.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.feed.inner.lock().readers.remove(&self.id);
        self.feed.moved.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;
    use crate::events::FeedPayload;

    fn event(seq: u64) -> FeedEvent {
        FeedEvent { seq, at: String::new(), payload: FeedPayload::Other { kind: "test".to_owned(), payload: seq.into() } }
    }

    fn next(events: &mut Events) -> Option<u64> {
        events.next().now_or_never().flatten().as_ref().and_then(seq_of)
    }

    #[test]
    fn an_event_is_taken_once_and_in_order() {
        let feed = Feed::new(None);
        feed.start(4);
        let taken = [5, 5, 4, 7, 6, 7].map(|seq| feed.accept(event(seq)));
        assert_eq!(taken, [Accepted::New, Accepted::Duplicate, Accepted::Duplicate, Accepted::Gap, Accepted::New, Accepted::New]);
        assert_eq!(feed.handled(), Some(7));
    }

    #[test]
    fn an_event_is_handled_when_every_reader_has_asked_for_the_next_one() {
        let feed = Feed::new(Some(0));
        let (mut one, mut other) = (feed.events(), feed.events());
        for seq in 1..=3 {
            feed.accept(event(seq));
        }
        assert_eq!((next(&mut one), next(&mut one), feed.handled()), (Some(1), Some(2), Some(0)));
        assert_eq!((next(&mut other), next(&mut other), feed.handled()), (Some(1), Some(2), Some(1)));
        drop(one);
        assert_eq!((next(&mut other), next(&mut other), feed.handled()), (Some(3), None, Some(3)));
    }

    #[test]
    fn a_reader_that_is_there_before_the_first_connection_begins_with_its_cursor() {
        let feed = Feed::new(None);
        let mut events = feed.events();
        assert_eq!(feed.handled(), None);
        feed.start(9);
        assert_eq!(feed.handled(), Some(9));
        feed.accept(event(10));
        assert_eq!((next(&mut events), next(&mut events), feed.handled()), (Some(10), None, Some(10)));
        feed.end();
        assert_eq!(events.next().now_or_never(), Some(None));
    }

    #[test]
    fn a_reader_that_reads_nothing_fills_the_feed() {
        let feed = Feed::new(Some(0));
        let events = feed.events();
        for seq in 1..=EVENTS_WAITING_MAX as u64 {
            assert!(!feed.is_full());
            feed.accept(event(seq));
        }
        assert!(feed.is_full());
        drop(events);
        assert!(!feed.is_full());
    }
}
