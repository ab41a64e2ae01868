//! Where the layers are joined: backends are opened, given to the services as their capabilities, put behind the gateway and the hub, and ended
//! in order. The one file that knows them all; nothing else is decided here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::header::HOST;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::backends::Backends;
use self::nodes::Heartbeat;
use self::reload::Reload;
pub use self::reload::SettingsSource;
use self::stores::Stores;
use crate::admin::client::Addresses;
use crate::admin::{self, Access, AdminState};
use crate::config::{Config, Mode};
use crate::descriptors;
use crate::telemetry;
use echo_base::limits;
use echo_base::private_file;
use echo_capabilities::blob::Blobs;
use echo_capabilities::cache::Cache;
use echo_capabilities::cache::memory::MemoryCache;
use echo_capabilities::events::Queue;
use echo_capabilities::nodes::NodeState;
use echo_capabilities::operators::Operators;
use echo_capabilities::tokens::Tokens;
use echo_edge::in_flight::InFlight;
use echo_edge::rates::RateLimiter;
use echo_gateway::{self, Answering, Breakers, GatewaySettings, GatewayState, Readiness, ServerSettings, Tls};
use echo_hub::{self, Announcer, Hosts, Hub, Registry};
use echo_runtime::Runtime;

mod backends;
pub mod backup;
pub mod check;
pub mod doctor;
mod hosts;
pub mod migrate;
pub mod migrations;
mod moved;
mod nodes;
mod open;
mod reload;
mod stores;

/// Runs a host until `shutdown`, and ends it in order: no new connections, then the open ones, the queue, the stores.
/// Errors: what keeps it from starting, in words for the operator.
pub async fn run(config: Config, settings: SettingsSource, shutdown: CancellationToken) -> anyhow::Result<()> {
    let descriptors = descriptors::raise();
    let tls = config.tls().map(|(certificate, key)| Tls::open(certificate, key)).transpose().context("server.tls_cert")?;
    let listener = bind(config.server.listen, "server.listen").await?;
    let admin_listener = bind(config.server.admin_listen, "server.admin_listen").await?;
    let host = Host::open(config, &listener.local_addr()?.to_string(), shutdown.clone()).await?;
    let reload = Reload::new(settings.read, host.config.clone(), host.runtime.clone());
    host.upkeep.spawn(host.upkeep_stop.clone().run_until_cancelled_owned(reload.clone().run(settings.asked)));
    let server_settings = host.server_settings(descriptors, tls);
    host.serve(listener, admin_listener, server_settings, reload, shutdown).await
}

async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} ({setting}); is another host running there?"))
}

struct Host {
    config: Arc<Config>,
    heartbeat: Heartbeat,
    runtime: Arc<Runtime>,
    breakers: Arc<Breakers>,
    hub: Arc<Hub>,
    registry: Arc<Registry>,
    announcer: Arc<Announcer>,
    /// Where several share a database.
    hosts: Option<Arc<Hosts>>,
    readiness: Arc<Readiness>,
    rates: Arc<RateLimiter>,
    in_flight: Arc<InFlight>,
    tokens: Arc<dyn Tokens>,
    blobs: Arc<dyn Blobs>,
    cache: Arc<dyn Cache>,
    queue: Arc<dyn Queue>,
    operators: Arc<dyn Operators>,
    /// This host's name.
    node: String,
    backends: Arc<Backends>,
    /// Ends schedules, upkeep and watching.
    upkeep_stop: CancellationToken,
    upkeep: TaskTracker,
}

impl Host {
    /// How clients' connections are taken. `descriptors`: how many files the process may have open.
    fn server_settings(&self, descriptors: Option<u64>, tls: Option<Arc<Tls>>) -> ServerSettings {
        let server = &self.config.server;
        let connections_max = descriptors::connections_within(descriptors, server.connections_max);
        // Whoever tries Echo out asked for no number.
        let is_asked_for = self.config.mode == Mode::Serve || server.connections_max != limits::CONNECTIONS_MAX;
        if connections_max < server.connections_max && is_asked_for {
            tracing::warn!(
                connections_max,
                configured = server.connections_max,
                open_files_max = descriptors,
                "fewer connections are taken than configured, as this process may not have more files open; raise its limit (LimitNOFILE of \
                 systemd, ulimit -Hn) or lower server.connections_max"
            );
        }
        ServerSettings {
            connections_max,
            // Proxies bring many clients each.
            connections_per_address_max: if server.trusted_proxies_count > 0 { usize::MAX } else { server.connections_per_address_max },
            drain_timeout: server.drain_timeout,
            tls,
            ..ServerSettings::default()
        }
    }

