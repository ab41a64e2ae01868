//! Finds, or installs, the way to build WebAssembly components on this machine, and remembers it in the target folder.
//!
//! Three toolchains, tried in this order: the wasm target of the compiler in use; `rustup target add`; Debian's own newer compiler with
//! its library sources, from which cargo builds the standard library (`-Zbuild-std`). Every step prints a line as it happens.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    step::{self, say},
    workspace::{self, Workspace, parse_version},
};

pub const TARGET: &str = "wasm32-unknown-unknown";

const LINKER: &str = "wasm-component-ld";
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_LIBRARY: &str = "/usr/lib/rustlib/src/rust/library";
/// A refused or hanging download must not block the build; a working one takes two seconds.
const RUSTUP_LIMIT: Duration = Duration::from_secs(60);
/// `apt-get update` and the download of three packages, 150 MB together.
const APT_LIMIT: Duration = Duration::from_secs(600);

/// Find or install what builds the components (the other commands do this by themselves).
///
/// Three toolchains, tried in this order: the wasm target of the compiler in use; `rustup target add wasm32-unknown-unknown`; on Debian the
/// packages rustc-web, cargo-web and rust-web-src, with which cargo builds the standard library itself. The choice is kept in the target
/// folder and checked again each time, which takes milliseconds.
#[derive(Args, Default)]
pub struct Setup {
    /// Use this toolchain and no other, and keep it until another one is named.
    #[arg(long, value_enum)]
    toolchain: Option<ToolchainKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ToolchainKind {
    /// The target is installed already (rustup, Nix).
    Installed,
    /// `rustup target add`.
    Rustup,
    /// Debian's compiler, the standard library built from its sources.
    Debian,
}

/// How components are built here.
pub struct Toolchain {
    /// For the line that is printed.
    pub description: String,
    cargo: OsString,
    /// Set only where it is not the compiler that built us.
    rustc: Option<PathBuf>,
    build_std: bool,
    linker: PathBuf,
    /// Folder of the standard library's sources, there or not, and the name to have in the bytes in its place.
    pub library_sources: (PathBuf, String),
}

impl Setup {
    pub fn run(&self, workspace: &Workspace) -> Result<Toolchain> {
        let memory = Memory::of(workspace)?;
        let remembered = if self.toolchain.is_none() { memory.recall() } else { None };
        let toolchain = match self.toolchain.or(remembered) {
            Some(ToolchainKind::Installed) => installed(&memory.sysroot)?,
            Some(ToolchainKind::Rustup) => rustup(&memory.sysroot).or_else(|reason| bail!("{reason}"))?,
            Some(ToolchainKind::Debian) => debian(workspace)?,
            None => first_that_works(workspace, &memory)?,
        };
        // After `rustup target add` the target is installed.
        memory.remember(if toolchain.build_std { ToolchainKind::Debian } else { ToolchainKind::Installed })?;
        say(format_args!("components are built with {}", toolchain.description));
        Ok(toolchain)
    }
}

impl Toolchain {
    /// A cargo with everything set that leads to a component; the caller adds the subcommand's arguments with [`Toolchain::build_arguments`].
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        let tools = self.linker.parent().unwrap_or(Path::new("/"));
        let mut path = vec![tools.to_owned(), tools.join("gcc-ld")];
        if let Some(rustc) = &self.rustc {
            path.extend(rustc.parent().map(Path::to_owned));
            command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
            // What rustup and `cargo run` set for the other compiler would lead this one astray.
            for name in ["RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO", "LD_LIBRARY_PATH"] {
                command.env_remove(name);
            }
        }
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        command.env("PATH", env::join_paths(path).expect("made of the parts of a PATH"));
        command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", &self.linker);
        command
    }

    pub fn build_arguments(&self) -> &'static [&'static str] {
        if self.build_std { &["-Zbuild-std=std,panic_abort", "--target", TARGET] } else { &["--target", TARGET] }
    }
}

fn first_that_works(workspace: &Workspace, memory: &Memory) -> Result<Toolchain> {
    let toolchain = installed(&memory.sysroot);
    let Err(reason) = toolchain else { return toolchain };
    say(format_args!("wasm target: {reason:#}"));
    match rustup(&memory.sysroot) {
        Ok(toolchain) => return Ok(toolchain),
        Err(reason) => say(format_args!("wasm target: {reason}")),
    }
    debian(workspace).context(
        "nothing here builds components; install one of: the target (`rustup target add wasm32-unknown-unknown`) · \
         on Debian `sudo apt-get install rustc-web cargo-web rust-web-src` · with Nix `nix develop`",
    )
}

fn installed(sysroot: &Path) -> Result<Toolchain> {
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    let has_std = fs::read_dir(&libraries)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-")));
    if !has_std {
        bail!("{TARGET} is not installed for the compiler in {}", sysroot.display());
    }
    let version = step::output(Command::new("rustc").arg("-vV"))?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: ")).context("rustc names no commit-hash")?;
    Ok(Toolchain {
        description: format!("{}, its own {TARGET}", version.lines().next().unwrap_or_default()),
        cargo: workspace::cargo().get_program().to_owned(),
        rustc: None,
        build_std: false,
        linker: linker(sysroot)?,
        // Without the component rust-src the compiler itself writes this name; with it, the path of the sources.
        library_sources: (sysroot.join("lib/rustlib/src/rust"), format!("/rustc/{commit}")),
    })
}

fn rustup(sysroot: &Path) -> Result<Toolchain, String> {
    if !sysroot.components().any(|part| part.as_os_str() == "toolchains") {
        return Err(format!("rustup did not install the compiler in {}, so it cannot add a target to it", sysroot.display()));
    }
    say(format_args!("wasm target: rustup target add {TARGET}"));
    step::run_within(RUSTUP_LIMIT, Command::new("rustup").args(["target", "add", TARGET]))?;
    installed(sysroot).map_err(|error| format!("{error:#}"))
}

