//! One SQLite file: a single writer and a few readers, each lent to one user at a time, in turn. Whatever becomes of the user (an error, a
//! time-out, a future dropped in the middle of a transaction), the next one finds a connection with nothing of it open.
//!
//! Transactions on the writer share commits (`group`): one that has ended is answered when the commit that it is part of is on the disk.
//! The host's statements, and a service's that were quick so far, run in place, on the thread that asks: going to a thread of their own and back
//! costs several times what most of them do. A service's other statements run on threads of its own (`workers`), where their asker waits for them
//! no longer than their time, whatever they do (host/docs/adr/0002-one-database-file-and-one-writer-per-service.md).
//! Knows nothing of outboxes or guests.

mod checkpointer;
mod connection;
mod group;
mod log;
mod pooled;
pub mod snapshot;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::checkpointer::Checkpointer;
pub(super) use self::connection::{Role, SqliteConnection};
use self::group::Group;
pub use self::group::OnEnd;
use self::pooled::Held;
pub use self::pooled::{PooledConnection, Visit};
use super::script::Script;
use super::values::Params;
use super::watch::Speaker;
use super::workers::Workers;
use crate::sql::{ErrorClass, SqlError};
use echo_base::limits;

/// What a commit outlives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process, by whatever signal. SQLite's `synchronous = NORMAL`: no flush to the disk per commit.
    Process,
    /// Also power loss: `synchronous = FULL`, a flush per commit.
    #[default]
    Power,
}

/// An open file. Cheap to share by `Arc`.
pub struct File {
    writer: Arc<Pool>,
    readers: Arc<Pool>,
    checkpointer: TaskTracker,
    closing: CancellationToken,
    /// Closed last: see `Checkpointer`.
    _locks: Arc<std::fs::File>,
}

impl File {
    pub async fn open(path: &Path, durability: Durability) -> Result<Self, SqlError> {
        Self::open_within(path, durability, None).await
    }

    /// One that never grows beyond so many bytes: what would make it fails with `Unavailable` and the SQLSTATE of a full disk (53100).
    pub async fn open_within(path: &Path, durability: Durability, bytes_max: Option<u64>) -> Result<Self, SqlError> {
        // The writer first: it makes the file.
        let workers = Workers::new(&path.file_stem().unwrap_or_default().to_string_lossy());
        let writer = Pool::open(Role { path: path.to_owned(), durability, writes: true, bytes_max }, 1, workers.clone())?;
        let readers = Pool::open(
            Role { path: path.to_owned(), durability, writes: false, bytes_max: None },
            limits::SQLITE_READERS as usize,
            workers,
        )?;
        let (checkpointer, closing) = (TaskTracker::new(), CancellationToken::new());
        let owner = Checkpointer::open(&writer)?;
        let locks = owner.file();
        // Owned by the file: `close` ends it, and so does dropping the file.
        checkpointer.spawn(owner.run(writer.clone(), closing.clone()));
        Ok(Self { writer, readers, checkpointer, closing, _locks: locks })
    }

    /// The one connection that writes. What was changed before in transactions that are not committed yet is there to be read.
    /// Errors: `Timeout` after `SQL_TIMEOUT_MS`.
    pub async fn writer(&self) -> Result<PooledConnection, SqlError> {
        Pool::get(&self.writer).await
    }

    /// The one connection that writes, when all that was changed before is committed.
    pub async fn writer_alone(&self) -> Result<PooledConnection, SqlError> {
        Pool::get_alone(&self.writer).await
    }

    /// A connection that only reads, and only what is committed. Errors: `Timeout` after `SQL_TIMEOUT_MS`.
    pub async fn reader(&self) -> Result<PooledConnection, SqlError> {
        Pool::get(&self.readers).await
    }

    /// Runs a script of the host in a transaction of its own; the changed rows of each of its statements.
    pub async fn write(&self, script: &Script, params: Params) -> Result<Vec<u64>, SqlError> {
        let mut writer = self.writer().await?;
        writer.begin()?;
        let changed = writer.run(script, params).await?;
        writer.commit(None).await?;
        Ok(changed)
    }

    /// Forgets what was prepared, everywhere: the shape of a table has changed.
    pub async fn forget_statements(&self) -> Result<(), SqlError> {
        for pool in [&self.writer, &self.readers] {
            let mut all = Vec::new();
            for _ in 0..pool.size {
                all.push(Pool::get(pool).await?);
            }
            for pooled in &mut all {
                pooled.held()?.connection()?.sqlite.flush_prepared_statement_cache();
            }
        }
        Ok(())
    }

