//! One version of each service on all hosts that share them: how a deployment asks the others, and how a host follows what was decided elsewhere. Does nothing
//! where a host is alone.
//!
//! Who deploys holds the service's rollout: the others prepare the version (they check, compile and make a first instance of it), and only when all can does
//! its state change in the store. From that moment it is what is to be live, and every host makes it so, the one that deploys first. A host that dies meanwhile
//! is not waited for; when it is back it reads what is to be live.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Runtime;
use super::artifact::Artifact;
use super::catalogue::Generation;
use super::gate::{Candidate, Decisions, Gate, Purpose, Refusal, SwapError, read};
use super::manifest::parse_version;
use super::permissions::Grant;
use super::swap::{entry, known_version, retire};
use super::versions::Versions;
use echo_base::backoff::Backoff;
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::sql::MigrateError;
use echo_capabilities::versions::{Order, Said, StoreError};

/// What this host knows of rollouts.
#[derive(Default)]
pub(super) struct RolloutState {
    /// Something may have changed in the store.
    changed: Arc<Notify>,
    /// Another version is live here.
    switched: Arc<Notify>,
    /// Candidates for rollouts of other hosts that are under way.
    prepared: Mutex<HashMap<ServiceName, (Instant, Candidate)>>,
    preparing: Mutex<HashSet<Uuid>>,
    /// Services whose version could not be made live, until when that is not tried again.
    failed: Mutex<HashMap<ServiceName, (Instant, Backoff)>>,
}

/// What the host that deploys asks the others to prepare.
#[derive(serde::Serialize, serde::Deserialize)]
struct Wanted {
    version: String,
    allow: BTreeSet<String>,
    grants: BTreeSet<Grant>,
    allow_all: bool,
}

/// Why a host refuses it.
#[derive(serde::Serialize, serde::Deserialize)]
struct Refused {
    gate: Gate,
    reasons: Vec<String>,
}

impl Runtime {
    /// To be notified when another host may have changed a version; it is looked for every `VERSIONS_POLL_MS` as well.
    pub fn versions_changed(&self) -> Arc<Notify> {
        self.rollouts.changed.clone()
    }

    /// Notified when another version is live on this host.
    pub fn switched(&self) -> Arc<Notify> {
        self.rollouts.switched.clone()
    }

