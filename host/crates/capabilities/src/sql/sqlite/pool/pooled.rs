//! A connection that is lent: the transaction of whoever has it, and how statements run on it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::InterruptHandle;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use super::connection::SqliteConnection;
use super::group::{Group, OnEnd, rolled_back};
use super::{Pool, closed};
use crate::sql::sqlite::errors;
use crate::sql::sqlite::guard::{Checked, RunCost};
use crate::sql::sqlite::script::Script;
use crate::sql::sqlite::values::{Params, Row};
use crate::sql::sqlite::watch::{Speaker, Watch};
use crate::sql::{ErrorClass, SqlError};
use echo_base::limits;
use echo_base::priority;

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

/// A connection lent to one user. Dropping it gives it back, rolled back first where something of this user is still open.
pub struct PooledConnection {
    /// None while a thread works with it that was not waited for any longer: that one gives it back.
    pub(super) held: Option<Held>,
}

/// What goes back to the pool when it is dropped, wherever that is.
pub(super) struct Held {
    pub(super) pool: Arc<Pool>,
    pub(super) lent: Option<Lent>,
}

pub(super) struct Lent {
    /// None for one that broke.
    pub(super) connection: Option<SqliteConnection>,
    /// Of the writer.
    pub(super) group: Group,
    transaction: Transaction,
}

/// That of whoever has the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transaction {
    None,
    /// Nothing else has been changed since the last commit.
    First,
    /// A savepoint among what others have changed.
    Later,
}

impl PooledConnection {
    /// Begins a transaction, which is committed together with those just before and after it. Dropped without `commit`, it is rolled back.
    pub fn begin(&mut self) -> Result<(), SqlError> {
        let lent = self.held()?.lent()?;
        let (sql, transaction) =
            if lent.group.is_open() { ("SAVEPOINT member", Transaction::Later) } else { ("BEGIN IMMEDIATE", Transaction::First) };
        lent.connection()?.control(sql)?;
        lent.group.open();
        lent.transaction = transaction;
        Ok(())
    }

    /// Commits what others have ended before, so that nothing of it is at stake. Not within a transaction.
    pub fn commit_others(&mut self) -> Result<(), SqlError> {
        self.held()?.commit_group();
        Ok(())
    }

