//! `cargo xtask fuzz`: requests made from /openapi.json and frames made from /asyncapi.json, thousands of them, against a host of its own.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
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

/// Send requests made from /openapi.json to a host of its own, as nobody, as a user and as an admin, and frames made from /asyncapi.json: none is answered
/// 5xx or with what the documents and ERRORS.md do not say, none that they allow is refused for its form, and each route has answered 2xx.
///
/// The requests are schemathesis's (https://schemathesis.readthedocs.io), which is installed with pip below the target folder. What it is told of
/// Echo is in xtask/fuzz. A finding is shown with the request as a curl command; the same seed makes the same requests again.
#[derive(Args)]
pub struct Fuzz {
    /// Generated requests of each route and person, beside those that stand for the ends of each bound.
    #[arg(long, default_value_t = 40)]
    examples: u32,
    /// What is generated depends on it alone.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One of them alone.
    #[arg(long, value_parser = ["nobody", "user", "admin", "socket"])]
    person: Option<String>,
    /// A few thousand requests in some minutes.
    #[arg(long)]
    short: bool,
}

/// The version whose checks were looked at; another may have other ones.
const PACKAGES: [&str; 2] = ["schemathesis==4.32.5", "websocket-client==1.9.2"];
const INSTALL_LIMIT: Duration = Duration::from_secs(300);
const START_LIMIT: Duration = Duration::from_secs(60);

/// The role goes with the number.
const ADMIN_PHONE: &str = "+12025550142";
/// Who calls over HTTP.
const PERSONS: [&str; 3] = ["nobody", "user", "admin"];
const SOCKET: &str = "socket";
/// Of all persons together, where nothing was left out.
const REQUESTS_MIN: u64 = 20_000;
/// Of a person's requests that the document and the access rule let pass: with fewer, nothing behind the checks of form was tested.
const SUCCESS_PERCENT_MIN: u64 = 30;
const SHORT_EXAMPLES: u32 = 4;
/// There are few types of frames, and one costs little.
const FRAMES_PER_EXAMPLE: u32 = 5;
/// What a route need not answer, and why not.
const NEVER_2XX: [(&str, &str); 2] = [
    ("POST /api/v1/auth/oauth/{provider}", "no identity provider signs what is generated; the end-to-end tests run one"),
    ("DELETE /api/v1/auth/oauth", "there is no linked identity, as above"),
];

/// By status.
type Statuses = BTreeMap<u16, Count>;

#[derive(Clone, Copy, Default)]
struct Count {
    all: u64,
    /// Valid, and of somebody whom the access rule lets pass.
    admitted: u64,
}

