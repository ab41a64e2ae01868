//! Opens the stores of services' data, the feeds, the queue, the tokens and the uploaded files: SQLite files of this host, or a PostgreSQL database and a bucket that
//! hosts share.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::config::{BlobStore, Config, EventsConfig, QueueConfig};
use echo_base::limits;
use echo_capabilities::blob::{Blobs, BucketBlobs, ObjectStoreBlobs};
use echo_capabilities::bus::HubBus;
use echo_capabilities::events::Queue;
use echo_capabilities::events::embedded::EmbeddedQueue;
use echo_capabilities::events::jetstream::{JetStreamQueue, JetStreamSettings};
use echo_capabilities::hub::Feed;
use echo_capabilities::hub::embedded::EmbeddedFeed;
use echo_capabilities::hub::postgres::PostgresFeed;
use echo_capabilities::leases::Leases;
use echo_capabilities::leases::postgres::PostgresLeases;
use echo_capabilities::leases::process::ProcessLeases;
use echo_capabilities::operators::Operators;
use echo_capabilities::operators::files::FileOperators;
use echo_capabilities::operators::postgres::PostgresOperators;
use echo_capabilities::sql::SqlBackend;
use echo_capabilities::sql::postgres::{PoolSettings, PostgresBackend};
use echo_capabilities::sql::sqlite::{Durability, SqliteBackend};
use echo_capabilities::tokens::embedded::EmbeddedTokens;
use echo_capabilities::tokens::postgres::PostgresTokens;
use echo_capabilities::tokens::{TokenSettings, Tokens};
use echo_capabilities::versions::VersionStore;
use echo_capabilities::versions::files::FileVersions;
use echo_capabilities::versions::postgres::PostgresVersions;

/// Keys that are derived from secrets of the host: those of the host before have to be those of the hosts that follow it.
pub(super) const SHARED_KEYS: [(&str, &str); 2] = [("passwords.fingerprint_key", "fingerprint.key"), ("server.cursor_key", "cursor.key")];

pub(super) enum Stores {
    Embedded { sql: SqliteBackend, feed: Arc<EmbeddedFeed>, queue: Arc<EmbeddedQueue> },
    Postgres { sql: PostgresBackend, feed: Arc<PostgresFeed>, queue: Arc<dyn Queue> },
}

impl Stores {
    pub(super) async fn open(config: &Config, durability: Durability) -> anyhow::Result<Self> {
        let data = &config.data.dir;
        if let Some(reason) = super::moved::refusal(data, config.postgres().is_some()) {
            anyhow::bail!("{reason}");
        }
        if let Some(url) = config.postgres() {
            let sql = PostgresBackend::connect(&url, &config.node_name()?, pool_settings(config)).await.context("sql.url")?;
            agree(config, &sql).await?;
            let feed = Arc::new(PostgresFeed::open(&sql).await.context("the feeds")?);
            let queue: Arc<dyn Queue> = match config.events.url.text() {
                Some(urls) => Arc::new(JetStreamQueue::open(jetstream_settings(config, urls), &sql).await.context("events.url")?),
                None => open_queue(config, durability).await?,
            };
            return Ok(Self::Postgres { sql, feed, queue });
        }
        let feed = Arc::new(EmbeddedFeed::open(data, durability).await.context("the feeds")?);
        let sql = SqliteBackend::with_durability(data.join("services"), durability).within(config.sql.service_bytes_max);
        let queue = open_queue(config, durability).await?;
        Ok(Self::Embedded { sql, feed, queue })
    }

    pub(super) fn sql(&self) -> &dyn SqlBackend {
        match self {
            Self::Embedded { sql, .. } => sql,
            Self::Postgres { sql, .. } => sql,
        }
    }

    pub(super) fn feed(&self) -> Arc<dyn Feed> {
        match self {
            Self::Embedded { feed, .. } => feed.clone(),
            Self::Postgres { feed, .. } => feed.clone(),
        }
    }

    /// Where keys, revocations and tickets are: with the data.
    pub(super) async fn tokens(&self, config: &Config, bus: Option<Arc<dyn HubBus>>) -> anyhow::Result<Arc<dyn Tokens>> {
        let settings = TokenSettings {
            issuer: config.tokens.issuer.clone(),
            audience: config.tokens.audience.clone(),
            access_ttl: config.tokens.access_ttl,
            rotate_every: config.tokens.rotate_every,
        };
        match self {
            Self::Embedded { .. } => Ok(EmbeddedTokens::open(&config.data.dir, settings).await?),
            Self::Postgres { sql, .. } => {
                let master_key = config.master_key()?.context("tokens.master_key")?;
                Ok(PostgresTokens::open(sql, &master_key, bus, settings).await?)
            }
        }
    }

