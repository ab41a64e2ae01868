//! Which versions there are and which one is live: the activation gate, publication, drain and rollback.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::artifact::Artifact;
use super::call::{self, Frame, Stats, StatsView};
use super::catalogue::{Call, Catalogue, Export, Generation, Subscription};
use super::engine::EngineError;
use super::linking::{self, Role, role_of};
use super::long_calls::Asker;
use super::manifest::{Manifest, Route};
use super::pool::Pool;
use super::versions::{HistoryEntry, VersionStore};
use super::{CallError, Runtime, internal_context};
use crate::capabilities::sql::migration;
use crate::contract::codec::{Encoded, EventCodec, ReplyCodec, RequestCodec, Source};
use crate::contract::compat;
use crate::contract::secrets::undeclared;
use crate::contract::wit::{Contract, Interface};
use crate::limits;
use crate::names::ServiceName;

/// Why a version is not accepted. Nothing has changed.
#[derive(Debug, Clone, thiserror::Error, serde::Serialize)]
#[error("{}: {}", .gate.as_str(), .reasons.join("; "))]
pub struct Refusal {
    pub gate: Gate,
    pub reasons: Vec<String>,
}

/// The steps of the activation gate, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    Component,
    Manifest,
    Version,
    Imports,
    Bindings,
    Compatibility,
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
            Gate::Migrations => "migrations",
            Gate::Compilation => "compilation",
            Gate::Instantiation => "instantiation",
            Gate::Probe => "probe",
        }
    }

    fn refuses(self, reasons: Vec<String>) -> Refusal {
        Refusal { gate: self, reasons }
    }
}

/// A version that passed and waits to be activated.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Staged {
    pub service: String,
    pub version: String,
    /// Of the packed file.
    pub sha256: String,
    /// Of the component in it, as the compiler left it.
    pub component_sha256: String,
    pub plan: Plan,
}

impl Staged {
    fn of(artifact: &Artifact, version: String, plan: Plan) -> Self {
        let (sha256, component_sha256) = (artifact.sha256.clone(), artifact.component_sha256.clone());
        Self { service: artifact.manifest.service().to_string(), version, sha256, component_sha256, plan }
    }
}

/// What activating it would do.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Plan {
    /// The version that is live now.
    pub replaces: Option<String>,
    /// Migrations that would be applied.
    pub migrations: Vec<String>,
    pub routes: Vec<String>,
    pub imports: Vec<String>,
    pub subscriptions: Vec<String>,
}

#[derive(Debug, Clone, serde::Serialize)]
pub struct Activation {
    pub service: String,
    pub version: String,
    pub generation: u64,
    pub replaced: Option<String>,
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
    #[error("version {0} is live; activate another one first")]
    VersionIsLive(String),
    #[error("the folder of versions: {0}")]
    Store(#[from] std::io::Error),
}

/// How far the gate goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// Everything that changes nothing.
    Look,
    /// Migrations and the probe too.
    Prepare,
}

/// One service for the operator.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ServiceView {
    pub name: String,
    /// `live`, or `off` where no version could be started.
    pub state: &'static str,
    pub active: Option<String>,
    /// Of the packed file that is live.
    pub sha256: Option<String>,
    /// Of the component in it, as the compiler left it.
    pub component_sha256: Option<String>,
    pub generation: Option<u64>,
    pub versions: Vec<String>,
    pub traffic: StatsView,
    pub instances: u32,
    pub instances_made: u64,
    pub memory_bytes: usize,
    pub calls_running: usize,
    pub routes: Vec<String>,
    pub grants: Vec<String>,
}

impl Runtime {
    /// Which service a packed file is a version of.
    pub async fn service_of(&self, bytes: Vec<u8>) -> Result<ServiceName, SwapError> {
        Ok(read(bytes).await?.manifest.service())
    }

    /// Checks a packed file without keeping or changing anything.
    pub async fn look(&self, bytes: Vec<u8>) -> Result<Staged, SwapError> {
        let artifact = read(bytes).await?;
        let (generation, plan) = self.pass_gate(&artifact, &artifact.manifest.version, Depth::Look).await?;
        Ok(Staged::of(&artifact, generation.version.clone(), plan))
    }

