//! One SQLite file: a single writer and a few readers, each lent to one user at a time, in turn. Whatever becomes of the user (an error, a
//! time-out, a future dropped in the middle of a transaction), the next one finds a connection with nothing open.
//!
//! Statements run in place, on the thread that asks: going to a thread of their own and back costs several times what most of them do
//! (host/docs/adr/0013-sqlite-runs-in-place.md). One that takes long first gives the other work of its thread away, and is ended at its time.
//! Knows nothing of services, outboxes or guests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{CachedStatement, Connection, OpenFlags, Statement};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::guard::Effort;
use super::keeper::Keeper;
use super::script::{Script, Text};
use super::values::{Params, Row};
use super::{errors, log_file};
use crate::capabilities::sql::{ErrorClass, SqlError};
use crate::limits;

/// What a commit outlives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process, by whatever signal. SQLite's `synchronous = NORMAL`: no flush to the disk per commit.
    #[default]
    Process,
    /// Also power loss: `synchronous = FULL`, a flush per commit.
    Power,
}

/// An open file. Cheap to share by `Arc`.
pub struct File {
    writer: Arc<Lane>,
    readers: Arc<Lane>,
    keeper: TaskTracker,
    closing: CancellationToken,
}

impl File {
    pub async fn open(path: &Path, durability: Durability) -> Result<Self, SqlError> {
        // The writer first: it makes the file.
        let writer = Lane::open(Role { path: path.to_owned(), durability, writes: true }, 1)?;
        let readers = Lane::open(Role { path: path.to_owned(), durability, writes: false }, limits::SQLITE_READERS as usize)?;
        let (keeper, closing) = (TaskTracker::new(), CancellationToken::new());
        // Owned by the file: `close` ends it, and so does dropping the file.
        let link = Link::open(&writer.role)?;
        keeper.spawn(Keeper::new(link).run(writer.clone(), closing.clone()));
        Ok(Self { writer, readers, keeper, closing })
    }

    /// The one connection that writes. Errors: `Timeout` after `SQL_TIMEOUT_MS`.
    pub async fn writer(&self) -> Result<Lease, SqlError> {
        Lane::lease(&self.writer).await
    }

