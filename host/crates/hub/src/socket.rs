//! One socket, from its greeting to its close: a loop over everything that can happen to it. One task, one timer; an idle socket holds
//! nothing but its place in the registry and a read buffer.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use http::StatusCode;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::{Error as StreamError, Message, Utf8Bytes};
use uuid::Uuid;

use super::Hub;
use super::client::Client;
use super::close::Close;
use super::connection::Connection;
use super::frame;
use super::registry::Registration;
use super::resume::{Delivery, Start, Step};
use echo_base::limits;
use echo_capabilities::context::{CallContext, Caller};
use echo_capabilities::hub::{FeedError, FeedPage};
use echo_edge::in_flight::{Full, Held};
use echo_edge::problem::Problem;
use echo_edge::rates::Subject;

type FrameStream = WebSocketStream<TokioIo<Upgraded>>;

pub(super) struct Socket {
    hub: Arc<Hub>,
    registration: Registration,
    connection: Arc<Connection>,
    caller: Arc<Caller>,
    client: Client,
    stream: FrameStream,
    delivery: Delivery,
    /// Answers to this client's own frames; they go before deliveries. While `calls_max` of them wait, nothing more is read.
    answers: VecDeque<Utf8Bytes>,
    /// Frames for services, served one after another so that what a client sends in order is stored in order.
    calls: VecDeque<PendingCall>,
    /// The bytes of those, and of the one that is served; none while there are none, as most sockets are idle.
    held: Option<Box<Held>>,
    /// The bytes of the frame that is served.
    running_bytes: usize,
    running: Option<BoxFuture<'static, Option<Utf8Bytes>>>,
    reading: Option<BoxFuture<'static, Result<FeedPage, FeedError>>>,
    read_failures: u32,
    read_again_at: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    expires_at: Instant,
    heard_at: Instant,
    heartbeat: Heartbeat,
    pace: FrameRate,
    unflushed: bool,
    /// Others have their turn before what was written leaves.
    gathering: bool,
    /// Since when the network takes nothing.
    blocked_at: Option<Instant>,
    /// The client said goodbye; nothing more is written but the answer to that.
    leaving: bool,
}

/// Everything that can happen to a socket.
enum Event {
    /// Somebody in the host wants it closed.
    Asked(Close),
    Tick,
    /// A service answered; there is a frame for the client, where it wants one.
    Answered(Option<Utf8Bytes>),
    /// The feed was read.
    Read(Result<FeedPage, FeedError>),
    /// Something is to be sent that only the feed has.
    Behind {
        since: u64,
    },
    Frame(Message),
    /// What came cannot be taken.
    Broken(Close),
    /// The client left or the connection is lost.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heartbeat {
    Quiet,
    /// A ping is to be sent.
    Due,
    /// A ping was sent and nothing was heard since.
    Sent,
}

struct PendingCall {
    event: Box<str>,
    id: Option<Box<str>>,
    payload: Bytes,
}

impl Socket {
    pub fn new(
        hub: Arc<Hub>,
        registration: Registration,
        caller: Arc<Caller>,
        client: Client,
        stream: FrameStream,
        delivery: Delivery,
    ) -> Box<Self> {
        let now = Instant::now();
        Box::new(Self {
            connection: registration.connection().clone(),
            registration,
            client,
            stream,
            delivery,
            answers: VecDeque::new(),
            calls: VecDeque::new(),
            held: None,
            running_bytes: 0,
            running: None,
            reading: None,
            read_failures: 0,
            read_again_at: None,
            timer: Box::pin(tokio::time::sleep_until(now)),
            expires_at: expiry(&caller, now),
            heard_at: now,
            heartbeat: Heartbeat::Quiet,
            pace: FrameRate::new(hub.settings.frames_burst, now),
            unflushed: false,
            gathering: false,
            blocked_at: None,
            leaving: false,
            caller,
            hub,
        })
    }

