//! The file of a write-ahead log, on top of SQLite's own: a commit reaches it in one write. SQLite writes each page of a commit with two calls,
//! first its 24 bytes of header; on a busy host half of a commit's time was spent entering and leaving the kernel.
//!
//! What is written one after another is held back until the frame that completes a commit, whose header says so (SQLite file format,
//! section 4.1, "frame header"), and reports the outcome of all. Nobody else reads frames before that: readers learn of a commit from the log's
//! index, which SQLite changes afterwards. Whatever else is asked of the file comes after what was held. The bytes are SQLite's own, in their
//! places, so that other programs read the files as ever, once this one has ended.
//!
//! For `synchronous = NORMAL` only: with `FULL` SQLite may cut a write in two, and it waits for the disk anyway.

use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

use rusqlite::Connection;
use rusqlite::ffi::{self, sqlite3_file, sqlite3_io_methods, sqlite3_vfs};

use crate::limits;

const NAME: &CStr = c"echo-one-write";
/// Of SQLite's own, the one whose files belong to one process: it takes one lock when it opens a file, and then asks the kernel for none, where
/// others ask several times per transaction (<https://www.sqlite.org/vfs.html>, section 2.1).
const BASE: &CStr = c"unix-excl";
const FRAME_HEADER_BYTES: usize = 24;
/// The largest page of SQLite.
const PAGE_BYTES_MAX: usize = 64 * 1024;

// SQLite's own files do not take 128 KiB in one write (`seekAndWriteFd` in `os_unix.c` keeps 17 bits of the size).
const _: () = assert!(limits::SQLITE_LOG_HELD_BYTES_MAX + PAGE_BYTES_MAX <= 128 * 1024);

/// The file system that ours stands on; none where SQLite does not have it.
pub fn base() -> Option<&'static CStr> {
    // SAFETY: the name ends with a NUL.
    let found = unsafe { !ffi::sqlite3_vfs_find(BASE.as_ptr()).is_null() };
    found.then_some(BASE)
}

/// The name of our file system, registered with SQLite the first time; none where there is none to stand on.
pub fn file_system() -> Option<&'static CStr> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    REGISTERED.get_or_init(register).then_some(NAME)
}

/// Writes to the disk what the kernel holds of a connection's database. By SQLite's own file: another one, when it is closed, would give up the
/// locks that this process has on it (POSIX.1-2017, `fcntl`).
pub fn flush_database(connection: &Connection) -> rusqlite::Result<()> {
    let mut file: *mut sqlite3_file = std::ptr::null_mut();
    // SAFETY: SQLite gives the file that the connection has open; it stays so while the connection is borrowed, which has it for this thread alone.
    let flushed = unsafe {
        let found =
            ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), ffi::SQLITE_FCNTL_FILE_POINTER, (&raw mut file).cast());
        if found != ffi::SQLITE_OK {
            found
        } else {
            match file.as_ref().and_then(|file| file.pMethods.as_ref()).and_then(|methods| methods.xSync) {
                Some(sync) => sync(file, ffi::SQLITE_SYNC_NORMAL | ffi::SQLITE_SYNC_DATAONLY),
                None => ffi::SQLITE_OK,
            }
        }
    };
    if flushed == ffi::SQLITE_OK { Ok(()) } else { Err(rusqlite::Error::SqliteFailure(ffi::Error::new(flushed), None)) }
}

fn register() -> bool {
    // SAFETY: SQLite's own file system lives as long as the process, and so does the copy of it, which is leaked. Its functions get the copy where
    // they expect the original; they look at `mxPathname` alone, which is the same. Only `xOpen` looks at `pAppData`, and is called with the original.
    unsafe {
        let Some(original) = ffi::sqlite3_vfs_find(BASE.as_ptr()).as_mut() else { return false };
        let mut ours = *original;
        ours.pNext = std::ptr::null_mut();
        ours.zName = NAME.as_ptr();
        ours.szOsFile += size_of::<LogFile>() as c_int;
        ours.pAppData = std::ptr::from_mut(original).cast();
        ours.xOpen = Some(open);
        ffi::sqlite3_vfs_register(Box::leak(Box::new(ours)), 0) == ffi::SQLITE_OK
    }
}

/// What SQLite sees as its file. The file below lies in the same memory, behind it.
#[repr(C)]
struct LogFile {
    /// First, as in every `sqlite3_file`.
    methods: *const sqlite3_io_methods,
    held: *mut Held,
}

