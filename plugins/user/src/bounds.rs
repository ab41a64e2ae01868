//! Every bound of this service, with its unit.

use std::ops::RangeInclusive;

pub const DISPLAY_NAME_CHARS: RangeInclusive<usize> = 1..=100;
pub const BIO_CHARS_MAX: usize = 500;
pub const AVATAR_URL_CHARS_MAX: usize = 2_048;
pub const STATUS_TEXT_CHARS_MAX: usize = 140;
pub const LOCALE_CHARS_MAX: usize = 35;
pub const TIMEZONE_CHARS_MAX: usize = 64;
pub const ALIAS_CHARS: RangeInclusive<usize> = 1..=100;
pub const QUERY_CHARS: RangeInclusive<usize> = 2..=100;
/// Profiles of one batch.
pub const BATCH_IDS_MAX: usize = 100;
/// Ids that another service may ask about at once.
pub const KNOWN_IDS_MAX: usize = 1_000;
/// Numbers of one match.
pub const MATCH_PHONES_MAX: usize = 1_000;
/// Accounts asked for in one call because their profile is missing; an id beyond is taken for unknown until asked again.
pub const HEALED_MAX: usize = 32;
/// Tested numbers remembered of one person; the oldest go first.
pub const NUMBERS_KEPT_MAX: u64 = 10_000;
pub const CONTACTS_MAX: i64 = 10_000;
pub const BLOCKS_MAX: i64 = 10_000;
/// Words of a name by which it is found, and bytes kept of each beginning (a cursor has to hold one).
pub const NAME_PARTS_MAX: usize = 8;
pub const NAME_PART_BYTES_MAX: usize = 256;
/// Parameters of one statement that lists ids or numbers.
pub const LIST_PARAMS_MAX: usize = 500;
