//! `echod`: reads the command line and the settings, starts the logs, and hands over to `app` or to the operator's client.

use std::alloc::GlobalAlloc;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anstyle::AnsiColor;
use anyhow::Context;
use clap::Parser;
use echo_base::names::{BadServiceName, ServiceName};
use echo_runtime::artifact::{Artifact, pack_directory};
use echo_runtime::difference;
use echo_runtime::inspect;
use echo_runtime::manifest::Manifest;
use echo_runtime::manifest_reference;
use echo_runtime::swap::LIVE;
use echod::admin::client::{self, AdminClient, ClientError, read_packed};
use echod::app::doctor::{self, Finding, Verdict};
use echod::app::{SettingsSource, backup, check, migrate, migrations};
use echod::cli::{self, Admin, Cli, Command, Doctor, Host, Migrate, MigrateCommand, Plugin, Token};
use echod::config::{Config, ConfigError, Mode, Overrides};
use echod::{app, new_plugin, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

// A request makes some hundred small allocations on several threads. mimalloc stands here as `malloc` (its feature `override`), for Rust as for
// SQLite: Rust's own way to it asks for an alignment only where one is needed, the one of mimalloc's crate always, which costs a search.
// Named, so that every linker takes it along.
#[used]
static MALLOC: &(dyn GlobalAlloc + Sync) = &mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echod: {error:#}");
            ExitCode::from(exit_status(&error))
        }
    }
}

/// As `echod --help` lists them.
fn exit_status(error: &anyhow::Error) -> u8 {
    if error.is::<ConfigError>() || error.is::<BadServiceName>() {
        return 2;
    }
    error.downcast_ref::<ClientError>().map_or(1, ClientError::exit_status)
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(serve) if serve.check => {
            let (config, problems) = Config::read(Mode::Serve, serve.host.config_file().as_deref(), serve.host.overrides());
            check::check(&config, problems)?;
            say(format_args!("the settings are good"));
            Ok(())
        }
        Command::Serve(serve) => run_host(Mode::Serve, &serve.host, serve.host.overrides()),
        Command::Dev(dev) => run_host(Mode::Dev, &dev.host, dev.overrides()),
        Command::Ready(ready) => {
            let wait = Duration::from_secs(ready.wait);
            say(format_args!("{}", wait_for(client::ready(ready.url.as_deref(), &ready.data, wait))??));
            Ok(())
        }
        Command::Backup { folder, admin } => {
            let folder = std::path::absolute(&folder).with_context(|| format!("{}", folder.display()))?;
            ask(&admin, async |client| Ok(client.back_up(&folder).await?))
        }
        Command::Restore(restore) => {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
            let report = wait_for(backup::restore(&restore.folder, &restore.data, restore.replace))??;
            say(format_args!("{} files, {} bytes are back in {}", report.files, report.bytes, report.folder.display()));
            Ok(())
        }
        Command::Migrate(migrate) => run_migrate(migrate),
        Command::Doctor(doctor) => run_doctor(&doctor),
        Command::Completions { shell } => {
            say(cli::completions(shell));
            Ok(())
        }
        Command::Man { folder } => {
            cli::write_man_pages(&folder).with_context(|| format!("{}", folder.display()))?;
            say(format_args!("the pages are written; `man -l {}` shows the first", folder.join("echod.1").display()));
            Ok(())
        }
        Command::Token { command } => run_token(command),
        Command::Reload { admin } => ask(&admin, async |client| Ok(client.reload().await?)),
        Command::Plugin { command } => run_plugin(command),
    }
}

fn load(mode: Mode, host: &Host, overrides: Overrides) -> anyhow::Result<Config> {
    Ok(Config::load(mode, host.config_file().as_deref(), overrides)?)
}

