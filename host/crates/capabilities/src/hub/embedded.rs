//! The feed on SQLite, one file for all users. A payload is stored once for all users of a push; a user's entry is three numbers.
//!
//! It is the only writer of its file, so it keeps the newest number of each user in memory and gives out numbers without asking the
//! disk; a batch of pushes is then one script in one transaction. Knows no sockets and no guests.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{Mutex, Notify};
use uuid::Uuid;

use self::numbering::{Numbered, Payload, waiting_rows};
use super::reached::{Reached, Span};
use super::states::States;
use super::{Acknowledgement, DeviceCursor, Feed, FeedChange, FeedEntry, FeedError, FeedPage, service_of};
use crate::events::Event;
use crate::sql::sqlite::outbox::{self, Pending, SqliteOutbox};
use crate::sql::sqlite::pool::{File, PooledConnection};
use crate::sql::sqlite::script::Script;
use crate::sql::sqlite::values::{Params, Row};
use crate::sql::sqlite::{Durability, values};
use crate::sql::{Effect, ErrorClass, Outbox, SqlError, Value};
use echo_base::clock::now_us;
use echo_base::limits;
use echo_base::private_file;

mod acknowledging;
pub mod exported;
mod numbering;
mod restored;

const TABLES: [&str; 8] = [
    // `head` is the newest number, `acked` the highest that any device acknowledged, `reached` the payload under that, or under the last one kept
    // below it. Entries and cursors say all three; what is written here is what they said before the oldest entries left. See `HEAD`, `ACKED`, `reached`.
    "CREATE TABLE IF NOT EXISTS feed_user (id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE,
        head INTEGER NOT NULL, acked INTEGER NOT NULL DEFAULT 0, reached INTEGER NOT NULL DEFAULT 0)",
    // `users`: the ids of its users as JSON, where it has a receipt. Ids rise with time. See `COLUMNS`.
    "CREATE TABLE IF NOT EXISTS feed_payload (id INTEGER PRIMARY KEY, event TEXT NOT NULL, body TEXT NOT NULL,
        receipt TEXT, users TEXT, at_us INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS feed_payload_receipt ON feed_payload (receipt) WHERE receipt IS NOT NULL",
    "CREATE TABLE IF NOT EXISTS feed_entry (user INTEGER NOT NULL, seq INTEGER NOT NULL, payload INTEGER NOT NULL,
        PRIMARY KEY (user, seq)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS feed_cursor (user INTEGER NOT NULL, device TEXT NOT NULL, seq INTEGER NOT NULL,
        PRIMARY KEY (user, device)) WITHOUT ROWID",
    // Numbers below `acked`, from the one after `above` up to `up_to`, that no device acknowledged, and the payloads under these two numbers.
    "CREATE TABLE IF NOT EXISTS feed_gap (user INTEGER NOT NULL, above INTEGER NOT NULL, up_to INTEGER NOT NULL,
        above_payload INTEGER NOT NULL, up_to_payload INTEGER NOT NULL, PRIMARY KEY (user, above)) WITHOUT ROWID",
    // State-like pushes that are to be numbered: `push` as JSON.
    "CREATE TABLE IF NOT EXISTS feed_waiting (id INTEGER PRIMARY KEY, source TEXT NOT NULL, push TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS feed_source (name TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID",
];

/// Columns that came later: table, name, and what makes them.
const COLUMNS: [(&str, &str, &str); 3] = [
    // What it is about, with the service before it: "message 0198…".
    ("feed_payload", "subject", "ALTER TABLE feed_payload ADD COLUMN subject TEXT"),
    // What the device was given begins after this one.
    ("feed_cursor", "above", "ALTER TABLE feed_cursor ADD COLUMN above INTEGER NOT NULL DEFAULT 0"),
    // When it was written last; 0 for one of before there was this column.
    ("feed_cursor", "at_us", "ALTER TABLE feed_cursor ADD COLUMN at_us INTEGER NOT NULL DEFAULT 0"),
];
const INDEXES: [&str; 1] = ["CREATE INDEX IF NOT EXISTS feed_payload_subject ON feed_payload (subject) WHERE subject IS NOT NULL"];

