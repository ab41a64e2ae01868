//! Keeps a file's write-ahead log short. Folding it into the file takes flushes to the disk, for which the writer does not wait.
//!
//! A log that was folded still holds what its commits wrote, also of what has been deleted since. So it is emptied now and then: nothing that
//! was deleted is in the log `SQLITE_LOG_KEPT_MS` later.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::lanes::{Lane, Link};
use super::log_file;
use crate::limits;

/// Files are folded one after another: all go to one disk, where each would take as long as all together, and a writer rests at the end.
static FOLDING: Semaphore = Semaphore::const_new(1);

pub struct Keeper {
    link: Link,
}

impl Keeper {
    pub fn new(link: Link) -> Self {
        Self { link }
    }

    /// Folds the log at every tick at which the writer has been lent, until it is told to close.
    pub async fn run(mut self, writer: Arc<Lane>, closing: CancellationToken) {
        let (mut seen, mut emptied, mut emptied_at) = (0, 0, Instant::now());
        let mut tick = tokio::time::interval(Duration::from_millis(limits::SQLITE_LOG_TICK_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while closing.run_until_cancelled(tick.tick()).await.is_some() {
            let leases = writer.leases.load(Ordering::Relaxed);
            let is_to_be_emptied = leases != emptied && emptied_at.elapsed() >= Duration::from_millis(limits::SQLITE_LOG_KEPT_MS);
            if leases == seen && !is_to_be_emptied {
                continue;
            }
            seen = leases;
            let Some(Ok(_turn)) = closing.run_until_cancelled(FOLDING.acquire()).await else { break };
            let Some((keeper, folded)) = self.fold(&writer, limits::SQLITE_LOG_PASSES_MAX).await else { return };
            self = keeper;
            if let Err(error) = folded {
                tracing::warn!(%error, "the write-ahead log could not be folded");
            }
            if !is_to_be_emptied {
                continue;
            }
            let Some((keeper, outcome)) = self.empty(&writer).await else { return };
            self = keeper;
            match outcome {
                Ok(true) => (emptied, emptied_at) = (leases, Instant::now()),
                // A reader, or who keeps the writer for long: the next tick tries again.
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the write-ahead log could not be emptied"),
            }
        }
        self.link.close();
    }

    /// Folds the log, and lets one that has grown long begin anew: one that only grows takes new memory for every page, one that begins anew has
    /// its own again. SQLite does so when all of it is folded and nothing was added meanwhile. Beside a busy writer that comes about in one of many
    /// short passes or never; then the writer rests for the last one.
    async fn fold(self, writer: &Arc<Lane>, passes: u32) -> Option<(Self, rusqlite::Result<()>)> {
        let (keeper, is_long) = self.beside(move |keeper| keeper.approach(passes)).await?;
        if !matches!(is_long, Ok(true)) {
            return Some((keeper, is_long.map(drop)));
        }
        // Who keeps the writer for long keeps no other file from being folded; the next tick tries again.
        let wait = Duration::from_millis(limits::SQLITE_LOG_REST_WAIT_MS);
        let Ok(Ok(_at_rest)) = tokio::time::timeout(wait, Lane::lease(writer)).await else { return Some((keeper, Ok(()))) };
        keeper.beside(|keeper| keeper.pass().map(drop)).await
    }

    /// Folds what is left, which is little, and cuts the log off. False where somebody is at work whom this does not wait for.
    async fn empty(self, writer: &Arc<Lane>) -> Option<(Self, rusqlite::Result<bool>)> {
        let wait = Duration::from_millis(limits::SQLITE_LOG_REST_WAIT_MS);
        let Ok(Ok(_at_rest)) = tokio::time::timeout(wait, Lane::lease(writer)).await else { return Some((self, Ok(false))) };
        self.beside(move |keeper| {
            let connection = &keeper.link.connection;
            connection.busy_timeout(wait)?;
            let is_busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get::<_, bool>(0));
            connection.busy_timeout(Duration::from_millis(limits::SQL_TIMEOUT_MS))?;
            is_busy.map(|is_busy| !is_busy)
        })
        .await
    }

    /// Folds what is there, and where the log is long, again and again what was added meanwhile, ever less. After each pass the file is flushed:
    /// SQLite does that only when all is folded, and would then write everything that the passes changed while the writer rests. True where the
    /// log is long and not all of it is folded.
    fn approach(&self, passes: u32) -> rusqlite::Result<bool> {
        let mut before = None;
        for _ in 0..passes {
            let pages = self.pass()?;
            if pages <= limits::SQLITE_LOG_PAGES || before == Some(pages) {
                return Ok(false);
            }
            log_file::flush_database(&self.link.connection)?;
            before = Some(pages);
        }
        Ok(true)
    }

    /// Folds what is in the log now; how many pages it has.
    fn pass(&self) -> rusqlite::Result<i64> {
        self.link.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |row| row.get(1))
    }

