//! What is live: one generation per service, the routes and frames they serve, and how their types fit each other. Immutable; a swap
//! makes a new catalogue.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::artifact::Artifact;
use super::call::Stats;
use super::linking::{Role, role_of};
use super::long_calls::Predictor;
use super::manifest::{self, Access, PushFrame, Rate, Schedule, rate_counter};
use super::pool::InstancePool;
use super::route_settings::{ChangedFunction, Effective, OutsidePrefix, RouteHeaders, RouteSettings, shape_of};
use echo_base::names::ServiceName;
use echo_contract::adapt::Adapter;
use echo_contract::codec::{EventCodec, ParamBounds, ReplyCodec, RequestCodec};
use echo_contract::wit::{Contract, Function};
use echo_contract::{asyncapi, compat, openapi};

/// One version of one service, ready to be called. Ends when the last request that pinned it is done.
pub struct Generation {
    pub service: ServiceName,
    pub version: String,
    /// Rises with every activation on this host; 0 until it is live.
    pub(super) number: AtomicU64,
    /// Deployed over a good version and still watched (see `probation.rs`).
    pub(super) on_probation: AtomicBool,
    pub(super) live_since: OnceLock<Instant>,
    pub artifact: Arc<Artifact>,
    pub contract: Contract,
    /// The exported functions, in the order of the pool's.
    pub exports: Vec<Export>,
    /// Functions of the service's own `api` by name.
    pub api: HashMap<String, usize>,
    /// What routes, frames and schedules call.
    pub calls: Vec<BoundFunction>,
    pub routes: Vec<(Arc<manifest::Route>, usize)>,
    pub sockets: Vec<(manifest::Socket, usize)>,
    pub schedules: Vec<(Schedule, usize)>,
    /// Topics subscribed to.
    pub topics: HashMap<String, Subscription>,
    pub pool: InstancePool,
    pub stats: Arc<Stats>,
}

impl Generation {
    /// Rises with every activation on this host; 0 until it is live.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// The function behind one of its calls.
    fn function_of(&self, binding: usize) -> Option<&Function> {
        let export = self.exports.get(self.calls.get(binding)?.export)?;
        let interface = self.contract.exports().iter().find(|interface| interface.id == export.interface)?;
        interface.function(&export.name)
    }

    /// How long it has been live; none where it is not on probation.
    pub fn probation_age(&self) -> Option<Duration> {
        self.live_since.get().filter(|_| self.on_probation.load(Ordering::Relaxed)).map(Instant::elapsed)
    }
}

pub struct Export {
    pub interface: String,
    pub name: String,
    /// What other services' calls are held to; clients' are by the codec.
    pub bounds: Option<ParamBounds>,
    pub predictor: Predictor,
}

impl Export {
    pub fn new(interface: &str, function: &Function) -> Self {
        let bounds = ParamBounds::compile(function);
        Self { interface: interface.to_owned(), name: function.name.clone(), bounds, predictor: Predictor::default() }
    }
}

/// A function bound to a route, frame or schedule, with its codecs compiled.
pub struct BoundFunction {
    pub export: usize,
    pub request: RequestCodec,
    pub reply: ReplyCodec,
}

pub struct Subscription {
    pub export: usize,
    pub codec: EventCodec,
    pub reply: ReplyCodec,
    /// One call may take several events.
    pub gathers: bool,
}

/// A function of a service, found by a route, a frame's type or a schedule in one catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallTarget {
    pub service: ServiceName,
    /// Index into the service's calls; meaningful only in the catalogue it came from.
    pub binding: usize,
    /// Index into the catalogue's functions whose fields the operator changed; then those codecs stand for the service's.
    pub changed: Option<usize>,
}

/// A route of a live service.
#[derive(Clone)]
pub struct RouteEntry {
    pub target: CallTarget,
    /// The whole path with `{variables}`, without a trailing slash.
    pub path: String,
    /// As the manifest has it.
    pub declared: Arc<manifest::Route>,
    /// As it is served: with the operator's override.
    pub route: Arc<manifest::Route>,
    /// Of the call, where the operator gave it one.
    pub timeout: Option<Duration>,
    /// Identical requests of one session at one time are served by one call.
    pub deduplicates: bool,
    /// What the operator changes of the headers.
    pub headers: Option<Arc<RouteHeaders>>,
    /// Under a prefix that the operator added.
    pub is_alias: bool,
}

impl RouteEntry {
    /// Without an override.
    pub fn new(target: CallTarget, path: String, route: Arc<manifest::Route>) -> Self {
        let deduplicates = route.cache.is_some();
        Self { target, path, declared: route.clone(), route, timeout: None, deduplicates, headers: None, is_alias: false }
    }
}