impl Fuzz {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        let python = install(&workspace.target.join("tools/schemathesis"))?;
        Plugins::all().run(workspace)?;
        let folder = workspace.target.join("fuzz");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let host = Host::start(workspace, &folder)?;
        let wanted = |person: &str| self.person.as_ref().is_none_or(|only| only == person);
        let mut failed = Vec::new();
        let mut routes: BTreeMap<String, BTreeMap<&str, Statuses>> = BTreeMap::new();
        let (mut requests, mut described) = (0, Vec::new());
        for person in PERSONS.into_iter().filter(|person| wanted(person)) {
            say(format_args!("requests as {person} with the seed {} to {}", self.seed, host.url));
            let counts = folder.join(format!("{person}.json"));
            let mut command = self.schemathesis(workspace, &python, &host, person);
            self.environment(&mut command, workspace, &host, person).env("ECHO_FUZZ_COUNTS", &counts).current_dir(&folder);
            if step::run(&mut command).is_err() {
                failed.push(format!("findings as {person}, above"));
            }
            let (by_route, in_document) = counted(&counts)?;
            described = in_document;
            requests += by_route.values().flat_map(BTreeMap::values).map(|count| count.all).sum::<u64>();
            if let Err(reason) = report(person, &by_route) {
                failed.push(reason);
            }
            for (route, statuses) in by_route {
                routes.entry(route).or_default().insert(person, statuses);
            }
        }
        if wanted(SOCKET) {
            say(format_args!("frames with the seed {} to {}", self.seed, host.url));
            let mut command = Command::new(python.join("python"));
            command.arg(workspace.root.join("xtask/fuzz/socket_frames.py"));
            self.environment(&mut command, workspace, &host, SOCKET).env("ECHO_FUZZ_SEED", self.seed.to_string());
            command.env("ECHO_FUZZ_EXAMPLES", (self.examples() * FRAMES_PER_EXAMPLE).to_string()).current_dir(&folder);
            if step::run(&mut command).is_err() {
                failed.push("findings on the socket, above".to_owned());
            }
        }
        let table = folder.join("routes.txt");
        fs::write(&table, table_of(&routes))?;
        say(format_args!("{requests} requests in all; by route and status in {}, the host's log beside it", table.display()));
        if self.person.is_none() {
            failed.extend(without_success(&routes, &described));
            if !self.short && requests < REQUESTS_MIN {
                failed.push(format!("fewer than {REQUESTS_MIN} requests"));
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        let short = if self.short { " --short" } else { "" };
        let again = format!("cargo xtask fuzz --seed {} --examples {}{short} [--person NAME]", self.seed, self.examples);
        bail!("{}; the same requests again: {again}", failed.join("; "))
    }

    fn schemathesis(&self, workspace: &Workspace, python: &Path, host: &Host, person: &str) -> Command {
        let mut command = Command::new(python.join("schemathesis"));
        command.arg("--config-file").arg(workspace.root.join("xtask/fuzz/schemathesis.toml"));
        command.args(["run", &format!("{}/openapi.json", host.url), "--checks", "all", "--continue-on-failure"]);
        // Python's parser, which it uses, is not made for several threads.
        command.args(["--workers", "1", "--warnings", "off", "--generation-database", "none"]);
        // The 422 of what a schema allows have codes, which refusals.py looks at.
        command.args(["--exclude-checks", "positive_data_acceptance"]);
        // A slow machine is no finding.
        command.args(["--request-timeout", "60", "--suppress-health-check", "all"]);
        command.args(["--phases", self.phases(person), "--seed", &self.seed.to_string()]);
        command.args(["--max-examples", &self.examples().to_string()]);
        command
    }

    /// The phase `coverage` has the ends of all bounds, and is the same whatever the seed; for the short run those of one person are enough.
    fn phases(&self, person: &str) -> &'static str {
        match person {
            _ if !self.short => "examples,coverage,fuzzing,stateful",
            "user" => "examples,coverage",
            _ => "examples,fuzzing",
        }
    }

    fn examples(&self) -> u32 {
        if self.short { self.examples.min(SHORT_EXAMPLES) } else { self.examples }
    }

    fn environment<'a>(&self, command: &'a mut Command, workspace: &Workspace, host: &Host, person: &str) -> &'a mut Command {
        command.env("ECHO_FUZZ_URL", &host.url).env("ECHO_FUZZ_AS", person).env("ECHO_FUZZ_ADMIN", ADMIN_PHONE);
        command.env("ECHO_FUZZ_ERRORS", workspace.root.join("host/docs/ERRORS.md"));
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONPATH", workspace.root.join("xtask/fuzz"))
    }
}

