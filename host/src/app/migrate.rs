//! `echod migrate --from`: the data of a host on SQLite files to a PostgreSQL database (host/docs/adr/0038-a-move-to-postgresql-copies-twice.md).
//!
//! A move copies a backup of the running host first, ends the host, and brings over what has changed since; then both sides are compared, row by row, and only
//! then the database may be used and the files no more. Cut off at any point, one side is whole and the other refuses to serve.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

use super::moved::{self, Moved};
use super::stores::{SHARED_KEYS, agree, hexadecimal, pool_settings};
use crate::admin::client::{Addresses, AdminClient};
use crate::config::{BlobStore, Config};
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::events::Event;
use echo_capabilities::events::jetstream::filled::{self, Filled, FilledDeadLetter};
use echo_capabilities::hub::embedded::{EmbeddedFeed, exported};
use echo_capabilities::hub::postgres::PostgresFeed;
use echo_capabilities::operators::Operators;
use echo_capabilities::operators::files::FileOperators;
use echo_capabilities::operators::postgres::PostgresOperators;
use echo_capabilities::sql::postgres::PostgresBackend;
use echo_capabilities::sql::postgres::import::{Before, ForeignKey, Import};
use echo_capabilities::sql::sqlite::export::{SqliteFile, quoted};
use echo_capabilities::sql::sqlite::{Durability, snapshot};
use echo_capabilities::sql::transfer::{Part, Transfer};
use echo_capabilities::sql::{Effect, Migration, SqlBackend, Value};
use echo_capabilities::tokens::embedded::keys;
use echo_capabilities::tokens::postgres::PostgresTokens;
use echo_capabilities::versions::VersionStore;
use echo_capabilities::versions::files::FileVersions;
use echo_capabilities::versions::postgres::PostgresVersions;
use echo_runtime::artifact::Artifact;

/// Moves the data below `config.data.dir` to the database in `sql.url`. `say` is told what is done, in words.
pub async fn migrate(config: &Config, mut say: impl FnMut(String)) -> anyhow::Result<()> {
    let from = config.data.dir.as_path();
    let url = config.postgres().context("--to: the address of the PostgreSQL database, or sql.url in the settings")?;
    let to = without_password(&url);
    let moves_queue = config.events.url.text().is_some();
    ensure!(from.is_dir(), "{} is no data folder of a host: there is no such folder", from.display());
    let _alone = moved::lock(from)?;
    let before = Moved::read(from);
    if let Some(moved) = before.as_ref().filter(|moved| moved.is_finished && moved.to != to) {
        bail!(
            "the data of {} was moved to {} at {}. To go back to the files as they were then: `echod migrate back --data {}`",
            from.display(),
            moved.to,
            moved.at,
            from.display()
        );
    }
    ensure!(
        before.as_ref().is_some_and(|moved| moved.is_finished) || from.join("feed.sqlite").is_file(),
        "{} is no data folder of a host: there is no feed.sqlite",
        from.display()
    );
    ensure!(
        matches!(config.blobs(), Ok(BlobStore::Embedded)),
        "blob.url: uploaded files are not moved by this command; leave it empty, and start the host on this data folder"
    );
    check_keys(config, from)?;
    let (mut import, state) = Import::begin(&url, &from.display().to_string()).await.context("the database")?;
    match state {
        Before::Finished { from: whence } => {
            // Cut off between the end of the move and that of tidying up.
            let ours = before.filter(|moved| moved.is_finished && moved.to == to);
            ensure!(ours.is_some(), "{to} was filled from {whence} already: name an empty database");
            let aside = moved::put_aside(from, moves_queue)?;
            say(format!("the data is in {to}; the files from before are in {}", aside.display()));
            return Ok(());
        }
        Before::Nothing { was_cut_off: true } => {
            say("a move before this one was cut off: what it left in the database is removed, and all begins anew".to_owned())
        }
        Before::Nothing { was_cut_off: false } => {}
    }
    let outcome = move_all(config, from, &url, &to, &mut import, &mut say).await;
    match outcome {
        Ok(()) => {}
        Err(error) => {
            let has_ended = Moved::read(from).is_some_and(|moved| !moved.is_finished);
            if has_ended && Moved::remove(from).is_ok() {
                return Err(error.context("the data was not moved; nothing in the files was changed: start the host on them again"));
            }
            return Err(error.context("the data was not moved; the host on the files was not touched"));
        }
    }
    // First the files, then the database: there is no moment at which hosts could start on both.
    Moved::new(&to, true).write(from).context("moved.json")?;
    import.finish().await.context("the database")?;
    let aside = moved::put_aside(from, moves_queue).context("putting aside what was moved")?;
    say(format!(
        "the data is in {to}. Start hosts with sql.url set to it, this folder's with --data {}: its blobs and secrets are used as before.\n\
         To go back to the files as they are now: `echod migrate back --data {}`; what hosts write into the database from here on would be lost by it.\n\
         When that is not wanted any more, remove {}.",
        from.display(),
        from.display(),
        aside.display()
    ));
    Ok(())
}

