//! The activation gate: finds every reason why a version cannot go live before anything has changed. A version that passes can be called.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use wasmtime::component::{Component, ComponentExportIndex};

use super::artifact::Artifact;
use super::bindings::Bindings;
use super::call::{self, CallFrame};
use super::catalogue::Export;
use super::catalogue::{Generation, Unfit};
use super::engine::{Engine, EngineError};
use super::linking::{self, Role, role_of};
use super::long_calls::Origin;
use super::loosened::{self, Change};
use super::permissions::Grant;
use super::pool::InstancePool;
use super::{CallError, Capabilities, Runtime, internal_context};
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::sql::migration;
use echo_capabilities::sql::{Database, MigrateError, Migration};
use echo_capabilities::versions::StoreError;
use echo_contract::codec::{Encoded, ReplyCodec};
use echo_contract::compat;
use echo_contract::wit::Contract;

/// Why a version is not accepted. Nothing has changed.
#[derive(Debug, Clone, thiserror::Error, serde::Serialize)]
#[error("{}: {}", .gate.as_str(), .reasons.join("; "))]
pub struct Refusal {
    pub gate: Gate,
    pub reasons: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("there is no service {0}")]
    NoSuchService(String),
    #[error("{service} has no version {version}; it has {}", .known.join(", "))]
    NoSuchVersion { service: String, version: String, known: Vec<String> },
    #[error("{0} has no earlier version to go back to")]
    NothingToRollBack(String),
    #[error("another deployment of {0} is under way and does not end; a rollback does not wait for it")]
    GateHeld(String),
    #[error("another version of {0} became live meanwhile; nothing was changed")]
    Overtaken(String),
    #[error("version {0} is live; activate another one first")]
    VersionIsLive(String),
    /// The answer of the store of versions did not come.
    #[error("whether it is live is not known: {0}; see the history")]
    Unknown(String),
    #[error("the store of versions: {0}")]
    Store(String),
}

/// The steps of the activation gate, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    Component,
    Manifest,
    Version,
    Imports,
    Bindings,
    Compatibility,
    Confirmation,
    Migrations,
    Compilation,
    Instantiation,
    Probe,
}

impl Gate {
    pub fn as_str(self) -> &'static str {
        match self {
            Gate::Component => "component",
            Gate::Manifest => "manifest",
            Gate::Version => "version",
            Gate::Imports => "imports",
            Gate::Bindings => "bindings",
            Gate::Compatibility => "compatibility",
            Gate::Confirmation => "confirmation",
            Gate::Migrations => "migrations",
            Gate::Compilation => "compilation",
            Gate::Instantiation => "instantiation",
            Gate::Probe => "probe",
        }
    }

    pub fn refuses(self, reasons: Vec<String>) -> Refusal {
        Refusal { gate: self, reasons }
    }
}

/// What the activation would do.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Plan {
    /// The version that is live now.
    pub replaces: Option<String>,
    /// Migrations that would be applied.
    pub migrations: Vec<String>,
    /// Columns that would be filled in for the rows that are there, a batch at a time while the version is live.
    pub backfills: Vec<String>,
    pub routes: Vec<String>,
    pub imports: Vec<String>,
    /// The operator's grants, of this deployment and of earlier ones; those of the permission map are not among them.
    pub grants: BTreeSet<Grant>,
    pub subscriptions: Vec<String>,
    /// Changes that take something from clients, loosen a rule or add an import; each must be confirmed by its name.
    pub changes: Vec<Change>,
    /// Decisions that decide nothing: a grant of what the component does not import, a confirmation of a change that this version does not make.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unused: Vec<String>,
}

/// The operator's options for a deployment or rollback.
#[derive(Debug, Clone, Default)]
pub struct Decisions {
    /// Names of changes that are confirmed (see `Plan::changes`).
    pub allow: BTreeSet<String>,
    /// Imports that the service is granted from now on.
    pub grants: BTreeSet<Grant>,
    /// Confirms all changes, with a line in the log for each.
    pub allow_all: bool,
    /// For a rollback: accept that live dependents do not fit the version.
    pub force: bool,
    /// Who decided, for the history.
    pub operator: Option<String>,
}

