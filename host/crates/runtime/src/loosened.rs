//! Changes of a new version that the operator has to confirm, each by its name: routes and frames removed, access, rates or caches loosened,
//! imports added. Types are compared in `contract::compat`. Knows no engine and no data.

use std::collections::BTreeSet;

use super::linking::{Role, role_of, without_version};
use super::manifest::{Access, CacheScope, Manifest, Rate, Route};
use echo_contract::wit::Contract;

/// A change that is refused unless it is confirmed by its name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// What `allow` takes, such as `route-removed:GET /api/v1/users/{id}` or `grant:echo:sql/sql`.
    pub name: String,
    /// What the change is, as a sentence.
    pub detail: String,
    /// The operator has confirmed it.
    pub confirmed: bool,
}

/// The parts of a version that are compared.
pub struct Version<'a> {
    pub manifest: &'a Manifest,
    pub contract: &'a Contract,
}

/// What `new` loosens, removes or imports beyond `old`, in a fixed order.
pub fn changes(old: &Version<'_>, new: &Version<'_>, allowed: &BTreeSet<String>) -> Vec<Change> {
    let mut found = Vec::new();
    let mut add = |kind: &str, what: &str, detail: String| {
        let name = format!("{kind}:{what}");
        let confirmed = allowed.contains(&name);
        found.push(Change { name, detail, confirmed });
    };
    let name_of = |manifest: &Manifest, route: &Route| format!("{} {}", route.method(), route.full_path(&manifest.prefix));
    for before in &old.manifest.routes {
        let name = name_of(old.manifest, before);
        match new.manifest.routes.iter().find(|route| is_same(old.manifest, before, new.manifest, route)) {
            None => add("route-removed", &name, "it is not there any more".to_owned()),
            Some(after) => compare(before, after, |kind, detail| add(kind, &name, detail)),
        }
    }
    for before in &old.manifest.sockets {
        match new.manifest.sockets.iter().find(|socket| socket.event == before.event) {
            None => add("frame-removed", &before.event, "frames of this type are not taken any more".to_owned()),
            Some(after) => {
                if after.call != before.call {
                    add("frame-call", &before.event, format!("it called {} and calls {}", before.call, after.call));
                }
                let (was, is) = (old.manifest.rate_of(before), new.manifest.rate_of(after));
                if is_looser(&was, &is) {
                    add("frame-rate", &before.event, format!("its rate was {} and is {}", text_of(&was), text_of(&is)));
                }
            }
        }
    }
    let had = imports(old.contract);
    for import in imports(new.contract).difference(&had) {
        add("grant", import, "it imports what the running version does not".to_owned());
    }
    let (was, is) = (old.manifest.limits.feed_events_per_day, new.manifest.limits.feed_events_per_day);
    if is > was {
        add("feed-events", "per-day", format!("it pushed at most {was} events a day into one user's feed, and pushes at most {is}"));
    }
    for host in new.manifest.grants.http.iter().filter(|host| !old.manifest.grants.http.contains(host)) {
        add("grant", &format!("http:{host}"), "it asks for outgoing HTTP to this host".to_owned());
    }
    for credential in new.manifest.grants.credentials.iter().filter(|name| !old.manifest.grants.credentials.contains(name)) {
        add("grant", &format!("credential:{credential}"), "it asks for requests signed with this credential".to_owned());
    }
    found
}

/// One route's changes, each a kind and the detail.
fn compare(before: &Route, after: &Route, mut add: impl FnMut(&str, String)) {
    if before.access != after.access {
        add("route-access", format!("its access was {} and is {}", before.access, after.access));
    }
    match (before.dev_only, after.dev_only) {
        (true, false) => add("route-exposed", "it was served in development mode only".to_owned()),
        (false, true) => add("route-removed", "it is served in development mode only".to_owned()),
        _ => {}
    }
    let (was, is) = (before.rate(), after.rate());
    if is_looser(&was, &is) {
        add("route-rate", format!("its rate was {} and is {}", text_of(&was), text_of(&is)));
    }
    let shares =
        |route: &Route| route.cache.as_ref().is_some_and(|cache| cache.per == CacheScope::Public) && route.access != Access::Public;
    if shares(after) && !shares(before) {
        add("route-cache", "one user's answer is kept for all".to_owned());
    }
    if before.call != after.call {
        add("route-call", format!("it called {} and calls {}", before.call, after.call));
    }
    if (before.status, &before.status_unless) != (after.status, &after.status_unless) {
        add("route-status", format!("its success status was {} and is {}", before.status, after.status));
    }
}

/// Whether both serve the same requests: the names of variables do not matter.
fn is_same(old: &Manifest, before: &Route, new: &Manifest, after: &Route) -> bool {
    let shape = |manifest: &Manifest, route: &Route| -> Vec<String> {
        let path = route.full_path(&manifest.prefix);
        path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }.to_owned()).collect()
    };
    before.method() == after.method() && shape(old, before) == shape(new, after)
}

/// Whether `new` allows more requests over time, a larger burst, or counts another subject.
fn is_looser(before: &Rate, after: &Rate) -> bool {
    let in_the_long_run = |rate: &Rate, other: &Rate| u128::from(rate.limit) * other.window.as_millis();
    after.per != before.per || after.limit > before.limit || in_the_long_run(after, before) > in_the_long_run(before, after)
}

pub fn text_of(rate: &Rate) -> String {
    format!("{} per {} ms and {:?}", rate.limit, rate.window.as_millis(), rate.per).to_lowercase()
}

/// Imports that give no access to anything beyond the service: its own settings, the log, the empty WASI.
const HARMLESS: [&str; 3] = ["echo:config/config", "echo:context/context", "echo:log/log"];

