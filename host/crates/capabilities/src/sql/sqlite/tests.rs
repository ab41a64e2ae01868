//! What a hostile service says to its database: it is ended or refused, and nobody else waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::*;
use crate::hub::{Class, Push};

/// Far above what a statement may take and a busy machine adds (database servers of other tests beside it), and far below what one function of
/// SQLite's own could take.
const ENDS_WITHIN: Duration = Duration::from_millis(limits::SQL_TIMEOUT_MS + limits::SQLITE_ANSWER_MARGIN_MS + 15_000);

async fn database(folder: &tempfile::TempDir) -> Arc<dyn Database> {
    let backend = SqliteBackend::new(folder.path());
    let database = backend.open(&ServiceName::parse("alpha").expect("a good name")).await.expect("opens");
    let sql = "CREATE TABLE t (id BIGINT PRIMARY KEY, body TEXT)".to_owned();
    database.migrate(&[Migration { name: "0001_t".to_owned(), dialect: "sqlite".to_owned(), sql }]).await.expect("migrates");
    database
}

fn text(text: String) -> Value {
    Value::Text(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_that_cannot_be_interrupted_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = database(&folder).await;
    for sql in [
        "SELECT instr(hex(zeroblob(1040000)), hex(zeroblob(520000)) || '1')",
        "SELECT instr('a', 'b')",
        "SELECT \"instr\"('a', 'b')",
        "SELECT hex('a')",
        "SELECT zeroblob(1)",
        "SELECT randomblob(1)",
        "SELECT printf('%*d', 1, 1)",
        "SELECT format('%*d', 1, 1)",
        "SELECT 'a' GLOB 'a'",
        "SELECT 'a' REGEXP 'a'",
        "SELECT 'a' MATCH 'a'",
        "SELECT json('{}')",
        "SELECT '{}' -> 'a'",
        "SELECT json_group_array(1)",
        "SELECT * FROM json_each('[]')",
        "SELECT quote('a')",
        "SELECT soundex('a')",
        "SELECT strftime('%s', 'now')",
        "SELECT likely(instr('a', 'b'))",
        "INSERT INTO t (id, body) VALUES (1, hex('a'))",
        "UPDATE t SET body = hex(body)",
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n LIMIT 1",
        "SELECT name FROM main.dbstat",
    ] {
        let error = database.query(sql, vec![]).await.expect_err(sql);
        assert_eq!(error.class, ErrorClass::Other, "{sql}: {error}");
    }
    assert_eq!(database.query("SELECT id FROM t", vec![]).await.expect("reads").rows.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_on_their_way_are_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = database(&folder).await;
    let half = "x".repeat(limits::SQL_VALUE_BYTES_MAX / 2 + 1);
    for (sql, params) in [
        ("WITH RECURSIVE d(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM d) SELECT length(s) FROM d", vec![]),
        ("SELECT length($1 || $1)", vec![text(half.clone())]),
        ("SELECT length(replace($1, 'x', 'yy'))", vec![text(half.clone())]),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT length(group_concat($1)) FROM n",
            vec![text(half.clone())],
        ),
        ("INSERT INTO t (id, body) VALUES (1, $1 || $1)", vec![text(half)]),
    ] {
        let error = database.query(sql, params).await.expect_err(sql);
        assert_eq!(error.class, ErrorClass::TooLarge, "{sql}: {error}");
    }
}

/// Each of them once took seconds to minutes inside one function or one step, in which SQLite asks nobody.
fn hostile() -> Vec<(&'static str, Vec<Value>)> {
    let many = "a".repeat(limits::SQL_VALUE_BYTES_MAX / 2 - 100);
    let half = "a".repeat(limits::SQL_VALUE_BYTES_MAX / 4);
    let pattern = format!("{}b", "%a".repeat(limits::SQL_LIKE_PATTERN_BYTES_MAX / 2 - 1));
    vec![
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n", vec![]),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(replace($1, $2, 'b')) FROM n",
            vec![text(many.clone()), text(format!("{half}b"))],
        ),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count($1 LIKE $2) FROM n",
            vec![text(many.clone()), text(pattern)],
        ),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(upper(lower($1 || i))) FROM n",
            vec![text(many.clone())],
        ),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(trim($1, 'a')) FROM n", vec![text(many)]),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO t (id, body) SELECT i, 'x' FROM n WHERE i < 0",
            vec![],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_statements_end_in_their_time_and_nobody_waits_for_them() {
    let folders: Vec<_> = hostile().iter().map(|_| tempfile::tempdir().expect("a folder")).collect();
    let databases = join_all(folders.iter().map(database)).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let seen = is_over.clone();
    let other = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        while !seen.load(Ordering::Relaxed) {
            let begin = Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            longest = longest.max(begin.elapsed());
        }
        longest
    });
    // Each twice at once, all services together.
    let asked =
        hostile().into_iter().zip(&databases).flat_map(|(case, database)| [(case.clone(), database.clone()), (case, database.clone())]);
    let asked = asked.map(|((sql, params), database)| {
        tokio::spawn(async move {
            let begin = Instant::now();
            let outcome = database.query(sql, params).await;
            (sql, begin.elapsed(), outcome)
        })
    });
    for ended in join_all(asked).await {
        let (sql, took, outcome) = ended.expect("no panic");
        let error = outcome.expect_err(sql);
        println!("{took:?} {:?} {sql}", error.class);
        assert_eq!(error.class, ErrorClass::Timeout, "{sql}: {error}");
        assert!(took < ENDS_WITHIN, "{sql} took {took:?}");
    }
    is_over.store(true, Ordering::Relaxed);
    let longest = other.await.expect("no panic");
    println!("a task of 5 ms took at most {longest:?}");
    assert!(longest < Duration::from_millis(3_000), "another task waited {longest:?}");
    for database in databases {
        database.execute("INSERT INTO t (id) VALUES (1)", vec![]).await.expect("the database goes on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_was_quick_and_takes_long_is_begun_again_elsewhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = database(&folder).await;
    let up_to = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) ";
    let count = format!("{up_to} SELECT count(*) FROM n");
    let insert = format!("{up_to} INSERT INTO t (id) SELECT i FROM n");
    let (few, many) = (vec![Value::S64(3)], vec![Value::S64(200_000)]);
    for _ in 0..3 {
        database.query(&count, few.clone()).await.expect("counts");
        assert_eq!(database.execute(&insert, few.clone()).await.expect("inserts"), 3);
        assert_eq!(database.execute("DELETE FROM t", vec![]).await.expect("deletes"), 3);
    }
    let rows = database.query(&count, many.clone()).await.expect("counts all");
    assert_eq!(rows.rows, [[Value::S64(200_000)]]);
    let mut transaction = database.begin().await.expect("begins");
    assert_eq!(transaction.execute(&insert, many.clone()).await.expect("inserts all, once"), 200_000);
    assert_eq!(transaction.query(&count, many).await.expect("counts").rows, [[Value::S64(200_000)]]);
    transaction.commit().await.expect("commits");
    assert_eq!(database.query("SELECT count(*) FROM t", vec![]).await.expect("counts").rows, [[Value::S64(200_000)]]);
}

