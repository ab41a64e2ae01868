//! Each store function by itself, in a module of its name, on a real database with the service's tables: guesses and known devices.

use echo_sdk::sql::{Database, ErrorClass};

use super::*;
use crate::store::fixtures::*;

// --- Guesses in a row ------------------------------------------------------------------------------------------------------------------

/// Locks with the third failure, for 100 µs.
fn counter(subject: &str, client: &str) -> Counter {
    Counter { subject: subject.to_owned(), client: client.to_owned(), failures_max: 3, lock_us: 100 }
}

fn ours() -> Counter {
    counter("password +1", "device a")
}

fn guessed(counter: &Counter, times: usize, now_us: u64) -> Vec<bool> {
    (0..times).map(|_| count_guess(&Database, counter, now_us).unwrap()).collect()
}

fn failures(counter: &Counter) -> Option<u64> {
    let sql = "SELECT failures FROM guesses WHERE subject = $1 AND client = $2";
    Database.row::<(u64,)>(sql, params![&counter.subject, &counter.client]).unwrap().map(|(failures,)| failures)
}

mod locked_until {
    use super::*;

    #[test]
    fn says_the_end_of_a_lock_until_then() {
        let _store = store();
        assert_eq!(locked_until(&Database, &ours(), 0).unwrap(), None);
        guessed(&ours(), 2, 1_000);
        assert_eq!(locked_until(&Database, &ours(), 1_000).unwrap(), None);
        guessed(&ours(), 1, 1_000);
        assert_eq!([1_000, 1_099, 1_100].map(|now| locked_until(&Database, &ours(), now).unwrap()), [Some(1_100), Some(1_100), None]);
    }

    #[test]
    fn is_of_this_subject_and_client() {
        let _store = store();
        guessed(&ours(), 3, 1_000);
        for other in [counter("password +1", "device b"), counter("password +2", "device a")] {
            assert_eq!(locked_until(&Database, &other, 1_000).unwrap(), None);
        }
    }
}

mod count_guess {
    use super::*;

    #[test]
    fn locks_with_the_last_that_the_counter_takes_and_counts_no_more() {
        let _store = store();
        assert_eq!(guessed(&ours(), 5, 1_000), [true, true, true, false, false]);
        assert_eq!(failures(&ours()), Some(3));
    }

    #[test]
    fn counts_from_the_beginning_when_the_lock_is_over() {
        let _store = store();
        guessed(&ours(), 3, 1_000);
        assert_eq!(guessed(&ours(), 1, 1_099), [false]);
        assert_eq!(guessed(&ours(), 4, 1_100), [true, true, true, false]);
        assert_eq!(locked_until(&Database, &ours(), 1_100).unwrap(), Some(1_200));
    }

    #[test]
    fn locks_with_the_first_where_the_counter_takes_one() {
        let _store = store();
        let strict = Counter { failures_max: 1, ..ours() };
        assert_eq!(guessed(&strict, 2, 1_000), [true, false]);
        assert_eq!(guessed(&strict, 2, 1_100), [true, false]);
    }
}

mod uncount_guess {
    use super::*;

    #[test]
    fn gives_one_back_and_opens_a_counter_that_it_filled() {
        let _store = store();
        guessed(&ours(), 3, 1_000);
        uncount_guess(&Database, &ours()).unwrap();
        assert_eq!((failures(&ours()), locked_until(&Database, &ours(), 1_000).unwrap()), (Some(2), None));
        assert_eq!(guessed(&ours(), 2, 1_000), [true, false]);
    }

    #[test]
    fn never_goes_below_none_and_makes_no_counter() {
        let _store = store();
        uncount_guess(&Database, &ours()).unwrap();
        assert_eq!(failures(&ours()), None);
        guessed(&ours(), 1, 1_000);
        for _ in 0..2 {
            uncount_guess(&Database, &ours()).unwrap();
        }
        assert_eq!(failures(&ours()), Some(0));
    }
}

mod drop_guesses {
    use super::*;

    #[test]
    fn drops_this_counter_alone() {
        let _store = store();
        let others = [counter("password +1", "device b"), counter("password +2", "device a")];
        for counter in others.iter().chain([&ours()]) {
            guessed(counter, 3, 1_000);
        }
        drop_guesses(&Database, &ours()).unwrap();
        assert_eq!((failures(&ours()), failures(&others[0]), failures(&others[1])), (None, Some(3), Some(3)));
    }
}

mod drop_guesses_of {
    use super::*;

    #[test]
    fn drops_those_of_all_clients_at_this_subject() {
        let _store = store();
        let (same, other) = (counter("password +1", "device b"), counter("password +12", "device a"));
        for counter in [&ours(), &same, &other] {
            guessed(counter, 1, 1_000);
        }
        drop_guesses_of(&Database, "password +1").unwrap();
        assert_eq!([&ours(), &same, &other].map(failures), [None, None, Some(1)]);
    }
}

