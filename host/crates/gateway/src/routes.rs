//! Which function a method and a path mean: a table compiled once per snapshot of the services.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderValue, Method};
use metrics::{Counter, Histogram};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;

use super::GatewaySettings;
use super::breaker::Breaker;
use super::header_rules::HeaderRules;
use super::outside::{Outside, OutsideClient};
use super::rate_limit::Rule;
use super::response_cache::{Sharing, etag_of};
use super::services::{Services, Snapshot};
use echo_base::names::ServiceName;
use echo_runtime::manifest::{METHODS, Route, rate_counter};
use echo_runtime::{CallTarget, RouteEntry};

/// A route with all that can be made ready before a request comes.
pub struct CompiledRoute {
    pub target: CallTarget,
    pub route: Arc<Route>,
    /// The whole path with `{variables}`.
    pub pattern: Box<str>,
    /// `METHOD pattern`.
    pub key: Box<str>,
    pub variables: Box<[Box<str>]>,
    pub has_body: bool,
    pub rate: Rule,
    /// Under which it is counted.
    pub rate_counter: u64,
    pub sharing: Sharing,
    /// Of the call, where the operator gave it one.
    pub timeout: Option<Duration>,
    /// Identical requests of one session at one time are served by one call.
    pub deduplicates: bool,
    /// What the operator changes of a request's headers, before anything but identity and rate is decided by them; and of every answer's.
    pub request_headers: Option<HeaderRules>,
    pub response_headers: Option<HeaderRules>,
    pub breaker: Arc<Breaker>,
    /// The route's circuit in its service's breaker.
    pub breaker_index: usize,
    pub duration: Histogram,
    /// Answers with the route's own success status.
    pub successes: Counter,
}

/// What a method and a path led to.
pub enum Found<'t, 'p> {
    /// Values of the path's variables in the route's order, as they came (percent-encoded).
    Route(&'t Arc<CompiledRoute>, Values<'p>),
    WrongMethod {
        allow: &'t HeaderValue,
    },
    Nothing,
}

pub type Values<'p> = Vec<&'p str>;

pub struct RouteTable {
    number: u64,
    paths: matchit::Router<Methods>,
    services: HashMap<ServiceName, ServiceRoutes>,
    /// The longest prefix first.
    outside: Vec<Arc<Outside>>,
    openapi: OnceLock<(Bytes, HeaderValue)>,
    asyncapi: OnceLock<(Bytes, HeaderValue)>,
}

/// The live services with the table of their routes.
pub struct Live<S> {
    pub services: Arc<S>,
    pub settings: GatewaySettings,
    pub outside_client: OutsideClient,
    tables: RouteTables,
}

impl<S: Services> Live<S> {
    pub fn new(services: Arc<S>, settings: GatewaySettings) -> Self {
        Self { services, settings, outside_client: OutsideClient::default(), tables: RouteTables::default() }
    }

    pub fn pin(&self) -> (Arc<S::Snapshot>, Arc<RouteTable>) {
        let snapshot = self.services.pin();
        let table = self.tables.of(&*snapshot, &self.settings);
        (snapshot, table)
    }
}

/// The table of the newest snapshot that was asked for.
#[derive(Default)]
struct RouteTables {
    newest: ArcSwapOption<RouteTable>,
    /// Held while a table is compiled, so that it is done once.
    compiling: Mutex<()>,
}

impl RouteTables {
    fn of(&self, snapshot: &impl Snapshot, settings: &GatewaySettings) -> Arc<RouteTable> {
        let found = || self.newest.load_full().filter(|table| table.number == snapshot.number());
        if let Some(table) = found() {
            return table;
        }
        let _compiling = self.compiling.lock();
        if let Some(table) = found() {
            return table;
        }
        let newest = self.newest.load_full();
        let table = Arc::new(RouteTable::compile(snapshot, settings, newest.as_deref()));
        // A request may still hold the snapshot before the newest; its table must not push out the newer one.
        if newest.is_none_or(|newest| newest.number < table.number) {
            self.newest.store(Some(table.clone()));
        }
        table
    }
}

/// The routes of one path by method, in the order of `METHODS`.
struct Methods {
    routes: [Option<Arc<CompiledRoute>>; METHODS.len()],
    allow: HeaderValue,
}

struct ServiceRoutes {
    breaker: Arc<Breaker>,
    manifest_routes: Vec<Arc<Route>>,
}