/// Bytes that SQLite has written and that are not in the file yet.
struct Held {
    bytes: Vec<u8>,
    /// Where they begin.
    at: i64,
    /// Where the last write ended, held or not.
    end: i64,
    /// The frame whose header came last completes a commit.
    completes: bool,
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // The first version has all that a log needs; its index belongs to the database's file.
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// Only logs are ours; all other files are the original's own.
unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives `szOsFile` bytes, which is our part and the original's, and no method is called of a file whose `pMethods` is null.
    unsafe {
        let original: *mut sqlite3_vfs = (*vfs).pAppData.cast();
        let Some(open) = (*original).xOpen else { return ffi::SQLITE_CANTOPEN };
        if flags & ffi::SQLITE_OPEN_WAL == 0 {
            return open(original, name, file, flags, out_flags);
        }
        let ours: *mut LogFile = file.cast();
        (*ours).methods = std::ptr::null();
        let opened = open(original, name, below(file), flags, out_flags);
        if opened == ffi::SQLITE_OK {
            (*ours).held = Box::into_raw(Box::new(Held { bytes: Vec::new(), at: 0, end: -1, completes: false }));
            (*ours).methods = &METHODS;
        }
        opened
    }
}

/// The original's file.
///
/// # Safety
/// `file` is one of ours.
unsafe fn below(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: see `open`.
    unsafe { file.cast::<LogFile>().add(1).cast() }
}

/// # Safety
/// `file` is one of ours and open. SQLite uses a connection's files from one thread at a time.
unsafe fn held<'a>(file: *mut sqlite3_file) -> &'a mut Held {
    // SAFETY: made by `open`, taken back by `close`.
    unsafe { &mut *(*file.cast::<LogFile>()).held }
}

/// Calls a method of the original's file.
macro_rules! original {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        let below = below($file);
        match (*(*below).pMethods).$method {
            Some(method) => method(below $(, $argument)*),
            None => ffi::SQLITE_IOERR,
        }
    }};
}

/// Writes what is held. Where that fails it is gone, and with it the commit that it belonged to: SQLite is told so and rolls back.
unsafe fn flush(file: *mut sqlite3_file, held: &mut Held) -> c_int {
    if held.bytes.is_empty() {
        return ffi::SQLITE_OK;
    }
    // SAFETY: `file` is one of ours, as for all below.
    let written = unsafe { original!(file, xWrite, held.bytes.as_ptr().cast(), held.bytes.len() as c_int, held.at) };
    held.bytes.clear();
    if written != ffi::SQLITE_OK {
        held.end = -1;
    }
    written
}

unsafe extern "C" fn write(file: *mut sqlite3_file, bytes: *const c_void, count: c_int, at: i64) -> c_int {
    // SAFETY: SQLite gives `count` bytes to read.
    unsafe {
        let given = std::slice::from_raw_parts(bytes.cast::<u8>(), count as usize);
        let held = held(file);
        if let (FRAME_HEADER_BYTES, Some(pages)) = (given.len(), given.get(4..8)) {
            // The size of the database in pages, or 0 where more frames of the commit follow.
            held.completes = pages != [0; 4];
        }
        if !held.bytes.is_empty() && at == held.at {
            // What was held was rolled back.
            held.bytes.clear();
        } else if at != held.end {
            let flushed = flush(file, held);
            if flushed != ffi::SQLITE_OK {
                return flushed;
            }
            // Not behind the last one: a header that is written anew, or the first write of all.
            held.end = at + i64::from(count);
            return original!(file, xWrite, bytes, count, at);
        }
        if held.bytes.is_empty() {
            held.at = at;
        }
        held.bytes.extend_from_slice(given);
        held.end = at + i64::from(count);
        let is_complete = held.completes && given.len() != FRAME_HEADER_BYTES;
        if is_complete || held.bytes.len() >= limits::SQLITE_LOG_HELD_BYTES_MAX { flush(file, held) } else { ffi::SQLITE_OK }
    }
}

/// A method before which everything is written.
macro_rules! after_flush {
    ($name:ident, $method:ident $(, $argument:ident: $kind:ty)*) => {
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $kind)*) -> c_int {
            // SAFETY: the arguments are SQLite's own, for the original's method.
            unsafe {
                match flush(file, held(file)) {
                    ffi::SQLITE_OK => original!(file, $method $(, $argument)*),
                    error => error,
                }
            }
        }
    };
}

