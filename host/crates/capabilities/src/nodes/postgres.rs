//! The hosts of a PostgreSQL database: a row each, which its host renews. Only the database's clock counts.
//!
//! Two hosts of one name would take each other's leases and deployments for their own, so the second one is refused: at its start it watches the row for
//! as long as a host may be silent. A host that starts again on its own data folder need not wait: the folder has a lock, which the host before had as long
//! as it lived, and holds which start that was.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Node, NodeIdentity, NodeReport, NodeState, Nodes, NodesError};
use crate::sql::postgres::pool::Pooled;
use crate::sql::postgres::{PostgresBackend, Shared};
use crate::sql::{SqlError, Value};
use echo_base::limits;

const READ_COMMITTED: &str = "READ COMMITTED";
/// As that of `sql::postgres`: tables are made by one host at a time.
const SETUP_LOCK: i64 = 0x4563_686f_0003;
const TABLES: &str =
    "CREATE TABLE IF NOT EXISTS node (name TEXT PRIMARY KEY, boot UUID NOT NULL, advertise TEXT NOT NULL, version TEXT NOT NULL,
    state TEXT NOT NULL, started_at TIMESTAMPTZ NOT NULL, seen_at TIMESTAMPTZ NOT NULL, report TEXT NOT NULL);
    ALTER TABLE node ADD COLUMN IF NOT EXISTS engines TEXT";

pub struct PostgresNodes {
    shared: Arc<Shared>,
    identity: NodeIdentity,
    boot: Uuid,
    _lock: FolderLock,
}

impl PostgresNodes {
    /// `folder`: of this host alone. Errors: `NameTaken` where another host of this name lives, or one runs on this folder.
    pub async fn open(backend: &PostgresBackend, identity: NodeIdentity, folder: &Path) -> Result<Self, NodesError> {
        let shared = backend.shared();
        let boot = Uuid::new_v4();
        let (mut lock, before) = FolderLock::take(folder)?;
        let mut watched: Option<String> = None;
        loop {
            let mut connection = shared.host.take().await?;
            connection.begin(READ_COMMITTED).await?;
            connection.rows("SELECT pg_advisory_xact_lock($1)::text", vec![SETUP_LOCK.into()]).await?;
            connection.raw(TABLES).await?;
            let Some(other) = Other::read(&mut connection, &identity.name).await? else {
                register(connection, &identity, boot).await?;
                break;
            };
            if Some(other.boot) == before || other.seen_ms_ago >= limits::NODE_AWAY_MS {
                register(connection, &identity, boot).await?;
                break;
            }
            connection.rollback().await?;
            if watched.as_ref().is_some_and(|seen_at| *seen_at != other.seen_at) {
                let Other { advertise, seen_ms_ago, .. } = other;
                return Err(NodesError::NameTaken { name: identity.name, advertise, seen_ms_ago });
            }
            watched = Some(other.seen_at);
            tokio::time::sleep(Duration::from_millis(limits::NODE_BEAT_MS / 4)).await;
        }
        lock.write(boot)?;
        Ok(Self { shared, identity, boot, _lock: lock })
    }

    fn own(&self) -> Vec<Value> {
        vec![self.identity.name.as_str().into(), Value::Uuid(self.boot)]
    }
}

/// Who has the row of this name.
struct Other {
    boot: Uuid,
    advertise: String,
    seen_at: String,
    seen_ms_ago: u64,
}

impl Other {
    async fn read(connection: &mut Pooled, name: &str) -> Result<Option<Self>, SqlError> {
        let sql = "SELECT boot, advertise, seen_at::text, (extract(epoch FROM clock_timestamp() - seen_at) * 1000)::bigint FROM node WHERE name = $1";
        let rows = connection.rows(sql, vec![name.into()]).await?;
        Ok(match rows.first().map(Vec::as_slice) {
            Some([Value::Uuid(boot), Value::Text(advertise), Value::Text(seen_at), Value::S64(ms)]) => Some(Self {
                boot: *boot,
                advertise: advertise.clone(),
                seen_at: seen_at.clone(),
                seen_ms_ago: u64::try_from(*ms).unwrap_or(0),
            }),
            _ => None,
        })
    }
}

