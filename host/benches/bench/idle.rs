//! (c) What an idle authenticated socket costs the server in memory: growth of its resident set, divided by the sockets.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;

use crate::{
    Arguments,
    accounts::Account,
    native::Native,
    server::{Process, Server},
    socket::{Door, PING_EVERY, Socket, ping},
    table::{Goal, Row, Table, thousands},
};

const GOAL_KIB: f64 = 16.0;
/// Opened before the first look, so that what the first sockets bring along (buffers, tables) is not counted as theirs.
pub const WARM_UP: usize = 20;

pub async fn measure(arguments: &Arguments, server: &Server, accounts: &[Account], table: &mut Table) -> Result<()> {
    let mut counts = arguments.sockets.clone();
    counts.sort_unstable();
    // As fresh a process as the server, for the same reason.
    let native = Native::start(server).await?;
    let relay = grow(&counts, native.process, |number| Door::relay(&native, number)).await?;
    let echo = grow(&counts, server.process, |number| Door::echo(server, &accounts[number])).await?;
    for ((count, echo), relay) in counts.iter().zip(echo).zip(relay) {
        table.add(Row {
            part: 'c',
            what: format!("memory per idle socket, {} open", thousands(*count as f64)),
            measured: format!("{echo:.1} KiB"),
            against: format!("bare relay {relay:.1} KiB"),
            ratio: (relay > 0.0).then_some(echo / relay),
            goal: Goal::new(format!("≤ {GOAL_KIB:.0} KiB"), echo <= GOAL_KIB),
        });
    }
    Ok(())
}

/// KiB per socket at each of the counts.
pub async fn grow(counts: &[usize], process: Process, door: impl Fn(usize) -> Door) -> Result<Vec<f64>> {
    let mut held = JoinSet::new();
    let mut open = async |numbers: std::ops::Range<usize>| {
        let opening = numbers.map(|number| {
            let door = door(number);
            async move { door.open(number).await }
        });
        let sockets: Vec<Socket> = stream::iter(opening).buffer_unordered(32).try_collect().await?;
        for socket in sockets {
            held.spawn(hold(socket));
        }
        if let Some(ended) = held.try_join_next() {
            bail!("an idle socket was closed: {ended:?}");
        }
        anyhow::Ok(())
    };
    open(0..WARM_UP.min(counts[0])).await?;
    let mut opened = WARM_UP.min(counts[0]);
    let (first, baseline) = (opened, settled(process).await?);
    let mut sizes = Vec::new();
    for &count in counts {
        let begin = Instant::now();
        open(opened..count).await?;
        println!("idle sockets: {count} open, {:.1} s", begin.elapsed().as_secs_f64());
        opened = count;
        let grown = settled(process).await?.saturating_sub(baseline);
        sizes.push(grown as f64 / 1024.0 / (count - first) as f64);
    }
    Ok(sizes)
}

/// The resident set once it has stopped moving.
async fn settled(process: Process) -> Result<u64> {
    let mut last = process.resident_bytes()?;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = process.resident_bytes()?;
        if now.abs_diff(last) < 64 * 1024 {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

/// Reads what comes and pings often enough to stay; ends only when the server closes.
async fn hold(mut socket: Socket) -> String {
    loop {
        match tokio::time::timeout(PING_EVERY, socket.next()).await {
            Ok(Some(Ok(_))) => {}
            Ok(end) => return format!("{end:?}"),
            Err(_) => {
                if let Err(error) = socket.send(ping()).await {
                    return error.to_string();
                }
            }
        }
    }
}
