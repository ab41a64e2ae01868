//! Engines that stop answering, die, or forget everything, and come back, while people write to each other: nothing is lost, nothing comes twice, feeds
//! have no gap, conversations keep their order, sockets stay open.

use std::time::Duration;

use echo_engines::nats::Nats;
use echo_engines::postgres::Postgres;
use echo_engines::redis::Redis;
use reqwest::StatusCode;
use tokio::sync::watch;

use crate::app::{TestApp, on_database, until};
use crate::hosts::network::Network;
use crate::kill::{self, people_write_while};

/// Of one test alone.
struct Engines {
    postgres: Postgres,
    redis: Redis,
    nats: Nats,
}

impl Engines {
    fn start(nats_nodes: usize) -> Self {
        let below = std::env::temp_dir();
        let nats = Nats::start(&below, nats_nodes).unwrap_or_else(|error| panic!("{error}"));
        let postgres = Postgres::start(&below).unwrap_or_else(|error| panic!("{error}"));
        let redis = Redis::start(&below).unwrap_or_else(|error| panic!("{error}"));
        Self { postgres, redis, nats }
    }

    async fn host(&self) -> TestApp {
        let database = self.postgres.make_database("echo").expect("a database");
        let (redis, nats) = (self.redis.url(), self.nats.urls().join(","));
        let on_database = on_database(&database);
        let mut settings: Vec<(&str, &str)> = on_database.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        settings.extend([("ECHO_CACHE__URL", redis.as_str()), ("ECHO_EVENTS__URL", nats.as_str())]);
        settings.extend(kill::SETTINGS);
        TestApp::with(&kill::SERVICES, &settings).await
    }
}

/// What `/ready` says of the host, and that this engine is not there.
async fn says(app: &TestApp, status: &str, engine: &str) {
    until(&format!("the host to say {status} without its {engine}"), async || {
        let ready = app.get("/ready").send().await;
        let is_down = ready.status == StatusCode::SERVICE_UNAVAILABLE;
        (ready["status"] == status && is_down == (status == "down") && ready["checks"][engine]["status"] != "up").then_some(())
    })
    .await;
}

/// The host is ready, with all that it has.
async fn is_up(app: &TestApp) {
    until("the host to be up", async || {
        let ready = app.get("/ready").send().await;
        (ready.status == StatusCode::OK && ready["status"] == "up").then_some(())
    })
    .await;
}