/// The other imports, without their versions.
fn imports(contract: &Contract) -> BTreeSet<String> {
    let imports = contract.imports().iter().filter(|import| !matches!(role_of(import), Role::Types | Role::Wasi));
    imports.map(|import| without_version(&import.id).to_owned()).filter(|id| !HARMLESS.contains(&id.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract_of(world: &str) -> Contract {
        let text = echo_contract::wit::wit_text(&echo_fixture::wit_dir(), world).unwrap();
        Contract::decode(&echo_fixture::component(world), Some(&text)).unwrap()
    }

    const BASE: &str = r#"
name = "location"
version = "0.1.0"
prefix = "/api/v1/location"
[[route]]
http = "GET /a/{id}"
call = "lookup"
access = "user"
rate = { per = "user", strategy = "sliding-window", limit = 10, window = "1m" }
[[route]]
http = "POST /b"
call = "find"
access = "public"
rate = { per = "ip", strategy = "token-bucket", limit = 20, window = "1m" }
[[socket]]
event = "where"
call = "watch"
rate = { per = "user", strategy = "token-bucket", limit = 30, window = "1m" }
[grants]
http = ["a.example:443"]
"#;

    fn check(replaced: &[(&str, &str)], expect: &[&str]) {
        let text = replaced.iter().fold(BASE.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        let contract = contract_of("location");
        let (old, new) = (Manifest::parse(BASE).unwrap(), Manifest::parse(&text).unwrap());
        let version = |manifest| Version { manifest, contract: &contract };
        let allowed = BTreeSet::from(["route-removed:POST /api/v1/location/b".to_owned()]);
        let found = changes(&version(&old), &version(&new), &allowed);
        assert_eq!(found.iter().map(|change| change.name.as_str()).collect::<Vec<_>>(), expect, "{found:?}");
        assert!(found.iter().all(|change| change.confirmed == allowed.contains(&change.name)));
    }

    #[test]
    fn what_adds_or_tightens_needs_no_confirmation() {
        check(&[], &[]);
        check(&[("{id}", "{number}")], &[]);
        check(&[("limit = 10", "limit = 9")], &[]);
        check(&[("limit = 10, window = \"1m\"", "limit = 10, window = \"2m\"")], &[]);
        let rate = "rate = { per = \"user\", strategy = \"token-bucket\", limit = 5, window = \"1m\" }";
        let added = format!("[[route]]\nhttp = \"GET /c\"\ncall = \"more\"\naccess = \"public\"\n{rate}\n[[socket]]");
        check(&[("[[socket]]", &added)], &[]);
        check(&[("[\"a.example:443\"]", "[]")], &[]);
        check(&[("[grants]", "[limits]\nfeed_events_per_day = 999\n[grants]")], &[]);
    }

    #[test]
    fn what_loosens_or_takes_away_is_named() {
        let (a, b) = ("GET /api/v1/location/a/{id}", "POST /api/v1/location/b");
        check(&[("access = \"user\"", "access = \"public\"")], &[&format!("route-access:{a}")]);
        check(&[("access = \"public\"", "access = \"role:admin\"")], &[&format!("route-access:{b}")]);
        check(&[("POST /b", "POST /c")], &[&format!("route-removed:{b}")]);
        check(&[("POST /b", "PUT /b")], &[&format!("route-removed:{b}")]);
        check(&[("\"/api/v1/location\"", "\"/api/v2/location\"")], &[&format!("route-removed:{a}"), &format!("route-removed:{b}")]);
        check(&[("limit = 10", "limit = 11")], &[&format!("route-rate:{a}")]);
        check(&[("limit = 10, window = \"1m\"", "limit = 10, window = \"1s\"")], &[&format!("route-rate:{a}")]);
        check(&[("per = \"user\", strategy = \"sliding", "per = \"ip\", strategy = \"sliding")], &[&format!("route-rate:{a}")]);
        check(&[("limit = 30", "limit = 31")], &["frame-rate:where"]);
        check(&[("access = \"user\"", "access = \"user\"\ncache = { ttl = \"1h\", per = \"public\" }")], &[&format!("route-cache:{a}")]);
        check(&[("access = \"user\"", "access = \"user\"\nstatus = 201")], &[&format!("route-status:{a}")]);
        check(&[("access = \"user\"", "access = \"user\"\ndev_only = true")], &[&format!("route-removed:{a}")]);
        check(&[("event = \"where\"", "event = \"whence\"")], &["frame-removed:where"]);
        check(&[("[grants]", "[limits]\nfeed_events_per_day = 1001\n[grants]")], &["feed-events:per-day"]);
        check(&[("[\"a.example:443\"]", "[\"a.example:443\", \"b.example:443\"]")], &["grant:http:b.example:443"]);
        check(&[("[\"a.example:443\"]", "[\"a.example:443\"]\ncredentials = [\"fcm\"]")], &["grant:credential:fcm"]);
    }

    #[test]
    fn an_import_that_is_new_is_a_grant() {
        let manifest = Manifest::parse(BASE).unwrap();
        let (small, large) = (contract_of("location"), contract_of("auth"));
        let found = changes(
            &Version { manifest: &manifest, contract: &small },
            &Version { manifest: &manifest, contract: &large },
            &BTreeSet::from(["grant:echo:sql/sql".to_owned()]),
        );
        let names: Vec<&str> = found.iter().map(|change| change.name.as_str()).collect();
        assert!(names.contains(&"grant:echo:sql/sql") && names.contains(&"grant:echo:tokens/tokens"), "{names:?}");
        assert!(!names.iter().any(|name| name.contains("context") || name.contains("log")), "{names:?}");
        assert!(found.iter().all(|change| change.confirmed == (change.name == "grant:echo:sql/sql")));
    }
}
