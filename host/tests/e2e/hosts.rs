//! Several hosts on one PostgreSQL, with a bus between them.

use echo_engines::postgres::Database;

use crate::app::{Person, Socket, TestApp, new_database, on_postgres};
use crate::kill;

/// Hosts that share a database and a Redis; the database goes last.
async fn hosts(count: usize) -> (Database, Vec<TestApp>) {
    let database = new_database();
    let redis = echo_engines::redis::of_this_process().expect("a server");
    let mut settings = on_postgres(&database).to_vec();
    settings.push(("ECHO_CACHE__URL".to_owned(), redis));
    settings.push(("ECHO_CACHE__PREFIX".to_owned(), database.url().rsplit('/').next().expect("a name").replace('_', "-")));
    let mut hosts = Vec::new();
    for _ in 0..count {
        let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        hosts.push(TestApp::with(&kill::SERVICES, &settings).await);
    }
    (database, hosts)
}

async fn texts(socket: &mut Socket, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        texts.push(socket.next_of("message").await["payload"]["content"].as_str().expect("a text").to_owned());
    }
    texts
}

#[tokio::test]
async fn a_message_reaches_devices_on_every_host_in_its_order() {
    let (_database, hosts) = hosts(2).await;
    let ada = hosts[0].someone().await;
    let bala: Person = hosts[1].someone().await;
    let talk = hosts[0].group(&ada, &[&bala]).await;
    let mut of_ada = hosts[0].socket(&ada, None).await;
    let mut of_bala = hosts[1].socket(&bala, None).await;
    for number in 0..20 {
        let (host, sender) = if number % 2 == 0 { (&hosts[0], &ada) } else { (&hosts[1], &bala) };
        host.say(sender, &talk, &number.to_string()).await;
    }
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(texts(&mut of_bala, 20).await, expected);
    assert_eq!(texts(&mut of_ada, 20).await, expected);
}

#[tokio::test]
async fn a_device_that_comes_to_another_host_leaves_the_first_and_misses_nothing() {
    let (_database, hosts) = hosts(2).await;
    let ada = hosts[0].someone().await;
    let bala = hosts[1].someone().await;
    let talk = hosts[0].group(&ada, &[&bala]).await;
    let mut first = hosts[1].socket(&bala, None).await;
    hosts[0].say(&ada, &talk, "one").await;
    assert_eq!(texts(&mut first, 1).await, ["one"]);
    let cursor = first.cursor();
    let mut second = hosts[0].socket(&bala, Some(cursor)).await;
    assert_eq!(first.closed().await, Some(4409), "replaced");
    hosts[0].say(&ada, &talk, "two").await;
    assert_eq!(texts(&mut second, 1).await, ["two"]);
}