impl Decisions {
    fn unused(&self, contract: &Contract, changes: &[Change]) -> Vec<String> {
        let is_imported =
            |grant: &Grant| contract.imports().iter().any(|import| grant.covers(import.id.split('@').next().unwrap_or_default()));
        let grants = self.grants.iter().filter(|grant| !is_imported(grant));
        let grants = grants.map(|grant| format!("--grant {grant}: the component imports nothing of it"));
        let allow = self.allow.iter().filter(|name| changes.iter().all(|change| change.name != **name));
        let allow = allow.map(|name| format!("--allow {name:?}: this version makes no such change"));
        grants.chain(allow).collect()
    }
}

/// Why a version passes the gate, which decides what is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// As `Deploy`, but unconfirmed changes are only shown in the plan.
    DryRun,
    /// It must fit the running version, every dependent and the data.
    Deploy,
    /// As `Deploy`, for another host that has tried its migrations on the data that all share.
    Prepare,
    /// It was live before: its migrations are applied and its types were accepted. It must fit today's dependents.
    Rollback,
    /// That it is to be live was decided.
    Follow,
}

/// A version that can be called and is not live yet.
pub struct Candidate {
    pub generation: Arc<Generation>,
    pub plan: Plan,
    pub probe: Option<(usize, ReplyCodec)>,
    /// The live generation that it was compared with.
    pub compared_with: Option<u64>,
}

/// One lock per service: its deployments are made one at a time.
#[derive(Default)]
pub struct Gates(parking_lot::Mutex<HashMap<ServiceName, Arc<tokio::sync::Mutex<()>>>>);

impl Gates {
    /// Errors: `GateHeld` after `SWAP_GATE_WAIT_MS`.
    pub async fn enter(&self, service: &ServiceName) -> Result<OwnedMutexGuard<()>, SwapError> {
        let gate = self.0.lock().entry(service.clone()).or_default().clone();
        let wait = Duration::from_millis(limits::SWAP_GATE_WAIT_MS);
        tokio::time::timeout(wait, gate.lock_owned()).await.map_err(|_| SwapError::GateHeld(service.to_string()))
    }
}

impl From<StoreError> for SwapError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unknown(why) => SwapError::Unknown(why),
            StoreError::OtherBytes => Gate::Version.refuses(vec![error.to_string()]).into(),
            StoreError::Overtaken | StoreError::Unavailable(_) => SwapError::Store(error.to_string()),
        }
    }
}

impl Runtime {
    pub(super) fn migrations_of(&self, artifact: &Artifact) -> Vec<Migration> {
        artifact.migrations.iter().filter(|step| step.dialect == self.capabilities.dialect()).cloned().collect()
    }

    /// How long the migrations of a deployment may take: the service's writers wait meanwhile, if it is live.
    pub(super) fn migration_time(&self, service: &ServiceName) -> Duration {
        match self.pin().generation(service.as_str()) {
            Some(_) => self.migration_timeout,
            None => Duration::from_millis(limits::SQL_MIGRATION_TIMEOUT_MS),
        }
    }

