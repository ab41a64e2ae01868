//! What one socket is to be sent next, so that its durable events are gapless: every seq once, each one above the last. Live events are
//! taken from the inbox; what is missing there (before the socket, or beyond the inbox's bound) is read from the feed. Pure: no I/O.

use std::collections::VecDeque;

use super::connection::{Inbox, Outgoing};
use super::frame::DurableBody;
use echo_capabilities::hub::{FeedEntry, FeedPage};

/// Reading from here gives the head of any feed and no entry; it and the number after it fit a database's signed integer.
pub(super) const ABOVE_ALL: u64 = i64::MAX as u64 - 1;

/// Where a client wants to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With what happens from now on.
    Head,
    /// After this cursor.
    Since(u64),
}

impl Start {
    /// From where the first page is read.
    pub fn since(self) -> u64 {
        match self {
            Start::Head => ABOVE_ALL,
            Start::Since(since) => since,
        }
    }
}

pub(super) enum Step {
    Send(Outgoing),
    /// Read the feed after this seq and hand it to `page_read`; until then there is nothing more to send.
    Read {
        since: u64,
    },
    CaughtUp {
        cursor: u64,
    },
    /// What follows the client's cursor is gone; live events go on after this one.
    ResyncRequired {
        cursor: u64,
    },
    Nothing,
}

#[derive(Debug)]
pub(super) struct Delivery {
    /// Every durable event up to here was sent, or lies before the client's cursor.
    last_sent: u64,
    /// Entries read and not sent yet.
    page: VecDeque<FeedEntry>,
    /// Up to here the feed is known to reach, and is to be read.
    target: u64,
    reading: bool,
    /// Say `caught_up` when the target is reached.
    resuming: bool,
    /// The feed cannot go on from `last_sent`.
    lost: bool,
}

impl Delivery {
    /// `page` was read, after the connection was registered, from where the start says.
    pub fn new(start: Start, page: FeedPage) -> Self {
        let (last_sent, resuming) = match start {
            Start::Head => (page.head, false),
            Start::Since(since) => (since, true),
        };
        let mut delivery =
            Self { last_sent, page: VecDeque::new(), target: last_sent, reading: true, resuming, lost: last_sent > page.head };
        match start {
            Start::Head => delivery.reading = false,
            Start::Since(_) => _ = delivery.page_read(page),
        }
        delivery
    }

    pub fn last_sent(&self) -> u64 {
        self.last_sent
    }

    /// The next thing to do. Each `Send` is a promise kept: call it only when the frame will be written.
    pub fn step(&mut self, inbox: &mut Inbox) -> Step {
        if self.reading {
            return Step::Nothing;
        }
        while let Some(entry) = self.page.pop_front() {
            if entry.seq == self.last_sent + 1 {
                self.last_sent = entry.seq;
                return Step::Send(Outgoing::Durable { seq: entry.seq, body: DurableBody::of(&entry) });
            }
            // A hole in the feed itself: expired while it was being read.
            self.lost |= entry.seq > self.last_sent;
            if self.lost {
                break;
            }
        }
        if std::mem::take(&mut self.lost) {
            self.page = VecDeque::new();
            self.resuming = false;
            self.last_sent = self.target;
            return Step::ResyncRequired { cursor: self.last_sent };
        }
        if self.last_sent < self.target {
            return self.read();
        }
        if std::mem::take(&mut self.resuming) {
            self.page = VecDeque::new();
            return Step::CaughtUp { cursor: self.last_sent };
        }
        self.step_live(inbox)
    }

    fn step_live(&mut self, inbox: &mut Inbox) -> Step {
        while let Some(front) = inbox.frames.front() {
            if let Outgoing::Durable { seq, .. } = front
                && *seq > self.last_sent + 1
            {
                self.target = *seq;
                return self.read();
            }
            match inbox.pop().expect("just looked at") {
                Outgoing::Durable { seq, .. } if seq <= self.last_sent => {}
                Outgoing::Durable { seq, body } => {
                    self.last_sent = seq;
                    return Step::Send(Outgoing::Durable { seq, body });
                }
                Outgoing::Ephemeral(text) => return Step::Send(Outgoing::Ephemeral(text)),
            }
        }
        inbox.overflowed = false;
        if inbox.head > self.last_sent {
            self.target = inbox.head;
            return self.read();
        }
        Step::Nothing
    }

    fn read(&mut self) -> Step {
        self.reading = true;
        Step::Read { since: self.last_sent }
    }

