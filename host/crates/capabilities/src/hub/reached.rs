//! Which of a user's events have reached a device of theirs: all up to a number, but for the gaps below it. Pure: no I/O.

use echo_base::limits;

/// The numbers from the one after `above` up to `up_to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub above: u64,
    pub up_to: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    pub up_to: u64,
    /// Below `up_to`, in order, none empty, no two of them touch. A device that began at the head left one behind it.
    pub gaps: Vec<Span>,
}

impl Reached {
    /// A device has this; what no device had before is added to `fresh`.
    pub fn add(&mut self, span: Span, fresh: &mut Vec<Span>) {
        if span.up_to <= span.above {
            return;
        }
        if !self.gaps.is_empty() {
            let mut left = Vec::with_capacity(self.gaps.len() + 1);
            for gap in &self.gaps {
                let filled = Span { above: gap.above.max(span.above), up_to: gap.up_to.min(span.up_to) };
                if filled.up_to <= filled.above {
                    left.push(*gap);
                    continue;
                }
                fresh.push(filled);
                let rests = [Span { up_to: filled.above, ..*gap }, Span { above: filled.up_to, ..*gap }];
                left.extend(rests.into_iter().filter(|rest| rest.up_to > rest.above));
            }
            self.gaps = left;
        }
        if span.up_to > self.up_to {
            if span.above > self.up_to {
                self.gaps.push(Span { above: self.up_to, up_to: span.above });
            }
            fresh.push(Span { above: self.up_to.max(span.above), up_to: span.up_to });
            self.up_to = span.up_to;
        }
        while self.gaps.len() > limits::FEED_GAPS_MAX {
            // As if nothing between the two oldest had reached a device.
            let second = self.gaps.remove(1);
            self.gaps[0].up_to = second.up_to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(adds: &[(u64, u64)], up_to: u64, gaps: &[(u64, u64)], fresh: &[(u64, u64)]) {
        let span = |(above, up_to): &(u64, u64)| Span { above: *above, up_to: *up_to };
        let (mut reached, mut last) = (Reached::default(), Vec::new());
        for add in adds {
            last = Vec::new();
            reached.add(span(add), &mut last);
        }
        assert_eq!(reached, Reached { up_to, gaps: gaps.iter().map(span).collect() }, "{adds:?}");
        assert_eq!(last, fresh.iter().map(span).collect::<Vec<_>>(), "{adds:?}");
    }

    #[test]
    fn what_no_device_has_stays_a_gap() {
        check(&[(0, 5)], 5, &[], &[(0, 5)]);
        check(&[(0, 5), (0, 8)], 8, &[], &[(5, 8)]);
        check(&[(0, 5), (0, 3), (5, 5), (7, 0)], 5, &[], &[]);
        // A new device began at 10, while 6 to 10 had reached none.
        check(&[(0, 5), (10, 11)], 11, &[(5, 10)], &[(10, 11)]);
        check(&[(0, 5), (10, 11), (0, 7)], 11, &[(7, 10)], &[(5, 7)]);
        check(&[(0, 5), (10, 11), (6, 8)], 11, &[(5, 6), (8, 10)], &[(6, 8)]);
        check(&[(0, 5), (10, 11), (0, 12)], 12, &[], &[(5, 10), (11, 12)]);
        check(&[(3, 4), (6, 7), (0, 9)], 9, &[], &[(0, 3), (4, 6), (7, 9)]);
    }

    #[test]
    fn gaps_are_bounded_and_nothing_counts_as_reached_that_was_not() {
        let mut reached = Reached::default();
        for number in 0..2 * limits::FEED_GAPS_MAX as u64 {
            reached.add(Span { above: 10 * number + 5, up_to: 10 * number + 10 }, &mut Vec::new());
        }
        assert_eq!(reached.gaps.len(), limits::FEED_GAPS_MAX);
        assert_eq!(reached.gaps[0].above, 0);
        assert!(reached.gaps.windows(2).all(|two| two[0].up_to < two[1].above));
    }
}
