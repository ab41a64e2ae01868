//! Hosts on PostgreSQL, Redis and NATS: from sending to delivery with sender and receiver on different hosts, the highest rate without loss, CPU time of each
//! process, memory per idle socket; and the two buses between hosts side by side. Aims are reported and decide nothing: how much one machine carries that runs all
//! of it, and the load besides, says little of machines of their own.

use std::{
    env,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use echo_capabilities::bus::{Delivery, HubBus, nats::NatsBus, redis::RedisBus};
use echo_engines::{nats::Nats, postgres::Postgres, redis::Redis};
use futures_util::StreamExt;
use tokio_tungstenite::tungstenite::Bytes;

use crate::{
    Arguments, accounts,
    delivery::{self, Room, Run},
    http::latency_histogram,
    idle,
    server::{Host, Server, cpu_of_all},
    socket::Door,
    table::{Row, Table, milliseconds, thousands},
};

/// Idle sockets: of so many accounts at the most.
const IDLE_MAX: usize = 1_000;
/// As the frames between hosts are.
const BUS_MESSAGE_BYTES: usize = 600;
const BUS_RATE: u64 = 2_000;
const BUS_FLOOD: u64 = 20_000;

struct Engines {
    nats: Nats,
    redis: Redis,
    postgres: Postgres,
}

impl Engines {
    fn start() -> Result<Self> {
        let below = env::temp_dir();
        Ok(Self { postgres: Postgres::start(&below)?, redis: Redis::start(&below)?, nats: Nats::start(&below, 3)? })
    }

    /// Of every host; `folder` is for the files that they share.
    fn settings(&self, folder: &Path) -> Result<Vec<(String, String)>> {
        let database = self.postgres.make_database("echo")?;
        let (redis, nats) = (self.redis.url(), self.nats.urls().join(","));
        let files = format!("file:{}", folder.join("files").display());
        let settings = [
            ("ECHO_SQL__URL", "env:ECHO_BENCH_POSTGRES"),
            ("ECHO_BENCH_POSTGRES", &database),
            ("ECHO_CACHE__URL", &redis),
            ("ECHO_EVENTS__URL", &nats),
            ("ECHO_BLOB__URL", &files),
            ("ECHO_TOKENS__MASTER_KEY", "env:ECHO_BENCH_SECRET"),
            ("ECHO_BENCH_SECRET", "a secret of the bench, known to everybody"),
        ];
        Ok(settings.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec())
    }
}

/// CPU time of all processes at one moment.
struct Cpu {
    hosts: Duration,
    postgres: Duration,
    redis: Duration,
    nats: Duration,
}

impl Cpu {
    fn now(engines: &Engines, servers: &[Server]) -> Self {
        Self {
            hosts: servers.iter().map(|server| cpu_of_all(server.process.pid)).sum(),
            postgres: cpu_of_all(engines.postgres.pid()),
            redis: cpu_of_all(engines.redis.pid()),
            nats: engines.nats.pids().into_iter().map(cpu_of_all).sum(),
        }
    }

    /// Per 1,000 messages, in seconds.
    fn since(&self, before: &Self, messages: u64) -> [f64; 4] {
        let pairs = [(self.hosts, before.hosts), (self.postgres, before.postgres), (self.redis, before.redis), (self.nats, before.nats)];
        pairs.map(|(now, before)| now.saturating_sub(before).as_secs_f64() * 1_000.0 / messages as f64)
    }
}

pub async fn measure(arguments: &Arguments) -> Result<()> {
    println!("load average before: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    if arguments.hosts.is_empty() || !arguments.hosts.is_sorted() || arguments.hosts[0] == 0 {
        bail!("--hosts: numbers of hosts that rise, from 1");
    }
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let host = Host::from_environment(folder.path())?;
    let engines = tokio::task::spawn_blocking(Engines::start).await??;
    std::fs::create_dir(folder.path().join("files"))?;
    let settings = engines.settings(folder.path())?;
    let mut table = Table::default();
    buses(&engines, &mut table).await?;
    let mut servers: Vec<Server> = Vec::new();
    let mut accounts = Vec::new();
    for &count in &arguments.hosts {
        while servers.len() < count {
            let name = format!("host-{}", servers.len() + 1);
            let own = [("ECHO_NODE__NAME".to_owned(), name.clone())];
            let settings: Vec<_> = settings.iter().cloned().chain(own).collect();
            servers.push(Server::start_as(&host, &name, &settings).await?);
            if accounts.is_empty() {
                // While there is one host: it alone has the codes.
                accounts = accounts::create(&servers[0], arguments.users).await?;
            }
        }
        accounts::refresh_old(&servers[0], &mut accounts).await?;
        let all: Vec<&Server> = servers.iter().collect();
        let room = Room::over(&all, &accounts).await?;
        room.run(100, Duration::from_secs(2)).await?;
        for &rate in &arguments.rates {
            let before = Cpu::now(&engines, &servers);
            let run = room.run(rate, arguments.duration()).await?;
            let cpu = Cpu::now(&engines, &servers).since(&before, run.sent);
            add(count, rate, &run, cpu, &mut table);
        }
        let highest = delivery::highest(&room, (arguments.duration() / 2).max(Duration::from_secs(4))).await?;
        table.add(row(
            format!("{}: highest rate without loss, p99 < {}", hosts(count), milliseconds(delivery::HIGHEST_P99_US)),
            format!("{}/s", thousands(highest as f64)),
            String::new(),
        ));
    }
    let idle = accounts.len().min(IDLE_MAX);
    if idle > idle::WARM_UP {
        let sizes = idle::grow(&[idle], servers[0].process, |number| Door::echo(&servers[0], &accounts[number])).await?;
        table.add(row(format!("memory per idle socket, {} open", thousands(idle as f64)), format!("{:.1} KiB", sizes[0]), String::new()));
    }
    for server in servers {
        server.stop().await?;
    }
    println!("\n{table}");
    Ok(())
}

fn hosts(count: usize) -> String {
    if count == 1 { "1 host".to_owned() } else { format!("{count} hosts") }
}

fn row(what: String, measured: String, against: String) -> Row {
    Row { part: 'p', what, measured, against, ratio: None, goal: None }
}

fn add(count: usize, rate: u64, run: &Run, cpu: [f64; 4], table: &mut Table) {
    let quantiles = [0.5, 0.99].map(|quantile| format!("{:.2}", run.latency.value_at_quantile(quantile) as f64 / 1_000.0)).join(" / ");
    let flaws = if run.is_whole() { String::new() } else { format!(" ({run})") };
    let rate = thousands(rate as f64);
    table.add(row(format!("{}: send → delivered at {rate}/s, p50 / p99", hosts(count)), format!("{quantiles} ms{flaws}"), String::new()));
    let [echod, postgres, redis, nats] = cpu;
    table.add(row(
        format!("{}: CPU per 1,000 messages at {rate}/s", hosts(count)),
        format!("echod {echod:.2} s, postgres {postgres:.2} s, redis {redis:.2} s, nats {nats:.2} s"),
        String::new(),
    ));
}

/// NATS and Redis Pub/Sub as the bus between two hosts: the same messages at the same rate, and as many as go through at once.
async fn buses(engines: &Engines, table: &mut Table) -> Result<()> {
    let (urls, redis) = (engines.nats.urls().join(","), engines.redis.url());
    let nats: [Arc<dyn HubBus>; 2] = [Arc::new(NatsBus::open(&urls, "bench").await?), Arc::new(NatsBus::open(&urls, "bench").await?)];
    let redis: [Arc<dyn HubBus>; 2] = [Arc::new(RedisBus::open(&redis, "bench")?), Arc::new(RedisBus::open(&redis, "bench")?)];
    let pids = [engines.nats.pids(), vec![engines.redis.pid()]];
    for ((name, [from, to]), pids) in [("NATS", nats), ("Redis", redis)].into_iter().zip(pids) {
        let cpu = || pids.iter().copied().map(cpu_of_all).sum::<Duration>();
        // The first makes the connections.
        bus(&from, &to, 100, Some(BUS_RATE)).await?;
        let before = cpu();
        let paced = bus(&from, &to, 2 * BUS_RATE, Some(BUS_RATE)).await?;
        let used = (cpu().saturating_sub(before)).as_secs_f64() * 1_000.0 / (2 * BUS_RATE) as f64;
        let flood = bus(&from, &to, BUS_FLOOD, None).await?;
        let [p50, p99] = [0.5, 0.99].map(|quantile| milliseconds(paced.latency.value_at_quantile(quantile)));
        table.add(row(
            format!("bus on {name}: publish → received at {}/s, p50 / p99", thousands(BUS_RATE as f64)),
            format!("{p50} / {p99}, {} lost", paced.lost),
            format!("server CPU per 1,000: {used:.3} s"),
        ));
        let per_second = (BUS_FLOOD - flood.lost) as f64 / flood.elapsed.as_secs_f64();
        table.add(row(
            format!("bus on {name}: {} messages at once", thousands(BUS_FLOOD as f64)),
            format!("{}/s, {} lost", thousands(per_second), flood.lost),
            String::new(),
        ));
    }
    Ok(())
}

struct Carried {
    latency: hdrhistogram::Histogram<u64>,
    lost: u64,
    elapsed: Duration,
}

/// Publishes so many, at a rate or as fast as they are taken, and reads them at the other side.
async fn bus(from: &Arc<dyn HubBus>, to: &Arc<dyn HubBus>, count: u64, rate: Option<u64>) -> Result<Carried> {
    let mut received = to.subscribe(&["bench"]).await;
    // Connections are made meanwhile; the subscription is there when it brings what is published.
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let published = from.publish("bench", Bytes::from_static(b"is it there?")).await;
        let answer = tokio::time::timeout(Duration::from_millis(100), received.next()).await;
        if matches!(answer, Ok(Some(Delivery::Message(_)))) {
            break;
        }
        if Instant::now() > until {
            published.context("the bus")?;
            bail!("the bus brings nothing");
        }
    }
    let begin = Instant::now();
    let publisher = tokio::spawn({
        let from = from.clone();
        async move {
            for number in 0..count {
                if let Some(rate) = rate {
                    let due = begin + crate::open_loop::at(number, rate);
                    tokio::time::sleep_until(due.into()).await;
                }
                let mut payload = vec![0; BUS_MESSAGE_BYTES];
                payload[..8].copy_from_slice(&(begin.elapsed().as_micros() as u64).to_be_bytes());
                from.publish("bench", payload.into()).await?;
            }
            anyhow::Ok(())
        }
    });
    let (mut latency, mut seen, mut last) = (latency_histogram(), 0, begin);
    while seen < count {
        match tokio::time::timeout(Duration::from_secs(3), received.next()).await {
            Ok(Some(Delivery::Message(message))) if message.len() == BUS_MESSAGE_BYTES => {
                let sent = u64::from_be_bytes(message[..8].try_into().expect("eight of them"));
                latency.saturating_record((begin.elapsed().as_micros() as u64).saturating_sub(sent));
                (seen, last) = (seen + 1, Instant::now());
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    publisher.await??;
    Ok(Carried { latency, lost: count - seen, elapsed: last.duration_since(begin) })
}
