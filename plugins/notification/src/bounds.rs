//! Every bound of this service that no contract states, with its unit. How long is waited and kept are settings (`plugin.toml`).

use echo_sdk::time::DAY_US;

/// Push devices of one user; the oldest go first.
pub const DEVICES_PER_USER_MAX: u32 = 20;
/// How long it is remembered that a session ended, in microseconds: longer than any access token lives (a day at most).
pub const ENDED_SESSIONS_KEPT_US: u64 = 2 * DAY_US;
/// Notifications in one person's list, the newest, and how long one stays there, in microseconds.
pub const ENTRIES_PER_USER_MAX: u32 = 1_000;
pub const ENTRIES_KEPT_US: u64 = 90 * DAY_US;
/// Pushes that are sent side by side; no more than the host sends for one call. And how often in one run, if so many milliseconds are left each time.
pub const PUSHES_AT_ONCE: u32 = 64;
pub const SENDINGS_PER_RUN: u32 = 4;
pub const SENDING_TIME_LEFT_MS: u64 = 7_000;
/// A push is tried again so often, within its time to live; between tries it waits, in milliseconds, twice as long each time and at least as long as the
/// provider says, within bounds.
pub const PUSH_TRIES_MAX: u64 = 200;
pub const BACK_OFF_MS: u64 = 1_000;
pub const BACK_OFF_MAX_MS: u64 = 600_000;
pub const RETRY_AFTER_MAX_MS: u64 = 3_600_000;
/// One exchange with a provider, in milliseconds, and how long a push is claimed by the run that sends it, in microseconds.
pub const PUSH_TIMEOUT_MS: u32 = 5_000;
pub const CLAIM_US: u64 = 30_000_000;
/// The payload that FCM and APNs take, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 4_096;
/// Pushes that wait to be sent; the oldest go first.
pub const PUSHES_WAITING_MAX: u32 = 100_000;
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
/// Rows of one INSERT, and of one of wide rows.
pub const INSERT_ROWS_MAX: usize = 200;
pub const OUTGOING_ROWS_MAX: usize = 140;

const _: () = assert!(PUSH_TIMEOUT_MS as u64 * 1_000 * 2 < CLAIM_US);
const _: () = assert!((PUSH_TIMEOUT_MS as u64) < SENDING_TIME_LEFT_MS, "what became of the pushes is to be noted yet");
const _: () = assert!(DUE_BATCH <= 200, "no more than the message service previews at once");
const _: () = assert!(LIST_PARAMS_MAX * DEVICES_PER_USER_MAX as usize <= 10_000);
/// Expired exports that one run of the schedule forgets.
pub const EXPORTS_CLEARED_PER_RUN: u64 = 500;
