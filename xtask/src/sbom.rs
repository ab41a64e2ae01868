//! What a product is made of, as a CycloneDX 1.6 document (ECMA-424). Asks cargo, guesses nothing: which crates are in it from `cargo tree`,
//! what they are from `cargo metadata`, their hashes from Cargo.lock. It has neither a time nor a serial number: same sources, same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::{dist::sha256, step, workspace::Workspace};

/// A file that is given to others.
pub struct Product {
    /// The cargo package that it is built from.
    pub package: String,
    /// What it is compiled for.
    pub target: String,
    pub file: PathBuf,
    /// Of a packed service: the component in it.
    pub component: Option<PathBuf>,
}

/// (name, version)
type Crate = (String, String);

pub fn describe(workspace: &Workspace, product: &Product) -> Result<Value> {
    let linked = crates(workspace, product, "normal,no-proc-macro")?;
    let all = crates(workspace, product, "normal,build")?;
    let packages = Packages::of(workspace, &product.target)?;
    let checksums = checksums(&fs::read_to_string(workspace.root.join("Cargo.lock"))?);
    let main = packages.named(&product.package).context("cargo metadata does not know the product")?;

    let mut subject = describe_crate(main, None);
    subject.insert("type".to_owned(), json!("application"));
    let hash = sha256(&fs::read(&product.file).with_context(|| product.file.display().to_string())?);
    subject.insert("hashes".to_owned(), json!([{ "alg": "SHA-256", "content": hash }]));
    let mut properties = vec![property("echo:target", &product.target), property("echo:compiler", &compiler()?)];
    if let Some(component) = &product.component {
        let bytes = fs::read(component).with_context(|| component.display().to_string())?;
        properties.push(property("echo:component:sha256", &sha256(&bytes)));
    }

    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for (id, package) in &packages.by_id {
        let name = crate_of(package);
        if !all.contains(&name) {
            continue;
        }
        if id != &main["id"] {
            let mut component = describe_crate(package, checksums.get(&name).map(String::as_str));
            // Macros and build scripts run while it is built and are not in it.
            component.insert("scope".to_owned(), json!(if linked.contains(&name) { "required" } else { "excluded" }));
            components.push(Value::Object(component));
        }
        let needed = packages.dependencies_of(id).filter(|package| all.contains(&crate_of(package)));
        let needed: BTreeSet<String> = needed.map(reference).collect();
        dependencies.push(json!({ "ref": reference(package), "dependsOn": needed }));
    }
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": subject, "properties": properties },
        "components": components,
        "dependencies": dependencies,
    }))
}

fn describe_crate(package: &Value, checksum: Option<&str>) -> Map<String, Value> {
    let mut component = Map::new();
    let mut set = |key: &str, value: Value| component.insert(key.to_owned(), value);
    set("type", json!("library"));
    set("bom-ref", json!(reference(package)));
    set("name", package["name"].clone());
    set("version", package["version"].clone());
    if let Some(text) = package["description"].as_str() {
        set("description", json!(text.trim()));
    }
    if let Some(hash) = checksum {
        set("hashes", json!([{ "alg": "SHA-256", "content": hash }]));
    }
    match (package["license"].as_str(), package["license_file"].as_str()) {
        // Cargo's former way to write OR.
        (Some(expression), _) => drop(set("licenses", json!([{ "expression": expression.replace('/', " OR ") }]))),
        (None, Some(file)) => drop(set("licenses", json!([{ "license": { "name": format!("see {file}") } }]))),
        (None, None) => {}
    }
    if is_published(package) {
        set("purl", json!(reference(package)));
        if let Some(url) = package["repository"].as_str() {
            set("externalReferences", json!([{ "type": "vcs", "url": url }]));
        }
    }
    component
}

/// A package URL for what the registry has, and a name of our own for what only the workspace has.
fn reference(package: &Value) -> String {
    let (name, version) = crate_of(package);
    let kind = if is_published(package) { "pkg:cargo/" } else { "echo:" };
    // The one character of a version that a package URL wants encoded.
    format!("{kind}{name}@{}", version.replace('+', "%2B"))
}

fn is_published(package: &Value) -> bool {
    !package["source"].is_null()
}

fn crate_of(package: &Value) -> Crate {
    let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
    (text("name"), text("version"))
}

