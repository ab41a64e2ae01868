//! One SQLite file: a single writer and a few readers, each lent to one user at a time, in turn. Whatever becomes of the user
//! (an error, a time-out, a future dropped in the middle of a statement), the next one finds a connection with nothing open.
//! Knows nothing of services, outboxes or guests.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use parking_lot::Mutex;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Either, Executor, Row};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::errors;
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

/// Text to run and how many statements it holds.
#[derive(Clone)]
pub struct Script {
    pub sql: Arc<str>,
    pub statements: usize,
    /// Worth keeping prepared.
    pub keep: bool,
}

impl Script {
    /// Several statements in one go to the connection's thread.
    pub fn new(sql: impl Into<Arc<str>>, statements: usize) -> Self {
        Self { sql: sql.into(), statements, keep: true }
    }
}

/// An open file. Cheap to share by `Arc`.
pub struct File {
    writer: Arc<Lane>,
    readers: Arc<Lane>,
    repairs: TaskTracker,
    closing: CancellationToken,
}

impl File {
    pub async fn open(path: &Path, durability: Durability) -> Result<Self, SqlError> {
        let synchronous = match durability {
            Durability::Process => SqliteSynchronous::Normal,
            Durability::Power => SqliteSynchronous::Full,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous)
            .foreign_keys(true)
            .busy_timeout(Duration::from_millis(limits::SQL_TIMEOUT_MS))
            .statement_cache_capacity(limits::SQLITE_STATEMENTS_KEPT)
            .row_buffer_size(limits::SQLITE_ROWS_AHEAD)
            .pragma("trusted_schema", "OFF")
            // Only where the keeper does not keep up: the writer itself would wait for the disk.
            .pragma("wal_autocheckpoint", limits::SQLITE_LOG_PAGES_MAX.to_string())
            .pragma("hard_heap_limit", limits::SQLITE_HEAP_BYTES_MAX.to_string())
            .disable_statement_logging();
        let repairs = TaskTracker::new();
        // The writer first: it makes the file.
        let writer = Lane::open(options.clone(), 1, &repairs).await?;
        let readers = Lane::open(options.clone().pragma("query_only", "ON"), limits::SQLITE_READERS as usize, &repairs).await?;
        let closing = CancellationToken::new();
        // Owned by the file: `close` ends it, and so does dropping the file.
        let keeper = Link::open(&options).await?;
        repairs.spawn(keep_log_short(keeper, writer.clone(), closing.clone()));
        Ok(Self { writer, readers, repairs, closing })
    }

