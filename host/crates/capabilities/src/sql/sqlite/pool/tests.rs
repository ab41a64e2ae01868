//! What holds whatever becomes of a statement and its caller.

use super::*;
use crate::sql::sqlite::errors;
use crate::sql::sqlite::values::Row;

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use futures_util::FutureExt;

const ENDLESS: &str = "CREATE TABLE t AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i < 0";

async fn file(folder: &tempfile::TempDir) -> File {
    File::open(&folder.path().join("a.sqlite"), Durability::default()).await.expect("opens")
}

/// One thread for all tasks: what it does not give away stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_long_statement_gives_the_other_tasks_of_its_thread_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = file(&folder).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let seen = is_over.clone();
    let statement = tokio::spawn(async move {
        let mut writer = file.writer().await.expect("the writer");
        let outcome = writer.run_text(ENDLESS, Duration::from_secs(2)).await;
        seen.store(true, Ordering::SeqCst);
        outcome
    });
    let mut turns = 0;
    let other = tokio::spawn(async move {
        while !is_over.load(Ordering::SeqCst) {
            turns += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        turns
    });
    assert_eq!(statement.await.expect("no panic").expect_err("it has no end").class, ErrorClass::Timeout);
    let turns = other.await.expect("no panic");
    assert!(turns > 20, "the other task had {turns} turns in two seconds");
}

#[tokio::test]
async fn what_is_left_open_is_rolled_back_before_the_next_user() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = file(&folder).await;
    let mut writer = file.writer().await.expect("the writer");
    writer.run(&Script::new("CREATE TABLE t (a)"), Params::default()).await.expect("creates");
    writer.begin().expect("begins");
    writer.run(&Script::new("INSERT INTO t VALUES (1)"), Params::default()).await.expect("inserts");
    drop(writer);
    let mut writer = file.writer().await.expect("the writer");
    let mut rows = 0;
    let count = |_: &Row<'_>| {
        rows += 1;
        Ok(true)
    };
    writer.each(&Script::new("SELECT a FROM t"), Params::default(), count).await.expect("reads");
    assert_eq!(rows, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_answered_though_the_thread_never_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = file(&folder).await;
    let mut writer = file.writer().await.expect("the writer");
    writer.begin().expect("begins");
    writer.run(&Script::new("CREATE TABLE t (a)"), Params::default()).await.expect("creates");
    let (release, held) = std::sync::mpsc::channel::<()>();
    let began = Instant::now();
    let stuck = writer.run_on_worker(Duration::from_millis(10), move |_| held.recv().is_err()).await;
    assert_eq!(stuck.expect_err("it does not end").class, ErrorClass::Timeout);
    assert!(began.elapsed() < Duration::from_millis(limits::SQL_TIMEOUT_MS));
    let lost = writer.run(&Script::new("COMMIT"), Params::default()).await;
    assert_eq!(lost.expect_err("the thread has the connection").class, ErrorClass::Timeout);
    drop(writer);
    assert!(file.writer().now_or_never().is_none(), "one thread per connection, also where it is stuck");
    drop(release);
    let mut writer = file.writer().await.expect("it has come back");
    writer.run(&Script::new("CREATE TABLE t (a)"), Params::default()).await.expect("what was open is rolled back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_ends_with_its_caller() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = file(&folder).await;
    let mut writer = file.writer().await.expect("the writer");
    let endless = writer.run_text(ENDLESS, Duration::from_secs(60));
    assert!(tokio::time::timeout(Duration::from_millis(20), endless).await.is_err(), "it has no end");
    drop(writer);
    file.writer().await.expect("it came back at once, not after a minute");
}

async fn with_table(folder: &tempfile::TempDir) -> File {
    let file = file(folder).await;
    file.write(&Script::new("CREATE TABLE t (a INTEGER PRIMARY KEY)"), Params::default()).await.expect("creates");
    file
}

async fn committed(file: &File) -> Vec<i64> {
    let mut rows = Vec::new();
    let mut reader = file.reader().await.expect("a reader");
    let note = |row: &Row<'_>| row.get(0).map(|a| rows.push(a)).map(|()| true).map_err(errors::from_rusqlite);
    reader.each(&Script::new("SELECT a FROM t ORDER BY a"), Params::default(), note).await.expect("reads");
    rows
}

async fn insert(writer: &mut PooledConnection, a: i64) {
    writer.begin().expect("begins");
    writer.run(&Script::new(format!("INSERT INTO t VALUES ({a})")), Params::default()).await.expect("inserts");
}

/// How many commits the write-ahead log has (SQLite file format, section 4.1: the frame that ends one says how large the database is then).
fn commits(folder: &tempfile::TempDir) -> usize {
    let log = std::fs::read(folder.path().join("a.sqlite-wal")).expect("a log");
    log[32..].chunks_exact(24 + 4_096).filter(|frame| frame[4..8] != [0; 4]).count()
}

#[tokio::test]
async fn transactions_that_wait_for_the_writer_share_one_commit_and_are_answered_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = with_table(&folder).await;
    let before = commits(&folder);
    let busy = file.writer().await.expect("the writer");
    let order = Arc::new(Mutex::new(Vec::new()));
    let transaction = |a| {
        let (file, order) = (&file, order.clone());
        async move {
            let mut writer = file.writer().await.expect("the writer");
            insert(&mut writer, a).await;
            assert_eq!(committed(file).await, [0; 0], "somebody reads what is not committed");
            writer.commit(Some(Box::new(move |outcome| order.lock().push((a, outcome.is_ok()))))).await.expect("commits");
            // All of them, whoever it is that is answered.
            assert_eq!(committed(file).await.len(), 10);
        }
    };
    tokio::join!(futures_util::future::join_all((0..10).map(transaction)), async { drop(busy) });
    assert_eq!(*order.lock(), (0..10).map(|a| (a, true)).collect::<Vec<_>>(), "in the order of the transactions");
    assert_eq!(commits(&folder) - before, 1);
}

