//! For `echod migrate`: what one host's queue file has, put where hosts with JetStream find it.

use std::collections::BTreeMap;

use super::super::{Event, QueueError};
use super::records::Records;
use crate::sql::postgres::PostgresBackend;
use crate::sql::{Effect, Value};
use echo_base::limits;

/// The contents of a queue, in the order of its rows.
#[derive(Debug, Default)]
pub struct Filled {
    /// Consumer and topic. They begin with the first event that hosts publish, so that none is missed by a service that starts later than another.
    pub subscriptions: Vec<(String, String)>,
    /// Events that some consumer has not handled yet, each once, with the service that published it. Every consumer gets them (again).
    pub waiting: Vec<(String, Event)>,
    pub dead_letters: Vec<FilledDeadLetter>,
}

#[derive(Debug)]
pub struct FilledDeadLetter {
    pub consumer: String,
    pub event: Event,
    pub reason: String,
    pub tries: u32,
    pub at_us: u64,
}

/// Into tables of a database that no host uses.
pub async fn fill(backend: &PostgresBackend, filled: Filled) -> Result<(), QueueError> {
    let records = Records::open(backend, limits::DEAD_LETTERS_MAX).await?;
    for letter in filled.dead_letters {
        let origin = format!("{} of a queue before", letter.event.id);
        records.keep_dead_letter(&letter.consumer, &letter.event, letter.reason, letter.tries, letter.at_us, &origin).await?;
    }
    let mut connection = backend.shared().host.take().await?;
    connection.begin("READ COMMITTED").await?;
    let subscribe = "INSERT INTO event_subscription (consumer, topic, life, passed) VALUES ($1::text, $2::text, 0, 0)";
    for (consumer, topic) in filled.subscriptions {
        connection.rows(subscribe, vec![consumer.into(), topic.into()]).await?;
    }
    let mut positions: BTreeMap<String, i64> = BTreeMap::new();
    for (service, event) in filled.waiting {
        let effect = serde_json::to_string(&Effect::Event(event)).expect("strings and numbers always encode");
        let position = positions.entry(service.clone()).or_default();
        *position += 1;
        let put = "INSERT INTO event_log (service, position, effect) VALUES ($1, $2, $3)";
        connection.rows(put, vec![service.into(), Value::S64(*position), effect.into()]).await?;
    }
    for (service, position) in positions {
        connection.rows("INSERT INTO event_head (service, position) VALUES ($1, $2)", vec![service.into(), position.into()]).await?;
    }
    Ok(connection.commit().await?)
}
