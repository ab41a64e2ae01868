//! Which version of a service is live: deployment, publication, drain and rollback.
//!
//! A deployment holds its service's gate from its first check to its publication; nothing else waits for it. Reads use
//! snapshots, and a rollback needs neither the gate nor the database, so it is possible while a deployment is stuck.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Runtime;
use super::artifact::Artifact;
use super::catalogue::{Generation, Unfit};
use super::gate::{Candidate, Purpose, read, refuse_unfit};
pub use super::gate::{Decisions, Gate, Plan, Refusal, SwapError};
use super::versions::{HistoryEntry, Versions};
pub use super::views::ServiceView;
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::sql::MigrateError;
use echo_capabilities::versions::StoreError;
use echo_contract::codec::ReplyCodec;
use echo_contract::compat;

/// In the place of a version's name: the one that runs.
pub const LIVE: &str = "live";

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

#[derive(Debug, Clone, serde::Serialize)]
pub struct Activation {
    pub service: String,
    pub version: String,
    pub generation: u64,
    pub replaced: Option<String>,
    /// For a rollback: what clients and dependents could use before and cannot now, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loses: Vec<String>,
    /// The operator forced it although live dependents do not fit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
}

/// What a decision rests on; where that has changed meanwhile, another decision was quicker.
#[derive(Clone, Copy)]
pub(super) struct Basis {
    /// The generation that is live here.
    live: Option<u64>,
    /// Of the service's state.
    state_revision: i64,
    /// Under which it is made, where hosts share versions.
    rollout: Option<Uuid>,
}

impl Runtime {
    fn basis(&self, service: &ServiceName, versions: &Versions, rollout: Option<Uuid>) -> Basis {
        let live = self.pin().generation(service.as_str()).map(|live| live.number());
        Basis { live, state_revision: versions.state_revision(), rollout }
    }

    /// Which service a packed file is a version of.
    pub async fn service_of(&self, bytes: Vec<u8>) -> Result<ServiceName, SwapError> {
        Ok(read(bytes).await?.manifest.service())
    }

    /// Checks a packed file without keeping or changing anything.
    pub async fn dry_run(&self, bytes: Vec<u8>, decisions: &Decisions) -> Result<Staged, SwapError> {
        let artifact = read(bytes).await?;
        let version = artifact.manifest.version.clone();
        let outcome = self.pass_gate(&artifact, &version, Purpose::DryRun, decisions).await;
        self.forget_code(&artifact.sha256);
        Ok(Staged::of(&artifact, version, outcome?.plan))
    }

    /// Checks a packed file and keeps it as a version that can be activated.
    pub async fn stage(&self, bytes: Vec<u8>, decisions: &Decisions) -> Result<Staged, SwapError> {
        let (artifact, decisions) = (read(bytes).await?, decisions.clone());
        self.to_completion(|runtime| async move {
            let service = artifact.manifest.service();
            let _gate = runtime.gates.enter(&service).await?;
            runtime.refresh(&service).await?;
            let version = runtime.version_name(&runtime.versions.of(&service), &artifact)?;
            let outcome = runtime.pass_gate(&artifact, &version, Purpose::Deploy, &decisions).await;
            let candidate = outcome.inspect_err(|_| runtime.forget_code(&artifact.sha256))?;
            runtime.keep(&service, &version, &artifact).await?;
            Ok(Staged::of(&artifact, version, candidate.plan))
        })
        .await
    }

    /// Makes a kept version live: new requests reach it, requests that began before end where they began. One that was live before
    /// is activated as by a rollback.
    pub async fn activate(&self, service: &ServiceName, version: &str, decisions: &Decisions) -> Result<Activation, SwapError> {
        self.refresh(service).await?;
        let versions = self.versions.of(service);
        let artifact = known_version(&versions, service, version)?;
        let basis = self.basis(service, &versions, None);
        if versions.was_live(version) && basis.live.is_some() {
            let entry = HistoryEntry { operator: decisions.operator.clone(), ..entry(version, "activate", None) };
            return self.activate_earlier(service, artifact, entry, None, basis, decisions.force).await;
        }
        let (service, version, decisions) = (service.clone(), version.to_owned(), decisions.clone());
        self.to_completion(|runtime| async move {
            let _gate = runtime.gates.enter(&service).await?;
            runtime.activate_new(&service, &version, "activate", &decisions).await
        })
        .await
    }

