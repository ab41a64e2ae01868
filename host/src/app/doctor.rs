//! `echod doctor`: whether a host would run well here, and what to do where not. It looks and changes nothing, but for files that it makes in the folders
//! that the host writes to, and an object in the bucket, all of which it removes.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::check;
use crate::admin::client::Addresses;
use crate::config::{BlobStore, Config, ConfigError};
use crate::descriptors;
use echo_base::limits;

mod engines;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Good,
    /// It runs, with less, or not for long.
    Warning,
    /// It would not start, or would lose what it promises to keep.
    Failure,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub verdict: Verdict,
    /// What was looked at.
    pub what: &'static str,
    pub says: String,
    /// What to do about it; empty where all is well.
    pub advice: String,
}

impl Finding {
    fn good(what: &'static str, says: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, what, says: says.into(), advice: String::new() }
    }

    fn warning(what: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, what, says: says.into(), advice: advice.into() }
    }

    fn failure(what: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failure, what, says: says.into(), advice: advice.into() }
    }
}

/// Everything, in the order in which a start would meet it.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = match check::check(config, Vec::new()) {
        Ok(()) => vec![Finding::good("settings", "they are good")],
        Err(error) => of_settings(error),
    };
    let own = rustix::process::geteuid().as_raw();
    findings.push(account(own));
    findings.extend(data_folder(&config.data.dir, own));
    findings.extend(config.tls().and_then(|(_, key)| secret_file("server.tls_key", key)));
    findings.extend(disk("disk", &config.data.dir));
    findings.extend(ports(config));
    findings.push(files(descriptors::hard_limit(), config.server.connections_max));
    findings.push(clock(&config.data.dir, SystemTime::now()));
    match config.blobs() {
        Ok(BlobStore::Folder(folder)) => findings.extend(shared_folder(&folder)),
        Ok(BlobStore::Bucket(settings)) => findings.push(engines::bucket(&settings).await),
        // The data folder, or a setting that was found wrong.
        Ok(BlobStore::Embedded) | Err(_) => {}
    }
    if let Some(url) = config.postgres() {
        findings.extend(engines::database(&url, config.sql.max_open).await);
    }
    if let Some(url) = config.cache.url.text() {
        findings.push(engines::redis(url).await);
    }
    if let Some(urls) = config.events.url.text() {
        findings.push(engines::nats(urls, &config.events).await);
    }
    findings
}

/// Settings with which no host starts.
pub fn of_settings(error: ConfigError) -> Vec<Finding> {
    error.0.into_iter().map(|problem| Finding::failure("settings", problem, "see echo.toml, which explains each")).collect()
}

fn account(own: u32) -> Finding {
    if own == 0 {
        return Finding::warning(
            "account",
            "this is root",
            "run it as an account of its own: whoever breaks into it then has its data alone",
        );
    }
    Finding::good("account", "not root")
}

/// Whether it can be written to, and by nobody else. `own`: the account.
fn data_folder(folder: &Path, own: u32) -> Vec<Finding> {
    const WHAT: &str = "data folder";
    let shown = folder.display();
    let metadata = match std::fs::metadata(folder) {
        Ok(metadata) if !metadata.is_dir() => {
            return vec![Finding::failure(WHAT, format!("{shown} is no folder"), "name another with --data")];
        }
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return vec![new_folder(WHAT, folder)],
        Err(error) => {
            return vec![Finding::failure(WHAT, format!("{shown}: {error}"), "let this account reach it, or name another with --data")];
        }
    };
    let mut findings = Vec::new();
    let stranger = (metadata.uid() != own).then(|| folder.to_owned()).or_else(|| file_of_another(folder, own));
    if let Some(path) = stranger {
        let owner = path.symlink_metadata().map_or_else(|_| "another account".to_owned(), |metadata| format!("account {}", metadata.uid()));
        let says = format!("{} belongs to {owner}, and this is {own}", path.display());
        findings.push(match own {
            // Whoever looks after the machine looks as root, and the host runs as another.
            0 => Finding::warning(WHAT, says, "run the host as the account that owns the folder, and doctor too"),
            _ => Finding::failure(WHAT, says, format!("chown -R {own} {shown}, or run the host as the account that owns it")),
        });
    }
    if metadata.mode() & 0o1000 != 0 {
        findings.push(Finding::failure(WHAT, format!("all accounts share {shown}"), "name a folder of the host's own with --data"));
    } else if metadata.mode() & 0o077 != 0 {
        let says = format!("other accounts can reach {shown} (mode {:o})", metadata.mode() & 0o777);
        findings.push(Finding::warning(WHAT, says, format!("chmod 700 {shown}; the host does it when it starts")));
    }
    if let Err(error) = can_write(folder) {
        findings.push(not_writable(WHAT, folder, &error));
    }
    if findings.is_empty() {
        findings.push(Finding::good(WHAT, format!("{shown} is this account's alone")));
    }
    findings
}