    /// Who of the hosts of a database does what only one may do.
    pub(super) async fn leases(&self, node: &str) -> anyhow::Result<Arc<dyn Leases>> {
        match self {
            Self::Embedded { .. } => Ok(Arc::new(ProcessLeases::new(node))),
            Self::Postgres { sql, .. } => Ok(Arc::new(PostgresLeases::open(sql).await?)),
        }
    }

    /// Operators' tokens, and what was done with them.
    pub(super) async fn operators(&self, config: &Config) -> anyhow::Result<Arc<dyn Operators>> {
        Ok(match self {
            Self::Embedded { .. } => Arc::new(FileOperators::open(&config.data.dir.join("secrets/operators.json"))?),
            Self::Postgres { sql, .. } => Arc::new(PostgresOperators::open(sql).await?),
        })
    }

    pub(super) fn queue(&self) -> Arc<dyn Queue> {
        match self {
            Self::Embedded { queue, .. } => queue.clone(),
            Self::Postgres { queue, .. } => queue.clone(),
        }
    }

    /// The versions of the services.
    pub(super) async fn versions(&self, config: &Config, bus: Option<Arc<dyn HubBus>>) -> anyhow::Result<Arc<dyn VersionStore>> {
        Ok(match self {
            Self::Embedded { .. } => Arc::new(FileVersions::open(&config.data.dir.join("plugins")).context("the folder of versions")?),
            Self::Postgres { sql, .. } => Arc::new(PostgresVersions::open(sql, bus).await.context("the versions")?),
        })
    }

    pub(super) async fn upkeep(&self, stop: CancellationToken) {
        let Self::Postgres { sql, .. } = self else { return };
        let mut interval = tokio::time::interval(Duration::from_millis(limits::POSTGRES_TIDY_MS));
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            sql.tidy();
        }
    }

    pub(super) async fn close(&self) {
        self.sql().close().await;
        if let Self::Embedded { feed, .. } = self {
            feed.close().await;
        }
    }
}

/// Uploaded files: in a bucket or a folder that hosts share, or in the data folder.
pub(super) async fn blobs(config: &Config) -> anyhow::Result<Arc<dyn Blobs>> {
    Ok(match config.blobs().map_err(anyhow::Error::msg)? {
        BlobStore::Embedded => Arc::new(ObjectStoreBlobs::in_folder(&config.data.dir.join("blobs")).context("the blobs")?),
        BlobStore::Folder(folder) => Arc::new(ObjectStoreBlobs::in_shared_folder(&folder, &config.node_name()?).context("blob.url")?),
        BlobStore::Bucket(settings) => Arc::new(BucketBlobs::on_s3(&settings).await.context("blob.url")?),
    })
}

pub(super) fn pool_settings(config: &Config) -> PoolSettings {
    PoolSettings {
        open_max: config.sql.max_open,
        idle_max: config.sql.max_idle,
        lifetime: config.sql.max_lifetime,
        idle_time: config.sql.max_idle_time,
    }
}

fn jetstream_settings(config: &Config, urls: &str) -> JetStreamSettings {
    let EventsConfig { prefix, replicas, bytes_max, old_servers, .. } = config.events.clone();
    let QueueConfig { dead_letters_max, waiting_max, .. } = config.queue;
    JetStreamSettings { urls: urls.to_owned(), prefix, replicas, bytes_max, old_servers, dead_letters_max, waiting_max }
}

/// The queue in a file of this host.
async fn open_queue(config: &Config, durability: Durability) -> anyhow::Result<Arc<EmbeddedQueue>> {
    let queue = EmbeddedQueue::open_within(&config.data.dir, durability, config.queue.dead_letters_max, config.queue.waiting_max);
    Ok(Arc::new(queue.await.context("the queue")?))
}

/// Errors: this host's keys are not those of the database's other hosts.
pub(super) async fn agree(config: &Config, backend: &PostgresBackend) -> anyhow::Result<()> {
    for ((setting, _), key) in SHARED_KEYS.into_iter().zip([config.fingerprint_key()?, config.cursor_key()?]) {
        // A digest says nothing of the key.
        let agrees = backend.agrees(&format!("{setting} sha256"), &hexadecimal(&key)).await?;
        anyhow::ensure!(agrees, "{setting} is another than that of the hosts before on this database: it is the same on all of them");
    }
    Ok(())
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
