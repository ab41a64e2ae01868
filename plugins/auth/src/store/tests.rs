//! Each store function by itself, in a module of its name, on a real database with the service's tables: accounts, sessions and sign-ins.

use echo_sdk::sql::{Database, ErrorClass};
use echo_sdk::transaction;

use super::fixtures::*;
use super::*;

// --- Accounts ------------------------------------------------------------------------------------------------------------------------

mod account_by_phone {
    use super::*;

    #[test]
    fn finds_a_confirmed_one() {
        let _store = store();
        account(1);
        unverified_account(2, 5);
        let found = account_by_phone(&Database, &phone(1)).unwrap().unwrap();
        assert_eq!((found.id, found.phone, found.verified), (id(1), phone(1), true));
        assert!(account_by_phone(&Database, &phone(2)).unwrap().is_none());
        assert!(account_by_phone(&Database, &phone(3)).unwrap().is_none());
    }
}

mod account_by_id {
    use super::*;

    #[test]
    fn gives_the_whole_account_confirmed_or_not() {
        let _store = store();
        account(1);
        unverified_account(2, 5);
        let found = account_by_id(&Database, &id(1)).unwrap().unwrap();
        assert_eq!((found.phone, found.name.as_deref(), found.password_hash.as_str()), (phone(1), Some("Ada"), "hash"));
        assert_eq!((found.country.as_deref(), found.region.as_deref()), (Some("GB"), Some("London")));
        assert_eq!((found.timezone.as_deref(), found.created_at, found.verified), (Some("Europe/London"), 7, true));
        let found = account_by_id(&Database, &id(2)).unwrap().unwrap();
        assert_eq!((found.verified, found.name), (false, None));
        assert!(account_by_id(&Database, &id(3)).unwrap().is_none());
    }
}

mod open_account {
    use super::*;

    #[test]
    fn confirms_one_of_before_and_keeps_its_id() {
        let _store = store();
        unverified_account(1, 5);
        let opened = open_account(&Database, &id(2), &phone(1), &registration("new hash"), 9).unwrap().unwrap();
        assert_eq!((opened.id, opened.password_hash.as_str(), opened.verified, opened.created_at), (id(1), "new hash", true, 5));
        assert_eq!((opened.name.as_deref(), opened.country.as_deref()), (Some("Ada"), Some("GB")));
        assert_eq!(count("accounts"), 1);
    }

    #[test]
    fn leaves_a_confirmed_one_as_it_is() {
        let _store = store();
        account(1);
        assert!(open_account(&Database, &id(2), &phone(1), &registration("other hash"), 9).unwrap().is_none());
        assert_eq!(account_by_phone(&Database, &phone(1)).unwrap().unwrap().password_hash, "hash");
    }
}

mod forget_unverified_accounts {
    use super::*;

    fn remembered(number: u32) {
        remember_password(&Database, &id(number), "hash", 5).unwrap();
        add_attempt(&Database, &id(1_000 + number), &id(number), &attempt(5, LoginOutcome::Unverified)).unwrap();
    }

    #[test]
    fn forgets_those_of_before_with_what_belongs_to_them() {
        let _store = store();
        for (number, created_at) in [(1, 9), (2, 10), (3, 11)] {
            unverified_account(number, created_at);
            remembered(number);
        }
        account(4);
        remembered(4);
        forget_unverified_accounts(&Database, 10, 100).unwrap();
        assert_eq!(left("accounts", "id"), ids([2, 3, 4]));
        assert_eq!(left("password_history", "account_id"), ids([2, 3, 4]));
        assert_eq!(left("login_attempts", "account_id"), ids([2, 3, 4]));
    }

    #[test]
    fn forgets_some_at_a_time_the_oldest_first() {
        let _store = store();
        for (number, created_at) in [(1, 3), (2, 1), (3, 2)] {
            unverified_account(number, created_at);
            remembered(number);
        }
        forget_unverified_accounts(&Database, 10, 2).unwrap();
        assert_eq!(left("accounts", "id"), ids([1]));
        forget_unverified_accounts(&Database, 10, 2).unwrap();
        assert_eq!((count("accounts"), count("password_history"), count("login_attempts")), (0, 0, 0));
    }

