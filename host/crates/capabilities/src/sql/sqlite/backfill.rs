//! Back-fills of a service's SQLite file: a batch of rows at a time, in the order of the table's key, each batch with its note of how far it came in one
//! transaction. Cut off anywhere, it goes on after the last batch that was committed.

use std::time::Duration;

use super::migrate::{digest, quoted};
use super::pool::{File, PooledConnection};
use super::script::Script;
use super::values::{self, Params};
use crate::sql::migration::Backfill;
use crate::sql::{BackfillProgress, ErrorClass, MigrateError, SqlError, Value};
use echo_base::clock::now_us;

/// `position`: the key of the last row that was looked at, as a JSON list of SQL literals; null before the first.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS _echo_backfills (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, began_us INTEGER NOT NULL,
    position TEXT, rows INTEGER NOT NULL, done_us INTEGER) WITHOUT ROWID";

/// The next batch.
pub async fn run(file: &File, backfill: &Backfill, rows_max: usize, time: Duration) -> Result<BackfillProgress, MigrateError> {
    let mut writer = file.writer_alone().await?;
    writer.begin()?;
    let progress = batch(&mut writer, backfill, rows_max, time).await?;
    writer.commit(None).await?;
    Ok(progress)
}

/// Within the transaction that is open.
pub async fn batch(
    writer: &mut PooledConnection,
    backfill: &Backfill,
    rows_max: usize,
    time: Duration,
) -> Result<BackfillProgress, MigrateError> {
    writer.run(&Script::new(TABLE), Params::default()).await?;
    let begin =
        Script::new("INSERT INTO _echo_backfills (name, sha256, began_us, rows) VALUES ($1, $2, $3, 0) ON CONFLICT (name) DO NOTHING");
    let name: Value = backfill.name.as_str().into();
    writer.run(&begin, values::bind([name.clone(), digest(&backfill.sql).as_str().into(), Value::Timestamp(now_us())])?).await?;
    let (mut position, mut is_another, mut is_done) = (None, false, false);
    let state = Script::new("SELECT position, sha256 <> $2, done_us IS NOT NULL FROM _echo_backfills WHERE name = $1");
    let params = values::bind([name.clone(), digest(&backfill.sql).as_str().into()])?;
    writer
        .each(&state, params, |row| {
            position = if values::is_null(row, 0)? { None } else { Some(values::text(row, 0)?) };
            (is_another, is_done) = (values::integer(row, 1)? != 0, values::integer(row, 2)? != 0);
            Ok(true)
        })
        .await?;
    if is_another {
        return Err(MigrateError::Changed { name: backfill.name.clone() });
    }
    if !is_done {
        let fails = |source| MigrateError::Failed { name: backfill.name.clone(), source };
        let (last, changed) = fill(writer, backfill, position.as_deref(), rows_max, time).await.map_err(fails)?;
        let done_us = if last.is_none() { Value::Timestamp(now_us()) } else { Value::Null };
        let last = last.map_or(Value::Null, |last| last.as_str().into());
        let note = Script::new("UPDATE _echo_backfills SET position = $2, rows = rows + $3, done_us = $4 WHERE name = $1");
        writer.run(&note, values::bind([name, last, changed.into(), done_us])?).await?;
    }
    let progress = progress_on(writer, &backfill.name).await?;
    Ok(progress.unwrap_or_default())
}

