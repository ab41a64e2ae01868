//! Keeps one socket open: opens it, resumes after what it has, and pauses after a failure. What goes on while it is open is in `socket`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use echo_base::backoff::Backoff;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::events::ConnectionState;
use crate::limits;
use crate::outbox::jittered;
use crate::shared::{Command, Shared};
use crate::socket::{OpenSocket, Progress};

pub(crate) struct Connector {
    shared: Arc<Shared>,
    progress: Progress,
    /// An access token that the server did not take.
    refused: Option<String>,
    backoff: Backoff,
}

/// The session or its token has ended.
const UNAUTHENTICATED: u16 = 4401;
/// Another connection of the same device took this one's place.
const REPLACED: u16 = 4409;

impl Connector {
    pub fn new(shared: Arc<Shared>, commands: mpsc::Receiver<Command>, saved: Option<u64>) -> Self {
        let backoff = shared.backoff;
        Self { shared, progress: Progress { commands, saved, gap_after: None }, refused: None, backoff }
    }

    /// Until the client is closed.
    pub async fn run(mut self) {
        let closed = self.shared.closed.clone();
        closed.run_until_cancelled(self.signed_in()).await;
        while !closed.is_cancelled() {
            let pause = self.once().await;
            if closed.is_cancelled() {
                break;
            }
            // Whoever waits for an answer learns that there will be none.
            while self.progress.commands.try_recv().is_ok() {}
            self.shared.now(ConnectionState::Offline { retry_at: Some(Instant::now() + pause) });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.shared.wake.notified() => {}
                () = closed.cancelled() => break,
            }
            while self.shared.feed.is_full() && !closed.is_cancelled() {
                tokio::select! {
                    () = self.shared.feed.moved.notified() => {}
                    () = closed.cancelled() => break,
                }
            }
            if self.shared.signed_in().is_none() {
                self.shared.now(ConnectionState::Offline { retry_at: None });
                closed.run_until_cancelled(self.signed_in()).await;
            }
        }
        self.shared.now(ConnectionState::Offline { retry_at: None });
    }

    async fn signed_in(&self) {
        let mut credentials = self.shared.credentials.subscribe();
        let _ = credentials.wait_for(Option::is_some).await.map(drop);
    }

    /// One connection; how long to rest before the next.
    async fn once(&mut self) -> Duration {
        self.shared.now(ConnectionState::Connecting);
        let credentials = match self.shared.token(self.refused.as_deref()).await {
            Ok(Some(credentials)) => credentials,
            Ok(None) => return Duration::ZERO,
            Err(error) => return self.pause_after(&error),
        };
        self.refused = None;
        let (shared, began) = (self.shared.clone(), Instant::now());
        let opening = shared.http.socket(&credentials.access_token, shared.feed.last());
        let stream = match shared.closed.run_until_cancelled(opening).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                if error.problem().is_some_and(|problem| problem.status == 401) {
                    self.refused = Some(credentials.access_token.clone());
                }
                return self.pause_after(&error);
            }
            None => return Duration::ZERO,
        };
        let token = credentials.access_token.clone();
        let end = OpenSocket::new(shared, &mut self.progress, stream, credentials).run().await;
        self.shared.outbox.lock().interrupted();
        if began.elapsed() > Duration::from_millis(limits::STABLE_AFTER_MS) {
            self.backoff.reset();
        }
        match end.code {
            Some(REPLACED) => return Duration::from_millis(limits::REPLACED_REST_MS),
            Some(UNAUTHENTICATED) => self.refused = Some(token),
            _ => {}
        }
        end.retry_after.unwrap_or_else(|| jittered(&mut self.backoff))
    }

    fn pause_after(&mut self, error: &Error) -> Duration {
        let wanted = error.problem().and_then(|problem| problem.retry_after());
        wanted.unwrap_or_else(|| jittered(&mut self.backoff))
    }
}
