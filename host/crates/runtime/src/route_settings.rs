//! What the operator changes of the services' routes, and the prefixes that the operator adds: `[[gateway.routes]]` and `[[gateway.prefixes]]` of the
//! settings, held against the manifests. Knows neither files nor an HTTP server.
//!
//! An override never gives more than the service was made for: it makes access no looser, and it lets no answer be kept for others than the person who
//! asked. Where a version of a service leaves no room for an override, the manifest's value holds and the log says so.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::manifest::{Access, CacheScope, METHODS, Manifest, Rate, ResponseCache, Route, duration};
use echo_base::limits;
use echo_contract::changes::FieldChanges;

mod fields;
mod headers;
mod outside;

pub use fields::ChangedFunction;
pub use headers::{HeaderChanges, HeadersOf};
pub use outside::{IdentityKey, OutsidePrefix};

/// All of it. Each entry knows where it was written (`origin`, such as `echo.toml, line 12`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteSettings {
    pub overrides: Vec<RouteOverride>,
    pub prefixes: Vec<AddedPrefix>,
    /// Services that answer nobody.
    pub services_off: Vec<ServiceOff>,
}

/// The name of a service, in a list of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ServiceOff {
    pub origin: String,
    pub name: String,
}

impl From<String> for ServiceOff {
    fn from(name: String) -> Self {
        Self { origin: String::new(), name }
    }
}

impl From<ServiceOff> for String {
    fn from(off: ServiceOff) -> Self {
        off.name
    }
}

/// Changes one route of a service, and what else calls its function where that is counted together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteOverride {
    #[serde(skip)]
    pub origin: String,
    /// `METHOD /whole/path/{variable}`; the variables' names do not matter.
    #[serde(rename = "match")]
    pub route: String,
    #[serde(default)]
    pub access: Option<Access>,
    /// Of all routes and frames that call the same function.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// Of the call, from the request's arrival on.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// `ttl = "0s"` takes the manifest's away.
    #[serde(default)]
    pub cache: Option<ResponseCache>,
    /// Identical GETs of one session at one time are served by one call. Without it: where there is a cache.
    #[serde(default)]
    pub deduplicate: Option<bool>,
    #[serde(default)]
    pub request_headers: HeaderChanges,
    #[serde(default)]
    pub response_headers: HeaderChanges,
    /// Of the query or the body, as the contract has them; those of the path stay.
    #[serde(default)]
    pub request_fields: FieldChanges,
    /// Of a success.
    #[serde(default)]
    pub response_fields: FieldChanges,
}

/// A prefix under which a service's routes are found too, or an outside service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddedPrefix {
    #[serde(skip)]
    pub origin: String,
    /// `/first/second`, without a slash at its end.
    pub prefix: String,
    /// The service whose own prefix this one stands for.
    #[serde(default)]
    pub service: Option<String>,
    /// Of a service: stricter than the routes' own.
    #[serde(default)]
    pub access: Option<Access>,
    /// The address of an outside service. The rest is for one alone; see `OutsidePrefix`.
    #[serde(default)]
    pub target: Option<String>,
    #[serde(default)]
    pub rate: Option<Rate>,
    #[serde(default)]
    pub timeout: Option<Span>,
    #[serde(default)]
    pub idle_timeout: Option<Span>,
    #[serde(default)]
    pub strip_prefix: Option<bool>,
    #[serde(default)]
    pub retries: Option<u32>,
    #[serde(default)]
    pub identity_key: Option<IdentityKey>,
    #[serde(default)]
    pub health: Option<String>,
    #[serde(default)]
    pub request_headers: HeaderChanges,
    #[serde(default)]
    pub response_headers: HeaderChanges,
    #[serde(default)]
    pub request_fields: FieldChanges,
    #[serde(default)]
    pub response_fields: FieldChanges,
}

/// A duration in an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(#[serde(with = "duration")] pub Duration);

/// A route as it is served.
pub(super) struct Effective {
    pub route: Arc<Route>,
    pub timeout: Option<Duration>,
    pub deduplicates: bool,
    pub headers: Option<Arc<RouteHeaders>>,
}

/// What is changed of the headers of a route's requests and answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteHeaders {
    pub request: HeaderChanges,
    pub response: HeaderChanges,
}

