//! `cargo xtask fuzz`: requests made from /openapi.json, thousands of them, against a host of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::{
    plugins::Plugins,
    step::{self, LeftOut, say},
    workspace::Workspace,
};

/// Send requests made from /openapi.json to a host of its own, as nobody, as a user, as an admin, and as somebody who ends the session: none is
/// answered 5xx or with what the document does not say, and none that it allows is refused for its form.
///
/// The requests are schemathesis's (https://schemathesis.readthedocs.io), which is installed with pip below the target folder. What is told of
/// Echo is in xtask/fuzz/hooks.py.
#[derive(Args)]
pub struct Fuzz {
    /// Seconds for each person of a round.
    #[arg(long, default_value_t = 90)]
    seconds: u32,
    /// Of the first round; each further one has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Each has a host of its own.
    #[arg(long, default_value_t = 1)]
    rounds: u64,
}

/// The version whose checks were looked at; another may have other ones.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
const INSTALL_LIMIT: Duration = Duration::from_secs(300);
const START_LIMIT: Duration = Duration::from_secs(60);

/// Ends the caller's session, whatever it is called with.
const ENDS_THE_SESSION: &str = r"/(logout|logout-all|sessions/\{id\}|account)$";
/// The role goes with the number.
const ADMIN_PHONE: &str = "+12025550142";
/// Nothing that ends a session leads to another of these routes.
const WITHOUT_LINKS: &str = "examples,coverage,fuzzing";
/// Who calls, whether the routes that end a session are all that is called or what is left out, and which of schemathesis's phases.
const PERSONS: [(&str, &str, &str); 4] = [
    ("nobody", "--exclude-path-regex", "examples,coverage,fuzzing,stateful"),
    ("user", "--exclude-path-regex", "examples,coverage,fuzzing,stateful"),
    ("admin", "--exclude-path-regex", "examples,coverage,fuzzing,stateful"),
    ("leaver", "--include-path-regex", WITHOUT_LINKS),
];

impl Fuzz {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        let schemathesis = install(&workspace.target.join("tools/schemathesis"))?;
        Plugins::all().run(workspace)?;
        let folder = workspace.target.join("fuzz");
        let _ = fs::remove_dir_all(&folder);
        let (mut failed, mut requests) = (Vec::new(), 0);
        for seed in (self.seed..).take(self.rounds as usize) {
            let folder = folder.join(format!("seed-{seed}"));
            fs::create_dir_all(&folder)?;
            let host = Host::start(workspace, &folder)?;
            for (person, paths, phases) in PERSONS {
                say(format_args!("{} s of requests as {person} with the seed {seed} to {}", self.seconds, host.url));
                let counts = folder.join(format!("{person}.json"));
                let mut command = Command::new(&schemathesis);
                command.arg("--config-file").arg(workspace.root.join("xtask/fuzz/schemathesis.toml"));
                command.args(["run", &format!("{}/openapi.json", host.url), "--checks", "all", "--continue-on-failure", "--workers", "2"]);
                // Their 422 have codes, which hooks.py looks at.
                command.args([
                    "--exclude-checks",
                    "positive_data_acceptance",
                    "--warnings",
                    "off",
                    "--phases",
                    phases,
                    paths,
                    ENDS_THE_SESSION,
                ]);
                command.args(["--seed", &seed.to_string(), "--max-time", &self.seconds.to_string(), "--generation-database", "none"]);
                command.env("ECHO_FUZZ_URL", &host.url).env("ECHO_FUZZ_AS", person).env("ECHO_FUZZ_ADMIN", ADMIN_PHONE);
                command.env("ECHO_FUZZ_COUNTS", &counts).env("PYTHONDONTWRITEBYTECODE", "1");
                command.env("PYTHONPATH", workspace.root.join("xtask/fuzz")).current_dir(&folder);
                if let Err(error) = step::run(&mut command) {
                    failed.push(format!("as {person} with the seed {seed}: {error:#}"));
                }
                let (count, by_status) = counted(&counts)?;
                requests += count;
                say(format_args!("{count} requests as {person}: {by_status}"));
            }
        }
        say(format_args!("{requests} requests in all"));
        if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
    }
}

/// How many requests hooks.py counted, and how many with which status.
fn counted(path: &Path) -> Result<(u64, String)> {
    let text = fs::read(path).with_context(|| format!("{} is not written: no request was made", path.display()))?;
    let counts: std::collections::BTreeMap<String, u64> = serde_json::from_slice(&text)?;
    let by_status: Vec<String> = counts.iter().map(|(status, count)| format!("{count} × {status}")).collect();
    Ok((counts.values().sum(), by_status.join(", ")))
}

/// The program in an environment of its own. Errors: left out where there is no Python, or pip reaches nothing.
fn install(folder: &Path) -> Result<PathBuf> {
    let program = folder.join("bin/schemathesis");
    let marker = folder.join(SCHEMATHESIS);
    if marker.exists() && program.exists() {
        return Ok(program);
    }
    say(format_args!("installing {SCHEMATHESIS} with pip into {}", folder.display()));
    let left_out = |reason: String| LeftOut(format!("{reason}; it wants python3 with venv, and pip to reach its index"));
    step::run_within(INSTALL_LIMIT, Command::new("python3").args(["-m", "venv"]).arg(folder)).map_err(left_out)?;
    step::run_within(INSTALL_LIMIT, Command::new(folder.join("bin/pip")).args(["install", "--quiet", SCHEMATHESIS])).map_err(left_out)?;
    fs::write(marker, "")?;
    Ok(program)
}

/// A host in development mode on free ports; gone with this value.
struct Host {
    process: Child,
    url: String,
}

impl Host {
    fn start(workspace: &Workspace, folder: &Path) -> Result<Self> {
        let (data, log) = (folder.join("data"), folder.join("host.log"));
        let log_file = fs::File::create(&log)?;
        let mut command = Command::new(workspace.echod());
        command.args(["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data"]).arg(&data);
        command.arg("--plugins").arg(workspace.packed_plugins()).current_dir(folder);
        command.env("ECHO_SERVICES__AUTH__ROLES", format!("{ADMIN_PHONE}=admin"));
        let process =
            command.stdin(Stdio::null()).stdout(log_file.try_clone()?).stderr(log_file).spawn().context("echod cannot be started")?;
        let mut host = Self { process, url: String::new() };
        let until = Instant::now() + START_LIMIT;
        loop {
            if let Ok(text) = fs::read(data.join("run/addresses.json")) {
                let addresses: Value = serde_json::from_slice(&text).context("addresses.json")?;
                host.url = format!("http://{}", addresses["public"].as_str().context("addresses.json names no public address")?);
                return Ok(host);
            }
            if host.process.try_wait()?.is_some() || Instant::now() > until {
                let lines: Vec<String> = BufReader::new(fs::File::open(&log)?).lines().map_while(Result::ok).collect();
                bail!("echod does not serve:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
