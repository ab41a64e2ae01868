//! The description of a packed file, for `echod plugin inspect`.

use std::fmt::Write;

use super::artifact::Artifact;
use echo_contract::wit::{Contract, ContractError};

/// Name and version, exports, imports and limits. `sha256` is that of the file, `component` that of the component in it.
pub fn describe(artifact: &Artifact) -> Result<String, ContractError> {
    let manifest = &artifact.manifest;
    let contract = Contract::decode(&artifact.bytes, Some(&artifact.wit_text))?;
    let mut text = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = writeln!(text, "{title}");
            for line in lines {
                let _ = writeln!(text, "  {line}");
            }
        }
    };
    let limits = &manifest.limits;
    section(
        &format!("{} {}", manifest.name, manifest.version),
        vec![
            format!("sha256     {}", artifact.sha256),
            format!("component  {}", artifact.component_sha256),
            format!("size       {} bytes", artifact.bytes.len()),
        ],
    );
    section(
        "routes",
        manifest
            .routes
            .iter()
            .map(|route| format!("{:6} {}  {}  ({})", route.method(), route.full_path(&manifest.prefix), route.call, route.access))
            .collect(),
    );
    section("frames", manifest.sockets.iter().map(|socket| format!("{}  {}", socket.event, socket.call)).collect());
    section(
        "schedules",
        manifest.schedules.iter().map(|schedule| format!("{}  every {} ms", schedule.call, schedule.every.as_millis())).collect(),
    );
    section("subscribes to", manifest.events.subscribe.clone().unwrap_or_default());
    section("exports", contract.exports().iter().map(|interface| interface.id.clone()).collect());
    section("imports", contract.imports().iter().map(|interface| interface.id.clone()).collect());
    section("migrations", artifact.migrations.iter().map(|migration| format!("{} ({})", migration.name, migration.dialect)).collect());
    section(
        "limits",
        vec![format!(
            "memory {} bytes, cpu {} ms, wall {} ms, {} calls at once",
            limits.memory,
            limits.cpu.as_millis(),
            limits.wall.as_millis(),
            limits.concurrency
        )],
    );
    Ok(text)
}
