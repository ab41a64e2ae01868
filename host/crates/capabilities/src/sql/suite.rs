//! What every SQL backend must do, whatever lies below it. `killed` also serves the queue's suite.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use uuid::Uuid;

use super::sqlite::{Durability, SqliteBackend};
use super::*;
use crate::hub::Class;
use echo_base::limits;
use echo_fixture::killed;

const SCHEMA: &str = "
    CREATE TABLE person (id TEXT PRIMARY KEY, name TEXT NOT NULL, age BIGINT CHECK (age >= 0));
    CREATE UNIQUE INDEX person_name ON person (name);
    CREATE TABLE pet (owner TEXT NOT NULL REFERENCES person (id), name TEXT, PRIMARY KEY (owner, name));";

/// `make(name)` opens the backend that keeps its data under this name: the same name, the same data.
pub async fn suite<F, Made>(make: F)
where
    F: Fn(&'static str) -> Made,
    Made: Future<Output = Arc<dyn SqlBackend>>,
{
    values_come_back(&prepared(make("values").await).await).await;
    errors_have_classes(&prepared(make("classes").await).await).await;
    a_batch_is_all_or_nothing(&prepared(make("batch").await).await).await;
    what_is_not_committed_is_gone(&prepared(make("rollback").await).await).await;
    a_failed_transaction_takes_no_more(&prepared(make("failed").await).await).await;
    no_update_is_lost(&prepared(make("turns").await).await).await;
    what_was_read_still_holds_at_the_commit(&prepared(make("skew").await).await).await;
    results_are_bounded(&prepared(make("bounds").await).await).await;
    a_statement_without_end_is_ended(&prepared(make("cancelled").await).await).await;
    effects_leave_with_the_commit(&prepared(make("effects").await).await).await;
    services_do_not_see_each_other(make("isolation").await).await;
    migrations_apply_once(make("migrations").await).await;
    for backend in ["first", "second"].map(|_| make("reopened")) {
        what_was_committed_is_there_again(backend.await).await;
    }
}

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).expect("a good name")
}

fn migration(backend: &dyn SqlBackend, name: &str, sql: &str) -> Migration {
    Migration { name: name.to_owned(), dialect: backend.dialect().to_owned(), sql: sql.to_owned() }
}