    /// Serves the socket to its end. `start` is where the client asked to go on.
    pub async fn run(mut self: Box<Self>, start: Start) {
        self.greet(start);
        let close = loop {
            match std::future::poll_fn(|context| self.poll_event(context)).await {
                Event::Asked(close) | Event::Broken(close) => break Some(close),
                Event::Gone => break None,
                Event::Tick => {
                    if let Some(close) = self.tick(Instant::now()) {
                        break Some(close);
                    }
                }
                Event::Answered(answer) => {
                    self.take_answer(answer);
                    self.start_call();
                }
                Event::Read(page) => self.take_page(page),
                Event::Behind { since } => self.read_feed(since),
                Event::Frame(message) => {
                    if let Some(close) = self.take_message(message).await {
                        break Some(close);
                    }
                }
            }
        };
        self.end(close).await;
    }

    fn greet(&mut self, start: Start) {
        let settings = &self.hub.settings;
        let cursor = match start {
            Start::Since(since) => since,
            Start::Head => self.delivery.last_sent(),
        };
        let payload = serde_json::json!({
            "connection_id": self.connection.id,
            "user_id": self.connection.user,
            "device_id": self.connection.device,
            "heartbeat_interval": settings.heartbeat_interval.as_secs(),
            "idle_timeout": settings.idle_timeout.as_secs(),
            "cursor": cursor,
        });
        self.answers.push_back(frame::event("connection_ack", &payload.to_string()).into());
        self.set_timer(Instant::now());
        if let Start::Since(_) = start {
            metrics::counter!("echo_hub_resumes_total").increment(1);
        }
    }

