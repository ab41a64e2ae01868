//! The bus on Redis Pub/Sub.

use std::time::Duration;

use ::redis::aio::{ConnectionManager, PubSub};
use ::redis::{Client, cmd};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{BusError, Delivery, HubBus, Subscription};
use crate::redis_connection;
use echo_base::backoff::Backoff;
use echo_base::limits;

pub struct RedisBus {
    client: Client,
    connection: ConnectionManager,
    prefix: String,
}

impl RedisBus {
    /// `url`: `redis://` or, with TLS, `rediss://`. Connects when it is first asked, and again whenever the connection is lost. Errors: an address that cannot
    /// be read.
    pub fn open(url: &str, prefix: &str) -> Result<Self, BusError> {
        let (client, connection) = redis_connection::open(url).map_err(error_of)?;
        Ok(Self { client, connection, prefix: prefix.to_owned() })
    }

    fn channel(&self, subject: &str) -> String {
        format!("{}:{subject}", self.prefix)
    }
}

#[async_trait]
impl HubBus for RedisBus {
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        let mut publish = cmd("PUBLISH");
        publish.arg(self.channel(subject)).arg(&payload[..]);
        publish.query_async::<()>(&mut self.connection.clone()).await.map_err(error_of)
    }

    async fn subscribe(&self, subjects: &[&str]) -> Subscription {
        let channels: Vec<String> = subjects.iter().map(|subject| self.channel(subject)).collect();
        let first = subscribed(&self.client, &channels).await.ok();
        stream::unfold((self.client.clone(), channels, first), |(client, channels, current)| async move {
            if let Some(mut messages) = current {
                if let Some(message) = messages.next().await {
                    return Some((Delivery::Message(message), (client, channels, Some(messages))));
                }
                tracing::warn!("the bus between hosts is away");
            }
            let mut backoff = Backoff::from_ms(limits::BUS_RECONNECT_FIRST_MS, limits::BUS_RECONNECT_LAST_MS);
            loop {
                tokio::time::sleep(backoff.pause()).await;
                if let Ok(messages) = subscribed(&client, &channels).await {
                    return Some((Delivery::Interrupted, (client, channels, Some(messages))));
                }
            }
        })
        .boxed()
    }

    async fn ping(&self) -> Result<(), BusError> {
        cmd("PING").query_async::<()>(&mut self.connection.clone()).await.map_err(error_of)
    }
}

type Messages = stream::BoxStream<'static, Bytes>;

/// Messages until the connection is lost: also where it is silently so, as nothing answers a ping then.
async fn subscribed(client: &Client, channels: &[String]) -> Result<Messages, BusError> {
    let connecting = tokio::time::timeout(Duration::from_millis(limits::BUS_CONNECT_MS), client.get_async_pubsub());
    let mut pubsub: PubSub = connecting.await.map_err(|_| BusError("it does not answer".to_owned()))?.map_err(error_of)?;
    let subscribing = tokio::time::timeout(Duration::from_millis(limits::BUS_ANSWER_MS), pubsub.subscribe(channels));
    subscribing.await.map_err(|_| BusError("it does not answer".to_owned()))?.map_err(error_of)?;
    let (sink, messages) = pubsub.split();
    let pings = stream::unfold(sink, |mut sink| async move {
        tokio::time::sleep(Duration::from_millis(limits::BUS_PING_MS)).await;
        let answer = tokio::time::timeout(Duration::from_millis(limits::BUS_ANSWER_MS), sink.ping::<()>()).await;
        // None ends the stream, which ends the messages below.
        matches!(answer, Ok(Ok(()))).then_some((None, sink))
    });
    let messages = messages.map(|message| Some(Bytes::copy_from_slice(message.get_payload_bytes())));
    let until_lost = stream::select(messages.map(Some).chain(stream::iter([None])), pings.map(Some).chain(stream::iter([None])));
    let messages = until_lost.take_while(|item| std::future::ready(item.is_some())).filter_map(|item| std::future::ready(item.flatten()));
    Ok(messages.boxed())
}

fn error_of(error: ::redis::RedisError) -> BusError {
    BusError(error.to_string())
}
