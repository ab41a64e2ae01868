//! A file system in memory that keeps apart what was flushed and what was only written, and can lose its power: then of what was not flushed a part
//! is there, by chance, and the rest is not. Files lose single pages; of the changes of a folder (files made, renamed, removed) the last ones are
//! undone, as by a file system that writes them down in their order.
//!
//! Mounted by FUSE (<https://docs.kernel.org/filesystems/fuse/fuse.html>), for which Linux wants root or `fusermount3`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, FileAttr, FileType, Filesystem, MountOption, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
};
use libc::{EEXIST, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY};
use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;

const ROOT: u64 = fuser::FUSE_ROOT_ID;
const PAGE_BYTES: usize = 4_096;
/// The kernel asks each time: what it remembers would outlive the power.
const REMEMBERED: Duration = Duration::ZERO;

/// The disk, mounted while it has power.
pub struct Disk {
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
}

impl Disk {
    /// An empty one, mounted at this folder.
    pub fn mount(at: &Path) -> Self {
        let mut disk = Self { state: Arc::new(Mutex::new(State::new())), session: None };
        disk.power_on(at);
        disk
    }

    pub fn power_on(&mut self, at: &Path) {
        let session = fuser::spawn_mount2(Mounted(self.state.clone()), at, &[MountOption::FSName("echo-test".to_owned())]);
        self.session = Some(session.unwrap_or_else(|error| {
            panic!("{error}: a file system cannot be mounted at {}; this test needs /dev/fuse, and root or fusermount3", at.display())
        }));
    }

    /// To be called when nobody has files open on it any more.
    pub fn power_off(&mut self, random: &mut StdRng) {
        if let Some(session) = self.session.take() {
            // The rest of the session is dropped, which unmounts; what its thread then says of the end does not matter.
            let serving = {
                let session = session;
                session.guard
            };
            let _ = serving.join();
        }
        self.state.lock().forget(random);
    }

    /// From now on a flush does nothing, and nothing that is written is there after the power was gone.
    pub fn ignore_flushes(&self) {
        self.state.lock().ignores_flushes = true;
    }
}

struct State {
    nodes: HashMap<u64, Node>,
    next: u64,
    ignores_flushes: bool,
}

struct Node {
    mode: u16,
    changed_at: SystemTime,
    content: Content,
}

enum Content {
    File(File),
    Folder(Folder),
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    flushed: Vec<u8>,
    /// Pages that differ, by their number.
    dirty: BTreeSet<usize>,
}

#[derive(Default)]
struct Folder {
    entries: BTreeMap<OsString, u64>,
    flushed: BTreeMap<OsString, u64>,
    /// In their order.
    changes: Vec<Change>,
}

/// All at once or not at all.
type Change = Vec<(OsString, Option<u64>)>;

impl File {
    fn touch(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / PAGE_BYTES..to.div_ceil(PAGE_BYTES));
    }

    fn resize(&mut self, size: usize) {
        let before = self.bytes.len();
        self.bytes.resize(size, 0);
        self.touch(before.min(size), before.max(size));
    }

    fn flush_page(&mut self, page: usize) {
        let (from, to) = (page * PAGE_BYTES, ((page + 1) * PAGE_BYTES).min(self.bytes.len()));
        if from < to {
            if self.flushed.len() < to {
                self.flushed.resize(to, 0);
            }
            self.flushed[from..to].copy_from_slice(&self.bytes[from..to]);
        }
    }

    fn flush(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            self.flush_page(page);
        }
        self.flushed.resize(self.bytes.len(), 0);
    }

    fn forget(&mut self, all: bool, random: &mut StdRng) {
        // None, all, or any of the pages.
        let share = if all { 0.0 } else { [0.0, 0.5, 1.0][random.random_range(0..3)] };
        for page in std::mem::take(&mut self.dirty) {
            if random.random_bool(share) {
                self.flush_page(page);
            }
        }
        self.bytes = self.flushed.clone();
    }
}

impl Folder {
    fn change(&mut self, change: Change) {
        apply(&mut self.entries, &change);
        self.changes.push(change);
    }

    fn flush(&mut self) {
        self.flushed = self.entries.clone();
        self.changes.clear();
    }

    fn forget(&mut self, all: bool, random: &mut StdRng) {
        let kept = if all { 0 } else { random.random_range(0..=self.changes.len()) };
        for change in self.changes.drain(..).take(kept) {
            apply(&mut self.flushed, &change);
        }
        self.entries = self.flushed.clone();
    }
}