async fn people_write_while_engines_are_away(what: &str, away: impl AsyncFnOnce(&mut Engines, &TestApp)) {
    let mut engines = Engines::start(3);
    let mut app = engines.host().await;
    is_up(&app).await;
    let (addresses, _) = watch::channel(vec![app.url.clone()]);
    let seen = people_write_while(&mut app, &addresses, async |app, _| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        away(&mut engines, app).await;
        is_up(app).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    })
    .await;
    println!("{what}: {} messages answered, {} sent again, {} connections of devices", seen.answered, seen.retries, seen.connections);
    assert!(seen.answered > 20, "only {} messages were answered", seen.answered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_forgets_everything_stops_and_dies_costs_no_message() {
    people_write_while_engines_are_away("Redis", async |engines, app| {
        for _ in 0..20 {
            engines.redis.flush().expect("FLUSHALL");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        engines.redis.signal("STOP").expect("SIGSTOP");
        says(app, "degraded", "cache").await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        engines.redis.signal("CONT").expect("SIGCONT");
        tokio::time::sleep(Duration::from_secs(1)).await;
        engines.redis.signal("KILL").expect("SIGKILL");
        tokio::time::sleep(Duration::from_secs(2)).await;
        engines.redis.start_again().expect("it starts");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_that_stops_dies_and_forgets_everything_costs_no_message() {
    people_write_while_engines_are_away("NATS", async |engines, app| {
        engines.nats.signal("STOP").expect("SIGSTOP");
        says(app, "degraded", "queue").await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        engines.nats.signal("CONT").expect("SIGCONT");
        tokio::time::sleep(Duration::from_secs(1)).await;
        engines.nats.signal("KILL").expect("SIGKILL");
        tokio::time::sleep(Duration::from_secs(2)).await;
        engines.nats.start_again().expect("it starts");
        tokio::time::sleep(Duration::from_secs(1)).await;
        // All three, with their folders.
        engines.nats.start_empty().expect("it starts");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_that_stops_and_dies_costs_no_message() {
    people_write_while_engines_are_away("PostgreSQL", async |engines, app| {
        engines.postgres.stop().expect("SIGSTOP");
        says(app, "down", "database").await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        engines.postgres.go_on().expect("SIGCONT");
        tokio::time::sleep(Duration::from_secs(1)).await;
        engines.postgres.kill().expect("SIGKILL");
        tokio::time::sleep(Duration::from_secs(2)).await;
        engines.postgres.start_again().expect("it starts");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_engines_that_stop_and_die_at_once_cost_no_message() {
    people_write_while_engines_are_away("all engines", async |engines, app| {
        engines.nats.signal("STOP").expect("SIGSTOP");
        engines.redis.signal("STOP").expect("SIGSTOP");
        engines.postgres.stop().expect("SIGSTOP");
        for engine in ["database", "cache", "queue"] {
            says(app, "down", engine).await;
        }
        engines.postgres.go_on().expect("SIGCONT");
        engines.redis.signal("CONT").expect("SIGCONT");
        engines.nats.signal("CONT").expect("SIGCONT");
        is_up(app).await;
        engines.nats.signal("KILL").expect("SIGKILL");
        engines.redis.signal("KILL").expect("SIGKILL");
        engines.postgres.kill().expect("SIGKILL");
        tokio::time::sleep(Duration::from_secs(2)).await;
        // The one that all wait for comes last.
        engines.redis.start_again().expect("it starts");
        engines.nats.start_again().expect("it starts");
        engines.postgres.start_again().expect("it starts");
    })
    .await;
}

/// Longer than leases last.
const CUT: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_cut_off_from_one_engine_says_so_and_costs_no_message() {
    // Of a cluster the client would learn the addresses beside the network.
    let engines = Engines::start(1);
    let database = engines.postgres.make_database("echo").expect("a database");
    let (redis, nats) = (engines.redis.url(), engines.nats.urls().join(","));
    let networks = [Network::to(&database).await, Network::to(&redis).await, Network::to(&nats).await];
    let of_second = [networks[0].through(&database), networks[1].through(&redis), networks[2].through(&nats)];
    let folder = tempfile::tempdir().expect("a folder");
    let files = format!("file:{}", folder.path().display());
    let mut hosts = Vec::new();
    for [database, redis, nats] in [[&database, &redis, &nats], [&of_second[0], &of_second[1], &of_second[2]]] {
        let on_database = on_database(database);
        let mut settings: Vec<(&str, &str)> = on_database.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        settings.extend([("ECHO_CACHE__URL", redis.as_str()), ("ECHO_EVENTS__URL", nats.as_str()), ("ECHO_BLOB__URL", files.as_str())]);
        settings.extend(kill::SETTINGS);
        hosts.push(TestApp::with(&kill::SERVICES, &settings).await);
    }
    let (second, mut first) = (hosts.pop().expect("two"), hosts.pop().expect("two"));
    is_up(&first).await;
    is_up(&second).await;
    let (addresses, _) = watch::channel(vec![first.url.clone(), second.url.clone()]);
    let seen = people_write_while(&mut first, &addresses, async |first, _| {
        for (network, engine, status) in
            [(&networks[1], "cache", "degraded"), (&networks[2], "queue", "degraded"), (&networks[0], "database", "down")]
        {
            tokio::time::sleep(Duration::from_secs(1)).await;
            network.cut();
            says(&second, status, engine).await;
            is_up(first).await;
            tokio::time::sleep(CUT).await;
            network.mend();
            is_up(&second).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    })
    .await;
    println!(
        "cut networks: {} messages answered, {} sent again; longest silence {:.1?}",
        seen.answered, seen.retries, seen.longest_silence
    );
    assert!(seen.answered > 100, "only {} messages were answered", seen.answered);
}
