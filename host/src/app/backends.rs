//! Connects the runtime to one host's backends: `Backends` gives each service its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::check::unknown_settings;
use super::stores::Stores;
use crate::config::Config;
use echo_base::names::ServiceName;
use echo_capabilities::blob::Blobs;
use echo_capabilities::cache::Cache;
use echo_capabilities::events::Queue;
use echo_capabilities::guest::Capabilities;
use echo_capabilities::http::Http;
use echo_capabilities::http::client::HttpClient;
use echo_capabilities::http::credentials::new_vapid_key;
use echo_capabilities::hub::postgres::ServiceOutbox;
use echo_capabilities::hub::{Feed, Sockets};
use echo_capabilities::pace::Pace;
use echo_capabilities::passwords::Passwords;
use echo_capabilities::senders::Senders;
use echo_capabilities::sql::{Database, Outbox};
use echo_capabilities::tokens::Tokens;
use echo_relay::{LeasedRelay, Relay, RelayError};
use echo_runtime::CapabilitySource;

/// Where push services reach the operator of a host in development mode: nobody does.
const DEV_VAPID_SUBJECT: &str = "mailto:dev@echo.example";

/// Errors: settings that hold no key.
pub fn http_client(config: &Config) -> anyhow::Result<HttpClient> {
    let mut settings = config.outgoing_http()?;
    if let Some(key) = config.dev_vapid_key(new_vapid_key)? {
        settings.credentials.vapid_key = Some(key);
        settings.credentials.vapid_subject = DEV_VAPID_SUBJECT.to_owned();
    }
    HttpClient::new(settings).map_err(anyhow::Error::msg)
}

/// The backends, and what each service gets of them.
pub struct Backends {
    pub config: Arc<Config>,
    pub stores: Arc<Stores>,
    pub databases: tokio::sync::Mutex<HashMap<ServiceName, Arc<dyn Database>>>,
    pub relays: parking_lot::Mutex<Vec<JoinHandle<()>>>,
    pub relays_stop: CancellationToken,
    pub blobs: Arc<dyn Blobs>,
    pub cache: Arc<dyn Cache>,
    pub feed: Arc<dyn Feed>,
    pub queue: Arc<dyn Queue>,
    pub sockets: Arc<dyn Sockets>,
    pub passwords: Arc<dyn Passwords>,
    pub tokens: Arc<dyn Tokens>,
    pub http: Arc<dyn Http>,
    pub senders: Arc<Senders>,
}

impl Backends {
    /// The service's database; its outbox is relayed from the first time on.
    async fn database(&self, service: &ServiceName) -> Result<Arc<dyn Database>, String> {
        let mut databases = self.databases.lock().await;
        if let Some(database) = databases.get(service) {
            return Ok(database.clone());
        }
        let database = self.stores.sql().open(service).await.map_err(|error| error.to_string())?;
        match self.stores.as_ref() {
            Stores::Embedded { .. } => self.relay(database.clone()).await.map_err(|error| error.to_string())?,
            Stores::Postgres { feed, .. } => self.relay_leased(ServiceOutbox::of_service(feed.clone(), service, database.clone())),
        }
        databases.insert(service.clone(), database.clone());
        Ok(database)
    }

    /// The events of devices.
    pub async fn relay_feed(&self) -> anyhow::Result<()> {
        match self.stores.as_ref() {
            Stores::Embedded { feed, .. } => self.relay(feed.clone()).await?,
            Stores::Postgres { feed, .. } => self.relay_leased(ServiceOutbox::of_feed(feed.clone())),
        }
        Ok(())
    }

    async fn relay(&self, outbox: Arc<dyn Outbox>) -> Result<(), RelayError> {
        Relay::continue_above(outbox.as_ref(), self.queue.as_ref(), self.feed.as_ref()).await?;
        let relay = Relay::spawn(outbox, self.queue.clone(), self.feed.clone(), self.sockets.clone(), self.relays_stop.clone());
        self.relays.lock().push(relay);
        Ok(())
    }

    fn relay_leased(&self, outbox: ServiceOutbox) {
        let (queue, feed, sockets) = (self.queue.clone(), self.feed.clone(), self.sockets.clone());
        self.relays.lock().push(LeasedRelay::spawn(Arc::new(outbox), queue, feed, sockets, self.relays_stop.clone()));
    }

    pub async fn end_relays(&self) {
        self.relays_stop.cancel();
        let relays = std::mem::take(&mut *self.relays.lock());
        for relay in relays {
            // A relay's panic was logged where it happened; what it left stays in the outbox.
            let _ = relay.await;
        }
    }
}

#[async_trait]
impl CapabilitySource for Backends {
    async fn capabilities_of(&self, service: &ServiceName, defaults: &BTreeMap<String, toml::Value>) -> Result<Arc<Capabilities>, String> {
        for unknown in unknown_settings(&self.config, service, defaults) {
            tracing::warn!(%service, "{unknown}");
        }
        Ok(Arc::new(Capabilities {
            database: self.database(service).await?,
            cache: self.cache.clone(),
            blobs: self.blobs.clone(),
            feed: self.feed.clone(),
            sockets: self.sockets.clone(),
            passwords: self.passwords.clone(),
            tokens: self.tokens.clone(),
            http: self.http.clone(),
            settings: self.config.service_settings(service, defaults),
            pace: Pace::default(),
            senders: self.senders.clone(),
        }))
    }

    fn dialect(&self) -> &'static str {
        self.stores.sql().dialect()
    }
}