    #[test]
    fn forgets_the_same_ones_in_every_table_where_times_are_equal() {
        let _store = store();
        for number in [3, 1, 2] {
            unverified_account(number, 5);
            remembered(number);
        }
        for _ in 0..3 {
            forget_unverified_accounts(&Database, 10, 1).unwrap();
        }
        assert_eq!((count("accounts"), count("password_history"), count("login_attempts")), (0, 0, 0));
    }
}

mod forget_what_is_counted_no_more {
    use super::*;

    #[test]
    fn empties_the_tables_of_before_up_to_the_time() {
        let _store = store();
        for at in [9_u64, 10] {
            let key = format!("+1{at}");
            let sql = "INSERT INTO codes (phone, purpose, fingerprint, expires_at) VALUES ($1, 'verify', 'f', $2)";
            Database.execute(sql, params![&key, timestamp(at)]).unwrap();
            let sql = "INSERT INTO code_quotas (phone, sent_at, day_started_at, sent_count) VALUES ($1, $2, $2, 1)";
            Database.execute(sql, params![&key, timestamp(at)]).unwrap();
            let sql = "INSERT INTO login_failures (phone, failures, failed_at) VALUES ($1, 1, $2)";
            Database.execute(sql, params![&key, timestamp(at)]).unwrap();
        }
        forget_what_is_counted_no_more(&Database, 10).unwrap();
        for table in ["codes", "code_quotas", "login_failures"] {
            assert_eq!(left(table, "phone"), ["+110"], "{table}");
        }
    }
}

// --- Passwords -----------------------------------------------------------------------------------------------------------------------

fn password(number: u32) -> String {
    account_by_id(&Database, &id(number)).unwrap().unwrap().password_hash
}

mod swap_password {
    use super::*;

    #[test]
    fn puts_the_new_hash_in_the_old_ones_place_in_the_history_too() {
        let _store = store();
        for number in [1, 2] {
            account(number);
            for (hash, at) in [("older", 1), ("hash", 2)] {
                remember_password(&Database, &id(number), hash, at).unwrap();
            }
        }
        assert!(swap_password(&Database, &id(1), "hash", "rehash").unwrap());
        assert_eq!((password(1).as_str(), password(2).as_str()), ("rehash", "hash"));
        assert_eq!(passwords_of(&Database, &id(1), 9).unwrap(), ["rehash", "older"]);
        assert_eq!(passwords_of(&Database, &id(2), 9).unwrap(), ["hash", "older"]);
    }

    #[test]
    fn leaves_a_password_that_was_changed_meanwhile() {
        let _store = store();
        account(1);
        assert!(!swap_password(&Database, &id(1), "other", "rehash").unwrap());
        assert!(!swap_password(&Database, &id(2), "hash", "rehash").unwrap());
        assert_eq!(password(1), "hash");
    }

    #[test]
    fn takes_the_same_hash_again() {
        let _store = store();
        account(1);
        remember_password(&Database, &id(1), "hash", 2).unwrap();
        assert!(swap_password(&Database, &id(1), "hash", "hash").unwrap());
        assert_eq!((password(1), passwords_of(&Database, &id(1), 9).unwrap()), ("hash".to_owned(), vec!["hash".to_owned()]));
    }
}

mod set_password {
    use super::*;

    #[test]
    fn sets_it_once_where_the_old_one_is_there() {
        let _store = store();
        account(1);
        account(2);
        assert_eq!([(); 2].map(|()| set_password(&Database, &id(1), "hash", "new").unwrap()), [true, false]);
        assert_eq!((password(1).as_str(), password(2).as_str()), ("new", "hash"));
        assert_eq!(count("password_history"), 0);
    }
}

mod passwords_of {
    use super::*;

    #[test]
    fn gives_so_many_of_the_account_the_newest_first() {
        let _store = store();
        account(1);
        account(2);
        for (number, hash, at) in [(1, "b", 20), (1, "a", 10), (1, "c", 30), (2, "d", 40)] {
            remember_password(&Database, &id(number), hash, at).unwrap();
        }
        assert_eq!(passwords_of(&Database, &id(1), 2).unwrap(), ["c", "b"]);
        assert_eq!(passwords_of(&Database, &id(1), 9).unwrap(), ["c", "b", "a"]);
        assert!(passwords_of(&Database, &id(3), 9).unwrap().is_empty());
    }

