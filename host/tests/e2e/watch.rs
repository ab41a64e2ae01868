//! Development mode: a changed source is served. Everything is as in `cargo xtask run` except the compiler, which is a script that packs the
//! component that is there with the sources as they are.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use echo_runtime::artifact::Artifact;
use reqwest::StatusCode;
use tempfile::TempDir;

use crate::app::{TestApp, packed, until};
use crate::candidate::copy;

/// What the host calls as `cargo`, in the sources' root; `ECHOD` is the host's own binary.
const CARGO: &str = r#"#!/bin/sh
set -e
echo "$*" >> "$STAND_IN/calls"
"$ECHOD" plugin pack plugins/location --component "$STAND_IN/location.wasm" -o "$STAND_IN/packed.wasm"
mv "$STAND_IN/packed.wasm" packed/location.wasm
"#;

#[tokio::test]
async fn a_changed_source_is_rebuilt_and_served() {
    let stand_in = TempDir::new().expect("a temporary folder");
    let cargo = stand_in.path().join("cargo");
    fs::write(&cargo, CARGO).expect("a script");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("our own file");
    let component = Artifact::read(fs::read(packed("location")).expect("a packed file")).expect("packed by this host").bytes;
    fs::write(stand_in.path().join("location.wasm"), component).expect("a component");
    let path = |path: &Path| path.to_str().expect("a temporary folder's name is plain").to_owned();
    let settings = [("CARGO", path(&cargo)), ("STAND_IN", path(stand_in.path()))];
    let mut app = TestApp::with(&["location"], &settings.each_ref().map(|(name, value)| (*name, value.as_str()))).await;

    // The host looks for sources where it is started.
    let sources = app.data.path().to_owned();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for folder in ["xtask", "plugins/sdk", "plugins/location/src", "wit"] {
        fs::create_dir_all(sources.join(folder)).expect("a folder of our own");
    }
    copy(&repository.join("wit"), &sources.join("wit"));
    let manifest = fs::read_to_string(repository.join("plugins/location/plugin.toml")).expect("a manifest");
    let changed = sources.join("plugins/location/plugin.toml");
    fs::write(&changed, &manifest).expect("a file of our own");
    app.terminate().await;
    app.restart().await;
    until("the sources are watched", async || app.log().contains("watching the plugins' sources").then_some(())).await;

    let cache_control = async || app.get("/api/v1/location/lookup?phone=%2B14155552671").send().await.header("cache-control").to_owned();
    let calls = || fs::read_to_string(stand_in.path().join("calls")).unwrap_or_default();
    assert_eq!(cache_control().await, "public, max-age=3600");
    let with_ttl = |ttl: &str| manifest.replace("ttl = \"1h\"", &format!("ttl = \"{ttl}\""));
    fs::write(&changed, with_ttl("2h")).expect("a file of our own");
    until("the change is served", async || (cache_control().await == "public, max-age=7200").then_some(())).await;
    // An editor may write in several steps, and each may be seen by itself.
    assert!(calls().lines().all(|call| call == "xtask plugins location"), "{}", calls());

    // A source that does not build changes nothing, and the reason is in the log.
    fs::write(&changed, "colour = 1\n").expect("a file of our own");
    let reason = "the plugins do not build; the running versions go on";
    until("the failure is told", async || app.log().contains(reason).then_some(())).await;
    assert!(app.log().split(reason).nth(1).is_some_and(|told| told.contains("colour")), "{}", app.log());
    assert_eq!(cache_control().await, "public, max-age=7200");
    fs::write(&changed, with_ttl("3h")).expect("a file of our own");
    until("the mended source is served", async || (cache_control().await == "public, max-age=10800").then_some(())).await;

    // A shared source concerns all services; a file that is no source concerns none.
    fs::write(sources.join("plugins/location/notes.txt"), "a note").expect("a file of our own");
    let before = calls().lines().count();
    fs::write(sources.join("wit/deps/types/more.wit"), "package echo:types@0.1.0;\n").expect("a file of our own");
    until("all are rebuilt", async || calls().lines().any(|call| call == "xtask plugins").then_some(())).await;
    assert!(calls().lines().skip(before).all(|call| call == "xtask plugins"), "{}", calls());
    app.get("/health").send().await.expect(StatusCode::OK);
}