    /// Keeps and activates in one step.
    pub async fn deploy(&self, bytes: Vec<u8>, decisions: &Decisions) -> Result<Activation, SwapError> {
        let staged = self.stage(bytes, decisions).await?;
        let service = ServiceName::parse(&staged.service).expect("a staged service has a name");
        self.activate(&service, &staged.version, decisions).await
    }

    /// Deploys a packed file unless its very bytes are live, or were rolled away from; also the base for the next start. In development
    /// mode all its changes count as confirmed.
    pub async fn deploy_if_changed(&self, bytes: Vec<u8>) -> Result<Option<Activation>, SwapError> {
        let artifact = read(bytes.clone()).await?;
        let service = artifact.manifest.service();
        if self.pin().generation(service.as_str()).is_some_and(|live| live.artifact.sha256 == artifact.sha256) {
            return Ok(None);
        }
        if let Some(reason) = self.versions.of(&service).bad_reason(&artifact.sha256) {
            tracing::warn!(%service, reason, "this file was rolled away from and is not deployed again by itself");
            return Ok(None);
        }
        let decisions = Decisions { allow_all: self.dev_mode, ..Decisions::default() };
        let activation = self.deploy(bytes, &decisions).await?;
        self.versions.set_base(&service, &artifact.sha256).await?;
        Ok(Some(activation))
    }

    /// Activates the last good version: the one that was live last and was not rolled away from itself. The version that is live now is
    /// marked, so that no rollback leads to it again. Of the decisions, `force` and `operator` count.
    pub async fn rollback(&self, service: &ServiceName, decisions: &Decisions) -> Result<Activation, SwapError> {
        if self.versions.find(service).is_none() {
            return Err(SwapError::NoSuchService(service.to_string()));
        }
        self.roll_back(service, "rollback", "an operator rolled it back", decisions, None).await
    }

    /// `reason`: why the version that is live now is bad. `only`: the generation to roll back from; if another one is live by then, nothing
    /// changes.
    pub(super) async fn roll_back(
        &self,
        service: &ServiceName,
        action: &str,
        reason: &str,
        decisions: &Decisions,
        only: Option<u64>,
    ) -> Result<Activation, SwapError> {
        let live = self.pin().generation(service.as_str()).map(|live| live.number());
        if only.is_some() && live != only {
            return Err(SwapError::Overtaken(service.to_string()));
        }
        self.refresh(service).await?;
        let versions = self.versions.of(service);
        if only.is_some() && versions.active() != self.pin().generation(service.as_str()).map(|live| live.version.as_str()) {
            // Another host was quicker.
            return Err(SwapError::Overtaken(service.to_string()));
        }
        let last_good = versions.last_good().ok_or_else(|| SwapError::NothingToRollBack(service.to_string()))?;
        let artifact = known_version(&versions, service, &last_good)?;
        let bad = versions.active().map(str::to_owned);
        let basis = Basis { live, ..self.basis(service, &versions, None) };
        let entry = HistoryEntry { operator: decisions.operator.clone(), ..entry(&last_good, action, Some(reason)) };
        self.activate_earlier(service, artifact, entry, bad, basis, decisions.force).await
    }

    pub fn history(&self, service: &ServiceName) -> Result<Vec<HistoryEntry>, SwapError> {
        let versions = self.versions.find(service).ok_or_else(|| SwapError::NoSuchService(service.to_string()))?;
        Ok(versions.history().to_vec())
    }

    /// A kept version as it was packed; `LIVE` for the one that runs here.
    pub async fn packed(&self, service: &ServiceName, version: &str) -> Result<Arc<Artifact>, SwapError> {
        if version == LIVE {
            let live = self.pin().generation(service.as_str()).map(|live| live.artifact.clone());
            return live.ok_or_else(|| SwapError::NoSuchService(service.to_string()));
        }
        self.refresh(service).await?;
        known_version(&self.versions.of(service), service, version)
    }

