//! One SQLite file: a single writer and a few readers, each lent to one user at a time, in turn. Whatever becomes of the user (an error, a
//! time-out, a future dropped in the middle of a transaction), the next one finds a connection with nothing open.
//!
//! The host's statements, and a service's that were quick so far, run in place, on the thread that asks: going to a thread of their own and back
//! costs several times what most of them do (host/docs/adr/0013-sqlite-runs-in-place.md). A service's other statements run on threads of its own
//! (`workers`), where their asker waits for them no longer than their time, whatever they do (host/docs/adr/0002-one-database-file-and-one-writer-per-service.md).
//! Knows nothing of outboxes or guests.

mod log;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{CachedStatement, Connection, InterruptHandle, OpenFlags, Statement};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::guard::{Checked, Effort};
use super::keeper::Keeper;
use super::script::{Script, Text};
use super::values::{Params, Row};
use super::watch::{Speaker, Watch, give_way};
use super::workers::Workers;
use super::{errors, functions, log_file};
use crate::capabilities::sql::{ErrorClass, SqlError};
use crate::{limits, priority};

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
        Self::open_within(path, durability, None).await
    }

    /// One that never grows beyond so many bytes: what would make it fails with `Unavailable` and the SQLSTATE of a full disk (53100).
    pub async fn open_within(path: &Path, durability: Durability, bytes_max: Option<u64>) -> Result<Self, SqlError> {
        // The writer first: it makes the file.
        let workers = Workers::new(&path.file_stem().unwrap_or_default().to_string_lossy());
        let writer = Lane::open(Role { path: path.to_owned(), durability, writes: true, bytes_max }, 1, workers.clone())?;
        let readers = Lane::open(
            Role { path: path.to_owned(), durability, writes: false, bytes_max: None },
            limits::SQLITE_READERS as usize,
            workers,
        )?;
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
                lease.held()?.link()?.connection.flush_prepared_statement_cache();
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
    /// The largest that the file may become.
    pub(super) bytes_max: Option<u64>,
}

/// Connections of one kind.
pub(super) struct Lane {
    role: Role,
    size: usize,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Link>>,
    /// The file's threads for statements that take long.
    workers: Arc<Workers>,
    /// How often one was lent.
    pub(super) leases: AtomicU64,
}

