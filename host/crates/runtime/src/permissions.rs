//! What each service is granted: the imports of its world in `wit/services.wit`, as it was when this host was built; over that the worlds of the
//! operator's file, read for each deployment; and the operator's grants with a deployment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::{fmt, fs};

use serde::{Deserialize, Serialize};
use wit_parser::{AstItem, InterfaceId, UnresolvedPackageGroup, WorldKey};

use super::linking::{Role, role_of, without_version};
use echo_base::names::ServiceName;
use echo_contract::wit::Contract;

/// Where grants are read from.
#[derive(Clone, Debug, Default)]
pub struct Permissions {
    file: Option<PathBuf>,
}

impl Permissions {
    /// `file`: a `services.wit` whose worlds go over those of the same name that this host was built with.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file }
    }

    /// The worlds as they are now. Errors: the operator's file cannot be read or understood; the message names it.
    pub fn worlds(&self) -> Result<Worlds, String> {
        let built_in = Worlds::parse(BUILT_IN).expect("the built-in map is read by a test");
        let Some(file) = &self.file else { return Ok(built_in) };
        let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let more = Worlds::parse(&text).map_err(|reason| format!("{}: {reason}", file.display()))?;
        Ok(built_in.extended(more))
    }

    /// What the component imports and its service is not granted, each with the reason and how to grant it.
    pub fn refusals(&self, service: &ServiceName, contract: &Contract, given: &BTreeSet<Grant>) -> Vec<String> {
        let worlds = match self.worlds() {
            Ok(worlds) => worlds,
            Err(reason) => return vec![format!("the grants cannot be read: {reason}")],
        };
        let none = BTreeSet::new();
        let granted = worlds.0.get(service.as_str()).unwrap_or(&none);
        let place = match &self.file {
            Some(file) => format!("in world {service} of {}", file.display()),
            None => format!("in world {service} of a file that the setting data.permissions names"),
        };
        contract
            .imports()
            .iter()
            // WASI is empty (see `instance.rs`), and components of other languages import all of it.
            .filter(|import| !matches!(role_of(import), Role::Types | Role::Wasi))
            .map(|import| (import, without_version(&import.id)))
            .filter(|(_, name)| !granted.contains(*name) && !given.iter().any(|grant| grant.covers(name)))
            .map(|(import, name)| {
                format!(
                    "it imports {}, which {service} is not granted; grant it with the deployment (--grant {name}) or {place}",
                    import.id
                )
            })
            .collect()
    }
}

/// An operator's grant with a deployment: a package (`echo:sql`) or one interface of it (`echo:sql/sql`), without a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Grant(String);

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no grant: write a package or one of its interfaces, such as echo:sql or echo:user/api, without a version")]
pub struct BadGrant(String);

impl Grant {
    pub fn parse(text: &str) -> Result<Self, BadGrant> {
        let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        let good = text.split_once(':').is_some_and(|(namespace, rest)| {
            let (package, interface) = rest.split_once('/').unwrap_or((rest, "api"));
            is_name(namespace) && is_name(package) && is_name(interface)
        });
        if good { Ok(Self(text.to_owned())) } else { Err(BadGrant(text.to_owned())) }
    }

    pub fn covers(&self, import: &str) -> bool {
        import == self.0 || import.strip_prefix(self.0.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Grant> for String {
    fn from(grant: Grant) -> Self {
        grant.0
    }
}

impl TryFrom<String> for Grant {
    type Error = BadGrant;

    fn try_from(text: String) -> Result<Self, BadGrant> {
        Self::parse(&text)
    }
}

/// Imports (without versions) by world.
#[derive(Clone, Debug, Default)]
pub struct Worlds(BTreeMap<String, BTreeSet<String>>);

/// The map that this host was built with.
const BUILT_IN: &str = include_str!("../../../../wit/services.wit");

impl Worlds {
    /// Reads the worlds of a WIT package in one file, and the interfaces that each imports.
    /// Errors: what is no WIT, with its line; a world that includes another.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parsed = UnresolvedPackageGroup::parse("services.wit", text).map_err(|(sources, error)| error.render(&sources))?;
        let package = parsed.main;
        let foreign: HashMap<InterfaceId, String> = package
            .foreign_deps
            .iter()
            .flat_map(|(package, items)| items.iter().map(move |(interface, (item, _))| (package, interface, item)))
            .filter_map(|(package, interface, item)| match item {
                AstItem::Interface(id) => Some((*id, format!("{}:{}/{interface}", package.namespace, package.name))),
                AstItem::World(_) => None,
            })
            .collect();
        let mut worlds = BTreeMap::new();
        for (_, world) in package.worlds.iter() {
            if !world.includes.is_empty() {
                return Err(format!(
                    "world {} includes another; write its imports out, so that they can be read on one screen",
                    world.name
                ));
            }
            // Functions and interfaces of the file itself are no imports that a host could give.
            let imports = world.imports.keys().filter_map(|key| match key {
                WorldKey::Interface(id) => foreign.get(id).cloned(),
                WorldKey::Name(_) => None,
            });
            worlds.insert(world.name.clone(), imports.collect());
        }
        Ok(Self(worlds))
    }

    /// Adds another map's worlds, which replace those of the same name.
    fn extended(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_map_is_read() {
        let worlds = Permissions::default().worlds().expect("it is read").0;
        assert!(worlds["auth"].contains("echo:passwords/passwords"));
        assert!(worlds["message"].contains("echo:user/api"));
        assert!(!worlds["message"].contains("echo:passwords/passwords"));
        assert!(!worlds["location"].contains("echo:sql/sql"));
    }

    #[test]
    fn the_operators_file_is_read_anew_each_time() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("services.wit");
        let permissions = Permissions::new(Some(file.clone()));
        assert!(permissions.worlds().unwrap_err().contains("services.wit"));
        fs::write(&file, "package a:b@1.0.0;\nworld polls {\n  import echo:sql/sql@0.1.0;\n}\n").unwrap();
        assert!(permissions.worlds().expect("it is read").0["polls"].contains("echo:sql/sql"));
        fs::write(&file, "package a:b@1.0.0;\nworld polls {\n}\n").unwrap();
        assert!(permissions.worlds().expect("it is read").0["polls"].is_empty());
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let refused = |text: &str, reason: &str| {
            let told = Worlds::parse(text).unwrap_err();
            assert!(told.contains(reason), "{told}");
        };
        refused("package a:b;\nworld a {\n  include b;\n}\nworld b {\n  import echo:sql/sql;\n}\n", "world a includes another");
        refused("package a:b;\nimport echo:sql/sql;\n", "services.wit:2:1");
        refused("world a {", "expected");
    }

    #[test]
    fn a_grant_is_a_package_or_an_interface() {
        let covers = |grant: &str, import: &str| Grant::parse(grant).expect("a good one").covers(import);
        assert!(covers("echo:sql", "echo:sql/sql") && covers("echo:sql/sql", "echo:sql/sql"));
        assert!(!covers("echo:sq", "echo:sql/sql") && !covers("echo:sql/sq", "echo:sql/sql"));
        for bad in ["", "sql", "echo:", "echo:sql/", "echo:sql@0.1.0", "*", "echo:*"] {
            assert!(Grant::parse(bad).is_err(), "{bad:?}");
        }
    }
}
