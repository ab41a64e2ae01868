//! The services: which versions are live, how a call reaches an instance, how a version is deployed. Knows no HTTP and no backends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use echo_base::names::ServiceName;
use echo_capabilities::context::CallContext;
use echo_capabilities::events::Queue;
use echo_capabilities::guest::Capabilities;
use echo_capabilities::versions::{StoreError, VersionStore};
use echo_contract::codec::{CursorKey, DecodeError, Encoded};
pub use echo_contract::{ErrorKind, FieldError, Input, ServiceError};

pub mod artifact;
mod backfill;
mod bindings;
mod call;
mod catalogue;
mod cpu;
pub mod difference;
pub mod engine;
mod frames;
mod gate;
pub mod inspect;
mod instance;
mod linking;
mod long_calls;
mod loosened;
pub mod manifest;
pub mod manifest_reference;
pub mod permissions;
mod pool;
mod probation;
mod rollout;
pub mod route_settings;
mod schedules;
mod stdout;
mod subscriber;
pub mod swap;
pub mod versions;
mod views;

use backfill::Backfills;
pub use call::StatsView;
pub use catalogue::{CallTarget, Catalogue, RouteEntry};
use engine::Engine;
use gate::Gates;
use long_calls::{LongCalls, Origin};
use permissions::Permissions;
use rollout::RolloutState;
use route_settings::RouteSettings;
use versions::ServiceVersions;
use views::RecentGenerations;

/// A success.
pub struct Reply {
    /// The JSON document; none for functions without a result.
    pub body: Option<Bytes>,
    /// The boolean that the route's `status_unless` asks for.
    pub status_flag: Option<bool>,
}

/// Why a call gave no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No JSON at all, or nested too deep (400).
    #[error("the request cannot be read: {0}")]
    Unreadable(String),
    /// JSON of the wrong shape (422), every wrong field named.
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    /// The service answered with an error.
    #[error("declined: {}", .0.code)]
    Declined(ServiceError),
    /// No slot became free in time (503).
    #[error("the service is busy")]
    Busy,
    /// No version of the service is running, or not one with this function (503).
    #[error("the service is unavailable: {0}")]
    Unavailable(String),
    /// The operator has switched the service off (503).
    #[error("{}", call::switched_off(.0))]
    SwitchedOff(ServiceName),
    /// CPU or wall time is used up (504).
    #[error("the call took too long: {0}")]
    TimedOut(String),
    /// Trap, memory bound, reply over the bound, transaction left open, cycle of calls (500).
    #[error("the service failed: {0}")]
    Failed(String),
}

impl From<DecodeError> for CallError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Unreadable(reason) => CallError::Unreadable(reason),
            DecodeError::Invalid(fields) => CallError::Invalid(fields),
        }
    }
}

/// Gives each service its capabilities, made from the backends. Implemented in `app.rs`.
#[async_trait]
pub trait CapabilitySource: Send + Sync {
    /// The same database, cache and so on for every version of a service; its settings are this version's defaults, overridden by the
    /// operator's. Errors: a reason for the operator.
    async fn capabilities_of(&self, service: &ServiceName, defaults: &BTreeMap<String, toml::Value>) -> Result<Arc<Capabilities>, String>;
    /// `sqlite` or `postgres`: which of a service's migrations apply.
    fn dialect(&self) -> &'static str;
}

/// The live services, and how they are called.
pub struct Runtime {
    engine: Engine,
    long_calls: LongCalls,
    permissions: Permissions,
    capabilities: Arc<dyn CapabilitySource>,
    queue: Arc<dyn Queue>,
    catalogue: ArcSwap<Catalogue>,
    versions: ServiceVersions,
    gates: Gates,
    rollouts: RolloutState,
    /// Held while the next catalogue is made, its choice kept, and it is stored: milliseconds.
    publishing: tokio::sync::Mutex<()>,
    /// Until then services are missing that are about to come.
    has_started: AtomicBool,
    /// Per service: subscriptions of two generations are not changed at the same time.
    subscribing: Gates,
    generations_count: AtomicU64,
    /// The key that clients' cursors are sealed with.
    cursor_key: CursorKey,
    migration_timeout: Duration,
    dev_mode: bool,
    backfills: Backfills,
    generations: RecentGenerations,
    myself: Weak<Runtime>,
}

pub struct RuntimeSettings {
    /// Of this host.
    pub node: String,
    /// Versions that operators deployed.
    pub versions: Arc<dyn VersionStore>,
    /// Of each service.
    pub versions_kept: usize,
    pub permissions: Permissions,
    /// Kept in the data folder, so that clients' cursors stay valid through a restart.
    pub cursor_key: [u8; 32],
    /// How long the migrations of a deployment may keep a live service from writing.
    pub migration_timeout: Duration,
    pub dev_mode: bool,
    /// What the operator changes of the services' routes. What does not fit them is left out and said when they are there: see `route_problems`.
    pub routes: RouteSettings,
}

