//! The architecture, held by a test: which module may know which, the shape of the folders, the twins among the migrations, and that the
//! pages under `host/docs` speak of what is there. It reads the sources as text; see `docs/ARCHITECTURE.md` for the reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/error_codes.rs"]
mod error_codes;
#[path = "tidy/operators_pages.rs"]
mod operators_pages;
#[path = "tidy/store_tests.rs"]
mod store_tests;

/// Modules of one crate and what they may name of each other. Which crate may know which, cargo holds: see the `Cargo.toml` of each.
const LAYERS: &[(&str, &[&str])] = &[
    // host/crates/base
    ("backoff", &[]),
    ("clock", &[]),
    ("deadline", &[]),
    ("json_text", &[]),
    ("limits", &[]),
    ("names", &[]),
    ("private_file", &[]),
    ("priority", &["limits"]),
    // host/src
    ("descriptors", &[]),
    ("admin", &[]),
    ("config", &[]),
    ("telemetry", &["config"]),
    ("watch", &[]),
    ("new_plugin", &[]),
    // The one place that joins layers, and what is above it.
    ("app", &["admin", "config", "descriptors", "telemetry", "watch"]),
    ("cli", &["admin", "app", "config", "new_plugin", "telemetry"]),
];

/// Crates whose modules are named without the crate's name before theirs.
const WITHOUT_A_NAME: &[&str] = &["base"];

/// The crate that only tests know.
const FOR_TESTS: &str = "fixture";

/// A library and the only places that may name it, where a crate uses it in a part of itself only: `capabilities/…` is `host/crates/capabilities/src/…`.
const LIBRARIES: &[(&str, &[&str])] = &[
    // `contract` knows a component's types and values and nothing that runs; `host.rs` is where a capability meets its guests.
    ("wasmtime", &["runtime/", "contract/", "capabilities/guest.rs", "*/host.rs"]),
    ("axum", &["gateway/", "hub/", "admin/", "edge/problem.rs", "edge/error_pages.rs", "app.rs"]),
    // `config` reads an origin with it.
    ("http", &["client/", "gateway/", "hub/", "admin/", "edge/problem.rs", "edge/error_pages.rs", "app.rs", "config/address.rs"]),
    ("tokio_tungstenite", &["client/socket.rs", "client/transport.rs", "hub/"]),
    ("object_store", &["capabilities/blob/object_store.rs", "capabilities/blob/bucket.rs", "capabilities/blob/bucket/"]),
    (
        "hyper_rustls",
        &["capabilities/blob/bucket/http_client.rs", "capabilities/http/client.rs", "client/transport.rs", "gateway/outside/client.rs"],
    ),
    ("rustls_native_certs", &["capabilities/http/client.rs", "client/transport.rs"]),
    ("rusqlite", &["capabilities/sql/sqlite/"]),
    (
        "redis",
        &["capabilities/rates/redis.rs", "capabilities/cache/redis.rs", "capabilities/bus/redis.rs", "capabilities/redis_connection.rs"],
    ),
    ("async_nats", &["capabilities/bus/nats.rs", "capabilities/events/jetstream/"]),
    ("sqlparser", &["capabilities/sql/migration.rs", "capabilities/sql/postgres/statement_check.rs"]),
    ("percent_encoding", &["client/request.rs", "gateway/routes.rs", "gateway/dispatch/stream/"]),
    ("memchr", &["capabilities/sql/sqlite/", "gateway/framing.rs"]),
    ("libc", &["priority.rs"]),
    ("rustix", &["runtime/", "capabilities/sql/sqlite/", "main.rs", "descriptors.rs", "app/doctor.rs"]),
    ("tokio_rustls", &["client/transport.rs", "gateway/connection.rs", "gateway/tls.rs", "capabilities/http/"]),
    ("jsonwebtoken", &["capabilities/tokens/", "capabilities/http/"]),
    ("ed25519_dalek", &["capabilities/tokens/"]),
    // Of rustls, in the gateway.
    ("ring", &["capabilities/tokens/", "capabilities/http/", "gateway/tls.rs"]),
    ("argon2", &["capabilities/passwords/"]),
    ("bcrypt", &["capabilities/passwords/"]),
    ("scrypt", &["capabilities/passwords/"]),
    ("metrics_exporter_prometheus", &["telemetry/mod.rs"]),
    ("tracing_subscriber", &["telemetry/", "config/problems.rs"]),
    ("notify", &["watch.rs"]),
    ("reqwest", &["admin/client.rs"]),
    ("clap", &["cli.rs", "main.rs"]),
    (
        "anyhow",
        &[
            "main.rs",
            "cli.rs",
            "app.rs",
            "app/stores.rs",
            "app/backends.rs",
            "app/hosts.rs",
            "app/migrate.rs",
            "app/migrations.rs",
            "app/nodes.rs",
            "app/open.rs",
        ],
    ),
];

