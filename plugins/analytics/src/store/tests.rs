//! Each store function by itself, in a module of its name, on a real database with the service's tables.

use echo_sdk::sql::ErrorClass;
use echo_sdk::time::{DAY_US, MINUTE_US};
use echo_sdk::transaction;
use echo_testing::Store;

use super::*;
use crate::bounds::SUMMED_ROWS_MAX;

/// More than two statements list.
const MANY: u32 = 2 * LIST_PARAMS_MAX as u32 + 1;
/// More than two statements insert.
const MANY_ROWS: u32 = 2 * INSERT_ROWS_MAX as u32 + 1;
/// Rows that the host gives of one query.
const HOST_ROWS_MAX: u32 = 10_000;

fn store() -> Store {
    Store::open("analytics")
}

fn id(number: u32) -> String {
    format!("01890000-0000-7000-8000-{number:012}")
}

fn ids(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(id).collect()
}

#[track_caller]
fn committed<T>(work: impl Fn(&Transaction) -> Result<T, SqlError>) -> T {
    transaction(work).expect("commits")
}

fn count(table: &str) -> i64 {
    Database.one::<(i64,)>(&format!("SELECT COUNT(*) FROM {table}"), params![]).expect("counts").0
}

fn days(number: u64) -> Timestamp {
    number * DAY_US
}

fn minutes(number: u64) -> Timestamp {
    number * MINUTE_US
}

// --- Counting ------------------------------------------------------------------------------------------------------------------------

/// In that step alone.
fn counted(step: Step, metric: Metric, label: &str, at: Timestamp, events: u64, total: u64) {
    let mut additions = Additions::default();
    additions.add_to(step, metric, label, at, Sum { events, total });
    committed(|tx| add(tx, &additions));
}

/// Events with these labels, one of each, in the step of that time.
fn labelled(step: Step, at: Timestamp, labels: impl IntoIterator<Item = u32>) -> Additions {
    let mut additions = Additions::default();
    for label in labels {
        additions.add_to(step, Metric::ClientEvents, &format!("l{label:05}"), at, Sum { events: 1, total: 2 });
    }
    additions
}

fn labels() -> Vec<String> {
    let rows: Vec<(String,)> = Database.rows("SELECT label FROM rollups ORDER BY label", params![]).unwrap();
    rows.into_iter().map(|(label,)| label).collect()
}

mod add {
    use super::*;

    fn sums() -> Vec<(u64, u64)> {
        Database.rows("SELECT events, total FROM rollups ORDER BY events", params![]).unwrap()
    }

    #[test]
    fn adds_to_what_was_counted() {
        let _store = store();
        counted(Step::Hour, Metric::ClientEvents, "opened", 0, 2, 30);
        counted(Step::Hour, Metric::ClientEvents, "opened", minutes(59), 3, 0);
        assert_eq!(sums(), [(5, 30)]);
    }

    #[test]
    fn keeps_steps_metrics_times_and_labels_apart() {
        let _store = store();
        counted(Step::Hour, Metric::Messages, "text", 0, 1, 0);
        counted(Step::Day, Metric::Messages, "text", 0, 2, 0);
        counted(Step::Hour, Metric::Registrations, "text", 0, 3, 0);
        counted(Step::Hour, Metric::Messages, "text", minutes(60), 4, 0);
        counted(Step::Hour, Metric::Messages, "image", 0, 5, 0);
        assert_eq!(sums(), [1, 2, 3, 4, 5].map(|events| (events, 0)));
    }

    #[test]
    fn takes_nothing_and_more_rows_than_a_statement_inserts() {
        let _store = store();
        committed(|tx| add(tx, &Additions::default()));
        assert_eq!(count("rollups"), 0);
        for _ in 0..2 {
            committed(|tx| add(tx, &labelled(Step::Day, 0, 0..MANY_ROWS)));
        }
        assert_eq!(sums(), vec![(2, 4); MANY_ROWS as usize]);
    }

