//! Several hosts on one PostgreSQL, with a bus between them.

use std::time::Duration;

use echo_engines::postgres::Database;
use echo_engines::s3::S3;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::app::{Person, Socket, TestApp, new_database, on_postgres};
use crate::backing::{on_bucket, shared_by_hosts};
use crate::kill::{self, Scale};

mod across;
pub mod network;
mod rolling;
mod stopped;

/// Kills in every run. `ECHO_HOST_KILLS` asks for so many, among 300 sockets and about 200 messages in a second.
const KILLS: usize = 4;
const BETWEEN_KILLS: Duration = Duration::from_secs(5);

async fn hosts(count: usize, further: &[(&str, &str)]) -> (Database, Vec<TestApp>) {
    hosts_of(&kill::SERVICES, count, further).await
}

/// Hosts that share a database, a Redis, a NATS and a bucket; the database goes last.
async fn hosts_of(services: &[&str], count: usize, further: &[(&str, &str)]) -> (Database, Vec<TestApp>) {
    let database = new_database();
    let mut settings = on_postgres(&database).to_vec();
    settings.extend(tokio::task::spawn_blocking(shared_by_hosts).await.expect("no panic"));
    settings.extend(further.iter().map(|(key, value)| (key.to_string(), value.to_string())));
    let mut hosts = Vec::new();
    for _ in 0..count {
        let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        hosts.push(TestApp::with(services, &settings).await);
    }
    (database, hosts)
}

/// Where all of them are.
fn urls(hosts: &[TestApp], first: &TestApp) -> Vec<String> {
    hosts.iter().chain([first]).map(|host| host.url.clone()).collect()
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

/// The first piece at one host, the second at the other, read at both.
#[tokio::test]
async fn a_file_that_came_to_one_host_is_read_at_another() {
    let (_database, hosts) = hosts_of(&["auth", "location", "media", "message", "notification", "user"], 2, &[]).await;
    let ada = hosts[0].someone().await;
    let bytes: Vec<u8> = (0..2_500_000_u32).map(|at| (at % 251) as u8).collect();
    let tus = |host: &TestApp, method: Method, path: &str| host.request(method, path).by(&ada).header("tus-resumable", "1.0.0");
    let created = tus(&hosts[0], Method::POST, "/api/v1/media").header("upload-length", "2500000").send().await;
    let location = created.header("location").to_owned();
    created.expect(StatusCode::CREATED);
    for (host, (from, to)) in hosts.iter().zip([(0, 1_500_000), (1_500_000, 2_500_000)]) {
        let patch = tus(host, Method::PATCH, &location).header("content-type", "application/offset+octet-stream");
        patch.header("upload-offset", &from.to_string()).bytes(bytes[from..to].to_vec()).send().await.expect(StatusCode::NO_CONTENT);
    }
    for host in &hosts {
        let answer =
            host.client.get(format!("{}{location}/content", host.url)).bearer_auth(&ada.access_token).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(answer.bytes().await.expect("a body") == bytes, "at {}", host.url);
    }
    let part = hosts[1].get(&format!("{location}/content")).by(&ada).header("range", "bytes=1048570-1048580").send().await;
    assert_eq!(part.header("content-range"), "bytes 1048570-1048580/2500000");
    hosts[1].delete(&location).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    hosts[0].get(&format!("{location}/content")).by(&ada).send().await.expect_problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_away_costs_files_for_that_time_and_nothing_else() {
    let below = tempfile::tempdir().expect("a folder");
    let bucket = tokio::task::block_in_place(|| S3::start(below.path())).unwrap_or_else(|error| panic!("{error}"));
    let settings = on_bucket(&bucket.endpoint(), "files");
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let app = TestApp::with(&["auth", "location", "media", "notification", "user"], &settings).await;
    let ada = app.someone().await;
    let upload = async |bytes: &str| {
        let form = format!("--B\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{bytes}\r\n--B--\r\n");
        let ask = app.request(Method::POST, "/api/v1/media/upload").by(&ada);
        ask.header("content-type", "multipart/form-data; boundary=B").bytes(form).send().await
    };
    let content = |media: &Value| format!("/api/v1/media/{}/content", media["id"].as_str().expect("id"));
    let before = upload("before").await.expect(StatusCode::CREATED);
    bucket.signal("STOP").expect("SIGSTOP");
    let refused = upload("meanwhile").await;
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{refused:?}");
    refused.expect_problem(503, "blobs_unavailable");
    let unread = app.get(&content(&before)).by(&ada).send().await;
    assert!(!unread.header("retry-after").is_empty());
    unread.expect_problem(503, "blobs_unavailable");
    let ready = app.get("/ready").send().await.expect(StatusCode::OK);
    assert_eq!((&ready["status"], &ready["checks"]["database"]["status"]), (&json!("degraded"), &json!("up")), "{ready}");
    bucket.signal("CONT").expect("SIGCONT");
    let after = upload("after").await.expect(StatusCode::CREATED);
    for (media, bytes) in [(before, "before"), (after, "after")] {
        let answer = app.client.get(format!("{}{}", app.url, content(&media))).bearer_auth(&ada.access_token).send().await;
        assert_eq!(answer.expect("an answer").text().await.expect("a body"), bytes);
    }
    let usage = app.get("/api/v1/media/usage").by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!(usage["files"], 2, "what was refused is no file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_hosts_is_killed_again_and_again_and_nothing_is_lost_or_doubled() {
    let asked = std::env::var("ECHO_HOST_KILLS").ok().map(|count| count.parse().expect("a number"));
    let (kills, scale) = asked.map_or((KILLS, Scale::default()), |kills| (kills, Scale::LARGE));
    let (_database, mut hosts) = hosts(3, &kill::SETTINGS).await;
    let mut first = hosts.remove(0);
    let (addresses, _) = watch::channel(urls(&hosts, &first));
    let seen = kill::people_write_while_at(scale, &mut first, &addresses, async |first, _| {
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
        "{kills} kills: {} messages answered in {:.0?} by {} devices, {} requests repeated, {} connections; the longest silence of a device {:.1?}",
        seen.answered, seen.lasted, seen.devices, seen.retries, seen.connections, seen.longest_silence,
    );
    assert!(seen.answered > kills * 20, "only {} messages", seen.answered);
}