fn apply(entries: &mut BTreeMap<OsString, u64>, change: &Change) {
    for (name, node) in change {
        match node {
            Some(node) => drop(entries.insert(name.clone(), *node)),
            None => drop(entries.remove(name)),
        }
    }
}

impl State {
    fn new() -> Self {
        let root = Node { mode: 0o755, changed_at: SystemTime::now(), content: Content::Folder(Folder::default()) };
        Self { nodes: HashMap::from([(ROOT, root)]), next: ROOT + 1, ignores_flushes: false }
    }

    fn forget(&mut self, random: &mut StdRng) {
        let mut numbers: Vec<u64> = self.nodes.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            match self.nodes.get_mut(&number).map(|node| &mut node.content) {
                Some(Content::File(file)) => file.forget(self.ignores_flushes, random),
                Some(Content::Folder(folder)) => folder.forget(self.ignores_flushes, random),
                None => {}
            }
        }
        self.drop_unnamed();
    }

    /// Those that no folder names any more.
    fn drop_unnamed(&mut self) {
        let (mut named, mut open) = (BTreeSet::new(), vec![ROOT]);
        while let Some(number) = open.pop() {
            if named.insert(number)
                && let Some(Node { content: Content::Folder(folder), .. }) = self.nodes.get(&number)
            {
                open.extend(folder.entries.values());
            }
        }
        self.nodes.retain(|number, _| named.contains(number));
    }

    fn file(&mut self, number: u64) -> Result<&mut File, Error> {
        let node = self.nodes.get_mut(&number).ok_or(ENOENT)?;
        node.changed_at = SystemTime::now();
        match &mut node.content {
            Content::File(file) => Ok(file),
            Content::Folder(_) => Err(EISDIR),
        }
    }

    fn folder(&mut self, number: u64) -> Result<&mut Folder, Error> {
        match &mut self.nodes.get_mut(&number).ok_or(ENOENT)?.content {
            Content::Folder(folder) => Ok(folder),
            Content::File(_) => Err(ENOTDIR),
        }
    }

    fn attributes(&self, number: u64) -> Result<FileAttr, Error> {
        let node = self.nodes.get(&number).ok_or(ENOENT)?;
        let (kind, size) = match &node.content {
            Content::File(file) => (FileType::RegularFile, file.bytes.len() as u64),
            Content::Folder(_) => (FileType::Directory, 0),
        };
        Ok(FileAttr {
            ino: number,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: node.changed_at,
            ctime: node.changed_at,
            crtime: UNIX_EPOCH,
            kind,
            perm: node.mode,
            nlink: 1,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: PAGE_BYTES as u32,
            flags: 0,
        })
    }

    fn add(&mut self, parent: u64, name: &OsStr, mode: u32, content: Content) -> Result<FileAttr, Error> {
        let number = self.next;
        let folder = self.folder(parent)?;
        if folder.entries.contains_key(name) {
            return Err(EEXIST);
        }
        folder.change(vec![(name.to_owned(), Some(number))]);
        self.next += 1;
        self.nodes.insert(number, Node { mode: (mode & 0o7777) as u16, changed_at: SystemTime::now(), content });
        self.attributes(number)
    }

    fn remove(&mut self, parent: u64, name: &OsStr) -> Result<(), Error> {
        let number = *self.folder(parent)?.entries.get(name).ok_or(ENOENT)?;
        if let Some(Node { content: Content::Folder(folder), .. }) = self.nodes.get(&number)
            && !folder.entries.is_empty()
        {
            return Err(ENOTEMPTY);
        }
        self.folder(parent)?.change(vec![(name.to_owned(), None)]);
        Ok(())
    }

    fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), Error> {
        let number = *self.folder(from.0)?.entries.get(from.1).ok_or(ENOENT)?;
        let (gone, there) = ((from.1.to_owned(), None), (to.1.to_owned(), Some(number)));
        if from.0 == to.0 {
            self.folder(from.0)?.change(vec![gone, there]);
        } else {
            self.folder(to.0)?.change(vec![there]);
            self.folder(from.0)?.change(vec![gone]);
        }
        Ok(())
    }

    fn flush(&mut self, number: u64) -> Result<(), Error> {
        if self.ignores_flushes {
            return Ok(());
        }
        match &mut self.nodes.get_mut(&number).ok_or(ENOENT)?.content {
            Content::File(file) => file.flush(),
            Content::Folder(folder) => folder.flush(),
        }
        Ok(())
    }
}

/// As the kernel says it.
type Error = libc::c_int;

/// What the kernel asks.
struct Mounted(Arc<Mutex<State>>);

