//! One client's connection below hyper: lets the answers of several connections leave together, times out a client that reads nothing, holds its permit
//! (`connection_limits`), and closes without losing the last answer. Knows no HTTP but how an answer begins.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use super::connection_limits::ConnectionPermit;
use super::framing::{AmbiguousLengths, HeadScanner};
use echo_base::limits;

/// Plain or encrypted.
pub type TransportStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// How a client of HTTP/2 begins (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Read at once before it is known what the client speaks, in bytes.
const FIRST_READ_BYTES: usize = 1024;
const HEAD_END: &[u8] = b"\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// A stream of bytes for hyper to serve HTTP on.
pub struct HttpConnection {
    stream: TransportStream,
    /// Held until the stream is dropped, also after an upgrade.
    _permit: ConnectionPermit,
    shutdown: CancellationToken,
    /// Read while finding out the protocol, and not given to hyper yet.
    first: Vec<u8>,
    /// Of HTTP/1.1.
    lines: HeadScanner,
    /// The client has closed its side.
    is_read: bool,
    /// Something was read and nothing written since.
    is_answer_held: bool,
    /// HTTP/1.1 is spoken: see `kept_back`.
    is_http1: bool,
    /// A WebSocket: the hub has its own rules for slow readers.
    is_upgraded: bool,
    kept_back: Option<Box<KeptBack>>,
    stall_timeout: Duration,
    /// Runs while the client takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
    lingering: Option<Lingering>,
}

/// An answer that hyper seems to have made itself, to bytes that are no request. It is certain when hyper closes the connection after it; until then, for
/// `BARE_ANSWER_KEPT_MS` at most, it is not sent, so that `bare_answer` can send a problem in its place.
struct KeptBack {
    bytes: Vec<u8>,
    until: Pin<Box<Sleep>>,
}

