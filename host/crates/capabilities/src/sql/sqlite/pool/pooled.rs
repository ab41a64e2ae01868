//! A connection checked out of the pool: its user's transaction, and how statements run on it.

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
use crate::sql::sqlite::progress::{Progress, StatementOwner};
use crate::sql::sqlite::script::Script;
use crate::sql::sqlite::statement_check::{CheckedStatement, RunCost};
use crate::sql::sqlite::values::{Params, Row};
use crate::sql::{ErrorClass, SqlError};
use echo_base::limits;
use echo_base::priority;

/// Cancels the statement that runs on a connection when its caller has gone away.
struct CancelOnDrop {
    progress: Arc<Progress>,
    interrupt: Arc<InterruptHandle>,
    is_answered: bool,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if !self.is_answered {
            self.progress.is_cancelled.store(true, Ordering::Relaxed);
            self.interrupt.interrupt();
        }
    }
}

/// What a service's statement gives, row by row.
pub trait Visit: Default + Send + 'static {
    /// False where no more rows are wanted.
    fn row(&mut self, row: &Row<'_>) -> Result<bool, SqlError>;
}

/// A connection checked out by one user. Dropping it returns it to the pool; what this user has open is rolled back before.
pub struct PooledConnection {
    /// None while a thread that was not waited for any longer still works with it; that thread returns it.
    pub(super) checkout: Option<Checkout>,
}

/// Returns the session to its pool when it is dropped, on whatever thread that is.
pub(super) struct Checkout {
    pub(super) pool: Arc<Pool>,
    pub(super) session: Option<Session>,
}

/// What a pool has of one connection while it is checked out.
pub(super) struct Session {
    /// None for one that broke: the next user opens another.
    pub(super) connection: Option<SqliteConnection>,
    /// The transactions that share the writer's next commit.
    pub(super) group: Group,
    transaction: TransactionState,
}

/// How far the transaction of the connection's user is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TransactionState {
    None,
    /// `BEGIN`: the first transaction since the last commit.
    Outer,
    /// `SAVEPOINT`: earlier transactions of the group are not committed yet.
    Savepoint,
}

impl PooledConnection {
    /// Begins a transaction, which is committed together with those just before and after it. Dropped without `commit`, it is rolled back.
    pub fn begin(&mut self) -> Result<(), SqlError> {
        let session = self.checkout()?.session()?;
        let (sql, transaction) = if session.group.is_open() {
            ("SAVEPOINT member", TransactionState::Savepoint)
        } else {
            ("BEGIN IMMEDIATE", TransactionState::Outer)
        };
        session.connection()?.control(sql)?;
        session.group.open();
        session.transaction = transaction;
        Ok(())
    }

    /// Commits what others have ended before, so that nothing of it is at stake. Not within a transaction.
    pub fn commit_others(&mut self) -> Result<(), SqlError> {
        self.checkout()?.commit_group();
        Ok(())
    }

