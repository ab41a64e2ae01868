//! The client: joins tokens, socket, feed and outbox. Clones of it are one client.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use echo_base::backoff::Backoff;
use http::Method;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::connect::Connector;
use crate::credentials::now_ms;
use crate::error::Error;
use crate::events::ConnectionState;
use crate::feed::{Events, Feed};
use crate::limits;
use crate::outbox::{Outbox, OutboxEntry};
use crate::request::Request;
use crate::shared::{Command, Shared};
use crate::storage::{Change, Storage};
use crate::transport::Http;
use crate::types::{Conversation, ConversationType, DeviceInput, NewConversation, NewMessage, ReadState, Registration, Tokens};

/// One device of one person. See the crate's page for an example.
#[derive(Clone)]
pub struct EchoClient {
    pub(crate) shared: Arc<Shared>,
    owner: Arc<Owner>,
}

/// Goes with the last clone, and takes the connection with it.
struct Owner {
    shared: Arc<Shared>,
    connecting: Mutex<Connecting>,
}

enum Connecting {
    NotYet(Connector),
    Running(JoinHandle<()>),
    Ended,
}

/// Who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub user_id: Uuid,
    pub device_id: String,
    pub session_id: Uuid,
}

/// Settings of a client.
pub struct Builder {
    url: String,
    folder: Option<PathBuf>,
    device: DeviceInput,
    certificates: Option<Vec<u8>>,
    backoff: Backoff,
    ack_gather: Duration,
}

impl Builder {
    /// Keeps tokens, cursor and outbox in this folder (mode 0700), so that they outlive the program. Without it they are in memory. One client at a time has it.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// What the user's list of devices says of this one. Its id is drawn at random, and kept in the folder, where it is empty.
    pub fn device(mut self, device: DeviceInput) -> Self {
        self.device = device;
        self
    }

    /// PEM; trusted besides the system's.
    pub fn certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.certificates = Some(pem.into());
        self
    }

    /// The ceilings between which pauses after a failure double; each pause is drawn at random below. 0.5 and 30 seconds.
    pub fn pauses_ms(mut self, first: u64, longest: u64) -> Self {
        self.backoff = Backoff::from_ms(first, longest);
        self
    }

    /// Acknowledgements within this time leave as one; 200 ms.
    pub fn ack_gather(mut self, time: Duration) -> Self {
        self.ack_gather = time;
        self
    }

    /// Reads what is in the folder. Errors: `Settings`, and `Folder` where another client has it or it cannot be read.
    pub fn build(self) -> Result<EchoClient, Error> {
        let http = Http::new(&self.url, self.certificates.as_deref())?;
        let (storage, state) = Storage::open(self.folder.as_deref())?;
        let mut device = self.device;
        if device.id.is_empty() {
            device.id = state.device.unwrap_or_else(|| Uuid::new_v4().to_string());
        }
        let (commands, waiting) = mpsc::channel(limits::FRAMES_WAITING_MAX);
        let shared = Arc::new(Shared {
            http,
            storage,
            feed: Feed::new(state.cursor),
            outbox: Mutex::new(Outbox::new(state.outbox, self.backoff)),
            outbox_changed: Notify::new(),
            credentials: watch::Sender::new(state.credentials.map(Arc::new)),
            renewing: tokio::sync::Mutex::new(()),
            connection: watch::Sender::new(ConnectionState::Offline { retry_at: None }),
            wake: Notify::new(),
            commands,
            closed: CancellationToken::new(),
            device,
            backoff: self.backoff,
            ack_gather: self.ack_gather,
        });
        let connector = Connector::new(shared.clone(), waiting, state.cursor);
        let owner = Arc::new(Owner { shared: shared.clone(), connecting: Mutex::new(Connecting::NotYet(connector)) });
        Ok(EchoClient { shared, owner })
    }
}