    /// Checks a packed file and keeps it as a version that can be activated.
    pub async fn stage(&self, bytes: Vec<u8>) -> Result<Staged, SwapError> {
        let artifact = read(bytes).await?;
        let service = artifact.manifest.service();
        let mut versions = self.versions.lock().await;
        let version = self.version_name(&versions, &service, &artifact)?;
        let (_, plan) = self.pass_gate(&artifact, &version, Depth::Look).await?;
        versions.keep(&service, &version, artifact.clone())?;
        Ok(Staged::of(&artifact, version, plan))
    }

    /// Makes a kept version live: new requests reach it, requests that began before end where they began.
    pub async fn activate(&self, service: &ServiceName, version: &str) -> Result<Activation, SwapError> {
        let mut versions = self.versions.lock().await;
        self.activate_locked(&mut versions, service, version, "activate").await
    }

    /// Keeps and activates in one step.
    pub async fn deploy(&self, bytes: Vec<u8>) -> Result<Activation, SwapError> {
        let staged = self.stage(bytes).await?;
        let service = ServiceName::parse(&staged.service).expect("a staged service has a name");
        self.activate(&service, &staged.version).await
    }

    /// Deploys a packed file unless its very bytes are live; also the base for the next start.
    pub async fn deploy_if_changed(&self, bytes: Vec<u8>) -> Result<Option<Activation>, SwapError> {
        let artifact = read(bytes.clone()).await?;
        let service = artifact.manifest.service();
        if self.pin().generation(service.as_str()).is_some_and(|live| live.artifact.sha256 == artifact.sha256) {
            return Ok(None);
        }
        let activation = self.deploy(bytes).await?;
        self.versions.lock().await.set_base(&service, &artifact.sha256)?;
        Ok(Some(activation))
    }

    /// Goes back to the version that was live before the one that is.
    pub async fn rollback(&self, service: &ServiceName) -> Result<Activation, SwapError> {
        let mut versions = self.versions.lock().await;
        let previous = versions.previous(service).ok_or_else(|| SwapError::NothingToRollBack(service.to_string()))?;
        self.activate_locked(&mut versions, service, &previous, "rollback").await
    }

    pub async fn history(&self, service: &ServiceName) -> Result<Vec<HistoryEntry>, SwapError> {
        self.versions.lock().await.history(service).ok_or_else(|| SwapError::NoSuchService(service.to_string()))
    }

    pub async fn remove_version(&self, service: &ServiceName, version: &str) -> Result<(), SwapError> {
        let mut versions = self.versions.lock().await;
        if self.pin().generation(service.as_str()).is_some_and(|live| live.version == version) {
            return Err(SwapError::VersionIsLive(version.to_owned()));
        }
        self.known_version(&versions, service, version)?;
        Ok(versions.remove(service, version)?)
    }

    pub async fn views(&self) -> Vec<ServiceView> {
        let versions = self.versions.lock().await;
        let catalogue = self.pin();
        versions.services().into_iter().map(|service| view(&service, &versions, catalogue.generation(service.as_str()))).collect()
    }

    /// Brings up the services at the start of the host: from `folder` (packed files) and from what operators activated before. A file
    /// that changed since the operator's last activation goes over it. One that is refused is left out, and its reasons returned.
    pub async fn start_services(&self, folder: &Path) -> std::io::Result<Vec<(PathBuf, SwapError)>> {
        let mut refused = Vec::new();
        let mut files: Vec<PathBuf> = match std::fs::read_dir(folder) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        files.retain(|path| path.extension().is_some_and(|extension| extension == "wasm"));
        files.sort();
        let mut started = Vec::new();
        for path in files {
            match self.start_file(std::fs::read(&path)?).await {
                Ok(service) => started.push(service),
                Err(error) => refused.push((path, error)),
            }
        }
        let kept_only: Vec<(ServiceName, String)> = {
            let versions = self.versions.lock().await;
            let others = versions.services().into_iter().filter(|service| !started.contains(service));
            others.filter_map(|service| Some((service.clone(), versions.active(&service)?))).collect()
        };
        for (service, version) in kept_only {
            let mut versions = self.versions.lock().await;
            if let Err(error) = self.activate_locked(&mut versions, &service, &version, "start").await {
                refused.push((PathBuf::from(format!("{service} {version}")), error));
            }
        }
        Ok(refused)
    }

