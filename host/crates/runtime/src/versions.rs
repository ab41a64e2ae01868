//! The versions of every service that this host keeps, which one is live, which ones were bad, and the history: files in the data folder.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::artifact::Artifact;
use super::permissions::Grant;
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_base::private_file;

/// `<folder>/<service>/<version>.wasm` and `<folder>/<service>/state.json`.
///
/// Reading takes a snapshot and never waits. Changes are made one at a time; each writes its file and then replaces the snapshot.
pub struct VersionStore {
    folder: PathBuf,
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
}

#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
struct State {
    active: Option<String>,
    /// The hash of the packed file that the host was started with when `active` was chosen.
    base_sha256: Option<String>,
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

impl VersionStore {
    /// Reads the folder. A version whose file cannot be read is left out, with a line in the log.
    pub fn open(folder: &Path, kept_max: usize) -> io::Result<Self> {
        private_file::create_folder(folder)?;
        let mut services = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Ok(service) = ServiceName::parse(name) else { continue };
            services.insert(service, Arc::new(Versions::read(&path)?));
        }
        Ok(Self { folder: folder.to_owned(), kept_max, services: ArcSwap::from_pointee(services), changing: Mutex::default() })
    }

    /// All services that have versions here.
    pub fn services(&self) -> Vec<(ServiceName, Arc<Versions>)> {
        self.services.load().iter().map(|(service, versions)| (service.clone(), versions.clone())).collect()
    }