    // --- What happens -------------------------------------------------------------------------------------------------------------

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        // Registered before the inbox is looked at, here and below: a delivery in between wakes.
        self.connection.register(context.waker());
        if let Some(close) = self.connection.close_asked() {
            return Poll::Ready(Event::Asked(close));
        }
        if self.timer.as_mut().poll(context).is_ready() {
            return Poll::Ready(Event::Tick);
        }
        if let Some(running) = &mut self.running
            && let Poll::Ready(answer) = running.as_mut().poll(context)
        {
            return Poll::Ready(Event::Answered(answer));
        }
        if let Some(reading) = &mut self.reading
            && let Poll::Ready(page) = reading.as_mut().poll(context)
        {
            self.reading = None;
            return Poll::Ready(Event::Read(page));
        }
        match self.poll_write(context) {
            Poll::Ready(Ok(None)) | Poll::Pending => {}
            Poll::Ready(Ok(Some(since))) => return Poll::Ready(Event::Behind { since }),
            Poll::Ready(Err(_)) => return Poll::Ready(Event::Gone),
        }
        // Once more: being blocked may have set it to an earlier time.
        if self.timer.as_mut().poll(context).is_ready() {
            return Poll::Ready(Event::Tick);
        }
        if !self.takes_frames() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_next(context).map(|message| match message {
            Some(Ok(message)) => Event::Frame(message),
            Some(Err(error)) => broken(&error).map_or(Event::Gone, Event::Broken),
            None => Event::Gone,
        })
    }

    /// Writes all that waits, as far as the network takes it; says from where the feed is to be read, when it comes to that.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<u64>, StreamError>> {
        loop {
            if self.unflushed && !self.gathering {
                let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(context) else {
                    self.note_blocked();
                    return Poll::Pending;
                };
                flushed?;
                self.unflushed = false;
                self.blocked_at = None;
            }
            if self.leaving {
                return Poll::Ready(Ok(None));
            }
            let mut batch_bytes = 0;
            while batch_bytes < limits::SOCKET_WRITE_BATCH_BYTES {
                let text = match self.next_text() {
                    Next::Text(text) => text,
                    Next::Behind { since } => return Poll::Ready(Ok(Some(since))),
                    Next::Nothing => break,
                };
                batch_bytes += text.len();
                self.write(Message::Text(text))?;
            }
            if self.heartbeat == Heartbeat::Due {
                self.heartbeat = Heartbeat::Sent;
                self.write(Message::Ping(Bytes::new()))?;
            }
            if !self.unflushed {
                return Poll::Ready(Ok(None));
            }
            // The answer to a message and its event come within microseconds: who was woken to bring another frame has their turn first, and
            // both leave at once.
            self.gathering = !self.gathering;
            if self.gathering {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    fn write(&mut self, message: Message) -> Result<(), StreamError> {
        self.unflushed = true;
        metrics::counter!("echo_hub_frames_out_total").increment(1);
        Pin::new(&mut self.stream).start_send(message)
    }

    fn note_blocked(&mut self) {
        if self.blocked_at.is_none() {
            let now = Instant::now();
            self.blocked_at = Some(now);
            self.set_timer(now);
        }
    }

    fn next_text(&mut self) -> Next {
        if let Some(answer) = self.answers.pop_front() {
            return Next::Text(answer);
        }
        let step = self.delivery.step(&mut self.connection.inbox());
        match step {
            Step::Send(outgoing) => Next::Text(outgoing.into_text()),
            Step::Read { since } => Next::Behind { since },
            Step::CaughtUp { cursor } => Next::Text(frame::event("caught_up", &format!(r#"{{"cursor":{cursor}}}"#)).into()),
            Step::ResyncRequired { cursor } => {
                // What lies between was never sent.
                self.connection.above.store(cursor, Ordering::SeqCst);
                self.hub.acknowledger.note(&self.connection, 0);
                Next::Text(frame::event("resync_required", &format!(r#"{{"cursor":{cursor}}}"#)).into())
            }
            Step::Nothing => Next::Nothing,
        }
    }

    /// Back-pressure: while this client's own requests are not answered, or it does not take the answers, its further ones wait.
    fn takes_frames(&self) -> bool {
        let calls_max = self.hub.settings.calls_max;
        self.calls.len() + usize::from(self.running.is_some()) < calls_max && self.answers.len() < calls_max
    }

    // --- Time ---------------------------------------------------------------------------------------------------------------------

    fn tick(&mut self, now: Instant) -> Option<Close> {
        let settings = &self.hub.settings;
        if now >= self.expires_at {
            return Some(Close::TokenExpired);
        }
        if self.blocked_at.is_some_and(|blocked_at| now >= blocked_at + settings.stall_timeout) && self.is_backed_up() {
            return Some(Close::TooSlow);
        }
        // While nothing is read, silence is not idleness.
        if !self.takes_frames() {
            self.heard_at = now;
        }
        if now >= self.heard_at + settings.idle_timeout {
            return Some(Close::Idle);
        }
        if now >= self.heard_at + settings.heartbeat_interval && self.heartbeat == Heartbeat::Quiet {
            self.heartbeat = Heartbeat::Due;
        }
        if self.read_again_at.is_some_and(|at| now >= at) {
            self.read_again_at = None;
            self.read_feed(self.delivery.last_sent());
        }
        self.set_timer(now);
        None
    }

    /// Something waits for this reader that cannot wait in memory any more.
    fn is_backed_up(&self) -> bool {
        self.connection.inbox().overflowed || self.answers.len() >= self.hub.settings.calls_max
    }

    fn set_timer(&mut self, now: Instant) {
        let settings = &self.hub.settings;
        let silence = match self.heartbeat {
            Heartbeat::Quiet => settings.heartbeat_interval,
            Heartbeat::Due | Heartbeat::Sent => settings.idle_timeout,
        };
        // Looked at again and again while it lasts: it may be backed up later than it was blocked.
        let stalled_at = self.blocked_at.map(|at| {
            let first_look_at = at + settings.stall_timeout;
            if first_look_at > now { first_look_at } else { now + settings.stall_timeout }
        });
        let at = [Some(self.expires_at), Some(self.heard_at + silence), stalled_at, self.read_again_at];
        let at = at.into_iter().flatten().min().expect("two of them are always there");
        self.timer.as_mut().reset(at);
    }

    // --- The feed -----------------------------------------------------------------------------------------------------------------

    fn read_feed(&mut self, since: u64) {
        let (hub, user) = (self.hub.clone(), self.connection.user);
        self.reading = Some(Box::pin(async move {
            let _turn = hub.feed_reads.acquire().await.expect("never closed");
            hub.feed.read(user, since, hub.settings.resume_page).await
        }));
    }

    fn take_page(&mut self, page: Result<FeedPage, FeedError>) {
        let progress = match page {
            Ok(page) => self.delivery.page_read(page),
            Err(error) => {
                tracing::warn!(%error, connection_id = %self.connection.id, "a feed cannot be read; its socket waits");
                false
            }
        };
        if progress {
            self.read_failures = 0;
            return;
        }
        let pause_ms = (limits::FEED_RETRY_FIRST_MS << self.read_failures.min(16)).min(limits::FEED_RETRY_LAST_MS);
        self.read_failures += 1;
        let now = Instant::now();
        self.read_again_at = Some(now + Duration::from_millis(pause_ms));
        self.set_timer(now);
    }

    // --- Frames from the client ---------------------------------------------------------------------------------------------------

    async fn take_message(&mut self, message: Message) -> Option<Close> {
        let now = Instant::now();
        self.heard_at = now;
        if self.heartbeat == Heartbeat::Sent {
            self.heartbeat = Heartbeat::Quiet;
        }
        metrics::counter!("echo_hub_frames_in_total").increment(1);
        match message {
            Message::Pong(_) => return None,
            Message::Close(_) => {
                self.leaving = true;
                return None;
            }
            Message::Text(_) | Message::Binary(_) | Message::Ping(_) => {}
            Message::Frame(_) => unreachable!("reading gives whole messages only"),
        }
        if !self.pace.allows(now, &self.hub.settings) {
            return Some(Close::TooFast);
        }
        match message {
            Message::Text(text) => self.take_text(&text).await,
            Message::Binary(_) => self.refuse(None, &bad_frame("binary_frame", "frames are JSON text".to_owned())),
            // The stream has made the pong; it leaves with the next flush.
            Message::Ping(_) => self.unflushed = true,
            Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
        }
        None
    }

    async fn take_text(&mut self, text: &str) {
        let frame = match frame::parse(text) {
            Ok(frame) => frame,
            Err(unreadable) => return self.refuse(unreadable.id, &bad_frame("bad_frame", unreadable.detail)),
        };
        // Refused before it waits: what is too much takes no place among the calls.
        let user = self.connection.user;
        let counted = match frame.kind.as_ref() {
            "ack" => self.hub.count_here(super::ACKS, user),
            "ping" => self.hub.count_here(super::PINGS, user),
            "auth" => self.hub.count_here(super::RENEWALS, user),
            kind => match self.hub.calls.rate(kind) {
                Some(rate) => self.hub.count(rate, user, self.client.address).await,
                None => Ok(()),
            },
        };
        if let Err(problem) = counted {
            metrics::counter!("echo_hub_rate_limited_total").increment(1);
            return self.refuse(frame.id, &problem);
        }
        match frame.kind.as_ref() {
            "ack" => self.acknowledge(frame.id, frame.payload),
            "ping" => {
                self.answers.push_back(frame::event("pong", "{}").into());
                self.answer(frame.id, "{}");
            }
            "auth" => self.renew(frame.id, frame.payload).await,
            kind => {
                if let Err(full) = self.hold(frame.payload.len()) {
                    metrics::counter!("echo_hub_bytes_limited_total").increment(1);
                    return self.refuse(frame.id, &full.into());
                }
                self.calls.push_back(PendingCall {
                    event: kind.into(),
                    id: frame.id.map(Box::from),
                    payload: Bytes::copy_from_slice(frame.payload.as_bytes()),
                });
                self.start_call();
            }
        }
    }

    fn acknowledge(&mut self, id: Option<&str>, payload: &str) {
        match frame::only_field(payload, "seq", frame::integer) {
            Ok(seq) if seq > self.connection.given_up_to(self.delivery.last_sent()) => {
                let detail = "no event with this seq was sent to this device";
                self.refuse(id, &Problem::invalid("seq", "not_sent", detail));
            }
            Ok(seq) => {
                self.hub.acknowledger.note(&self.connection, seq);
                self.answer(id, "{}");
            }
            Err(problem) => self.refuse(id, &problem),
        }
    }

    /// A new token for the same user, device and session; the socket goes on as long as that one lives.
    async fn renew(&mut self, id: Option<&str>, payload: &str) {
        let access_token = match frame::only_field(payload, "access_token", frame::string) {
            Ok(access_token) => access_token,
            Err(problem) => return self.refuse(id, &problem),
        };
        let caller = match self.hub.verify(&access_token).await {
            Ok(caller) => caller,
            Err(problem) => return self.refuse(id, &problem),
        };
        let same = caller.user_id == self.caller.user_id
            && caller.device_id == self.caller.device_id
            && caller.session_id == self.caller.session_id;
        if !same {
            let detail = "the token is of another user, device or session; open another socket for it";
            return self.refuse(id, &Problem::new(StatusCode::FORBIDDEN, "identity_mismatch", detail));
        }
        let now = Instant::now();
        self.expires_at = expiry(&caller, now);
        self.answer(id, &format!(r#"{{"expires_at":"{}"}}"#, frame::rfc3339(caller.expires_at_us)));
        self.caller = caller;
        self.set_timer(now);
    }

    fn answer(&mut self, id: Option<&str>, payload: &str) {
        self.answers.extend(id.map(|id| frame::reply(id, payload).into()));
    }

    fn refuse(&mut self, id: Option<&str>, problem: &Problem) {
        self.answers.push_back(frame::error(id, &problem.render_for_frame(&Uuid::now_v7().to_string())).into());
    }

    /// Errors: where the user, the address or all together have no room for so many bytes; they are not held then.
    fn hold(&mut self, bytes: usize) -> Result<(), Full> {
        let held = self.held.get_or_insert_with(|| {
            let (address, user) = (Subject::of_address(self.client.address), Subject::User(self.connection.user));
            Box::new(self.hub.settings.in_flight.hold(address, Some(user)))
        });
        let outcome = held.take(bytes);
        if outcome.is_err() {
            self.let_go(bytes);
        }
        outcome
    }

    fn let_go(&mut self, bytes: usize) {
        if let Some(held) = &mut self.held {
            held.give_back(bytes);
            if held.is_empty() {
                self.held = None;
            }
        }
    }

    fn take_answer(&mut self, answer: Option<Utf8Bytes>) {
        self.running = None;
        let bytes = std::mem::take(&mut self.running_bytes);
        self.let_go(bytes);
        self.answers.extend(answer);
    }

    fn start_call(&mut self) {
        if self.running.is_some() {
            return;
        }
        let Some(call) = self.calls.pop_front() else {
            // A burst must not leave its memory to an idle socket.
            self.calls = VecDeque::new();
            return;
        };
        self.running_bytes = call.payload.len();
        let context = self.call_context();
        let hub = self.hub.clone();
        self.running = Some(Box::pin(async move {
            let request_id = context.request_id.clone();
            let outcome = hub.calls.call(&call.event, &call.payload, context).await;
            call.answer(outcome, &request_id)
        }));
    }

    fn call_context(&self) -> CallContext {
        let request_id: Arc<str> = Uuid::now_v7().to_string().into();
        CallContext {
            caller: Some(self.caller.clone()),
            correlation_id: request_id.clone(),
            request_id,
            client_address: self.client.address,
            user_agent: self.client.user_agent.clone(),
            trace_parent: None,
            idempotency_key: None,
            event_id: None,
            deadline: std::time::Instant::now() + Duration::from_millis(limits::REQUEST_TIMEOUT_MS),
        }
    }

    // --- The end ------------------------------------------------------------------------------------------------------------------

    async fn end(mut self: Box<Self>, close: Option<Close>) {
        self.registration.leave();
        let reason = close.map_or("left", Close::reason);
        metrics::counter!("echo_hub_closed_total", "reason" => reason).increment(1);
        tracing::debug!(connection_id = %self.connection.id, reason, "a socket ends");
        if close.is_none() {
            // The client waits for this end of the connection, not for its requests.
            _ = self.stream.get_mut().shutdown().await;
        }
        if close.is_none_or(Close::lets_calls_finish) {
            // What was accepted is done, even when its sender is gone: half a second later it would have been.
            let finish_timeout = self.hub.settings.finish_timeout;
            _ = tokio::time::timeout(finish_timeout, self.finish_calls()).await;
        }
        if let Some(close) = close {
            // A reader that takes nothing any more is not waited for.
            _ = tokio::time::timeout(self.hub.settings.close_timeout, self.say_goodbye(close)).await;
        }
    }

    async fn finish_calls(&mut self) {
        self.start_call();
        while let Some(running) = self.running.as_mut() {
            let answer = running.await;
            self.take_answer(answer);
            self.start_call();
        }
    }

    async fn say_goodbye(&mut self, close: Close) -> Result<(), StreamError> {
        while let Some(answer) = self.answers.pop_front() {
            self.stream.feed(Message::Text(answer)).await?;
        }
        if let Close::GoingDown { retry_after_ms } = close {
            let goodbye = frame::event("goodbye", &format!(r#"{{"retry_after_ms":{retry_after_ms}}}"#));
            self.stream.feed(Message::Text(goodbye.into())).await?;
        }
        self.stream.send(Message::Close(Some(close.frame()))).await?;
        if close.stream_is_readable() {
            while let Some(Ok(_)) = self.stream.next().await {}
        } else {
            // Read on to the end of what was under way: closing over unread bytes resets the connection, and the code would be lost.
            let stream = self.stream.get_mut();
            stream.shutdown().await?;
            let rest = 16 * self.hub.settings.frame_bytes_max as u64;
            tokio::io::copy(&mut stream.take(rest), &mut tokio::io::sink()).await?;
        }
        Ok(())
    }
}

enum Next {
    Text(Utf8Bytes),
    Behind { since: u64 },
    Nothing,
}

impl PendingCall {
    /// The frame that answers it. Without an `id` only a failure is told.
    fn answer(&self, outcome: Option<Result<echo_runtime::Reply, echo_runtime::CallError>>, request_id: &str) -> Option<Utf8Bytes> {
        let id = self.id.as_deref();
        let problem = match outcome {
            None => Problem::new(StatusCode::NOT_FOUND, "unknown_type", "no service takes frames of this type"),
            Some(Err(error)) => Problem::from(error),
            Some(Ok(reply)) => match reply.body.as_deref().map_or(Ok("null"), std::str::from_utf8) {
                Ok(payload) => return id.map(|id| frame::reply(id, payload).into()),
                Err(_) => Problem::internal(),
            },
        };
        Some(frame::error(id, &problem.render_for_frame(request_id)).into())
    }
}

fn bad_frame(code: &'static str, detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, code, detail)
}

/// When the caller's token ends, on the clock that cannot be set back.
fn expiry(caller: &Caller, now: Instant) -> Instant {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_micros(caller.expires_at_us).saturating_sub(wall);
    now + left.min(Duration::from_secs(limits::TOKEN_TTL_MAX_S))
}

/// How to close on what could not be read; none where there is nobody to tell.
fn broken(error: &StreamError) -> Option<Close> {
    match error {
        StreamError::Capacity(_) => Some(Close::TooLarge),
        StreamError::Utf8(_) => Some(Close::NotUtf8),
        StreamError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        StreamError::Protocol(_) => Some(Close::Protocol),
        _ => None,
    }
}

/// A token bucket over the frames of one client.
struct FrameRate {
    frames_left: f32,
    at: Instant,
}

impl FrameRate {
    fn new(frames_burst: u32, now: Instant) -> Self {
        Self { frames_left: frames_burst as f32, at: now }
    }

    fn allows(&mut self, now: Instant, settings: &super::HubSettings) -> bool {
        let earned = now.duration_since(self.at).as_secs_f32() * settings.frames_per_s as f32;
        self.frames_left = (self.frames_left + earned).min(settings.frames_burst as f32);
        self.at = now;
        if self.frames_left < 1.0 {
            return false;
        }
        self.frames_left -= 1.0;
        true
    }
}
