//! Each store function by itself, in a module of its name, on a real database with the service's tables: deleted and erased accounts.

use echo_sdk::sql::Database;

use super::*;
use crate::store::tests::*;
use crate::store::*;

mod set_state {
    use super::*;

    fn state(number: u32, deleted: bool, at: Timestamp) -> bool {
        committed(|tx| set_state(tx, &id(number), deleted, at))
    }

    #[test]
    fn knows_the_newest_change() {
        let _store = store();
        profiles([1]);
        assert!(state(1, true, 20));
        assert!(!state(1, false, 10), "late");
        assert!(!state(1, true, 20), "repeated");
        assert!(state(1, false, 30));
        assert!(!state(2, true, 40), "nobody");
    }

    /// By every question that others ask.
    #[test]
    fn a_deleted_account_is_there_for_its_owner_alone() {
        let _store = store();
        profiles([1, 2]);
        committed(|tx| replace_name_parts(tx, &id(1), &texts(&["ada"])));
        contact(2, 1);
        privacy(1, PrivacyChange { phone_visible: Some("everyone"), ..UNCHANGED });
        let seen_by = |viewer: u32| {
            let viewer = id(viewer);
            let range = ("a".to_owned(), "b".to_owned());
            [
                profile_seen_by(&viewer, &id(1)).unwrap().is_some(),
                !profiles_seen_by(&viewer, &ids([1])).unwrap().is_empty(),
                !found_by_name(&viewer, &range, &(String::new(), id(0)), 9).unwrap().is_empty(),
                !found_by_phone(&viewer, None, &[phone(1)]).unwrap().is_empty(),
                !owners_seen_by(&viewer, &ids([1])).unwrap().is_empty(),
                !contacts_of(&viewer, &(900, id(9)), 9).unwrap().is_empty(),
                contact_of(&viewer, &id(1)).unwrap().is_some(),
                !sights_of(&[(&id(1), &viewer)]).unwrap().is_empty(),
                !which_exist(&ids([1])).unwrap().is_empty(),
            ]
        };
        let before = seen_by(2);
        assert_eq!(before, [true; 9]);
        assert!(state(1, true, 20));
        assert_eq!(seen_by(2), [false; 9]);
        assert!(profile_seen_by(&id(1), &id(1)).unwrap().is_some(), "its owner, who has just had it back");
        assert!(state(1, false, 30));
        assert_eq!(seen_by(2), before);
    }
}

mod erase_person {
    use super::*;

    #[test]
    fn leaves_nothing_of_the_person_and_all_of_others() {
        let _store = store();
        profiles([1, 2, 3]);
        committed(|tx| replace_name_parts(tx, &id(1), &texts(&["ada"])));
        for (owner, other) in [(1, 2), (2, 1), (2, 3)] {
            contact(owner, other);
            blocked(owner, other);
        }
        for owner in [1, 2] {
            committed(|tx| {
                note_numbers(tx, &id(owner), &texts(&["a"]), 1)?;
                count_numbers(tx, &id(owner), 1, 1, 0, 9)
            });
        }
        for (number, user) in [(101, 1), (102, 2)] {
            reported(number, user, None, "spam", 1);
            echo_sdk::exports::open(&Database, &id(user), 1, 9).unwrap();
        }
        committed(|tx| erase_person(tx, &id(1)));
        let counts = ["profiles", "name_parts", "contacts", "blocks", "tested_numbers", "number_quotas", "reports", "open_exports"]
            .map(|table| Database.one::<(i64,)>(&format!("SELECT COUNT(*) FROM {table}"), params![]).unwrap().0);
        assert_eq!(counts, [2, 0, 1, 1, 1, 1, 1, 1]);
        assert_eq!(contacts_among(&id(2), &ids([1, 3])).unwrap(), ids([3]));
    }
}
