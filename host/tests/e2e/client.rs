//! The client library against real hosts, on good and on bad networks. What happens to it is in `client/scenarios.json`, which `@echo/client` passes too
//! (`host/web/client/test/scenarios.test.mjs`): who changes the one runs the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use echo_client::{ConnectionState, EchoClient, Event, FeedEvent, FeedPayload, Message, MessageStatus, NewMessage, Profile};
use futures_util::StreamExt;
use futures_util::future::join_all;
use parking_lot::Mutex;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::app::{TestApp, unused_phone};
use crate::protocol;
use proxy::{Faults, Proxy};

mod documents;
mod proxy;

/// How long a step may take: a bad network and a busy machine need many attempts.
const PATIENCE: Duration = Duration::from_secs(120);
/// Less than the rest of a client that was replaced.
const REST_MIN: Duration = Duration::from_secs(5);
const PASSWORD: &str = "correct horse battery 7";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    name: String,
    #[serde(default = "one_seed")]
    seeds: Vec<u64>,
    steps: Vec<Step>,
}

fn one_seed() -> Vec<u64> {
    vec![1]
}

/// What happens, or what must come to be so before the next step.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    /// `{n}` counts what this person has said.
    Say {
        who: String,
        text: String,
        #[serde(default = "once")]
        count: u32,
        #[serde(default)]
        refused: bool,
    },
    Hears {
        who: String,
        text: String,
    },
    /// All that the other one said, in order, each once.
    HearsAll {
        who: String,
    },
    /// Nothing waits, and each was answered.
    AllSent {
        who: String,
    },
    /// That their last message has this status.
    Learns {
        who: String,
        status: MessageStatus,
    },
    Reads {
        who: String,
    },
    Waiting {
        who: String,
        count: usize,
    },
    Refused {
        who: String,
        text: String,
        status: u16,
    },
    Discard {
        who: String,
        text: String,
    },
    Unplug {
        who: String,
    },
    Plug {
        who: String,
    },
    Faults {
        who: String,
        #[serde(default)]
        cut: f64,
        #[serde(default)]
        double: f64,
        #[serde(default)]
        drop: f64,
        #[serde(default)]
        delay_ms: u64,
    },
    Suffered {
        who: String,
        faults: Vec<String>,
    },
    Offline {
        who: String,
    },
    Online {
        who: String,
    },
    /// The program, with what it keeps.
    End {
        who: String,
    },
    Start {
        who: String,
    },
    /// Another program with a copy of what this one keeps.
    Copy {
        who: String,
        r#as: String,
    },
    Rests {
        who: String,
    },
    Wake {
        who: String,
    },
    CursorKept {
        who: String,
    },
    SetCursor {
        who: String,
        cursor: u64,
    },
    SpoilToken {
        who: String,
    },
    TokenIsDue {
        who: String,
    },
    Renew {
        who: String,
    },
    Renewals {
        who: String,
        count: u64,
    },
    Requests {
        who: String,
        at_once: usize,
    },
    Sockets {
        who: String,
        count: u64,
    },
    SignOutEverywhere {
        who: String,
    },
    SignedOut {
        who: String,
    },
    Gapless {
        who: String,
    },
    Resynced {
        who: String,
        times: usize,
    },
    Swap {
        service: String,
    },
    Swaps {
        count: usize,
    },
    Crash,
    Crashes {
        count: usize,
    },
    EndHost,
    StartHost,
    Repeat {
        times: usize,
        steps: Vec<Step>,
    },
}

fn once() -> u32 {
    1
}

fn scenarios() -> Vec<Scenario> {
    serde_json::from_str(include_str!("client/scenarios.json")).expect("scenarios")
}

