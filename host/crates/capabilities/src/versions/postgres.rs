//! Versions in the host's own schema, for all hosts of the database. A service's state has a number, and is replaced by whoever read the newest one; packed
//! files are in pieces, under their SHA-256.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::{Answer, CHANGED, Kept, Order, Rollouts, Said, StoreError, VersionStore};
use crate::bus::HubBus;
use crate::sql::postgres::pool::Pooled;
use crate::sql::postgres::{PostgresBackend, Shared};
use crate::sql::{SqlError, Value};
use echo_base::limits;
use echo_base::names::ServiceName;

const READ_COMMITTED: &str = "READ COMMITTED";
/// As that of `sql::postgres`. Also held while files are written and removed, so that a file is not removed that is being kept again.
const LOCK: i64 = 0x4563_686f_0005;
const TABLES: &str = "
    CREATE SEQUENCE IF NOT EXISTS version_revision;
    CREATE TABLE IF NOT EXISTS version_state (service TEXT PRIMARY KEY, revision BIGINT NOT NULL, state_revision BIGINT NOT NULL DEFAULT 0, state TEXT);
    CREATE TABLE IF NOT EXISTS version_file (service TEXT NOT NULL, version TEXT NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (service, version));
    CREATE TABLE IF NOT EXISTS version_piece (sha256 TEXT NOT NULL, number BIGINT NOT NULL, bytes BYTEA NOT NULL, PRIMARY KEY (sha256, number));
    CREATE TABLE IF NOT EXISTS rollout (service TEXT PRIMARY KEY, id UUID NOT NULL, node TEXT NOT NULL, boot UUID, until TIMESTAMPTZ NOT NULL, asks TEXT);
    CREATE TABLE IF NOT EXISTS rollout_answer (service TEXT NOT NULL, node TEXT NOT NULL, id UUID NOT NULL, refusal TEXT, PRIMARY KEY (service, node))";

pub struct PostgresVersions {
    shared: Arc<Shared>,
    bus: Option<Arc<dyn HubBus>>,
}

impl PostgresVersions {
    /// Makes the tables where they are missing. `nodes::postgres` has made its own before. `bus`: where there is none, other hosts learn of a change by looking.
    pub async fn open(backend: &PostgresBackend, bus: Option<Arc<dyn HubBus>>) -> Result<Self, StoreError> {
        let this = Self { shared: backend.shared(), bus };
        let mut connection = this.locked().await?;
        connection.raw(TABLES).await?;
        connection.commit().await?;
        Ok(this)
    }

    /// A transaction that one host has at a time.
    async fn locked(&self) -> Result<Pooled, SqlError> {
        let mut connection = self.begin().await?;
        connection.rows("SELECT pg_advisory_xact_lock($1)::text", vec![LOCK.into()]).await?;
        Ok(connection)
    }

    async fn begin(&self) -> Result<Pooled, SqlError> {
        let mut connection = self.shared.host.take().await?;
        connection.begin(READ_COMMITTED).await?;
        Ok(connection)
    }

    async fn rows(&self, sql: &str, values: Vec<Value>) -> Result<Vec<Vec<Value>>, SqlError> {
        self.shared.host.take().await?.rows(sql, values).await
    }

    /// After a commit whose answer did not come: whether it took place. The row is locked for that, so that a commit that is still under way has ended.
    async fn find_out(&self, service: &ServiceName, state_revision: i64, state: &str, error: &SqlError) -> Result<i64, StoreError> {
        let until = Instant::now() + Duration::from_millis(limits::SQL_TIMEOUT_MS);
        loop {
            let sql = "SELECT state_revision, state FROM version_state WHERE service = $1 FOR UPDATE";
            match self.rows(sql, vec![service.as_str().into()]).await.as_deref() {
                Ok([row]) if row.as_slice() == [Value::S64(state_revision), state.into()] => return Ok(state_revision),
                Ok(_) => return Err(StoreError::Unavailable(error.to_string())),
                Err(_) if Instant::now() > until => return Err(StoreError::Unknown(error.to_string())),
                Err(_) => tokio::time::sleep(Duration::from_millis(limits::ROLLOUT_POLL_MS)).await,
            }
        }
    }