/// The key of the last row of the batch, none where there are no more rows after it; and how many it changed.
async fn fill(
    writer: &mut PooledConnection,
    backfill: &Backfill,
    position: Option<&str>,
    rows_max: usize,
    time: Duration,
) -> Result<(Option<String>, i64), SqlError> {
    let table = quoted(&backfill.table);
    let key = key_of(writer, &backfill.table).await?;
    let after = match position {
        Some(position) => {
            let literals: Vec<String> =
                serde_json::from_str(position).map_err(|error| SqlError::new(ErrorClass::Other, error.to_string()))?;
            format!("({}) > ({})", key.join(", "), literals.join(", "))
        }
        None => "true".to_owned(),
    };
    let columns = key.join(", ");
    let literals: Vec<String> = key.iter().map(|column| format!("quote({column})")).collect();
    let mut last = None;
    let nth = format!(
        "SELECT json_array({}) FROM {table} WHERE {after} ORDER BY {columns} LIMIT 1 OFFSET {}",
        literals.join(", "),
        rows_max.max(1) - 1
    );
    writer
        .each(&Script::new(nth).once(), Params::default(), |row| {
            last = Some(values::text(row, 0)?);
            Ok(true)
        })
        .await?;
    let nulls: Vec<String> = backfill.columns.iter().map(|column| format!("{} IS NULL", quoted(column))).collect();
    let condition = backfill.condition.as_deref().unwrap_or("true");
    let update = format!(
        "UPDATE {table} SET {} WHERE ({columns}) IN (SELECT {columns} FROM {table} WHERE {after} ORDER BY {columns} LIMIT {}) AND {} AND ({condition})",
        backfill.assignments,
        rows_max.max(1),
        nulls.join(" AND "),
    );
    writer.run_batch(&update, time).await?;
    let mut changed = 0;
    writer
        .each(&Script::new("SELECT changes()"), Params::default(), |row| {
            changed = values::integer(row, 0)?;
            Ok(true)
        })
        .await?;
    Ok((last, changed))
}

/// The columns in whose order the rows of a table stand, quoted.
async fn key_of(lease: &mut PooledConnection, table: &str) -> Result<Vec<String>, SqlError> {
    let mut key = Vec::new();
    let script = Script::new(
        "SELECT c.name FROM pragma_table_list AS t, pragma_table_info(t.name) AS c
            WHERE t.schema = 'main' AND lower(t.name) = $1 AND t.wr AND c.pk > 0 ORDER BY c.pk",
    );
    lease
        .each(&script, values::bind([table.into()])?, |row| {
            key.push(quoted(&values::text(row, 0)?));
            Ok(true)
        })
        .await?;
    Ok(if key.is_empty() { vec!["_rowid_".to_owned()] } else { key })
}

pub async fn progress(file: &File, name: &str) -> Result<Option<BackfillProgress>, SqlError> {
    progress_on(&mut file.reader().await?, name).await
}

async fn progress_on(lease: &mut PooledConnection, name: &str) -> Result<Option<BackfillProgress>, SqlError> {
    let mut found = None;
    if has_table(lease).await? {
        let script = Script::new("SELECT began_us, rows, done_us IS NOT NULL FROM _echo_backfills WHERE name = $1");
        lease
            .each(&script, values::bind([name.into()])?, |row| {
                let number = |index| values::integer(row, index).map(|number| u64::try_from(number).unwrap_or(0));
                found = Some(BackfillProgress { began_us: number(0)?, rows: number(1)?, is_done: number(2)? != 0 });
                Ok(true)
            })
            .await?;
    }
    Ok(found)
}

pub async fn restart(file: &File, name: &str) -> Result<(), SqlError> {
    let mut writer = file.writer_alone().await?;
    if has_table(&mut writer).await? {
        let script = Script::new("UPDATE _echo_backfills SET began_us = $2, position = NULL, done_us = NULL WHERE name = $1");
        writer.run(&script, values::bind([name.into(), Value::Timestamp(now_us())])?).await?;
    }
    Ok(())
}