async fn register(mut connection: Pooled, identity: &NodeIdentity, boot: Uuid) -> Result<(), SqlError> {
    put(&mut connection, identity, boot, NodeState::Starting, &NodeReport::default()).await?;
    let forget = format!("DELETE FROM node WHERE seen_at < clock_timestamp() - interval '{} seconds'", limits::NODE_KEPT_S);
    connection.raw(forget).await?;
    connection.commit().await
}

async fn put(connection: &mut Pooled, identity: &NodeIdentity, boot: Uuid, state: NodeState, report: &NodeReport) -> Result<(), SqlError> {
    let sql = "INSERT INTO node (name, boot, advertise, version, state, started_at, seen_at, report, engines)
            VALUES ($1, $2, $3, $4, $5, clock_timestamp(), clock_timestamp(), $6, $7)
        ON CONFLICT (name) DO UPDATE SET boot = excluded.boot, advertise = excluded.advertise, version = excluded.version, state = excluded.state,
            started_at = excluded.started_at, seen_at = excluded.seen_at, report = excluded.report,
            engines = excluded.engines";
    let NodeIdentity { name, advertise, version, engines } = identity;
    let values = vec![
        name.as_str().into(),
        Value::Uuid(boot),
        advertise.as_str().into(),
        version.as_str().into(),
        state.as_str().into(),
        text_of(report).into(),
        serde_json::to_string(engines).expect("strings always serialise").into(),
    ];
    connection.rows(sql, values).await.map(drop)
}

fn text_of(report: &NodeReport) -> String {
    serde_json::to_string(report).expect("strings and numbers always serialise")
}

#[async_trait]
impl Nodes for PostgresNodes {
    fn name(&self) -> &str {
        &self.identity.name
    }

    async fn beat(&self, state: NodeState, report: &NodeReport) -> Result<(), NodesError> {
        let mut connection = self.shared.host.take().await?;
        let sql = "UPDATE node SET seen_at = clock_timestamp(), state = $3, report = $4 WHERE name = $1 AND boot = $2 RETURNING name";
        let mut values = self.own();
        values.extend([state.as_str().into(), text_of(report).into()]);
        if !connection.rows(sql, values).await?.is_empty() {
            return Ok(());
        }
        if Other::read(&mut connection, &self.identity.name).await?.is_some() {
            return Err(NodesError::Replaced(self.identity.name.clone()));
        }
        // It was away for so long that it was forgotten.
        Ok(put(&mut connection, &self.identity, self.boot, state, report).await?)
    }