    /// None for a service that never had one.
    pub fn find(&self, service: &ServiceName) -> Option<Arc<Versions>> {
        self.services.load().get(service).cloned()
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

    /// Keeps a version; above the bound others are removed. Returns the SHA-256 of the removed ones.
    pub fn keep(&self, service: &ServiceName, version: &str, artifact: Arc<Artifact>) -> io::Result<Vec<String>> {
        let folder = self.folder.join(service.as_str());
        private_file::create_folder(&folder)?;
        // Megabytes, so written before the lock is taken.
        private_file::write(&folder.join(format!("{version}.wasm")), &artifact.bytes)?;
        let mut gone = Vec::new();
        self.change(service, |versions| {
            versions.artifacts.insert(version.to_owned(), artifact);
            for (forgotten, artifact) in versions.forget_surplus(version, self.kept_max) {
                if let Err(error) = fs::remove_file(folder.join(format!("{forgotten}.wasm"))) {
                    tracing::warn!(%service, version = forgotten, %error, "an old version's file cannot be removed");
                }
                gone.push(artifact.sha256.clone());
            }
            Ok(())
        })?;
        Ok(gone)
    }

    pub fn remove(&self, service: &ServiceName, version: &str) -> io::Result<()> {
        self.change(service, |versions| {
            versions.artifacts.remove(version);
            fs::remove_file(self.folder.join(service.as_str()).join(format!("{version}.wasm")))
        })
    }

    pub fn set_base(&self, service: &ServiceName, sha256: &str) -> io::Result<()> {
        self.change(service, |versions| {
            versions.state.base_sha256 = Some(sha256.to_owned());
            self.write_state(service, &versions.state)
        })
    }

    /// Notes that `entry.version` is live from now on; its hash and the time are filled in. `bad`: a version that is not to be chosen by a
    /// rollback, with the reason.
    pub fn record(&self, service: &ServiceName, entry: HistoryEntry, bad: Option<(&str, &str)>) -> io::Result<()> {
        self.change(service, |versions| {
            let sha256 = versions.artifacts.get(&entry.version).map_or_else(String::new, |artifact| artifact.sha256.clone());
            let at_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
            if let Some((version, reason)) = bad
                && let Some(artifact) = versions.artifacts.get(version)
            {
                versions.state.bad.insert(artifact.sha256.clone(), reason.to_owned());
            }
            versions.state.bad.remove(&sha256);
            versions.state.active = Some(entry.version.clone());
            versions.state.grants.extend(entry.granted.iter().cloned());
            versions.state.history.push(HistoryEntry { sha256, at_us, ..entry });
            let surplus = versions.state.history.len().saturating_sub(limits::HISTORY_ENTRIES_MAX);
            versions.state.history.drain(..surplus);
            self.write_state(service, &versions.state)
        })
    }

    /// Replaces the service's versions by what `change` makes of them, unless it fails.
    fn change(&self, service: &ServiceName, change: impl FnOnce(&mut Versions) -> io::Result<()>) -> io::Result<()> {
        let _changing = self.changing.lock();
        let mut services = BTreeMap::clone(&self.services.load());
        let mut versions = Versions::clone(&self.of(service));
        change(&mut versions)?;
        services.insert(service.clone(), Arc::new(versions));
        self.services.store(Arc::new(services));
        Ok(())
    }

    fn write_state(&self, service: &ServiceName, state: &State) -> io::Result<()> {
        let folder = self.folder.join(service.as_str());
        private_file::create_folder(&folder)?;
        let text = serde_json::to_vec_pretty(state).expect("strings and numbers always serialise");
        private_file::write(&folder.join("state.json"), &text)
    }
}

impl Versions {
    pub fn grants(&self) -> &BTreeSet<Grant> {
        &self.state.grants
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

    fn read(folder: &Path) -> io::Result<Self> {
        let mut versions = Self::default();
        if let Ok(text) = fs::read(folder.join("state.json")) {
            versions.state = serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::error!(folder = %folder.display(), %error, "state.json cannot be read; its history is lost");
                State::default()
            });
        }
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(version) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".wasm")) else {
                continue;
            };
            match Artifact::read(fs::read(&path)?) {
                Ok(artifact) => drop(versions.artifacts.insert(version.to_owned(), Arc::new(artifact))),
                Err(error) => tracing::error!(path = %path.display(), %error, "a kept version cannot be read and is left out"),
            }
        }
        Ok(versions)
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
    use super::*;
    use crate::artifact::pack;

    struct Store {
        folder: tempfile::TempDir,
        versions: VersionStore,
    }

    impl Store {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let versions = VersionStore::open(folder.path(), limits::VERSIONS_KEPT).unwrap();
            Self { folder, versions }
        }

        fn keep(&self, version: &str) {
            let manifest = format!("name = \"location\"\nversion = \"{version}\"\n");
            let artifact = Artifact::read(pack(&echo_fixture::component("location"), &manifest, "", &[]).unwrap()).unwrap();
            self.versions.keep(&location(), version, Arc::new(artifact)).unwrap();
        }

        fn activate(&self, version: &str) {
            if self.versions.of(&location()).artifact(version).is_none() {
                self.keep(version);
            }
            let entry = HistoryEntry { version: version.to_owned(), action: "activate".to_owned(), ..HistoryEntry::default() };
            self.versions.record(&location(), entry, None).unwrap();
        }

        /// Where it leads.
        fn roll_back(&self) -> Option<String> {
            let versions = self.versions.of(&location());
            let version = versions.last_good()?;
            let entry = HistoryEntry { version: version.clone(), action: "rollback".to_owned(), ..HistoryEntry::default() };
            self.versions.record(&location(), entry, Some((versions.active().unwrap(), "worse"))).unwrap();
            Some(version)
        }
    }

    fn location() -> ServiceName {
        ServiceName::parse("location").unwrap()
    }

    #[test]
    fn a_rollback_leads_to_the_last_good_version_and_never_back_to_a_bad_one() {
        let store = Store::new();
        ["1.0.0", "1.1.0", "1.2.0"].iter().for_each(|version| store.activate(version));
        assert_eq!(store.roll_back().as_deref(), Some("1.1.0"));
        assert_eq!(store.roll_back().as_deref(), Some("1.0.0"), "not back to the bad one");
        assert_eq!(store.roll_back(), None);
        assert_eq!(store.versions.of(&location()).bad(), ["1.1.0", "1.2.0"]);

        // It is remembered over a restart, and an activation by name is a second chance.
        let store = Store { versions: VersionStore::open(store.folder.path(), limits::VERSIONS_KEPT).unwrap(), ..store };
        assert_eq!(store.roll_back(), None);
        store.activate("1.2.0");
        assert_eq!(store.versions.of(&location()).bad(), ["1.1.0"]);
        assert_eq!(store.roll_back().as_deref(), Some("1.0.0"));
    }

    #[test]
    fn the_way_back_is_kept_whatever_is_uploaded() {
        let store = Store::new();
        ["1.0.0", "1.1.0", "1.2.0"].iter().for_each(|version| store.activate(version));
        store.roll_back();
        (0..3 * limits::VERSIONS_KEPT).for_each(|number| store.keep(&format!("2.0.{number}")));
        let names = store.versions.of(&location()).names();
        assert_eq!(names.len(), limits::VERSIONS_KEPT);
        assert!(names.contains(&"1.0.0".to_owned()) && names.contains(&"1.1.0".to_owned()), "{names:?}");
        let files = fs::read_dir(store.folder.path().join("location")).unwrap().count();
        assert_eq!(files, limits::VERSIONS_KEPT + 1, "the files of the others are gone; beside them is state.json");
        assert_eq!(store.roll_back().as_deref(), Some("1.0.0"));
    }

    #[test]
    fn what_an_older_host_wrote_is_read() {
        let text = r#"{"active":"1.0.0","base_sha256":null,"history":[{"version":"1.0.0","sha256":"ab","action":"start","at_us":1}]}"#;
        let state: State = serde_json::from_str(text).unwrap();
        assert_eq!((state.history.len(), state.bad.len()), (1, 0));
    }
}
