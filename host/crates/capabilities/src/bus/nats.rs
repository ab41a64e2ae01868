//! The bus on NATS subjects (core NATS, without JetStream).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, select, select_all, unfold};
use tokio::sync::watch;

use super::{BusError, Delivery, HubBus, Subscription};
use echo_base::limits;

pub struct NatsBus {
    client: Client,
    prefix: String,
    /// How often it was interrupted.
    interruptions: watch::Receiver<u64>,
}

impl NatsBus {
    /// `urls`: `nats://` or, with TLS, `tls://`, separated by commas. Connects in the background, and again whenever the connection is lost. Errors: an address
    /// that cannot be read.
    pub async fn open(urls: &str, prefix: &str) -> Result<Self, BusError> {
        let (interrupted, interruptions) = watch::channel(0_u64);
        let interrupted = Arc::new(interrupted);
        let was_connected = Arc::new(AtomicBool::new(false));
        let options = ConnectOptions::new()
            .name("echo")
            .retry_on_initial_connect()
            .connection_timeout(Duration::from_millis(limits::BUS_CONNECT_MS))
            .ping_interval(Duration::from_millis(limits::BUS_PING_MS))
            .subscription_capacity(limits::BUS_MESSAGES_WAITING_MAX)
            .reconnect_delay_callback(|attempts| {
                let doubled = limits::BUS_RECONNECT_FIRST_MS << attempts.min(10);
                Duration::from_millis(doubled.min(limits::BUS_RECONNECT_LAST_MS))
            })
            .event_callback(move |event| {
                let (interrupted, was_connected) = (interrupted.clone(), was_connected.clone());
                async move {
                    match event {
                        // The first connection too: who subscribed before it has missed what was sent meanwhile.
                        Event::Connected => {
                            if was_connected.swap(true, Ordering::SeqCst) {
                                tracing::info!("the bus between hosts is connected again");
                            }
                            interrupted.send_modify(|count| *count += 1);
                        }
                        Event::Disconnected => tracing::warn!("the bus between hosts is away"),
                        Event::SlowConsumer(_) => interrupted.send_modify(|count| *count += 1),
                        other => tracing::debug!(event = %other, "the bus between hosts"),
                    }
                }
            });
        let addresses: Vec<&str> = urls.split(',').map(str::trim).collect();
        let client = options.connect(addresses).await.map_err(|error| BusError(error.to_string()))?;
        Ok(Self { client, prefix: prefix.to_owned(), interruptions })
    }

    fn subject(&self, subject: &str) -> String {
        format!("{}.{subject}", self.prefix)
    }
}

#[async_trait]
impl HubBus for NatsBus {
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        // The client would keep it and send it later, when what it says is no longer news.
        if self.client.connection_state() != State::Connected {
            return Err(BusError("not connected".to_owned()));
        }
        self.client.publish(self.subject(subject), payload).await.map_err(|error| BusError(error.to_string()))
    }

    async fn subscribe(&self, subjects: &[&str]) -> Subscription {
        let mut subscribers: Vec<BoxStream<'static, Delivery>> = Vec::new();
        for subject in subjects {
            match self.client.subscribe(self.subject(subject)).await {
                Ok(subscriber) => subscribers.push(subscriber.map(|message| Delivery::Message(message.payload)).boxed()),
                // Subjects are the host's own words.
                Err(error) => tracing::error!(subject, %error, "cannot subscribe on the bus between hosts"),
            }
        }
        let interruptions = unfold(self.interruptions.clone(), |mut interruptions| async move {
            interruptions.changed().await.is_ok().then_some((Delivery::Interrupted, interruptions))
        });
        select(select_all(subscribers), interruptions).boxed()
    }

    async fn ping(&self) -> Result<(), BusError> {
        let flushed = tokio::time::timeout(Duration::from_millis(limits::BUS_ANSWER_MS), self.client.flush()).await;
        match (self.client.connection_state(), flushed) {
            (State::Connected, Ok(Ok(()))) => Ok(()),
            (_, Ok(Err(error))) => Err(BusError(error.to_string())),
            _ => Err(BusError("not connected".to_owned())),
        }
    }
}
