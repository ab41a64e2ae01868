//! Open loop: work falls due at fixed times, however slow the server is, and its latency counts from when it was due. So a server that
//! stands still is seen by everything that would have come meanwhile (no coordinated omission).

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{sync::mpsc, task::JoinSet};

use crate::http::{Connection, Load, Route};

/// Calls `due(number, when)` for each piece of work at its time, from a thread of its own (tokio's timers are a millisecond coarse). Ends after `duration`
/// and gives how many there were.
pub fn pace(begin: Instant, rate: u64, duration: Duration, mut due: impl FnMut(u64, Instant) + Send + 'static) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let count = count(rate, duration);
        for number in 0..count {
            let when = begin + at(number, rate);
            if let Some(wait) = when.checked_duration_since(Instant::now()) {
                thread::sleep(wait);
            }
            due(number, when);
        }
        count
    })
}

/// How much work falls due.
fn count(rate: u64, duration: Duration) -> u64 {
    (rate as f64 * duration.as_secs_f64()) as u64
}

/// When a piece of work is due, counted from the begin.
pub fn at(number: u64, rate: u64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate as f64)
}

/// HTTP requests at a fixed rate over some connections. A connection that is behind sends what is due as soon as it can.
pub async fn requests(route: Route, connections: usize, rate: u64, duration: Duration) -> Result<Load> {
    let mut tasks = JoinSet::new();
    let mut queues = Vec::new();
    // All that can fall due fits, so the pace never waits for a connection.
    let depth = count(rate, duration).div_ceil(connections as u64) as usize + 1;
    for _ in 0..connections {
        let (queue, mut due) = mpsc::channel::<(u64, Instant)>(depth);
        queues.push(queue);
        let mut connection = Connection::open(route.address).await?;
        tasks.spawn(async move {
            let mut load = Load::empty();
            while let Some((number, when)) = due.recv().await {
                let outcome = connection.look_up(&route, number * 7).await;
                let broken = outcome.is_err();
                load.record(outcome, when.elapsed());
                if broken {
                    connection = Connection::open(route.address).await?;
                }
            }
            anyhow::Ok(load)
        });
    }
    let begin = Instant::now();
    let pacer = pace(begin, rate, duration, move |number, when| {
        let queue = &queues[number as usize % queues.len()];
        queue.try_send((number, when)).expect("as deep as all that can fall due");
    });
    let mut sum = Load::empty();
    while let Some(load) = tasks.join_next().await {
        sum.add(load.context("a load task ended badly")??);
    }
    sum.elapsed = begin.elapsed();
    pacer.join().map_err(|_| anyhow::anyhow!("the pace broke off"))?;
    Ok(sum)
}
