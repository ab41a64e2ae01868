//! The real server as a process of its own, and what the kernel says of a process.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use echo_client::EchoClient;
use serde::Deserialize;
use tokio::process::{Child, Command};

use crate::repository;

/// What is needed to start servers on one data folder, again and again.
pub struct Host {
    pub binary: PathBuf,
    /// Bare components, as the compiler left them.
    pub components: PathBuf,
    folder: PathBuf,
}

impl Host {
    /// Copies the packed components together: the services, and the test guest that adds a hop.
    pub fn from_environment(folder: &Path) -> Result<Self> {
        let folder = folder.canonicalize()?;
        let plugins = folder.join("plugins");
        fs::create_dir_all(&plugins)?;
        for file in packed(&path_of("ECHOD_PLUGINS")?)? {
            fs::copy(&file, plugins.join(file.file_name().expect("listed")))?;
        }
        for guest in GUEST_FILES {
            let packed = path_of("ECHOD_GUESTS")?.join(guest);
            fs::copy(&packed, plugins.join(guest)).with_context(|| packed.display().to_string())?;
        }
        Ok(Self { binary: path_of("ECHOD")?, components: path_of("ECHOD_COMPONENTS")?, folder })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The guest whose one function asks `location`: a second hop.
const GUEST_FILES: [&str; 2] = ["front.wasm", "hostile.wasm"];
/// What the guests may import.
const GUEST_PERMISSIONS: &str = "host/tests/wit/services.wit";

pub struct Server {
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub admin_token: String,
    pub process: Process,
    /// For calls whose time does not matter.
    pub client: reqwest::Client,
    /// Nobody is signed in on it.
    pub echo: EchoClient,
    child: Child,
    log: PathBuf,
}

#[derive(Deserialize)]
struct Addresses {
    public: SocketAddr,
    admin: SocketAddr,
    admin_token: String,
}

impl Server {
    pub async fn start(host: &Host) -> Result<Self> {
        Self::start_as(host, "data", &[]).await
    }

    /// With a data folder of this name, and further settings as environment variables.
    pub async fn start_as(host: &Host, name: &str, settings: &[(String, String)]) -> Result<Self> {
        let data = host.folder.join(name);
        let log = host.folder.join(format!("{name}.log"));
        let output = fs::File::create(&log)?;
        let mut command = Command::new(&host.binary);
        command
            .arg("dev")
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .arg("--data")
            .arg(&data)
            .arg("--plugins")
            .arg(host.folder.join("plugins"))
            .current_dir(&host.folder)
            // Thousands of accounts are made here, and none of them needs a strong password.
            .env("ECHO_PASSWORDS__COST", "light")
            // All clients have one address: limits are counted, and never reached.
            .env("ECHO_GATEWAY__RATE_SCALE", "1000000")
            // As operators have it; a developer's text is not for thousands of lines a second.
            .env("ECHO_LOG__FORMAT", "json")
            .env("ECHO_DATA__PERMISSIONS", repository().join(GUEST_PERMISSIONS))
            .envs(settings.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true);
        let mut child = command.spawn().with_context(|| host.binary.display().to_string())?;
        let file = data.join("run/addresses.json");
        let pid = child.id().context("echod ended at once")?;
        let deadline = Instant::now() + Duration::from_secs(60);
        let addresses = loop {
            if let Some(status) = child.try_wait()? {
                bail!("echod ended ({status}); it said:\n{}", tail(&log));
            }
            // Half a file is no JSON, and the next look will find the rest.
            if let Some(addresses) = fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Addresses>(&text).ok()) {
                break addresses;
            }
            if Instant::now() > deadline {
                bail!("echod wrote no {} within 60 s; it said:\n{}", file.display(), tail(&log));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).no_proxy().build()?;
        let server = Self {
            public: addresses.public,
            admin: addresses.admin,
            admin_token: addresses.admin_token,
            process: Process { pid },
            client,
            echo: EchoClient::builder(format!("http://{}", addresses.public)).build()?,
            child,
            log,
        };
        server.wait_until_ready().await?;
        Ok(server)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.public)
    }

    /// Ends it as an operator does.
    pub async fn stop(mut self) -> Result<()> {
        let status = Command::new("kill").args(["-TERM", &self.process.pid.to_string()]).status().await.context("kill")?;
        if !status.success() {
            bail!("echod was gone before its end; it said:\n{}", tail(&self.log));
        }
        match tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(|status| status.success()) => Ok(()),
            Ok(status) => bail!("echod ended badly ({status:?}); it said:\n{}", tail(&self.log)),
            Err(_) => bail!("echod did not end within 60 s; it said:\n{}", tail(&self.log)),
        }
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if self.client.get(self.url("/ready")).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("echod is not ready after 60 s; it said:\n{}", tail(&self.log));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A running process, seen through /proc.
#[derive(Clone, Copy)]
pub struct Process {
    pub pid: u32,
}

impl Process {
    pub fn resident_bytes(&self) -> Result<u64> {
        let file = format!("/proc/{}/status", self.pid);
        let text = fs::read_to_string(&file).with_context(|| file.clone())?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).with_context(|| format!("no VmRSS in {file}"))?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("VmRSS of {file}: {line:?}"))?;
        Ok(kibibytes * 1024)
    }

    /// User and system time of all its threads.
    pub fn cpu(&self) -> Result<Duration> {
        let file = format!("/proc/{}/stat", self.pid);
        let text = fs::read_to_string(&file).with_context(|| file.clone())?;
        // The name in brackets may hold spaces; behind it come state, then eleven numbers, then utime and stime.
        let (_, rest) = text.rsplit_once(')').with_context(|| format!("{file} has no name"))?;
        let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|number| number.parse::<u64>().ok()).sum();
        // Linux shows them at 100 per second on every platform that Echo runs on (USER_HZ).
        Ok(Duration::from_millis(ticks * 10))
    }
}

/// CPU time of a process and of all that it has started, those that have ended too.
pub fn cpu_of_all(pid: u32) -> Duration {
    let mut ticks = 0;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(text) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((id, rest)) = text.split_once(' ').zip(text.rsplit_once(')').map(|(_, rest)| rest)).map(|((id, _), rest)| (id, rest))
        else {
            continue;
        };
        let numbers: Vec<u64> = rest.split_whitespace().skip(1).map(|number| number.parse().unwrap_or(0)).collect();
        // The parent is the first; utime, stime, and those of children that have ended are the eleventh to the fourteenth.
        let is_own = id.parse() == Ok(pid);
        if is_own || numbers.first() == Some(&u64::from(pid)) {
            ticks += numbers.iter().skip(10).take(if is_own { 4 } else { 2 }).sum::<u64>();
        }
    }
    Duration::from_millis(ticks * 10)
}

fn path_of(variable: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable).with_context(|| format!("{variable} is not set; start this with `cargo xtask bench`"))?;
    Path::new(&path).canonicalize().with_context(|| format!("{variable}={}", Path::new(&path).display()))
}

fn packed(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let files: Vec<PathBuf> =
        files.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "wasm")).collect();
    if files.is_empty() {
        bail!("there is no packed service in {}", folder.display());
    }
    Ok(files)
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
