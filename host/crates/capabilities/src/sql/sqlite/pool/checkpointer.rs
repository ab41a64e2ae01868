//! Keeps a file's write-ahead log (WAL) short: checkpoints it, that is, copies it into the file. That takes flushes to the disk, for which the writer does not
//! wait.
//!
//! A checkpointed WAL still has the pages of its commits, also of rows that were deleted since. So it is truncated now and then: no deleted row is in it
//! `SQLITE_LOG_KEPT_MS` later.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Pool, SqliteConnection};
use crate::sql::{ErrorClass, SqlError};
use echo_base::limits;

/// One file at a time: all are on one disk, and a writer is paused at the end of each checkpoint.
static ONE_AT_A_TIME: Semaphore = Semaphore::const_new(1);

pub struct Checkpointer {
    connection: SqliteConnection,
    /// The database's file, to be flushed. Dropped last: closing it gives up the locks that this process has on the file (POSIX.1-2017, `fcntl`).
    file: Arc<std::fs::File>,
}

impl Checkpointer {
    pub fn open(writer: &Pool) -> Result<Self, SqlError> {
        let unavailable = |error: std::io::Error| SqlError::new(ErrorClass::Unavailable, error.to_string());
        let file = Arc::new(std::fs::File::open(&writer.settings.path).map_err(unavailable)?);
        Ok(Self { connection: SqliteConnection::open(&writer.settings)?, file })
    }

    /// Keeps the locks while the file is open.
    pub fn file(&self) -> Arc<std::fs::File> {
        self.file.clone()
    }

