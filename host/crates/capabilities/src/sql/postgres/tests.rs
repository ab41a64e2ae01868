//! What PostgreSQL alone can do wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::join_all;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use uuid::Uuid;

use super::fixture::{Server, settings};
use super::*;
use crate::events::Event;
use crate::sql::MigrateError;

const TABLES: &str = "
    CREATE TABLE conversation (id UUID PRIMARY KEY, last_seq BIGINT NOT NULL DEFAULT 0);
    CREATE TABLE message (conversation UUID NOT NULL REFERENCES conversation (id), seq BIGINT NOT NULL, text TEXT, PRIMARY KEY (conversation, seq));";

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).expect("a good name")
}

fn migration(name: &str, sql: &str) -> Migration {
    Migration { name: name.to_owned(), dialect: "postgres".to_owned(), sql: sql.to_owned() }
}

async fn migrated(backend: &PostgresBackend, name: &str) -> Arc<dyn Database> {
    let database = backend.open(&service(name)).await.expect("opens");
    database.migrate(&[migration("0001_tables", TABLES)]).await.expect("migrates");
    database
}

fn event() -> Effect {
    Effect::Event(Event {
        id: Uuid::now_v7(),
        topic: "test.happened".to_owned(),
        key: "k".to_owned(),
        payload: "{}".to_owned(),
        at_us: 1,
        correlation_id: "c".to_owned(),
    })
}

/// As a service sends: takes the next number of a conversation, writes under it, makes an event.
async fn send(database: &dyn Database, conversation: Uuid) -> Result<(), SqlError> {
    send_in(database.begin().await?, conversation).await
}

async fn send_in(mut transaction: Box<dyn Transaction>, conversation: Uuid) -> Result<(), SqlError> {
    let next = "UPDATE conversation SET last_seq = last_seq + 1 WHERE id = $1 RETURNING last_seq";
    let seq = transaction.query_one(next, vec![Value::Uuid(conversation)]).await?.expect("it is there").remove(0);
    let insert = "INSERT INTO message (conversation, seq, text) VALUES ($1, $2, $3)";
    transaction.execute(insert, vec![Value::Uuid(conversation), seq, Value::Null]).await?;
    transaction.emit(event()).await?;
    transaction.commit().await
}

/// As the SDK sends: a collision is tried again, a few times.
async fn send_as_a_guest(database: &dyn Database, conversation: Uuid, tries_max: u32) -> Result<(), SqlError> {
    for collisions in 0..tries_max {
        match send_in(database.begin_after(collisions).await?, conversation).await {
            Err(error) if error.class == ErrorClass::Serialization => {}
            outcome => return outcome,
        }
    }
    Err(SqlError::new(ErrorClass::Serialization, "it collided every time"))
}