impl RouteSettings {
    /// What is wrong whatever the services are. `request_timeout`: the longest that any request may take.
    pub fn problems(&self, request_timeout: Duration) -> Vec<String> {
        let mut problems = Vec::new();
        let mut seen = HashSet::new();
        for own in &self.overrides {
            let mut wrong = |reason: String| problems.push(own.problem(&reason));
            match own.key() {
                Err(reason) => wrong(reason),
                Ok(key) => {
                    if !seen.insert(key) {
                        wrong("another entry changes this route already".to_owned());
                    }
                }
            }
            if own.changes_nothing() {
                wrong(
                    "it changes nothing: give access, rate, timeout, cache, deduplicate, or what happens to headers and fields".to_owned(),
                );
            }
            own.transformation_problems().into_iter().for_each(&mut wrong);
            if let Some(Err(reason)) = own.rate.map(|rate| rate.check()) {
                wrong(reason);
            }
            if own.timeout.is_some_and(|Span(timeout)| timeout.is_zero() || timeout > request_timeout) {
                wrong(format!("timeout must be above 0 and at most server.request_timeout, {} ms", request_timeout.as_millis()));
            }
        }
        let mut seen = HashSet::new();
        for own in &self.prefixes {
            let wrong = [own.check().err(), own.outside().err()].into_iter().flatten();
            for reason in wrong.chain(own.transformation_problems()) {
                problems.push(own.problem(&reason));
            }
            if !seen.insert(&own.prefix) {
                problems.push(own.problem("another entry adds this prefix already"));
            }
        }
        problems
    }

    /// What does not fit these services: routes and services that are not there, each with the nearest, and what would be looser than is possible.
    pub fn problems_with(&self, manifests: &[&Manifest]) -> Vec<String> {
        let mut problems = self.unmatched(manifests);
        problems.extend(self.impossible(manifests));
        problems
    }

    /// What would be looser than is possible for these services. There may be others.
    pub fn impossible(&self, manifests: &[&Manifest]) -> Vec<String> {
        let of_routes = manifests.iter().flat_map(|manifest| self.decide(manifest).problems);
        of_routes.chain(self.prefixes.iter().filter_map(|own| own.within(manifests))).collect()
    }

    fn unmatched(&self, manifests: &[&Manifest]) -> Vec<String> {
        let routes = manifests.iter().flat_map(|manifest| manifest.routes.iter().map(move |route| route.name(&manifest.prefix)));
        let routes: Vec<(RouteKey, String)> = routes.filter_map(|name| Some((key_of(&name).ok()?, name))).collect();
        let known: HashSet<&RouteKey> = routes.iter().map(|(key, _)| key).collect();
        let mut problems = Vec::new();
        for own in &self.overrides {
            if own.key().is_ok_and(|key| !known.contains(&key)) {
                let nearest = nearest(routes.iter().map(|(_, name)| name.as_str()), &own.route);
                problems.push(own.problem(&format!("no service has this route{nearest}")));
            }
        }
        for own in &self.prefixes {
            let Some(service) = &own.service else { continue };
            if !manifests.iter().any(|manifest| manifest.name == *service) {
                let nearest = nearest(manifests.iter().map(|manifest| manifest.name.as_str()), service);
                problems.push(own.problem(&format!("there is no service {service}{nearest}")));
            }
        }
        for ServiceOff { origin, name } in &self.services_off {
            if !manifests.iter().any(|manifest| manifest.name == *name) {
                let nearest = nearest(manifests.iter().map(|manifest| manifest.name.as_str()), name);
                problems.push(format!("{origin}: gateway.services_off: there is no service {name}{nearest}"));
            }
        }
        problems
    }

    /// The prefixes of outside services; not those that are within a service's own.
    pub(super) fn outside(&self, manifests: &[&Manifest]) -> Vec<Arc<OutsidePrefix>> {
        let free = self.prefixes.iter().filter(|own| own.within(manifests).is_none());
        free.filter_map(|own| own.outside().ok().flatten()).map(Arc::new).collect()
    }

    /// What of it holds for one version of a service.
    pub(super) fn decide<'a>(&'a self, manifest: &'a Manifest) -> Decided<'a> {
        let mut decided = Decided { manifest, overrides: HashMap::new(), rates: BTreeMap::new(), problems: Vec::new() };
        if self.overrides.is_empty() {
            return decided;
        }
        let by_key: HashMap<RouteKey, &RouteOverride> = self.overrides.iter().filter_map(|own| Some((own.key().ok()?, own))).collect();
        for route in &manifest.routes {
            let Some(own) = key_of(&route.name(&manifest.prefix)).ok().and_then(|key| by_key.get(&key).copied()) else { continue };
            decided.problems.extend(own.impossible(route, manifest).iter().map(|reason| own.problem(reason)));
            decided.overrides.insert(&route.http, own);
            let Some(rate) = own.rate else { continue };
            if decided.rates.insert(&route.call, rate).is_some_and(|other| other != rate) {
                let reason = format!("the routes that call {} are counted together: give them the same rate", route.call);
                decided.problems.push(own.problem(&reason));
            }
        }
        decided
    }
}