    /// Checkpoints at every tick at which the writer has been checked out, until it is told to close.
    pub async fn run(mut self, writer: Arc<Pool>, closing: CancellationToken) {
        let (mut seen, mut emptied, mut emptied_at) = (0, 0, Instant::now());
        let mut tick = tokio::time::interval(Duration::from_millis(limits::SQLITE_LOG_TICK_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while closing.run_until_cancelled(tick.tick()).await.is_some() {
            let checkouts_count = writer.checkouts_count.load(Ordering::Relaxed);
            let is_to_be_emptied = checkouts_count != emptied && emptied_at.elapsed() >= Duration::from_millis(limits::SQLITE_LOG_KEPT_MS);
            if checkouts_count == seen && !is_to_be_emptied {
                continue;
            }
            seen = checkouts_count;
            let Some(Ok(_turn)) = closing.run_until_cancelled(ONE_AT_A_TIME.acquire()).await else { break };
            let Some((checkpointer, outcome)) = self.checkpoint(&writer, limits::SQLITE_LOG_PASSES_MAX).await else { return };
            self = checkpointer;
            if let Err(error) = outcome {
                tracing::warn!(%error, "the write-ahead log could not be checkpointed");
            }
            if !is_to_be_emptied {
                continue;
            }
            let Some((checkpointer, outcome)) = self.empty(&writer).await else { return };
            self = checkpointer;
            match outcome {
                Ok(true) => (emptied, emptied_at) = (checkouts_count, Instant::now()),
                // A reader, or a long use of the writer, prevents it: the next tick tries again.
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the write-ahead log could not be emptied"),
            }
        }
        self.connection.close();
    }

    /// Checkpoints, and makes a WAL that has grown long restart at its beginning: one that only grows needs new memory for every page. SQLite restarts it when
    /// all of it is checkpointed and nothing was added meanwhile. Beside a busy writer one of many short checkpoints may reach that, or none; then the writer
    /// is paused for the last one.
    async fn checkpoint(self, writer: &Arc<Pool>, passes: u32) -> Option<(Self, Result<(), SqlError>)> {
        let (checkpointer, is_long) = self.on_blocking_thread(move |checkpointer| checkpointer.checkpoint_until_short(passes)).await?;
        if !matches!(is_long, Ok(true)) {
            return Some((checkpointer, is_long.map(drop)));
        }
        // A long use of the writer must not delay the checkpoints of other files; the next tick tries again.
        let wait = Duration::from_millis(limits::SQLITE_LOG_REST_WAIT_MS);
        let Ok(Ok(_at_rest)) = tokio::time::timeout(wait, Pool::get_alone(writer)).await else { return Some((checkpointer, Ok(()))) };
        checkpointer.on_blocking_thread(|checkpointer| checkpointer.checkpoint_once().map(drop)).await
    }

    /// Checkpoints the rest, which is little, and truncates the WAL. False where a connection in use prevents it.
    async fn empty(self, writer: &Arc<Pool>) -> Option<(Self, Result<bool, SqlError>)> {
        let wait = Duration::from_millis(limits::SQLITE_LOG_REST_WAIT_MS);
        let Ok(Ok(_at_rest)) = tokio::time::timeout(wait, Pool::get_alone(writer)).await else { return Some((self, Ok(false))) };
        self.on_blocking_thread(|checkpointer| checkpointer.connection.empty_log()).await
    }

    /// Checkpoints the WAL; a long one again and again, as less is added during each pass. The file is flushed after each pass: SQLite flushes only when all is
    /// checkpointed, and would then write the pages of all passes while the writer is paused. True where the WAL is long and not all of it is checkpointed.
    fn checkpoint_until_short(&self, passes: u32) -> Result<bool, SqlError> {
        let mut before = None;
        for _ in 0..passes {
            let pages = self.checkpoint_once()?;
            if pages <= limits::SQLITE_LOG_PAGES || before == Some(pages) {
                return Ok(false);
            }
            self.file.sync_data().map_err(|error| SqlError::new(ErrorClass::Unavailable, error.to_string()))?;
            before = Some(pages);
        }
        Ok(true)
    }

    /// Checkpoints the WAL as it is now. Returns its pages.
    fn checkpoint_once(&self) -> Result<i64, SqlError> {
        self.connection.checkpoint_beside()
    }

    /// Runs on a blocking thread. None where it panicked.
    async fn on_blocking_thread<T: Send + 'static>(self, work: impl FnOnce(&Self) -> T + Send + 'static) -> Option<(Self, T)> {
        tokio::task::spawn_blocking(move || {
            let outcome = work(&self);
            (self, outcome)
        })
        .await
        .inspect_err(|error| tracing::error!(%error, "the write-ahead log is no longer checkpointed beside the writer"))
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::time::Instant;

    use super::super::{ConnectionSettings, Durability, PooledConnection};
    use crate::sql::sqlite::script::Script;
    use crate::sql::sqlite::values::Params;
    use crate::sql::sqlite::workers::Workers;

    async fn writer(path: &Path) -> (Arc<Pool>, Checkpointer) {
        let settings = || ConnectionSettings { path: path.to_owned(), durability: Durability::default(), writes: true, bytes_max: None };
        let pool = Pool::open(settings(), 1, Workers::new("a")).expect("opens");
        let mut writer = Pool::get(&pool).await.expect("the writer");
        writer.run(&Script::new("CREATE TABLE t (a)"), Params::default()).await.expect("creates");
        drop(writer);
        let checkpointer = Checkpointer::open(&pool).expect("opens");
        (pool, checkpointer)
    }

    async fn insert(writer: &mut PooledConnection, bytes: usize) {
        writer.run(&Script::new(format!("INSERT INTO t VALUES (randomblob({bytes}))")), Params::default()).await.expect("inserts");
    }

    /// How often the WAL has restarted (SQLite file format, section 4.1, "checkpoint sequence number").
    fn beginnings(path: &Path) -> u32 {
        let log = std::fs::read(format!("{}-wal", path.display())).expect("a log");
        u32::from_be_bytes(log[12..16].try_into().expect("four bytes"))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_long_log_begins_anew_beside_a_writer_that_never_pauses() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.sqlite");
        let (pool, mut checkpointer) = writer(&path).await;
        let (is_over, rows) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let busy = tokio::spawn({
            let (pool, is_over, rows) = (pool.clone(), is_over.clone(), rows.clone());
            async move {
                while !is_over.load(Ordering::Relaxed) {
                    insert(&mut Pool::get(&pool).await.expect("the writer"), 12_000).await;
                    rows.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        for round in 0..3 {
            // Three pages a row and more: the log is long.
            let enough = rows.load(Ordering::Relaxed) + limits::SQLITE_LOG_PAGES as u64 / 2;
            while rows.load(Ordering::Relaxed) < enough {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let before = beginnings(&path);
            let outcome;
            // In one pass over a long log, something is added.
            (checkpointer, outcome) = checkpointer.checkpoint(&pool, 1).await.expect("goes on");
            outcome.expect("checkpoints");
            let soon = rows.load(Ordering::Relaxed) + 2;
            while rows.load(Ordering::Relaxed) < soon {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(beginnings(&path) > before, "round {round}");
        }
        is_over.store(true, Ordering::Relaxed);
        busy.await.expect("no panic");
    }

    #[tokio::test]
    async fn an_emptied_log_and_its_file_hold_nothing_that_was_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.sqlite");
        let (pool, checkpointer) = writer(&path).await;
        let held = || {
            let files = [path.clone(), format!("{}-wal", path.display()).into()];
            files.iter().filter(|file| std::fs::read(file).expect("a file").windows(6).any(|bytes| bytes == b"SECRET")).count()
        };
        let mut writer = Pool::get(&pool).await.expect("the writer");
        for _ in 0..200 {
            let long = "INSERT INTO t VALUES ('SECRET' || hex(randomblob(400)))";
            writer.run(&Script::new(long), Params::default()).await.expect("inserts");
        }
        writer.run(&Script::new("DELETE FROM t WHERE rowid > 10"), Params::default()).await.expect("deletes");
        writer.run(&Script::new("UPDATE t SET a = 'short' WHERE rowid > 5"), Params::default()).await.expect("changes");
        writer.run(&Script::new("UPDATE t SET a = hex(randomblob(700))"), Params::default()).await.expect("changes");
        assert_eq!(held(), 1, "in the log");
        // Whoever has the writer is not waited for.
        let (checkpointer, emptied) = checkpointer.empty(&pool).await.expect("goes on");
        assert!(!emptied.expect("no error"));
        drop(writer);
        let (_checkpointer, emptied) = checkpointer.empty(&pool).await.expect("goes on");
        assert!(emptied.expect("empties"));
        assert_eq!(held(), 0);
    }

    #[tokio::test]
    async fn a_writer_that_is_kept_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let (pool, checkpointer) = writer(&folder.path().join("a.sqlite")).await;
        let mut kept = Pool::get(&pool).await.expect("the writer");
        for _ in 0..limits::SQLITE_LOG_PAGES / 200 {
            insert(&mut kept, 1_000_000).await;
        }
        let begun = Instant::now();
        let (checkpointer, outcome) = checkpointer.checkpoint(&pool, 1).await.expect("goes on");
        outcome.expect("checkpoints what it can");
        assert!(begun.elapsed() < Duration::from_millis(limits::SQL_TIMEOUT_MS), "it gives up before the others' statements do");
        let pages = checkpointer.checkpoint_once().expect("a log");
        assert!(pages > limits::SQLITE_LOG_PAGES, "a log of {pages} pages is not long");
    }
}