// What holds of a `person` of `feed_user`; `reached` is the third.
const HEAD: &str = "max(person.head, coalesce((SELECT max(seq) FROM feed_entry WHERE user = person.id), 0))";
const ACKED: &str = "max(person.acked, coalesce((SELECT max(seq) FROM feed_cursor WHERE user = person.id), 0))";

const PUT_USER: &str = "INSERT INTO feed_user (id, uuid, head) VALUES ($1, $2, 0) ON CONFLICT (id) DO NOTHING";
const PUT_PAYLOAD: &str = "INSERT INTO feed_payload (id, event, body, receipt, users, at_us, subject) VALUES ($1, $2, $3, $4, $5, $6, $7)";
const REPLACE: &str = "UPDATE feed_payload SET event = coalesce($2, event), body = $3 WHERE subject = $1";
const PUT_ENTRY: &str = "INSERT INTO feed_entry (user, seq, payload) VALUES ($1, $2, $3)";
const PUT_WAITING: &str = "INSERT INTO feed_waiting (id, source, push) VALUES ($1, $2, $3)
    ON CONFLICT (id) DO UPDATE SET push = excluded.push";
const DROP_WAITING: &str = "DELETE FROM feed_waiting WHERE id = $1";
const PUT_SOURCE: &str = "INSERT INTO feed_source (name, position) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET position = excluded.position";
const PUT_CURSOR: &str = "INSERT INTO feed_cursor (user, device, seq, above, at_us) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (user, device) DO UPDATE SET seq = max(seq, excluded.seq), above = excluded.above, at_us = excluded.at_us";
const PUT_GAP: &str = "INSERT INTO feed_gap (user, above, up_to, above_payload, up_to_payload) VALUES ($1, $2, $3,
    coalesce((SELECT payload FROM feed_entry WHERE user = $1 AND seq <= $2 ORDER BY seq DESC LIMIT 1), 0),
    coalesce((SELECT payload FROM feed_entry WHERE user = $1 AND seq <= $3 ORDER BY seq DESC LIMIT 1), 0))";

pub struct EmbeddedFeed {
    file: Arc<File>,
    outbox: Arc<SqliteOutbox>,
    /// Held over every write: numbers are given out in the order of the commits.
    memory: Mutex<Memory>,
    scripts: Scripts,
}

struct Scripts {
    put_user: Script,
    put_payload: Script,
    replace: Script,
    put_entry: Script,
    put_waiting: Script,
    drop_waiting: Script,
    put_source: Script,
    users: Script,
    gaps: Script,
    receipts: Script,
    put_cursor: Script,
    drop_gaps: Script,
    put_gap: Script,
    emit: Script,
    read: Script,
    cursor: Script,
    acknowledged: Script,
}

/// What the file says, known without reading it.
#[derive(Default)]
struct Memory {
    users: HashMap<Uuid, User>,
    sources: HashMap<String, i64>,
    states: States,
    next_user: i64,
    next_payload: i64,
    /// False after a failed write: nobody knows whether it took place.
    is_valid: bool,
}

struct User {
    id: i64,
    head: u64,
    reached: Reached,
}

impl User {
    fn new(id: i64) -> Self {
        Self { id, head: 0, reached: Reached::default() }
    }
}

