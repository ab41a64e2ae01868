//! Migrations of a service's SQLite file: additive only, all of a deployment in one transaction, never changed once they are final.
//!
//! Each applied migration is stored with the statements that undo it, until it is made final. So a deployment that is refused after
//! its migrations were applied, or that the end of the process cut off, leaves nothing behind.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::backfill;
use super::pool::{File, PooledConnection};
use super::script::Script;
use super::values::{self, Params};
use crate::sql::{ErrorClass, MigrateError, Migration, SqlError, migration as additive};
use echo_base::limits;

/// `undo`: a JSON list of statements; null once the migration is final.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS _echo_migrations
    (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, applied_at INTEGER NOT NULL, undo TEXT) WITHOUT ROWID";

/// Applies what is missing, all or none, and gives its names. What an earlier deployment applied and did not make final is taken away first.
pub async fn apply(file: &File, migrations: &[Migration], time: Duration) -> Result<Vec<String>, MigrateError> {
    let mut writer = file.writer_alone().await?;
    let names = within_transaction(&mut writer, migrations, time).await?;
    writer.commit(None).await?;
    forget_statements(file).await;
    Ok(names)
}

/// As `apply`, on the data that is there, and rolls it back.
pub async fn rehearse(file: &File, migrations: &[Migration], time: Duration) -> Result<Vec<String>, MigrateError> {
    let mut writer = file.writer_alone().await?;
    let names = match within_transaction(&mut writer, migrations, time).await {
        Ok(names) => rehearse_backfills(&mut writer, migrations, &names, time).await.map(|()| names),
        Err(error) => Err(error),
    };
    // Given back with the transaction open, the writer is rolled back.
    drop(writer);
    // A large transaction leaves a long log, whatever becomes of it.
    if let Err(error) = file.writer_alone().await?.shorten_log().await {
        tracing::warn!(%error, "the write-ahead log could not be cut");
    }
    names
}

/// Makes those of these names final that were applied.
pub async fn confirm(file: &File, names: &[String]) -> Result<(), MigrateError> {
    let mut writer = file.writer_alone().await?;
    if !has_undo(&mut writer).await? {
        return Ok(());
    }
    writer.begin()?;
    let script = Script::new("UPDATE _echo_migrations SET undo = NULL WHERE name = $1 AND undo IS NOT NULL");
    for name in names {
        writer.run(&script, values::bind([name.as_str().into()])?).await?;
    }
    writer.commit(None).await.map_err(MigrateError::from)
}

/// Takes away what migrations added that are not final; their names.
pub async fn undo(file: &File) -> Result<Vec<String>, MigrateError> {
    let mut writer = file.writer_alone().await?;
    writer.begin()?;
    let undone = undo_open(&mut writer).await?;
    writer.commit(None).await?;
    forget_statements(file).await;
    Ok(undone)
}

/// The names of those that would be applied. Only reads.
pub async fn pending(file: &File, migrations: &[Migration]) -> Result<Vec<String>, MigrateError> {
    let mut reader = file.reader().await?;
    let known =
        if has_undo(&mut reader).await? { applied(&mut reader, "undo IS NULL").await? } else { applied_before(&mut reader).await? };
    Ok(names(&missing(&known, migrations)?))
}

async fn within_transaction(writer: &mut PooledConnection, migrations: &[Migration], time: Duration) -> Result<Vec<String>, MigrateError> {
    let until = Instant::now() + time;
    writer.begin()?;
    writer.run(&Script::new(TABLE), Params::default()).await?;
    if !has_undo(writer).await? {
        writer.run(&Script::new("ALTER TABLE _echo_migrations ADD COLUMN undo TEXT"), Params::default()).await?;
    }
    undo_open(writer).await?;
    let known = applied(writer, "undo IS NULL").await?;
    let fresh = missing(&known, migrations)?;
    for migration in &fresh {
        let left = until.saturating_duration_since(Instant::now());
        run(writer, migration, left).await.map_err(|source| match source.class {
            ErrorClass::Timeout => MigrateError::TooLong { name: migration.name.clone(), limit_ms: time.as_millis() as u64 },
            _ => MigrateError::Failed { name: migration.name.clone(), source },
        })?;
    }
    Ok(names(&fresh))
}

/// The first rows of each back-fill whose migration is new, within the transaction.
async fn rehearse_backfills(
    writer: &mut PooledConnection,
    all: &[Migration],
    fresh: &[String],
    time: Duration,
) -> Result<(), MigrateError> {
    for backfill in all.iter().filter(|migration| migration.dialect == "sqlite" && migration.is_backfill()) {
        if fresh.iter().any(|name| backfill.name.strip_suffix(Migration::BACKFILL) == Some(name)) {
            let refuses = |reason| MigrateError::NotAdditive { name: backfill.name.clone(), reason };
            let parsed = additive::Backfill::of(backfill, all).map_err(refuses)?;
            backfill::batch(writer, &parsed, limits::SQL_BACKFILL_ROWS_MAX, time).await?;
        }
    }
    Ok(())
}