    /// That other hosts have something to look for. Lost, they look by themselves.
    async fn announce(&self, service: &ServiceName) {
        let Some(bus) = &self.bus else { return };
        if let Err(error) = bus.publish(CHANGED, Bytes::copy_from_slice(service.as_str().as_bytes())).await {
            tracing::debug!(%service, %error, "other hosts are left to find by themselves what has changed");
        }
    }

    fn node(&self) -> Value {
        self.shared.node.as_str().into()
    }
}

/// Others see that something of the service has changed.
async fn touch(connection: &mut Pooled, service: &ServiceName) -> Result<(), SqlError> {
    let sql = "INSERT INTO version_state (service, revision) VALUES ($1, nextval('version_revision'))
        ON CONFLICT (service) DO UPDATE SET revision = excluded.revision";
    connection.rows(sql, vec![service.as_str().into()]).await.map(drop)
}

#[async_trait]
impl VersionStore for PostgresVersions {
    async fn services(&self) -> Result<BTreeMap<ServiceName, i64>, StoreError> {
        let mut services = BTreeMap::new();
        for row in self.rows("SELECT service, revision FROM version_state", vec![]).await? {
            let [Value::Text(service), Value::S64(revision)] = row.as_slice() else { return Err(unreadable()) };
            services.insert(ServiceName::parse(service).map_err(|_| unreadable())?, *revision);
        }
        Ok(services)
    }

    async fn read(&self, service: &ServiceName) -> Result<Kept, StoreError> {
        // One statement: what it reads is of one moment.
        let sql = "SELECT state.revision, state.state_revision, state.state, file.version, file.sha256 FROM version_state AS state
            LEFT JOIN version_file AS file ON file.service = state.service WHERE state.service = $1";
        let mut kept = Kept::default();
        for row in self.rows(sql, vec![service.as_str().into()]).await? {
            let [Value::S64(revision), Value::S64(state_revision), state, version, sha256] = row.as_slice() else {
                return Err(unreadable());
            };
            (kept.revision, kept.state_revision) = (*revision, *state_revision);
            kept.state = text(state);
            if let Some(version) = text(version) {
                kept.files.insert(version, text(sha256));
            }
        }
        Ok(kept)
    }

    async fn file(&self, service: &ServiceName, version: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.rows("SELECT sha256 FROM version_file WHERE service = $1 AND version = $2", key(service, version)).await?;
        let Some([Value::Text(sha256)]) = found.first().map(Vec::as_slice) else { return Ok(None) };
        let mut file = Vec::new();
        for number in 0.. {
            let sql = "SELECT bytes FROM version_piece WHERE sha256 = $1 AND number = $2";
            let piece = self.rows(sql, vec![sha256.as_str().into(), Value::S64(number)]).await?;
            let Some([Value::Bytes(bytes)]) = piece.first().map(Vec::as_slice) else { break };
            file.extend_from_slice(bytes);
        }
        // Removed while it was read, it has no pieces any more.
        Ok(Some(file).filter(|file| !file.is_empty()))
    }

    async fn keep(&self, service: &ServiceName, version: &str, sha256: &str, file: &[u8]) -> Result<(), StoreError> {
        let mut connection = self.locked().await?;
        let put = "INSERT INTO version_file AS known (service, version, sha256) VALUES ($1, $2, $3)
            ON CONFLICT (service, version) DO UPDATE SET sha256 = known.sha256 RETURNING known.sha256";
        let values = vec![service.as_str().into(), version.into(), sha256.into()];
        let kept = connection.rows(put, values).await?;
        if !matches!(kept.first().map(Vec::as_slice), Some([Value::Text(kept)]) if kept == sha256) {
            connection.rollback().await?;
            return Err(StoreError::OtherBytes);
        }
        for (number, piece) in file.chunks(limits::VERSION_PIECE_BYTES).enumerate() {
            let put = "INSERT INTO version_piece (sha256, number, bytes) VALUES ($1, $2, $3) ON CONFLICT (sha256, number) DO NOTHING";
            let values = vec![sha256.into(), Value::S64(number as i64), Value::Bytes(piece.to_vec())];
            connection.rows(put, values).await?;
        }
        touch(&mut connection, service).await?;
        Ok(connection.commit().await?)
    }

