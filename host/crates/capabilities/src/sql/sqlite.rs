//! SQL on SQLite: one file per service, one writer, a few readers. Knows no guests and no events' meaning.
//!
//! A transaction has the writer from its `begin`; SQL's `BEGIN` comes with its first statement, and its effects are written at its end. It is answered, and its
//! effects are relayed, when the commit that it shares with others is on the disk. Reads outside a transaction see only what is committed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, Notify};

use self::outbox::{Pending, SqliteOutbox};
pub use self::pool::Durability;
use self::pool::{File, PooledConnection, Visit};
use self::script::Script;
use self::statement_check::{CheckedStatement, StatementCache};
use self::values::Params;
use super::migration::Backfill;
use super::{
    BackfillProgress, Database, Effect, ErrorClass, MigrateError, Migration, Outbox, Row, Rows, SqlBackend, SqlError, Transaction, Value,
};
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_base::private_file;

mod backfill;
mod errors;
pub mod export;
mod functions;
mod migrate;
pub mod outbox;
pub mod pool;
pub mod script;
mod statement_check;
pub use self::pool::snapshot;
mod progress;
pub mod values;
mod workers;

/// Whether services and their migrations may use the function.
pub use self::functions::is_allowed as is_service_function;

/// A folder of databases, `<folder>/<service>.sqlite`.
pub struct SqliteBackend {
    folder: PathBuf,
    durability: Durability,
    /// The largest that one service's database may become.
    bytes_max: Option<u64>,
    open: Mutex<HashMap<ServiceName, Arc<SqliteDatabase>>>,
}

impl SqliteBackend {
    /// Commits survive a loss of power.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self::with_durability(folder, Durability::default())
    }

    pub fn with_durability(folder: impl Into<PathBuf>, durability: Durability) -> Self {
        Self { folder: folder.into(), durability, bytes_max: None, open: Mutex::new(HashMap::new()) }
    }

    /// The open files, with their services.
    pub async fn files(&self) -> Vec<(ServiceName, Arc<File>)> {
        self.open.lock().await.iter().map(|(service, database)| (service.clone(), database.0.file.clone())).collect()
    }

    /// No service's database grows beyond so many bytes.
    pub fn within(self, bytes_max: u64) -> Self {
        Self { bytes_max: Some(bytes_max), ..self }
    }
}

#[async_trait]
impl SqlBackend for SqliteBackend {
    async fn open(&self, service: &ServiceName) -> Result<Arc<dyn Database>, SqlError> {
        let mut open = self.open.lock().await;
        if let Some(database) = open.get(service) {
            return Ok(database.clone());
        }
        let folder = &self.folder;
        private_file::create_folder(folder)
            .map_err(|error| SqlError::new(ErrorClass::Unavailable, format!("{}: {error}", folder.display())))?;
        let file = Arc::new(File::open_within(&folder.join(format!("{service}.sqlite")), self.durability, self.bytes_max).await?);
        let outbox = SqliteOutbox::open(&file, service.as_str()).await?;
        let database = Arc::new(SqliteDatabase(Arc::new(Core {
            file,
            outbox,
            statements: StatementCache::default(),
            append: Script::new(outbox::APPEND),
        })));
        open.insert(service.clone(), database.clone());
        Ok(database)
    }

    fn dialect(&self) -> &'static str {
        "sqlite"
    }

    async fn close(&self) {
        let databases = std::mem::take(&mut *self.open.lock().await);
        for database in databases.into_values() {
            database.0.file.close().await;
        }
    }
}

/// One service's database, shared by all its callers.
struct SqliteDatabase(Arc<Core>);

/// Shared by a database and its transactions.
struct Core {
    file: Arc<File>,
    outbox: Arc<SqliteOutbox>,
    statements: StatementCache,
    append: Script,
}

impl Core {
    fn check(&self, sql: &str, params: &[Value]) -> Result<Arc<CheckedStatement>, SqlError> {
        let checked = self.statements.check(sql)?;
        if params.len() != checked.params {
            let message = format!("the statement has {} parameters, {} were given", checked.params, params.len());
            return Err(SqlError::new(ErrorClass::Other, message));
        }
        Ok(checked)
    }

    /// One statement outside a transaction.
    async fn run(&self, sql: &str, params: Vec<Value>) -> Result<(Rows, u64), SqlError> {
        let checked = self.check(sql, &params)?;
        if checked.reads {
            return collect(&mut self.file.reader().await?, &checked, params).await;
        }
        let mut writer = self.begin_for(&checked).await?;
        let outcome = collect(&mut writer, &checked, params).await;
        end(writer, outcome).await
    }

    /// The writer, with a transaction begun for this statement. Before a statement that may take long the group is committed: interrupting it would roll back
    /// the group's other transactions.
    async fn begin_for(&self, checked: &CheckedStatement) -> Result<PooledConnection, SqlError> {
        let mut writer = self.file.writer().await?;
        begin_for(&mut writer, checked)?;
        Ok(writer)
    }
}

