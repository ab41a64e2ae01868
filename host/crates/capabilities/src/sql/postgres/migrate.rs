//! Migrations of a service's schema: additive only, all of a deployment in one transaction, never changed once they are final, one host at a time (an advisory
//! lock). The tables are the host's; the service's role is given their rows.
//!
//! As on SQLite, each applied migration is stored with the statements that undo it, until it is made final.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::pool::{Pool, Pooled};
use super::roles::{self, HOST_SCHEMA, quoted, schema_of};
use super::{READ_COMMITTED, backfill};
use crate::sql::{ErrorClass, MigrateError, Migration, SqlError, Value, migration as additive};
use echo_base::limits;
use echo_base::names::ServiceName;

/// Whose migrations they are: deployments of one service follow each other, over all hosts.
pub struct Deployer<'a> {
    pub host: &'a Pool,
    pub service: &'a ServiceName,
    pub role: &'a str,
    /// This host, which may undo what it left when it was killed.
    pub node: &'a str,
}

/// In the host's schema: which start of which host has applied migrations that are not final yet. After `until` its deployment counts as dead.
pub const TABLES: &str = "CREATE TABLE IF NOT EXISTS deployment (service TEXT PRIMARY KEY, node TEXT NOT NULL, until TIMESTAMPTZ NOT NULL);
    ALTER TABLE deployment ADD COLUMN IF NOT EXISTS boot UUID";

/// Applies what is missing, all or none, and gives its names. What a deployment applied that was cut off before is taken away first; while another host's is
/// under way, this waits for its end, within the time. A host that is away deploys nothing: whoever calls this holds the service's rollout, so that a host
/// that was only slow decides nothing any more.
pub async fn apply(deployer: &Deployer<'_>, migrations: &[Migration], time: Duration) -> Result<Vec<String>, MigrateError> {
    let until = Instant::now() + time;
    loop {
        let mut connection = deployer.host.take().await?;
        begin(&mut connection, deployer.service).await?;
        let is_another = is_another_deploying(&mut connection, deployer).await?;
        if !is_another || !is_deployer_there(&mut connection, deployer).await? {
            return match within_transaction(&mut connection, deployer, migrations, time).await {
                Ok(names) => connection.commit().await.map(|()| names).map_err(MigrateError::from),
                Err(error) => roll_back(connection, Err(error)).await,
            };
        }
        connection.rollback().await?;
        if Instant::now() > until {
            return Err(SqlError::new(ErrorClass::Unavailable, format!("another host deploys {} just now", deployer.service)).into());
        }
        tokio::time::sleep(Duration::from_millis(limits::POSTGRES_DEPLOYMENT_POLL_MS)).await;
    }
}

async fn is_another_deploying(connection: &mut Pooled, deployer: &Deployer<'_>) -> Result<bool, SqlError> {
    let sql = format!("SELECT 1 FROM {HOST_SCHEMA}.deployment WHERE service = $1 AND node <> $2 AND until > now()");
    let others = connection.rows(&sql, vec![deployer.service.as_str().into(), deployer.node.into()]).await?;
    Ok(!others.is_empty())
}

/// Whether the other host, as it was started then, still says that it is there. Where there is no list of hosts, nobody knows.
async fn is_deployer_there(connection: &mut Pooled, deployer: &Deployer<'_>) -> Result<bool, SqlError> {
    if !has_hosts(connection).await? {
        return Ok(true);
    }
    let sql = format!(
        "SELECT 1 FROM {HOST_SCHEMA}.deployment AS other WHERE service = $1 AND (boot IS NULL OR EXISTS (SELECT 1 FROM {HOST_SCHEMA}.node
            WHERE node.name = other.node AND node.boot = other.boot AND seen_at > clock_timestamp() - interval '{} ms'))",
        limits::NODE_AWAY_MS
    );
    Ok(!connection.rows(&sql, vec![deployer.service.as_str().into()]).await?.is_empty())
}

/// `nodes` makes the list of hosts.
async fn has_hosts(connection: &mut Pooled) -> Result<bool, SqlError> {
    let found = connection.rows("SELECT 1 WHERE to_regclass($1) IS NOT NULL", vec![format!("{HOST_SCHEMA}.node").into()]).await?;
    Ok(!found.is_empty())
}

/// As `apply`, on the data that is there, and rolls it back.
pub async fn rehearse(deployer: &Deployer<'_>, migrations: &[Migration], time: Duration) -> Result<Vec<String>, MigrateError> {
    let mut connection = deployer.host.take().await?;
    begin(&mut connection, deployer.service).await?;
    let outcome = match within_transaction(&mut connection, deployer, migrations, time).await {
        Ok(names) => backfill::rehearse(&mut connection, deployer.service, migrations, &names, time).await.map(|()| names),
        Err(error) => Err(error),
    };
    roll_back(connection, outcome).await
}

async fn roll_back<T>(connection: Pooled, outcome: Result<T, MigrateError>) -> Result<T, MigrateError> {
    let rolled_back = connection.rollback().await;
    let value = outcome?;
    rolled_back?;
    Ok(value)
}