impl Runtime {
    /// To be called within tokio's runtime.
    /// Errors: the versions cannot be read.
    pub async fn new(
        engine: Engine,
        capabilities: Arc<dyn CapabilitySource>,
        queue: Arc<dyn Queue>,
        settings: RuntimeSettings,
    ) -> Result<Arc<Self>, StoreError> {
        let versions = ServiceVersions::open(settings.versions, settings.node, settings.versions_kept).await?;
        Ok(Arc::new_cyclic(|myself| Self {
            long_calls: LongCalls::start(engine.ticks()),
            engine,
            permissions: settings.permissions,
            capabilities,
            queue,
            catalogue: ArcSwap::from_pointee(
                Catalogue::default().with_settings(settings.routes.into()).expect("no services, so none that have one path"),
            ),
            versions,
            gates: Gates::default(),
            rollouts: RolloutState::default(),
            publishing: tokio::sync::Mutex::default(),
            has_started: AtomicBool::new(false),
            subscribing: Gates::default(),
            generations_count: AtomicU64::new(0),
            cursor_key: CursorKey::new(&settings.cursor_key),
            migration_timeout: settings.migration_timeout,
            dev_mode: settings.dev_mode,
            backfills: Backfills::default(),
            generations: RecentGenerations::default(),
            myself: myself.clone(),
        }))
    }

    /// What cursors are sealed with, those of the host's own lists too.
    pub fn cursors(&self) -> &CursorKey {
        &self.cursor_key
    }

    /// The newest snapshot; hold it for the whole root request.
    pub fn pin(&self) -> Arc<Catalogue> {
        self.catalogue.load_full()
    }

    /// What of these settings does not fit the live services, a sentence each.
    pub fn problems_of_routes(&self, routes: RouteSettings) -> Vec<String> {
        self.pin().with_settings(routes.into()).map_or_else(|reasons| reasons, |next| next.settings_problems().to_vec())
    }

    /// The next snapshot: the same services with other settings of their routes. Returns its number.
    /// Errors: all that does not fit the live services, a sentence each; then nothing is changed.
    pub async fn set_routes(&self, routes: RouteSettings) -> Result<u64, Vec<String>> {
        let _publishing = self.publishing.lock().await;
        let next = self.pin().with_settings(routes.into())?;
        if !next.settings_problems().is_empty() {
            return Err(next.settings_problems().to_vec());
        }
        let number = next.number;
        self.catalogue.store(Arc::new(next));
        Ok(number)
    }

    /// Stores the pointer, and says which of the operator's settings of routes no longer fit. They are kept: a later version may have the route again.
    fn publish_catalogue(&self, next: Catalogue) {
        let before = self.catalogue.swap(Arc::new(next));
        if !self.has_started.load(Ordering::Acquire) {
            return;
        }
        let now = self.pin();
        for problem in now.settings_problems().iter().filter(|problem| !before.settings_problems().contains(problem)) {
            tracing::warn!(problem, "a setting of a route fits the services no longer; it is kept, and has no effect");
        }
    }

    /// Calls a function in the pinned snapshot. `context.deadline` and the service's own `wall` bound it.
    pub async fn call(
        &self,
        catalogue: &Arc<Catalogue>,
        target: &CallTarget,
        input: Input<'_>,
        context: Arc<CallContext>,
    ) -> Result<Reply, CallError> {
        let generation = catalogue
            .generation(target.service.as_str())
            .ok_or_else(|| CallError::Unavailable(format!("no service {}", target.service)))?;
        if catalogue.is_off(target.service.as_str()) {
            return Err(CallError::SwitchedOff(target.service.clone()));
        }
        let binding = catalogue
            .bound(generation, target)
            .ok_or_else(|| CallError::Unavailable(format!("{} has no such function", target.service)))?;
        let mut params = binding.request.decode(&input)?;
        // Only at the edge: calls between services pass cursors unsealed.
        let scope = (binding.request.has_cursors() || binding.reply.has_cursors()).then(|| {
            let caller = context.caller.as_ref().map(|caller| caller.user_id.as_bytes());
            let function = &generation.exports[binding.export].name;
            binding.request.cursor_scope(&self.cursor_key, target.service.as_str(), function, caller, &params)
        });
        if let Some(scope) = &scope {
            binding.request.open_cursors(scope, &mut params)?;
        }
        let frame = call::CallFrame::root(catalogue.clone(), target.service.clone());
        let mut result =
            call::run_root(&self.long_calls, Origin::Client, generation.clone(), binding.export, params, frame, context).await?;
        if let Some(scope) = &scope {
            binding.reply.seal_cursors(scope, &mut result);
        }
        match binding.reply.encode(&result) {
            Ok(Encoded::Ok { body, status_flag }) => Ok(Reply { body: body.map(Bytes::from), status_flag }),
            Ok(Encoded::Declined(mut error)) => {
                if target.changed.is_some() {
                    error.fields.iter_mut().for_each(|wrong| wrong.field = binding.request.clients_path(&wrong.field));
                }
                Err(CallError::Declined(error))
            }
            Err(error) => Err(CallError::Failed(format!("its reply cannot be sent: {error}"))),
        }
    }

    fn next_generation(&self) -> u64 {
        self.generations_count.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The context of a call that no client made.
fn internal_context(purpose: &str, wall: Duration) -> CallContext {
    let request_id: Arc<str> = format!("{purpose}-{}", Uuid::now_v7()).into();
    CallContext {
        caller: None,
        correlation_id: request_id.clone(),
        request_id,
        client_address: None,
        user_agent: None,
        trace_parent: None,
        idempotency_key: None,
        event_id: None,
        deadline: Instant::now() + wall,
    }
}
