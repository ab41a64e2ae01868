//! The text forms of values: UUIDs, telephone numbers, cursors, timestamps. Each is validated in requests and in replies.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use echo_base::limits;

/// A UUID in its hyphenated form of 36 characters (RFC 9562 section 4), made lower-case; none if it is no such thing.
pub fn uuid(text: Cow<'_, str>) -> Option<String> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut has_upper_case = false;
    for (at, byte) in bytes.iter().enumerate() {
        match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => {}
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9' | b'a'..=b'f') => {}
            (_, b'A'..=b'F') => has_upper_case = true,
            _ => return None,
        }
    }
    Some(if has_upper_case { text.to_ascii_lowercase() } else { text.into_owned() })
}

/// E.164: a plus, then 7 to 15 digits, the first of them not 0.
pub fn is_phone(text: &str) -> bool {
    match text.strip_prefix('+') {
        Some(digits) => (7..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()),
        None => false,
    }
}

/// 1 to `CURSOR_BYTES_MAX` characters of base64url (RFC 4648 section 5), padded or not, and as many more as a seal has.
pub fn is_cursor(text: &str) -> bool {
    let content = text.trim_end_matches('=');
    !content.is_empty()
        && text.len() <= limits::CURSOR_BYTES_MAX + limits::CURSOR_SEAL_CHARS
        && text.len() - content.len() <= 2
        && content.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Whether a text has NUL, which databases end texts at, or one of Unicode's 66 noncharacters (RFC 7493 section 2.1).
pub fn has_no_character(text: &str) -> bool {
    // Noncharacters begin with one of these bytes in UTF-8; most texts have neither them nor NUL.
    let suspicious = text.bytes().any(|byte| byte == 0 || byte >= 0xEF);
    suspicious && text.chars().any(|c| c == '\0' || matches!(c, '\u{FDD0}'..='\u{FDEF}') || u32::from(c) & 0xFFFE == 0xFFFE)
}

/// Whether a text has control characters other than newline and tab.
pub fn has_control(text: &str) -> bool {
    // Those of C1 begin with this byte in UTF-8.
    let suspicious = text.bytes().any(|byte| byte < b' ' || byte == 0x7F || byte == 0xC2);
    suspicious && text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'))
}

/// RFC 3339, any offset, as microseconds since 1970; further digits are cut. None for what is no point in time or lies before 1970.
pub fn timestamp(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i16> {
        bytes.get(from..to)?.iter().try_fold(0_i16, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i16::from(byte - b'0')))
    };
    let sign = |at: usize, signs: &[u8]| bytes.get(at).is_some_and(|byte| signs.contains(byte));
    if !(sign(4, b"-") && sign(7, b"-") && sign(10, b"Tt ") && sign(13, b":") && sign(16, b":")) {
        return None;
    }
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let mut at = 19;
    let mut microseconds = 0;
    if sign(at, b".") {
        let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        let fraction = bytes[at + 1..at + 1 + digits].iter().chain(std::iter::repeat(&b'0')).take(6);
        microseconds = fraction.fold(0, |sum, byte| sum * 10 + i64::from(byte - b'0'));
        at += 1 + digits;
    }
    let offset_minutes = if sign(at, b"Zz") {
        at += 1;
        0
    } else if sign(at, b"+-") && sign(at + 3, b":") {
        let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
        if hours > 23 || minutes > 59 {
            return None;
        }
        let size = i64::from(hours * 60 + minutes);
        let negative = bytes[at] == b'-';
        at += 6;
        if negative { -size } else { size }
    } else {
        return None;
    };
    // A leap second is the first moment of the next minute, as in POSIX time.
    if at != bytes.len() || second > 60 {
        return None;
    }
    let (month, day) = (i8::try_from(number(5, 7)?).ok()?, i8::try_from(number(8, 10)?).ok()?);
    let (hour, minute) = (i8::try_from(hour).ok()?, i8::try_from(minute).ok()?);
    let whole_minute = DateTime::new(number(0, 4)?, month, day, hour, minute, 0, 0).ok()?;
    let whole_minute = Offset::UTC.to_timestamp(whole_minute).ok()?.as_second();
    let seconds = whole_minute + i64::from(second) - offset_minutes * 60;
    u64::try_from(seconds * 1_000_000 + microseconds).ok()
}

