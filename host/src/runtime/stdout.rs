//! What a component writes to standard output or error goes to the log, line by line.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

use crate::limits;
use crate::names::ServiceName;

#[derive(Clone)]
pub struct LogLines {
    service: ServiceName,
    unfinished: Vec<u8>,
}

impl LogLines {
    pub fn new(service: ServiceName) -> Self {
        Self { service, unfinished: Vec::new() }
    }

    fn log(&mut self) {
        let line = String::from_utf8_lossy(&self.unfinished);
        tracing::info!(target: "guest", service = %self.service, "{}", line.trim_end());
        self.unfinished.clear();
    }
}

impl IsTerminal for LogLines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogLines {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Self::new(self.service.clone()))
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
