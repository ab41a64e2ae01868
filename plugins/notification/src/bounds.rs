//! Every bound of this service that no contract states, with its unit. How long is waited and kept are settings (`plugin.toml`).

use echo_sdk::time::DAY_US;

/// Push devices of one user; the oldest go first.
pub const DEVICES_PER_USER_MAX: u32 = 20;
/// How long it is remembered that a session ended, in microseconds: longer than any access token lives (a day at most).
pub const ENDED_SESSIONS_KEPT_US: u64 = 2 * DAY_US;
/// Notifications in one person's list, the newest, and how long one stays there, in microseconds.
pub const ENTRIES_PER_USER_MAX: u32 = 1_000;
pub const ENTRIES_KEPT_US: u64 = 90 * DAY_US;
/// Rows that the development outbox shows.
pub const OUTBOX_SHOWN: u32 = 200;
/// Rows kept of what is to leave; the oldest go first.
pub const OUTBOX_KEPT: u32 = 1_000;
/// Rows of the outbox, of messages and of traces that one run of the schedule clears away.
pub const CLEARED_PER_RUN: u32 = 5_000;
/// Messages looked at together, and how many recipients they may have together beyond the first message's.
pub const DUE_BATCH: u32 = 200;
pub const DUE_RECIPIENTS_MAX: usize = 2_000;
/// Batches of one run, of which there are ten a second, and the time that must be left to begin another, in milliseconds.
pub const DUE_BATCHES_PER_RUN: u32 = 2;
pub const DUE_TIME_LEFT_MS: u64 = 5_000;
/// Changed messages that are looked at together; no more than the message service previews at once.
pub const CHANGED_AT_ONCE: usize = 100;
/// Parameters of one statement that lists ids: the devices of so many users stay within the host's bound of rows.
pub const LIST_PARAMS_MAX: usize = 500;
/// Rows of one INSERT.
pub const INSERT_ROWS_MAX: usize = 200;

const _: () = assert!(DUE_BATCH <= 200, "no more than the message service previews at once");
const _: () = assert!(LIST_PARAMS_MAX * DEVICES_PER_USER_MAX as usize <= 10_000);
