//! The activation gate: what cannot work is refused, each time with the gate and the reason, and nothing that runs notices.

use std::process::Command;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{Reply, TestApp, until};
use crate::candidate::component::{Core, Start};
use crate::candidate::{Candidate, dialect, migration, repacked, with_migrations};
use crate::load::Lookups;
use crate::stored;

/// A host with traffic on `location`, which `front` depends on.
struct Gate {
    app: TestApp,
    lookups: Lookups,
}

/// When a refusal comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// At the upload, and a dry run says it too.
    Uploading,
    /// Only what runs can show it.
    Activating,
}

impl Gate {
    async fn open() -> Self {
        let app = TestApp::with(&["front", "hostile", "location"], &[]).await;
        let lookups = Lookups::start(&app, 4, Duration::from_millis(2));
        Self { app, lookups }
    }

    async fn live(&self, service: &str) -> Value {
        let view = self.app.admin(Method::GET, &format!("/admin/v1/plugins/{service}")).send().await.expect(StatusCode::OK);
        json!([view["active"], view["sha256"], view["generation"]])
    }

    async fn dry_run(&self, service: &str, file: Vec<u8>) -> Reply {
        self.app.admin(Method::POST, &format!("/admin/v1/plugins/{service}/versions?dry_run=true")).bytes(file).send().await
    }

    async fn refuses(&self, service: &str, file: Vec<u8>, gate: &str, when: When, reasons: &[&str]) {
        let before = self.live(service).await;
        let rehearsed = self.dry_run(service, file.clone()).await;
        match when {
            When::Uploading => check_refusal(rehearsed, gate, reasons),
            When::Activating => drop(rehearsed.expect(StatusCode::OK)),
        }
        check_refusal(self.app.deploy(service, file).await, gate, reasons);
        assert_eq!(self.live(service).await, before, "{gate} {reasons:?}: another version is live");
        self.lookups.answer_more(20).await;
    }

    async fn close(self) {
        let answered = self.lookups.stop().await;
        println!("{answered} lookups answered meanwhile, none failed");
    }
}

/// 422, every entry under this gate, and every one of the reasons in an entry of its own.
#[track_caller]
fn check_refusal(reply: Reply, gate: &str, reasons: &[&str]) {
    let problem = reply.expect_problem(422, "plugin_refused");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.ends_with(&format!(" {gate}."))), "{problem}");
    let errors = problem["errors"].as_array().expect("errors");
    assert_eq!(errors.len(), reasons.len(), "{problem}");
    for (error, reason) in errors.iter().zip(reasons) {
        assert_eq!(error["field"], gate, "{problem}");
        assert!(error["detail"].as_str().is_some_and(|detail| detail.contains(reason)), "{problem}\ndoes not say: {reason}");
    }
}