async fn run(writer: &mut PooledConnection, migration: &Migration, time: Duration) -> Result<(), SqlError> {
    let before = Schema::read(writer).await?;
    writer.run_migration(&migration.sql, time).await?;
    let undo = before.back_from(&Schema::read(writer).await?);
    let undo = serde_json::to_string(&undo).expect("strings always encode");
    let record = Script::new("INSERT INTO _echo_migrations (name, sha256, applied_at, undo) VALUES ($1, $2, unixepoch(), $3)");
    let digest = digest(&migration.sql);
    let params = values::bind([migration.name.as_str().into(), digest.as_str().into(), undo.as_str().into()])?;
    writer.run(&record, params).await.map(drop)
}

async fn undo_open(writer: &mut PooledConnection) -> Result<Vec<String>, SqlError> {
    if !has_undo(writer).await? {
        return Ok(Vec::new());
    }
    let mut open: Vec<(String, Vec<String>)> = Vec::new();
    let script = Script::new("SELECT name, undo FROM _echo_migrations WHERE undo IS NOT NULL ORDER BY name DESC");
    writer
        .each(&script, Params::default(), |row| {
            let statements =
                serde_json::from_str(&values::text(row, 1)?).map_err(|error| SqlError::new(ErrorClass::Other, error.to_string()))?;
            open.push((values::text(row, 0)?, statements));
            Ok(true)
        })
        .await?;
    for (name, statements) in &open {
        for statement in statements {
            writer.run(&Script::new(statement.as_str()), Params::default()).await?;
        }
        writer.run(&Script::new("DELETE FROM _echo_migrations WHERE name = $1"), values::bind([name.as_str().into()])?).await?;
    }
    Ok(open.into_iter().map(|(name, _)| name).collect())
}

/// After a change of schema SQLite prepares a stale statement again when it runs; the cached ones are dropped here before that.
async fn forget_statements(file: &File) {
    if let Err(error) = file.forget_statements().await {
        tracing::warn!(%error, "kept statements could not be forgotten");
    }
}

/// What a migration can add.
struct Schema {
    /// `(type, name, is virtual)` of tables, indexes, views and triggers, in the order in which they were made.
    objects: Vec<(String, String, bool)>,
    /// `(table, column)`.
    columns: Vec<(String, String)>,
}

impl Schema {
    async fn read(lease: &mut PooledConnection) -> Result<Self, SqlError> {
        let mut schema = Self { objects: Vec::new(), columns: Vec::new() };
        let objects = Script::new(
            "SELECT type, name, coalesce(sql LIKE 'CREATE VIRTUAL %', 0) FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid",
        );
        lease
            .each(&objects, Params::default(), |row| {
                schema.objects.push((values::text(row, 0)?, values::text(row, 1)?, values::integer(row, 2)? != 0));
                Ok(true)
            })
            .await?;
        let columns = Script::new(
            "SELECT t.name, c.name FROM sqlite_schema AS t, pragma_table_xinfo(t.name) AS c WHERE t.type = 'table' ORDER BY t.rowid, c.cid",
        );
        lease
            .each(&columns, Params::default(), |row| {
                schema.columns.push((values::text(row, 0)?, values::text(row, 1)?));
                Ok(true)
            })
            .await?;
        Ok(schema)
    }

    /// The statements that lead from `after` back to this.
    fn back_from(&self, after: &Schema) -> Vec<String> {
        let before: BTreeSet<_> = self.objects.iter().map(|(kind, name, _)| (kind, name)).collect();
        let added: Vec<_> = after.objects.iter().filter(|(kind, name, _)| !before.contains(&(kind, name))).rev().collect();
        let drop = |wanted: &'static str, is_virtual: bool| {
            let of_kind = added.iter().filter(move |(kind, _, virtual_one)| kind == wanted && *virtual_one == is_virtual);
            of_kind.map(move |(_, name, _)| format!("DROP {} IF EXISTS {}", wanted.to_ascii_uppercase(), quoted(name)))
        };
        let is_new = |table: &String| added.iter().any(|(kind, name, _)| kind == "table" && name == table);
        let known: BTreeSet<_> = self.columns.iter().collect();
        let columns = after.columns.iter().rev().filter(|column| !known.contains(column) && !is_new(&column.0));
        let columns = columns.map(|(table, column)| format!("ALTER TABLE {} DROP COLUMN {}", quoted(table), quoted(column)));
        let first = ["trigger", "view", "index"].into_iter().flat_map(|kind| drop(kind, false));
        // The tables of a virtual one go with it.
        first.chain(columns).chain(drop("table", true)).chain(drop("table", false)).collect()
    }
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Those that are not among the known. All are looked at before the first is applied.
fn missing<'a>(known: &HashMap<String, String>, migrations: &'a [Migration]) -> Result<Vec<&'a Migration>, MigrateError> {
    let mut fresh = Vec::new();
    for migration in migrations.iter().filter(|migration| migration.dialect == "sqlite" && !migration.is_backfill()) {
        match known.get(&migration.name) {
            Some(before) if *before == digest(&migration.sql) => continue,
            Some(_) => return Err(MigrateError::Changed { name: migration.name.clone() }),
            None => {}
        }
        additive::check_one(migration).map_err(|reason| MigrateError::NotAdditive { name: migration.name.clone(), reason })?;
        fresh.push(migration);
    }
    Ok(fresh)
}

