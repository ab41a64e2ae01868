//! HTTP/2 on one connection (RFC 9113), with bounds against clients that abuse how cheap requests are there. Knows no routes.
//!
//! Frames and their floods (CONTINUATION, PING, SETTINGS, resets before a request was looked at) are bounded in h2. Here are the attacks that h2 does not see: requests
//! that are begun only to be reset (CVE-2023-44487), answers that nobody reads, and connections on which nothing happens.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::{HeaderMap, Request};
use hyper::body::{Frame, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answering::{Answering, End};
use super::connection::HttpConnection;
use echo_base::limits;

/// The times and counts that a test may choose.
#[derive(Clone, Copy, Debug)]
pub struct Http2Bounds {
    /// For how long a client may take nothing of an answer.
    pub stall_timeout: Duration,
    /// For how long there may be no request.
    pub idle_timeout: Duration,
    /// Requests given up by their client between two looks at the connection, which are at most `stall_timeout` apart.
    pub resets_max: u32,
}

impl Default for Http2Bounds {
    fn default() -> Self {
        Self {
            stall_timeout: Duration::from_millis(limits::WRITE_STALL_MS),
            idle_timeout: Duration::from_millis(limits::HTTP2_IDLE_MS),
            resets_max: limits::HTTP2_RESETS_MAX,
        }
    }
}

/// Requests run in tasks of their own, which end with their connection.
#[derive(Clone)]
struct Tasks {
    tasks: TaskTracker,
    ended: CancellationToken,
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, request: F) {
        self.tasks.spawn(self.ended.clone().run_until_cancelled_owned(request));
    }
}