/// A type of frames that a live service takes.
pub struct SocketEntry {
    pub target: CallTarget,
    pub rate: Rate,
    /// See `manifest::rate_counter`.
    pub rate_counter: u64,
    /// The role that the routes to the same function want: a frame wants it too.
    pub role: Option<String>,
    /// Of the call, where the operator gave one to a route to the same function.
    pub timeout: Option<Duration>,
}

/// A snapshot of what is live. A root request pins one and every service it reaches is taken from it.
#[derive(Default)]
pub struct Catalogue {
    /// Rises with every swap.
    pub number: u64,
    generations: BTreeMap<ServiceName, Arc<Generation>>,
    settings: Arc<RouteSettings>,
    /// What of the settings does not fit these services, a sentence each.
    settings_problems: Vec<String>,
    outside: Vec<Arc<OutsidePrefix>>,
    /// Functions as clients see them, where the operator changed their fields.
    changed: Vec<(Function, BoundFunction)>,
    routes: Vec<RouteEntry>,
    sockets: HashMap<String, SocketEntry>,
    /// How one service's calls are made to fit another's types; only where they differ.
    adapters: HashMap<ServiceName, HashMap<String, Fit>>,
    openapi: OnceLock<Bytes>,
    asyncapi: OnceLock<Bytes>,
}

/// How a call of one service reaches a function of another whose types differ.
pub enum Fit {
    Adapted(Adapter),
    /// The call cannot be made: such a pair is live only if the operator forced it.
    Unfit,
}

/// A service whose import does not fit the live version of the exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    pub importer: ServiceName,
    pub exporter: ServiceName,
    reason: String,
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} calls {}: {}", self.importer, self.exporter, self.reason)
    }
}

impl Catalogue {
    /// The next catalogue: this one with `generation` in place of its service's old one, and where that does not fit the others.
    /// Errors: routes and frames that another service has already, a sentence each.
    pub fn with(&self, generation: Arc<Generation>) -> Result<(Self, Vec<Unfit>), Vec<String>> {
        let service = generation.service.clone();
        let mut generations = self.generations.clone();
        generations.insert(service.clone(), generation);
        let (catalogue, mut unfit) = Self::of(self.number + 1, generations, self.settings.clone())?;
        // Other pairs that do not fit each other are not reported.
        unfit.retain(|unfit| unfit.importer == service || unfit.exporter == service);
        Ok((catalogue, unfit))
    }

    /// The next catalogue: the same services, with other settings of their routes.
    pub fn with_settings(&self, settings: Arc<RouteSettings>) -> Result<Self, Vec<String>> {
        Self::of(self.number + 1, self.generations.clone(), settings).map(|(catalogue, _)| catalogue)
    }

    fn of(
        number: u64,
        generations: BTreeMap<ServiceName, Arc<Generation>>,
        settings: Arc<RouteSettings>,
    ) -> Result<(Self, Vec<Unfit>), Vec<String>> {
        let mut unfit = Vec::new();
        let mut reasons = Vec::new();
        let manifests: Vec<_> = generations.values().map(|generation| &generation.artifact.manifest).collect();
        let settings_problems = settings.problems_with(&manifests);
        let outside = settings.outside(&manifests);
        let mut catalogue = Self { number, settings, settings_problems, outside, ..Self::default() };
        let mut taken: HashMap<(String, String), ServiceName> = HashMap::new();
        let mut pushed: HashMap<String, &ServiceName> = HashMap::new();
        let settings = catalogue.settings.clone();
        for (service, generation) in &generations {
            let manifest = &generation.artifact.manifest;
            let decided = settings.decide(manifest);
            let first = catalogue.routes.len();
            for (declared, binding) in &generation.routes {
                let path = declared.full_path(&manifest.prefix);
                let shape = (declared.method().to_owned(), shape_of(&path));
                if let Some(other) = taken.insert(shape, service.clone()) {
                    reasons.push(format!("{} {path} is served by {other} and by {service}", declared.method()));
                }
                let changed = catalogue.change_fields(generation, *binding, |function| decided.fields(declared, function));
                let target = CallTarget { service: service.clone(), binding: *binding, changed };
                let Effective { route, timeout, deduplicates, headers } = decided.route(declared);
                let declared = declared.clone();
                catalogue.routes.push(RouteEntry { target, path, declared, route, timeout, deduplicates, headers, is_alias: false });
            }
            for event in manifest.frames.iter().filter_map(PushFrame::event) {
                if let Some(other) = pushed.insert(event.clone(), service).filter(|other| *other != service) {
                    reasons.push(format!("frames of type {event} are pushed by {other} and by {service}"));
                }
            }
            for (socket, binding) in &generation.sockets {
                let target = CallTarget { service: service.clone(), binding: *binding, changed: None };
                let rate = decided.rate(&socket.call).unwrap_or_else(|| manifest.rate_of(socket));
                let same: Vec<_> = catalogue.routes[first..].iter().filter(|entry| entry.route.call == socket.call).collect();
                // A frame is no way around what its routes want of a caller.
                let role = same.iter().find_map(|entry| match &entry.route.access {
                    Access::Role(role) => Some(role.clone()),
                    Access::Public | Access::User => None,
                });
                let timeout = same.iter().filter_map(|entry| entry.timeout).min();
                let entry = SocketEntry { target, rate, rate_counter: rate_counter(service, &socket.call), role, timeout };
                if let Some(other) = catalogue.sockets.insert(socket.event.clone(), entry) {
                    reasons.push(format!("frames of type {} are served by {} and by {service}", socket.event, other.target.service));
                }
            }
            unfit.extend(catalogue.fit(generation, &generations));
        }
        if !reasons.is_empty() {
            return Err(reasons);
        }
        catalogue.add_prefixes(&generations, taken);
        catalogue.generations = generations;
        Ok((catalogue, unfit))
    }

