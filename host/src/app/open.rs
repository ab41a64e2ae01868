//! A host's parts are opened, in the order in which they need each other, and what runs beside the requests is started.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backends::{Backends, http_client};
use super::nodes::{self, Heartbeat};
use super::stores::{self, Stores};
use super::{Host, check, hosts};
use crate::config::{CacheConfig, Config, Mode, PasswordCost, Synchronous};
use crate::telemetry;
use crate::watch::{self, SourceTree};
use echo_base::limits;
use echo_base::private_file;
use echo_capabilities::blob::Blobs;
use echo_capabilities::bus::HubBus;
use echo_capabilities::cache::Cache;
use echo_capabilities::cache::fallback::FallbackCache;
use echo_capabilities::cache::memory::MemoryCache;
use echo_capabilities::cache::redis::RedisCache;
use echo_capabilities::events::Queue;
use echo_capabilities::hub::{Feed, Sockets};
use echo_capabilities::leases::Leases;
use echo_capabilities::passwords::native::{Cost, NativePasswords};
use echo_capabilities::rates::redis::RedisRates;
use echo_capabilities::senders::Senders;
use echo_capabilities::sql::sqlite::Durability;
use echo_edge::in_flight::{InFlight, InFlightBounds};
use echo_edge::rates::RateLimiter;
use echo_gateway::{CheckState, Need, Readiness};
use echo_hub::{Announcer, Hosts, Hub, HubSettings, Registry};
use echo_runtime::engine::Engine;
use echo_runtime::{Runtime, RuntimeSettings};

impl Host {
    /// `listens`: where clients reach it.
    pub(super) async fn open(config: Config, listens: &str, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        make_private(&config)?;
        // First of all that is kept: a data folder that another host serves is refused here, before anything in it is changed.
        let stores = Arc::new(Stores::open(&config, durability(&config)).await?);
        // And a second host of this one's name.
        let nodes = nodes::open(&config, &stores, listens).await?;
        let (node, feed, queue) = (config.node_name()?, stores.feed(), stores.queue());
        let operators = stores.operators(&config).await.context("the operators' tokens")?;
        let leases = stores.leases(&node).await.context("the leases")?;
        let bus = hosts::bus(&config).await?;
        let tokens = stores.tokens(&config, bus.clone()).await.context("the tokens")?;
        let cache = open_cache(&config).await?;
        let blobs = stores::blobs(&config).await?;
        let announcer = Announcer::new(feed.clone(), queue.clone());
        let hosts = hosts::open(&config, &stores, bus.clone(), queue.clone()).await?;
        let (registry, sockets) = open_sockets(hosts.as_ref(), &announcer);
        let backends = Arc::new(Backends {
            config: config.clone(),
            stores: stores.clone(),
            databases: tokio::sync::Mutex::default(),
            relays: parking_lot::Mutex::default(),
            relays_stop: CancellationToken::new(),
            cache: cache.clone(),
            blobs: blobs.clone(),
            feed: feed.clone(),
            queue: queue.clone(),
            sockets,
            passwords: Arc::new(NativePasswords::new(config.fingerprint_key()?, password_cost(&config))),
            tokens: tokens.clone(),
            http: Arc::new(http_client(&config)?),
            senders: Arc::new(Senders::new(config.gateway.rate_scale)),
        });
        backends.relay_feed().await?;
        let settings = RuntimeSettings {
            node: node.clone(),
            versions: stores.versions(&config, bus.clone()).await?,
            versions_kept: config.plugins.versions_kept,
            permissions: check::permissions(&config).map_err(anyhow::Error::msg)?,
            cursor_key: config.cursor_key()?,
            migration_timeout: config.plugins.migration_timeout,
            dev_mode: config.mode == Mode::Dev,
            routes: config.routes(),
        };
        let engine = Engine::start(&config.data.dir.join("code"))?;
        let runtime = Runtime::new(engine, backends.clone(), queue.clone(), settings).await.context("the versions")?;
        let heartbeat = Heartbeat::start(nodes, runtime.clone(), registry.clone(), shutdown.clone());
        // These two are one for both edges: a frame counts against the limit of the route that it stands for, and beside the bodies of requests.
        let rates = Arc::new(open_rates(&config)?);
        let in_flight = Arc::new(InFlight::with_room_for(InFlightBounds::default(), config.server.body_bytes_max));
        let hub_settings = HubSettings {
            in_flight: in_flight.clone(),
            allowed_origins: config.server.allowed_origins.clone(),
            rate_scale: config.gateway.rate_scale,
            ..HubSettings::default()
        };
        let hub = Hub::new(hub_settings, registry.clone(), hosts.clone(), tokens.clone(), feed.clone(), runtime.clone(), rates.clone());
        let readiness = Arc::new(Readiness::default());
        register_checks(&readiness, &cache, &feed, &queue, &blobs);
        let host = Self {
            heartbeat,
            config,
            runtime,
            breakers: Arc::default(),
            hub,
            registry,
            announcer,
            hosts,
            readiness,
            rates,
            in_flight,
            tokens,
            blobs,
            cache,
            queue,
            operators,
            node,
            backends,
            upkeep_stop: CancellationToken::new(),
            upkeep: TaskTracker::new(),
        };
        host.start_upkeep(stores, feed);
        host.start_services(leases, bus, shutdown).await?;
        Ok(host)
    }

