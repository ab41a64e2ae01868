//! What differs between two packed versions of a service, for `echod plugin diff`. Knows nothing of what runs.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write;

use serde::Serialize;

use super::artifact::Artifact;
use super::loosened::{self, Change, Version};
use echo_contract::compat;
use echo_contract::wit::{Contract, ContractError};

#[derive(Debug, Serialize)]
pub struct Difference {
    pub service: String,
    /// The versions that the manifests say.
    pub from: String,
    pub to: String,
    /// Lines of the manifest and of the contracts: routes, frames, limits, functions, fields with their bounds.
    pub added: Vec<String>,
    pub removed: Vec<String>,
    /// Why clients of the one could not go on with the other: the gate refuses these.
    pub incompatible: Vec<String>,
    /// What a deployment of the one over the other has to confirm.
    pub changes: Vec<Change>,
}

/// Both are of one service. Errors: a component whose contract cannot be read.
pub fn between(old: &Artifact, new: &Artifact) -> Result<Difference, ContractError> {
    let contract = |artifact: &Artifact| Contract::decode(&artifact.bytes, Some(&artifact.wit_text));
    let (before, after) = (contract(old)?, contract(new)?);
    let (had, has) = (lines_of(old, &before), lines_of(new, &after));
    let only = |these: &[String], those: &[String]| {
        let those: HashSet<&String> = those.iter().collect();
        these.iter().filter(|line| !those.contains(line)).cloned().collect()
    };
    let incompatible = compat::check_exports(&before, &after).iter().map(ToString::to_string).collect();
    Ok(Difference {
        service: new.manifest.name.clone(),
        from: old.manifest.version.clone(),
        to: new.manifest.version.clone(),
        added: only(&has, &had),
        removed: only(&had, &has),
        incompatible,
        changes: loosened::changes(
            &Version { manifest: &old.manifest, contract: &before },
            &Version { manifest: &new.manifest, contract: &after },
            &BTreeSet::new(),
        ),
    })
}

impl Difference {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("{} {} -> {}", self.service, self.from, self.to);
        let (removed, added) = (self.removed.iter().map(|line| ("- ", line)), self.added.iter().map(|line| ("+ ", line)));
        for (sign, line) in removed.chain(added).chain(self.incompatible.iter().map(|line| ("refused: ", line))) {
            let _ = write!(text, "\n  {sign}{line}");
        }
        for Change { name, detail, .. } in &self.changes {
            let _ = write!(text, "\n  wants --allow {name:?}: {detail}");
        }
        if self.removed.is_empty() && self.added.is_empty() {
            text += "\n  the same manifest and contracts";
        }
        text
    }
}

/// One for each thing that people compare, each telling where it stands.
fn lines_of(artifact: &Artifact, contract: &Contract) -> Vec<String> {
    let (manifest, limits) = (&artifact.manifest, &artifact.manifest.limits);
    let routes = manifest.routes.iter().map(|route| {
        let rate = loosened::text_of(&route.rate());
        format!("route {} {}: {}, {}, {rate}", route.method(), route.full_path(&manifest.prefix), route.call, route.access)
    });
    let frames = manifest.sockets.iter().map(|socket| format!("frame {}: {}", socket.event, socket.call));
    let schedules = manifest.schedules.iter().map(|one| format!("schedule {}: every {} ms", one.call, one.every.as_millis()));
    let topics = manifest.events.subscribe.iter().flatten().map(|topic| format!("subscribes to {topic}"));
    let imports = contract.imports().iter().map(|interface| format!("import {}", interface.id));
    let exports = contract.exports().iter().map(|interface| format!("export {}", interface.id));
    let migrations = artifact.migrations.iter().map(|one| format!("migration {} ({})", one.name, one.dialect));
    let limits = [
        format!("limit memory: {} bytes", limits.memory),
        format!("limit cpu: {} ms", limits.cpu.as_millis()),
        format!("limit wall: {} ms", limits.wall.as_millis()),
        format!("limit concurrency: {}", limits.concurrency),
    ];
    let of_manifest = routes.chain(frames).chain(schedules).chain(topics).chain(imports).chain(exports).chain(migrations).chain(limits);
    of_manifest.chain(wit_lines(&artifact.wit_text)).collect()
}

/// Every declaration with where it stands, without versions of packages, and with the tags that its documentation has: `echo:location, interface api, record location: valid: bool`.
fn wit_lines(text: &str) -> Vec<String> {
    let (mut lines, mut within, mut tags) = (Vec::new(), Vec::new(), String::new());
    for line in text.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            if doc.trim_start().starts_with('@') {
                tags = format!("{tags} {}", doc.trim());
            }
        } else if let Some(head) = line.strip_suffix('{') {
            within.push(head.trim().trim_start_matches("package ").split('@').next().unwrap_or_default().to_owned());
        } else if line.starts_with('}') {
            within.pop();
        } else if !line.is_empty() && !within.is_empty() {
            lines.push(format!("{}: {}{}", within.join(", "), line.trim_end_matches([',', ';']), std::mem::take(&mut tags)));
            continue;
        }
        if !line.starts_with("///") {
            tags.clear();
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_say_where_they_stand_and_what_binds_them() {
        let text = "package echo:services@0.1.0;\n\nworld a {\n  export echo:a/api@0.1.0;\n}\npackage echo:a@0.1.0 {\n  /// What it is.\n  interface api {\n    \
                    record request {\n      /// A name.\n      /// @length ..=64\n      name: string,\n    }\n\n    /// Greets.\n    greet: func(request: request);\n  }\n}\n";
        assert_eq!(
            wit_lines(text),
            [
                "world a: export echo:a/api@0.1.0",
                "echo:a, interface api, record request: name: string @length ..=64",
                "echo:a, interface api: greet: func(request: request)",
            ]
        );
        assert!(wit_lines("").is_empty());
    }
}