    async fn remove(&self, service: &ServiceName, version: &str) -> Result<(), StoreError> {
        let mut connection = self.locked().await?;
        let remove = "DELETE FROM version_file WHERE service = $1 AND version = $2 RETURNING sha256";
        let removed = connection.rows(remove, key(service, version)).await?;
        if let Some([Value::Text(sha256)]) = removed.first().map(Vec::as_slice) {
            let remove = "DELETE FROM version_piece WHERE sha256 = $1 AND NOT EXISTS (SELECT 1 FROM version_file WHERE sha256 = $1)";
            connection.rows(remove, vec![sha256.as_str().into()]).await?;
            touch(&mut connection, service).await?;
        }
        Ok(connection.commit().await?)
    }

    async fn put_state(&self, service: &ServiceName, read: i64, state: &str, rollout: Option<Uuid>) -> Result<i64, StoreError> {
        let mut connection = self.begin().await?;
        if let Some(rollout) = rollout {
            // Locked, so that no other begins before this has committed.
            let sql = "SELECT 1 FROM rollout WHERE service = $1 AND id = $2 AND until > clock_timestamp() FOR UPDATE";
            if connection.rows(sql, vec![service.as_str().into(), Value::Uuid(rollout)]).await?.is_empty() {
                connection.rollback().await?;
                return Err(StoreError::Overtaken);
            }
        }
        connection
            .rows("INSERT INTO version_state (service, revision) VALUES ($1, 0) ON CONFLICT DO NOTHING", vec![service.as_str().into()])
            .await?;
        let put = "UPDATE version_state SET state = $2, revision = nextval('version_revision'), state_revision = state_revision + 1
            WHERE service = $1 AND state_revision = $3 RETURNING state_revision";
        let values = vec![service.as_str().into(), state.into(), read.into()];
        let changed = connection.rows(put, values).await?;
        let Some([Value::S64(state_revision)]) = changed.first().map(Vec::as_slice) else {
            connection.rollback().await?;
            return Err(StoreError::Overtaken);
        };
        let decided = match connection.commit().await {
            Ok(()) => Ok(*state_revision),
            Err(error) => self.find_out(service, *state_revision, state, &error).await,
        };
        self.announce(service).await;
        decided
    }

    fn rollouts(&self) -> Option<&dyn Rollouts> {
        Some(self)
    }
}

#[async_trait]
impl Rollouts for PostgresVersions {
    async fn begin(&self, service: &ServiceName) -> Result<Option<Uuid>, StoreError> {
        let id = Uuid::new_v4();
        // A host has one rollout of a service at a time: an older one of its own is over.
        let sql = format!(
            "INSERT INTO rollout AS current (service, id, node, boot, until)
                VALUES ($1, $2, $3, (SELECT boot FROM node WHERE name = $3), clock_timestamp() + interval '{} seconds')
            ON CONFLICT (service) DO UPDATE SET id = excluded.id, node = excluded.node, boot = excluded.boot, until = excluded.until, asks = NULL
            WHERE current.until < clock_timestamp() OR current.node = excluded.node OR NOT EXISTS
                (SELECT 1 FROM node WHERE name = current.node AND boot = current.boot AND seen_at > clock_timestamp() - interval '{} ms')
            RETURNING current.id",
            limits::ROLLOUT_S,
            limits::NODE_AWAY_MS
        );
        let begun = self.rows(&sql, vec![service.as_str().into(), Value::Uuid(id), self.node()]).await?;
        Ok((!begun.is_empty()).then_some(id))
    }

