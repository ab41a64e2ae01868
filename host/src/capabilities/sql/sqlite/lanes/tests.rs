//! What holds whatever becomes of a statement and its asker.

use super::*;

use std::sync::atomic::AtomicBool;

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
    writer.opened();
    let script = Script::all(["BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)"]);
    writer.run(&script, Params::default()).await.expect("inserts");
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

#[tokio::test]
async fn a_read_waits_for_the_writer_a_little_and_no_longer() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = file(&folder).await;
    assert!(file.writer_soon().await.expect("an answer").is_some(), "nobody has it");
    let busy = file.writer().await.expect("the writer");
    assert!(file.writer_soon().await.expect("an answer").is_none(), "somebody has it");
    let (soon, ()) = tokio::join!(file.writer_soon(), async move { drop(busy) });
    assert!(soon.expect("an answer").is_some(), "it has come free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asker_is_answered_though_the_thread_never_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = file(&folder).await;
    let mut writer = file.writer().await.expect("the writer");
    writer.opened();
    writer.run(&Script::new("BEGIN IMMEDIATE"), Params::default()).await.expect("begins");
    writer.run(&Script::new("CREATE TABLE t (a)"), Params::default()).await.expect("creates");
    let (release, held) = std::sync::mpsc::channel::<()>();
    let began = Instant::now();
    let stuck = writer.elsewhere(Duration::from_millis(10), move |_| held.recv().is_err()).await;
    assert_eq!(stuck.expect_err("it does not end").class, ErrorClass::Timeout);
    assert!(began.elapsed() < Duration::from_millis(limits::SQL_TIMEOUT_MS));
    let lost = writer.run(&Script::new("COMMIT"), Params::default()).await;
    assert_eq!(lost.expect_err("the thread has the connection").class, ErrorClass::Timeout);
    drop(writer);
    assert!(file.writer_soon().await.expect("an answer").is_none(), "one thread per connection, also where it is stuck");
    drop(release);
    let mut writer = file.writer().await.expect("it has come back");
    writer.run(&Script::new("CREATE TABLE t (a)"), Params::default()).await.expect("what was open is rolled back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_ends_with_its_asker() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = file(&folder).await;
    let mut writer = file.writer().await.expect("the writer");
    let endless = writer.run_text(ENDLESS, Duration::from_secs(60));
    assert!(tokio::time::timeout(Duration::from_millis(20), endless).await.is_err(), "it has no end");
    drop(writer);
    file.writer().await.expect("it came back at once, not after a minute");
}
