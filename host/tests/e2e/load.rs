//! Background traffic during a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::{PATIENCE, TestApp};

/// Clients that look numbers up, one request after another.
pub struct Lookups {
    stop: CancellationToken,
    answered: Arc<AtomicU32>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Lookups {
    /// Each client pauses so long between an answer and the next request.
    pub fn start(app: &TestApp, clients: u32, pause: Duration) -> Self {
        let (stop, answered) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
        let clients = (0..clients)
            .map(|_| {
                let (http, url) = (app.client.clone(), app.url.clone());
                tokio::spawn(look_up(http, url, pause, answered.clone(), stop.clone()))
            })
            .collect();
        Self { stop, answered, clients }
    }

    pub fn answered(&self) -> u32 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more requests were answered.
    pub async fn answer_more(&self, more: u32) {
        let (goal, until) = (self.answered() + more, Instant::now() + PATIENCE);
        while self.answered() < goal {
            assert!(Instant::now() < until, "the lookups stand still");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// How many were answered, every one of them with success.
    pub async fn stop(self) -> u32 {
        self.stop.cancel();
        let mut failed = Vec::new();
        for client in self.clients {
            failed.extend(client.await.expect("a client does not panic"));
        }
        assert!(failed.is_empty(), "{} lookups failed, the first: {}", failed.len(), failed[0]);
        self.answered.load(Ordering::Relaxed)
    }
}

/// A number that was not asked for before, so that no cached answer is given.
pub fn next_number() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // URL-encoded: a plus stands for a space in a query.
    format!("%2B1201{:07}", 2_000_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 7_000_000)
}

/// What went wrong.
async fn look_up(http: reqwest::Client, url: String, pause: Duration, answered: Arc<AtomicU32>, stop: CancellationToken) -> Vec<String> {
    let mut failed = Vec::new();
    while !stop.is_cancelled() {
        match http.get(format!("{url}/api/v1/location/lookup?phone={}", next_number())).send().await {
            Ok(reply) if reply.status().is_success() => match reply.bytes().await {
                Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                Err(error) => failed.push(error.to_string()),
            },
            Ok(reply) => failed.push(format!("{}: {}", reply.status(), reply.text().await.unwrap_or_default())),
            Err(error) => failed.push(error.to_string()),
        }
        tokio::time::sleep(pause).await;
    }
    failed
}
