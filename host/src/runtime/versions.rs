//! The versions of every service that this host keeps, which one is live, and what happened: files in the data folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::artifact::Artifact;
use crate::limits;
use crate::names::ServiceName;

/// `<folder>/<service>/<version>.wasm` and `<folder>/<service>/state.json`.
pub struct VersionStore {
    folder: PathBuf,
    services: BTreeMap<ServiceName, Versions>,
}

#[derive(Default)]
struct Versions {
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
}

/// One activation, as it is kept.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct HistoryEntry {
    pub version: String,
    pub sha256: String,
    /// `start`, `activate` or `rollback`.
    pub action: String,
    /// Microseconds since 1970.
    pub at_us: u64,
}

impl VersionStore {
    /// Reads what is there. A version whose file cannot be read is left out, with a line in the log.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut services = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Ok(service) = ServiceName::parse(name) else { continue };
            services.insert(service, Versions::read(&path)?);
        }
        Ok(Self { folder: folder.to_owned(), services })
    }

    pub fn services(&self) -> Vec<ServiceName> {
        self.services.keys().cloned().collect()
    }

    pub fn names(&self, service: &ServiceName) -> Vec<String> {
        self.services.get(service).map_or_else(Vec::new, |versions| versions.artifacts.keys().cloned().collect())
    }

    pub fn artifact(&self, service: &ServiceName, version: &str) -> Option<Arc<Artifact>> {
        self.services.get(service)?.artifacts.get(version).cloned()
    }

    pub fn active(&self, service: &ServiceName) -> Option<String> {
        self.services.get(service)?.state.active.clone()
    }

    pub fn base_sha256(&self, service: &ServiceName) -> Option<&str> {
        self.services.get(service)?.state.base_sha256.as_deref()
    }

    pub fn history(&self, service: &ServiceName) -> Option<Vec<HistoryEntry>> {
        self.services.get(service).map(|versions| versions.state.history.clone())
    }

    /// The newest other version in the history that is still kept.
    pub fn previous(&self, service: &ServiceName) -> Option<String> {
        let versions = self.services.get(service)?;
        let active = versions.state.active.as_deref()?;
        let mut before = versions.state.history.iter().rev().map(|entry| &entry.version);
        before.find(|version| *version != active && versions.artifacts.contains_key(*version)).cloned()
    }

    pub fn keep(&mut self, service: &ServiceName, version: &str, artifact: Arc<Artifact>) -> io::Result<()> {
        let folder = self.folder.join(service.as_str());
        fs::create_dir_all(&folder)?;
        write_whole(&folder.join(format!("{version}.wasm")), &artifact.bytes)?;
        let versions = self.services.entry(service.clone()).or_default();
        versions.artifacts.insert(version.to_owned(), artifact);
        versions.forget_oldest(&folder, version);
        Ok(())
    }

    pub fn remove(&mut self, service: &ServiceName, version: &str) -> io::Result<()> {
        if let Some(versions) = self.services.get_mut(service) {
            versions.artifacts.remove(version);
        }
        fs::remove_file(self.folder.join(service.as_str()).join(format!("{version}.wasm")))
    }

    pub fn set_base(&mut self, service: &ServiceName, sha256: &str) -> io::Result<()> {
        self.change(service, |versions| versions.state.base_sha256 = Some(sha256.to_owned()))
    }

    /// Notes that the version is live from now on.
    pub fn record(&mut self, service: &ServiceName, version: &str, action: &str) -> io::Result<()> {
        self.change(service, |versions| {
            let sha256 = versions.artifacts.get(version).map_or_else(String::new, |artifact| artifact.sha256.clone());
            let at_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
            versions.state.active = Some(version.to_owned());
            versions.state.history.push(HistoryEntry { version: version.to_owned(), sha256, action: action.to_owned(), at_us });
            let surplus = versions.state.history.len().saturating_sub(limits::HISTORY_ENTRIES_MAX);
            versions.state.history.drain(..surplus);
        })
    }

    fn change(&mut self, service: &ServiceName, change: impl FnOnce(&mut Versions)) -> io::Result<()> {
        let folder = self.folder.join(service.as_str());
        fs::create_dir_all(&folder)?;
        let versions = self.services.entry(service.clone()).or_default();
        change(versions);
        let text = serde_json::to_vec_pretty(&versions.state).expect("strings and numbers always serialise");
        write_whole(&folder.join("state.json"), &text)
    }
}

impl Versions {
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

    /// Keeps `VERSIONS_KEPT_MAX`: goes first what was live longest ago.
    fn forget_oldest(&mut self, folder: &Path, newest: &str) {
        while self.artifacts.len() > limits::VERSIONS_KEPT_MAX {
            let last_live = |version: &str| self.state.history.iter().rposition(|entry| entry.version == version);
            let spared = |version: &str| version == newest || self.state.active.as_deref() == Some(version);
            let Some(oldest) = self.artifacts.keys().filter(|version| !spared(version)).min_by_key(|version| last_live(version)).cloned()
            else {
                return;
            };
            self.artifacts.remove(&oldest);
            if let Err(error) = fs::remove_file(folder.join(format!("{oldest}.wasm"))) {
                tracing::warn!(version = oldest, %error, "an old version's file cannot be removed");
            }
        }
    }
}

/// A reader sees the old file or the new one, never half of one.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, bytes)?;
    fs::rename(&unfinished, path)
}