    /// The one connection that writes, if it comes free soon and does not wait for the disk.
    pub async fn writer_soon(&self) -> Result<Option<Lease>, SqlError> {
        if self.writer.role.durability == Durability::Power {
            return Ok(None);
        }
        let places = &self.writer.places;
        let place = match places.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                match tokio::time::timeout(Duration::from_millis(limits::SQLITE_WRITER_WAIT_MS), places.clone().acquire_owned()).await {
                    Ok(place) => place.map_err(|_| closed())?,
                    Err(_) => return Ok(None),
                }
            }
        };
        Lane::lend(&self.writer, place).map(Some)
    }

    /// A connection that only reads. Errors: `Timeout` after `SQL_TIMEOUT_MS`.
    pub async fn reader(&self) -> Result<Lease, SqlError> {
        Lane::lease(&self.readers).await
    }

    /// Forgets what was prepared, everywhere: the shape of a table has changed.
    pub async fn forget_statements(&self) -> Result<(), SqlError> {
        for lane in [&self.writer, &self.readers] {
            let mut leases = Vec::new();
            for _ in 0..lane.size {
                leases.push(Lane::lease(lane).await?);
            }
            for lease in &mut leases {
                lease.link()?.connection.flush_prepared_statement_cache();
            }
        }
        Ok(())
    }

    /// Waits for who is at work and closes the connections, the writer last, so that it folds the log into the file.
    pub async fn close(&self) {
        self.closing.cancel();
        for lane in [&self.readers, &self.writer] {
            // All places are ours when nobody is at work; who takes longer than a statement may is not waited for.
            let all = lane.places.acquire_many(lane.size as u32);
            drop(tokio::time::timeout(Duration::from_millis(limits::SQL_TIMEOUT_MS), all).await);
            lane.places.close();
        }
        self.keeper.close();
        self.keeper.wait().await;
        for lane in [&self.readers, &self.writer] {
            let links = std::mem::take(&mut *lane.idle.lock());
            // Folding and flushing take as long as the disk does.
            let closed = tokio::task::spawn_blocking(move || links.into_iter().for_each(Link::close));
            closed.await.unwrap_or_else(|error| tracing::warn!(%error, "database connections did not close cleanly"));
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// What a connection is for.
pub(super) struct Role {
    pub(super) path: PathBuf,
    pub(super) durability: Durability,
    pub(super) writes: bool,
}

/// Connections of one kind.
pub(super) struct Lane {
    role: Role,
    size: usize,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Link>>,
    /// How often one was lent.
    pub(super) leases: AtomicU64,
}

impl Lane {
    pub(super) fn open(role: Role, size: usize) -> Result<Arc<Self>, SqlError> {
        let links = (0..size).map(|_| Link::open(&role)).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { role, size, places: Arc::new(Semaphore::new(size)), idle: Mutex::new(links), leases: AtomicU64::new(0) }))
    }

    pub(super) async fn lease(lane: &Arc<Self>) -> Result<Lease, SqlError> {
        let place = match lane.places.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => tokio::time::timeout(Duration::from_millis(limits::SQL_TIMEOUT_MS), lane.places.clone().acquire_owned())
                .await
                .map_err(|_| SqlError::new(ErrorClass::Timeout, "the database is busy"))?
                .map_err(|_| closed())?,
        };
        Self::lend(lane, place)
    }

    fn lend(lane: &Arc<Self>, place: OwnedSemaphorePermit) -> Result<Lease, SqlError> {
        if lane.places.is_closed() {
            return Err(closed());
        }
        lane.leases.fetch_add(1, Ordering::Relaxed);
        let link = lane.idle.lock().pop();
        let link = match link {
            Some(link) => link,
            // Its predecessor broke.
            None => Link::open(&lane.role)?,
        };
        Ok(Lease { link: Some(link), lane: lane.clone(), open: false, _place: place })
    }
}

fn closed() -> SqlError {
    SqlError::new(ErrorClass::Unavailable, "the database is closed")
}

/// Another process has the file: SQLite is told to take it for this one alone (see `log_file`).
fn in_use(path: &Path) -> SqlError {
    let file = path.display();
    let message = format!(
        "{file} is in use by another process; a data folder serves one host at a time: end that one, or give another folder (--data)"
    );
    SqlError::new(ErrorClass::Unavailable, message)
}

pub(super) struct Link {
    pub(super) connection: Connection,
    watch: Arc<Watch>,
    /// Every commit waits for the disk.
    flushes: bool,
}