/// Serves from the files again, as they were when the data was moved. Every device loads its state anew.
pub async fn back(data: &Path) -> anyhow::Result<String> {
    let moved = Moved::read(data).with_context(|| format!("the data of {} was not moved", data.display()))?;
    let _alone = moved::lock(data)?;
    let lock = std::fs::OpenOptions::new().read(true).write(true).open(data.join("node.lock"));
    if let Ok(lock) = &lock {
        ensure!(lock.try_lock().is_ok(), "a host runs on {}: end it first", data.display());
    }
    if !moved.is_finished {
        Moved::remove(data).context("moved.json")?;
        return Ok(format!("nothing was moved; a host serves from {} again", data.display()));
    }
    moved::put_back(data).context("putting back what was put aside")?;
    let feed = EmbeddedFeed::open(data, Durability::Power).await?;
    // As after a restore: above all that a device may have seen meanwhile.
    feed.continue_above(jiff::Timestamp::now().as_millisecond().unsigned_abs()).await?;
    feed.close().await;
    Moved::remove(data).context("moved.json")?;
    Ok(format!("{} serves as of {} again; take sql.url and what belongs to it out of the settings", data.display(), moved.at))
}

async fn move_all(
    config: &Config,
    from: &Path,
    url: &str,
    to: &str,
    import: &mut Import,
    say: &mut impl FnMut(String),
) -> anyhow::Result<()> {
    let is_running = snapshot::is_in_use(&from.join("feed.sqlite"));
    let first = if is_running { Some(Copy::of_running(from).await?) } else { None };
    let source = first.as_ref().map_or(from, |copy| copy.0.as_path());
    let services = Service::all(&from.join("plugins"), source).await?;
    let backend = PostgresBackend::connect_to_fill(url, pool_settings(config)).await.context("the database")?;
    let mut filling = Filling::prepare(&backend, import, source, &services).await?;
    if let Some(copy) = first {
        let began = Instant::now();
        let files = open_files(&copy.0, &services)?;
        let mut rows = 0;
        for (file, transfer) in &mut filling.transfers {
            rows += transfer.copy(&files[*file], import).await?;
        }
        drop(files);
        drop(copy);
        say(format!(
            "{rows} rows of the running host are copied, in {:.1} s; it is ended now, and what it has written meanwhile follows",
            began.elapsed().as_secs_f64()
        ));
    }
    Moved::new(to, false).write(from).context("moved.json")?;
    let held = Instant::now();
    if is_running {
        end_host(config, from).await?;
    }
    let now = Service::all(&from.join("plugins"), from).await?;
    ensure!(now == services, "a version was deployed while the data was copied: migrate again");
    let files = open_files(from, &services)?;
    for (file, transfer) in &mut filling.transfers {
        let caught_up = transfer.catch_up(&files[*file], import).await?;
        let there = transfer.checksum(import).await?;
        ensure!(
            there == caught_up.checksum,
            "{}: the copy differs from the original: {there} in PostgreSQL, {} in SQLite",
            transfer.name(),
            caught_up.checksum
        );
        say(format!(
            "{}: {} on both sides; {} rows added at the end, {} taken away",
            transfer.name(),
            there,
            caught_up.added,
            caught_up.removed
        ));
    }
    filling.finish(&backend, import, &files, &services).await?;
    move_effects(config, &backend, from, &files, &services).await?;
    move_keys(config, &backend, from).await?;
    let versions = move_versions(&backend, from).await?;
    move_operators(&backend, from).await?;
    if config.events.url.text().is_some() {
        let queue = queue_of(from)?;
        say(format!(
            "{} waiting events, {} dead letters, {} subscriptions are moved",
            queue.waiting.len(),
            queue.dead_letters.len(),
            queue.subscriptions.len()
        ));
        filled::fill(&backend, queue).await?;
    }
    backend.close().await;
    say(format!("{versions} versions of services are moved; nobody could write for {:.1} s", held.elapsed().as_secs_f64()));
    Ok(())
}

