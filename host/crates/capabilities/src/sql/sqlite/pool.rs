//! One SQLite file: a single writer and a few readers, each checked out by one user at a time, in order. Whatever becomes of the user (an error, a
//! time-out, a future dropped in the middle of a transaction), the next one finds a connection without an open transaction.
//!
//! Transactions on the writer share commits (`group`): each is answered when the commit that it is part of is on the disk.
//! The host's statements, and those of a service whose last runs were quick, run in place, on the caller's thread: handing one to another thread and back
//! costs several times what most of them do. A service's other statements run on its worker threads (`workers`), and their caller waits no longer
//! than their time-out, whatever they do (host/docs/adr/0002-one-database-file-and-one-writer-per-service.md).
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
pub(super) use self::connection::{ConnectionSettings, SqliteConnection};
use self::group::Group;
pub use self::group::OnEnd;
use self::pooled::Checkout;
pub use self::pooled::{PooledConnection, Visit};
use super::progress::StatementOwner;
use super::script::Script;
use super::values::Params;
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
        let writer = Pool::open(ConnectionSettings { path: path.to_owned(), durability, writes: true, bytes_max }, 1, workers.clone())?;
        let readers = Pool::open(
            ConnectionSettings { path: path.to_owned(), durability, writes: false, bytes_max: None },
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

    /// The one connection that writes. It also reads what earlier transactions of the group changed, which is not committed yet.
    /// Errors: `Timeout` after `SQL_TIMEOUT_MS`.
    pub async fn writer(&self) -> Result<PooledConnection, SqlError> {
        Pool::get(&self.writer).await
    }

    /// The one connection that writes, after all that was changed before is committed.
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

    /// Empties the cache of prepared statements of every connection: the schema has changed.
    pub async fn forget_statements(&self) -> Result<(), SqlError> {
        for pool in [&self.writer, &self.readers] {
            let mut all = Vec::new();
            for _ in 0..pool.size {
                all.push(Pool::get(pool).await?);
            }
            for pooled in &mut all {
                pooled.checkout()?.connection()?.sqlite.flush_prepared_statement_cache();
            }
        }
        Ok(())
    }

    /// Waits for the connections in use and closes them, the writer last, so that it copies the WAL into the file.
    pub async fn close(&self) {
        self.closing.cancel();
        for pool in [&self.readers, &self.writer] {
            // A user that takes longer than a statement may is not waited for.
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
    pub(super) settings: ConnectionSettings,
    size: usize,
    state: Mutex<State>,
    /// The file's threads for statements that take long.
    workers: Arc<Workers>,
    /// How many were checked out so far.
    pub(super) checkouts_count: AtomicU64,
    /// How long the last commit took, in microseconds.
    flush_us: AtomicU64,
    /// Notified whenever a connection is idle again.
    back: Notify,
}

struct State {
    /// None for one that broke: the next user opens another.
    idle: Vec<Option<SqliteConnection>>,
    /// First come, first served; some may have given up.
    waiting: VecDeque<oneshot::Sender<Checkout>>,
    is_closed: bool,
}

impl Pool {
    pub(super) fn open(settings: ConnectionSettings, size: usize, workers: Arc<Workers>) -> Result<Arc<Self>, SqlError> {
        let idle = (0..size).map(|_| SqliteConnection::open(&settings).map(Some)).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self {
            settings,
            size,
            state: Mutex::new(State { idle, waiting: VecDeque::new(), is_closed: false }),
            workers,
            checkouts_count: AtomicU64::new(0),
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
                Some(connection) => Ok(Checkout::new(pool, connection, Group::default())),
                None => {
                    state.forget_gone();
                    let (sender, receiver) = oneshot::channel();
                    state.waiting.push_back(sender);
                    Err(receiver)
                }
            }
        };
        let mut checkout = match found {
            Ok(checkout) => checkout,
            Err(receiver) => tokio::time::timeout(Duration::from_millis(limits::SQL_TIMEOUT_MS), receiver)
                .await
                .map_err(|_| SqlError::new(ErrorClass::Timeout, "the database is busy"))?
                .map_err(|_| closed())?,
        };
        pool.checkouts_count.fetch_add(1, Ordering::Relaxed);
        checkout.open_again()?;
        Ok(PooledConnection { checkout: Some(checkout) })
    }

    /// ... when all that was changed before is committed.
    pub(super) async fn get_alone(pool: &Arc<Self>) -> Result<PooledConnection, SqlError> {
        let mut pooled = Self::get(pool).await?;
        pooled.checkout()?.commit_group();
        Ok(pooled)
    }

    /// Hands the connection to the first in the queue. Without one, or with a full group, the group is committed before.
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
            let Err(mut refused) = next.send(Checkout::new(pool, connection, group)) else { return };
            let Some(session) = refused.session.take() else { return };
            (connection, group) = (session.connection, session.group);
        }
    }

    /// A flush takes about as long as handing it to another thread and back, so it happens in place; on a slow disk it moves to a blocking thread.
    fn commit_and_give_back(pool: &Arc<Self>, connection: Option<SqliteConnection>, group: Group) {
        let mut checkout = Checkout::new(pool, connection, group);
        match Handle::try_current() {
            Ok(runtime) if pool.flush_us.load(Ordering::Relaxed) > limits::SQLITE_FLUSH_IN_PLACE_US => {
                runtime.spawn_blocking(move || checkout.commit_group());
            }
            _ => checkout.commit_group(),
        }
    }

    /// Returns when no connection is checked out.
    async fn all_back(&self) {
        loop {
            let back = self.back.notified();
            if self.state.lock().idle.len() == self.size {
                return;
            }
            back.await;
        }
    }

    /// Ends the pool, and returns the idle connections.
    fn close(&self) -> Vec<SqliteConnection> {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.waiting.clear();
        std::mem::take(&mut state.idle).into_iter().flatten().collect()
    }
}

impl State {
    /// Drops those at the front of the queue that have given up: who came first gives up first.
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
