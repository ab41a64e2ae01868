//! Backup and restore of a data folder. A running host backs itself up: its databases as of one moment, its keys, secrets and the versions of its services.
//! Knows nothing of their contents.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::admin::BackupRefusal;
use echo_base::private_file;
use echo_capabilities::hub::FeedError;
use echo_capabilities::hub::embedded::EmbeddedFeed;
use echo_capabilities::sql::SqlError;
use echo_capabilities::sql::sqlite::pool::File;
use echo_capabilities::sql::sqlite::{Durability, snapshot};

/// What is in a backup, and that it is whole: it is written last.
const INDEX: &str = "backup.json";
const FORMAT: u32 = 1;
/// Folders of files that are replaced whole, below the data folder.
const FOLDERS: [&str; 3] = ["keys", "secrets", "plugins"];
/// Objects and uploads. They never change, and one is there before a database names it: so they are copied after the databases, and what was
/// removed meanwhile is left out.
const BLOBS: &str = "blobs";
/// What every data folder has: without one of them a backup is not whole, whatever its index says.
const NEEDED: [&str; 3] = ["feed.sqlite", "queue.sqlite", "tokens.sqlite"];
/// Read at once, in bytes: databases may be larger than the memory.
const CHUNK_BYTES: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Database { path: PathBuf, source: SqlError },
    #[error("{0}")]
    Busy(SqlError),
    #[error("{} is not empty; a backup is written into a folder of its own", .0.display())]
    NotEmpty(PathBuf),
    #[error("{0} is no whole path of a folder on the host's machine")]
    Path(String),
    #[error("{} is no backup: {reason}", folder.display())]
    NoBackup { folder: PathBuf, reason: String },
    #[error("{} was made by echod {made_by}, and this is {own}: restore it with that version or a later one", folder.display())]
    Newer { folder: PathBuf, made_by: String, own: String },
    #[error("{} has format {format}, and this echod reads {FORMAT}: restore it with a later version", folder.display())]
    Format { folder: PathBuf, format: u32 },
    #[error("{} and {} lie in each other; name a folder outside", .0.display(), .1.display())]
    Nested(PathBuf, PathBuf),
    #[error("{} is a mount point, which cannot be replaced; name a folder below it with --data", .0.display())]
    MountPoint(PathBuf),
    #[error("{} has data already; with --replace it is put aside, beside it", .0.display())]
    HasData(PathBuf),
    #[error("a host runs on {}: end it first", .0.display())]
    InUse(PathBuf),
    #[error("the copy broke off: {0}")]
    Broken(String),
    #[error("the feeds: {0}")]
    Feed(#[from] FeedError),
}