impl EchoClient {
    /// `url`: of a host, `https://echo.example`; a path is not wanted.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder {
            url: url.into(),
            folder: None,
            device: DeviceInput::default(),
            certificates: None,
            backoff: Backoff::from_ms(limits::PAUSE_FIRST_MS, limits::PAUSE_LONGEST_MS),
            ack_gather: Duration::from_millis(limits::ACK_GATHER_MS),
        }
    }

    // --- Who is signed in --------------------------------------------------------------------------------------------------------------

    /// The first step; `verify` with the code that was sent is the second.
    pub async fn register(&self, phone: &str, password: &str, name: Option<&str>) -> Result<Registration, Error> {
        let body = json!({ "phone": phone, "password": password, "name": name });
        self.post_anonymously("/api/v1/auth/register", &body).await
    }

    /// Signs in with the code that was sent.
    pub async fn verify(&self, registration_id: &str, phone: &str, otp: &str) -> Result<Tokens, Error> {
        let device = self.device().await?;
        let body = json!({ "registration_id": registration_id, "phone": phone, "otp": otp, "device": device });
        self.begin(self.post_anonymously("/api/v1/auth/verify-otp", &body).await?).await
    }

    /// `totp`: where the account has a second factor. Errors: `Problem`s with the codes `invalid_credentials`, `totp_required`, `account_locked`, …
    pub async fn sign_in(&self, phone: &str, password: &str, totp: Option<&str>) -> Result<Tokens, Error> {
        let device = self.device().await?;
        let body = json!({ "phone": phone, "password": password, "totp": totp, "device": device });
        self.begin(self.post_anonymously("/api/v1/auth/login", &body).await?).await
    }

    /// With tokens that were got in another way (OAuth, another program).
    pub async fn sign_in_with(&self, tokens: Tokens) -> Result<(), Error> {
        self.shared.begin(tokens).await
    }

    /// Forgets the account on this device, also where the server cannot be asked to end the session. What waits to be sent is lost.
    pub async fn sign_out(&self) -> Result<(), Error> {
        // Where it fails, the session ends with its tokens.
        let _ = self.request(Method::POST, "/api/v1/auth/logout").send::<()>().await;
        self.shared.end("signed_out").await
    }

    pub fn account(&self) -> Option<Account> {
        let credentials = self.shared.signed_in()?;
        Some(Account { user_id: credentials.user_id, device_id: credentials.device_id.clone(), session_id: credentials.session_id })
    }

    /// For requests that this library has no words for. After a 401: another one than `refused`.
    pub async fn access_token(&self, refused: Option<&str>) -> Result<Option<String>, Error> {
        let credentials = self.shared.token(refused).await?;
        Ok(credentials.map(|credentials| credentials.access_token.clone()))
    }

    // --- The connection and its events -------------------------------------------------------------------------------------------------

    /// Keeps a socket open from now on, whenever somebody is signed in. Wants a tokio runtime.
    pub fn connect(&self) {
        let mut connecting = self.owner.connecting.lock();
        *connecting = match std::mem::replace(&mut *connecting, Connecting::Ended) {
            Connecting::NotYet(connector) => Connecting::Running(tokio::spawn(connector.run())),
            other => other,
        };
    }

    /// Events from now on. Take them before `connect`, so that none is missed.
    pub fn events(&self) -> Events {
        self.shared.feed.events()
    }

    pub fn connection(&self) -> ConnectionState {
        *self.shared.connection.borrow()
    }

    /// Waits until there is a connection.
    pub async fn online(&self) {
        let mut connection = self.shared.connection.subscribe();
        let _ = connection.wait_for(|state| *state == ConnectionState::Online).await.map(drop);
    }

    /// Tries to connect at once, where a pause is being kept.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// Acknowledges what was handled, ends the connection and all readers of events, and writes down what is still to be written.
    pub async fn close(&self) {
        self.shared.closed.cancel();
        let running = std::mem::replace(&mut *self.owner.connecting.lock(), Connecting::Ended);
        if let Connecting::Running(task) = running {
            let _ = task.await;
        }
        self.shared.feed.end();
        let _ = self.shared.storage.keep(Vec::new()).await;
    }

    // --- What is sent ------------------------------------------------------------------------------------------------------------------

    /// Returns when the message is kept in the outbox, on the disk where there is a folder; the event `Sent` or `Refused` follows. Its client id.
    /// Errors: `SignedOut`, `OutboxFull`, `Folder`.
    pub async fn send(&self, message: NewMessage) -> Result<String, Error> {
        if self.shared.signed_in().is_none() {
            return Err(Error::SignedOut);
        }
        let order = {
            let mut outbox = self.shared.outbox.lock();
            if outbox.len() >= limits::OUTBOX_ENTRIES_MAX {
                return Err(Error::OutboxFull);
            }
            outbox.next_order()
        };
        let client_message_id = message.client_message_id.clone();
        self.keep(OutboxEntry { order, created_at_ms: now_ms(), message, problem: None }).await?;
        Ok(client_message_id)
    }

    /// What waits to be sent, and what was refused for good, in its order.
    pub fn waiting(&self) -> Vec<OutboxEntry> {
        self.shared.outbox.lock().entries()
    }

    /// Sends one again that was refused for good.
    pub async fn retry(&self, client_message_id: &str) -> Result<(), Error> {
        let entry = self.shared.outbox.lock().get(client_message_id).cloned();
        match entry {
            Some(entry) => self.keep(OutboxEntry { problem: None, ..entry }).await,
            None => Ok(()),
        }
    }

    /// Takes one out of the outbox. It may be on its way already.
    pub async fn discard(&self, client_message_id: &str) -> Result<(), Error> {
        self.shared.outbox.lock().remove(client_message_id);
        Ok(self.shared.storage.keep(vec![Change::Removed(client_message_id.to_owned())]).await?)
    }

    /// Lost where there is no connection.
    pub async fn typing(&self, conversation_id: Uuid, is_typing: bool) {
        let payload = json!({ "conversation_id": conversation_id, "is_typing": is_typing });
        let _ = self.command(Command { kind: "typing".to_owned(), payload, answer: None }).await;
    }

    /// A frame of any kind that a service takes, over the socket; its answer. Errors: `Disconnected`, and what the service says.
    pub async fn ask<T: DeserializeOwned>(&self, kind: &str, payload: Value) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.command(Command { kind: kind.to_owned(), payload, answer: Some(answer) }).await?;
        let payload = answered.await.unwrap_or(Err(Error::Disconnected))?;
        serde_json::from_str(payload.get()).map_err(|error| Error::Unreadable(error.to_string()))
    }

    /// The caller has read up to there.
    pub async fn read(&self, conversation_id: Uuid, up_to_seq: u64) -> Result<ReadState, Error> {
        self.post("/api/v1/messages/read", &json!({ "conversation_id": conversation_id, "up_to_seq": up_to_seq })).await
    }

    /// The conversation with one other person, opened where it is not yet.
    pub async fn direct(&self, other: Uuid) -> Result<Conversation, Error> {
        let conversation = NewConversation { kind: ConversationType::Direct, participant_ids: vec![other], title: None, description: None };
        self.post("/api/v1/messages/conversations", &conversation).await
    }

    // --- Requests ----------------------------------------------------------------------------------------------------------------------

    /// Any route of `/openapi.json`, with the path filled in and the shapes that the caller gives: `request(Method::PUT, "/api/v1/…").json(&body).send::<T>()`.
    pub fn request(&self, method: Method, path: &str) -> Request<'_> {
        Request::new(&self.shared, method, path)
    }

    pub fn get(&self, path: &str) -> Request<'_> {
        self.request(Method::GET, path)
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        self.request(Method::POST, path).json(body).send().await
    }

    async fn post_anonymously<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        self.request(Method::POST, path).json(body).anonymous().send().await
    }

    // --- Within ------------------------------------------------------------------------------------------------------------------------

    async fn begin(&self, tokens: Tokens) -> Result<Tokens, Error> {
        self.shared.begin(tokens.clone()).await?;
        Ok(tokens)
    }

    /// Its id stays when people sign out and in again.
    async fn device(&self) -> Result<&DeviceInput, Error> {
        self.shared.storage.keep(vec![Change::Device(self.shared.device.id.clone())]).await?;
        Ok(&self.shared.device)
    }

    async fn keep(&self, entry: OutboxEntry) -> Result<(), Error> {
        self.shared.storage.keep(vec![Change::Put(Box::new(entry.clone()))]).await?;
        self.shared.outbox.lock().put(entry);
        self.shared.outbox_changed.notify_one();
        Ok(())
    }

    async fn command(&self, command: Command) -> Result<(), Error> {
        if self.connection() != ConnectionState::Online {
            return Err(Error::Disconnected);
        }
        self.shared.commands.send(command).await.map_err(|_| Error::Disconnected)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.closed.cancel();
        self.shared.feed.end();
    }
}