impl EmbeddedFeed {
    /// `<folder>/feed.sqlite`.
    pub async fn open(folder: &Path, durability: Durability) -> Result<Self, FeedError> {
        private_file::create_folder(folder).map_err(|error| FeedError(format!("{}: {error}", folder.display())))?;
        let file = Arc::new(File::open(&folder.join("feed.sqlite"), durability).await?);
        let outbox = SqliteOutbox::open(&file, "feed").await?;
        {
            let mut writer = file.writer_alone().await?;
            writer.run(&Script::all(TABLES), Params::default()).await?;
            for (table, column, addition) in COLUMNS {
                if !has_column(&mut writer, table, column).await? {
                    writer.run(&Script::new(addition).once(), Params::default()).await?;
                }
            }
            writer.run(&Script::all(INDEXES), Params::default()).await?;
            let date = Script::new("UPDATE feed_cursor SET at_us = $1 WHERE at_us = 0").once();
            writer.run(&date, values::bind([Value::Timestamp(now_us())])?).await?;
        }
        let reached = reached();
        let scripts = Scripts {
            put_user: Script::new(PUT_USER),
            put_payload: Script::new(PUT_PAYLOAD),
            replace: Script::new(REPLACE),
            put_entry: Script::new(PUT_ENTRY),
            put_waiting: Script::new(PUT_WAITING),
            drop_waiting: Script::new(DROP_WAITING),
            put_source: Script::new(PUT_SOURCE),
            users: Script::new(format!(
                "SELECT person.uuid, person.id, {HEAD}, {ACKED} FROM feed_user AS person
                    WHERE person.uuid IN (SELECT value FROM json_each($1))"
            )),
            gaps: Script::new(
                "SELECT person.uuid, gap.above, gap.up_to FROM feed_user AS person JOIN feed_gap AS gap ON gap.user = person.id
                    WHERE person.uuid IN (SELECT value FROM json_each($1)) ORDER BY gap.above",
            ),
            receipts: Script::new(
                "SELECT payload.receipt FROM feed_entry AS entry CROSS JOIN feed_payload AS payload ON payload.id = entry.payload
                    WHERE entry.user = $1 AND entry.seq > $2 AND entry.seq <= $3 AND payload.receipt IS NOT NULL ORDER BY entry.seq",
            ),
            put_cursor: Script::new(PUT_CURSOR),
            drop_gaps: Script::new("DELETE FROM feed_gap WHERE user = $1"),
            put_gap: Script::new(PUT_GAP),
            emit: Script::new(outbox::APPEND),
            read: Script::new(format!(
                "SELECT {HEAD}, (SELECT min(seq) FROM feed_entry WHERE user = person.id),
                        entry.seq, payload.event, payload.body, payload.at_us
                    FROM feed_user AS person
                    LEFT JOIN feed_entry AS entry ON entry.user = person.id AND entry.seq > $2
                    LEFT JOIN feed_payload AS payload ON payload.id = entry.payload
                    WHERE person.uuid = $1 ORDER BY entry.seq LIMIT $3"
            )),
            cursor: Script::new(
                "SELECT seq, above FROM feed_cursor WHERE user = (SELECT id FROM feed_user WHERE uuid = $1) AND device = $2",
            ),
            acknowledged: Script::new(format!(
                "SELECT person.uuid FROM feed_payload AS payload
                    CROSS JOIN json_each(payload.users) AS member
                    CROSS JOIN feed_user AS person ON person.id = member.value
                    WHERE payload.receipt = $1 AND payload.id <= {reached}
                    AND NOT EXISTS (SELECT 1 FROM feed_gap AS gap
                        WHERE gap.user = person.id AND payload.id > gap.above_payload AND payload.id <= gap.up_to_payload)"
            )),
        };
        Ok(Self { file, outbox, memory: Mutex::new(Memory::default()), scripts })
    }

    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Flushes and closes the file.
    pub async fn close(&self) {
        self.file.close().await;
    }