    async fn list(&self) -> Result<Vec<Node>, NodesError> {
        let mut connection = self.shared.host.take().await?;
        let sql = "SELECT name, boot, advertise, version, state, (extract(epoch FROM started_at) * 1000000)::bigint,
                (extract(epoch FROM clock_timestamp() - seen_at) * 1000)::bigint, report, coalesce(engines, '{}') FROM node ORDER BY name";
        let mut nodes = Vec::new();
        for row in connection.rows(sql, vec![]).await? {
            let [
                Value::Text(name),
                Value::Uuid(boot),
                Value::Text(advertise),
                Value::Text(version),
                Value::Text(state),
                Value::S64(started_at_us),
                Value::S64(seen_ms_ago),
                Value::Text(report),
                Value::Text(engines),
            ] = row.as_slice()
            else {
                return Err(NodesError::Unavailable("its table holds what was never written there".to_owned()));
            };
            let seen_ms_ago = u64::try_from(*seen_ms_ago).unwrap_or(0);
            nodes.push(Node {
                name: name.clone(),
                boot: *boot,
                advertise: advertise.clone(),
                version: version.clone(),
                engines: serde_json::from_str(engines).unwrap_or_default(),
                state: if seen_ms_ago >= limits::NODE_AWAY_MS { NodeState::Away } else { NodeState::parse(state) },
                started_at_us: u64::try_from(*started_at_us).unwrap_or(0),
                seen_ms_ago,
                // A host of another version may say it otherwise.
                report: serde_json::from_str(report).unwrap_or_default(),
                leases: Vec::new(),
            });
        }
        let relayed =
            "SELECT holder, 'relay:' || shard FROM relay_shard WHERE holder IS NOT NULL AND until > clock_timestamp() ORDER BY shard";
        let mut leases = connection.rows(relayed, vec![]).await?;
        // Their table is made by who uses them.
        let has_others = connection.rows("SELECT 1 WHERE to_regclass('lease') IS NOT NULL", vec![]).await?;
        if !has_others.is_empty() {
            leases.extend(connection.rows("SELECT node, name FROM lease WHERE until > clock_timestamp() ORDER BY name", vec![]).await?);
        }
        for row in leases {
            let [Value::Text(holder), Value::Text(lease)] = row.as_slice() else { continue };
            if let Some(node) = nodes.iter_mut().find(|node| node.name == *holder) {
                node.leases.push(lease.clone());
            }
        }
        Ok(nodes)
    }

    async fn leave(&self) -> Result<(), NodesError> {
        let mut connection = self.shared.host.take().await?;
        connection.rows("DELETE FROM node WHERE name = $1 AND boot = $2", self.own()).await?;
        Ok(())
    }
}

/// Held by one host at a time, as long as it lives. In the file is its start; a copy of the folder is another file, and proves nothing.
struct FolderLock(File);

impl FolderLock {
    /// And the start of the host before, which has ended.
    fn take(folder: &Path) -> Result<(Self, Option<Uuid>), NodesError> {
        let path = folder.join("node.lock");
        let failed = |error: std::io::Error| NodesError::Unavailable(format!("{}: {error}", path.display()));
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => NodesError::FolderInUse(folder.display().to_string()),
            std::fs::TryLockError::Error(error) => failed(error),
        })?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let this = Self(file);
        let before = text.strip_prefix(&this.place().map_err(failed)?).and_then(|boot| boot.trim().parse().ok());
        Ok((this, before))
    }

    fn place(&self) -> std::io::Result<String> {
        let metadata = self.0.metadata()?;
        Ok(format!("{}:{} ", metadata.dev(), metadata.ino()))
    }

    fn write(&mut self, boot: Uuid) -> Result<(), NodesError> {
        let text = self.place().map(|place| format!("{place}{boot}\n"));
        let written = text.and_then(|text| {
            self.0.set_len(0)?;
            self.0.rewind()?;
            self.0.write_all(text.as_bytes())
        });
        written.map_err(|error| NodesError::Unavailable(format!("node.lock: {error}")))
    }
}

