//! The outbox inside a SQLite file: effects are rows of the transaction that caused them. Shared by services' databases and the feed.
//!
//! The rows are there for the next start. While the host runs, the newest effects are also in memory, so that the relay need not read what
//! was written a moment ago; it reads the file at the start, after an overflow, and after a commit whose outcome is unknown.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use super::pool::{File, OnEnd, PooledConnection};
use super::script::Script;
use super::values::{self, Params};
use crate::sql::{Effect, ErrorClass, SqlError};
use echo_base::limits;

const TABLES: [&str; 3] = [
    // `source`: the name under which its effects leave; `left`: the highest position that has left.
    "CREATE TABLE IF NOT EXISTS _echo_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS _echo_outbox (position INTEGER PRIMARY KEY, effect TEXT NOT NULL)",
    "INSERT INTO _echo_meta (name, value) VALUES ('source', $1), ('left', '0') ON CONFLICT (name) DO NOTHING",
];

/// Adds an effect to the outbox, with the parameters of `Pending::take`.
pub const APPEND: &str = "INSERT INTO _echo_outbox (position, effect) VALUES ($1, $2)";

pub struct SqliteOutbox {
    source: String,
    signal: Arc<Notify>,
    /// The next position. Positions are given out under the file's writer, so they rise in the order of the commits.
    next: AtomicI64,
    /// The relay has read up to this position.
    taken: AtomicI64,
    /// Notified when more was.
    relief: Notify,
    newest: Mutex<Newest>,
    refuses_events: AtomicBool,
    peek: Script,
    remove: Script,
}

/// The newest committed effects that are not relayed yet.
struct Newest {
    effects: VecDeque<(i64, Effect)>,
    bytes: usize,
    /// The file may hold effects that are missing here.
    behind: bool,
    /// How often effects went missing here.
    gaps: u64,
}

impl Newest {
    fn pop_up_to(&mut self, position: i64) {
        while let Some((front, effect)) = self.effects.front()
            && *front <= position
        {
            self.bytes -= effect.bytes();
            self.effects.pop_front();
        }
    }

    fn push(&mut self, position: i64, effect: Effect) {
        let bytes = effect.bytes();
        if self.effects.len() < limits::OUTBOX_NEWEST_MAX && self.bytes + bytes <= limits::OUTBOX_NEWEST_BYTES_MAX {
            self.bytes += bytes;
            self.effects.push_back((position, effect));
        } else {
            self.missed();
        }
    }

    fn missed(&mut self) {
        self.behind = true;
        self.gaps += 1;
    }
}

/// The bounds of one batch of the relay.
struct Batch {
    effects: Vec<(i64, Effect)>,
    limit: usize,
    bytes: usize,
    users_count: usize,
}

impl Batch {
    fn new(limit: usize) -> Self {
        Self { effects: Vec::new(), limit, bytes: 0, users_count: 0 }
    }

    fn has_room(&self) -> bool {
        self.effects.len() < self.limit && self.bytes < limits::RELAY_BYTES_MAX && self.users_count < limits::RELAY_USERS_MAX
    }

    fn push(&mut self, position: i64, effect: Effect) {
        self.bytes += effect.bytes();
        self.users_count += effect.users_count();
        self.effects.push((position, effect));
    }
}

