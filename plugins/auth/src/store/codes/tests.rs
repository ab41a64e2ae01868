//! Each store function by itself, in a module of its name, on a real database with the service's tables: registrations, resets and codes.

use echo_sdk::sql::{Database, ErrorClass};

use super::*;
use crate::store::fixtures::*;

fn code(fingerprint: &str) -> Code {
    Code::for_tests(fingerprint)
}

fn kept(code: KeptCode) -> (String, u64, u64) {
    (code.fingerprint, code.tries, code.expires_at)
}

// --- Registrations -------------------------------------------------------------------------------------------------------------------

fn add(fingerprint: &str, phone: &str, address: Option<&str>, opened_at: u64, expires_at: u64) -> Result<(), SqlError> {
    let place = Place { country: Some("GB".into()), region: Some("London".into()), timezone: Some("Europe/London".into()) };
    let password_hash = format!("hash of {fingerprint}");
    let new = NewRegistration {
        fingerprint,
        phone,
        password_hash: &password_hash,
        name: Some("Ada"),
        place: &place,
        address,
        code: &code("code"),
        code_expires_at: 60,
        expires_at,
    };
    add_registration(&Database, &new, opened_at)
}

/// For the number 1, until 100.
fn opened(fingerprint: &str) {
    add(fingerprint, &phone(1), None, 10, 100).unwrap();
}

mod add_registration {
    use super::*;

    #[test]
    fn keeps_all_of_it_beside_others_of_the_number() {
        let _store = store();
        opened("a");
        opened("b");
        let found = try_registration(&Database, "a", &phone(1), 20).unwrap().unwrap();
        assert_eq!((found.password_hash.as_str(), found.name.as_deref()), ("hash of a", Some("Ada")));
        assert_eq!((found.country.as_deref(), found.region.as_deref()), (Some("GB"), Some("London")));
        assert_eq!((found.timezone.as_deref(), kept(found.code)), (Some("Europe/London"), ("code".to_owned(), 1, 60)));
    }

    #[test]
    fn takes_a_secret_once() {
        let _store = store();
        opened("a");
        assert_eq!(add("a", &phone(2), None, 10, 100).unwrap_err().class, ErrorClass::UniqueViolation);
    }
}

mod open_registrations {
    use super::*;

    #[test]
    fn counts_those_of_the_number_and_says_when_the_first_ends() {
        let _store = store();
        for (fingerprint, number, expires_at) in [("a", 1, 120), ("b", 1, 100), ("c", 1, 110), ("d", 2, 50)] {
            add(fingerprint, &phone(number), None, 10, expires_at).unwrap();
        }
        let open = |now| open_registrations(&Database, &phone(1), now).unwrap();
        assert_eq!([open(99), open(100), open(119), open(120)], [(3, Some(100)), (2, Some(110)), (1, Some(120)), (0, None)]);
        assert_eq!(open_registrations(&Database, &phone(3), 0).unwrap(), (0, None));
    }
}

mod try_registration {
    use super::*;

    #[test]
    fn counts_each_try_of_this_one() {
        let _store = store();
        opened("a");
        opened("b");
        let tries = || try_registration(&Database, "a", &phone(1), 20).unwrap().unwrap().code.tries;
        assert_eq!([tries(), tries()], [1, 2]);
        assert_eq!(try_registration(&Database, "b", &phone(1), 20).unwrap().unwrap().code.tries, 1);
    }

    #[test]
    fn finds_none_that_is_over_or_of_another_number() {
        let _store = store();
        opened("a");
        assert!(try_registration(&Database, "a", &phone(1), 99).unwrap().is_some());
        assert!(try_registration(&Database, "a", &phone(1), 100).unwrap().is_none());
        assert!(try_registration(&Database, "a", &phone(2), 20).unwrap().is_none());
        assert!(try_registration(&Database, "b", &phone(1), 20).unwrap().is_none());
    }
}

mod renew_code {
    use super::*;

    #[test]
    fn gives_an_open_one_another_code_and_its_tries_back() {
        let _store = store();
        opened("a");
        opened("b");
        try_registration(&Database, "a", &phone(1), 20).unwrap();
        assert!(renew_code(&Database, "a", &phone(1), &code("new"), 80, 20).unwrap());
        let of = |fingerprint| kept(try_registration(&Database, fingerprint, &phone(1), 20).unwrap().unwrap().code);
        assert_eq!([of("a"), of("b")], [("new".to_owned(), 1, 80), ("code".to_owned(), 1, 60)]);
    }