impl From<SqlError> for NodesError {
    fn from(error: SqlError) -> Self {
        NodesError::Unavailable(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

    use super::*;
    use crate::nodes::{Engines, LiveVersion};
    use crate::sql::postgres::fixture::{Server, settings};

    fn identity(name: &str) -> NodeIdentity {
        NodeIdentity { name: name.to_owned(), advertise: format!("{name}:8080"), version: "1".to_owned(), engines: Engines::default() }
    }

    async fn start(server: &Server, name: &str, folder: &Path) -> Result<PostgresNodes, NodesError> {
        let backend = server.backend_of(name, "hosts", settings(8)).await;
        PostgresNodes::open(&backend, identity(name), folder).await
    }

    /// As if all hosts had been silent for so long.
    async fn age(server: &Server, ms: u64) {
        let mut operator = PgConnection::connect(&server.url("hosts").await).await.expect("connects");
        let sql = format!("UPDATE echo.node SET seen_at = seen_at - interval '{ms} ms'");
        operator.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.expect("updates");
    }

    fn states(nodes: &[Node]) -> Vec<(&str, NodeState)> {
        nodes.iter().map(|node| (node.name.as_str(), node.state)).collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn hosts_see_each_other_come_and_go() {
        let server = Server::start().await;
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let a = start(&server, "a", folders[0].path()).await.expect("opens");
        let b = start(&server, "b", folders[1].path()).await.expect("opens");
        let mut report = NodeReport { connections: 3, ..NodeReport::default() };
        report.services.insert("auth".to_owned(), LiveVersion { version: "1.2.0".to_owned(), sha256: "ab".to_owned(), live_ms: 5 });
        b.beat(NodeState::Serving, &report).await.expect("beats");
        let seen = a.list().await.expect("lists");
        assert_eq!(states(&seen), [("a", NodeState::Starting), ("b", NodeState::Serving)]);
        assert_eq!((&seen[1].report, seen[1].advertise.as_str()), (&report, "b:8080"));

        age(&server, limits::NODE_AWAY_MS).await;
        b.beat(NodeState::Draining, &report).await.expect("beats");
        assert_eq!(states(&b.list().await.expect("lists")), [("a", NodeState::Away), ("b", NodeState::Draining)]);
        b.leave().await.expect("leaves");
        assert_eq!(states(&a.list().await.expect("lists")), [("a", NodeState::Away)]);
        // Forgotten meanwhile, it is there again with its next beat.
        a.leave().await.expect("leaves");
        a.beat(NodeState::Serving, &report).await.expect("beats");
        assert_eq!(states(&a.list().await.expect("lists")), [("a", NodeState::Serving)]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_second_host_of_a_name_is_refused_while_the_first_one_lives() {
        let server = Server::start().await;
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let first = start(&server, "a", folders[0].path()).await.expect("opens");
        let refused = tokio::select! {
            refused = start(&server, "a", folders[1].path()) => refused.err().expect("refused"),
            () = async {
                loop {
                    first.beat(NodeState::Serving, &NodeReport::default()).await.expect("beats");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            } => unreachable!("it beats for ever"),
        };
        assert!(matches!(&refused, NodesError::NameTaken { name, .. } if name == "a"), "{refused}");
        assert!(refused.to_string().contains("node.name"), "{refused}");
        let same_folder = start(&server, "other", folders[0].path()).await.err().expect("refused");
        assert!(matches!(same_folder, NodesError::FolderInUse(_)), "{same_folder}");

        // Away for so long that nobody waits for it any more; and it notices when it is back.
        age(&server, limits::NODE_AWAY_MS).await;
        let second = start(&server, "a", folders[1].path()).await.expect("opens");
        second.beat(NodeState::Serving, &NodeReport::default()).await.expect("beats");
        let replaced = first.beat(NodeState::Serving, &NodeReport::default()).await.expect_err("refused");
        assert!(matches!(replaced, NodesError::Replaced(_)), "{replaced}");
        first.leave().await.expect("leaves");
        assert_eq!(second.list().await.expect("lists").len(), 1, "it takes nothing from the one that has its name now");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_host_that_was_killed_starts_again_on_its_folder_without_waiting() {
        let server = Server::start().await;
        let folder = tempfile::tempdir().unwrap();
        let killed = start(&server, "a", folder.path()).await.expect("opens");
        killed.beat(NodeState::Serving, &NodeReport::default()).await.expect("beats");
        drop(killed);
        let begin = Instant::now();
        start(&server, "a", folder.path()).await.expect("opens");
        assert!(begin.elapsed() < Duration::from_millis(limits::NODE_AWAY_MS / 2), "{:?}", begin.elapsed());

        // A copy of the folder proves nothing.
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(folder.path().join("node.lock"), copy.path().join("node.lock")).unwrap();
        assert_eq!(FolderLock::take(copy.path()).unwrap().1, None);
        assert!(FolderLock::take(folder.path()).unwrap().1.is_some());
    }
}