/// What hooks.py counted, `{"counts": {"GET /a": {"200": {"all": 1, "admitted": 1}}}, "routes": ["GET /a"]}`; and the document's routes.
fn counted(path: &Path) -> Result<(BTreeMap<String, Statuses>, Vec<String>)> {
    let text = fs::read(path).with_context(|| format!("{} is not written: no request was made", path.display()))?;
    let written: Value = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    let mut counts = BTreeMap::new();
    for (route, by_status) in written["counts"].as_object().context("no counts")? {
        let mut statuses = Statuses::new();
        for (status, count) in by_status.as_object().context("no counts by status")? {
            let number = |name: &str| count[name].as_u64().unwrap_or(0);
            statuses.insert(status.parse::<u16>()?, Count { all: number("all"), admitted: number("admitted") });
        }
        counts.insert(route.clone(), statuses);
    }
    let routes = written["routes"].as_array().context("no routes")?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Ok((counts, routes))
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Prints a person's requests by status. Errors: where too few of them had success.
fn report(person: &str, by_route: &BTreeMap<String, Statuses>) -> Result<(), String> {
    let (mut by_status, mut admitted, mut succeeded) = (Statuses::new(), 0, 0);
    for (status, count) in by_route.values().flatten() {
        by_status.entry(*status).or_default().all += count.all;
        admitted += count.admitted;
        succeeded += if is_success(*status) { count.admitted } else { 0 };
    }
    let percent = (succeeded * 100).checked_div(admitted).unwrap_or_default();
    let all: u64 = by_status.values().map(|count| count.all).sum();
    let listed: Vec<String> = by_status.iter().map(|(status, count)| format!("{} × {status}", count.all)).collect();
    say(format_args!(
        "{all} requests as {person}: {}; {admitted} valid and admitted, of these {percent} % with success",
        listed.join(", ")
    ));
    if percent < SUCCESS_PERCENT_MIN {
        return Err(format!("as {person} only {percent} % of the valid requests had success"));
    }
    Ok(())
}

/// A line for each route: `GET /a: nobody 3 × 401; user 2 × 200, 1 × 422`.
fn table_of(routes: &BTreeMap<String, BTreeMap<&str, Statuses>>) -> String {
    let mut table = String::new();
    for (route, by_person) in routes {
        let persons: Vec<String> = by_person
            .iter()
            .map(|(person, statuses)| {
                let counts: Vec<String> = statuses.iter().map(|(status, count)| format!("{} × {status}", count.all)).collect();
                format!("{person} {}", counts.join(", "))
            })
            .collect();
        let _ = writeln!(table, "{route}: {}", persons.join("; "));
    }
    table
}

/// The routes of the document that nobody had success with, and that have no reason for it.
fn without_success(routes: &BTreeMap<String, BTreeMap<&str, Statuses>>, described: &[String]) -> Vec<String> {
    let succeeds = |route: &str| {
        routes.get(route).is_some_and(|by_person| by_person.values().flat_map(BTreeMap::keys).any(|status| is_success(*status)))
    };
    let reason = |route: &str| NEVER_2XX.iter().any(|(never, _)| *never == route);
    described.iter().filter(|route| !succeeds(route) && !reason(route)).map(|route| format!("{route} never answered 2xx")).collect()
}

/// The programs' folder, in an environment of its own. Errors: left out where there is no Python, or pip reaches nothing.
fn install(folder: &Path) -> Result<PathBuf> {
    let programs = folder.join("bin");
    let marker = folder.join(PACKAGES.join(" "));
    if marker.exists() && programs.join("schemathesis").exists() {
        return Ok(programs);
    }
    say(format_args!("installing {} with pip into {}", PACKAGES.join(" and "), folder.display()));
    let left_out = |reason: String| LeftOut(format!("{reason}; it wants python3 with venv, and pip to reach its index"));
    step::run_within(INSTALL_LIMIT, Command::new("python3").args(["-m", "venv"]).arg(folder)).map_err(left_out)?;
    step::run_within(INSTALL_LIMIT, Command::new(programs.join("pip")).args(["install", "--quiet"]).args(PACKAGES)).map_err(left_out)?;
    fs::write(marker, "")?;
    Ok(programs)
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
        // Codes are asked for again and again, for one number and by one address.
        for (setting, value) in [("RESEND_S", "0"), ("PER_DAY", "1000"), ("PER_CLIENT_DAY", "1000")] {
            command.env(format!("ECHO_SERVICES__AUTH__OTP_{setting}"), value);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(counts: &[(u16, u64)]) -> Statuses {
        counts.iter().map(|(status, count)| (*status, Count { all: *count, admitted: *count })).collect()
    }

    #[test]
    fn a_route_without_success_and_without_a_reason_is_named() {
        let by_person = |counts: &[(u16, u64)]| BTreeMap::from([("nobody", statuses(&[(401, 9)])), ("user", statuses(counts))]);
        let routes =
            BTreeMap::from([("GET /a".to_owned(), by_person(&[(404, 3), (200, 1)])), ("GET /b".to_owned(), by_person(&[(404, 4)]))]);
        let described = ["GET /a", "GET /b", "GET /c"].map(str::to_owned);
        assert_eq!(without_success(&routes, &described), ["GET /b never answered 2xx", "GET /c never answered 2xx"]);
        assert_eq!(table_of(&routes), "GET /a: nobody 9 × 401; user 1 × 200, 3 × 404\nGET /b: nobody 9 × 401; user 4 × 404\n");
    }

    #[test]
    fn a_run_in_which_nearly_all_is_refused_fails() {
        let of = |succeeded| BTreeMap::from([("GET /a".to_owned(), statuses(&[(200, succeeded), (401, 100 - succeeded)]))]);
        assert!(report("user", &of(29)).is_err() && report("user", &of(30)).is_ok());
        assert!(report("user", &BTreeMap::new()).is_err(), "no request at all");
    }
}