    #[test]
    fn stops_at_the_largest_total_and_goes_on_counting_events() {
        let _store = store();
        for (total, kept) in [(TOTAL_MAX - 3, TOTAL_MAX - 3), (2, TOTAL_MAX - 1), (1, TOTAL_MAX), (1, TOTAL_MAX), (u64::MAX, TOTAL_MAX)] {
            counted(Step::Day, Metric::ClientEvents, "large", 0, 1, total);
            assert_eq!(sums().last().unwrap().1, kept, "with {total}");
        }
        counted(Step::Day, Metric::ClientEvents, "large at once", 0, 9, u64::MAX);
        assert_eq!(sums(), [(5, TOTAL_MAX), (9, TOTAL_MAX)]);
    }

    #[test]
    fn leaves_totals_that_a_report_can_add_up() {
        let _store = store();
        let mut additions = Additions::default();
        for number in 0..SUMMED_ROWS_MAX {
            let sum = Sum { events: 1, total: i64::MAX as u64 };
            additions.add_to(Step::Day, Metric::ClientEvents, "large", days(1 + number), sum);
            additions.add_to(Step::Day, Metric::ClientEvents, &format!("l{number}"), 0, sum);
        }
        for _ in 0..2 {
            committed(|tx| add(tx, &additions));
        }
        let (metric, step, events, total) = (Metric::ClientEvents, Step::Day, 2 * SUMMED_ROWS_MAX, SUMMED_ROWS_MAX * TOTAL_MAX);
        assert_eq!(top(metric, step, 0, days(1 + SUMMED_ROWS_MAX), 1).unwrap(), [("large".to_owned(), events, total)]);
        assert_eq!(series(metric, step, 0, days(1), None).unwrap(), [(0, events, total)]);
    }
}

mod labels_of_day {
    use super::*;

    #[test]
    fn gives_those_of_the_metric_on_that_day_in_order() {
        let _store = store();
        for label in ["opened", "closed", ""] {
            counted(Step::Day, Metric::ClientEvents, label, days(1), 1, 0);
        }
        counted(Step::Hour, Metric::ClientEvents, "of an hour", days(1), 1, 0);
        counted(Step::Day, Metric::Messages, "of another metric", days(1), 1, 0);
        counted(Step::Day, Metric::ClientEvents, "of the day before", days(0), 1, 0);
        counted(Step::Day, Metric::ClientEvents, "of the day after", days(2), 1, 0);
        assert_eq!(committed(|tx| labels_of_day(tx, Metric::ClientEvents, days(1), 9)), ["", "closed", "opened"]);
        assert!(committed(|tx| labels_of_day(tx, Metric::Blocks, days(1), 9)).is_empty());
    }

    #[test]
    fn gives_at_most_so_many() {
        let _store = store();
        committed(|tx| add(tx, &labelled(Step::Day, 0, 0..3)));
        let found = |labels_max| committed(|tx| labels_of_day(tx, Metric::ClientEvents, 0, labels_max)).len();
        assert_eq!([0, 2, 3, 4].map(found), [0, 2, 3, 3]);
    }
}

// --- People --------------------------------------------------------------------------------------------------------------------------

fn active(number: u32, at: Timestamp) {
    committed(|tx| set_active(tx, &[(&id(number), at)]));
}

/// The day of the registration, and when the person was active last.
fn person(number: u32) -> Option<(Option<Timestamp>, Timestamp)> {
    committed(|tx| people(tx, &ids([number]))).pop().map(|person| (person.registered_on, person.active_at))
}

mod forget_person {
    use super::*;

    #[test]
    fn forgets_this_one() {
        let _store = store();
        active(1, minutes(1));
        active(2, minutes(2));
        committed(|tx| forget_person(tx, &id(1)));
        let left: Vec<_> = committed(|tx| people(tx, &ids([1, 2]))).into_iter().map(|person| person.user_id).collect();
        assert_eq!(left, ids([2]));
    }
}

mod people {
    use super::*;