    async fn start_file(&self, bytes: Vec<u8>) -> Result<ServiceName, SwapError> {
        let artifact = read(bytes).await?;
        let service = artifact.manifest.service();
        let mut versions = self.versions.lock().await;
        let operators_choice = versions.active(&service).filter(|_| versions.base_sha256(&service) == Some(artifact.sha256.as_str()));
        if let Some(version) = operators_choice {
            match self.activate_locked(&mut versions, &service, &version, "start").await {
                Ok(_) => return Ok(service),
                Err(error) => {
                    tracing::error!(%service, version, %error, "the version that was live does not start; the packed file is tried")
                }
            }
        }
        let version = self.version_name(&versions, &service, &artifact)?;
        versions.keep(&service, &version, artifact.clone())?;
        versions.set_base(&service, &artifact.sha256)?;
        self.activate_locked(&mut versions, &service, &version, "start").await?;
        Ok(service)
    }

    async fn activate_locked(
        &self,
        versions: &mut VersionStore,
        service: &ServiceName,
        version: &str,
        action: &'static str,
    ) -> Result<Activation, SwapError> {
        let artifact = self.known_version(versions, service, version)?;
        let (generation, _) = self.pass_gate(&artifact, version, Depth::Prepare).await?;
        let before = self.pin();
        let old = before.generation(service.as_str()).cloned();
        let catalogue = before.with(generation.clone()).map_err(|reasons| Gate::Compatibility.refuses(reasons))?;
        versions.record(service, version, action)?;
        // Publish before draining: a caller must always find a generation.
        self.catalogue.store(Arc::new(catalogue));
        self.follow_topics(&generation).await;
        let replaced = old.as_ref().map(|old| old.version.clone());
        if let Some(old) = old {
            tokio::spawn(drain(old));
        }
        tracing::info!(%service, version, generation = generation.number, replaced, action, "live");
        Ok(Activation { service: service.to_string(), version: version.to_owned(), generation: generation.number, replaced })
    }

    fn known_version(&self, versions: &VersionStore, service: &ServiceName, version: &str) -> Result<Arc<Artifact>, SwapError> {
        versions.artifact(service, version).ok_or_else(|| match versions.names(service) {
            known if known.is_empty() => SwapError::NoSuchService(service.to_string()),
            known => SwapError::NoSuchVersion { service: service.to_string(), version: version.to_owned(), known },
        })
    }

    /// The manifest's version. Other bytes under a version that is there already: refused, but in development mode, where sources change
    /// faster than versions, told apart by the hash.
    fn version_name(&self, versions: &VersionStore, service: &ServiceName, artifact: &Artifact) -> Result<String, SwapError> {
        let version = &artifact.manifest.version;
        match versions.artifact(service, version) {
            Some(kept) if kept.sha256 != artifact.sha256 && self.dev_mode => Ok(format!("{version}+{}", &artifact.sha256[..8])),
            Some(kept) if kept.sha256 != artifact.sha256 => {
                let reason =
                    format!("version {version} of {service} is there already with other bytes; give this one a version of its own");
                Err(Gate::Version.refuses(vec![reason]).into())
            }
            _ => Ok(version.clone()),
        }
    }

