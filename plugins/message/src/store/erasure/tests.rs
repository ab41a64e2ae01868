//! Each store function by itself, in a module of its name, on a real database with the service's tables: people whose accounts were erased.

use super::*;
use crate::store::conversations::delete_participant;
use crate::store::fixtures::*;
use crate::store::marks::star;
use crate::store::messages::{take_expired, visible_to};

mod expire_messages_of {
    use super::*;

    #[test]
    fn makes_so_many_of_the_senders_own_disappear() {
        let _store = store();
        group(91, [1, 2]);
        let own: Vec<_> = [None, Some(5_000), None].map(|expires| said(91, 1, 100, expires)).into();
        let other = said(91, 2, 100, None);
        let expired = |limit| committed(|tx| expire_messages_of(tx, &id(1), 1_000, limit));
        assert_eq!([expired(2), expired(2), expired(2)], [2, 1, 0]);
        let seen = |id_of: &str| visible_to(&Database, &id(2), id_of, 1_000).unwrap().is_some_and(|message| message.deleted_at.is_none());
        assert!(own.iter().all(|message| !seen(&message.id)) && seen(&other.id));
        assert_eq!(committed(|tx| take_expired(tx, 1_000, 10)).len(), 3);
        assert_eq!(expired(2), 0);
    }
}

mod group_of {
    use super::*;

    #[test]
    fn gives_one_that_goes_on_until_none_is_left() {
        let _store = store();
        group(91, [1, 2]);
        group(92, [1]);
        ended(92);
        group(93, [2]);
        assert_eq!(group_of(&id(1)).unwrap(), Some(id(91)));
        committed(|tx| delete_participant(tx, &id(91), &id(1)));
        assert_eq!(group_of(&id(1)).unwrap(), None);
    }
}

mod forget_marks_of {
    use super::*;

    #[test]
    fn forgets_the_users_own() {
        let _store = store();
        group(91, [1, 2]);
        let message = said(91, 2, 100, None);
        for user in [1, 2] {
            reacted(&message, user, "\u{1f44d}", 200);
            star(&id(user), &message.id, 200).unwrap();
            drafted(91, user, "begun");
        }
        blocked(1, 3);
        blocked(2, 3);
        committed(|tx| forget_marks_of(tx, &id(1)));
        assert_eq!(["reactions", "starred", "drafts", "blocks"].map(count), [1, 1, 1, 1]);
        committed(|tx| forget_marks_of(tx, &id(2)));
        assert_eq!(["reactions", "starred", "drafts", "blocks"].map(count), [0, 0, 0, 0]);
    }
}