fn new_folder(what: &'static str, folder: &Path) -> Finding {
    let parent = std::path::absolute(folder).ok().and_then(|path| path.ancestors().find(|path| path.exists()).map(Path::to_owned));
    let parent = parent.unwrap_or_else(|| PathBuf::from("/"));
    match can_write(&parent) {
        Ok(()) => Finding::good(what, format!("{} will be made", folder.display())),
        Err(error) => Finding::failure(
            what,
            format!("{} cannot be made: {error}", folder.display()),
            format!("make it, or let this account write to {}", parent.display()),
        ),
    }
}

fn not_writable(what: &'static str, folder: &Path, error: &std::io::Error) -> Finding {
    let says = format!("{} cannot be written to: {error}", folder.display());
    Finding::failure(what, says, "is it mounted read-only, or full? else see its permissions")
}

/// The first of the host's files that another account owns, of the first `DOCTOR_FILES_MAX`.
fn file_of_another(folder: &Path, own: u32) -> Option<PathBuf> {
    let mut open: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    open.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(super::open::is_own));
    let mut seen = 0;
    while let Some(path) = open.pop() {
        seen += 1;
        if seen > limits::DOCTOR_FILES_MAX {
            return None;
        }
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.uid() != own {
            return Some(path);
        }
        if metadata.is_dir() {
            open.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    None
}

/// A file that only this account is to read.
fn secret_file(what: &'static str, path: &Path) -> Option<Finding> {
    let mode = std::fs::metadata(path).ok()?.mode();
    // A group may be there for it, as ssl-cert is on Debian.
    (mode & 0o007 != 0).then(|| {
        let says = format!("all accounts can read {} (mode {:o})", path.display(), mode & 0o777);
        Finding::warning(what, says, format!("chmod 600 {}", path.display()))
    })
}

/// Of `blob.url`, with the disk that it is on.
fn shared_folder(folder: &Path) -> Vec<Finding> {
    const WHAT: &str = "folder of files";
    if !folder.is_dir() {
        let says = format!("{} is no folder", folder.display());
        return vec![Finding::failure(WHAT, says, "make it, or mount it; see blob.url")];
    }
    match can_write(folder) {
        Ok(()) => {
            let writable = Finding::good(WHAT, format!("{} can be written to", folder.display()));
            std::iter::once(writable).chain(disk("disk of files", folder)).collect()
        }
        Err(error) => vec![not_writable(WHAT, folder, &error)],
    }
}

fn can_write(folder: &Path) -> std::io::Result<()> {
    let probe = folder.join(format!(".echod-doctor-{}", std::process::id()));
    std::fs::write(&probe, b"probe")?;
    std::fs::remove_file(&probe)
}

fn disk(what: &'static str, folder: &Path) -> Option<Finding> {
    let there = std::path::absolute(folder).ok()?.ancestors().find(|path| path.exists())?.to_owned();
    let room = rustix::fs::statvfs(&there).ok()?;
    Some(room_left(what, room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize, room.f_favail))
}

/// `free`, `size`: bytes; `files`: how many more files may be made, 0 for a file system that does not count them.
fn room_left(what: &'static str, free: u64, size: u64, files: u64) -> Finding {
    const GIB: u64 = 1 << 30;
    let says = format!("{:.1} GiB of {:.1} GiB are free", free as f64 / GIB as f64, size as f64 / GIB as f64);
    let advice = "make room: on a full disk nothing is accepted any more";
    if free < limits::DOCTOR_DISK_BYTES_MIN {
        Finding::failure(what, says, advice)
    } else if free < GIB || free < size / 20 {
        Finding::warning(what, says, advice)
    } else if (1..1_000).contains(&files) {
        Finding::warning(what, format!("{says}, but only {files} more files may be made"), "use a file system with more inodes")
    } else {
        Finding::good(what, says)
    }
}

fn ports(config: &Config) -> Vec<Finding> {
    let running = std::fs::read(Addresses::path(&config.data.dir)).ok().and_then(|text| serde_json::from_slice::<Addresses>(&text).ok());
    // One that was killed left its addresses. Where there is no /proc, it is believed.
    let running = running.filter(|host| !Path::new("/proc/self").exists() || Path::new(&format!("/proc/{}", host.pid)).exists());
    let wanted = [
        ("clients' address", "server.listen", config.server.listen),
        ("operator's address", "server.admin_listen", config.server.admin_listen),
    ];
    wanted
        .into_iter()
        .map(|(what, setting, address)| match &running {
            Some(host) if is_of(host, address) => {
                Finding::good(what, format!("{address}: a host runs there on this data folder, process {}", host.pid))
            }
            _ => port(what, setting, address),
        })
        .collect()
}

fn is_of(host: &Addresses, address: SocketAddr) -> bool {
    let port = |text: &str| text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    [&host.public, &host.admin].into_iter().any(|own| port(own) == Some(address.port()))
}

fn port(what: &'static str, setting: &str, address: SocketAddr) -> Finding {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Finding::good(what, format!("{address} is free")),
        Err(error) => {
            let advice = match error.kind() {
                ErrorKind::AddrInUse => format!("end what listens there (ss -ltnp shows it), or set another port in {setting}"),
                ErrorKind::PermissionDenied => format!("ports below 1024 want CAP_NET_BIND_SERVICE; or set another port in {setting}"),
                ErrorKind::AddrNotAvailable => format!("this machine has no such address; see `ip address`, and {setting}"),
                _ => format!("see {setting}"),
            };
            Finding::failure(what, format!("{address} cannot be listened on: {error}"), advice)
        }
    }
}

