//! The reports: a range of time, whole steps of it, and what was counted there.

use std::collections::BTreeMap;

use echo_sdk::time::DAY_US;
use echo_sdk::{Error, Timestamp, time};

use crate::bindings::exports::echo::analytics::api::{
    ActivePeople, Labelled, Metric, Point, Retained, Step, Summary, SummaryRequest, Timeseries, TimeseriesRequest, Top, TopRequest,
};
use crate::bounds::{POINTS_MAX, RANGE_MAX_US, RETENTION_DAYS, TOP_DEFAULT};
use crate::latency::Histogram;
use crate::settings::Settings;
use crate::store::{self, Counted};
use crate::{metrics, steps};

pub fn summary(request: &SummaryRequest) -> Result<Summary, Error> {
    let now = time::now_us();
    let range = Range::asked(request.from, request.to, now)?;
    let range = range.in_steps(range.step(now, &Settings::load()));
    let sums = store::sums(range.step, range.from, range.to)?;
    let counted = |metric: Metric| {
        let of_metric = move |sum: &&Counted| sum.metric == metrics::name(metric);
        sums.iter().filter(of_metric).map(|sum| sum.events).sum::<u64>()
    };
    let mut by_type: Vec<Labelled> = sums.iter().filter(|sum| sum.metric == metrics::name(Metric::Messages)).map(labelled).collect();
    by_type.sort_by(|one, other| (other.count, &one.label).cmp(&(one.count, &other.label)));
    let mut deliveries = Histogram::default();
    for sum in sums.iter().filter(|sum| sum.metric == metrics::name(Metric::Deliveries)) {
        deliveries.add(&sum.label, sum.events, sum.total);
    }
    let (first_day, end) = (steps::beginning(Step::Day, range.from), steps::end(Step::Day, range.to));
    Ok(Summary {
        from: range.from,
        to: range.to,
        step: range.step,
        registrations: counted(Metric::Registrations),
        messages: counted(Metric::Messages),
        messages_by_type: by_type,
        messages_edited: counted(Metric::MessagesEdited),
        messages_deleted: counted(Metric::MessagesDeleted),
        connections: counted(Metric::Connections),
        client_events: store::count_of(Metric::ClientEvents, range.step, range.from, range.to)?,
        active_users: ActivePeople {
            daily: store::active_since(now.saturating_sub(DAY_US))?,
            weekly: store::active_since(now.saturating_sub(7 * DAY_US))?,
            monthly: store::active_since(now.saturating_sub(30 * DAY_US))?,
            most_on_a_day: store::most_of(Metric::ActiveUsers, Step::Day, first_day, end)?,
        },
        deliveries: deliveries.summary(),
        retention: retention(first_day, end, now)?,
    })
}

pub fn timeseries(request: &TimeseriesRequest) -> Result<Timeseries, Error> {
    let (metric, step) = (request.metric, request.step.unwrap_or(Step::Hour));
    let range = Range::asked(request.from, request.to, time::now_us())?.in_steps(step);
    if (range.to - range.from) / steps::length_us(step) > POINTS_MAX {
        let most = format!("at most {POINTS_MAX} points: take a shorter range or a longer step");
        return Err(Error::invalid_field("step", "too_many_points", most));
    }
    let items = match metric {
        // Part by part, as there are several rows for each point.
        Metric::Deliveries => {
            let part_us = steps::length_us(step) * 400;
            let mut points = Vec::new();
            let mut from = range.from;
            while from < range.to {
                let part = InSteps { from, to: range.to.min(from + part_us), step };
                points.extend(part.latencies(&store::labelled_series(metric, step, part.from, part.to)?));
                from = part.to;
            }
            points
        }
        _ => range.points(&store::series(metric, step, range.from, range.to, request.label.as_deref())?),
    };
    Ok(Timeseries { metric, step, items, next_cursor: None })
}

pub fn top(request: &TopRequest) -> Result<Top, Error> {
    let now = time::now_us();
    let limit = request.limit.unwrap_or(TOP_DEFAULT);
    if !metrics::has_labels(request.metric) {
        return Err(Error::invalid_field("metric", "no_labels", "one of messages, registrations, client_events"));
    }
    let range = Range::asked(request.from, request.to, now)?;
    let range = range.in_steps(range.step(now, &Settings::load()));
    let items = store::top(request.metric, range.step, range.from, range.to, limit)?;
    let items = items.into_iter().map(|(label, count, total)| Labelled { label, count, total });
    Ok(Top { items: items.collect(), next_cursor: None })
}

fn labelled(sum: &Counted) -> Labelled {
    Labelled { label: sum.label.clone(), count: sum.events, total: sum.total }
}

/// Of those alone for whom the day is over.
fn retention(from: Timestamp, to: Timestamp, now: Timestamp) -> Result<Vec<Retained>, Error> {
    RETENTION_DAYS
        .iter()
        .map(|day| {
            let over_before = steps::beginning(Step::Day, now).saturating_sub(u64::from(*day) * DAY_US);
            let (people, active) = store::retained(from, to.min(over_before), *day)?;
            Ok(Retained { day: *day, people, active })
        })
        .collect()
}

/// As it was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    from: Timestamp,
    to: Timestamp,
}

/// Whole steps.
#[derive(Clone, Copy, Debug, PartialEq)]
struct InSteps {
    from: Timestamp,
    to: Timestamp,
    step: Step,
}