impl RouteTable {
    /// Services and outside ones that are the same as in `before` keep their circuit breakers; a swapped or changed one gets a new one.
    fn compile(snapshot: &impl Snapshot, settings: &GatewaySettings, before: Option<&RouteTable>) -> Self {
        let entries: Vec<&RouteEntry> = snapshot.routes().iter().filter(|entry| settings.dev_mode || !entry.route.dev_only).collect();
        let mut services: HashMap<ServiceName, ServiceRoutes> = HashMap::new();
        for name in entries.iter().map(|entry| &entry.target.service) {
            services.entry(name.clone()).or_insert_with(|| {
                let of_service = entries.iter().filter(|entry| entry.target.service == *name && !entry.is_alias);
                // As declared: an override is no new version.
                let manifest_routes: Vec<_> = of_service.map(|entry| entry.declared.clone()).collect();
                let kept = before.and_then(|before| before.services.get(name)).filter(|kept| {
                    kept.manifest_routes.len() == manifest_routes.len()
                        && kept.manifest_routes.iter().zip(&manifest_routes).all(|(a, b)| Arc::ptr_eq(a, b))
                });
                let breaker = kept.map_or_else(|| Arc::new(Breaker::new(name, manifest_routes.len())), |kept| kept.breaker.clone());
                ServiceRoutes { breaker, manifest_routes }
            });
        }

        let mut by_path: HashMap<String, [Option<Arc<CompiledRoute>>; METHODS.len()]> = HashMap::new();
        for entry in &entries {
            let declared = &services[&entry.target.service].manifest_routes;
            // That of the route which an alias stands for.
            let Some(breaker_index) = declared.iter().position(|route| Arc::ptr_eq(route, &entry.declared)) else { continue };
            let Some(method) = METHODS.iter().position(|method| *method == entry.route.method()) else { continue };
            let slot = &mut by_path.entry(positional(&entry.path)).or_default()[method];
            if slot.is_some() {
                tracing::error!(service = %entry.target.service, route = entry.route.http, "a route that another service has already is left out");
                continue;
            }
            let breaker = services[&entry.target.service].breaker.clone();
            *slot = Some(Arc::new(CompiledRoute::new(entry, breaker, breaker_index, settings)));
        }

        let mut paths = matchit::Router::new();
        for (path, routes) in by_path {
            let allow = allow_of(&routes);
            if let Err(error) = paths.insert(path.clone(), Methods { routes, allow }) {
                tracing::error!(%path, %error, "a path that cannot be distinguished from another is left out");
            }
        }
        let mut outside: Vec<Arc<Outside>> = (snapshot.outside().iter())
            .map(|own| {
                let kept = before.and_then(|before| before.outside.iter().find(|kept| *kept.settings == **own));
                kept.cloned().unwrap_or_else(|| Arc::new(Outside::new(own.clone(), settings.rate_scale)))
            })
            .collect();
        outside.sort_by_key(|outside| std::cmp::Reverse(outside.settings.prefix.len()));
        Self { number: snapshot.number(), paths, services, outside, openapi: OnceLock::new(), asyncapi: OnceLock::new() }
    }

    /// The outside service that a path without a route leads to.
    pub fn outside(&self, path: &str) -> Option<&Arc<Outside>> {
        self.outside.iter().find(|outside| outside.covers(path))
    }

    pub fn all_outside(&self) -> &[Arc<Outside>] {
        &self.outside
    }

    pub fn find<'t, 'p>(&'t self, method: &Method, path: &'p str) -> Found<'t, 'p> {
        let Ok(matched) = self.paths.at(path) else { return Found::Nothing };
        // The answer to HEAD is the one to GET without its body, which the server leaves out.
        let wanted = if *method == Method::HEAD { "GET" } else { method.as_str() };
        match METHODS.iter().position(|method| *method == wanted).and_then(|index| matched.value.routes[index].as_ref()) {
            Some(route) => Found::Route(route, matched.params.iter().map(|(_, value)| value).collect()),
            None => Found::WrongMethod { allow: &matched.value.allow },
        }
    }

    /// The largest upload that tus (1.0) makes at this path, if it is spoken there.
    pub fn tus_bytes_max(&self, path: &str) -> Option<u64> {
        let matched = self.paths.at(path).ok()?;
        let streams = matched.value.routes.iter().flatten().filter_map(|route| route.route.stream);
        streams.filter(|stream| stream.kind.is_tus()).map(|stream| stream.bytes_max).min()
    }

