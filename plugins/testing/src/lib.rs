//! Under a service's store functions, built natively for its tests: a real database, empty but for the service's migrations. Knows no service.
//!
//! It is the host's own SQL capability, so that what a statement may do, the kinds of values and the classes of errors are those of production.
//! Every statement is also read in PostgreSQL's dialect: it is written once, for both engines.

mod statements;
mod values;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use std::{env, fs};

use echo_base::names::ServiceName;
use echo_capabilities::sql::postgres::{PoolSettings, PostgresBackend};
use echo_capabilities::sql::sqlite::SqliteBackend;
use echo_capabilities::sql::{self as host, Migration, SqlBackend};
use echo_engines::postgres::Database;
use echo_sdk::native;
use echo_sdk::wit::sql::{Rows, SqlError, Statement, Value};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// Which engine the tests run on: `sqlite`, which it is without this, or `postgres`, of which the tests start a server.
const ENGINE: &str = "ECHO_TEST_SQL";

/// The host's backends are asynchronous, a service is not.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime can be made"));

/// A database of the test's own, to which all statements of its thread go until it is dropped.
#[must_use = "the database is gone when this is dropped"]
pub struct Store {
    backend: Box<dyn SqlBackend>,
    /// Goes when the backend is closed.
    _home: Home,
}

/// Where the data is.
enum Home {
    Folder { _folder: TempDir },
    Database { _database: Database },
}

impl Store {
    /// With the tables of this service, empty.
    pub fn open(service: &str) -> Self {
        let (backend, home) = backend();
        let migrations = migrations(service, backend.dialect());
        let database = RUNTIME.block_on(async {
            let name = ServiceName::parse(service).expect("the name of a service");
            let database = backend.open(&name).await.expect("a database opens");
            database.migrate(&migrations).await.expect("the migrations apply");
            database
        });
        native::set_database(Some(Rc::new(Connected { database, in_transaction: Rc::default() })));
        Self { backend, _home: home }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        native::set_database(None);
        RUNTIME.block_on(self.backend.close());
    }
}

/// The one place that knows the engines.
fn backend() -> (Box<dyn SqlBackend>, Home) {
    match env::var(ENGINE).as_deref() {
        Err(_) | Ok("sqlite") => {
            let folder = tempfile::tempdir().expect("a temporary folder");
            (Box::new(SqliteBackend::new(folder.path())), Home::Folder { _folder: folder })
        }
        Ok("postgres") => {
            let database = Database::new().unwrap_or_else(|error| panic!("{error}"));
            let backend = RUNTIME.block_on(PostgresBackend::connect(database.url(), "test", CONNECTIONS));
            (Box::new(backend.expect("PostgreSQL answers")), Home::Database { _database: database })
        }
        Ok(other) => panic!("{ENGINE}: the tests know no engine {other:?}, only \"sqlite\" and \"postgres\""),
    }
}

/// A test is one caller.
const CONNECTIONS: PoolSettings =
    PoolSettings { open_max: 4, idle_max: 4, lifetime: Duration::from_secs(300), idle_time: Duration::from_secs(300) };

/// As `migrations/<service>` of the repository has them, in order.
fn migrations(service: &str, dialect: &str) -> Vec<Migration> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations").join(service);
    let end = format!(".{dialect}.sql");
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut migrations: Vec<Migration> = files
        .filter_map(|file| {
            let path = file.expect("a readable folder").path();
            let name = path.file_name()?.to_str()?.strip_suffix(&end)?.to_owned();
            Some(Migration { name, dialect: dialect.to_owned(), sql: fs::read_to_string(&path).expect("a migration is text") })
        })
        .collect();
    migrations.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    assert!(!migrations.is_empty(), "{}: no migrations for {dialect}", folder.display());
    migrations
}

/// The database as a service sees it: one transaction at a time, and no statement beside it.
struct Connected {
    database: Arc<dyn host::Database>,
    in_transaction: Rc<Cell<bool>>,
}

