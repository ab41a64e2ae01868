//! Writes a component's standard output and error to the log, line by line: made readable, and at most `GUEST_STDOUT_LINES_PER_S_MAX` a
//! second, because all services share the log.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::log::readable;

#[derive(Clone)]
pub struct LogLines {
    service: ServiceName,
    unfinished: Vec<u8>,
    /// Of all streams of the instance.
    rate: Arc<Mutex<LineRate>>,
}

/// Lines of the current second.
struct LineRate {
    since: Instant,
    count: u32,
}

impl LogLines {
    pub fn new(service: ServiceName) -> Self {
        Self { service, unfinished: Vec::new(), rate: Arc::new(Mutex::new(LineRate { since: Instant::now(), count: 0 })) }
    }

    fn log(&mut self) {
        if self.rate.lock().allows(Instant::now()) {
            let line = String::from_utf8_lossy(&self.unfinished);
            let line = readable(line.trim_end(), limits::LOG_MESSAGE_BYTES_MAX);
            tracing::info!(target: "guest", service = %self.service, "{line}");
        } else {
            metrics::counter!("echo_service_log_lines_dropped_total", "service" => self.service.to_string()).increment(1);
        }
        self.unfinished.clear();
    }
}

impl LineRate {
    fn allows(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= limits::GUEST_STDOUT_LINES_PER_S_MAX
    }
}

impl IsTerminal for LogLines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogLines {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Self { unfinished: Vec::new(), ..self.clone() })
    }
}

impl AsyncWrite for LogLines {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        for &byte in bytes {
            self.unfinished.push(byte);
            if byte == b'\n' || self.unfinished.len() >= limits::LOG_MESSAGE_BYTES_MAX {
                self.log();
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unfinished.is_empty() {
            self.log();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_second_and_no_more() {
        let begin = Instant::now();
        let mut rate = LineRate { since: begin, count: 0 };
        let allowed = |rate: &mut LineRate, at: Instant| (0..1_000).filter(|_| rate.allows(at)).count();
        assert_eq!(allowed(&mut rate, begin), limits::GUEST_STDOUT_LINES_PER_S_MAX as usize);
        assert_eq!(allowed(&mut rate, begin + Duration::from_millis(999)), 0);
        assert_eq!(allowed(&mut rate, begin + Duration::from_secs(1)), limits::GUEST_STDOUT_LINES_PER_S_MAX as usize);
    }
}
