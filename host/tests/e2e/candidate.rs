//! Versions of services to deploy on a running host: packed with a changed manifest, or made from changed contracts.

use std::fs;
use std::path::{Path, PathBuf};

use echo_capabilities::sql::Migration;
use echo_contract::wit::wit_text;
use echo_runtime::artifact::{Artifact, pack};
use tempfile::TempDir;
use wit_parser::Resolve;

use crate::app::packed;
use crate::backing::Backing;

pub use echo_fixture::component;
use echo_fixture::component::{Core, encode};

/// The packed service with these replacements in its manifest.
pub fn repacked(service: &str, manifest: &[(&str, &str)]) -> Vec<u8> {
    with_migrations(service, manifest, |_| {})
}

/// ... and with other migrations.
pub fn with_migrations(service: &str, manifest: &[(&str, &str)], change: impl FnOnce(&mut Vec<Migration>)) -> Vec<u8> {
    let artifact = Artifact::read(fs::read(packed(service)).expect("a packed file")).expect("it was packed by this host");
    let manifest = replaced(artifact.manifest_text, manifest);
    let mut migrations = artifact.migrations;
    change(&mut migrations);
    pack(&artifact.bytes, &manifest, &artifact.wit_text, &migrations).expect("it packs")
}

/// A service of the repository with other contracts. It has no code: every call traps.
pub struct Candidate {
    service: &'static str,
    wit: TempDir,
    pub manifest: String,
    pub core: Core,
}

impl Candidate {
    /// As it is in the repository, but one version later.
    pub fn of(service: &'static str) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        Self::with(service, &root.join("plugins").join(service), &[&root.join("wit")])
    }

    /// One of the services that only tests have.
    pub fn guest(service: &'static str) -> Self {
        let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
        Self::with(service, &tests.join("guests").join(service), &[&tests.join("../../wit"), &tests.join("wit")])
    }

    /// Folders with contracts; later ones override earlier ones.
    fn with(service: &'static str, folder: &Path, contracts: &[&Path]) -> Self {
        let wit = TempDir::new().expect("a temporary folder");
        contracts.iter().for_each(|contracts| copy(contracts, wit.path()));
        let manifest = fs::read_to_string(folder.join("plugin.toml")).expect("a manifest");
        let manifest = replaced(manifest, &[("version = \"0.1.0\"", "version = \"0.1.1\"")]);
        Self { service, wit, manifest, core: Core::default() }
    }

    /// With this replaced in the service's own package.
    pub fn contract(self, from: &str, to: &str) -> Self {
        let file = format!("deps/{0}/{0}.wit", self.service);
        self.wit(&file, from, to)
    }

    /// With this replaced in a file of `wit/`.
    pub fn wit(self, file: &str, from: &str, to: &str) -> Self {
        let path = self.wit.path().join(file);
        let text = fs::read_to_string(&path).expect("a file of the repository");
        fs::write(&path, replaced(text, &[(from, to)])).expect("a file of our own");
        self
    }

    /// With this package beside the others.
    pub fn package(self, name: &str, text: &str) -> Self {
        let folder = self.wit.path().join("deps").join(name);
        fs::create_dir(&folder).expect("a folder of our own");
        fs::write(folder.join("package.wit"), text).expect("a file of our own");
        self
    }

    /// With one more import in its world.
    pub fn import(self, interface: &str) -> Self {
        let world = format!("world {} {{", self.service);
        let with_import = format!("{world}\n  import {interface};");
        self.wit("services.wit", &world, &with_import)
    }

    pub fn manifest(mut self, from: &str, to: &str) -> Self {
        self.manifest = replaced(self.manifest, &[(from, to)]);
        self
    }

    pub fn core(mut self, core: Core) -> Self {
        self.core = core;
        self
    }

    /// The component alone, without manifest, contracts and migrations.
    pub fn component(&self) -> Vec<u8> {
        let mut resolve = Resolve::new();
        let (package, _) = resolve.push_dir(self.wit.path()).unwrap_or_else(|error| panic!("{error:#}"));
        let world = resolve.select_world(&[package], Some(self.service)).expect("the service's world");
        encode(&resolve, world, &self.core)
    }

    pub fn packed(&self) -> Vec<u8> {
        self.packed_with(&[])
    }

    pub fn packed_with(&self, migrations: &[Migration]) -> Vec<u8> {
        let text = wit_text(self.wit.path(), self.service).expect("the contracts print");
        pack(&self.component(), &self.manifest, &text, migrations).expect("it packs")
    }
}

/// In the dialect of this test's hosts.
pub fn migration(name: &str, sql: &str) -> Migration {
    Migration { name: name.to_owned(), dialect: dialect().to_owned(), sql: sql.to_owned() }
}

pub fn dialect() -> &'static str {
    if Backing::of_this_test() == Backing::Embedded { "sqlite" } else { "postgres" }
}

/// Every replacement must be found, else the test would test nothing.
pub fn replaced(text: String, replacements: &[(&str, &str)]) -> String {
    replacements.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "there is no {from:?} in:\n{text}");
        text.replace(from, to)
    })
}

pub fn copy(from: &Path, into: &Path) {
    for entry in fs::read_dir(from).expect("a folder of the repository") {
        let entry = entry.expect("an entry");
        let to = into.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&to).expect("a folder of our own");
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).expect("a file is copied");
        }
    }
}