/// What is text in the sources and not the name of a library, and who may write it.
const WORDS: &[(&str, &[&str], &str)] = &[
    (
        "std::env",
        &["config/reading.rs", "app/open.rs", "watch.rs"],
        "settings are read by config/ alone; the others ask for the folder and the cargo they run in",
    ),
    ("StatusCode::", &["edge/problem.rs", "edge/error_pages.rs", "gateway/", "hub/", "admin/"], "a status code is the edges' word"),
    ("wasmtime::Store", &["runtime/"], "only the runtime runs guests"),
    ("wasmtime::Engine", &["runtime/", "contract/"], "only the runtime runs guests; the contract reads types with an engine"),
    ("thread::sleep", &["runtime/engine.rs", "telemetry/lines.rs"], "only a thread of its own may sleep: the epoch's and the log's"),
    ("println!", &["cli.rs", "main.rs", "app.rs"], "what the host has to say goes to the log, but for the command line"),
];

/// Words that this repository once used for things which the field has names for. They are looked for as whole words, also inside of names.
const OUT: &[(&str, &str)] = &[
    ("asker", "caller"),
    ("bury", "dead-letter"),
    ("crowd", "users"),
    ("folds", "checkpoints"),
    ("haste", "statement cost"),
    ("keeper", "checkpointer"),
    ("lately", "a moment ago, in the last calls"),
    ("powers", "capabilities"),
    ("rung", "notified"),
    ("shaky", "flaky"),
    ("sound", "valid"),
    ("speaker", "owner"),
];

/// Where such a word is a name in somebody else's protocol.
const OF_OTHERS: &[(&str, &str)] = &[("plugins/notification/src/providers.rs", "sound")];

/// Capabilities without functions that a guest calls: events are the services' own packages, the others are between hosts.
const WITHOUT_HOST_RS: &[&str] = &["bus", "events", "leases", "nodes", "operators", "rates", "versions"];

/// Sources over `LINES_MAX` and why they stay whole. Tests may be as long as there are cases.
const LINES_MAX: usize = 600;
const LONG_FILES: &[(&str, &str)] = &[
    ("host/crates/capabilities/src/events/embedded.rs", "the queue's tables, its memory and its partitions' life belong together"),
    ("host/crates/base/src/limits.rs", "every bound in one list"),
    ("host/crates/hub/src/socket.rs", "one socket's loop, from the first frame to the close"),
    ("host/crates/relay/src/lib.rs", "the relay of one outbox, with the tests that take away what it hands over to"),
];

/// Modules that know each other, and why they cannot do otherwise.
const CIRCLES: &[(&str, &str)] = &[
    ("capabilities::hub capabilities::sql", "an outbox holds pushes, and the feed has an outbox of its own"),
    ("capabilities::sql::migration capabilities::sql::sqlite", "which functions a migration may call, the engine knows"),
    (
        "capabilities::sql::postgres::backfill capabilities::sql::postgres::migrate",
        "a rehearsal of migrations is one of their back-fills, in the same transaction",
    ),
    ("capabilities::sql::sqlite::backfill capabilities::sql::sqlite::migrate", "a migration that is applied declares its back-fill"),
    ("contract::bounds contract::wit", "a field's bounds are read for its type, and the type holds them"),
    ("contract::codec::check contract::codec::read contract::codec::shape", "a shape holds its bounds, and both name fields alike"),
    (
        "runtime::call runtime::catalogue runtime::instance runtime::linking runtime::pool",
        "a call pins a catalogue, which owns the pools of instances, each of which holds the call that it runs",
    ),
];