    /// Reads anew what the next numbers are, where that is not known.
    async fn make_valid(&self, memory: &mut Memory) -> Result<(), SqlError> {
        if memory.is_valid {
            return Ok(());
        }
        *memory = Memory::default();
        // A write whose future was dropped has come to its end before the writer is given.
        let mut writer = self.file.writer_alone().await?;
        // A payload's id is never given twice, even when all payloads have expired: `reached` remembers the highest that mattered.
        let sql = "SELECT coalesce((SELECT max(id) FROM feed_user), 0),
            max(coalesce((SELECT max(id) FROM feed_payload), 0), coalesce((SELECT max(reached) FROM feed_user), 0))";
        each(&mut writer, &Script::new(sql), vec![], |row| {
            memory.next_user = values::integer(row, 0)? + 1;
            memory.next_payload = values::integer(row, 1)? + 1;
            Ok(true)
        })
        .await?;
        each(&mut writer, &Script::new("SELECT name, position FROM feed_source"), vec![], |row| {
            memory.sources.insert(values::text(row, 0)?, values::integer(row, 1)?);
            Ok(true)
        })
        .await?;
        each(&mut writer, &Script::new("SELECT id, source, push FROM feed_waiting ORDER BY id"), vec![], |row| {
            let push = serde_json::from_str(&values::text(row, 2)?).map_err(|_| unreadable())?;
            memory.states.load(values::integer(row, 0)?, &values::text(row, 1)?, push);
            Ok(true)
        })
        .await?;
        memory.is_valid = true;
        Ok(())
    }

    /// Brings those of the users into memory that the file knows.
    async fn recall(&self, memory: &mut Memory, users: impl Iterator<Item = Uuid>) -> Result<(), SqlError> {
        if memory.users.len() > limits::FEED_USERS_KEPT {
            memory.users.clear();
        }
        let unknown: HashSet<Uuid> = users.filter(|user| !memory.users.contains_key(user)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown: Vec<Uuid> = unknown.into_iter().collect();
        let mut reader = self.file.reader().await?;
        for some in unknown.chunks(limits::PUSH_USERS_MAX) {
            each(&mut reader, &self.scripts.users, vec![encode(&some)], |row| {
                let reached = Reached { up_to: number(row, 3)?, gaps: Vec::new() };
                memory.users.insert(identifier(row, 0)?, User { id: values::integer(row, 1)?, head: number(row, 2)?, reached });
                Ok(true)
            })
            .await?;
            each(&mut reader, &self.scripts.gaps, vec![encode(&some)], |row| {
                let gap = Span { above: number(row, 1)?, up_to: number(row, 2)? };
                if let Some(user) = memory.users.get_mut(&identifier(row, 0)?) {
                    user.reached.gaps.push(gap);
                }
                Ok(true)
            })
            .await?;
        }
        Ok(())
    }

    async fn write(&self, numbered: &Numbered, source: &str, position: Option<i64>) -> Result<(), SqlError> {
        let scripts = &self.scripts;
        let (put_waiting, drop_waiting) = waiting_rows(source, &numbered.waiting)?;
        let payloads = numbered.payloads.iter().map(Payload::row).collect::<Result<Vec<_>, _>>()?;
        let mut writer = self.file.writer().await?;
        writer.begin()?;
        for (script, rows) in [
            // What came earlier in this batch has been replaced in memory, what comes later is not to be.
            (&scripts.replace, &numbered.replacements),
            (&scripts.put_user, &numbered.users),
            (&scripts.put_payload, &payloads),
            (&scripts.put_entry, &numbered.entries),
            (&scripts.put_waiting, &put_waiting),
            (&scripts.drop_waiting, &drop_waiting),
        ] {
            for some in rows.chunks(limits::PUSH_USERS_MAX) {
                writer.run_rows(script, some).await?;
            }
        }
        if let Some(position) = position {
            writer.run(&scripts.put_source, values::bind([source.into(), position.into()])?).await?;
        }
        writer.commit(None).await
    }
}

#[async_trait]
impl Feed for EmbeddedFeed {
    async fn apply(&self, source: &str, changes: &[(i64, FeedChange)]) -> Result<Vec<FeedEntry>, FeedError> {
        let mut memory = self.memory.lock().await;
        self.make_valid(&mut memory).await?;
        let seen = memory.sources.get(source).copied().unwrap_or(i64::MIN);
        let fresh: Vec<&(i64, FeedChange)> = changes.iter().filter(|(position, _)| *position > seen).collect();
        let Some(&&(position, _)) = fresh.last() else { return Ok(Vec::new()) };
        let fresh: Vec<&FeedChange> = fresh.into_iter().map(|(_, change)| change).collect();
        let users = fresh.iter().flat_map(|change| match change {
            FeedChange::Push(push) => push.users.as_slice(),
            FeedChange::Replace(_) => &[],
        });
        self.recall(&mut memory, users.copied()).await?;

        // Invalid until the commit is known: also when this future is dropped.
        memory.is_valid = false;
        let numbered = Numbered::of(&mut memory, source, &fresh, now_us())?;
        self.write(&numbered, source, Some(position)).await?;
        memory.sources.insert(source.to_owned(), position);
        memory.is_valid = true;
        Ok(numbered.delivered())
    }