    #[test]
    fn is_false_where_none_is_open() {
        let _store = store();
        opened("a");
        for (fingerprint, number, now) in [("a", 1, 100), ("a", 2, 20), ("b", 1, 20)] {
            assert!(!renew_code(&Database, fingerprint, &phone(number), &code("new"), 180, now).unwrap());
        }
        assert_eq!(try_registration(&Database, "a", &phone(1), 20).unwrap().unwrap().code.fingerprint, "code");
    }
}

mod password_of_registration {
    use super::*;

    #[test]
    fn is_that_made_from_the_address_else_the_newest() {
        let _store = store();
        for (fingerprint, address, opened_at, expires_at) in
            [("a", Some("192.0.2.7"), 10, 100), ("b", Some("192.0.2.8"), 20, 100), ("c", None, 15, 100), ("d", None, 30, 50)]
        {
            add(fingerprint, &phone(1), address, opened_at, expires_at).unwrap();
        }
        add("e", &phone(2), Some("192.0.2.7"), 90, 100).unwrap();
        let password = |address, now| password_of_registration(&Database, &phone(1), address, now).unwrap();
        let of = |fingerprint: &str| Some(format!("hash of {fingerprint}"));
        assert_eq!(password(Some("192.0.2.7"), 60), of("a"));
        assert_eq!(password(Some("192.0.2.9"), 60), of("b"));
        assert_eq!(password(None, 60), of("b"));
        assert_eq!(password(None, 49), of("d"));
        assert_eq!(password(Some("192.0.2.7"), 100), None);
        assert_eq!(password_of_registration(&Database, &phone(3), None, 60).unwrap(), None);
    }
}

mod end_registrations {
    use super::*;

    #[test]
    fn ends_all_of_the_number() {
        let _store = store();
        opened("a");
        opened("b");
        add("c", &phone(2), None, 10, 100).unwrap();
        end_registrations(&Database, &phone(1)).unwrap();
        assert_eq!(left("registrations", "fingerprint"), ["c"]);
    }
}

mod forget_registrations {
    use super::*;

    #[test]
    fn forgets_those_that_are_over_some_at_a_time_the_longest_over_first() {
        let _store = store();
        for (fingerprint, expires_at) in [("a", 99), ("b", 97), ("c", 100), ("d", 101)] {
            add(fingerprint, &phone(1), None, 10, expires_at).unwrap();
        }
        forget_registrations(&Database, 100, 2).unwrap();
        assert_eq!(left("registrations", "fingerprint"), ["c", "d"]);
        forget_registrations(&Database, 100, 2).unwrap();
        assert_eq!(left("registrations", "fingerprint"), ["d"]);
    }
}

// --- Resets ----------------------------------------------------------------------------------------------------------------------------

fn reset(fingerprint: &str, number: u32, sent: Option<&str>, expires_at: u64) {
    add_reset(&Database, fingerprint, &phone(number), sent.map(code).as_ref(), expires_at).unwrap();
}

mod add_reset {
    use super::*;

    #[test]
    fn keeps_one_without_a_code_too() {
        let _store = store();
        reset("a", 1, Some("code"), 50);
        reset("b", 1, None, 60);
        assert_eq!(try_reset(&Database, "a", &phone(1)).unwrap().map(kept), Some(("code".to_owned(), 1, 50)));
        assert_eq!(try_reset(&Database, "b", &phone(1)).unwrap().map(kept), Some((String::new(), 1, 60)));
        assert_eq!(add_reset(&Database, "a", &phone(2), None, 50).unwrap_err().class, ErrorClass::UniqueViolation);
    }
}

mod try_reset {
    use super::*;

    #[test]
    fn counts_each_try_of_this_request_even_when_it_is_over() {
        let _store = store();
        reset("a", 1, Some("code"), 50);
        reset("b", 1, Some("other"), 50);
        let tries = || try_reset(&Database, "a", &phone(1)).unwrap().unwrap().tries;
        assert_eq!([tries(), tries()], [1, 2]);
        assert_eq!(try_reset(&Database, "b", &phone(1)).unwrap().unwrap().tries, 1);
    }

