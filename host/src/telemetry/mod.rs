//! Where the log's lines and the metrics go. Knows formats and buckets; nothing of what is logged or counted.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use json_lines::JsonLines;

use crate::config::{LogConfig, LogFormat};
use crate::limits;

mod json_lines;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log.level is no filter: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    #[error("a log is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    #[error("the log's thread: {0}")]
    Thread(#[from] io::Error),
}

/// Sends the log of the whole process to standard output. Keep the guard to the very end: dropping it writes what is still waiting.
pub fn init_logs(config: &LogConfig) -> Result<LogGuard, LogError> {
    let filter = EnvFilter::try_new(&config.level)?;
    let (lines, guard) = LogLines::start(io::stdout(), limits::LOG_QUEUE_LINES_MAX)?;
    let log = tracing_subscriber::registry().with(filter);
    match config.format {
        LogFormat::Json => log.with(JsonLines::new(lines)).try_init()?,
        LogFormat::Text => {
            log.with(tracing_subscriber::fmt::layer().with_writer(lines).with_ansi(io::stdout().is_terminal())).try_init()?;
        }
    }
    Ok(guard)
}

/// The metrics of the whole process, in Prometheus' text format. The first call begins to collect them.
pub fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .expect("there are buckets")
            .build_recorder();
        let handle = recorder.handle();
        // Someone else's recorder, in a test: then this one stays empty.
        let _ = ::metrics::set_global_recorder(recorder);
        Metrics { handle }
    })
}

/// `metrics().render()`, for those who want a plain function.
pub fn render_metrics() -> String {
    metrics().render()
}

pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds what histograms have collected, until told to stop; without it they would grow for as long as nobody asks.
    pub async fn upkeep(&self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(Duration::from_millis(limits::METRICS_UPKEEP_INTERVAL_MS));
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            self.handle.run_upkeep();
        }
    }
}

/// Upper ends of the buckets for durations, from the calls within the process to the longest request.
const SECONDS: [f64; 16] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Dropping it writes every line that was logged before, waiting at most `LOG_FLUSH_TIMEOUT_MS` for a reader that is stuck.
pub struct LogGuard {
    lines: SyncSender<Message>,
    ended: Receiver<()>,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_millis(limits::LOG_FLUSH_TIMEOUT_MS);
        // The queue may be full of lines.
        while let Err(TrySendError::Full(_)) = self.lines.try_send(Message::End) {
            if Instant::now() >= until {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = self.ended.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

enum Message {
    Line(Vec<u8>),
    End,
}

/// Hands lines to the thread that writes them. Full: the line is dropped and counted, because no request may wait for a reader of the log.
#[derive(Clone)]
struct LogLines {
    lines: SyncSender<Message>,
}

impl LogLines {
    fn start(output: impl Write + Send + 'static, lines_max: usize) -> io::Result<(Self, LogGuard)> {
        let (sender, receiver) = sync_channel(lines_max);
        let (ending, ended) = sync_channel(1);
        // It ends when the guard says so, or with the process.
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            write_lines(&receiver, output);
            let _ = ending.try_send(());
        })?;
        Ok((Self { lines: sender.clone() }, LogGuard { lines: sender, ended }))
    }

    fn send(&self, line: Vec<u8>) {
        if self.lines.try_send(Message::Line(line)).is_err() {
            ::metrics::counter!("echo_log_lines_dropped_total").increment(1);
        }
    }
}

/// The formatter hands over each event in one piece.
impl Write for LogLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.send(line.to_owned());
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

/// A line that cannot be written has nowhere else to go, hence the silence about errors.
fn write_lines(lines: &Receiver<Message>, output: impl Write) {
    let mut output = BufWriter::new(output);
    loop {
        let message = match lines.try_recv() {
            // Nothing waits: now is the time to show what is there.
            Err(TryRecvError::Empty) => {
                let _ = output.flush();
                let first = lines.recv().ok();
                if let Some(Message::Line(_)) = first {
                    // Being woken for every line costs the requests more than writing it: let some gather.
                    std::thread::sleep(Duration::from_millis(limits::LOG_GATHER_MS));
                }
                first
            }
            message => message.ok(),
        };
        match message {
            Some(Message::Line(line)) => {
                let _ = output.write_all(&line);
            }
            Some(Message::End) | None => break,
        }
    }
    let _ = output.flush();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier, Mutex};

    #[derive(Clone, Default)]
    pub(super) struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        pub(super) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_guard_writes_all_that_was_logged() {
        let written = Written::default();
        let (lines, guard) = LogLines::start(written.clone(), 10_000).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(JsonLines::new(lines)), || {
            for number in 0..5_000 {
                tracing::info!(number, request_id = "abc", "a line");
            }
        });
        drop(guard);
        let text = written.text();
        let numbers = text.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!((&line["message"], &line["request_id"], &line["level"]), (&"a line".into(), &"abc".into(), &"INFO".into()));
            line["number"].as_u64().unwrap()
        });
        assert!(numbers.eq(0..5_000));
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
        let (mut lines, guard) = LogLines::start(Stuck(barrier.clone(), written.clone()), 4).unwrap();
        for number in 0..100 {
            // More than the output's buffer, so that the thread has to write.
            lines.write_all(format!("{number:09999}\n").as_bytes()).unwrap();
        }
        barrier.wait();
        drop(guard);
        let count = written.text().lines().count();
        assert!((1..=5).contains(&count), "{count} lines went through a queue of 4");
    }

    #[test]
    fn metrics_are_rendered_with_their_buckets() {
        metrics();
        ::metrics::counter!("echo_test_total", "kind" => "one").increment(3);
        ::metrics::histogram!("echo_test_duration_seconds").record(0.003);
        let text = render_metrics();
        assert!(text.contains("echo_test_total{kind=\"one\"} 3"), "{text}");
        assert!(text.contains("echo_test_duration_seconds_bucket{le=\"0.0025\"} 0"), "{text}");
        assert!(text.contains("echo_test_duration_seconds_bucket{le=\"0.005\"} 1"), "{text}");
    }
}
