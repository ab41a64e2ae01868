//! SQL on PostgreSQL 15 and later: a schema and a login role for each service, in one database that several hosts share. Knows no guests and no events'
//! meaning.
//!
//! Transactions, and statements that change rows outside of one, are SERIALIZABLE: a transaction that conflicts with another changes nothing and fails as
//! `Serialization`; a single statement that does is retried here. Reads outside a transaction see what is committed. Effects are rows of the outbox in the
//! service's schema, written at the transaction's end; the service's role may insert them and not read them.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgRow};
use tokio::sync::{Mutex, Notify};
use uuid::Uuid;

use self::admission::{Admission, Outcome};
pub use self::inspection::{Inspection, inspect};
pub use self::pool::PoolSettings;
use self::pool::{Budget, Pool, Pooled, Share, Visit};
use self::statement_check::{CheckedStatement, StatementCache};
use self::transaction::PostgresTransaction;
use super::migration::Backfill;
use super::{
    BackfillProgress, Database, Effect, ErrorClass, MigrateError, Migration, Outbox, Row, Rows, SqlBackend, SqlError, Transaction, Value,
};
use crate::certificates;
use echo_base::limits;
use echo_base::names::ServiceName;

mod admission;
mod backfill;
mod errors;
#[cfg(test)]
pub(crate) mod fixture;
pub mod import;
mod inspection;
mod migrate;
pub(crate) mod outbox;
pub(crate) mod pool;
mod roles;
pub(crate) mod rows;
mod statement_check;
#[cfg(test)]
mod tests;
mod transaction;
pub(crate) mod values;

pub(crate) use self::roles::{HOST_SCHEMA, quoted, schema_of};

/// <https://www.postgresql.org/docs/15/runtime-config-preset.html>: `server_version_num`
const VERSION_MIN: u32 = 150_000;
/// The key of an advisory lock; no other code uses the same.
const SETUP_LOCK: i64 = 0x4563_686f_0001;
const SERIALIZABLE: &str = "SERIALIZABLE";
const READ_COMMITTED: &str = "READ COMMITTED";

/// A database on a server.
pub struct PostgresBackend {
    shared: Arc<Shared>,
    open: Mutex<HashMap<ServiceName, Arc<PostgresDatabase>>>,
}

/// Shared by the databases of services, the feed and the relay.
pub struct Shared {
    options: PgConnectOptions,
    database: String,
    /// The name of this host, unlike those of all others on this database.
    pub(crate) node: String,
    key: roles::RoleKey,
    budget: Arc<Budget>,
    /// The host's own connections, of the role in `sql.url`.
    pub(crate) host: Pool,
}

impl PostgresBackend {
    /// Connects, and makes the host's own schema where it is missing. Errors: `Unavailable` where the server cannot be reached, `Other` with the reason where
    /// it does not do.
    /// `node` names this host among those of the database: no other has it.
    pub async fn connect(url: &str, node: &str, settings: PoolSettings) -> Result<Self, SqlError> {
        Self::connect_to(url, node, settings, false).await
    }

    /// For `echod migrate`, which fills it (`import`). No host connects to it meanwhile.
    pub async fn connect_to_fill(url: &str, settings: PoolSettings) -> Result<Self, SqlError> {
        Self::connect_to(url, "echod migrate", settings, true).await
    }