    async fn ask(&self, service: &ServiceName, rollout: Uuid, order: &str) -> Result<(), StoreError> {
        let sql = format!(
            "UPDATE rollout SET asks = $3, until = clock_timestamp() + interval '{} seconds'
            WHERE service = $1 AND id = $2 AND until > clock_timestamp() RETURNING 1",
            limits::ROLLOUT_S
        );
        let asked = self.rows(&sql, vec![service.as_str().into(), Value::Uuid(rollout), order.into()]).await?;
        if asked.is_empty() {
            return Err(StoreError::Overtaken);
        }
        self.announce(service).await;
        Ok(())
    }

    async fn renew(&self, service: &ServiceName, rollout: Uuid) -> Result<(), StoreError> {
        let sql = format!(
            "UPDATE rollout SET until = clock_timestamp() + interval '{} seconds'
            WHERE service = $1 AND id = $2 AND until > clock_timestamp() RETURNING 1",
            limits::ROLLOUT_S
        );
        let renewed = self.rows(&sql, vec![service.as_str().into(), Value::Uuid(rollout)]).await?;
        if renewed.is_empty() { Err(StoreError::Overtaken) } else { Ok(()) }
    }

    async fn answers(&self, service: &ServiceName, rollout: Uuid) -> Result<Vec<Answer>, StoreError> {
        let sql = format!(
            "SELECT node.name, answer.id IS NOT NULL, answer.refusal FROM node
            LEFT JOIN rollout_answer AS answer ON answer.node = node.name AND answer.service = $1 AND answer.id = $2
            WHERE node.name <> $3 AND node.state = 'serving' AND node.seen_at > clock_timestamp() - interval '{} ms' ORDER BY node.name",
            limits::NODE_AWAY_MS
        );
        let mut answers = Vec::new();
        for row in self.rows(&sql, vec![service.as_str().into(), Value::Uuid(rollout), self.node()]).await? {
            let [Value::Text(node), Value::Boolean(has_answered), refusal] = row.as_slice() else { return Err(unreadable()) };
            let said = match (*has_answered, text(refusal)) {
                (false, _) => Said::Nothing,
                (true, None) => Said::Prepared,
                (true, Some(refusal)) => Said::Refused(refusal),
            };
            answers.push(Answer { node: node.clone(), said });
        }
        Ok(answers)
    }

    async fn asked(&self) -> Result<Vec<Order>, StoreError> {
        let sql = "SELECT service, id, node, asks FROM rollout AS asked WHERE node <> $1 AND asks IS NOT NULL AND until > clock_timestamp()
            AND NOT EXISTS (SELECT 1 FROM rollout_answer AS answer WHERE answer.service = asked.service AND answer.node = $1 AND answer.id = asked.id)";
        let mut orders = Vec::new();
        for row in self.rows(sql, vec![self.node()]).await? {
            let [Value::Text(service), Value::Uuid(rollout), Value::Text(node), Value::Text(text)] = row.as_slice() else {
                return Err(unreadable());
            };
            let service = ServiceName::parse(service).map_err(|_| unreadable())?;
            orders.push(Order { service, rollout: *rollout, node: node.clone(), text: text.clone() });
        }
        Ok(orders)
    }

    async fn answer(&self, order: &Order, refusal: Option<&str>) -> Result<(), StoreError> {
        let sql = "INSERT INTO rollout_answer (service, node, id, refusal) VALUES ($1, $2, $3, $4)
            ON CONFLICT (service, node) DO UPDATE SET id = excluded.id, refusal = excluded.refusal";
        let refusal = refusal.map_or(Value::Null, Value::from);
        let values = vec![order.service.as_str().into(), self.node(), Value::Uuid(order.rollout), refusal];
        Ok(self.rows(sql, values).await.map(drop)?)
    }

    async fn end(&self, service: &ServiceName, rollout: Uuid) -> Result<(), StoreError> {
        let sql = "DELETE FROM rollout WHERE service = $1 AND id = $2";
        Ok(self.rows(sql, vec![service.as_str().into(), Value::Uuid(rollout)]).await.map(drop)?)
    }

