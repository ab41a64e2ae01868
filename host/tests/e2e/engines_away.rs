//! Engines that stop answering, die, or forget everything, and come back, while people write to each other: nothing is lost, nothing comes twice, feeds
//! have no gap, conversations keep their order, sockets stay open.

use std::time::Duration;

use echo_engines::nats::Nats;
use echo_engines::postgres::Postgres;
use echo_engines::redis::Redis;
use reqwest::StatusCode;
use tokio::sync::watch;

use crate::app::{TestApp, on_database, until};
use crate::kill::{self, people_write_while};

/// Of one test alone.
struct Engines {
    postgres: Postgres,
    redis: Redis,
    nats: Nats,
}

impl Engines {
    fn start() -> Self {
        let below = std::env::temp_dir();
        let nats = Nats::start(&below, 3).unwrap_or_else(|error| panic!("{error}"));
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

/// The host is ready, with all that it has.
async fn is_up(app: &TestApp) {
    until("the host to be up", async || {
        let ready = app.get("/ready").send().await;
        (ready.status == StatusCode::OK && ready["status"] == "up").then_some(())
    })
    .await;
}

async fn people_write_while_engines_are_away(what: &str, away: impl AsyncFnOnce(&mut Engines)) {
    let mut engines = Engines::start();
    let mut app = engines.host().await;
    is_up(&app).await;
    let (addresses, _) = watch::channel(vec![app.url.clone()]);
    let seen = people_write_while(&mut app, &addresses, async |app, _| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        away(&mut engines).await;
        is_up(app).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    })
    .await;
    println!("{what}: {} messages answered, {} sent again, {} connections of devices", seen.answered, seen.retries, seen.connections);
    assert!(seen.answered > 20, "only {} messages were answered", seen.answered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_forgets_everything_stops_and_dies_costs_no_message() {
    people_write_while_engines_are_away("Redis", async |engines| {
        for _ in 0..20 {
            engines.redis.flush().expect("FLUSHALL");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        engines.redis.signal("STOP").expect("SIGSTOP");
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
    people_write_while_engines_are_away("NATS", async |engines| {
        engines.nats.signal("STOP").expect("SIGSTOP");
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
    people_write_while_engines_are_away("PostgreSQL", async |engines| {
        engines.postgres.stop().expect("SIGSTOP");
        tokio::time::sleep(Duration::from_secs(3)).await;
        engines.postgres.go_on().expect("SIGCONT");
        tokio::time::sleep(Duration::from_secs(1)).await;
        engines.postgres.kill().expect("SIGKILL");
        tokio::time::sleep(Duration::from_secs(2)).await;
        engines.postgres.start_again().expect("it starts");
    })
    .await;
}
