//! The description of a packed file, for `echod plugin inspect`.

use std::fmt::Write;

use serde_json::{Value, json};

use super::artifact::Artifact;
use echo_contract::wit::{Contract, ContractError};

/// Name and version, exports, imports and limits. `sha256` is that of the file, `component_sha256` that of the component in it.
pub fn describe(artifact: &Artifact) -> Result<Value, ContractError> {
    let manifest = &artifact.manifest;
    let contract = Contract::decode(&artifact.bytes, Some(&artifact.wit_text))?;
    let routes = manifest.routes.iter().map(|route| {
        json!({ "method": route.method(), "path": route.full_path(&manifest.prefix), "call": route.call, "access": route.access.to_string() })
    });
    let schedules =
        manifest.schedules.iter().map(|schedule| json!({ "call": schedule.call, "every_ms": schedule.every.as_millis() as u64 }));
    let limits = &manifest.limits;
    Ok(json!({
        "name": manifest.name,
        "version": manifest.version,
        "sha256": artifact.sha256,
        "component_sha256": artifact.component_sha256,
        "size_bytes": artifact.bytes.len(),
        "routes": routes.collect::<Vec<_>>(),
        "frames": manifest.sockets.iter().map(|socket| json!({ "event": socket.event, "call": socket.call })).collect::<Vec<_>>(),
        "schedules": schedules.collect::<Vec<_>>(),
        "subscribes_to": manifest.events.subscribe.clone().unwrap_or_default(),
        "exports": contract.exports().iter().map(|interface| interface.id.clone()).collect::<Vec<_>>(),
        "imports": contract.imports().iter().map(|interface| interface.id.clone()).collect::<Vec<_>>(),
        "migrations": artifact.migrations.iter().map(|one| json!({ "name": one.name, "dialect": one.dialect })).collect::<Vec<_>>(),
        "limits": {
            "memory_bytes": limits.memory,
            "cpu_ms": limits.cpu.as_millis() as u64,
            "wall_ms": limits.wall.as_millis() as u64,
            "concurrency": limits.concurrency,
        },
    }))
}

/// What `describe` gave, for people.
pub fn text(described: &Value) -> String {
    let mut text = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = writeln!(text, "{title}");
            for line in lines {
                let _ = writeln!(text, "  {line}");
            }
        }
    };
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let lines = |list: &str, line: &dyn Fn(&Value) -> String| described[list].as_array().into_iter().flatten().map(line).collect();
    section(
        &format!("{} {}", word(&described["name"]), word(&described["version"])),
        vec![
            format!("sha256     {}", word(&described["sha256"])),
            format!("component  {}", word(&described["component_sha256"])),
            format!("size       {} bytes", described["size_bytes"]),
        ],
    );
    let route = |route: &Value| {
        format!("{:6} {}  {}  ({})", word(&route["method"]), word(&route["path"]), word(&route["call"]), word(&route["access"]))
    };
    section("routes", lines("routes", &route));
    section("frames", lines("frames", &|frame| format!("{}  {}", word(&frame["event"]), word(&frame["call"]))));
    section("schedules", lines("schedules", &|schedule| format!("{}  every {} ms", word(&schedule["call"]), schedule["every_ms"])));
    section("subscribes to", lines("subscribes_to", &word));
    section("exports", lines("exports", &word));
    section("imports", lines("imports", &word));
    section("migrations", lines("migrations", &|one| format!("{} ({})", word(&one["name"]), word(&one["dialect"]))));
    let limits = &described["limits"];
    section(
        "limits",
        vec![format!(
            "memory {} bytes, cpu {} ms, wall {} ms, {} calls at once",
            limits["memory_bytes"], limits["cpu_ms"], limits["wall_ms"], limits["concurrency"]
        )],
    );
    text
}
