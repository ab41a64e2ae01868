//! The versions of every service that this host knows, which one is to be live, which ones were bad, and the history: what the store has, as it was read
//! last.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::artifact::Artifact;
use super::permissions::Grant;
use echo_base::clock::now_us;
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::versions::{Kept, Rollouts, StoreError, VersionStore};

/// Reading takes a snapshot and never waits. Changes are made one at a time; each changes the store and then replaces the snapshot.
pub struct ServiceVersions {
    store: Arc<dyn VersionStore>,
    /// Of this host.
    node: String,
    /// Per service.
    kept_max: usize,
    services: ArcSwap<BTreeMap<ServiceName, Arc<Versions>>>,
    changing: Mutex<()>,
}

/// One service's versions at one moment.
#[derive(Clone, Default)]
pub struct Versions {
    artifacts: BTreeMap<String, Arc<Artifact>>,
    state: State,
    /// See `Kept`.
    revision: i64,
    state_revision: i64,
}

#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
struct State {
    active: Option<String>,
    /// The hash of the packed file that the host was started with when `active` was chosen.
    base_sha256: Option<String>,
    /// Of several hosts: the hashes of all packed files that one of them was started with.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    bases: BTreeSet<String>,
    /// Oldest first.
    history: Vec<HistoryEntry>,
    /// Packed files (by their SHA-256) that were rolled away from, each with the reason. A rollback chooses none of them; activating one by
    /// its name takes it out.
    #[serde(default)]
    bad: BTreeMap<String, String>,
    /// Operators' grants with deployments; those of the permission map are not among them.
    #[serde(default)]
    grants: BTreeSet<Grant>,
}

/// One activation, as it is kept.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct HistoryEntry {
    pub version: String,
    pub sha256: String,
    /// `start`, `activate`, `rollback` or `automatic-rollback`.
    pub action: String,
    /// Microseconds since 1970.
    pub at_us: u64,
    /// The host where it was asked for, or that rolled back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The name of the token with which it was asked for; none where the host did it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// The version that was live before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Changes that were confirmed by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// What was granted with it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub granted: BTreeSet<Grant>,
    /// The operator forced it although live dependents do not fit (`--force`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
}

impl ServiceVersions {
    /// Reads all that the store has. A version whose file cannot be read is left out, with a line in the log.
    pub async fn open(store: Arc<dyn VersionStore>, node: String, kept_max: usize) -> Result<Self, StoreError> {
        let this = Self { store, node, kept_max, services: ArcSwap::default(), changing: Mutex::default() };
        for service in this.store.services().await?.into_keys() {
            this.refresh(&service).await?;
        }
        Ok(this)
    }

    /// Where several hosts share them: how they agree.
    pub fn rollouts(&self) -> Option<&dyn Rollouts> {
        self.store.rollouts()
    }

    /// Of this host.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// All services that have versions here.
    pub fn services(&self) -> Vec<(ServiceName, Arc<Versions>)> {
        self.services.load().iter().map(|(service, versions)| (service.clone(), versions.clone())).collect()
    }

    /// None for a service that never had one.
    pub fn find(&self, service: &ServiceName) -> Option<Arc<Versions>> {
        // One that was asked for and never had a version is known and empty.
        self.services.load().get(service).cloned().filter(|versions| !versions.artifacts.is_empty() || !versions.history().is_empty())
    }

    /// As `find`, with nothing in it for a service that never had a version.
    pub fn of(&self, service: &ServiceName) -> Arc<Versions> {
        self.find(service).unwrap_or_default()
    }

    /// Whether any service keeps a packed file with this SHA-256.
    pub fn has_file(&self, sha256: &str) -> bool {
        self.services.load().values().any(|versions| versions.artifacts.values().any(|artifact| artifact.sha256 == sha256))
    }

    /// The SHA-256 of all packed files that are kept.
    pub fn files(&self) -> HashSet<String> {
        self.services.load().values().flat_map(|versions| versions.artifacts.values().map(|artifact| artifact.sha256.clone())).collect()
    }