    async fn connect_to(url: &str, node: &str, settings: PoolSettings, fills: bool) -> Result<Self, SqlError> {
        let options = options_of(url)?;
        let database = options.get_database().unwrap_or_default().to_owned();
        let budget = Budget::new(settings);
        let search_path = format!("{HOST_SCHEMA},pg_temp");
        let host = Pool::new(session(options.clone(), "echo", &search_path), &budget, Share::Host);
        let mut connection = host.take().await.map_err(|error| match certificates::of_text(&error.message) {
            Some(refusal) => SqlError { message: refusal, ..error },
            None => error,
        })?;
        let version = integer(connection.rows("SELECT current_setting('server_version_num')::int", vec![]).await?)?;
        if version < i64::from(VERSION_MIN) {
            return Err(SqlError::new(ErrorClass::Other, format!("PostgreSQL is {version}; it has to be {VERSION_MIN} (15) or later")));
        }
        connection.begin(READ_COMMITTED).await?;
        connection.rows("SELECT pg_advisory_xact_lock($1)::text", vec![Value::S64(SETUP_LOCK)]).await?;
        let name = quoted(&database);
        connection
            .raw(format!(
                "CREATE SCHEMA IF NOT EXISTS {HOST_SCHEMA};
                 REVOKE ALL ON SCHEMA {HOST_SCHEMA} FROM PUBLIC;
                 REVOKE ALL ON SCHEMA public FROM PUBLIC;
                 REVOKE CREATE, TEMPORARY ON DATABASE {name} FROM PUBLIC;
                 CREATE TABLE IF NOT EXISTS {HOST_SCHEMA}.setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
                 INSERT INTO {HOST_SCHEMA}.setting (name, value) VALUES ('role_salt', '{salt}') ON CONFLICT (name) DO NOTHING;
                 CREATE TABLE IF NOT EXISTS {HOST_SCHEMA}.source (service TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
                salt = Uuid::new_v4().simple(),
            ))
            .await?;
        connection.raw(format!("{}; {}", outbox::TABLES, migrate::TABLES)).await?;
        let may_not = "SELECT has_database_privilege('public', current_database(), 'TEMPORARY')::int";
        if integer(connection.rows(may_not, vec![]).await?)? != 0 {
            let message = format!("services could make temporary tables: the role in sql.url has to own the database {database}");
            return Err(SqlError::new(ErrorClass::Other, message));
        }
        let salt = text(connection.rows("SELECT value FROM setting WHERE name = 'role_salt'", vec![]).await?)?;
        let unfinished = connection.rows("SELECT value FROM setting WHERE name = $1", vec![import::UNFINISHED.into()]).await?;
        connection.commit().await?;
        if !fills && !unfinished.is_empty() {
            let from = text(unfinished)?;
            let message = format!(
                "the database is half filled from {from}: run that `echod migrate` again, which begins anew, or name another database"
            );
            return Err(SqlError::new(ErrorClass::Other, message));
        }
        let key = roles::RoleKey::new(&password_of(url), salt.as_bytes());
        let shared = Arc::new(Shared { options, database, node: node.to_owned(), key, budget, host });
        Ok(Self { shared, open: Mutex::default() })
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Closes connections that have been idle or open for too long; to be called now and then.
    pub fn tidy(&self) {
        self.shared.budget.tidy();
    }
}

/// Errors: what is wrong with the address.
pub fn options_of(url: &str) -> Result<PgConnectOptions, SqlError> {
    let bad = |reason: String| SqlError::new(ErrorClass::Other, reason);
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Err(bad("it begins with postgres://".to_owned()));
    }
    // The address is not repeated: it has a password in it.
    let options = PgConnectOptions::from_str(url).map_err(|_| bad("it is no address of a PostgreSQL database".to_owned()))?;
    if options.get_database().is_none_or(str::is_empty) {
        return Err(bad("it names no database".to_owned()));
    }
    Ok(options.disable_statement_logging().statement_cache_capacity(limits::POSTGRES_STATEMENTS_KEPT))
}

fn password_of(url: &str) -> String {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?']).next().unwrap_or(""));
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    user.split_once(':').map_or(String::new(), |(_, password)| password.to_owned())
}

/// The settings of every connection.
fn session(options: PgConnectOptions, name: &str, search_path: &str) -> PgConnectOptions {
    let idle_ms = limits::SQL_TIMEOUT_MS + limits::POSTGRES_IDLE_IN_TRANSACTION_MS;
    options.application_name(name).options([
        // Temporary tables come last, so that none stands before a service's own.
        ("search_path", search_path.to_owned()),
        ("statement_timeout", limits::SQL_TIMEOUT_MS.to_string()),
        ("idle_in_transaction_session_timeout", idle_ms.to_string()),
        // A statement whose host is gone is ended, so that it releases its locks.
        ("client_connection_check_interval", limits::POSTGRES_PEER_CHECK_MS.to_string()),
        ("synchronous_commit", "on".to_owned()),
        ("standard_conforming_strings", "on".to_owned()),
        // That a table is there already is no news.
        ("client_min_messages", "warning".to_owned()),
        ("timezone", "UTC".to_owned()),
        ("jit", "off".to_owned()),
        // SERIALIZABLE locks what it has read: by an index those rows, by a sequential scan the whole table, which then conflicts with every write to it. So an
        // index is used however small the table is.
        ("enable_seqscan", "off".to_owned()),
    ])
}

impl Shared {
    fn pool_of(&self, service: &ServiceName, role: &str) -> Pool {
        let options = self.options.clone().username(role).password(&self.key.password_of(role));
        let search_path = format!("{},pg_temp", quoted(&schema_of(service)));
        Pool::new(session(options, &format!("echo {service}"), &search_path), &self.budget, Share::Service)
    }