    #[test]
    fn gives_those_of_one_moment_in_one_order() {
        let _store = store();
        account(1);
        for (number, hash) in [(2, "b"), (3, "c"), (1, "a")] {
            let sql = "INSERT INTO password_history (id, account_id, password_hash, set_at) VALUES ($1, $2, $3, $4)";
            Database.execute(sql, params![uuid(id(number)), uuid(id(1)), hash, timestamp(5)]).unwrap();
        }
        assert_eq!(passwords_of(&Database, &id(1), 2).unwrap(), ["c", "b"]);
    }
}

mod remember_password {
    use super::*;

    #[test]
    fn adds_to_the_history_the_same_one_again_too() {
        let _store = store();
        account(1);
        for at in [5, 6] {
            remember_password(&Database, &id(1), "hash", at).unwrap();
        }
        assert_eq!(passwords_of(&Database, &id(1), 9).unwrap(), ["hash", "hash"]);
        assert_eq!(remember_password(&Database, &id(2), "hash", 5).unwrap_err().class, ErrorClass::ForeignKey);
    }
}

mod trim_passwords {
    use super::*;

    #[test]
    fn keeps_the_newest_of_the_account() {
        let _store = store();
        account(1);
        account(2);
        for (hash, at) in [("b", 20), ("a", 10), ("c", 30)] {
            for number in [1, 2] {
                remember_password(&Database, &id(number), hash, at).unwrap();
            }
        }
        trim_passwords(&Database, &id(1), 2).unwrap();
        assert_eq!(passwords_of(&Database, &id(1), 9).unwrap(), ["c", "b"]);
        assert_eq!(passwords_of(&Database, &id(2), 9).unwrap(), ["c", "b", "a"]);
    }
}

// --- Sessions ----------------------------------------------------------------------------------------------------------------------------

fn session(number: u32, last_used_at: u64) -> Session {
    Session {
        id: id(number),
        device: Device {
            id: format!("device {number}"),
            name: Some("Laptop".into()),
            platform: Some("linux".into()),
            model: Some("X1".into()),
            os: Some("NixOS".into()),
            app_version: Some("1.2".into()),
        },
        place: Some("London, GB".into()),
        address: Some("192.0.2.7".into()),
        created_at: 5,
        last_used_at,
        current: false,
    }
}

fn signed_in(account: u32, number: u32, last_used_at: u64, expires_at: u64) {
    add_session(&Database, &id(account), &session(number, last_used_at), expires_at).unwrap();
}

fn live(account: u32, now: u64) -> Vec<String> {
    sessions_of(&Database, &id(account), now).unwrap().into_iter().map(|session| session.id).collect()
}

mod add_session {
    use super::*;

    #[test]
    fn keeps_all_of_it() {
        let _store = store();
        account(1);
        signed_in(1, 10, 6, 100);
        let found = sessions_of(&Database, &id(1), 50).unwrap().remove(0);
        let put = session(10, 6);
        assert_eq!((found.id, found.place, found.address), (put.id, put.place, put.address));
        assert_eq!((found.created_at, found.last_used_at, found.current), (5, 6, false));
        let texts = |device: Device| [Some(device.id), device.name, device.platform, device.model, device.os, device.app_version];
        assert_eq!(texts(found.device), texts(put.device));
    }

    #[test]
    fn takes_one_of_each_device_of_an_account() {
        let _store = store();
        account(1);
        account(2);
        signed_in(1, 10, 6, 100);
        let again = Session { id: id(11), ..session(10, 7) };
        assert_eq!(add_session(&Database, &id(1), &again, 100).unwrap_err().class, ErrorClass::UniqueViolation);
        add_session(&Database, &id(2), &again, 100).unwrap();
    }
}

mod sessions_of {
    use super::*;