    pub async fn remove_version(&self, service: &ServiceName, version: &str) -> Result<(), SwapError> {
        self.refresh(service).await?;
        // Held while a version is published, so that a version that becomes live meanwhile is not removed.
        let _publishing = self.publishing.lock().await;
        let versions = self.versions.of(service);
        let is_live = self.pin().generation(service.as_str()).is_some_and(|live| live.version == version);
        // Also one that is live on other hosts alone.
        if is_live || self.versions.rollouts().is_some() && versions.active() == Some(version) {
            return Err(SwapError::VersionIsLive(version.to_owned()));
        }
        let artifact = known_version(&versions, service, version)?;
        self.versions.remove(service, version).await?;
        self.forget_code(&artifact.sha256);
        Ok(())
    }

    /// Starts the services at the start of the host: from `folder` (packed files) and from what operators activated before. A file
    /// that changed since the operator's last activation replaces it. A file that is refused is left out, and its reasons are returned.
    pub async fn start_services(&self, folder: &Path) -> std::io::Result<Vec<(PathBuf, SwapError)>> {
        let refused = self.start_all(folder).await;
        self.has_started.store(true, Ordering::Release);
        refused
    }

    async fn start_all(&self, folder: &Path) -> std::io::Result<Vec<(PathBuf, SwapError)>> {
        let mut refused = Vec::new();
        let mut files: Vec<PathBuf> = match std::fs::read_dir(folder) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        files.retain(|path| path.extension().is_some_and(|extension| extension == "wasm"));
        files.sort();
        let mut started = Vec::new();
        if self.versions.rollouts().is_some() {
            return self.start_shared(files).await;
        }
        for path in files {
            match self.start_file(std::fs::read(&path)?).await {
                Ok(service) => started.push(service),
                Err(error) => refused.push((path, error)),
            }
        }
        for (service, versions) in self.versions.services() {
            let Some(version) = versions.active().filter(|_| !started.contains(&service)) else { continue };
            if let Err(error) = self.activate_new(&service, version, "start", &Decisions::default()).await {
                refused.push((PathBuf::from(format!("{service} {version}")), error));
            }
        }
        // Removes code of an earlier engine, and files that an interrupted host left.
        self.engine.keep_code(&self.versions.files());
        Ok(refused)
    }

    async fn start_file(&self, bytes: Vec<u8>) -> Result<ServiceName, SwapError> {
        let artifact = read(bytes).await?;
        let service = artifact.manifest.service();
        let versions = self.versions.of(&service);
        let operators_choice = versions.active().filter(|_| versions.base_sha256() == Some(artifact.sha256.as_str()));
        if let Some(version) = operators_choice {
            match self.activate_new(&service, version, "start", &Decisions::default()).await {
                Ok(_) => return Ok(service),
                Err(error) => {
                    tracing::error!(%service, version, %error, "the version that was live does not start; the packed file is tried")
                }
            }
        }
        let version = self.version_name(&versions, &artifact)?;
        self.keep(&service, &version, &artifact).await?;
        self.activate_new(&service, &version, "start", &Decisions::default()).await?;
        self.versions.set_base(&service, &artifact.sha256).await?;
        Ok(service)
    }

    /// Runs to completion even if the caller goes away: what was begun is then published or undone.
    pub(super) async fn to_completion<T, F>(&self, work: impl FnOnce(Arc<Runtime>) -> F) -> Result<T, SwapError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, SwapError>> + Send + 'static,
    {
        let runtime = self.myself.upgrade().expect("it is borrowed here, so it is there");
        tokio::spawn(work(runtime)).await.unwrap_or_else(|error| Err(SwapError::Store(error.to_string())))
    }

    /// Checks, migrates and publishes a version that was not live before, or any at the start of the host. The caller holds the service's gate,
    /// or is alone.
    pub(super) async fn activate_new(
        &self,
        service: &ServiceName,
        version: &str,
        action: &str,
        decisions: &Decisions,
    ) -> Result<Activation, SwapError> {
        let rollout = self.begin_rollout(service).await?;
        let outcome = self.activate_within(rollout, service, entry(version, action, None), decisions).await;
        self.end_rollout(service, rollout).await;
        if outcome.is_ok() {
            self.wait_for_others(service).await;
            // After the others, so that none that still runs the version before asks for its topics again.
            self.follow_topics(service).await;
        }
        outcome
    }

