//! The listener: accepts connections, encrypted or plain, speaks HTTP/1.1 and HTTP/2 on them, hands upgraded ones over, and ends in order.
//! Knows no routes.
//!
//! Its own loop instead of `axum::serve`: small buffers, bounds on open connections that count upgraded ones too, a time for a request's head
//! and for reading an answer, and an end that waits for requests in flight but not for ever.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use http::StatusCode;
use http::header::TRANSFER_ENCODING;
use hyper::rt::Timer;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answering::{Answering, End};
use super::bare_answer::BareAnswer;
use super::connection::{HttpConnection, Protocol};
use super::connection_limits::{ConnectionLimits, ConnectionPermit, LimitReached};
use super::framing::{AmbiguousLength, AmbiguousLengths};
use super::head_timer::HeadTimer;
use super::http2::{self, Http2Bounds};
use super::tls::Tls;
use super::{PeerAddress, Problem};
use echo_base::limits;

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeOutcome {
    /// Connections whose requests were still running when the time for draining was over.
    pub cut_count: usize,
}

/// How connections are taken.
#[derive(Clone)]
pub struct ServerSettings {
    pub connections_max: usize,
    /// Of one IPv4 address or one /64 of IPv6.
    pub connections_per_address_max: usize,
    /// How long requests in flight may still run at the end.
    pub drain_timeout: Duration,
    /// A request's head, and an idle connection until its next request.
    pub header_read_timeout: Duration,
    /// For how long a client may take no byte of an answer.
    pub stall_timeout: Duration,
    pub http2: Http2Bounds,
    /// Every connection is encrypted.
    pub tls: Option<Arc<Tls>>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_address_max: limits::CONNECTIONS_PER_ADDRESS_MAX,
            drain_timeout: Duration::from_millis(limits::DRAIN_TIMEOUT_MS),
            header_read_timeout: Duration::from_millis(limits::HEADER_READ_TIMEOUT_MS),
            stall_timeout: Duration::from_millis(limits::WRITE_STALL_MS),
            http2: Http2Bounds::default(),
            tls: None,
        }
    }
}