#[tokio::test]
async fn a_database_does_not_grow_beyond_its_share_and_can_be_emptied_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = SqliteBackend::new(folder.path()).within(limits::SQL_SERVICE_BYTES_MIN);
    let database = backend.open(&ServiceName::parse("alpha").expect("a good name")).await.expect("opens");
    let sql = "CREATE TABLE t (id BIGINT PRIMARY KEY, body TEXT)".to_owned();
    database.migrate(&[Migration { name: "0001_t".to_owned(), dialect: "sqlite".to_owned(), sql }]).await.expect("migrates");
    let insert = |id: i64| database.execute("INSERT INTO t (id, body) VALUES ($1, $2)", vec![Value::S64(id), text("x".repeat(100_000))]);
    let mut taken = 0;
    let error = loop {
        match insert(taken).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken as u64 * 100_000 < 2 * limits::SQL_SERVICE_BYTES_MIN, "it has no end");
    };
    assert_eq!((error.class, error.sqlstate.as_deref()), (ErrorClass::Unavailable, Some("53100")), "{error}");
    assert!(taken > 20, "{taken} rows of 100 KB");
    let size = std::fs::metadata(folder.path().join("alpha.sqlite")).expect("the file").len();
    assert!(size <= limits::SQL_SERVICE_BYTES_MIN, "{size}");
    database.execute("DELETE FROM t WHERE id < 10", vec![]).await.expect("what is there can go");
    insert(taken).await.expect("and there is room again");
}