    /// What is done again and again beside the requests, until `upkeep_stop`.
    fn start_upkeep(&self, stores: Arc<Stores>, feed: Arc<dyn Feed>) {
        let stop = || self.upkeep_stop.clone();
        let (tokens, tokens_stop, stores_stop, metrics_stop) = (self.tokens.clone(), stop(), stop(), stop());
        self.upkeep.spawn(async move { telemetry::metrics().upkeep(metrics_stop).await });
        self.upkeep.spawn(async move { tokens.upkeep(tokens_stop).await });
        self.upkeep.spawn(async move { stores.upkeep(stores_stop).await });
        self.upkeep.spawn(expire_feeds(feed, self.config.feed.cursors_kept, stop()));
        self.upkeep.spawn(expire_dead_letters(self.queue.clone(), self.config.queue.dead_letter_ttl, stop()));
        self.upkeep.spawn(stop().run_until_cancelled_owned(self.announcer.clone().run()));
        if let Some(hosts) = &self.hosts {
            self.upkeep.spawn(stop().run_until_cancelled_owned(hosts.clone().run()));
        }
    }

    /// Starts the services, and what follows their versions.
    async fn start_services(
        &self,
        leases: Arc<dyn Leases>,
        bus: Option<Arc<dyn HubBus>>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let (config, runtime, stop) = (&self.config, &self.runtime, || self.upkeep_stop.clone());
        for (what, error) in runtime.start_services(config.plugins_folder().unwrap_or(&PathBuf::new())).await? {
            tracing::error!(file = %what.display(), %error, "this service is left out");
        }
        for problem in runtime.pin().settings_problems() {
            tracing::error!(problem, "a setting of a route does not fit the services and has no effect");
        }
        self.upkeep.spawn(runtime.clone().run_schedules(leases.clone(), stop()));
        self.upkeep.spawn(runtime.clone().run_rollouts(stop()));
        if let Some(bus) = bus {
            self.upkeep.spawn(stop().run_until_cancelled_owned(hosts::follow_versions(bus, runtime.versions_changed())));
        }
        self.upkeep.spawn(runtime.clone().run_probation(stop()));
        self.upkeep.spawn(runtime.clone().run_backfills(leases, stop()));
        if let (Mode::Dev, Some(packed)) = (config.mode, config.plugins_folder()) {
            let sources = std::env::current_dir().ok().and_then(|folder| SourceTree::at(&folder));
            let (runtime, packed) = (runtime.clone(), packed.to_owned());
            self.upkeep.spawn(async move {
                if let Err(error) = watch::run(runtime, packed, sources, shutdown).await {
                    tracing::error!(%error, "changes of the plugins cannot be watched");
                }
            });
        }
        Ok(())
    }
}

/// The data folder is this account's alone.
fn make_private(config: &Config) -> anyhow::Result<()> {
    let data = &config.data.dir;
    let mended = private_file::make_folder_private(data, is_own).with_context(|| format!("the data folder {}", data.display()))?;
    if mended > 0 {
        tracing::warn!(folder = %data.display(), mended, "other accounts could reach what is in the data folder; now it is this account's alone");
    }
    Ok(())
}

fn durability(config: &Config) -> Durability {
    match config.sql.synchronous {
        Synchronous::Normal => Durability::Process,
        Synchronous::Full => Durability::Power,
    }
}

fn password_cost(config: &Config) -> Cost {
    match config.passwords.cost {
        PasswordCost::Production => Cost::production(),
        PasswordCost::Light => Cost::light(),
    }
}

