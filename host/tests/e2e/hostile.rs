//! A service that misbehaves in every way it can: each time a clear answer within a bounded time, and nobody else is hurt.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{PATIENCE, Reply, TestApp, until};
use crate::candidate::repacked;

/// What a call may take until the host has answered for the service, whatever the service does: far above any of its bounds but `wall`,
/// and far below the request's time-out.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// What a cheap call of another service may take meanwhile: two thousand times what it takes alone, for the machine may be busy; and less than
/// one call that holds a thread to its bound.
const NEIGHBOUR_TIME: Duration = Duration::from_secs(2);
const NEIGHBOURS_CALLS_MIN: usize = 20;

async fn start() -> TestApp {
    TestApp::with(&["hostile", "location"], &[]).await
}

async fn call(app: &TestApp, function: &str, body: Value) -> Reply {
    let begin = Instant::now();
    let reply = app.post(&format!("/api/v1/hostile/{function}"), body).send().await;
    let took = begin.elapsed();
    assert!(took < ANSWER_TIME, "{function} was answered after {took:?}");
    println!("{function}: {} {} after {took:?}", reply.status.as_u16(), reply.body["code"].as_str().unwrap_or_default());
    reply
}

async fn is_fine(app: &TestApp) {
    assert_eq!(call(app, "fine", json!({})).await.expect(StatusCode::OK), json!({ "text": "fine" }));
}

/// Another service's calls, one after another until `is_over`: all of them are answered well; the longest of them.
async fn neighbour(app: &TestApp, is_over: &AtomicBool) -> Duration {
    let (mut longest, mut answered) = (Duration::ZERO, 0);
    while !is_over.load(Ordering::Relaxed) || answered < NEIGHBOURS_CALLS_MIN {
        let begin = Instant::now();
        let lookup = app.get("/api/v1/location/lookup?phone=%2B12015550123").send().await.expect(StatusCode::OK);
        assert_eq!(lookup["country"], "US");
        longest = longest.max(begin.elapsed());
        answered += 1;
    }
    println!("a neighbour's calls meanwhile: {answered}, the longest took {longest:?}");
    longest
}

/// This function is answered with this problem, again and again; the service is well after each time, and another service all the time.
async fn check(function: &str, body: Value, status: u16, code: &str) {
    let app = start().await;
    let is_over = AtomicBool::new(false);
    let attack = async {
        for _ in 0..5 {
            let problem = call(&app, function, body.clone()).await.expect_problem(status, code);
            let text = problem.to_string();
            assert!(!text.contains("wasm") && !text.contains("backtrace"), "a client learns nothing of the inside: {text}");
            is_fine(&app).await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let ((), longest) = tokio::join!(attack, neighbour(&app, &is_over));
    assert!(longest < NEIGHBOUR_TIME, "another service's call took {longest:?} beside {function}");
    let view = app.admin(Method::GET, "/admin/v1/plugins/hostile").send().await.expect(StatusCode::OK);
    assert_eq!((&view["active"], &view["generation"]), (&json!("0.1.0"), &view["generation"]));
    assert_eq!(app.get("/ready").send().await.expect(StatusCode::OK)["status"], "up");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_loop_is_ended_by_its_cpu_time() {
    check("spin", json!({}), 504, "service_timed_out").await;
}

/// Processor time of the host's threads with this name, in the kernel's ticks of 10 ms.
#[cfg(target_os = "linux")]
fn ticks_used(app: &TestApp, is_counted: impl Fn(&str) -> bool) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{}/task", app.pid())).expect("it runs");
    let used = threads.filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.expect("the folder can be read").path().join("stat")).ok()?;
        let (name, fields) = stat.split_once('(')?.1.rsplit_once(')')?;
        let ticks = |number: usize| fields.split_whitespace().nth(number)?.parse::<u64>().ok();
        // utime and stime, proc_pid_stat(5); the first field here is its third.
        is_counted(name).then(|| ticks(11).zip(ticks(12))).flatten().map(|(user, system)| user + system)
    });
    used.sum()
}