async fn prepared(backend: Arc<dyn SqlBackend>) -> Arc<dyn Database> {
    let database = backend.open(&name("alpha")).await.expect("opens");
    database.migrate(&[migration(backend.as_ref(), "0001_people", SCHEMA)]).await.expect("migrates");
    database
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

async fn insert(database: &dyn Database, id: &str) {
    let sql = "INSERT INTO person (id, name, age) VALUES ($1, $1, 1)";
    assert_eq!(database.execute(sql, vec![text(id)]).await.expect("inserts"), 1);
}

async fn people(database: &dyn Database) -> Vec<String> {
    let rows = database.query("SELECT id FROM person ORDER BY id", vec![]).await.expect("reads");
    let id = |row: Row| match row.into_iter().next() {
        Some(Value::Text(id)) => id,
        other => panic!("no text: {other:?}"),
    };
    rows.rows.into_iter().map(id).collect()
}

fn event(key: &str) -> Effect {
    Effect::Event(Event {
        id: Uuid::now_v7(),
        topic: "test.happened".to_owned(),
        key: key.to_owned(),
        payload: r#"{"text":"with \"quotes\" and ✓"}"#.to_owned(),
        at_us: 1,
        correlation_id: "c".to_owned(),
    })
}

async fn values_come_back(database: &Arc<dyn Database>) {
    let id = Uuid::now_v7();
    let rows = database
        .query(
            "SELECT CAST($1 AS BIGINT) AS a, $2 AS b, $3 AS c, CAST($4 AS BIGINT) AS d, $5 AS e, CAST(NULL AS TEXT) AS f",
            vec![Value::S64(i64::MIN), text("héllo"), Value::Uuid(id), Value::Timestamp(1_700_000_000_000_000), Value::Bytes(vec![0, 255])],
        )
        .await
        .expect("reads");
    assert_eq!(rows.columns, ["a", "b", "c", "d", "e", "f"]);
    let row = &rows.rows[0];
    assert_eq!(row[0], Value::S64(i64::MIN));
    assert_eq!(row[1], text("héllo"));
    assert!(row[2] == Value::Uuid(id) || row[2] == text(&id.to_string()), "{:?}", row[2]);
    assert_eq!(row[3], Value::S64(1_700_000_000_000_000));
    assert_eq!(row[4], Value::Bytes(vec![0, 255]));
    assert_eq!(row[5], Value::Null);
    assert_eq!(database.query_one("SELECT id FROM person WHERE id = $1", vec![text("nobody")]).await.expect("reads"), None);
    let returned = database.query_one("INSERT INTO person (id, name, age) VALUES ($1, $1, 2) RETURNING age", vec![text("r")]).await;
    assert_eq!(returned.expect("inserts"), Some(vec![Value::S64(2)]));
    assert_eq!(people(database.as_ref()).await, ["r"]);
}

async fn errors_have_classes(database: &Arc<dyn Database>) {
    insert(database.as_ref(), "a").await;
    for (sql, class, sqlstate) in [
        ("INSERT INTO person (id, name) VALUES ('a', 'x')", ErrorClass::UniqueViolation, "23505"),
        ("INSERT INTO person (id, name) VALUES ('x', 'a')", ErrorClass::UniqueViolation, "23505"),
        ("INSERT INTO pet (owner, name) VALUES ('nobody', 'x')", ErrorClass::ForeignKey, "23503"),
        ("INSERT INTO person (id, name, age) VALUES ('x', 'x', -1)", ErrorClass::Check, "23514"),
        ("INSERT INTO person (id) VALUES ('x')", ErrorClass::Check, "23502"),
    ] {
        let error = database.execute(sql, vec![]).await.expect_err(sql);
        assert_eq!(error.class, class, "{sql}: {error}");
        assert_eq!(error.sqlstate.as_deref(), Some(sqlstate), "{sql}");
        assert!(class != ErrorClass::UniqueViolation || error.constraint.is_some(), "{sql}: the constraint is not named");
    }
    for sql in
        ["SELECT nothing FROM nowhere", "SELEC 1", "PRAGMA user_version", "BEGIN", "SELECT 1; SELECT 2", "SELECT * FROM _echo_outbox"]
    {
        assert_eq!(database.query(sql, vec![]).await.expect_err(sql).class, ErrorClass::Other, "{sql}");
    }
    for given in [vec![], vec![text("a"), text("b")]] {
        let error = database.query("SELECT id FROM person WHERE id = $1", given).await.expect_err("the wrong count of parameters");
        assert_eq!(error.class, ErrorClass::Other);
    }
}

async fn a_batch_is_all_or_nothing(database: &Arc<dyn Database>) {
    let add = |id: &str| ("INSERT INTO person (id, name) VALUES ($1, $1)".to_owned(), vec![text(id)]);
    let error = database.batch(vec![add("a"), add("b"), add("a")]).await.expect_err("the third fails");
    assert_eq!(error.class, ErrorClass::UniqueViolation);
    assert_eq!(people(database.as_ref()).await, [""; 0]);
    let counts = database.batch(vec![add("a"), add("b"), ("UPDATE person SET age = 3".to_owned(), vec![])]).await.expect("all");
    assert_eq!(counts, [1, 1, 2]);
    assert_eq!(database.batch(vec![]).await.expect("nothing to do"), [0; 0]);
    let too_many = vec![add("x"); limits::SQL_BATCH_MAX + 1];
    assert_eq!(database.batch(too_many).await.expect_err("too many").class, ErrorClass::TooLarge);
}

async fn what_is_not_committed_is_gone(database: &Arc<dyn Database>) {
    let add = "INSERT INTO person (id, name) VALUES ($1, $1)";
    let mut dropped = database.begin().await.expect("begins");
    dropped.execute(add, vec![text("dropped")]).await.expect("inserts");
    drop(dropped);
    let mut rolled_back = database.begin().await.expect("the dropped one is gone");
    rolled_back.execute(add, vec![text("rolled back")]).await.expect("inserts");
    assert_eq!(people(database.as_ref()).await, [""; 0], "what is open is seen from outside");
    let seen = rolled_back.query("SELECT id FROM person", vec![]).await.expect("reads");
    assert_eq!(seen.rows, [[text("rolled back")]], "a transaction sees its own writes and no others");
    rolled_back.rollback().await.expect("rolls back");
    let mut kept = database.begin().await.expect("begins");
    kept.execute(add, vec![text("kept")]).await.expect("inserts");
    assert_eq!(kept.query_one("SELECT id FROM person", vec![]).await.expect("reads"), Some(vec![text("kept")]));
    kept.commit().await.expect("commits");
    assert_eq!(people(database.as_ref()).await, ["kept"]);
    database.begin().await.expect("begins").commit().await.expect("an empty one commits");
    database.begin().await.expect("begins").rollback().await.expect("an empty one rolls back");
}

async fn a_failed_transaction_takes_no_more(database: &Arc<dyn Database>) {
    let add = "INSERT INTO person (id, name) VALUES ($1, $1)";
    let mut transaction = database.begin().await.expect("begins");
    transaction.execute(add, vec![text("a")]).await.expect("inserts");
    transaction.execute(add, vec![text("a")]).await.expect_err("it is there");
    transaction.execute(add, vec![text("b")]).await.expect_err("only a rollback is possible");
    transaction.commit().await.expect_err("nothing to commit");
    assert_eq!(people(database.as_ref()).await, [""; 0]);
    insert(database.as_ref(), "after").await;
}

/// Both engines give SERIALIZABLE: transactions end as if they had run one after another. Where that cannot be, one fails as `Serialization` and has changed
/// nothing. (READ COMMITTED would lose updates, REPEATABLE READ would not see that what it decided by has changed.) Work as the SDK's `transaction` does it.
async fn until_it_ends<T>(database: &dyn Database, work: impl AsyncFn(&mut dyn Transaction) -> Result<T, SqlError>) -> T {
    for _ in 0..1_000 {
        let outcome = async {
            let mut transaction = database.begin().await?;
            let value = work(transaction.as_mut()).await?;
            transaction.commit().await?;
            Ok(value)
        };
        match outcome.await {
            Ok(value) => return value,
            Err(SqlError { class: ErrorClass::Serialization, .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it collides without end")
}

async fn no_update_is_lost(database: &Arc<dyn Database>) {
    insert(database.as_ref(), "counter").await;
    let step = |_| {
        until_it_ends(database.as_ref(), async |transaction| {
            let row = transaction.query_one("SELECT age FROM person WHERE id = 'counter'", vec![]).await?;
            let Some([Value::S64(age)]) = row.as_deref() else { panic!("no age") };
            let age = Value::S64(age + 1);
            transaction.execute("UPDATE person SET age = $1 WHERE id = 'counter'", vec![age]).await
        })
    };
    join_all((0..50).map(step)).await;
    let add = "UPDATE person SET age = age + 1 WHERE id = 'counter'";
    for changed in join_all((0..50).map(|_| database.execute(add, vec![]))).await {
        assert_eq!(changed.expect("a single statement does not collide"), 1);
    }
    let row = database.query_one("SELECT age FROM person WHERE id = 'counter'", vec![]).await.expect("reads");
    assert_eq!(row, Some(vec![Value::S64(101)]), "an update was lost");
}

/// Two who each may leave only while the other stays.
async fn what_was_read_still_holds_at_the_commit(database: &Arc<dyn Database>) {
    insert(database.as_ref(), "ann").await;
    insert(database.as_ref(), "bob").await;
    let both_have_read = tokio::sync::Barrier::new(2);
    let leave = |who: &'static str| {
        let both_have_read = &both_have_read;
        until_it_ends(database.as_ref(), async move |transaction| {
            let there = transaction.query_one("SELECT count(*) FROM person WHERE age = 1", vec![]).await?;
            // Where they run one after another, nobody else comes.
            let _ = timeout(Duration::from_millis(200), both_have_read.wait()).await;
            if there == Some(vec![Value::S64(2)]) {
                transaction.execute("UPDATE person SET age = 0 WHERE id = $1", vec![text(who)]).await?;
            }
            Ok(())
        })
    };
    tokio::join!(leave("ann"), leave("bob"));
    let left = database.query_one("SELECT count(*) FROM person WHERE age = 1", vec![]).await.expect("reads");
    assert_eq!(left, Some(vec![Value::S64(1)]), "both have left");
    // So do rows that are not there yet.
    let add = |id: &'static str| {
        let both_have_read = &both_have_read;
        until_it_ends(database.as_ref(), async move |transaction| {
            let there = transaction.query_one("SELECT count(*) FROM person WHERE age = 7", vec![]).await?;
            let _ = timeout(Duration::from_millis(200), both_have_read.wait()).await;
            if there == Some(vec![Value::S64(0)]) {
                transaction.execute("INSERT INTO person (id, name, age) VALUES ($1, $1, 7)", vec![text(id)]).await?;
            }
            Ok(())
        })
    };
    tokio::join!(add("c"), add("d"));
    let added = database.query_one("SELECT count(*) FROM person WHERE age = 7", vec![]).await.expect("reads");
    assert_eq!(added, Some(vec![Value::S64(1)]), "both were the first");
}

async fn results_are_bounded(database: &Arc<dyn Database>) {
    let count = |up_to: usize| format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {up_to}) SELECT i FROM n");
    let rows = database.query(&count(limits::SQL_ROWS_MAX), vec![]).await.expect("as many as allowed");
    assert_eq!(rows.rows.len(), limits::SQL_ROWS_MAX);
    let error = database.query(&count(limits::SQL_ROWS_MAX + 1), vec![]).await.expect_err("one more");
    assert_eq!(error.class, ErrorClass::TooLarge);
    let wide = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT $1 FROM n";
    let error = database.query(wide, vec![text(&"x".repeat(limits::SQL_RESULT_BYTES_MAX / 50))]).await.expect_err("too many bytes");
    assert_eq!(error.class, ErrorClass::TooLarge);
    let error = database.query("SELECT $1", vec![text(&"x".repeat(limits::SQL_VALUE_BYTES_MAX + 1))]).await.expect_err("too long");
    assert_eq!(error.class, ErrorClass::TooLarge);
    insert(database.as_ref(), "after").await;
}

/// Runs for hours; on the writer, as it stands before a change.
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO person (id, name) SELECT 'x', 'x' FROM n WHERE i < 0";

async fn a_statement_without_end_is_ended(database: &Arc<dyn Database>) {
    let mut transaction = database.begin().await.expect("begins");
    transaction.execute("INSERT INTO person (id, name) VALUES ('x', 'x')", vec![]).await.expect("inserts");
    // Waiting for the writer, and running too long: both end by themselves.
    let (waited, ran) = tokio::join!(database.begin(), transaction.execute(ENDLESS, vec![]));
    if let Err(waited) = waited {
        assert_eq!(waited.class, ErrorClass::Timeout, "the writer is taken");
    }
    assert_eq!(ran.expect_err("it has no end").class, ErrorClass::Timeout);
    transaction.execute("DELETE FROM person", vec![]).await.expect_err("it fails its transaction");
    drop(transaction);
    let next = timeout(Duration::from_secs(2), database.begin()).await.expect("at once").expect("begins");
    next.rollback().await.expect("rolls back");
    assert_eq!(people(database.as_ref()).await, [""; 0]);
    let read = database.query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n", vec![]).await;
    assert_eq!(read.expect_err("it has no end").class, ErrorClass::Timeout);
    insert(database.as_ref(), "after").await;
}

async fn effects_leave_with_the_commit(database: &Arc<dyn Database>) {
    let signal = database.signal();
    let peek = || async { database.peek(i64::MIN, 100).await.expect("peeks") };
    let mut transaction = database.begin().await.expect("begins");
    transaction.emit(event("rolled back")).await.expect("emits");
    transaction.rollback().await.expect("rolls back");
    let mut transaction = database.begin().await.expect("begins");
    transaction.emit(event("dropped")).await.expect("emits");
    drop(transaction);
    assert_eq!(peek().await, []);

    let push = Effect::Push(Push {
        users: vec![Uuid::now_v7(), Uuid::now_v7()],
        event: "message".to_owned(),
        payload: "{\"a\":[1,null]}".to_owned(),
        class: Class::Durable,
        receipt: Some("m".to_owned()),
        subject: Some("m".to_owned()),
        state: None,
    });
    let effects = [event("one"), push, event("two")];
    let mut transaction = database.begin().await.expect("begins");
    transaction.emit(effects[0].clone()).await.expect("emits");
    transaction.execute("INSERT INTO person (id, name) VALUES ('e', 'e')", vec![]).await.expect("inserts");
    transaction.emit(effects[1].clone()).await.expect("emits");
    assert_eq!(peek().await, [], "an effect left before the commit");
    transaction.commit().await.expect("commits");
    timeout(Duration::from_secs(2), signal.notified()).await.expect("the relay is called");
    database.emit(vec![effects[2].clone()]).await.expect("emits outside");
    timeout(Duration::from_secs(2), signal.notified()).await.expect("the relay is called");
    let out = peek().await;
    assert_eq!(out.iter().map(|(_, effect)| effect.clone()).collect::<Vec<_>>(), effects);
    assert_eq!(database.peek(i64::MIN, 1).await.expect("peeks"), out[..1]);

    database.remove_up_to(out[1].0).await.expect("removes");
    assert_eq!(peek().await, out[2..]);
    database.remove_up_to(out[2].0).await.expect("removes");
    database.emit(vec![event("three")]).await.expect("emits outside");
    assert!(peek().await[0].0 > out[2].0, "positions never come twice, even from an emptied outbox");

    // More than a transaction keeps in memory.
    let mut transaction = database.begin().await.expect("begins");
    for number in 0..40 {
        let Effect::Event(mut large) = event(&number.to_string()) else { panic!("an event") };
        large.payload = format!("\"{}\"", "x".repeat(100 * 1024));
        transaction.emit(Effect::Event(large)).await.expect("emits");
    }
    drop(transaction);
    assert_eq!(peek().await.len(), 1);
    let Effect::Event(mut huge) = event("huge") else { panic!("an event") };
    huge.payload = "x".repeat(limits::EVENT_BYTES_MAX + 1);
    assert_eq!(database.emit(vec![Effect::Event(huge)]).await.expect_err("too large").class, ErrorClass::TooLarge);
}

async fn services_do_not_see_each_other(backend: Arc<dyn SqlBackend>) {
    let alpha = prepared(backend.clone()).await;
    insert(alpha.as_ref(), "secret").await;
    let beta = backend.open(&name("beta")).await.expect("opens");
    beta.query("SELECT * FROM person", vec![]).await.expect_err("another service's table");
    beta.query("SELECT * FROM alpha.person", vec![]).await.expect_err("another service's table");
    beta.migrate(&[migration(backend.as_ref(), "0001_people", SCHEMA)]).await.expect("the same names, other tables");
    assert_eq!(people(beta.as_ref()).await, [""; 0]);
    assert_ne!(alpha.source(), beta.source());
    alpha.emit(vec![event("a")]).await.expect("emits");
    assert_eq!(beta.peek(i64::MIN, 10).await.expect("peeks"), []);
    let again = backend.open(&name("alpha")).await.expect("opens");
    assert_eq!(people(again.as_ref()).await, ["secret"]);
}

async fn migrations_apply_once(backend: Arc<dyn SqlBackend>) {
    let database = backend.open(&name("alpha")).await.expect("opens");
    let first = migration(backend.as_ref(), "0001_people", SCHEMA);
    let mut other = first.clone();
    other.dialect = "another".to_owned();
    other.sql = "not for this backend".to_owned();
    let both = [first.clone(), other];
    assert_eq!(database.pending(&both).await.expect("looks"), ["0001_people"]);
    assert_eq!(database.migrate(&both).await.expect("applies"), ["0001_people"]);
    assert_eq!(database.pending(&both).await.expect("looks"), [""; 0]);
    assert_eq!(database.migrate(std::slice::from_ref(&first)).await.expect("known"), [""; 0]);
    insert(database.as_ref(), "a").await;
    let all = "SELECT * FROM person";
    assert_eq!(database.query(all, vec![]).await.expect("reads").columns.len(), 3);

    let second =
        migration(backend.as_ref(), "0002_email", "ALTER TABLE person ADD COLUMN email TEXT; CREATE INDEX person_email ON person (email);");
    assert_eq!(database.migrate(&[first.clone(), second.clone()]).await.expect("applies"), ["0002_email"]);
    let rows = database.query(all, vec![]).await.expect("a statement from before sees the new shape");
    assert_eq!((rows.columns.len(), rows.rows[0].len()), (4, 4));

    let changed = migration(backend.as_ref(), "0001_people", "CREATE TABLE other (a TEXT)");
    assert!(matches!(database.pending(std::slice::from_ref(&changed)).await, Err(MigrateError::Changed { .. })));
    assert!(matches!(database.migrate(&[changed]).await, Err(MigrateError::Changed { name }) if name == "0001_people"));
    let adding = migration(backend.as_ref(), "0003_add", "CREATE TABLE added (a TEXT)");
    let dropping = [adding, migration(backend.as_ref(), "0004_drop", "DROP TABLE pet")];
    assert!(matches!(database.pending(&dropping).await, Err(MigrateError::NotAdditive { .. })));
    assert!(matches!(database.migrate(&dropping).await, Err(MigrateError::NotAdditive { .. })));
    database.query("SELECT * FROM added", vec![]).await.expect_err("all are looked at before the first is applied");
    let broken = migration(backend.as_ref(), "0003_broken", "CREATE TABLE half (a TEXT); CREATE INDEX i ON nowhere (a);");
    assert!(matches!(database.migrate(&[broken]).await, Err(MigrateError::Failed { .. })));
    database.query("SELECT * FROM half", vec![]).await.expect_err("half a migration is none");
    assert_eq!(people(database.as_ref()).await, ["a"]);
}

async fn what_was_committed_is_there_again(backend: Arc<dyn SqlBackend>) {
    let database = prepared(backend.clone()).await;
    let before = people(database.as_ref()).await.len();
    assert_eq!(database.peek(i64::MIN, 10).await.expect("peeks").len(), before);
    insert(database.as_ref(), &format!("{} of {}", before, database.source())).await;
    database.emit(vec![event("kept")]).await.expect("emits");
    database.ping().await.expect("answers");
    let sources: BTreeSet<String> =
        people(database.as_ref()).await.iter().map(|id| id.split_once(" of ").expect("written above").1.to_owned()).collect();
    assert_eq!(sources, BTreeSet::from([database.source().to_owned()]), "a source keeps its name");
    backend.close().await;
    assert_eq!(database.ping().await.expect_err("closed").class, ErrorClass::Unavailable);
}

fn sqlite(folder: &tempfile::TempDir) -> impl Fn(&'static str) -> std::future::Ready<Arc<dyn SqlBackend>> + '_ {
    |name| std::future::ready(Arc::new(SqliteBackend::new(folder.path().join(name))) as Arc<dyn SqlBackend>)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    suite(sqlite(&folder)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_passes_where_commits_outlive_the_power() {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = |name| SqliteBackend::with_durability(folder.path().join(name), Durability::Power);
    suite(|name| std::future::ready(Arc::new(backend(name)) as Arc<dyn SqlBackend>)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_passes() {
    let server = super::postgres::fixture::Server::start().await;
    suite(|name| server.backend(name)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_no_commit_and_no_effect() {
    const TEST: &str = "sql::suite::a_killed_process_loses_no_commit_and_no_effect";
    let add = "INSERT INTO person (id, name) VALUES ($1, $1)";
    if let Some(folder) = killed::folder() {
        let database = prepared(Arc::new(SqliteBackend::new(folder))).await;
        loop {
            let id = Uuid::now_v7().to_string();
            let mut transaction = database.begin().await.expect("begins");
            transaction.execute(add, vec![text(&id)]).await.expect("inserts");
            transaction.emit(event(&id)).await.expect("emits");
            transaction.commit().await.expect("commits");
            killed::acknowledge(id);
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged = Vec::new();
    for _ in 0..4 {
        acknowledged.extend(killed::run(TEST, folder.path(), rand::random_range(1..400)));
    }
    let database = prepared(Arc::new(SqliteBackend::new(folder.path()))).await;
    let rows: BTreeSet<String> = people(database.as_ref()).await.into_iter().collect();
    let mut effects = BTreeSet::new();
    for (_, effect) in database.peek(i64::MIN, usize::MAX).await.expect("peeks") {
        let Effect::Event(event) = effect else { panic!("only events were emitted") };
        assert!(effects.insert(event.key), "an effect stands there twice");
    }
    assert_eq!(rows, effects, "a row without its effect, or an effect without its row");
    for id in acknowledged {
        assert!(rows.contains(&id), "{id} was acknowledged and is lost");
    }
}
