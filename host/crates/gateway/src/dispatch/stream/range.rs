//! `Range` (RFC 9110 section 14): which parts of a file a request asks for. Pure.

use std::ops::Range;

use echo_base::limits;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedRange {
    Whole,
    /// In their order, at least one.
    Parts(Vec<Range<u64>>),
    /// None of them is in the file (416).
    Outside,
}

/// What the header's value asks of a file of this size. One that is malformed, of another unit, or that asks for more than a careful client would
/// (many parts, or parts that overlap) is as if it were not there, as section 14.2 allows.
pub fn requested(value: Option<&str>, size: u64) -> RequestedRange {
    let Some(set) = value.and_then(|value| strip_unit(value.trim())) else { return RequestedRange::Whole };
    let mut parts = Vec::new();
    let mut count = 0;
    for spec in set.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        count += 1;
        if count > limits::RANGES_MAX {
            return RequestedRange::Whole;
        }
        match part(spec, size) {
            None => return RequestedRange::Whole,
            Some(None) => {}
            Some(Some(part)) => parts.push(part),
        }
    }
    if count == 0 {
        return RequestedRange::Whole;
    }
    if parts.is_empty() {
        return RequestedRange::Outside;
    }
    let mut sorted: Vec<_> = parts.iter().map(|part| (part.start, part.end)).collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[1].0 < pair[0].1) {
        return RequestedRange::Whole;
    }
    RequestedRange::Parts(parts)
}

fn strip_unit(value: &str) -> Option<&str> {
    let (unit, set) = value.split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(set)
}

/// `Some(None)`: well formed, and outside of the file.
fn part(spec: &str, size: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = spec.split_once('-')?;
    match (first, last) {
        ("", length) => {
            let length = number(length)?;
            Some((length > 0 && size > 0).then(|| size - length.min(size)..size))
        }
        (first, "") => {
            let first = number(first)?;
            Some((first < size).then_some(first..size))
        }
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            Some((first < size).then(|| first..last.saturating_add(1).min(size)))
        }
    }
}

/// Digits of any number; what is beyond every file is as far as can be.
fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let check = |value: &str, expect: RequestedRange| assert_eq!(requested(Some(value), 100), expect, "{value}");
        let parts = |ranges: &[(u64, u64)]| RequestedRange::Parts(ranges.iter().map(|(from, to)| *from..*to).collect());
        assert_eq!(requested(None, 100), RequestedRange::Whole);
        check("bytes=0-0", parts(&[(0, 1)]));
        check("bytes=10-19", parts(&[(10, 20)]));
        check("Bytes = 10-19", parts(&[(10, 20)]));
        check("bytes=90-", parts(&[(90, 100)]));
        check("bytes=-10", parts(&[(90, 100)]));
        check("bytes=-1000", parts(&[(0, 100)]));
        check("bytes=50-1000", parts(&[(50, 100)]));
        check("bytes=0-99999999999999999999999", parts(&[(0, 100)]));
        check("bytes=0-1, 5-6 ,-1", parts(&[(0, 2), (5, 7), (99, 100)]));
        check("bytes=50-59,0-9", parts(&[(50, 60), (0, 10)]));
        check("bytes=0-1,100-", parts(&[(0, 2)]));
        check("bytes=100-", RequestedRange::Outside);
        check("bytes=-0", RequestedRange::Outside);
        check("bytes=99999999999999999999999-", RequestedRange::Outside);
        for ignored in ["bytes=5-4", "bytes=a-b", "bytes=--1", "bytes=", "bytes", "lines=0-1", "bytes=1", "bytes=0-10,5-20", "bytes=+1-2"] {
            check(ignored, RequestedRange::Whole);
        }
        let many = format!("bytes={}", (0..=limits::RANGES_MAX).map(|at| format!("{}-{}", 2 * at, 2 * at)).collect::<Vec<_>>().join(","));
        check(&many, RequestedRange::Whole);
        assert_eq!(requested(Some("bytes=0-0"), 0), RequestedRange::Outside);
        assert_eq!(requested(Some("bytes=-5"), 0), RequestedRange::Outside);
    }
}