    #[test]
    fn gives_what_is_known_of_these() {
        let _store = store();
        active(1, minutes(1));
        active(2, minutes(2));
        active(3, minutes(3));
        committed(|tx| set_registered(tx, &id(2), days(0)));
        let mut found = committed(|tx| people(tx, &ids([2, 1, 9])));
        found.sort_unstable_by(|one, other| one.user_id.cmp(&other.user_id));
        let found: Vec<_> = found.into_iter().map(|person| (person.user_id, person.registered_on, person.active_at)).collect();
        assert_eq!(found, [(id(1), None, minutes(1)), (id(2), Some(days(0)), minutes(2))]);
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        active(1, minutes(1));
        active(MANY, minutes(1));
        active(MANY + 1, minutes(1));
        assert!(committed(|tx| people(tx, &[])).is_empty());
        assert_eq!(committed(|tx| people(tx, &ids(1..=MANY))).len(), 2);
    }
}

mod set_active {
    use super::*;

    #[test]
    fn keeps_the_latest_time_and_the_registration() {
        let _store = store();
        for (at, kept) in [(20, 20), (10, 20), (20, 20), (30, 30)] {
            active(1, minutes(at));
            assert_eq!(person(1), Some((None, minutes(kept))), "active at {at}");
        }
        committed(|tx| set_registered(tx, &id(1), days(0)));
        active(1, minutes(40));
        assert_eq!(person(1), Some((Some(days(0)), minutes(40))));
        assert_eq!(person(2), None);
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        committed(|tx| set_active(tx, &[]));
        assert_eq!(count("people"), 0);
        let ids = ids(1..=MANY_ROWS);
        for at in 1..=2 {
            let people: Vec<_> = ids.iter().map(|id| (id.as_str(), minutes(at))).collect();
            committed(|tx| set_active(tx, &people));
        }
        assert_eq!((count("people"), active_since(minutes(2)).unwrap()), (i64::from(MANY_ROWS), u64::from(MANY_ROWS)));
    }
}

mod set_registered {
    use super::*;

    #[test]
    fn is_new_once_and_keeps_the_first_day() {
        let _store = store();
        active(1, days(5));
        assert_eq!([3, 4].map(|day| committed(|tx| set_registered(tx, &id(1), days(day)))), [true, false]);
        assert_eq!(person(1), Some((Some(days(3)), days(5))));
    }

    #[test]
    fn makes_a_person_of_whom_nothing_was_known() {
        let _store = store();
        assert!(committed(|tx| set_registered(tx, &id(1), days(3))));
        assert!(!committed(|tx| set_registered(tx, &id(1), days(3))));
        assert_eq!((person(1), person(2)), (Some((Some(days(3)), days(3))), None));
    }
}

/// So many who registered on that day were active so many days later.
fn cohort(registered_on: u64, day: u64, people: u32) {
    for _ in 0..people {
        committed(|tx| add_to_cohort(tx, days(registered_on), day));
    }
}

mod add_to_cohort {
    use super::*;

    #[test]
    fn adds_one_for_that_registration_and_that_day() {
        let _store = store();
        cohort(1, 0, 2);
        cohort(1, 7, 1);
        cohort(2, 0, 3);
        let cohorts: Vec<(u64, u64, u64)> =
            Database.rows("SELECT registered_on, day, people FROM cohorts ORDER BY registered_on, day", params![]).unwrap();
        assert_eq!(cohorts, [(days(1), 0, 2), (days(1), 7, 1), (days(2), 0, 3)]);
    }
}

mod active_since {
    use super::*;

    #[test]
    fn counts_people_from_that_moment_on() {
        let _store = store();
        assert_eq!(active_since(0).unwrap(), 0);
        for (number, at) in [(1, 9), (2, 10), (3, 11)] {
            active(number, minutes(at));
        }
        assert_eq!([9, 10, 11, 12].map(|at| active_since(minutes(at)).unwrap()), [3, 2, 1, 0]);
    }
}

mod retained {
    use super::*;

    #[test]
    fn counts_those_who_registered_and_those_of_them_who_came_back() {
        let _store = store();
        for (registered_on, people, after_a_day, after_a_week) in [(1, 4, 1, 0), (2, 5, 2, 3), (3, 6, 3, 1)] {
            cohort(registered_on, 0, people);
            cohort(registered_on, 1, after_a_day);
            cohort(registered_on, 7, after_a_week);
        }
        assert_eq!([1, 7, 30].map(|day| retained(days(1), days(4), day).unwrap()), [(15, 6), (15, 4), (15, 0)]);
        assert_eq!(retained(days(1), days(4), 0).unwrap(), (15, 15));
    }