    /// Ends the transaction; returns when it is committed and, where commits outlive the power, on the disk. `on_end` is told in the order of the
    /// transactions, also when this future is dropped.
    /// Errors: `Serialization` where another transaction of the same commit broke off; `Unavailable` where the commit failed.
    pub async fn commit(mut self, on_end: Option<OnEnd>) -> Result<(), SqlError> {
        let session = self.checkout()?.session()?;
        session.end()?;
        let outcome = session.group.add(on_end);
        drop(self);
        outcome.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Rolls back, and returns when what the transaction may have read is on the disk: an answer may follow from it.
    /// Errors: those of `commit`, where what it has read was not committed.
    pub async fn rollback(mut self) -> Result<(), SqlError> {
        let session = self.checkout()?.session()?;
        session.roll_back()?;
        if !session.group.is_open() {
            return Ok(());
        }
        let outcome = session.group.add(None);
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
        // A caller that runs many statements yields now and then.
        tokio::task::coop::consume_budget().await;
        self.start()?.run(script, &params, &mut visit)
    }

    /// Runs a service's statement: in place where its last runs were quick, else on a worker thread of the service. A read that takes long in place is
    /// interrupted and runs again on a worker.
    /// Errors: `Timeout` after `SQL_TIMEOUT_MS`, whatever the statement does; the transaction is then lost.
    pub async fn run_service_statement<V: Visit>(&mut self, checked: &CheckedStatement, params: Params) -> Result<(V, Vec<u64>), SqlError> {
        tokio::task::coop::consume_budget().await;
        let connection = self.checkout()?.connection()?;
        connection.run_as(if checked.is_recursive { StatementOwner::RecursiveService } else { StatementOwner::Service })?;
        // Interrupting a statement that changes rows would roll back the group's transactions: only reads can be run again.
        let begins_again = checked.reads;
        let time = Duration::from_millis(limits::SQL_TIMEOUT_MS);
        if checked.cost.is_quick() && !checked.is_linear && !priority::is_low() && (begins_again || !checked.is_recursive) {
            let (started, before) = (Instant::now(), connection.checks());
            connection.progress.begin(time, begins_again);
            let mut visitor = V::default();
            let outcome = connection.run(&checked.script, &params, &mut |row| visitor.row(row));
            checked.cost.note(RunCost { checks: connection.checks() - before, took: started.elapsed() });
            if outcome.is_ok() || !connection.progress.was_long.load(Ordering::Relaxed) {
                return outcome.map(|changed| (visitor, changed));
            }
        }
        let script = checked.script.clone();
        let (outcome, run_cost) = self
            .run_on_worker(time, move |connection| {
                let (began, before) = (cpu_of_this_thread(), connection.checks());
                let mut visitor = V::default();
                let outcome = connection.run(&script, &params, &mut |row| visitor.row(row));
                let run_cost = RunCost { checks: connection.checks() - before, took: cpu_of_this_thread().saturating_sub(began) };
                (outcome.map(|changed| (visitor, changed)), run_cost)
            })
            .await
            // It ran into its time-out: its next runs are on a worker thread.
            .inspect_err(|_| checked.cost.note(RunCost { checks: u64::MAX, took: time }))?;
        checked.cost.note(run_cost);
        outcome
    }

    /// Runs a text of any number of statements without parameters, all within `time`, on a worker thread of the file.
    #[cfg(test)]
    pub async fn run_text(&mut self, sql: &str, time: Duration) -> Result<(), SqlError> {
        self.run_text_as(StatementOwner::Host, sql, time).await
    }

    /// As `run_text`, on behalf of a service's migration.
    pub async fn run_migration(&mut self, sql: &str, time: Duration) -> Result<(), SqlError> {
        self.run_text_as(StatementOwner::Migration, sql, time).await
    }

    /// As `run_text`, on behalf of a service: a batch of a back-fill may do what its statements may.
    pub async fn run_batch(&mut self, sql: &str, time: Duration) -> Result<(), SqlError> {
        self.run_text_as(StatementOwner::Service, sql, time).await
    }

    async fn run_text_as(&mut self, owner: StatementOwner, sql: &str, time: Duration) -> Result<(), SqlError> {
        let sql = sql.to_owned();
        self.checkout()?.connection()?.run_as(owner)?;
        self.run_on_worker(time, move |connection| connection.sqlite.execute_batch(&sql).map_err(errors::from_rusqlite)).await?
    }

    /// Does the work on a worker thread of the file. Where that does not end in its time, or nobody waits for it any more, the connection goes back when
    /// it does: until then the file has one less.
    pub(super) async fn run_on_worker<T: Send + 'static>(
        &mut self,
        time: Duration,
        work: impl FnOnce(&SqliteConnection) -> T + Send + 'static,
    ) -> Result<T, SqlError> {
        let mut checkout = self.checkout.take().ok_or_else(closed)?;
        let connection = checkout.connection()?;
        connection.progress.is_cancelled.store(false, Ordering::Relaxed);
        let (progress, interrupt) = (connection.progress.clone(), connection.interrupt.clone());
        let workers = checkout.pool.workers.clone();
        let (answers, mut answer) = oneshot::channel();
        workers.run(Box::new(move || {
            let Ok(connection) = checkout.connection() else { return };
            connection.progress.begin(time, false);
            let outcome = work(connection);
            // The caller has gone away: dropping the checkout rolls back what is open and returns the connection.
            drop(answers.send((checkout, outcome)));
        }))?;
        // Dropped before the channel: a connection that was returned to the pool is never interrupted.
        let mut cancel = CancelOnDrop { progress, interrupt, is_answered: false };
        let answered = tokio::time::timeout(time + Duration::from_millis(limits::SQLITE_ANSWER_MARGIN_MS), &mut answer).await;
        match answered {
            Ok(Ok((checkout, outcome))) => {
                cancel.is_answered = true;
                self.checkout = Some(checkout);
                Ok(outcome)
            }
            Ok(Err(_)) => {
                cancel.is_answered = true;
                Err(SqlError::new(ErrorClass::Unavailable, "the statement broke off"))
            }
            Err(_) => Err(SqlError {
                sqlstate: Some("57014".to_owned()),
                ..SqlError::new(ErrorClass::Timeout, "the statement does not end in its time; it is left behind")
            }),
        }
    }

