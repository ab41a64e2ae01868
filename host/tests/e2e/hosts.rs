//! Several hosts on one PostgreSQL, with a bus between them.

use std::time::Duration;

use echo_engines::postgres::Database;
use tokio::sync::watch;

use crate::app::{Person, Socket, TestApp, new_database, on_postgres};
use crate::backing::shared_by_hosts;
use crate::kill;

/// Kills in every run; `ECHO_HOST_KILLS` asks for more.
const KILLS: usize = 4;
const BETWEEN_KILLS: Duration = Duration::from_secs(5);

/// Hosts that share a database, a Redis and a NATS; the database goes last.
async fn hosts(count: usize, further: &[(&str, &str)]) -> (Database, Vec<TestApp>) {
    let database = new_database();
    let mut settings = on_postgres(&database).to_vec();
    settings.extend(tokio::task::spawn_blocking(shared_by_hosts).await.expect("no panic"));
    settings.extend(further.iter().map(|(key, value)| (key.to_string(), value.to_string())));
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
    let (_database, hosts) = hosts(2, &[]).await;
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
    let (_database, hosts) = hosts(2, &[]).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_hosts_is_killed_again_and_again_and_nothing_is_lost_or_doubled() {
    let kills = std::env::var("ECHO_HOST_KILLS").map_or(KILLS, |count| count.parse().expect("a number"));
    let (_database, mut hosts) = hosts(3, &kill::SETTINGS).await;
    let urls = |hosts: &[TestApp], first: &TestApp| -> Vec<String> { hosts.iter().chain([first]).map(|host| host.url.clone()).collect() };
    let mut first = hosts.remove(0);
    let (addresses, _) = watch::channel(urls(&hosts, &first));
    let seen = kill::people_write_while(&mut first, &addresses, async |first, _| {
        for kill in 0..kills {
            tokio::time::sleep(BETWEEN_KILLS).await;
            // Each in its turn: also the one that has most of the leases.
            let (others, victim) = match kill % 3 {
                0 => (urls(&hosts, first)[..2].to_vec(), &mut *first),
                number => {
                    let gone = hosts[number - 1].url.clone();
                    (urls(&hosts, first).into_iter().filter(|url| *url != gone).collect(), &mut hosts[number - 1])
                }
            };
            victim.kill();
            addresses.send_replace(others);
            victim.restart().await;
            addresses.send_replace(urls(&hosts, first));
        }
    })
    .await;
    println!(
        "{kills} kills: {} messages answered, {} requests repeated, {} connections; the longest silence of a device {:.1?}",
        seen.answered, seen.retries, seen.connections, seen.longest_silence,
    );
    assert!(seen.answered > kills * 20, "only {} messages", seen.answered);
}