impl Range {
    fn asked(from: Option<Timestamp>, to: Option<Timestamp>, now: Timestamp) -> Result<Self, Error> {
        // What is to come holds nothing, but no more of it than a day is looked at.
        let to = to.unwrap_or(now).min(now + DAY_US);
        let from = from.unwrap_or(to.saturating_sub(DAY_US));
        if from >= to {
            return Err(Error::invalid_field("to", "unordered_range", "later than `from`"));
        }
        if to - from > RANGE_MAX_US {
            return Err(Error::invalid_field("from", "too_long", format!("at most {} days", RANGE_MAX_US / DAY_US)));
        }
        Ok(Self { from, to })
    }

    /// The finest of which all of the range is kept and which is not too many rows.
    fn step(&self, now: Timestamp, settings: &Settings) -> Step {
        let fits = |step: Step, days_max: u64| {
            self.to - self.from <= days_max * DAY_US && self.from >= now.saturating_sub(settings.kept_us(step).saturating_sub(DAY_US / 24))
        };
        match () {
            () if fits(Step::Minute, 1) => Step::Minute,
            () if fits(Step::Hour, 31) => Step::Hour,
            () => Step::Day,
        }
    }

    fn in_steps(&self, step: Step) -> InSteps {
        InSteps { from: steps::beginning(step, self.from), to: steps::end(step, self.to), step }
    }
}

impl InSteps {
    fn times(&self) -> impl Iterator<Item = Timestamp> {
        (self.from..self.to).step_by(steps::length_us(self.step) as usize)
    }

    fn points(&self, rows: &[(Timestamp, u64, u64)]) -> Vec<Point> {
        let rows: BTreeMap<Timestamp, (u64, u64)> = rows.iter().map(|(at, count, total)| (*at, (*count, *total))).collect();
        let point = |at| {
            let (count, total) = rows.get(&at).copied().unwrap_or_default();
            Point { at, count, total, p50_ms: None, p95_ms: None, p99_ms: None }
        };
        self.times().map(point).collect()
    }

    fn latencies(&self, rows: &[(Timestamp, String, u64, u64)]) -> Vec<Point> {
        let mut histograms: BTreeMap<Timestamp, (Histogram, u64)> = BTreeMap::new();
        for (at, class, count, total) in rows {
            let (histogram, sum) = histograms.entry(*at).or_default();
            histogram.add(class, *count, *total);
            *sum += total;
        }
        let point = |at| {
            let (histogram, total) = histograms.get(&at).cloned().unwrap_or_default();
            let latency = histogram.summary();
            Point { at, count: latency.count, total, p50_ms: latency.p50_ms, p95_ms: latency.p95_ms, p99_ms: latency.p99_ms }
        };
        self.times().map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use echo_sdk::time::MINUTE_US;

    const NOW: Timestamp = 1_700_000_000_000_000;
    const SETTINGS: Settings =
        Settings { minutes_kept_us: 2 * DAY_US, hours_kept_us: 90 * DAY_US, days_kept_us: 800 * DAY_US, people_kept_us: 0 };

    #[test]
    fn a_range_is_bounded_and_in_order() {
        let asked = |from, to| Range::asked(from, to, NOW).map_err(|error| error.code);
        assert_eq!(asked(None, None), Ok(Range { from: NOW - DAY_US, to: NOW }));
        assert_eq!(asked(Some(NOW), Some(NOW)), Err("unordered_range".to_owned()));
        assert_eq!(asked(Some(NOW), Some(NOW - 1)), Err("unordered_range".to_owned()));
        assert_eq!(asked(Some(0), None), Err("too_long".to_owned()));
        assert_eq!(asked(Some(NOW - 1), Some(u64::MAX)), Ok(Range { from: NOW - 1, to: NOW + DAY_US }));
    }

    #[test]
    fn a_range_is_counted_by_the_finest_steps_that_are_kept() {
        for (from_days, to_days, step) in
            [(1, 0, Step::Minute), (2, 1, Step::Hour), (2, 0, Step::Hour), (31, 0, Step::Hour), (32, 0, Step::Day), (91, 90, Step::Day)]
        {
            let range = Range { from: NOW - from_days * DAY_US, to: NOW - to_days * DAY_US };
            assert_eq!(range.step(NOW, &SETTINGS), step, "{from_days} to {to_days}");
        }
    }

    #[test]
    fn a_series_has_a_point_for_each_step() {
        let range = Range { from: NOW, to: NOW + 2 * MINUTE_US }.in_steps(Step::Minute);
        let begin = steps::beginning(Step::Minute, NOW);
        let points = range.points(&[(begin + MINUTE_US, 3, 7)]);
        let expect = [(begin, 0, 0), (begin + MINUTE_US, 3, 7), (begin + 2 * MINUTE_US, 0, 0)];
        assert_eq!(points.iter().map(|point| (point.at, point.count, point.total)).collect::<Vec<_>>(), expect);
        let latencies = range.latencies(&[(begin, "10".to_owned(), 1, 8), (begin, "20".to_owned(), 1, 12)]);
        assert_eq!((latencies[0].count, latencies[0].total, latencies[0].p50_ms, latencies[0].p99_ms), (2, 20, Some(10), Some(20)));
        assert_eq!((latencies[1].count, latencies[1].p50_ms), (0, None));
    }
}
