//! Each store function by itself, in a module of its name, on a real database with the service's tables: account exports.

use echo_sdk::sql::Transaction;

use crate::store::tests::*;
use crate::store::*;

mod contacts_after {
    use super::*;

    #[test]
    fn gives_the_owners_own_of_until_then_who_have_accounts() {
        let _store = store();
        profiles([1, 2, 3, 4, 5, 6]);
        for (user, at) in [(5, 10), (2, 10), (3, 20), (4, 10), (6, 10)] {
            put_contact(&id(1), &id(user), Some(&format!("alias {user}")), at).unwrap();
        }
        contact(2, 1);
        committed(|tx: &Transaction| set_state(tx, &id(4), true, 15));
        let found = |after: u32, until, limit| {
            let found = super::super::contacts_after(&id(1), &id(after), until, limit).unwrap();
            found.into_iter().map(|contact| (contact.seen.profile.id, contact.alias.unwrap_or_default())).collect::<Vec<_>>()
        };
        let of = |user: u32| (id(user), format!("alias {user}"));
        assert_eq!(found(0, 19, 9), [of(2), of(5), of(6)]);
        assert_eq!(found(2, 20, 2), [of(3), of(5)]);
    }
}

mod blocks_after {
    use super::*;

    #[test]
    fn gives_whom_the_user_blocked_by_then_and_blocks_still() {
        let _store = store();
        for (other, at) in [(4, 10), (2, 10), (3, 20), (5, 10)] {
            committed(|tx: &Transaction| block(tx, &id(1), &id(other), at));
        }
        blocked(2, 1);
        committed(|tx: &Transaction| unblock(tx, &id(1), &id(5)));
        let found = |after: u32, until, limit| {
            let found = super::super::blocks_after(&id(1), &id(after), until, limit).unwrap();
            found.into_iter().map(|block| block.user_id).collect::<Vec<_>>()
        };
        assert_eq!(found(0, 19, 9), ids([2, 4]));
        assert_eq!(found(2, 20, 1), ids([3]));
    }
}

mod reports_after {
    use super::*;

    #[test]
    fn gives_what_the_person_reported_by_then_by_subject() {
        let _store = store();
        reported(101, 2, None, "spam", 10);
        reported(102, 3, Some(901), "rude", 10);
        reported(103, 4, None, "later", 20);
        let found = |after: u32, until, limit| {
            let found = super::super::reports_after(&id(9), &id(after), until, limit).unwrap();
            found.into_iter().map(|report| (report.subject_id().to_owned(), report.user_id, report.reason)).collect::<Vec<_>>()
        };
        let of = |subject: u32, user: u32, reason: &str| (id(subject), id(user), reason.to_owned());
        assert_eq!(found(0, 19, 9), [of(2, 2, "spam"), of(901, 3, "rude")]);
        assert_eq!(found(2, 20, 1), [of(4, 4, "later")]);
        assert!(super::super::reports_after(&id(77), &id(0), 99, 9).unwrap().is_empty());
    }
}
