//! The packed plugin: one self-describing file. A component, with its manifest, its WIT text (docs included) and its migrations as custom
//! sections. Knows no engine: whether the code works is the activation gate's question.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};
use wasm_encoder::{Encode, Section};
use wasmparser::{Encoding, Parser, Payload};

use super::manifest::{Manifest, ManifestError};
use echo_base::limits;
use echo_capabilities::sql::Migration;
use echo_contract::wit::{self, ContractError};

/// A packed plugin, read.
#[derive(Debug)]
pub struct Artifact {
    /// The whole file. The engine takes it as it is: it ignores custom sections.
    pub bytes: Vec<u8>,
    pub manifest: Manifest,
    pub manifest_text: String,
    /// Empty in files that were packed without.
    pub wit_text: String,
    pub migrations: Vec<Migration>,
    /// Of the whole file, in hexadecimal.
    pub sha256: String,
    /// Of the component as the compiler left it, before it was packed: a build of the same sources gives the same.
    pub component_sha256: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("the plugin has {bytes} bytes, {} are allowed", limits::PLUGIN_BYTES_MAX)]
    TooLarge { bytes: usize },
    #[error("this is no WebAssembly: {0}")]
    NotWasm(String),
    #[error("this is a core module, a component is wanted (build it with wasm-component-ld or wrap it with wasm-tools component new)")]
    CoreModule,
    #[error("this core module cannot be made a component (has it bindings by wit_bindgen?): {0}")]
    NoComponent(String),
    #[error("this component is not packed: it has no section {MANIFEST}; make one with `echod plugin pack`")]
    NoManifest,
    #[error("section {section} stands twice in the file")]
    Twice { section: &'static str },
    #[error("section {section} cannot be read: {reason}")]
    Section { section: &'static str, reason: String },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Contract(#[from] ContractError),
    #[error("{path}: {reason}")]
    File { path: String, reason: String },
}

impl ArtifactError {
    /// Whether the manifest is at fault, and not the code.
    pub fn is_about_the_manifest(&self) -> bool {
        matches!(self, ArtifactError::NoManifest | ArtifactError::Manifest(_))
    }
}

impl Artifact {
    pub fn read(bytes: Vec<u8>) -> Result<Self, ArtifactError> {
        let (mut manifest, mut wit_text, mut migrations) = (None, None, None);
        let sections = sections(&bytes)?;
        for section in &sections {
            let slot = match section.name {
                MANIFEST => &mut manifest,
                WIT => &mut wit_text,
                MIGRATIONS => &mut migrations,
                _ => continue,
            };
            let name = known(section.name);
            let text = std::str::from_utf8(section.content)
                .map_err(|error| ArtifactError::Section { section: name, reason: error.to_string() })?;
            if slot.replace(text.to_owned()).is_some() {
                return Err(ArtifactError::Twice { section: name });
            }
        }
        let manifest_text = manifest.ok_or(ArtifactError::NoManifest)?;
        let manifest = Manifest::parse(&manifest_text)?;
        let migrations = match migrations {
            Some(text) => {
                serde_json::from_str(&text).map_err(|error| ArtifactError::Section { section: MIGRATIONS, reason: error.to_string() })?
            }
            None => Vec::new(),
        };
        let (sha256, component_sha256) = (hexadecimal([bytes.as_slice()]), hexadecimal(without_ours(&bytes, &sections)));
        Ok(Self { bytes, manifest, manifest_text, wit_text: wit_text.unwrap_or_default(), migrations, sha256, component_sha256 })
    }
}

/// The SHA-256 of the concatenated parts.
fn hexadecimal<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    parts.into_iter().for_each(|part| hash.update(part));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Packs a component. Same input, same bytes; sections of an earlier packing are replaced.
pub fn pack(component: &[u8], manifest: &str, wit: &str, migrations: &[Migration]) -> Result<Vec<u8>, ArtifactError> {
    Manifest::parse(manifest)?;
    let mut packed = Vec::with_capacity(component.len() + manifest.len() + wit.len() + 1024);
    without_ours(component, &sections(component)?).for_each(|part| packed.extend_from_slice(part));
    let migrations =
        serde_json::to_string(migrations).map_err(|error| ArtifactError::Section { section: MIGRATIONS, reason: error.to_string() })?;
    for (name, content) in [(MANIFEST, manifest), (WIT, wit), (MIGRATIONS, &migrations)] {
        let section = wasm_encoder::CustomSection { name: name.into(), data: Cow::Borrowed(content.as_bytes()) };
        packed.push(section.id());
        section.encode(&mut packed);
    }
    if packed.len() > limits::PLUGIN_BYTES_MAX {
        return Err(ArtifactError::TooLarge { bytes: packed.len() });
    }
    Ok(packed)
}

/// Packs what the compiler made with the `plugin.toml` of its folder, the world of its name in `wit_dir`, and the migrations
/// `NNNN_name.<dialect>.sql` of `migrations_dir`, which need not exist. A core module is made a component: `wasm-component-ld` is not on
/// every author's PATH, and the usual linker leaves a module with the bindings' types in a section.
pub fn pack_directory(plugin_dir: &Path, compiled: &[u8], wit_dir: &Path, migrations_dir: &Path) -> Result<Vec<u8>, ArtifactError> {
    let component = &as_component(compiled)?;
    let manifest_text = read_text(&plugin_dir.join("plugin.toml"))?;
    let manifest = Manifest::parse(&manifest_text)?;
    let wit_text = wit::wit_text(wit_dir, &manifest.name)?;
    // What the documentation states of bounds is to be true of this component.
    wit::Contract::decode(component, Some(&wit_text))?;
    pack(component, &manifest_text, &wit_text, &read_migrations(migrations_dir)?)
}

fn as_component(compiled: &[u8]) -> Result<Cow<'_, [u8]>, ArtifactError> {
    if !matches!(sections(compiled), Err(ArtifactError::CoreModule)) {
        return Ok(Cow::Borrowed(compiled));
    }
    let encoded = wit_component::ComponentEncoder::default().validate(true).module(compiled).and_then(|mut encoder| encoder.encode());
    encoded.map(Cow::Owned).map_err(|error| ArtifactError::NoComponent(format!("{error:#}")))
}

