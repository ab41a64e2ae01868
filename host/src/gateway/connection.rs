//! One client's connection: its place among the open ones, answers that leave together with others', and an end that does not swallow the
//! last one. Knows no HTTP.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
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
    /// Something was read and nothing written since.
    is_answer_held: bool,
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
        Self { stream, _place: place, shutdown, is_read: false, is_answer_held: false, lingering: None }
    }

    /// The requests that are there are all answered before the answers leave: a client with many connections is woken once for all of them.
    fn let_others_answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !std::mem::take(&mut self.is_answer_held) {
            return Poll::Ready(());
        }
        pin!(tokio::task::yield_now()).poll(cx)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (filled, room) = (buffer.filled().len(), buffer.remaining());
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.is_read |= room > 0 && buffer.filled().len() == filled;
        self.is_answer_held = true;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.let_others_answer(cx));
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.let_others_answer(cx));
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

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    /// On the test's one thread nothing runs beside it unless it lets others go first.
    #[tokio::test]
    async fn an_answer_waits_for_those_that_are_ready_and_its_rest_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let mut connection = Connection::new(listener.accept().await.unwrap().0, place, CancellationToken::new());
        client.write_all(b"ab").await.unwrap();
        for _ in 0..2 {
            connection.read_u8().await.unwrap();
            let has_run = Arc::new(AtomicBool::new(false));
            let ready = |has_run: Arc<AtomicBool>| tokio::spawn(async move { has_run.store(true, Ordering::Relaxed) });
            let other = ready(has_run.clone());
            connection.write_all(b"1").await.unwrap();
            assert!(has_run.swap(false, Ordering::Relaxed), "the answer left before the other was ready");
            other.await.unwrap();
            let other = ready(has_run.clone());
            connection.write_all(b"2").await.unwrap();
            assert!(!has_run.load(Ordering::Relaxed), "once for each answer");
            other.await.unwrap();
        }
        let mut answers = [0; 4];
        client.read_exact(&mut answers).await.unwrap();
        assert_eq!(&answers, b"1212");
    }
}
