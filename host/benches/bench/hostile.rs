//! (e) The same HTTP load, quiet and while clients keep calling a service that spins, allocates without end, recurses, traps and floods, all at
//! once and each alone, in turns; and while its SQL statements take all the time that they can get.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use reqwest::header::CONTENT_TYPE;

use crate::{
    Arguments,
    http::{Load, Method, Route},
    open_loop,
    server::Server,
    table::{Goal, Row, Table, milliseconds, thousands},
};

/// What the quiet neighbour serves.
const PATH: &str = "/api/v1/location/lookup";
const RATE: u64 = 500;
/// Quiet and disturbed in turns, so that a machine that slows down slows both.
const ROUNDS: u32 = 5;
/// What a client calls again and again, and with which body.
type Misdeed = (&'static str, &'static str);
const MISDEEDS: [Misdeed; 7] = [
    ("spin", "{}"),
    ("bomb", "{}"),
    ("recurse", "{}"),
    ("trap", "{}"),
    ("huge-reply", r#"{"count":100000}"#),
    ("flood", r#"{"users":["01890a5d-ac96-774b-bcce-b302099a8057"],"count":1000000}"#),
    ("leave-open", "{}"),
];
const STATEMENT: &str = "statement";
/// Statements that make long texts within one function, where SQLite asks nobody, and that never end.
const STATEMENTS: [Misdeed; 10] = [FINDS, FINDS, REPLACES, REPLACES, ENDLESS, ENDLESS, ENDLESS, ENDLESS, ENDLESS, ENDLESS];
const FINDS: Misdeed = (STATEMENT, r#"{"sql":"SELECT instr(hex(zeroblob(1040000)), hex(zeroblob(520000)) || '1')","texts":[],"times":1}"#);
const REPLACES: Misdeed = (STATEMENT, r#"{"sql":"SELECT replace($1, $2 || '1', '')","texts":["00000000","0000"],"times":20000}"#);
const ENDLESS: Misdeed =
    (STATEMENT, r#"{"sql":"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n","texts":[],"times":1}"#);
const GOAL_P99_RATIO: f64 = 2.0;
const HEALTH_RATE: u64 = 50;
const GOAL_HEALTH_US: u64 = 50_000;

/// Some clients' misdeeds, and the neighbour's load beside them.
struct Disturbance {
    what: &'static str,
    misdeeds: Vec<Misdeed>,
    calls: AtomicU64,
    load: Load,
    /// Of `/health` meanwhile.
    health: Load,
}

impl Disturbance {
    fn new(what: &'static str, misdeeds: Vec<Misdeed>) -> Self {
        Self { what, misdeeds, calls: AtomicU64::new(0), load: Load::empty(), health: Load::empty() }
    }
}

pub async fn measure(arguments: &Arguments, server: &Server, table: &mut Table) -> Result<()> {
    let route = Route { address: server.public, method: Method::Get, path: PATH };
    let load = |duration| open_loop::requests(route, arguments.connections, RATE, duration);
    load(Duration::from_secs(2)).await?;
    // All at once, the first two twice.
    let mut disturbances = vec![Disturbance::new("hostile", MISDEEDS.iter().chain(&MISDEEDS[..2]).copied().collect())];
    disturbances.push(Disturbance::new(STATEMENT, STATEMENTS.to_vec()));
    disturbances.extend(MISDEEDS.map(|misdeed| Disturbance::new(misdeed.0, vec![misdeed])));
    let mut quiet = Load::empty();
    let turn = (arguments.duration() / ROUNDS).max(Duration::from_secs(1));
    for _ in 0..ROUNDS {
        quiet.add(load(turn).await?);
        for disturbance in &mut disturbances {
            let until = Instant::now() + turn;
            // The next turn begins when the last misdeed is over.
            let health = Route { address: server.public, method: Method::Get, path: "/health" };
            let (beside, health, ()) = tokio::try_join!(
                load(turn),
                open_loop::requests(health, 4, HEALTH_RATE, turn),
                misbehave(server, &disturbance.misdeeds, until, &disturbance.calls)
            )?;
            disturbance.load.add(beside);
            disturbance.health.add(health);
        }
    }
    let quiet_p99 = quiet.latency.value_at_quantile(0.99);
    for Disturbance { what, calls, load, health, .. } in disturbances {
        if let Some(error) = quiet.error.as_ref().or(load.error.as_ref()).or(health.error.as_ref()) {
            bail!("the quiet neighbour's requests failed: {error}");
        }
        let p99 = load.latency.value_at_quantile(0.99);
        let ratio = p99 as f64 / quiet_p99 as f64;
        let health_p99 = health.latency.value_at_quantile(0.99);
        table.add(Row {
            part: 'e',
            what: format!("p99 of /health at {HEALTH_RATE}/s beside {what} calls"),
            measured: milliseconds(health_p99),
            against: format!("quiet {}", milliseconds(quiet_p99)),
            ratio: Some(health_p99 as f64 / quiet_p99 as f64),
            goal: Goal::new(format!("< {}", milliseconds(GOAL_HEALTH_US)), health_p99 < GOAL_HEALTH_US),
        });
        table.add(Row {
            part: 'e',
            what: format!("p99 at {}/s beside {} {what} calls", thousands(RATE as f64), thousands(calls.into_inner() as f64)),
            measured: milliseconds(p99),
            against: format!("quiet {}", milliseconds(quiet_p99)),
            ratio: Some(ratio),
            goal: Goal::new(format!("≤ {GOAL_P99_RATIO:.2}"), ratio <= GOAL_P99_RATIO),
        });
    }
    Ok(())
}

/// Errors: an answer that is no refusal of the host.
async fn misbehave(server: &Server, misdeeds: &[Misdeed], until: Instant, calls: &AtomicU64) -> Result<()> {
    let clients = misdeeds.iter().map(|(deed, body)| async move {
        while Instant::now() < until {
            let url = format!("http://{}/api/v1/hostile/{deed}", server.public);
            let answer = server.client.post(url).header(CONTENT_TYPE, "application/json").body(*body).send().await?;
            // A statement within its bounds is answered.
            if !answer.status().is_server_error() && *deed != STATEMENT {
                bail!("{deed} is answered with {}", answer.status());
            }
            calls.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    futures_util::future::try_join_all(clients).await.map(drop)
}
