//! What outlives the program: the device's id, the tokens, the cursor, the outbox. Without a folder they are in memory alone; with one, every change is
//! a line of JSON at the end of the file `changes` (mode 0600), which is written anew when it has grown. One client at a time has the folder.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use echo_base::private_file;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::credentials::Credentials;
use crate::limits::{CHANGES_WAITING_MAX, LINES_KEPT_MIN};
use crate::outbox::OutboxEntry;

const CHANGES: &str = "changes";
const LOCK: &str = "lock";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    Device(String),
    Credentials(Option<Credentials>),
    Cursor(Option<u64>),
    /// A message to be sent, or what has become of it.
    Put(Box<OutboxEntry>),
    /// The message of this client id needs no more sending.
    Removed(String),
    /// Another account: nothing of the one before stays but the device.
    Cleared,
}

/// What all changes together make.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    pub device: Option<String>,
    pub credentials: Option<Credentials>,
    pub cursor: Option<u64>,
    /// By their order.
    pub outbox: BTreeMap<u64, OutboxEntry>,
}

impl State {
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Device(id) => self.device = Some(id),
            Change::Credentials(credentials) => self.credentials = credentials,
            Change::Cursor(cursor) => self.cursor = cursor,
            Change::Put(entry) => drop(self.outbox.insert(entry.order, *entry)),
            Change::Removed(id) => self.outbox.retain(|_, entry| entry.message.client_message_id != id),
            Change::Cleared => *self = Self { device: self.device.take(), ..Self::default() },
        }
    }

    fn changes(&self) -> Vec<Change> {
        let device = self.device.clone().map(Change::Device);
        let credentials = self.credentials.clone().map(|credentials| Change::Credentials(Some(credentials)));
        let cursor = self.cursor.map(|cursor| Change::Cursor(Some(cursor)));
        let outbox = self.outbox.values().map(|entry| Change::Put(Box::new(entry.clone())));
        device.into_iter().chain(credentials).chain(cursor).chain(outbox).collect()
    }
}

pub(crate) enum Storage {
    Memory,
    Folder(Writer),
}

/// A thread of its own, as a flush blocks; it ends with this.
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

struct Job {
    changes: Vec<Change>,
    /// Told when they are on the disk; without it they are written with the next that are.
    done: Option<oneshot::Sender<io::Result<()>>>,
}

impl Storage {
    /// With what is there. Errors: another client has the folder; a line that cannot be read.
    pub fn open(folder: Option<&Path>) -> io::Result<(Self, State)> {
        let Some(folder) = folder else { return Ok((Self::Memory, State::default())) };
        private_file::create_folder(folder)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => io::Error::new(io::ErrorKind::ResourceBusy, "another client has this folder"),
            std::fs::TryLockError::Error(error) => error,
        })?;
        let path = folder.join(CHANGES);
        let state = read(&path)?;
        let log = Log::begin(path, state.clone(), lock)?;
        let (queue, jobs) = mpsc::channel(CHANGES_WAITING_MAX);
        let thread = std::thread::Builder::new().name("echo-client-file".to_owned()).spawn(move || log.serve(jobs))?;
        Ok((Self::Folder(Writer { queue: Some(queue), thread: Some(thread) }), state))
    }

    /// Written, and on the disk when it returns.
    pub async fn keep(&self, changes: Vec<Change>) -> io::Result<()> {
        let Some(queue) = self.queue() else { return Ok(()) };
        let (done, written) = oneshot::channel();
        let gone = || io::Error::other("the file's thread has ended");
        queue.send(Job { changes, done: Some(done) }).await.map_err(|_| gone())?;
        written.await.map_err(|_| gone())?
    }

    /// For what may be lost: it is found out again.
    pub async fn note(&self, change: Change) {
        if let Some(queue) = self.queue() {
            let _ = queue.send(Job { changes: vec![change], done: None }).await;
        }
    }

    fn queue(&self) -> Option<&mpsc::Sender<Job>> {
        match self {
            Self::Memory => None,
            Self::Folder(writer) => writer.queue.as_ref(),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is there. The last line is passed over where it is not whole: it was never said to be kept.
fn read(path: &Path) -> io::Result<State> {
    let mut state = State::default();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(state),
        Err(error) => return Err(error),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (number, line) in whole.lines().enumerate() {
        let change = serde_json::from_str(line).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: line {} cannot be read: {error}", path.display(), number + 1))
        })?;
        state.apply(change);
    }
    Ok(state)
}

struct Log {
    path: PathBuf,
    file: File,
    state: State,
    lines: usize,
    bytes: u64,
    _lock: File,
}

impl Log {
    fn begin(path: PathBuf, state: State, lock: File) -> io::Result<Self> {
        let (file, lines, bytes) = write_anew(&path, &state)?;
        Ok(Self { path, file, state, lines, bytes, _lock: lock })
    }