impl SqliteOutbox {
    /// Makes the tables where they are missing; the source's name is given once and for ever.
    pub async fn open(file: &File, label: &str) -> Result<Arc<Self>, SqlError> {
        let mut writer = file.writer_alone().await?;
        let fresh = format!("{label}:{}", Uuid::new_v4().simple());
        writer.run(&Script::all(TABLES), values::bind([fresh.into()])?).await?;
        if is_there(&mut writer, "sqlite_sequence").await? {
            // Earlier versions let SQLite give out the positions.
            let left = "UPDATE _echo_meta SET value = (SELECT seq FROM sqlite_sequence WHERE name = '_echo_outbox') WHERE name = 'left' AND
                CAST(value AS INTEGER) < (SELECT seq FROM sqlite_sequence WHERE name = '_echo_outbox')";
            writer.run(&Script::new(left).once(), Params::default()).await?;
        }
        let (mut source, mut next) = (String::new(), 1);
        // A position that was given out and never committed may be given out again: feed and queue have not seen it.
        let script = Script::new(
            "SELECT value, 1 + max(coalesce((SELECT max(position) FROM _echo_outbox), 0),
                    (SELECT CAST(value AS INTEGER) FROM _echo_meta WHERE name = 'left'))
                FROM _echo_meta WHERE name = 'source'",
        );
        writer
            .each(&script, Params::default(), |row| {
                (source, next) = (values::text(row, 0)?, values::integer(row, 1)?);
                Ok(true)
            })
            .await?;
        Ok(Arc::new(Self {
            source,
            signal: Arc::new(Notify::new()),
            next: AtomicI64::new(next),
            // Effects that the last run left count neither: new writers need not wait for them.
            taken: AtomicI64::new(next - 1),
            relief: Notify::new(),
            newest: Mutex::new(Newest { effects: VecDeque::new(), bytes: 0, behind: true, gaps: 0 }),
            refuses_events: AtomicBool::new(false),
            peek: Script::new("SELECT position, effect FROM _echo_outbox WHERE position > $1 ORDER BY position LIMIT $2"),
            remove: Script::all([
                "DELETE FROM _echo_outbox WHERE position <= $1",
                "UPDATE _echo_meta SET value = $1 WHERE name = 'left' AND CAST(value AS INTEGER) < $1",
            ]),
        }))
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn signal(&self) -> Arc<Notify> {
        self.signal.clone()
    }

    /// Positions from now on are above this one.
    pub fn start_above(&self, position: i64) {
        self.next.fetch_max(position.saturating_add(1), Ordering::Relaxed);
        self.taken.fetch_max(position, Ordering::Relaxed);
    }

