//! Hands log lines to the thread that writes them. Knows no formats.
//!
//! Lines are appended to one shared buffer instead of a queue of strings: each is copied once, and the log thread frees nothing that a request allocated.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

use echo_base::limits;

/// Hands lines to the thread that writes them. Full: the line is dropped and counted, because no request may wait for a reader of the log.
#[derive(Clone)]
pub struct LogLines {
    waiting: Arc<Waiting>,
}

/// Dropping it writes every line that was logged before, waiting at most `LOG_FLUSH_TIMEOUT_MS` for a reader that is stuck.
pub struct LogGuard {
    waiting: Arc<Waiting>,
    ended: Receiver<()>,
}

struct Waiting {
    lines: Mutex<Lines>,
    bytes_max: usize,
    some_are_there: Condvar,
}

#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// The thread sleeps until there are some.
    is_awaited: bool,
    is_ending: bool,
}

impl LogLines {
    /// At most `bytes_max` wait, and as many are being written.
    pub fn start(output: impl Write + Send + 'static, bytes_max: usize) -> io::Result<(Self, LogGuard)> {
        let waiting = Arc::new(Waiting { lines: Mutex::default(), bytes_max, some_are_there: Condvar::new() });
        let (ending, ended) = sync_channel(1);
        let taken = waiting.clone();
        // It ends when the guard says so, or with the process.
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            taken.write_to(output);
            let _ = ending.try_send(());
        })?;
        Ok((Self { waiting: waiting.clone() }, LogGuard { waiting, ended }))
    }

    /// One line or several, whole.
    pub fn send(&self, line: &[u8]) {
        let mut lines = self.waiting.lines.lock();
        if lines.bytes.len() + line.len() > self.waiting.bytes_max {
            drop(lines);
            ::metrics::counter!("echo_log_lines_dropped_total").increment(1);
            return;
        }
        lines.bytes.extend_from_slice(line);
        let is_awaited = std::mem::take(&mut lines.is_awaited);
        drop(lines);
        if is_awaited {
            self.waiting.some_are_there.notify_one();
        }
    }
}

impl Waiting {
    /// A line that cannot be written has nowhere else to go, hence the silence about errors.
    fn write_to(&self, mut output: impl Write) {
        let mut taken = Vec::new();
        loop {
            let is_ending = {
                let mut lines = self.lines.lock();
                while lines.bytes.is_empty() && !lines.is_ending {
                    lines.is_awaited = true;
                    self.some_are_there.wait(&mut lines);
                }
                std::mem::swap(&mut lines.bytes, &mut taken);
                lines.is_ending
            };
            let _ = output.write_all(&taken).and_then(|()| output.flush());
            taken.clear();
            // After a flood of lines.
            taken.shrink_to(limits::LOG_BUFFER_BYTES_KEPT);
            if is_ending {
                break;
            }
            // Being woken for every line costs the requests more than writing it: let some gather.
            std::thread::sleep(Duration::from_millis(limits::LOG_GATHER_MS));
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.waiting.lines.lock().is_ending = true;
        self.waiting.some_are_there.notify_one();
        let _ = self.ended.recv_timeout(Duration::from_millis(limits::LOG_FLUSH_TIMEOUT_MS));
    }
}

/// The formatter hands over each event in one piece.
impl Write for LogLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.send(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::sync::Barrier;

    #[derive(Clone, Default)]
    pub struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        pub fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_guard_writes_all_that_was_logged() {
        let written = Written::default();
        let (lines, guard) = LogLines::start(written.clone(), 1024 * 1024).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let lines = lines.clone();
                std::thread::spawn(move || (0..5_000).for_each(|number| lines.send(format!("{thread} {number}\n").as_bytes())))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(guard);
        let text = written.text();
        for thread in 0..4 {
            let of_thread = text.lines().filter_map(|line| line.strip_prefix(&format!("{thread} ")));
            assert!(of_thread.map(|number| number.parse::<u32>().unwrap()).eq(0..5_000), "thread {thread}");
        }
        assert_eq!(text.lines().count(), 20_000);
    }

    /// Does not take a byte before the barrier is passed.
    struct Stuck(Arc<Barrier>, Written);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.wait();
            self.0 = Arc::new(Barrier::new(1));
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_is_stuck_slows_nobody() {
        let (barrier, written) = (Arc::new(Barrier::new(2)), Written::default());
        let (lines, guard) = LogLines::start(Stuck(barrier.clone(), written.clone()), 40_000).unwrap();
        for number in 0..100 {
            lines.send(format!("{number:09999}\n").as_bytes());
        }
        barrier.wait();
        drop(guard);
        let count = written.text().lines().count();
        assert!((4..=8).contains(&count), "{count} lines went through where 4 may wait and 4 be written");
    }
}