    /// Runs the activation gate. Changes nothing.
    /// Errors: the step that refuses, with its reasons.
    pub(super) async fn pass_gate(
        &self,
        artifact: &Arc<Artifact>,
        version: &str,
        purpose: Purpose,
        decisions: &Decisions,
    ) -> Result<Candidate, Refusal> {
        let manifest = &artifact.manifest;
        let service = manifest.service();
        let contract = Contract::decode(&artifact.bytes, Some(&artifact.wit_text))
            .map_err(|error| Gate::Component.refuses(vec![error.to_string()]))?;

        let grants = self.check_imports(&service, &contract, decisions)?;
        let parts = Bindings::find(manifest, &contract, &service).map_err(|reasons| Gate::Bindings.refuses(reasons))?;
        let live = self.pin().generation(service.as_str()).cloned();
        let changes = match (purpose, &live) {
            (Purpose::DryRun | Purpose::Deploy | Purpose::Prepare, Some(live)) => {
                compare(live, &loosened::Version { manifest, contract: &contract }, purpose, decisions)?
            }
            _ => Vec::new(),
        };

        let capabilities = self.capabilities_for(artifact, &service).await?;
        let (pending, backfills) = match purpose {
            Purpose::DryRun | Purpose::Deploy => self.check_migrations(&service, &*capabilities.database, artifact).await?,
            Purpose::Prepare | Purpose::Rollback | Purpose::Follow => (Vec::new(), Vec::new()),
        };

        let compiled = compile(&self.engine, artifact, Duration::from_millis(limits::COMPILE_TIMEOUT_MS)).await;
        let component = compiled.map_err(|error| Gate::Compilation.refuses(vec![error.to_string()]))?;

        let fails = |error: wasmtime::Error| Gate::Instantiation.refuses(vec![format!("{error:#}")]);
        let linker = linking::linker(self.engine.wasmtime(), &service, &contract, &parts.frames).map_err(fails)?;
        let instance = linker.instantiate_pre(&component).map_err(fails)?;
        let indices = indices_of(&component, &parts)?;
        let plan = Plan {
            replaces: live.as_ref().map(|live| live.version.clone()),
            migrations: pending,
            backfills,
            routes: parts.routes.iter().map(|(route, _)| format!("{} {}", route.method(), route.full_path(&manifest.prefix))).collect(),
            grants,
            imports: contract.imports().iter().map(|import| import.id.clone()).collect(),
            subscriptions: parts.topics.keys().cloned().collect(),
            unused: decisions.unused(&contract, &changes),
            changes,
        };
        let generation = Arc::new(Generation {
            pool: InstancePool::new(service.clone(), instance, indices, capabilities, manifest.limits.clone(), manifest.grants.for_http()),
            service,
            version: version.to_owned(),
            number: AtomicU64::new(0),
            on_probation: AtomicBool::new(false),
            live_since: OnceLock::new(),
            artifact: artifact.clone(),
            contract,
            exports: parts.exports,
            api: parts.api,
            calls: parts.calls,
            routes: parts.routes,
            sockets: parts.sockets,
            schedules: parts.schedules,
            topics: parts.topics,
            stats: Arc::default(),
        });

        // Whether the routes, frames and types of all services fit together.
        let (_, unfit) = self.pin().with(generation.clone()).map_err(|reasons| Gate::Compatibility.refuses(reasons))?;
        if !matches!(purpose, Purpose::Rollback | Purpose::Follow) && !unfit.is_empty() {
            return Err(refuse_unfit(&unfit));
        }

        // Kept in the pool for the first call.
        let first = generation.pool.make(internal_context("gate", generation.pool.limits().wall).into()).await.map_err(fails)?;
        generation.pool.put_back(first);
        Ok(Candidate { generation, plan, probe: parts.probe, compared_with: live.map(|live| live.number()) })
    }

    /// Every import is one that the host has, and one that the service is granted. Gives the operator's grants.
    fn check_imports(&self, service: &ServiceName, contract: &Contract, decisions: &Decisions) -> Result<BTreeSet<Grant>, Refusal> {
        let unknown: Vec<String> = contract
            .imports()
            .iter()
            .filter(|import| role_of(import) == Role::Unknown)
            .map(|import| format!("it imports {}, which this host does not have", import.id))
            .collect();
        let mut grants = self.versions.of(service).grants().clone();
        grants.extend(decisions.grants.iter().cloned());
        let ungranted = self.permissions.refusals(service, contract, &grants);
        if unknown.is_empty() && ungranted.is_empty() {
            Ok(grants)
        } else {
            Err(Gate::Imports.refuses(unknown.into_iter().chain(ungranted).collect()))
        }
    }

