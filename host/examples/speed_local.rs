use echod::capabilities::events::Event;
use echod::capabilities::sql::{sqlite::SqliteBackend, *};
use echod::names::ServiceName;
use futures_util::future::join_all;
use std::sync::Arc;
use uuid::Uuid;
fn text(t: &str) -> Value {
    Value::Text(t.into())
}
fn event(key: &str) -> Effect {
    Effect::Event(Event {
        id: Uuid::now_v7(),
        topic: "test.happened".into(),
        key: key.into(),
        payload: "{\"a\":1,\"b\":\"some text of an event, about two hundred bytes long, as they are\"}".into(),
        at_us: 1,
        correlation_id: "c".into(),
    })
}
const SCHEMA: &str = "
    CREATE TABLE person (id TEXT PRIMARY KEY, name TEXT NOT NULL, age BIGINT CHECK (age >= 0));
    CREATE UNIQUE INDEX person_name ON person (name);
    CREATE TABLE pet (owner TEXT NOT NULL REFERENCES person (id), name TEXT, PRIMARY KEY (owner, name));";
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let backend = SqliteBackend::new(folder.path());
    let database: Arc<dyn Database> = backend.open(&ServiceName::parse("alpha").unwrap()).await.unwrap();
    database.migrate(&[Migration { name: "a".into(), dialect: "sqlite".into(), sql: SCHEMA.into() }]).await.unwrap();
    database.execute("INSERT INTO person (id, name, age) VALUES ('a', 'a', 1)", vec![]).await.unwrap();
    for tasks in [1usize, 4, 16, 64] {
        let begin = std::time::Instant::now();
        let per = 20_000 / tasks;
        join_all((0..tasks).map(|_| {
            let database = database.clone();
            tokio::spawn(async move {
                for _ in 0..per {
                    database.query_one("SELECT name FROM person WHERE id = $1", vec![text("a")]).await.unwrap();
                }
            })
        }))
        .await;
        println!("{tasks} tasks: {:.0} reads/s", (per * tasks) as f64 / begin.elapsed().as_secs_f64());
        let per = 10_000 / tasks;
        let begin = std::time::Instant::now();
        let lat: Vec<_> = join_all((0..tasks).map(|_| {
            let database = database.clone();
            tokio::spawn(async move {
                let mut lat = vec![];
                for _ in 0..per {
                    let t0 = std::time::Instant::now();
                    let mut t = database.begin().await.unwrap();
                    let id = Uuid::now_v7().to_string();
                    for _ in 0..4 {
                        t.query_one("SELECT name FROM person WHERE id = $1", vec![text("a")]).await.unwrap();
                    }
                    t.execute("UPDATE person SET age = age + 1 WHERE id = $1", vec![text("a")]).await.unwrap();
                    t.execute("INSERT INTO person (id, name) VALUES ($1, $1)", vec![text(&id)]).await.unwrap();
                    t.execute("INSERT INTO pet (owner, name) VALUES ($1, $1)", vec![text(&id)]).await.unwrap();
                    t.execute("INSERT INTO pet (owner, name) VALUES ($1, 'b')", vec![text(&id)]).await.unwrap();
                    t.emit(event("a")).await.unwrap();
                    t.emit(event("a")).await.unwrap();
                    t.commit().await.unwrap();
                    lat.push(t0.elapsed().as_micros());
                }
                lat
            })
        }))
        .await;
        let took = begin.elapsed().as_secs_f64();
        let mut lat: Vec<u128> = lat.into_iter().flat_map(|l| l.unwrap()).collect();
        lat.sort();
        println!(
            "{tasks} tasks: {:.0} transactions/s of 8 statements and 2 effects; p50 {} p99 {} max {} us",
            (per * tasks) as f64 / took,
            lat[lat.len() / 2],
            lat[lat.len() * 99 / 100],
            lat[lat.len() - 1]
        );
    }
    backend.close().await;
}