    fn serve(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            // What has come meanwhile shares the flush.
            let mut batch = vec![first];
            while let Ok(job) = jobs.try_recv() {
                batch.push(job);
            }
            let durable = batch.iter().any(|job| job.done.is_some());
            let written = self.write(batch.iter().flat_map(|job| &job.changes), durable);
            for job in batch {
                if written.is_ok() {
                    job.changes.into_iter().for_each(|change| self.state.apply(change));
                }
                if let Some(done) = job.done {
                    let _ = done.send(written.as_ref().map(|_| ()).map_err(|error| io::Error::new(error.kind(), error.to_string())));
                }
            }
            if self.lines > LINES_KEPT_MIN
                && self.lines > 4 * self.state.changes().len()
                && let Ok((file, lines, bytes)) = write_anew(&self.path, &self.state)
            {
                (self.file, self.lines, self.bytes) = (file, lines, bytes);
            }
        }
    }

    fn write<'a>(&mut self, changes: impl Iterator<Item = &'a Change>, durable: bool) -> io::Result<()> {
        let mut text = Vec::new();
        let mut lines = 0;
        for change in changes {
            serde_json::to_writer(&mut text, change)?;
            text.push(b'\n');
            lines += 1;
        }
        let written = self.file.write_all(&text).and_then(|()| if durable { self.file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            // A part of a line would spoil the next one.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.lines += lines;
        self.bytes += text.len() as u64;
        Ok(())
    }
}

/// In the place of what was there; whole or not at all.
fn write_anew(path: &Path, state: &State) -> io::Result<(File, usize, u64)> {
    let changes = state.changes();
    let mut text = Vec::new();
    for change in &changes {
        serde_json::to_writer(&mut text, change)?;
        text.push(b'\n');
    }
    private_file::write(path, &text)?;
    Ok((OpenOptions::new().append(true).open(path)?, changes.len(), text.len() as u64))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::types::NewMessage;

    fn entry(order: u64) -> OutboxEntry {
        OutboxEntry { order, created_at_ms: 0, message: NewMessage::text(Uuid::nil(), format!("text {order}")), problem: None }
    }

    #[tokio::test]
    async fn what_was_kept_is_there_at_the_next_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let (storage, state) = Storage::open(Some(folder.path())).expect("opens");
        assert_eq!(state, State::default());
        let (one, other) = (entry(1), entry(2));
        storage.keep(vec![Change::Device("d".into()), Change::Put(Box::new(one.clone()))]).await.expect("kept");
        storage.note(Change::Cursor(Some(7))).await;
        storage.keep(vec![Change::Put(Box::new(other.clone()))]).await.expect("kept");
        storage.note(Change::Removed(one.message.client_message_id)).await;
        let busy = Storage::open(Some(folder.path())).err().expect("it is in use");
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        drop(storage);
        let (storage, state) = Storage::open(Some(folder.path())).expect("opens again");
        assert_eq!((state.device.as_deref(), state.cursor), (Some("d"), Some(7)));
        assert_eq!(state.outbox.into_values().collect::<Vec<_>>(), [other]);
        storage.keep(vec![Change::Cleared]).await.expect("kept");
        drop(storage);
        let (_, state) = Storage::open(Some(folder.path())).expect("opens again");
        assert_eq!(state, State { device: Some("d".into()), ..State::default() });
    }

    #[tokio::test]
    async fn a_line_that_was_cut_off_is_passed_over_and_one_that_was_changed_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (storage, _) = Storage::open(Some(folder.path())).expect("opens");
        storage.keep(vec![Change::Cursor(Some(1))]).await.expect("kept");
        drop(storage);
        let path = folder.path().join(CHANGES);
        let text = std::fs::read_to_string(&path).expect("text");
        std::fs::write(&path, format!("{text}{{\"cursor\":")).expect("written");
        let (storage, state) = Storage::open(Some(folder.path())).expect("opens");
        assert_eq!(state.cursor, Some(1));
        storage.keep(vec![Change::Cursor(Some(2))]).await.expect("kept");
        drop(storage);
        assert_eq!(read(&path).expect("whole").cursor, Some(2));
        std::fs::write(&path, "{\"cur\n{\"cursor\":3}\n").expect("written");
        let error = Storage::open(Some(folder.path())).err().expect("it says so");
        assert!(error.to_string().contains("line 1"), "{error}");
    }

    #[tokio::test]
    async fn the_file_does_not_grow_without_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let (storage, _) = Storage::open(Some(folder.path())).expect("opens");
        for cursor in 0..3 * LINES_KEPT_MIN as u64 {
            storage.note(Change::Cursor(Some(cursor))).await;
        }
        storage.keep(Vec::new()).await.expect("kept");
        let lines = std::fs::read_to_string(folder.path().join(CHANGES)).expect("text").lines().count();
        assert!(lines <= LINES_KEPT_MIN + CHANGES_WAITING_MAX + 1, "{lines} lines");
    }
}