    /// Where it stands among the changed functions, if it is changed. What does not fit is noted, and the function serves as it is.
    fn change_fields(
        &mut self,
        generation: &Generation,
        binding: usize,
        change: impl Fn(&Function) -> Option<Result<ChangedFunction, Vec<String>>>,
    ) -> Option<usize> {
        match change(generation.function_of(binding)?)? {
            Ok(ChangedFunction { function, request, reply }) => {
                let export = generation.calls[binding].export;
                self.changed.push((function, BoundFunction { export, request, reply }));
                Some(self.changed.len() - 1)
            }
            Err(problems) => {
                self.settings_problems.extend(problems);
                None
            }
        }
    }

    /// After all routes of the manifests, which go first where two have one path.
    fn add_prefixes(&mut self, generations: &BTreeMap<ServiceName, Arc<Generation>>, mut taken: HashMap<(String, String), ServiceName>) {
        for added in &self.settings.clone().prefixes {
            let Some((service, generation)) = added.service.as_deref().and_then(|name| generations.get_key_value(name)) else { continue };
            let own: Vec<_> = self.routes.iter().filter(|entry| entry.target.service == *service && !entry.is_alias).cloned().collect();
            for entry in own {
                let Some((path, route, problem)) = added.alias(&entry.path, &entry.route, &generation.artifact.manifest.prefix) else {
                    continue;
                };
                self.settings_problems.extend(problem);
                if taken.insert((route.method().to_owned(), shape_of(&path)), service.clone()).is_some() {
                    self.settings_problems.push(added.taken(route.method(), &path));
                    continue;
                }
                self.routes.push(RouteEntry { path, route, is_alias: true, ..entry });
            }
        }
    }

    /// Checks one importer against the exporters that are live, and keeps the adapters that are needed.
    fn fit(&mut self, importer: &Generation, generations: &BTreeMap<ServiceName, Arc<Generation>>) -> Vec<Unfit> {
        let mut unfit = Vec::new();
        for import in importer.contract.imports().iter().filter(|import| role_of(import) == Role::ServiceApi) {
            let Some(exporter) = generations.get(import.package.as_str()) else { continue };
            for found in compat::check_dependent(&importer.contract, &exporter.contract) {
                let (importer, exporter) = (importer.service.clone(), exporter.service.clone());
                unfit.push(Unfit { importer, exporter, reason: found.to_string() });
            }
            let exported =
                exporter.contract.exports().iter().find(|export| role_of(export) == Role::ServiceApi && export.package == import.package);
            for function in &import.functions {
                let Some(target) = exported.and_then(|export| export.function(&function.name)) else { continue };
                let fit = match Adapter::compile(&import.id, function, target) {
                    Ok(adapter) if adapter.is_identity() => continue,
                    Ok(adapter) => Fit::Adapted(adapter),
                    // `check_dependent` has reported why.
                    Err(_) => Fit::Unfit,
                };
                let key = format!("{}.{}", import.package, function.name);
                self.adapters.entry(importer.service.clone()).or_default().insert(key, fit);
            }
        }
        unfit
    }