#[tokio::test]
async fn effects_leave_and_reads_see_what_is_committed_with_others_not_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = database(&folder).await;
    let push = |number: i64| {
        let (users, event, payload) = (vec![uuid::Uuid::nil()], "e".to_owned(), number.to_string());
        Effect::Push(Push { users, event, payload, class: Class::Durable, receipt: None, subject: None, state: None })
    };
    let insert = "INSERT INTO t (id) VALUES ($1)";
    // Known to be quick: it shares a commit with others.
    for id in 100..102 {
        database.execute(insert, vec![Value::S64(id)]).await.expect("inserts");
    }
    let mut one = database.begin().await.expect("begins");
    let mut two = database.begin();
    assert!((&mut two).now_or_never().is_none());
    one.execute(insert, vec![Value::S64(1)]).await.expect("inserts");
    one.emit(push(1)).await.expect("emits");
    let mut one = one.commit();
    assert!((&mut one).now_or_never().is_none(), "it is not on the disk yet");
    let mut two = two.await.expect("begins");
    two.execute(insert, vec![Value::S64(2)]).await.expect("inserts");
    assert_eq!(database.peek(i64::MIN, 10).await.expect("peeks"), []);
    let count = "SELECT count(*) FROM t WHERE id < 100";
    assert_eq!(database.query_one(count, vec![]).await.expect("reads"), Some(vec![Value::S64(0)]));
    two.emit(push(2)).await.expect("emits");
    two.commit().await.expect("commits");
    one.await.expect("commits");
    let effects: Vec<_> = database.peek(i64::MIN, 10).await.expect("peeks").into_iter().map(|(_, effect)| effect).collect();
    assert_eq!(effects, [push(1), push(2)]);
    assert_eq!(database.query_one(count, vec![]).await.expect("reads"), Some(vec![Value::S64(2)]));
}

#[tokio::test]
async fn a_conflict_with_what_is_not_committed_yet_is_answered_after_that_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = database(&folder).await;
    let insert = "INSERT INTO t (id) VALUES ($1)";
    database.execute(insert, vec![Value::S64(100)]).await.expect("inserts");
    database.execute(insert, vec![Value::S64(101)]).await.expect("inserts");
    let mut one = database.begin().await.expect("begins");
    let (mut same, mut last) = (database.execute(insert, vec![Value::S64(1)]), database.begin());
    assert!((&mut same).now_or_never().is_none() && (&mut last).now_or_never().is_none());
    one.execute(insert, vec![Value::S64(1)]).await.expect("inserts");
    let mut one = one.commit();
    assert!((&mut one).now_or_never().is_none() && (&mut same).now_or_never().is_none());
    let last = last.await.expect("begins");
    assert!((&mut same).now_or_never().is_none(), "it would be the answer to what may never have been");
    drop(last);
    one.await.expect("commits");
    assert_eq!(same.await.expect_err("it is there already").class, ErrorClass::UniqueViolation);
}