/// After the last answer: what the client still sends is read and dropped.
struct Lingering {
    until: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl HttpConnection {
    /// `shutdown`: once it is cancelled, closing does not wait for the client. `stall_timeout`: for how long a client may take no byte of an answer.
    pub fn new(stream: TransportStream, permit: ConnectionPermit, shutdown: CancellationToken, stall_timeout: Duration) -> Self {
        Self {
            stream,
            _permit: permit,
            shutdown,
            first: Vec::new(),
            lines: HeadScanner::default(),
            is_read: false,
            is_answer_held: false,
            is_http1: true,
            is_upgraded: false,
            kept_back: None,
            stall_timeout,
            stall: None,
            lingering: None,
        }
    }

    /// The client's protocol: from ALPN with TLS, else from its first bytes.
    pub async fn protocol(&mut self) -> io::Result<Protocol> {
        let agreed = match &self.stream {
            Either::Right(tls) => tls.get_ref().1.alpn_protocol().map(|protocol| protocol == b"h2"),
            Either::Left(_) => None,
        };
        let is_http2 = match agreed {
            Some(is_http2) => is_http2,
            None => std::future::poll_fn(|cx| self.poll_preface(cx)).await?,
        };
        self.is_http1 = !is_http2;
        Ok(if is_http2 { Protocol::Http2 } else { Protocol::Http1 })
    }

    /// Whether a request says twice how long it is.
    pub fn ambiguous(&self) -> AmbiguousLengths {
        self.lines.ambiguous()
    }

    fn poll_preface(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            let known = self.first.len().min(HTTP2_PREFACE.len());
            if self.first[..known] != HTTP2_PREFACE[..known] {
                return Poll::Ready(Ok(false));
            }
            if known == HTTP2_PREFACE.len() {
                return Poll::Ready(Ok(true));
            }
            let mut bytes = [0; FIRST_READ_BYTES];
            let mut bytes = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut bytes))?;
            if bytes.filled().is_empty() {
                return Poll::Ready(Ok(false));
            }
            self.first.extend(bytes.filled());
        }
    }

    /// The status of the answer that is kept back.
    pub fn status_kept_back(&self) -> Option<u16> {
        let kept_back = self.kept_back.as_ref()?;
        std::str::from_utf8(kept_back.bytes.get(9..12)?).ok()?.parse().ok()
    }

    /// Sends the answer that was kept back, or another in its place, and ends the connection.
    pub async fn end_with(mut self, instead: Option<&[u8]>) -> io::Result<()> {
        let Some(kept_back) = self.kept_back.take() else { return Ok(()) };
        self.is_http1 = false;
        self.write_all(instead.unwrap_or(&kept_back.bytes)).await?;
        self.flush().await?;
        self.shutdown().await
    }

    /// Yields once before an answer is written, so that requests which are ready are answered first and their answers leave together: a client with many
    /// connections is then woken once for all of them.
    fn let_others_answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !std::mem::take(&mut self.is_answer_held) {
            return Poll::Ready(());
        }
        pin!(tokio::task::yield_now()).poll(cx)
    }

    fn keep_back(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        let mut until = Box::pin(tokio::time::sleep(Duration::from_millis(limits::BARE_ANSWER_KEPT_MS)));
        // hyper looks at the connection again by then.
        let _ = until.as_mut().poll(cx);
        self.kept_back = Some(Box::new(KeptBack { bytes: bytes.to_vec(), until }));
    }

    fn poll_let_go(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(kept_back) = &mut self.kept_back {
            let written = Pin::new(&mut self.stream).poll_write(cx, &kept_back.bytes);
            let count = match written {
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.or_stalled(cx, Poll::Pending),
            };
            kept_back.bytes.drain(..count);
            if kept_back.bytes.is_empty() {
                self.kept_back = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Errors: `TimedOut` when the client has taken nothing for too long.
    fn or_stalled<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stall = None;
            return outcome;
        }
        if self.is_upgraded {
            return Poll::Pending;
        }
        let stall_timeout = self.stall_timeout;
        ready!(self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall_timeout))).as_mut().poll(cx));
        metrics::counter!("echo_http_slow_readers_total").increment(1);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Where an answer begins that hyper made itself, if the bytes end with one: the gateway's own all have an id.
fn bare_answer_in(bytes: &[u8]) -> Option<usize> {
    if !bytes.ends_with(HEAD_END) {
        return None;
    }
    let contains = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|part| part == what);
    let begin = bytes.windows(10).rposition(|part| part == b"HTTP/1.1 4")?;
    let head = &bytes[begin..bytes.len() - HEAD_END.len()];
    (!contains(head, HEAD_END) && !contains(head, b"\r\nx-request-id: ")).then_some(begin)
}