    #[test]
    fn gives_the_accounts_live_ones_last_used_first() {
        let _store = store();
        account(1);
        account(2);
        for (number, last_used_at, expires_at) in [(10, 30, 100), (11, 40, 101), (12, 40, 200), (13, 50, 200)] {
            signed_in(1, number, last_used_at, expires_at);
        }
        signed_in(2, 14, 60, 200);
        assert_eq!(live(1, 99), ids([13, 12, 11, 10]));
        assert_eq!(live(1, 100), ids([13, 12, 11]));
        assert_eq!(live(1, 101), ids([13, 12]));
        assert!(live(3, 0).is_empty());
    }
}

mod touch_session {
    use super::*;

    #[test]
    fn moves_its_times_and_its_address_where_there_is_one() {
        let _store = store();
        account(1);
        signed_in(1, 10, 6, 100);
        signed_in(1, 11, 6, 100);
        for (address, kept) in [(None, "192.0.2.7"), (Some("192.0.2.8"), "192.0.2.8")] {
            assert!(touch_session(&Database, &id(10), address.map(str::to_owned), 50, 200).unwrap());
            let found = sessions_of(&Database, &id(1), 150).unwrap();
            assert_eq!(found.len(), 1, "the other one is over by then");
            assert_eq!((found[0].id.as_str(), found[0].last_used_at, found[0].address.as_deref()), (id(10).as_str(), 50, Some(kept)));
        }
        assert!(!touch_session(&Database, &id(12), None, 50, 200).unwrap());
    }
}

mod end_sessions {
    use super::*;

    fn ended(which: &Ending) -> (Vec<String>, Vec<String>) {
        let _store = store();
        account(1);
        account(2);
        for (number, last_used_at, expires_at) in [(10, 30, 100), (11, 20, 200), (12, 40, 300)] {
            signed_in(1, number, last_used_at, expires_at);
        }
        signed_in(2, 20, 10, 50);
        let mut ended = end_sessions(&Database, &id(1), which).unwrap();
        ended.sort_unstable();
        assert_eq!(live(2, 0), ids([20]), "of another account");
        (ended, left("sessions", "id").into_iter().filter(|left| *left != id(20)).collect())
    }

    #[test]
    fn ends_those_that_are_meant_and_says_which() {
        for (which, expected, kept) in [
            (Ending::One(&id(10)), vec![10], vec![11, 12]),
            (Ending::One(&id(20)), vec![], vec![10, 11, 12]),
            (Ending::AllBut(&id(10)), vec![11, 12], vec![10]),
            (Ending::All, vec![10, 11, 12], vec![]),
            (Ending::OfDevice("device 11"), vec![11], vec![10, 12]),
            (Ending::OfDevice("device 20"), vec![], vec![10, 11, 12]),
            (Ending::Expired(99), vec![], vec![10, 11, 12]),
            (Ending::Expired(200), vec![10, 11], vec![12]),
            (Ending::AllButNewest(2), vec![11], vec![10, 12]),
            (Ending::AllButNewest(3), vec![], vec![10, 11, 12]),
            (Ending::AllButNewest(0), vec![10, 11, 12], vec![]),
        ] {
            assert_eq!(ended(&which), (ids(expected), ids(kept)));
        }
    }

    #[test]
    fn takes_their_refresh_tokens_with_them() {
        let _store = store();
        account(1);
        signed_in(1, 10, 5, 100);
        signed_in(1, 11, 5, 100);
        for (token, of) in [("a", 10), ("b", 11)] {
            add_refresh_token(&Database, token, &id(of), None, 100).unwrap();
        }
        end_sessions(&Database, &id(1), &Ending::One(&id(10))).unwrap();
        assert_eq!(left("refresh_tokens", "fingerprint"), ["b"]);
    }
}

mod accounts_with_expired_sessions {
    use super::*;

    #[test]
    fn names_each_account_once_the_longest_over_first() {
        let _store = store();
        for (number, expires_at) in [(1, 30), (2, 10), (3, 20), (4, 31)] {
            account(number);
            signed_in(number, 10 + number, 5, expires_at);
        }
        signed_in(1, 25, 5, 25);
        assert_eq!(accounts_with_expired_sessions(&Database, 30, 9).unwrap(), ids([2, 3, 1]));
        assert!(accounts_with_expired_sessions(&Database, 9, 9).unwrap().is_empty());
    }

