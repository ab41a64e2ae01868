//! Real servers for development and tests: each on a free port, with its files in a folder of its own, ended with the process that started it, however
//! that ends. Knows nothing of Echo, and has no dependencies, so that tests of any crate can use it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

mod account;
mod guarded;
pub mod nats;
mod npm;
pub mod oidc;
mod pip;
pub mod postgres;
pub mod redis;
pub mod s3;

pub use guarded::{Guarded, signal};

use account::Account;

/// A server's certificate and its key, as PEM.
pub struct Tls<'a> {
    pub certificate: &'a str,
    pub key: &'a str,
}

impl Tls<'_> {
    /// As files that the server's account alone reads.
    fn write(&self, folder: &Path, account: Option<Account>) -> Result<(PathBuf, PathBuf), EngineError> {
        let [certificate, key] = [("server.crt", self.certificate), ("server.key", self.key)].map(|(name, text)| (folder.join(name), text));
        for (path, text) in [&certificate, &key] {
            let failed = |error| EngineError::of(&path.display().to_string(), error);
            fs::write(path, text).map_err(failed)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
            if let Some(account) = account {
                chown(path, Some(account.uid), Some(account.gid)).map_err(failed)?;
            }
        }
        Ok((certificate.0, key.0))
    }
}

/// Why a server could not be started, and what to do about it.
#[derive(Debug)]
pub struct EngineError(pub String);

impl std::fmt::Display for EngineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EngineError {}

impl EngineError {
    fn of(what: &str, error: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}

/// A port that nobody listens on just now.
pub fn free_port() -> Result<u16, EngineError> {
    free_ports(1).map(|ports| ports[0])
}

/// So many of them, all different.
pub fn free_ports(count: usize) -> Result<Vec<u16>, EngineError> {
    let failed = |error| EngineError::of("a free port", error);
    // All are held until the last is found.
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0)).map_err(failed)).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| listener.local_addr().map(|address| address.port()).map_err(failed)).collect()
}

/// A new folder for one server, which its account alone reaches.
fn own_folder(below: &Path, engine: &str, account: Option<Account>) -> Result<PathBuf, EngineError> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = below.join(format!("echo-{engine}-{}-{now}-{number}", std::process::id()));
    let failed = |error| EngineError::of(&folder.display().to_string(), error);
    fs::create_dir(&folder).map_err(failed)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    if let Some(account) = account {
        chown(&folder, Some(account.uid), Some(account.gid)).map_err(failed)?;
    }
    Ok(folder)
}

/// A program on the PATH.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The processes that this one started, and that run.
fn children_of(process: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|number| parent_of(*number) == Some(process)).collect()
}

/// Which process started this one, where it runs.
pub fn parent_of(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}