impl From<BackupError> for BackupRefusal {
    fn from(error: BackupError) -> Self {
        let detail = error.to_string();
        match error {
            BackupError::NotEmpty(_) => Self::FolderNotEmpty(detail),
            BackupError::Path(_) | BackupError::Nested(..) => Self::FolderInvalid(detail),
            _ => Self::Failed(detail),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Index {
    format: u32,
    /// The echod that made it.
    version: String,
    /// Microseconds since 1970.
    at_us: u64,
    /// The SHA-256 of each, by its path below the folder.
    files: BTreeMap<PathBuf, String>,
}

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub folder: PathBuf,
    pub files: usize,
    pub bytes: u64,
}

/// Copies these databases, by their paths below the data folder, as they were at one moment, and what lies beside them, into a folder that is new or
/// empty. It is there whole or not at all. Without the blobs it is for a move to another engine, and no backup.
pub async fn write(
    data: &Path,
    databases: Vec<(PathBuf, Arc<File>)>,
    tokens: &Path,
    with_blobs: bool,
    to: &Path,
) -> Result<Report, BackupError> {
    if !to.is_absolute() {
        return Err(BackupError::Path(to.display().to_string()));
    }
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(BackupError::NotEmpty(to.to_owned()));
    }
    refuse_nested(data, to)?;
    let unfinished = Unfinished::beside(to);
    let (data, tokens, to) = (data.to_owned(), tokens.to_owned(), to.to_owned());
    let (paths, files): (Vec<PathBuf>, Vec<Arc<File>>) = databases.into_iter().unzip();
    // What names a version is copied before the databases: a version that is deployed meanwhile adds to them and takes nothing away.
    for folder in FOLDERS {
        copy_folder(&data.join(folder), &unfinished.0.join(folder))?;
    }
    let snapshots = snapshot::at_one_moment(&files).await.map_err(BackupError::Busy)?;
    let work = move || {
        for (path, snapshot) in paths.iter().zip(snapshots) {
            let to = unfinished.0.join(path);
            create_parent(&to)?;
            snapshot.write_to(&to).map_err(|source| BackupError::Database { path: path.clone(), source })?;
        }
        let copied = snapshot::copy_file(&data.join(&tokens), &unfinished.0.join(&tokens));
        copied.map_err(|source| BackupError::Database { path: tokens, source })?;
        if with_blobs {
            copy_blobs(&data.join(BLOBS), &unfinished.0.join(BLOBS))?;
        }
        finish(&unfinished.0, &to)
    };
    tokio::task::spawn_blocking(work).await.map_err(|broken| BackupError::Broken(broken.to_string()))?
}

/// Writes the index and gives the folder its name.
fn finish(unfinished: &Path, to: &Path) -> Result<Report, BackupError> {
    let (mut files, mut bytes) = (BTreeMap::new(), 0);
    for path in files_below(unfinished)? {
        let full = unfinished.join(&path);
        let (sha256, size) = digest(&full)?;
        bytes += size;
        flush(&full)?;
        files.insert(path, sha256);
    }
    let count = files.len();
    let at_us = jiff::Timestamp::now().as_microsecond().max(0) as u64;
    let index = Index { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned(), at_us, files };
    let text = serde_json::to_vec_pretty(&index).expect("strings and numbers always serialise");
    let path = unfinished.join(INDEX);
    private_file::write(&path, &text).map_err(|source| BackupError::File { path, source })?;
    rename(unfinished, to)?;
    Ok(Report { folder: to.to_owned(), files: count, bytes })
}

/// Checks a backup and puts it back as a data folder, on which no host runs. With `replace`, what is there is put aside, beside it.
/// Every feed continues above all numbers that a device may have seen, so that each device loads its state again.
pub async fn restore(from: &Path, data: &Path, replace: bool) -> Result<Report, BackupError> {
    // Where a link or a relative path leads, that is put aside and replaced, and not the link.
    let data = &fs::canonicalize(data).unwrap_or_else(|_| data.to_owned());
    refuse_nested(from, data)?;
    let index = checked(from)?;
    if is_mount_point(data) {
        return Err(BackupError::MountPoint(data.to_owned()));
    }
    let has_data = fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_some());
    if has_data {
        if is_in_use(data) {
            return Err(BackupError::InUse(data.to_owned()));
        }
        if !replace {
            return Err(BackupError::HasData(data.to_owned()));
        }
    }
    let unfinished = Unfinished::beside(data);
    let restored = &unfinished.0;
    let mut bytes = 0;
    for path in index.files.keys() {
        let to = restored.join(path);
        create_parent(&to)?;
        bytes += copy_file(&from.join(path), &to)?;
    }
    let feed = EmbeddedFeed::open(restored, Durability::Power).await?;
    // The time in milliseconds: above all that a device has seen, also after the restore before this one, unless a person is sent more than a
    // thousand events a second for as long as the host is there.
    feed.continue_above(jiff::Timestamp::now().as_millisecond().unsigned_abs()).await?;
    feed.close().await;
    if has_data {
        rename(data, &beside(data, &format!("before-{}", jiff::Timestamp::now().as_second())))?;
    }
    rename(restored, data)?;
    Ok(Report { folder: data.to_owned(), files: index.files.len(), bytes })
}

/// A host that runs has its feeds' file for itself.
fn is_in_use(data: &Path) -> bool {
    let feed = data.join("feed.sqlite");
    feed.exists() && snapshot::is_in_use(&feed)
}

/// The index of a backup in which nothing is missing and nothing was changed.
fn checked(folder: &Path) -> Result<Index, BackupError> {
    let no_backup = |reason: String| BackupError::NoBackup { folder: folder.to_owned(), reason };
    let text = fs::read(folder.join(INDEX)).map_err(|error| no_backup(format!("{INDEX}: {error}")))?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| no_backup(format!("{INDEX}: {error}")))?;
    let own = env!("CARGO_PKG_VERSION");
    if index.format > FORMAT {
        return Err(BackupError::Format { folder: folder.to_owned(), format: index.format });
    }
    if minor_of(&index.version) > minor_of(own) {
        return Err(BackupError::Newer { folder: folder.to_owned(), made_by: index.version, own: own.to_owned() });
    }
    if let Some(missing) = NEEDED.iter().find(|needed| !index.files.contains_key(Path::new(needed))) {
        return Err(no_backup(format!("{INDEX} does not name {missing}")));
    }
    for (path, sha256) in &index.files {
        if path.is_absolute() || path.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return Err(no_backup(format!("{} lies outside of it", path.display())));
        }
        let (found, _) = digest(&folder.join(path)).map_err(|error| no_backup(error.to_string()))?;
        if found != *sha256 {
            return Err(no_backup(format!("{} was changed", path.display())));
        }
        if path.extension().is_some_and(|extension| extension == "sqlite") {
            snapshot::check_file(&folder.join(path)).map_err(|error| no_backup(format!("{}: {error}", path.display())))?;
        }
    }
    Ok(index)
}

/// What decides whether the older of two versions can read what the other wrote.
fn minor_of(version: &str) -> Vec<u64> {
    version.split('.').take(2).map(|part| part.parse().unwrap_or(u64::MAX)).collect()
}

/// A folder that is being filled, beside the one that it becomes. What is left of it is removed when it is dropped.
struct Unfinished(PathBuf);