#[test]
fn dependencies_point_one_way() {
    let layers: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let sources: Vec<Source> = host_sources().into_iter().filter(|source| source.within.is_none()).collect();
    let of_crate = |source: &Source| source.path.split("/src/").next().unwrap_or_default().to_owned();
    let crates: BTreeMap<&str, String> = sources.iter().map(|source| (source.module[0].as_str(), of_crate(source))).collect();
    let mut wrong = Vec::new();
    let mut used: BTreeSet<(String, String)> = BTreeSet::new();
    for source in &sources {
        let own = source.module[0].as_str();
        if matches!(own, "lib" | "main") {
            continue;
        }
        let Some(allowed) = layers.get(own) else {
            wrong.push(format!("{}: no line in LAYERS for {own}", source.path));
            continue;
        };
        for path in source.paths() {
            let other = path[0].as_str();
            if other == own || !layers.contains_key(other) || crates.get(other) != crates.get(own) {
                continue;
            }
            used.insert((own.to_owned(), other.to_owned()));
            if !allowed.contains(&other) {
                wrong.push(format!("{}: {own} must not know {other} ({})", source.path, path.join("::")));
            }
        }
    }
    // A permission that nobody uses would only wait to be misused.
    let present: BTreeSet<&String> = sources.iter().map(|source| &source.module[0]).collect();
    for (own, others) in LAYERS.iter().filter(|(own, _)| present.contains(&own.to_string()) && *own != "app" && *own != "cli") {
        for other in others.iter().filter(|other| !used.contains(&(own.to_string(), other.to_string()))) {
            wrong.push(format!("LAYERS allows {own} to know {other}, which it does not"));
        }
    }
    none(wrong);
}

#[test]
fn crates_depend_on_no_crate_of_the_host_that_they_do_not_use() {
    let mut wrong = Vec::new();
    for folder in folders("host/crates").into_iter().chain([root().join("host")]) {
        let manifest = read_path(folder.join("Cargo.toml"));
        let dependencies = manifest.split("[dependencies]").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap_or_default();
        let code: String = rust_files(&folder.join("src")).into_iter().map(|file| code_of(&read_path(file))).collect();
        for own in dependencies.lines().filter_map(|line| line.strip_suffix(".workspace = true")) {
            let library = own.replace('-', "_");
            if own.starts_with("echo-") && !code.contains(&format!("{library}::")) {
                wrong.push(format!("{}: nothing uses {own}", shown(&folder)));
            }
        }
    }
    none(wrong);
}

#[test]
fn modules_do_not_know_each_other_in_circles() {
    let sources = host_sources();
    let mut knows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in &sources {
        let own = source.module.join("::");
        let others = source.paths().into_iter().filter_map(|path| module_of(&path)).filter(|other| {
            // A module and what lies in its folder belong together: they may know each other.
            let (inner, outer) = (format!("{own}::"), format!("{other}::"));
            *other != own && !inner.starts_with(&outer) && !outer.starts_with(&inner)
        });
        knows.entry(own.clone()).or_default().extend(others);
    }
    let reached_from = |begin: &String| -> BTreeSet<String> {
        let (mut reached, mut next) = (BTreeSet::new(), vec![begin.clone()]);
        while let Some(module) = next.pop() {
            for other in knows.get(&module).into_iter().flatten().filter(|other| !reached.contains(*other)).cloned().collect::<Vec<_>>() {
                reached.insert(other.clone());
                next.push(other);
            }
        }
        reached
    };
    let mut circles: BTreeSet<String> = BTreeSet::new();
    for module in knows.keys() {
        let reached = reached_from(module);
        if reached.contains(module) {
            let circle: Vec<String> = reached.into_iter().filter(|other| reached_from(other).contains(module)).collect();
            circles.insert(circle.join(" "));
        }
    }
    none(circles.into_iter().filter(|circle| !CIRCLES.iter().any(|(allowed, _)| allowed == circle)).collect());
}

