//! One open WebSocket: frames in, frames out, answers matched to questions, acknowledgements gathered, the token renewed in place, silence noticed.
//! One task, one timer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_tungstenite::tungstenite::{Error as StreamError, Message as Frame};
use uuid::Uuid;

use crate::credentials::Credentials;
use crate::error::{Error, Problem};
use crate::events::{ConnectionState, Event, FeedEvent, FeedPayload, ServerFrame};
use crate::feed::Accepted;
use crate::limits;
use crate::outbox::OutboxEntry;
use crate::shared::{Command, Shared};
use crate::storage::Change;
use crate::transport::SocketStream;
use crate::types::{ConnectionAck, Message};

const REPLY_WAIT: Duration = Duration::from_millis(limits::REPLY_WAIT_MS);
/// For a polite end, that nobody needs.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

pub(crate) struct OpenSocket<'a> {
    shared: Arc<Shared>,
    progress: &'a mut Progress,
    stream: SocketStream,
    credentials: Arc<Credentials>,
    changes: watch::Receiver<Option<Arc<Credentials>>>,
    questions: HashMap<u64, Question>,
    next_id: u64,
    /// `connection_ack` has come.
    acked: bool,
    /// What the server was told last.
    acknowledged: Option<u64>,
    acknowledge_at: Option<Instant>,
    heard_at: Instant,
    ping_at: Instant,
    heartbeat: Duration,
    idle_timeout: Duration,
    renew_at: Instant,
    retry_after: Option<Duration>,
}

/// What outlives one connection.
pub(crate) struct Progress {
    pub commands: mpsc::Receiver<Command>,
    /// The cursor that was written down last.
    pub saved: Option<u64>,
    /// The `seq` before the gap for which a connection was given up last.
    pub gap_after: Option<u64>,
}

/// How a connection ended.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// Of the close frame.
    pub code: Option<u16>,
    /// After how long the server wants to see the client again.
    pub retry_after: Option<Duration>,
}

struct Question {
    asked_by: AskedBy,
    /// Whoever does not answer in time is gone: a lost connection is often noticed by nothing else.
    until: Instant,
}

enum AskedBy {
    Outbox { client_message_id: String, conversation: Uuid },
    Program(oneshot::Sender<Result<Box<RawValue>, Error>>),
}

/// Everything that can happen.
enum Next {
    Frame(Option<Result<Frame, StreamError>>),
    Moved,
    OutboxChanged,
    Command(Command),
    CredentialsChanged,
    Tick,
    Closed,
}

/// The connection is over, with the code of the close frame.
struct Ended(Option<u16>);

impl<'a> OpenSocket<'a> {
    pub fn new(shared: Arc<Shared>, progress: &'a mut Progress, stream: SocketStream, credentials: Arc<Credentials>) -> Self {
        let now = Instant::now();
        let changes = shared.credentials.subscribe();
        let renew_at = now + credentials.renew_in();
        Self {
            shared,
            progress,
            stream,
            credentials,
            changes,
            questions: HashMap::new(),
            next_id: 1,
            acked: false,
            acknowledged: None,
            acknowledge_at: None,
            heard_at: now,
            ping_at: now + Duration::from_millis(limits::OPEN_WAIT_MS),
            heartbeat: Duration::from_millis(limits::OPEN_WAIT_MS),
            idle_timeout: Duration::from_millis(limits::OPEN_WAIT_MS),
            renew_at,
            retry_after: None,
        }
    }