fn section(component: &[u8], name: &str, content: &[u8]) -> Vec<u8> {
    use wasm_encoder::{ComponentSection, CustomSection};
    let mut bytes = component.to_vec();
    CustomSection { name: name.into(), data: content.into() }.append_to_component(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_packed_component_is_refused() {
    let gate = Gate::open().await;
    let whole = Candidate::of("location").packed();
    let bare = Candidate::of("location").component();
    let manifest = |text: &[u8]| section(&bare, "echo:manifest", text);
    let good = Candidate::of("location").manifest;
    let rate = "rate = { per = \"ip\", strategy = \"sliding-window\", limit = 60, window = \"1m\" }";
    for (file, at, reason) in [
        (b"#!/bin/sh\necho fine\n".to_vec(), "component", "this is no WebAssembly"),
        (Vec::new(), "component", "this is no WebAssembly"),
        (b"\0asm\x01\0\0\0".to_vec(), "component", "this is a core module"),
        (whole[..whole.len() / 2].to_vec(), "component", "this is no WebAssembly"),
        (bare.clone(), "manifest", "it has no section echo:manifest"),
        (manifest(b"name = 1"), "manifest", "plugin.toml cannot be read"),
        (manifest(format!("colour = 1\n{good}").as_bytes()), "manifest", "colour"),
        (manifest(good.replace("access = \"public\"", "").as_bytes()), "manifest", "access"),
        (manifest(good.replace(rate, "").as_bytes()), "manifest", "route \"GET /lookup\" has no rate; write how often it may be called"),
        (manifest(good.replace("0.1.1", "next").as_bytes()), "manifest", "MAJOR.MINOR.PATCH"),
        (section(&manifest(good.as_bytes()), "echo:migrations", b"{}"), "component", "section echo:migrations cannot be read"),
    ] {
        gate.refuses("location", file, at, When::Uploading, &[reason]).await;
    }
    let upload = gate.app.admin(Method::POST, "/admin/v1/plugins/front/versions");
    upload.bytes(whole).send().await.expect_problem(422, "wrong_service");
    gate.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_that_are_unknown_or_not_granted_are_refused() {
    let gate = Gate::open().await;
    let sql = Candidate::of("location").import("echo:sql/sql@0.1.0").packed();
    let not_granted = "it imports echo:sql/sql@0.1.0, which location is not granted; grant it with the deployment (--grant echo:sql/sql) or in world location of";
    gate.refuses("location", sql, "imports", When::Uploading, &[not_granted]).await;

    let neighbour = Candidate::of("location").import("echo:user/api@0.1.0").packed();
    gate.refuses("location", neighbour, "imports", When::Uploading, &["it imports echo:user/api@0.1.0, which location is not granted"])
        .await;

    let topic = Candidate::of("location").import("echo:message/events@0.1.0").packed();
    gate.refuses("location", topic, "imports", When::Uploading, &["it imports echo:message/events@0.1.0, which location is not granted"])
        .await;

    let unknown = Candidate::of("location")
        .package("oracle", "package acme:oracle@1.0.0; interface oracle { ask: func() -> string; }")
        .import("acme:oracle/oracle@1.0.0")
        .packed();
    let (no_such, no_grant) = ("it imports acme:oracle/oracle@1.0.0, which this host does not have", "which location is not granted");
    gate.refuses("location", unknown, "imports", When::Uploading, &[no_such, no_grant]).await;
    gate.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bindings_that_lead_nowhere_are_refused() {
    let gate = Gate::open().await;
    let route = "\n[[route]]\nhttp = \"GET /nearest\"\ncall = \"nearest\"\naccess = \"public\"\nrate = { per = \"ip\", strategy = \"token-bucket\", limit = 600, window = \"1m\" }\n";
    let missing = Candidate::of("location").manifest("[limits]", &format!("{route}[limits]")).packed();
    let reason = "route \"GET /nearest\": echo:location/api@0.1.0 has no function nearest";
    gate.refuses("location", missing, "bindings", When::Uploading, &[reason]).await;

    let renamed = Candidate::of("location").contract("lookup: func", "find: func").packed();
    let reason = "route \"GET /lookup\": echo:location/api@0.1.0 has no function lookup";
    gate.refuses("location", renamed, "bindings", When::Uploading, &[reason]).await;

    let without = Candidate::of("location").wit("services.wit", "export echo:location/api@0.1.0;", "").packed();
    gate.refuses("location", without, "bindings", When::Uploading, &["it does not export echo:location/api"]).await;

    let several = Candidate::of("location").manifest("prefix =", "probe = \"lookup\"\nprefix =");
    let several = several.manifest("[limits]", "[[socket]]\nevent = \"where\"\ncall = \"whereabouts\"\nrate = { per = \"ip\", strategy = \"token-bucket\", limit = 600, window = \"1m\" }\n\n[limits]").packed();
    let reasons = ["socket \"where\": echo:location/api@0.1.0 has no function whereabouts", "probe: lookup takes a parameter"];
    gate.refuses("location", several, "bindings", When::Uploading, &reasons).await;

    let variable = Candidate::of("location").manifest("GET /lookup", "GET /lookup/{number}").packed();
    gate.refuses("location", variable, "bindings", When::Uploading, &["number"]).await;

    let unsaid = Candidate::of("location").contract("region: option<string>", "region-token: option<string>").packed();
    let reason = "route \"GET /lookup\": its reply has region-token: write secret_answer = true";
    gate.refuses("location", unsaid, "bindings", When::Uploading, &[reason]).await;

    let taken = Candidate::of("location").manifest("/api/v1/location", "/api/v1/front").manifest("GET /lookup", "POST /lookup");
    let taken = taken.manifest("etag = true", "").manifest("cache = { ttl = \"1h\", per = \"public\" }", "").packed();
    let pushing = Candidate::of("presence").manifest("call = \"presence\"\nclass", "call = \"presence\"\nevent = \"flood\"\nclass");
    let reason = "frames of type flood are pushed by hostile and by presence";
    check_refusal(gate.dry_run("presence", pushing.packed()).await, "compatibility", &[reason]);
    let reason = "POST /api/v1/front/lookup is served by front and by location";
    check_refusal(gate.dry_run("location", taken.clone()).await, "compatibility", &[reason]);
    let moved = "route-removed:GET /api/v1/location/lookup";
    check_refusal(gate.app.deploy("location", taken.clone()).await, "confirmation", &[moved]);
    check_refusal(gate.app.deploy_allowing("location", taken, &[moved]).await, "compatibility", &[reason]);
    gate.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_that_say_nothing_are_refused_by_the_gate_and_by_inspect() {
    let gate = Gate::open().await;
    for (from, to, at, reason) in [
        (
            "@length ..=64",
            "@lenght ..=64",
            "component",
            "echo:location/api@0.1.0 lookup-request.phone: @lenght is no tag; there are @length",
        ),
        ("@length ..=64", "@length 64", "component", "lookup-request.phone: @length \"64\" is malformed"),
        ("@length ..=64", "@items ..=64", "component", "lookup-request.phone: @items is for lists, and this is string"),
        ("@pattern ^ *", "@pattern ^(?= )*", "component", "lookup-request.phone: @pattern"),
        ("@example +14155550101", "@example nobody", "bindings", "field phone of record lookup-request: @example nobody: 7 to 15 digits"),
    ] {
        let candidate = Candidate::of("location").contract(from, to).packed();
        gate.refuses("location", candidate.clone(), at, When::Uploading, &[reason]).await;
        if at == "component" {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let file = folder.path().join("candidate.wasm");
            std::fs::write(&file, candidate).expect("written");
            let output = Command::new(env!("CARGO_BIN_EXE_echod")).args(["plugin", "inspect"]).arg(&file).output().expect("echod runs");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && said.contains(reason), "{said}");
        }
    }
    gate.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_types_are_refused_and_additions_are_not() {
    let gate = Gate::open().await;
    for (from, to, reasons) in [
        ("    carrier: option<string>,\n", "", &["lookup: reply.carrier of record location is not there any more"][..]),
        ("valid: bool,", "valid: string,", &["lookup: reply.valid was bool and is string"]),
        ("region: option<string>,", "region: string,", &["lookup: reply.region was option<string> and is string"]),
        ("    pager,\n", "", &["lookup: reply.type: enum number-type changed (-pager)"]),
        (
            "    phone: string,\n  }\n\n  record location {",
            "    phone: string,\n    carrier: bool,\n  }\n\n  record location {",
            &["lookup: request.carrier of record lookup-request is new and not an option"],
        ),
    ] {
        let changed = Candidate::of("location").contract(from, to).packed();
        gate.refuses("location", changed, "compatibility", When::Uploading, reasons).await;
    }
    let narrower = Candidate::of("location").contract("@length ..=64", "@length ..=63").packed();
    let reason = "lookup: request.phone takes less: its length was ..=64 and is ..=63";
    gate.refuses("location", narrower, "compatibility", When::Uploading, &[reason]).await;
    let wider = Candidate::of("location").contract("@length ..=64", "@length ..=65").packed();
    gate.dry_run("location", wider).await.expect(StatusCode::OK);
    let narrower =
        Candidate::of("location").contract("    region: option<string>,", "    /// @length ..=99\n    region: option<string>,").packed();
    gate.dry_run("location", narrower).await.expect(StatusCode::OK);

    let gone = Candidate::of("location").contract("lookup: func", "find: func").manifest("call = \"lookup\"", "call = \"find\"").packed();
    let reason = "echo:location/api@0.1.0, lookup: it is not there any more";
    gate.refuses("location", gone, "compatibility", When::Uploading, &[reason]).await;

    // Another minor version is another contract; whoever depends on the old one is asked.
    let next = Candidate::of("location")
        .contract("package echo:location@0.1.0", "package echo:location@0.2.0")
        .wit("services.wit", "echo:location/api@0.1.0", "echo:location/api@0.2.0")
        .packed();
    let reason = "front calls location: echo:location/api@0.1.0: echo:location/api@0.2.0 is exported instead";
    gate.refuses("location", next, "compatibility", When::Uploading, &[reason]).await;

    let added = Candidate::of("location")
        .contract("phone: string,\n  }", "phone: string,\n    language: option<string>,\n  }")
        .contract("valid: bool,", "valid: bool,\n    portable: bool,")
        .contract("lookup: func", "check: func() -> result<_, error>;\n  lookup: func")
        .packed();
    let before = gate.live("location").await;
    let staged = gate.dry_run("location", added).await.expect(StatusCode::OK);
    assert_eq!(staged["plan"]["replaces"], "0.1.0");
    assert_eq!(staged["plan"]["routes"], json!(["GET /api/v1/location/lookup"]));
    assert_eq!(gate.live("location").await, before, "a dry run changes nothing");
    gate.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_from_clients_or_loosens_is_confirmed_by_its_name() {
    let gate = Gate::open().await;
    let app = &gate.app;
    let route = "http = \"POST /fine\"\ncall = \"fine\"\naccess = ";
    let with = |version: &str, to: &str| {
        repacked("hostile", &[("version = \"0.1.0\"", &format!("version = \"{version}\"")), (&format!("{route}\"public\""), to)])
    };
    let names = |plan: &Value| -> Vec<(String, bool)> {
        let changes = plan["plan"]["changes"].as_array().expect("changes");
        changes.iter().map(|change| (change["name"].as_str().expect("a name").to_owned(), change["confirmed"] == true)).collect()
    };

    // A user's route of the running version ...
    let private = with("0.1.1", &format!("{route}\"user\""));
    let access = "route-access:POST /api/v1/hostile/fine";
    app.deploy_allowing("hostile", private, &[access]).await.expect(StatusCode::OK);
    app.post("/api/v1/hostile/fine", json!({})).send().await.expect_problem(401, "token_missing");
    // ... becomes nobody's by accident, is not renamed or dropped, and a dry run says what it takes.
    let removed = "route-removed:POST /api/v1/hostile/fine";
    for (file, name) in [
        (with("0.1.2", &format!("{route}\"public\"")), access),
        (with("0.1.2", "http = \"POST /good\"\ncall = \"fine\"\naccess = \"user\""), removed),
        (with("0.1.2", "http = \"PUT /fine\"\ncall = \"fine\"\naccess = \"user\""), removed),
    ] {
        let plan = gate.dry_run("hostile", file.clone()).await.expect(StatusCode::OK);
        assert_eq!(names(&plan), [(name.to_owned(), false)]);
        let refused = app.deploy("hostile", file.clone()).await;
        check_refusal(refused, "confirmation", &[&format!("confirm it by its name (--allow \"{name}\")")]);
        // Another route's name does not help.
        check_refusal(app.deploy_allowing("hostile", file, &["route-removed:GET /api/v1/hostile/label"]).await, "confirmation", &[name]);
    }
    app.post("/api/v1/hostile/fine", json!({})).send().await.expect_problem(401, "token_missing");

    let renamed = with("0.1.2", "http = \"POST /good\"\ncall = \"fine\"\naccess = \"public\"");
    app.deploy_allowing("hostile", renamed, &[removed]).await.expect(StatusCode::OK);
    app.post("/api/v1/hostile/good", json!({})).send().await.expect(StatusCode::OK);
    let history = app.admin(Method::GET, "/admin/v1/plugins/hostile/history").send().await.expect(StatusCode::OK);
    assert_eq!(history["items"][0]["allowed"], json!([removed]), "what was confirmed is on record");
    // The way back asks for no names, and says what is lost.
    let back = app.admin(Method::POST, "/admin/v1/plugins/hostile/rollback").send().await.expect(StatusCode::OK);
    assert!(back["loses"].to_string().contains("POST /api/v1/hostile/good is not there any more"), "{back}");
    let unknown = app.admin(Method::POST, "/admin/v1/plugins/hostile/rollback?dryrun=true").send().await;
    unknown.expect_problem(400, "unknown_option");
    gate.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_that_would_break_the_running_version_are_refused() {
    let gate = Gate::open().await;
    let with = |sql: &str| Candidate::of("location").packed_with(&[migration("0001_notes", sql)]);
    let reason = "migration 0001_notes is not additive: DROP TABLE notes takes away what the running version uses";
    gate.refuses("location", with("DROP TABLE notes"), "migrations", When::Uploading, &[reason]).await;
    for sql in ["DELETE FROM notes", "UPDATE notes SET a = 1", "CREATE UNIQUE INDEX i ON notes (a)", "CREATE VIEW v AS SELECT 1"] {
        gate.refuses("location", with(sql), "migrations", When::Uploading, &["migration 0001_notes is not additive: "]).await;
    }
    // Tried on the data that is there.
    let reason = "migration 0001_notes failed";
    gate.refuses("location", with("CREATE INDEX notes_a ON nowhere (a)"), "migrations", When::Uploading, &[reason]).await;

    let changed = with_migrations("hostile", &[("0.1.0", "0.1.1")], |migrations| {
        let marks = migrations.iter_mut().find(|migration| migration.dialect == dialect()).expect("hostile has a migration");
        marks.sql = "CREATE TABLE marks (id INTEGER PRIMARY KEY, colour TEXT)".to_owned();
    });
    let reason = "migration 0001_marks was applied before with another text";
    gate.refuses("hostile", changed, "migrations", When::Uploading, &[reason]).await;
    gate.app.post("/api/v1/hostile/fine", json!({})).send().await.expect(StatusCode::OK);
    gate.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_start_or_fails_its_probe_is_refused() {
    let gate = Gate::open().await;
    let core = |core: Core| Candidate::of("location").core(core).packed();
    let (cpu, memory) = ("its CPU time for one call is used up", "its memory is used up");
    let spins = core(Core { start: Start::Spins, ..Core::default() });
    gate.refuses("location", spins, "instantiation", When::Uploading, &[cpu]).await;
    let grows = core(Core { start: Start::Grows, ..Core::default() });
    gate.refuses("location", grows, "instantiation", When::Uploading, &[memory]).await;
    // 1,000 pages of 64 KiB against the 16 MiB of its manifest.
    let large = core(Core { memory_pages: 1_000, ..Core::default() });
    gate.refuses("location", large, "instantiation", When::Uploading, &[memory]).await;

    let probed = Candidate::of("location")
        .contract("lookup: func", "check: func() -> result<_, error>;\n  lookup: func")
        .manifest("prefix =", "probe = \"check\"\nprefix =")
        .packed();
    let reason = "its health probe fails: wasm trap: wasm `unreachable` instruction executed";
    gate.refuses("location", probed, "probe", When::Activating, &[reason]).await;

    for (probe, reason) in [
        ("cycle", "its health probe answers an error: service_failed: hostile calls hostile, which is already waiting for this call"),
        ("spin", "its health probe fails: its CPU time for one call is used up"),
        ("bomb", "its health probe fails: its memory is used up"),
        ("leave-open", "its health probe fails: a transaction was left open; it is rolled back"),
    ] {
        let file = repacked("hostile", &[("0.1.0", "0.1.1"), ("prefix =", &format!("probe = \"{probe}\"\nprefix ="))]);
        gate.refuses("hostile", file, "probe", When::Activating, &[reason]).await;
    }
    gate.app.post("/api/v1/hostile/fine", json!({})).send().await.expect(StatusCode::OK);
    gate.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_leaves_nothing_behind() {
    let gate = Gate::open().await;
    let app = &gate.app;
    let view = async || app.admin(Method::GET, "/admin/v1/plugins/hostile").send().await.expect(StatusCode::OK);
    let (before, location) = (view().await, gate.live("location").await);
    const NAME: &str = "0003_notes";
    let adds = "CREATE TABLE notes (id TEXT PRIMARY KEY); ALTER TABLE marks ADD COLUMN note TEXT; CREATE INDEX marks_note ON marks (note)";
    let with = |sql: &str, manifest: &[(&str, &str)]| {
        with_migrations("hostile", &[&[("version = \"0.1.0\"", "version = \"0.1.1\"")], manifest].concat(), |all| {
            all.push(migration(NAME, sql))
        })
    };

    // Refused by all that comes after the migrations, and by the migrations themselves.
    let no_instance = with(adds, &[("memory = \"16MiB\"", "memory = \"64KiB\"")]);
    gate.refuses("hostile", no_instance, "instantiation", When::Uploading, &["its memory is used up"]).await;
    let no_probe = with(adds, &[("prefix =", "probe = \"trap\"\nprefix =")]);
    gate.refuses("hostile", no_probe, "probe", When::Activating, &["its health probe fails"]).await;
    let fails = with(&format!("{adds}; CREATE INDEX i ON nowhere (a)"), &[]);
    gate.refuses("hostile", fails, "migrations", When::Uploading, &["migration 0003_notes failed"]).await;
    let rehearsed = gate.dry_run("hostile", with(adds, &[])).await.expect(StatusCode::OK);
    assert_eq!(rehearsed["plan"]["migrations"], json!([NAME]));
    gate.dry_run("location", repacked("location", &[("0.1.0", "0.1.1")])).await.expect(StatusCode::OK);
    let after = view().await;
    assert_eq!((&after["versions"], &after["active"]), (&before["versions"], &before["active"]), "a refused version is not kept");
    assert_eq!(gate.live("location").await, location);

    // The same version and the same migration, corrected: nothing of the refused ones is in its way, and no number was burnt.
    let corrected = with("CREATE TABLE notes (id TEXT PRIMARY KEY, text TEXT); ALTER TABLE marks ADD COLUMN note TEXT", &[]);
    let activation = app.deploy("hostile", corrected).await.expect(StatusCode::OK);
    let highest = |views: &[&Value]| views.iter().filter_map(|view| view["generation"].as_u64()).max().expect("a generation");
    let front = app.admin(Method::GET, "/admin/v1/plugins/front").send().await.expect(StatusCode::OK);
    let other = app.admin(Method::GET, "/admin/v1/plugins/location").send().await.expect(StatusCode::OK);
    assert_eq!(activation["generation"].as_u64(), Some(highest(&[&before, &front, &other]) + 1));
    app.post("/api/v1/hostile/mark", json!({})).send().await.expect(StatusCode::NO_CONTENT);
    gate.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_runs_beside_its_live_version_and_goes_on_after_a_kill() {
    const ROWS: u64 = 60_000;
    let mut app = TestApp::with(&["front", "hostile", "location"], &[]).await;
    app.kill();
    let rows = match app.database() {
        Some(_) => format!(
            "INSERT INTO marks (id) OVERRIDING SYSTEM VALUE
             SELECT nextval(pg_get_serial_sequence('echo_hostile.marks', 'id')) FROM generate_series(1, {ROWS})"
        ),
        None => format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) INSERT INTO marks (id) SELECT i FROM n"
        ),
    };
    stored::execute(&app, "hostile", &rows);
    app.restart().await;

    let with = |sql: &str| {
        with_migrations("hostile", &[("version = \"0.1.0\"", "version = \"0.1.1\"")], |all| {
            all.push(migration("0003_colour", "ALTER TABLE marks ADD COLUMN colour TEXT"));
            all.push(migration("0003_colour.backfill", sql));
        })
    };
    let dry_run = "/admin/v1/plugins/hostile/versions?dry_run=true";
    for (sql, reason) in [
        ("UPDATE marks SET id = id + 1", "id is none of them"),
        ("DELETE FROM marks", "a back-fill is one UPDATE and nothing else"),
        // Shown by the first rows alone.
        ("UPDATE marks SET colour = nothing", "migration 0003_colour.backfill failed"),
    ] {
        let refused = app.admin(Method::POST, dry_run).bytes(with(sql)).send().await;
        check_refusal(refused, "migrations", &[reason]);
    }
    let fills = with("UPDATE marks SET colour = 'red' WHERE id > 0");
    let rehearsed = app.admin(Method::POST, dry_run).bytes(fills.clone()).send().await.expect(StatusCode::OK);
    assert_eq!(rehearsed["plan"]["backfills"], json!(["0003_colour.backfill: colour of marks"]));

    app.deploy("hostile", fills).await.expect(StatusCode::OK);
    let state = async |app: &TestApp| {
        let view = app.admin(Method::GET, "/admin/v1/plugins/hostile").send().await.expect(StatusCode::OK);
        view["backfills"][0].clone()
    };
    let begun = until("it has begun", async || {
        app.post("/api/v1/hostile/mark", json!({})).send().await.expect(StatusCode::NO_CONTENT);
        let state = state(&app).await;
        (state["rows"].as_u64() > Some(0)).then_some(state)
    })
    .await;
    assert_eq!((&begun["name"], &begun["state"]), (&json!("0003_colour"), &json!("running")));
    app.kill();
    app.restart().await;
    let resumed = state(&app).await;
    assert!(resumed["rows"].as_u64().is_none_or(|rows| rows < ROWS), "{resumed}");
    let done = async |app: &TestApp, least: u64| {
        until("it is done", async || {
            app.post("/api/v1/hostile/mark", json!({})).send().await.expect(StatusCode::NO_CONTENT);
            let state = state(app).await;
            let rows = state["rows"].as_u64().unwrap_or_default();
            (state["state"] == "done" && rows >= least).then_some(rows)
        })
        .await
    };
    let rows = done(&app, ROWS).await;
    // A row is filled once, whatever was cut off: there are no more than were ever made.
    assert!(rows < ROWS + ROWS / 2, "{rows}");

    // Rows that a version without the column has written meanwhile are filled in when its successor is live again.
    app.admin(Method::POST, "/admin/v1/plugins/hostile/rollback").send().await.expect(StatusCode::OK);
    app.post("/api/v1/hostile/mark", json!({})).send().await.expect(StatusCode::NO_CONTENT);
    let activate = app.admin(Method::PUT, "/admin/v1/plugins/hostile/active").json(json!({ "version": "0.1.1" }));
    activate.send().await.expect(StatusCode::OK);
    done(&app, rows + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_stands_for_the_same_bytes_for_ever_in_production() {
    let app = TestApp::launch("serve", &["location"], &[("ECHO_PASSWORDS__COST", "production")]).await;
    let upload = |file: Vec<u8>| app.admin(Method::POST, "/admin/v1/plugins/location/versions").bytes(file).send();
    let other = repacked("location", &[("cpu = \"20ms\"", "cpu = \"21ms\"")]);
    check_refusal(upload(other).await, "version", &["version 0.1.0 of location is there already with other bytes"]);

    let next = repacked("location", &[("0.1.0", "0.1.1")]);
    assert_eq!(upload(next.clone()).await.expect(StatusCode::CREATED)["version"], "0.1.1");
    assert_eq!(upload(next).await.expect(StatusCode::CREATED)["version"], "0.1.1", "the same bytes again are the same version");
    let live = app.admin(Method::GET, "/admin/v1/plugins/location").send().await.expect(StatusCode::OK);
    assert_eq!((&live["active"], &live["versions"]), (&json!("0.1.0"), &json!(["0.1.0", "0.1.1"])));

    let remove = |version: &str| app.admin(Method::DELETE, &format!("/admin/v1/plugins/location/versions/{version}")).send();
    remove("0.1.0").await.expect_problem(409, "version_is_live");
    remove("0.1.1").await.expect(StatusCode::NO_CONTENT);
    remove("0.1.1").await.expect_problem(404, "no_such_version");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_operator_may_ask() {
    let app = TestApp::with(&["location"], &[]).await;
    let url = format!("{}/admin/v1/plugins", app.admin_url);
    for (token, code) in [(None, "token_missing"), (Some("guessed"), "token_invalid")] {
        let ask = app.client.get(&url);
        let reply = token.map_or(ask.try_clone().expect("no body"), |token| ask.bearer_auth(token)).send().await.expect("an answer");
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(reply.json::<Value>().await.expect("a problem")["code"], code);
    }
    app.get("/admin/v1/plugins").send().await.expect_problem(404, "not_found");

    let unknown = app.admin(Method::PUT, "/admin/v1/plugins/location/active").json(json!({ "version": "9.9.9" })).send().await;
    let problem = unknown.expect_problem(404, "no_such_version");
    assert_eq!(problem["detail"], "location has no version 9.9.9; it has 0.1.0");
    app.admin(Method::PUT, "/admin/v1/plugins/nobody/active")
        .json(json!({ "version": "1.0.0" }))
        .send()
        .await
        .expect_problem(404, "no_such_service");
    // What is wrong with a body is said, wherever the operator sends one.
    for (method, path) in [(Method::PUT, "plugins/location/active"), (Method::POST, "backup"), (Method::POST, "tokens")] {
        let problem = app.admin(method, &format!("/admin/v1/{path}")).json(json!({ "v": 1 })).send().await.expect_problem(422, "invalid");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("field")), "{path}: {problem}");
    }
    app.admin(Method::POST, "/admin/v1/plugins/location/rollback").send().await.expect_problem(409, "nothing_to_roll_back");
    app.admin(Method::POST, "/admin/v1/plugins/nobody/rollback").send().await.expect_problem(404, "no_such_service");
    let large = vec![0; echo_base::limits::PLUGIN_BYTES_MAX + 1];
    let upload = app.admin(Method::POST, "/admin/v1/plugins/location/versions").bytes(large);
    upload.send().await.expect_problem(413, "too_large");
}