    /// Takes what `Step::Read` asked for. False where the feed does not show yet what was delivered: read again, a little later.
    pub fn page_read(&mut self, page: FeedPage) -> bool {
        let expired = page.head > self.last_sent && page.oldest > self.last_sent + 1;
        if page.entries.is_empty() && !expired && !self.lost && page.head.max(self.target) > self.last_sent {
            return false;
        }
        self.reading = false;
        self.lost |= expired;
        self.target = page.head;
        self.page = page.entries.into();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::RngExt;
    use uuid::Uuid;

    use super::*;
    use crate::connection::Connection;

    fn entry(seq: u64) -> FeedEntry {
        FeedEntry { user: Uuid::nil(), seq, event: "message".to_owned(), payload: Arc::from("{}"), at_us: seq }
    }

    fn page(since: u64, head: u64, limit: u64, oldest: u64) -> FeedPage {
        let first = (since + 1).max(oldest);
        FeedPage { entries: (first..=head).take(limit as usize).map(entry).collect(), head, oldest }
    }

    fn connection(frames_max: usize) -> Connection {
        Connection::new(Uuid::nil(), "phone", Uuid::nil(), frames_max, 1_000_000)
    }

    /// All that comes of it with the feed as it is, as words.
    fn run(delivery: &mut Delivery, connection: &Connection, head: u64, oldest: u64) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            let step = delivery.step(&mut connection.inbox());
            match step {
                Step::Send(Outgoing::Durable { seq, .. }) => said.push(seq.to_string()),
                Step::Send(Outgoing::Ephemeral(text)) => said.push(text.to_string()),
                Step::Read { since } => assert!(delivery.page_read(page(since, head, 3, oldest)), "the feed stands still"),
                Step::CaughtUp { cursor } => said.push(format!("caught up {cursor}")),
                Step::ResyncRequired { cursor } => said.push(format!("resync {cursor}")),
                Step::Nothing => return said,
            }
        }
    }

    fn check(start: Start, head: u64, oldest: u64, delivered: &[u64], expected: &[&str]) {
        let connection = connection(100);
        for seq in delivered {
            connection.push_durable(*seq, &DurableBody::of(&entry(*seq)));
        }
        let mut delivery = Delivery::new(start, page(start.since(), head, 3, oldest));
        let head = delivered.iter().copied().chain([head]).max().expect("not empty");
        assert_eq!(run(&mut delivery, &connection, head, oldest), expected, "{start:?} {head} {oldest} {delivered:?}");
    }

    #[test]
    fn a_socket_goes_on_where_its_client_left() {
        check(Start::Head, 0, 1, &[], &[]);
        check(Start::Head, 5, 1, &[], &[]);
        check(Start::Head, 5, 1, &[6, 7], &["6", "7"]);
        check(Start::Head, 5, 1, &[4, 5, 6], &["6"]);
        check(Start::Head, 5, 1, &[7], &["6", "7"]);
        check(Start::Since(0), 0, 1, &[], &["caught up 0"]);
        check(Start::Since(5), 5, 1, &[], &["caught up 5"]);
        check(Start::Since(1), 6, 1, &[], &["2", "3", "4", "5", "6", "caught up 6"]);
        check(Start::Since(3), 5, 1, &[5, 6], &["4", "5", "caught up 5", "6"]);
        check(Start::Since(3), 5, 4, &[], &["4", "5", "caught up 5"]);
        check(Start::Since(2), 5, 4, &[6], &["resync 5", "6"]);
        check(Start::Since(2), 5, 6, &[], &["resync 5"]);
        check(Start::Since(9), 5, 1, &[6], &["resync 5", "6"]);
    }

    #[test]
    fn the_feed_may_lag_behind_what_was_delivered() {
        let connection = connection(100);
        let mut delivery = Delivery::new(Start::Head, page(ABOVE_ALL, 5, 3, 1));
        connection.push_durable(8, &DurableBody::of(&entry(8)));
        assert!(matches!(delivery.step(&mut connection.inbox()), Step::Read { since: 5 }));
        assert!(!delivery.page_read(page(5, 5, 3, 1)), "nothing there yet");
        assert!(matches!(delivery.step(&mut connection.inbox()), Step::Nothing));
        assert!(delivery.page_read(page(5, 8, 3, 1)));
        assert_eq!(run(&mut delivery, &connection, 8, 1), ["6", "7", "8"]);
    }

    #[test]
    fn whatever_is_delivered_every_seq_is_sent_once_and_in_order() {
        for _ in 0..300 {
            let mut random = rand::rng();
            let connection = connection(random.random_range(1..6));
            let mut head = random.random_range(0..20_u64);
            let since = random.random_range(0..=head);
            let mut delivery = Delivery::new(Start::Since(since), page(since, head, 3, 1));
            let mut sent = Vec::new();
            for _ in 0..60 {
                match random.random_range(0..4) {
                    // A stretch is appended; its deliveries come all, some, or again.
                    0 => {
                        let from = head + 1;
                        head += random.random_range(1..5_u64);
                        for seq in from.saturating_sub(random.random_range(0..3)).max(1)..=head {
                            if random.random_bool(0.8) {
                                connection.push_durable(seq, &DurableBody::of(&entry(seq)));
                            }
                        }
                    }
                    1..4 => match delivery.step(&mut connection.inbox()) {
                        Step::Send(frame) => sent.push(frame),
                        Step::Read { since } => assert!(delivery.page_read(page(since, head, 3, 1))),
                        Step::CaughtUp { .. } | Step::Nothing => {}
                        Step::ResyncRequired { .. } => panic!("nothing was expired"),
                    },
                    other => unreachable!("{other}"),
                }
            }
            connection.push_durable(head, &DurableBody::of(&entry(head)));
            let mut seqs: Vec<String> =
                sent.iter().map(|frame| if let Outgoing::Durable { seq, .. } = frame { seq.to_string() } else { String::new() }).collect();
            seqs.extend(run(&mut delivery, &connection, head, 1).into_iter().filter(|said| !said.starts_with("caught")));
            assert_eq!(seqs, (since + 1..=head).map(|seq| seq.to_string()).collect::<Vec<_>>());
        }
    }
}
