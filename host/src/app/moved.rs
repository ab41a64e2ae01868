//! Whether the data of a folder is being moved to PostgreSQL or has been: a file that says so, so that no host starts on half of it or on what is old.
//! What was moved is put aside, and put back when the operator goes back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use echo_base::private_file;

/// What belongs to a host on SQLite alone. Blobs and secrets are used by the host on PostgreSQL too.
const FILES: [&str; 7] = ["services", "feed.sqlite", "feed.sqlite-wal", "tokens.sqlite", "tokens.sqlite-wal", "keys", "plugins"];
/// With `events.url` the queue is moved as well; without, the host on PostgreSQL goes on with it.
pub const QUEUE: [&str; 2] = ["queue.sqlite", "queue.sqlite-wal"];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The database, without a password.
    pub to: String,
    /// False while it is under way, and after it was cut off.
    pub is_finished: bool,
    /// RFC 3339.
    pub at: String,
}

impl Moved {
    pub fn new(to: &str, is_finished: bool) -> Self {
        Self { to: to.to_owned(), is_finished, at: jiff::Timestamp::now().to_string() }
    }

    fn path(data: &Path) -> PathBuf {
        data.join("moved.json")
    }

    /// None where the folder's data was never moved. A file that cannot be read counts as a move that was cut off.
    pub fn read(data: &Path) -> Option<Self> {
        let text = fs::read(Self::path(data)).ok()?;
        Some(serde_json::from_slice(&text).unwrap_or_else(|_| Self::new("a database", false)))
    }

    pub fn write(&self, data: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).expect("texts always encode");
        private_file::write(&Self::path(data), &text)
    }

    pub fn remove(data: &Path) -> io::Result<()> {
        match fs::remove_file(Self::path(data)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => private_file::sync_folder(&Self::path(data)),
        }
    }
}

/// Why no host starts on this folder, in words for the operator.
pub fn refusal(data: &Path, has_postgres: bool) -> Option<String> {
    let folder = data.display();
    match Moved::read(data)? {
        Moved { to, is_finished: false, at } => Some(format!(
            "the data in {folder} is being moved to {to} since {at}. If that was cut off: run the same `echod migrate` again, which begins anew, or \
             `echod migrate back --data {folder}` to serve from the files again, of which nothing was changed"
        )),
        Moved { to, is_finished: true, at } if !has_postgres => Some(format!(
            "the data of {folder} was moved to {to} at {at}: set sql.url to it. To go back to the files as they were then: \
             `echod migrate back --data {folder}`"
        )),
        Moved { .. } => None,
    }
}

/// One move at a time: held until it is dropped. Errors: one that is under way.
pub fn lock(data: &Path) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(data.join("moved.lock"))?;
    file.try_lock().map_err(|_| io::Error::other(format!("the data of {} is being moved by another `echod migrate`", data.display())))?;
    Ok(file)
}

fn aside(data: &Path) -> PathBuf {
    data.join("moved")
}

/// Puts aside what was moved; what is there already stays. Also after it was cut off. Errors: a file that is at both places, of which nobody knows which
/// one counts.
pub fn put_aside(data: &Path, queue_too: bool) -> io::Result<PathBuf> {
    let folder = aside(data);
    private_file::create_folder(&folder)?;
    rename_all(FILES.iter().chain(QUEUE.iter().filter(|_| queue_too)), data, &folder)?;
    if !queue_too {
        for name in QUEUE.iter().filter(|name| data.join(name).exists() && !folder.join(name).exists()) {
            fs::copy(data.join(name), folder.join(name))?;
        }
    }
    private_file::sync_folder(&folder.join("any"))?;
    private_file::sync_folder(&folder)?;
    Ok(folder)
}

