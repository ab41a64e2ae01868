//! Migrations of a service's SQLite file: additive only, each in one transaction, never changed once applied.

use std::collections::HashMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::guard::{self, Token, is_any};
use super::lanes::{File, Lease};
use super::script::Script;
use super::values::{self, Params};
use crate::capabilities::sql::{MigrateError, Migration, SqlError};
use crate::limits;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS _echo_migrations
    (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, applied_at INTEGER NOT NULL) WITHOUT ROWID";

/// The names of those that were applied now.
pub async fn migrate(file: &File, migrations: &[Migration]) -> Result<Vec<String>, MigrateError> {
    let mut writer = file.writer().await?;
    let fresh = missing(&mut writer, migrations).await?;
    for migration in &fresh {
        apply(&mut writer, migration).await.map_err(|source| MigrateError::Failed { name: migration.name.clone(), source })?;
    }
    drop(writer);
    if !fresh.is_empty() {
        file.forget_statements().await?;
    }
    Ok(names(&fresh))
}

/// The names of those that would be applied.
pub async fn pending(file: &File, migrations: &[Migration]) -> Result<Vec<String>, MigrateError> {
    let mut writer = file.writer().await?;
    Ok(names(&missing(&mut writer, migrations).await?))
}

/// Those that were not applied yet. All are looked at before the first is applied.
async fn missing<'a>(writer: &mut Lease, migrations: &'a [Migration]) -> Result<Vec<&'a Migration>, MigrateError> {
    writer.run(&Script::new(TABLE), Params::default()).await?;
    let known = applied(writer).await?;
    let mut fresh = Vec::new();
    for migration in migrations.iter().filter(|migration| migration.dialect == "sqlite") {
        match known.get(&migration.name) {
            Some(before) if *before == digest(&migration.sql) => continue,
            Some(_) => return Err(MigrateError::Changed { name: migration.name.clone() }),
            None => {}
        }
        check_additive(&migration.sql).map_err(|reason| MigrateError::NotAdditive { name: migration.name.clone(), reason })?;
        fresh.push(migration);
    }
    Ok(fresh)
}

fn names(migrations: &[&Migration]) -> Vec<String> {
    migrations.iter().map(|migration| migration.name.clone()).collect()
}

async fn applied(writer: &mut Lease) -> Result<HashMap<String, String>, SqlError> {
    let mut known = HashMap::new();
    let script = Script::new("SELECT name, sha256 FROM _echo_migrations");
    writer
        .each(&script, Params::default(), |row| {
            known.insert(values::text(row, 0)?, values::text(row, 1)?);
            Ok(true)
        })
        .await?;
    Ok(known)
}

async fn apply(writer: &mut Lease, migration: &Migration) -> Result<(), SqlError> {
    writer.opened();
    writer.run(&Script::new("BEGIN IMMEDIATE"), Params::default()).await?;
    writer.run_text(&migration.sql, Duration::from_millis(limits::SQL_MIGRATION_TIMEOUT_MS)).await?;
    let record = ["INSERT INTO _echo_migrations (name, sha256, applied_at) VALUES ($1, $2, unixepoch())", "COMMIT"];
    let params = values::bind([migration.name.as_str().into(), digest(&migration.sql).as_str().into()])?;
    writer.run(&Script::all(record), params).await?;
    writer.ended();
    Ok(())
}

fn digest(sql: &str) -> String {
    Sha256::digest(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A version before the migration must go on working after it, because during a swap both run.
fn check_additive(sql: &str) -> Result<(), String> {
    for statement in guard::migration_statements(sql)? {
        let words: Vec<String> = statement
            .iter()
            .map(|token| match token {
                Token::Word(word) => word.to_ascii_uppercase(),
                _ => String::new(),
            })
            .collect();
        let word = |index: usize| words.get(index).map_or("", String::as_str);
        let has = |keyword: &str| words.iter().any(|word| word == keyword);
        match word(0) {
            "CREATE" if is_any(word(1), &["TABLE", "INDEX", "UNIQUE", "VIEW", "TRIGGER", "VIRTUAL"]) => {}
            "INSERT" | "UPDATE" | "DELETE" | "WITH" => {}
            "DROP" if is_any(word(1), &["INDEX", "VIEW", "TRIGGER"]) => {}
            "DROP" => return Err(format!("DROP {} takes away what the running version uses", word(1))),
            "ALTER" if has("RENAME") => return Err("RENAME takes away what the running version uses".to_owned()),
            "ALTER" if has("DROP") => return Err("DROP COLUMN takes away what the running version uses".to_owned()),
            "ALTER" if !has("ADD") => return Err("ALTER TABLE may only ADD a column".to_owned()),
            "ALTER" if has("NOT") && has("NULL") && !has("DEFAULT") => {
                return Err("a NOT NULL column needs a DEFAULT, as the running version does not write it".to_owned());
            }
            "ALTER" => {}
            other => return Err(format!("{other} is not for migrations")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additive_steps_pass() {
        for sql in [
            "CREATE TABLE a (id TEXT PRIMARY KEY, b TEXT NOT NULL); CREATE UNIQUE INDEX i ON a (b);",
            "ALTER TABLE a ADD COLUMN c TEXT; ALTER TABLE a ADD d INTEGER NOT NULL DEFAULT 0",
            "UPDATE a SET c = 'DROP TABLE a'; DROP INDEX i -- DROP TABLE a",
        ] {
            assert_eq!(check_additive(sql), Ok(()), "{sql}");
        }
    }

    #[test]
    fn steps_that_break_the_running_version_are_refused() {
        for (sql, expect) in [
            ("CREATE TABLE b (id TEXT); DROP TABLE a", "DROP TABLE"),
            ("ALTER TABLE a DROP COLUMN b", "DROP COLUMN"),
            ("ALTER TABLE a RENAME TO b", "RENAME"),
            ("ALTER TABLE a RENAME COLUMN b TO c", "RENAME"),
            ("ALTER TABLE a ADD COLUMN c TEXT NOT NULL", "DEFAULT"),
            ("PRAGMA foreign_keys = 0", "PRAGMA"),
            ("COMMIT", "COMMIT"),
            ("ATTACH 'x' AS y", "ATTACH"),
            ("CREATE TEMP TABLE x (a)", "CREATE"),
            ("CREATE TABLE _echo_outbox (a)", "the host's"),
            ("CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM _echo_outbox; END", "the host's"),
        ] {
            let reason = check_additive(sql).expect_err(sql);
            assert!(reason.contains(expect), "{sql}: {reason}");
        }
    }
}
