//! The workload: twenty users in pairs and groups. Half of them send over REST, half over their socket, each message under the same
//! `client_message_id` until it is answered; some have a second device. Devices reconnect with `?since=` and acknowledge what they have.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{EVENTUALLY_WITHIN, SEED};
use crate::app::{Person, TestApp};

const GROUP: usize = 5;
/// One message in so many is sent again after its answer.
const REPEAT_EVERY: usize = 10;
/// Between an answer that the host cannot take a message now and the next try.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// After that a request is sent again, to another host where there is one.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How long a device collects before it acknowledges.
const ACK_EVERY: Duration = Duration::from_millis(40);

/// How much of it there is.
#[derive(Clone)]
pub struct Scale {
    pub people: usize,
    pub second_devices: usize,
    /// Between an answer and the next message, in milliseconds.
    pub pause_ms: std::ops::Range<u64>,
}

impl Scale {
    /// 300 devices, and 200 messages in a second where answers come soon.
    pub const LARGE: Self = Self { people: 200, second_devices: 100, pause_ms: 0..2_000 };
}

impl Default for Scale {
    fn default() -> Self {
        Self { people: 20, second_devices: 5, pause_ms: 0..60 }
    }
}

pub struct Workload {
    pub people: Vec<Person>,
    pub devices: Vec<Device>,
    pub conversations: Vec<Conversation>,
    client: reqwest::Client,
    /// The URLs of the hosts that are up.
    addresses: watch::Receiver<Vec<String>>,
    /// Whose turn it is among them.
    turn: AtomicUsize,
    /// Ends the writing of new messages.
    pub stop: watch::Sender<bool>,
    /// Ends the devices.
    pub done: watch::Sender<bool>,
    pub answered: Mutex<Vec<Answered>>,
    pub unanswered: AtomicU64,
    pub retries: AtomicU64,
    pub connections: AtomicU64,
    /// From the loss of a device's connection until it had everything again.
    pub longest_silence: Mutex<Duration>,
    /// Whether a device leaves a host that is taken off the list while the connection stands: it would not notice one that was stopped.
    pub leave_unlisted: AtomicBool,
    /// Whether hosts end in order, and say so to their sockets.
    pub expects_goodbyes: AtomicBool,
    /// After how long sockets were asked to come back.
    pub goodbyes_ms: Mutex<Vec<u64>>,
    pause_ms: std::ops::Range<u64>,
}

pub struct Device {
    pub person: usize,
    /// Whether it is the one of its person's devices that writes.
    first: bool,
    signed_in: Person,
    pub received: Mutex<Received>,
}

pub struct Conversation {
    pub id: String,
    pub members: Vec<usize>,
}

/// A message that the host answered with 201.
#[derive(Clone, Debug)]
pub struct Answered {
    pub sender: usize,
    pub conversation: usize,
    pub client_message_id: String,
    pub id: String,
    pub seq: u64,
}

/// The part of its person's feed that a device has received.
#[derive(Default)]
pub struct Received {
    /// The event of `seq` n + 1 stands at n.
    pub feed: Vec<String>,
    pub messages: HashSet<String>,
    /// The highest message of each conversation, per status and recipient, that a status event named: it covers all messages before it.
    pub receipts: BTreeMap<String, u64>,
}

/// What must be in a person's feed, by name as `name_of` makes it.
#[derive(Default)]
pub struct Expected {
    pub messages: BTreeSet<String>,
    pub receipts: BTreeMap<String, u64>,
}

impl Received {
    fn take(&mut self, frame: &Value) {
        let name = name_of(frame);
        let text = |key: &str| frame["payload"][key].as_str().unwrap_or_default();
        match frame["type"].as_str() {
            Some("message") => assert!(self.messages.insert(name.clone()), "a device received twice {name}"),
            Some("message_status") => {
                let receipt = receipt_name(text("conversation_id"), text("user_id"), text("status"));
                let up_to = frame["payload"]["up_to_seq"].as_u64().expect("a seq");
                let before = self.receipts.insert(receipt, up_to);
                assert!(before < Some(up_to), "a device received twice {name}");
            }
            _ => {}
        }
        self.feed.push(name);
    }