/// The overrides of one service's routes.
pub(super) struct Decided<'a> {
    manifest: &'a Manifest,
    /// By the route as its manifest writes it.
    overrides: HashMap<&'a str, &'a RouteOverride>,
    /// By function.
    rates: BTreeMap<&'a str, Rate>,
    pub problems: Vec<String>,
}

impl Decided<'_> {
    pub fn route(&self, declared: &Arc<Route>) -> Effective {
        let (own, rate) = (self.overrides.get(declared.http.as_str()), self.rates.get(declared.call.as_str()));
        if own.is_none() && rate.is_none() {
            return Effective { route: declared.clone(), timeout: None, deduplicates: declared.cache.is_some(), headers: None };
        }
        let mut route = (**declared).clone();
        if let Some(rate) = rate {
            route.set_rate(*rate);
        }
        let deduplicates = route.cache.is_some();
        let Some(own) = own else { return Effective { route: Arc::new(route), timeout: None, deduplicates, headers: None } };
        if let Some(access) = own.access.as_ref().filter(|access| !is_looser(&declared.access, access)) {
            route.access = access.clone();
        }
        if let Some(cache) = own.cache.as_ref().filter(|cache| cache_problem(cache, declared).is_none()) {
            route.cache = (!cache.ttl.is_zero()).then(|| cache.clone());
        }
        let timeout = own.timeout.map(|Span(timeout)| timeout.min(self.manifest.limits.wall));
        let deduplicates = own.deduplicate.unwrap_or(route.cache.is_some()) && may_be_shared(&route);
        let headers = RouteHeaders { request: own.request_headers.clone(), response: own.response_headers.clone() };
        let headers = (headers != RouteHeaders::default()).then(|| Arc::new(headers));
        Effective { route: Arc::new(route), timeout, deduplicates, headers }
    }

    /// What a frame that calls this function counts against.
    pub fn rate(&self, function: &str) -> Option<Rate> {
        self.rates.get(function).copied()
    }
}

impl RouteOverride {
    fn key(&self) -> Result<RouteKey, String> {
        key_of(&self.route)
    }

    fn problem(&self, reason: &str) -> String {
        format!("{}: gateway.routes {:?}: {reason}", self.origin, self.route)
    }

    fn changes_nothing(&self) -> bool {
        let of_calls = self.access.is_some() || self.rate.is_some() || self.timeout.is_some();
        let of_answers = self.cache.is_some() || self.deduplicate.is_some();
        let of_headers = !self.request_headers.is_empty() || !self.response_headers.is_empty();
        let of_fields = !self.request_fields.is_empty() || !self.response_fields.is_empty();
        !(of_calls || of_answers || of_headers || of_fields)
    }

    fn transformation_problems(&self) -> Vec<String> {
        let method = self.route.split_once(' ').map_or("", |(method, _)| method);
        let request = self.request_headers.problems(HeadersOf::ServiceRequest { method });
        let response = self.response_headers.problems(HeadersOf::ServiceResponse);
        named([request, response, self.request_fields.problems(), self.response_fields.problems()])
    }

    /// What it wants and this version of the service has no room for.
    fn impossible(&self, route: &Route, manifest: &Manifest) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(access) = self.access.as_ref().filter(|access| is_looser(&route.access, access)) {
            reasons.push(format!("access {access} is looser than the service allows: its manifest says {}", route.access));
        }
        if let Some(Span(timeout)) = self.timeout.filter(|Span(timeout)| *timeout > manifest.limits.wall) {
            let (wanted, wall) = (timeout.as_millis(), manifest.limits.wall.as_millis());
            reasons.push(format!("a timeout of {wanted} ms is longer than the service's calls may take: its limits.wall is {wall} ms"));
        }
        reasons.extend(self.cache.as_ref().and_then(|cache| cache_problem(cache, route)));
        if self.deduplicate == Some(true) && !may_be_shared(route) {
            reasons.push("deduplicate is for GET of JSON".to_owned());
        }
        if route.stream.is_some() && !(self.request_fields.is_empty() && self.response_fields.is_empty()) {
            reasons.push("request_fields and response_fields are for JSON: this route's body is a file".to_owned());
        }
        reasons
    }
}

impl AddedPrefix {
    fn check(&self) -> Result<(), String> {
        let parts = self.prefix.strip_prefix('/').map(|parts| parts.split('/').collect::<Vec<_>>()).unwrap_or_default();
        let is_part = |part: &&str| {
            !matches!(*part, "" | "." | "..") && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        };
        if parts.is_empty() || !parts.iter().all(is_part) {
            return Err("a prefix is a path such as /v2/people: letters, digits, - . _ ~, without a slash at its end".to_owned());
        }
        Ok(())
    }

    fn problem(&self, reason: &str) -> String {
        format!("{}: gateway.prefixes {:?}: {reason}", self.origin, self.prefix)
    }

