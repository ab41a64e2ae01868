//! One open socket as the rest of the host sees it: what waits for it, and whether it is asked to close. Knows no protocol and no feed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use uuid::Uuid;

use super::close::Close;
use super::frame::DurableBody;

pub(super) struct Connection {
    /// Given by the registry. Ids rise with time.
    pub id: Uuid,
    pub user: Uuid,
    pub device: Box<str>,
    pub session: Uuid,
    /// Of the claim to the device, where hosts share a database; 0 before.
    pub epoch: AtomicU64,
    /// What the device was given begins after this seq.
    pub above: AtomicU64,
    /// What it fetched by GET /api/v1/sync meanwhile, from the seq after the first of the two up to the other.
    fetched: Mutex<(u64, u64)>,
    /// The highest seq that the device acknowledged here, and whether it waits to be written.
    pub acknowledged: AtomicU64,
    pub acknowledgement_waits: AtomicBool,
    inbox: Mutex<Inbox>,
    waker: AtomicWaker,
}

/// What was delivered and not taken by the socket's loop yet. Bounded: a durable event beyond the bound is left to the feed, which the
/// loop reads when it comes to the gap; an ephemeral one is dropped.
pub(super) struct Inbox {
    pub frames: VecDeque<Outgoing>,
    bytes: usize,
    frames_max: usize,
    bytes_max: usize,
    /// The highest seq ever delivered here, kept or not.
    pub head: u64,
    /// Something durable was left to the feed since the queue was last empty.
    pub overflowed: bool,
    close: Option<Close>,
}

pub(super) enum Outgoing {
    Durable { seq: u64, body: Arc<DurableBody> },
    Ephemeral(Utf8Bytes),
}

impl Connection {
    pub fn new(user: Uuid, device: &str, session: Uuid, frames_max: usize, bytes_max: usize) -> Self {
        Self {
            id: Uuid::nil(),
            user,
            device: device.into(),
            session,
            epoch: AtomicU64::new(0),
            above: AtomicU64::new(0),
            fetched: Mutex::default(),
            acknowledged: AtomicU64::new(0),
            acknowledgement_waits: AtomicBool::new(false),
            inbox: Mutex::new(Inbox { frames: VecDeque::new(), bytes: 0, frames_max, bytes_max, head: 0, overflowed: false, close: None }),
            waker: AtomicWaker::new(),
        }
    }

    pub fn push_durable(&self, seq: u64, body: &Arc<DurableBody>) {
        {
            let mut inbox = self.inbox.lock();
            inbox.head = inbox.head.max(seq);
            if inbox.has_room_for(body.len()) {
                inbox.bytes += body.len();
                inbox.frames.push_back(Outgoing::Durable { seq, body: body.clone() });
            } else {
                inbox.overflowed = true;
            }
        }
        self.waker.wake();
    }

    /// The feed reaches up to here: what was not delivered is to be read.
    pub fn note_head(&self, head: u64) {
        {
            let mut inbox = self.inbox.lock();
            if inbox.head >= head {
                return;
            }
            inbox.head = head;
        }
        self.waker.wake();
    }

    /// False when it was dropped because the client is slow.
    pub fn push_ephemeral(&self, text: &Utf8Bytes) -> bool {
        {
            let mut inbox = self.inbox.lock();
            if inbox.overflowed || !inbox.has_room_for(text.len()) {
                return false;
            }
            inbox.bytes += text.len();
            inbox.frames.push_back(Outgoing::Ephemeral(text.clone()));
        }
        self.waker.wake();
        true
    }

    /// Asks the socket's loop to end; the first reason stands.
    pub fn close(&self, close: Close) {
        self.inbox.lock().close.get_or_insert(close);
        self.waker.wake();
    }

    pub fn close_asked(&self) -> Option<Close> {
        self.inbox.lock().close
    }

    pub fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock()
    }

    /// The device fetched a page of the feed, after `above` up to `up_to`. True where what it was given begins earlier now.
    pub fn note_fetched(&self, above: u64, up_to: u64) -> bool {
        let mut fetched = self.fetched.lock();
        // The next page goes on where the last one ended.
        *fetched = if (fetched.0..=fetched.1).contains(&above) { (fetched.0, fetched.1.max(up_to)) } else { (above, up_to) };
        let reaches = fetched.1 >= self.above.load(Ordering::SeqCst);
        reaches && self.above.fetch_min(fetched.0, Ordering::SeqCst) > fetched.0
    }

    /// Up to where the device has everything, given that its socket was sent all up to this.
    pub fn given_up_to(&self, sent: u64) -> u64 {
        let fetched = *self.fetched.lock();
        if fetched.0 <= sent { sent.max(fetched.1) } else { sent }
    }

    /// Who is woken by all of the above. Register first, then look.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}

impl Inbox {
    pub fn pop(&mut self) -> Option<Outgoing> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        // A burst must not leave its memory to a socket that is idle for hours.
        if self.frames.is_empty() && self.frames.capacity() > 16 {
            self.frames = VecDeque::new();
        }
        Some(frame)
    }

    /// A frame larger than the bound is taken where it is alone.
    fn has_room_for(&self, bytes: usize) -> bool {
        self.close.is_none() && self.frames.len() < self.frames_max && (self.frames.is_empty() || self.bytes + bytes <= self.bytes_max)
    }
}

impl Outgoing {
    pub fn len(&self) -> usize {
        match self {
            Outgoing::Durable { body, .. } => body.len(),
            Outgoing::Ephemeral(text) => text.len(),
        }
    }

    pub fn into_text(self) -> Utf8Bytes {
        match self {
            Outgoing::Durable { seq, body } => body.with_seq(seq).into(),
            Outgoing::Ephemeral(text) => text,
        }
    }
}