    async fn capabilities_for(&self, artifact: &Artifact, service: &ServiceName) -> Result<Arc<Capabilities>, Refusal> {
        // Those of the other dialect too, so that all hosts accept the same versions.
        migration::check(&artifact.migrations).map_err(|reasons| Gate::Migrations.refuses(reasons))?;
        let opened = self.capabilities.capabilities_of(service, &artifact.manifest.config).await;
        opened.map_err(|reason| Gate::Migrations.refuses(vec![reason]))
    }

    /// The migrations and the back-fills that would be applied, the former after a trial.
    async fn check_migrations(
        &self,
        service: &ServiceName,
        database: &dyn Database,
        artifact: &Artifact,
    ) -> Result<(Vec<String>, Vec<String>), Refusal> {
        let refuses = |error: MigrateError| Gate::Migrations.refuses(vec![error.to_string()]);
        let pending = self.rehearse(service, database, &self.migrations_of(artifact)).await.map_err(refuses)?;
        let backfills = self.open_backfills(database, artifact).await;
        Ok((pending, backfills.map_err(|error| Gate::Migrations.refuses(vec![error.to_string()]))?))
    }

    /// The migrations that would be applied, after a trial on the real data.
    async fn rehearse(
        &self,
        service: &ServiceName,
        database: &dyn Database,
        migrations: &[Migration],
    ) -> Result<Vec<String>, MigrateError> {
        let pending = database.pending(migrations).await?;
        // Nothing to try, so the writer is not taken.
        if pending.is_empty() { Ok(pending) } else { database.rehearse_migrations(migrations, self.migration_time(service)).await }
    }

    /// Those that are not done yet, in words.
    async fn open_backfills(&self, database: &dyn Database, artifact: &Artifact) -> Result<Vec<String>, MigrateError> {
        let mut open = Vec::new();
        for step in self.migrations_of(artifact).iter().filter(|step| step.is_backfill()) {
            if database.backfill_progress(&step.name).await?.is_some_and(|progress| progress.is_done) {
                continue;
            }
            let refuses = |reason| MigrateError::NotAdditive { name: step.name.clone(), reason };
            let backfill = migration::Backfill::of(step, &artifact.migrations).map_err(refuses)?;
            open.push(format!("{}: {} of {}", step.name, backfill.columns.join(", "), backfill.table));
        }
        Ok(open)
    }

    /// Calls the candidate's health probe in a catalogue of its own.
    pub(super) async fn probe(&self, generation: &Arc<Generation>, export: usize, reply: &ReplyCodec) -> Result<(), String> {
        let (catalogue, _) = self.pin().with(generation.clone()).map_err(|reasons| reasons.join("; "))?;
        let frame = CallFrame::root(Arc::new(catalogue), generation.service.clone());
        let context = internal_context("probe", generation.pool.limits().wall);
        match call::run_root(&self.long_calls, Origin::Host, generation.clone(), export, Vec::new(), frame, context.into()).await {
            Ok(value) => match reply.encode(&value) {
                Ok(Encoded::Ok { .. }) => Ok(()),
                Ok(Encoded::Declined(error)) => Err(format!("its health probe answers an error: {}: {}", error.code, error.message)),
                Err(error) => Err(format!("its health probe's reply cannot be read: {error}")),
            },
            Err(CallError::Failed(reason) | CallError::TimedOut(reason)) => Err(format!("its health probe fails: {reason}")),
            Err(error) => Err(format!("its health probe fails: {error}")),
        }
    }
}