fn run_host(mode: Mode, host: &Host, overrides: Overrides) -> anyhow::Result<()> {
    let config = load(mode, host, overrides.clone())?;
    // As found at the start, in whatever folder the process is later.
    let file = host.config_file().map(|file| std::path::absolute(&file).unwrap_or(file));
    // Whatever makes a file from here on, a database's log too, makes it for this account alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let _logs = telemetry::init_logs(&config.log)?;
    forgo_huge_pages();
    // Before anything counts.
    telemetry::metrics();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the threads")?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        tokio::spawn(end_on_signal(shutdown.clone()));
        let asked = Arc::new(Notify::new());
        match mode {
            Mode::Serve => drop(tokio::spawn(reload_on_hangup(asked.clone()))),
            Mode::Dev => drop(tokio::spawn(end_on_hangup(shutdown.clone()))),
        }
        let read = move || Config::read(mode, file.as_deref(), overrides.clone());
        app::run(config, SettingsSource { read: Box::new(read), asked }, shutdown).await
    })
}

/// The first touch of a huge page clears two megabytes: five to ten milliseconds in a virtual machine that is given its memory as it takes it,
/// and other threads that need memory wait meanwhile. Small pages cost the same in all, each its microseconds. The allocator asks for huge ones.
fn forgo_huge_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "the kernel may give huge pages, which now and then takes milliseconds");
    }
}

/// The first SIGTERM or SIGINT begins the graceful end; a second one ends at once.
async fn end_on_signal(shutdown: CancellationToken) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return tracing::error!("signals cannot be listened to; end this host by killing it");
    };
    for _ in 0..2 {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        if shutdown.is_cancelled() {
            tracing::warn!("a second signal: ending at once");
            std::process::exit(1);
        }
        shutdown.cancel();
    }
}

fn run_migrate(command: Migrate) -> anyhow::Result<()> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let said = match &command.command {
        Some(MigrateCommand::Status(on)) => {
            let status = wait_for(migrations::status(&load(Mode::Serve, &on.host, on.host.overrides())?))??;
            if on.json { format!("{status:#}") } else { migrations::status_table(&status) }
        }
        Some(MigrateCommand::Up(on)) => {
            let applied = wait_for(migrations::up(&load(Mode::Serve, &on.host, on.host.overrides())?))??;
            if on.json { format!("{applied:#}") } else { migrations::applied_lines(&applied) }
        }
        Some(MigrateCommand::Back { data }) => wait_for(migrate::back(data))??,
        None => {
            let config = Config::load(Mode::Serve, command.config_file().as_deref(), command.overrides())?;
            return wait_for(migrate::migrate(&config, say))?;
        }
    };
    say(said);
    Ok(())
}

fn run_doctor(doctor: &Doctor) -> anyhow::Result<()> {
    let mode = if doctor.dev { Mode::Dev } else { Mode::Serve };
    let findings = match Config::load(mode, doctor.host.config_file().as_deref(), doctor.host.overrides()) {
        Ok(config) => wait_for(doctor::examine(&config))?,
        // With settings that say nothing there is nothing to look at.
        Err(error) => doctor::of_settings(error),
    };
    if doctor.json {
        say(format_args!("{:#}", serde_json::json!({ "items": findings })));
    } else {
        findings.iter().for_each(show);
    }
    let failures = findings.iter().filter(|finding| finding.verdict == Verdict::Failure).count();
    anyhow::ensure!(failures == 0, "{failures} of {} would keep a host from running well", findings.len());
    Ok(())
}

fn show(finding: &Finding) {
    let (style, word) = match finding.verdict {
        Verdict::Good => (AnsiColor::Green.on_default(), "good"),
        Verdict::Warning => (AnsiColor::Yellow.on_default(), "warning"),
        Verdict::Failure => (AnsiColor::Red.on_default(), "FAILURE"),
    };
    say(format_args!("{style}{word:8}{style:#} {}: {}", finding.what, finding.says));
    if !finding.advice.is_empty() {
        say(format_args!("         {}", finding.advice));
    }
}

