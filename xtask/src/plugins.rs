//! Builds the service components and packs each into one file, byte for byte the same from any folder.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    dist::sha256,
    setup::{self, Setup, TARGET, Toolchain},
    step::{self, say},
    workspace::{Component, Workspace},
};

/// Build the services (plugins/*) and pack each into target/plugins/NAME.wasm.
///
/// Every folder below `plugins` with a plugin.toml is one. The bytes depend on the sources and the compiler alone, not on the folder,
/// the user or the time; `--check` builds twice and compares.
#[derive(Args, Default)]
pub struct Plugins {
    /// Only these services.
    names: Vec<String>,
    /// Build a second time from a copy of the sources, with another folder, CARGO_HOME, umask, locale and time zone, and compare the bytes.
    #[arg(long)]
    check: bool,
    /// Build the components that only tests load too (host/tests/guests/*), into target/guests.
    #[arg(long)]
    guests: bool,
    /// Stop after the compiler: no packed files.
    #[arg(long)]
    unpacked: bool,
    /// The caller has just built echod.
    #[arg(skip)]
    echod_is_built: bool,
    /// The echod that packs, where it is another than the usual one.
    #[arg(skip)]
    packer: Option<PathBuf>,
}

impl Plugins {
    pub fn all() -> Self {
        Self::default()
    }

    /// With the components of the tests; the caller has built echod.
    pub fn with_guests() -> Self {
        Self { guests: true, echod_is_built: true, ..Self::default() }
    }

    pub fn packed_with(echod: PathBuf) -> Self {
        Self { packer: Some(echod), ..Self::default() }
    }

    pub fn with_guests_packed_with(echod: PathBuf) -> Self {
        Self { guests: true, ..Self::packed_with(echod) }
    }

    /// The comparison alone.
    pub fn checked() -> Self {
        Self { check: true, unpacked: true, ..Self::default() }
    }

    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        let toolchain = Setup::default().run(workspace)?;
        let plugins = self.chosen(&workspace.plugins)?;
        let place = Place::usual(workspace);
        place.build(&toolchain, &plugins)?;
        // In a build of their own: what they ask of shared crates must not change the services' bytes.
        let guests: &[Component] = if self.guests { &workspace.guests } else { &[] };
        place.build(&toolchain, guests)?;
        if !self.unpacked {
            let echod = self.packer(workspace)?;
            pack(&echod, &place, &plugins, &workspace.packed_plugins())?;
            pack(&echod, &place, guests, &workspace.packed_guests())?;
        }
        if self.check { check(workspace, &place, &plugins) } else { Ok(()) }
    }

    /// A running host that rebuilds a plugin names itself; nobody else has to build it first.
    fn packer(&self, workspace: &Workspace) -> Result<PathBuf> {
        if let Some(echod) = self.packer.clone().or_else(|| env::var_os("ECHOD").map(PathBuf::from)) {
            return Ok(echod);
        }
        if !self.echod_is_built {
            say("building echod");
            let begin = Instant::now();
            step::run(workspace.cargo().args(["build", "--locked"]).args(ECHOD))?;
            say(format_args!("echod built in {}", step::duration(begin.elapsed())));
        }
        Ok(workspace.echod())
    }

    fn chosen(&self, plugins: &[Component]) -> Result<Vec<Component>> {
        if let Some(unknown) = self.names.iter().find(|name| !plugins.iter().any(|plugin| plugin.name == **name)) {
            let known: Vec<_> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
            bail!("there is no service {unknown:?}; there are: {}", known.join(", "));
        }
        Ok(plugins.iter().filter(|plugin| self.names.is_empty() || self.names.contains(&plugin.name)).cloned().collect())
    }
}

/// Build a service that lives in a folder of its own, outside this repository.
///
/// Where the target is installed, `cargo build --release --target wasm32-unknown-unknown` in that folder does the same; this takes whatever way to
/// WebAssembly `cargo xtask setup` found. `echod plugin pack` then finds the component.
#[derive(Args)]
pub struct ComponentOf {
    /// The service's folder, with its Cargo.toml.
    dir: PathBuf,
    /// Where cargo builds; the component is in wasm32-unknown-unknown/release below it [default: target in the service's folder].
    #[arg(long)]
    target_dir: Option<PathBuf>,
}

impl ComponentOf {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        let toolchain = Setup::default().run(workspace)?;
        let target = self.target_dir.clone().unwrap_or_else(|| self.dir.join("target"));
        let target = std::path::absolute(&target).with_context(|| target.display().to_string())?;
        let mut command = toolchain.cargo();
        command.current_dir(&self.dir).args(["build", "--release"]).args(toolchain.build_arguments()).arg("--target-dir").arg(target);
        step::run(&mut command)
    }
}