/// Makes those of these names final that were applied.
pub async fn confirm(deployer: &Deployer<'_>, names: &[String]) -> Result<(), MigrateError> {
    let mut connection = deployer.host.take().await?;
    begin(&mut connection, deployer.service).await?;
    for name in names {
        connection.rows("UPDATE _echo_migrations SET undo = NULL WHERE name = $1", vec![name.as_str().into()]).await?;
    }
    end_deployment(&mut connection, deployer).await?;
    Ok(connection.commit().await?)
}

/// Takes away what migrations added that are not final; their names. Nothing while another host's deployment is not known to be over.
pub async fn undo(deployer: &Deployer<'_>) -> Result<Vec<String>, MigrateError> {
    let mut connection = deployer.host.take().await?;
    begin(&mut connection, deployer.service).await?;
    // What another host is deploying is not this one's to undo.
    let is_anothers = is_another_deploying(&mut connection, deployer).await?;
    let undone = if is_anothers { Vec::new() } else { undo_open(&mut connection).await? };
    end_deployment(&mut connection, deployer).await?;
    connection.commit().await?;
    Ok(undone)
}

async fn end_deployment(connection: &mut Pooled, deployer: &Deployer<'_>) -> Result<(), SqlError> {
    let sql = format!("DELETE FROM {HOST_SCHEMA}.deployment WHERE service = $1 AND node = $2");
    connection.rows(&sql, vec![deployer.service.as_str().into(), deployer.node.into()]).await.map(drop)
}

/// The names of those that would be applied. Only reads.
pub async fn pending(host: &Pool, service: &ServiceName, migrations: &[Migration]) -> Result<Vec<String>, MigrateError> {
    let mut connection = host.take().await?;
    let table = format!("{}._echo_migrations", quoted(&schema_of(service)));
    let known = known(&mut connection, &table).await?;
    Ok(names(&missing(&known, migrations)?))
}

/// A transaction in the service's schema that no other host has at the same time.
pub async fn begin(connection: &mut Pooled, service: &ServiceName) -> Result<(), SqlError> {
    connection.begin(READ_COMMITTED).await?;
    connection.raw(format!("SET LOCAL search_path = {}, pg_temp", quoted(&schema_of(service)))).await?;
    let digest = Sha256::digest(format!("migrations of {service}"));
    let lock = i64::from_be_bytes(digest[..8].try_into().expect("eight of thirty-two"));
    connection.rows("SELECT pg_advisory_xact_lock($1)::text", vec![lock.into()]).await.map(drop)
}

/// In the transaction that `begin` began.
async fn within_transaction(
    connection: &mut Pooled,
    deployer: &Deployer<'_>,
    migrations: &[Migration],
    time: Duration,
) -> Result<Vec<String>, MigrateError> {
    let until = Instant::now() + time;
    undo_open(connection).await?;
    let known = known(connection, "_echo_migrations").await?;
    let fresh = missing(&known, migrations)?;
    for migration in &fresh {
        let left = until.saturating_duration_since(Instant::now());
        run(connection, deployer.service, migration, left).await.map_err(|source| match source.class {
            ErrorClass::Timeout => MigrateError::TooLong { name: migration.name.clone(), limit_ms: time.as_millis() as u64 },
            _ => MigrateError::Failed { name: migration.name.clone(), source },
        })?;
    }
    roles::grant_tables(connection, deployer.service, deployer.role).await?;
    if !fresh.is_empty() {
        let boot = match has_hosts(connection).await? {
            true => format!("(SELECT boot FROM {HOST_SCHEMA}.node WHERE name = $2)"),
            false => "NULL".to_owned(),
        };
        let sql = format!(
            "INSERT INTO {HOST_SCHEMA}.deployment (service, node, boot, until) VALUES ($1, $2, {boot}, now() + interval '{} seconds')
                ON CONFLICT (service) DO UPDATE SET node = excluded.node, boot = excluded.boot, until = excluded.until",
            limits::POSTGRES_DEPLOYMENT_S
        );
        connection.rows(&sql, vec![deployer.service.as_str().into(), deployer.node.into()]).await?;
    }
    Ok(names(&fresh))
}

/// How long the statements that follow may take each, in this transaction.
pub async fn limit_time(connection: &mut Pooled, time: Duration) -> Result<(), SqlError> {
    // 0 would be without end.
    let ms = (time.as_millis() as u64).clamp(1, limits::SQL_TIMEOUT_MS.max(limits::SQL_MIGRATION_TIMEOUT_MS));
    connection.raw(format!("SET LOCAL statement_timeout = {ms}")).await
}