    /// The service's schema, role and source; the source's name.
    async fn prepare(&self, service: &ServiceName, role: &str) -> Result<String, SqlError> {
        let mut host = self.host.take().await?;
        host.begin(READ_COMMITTED).await?;
        host.rows("SELECT pg_advisory_xact_lock($1)::text", vec![Value::S64(SETUP_LOCK)]).await?;
        roles::make(&mut host, service, role, &self.key.password_of(role)).await?;
        host.raw(format!("GRANT CONNECT ON DATABASE {} TO {}", quoted(&self.database), quoted(role))).await?;
        let fresh = format!("{service}:{}", Uuid::new_v4().simple());
        let put = "INSERT INTO source (service, name) VALUES ($1, $2) ON CONFLICT (service) DO UPDATE SET service = excluded.service RETURNING name";
        let name = text(host.rows(put, vec![service.as_str().into(), fresh.into()]).await?)?;
        host.commit().await?;
        Ok(name)
    }
}

fn integer(rows: Vec<Row>) -> Result<i64, SqlError> {
    match rows.into_iter().next().and_then(|row| row.into_iter().next()) {
        Some(Value::S64(number)) => Ok(number),
        other => Err(SqlError::new(ErrorClass::Other, format!("a number was expected, not {other:?}"))),
    }
}

fn text(rows: Vec<Row>) -> Result<String, SqlError> {
    match rows.into_iter().next().and_then(|row| row.into_iter().next()) {
        Some(Value::Text(text)) => Ok(text),
        _ => Err(SqlError::new(ErrorClass::Other, "a text was expected")),
    }
}

#[async_trait]
impl SqlBackend for PostgresBackend {
    async fn open(&self, service: &ServiceName) -> Result<Arc<dyn Database>, SqlError> {
        let mut open = self.open.lock().await;
        if let Some(database) = open.get(service) {
            return Ok(database.clone());
        }
        let shared = &self.shared;
        let role = roles::role_of(&shared.database, service)?;
        let source = shared.prepare(service, &role).await?;
        let pool = shared.pool_of(service, &role);
        match pool.take().await {
            Ok(connection) => drop(connection),
            // The password in `sql.url` has changed, from which the roles' are derived.
            Err(error) if error.sqlstate.as_deref() == Some("28P01") => {
                roles::renew_password(&mut shared.host.take().await?, &role, &shared.key.password_of(&role)).await?;
                drop(pool.take().await?);
            }
            Err(error) => return Err(error),
        }
        let database = Arc::new(PostgresDatabase(Arc::new(Core {
            service: service.clone(),
            role,
            source,
            node: shared.node.clone(),
            host: shared.host.clone(),
            pool,
            statements: StatementCache::default(),
            admission: Admission::new(shared.budget.services_max()),
            outbox: outbox::Written::default(),
        })));
        open.insert(service.clone(), database.clone());
        Ok(database)
    }

    fn dialect(&self) -> &'static str {
        "postgres"
    }

    async fn close(&self) {
        self.open.lock().await.clear();
        self.shared.budget.close().await;
    }
}

/// One service's database, shared by all its callers.
pub struct PostgresDatabase(Arc<Core>);

struct Core {
    service: ServiceName,
    role: String,
    source: String,
    node: String,
    host: Pool,
    pool: Pool,
    statements: StatementCache,
    admission: Arc<Admission>,
    outbox: outbox::Written,
}

