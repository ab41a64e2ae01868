//! The metrics, as they are kept, and what one event adds to them. Pure.

use std::collections::BTreeMap;

use echo_sdk::Timestamp;

use crate::bindings::exports::echo::analytics::api::{Metric, Step};
use crate::steps;

/// What has too many labels is counted under this one.
pub const OTHER: &str = "other";
pub const UNKNOWN: &str = "unknown";

pub fn name(metric: Metric) -> &'static str {
    match metric {
        Metric::Messages => "messages",
        Metric::MessagesEdited => "messages_edited",
        Metric::MessagesDeleted => "messages_deleted",
        Metric::Registrations => "registrations",
        Metric::ActiveUsers => "active_users",
        Metric::Connections => "connections",
        Metric::Deliveries => "deliveries",
        Metric::SessionsEnded => "sessions_ended",
        Metric::PasswordChanges => "password_changes",
        Metric::Blocks => "blocks",
        Metric::ClientEvents => "client_events",
    }
}

/// Whether its labels say something by themselves.
pub fn has_labels(metric: Metric) -> bool {
    matches!(metric, Metric::Messages | Metric::Registrations | Metric::ClientEvents)
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub step: &'static str,
    pub metric: &'static str,
    pub at: Timestamp,
    pub label: String,
}

/// How often, and the sum of the values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub events: u64,
    pub total: u64,
}

/// What is to be added to the rows, each row once.
#[derive(Debug, Default)]
pub struct Additions(BTreeMap<Key, Sum>);

impl Additions {
    /// In the minute, the hour and the day of that time.
    pub fn add(&mut self, metric: Metric, label: &str, at: Timestamp, sum: Sum) {
        for step in steps::ALL {
            self.add_to(step, metric, label, at, sum);
        }
    }

    pub fn add_to(&mut self, step: Step, metric: Metric, label: &str, at: Timestamp, sum: Sum) {
        if sum.events == 0 {
            return;
        }
        let at = steps::beginning(step, at);
        let row = self.0.entry(Key { step: steps::name(step), metric: name(metric), at, label: label.to_owned() }).or_default();
        row.events += sum.events;
        row.total += sum.total;
    }

    pub fn count(&mut self, metric: Metric, at: Timestamp, events: u64) {
        self.add(metric, "", at, Sum { events, total: 0 });
    }

    pub fn rows(&self) -> impl Iterator<Item = (&Key, &Sum)> {
        self.0.iter()
    }

    /// Puts what was added of a metric under another label; `label_of` gets each label and the day.
    pub fn relabel<E>(&mut self, metric: Metric, mut label_of: impl FnMut(&str, Timestamp) -> Result<String, E>) -> Result<(), E> {
        for (mut key, sum) in std::mem::take(&mut self.0) {
            if key.metric == name(metric) {
                key.label = label_of(&key.label, steps::beginning(Step::Day, key.at))?;
            }
            let row = self.0.entry(key).or_default();
            row.events += sum.events;
            row.total += sum.total;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use echo_sdk::time::{DAY_US, MINUTE_US};

    #[test]
    fn what_happens_in_one_minute_is_one_row_of_each_step() {
        let mut additions = Additions::default();
        for (at, total) in [(DAY_US, 5), (DAY_US + 1, 7), (DAY_US + MINUTE_US, 1)] {
            additions.add(Metric::ClientEvents, "opened", at, Sum { events: 1, total });
        }
        additions.count(Metric::Blocks, DAY_US, 0);
        let rows: Vec<_> = additions.rows().map(|(key, sum)| (key.step, key.at, sum.events, sum.total)).collect();
        let expect = [("day", DAY_US, 3, 13), ("hour", DAY_US, 3, 13), ("minute", DAY_US, 2, 12), ("minute", DAY_US + MINUTE_US, 1, 1)];
        assert_eq!(rows, expect);
    }

    #[test]
    fn labels_beyond_the_bound_are_one() {
        let mut additions = Additions::default();
        for label in ["a", "b", "c"] {
            additions.add(Metric::ClientEvents, label, 0, Sum { events: 1, total: 2 });
        }
        additions.count(Metric::Blocks, 0, 1);
        let relabelled = additions.relabel(Metric::ClientEvents, |label, _| Ok::<_, ()>(if label == "a" { "a" } else { OTHER }.to_owned()));
        assert_eq!(relabelled, Ok(()));
        let days: Vec<_> =
            additions.rows().filter(|(key, _)| key.step == "day").map(|(key, sum)| (key.label.as_str(), sum.events)).collect();
        assert_eq!(days, [("", 1), ("a", 1), (OTHER, 2)]);
    }
}