    /// Makes live here what was decided elsewhere, and prepares what other hosts ask for, until `shutdown`. Ends at once where there are no other hosts.
    pub async fn run_rollouts(self: Arc<Self>, shutdown: CancellationToken) {
        if self.versions.rollouts().is_none() {
            return;
        }
        let mut is_read = true;
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(limits::VERSIONS_POLL_MS)) => {}
                () = self.rollouts.changed.notified() => {}
                () = shutdown.cancelled() => return,
            }
            match self.look_for_changes().await {
                Ok(()) => is_read = true,
                Err(error) if is_read => {
                    is_read = false;
                    tracing::warn!(%error, "what is to be live cannot be read");
                }
                Err(_) => {}
            }
        }
    }

    async fn look_for_changes(self: &Arc<Self>) -> Result<(), StoreError> {
        let changed = self.versions.changed().await?;
        for service in &changed {
            self.refresh(service).await?;
        }
        // In the order in which they were decided: a later version may need an earlier one.
        let others = self.versions.services().into_iter().map(|(service, _)| service);
        for service in changed.into_iter().chain(others) {
            if self.is_due(&service) {
                self.follow_or_wait(&service).await;
            }
        }
        // Of rollouts that came to nothing.
        self.rollouts.prepared.lock().retain(|_, (since, _)| since.elapsed() < Duration::from_secs(limits::ROLLOUT_S));
        let Some(rollouts) = self.versions.rollouts() else { return Ok(()) };
        let asked = rollouts.asked().await?;
        for order in asked {
            // Compiling takes seconds; a rollback elsewhere is followed meanwhile.
            if self.rollouts.preparing.lock().insert(order.rollout) {
                tokio::spawn(self.clone().answer(order));
            }
        }
        Ok(())
    }

    pub(super) async fn refresh(&self, service: &ServiceName) -> Result<(), StoreError> {
        if self.versions.rollouts().is_none() {
            // Nobody else changes them.
            return Ok(());
        }
        let gone = self.versions.refresh(service).await?;
        gone.iter().for_each(|sha256| self.forget_code(sha256));
        Ok(())
    }

    /// Before a new version is compared with the one that all run.
    async fn catch_up(&self, service: &ServiceName) -> Result<(), StoreError> {
        self.refresh(service).await?;
        if let Err(error) = self.follow(service).await {
            // The next version may be the one that does start here.
            tracing::warn!(%service, %error, "the version that is to be live does not start here");
        }
        Ok(())
    }

    fn is_due(&self, service: &ServiceName) -> bool {
        self.rollouts.failed.lock().get(service).is_none_or(|(again_at, _)| Instant::now() >= *again_at)
    }

    async fn follow_or_wait(&self, service: &ServiceName) {
        match self.follow(service).await {
            Ok(()) => drop(self.rollouts.failed.lock().remove(service)),
            Err(error) => {
                let mut failed = self.rollouts.failed.lock();
                let fresh = || Backoff::from_ms(limits::VERSIONS_RETRY_FIRST_MS, limits::VERSIONS_RETRY_LAST_MS);
                let mut backoff = failed.get(service).map_or_else(fresh, |(_, backoff)| *backoff);
                let pause = backoff.pause();
                failed.insert(service.clone(), (Instant::now() + pause, backoff));
                tracing::error!(%service, %error, retry_ms = pause.as_millis() as u64, "the version that is to be live does not start here");
            }
        }
    }

    /// Makes live here what is to be live, unless it is.
    pub(super) async fn follow(&self, service: &ServiceName) -> Result<(), SwapError> {
        let Some((artifact, version)) = self.wanted_here(service)? else { return Ok(()) };
        let prepared = self.rollouts.prepared.lock().remove(service);
        let candidate = match prepared.filter(|(_, candidate)| candidate.generation.artifact.sha256 == artifact.sha256) {
            Some((_, candidate)) => candidate,
            None => self.pass_gate(&artifact, &version, Purpose::Follow, &Decisions::default()).await?,
        };
        if let Some(old) = self.publish_what_was_decided(&candidate.generation).await? {
            retire(old);
            self.rollouts.switched.notify_one();
            self.follow_topics(service).await;
        }
        Ok(())
    }

    /// None where it is live.
    fn wanted_here(&self, service: &ServiceName) -> Result<Option<(Arc<Artifact>, String)>, SwapError> {
        let versions = self.versions.of(service);
        let Some(version) = versions.active() else { return Ok(None) };
        let artifact = known_version(&versions, service, version)?;
        let is_live = self.pin().generation(service.as_str()).is_some_and(|live| live.artifact.sha256 == artifact.sha256);
        Ok((!is_live).then(|| (artifact, version.to_owned())))
    }

    /// Stores the pointer; nothing where another version was decided meanwhile. The generation before, if there was one.
    async fn publish_what_was_decided(&self, generation: &Arc<Generation>) -> Result<Option<Option<Arc<Generation>>>, SwapError> {
        let _publishing = self.publishing.lock().await;
        let service = &generation.service;
        match self.wanted_here(service)? {
            Some((wanted, _)) if wanted.sha256 == generation.artifact.sha256 => {}
            _ => return Ok(None),
        }
        let before = self.pin();
        let old = before.generation(service.as_str()).cloned();
        let (catalogue, unfit) = before.with(generation.clone()).map_err(|reasons| Gate::Compatibility.refuses(reasons))?;
        for unfit in unfit {
            tracing::warn!(%service, %unfit, "it was decided nevertheless");
        }
        let number = self.next_generation();
        generation.number.store(number, Ordering::Relaxed);
        let _ = generation.live_since.set(Instant::now());
        generation.on_probation.store(self.versions.of(service).is_new() && old.is_some(), Ordering::Relaxed);
        tracing::info!(%service, version = generation.version, generation = number, replaced = old.as_ref().map(|old| &*old.version), "live, as decided");
        self.publish_catalogue(catalogue);
        self.generations.note(generation);
        self.backfills.replaced(old.as_ref());
        Ok(Some(old))
    }

    /// Prepares what another host asks for, and says whether it can.
    async fn answer(self: Arc<Self>, order: Order) {
        let outcome = self.prepare(&order).await;
        let refusal = match outcome {
            Ok(()) => None,
            Err(SwapError::Refused(Refusal { gate, reasons })) => Some(Refused { gate, reasons }),
            Err(error) => Some(Refused { gate: Gate::Instantiation, reasons: vec![error.to_string()] }),
        };
        if let Some(Refused { gate, reasons }) = &refusal {
            tracing::warn!(service = %order.service, node = order.node, gate = gate.as_str(), reasons = reasons.join("; "), "this host cannot run what another one deploys");
        }
        let text = refusal.map(|refused| serde_json::to_string(&refused).expect("strings always serialise"));
        let answered = match self.versions.rollouts() {
            Some(rollouts) => rollouts.answer(&order, text.as_deref()).await,
            None => Ok(()),
        };
        if let Err(error) = answered {
            tracing::warn!(service = %order.service, %error, "a rollout cannot be answered; it is tried again");
        }
        self.rollouts.preparing.lock().remove(&order.rollout);
    }

    async fn prepare(&self, order: &Order) -> Result<(), SwapError> {
        let Order { service, text, .. } = order;
        let wanted: Wanted = serde_json::from_str(text)
            .map_err(|error| Gate::Version.refuses(vec![format!("this host does not understand what is asked of it: {error}")]))?;
        // What it is compared with is the version that the others run.
        self.catch_up(service).await?;
        let artifact = known_version(&self.versions.of(service), service, &wanted.version)?;
        let Wanted { version, allow, grants, allow_all } = wanted;
        let decisions = Decisions { allow, grants, allow_all, ..Decisions::default() };
        let candidate = self.pass_gate(&artifact, &version, Purpose::Prepare, &decisions).await?;
        self.rollouts.prepared.lock().insert(service.clone(), (Instant::now(), candidate));
        Ok(())
    }

    /// The service's rollout, and what is known now to be live, is live. None where there are no other hosts.
    /// Errors: `GateHeld` where another host's does not end within `SWAP_GATE_WAIT_MS`.
    pub(super) async fn begin_rollout(&self, service: &ServiceName) -> Result<Option<Uuid>, SwapError> {
        let Some(rollouts) = self.versions.rollouts() else { return Ok(None) };
        let until = Instant::now() + Duration::from_millis(limits::SWAP_GATE_WAIT_MS);
        loop {
            if let Some(rollout) = rollouts.begin(service).await? {
                return match self.catch_up(service).await {
                    Ok(()) => Ok(Some(rollout)),
                    Err(error) => {
                        self.end_rollout(service, Some(rollout)).await;
                        Err(error.into())
                    }
                };
            }
            if Instant::now() > until {
                return Err(SwapError::GateHeld(service.to_string()));
            }
            tokio::time::sleep(Duration::from_millis(limits::ROLLOUT_POLL_MS)).await;
        }
    }

    pub(super) async fn end_rollout(&self, service: &ServiceName, rollout: Option<Uuid>) {
        let (Some(rollouts), Some(rollout)) = (self.versions.rollouts(), rollout) else { return };
        if let Err(error) = rollouts.end(service, rollout).await {
            tracing::warn!(%service, %error, "a rollout cannot be ended; it is over in {} s", limits::ROLLOUT_S);
        }
    }

    /// Asks all other hosts whether they can run it. Errors: the refusal of the first that cannot, with its name.
    pub(super) async fn prepare_elsewhere(
        &self,
        service: &ServiceName,
        version: &str,
        rollout: Option<Uuid>,
        decisions: &Decisions,
    ) -> Result<(), SwapError> {
        let (Some(rollouts), Some(rollout)) = (self.versions.rollouts(), rollout) else { return Ok(()) };
        let Decisions { allow, grants, allow_all, .. } = decisions.clone();
        let wanted = Wanted { version: version.to_owned(), allow, grants, allow_all };
        rollouts.ask(service, rollout, &serde_json::to_string(&wanted).expect("strings always serialise")).await?;
        let until = Instant::now() + Duration::from_millis(limits::ROLLOUT_ANSWER_MS);
        loop {
            let answers = rollouts.answers(service, rollout).await?;
            let mut silent = Vec::new();
            for answer in answers {
                match answer.said {
                    Said::Prepared => {}
                    Said::Nothing => silent.push(answer.node),
                    Said::Refused(text) => {
                        let unread = |_| Refused { gate: Gate::Compilation, reasons: vec![text.clone()] };
                        let Refused { gate, reasons } = serde_json::from_str(&text).unwrap_or_else(unread);
                        let reasons = reasons.into_iter().map(|reason| format!("on host {}: {reason}", answer.node)).collect();
                        return Err(gate.refuses(reasons).into());
                    }
                }
            }
            if silent.is_empty() {
                return Ok(rollouts.renew(service, rollout).await?);
            }
            if Instant::now() > until {
                let reason = format!("it has not said within {} ms whether it can run it", limits::ROLLOUT_ANSWER_MS);
                return Err(Gate::Compilation.refuses(silent.iter().map(|node| format!("on host {node}: {reason}")).collect()).into());
            }
            tokio::time::sleep(Duration::from_millis(limits::ROLLOUT_POLL_MS)).await;
        }
    }

    /// Waits until the other hosts run it too, for a while: they do as soon as they see that it was decided.
    pub(super) async fn wait_for_others(&self, service: &ServiceName) {
        let (Some(rollouts), Some(live)) = (self.versions.rollouts(), self.pin().generation(service.as_str()).cloned()) else { return };
        let sha256 = &live.artifact.sha256;
        let until = Instant::now() + Duration::from_millis(limits::ROLLOUT_SWITCH_MS);
        loop {
            match rollouts.hosts_without(service, sha256, 0).await {
                Ok(hosts) if hosts.is_empty() => return,
                Ok(hosts) if Instant::now() > until => {
                    return tracing::warn!(%service, hosts = hosts.join(", "), "they do not run what was decided yet; they go on trying");
                }
                Ok(_) => {}
                Err(error) => return tracing::warn!(%service, %error, "whether the other hosts run it is not known"),
            }
            tokio::time::sleep(Duration::from_millis(limits::ROLLOUT_POLL_MS)).await;
        }
    }

    /// As `start_services`, where hosts share versions: what is to be live is started, and then a packed file is deployed as by an operator if it is news.
    pub(super) async fn start_shared(&self, files: Vec<PathBuf>) -> std::io::Result<Vec<(PathBuf, SwapError)>> {
        let mut refused = Vec::new();
        for (service, versions) in self.versions.services() {
            if let Err(error) = self.start_decided(&service, &versions).await {
                refused.push((PathBuf::from(format!("{service} {}", versions.active().unwrap_or_default())), error));
            }
        }
        for path in files {
            if let Err(error) = self.start_news(std::fs::read(&path)?).await {
                refused.push((path, error));
            }
        }
        // Removes code of an earlier engine, and files that an interrupted host left.
        self.engine.keep_code(&self.versions.files());
        Ok(refused)
    }

    async fn start_decided(&self, service: &ServiceName, versions: &Versions) -> Result<(), SwapError> {
        let Some((artifact, version)) = self.wanted_here(service)? else { return Ok(()) };
        let refuse = |error: MigrateError| Gate::Migrations.refuses(vec![error.to_string()]);
        let candidate = self.pass_gate(&artifact, &version, Purpose::Follow, &Decisions::default()).await?;
        let database = &candidate.generation.pool.capabilities().database;
        // What this host left when it ended in the middle: final, if its version was decided; else taken away again.
        database.confirm_migrations(&self.migrations_of_live(versions)).await.map_err(refuse)?;
        database.undo_migrations().await.map_err(refuse)?;
        let migrations = self.migrations_of(&artifact);
        // A version that was decided has its tables; but for a database that was put back to an earlier time.
        if !database.pending(&migrations).await.map_err(refuse)?.is_empty() {
            let rollout = self.begin_rollout(service).await?;
            let applied = database.apply_migrations(&migrations, self.migration_time(service)).await;
            let confirmed = match &applied {
                Ok(names) => database.confirm_migrations(names).await,
                Err(_) => Ok(()),
            };
            self.end_rollout(service, rollout).await;
            applied.and(confirmed).map_err(refuse)?;
        }
        if self.publish_what_was_decided(&candidate.generation).await?.is_some() {
            self.follow_topics(service).await;
        }
        Ok(())
    }

    async fn start_news(&self, bytes: Vec<u8>) -> Result<(), SwapError> {
        let artifact = read(bytes).await?;
        let service = artifact.manifest.service();
        if !self.is_news(&service, &artifact) {
            return Ok(());
        }
        let _gate = self.gates.enter(&service).await?;
        let rollout = self.begin_rollout(&service).await?;
        // Not where another host has deployed the same file meanwhile.
        let outcome = if self.is_news(&service, &artifact) { self.deploy_news(&service, &artifact, rollout).await } else { Ok(()) };
        self.end_rollout(&service, rollout).await;
        self.wait_for_others(&service).await;
        self.follow_topics(&service).await;
        outcome
    }

    async fn deploy_news(&self, service: &ServiceName, artifact: &Arc<Artifact>, rollout: Option<Uuid>) -> Result<(), SwapError> {
        let version = self.version_name(&self.versions.of(service), artifact)?;
        self.keep(service, &version, artifact).await?;
        // Over another version it is watched as any new one.
        let action = if self.pin().generation(service.as_str()).is_some() { "activate" } else { "start" };
        let decisions = Decisions { allow_all: self.dev_mode, ..Decisions::default() };
        let entry = entry(&version, action, Some("a host was started with it"));
        self.activate_within(rollout, service, entry, &decisions).await?;
        Ok(self.versions.set_base(service, &artifact.sha256).await?)
    }

    /// Whether no host was started with this packed file before and nobody deployed it, and it is not older than what is to be live: hosts of one database
    /// start with files of different ages, as while they are upgraded one after the other.
    fn is_news(&self, service: &ServiceName, artifact: &Artifact) -> bool {
        let versions = self.versions.of(service);
        if versions.knows(&artifact.sha256) {
            return false;
        }
        let is_older = versions.active().is_some_and(|active| is_older(&artifact.manifest.version, active));
        if is_older {
            tracing::info!(%service, version = artifact.manifest.version, active = versions.active(), "an older packed file is left alone");
        }
        !is_older
    }

    /// Whether another host may still run another version of it, or may have calls of one.
    pub(super) async fn may_run_elsewhere(&self, live: &Generation) -> bool {
        let Some(rollouts) = self.versions.rollouts() else { return false };
        let without = rollouts.hosts_without(&live.service, &live.artifact.sha256, limits::SWAP_DRAIN_MS).await;
        !without.is_ok_and(|hosts| hosts.is_empty())
    }
}

/// By their numbers; what is no version of three numbers is not older than anything.
fn is_older(version: &str, than: &str) -> bool {
    let numbers = |version: &str| parse_version(version.split('+').next().unwrap_or_default());
    matches!((numbers(version), numbers(than)), (Some(version), Some(than)) if version < than)
}

#[cfg(test)]
mod tests;