/// `limit`: of open files; none for no limit.
fn files(limit: Option<u64>, wanted: usize) -> Finding {
    let Some(limit) = limit else { return Finding::good("open files", "no limit") };
    let room = descriptors::connections_within(Some(limit), wanted);
    if room < wanted {
        let says = format!("{limit} files may be open, which is enough for {room} connections of {wanted} (server.connections_max)");
        return Finding::warning(
            "open files",
            says,
            "raise the hard limit (LimitNOFILE of systemd, ulimit -Hn), or lower server.connections_max",
        );
    }
    Finding::good("open files", format!("{limit} may be open, enough for {wanted} connections"))
}

/// Against what is in the data folder: a clock that was ahead or has gone back makes ids and times that are out of order.
fn clock(data: &Path, now: SystemTime) -> Finding {
    const ADVICE: &str =
        "set the clock (timedatectl, chronyc tracking) before the host starts: tokens, ids and the order of messages rest on it";
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if seconds < limits::DOCTOR_CLOCK_S_MIN {
        return Finding::failure("clock", "it is years behind", ADVICE);
    }
    let newest = ["feed.sqlite", "queue.sqlite", "tokens.sqlite"]
        .iter()
        .filter_map(|name| std::fs::metadata(data.join(name)).ok()?.modified().ok())
        .max();
    match newest.and_then(|newest| newest.duration_since(now).ok()) {
        Some(ahead) if ahead > Duration::from_secs(60) => {
            Finding::failure("clock", format!("the data were written {} s in the future: the clock has gone back", ahead.as_secs()), ADVICE)
        }
        _ => Finding::good("clock", "not behind the data"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_port_that_is_taken_is_said_with_what_to_do() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config::defaults(Mode::Serve);
        let folder = tempfile::tempdir().unwrap();
        config.data.dir = folder.path().to_owned();
        config.server.listen = taken.local_addr().unwrap();
        config.server.admin_listen = "127.0.0.1:0".parse().unwrap();
        let found = ports(&config);
        assert_eq!((found[0].verdict, found[1].verdict), (Verdict::Failure, Verdict::Good), "{found:?}");
        assert!(found[0].advice.contains("server.listen"), "{found:?}");
        // The host of this very data folder is no stranger.
        let addresses = Addresses {
            public: config.server.listen.to_string(),
            tls: false,
            admin: "127.0.0.1:1".to_owned(),
            admin_token: "t".to_owned(),
            pid: std::process::id(),
        };
        std::fs::create_dir(folder.path().join("run")).unwrap();
        std::fs::write(Addresses::path(folder.path()), serde_json::to_vec(&addresses).unwrap()).unwrap();
        assert_eq!(ports(&config)[0].verdict, Verdict::Good);
    }

    #[test]
    fn a_data_folder_is_this_accounts_alone_and_can_be_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let own = rustix::process::geteuid().as_raw();
        let verdict = |path: &Path| data_folder(path, own).iter().map(|finding| finding.verdict).max();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        assert_eq!(verdict(folder.path()), Some(Verdict::Good));
        assert_eq!(verdict(&folder.path().join("not/yet")), Some(Verdict::Good));
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        assert_eq!(verdict(folder.path()), Some(Verdict::Warning));
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(verdict(folder.path()), Some(Verdict::Failure));
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert_eq!(verdict(&file), Some(Verdict::Failure));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn files_of_another_account_are_said() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let own = rustix::process::geteuid().as_raw();
        std::fs::create_dir(folder.path().join("services")).unwrap();
        std::fs::write(folder.path().join("services/user.sqlite"), b"").unwrap();
        assert_eq!(file_of_another(folder.path(), own), None);
        // Seen as another account sees it.
        let other = own + 1;
        let found = data_folder(folder.path(), other);
        assert!(found[0].verdict == Verdict::Failure && found[0].advice.contains(&format!("chown -R {other}")), "{found:?}");
        assert!(file_of_another(folder.path(), other).is_some_and(|path| path.ends_with("services")));
        std::fs::write(folder.path().join("notes.txt"), b"").unwrap();
        std::fs::remove_dir_all(folder.path().join("services")).unwrap();
        assert_eq!(file_of_another(folder.path(), other), None, "what is not the host's may be anybody's");
    }

    #[test]
    fn a_key_that_all_may_read_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key.pem");
        std::fs::write(&key, b"").unwrap();
        for (mode, expect) in [(0o600, None), (0o640, None), (0o644, Some(Verdict::Warning))] {
            std::fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
            assert_eq!(secret_file("server.tls_key", &key).map(|finding| finding.verdict), expect, "{mode:o}");
        }
        assert_eq!(secret_file("server.tls_key", &folder.path().join("none")), None, "the settings say so already");
    }

    #[test]
    fn a_folder_of_files_is_there_and_can_be_written_to() {
        let folder = tempfile::tempdir().unwrap();
        assert!(shared_folder(folder.path()).iter().all(|finding| finding.verdict < Verdict::Failure));
        let missing = shared_folder(&folder.path().join("mount"));
        assert!(missing.len() == 1 && missing[0].verdict == Verdict::Failure && missing[0].advice.contains("mount"), "{missing:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn little_room_and_few_files_are_said() {
        const GIB: u64 = 1 << 30;
        for (free, size, inodes, expect) in [
            (50 * GIB, 100 * GIB, 0, Verdict::Good),
            (50 * GIB, 100 * GIB, 100, Verdict::Warning),
            (2 * GIB, 100 * GIB, 1_000_000, Verdict::Warning),
            (GIB / 2, GIB, 1_000_000, Verdict::Warning),
            (1 << 20, GIB, 1_000_000, Verdict::Failure),
        ] {
            assert_eq!(room_left("disk", free, size, inodes).verdict, expect, "{free} of {size}, {inodes}");
        }
        assert_eq!(files(Some(1_024), 50_000).verdict, Verdict::Warning);
        assert_eq!((files(Some(1_048_576), 50_000).verdict, files(None, 50_000).verdict), (Verdict::Good, Verdict::Good));
    }

    #[test]
    fn a_clock_behind_the_data_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        assert_eq!(clock(folder.path(), now).verdict, Verdict::Good);
        std::fs::write(folder.path().join("feed.sqlite"), b"").unwrap();
        assert_eq!(clock(folder.path(), now).verdict, Verdict::Good);
        assert_eq!(clock(folder.path(), now - Duration::from_secs(3_600)).verdict, Verdict::Failure);
        assert_eq!(clock(folder.path(), UNIX_EPOCH).verdict, Verdict::Failure);
    }

    #[tokio::test]
    async fn what_nothing_is_wrong_with_is_called_good() {
        let mut config = Config::defaults(Mode::Serve);
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        config.data.dir = folder.path().to_owned();
        config.server.listen = "127.0.0.1:0".parse().unwrap();
        config.server.admin_listen = config.server.listen;
        let quiet = examine(&config).await;
        // What this machine is like is not in a test's hands.
        let of_this_machine = ["account", "disk", "open files"];
        let mut others = quiet.iter().filter(|finding| !of_this_machine.contains(&finding.what));
        assert!(others.all(|finding| finding.verdict == Verdict::Good && finding.advice.is_empty()), "{quiet:?}");
        let wrong = of_settings(ConfigError(vec!["a".to_owned(), "b".to_owned()]));
        assert!(wrong.len() == 2 && wrong.iter().all(|finding| finding.verdict == Verdict::Failure));
    }
}