fn builder(tasks: Tasks) -> http2::Builder<Tasks> {
    let mut http = http2::Builder::new(tasks);
    http.timer(TokioTimer::new())
        .max_concurrent_streams(limits::HTTP2_STREAMS_MAX)
        // The gateway refuses heads over `HTTP_BUFFER_BYTES_MAX` with a problem; what is far beyond never gets there.
        .max_header_list_size(limits::HTTP2_HEAD_BYTES_MAX)
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(limits::HTTP2_SEND_BYTES_MAX)
        .max_pending_accept_reset_streams(limits::HTTP2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(limits::HTTP2_ERRORS_MAX)
        .keep_alive_interval(Duration::from_millis(limits::HTTP2_PING_INTERVAL_MS))
        .keep_alive_timeout(Duration::from_millis(limits::HTTP2_PING_TIMEOUT_MS));
    http
}

/// Serves one connection. `call` hands a request on. `shutdown`: GOAWAY, and the requests that are there are answered.
pub(super) async fn serve<R: Answering>(
    connection: HttpConnection,
    tasks: TaskTracker,
    bounds: Http2Bounds,
    call: impl Fn(Request<hyper::body::Incoming>) -> R::Future + Send + 'static,
    shutdown: CancellationToken,
    cut: CancellationToken,
) -> End {
    let requests = Arc::new(Requests::new(bounds));
    let begun = requests.clone();
    let service = service_fn(move |request| {
        let guard = RequestGuard::begin(&begun);
        let answer = call(request);
        async move {
            let Ok(response) = answer.await;
            guard.note_progress();
            Ok::<_, Infallible>(response.map(|body: Body| AnswerBody { body, rest: Bytes::new(), guard }))
        }
    });
    let tasks = Tasks { tasks, ended: CancellationToken::new() };
    let _end_of_requests = tasks.ended.clone().drop_guard();
    let mut served = pin!(builder(tasks).serve_connection(TokioIo::new(connection), service));
    let mut is_ending = false;
    let mut look_at = Instant::now() + bounds.stall_timeout;
    loop {
        tokio::select! {
            _ = served.as_mut() => return End::Orderly,
            () = cut.cancelled() => return End::Cut,
            () = shutdown.cancelled(), if !is_ending => {
                is_ending = true;
                served.as_mut().graceful_shutdown();
            }
            () = requests.too_many_resets.notified() => {
                metrics::counter!("echo_http2_resets_refused_total").increment(1);
                return End::Orderly;
            }
            () = tokio::time::sleep_until(look_at) => match requests.look(Instant::now()) {
                Look::Again(at) => look_at = at,
                Look::Stalled => {
                    metrics::counter!("echo_http_slow_readers_total").increment(1);
                    return End::Orderly;
                }
                // It had as long again for its goodbye.
                Look::Idle if is_ending => return End::Orderly,
                Look::Idle => {
                    is_ending = true;
                    served.as_mut().graceful_shutdown();
                    look_at = Instant::now() + bounds.stall_timeout;
                }
            },
        }
    }
}

enum Look {
    Again(Instant),
    Idle,
    Stalled,
}

/// The requests of one connection.
struct Requests {
    bounds: Http2Bounds,
    open: Mutex<Open>,
    too_many_resets: Notify,
}

struct Open {
    /// Since when nothing of the answer was taken; none while there is no answer yet.
    stuck_since: HashMap<u64, Option<Instant>>,
    next: u64,
    reset_count: u32,
    idle_since: Instant,
}

impl Requests {
    fn new(bounds: Http2Bounds) -> Self {
        let open = Open { stuck_since: HashMap::new(), next: 0, reset_count: 0, idle_since: Instant::now() };
        Self { bounds, open: Mutex::new(open), too_many_resets: Notify::new() }
    }

    fn look(&self, now: Instant) -> Look {
        let mut open = self.open.lock();
        open.reset_count = 0;
        if open.stuck_since.is_empty() && now >= open.idle_since + self.bounds.idle_timeout {
            return Look::Idle;
        }
        let stuck_since = open.stuck_since.values().flatten().min().copied().unwrap_or(now);
        let at = stuck_since + self.bounds.stall_timeout;
        if at <= now { Look::Stalled } else { Look::Again(at) }
    }
}

/// One request, until its answer is all handed over or it is given up.
struct RequestGuard {
    requests: Arc<Requests>,
    number: u64,
    is_answered: bool,
}

impl RequestGuard {
    fn begin(requests: &Arc<Requests>) -> Self {
        let mut open = requests.open.lock();
        let number = open.next;
        open.next += 1;
        open.stuck_since.insert(number, None);
        Self { requests: requests.clone(), number, is_answered: false }
    }

    fn note_progress(&self) {
        self.requests.open.lock().stuck_since.insert(self.number, Some(Instant::now()));
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut open = self.requests.open.lock();
        open.stuck_since.remove(&self.number);
        open.idle_since = Instant::now();
        if !self.is_answered {
            open.reset_count += 1;
            if open.reset_count > self.requests.bounds.resets_max {
                self.requests.too_many_resets.notify_one();
            }
        }
    }
}

/// An answer's body in small pieces: hyper asks for the next when the client has room for it, so that what waits for a slow reader waits here, once,
/// and is seen.
struct AnswerBody {
    body: Body,
    rest: Bytes,
    guard: RequestGuard,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => {
                    self.guard.is_answered = end.is_none();
                    return Poll::Ready(end);
                }
            }
        }
        self.guard.note_progress();
        let count = self.rest.len().min(limits::HTTP2_PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(count)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(inner.lower() + rest);
        hint
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.guard.is_answered |= self.is_end_stream();
    }
}