    async fn hosts_without(&self, service: &ServiceName, sha256: &str, for_ms: u64) -> Result<Vec<String>, StoreError> {
        let sql = format!(
            "SELECT name FROM node WHERE name <> $3 AND state IN ('serving', 'draining') AND seen_at > clock_timestamp() - interval '{} ms'
            AND (coalesce(report::jsonb #>> ARRAY['services', $1::text, 'sha256'], '') <> $2
                OR coalesce((report::jsonb #>> ARRAY['services', $1::text, 'live_ms'])::bigint, 0)
                    + (extract(epoch FROM clock_timestamp() - seen_at) * 1000)::bigint < $4)
            ORDER BY name",
            limits::NODE_AWAY_MS
        );
        let values = vec![service.as_str().into(), sha256.into(), self.node(), Value::S64(for_ms as i64)];
        let names = self.rows(&sql, values).await?;
        names.iter().map(|row| row.first().and_then(text).ok_or_else(unreadable)).collect()
    }
}

fn key(service: &ServiceName, version: &str) -> Vec<Value> {
    vec![service.as_str().into(), version.into()]
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

fn unreadable() -> StoreError {
    StoreError::Unavailable("the tables of versions hold what was never written there".to_owned())
}

impl From<SqlError> for StoreError {
    fn from(error: SqlError) -> Self {
        StoreError::Unavailable(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

    use super::*;
    use crate::nodes::postgres::PostgresNodes;
    use crate::nodes::{Engines, LiveVersion, NodeIdentity, NodeReport, NodeState, Nodes};
    use crate::sql::postgres::fixture::{Server, settings};

    struct Host {
        nodes: PostgresNodes,
        versions: PostgresVersions,
        _folder: tempfile::TempDir,
    }

    impl Host {
        async fn start(server: &Server, name: &str, database: &str) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let backend = server.backend_of(name, database, settings(8)).await;
            let identity =
                NodeIdentity { name: name.to_owned(), advertise: String::new(), version: String::new(), engines: Engines::default() };
            let nodes = PostgresNodes::open(&backend, identity, folder.path()).await.expect("opens");
            let versions = PostgresVersions::open(&backend, None).await.expect("opens");
            Self { nodes, versions, _folder: folder }
        }

        async fn runs(&self, sha256: &str, live_ms: u64) {
            let live = LiveVersion { sha256: sha256.to_owned(), live_ms, ..LiveVersion::default() };
            let report = NodeReport { services: [("alpha".to_owned(), live)].into(), ..NodeReport::default() };
            self.nodes.beat(NodeState::Serving, &report).await.expect("beats");
        }

        fn rollouts(&self) -> &dyn Rollouts {
            self.versions.rollouts().expect("they are shared")
        }
    }

    fn alpha() -> ServiceName {
        ServiceName::parse("alpha").expect("a name")
    }

    async fn operate(server: &Server, database: &str, sql: &str) {
        let mut operator = PgConnection::connect(&server.url(database).await).await.expect("connects");
        operator.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.expect("is done");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_host_at_a_time_asks_and_the_others_answer() {
        let server = Server::start().await;
        let [a, b, c] = [
            Host::start(&server, "a", "rollout").await,
            Host::start(&server, "b", "rollout").await,
            Host::start(&server, "c", "rollout").await,
        ];
        a.runs("one", 0).await;
        b.runs("one", 0).await;
        let service = alpha();
        let rollout = a.rollouts().begin(&service).await.expect("begins").expect("nobody else does");
        assert_eq!(b.rollouts().begin(&service).await.expect("asks"), None);
        assert_eq!(b.rollouts().asked().await.expect("asks"), []);
        a.rollouts().ask(&service, rollout, "two").await.expect("asks");
        // The third one only starts.
        let nothing = vec![Answer { node: "b".to_owned(), said: Said::Nothing }];
        assert_eq!(a.rollouts().answers(&service, rollout).await.expect("reads"), nothing);
        let asked = b.rollouts().asked().await.expect("asks");
        assert_eq!(asked.iter().map(|order| (order.node.as_str(), order.text.as_str())).collect::<Vec<_>>(), [("a", "two")]);
        b.rollouts().answer(&asked[0], Some("no room")).await.expect("answers");
        assert_eq!(b.rollouts().asked().await.expect("asks"), []);
        assert_eq!(a.rollouts().answers(&service, rollout).await.expect("reads")[0].said, Said::Refused("no room".to_owned()));
        a.rollouts().end(&service, rollout).await.expect("ends");

        let next = b.rollouts().begin(&service).await.expect("begins").expect("the other one has ended");
        b.rollouts().ask(&service, next, "three").await.expect("asks");
        assert_eq!(b.rollouts().answers(&service, next).await.expect("reads")[0].said, Said::Nothing, "an old answer counts for nothing");
        let asked = a.rollouts().asked().await.expect("asks");
        a.rollouts().answer(&asked[0], None).await.expect("answers");
        assert_eq!(b.rollouts().answers(&service, next).await.expect("reads")[0].said, Said::Prepared);
        assert!(c.rollouts().asked().await.expect("asks").len() == 1);

        a.runs("three", 10).await;
        assert_eq!(b.rollouts().hosts_without(&service, "three", 0).await.expect("reads"), Vec::<String>::new());
        assert_eq!(b.rollouts().hosts_without(&service, "three", 60_000).await.expect("reads"), ["a"]);
        assert_eq!(b.rollouts().hosts_without(&service, "four", 0).await.expect("reads"), ["a"]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_rollout_whose_host_is_away_decides_nothing_any_more() {
        let server = Server::start().await;
        let [a, b] = [Host::start(&server, "a", "away").await, Host::start(&server, "b", "away").await];
        a.runs("one", 0).await;
        b.runs("one", 0).await;
        let service = alpha();
        let lost = a.rollouts().begin(&service).await.expect("begins").expect("nobody else does");
        operate(&server, "away", "UPDATE echo.node SET seen_at = seen_at - interval '1 minute' WHERE name = 'a'").await;
        let next = b.rollouts().begin(&service).await.expect("begins").expect("the other one is away");
        // It was only slow, and goes on.
        assert!(matches!(a.rollouts().renew(&service, lost).await, Err(StoreError::Overtaken)));
        assert!(matches!(a.versions.put_state(&service, 0, "a", Some(lost)).await, Err(StoreError::Overtaken)));
        assert_eq!(b.versions.put_state(&service, 0, "b", Some(next)).await.expect("puts"), 1);
        assert_eq!(a.versions.read(&service).await.expect("reads").state.as_deref(), Some("b"));

        operate(&server, "away", "UPDATE echo.rollout SET until = clock_timestamp()").await;
        assert!(matches!(b.versions.put_state(&service, 1, "late", Some(next)).await, Err(StoreError::Overtaken)), "it took too long");
    }

    /// Of all that is published.
    #[derive(Default)]
    struct Recorder(parking_lot::Mutex<Vec<String>>);

    #[async_trait]
    impl HubBus for Recorder {
        async fn publish(&self, subject: &str, _: Bytes) -> Result<(), crate::bus::BusError> {
            self.0.lock().push(subject.to_owned());
            Ok(())
        }
        async fn subscribe(&self, _: &[&str]) -> crate::bus::Subscription {
            Box::pin(futures_util::stream::pending())
        }
        async fn ping(&self) -> Result<(), crate::bus::BusError> {
            Ok(())
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn other_hosts_hear_of_orders_and_decisions() {
        let server = Server::start().await;
        let a = Host::start(&server, "a", "heard").await;
        let bus = Arc::new(Recorder::default());
        let versions = PostgresVersions::open(&server.backend_of("a", "heard", settings(8)).await, Some(bus.clone())).await.expect("opens");
        a.runs("one", 0).await;
        let service = alpha();
        let rollout = Rollouts::begin(&versions, &service).await.expect("begins").expect("nobody else does");
        assert_eq!(bus.0.lock().len(), 0, "there is nothing to look for yet");
        versions.ask(&service, rollout, "two").await.expect("asks");
        assert_eq!(*bus.0.lock(), [CHANGED]);
        versions.put_state(&service, 0, "two", Some(rollout)).await.expect("decides");
        assert_eq!(*bus.0.lock(), [CHANGED, CHANGED]);
    }
}