impl Lane {
    pub(super) fn open(role: Role, size: usize, workers: Arc<Workers>) -> Result<Arc<Self>, SqlError> {
        let links = (0..size).map(|_| Link::open(&role)).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self {
            role,
            size,
            places: Arc::new(Semaphore::new(size)),
            idle: Mutex::new(links),
            workers,
            leases: AtomicU64::new(0),
        }))
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
        Ok(Lease { held: Some(Held { link: Some(link), lane: lane.clone(), open: false, _place: place }) })
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
    /// Ends what runs at the next step at which SQLite looks, also where it asks nobody (counting a table).
    interrupt: Arc<InterruptHandle>,
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
            // A log that grew beyond this is cut when it restarts.
            connection.pragma_update(None, "journal_size_limit", limits::SQLITE_LOG_KEPT_BYTES)?;
            if role.writes {
                connection.pragma_update(None, "cache_size", limits::SQLITE_WRITER_PAGES)?;
            }
            if let Some(bytes_max) = role.bytes_max {
                // SQLite says what holds now: never less than the file has already.
                let pages_max = (bytes_max / limits::SQLITE_PAGE_BYTES).min(u64::from(u32::MAX) - 1) as i64;
                connection.pragma_update_and_check(None, "max_page_count", pages_max, |_| Ok(()))?;
            }
            connection.pragma_update(None, "hard_heap_limit", limits::SQLITE_HEAP_BYTES_MAX as i64)?;
            connection.pragma_update(None, "query_only", !role.writes)?;
            // A kept statement keeps its plan, instead of being prepared anew for other parameters.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            connection.set_prepared_statement_cache_capacity(limits::SQLITE_STATEMENTS_KEPT);
            for (limit, value) in [
                (Limit::SQLITE_LIMIT_LENGTH, Speaker::Host.value_bytes_max()),
                (Limit::SQLITE_LIMIT_SQL_LENGTH, 2 * limits::SQL_STATEMENT_BYTES_MAX),
                (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, limits::SQL_PARAMS_MAX),
                (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, limits::SQL_LIKE_PATTERN_BYTES_MAX),
                (Limit::SQLITE_LIMIT_EXPR_DEPTH, limits::SQL_EXPRESSION_DEPTH_MAX),
                (Limit::SQLITE_LIMIT_COMPOUND_SELECT, limits::SQL_UNION_PARTS_MAX),
                (Limit::SQLITE_LIMIT_ATTACHED, 0),
                (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
            ] {
                connection.set_limit(limit, value as i32)?;
            }
            functions::install(&connection, &watch)?;
            let watch = watch.clone();
            connection.progress_handler(limits::SQLITE_STEPS_PER_CHECK, Some(move || watch.is_over()))
        };
        configured().map_err(|error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy) => in_use(&role.path),
            _ => errors::from_rusqlite(error),
        })?;
        let interrupt = Arc::new(connection.get_interrupt_handle());
        Ok(Self { connection, watch, interrupt, flushes: role.writes && role.durability == Durability::Power })
    }

    /// From now on statements run in this name.
    fn speak(&self, speaker: Speaker) -> Result<(), SqlError> {
        let before = self.watch.speaker();
        if before != speaker {
            if before.value_bytes_max() != speaker.value_bytes_max() {
                let length = speaker.value_bytes_max() as i32;
                self.connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, length).map_err(errors::from_rusqlite)?;
            }
            self.watch.speaker.store(speaker as u8, Ordering::Relaxed);
        }
        Ok(())
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

    fn checks(&self) -> u64 {
        self.watch.checks.load(Ordering::Relaxed)
    }

    /// Rolls back what is open.
    fn clean(&self) -> rusqlite::Result<()> {
        self.watch.is_cancelled.store(false, Ordering::Relaxed);
        self.watch.begin(Duration::from_millis(limits::SQL_MIGRATION_TIMEOUT_MS), false);
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

/// Ends what runs on a connection when its asker is gone.
struct Asker {
    watch: Arc<Watch>,
    interrupt: Arc<InterruptHandle>,
    is_answered: bool,
}

impl Drop for Asker {
    fn drop(&mut self) {
        if !self.is_answered {
            self.watch.is_cancelled.store(true, Ordering::Relaxed);
            self.interrupt.interrupt();
        }
    }
}

/// What a service's statement gives, row by row.
pub trait Visit: Default + Send + 'static {
    /// False where no more rows are wanted.
    fn row(&mut self, row: &Row<'_>) -> Result<bool, SqlError>;
}

/// A connection lent to one user. Dropping it gives it back, rolled back first where something is still open.
pub struct Lease {
    /// None while a thread works with it that was not waited for any longer: that one gives it back.
    held: Option<Held>,
}

struct Held {
    link: Option<Link>,
    lane: Arc<Lane>,
    open: bool,
    /// Given back after the connection: the fields of a struct are dropped after it.
    _place: OwnedSemaphorePermit,
}

impl Lease {
    /// From now on a transaction may be open: to be rolled back unless `ended` is called.
    pub fn opened(&mut self) {
        self.set_open(true);
    }

    /// The transaction has been committed or rolled back.
    pub fn ended(&mut self) {
        self.set_open(false);
    }

    fn set_open(&mut self, open: bool) {
        if let Some(held) = &mut self.held {
            held.open = open;
        }
    }

    /// Runs a script of the host; the changed rows of each of its statements. Rows that come are dropped.
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
                self.start()?.run_rows(text, some)?;
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
        let link = self.start()?;
        link.run(script, &params, &mut visit)
    }

    /// Runs a service's statement; `script` is the statement itself or its opening form. In place where it was quick so far and can be begun again, or
    /// cannot run for long without data; else, and when it turns out to take long, on a thread of the service's own.
    /// Errors: `Timeout` after `SQL_TIMEOUT_MS`, whatever the statement does; the transaction is then lost.
    pub async fn run_checked<V: Visit>(&mut self, script: &Script, checked: &Checked, params: Params) -> Result<(V, Vec<u64>), SqlError> {
        tokio::task::coop::consume_budget().await;
        let link = self.held()?.link()?;
        link.speak(if checked.is_recursive { Speaker::RecursiveService } else { Speaker::Service })?;
        let was_open = !link.connection.is_autocommit();
        // Ending a change in the middle of a transaction would roll all of it back.
        let begins_again = checked.reads || !was_open;
        let time = Duration::from_millis(limits::SQL_TIMEOUT_MS);
        if checked.haste.is_quick() && !checked.is_linear && !priority::is_low() && (begins_again || !checked.is_recursive) {
            if link.flushes {
                give_way();
            }
            let (started, before) = (Instant::now(), link.checks());
            link.watch.begin(time, begins_again);
            let mut visitor = V::default();
            let outcome = link.run(script, &params, &mut |row| visitor.row(row));
            checked.haste.note(Effort { checks: link.checks() - before, took: started.elapsed() });
            if outcome.is_ok() || !link.watch.was_long.load(Ordering::Relaxed) {
                return outcome.map(|changed| (visitor, changed));
            }
            if !was_open && !link.connection.is_autocommit() {
                link.clean().map_err(errors::from_rusqlite)?;
            }
            if was_open && link.connection.is_autocommit() {
                return outcome.map(|changed| (visitor, changed));
            }
        }
        let script = script.clone();
        let (outcome, effort) = self
            .elsewhere(time, move |link| {
                let (began, before) = (cpu_of_this_thread(), link.checks());
                let mut visitor = V::default();
                let outcome = link.run(&script, &params, &mut |row| visitor.row(row));
                let effort = Effort { checks: link.checks() - before, took: cpu_of_this_thread().saturating_sub(began) };
                (outcome.map(|changed| (visitor, changed)), effort)
            })
            .await
            // It took longer than it may: all of its next runs are elsewhere.
            .inspect_err(|_| checked.haste.note(Effort { checks: u64::MAX, took: time }))?;
        checked.haste.note(effort);
        outcome
    }

    /// Runs a text of any number of statements without parameters, all within `time`, on a thread of the file's own.
    #[cfg(test)]
    pub async fn run_text(&mut self, sql: &str, time: Duration) -> Result<(), SqlError> {
        self.run_text_as(Speaker::Host, sql, time).await
    }

    /// As `run_text`, in the name of a service's migration.
    pub async fn run_migration(&mut self, sql: &str, time: Duration) -> Result<(), SqlError> {
        self.run_text_as(Speaker::Migration, sql, time).await
    }

    /// As `run_text`, in the name of a service: a batch of a back-fill does what its statements may.
    pub async fn run_batch(&mut self, sql: &str, time: Duration) -> Result<(), SqlError> {
        self.run_text_as(Speaker::Service, sql, time).await
    }

    async fn run_text_as(&mut self, speaker: Speaker, sql: &str, time: Duration) -> Result<(), SqlError> {
        let sql = sql.to_owned();
        self.held()?.link()?.speak(speaker)?;
        self.elsewhere(time, move |link| link.connection.execute_batch(&sql).map_err(errors::from_rusqlite)).await?
    }

    /// Does the work on a thread of the file's own. Where that does not end in its time, or nobody waits for it any more, the connection goes back when
    /// it does: until then the file has one less.
    async fn elsewhere<T: Send + 'static>(
        &mut self,
        time: Duration,
        work: impl FnOnce(&Link) -> T + Send + 'static,
    ) -> Result<T, SqlError> {
        let mut held = self.held.take().ok_or_else(closed)?;
        let link = held.link()?;
        link.watch.is_cancelled.store(false, Ordering::Relaxed);
        let (watch, interrupt, workers) = (link.watch.clone(), link.interrupt.clone(), held.lane.workers.clone());
        let (answers, mut answer) = oneshot::channel();
        workers.run(Box::new(move || {
            let Ok(link) = held.link() else { return };
            link.watch.begin(time, false);
            let outcome = work(link);
            // Nobody is there any more: the connection goes back, rolled back where something is open.
            drop(answers.send((held, outcome)));
        }))?;
        // Dropped before the channel is: a connection that was given back is never interrupted.
        let mut asker = Asker { watch, interrupt, is_answered: false };
        let answered = tokio::time::timeout(time + Duration::from_millis(limits::SQLITE_ANSWER_MARGIN_MS), &mut answer).await;
        match answered {
            Ok(Ok((held, outcome))) => {
                asker.is_answered = true;
                self.held = Some(held);
                Ok(outcome)
            }
            Ok(Err(_)) => {
                asker.is_answered = true;
                Err(SqlError::new(ErrorClass::Unavailable, "the statement broke off"))
            }
            Err(_) => Err(SqlError {
                sqlstate: Some("57014".to_owned()),
                ..SqlError::new(ErrorClass::Timeout, "the statement does not end in its time; it is left behind")
            }),
        }
    }

    fn start(&mut self) -> Result<&Link, SqlError> {
        let link = self.held()?.link()?;
        if link.flushes {
            give_way();
        }
        link.speak(Speaker::Host)?;
        link.watch.begin(Duration::from_millis(limits::SQL_TIMEOUT_MS), false);
        Ok(link)
    }

    fn held(&mut self) -> Result<&mut Held, SqlError> {
        self.held.as_mut().ok_or_else(|| SqlError::new(ErrorClass::Timeout, "a statement that did not end in its time has the connection"))
    }
}

fn cpu_of_this_thread() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32)
}

impl Held {
    fn link(&mut self) -> Result<&Link, SqlError> {
        self.link.as_ref().ok_or_else(closed)
    }
}

impl Drop for Held {
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
mod tests;
