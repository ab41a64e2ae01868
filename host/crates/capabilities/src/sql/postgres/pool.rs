//! Connections to PostgreSQL: a pool for each login role, all of them within one budget. Own code, as the pools of the libraries each have a bound of their
//! own, and the bound here is the server's, over all roles.
//!
//! A connection returns to its pool without an open transaction or a running statement. Where a future was dropped in the middle of a statement (the client
//! vanished, a deadline passed), the connection is first drained and rolled back in the background, whatever the library believes of its state, or closed where
//! that fails. So a cancelled BEGIN poisons no connection.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Either, Executor, SqlSafeStr, Statement};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::errors;
use super::values;
use crate::sql::{ErrorClass, SqlError, Value};
use echo_base::limits;

/// How many connections there may be, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Of all roles together.
    pub open_max: usize,
    /// Of those, without work.
    pub idle_max: usize,
    pub lifetime: Duration,
    pub idle_time: Duration,
}

/// What the pools of one host share.
pub struct Budget {
    settings: PoolSettings,
    services_max: usize,
    /// One permit for each connection that services use.
    services: Arc<Semaphore>,
    /// Reserved for the host, so that services' statements never delay the relay of committed effects.
    host: Arc<Semaphore>,
    pools: Mutex<Vec<Weak<Inner>>>,
    is_closed: AtomicBool,
}

/// Who uses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    Service,
    Host,
}

impl Budget {
    pub fn new(settings: PoolSettings) -> Arc<Self> {
        let host = (settings.open_max / limits::POSTGRES_HOST_SHARE).max(1);
        let services = settings.open_max.saturating_sub(host).max(1);
        Arc::new(Self {
            services_max: services,
            settings,
            services: Arc::new(Semaphore::new(services)),
            host: Arc::new(Semaphore::new(host)),
            pools: Mutex::default(),
            is_closed: AtomicBool::new(false),
        })
    }

    /// Connections that services may use at the same time.
    pub fn services_max(&self) -> usize {
        self.services_max
    }

    fn semaphore(&self, share: Share) -> &Arc<Semaphore> {
        match share {
            Share::Service => &self.services,
            Share::Host => &self.host,
        }
    }

    fn pools(&self) -> Vec<Arc<Inner>> {
        let mut pools = self.pools.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.iter().filter_map(Weak::upgrade).collect()
    }

    /// Before one more is opened: while as many are open as may be, the one that has had no work for longest is closed. Whoever asks holds a permit and
    /// has no connection yet, so there is one.
    fn make_room(&self) {
        let pools = self.pools();
        let idle = |pool: &Arc<Inner>| pool.idle.lock().len();
        let in_use: usize = [&self.services, &self.host].iter().map(|semaphore| semaphore.available_permits()).sum();
        let in_use = self.settings.open_max.saturating_sub(in_use);
        let all_idle: usize = pools.iter().map(idle).sum();
        if in_use + all_idle <= self.settings.open_max {
            return;
        }
        let oldest = pools.iter().filter_map(|pool| Some((pool.idle.lock().first()?.since, pool))).min_by_key(|(since, _)| *since);
        if let Some((_, pool)) = oldest {
            let mut idle = pool.idle.lock();
            if !idle.is_empty() {
                drop(idle.remove(0));
            }
        }
    }

    /// Closes what has been idle or open for too long.
    pub fn tidy(&self) {
        for pool in self.pools() {
            pool.idle.lock().retain(|idle| idle.since.elapsed() < self.settings.idle_time && pool.is_good(&idle.open));
        }
    }

    /// Ends the pool: waits for the connections in use, at most a statement's time-out.
    pub async fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.services.close();
        self.host.close();
        let mut open = Vec::new();
        for pool in self.pools() {
            open.extend(pool.idle.lock().drain(..));
        }
        for idle in open {
            // The server notices that it is gone in any case.
            let _ = idle.open.connection.close().await;
        }
    }
}

/// The connections of one login role.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    options: PgConnectOptions,
    budget: Arc<Budget>,
    share: Share,
    /// Idle connections; the last one returned is taken first.
    idle: Mutex<Vec<Idle>>,
    /// Connections of an earlier generation have prepared statements for tables that have changed since.
    schema: AtomicU64,
}

struct Idle {
    open: Open,
    since: Instant,
}

struct Open {
    connection: PgConnection,
    opened_at: Instant,
    schema: u64,
}

impl Inner {
    fn is_good(&self, open: &Open) -> bool {
        open.opened_at.elapsed() < self.budget.settings.lifetime && open.schema == self.schema.load(Ordering::Acquire)
    }

