//! What a host needs that shares its database with others: the bus, and the sockets of all of them.

use std::sync::Arc;

use anyhow::Context;
use futures_util::StreamExt;
use tokio::sync::Notify;

use super::stores::Stores;
use crate::config::Config;
use echo_capabilities::bus::HubBus;
use echo_capabilities::bus::nats::NatsBus;
use echo_capabilities::bus::redis::RedisBus;
use echo_capabilities::events::Queue;
use echo_capabilities::versions;
use echo_hub::Hosts;

/// None: this host is alone, as its data is in files of its own, or as there is no bus.
pub(super) async fn open(
    config: &Config,
    stores: &Stores,
    bus: Option<Arc<dyn HubBus>>,
    queue: Arc<dyn Queue>,
) -> anyhow::Result<Option<Arc<Hosts>>> {
    let (Stores::Postgres { feed, .. }, Some(bus)) = (stores, bus) else { return Ok(None) };
    let hosts = Hosts::new(&config.node_name()?, feed.clone(), bus, queue);
    hosts.begin().await.context("the devices of this host")?;
    Ok(Some(hosts))
}

/// NATS where it carries the events, else the Redis of the cache. None: neither is configured.
pub(super) async fn bus(config: &Config) -> anyhow::Result<Option<Arc<dyn HubBus>>> {
    if let Some(urls) = config.events.url.text() {
        return Ok(Some(Arc::new(NatsBus::open(urls, &config.events.prefix).await.context("events.url, for the bus between hosts")?)));
    }
    let Some(url) = config.cache.url.text() else { return Ok(None) };
    Ok(Some(Arc::new(RedisBus::open(url, &config.cache.prefix).context("cache.url, for the bus between hosts")?)))
}

/// Notifies `changed` whenever another host says that there is a version to prepare or to make live, or may have said so.
pub(super) async fn follow_versions(bus: Arc<dyn HubBus>, changed: Arc<Notify>) {
    let mut deliveries = bus.subscribe(&[versions::CHANGED]).await;
    while deliveries.next().await.is_some() {
        changed.notify_one();
    }
}
