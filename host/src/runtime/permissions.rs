//! The permission map: which imports each service is granted. It is `wit/services.wit`, the file that the services are built against; an
//! operator may put another one in its place.

use std::collections::{BTreeMap, BTreeSet};

use super::linking::{Role, role_of, without_version};
use crate::contract::wit::Contract;
use crate::names::ServiceName;

/// Imports (without versions) by world.
#[derive(Clone, Debug, Default)]
pub struct Permissions {
    worlds: BTreeMap<String, BTreeSet<String>>,
}

/// The map that this host was built with.
const BUILT_IN: &str = include_str!("../../../wit/services.wit");

impl Permissions {
    pub fn built_in() -> Self {
        Self::parse(BUILT_IN).expect("the built-in map is read by a test")
    }

    /// Reads the worlds and their `import` lines of a WIT file.
    /// Errors: the first line that is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut worlds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut world = None;
        for (number, line) in text.lines().enumerate() {
            let line = line.split("//").next().unwrap_or("").trim();
            if let Some(name) = line.strip_prefix("world ") {
                let name = name.trim_end_matches('{').trim().trim_start_matches('%').to_owned();
                worlds.entry(name.clone()).or_default();
                world = Some(name);
            } else if line == "}" {
                world = None;
            } else if let Some(import) = line.strip_prefix("import ") {
                let Some(world) = &world else { return Err(format!("line {}: an import outside a world", number + 1)) };
                let id = import.trim_end_matches(';').trim();
                worlds.entry(world.clone()).or_default().insert(without_version(id).to_owned());
            } else if !(line.is_empty() || line.starts_with("package ") || line.starts_with("export ") || line.starts_with("use ")) {
                return Err(format!("line {}: {line:?} is none of package, world, import, export", number + 1));
            }
        }
        Ok(Self { worlds })
    }

    /// Adds another map's worlds, which go over those of the same name.
    pub fn extended(mut self, other: Self) -> Self {
        self.worlds.extend(other.worlds);
        self
    }

    /// What the component imports and its service is not granted, each with the reason.
    pub fn refusals(&self, service: &ServiceName, contract: &Contract) -> Vec<String> {
        let Some(granted) = self.worlds.get(service.as_str()) else {
            return vec![format!("there is no world {service} in the permission map (services.wit), so nothing is granted to it")];
        };
        contract
            .imports()
            .iter()
            // WASI is shut tight for everybody (see `instance.rs`), and other languages import all of it.
            .filter(|import| !matches!(role_of(import), Role::Types | Role::Wasi))
            .filter(|import| !granted.contains(without_version(&import.id)))
            .map(|import| format!("it imports {}, which the world {service} of the permission map (services.wit) does not", import.id))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_map_is_read() {
        let permissions = Permissions::built_in();
        assert!(permissions.worlds["auth"].contains("echo:passwords/passwords"));
        assert!(permissions.worlds["message"].contains("echo:user/api"));
        assert!(!permissions.worlds["message"].contains("echo:passwords/passwords"));
        assert!(!permissions.worlds["location"].contains("echo:sql/sql"));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        assert!(Permissions::parse("world a {\n  include b;\n}").unwrap_err().contains("line 2"));
        assert!(Permissions::parse("import echo:sql/sql;").unwrap_err().contains("outside a world"));
    }
}
