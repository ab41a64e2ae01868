//! Minutes, hours and days (UTC), and the times that identifiers tell.

use echo_sdk::Timestamp;
use echo_sdk::time::{DAY_US, MINUTE_US};

use crate::bindings::exports::echo::analytics::api::Step;

pub const ALL: [Step; 3] = [Step::Minute, Step::Hour, Step::Day];

pub fn name(step: Step) -> &'static str {
    match step {
        Step::Minute => "minute",
        Step::Hour => "hour",
        Step::Day => "day",
    }
}

pub fn length_us(step: Step) -> u64 {
    match step {
        Step::Minute => MINUTE_US,
        Step::Hour => 60 * MINUTE_US,
        Step::Day => DAY_US,
    }
}

/// When the step began in which this is.
pub fn beginning(step: Step, at: Timestamp) -> Timestamp {
    at - at % length_us(step)
}

/// When the step ends in which this is; the time itself where it is a border.
pub fn end(step: Step, at: Timestamp) -> Timestamp {
    at.next_multiple_of(length_us(step))
}

/// When the identifier was made, as UUIDv7 tells it (RFC 9562 section 5.7); none for another text.
pub fn time_of(id: &str) -> Option<Timestamp> {
    let digits = format!("{}{}", id.get(..8)?, id.get(9..13)?);
    let is_v7 = id.len() == 36 && id.get(14..15) == Some("7");
    let ms = u64::from_str_radix(&digits, 16).ok().filter(|_| is_v7)?;
    Some(ms * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_within_its_step() {
        let at = 1_700_000_000_123_456;
        for (step, begin) in [(Step::Minute, 1_699_999_980), (Step::Hour, 1_699_999_200), (Step::Day, 1_699_920_000)] {
            assert_eq!(beginning(step, at), begin * 1_000_000);
            assert_eq!(end(step, at), begin * 1_000_000 + length_us(step));
            assert_eq!(end(step, begin * 1_000_000), begin * 1_000_000);
        }
    }

    #[test]
    fn an_identifier_tells_its_time() {
        // RFC 9562 appendix A.6: 2022-02-22T19:22:22Z.
        assert_eq!(time_of("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"), Some(1_645_557_742_000_000));
        for other in ["017f22e2-79b0-4cc3-98c4-dc0c0c07398f", "", "é", "017f22e2-79b0-7cc3", "zzzzzzzz-79b0-7cc3-98c4-dc0c0c07398f"] {
            assert_eq!(time_of(other), None, "{other}");
        }
    }
}
