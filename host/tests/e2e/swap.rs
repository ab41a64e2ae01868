//! Versions change while people talk: nothing fails, nothing is lost, doubled or out of order, and no socket notices.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::{PATIENCE, Person, Socket, TestApp, packed};
use crate::candidate::{Candidate, repacked};
use crate::load::Lookups;

const SWAPS: usize = 200;
const PEOPLE: usize = 50;
/// Pause of each person between two messages.
const PAUSE: Duration = Duration::from_millis(60);

/// One of a pair, with an open socket.
struct Talker {
    person: Person,
    other: String,
    conversation: String,
    socket: OpenSocket,
}

/// A socket that somebody always reads from, and what came through it.
struct OpenSocket {
    frames: mpsc::Sender<Value>,
    /// Answers to frames with an id.
    replies: mpsc::Receiver<Value>,
    /// `message` frames so far.
    messages: Arc<AtomicUsize>,
    stop: CancellationToken,
    reading: JoinHandle<Vec<Value>>,
}

impl OpenSocket {
    fn new(socket: Socket) -> Self {
        let ((frames, outgoing), (answers, replies)) = (mpsc::channel(16), mpsc::channel(16));
        let (messages, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let reading = tokio::spawn(read(socket, outgoing, answers, messages.clone(), stop.clone()));
        Self { frames, replies, messages, stop, reading }
    }

    /// Everything that came, the socket still being open.
    async fn finish(self) -> Vec<Value> {
        self.stop.cancel();
        self.reading.await.expect("the socket stayed open")
    }
}

/// Acknowledges now and then, as a device does.
async fn read(
    mut socket: Socket,
    mut outgoing: mpsc::Receiver<Value>,
    answers: mpsc::Sender<Value>,
    messages: Arc<AtomicUsize>,
    stop: CancellationToken,
) -> Vec<Value> {
    let mut log: Vec<Value> = Vec::new();
    loop {
        let frame = tokio::select! {
            () = stop.cancelled() => break,
            Some(frame) = outgoing.recv() => {
                socket.send(frame).await;
                continue;
            }
            frame = socket.try_next() => frame.unwrap_or_else(|code| panic!("the socket was closed with {code:?}")),
        };
        match frame["type"].as_str() {
            Some("reply" | "error") => {
                answers.send(frame).await.expect("somebody waits for it");
                continue;
            }
            Some("message") => drop(messages.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
        if let Some(seq) = frame["seq"].as_u64() {
            if seq % 8 == 0 {
                socket.send(json!({ "type": "ack", "payload": { "seq": seq } })).await;
            }
            log.push(frame);
        }
    }
    socket.send(json!({ "type": "ping" })).await;
    socket.next_of("pong").await;
    log
}

async fn pairs(app: &TestApp) -> Vec<Talker> {
    let mut talkers = Vec::new();
    for _ in 0..PEOPLE / 2 {
        let (one, other) = tokio::join!(app.someone(), app.someone());
        let conversation = app.conversation(&one, &other).await;
        for (person, other) in [(one.clone(), other.id.clone()), (other, one.id)] {
            let mut socket = app.socket(&person, Some(0)).await;
            socket.next_of("caught_up").await;
            talkers.push(Talker { person, other, conversation: conversation.clone(), socket: OpenSocket::new(socket) });
        }
    }
    talkers
}

/// What a talker was told: the content of each accepted message by its seq.
type Accepted = BTreeMap<u64, String>;

/// Sends until it is told to stop, every third message through the socket. Nothing may be refused.
async fn talk(app: Arc<TestApp>, mut talker: Talker, stop: CancellationToken) -> (Talker, Accepted) {
    let mut accepted = Accepted::new();
    for number in 0.. {
        if stop.is_cancelled() {
            break;
        }
        let content = format!("{} {number}", talker.person.id);
        let message = if number % 3 == 2 {
            let id = number.to_string();
            let payload =
                json!({ "conversation_id": talker.conversation, "client_message_id": content, "type": "text", "content": content });
            talker.socket.frames.send(json!({ "type": "message", "id": id, "payload": payload })).await.expect("the socket is read");
            let reply =
                tokio::time::timeout(PATIENCE, talker.socket.replies.recv()).await.expect("an answer in time").expect("an open socket");
            assert_eq!((&reply["type"], &reply["id"]), (&json!("reply"), &json!(id)), "{reply}");
            reply["payload"].clone()
        } else {
            app.text(&talker.person, &talker.conversation, &content, &content).send().await.expect(StatusCode::CREATED)
        };
        let before = accepted.insert(message["seq"].as_u64().expect("seq"), content);
        assert_eq!(before, None, "a seq was given twice");
        tokio::time::sleep(PAUSE).await;
    }
    (talker, accepted)
}

async fn activate(app: &TestApp, service: &str, version: &str) -> Value {
    let path = format!("/admin/v1/plugins/{service}/active");
    app.admin(Method::PUT, &path).json(json!({ "version": version })).send().await.expect(StatusCode::OK)
}

async fn live(app: &TestApp, service: &str) -> Value {
    app.admin(Method::GET, &format!("/admin/v1/plugins/{service}")).send().await.expect(StatusCode::OK)
}

async fn history(app: &TestApp, service: &str) -> Vec<(String, String)> {
    let history = app.admin(Method::GET, &format!("/admin/v1/plugins/{service}/history")).send().await.expect(StatusCode::OK);
    let text = |entry: &Value, key: &str| entry[key].as_str().expect("text").to_owned();
    history["items"].as_array().expect("items").iter().map(|entry| (text(entry, "action"), text(entry, "version"))).collect()
}

/// Waits until this holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_swaps_while_fifty_people_talk() {
    let app = Arc::new(TestApp::start().await);
    // Two further versions of each, beside the one it began with.
    let mut versions = BTreeMap::new();
    for service in ["message", "location"] {
        let mut known = vec!["0.1.0".to_owned()];
        for version in ["0.1.1", "0.1.2"] {
            let file = repacked(service, &[("version = \"0.1.0\"", &format!("version = \"{version}\""))]);
            let staged = app.admin(Method::POST, &format!("/admin/v1/plugins/{service}/versions")).bytes(file).send().await;
            assert_eq!(staged.expect(StatusCode::CREATED)["version"], version);
            known.push(version.to_owned());
        }
        versions.insert(service, known);
    }
    let talkers = pairs(&app).await;
    let stop = CancellationToken::new();
    let talking: Vec<_> = talkers.into_iter().map(|talker| tokio::spawn(talk(app.clone(), talker, stop.clone()))).collect();
    let lookups = Lookups::start(&app, 4, Duration::from_millis(5));
    lookups.answer_more(50).await;

    let begin = Instant::now();
    let mut times = hdrhistogram::Histogram::<u64>::new(3).expect("three digits");
    for swap in 0..SWAPS {
        let service = ["message", "location"][swap % 2];
        // Each version twice in a row, so that a version also takes its own place.
        let version = &versions[service][swap / 4 % 3];
        let answered = lookups.answered();
        let swapping = Instant::now();
        let activation = activate(&app, service, version).await;
        times.record(swapping.elapsed().as_micros() as u64).expect("in range");
        assert_eq!(&activation["version"], version);
        // Traffic between any two swaps.
        lookups.answer_more(answered + 2 - lookups.answered().min(answered + 2)).await;
    }
    let swapping = begin.elapsed();
    stop.cancel();
    let answered = lookups.stop().await;
    let talked = join_all(talking).await.into_iter().map(|talker| talker.expect("nothing was refused")).collect::<Vec<_>>();

    let mut conversations: BTreeMap<String, Accepted> = BTreeMap::new();
    for (talker, accepted) in &talked {
        let conversation = conversations.entry(talker.conversation.clone()).or_default();
        for (seq, content) in accepted {
            assert_eq!(conversation.insert(*seq, content.clone()), None, "a seq was given twice");
        }
    }
    let sent: usize = conversations.values().map(BTreeMap::len).sum();
    for (talker, _) in &talked {
        let expect = conversations[&talker.conversation].len();
        until("all messages arrive", async || talker.socket.messages.load(Ordering::Relaxed) >= expect).await;
    }
    let mut frames = 0;
    for (talker, _) in talked {
        let conversation = &conversations[&talker.conversation];
        let log = talker.socket.finish().await;
        frames += log.len();
        check_log(&log, conversation, &talker.conversation, &[&talker.person.id, &talker.other]);
    }
    let dead = app.admin(Method::GET, "/admin/v1/queue/dead-letters").send().await.expect(StatusCode::OK);
    assert_eq!(dead["items"], json!([]), "the queue's subscribers were swapped too, and lost nothing");
    for service in ["message", "location"] {
        let view = live(&app, service).await;
        assert_eq!((&view["traffic"]["traps"], history(&app, service).await.len()), (&json!(0), 1 + SWAPS / 2), "{view}");
    }
    println!(
        "{SWAPS} swaps in {swapping:?} (each p50 {} ms, p99 {} ms); {sent} messages sent, {frames} durable frames on {PEOPLE} sockets, \
         {answered} lookups; nothing failed",
        times.value_at_quantile(0.5) / 1_000,
        times.value_at_quantile(0.99) / 1_000,
    );
}

/// The feed without a gap and in order; in it every message of the conversation once, in the order of its own seq.
fn check_log(log: &[Value], conversation: &Accepted, id: &str, members: &[&String]) {
    let feed: Vec<u64> = log.iter().map(|frame| frame["seq"].as_u64().expect("seq")).collect();
    assert!(feed.windows(2).all(|pair| pair[1] == pair[0] + 1), "the feed has a gap or is out of order: {feed:?}");

    let messages: Vec<&Value> = log.iter().filter(|frame| frame["type"] == "message").map(|frame| &frame["payload"]).collect();
    let seqs: Vec<u64> = messages.iter().map(|message| message["seq"].as_u64().expect("seq")).collect();
    assert_eq!(seqs, (1..=conversation.len() as u64).collect::<Vec<_>>(), "each message once, and in order");
    for message in &messages {
        assert_eq!(message["content"], conversation[&message["seq"].as_u64().expect("seq")]);
        assert_eq!(message["conversation_id"], id);
        assert!(members.iter().any(|member| message["sender_id"] == **member));
    }
    let ids: BTreeSet<&str> = messages.iter().map(|message| message["id"].as_str().expect("id")).collect();
    assert_eq!(ids.len(), messages.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_on_the_generation_where_it_began() {
    let app = TestApp::with(&["front", "hostile", "location"], &[]).await;
    let version = |number: u32, label: &str| {
        let (version, label) = (format!("version = \"0.1.{number}\""), format!("label = \"{label}\""));
        let replaced = [("version = \"0.1.0\"", version.as_str()), ("label = \"first\"", &label), ("cpu = \"150ms\"", "cpu = \"10s\"")];
        repacked("hostile", &replaced)
    };
    app.deploy("hostile", version(1, "old")).await.expect(StatusCode::OK);
    let held = app.post("/api/v1/hostile/hold", json!({ "count": 1 })).send();
    let relayed = app.post("/api/v1/front/hold-then-label", json!({ "count": 1 })).send();
    let meanwhile = async {
        until("both calls run", async || live(&app, "hostile").await["calls_running"] == 2).await;
        app.deploy("hostile", version(2, "new")).await.expect(StatusCode::OK);
        // New requests reach the new version at once, while the old one's calls still run.
        for _ in 0..20 {
            assert_eq!(app.get("/api/v1/hostile/label").send().await.expect(StatusCode::OK), json!({ "text": "new" }));
        }
        app.post("/api/v1/hostile/mark", json!({})).send().await.expect(StatusCode::NO_CONTENT);
    };
    let (held, relayed, ()) = tokio::join!(held, relayed, meanwhile);
    assert_eq!(held.expect(StatusCode::OK), json!({ "text": "old" }));
    // It asked for the label after the swap, and yet of the version that was live when its request came.
    assert_eq!(relayed.expect(StatusCode::OK), json!({ "text": "old" }));
    let fresh = app.post("/api/v1/front/hold-then-label", json!({ "count": 1 })).send().await;
    assert_eq!(fresh.expect(StatusCode::OK), json!({ "text": "new" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_goes_back_and_history_tells() {
    let app = TestApp::with(&["hostile", "location"], &[]).await;
    let label = async || app.get("/api/v1/hostile/label").send().await.expect(StatusCode::OK)["text"].clone();
    assert_eq!(label().await, "first");
    let second = repacked("hostile", &[("version = \"0.1.0\"", "version = \"0.1.1\""), ("label = \"first\"", "label = \"second\"")]);
    let activation = app.deploy("hostile", second).await.expect(StatusCode::OK);
    assert_eq!((&activation["version"], &activation["replaced"]), (&json!("0.1.1"), &json!("0.1.0")));
    assert_eq!(label().await, "second");

    let rollback = async || app.admin(Method::POST, "/admin/v1/plugins/hostile/rollback").send().await.expect(StatusCode::OK);
    assert_eq!(rollback().await["version"], "0.1.0");
    assert_eq!(label().await, "first");
    let entry = |action: &str, version: &str| (action.to_owned(), version.to_owned());
    let expect = [entry("rollback", "0.1.0"), entry("activate", "0.1.1"), entry("start", "0.1.0")];
    assert_eq!(history(&app, "hostile").await, expect, "newest first");
    // Not back to the bad one; it gets a second chance by its name.
    app.admin(Method::POST, "/admin/v1/plugins/hostile/rollback").send().await.expect_problem(409, "nothing_to_roll_back");
    activate(&app, "hostile", "0.1.1").await;
    assert_eq!(label().await, "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_is_open_after_an_additive_change() {
    let app = TestApp::with(&["front", "hostile", "location"], &[]).await;
    let rollback = |query: &str| app.admin(Method::POST, &format!("/admin/v1/plugins/location/rollback{query}")).send();
    // They have no code: while they are live, nobody looks numbers up.
    let larger = |version: &str, field: &str| {
        Candidate::of("location")
            .manifest("version = \"0.1.1\"", &format!("version = \"{version}\""))
            .contract("phone: string,\n  }", &format!("phone: string,\n    {field}: option<string>,\n  }}"))
            .packed()
    };
    // B adds a field, C another one beside it.
    let (b, c) = (larger("0.1.1", "language"), larger("0.1.2", "language: option<string>,\n    script"));
    for file in [b, c] {
        app.deploy("location", file).await.expect(StatusCode::OK);
    }

    let back = rollback("").await.expect(StatusCode::OK);
    assert_eq!((&back["version"], &back["replaced"]), (&json!("0.1.1"), &json!("0.1.2")));
    let loses = back["loses"].as_array().expect("loses");
    assert!(loses.iter().any(|lost| lost.as_str().is_some_and(|lost| lost.contains("request.script of record lookup-request"))), "{back}");
    let said = "request.script of record lookup-request is not there any more";
    until("the log says it too", async || app.log().contains(said)).await;

    // Again: the last good one, not the one that was rolled away from.
    let back = rollback("").await.expect(StatusCode::OK);
    assert_eq!(back["version"], "0.1.0");
    assert!(back["loses"].to_string().contains("request.language"), "{back}");
    let lookups = Lookups::start(&app, 2, Duration::from_millis(5));
    lookups.answer_more(5).await;
    lookups.stop().await;
    rollback("").await.expect_problem(409, "nothing_to_roll_back");

    // A dependent that needs what the older version has not: asked, refused, and done by the operator's word, which is on record.
    let needed =
        Candidate::of("location").manifest("0.1.1", "0.1.3").contract("valid: bool,", "valid: bool,\n    portable: bool,").packed();
    app.deploy("location", needed).await.expect(StatusCode::OK);
    let dependent =
        Candidate::guest("front").wit("deps/location/location.wit", "valid: bool,", "valid: bool,\n    portable: bool,").packed();
    app.deploy("front", dependent).await.expect(StatusCode::OK);
    let problem = rollback("").await.expect_problem(422, "plugin_refused");
    let reason = "front calls location: echo:location/api@0.1.0, lookup: reply.portable of record location is not there any more";
    assert_eq!(problem["errors"][0]["detail"], reason, "{problem}");
    let back = rollback("?force=true").await.expect(StatusCode::OK);
    assert_eq!((&back["version"], &back["forced"], &back["loses"].to_string().contains(reason)), (&json!("0.1.0"), &json!(true), &true));
    let history = app.admin(Method::GET, "/admin/v1/plugins/location/history").send().await.expect(StatusCode::OK);
    let newest = &history["items"][0];
    assert_eq!(
        (&newest["action"], &newest["forced"], &newest["replaced"]),
        (&json!("rollback"), &json!(true), &json!("0.1.3")),
        "{newest}"
    );
    // A pair that does not fit keeps no other service from being deployed.
    app.deploy("hostile", repacked("hostile", &[("0.1.0", "0.1.1")])).await.expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_reading_nor_the_way_back_nor_other_services_wait_for_a_stuck_deployment() {
    let app = Arc::new(TestApp::with(&["front", "hostile", "location"], &[]).await);
    let hostile = |version: &str, replaced: &[(&str, &str)]| {
        repacked("hostile", &[&[("version = \"0.1.0\"", format!("version = \"{version}\"").as_str())], replaced].concat())
    };
    app.deploy("hostile", hostile("0.1.1", &[])).await.expect(StatusCode::OK);
    // Its probe spins until its CPU time is used up.
    let stuck = hostile("0.1.2", &[("cpu = \"150ms\"", "cpu = \"9s\""), ("prefix =", "probe = \"spin\"\nprefix =")]);
    let deploying = tokio::spawn({
        let app = app.clone();
        async move { app.deploy("hostile", stuck).await }
    });
    let is_stuck = async || live(&app, "hostile").await["versions"].as_array().is_some_and(|versions| versions.len() == 3);
    until("the deployment has begun", is_stuck).await;

    let begun = Instant::now();
    app.admin(Method::GET, "/admin/v1/plugins").send().await.expect(StatusCode::OK);
    assert_eq!(history(&app, "hostile").await.len(), 2);
    app.deploy("location", repacked("location", &[("0.1.0", "0.1.1")])).await.expect(StatusCode::OK);
    let back = app.admin(Method::POST, "/admin/v1/plugins/hostile/rollback").send().await.expect(StatusCode::OK);
    assert_eq!(back["version"], "0.1.0");
    assert!(!deploying.is_finished(), "all of it was done while the deployment was stuck, in {:?}", begun.elapsed());
    deploying.await.expect("no panic").expect_problem(422, "plugin_refused");
    assert_eq!(live(&app, "hostile").await["active"], "0.1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_does_not_undo_a_rollback_that_overtook_it() {
    let app = Arc::new(TestApp::with(&["hostile", "location"], &[]).await);
    let hostile = |version: &str, replaced: &[(&str, &str)]| {
        repacked("hostile", &[&[("version = \"0.1.0\"", format!("version = \"{version}\"").as_str())], replaced].concat())
    };
    app.deploy("hostile", hostile("0.1.1", &[])).await.expect(StatusCode::OK);
    // Its probe leaves a mark, and answers when there is a second one.
    let slow = hostile("0.1.2", &[("cpu = \"150ms\"", "cpu = \"9s\""), ("prefix =", "probe = \"wait-for-mark\"\nprefix =")]);
    let deploying = tokio::spawn({
        let app = app.clone();
        async move { app.deploy("hostile", slow).await }
    });
    let is_probing = async || app.get("/api/v1/hostile/marks").send().await.expect(StatusCode::OK)["count"] == 1;
    until("the new version is probed", is_probing).await;
    app.admin(Method::POST, "/admin/v1/plugins/hostile/rollback").send().await.expect(StatusCode::OK);
    app.post("/api/v1/hostile/mark", json!({})).send().await.expect(StatusCode::NO_CONTENT);
    deploying.await.expect("no panic").expect_problem(409, "overtaken");
    assert_eq!(live(&app, "hostile").await["active"], "0.1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_traps_goes_back_by_itself_and_stays_away() {
    let mut app = TestApp::with(&["front", "hostile", "location"], &[]).await;
    let trapping = |version: &str| {
        let manifest = [("version = \"0.1.0\"", format!("version = \"{version}\"")), ("call = \"fine\"", "call = \"trap\"".to_owned())];
        repacked("hostile", &manifest.each_ref().map(|(from, to)| (*from, to.as_str())))
    };
    let fine = async || app.post("/api/v1/hostile/fine", json!({})).send().await.status;
    let name = "route-call:POST /api/v1/hostile/fine";
    app.deploy_allowing("hostile", trapping("0.1.1"), &[name]).await.expect(StatusCode::OK);
    let mut failed = 0;
    until("the version before is live again", async || {
        let status = fine().await;
        failed += u32::from(status != StatusCode::OK);
        status == StatusCode::OK
    })
    .await;
    assert!(failed >= 10, "{failed} calls are too few to say so");
    let view = live(&app, "hostile").await;
    assert_eq!((&view["active"], &view["state"], &view["breaker"]), (&json!("0.1.0"), &json!("live"), &json!("closed")), "{view}");
    assert_eq!((&view["bad_versions"], &view["last_change"]["action"]), (&json!(["0.1.1"]), &json!("automatic-rollback")), "{view}");
    let reason = view["last_change"]["reason"].as_str().expect("a reason");
    assert!(reason.ends_with("calls trapped or timed out"), "{reason}");
    // It is marked: no rollback leads to it, and a restart does not bring it back.
    app.admin(Method::POST, "/admin/v1/plugins/hostile/rollback").send().await.expect_problem(409, "nothing_to_roll_back");
    app.kill();
    app.restart().await;
    assert_eq!(live(&app, "hostile").await["active"], "0.1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_version_without_a_good_one_before_it_stays_and_is_shown() {
    let app = TestApp::with(&["hostile", "location"], &[]).await;
    for _ in 0..12 {
        app.post("/api/v1/hostile/trap", json!({})).send().await.expect_problem(500, "service_failed");
    }
    let view = live(&app, "hostile").await;
    assert_eq!((&view["active"], &view["state"]), (&json!("0.1.0"), &json!("failing")), "{view}");
    assert_eq!((&view["traffic"]["traps"], history(&app, "hostile").await.len()), (&json!(12), 1));
    let (good, text) = cli(&app, &app.data_folder(), &["list"]);
    assert!(good && text.lines().any(|line| line.contains("hostile") && line.contains("failing")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_their_compiled_code_are_bounded() {
    let mut app = TestApp::with(&["hostile", "location"], &[("ECHO_PLUGINS__VERSIONS_KEPT", "3")]).await;
    let version = |number: u32| repacked("location", &[("version = \"0.1.0\"", &format!("version = \"0.1.{number}\""))]);
    for number in 1..=6 {
        app.deploy("location", version(number)).await.expect(StatusCode::OK);
    }
    // What was only looked at, and what was refused, leaves no code either.
    app.admin(Method::POST, "/admin/v1/plugins/location/versions?dry_run=true").bytes(version(7)).send().await.expect(StatusCode::OK);
    let trapping = repacked("hostile", &[("version = \"0.1.0\"", "version = \"0.1.1\""), ("prefix =", "probe = \"trap\"\nprefix =")]);
    app.deploy("hostile", trapping).await.expect_problem(422, "plugin_refused");
    assert_eq!(live(&app, "location").await["versions"], json!(["0.1.4", "0.1.5", "0.1.6"]));
    let code = app.data_folder().join("code");
    let files = || std::fs::read_dir(&code).expect("the folder of compiled code").count();
    assert_eq!(files(), 5, "three versions of one service, one of the other, and the key");

    app.kill();
    std::fs::write(code.join(format!("{:064}-0123456789abcdef", 0)), b"of an engine of before").expect("written");
    app.restart().await;
    assert_eq!(files(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_what_the_operator_chose() {
    let mut app = TestApp::with(&["hostile", "location"], &[]).await;
    let labelled = |version: &str, label: &str| {
        let (version, label) = (format!("version = \"{version}\""), format!("label = \"{label}\""));
        repacked("hostile", &[("version = \"0.1.0\"", &version), ("label = \"first\"", &label)])
    };
    app.deploy("hostile", labelled("0.1.1", "chosen")).await.expect(StatusCode::OK);
    assert!(app.terminate().await.success());
    app.restart().await;
    let label = app.get("/api/v1/hostile/label").send().await.expect(StatusCode::OK);
    assert_eq!(label, json!({ "text": "chosen" }));

    // Also when the host had no time to say goodbye.
    app.admin(Method::POST, "/admin/v1/plugins/hostile/rollback").send().await.expect(StatusCode::OK);
    app.kill();
    app.restart().await;
    assert_eq!(live(&app, "hostile").await["active"], "0.1.0");
    let actions: Vec<String> = history(&app, "hostile").await.into_iter().map(|(action, version)| format!("{action} {version}")).collect();
    // Hosts that share a database note what was decided, and not each of their starts.
    let expected: &[&str] = match app.database() {
        None => &["start 0.1.0", "rollback 0.1.0", "start 0.1.1", "activate 0.1.1", "start 0.1.0"],
        Some(_) => &["rollback 0.1.0", "activate 0.1.1", "start 0.1.0"],
    };
    assert_eq!(actions, expected);

    // A packed file that changed since goes over the choice.
    app.kill();
    std::fs::write(app.plugins().join("hostile.wasm"), labelled("0.1.2", "packed")).expect("the packed file is replaced");
    app.restart().await;
    let label = app.get("/api/v1/hostile/label").send().await.expect(StatusCode::OK);
    assert_eq!(label, json!({ "text": "packed" }));
    assert_eq!(live(&app, "location").await["active"], "0.1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_swapped_in_while_developing() {
    let app = TestApp::with(&["hostile", "location"], &[]).await;
    let lookups = Lookups::start(&app, 2, Duration::from_millis(2));
    let path = app.plugins().join("hostile.wasm");
    let label = async || app.get("/api/v1/hostile/label").send().await.expect(StatusCode::OK)["text"].clone();
    for round in ["second", "third"] {
        // The version stays as it was: sources change faster than versions.
        std::fs::write(&path, repacked("hostile", &[("label = \"first\"", &format!("label = \"{round}\""))])).expect("written");
        until("the changed file is live", async || label().await == round).await;
        assert!(live(&app, "hostile").await["active"].as_str().is_some_and(|version| version.starts_with("0.1.0+")));
    }

    // What cannot work is not swapped in; the log says why.
    let broken = repacked("hostile", &[("prefix =", "probe = \"trap\"\nprefix =")]);
    std::fs::write(&path, broken).expect("written");
    until("the log says why", async || app.log().contains("its health probe fails")).await;
    assert_eq!(label().await, "third");

    // A service that was not there at the start.
    std::fs::copy(packed("front"), app.plugins().join("front.wasm")).expect("copied");
    let ask = async || app.post("/api/v1/front/lookup", json!({ "phone": "+12015550123" })).send().await;
    until("a new service is live", async || ask().await.status == StatusCode::OK).await;
    println!("{} lookups meanwhile, none failed", lookups.stop().await);
}

fn cli(app: &TestApp, folder: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echod"));
    command.arg("plugin").args(arguments).current_dir(folder);
    if arguments[0] != "inspect" {
        command.arg("--data").arg(app.data_folder());
    }
    let Output { status, stdout, stderr } = command.output().expect("echod runs");
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    println!("$ echod plugin {}\n{text}", arguments.join(" "));
    assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "ends in one line end: {text:?}");
    (status.success(), text)
}

#[track_caller]
fn says(text: &str, expect: &[&str]) {
    for part in expect {
        assert!(text.contains(part), "does not say {part:?}:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_commands_do_it_all() {
    let app = TestApp::with(&["hostile", "location"], &[]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, bytes: Vec<u8>| std::fs::write(folder.path().join(name), bytes).expect("written");
    let run = |arguments: &[&str]| cli(&app, folder.path(), arguments);
    let active = async || live(&app, "hostile").await["active"].clone();
    file("next.wasm", repacked("hostile", &[("version = \"0.1.0\"", "version = \"0.1.1\"")]));

    let (good, text) = run(&["inspect", "next.wasm"]);
    assert!(good);
    says(&text, &["hostile 0.1.1", "POST   /api/v1/hostile/fine", "echo:sql/sql@0.1.0", "0001_marks (sqlite)", "memory 16777216 bytes"]);
    let said = |text: &str, what: &str| {
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(what)).expect(what);
        json!(line.trim())
    };
    let next = (said(&text, "sha256 "), said(&text, "component "));

    // The same code under another manifest: another file, the component that runs now.
    let running = async || {
        let view = live(&app, "hostile").await;
        (view["sha256"].clone(), view["component_sha256"].clone())
    };
    let before = running().await;
    assert!(before.0 != next.0 && before.1 == next.1, "{before:?} {next:?}");

    let (good, text) = run(&["deploy", "next.wasm", "--dry-run"]);
    assert!(good);
    says(&text, &["hostile 0.1.1", "replaces: 0.1.0", "nothing was changed"]);
    assert_eq!(active().await, "0.1.0");

    let (good, text) = run(&["deploy", "next.wasm"]);
    assert!(good);
    says(&text, &["hostile 0.1.1 is live"]);
    assert_eq!(active().await, "0.1.1");
    assert_eq!(running().await, next, "what is inspected is what runs");

    app.post("/api/v1/hostile/trap", json!({})).send().await.expect_problem(500, "service_failed");
    let (good, text) = run(&["list"]);
    assert!(good);
    let mut lines = text.lines();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let heading = words(lines.next().expect("a heading"));
    assert_eq!(heading[..7], ["SERVICE", "VERSION", "STATE", "GENERATION", "CALLS", "ERRORS", "TRAPS"], "{text}");
    let hostile = words(lines.next().expect("hostile"));
    assert_eq!(
        (hostile[0].as_str(), hostile[1].as_str(), hostile[4].as_str(), hostile[6].as_str()),
        ("hostile", "0.1.1", "1", "1"),
        "{text}"
    );
    assert_eq!(words(lines.next().expect("location"))[..2], ["location", "0.1.0"], "{text}");

    let (good, text) = run(&["rollback", "hostile"]);
    assert!(good);
    says(&text, &["hostile 0.1.0 is live again"]);
    let (good, text) = run(&["history", "hostile"]);
    assert!(good);
    let lines: Vec<_> = text.lines().map(words).collect();
    assert_eq!(lines[0], ["AT", "ACTION", "OPERATOR", "NODE", "VERSION", "SHA256", "GRANTED", "FORCED", "REASON"], "{text}");
    let said: Vec<_> = lines[1..].iter().map(|line| (line[1].as_str(), line[2].as_str(), line[4].as_str())).collect();
    let expect = [("rollback", "operator", "0.1.0"), ("activate", "operator", "0.1.1"), ("start", "-", "0.1.0")];
    assert_eq!(said, expect, "newest first: {text}");
    assert!(lines[1][0].starts_with("20") && lines[1][0].ends_with('Z'), "a time that people read: {text}");

    // What is refused says so and why, and the exit status too.
    file(
        "trapping.wasm",
        repacked("hostile", &[("version = \"0.1.0\"", "version = \"0.1.2\""), ("prefix =", "probe = \"trap\"\nprefix =")]),
    );
    let (good, text) = run(&["deploy", "trapping.wasm"]);
    assert!(!good);
    says(&text, &["refused (422 plugin_refused)", "probe: its health probe fails: wasm trap"]);
    file("unbound.wasm", repacked("hostile", &[("call = \"fine\"", "call = \"splendid\"")]));
    for arguments in [&["deploy", "unbound.wasm", "--dry-run"][..], &["deploy", "unbound.wasm"]] {
        let (good, text) = run(arguments);
        assert!(!good);
        says(&text, &["refused (422 plugin_refused)", "bindings: route \"POST /fine\": echo:hostile/api@0.1.0 has no function splendid"]);
    }
    file("text.wasm", b"not at all".to_vec());
    for (arguments, expect) in [
        (&["deploy", "text.wasm"][..], "this is no WebAssembly"),
        (&["inspect", "text.wasm"], "this is no WebAssembly"),
        (&["deploy", "none.wasm"], "none.wasm: No such file"),
        (&["history", "nobody"], "there is no service nobody"),
        (&["rollback", "location"], "location has no earlier version to go back to"),
        (&["list", "--token", "guessed"], "This is no operator's token"),
    ] {
        let (good, text) = run(arguments);
        assert!(!good, "{text}");
        says(&text, &[expect]);
    }
    assert_eq!(active().await, "0.1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_says_that_it_is_ready() {
    let app = TestApp::with(&["location"], &[]).await;
    let ready = |data: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_echod")).arg("ready").arg("--data").arg(data).output().expect("echod runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(ready(&app.data_folder()), (true, "up\n".to_owned()));
    let nobody = tempfile::tempdir().expect("a temporary folder");
    assert_eq!(ready(nobody.path()), (false, String::new()));
}