    /// The activation gate. Each step's refusal says which step and why.
    async fn pass_gate(&self, artifact: &Arc<Artifact>, version: &str, depth: Depth) -> Result<(Arc<Generation>, Plan), Refusal> {
        let manifest = &artifact.manifest;
        let service = manifest.service();
        let contract = Contract::decode(&artifact.bytes, Some(&artifact.wit_text))
            .map_err(|error| Gate::Component.refuses(vec![error.to_string()]))?;

        let unknown: Vec<String> = contract
            .imports()
            .iter()
            .filter(|import| role_of(import) == Role::Unknown)
            .map(|import| format!("it imports {}, which this host does not have", import.id))
            .collect();
        let ungranted = self.permissions.refusals(&service, &contract, &[]);
        if !unknown.is_empty() || !ungranted.is_empty() {
            return Err(Gate::Imports.refuses(unknown.into_iter().chain(ungranted).collect()));
        }

        let parts = Parts::bind(manifest, &contract, &service).map_err(|reasons| Gate::Bindings.refuses(reasons))?;

        let live = self.pin().generation(service.as_str()).cloned();
        if let Some(live) = &live {
            let unfit: Vec<String> = compat::check_exports(&live.contract, &contract).iter().map(ToString::to_string).collect();
            if !unfit.is_empty() {
                return Err(Gate::Compatibility.refuses(unfit));
            }
        }

        let powers = self.powers.powers(&service, &manifest.config).await.map_err(|reason| Gate::Migrations.refuses(vec![reason]))?;
        // Those of the other dialect too: a version that one host takes is one that all take.
        migration::check(&artifact.migrations).map_err(|reasons| Gate::Migrations.refuses(reasons))?;
        let migrations: Vec<_> = artifact.migrations.iter().filter(|step| step.dialect == self.powers.dialect()).cloned().collect();
        let applied = match depth {
            Depth::Look => powers.database.pending(&migrations).await,
            Depth::Prepare => powers.database.migrate(&migrations).await,
        };
        let applied = applied.map_err(|error| Gate::Migrations.refuses(vec![error.to_string()]))?;

        let component = {
            let (engine, artifact) = (self.engine.clone(), artifact.clone());
            tokio::task::spawn_blocking(move || engine.compile(&artifact.bytes, &artifact.sha256))
                .await
                .unwrap_or_else(|error| Err(EngineError::Compile(error.to_string())))
                .map_err(|error| Gate::Compilation.refuses(vec![error.to_string()]))?
        };

        let fails = |error: wasmtime::Error| Gate::Instantiation.refuses(vec![format!("{error:#}")]);
        let linker = linking::linker(self.engine.wasmtime(), &service, &contract).map_err(fails)?;
        let instance = linker.instantiate_pre(&component).map_err(fails)?;
        let mut indices = Vec::new();
        for export in &parts.exports {
            let interface = component.get_export_index(None, &export.interface);
            let function = interface.and_then(|interface| component.get_export_index(Some(&interface), &export.name));
            indices.push(
                function.ok_or_else(|| Gate::Bindings.refuses(vec![format!("{} {} is not exported", export.interface, export.name)]))?,
            );
        }
        let plan = Plan {
            replaces: live.map(|live| live.version.clone()),
            migrations: applied,
            routes: parts.routes.iter().map(|(route, _)| format!("{} {}", route.method(), route.full_path(&manifest.prefix))).collect(),
            imports: contract.imports().iter().map(|import| import.id.clone()).collect(),
            subscriptions: parts.topics.keys().cloned().collect(),
        };
        let generation = Arc::new(Generation {
            pool: Pool::new(service.clone(), instance, indices, powers, manifest.pushes.clone().into(), manifest.limits.clone()),
            service,
            version: version.to_owned(),
            number: self.next_generation(),
            artifact: artifact.clone(),
            contract,
            exports: parts.exports,
            api: parts.api,
            calls: parts.calls,
            routes: parts.routes,
            sockets: parts.sockets,
            schedules: parts.schedules,
            topics: parts.topics,
            stats: Stats::default(),
        });

        // The routes, frames and types of all services together.
        let catalogue = self.pin().with(generation.clone()).map_err(|reasons| Gate::Compatibility.refuses(reasons))?;

        // The first instance stays, so that the first call finds a warm one.
        let first = generation.pool.make(internal_context("gate", generation.pool.limits().wall).into()).await.map_err(fails)?;
        generation.pool.put_back(first);
        if let (Depth::Prepare, Some((probe, reply))) = (depth, parts.probe) {
            self.probe(&generation, probe, &reply, Arc::new(catalogue)).await.map_err(|reason| Gate::Probe.refuses(vec![reason]))?;
        }
        Ok((generation, plan))
    }