fn begin_for(writer: &mut PooledConnection, checked: &CheckedStatement) -> Result<(), SqlError> {
    if !checked.cost.is_quick() {
        writer.commit_others()?;
    }
    writer.begin()
}

/// Ends a transaction of one statement with its outcome.
async fn end<T>(writer: PooledConnection, outcome: Result<T, SqlError>) -> Result<T, SqlError> {
    match outcome {
        Ok(value) => writer.commit(None).await.map(|()| value),
        Err(error) => {
            writer.rollback().await?;
            Err(error)
        }
    }
}

/// Collects rows within the bounds.
#[derive(Default)]
struct Collector {
    rows: Rows,
    bytes: usize,
}

impl Visit for Collector {
    fn row(&mut self, row: &values::Row<'_>) -> Result<bool, SqlError> {
        if self.rows.columns.is_empty() {
            self.rows.columns = values::columns(row);
            if self.rows.columns.len() > limits::SQL_COLUMNS_MAX {
                return Err(SqlError::new(ErrorClass::TooLarge, format!("more than {} columns", limits::SQL_COLUMNS_MAX)));
            }
        }
        let (row, bytes) = values::row(row)?;
        self.bytes += bytes;
        if self.rows.rows.len() >= limits::SQL_ROWS_MAX {
            return Err(SqlError::new(ErrorClass::TooLarge, format!("more than {} rows", limits::SQL_ROWS_MAX)));
        }
        if self.bytes > limits::SQL_RESULT_BYTES_MAX {
            return Err(SqlError::new(ErrorClass::TooLarge, format!("more than {} bytes", limits::SQL_RESULT_BYTES_MAX)));
        }
        self.rows.rows.push(row);
        Ok(true)
    }
}

/// Takes the first row.
#[derive(Default)]
struct First(Collector);

impl Visit for First {
    fn row(&mut self, row: &values::Row<'_>) -> Result<bool, SqlError> {
        self.0.row(row).map(|_| false)
    }
}

/// Rows and changed rows of one checked statement.
async fn collect(pooled: &mut PooledConnection, checked: &CheckedStatement, params: Vec<Value>) -> Result<(Rows, u64), SqlError> {
    let (collector, changed) = pooled.run_service_statement::<Collector>(checked, values::bind(params)?).await?;
    let changed = if checked.changes { changed.last().copied().unwrap_or(0) } else { 0 };
    Ok((collector.rows, changed))
}

/// The first row. A read ends there; a change is always run to its end.
async fn first(pooled: &mut PooledConnection, checked: &CheckedStatement, params: Vec<Value>) -> Result<Option<Row>, SqlError> {
    if checked.changes {
        let (rows, _) = collect(pooled, checked, params).await?;
        return Ok(rows.rows.into_iter().next());
    }
    let (First(mut collector), _) = pooled.run_service_statement::<First>(checked, values::bind(params)?).await?;
    Ok(collector.rows.rows.pop())
}

#[async_trait]
impl Database for SqliteDatabase {
    async fn query(&self, sql: &str, params: Vec<Value>) -> Result<Rows, SqlError> {
        self.0.run(sql, params).await.map(|(rows, _)| rows)
    }

    async fn query_one(&self, sql: &str, params: Vec<Value>) -> Result<Option<Row>, SqlError> {
        let checked = self.0.check(sql, &params)?;
        if checked.reads {
            return first(&mut self.0.file.reader().await?, &checked, params).await;
        }
        let mut writer = self.0.begin_for(&checked).await?;
        let outcome = first(&mut writer, &checked, params).await;
        end(writer, outcome).await
    }

    async fn execute(&self, sql: &str, params: Vec<Value>) -> Result<u64, SqlError> {
        self.0.run(sql, params).await.map(|(_, changed)| changed)
    }

    async fn batch(&self, statements: Vec<(String, Vec<Value>)>) -> Result<Vec<u64>, SqlError> {
        if statements.len() > limits::SQL_BATCH_MAX {
            return Err(SqlError::new(ErrorClass::TooLarge, format!("more than {} statements", limits::SQL_BATCH_MAX)));
        }
        let mut all = Vec::with_capacity(statements.len());
        for (sql, params) in statements {
            all.push((self.0.check(&sql, &params)?, params));
        }
        let Some((first, _)) = all.first() else { return Ok(Vec::new()) };
        let mut writer = self.0.begin_for(first).await?;
        let outcome = async {
            let mut counts = Vec::with_capacity(all.len());
            for (checked, params) in all {
                counts.push(collect(&mut writer, &checked, params).await?.1);
            }
            Ok(counts)
        };
        let outcome = outcome.await;
        end(writer, outcome).await
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>, SqlError> {
        self.0.outbox.room().await;
        let writer = self.0.file.writer().await?;
        let transaction = SqliteTransaction { core: self.0.clone(), writer, begun: false, failed: false, pending: Pending::default() };
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
        migrate::apply(&self.0.file, migrations, time).await
    }

    async fn rehearse_migrations(&self, migrations: &[Migration], time: Duration) -> Result<Vec<String>, MigrateError> {
        migrate::rehearse(&self.0.file, migrations, time).await
    }

    async fn confirm_migrations(&self, names: &[String]) -> Result<(), MigrateError> {
        migrate::confirm(&self.0.file, names).await
    }

    async fn undo_migrations(&self) -> Result<Vec<String>, MigrateError> {
        migrate::undo(&self.0.file).await
    }

    async fn pending(&self, migrations: &[Migration]) -> Result<Vec<String>, MigrateError> {
        migrate::pending(&self.0.file, migrations).await
    }

    async fn backfill(&self, backfill: &Backfill, rows_max: usize, time: Duration) -> Result<BackfillProgress, MigrateError> {
        backfill::run(&self.0.file, backfill, rows_max, time).await
    }

    async fn backfill_progress(&self, name: &str) -> Result<Option<BackfillProgress>, SqlError> {
        backfill::progress(&self.0.file, name).await
    }

    async fn restart_backfill(&self, name: &str) -> Result<(), SqlError> {
        backfill::restart(&self.0.file, name).await
    }

    async fn ping(&self) -> Result<(), SqlError> {
        let script = Script::new("SELECT 1 FROM _echo_meta");
        self.0.file.reader().await?.run(&script, Params::default()).await.map(drop)
    }
}

#[async_trait]
impl Outbox for SqliteDatabase {
    fn source(&self) -> &str {
        self.0.outbox.source()
    }