    /// The one connection that writes. Errors: `Timeout` after `SQL_TIMEOUT_MS`.
    pub async fn writer(&self) -> Result<Lease, SqlError> {
        Lane::lease(&self.writer).await
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
            for mut lease in leases {
                lease.link()?.connection.clear_cached_statements().await.map_err(errors::from_sqlx)?;
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
        self.repairs.close();
        self.repairs.wait().await;
        for lane in [&self.readers, &self.writer] {
            let links = std::mem::take(&mut *lane.idle.lock());
            for link in links {
                if let Err(error) = link.connection.close().await {
                    tracing::warn!(%error, "a database connection did not close cleanly");
                }
            }
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// Folds the write-ahead log into the file while others work: the flush to the disk that this takes would else stop the writer.
async fn keep_log_short(mut keeper: Link, writer: Arc<Lane>, closing: CancellationToken) {
    let mut seen = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(limits::SQLITE_LOG_TICK_MS));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while closing.run_until_cancelled(tick.tick()).await.is_some() {
        let leases = writer.leases.load(Ordering::Relaxed);
        if leases == seen {
            continue;
        }
        seen = leases;
        match checkpoint(&mut keeper.connection).await {
            // Writers were faster, so the log goes on growing. What is left of it is little: done with the writer at rest, it begins anew.
            Ok((pages, folded)) if folded < pages && pages > limits::SQLITE_LOG_PAGES => {
                let Ok(mut lease) = Lane::lease(&writer).await else { continue };
                let Ok(link) = lease.link() else { continue };
                if let Err(error) = checkpoint(&mut link.connection).await {
                    tracing::warn!(%error, "the write-ahead log could not be folded");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the write-ahead log could not be folded"),
        }
    }
    if let Err(error) = keeper.connection.close().await {
        tracing::warn!(%error, "a database connection did not close cleanly");
    }
}

/// Pages in the log, and how many of them are in the file now.
async fn checkpoint(connection: &mut SqliteConnection) -> Result<(i64, i64), sqlx::Error> {
    let row = connection.fetch_one("PRAGMA wal_checkpoint(PASSIVE)").await?;
    Ok((row.try_get(1)?, row.try_get(2)?))
}

/// Connections of one kind.
struct Lane {
    options: SqliteConnectOptions,
    size: usize,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Link>>,
    /// How often one was lent.
    leases: AtomicU64,
    repairs: TaskTracker,
    runtime: Handle,
}

struct Link {
    connection: SqliteConnection,
    watch: Arc<Watch>,
}

/// Until when the running statement may run.
struct Watch {
    begin: Instant,
    deadline_us: AtomicU64,
}

impl Watch {
    fn allow(&self, time: Duration) {
        self.deadline_us.store((self.begin.elapsed() + time).as_micros() as u64, Ordering::Relaxed);
    }

    fn interrupt(&self) {
        self.deadline_us.store(0, Ordering::Relaxed);
    }

    fn may_go_on(&self) -> bool {
        (self.begin.elapsed().as_micros() as u64) < self.deadline_us.load(Ordering::Relaxed)
    }
}

impl Lane {
    async fn open(options: SqliteConnectOptions, size: usize, repairs: &TaskTracker) -> Result<Arc<Self>, SqlError> {
        let mut links = Vec::with_capacity(size);
        for _ in 0..size {
            links.push(Link::open(&options).await?);
        }
        Ok(Arc::new(Self {
            options,
            size,
            places: Arc::new(Semaphore::new(size)),
            idle: Mutex::new(links),
            leases: AtomicU64::new(0),
            repairs: repairs.clone(),
            runtime: Handle::current(),
        }))
    }

    async fn lease(lane: &Arc<Self>) -> Result<Lease, SqlError> {
        let place = match lane.places.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => tokio::time::timeout(Duration::from_millis(limits::SQL_TIMEOUT_MS), lane.places.clone().acquire_owned())
                .await
                .map_err(|_| SqlError::new(ErrorClass::Timeout, "the database is busy"))?
                .map_err(|_| closed())?,
        };
        if lane.places.is_closed() {
            return Err(closed());
        }
        lane.leases.fetch_add(1, Ordering::Relaxed);
        let link = lane.idle.lock().pop();
        let link = match link {
            Some(link) => link,
            // Its predecessor broke.
            None => Link::open(&lane.options).await?,
        };
        Ok(Lease { link: Some(link), place: Some(place), lane: lane.clone(), running: false, open: false })
    }
}

fn closed() -> SqlError {
    SqlError::new(ErrorClass::Unavailable, "the database is closed")
}

impl Link {
    async fn open(options: &SqliteConnectOptions) -> Result<Self, SqlError> {
        let mut connection = options.connect().await.map_err(errors::from_sqlx)?;
        let watch = Arc::new(Watch { begin: Instant::now(), deadline_us: AtomicU64::new(u64::MAX) });
        let mut handle = connection.lock_handle().await.map_err(errors::from_sqlx)?;
        let seen = watch.clone();
        handle.set_progress_handler(limits::SQLITE_STEPS_PER_CHECK, move || seen.may_go_on());
        for (limit, value) in [
            (libsqlite3_sys::SQLITE_LIMIT_LENGTH, limits::SQL_VALUE_BYTES_MAX),
            (libsqlite3_sys::SQLITE_LIMIT_SQL_LENGTH, 2 * limits::SQL_STATEMENT_BYTES_MAX),
            (libsqlite3_sys::SQLITE_LIMIT_VARIABLE_NUMBER, limits::SQL_PARAMS_MAX),
            (libsqlite3_sys::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
            (libsqlite3_sys::SQLITE_LIMIT_ATTACHED, 0),
            (libsqlite3_sys::SQLITE_LIMIT_WORKER_THREADS, 0),
        ] {
            // SAFETY: the handle is live and locked; `sqlite3_limit` only stores a number in it.
            unsafe { libsqlite3_sys::sqlite3_limit(handle.as_raw_handle().as_ptr(), limit, value as i32) };
        }
        drop(handle);
        Ok(Self { connection, watch })
    }

    /// Ends what is running and rolls back what is open.
    async fn clean(&mut self, running: bool, open: bool) -> Result<(), sqlx::Error> {
        if running {
            self.watch.interrupt();
            // Answered only after the interrupted statement has ended: one thread does both.
            self.connection.ping().await?;
        }
        self.watch.allow(Duration::from_secs(3_600));
        if open {
            match self.connection.execute("ROLLBACK").await {
                // "no transaction is active": SQLite rolled back by itself, or the commit had gone through.
                Ok(_) | Err(sqlx::Error::Database(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A connection lent to one user. Dropping it gives it back, cleaned first where something is still running or open.
pub struct Lease {
    link: Option<Link>,
    place: Option<OwnedSemaphorePermit>,
    lane: Arc<Lane>,
    running: bool,
    open: bool,
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
    pub async fn run(&mut self, script: &Script, params: SqliteArguments) -> Result<Vec<u64>, SqlError> {
        self.each(script, params, Duration::from_millis(limits::SQL_TIMEOUT_MS), |_| Ok(true)).await
    }

    /// Runs a script and shows every row to `visit` until that says false (what is left of the script is then not run).
    pub async fn each(
        &mut self,
        script: &Script,
        params: SqliteArguments,
        time: Duration,
        mut visit: impl FnMut(&SqliteRow) -> Result<bool, SqlError> + Send,
    ) -> Result<Vec<u64>, SqlError> {
        let link = self.start(time)?;
        let mut answers = link.connection.fetch_many(query(script, params));
        let mut changed = Vec::with_capacity(script.statements.min(8));
        let run = async {
            while changed.len() < script.statements {
                match answers.try_next().await.map_err(Failure::of_statement)? {
                    Some(Either::Right(row)) if visit(&row).map_err(Failure::Midway)? => {}
                    Some(Either::Right(_)) => return Ok(Progress::Midway),
                    Some(Either::Left(done)) => changed.push(done.rows_affected()),
                    None => break,
                }
            }
            Ok(Progress::Ended)
        };
        let outcome = bounded(time, run).await;
        drop(answers);
        self.running = !matches!(outcome, Ok(Progress::Ended) | Err(Failure::Ended(_)));
        outcome?;
        Ok(changed)
    }

    /// The first row; the statement ends there.
    pub async fn first(&mut self, script: &Script, params: SqliteArguments) -> Result<Option<SqliteRow>, SqlError> {
        let time = Duration::from_millis(limits::SQL_TIMEOUT_MS);
        let link = self.start(time)?;
        let run = async { link.connection.fetch_optional(query(script, params)).await.map_err(Failure::of_statement) };
        let outcome = bounded(time, run).await;
        self.running = !matches!(outcome, Ok(_) | Err(Failure::Ended(_)));
        Ok(outcome?)
    }

    /// From here on the connection counts as busy, should the future be dropped.
    fn start(&mut self, time: Duration) -> Result<&mut Link, SqlError> {
        self.running = true;
        let link = self.link()?;
        link.watch.allow(time);
        Ok(link)
    }

    fn link(&mut self) -> Result<&mut Link, SqlError> {
        self.link.as_mut().ok_or_else(closed)
    }
}

fn query(script: &Script, params: SqliteArguments) -> sqlx::query::Query<'static, sqlx::Sqlite, SqliteArguments> {
    sqlx::query_with(AssertSqlSafe(script.sql.clone()), params).persistent(script.keep)
}

enum Progress {
    Ended,
    Midway,
}

/// Whether the connection's thread has come to the end of the statement.
enum Failure {
    Ended(SqlError),
    Midway(SqlError),
}

impl Failure {
    fn of_statement(error: sqlx::Error) -> Self {
        match error {
            error @ sqlx::Error::Database(_) => Failure::Ended(errors::from_sqlx(error)),
            // The thread is gone, or the answer was not understood.
            error => Failure::Midway(errors::from_sqlx(error)),
        }
    }
}

impl From<Failure> for SqlError {
    fn from(failure: Failure) -> Self {
        let (Failure::Ended(error) | Failure::Midway(error)) = failure;
        error
    }
}

/// The connection's own watch comes first; this one holds where its thread itself is stuck.
async fn bounded<T>(time: Duration, run: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(time + Duration::from_millis(100), run).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::Midway(SqlError::new(ErrorClass::Timeout, "the statement took too long"))),
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (Some(mut link), place, lane) = (self.link.take(), self.place.take(), self.lane.clone()) else { return };
        if !self.running && !self.open {
            lane.idle.lock().push(link);
            drop(place);
            return;
        }
        let (running, open, runtime) = (self.running, self.open, lane.runtime.clone());
        let repairs = lane.repairs.clone();
        // Owned by the file (`repairs`), ends with the interrupted statement. The place is given back after it, not before.
        repairs.spawn_on(
            async move {
                match link.clean(running, open).await {
                    Ok(()) => lane.idle.lock().push(link),
                    Err(error) => tracing::error!(%error, "a database connection is lost; the next user opens a new one"),
                }
                drop(place);
            },
            &runtime,
        );
    }
}