    /// On a thread that may wait for the disk. None where it broke off.
    async fn beside<T: Send + 'static>(self, work: impl FnOnce(&Self) -> T + Send + 'static) -> Option<(Self, T)> {
        tokio::task::spawn_blocking(move || {
            let outcome = work(&self);
            (self, outcome)
        })
        .await
        .inspect_err(|error| tracing::error!(%error, "the write-ahead log is no longer folded beside the writer"))
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::time::Instant;

    use super::super::lanes::{Durability, Lease, Role};
    use super::super::script::Script;
    use super::super::values::Params;
    use super::super::workers::Workers;

    async fn writer(path: &Path) -> (Arc<Lane>, Keeper) {
        let role = || Role { path: path.to_owned(), durability: Durability::default(), writes: true, bytes_max: None };
        let lane = Lane::open(role(), 1, Workers::new("a")).expect("opens");
        let mut lease = Lane::lease(&lane).await.expect("the writer");
        lease.run(&Script::new("CREATE TABLE t (a)"), Params::default()).await.expect("creates");
        drop(lease);
        (lane, Keeper::new(Link::open(&role()).expect("opens")))
    }

    async fn insert(lease: &mut Lease, bytes: usize) {
        lease.run(&Script::new(format!("INSERT INTO t VALUES (randomblob({bytes}))")), Params::default()).await.expect("inserts");
    }

    /// How often the log has begun anew (SQLite file format, section 4.1, "checkpoint sequence number").
    fn beginnings(path: &Path) -> u32 {
        let log = std::fs::read(format!("{}-wal", path.display())).expect("a log");
        u32::from_be_bytes(log[12..16].try_into().expect("four bytes"))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_long_log_begins_anew_beside_a_writer_that_never_pauses() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.sqlite");
        let (lane, mut keeper) = writer(&path).await;
        let (is_over, rows) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let busy = tokio::spawn({
            let (lane, is_over, rows) = (lane.clone(), is_over.clone(), rows.clone());
            async move {
                while !is_over.load(Ordering::Relaxed) {
                    insert(&mut Lane::lease(&lane).await.expect("the writer"), 12_000).await;
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
            let folded;
            // In one pass over a long log, something is added.
            (keeper, folded) = keeper.fold(&lane, 1).await.expect("goes on");
            folded.expect("folds");
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
        let (lane, keeper) = writer(&path).await;
        let held = || {
            let files = [path.clone(), format!("{}-wal", path.display()).into()];
            files.iter().filter(|file| std::fs::read(file).expect("a file").windows(6).any(|bytes| bytes == b"SECRET")).count()
        };
        let mut lease = Lane::lease(&lane).await.expect("the writer");
        for _ in 0..200 {
            let long = "INSERT INTO t VALUES ('SECRET' || hex(randomblob(400)))";
            lease.run(&Script::new(long), Params::default()).await.expect("inserts");
        }
        lease.run(&Script::new("DELETE FROM t WHERE rowid > 10"), Params::default()).await.expect("deletes");
        lease.run(&Script::new("UPDATE t SET a = 'short' WHERE rowid > 5"), Params::default()).await.expect("changes");
        lease.run(&Script::new("UPDATE t SET a = hex(randomblob(700))"), Params::default()).await.expect("changes");
        assert_eq!(held(), 1, "in the log");
        // Whoever has the writer is not waited for.
        let (keeper, emptied) = keeper.empty(&lane).await.expect("goes on");
        assert!(!emptied.expect("no error"));
        drop(lease);
        let (_keeper, emptied) = keeper.empty(&lane).await.expect("goes on");
        assert!(emptied.expect("empties"));
        assert_eq!(held(), 0);
    }

    #[tokio::test]
    async fn a_writer_that_is_kept_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let (lane, keeper) = writer(&folder.path().join("a.sqlite")).await;
        let mut kept = Lane::lease(&lane).await.expect("the writer");
        for _ in 0..limits::SQLITE_LOG_PAGES / 200 {
            insert(&mut kept, 1_000_000).await;
        }
        let begun = Instant::now();
        let (keeper, folded) = keeper.fold(&lane, 1).await.expect("goes on");
        folded.expect("folds what it can");
        assert!(begun.elapsed() < Duration::from_millis(limits::SQL_TIMEOUT_MS), "it gives up before the others' statements do");
        let pages = keeper.pass().expect("a log");
        assert!(pages > limits::SQLITE_LOG_PAGES, "a log of {pages} pages is not long");
    }
}