    pub fn is_at_least(&self, expected: &Expected) -> bool {
        let has = |(receipt, up_to): (&String, &u64)| self.receipts.get(receipt) >= Some(up_to);
        self.messages.len() >= expected.messages.len() && expected.receipts.iter().all(has)
    }
}

/// What a feed's event is about, the same in a frame and in a page of the feed.
pub fn name_of(event: &Value) -> String {
    let text = |key: &str| event["payload"][key].as_str().unwrap_or_default();
    match event["type"].as_str() {
        Some("message") => message_name(text("sender_id"), text("client_message_id")),
        Some("message_status") => receipt_name(text("message_id"), text("user_id"), text("status")),
        kind => format!("{kind:?} {}", text("id")),
    }
}

fn message_name(sender_id: &str, client_message_id: &str) -> String {
    format!("message {client_message_id} of {sender_id}")
}

/// `id`: the message's, or its conversation's.
fn receipt_name(id: &str, user_id: &str, status: &str) -> String {
    format!("{id} {status} to {user_id}")
}

/// The running users.
pub struct Tasks {
    pub writers: JoinSet<()>,
    pub devices: JoinSet<()>,
}

/// Starts all devices and writers.
pub fn start(workload: &Arc<Workload>) -> Tasks {
    let mut tasks = Tasks { writers: JoinSet::new(), devices: JoinSet::new() };
    for (at, device) in workload.devices.iter().enumerate() {
        let over_rest = device.person.is_multiple_of(2);
        if device.first && over_rest {
            tasks.writers.spawn(write_over_rest(workload.clone(), MessageWriter::new(device.person)));
        }
        let writer = (device.first && !over_rest).then(|| MessageWriter::new(device.person));
        tasks.devices.spawn(use_device(workload.clone(), at, writer));
    }
    tasks
}

/// Signs the users up, opens their conversations, and registers second devices and push tokens for some.
pub async fn set_up(scale: Scale, app: &TestApp, addresses: watch::Receiver<Vec<String>>) -> Workload {
    let mut people = Vec::new();
    for _ in 0..scale.people {
        people.push(app.someone().await);
    }
    let mut devices: Vec<Device> = people.iter().enumerate().map(|(at, person)| device(at, true, person.clone())).collect();
    for (at, person) in people.iter().enumerate().take(scale.second_devices) {
        let login = json!({ "phone": person.phone, "password": person.password, "device": { "id": "tablet" } });
        let tokens = app.post("/api/v1/auth/login", login).send().await.expect(StatusCode::OK);
        devices.push(device(at, false, Person::new(&person.phone, &person.password, "tablet", &tokens)));
    }
    for person in people.iter().step_by(3) {
        let token = json!({ "token": format!("token-of-{}", person.id), "provider": "fcm" });
        app.post("/api/v1/notifications/devices", token).by(person).send().await.expect(StatusCode::CREATED);
    }
    let mut conversations = Vec::new();
    for at in (0..scale.people).step_by(2) {
        let id = app.conversation(&people[at], &people[at + 1]).await;
        conversations.push(Conversation { id, members: vec![at, at + 1] });
    }
    let groups = scale.people / GROUP;
    for group in 0..groups {
        let members: Vec<usize> = (0..scale.people).filter(|at| at % groups == group).collect();
        let others: Vec<&str> = members[1..].iter().map(|at| people[*at].id.as_str()).collect();
        let request = json!({ "type": "group", "title": format!("group {group}"), "participant_ids": others });
        let opened = app.post("/api/v1/messages/conversations", request).by(&people[members[0]]).send().await.expect(StatusCode::CREATED);
        conversations.push(Conversation { id: opened["id"].as_str().expect("id").to_owned(), members });
    }
    Workload {
        people,
        devices,
        conversations,
        client: app.client.clone(),
        addresses,
        turn: AtomicUsize::new(0),
        stop: watch::Sender::new(false),
        done: watch::Sender::new(false),
        answered: Mutex::default(),
        unanswered: AtomicU64::new(0),
        retries: AtomicU64::new(0),
        connections: AtomicU64::new(0),
        longest_silence: Mutex::default(),
        leave_unlisted: AtomicBool::new(false),
        expects_goodbyes: AtomicBool::new(false),
        goodbyes_ms: Mutex::default(),
        pause_ms: scale.pause_ms,
    }
}