impl Connected {
    fn outside(&self) -> Result<&dyn host::Database, SqlError> {
        if self.in_transaction.get() {
            return Err(values::refused("a transaction is open: use its own functions until it ends"));
        }
        Ok(self.database.as_ref())
    }
}

impl native::TestDatabase for Connected {
    fn query(&self, sql: &str, params: &[Value]) -> Result<Rows, SqlError> {
        statements::check(sql);
        let rows = RUNTIME.block_on(self.outside()?.query(sql, values::incoming(params)?));
        rows.map(values::rows).map_err(values::error)
    }

    fn query_one(&self, sql: &str, params: &[Value]) -> Result<Option<Vec<Value>>, SqlError> {
        statements::check(sql);
        let row = RUNTIME.block_on(self.outside()?.query_one(sql, values::incoming(params)?));
        row.map(|row| row.map(values::outgoing)).map_err(values::error)
    }

    fn execute(&self, sql: &str, params: &[Value]) -> Result<u64, SqlError> {
        statements::check(sql);
        RUNTIME.block_on(self.outside()?.execute(sql, values::incoming(params)?)).map_err(values::error)
    }

    fn batch(&self, statements: &[Statement]) -> Result<Vec<u64>, SqlError> {
        let mut ours = Vec::with_capacity(statements.len());
        for statement in statements {
            statements::check(&statement.sql);
            ours.push((statement.sql.clone(), values::incoming(&statement.params)?));
        }
        RUNTIME.block_on(self.outside()?.batch(ours)).map_err(values::error)
    }

    fn begin(&self) -> Result<Box<dyn native::TestTransaction>, SqlError> {
        let begun = RUNTIME.block_on(self.outside()?.begin()).map_err(values::error)?;
        self.in_transaction.set(true);
        Ok(Box::new(Open { transaction: RefCell::new(Some(begun)), is_open: self.in_transaction.clone() }))
    }
}

/// An open transaction.
struct Open {
    /// None when it has ended.
    transaction: RefCell<Option<Box<dyn host::Transaction>>>,
    is_open: Rc<Cell<bool>>,
}

const ENDS_ONCE: &str = "a transaction ends once, and then it is gone";

impl native::TestTransaction for Open {
    fn query(&self, sql: &str, params: &[Value]) -> Result<Rows, SqlError> {
        statements::check(sql);
        let mut transaction = self.transaction.borrow_mut();
        let rows = RUNTIME.block_on(transaction.as_mut().expect(ENDS_ONCE).query(sql, values::incoming(params)?));
        rows.map(values::rows).map_err(values::error)
    }

    fn query_one(&self, sql: &str, params: &[Value]) -> Result<Option<Vec<Value>>, SqlError> {
        statements::check(sql);
        let mut transaction = self.transaction.borrow_mut();
        let row = RUNTIME.block_on(transaction.as_mut().expect(ENDS_ONCE).query_one(sql, values::incoming(params)?));
        row.map(|row| row.map(values::outgoing)).map_err(values::error)
    }

    fn execute(&self, sql: &str, params: &[Value]) -> Result<u64, SqlError> {
        statements::check(sql);
        let mut transaction = self.transaction.borrow_mut();
        let changed = RUNTIME.block_on(transaction.as_mut().expect(ENDS_ONCE).execute(sql, values::incoming(params)?));
        changed.map_err(values::error)
    }

    fn commit(self: Box<Self>) -> Result<(), SqlError> {
        let transaction = self.transaction.borrow_mut().take().expect(ENDS_ONCE);
        RUNTIME.block_on(transaction.commit()).map_err(values::error)
    }

    fn rollback(self: Box<Self>) -> Result<(), SqlError> {
        let transaction = self.transaction.borrow_mut().take().expect(ENDS_ONCE);
        RUNTIME.block_on(transaction.rollback()).map_err(values::error)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // A backend may have something to spawn when a transaction is dropped.
        let _inside = RUNTIME.enter();
        self.transaction.take();
        self.is_open.set(false);
    }
}

#[cfg(test)]
mod tests;
