//! Files that only this account may read (keys, tokens, addresses), replaced whole or not at all, and folders that
//! no other account can read. Knows nothing of what is in them.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Mode 0600, in place of whatever was there; on the disk when it returns.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    // The process id keeps two hosts on one folder from writing into each other's unfinished file.
    let unfinished = path.with_extension(format!("{}.unfinished", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    sync_folder(path)
}

/// Mode 0700, for its parents too where they are missing; fine where it is there already. On the disk when it returns.
pub fn create_folder(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // Also where it was there: its maker may have died before setting the mode.
    std::iter::once(path).chain(missing).try_for_each(sync_folder)
}

const STICKY: u32 = 0o1000;

/// Mode 0700 for the folder, and below it 0700 for folders and 0600 for files, of the entries that `is_own` says are the host's; links are left as
/// they are, as they may lead anywhere. Made where it is missing. How many were mended.
/// Errors: what cannot be mended, with its path; a folder that all accounts share, such as `/tmp`.
pub fn make_folder_private(path: &Path, is_own: impl Fn(&str) -> bool) -> io::Result<usize> {
    create_folder(path)?;
    if std::fs::metadata(path)?.mode() & STICKY != 0 {
        let reason = format!("{}: all accounts share this folder; name one of the host's own, such as one below it", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    // From the outside in: once the folder is private, no other account reaches its contents.
    let mut mended = usize::from(mend(path, 0o700)?);
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&is_own) {
            mended += mend_below(&entry.path())?;
        }
    }
    Ok(mended)
}

fn mend_below(path: &Path) -> io::Result<usize> {
    let kind = path.symlink_metadata()?.file_type();
    if kind.is_file() {
        return Ok(usize::from(mend(path, 0o600)?));
    }
    if !kind.is_dir() {
        return Ok(0);
    }
    let mut mended = usize::from(mend(path, 0o700)?);
    for entry in std::fs::read_dir(path)? {
        mended += mend_below(&entry?.path())?;
    }
    Ok(mended)
}

/// Whether it had another mode.
fn mend(path: &Path, mode: u32) -> io::Result<bool> {
    let explained = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if std::fs::metadata(path).map_err(explained)?.mode() & 0o7777 == mode {
        return Ok(false);
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(explained)?;
    Ok(true)
}

/// A name in a folder is durable only when the folder is.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loosely_permitted_folder_is_mended_and_what_is_not_the_hosts_stays() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let loose = |path: &Path, mode: u32| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let mode_of = |path: &str| std::fs::metadata(data.join(path)).unwrap().mode() & 0o7777;
        std::fs::create_dir_all(data.join("services/deep")).unwrap();
        let outside = folder.path().join("outside");
        for path in [data.join("services/deep/a.sqlite-wal"), data.join("feed.sqlite"), data.join("photo.jpg"), outside.clone()] {
            std::fs::write(&path, "x").unwrap();
            loose(&path, 0o666);
        }
        std::os::unix::fs::symlink(&outside, data.join("services/link")).unwrap();
        for path in ["services/deep", "services", ""] {
            loose(&data.join(path), 0o777);
        }
        let is_own = |name: &str| name == "services" || name.starts_with("feed.");
        assert_eq!(make_folder_private(&data, is_own).unwrap(), 5);
        assert_eq!((mode_of(""), mode_of("services"), mode_of("services/deep")), (0o700, 0o700, 0o700));
        assert_eq!((mode_of("services/deep/a.sqlite-wal"), mode_of("feed.sqlite")), (0o600, 0o600));
        assert_eq!((mode_of("photo.jpg"), std::fs::metadata(&outside).unwrap().mode() & 0o777), (0o666, 0o666));
        assert_eq!(make_folder_private(&data, is_own).unwrap(), 0, "nothing is left to mend");

        loose(&data, 0o1777);
        let refused = make_folder_private(&data, is_own).expect_err("all accounts share it").to_string();
        assert!(refused.contains("all accounts share"), "{refused}");
        assert_eq!(make_folder_private(&folder.path().join("new"), is_own).unwrap(), 0, "it is made");
    }

    #[test]
    fn a_file_is_private_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inner/key.json");
        create_folder(path.parent().unwrap()).unwrap();
        write(&path, b"a longer first content").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing unfinished stays");
    }
}
