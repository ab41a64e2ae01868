//! Migrations of a service's SQLite file: additive only, each in one transaction, never changed once applied.

use std::collections::HashMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::lanes::{File, Lease};
use super::script::Script;
use super::values::{self, Params};
use crate::capabilities::sql::{MigrateError, Migration, SqlError, migration as additive};
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
        additive::check_one(migration).map_err(|reason| MigrateError::NotAdditive { name: migration.name.clone(), reason })?;
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
    writer.run_migration(&migration.sql, Duration::from_millis(limits::SQL_MIGRATION_TIMEOUT_MS)).await?;
    let record = ["INSERT INTO _echo_migrations (name, sha256, applied_at) VALUES ($1, $2, unixepoch())", "COMMIT"];
    let params = values::bind([migration.name.as_str().into(), digest(&migration.sql).as_str().into()])?;
    writer.run(&Script::all(record), params).await?;
    writer.ended();
    Ok(())
}

fn digest(sql: &str) -> String {
    Sha256::digest(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
