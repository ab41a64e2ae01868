//! The outputs of the log and the metrics: formats, buckets, exporters. Knows nothing of what is logged or counted.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use json_lines::JsonLines;
pub use lines::LogGuard;
use lines::LogLines;

use crate::config::{LogConfig, LogFormat};
use echo_base::limits;

mod json_lines;
mod lines;

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
    let (lines, guard) = LogLines::start(io::stdout(), limits::LOG_QUEUE_BYTES_MAX)?;
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

/// `metrics().render()` as a plain function.
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

    /// Aggregates the histograms' samples until `shutdown`; without it they would grow between two scrapes.
    pub async fn upkeep(&self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(Duration::from_millis(limits::METRICS_UPKEEP_INTERVAL_MS));
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            self.handle.run_upkeep();
        }
    }
}

/// Upper ends of the buckets for durations, from the calls within the process to the longest request.
const SECONDS: [f64; 16] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

#[cfg(test)]
mod tests {
    use super::*;

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
