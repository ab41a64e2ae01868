//! (b) From sending to delivery: users in pairs, messages at a fixed rate over their sockets, each acknowledged by its receiver. The time counts
//! from when the message was due until its frame is read at the other end.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use echo_client::{Conversation, ConversationType, Method, NewConversation};
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    Arguments,
    accounts::Account,
    http::latency_histogram,
    native::Native,
    open_loop::{at, pace},
    server::{Process, Server},
    socket::{Door, PING_EVERY, Socket, ping},
    table::{Goal, Row, Table, milliseconds, thousands},
};

/// The rate at which p99 has a goal.
const GOAL_RATE: u64 = 500;
const GOAL_P99_US: u64 = 10_000;
/// What ejabberd 23.01 carries without loss at p99 < 50 ms on this kind of machine.
const EJABBERD_PER_SECOND: u64 = 1_745;
pub const HIGHEST_P99_US: u64 = 50_000;
/// After the last message was sent, this long may pass until the last one is there.
const GRACE: Duration = Duration::from_secs(10);
/// Frames that one client has not yet written.
const OUTGOING_MAX: usize = 4_096;
/// As long as people write: 120 characters.
const TEXT: &str = "It is about the length of what people write to each other on a common day, neither very short nor very long.";

pub async fn measure(arguments: &Arguments, server: &Server, native: &Native, accounts: &[Account], table: &mut Table) -> Result<()> {
    println!("delivery: {} users, {} conversations", accounts.len(), accounts.len() / 2);
    let echo = Room::of_echo(server, accounts).await?;
    let relay = Room::of_relay(native, accounts.len()).await?;
    // Warm instances, statement caches, the allocator.
    echo.run(100, Duration::from_secs(2)).await?;
    for &rate in &arguments.rates {
        let plain = relay.run(rate, arguments.duration() / 2).await?;
        let run = echo.run(rate, arguments.duration()).await?;
        add_latency(rate, &run, &plain, table);
    }
    let highest = highest(&echo, (arguments.duration() / 2).max(Duration::from_secs(4))).await?;
    let ratio = highest as f64 / EJABBERD_PER_SECOND as f64;
    table.add(Row {
        part: 'b',
        what: "highest rate without loss, p99 < 50 ms".to_owned(),
        measured: format!("{}/s", thousands(highest as f64)),
        against: format!("ejabberd {}/s", thousands(EJABBERD_PER_SECOND as f64)),
        ratio: Some(ratio),
        goal: Goal::new("≥ 1.00", ratio >= 1.0),
    });
    Ok(())
}

fn add_latency(rate: u64, run: &Run, plain: &Run, table: &mut Table) {
    let at = |run: &Run, quantile| run.latency.value_at_quantile(quantile);
    let p99 = at(run, 0.99);
    let quantiles = [0.5, 0.99, 0.999].map(|quantile| format!("{:.2}", at(run, quantile) as f64 / 1_000.0)).join(" / ");
    let goal = if rate == GOAL_RATE {
        Goal::new("p99 ≤ 10 ms, none lost", p99 <= GOAL_P99_US && run.is_whole())
    } else {
        Goal::new("none lost", run.is_whole())
    };
    let flaws = if run.is_whole() { String::new() } else { format!(" ({run})") };
    table.add(Row {
        part: 'b',
        what: format!("send → delivered at {}/s, p50 / p99 / p99.9", thousands(rate as f64)),
        measured: format!("{quantiles} ms{flaws}"),
        against: format!("bare relay p99 {}", milliseconds(at(plain, 0.99))),
        ratio: Some(p99 as f64 / at(plain, 0.99) as f64),
        goal,
    });
    table.add(Row {
        part: 'b',
        what: format!("server CPU per 1,000 messages at {}/s", thousands(rate as f64)),
        measured: format!("{:.2} s", run.cpu_per_thousand()),
        against: format!("bare relay {:.2} s", plain.cpu_per_thousand()),
        // The kernel counts in hundredths of a second, so a short run of the relay may show none.
        ratio: (plain.cpu > Duration::ZERO).then(|| run.cpu_per_thousand() / plain.cpu_per_thousand()),
        goal: None,
    });
}

/// Steps up until it breaks, then closes in on where. A step that was only slow is tried once more: on a shared machine one moment of somebody
/// else's would decide. A step that lost a message is not.
pub async fn highest(room: &Room, duration: Duration) -> Result<u64> {
    let (mut holds, mut breaks) = (0_u64, None);
    let (mut rate, mut was_slow) = (1_000, false);
    for _ in 0..20 {
        let run = room.run(rate, duration).await?;
        let p99 = run.latency.value_at_quantile(0.99);
        let held = run.is_whole() && p99 < HIGHEST_P99_US;
        println!("  {}/s: p99 {}, {run}: {}", thousands(rate as f64), milliseconds(p99), if held { "holds" } else { "breaks" });
        if held {
            holds = rate;
        } else {
            // What is still under way must not burden the next step.
            room.settle().await;
            was_slow = run.is_whole() && !was_slow;
            if was_slow {
                continue;
            }
            breaks = Some(rate);
        }
        was_slow = false;
        rate = match breaks {
            None => rate * 3 / 2,
            Some(breaks) if breaks - holds <= holds / 16 || breaks < 50 => break,
            Some(breaks) => (holds + breaks) / 2,
        };
    }
    Ok(holds)
}