    /// The problem of a target within a service's prefix: some of it would be the service's, and some not.
    fn within(&self, manifests: &[&Manifest]) -> Option<String> {
        self.target.as_ref()?;
        let covers = |prefix: &str| self.prefix.strip_prefix(prefix).is_some_and(|below| below.is_empty() || below.starts_with('/'));
        let service = manifests.iter().find(|manifest| !manifest.prefix.is_empty() && covers(&manifest.prefix))?;
        Some(self.problem(&format!("{} is the prefix of the service {}", service.prefix, service.name)))
    }

    /// A service's route as it is found under this prefix: its path, and the route with the access of both. None for a route outside the service's prefix.
    /// The problem, if any, is that the access would be looser.
    pub(super) fn alias(&self, path: &str, route: &Arc<Route>, service_prefix: &str) -> Option<(String, Arc<Route>, Option<String>)> {
        let below = path.strip_prefix(service_prefix).filter(|below| below.is_empty() || below.starts_with('/'))?;
        let path = format!("{}{below}", self.prefix);
        Some(match &self.access {
            None => (path, route.clone(), None),
            Some(access) if is_looser(&route.access, access) => {
                let reason = format!("access {access} is looser than {} allows, which is {}", route.http, route.access);
                (path, route.clone(), Some(self.problem(&reason)))
            }
            Some(access) => {
                let mut stricter = (**route).clone();
                stricter.access = access.clone();
                (path, Arc::new(stricter), None)
            }
        })
    }

    pub(super) fn taken(&self, method: &str, path: &str) -> String {
        self.problem(&format!("{method} {path} is there already"))
    }
}

/// What is wrong with the four transformations, each with the setting's name before it.
fn named(problems: [Vec<String>; 4]) -> Vec<String> {
    let names = ["request_headers", "response_headers", "request_fields", "response_fields"];
    let all = names.into_iter().zip(problems);
    all.flat_map(|(name, problems)| problems.into_iter().map(move |problem| format!("{name}: {problem}"))).collect()
}

/// A function that is made for known callers gets no others; which role a caller has may be another one.
fn is_looser(declared: &Access, wanted: &Access) -> bool {
    match (declared, wanted) {
        (Access::Public, _) | (Access::User, Access::User | Access::Role(_)) | (Access::Role(_), Access::Role(_)) => false,
        (Access::User, Access::Public) | (Access::Role(_), Access::Public | Access::User) => true,
    }
}

fn may_be_shared(route: &Route) -> bool {
    route.method() == "GET" && route.stream.is_none()
}

fn cache_problem(cache: &ResponseCache, route: &Route) -> Option<String> {
    if cache.ttl.is_zero() {
        return None;
    }
    if !may_be_shared(route) {
        return Some("a cache is for GET of JSON".to_owned());
    }
    if route.has_secret_answer() {
        return Some("its answer is a secret, which is kept in no cache".to_owned());
    }
    let declared = route.cache.as_ref();
    if cache.per == CacheScope::Public && declared.is_none_or(|declared| declared.per != CacheScope::Public) {
        return Some("cache.per = \"public\" would give one person's answer to another: write \"user\"".to_owned());
    }
    let ttl_max =
        Duration::from_secs(if declared.is_some() { limits::ROUTE_CACHE_TTL_S_MAX } else { limits::ROUTE_UNDECLARED_CACHE_TTL_S_MAX });
    (cache.ttl > ttl_max).then(|| match declared {
        Some(_) => format!("cache.ttl is at most {}s", ttl_max.as_secs()),
        None => format!(
            "cache.ttl is at most {}s where the manifest has no cache: what was deleted must not be readable for longer",
            ttl_max.as_secs()
        ),
    })
}

/// A method and a path with its variables' names taken away.
type RouteKey = (String, String);

fn key_of(route: &str) -> Result<RouteKey, String> {
    let wanted = || format!("write match as \"METHOD /path\", the method one of {}", METHODS.join(", "));
    let (method, path) = route.split_once(' ').ok_or_else(wanted)?;
    if !METHODS.contains(&method) || !path.starts_with('/') {
        return Err(wanted());
    }
    let trimmed = path.trim_end_matches('/');
    Ok((method.to_owned(), shape_of(if trimmed.is_empty() { "/" } else { trimmed })))
}

/// Two paths collide when they differ only in the names of their variables.
pub(super) fn shape_of(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect::<Vec<_>>().join("/")
}

/// `; did you mean …?`, where one of the names is near.
fn nearest<'a>(known: impl Iterator<Item = &'a str>, wanted: &str) -> String {
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(known, wanted);
    let best = known.map(|known| (likeness(known), known)).max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness > 0.5);
    best.map(|(_, known)| format!("; did you mean {known}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
