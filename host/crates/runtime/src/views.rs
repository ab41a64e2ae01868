//! What the operator is shown of the services, and other hosts of this one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::Runtime;
use super::backfill::BackfillView;
use super::call::{Stats, StatsView};
use super::catalogue::Generation;
use super::probation;
use super::versions::{HistoryEntry, Versions};
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::nodes::LiveVersion;

/// One service for the operator.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ServiceView {
    pub name: String,
    /// `live`; `failing` where most calls of the live version trap or time out; `off` where no version could be started, or the operator has switched it off.
    pub state: &'static str,
    pub active: Option<String>,
    /// Of the packed file that is live.
    pub sha256: Option<String>,
    /// Of the component in it, as the compiler left it.
    pub component_sha256: Option<String>,
    pub generation: Option<u64>,
    pub versions: Vec<String>,
    /// Kept versions that were rolled away from.
    pub bad_versions: Vec<String>,
    /// How the live version became live.
    pub last_change: Option<HistoryEntry>,
    pub traffic: StatsView,
    /// The live one and those before it on this host, newest first; at most `GENERATIONS_SHOWN`.
    pub generations: Vec<GenerationView>,
    pub instances: u32,
    pub instances_made: u64,
    pub memory_bytes: usize,
    pub calls_running: usize,
    pub routes: Vec<String>,
    pub grants: Vec<String>,
    /// Of the live version.
    pub backfills: Vec<BackfillView>,
}

/// One generation's traffic, also after its end.
#[derive(Debug, Clone, serde::Serialize)]
pub struct GenerationView {
    pub generation: u64,
    pub version: String,
    /// `live`; `draining` while calls that began on it are running; `ended`.
    pub state: &'static str,
    /// Since it became live, in milliseconds.
    pub age_ms: u64,
    pub traffic: StatsView,
}

/// The counters of the last generations of each service on this host.
#[derive(Default)]
pub(super) struct RecentGenerations(Mutex<BTreeMap<ServiceName, VecDeque<Recent>>>);

struct Recent {
    number: u64,
    version: String,
    since: Instant,
    stats: Arc<Stats>,
}

impl RecentGenerations {
    /// A generation that has become live.
    pub(super) fn note(&self, live: &Generation) {
        let recent = Recent { number: live.number(), version: live.version.clone(), since: Instant::now(), stats: live.stats.clone() };
        let mut services = self.0.lock();
        let of_service = services.entry(live.service.clone()).or_default();
        of_service.push_front(recent);
        of_service.truncate(limits::GENERATIONS_SHOWN);
    }

    fn views(&self, service: &ServiceName, live: Option<u64>) -> Vec<GenerationView> {
        let services = self.0.lock();
        let view = |recent: &Recent| {
            let traffic = recent.stats.view();
            let state = match traffic.running {
                _ if Some(recent.number) == live => "live",
                0 => "ended",
                _ => "draining",
            };
            let age_ms = recent.since.elapsed().as_millis() as u64;
            GenerationView { generation: recent.number, version: recent.version.clone(), state, age_ms, traffic }
        };
        services.get(service).into_iter().flatten().map(view).collect()
    }
}

impl Runtime {
    pub fn views(&self) -> Vec<ServiceView> {
        let catalogue = self.pin();
        let services = self.versions.services();
        let view_of = |(service, versions): &(ServiceName, Arc<Versions>)| {
            let live = catalogue.generation(service.as_str());
            let backfills = live.map_or_else(Vec::new, |live| self.backfills.views(live));
            let generations = self.generations.views(service, live.map(|live| live.number()));
            let shown = view(service, versions, live);
            let state = if catalogue.is_off(service.as_str()) { "off" } else { shown.state };
            ServiceView { backfills, generations, state, ..shown }
        };
        services.iter().map(view_of).collect()
    }

    /// By the service's name.
    pub fn live_versions(&self) -> BTreeMap<String, LiveVersion> {
        let version_of = |live: &Arc<Generation>| LiveVersion {
            version: live.version.clone(),
            sha256: live.artifact.sha256.clone(),
            live_ms: live.live_since.get().map_or(0, |since| since.elapsed().as_millis() as u64),
        };
        self.pin().generations().map(|live| (live.service.to_string(), version_of(live))).collect()
    }
}

fn view(service: &ServiceName, versions: &Versions, live: Option<&Arc<Generation>>) -> ServiceView {
    ServiceView {
        name: service.to_string(),
        state: match live {
            Some(live) if probation::is_failing(&live.stats.view()) => "failing",
            Some(_) => "live",
            None => "off",
        },
        active: live.map(|live| live.version.clone()),
        sha256: live.map(|live| live.artifact.sha256.clone()),
        component_sha256: live.map(|live| live.artifact.component_sha256.clone()),
        generation: live.map(|live| live.number()),
        versions: versions.names(),
        bad_versions: versions.bad(),
        last_change: versions.history().last().cloned(),
        traffic: live.map(|live| live.stats.view()).unwrap_or_default(),
        generations: Vec::new(),
        instances: live.map_or(0, |live| live.pool.live_count()),
        instances_made: live.map_or(0, |live| live.pool.made_count()),
        memory_bytes: live.map_or(0, |live| live.pool.idle_memory_bytes()),
        calls_running: live.map_or(0, |live| live.pool.calls_running()),
        routes: live.map_or_else(Vec::new, |live| {
            live.routes.iter().map(|(route, _)| format!("{} {}", route.method(), route.full_path(&live.artifact.manifest.prefix))).collect()
        }),
        grants: live.map_or_else(Vec::new, |live| live.contract.imports().iter().map(|import| import.id.clone()).collect()),
        backfills: Vec::new(),
    }
}