    #[test]
    fn names_some_at_a_time() {
        let _store = store();
        for number in 1..=3 {
            account(number);
            signed_in(number, 10 + number, 5, u64::from(10 - number));
        }
        assert_eq!(accounts_with_expired_sessions(&Database, 30, 2).unwrap(), ids([3, 2]));
    }
}

// --- Refresh tokens ------------------------------------------------------------------------------------------------------------------------

/// Accounts 1 and 2 with the sessions 10 and 20.
fn with_sessions() {
    for (number, of) in [(10, 1), (20, 2)] {
        account(of);
        signed_in(of, number, 5, 100);
    }
}

mod refresh_token {
    use super::*;

    #[test]
    fn comes_with_its_session_used_or_not() {
        let _store = store();
        with_sessions();
        add_refresh_token(&Database, "a", &id(10), None, 100).unwrap();
        for _ in 0..2 {
            let kept = refresh_token(&Database, "a").unwrap().unwrap();
            assert_eq!((kept.session_id, kept.account_id, kept.device_id.as_str()), (id(10), id(1), "device 10"));
            assert_eq!(kept.expires_at, 100);
            use_refresh_token(&Database, "a", 50).unwrap();
        }
        assert!(refresh_token(&Database, "b").unwrap().is_none());
    }
}

mod use_refresh_token {
    use super::*;

    #[test]
    fn uses_one_once() {
        let _store = store();
        with_sessions();
        for token in ["a", "b"] {
            add_refresh_token(&Database, token, &id(10), None, 100).unwrap();
        }
        assert_eq!([50, 60].map(|at| use_refresh_token(&Database, "a", at).unwrap()), [true, false]);
        assert!(!use_refresh_token(&Database, "c", 50).unwrap());
        let used = ["a", "b", "c"].map(|token| refresh_token_used_at(&Database, token).unwrap());
        assert_eq!(used, [Some(50), None, None]);
    }
}

mod refresh_token_used_at {
    use super::*;

    #[test]
    fn is_none_while_it_is_unused_or_unknown() {
        let _store = store();
        with_sessions();
        add_refresh_token(&Database, "a", &id(10), None, 100).unwrap();
        assert_eq!(refresh_token_used_at(&Database, "a").unwrap(), None);
        assert_eq!(refresh_token_used_at(&Database, "b").unwrap(), None);
        use_refresh_token(&Database, "a", 50).unwrap();
        assert_eq!(refresh_token_used_at(&Database, "a").unwrap(), Some(50));
    }
}

mod end_unused_successor {
    use super::*;

    #[test]
    fn ends_the_one_that_nobody_has_used() {
        let _store = store();
        with_sessions();
        add_refresh_token(&Database, "a", &id(10), None, 100).unwrap();
        assert!(!end_unused_successor(&Database, "a").unwrap(), "there is none");
        add_refresh_token(&Database, "b", &id(10), Some("a"), 100).unwrap();
        add_refresh_token(&Database, "d", &id(20), Some("c"), 100).unwrap();
        assert_eq!([(); 2].map(|()| end_unused_successor(&Database, "a").unwrap()), [true, false]);
        assert_eq!(left("refresh_tokens", "fingerprint"), ["a", "d"]);
    }

    #[test]
    fn leaves_one_that_was_used() {
        let _store = store();
        with_sessions();
        add_refresh_token(&Database, "a", &id(10), None, 100).unwrap();
        add_refresh_token(&Database, "b", &id(10), Some("a"), 100).unwrap();
        use_refresh_token(&Database, "b", 50).unwrap();
        assert!(!end_unused_successor(&Database, "a").unwrap());
        assert_eq!(left("refresh_tokens", "fingerprint"), ["a", "b"]);
    }
}

mod add_refresh_token {
    use super::*;