    pub async fn run(mut self) -> End {
        let Err(Ended(code)) = self.serve().await;
        End { code, retry_after: self.retry_after }
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, Ended> {
        // What changed between the token's choice and now.
        self.renewed().await?;
        loop {
            self.send_messages().await?;
            match self.next().await {
                Next::Frame(Some(Ok(Frame::Text(text)))) => {
                    self.heard_at = Instant::now();
                    if let Some(frame) = ServerFrame::read(&text) {
                        self.take(frame).await?;
                    }
                }
                Next::Frame(Some(Ok(Frame::Close(close)))) => {
                    // The answer to it is written by the next read; nothing depends on it.
                    let _ = tokio::time::timeout(CLOSE_WAIT, self.stream.next()).await;
                    return Err(Ended(close.map(|close| close.code.into())));
                }
                Next::Frame(Some(Ok(_))) => self.heard_at = Instant::now(),
                Next::Frame(Some(Err(_)) | None) => return Err(Ended(None)),
                Next::Moved => {
                    self.acknowledge_at = Some(Instant::now() + self.shared.ack_gather);
                }
                Next::OutboxChanged => {}
                Next::Command(command) => self.command(command).await?,
                Next::CredentialsChanged => self.renewed().await?,
                Next::Tick => self.tick().await?,
                Next::Closed => return Err(self.close().await),
            }
        }
    }

    async fn next(&mut self) -> Next {
        let at = self.next_tick();
        let shared = &self.shared;
        tokio::select! {
            frame = self.stream.next() => Next::Frame(frame),
            () = shared.feed.moved.notified(), if self.acked && self.acknowledge_at.is_none() => Next::Moved,
            () = shared.outbox_changed.notified() => Next::OutboxChanged,
            Some(command) = self.progress.commands.recv() => Next::Command(command),
            Ok(()) = self.changes.changed() => Next::CredentialsChanged,
            () = tokio::time::sleep_until(at.into()) => Next::Tick,
            () = shared.closed.cancelled() => Next::Closed,
        }
    }

    // --- Time --------------------------------------------------------------------------------------------------------------------------

    fn next_tick(&self) -> Instant {
        let dead_at = self.heard_at + self.idle_timeout;
        let answers = self.questions.values().map(|question| question.until);
        let messages = if self.acked { self.shared.outbox.lock().next_at() } else { None };
        let others = [dead_at, self.ping_at, self.renew_at].into_iter().chain(self.acknowledge_at).chain(messages);
        answers.chain(others).min().expect("three of them are always there")
    }

    async fn tick(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        if now >= self.heard_at + self.idle_timeout || self.questions.values().any(|question| now >= question.until) {
            return Err(Ended(None));
        }
        if now >= self.ping_at {
            self.ping_at = now + self.heartbeat;
            self.tell("ping", &json!({})).await?;
        }
        if self.acknowledge_at.is_some_and(|at| now >= at) {
            self.acknowledge_at = None;
            self.acknowledge().await?;
        }
        if now >= self.renew_at {
            self.renew_at = now + Duration::from_millis(limits::RENEW_AGAIN_MS);
            // Beside the socket: the new token comes as a change of the credentials.
            let shared = self.shared.clone();
            tokio::spawn(async move { shared.token(None).await });
        }
        Ok(())
    }

    // --- Frames in ---------------------------------------------------------------------------------------------------------------------

    async fn take(&mut self, frame: ServerFrame) -> Result<(), Ended> {
        match frame {
            ServerFrame::Ack(ack) => self.begin(&ack),
            // Nothing comes before it.
            _ if !self.acked => {}
            ServerFrame::Feed(event) => return self.durable(event).await,
            ServerFrame::Ephemeral(event) => self.shared.feed.publish(&Event::Ephemeral(event)),
            ServerFrame::CaughtUp { cursor } => {
                self.shared.feed.publish(&Event::CaughtUp { cursor });
                self.moved();
            }
            ServerFrame::ResyncRequired { cursor } => {
                self.shared.feed.start(cursor);
                self.shared.feed.publish(&Event::ResyncRequired { cursor });
                self.moved();
            }
            ServerFrame::Reply { id, payload } => self.answered(id, Ok(payload)).await,
            ServerFrame::Refusal { id: Some(id), problem } => self.answered(id, Err(problem)).await,
            ServerFrame::Goodbye { retry_after_ms } => self.retry_after = Some(Duration::from_millis(retry_after_ms)),
            ServerFrame::Refusal { id: None, .. } | ServerFrame::Pong => {}
        }
        Ok(())
    }

    fn begin(&mut self, ack: &ConnectionAck) {
        if self.acked {
            return;
        }
        self.acked = true;
        self.heartbeat = Duration::from_secs(ack.heartbeat_interval.max(1));
        self.idle_timeout = Duration::from_secs(ack.idle_timeout.max(2));
        self.ping_at = Instant::now() + self.heartbeat;
        if self.shared.feed.last().is_none() {
            self.shared.feed.start(ack.cursor);
        }
        self.shared.now(ConnectionState::Online);
        self.moved();
    }

    async fn durable(&mut self, event: FeedEvent) -> Result<(), Ended> {
        let (before, seq) = (self.shared.feed.last(), event.seq);
        let own = match &event.payload {
            FeedPayload::Message(message) if message.sender_id == self.credentials.user_id => Some(message.clone()),
            _ => None,
        };
        match self.shared.feed.accept(event.clone()) {
            Accepted::New => {}
            Accepted::Duplicate => return Ok(()),
            // Something got lost on the way: it is read again from before the gap.
            Accepted::Gap if self.progress.gap_after != before => {
                self.progress.gap_after = before;
                return Err(Ended(None));
            }
            Accepted::Gap => {
                // The server has nothing in between: what is shown may lack something.
                self.shared.feed.start(seq - 1);
                self.shared.feed.publish(&Event::ResyncRequired { cursor: seq - 1 });
                self.shared.feed.accept(event);
            }
        }
        // It has been seen in the feed, so it was taken.
        if let Some(message) = own {
            self.confirm(*message).await;
        }
        if self.shared.feed.is_full() { Err(Ended(None)) } else { Ok(()) }
    }

    async fn answered(&mut self, id: u64, answer: Result<Box<RawValue>, Box<Problem>>) {
        // The second of two answers is of no interest.
        let Some(question) = self.questions.remove(&id) else { return };
        match question.asked_by {
            AskedBy::Program(program) => drop(program.send(answer.map_err(Error::Problem))),
            AskedBy::Outbox { client_message_id, conversation } => {
                match answer.map(|payload| serde_json::from_str::<Message>(payload.get())) {
                    Ok(Ok(message)) => self.confirm(message).await,
                    Err(problem) if problem.is_final() => self.refused(&client_message_id, problem).await,
                    Err(problem) => self.shared.outbox.lock().pause(conversation, problem.retry_after(), Instant::now()),
                    // An answer that cannot be read: the feed will say what became of it.
                    Ok(Err(_)) => self.shared.outbox.lock().pause(conversation, None, Instant::now()),
                }
                self.shared.outbox.lock().free(conversation);
            }
        }
    }

    // --- The outbox --------------------------------------------------------------------------------------------------------------------

    async fn send_messages(&mut self) -> Result<(), Ended> {
        while self.acked {
            let next = self.shared.outbox.lock().next(Instant::now());
            let Some(message) = next else { break };
            let payload = serde_json::to_value(&message).unwrap_or_default();
            let (client_message_id, conversation) = (message.client_message_id, message.conversation_id);
            self.ask("message", &payload, AskedBy::Outbox { client_message_id, conversation }).await?;
        }
        Ok(())
    }

    async fn confirm(&mut self, message: Message) {
        let removed = self.shared.outbox.lock().remove(&message.client_message_id);
        let Some(OutboxEntry { message: sent, .. }) = removed else { return };
        // Where it is not written down it is sent again under its id, and answered alike.
        self.shared.storage.note(Change::Removed(sent.client_message_id.clone())).await;
        self.shared.feed.publish(&Event::Sent { client_message_id: sent.client_message_id, message: Box::new(message) });
    }

    async fn refused(&mut self, client_message_id: &str, problem: Box<Problem>) {
        let entry = self.shared.outbox.lock().get(client_message_id).cloned();
        let Some(entry) = entry else { return };
        let entry = OutboxEntry { problem: Some(problem.clone()), ..entry };
        self.shared.storage.note(Change::Put(Box::new(entry.clone()))).await;
        self.shared.outbox.lock().put(entry);
        self.shared.feed.publish(&Event::Refused { client_message_id: client_message_id.to_owned(), problem });
    }

    // --- Acknowledgements --------------------------------------------------------------------------------------------------------------

    /// Something may have to be acknowledged; what comes within the time leaves with it.
    fn moved(&mut self) {
        if self.acknowledge_at.is_none() {
            self.acknowledge_at = Some(Instant::now() + self.shared.ack_gather);
        }
    }

    async fn acknowledge(&mut self) -> Result<(), Ended> {
        let Some(handled) = self.shared.feed.handled() else { return Ok(()) };
        if self.progress.saved != Some(handled) {
            self.progress.saved = Some(handled);
            self.shared.storage.note(Change::Cursor(Some(handled))).await;
        }
        if self.acknowledged < Some(handled) {
            self.acknowledged = Some(handled);
            self.tell("ack", &json!({ "seq": handled })).await?;
        }
        Ok(())
    }

    // --- Tokens ------------------------------------------------------------------------------------------------------------------------

    /// The open socket goes on with a renewed token; it ends where another account, or nobody, is signed in.
    async fn renewed(&mut self) -> Result<(), Ended> {
        let now = self.changes.borrow_and_update().clone();
        match now {
            Some(credentials) if credentials.session_id == self.credentials.session_id => {
                self.renew_at = Instant::now() + credentials.renew_in().max(Duration::from_millis(limits::RENEW_AGAIN_MS));
                if credentials.access_token != self.credentials.access_token {
                    self.credentials = credentials;
                    let payload = json!({ "access_token": self.credentials.access_token });
                    self.tell("auth", &payload).await?;
                }
                Ok(())
            }
            _ => Err(Ended(None)),
        }
    }

    // --- Frames out --------------------------------------------------------------------------------------------------------------------

    async fn command(&mut self, command: Command) -> Result<(), Ended> {
        match command.answer {
            Some(program) => self.ask(&command.kind, &command.payload, AskedBy::Program(program)).await,
            None => self.tell(&command.kind, &command.payload).await,
        }
    }

    async fn ask(&mut self, kind: &str, payload: &Value, asked_by: AskedBy) -> Result<(), Ended> {
        let id = self.next_id;
        self.next_id += 1;
        self.questions.insert(id, Question { asked_by, until: Instant::now() + REPLY_WAIT });
        self.write(json!({ "type": kind, "id": id, "payload": payload }).to_string()).await
    }

    async fn tell(&mut self, kind: &str, payload: &Value) -> Result<(), Ended> {
        self.write(json!({ "type": kind, "payload": payload }).to_string()).await
    }

    async fn write(&mut self, text: String) -> Result<(), Ended> {
        match tokio::time::timeout(REPLY_WAIT, self.stream.send(Frame::text(text))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Ended(None)),
        }
    }

    async fn close(&mut self) -> Ended {
        if self.acked {
            let _ = self.acknowledge().await;
        }
        let _ = tokio::time::timeout(CLOSE_WAIT, self.stream.close(None)).await;
        Ended(None)
    }
}