    pub(super) async fn activate_within(
        &self,
        rollout: Option<Uuid>,
        service: &ServiceName,
        entry: HistoryEntry,
        decisions: &Decisions,
    ) -> Result<Activation, SwapError> {
        let versions = self.versions.of(service);
        let version = &entry.version.clone();
        let artifact = known_version(&versions, service, version)?;
        let basis = self.basis(service, &versions, rollout);
        let outcome = self.check_and_activate(&versions, &artifact, entry, decisions, basis).await;
        // A file that only lacks a confirmation is not bad.
        let is_bad = matches!(&outcome, Err(SwapError::Refused(refusal)) if refusal.gate != Gate::Confirmation);
        if is_bad && !versions.was_live(version) {
            // It is not kept, and its version number can be used again.
            self.forget(service, version, &artifact).await;
        }
        outcome
    }

    async fn check_and_activate(
        &self,
        versions: &Versions,
        artifact: &Arc<Artifact>,
        mut entry: HistoryEntry,
        decisions: &Decisions,
        basis: Basis,
    ) -> Result<Activation, SwapError> {
        let (service, version) = (&artifact.manifest.service(), &entry.version.clone());
        let refuse = |error: MigrateError| Gate::Migrations.refuses(vec![error.to_string()]);
        let Candidate { generation, plan, probe, compared_with } = self.pass_gate(artifact, version, Purpose::Deploy, decisions).await?;
        let basis = Basis { live: compared_with, ..basis };
        // Before anything of the service changes.
        self.prepare_elsewhere(service, version, basis.rollout, decisions).await?;
        entry.operator = decisions.operator.clone();
        entry.granted = decisions.grants.clone();
        entry.allowed = plan.changes.into_iter().map(|change| change.name).collect();
        let database = &generation.pool.capabilities().database;
        // Migrations of versions that were live are final, even if the host ended before it noted that.
        database.confirm_migrations(&self.migrations_of_live(versions)).await.map_err(refuse)?;
        let migrations = self.migrations_of(artifact);
        let applied = database.apply_migrations(&migrations, self.migration_time(service)).await.map_err(refuse)?;
        match self.probe_and_publish(&generation, probe, basis, entry).await {
            Ok((activation, old)) => {
                if let Err(error) = database.confirm_migrations(&applied).await {
                    tracing::warn!(%service, version, %error, "its migrations are made final with the next deployment");
                }
                retire(old);
                Ok(activation)
            }
            Err(error) if applied.is_empty() => Err(error),
            // It may be live on other hosts, with what its migrations added.
            Err(error @ SwapError::Unknown(_)) => Err(error),
            Err(error) => Err(match (database.undo_migrations().await, error) {
                (Ok(_), error) => error,
                (Err(why), SwapError::Refused(mut refusal)) => {
                    refusal
                        .reasons
                        .push(format!("what its migrations added is still there, to be taken away by the next deployment: {why}"));
                    refusal.into()
                }
                (Err(why), error) => {
                    tracing::error!(%service, version, %why, "what its migrations added is still there, to be taken away by the next deployment");
                    error
                }
            }),
        }
    }

    async fn probe_and_publish(
        &self,
        generation: &Arc<Generation>,
        probe: Option<(usize, ReplyCodec)>,
        basis: Basis,
        entry: HistoryEntry,
    ) -> Result<(Activation, Option<Arc<Generation>>), SwapError> {
        if let Some((probe, reply)) = probe {
            self.probe(generation, probe, &reply).await.map_err(|reason| Gate::Probe.refuses(vec![reason]))?;
        }
        self.publish(generation, basis, entry, None, |unfit| if unfit.is_empty() { Ok(Vec::new()) } else { Err(refuse_unfit(&unfit)) })
            .await
    }

    /// Removes a version that was refused.
    async fn forget(&self, service: &ServiceName, version: &str, artifact: &Artifact) {
        if let Err(error) = self.versions.remove(service, version).await {
            tracing::warn!(%service, version, %error, "the file of a refused version cannot be removed");
        }
        self.forget_code(&artifact.sha256);
    }

    pub(super) async fn keep(&self, service: &ServiceName, version: &str, artifact: &Arc<Artifact>) -> Result<(), SwapError> {
        let gone = self.versions.keep(service, version, artifact.clone()).await?;
        gone.iter().for_each(|sha256| self.forget_code(sha256));
        Ok(())
    }