    fn start(&mut self) -> Result<&SqliteConnection, SqlError> {
        let connection = self.checkout()?.connection()?;
        connection.run_as(StatementOwner::Host)?;
        connection.progress.begin(Duration::from_millis(limits::SQL_TIMEOUT_MS), false);
        Ok(connection)
    }

    pub(super) fn checkout(&mut self) -> Result<&mut Checkout, SqlError> {
        self.checkout
            .as_mut()
            .ok_or_else(|| SqlError::new(ErrorClass::Timeout, "a statement that did not end in its time has the connection"))
    }
}

fn cpu_of_this_thread() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32)
}

impl Checkout {
    pub(super) fn new(pool: &Arc<Pool>, connection: Option<SqliteConnection>, group: Group) -> Self {
        Self { pool: pool.clone(), session: Some(Session { connection, group, transaction: TransactionState::None }) }
    }

    fn session(&mut self) -> Result<&mut Session, SqlError> {
        self.session.as_mut().ok_or_else(closed)
    }

    pub(super) fn connection(&mut self) -> Result<&SqliteConnection, SqlError> {
        self.session()?.connection()
    }

    /// Its predecessor broke.
    pub(super) fn open_again(&mut self) -> Result<(), SqlError> {
        if let Some(session) = &mut self.session
            && session.connection.is_none()
        {
            session.connection = Some(SqliteConnection::open(&self.pool.settings)?);
        }
        Ok(())
    }

    /// Commits what has ended.
    pub(super) fn commit_group(&mut self) {
        let Some(session) = &mut self.session else { return };
        if !session.group.is_open() {
            return;
        }
        let began = Instant::now();
        let committed = session.connection().and_then(|connection| connection.control("COMMIT"));
        self.pool.flush_us.store(began.elapsed().as_micros() as u64, Ordering::Relaxed);
        if let Err(error) = &committed {
            tracing::error!(%error, "a commit failed");
        }
        // Before the members are answered: none may learn that the commit failed and still find its changes.
        session.clean();
        session.group.end(&committed);
    }
}

impl Session {
    pub(super) fn connection(&self) -> Result<&SqliteConnection, SqlError> {
        self.connection.as_ref().ok_or_else(closed)
    }

    /// The transaction is a part of the group from here on.
    fn end(&mut self) -> Result<(), SqlError> {
        if self.transaction == TransactionState::Savepoint {
            self.connection()?.control("RELEASE member")?;
        }
        self.transaction = TransactionState::None;
        Ok(())
    }

    fn roll_back(&mut self) -> Result<(), SqlError> {
        // SQLite rolls back by itself after some errors, and then the whole group.
        if self.is_rolled_back() {
            self.lose_group(&rolled_back());
        }
        let transaction = std::mem::replace(&mut self.transaction, TransactionState::None);
        if !self.group.is_open() {
            return Ok(());
        }
        match transaction {
            TransactionState::None => Ok(()),
            TransactionState::Outer => {
                self.connection()?.control("ROLLBACK")?;
                self.group.end(&Ok(()));
                Ok(())
            }
            TransactionState::Savepoint => {
                self.connection()?.control("ROLLBACK TO member")?;
                self.connection()?.control("RELEASE member")
            }
        }
    }

    fn is_rolled_back(&self) -> bool {
        self.group.is_open() && self.connection.as_ref().is_none_or(|connection| connection.sqlite.is_autocommit())
    }

    fn lose_group(&mut self, error: &SqlError) {
        self.transaction = TransactionState::None;
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

impl Drop for Checkout {
    fn drop(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        if let Err(error) = session.roll_back() {
            session.clean();
            session.lose_group(&error);
        }
        if session.is_rolled_back() {
            session.lose_group(&rolled_back());
        }
        if !session.group.is_open() {
            session.clean();
        }
        Pool::give_back(&self.pool, session.connection, session.group);
    }
}