    async fn position(&self, source: &str) -> Result<Option<i64>, FeedError> {
        let mut memory = self.memory.lock().await;
        self.make_valid(&mut memory).await?;
        Ok(memory.sources.get(source).copied())
    }

    async fn release(&self, source: &str) -> Result<Vec<FeedEntry>, FeedError> {
        let mut memory = self.memory.lock().await;
        self.make_valid(&mut memory).await?;
        let released = memory.states.release(source, Instant::now());
        if released.is_empty() {
            return Ok(Vec::new());
        }
        memory.is_valid = false;
        self.recall(&mut memory, released.iter().flat_map(|waiting| waiting.push.users.iter().copied())).await?;
        let mut numbered = Numbered::default();
        let at_us = now_us();
        for waiting in &released {
            numbered.push(&mut memory, service_of(source), &waiting.push, at_us)?;
            numbered.waiting.insert(waiting.id, None);
        }
        self.write(&numbered, source, None).await?;
        memory.is_valid = true;
        Ok(numbered.delivered())
    }

    async fn read(&self, user: Uuid, since: u64, limit: usize) -> Result<FeedPage, FeedError> {
        let mut page = FeedPage { oldest: 1, ..FeedPage::default() };
        let mut bytes = 0;
        let mut reader = self.file.reader().await?;
        let since = i64::try_from(since).unwrap_or(i64::MAX);
        let limit = limit.clamp(1, limits::FEED_PAGE_MAX);
        each(&mut reader, &self.scripts.read, vec![user.to_string().into(), since.into(), (limit as i64).into()], |row| {
            page.head = number(row, 0)?;
            page.oldest = if values::is_null(row, 1)? { page.head + 1 } else { number(row, 1)? };
            if values::is_null(row, 2)? {
                return Ok(true);
            }
            let body = values::text(row, 4)?;
            bytes += body.len();
            let (seq, event, at_us) = (number(row, 2)?, values::text(row, 3)?, number(row, 5)?);
            page.entries.push(FeedEntry { user, seq, event, payload: body.into(), at_us });
            Ok(bytes < limits::SQL_RESULT_BYTES_MAX)
        })
        .await?;
        Ok(page)
    }

    async fn acknowledge(&self, acknowledgements: &[Acknowledgement]) -> Result<(), FeedError> {
        for some in acknowledgements.chunks(limits::ACK_BATCH_MAX) {
            self.acknowledge_some(some).await?;
        }
        Ok(())
    }

    async fn announce(&self, events: &[Event]) -> Result<(), FeedError> {
        let mut writer = self.file.writer().await?;
        writer.begin()?;
        Ok(self.publish_and_commit(writer, events.to_vec()).await?)
    }

    async fn device(&self, user: Uuid, device: &str) -> Result<Option<DeviceCursor>, FeedError> {
        let mut found = None;
        let mut reader = self.file.reader().await?;
        each(&mut reader, &self.scripts.cursor, vec![user.to_string().into(), device.into()], |row| {
            found = Some(DeviceCursor { acknowledged: number(row, 0)?, above: number(row, 1)? });
            Ok(true)
        })
        .await?;
        Ok(found)
    }