#[test]
fn backends_are_named_where_layers_are_joined_and_nowhere_else() {
    let mut wrong = Vec::new();
    for source in host_sources() {
        let (own, file) = (source.module[0].as_str(), source.path.as_str());
        for path in source.paths().into_iter().filter(|path| path[0] == "capabilities" && path.len() > 2) {
            let (capability, part) = (path[1].as_str(), path[2].as_str());
            if !is_module(&["capabilities", capability, part]) {
                continue;
            }
            let same_capability = own == "capabilities" && source.module.get(1).is_some_and(|own| own == capability);
            let good = match part {
                // What the activation gate asks of a capability, whatever lies below it.
                "host" | "migration" => own == "runtime" || same_capability,
                _ => own == "app" || same_capability || (own == "capabilities" && is_backend(&source)),
            };
            if !good {
                wrong.push(format!("{file} names capabilities::{capability}::{part}"));
            }
        }
        // `id_token` is the same for all backends: it needs no key of the host's.
        if own == "capabilities" && (file.ends_with("/mod.rs") || file.ends_with("/host.rs")) {
            let reaches = source.paths().into_iter().filter(|path| {
                let part = path.get(2).map_or("", String::as_str);
                path[0] == "capabilities"
                    && !matches!(part, "host" | "suite" | "migration" | "id_token")
                    && is_module(&["capabilities", &path[1], part])
            });
            wrong.extend(reaches.map(|path| format!("{file} knows a backend: {}", path.join("::"))));
        }
    }
    none(wrong);
}

#[test]
fn libraries_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for source in host_sources() {
        let file = source.short.as_str();
        for (library, places) in LIBRARIES {
            if source.names_crate(library) && !within(file, places) {
                wrong.push(format!("{}: {library} belongs to {}", source.path, places.join(", ")));
            }
        }
        for (word, places, reason) in WORDS {
            if source.code.contains(word) && !within(file, places) {
                wrong.push(format!("{}: {word} ({reason})", source.path));
            }
        }
    }
    none(wrong);
}

#[test]
fn capabilities_have_one_shape() {
    let mut wrong = Vec::new();
    for folder in folders("host/crates/capabilities/src") {
        let files = file_names(&folder);
        let name = name_of(&folder);
        let mut wants = |there: bool, what: &str| {
            if !there {
                wrong.push(format!("capabilities/{name}: {what}"));
            }
        };
        wants(files.contains("mod.rs"), "no mod.rs");
        let has_host = !WITHOUT_HOST_RS.contains(&name.as_str());
        wants(files.contains("host.rs") == has_host, "host.rs where guests call it, and only there");
        let backends = files.iter().filter(|file| !matches!(file.as_str(), "mod.rs" | "host.rs" | "suite.rs" | "migration.rs")).count();
        wants(files.contains("suite.rs") == (backends > 0), "a backend and suite.rs go together");
    }
    none(wrong);
}

#[test]
fn migrations_are_twins() {
    let mut wrong = Vec::new();
    let guests = folders("host/tests/guests").into_iter().map(|guest| guest.join("migrations")).filter(|folder| folder.exists());
    for folder in folders("migrations").into_iter().chain(guests) {
        let shown = folder.display();
        let mut twins: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut backfills = twins.clone();
        for file in file_names(&folder) {
            match file.split('.').collect::<Vec<_>>().as_slice() {
                [name, dialect @ ("sqlite" | "postgres"), "sql"] => {
                    twins.entry((*name).to_owned()).or_default().insert((*dialect).to_owned());
                }
                [name, "backfill", dialect @ ("sqlite" | "postgres"), "sql"] => {
                    backfills.entry((*name).to_owned()).or_default().insert((*dialect).to_owned());
                }
                _ => wrong.push(format!("{shown}: {file} is not NNNN_name[.backfill].<dialect>.sql")),
            }
        }
        for (name, dialects) in &backfills {
            if dialects.len() != 2 || !twins.contains_key(name) {
                wrong.push(format!("{shown}: the back-fill {name} wants a twin and its migration"));
            }
        }
        for (at, (name, dialects)) in twins.iter().enumerate() {
            if dialects.len() != 2 {
                wrong.push(format!("{shown}: {name} is there for {dialects:?} only"));
            }
            if !name.starts_with(&format!("{:04}_", at + 1)) {
                wrong.push(format!("{shown}: {name} stands at {:04}", at + 1));
            }
        }
    }
    none(wrong);
}