    /// Removes compiled code, unless a kept version has it.
    pub(super) fn forget_code(&self, sha256: &str) {
        if !self.versions.has_file(sha256) {
            self.engine.forget_code(sha256);
        }
    }

    pub(super) fn migrations_of_live(&self, versions: &Versions) -> Vec<String> {
        let live = versions.names().into_iter().filter(|version| versions.was_live(version));
        let artifacts = live.filter_map(|version| versions.artifact(&version).cloned());
        let mut names: Vec<String> = artifacts.flat_map(|artifact| self.migrations_of(&artifact)).map(|step| step.name).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Activates a version that was live before; waits for no gate and no database. `bad`: the version that is rolled away from.
    async fn activate_earlier(
        &self,
        service: &ServiceName,
        artifact: Arc<Artifact>,
        entry: HistoryEntry,
        bad: Option<String>,
        basis: Basis,
        force: bool,
    ) -> Result<Activation, SwapError> {
        let Candidate { generation, .. } = self.pass_gate(&artifact, &entry.version, Purpose::Rollback, &Decisions::default()).await?;
        let mut loses = match self.pin().generation(service.as_str()) {
            Some(live) => losses(live, &generation),
            None => Vec::new(),
        };
        let reason = entry.reason.clone().unwrap_or_default();
        let bad = bad.as_deref().map(|version| (version, reason.as_str()));
        let judge = |unfit: Vec<Unfit>| {
            let (left_behind, own): (Vec<Unfit>, Vec<Unfit>) = unfit.into_iter().partition(|unfit| unfit.exporter == *service);
            loses.extend(own.iter().map(ToString::to_string));
            if left_behind.is_empty() {
                return Ok(Vec::new());
            }
            if !force {
                return Err(refuse_unfit(&left_behind));
            }
            loses.extend(left_behind.iter().map(ToString::to_string));
            Ok(left_behind)
        };
        let (mut activation, old) = self.publish(&generation, basis, entry, bad, judge).await?;
        retire(old);
        for lost in &loses {
            tracing::warn!(%service, version = activation.version, lost, "clients lose what the earlier version does not have");
        }
        activation.loses = loses;
        // Unsubscribing waits for the event that is being handled; a rollback does not wait for that long.
        if let Some(runtime) = self.myself.upgrade() {
            let service = service.clone();
            let following = tokio::spawn(async move { runtime.follow_topics(&service).await });
            // If it takes longer it continues in its task; a panic in it was logged where it happened.
            let _ = tokio::time::timeout(Duration::from_millis(limits::ROLLBACK_FOLLOW_MS), following).await;
        }
        Ok(activation)
    }

    /// Stores the pointer to the next catalogue, if the generation that was live when the gate began still is. `judge` gets what does not
    /// fit, and returns what is accepted nevertheless.
    async fn publish(
        &self,
        generation: &Arc<Generation>,
        basis: Basis,
        mut entry: HistoryEntry,
        bad: Option<(&str, &str)>,
        judge: impl FnOnce(Vec<Unfit>) -> Result<Vec<Unfit>, Refusal> + Send,
    ) -> Result<(Activation, Option<Arc<Generation>>), SwapError> {
        let _publishing = self.publishing.lock().await;
        let before = self.pin();
        let service = &generation.service;
        let old = before.generation(service.as_str()).cloned();
        if old.as_ref().map(|old| old.number()) != basis.live || self.versions.of(service).state_revision() != basis.state_revision {
            return Err(SwapError::Overtaken(service.to_string()));
        }
        let (catalogue, unfit) = before.with(generation.clone()).map_err(|reasons| Gate::Compatibility.refuses(reasons))?;
        let has_been_live = self.versions.of(service).was_live(&generation.version);
        entry.forced = !judge(unfit)?.is_empty();
        entry.replaced = old.as_ref().map(|old| old.version.clone());
        let activation = Activation {
            service: service.to_string(),
            version: generation.version.clone(),
            generation: self.next_generation(),
            replaced: entry.replaced.clone(),
            loses: Vec::new(),
            forced: entry.forced,
        };
        generation.number.store(activation.generation, Ordering::Relaxed);
        // Before the first call, so that none is missed.
        let _ = generation.live_since.set(Instant::now());
        generation.on_probation.store(entry.action == "activate" && !has_been_live && old.is_some(), Ordering::Relaxed);
        let Activation { version, generation: number, replaced, forced, .. } = &activation;
        let (action, reason) = (entry.action.clone(), entry.reason.clone());
        match self.versions.record(service, entry, bad, basis.rollout).await {
            Err(StoreError::Overtaken) => return Err(SwapError::Overtaken(service.to_string())),
            recorded => recorded?,
        }
        tracing::info!(%service, version, generation = number, replaced, forced, action, reason, "live");
        // Publish before draining: a caller must always find a generation.
        self.publish_catalogue(catalogue);
        self.generations.note(generation);
        self.backfills.replaced(old.as_ref());
        self.switched().notify_one();
        Ok((activation, old))
    }

    /// The manifest's version. Other bytes under a version that is kept already are refused; in development mode, where sources change
    /// faster than versions, the hash is added to the name.
    pub(super) fn version_name(&self, versions: &Versions, artifact: &Artifact) -> Result<String, SwapError> {
        let (service, version) = (&artifact.manifest.name, &artifact.manifest.version);
        match versions.artifact(version) {
            Some(kept) if kept.sha256 != artifact.sha256 && self.dev_mode => Ok(format!("{version}+{}", &artifact.sha256[..8])),
            Some(kept) if kept.sha256 != artifact.sha256 => {
                let reason =
                    format!("version {version} of {service} is there already with other bytes; give this one a version of its own");
                Err(Gate::Version.refuses(vec![reason]).into())
            }
            _ => Ok(version.clone()),
        }
    }
}

pub(super) fn entry(version: &str, action: &str, reason: Option<&str>) -> HistoryEntry {
    HistoryEntry { version: version.to_owned(), action: action.to_owned(), reason: reason.map(str::to_owned), ..HistoryEntry::default() }
}

pub(super) fn known_version(versions: &Versions, service: &ServiceName, version: &str) -> Result<Arc<Artifact>, SwapError> {
    versions.artifact(version).cloned().ok_or_else(|| match versions.names() {
        known if known.is_empty() => SwapError::NoSuchService(service.to_string()),
        known => SwapError::NoSuchVersion { service: service.to_string(), version: version.to_owned(), known },
    })
}

/// What clients can use of `live` and not of `next`, a sentence each.
fn losses(live: &Generation, next: &Generation) -> Vec<String> {
    let mut lost: Vec<String> = compat::check_exports(&live.contract, &next.contract).iter().map(ToString::to_string).collect();
    let routes = |generation: &Generation| -> Vec<String> {
        let prefix = &generation.artifact.manifest.prefix;
        generation.routes.iter().map(|(route, _)| format!("{} {}", route.method(), route.full_path(prefix))).collect()
    };
    let kept = routes(next);
    lost.extend(routes(live).into_iter().filter(|route| !kept.contains(route)).map(|route| format!("{route} is not there any more")));
    let frames = live.sockets.iter().filter(|(socket, _)| !next.sockets.iter().any(|(kept, _)| kept.event == socket.event));
    lost.extend(frames.map(|(socket, _)| format!("frames of type {} are not there any more", socket.event)));
    let topics = live.topics.keys().filter(|topic| !next.topics.contains_key(*topic));
    lost.extend(topics.map(|topic| format!("{} no longer subscribes to {topic}; what waits there is dropped", live.service)));
    lost
}

/// Drains the generation that was live, if there was one.
pub(super) fn retire(old: Option<Arc<Generation>>) {
    if let Some(old) = old {
        tokio::spawn(drain(old));
    }
}

/// Ends the old generation: its idle instances are dropped, and its running calls have until their deadlines.
async fn drain(old: Arc<Generation>) {
    old.pool.retire();
    let until = Instant::now() + Duration::from_millis(limits::SWAP_DRAIN_MS);
    while old.stats.in_flight() > 0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(limits::EPOCH_TICK_MS)).await;
    }
    match old.stats.in_flight() {
        0 => tracing::debug!(service = %old.service, generation = old.number(), "drained"),
        running => {
            tracing::warn!(service = %old.service, generation = old.number(), running, "still has calls; they end by their deadlines")
        }
    }
}
