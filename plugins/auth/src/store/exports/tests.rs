//! Each store function by itself, in a module of its name, on a real database with the service's tables: account exports.

use echo_sdk::sql::Database;

use super::*;
use crate::store::fixtures::*;

fn export(account: u32, number: u32, requested_at: u64, expires_at: u64) -> Export {
    Export { account_id: id(account), id: id(number), requested_at, expires_at, ready_at: None }
}

fn begun(account: u32, number: u32, requested_at: u64, expires_at: u64) {
    assert!(begin_export(&Database, &export(account, number, requested_at, expires_at), 0).unwrap());
}

fn part(account: u32, number: u32, name: &str, at: u64) {
    note_part(&Database, &id(account), &id(number), name, at).unwrap();
}

fn parts(account: u32) -> Vec<String> {
    parts_of(&Database, &id(account)).unwrap().into_iter().map(|(name, _)| name).collect()
}

mod begin_export {
    use super::*;

    #[test]
    fn takes_the_place_of_an_older_one_and_of_one_that_has_expired() {
        let _store = store();
        begun(1, 101, 100, 200);
        begun(2, 102, 100, 200);
        part(1, 101, "user", 110);
        let again =
            |number: u32, at: u64, before: u64| super::super::begin_export(&Database, &export(1, number, at, at + 100), before).unwrap();
        assert!(!again(103, 150, 99), "there is one of a while ago");
        assert_eq!((export_of(&Database, &id(1), 0).unwrap(), parts(1)), (Some(export(1, 101, 100, 200)), vec!["user".to_owned()]));
        assert!(again(104, 200, 99), "it has expired");
        assert_eq!((export_of(&Database, &id(1), 0).unwrap(), parts(1)), (Some(export(1, 104, 200, 300)), vec![]));
        assert!(again(105, 250, 200), "it is old enough");
        assert_eq!(export_of(&Database, &id(1), 0).unwrap(), Some(export(1, 105, 250, 350)));
        assert_eq!(export_of(&Database, &id(2), 0).unwrap(), Some(export(2, 102, 100, 200)));
    }
}

mod export_of {
    use super::*;

    #[test]
    fn gives_the_accounts_own_until_it_expires() {
        let _store = store();
        begun(1, 101, 100, 200);
        assert_eq!(super::super::export_of(&Database, &id(1), 199).unwrap(), Some(export(1, 101, 100, 200)));
        assert_eq!(super::super::export_of(&Database, &id(1), 200).unwrap(), None);
        assert_eq!(super::super::export_of(&Database, &id(2), 100).unwrap(), None);
    }
}

mod parts_of {
    use super::*;

    #[test]
    fn gives_the_accounts_own_with_their_times() {
        let _store = store();
        begun(1, 101, 100, 200);
        begun(2, 102, 100, 200);
        part(1, 101, "user", 120);
        part(1, 101, "media", 110);
        part(2, 102, "message", 110);
        assert_eq!(super::super::parts_of(&Database, &id(1)).unwrap(), [("media".to_owned(), 110), ("user".to_owned(), 120)]);
    }
}

mod note_part {
    use super::*;

    #[test]
    fn keeps_the_first_time_and_notes_nothing_of_another_export() {
        let _store = store();
        begun(1, 101, 100, 200);
        for (account, number, name, at) in [(1, 101, "user", 110), (1, 101, "user", 120), (1, 102, "media", 110), (2, 101, "media", 110)] {
            super::super::note_part(&Database, &id(account), &id(number), name, at).unwrap();
        }
        assert_eq!(parts_of(&Database, &id(1)).unwrap(), [("user".to_owned(), 110)]);
        assert!(parts(2).is_empty());
    }
}

mod set_export_ready {
    use super::*;

    #[test]
    fn keeps_the_first_time() {
        let _store = store();
        begun(1, 101, 100, 200);
        begun(2, 102, 100, 200);
        super::super::set_export_ready(&Database, &id(1), 130).unwrap();
        super::super::set_export_ready(&Database, &id(1), 140).unwrap();
        let ready = |account| export_of(&Database, &id(account), 0).unwrap().expect("there").ready_at;
        assert_eq!((ready(1), ready(2)), (Some(130), None));
    }
}

mod exports_to_renew {
    use super::*;

    #[test]
    fn gives_those_that_wait_the_longest_waiting_first() {
        let _store = store();
        for (account, at) in [(1, 130), (2, 110), (3, 120), (4, 110), (5, 140)] {
            begun(account, 100 + account, at, 200);
        }
        begun(6, 106, 110, 150);
        set_export_ready(&Database, &id(4), 130).unwrap();
        let found = |before, limit| {
            let found = super::super::exports_to_renew(&Database, before, 150, limit).unwrap();
            found.into_iter().map(|export| export.account_id).collect::<Vec<_>>()
        };
        assert_eq!(found(130, 9), ids([2, 3, 1]), "neither the ready one nor the expired one");
        assert_eq!(found(140, 2), ids([2, 3]));
    }
}

mod note_asked {
    use super::*;

    #[test]
    fn puts_an_export_off_until_then() {
        let _store = store();
        begun(1, 101, 100, 900);
        begun(2, 102, 100, 900);
        super::super::note_asked(&Database, &id(1), &id(101), 500).unwrap();
        super::super::note_asked(&Database, &id(2), &id(103), 500).unwrap();
        let due = |before| exports_to_renew(&Database, before, 0, 9).unwrap().len();
        assert_eq!((due(499), due(500)), (1, 2), "another export than the present one is not put off");
    }
}

mod forget_exports {
    use super::*;

    #[test]
    fn forgets_so_many_that_have_expired_with_their_parts() {
        let _store = store();
        for (account, end) in [(1, 300), (2, 200), (3, 500), (4, 400)] {
            begun(account, 100 + account, 100, end);
            part(account, 100 + account, "user", 110);
        }
        super::super::forget_exports(&Database, 400, 2).unwrap();
        assert_eq!((left("account_exports", "account_id"), left("account_export_parts", "account_id")), (ids([3, 4]), ids([3, 4])));
        super::super::forget_exports(&Database, 400, 2).unwrap();
        assert_eq!((left("account_exports", "account_id"), left("account_export_parts", "account_id")), (ids([3]), ids([3])));
    }
}
