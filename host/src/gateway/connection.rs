//! One client's connection: its place among the open ones, and an end that does not swallow the last answer. Knows no HTTP.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use crate::limits;

pub struct Connection {
    stream: TcpStream,
    /// Free again when the stream is dropped, also after an upgrade.
    _place: OwnedSemaphorePermit,
    shutdown: CancellationToken,
    /// The client has said all it had to say.
    is_read: bool,
    lingering: Option<Lingering>,
}

/// Reading on, after the last answer, what the client had begun to send.
struct Lingering {
    until: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl Connection {
    /// `shutdown`: from then on nobody is waited for at the end.
    pub fn new(stream: TcpStream, place: OwnedSemaphorePermit, shutdown: CancellationToken) -> Self {
        Self { stream, _place: place, shutdown, is_read: false, lingering: None }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (filled, room) = (buffer.filled().len(), buffer.remaining());
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.is_read |= room > 0 && buffer.filled().len() == filled;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Closing over unread bytes resets the connection, and whoever is still sending a body that was refused would never read why
    /// (RFC 9112, section 9.6). So the rest is read and thrown away, within bounds.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if this.is_read || this.shutdown.is_cancelled() {
                return Poll::Ready(Ok(()));
            }
        }
        let lingering = this.lingering.get_or_insert_with(|| Lingering {
            until: Box::pin(tokio::time::sleep(Duration::from_millis(limits::LINGER_MS))),
            bytes_left: limits::LINGER_BYTES_MAX,
        });
        let mut rest = [0; 8 * 1024];
        while lingering.bytes_left > 0 && lingering.until.as_mut().poll(cx).is_pending() {
            let mut rest = ReadBuf::new(&mut rest);
            // A client that is gone is as good as one that has ended.
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut rest)) {
                Ok(()) if !rest.filled().is_empty() => lingering.bytes_left = lingering.bytes_left.saturating_sub(rest.filled().len()),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
