//! Redis, as the Debian package `redis-server` has it, without files: what Echo keeps there may be forgotten.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::{EngineError, Guarded, Tls, free_port, own_folder, program};

/// The address of a server that is there already: none is started then. Tests flush their own keys alone.
pub const ADDRESS: &str = "ECHO_TEST_REDIS";
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A server of its own.
pub struct Redis {
    server: Guarded,
    port: u16,
}

impl Redis {
    pub fn start(below: &Path) -> Result<Self, EngineError> {
        Self::start_on(below, free_port()?)
    }

    /// On this port: where one was before, with nothing of what it held.
    pub fn start_on(below: &Path, port: u16) -> Result<Self, EngineError> {
        let program = installed()?;
        let folder = own_folder(below, "redis", None)?;
        let port_text = port.to_string();
        let dir = folder.display().to_string();
        let command = [
            &program.display().to_string(),
            "--port",
            &port_text,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            &dir,
        ];
        let server = Guarded::start(&folder, None, "TERM", &command.map(str::to_owned))?;
        let redis = Self { server, port };
        redis.wait()?;
        Ok(redis)
    }

    /// Encrypted alone, and with this password. The certificate is for `localhost`.
    pub fn start_with_tls(below: &Path, tls: &Tls<'_>, password: &str) -> Result<Self, EngineError> {
        let (program, port) = (installed()?, free_port()?);
        let folder = own_folder(below, "redis", None)?;
        let (certificate, key) = tls.write(&folder, None)?;
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        let (port_text, dir) = (port.to_string(), folder.display().to_string());
        let mut command = vec![program.display().to_string()];
        let arguments =
            ["--port", "0", "--tls-port", &port_text, "--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-auth-clients", "no"];
        command.extend(arguments.map(str::to_owned));
        let arguments = ["--tls-ca-cert-file", &certificate, "--requirepass", password, "--bind", "127.0.0.1", "--save", "", "--dir", &dir];
        command.extend(arguments.map(str::to_owned));
        let server = Guarded::start(&folder, None, "TERM", &command)?;
        let until = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > until {
                return Err(EngineError(format!("Redis does not start: {}", server.log())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { server, port })
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// `STOP`, `CONT`, `KILL`, …
    pub fn signal(&self, name: &str) -> Result<(), EngineError> {
        self.server.signal(name)
    }

    /// After `KILL`: on the same port, empty.
    pub fn start_again(&mut self) -> Result<(), EngineError> {
        self.server.start_again()?;
        self.wait()
    }

    /// Forgets everything that it keeps.
    pub fn flush(&self) -> Result<(), EngineError> {
        let failed = |error| EngineError::of("FLUSHALL", error);
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(failed)?;
        let mut answer = [0; 5];
        stream.write_all(b"FLUSHALL\r\n").and_then(|()| stream.read_exact(&mut answer)).map_err(failed)?;
        if answer == *b"+OK\r\n" { Ok(()) } else { Err(EngineError("FLUSHALL is refused".to_owned())) }
    }

    fn wait(&self) -> Result<(), EngineError> {
        let until = Instant::now() + START_TIMEOUT;
        while !self.answers() {
            if Instant::now() > until {
                return Err(EngineError(format!("Redis does not start: {}", self.server.log())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut answer = [0; 7];
        stream.write_all(b"PING\r\n").and_then(|()| stream.read_exact(&mut answer)).is_ok() && answer == *b"+PONG\r\n"
    }
}

/// The server of this process's tests, started by the first that asks; it ends with the process. See `ADDRESS`.
pub fn of_this_process() -> Result<String, EngineError> {
    static SERVER: OnceLock<Result<Redis, String>> = OnceLock::new();
    if let Ok(address) = std::env::var(ADDRESS) {
        return Ok(address);
    }
    let server = SERVER.get_or_init(|| Redis::start(&std::env::temp_dir()).map_err(|error| error.0));
    server.as_ref().map(Redis::url).map_err(|error| EngineError(error.clone()))
}

/// Where the server's program is. Errors: what to install.
pub fn installed() -> Result<PathBuf, EngineError> {
    program("redis-server")
        .ok_or_else(|| EngineError("there is no redis-server (7 or later); on Debian: apt-get install redis-server".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_answers_and_leaves_nothing_behind() {
        let server = Redis::start(&std::env::temp_dir()).unwrap();
        let (pid, folder, port) = (server.pid(), server.server.folder().to_owned(), server.port());
        assert!(server.answers());
        drop(server);
        assert!(!Path::new(&format!("/proc/{pid}")).exists() && !folder.exists());
        let again = Redis::start_on(&std::env::temp_dir(), port).unwrap();
        assert_eq!(again.port(), port);
    }
}
