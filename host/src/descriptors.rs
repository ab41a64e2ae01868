//! File descriptors: how many this process may have open, and how many connections that leaves room for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use echo_base::limits;

/// Raises the soft limit to the hard one. The limit that holds then; none for no limit.
pub fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if limit.current == limit.maximum {
        return limit.current;
    }
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be raised to the hard one");
            limit.current
        }
    }
}

/// How many files the process may have open once it has raised its limit; none for no limit.
pub fn hard_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// How many of the wanted connections fit beside the files that the host itself has open.
pub fn connections_within(limit: Option<u64>, wanted: usize) -> usize {
    let Some(limit) = limit else { return wanted };
    let room = limit.saturating_sub(limits::DESCRIPTORS_RESERVED).max(limit / 2).max(1);
    wanted.min(usize::try_from(room).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_the_hosts_own_files() {
        for (limit, expect) in [(None, 50_000), (Some(1_048_576), 50_000), (Some(20_000), 18_976), (Some(1_024), 512), (Some(0), 1)] {
            assert_eq!(connections_within(limit, 50_000), expect, "{limit:?}");
        }
        assert_eq!(connections_within(Some(20_000), 100), 100);
    }
}