fn device(person: usize, first: bool, signed_in: Person) -> Device {
    Device { person, first, signed_in, received: Mutex::default() }
}

impl Workload {
    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// The next host's URL, once one is up.
    async fn url(&self) -> String {
        let mut addresses = self.addresses.clone();
        let urls = addresses.wait_for(|urls| !urls.is_empty()).await.expect("the test outlives its users");
        urls[self.turn.fetch_add(1, Ordering::Relaxed) % urls.len()].clone()
    }

    /// Until this host is to be left.
    async fn unlisted(&self, url: &str) {
        let mut addresses = self.addresses.clone();
        let gone = addresses.wait_for(|urls| self.leave_unlisted.load(Ordering::Relaxed) && !urls.iter().any(|other| other == url));
        let _ = gone.await.map(drop);
    }

    /// Each person's messages are all of their conversations; receipts come for their own, from each who got one.
    pub fn expected_by_person(&self, answered: &[Answered]) -> Vec<Expected> {
        let mut expected: Vec<Expected> = self.people.iter().map(|_| Expected::default()).collect();
        for message in answered {
            let sender = &self.people[message.sender].id;
            for member in &self.conversations[message.conversation].members {
                expected[*member].messages.insert(message_name(sender, &message.client_message_id));
                if *member != message.sender {
                    let conversation = &self.conversations[message.conversation].id;
                    let receipt = receipt_name(conversation, &self.people[*member].id, "delivered");
                    let up_to = expected[message.sender].receipts.entry(receipt).or_default();
                    *up_to = message.seq.max(*up_to);
                }
            }
        }
        expected
    }