fn debian(workspace: &Workspace) -> Result<Toolchain> {
    let version = match debian_compiler(workspace) {
        Ok(version) => version,
        Err(reason) => {
            say(format_args!("wasm target: {reason:#}"));
            apt_install("wasm target", &DEBIAN_PACKAGES)?;
            debian_compiler(workspace)?
        }
    };
    let sysroot = PathBuf::from(step::output(Command::new("rustc").args(["--print", "sysroot"]))?);
    Ok(Toolchain {
        description: format!("Debian's {version}, the standard library built from {DEBIAN_LIBRARY}"),
        cargo: DEBIAN_CARGO.into(),
        rustc: Some(DEBIAN_RUSTC.into()),
        build_std: true,
        linker: linker(&sysroot)?,
        library_sources: (Path::new(DEBIAN_LIBRARY).parent().expect("a folder below others").to_owned(), "/rust".to_owned()),
    })
}

/// Its version, when compiler, cargo and library sources are there and new enough.
fn debian_compiler(workspace: &Workspace) -> Result<String> {
    for file in [DEBIAN_RUSTC, DEBIAN_CARGO, &format!("{DEBIAN_LIBRARY}/std/Cargo.toml")] {
        if !Path::new(file).exists() {
            bail!("there is no {file}");
        }
    }
    let version = step::output(Command::new(DEBIAN_RUSTC).env_remove("LD_LIBRARY_PATH").arg("--version"))?;
    let (major, minor) = workspace.rust_version;
    if parse_version(&version).is_none_or(|found| found < workspace.rust_version) {
        bail!("{DEBIAN_RUSTC} is {version}, older than {major}.{minor}");
    }
    Ok(version)
}

/// Installs packages of Debian, as root or by sudo. `purpose` begins each line that it prints.
pub fn apt_install(purpose: &str, packages: &[&str]) -> Result<()> {
    let install = format!("apt-get install {}", packages.join(" "));
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("there is no apt-get here to run `{install}`");
    }
    let root = step::output(Command::new("id").arg("-u"))? == "0";
    let apt = |arguments: &[&str]| {
        let mut command = if root { Command::new("env") } else { Command::new("sudo") };
        if !root && !io::stdin().is_terminal() {
            // Nobody is there to type a password.
            command.arg("-n");
        }
        command
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=120"])
            .args(arguments);
        command
    };
    say(format_args!("{purpose}: apt-get update"));
    if let Err(reason) = step::run_within(APT_LIMIT, &mut apt(&["update"])) {
        // A stale list may still do.
        say(format_args!("{purpose}: {reason}"));
    }
    say(format_args!("{purpose}: {install}"));
    let mut arguments = vec!["install", "--no-install-recommends"];
    arguments.extend(packages);
    step::run_within(APT_LIMIT, &mut apt(&arguments)).or_else(|reason| bail!("{reason}"))
}

/// The linker that makes components; every toolchain of rustup carries it, Debian's does not.
fn linker(sysroot: &Path) -> Result<PathBuf> {
    let rustup_home = env::var_os("RUSTUP_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".rustup")));
    let toolchains = rustup_home.into_iter().flat_map(|home| folders_in(&home.join("toolchains")));
    let beside_compilers = std::iter::once(sysroot.to_owned())
        .chain(toolchains)
        .flat_map(|sysroot| folders_in(&sysroot.join("lib/rustlib")))
        .map(|target| target.join("bin"));
    let on_path = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    beside_compilers
        .chain(on_path)
        .map(|folder| folder.join(LINKER))
        .find(|file| file.is_file())
        .with_context(|| format!("there is no {LINKER}: it comes with any toolchain of rustup, or by `cargo install {LINKER}`"))
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    folders.sort();
    folders
}

/// Lets a build in another target folder use the toolchain that was found for this one.
pub fn hand_on(workspace: &Workspace, target: &Path) -> Result<()> {
    fs::create_dir_all(target)?;
    let file = Memory::of(workspace)?.file;
    fs::copy(&file, target.join(MEMORY)).with_context(|| file.display().to_string())?;
    Ok(())
}

const MEMORY: &str = "wasm-toolchain";

/// The toolchain that was found, as long as the compiler is the same one.
struct Memory {
    file: PathBuf,
    sysroot: PathBuf,
}

impl Memory {
    fn of(workspace: &Workspace) -> Result<Self> {
        let sysroot = PathBuf::from(step::output(Command::new("rustc").args(["--print", "sysroot"]))?);
        Ok(Self { file: workspace.target.join(MEMORY), sysroot })
    }

    fn recall(&self) -> Option<ToolchainKind> {
        let text = fs::read_to_string(&self.file).ok()?;
        let (kind, sysroot) = text.trim_end().split_once('\n')?;
        // What was remembered may be gone, and the search then says what it finds.
        match ToolchainKind::from_str(kind, false).ok()? {
            _ if Path::new(sysroot) != self.sysroot => None,
            ToolchainKind::Installed if installed(&self.sysroot).is_err() => None,
            kind => Some(kind),
        }
    }

    fn remember(&self, kind: ToolchainKind) -> Result<()> {
        let name = kind.to_possible_value().expect("no variant is skipped");
        fs::create_dir_all(self.file.parent().expect("a file in the target folder"))?;
        fs::write(&self.file, format!("{}\n{}\n", name.get_name(), self.sysroot.display())).with_context(|| self.file.display().to_string())
    }
}