    /// Backpressure, before a transaction begins: while many effects wait to be relayed, waits until some were. For `OUTBOX_ROOM_WAIT_MS` at the most: the
    /// feed or the queue may be away, and the file has room.
    pub async fn room(&self) {
        if self.has_room() {
            return;
        }
        let relieved = async {
            loop {
                let relief = self.relief.notified();
                if self.has_room() {
                    return;
                }
                relief.await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(limits::OUTBOX_ROOM_WAIT_MS), relieved).await;
    }

    fn has_room(&self) -> bool {
        self.next.load(Ordering::Relaxed) - self.taken.load(Ordering::Relaxed) <= limits::OUTBOX_ROOM
    }

    /// What the commit is to call with its outcome, for effects that `Pending::take` gave positions. None without such effects.
    pub fn on_end(self: &Arc<Self>, pending: &mut Pending) -> Option<OnEnd> {
        let written = std::mem::take(&mut pending.written);
        if written.is_empty() && !pending.spilled {
            return None;
        }
        let handover = Handover { outbox: self.clone(), written, spilled: pending.spilled, is_over: false };
        Some(Box::new(move |outcome| {
            if outcome.is_ok() {
                handover.committed();
            }
        }))
    }

    /// The next effects: at most `limit`, within the bounds of a batch, but at least one where there is one.
    pub async fn peek(&self, file: &File, after: i64, limit: usize) -> Result<Vec<(i64, Effect)>, SqlError> {
        self.has_taken(after);
        let given = self.next.load(Ordering::Relaxed) - 1;
        let effects = self.peek_on(file, after, limit).await?;
        if effects.is_empty() {
            // Higher positions are not committed, or never will be.
            self.has_taken(given);
        }
        Ok(effects)
    }

    /// The next `peek` reads from the file: memory holds only effects that were not peeked yet.
    pub fn rewind(&self) {
        self.newest.lock().missed();
    }

    pub fn refuse_events(&self, refuse: bool) {
        self.refuses_events.store(refuse, Ordering::Relaxed);
    }

    /// To be called before an effect is added. Errors: `Unavailable` for an event while events are refused.
    pub fn check(&self, effect: &Effect) -> Result<(), SqlError> {
        if matches!(effect, Effect::Event(_)) && self.refuses_events.load(Ordering::Relaxed) {
            return Err(SqlError::new(ErrorClass::Unavailable, "too many events of this service wait for their subscribers"));
        }
        Ok(())
    }

    fn has_taken(&self, position: i64) {
        if self.taken.fetch_max(position, Ordering::Relaxed) < position {
            self.relief.notify_waiters();
        }
    }

    async fn peek_on(&self, file: &File, after: i64, limit: usize) -> Result<Vec<(i64, Effect)>, SqlError> {
        let mut batch = Batch::new(limit);
        let gaps = {
            let mut newest = self.newest.lock();
            newest.pop_up_to(after);
            if !newest.behind {
                for (position, effect) in &newest.effects {
                    if !batch.has_room() {
                        break;
                    }
                    batch.push(*position, effect.clone());
                }
                return Ok(batch.effects);
            }
            newest.gaps
        };
        // On a connection that reads: it sees what is committed and nothing else.
        let mut reader = file.reader().await?;
        let rows_max = i64::try_from(limit).unwrap_or(i64::MAX);
        reader
            .each(&self.peek, values::bind([after.into(), rows_max.into()])?, |row| {
                let text = values::text(row, 1)?;
                let effect = serde_json::from_str(&text).map_err(|error| SqlError::new(ErrorClass::Other, error.to_string()))?;
                batch.push(values::integer(row, 0)?, effect);
                Ok(batch.has_room())
            })
            .await?;
        // The file is read to its end, and later commits are in memory: go on there.
        let mut newest = self.newest.lock();
        if batch.has_room() && newest.gaps == gaps {
            newest.behind = false;
        }
        Ok(batch.effects)
    }

    pub async fn remove_up_to(&self, file: &File, position: i64) -> Result<(), SqlError> {
        self.newest.lock().pop_up_to(position);
        file.write(&self.remove, values::bind([position.into()])?).await.map(drop)
    }
}

async fn is_there(writer: &mut PooledConnection, table: &str) -> Result<bool, SqlError> {
    let mut is_there = false;
    let script = Script::new("SELECT 1 FROM sqlite_master WHERE name = $1").once();
    writer
        .each(&script, values::bind([table.into()])?, |_| {
            is_there = true;
            Ok(true)
        })
        .await?;
    Ok(is_there)
}

/// Effects on their way from a transaction to the relay.
struct Handover {
    outbox: Arc<SqliteOutbox>,
    written: Vec<(i64, Effect)>,
    /// Some are in the file only.
    spilled: bool,
    is_over: bool,
}

impl Handover {
    /// The commit succeeded. To be called before the writer has its next user, so that effects are in the order of the commits.
    fn committed(mut self) {
        self.is_over = true;
        {
            let mut newest = self.outbox.newest.lock();
            if self.spilled {
                newest.missed();
            }
            for (position, effect) in self.written.drain(..) {
                newest.push(position, effect);
            }
        }
        // `notify_one` stores a permit for a relay that is not waiting just now.
        self.outbox.signal.notify_one();
    }
}

/// Dropped without `committed`, it makes the relay read the file: the outcome of the commit is unknown.
impl Drop for Handover {
    fn drop(&mut self) {
        if !self.is_over {
            self.outbox.newest.lock().missed();
            self.outbox.signal.notify_one();
        }
    }
}

/// Effects waiting for their transaction's end.
#[derive(Default)]
pub struct Pending {
    /// Each as the file is to hold it, and as the relay takes it.
    waiting: Vec<(String, Effect)>,
    waiting_bytes: usize,
    /// In the file, with their positions, and not committed yet.
    written: Vec<(i64, Effect)>,
    spilled: bool,
}

impl Pending {
    /// Whether nothing waits to be written.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether to write them before more are added.
    pub fn is_full(&self) -> bool {
        self.waiting_bytes >= limits::OUTBOX_BUFFER_BYTES_MAX
    }

    pub fn push(&mut self, effect: Effect) -> Result<(), SqlError> {
        if effect.payload_bytes() > limits::EVENT_BYTES_MAX {
            return Err(SqlError::new(ErrorClass::TooLarge, format!("an event's payload is at most {} bytes", limits::EVENT_BYTES_MAX)));
        }
        let text = serde_json::to_string(&effect).expect("strings, numbers and lists always encode");
        self.waiting_bytes += text.len();
        self.waiting.push((text, effect));
        Ok(())
    }