/// The migrations of a folder, in the order of their names. Files of other forms are refused; a folder that is not there has none.
pub fn read_migrations(folder: &Path) -> Result<Vec<Migration>, ArtifactError> {
    let mut migrations = Vec::new();
    if !folder.exists() {
        return Ok(migrations);
    }
    for entry in fs::read_dir(folder).map_err(|error| file_error(folder, error))? {
        let path = entry.map_err(|error| file_error(folder, error))?.path();
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if file_name.starts_with('.') {
            continue;
        }
        let parts: Vec<_> = file_name.split('.').collect();
        let (name, dialect, suffix) = match parts.as_slice() {
            [name, dialect @ ("sqlite" | "postgres"), "sql"] => (name, dialect, ""),
            [name, "backfill", dialect @ ("sqlite" | "postgres"), "sql"] => (name, dialect, Migration::BACKFILL),
            _ => {
                let reason = "a migration is named NNNN_name.sqlite.sql or NNNN_name.postgres.sql, its back-fill NNNN_name.backfill.sqlite.sql \
                    or NNNN_name.backfill.postgres.sql";
                return Err(file_error(&path, reason));
            }
        };
        let numbered =
            name.split_once('_').is_some_and(|(number, _)| number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit()));
        if !numbered {
            return Err(file_error(&path, "a migration's name begins with four digits and an underscore"));
        }
        migrations.push(Migration { name: format!("{name}{suffix}"), dialect: (*dialect).to_owned(), sql: read_text(&path)? });
    }
    migrations.sort_by(|a, b| (&a.name, &a.dialect).cmp(&(&b.name, &b.dialect)));
    Ok(migrations)
}

const MANIFEST: &str = "echo:manifest";
const WIT: &str = "echo:wit";
const MIGRATIONS: &str = "echo:migrations";

/// The file in parts, with the sections that packing adds left out.
fn without_ours<'a>(bytes: &'a [u8], sections: &[CustomSection<'_>]) -> impl Iterator<Item = &'a [u8]> {
    let ours = sections.iter().filter(|section| [MANIFEST, WIT, MIGRATIONS].contains(&section.name));
    let mut ends: Vec<_> = ours.map(|section| section.whole.clone()).collect();
    ends.push(bytes.len()..bytes.len());
    let mut kept_from = 0;
    ends.into_iter().map(move |left_out| {
        let part = &bytes[kept_from..left_out.start];
        kept_from = left_out.end;
        part
    })
}

fn known(name: &str) -> &'static str {
    [MANIFEST, WIT, MIGRATIONS].into_iter().find(|known| *known == name).unwrap_or("custom")
}

/// A custom section of the component itself, not of a module within it.
struct CustomSection<'a> {
    name: &'a str,
    content: &'a [u8],
    /// Where it stands, its header included.
    whole: std::ops::Range<usize>,
}