#[test]
fn services_are_whole() {
    let mut wrong = Vec::new();
    let worlds = read("wit/services.wit");
    for folder in folders("plugins") {
        let name = name_of(&folder);
        let wanted: &[&str] = match name.as_str() {
            "sdk" | "testing" => &["Cargo.toml", "README.md", "src/lib.rs"],
            _ => &["Cargo.toml", "README.md", "plugin.toml", "src/lib.rs"],
        };
        wrong.extend(wanted.iter().filter(|file| !folder.join(file).exists()).map(|file| format!("plugins/{name} has no {file}")));
        if matches!(name.as_str(), "sdk" | "testing") {
            continue;
        }
        if !worlds.contains(&format!("world {name} {{")) {
            wrong.push(format!("wit/services.wit has no world {name}"));
        }
        // Whoever asks for a database brings its tables.
        let world = worlds.split(&format!("world {name} {{")).nth(1).and_then(|rest| rest.split("\n}").next()).unwrap_or_default();
        if world.contains("import echo:sql/") != root().join("migrations").join(&name).exists() {
            wrong.push(format!("{name}: the import of echo:sql and migrations/{name} go together"));
        }
    }
    none(wrong);
}

#[test]
fn every_function_of_the_contracts_is_documented() {
    let mut wrong = Vec::new();
    for folder in folders("wit/deps").into_iter().filter(|folder| !name_of(folder).starts_with("wasi-")) {
        for file in file_names(&folder) {
            let text = fs::read_to_string(folder.join(&file)).expect("a contract");
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            for pair in lines.windows(2).filter(|pair| pair[1].contains(" func(") && !pair[0].starts_with("///")) {
                wrong.push(format!("{file}: {} has no `///`", pair[1].split(':').next().unwrap_or_default()));
            }
        }
    }
    none(wrong);
}

#[test]
fn every_file_says_first_what_it_is_and_is_not_too_long() {
    let mut wrong = Vec::new();
    let mut long = BTreeSet::new();
    for folder in ["host/src", "host/crates", "host/tests", "host/examples", "host/benches", "plugins", "xtask"] {
        for path in rust_files(&root().join(folder)) {
            let (shown, text) = (shown(&path), fs::read_to_string(&path).expect("a source"));
            if !text.starts_with("//! ") || text.lines().next().is_some_and(|line| line.len() < 16) {
                wrong.push(format!("{shown}: the first line is to say what this is"));
            }
            if text.lines().count() > LINES_MAX && !is_a_test(&shown) {
                if !LONG_FILES.iter().any(|(file, _)| *file == shown) {
                    wrong.push(format!("{shown}: more than {LINES_MAX} lines"));
                }
                long.insert(shown);
            }
        }
    }
    let gone = LONG_FILES.iter().filter(|(file, _)| !long.contains(*file));
    wrong.extend(gone.map(|(file, _)| format!("{file} is not long any more: strike it from LONG_FILES")));
    none(wrong);
}

#[test]
fn words_that_were_given_up_stay_away() {
    let mut wrong = Vec::new();
    for path in ["host", "plugins", "xtask"].into_iter().flat_map(|folder| rust_files(&root().join(folder))) {
        let shown = shown(&path);
        if shown.contains("/target/") || shown == "host/tests/tidy.rs" {
            continue;
        }
        for (number, line) in read_path(path).lines().enumerate() {
            let words = words_of(line);
            let given_up = |word: &&str| words.iter().any(|found| found == *word) && !OF_OTHERS.contains(&(shown.as_str(), *word));
            for (word, instead) in OUT.iter().filter(|(word, _)| given_up(word)) {
                wrong.push(format!("{shown}:{}: {word}; say {instead}", number + 1));
            }
        }
    }
    none(wrong);
}

#[test]
fn every_bound_is_used() {
    let all: String = rust_files(&root().join("host")).into_iter().filter(|path| !path.ends_with("limits.rs")).map(read_path).collect();
    let words: BTreeSet<&str> = all.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let limits = read("host/crates/base/src/limits.rs");
    let bounds = limits.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    none(bounds.filter(|bound| !words.contains(bound)).map(|bound| format!("limits.rs: nobody keeps to {bound}")).collect());
}