/// A backup of a running host, without its blobs. Removed when it is dropped.
struct Copy(PathBuf);

impl Copy {
    async fn of_running(data: &Path) -> anyhow::Result<Self> {
        let data = std::fs::canonicalize(data)?;
        let mut name = data.file_name().context("the data folder has a name")?.to_owned();
        name.push(".moving");
        let copy = Self(data.with_file_name(name));
        // Of a move that was cut off.
        let _ = std::fs::remove_dir_all(&copy.0);
        let host = AdminClient::find(None, None, &data).context("a host runs on the data, and its operator's address is not known")?;
        host.back_up_databases(&copy.0).await.context("a first copy of the running host")?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Drains the host and waits for its end. `moved.json` is there already, so that whoever watches over it cannot start it again.
async fn end_host(config: &Config, data: &Path) -> anyhow::Result<()> {
    let addresses = Addresses::read(data)?;
    AdminClient::find(None, None, data)?.drain().await.context("ending the host")?;
    let until = Instant::now() + 3 * config.server.drain_timeout + Duration::from_secs(30);
    let process = PathBuf::from(format!("/proc/{}", addresses.pid));
    while Addresses::path(data).exists() && process.exists() || snapshot::is_in_use(&data.join("feed.sqlite")) {
        ensure!(Instant::now() < until, "the host did not end in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// A service with tables in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    name: ServiceName,
    /// Those that are applied to its file, as PostgreSQL has them, and back-fills that are done.
    migrations: Vec<Migration>,
    /// By name: when it began and how many rows it filled.
    backfills: BTreeMap<String, (i64, i64)>,
    source: String,
}

impl Service {
    async fn all(plugins: &Path, data: &Path) -> anyhow::Result<Vec<Self>> {
        let versions = FileVersions::open(plugins)?;
        let mut services = Vec::new();
        let mut names = BTreeSet::new();
        if data.join("services").is_dir() {
            for entry in std::fs::read_dir(data.join("services"))? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "sqlite") {
                    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                    names.insert(ServiceName::parse(stem).with_context(|| format!("{}: no service has this name", path.display()))?);
                }
            }
        }
        for name in names {
            services.push(Self::read(name, &versions, data).await?);
        }
        Ok(services)
    }

    async fn read(name: ServiceName, versions: &FileVersions, data: &Path) -> anyhow::Result<Self> {
        let file = SqliteFile::open(&file_of(data, &name))?;
        let text = |rows: Vec<Vec<Value>>| match rows.into_iter().next().and_then(|row| row.into_iter().next()) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        };
        let source = text(file.rows("SELECT value FROM _echo_meta WHERE name = 'source'")?).context("the outbox has no name")?;
        let applied = if file.has("_echo_migrations")? {
            file.rows("SELECT name FROM _echo_migrations WHERE undo IS NULL ORDER BY name")?
        } else {
            Vec::new()
        };
        let mut known: HashMap<String, Migration> = HashMap::new();
        for version in versions.read(&name).await?.files.keys() {
            let packed = versions.file(&name, version).await?.unwrap_or_default();
            let artifact = Artifact::read(packed).with_context(|| format!("{name} {version}"))?;
            let of_postgres = artifact.migrations.into_iter().filter(|migration| migration.dialect == "postgres");
            known.extend(of_postgres.map(|migration| (migration.name.clone(), migration)));
        }
        let mut migrations = Vec::new();
        for row in applied {
            let [Value::Text(migration)] = row.as_slice() else { continue };
            let twin = known.get(migration).with_context(|| {
                format!("{name}: none of its versions that are kept has the migration {migration} for PostgreSQL: deploy one that has it")
            })?;
            migrations.push(twin.clone());
        }
        let mut backfills = BTreeMap::new();
        if file.has("_echo_backfills")? {
            for row in file.rows("SELECT name, began_us, rows FROM _echo_backfills WHERE done_us IS NOT NULL")? {
                if let [Value::Text(backfill), Value::S64(began_us), Value::S64(rows)] = row.as_slice()
                    && let Some(twin) = known.get(backfill)
                {
                    migrations.push(twin.clone());
                    backfills.insert(backfill.clone(), (*began_us, *rows));
                }
            }
        }
        Ok(Self { name, migrations, backfills, source })
    }

    fn schema(&self) -> String {
        format!("echo_{}", self.name)
    }
}

pub(super) fn file_of(data: &Path, service: &ServiceName) -> PathBuf {
    data.join("services").join(format!("{service}.sqlite"))
}

/// The feeds, the tokens, and then each service's.
fn open_files(data: &Path, services: &[Service]) -> anyhow::Result<Vec<SqliteFile>> {
    let paths = ["feed.sqlite", "tokens.sqlite"].map(|name| data.join(name)).into_iter();
    let paths = paths.chain(services.iter().map(|service| file_of(data, &service.name)));
    paths.map(|path| SqliteFile::open(&path).with_context(|| format!("{}", path.display()))).collect()
}

/// Tables that are being filled.
struct Filling {
    /// Each with the place of its file in `open_files`.
    transfers: Vec<(usize, Transfer)>,
    foreign_keys: Vec<ForeignKey>,
}

impl Filling {
    /// Makes the tables, empty and without foreign keys.
    async fn prepare(backend: &PostgresBackend, import: &mut Import, source: &Path, services: &[Service]) -> anyhow::Result<Self> {
        let files = open_files(source, services)?;
        if let [row] = files[0].rows("SELECT value FROM _echo_meta WHERE name = 'source'")?.as_slice()
            && let [Value::Text(name)] = row.as_slice()
        {
            backend.continue_source("hub", name).await?;
        }
        PostgresFeed::open(backend).await?;
        PostgresTokens::fill(backend, &unused_key(), &[]).await?;
        let mut parts: Vec<(usize, Part)> = exported::parts().into_iter().map(|part| (0, part)).collect();
        let revocations = Part {
            name: "tokens.revocations".to_owned(),
            from: "SELECT kind, lower(hex(id)), at_us, until_us FROM revocations".to_owned(),
            to: "echo.token_revocation".to_owned(),
            columns: ["kind", "id", "at_us", "until_us"].map(str::to_owned).to_vec(),
            key: vec![0, 1],
        };
        parts.push((1, revocations));
        let mut foreign_keys = Vec::new();
        for (place, service) in services.iter().enumerate() {
            backend.continue_source(service.name.as_str(), &service.source).await?;
            let database = backend.open(&service.name).await.with_context(|| format!("the schema of {}", service.name))?;
            database.migrate(&service.migrations).await.with_context(|| format!("the tables of {}", service.name))?;
            foreign_keys.extend(import.take_foreign_keys(&service.schema()).await?);
            for table in files[place + 2].tables()? {
                let to = format!("{}.{}", quoted(&service.schema()), quoted(&table.name));
                // Rows that a migration brings with its table are in the file too.
                import.run(&format!("TRUNCATE {to}")).await.with_context(|| format!("{}.{}", service.name, table.name))?;
                let columns: Vec<String> = table.columns.iter().map(|column| quoted(column)).collect();
                let from = format!("SELECT {} FROM {}", columns.join(", "), quoted(&table.name));
                let name = format!("{}.{}", service.name, table.name);
                parts.push((place + 2, Part { name, from, to, columns: table.columns, key: table.key }));
            }
        }
        let mut transfers = Vec::new();
        for (file, part) in parts {
            transfers.push((file, Transfer::open(part, import).await?));
        }
        Ok(Self { transfers, foreign_keys })
    }

