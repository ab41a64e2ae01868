//! `echod migrate status` and `up`: the migrations of services, without a host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value as Json, json};

use super::migrate::file_of;
use super::moved;
use super::stores::pool_settings;
use crate::admin::client::{Column, table};
use crate::config::Config;
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_base::private_file;
use echo_capabilities::sql::postgres::{PostgresBackend, import};
use echo_capabilities::sql::sqlite::export::SqliteFile;
use echo_capabilities::sql::sqlite::{SqliteBackend, snapshot};
use echo_capabilities::sql::{Migration, SqlBackend, Value};
use echo_capabilities::versions::VersionStore;
use echo_capabilities::versions::files::FileVersions;
use echo_runtime::artifact::Artifact;

const STATUS_COLUMNS: [Column; 4] = [("SERVICE", "/service"), ("ENGINE", "/engine"), ("MIGRATION", "/migration"), ("STATE", "/state")];

/// Each service's migrations on the engine of the settings, and whether they are applied, as `items`. Changes nothing.
pub async fn status(config: &Config) -> anyhow::Result<Json> {
    let (engine, migrations) = known_migrations(config).await?;
    let mut items = Vec::new();
    for (service, known) in migrations {
        let applied: BTreeSet<String> = match config.postgres() {
            Some(url) => import::applied(&url, &service).await.context("sql.url")?.into_iter().collect(),
            None => applied_in_file(&config.data.dir, &service)?,
        };
        let names: BTreeSet<String> =
            known.iter().filter(|one| !one.is_backfill()).map(|one| one.name.clone()).chain(applied.iter().cloned()).collect();
        for name in names {
            let state = if applied.contains(&name) { "applied" } else { "outstanding" };
            items.push(json!({ "service": service.as_str(), "engine": engine, "migration": name, "state": state }));
        }
    }
    Ok(json!({ "items": items }))
}

/// For people.
pub fn status_table(status: &Json) -> String {
    table(&STATUS_COLUMNS, status).unwrap_or_else(|| "no service has migrations".to_owned())
}

/// For people: what `up` answered.
pub fn applied_lines(applied: &Json) -> String {
    let items = applied["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let lines = items.iter().map(|item| format!("{}: {} is applied\n", text(&item["service"]), text(&item["migration"])));
    format!("{}{} migrations were outstanding", lines.collect::<String>(), items.len())
}

fn applied_in_file(data: &Path, service: &ServiceName) -> anyhow::Result<BTreeSet<String>> {
    let path = file_of(data, service);
    if !path.exists() {
        return Ok(BTreeSet::new());
    }
    ensure!(
        !snapshot::is_in_use(&path),
        "a host runs on {}: it has applied the migrations of all versions that it runs, which `echod plugin list` shows",
        data.display()
    );
    let file = SqliteFile::open(&path)?;
    if !file.has("_echo_migrations")? {
        return Ok(BTreeSet::new());
    }
    let rows = file.rows("SELECT name FROM _echo_migrations WHERE undo IS NULL")?;
    Ok(rows
        .into_iter()
        .filter_map(|row| match row.into_iter().next() {
            Some(Value::Text(name)) => Some(name),
            _ => None,
        })
        .collect())
}

/// Applies those that are outstanding, without serving; they are the `items`. Running hosts go on: migrations only add.
pub async fn up(config: &Config) -> anyhow::Result<Json> {
    let (_, migrations) = known_migrations(config).await?;
    let mut items = Vec::new();
    let backend: Box<dyn SqlBackend> = match config.postgres() {
        Some(url) => Box::new(PostgresBackend::connect(&url, "echod migrate", pool_settings(config)).await.context("sql.url")?),
        None => {
            ensure!(moved::refusal(&config.data.dir, false).is_none(), "the data of {} is not here", config.data.dir.display());
            private_file::create_folder(&config.data.dir)?;
            Box::new(SqliteBackend::new(config.data.dir.join("services")))
        }
    };
    for (service, known) in migrations {
        let database = backend.open(&service).await.with_context(|| format!("{service}"))?;
        let applied = database.apply_migrations(&known, Duration::from_millis(limits::SQL_MIGRATION_TIMEOUT_MS)).await;
        let applied = applied.with_context(|| format!("{service}"))?;
        database.confirm_migrations(&applied).await?;
        items.extend(applied.into_iter().map(|name| json!({ "service": service.as_str(), "migration": name })));
    }
    backend.close().await;
    Ok(json!({ "items": items }))
}

/// Of the packed files that hosts are started with, and of the live versions of all other services; with the engine's name.
async fn known_migrations(config: &Config) -> anyhow::Result<(&'static str, BTreeMap<ServiceName, Vec<Migration>>)> {
    let engine = if config.postgres().is_some() { "postgres" } else { "sqlite" };
    let mut found: BTreeMap<ServiceName, Vec<Migration>> = BTreeMap::new();
    if let Some(folder) = config.plugins_folder() {
        for entry in std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "wasm") {
                let artifact = Artifact::read(std::fs::read(&path)?).with_context(|| format!("{}", path.display()))?;
                found.insert(artifact.manifest.service(), artifact.migrations);
            }
        }
    }
    let versions = FileVersions::open(&config.data.dir.join("plugins"))?;
    for service in versions.services().await?.into_keys() {
        if found.contains_key(&service) {
            continue;
        }
        let state = versions.read(&service).await?.state.unwrap_or_default();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap_or_default();
        if let Some(active) = state["active"].as_str()
            && let Some(file) = versions.file(&service, active).await?
        {
            found.insert(service, Artifact::read(file)?.migrations);
        }
    }
    ensure!(!found.is_empty(), "no packed services are known: name their folder with --plugins");
    for migrations in found.values_mut() {
        migrations.retain(|migration| migration.dialect == engine);
        migrations.sort_by(|one, other| one.name.cmp(&other.name));
    }
    Ok((engine, found))
}