    fn signal(&self) -> Arc<Notify> {
        self.0.outbox.signal()
    }

    fn start_above(&self, position: i64) {
        self.0.outbox.start_above(position);
    }

    async fn peek(&self, after: i64, limit: usize) -> Result<Vec<(i64, Effect)>, SqlError> {
        self.0.outbox.peek(&self.0.file, after, limit).await
    }

    fn rewind(&self) {
        self.0.outbox.rewind();
    }

    fn refuse_events(&self, refuse: bool) {
        self.0.outbox.refuse_events(refuse);
    }

    async fn remove_up_to(&self, position: i64) -> Result<(), SqlError> {
        self.0.outbox.remove_up_to(&self.0.file, position).await
    }
}

/// Holds the writer from the beginning; `BEGIN` runs before its first statement.
struct SqliteTransaction {
    core: Arc<Core>,
    writer: PooledConnection,
    begun: bool,
    /// A statement failed, or its future was dropped while it ran.
    failed: bool,
    pending: Pending,
}

impl SqliteTransaction {
    /// Marks the transaction as failed until the statement has succeeded, so that a dropped future counts as a failure.
    fn enter(&mut self) -> Result<(), SqlError> {
        if self.failed {
            return Err(SqlError {
                sqlstate: Some("25P02".to_owned()),
                ..SqlError::new(ErrorClass::Other, "a statement of this transaction failed: it can only be rolled back")
            });
        }
        self.failed = true;
        Ok(())
    }

    fn enter_with(&mut self, sql: &str, params: &[Value]) -> Result<Arc<CheckedStatement>, SqlError> {
        self.enter()?;
        let checked = self.core.check(sql, params)?;
        if !self.begun {
            begin_for(&mut self.writer, &checked)?;
            self.begun = true;
        }
        Ok(checked)
    }

    /// Writes the pending effects into the outbox.
    async fn append(&mut self) -> Result<(), SqlError> {
        if !self.begun {
            self.writer.begin()?;
            self.begun = true;
        }
        self.writer.run_rows(&self.core.append, &self.pending.take(&self.core.outbox)?).await
    }
}

#[async_trait]
impl Transaction for SqliteTransaction {
    async fn query(&mut self, sql: &str, params: Vec<Value>) -> Result<Rows, SqlError> {
        let checked = self.enter_with(sql, &params)?;
        let (rows, _) = collect(&mut self.writer, &checked, params).await?;
        self.failed = false;
        Ok(rows)
    }

    async fn query_one(&mut self, sql: &str, params: Vec<Value>) -> Result<Option<Row>, SqlError> {
        let checked = self.enter_with(sql, &params)?;
        let row = first(&mut self.writer, &checked, params).await?;
        self.failed = false;
        Ok(row)
    }

    async fn execute(&mut self, sql: &str, params: Vec<Value>) -> Result<u64, SqlError> {
        let checked = self.enter_with(sql, &params)?;
        let (_, changed) = collect(&mut self.writer, &checked, params).await?;
        self.failed = false;
        Ok(changed)
    }

    async fn emit(&mut self, effect: Effect) -> Result<(), SqlError> {
        self.core.outbox.check(&effect)?;
        if self.pending.is_full() {
            self.enter()?;
            self.append().await?;
            self.failed = false;
        }
        self.pending.push(effect)
    }

    async fn commit(mut self: Box<Self>) -> Result<(), SqlError> {
        self.enter()?;
        if !self.pending.is_empty() {
            self.append().await?;
        }
        let Self { core, writer, begun, mut pending, .. } = *self;
        if begun { writer.commit(core.outbox.on_end(&mut pending)).await } else { Ok(()) }
    }

    async fn rollback(self: Box<Self>) -> Result<(), SqlError> {
        if self.begun { self.writer.rollback().await } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