fn done(reply: ReplyEmpty, outcome: Result<(), Error>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Mounted {
    fn lookup(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.0.lock();
        let found = state.folder(parent).and_then(|folder| folder.entries.get(name).copied().ok_or(ENOENT));
        match found.and_then(|number| state.attributes(number)) {
            Ok(attributes) => reply.entry(&REMEMBERED, &attributes, 0),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&mut self, _: &Request<'_>, number: u64, reply: ReplyAttr) {
        match self.0.lock().attributes(number) {
            Ok(attributes) => reply.attr(&REMEMBERED, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &mut self,
        _: &Request<'_>,
        number: u64,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<u64>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<u32>,
        reply: ReplyAttr,
    ) {
        let mut state = self.0.lock();
        if let (Some(mode), Some(node)) = (mode, state.nodes.get_mut(&number)) {
            node.mode = (mode & 0o7777) as u16;
        }
        let resized = size.map_or(Ok(()), |size| state.file(number).map(|file| file.resize(size as usize)));
        match resized.and_then(|()| state.attributes(number)) {
            Ok(attributes) => reply.attr(&REMEMBERED, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        match self.0.lock().add(parent, name, mode & !umask, Content::Folder(Folder::default())) {
            Ok(attributes) => reply.entry(&REMEMBERED, &attributes, 0),
            Err(error) => reply.error(error),
        }
    }

    fn create(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, mode: u32, umask: u32, _flags: i32, reply: ReplyCreate) {
        match self.0.lock().add(parent, name, mode & !umask, Content::File(File::default())) {
            Ok(attributes) => reply.created(&REMEMBERED, &attributes, 0, 0, 0),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.0.lock().remove(parent, name));
    }

    fn rmdir(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.0.lock().remove(parent, name));
    }

    fn rename(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, new_parent: u64, new_name: &OsStr, _: u32, reply: ReplyEmpty) {
        done(reply, self.0.lock().rename((parent, name), (new_parent, new_name)));
    }

    fn open(&mut self, _: &Request<'_>, _: u64, _: i32, reply: ReplyOpen) {
        reply.opened(0, 0);
    }

    fn read(&mut self, _: &Request<'_>, number: u64, _: u64, offset: i64, size: u32, _: i32, _: Option<u64>, reply: ReplyData) {
        let mut state = self.0.lock();
        match state.file(number) {
            Ok(file) => {
                let from = (offset as usize).min(file.bytes.len());
                let to = (from + size as usize).min(file.bytes.len());
                reply.data(&file.bytes[from..to]);
            }
            Err(error) => reply.error(error),
        }
    }

    fn write(&mut self, _: &Request<'_>, number: u64, _: u64, offset: i64, data: &[u8], _: u32, _: i32, _: Option<u64>, reply: ReplyWrite) {
        match self.0.lock().file(number) {
            Ok(file) => {
                let (from, to) = (offset as usize, offset as usize + data.len());
                if file.bytes.len() < to {
                    file.resize(to);
                }
                file.bytes[from..to].copy_from_slice(data);
                file.touch(from, to);
                reply.written(data.len() as u32);
            }
            Err(error) => reply.error(error),
        }
    }

    /// Closing, which flushes nothing.
    fn flush(&mut self, _: &Request<'_>, _: u64, _: u64, _: u64, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&mut self, _: &Request<'_>, number: u64, _: u64, _: bool, reply: ReplyEmpty) {
        done(reply, self.0.lock().flush(number));
    }

    fn fsyncdir(&mut self, _: &Request<'_>, number: u64, _: u64, _: bool, reply: ReplyEmpty) {
        done(reply, self.0.lock().flush(number));
    }

    fn readdir(&mut self, _: &Request<'_>, number: u64, _: u64, offset: i64, mut reply: ReplyDirectory) {
        let mut state = self.0.lock();
        let entries = match state.folder(number) {
            Ok(folder) => folder.entries.clone(),
            Err(error) => return reply.error(error),
        };
        for (at, (name, entry)) in (1..).zip(entries).skip(offset as usize) {
            let kind = match state.nodes.get(&entry).map(|node| &node.content) {
                Some(Content::Folder(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(entry, at, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&mut self, _: &Request<'_>, _: u64, reply: ReplyStatfs) {
        reply.statfs(1 << 24, 1 << 23, 1 << 23, 1 << 20, 1 << 20, PAGE_BYTES as u32, 255, PAGE_BYTES as u32);
    }

    fn access(&mut self, _: &Request<'_>, _: u64, _: i32, reply: ReplyEmpty) {
        reply.ok();
    }
}