impl Core {
    fn deployer(&self) -> migrate::Deployer<'_> {
        migrate::Deployer { host: &self.host, service: &self.service, role: &self.role, node: &self.node }
    }

    fn check(&self, sql: &str, params: &[Value]) -> Result<Arc<CheckedStatement>, SqlError> {
        let checked = self.statements.check(sql)?;
        if params.len() != checked.params {
            let message = format!("the statement has {} parameters, {} were given", checked.params, params.len());
            return Err(SqlError::new(ErrorClass::Other, message));
        }
        Ok(checked)
    }

    /// One statement outside a transaction.
    async fn run(&self, sql: &str, params: Vec<Value>, first: bool) -> Result<(Rows, u64), SqlError> {
        let checked = self.check(sql, &params)?;
        if !checked.changes {
            return collect(&mut self.pool.take().await?, &checked, params, first).await;
        }
        let mut outcomes = self.again(&[(checked, params)], first).await?;
        outcomes.pop().ok_or_else(|| SqlError::new(ErrorClass::Other, "a statement has an outcome"))
    }

    /// Runs statements in a transaction of their own. On a conflict it is retried for a while, which is safe as no result has been returned yet.
    async fn again(&self, statements: &[(Arc<CheckedStatement>, Vec<Value>)], only_first: bool) -> Result<Vec<(Rows, u64)>, SqlError> {
        let mut tries = 1;
        loop {
            let mut admitted = self.admission.admit().await?;
            let outcome = self.once(statements, only_first, turn_after(tries - 1)).await;
            let collided = outcome.as_ref().is_err_and(|error| error.class == ErrorClass::Serialization);
            admitted.note(match &outcome {
                Ok(_) => Outcome::Committed,
                Err(_) if collided => Outcome::Collided,
                Err(_) => Outcome::Other,
            });
            if !collided || tries >= limits::POSTGRES_STATEMENT_TRIES_MAX {
                return outcome;
            }
            tries += 1;
        }
    }

    async fn once(
        &self,
        statements: &[(Arc<CheckedStatement>, Vec<Value>)],
        only_first: bool,
        turn: &'static str,
    ) -> Result<Vec<(Rows, u64)>, SqlError> {
        let mut connection = self.pool.take().await?;
        connection.begin_with(SERIALIZABLE, turn).await?;
        let mut outcomes = Vec::with_capacity(statements.len());
        for (checked, params) in statements {
            match collect(&mut connection, checked, params.clone(), only_first).await {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => {
                    // The error that matters is the statement's; a connection that cannot be rolled back is closed.
                    let _ = connection.rollback().await;
                    return Err(error);
                }
            }
        }
        connection.commit().await?;
        Ok(outcomes)
    }
}

/// What a transaction begins with that collided so often before. All that change something of the service, on all hosts, hold a lock beside each other; whoever
/// collided again and again takes it alone: waits until the others have ended, and keeps those out that come later, so that there is nothing to collide with.
/// `LOCK` takes no snapshot: the one who waited sees what the others have committed.
fn turn_after(collisions: u32) -> &'static str {
    match collisions {
        0..limits::POSTGRES_COLLISIONS_BESIDE_OTHERS => "LOCK TABLE _echo_turn IN ROW SHARE MODE",
        _ => "LOCK TABLE _echo_turn IN EXCLUSIVE MODE",
    }
}

/// Collects rows within the bounds.
#[derive(Default)]
struct Collector {
    rows: Rows,
    bytes: usize,
    /// The others are passed over.
    only_first: bool,
}

impl Visit for Collector {
    fn row(&mut self, row: &PgRow) -> Result<(), SqlError> {
        let too_large = |what: String| Err(SqlError::new(ErrorClass::TooLarge, what));
        if self.only_first && !self.rows.rows.is_empty() {
            return Ok(());
        }
        if self.rows.columns.is_empty() {
            self.rows.columns = values::columns(row);
            if self.rows.columns.len() > limits::SQL_COLUMNS_MAX {
                return too_large(format!("more than {} columns", limits::SQL_COLUMNS_MAX));
            }
        }
        let (row, bytes) = values::row(row)?;
        self.bytes += bytes;
        if self.rows.rows.len() >= limits::SQL_ROWS_MAX {
            return too_large(format!("more than {} rows", limits::SQL_ROWS_MAX));
        }
        if self.bytes > limits::SQL_RESULT_BYTES_MAX {
            return too_large(format!("more than {} bytes", limits::SQL_RESULT_BYTES_MAX));
        }
        self.rows.rows.push(row);
        Ok(())
    }
}

/// Rows and changed rows of one checked statement.
async fn collect(
    connection: &mut Pooled,
    checked: &CheckedStatement,
    params: Vec<Value>,
    only_first: bool,
) -> Result<(Rows, u64), SqlError> {
    let mut collector = Collector { only_first, ..Collector::default() };
    let changed = connection.run(&checked.sql, params, &mut collector).await?;
    Ok((collector.rows, if checked.changes { changed } else { 0 }))
}

#[async_trait]
impl Database for PostgresDatabase {
    async fn query(&self, sql: &str, params: Vec<Value>) -> Result<Rows, SqlError> {
        self.0.run(sql, params, false).await.map(|(rows, _)| rows)
    }