    async fn probe(
        &self,
        generation: &Arc<Generation>,
        export: usize,
        reply: &ReplyCodec,
        catalogue: Arc<Catalogue>,
    ) -> Result<(), String> {
        let frame = Frame::root(catalogue, generation.service.clone());
        let context = internal_context("probe", generation.pool.limits().wall);
        match call::run_root(&self.long_calls, Asker::Host, generation.clone(), export, Vec::new(), frame, context.into()).await {
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

async fn read(bytes: Vec<u8>) -> Result<Arc<Artifact>, Refusal> {
    // Hashing and parsing megabytes takes milliseconds.
    let artifact = tokio::task::spawn_blocking(move || Artifact::read(bytes))
        .await
        .map_err(|error| Gate::Component.refuses(vec![error.to_string()]))?;
    artifact.map(Arc::new).map_err(|error| {
        let gate = if error.is_about_the_manifest() { Gate::Manifest } else { Gate::Component };
        gate.refuses(vec![error.to_string()])
    })
}

/// Ends the old generation: no warm instances any more, and its running calls have until their deadlines.
async fn drain(old: Arc<Generation>) {
    old.pool.retire();
    let until = Instant::now() + Duration::from_millis(limits::SWAP_DRAIN_MS);
    while old.stats.in_flight() > 0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(limits::EPOCH_TICK_MS)).await;
    }
    match old.stats.in_flight() {
        0 => tracing::debug!(service = %old.service, generation = old.number, "drained"),
        running => tracing::warn!(service = %old.service, generation = old.number, running, "still has calls; they end by their deadlines"),
    }
}

fn view(service: &ServiceName, versions: &VersionStore, live: Option<&Arc<Generation>>) -> ServiceView {
    ServiceView {
        name: service.to_string(),
        state: if live.is_some() { "live" } else { "off" },
        active: live.map(|live| live.version.clone()),
        sha256: live.map(|live| live.artifact.sha256.clone()),
        component_sha256: live.map(|live| live.artifact.component_sha256.clone()),
        generation: live.map(|live| live.number),
        versions: versions.names(service),
        traffic: live.map(|live| live.stats.view()).unwrap_or_default(),
        instances: live.map_or(0, |live| live.pool.live_count()),
        instances_made: live.map_or(0, |live| live.pool.made_count()),
        memory_bytes: live.map_or(0, |live| live.pool.idle_memory_bytes()),
        calls_running: live.map_or(0, |live| live.pool.calls_running()),
        routes: live.map_or_else(Vec::new, |live| {
            live.routes.iter().map(|(route, _)| format!("{} {}", route.method(), route.full_path(&live.artifact.manifest.prefix))).collect()
        }),
        grants: live.map_or_else(Vec::new, |live| live.contract.imports().iter().map(|import| import.id.clone()).collect()),
    }
}

/// A manifest's bindings, each found in the contract and its codecs compiled.
struct Parts {
    exports: Vec<Export>,
    api: HashMap<String, usize>,
    calls: Vec<Call>,
    routes: Vec<(Arc<Route>, usize)>,
    sockets: Vec<(super::manifest::Socket, usize)>,
    schedules: Vec<(super::manifest::Schedule, usize)>,
    topics: HashMap<String, Subscription>,
    probe: Option<(usize, ReplyCodec)>,
}

impl Parts {
    /// Errors: every binding that names no exported function, or one of the wrong shape.
    fn bind(manifest: &Manifest, contract: &Contract, service: &ServiceName) -> Result<Self, Vec<String>> {
        let mut reasons = Vec::new();
        let mut parts = Parts {
            exports: Vec::new(),
            api: HashMap::new(),
            calls: Vec::new(),
            routes: Vec::new(),
            sockets: Vec::new(),
            schedules: Vec::new(),
            topics: HashMap::new(),
            probe: None,
        };
        let api = contract.exports().iter().find(|export| role_of(export) == Role::ServiceApi && export.package == service.as_str());
        let Some(api) = api else {
            return Err(vec![format!("it does not export echo:{service}/api")]);
        };
        for function in &api.functions {
            parts.api.insert(function.name.clone(), parts.exports.len());
            parts.exports.push(Export::new(&api.id, &function.name));
        }
        parts.bind_topics(manifest, contract, &mut reasons);
        for route in &manifest.routes {
            let source = if matches!(route.method(), "GET" | "DELETE") { Source::Query } else { Source::Body };
            let flag = route.status_unless.as_ref().map(|unless| unless.field.as_str());
            match parts.bind_call(api, &route.call, &route.variables(), source, flag) {
                Ok(call) => {
                    if route.secret_answer.is_none() && route.keeps_answers() {
                        reasons.extend(api.function(&route.call).and_then(|function| undeclared(&route.http, function)));
                    }
                    parts.routes.push((Arc::new(route.clone()), call));
                }
                Err(reason) => reasons.push(format!("route {:?}: {reason}", route.http)),
            }
        }
        for socket in &manifest.sockets {
            match parts.bind_call(api, &socket.call, &[], Source::Json, None) {
                Ok(call) => parts.sockets.push((socket.clone(), call)),
                Err(reason) => reasons.push(format!("socket {:?}: {reason}", socket.event)),
            }
        }
        for schedule in &manifest.schedules {
            match parts.without_parameters(api, &schedule.call) {
                Ok((export, _)) => parts.schedules.push((schedule.clone(), export)),
                Err(reason) => reasons.push(format!("schedule: {reason}")),
            }
        }
        if let Some(probe) = &manifest.probe {
            match parts.without_parameters(api, probe) {
                Ok(found) => parts.probe = Some(found),
                Err(reason) => reasons.push(format!("probe: {reason}")),
            }
        }
        if reasons.is_empty() { Ok(parts) } else { Err(reasons) }
    }