impl Link {
    pub(super) fn open(role: &Role) -> Result<Self, SqlError> {
        let file_system = match role.durability {
            Durability::Process => log_file::file_system(),
            Durability::Power => log_file::base(),
        };
        let connection = match file_system {
            Some(file_system) => Connection::open_with_flags_and_vfs(&role.path, OpenFlags::default(), file_system),
            None => Connection::open(&role.path),
        };
        let connection = connection.map_err(errors::from_rusqlite)?;
        let watch = Arc::new(Watch::default());
        let configured = || -> rusqlite::Result<()> {
            connection.busy_timeout(Duration::from_millis(limits::SQL_TIMEOUT_MS))?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", if role.durability == Durability::Power { "FULL" } else { "NORMAL" })?;
            connection.pragma_update(None, "foreign_keys", true)?;
            connection.pragma_update(None, "trusted_schema", false)?;
            // What is deleted or overwritten is zeroed in its page.
            connection.pragma_update(None, "secure_delete", true)?;
            // Only where the keeper does not keep up: the writer itself would wait for the disk.
            connection.pragma_update(None, "wal_autocheckpoint", limits::SQLITE_LOG_PAGES_MAX)?;
            if role.writes {
                connection.pragma_update(None, "cache_size", limits::SQLITE_WRITER_PAGES)?;
            }
            connection.pragma_update(None, "hard_heap_limit", limits::SQLITE_HEAP_BYTES_MAX as i64)?;
            connection.pragma_update(None, "query_only", !role.writes)?;
            // A kept statement keeps its plan, instead of being prepared anew for other parameters.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            connection.set_prepared_statement_cache_capacity(limits::SQLITE_STATEMENTS_KEPT);
            for (limit, value) in [
                (Limit::SQLITE_LIMIT_LENGTH, limits::SQL_VALUE_BYTES_MAX),
                (Limit::SQLITE_LIMIT_SQL_LENGTH, 2 * limits::SQL_STATEMENT_BYTES_MAX),
                (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, limits::SQL_PARAMS_MAX),
                (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
                (Limit::SQLITE_LIMIT_ATTACHED, 0),
                (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
            ] {
                connection.set_limit(limit, value as i32)?;
            }
            let watch = watch.clone();
            connection.progress_handler(limits::SQLITE_STEPS_PER_CHECK, Some(move || watch.is_over()))
        };
        configured().map_err(|error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy) => in_use(&role.path),
            _ => errors::from_rusqlite(error),
        })?;
        Ok(Self { connection, watch, flushes: role.writes && role.durability == Durability::Power })
    }

    fn run(
        &self,
        script: &Script,
        params: &Params,
        visit: &mut impl FnMut(&Row<'_>) -> Result<bool, SqlError>,
    ) -> Result<Vec<u64>, SqlError> {
        let mut changed = Vec::with_capacity(script.statements.len());
        for text in script.statements.iter() {
            let goes_on = if script.keep {
                step(&mut *self.prepare(text)?, text, params, visit)?
            } else {
                let mut statement = self.connection.prepare(&text.sql).map_err(errors::from_rusqlite)?;
                step(&mut statement, text, params, visit)?
            };
            if !goes_on {
                break;
            }
            changed.push(self.connection.changes());
        }
        Ok(changed)
    }

    fn run_rows(&self, text: &Text, rows: &[Params]) -> Result<(), SqlError> {
        let mut statement = self.prepare(text)?;
        rows.iter().try_for_each(|row| step(&mut statement, text, row, &mut |_| Ok(true)).map(drop))
    }

    fn prepare(&self, text: &Text) -> Result<CachedStatement<'_>, SqlError> {
        self.connection.prepare_cached(&text.sql).map_err(errors::from_rusqlite)
    }

    /// Rolls back what is open.
    fn clean(&self) -> rusqlite::Result<()> {
        self.watch.begin(Duration::from_millis(limits::SQL_MIGRATION_TIMEOUT_MS));
        // Not open: SQLite rolled back by itself, or the commit had gone through.
        if self.connection.is_autocommit() { Ok(()) } else { self.connection.execute_batch("ROLLBACK") }
    }

    pub(super) fn close(self) {
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "a database connection did not close cleanly");
        }
    }
}