fn sections(bytes: &[u8]) -> Result<Vec<CustomSection<'_>>, ArtifactError> {
    if bytes.len() > limits::PLUGIN_BYTES_MAX {
        return Err(ArtifactError::TooLarge { bytes: bytes.len() });
    }
    let mut sections = Vec::new();
    let mut depth = 0_usize;
    // The end of the section before: the parser gives only the range of a section's content, and its header is between the two.
    let mut at = 0;
    // The parser would print the bytes that it wants and those that it found.
    if !bytes.starts_with(b"\0asm") {
        return Err(ArtifactError::NotWasm("a file of WebAssembly begins otherwise".to_owned()));
    }
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|error| ArtifactError::NotWasm(error.to_string()))?;
        match &payload {
            Payload::Version { encoding, range, .. } if depth == 0 => {
                if *encoding != Encoding::Component {
                    return Err(ArtifactError::CoreModule);
                }
                at = range.end;
                continue;
            }
            Payload::ModuleSection { unchecked_range, .. } | Payload::ComponentSection { unchecked_range, .. } => {
                if depth == 0 {
                    at = unchecked_range.end;
                }
                depth += 1;
                continue;
            }
            Payload::End(_) => {
                depth = depth.saturating_sub(1);
                continue;
            }
            Payload::CustomSection(section) if depth == 0 => {
                let range = section.range();
                sections.push(CustomSection { name: section.name(), content: section.data(), whole: at..range.end });
            }
            _ => {}
        }
        if depth == 0
            && let Some((_, range)) = payload.as_section()
        {
            at = range.end;
        }
    }
    Ok(sections)
}

fn read_text(path: &Path) -> Result<String, ArtifactError> {
    fs::read_to_string(path).map_err(|error| file_error(path, error))
}