/// Renames those that are in `from`. Nothing is overwritten, and nothing done where something would be.
fn rename_all<'a>(names: impl Iterator<Item = &'a &'a str> + Clone, from: &Path, to: &Path) -> io::Result<()> {
    let names = names.filter(|name| from.join(name).exists());
    if let Some(name) = names.clone().find(|name| to.join(name).exists()) {
        let (one, other) = (from.join(name), to.join(name));
        return Err(io::Error::other(format!(
            "{} and {} are both there: look which one counts, and put the other elsewhere",
            one.display(),
            other.display()
        )));
    }
    for name in names {
        fs::rename(from.join(name), to.join(name))?;
    }
    Ok(())
}

/// Puts back what `put_aside` has put aside.
pub fn put_back(data: &Path) -> io::Result<()> {
    let folder = aside(data);
    rename_all(FILES.iter(), &folder, data)?;
    if folder.join(QUEUE[0]).exists() {
        // That of the host on PostgreSQL, whose events are of a life that ends here.
        for name in QUEUE.iter().chain(&["queue.sqlite-shm"]).filter(|name| data.join(name).exists()) {
            fs::remove_file(data.join(name))?;
        }
    }
    rename_all(QUEUE.iter(), &folder, data)?;
    // What whoever looked into the files has left: SQLite makes it anew.
    for name in ["feed.sqlite-shm", "tokens.sqlite-shm", "queue.sqlite-shm"].iter().filter(|name| folder.join(name).exists()) {
        fs::remove_file(folder.join(name))?;
    }
    match fs::remove_dir(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::new(error.kind(), format!("{}: {error}; move what is left in it elsewhere", folder.display())))
        }
        _ => private_file::sync_folder(&folder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_whose_data_is_elsewhere_serves_from_there_alone() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        assert_eq!(refusal(data, false), None);
        Moved::new("postgres://db/echo", false).write(data).unwrap();
        for has_postgres in [false, true] {
            let refused = refusal(data, has_postgres).unwrap();
            assert!(refused.contains("migrate back") && refused.contains("postgres://db/echo"), "{refused}");
        }
        Moved::new("postgres://db/echo", true).write(data).unwrap();
        assert_eq!(refusal(data, true), None);
        assert!(refusal(data, false).unwrap().contains("set sql.url"));
        fs::write(data.join("moved.json"), "{").unwrap();
        assert!(refusal(data, true).is_some(), "nobody knows what it said");
        Moved::remove(data).unwrap();
        assert_eq!(refusal(data, false), None);
    }

    #[test]
    fn what_is_put_aside_comes_back_and_an_interruption_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        fs::create_dir(data.join("services")).unwrap();
        for name in ["services/a.sqlite", "feed.sqlite", "queue.sqlite"] {
            fs::write(data.join(name), "old").unwrap();
        }
        put_aside(data, false).unwrap();
        assert!(!data.join("feed.sqlite").exists() && !data.join("services").exists());
        fs::write(data.join("queue.sqlite"), "new").unwrap();
        put_aside(data, false).unwrap();
        // Nothing that was put aside is overwritten, and what comes beside SQLite's files is in nobody's way.
        fs::write(data.join("feed.sqlite"), "").unwrap();
        assert!(put_aside(data, false).unwrap_err().to_string().contains("both there"));
        assert!(put_back(data).unwrap_err().to_string().contains("both there"));
        fs::remove_file(data.join("feed.sqlite")).unwrap();
        fs::write(data.join("moved/feed.sqlite-shm"), "").unwrap();
        assert!(lock(data).is_ok_and(|_held| lock(data).is_err()));
        put_back(data).unwrap();
        for name in ["services/a.sqlite", "feed.sqlite", "queue.sqlite"] {
            assert_eq!(fs::read_to_string(data.join(name)).unwrap(), "old", "{name}");
        }
        put_aside(data, true).unwrap();
        assert!(!data.join("queue.sqlite").exists());
        // Cut off in the middle.
        fs::rename(data.join("moved/feed.sqlite"), data.join("feed.sqlite")).unwrap();
        put_back(data).unwrap();
        assert!(data.join("queue.sqlite").exists() && !data.join("moved").exists());
    }
}
