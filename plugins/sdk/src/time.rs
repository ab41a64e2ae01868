//! The time, in microseconds since 1970, and its RFC 3339 form.

use crate::Timestamp;
use crate::wit::wall_clock;

pub const SECOND_US: u64 = 1_000_000;
pub const MINUTE_US: u64 = 60 * SECOND_US;
pub const DAY_US: u64 = 24 * 60 * MINUTE_US;

pub fn now_us() -> Timestamp {
    let now = wall_clock::now();
    now.seconds * SECOND_US + u64::from(now.nanoseconds) / 1_000
}

/// `2026-01-31T12:00:00.000000Z`, as the host writes timestamps into JSON.
pub fn rfc3339(at_us: Timestamp) -> String {
    let (days, rest_us) = (at_us / DAY_US, at_us % DAY_US);
    // From days to the Gregorian date (proleptic), in eras of 400 years that begin on 1 March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (seconds, us) = (rest_us / SECOND_US, rest_us % SECOND_US);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{us:06}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        for (at_us, expect) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399_999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_700_000_000_123_456, "2023-11-14T22:13:20.123456Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(rfc3339(at_us), expect);
        }
    }
}