/// Which sockets are open on this host, and the way to those of all hosts.
fn open_sockets(hosts: Option<&Arc<Hosts>>, announcer: &Arc<Announcer>) -> (Arc<Registry>, Arc<dyn Sockets>) {
    if let Some(hosts) = hosts {
        return (hosts.registry(), hosts.clone());
    }
    let noting = announcer.clone();
    let registry = Registry::new(Some(Box::new(move |change, _| noting.note(change))));
    (registry.clone(), registry)
}

/// Counted over all hosts where they share a Redis.
fn open_rates(config: &Config) -> anyhow::Result<RateLimiter> {
    let Some(url) = config.cache.url.text() else { return Ok(RateLimiter::default()) };
    let rates = RedisRates::open(url, &config.cache.prefix).map_err(|reason| anyhow::anyhow!("cache.url: {reason}"))?;
    Ok(RateLimiter::shared(Arc::new(rates)))
}

/// Redis, with this process's own cache while it is away; or that alone.
async fn open_cache(config: &Config) -> anyhow::Result<Arc<dyn Cache>> {
    let CacheConfig { url, prefix, bytes_max } = &config.cache;
    let Some(url) = url.text() else { return Ok(Arc::new(MemoryCache::shared(*bytes_max))) };
    RedisCache::check_certificate(url).await.map_err(|reason| anyhow::anyhow!("cache.url: {reason}"))?;
    let shared = RedisCache::open(url, prefix).map_err(|reason| anyhow::anyhow!("cache.url: {reason}"))?;
    Ok(Arc::new(FallbackCache::new(Arc::new(shared), *bytes_max)))
}

/// Whether a name in the data folder is the host's; see the table in `docs/ARCHITECTURE.md`.
pub(super) fn is_own(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name);
    ["blobs", "code", "feed", "keys", "moved", "node", "plugins", "queue", "run", "secrets", "services", "tokens"].contains(&stem)
}

fn register_checks(readiness: &Readiness, cache: &Arc<dyn Cache>, feed: &Arc<dyn Feed>, queue: &Arc<dyn Queue>, blobs: &Arc<dyn Blobs>) {
    let feed = feed.clone();
    readiness.register(
        "database",
        Need::Essential,
        Arc::new(move || {
            let feed = feed.clone();
            Box::pin(async move {
                // Any read of the feeds' file; no user has the nil id.
                feed.read(uuid::Uuid::nil(), 0, 1).await.map(|_| CheckState::Up).map_err(|error| error.to_string())
            })
        }),
    );
    let cache = cache.clone();
    readiness.register(
        "cache",
        Need::Helpful,
        Arc::new(move || {
            let cache = cache.clone();
            Box::pin(async move { cache.ping().await.map(|()| CheckState::Up).map_err(|error| error.to_string()) })
        }),
    );
    let queue = queue.clone();
    readiness.register(
        // Events wait in the outboxes; messages arrive.
        "queue",
        Need::Helpful,
        Arc::new(move || {
            let queue = queue.clone();
            Box::pin(async move { queue.ping().await.map(|()| CheckState::Up).map_err(|error| error.to_string()) })
        }),
    );
    let blobs = blobs.clone();
    readiness.register(
        // Messages go on without files.
        "blobs",
        Need::Helpful,
        Arc::new(move || {
            let blobs = blobs.clone();
            Box::pin(async move { blobs.ping().await.map(|()| CheckState::Up).map_err(|error| error.to_string()) })
        }),
    );
}

async fn expire_feeds(feed: Arc<dyn Feed>, cursors_kept: Duration, stop: CancellationToken) {
    let mut interval = tokio::time::interval(Duration::from_secs(limits::FEED_EXPIRY_INTERVAL_S));
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        match feed.expire(jiff::Timestamp::now().as_microsecond().max(0) as u64, cursors_kept).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "old events left the feeds"),
            Err(error) => tracing::error!(%error, "old events could not leave the feeds"),
        }
    }
}

async fn expire_dead_letters(queue: Arc<dyn Queue>, ttl: Duration, stop: CancellationToken) {
    let mut interval = tokio::time::interval(Duration::from_secs(limits::DEAD_LETTER_SWEEP_S));
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        let now_us = jiff::Timestamp::now().as_microsecond().max(0) as u64;
        match queue.expire_dead_letters(now_us.saturating_sub(ttl.as_micros() as u64)).await {
            Ok(0) => {}
            Ok(count) => tracing::warn!(count, "dead letters that nobody replayed have expired"),
            Err(error) => tracing::error!(%error, "dead letters could not be looked over"),
        }
    }
}