/// A method that has nothing to do with the content.
macro_rules! passed_on {
    ($name:ident, $method:ident $(, $argument:ident: $kind:ty)*) => {
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $kind)*) -> c_int {
            // SAFETY: the arguments are SQLite's own, for the original's method.
            unsafe { original!(file, $method $(, $argument)*) }
        }
    };
}

after_flush!(read, xRead, bytes: *mut c_void, count: c_int, at: i64);
after_flush!(truncate, xTruncate, size: i64);
after_flush!(sync, xSync, flags: c_int);
after_flush!(file_size, xFileSize, size: *mut i64);
passed_on!(lock, xLock, level: c_int);
passed_on!(unlock, xUnlock, level: c_int);
passed_on!(check_reserved_lock, xCheckReservedLock, out: *mut c_int);
passed_on!(file_control, xFileControl, operation: c_int, argument: *mut c_void);
passed_on!(sector_size, xSectorSize);
passed_on!(device_characteristics, xDeviceCharacteristics);

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: nothing is asked of a file after it is closed.
    unsafe {
        // What is held now belongs to no commit.
        drop(Box::from_raw((*file.cast::<LogFile>()).held));
        original!(file, xClose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;

    use rand::RngExt;
    use rusqlite::OpenFlags;

    /// As `lanes` opens it; with a small cache large transactions write to the log before their commit.
    fn open(path: &Path, is_small: bool) -> Connection {
        let connection = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), file_system().expect("SQLite has files")).unwrap();
        for (name, value) in [
            ("journal_mode", "WAL"),
            ("synchronous", "NORMAL"),
            ("cache_size", if is_small { "8" } else { "2000" }),
            ("wal_autocheckpoint", "64"),
        ] {
            connection.pragma_update(None, name, value).unwrap();
        }
        connection
    }

    /// What somebody finds who comes to the files as they are now: the sum and the number of all rows.
    fn found_after_a_kill(path: &Path, folder: &Path) -> (i64, i64) {
        let copy = folder.join("copy.sqlite");
        for end in ["", "-wal"] {
            std::fs::copy(format!("{}{end}", path.display()), format!("{}{end}", copy.display())).unwrap();
        }
        let _ = std::fs::remove_file(format!("{}-shm", copy.display()));
        let connection = Connection::open(&copy).unwrap();
        let check: String = connection.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
        connection.query_row("SELECT coalesce(sum(number), 0), count(*) FROM t", (), |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }

    fn insert(connection: &Connection, numbers: std::ops::Range<i64>) -> (i64, i64) {
        for number in numbers.clone() {
            let id = rand::random::<i64>();
            connection.execute("INSERT INTO t (id, number, text) VALUES ($1, $2, $3)", (id, number, "x".repeat(700))).unwrap();
        }
        (numbers.clone().sum(), numbers.count() as i64)
    }

    #[test]
    fn what_is_committed_is_in_the_file_and_nothing_else() {
        check(true);
        check(false);
    }

    fn check(is_small: bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sqlite");
        let connection = open(&path, is_small);
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, number INTEGER NOT NULL, text TEXT NOT NULL)", ()).unwrap();
        let (mut sum, mut count) = (0, 0);
        for round in 0..120 {
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            let many = rand::rng().random_range(1..if round % 10 == 0 { 400 } else { 5 });
            let kept = insert(&connection, 0..many);
            if round % 3 == 0 {
                connection.execute_batch("SAVEPOINT s").unwrap();
                insert(&connection, 0..many);
                connection.execute_batch("ROLLBACK TO s; RELEASE s").unwrap();
            }
            if round % 4 == 0 {
                connection.execute_batch("ROLLBACK").unwrap();
            } else {
                connection.execute_batch("COMMIT").unwrap();
                (sum, count) = (sum + kept.0, count + kept.1);
            }
            if round % 7 == 0 {
                connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(())).unwrap();
            }
            assert_eq!(found_after_a_kill(&path, folder.path()), (sum, count), "round {round}");
        }
        // And by a reader that knows nothing of it.
        let reader = Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), base().expect("SQLite has files")).unwrap();
        insert(&connection, 7..8);
        let seen: i64 = reader.query_row("SELECT count(*) FROM t", (), |row| row.get(0)).unwrap();
        assert_eq!(seen, count + 1);
    }
}