    pub async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let until = Instant::now() + EVENTUALLY_WITHIN;
        while !holds() {
            assert!(Instant::now() < until, "{what} did not happen within {EVENTUALLY_WITHIN:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

// --- Writing ---------------------------------------------------------------------------------------------------------------------------

/// Makes one person's messages.
struct MessageWriter {
    person: usize,
    random: StdRng,
    count: usize,
}

struct Draft {
    conversation: usize,
    client_message_id: String,
    body: Value,
}

impl MessageWriter {
    fn new(person: usize) -> Self {
        Self { person, random: StdRng::seed_from_u64(SEED + 1 + person as u64), count: 0 }
    }

    fn next(&mut self, workload: &Workload) -> Draft {
        self.count += 1;
        let own: Vec<usize> =
            (0..workload.conversations.len()).filter(|at| workload.conversations[*at].members.contains(&self.person)).collect();
        let conversation = own[self.random.random_range(0..own.len())];
        let client_message_id = format!("{}-{}", self.person, self.count);
        let body = json!({
            "conversation_id": workload.conversations[conversation].id,
            "client_message_id": client_message_id,
            "type": "text",
            "content": format!("message {} of person {}", self.count, self.person),
        });
        workload.unanswered.fetch_add(1, Ordering::SeqCst);
        Draft { conversation, client_message_id, body }
    }

    fn pause(&mut self, workload: &Workload) -> Duration {
        Duration::from_millis(self.random.random_range(workload.pause_ms.clone()))
    }

    fn answered(&self, workload: &Workload, draft: &Draft, message: &Value) -> Answered {
        assert_eq!(message["client_message_id"], draft.client_message_id, "{message}");
        assert_eq!(message["conversation_id"], draft.body["conversation_id"], "{message}");
        let answered = Answered {
            sender: self.person,
            conversation: draft.conversation,
            client_message_id: draft.client_message_id.clone(),
            id: message["id"].as_str().expect("id").to_owned(),
            seq: message["seq"].as_u64().expect("seq"),
        };
        workload.answered.lock().push(answered.clone());
        workload.unanswered.fetch_sub(1, Ordering::SeqCst);
        answered
    }
}

async fn write_over_rest(workload: Arc<Workload>, mut writer: MessageWriter) {
    while !workload.stopped() {
        let draft = writer.next(&workload);
        let message = post_until_answered(&workload, writer.person, &draft).await;
        let first = writer.answered(&workload, &draft, &message);
        if writer.count.is_multiple_of(REPEAT_EVERY) {
            let again = post_until_answered(&workload, writer.person, &draft).await;
            assert_eq!((again["id"].as_str(), again["seq"].as_u64()), (Some(first.id.as_str()), Some(first.seq)), "sent again: {again}");
        }
        tokio::time::sleep(writer.pause(&workload)).await;
    }
}

async fn post_until_answered(workload: &Workload, person: usize, draft: &Draft) -> Value {
    loop {
        let url = workload.url().await;
        let request = workload.client.post(format!("{url}/api/v1/messages")).bearer_auth(&workload.people[person].access_token);
        let request = request.timeout(ANSWER_WITHIN);
        let answer = async {
            let reply = request.json(&draft.body).send().await?;
            let retry_after = reply.headers().contains_key("retry-after");
            Ok::<_, reqwest::Error>((reply.status(), retry_after, reply.text().await?))
        };
        match answer.await {
            Ok((StatusCode::CREATED, _, body)) => return serde_json::from_str(&body).expect("a message"),
            Ok((status, retry_after, body)) if is_away(Some(status.as_u16().into())) => {
                assert!(retry_after || status != StatusCode::SERVICE_UNAVAILABLE, "no Retry-After: {body}");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            Ok((status, _, body)) => panic!("{status} for {}: {body}", draft.client_message_id),
            Err(_) => {
                workload.retries.fetch_add(1, Ordering::SeqCst);
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

// --- A device --------------------------------------------------------------------------------------------------------------------------

/// A message that was sent over a socket and is not answered yet.
struct InFlight {
    writer: MessageWriter,
    draft: Option<Draft>,
    /// When the next one is made.
    next: tokio::time::Instant,
    /// When the draft is sent again, after it was answered that the host cannot take it now.
    again: Option<tokio::time::Instant>,
}

impl InFlight {
    /// When there is something to send.
    fn due(&self, stopped: bool) -> Option<tokio::time::Instant> {
        if self.draft.is_some() { self.again } else { Some(self.next).filter(|_| !stopped) }
    }
}

/// Connects, checks that events come in order, acknowledges, and reconnects where it was cut, until the end of the test.
async fn use_device(workload: Arc<Workload>, at: usize, writer: Option<MessageWriter>) {
    let device = &workload.devices[at];
    let mut writing = writer.map(|writer| InFlight { writer, draft: None, next: tokio::time::Instant::now(), again: None });
    let mut done = workload.done.subscribe();
    // Since when the device is without a connection.
    let mut silent_since = None;
    loop {
        let url = tokio::select! {
            url = workload.url() => url,
            () = over(&mut done) => return,
        };
        let since = device.received.lock().feed.len() as u64;
        if let Ok(mut socket) = Socket::connect(&url, &device.signed_in, since).await {
            workload.connections.fetch_add(1, Ordering::SeqCst);
            let is_over = tokio::select! {
                is_over = stay_connected(&workload, device, &mut socket, &mut writing, &mut silent_since) => is_over,
                () = workload.unlisted(&url) => false,
            };
            if is_over {
                return;
            }
            silent_since.get_or_insert_with(Instant::now);
            if let Some(delay) = socket.back_after {
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = over(&mut done) => return,
                }
            }
        } else {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if writing.as_ref().is_some_and(|writing| writing.draft.is_some()) {
            workload.retries.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Waits for the end of the test. The guard that `wait_for` gives must not be held over another await.
async fn over(done: &mut watch::Receiver<bool>) {
    let _ = done.wait_for(|done| *done).await.map(drop);
}

/// Until the socket closes; true at the end of the test.
async fn stay_connected(
    workload: &Workload,
    device: &Device,
    socket: &mut Socket,
    writing: &mut Option<InFlight>,
    silent_since: &mut Option<Instant>,
) -> bool {
    let mut done = workload.done.subscribe();
    let mut acknowledged = 0;
    let mut acknowledge = tokio::time::interval(ACK_EVERY);
    if let Some(writing) = writing.as_mut() {
        writing.again = None;
        if let Some(draft) = &writing.draft
            && socket.send(frame_of(draft)).await.is_err()
        {
            return false;
        }
    }
    loop {
        let due = writing.as_ref().and_then(|writing| writing.due(workload.stopped()));
        tokio::select! {
            frame = socket.next() => match frame {
                Some(frame) => {
                    if let Some(since) = silent_since.take_if(|_| frame["type"] == "caught_up") {
                        let mut longest = workload.longest_silence.lock();
                        *longest = since.elapsed().max(*longest);
                    }
                    if frame["type"] == "goodbye" && workload.expects_goodbyes.load(Ordering::Relaxed) {
                        let delay_ms = frame["payload"]["retry_after_ms"].as_u64().expect("a number");
                        workload.goodbyes_ms.lock().push(delay_ms);
                        socket.back_after = Some(Duration::from_millis(delay_ms));
                        continue;
                    }
                    take(workload, device, &frame, writing);
                }
                None => return false,
            },
            _ = acknowledge.tick() => {
                let seq = device.received.lock().feed.len();
                if seq > acknowledged && socket.send(json!({ "type": "ack", "payload": { "seq": seq } })).await.is_err() {
                    return false;
                }
                acknowledged = seq;
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => {
                let writing = writing.as_mut().expect("only a writer has a next message");
                writing.again = None;
                let draft = writing.draft.get_or_insert_with(|| writing.writer.next(workload));
                if socket.send(frame_of(draft)).await.is_err() {
                    return false;
                }
            }
            () = over(&mut done) => return true,
        }
    }
}

fn frame_of(draft: &Draft) -> Value {
    json!({ "type": "message", "id": draft.client_message_id, "payload": draft.body })
}

fn take(workload: &Workload, device: &Device, frame: &Value, writing: &mut Option<InFlight>) {
    if let Some(seq) = frame["seq"].as_u64() {
        let mut received = device.received.lock();
        assert_eq!(seq, received.feed.len() as u64 + 1, "{} on {}: {frame}", device.signed_in.phone, device.signed_in.device);
        return received.take(frame);
    }
    match frame["type"].as_str() {
        Some("connection_ack" | "caught_up") => {}
        Some("reply") => {
            let writing = writing.as_mut().expect("only a writer gets replies");
            let draft = writing.draft.take().expect("a reply to the message in flight");
            assert_eq!(frame["id"], draft.client_message_id, "{frame}");
            writing.writer.answered(workload, &draft, &frame["payload"]);
            writing.next = tokio::time::Instant::now() + writing.writer.pause(workload);
        }
        Some("error") if is_away(frame["payload"]["status"].as_u64()) && frame["id"].is_string() => {
            workload.retries.fetch_add(1, Ordering::SeqCst);
            let writing = writing.as_mut().expect("only a writer gets replies");
            writing.again = Some(tokio::time::Instant::now() + AGAIN_AFTER);
        }
        _ => panic!("{} on {}: {frame}", device.signed_in.phone, device.signed_in.device),
    }
}

/// What the host answers while it starts, ends, or is without its database.
fn is_away(status: Option<u64>) -> bool {
    matches!(status, Some(503 | 504))
}

/// A socket that may be cut at any moment.
struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The host has said goodbye, and when the device is to come back.
    back_after: Option<Duration>,
}

impl Socket {
    async fn connect(url: &str, person: &Person, since: u64) -> Result<Self, SocketError> {
        let mut request = format!("{}/ws?since={since}", url.replacen("http", "ws", 1)).into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {}", person.access_token).parse().expect("a header"));
        let (stream, _) = tokio_tungstenite::connect_async(request).await?;
        Ok(Self { stream, back_after: None })
    }

    async fn send(&mut self, frame: Value) -> Result<(), SocketError> {
        self.stream.send(Message::text(frame.to_string())).await
    }

    /// None when the connection was cut. A host that is killed closes no socket, so a close without a goodbye is a mistake.
    async fn next(&mut self) -> Option<Value> {
        loop {
            match self.stream.next().await? {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(text.as_str()).expect("a frame is JSON")),
                Ok(Message::Close(Some(close))) if self.back_after.is_some() && u16::from(close.code) == 1012 => return None,
                Ok(Message::Close(close)) => panic!("a socket was closed: {close:?}"),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}