    async fn unacknowledged(&self, receipt: &str, users: &[Uuid]) -> Result<Vec<Uuid>, FeedError> {
        let mut reached = HashSet::new();
        let mut reader = self.file.reader().await?;
        each(&mut reader, &self.scripts.acknowledged, vec![receipt.into()], |row| {
            reached.insert(identifier(row, 0)?);
            Ok(true)
        })
        .await?;
        Ok(users.iter().copied().filter(|user| !reached.contains(user)).collect())
    }

    async fn expire(&self, now_us: u64, cursors_kept: Duration) -> Result<u64, FeedError> {
        self.drop_cursors(now_us.saturating_sub(u64::try_from(cursors_kept.as_micros()).unwrap_or(u64::MAX))).await?;
        let before = now_us.saturating_sub(limits::FEED_TTL_S * 1_000_000);
        let old = self.newest_older_than(before).await?;
        let mut dropped = 0;
        let write_down = write_down();
        let drop_entries = "DELETE FROM feed_entry WHERE user = $1 AND seq < $2";
        let drop_gaps = "DELETE FROM feed_gap WHERE user = $1 AND up_to < $2";
        let drop_entries = Script::all([&write_down, drop_entries, drop_gaps]);
        // User by user, so that no transaction is long.
        for (user, first_kept) in self.overfull(old).await? {
            let counts = self.file.write(&drop_entries, values::bind([user.into(), first_kept.into()])?).await?;
            dropped += counts.get(1).copied().unwrap_or(0);
        }
        loop {
            let script =
                Script::new("DELETE FROM feed_payload WHERE id IN (SELECT id FROM feed_payload WHERE id <= $1 ORDER BY id LIMIT $2)");
            let params = values::bind([old.into(), (limits::FEED_EXPIRE_BATCH as i64).into()])?;
            let counts = self.file.write(&script, params).await?;
            if counts.first().copied().unwrap_or(0) < limits::FEED_EXPIRE_BATCH {
                return Ok(dropped);
            }
        }
    }
}

impl EmbeddedFeed {
    /// Ends the writer's transaction with these events in the outbox.
    async fn publish_and_commit(&self, mut writer: PooledConnection, events: Vec<Event>) -> Result<(), SqlError> {
        let mut pending = Pending::default();
        for event in events {
            let effect = Effect::Event(event);
            // Who acknowledges or announces keeps it, and tries again.
            self.outbox.check(&effect)?;
            pending.push(effect)?;
            if pending.is_full() {
                writer.run_rows(&self.scripts.emit, &pending.take(&self.outbox)?).await?;
            }
        }
        writer.run_rows(&self.scripts.emit, &pending.take(&self.outbox)?).await?;
        writer.commit(self.outbox.on_end(&mut pending)).await
    }

    /// Those of devices that have not been there since.
    async fn drop_cursors(&self, before_us: u64) -> Result<(), SqlError> {
        let mut users = Vec::new();
        let old = Script::new("SELECT DISTINCT user FROM feed_cursor WHERE at_us < $1");
        each(&mut self.file.reader().await?, &old, vec![Value::Timestamp(before_us)], |row| {
            users.push(values::integer(row, 0)?);
            Ok(true)
        })
        .await?;
        let drop_cursors = Script::all([write_down().as_str(), "DELETE FROM feed_cursor WHERE user = $1 AND at_us < $2"]);
        for user in users {
            self.file.write(&drop_cursors, values::bind([user.into(), Value::Timestamp(before_us)])?).await?;
        }
        Ok(())
    }

    /// The newest payload that is older than this; 0 where there is none. Ids rise with time.
    async fn newest_older_than(&self, at_us: u64) -> Result<i64, SqlError> {
        let sql = "SELECT coalesce((SELECT id - 1 FROM feed_payload WHERE at_us >= $1 ORDER BY id LIMIT 1), (SELECT max(id) FROM feed_payload), 0)";
        let mut found = 0;
        let mut reader = self.file.reader().await?;
        each(&mut reader, &Script::new(sql), vec![Value::Timestamp(at_us)], |row| {
            found = values::integer(row, 0)?;
            Ok(true)
        })
        .await?;
        Ok(found)
    }