/// The first long call of a host, which knows nothing of the service yet.
#[cfg(target_os = "linux")]
async fn leaves_the_threads_that_serve(function: &str, body: Value, ends_it: impl AsyncFnOnce(&TestApp)) {
    let app = start().await;
    is_fine(&app).await;
    let elsewhere = || ticks_used(&app, |name| name == "long-calls" || name.starts_with("sql-"));
    let all = || ticks_used(&app, |_| true);
    let before = (elsewhere(), all());
    tokio::join!(call(&app, function, body), ends_it(&app));
    let (elsewhere, all) = (elsewhere() - before.0, all() - before.1);
    println!("{function}: {elsewhere} of {all} ticks elsewhere");
    assert!(all >= 10 && elsewhere * 4 >= all * 3, "{elsewhere} of {all} ticks elsewhere");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_spins_leaves_the_threads_that_serve() {
    leaves_the_threads_that_serve("spin", json!({}), async |_| {}).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_asks_the_host_again_and_again_leaves_the_threads_that_serve() {
    leaves_the_threads_that_serve("hold", json!({ "count": 1 }), async |app| {
        // By what it has used, not by the time of day: on a busy machine it gets little.
        let (until, begin) = (Instant::now() + PATIENCE, ticks_used(app, |_| true));
        while ticks_used(app, |_| true) < begin + 20 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        app.post("/api/v1/hostile/mark", json!({})).send().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_bomb_is_ended_at_its_bound() {
    check("bomb", json!({}), 500, "service_failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recursion_without_end_is_ended_at_the_stack() {
    check("recurse", json!({}), 500, "service_failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_costs_its_own_call_alone() {
    check("trap", json!({}), 500, "service_failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_in_the_log_with_its_text_and_place() {
    let app = start().await;
    call(&app, "trap", json!({})).await.expect_problem(500, "service_failed");
    let line =
        until("the panic is logged", async || app.log().lines().find(|line| line.contains("the service panicked")).map(str::to_owned))
            .await;
    assert!(line.contains("on demand") && line.contains("hostile/src/lib.rs:"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_over_the_bound_is_not_sent() {
    check("huge-reply", json!({ "count": 6_000 }), 500, "service_failed").await;
    check("huge-reply", json!({ "count": 4_000_000_000_u32 }), 500, "service_failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_cannot_call_itself_in_a_circle() {
    check("cycle", json!({}), 500, "service_failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_left_open_is_rolled_back() {
    let app = start().await;
    let marks = async || app.get("/api/v1/hostile/marks").send().await.expect(StatusCode::OK)["count"].clone();
    for marked in 0..5 {
        call(&app, "leave-open", json!({})).await.expect_problem(500, "service_failed");
        assert_eq!(marks().await, marked, "what the transaction wrote is not there");
        // Nobody holds the writer any more.
        call(&app, "mark", json!({})).await.expect(StatusCode::NO_CONTENT);
        assert_eq!(marks().await, marked + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pushes_is_cut_off() {
    let app = TestApp::with(&["auth", "hostile", "location", "notification", "user"], &[]).await;
    let (person, bystander) = (app.someone().await, app.someone().await);
    let mut socket = app.socket(&person, None).await;
    let flood = json!({ "users": [person.id], "count": 1_000_000 });
    call(&app, "flood", flood).await.expect_problem(503, "unavailable");
    is_fine(&app).await;

    // What was taken before the bound arrives in order, and the flooded one's socket lives on.
    let (mut seen, most) = (0, echo_base::limits::EFFECTS_PER_CALL_MAX);
    while seen < most {
        let frame = socket.next().await;
        if frame["type"] == "flood" {
            assert_eq!(frame["payload"]["number"], seen);
            seen += 1;
        }
    }
    socket.send(json!({ "type": "ping" })).await;
    assert_eq!(socket.next().await["type"], "pong", "and nothing came after the bound");
    let feed = app.get("/api/v1/sync?since=0").by(&bystander).send().await.expect(StatusCode::OK);
    assert_eq!(feed["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_everybody_is_left_alone_for_a_while() {
    // Behind a proxy, so that the test can be several callers: one alone could not close a service to the others.
    let app = TestApp::with(&["hostile", "location"], &[("ECHO_SERVER__TRUSTED_PROXIES_COUNT", "1")]).await;
    let from = |caller: usize, function: &str| {
        let ask = app.post(&format!("/api/v1/hostile/{function}"), json!({}));
        ask.header("x-forwarded-for", &format!("192.0.2.{}", 1 + caller)).send()
    };
    for _ in 0..3 * echo_base::limits::BREAKER_CALLS_MIN {
        from(0, "trap").await.expect_problem(500, "service_failed");
    }
    let until = Instant::now() + PATIENCE;
    let mut caller = 0;
    let resting = loop {
        assert!(Instant::now() < until, "the breaker never opens");
        caller += 1;
        let reply = from(caller % 8, "trap").await;
        if reply.status == StatusCode::SERVICE_UNAVAILABLE {
            break reply;
        }
        reply.expect_problem(500, "service_failed");
    };
    assert!(resting.headers.contains_key("retry-after"));
    resting.expect_problem(503, "circuit_open");
    // The route alone, not the service, and no other service.
    from(0, "fine").await.expect(StatusCode::OK);
    app.get("/api/v1/location/lookup?phone=%2B12015550123").send().await.expect(StatusCode::OK);

    // A version that can be trusted again begins with a clean sheet.
    app.deploy("hostile", repacked("hostile", &[("0.1.0", "0.1.1")])).await.expect(StatusCode::OK);
    from(0, "trap").await.expect_problem(500, "service_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_services_slots_are_answered_at_once() {
    // One slot, held by a call that waits: the next one is told so within the time for a slot.
    let app = start().await;
    app.deploy(
        "hostile",
        repacked("hostile", &[("0.1.0", "0.1.1"), ("concurrency = 16", "concurrency = 1"), ("cpu = \"150ms\"", "cpu = \"10s\"")]),
    )
    .await
    .expect(StatusCode::OK);
    let hold = app.post("/api/v1/hostile/hold", json!({ "count": 1 })).send();
    let busy = async {
        let until = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < until, "the slot is never taken");
            let reply = call(&app, "fine", json!({})).await;
            if reply.status != StatusCode::OK {
                break reply;
            }
        }
    };
    let (held, busy) = tokio::join!(hold, busy);
    busy.expect_problem(503, "service_busy");
    held.expect_problem(504, "service_timed_out");
    is_fine(&app).await;
}

/// The longest of many answers of `/health`, and of calls of another service that take some 40 ms of a processor, until `is_over`.
async fn beside(app: &TestApp, millions: u64, is_over: &AtomicBool) -> (Duration, Duration) {
    let health = async {
        let mut longest = Duration::ZERO;
        while !is_over.load(Ordering::Relaxed) {
            let begin = Instant::now();
            app.get("/health").send().await.expect(StatusCode::OK);
            longest = longest.max(begin.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        longest
    };
    let work = async {
        let mut longest = Duration::ZERO;
        while !is_over.load(Ordering::Relaxed) {
            longest = longest.max(work(app, millions).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        longest
    };
    tokio::join!(health, work)
}

async fn work(app: &TestApp, millions: u64) -> Duration {
    let begin = Instant::now();
    app.post("/api/v1/front/work", json!({ "count": millions })).send().await.expect(StatusCode::OK);
    begin.elapsed()
}

/// These statements are asked at once, and end; `/health` and another service's calls are answered meanwhile as if nothing was.
async fn statements_hurt_nobody_else(statements: Vec<Value>, statuses: &[u16]) {
    let app = TestApp::with(&["front", "hostile", "location"], &[]).await;
    let mut millions = 4;
    while work(&app, millions).await < Duration::from_millis(40) {
        millions *= 2;
    }
    let is_over = AtomicBool::new(false);
    let asked = async {
        let asked = statements.iter().map(async |statement| {
            let begin = Instant::now();
            let reply = app.post("/api/v1/hostile/statement", statement.clone()).send().await;
            let took = begin.elapsed();
            println!("{statement:.120}: {} after {took:?}", reply.status.as_u16());
            assert!(statuses.contains(&reply.status.as_u16()), "{statement}: {} {}", reply.status, reply.body);
            // The wall time of the service's calls, and what a busy machine adds.
            assert!(took < Duration::from_secs(15), "{statement} was answered after {took:?}");
        });
        futures_util::future::join_all(asked).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let ((), (health, worked)) = tokio::join!(asked, beside(&app, millions, &is_over));
    println!("/health took at most {health:?}, a call of 40 ms at most {worked:?}");
    assert!(health < Duration::from_secs(2), "/health took {health:?}");
    // Who was stopped by a statement was so until its end, after five seconds.
    assert!(worked < Duration::from_secs(4), "another service's call took {worked:?}");
    is_fine(&app).await;
    assert_eq!(app.get("/ready").send().await.expect(StatusCode::OK)["status"], "up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_inside_one_function_stops_nobody() {
    let twice = |statement: Value| [statement.clone(), statement];
    let statements = [
        json!({ "sql": "SELECT instr(hex(zeroblob(1040000)), hex(zeroblob(520000)) || '1')", "texts": [], "times": 1 }),
        json!({ "sql": "SELECT instr($1, $2 || '1')", "texts": ["00000000", "0000"], "times": 20_000 }),
        json!({ "sql": "SELECT replace($1, $2 || '1', '')", "texts": ["00000000", "0000"], "times": 20_000 }),
        json!({ "sql": "SELECT replace($1, $2 || '1', '')", "texts": ["00000000", "0000"], "times": 25_000 }),
        json!({ "sql": "SELECT $1 LIKE '%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%1'", "texts": ["00000000"], "times": 20_000 }),
        json!({ "sql": "SELECT trim($1, $2)", "texts": ["00000000", "1111"], "times": 20_000 }),
        json!({ "sql": format!("SELECT replace('{}', '{}1', '')", "0".repeat(40_000), "0".repeat(20_000)), "texts": [], "times": 1 }),
    ];
    // Refused, too large, or quick: none of them takes long any more.
    statements_hurt_nobody_else(statements.into_iter().flat_map(twice).collect(), &[200, 500]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_statements_stop_nobody() {
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let statements = (0..6).map(|_| json!({ "sql": endless, "texts": [], "times": 1 })).collect();
    statements_hurt_nobody_else(statements, &[503, 504]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_reaches_no_host_that_it_was_not_granted_and_none_inside() {
    let app = start().await;
    let fetch = async |urls: Vec<String>, credential: Option<&str>| {
        call(&app, "fetch", json!({ "urls": urls, "credential": credential, "in_transaction": false })).await
    };
    let listening = app.url.strip_prefix("http://").expect("plain HTTP").to_owned();
    let urls = [
        // Nobody granted these.
        ("https://elsewhere.example/".to_owned(), "NotGranted"),
        ("https://localhost:444/".to_owned(), "NotGranted"),
        ("http://localhost:443/".to_owned(), "NotGranted"),
        (format!("http://{listening}/health"), "NotGranted"),
        // The network of the host's own, the manifest's grants or not.
        (format!("https://{listening}/health"), "Unreachable"),
        ("https://localhost/".to_owned(), "Unreachable"),
        ("https://127.0.0.1/".to_owned(), "Unreachable"),
        ("https://169.254.169.254/latest/meta-data".to_owned(), "Unreachable"),
        ("file:///etc/passwd".to_owned(), "Invalid"),
        ("https://localhost@elsewhere.example/".to_owned(), "Invalid"),
        (String::new(), "Invalid"),
        (format!("https://localhost/{}", "x".repeat(5_000)), "TooLarge"),
    ];
    let answers = fetch(urls.iter().map(|(url, _)| url.clone()).collect(), None).await.expect(StatusCode::OK);
    let expect: Vec<String> = urls.iter().map(|(_, error)| format!("Err(HttpError::{error})")).collect();
    assert_eq!(answers["items"], json!(expect));
    // A credential that its manifest does not name.
    let answers = fetch(vec!["https://localhost/".to_owned()], Some("fcm")).await.expect(StatusCode::OK);
    assert_eq!(answers["items"], json!(["Err(HttpError::NotGranted)"]));
    // More than the bound at once, and while others wait for its transaction: mistakes of the service's, and nothing is sent.
    fetch(vec!["https://localhost/".to_owned(); 65], None).await.expect_problem(500, "service_failed");
    let while_open = json!({ "urls": ["https://localhost/"], "credential": null, "in_transaction": true });
    call(&app, "fetch", while_open).await.expect_problem(500, "service_failed");
    is_fine(&app).await;
}