/// What cargo builds of echod. The whole workspace is selected: which packages are decides the features of what they depend on, and so this build and that of
/// all tests share every library.
pub const ECHOD: [&str; 3] = ["--workspace", "--bin", "echod"];

/// Folder of the components as the compiler left them.
pub fn bare_components(workspace: &Workspace) -> PathBuf {
    Place::usual(workspace).outcome()
}

pub fn bare_component(workspace: &Workspace, component: &Component) -> PathBuf {
    Place::usual(workspace).component(component)
}

/// A copy of the sources and where its components are built. Not cargo's usual target folder, because two compilers share
/// neither fingerprints nor a lock.
struct Place<'a> {
    root: &'a Path,
    target: PathBuf,
}

impl<'a> Place<'a> {
    fn usual(workspace: &'a Workspace) -> Self {
        Self { root: &workspace.root, target: workspace.target.join("components") }
    }

    fn outcome(&self) -> PathBuf {
        self.target.join(TARGET).join("plugin")
    }

    fn component(&self, component: &Component) -> PathBuf {
        self.outcome().join(&component.artifact)
    }

    /// All in one run of cargo, so that the standard library and shared crates are built once.
    fn build(&self, toolchain: &Toolchain, components: &[Component]) -> Result<()> {
        if components.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = components.iter().map(|component| component.name.as_str()).collect();
        say(format_args!("building components: {}", names.join(", ")));
        let begin = Instant::now();
        // The folders of the dependencies must be there before their paths can be replaced.
        step::run(toolchain.cargo().current_dir(self.root).args(["fetch", "--quiet", "--locked", "--target", TARGET]))?;
        let mut command = toolchain.cargo();
        command
            .current_dir(self.root)
            .args(["build", "--locked", "--profile", "plugin"])
            .args(toolchain.build_arguments())
            .arg("--target-dir")
            .arg(&self.target)
            .args(components.iter().flat_map(|component| ["--package", &component.package]))
            .env("CARGO_ENCODED_RUSTFLAGS", self.replaced_paths(toolchain))
            .envs([("CARGO_INCREMENTAL", "0"), ("SOURCE_DATE_EPOCH", "1"), ("LC_ALL", "C"), ("TZ", "UTC")]);
        for name in ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
            command.env_remove(name);
        }
        step::run(&mut command)?;
        say(format_args!("components built in {}", step::duration(begin.elapsed())));
        Ok(())
    }

    /// No path of this machine may stand in a component: panic messages and generated sources carry them. The last one that fits counts.
    fn replaced_paths(&self, toolchain: &Toolchain) -> OsString {
        let (library, library_name) = &toolchain.library_sources;
        let mut replaced =
            vec![(self.root.to_owned(), "/echo"), (self.target.clone(), "/echo/target"), (library.clone(), library_name.as_str())];
        replaced.extend(dependency_folders().into_iter().map(|folder| (folder, "/deps")));
        let mut flags = OsString::new();
        for (folder, name) in replaced {
            if !flags.is_empty() {
                flags.push("\u{1f}");
            }
            flags.push("--remap-path-prefix=");
            flags.push(folder);
            flags.push("=");
            flags.push(name);
        }
        flags
    }
}

/// Folders that hold dependencies as `name-version`: cargo's own, and vendored ones named in `ECHO_VENDOR_DIRS` (separated like a PATH).
fn dependency_folders() -> Vec<PathBuf> {
    let registries = cargo_home().and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    let mut folders: Vec<PathBuf> = registries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    // Without a slash at the end, which would be missing from the paths that are replaced.
    let vendored = env::var_os("ECHO_VENDOR_DIRS").unwrap_or_default();
    folders.extend(env::split_paths(&vendored).map(|folder| folder.components().collect::<PathBuf>()));
    folders.retain(|folder| folder.is_dir());
    folders.sort();
    folders
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")))
}

fn pack(echod: &Path, place: &Place, components: &[Component], into: &Path) -> Result<()> {
    fs::create_dir_all(into).with_context(|| into.display().to_string())?;
    for component in components {
        let file = into.join(&component.name).with_extension("wasm");
        let fresh = into.join(format!(".{}.new", component.name));
        pack_one(echod, place, component, &fresh)?;
        let bytes = fs::read(&fresh)?;
        if fs::read(&file).is_ok_and(|old| old == bytes) {
            fs::remove_file(&fresh)?;
            say(format_args!("{} is as it was ({} KiB)", file.display(), bytes.len() / 1024));
        } else {
            // In one move: a running host may read it at this moment.
            fs::rename(&fresh, &file)?;
            say(format_args!("{} ({} KiB)", file.display(), bytes.len() / 1024));
        }
    }
    Ok(())
}