    async fn serve(
        self,
        listener: TcpListener,
        admin_listener: TcpListener,
        settings: ServerSettings,
        reload: Arc<Reload>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let (public, admin) = (listener.local_addr()?, admin_listener.local_addr()?);
        let admin_token = self.config.admin_token()?;
        let background = TaskTracker::new();
        let router = echo_gateway::router(self.gateway_state(background.clone(), shutdown.clone()), echo_hub::routes(self.hub.clone()));
        let ready = ready_of(router.clone());
        let admin_router = admin::router(self.admin_state(&admin_token, ready, reload, shutdown.clone()));
        let admin_router = admin_router.layer(axum::middleware::from_fn(echo_gateway::check_host));

        let addresses = Addresses {
            public: public.to_string(),
            tls: settings.tls.is_some(),
            admin: admin.to_string(),
            admin_token: admin_token.clone(),
            pid: std::process::id(),
        };
        let addresses_path = Addresses::path(&self.config.data.dir);
        write_addresses(&addresses_path, &addresses)?;
        announce(&self.config, &addresses);

        let drain_timeout = self.config.server.drain_timeout;
        // The operator's side outlives the public one, so that a drain can be looked at.
        let admin_shutdown = CancellationToken::new();
        let admin_settings = ServerSettings {
            connections_max: limits::ADMIN_CONNECTIONS_MAX,
            connections_per_address_max: limits::ADMIN_CONNECTIONS_MAX,
            drain_timeout,
            ..ServerSettings::default()
        };
        if let Some(tls) = settings.tls.clone() {
            self.upkeep.spawn(tls.watch(self.upkeep_stop.clone()));
        }
        let admin_server = tokio::spawn(echo_gateway::serve(admin_listener, admin_router, admin_settings, admin_shutdown.clone()));
        let public_server = tokio::spawn(echo_gateway::serve(listener, router, settings, shutdown.clone()));

        self.heartbeat.set(NodeState::Serving);
        shutdown.cancelled().await;
        self.heartbeat.set(NodeState::Draining);
        tracing::info!(connections = self.registry.count(), "ending: no new connections, the open ones are drained");
        self.readiness.drain();
        let (cut, sockets_left) = tokio::join!(public_server, self.hub.drain(drain_timeout));
        let cut_count = cut.map_or(0, |outcome| outcome.cut_count);
        background.close();
        if tokio::time::timeout(drain_timeout, background.wait()).await.is_err() {
            tracing::warn!("requests that had outlived their clients were ended");
        }
        if cut_count > 0 || sockets_left > 0 {
            tracing::warn!(cut_count, sockets_left, "the drain time was over before all were done");
        }
        self.end().await;
        admin_shutdown.cancel();
        // A panic of the operator's server was logged; the end goes on.
        let _ = admin_server.await;
        std::fs::remove_file(&addresses_path).with_context(|| format!("{}", addresses_path.display()))?;
        tracing::info!("ended");
        Ok(())
    }

    /// What is behind the edges, from the outside in: who makes work, who moves it on, where it is kept.
    async fn end(self) {
        self.upkeep_stop.cancel();
        self.upkeep.close();
        self.upkeep.wait().await;
        if let Err(error) = self.announcer.flush().await {
            tracing::warn!(%error, "services will not hear which devices went last");
        }
        if let Some(hosts) = &self.hosts
            && let Err(error) = hosts.flush().await
        {
            tracing::warn!(%error, "devices that have gone are released later, by another host or at the next start");
        }
        self.queue.stop().await;
        self.backends.end_relays().await;
        self.heartbeat.end().await;
        // Before the database that some queues need.
        self.queue.close().await;
        self.backends.stores.close().await;
        self.tokens.close().await;
    }

    fn gateway_state(&self, background: TaskTracker, ending: CancellationToken) -> GatewayState {
        let config = &self.config;
        GatewayState {
            runtime: self.runtime.clone(),
            tokens: self.tokens.clone(),
            blobs: self.blobs.clone(),
            idempotency_cache: self.cache.clone(),
            response_cache: Arc::new(MemoryCache::new(limits::RESPONSE_CACHE_BYTES_MAX)),
            settings: GatewaySettings {
                dev_mode: config.mode == Mode::Dev,
                rate_scale: config.gateway.rate_scale,
                allowed_origins: config.server.allowed_origins.clone(),
                request_timeout: config.server.request_timeout,
                body_bytes_max: config.server.body_bytes_max,
                in_flight: self.in_flight.clone(),
                public_metrics: config.server.public_metrics,
                docs: config.server.docs,
                // Others' pages reach a host on this machine by a name of theirs that leads to it (DNS rebinding).
                loopback_names_only: config.mode == Mode::Dev && !config.expose_dev,
                trusted_proxies_count: config.server.trusted_proxies_count,
                is_encrypted: config.tls().is_some(),
            },
            rates: self.rates.clone(),
            readiness: self.readiness.clone(),
            breakers: self.breakers.clone(),
            render_metrics: Arc::new(telemetry::render_metrics),
            background,
            ending,
        }
    }