/// The size of a head as HTTP/2 counts it (RFC 9113, section 6.5.2).
pub(super) fn head_bytes(headers: &HeaderMap, target: &http::Uri) -> usize {
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    fields + target.path_and_query().map_or(0, |path| path.as_str().len() + 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::SocketAddr;

    use axum::Router;
    use axum::routing::get;
    use h2::client::{ResponseFuture, SendRequest};
    use http::StatusCode;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;

    use crate::{ServeOutcome, ServerSettings, serve};

    const PATIENCE: Duration = Duration::from_secs(20);
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    struct Running {
        address: SocketAddr,
        shutdown: CancellationToken,
        served: JoinHandle<ServeOutcome>,
        go_on: Arc<Notify>,
    }

    /// `/` answers at once, `/slow` when told to, `/large` with eight megabytes.
    async fn start(http2: Http2Bounds) -> Running {
        let go_on = Arc::new(Notify::new());
        let waits = go_on.clone();
        let slow = async move || {
            waits.notified().await;
            "at last"
        };
        let router = Router::new()
            .route("/", get(async || "at once").post(async |body: String| body))
            .route("/slow", get(slow))
            .route("/large", get(async || vec![b'x'; 8 * 1024 * 1024]));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let settings = ServerSettings { http2, drain_timeout: PATIENCE, ..ServerSettings::default() };
        let served = tokio::spawn(serve(listener, router, settings, shutdown.clone()));
        Running { address, shutdown, served, go_on }
    }

    impl Running {
        /// A client, and its connection's end.
        async fn connect(&self) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let (client, connection) = h2::client::handshake(stream).await.unwrap();
            (client, tokio::spawn(connection))
        }

        fn get(&self, client: &mut SendRequest<Bytes>, path: &str) -> ResponseFuture {
            let request = Request::builder().uri(format!("http://{}{path}", self.address)).body(()).unwrap();
            client.send_request(request, true).unwrap().0
        }
    }

    async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
        tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
    }

    async fn text(answer: ResponseFuture) -> String {
        let (parts, mut body) = answer.await.unwrap().into_parts();
        assert_eq!(parts.status, StatusCode::OK);
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            text.extend(data);
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn requests_of_one_connection_are_answered_side_by_side() {
        let running = start(Http2Bounds::default()).await;
        let (mut client, _connection) = running.connect().await;
        let slow = running.get(&mut client, "/slow");
        let (large, small) = (running.get(&mut client, "/large"), running.get(&mut client, "/"));
        let (large, small) = within("both", async { tokio::join!(text(large), text(small)) }).await;
        assert_eq!((large.len(), small.as_str()), (8 * 1024 * 1024, "at once"));
        running.go_on.notify_one();
        assert_eq!(within("the slow one", text(slow)).await, "at last");
    }

    #[tokio::test]
    async fn the_preface_may_come_in_pieces_and_http_1_goes_on_beside_it() {
        let running = start(Http2Bounds::default()).await;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        for byte in PREFACE {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        // An empty SETTINGS; the host says its own first.
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut frame = [0; 9];
        within("SETTINGS", stream.read_exact(&mut frame)).await.unwrap();
        assert_eq!(frame[3], 4, "{frame:?}");

        for whole in [
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 7\r\n\r\nat once",
        ] {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            // `P` alone could still be either.
            let (first, rest) = whole.split_at(1);
            stream.write_all(first.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
            stream.write_all(rest.as_bytes()).await.unwrap();
            let mut answer = String::new();
            within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("at once"), "{answer}");
        }
    }

    #[tokio::test]
    async fn at_the_end_what_was_begun_is_answered_and_nothing_new_is_taken() {
        let running = start(Http2Bounds::default()).await;
        let (mut client, connection) = running.connect().await;
        assert_eq!(text(running.get(&mut client, "/")).await, "at once");
        let slow = running.get(&mut client, "/slow");
        assert_eq!(text(running.get(&mut client, "/")).await, "at once", "the slow one has begun");
        running.shutdown.cancel();
        let refused = within("GOAWAY", async {
            loop {
                let request = Request::builder().uri("http://x/").body(()).unwrap();
                match client.send_request(request, true) {
                    Err(error) => break error,
                    Ok((answer, _)) => drop(answer.await),
                }
            }
        });
        assert!(refused.await.is_go_away());
        running.go_on.notify_one();
        assert_eq!(within("the slow one", text(slow)).await, "at last");
        let _ = within("the connection's end", connection).await.unwrap();
        assert_eq!(within("the end", running.served).await.unwrap(), ServeOutcome { cut_count: 0 });
    }

    /// CVE-2023-44487, with requests that are looked at before they are reset.
    #[tokio::test]
    async fn a_client_that_resets_what_it_begins_is_let_go() {
        let running = start(Http2Bounds { resets_max: 50, ..Http2Bounds::default() }).await;
        let (mut client, connection) = running.connect().await;
        let resetting = async {
            loop {
                client = client.ready().await?;
                let request = Request::builder().uri("http://x/slow").body(())?;
                let (_answer, mut stream) = client.send_request(request, true)?;
                stream.send_reset(h2::Reason::CANCEL);
                tokio::task::yield_now().await;
            }
        };
        let resetting: Result<(), Box<dyn std::error::Error>> = within("an end", resetting).await;
        assert!(resetting.is_err());
        let _ = within("the connection's end", connection).await.unwrap();
        // The others are served.
        let (mut client, _connection) = running.connect().await;
        assert_eq!(text(running.get(&mut client, "/")).await, "at once");
    }

    #[tokio::test]
    async fn a_client_that_gives_up_now_and_then_stays() {
        let running = start(Http2Bounds { resets_max: 50, ..Http2Bounds::default() }).await;
        let (mut client, _connection) = running.connect().await;
        for _ in 0..40 {
            let request = Request::builder().uri("http://x/slow").body(()).unwrap();
            client = client.ready().await.unwrap();
            client.send_request(request, true).unwrap().1.send_reset(h2::Reason::CANCEL);
            assert_eq!(text(running.get(&mut client, "/")).await, "at once");
        }
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_its_answers_is_let_go() {
        let running = start(Http2Bounds { stall_timeout: Duration::from_millis(300), ..Http2Bounds::default() }).await;
        let (mut client, connection) = running.connect().await;
        // It takes what fits into its window, answers pings, and asks for more.
        let mut large = running.get(&mut client, "/large").await.unwrap().into_body();
        let _ = within("the connection's end", connection).await.unwrap();
        let mut count = 0;
        let broken = loop {
            match large.data().await {
                Some(Ok(data)) => count += data.len(),
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        assert!(broken.is_some() && count < 8 * 1024 * 1024, "{count} bytes, {broken:?}");
    }

    #[tokio::test]
    async fn a_connection_without_requests_is_ended_and_one_with_a_slow_answer_is_not() {
        let short = Duration::from_millis(200);
        let running = start(Http2Bounds { stall_timeout: short, idle_timeout: short, ..Http2Bounds::default() }).await;
        let ((mut busy, _busy_connection), (_idle, idle_connection)) = (running.connect().await, running.connect().await);
        let slow = running.get(&mut busy, "/slow");
        let _ = within("the idle one's end", idle_connection).await.unwrap();
        // Nor does one that only begins.
        let mut silent = TcpStream::connect(running.address).await.unwrap();
        silent.write_all(PREFACE).await.unwrap();
        let _ = within("the silent one's end", silent.read_to_end(&mut Vec::new())).await;
        running.go_on.notify_one();
        assert_eq!(within("the slow one", text(slow)).await, "at last");
    }

    #[tokio::test]
    async fn a_head_that_goes_on_and_on_ends_its_connection() {
        let running = start(Http2Bounds::default()).await;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let frame = |kind: u8, payload: &[u8]| {
            let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
            [&length[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
        };
        // HEADERS that do not end, then CONTINUATION without END_HEADERS: a literal field, never indexed, with a value of 4,000 bytes (RFC 7541,
        // section 6.2.3), each time.
        let field = [&[0x10, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4_000]].concat();
        stream.write_all(&frame(1, &field)).await.unwrap();
        for _ in 0..100 {
            // It may be over by now.
            let _ = stream.write_all(&frame(9, &field)).await;
        }
        let mut answer = Vec::new();
        let _ = within("an end", stream.read_to_end(&mut answer)).await;
        // GOAWAY, with ENHANCE_YOUR_CALM.
        assert!(answer.windows(2).any(|code| code == [0, 11]) && answer.contains(&7), "{answer:?}");
    }

    #[tokio::test]
    async fn no_more_requests_at_once_than_the_bound() {
        let running = start(Http2Bounds::default()).await;
        let (mut client, _connection) = running.connect().await;
        assert_eq!(text(running.get(&mut client, "/")).await, "at once");
        assert_eq!(client.current_max_send_streams(), limits::HTTP2_STREAMS_MAX as usize);
    }

    #[tokio::test]
    async fn an_answer_goes_out_in_small_pieces_and_whole() {
        let requests = Arc::new(Requests::new(Http2Bounds::default()));
        let whole = Bytes::from((0..100_000).map(|n| n as u8).collect::<Vec<_>>());
        let mut body = AnswerBody { body: Body::from(whole.clone()), rest: Bytes::new(), guard: RequestGuard::begin(&requests) };
        assert_eq!(body.size_hint().exact(), Some(100_000));
        let mut found = Vec::new();
        while let Some(frame) = body.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= limits::HTTP2_PIECE_BYTES);
            found.extend(piece);
            assert_eq!(body.size_hint().exact(), Some(100_000 - found.len() as u64));
            assert_eq!(body.is_end_stream(), found.len() == 100_000);
        }
        assert_eq!(found, whole);
        drop(body);
        assert_eq!(requests.open.lock().reset_count, 0);
    }
}