mod forget_guesses {
    use super::*;

    #[test]
    fn forgets_old_ones_that_lock_nothing() {
        let _store = store();
        let [old, new, locking] = ["old", "new", "locking"].map(|client| counter("password +1", client));
        guessed(&old, 1, 999);
        guessed(&new, 1, 1_000);
        guessed(&locking, 3, 999);
        forget_guesses(&Database, 1_000, 1_050, 9).unwrap();
        assert_eq!([&old, &new, &locking].map(failures), [None, Some(1), Some(3)]);
        forget_guesses(&Database, 1_000, 1_099, 9).unwrap();
        assert_eq!(failures(&locking), None, "its lock is over");
    }

    #[test]
    fn forgets_some_at_a_time_the_oldest_first() {
        let _store = store();
        let counters = ["a", "b", "c"].map(|client| counter("password +1", client));
        for (counter, at) in counters.iter().zip([3, 1, 2]) {
            guessed(counter, 1, at);
        }
        forget_guesses(&Database, 10, 10, 2).unwrap();
        assert_eq!(counters.each_ref().map(failures), [Some(1), None, None]);
    }
}

// --- Known devices ---------------------------------------------------------------------------------------------------------------------

fn noted(account: u32, device: &str, address: &str, at: u64) {
    note_device(&Database, &id(account), device, address, at, 100).unwrap();
}

fn devices() -> Vec<String> {
    left("known_devices", "device_id")
}

mod device_known {
    use super::*;

    #[test]
    fn tells_a_known_address_from_another_and_an_unknown_device() {
        let _store = store();
        account(1);
        account(2);
        noted(1, "laptop", "192.0.2.7", 5);
        noted(1, "laptop", "192.0.2.8", 5);
        noted(2, "phone", "192.0.2.7", 5);
        let known = |device, address| device_known(&Database, &id(1), device, address).unwrap();
        assert_eq!([known("laptop", "192.0.2.7"), known("laptop", "192.0.2.8")], [Some(true), Some(true)]);
        assert_eq!(known("laptop", "192.0.2.9"), Some(false));
        assert_eq!(known("phone", "192.0.2.7"), None);
    }
}

mod address_known {
    use super::*;

    #[test]
    fn is_by_any_device_of_the_account() {
        let _store = store();
        account(1);
        account(2);
        noted(1, "laptop", "192.0.2.7", 5);
        noted(2, "phone", "192.0.2.8", 5);
        assert_eq!(["192.0.2.7", "192.0.2.8"].map(|address| address_known(&Database, &id(1), address).unwrap()), [true, false]);
    }
}

mod note_device {
    use super::*;

    #[test]
    fn keeps_those_that_were_seen_last_of_the_account() {
        let _store = store();
        account(1);
        account(2);
        noted(2, "other", "192.0.2.7", 1);
        for (device, at) in [("a", 10), ("b", 20), ("a", 30), ("c", 40)] {
            note_device(&Database, &id(1), device, "192.0.2.7", at, 2).unwrap();
        }
        assert_eq!(devices(), ["a", "c", "other"]);
    }

    #[test]
    fn keeps_a_row_for_each_address_of_a_device() {
        let _store = store();
        account(1);
        for (address, at) in [("192.0.2.7", 10), ("192.0.2.8", 20), ("192.0.2.7", 30)] {
            noted(1, "laptop", address, at);
        }
        assert_eq!(devices(), ["laptop", "laptop"]);
        let error = note_device(&Database, &id(2), "laptop", "192.0.2.7", 10, 2).unwrap_err();
        assert_eq!(error.class, ErrorClass::ForeignKey);
    }

    #[test]
    fn keeps_no_more_than_that_where_times_are_equal() {
        let _store = store();
        account(1);
        for device in ["a", "b", "c"] {
            note_device(&Database, &id(1), device, "192.0.2.7", 10, 2).unwrap();
        }
        assert_eq!(devices().len(), 2);
    }
}

mod forget_devices {
    use super::*;

    #[test]
    fn forgets_those_of_before_some_at_a_time_the_oldest_first() {
        let _store = store();
        for (number, at) in [(1, 8), (2, 7), (3, 9), (4, 10)] {
            account(number);
            noted(number, &format!("device {number}"), "192.0.2.7", at);
        }
        forget_devices(&Database, 10, 2).unwrap();
        assert_eq!(devices(), ["device 3", "device 4"]);
        forget_devices(&Database, 10, 2).unwrap();
        assert_eq!(devices(), ["device 4"]);
    }
}