#[test]
fn the_pages_speak_of_what_is_there() {
    let mut wrong = Vec::new();
    // `path.rs::test_name` in the page of invariants.
    let invariants = read("host/docs/INVARIANTS.md");
    let mut named = 0;
    for (file, test) in invariants.split('`').filter_map(|quoted| quoted.split_once(".rs::")) {
        named += 1;
        let path = root().join(format!("{file}.rs"));
        if !fs::read_to_string(&path).is_ok_and(|text| ["(", "<"].iter().any(|next| text.contains(&format!("fn {test}{next}")))) {
            wrong.push(format!("INVARIANTS.md: there is no {file}.rs::{test}"));
        }
    }
    assert!(named > 30, "INVARIANTS.md names {named} tests only");
    for guarantee in 1..=13 {
        if !invariants.contains(&format!("\n| G{guarantee} |")) {
            wrong.push(format!("INVARIANTS.md has no row for G{guarantee}"));
        }
    }
    // Paths in the page of the architecture.
    let architecture = read("host/docs/ARCHITECTURE.md");
    let paths = architecture.split('`').skip(1).step_by(2).filter(|quoted| is_path(quoted));
    let from = ["", "host", "host/src", "host/docs"].map(|folder| root().join(folder));
    for path in paths.filter(|path| !from.iter().any(|from| from.join(path).exists()) && !source_path(path).exists()) {
        wrong.push(format!("ARCHITECTURE.md: there is no {path}"));
    }
    let mut modules = file_names(&root().join("host/src"));
    for name in folders("host/crates").iter().map(|folder| name_of(folder)) {
        match WITHOUT_A_NAME.contains(&name.as_str()) {
            true => modules.extend(file_names(&root().join(format!("host/crates/{name}/src")))),
            false => _ = modules.insert(name),
        }
    }
    for module in modules.iter().map(|file| file.trim_end_matches(".rs")) {
        let listed = [format!("`{module}.rs`"), format!("`{module}/`")].iter().any(|name| architecture.contains(name));
        if !listed && module != "lib" {
            wrong.push(format!("ARCHITECTURE.md does not say what {module} is"));
        }
    }
    // A decision keeps its number for ever, so that others can name it; numbers of decisions that were merged into others are gaps.
    let mut numbers = BTreeSet::new();
    for file in file_names(&root().join("host/docs/adr")) {
        let text = read(&format!("host/docs/adr/{file}"));
        let number = file.split('-').next().unwrap_or_default().to_owned();
        let title = text.strip_prefix(&format!("# {}. ", number.trim_start_matches('0')));
        if number.len() != 4 || title.is_none() || !numbers.insert(number) {
            wrong.push(format!("adr/{file}: a number of four digits that no other has, and the same in the title"));
        }
        let parts = ["## Context", "## Decision", "## Consequences"];
        if !parts.iter().all(|part| text.contains(part)) {
            wrong.push(format!("adr/{file}: {parts:?}"));
        }
    }
    none(wrong);
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    let mut folders: Vec<PathBuf> = ["", "host/docs", "host/docs/adr", "host/tests/author"].map(|folder| root().join(folder)).into();
    folders.extend(self::folders("plugins"));
    let (mut wrong, mut followed) = (Vec::new(), 0);
    for folder in folders {
        for file in file_names(&folder).into_iter().filter(|file| file.ends_with(".md")) {
            let text = read_path(folder.join(&file));
            for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
                let path = target.split('#').next().unwrap_or_default();
                if path.is_empty() || path.contains("://") || path.contains(' ') {
                    continue;
                }
                followed += 1;
                if !folder.join(path).exists() {
                    wrong.push(format!("{}: no {target}", shown(&folder.join(&file))));
                }
            }
        }
    }
    assert!(followed > 20, "only {followed} links were found");
    none(wrong);
}

#[test]
fn paths_are_read_out_of_imports() {
    let module = ["hub", "socket"].map(str::to_owned).to_vec();
    let code =
        "use crate::{a::{B, c::*}, d as e};\nuse echo_base::f::G;\nuse super::{h, i::{self, J}};\nlet k = echo_runtime::l::m();".to_owned();
    let source = Source { path: String::new(), short: "hub/socket.rs".to_owned(), module, within: Some("hub".to_owned()), code };
    let paths: BTreeSet<String> = source.paths().into_iter().map(|path| path.join("::")).collect();
    let wanted = ["f::G", "hub::a::B", "hub::a::c", "hub::d", "hub::h", "hub::i", "hub::i::J", "runtime::l::m"];
    assert_eq!(paths, wanted.map(str::to_owned).into());
    assert!(within("hub/socket.rs", &["hub/"]) && within("capabilities/sql/host.rs", &["*/host.rs"]) && !within("hub.rs", &["hub/"]));
    assert_eq!(code_of("a // b\n#[cfg(test)]\nmod tests {\n}"), "a ");
    assert_eq!(words_of("TheKeeper::keep_it /// Haste!"), ["the", "keeper", "", "keep", "it", "", "", "", "", "haste", ""]);
}