fn names(migrations: &[&Migration]) -> Vec<String> {
    migrations.iter().map(|migration| migration.name.clone()).collect()
}

async fn has_undo(lease: &mut PooledConnection) -> Result<bool, SqlError> {
    has(lease, "SELECT 1 FROM pragma_table_info('_echo_migrations') WHERE name = 'undo'").await
}

/// Where an older host kept them; there all are final.
async fn applied_before(lease: &mut PooledConnection) -> Result<HashMap<String, String>, SqlError> {
    if has(lease, "SELECT 1 FROM sqlite_schema WHERE name = '_echo_migrations'").await? {
        applied(lease, "true").await
    } else {
        Ok(HashMap::new())
    }
}

async fn has(lease: &mut PooledConnection, sql: &'static str) -> Result<bool, SqlError> {
    let mut found = false;
    lease
        .each(&Script::new(sql), Params::default(), |_| {
            found = true;
            Ok(true)
        })
        .await?;
    Ok(found)
}

/// By name, the digest of the text.
async fn applied(lease: &mut PooledConnection, which: &'static str) -> Result<HashMap<String, String>, SqlError> {
    let mut known = HashMap::new();
    let script = Script::new(format!("SELECT name, sha256 FROM _echo_migrations WHERE {which}"));
    lease
        .each(&script, Params::default(), |row| {
            known.insert(values::text(row, 0)?, values::text(row, 1)?);
            Ok(true)
        })
        .await?;
    Ok(known)
}