fn pack_one(echod: &Path, place: &Place, component: &Component, packed: &Path) -> Result<()> {
    let mut command = Command::new(echod);
    command.current_dir(place.root).args(["plugin", "pack"]).arg(&component.folder);
    // Standard output is for what was asked for: `engines up` prints one line of JSON there.
    command.stdout(std::io::stderr());
    step::run(command.arg("--component").arg(place.component(component)).arg("-o").arg(packed))
}

fn check(workspace: &Workspace, place: &Place, plugins: &[Component]) -> Result<()> {
    let checks = workspace.target.join("check");
    let elsewhere = checks.join("a folder with another name");
    if checks.exists() {
        fs::remove_dir_all(&checks).with_context(|| checks.display().to_string())?;
    }
    say("bytes: building a second time, with another folder, CARGO_HOME, umask, locale and time zone");
    copy_sources(&workspace.root, &elsewhere)?;
    let target = elsewhere.join("target");
    setup::hand_on(workspace, &target)?;
    let second = Place { root: &elsewhere, target: target.join("components") };
    // This program once more, as somebody else would start it.
    let myself = checks.join("xtask");
    copy_of_this_program(&myself)?;
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077 && exec \"$@\"", "sh"]).arg(&myself).args(["plugins", "--unpacked"]);
    command.args(plugins.iter().map(|plugin| &plugin.name)).current_dir(&elsewhere).env_remove("CARGO_MANIFEST_DIR");
    command.env("CARGO_HOME", another_cargo_home(&checks)?).env("CARGO_TARGET_DIR", &target);
    command.envs([("LC_ALL", "C.UTF-8"), ("TZ", "Asia/Kolkata")]);
    step::run(&mut command)?;
    let mut different = Vec::new();
    for plugin in plugins {
        let (here, there) = (place.component(plugin), second.component(plugin));
        let (here, there) = (fs::read(&here).with_context(|| here.display().to_string())?, fs::read(&there)?);
        if here == there {
            say(format_args!("bytes: {} is the same twice ({} KiB, sha256 {})", plugin.name, here.len() / 1024, sha256(&here)));
        } else {
            different.push(plugin.name.as_str());
        }
    }
    // Kept only where somebody will want to look at the difference.
    if !different.is_empty() {
        bail!("bytes differ between {} and {}: {}", place.target.display(), second.target.display(), different.join(", "));
    }
    fs::remove_dir_all(&checks).with_context(|| checks.display().to_string())
}

/// A build of the whole workspace may have put another file in its place meanwhile; on Linux the running one can still be read.
fn copy_of_this_program(copy: &Path) -> Result<()> {
    let running = Path::new("/proc/self/exe");
    let program = if running.exists() { running.to_owned() } else { env::current_exe()? };
    fs::copy(program, copy).with_context(|| copy.display().to_string())?;
    Ok(())
}

/// A CARGO_HOME with this one's configuration and downloads, and dependencies unpacked at paths of its own.
fn another_cargo_home(below: &Path) -> Result<PathBuf> {
    let home = below.join("cargo home");
    fs::create_dir_all(home.join("registry"))?;
    let first = cargo_home().context("neither CARGO_HOME nor HOME is set")?;
    for file in ["config.toml", "config"].iter().filter(|file| first.join(file).is_file()) {
        fs::copy(first.join(file), home.join(file))?;
    }
    for folder in ["registry/cache", "registry/index"].iter().filter(|folder| first.join(folder).is_dir()) {
        symlink(first.join(folder), home.join(folder))?;
    }
    Ok(home)
}

/// What git knows and what it does not ignore; without git, everything but hidden folders and build output.
pub fn copy_sources(root: &Path, into: &Path) -> Result<()> {
    let listed = Command::new("git").current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).output();
    let files: Vec<PathBuf> = match listed {
        Ok(output) if output.status.success() => {
            let names = String::from_utf8(output.stdout).context("a file name that is no UTF-8")?;
            names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect()
        }
        _ => walk(root, Path::new(""))?,
    };
    for file in &files {
        let (original, copy) = (root.join(file), into.join(file));
        // A listed file may be deleted in the working tree.
        let Ok(metadata) = fs::symlink_metadata(&original) else { continue };
        fs::create_dir_all(copy.parent().expect("a file has a folder"))?;
        if metadata.is_symlink() {
            symlink(fs::read_link(&original)?, &copy).with_context(|| copy.display().to_string())?;
        } else if metadata.is_file() {
            fs::copy(&original, &copy).with_context(|| copy.display().to_string())?;
        }
    }
    Ok(())
}

fn walk(root: &Path, below: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if entry.file_type()?.is_dir() {
            if !hidden && path != Path::new("target") && path != Path::new("data") {
                files.extend(walk(root, &path)?);
            }
        } else {
            files.push(path);
        }
    }
    Ok(files)
}
