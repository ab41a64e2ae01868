//! (a) One hop and two through the gateway, against a native handler doing the same JSON work.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{
    Arguments,
    http::{self, Load, Method, Route},
    native::{self, Native},
    server::{Process, Server},
    table::{Goal, Row, Table, milliseconds, thousands},
};

/// Rounds, in which all take turns, so that a machine that slows down slows all of them.
const ROUNDS: u32 = 5;
const ONE_HOP: &str = "/api/v1/location/lookup";
/// `front` asks `location`.
const TWO_HOPS: &str = "/api/v1/front/lookup";

struct Subject {
    name: &'static str,
    route: Route,
    process: Process,
    load: Load,
    cpu: Duration,
}

pub async fn measure(arguments: &Arguments, server: &Server, native: &Native, table: &mut Table) -> Result<()> {
    let native = |method| {
        let route = Route { address: native.address, method, path: native::LOOKUP };
        Subject { name: "native", route, process: native.process, load: Load::empty(), cpu: Duration::ZERO }
    };
    let echo = |name, method, path| {
        let route = Route { address: server.public, method, path };
        Subject { name, route, process: server.process, load: Load::empty(), cpu: Duration::ZERO }
    };
    // In pairs: each hop after the native handler that reads its request as it does.
    let mut subjects =
        [native(Method::Get), echo("one hop", Method::Get, ONE_HOP), native(Method::Post), echo("two hops", Method::Post, TWO_HOPS)];
    same_answers(server, &subjects).await?;
    for subject in &subjects {
        http::saturate(subject.route, arguments.connections, Duration::from_secs(1), 0).await?;
    }
    for round in 1..=ROUNDS {
        for subject in &mut subjects {
            let cpu = subject.process.cpu()?;
            let load = http::saturate(subject.route, arguments.connections, arguments.duration() / ROUNDS, u64::from(round)).await?;
            if let Some(error) = &load.error {
                bail!("{}: {} of {} requests failed, the first with {error}", subject.name, load.errors, load.errors + load.answered);
            }
            subject.cpu += subject.process.cpu()? - cpu;
            subject.load.elapsed += load.elapsed;
            subject.load.add(load);
        }
    }
    for (pair, goal) in subjects.chunks_exact(2).zip([Some(0.5), None]) {
        let (native, hop) = (&pair[0], &pair[1]);
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
async fn same_answers(server: &Server, subjects: &[Subject]) -> Result<()> {
    let mut answers = Vec::new();
    for Subject { route: Route { address, method, path }, .. } in subjects {
        let (url, phone) = (format!("http://{address}{path}"), "+14152000001");
        let request = match method {
            Method::Get => server.client.get(format!("{url}?phone=%2B{}", &phone[1..])),
            Method::Post => server.client.post(url).json(&serde_json::json!({"phone": phone})),
        };
        let answer = request.send().await?;
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
