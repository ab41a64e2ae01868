//! Services' data and the feeds in PostgreSQL. `ECHO_TEST_SQL=postgres cargo test -p echod --test e2e` runs every story there.

use std::ops::Range;
use std::process::Command;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::StatusCode;
use serde_json::json;
use tokio::sync::watch;

use crate::app::{ALL, TestApp, new_database, on_postgres, until};
use crate::{kill, stored, story};

const KILLS: usize = 8;
/// Longer than with SQLite: each life begins with new connections, for which PostgreSQL starts a process each.
const LIFE_MS: Range<u64> = 500..4_000;

#[tokio::test]
async fn two_people_meet_and_talk_on_postgres() {
    story::walk(&TestApp::with_postgres(&ALL, &[]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_and_double_nothing_on_postgres() {
    let mut app = TestApp::with_postgres(&kill::SERVICES, &kill::SETTINGS).await;
    let (addresses, _) = watch::channel(vec![app.url.clone()]);
    kill::people_write_while_the_host_is_killed(&mut app, &addresses, (KILLS, LIFE_MS), |_| {}).await;
}

/// A pool of two, one of which is the host's own: a transaction that stays open would be noticed at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_vanish_leave_no_transaction_open() {
    let settings = [("ECHO_SQL__MAX_OPEN", "2"), ("ECHO_SQL__MAX_IDLE", "2")];
    let app = TestApp::with_postgres(&kill::SERVICES, &settings).await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let mut random = StdRng::seed_from_u64(1);
    let vanishing = (0..500).map(|number| {
        let patience = Duration::from_micros(random.random_range(0..3_000));
        let message = app.text(&ada, &talk, &format!("vanishing-{number}"), "gone").try_send();
        tokio::time::timeout(patience, message)
    });
    // Few at a time, so that most of them reach the database.
    let outcomes: Vec<_> = stream::iter(vanishing).buffer_unordered(8).collect().await;
    let answered = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    println!("{answered} of 500 were answered before they vanished");
    assert!(answered < 450, "hardly any client vanished");
    for number in 0..100 {
        let sent = app.text(&ada, &talk, &format!("good-{number}"), "here").send().await;
        assert_eq!(sent.status, StatusCode::CREATED, "{number}: {:?}", sent.body);
    }
    let log = app.log();
    assert!(!log.contains("25P02") && !log.contains("current transaction is aborted"), "{log}");
    until("no transaction to be open", async || {
        let idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
        (stored::number(&app, "message", idle) == Some(0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_to_a_thousand_takes_as_few_statements_as_one_to_two() {
    const MEMBERS: i64 = 1_000;
    const MESSAGES: i64 = 5;
    let app = TestApp::with_postgres(&kill::SERVICES, &[]).await;
    let (ada, bala) = app.two().await;
    let [small, large] = [app.group(&ada, &[&bala]).await, app.group(&ada, &[&bala]).await];
    // The others never sign in: only their rows count.
    let others = format!(
        "INSERT INTO participants SELECT (jsonb_populate_record(p, jsonb_build_object('user_id', gen_random_uuid()))).*
         FROM participants p, generate_series(3, {MEMBERS}) WHERE p.conversation_id = '{large}' AND p.user_id = '{}'",
        bala.id
    );
    stored::execute(&app, "message", &others);
    let made = "SELECT sum(calls)::bigint FROM public.pg_stat_statements WHERE query ~* '^ *(insert|update|delete|with|select)'
                AND query !~ 'pg_stat_statements' AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let mut socket = app.socket(&bala, None).await;
    let mut counts = Vec::new();
    for group in [&small, &large, &small, &large] {
        app.say(&ada, group, "first").await;
        socket.next_of("message").await;
        let before = stored::number(&app, "message", made).expect("a number");
        for _ in 0..MESSAGES {
            app.say(&ada, group, "hello").await;
            socket.next_of("message").await;
        }
        counts.push((stored::number(&app, "message", made).expect("a number") - before) / MESSAGES);
    }
    println!("statements per message: {counts:?} (2 members, {MEMBERS}, 2, {MEMBERS})");
    assert!(counts[3] <= counts[2] * 2 + 10, "{counts:?}");
    let in_feeds = format!(
        "SELECT count(*) FROM echo.feed_entry e WHERE e.user_id IN (SELECT user_id FROM participants WHERE conversation_id = '{large}')"
    );
    until("all feeds to have it", async || {
        stored::number(&app, "message", &in_feeds).filter(|entries| *entries >= 2 * MEMBERS * (MESSAGES + 1))
    })
    .await;
}

#[tokio::test]
async fn many_who_write_into_one_conversation_are_all_answered() {
    const EACH: usize = 10;
    let app = TestApp::with_postgres(&kill::SERVICES, &[]).await;
    let reader = app.someone().await;
    let senders = join_all((0..8).map(|_| app.someone())).await;
    let group = app.group(&reader, &senders.iter().collect::<Vec<_>>()).await;
    let mut of_reader = app.socket(&reader, None).await;
    join_all(senders.iter().map(async |sender| {
        for _ in 0..EACH {
            app.say(sender, &group, "hello").await;
        }
    }))
    .await;
    let mut seqs = Vec::new();
    while seqs.len() < senders.len() * EACH {
        seqs.extend(of_reader.next_of("message").await["payload"]["seq"].as_u64());
    }
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "in their order, without a gap");
}

#[tokio::test]
async fn a_database_that_is_away_is_said_and_comes_back_by_itself() {
    let database = new_database();
    let settings = on_postgres(&database);
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let app = TestApp::with(&kill::SERVICES, &settings).await;
    let [ada, bala] = [app.someone().await, app.someone().await];
    let talk = app.group(&ada, &[&bala]).await;
    let mut socket = app.socket(&bala, None).await;
    app.say(&ada, &talk, "before").await;
    socket.next_of("message").await;

    let (server, name) = database.url().rsplit_once('/').expect("an address");
    let operator = |sql: &str| {
        let done = Command::new("psql").args(["-qAt", "-d", &format!("{server}/postgres"), "-c", sql]).status().expect("psql is there");
        assert!(done.success(), "{sql}");
    };
    operator(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
    // A connection that was about to be made when the database was closed is ended with the next try.
    until("the host to see that it is away", async || {
        operator(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"));
        (app.get("/ready").send().await.status == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    let message = json!({ "conversation_id": talk, "client_message_id": "away", "type": "text", "content": "while it is away" });
    let refused = app.post("/api/v1/messages", message.clone()).by(&ada).send().await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", refused.body);
    assert!(refused.headers.contains_key("retry-after"), "{:?}", refused.headers);

    operator(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"));
    until("the host to be ready again", async || (app.get("/ready").send().await.status == StatusCode::OK).then_some(())).await;
    // The same socket, the same message.
    until("the message to be taken", async || {
        let sent = app.post("/api/v1/messages", message.clone()).by(&ada).send().await;
        (sent.status == StatusCode::CREATED).then_some(())
    })
    .await;
    assert_eq!(socket.next_of("message").await["payload"]["content"], "while it is away");
}

const MASTER_KEY: [(&str, &str); 2] =
    [("ECHO_TOKENS__MASTER_KEY", "env:KEY_OF_TEST"), ("KEY_OF_TEST", "the master key of tests, 32 characters or more")];

#[test]
fn wrong_mixtures_are_refused_with_the_reason() {
    for (settings, expect) in [
        (vec![("ECHO_SQL__URL", "mysql://x/y")], "env:NAME"),
        (vec![("ECHO_SQL__URL", "postgres://echo:secret@localhost/echo")], "env:NAME"),
        (vec![("ECHO_SQL__URL", "postgres://echo@localhost")], "names no database"),
        (vec![("ECHO_SQL__URL", "postgres://echo@localhost/echo"), ("ECHO_SQL__SYNCHRONOUS", "normal")], "sql.synchronous is for SQLite"),
        (
            vec![("ECHO_SQL__URL", "postgres://echo@localhost/echo"), ("ECHO_SQL__SERVICE_BYTES_MAX", "5000000")],
            "service_bytes_max is for SQLite",
        ),
        (vec![("ECHO_SQL__PASSWORD", "env:SECRET_OF_TEST"), ("SECRET_OF_TEST", "s3cret")], "sql.url, which is not set"),
        (vec![("ECHO_SQL__MAX_OPEN", "1")], "sql.max_open"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_echod"));
        command.args(["serve", "--check"]).envs(MASTER_KEY).envs(settings.iter().copied());
        let output = command.output().expect("echod runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(expect), "{settings:?}: {said}");
        assert!(!said.contains("echo:secret") && !said.contains("s3cret"), "a password is shown: {said}");
    }
    let good = [
        ("ECHO_SQL__URL", "postgres://echo@db.example.org/echo"),
        ("ECHO_SQL__PASSWORD", "env:SECRET_OF_TEST"),
        ("SECRET_OF_TEST", "s3cret/@:"),
    ];
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_echod"));
        command.args(["serve", "--check"]).envs(good);
        command
    };
    let output = check().envs(MASTER_KEY).output().expect("echod runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = check().output().expect("echod runs");
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("openssl rand -base64 32"), "{output:?}");
}