#[test]
fn every_scenario_is_played() {
    let played = include_str!("client.rs");
    for Scenario { name, .. } in scenarios() {
        assert!(played.contains(&format!("play({name:?})")), "no test plays {name:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_arrives() {
    play("a message arrives, and the sender learns that it was delivered and read").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_without_a_connection_is_sent_later() {
    play("what was written without a connection is sent when there is one, in order and once").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outbox_and_the_cursor_outlive_the_program() {
    play("the outbox and the cursor outlive the program").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_refused_holds_nothing_up() {
    play("a message that is refused for good waits for a decision and holds nothing up").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_token_is_renewed_once() {
    play("an access token that was refused is renewed, once for many requests").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_before_it_ends() {
    play("a token is renewed before it ends, once for many requests and the socket").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_socket_lives_on_with_a_renewed_token() {
    play("one socket lives on with a renewed token").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_signed_out_elsewhere_learns_it() {
    play("who is signed out elsewhere learns it and forgets the account").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_socket_rests() {
    play("a socket that another one of the same device replaced rests, and goes on where it was").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_cursor_makes_the_client_load_its_state_anew() {
    play("a cursor that the server does not know makes the client load its state anew").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_ends_says_when_to_come_back() {
    play("a host that ends in order says when to come back, and nothing is missing then").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_bad_network_nothing_is_lost_or_doubled() {
    play("on a network that cuts, delays, drops and doubles nothing is lost and nothing comes twice").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_swaps_and_crashes_nothing_is_lost_or_doubled() {
    play("through twenty swaps and five crashes of the host, on a bad network, nothing is lost and nothing comes twice").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_library_speaks_tls_and_trusts_what_it_was_given() {
    let mut app = TestApp::start().await;
    let phone = unused_phone();
    let plain = EchoClient::builder(&app.url).build().expect("a client");
    let registration = plain.register(&phone, PASSWORD, None).await.expect("registered");
    let otp = app.code_sent_to(&phone).await;
    let refused = plain.verify(&registration.registration_id, &phone, "wrong").await.expect_err("that is no code");
    assert!(refused.problem().is_some_and(|problem| problem.is_final()), "{refused}");
    plain.verify(&registration.registration_id, &phone, &otp).await.expect("signed in");

    let folder = tempfile::tempdir().expect("a folder");
    protocol::certificate(folder.path());
    let file = |name: &str| folder.path().join(name);
    app.set("ECHO_SERVER__TLS_CERT", &file("cert.pem").display().to_string());
    app.set("ECHO_SERVER__TLS_KEY", &file("key.pem").display().to_string());
    app.terminate().await;
    app.restart().await;
    let url = app.url.replace("127.0.0.1", "localhost");
    let stranger = EchoClient::builder(&url).build().expect("a client");
    let untrusted = stranger.sign_in(&phone, PASSWORD, None).await.expect_err("nobody vouches for it");
    assert!(matches!(untrusted, echo_client::Error::Unreachable(_)), "{untrusted}");
    let certificate = std::fs::read(file("cert.pem")).expect("a certificate");
    let client = EchoClient::builder(&url).certificates(certificate).build().expect("a client");
    client.sign_in(&phone, PASSWORD, None).await.expect("signed in over TLS");
    client.connect();
    tokio::time::timeout(PATIENCE, client.online()).await.expect("a socket over TLS");
    client.close().await;
}

async fn play(name: &str) {
    let scenario = scenarios().into_iter().find(|scenario| scenario.name == name).expect("a scenario of this name");
    for seed in scenario.seeds {
        let mut stage = Stage::set(&scenario.steps, seed).await;
        stage.play(&scenario.steps).await;
        stage.clear().await;
    }
}

// --- The people ------------------------------------------------------------------------------------------------------------------------

struct Person {
    id: Uuid,
    proxy: Proxy,
    folder: PathBuf,
    program: Option<Program>,
    seen: Arc<Mutex<Seen>>,
    /// What was said, but for what was to be refused.
    said: Vec<String>,
    count: u32,
}

struct Program {
    client: EchoClient,
    reading: JoinHandle<()>,
}

/// What the library has handed out, to all programs of a person.
#[derive(Default)]
struct Seen {
    feed: Vec<FeedEvent>,
    sent: BTreeMap<String, Message>,
    resynced: usize,
}

impl Person {
    fn start(&mut self) {
        let builder = EchoClient::builder(&self.proxy.url).folder(&self.folder);
        // Short pauses, so that many cuts are over soon.
        let client = builder.pauses_ms(20, 200).build().expect("a client");
        let (mut events, seen) = (client.events(), self.seen.clone());
        let reading = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let mut seen = seen.lock();
                match event {
                    Event::Feed(event) => seen.feed.push(event),
                    Event::Sent { client_message_id, message } => {
                        let twice = seen.sent.insert(client_message_id, *message);
                        assert_eq!(twice, None, "a message is answered once");
                    }
                    Event::ResyncRequired { .. } => seen.resynced += 1,
                    _ => {}
                }
            }
        });
        self.program = Some(Program { client, reading });
    }

    async fn end(&mut self) {
        let Program { client, reading } = self.program.take().expect("it runs");
        client.close().await;
        drop(client);
        reading.await.expect("the events are good");
    }

    fn client(&self) -> &EchoClient {
        let program = self.program.as_ref().expect("it runs");
        assert!(!program.reading.is_finished(), "the reader of events has ended");
        &program.client
    }

    /// What others said.
    fn texts(&self) -> Vec<String> {
        let seen = self.seen.lock();
        let messages = messages(&seen.feed).filter(|message| message.sender_id != self.id);
        messages.map(|message| message.content.clone().unwrap_or_default()).collect()
    }

    fn entry(&self, text: &str) -> Option<echo_client::OutboxEntry> {
        self.client().waiting().into_iter().find(|entry| entry.message.content.as_deref() == Some(text))
    }

    /// The last line of this kind in what the program keeps.
    fn kept(&self, kind: &str) -> Value {
        let text = std::fs::read_to_string(self.folder.join("changes")).expect("what it keeps");
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter_map(|line| line.get(kind).cloned()).next_back().unwrap_or_default()
    }

    /// One more line, of a program that has ended.
    fn keep(&self, change: &Value) {
        assert!(self.program.is_none(), "it has the file");
        let path = self.folder.join("changes");
        let text = std::fs::read_to_string(&path).expect("what it keeps");
        std::fs::write(path, format!("{text}{change}\n")).expect("written");
    }
}

fn messages(feed: &[FeedEvent]) -> impl Iterator<Item = &Message> {
    feed.iter().filter_map(|event| match &event.payload {
        FeedPayload::Message(message) => Some(&**message),
        _ => None,
    })
}

/// Polls until there is something.
async fn until<T>(what: &dyn std::fmt::Debug, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

// --- The stage -------------------------------------------------------------------------------------------------------------------------

/// A host, and ann and bob, who are connected and have a conversation.
struct Stage {
    host: Host,
    folder: TempDir,
    people: BTreeMap<String, Person>,
    conversation: Uuid,
    seed: u64,
    swaps: usize,
    crashes: usize,
}

enum Host {
    Shared(Arc<TestApp>),
    /// Of a scenario that does something to it.
    Own(Box<TestApp>),
}

impl Host {
    fn app(&self) -> &TestApp {
        match self {
            Self::Shared(app) => app,
            Self::Own(app) => app,
        }
    }

    fn own(&mut self) -> &mut TestApp {
        match self {
            Self::Shared(_) => panic!("others use this host too"),
            Self::Own(app) => app,
        }
    }

    fn address(&self) -> &str {
        self.app().url.trim_start_matches("http://")
    }
}

fn wants_own_host(steps: &[Step]) -> bool {
    steps.iter().any(|step| match step {
        Step::Swap { .. } | Step::Crash | Step::EndHost => true,
        Step::Repeat { steps, .. } => wants_own_host(steps),
        _ => false,
    })
}

impl Stage {
    async fn set(steps: &[Step], seed: u64) -> Self {
        let host = if wants_own_host(steps) { Host::Own(Box::new(TestApp::start().await)) } else { Host::Shared(TestApp::shared().await) };
        let folder = tempfile::tempdir().expect("a folder");
        let mut stage = Self { host, folder, people: BTreeMap::new(), conversation: Uuid::nil(), seed, swaps: 0, crashes: 0 };
        for name in ["ann", "bob"] {
            stage.sign_up(name).await;
        }
        let [ann, bob] = ["ann", "bob"].map(|name| &stage.people[name]);
        stage.conversation = ann.client().direct(bob.id).await.expect("a conversation").id;
        for person in [ann, bob] {
            person.client().connect();
            until(&"online", || (person.client().connection() == ConnectionState::Online).then_some(())).await;
        }
        stage
    }

    async fn add(&mut self, name: &str, id: Uuid) -> &mut Person {
        let seed = self.seed * 100 + self.people.len() as u64;
        let proxy = Proxy::start(self.host.address(), seed).await;
        let folder = self.folder.path().join(name);
        let person = Person { id, proxy, folder, program: None, seen: Arc::default(), said: Vec::new(), count: 0 };
        self.people.insert(name.to_owned(), person);
        self.people.get_mut(name).expect("just added")
    }

    async fn sign_up(&mut self, name: &str) {
        let phone = unused_phone();
        self.add(name, Uuid::nil()).await.start();
        let client = self.people[name].client().clone();
        let registration = client.register(&phone, PASSWORD, Some(name)).await.expect("registered");
        let otp = self.host.app().code_sent_to(&phone).await;
        let tokens = client.verify(&registration.registration_id, &phone, &otp).await.expect("signed in");
        self.person(name).id = tokens.user_id;
    }

    /// Ends what still runs.
    async fn clear(mut self) {
        for person in self.people.values_mut().filter(|person| person.program.is_some()) {
            person.end().await;
        }
    }

    fn person(&mut self, name: &str) -> &mut Person {
        self.people.get_mut(name).unwrap_or_else(|| panic!("nobody is called {name}"))
    }

    async fn play(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Repeat { times, steps } => {
                    for _ in 0..*times {
                        Box::pin(self.play(steps)).await;
                    }
                }
                Step::Swap { .. } | Step::Swaps { .. } | Step::Crash | Step::Crashes { .. } | Step::EndHost | Step::StartHost => {
                    self.step_of_host(step).await;
                }
                Step::Copy { who, r#as } => self.copy(who, r#as).await,
                Step::HearsAll { who } => {
                    let other = if who == "ann" { "bob" } else { "ann" };
                    let said = self.people[other].said.clone();
                    let person = &self.people[who];
                    until(step, || (person.texts().len() >= said.len()).then_some(())).await;
                    assert_eq!(person.texts(), said, "{who}: in order, each once");
                }
                _ => {
                    let conversation = self.conversation;
                    self.person(step.who()).step(step, conversation).await;
                }
            }
        }
    }

    async fn step_of_host(&mut self, step: &Step) {
        match step {
            Step::Swap { service } => self.swap(service).await,
            Step::Swaps { count } => assert_eq!(self.swaps, *count),
            Step::Crashes { count } => assert_eq!(self.crashes, *count),
            Step::Crash => {
                self.host.own().kill();
                self.crashes += 1;
                self.start_host().await;
            }
            Step::EndHost => assert!(self.host.own().terminate().await.success()),
            Step::StartHost => self.start_host().await,
            other => panic!("not of the host: {other:?}"),
        }
    }

    async fn start_host(&mut self) {
        self.host.own().restart().await;
        for person in self.people.values() {
            person.proxy.lead_to(self.host.address());
        }
    }

    /// The live version takes its own place: a new generation.
    async fn swap(&mut self, service: &str) {
        let app = self.host.app();
        let path = format!("/admin/v1/plugins/{service}");
        let view = async || app.admin(Method::GET, &path).send().await.expect(StatusCode::OK);
        let before = view().await;
        let active = app.admin(Method::PUT, &format!("{path}/active")).json(json!({ "version": before["active"] }));
        active.send().await.expect(StatusCode::OK);
        assert_ne!(view().await["generation"], before["generation"], "{before}");
        self.swaps += 1;
    }

    async fn copy(&mut self, who: &str, name: &str) {
        let (id, from) = (self.people[who].id, self.people[who].folder.join("changes"));
        let person = self.add(name, id).await;
        std::fs::create_dir(&person.folder).expect("a folder");
        std::fs::copy(from, person.folder.join("changes")).expect("copied");
        person.start();
    }
}

impl Step {
    fn who(&self) -> &str {
        match self {
            Self::Say { who, .. }
            | Self::Hears { who, .. }
            | Self::HearsAll { who }
            | Self::AllSent { who }
            | Self::Learns { who, .. }
            | Self::Reads { who }
            | Self::Waiting { who, .. }
            | Self::Refused { who, .. }
            | Self::Discard { who, .. }
            | Self::Unplug { who }
            | Self::Plug { who }
            | Self::Faults { who, .. }
            | Self::Suffered { who, .. }
            | Self::Offline { who }
            | Self::Online { who }
            | Self::End { who }
            | Self::Start { who }
            | Self::Copy { who, .. }
            | Self::Rests { who }
            | Self::Wake { who }
            | Self::CursorKept { who }
            | Self::SetCursor { who, .. }
            | Self::SpoilToken { who }
            | Self::TokenIsDue { who }
            | Self::Renew { who }
            | Self::Renewals { who, .. }
            | Self::Requests { who, .. }
            | Self::Sockets { who, .. }
            | Self::SignOutEverywhere { who }
            | Self::SignedOut { who }
            | Self::Gapless { who }
            | Self::Resynced { who, .. } => who,
            Self::Swap { .. }
            | Self::Swaps { .. }
            | Self::Crash
            | Self::Crashes { .. }
            | Self::EndHost
            | Self::StartHost
            | Self::Repeat { .. } => panic!("nobody's: {self:?}"),
        }
    }
}

impl Person {
    async fn step(&mut self, step: &Step, conversation: Uuid) {
        match step {
            Step::Say { text, count, refused, .. } => {
                for _ in 0..*count {
                    let text = text.replace("{n}", &self.count.to_string());
                    self.count += 1;
                    self.client().send(NewMessage::text(conversation, &text)).await.expect("it is kept");
                    if !refused {
                        self.said.push(text);
                    }
                }
            }
            Step::Discard { text, .. } => {
                let entry = self.entry(text).expect("it waits");
                self.client().discard(&entry.message.client_message_id).await.expect("discarded");
            }
            Step::Reads { .. } => {
                let up_to = messages(&self.seen.lock().feed).map(|message| message.seq).max().expect("a message");
                self.client().read(conversation, up_to).await.expect("read");
            }
            Step::Unplug { .. } => self.proxy.unplug(),
            Step::Plug { .. } => self.proxy.plug(),
            Step::Faults { cut, double, drop, delay_ms, .. } => {
                self.proxy.set_faults(Faults { cut: *cut, double: *double, drop: *drop, delay_ms: *delay_ms });
            }
            Step::End { .. } => self.end().await,
            Step::Start { .. } => self.start(),
            Step::Online { .. } => self.client().connect(),
            Step::Wake { .. } => self.client().wake(),
            Step::SetCursor { cursor, .. } => self.keep(&json!({ "cursor": cursor })),
            Step::SpoilToken { .. } => {
                let mut credentials = self.kept("credentials");
                let token = credentials["access_token"].as_str().expect("a token");
                credentials["access_token"] = format!("{}AAAAAAAA", &token[..token.len() - 8]).into();
                self.keep(&json!({ "credentials": credentials }));
            }
            Step::TokenIsDue { .. } => {
                let mut credentials = self.kept("credentials");
                credentials["renew_at_ms"] = 0.into();
                self.keep(&json!({ "credentials": credentials }));
            }
            Step::Renew { .. } => {
                let before = self.client().access_token(None).await.expect("a token");
                assert_ne!(self.client().access_token(before.as_deref()).await.expect("a token"), before);
            }
            Step::Requests { at_once, .. } => {
                let profiles = join_all((0..*at_once).map(|_| self.client().get("/api/v1/users/me").send::<Profile>())).await;
                assert!(profiles.into_iter().all(|profile| profile.expect("a profile").id == self.id));
            }
            Step::SignOutEverywhere { .. } => {
                self.client().post::<()>("/api/v1/auth/logout-all", &json!({})).await.expect("signed out");
            }
            _ => {}
        }
        until(step, || self.holds(step).then_some(())).await;
    }

    /// Whether what the step waits for is so.
    fn holds(&self, step: &Step) -> bool {
        let (counts, seen) = (self.proxy.counts(), self.seen.lock());
        let state = || self.client().connection();
        match step {
            Step::Hears { text, .. } => {
                drop(seen);
                self.texts().contains(text)
            }
            Step::AllSent { .. } => {
                let sent: BTreeSet<_> = seen.sent.values().filter_map(|message| message.content.clone()).collect();
                self.client().waiting().is_empty() && self.said.iter().all(|text| sent.contains(text)) && seen.sent.len() == self.said.len()
            }
            Step::Learns { status, .. } => {
                let last = self.said.last().expect("something was said");
                let Some(message) = seen.sent.values().find(|message| message.content.as_ref() == Some(last)) else { return false };
                seen.feed.iter().any(|event| {
                    matches!(&event.payload, FeedPayload::MessageStatus(change)
                        if change.status == *status && (change.message_id == message.id || change.up_to_seq >= Some(message.seq)))
                })
            }
            Step::Waiting { count, .. } => self.client().waiting().len() == *count,
            Step::Refused { text, status, .. } => {
                let problem = self.entry(text).and_then(|entry| entry.problem);
                problem.is_some_and(|problem| problem.status == *status)
            }
            Step::Suffered { faults, .. } => faults.iter().all(|fault| match fault.as_str() {
                "cuts" => counts.cuts > 0,
                "doubled" => counts.doubled > 0,
                "dropped" => counts.dropped > 0,
                other => panic!("no fault is called {other}"),
            }),
            Step::Offline { .. } => state() != ConnectionState::Online,
            Step::Online { .. } | Step::Wake { .. } => state() == ConnectionState::Online,
            Step::Rests { .. } => {
                matches!(state(), ConnectionState::Offline { retry_at: Some(at) } if at > Instant::now() + REST_MIN)
            }
            Step::CursorKept { .. } => self.kept("cursor").as_u64() == seen.feed.last().map(|event| event.seq),
            Step::Renewals { count, .. } => counts.renewals == *count,
            Step::Sockets { count, .. } => counts.sockets == *count,
            Step::SignedOut { .. } => self.client().account().is_none() && is_forgotten(&self.folder),
            Step::Gapless { .. } => {
                let seqs: Vec<u64> = seen.feed.iter().map(|event| event.seq).collect();
                assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "every event once and in order: {seqs:?}");
                true
            }
            Step::Resynced { times, .. } => seen.resynced == *times,
            _ => true,
        }
    }
}

/// Nothing is kept of the account.
fn is_forgotten(folder: &Path) -> bool {
    let text = std::fs::read_to_string(folder.join("changes")).expect("what it keeps");
    text.rsplit("\"cleared\"").next().is_some_and(|since| since.len() < text.len() && !since.contains("credentials"))
}
