//! What the operator may change of routes, and what not, over manifests of two services.

use super::*;

const MANIFEST: &str = r#"
name = "user"
version = "0.1.0"
prefix = "/api/v1/users"
[[route]]
http = "GET /me"
call = "me"
access = "user"
rate = { per = "user", strategy = "token-bucket", limit = 600, window = "1m" }
[[route]]
http = "GET /{user_id}"
call = "get-user"
access = "user"
rate = { per = "user", strategy = "token-bucket", limit = 600, window = "1m" }
[[route]]
http = "GET /by-name/{name}"
call = "get-user"
access = "role:support"
rate = { per = "user", strategy = "token-bucket", limit = 600, window = "1m" }
[[route]]
http = "GET /numbers"
call = "numbers"
access = "public"
cache = { ttl = "1h", per = "public" }
rate = { per = "ip", strategy = "token-bucket", limit = 600, window = "1m" }
[[route]]
http = "POST /"
call = "create"
access = "user"
rate = { per = "user", strategy = "token-bucket", limit = 60, window = "1m" }
[[route]]
http = "GET /{user_id}/exported/archive/content"
call = "file"
access = "user"
stream = { kind = "download" }
rate = { per = "user", strategy = "token-bucket", limit = 60, window = "1m" }
[[socket]]
event = "get_user"
call = "get-user"
[limits]
wall = "5s"
"#;
const RATE: &str = r#"rate = { per = "user", strategy = "fixed-window", limit = 7, window = "1m" }"#;

fn manifest() -> Manifest {
    Manifest::parse(MANIFEST).unwrap()
}

/// One entry a text, on lines that count from 1.
fn settings(entries: &[&str]) -> RouteSettings {
    let overrides = entries.iter().enumerate().map(|(index, entry)| {
        let read: RouteOverride = toml::from_str(entry).unwrap();
        RouteOverride { origin: format!("line {}", index + 1), ..read }
    });
    RouteSettings { overrides: overrides.collect(), prefixes: Vec::new(), services_off: Vec::new() }
}

/// Each is refused with this text, and nothing else is said.
fn refused(entry: &str, expect: &str) {
    let settings = settings(&[entry]);
    let mut problems = settings.problems(Duration::from_secs(30));
    problems.extend(settings.problems_with(&[&manifest()]));
    assert!(problems.iter().any(|problem| problem.starts_with("line 1: ") && problem.contains(expect)), "{entry}: {problems:?}");
}

fn effective(settings: &RouteSettings, http: &str) -> Effective {
    let manifest = manifest();
    let route = manifest.routes.iter().find(|route| route.http == http).unwrap().clone();
    settings.decide(&manifest).route(&route.into())
}

#[test]
fn an_override_changes_its_route_and_no_other() {
    let settings = settings(&[
        "match = \"GET /api/v1/users/{id}\"\naccess = \"role:staff\"\ntimeout = \"2s\"\ncache = { ttl = \"10s\", per = \"user\" }",
    ]);
    assert_eq!(settings.problems(Duration::from_secs(30)), Vec::<String>::new());
    assert_eq!(settings.problems_with(&[&manifest()]), Vec::<String>::new());
    let Effective { route, timeout, .. } = effective(&settings, "GET /{user_id}");
    assert_eq!(route.access, Access::Role("staff".to_owned()));
    assert_eq!((timeout, route.cache.as_ref().map(|cache| cache.ttl)), (Some(Duration::from_secs(2)), Some(Duration::from_secs(10))));
    let Effective { route, timeout, .. } = effective(&settings, "GET /me");
    assert_eq!((&route.access, timeout, route.cache.is_none()), (&Access::User, None, true));
}

#[test]
fn a_rate_holds_for_everything_that_calls_the_function() {
    let settings = settings(&[&format!("match = \"GET /api/v1/users/{{id}}\"\n{RATE}")]);
    for http in ["GET /{user_id}", "GET /by-name/{name}"] {
        assert_eq!(effective(&settings, http).route.rate().limit, 7, "{http}");
    }
    assert_eq!(effective(&settings, "GET /me").route.rate().limit, 600);
    assert_eq!(settings.decide(&manifest()).rate("get-user").unwrap().limit, 7, "of frames");
}