    fn admin_state(&self, admin_token: &str, ready: ReadyAnswer, reload: Arc<Reload>, shutdown: CancellationToken) -> AdminState {
        let (registry, breakers) = (self.registry.clone(), self.breakers.clone());
        let (config, stores) = (self.config.clone(), self.backends.stores.clone());
        let back_up: admin::BackUp = Box::new(move |to, with_blobs| {
            let (config, stores) = (config.clone(), stores.clone());
            Box::pin(async move {
                let Stores::Embedded { sql, feed, queue } = stores.as_ref() else {
                    let reason = "the data is in PostgreSQL, which has its own backups (pg_basebackup with WAL archiving, pg_dump)";
                    return Err(admin::BackupRefusal::Failed(reason.to_owned()));
                };
                let mut databases = vec![(PathBuf::from("feed.sqlite"), feed.file()), (PathBuf::from("queue.sqlite"), queue.file())];
                let services = sql.files().await.into_iter();
                databases.extend(services.map(|(service, file)| (PathBuf::from(format!("services/{service}.sqlite")), file)));
                let report = backup::write(&config.data.dir, databases, Path::new("tokens.sqlite"), with_blobs, &to).await;
                report.map_err(admin::BackupRefusal::from).map(|report| serde_json::json!(report))
            })
        });
        let reload: admin::ReloadSettings = Box::new(move || {
            let reload = reload.clone();
            Box::pin(async move { reload.now().await })
        });
        AdminState {
            back_up,
            reload,
            runtime: self.runtime.clone(),
            queue: self.queue.clone(),
            access: Access::new(
                self.operators.clone(),
                self.node.clone(),
                admin_token,
                self.config.server.metrics_token.text(),
                &self.config.server.admin_names,
            ),
            is_breaker_open: Box::new(move |service| breakers.is_open(service)),
            connections: Box::new(move || connections_view(&registry)),
            nodes: self.heartbeat.nodes(),
            metrics: Box::new(telemetry::render_metrics),
            ready,
            shutdown,
        }
    }
}

type ReadyAnswer = Box<dyn Fn() -> BoxFuture<'static, Response> + Send + Sync>;

/// The public side's own answer, for where it cannot be asked without its certificate's name.
fn ready_of(router: impl Answering) -> ReadyAnswer {
    Box::new(move || {
        let mut router = router.clone();
        Box::pin(async move {
            let request = Request::builder().uri("/ready").header(HOST, "localhost").body(Body::empty()).expect("a request");
            let Ok(answer) = router.call(request).await;
            answer
        })
    })
}

fn connections_view(registry: &Registry) -> admin::Connections {
    let items = registry
        .connections(limits::PAGE_MAX)
        .into_iter()
        .map(|connection| {
            serde_json::json!({
                "connection_id": connection.connection_id,
                "user_id": connection.user_id,
                "device_id": connection.device_id,
                "session_id": connection.session_id,
            })
        })
        .collect();
    admin::Connections { count: registry.count() as u64, items }
}

fn write_addresses(path: &std::path::Path, addresses: &Addresses) -> anyhow::Result<()> {
    let text = serde_json::to_vec(addresses).context("the addresses as JSON")?;
    let folder = path.parent().context("the addresses have a folder")?;
    private_file::create_folder(folder).and_then(|()| private_file::write(path, &text)).with_context(|| format!("{}", path.display()))
}

fn announce(config: &Config, addresses: &Addresses) {
    if config.mode == Mode::Dev {
        let scheme = if addresses.tls { "https" } else { "http" };
        println!("Echo serves on      {scheme}://{}", addresses.public);
        println!("  API to read       {scheme}://{}/docs", addresses.public);
        println!("  outgoing texts    {scheme}://{}/dev/outbox", addresses.public);
        println!("  console           http://{}/console", addresses.admin);
        if config.expose_dev {
            // Whoever else sees this terminal, or its log, is not the operator.
            println!("  operator          http://{}  token in {}", addresses.admin, Addresses::path(&config.data.dir).display());
        } else {
            println!("  operator          http://{}  token {}", addresses.admin, addresses.admin_token);
        }
        println!("  data              {}", config.data.dir.display());
    }
    tracing::info!(public = addresses.public, admin = addresses.admin, "serving");
}