fn file_error(path: &Path, reason: impl ToString) -> ArtifactError {
    ArtifactError::File { path: path.display().to_string(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use echo_contract::wit::Contract;

    const TOML: &str = "name = \"location\"\nversion = \"0.1.0\"\nprefix = \"/api/v1/location\"\n";

    fn migration(name: &str, dialect: &str) -> Migration {
        Migration { name: name.to_owned(), dialect: dialect.to_owned(), sql: format!("CREATE TABLE {dialect} (id TEXT);") }
    }

    fn custom_section(name: &str, content: &[u8]) -> Vec<u8> {
        let section = wasm_encoder::CustomSection { name: name.into(), data: content.into() };
        let mut bytes = vec![section.id()];
        section.encode(&mut bytes);
        bytes
    }

    fn hash(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn refused(bytes: Vec<u8>, expect: &str) {
        let message = Artifact::read(bytes).expect_err("refused").to_string();
        assert!(message.contains(expect), "{message} does not say {expect}");
    }

    #[test]
    fn what_is_packed_is_read_back() {
        let component = echo_fixture::component("location");
        let wit_text = wit::wit_text(&echo_fixture::wit_dir(), "location").unwrap();
        let migrations = [migration("0001_first", "sqlite")];
        let packed = pack(&component, TOML, &wit_text, &migrations).unwrap();
        assert_eq!(packed, pack(&component, TOML, &wit_text, &migrations).unwrap());
        assert_eq!(packed[..component.len()], component);

        let artifact = Artifact::read(packed.clone()).unwrap();
        assert_eq!((artifact.manifest.name.as_str(), artifact.manifest_text.as_str()), ("location", TOML));
        assert_eq!(artifact.wit_text, wit_text);
        assert_eq!(artifact.migrations, migrations);
        // What `sha256sum` says of the packed file and of the one that the compiler left.
        assert_eq!((artifact.sha256, artifact.component_sha256.clone()), (hash(&packed), hash(&component)));
        let contract = Contract::decode(&artifact.bytes, Some(&artifact.wit_text)).unwrap();
        assert!(contract.export("location", "api").unwrap().function("lookup").unwrap().docs.is_some());

        // Packing what is packed replaces the sections, wherever they stand.
        let other = TOML.replace("0.1.0", "0.2.0");
        let again = pack(&packed, &other, "", &[]).unwrap();
        assert_eq!(again, pack(&component, &other, "", &[]).unwrap());
        let mut first = component[..8].to_vec();
        first.extend(custom_section(MANIFEST, b"old"));
        first.extend(custom_section("another", b"stays"));
        first.extend(&component[8..]);
        let packed = pack(&first, TOML, "", &[]).unwrap();
        assert_eq!(Artifact::read(packed.clone()).unwrap().manifest_text, TOML);
        assert_eq!(packed[8..8 + custom_section("another", b"stays").len()], custom_section("another", b"stays"));
        // Another manifest and the same code; and another section, which is the compiler's.
        assert_eq!(Artifact::read(again.clone()).unwrap().component_sha256, artifact.component_sha256);
        let mut bare = component[..8].to_vec();
        bare.extend(custom_section("another", b"stays"));
        bare.extend(&component[8..]);
        assert_eq!(Artifact::read(packed).unwrap().component_sha256, hash(&bare));
    }

    #[test]
    fn what_is_no_packed_plugin_is_refused_with_its_reason() {
        let component = echo_fixture::component("location");
        let with = |sections: &[(&str, &[u8])]| {
            let mut bytes = component.clone();
            sections.iter().for_each(|(name, content)| bytes.extend(custom_section(name, content)));
            bytes
        };
        refused(b"#!/bin/sh".to_vec(), "no WebAssembly");
        refused(Vec::new(), "no WebAssembly");
        refused(b"\0asm\x01\0\0\0".to_vec(), "core module");
        refused(component[..component.len() - 1].to_vec(), "no WebAssembly");
        refused(component.clone(), "no section echo:manifest");
        refused(with(&[(MANIFEST, b"name = 1")]), "plugin.toml");
        refused(with(&[(MANIFEST, TOML.replace("0.1.0", "1").as_bytes())]), "MAJOR.MINOR.PATCH");
        refused(with(&[(MANIFEST, b"\xff")]), "section echo:manifest cannot be read");
        refused(with(&[(MANIFEST, TOML.as_bytes()), (MANIFEST, TOML.as_bytes())]), "twice");
        refused(with(&[(MANIFEST, TOML.as_bytes()), (MIGRATIONS, b"{}")]), "section echo:migrations cannot be read");
        refused(vec![0; limits::PLUGIN_BYTES_MAX + 1], "are allowed");
        let bare = Artifact::read(with(&[(MANIFEST, TOML.as_bytes())])).unwrap();
        assert!(bare.wit_text.is_empty() && bare.migrations.is_empty());
        assert!(Contract::decode(&bare.bytes, Some(&bare.wit_text)).unwrap().export("location", "api").unwrap().docs.is_none());
        let about_the_manifest = |bytes: Vec<u8>| Artifact::read(bytes).unwrap_err().is_about_the_manifest();
        assert!(about_the_manifest(component.clone()) && !about_the_manifest(Vec::new()));
        assert!(matches!(pack(b"\0asm\x01\0\0\0", TOML, "", &[]), Err(ArtifactError::CoreModule)));
        assert!(matches!(pack(&component, "name = 1", "", &[]), Err(ArtifactError::Manifest(_))));
    }

    #[test]
    fn a_folder_is_packed_with_its_migrations_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let (plugin, migrations) = (folder.path().join("plugin"), folder.path().join("migrations"));
        fs::create_dir_all(&plugin).unwrap();
        let pack = || pack_directory(&plugin, &echo_fixture::component("location"), &echo_fixture::wit_dir(), &migrations);
        assert!(pack().unwrap_err().to_string().contains("plugin.toml"));
        fs::write(plugin.join("plugin.toml"), TOML).unwrap();
        assert_eq!(Artifact::read(pack().unwrap()).unwrap().migrations, []);

        fs::create_dir_all(&migrations).unwrap();
        let expect = [migration("0001_first", "postgres"), migration("0001_first", "sqlite"), migration("0002_second", "sqlite")];
        for migration in expect.iter().rev() {
            fs::write(migrations.join(format!("{}.{}.sql", migration.name, migration.dialect)), &migration.sql).unwrap();
        }
        let artifact = Artifact::read(pack().unwrap()).unwrap();
        assert_eq!(artifact.migrations, expect);
        assert!(artifact.wit_text.contains("Where a telephone number belongs"));

        for bad in ["first.sqlite.sql", "0003_third.mysql.sql", "0003_third.sql", "readme.md"] {
            fs::write(migrations.join(bad), "").unwrap();
            assert!(pack().unwrap_err().to_string().contains(bad), "{bad}");
            fs::remove_file(migrations.join(bad)).unwrap();
        }
        fs::write(plugin.join("plugin.toml"), TOML.replace("location", "elsewhere")).unwrap();
        assert!(pack().unwrap_err().to_string().contains("no world \"elsewhere\""));
    }
}