    /// Users with entries to drop, and the first number that each keeps.
    async fn overfull(&self, old: i64) -> Result<Vec<(i64, i64)>, SqlError> {
        let sql = "SELECT person.id, max(last.seq - $2 + 1,
                    coalesce((SELECT seq FROM feed_entry WHERE user = person.id AND payload > $1 ORDER BY seq LIMIT 1), last.seq + 1))
                FROM feed_user AS person
                JOIN feed_entry AS first ON first.user = person.id
                    AND first.seq = (SELECT min(seq) FROM feed_entry WHERE user = person.id)
                JOIN feed_entry AS last ON last.user = person.id
                    AND last.seq = (SELECT max(seq) FROM feed_entry WHERE user = person.id)
                WHERE first.payload <= $1 OR first.seq <= last.seq - $2";
        let mut users = Vec::new();
        let mut reader = self.file.reader().await?;
        each(&mut reader, &Script::new(sql), vec![old.into(), (limits::FEED_EVENTS_MAX as i64).into()], |row| {
            users.push((values::integer(row, 0)?, values::integer(row, 1)?));
            Ok(true)
        })
        .await?;
        Ok(users)
    }
}

#[async_trait]
impl Outbox for EmbeddedFeed {
    fn source(&self) -> &str {
        self.outbox.source()
    }

    fn signal(&self) -> Arc<Notify> {
        self.outbox.signal()
    }

    fn start_above(&self, position: i64) {
        self.outbox.start_above(position);
    }

    async fn peek(&self, after: i64, limit: usize) -> Result<Vec<(i64, Effect)>, SqlError> {
        self.outbox.peek(&self.file, after, limit).await
    }

    fn rewind(&self) {
        self.outbox.rewind();
    }

    fn refuse_events(&self, refuse: bool) {
        self.outbox.refuse_events(refuse);
    }

    async fn remove_up_to(&self, position: i64) -> Result<(), SqlError> {
        self.outbox.remove_up_to(&self.file, position).await
    }
}

/// What a user's entries and cursors say, before some of them go.
fn write_down() -> String {
    format!("UPDATE feed_user AS person SET head = {HEAD}, acked = {ACKED}, reached = {} WHERE id = $1", reached())
}

/// Beside `HEAD` and `ACKED`.
fn reached() -> String {
    format!(
        "max(person.reached, coalesce(
            (SELECT payload FROM feed_entry WHERE user = person.id AND seq <= {ACKED} ORDER BY seq DESC LIMIT 1), 0))"
    )
}

async fn has_column(writer: &mut PooledConnection, table: &str, column: &str) -> Result<bool, SqlError> {
    let mut found = false;
    let script = Script::new("SELECT 1 FROM pragma_table_info($1) WHERE name = $2").once();
    each(writer, &script, vec![table.into(), column.into()], |_| {
        found = true;
        Ok(true)
    })
    .await?;
    Ok(found)
}

async fn each(
    pooled: &mut PooledConnection,
    script: &Script,
    params: Vec<Value>,
    visit: impl FnMut(&Row<'_>) -> Result<bool, SqlError> + Send,
) -> Result<(), SqlError> {
    pooled.each(script, values::bind(params)?, visit).await.map(drop)
}

fn encode(list: &impl serde::Serialize) -> Value {
    Value::Text(serde_json::to_string(list).expect("numbers, strings and lists of them always encode"))
}

/// A feed's numbers never come near the bound.
fn integer(number: u64) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

fn number(row: &Row<'_>, index: usize) -> Result<u64, SqlError> {
    u64::try_from(values::integer(row, index)?).map_err(|_| unreadable())
}

fn identifier(row: &Row<'_>, index: usize) -> Result<Uuid, SqlError> {
    values::text(row, index)?.parse().map_err(|_| unreadable())
}

fn unreadable() -> SqlError {
    SqlError::new(ErrorClass::Other, "the feed's file holds what was never written there")
}

impl From<SqlError> for FeedError {
    fn from(error: SqlError) -> Self {
        FeedError(error.to_string())
    }
}