/// Serves until `shutdown`, then takes no more connections, lets requests in flight finish, and cuts after the time for draining what is left.
/// Upgraded connections are their handler's to end; they are not waited for here.
pub async fn serve(listener: TcpListener, router: impl Answering, settings: ServerSettings, shutdown: CancellationToken) -> ServeOutcome {
    let mut http1 = http1::Builder::new();
    http1.header_read_timeout(settings.header_read_timeout).max_buf_size(limits::HTTP_BUFFER_BYTES_MAX);
    // Copying an answer behind its head costs less than the kernel's way with two pieces.
    http1.writev(false);
    let connection_limits = ConnectionLimits::new(settings.connections_max, settings.connections_per_address_max);
    let refusals = Arc::new(Semaphore::new(limits::REFUSALS_MAX));
    let (tasks, cut, cut_count) = (TaskTracker::new(), CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // A connection that ended before it was accepted, or no file descriptor left: the second passes only with time.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let permit = match connection_limits.take(peer.ip()) {
            Ok(permit) => permit,
            Err(limit) => {
                metrics::counter!("echo_http_connections_refused_total").increment(1);
                // A few at a time are answered; the others, and all where a TLS handshake would come first, are just closed.
                if let (Ok(turn), None) = (refusals.clone().try_acquire_owned(), &settings.tls) {
                    tasks.spawn(async move {
                        refuse(stream, limit).await;
                        drop(turn);
                    });
                }
                continue;
            }
        };
        // Small answers must not wait for an acknowledgement (Nagle); a socket that cannot do it still works.
        let _ = stream.set_nodelay(true);
        let serving = Serving {
            router: router.clone(),
            http1: http1.clone(),
            settings: settings.clone(),
            tasks: tasks.clone(),
            // A token of its own: every poll of the connection takes its lock.
            shutdown: shutdown.child_token(),
            cut: cut.clone(),
            peer,
        };
        let cut_count = cut_count.clone();
        tasks.spawn(async move {
            if serving.run(stream, permit).await == End::Cut {
                cut_count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // No connection is accepted from here on.
    drop(listener);
    tasks.close();
    if tokio::time::timeout(settings.drain_timeout, tasks.wait()).await.is_err() {
        cut.cancel();
        tasks.wait().await;
    }
    ServeOutcome { cut_count: cut_count.load(Ordering::Relaxed) }
}

/// Answers a connection beyond the limits with the reason, for a moment at the most.
async fn refuse(mut stream: TcpStream, limit: LimitReached) {
    let again = Duration::from_millis(limits::REFUSAL_RETRY_MS);
    let problem = match limit {
        LimitReached::Total => Problem::unavailable("connections_full", "this host has as many connections as it takes", again),
        LimitReached::OfAddress => {
            let detail = "there are as many connections from this address as one may have";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_connections", detail).retry_after(again)
        }
    };
    let answer = BareAnswer::new(problem);
    let said = tokio::time::timeout(Duration::from_millis(limits::REFUSAL_MS), async {
        stream.write_all(&answer.bytes).await?;
        stream.shutdown().await?;
        // Closing over unread bytes would take the answer away.
        tokio::io::copy(&mut (&mut stream).take(limits::HTTP_BUFFER_BYTES_MAX as u64), &mut tokio::io::sink()).await
    });
    // A client that does not read its refusal is not waited for.
    let _ = said.await;
}

/// Serves one connection: the TLS handshake where there is TLS, then HTTP/1.1 or HTTP/2.
struct Serving<R> {
    router: R,
    http1: http1::Builder,
    settings: ServerSettings,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    cut: CancellationToken,
    peer: SocketAddr,
}

impl<R: Answering> Serving<R> {
    async fn run(self, stream: TcpStream, permit: ConnectionPermit) -> End {
        let stream = match &self.settings.tls {
            None => Either::Left(stream),
            Some(tls) => match self.shutdown.run_until_cancelled(tls.accept(stream)).await {
                Some(Ok(stream)) => Either::Right(Box::new(stream)),
                Some(Err(error)) => {
                    tracing::debug!(%error, peer = %self.peer, "a TLS handshake failed");
                    metrics::counter!("echo_tls_handshakes_failed_total").increment(1);
                    return End::Orderly;
                }
                None => return End::Orderly,
            },
        };
        let mut connection = HttpConnection::new(stream, permit, self.shutdown.clone(), self.settings.stall_timeout);
        let timer = HeadTimer::default();
        let protocol = tokio::select! {
            biased;
            protocol = connection.protocol() => protocol,
            () = self.shutdown.cancelled() => return End::Orderly,
            () = timer.sleep_until(Instant::now() + self.settings.header_read_timeout) => return End::Orderly,
        };
        match protocol {
            Ok(Protocol::Http1) => self.http1(connection, timer).await,
            Ok(Protocol::Http2) => {
                let call = caller(self.router, self.peer, None);
                http2::serve::<R>(connection, self.tasks, self.settings.http2, call, self.shutdown, self.cut).await
            }
            Err(_) => End::Orderly,
        }
    }

    async fn http1(mut self, connection: HttpConnection, timer: HeadTimer) -> End {
        self.http1.timer(timer);
        let service = service_fn(caller(self.router, self.peer, Some(connection.ambiguous())));
        let mut served = self.http1.serve_connection(TokioIo::new(connection), service).with_upgrades();
        // What ends a connection (a client that went away, a head that is none) concerns that client alone; requests are logged by the edge.
        let ended = tokio::select! {
            ended = &mut served => Some(ended),
            () = self.shutdown.cancelled() => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                Pin::new(&mut served).graceful_shutdown();
                tokio::select! {
                    ended = &mut served => ended,
                    () = self.cut.cancelled() => return End::Cut,
                }
            }
        };
        let is_unreadable = ended.is_err_and(|error| error.is_parse());
        if let Some(connection) = served.into_parts().map(|parts| parts.io.into_inner())
            && let Some(status) = connection.status_kept_back()
        {
            let instead = is_unreadable.then(|| unreadable(status, self.peer));
            // The client may have gone away; then nobody misses the answer.
            let _ = self.cut.run_until_cancelled(connection.end_with(instead.as_deref())).await;
        }
        End::Orderly
    }
}

/// Hands a connection's requests to what answers them. The router is borrowed for the moment of a call; a connection makes one at a time.
fn caller<R: Answering>(
    router: R,
    peer: SocketAddr,
    ambiguous: Option<AmbiguousLengths>,
) -> impl Fn(http::Request<hyper::body::Incoming>) -> R::Future + Send + Unpin + 'static {
    let router = RefCell::new(router);
    move |mut request| {
        request.extensions_mut().insert(PeerAddress(peer));
        if let Some(ambiguous) = &ambiguous
            && request.headers().contains_key(TRANSFER_ENCODING)
            && ambiguous.take()
        {
            request.extensions_mut().insert(AmbiguousLength);
        }
        router.borrow_mut().call(request.map(Body::new))
    }
}

/// Our own words for what hyper refused with this status.
fn unreadable(status: u16, peer: SocketAddr) -> Vec<u8> {
    let (status, answer) = BareAnswer::to_unreadable(status);
    metrics::counter!("echo_http_unreadable_total", "status" => status.as_str().to_owned()).increment(1);
    tracing::info!(request_id = &*answer.request_id, peer = %peer.ip(), status = status.as_u16(), "what came is no request");
    answer.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    use axum::Router;
    use axum::extract::Extension;
    use axum::routing::{get, post};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    const PATIENCE: Duration = Duration::from_secs(10);

    struct Running {
        address: SocketAddr,
        shutdown: CancellationToken,
        served: JoinHandle<ServeOutcome>,
    }

    async fn start(router: Router, drain_timeout: Duration, connections_max: usize) -> Running {
        start_with(router, ServerSettings { connections_max, drain_timeout, ..ServerSettings::default() }).await
    }

    async fn start_with(router: Router, settings: ServerSettings) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let served = tokio::spawn(serve(listener, router, settings, shutdown.clone()));
        Running { address, shutdown, served }
    }

    impl Running {
        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        /// Waits until one more connection is admitted.
        async fn admits(&self) {
            let admitted = tokio::time::timeout(PATIENCE, async {
                loop {
                    let mut next = self.connect().await;
                    send(&mut next, "/nothing").await;
                    let mut status = [0; 12];
                    if next.read_exact(&mut status).await.is_ok() && &status == b"HTTP/1.1 404" {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
            admitted.await.expect("a closed connection makes room");
        }

        async fn ended(self) -> ServeOutcome {
            tokio::time::timeout(PATIENCE, self.served).await.expect("serving ends").unwrap()
        }
    }

    async fn send(stream: &mut TcpStream, path: &str) {
        // Who is refused may be gone before it has said anything.
        let _ = stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await;
    }

    /// All up to the end of the stream.
    async fn read_all(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("the stream ends").unwrap();
        String::from_utf8(text).unwrap()
    }

    /// A handler that says when it has begun and waits until it may end.
    fn slow(begun: Arc<Notify>, go_on: Arc<Notify>) -> Router {
        Router::new().route(
            "/slow",
            get(async move || {
                begun.notify_one();
                go_on.notified().await;
                "finished"
            }),
        )
    }

    #[tokio::test]
    async fn the_peer_address_is_known() {
        let router = Router::new().route("/", get(async |Extension(PeerAddress(peer)): Extension<PeerAddress>| peer.to_string()));
        let running = start(router, PATIENCE, 10).await;
        let mut stream = running.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        assert!(read_all(&mut stream).await.ends_with(&stream.local_addr().unwrap().to_string()));
    }

    #[tokio::test]
    async fn shutdown_finishes_a_running_request_and_closes_idle_connections() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let running = start(slow(begun.clone(), go_on.clone()), PATIENCE, 10).await;
        let (mut busy, mut idle) = (running.connect().await, running.connect().await);
        send(&mut busy, "/slow").await;
        begun.notified().await;
        let address = running.address;
        running.shutdown.cancel();
        assert_eq!(read_all(&mut idle).await, "");
        assert!(!running.served.is_finished());
        go_on.notify_one();
        assert!(read_all(&mut busy).await.ends_with("finished"));
        assert_eq!(running.ended().await, ServeOutcome { cut_count: 0 });
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    }

    #[tokio::test]
    async fn what_does_not_end_in_time_is_cut() {
        let begun = Arc::new(Notify::new());
        let running = start(slow(begun.clone(), Arc::default()), Duration::from_millis(20), 10).await;
        let mut stream = running.connect().await;
        send(&mut stream, "/slow").await;
        begun.notified().await;
        running.shutdown.cancel();
        assert_eq!(running.ended().await, ServeOutcome { cut_count: 1 });
        assert_eq!(read_all(&mut stream).await, "");
    }

    #[tokio::test]
    async fn connections_over_the_bound_are_told_so_and_later_ones_find_room() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let running = start(slow(begun.clone(), go_on.clone()), PATIENCE, 1).await;
        let mut first = running.connect().await;
        send(&mut first, "/slow").await;
        begun.notified().await;
        let refused = read_all(&mut running.connect().await).await;
        assert_refused(&refused, "503 Service Unavailable", "connections_full");
        drop(first);
        running.admits().await;
    }

    #[tokio::test]
    async fn connections_of_one_address_have_a_bound() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let settings = ServerSettings { connections_per_address_max: 1, ..ServerSettings::default() };
        let running = start_with(slow(begun.clone(), go_on.clone()), settings).await;
        let mut first = running.connect().await;
        send(&mut first, "/slow").await;
        begun.notified().await;
        let refused = read_all(&mut running.connect().await).await;
        assert_refused(&refused, "429 Too Many Requests", "too_many_connections");
        drop(first);
        running.admits().await;
    }

    #[track_caller]
    fn assert_refused(answer: &str, status: &str, code: &str) {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], code);
        for line in ["retry-after: 5", "content-type: application/problem+json", "connection: close"] {
            assert!(head.lines().any(|found| found == line), "{line} is missing in {head}");
        }
    }

    #[tokio::test]
    async fn who_does_not_end_a_head_in_time_is_let_go() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let router = slow(begun.clone(), go_on.clone()).route("/", get(async || "answered"));
        let settings = ServerSettings { header_read_timeout: Duration::from_millis(300), ..ServerSettings::default() };
        let running = start_with(router, settings).await;
        let whole = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let (mut waiting, mut first, mut second, mut drop_by_drop) =
            (running.connect().await, running.connect().await, running.connect().await, running.connect().await);
        // What counts is the head: an answer may take longer.
        send(&mut waiting, "/slow").await;
        begun.notified().await;
        first.write_all(&whole.as_bytes()[..20]).await.unwrap();
        second.write_all(whole.as_bytes()).await.unwrap();
        second.write_all(&whole.as_bytes()[..20]).await.unwrap();
        let dripping = async {
            // Nobody is kept by a header that grows and grows.
            while drop_by_drop.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let (first, second, ()) = tokio::join!(read_all(&mut first), read_all(&mut second), async {
            tokio::time::timeout(PATIENCE, dripping).await.expect("it is let go");
        });
        assert_eq!(first, "");
        assert!(second.ends_with("answered") && second.matches("HTTP/1.1").count() == 1, "{second}");
        go_on.notify_one();
        let mut answer = [0; 12];
        tokio::time::timeout(PATIENCE, waiting.read_exact(&mut answer)).await.expect("an answer").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }

    /// Answers without reading the body.
    fn refusing() -> Router {
        Router::new().route("/", post(async || (StatusCode::PAYLOAD_TOO_LARGE, "too much")))
    }

    #[tokio::test]
    async fn who_is_still_sending_hears_why_it_is_refused() {
        let running = start(refusing(), PATIENCE, 10).await;
        let body = vec![b'x'; 8 * 1024 * 1024];
        let mut stream = running.connect().await;
        let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.expect("nobody hangs up on who is still talking");
        assert!(read_all(&mut stream).await.ends_with("too much"));
    }

    #[tokio::test]
    async fn who_never_ends_is_not_waited_for() {
        let running = start(refusing(), PATIENCE, 1).await;
        let mut endless = running.connect().await;
        endless.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx").await.unwrap();
        assert!(read_all(&mut endless).await.ends_with("too much"));
        // It is the only connection allowed.
        running.admits().await;
    }

    #[tokio::test]
    async fn what_is_no_request_is_answered_with_a_problem() {
        let running = start(Router::new().route("/", get(async || "answered")), PATIENCE, 10).await;
        let good = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
        // What a read brings beyond the bound is still looked at.
        let long = "x".repeat(4 * limits::HTTP_BUFFER_BYTES_MAX);
        for (request, status, code) in [
            ("nonsense\r\n\r\n".to_owned(), 400, "unreadable"),
            ("GET / HTTP/9.9\r\nhost: x\r\n\r\n".to_owned(), 400, "unreadable"),
            ("GET / HTTP/1.1\r\nhost : x\r\n\r\n".to_owned(), 400, "unreadable"),
            ("GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx".to_owned(), 400, "unreadable"),
            ("GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_owned(), 400, "unreadable"),
            ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_owned(), 400, "unreadable"),
            (format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"), 431, "head_too_large"),
            (format!("GET / HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n"), 431, "head_too_large"),
            (format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"), 431, "head_too_large"),
        ] {
            // Alone, behind another, and behind another at once.
            for before in ["", good] {
                let mut stream = running.connect().await;
                stream.write_all(format!("{before}{request}").as_bytes()).await.unwrap();
                let mut answers = Vec::new();
                let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answers)).await;
                let answers = String::from_utf8(answers).unwrap();
                read.unwrap_or_else(|_| panic!("no end after {:?}: {answers:?}", &request[..40.min(request.len())])).unwrap();
                assert_eq!(answers.matches("answered").count(), usize::from(!before.is_empty()), "{answers}");
                let problem = &answers[answers.rfind("HTTP/1.1 ").unwrap()..];
                assert!(problem.starts_with(&format!("HTTP/1.1 {status} ")), "{problem}");
                let (head, body) = problem.split_once("\r\n\r\n").unwrap();
                let body: serde_json::Value = serde_json::from_str(body).unwrap();
                assert_eq!((body["code"].as_str(), body["status"].as_u64()), (Some(code), Some(status)));
                assert!(head.contains(&format!("x-request-id: {}", body["request_id"].as_str().unwrap())), "{head}");
            }
        }
    }

    #[tokio::test]
    async fn who_does_not_read_its_answer_is_let_go() {
        let router = Router::new().route("/", get(async || vec![b'x'; 32 * 1024 * 1024]));
        let settings = ServerSettings { connections_max: 1, stall_timeout: Duration::from_millis(300), ..ServerSettings::default() };
        let running = start_with(router, settings).await;
        let mut stream = running.connect().await;
        send(&mut stream, "/").await;
        running.admits().await;
        drop(stream);
    }
}