pub(super) fn digest(sql: &str) -> String {
    Sha256::digest(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::sql::sqlite::Durability;

    const TIME: Duration = Duration::from_secs(60);

    fn migration(name: &str, sql: &str) -> Migration {
        Migration { name: name.to_owned(), dialect: "sqlite".to_owned(), sql: sql.to_owned() }
    }

    async fn opened(folder: &tempfile::TempDir) -> File {
        File::open(&folder.path().join("a.sqlite"), Durability::default()).await.unwrap()
    }

    /// A table with so many rows.
    async fn filled(file: &File, rows: u32) {
        apply(file, &[migration("0001_t", "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")], TIME).await.unwrap();
        confirm(file, &["0001_t".to_owned()]).await.unwrap();
        let fill = format!(
            "INSERT INTO t (b) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {rows}) SELECT hex(i * 7919 % 65536) || i FROM n"
        );
        file.writer().await.unwrap().run_text(&fill, TIME).await.unwrap();
    }

    async fn schema(file: &File) -> (Vec<(String, String, bool)>, Vec<(String, String)>) {
        let schema = Schema::read(&mut file.reader().await.unwrap()).await.unwrap();
        (schema.objects, schema.columns)
    }

    const ADDS: &str = "CREATE TABLE \"p q\" (id TEXT PRIMARY KEY);
        CREATE TABLE child (id TEXT PRIMARY KEY, parent TEXT NOT NULL REFERENCES \"p q\" (id));
        CREATE INDEX child_parent ON child (parent);
        ALTER TABLE t ADD COLUMN c TEXT NOT NULL DEFAULT 'x';
        ALTER TABLE t ADD COLUMN d TEXT REFERENCES child (id);
        CREATE INDEX t_c ON t (c, b);";

    #[tokio::test]
    async fn a_rehearsal_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = opened(&folder).await;
        filled(&file, 10).await;
        let before = schema(&file).await;
        let added = [migration("0002_adds", ADDS)];
        assert_eq!(rehearse(&file, &added, TIME).await.unwrap(), ["0002_adds"]);
        let fails = [added[0].clone(), migration("0003_fails", "CREATE INDEX i ON nowhere (a)")];
        assert!(matches!(rehearse(&file, &fails, TIME).await, Err(MigrateError::Failed { name, .. }) if name == "0003_fails"));
        assert_eq!(schema(&file).await, before);
        assert_eq!(pending(&file, &added).await.unwrap(), ["0002_adds"]);
        // All or none, too.
        assert!(apply(&file, &fails, TIME).await.is_err());
        assert_eq!(schema(&file).await, before);
    }

    #[tokio::test]
    async fn what_was_added_is_taken_away_until_it_is_final() {
        let folder = tempfile::tempdir().unwrap();
        let file = opened(&folder).await;
        filled(&file, 10).await;
        let before = schema(&file).await;
        let added = [migration("0002_adds", ADDS), migration("0003_more", "CREATE TABLE more (a TEXT); CREATE INDEX more_a ON more (a)")];
        apply(&file, &added, TIME).await.unwrap();
        assert_ne!(schema(&file).await, before);
        let rows = "INSERT INTO \"p q\" VALUES ('1'); INSERT INTO child VALUES ('2', '1'); UPDATE t SET d = '2'";
        file.writer().await.unwrap().run_text(rows, TIME).await.unwrap();
        assert_eq!(undo(&file).await.unwrap(), ["0003_more", "0002_adds"]);
        assert_eq!(schema(&file).await, before);

        // Another text under the same name is no change now.
        let corrected = [migration("0002_adds", "CREATE TABLE corrected (a TEXT)")];
        apply(&file, &corrected, TIME).await.unwrap();
        confirm(&file, &["0002_adds".to_owned()]).await.unwrap();
        assert_eq!(undo(&file).await.unwrap(), [""; 0]);
        assert!(matches!(apply(&file, &added, TIME).await, Err(MigrateError::Changed { .. })));
    }

    #[tokio::test]
    async fn what_a_cut_off_deployment_left_is_taken_away_by_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = opened(&folder).await;
        filled(&file, 10).await;
        apply(&file, &[migration("0002_adds", ADDS)], TIME).await.unwrap();
        file.close().await;
        drop(file);
        let file = opened(&folder).await;
        let other = [migration("0002_other", "CREATE TABLE other (a TEXT)")];
        assert_eq!(pending(&file, &[migration("0002_adds", "CREATE TABLE x (a TEXT)")]).await.unwrap(), ["0002_adds"]);
        apply(&file, &other, TIME).await.unwrap();
        let (objects, columns) = schema(&file).await;
        assert!(objects.iter().any(|(_, name, _)| name == "other") && !objects.iter().any(|(_, name, _)| name == "child"), "{objects:?}");
        assert!(!columns.iter().any(|(table, column)| (table.as_str(), column.as_str()) == ("t", "c")), "{columns:?}");
    }

    #[tokio::test]
    async fn migrations_have_a_time_limit_together_and_leave_no_long_log() {
        let folder = tempfile::tempdir().unwrap();
        let file = opened(&folder).await;
        filled(&file, 300_000).await;
        let before = schema(&file).await;
        let slow = [migration("0002_slow", "CREATE INDEX t_b ON t (b); CREATE INDEX t_b2 ON t (b, a)")];
        let late = rehearse(&file, &slow, Duration::from_millis(5)).await;
        assert!(matches!(&late, Err(MigrateError::TooLong { name, limit_ms: 5 }) if name == "0002_slow"), "{late:?}");
        assert!(matches!(apply(&file, &slow, Duration::from_millis(5)).await, Err(MigrateError::TooLong { .. })));
        assert_eq!(schema(&file).await, before);

        rehearse(&file, &slow, TIME).await.unwrap();
        let log = std::fs::metadata(folder.path().join("a.sqlite-wal")).unwrap().len();
        assert!(log <= limits::SQLITE_LOG_PAGES as u64 * 4096, "the log has {log} bytes");
    }

    #[tokio::test]
    async fn what_an_older_host_applied_is_final() {
        let folder = tempfile::tempdir().unwrap();
        let file = opened(&folder).await;
        let table =
            "CREATE TABLE _echo_migrations (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, applied_at INTEGER NOT NULL) WITHOUT ROWID";
        let old = migration("0001_old", "CREATE TABLE old (a TEXT)");
        let row = format!("INSERT INTO _echo_migrations VALUES ('0001_old', '{}', 1)", digest(&old.sql));
        file.writer().await.unwrap().run_text(&format!("{table}; {}; {row}", old.sql), TIME).await.unwrap();
        assert_eq!(pending(&file, std::slice::from_ref(&old)).await.unwrap(), [""; 0]);
        assert_eq!(apply(&file, std::slice::from_ref(&old), TIME).await.unwrap(), [""; 0]);
        assert_eq!(undo(&file).await.unwrap(), [""; 0]);
    }
}