fn run_token(command: Token) -> anyhow::Result<()> {
    match command {
        Token::New { name, scope, days, admin } => {
            let client = find(&admin)?;
            let made = wait_for(client.new_token(&name, &scope, days))??;
            say(made.shown);
            eprintln!("{}", made.hint);
            Ok(())
        }
        Token::List { admin } => ask(&admin, async |client| Ok(client.tokens().await?)),
        Token::End { name, admin } => ask(&admin, async |client| Ok(client.end_token(&name).await?)),
        Token::Audit { limit, admin } => ask(&admin, async |client| Ok(client.audit(usize::try_from(limit)?).await?)),
    }
}

/// In development the end of a terminal is the end of its host, in order.
async fn end_on_hangup(shutdown: CancellationToken) {
    if let Ok(mut hangup) = signal(SignalKind::hangup()) {
        hangup.recv().await;
        shutdown.cancel();
    }
}

/// SIGHUP has the settings read again.
async fn reload_on_hangup(asked: Arc<Notify>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        return tracing::error!("SIGHUP cannot be listened to; use `echod reload`");
    };
    while hangup.recv().await.is_some() {
        asked.notify_one();
    }
}

fn run_plugin(command: Plugin) -> anyhow::Result<()> {
    match command {
        Plugin::New(new) => {
            let name = ServiceName::parse(&new.name)?;
            let folder = new.folder();
            for path in new_plugin::create(&name, &folder, &new.sdk)? {
                say(format_args!("{}", folder.join(path).display()));
            }
            say(format_args!("{name} is written; {} says how to build and deploy it", folder.join("README.md").display()));
            Ok(())
        }
        Plugin::Pack(pack) => {
            let component = pack.component(&service_in(&pack.dir)?);
            let component = std::fs::read(&component)
                .with_context(|| format!("{} (build it first, or name the file with --component)", component.display()))?;
            let packed = pack_directory(&pack.dir, &component, &contracts_of(&pack.dir)?, &migrations_of(&pack.dir)?)?;
            std::fs::write(&pack.output, &packed).with_context(|| format!("{}", pack.output.display()))?;
            let artifact = Artifact::read(packed)?;
            say(format_args!("{} {}  {}  {}", artifact.manifest.name, artifact.manifest.version, artifact.sha256, pack.output.display()));
            Ok(())
        }
        Plugin::Schema { markdown } => {
            let text = if markdown { manifest_reference::page() } else { format!("{:#}", manifest_reference::schema()) };
            say(text.trim_end());
            Ok(())
        }
        Plugin::Inspect { file, json } => {
            let described = inspect::describe(&Artifact::read(read_packed(&file)?)?)?;
            if json {
                say(format_args!("{described:#}"))
            } else {
                say(inspect::text(&described).trim_end())
            }
            Ok(())
        }
        Plugin::Deploy { file, dry_run, allow, grant, admin } => deploy(&file, dry_run, &allow, &grant, &admin),
        Plugin::Verify { file, allow, grant, admin } => deploy(&file, true, &allow, &grant, &admin),
        Plugin::Diff { what, from, to, admin } => diff(&what, from, to, &admin),
        Plugin::List { admin } => ask(&admin, async |client| Ok(client.list().await?)),
        Plugin::History { name, admin } => {
            let service = ServiceName::parse(&name)?;
            ask(&admin, async |client| Ok(client.history(&service).await?))
        }
        Plugin::Rollback { name, force, admin } => {
            let service = ServiceName::parse(&name)?;
            ask(&admin, async |client| Ok(client.rollback(&service, force).await?))
        }
    }
}

fn deploy(file: &Path, dry_run: bool, allow: &[String], grant: &[String], admin: &Admin) -> anyhow::Result<()> {
    let file = read_packed(file)?;
    let service = Artifact::read(file.clone())?.manifest.service();
    if std::io::stderr().is_terminal() {
        eprintln!("the host checks {service}, compiles it and tries its migrations; that may take some seconds");
    }
    let client = find(admin)?;
    let report = wait_for(client.deploy(&service, file, dry_run, allow, grant))?;
    // Programs read the plan, people the report that the error is.
    if let Err(ClientError::Unconfirmed { document, .. }) = &report
        && admin.json
    {
        say(format_args!("{document:#}"));
    }
    say(report?);
    Ok(())
}

