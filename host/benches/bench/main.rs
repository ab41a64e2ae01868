//! The bench: starts the real `echod dev` on a temporary data folder, speaks to it as a client does (docs: the API page), and prints a
//! table in which every line stands beside a goal or beside something plain measured in the same run. Knows nothing of echod's insides.
//!
//! `cargo xtask bench` builds what it needs and says where it is: `ECHOD` (the binary), `ECHOD_PLUGINS` and `ECHOD_GUESTS` (packed
//! components), `ECHOD_COMPONENTS` (bare ones).

mod accounts;
mod delivery;
mod hops;
mod hostile;
mod http;
mod idle;
mod native;
mod open_loop;
mod production;
mod server;
mod socket;
mod swaps;
mod table;

use std::{os::unix::process::CommandExt, path::PathBuf, process::Command, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::{
    accounts::Account,
    native::Native,
    server::{Host, Server},
    table::Table,
};

/// Measures what Echo promises. Nothing else should run on the machine meanwhile.
#[derive(Parser)]
struct Arguments {
    /// Seconds per measured point.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Parts: a (hops), b (send to delivered), c (idle sockets), d (swaps), e (hostile neighbours).
    #[arg(long, value_delimiter = ',', default_value = "a,b,c,d,e")]
    only: Vec<char>,
    /// HTTP connections of the load in (a), (d) and (e).
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Connected users in (b).
    #[arg(long, default_value_t = 1_000)]
    users: usize,
    /// Messages per second in (b), one rate after another, before the highest is looked for.
    #[arg(long, value_delimiter = ',', default_value = "100,500,1000")]
    rates: Vec<u64>,
    /// How many idle sockets (c) opens; one account each.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    sockets: Vec<usize>,
    /// Instead of the parts: hosts on PostgreSQL, Redis and NATS that this starts; 1, 2 and 3 of them.
    #[arg(long)]
    production: bool,
    /// How many hosts, with --production, one number after another, rising.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    hosts: Vec<usize>,
    /// `cargo bench` says so of itself.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn wants(&self, part: char) -> bool {
        self.only.contains(&part)
    }

    fn accounts(&self) -> usize {
        if self.production {
            return self.users;
        }
        let delivery = if self.wants('b') { self.users } else { 0 };
        let idle = if self.wants('c') { self.sockets.iter().copied().max().unwrap_or(0) } else { 0 };
        delivery.max(idle)
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn main() -> ExitCode {
    let done = if std::env::args().nth(1).as_deref() == Some(native::ROLE) { run(native::serve()).map(|()| true) } else { measure() };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True when every goal was met.
fn measure() -> Result<bool> {
    let arguments = Arguments::parse();
    if let Some(unknown) = arguments.only.iter().find(|part| !"abcde".contains(**part)) {
        bail!("there is no part {unknown:?}: a (hops), b (send to delivered), c (idle sockets), d (swaps), e (hostile neighbours)");
    }
    if arguments.users < 2 || arguments.users % 2 != 0 {
        bail!("--users must be an even number: they talk in pairs");
    }
    raise_open_files(arguments.accounts() + 512)?;
    if arguments.production {
        return run(production::measure(&arguments)).map(|()| true);
    }
    run(measure_parts(&arguments))
}

async fn measure_parts(arguments: &Arguments) -> Result<bool> {
    println!("load average before: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let host = Host::from_environment(folder.path())?;
    let mut server = Server::start(&host).await?;
    let mut table = Table::default();
    let mut accounts: Vec<Account> = Vec::new();
    if arguments.accounts() > 0 {
        accounts = accounts::create(&server, arguments.accounts()).await?;
    }
    let native = Native::start(&server).await?;
    if arguments.wants('a') {
        hops::measure(arguments, &server, &native, &mut table).await?;
    }
    if arguments.wants('b') {
        accounts::refresh_old(&server, &mut accounts).await?;
        delivery::measure(arguments, &server, &native, &accounts[..arguments.users], &mut table).await?;
    }
    if arguments.wants('c') {
        // A fresh process: memory that making the accounts left behind would hide what sockets take.
        server.stop().await?;
        server = Server::start(&host).await?;
        accounts::refresh_old(&server, &mut accounts).await?;
        idle::measure(arguments, &server, &accounts, &mut table).await?;
    }
    if arguments.wants('d') {
        swaps::measure(arguments, &host, &server, &mut table).await?;
    }
    if arguments.wants('e') {
        hostile::measure(arguments, &server, &mut table).await?;
    }
    server.stop().await?;
    println!("\n{table}");
    Ok(table.all_met())
}

fn run<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("tokio's runtime")?.block_on(future)
}

/// Sockets are open files, and the usual soft limit is 1,024: starts this program again with the hard one.
fn raise_open_files(needed: usize) -> Result<()> {
    const RAISED: &str = "ECHO_BENCH_OPEN_FILES_RAISED";
    let limits = std::fs::read_to_string("/proc/self/limits").context("/proc/self/limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("no line of open files in /proc/self/limits")?;
    let mut columns = line["Max open files".len()..].split_whitespace().map(|column| column.parse().unwrap_or(usize::MAX));
    let (soft, hard) = (columns.next().unwrap_or(0), columns.next().unwrap_or(0));
    if soft >= needed {
        return Ok(());
    }
    if hard < needed || std::env::var_os(RAISED).is_some() {
        bail!("{needed} open files are needed and {hard} allowed (`ulimit -Hn`); take fewer with --users and --sockets");
    }
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n \"$(ulimit -H -n)\"; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1));
    Err(command.env(RAISED, "1").exec()).context("cannot start again with more open files")
}

/// The repository, whose `plugins` part (d) packs anew under other versions.
fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
