//! Every bound of this service that no contract states, with its unit. How long numbers are kept are settings (`plugin.toml`).

use echo_sdk::time::{DAY_US, MINUTE_US, SECOND_US};

/// How old a client event may be, and how far ahead a client's clock, in microseconds.
pub const EVENT_AGE_MAX_US: u64 = DAY_US;
pub const CLOCK_AHEAD_MAX_US: u64 = 5 * MINUTE_US;
/// Labels of one metric on one day; what has a further one is counted under `OTHER`.
pub const LABELS_MAX: u64 = 300;
/// Points of one series.
pub const POINTS_MAX: u64 = 1_500;
/// Rows whose totals a report adds up: the labels of one step, or the steps of one label. A row's total stops where that many fit into 63 bits.
pub const SUMMED_ROWS_MAX: u64 = 2_048;
pub const TOTAL_MAX: u64 = i64::MAX as u64 / SUMMED_ROWS_MAX;
/// The most frequent labels, where the request says no number.
pub const TOP_DEFAULT: u32 = 10;
/// The longest range of a report, in microseconds.
pub const RANGE_MAX_US: u64 = 800 * DAY_US;
/// Days after the registration on which people are counted, and those that the summary shows.
pub const COHORT_DAYS_MAX: u64 = 90;
pub const RETENTION_DAYS: [u32; 3] = [1, 7, 30];
/// For so long it is known who sent a message, in microseconds: deliveries later than that are not counted.
pub const SENDERS_KEPT_US: u64 = 60 * MINUTE_US;
/// Acknowledgements of messages that were not heard of yet are counted when they are so old, in microseconds, in steps of so many.
pub const LATE_STEP_US: u64 = 2 * SECOND_US;
/// Steps that a run looks back, and how long one is kept, in microseconds.
pub const LATE_STEPS: u64 = 10;
pub const LATE_KEPT_US: u64 = 2 * MINUTE_US;
/// Keys that the cache takes at once.
pub const CACHE_KEYS_MAX: usize = 1_000;
/// Parameters of one statement that lists ids, and rows of one INSERT.
pub const LIST_PARAMS_MAX: usize = 500;
pub const INSERT_ROWS_MAX: usize = 200;
/// Rows that one run of the schedule removes, of each kind.
pub const CLEARED_PER_RUN: u32 = 2_000;
/// How long it is known which events were counted, in microseconds: a dead letter can be replayed late.
pub const HANDLED_KEPT_US: u64 = 30 * DAY_US;

const _: () = assert!(LATE_STEPS * LATE_STEP_US < LATE_KEPT_US);
// The labels and `OTHER`; a day in minutes and the longest range in days, each with the steps at both ends.
const _: () = assert!(LABELS_MAX + 1 < SUMMED_ROWS_MAX);
const _: () = assert!(DAY_US / MINUTE_US + 2 < SUMMED_ROWS_MAX && RANGE_MAX_US / DAY_US + 2 < SUMMED_ROWS_MAX);

/// Messages counted in one transaction.
pub const MESSAGES_TOGETHER_MAX: usize = 200;
