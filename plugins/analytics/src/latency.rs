//! Latencies are counted in classes, as histograms are (each class holds what took at most so long): so any number of them takes a few rows, and those of
//! several minutes can be put together.

use crate::bindings::exports::echo::analytics::api::Latency;

/// Upper ends in milliseconds; the last class has none.
const CLASSES_MS: [u64; 21] =
    [5, 10, 20, 35, 50, 75, 100, 150, 250, 500, 750, 1_000, 2_000, 3_500, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000];
const BEYOND: &str = "beyond";

/// The class's name, as it is kept.
pub fn class_of(ms: u64) -> String {
    CLASSES_MS.iter().find(|end| ms <= **end).map_or_else(|| BEYOND.to_owned(), u64::to_string)
}

/// How many there are of each class.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: [u64; CLASSES_MS.len() + 1],
    total_ms: u64,
}

impl Histogram {
    /// `class` as it is kept; of one that no version knows nothing is counted.
    pub fn add(&mut self, class: &str, count: u64, total_ms: u64) {
        let at = match class {
            BEYOND => Some(CLASSES_MS.len()),
            end => CLASSES_MS.iter().position(|known| known.to_string() == end),
        };
        if let Some(at) = at {
            self.counts[at] += count;
            self.total_ms += total_ms;
        }
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// So many of a hundred took at most so long, interpolated within the class; the last class counts as its beginning.
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (count * percent).div_ceil(100).max(1);
        let mut below = 0;
        for (at, in_class) in self.counts.iter().enumerate() {
            if below + in_class >= rank {
                let begin = if at == 0 { 0 } else { CLASSES_MS[at - 1] };
                let end = CLASSES_MS.get(at).copied().unwrap_or(begin);
                return Some(begin + (end - begin) * (rank - below) / in_class);
            }
            below += in_class;
        }
        None
    }

    pub fn summary(&self) -> Latency {
        let count = self.count();
        Latency {
            count,
            p50_ms: self.percentile(50),
            p95_ms: self.percentile(95),
            p99_ms: self.percentile(99),
            mean_ms: self.total_ms.checked_div(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_their_class() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50), None);
        for (ms, count) in [(3, 90), (180, 9), (7_200_000, 1)] {
            histogram.add(&class_of(ms), count, ms * count);
        }
        histogram.add("of another version", 1_000, 1);
        assert_eq!(histogram.count(), 100);
        assert!((1..=5).contains(&histogram.percentile(50).unwrap()));
        assert!((150..=250).contains(&histogram.percentile(95).unwrap()));
        assert_eq!(histogram.percentile(99), Some(250));
        assert_eq!(histogram.percentile(100), Some(3_600_000));
        assert_eq!(histogram.summary().mean_ms, Some((270 + 1_620 + 7_200_000) / 100));
    }

    #[test]
    fn every_latency_has_a_class() {
        for (ms, class) in [(0, "5"), (5, "5"), (6, "10"), (3_600_000, "3600000"), (3_600_001, "beyond")] {
            assert_eq!(class_of(ms), class);
        }
    }
}