// --- Reading the sources ---------------------------------------------------------------------------------------------------------------

struct Source {
    /// From the root of the repository.
    path: String,
    /// As the pages and the tables above name it: `capabilities/sql/sqlite/outbox.rs`, `limits.rs`, `app.rs`.
    short: String,
    /// `["capabilities", "sql", "sqlite", "outbox"]`.
    module: Vec<String>,
    /// The crate's name where its modules have it before theirs.
    within: Option<String>,
    /// Without comments and tests.
    code: String,
}

/// What is compiled into the host: modules for tests alone are left out.
fn host_sources() -> Vec<Source> {
    let mut sources = sources_of(&root().join("host/src"), None);
    for folder in folders("host/crates").into_iter().filter(|folder| name_of(folder) != FOR_TESTS) {
        let name = name_of(&folder);
        let within = (!WITHOUT_A_NAME.contains(&name.as_str())).then_some(name);
        sources.extend(sources_of(&folder.join("src"), within));
    }
    assert!(sources.len() > 60, "only {} sources were found", sources.len());
    sources
}

fn sources_of(folder: &Path, within: Option<String>) -> Vec<Source> {
    let files = rust_files(folder);
    let tests: BTreeSet<PathBuf> = files.iter().flat_map(|file| test_modules_of(file)).collect();
    let files = files.into_iter().filter(|file| !tests.iter().any(|test| file.starts_with(test) || *file == test.with_extension("rs")));
    let sources = files.map(|file| {
        let inside = file.strip_prefix(folder).expect("below the folder");
        let mut module: Vec<String> = within.iter().cloned().collect();
        module.extend(inside.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()));
        if module.len() > 1 && module.last().is_some_and(|last| last == "mod" || last == "lib") {
            module.pop();
        }
        let short = within.iter().map(String::as_str).chain(inside.iter().filter_map(|part| part.to_str())).collect::<Vec<_>>().join("/");
        Source { path: shown(&file), short, module, within: within.clone(), code: code_of(&read_path(file)) }
    });
    sources.collect()
}

impl Source {
    /// Every path from `crate::`, `super::` or the name of one of the host's crates on, as modules and items.
    fn paths(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            if !self.code[..at].ends_with(is_word) {
                grow(self.within.iter().cloned().collect(), &self.code[at + "crate::".len()..], &mut paths);
            }
        }
        for (at, _) in self.code.match_indices("echo_") {
            let Some((name, rest)) = self.code[at + "echo_".len()..].split_once("::") else { continue };
            if self.code[..at].ends_with(is_word) || !name.chars().all(is_word) {
                continue;
            }
            let named = !WITHOUT_A_NAME.contains(&name);
            grow(named.then(|| name.to_owned()).into_iter().collect(), rest, &mut paths);
        }
        for (at, _) in self.code.match_indices("super::") {
            let before = &self.code[..at];
            if before.ends_with(is_word) || before.ends_with("super::") {
                continue;
            }
            let mut base = self.module.clone();
            let mut rest = &self.code[at..];
            while let Some(after) = rest.strip_prefix("super::") {
                base.pop();
                rest = after;
            }
            grow(base, rest, &mut paths);
        }
        paths.retain(|path| !path.is_empty());
        paths
    }

    fn names_crate(&self, library: &str) -> bool {
        let path = format!("{library}::");
        self.code.match_indices(&path).any(|(at, _)| {
            let before = &self.code[..at];
            // `axum::http::…` is axum's, `super::http::…` our own.
            !before.ends_with(is_word) && !before.ends_with("::")
        })
    }
}