    fn give_back(&self, open: Open) {
        let idle: usize = self.budget.pools().iter().map(|pool| pool.idle.lock().len()).sum();
        if self.is_good(&open) && idle < self.budget.settings.idle_max && !self.budget.is_closed.load(Ordering::Acquire) {
            self.idle.lock().push(Idle { open, since: Instant::now() });
        }
    }
}

/// A connection checked out of its pool; dropping it returns it.
pub struct Pooled {
    pool: Arc<Inner>,
    open: Option<Open>,
    permit: Option<OwnedSemaphorePermit>,
    /// A statement was begun and has not ended.
    is_busy: bool,
    in_transaction: bool,
    /// To be closed instead of returned.
    is_broken: bool,
}

/// Takes rows as they come.
pub trait Visit: Send {
    /// Errors end the statement and close the connection.
    fn row(&mut self, row: &PgRow) -> Result<(), SqlError>;
}

impl<F: FnMut(&PgRow) -> Result<(), SqlError> + Send> Visit for F {
    fn row(&mut self, row: &PgRow) -> Result<(), SqlError> {
        self(row)
    }
}

impl Pool {
    pub fn new(options: PgConnectOptions, budget: &Arc<Budget>, share: Share) -> Self {
        let inner = Arc::new(Inner { options, budget: budget.clone(), share, idle: Mutex::default(), schema: AtomicU64::new(0) });
        budget.pools.lock().push(Arc::downgrade(&inner));
        Self(inner)
    }

    /// Errors: `Timeout` where none is free within `SQL_TIMEOUT_MS`, `Unavailable` where the server cannot be reached.
    pub async fn take(&self) -> Result<Pooled, SqlError> {
        let budget = &self.0.budget;
        let closed = || SqlError::new(ErrorClass::Unavailable, "the database is closed");
        let semaphore = budget.semaphore(self.0.share).clone();
        let time = Duration::from_millis(limits::SQL_TIMEOUT_MS);
        let permit = match tokio::time::timeout(time, semaphore.acquire_owned()).await {
            Ok(permit) => permit.map_err(|_| closed())?,
            Err(_) => return Err(SqlError::new(ErrorClass::Timeout, "no connection to the database has become free")),
        };
        let mut pooled =
            Pooled { pool: self.0.clone(), open: None, permit: Some(permit), is_busy: false, in_transaction: false, is_broken: false };
        while let Some(Idle { open, .. }) = { self.0.idle.lock().pop() } {
            if self.0.is_good(&open) {
                pooled.open = Some(open);
                return Ok(pooled);
            }
        }
        budget.make_room();
        let schema = self.0.schema.load(Ordering::Acquire);
        let connection = match tokio::time::timeout(time, PgConnection::connect_with(&self.0.options)).await {
            // Whatever the reason: the database is unavailable.
            Ok(connection) => connection.map_err(|error| SqlError { class: ErrorClass::Unavailable, ..errors::from_sqlx(error) })?,
            Err(_) => return Err(SqlError::new(ErrorClass::Unavailable, "the database does not answer")),
        };
        pooled.open = Some(Open { connection, opened_at: Instant::now(), schema });
        Ok(pooled)
    }

    /// The tables have changed: connections with prepared statements from before are closed instead of reused.
    pub fn forget_statements(&self) {
        self.0.schema.fetch_add(1, Ordering::AcqRel);
        self.0.idle.lock().clear();
    }
}

impl Pooled {
    /// Statements of the host's own, without parameters; several at once are one implicit transaction, unless one is open.
    pub async fn raw(&mut self, sql: impl Into<String>) -> Result<(), SqlError> {
        self.raw_within(sql, Duration::from_millis(limits::SQL_TIMEOUT_MS)).await
    }

    /// Where the statements may take longer than others; the server is told so beforehand.
    pub async fn raw_within(&mut self, sql: impl Into<String>, time: Duration) -> Result<(), SqlError> {
        let sql = AssertSqlSafe(sql.into());
        self.during(time, async |connection| connection.execute(sqlx::raw_sql(sql)).await.map(drop).map_err(Failure::from)).await
    }

    pub async fn begin(&mut self, isolation: &'static str) -> Result<(), SqlError> {
        self.begin_with(isolation, "").await
    }

    /// `then`: what follows in the same message, before the transaction has a snapshot.
    pub async fn begin_with(&mut self, isolation: &'static str, then: &'static str) -> Result<(), SqlError> {
        // From here on, whatever becomes of the statement.
        self.in_transaction = true;
        self.raw(format!("BEGIN ISOLATION LEVEL {isolation}; {then}")).await
    }

    /// Errors: `Serialization` where it conflicted with another and changed nothing; `Unavailable` where the outcome is unknown.
    pub async fn commit(mut self) -> Result<(), SqlError> {
        let committed = self.raw("COMMIT").await;
        // Failed, it is rolled back.
        self.in_transaction = self.is_broken;
        committed
    }