fn diff(what: &str, from: Option<String>, to: Option<String>, admin: &Admin) -> anyhow::Result<()> {
    let live = || LIVE.to_owned();
    let (service, from, to) = match (from, to) {
        (None, _) if !Path::new(what).exists() && ServiceName::parse(what).is_ok() => anyhow::bail!(
            "{what} is no packed file. Of the service {what}, say which version: `echod plugin diff {what} 0.1.0` compares it with the one that runs, \
             `echod plugin diff {what} 0.1.0 0.2.0` two that are kept; `echod plugin history {what}` shows which there were"
        ),
        (None, _) => (Artifact::read(read_packed(Path::new(what))?)?.manifest.service(), live(), what.to_owned()),
        (Some(version), None) => (ServiceName::parse(what)?, live(), version),
        (Some(from), Some(to)) => (ServiceName::parse(what)?, from, to),
    };
    // A version begins with a digit; every other name is a file's.
    let is_kept = |name: &str| {
        let is_version = name.starts_with(|first: char| first.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+".contains(&byte))
            && !name.ends_with(".wasm");
        name == LIVE || is_version
    };
    let read = |name: &str| -> anyhow::Result<Artifact> {
        let packed = if is_kept(name) { wait_for(find(admin)?.packed(&service, name))?? } else { read_packed(Path::new(name))? };
        let artifact = Artifact::read(packed)?;
        anyhow::ensure!(artifact.manifest.service() == service, "{name} is a version of {}, not of {service}", artifact.manifest.name);
        Ok(artifact)
    };
    let difference = difference::between(&read(&from)?, &read(&to)?)?;
    if admin.json {
        say(format_args!("{:#}", serde_json::to_value(&difference)?));
    } else {
        say(difference.text());
    }
    Ok(())
}

/// The name in a plugin's manifest.
fn service_in(plugin: &Path) -> anyhow::Result<String> {
    let manifest = plugin.join("plugin.toml");
    let text = std::fs::read_to_string(&manifest).with_context(|| format!("{}", manifest.display()))?;
    Ok(Manifest::parse(&text)?.name)
}

/// The nearest `wit/` with a `services.wit`, from the plugin's folder upwards.
fn contracts_of(plugin: &Path) -> anyhow::Result<PathBuf> {
    let plugin = plugin.canonicalize().with_context(|| format!("{}", plugin.display()))?;
    let found = plugin.ancestors().map(|folder| folder.join("wit")).find(|folder| folder.join("services.wit").exists());
    found.with_context(|| format!("no wit/services.wit in {} or above it", plugin.display()))
}

/// The plugin's own `migrations/`, else `migrations/<name>/` beside the contracts.
fn migrations_of(plugin: &Path) -> anyhow::Result<PathBuf> {
    let own = plugin.join("migrations");
    if own.is_dir() {
        return Ok(own);
    }
    let plugin = plugin.canonicalize().with_context(|| format!("{}", plugin.display()))?;
    let name = plugin.file_name().context("the plugin's folder has a name")?;
    let contracts = contracts_of(&plugin)?;
    Ok(contracts.with_file_name("migrations").join(name))
}

/// To standard output, with colours where that is a terminal. A reader that has seen enough (`| head`) ends no command half way; any other failure ends it:
/// who asked for something has not got it.
fn say(text: impl std::fmt::Display) {
    let mut out = anstream::stdout();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            eprintln!("echod: standard output: {error}");
            std::process::exit(1);
        }
    }
}

fn ask(admin: &Admin, request: impl AsyncFnOnce(AdminClient) -> anyhow::Result<String>) -> anyhow::Result<()> {
    let client = find(admin)?;
    say(wait_for(request(client))??);
    Ok(())
}

fn find(admin: &Admin) -> anyhow::Result<AdminClient> {
    Ok(AdminClient::find(admin.admin.as_deref(), admin.token.as_deref(), &admin.data)?.with_json(admin.json))
}

fn wait_for<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a thread")?;
    Ok(runtime.block_on(work))
}
