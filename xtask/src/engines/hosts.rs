//! Hosts on shared engines, in development mode, each with a data folder of its own.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use echo_engines::Guarded;
use serde_json::{Value, json};

use crate::{step::say, workspace::Workspace};

const START_TIMEOUT: Duration = Duration::from_secs(120);

pub struct Hosts(Vec<Host>);

struct Host {
    name: String,
    process: Guarded,
    /// `run/addresses.json` of its data folder.
    addresses: Value,
}

/// What all hosts have in common, as environment variables.
/// `files`: a folder for uploaded files.
pub fn settings(postgres: &str, redis: &str, nats: &str, files: &Path) -> Vec<(String, String)> {
    let files = format!("file:{}", files.display());
    let settings = [
        ("ECHO_BLOB__URL", files.as_str()),
        // With a password in it, so it is not written as such.
        ("ECHO_SQL__URL", "env:ECHO_ENGINES_POSTGRES"),
        ("ECHO_ENGINES_POSTGRES", postgres),
        ("ECHO_CACHE__URL", redis),
        ("ECHO_EVENTS__URL", nats),
        ("ECHO_TOKENS__MASTER_KEY", "env:ECHO_ENGINES_SECRET"),
        ("ECHO_ENGINES_SECRET", "a secret of development, known to everybody"),
    ];
    settings.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec()
}

impl Hosts {
    /// One after the other, so that the first makes the tables.
    pub fn start(workspace: &Workspace, below: &Path, count: usize, settings: &[(String, String)]) -> Result<Self> {
        let mut hosts = Self(Vec::new());
        for number in 1..=count {
            let name = format!("host-{number}");
            say(format_args!("starting {name}"));
            let process = Guarded::in_own_folder(below, &name, |folder| {
                let data = folder.join("data");
                let (echod, plugins) = (workspace.echod(), workspace.packed_plugins());
                let [echod, data, plugins] = [&echod, &data, &plugins].map(|path| path.display().to_string());
                let any_port = "127.0.0.1:0";
                let command = [&echod, "dev", "--listen", any_port, "--admin-listen", any_port, "--data", &data, "--plugins", &plugins];
                let own = [("ECHO_NODE__NAME".to_owned(), name.clone())];
                (command.map(str::to_owned).to_vec(), settings.iter().cloned().chain(own).collect())
            })?;
            let addresses = ready(&process)?;
            hosts.0.push(Host { name, process, addresses });
        }
        Ok(hosts)
    }

    pub fn as_json(&self) -> Value {
        let hosts = self.0.iter().map(|host| {
            json!({
                "name": host.name,
                "public": host.addresses["public"],
                "admin": host.addresses["admin"],
                "admin_token": host.addresses["admin_token"],
                "data": host.process.folder().join("data"),
                "pid": host.process.pid(),
            })
        });
        hosts.collect()
    }

    /// What each said when it began to serve.
    pub fn announce(&self) {
        for host in &self.0 {
            let log = host.process.log();
            println!("{}", host.name);
            for line in log.lines().filter(|line| line.starts_with("Echo serves on") || line.starts_with("  ")) {
                println!("  {}", line.trim_start());
            }
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // All at once: each drains its connections.
        for host in &mut self.0 {
            host.process.begin_to_end();
        }
    }
}

/// Its addresses, when it answers that it is ready.
fn ready(process: &Guarded) -> Result<Value> {
    let file = process.folder().join("data/run/addresses.json");
    let until = Instant::now() + START_TIMEOUT;
    loop {
        if let Some(addresses) = fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok())
            && addresses["public"].as_str().is_some_and(is_ready)
        {
            return Ok(addresses);
        }
        let has_ended = !Path::new(&format!("/proc/{}", process.pid())).exists();
        if has_ended || Instant::now() > until {
            bail!("a host does not start: {}", process.log());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_ready(address: &str) -> bool {
    let ask = || -> Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /ready HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("an answer")?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.lines().next().is_some_and(|line| line.contains(" 200 ")))
}
