//! PostgreSQL, as the Debian package `postgresql` has it: flushed to the disk as in production, with passwords, and counting statements where
//! `pg_stat_statements` is there.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::account::{Account, other_than_root};
use crate::{EngineError, Guarded, Tls, free_port, own_folder, program};

/// The address of a server that is there already: none is started then. Its user may make databases and roles.
pub const ADDRESS: &str = "ECHO_TEST_POSTGRES";
/// Where packages put the programs, newest version last.
const PACKAGED: &str = "/usr/lib/postgresql";
const USER: &str = "operator";
const PASSWORD: &str = "operator-of-tests";
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A server of its own.
pub struct Postgres {
    server: Guarded,
    port: u16,
}

impl Postgres {
    /// Below this folder, which has to be there. Its user is no superuser: it may make databases and roles, as an operator would give it.
    pub fn start(below: &Path) -> Result<Self, EngineError> {
        Self::start_with(below, None)
    }

    /// Also encrypted. The certificate is for `localhost`.
    pub fn start_with(below: &Path, tls: Option<&Tls<'_>>) -> Result<Self, EngineError> {
        let programs = installed()?;
        let account = other_than_root(&["postgres", "nobody"]);
        let folder = own_folder(below, "postgres", account)?;
        let data = folder.join("data");
        let secret = folder.join("password");
        fs::write(&secret, PASSWORD).map_err(|error| EngineError::of("the password's file", error))?;
        if let Some(account) = account {
            chown(&secret, Some(account.uid), Some(account.gid)).map_err(|error| EngineError::of("the password's file", error))?;
        }
        let mut initdb = Command::new(programs.join("initdb"));
        initdb.args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        initdb.arg("--pwfile").arg(&secret).arg("--pgdata").arg(&data);
        run(initdb, account)?;
        let port = free_port()?;
        let mut command = vec![programs.join("postgres").display().to_string(), "-D".to_owned(), data.display().to_string()];
        let settings = [
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", folder.display()),
            "fsync=on".to_owned(),
            "synchronous_commit=on".to_owned(),
            "max_connections=200".to_owned(),
            "shared_buffers=64MB".to_owned(),
            "max_pred_locks_per_transaction=256".to_owned(),
            "shared_preload_libraries=pg_stat_statements".to_owned(),
        ];
        let settings = settings.into_iter().filter(|setting| has_statistics(&programs) || !setting.starts_with("shared_preload"));
        command.extend(settings.flat_map(|setting| ["-c".to_owned(), setting]));
        if let Some(tls) = tls {
            let (certificate, key) = tls.write(&folder, account)?;
            for setting in
                ["ssl=on".to_owned(), format!("ssl_cert_file={}", certificate.display()), format!("ssl_key_file={}", key.display())]
            {
                command.extend(["-c".to_owned(), setting]);
            }
        }
        // INT: connections are ended, and the server after a checkpoint.
        let server = Guarded::start(&folder, account, "INT", &command)?;
        let postgres = Self { server, port };
        postgres.wait()?;
        let superuser = |sql: &str| psql(&postgres.superuser_url("postgres"), sql);
        superuser(&format!("CREATE ROLE {USER} LOGIN CREATEDB CREATEROLE PASSWORD '{PASSWORD}'"))?;
        superuser(&format!("GRANT pg_read_all_stats, pg_signal_backend TO {USER}"))?;
        if has_statistics(&programs) {
            // In every database that is made from now on.
            psql(&postgres.superuser_url("template1"), "CREATE EXTENSION pg_stat_statements")?;
        }
        Ok(postgres)
    }

    /// The address of one of its databases, which may have to be made: `postgres` is there.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// As the superuser, whom Echo does without.
    pub fn superuser_url(&self, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// A database of its own, owned by the user of `url`: Echo asks for that. Its address.
    pub fn make_database(&self, name: &str) -> Result<String, EngineError> {
        psql(&self.url("postgres"), &format!("CREATE DATABASE {name}"))?;
        Ok(self.url(name))
    }

    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// kill -9 of the server and of all that it started; nothing more of it runs afterwards.
    pub fn kill(&self) -> Result<(), EngineError> {
        // The others end by themselves when the first process is gone, and shared memory is in use until they have.
        self.server.signal("KILL")
    }

    /// SIGSTOP of the server and of every process that serves a connection: nothing answers, and connections stay open.
    pub fn stop(&self) -> Result<(), EngineError> {
        self.signal_all("STOP")
    }

    pub fn go_on(&self) -> Result<(), EngineError> {
        self.signal_all("CONT")
    }

    fn signal_all(&self, name: &str) -> Result<(), EngineError> {
        // First the one that would start others.
        self.server.signal(name)?;
        for child in crate::children_of(self.pid()) {
            // One that ended meanwhile answers nobody either.
            let _ = crate::signal(child, name);
        }
        Ok(())
    }

    /// After `kill`: on the same port, with everything that was committed.
    pub fn start_again(&mut self) -> Result<(), EngineError> {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            let read = self.server.log().len();
            self.server.start_again()?;
            match self.wait_from(read) {
                // Until the last process of the one before has ended.
                Err(error) if error.0.contains("still in use") && Instant::now() < until => std::thread::sleep(Duration::from_millis(100)),
                outcome => return outcome,
            }
        }
    }

