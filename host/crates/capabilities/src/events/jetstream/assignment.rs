//! Which partitions this host handles: those whose leases it has. One task renews them all, in one transaction; partitions are given to the hosts that consume
//! a topic in equal shares, and are free when their host has not renewed for `EVENT_LEASE_MS`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::{Handler, QueueError};
use super::Core;
use super::handling::{self, Assigned, HandlerCell, Wake};
use super::records::PartitionKey;
use echo_base::limits;

#[derive(Default)]
pub struct Assignment {
    /// By consumer: what this host has declared.
    declared: Mutex<BTreeMap<String, Vec<String>>>,
    /// By consumer: what handles its events. Empty while this host handles none.
    handlers: Mutex<BTreeMap<String, HandlerCell>>,
    running: Mutex<BTreeMap<PartitionKey, Running>>,
    /// Until then no other host handles what this one has, as this host's own clock says.
    leased_until: Mutex<Option<Instant>>,
    /// One at a time changes who handles what.
    turn: tokio::sync::Mutex<()>,
    call: Notify,
}

struct Running {
    epoch: i64,
    end: CancellationToken,
    task: JoinHandle<()>,
    wake: Arc<Wake>,
}

impl Assignment {
    /// With a margin for what is between this question and what follows from it.
    pub fn has_leases(&self) -> bool {
        let margin = Duration::from_millis(limits::EVENT_LEASE_MARGIN_MS);
        self.leased_until.lock().is_some_and(|until| Instant::now() + margin < until)
    }

    pub fn wake(&self, life: u64, topic: &str, partition: usize, seq: u64) {
        for (key, running) in self.running.lock().iter() {
            if key.number == partition && key.topic == topic {
                running.wake.wake(life, seq);
            }
        }
    }

    pub fn declared(&self, consumer: &str, topics: Vec<String>) {
        self.declared.lock().insert(consumer.to_owned(), topics);
    }

    pub fn consume(&self, consumer: &str, handler: Arc<dyn Handler>) {
        let cell = self.handlers.lock().entry(consumer.to_owned()).or_insert_with(|| Arc::new(ArcSwapOption::empty())).clone();
        cell.store(Some(Arc::new(handler)));
        self.call.notify_one();
    }

    /// The consumers and topics that this host handles.
    fn consumed(&self) -> Vec<(String, String)> {
        let handlers = self.handlers.lock();
        let declared = self.declared.lock();
        let pairs = declared.iter().filter(|(consumer, _)| handlers.contains_key(*consumer));
        pairs.flat_map(|(consumer, topics)| topics.iter().map(|topic| (consumer.clone(), topic.clone()))).collect()
    }

    /// Ends the handling of partitions of which this says so, after the events at hand, and gives them back.
    async fn end(&self, core: &Core, which: impl Fn(&PartitionKey) -> bool) {
        let ending: Vec<(PartitionKey, Running)> = {
            let mut running = self.running.lock();
            let keys: Vec<PartitionKey> = running.keys().filter(|key| which(key)).cloned().collect();
            keys.into_iter().filter_map(|key| running.remove(&key).map(|running| (key, running))).collect()
        };
        ending.iter().for_each(|(_, running)| running.end.cancel());
        let mut given_back = Vec::new();
        for (key, running) in ending {
            // A panic was logged where it happened.
            let _ = running.task.await;
            given_back.push((key, running.epoch));
        }
        if !given_back.is_empty()
            && let Err(error) = core.records.give_back(&given_back).await
        {
            tracing::debug!(%error, "other hosts have to wait for these partitions");
        }
    }

    /// Topics that the consumer no longer has on this host.
    pub async fn end_other_topics(&self, core: &Core, consumer: &str, topics: &[String]) {
        let _turn = self.turn.lock().await;
        self.end(core, |key| key.consumer == consumer && !topics.contains(&key.topic)).await;
    }

    pub async fn stop(&self, core: &Core) {
        let _turn = self.turn.lock().await;
        self.handlers.lock().clear();
        self.end(core, |_| true).await;
    }

    /// Renews the leases, and starts and ends partitions as they say.
    async fn renew(&self, core: &Arc<Core>) -> Result<(), QueueError> {
        let _turn = self.turn.lock().await;
        let asked_at = Instant::now();
        let renewed = core.records.renew(&self.consumed()).await?;
        core.learn(renewed.life, renewed.subscriptions);
        // How many of each topic are within this host's share.
        let mut left: BTreeMap<(String, String), usize> = renewed.shares;
        let mut wanted: BTreeMap<PartitionKey, i64> = BTreeMap::new();
        for (key, epoch) in &renewed.held {
            if let Some(left) = left.get_mut(&(key.consumer.clone(), key.topic.clone())).filter(|left| **left > 0) {
                *left -= 1;
                wanted.insert(key.clone(), *epoch);
            }
        }
        let mut given_back = Vec::new();
        {
            let mut running = self.running.lock();
            for (key, running) in running.iter() {
                if wanted.get(key) != Some(&running.epoch) {
                    running.end.cancel();
                }
            }
            // Only those that have ended may be another's, or begin again.
            running.retain(|_, running| !(running.end.is_cancelled() && running.task.is_finished()));
            // From here on the others may go on.
            *self.leased_until.lock() = Some(asked_at + Duration::from_millis(limits::EVENT_LEASE_MS));
            for (key, epoch) in renewed.held {
                if running.contains_key(&key) {
                    continue;
                }
                let handler = self.handlers.lock().get(&key.consumer).cloned();
                let (true, Some(handler)) = (wanted.contains_key(&key), handler) else {
                    given_back.push((key, epoch));
                    continue;
                };
                let (end, wake) = (CancellationToken::new(), Arc::new(Wake::default()));
                let assigned = Assigned { key: key.clone(), handler, wake: wake.clone() };
                let (core, ending) = (core.clone(), end.clone());
                let task = tokio::spawn(async move {
                    handling::run(core.clone(), assigned, ending.clone()).await;
                    // What it had can be given back now.
                    core.assignment.call.notify_one();
                });
                running.insert(key, Running { epoch, end, task, wake });
            }
        }
        if !given_back.is_empty() {
            core.records.give_back(&given_back).await?;
        }
        Ok(())
    }
}

/// Owned by the queue; ends with `close`.
pub async fn renew_for_ever(core: Arc<Core>) {
    let pause = Duration::from_millis(limits::EVENT_LEASE_MS / 3);
    loop {
        if let Err(error) = core.assignment.renew(&core).await {
            tracing::warn!(%error, "the leases of events cannot be renewed");
        }
        let _ = tokio::time::timeout(pause, core.assignment.call.notified()).await;
    }
}
