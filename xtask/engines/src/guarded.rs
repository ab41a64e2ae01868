//! A server that ends with the process that started it.
//!
//! Beside the server runs a shell that waits on a pipe from this process: when the pipe closes, because this process dropped it or died, it ends the server
//! by its id and removes the folder.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::EngineError;
use crate::account::Account;

/// `$0`: the folder to remove; `$1`: the signal that ends the server; the rest is the server's command line.
const SCRIPT: &str = r#"
signal=$1; shift
trap '' INT TERM HUP
"$@" >"$0/log" 2>&1 </dev/null &
server=$!
echo "$server"
read -r _ || true
kill -"$signal" "$server" 2>/dev/null
wait "$server"
cd / && rm -rf "$0"
"#;

/// A running server. Dropping it ends the server and waits for that.
pub struct Guarded {
    pid: u32,
    folder: PathBuf,
    shell: Child,
    /// Closed, it ends the server.
    pipe: Option<ChildStdin>,
}

impl Guarded {
    /// `folder` is the server's alone, has its log, and goes with it.
    pub(crate) fn start(folder: &Path, account: Option<Account>, signal: &str, command: &[String]) -> Result<Self, EngineError> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(SCRIPT).arg(folder).arg(signal).args(command).current_dir("/");
        if let Some(account) = account {
            shell.uid(account.uid).gid(account.gid);
        }
        // A group of its own: what the terminal sends to this one does not reach it.
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = shell.spawn().map_err(|error| EngineError::of("/bin/sh", error))?;
        let pipe = shell.stdin.take();
        let mut line = String::new();
        let out = shell.stdout.take().ok_or_else(|| EngineError("the shell has no output".to_owned()))?;
        BufReader::new(out).read_line(&mut line).map_err(|error| EngineError::of("the shell", error))?;
        let pid = line.trim().parse().map_err(|error| EngineError::of("the server's process id", error))?;
        Ok(Self { pid, folder: folder.to_owned(), shell, pipe })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the server has written.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.pipe.take();
        // Its end was asked for; how it came to it is of no interest.
        let _ = self.shell.wait();
        // What the server's account may not remove: a folder's name in a folder that is not its own.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
