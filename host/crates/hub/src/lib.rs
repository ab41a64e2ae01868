//! The WebSocket edge: `GET /ws`, and the same feed over REST at `GET /api/v1/sync`. One socket's loop, who is connected, feed and
//! resume, slow clients. Knows no SQL, no wasmtime and no domain noun: what a frame's type means is for the service that binds it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::routing::{MethodRouter, get};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use echo_base::limits;
use echo_capabilities::context::CallContext;
use echo_capabilities::hub::{Feed, Sockets};
use echo_capabilities::tokens::{Revocation, RevocationEvent, Revocations, Tokens};
use echo_edge::in_flight::InFlight;
use echo_edge::problem::Problem;
use echo_edge::rates::{Limit, RateLimiter};
use echo_runtime::manifest::{Rate, RateSubject};
use echo_runtime::{CallError, ErrorKind, Input, Reply, Runtime, ServiceError};

mod acknowledge;
mod announce;
mod client;
mod close;
mod connection;
mod frame;
mod handshake;
mod hosts;
mod registry;
mod resume;
mod socket;
mod sync;
#[cfg(test)]
mod tests;

pub use announce::{AnnounceError, Announcer};
pub use hosts::Hosts;
pub use registry::{Change, ChangeSink, Registry};

use acknowledge::Acknowledger;

/// What an operator, or a test, may choose. The defaults are those of `limits.rs`.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Origins of web pages that may open a socket, e.g. `https://chat.example.org`; `*` is any. The host's own is always among them.
    pub allowed_origins: Vec<String>,
    pub heartbeat_interval: Duration,
    pub idle_timeout: Duration,
    pub stall_timeout: Duration,
    pub finish_timeout: Duration,
    pub close_timeout: Duration,
    pub ack_flush: Duration,
    pub frame_bytes_max: usize,
    pub frames_per_s: u32,
    pub frames_burst: u32,
    /// Multiplies every rate limit but the two above, which hold for one socket.
    pub rate_scale: u32,
    pub queue_frames_max: usize,
    pub queue_bytes_max: usize,
    pub calls_max: usize,
    pub resume_page: usize,
    pub devices_per_user_max: usize,
    /// Bytes of requests that are in memory at one time; one for all edges.
    pub in_flight: Arc<InFlight>,
}

impl Default for HubSettings {
    fn default() -> Self {
        Self {
            allowed_origins: Vec::new(),
            heartbeat_interval: Duration::from_secs(limits::HEARTBEAT_INTERVAL_S),
            idle_timeout: Duration::from_secs(limits::IDLE_TIMEOUT_S),
            stall_timeout: Duration::from_millis(limits::SOCKET_STALL_MS),
            finish_timeout: Duration::from_millis(limits::SOCKET_FINISH_MS),
            close_timeout: Duration::from_millis(limits::SOCKET_CLOSE_MS),
            ack_flush: Duration::from_millis(limits::ACK_FLUSH_MS),
            frame_bytes_max: limits::FRAME_BYTES_MAX,
            frames_per_s: limits::SOCKET_FRAMES_PER_S,
            frames_burst: limits::SOCKET_FRAMES_BURST,
            rate_scale: 1,
            queue_frames_max: limits::SOCKET_QUEUE_MAX,
            queue_bytes_max: limits::SOCKET_QUEUE_BYTES_MAX,
            calls_max: limits::SOCKET_CALLS_MAX,
            resume_page: limits::SOCKET_RESUME_PAGE,
            devices_per_user_max: limits::DEVICES_PER_USER_MAX,
            in_flight: Arc::default(),
        }
    }
}

/// The way from a frame to the service that binds its type.
#[async_trait]
pub trait Calls: Send + Sync {
    /// What a frame of this type counts against: the limit of the route that it stands for, else its own; none where no service takes it.
    fn rate(&self, event: &str) -> Option<FrameRate>;

    /// Calls what is bound to the frame's type; none where nothing is.
    async fn call(&self, event: &str, payload: &[u8], context: CallContext) -> Option<Result<Reply, CallError>>;
}

/// A limit and the number under which it is counted; see `runtime::manifest::rate_counter`.
#[derive(Clone, Copy, Debug)]
pub struct FrameRate {
    pub rate: Rate,
    pub counter: u64,
}

#[async_trait]
impl Calls for Runtime {
    fn rate(&self, event: &str) -> Option<FrameRate> {
        let catalogue = self.pin();
        let entry = catalogue.socket(event)?;
        Some(FrameRate { rate: entry.rate, counter: entry.rate_counter })
    }

    async fn call(&self, event: &str, payload: &[u8], mut context: CallContext) -> Option<Result<Reply, CallError>> {
        let catalogue = self.pin();
        let entry = catalogue.socket(event)?;
        if let Some(role) = &entry.role
            && !context.caller.as_ref().is_some_and(|caller| caller.roles.contains(role))
        {
            return Some(Err(CallError::Declined(ServiceError {
                kind: ErrorKind::Forbidden,
                code: "role_required".to_owned(),
                message: format!("this wants the role {role}"),
                fields: Vec::new(),
                retry_after: None,
            })));
        }
        if let Some(timeout) = entry.timeout {
            context.deadline = context.deadline.min(Instant::now() + timeout);
        }
        Some(Runtime::call(self, &catalogue, &entry.target, Input::Json(payload), context.into()).await)
    }
}