#[test]
fn an_unknown_route_is_refused_with_the_nearest() {
    refused("match = \"GET /api/v1/user/{id}\"\ntimeout = \"1s\"", "no service has this route; did you mean GET /api/v1/users/{user_id}?");
    refused("match = \"GET /elsewhere\"\ntimeout = \"1s\"", "no service has this route");
    refused("match = \"FETCH /api/v1/users/me\"\ntimeout = \"1s\"", "METHOD /path");
    refused("match = \"/api/v1/users/me\"\ntimeout = \"1s\"", "METHOD /path");
}

#[test]
fn nothing_gets_looser_than_its_service_allows() {
    for (entry, expect) in [
        ("match = \"GET /api/v1/users/me\"\naccess = \"public\"", "access public is looser"),
        ("match = \"GET /api/v1/users/by-name/{n}\"\naccess = \"user\"", "access user is looser"),
        ("match = \"GET /api/v1/users/me\"\ntimeout = \"6s\"", "limits.wall is 5000 ms"),
        ("match = \"GET /api/v1/users/me\"\ntimeout = \"31s\"", "server.request_timeout"),
        ("match = \"GET /api/v1/users/me\"\ntimeout = \"0s\"", "above 0"),
        ("match = \"GET /api/v1/users/me\"\ncache = { ttl = \"10s\", per = \"public\" }", "one person's answer"),
        ("match = \"GET /api/v1/users/me\"\ncache = { ttl = \"1m\", per = \"user\" }", "at most 30s"),
        ("match = \"GET /api/v1/users/numbers\"\ncache = { ttl = \"2d\", per = \"public\" }", "at most 86400s"),
        ("match = \"POST /api/v1/users\"\ncache = { ttl = \"1s\", per = \"user\" }", "for GET"),
        ("match = \"POST /api/v1/users\"\ndeduplicate = true", "for GET"),
        ("match = \"GET /api/v1/users/me\"", "changes nothing"),
        ("match = \"GET /api/v1/users/me\"\nrequest_headers = { set = { Authorization = \"x\" } }", "request_headers: set Authorization"),
        (
            "match = \"GET /api/v1/users/me\"\nresponse_headers = { remove = [\"Content-Length\"] }",
            "response_headers: remove Content-Length",
        ),
        ("match = \"GET /api/v1/users/me\"\nrequest_fields = { rename = { a = \"c\", b = \"c\" } }", "request_fields: rename: two fields"),
        (
            "match = \"GET /api/v1/users/me\"\nresponse_fields = { default = { \"a..b\" = 1 } }",
            "response_fields: default: \"a..b\" is no field",
        ),
        ("match = \"GET /api/v1/users/{user_id}/exported/archive/content\"\nrequest_fields = { default = { a = 1 } }", "body is a file"),
        ("match = \"GET /api/v1/users/me\"\nrate = { per = \"user\", strategy = \"token-bucket\", limit = 0, window = \"1m\" }", "above 0"),
    ] {
        refused(entry, expect);
    }
    let twice = settings(&["match = \"GET /a/{b}\"\ntimeout = \"1s\"", "match = \"GET /a/{c}/\"\ntimeout = \"1s\""]);
    assert!(twice.problems(Duration::from_secs(30))[0].starts_with("line 2: "));
    let other = RATE.replace('7', "8");
    let torn = settings(&[
        &format!("match = \"GET /api/v1/users/{{id}}\"\n{RATE}"),
        &format!("match = \"GET /api/v1/users/by-name/{{id}}\"\n{other}"),
    ]);
    assert!(torn.problems_with(&[&manifest()])[0].contains("give them the same rate"));
}

#[test]
fn where_a_version_leaves_no_room_its_manifest_holds() {
    let settings = settings(&[
        "match = \"GET /api/v1/users/by-name/{n}\"\naccess = \"user\"\ntimeout = \"9s\"",
        "match = \"GET /api/v1/users/me\"\ncache = { ttl = \"10s\", per = \"public\" }",
    ]);
    let Effective { route, timeout, .. } = effective(&settings, "GET /by-name/{name}");
    assert_eq!((&route.access, timeout), (&Access::Role("support".to_owned()), Some(Duration::from_secs(5))));
    assert!(effective(&settings, "GET /me").route.cache.is_none());
}

