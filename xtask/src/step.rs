//! One step of a set-up or a build: a line is printed, then it is done, with the program's own output passed through.

use std::{
    io::Read,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// The result of a stage that is not possible on this machine, with the reason. It is no failure, and the summary names it.
#[derive(Debug)]
pub struct LeftOut(pub String);

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LeftOut {}

/// Prints what happens now.
pub fn say(line: impl std::fmt::Display) {
    eprintln!("==> {line}");
}

/// Runs a program to its end; its failure is ours, with the command line in the message.
pub fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Runs a program and gives its standard output, trimmed.
pub fn output(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({})", output.status);
    }
    let text = String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed what is no UTF-8"))?;
    Ok(text.trim().to_owned())
}

/// Runs a program that may hang (a network that swallows packets); kills it after `limit`. The error is one line fit to be shown.
pub fn run_within(limit: Duration, command: &mut Command) -> Result<(), String> {
    let line = shown(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("`{line}` cannot be started: {error}"))?;
    let mut stderr = child.stderr.take().expect("piped above");
    let reader = thread::spawn(move || {
        let mut text = String::new();
        // Whatever could be read is good enough for a message.
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let deadline = Instant::now() + limit;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
            _ => {
                // It may have ended in this moment; either way it is gone after `wait`.
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
        }
    };
    match status {
        // The reader is not joined here: a grandchild may hold the pipe open.
        None => Err(format!("`{line}` was given up after {} s", limit.as_secs())),
        Some(status) if status.success() => Ok(()),
        Some(_) => {
            let text = reader.join().unwrap_or_default();
            let reason = text.lines().rev().find(|line| line.contains("error")).or(text.lines().last()).unwrap_or("no reason given");
            Err(format!("`{line}` failed: {}", reason.trim()))
        }
    }
}

/// The command line without its environment.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// `1.2 s` or `3 min 04 s`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 60.0 { format!("{seconds:.1} s") } else { format!("{} min {:02} s", duration.as_secs() / 60, duration.as_secs() % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_given_up() {
        let begin = Instant::now();
        let message = run_within(Duration::from_millis(100), Command::new("sleep").arg("30")).unwrap_err();
        assert!(message.contains("given up"), "{message}");
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn the_reason_of_a_failure_is_its_error_line() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo info: starting >&2; echo 'error: refused by the proxy' >&2; echo bye >&2; exit 1"]);
        let message = run_within(Duration::from_secs(10), &mut command).unwrap_err();
        assert!(message.ends_with("error: refused by the proxy"), "{message}");
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(duration(Duration::from_millis(1_240)), "1.2 s");
        assert_eq!(duration(Duration::from_secs(184)), "3 min 04 s");
    }
}
