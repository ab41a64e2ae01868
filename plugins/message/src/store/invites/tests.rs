//! Each store function by itself, in a module of its name, on a real database with the service's tables: links to conversations.

use super::*;
use crate::store::fixtures::*;

fn invite(code: &str, expires_at: Option<Timestamp>, uses_max: Option<u32>) -> Invite {
    let (conversation_id, created_by, code) = (id(91), id(1), code.to_owned());
    Invite { code, conversation_id, created_by, created_at: 100, expires_at, uses_max, uses: 0 }
}

fn put(code: &str, expires_at: Option<Timestamp>, uses_max: Option<u32>) {
    committed(|tx| insert(tx, &invite(code, expires_at, uses_max)));
}

fn used(code: &str, now: Timestamp) -> bool {
    committed(|tx| use_once(tx, code, now))
}

/// `(code, uses)`.
fn kept(conversation: u32) -> Vec<(String, u32)> {
    of(&Database, &id(conversation)).unwrap().into_iter().map(|invite| (invite.code, invite.uses)).collect()
}

mod insert {
    use super::*;

    #[test]
    fn keeps_its_end_and_its_count() {
        let _store = store();
        group(91, [1]);
        put("a", Some(500), Some(3));
        let kept = of(&Database, &id(91)).unwrap().remove(0);
        assert_eq!((kept.code.as_str(), kept.conversation_id, kept.created_by), ("a", id(91), id(1)));
        assert_eq!((kept.created_at, kept.expires_at, kept.uses_max, kept.uses), (100, Some(500), Some(3), 0));
    }
}

mod clear_away {
    use super::*;

    #[test]
    fn takes_those_that_are_over_or_used_up() {
        let _store = store();
        group(91, [1]);
        put("over", Some(500), None);
        put("used", None, Some(1));
        put("ahead", Some(501), Some(2));
        put("open", None, None);
        for code in ["used", "ahead", "open"] {
            assert!(used(code, 200));
        }
        committed(|tx| clear_away(tx, &id(92), 500));
        assert_eq!(kept(91).len(), 4, "of another conversation");
        committed(|tx| clear_away(tx, &id(91), 500));
        assert_eq!(kept(91), [("ahead".to_owned(), 1), ("open".to_owned(), 1)]);
    }
}

mod of {
    use super::*;

    #[test]
    fn gives_those_of_the_conversation_the_oldest_first() {
        let _store = store();
        group(91, [1]);
        for (code, created_at) in [("b", 200), ("c", 100), ("a", 200)] {
            committed(|tx| super::super::insert(tx, &Invite { created_at, ..invite(code, None, None) }));
        }
        assert_eq!(kept(91).into_iter().map(|(code, _)| code).collect::<Vec<_>>(), ["c", "a", "b"]);
        assert!(of(&Database, &id(92)).unwrap().is_empty());
    }
}

mod delete {
    use super::*;

    #[test]
    fn takes_one_of_this_conversation_once() {
        let _store = store();
        group(91, [1]);
        put("a", None, None);
        put("b", None, None);
        assert_eq!([(92, "a"), (91, "a"), (91, "a")].map(|(of, code)| delete(&id(of), code).unwrap()), [false, true, false]);
        assert_eq!(kept(91), [("b".to_owned(), 0)]);
    }
}

mod conversation_of {
    use super::*;

    #[test]
    fn is_where_the_link_leads_to_also_when_it_is_used_up() {
        let _store = store();
        group(91, [1]);
        put("once", None, Some(1));
        let leads = |code| conversation_of(code).unwrap();
        assert_eq!([leads("once"), leads("none")], [Some(id(91)), None]);
        assert!(used("once", 900));
        assert_eq!(leads("once"), Some(id(91)));
    }

    #[test]
    fn is_none_while_the_account_of_its_maker_is_deleted() {
        let _store = store();
        group(91, [1]);
        put("a", None, None);
        let state = |deleted, at| committed(|tx| crate::store::erasure::set_state(tx, &id(1), deleted, at));
        assert!(state(true, 200));
        assert_eq!(conversation_of("a").unwrap(), None);
        assert!(state(false, 300));
        assert_eq!(conversation_of("a").unwrap(), Some(id(91)));
    }
}

mod use_once {
    use super::*;

    #[test]
    fn counts_as_many_as_may_join_until_the_end() {
        let _store = store();
        group(91, [1]);
        put("two", Some(500), Some(2));
        put("any", None, None);
        assert_eq!([100, 499, 499].map(|now| used("two", now)), [true, true, false]);
        assert!(used("any", 900) && used("any", 900));
        assert_eq!(kept(91), [("any".to_owned(), 2), ("two".to_owned(), 2)]);
        put("over", Some(500), None);
        assert!(!used("over", 500) && !used("none", 1));
    }
}

mod keeps_out {
    use super::*;
    use crate::store::conversations::{forget_removed, note_removed};

    fn kept_out(users: &[u32]) -> Vec<bool> {
        users.iter().map(|user| committed(|tx| super::super::keeps_out(tx, "a", &id(*user)))).collect()
    }

    #[test]
    fn whoever_was_removed_until_they_are_let_in_again() {
        let _store = store();
        group(91, [1, 2]);
        group(92, [1]);
        put("a", None, None);
        committed(|tx| note_removed(tx, &id(91), &id(3), 200));
        committed(|tx| note_removed(tx, &id(92), &id(4), 200));
        assert_eq!(kept_out(&[3, 4]), [true, false]);
        committed(|tx| forget_removed(tx, &id(91), &[id(3)]));
        assert_eq!(kept_out(&[3, 4]), [false, false]);
    }

    #[test]
    fn whom_the_owner_or_the_maker_of_the_link_blocks() {
        let _store = store();
        group(91, [1, 2, 5]);
        committed(|tx| {
            crate::store::conversations::set_role(tx, &id(91), &id(5), crate::bindings::exports::echo::message::api::Role::Owner)
        });
        put("a", None, None);
        blocked(1, 3);
        blocked(5, 4);
        blocked(2, 6);
        blocked(3, 5);
        assert_eq!(kept_out(&[3, 4, 6, 7]), [true, true, false, false]);
        unblocked(1, 3);
        assert_eq!(kept_out(&[3]), [false]);
    }
}
