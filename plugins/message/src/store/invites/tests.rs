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