    /// The function that a target means, with its codecs: none in a catalogue that it did not come from.
    pub fn bound<'c>(&'c self, generation: &'c Generation, target: &CallTarget) -> Option<&'c BoundFunction> {
        match target.changed {
            Some(index) => self.changed.get(index).map(|(_, bound)| bound),
            None => generation.calls.get(target.binding),
        }
    }

    pub fn generation(&self, service: &str) -> Option<&Arc<Generation>> {
        self.generations.get(service)
    }

    /// Whether the operator has switched the service off (`gateway.services_off`): it is neither called by clients nor by services, events, schedules.
    pub fn is_off(&self, service: &str) -> bool {
        self.settings.services_off.iter().any(|off| off.name == service)
    }

    pub fn generations(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.generations.values()
    }

    /// `function` is `package.name`; none where the types are the same.
    pub fn fit_of(&self, importer: &ServiceName, function: &str) -> Option<&Fit> {
        self.adapters.get(importer)?.get(function)
    }

    pub fn routes(&self) -> &[RouteEntry] {
        &self.routes
    }

    /// The operator's prefixes of outside services.
    pub fn outside(&self) -> &[Arc<OutsidePrefix>] {
        &self.outside
    }

    /// What of the operator's settings of routes does not fit the live services, a sentence each. The manifests' values hold there.
    pub fn settings_problems(&self) -> &[String] {
        &self.settings_problems
    }

    /// What is bound to a frame's type.
    pub fn socket(&self, event: &str) -> Option<&SocketEntry> {
        self.sockets.get(event)
    }

    /// Live services, for `/ready`.
    pub fn services(&self) -> Vec<ServiceName> {
        self.generations.keys().cloned().collect()
    }

    /// The OpenAPI 3.1 document of all live services; made once per catalogue.
    pub fn openapi(&self) -> Bytes {
        self.openapi.get_or_init(|| Bytes::from(self.openapi_document().to_string())).clone()
    }

    /// The AsyncAPI 3.0 document of the frames of all live services; made once per catalogue.
    pub fn asyncapi(&self) -> Bytes {
        self.asyncapi.get_or_init(|| Bytes::from(self.asyncapi_document().to_string())).clone()
    }

    fn asyncapi_document(&self) -> serde_json::Value {
        let mut client = Vec::new();
        for (event, entry) in self.sockets.iter().collect::<BTreeMap<_, _>>() {
            let generation = &self.generations[&entry.target.service];
            let function = generation.function_of(entry.target.binding);
            client.extend(function.map(|function| asyncapi::ClientFrame { event, function }));
        }
        let mut pushed = Vec::new();
        for generation in self.generations.values() {
            let pushes = generation.contract.imports().iter().filter(|import| role_of(import) == Role::ServicePushes);
            for function in pushes.flat_map(|interface| &interface.functions) {
                let frame = generation.artifact.manifest.frames.iter().find(|frame| frame.call == function.name);
                let Some((frame, event)) = frame.and_then(|frame| Some((frame, frame.event()?))) else { continue };
                let durable = frame.class != Some(manifest::PushClass::Ephemeral);
                pushed.push(asyncapi::PushedFrame { event, durable, function });
            }
        }
        asyncapi::document("Echo", env!("CARGO_PKG_VERSION"), &client, &pushed)
    }

    fn openapi_document(&self) -> serde_json::Value {
        let mut operations = Vec::new();
        for entry in self.routes.iter().filter(|entry| !entry.route.dev_only) {
            let generation = &self.generations[&entry.target.service];
            let changed = entry.target.changed.map(|index| &self.changed[index].0);
            let Some(function) = changed.or_else(|| generation.function_of(entry.target.binding)) else { continue };
            operations.push(openapi::Operation {
                service: generation.service.as_str(),
                contract: &generation.contract,
                function,
                method: entry.route.method(),
                path: &entry.path,
                public: entry.route.access == Access::Public,
                role: match &entry.route.access {
                    Access::Role(role) => Some(role.as_str()),
                    Access::Public | Access::User => None,
                },
                status: entry.route.status,
                status_unless: entry.route.status_unless.as_ref().map(|unless| (unless.field.as_str(), unless.status)),
                file: entry.route.stream.and_then(|stream| match stream.kind {
                    manifest::StreamKind::Upload => Some(openapi::File::Form),
                    manifest::StreamKind::TusCreate => Some(openapi::File::Begin { bytes_max: stream.bytes_max }),
                    manifest::StreamKind::TusAppend => Some(openapi::File::Bytes),
                    manifest::StreamKind::Download => Some(openapi::File::Answer),
                    manifest::StreamKind::TusState => None,
                }),
            });
        }
        openapi::document("Echo", env!("CARGO_PKG_VERSION"), &operations)
    }
}