    fn wait(&self) -> Result<(), EngineError> {
        self.wait_from(0)
    }

    /// `read`: as much of the log is of a start before.
    fn wait_from(&self, read: usize) -> Result<(), EngineError> {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            let log = self.server.log();
            let log = log.get(read..).unwrap_or_default();
            if log.contains("database system is ready") && TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            if Instant::now() > until
                || log.contains("FATAL") && (log.contains("database system is shut down") || log.contains("still in use"))
            {
                return Err(EngineError(format!("PostgreSQL does not start: {log}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The server of this process's tests, started by the first that asks; it ends with the process. See `ADDRESS`.
pub fn of_this_process(database: &str) -> Result<String, EngineError> {
    static SERVER: OnceLock<Result<Postgres, String>> = OnceLock::new();
    if let Ok(address) = std::env::var(ADDRESS) {
        let (server, _) = address.rsplit_once('/').ok_or_else(|| EngineError(format!("{ADDRESS}: no database in {address}")))?;
        return Ok(format!("{server}/{database}"));
    }
    let server = SERVER.get_or_init(|| Postgres::start(&std::env::temp_dir()).map_err(|error| error.0));
    server.as_ref().map(|server| server.url(database)).map_err(|error| EngineError(error.clone()))
}

/// A database of a test's own, gone when this is dropped.
pub struct Database {
    name: String,
    url: String,
}

impl Database {
    /// On the server of this process's tests.
    pub fn new() -> Result<Self, EngineError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}_{number}", std::process::id());
        psql(&of_this_process("postgres")?, &format!("CREATE DATABASE {name}"))?;
        let url = of_this_process(&name)?;
        Ok(Self { name, url })
    }

    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Ok(server) = of_this_process("postgres") {
            // A test has failed or not without this.
            let _ = psql(&server, &format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

fn psql(url: &str, sql: &str) -> Result<(), EngineError> {
    let mut psql = Command::new("psql");
    psql.args(["-qAt", "-v", "ON_ERROR_STOP=1", "-d"]).arg(url).arg("-c").arg(sql);
    run(psql, None)
}

/// Where the servers' programs are. Errors: what to install.
pub fn installed() -> Result<PathBuf, EngineError> {
    let versions = fs::read_dir(PACKAGED).into_iter().flatten().flatten();
    let version_of = |path: &Path| path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u32>().ok());
    let found = versions.filter_map(|version| Some((version_of(&version.path())?, version.path().join("bin"))));
    let newest = found.filter(|(version, bin)| *version >= 15 && bin.join("initdb").is_file()).max();
    // As in the Nix shell.
    let in_path = || program("initdb")?.parent().map(Path::to_owned);
    newest.map(|(_, bin)| bin).or_else(in_path).ok_or_else(|| {
        EngineError(format!("PostgreSQL 15 or later is neither in {PACKAGED} nor in PATH; on Debian: apt-get install postgresql"))
    })
}

/// Whether the programs' version counts statements.
fn has_statistics(programs: &Path) -> bool {
    programs.with_file_name("lib").join("pg_stat_statements.so").is_file()
}

fn run(mut command: Command, account: Option<Account>) -> Result<(), EngineError> {
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.current_dir("/").stdin(Stdio::null()).output().map_err(|error| EngineError::of(&program, error))?;
    if output.status.success() {
        return Ok(());
    }
    Err(EngineError(format!("{program}: {}", String::from_utf8_lossy(&output.stderr))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_answers_and_leaves_nothing_behind() {
        let below = std::env::temp_dir();
        let server = Postgres::start(&below).unwrap();
        let (pid, folder, port) = (server.pid(), server.server_folder(), server.port);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(server);
        assert!(!Path::new(&format!("/proc/{pid}")).exists() && !folder.exists());
    }

    #[test]
    fn a_killed_server_starts_again_with_what_was_committed() {
        let mut server = Postgres::start(&std::env::temp_dir()).unwrap();
        let url = server.make_database("kept").unwrap();
        psql(&url, "CREATE TABLE mark (id INT)").unwrap();
        server.kill().unwrap();
        server.start_again().unwrap();
        psql(&url, "INSERT INTO mark VALUES (1)").unwrap();
        server.stop().unwrap();
        let mut refused = Command::new("psql");
        refused.env("PGCONNECT_TIMEOUT", "2").args(["-qAt", "-c", "SELECT 1", "-d"]).arg(&url);
        assert!(run(refused, None).is_err(), "a stopped server answers nobody");
        server.go_on().unwrap();
        psql(&url, "SELECT 1").unwrap();
    }

    impl Postgres {
        fn server_folder(&self) -> PathBuf {
            self.server.folder().to_owned()
        }
    }
}
