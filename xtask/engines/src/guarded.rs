//! A server that ends with the process that started it.
//!
//! Beside the server runs a shell that waits on a pipe from this process: when the pipe closes, because this process dropped it or died, it ends the server
//! by its id and removes the folder.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::EngineError;
use crate::account::Account;

/// `$0`: the folder to remove; `$1`: the signal that ends the server; the rest is the server's command line. A line from the pipe starts it again once it
/// has ended. A server that is stopped (SIGSTOP) is continued to end, and killed where it has not ended after 20 s.
const SCRIPT: &str = r#"
signal=$1; shift
trap '' INT TERM HUP
start() {
  (trap - INT TERM HUP; exec "$@") >>"$0/log" 2>&1 </dev/null &
  server=$!
  echo "$server"
}
start "$@"
while read -r _; do
  wait "$server"
  start "$@"
done
kill -"$signal" "$server" 2>/dev/null
kill -CONT "$server" 2>/dev/null
tries=0
while [ "$tries" -lt 400 ] && kill -0 "$server" 2>/dev/null; do sleep 0.05; tries=$((tries + 1)); done
kill -KILL "$server" 2>/dev/null
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
    pids: BufReader<ChildStdout>,
}

impl Guarded {
    /// A server in a new folder below this one, ended by SIGTERM. `command`: gets that folder, and gives the program with its arguments, and its environment.
    pub fn in_own_folder(
        below: &Path,
        name: &str,
        command: impl FnOnce(&Path) -> (Vec<String>, Vec<(String, String)>),
    ) -> Result<Self, EngineError> {
        let folder = crate::own_folder(below, name, None)?;
        let (command, environment) = command(&folder);
        Self::start_with(&folder, None, "TERM", &command, &environment)
    }

    /// `folder` is the server's alone, has its log, and goes with it.
    pub(crate) fn start(folder: &Path, account: Option<Account>, signal: &str, command: &[String]) -> Result<Self, EngineError> {
        Self::start_with(folder, account, signal, command, &[])
    }

    fn start_with(
        folder: &Path,
        account: Option<Account>,
        signal: &str,
        command: &[String],
        environment: &[(String, String)],
    ) -> Result<Self, EngineError> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(SCRIPT).arg(folder).arg(signal).args(command).current_dir("/");
        shell.envs(environment.iter().map(|(key, value)| (key, value)));
        if let Some(account) = account {
            shell.uid(account.uid).gid(account.gid);
        }
        // A group of its own: what the terminal sends to this one does not reach it.
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = shell.spawn().map_err(|error| EngineError::of("/bin/sh", error))?;
        let pipe = shell.stdin.take();
        let out = shell.stdout.take().ok_or_else(|| EngineError("the shell has no output".to_owned()))?;
        let mut guarded = Self { pid: 0, folder: folder.to_owned(), shell, pipe, pids: BufReader::new(out) };
        guarded.pid = guarded.next_pid()?;
        Ok(guarded)
    }

    /// The same command in the same folder, with all that the server left there, once the server has ended; it is not ended by this.
    pub fn start_again(&mut self) -> Result<(), EngineError> {
        let pipe = self.pipe.as_mut().ok_or_else(|| EngineError("the server was ended for good".to_owned()))?;
        pipe.write_all(b"start\n").map_err(|error| EngineError::of("the shell", error))?;
        self.pid = self.next_pid()?;
        Ok(())
    }

    fn next_pid(&mut self) -> Result<u32, EngineError> {
        let mut line = String::new();
        self.pids.read_line(&mut line).map_err(|error| EngineError::of("the shell", error))?;
        line.trim().parse().map_err(|error| EngineError::of("the server's process id", error))
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

    /// Asks the server to end, without waiting for it: several end at the same time so.
    pub fn begin_to_end(&mut self) {
        self.pipe.take();
    }

    /// Sends a signal to the server: `STOP`, `CONT`, `KILL`, …
    pub fn signal(&self, name: &str) -> Result<(), EngineError> {
        signal(self.pid, name)
    }
}

/// Sends a signal to a process: `STOP`, `CONT`, `KILL`, …
pub fn signal(pid: u32, name: &str) -> Result<(), EngineError> {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    let sent = sent.map_err(|error| EngineError::of("kill", error))?;
    if sent.success() { Ok(()) } else { Err(EngineError(format!("there is no process {pid} to send {name} to"))) }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.begin_to_end();
        // Its end was asked for; how it came to it is of no interest.
        let _ = self.shell.wait();
        // What the server's account may not remove: a folder's name in a folder that is not its own.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn sleeper() -> Guarded {
        let command = |_: &Path| (["sleep", "1000"].map(str::to_owned).to_vec(), Vec::new());
        Guarded::in_own_folder(&std::env::temp_dir(), "sleeper", command).unwrap()
    }

    fn runs(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_server_that_ended_is_started_again_in_its_folder() {
        let mut server = sleeper();
        let first = server.pid();
        std::fs::write(server.folder().join("kept"), "").unwrap();
        server.signal("KILL").unwrap();
        server.start_again().unwrap();
        assert!(server.pid() != first && runs(server.pid()) && !runs(first));
        assert!(server.folder().join("kept").exists());
    }

    #[test]
    fn a_stopped_server_ends_too() {
        let server = sleeper();
        server.signal("STOP").unwrap();
        let (pid, folder, begun) = (server.pid(), server.folder().to_owned(), Instant::now());
        drop(server);
        assert!(!runs(pid) && !folder.exists() && begun.elapsed() < Duration::from_secs(10));
    }
}