    /// The parameters of `APPEND`, a row for each effect. To be called while holding the file's writer.
    pub fn take(&mut self, outbox: &SqliteOutbox) -> Result<Vec<Params>, SqlError> {
        let first = outbox.next.fetch_add(self.waiting.len() as i64, Ordering::Relaxed);
        // A transaction that fills its buffer more than once keeps nothing in memory.
        self.spilled |= !self.written.is_empty();
        self.waiting_bytes = 0;
        let mut rows = Vec::with_capacity(self.waiting.len());
        for (position, (text, effect)) in (first..).zip(self.waiting.drain(..)) {
            rows.push(values::bind([position.into(), text.into()])?);
            self.written.push((position, effect));
        }
        if self.spilled {
            self.written.clear();
        }
        Ok(rows)
    }
}

const _: () = assert!(limits::PUSH_PAYLOAD_BYTES_MAX <= limits::EVENT_BYTES_MAX);
// A call within its allowance keeps its effects in memory, as reading them from the file costs more.
const _: () = assert!(limits::OUTBOX_ROOM < limits::OUTBOX_NEWEST_MAX as i64);
// An effect fits into a row: JSON text in a JSON string at most doubles, a user takes 40 bytes.
const _: () = assert!(2 * limits::EVENT_BYTES_MAX + 40 * limits::PUSH_USERS_MAX + 4_096 < limits::SQLITE_HOST_VALUE_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    use futures_util::FutureExt;

    use crate::events::Event;
    use crate::hub::{Class, Push};
    use crate::sql::sqlite::pool::Durability;

    struct Fixture {
        _folder: tempfile::TempDir,
        file: File,
        outbox: Arc<SqliteOutbox>,
    }

    impl Fixture {
        async fn open() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let file = File::open(&folder.path().join("a.sqlite"), Durability::default()).await.expect("opens");
            let outbox = SqliteOutbox::open(&file, "a").await.expect("opens");
            Self { _folder: folder, file, outbox }
        }

        /// Commits an effect with this payload; `told`: the outbox learns of it.
        async fn commit(&self, number: usize, told: bool) {
            self.commit_effect(effect(number), told).await;
        }

        async fn commit_effect(&self, effect: Effect, told: bool) {
            let mut writer = self.file.writer().await.expect("the writer");
            let mut pending = Pending::default();
            pending.push(effect).expect("small enough");
            let rows = pending.take(&self.outbox).expect("binds");
            let on_end = self.outbox.on_end(&mut pending);
            writer.begin().expect("begins");
            writer.run_rows(&Script::new(APPEND), &rows).await.expect("appends");
            writer.commit(on_end.filter(|_| told)).await.expect("commits");
        }

        async fn peek(&self, after: i64) -> Vec<(i64, Effect)> {
            self.outbox.peek(&self.file, after, limits::RELAY_BATCH).await.expect("peeks")
        }
    }

    fn effect(number: usize) -> Effect {
        Effect::Event(Event {
            id: Uuid::nil(),
            topic: "a.a".to_owned(),
            key: String::new(),
            payload: number.to_string(),
            at_us: 0,
            correlation_id: String::new(),
        })
    }

    fn effects(numbers: std::ops::Range<usize>) -> Vec<Effect> {
        numbers.map(effect).collect()
    }

    #[tokio::test]
    async fn what_memory_cannot_hold_is_read_from_the_file() {
        let fixture = Fixture::open().await;
        assert_eq!(fixture.peek(i64::MIN).await, [], "from here on it is in memory");
        let count = limits::OUTBOX_NEWEST_MAX + 10;
        for number in 0..count {
            fixture.commit(number, true).await;
        }
        let (mut seen, mut after, mut more) = (Vec::new(), i64::MIN, count..count + 600);
        loop {
            let page = fixture.peek(after).await;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            seen.extend(page.into_iter().map(|(_, effect)| effect));
            // Others go on meanwhile.
            for number in more.by_ref().take(40) {
                fixture.commit(number, true).await;
            }
        }
        assert_eq!(seen, effects(0..count + 600));
        fixture.outbox.remove_up_to(&fixture.file, after).await.expect("removes");
        fixture.commit(0, true).await;
        assert!(fixture.peek(after).await[0].0 > after);
    }

    #[tokio::test]
    async fn a_commit_of_which_nobody_heard_is_found_in_its_place() {
        let fixture = Fixture::open().await;
        assert_eq!(fixture.peek(i64::MIN).await, []);
        for (number, told) in [(0, true), (1, false), (2, true)] {
            fixture.commit(number, told).await;
        }
        let found = fixture.peek(i64::MIN).await;
        assert_eq!(found.iter().map(|(_, effect)| effect.clone()).collect::<Vec<_>>(), effects(0..3));
        assert_eq!(fixture.peek(found[2].0).await, []);
    }