    /// Whether the service is left alone by its breaker now.
    pub fn is_breaker_open(&self, service: &ServiceName) -> bool {
        self.services.get(service).is_some_and(|service| service.breaker.is_open())
    }

    /// The OpenAPI document with its ETag.
    pub fn openapi(&self, snapshot: &impl Snapshot) -> &(Bytes, HeaderValue) {
        self.openapi.get_or_init(|| {
            let document = snapshot.openapi();
            let etag = etag_of(&document);
            (document, etag)
        })
    }

    /// The AsyncAPI document with its ETag.
    pub fn asyncapi(&self, snapshot: &impl Snapshot) -> &(Bytes, HeaderValue) {
        self.asyncapi.get_or_init(|| {
            let document = snapshot.asyncapi();
            let etag = etag_of(&document);
            (document, etag)
        })
    }
}

impl CompiledRoute {
    fn new(entry: &RouteEntry, breaker: Arc<Breaker>, breaker_index: usize, settings: &GatewaySettings) -> Self {
        let (method, pattern, service) = (entry.route.method(), entry.path.as_str(), entry.target.service.to_string());
        let key = format!("{method} {pattern}");
        let labels = [("method", method.to_owned()), ("route", pattern.to_owned()), ("service", service.clone())];
        Self {
            target: entry.target.clone(),
            route: entry.route.clone(),
            pattern: pattern.into(),
            variables: variables(pattern).map(Into::into).collect(),
            has_body: !matches!(method, "GET" | "DELETE"),
            rate: Rule::new(&entry.route.rate(), settings.rate_scale),
            rate_counter: rate_counter(&entry.target.service, &entry.route.call),
            sharing: Sharing::of(&entry.route),
            timeout: entry.timeout,
            deduplicates: entry.deduplicates,
            request_headers: entry.headers.as_ref().and_then(|headers| HeaderRules::new(&headers.request)),
            response_headers: entry.headers.as_ref().and_then(|headers| HeaderRules::new(&headers.response)),
            breaker,
            breaker_index,
            duration: metrics::histogram!("echo_http_request_duration_seconds", &labels),
            successes: metrics::counter!(
                "echo_http_requests_total",
                "method" => method.to_owned(), "route" => pattern.to_owned(), "service" => service, "status" => entry.route.status.to_string()
            ),
            key: key.into(),
        }
    }
}

/// Bytes for `%XX` (RFC 3986, section 2.1); none where two digits are missing or that gives no UTF-8.
pub fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    let has_digits = |rest: &str| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    // The library keeps a percent sign without digits as it is.
    if !text.split('%').skip(1).all(has_digits) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok()
}