    #[test]
    fn takes_the_first_day_and_leaves_out_the_end() {
        let _store = store();
        for day in 1..=4 {
            cohort(day, 0, 1);
        }
        assert_eq!(retained(days(2), days(4), 1).unwrap(), (2, 0));
        for (from, to) in [(5, 9), (3, 3), (4, 1)] {
            assert_eq!(retained(days(from), days(to), 1).unwrap(), (0, 0), "from {from} to {to}");
        }
    }
}

// --- Reports ---------------------------------------------------------------------------------------------------------------------------

/// What no report of messages by the minute, from the 2nd to before the 4th, may hold.
fn put_others() {
    counted(Step::Hour, Metric::Messages, "text", 0, 1_000, 0);
    counted(Step::Day, Metric::Messages, "text", 0, 1_000, 0);
    counted(Step::Minute, Metric::Connections, "", minutes(2), 1_000, 0);
    counted(Step::Minute, Metric::Messages, "text", minutes(1), 1_000, 0);
    counted(Step::Minute, Metric::Messages, "text", minutes(4), 1_000, 0);
}

fn put_messages() {
    counted(Step::Minute, Metric::Messages, "text", minutes(2), 3, 30);
    counted(Step::Minute, Metric::Messages, "text", minutes(3), 4, 40);
    counted(Step::Minute, Metric::Messages, "image", minutes(3), 5, 50);
}

mod sums {
    use super::*;

    fn found(step: Step, from: Timestamp, to: Timestamp) -> Vec<(String, String, u64, u64)> {
        let mut found: Vec<_> =
            sums(step, from, to).unwrap().into_iter().map(|sum| (sum.metric, sum.label, sum.events, sum.total)).collect();
        found.sort_unstable();
        found
    }

    fn row(metric: &str, label: &str, events: u64, total: u64) -> (String, String, u64, u64) {
        (metric.to_owned(), label.to_owned(), events, total)
    }

    #[test]
    fn gives_each_metric_and_label_of_the_steps_within() {
        let _store = store();
        put_others();
        put_messages();
        let expect = [row("connections", "", 1_000, 0), row("messages", "image", 5, 50), row("messages", "text", 7, 70)];
        assert_eq!(found(Step::Minute, minutes(2), minutes(4)), expect);
        assert_eq!(found(Step::Hour, 0, minutes(60)), [row("messages", "text", 1_000, 0)]);
        assert!(found(Step::Minute, minutes(5), minutes(9)).is_empty());
    }

    #[test]
    fn leaves_out_client_events() {
        let _store = store();
        counted(Step::Minute, Metric::ClientEvents, "opened", 0, 1, 0);
        counted(Step::Minute, Metric::Deliveries, "20", 0, 1, 15);
        assert_eq!(found(Step::Minute, 0, minutes(1)), [row("deliveries", "20", 1, 15)]);
    }
}

mod count_of {
    use super::*;

    #[test]
    fn counts_all_labels_of_the_steps_within() {
        let _store = store();
        put_others();
        put_messages();
        assert_eq!(count_of(Metric::Messages, Step::Minute, minutes(2), minutes(4)).unwrap(), 12);
        assert_eq!(count_of(Metric::Messages, Step::Hour, 0, minutes(60)).unwrap(), 1_000);
    }

    #[test]
    fn is_zero_where_nothing_happened() {
        let _store = store();
        assert_eq!(count_of(Metric::Messages, Step::Minute, 0, days(1)).unwrap(), 0);
    }
}

mod most_of {
    use super::*;

    #[test]
    fn gives_the_most_of_the_steps_within() {
        let _store = store();
        for (day, people) in [(1, 90), (2, 4), (3, 7), (4, 5), (5, 80)] {
            counted(Step::Day, Metric::ActiveUsers, "", days(day), people, 0);
        }
        counted(Step::Hour, Metric::ActiveUsers, "", days(3), 70, 0);
        counted(Step::Day, Metric::Connections, "", days(3), 60, 0);
        assert_eq!(most_of(Metric::ActiveUsers, Step::Day, days(2), days(5)).unwrap(), 7);
    }