    #[tokio::test]
    async fn positions_go_on_after_a_restart_also_where_sqlite_gave_them_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.sqlite");
        let old = "CREATE TABLE _echo_outbox (position INTEGER PRIMARY KEY AUTOINCREMENT, effect TEXT NOT NULL);
            INSERT INTO _echo_outbox (position, effect) VALUES (5000, ''); DELETE FROM _echo_outbox;";
        rusqlite::Connection::open(&path).expect("opens").execute_batch(old).expect("as it was made once");
        let mut before = 5_000;
        for _ in 0..2 {
            let file = File::open(&path, Durability::default()).await.expect("opens");
            let outbox = SqliteOutbox::open(&file, "a").await.expect("opens");
            let fixture = Fixture { _folder: tempfile::tempdir().expect("a folder"), file, outbox };
            fixture.commit(1, true).await;
            let (position, _) = fixture.peek(before).await[0];
            assert!(position > before);
            before = position;
            // All has left: only the note of it is there to say how far it came.
            fixture.outbox.remove_up_to(&fixture.file, position).await.expect("removes");
            fixture.file.close().await;
        }
    }

    #[tokio::test]
    async fn who_makes_effects_waits_until_some_have_left_but_not_for_ever() {
        let fixture = Fixture::open().await;
        let most = limits::OUTBOX_ROOM;
        let last = fixture.outbox.next.fetch_add(most, Ordering::Relaxed) + most - 1;
        assert_eq!(fixture.outbox.room().now_or_never(), None, "a backlog");
        fixture.outbox.room().await;
        assert!(!fixture.outbox.has_room(), "nothing left, and yet it ended");
        let mut waiting = std::pin::pin!(fixture.outbox.room());
        assert_eq!(waiting.as_mut().now_or_never(), None);
        fixture.peek(last).await;
        assert_eq!(waiting.now_or_never(), Some(()), "it was woken");
        assert_eq!(fixture.outbox.room().now_or_never(), Some(()), "and nobody waits any more");
    }

    #[tokio::test]
    async fn positions_that_were_rolled_back_are_no_backlog() {
        let fixture = Fixture::open().await;
        fixture.outbox.next.fetch_add(2 * limits::OUTBOX_ROOM, Ordering::Relaxed);
        assert!(!fixture.outbox.has_room());
        assert_eq!(fixture.peek(i64::MIN).await, []);
        assert!(fixture.outbox.has_room(), "nothing is there");
    }

    #[tokio::test]
    async fn pushes_to_many_users_fill_a_batch_and_the_memory() {
        let fixture = Fixture::open().await;
        assert_eq!(fixture.peek(i64::MIN).await, [], "from here on it is in memory");
        let wide = || {
            let users = vec![Uuid::nil(); limits::PUSH_USERS_MAX];
            Effect::Push(Push {
                users,
                event: "e".to_owned(),
                payload: "1".to_owned(),
                class: Class::Durable,
                receipt: None,
                subject: None,
                state: None,
            })
        };
        let fit = limits::OUTBOX_NEWEST_BYTES_MAX / wide().bytes();
        for number in 0..=fit {
            fixture.commit_effect(wide(), true).await;
            assert_eq!(fixture.outbox.newest.lock().behind, number == fit, "{number}");
        }
        for after in 0..=fit {
            assert_eq!(fixture.peek(after as i64).await.len(), 1, "from the file");
        }
        fixture.commit_effect(wide(), true).await;
        fixture.commit_effect(wide(), true).await;
        assert_eq!(fixture.peek(fit as i64 + 1).await.len(), 1, "from memory");
    }

    #[tokio::test]
    async fn what_was_rolled_back_leaves_only_a_gap() {
        let fixture = Fixture::open().await;
        let mut pending = Pending::default();
        pending.push(effect(7)).expect("small enough");
        pending.take(&fixture.outbox).expect("binds");
        drop(fixture.outbox.on_end(&mut pending));
        fixture.commit(0, true).await;
        assert_eq!(fixture.peek(i64::MIN).await.into_iter().map(|(_, effect)| effect).collect::<Vec<_>>(), effects(0..1));
    }
}