fn variables(pattern: &str) -> impl Iterator<Item = &str> {
    pattern.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// Two services may name the same place differently; the matcher wants one name.
fn positional(pattern: &str) -> String {
    let mut count = 0;
    let parts = pattern.split('/').map(|part| {
        if !part.starts_with('{') {
            return part.to_owned();
        }
        count += 1;
        format!("{{v{count}}}")
    });
    parts.collect::<Vec<_>>().join("/")
}

fn allow_of(routes: &[Option<Arc<CompiledRoute>>; METHODS.len()]) -> HeaderValue {
    let mut allow: Vec<&str> = METHODS.iter().zip(routes).filter_map(|(method, route)| route.is_some().then_some(*method)).collect();
    if allow.first() == Some(&"GET") {
        allow.insert(1, "HEAD");
    }
    allow.push("OPTIONS");
    HeaderValue::from_str(&allow.join(", ")).expect("names of methods")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::CallOutcome;
    use crate::fakes::{FakeSnapshot, route};

    fn table(routes: &[&str]) -> RouteTable {
        let snapshot = FakeSnapshot::new(1, routes.iter().map(|http| route("test", http, "public", "")).collect());
        RouteTable::compile(&snapshot, &GatewaySettings::default(), None)
    }

    fn check(table: &RouteTable, method: Method, path: &str, expect: &str) {
        let found = match table.find(&method, path) {
            Found::Route(route, values) => format!("{} {}", route.key, values.join(",")).trim().to_owned(),
            Found::WrongMethod { allow } => format!("405 {}", allow.to_str().unwrap()),
            Found::Nothing => "404".to_owned(),
        };
        assert_eq!(found, expect, "{method} {path}");
    }

    #[test]
    fn a_method_and_a_path_lead_to_one_route() {
        let table = table(&[
            "GET /m",
            "POST /m",
            "GET /m/search",
            "GET /m/{id}",
            "PATCH /m/{message_id}",
            "GET /m/{id}/edits",
            "DELETE /c/{a}/p/{b}",
        ]);
        check(&table, Method::GET, "/m", "GET /m");
        check(&table, Method::HEAD, "/m", "GET /m");
        check(&table, Method::POST, "/m", "POST /m");
        check(&table, Method::GET, "/m/search", "GET /m/search");
        check(&table, Method::GET, "/m/7", "GET /m/{id} 7");
        check(&table, Method::PATCH, "/m/7", "PATCH /m/{message_id} 7");
        check(&table, Method::GET, "/m/search/edits", "GET /m/{id}/edits search");
        check(&table, Method::DELETE, "/c/1/p/2", "DELETE /c/{a}/p/{b} 1,2");
        check(&table, Method::DELETE, "/m", "405 GET, HEAD, POST, OPTIONS");
        check(&table, Method::TRACE, "/c/1/p/2", "405 DELETE, OPTIONS");
        check(&table, Method::GET, "/", "404");
        check(&table, Method::GET, "/m/7/8/9", "404");
    }

    #[test]
    fn routes_for_development_are_hidden_elsewhere() {
        let snapshot = FakeSnapshot::new(1, vec![route("test", "GET /dev", "public", "dev_only = true")]);
        for dev_mode in [true, false] {
            let settings = GatewaySettings { dev_mode, ..GatewaySettings::default() };
            let table = RouteTable::compile(&snapshot, &settings, None);
            check(&table, Method::GET, "/dev", if dev_mode { "GET /dev" } else { "404" });
        }
    }

    #[test]
    fn the_first_of_two_same_routes_stays() {
        let first = route("alpha", "GET /x/{a}", "public", "");
        let snapshot = FakeSnapshot::new(1, vec![first, route("beta", "GET /x/{b}", "public", "")]);
        check(&RouteTable::compile(&snapshot, &GatewaySettings::default(), None), Method::GET, "/x/1", "GET /x/{a} 1");
    }

    #[test]
    fn a_table_is_compiled_once_per_snapshot_and_never_goes_back() {
        let (tables, settings) = (RouteTables::default(), GatewaySettings::default());
        let (old, new) = (FakeSnapshot::new(1, Vec::new()), FakeSnapshot::new(2, vec![route("test", "GET /x", "public", "")]));
        let first = tables.of(&old, &settings);
        assert!(Arc::ptr_eq(&first, &tables.of(&old, &settings)));
        let second = tables.of(&new, &settings);
        check(&tables.of(&old, &settings), Method::GET, "/x", "404");
        assert!(Arc::ptr_eq(&second, &tables.of(&new, &settings)));
    }

    #[test]
    fn a_swap_renews_the_breaker_of_the_swapped_service_alone() {
        let settings = GatewaySettings::default();
        let stays = route("stays", "GET /stays", "public", "");
        let again = || stays.clone();
        let before = FakeSnapshot::new(1, vec![again(), route("swapped", "GET /swapped", "public", "")]);
        let after = FakeSnapshot::new(2, vec![again(), route("swapped", "GET /swapped", "public", "")]);
        let old = RouteTable::compile(&before, &settings, None);
        let breaker_of = |table: &RouteTable, path: &str| match table.find(&Method::GET, path) {
            Found::Route(route, _) => route.breaker.clone(),
            _ => panic!("{path} is missing"),
        };
        for path in ["/stays", "/swapped"] {
            let breaker = breaker_of(&old, path);
            for caller in 0..100 {
                if let Ok(permit) = breaker.admit(0, 1) {
                    permit.complete(CallOutcome::Fault, caller, 1);
                }
            }
            assert!(breaker.admit(0, 1).is_err());
        }
        let new = RouteTable::compile(&after, &settings, Some(&old));
        assert!(breaker_of(&new, "/stays").admit(0, 1).is_err());
        assert!(breaker_of(&new, "/swapped").admit(0, 1).is_ok());
    }

    #[test]
    fn percent_signs_are_decoded_and_nonsense_is_not() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(percent_decode(text).as_deref(), expect, "{text}");
        check("plain", Some("plain"));
        check("a%20b%2Fc", Some("a b/c"));
        check("%e2%9c%93", Some("✓"));
        check("+", Some("+"));
        check("%", None);
        check("%2", None);
        check("%zz", None);
        check("%ff", None);
        check("%+1", None);
    }
}