    #[test]
    fn is_zero_where_nothing_happened() {
        let _store = store();
        assert_eq!(most_of(Metric::ActiveUsers, Step::Day, 0, days(9)).unwrap(), 0);
    }
}

mod series {
    use super::*;

    fn found(label: Option<&str>) -> Vec<(Timestamp, u64, u64)> {
        series(Metric::Messages, Step::Minute, minutes(2), minutes(4), label).unwrap()
    }

    #[test]
    fn gives_one_row_for_all_labels_in_order_of_time() {
        let _store = store();
        put_others();
        assert!(found(None).is_empty());
        put_messages();
        assert_eq!(found(None), [(minutes(2), 3, 30), (minutes(3), 9, 90)]);
    }

    #[test]
    fn gives_one_label_alone() {
        let _store = store();
        put_others();
        put_messages();
        assert_eq!(found(Some("text")), [(minutes(2), 3, 30), (minutes(3), 4, 40)]);
        assert_eq!(found(Some("image")), [(minutes(3), 5, 50)]);
        assert!(found(Some("Text")).is_empty());
    }

    #[test]
    fn takes_the_empty_label_for_one() {
        let _store = store();
        put_messages();
        counted(Step::Minute, Metric::Messages, "", minutes(3), 1, 0);
        assert_eq!(found(Some("")), [(minutes(3), 1, 0)]);
    }
}

mod labelled_series {
    use super::*;

    fn found() -> Vec<(Timestamp, String, u64, u64)> {
        labelled_series(Metric::Messages, Step::Minute, minutes(2), minutes(4)).unwrap()
    }

    #[test]
    fn gives_the_labels_apart_in_order_of_time() {
        let _store = store();
        put_others();
        assert!(found().is_empty());
        put_messages();
        let expect = [(2, "text", 3, 30), (3, "image", 5, 50), (3, "text", 4, 40)];
        assert_eq!(found(), expect.map(|(at, label, events, total)| (minutes(at), label.to_owned(), events, total)));
    }

    #[test]
    fn gives_as_many_rows_as_the_host_does_and_an_error_beyond() {
        let _store = store();
        let found = || labelled_series(Metric::ClientEvents, Step::Day, 0, days(1));
        committed(|tx| add(tx, &labelled(Step::Day, 0, 0..HOST_ROWS_MAX)));
        assert_eq!(found().unwrap().len(), HOST_ROWS_MAX as usize);
        committed(|tx| add(tx, &labelled(Step::Day, 0, [HOST_ROWS_MAX])));
        assert_eq!(found().unwrap_err().class, ErrorClass::TooLarge);
    }
}

mod top {
    use super::*;

    fn found(limit: u32) -> Vec<(String, u64, u64)> {
        top(Metric::Messages, Step::Minute, minutes(2), minutes(4), limit).unwrap()
    }

    #[test]
    fn gives_the_most_frequent_first_and_at_most_so_many() {
        let _store = store();
        put_others();
        assert!(found(9).is_empty());
        put_messages();
        counted(Step::Minute, Metric::Messages, "audio", minutes(2), 6, 0);
        let expect = [("text", 7, 70), ("audio", 6, 0), ("image", 5, 50)].map(|(label, events, total)| (label.to_owned(), events, total));
        for limit in 0..=4 {
            assert_eq!(found(limit), expect[..expect.len().min(limit as usize)]);
        }
    }

