//! What leases do, whoever keeps them.

use std::time::{Duration, Instant};

use super::Leases;
use super::postgres::PostgresLeases;
use super::process::ProcessLeases;
use crate::sql::postgres::fixture::{Server, settings};

const LONG: Duration = Duration::from_secs(60);

async fn passes(leases: &dyn Leases) {
    let first = leases.take("a", LONG).await.expect("answers").expect("free");
    assert_eq!(leases.take("a", LONG).await.expect("answers"), Some(first), "it lasts from now, under the same number");
    assert!(leases.take("b", LONG).await.expect("answers").is_some());
    let names: Vec<String> = leases.held().await.expect("answers").into_iter().map(|held| held.name).collect();
    assert_eq!(names, ["a", "b"]);
    leases.give_back("a").await.expect("answers");
    leases.give_back("never taken").await.expect("answers");
    assert_eq!(leases.held().await.expect("answers").len(), 1);
    let again = leases.take("a", LONG).await.expect("answers").expect("free");
    assert!(again.epoch > first.epoch, "{again:?} after {first:?}");
}

#[tokio::test]
async fn those_of_a_host_alone_pass() {
    passes(&ProcessLeases::new("one")).await;
}

#[tokio::test]
async fn those_in_postgres_pass() {
    let server = Server::start().await;
    let leases = PostgresLeases::open(&server.backend_of("one", "leases", settings(4)).await).await.expect("opens");
    passes(&leases).await;
}

#[tokio::test]
async fn of_hosts_that_want_a_lease_one_has_it_until_its_time_is_over() {
    let server = Server::start().await;
    let open = async |node: &str| {
        let backend = server.backend_of(node, "between", settings(4)).await;
        PostgresLeases::open(&backend).await.expect("opens")
    };
    let (one, other) = (open("one").await, open("other").await);
    let (first, second) = tokio::join!(one.take("work", LONG), other.take("work", LONG));
    let (first, second) = (first.expect("answers"), second.expect("answers"));
    assert!(first.is_some() != second.is_some(), "{first:?} {second:?}");
    let (has, has_not) = if first.is_some() { (&one, &other) } else { (&other, &one) };
    assert_eq!(has_not.take("work", LONG).await.expect("answers"), None);

    // Given back: the other has it at once, under a higher number, and what the first does not have it cannot give back.
    let before = has.take("work", LONG).await.expect("answers").expect("its own");
    has.give_back("work").await.expect("answers");
    let after = has_not.take("work", LONG).await.expect("answers").expect("free");
    assert!(after.epoch > before.epoch);
    has.give_back("work").await.expect("answers");
    assert_eq!(has.take("work", LONG).await.expect("answers"), None);

    // A host that stops: its time ends by the database's clock.
    let short = has.take("brief", Duration::from_millis(300)).await.expect("answers").expect("free");
    let until = Instant::now() + Duration::from_secs(20);
    let taken = loop {
        if let Some(taken) = has_not.take("brief", LONG).await.expect("answers") {
            break taken;
        }
        assert!(Instant::now() < until, "it never ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(taken.epoch > short.epoch);
    assert_eq!(has.take("brief", LONG).await.expect("answers"), None, "whatever it believes");

    // A host that was killed: what it had is its own, under a new number.
    let killed = has_not.take("kept", LONG).await.expect("answers").expect("free");
    let node = if first.is_some() { "other" } else { "one" };
    let restarted = open(node).await.take("kept", LONG).await.expect("answers").expect("its own");
    assert!(restarted.epoch > killed.epoch);
}