/// Follows a path, and each branch of a `{group}`. Returns what stands behind it.
fn grow<'a>(mut base: Vec<String>, text: &'a str, paths: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            rest = grow(base.clone(), rest, paths).trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest);
            if rest.is_empty() {
                return rest;
            }
        }
    }
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    match word {
        "" => {
            paths.push(base);
            // `*` and what else may stand there; never at the same place again.
            let mut rest = rest.chars();
            if !rest.as_str().starts_with(['}', ',']) {
                rest.next();
            }
            return rest.as_str();
        }
        "self" => {}
        _ => base.push(word.to_owned()),
    }
    if let Some(rest) = rest.strip_prefix("::") {
        return grow(base, rest, paths);
    }
    paths.push(base);
    // A renamed import.
    match rest.strip_prefix(" as ") {
        Some(rest) => rest.trim_start_matches(is_word),
        None => rest,
    }
}

/// The words of a line in lower case, also those that a name is made of: `slow_runs`, `SlowRuns`.
fn words_of(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in line.chars() {
        if !c.is_alphanumeric() || (was_lower && c.is_uppercase()) {
            words.push(String::new());
        }
        if c.is_alphanumeric() {
            words.last_mut().expect("there is one").extend(c.to_lowercase());
        }
        was_lower = c.is_lowercase();
    }
    words
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Without comments and without the module of tests at the end.
fn code_of(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The modules that this file declares for tests, as paths without an extension.
fn test_modules_of(file: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(file).expect("a source");
    let folder = match file.file_name().and_then(|name| name.to_str()) {
        Some("mod.rs" | "lib.rs" | "main.rs") => file.parent().expect("in a folder").to_owned(),
        _ => file.with_extension(""),
    };
    let declared = text.split("#[cfg(test)]\n").skip(1).filter_map(|after| {
        let line = after.lines().next()?;
        let name = line.trim_end_matches(';').split("mod ").nth(1)?;
        line.ends_with(';').then(|| folder.join(name))
    });
    declared.collect()
}

fn is_module(path: &[&str]) -> bool {
    if path.iter().any(|part| part.is_empty()) {
        return false;
    }
    let path = path.join("/");
    source_path(&path).is_dir() || source_path(&format!("{path}.rs")).exists()
}

/// Where a path lies that is named as the pages name it: `capabilities/sql/mod.rs`, `limits.rs`, `app.rs`.
fn source_path(path: &str) -> PathBuf {
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let named = root().join("host/crates").join(first).join("src");
    if named.exists() && !WITHOUT_A_NAME.contains(&first) {
        return named.join(rest);
    }
    let places = ["host/crates/base/src", "host/src"].map(|folder| root().join(folder).join(path));
    places.iter().find(|place| place.exists()).unwrap_or(&places[1]).clone()
}

/// The module in which a path's item is.
fn module_of(path: &[String]) -> Option<String> {
    let length = (1..=path.len()).rev().find(|length| is_module(&path[..*length].iter().map(String::as_str).collect::<Vec<_>>()))?;
    Some(path[..length].join("::"))
}

/// `capabilities/<capability>/<backend>…`.
fn is_backend(source: &Source) -> bool {
    source.module.len() > 2 && !matches!(source.module[2].as_str(), "host" | "suite")
}

fn is_a_test(path: &str) -> bool {
    path.starts_with("host/tests/") || path.ends_with("/tests.rs") || path.ends_with("/suite.rs")
}

fn within(file: &str, places: &[&str]) -> bool {
    places.iter().any(|place| match place.strip_prefix('*') {
        Some(end) => file.ends_with(end),
        None => file == *place || (place.ends_with('/') && file.starts_with(place)),
    })
}

/// A quoted word of a page that can only be a path of this repository: a name alone may be that of many files.
fn is_path(quoted: &str) -> bool {
    let plain = quoted.chars().all(|c| is_word(c) || matches!(c, '/' | '.' | '-'));
    let of_a_kind = [".rs", ".md", ".wit", ".toml"].iter().any(|end| quoted.ends_with(end)) || quoted.ends_with('/');
    plain && of_a_kind && quoted.contains('/') && !quoted.starts_with(['/', '.'])
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the host is a folder of the repository").to_owned()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).expect("in the repository").display().to_string()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn read_path(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn name_of(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

fn folders(path: &str) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = entries(&root().join(path)).into_iter().filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// Files and folders, by name.
fn file_names(folder: &Path) -> BTreeSet<String> {
    entries(folder).iter().map(|path| name_of(path)).collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in entries(folder) {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.expect("a readable folder").path()).collect()
}

#[track_caller]
fn none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