async fn run(connection: &mut Pooled, service: &ServiceName, migration: &Migration, time: Duration) -> Result<(), SqlError> {
    let before = Schema::read(connection, service).await?;
    limit_time(connection, time).await?;
    connection.raw_within(migration.sql.clone(), time).await?;
    limit_time(connection, Duration::from_millis(limits::SQL_TIMEOUT_MS)).await?;
    let undo = before.back_from(&Schema::read(connection, service).await?);
    let undo = serde_json::to_string(&undo).expect("strings always encode");
    let record = "INSERT INTO _echo_migrations (name, sha256, undo) VALUES ($1, $2, $3)";
    connection.rows(record, vec![migration.name.as_str().into(), digest(&migration.sql).into(), undo.into()]).await.map(drop)
}

async fn undo_open(connection: &mut Pooled) -> Result<Vec<String>, SqlError> {
    let open = connection.rows("SELECT name, undo FROM _echo_migrations WHERE undo IS NOT NULL ORDER BY name DESC", vec![]).await?;
    let mut undone = Vec::new();
    for row in open {
        let [Value::Text(name), Value::Text(undo)] = row.as_slice() else { return Err(unreadable()) };
        let statements: Vec<String> = serde_json::from_str(undo).map_err(|_| unreadable())?;
        for statement in statements {
            connection.raw(statement).await?;
        }
        connection.rows("DELETE FROM _echo_migrations WHERE name = $1", vec![name.as_str().into()]).await?;
        undone.push(name.clone());
    }
    Ok(undone)
}

/// What a migration can add, in the order in which it was made.
struct Schema {
    /// `(is an index, name)`.
    objects: Vec<(bool, String)>,
    /// `(table, column)`.
    columns: Vec<(String, String)>,
}

impl Schema {
    async fn read(connection: &mut Pooled, service: &ServiceName) -> Result<Self, SqlError> {
        let mut schema = Self { objects: Vec::new(), columns: Vec::new() };
        let name = Value::Text(schema_of(service));
        // An index that belongs to a constraint goes with it.
        let objects = "SELECT c.relkind = 'i', c.relname::text FROM pg_catalog.pg_class AS c
            JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND (c.relkind = 'r' OR c.relkind = 'i' AND NOT EXISTS
                (SELECT 1 FROM pg_catalog.pg_constraint AS k WHERE k.conindid = c.oid)) ORDER BY c.oid";
        for row in connection.rows(objects, vec![name.clone()]).await? {
            let [Value::Boolean(is_index), Value::Text(object)] = row.as_slice() else { return Err(unreadable()) };
            schema.objects.push((*is_index, object.clone()));
        }
        let columns = "SELECT c.relname::text, a.attname::text FROM pg_catalog.pg_attribute AS a
            JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.oid, a.attnum";
        for row in connection.rows(columns, vec![name]).await? {
            let [Value::Text(table), Value::Text(column)] = row.as_slice() else { return Err(unreadable()) };
            schema.columns.push((table.clone(), column.clone()));
        }
        Ok(schema)
    }

    /// The statements that lead from `after` back to this.
    fn back_from(&self, after: &Schema) -> Vec<String> {
        let before: BTreeSet<_> = self.objects.iter().collect();
        let added: Vec<_> = after.objects.iter().filter(|object| !before.contains(object)).rev().collect();
        let is_new = |table: &String| added.iter().any(|(is_index, name)| !is_index && name == table);
        let known: BTreeSet<_> = self.columns.iter().collect();
        let indexes = added.iter().filter(|(is_index, _)| *is_index).map(|(_, name)| format!("DROP INDEX IF EXISTS {}", quoted(name)));
        let columns = after.columns.iter().rev().filter(|column| !known.contains(column) && !is_new(&column.0));
        let columns = columns.map(|(table, column)| format!("ALTER TABLE {} DROP COLUMN {}", quoted(table), quoted(column)));
        let tables = added.iter().filter(|(is_index, _)| !is_index).map(|(_, name)| format!("DROP TABLE IF EXISTS {}", quoted(name)));
        indexes.chain(columns).chain(tables).collect()
    }
}

/// Those that are not among the known. All are looked at before the first is applied.
fn missing<'a>(known: &HashMap<String, String>, migrations: &'a [Migration]) -> Result<Vec<&'a Migration>, MigrateError> {
    let mut fresh = Vec::new();
    for migration in migrations.iter().filter(|migration| migration.dialect == "postgres" && !migration.is_backfill()) {
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

/// Those that are final: by name, the digest of the text.
async fn known(connection: &mut Pooled, table: &str) -> Result<HashMap<String, String>, SqlError> {
    let rows = connection.rows(&format!("SELECT name, sha256 FROM {table} WHERE undo IS NULL"), vec![]).await?;
    rows.into_iter()
        .map(|row| match row.as_slice() {
            [Value::Text(name), Value::Text(digest)] => Ok((name.clone(), digest.clone())),
            _ => Err(unreadable()),
        })
        .collect()
}

fn names(migrations: &[&Migration]) -> Vec<String> {
    migrations.iter().map(|migration| migration.name.clone()).collect()
}

pub fn digest(sql: &str) -> String {
    Sha256::digest(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unreadable() -> SqlError {
    SqlError::new(ErrorClass::Other, "a table of the host's holds what was never written there")
}