/// One statement to its end; false where `visit` wants no more.
fn step(
    statement: &mut Statement<'_>,
    text: &Text,
    params: &Params,
    visit: &mut impl FnMut(&Row<'_>) -> Result<bool, SqlError>,
) -> Result<bool, SqlError> {
    text.bind(params, statement)?;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(errors::from_rusqlite)? {
        if !visit(row)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Looks at the time while a statement runs.
struct Watch {
    began: Instant,
    /// How often SQLite has asked.
    checks: AtomicU64,
    /// When the running statement is ended, and when it gives its thread's other work away; in microseconds since `began`.
    deadline_us: AtomicU64,
    gives_way_us: AtomicU64,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            checks: AtomicU64::new(0),
            deadline_us: AtomicU64::new(u64::MAX),
            gives_way_us: AtomicU64::new(u64::MAX),
        }
    }
}

impl Watch {
    fn begin(&self, time: Duration) {
        let now_us = self.began.elapsed().as_micros() as u64;
        self.deadline_us.store(now_us + time.as_micros() as u64, Ordering::Relaxed);
        self.gives_way_us.store(now_us + limits::SQLITE_GIVES_WAY_US, Ordering::Relaxed);
    }

    /// Asked by SQLite every `SQLITE_STEPS_PER_CHECK` steps.
    fn is_over(&self) -> bool {
        self.checks.fetch_add(1, Ordering::Relaxed);
        let now_us = self.began.elapsed().as_micros() as u64;
        if now_us >= self.gives_way_us.load(Ordering::Relaxed) {
            self.gives_way_us.store(u64::MAX, Ordering::Relaxed);
            give_way();
        }
        now_us >= self.deadline_us.load(Ordering::Relaxed)
    }
}

/// The other tasks of this thread go on elsewhere; where there are none (tests with a single thread) there is nothing to give.
fn give_way() {
    let Ok(runtime) = Handle::try_current() else { return };
    if runtime.runtime_flavor() != RuntimeFlavor::MultiThread {
        return;
    }
    tokio::task::block_in_place(|| {
        // Who comes back before another thread has taken them over takes them back: so a task says when one runs.
        let (says, hears) = std::sync::mpsc::sync_channel(1);
        runtime.spawn(async move { says.try_send(()) });
        // Where no thread can be had, nothing is gained by waiting on.
        let _ = hears.recv_timeout(Duration::from_millis(limits::SQLITE_HANDOVER_MS));
    });
}

/// A connection lent to one user. Dropping it gives it back, rolled back first where something is still open.
pub struct Lease {
    link: Option<Link>,
    lane: Arc<Lane>,
    open: bool,
    /// Given back after the connection: the fields of a struct are dropped after it.
    _place: OwnedSemaphorePermit,
}

impl Lease {
    /// From now on a transaction may be open: to be rolled back unless `ended` is called.
    pub fn opened(&mut self) {
        self.open = true;
    }

    /// The transaction has been committed or rolled back.
    pub fn ended(&mut self) {
        self.open = false;
    }

    /// Runs a script; the changed rows of each of its statements. Rows that come are dropped.
    pub async fn run(&mut self, script: &Script, params: Params) -> Result<Vec<u64>, SqlError> {
        self.each(script, params, |_| Ok(true)).await
    }

    /// Runs a script's statements, each for every row of parameters.
    pub async fn run_rows(&mut self, script: &Script, rows: &[Params]) -> Result<(), SqlError> {
        tokio::task::coop::consume_budget().await;
        for text in script.statements.iter() {
            for (number, some) in rows.chunks(limits::SQLITE_ROWS_AT_ONCE).enumerate() {
                if number > 0 {
                    tokio::task::yield_now().await;
                }
                self.start(limits::SQL_TIMEOUT_MS)?.run_rows(text, some)?;
            }
        }
        Ok(())
    }

    /// Runs a script and shows every row to `visit` until that says false (what is left of the script is then not run).
    pub async fn each(
        &mut self,
        script: &Script,
        params: Params,
        mut visit: impl FnMut(&Row<'_>) -> Result<bool, SqlError> + Send,
    ) -> Result<Vec<u64>, SqlError> {
        // Who runs many statements lets others have their turn.
        tokio::task::coop::consume_budget().await;
        let link = self.start(limits::SQL_TIMEOUT_MS)?;
        link.run(script, &params, &mut visit)
    }

    /// Runs a text of any number of statements without parameters, each within `time`.
    pub async fn run_text(&mut self, sql: &str, time: Duration) -> Result<(), SqlError> {
        let link = self.start(time.as_millis() as u64)?;
        link.connection.execute_batch(sql).map_err(errors::from_rusqlite)
    }

    /// For `effort_since`.
    pub fn begun(&self) -> (Instant, u64) {
        (Instant::now(), self.checks())
    }

    pub fn effort_since(&self, (began_at, checks): (Instant, u64)) -> Effort {
        Effort { checks: self.checks() - checks, took: began_at.elapsed() }
    }

    fn checks(&self) -> u64 {
        self.link.as_ref().map_or(0, |link| link.watch.checks.load(Ordering::Relaxed))
    }

    fn start(&mut self, time_ms: u64) -> Result<&mut Link, SqlError> {
        let link = self.link()?;
        if link.flushes {
            give_way();
        }
        link.watch.begin(Duration::from_millis(time_ms));
        Ok(link)
    }

    fn link(&mut self) -> Result<&mut Link, SqlError> {
        self.link.as_mut().ok_or_else(closed)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        if self.open
            && let Err(error) = link.clean()
        {
            tracing::error!(%error, "a database connection is lost; the next user opens a new one");
            return;
        }
        self.lane.idle.lock().push(link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::atomic::AtomicBool;

    const ENDLESS: &str = "CREATE TABLE t AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i < 0";

    async fn file(folder: &tempfile::TempDir) -> File {
        File::open(&folder.path().join("a.sqlite"), Durability::default()).await.expect("opens")
    }

    /// One thread for all tasks: what it does not give away stands still.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_long_statement_gives_the_other_tasks_of_its_thread_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = file(&folder).await;
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = is_over.clone();
        let statement = tokio::spawn(async move {
            let mut writer = file.writer().await.expect("the writer");
            let outcome = writer.run_text(ENDLESS, Duration::from_secs(2)).await;
            seen.store(true, Ordering::SeqCst);
            outcome
        });
        let mut turns = 0;
        let other = tokio::spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                turns += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            turns
        });
        assert_eq!(statement.await.expect("no panic").expect_err("it has no end").class, ErrorClass::Timeout);
        let turns = other.await.expect("no panic");
        assert!(turns > 20, "the other task had {turns} turns in two seconds");
    }

    #[tokio::test]
    async fn what_is_left_open_is_rolled_back_before_the_next_user() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = file(&folder).await;
        let mut writer = file.writer().await.expect("the writer");
        writer.run(&Script::new("CREATE TABLE t (a)"), Params::default()).await.expect("creates");
        writer.opened();
        let script = Script::all(["BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)"]);
        writer.run(&script, Params::default()).await.expect("inserts");
        drop(writer);
        let mut writer = file.writer().await.expect("the writer");
        let mut rows = 0;
        let count = |_: &Row<'_>| {
            rows += 1;
            Ok(true)
        };
        writer.each(&Script::new("SELECT a FROM t"), Params::default(), count).await.expect("reads");
        assert_eq!(rows, 0);
    }

    #[tokio::test]
    async fn a_read_waits_for_the_writer_a_little_and_no_longer() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = file(&folder).await;
        assert!(file.writer_soon().await.expect("an answer").is_some(), "nobody has it");
        let busy = file.writer().await.expect("the writer");
        assert!(file.writer_soon().await.expect("an answer").is_none(), "somebody has it");
        let (soon, ()) = tokio::join!(file.writer_soon(), async move { drop(busy) });
        assert!(soon.expect("an answer").is_some(), "it has come free");
    }

    #[tokio::test]
    async fn effort_is_counted_in_steps() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = file(&folder).await;
        let mut writer = file.writer().await.expect("the writer");
        for (rows, is_quick) in [(1, true), (100_000, false)] {
            let begun = writer.begun();
            let sql = format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {rows}) SELECT max(i) FROM n");
            writer.run(&Script::new(sql), Params::default()).await.expect("counts");
            assert_eq!(writer.effort_since(begun).checks <= limits::SQLITE_QUICK_CHECKS, is_quick, "{rows} rows");
        }
    }
}
