//! Every bound of this service that no contract states, with its unit.

/// Viewers together in one question about several people's presence.
pub const PRESENCE_PAIRS_MAX: usize = 4_096;
/// Accounts asked for in one call because their profile is missing; an id beyond is taken for unknown until asked again.
pub const HEALED_MAX: usize = 32;
/// Tested numbers remembered of one person; the oldest go first.
pub const NUMBERS_KEPT_MAX: u64 = 10_000;
/// The oldest of them that go at once: as many as one match brings (`match-request`).
pub const NUMBERS_TRIMMED: u64 = 1_000;
pub const CONTACTS_MAX: i64 = 10_000;
pub const BLOCKS_MAX: i64 = 10_000;
/// Reports kept of one reporter; the oldest go first.
pub const REPORTS_KEPT_MAX: u64 = 1_000;
/// Words of a name by which it is found, and bytes kept of each beginning (a cursor has to hold one).
pub const NAME_PARTS_MAX: usize = 8;
pub const NAME_PART_BYTES_MAX: usize = 256;
/// Parameters of one statement that lists ids or numbers.
pub const LIST_PARAMS_MAX: usize = 500;
/// Expired exports that are forgotten when one is asked for.
pub const EXPORTS_CLEARED_PER_RUN: u64 = 500;