    async fn query_one(&self, sql: &str, params: Vec<Value>) -> Result<Option<Row>, SqlError> {
        self.0.run(sql, params, true).await.map(|(rows, _)| rows.rows.into_iter().next())
    }

    async fn execute(&self, sql: &str, params: Vec<Value>) -> Result<u64, SqlError> {
        self.0.run(sql, params, false).await.map(|(_, changed)| changed)
    }

    async fn batch(&self, statements: Vec<(String, Vec<Value>)>) -> Result<Vec<u64>, SqlError> {
        if statements.len() > limits::SQL_BATCH_MAX {
            return Err(SqlError::new(ErrorClass::TooLarge, format!("more than {} statements", limits::SQL_BATCH_MAX)));
        }
        let mut all = Vec::with_capacity(statements.len());
        for (sql, params) in statements {
            all.push((self.0.check(&sql, &params)?, params));
        }
        if all.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.0.again(&all, false).await?.into_iter().map(|(_, changed)| changed).collect())
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>, SqlError> {
        self.begin_after(0).await
    }

    async fn begin_after(&self, collisions: u32) -> Result<Box<dyn Transaction>, SqlError> {
        let admitted = self.0.admission.admit().await?;
        let mut connection = self.0.pool.take().await?;
        connection.begin_with(SERIALIZABLE, turn_after(collisions)).await?;
        let transaction =
            PostgresTransaction { core: self.0.clone(), connection, admitted, failed: false, pending: outbox::Pending::default() };
        Ok(Box::new(transaction))
    }

    async fn emit(&self, effects: Vec<Effect>) -> Result<(), SqlError> {
        let mut transaction = self.begin().await?;
        for effect in effects {
            transaction.emit(effect).await?;
        }
        transaction.commit().await
    }

    async fn apply_migrations(&self, migrations: &[Migration], time: Duration) -> Result<Vec<String>, MigrateError> {
        let applied = migrate::apply(&self.0.deployer(), migrations, time).await;
        self.0.pool.forget_statements();
        applied
    }

    async fn rehearse_migrations(&self, migrations: &[Migration], time: Duration) -> Result<Vec<String>, MigrateError> {
        migrate::rehearse(&self.0.deployer(), migrations, time).await
    }

    async fn confirm_migrations(&self, names: &[String]) -> Result<(), MigrateError> {
        migrate::confirm(&self.0.deployer(), names).await
    }

    async fn undo_migrations(&self) -> Result<Vec<String>, MigrateError> {
        let undone = migrate::undo(&self.0.deployer()).await;
        self.0.pool.forget_statements();
        undone
    }

    async fn pending(&self, migrations: &[Migration]) -> Result<Vec<String>, MigrateError> {
        migrate::pending(&self.0.host, &self.0.service, migrations).await
    }

    async fn backfill(&self, backfill: &Backfill, rows_max: usize, time: Duration) -> Result<BackfillProgress, MigrateError> {
        backfill::run(&self.0.host, &self.0.service, backfill, rows_max, time).await
    }

    async fn backfill_progress(&self, name: &str) -> Result<Option<BackfillProgress>, SqlError> {
        backfill::progress(&mut self.0.host.take().await?, &self.0.service, name).await
    }

    async fn restart_backfill(&self, name: &str) -> Result<(), SqlError> {
        backfill::restart(&self.0.host, &self.0.service, name).await
    }

    async fn ping(&self) -> Result<(), SqlError> {
        self.0.pool.take().await?.raw("SELECT 1").await
    }
}

#[async_trait]
impl Outbox for PostgresDatabase {
    fn source(&self) -> &str {
        &self.0.source
    }

    fn signal(&self) -> Arc<Notify> {
        self.0.outbox.signal()
    }

    /// No receiver keeps positions of this outbox: the transaction that appends an effect to a feed or the log of events also removes it here.
    fn start_above(&self, _: i64) {}

    async fn peek(&self, after: i64, limit: usize) -> Result<Vec<(i64, Effect)>, SqlError> {
        outbox::peek(&self.0.host, &schema_of(&self.0.service), after, limit).await
    }

    fn refuse_events(&self, refuse: bool) {
        self.0.outbox.refuse_events(refuse);
    }

    async fn remove_up_to(&self, position: i64) -> Result<(), SqlError> {
        outbox::remove_up_to(&self.0.host, &schema_of(&self.0.service), position).await
    }
}