    #[test]
    fn takes_a_fingerprint_once_and_of_a_live_session() {
        let _store = store();
        with_sessions();
        let class = |token, session| add_refresh_token(&Database, token, &id(session), None, 100).map_err(|error| error.class);
        assert_eq!(class("a", 10), Ok(()));
        assert_eq!(class("a", 20), Err(ErrorClass::UniqueViolation));
        assert_eq!(class("b", 30), Err(ErrorClass::ForeignKey));
    }
}

mod forget_refresh_tokens {
    use super::*;

    #[test]
    fn forgets_those_of_the_session_that_are_over() {
        let _store = store();
        with_sessions();
        for (token, session, expires_at) in [("a", 10, 49), ("b", 10, 50), ("c", 10, 51), ("d", 20, 49)] {
            add_refresh_token(&Database, token, &id(session), None, expires_at).unwrap();
        }
        forget_refresh_tokens(&Database, &id(10), 50).unwrap();
        assert_eq!(left("refresh_tokens", "fingerprint"), ["c", "d"]);
    }
}

// --- History of sign-ins -------------------------------------------------------------------------------------------------------------------

fn attempt(at: u64, outcome: LoginOutcome) -> LoginAttempt {
    LoginAttempt {
        at,
        outcome,
        device_id: "laptop".into(),
        address: Some("192.0.2.7".into()),
        user_agent: Some("curl".into()),
        provider: Some("company".into()),
    }
}

fn attempted(account: u32, number: u32, at: u64, outcome: LoginOutcome) {
    add_attempt(&Database, &id(number), &id(account), &attempt(at, outcome)).unwrap();
}

fn page(limit: u32, after: Option<(u64, u32)>) -> Page<(u64, Id)> {
    Page { limit, after: after.map(|(at, number)| (at, Id(id(number)))) }
}

mod add_attempt {
    use super::*;

    #[test]
    fn keeps_all_of_it_whatever_the_outcome() {
        let _store = store();
        account(1);
        let outcomes = [LoginOutcome::Succeeded, LoginOutcome::WrongPassword, LoginOutcome::Locked, LoginOutcome::Unverified];
        for (number, outcome) in outcomes.into_iter().enumerate() {
            attempted(1, number as u32, 10 - number as u64, outcome);
        }
        let bare = LoginAttempt { address: None, user_agent: None, provider: None, ..attempt(1, LoginOutcome::Succeeded) };
        add_attempt(&Database, &id(9), &id(1), &bare).unwrap();
        let found = attempts_of(&Database, &id(1), &page(9, None)).unwrap();
        for ((key, found), (number, outcome)) in found.iter().zip(outcomes.into_iter().enumerate()) {
            assert_eq!((key, found.at, found.outcome), (&id(number as u32), 10 - number as u64, outcome));
            assert_eq!((found.device_id.as_str(), found.address.as_deref()), ("laptop", Some("192.0.2.7")));
            assert_eq!((found.user_agent.as_deref(), found.provider.as_deref()), (Some("curl"), Some("company")));
        }
        let bare = &found[4].1;
        assert_eq!((bare.address.as_deref(), bare.user_agent.as_deref(), bare.provider.as_deref()), (None, None, None));
    }
}

mod attempts_of {
    use super::*;

    #[test]
    fn gives_the_accounts_own_newest_first_page_by_page_and_one_more() {
        let _store = store();
        account(1);
        account(2);
        for (number, at) in [(11, 10), (12, 20), (13, 20), (14, 30)] {
            attempted(1, number, at, LoginOutcome::Succeeded);
        }
        attempted(2, 15, 40, LoginOutcome::Succeeded);
        let keys = |page: &Page<(u64, Id)>| -> Vec<String> {
            attempts_of(&Database, &id(1), page).unwrap().into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(&page(1, None)), ids([14, 13]));
        assert_eq!(keys(&page(1, Some((20, 13)))), ids([12, 11]));
        assert_eq!(keys(&page(1, Some((10, 11)))), ids([]));
    }
}

mod settle_attempt {
    use super::*;

    #[test]
    fn changes_the_outcome_of_this_one() {
        let _store = store();
        account(1);
        attempted(1, 11, 10, LoginOutcome::WrongPassword);
        attempted(1, 12, 9, LoginOutcome::WrongPassword);
        settle_attempt(&Database, &id(11), LoginOutcome::Succeeded).unwrap();
        let found = attempts_of(&Database, &id(1), &page(9, None)).unwrap();
        assert_eq!([found[0].1.outcome, found[1].1.outcome], [LoginOutcome::Succeeded, LoginOutcome::WrongPassword]);
    }
}

