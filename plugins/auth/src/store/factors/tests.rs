//! Each store function by itself, in a module of its name, on a real database with the service's tables: the second factor.

use echo_sdk::sql::Database;

use super::*;
use crate::store::fixtures::*;

fn started(number: u32, seed: &str, at: u64) -> bool {
    start_factor(&Database, &id(number), seed, at).unwrap()
}

fn confirmed(number: u32, seed: &str) {
    account(number);
    assert!(started(number, seed, 1));
    assert!(confirm_factor(&Database, &id(number), seed, 10, 2).unwrap());
}

fn seed(number: u32) -> Option<String> {
    factor_of(&Database, &id(number)).unwrap().map(|factor| factor.seed)
}

fn codes(number: u32, codes: &[&str]) {
    let codes: Vec<String> = codes.iter().map(|code| (*code).to_owned()).collect();
    put_recovery_codes(&Database, &id(number), &codes).unwrap();
}

mod factor_of {
    use super::*;

    #[test]
    fn is_of_a_confirmed_one() {
        let _store = store();
        confirmed(1, "one");
        account(2);
        started(2, "two", 1);
        assert_eq!([seed(1), seed(2), seed(3)], [Some("one".to_owned()), None, None]);
    }
}

mod start_factor {
    use super::*;

    #[test]
    fn replaces_what_was_not_confirmed_and_nothing_else() {
        let _store = store();
        account(1);
        assert!(started(1, "one", 1));
        assert!(started(1, "two", 5));
        assert_eq!(unconfirmed_factor(&Database, &id(1), 4).unwrap().as_deref(), Some("two"));
        confirmed(2, "three");
        assert!(!started(2, "four", 5));
        assert_eq!(seed(2).as_deref(), Some("three"));
    }
}

mod unconfirmed_factor {
    use super::*;

    #[test]
    fn waits_for_a_while_and_until_it_is_confirmed() {
        let _store = store();
        account(1);
        started(1, "one", 5);
        let waiting = |after| unconfirmed_factor(&Database, &id(1), after).unwrap();
        assert_eq!([waiting(4), waiting(5)], [Some("one".to_owned()), None]);
        assert!(confirm_factor(&Database, &id(1), "one", 10, 6).unwrap());
        assert_eq!(waiting(4), None);
    }
}

mod confirm_factor {
    use super::*;

    #[test]
    fn confirms_this_one_once_and_uses_its_code() {
        let _store = store();
        account(1);
        started(1, "one", 1);
        assert!(!confirm_factor(&Database, &id(1), "other", 10, 2).unwrap());
        assert!(confirm_factor(&Database, &id(1), "one", 10, 2).unwrap());
        assert!(!confirm_factor(&Database, &id(1), "one", 11, 3).unwrap());
        assert!(!take_step(&Database, &id(1), "one", 10).unwrap());
    }
}

mod take_step {
    use super::*;

    #[test]
    fn goes_forward_only() {
        let _store = store();
        confirmed(1, "one");
        let taken = |step| take_step(&Database, &id(1), "one", step).unwrap();
        assert_eq!([taken(12), taken(12), taken(11), taken(13)], [true, false, false, true]);
        assert!(!take_step(&Database, &id(1), "another", 20).unwrap());
    }
}

mod end_factor {
    use super::*;

    #[test]
    fn ends_the_accounts_own_with_its_recovery_codes() {
        let _store = store();
        for number in [1, 2] {
            confirmed(number, "seed");
            codes(number, &["a", "b"]);
        }
        end_factor(&Database, &id(1)).unwrap();
        assert_eq!([seed(1), seed(2)], [None, Some("seed".to_owned())]);
        assert_eq!(count("recovery_codes"), 2);
        assert!(take_recovery_code(&Database, &id(2), "a").unwrap());
    }
}

mod put_recovery_codes {
    use super::*;

    #[test]
    fn replaces_those_of_before() {
        let _store = store();
        account(1);
        account(2);
        codes(2, &["a"]);
        codes(1, &["a", "b"]);
        codes(1, &["c"]);
        assert_eq!(left("recovery_codes", "fingerprint"), ["a", "c"]);
        codes(1, &[]);
        assert_eq!(left("recovery_codes", "fingerprint"), ["a"]);
    }
}

mod take_recovery_code {
    use super::*;

    #[test]
    fn is_good_once_and_for_its_account() {
        let _store = store();
        account(1);
        account(2);
        codes(1, &["a", "b"]);
        let taken = |number, code| take_recovery_code(&Database, &id(number), code).unwrap();
        assert_eq!([taken(2, "a"), taken(1, "a"), taken(1, "a"), taken(1, "c")], [false, true, false, false]);
        assert_eq!(left("recovery_codes", "fingerprint"), ["b"]);
    }
}

mod forget_unconfirmed_factors {
    use super::*;

    #[test]
    fn forgets_so_many_old_ones_that_nobody_confirmed() {
        let _store = store();
        confirmed(1, "kept");
        for (number, at) in [(2, 10), (3, 11), (4, 12), (5, 20)] {
            account(number);
            started(number, "waits", at);
        }
        forget_unconfirmed_factors(&Database, 20, 2).unwrap();
        assert_eq!(left("second_factors", "account_id"), ids([1, 4, 5]));
        forget_unconfirmed_factors(&Database, 20, 2).unwrap();
        assert_eq!(left("second_factors", "account_id"), ids([1, 5]));
    }
}
