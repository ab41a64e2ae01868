//! A copy of all that a host keeps, and the way back. A running host makes it itself: its databases as they were at one moment, its keys, secrets and
//! the versions of its services. Knows nothing of what is in them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::admin::BackupRefusal;
use crate::capabilities::hub::FeedError;
use crate::capabilities::hub::embedded::EmbeddedFeed;
use crate::capabilities::sql::SqlError;
use crate::capabilities::sql::sqlite::pool::File;
use crate::capabilities::sql::sqlite::{Durability, snapshot};
use crate::private_file;

/// What is in a backup, and that it is whole: it is written last.
const INDEX: &str = "backup.json";
const FORMAT: u32 = 1;
/// Folders of files that are replaced whole, below the data folder.
const FOLDERS: [&str; 3] = ["keys", "secrets", "plugins"];

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
            BackupError::Path(_) => Self::FolderInvalid(detail),
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
/// empty. It is there whole or not at all.
pub async fn write(data: &Path, databases: Vec<(PathBuf, Arc<File>)>, tokens: &Path, to: &Path) -> Result<Report, BackupError> {
    if !to.is_absolute() {
        return Err(BackupError::Path(to.display().to_string()));
    }
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(BackupError::NotEmpty(to.to_owned()));
    }
    let unfinished = to.with_extension("unfinished");
    let (data, tokens, to) = (data.to_owned(), tokens.to_owned(), to.to_owned());
    let (paths, files): (Vec<PathBuf>, Vec<Arc<File>>) = databases.into_iter().unzip();
    remove_folder(&unfinished)?;
    // What names a version is copied before the databases: a version that is deployed meanwhile adds to them and takes nothing away.
    for folder in FOLDERS {
        copy_folder(&data.join(folder), &unfinished.join(folder))?;
    }
    let snapshots = snapshot::at_one_moment(&files).await.map_err(BackupError::Busy)?;
    let work = move || {
        for (path, snapshot) in paths.iter().zip(snapshots) {
            let to = unfinished.join(path);
            create_parent(&to)?;
            snapshot.write_to(&to).map_err(|source| BackupError::Database { path: path.clone(), source })?;
        }
        let copied = snapshot::copy_file(&data.join(&tokens), &unfinished.join(&tokens));
        copied.map_err(|source| BackupError::Database { path: tokens, source })?;
        finish(&unfinished, &to)
    };
    tokio::task::spawn_blocking(work).await.map_err(|broken| BackupError::Broken(broken.to_string()))?
}

/// Writes the index and gives the folder its name.
fn finish(unfinished: &Path, to: &Path) -> Result<Report, BackupError> {
    let (mut files, mut bytes) = (BTreeMap::new(), 0);
    for path in files_below(unfinished)? {
        let full = unfinished.join(&path);
        let content = read(&full)?;
        bytes += content.len() as u64;
        flush(&full)?;
        files.insert(path, digest(&content));
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
/// Everybody's feed goes on above all numbers that a device may have seen of it, so that each loads its state anew.
pub async fn restore(from: &Path, data: &Path, replace: bool) -> Result<Report, BackupError> {
    let index = checked(from)?;
    let has_data = fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_some());
    if has_data {
        if is_in_use(data) {
            return Err(BackupError::InUse(data.to_owned()));
        }
        if !replace {
            return Err(BackupError::HasData(data.to_owned()));
        }
    }
    let restored = beside(data, "restored");
    remove_folder(&restored)?;
    let mut bytes = 0;
    for path in index.files.keys() {
        let to = restored.join(path);
        create_parent(&to)?;
        let content = read(&from.join(path))?;
        bytes += content.len() as u64;
        private_file::write(&to, &content).map_err(|source| BackupError::File { path: to, source })?;
    }
    let feed = EmbeddedFeed::open(&restored, Durability::Power).await?;
    // The time in milliseconds: above all that a device has seen, also after the restore before this one, unless a person is sent more than a
    // thousand events a second for as long as the host is there.
    feed.continue_above(jiff::Timestamp::now().as_millisecond().unsigned_abs()).await?;
    feed.close().await;
    if has_data {
        rename(data, &beside(data, &format!("before-{}", jiff::Timestamp::now().as_second())))?;
    }
    rename(&restored, data)?;
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
    if index.format > FORMAT || minor_of(&index.version) > minor_of(own) {
        return Err(BackupError::Newer { folder: folder.to_owned(), made_by: index.version, own: own.to_owned() });
    }
    for (path, sha256) in &index.files {
        if path.is_absolute() || path.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return Err(no_backup(format!("{} lies outside of it", path.display())));
        }
        let content = fs::read(folder.join(path)).map_err(|error| no_backup(format!("{}: {error}", path.display())))?;
        if digest(&content) != *sha256 {
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
        let content = read(&from.join(&path))?;
        private_file::write(&to, &content).map_err(|source| BackupError::File { path: to, source })?;
    }
    Ok(())
}

fn create_parent(path: &Path) -> Result<(), BackupError> {
    let folder = path.parent().unwrap_or(path);
    private_file::create_folder(folder).map_err(|source| BackupError::File { path: folder.to_owned(), source })
}

fn remove_folder(path: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(BackupError::File { path: path.to_owned(), source }),
        _ => Ok(()),
    }
}

/// An empty folder may be there.
fn rename(from: &Path, to: &Path) -> Result<(), BackupError> {
    fs::rename(from, to).and_then(|()| private_file::sync_folder(to)).map_err(|source| BackupError::File { path: to.to_owned(), source })
}

fn read(path: &Path) -> Result<Vec<u8>, BackupError> {
    fs::read(path).map_err(|source| BackupError::File { path: path.to_owned(), source })
}

fn flush(path: &Path) -> Result<(), BackupError> {
    let flushed = fs::File::open(path).and_then(|file| file.sync_all()).and_then(|()| private_file::sync_folder(path));
    flushed.map_err(|source| BackupError::File { path: path.to_owned(), source })
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