mod forget_attempt {
    use super::*;

    #[test]
    fn forgets_this_one() {
        let _store = store();
        account(1);
        attempted(1, 11, 10, LoginOutcome::WrongPassword);
        attempted(1, 12, 10, LoginOutcome::WrongPassword);
        forget_attempt(&Database, &id(11)).unwrap();
        assert_eq!(left("login_attempts", "id"), ids([12]));
    }
}

mod locked_attempts_since {
    use super::*;

    #[test]
    fn counts_those_that_a_lock_turned_away_after_the_time() {
        let _store = store();
        account(1);
        account(2);
        for (number, at) in [(11, 10), (12, 11), (13, 12)] {
            attempted(1, number, at, LoginOutcome::Locked);
        }
        attempted(1, 14, 12, LoginOutcome::WrongPassword);
        attempted(2, 15, 12, LoginOutcome::Locked);
        assert_eq!([9, 10, 12].map(|since| locked_attempts_since(&Database, &id(1), since).unwrap()), [3, 2, 0]);
    }
}

mod forget_attempts {
    use super::*;

    #[test]
    fn keeps_as_many_of_those_that_succeeded_and_of_those_that_did_not() {
        let _store = store();
        account(1);
        account(2);
        for number in 1..=4 {
            attempted(1, 10 + number, 100 + u64::from(number), LoginOutcome::Succeeded);
            attempted(2, 20 + number, 100 + u64::from(number), LoginOutcome::Succeeded);
        }
        for (number, outcome) in [(1, LoginOutcome::Locked), (2, LoginOutcome::WrongPassword), (3, LoginOutcome::Unverified)] {
            attempted(1, 30 + number, 100 + u64::from(number), outcome);
        }
        forget_attempts(&Database, &id(1), 0, 2).unwrap();
        assert_eq!(left("login_attempts", "id"), ids([13, 14, 21, 22, 23, 24, 32, 33]));
    }

    #[test]
    fn keeps_no_more_than_that_where_times_are_equal() {
        let _store = store();
        account(1);
        for number in 11..=13 {
            attempted(1, number, 100, LoginOutcome::Succeeded);
        }
        forget_attempts(&Database, &id(1), 0, 2).unwrap();
        assert_eq!(left("login_attempts", "id"), ids([12, 13]));
    }

    #[test]
    fn forgets_what_is_too_old_of_this_account() {
        let _store = store();
        account(1);
        account(2);
        for (number, at) in [(11, 9), (12, 10)] {
            attempted(1, number, at, LoginOutcome::Succeeded);
        }
        attempted(2, 21, 9, LoginOutcome::Succeeded);
        forget_attempts(&Database, &id(1), 10, 9).unwrap();
        assert_eq!(left("login_attempts", "id"), ids([12, 21]));
    }
}

mod forget_old_attempts {
    use super::*;

    #[test]
    fn forgets_those_of_before_of_all_accounts_some_at_a_time_the_oldest_first() {
        let _store = store();
        for (number, at) in [(1, 8), (2, 7), (3, 9), (4, 10)] {
            account(number);
            attempted(number, 10 + number, at, LoginOutcome::Succeeded);
        }
        forget_old_attempts(&Database, 10, 2).unwrap();
        assert_eq!(left("login_attempts", "id"), ids([13, 14]));
        forget_old_attempts(&Database, 10, 2).unwrap();
        assert_eq!(left("login_attempts", "id"), ids([14]));
    }

    #[test]
    fn goes_with_its_transaction() {
        let _store = store();
        account(1);
        attempted(1, 11, 8, LoginOutcome::Succeeded);
        let undone: Result<(), SqlError> = transaction(|tx| {
            forget_old_attempts(tx, 10, 9)?;
            forget_attempt(tx, "no uuid")
        });
        undone.unwrap_err();
        assert_eq!(count("login_attempts"), 1);
    }
}