impl FrameRate {
    const fn of_host(counter: u64, limit: u32) -> Self {
        Self { rate: Rate::per_minute(RateSubject::User, limit), counter }
    }
}

/// What the hub itself answers. Their numbers are those of no function, which are hashes.
const SOCKETS: FrameRate = FrameRate::of_host(1, limits::SOCKETS_PER_MINUTE);
const SYNC_PAGES: FrameRate = FrameRate::of_host(2, limits::SYNC_PAGES_PER_MINUTE);
const ACKS: FrameRate = FrameRate::of_host(3, limits::ACKS_PER_MINUTE);
const PINGS: FrameRate = FrameRate::of_host(4, limits::PINGS_PER_MINUTE);
const RENEWALS: FrameRate = FrameRate::of_host(5, limits::RENEWALS_PER_MINUTE);

/// All sockets of this host, and what they need.
pub struct Hub {
    settings: HubSettings,
    registry: Arc<Registry>,
    /// Where there are several.
    hosts: Option<Arc<Hosts>>,
    tokens: Arc<dyn Tokens>,
    feed: Arc<dyn Feed>,
    calls: Arc<dyn Calls>,
    rates: Arc<RateLimiter>,
    acknowledger: Arc<Acknowledger>,
    /// Who may read the feed now: after a restart all sockets resume at once.
    feed_reads: Semaphore,
    sockets: TaskTracker,
    /// Dropping it ends the hub's own two tasks.
    _tasks: DropGuard,
}

impl Hub {
    /// Starts the hub's own tasks (revocations, acknowledgements) on the current tokio runtime. The registry comes first because the
    /// services, which `calls` leads to, need it, or the hosts, as their `Sockets`. `hosts`: with this registry.
    pub fn new(
        settings: HubSettings,
        registry: Arc<Registry>,
        hosts: Option<Arc<Hosts>>,
        tokens: Arc<dyn Tokens>,
        feed: Arc<dyn Feed>,
        calls: Arc<dyn Calls>,
        rates: Arc<RateLimiter>,
    ) -> Arc<Self> {
        let stop = CancellationToken::new();
        let acknowledger = Arc::new(Acknowledger::new(feed.clone(), settings.ack_flush));
        tokio::spawn(stop.clone().run_until_cancelled_owned(acknowledger.clone().run()));
        tokio::spawn(stop.clone().run_until_cancelled_owned(watch_revocations(tokens.revocations(), registry.clone())));
        Arc::new(Self {
            settings,
            registry,
            hosts,
            tokens,
            feed,
            calls,
            rates,
            acknowledger,
            feed_reads: Semaphore::new(limits::FEED_READS_MAX),
            sockets: TaskTracker::new(),
            _tasks: stop.drop_guard(),
        })
    }

    /// Counts one request or frame of this user, over all hosts. Errors: 429 when there were too many.
    async fn count(&self, FrameRate { rate, counter }: FrameRate, user: Uuid, address: Option<IpAddr>) -> Result<(), Problem> {
        let limit = Limit::new(&rate, self.settings.rate_scale);
        let allowance = self.rates.check(&limit, counter, limit.subject_of(Some(user), address), Instant::now()).await;
        if allowance.is_allowed { Ok(()) } else { Err(Problem::rate_limited(allowance.reset)) }
    }

    /// As `count`, on this host alone: what an open socket sends for itself reaches no other.
    fn count_here(&self, FrameRate { rate, counter }: FrameRate, user: Uuid) -> Result<(), Problem> {
        let limit = Limit::new(&rate, self.settings.rate_scale);
        let allowance = self.rates.check_here(&limit, counter, limit.subject_of(Some(user), None), Instant::now());
        if allowance.is_allowed { Ok(()) } else { Err(Problem::rate_limited(allowance.reset)) }
    }

    /// Refuses new sockets (503), says goodbye to the open ones and closes them with 1012, after the requests they had accepted.
    /// Returns when all are closed and their acknowledgements are written, at the latest after `timeout`; how many were left.
    pub async fn drain(&self, timeout: Duration) -> usize {
        self.registry.drain();
        self.sockets.close();
        let all_closed = async {
            self.sockets.wait().await;
            self.acknowledger.flush().await;
        };
        if tokio::time::timeout(timeout, all_closed).await.is_err() {
            tracing::warn!(sockets = self.sockets.len(), "the drain ended before all sockets were closed");
        }
        self.sockets.len()
    }
}

/// `GET /ws` and `GET /api/v1/sync`.
pub fn routes(hub: Arc<Hub>) -> [(&'static str, MethodRouter); 2] {
    [("/ws", get(handshake::open).with_state(hub.clone())), ("/api/v1/sync", get(sync::sync).with_state(hub))]
}

async fn watch_revocations(mut revocations: Revocations, registry: Arc<Registry>) {
    while let Some(event) = revocations.next().await {
        match event {
            RevocationEvent::Revoked(Revocation::Session(session)) => registry.disconnect_session(session),
            RevocationEvent::Revoked(Revocation::User(user)) => registry.disconnect_user(user),
            // Which ones were missed is not known: all clients come back, and their tokens are checked again.
            RevocationEvent::Resync => {
                tracing::warn!("revocations were missed; all sockets are asked to come back");
                registry.send_away();
            }
        }
    }
}