    /// Reads what the store has of the service now. The packed files that are gone.
    pub async fn refresh(&self, service: &ServiceName) -> Result<Vec<String>, StoreError> {
        let _changing = self.changing.lock().await;
        let before = self.of(service);
        let Kept { revision, state_revision, state, files } = self.store.read(service).await?;
        let state = match (state, before.state_revision == state_revision && state_revision > 0) {
            (_, true) => before.state.clone(),
            (Some(text), _) => serde_json::from_str(&text).unwrap_or_else(|error| {
                tracing::error!(%service, %error, "the service's state cannot be read; its history is lost");
                State::default()
            }),
            (None, _) => State::default(),
        };
        let mut artifacts = BTreeMap::new();
        for (version, sha256) in files {
            if let Some(known) = before.artifacts.get(&version).filter(|known| Some(&known.sha256) == sha256.as_ref()) {
                artifacts.insert(version, known.clone());
                continue;
            }
            let Some(file) = self.store.file(service, &version).await? else { continue };
            // Hashing and parsing megabytes takes milliseconds, so not on an async thread.
            let read = tokio::task::spawn_blocking(move || Artifact::read(file)).await;
            match read.map_err(|error| StoreError::Unavailable(error.to_string()))? {
                Ok(artifact) if sha256.as_ref().is_none_or(|sha256| artifact.sha256 == *sha256) => {
                    drop(artifacts.insert(version, Arc::new(artifact)))
                }
                Ok(artifact) => {
                    tracing::error!(%service, version, sha256 = artifact.sha256, "a kept version has other bytes and is left out")
                }
                Err(error) => tracing::error!(%service, version, %error, "a kept version cannot be read and is left out"),
            }
        }
        let gone = before.artifacts.values().map(|artifact| artifact.sha256.clone());
        let gone = gone.filter(|sha256| artifacts.values().all(|artifact| artifact.sha256 != *sha256)).collect();
        self.replace(service, Versions { artifacts, state, revision, state_revision });
        Ok(gone)
    }

    /// Services of which the store has something newer than was read, in the order of their changes.
    pub async fn changed(&self) -> Result<Vec<ServiceName>, StoreError> {
        let newer = self.store.services().await?.into_iter();
        let mut newer: Vec<_> = newer.filter(|(service, revision)| self.of(service).revision != *revision).collect();
        newer.sort_by_key(|(_, revision)| *revision);
        Ok(newer.into_iter().map(|(service, _)| service).collect())
    }

    /// Keeps a version; above the bound others are removed. Returns the SHA-256 of the removed ones.
    pub async fn keep(&self, service: &ServiceName, version: &str, artifact: Arc<Artifact>) -> Result<Vec<String>, StoreError> {
        self.store.keep(service, version, &artifact.sha256, &artifact.bytes).await?;
        let _changing = self.changing.lock().await;
        let mut versions = Versions::clone(&self.of(service));
        versions.artifacts.insert(version.to_owned(), artifact);
        let mut gone = Vec::new();
        for (forgotten, artifact) in versions.forget_surplus(version, self.kept_max) {
            if let Err(error) = self.store.remove(service, &forgotten).await {
                tracing::warn!(%service, version = forgotten, %error, "an old version's file cannot be removed");
            }
            gone.push(artifact.sha256.clone());
        }
        self.replace(service, versions);
        Ok(gone)
    }

    pub async fn remove(&self, service: &ServiceName, version: &str) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        self.store.remove(service, version).await?;
        let mut versions = Versions::clone(&self.of(service));
        versions.artifacts.remove(version);
        self.replace(service, versions);
        Ok(())
    }

    /// A host was started with this packed file.
    pub async fn set_base(&self, service: &ServiceName, sha256: &str) -> Result<(), StoreError> {
        let is_shared = self.rollouts().is_some();
        let note = |state: &mut State| {
            state.base_sha256 = Some(sha256.to_owned());
            if is_shared {
                state.bases.insert(sha256.to_owned());
            }
        };
        match self.change(service, None, note).await {
            Err(StoreError::Overtaken) => {
                self.refresh(service).await?;
                self.change(service, None, note).await
            }
            outcome => outcome,
        }
    }

    /// Notes that `entry.version` is to be live from now on; its hash, the time and this host are filled in. `bad`: a version that is not to be chosen by a
    /// rollback, with the reason. `rollout`: that has to be under way still.
    pub async fn record(
        &self,
        service: &ServiceName,
        entry: HistoryEntry,
        bad: Option<(&str, &str)>,
        rollout: Option<Uuid>,
    ) -> Result<(), StoreError> {
        let versions = self.of(service);
        let sha256_of = |version: &str| versions.artifacts.get(version).map(|artifact| artifact.sha256.clone());
        let sha256 = sha256_of(&entry.version).unwrap_or_default();
        let bad = bad.and_then(|(version, reason)| Some((sha256_of(version)?, reason.to_owned())));
        let at_us = now_us();
        let note = |state: &mut State| {
            state.bad.extend(bad);
            state.bad.remove(&sha256);
            state.active = Some(entry.version.clone());
            state.grants.extend(entry.granted.iter().cloned());
            state.history.push(HistoryEntry { sha256, at_us, node: Some(self.node.clone()), ..entry });
            let surplus = state.history.len().saturating_sub(limits::HISTORY_ENTRIES_MAX);
            state.history.drain(..surplus);
        };
        self.change(service, rollout, note).await
    }

    /// Replaces the service's state by what `change` makes of it, unless it fails.
    async fn change(&self, service: &ServiceName, rollout: Option<Uuid>, change: impl FnOnce(&mut State)) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        let mut versions = Versions::clone(&self.of(service));
        change(&mut versions.state);
        let text = serde_json::to_string_pretty(&versions.state).expect("strings and numbers always serialise");
        versions.state_revision = self.store.put_state(service, versions.state_revision, &text, rollout).await?;
        self.replace(service, versions);
        Ok(())
    }

    /// The lock is held.
    fn replace(&self, service: &ServiceName, versions: Versions) {
        let mut services = BTreeMap::clone(&self.services.load());
        services.insert(service.clone(), Arc::new(versions));
        self.services.store(Arc::new(services));
    }
}