    pub async fn rollback(mut self) -> Result<(), SqlError> {
        let outcome = self.raw("ROLLBACK").await;
        self.in_transaction = outcome.is_err();
        outcome
    }

    /// The number of changed rows. `keep`: the statement stays prepared.
    pub async fn run(&mut self, sql: &str, values: Vec<Value>, visit: &mut impl Visit) -> Result<u64, SqlError> {
        let hints = values::hints(sql, &values);
        let text = values::marked(sql, &hints);
        let text = AssertSqlSafe(text).into_sql_str();
        self.during(Duration::from_millis(limits::SQL_TIMEOUT_MS), async |connection| {
            let statement = connection.prepare_with(text.clone(), &hints).await?;
            let types = match statement.parameters() {
                Some(Either::Left(types)) => types,
                _ => &[],
            };
            if types.len() != values.len() {
                let message = format!("the statement has {} parameters, {} were given", types.len(), values.len());
                return Err(Failure::Refused(SqlError::new(ErrorClass::Other, message)));
            }
            let arguments = values::bind(values, types).map_err(Failure::Refused)?;
            let mut rows = connection.fetch_many(sqlx::query_with(text, arguments));
            let mut changed = 0;
            while let Some(next) = rows.next().await {
                match next? {
                    Either::Left(done) => changed = done.rows_affected(),
                    // What is left of the answer would have to be read before the next statement.
                    Either::Right(row) => visit.row(&row).map_err(Failure::Broken)?,
                }
            }
            Ok(changed)
        })
        .await
    }

    /// A statement of the host's own; its rows.
    pub async fn rows(&mut self, sql: &str, values: Vec<Value>) -> Result<Vec<Vec<Value>>, SqlError> {
        let mut rows = Vec::new();
        self.run(sql, values, &mut |row: &PgRow| {
            rows.push(values::row(row)?.0);
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// A statement of the host's own with arguments of the library's types.
    pub async fn rows_with(&mut self, sql: &'static str, arguments: sqlx::postgres::PgArguments) -> Result<Vec<PgRow>, SqlError> {
        self.during(Duration::from_millis(limits::SQL_TIMEOUT_MS), async |connection| {
            let rows = connection.fetch_all(sqlx::query_with(sql, arguments)).await?;
            Ok(rows)
        })
        .await
    }

    async fn during<T>(&mut self, time: Duration, work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Failure>) -> Result<T, SqlError> {
        let closed = || SqlError::new(ErrorClass::Unavailable, "the connection to the database is lost");
        if self.is_broken {
            return Err(closed());
        }
        let open = self.open.as_mut().ok_or_else(closed)?;
        self.is_busy = true;
        // The server ends a statement by itself; this is for one that does not answer.
        let time = time + Duration::from_millis(limits::POSTGRES_ANSWER_MARGIN_MS);
        let outcome = match tokio::time::timeout(time, work(&mut open.connection)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Broken(SqlError::new(ErrorClass::Unavailable, "the database does not answer"))),
        };
        self.is_busy = false;
        outcome.map_err(|failure| match failure {
            Failure::Refused(error) => error,
            Failure::Broken(error) => {
                self.is_broken = true;
                if error.class == ErrorClass::Unavailable {
                    // The server has ended, or the way to it is cut: the others lead nowhere either.
                    self.pool.idle.lock().clear();
                }
                error
            }
        })
    }
}

enum Failure {
    /// The connection is as it was.
    Refused(SqlError),
    Broken(SqlError),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let is_the_servers = matches!(error, sqlx::Error::Database(_));
        let error = errors::from_sqlx(error);
        // A server that ends closes its connections; a statement that is stale is prepared anew on another.
        let is_good = is_the_servers && error.class != ErrorClass::Unavailable && error.message != errors::PLAN_IS_STALE;
        if is_good { Self::Refused(error) } else { Self::Broken(error) }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let (Some(mut open), Some(permit)) = (self.open.take(), self.permit.take()) else { return };
        if self.is_broken {
            return;
        }
        let pool = self.pool.clone();
        if !self.is_busy && !self.in_transaction {
            pool.give_back(open);
            return;
        }
        // Outside of the runtime it is closed, which rolls back as well.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let time = Duration::from_millis(limits::SQL_TIMEOUT_MS + limits::POSTGRES_ANSWER_MARGIN_MS);
            // Also where no transaction is known: the statement that begins one may be under way.
            let ended = tokio::time::timeout(time, open.connection.execute(sqlx::raw_sql("ROLLBACK"))).await;
            if matches!(ended, Ok(Ok(_))) {
                pool.give_back(open);
            }
            drop(permit);
        });
    }
}