async fn send_until_it_ends(database: &dyn Database, conversation: Uuid) {
    for _ in 0..100 {
        match send(database, conversation).await {
            Ok(()) => return,
            Err(error) if error.class == ErrorClass::Serialization => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it collides without end");
}

async fn new_conversation(database: &dyn Database) -> Uuid {
    let conversation = Uuid::now_v7();
    database.execute("INSERT INTO conversation (id) VALUES ($1)", vec![Value::Uuid(conversation)]).await.expect("inserts");
    conversation
}

/// Backends of the services of this database, in this state.
async fn count_in_state(url: &str, state: &str) -> i64 {
    let mut operator = PgConnection::connect(url).await.expect("connects");
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE $1 AND pid <> pg_backend_pid()";
    let row = operator.fetch_one(sqlx::query(sql).bind(state)).await.expect("counts");
    row.get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_vanish_poison_nothing_and_leave_no_transaction_open() {
    let server = Server::start().await;
    let backend = server.backend_with("vanish", settings(2)).await;
    let database = migrated(&backend, "alpha").await;
    let conversation = new_conversation(database.as_ref()).await;
    for number in 0..500_u64 {
        let database = database.clone();
        let sending = tokio::spawn(async move { send(database.as_ref(), conversation).await });
        tokio::time::sleep(Duration::from_micros(number * 7919 % 3_000)).await;
        sending.abort();
        if let Ok(Err(error)) = sending.await {
            assert_ne!(error.sqlstate.as_deref(), Some("25P02"), "it was given a connection whose transaction had failed: {error}");
        }
    }
    for _ in 0..100 {
        send_until_it_ends(database.as_ref(), conversation).await;
    }
    let row = database.query_one("SELECT last_seq, (SELECT count(*) FROM message) FROM conversation", vec![]).await.expect("reads");
    let Some([Value::S64(last), Value::S64(count)]) = row.as_deref() else { panic!("{row:?}") };
    assert!(*last >= 100 && last == count, "{last} numbers, {count} messages");
    let events = database.peek(0, 10_000).await.expect("peeks");
    assert_eq!(events.len() as i64, *count, "each message has its event");
    assert_eq!(count_in_state(&server.url("vanish").await, "idle in transaction%").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begin_that_is_dropped_half_way_leaves_a_connection_that_works() {
    let server = Server::start().await;
    let backend = server.backend_with("begin", settings(2)).await;
    let database = migrated(&backend, "alpha").await;
    for polls in 0..8 {
        let mut beginning = Box::pin(database.begin());
        for _ in 0..=polls {
            if (&mut beginning).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(beginning);
        // Were a transaction still open on it, this would be part of it and be gone.
        new_conversation(database.as_ref()).await;
    }
    let count = database.query_one("SELECT count(*) FROM conversation", vec![]).await.expect("reads");
    assert_eq!(count, Some(vec![Value::S64(8)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_have_the_types_of_the_columns_and_null_too() {
    let server = Server::start().await;
    let backend = server.backend_with("types", settings(4)).await;
    let database = backend.open(&service("alpha")).await.expect("opens");
    let table = "CREATE TABLE v (id UUID, at TIMESTAMPTZ, n BIGINT, small INTEGER, f DOUBLE PRECISION, yes BOOLEAN, raw BYTEA, doc JSONB, price NUMERIC, t TEXT)";
    database.migrate(&[migration("0001_v", table)]).await.expect("migrates");
    let insert = "INSERT INTO v (id, at, n, small, f, yes, raw, doc, price, t) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let values = vec![
        Value::Uuid(Uuid::now_v7()),
        Value::Timestamp(1_700_000_000_123_456),
        Value::S64(i64::MAX),
        Value::S64(-7),
        Value::F64(1.5),
        Value::Boolean(true),
        Value::Bytes(vec![0, 255]),
        Value::Json("{\"a\": [1, null]}".to_owned()),
        Value::Decimal("-12345.6700".to_owned()),
        Value::Text("héllo".to_owned()),
    ];
    for given in [values.clone(), vec![Value::Null; 10], values.clone()] {
        assert_eq!(database.execute(insert, given.clone()).await.expect("inserts"), 1);
        let row = database.query_one("DELETE FROM v RETURNING id, at, n, small, f, yes, raw, doc, price, t", vec![]).await;
        assert_eq!(row.expect("reads"), Some(given));
    }
    database.execute(insert, values).await.expect("inserts");
    // Where nothing but a parameter says what it is, and where it is null now and a value the next time.
    for given in [Value::Null, Value::Uuid(Uuid::nil()), Value::Null] {
        database.query("SELECT n FROM v WHERE id = $1 OR $1 IS NULL", vec![given]).await.expect("reads");
    }
    for (given, expect) in [(Value::Null, Value::Null), (Value::Bytes(vec![1]), Value::Bytes(vec![1])), (Value::Null, Value::Null)] {
        assert_eq!(database.query_one("SELECT $1 AS x", vec![given]).await.expect("reads"), Some(vec![expect]));
    }
    let unfit = database.query("SELECT n FROM v WHERE id = $1", vec![Value::Text("no uuid".to_owned())]).await;
    assert_eq!(unfit.expect_err("it is no id").class, ErrorClass::Other);
}

/// As somebody who got past the list of statements: with the role itself.
async fn as_role(backend: &PostgresBackend, name: &str) -> PgConnection {
    let shared = backend.shared();
    let role = roles::role_of(&shared.database, &service(name)).expect("a role");
    let options = shared.options.clone().username(&role).password(&shared.key.password_of(&role));
    let session = session(options, "test", &format!("{},pg_temp", quoted(&schema_of(&service(name)))));
    PgConnection::connect_with(&session).await.expect("the role may log in")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_services_role_reaches_nothing_but_the_rows_of_its_tables() {
    let server = Server::start().await;
    let backend = server.backend_with("roles", settings(6)).await;
    let (alpha, beta) = (migrated(&backend, "alpha").await, migrated(&backend, "beta").await);
    let secret = new_conversation(alpha.as_ref()).await;
    alpha.emit(vec![event()]).await.expect("emits");
    let alphas = roles::role_of(&backend.shared().database, &service("alpha")).expect("a role");
    let mut role = as_role(&backend, "beta").await;
    for sql in [
        "SELECT * FROM echo_alpha.conversation".to_owned(),
        "INSERT INTO echo_alpha._echo_outbox (effect) VALUES ('{}')".to_owned(),
        format!("SET ROLE \"{alphas}\""),
        "SET ROLE operator".to_owned(),
        "SET ROLE postgres".to_owned(),
        format!("SELECT set_config('role', '{alphas}', false)"),
        "SELECT set_config('role', 'operator', true)".to_owned(),
        format!("SET SESSION AUTHORIZATION \"{alphas}\""),
        format!("SELECT set_config('session_authorization', '{alphas}', false)"),
        format!("ALTER ROLE \"{alphas}\" PASSWORD 'x'"),
        format!("GRANT \"{alphas}\" TO CURRENT_USER"),
        "ALTER ROLE CURRENT_USER SUPERUSER".to_owned(),
        "CREATE ROLE x".to_owned(),
        "CREATE TEMP TABLE conversation (id UUID)".to_owned(),
        "CREATE TABLE pg_temp.conversation (id UUID)".to_owned(),
        "CREATE TEMP VIEW conversation AS SELECT 1".to_owned(),
        "CREATE TABLE x (id UUID)".to_owned(),
        "CREATE SCHEMA x".to_owned(),
        "CREATE TABLE public.x (id UUID)".to_owned(),
        "CREATE FUNCTION f() RETURNS INT LANGUAGE sql AS 'SELECT 1'".to_owned(),
        "CREATE EXTENSION dblink".to_owned(),
        "SELECT * FROM dblink('dbname=postgres', 'SELECT 1') AS t(a INT)".to_owned(),
        "ALTER TABLE conversation ADD COLUMN x TEXT".to_owned(),
        "DROP TABLE message".to_owned(),
        "TRUNCATE message".to_owned(),
        "COPY conversation TO '/tmp/x'".to_owned(),
        "COPY conversation FROM '/etc/passwd'".to_owned(),
        "COPY conversation TO PROGRAM 'true'".to_owned(),
        "SELECT pg_read_file('/etc/passwd')".to_owned(),
        "SELECT lo_import('/etc/passwd')".to_owned(),
        "SELECT lo_export(1, '/tmp/x')".to_owned(),
        "SELECT * FROM pg_authid".to_owned(),
        "SELECT * FROM _echo_outbox".to_owned(),
        "DELETE FROM _echo_outbox".to_owned(),
        "SELECT * FROM _echo_migrations".to_owned(),
        "SELECT * FROM echo.setting".to_owned(),
        "SELECT * FROM echo.event_log".to_owned(),
        "ALTER SYSTEM SET fsync = off".to_owned(),
        "DROP SCHEMA echo_beta CASCADE".to_owned(),
    ] {
        let tried = role.execute(sqlx::raw_sql(AssertSqlSafe(sql.clone()))).await;
        assert!(tried.is_err(), "{sql} was let through");
        // Through the service's own door it does not come that far.
        let error = beta.query(&sql, vec![]).await.expect_err(&sql);
        assert_eq!(error.class, ErrorClass::Other, "{sql}: {error}");
        let mut transaction = beta.begin().await.expect("begins");
        transaction.query(&sql, vec![]).await.expect_err(&sql);
        transaction.rollback().await.expect("rolls back");
    }
    // What PostgreSQL lets every role do is refused by the list alone.
    for sql in [
        "SELECT pg_sleep(60)",
        "SELECT pg_advisory_lock(1)",
        "SELECT lo_creat(-1)",
        "SELECT lo_from_bytea(0, 'x')",
        "NOTIFY x",
        "LISTEN x",
        "SET statement_timeout = 0",
        "SELECT set_config('statement_timeout', '0', false)",
        "SELECT pg_notify('a', 'b')",
        "SELECT * FROM pg_roles",
        "COPY (SELECT 1) TO STDOUT",
        "DO $$ BEGIN PERFORM pg_sleep(60); END $$",
    ] {
        let began = Instant::now();
        beta.query(sql, vec![]).await.expect_err(sql);
        assert!(began.elapsed() < Duration::from_secs(2), "{sql} ran");
    }
    let row = alpha.query_one("SELECT id FROM conversation", vec![]).await.expect("reads");
    assert_eq!(row, Some(vec![Value::Uuid(secret)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_have_the_same_roles_and_apply_migrations_once() {
    let server = Server::start().await;
    let hosts = [server.backend_with("two", settings(4)).await, server.backend_with("two", settings(4)).await];
    let opened = join_all(hosts.iter().map(|host| async { host.open(&service("alpha")).await.expect("opens") })).await;
    assert_eq!(opened[0].source(), opened[1].source());
    let slow = migration("0002_slow", "CREATE INDEX message_text ON message (text)");
    let both = [migration("0001_tables", TABLES), slow];
    let applied = join_all(opened.iter().map(|database| async { database.migrate(&both).await.expect("migrates") })).await;
    assert_eq!(applied.iter().map(Vec::len).sum::<usize>(), 2, "{applied:?}");
    // The other one has statements prepared that read all columns.
    let conversation = new_conversation(opened[0].as_ref()).await;
    for database in &opened {
        database.query("SELECT * FROM conversation", vec![]).await.expect("reads");
    }
    opened[0].migrate(&[migration("0003_title", "ALTER TABLE conversation ADD COLUMN title TEXT")]).await.expect("migrates");
    let mut tries = 0;
    let row = loop {
        match opened[1].query_one("SELECT * FROM conversation", vec![]).await {
            Ok(row) => break row,
            Err(error) if error.class == ErrorClass::Serialization && tries < 8 => tries += 1,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(row, Some(vec![Value::Uuid(conversation), Value::S64(0), Value::Null]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_changes_nothing_and_what_is_not_final_is_taken_away() {
    let server = Server::start().await;
    let backend = server.backend_with("rehearsal", settings(4)).await;
    let database = migrated(&backend, "alpha").await;
    let conversation = new_conversation(database.as_ref()).await;
    let time = Duration::from_secs(10);
    let adds = migration(
        "0002_adds",
        "CREATE TABLE tag (id UUID PRIMARY KEY, c UUID REFERENCES conversation (id)); CREATE INDEX tag_c ON tag (c); ALTER TABLE conversation ADD COLUMN title TEXT",
    );
    let fails = migration("0003_fails", "CREATE INDEX i ON nowhere (a)");
    assert_eq!(database.rehearse_migrations(std::slice::from_ref(&adds), time).await.expect("rehearses"), ["0002_adds"]);
    let error = database.apply_migrations(&[adds.clone(), fails], time).await;
    assert!(matches!(&error, Err(MigrateError::Failed { name, .. }) if name == "0003_fails"), "{error:?}");
    database.query("SELECT title FROM conversation", vec![]).await.expect_err("nothing was added");
    database.query("SELECT id FROM tag", vec![]).await.expect_err("nothing was added");

    assert_eq!(database.apply_migrations(std::slice::from_ref(&adds), time).await.expect("applies"), ["0002_adds"]);
    database.execute("INSERT INTO tag (id, c) VALUES ($1, $1)", vec![Value::Uuid(conversation)]).await.expect("the role may");
    assert_eq!(database.undo_migrations().await.expect("undoes"), ["0002_adds"]);
    database.query("SELECT title FROM conversation", vec![]).await.expect_err("it was taken away");
    assert_eq!(database.pending(std::slice::from_ref(&adds)).await.expect("reads"), ["0002_adds"]);
    database.migrate(std::slice::from_ref(&adds)).await.expect("migrates");
    let changed = [Migration { sql: "CREATE TABLE other (a TEXT)".to_owned(), ..adds }];
    assert!(matches!(database.pending(&changed).await, Err(MigrateError::Changed { .. })));

    // In the time that it is given, or not at all.
    let fill =
        "INSERT INTO message (conversation, seq, text) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
        SELECT CAST($1 AS UUID), i, CAST(i * 7919 AS TEXT) FROM n";
    database.execute(fill, vec![Value::Uuid(conversation)]).await.expect("fills");
    let slow = migration("0004_slow", "CREATE INDEX message_text ON message (text)");
    let late = database.rehearse_migrations(&[slow], Duration::from_millis(5)).await;
    assert!(matches!(&late, Err(MigrateError::TooLong { name, limit_ms: 5 }) if name == "0004_slow"), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_filled_in_batches_and_none_twice() {
    let server = Server::start().await;
    let backend = server.backend_with("backfill", settings(4)).await;
    let database = migrated(&backend, "alpha").await;
    let conversation = new_conversation(database.as_ref()).await;
    let fill =
        "INSERT INTO message (conversation, seq, text) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
        SELECT CAST($1 AS UUID), i, 'text ' || i FROM n";
    database.execute(fill, vec![Value::Uuid(conversation)]).await.expect("fills");
    let all = [
        migration("0001_tables", TABLES),
        migration("0002_upper", "ALTER TABLE message ADD COLUMN loud TEXT"),
        migration("0002_upper.backfill", "UPDATE message SET loud = upper(text) WHERE seq > 10"),
    ];
    let time = Duration::from_secs(5);
    assert_eq!(database.rehearse_migrations(&all, time).await.expect("rehearses"), ["0002_upper"]);
    database.migrate(&all).await.expect("migrates");
    let backfill = Backfill::of(&all[2], &all).expect("a back-fill");
    let mut batches = 1;
    let rows = loop {
        let progress = database.backfill(&backfill, 99, time).await.expect("a batch");
        if progress.is_done {
            break progress.rows;
        }
        batches += 1;
    };
    assert_eq!((rows, batches), (990, 11));
    let left = database.query_one("SELECT count(*) FROM message WHERE loud = upper(text)", vec![]).await.expect("reads");
    assert_eq!(left, Some(vec![Value::S64(990)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_stay_within_the_budget_and_the_hosts_own_are_never_taken() {
    let server = Server::start().await;
    let backend = server.backend_with("budget", settings(4)).await;
    let names = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"];
    let mut databases = Vec::new();
    for name in names {
        databases.push(migrated(&backend, name).await);
    }
    let url = server.url("budget").await;
    join_all(databases.iter().flat_map(|database| (0..10).map(|_| new_conversation(database.as_ref())))).await;
    assert!(count_in_state(&url, "%").await <= 4, "more are open than may be");
    // All that services may have is taken, and the relay still looks into an outbox.
    let mut open = Vec::new();
    for database in &databases[..3] {
        open.push(database.begin().await.expect("begins"));
    }
    let mut fourth = Box::pin(databases[3].begin());
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut fourth).await.is_err(), "it waits for its turn");
    assert_eq!(databases[0].peek(0, 1).await.expect("peeks").len(), 0);
    drop(open);
    fourth.await.expect("its turn has come").rollback().await.expect("rolls back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_want_one_row_all_get_it() {
    let server = Server::start().await;
    let backend = server.backend_with("hot", settings(12)).await;
    let database = migrated(&backend, "alpha").await;
    let conversation = new_conversation(database.as_ref()).await;
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let sends = (0..200).map(|_| async {
        // As often as the SDK tries a transaction.
        for _ in 0..5 {
            tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            match send(database.as_ref(), conversation).await {
                Ok(()) => return true,
                Err(error) => assert_eq!(error.class, ErrorClass::Serialization, "{error}"),
            }
        }
        false
    });
    let lost = join_all(sends).await.into_iter().filter(|sent| !sent).count();
    assert_eq!(lost, 0, "{lost} of 200 were given up, after {tries:?} tries in all");
}

/// Each host limits its own transactions only; the SDK tries five times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_collides_again_and_again_with_other_hosts_is_let_through() {
    let server = Server::start().await;
    let mut hosts = Vec::new();
    for _ in 0..4 {
        hosts.push(migrated(&server.backend_with("turns", settings(6)).await, "alpha").await);
    }
    let conversation = Uuid::now_v7();
    hosts[0].execute("INSERT INTO conversation (id) VALUES ($1)", vec![Value::Uuid(conversation)]).await.expect("inserts");
    let sending = hosts.iter().flat_map(|host| [host; 4]).map(async |host| {
        for _ in 0..25 {
            send_as_a_guest(host.as_ref(), conversation, 5).await.expect("it is let through");
        }
    });
    join_all(sending).await;
    let count = hosts[0].query_one("SELECT count(*), max(seq) FROM message", vec![]).await.expect("counts").expect("a row");
    assert_eq!(count, [Value::S64(400), Value::S64(400)]);
}