impl Versions {
    pub fn grants(&self) -> &BTreeSet<Grant> {
        &self.state.grants
    }

    /// Of what is said here; see `Kept`.
    pub fn state_revision(&self) -> i64 {
        self.state_revision
    }

    pub fn names(&self) -> Vec<String> {
        self.artifacts.keys().cloned().collect()
    }

    pub fn artifact(&self, version: &str) -> Option<&Arc<Artifact>> {
        self.artifacts.get(version)
    }

    pub fn active(&self) -> Option<&str> {
        self.state.active.as_deref()
    }

    pub fn base_sha256(&self) -> Option<&str> {
        self.state.base_sha256.as_deref()
    }

    /// Whether a host was started with this packed file before, or it was ever deployed.
    pub fn knows(&self, sha256: &str) -> bool {
        self.state.bases.contains(sha256)
            || self.state.history.iter().any(|entry| entry.sha256 == sha256)
            || self.state.bad.contains_key(sha256)
    }

    /// Whether what is live became so as a new version, and not by a rollback or a start.
    pub fn is_new(&self) -> bool {
        let Some((last, before)) = self.state.history.split_last() else { return false };
        last.action == "activate" && before.iter().all(|entry| entry.sha256 != last.sha256)
    }

    /// Oldest first.
    pub fn history(&self) -> &[HistoryEntry] {
        &self.state.history
    }

    /// Why this packed file was rolled away from.
    pub fn bad_reason(&self, sha256: &str) -> Option<&str> {
        self.state.bad.get(sha256).map(String::as_str)
    }

    /// Kept versions that were rolled away from.
    pub fn bad(&self) -> Vec<String> {
        let bad = self.artifacts.iter().filter(|(_, artifact)| self.state.bad.contains_key(&artifact.sha256));
        bad.map(|(version, _)| version.clone()).collect()
    }

    /// Whether the kept bytes of this version were live before.
    pub fn was_live(&self, version: &str) -> bool {
        self.last_live(version).is_some()
    }

    /// The version that a rollback activates: the one that was live last, is not live now, is still kept and was not rolled away from.
    pub fn last_good(&self) -> Option<String> {
        let active = self.state.active.as_deref()?;
        let is_good = |entry: &&HistoryEntry| entry.version != active && self.is_kept(entry) && !self.state.bad.contains_key(&entry.sha256);
        self.state.history.iter().rev().find(is_good).map(|entry| entry.version.clone())
    }

    fn is_kept(&self, entry: &HistoryEntry) -> bool {
        self.artifacts.get(&entry.version).is_some_and(|artifact| artifact.sha256 == entry.sha256)
    }

    /// Its index in the history.
    fn last_live(&self, version: &str) -> Option<usize> {
        self.state.history.iter().rposition(|entry| entry.version == version && self.is_kept(entry))
    }