    #[test]
    fn finds_none_of_another_number() {
        let _store = store();
        reset("a", 1, Some("code"), 50);
        assert!(try_reset(&Database, "a", &phone(2)).unwrap().is_none());
        assert!(try_reset(&Database, "b", &phone(1)).unwrap().is_none());
        assert_eq!(try_reset(&Database, "a", &phone(1)).unwrap().unwrap().tries, 1, "what is none of its own counts no try");
    }
}

mod reset_code {
    use super::*;

    #[test]
    fn finds_a_code_that_was_sent_to_the_number_and_counts_nothing() {
        let _store = store();
        reset("a", 1, Some("code"), 50);
        reset("b", 1, Some("code"), 60);
        reset("c", 1, None, 70);
        for _ in 0..2 {
            let found = reset_code(&Database, &phone(1), &code("code")).unwrap().map(kept);
            assert_eq!(found, Some(("code".to_owned(), 0, 60)), "that which lasts longest");
        }
        assert!(reset_code(&Database, &phone(1), &code("")).unwrap().is_none(), "a request without a code has none");
        assert!(reset_code(&Database, &phone(2), &code("code")).unwrap().is_none());
        assert!(reset_code(&Database, &phone(1), &code("other")).unwrap().is_none());
    }
}

mod forget_resets {
    use super::*;

    #[test]
    fn forgets_those_that_ended_before_some_at_a_time_the_longest_over_first() {
        let _store = store();
        for (fingerprint, expires_at) in [("a", 99), ("b", 97), ("c", 98), ("d", 100)] {
            reset(fingerprint, 1, None, expires_at);
        }
        forget_resets(&Database, 100, 2).unwrap();
        assert_eq!(left("resets", "fingerprint"), ["a", "d"]);
        forget_resets(&Database, 100, 2).unwrap();
        assert_eq!(left("resets", "fingerprint"), ["d"]);
    }
}

mod end_resets {
    use super::*;

    #[test]
    fn ends_all_of_the_number_with_a_code_that_is_there_and_only_once() {
        let _store = store();
        reset("a", 1, Some("code"), 50);
        reset("b", 1, Some("other"), 50);
        reset("c", 1, None, 50);
        reset("d", 2, Some("code"), 50);
        assert!(!end_resets(&Database, &phone(1), &code("wrong")).unwrap());
        assert_eq!(count("resets"), 4);
        assert_eq!([(); 2].map(|()| end_resets(&Database, &phone(1), &code("code")).unwrap()), [true, false]);
        assert_eq!(left("resets", "fingerprint"), ["d"]);
    }
}

// --- Counts of codes -------------------------------------------------------------------------------------------------------------------

fn counted(key: &str) -> Option<(u64, u64, u64)> {
    code_count(&Database, key).unwrap().map(|count| (count.sent_at, count.day_started_at, count.sent_count))
}

mod code_count {
    use super::*;

    #[test]
    fn is_of_this_key_or_none() {
        let _store = store();
        count_code(&Database, "host", 10, 0).unwrap();
        assert_eq!((counted("host"), counted("address")), (Some((10, 10, 1)), None));
    }
}

mod count_code {
    use super::*;

    #[test]
    fn counts_within_the_day_and_from_one_when_it_is_over() {
        let _store = store();
        let key = "verify +1";
        for (now, expected) in
            [(1_000, (1_000, 1_000, 1)), (1_099, (1_099, 1_000, 2)), (1_100, (1_100, 1_100, 1)), (1_150, (1_150, 1_100, 2))]
        {
            count_code(&Database, key, now, now - 100).unwrap();
            assert_eq!(counted(key), Some(expected));
        }
        count_code(&Database, "verify +2", 1_150, 1_050).unwrap();
        assert_eq!((counted(key), counted("verify +2")), (Some((1_150, 1_100, 2)), Some((1_150, 1_150, 1))));
    }
}

mod forget_code_counts {
    use super::*;

    #[test]
    fn forgets_those_last_sent_before_some_at_a_time_the_oldest_first() {
        let _store = store();
        for (key, at) in [("a", 9), ("b", 7), ("c", 8), ("d", 10)] {
            count_code(&Database, key, at, 0).unwrap();
        }
        forget_code_counts(&Database, 10, 2).unwrap();
        assert_eq!(left("code_counts", "key"), ["a", "d"]);
        forget_code_counts(&Database, 10, 2).unwrap();
        assert_eq!(left("code_counts", "key"), ["d"]);
    }
}