/// What one run at one rate came to.
pub struct Run {
    pub sent: u64,
    delivered: u64,
    doubled: u64,
    refused: u64,
    cpu: Duration,
    /// Microseconds.
    pub latency: Histogram<u64>,
}

impl Run {
    pub fn is_whole(&self) -> bool {
        self.delivered == self.sent && self.doubled == 0 && self.refused == 0
    }

    /// In seconds.
    fn cpu_per_thousand(&self) -> f64 {
        self.cpu.as_secs_f64() * 1_000.0 / self.sent as f64
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} sent, {} lost, {} doubled, {} refused", self.sent, self.sent - self.delivered, self.doubled, self.refused)
    }
}

/// Connected users, each with somebody to write to.
pub struct Room {
    members: Vec<Member>,
    score: Arc<Mutex<Score>>,
    processes: Vec<Process>,
    _tasks: JoinSet<()>,
}

struct Member {
    conversation: String,
    outgoing: mpsc::Sender<Message>,
}

/// What the receivers of the present run have seen.
struct Score {
    run: u64,
    rate: u64,
    begin: Instant,
    seen: Vec<u8>,
    delivered: u64,
    doubled: u64,
    refused: u64,
    latency: Histogram<u64>,
}

impl Score {
    fn new(run: u64, rate: u64, count: usize, begin: Instant) -> Self {
        Self { run, rate, begin, seen: vec![0; count], delivered: 0, doubled: 0, refused: 0, latency: latency_histogram() }
    }

    /// `content` begins with the run's and the message's number; those of earlier runs come too late to count.
    fn saw(&mut self, content: &str, now: Instant) {
        let mut words = content.split(' ').map(|word| word.parse::<u64>().ok());
        let (Some(Some(run)), Some(Some(number))) = (words.next(), words.next()) else { return };
        if run != self.run {
            return;
        }
        let Some(seen) = self.seen.get_mut(number as usize) else { return };
        if *seen > 0 {
            self.doubled += 1;
            return;
        }
        *seen = 1;
        self.delivered += 1;
        let due = self.begin + at(number, self.rate);
        self.latency.saturating_record(now.saturating_duration_since(due).as_micros() as u64);
    }
}

impl Room {
    async fn of_echo(server: &Server, accounts: &[Account]) -> Result<Self> {
        Self::over(&[server], accounts).await
    }

    /// Users on several hosts: the two of a conversation on different ones, where there are several.
    pub async fn over(servers: &[&Server], accounts: &[Account]) -> Result<Self> {
        let server = servers[0];
        let opened = accounts.chunks_exact(2).map(|pair| async move {
            let open =
                NewConversation { kind: ConversationType::Direct, participant_ids: vec![pair[1].user_id], title: None, description: None };
            let request = server.echo.request(Method::POST, "/api/v1/messages/conversations").token(&pair[0].access_token);
            let conversation: Conversation = request.json(&open).send().await?;
            anyhow::Ok(conversation.id.to_string())
        });
        let conversations: Vec<String> = stream::iter(opened).buffered(8).try_collect().await?;
        let doors = accounts.iter().enumerate().map(|(number, account)| {
            let server = servers[(number / 2 + number % 2) % servers.len()];
            (Door::echo(server, account), conversations[number / 2].clone(), account.user_id.to_string())
        });
        Self::of(doors.collect(), servers.iter().map(|server| server.process).collect()).await
    }

    async fn of_relay(native: &Native, users: usize) -> Result<Self> {
        // A conversation of the relay is named by the other, and it says nothing of who sent.
        let doors = (0..users).map(|number| (Door::relay(native, number), (number ^ 1).to_string(), number.to_string()));
        Self::of(doors.collect(), vec![native.process]).await
    }

    async fn of(doors: Vec<(Door, String, String)>, processes: Vec<Process>) -> Result<Self> {
        let score = Arc::new(Mutex::new(Score::new(0, 1, 0, Instant::now())));
        let opened = doors
            .into_iter()
            .enumerate()
            .map(|(number, (door, conversation, me))| async move { anyhow::Ok((door.open(number).await?, conversation, me)) });
        let sockets: Vec<_> = stream::iter(opened).buffered(32).try_collect().await?;
        let mut tasks = JoinSet::new();
        let members = sockets.into_iter().map(|(socket, conversation, me)| {
            let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
            tasks.spawn(client(socket, me, queue, outgoing.clone(), score.clone()));
            Member { conversation, outgoing }
        });
        let members = members.collect();
        Ok(Self { members, score, processes, _tasks: tasks })
    }

