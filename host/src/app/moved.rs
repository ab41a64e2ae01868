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

fn aside(data: &Path) -> PathBuf {
    data.join("moved")
}

/// Puts aside what was moved; what is there already stays. Also after it was cut off.
pub fn put_aside(data: &Path, queue_too: bool) -> io::Result<PathBuf> {
    let folder = aside(data);
    private_file::create_folder(&folder)?;
    for name in FILES.iter().chain(QUEUE.iter().filter(|_| queue_too)) {
        if data.join(name).exists() {
            fs::rename(data.join(name), folder.join(name))?;
        }
    }
    if !queue_too {
        for name in QUEUE.iter().filter(|name| data.join(name).exists() && !folder.join(name).exists()) {
            fs::copy(data.join(name), folder.join(name))?;
        }
    }
    private_file::sync_folder(&folder.join("any"))?;
    private_file::sync_folder(&folder)?;
    Ok(folder)
}

/// Puts back what `put_aside` has put aside.
pub fn put_back(data: &Path) -> io::Result<()> {
    let folder = aside(data);
    if folder.join(QUEUE[0]).exists() {
        // That of the host on PostgreSQL, whose events are of a life that ends here.
        for name in QUEUE.iter().chain(&["queue.sqlite-shm"]).filter(|name| data.join(name).exists()) {
            fs::remove_file(data.join(name))?;
        }
    }
    for name in FILES.iter().chain(&QUEUE).filter(|name| folder.join(name).exists()) {
        fs::rename(folder.join(name), data.join(name))?;
    }
    match fs::remove_dir(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
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
