//! The listener: accepts connections, speaks HTTP/1.1 on them, hands upgraded ones over, and ends in order. Knows no routes.
//!
//! Its own loop instead of `axum::serve`: small buffers, a bound on open connections that counts upgraded ones too, a time for a
//! request's head, and an end that waits for requests in flight but not for ever.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::PeerAddress;
use super::connection::Connection;
use super::head_timer::HeadTimer;
use crate::limits;

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeOutcome {
    /// Connections whose requests were still running when the time for draining was over.
    pub cut_count: usize,
}

/// What answers requests: the gateway's `router`, or one of axum's. Always ready.
pub trait Answering: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static {}

impl<S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static> Answering for S {}

/// Serves until `shutdown`, then takes no more connections, lets requests in flight finish, and cuts after `drain_timeout` what is left.
/// Upgraded connections are their handler's to end; they are not waited for here.
pub async fn serve(listener: TcpListener, router: impl Answering, shutdown: CancellationToken, drain_timeout: Duration) -> ServeOutcome {
    serve_bounded(listener, router, shutdown, drain_timeout, Bounds::default()).await
}

/// What a test may choose.
struct Bounds {
    connections_max: usize,
    header_read_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections_max: limits::CONNECTIONS_MAX, header_read_timeout: Duration::from_millis(limits::HEADER_READ_TIMEOUT_MS) }
    }
}

async fn serve_bounded(
    listener: TcpListener,
    router: impl Answering,
    shutdown: CancellationToken,
    drain_timeout: Duration,
    bounds: Bounds,
) -> ServeOutcome {
    let mut http = http1::Builder::new();
    http.header_read_timeout(bounds.header_read_timeout).max_buf_size(limits::HTTP_BUFFER_BYTES_MAX);
    // Copying an answer behind its head costs less than the kernel's way with two pieces.
    http.writev(false);
    let room = Arc::new(Semaphore::new(bounds.connections_max));
    let (connections, cut, cut_count) = (TaskTracker::new(), CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
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
        // Full: closed at once, so that a balancer tries elsewhere instead of waiting.
        let Ok(place) = room.clone().try_acquire_owned() else {
            metrics::counter!("echo_http_connections_refused_total").increment(1);
            continue;
        };
        // Small answers must not wait for an acknowledgement (Nagle); a socket that cannot do it still works.
        let _ = stream.set_nodelay(true);
        let connection = Connection::new(stream, place, shutdown.clone());
        // A token of its own: every poll of the connection takes its lock.
        let served = serve_connection(http.clone(), connection, peer, router.clone(), shutdown.child_token(), cut.clone());
        let cut_count = cut_count.clone();
        connections.spawn(async move {
            if served.await == End::Cut {
                cut_count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // Nobody new is let in from here on.
    drop(listener);
    connections.close();
    if tokio::time::timeout(drain_timeout, connections.wait()).await.is_err() {
        cut.cancel();
        connections.wait().await;
    }
    ServeOutcome { cut_count: cut_count.load(Ordering::Relaxed) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client or the protocol ended it, or it is upgraded.
    Orderly,
    Cut,
}

async fn serve_connection(
    mut http: http1::Builder,
    connection: Connection,
    peer: SocketAddr,
    router: impl Answering,
    shutdown: CancellationToken,
    cut: CancellationToken,
) -> End {
    // Borrowed for the moment of a call; HTTP/1.1 has one at a time.
    let router = RefCell::new(router);
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(PeerAddress(peer));
        router.borrow_mut().call(request.map(Body::new))
    });
    http.timer(HeadTimer::default());
    let mut served = pin!(http.serve_connection(TokioIo::new(connection), service).with_upgrades());
    // What ends a connection (a client that went away, a head that is none) concerns that client alone; requests are logged by the edge.
    tokio::select! {
        _ = served.as_mut() => return End::Orderly,
        () = shutdown.cancelled() => served.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = served => End::Orderly,
        () = cut.cancelled() => End::Cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use axum::Router;
    use axum::extract::Extension;
    use axum::routing::{get, post};
    use http::StatusCode;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    const PATIENCE: Duration = Duration::from_secs(10);

    struct Running {
        address: SocketAddr,
        shutdown: CancellationToken,
        served: JoinHandle<ServeOutcome>,
    }

    async fn start(router: Router, drain_timeout: Duration, connections_max: usize) -> Running {
        start_within(router, drain_timeout, Bounds { connections_max, ..Bounds::default() }).await
    }

    async fn start_within(router: Router, drain_timeout: Duration, bounds: Bounds) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let served = tokio::spawn(serve_bounded(listener, router, shutdown.clone(), drain_timeout, bounds));
        Running { address, shutdown, served }
    }

    impl Running {
        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        async fn ended(self) -> ServeOutcome {
            tokio::time::timeout(PATIENCE, self.served).await.expect("serving ends").unwrap()
        }
    }

    async fn send(stream: &mut TcpStream, path: &str) {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
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
    async fn connections_over_the_bound_are_closed_at_once_and_later_ones_find_room() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let running = start(slow(begun.clone(), go_on.clone()), PATIENCE, 1).await;
        let mut first = running.connect().await;
        send(&mut first, "/slow").await;
        begun.notified().await;
        assert_eq!(read_all(&mut running.connect().await).await, "");
        drop(first);
        let admitted = tokio::time::timeout(PATIENCE, async {
            loop {
                let mut next = running.connect().await;
                send(&mut next, "/nothing").await;
                let mut byte = [0];
                if next.read(&mut byte).await.is_ok_and(|count| count > 0) {
                    break;
                }
            }
        });
        admitted.await.expect("the place of a closed connection is free again");
    }

    #[tokio::test]
    async fn who_does_not_end_a_head_in_time_is_let_go() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let router = slow(begun.clone(), go_on.clone()).route("/", get(async || "answered"));
        let bounds = Bounds { header_read_timeout: Duration::from_millis(300), ..Bounds::default() };
        let running = start_within(router, PATIENCE, bounds).await;
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
        // Its place is the only one.
        let admitted = tokio::time::timeout(PATIENCE, async { while read_byte(&mut running.connect().await).await == 0 {} });
        admitted.await.expect("its place is free again");
    }

    /// How many bytes of an answer come, one at the most.
    async fn read_byte(stream: &mut TcpStream) -> usize {
        if stream.write_all(b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n").await.is_err() {
            return 0;
        }
        stream.read(&mut [0]).await.unwrap_or(0)
    }
}