/// RFC 3339 in UTC with six digits after the second, quotes included. False, and nothing written, after the year 9999.
pub fn write_timestamp(out: &mut Vec<u8>, microseconds: u64) -> bool {
    let Some(instant) = i64::try_from(microseconds).ok().and_then(|count| Timestamp::from_microsecond(count).ok()) else { return false };
    let civil = Offset::UTC.to_datetime(instant);
    let mut text = *b"\"0000-00-00T00:00:00.000000Z\"";
    let mut put = |last: usize, mut number: u32| {
        let mut at = last;
        while number > 0 {
            text[at] = b'0' + (number % 10) as u8;
            number /= 10;
            at -= 1;
        }
    };
    put(4, civil.year().unsigned_abs().into());
    put(7, civil.month().unsigned_abs().into());
    put(10, civil.day().unsigned_abs().into());
    put(13, civil.hour().unsigned_abs().into());
    put(16, civil.minute().unsigned_abs().into());
    put(19, civil.second().unsigned_abs().into());
    put(26, civil.subsec_nanosecond().unsigned_abs() / 1_000);
    out.extend_from_slice(&text);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids() {
        let good = "0190b0a0-7b1c-7def-8abc-0123456789ab";
        assert_eq!(uuid(good.into()).as_deref(), Some(good));
        assert_eq!(uuid(good.to_uppercase().into()).as_deref(), Some(good));
        for bad in [
            "",
            "0190b0a07b1c7def8abc0123456789ab",
            "0190b0a0-7b1c-7def-8abc-0123456789ag",
            "0190b0a0_7b1c-7def-8abc-0123456789ab",
            "é".repeat(18).as_str(),
        ] {
            assert_eq!(uuid(bad.into()), None, "{bad}");
        }
    }

    #[test]
    fn phones_and_cursors() {
        for (text, expect) in [
            ("+14155552671", true),
            ("+1234567", true),
            ("+123456", false),
            ("+1234567890123456", false),
            ("+04155552671", false),
            ("14155552671", false),
            ("+1415555267a", false),
            ("", false),
            ("+١٤١٥٥٥٥", false),
        ] {
            assert_eq!(is_phone(text), expect, "{text}");
        }
        for (text, expect) in
            [("abc-_9", true), ("YQ==", true), ("", false), ("==", false), ("a+b", false), ("a b", false), ("YQ===", false)]
        {
            assert_eq!(is_cursor(text), expect, "{text}");
        }
        let longest = limits::CURSOR_BYTES_MAX + limits::CURSOR_SEAL_CHARS;
        assert!(is_cursor(&"a".repeat(longest)));
        assert!(!is_cursor(&"a".repeat(longest + 1)));
    }

    #[test]
    fn what_is_no_character_is_found() {
        for text in ["\0", "a\0b", "\u{FFFE}", "a\u{FFFF}", "\u{FDD0}", "\u{FDEF}", "\u{1FFFE}", "\u{10FFFF}"] {
            assert!(has_no_character(text), "{text:?}");
        }
        for text in ["", "a", "é", "😀", "\u{FFFD}", "\u{FDCF}", "\u{FDF0}", "\u{E000}", "\u{10FFFD}", "\u{1}", "\u{202E}", "\u{200D}"] {
            assert!(!has_no_character(text), "{text:?}");
        }
    }

    #[test]
    fn timestamps_are_read() {
        for (text, expect) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-01-31T12:00:00.000000Z", Some(1_769_860_800_000_000)),
            ("2026-01-31T13:30:00+01:30", Some(1_769_860_800_000_000)),
            ("2026-01-31t07:00:00.123456789-05:00", Some(1_769_860_800_123_456)),
            ("2026-01-31 12:00:00.5z", Some(1_769_860_800_500_000)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800_000_000)),
            ("1970-01-01T00:00:00+00:01", None),
            ("2026-02-29T00:00:00Z", None),
            ("2026-01-31T24:00:00Z", None),
            ("2026-01-31T12:00:61Z", None),
            ("2026-01-31T12:00:00", None),
            ("2026-01-31T12:00:00.Z", None),
            ("2026-01-31T12:00:00Zx", None),
            ("2026-01-31T12:00:00+1:00", None),
            ("2026-01-31", None),
            ("", None),
            ("２026-01-31T12:00:00Z", None),
        ] {
            assert_eq!(timestamp(text), expect, "{text}");
        }
    }

    #[test]
    fn timestamps_agree_with_the_calendar_of_jiff() {
        let mut out = Vec::new();
        // Steps of a prime number of microseconds, some 3 months each, up to the year 9999.
        for microseconds in (0..253_402_207_200_000_000).step_by(7_919_000_000_033) {
            out.clear();
            assert!(write_timestamp(&mut out, microseconds));
            let text = std::str::from_utf8(&out).unwrap().trim_matches('"');
            assert_eq!(text.parse::<Timestamp>().unwrap().as_microsecond() as u64, microseconds);
            assert_eq!(timestamp(text), Some(microseconds));
        }
        assert!(!write_timestamp(&mut out, u64::MAX));
        assert!(!write_timestamp(&mut out, 300_000_000_000_000_000));
    }
}