    /// Keeps so many and returns the others. Removed first are versions that were never live, then those that were rolled away from, then those
    /// that were live longest ago; never the live one, the one that a rollback activates, or `newest`.
    fn forget_surplus(&mut self, newest: &str, kept_max: usize) -> Vec<(String, Arc<Artifact>)> {
        let mut forgotten = Vec::new();
        let last_good = self.last_good();
        while self.artifacts.len() > kept_max {
            let is_spared =
                |version: &str| version == newest || self.state.active.as_deref() == Some(version) || last_good.as_deref() == Some(version);
            let rank = |(version, artifact): &(&String, &Arc<Artifact>)| {
                let last_live = self.last_live(version);
                (last_live.is_some() && !self.state.bad.contains_key(&artifact.sha256), last_live)
            };
            let candidates = self.artifacts.iter().filter(|(version, _)| !is_spared(version));
            let Some((version, artifact)) = candidates.min_by_key(rank).map(|(version, artifact)| (version.clone(), artifact.clone()))
            else {
                break;
            };
            self.artifacts.remove(&version);
            self.state.bad.remove(&artifact.sha256);
            forgotten.push((version, artifact));
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::artifact::pack;
    use echo_capabilities::versions::files::FileVersions;

    struct Store {
        folder: tempfile::TempDir,
        versions: ServiceVersions,
    }

    async fn open(folder: &Path) -> ServiceVersions {
        let store = Arc::new(FileVersions::open(folder).unwrap());
        ServiceVersions::open(store, "this".to_owned(), limits::VERSIONS_KEPT).await.unwrap()
    }

    impl Store {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let versions = open(folder.path()).await;
            Self { folder, versions }
        }

        async fn keep(&self, version: &str) {
            let manifest = format!("name = \"location\"\nversion = \"{version}\"\n");
            let artifact = Artifact::read(pack(&echo_fixture::component("location"), &manifest, "", &[]).unwrap()).unwrap();
            self.versions.keep(&location(), version, Arc::new(artifact)).await.unwrap();
        }

        async fn activate(&self, version: &str) {
            if self.versions.of(&location()).artifact(version).is_none() {
                self.keep(version).await;
            }
            let entry = HistoryEntry { version: version.to_owned(), action: "activate".to_owned(), ..HistoryEntry::default() };
            self.versions.record(&location(), entry, None, None).await.unwrap();
        }

        /// Where it leads.
        async fn roll_back(&self) -> Option<String> {
            let versions = self.versions.of(&location());
            let version = versions.last_good()?;
            let entry = HistoryEntry { version: version.clone(), action: "rollback".to_owned(), ..HistoryEntry::default() };
            self.versions.record(&location(), entry, Some((versions.active().unwrap(), "worse")), None).await.unwrap();
            Some(version)
        }
    }

    fn location() -> ServiceName {
        ServiceName::parse("location").unwrap()
    }

    #[tokio::test]
    async fn a_rollback_leads_to_the_last_good_version_and_never_back_to_a_bad_one() {
        let store = Store::new().await;
        for version in ["1.0.0", "1.1.0", "1.2.0"] {
            store.activate(version).await;
        }
        assert_eq!(store.roll_back().await.as_deref(), Some("1.1.0"));
        assert_eq!(store.roll_back().await.as_deref(), Some("1.0.0"), "not back to the bad one");
        assert_eq!(store.roll_back().await, None);
        assert_eq!(store.versions.of(&location()).bad(), ["1.1.0", "1.2.0"]);

        // It is remembered over a restart, and an activation by name is a second chance.
        let store = Store { versions: open(store.folder.path()).await, ..store };
        assert_eq!(store.roll_back().await, None);
        store.activate("1.2.0").await;
        assert_eq!(store.versions.of(&location()).bad(), ["1.1.0"]);
        assert_eq!(store.roll_back().await.as_deref(), Some("1.0.0"));
    }

    #[tokio::test]
    async fn the_way_back_is_kept_whatever_is_uploaded() {
        let store = Store::new().await;
        for version in ["1.0.0", "1.1.0", "1.2.0"] {
            store.activate(version).await;
        }
        store.roll_back().await;
        for number in 0..3 * limits::VERSIONS_KEPT {
            store.keep(&format!("2.0.{number}")).await;
        }
        let names = store.versions.of(&location()).names();
        assert_eq!(names.len(), limits::VERSIONS_KEPT);
        assert!(names.contains(&"1.0.0".to_owned()) && names.contains(&"1.1.0".to_owned()), "{names:?}");
        let files = std::fs::read_dir(store.folder.path().join("location")).unwrap().count();
        assert_eq!(files, limits::VERSIONS_KEPT + 1, "the files of the others are gone; beside them is state.json");
        assert_eq!(store.roll_back().await.as_deref(), Some("1.0.0"));
    }

    #[test]
    fn what_an_older_host_wrote_is_read() {
        let text = r#"{"active":"1.0.0","base_sha256":null,"history":[{"version":"1.0.0","sha256":"ab","action":"start","at_us":1}]}"#;
        let state: State = serde_json::from_str(text).unwrap();
        assert_eq!((state.history.len(), state.bad.len()), (1, 0));
    }
}
