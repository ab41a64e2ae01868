//! `cargo xtask run`: from a fresh clone to a running host.

use std::{
    env,
    ffi::OsString,
    fs,
    io::IsTerminal,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Command},
    thread,
    time::Duration,
};

use anyhow::Result;
use clap::Args;

use crate::{
    engines::{End, Running},
    plugins::Plugins,
    step::say,
    workspace::Workspace,
};

/// Build everything and run Echo on this machine (echod dev): SQLite files in ./data, a swap whenever a plugin's source changes.
///
/// It prints the addresses when it serves. Everything after `--` goes to `echod dev`, for example
/// `cargo xtask run -- --listen 127.0.0.1:9000 --data /tmp/echo`.
#[derive(Args)]
pub struct Run {
    /// Run hosts on PostgreSQL, Redis and NATS servers of their own instead (as `cargo xtask engines up --hosts` does), without data that stays.
    #[arg(long, conflicts_with = "arguments")]
    production: bool,
    /// How many hosts, with --production.
    #[arg(long, default_value_t = 1, requires = "production", value_parser = clap::value_parser!(u8).range(1..=9))]
    hosts: u8,
    /// Do not open the page, which the first start does where there is a desktop.
    #[arg(long, conflicts_with = "production")]
    no_open: bool,
    /// Arguments for `echod dev`.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

impl Run {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        if self.production {
            let end = End::watch()?;
            Plugins::all().run(workspace)?;
            let running = Running::start(workspace, None, self.hosts.into())?;
            running.announce();
            say("Ctrl-C ends it");
            end.wait();
            return Ok(());
        }
        if !workspace.echod().exists() {
            say(
                "the first build: the services, then the host with wasmtime and some 400 other libraries; some minutes, the next time seconds",
            );
        }
        Plugins::all().run(workspace)?;
        let mut command = Command::new(workspace.echod());
        command.arg("dev");
        if !self.arguments.iter().any(|argument| argument.to_string_lossy().starts_with("--plugins")) {
            command.arg("--plugins").arg(workspace.packed_plugins());
        }
        command.args(&self.arguments).current_dir(&workspace.root);
        say("echod dev; Ctrl-C ends it");
        let data = workspace.root.join(data_folder(&self.arguments));
        if !self.no_open && !data.exists() && has_desktop() {
            // Beside it, as long as it starts: what follows takes this process's place and its number.
            Command::new(env::current_exe()?).arg("open").arg(data.join("run/addresses.json")).arg(process::id().to_string()).spawn()?;
        }
        // In our place, so that signals and the exit status are its own.
        Err(command.exec().into())
    }
}

/// Opens the page of a host once it serves. `cargo xtask run` starts it.
#[derive(Args)]
pub struct Open {
    /// Where the host writes its addresses.
    addresses: PathBuf,
    /// The host's process.
    pid: u32,
}

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A host that does not serve within five minutes has another problem.
const LOOKS_MAX: u32 = 1_500;

impl Open {
    pub fn run(&self) {
        for _ in 0..LOOKS_MAX {
            if let Some(url) = fs::read_to_string(&self.addresses).ok().and_then(|text| url_of(&text, self.pid)) {
                // What cannot be opened was printed by the host.
                _ = Command::new(OPENER).arg(url).stdout(process::Stdio::null()).stderr(process::Stdio::null()).status();
                return;
            }
            if !Path::new("/proc").join(self.pid.to_string()).exists() && cfg!(target_os = "linux") {
                return;
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };

/// Somebody sits before it: a terminal, and windows.
fn has_desktop() -> bool {
    let windows = cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()));
    let remote = ["SSH_CONNECTION", "CI"].iter().any(|name| env::var_os(name).is_some());
    windows && !remote && std::io::stdout().is_terminal()
}

/// As `echod dev` understands its arguments.
fn data_folder(arguments: &[OsString]) -> PathBuf {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--data") => return arguments.next().map(PathBuf::from).unwrap_or_default(),
            Some(text) => {
                if let Some(folder) = text.strip_prefix("--data=") {
                    return folder.into();
                }
            }
            None => {}
        }
    }
    "data".into()
}

/// Of the addresses that this process has written.
fn url_of(addresses: &str, pid: u32) -> Option<String> {
    let addresses: serde_json::Value = serde_json::from_str(addresses).ok()?;
    let scheme = if addresses["tls"] == true { "https" } else { "http" };
    (addresses["pid"] == pid).then(|| addresses["public"].as_str()).flatten().map(|public| format!("{scheme}://{public}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_folder_is_that_of_the_host() {
        let cases: [(&[&str], &str); 3] = [(&[], "data"), (&["--listen", "a", "--data", "/tmp/echo"], "/tmp/echo"), (&["--data=d"], "d")];
        for (arguments, expect) in cases {
            let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
            assert_eq!(data_folder(&arguments), PathBuf::from(expect));
        }
    }

    #[test]
    fn the_page_is_opened_of_the_host_that_was_started() {
        let written = r#"{"public":"127.0.0.1:8080","admin":"127.0.0.1:9090","tls":false,"pid":7}"#;
        assert_eq!(url_of(written, 7).as_deref(), Some("http://127.0.0.1:8080/"));
        assert_eq!(url_of(&written.replace("false", "true"), 7).as_deref(), Some("https://127.0.0.1:8080/"));
        assert_eq!((url_of(written, 8), url_of("{", 7)), (None, None));
    }
}