#[test]
fn a_cache_of_the_manifest_is_taken_away() {
    let settings = settings(&["match = \"GET /api/v1/users/numbers\"\ncache = { ttl = \"0s\", per = \"public\" }"]);
    assert!(settings.problems_with(&[&manifest()]).is_empty());
    assert!(effective(&settings, "GET /numbers").route.cache.is_none());
}

#[test]
fn calls_are_shared_where_answers_are_kept_and_where_the_operator_says_so() {
    let settings = settings(&[
        "match = \"GET /api/v1/users/numbers\"\ndeduplicate = false",
        "match = \"GET /api/v1/users/me\"\ndeduplicate = true",
        "match = \"GET /api/v1/users/{id}\"\ncache = { ttl = \"1s\", per = \"user\" }",
    ]);
    assert!(settings.problems_with(&[&manifest()]).is_empty());
    let none = RouteSettings::default();
    for (settings, http, expect) in [
        (&none, "GET /numbers", true),
        (&none, "GET /me", false),
        (&settings, "GET /numbers", false),
        (&settings, "GET /me", true),
        (&settings, "GET /{user_id}", true),
        (&settings, "GET /by-name/{name}", false),
    ] {
        assert_eq!(effective(settings, http).deduplicates, expect, "{http}");
    }
}

#[test]
fn a_prefix_is_a_path_of_its_own_and_names_a_service() {
    let check = |prefix: &str, service: &str, expect: &str| {
        let added = AddedPrefix {
            origin: "line 3".to_owned(),
            prefix: prefix.to_owned(),
            service: Some(service.to_owned()),
            ..AddedPrefix::default()
        };
        let settings = RouteSettings { overrides: Vec::new(), prefixes: vec![added], services_off: Vec::new() };
        let mut problems = settings.problems(Duration::from_secs(30));
        problems.extend(settings.problems_with(&[&manifest()]));
        let said = problems.join("\n");
        assert!(if expect.is_empty() { said.is_empty() } else { said.contains(expect) && said.starts_with("line 3: ") }, "{prefix} {said}");
    };
    check("/v2/people", "user", "");
    check("/v2/people", "usr", "there is no service usr; did you mean user?");
    for prefix in ["", "/", "v2", "/v2/", "/v2//a", "/v2/../a", "/{v}", "/a b", "/a%2fb"] {
        check(prefix, "user", "a prefix is a path");
    }
}

#[test]
fn an_alias_has_the_access_of_both() {
    let manifest = manifest();
    let route = |http: &str| Arc::new(manifest.routes.iter().find(|route| route.http == http).unwrap().clone());
    let added = |access: &str| AddedPrefix {
        prefix: "/v2".to_owned(),
        service: Some("user".to_owned()),
        access: Some(serde_json::from_value(access.into()).unwrap()),
        ..AddedPrefix::default()
    };
    let (path, alias, problem) = added("role:support").alias("/api/v1/users/me", &route("GET /me"), "/api/v1/users").unwrap();
    assert_eq!((path.as_str(), &alias.access, problem), ("/v2/me", &Access::Role("support".to_owned()), None));
    let (_, alias, problem) = added("public").alias("/api/v1/users/me", &route("GET /me"), "/api/v1/users").unwrap();
    assert!(alias.access == Access::User && problem.is_some());
    assert!(added("user").alias("/elsewhere", &route("GET /me"), "/api/v1/users").is_none());
}

const TARGET: &str = r#"
prefix = "/billing"
target = "http://10.0.0.5:8080"
access = "public"
rate = { per = "ip", strategy = "token-bucket", limit = 60, window = "1m" }
"#;

fn target_problems(entry: &str) -> Vec<String> {
    let added = AddedPrefix { origin: "line 4".to_owned(), ..toml::from_str(entry).unwrap() };
    let settings = RouteSettings { overrides: Vec::new(), prefixes: vec![added], services_off: Vec::new() };
    let mut problems = settings.problems(Duration::from_secs(30));
    problems.extend(settings.problems_with(&[&manifest()]));
    problems
}

