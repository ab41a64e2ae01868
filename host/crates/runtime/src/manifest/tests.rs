//! What a manifest says, and which mistakes in it are named.

use super::*;

fn refused(text: &str, expect: &str) {
    let message = Manifest::parse(text).expect_err("refused").to_string();
    assert!(message.contains(expect), "{message:?} does not say {expect:?}");
}

const HEAD: &str = "name = \"auth\"\nversion = \"0.1.0\"\nprefix = \"/api/v1/auth\"\n";

#[test]
fn a_route_is_read() {
    let text = format!(
        "{HEAD}[[route]]\nhttp = \"POST /login/{{id}}\"\ncall = \"login\"\naccess = \"role:admin\"\nrate = {{ per = \"ip\", strategy = \"sliding-window\", limit = 5, window = \"1m\" }}\n[limits]\nmemory = \"64MiB\"\ncpu = \"50ms\"\n"
    );
    let manifest = Manifest::parse(&text).unwrap();
    let route = &manifest.routes[0];
    assert_eq!(route.full_path(&manifest.prefix), "/api/v1/auth/login/{id}");
    assert_eq!(route.variables(), ["id"]);
    assert_eq!(route.access, Access::Role("admin".to_owned()));
    assert_eq!(route.rate().window, Duration::from_secs(60));
    assert_eq!(manifest.limits.memory, 64 * limits::MIB_BYTES);
}

const RATE: &str = "rate = { per = \"user\", strategy = \"token-bucket\", limit = 600, window = \"1m\" }\n";
const OTHER_RATE: &str = "rate = { per = \"user\", strategy = \"token-bucket\", limit = 60, window = \"1m\" }\n";

fn route(http: &str, call: &str, rate: &str) -> String {
    format!("[[route]]\nhttp = \"{http}\"\ncall = \"{call}\"\naccess = \"user\"\n{rate}")
}

fn socket(event: &str, call: &str, rate: &str) -> String {
    format!("[[socket]]\nevent = \"{event}\"\ncall = \"{call}\"\n{rate}")
}

#[test]
fn every_route_and_every_frame_has_a_rate() {
    let example = "such as rate = { per = \"user\", strategy = \"token-bucket\", limit = 600, window = \"1m\" }";
    let without = format!("{HEAD}{}{}{}", route("GET /a", "a", ""), route("GET /b", "b", RATE), socket("wave", "wave", ""));
    refused(&without, "route \"GET /a\" has no rate; write");
    refused(&without, "socket \"wave\" has no rate, and no route calls wave; write");
    refused(&without, example);
    let twice = format!("{HEAD}{}{}", route("GET /a", "a", RATE), socket("a", "a", RATE));
    refused(&twice, "socket \"a\" counts against the rate of the route that calls a");
    let differing = format!("{HEAD}{}{}", route("GET /a", "a", RATE), route("GET /b", "a", OTHER_RATE));
    refused(&differing, "route \"GET /b\": all routes that call a are counted together");
    refused(&format!("{HEAD}{}", socket("wave", "wave", &RATE.replace("600", "0"))), "a limit and a window above 0");
}

#[test]
fn a_frame_counts_against_the_route_of_its_function() {
    let text = format!("{HEAD}{}{}{}", route("POST /", "send", RATE), socket("message", "send", ""), socket("wave", "wave", OTHER_RATE));
    let manifest = Manifest::parse(&text).expect("both have one");
    let [message, wave] = &manifest.sockets[..] else { panic!("two frames") };
    assert_eq!((manifest.rate_of(message).limit, manifest.rate_of(wave).limit), (600, 60));
    let service = manifest.service();
    assert_eq!(rate_counter(&service, &message.call), rate_counter(&service, &manifest.routes[0].call));
    assert_ne!(rate_counter(&service, "send"), rate_counter(&ServiceName::parse("other").unwrap(), "send"));
}

/// The manifests in the repository, those of the tests' guests and of the pages included.
#[test]
fn every_manifest_in_the_repository_has_its_rates() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).unwrap();
    let mut texts = Vec::new();
    for folder in ["plugins", "host/tests/guests"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            texts.extend(std::fs::read_to_string(entry.unwrap().path().join("plugin.toml")));
        }
    }
    let page = std::fs::read_to_string(root.join("plugins/sdk/README.md")).unwrap();
    let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```"));
    texts.extend(blocks.map(|(block, _)| block.to_owned()).filter(|block| block.contains("[[route]]") || block.contains("prefix =")));
    let manifests: Vec<Manifest> =
        texts.iter().map(|text| Manifest::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))).collect();
    assert!(manifests.iter().filter(|manifest| !manifest.routes.is_empty()).count() >= 7, "they were not found");
    for manifest in &manifests {
        for socket in &manifest.sockets {
            let rate = manifest.rate_of(socket);
            let route = manifest.routes.iter().find(|route| route.call == socket.call);
            assert_eq!(Some(rate), route.map(Route::rate).or(socket.rate), "{} {}", manifest.name, socket.event);
            assert_eq!(rate.per, RateSubject::User, "{} {}: whoever opened a socket is known", manifest.name, socket.event);
        }
    }
}

#[test]
fn mistakes_are_named() {
    refused(&format!("{HEAD}colour = 1\n"), "colour");
    refused("name = \"Auth\"\nversion = \"0.1.0\"\n", "Auth");
    refused("name = \"auth\"\nversion = \"1\"\n", "MAJOR.MINOR.PATCH");
    refused(&format!("{HEAD}[[route]]\nhttp = \"FETCH /\"\ncall = \"x\"\naccess = \"user\"\n"), "METHOD /path");
    refused(&format!("{HEAD}[[route]]\nhttp = \"GET /\"\ncall = \"x\"\n"), "access");
    refused(&format!("{HEAD}[[route]]\nhttp = \"GET /\"\ncall = \"x\"\naccess = \"anyone\"\n"), "anyone");
    for role in ["role:", "role:a b", "role:Admin", "role:a,b", "role:1", "role:é", &format!("role:{}", "a".repeat(65))] {
        refused(&format!("{HEAD}[[route]]\nhttp = \"GET /\"\ncall = \"x\"\naccess = \"{role}\"\n"), "no role");
    }
    let secret = "secret_answer = true\ncache = { ttl = \"1h\", per = \"user\" }\n";
    refused(&format!("{HEAD}{}", route("GET /", "x", &format!("{RATE}{secret}"))), "a secret answer is kept in no cache");
    refused(&format!("{HEAD}[limits]\nwall = \"soon\"\n"), "soon");
    refused(&format!("{HEAD}[limits]\nmemory = \"4096MiB\"\n"), "limits.memory");
}