    fn bind_call(&mut self, api: &Interface, name: &str, variables: &[&str], source: Source, flag: Option<&str>) -> Result<usize, String> {
        let function = api.function(name).ok_or_else(|| format!("{} has no function {name}", api.id))?;
        let request = RequestCodec::compile(function, variables, source).map_err(|error| error.to_string())?;
        let reply = ReplyCodec::compile(function, flag).map_err(|error| error.to_string())?;
        self.calls.push(Call { export: self.api[name], request, reply });
        Ok(self.calls.len() - 1)
    }

    fn without_parameters(&self, api: &Interface, name: &str) -> Result<(usize, ReplyCodec), String> {
        let function = api.function(name).ok_or_else(|| format!("{} has no function {name}", api.id))?;
        if !function.params.is_empty() {
            return Err(format!("{name} takes a parameter, and the host has none to give"));
        }
        Ok((self.api[name], ReplyCodec::compile(function, None).map_err(|error| error.to_string())?))
    }

    /// A topic for every function of the exported `events` interfaces, or for those that the manifest wants.
    fn bind_topics(&mut self, manifest: &Manifest, contract: &Contract, reasons: &mut Vec<String>) {
        let mut offered: BTreeMap<String, Subscription> = BTreeMap::new();
        for interface in contract.exports().iter().filter(|export| role_of(export) == Role::ServiceEvents) {
            for function in &interface.functions {
                match EventCodec::compile(function).and_then(|codec| Ok((codec, ReplyCodec::compile(function, None)?))) {
                    Ok((codec, reply)) => {
                        let topic = format!("{}.{}", interface.package, function.name);
                        offered.insert(topic, Subscription { export: self.exports.len(), codec, reply });
                    }
                    Err(error) => reasons.push(format!("{} {}: {error}", interface.id, function.name)),
                }
                self.exports.push(Export::new(&interface.id, &function.name));
            }
        }
        match &manifest.events.subscribe {
            None => self.topics.extend(offered),
            Some(wanted) => {
                for topic in wanted {
                    match offered.remove(topic) {
                        Some(subscription) => drop(self.topics.insert(topic.clone(), subscription)),
                        None => reasons.push(format!("events.subscribe names {topic}, and no exported events interface has it")),
                    }
                }
            }
        }
    }
}