    #[test]
    fn gives_labels_that_are_as_frequent_by_name() {
        let _store = store();
        for (label, total) in [("b", 1), ("c", 9), ("a", 5)] {
            counted(Step::Minute, Metric::Messages, label, minutes(2), 3, total);
        }
        assert_eq!(found(9).into_iter().map(|(label, ..)| label).collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}

// --- Clearing away -----------------------------------------------------------------------------------------------------------------------

mod forget_rollups {
    use super::*;

    #[test]
    fn forgets_those_of_the_step_before_that_moment() {
        let _store = store();
        for (step, name) in [(Step::Minute, "minute"), (Step::Hour, "hour"), (Step::Day, "day")] {
            for day in 1..=3 {
                counted(step, Metric::Messages, &format!("{name} {day}"), days(day), 1, 0);
            }
        }
        forget_rollups(Step::Hour, days(2), 9).unwrap();
        assert_eq!(labels(), ["day 1", "day 2", "day 3", "hour 2", "hour 3", "minute 1", "minute 2", "minute 3"]);
        forget_rollups(Step::Minute, days(4), 9).unwrap();
        forget_rollups(Step::Day, days(1), 9).unwrap();
        assert_eq!(labels(), ["day 1", "day 2", "day 3", "hour 2", "hour 3"]);
    }

    #[test]
    fn forgets_at_most_so_many_the_oldest_first() {
        let _store = store();
        for (label, minute) in [("a", 3), ("b", 1), ("c", 4), ("d", 2)] {
            counted(Step::Minute, Metric::Messages, label, minutes(minute), 1, 0);
        }
        forget_rollups(Step::Minute, minutes(9), 0).unwrap();
        assert_eq!(count("rollups"), 4);
        forget_rollups(Step::Minute, minutes(9), 2).unwrap();
        assert_eq!(labels(), ["a", "c"]);
    }

    #[test]
    fn forgets_at_most_so_many_rows_of_one_moment() {
        let _store = store();
        committed(|tx| add(tx, &labelled(Step::Minute, minutes(1), 0..5)));
        forget_rollups(Step::Minute, minutes(2), 2).unwrap();
        assert_eq!(count("rollups"), 3);
    }
}

mod forget_people {
    use super::*;

    fn known() -> Vec<u32> {
        (1..=4).filter(|number| person(*number).is_some()).collect()
    }

    #[test]
    fn forgets_those_who_were_active_before_that_moment() {
        let _store = store();
        for (number, at) in [(1, 9), (2, 10), (3, 11)] {
            active(number, minutes(at));
        }
        committed(|tx| set_registered(tx, &id(1), days(0)));
        forget_people(minutes(10), 9).unwrap();
        assert_eq!(known(), [2, 3]);
    }

    #[test]
    fn forgets_at_most_so_many_the_oldest_first() {
        let _store = store();
        for (number, at) in [(1, 3), (2, 1), (3, 4), (4, 2)] {
            active(number, minutes(at));
        }
        forget_people(minutes(9), 0).unwrap();
        assert_eq!(known(), [1, 2, 3, 4]);
        forget_people(minutes(9), 2).unwrap();
        assert_eq!(known(), [1, 3]);
    }
}

mod forget_cohorts {
    use super::*;

    #[test]
    fn forgets_registrations_before_that_day() {
        let _store = store();
        for registered_on in 1..=3 {
            cohort(registered_on, 0, 1);
            cohort(registered_on, 30, 1);
        }
        forget_cohorts(days(2)).unwrap();
        assert_eq!(count("cohorts"), 4);
        assert_eq!([1, 2, 3].map(|day| retained(days(day), days(day + 1), 30).unwrap()), [(0, 0), (1, 1), (1, 1)]);
    }
}

mod forget_handled {
    use super::*;

    fn handled(event: &str, at: Timestamp) {
        let sql = "INSERT INTO handled_events (event_id, handled_at) VALUES ($1, $2)";
        Database.execute(sql, params![event, timestamp(at)]).unwrap();
    }

    fn known() -> Vec<String> {
        let rows: Vec<(String,)> = Database.rows("SELECT event_id FROM handled_events ORDER BY event_id", params![]).unwrap();
        rows.into_iter().map(|(event,)| event).collect()
    }

    #[test]
    fn forgets_those_handled_before_that_moment() {
        let _store = store();
        for (event, at) in [("a", 9), ("b", 10), ("c", 11)] {
            handled(event, at);
        }
        forget_handled(10, 9).unwrap();
        assert_eq!(known(), ["b", "c"]);
    }

    #[test]
    fn forgets_at_most_so_many_the_oldest_first() {
        let _store = store();
        for (event, at) in [("a", 3), ("b", 1), ("c", 4), ("d", 2)] {
            handled(event, at);
        }
        forget_handled(9, 0).unwrap();
        assert_eq!(known(), ["a", "b", "c", "d"]);
        forget_handled(9, 2).unwrap();
        assert_eq!(known(), ["a", "c"]);
    }
}