    /// After the rows: what holds them together, and where their numbers go on.
    async fn finish(
        self,
        backend: &PostgresBackend,
        import: &mut Import,
        files: &[SqliteFile],
        services: &[Service],
    ) -> anyhow::Result<()> {
        import.put_foreign_keys(self.foreign_keys).await.context("a row refers to one that is not there")?;
        import
            .run("SELECT setval('echo.feed_payload_id', (SELECT greatest(coalesce(max(id), 0), 1) FROM echo.feed_payload) + 1, false)")
            .await?;
        for (service, file) in services.iter().zip(&files[2..]) {
            let sequences: HashMap<String, i64> = file.sequences()?.into_iter().collect();
            for table in file.tables()? {
                let to = format!("{}.{}", quoted(&service.schema()), quoted(&table.name));
                import.continue_sequences(&to, sequences.get(&table.name).copied().unwrap_or(0)).await?;
            }
            for (name, (began_us, rows)) in &service.backfills {
                let twin = service.migrations.iter().find(|migration| migration.name == *name).context("a back-fill without its text")?;
                backend.note_backfill(&service.name, twin, *began_us, *rows).await?;
            }
        }
        Ok(())
    }
}

/// Effects that no receiver has: after a clean end there are none.
async fn move_effects(
    config: &Config,
    backend: &PostgresBackend,
    data: &Path,
    files: &[SqliteFile],
    services: &[Service],
) -> anyhow::Result<()> {
    let queue = SqliteFile::open(&data.join("queue.sqlite"))?;
    let seen_by_feed = positions(&files[0], "feed_source")?;
    let seen_by_queue = positions(&queue, "queue_source")?;
    let label = files[0].rows("SELECT value FROM _echo_meta WHERE name = 'source'")?;
    let feed = match label.first().map(Vec::as_slice) {
        Some([Value::Text(name)]) => name.clone(),
        _ => String::new(),
    };
    let outboxes = std::iter::once((None, feed.as_str(), &files[0]));
    let outboxes =
        outboxes.chain(services.iter().zip(&files[2..]).map(|(service, file)| (Some(&service.name), service.source.as_str(), file)));
    for (service, source, file) in outboxes {
        let after = |seen: &HashMap<String, i64>| seen.get(source).copied().unwrap_or(i64::MIN);
        let mut left = Vec::new();
        for row in file.rows("SELECT position, effect FROM _echo_outbox ORDER BY position")? {
            let [Value::S64(position), Value::Text(effect)] = row.as_slice() else {
                bail!("an outbox of {source} holds what is no effect")
            };
            let effect: Effect = serde_json::from_str(effect).with_context(|| format!("an effect of {source}"))?;
            let seen = if matches!(effect, Effect::Event(_)) { after(&seen_by_queue) } else { after(&seen_by_feed) };
            if *position > seen {
                left.push(effect);
            }
        }
        backend.put_effects(service, left).await?;
    }
    agree(config, backend).await
}

fn positions(file: &SqliteFile, table: &str) -> anyhow::Result<HashMap<String, i64>> {
    let rows = file.rows(&format!("SELECT name, position FROM {table}"))?;
    let known = rows.into_iter().filter_map(|row| match row.as_slice() {
        [Value::Text(name), Value::S64(position)] => Some((name.clone(), *position)),
        _ => None,
    });
    Ok(known.collect())
}

async fn move_keys(config: &Config, backend: &PostgresBackend, data: &Path) -> anyhow::Result<()> {
    let master_key = config.master_key()?.context("tokens.master_key")?;
    let now_us = jiff::Timestamp::now().as_microsecond().max(0) as u64;
    let keys = keys::exported(&data.join("keys"), now_us)?;
    Ok(PostgresTokens::fill(backend, &master_key, &keys).await?)
}

/// Operators' tokens, and what was done with them.
async fn move_operators(backend: &PostgresBackend, data: &Path) -> anyhow::Result<()> {
    let path = data.join("secrets/operators.json");
    if !path.exists() {
        return Ok(());
    }
    let (from, to) = (FileOperators::open(&path)?, PostgresOperators::open(backend).await?);
    for token in from.list().await? {
        to.create(token).await?;
    }
    for entry in from.audit(None, limits::OPERATOR_AUDIT_MAX).await?.into_iter().rev() {
        to.note(entry).await?;
    }
    Ok(())
}

async fn move_versions(backend: &PostgresBackend, data: &Path) -> anyhow::Result<usize> {
    let (from, to) = (FileVersions::open(&data.join("plugins"))?, PostgresVersions::open(backend, None).await?);
    let mut count = 0;
    for service in from.services().await?.into_keys() {
        let kept = from.read(&service).await?;
        for version in kept.files.keys() {
            let file = from.file(&service, version).await?.with_context(|| format!("{service} {version} is gone"))?;
            to.keep(&service, version, &hexadecimal(&file), &file).await?;
            count += 1;
        }
        if let Some(state) = kept.state {
            let read = to.read(&service).await?.state_revision;
            to.put_state(&service, read, &state, None).await?;
        }
    }
    Ok(count)
}

fn queue_of(data: &Path) -> anyhow::Result<Filled> {
    let file = SqliteFile::open(&data.join("queue.sqlite"))?;
    let event = |text: &str| serde_json::from_str::<Event>(text).context("an event of the queue");
    let mut queue = Filled::default();
    for row in file.rows("SELECT consumer, topic FROM queue_subscription ORDER BY id")? {
        let [Value::Text(consumer), Value::Text(topic)] = row.as_slice() else { bail!("a subscription of the queue cannot be read") };
        queue.subscriptions.push((consumer.clone(), topic.clone()));
    }
    let mut seen = BTreeSet::new();
    for row in file.rows("SELECT event, publisher FROM queue_entry ORDER BY id")? {
        let [Value::Text(text), publisher] = row.as_slice() else { bail!("an event of the queue cannot be read") };
        let event = event(text)?;
        if !seen.insert(event.id) {
            continue;
        }
        // Where it is not said, a topic's first word is the service that publishes it. Devices' events are the feeds', whose outbox is called `hub` here.
        let publisher = match publisher {
            Value::Text(publisher) if publisher != "feed" => publisher.clone(),
            _ => event.topic.split('.').next().unwrap_or_default().to_owned(),
        };
        queue.waiting.push((publisher, event));
    }
    for row in file.rows("SELECT consumer, event, reason, tries, at_us FROM queue_letter ORDER BY id")? {
        let [Value::Text(consumer), Value::Text(text), Value::Text(reason), Value::S64(tries), Value::S64(at_us)] = row.as_slice() else {
            bail!("a dead letter of the queue cannot be read")
        };
        queue.dead_letters.push(FilledDeadLetter {
            consumer: consumer.clone(),
            event: event(text)?,
            reason: reason.clone(),
            tries: u32::try_from(*tries).unwrap_or(u32::MAX),
            at_us: at_us.unsigned_abs(),
        });
    }
    Ok(queue)
}

/// Errors: with these settings the hosts would read fingerprints, and page cursors that people have, with another key than they were made with.
fn check_keys(config: &Config, data: &Path) -> anyhow::Result<()> {
    let secrets = std::path::absolute(data.join("secrets"))?;
    let mut lines = Vec::new();
    for ((setting, file), now) in SHARED_KEYS.into_iter().zip([config.fingerprint_key()?, config.cursor_key()?]) {
        let path = secrets.join(file);
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        if Sha256::digest(text.trim().as_bytes()).as_slice() != now {
            lines.push(format!("{setting} = \"file:{}\"", path.display()));
        }
    }
    ensure!(
        lines.is_empty(),
        "the hosts on PostgreSQL go on with the keys of this one, or everybody would have to sign in again. Set, the same for all of them \
         (and give each host a copy of the files):\n  {}",
        lines.join("\n  ")
    );
    Ok(())
}

/// To make tables with before any key is put there.
fn unused_key() -> echo_capabilities::tokens::MasterKey {
    echo_capabilities::tokens::MasterKey::of_text(&"-".repeat(64)).expect("it is long enough")
}

/// `postgres://user@host/database`
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "a database".to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = path.split('?').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, host)) => format!("{scheme}://{}@{host}{path}", user.split(':').next().unwrap_or_default()),
        None => format!("{scheme}://{authority}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (url, expect) in [
            ("postgres://echo:s3cret@db.example:5433/echo?sslmode=require", "postgres://echo@db.example:5433/echo"),
            ("postgres://echo@/echo?host=/run", "postgres://echo@/echo"),
            ("postgres://db.example/echo", "postgres://db.example/echo"),
            ("nonsense", "a database"),
        ] {
            assert_eq!(without_password(url), expect);
        }
    }
}