#[test]
fn a_target_says_who_may_call_it_how_often_and_by_which_key_it_knows_them() {
    assert_eq!(target_problems(TARGET), Vec::<String>::new());
    let key = "k".repeat(32);
    let known = format!("{}identity_key = \"{key}\"", TARGET.replace("public", "user"));
    assert_eq!(target_problems(&known), Vec::<String>::new());
    for (entry, expect) in [
        (TARGET.replace("access = \"public\"", ""), "wants an access"),
        (TARGET.lines().filter(|line| !line.starts_with("rate")).collect::<Vec<_>>().join("\n"), "wants a rate"),
        (TARGET.replace("limit = 60", "limit = 0"), "above 0"),
        (TARGET.replace("public", "user"), "wants an identity_key"),
        (known.replace(&key, "short"), "32 bytes"),
        (format!("{TARGET}service = \"user\""), "not both"),
        (format!("{TARGET}timeout = \"0s\""), "timeout must be above 0"),
        (format!("{TARGET}idle_timeout = \"2h\""), "idle_timeout must be above 0 and at most 3600s"),
        (format!("{TARGET}retries = 9"), "retries must be at most 3"),
        (format!("{TARGET}request_headers = {{ set = {{ X-User-ID = \"x\" }} }}"), "request_headers: set X-User-ID"),
        (format!("{TARGET}response_headers = {{ set = {{ Set-Cookie = \"x\" }} }}"), "response_headers: set Set-Cookie"),
        (format!("{TARGET}request_fields = {{ rename = {{ a = \"a\" }} }}"), "request_fields: rename: a has this name"),
        (format!("{TARGET}response_fields = {{ rename = {{ a = \"b.c\" }} }}"), "response_fields: rename: \"b.c\""),
        (
            "prefix = \"/v2\"\nservice = \"user\"\nresponse_headers = { remove = [\"X-A\"] }".to_owned(),
            "response_headers is for a prefix with a target",
        ),
        (format!("{TARGET}health = \"healthz\""), "health must be a path"),
        (TARGET.replace("/billing", "/api/v1/users"), "is the prefix of the service user"),
        (TARGET.replace("/billing", "/api/v1/users/billing"), "is the prefix of the service user"),
        ("prefix = \"/v2\"".to_owned(), "give the service or the target"),
        ("prefix = \"/v2\"\nservice = \"user\"\nretries = 1".to_owned(), "retries is for a prefix with a target"),
    ] {
        let problems = target_problems(&entry);
        assert!(problems.iter().any(|problem| problem.starts_with("line 4: ") && problem.contains(expect)), "{entry}: {problems:?}");
    }
    assert_eq!(target_problems(&TARGET.replace("/billing", "/api/v1")), Vec::<String>::new(), "services go first");
}

#[test]
fn a_target_is_an_address_and_nothing_more() {
    let read = |target: &str| {
        let added: AddedPrefix = toml::from_str(&TARGET.replace("http://10.0.0.5:8080", target)).unwrap();
        added.outside().map(|outside| outside.map(|outside| format!("{} {} {}", outside.scheme, outside.authority, outside.base)).unwrap())
    };
    for (target, expect) in [
        ("http://10.0.0.5:8080", "http 10.0.0.5:8080 "),
        ("https://billing.internal/", "https billing.internal "),
        ("https://billing.internal/a/b/", "https billing.internal /a/b"),
        ("http://[::1]:9/x", "http [::1]:9 /x"),
        ("http://[::1]", "http [::1] "),
    ] {
        assert_eq!(read(target).as_deref(), Ok(expect));
    }
    for target in [
        "",
        "billing",
        "ftp://a",
        "http://",
        "http:///a",
        "http://user@a",
        "http://a:b@c",
        "http://a?b",
        "http://a/#b",
        "http://a:0",
        "http://a:99999",
        "http://a/../b",
        "http://a//b",
        "http://a b",
        "http://a/%2e",
        "http://[zz]",
        "http://a:+1",
    ] {
        assert!(read(target).is_err(), "{target}");
    }
}