    fn cpu(&self) -> Result<Duration> {
        self.processes.iter().map(Process::cpu).sum()
    }

    pub async fn run(&self, rate: u64, duration: Duration) -> Result<Run> {
        let begin = Instant::now() + Duration::from_millis(50);
        let count = (rate as f64 * duration.as_secs_f64()) as usize;
        let run = {
            let mut score = self.score.lock().expect("nobody panics with it");
            let run = score.run + 1;
            *score = Score::new(run, rate, count, begin);
            run
        };
        let cpu = self.cpu()?;
        let members: Vec<_> = self.members.iter().map(|member| (member.conversation.clone(), member.outgoing.clone())).collect();
        let score = self.score.clone();
        let pacer = pace(begin, rate, duration, move |number, _| {
            let (conversation, outgoing) = &members[number as usize % members.len()];
            let frame = json!({"type": "message", "id": format!("{run}-{number}"), "payload": {
                "conversation_id": conversation,
                "client_message_id": uuid::Uuid::now_v7(),
                "type": "text",
                "content": format!("{run} {number} {TEXT}"),
            }});
            if outgoing.try_send(Message::text(frame.to_string())).is_err() {
                // The client cannot write as fast as it should: the server does not read.
                score.lock().expect("nobody panics with it").refused += 1;
            }
        });
        let sent = tokio::task::spawn_blocking(move || pacer.join()).await?.map_err(|_| anyhow::anyhow!("the pace broke off"))?;
        let deadline = Instant::now() + GRACE;
        loop {
            {
                let mut score = self.score.lock().expect("nobody panics with it");
                if score.delivered + score.refused >= sent || Instant::now() > deadline {
                    let Score { delivered, doubled, refused, .. } = *score;
                    let latency = std::mem::replace(&mut score.latency, latency_histogram());
                    return Ok(Run { sent, delivered, doubled, refused, cpu: self.cpu()? - cpu, latency });
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the server has next to nothing left to do.
    async fn settle(&self) {
        let mut before = self.cpu().unwrap_or_default();
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = self.cpu().unwrap_or_default();
            if now - before < Duration::from_millis(50) {
                return;
            }
            before = now;
        }
    }
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    seq: Option<u64>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    sender_id: Cow<'a, str>,
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
}

/// One user's client: writes what is given to it, reads what comes, acknowledges what has a number.
async fn client(socket: Socket, me: String, mut queue: mpsc::Receiver<Message>, outgoing: mpsc::Sender<Message>, score: Arc<Mutex<Score>>) {
    let (mut sink, mut stream) = socket.split();
    let write = async {
        loop {
            let message = match tokio::time::timeout(PING_EVERY, queue.recv()).await {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(_) => ping(),
            };
            if sink.feed(message).await.is_err() {
                return;
            }
            while let Ok(more) = queue.try_recv() {
                if sink.feed(more).await.is_err() {
                    return;
                }
            }
            if sink.flush().await.is_err() {
                return;
            }
        }
    };
    let read = async {
        while let Some(Ok(message)) = stream.next().await {
            let Message::Text(text) = message else { continue };
            let now = Instant::now();
            if let Err(error) = take(&text, now, &me, &outgoing, &score) {
                eprintln!("a frame that is not as the API page says ({error:#}): {text}");
            }
        }
    };
    // Whichever ends first takes the socket with it; the messages it misses are then counted as lost.
    tokio::select! { () = write => {}, () = read => {} }
}

fn take(text: &str, now: Instant, me: &str, outgoing: &mpsc::Sender<Message>, score: &Mutex<Score>) -> Result<()> {
    let frame: Frame = serde_json::from_str(text)?;
    match &*frame.kind {
        "message" => {
            let event: Event = serde_json::from_str(frame.payload.context("no payload")?.get())?;
            if event.sender_id != me {
                score.lock().expect("nobody panics with it").saw(event.content.as_deref().unwrap_or_default(), now);
            }
        }
        "error" => {
            let mut score = score.lock().expect("nobody panics with it");
            score.refused += 1;
            if score.refused == 1 {
                eprintln!("the first error frame of this run: {text}");
            }
        }
        _ => {}
    }
    if let Some(seq) = frame.seq
        && outgoing.try_send(Message::text(format!(r#"{{"type":"ack","payload":{{"seq":{seq}}}}}"#))).is_err()
    {
        bail!("an acknowledgement found no room");
    }
    Ok(())
}
