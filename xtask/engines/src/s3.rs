//! A server of the S3 protocol: PyPI's `moto`, in memory. It answers one request after the other, as it would let two conditional PUTs at once both succeed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::{EngineError, Guarded, free_port, own_folder, pip};

const PACKAGES: [&str; 3] = ["moto[s3]>=5.2", "flask", "flask-cors"];
const PROGRAM: &str = "from sys import argv
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple('127.0.0.1', int(argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
";
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The one bucket that is made.
pub const BUCKET: &str = "echo";
/// Any are taken.
pub const ACCESS_KEY_ID: &str = "key";
pub const SECRET_ACCESS_KEY: &str = "secret";

/// A server of its own, with one bucket.
pub struct S3 {
    server: Guarded,
    port: u16,
}

impl S3 {
    pub fn start(below: &Path) -> Result<Self, EngineError> {
        let packages = pip::folder_with("moto", &PACKAGES, Path::new("moto/server.py"))?;
        let (folder, port) = (own_folder(below, "s3", None)?, free_port()?);
        // `-I` would leave out the folder of the packages.
        let code = format!("import sys; sys.path.insert(0, {:?})\n{PROGRAM}", packages.display().to_string());
        let command = ["python3".to_owned(), "-c".to_owned(), code, port.to_string()];
        let s3 = Self { server: Guarded::start(&folder, None, "TERM", &command)?, port };
        let until = Instant::now() + START_TIMEOUT;
        while !s3.make_bucket() {
            if Instant::now() > until {
                return Err(EngineError(format!("moto does not start: {}", s3.server.log())));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(s3)
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `STOP`, `CONT`, `KILL`, …
    pub fn signal(&self, name: &str) -> Result<(), EngineError> {
        self.server.signal(name)
    }

    fn make_bucket(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "PUT /{BUCKET} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.lines().next().is_some_and(|line| line.contains(" 200 ")))
    }
}

/// The endpoint of the server of this process's tests, started by the first that asks; it ends with the process.
pub fn of_this_process() -> Result<String, EngineError> {
    static SERVER: OnceLock<Result<S3, String>> = OnceLock::new();
    let server = SERVER.get_or_init(|| S3::start(&std::env::temp_dir()).map_err(|error| error.0));
    server.as_ref().map(S3::endpoint).map_err(|error| EngineError(error.clone()))
}