#[tokio::test]
async fn a_group_has_an_end_though_somebody_always_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = with_table(&folder).await;
    let before = commits(&folder);
    let transactions = 4 * limits::SQLITE_GROUP_TRANSACTIONS_MAX as i64;
    let transaction = |a| {
        let file = &file;
        async move {
            let mut writer = file.writer().await.expect("the writer");
            insert(&mut writer, a).await;
            writer.commit(None).await.expect("commits");
        }
    };
    futures_util::future::join_all((0..transactions).map(transaction)).await;
    assert!(commits(&folder) - before >= 4, "by their number");
    let before = commits(&folder);
    let slow = |a| {
        let file = &file;
        async move {
            let mut writer = file.writer().await.expect("the writer");
            insert(&mut writer, a).await;
            std::thread::sleep(Duration::from_micros(limits::SQLITE_GROUP_US));
            writer.commit(None).await.expect("commits");
        }
    };
    futures_util::future::join_all((transactions..transactions + 3).map(slow)).await;
    assert_eq!(commits(&folder) - before, 3, "by their time");
}

#[tokio::test]
async fn what_one_rolls_back_is_its_own_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = with_table(&folder).await;
    let mut one = file.writer().await.expect("the writer");
    insert(&mut one, 1).await;
    let (mut two, mut three, mut four) = (Box::pin(file.writer()), Box::pin(file.writer()), Box::pin(file.writer()));
    assert!((&mut two).now_or_never().is_none() && (&mut three).now_or_never().is_none() && (&mut four).now_or_never().is_none());
    let mut one = Box::pin(one.commit(None));
    assert!((&mut one).now_or_never().is_none(), "others share the commit");
    let mut dropped = two.await.expect("the writer");
    insert(&mut dropped, 2).await;
    drop(dropped);
    let mut rolled_back = three.await.expect("the writer");
    insert(&mut rolled_back, 3).await;
    let mut rolled_back = Box::pin(rolled_back.rollback());
    // It may have seen what the first one did, and its answer follow from that.
    assert!((&mut rolled_back).now_or_never().is_none() && (&mut one).now_or_never().is_none());
    let mut last = four.await.expect("the writer");
    insert(&mut last, 4).await;
    last.commit(None).await.expect("commits");
    one.await.expect("commits");
    rolled_back.await.expect("rolls back");
    assert_eq!(committed(&file).await, [1, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_breaks_off_fails_its_group_with_an_error_to_be_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = with_table(&folder).await;
    let mut one = file.writer().await.expect("the writer");
    insert(&mut one, 1).await;
    let mut two = Box::pin(file.writer());
    assert!((&mut two).now_or_never().is_none());
    let mut one = Box::pin(one.commit(None));
    assert!((&mut one).now_or_never().is_none());
    let mut two = two.await.expect("the writer");
    insert(&mut two, 2).await;
    let broken = two.run_text(&ENDLESS.replace("TABLE t", "TABLE endless"), Duration::from_millis(20)).await;
    assert_eq!(broken.expect_err("it has no end").class, ErrorClass::Timeout);
    drop(two);
    assert_eq!(one.await.expect_err("it was rolled back").class, ErrorClass::Serialization);
    let mut three = file.writer().await.expect("the writer");
    insert(&mut three, 3).await;
    three.commit(None).await.expect("commits");
    assert_eq!(committed(&file).await, [3]);
}

#[tokio::test]
async fn a_commit_that_fails_fails_for_all_of_its_group_and_nothing_of_it_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = with_table(&folder).await;
    // Found wanting at the commit, as a disk would be.
    let deferred = "CREATE TABLE child (t INTEGER REFERENCES t (a) DEFERRABLE INITIALLY DEFERRED)";
    file.write(&Script::new(deferred), Params::default()).await.expect("creates");
    let mut one = file.writer().await.expect("the writer");
    insert(&mut one, 1).await;
    let mut two = Box::pin(file.writer());
    assert!((&mut two).now_or_never().is_none());
    let mut one = Box::pin(one.commit(None));
    assert!((&mut one).now_or_never().is_none());
    let mut two = two.await.expect("the writer");
    two.begin().expect("begins");
    two.run(&Script::new("INSERT INTO child VALUES (99)"), Params::default()).await.expect("inserts");
    two.commit(None).await.expect_err("there is no 99");
    one.await.expect_err("it is the same commit");
    assert_eq!(committed(&file).await, [0; 0]);
    let mut three = file.writer().await.expect("the writer");
    insert(&mut three, 3).await;
    three.commit(None).await.expect("commits");
    assert_eq!(committed(&file).await, [3]);
}

#[tokio::test]
async fn who_gives_up_waiting_keeps_nobody_from_the_commit() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = with_table(&folder).await;
    let mut one = file.writer().await.expect("the writer");
    insert(&mut one, 1).await;
    let (mut gone, mut late) = (Box::pin(file.writer()), Box::pin(file.writer()));
    assert!((&mut gone).now_or_never().is_none() && (&mut late).now_or_never().is_none());
    drop(gone);
    let mut one = Box::pin(one.commit(None));
    assert!((&mut one).now_or_never().is_none(), "it has gone to the second");
    // That one had it, and did not look.
    drop(late);
    one.await.expect("commits");
    assert_eq!(committed(&file).await, [1]);
}