fn property(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

fn compiler() -> Result<String> {
    step::output(Command::new("rustc").arg("--version"))
}

/// The crates that the product reaches along such edges, itself included.
fn crates(workspace: &Workspace, product: &Product, edges: &str) -> Result<BTreeSet<Crate>> {
    let mut command = workspace.cargo();
    command.args(["tree", "--locked", "--prefix", "none", "--format", "{p}", "--package", &product.package]);
    command.args(["--edges", edges, "--target", &product.target]);
    Ok(step::output(&mut command)?.lines().filter_map(crate_in).collect())
}

/// `serde v1.0.229 (*)`; headings and empty lines are none.
fn crate_in(line: &str) -> Option<Crate> {
    let mut words = line.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    Some((name.to_owned(), version.to_owned()))
}

/// What `cargo metadata` says, by package id.
struct Packages {
    by_id: BTreeMap<String, Value>,
    needs: BTreeMap<String, Vec<String>>,
}

impl Packages {
    fn of(workspace: &Workspace, target: &str) -> Result<Self> {
        let mut command = workspace.cargo();
        command.args(["metadata", "--locked", "--format-version", "1", "--filter-platform", target]);
        let metadata: Value = serde_json::from_str(&step::output(&mut command)?).context("cargo metadata's answer")?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let id = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let by_id = list(&metadata["packages"]).into_iter().map(|package| (id(&package, "id"), package)).collect();
        let needs = list(&metadata["resolve"]["nodes"]).into_iter().map(|node| {
            // Not what tests alone want.
            let is_of_the_product = |need: &Value| list(&need["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev");
            let needs = list(&node["deps"]).iter().filter(|need| is_of_the_product(need)).map(|need| id(need, "pkg")).collect();
            (id(&node, "id"), needs)
        });
        let needs = needs.collect();
        Ok(Self { by_id, needs })
    }

    /// One of the workspace's own.
    fn named(&self, name: &str) -> Option<&Value> {
        self.by_id.values().find(|package| package["name"] == name && !is_published(package))
    }

    fn dependencies_of(&self, id: &str) -> impl Iterator<Item = &Value> {
        self.needs.get(id).into_iter().flatten().filter_map(|id| self.by_id.get(id))
    }
}

/// The SHA-256 of every published crate in the lock file.
fn checksums(lock: &str) -> BTreeMap<Crate, String> {
    let packages = lock.split("[[package]]").filter_map(|package| {
        let value = |key: &str| {
            let mut lines = package.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
            lines.next().map(|value| value.trim_end_matches('"').to_owned())
        };
        Some(((value("name")?, value("version")?), value("checksum")?))
    });
    packages.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dist::host_triple, setup::TARGET};

    fn described(package: &str, target: String) -> Value {
        let workspace = Workspace::find().unwrap();
        // Any file will do for the product.
        let file = workspace.root.join("Cargo.toml");
        let component = (package != "echod").then(|| file.clone());
        describe(&workspace, &Product { package: package.to_owned(), target, file, component }).unwrap()
    }

    /// What the schema asks for, and what it cannot: that every reference leads somewhere.
    fn check(bom: &Value, has: &[(&str, &str)], has_not: &[&str]) {
        assert_eq!((&bom["bomFormat"], &bom["specVersion"], &bom["version"]), (&json!("CycloneDX"), &json!("1.6"), &json!(1)));
        let subject = &bom["metadata"]["component"];
        assert_eq!(subject["hashes"][0]["content"].as_str().map(str::len), Some(64));
        let components = bom["components"].as_array().unwrap();
        let mut references = BTreeSet::from([subject["bom-ref"].as_str().unwrap()]);
        for component in components {
            for key in ["type", "name", "version", "bom-ref", "scope", "licenses"] {
                assert!(!component[key].is_null(), "{component} has no {key}");
            }
            assert!(references.insert(component["bom-ref"].as_str().unwrap()), "{component} is there twice");
            if component.get("purl").is_some() {
                assert_eq!(component["hashes"][0]["content"].as_str().map(str::len), Some(64), "{component}");
            }
        }
        let dependencies = bom["dependencies"].as_array().unwrap();
        assert_eq!(dependencies.len(), references.len());
        for dependency in dependencies {
            let needed = dependency["dependsOn"].as_array().unwrap();
            for reference in needed.iter().chain([&dependency["ref"]]) {
                assert!(references.contains(reference.as_str().unwrap()), "{reference} leads nowhere");
            }
        }
        let scope = |name: &str| components.iter().find(|component| component["name"] == name).map(|component| &component["scope"]);
        for (name, expect) in has {
            assert_eq!(scope(name), Some(&json!(expect)), "{name}");
        }
        for name in has_not {
            assert_eq!(scope(name), None, "{name}");
        }
    }

    #[test]
    fn the_host_is_described() {
        let bom = described("echod", host_triple().unwrap());
        check(&bom, &[("wasmtime", "required"), ("serde_derive", "excluded"), ("cc", "excluded")], &["echo-sdk", "tempfile", "xtask"]);
        assert_eq!(bom["metadata"]["component"]["bom-ref"], json!(format!("echo:echod@{}", env!("CARGO_PKG_VERSION"))));
        assert_eq!(bom, described("echod", host_triple().unwrap()), "the same twice");
    }

    #[test]
    fn a_service_is_described() {
        let bom = described("location", TARGET.to_owned());
        check(&bom, &[("echo-sdk", "required"), ("wit-bindgen-rust-macro", "excluded")], &["wasmtime", "tokio", "echod"]);
        let properties = bom["metadata"]["properties"].as_array().unwrap();
        assert!(properties.iter().any(|property| property["name"] == "echo:component:sha256"));
    }

    #[test]
    fn lines_of_cargo_are_read() {
        assert_eq!(crate_in("serde v1.0.229 (*)"), Some(("serde".to_owned(), "1.0.229".to_owned())));
        assert_eq!((crate_in("[build-dependencies]"), crate_in("")), (None, None));
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"s\"\nchecksum = \"c0\"\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
        assert_eq!(checksums(lock), BTreeMap::from([(("a".to_owned(), "1.0.0".to_owned()), "c0".to_owned())]));
        let package = json!({ "name": "a", "version": "1.0.0+x", "source": "registry" });
        assert_eq!(reference(&package), "pkg:cargo/a@1.0.0%2Bx");
    }
}