    /// Ends the transaction; returns when it is committed and, where commits outlive the power, on the disk. `on_end` is told in the order of the
    /// transactions, also when this future is dropped.
    /// Errors: `Serialization` where another transaction of the same commit broke off; `Unavailable` where the commit failed.
    pub async fn commit(mut self, on_end: Option<OnEnd>) -> Result<(), SqlError> {
        let lent = self.held()?.lent()?;
        lent.end()?;
        let outcome = lent.group.add(on_end);
        drop(self);
        outcome.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Rolls back, and returns when what the transaction may have read is on the disk: an answer may follow from it.
    /// Errors: those of `commit`, where what it has read was not committed.
    pub async fn rollback(mut self) -> Result<(), SqlError> {
        let lent = self.held()?.lent()?;
        lent.roll_back()?;
        if !lent.group.is_open() {
            return Ok(());
        }
        let outcome = lent.group.add(None);
        drop(self);
        outcome.await.unwrap_or_else(|_| Err(closed()))
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
        self.start()?.run(script, &params, &mut visit)
    }

    /// Runs a service's statement. In place where it was quick so far and can be begun again, or cannot run for long without data; else, and when it
    /// turns out to take long, on a thread of the service's own.
    /// Errors: `Timeout` after `SQL_TIMEOUT_MS`, whatever the statement does; the transaction is then lost.
    pub async fn run_checked<V: Visit>(&mut self, checked: &Checked, params: Params) -> Result<(V, Vec<u64>), SqlError> {
        tokio::task::coop::consume_budget().await;
        let connection = self.held()?.connection()?;
        connection.speak(if checked.is_recursive { Speaker::RecursiveService } else { Speaker::Service })?;
        // Ending a change would roll back the transaction, and those before it that are not committed.
        let begins_again = checked.reads;
        let time = Duration::from_millis(limits::SQL_TIMEOUT_MS);
        if checked.cost.is_quick() && !checked.is_linear && !priority::is_low() && (begins_again || !checked.is_recursive) {
            let (started, before) = (Instant::now(), connection.checks());
            connection.watch.begin(time, begins_again);
            let mut visitor = V::default();
            let outcome = connection.run(&checked.script, &params, &mut |row| visitor.row(row));
            checked.cost.note(RunCost { checks: connection.checks() - before, took: started.elapsed() });
            if outcome.is_ok() || !connection.watch.was_long.load(Ordering::Relaxed) {
                return outcome.map(|changed| (visitor, changed));
            }
        }
        let script = checked.script.clone();
        let (outcome, run_cost) = self
            .elsewhere(time, move |connection| {
                let (began, before) = (cpu_of_this_thread(), connection.checks());
                let mut visitor = V::default();
                let outcome = connection.run(&script, &params, &mut |row| visitor.row(row));
                let run_cost = RunCost { checks: connection.checks() - before, took: cpu_of_this_thread().saturating_sub(began) };
                (outcome.map(|changed| (visitor, changed)), run_cost)
            })
            .await
            // It took longer than it may: all of its next runs are elsewhere.
            .inspect_err(|_| checked.cost.note(RunCost { checks: u64::MAX, took: time }))?;
        checked.cost.note(run_cost);
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
        self.held()?.connection()?.speak(speaker)?;
        self.elsewhere(time, move |connection| connection.sqlite.execute_batch(&sql).map_err(errors::from_rusqlite)).await?
    }

    /// Does the work on a thread of the file's own. Where that does not end in its time, or nobody waits for it any more, the connection goes back when
    /// it does: until then the file has one less.
    pub(super) async fn elsewhere<T: Send + 'static>(
        &mut self,
        time: Duration,
        work: impl FnOnce(&SqliteConnection) -> T + Send + 'static,
    ) -> Result<T, SqlError> {
        let mut held = self.held.take().ok_or_else(closed)?;
        let connection = held.connection()?;
        connection.watch.is_cancelled.store(false, Ordering::Relaxed);
        let (watch, interrupt) = (connection.watch.clone(), connection.interrupt.clone());
        let workers = held.pool.workers.clone();
        let (answers, mut answer) = oneshot::channel();
        workers.run(Box::new(move || {
            let Ok(connection) = held.connection() else { return };
            connection.watch.begin(time, false);
            let outcome = work(connection);
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

    fn start(&mut self) -> Result<&SqliteConnection, SqlError> {
        let connection = self.held()?.connection()?;
        connection.speak(Speaker::Host)?;
        connection.watch.begin(Duration::from_millis(limits::SQL_TIMEOUT_MS), false);
        Ok(connection)
    }

    pub(super) fn held(&mut self) -> Result<&mut Held, SqlError> {
        self.held.as_mut().ok_or_else(|| SqlError::new(ErrorClass::Timeout, "a statement that did not end in its time has the connection"))
    }
}

fn cpu_of_this_thread() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32)
}

impl Held {
    pub(super) fn new(pool: &Arc<Pool>, connection: Option<SqliteConnection>, group: Group) -> Self {
        Self { pool: pool.clone(), lent: Some(Lent { connection, group, transaction: Transaction::None }) }
    }

    fn lent(&mut self) -> Result<&mut Lent, SqlError> {
        self.lent.as_mut().ok_or_else(closed)
    }

    pub(super) fn connection(&mut self) -> Result<&SqliteConnection, SqlError> {
        self.lent()?.connection()
    }

    /// Its predecessor broke.
    pub(super) fn open_again(&mut self) -> Result<(), SqlError> {
        if let Some(lent) = &mut self.lent
            && lent.connection.is_none()
        {
            lent.connection = Some(SqliteConnection::open(&self.pool.role)?);
        }
        Ok(())
    }

    /// Commits what has ended.
    pub(super) fn commit_group(&mut self) {
        let Some(lent) = &mut self.lent else { return };
        if !lent.group.is_open() {
            return;
        }
        let began = Instant::now();
        let committed = lent.connection().and_then(|connection| connection.control("COMMIT"));
        self.pool.flush_us.store(began.elapsed().as_micros() as u64, Ordering::Relaxed);
        if let Err(error) = &committed {
            tracing::error!(%error, "a commit failed");
        }
        // Before anything else is told of it: nobody may be told that it failed and find it there.
        lent.clean();
        lent.group.end(&committed);
    }
}

impl Lent {
    pub(super) fn connection(&self) -> Result<&SqliteConnection, SqlError> {
        self.connection.as_ref().ok_or_else(closed)
    }

    /// The transaction is a part of the group from here on.
    fn end(&mut self) -> Result<(), SqlError> {
        if self.transaction == Transaction::Later {
            self.connection()?.control("RELEASE member")?;
        }
        self.transaction = Transaction::None;
        Ok(())
    }

    fn roll_back(&mut self) -> Result<(), SqlError> {
        // Not open: SQLite rolled back by itself, and all of the group.
        if self.is_rolled_back() {
            self.lose_group(&rolled_back());
        }
        match std::mem::replace(&mut self.transaction, Transaction::None) {
            _ if !self.group.is_open() => Ok(()),
            Transaction::None => Ok(()),
            Transaction::First => {
                self.connection()?.control("ROLLBACK")?;
                self.group.end(&Ok(()));
                Ok(())
            }
            Transaction::Later => {
                self.connection()?.control("ROLLBACK TO member")?;
                self.connection()?.control("RELEASE member")
            }
        }
    }

    fn is_rolled_back(&self) -> bool {
        self.group.is_open() && self.connection.as_ref().is_none_or(|connection| connection.sqlite.is_autocommit())
    }

    fn lose_group(&mut self, error: &SqlError) {
        self.transaction = Transaction::None;
        self.group.end(&Err(error.clone()));
    }

    /// Ends whatever is open in SQLite; a connection with which that cannot be done is closed.
    fn clean(&mut self) {
        let Some(connection) = &self.connection else { return };
        if !connection.sqlite.is_autocommit()
            && let Err(error) = connection.control("ROLLBACK")
        {
            tracing::error!(%error, "a database connection is lost; the next user opens a new one");
            self.connection = None;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut lent) = self.lent.take() else { return };
        if let Err(error) = lent.roll_back() {
            lent.clean();
            lent.lose_group(&error);
        }
        if lent.is_rolled_back() {
            lent.lose_group(&rolled_back());
        }
        if !lent.group.is_open() {
            lent.clean();
        }
        Pool::give_back(&self.pool, lent.connection, lent.group);
    }
}