    /// Waits for who is at work and closes the connections, the writer last, so that it copies the log into the file.
    pub async fn close(&self) {
        self.closing.cancel();
        for pool in [&self.readers, &self.writer] {
            // Who takes longer than a statement may is not waited for.
            drop(tokio::time::timeout(Duration::from_millis(limits::SQL_TIMEOUT_MS), pool.all_back()).await);
            pool.close();
        }
        self.checkpointer.close();
        self.checkpointer.wait().await;
        for pool in [&self.readers, &self.writer] {
            let idle = pool.close();
            // Checkpointing and flushing take as long as the disk does.
            let closed = tokio::task::spawn_blocking(move || idle.into_iter().for_each(SqliteConnection::close));
            closed.await.unwrap_or_else(|error| tracing::warn!(%error, "database connections did not close cleanly"));
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// Connections of one kind.
pub(super) struct Pool {
    pub(super) role: Role,
    size: usize,
    state: Mutex<State>,
    /// The file's threads for statements that take long.
    workers: Arc<Workers>,
    /// How often one was lent.
    pub(super) lent_count: AtomicU64,
    /// What the last flush took, in microseconds.
    flush_us: AtomicU64,
    /// Rung whenever a connection has come back.
    back: Notify,
}

struct State {
    /// None for one that broke: the next user opens another.
    idle: Vec<Option<SqliteConnection>>,
    /// In the order of their coming; some may have given up.
    waiting: VecDeque<oneshot::Sender<Held>>,
    is_closed: bool,
}

impl Pool {
    pub(super) fn open(role: Role, size: usize, workers: Arc<Workers>) -> Result<Arc<Self>, SqlError> {
        let idle = (0..size).map(|_| SqliteConnection::open(&role).map(Some)).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self {
            role,
            size,
            state: Mutex::new(State { idle, waiting: VecDeque::new(), is_closed: false }),
            workers,
            lent_count: AtomicU64::new(0),
            flush_us: AtomicU64::new(0),
            back: Notify::new(),
        }))
    }

    pub(super) async fn get(pool: &Arc<Self>) -> Result<PooledConnection, SqlError> {
        let found = {
            let mut state = pool.state.lock();
            if state.is_closed {
                return Err(closed());
            }
            match state.idle.pop() {
                Some(connection) => Ok(Held::new(pool, connection, Group::default())),
                None => {
                    state.forget_gone();
                    let (says, hears) = oneshot::channel();
                    state.waiting.push_back(says);
                    Err(hears)
                }
            }
        };
        let mut held = match found {
            Ok(held) => held,
            Err(hears) => tokio::time::timeout(Duration::from_millis(limits::SQL_TIMEOUT_MS), hears)
                .await
                .map_err(|_| SqlError::new(ErrorClass::Timeout, "the database is busy"))?
                .map_err(|_| closed())?,
        };
        pool.lent_count.fetch_add(1, Ordering::Relaxed);
        held.open_again()?;
        Ok(PooledConnection { held: Some(held) })
    }

    /// ... when all that was changed before is committed.
    pub(super) async fn get_alone(pool: &Arc<Self>) -> Result<PooledConnection, SqlError> {
        let mut pooled = Self::get(pool).await?;
        pooled.held()?.commit_group();
        Ok(pooled)
    }

    /// Passes the connection on to who waits first. What has ended on it is committed before, when nobody waits or the group is full.
    fn give_back(pool: &Arc<Self>, mut connection: Option<SqliteConnection>, mut group: Group) {
        loop {
            let mut state = pool.state.lock();
            state.forget_gone();
            if group.is_open() && (state.waiting.is_empty() || group.is_full()) {
                drop(state);
                return Self::commit_and_give_back(pool, connection, group);
            }
            let Some(next) = state.waiting.pop_front() else {
                state.idle.push(connection);
                drop(state);
                pool.back.notify_waiters();
                return;
            };
            drop(state);
            let Err(mut refused) = next.send(Held::new(pool, connection, group)) else { return };
            let Some(lent) = refused.lent.take() else { return };
            (connection, group) = (lent.connection, lent.group);
        }
    }

    /// A flush is about as short as going to another thread and back, unless the disk is slow: then it is waited for where nobody else waits.
    fn commit_and_give_back(pool: &Arc<Self>, connection: Option<SqliteConnection>, group: Group) {
        let mut held = Held::new(pool, connection, group);
        match Handle::try_current() {
            Ok(runtime) if pool.flush_us.load(Ordering::Relaxed) > limits::SQLITE_FLUSH_IN_PLACE_US => {
                runtime.spawn_blocking(move || held.commit_group());
            }
            _ => held.commit_group(),
        }
    }

    /// When nobody has a connection.
    async fn all_back(&self) {
        loop {
            let back = self.back.notified();
            if self.state.lock().idle.len() == self.size {
                return;
            }
            back.await;
        }
    }

    /// Lends no more; those that are there.
    fn close(&self) -> Vec<SqliteConnection> {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.waiting.clear();
        std::mem::take(&mut state.idle).into_iter().flatten().collect()
    }
}

impl State {
    /// Those who came first give up first.
    fn forget_gone(&mut self) {
        while self.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            self.waiting.pop_front();
        }
    }
}

fn closed() -> SqlError {
    SqlError::new(ErrorClass::Unavailable, "the database is closed")
}

#[cfg(test)]
mod tests;
