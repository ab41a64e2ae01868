//! (a) One hop and two through the gateway, against a native handler doing the same JSON work.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{
    Arguments,
    http::{self, Load},
    native::{self, Native},
    server::{Process, Server},
    table::{Goal, Row, Table, milliseconds, thousands},
};

/// Rounds, in which all three take turns, so that a machine that slows down slows all of them.
const ROUNDS: u32 = 5;
const ONE_HOP: &str = "/api/v1/location/lookup";
const TWO_HOPS: &str = "/api/v1/relay/lookup";

struct Subject {
    name: &'static str,
    address: std::net::SocketAddr,
    path: &'static str,
    process: Process,
    load: Load,
    cpu: Duration,
}

pub async fn measure(arguments: &Arguments, server: &Server, native: &Native, table: &mut Table) -> Result<()> {
    let subject = |name, address, path, process| Subject { name, address, path, process, load: Load::empty(), cpu: Duration::ZERO };
    let mut subjects = [
        subject("native", native.address, native::LOOKUP, native.process),
        subject("one hop", server.public, ONE_HOP, server.process),
        subject("two hops", server.public, TWO_HOPS, server.process),
    ];
    same_answers(server, native).await?;
    for subject in &subjects {
        http::saturate(subject.address, subject.path, arguments.connections, Duration::from_secs(1), 0).await?;
    }
    for round in 1..=ROUNDS {
        for subject in &mut subjects {
            let cpu = subject.process.cpu()?;
            let load =
                http::saturate(subject.address, subject.path, arguments.connections, arguments.duration() / ROUNDS, u64::from(round))
                    .await?;
            if let Some(error) = &load.error {
                bail!("{}: {} of {} requests failed, the first with {error}", subject.name, load.errors, load.errors + load.answered);
            }
            subject.cpu += subject.process.cpu()? - cpu;
            subject.load.elapsed += load.elapsed;
            subject.load.add(load);
        }
    }
    let [native, hops @ ..] = &subjects;
    for (hop, goal) in hops.iter().zip([Some(0.5), None]) {
        let (rate, native_rate) = (hop.load.per_second(), native.load.per_second());
        let ratio = rate / native_rate;
        table.add(Row {
            part: 'a',
            what: format!("{}, {} connections, requests/s", hop.name, arguments.connections),
            measured: thousands(rate),
            against: format!("native {}", thousands(native_rate)),
            ratio: Some(ratio),
            goal: goal.and_then(|goal| Goal::new(format!("≥ {goal:.2}"), ratio >= goal)),
        });
        let (cpu, native_cpu) = (cpu_per_request(hop), cpu_per_request(native));
        table.add(Row {
            part: 'a',
            what: format!("{}, server CPU per request", hop.name),
            measured: format!("{cpu:.1} µs"),
            against: format!("native {native_cpu:.1} µs"),
            ratio: Some(cpu / native_cpu),
            goal: None,
        });
        let (p99, native_p99) = (hop.load.latency.value_at_quantile(0.99), native.load.latency.value_at_quantile(0.99));
        table.add(Row {
            part: 'a',
            what: format!("{}, p99 with all connections busy", hop.name),
            measured: milliseconds(p99),
            against: format!("native {}", milliseconds(native_p99)),
            ratio: Some(p99 as f64 / native_p99 as f64),
            goal: None,
        });
    }
    Ok(())
}

/// In microseconds.
fn cpu_per_request(subject: &Subject) -> f64 {
    subject.cpu.as_secs_f64() * 1e6 / subject.load.answered as f64
}

/// Only those who do the same work are compared.
async fn same_answers(server: &Server, native: &Native) -> Result<()> {
    let mut answers = Vec::new();
    for (address, path) in [(native.address, native::LOOKUP), (server.public, ONE_HOP), (server.public, TWO_HOPS)] {
        let answer = server.client.get(format!("http://{address}{path}?phone=%2B14152000001")).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{path} answers {status}: {text}");
        }
        answers.push(serde_json::from_str::<serde_json::Value>(&text)?);
    }
    if answers.iter().any(|answer| *answer != answers[0]) {
        bail!("the answers are not the same: {answers:?}");
    }
    Ok(())
}
