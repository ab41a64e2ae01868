//! An OpenID Connect provider: npm's `oidc-provider`, a certified one, in memory. Whoever gives a name at its pages is signed in as that, with an address of
//! `company.example`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::{EngineError, Guarded, free_port, npm, own_folder, program};

const PACKAGE: &str = "oidc-provider@~9.13.3";
const FILE: &str = "node_modules/oidc-provider/lib/index.js";
const PROGRAM: &str = include_str!("oidc.mjs");
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Its clients, named after how their ID Tokens are signed. Each may have the browser sent to `REDIRECT`, and has no secret.
pub const CLIENTS: [&str; 3] = ["echo-RS256", "echo-ES256", "echo-EdDSA"];
pub const REDIRECT: &str = "http://127.0.0.1/signed-in";

/// Whether there is Node, which it wants.
pub fn is_possible() -> bool {
    program("node").is_some() && program("npm").is_some()
}

/// Gets what is missing. Errors: what to install.
pub fn installed() -> Result<(), EngineError> {
    npm::folder_with("oidc-provider", &[PACKAGE], Path::new(FILE)).map(|_| ())
}

/// A provider of its own.
pub struct Provider {
    server: Guarded,
    port: u16,
}

impl Provider {
    pub fn start(below: &Path) -> Result<Self, EngineError> {
        let packages = npm::folder_with("oidc-provider", &[PACKAGE], Path::new(FILE))?.join("node_modules");
        let (folder, port) = (own_folder(below, "oidc", None)?, free_port()?);
        let file = folder.join("provider.mjs");
        fs::write(&file, PROGRAM).map_err(|error| EngineError::of(&file.display().to_string(), error))?;
        let command = ["node".to_owned(), file.display().to_string(), packages.display().to_string(), port.to_string()];
        let provider = Self { server: Guarded::start(&folder, None, "TERM", &command)?, port };
        let until = Instant::now() + START_TIMEOUT;
        while !provider.ask("GET /.well-known/openid-configuration").is_ok_and(|answer| answer.contains("jwks_uri")) {
            if Instant::now() > until {
                return Err(EngineError(format!("oidc-provider does not start: {}", provider.server.log())));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(provider)
    }

    /// `127.0.0.1` with the port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn issuer(&self) -> String {
        format!("http://{}", self.address())
    }

    /// From now on it signs with new keys and publishes these alone.
    pub fn rotate_keys(&self) -> Result<(), EngineError> {
        let answer = self.ask("POST /rotate").map_err(|error| EngineError::of("oidc-provider", error))?;
        if answer.starts_with("HTTP/1.1 204") { Ok(()) } else { Err(EngineError(format!("oidc-provider: {answer}"))) }
    }

    fn ask(&self, line: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(stream, "{line} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}
