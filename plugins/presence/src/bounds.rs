//! Every bound of this service that no contract states, with its unit. How long somebody counts as there and what is kept are settings (`plugin.toml`).

use echo_sdk::time::{DAY_US, MINUTE_US, SECOND_US};

/// Devices remembered of one person; of those without a socket the oldest go first.
pub const DEVICES_MAX: usize = 20;
/// People of whose changes one person is sent word; above it the one asked about longest ago goes.
pub const WATCHED_MAX: usize = 500;
/// For so long it is remembered who watches whom, in microseconds; asking again renews it.
pub const WATCHED_KEPT_US: u64 = DAY_US;
/// People to whom one change of a person is sent; the cache keeps no more than some 15,000 in one set.
pub const VIEWERS_MAX: usize = 1_000;
/// The empty state of a person who is forgotten is kept for so long, in microseconds.
pub const FORGOTTEN_KEPT_US: u64 = SECOND_US;
/// An activity that is not said again ends after so many microseconds.
pub const ACTIVITY_US: u64 = 10 * SECOND_US;
/// Changes of one person are sent at least so far from each other, in microseconds: what comes within it is sent as one.
pub const CHANGES_APART_US: u64 = SECOND_US;
/// How often the hub is asked whether somebody who counts as connected still is, in microseconds: a host that was killed says nothing.
pub const SOCKETS_CHECKED_US: u64 = 5 * MINUTE_US;
/// People looked at in one run of the schedule, of which there are two a second; no more than the cache gives at once.
pub const LOOKED_AT_PER_RUN: usize = 1_000;
/// Of them so many changes are sent, to so many people together; the others wait for the next run.
pub const SENT_PER_RUN: usize = 128;
pub const SENT_TO_PER_RUN: usize = 2_048;
/// The time that must be left to send another change, in milliseconds.
pub const TIME_LEFT_MS: u64 = 2_000;
/// Times at which people are to be looked at are kept in steps of so many microseconds, ...
pub const STEP_US: u64 = 2 * SECOND_US;
/// ... of which the last so many are always looked at again, and older ones that were missed at most so many.
pub const STEPS_AGAIN: u64 = 5;
pub const STEPS_MISSED_MAX: u64 = 60;
/// How long a step is kept beyond its time, in microseconds.
pub const STEP_KEPT_US: u64 = 10 * MINUTE_US;
/// Tries to change what another request changes too.
pub const TRIES_MAX: u32 = 10;
/// Viewers in one question to `user`.
pub const AUDIENCE_PAIRS_MAX: usize = 4_096;

const _: () = assert!(VIEWERS_MAX <= AUDIENCE_PAIRS_MAX && SENT_TO_PER_RUN + VIEWERS_MAX <= AUDIENCE_PAIRS_MAX);
const _: () = assert!(SENT_PER_RUN <= LOOKED_AT_PER_RUN && LOOKED_AT_PER_RUN <= 1_000);