impl Unfinished {
    /// Under a name that is not taken.
    fn beside(folder: &Path) -> Self {
        Self(beside(folder, &format!("{}.unfinished", Uuid::now_v7().simple())))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder = %self.0.display(), %error, "what is left of a copy cannot be removed");
            }
            _ => {}
        }
    }
}

/// Errors: one of the folders is the other or lies in it.
fn refuse_nested(one: &Path, other: &Path) -> Result<(), BackupError> {
    let resolved = |path: &Path| {
        let there = path.ancestors().find_map(|folder| Some((folder, fs::canonicalize(folder).ok()?)));
        there.map_or_else(|| path.to_owned(), |(folder, real)| real.join(path.strip_prefix(folder).expect("an ancestor of it")))
    };
    let (resolved_one, resolved_other) = (resolved(one), resolved(other));
    if resolved_one.starts_with(&resolved_other) || resolved_other.starts_with(&resolved_one) {
        return Err(BackupError::Nested(one.to_owned(), other.to_owned()));
    }
    Ok(())
}

/// On another file system than the folder that it is in.
fn is_mount_point(folder: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    device(folder).zip(folder.parent().and_then(device)).is_some_and(|(own, outer)| own != outer)
}

/// `<folder>.<word>`.
fn beside(folder: &Path, word: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{word}"));
    folder.with_file_name(name)
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let failed = |source| BackupError::File { path: folder.to_owned(), source };
    let (mut files, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            match path.is_dir() {
                true => open.push(path),
                false => files.push(path.strip_prefix(folder).expect("it was found there").to_owned()),
            }
        }
    }
    Ok(files)
}

/// Whatever lies in it; one that is not there has nothing.
fn copy_folder(from: &Path, to: &Path) -> Result<(), BackupError> {
    private_file::create_folder(to).map_err(|source| BackupError::File { path: to.to_owned(), source })?;
    if !from.exists() {
        return Ok(());
    }
    for path in files_below(from)? {
        // Being written just now.
        if path.extension().is_some_and(|extension| extension == "unfinished") {
            continue;
        }
        let to = to.join(&path);
        create_parent(&to)?;
        copy_file(&from.join(&path), &to)?;
    }
    Ok(())
}

/// But for those that are on their way.
fn copy_blobs(from: &Path, to: &Path) -> Result<(), BackupError> {
    let entries = |folder: &Path| match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let mut open = vec![from.to_owned()];
    while let Some(next) = open.pop() {
        for path in entries(&next).map_err(|source| BackupError::File { path: next.clone(), source })? {
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "arriving") {
                    open.push(path);
                }
                continue;
            }
            let to = to.join(path.strip_prefix(from).expect("it was found there"));
            create_parent(&to)?;
            match copy_file(&path, &to) {
                Err(_) if !path.exists() => match fs::remove_file(&to) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(BackupError::File { path: to, source }),
                    _ => {}
                },
                copied => drop(copied?),
            }
        }
    }
    Ok(())
}

fn create_parent(path: &Path) -> Result<(), BackupError> {
    let folder = path.parent().unwrap_or(path);
    private_file::create_folder(folder).map_err(|source| BackupError::File { path: folder.to_owned(), source })
}

/// An empty folder may be there.
fn rename(from: &Path, to: &Path) -> Result<(), BackupError> {
    fs::rename(from, to).and_then(|()| private_file::sync_folder(to)).map_err(|source| match source.kind() {
        // Another backup was there first.
        io::ErrorKind::DirectoryNotEmpty => BackupError::NotEmpty(to.to_owned()),
        _ => BackupError::File { path: to.to_owned(), source },
    })
}

fn flush(path: &Path) -> Result<(), BackupError> {
    let flushed = fs::File::open(path).and_then(|file| file.sync_all()).and_then(|()| private_file::sync_folder(path));
    flushed.map_err(|source| BackupError::File { path: path.to_owned(), source })
}

/// The SHA-256 of a file, in hexadecimal digits, and its size in bytes.
fn digest(path: &Path) -> Result<(String, u64), BackupError> {
    let (mut hash, mut size) = (Sha256::new(), 0);
    each_chunk(path, |chunk| {
        hash.update(chunk);
        size += chunk.len() as u64;
        Ok(())
    })?;
    Ok((hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), size))
}

/// Into a new file of mode 0600, which is on the disk when it returns; its size in bytes.
fn copy_file(from: &Path, to: &Path) -> Result<u64, BackupError> {
    let failed = |source| BackupError::File { path: to.to_owned(), source };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
    let mut size = 0;
    each_chunk(from, |chunk| {
        size += chunk.len() as u64;
        file.write_all(chunk)
    })?;
    file.sync_all().and_then(|()| private_file::sync_folder(to)).map_err(failed)?;
    Ok(size)
}

fn each_chunk(path: &Path, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), BackupError> {
    let mut read = || {
        let (mut file, mut chunk) = (fs::File::open(path)?, vec![0; CHUNK_BYTES]);
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(()),
                count => take(&chunk[..count])?,
            }
        }
    };
    read().map_err(|source| BackupError::File { path: path.to_owned(), source })
}