impl AsyncRead for HttpConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let count = buffer.remaining().min(self.first.len());
            buffer.put_slice(&self.first[..count]);
            let Self { lines, first, is_http1, .. } = &mut *self;
            if *is_http1 {
                lines.read(&first[..count]);
            }
            first.drain(..count);
            if self.first.is_empty() {
                self.first = Vec::new();
            }
            self.is_answer_held = true;
            return Poll::Ready(Ok(()));
        }
        let (filled, room) = (buffer.filled().len(), buffer.remaining());
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.is_read |= room > 0 && buffer.filled().len() == filled;
        if self.is_http1 && !self.is_upgraded {
            self.lines.read(&buffer.filled()[filled..]);
        }
        self.is_answer_held = true;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HttpConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.let_others_answer(cx));
        let this = &mut *self;
        ready!(this.poll_let_go(cx))?;
        if this.is_http1 && !this.is_upgraded {
            this.is_upgraded = bytes.starts_with(b"HTTP/1.1 101 ");
            match bare_answer_in(bytes) {
                Some(0) => {
                    this.keep_back(cx, bytes);
                    return Poll::Ready(Ok(bytes.len()));
                }
                Some(begin) => bytes = &bytes[..begin],
                None => {}
            }
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.or_stalled(cx, written)
    }

    /// For HTTP/2 and upgraded connections alone; HTTP/1.1's answers come in one piece.
    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.let_others_answer(cx));
        let this = &mut *self;
        ready!(this.poll_let_go(cx))?;
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.or_stalled(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(kept_back) = &mut this.kept_back
            && kept_back.until.as_mut().poll(cx).is_ready()
        {
            // hyper keeps the connection open: it was the answer to a request.
            ready!(this.poll_let_go(cx))?;
        }
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.or_stalled(cx, flushed)
    }

    /// Closing over unread bytes resets the connection, and a client that is still sending a refused body would never read why
    /// (RFC 9112, section 9.6). So the rest is read and thrown away, within bounds.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.kept_back.is_some() {
            // The server ends it, see `end_with`.
            return Poll::Ready(Ok(()));
        }
        if this.lingering.is_none() {
            let ended = Pin::new(&mut this.stream).poll_shutdown(cx);
            ready!(this.or_stalled(cx, ended))?;
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

    use super::super::connection_limits::ConnectionLimits;

    async fn pair(stall_timeout: Duration) -> (TcpStream, HttpConnection) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let permit = ConnectionLimits::new(1, 1).take(peer.ip()).ok().unwrap();
        (client, HttpConnection::new(Either::Left(stream), permit, CancellationToken::new(), stall_timeout))
    }

    /// On the test's one thread nothing runs beside it unless it lets others go first.
    #[tokio::test]
    async fn an_answer_waits_for_those_that_are_ready_and_its_rest_does_not() {
        let (mut client, mut connection) = pair(Duration::from_secs(10)).await;
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

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_let_go_and_a_slow_one_is_not() {
        let (mut client, mut connection) = pair(Duration::from_millis(200)).await;
        let reading = tokio::spawn(async move {
            // Slow: the whole takes longer than the time-out, but something goes on all the time.
            let (mut bytes, mut count) = (vec![0; 64 * 1024], 0);
            while count < 4 * 1024 * 1024 {
                count += client.read(&mut bytes).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            client
        });
        let begun_at = tokio::time::Instant::now();
        connection.write_all(&vec![b'x'; 4 * 1024 * 1024]).await.expect("it reads");
        let _client = reading.await.unwrap();
        let endless = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                connection.write_all(&[b'x'; 64 * 1024]).await?;
            }
        });
        let Err(error): io::Result<()> = endless.await.expect("it is let go") else { unreachable!() };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun_at.elapsed() > Duration::from_millis(200));
    }

    #[test]
    fn an_answer_of_hyper_itself_is_known_from_the_others() {
        let bare = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let ours = b"HTTP/1.1 404 Not Found\r\nx-request-id: r\r\n\r\n";
        assert_eq!(bare_answer_in(bare), Some(0));
        assert_eq!(bare_answer_in(ours), None);
        assert_eq!(bare_answer_in(&[&ours[..], bare].concat()), Some(ours.len()));
        assert_eq!(bare_answer_in(&[&bare[..], b"{}"].concat()), None);
        assert_eq!(bare_answer_in(b"HTTP/1.1 204 No Content\r\n\r\n"), None);
        assert_eq!(bare_answer_in(b"\r\n\r\n"), None);
    }

    /// What looks like one and is not comes to its reader all the same, a moment later.
    #[tokio::test]
    async fn an_answer_that_was_kept_back_for_nothing_leaves() {
        let (mut client, mut connection) = pair(Duration::from_secs(10)).await;
        let bare = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        connection.write_all(bare).await.unwrap();
        connection.write_all(b"more").await.unwrap();
        connection.write_all(bare).await.unwrap();
        let flushing = tokio::spawn(async move {
            while connection.kept_back.is_some() {
                connection.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
            connection
        });
        let mut read = vec![0; 2 * bare.len() + 4];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(read, [&bare[..], b"more", bare].concat());
        drop(flushing.await.unwrap());
    }
}