async fn has_table(lease: &mut PooledConnection) -> Result<bool, SqlError> {
    let mut found = false;
    let script = Script::new("SELECT 1 FROM sqlite_schema WHERE name = '_echo_backfills'");
    lease
        .each(&script, Params::default(), |_| {
            found = true;
            Ok(true)
        })
        .await?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::sql::Migration;
    use crate::sql::sqlite::Durability;
    use crate::sql::sqlite::migrate;
    use echo_fixture::killed;

    const TIME: Duration = Duration::from_secs(60);
    const ROWS: u32 = 20_000;

    fn migrations(table: &str, filled: &str) -> [Migration; 3] {
        let migration = |name: &str, sql: &str| Migration { name: name.to_owned(), dialect: "sqlite".to_owned(), sql: sql.to_owned() };
        [migration("0001_t", table), migration("0002_c", "ALTER TABLE t ADD COLUMN c TEXT"), migration("0002_c.backfill", filled)]
    }

    const PLAIN: &str = "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT)";
    const FILL: &str = "UPDATE t SET c = upper(name) WHERE name IS NOT NULL";

    /// A file with the rows and the new column, and its back-fill.
    async fn opened(folder: &Path, all: &[Migration]) -> (File, Backfill) {
        let file = File::open(&folder.join("a.sqlite"), Durability::default()).await.expect("opens");
        let is_new = !migrate::pending(&file, &all[..1]).await.expect("reads").is_empty();
        if is_new {
            migrate::apply(&file, &all[..1], TIME).await.expect("applies");
            migrate::confirm(&file, &["0001_t".to_owned()]).await.expect("confirms");
            let rows = format!(
                "INSERT INTO t (id, name) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {ROWS})
                    SELECT hex(i * 7919 % 65536) || '-' || i, CASE WHEN i % 10 = 0 THEN NULL ELSE 'n' || i END FROM n"
            );
            file.writer().await.expect("the writer").run_text(&rows, TIME).await.expect("fills");
            let fresh = migrate::apply(&file, all, TIME).await.expect("applies");
            assert_eq!(fresh, ["0002_c"], "a back-fill is no migration");
            migrate::confirm(&file, &fresh).await.expect("confirms");
        }
        let backfill = Backfill::of(&all[2], all).expect("it is one");
        (file, backfill)
    }

    async fn count(file: &File, condition: &str) -> i64 {
        let mut count = 0;
        let script = Script::new(format!("SELECT count(*) FROM t WHERE {condition}"));
        let mut reader = file.reader().await.expect("a reader");
        reader
            .each(&script, Params::default(), |row| {
                count = values::integer(row, 0)?;
                Ok(true)
            })
            .await
            .expect("counts");
        count
    }

    async fn to_its_end(file: &File, backfill: &Backfill, rows: usize) -> u64 {
        loop {
            let progress = run(file, backfill, rows, TIME).await.expect("a batch");
            if progress.is_done {
                return progress.rows;
            }
        }
    }

    #[tokio::test]
    async fn rows_are_filled_in_batches_and_none_twice() {
        let two_columns = "CREATE TABLE t (id TEXT, name TEXT, PRIMARY KEY (id, name)) WITHOUT ROWID";
        for (table, unnamed) in [(PLAIN, ROWS / 10), (two_columns, 0)] {
            let folder = tempfile::tempdir().expect("a folder");
            let table = table.replace("name TEXT, PRIMARY", "name TEXT NOT NULL DEFAULT '', PRIMARY");
            let all = migrations(&table, FILL);
            let file = File::open(&folder.path().join("a.sqlite"), Durability::default()).await.expect("opens");
            migrate::apply(&file, &all[..1], TIME).await.expect("applies");
            let name = if unnamed > 0 { "CASE WHEN i % 10 = 0 THEN NULL ELSE 'n' || i END" } else { "'n' || i" };
            let rows = format!(
                "INSERT INTO t (id, name) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {ROWS})
                    SELECT hex(i * 7919 % 512), {name} FROM n WHERE {unnamed} = 0 UNION ALL
                    SELECT i, {name} FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {ROWS}) SELECT i FROM n) WHERE {unnamed} > 0"
            );
            file.writer().await.expect("the writer").run_text(&rows, TIME).await.expect("fills");
            migrate::confirm(&file, &["0001_t".to_owned()]).await.expect("confirms");
            migrate::apply(&file, &all, TIME).await.expect("applies");
            let backfill = Backfill::of(&all[2], &all).expect("it is one");
            // What the service wrote itself stays.
            let own = "UPDATE t SET c = 'own' WHERE name = 'n77'";
            file.writer().await.expect("the writer").run_text(own, TIME).await.expect("writes");
            let first = run(&file, &backfill, 999, TIME).await.expect("a batch");
            assert!(!first.is_done && first.rows <= 999, "{first:?}");
            assert_eq!(to_its_end(&file, &backfill, 999).await, u64::from(ROWS - unnamed - 1));
            assert_eq!(count(&file, "c = upper(name)").await, i64::from(ROWS - unnamed - 1));
            assert_eq!(count(&file, "c = 'own'").await, 1);
            assert_eq!(count(&file, "c IS NULL").await, i64::from(unnamed));
            // Done is done, until a version that does not know the column has written again.
            let more = "INSERT INTO t (id, name) VALUES ('0', 'later')";
            file.writer().await.expect("the writer").run_text(more, TIME).await.expect("writes");
            assert!(run(&file, &backfill, 999, TIME).await.expect("a batch").is_done);
            assert_eq!(count(&file, "c = 'LATER'").await, 0);
            restart(&file, &backfill.name).await.expect("restarts");
            to_its_end(&file, &backfill, 999).await;
            assert_eq!(count(&file, "c = 'LATER'").await, 1);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_killed_process_goes_on_after_the_last_batch() {
        const TEST: &str = "sql::sqlite::backfill::tests::a_killed_process_goes_on_after_the_last_batch";
        let all = migrations(PLAIN, FILL);
        if let Some(folder) = killed::folder() {
            let (file, backfill) = opened(&folder, &all).await;
            loop {
                let progress = run(&file, &backfill, 50, TIME).await.expect("a batch");
                killed::acknowledge(progress.rows);
            }
        }
        let folder = tempfile::tempdir().expect("a folder");
        let mut before = 0;
        for _ in 0..3 {
            let done = killed::run(TEST, folder.path(), rand::random_range(1..60));
            let first: u64 = done[0].parse().expect("a number");
            assert!(first > before && first <= before + 2 * 50, "it went on at {first}, {before} were acknowledged");
            before = done.last().expect("one").parse().expect("a number");
        }
        let (file, backfill) = opened(folder.path(), &all).await;
        assert_eq!(to_its_end(&file, &backfill, 1_000).await, u64::from(ROWS - ROWS / 10), "each row once");
        assert_eq!(count(&file, "c IS NULL AND name IS NOT NULL").await, 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_batch_that_takes_too_long_changes_nothing_and_a_smaller_one_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, backfill) = opened(folder.path(), &migrations(PLAIN, FILL)).await;
        let late = run(&file, &backfill, ROWS as usize, Duration::from_millis(1)).await;
        assert!(matches!(&late, Err(MigrateError::Failed { source, .. }) if source.class == ErrorClass::Timeout), "{late:?}");
        assert_eq!(count(&file, "c IS NOT NULL").await, 0);
        assert_eq!(progress(&file, &backfill.name).await.expect("reads"), None);
        assert!(run(&file, &backfill, 100, TIME).await.expect("a batch").rows > 0);
        // Another text is another back-fill.
        let changed = Backfill { sql: "UPDATE t SET c = name".to_owned(), ..backfill };
        assert!(matches!(run(&file, &changed, 100, TIME).await, Err(MigrateError::Changed { .. })));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn others_write_between_batches() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, backfill) = opened(folder.path(), &migrations(PLAIN, FILL)).await;
        let file = std::sync::Arc::new(file);
        let filling = tokio::spawn({
            let file = file.clone();
            async move {
                let mut batches = 1;
                while !run(&file, &backfill, 100, TIME).await.expect("a batch").is_done {
                    batches += 1;
                }
                batches
            }
        });
        let mut writes = 0;
        while !filling.is_finished() {
            let insert = Script::new("INSERT INTO t (id, name, c) VALUES ('z' || hex(randomblob(8)), 'other', 'other')");
            file.writer().await.expect("the writer").run(&insert, Params::default()).await.expect("writes");
            writes += 1;
        }
        // Who waits for the writer has it after the batch at hand.
        let batches = filling.await.expect("no panic");
        assert!(batches >= ROWS as usize / 100 && 2 * writes >= batches, "{writes} writes came between {batches} batches");
    }
}