/// Off the async threads. What takes longer is left to end by itself.
async fn compile(engine: &Engine, artifact: &Arc<Artifact>, time: Duration) -> Result<Component, EngineError> {
    let (engine, artifact) = (engine.clone(), artifact.clone());
    let compiling = tokio::task::spawn_blocking(move || engine.compile(&artifact.bytes, &artifact.sha256));
    match tokio::time::timeout(time, compiling).await {
        Ok(compiled) => compiled.unwrap_or_else(|error| Err(EngineError::Compile(error.to_string()))),
        Err(_) => Err(EngineError::Compile(format!("it takes longer than {} ms", time.as_millis()))),
    }
}

pub async fn read(bytes: Vec<u8>) -> Result<Arc<Artifact>, Refusal> {
    // Hashing and parsing megabytes takes milliseconds, so not on an async thread.
    let artifact = tokio::task::spawn_blocking(move || Artifact::read(bytes))
        .await
        .map_err(|error| Gate::Component.refuses(vec![error.to_string()]))?;
    artifact.map(Arc::new).map_err(|error| {
        let gate = if error.is_about_the_manifest() { Gate::Manifest } else { Gate::Component };
        gate.refuses(vec![error.to_string()])
    })
}

/// What the version changes for its callers and its permissions, against the one that is live. Errors: types that do not fit, changes that nobody confirmed.
fn compare(live: &Generation, new: &loosened::Version<'_>, purpose: Purpose, decisions: &Decisions) -> Result<Vec<Change>, Refusal> {
    let unfit: Vec<String> = compat::check_exports(&live.contract, new.contract).iter().map(ToString::to_string).collect();
    if !unfit.is_empty() {
        return Err(Gate::Compatibility.refuses(unfit));
    }
    let running = loosened::Version { manifest: &live.artifact.manifest, contract: &live.contract };
    let mut changes = loosened::changes(&running, new, &decisions.allow);
    for change in &mut changes {
        // A grant of an import by its name confirms it.
        let import = change.name.strip_prefix("grant:");
        change.confirmed |= import.is_some_and(|import| decisions.grants.iter().any(|grant| grant.covers(import)));
    }
    if decisions.allow_all {
        changes.iter_mut().for_each(|change| change.confirmed = true);
        changes.iter().for_each(|change| tracing::info!(service = %live.service, change = change.name, change.detail, "confirmed"));
    }
    let open: Vec<String> = changes.iter().filter(|change| !change.confirmed).map(refuse_unconfirmed).collect();
    if purpose != Purpose::DryRun && !open.is_empty() {
        return Err(Gate::Confirmation.refuses(open));
    }
    Ok(changes)
}

/// Where the functions that the host calls are in the compiled component.
fn indices_of(component: &Component, parts: &Bindings) -> Result<Vec<ComponentExportIndex>, Refusal> {
    let index = |export: &Export| {
        let interface = component.get_export_index(None, &export.interface);
        let function = interface.and_then(|interface| component.get_export_index(Some(&interface), &export.name));
        function.ok_or_else(|| Gate::Bindings.refuses(vec![format!("{} {} is not exported", export.interface, export.name)]))
    };
    parts.exports.iter().map(index).collect()
}

fn refuse_unconfirmed(Change { name, detail, .. }: &Change) -> String {
    format!("{name}: {detail}; confirm it by its name (--allow {name:?})")
}

pub fn refuse_unfit(unfit: &[Unfit]) -> Refusal {
    Gate::Compatibility.refuses(unfit.iter().map(ToString::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::pack;

    #[tokio::test]
    async fn compiling_has_a_time_limit() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::start(folder.path()).unwrap();
        let packed = pack(&echo_fixture::component("location"), "name = \"location\"\nversion = \"0.1.0\"\n", "", &[]).unwrap();
        let artifact = read(packed).await.unwrap();
        let late = compile(&engine, &artifact, Duration::ZERO).await.map(drop);
        assert!(matches!(&late, Err(EngineError::Compile(reason)) if reason.contains("longer than 0 ms")), "{late:?}");
        compile(&engine, &artifact, Duration::from_secs(60)).await.expect("it is good");
    }
}
