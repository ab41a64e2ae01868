//! For whom a server runs: PostgreSQL refuses to run for root.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// Numbers of a user and its group.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

/// Another account than this process's, where this is root's: the first of these names that the machine has.
pub fn other_than_root(names: &[&str]) -> Option<Account> {
    // The owner of its own entry there is who runs this.
    let is_root = fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0);
    if !is_root {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    names.iter().find_map(|name| {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next() != Some(name) {
                return None;
            }
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            Some(Account { uid, gid })
        })
    })
}
