//! Each store function by itself, in a module of its name, on a real database with the service's tables: messages that wait to be sent.

use super::*;
use crate::bindings::exports::echo::message::api::MessageType;
use crate::store::fixtures::*;

fn draft(key: &str) -> SendRequest {
    SendRequest {
        conversation_id: id(91),
        client_message_id: key.to_owned(),
        type_: MessageType::Text,
        content: Some(format!("text {key}")),
        media_id: None,
        location: None,
        contact: None,
        poll: None,
        reply_to: None,
        thread_id: None,
        mentions: None,
        metadata: None,
    }
}

fn scheduled(number: u32, sender: u32, key: &str, send_at: Timestamp) -> Scheduled {
    let content_hash = vec![1, 2, 3];
    Scheduled {
        id: id(number),
        sender_id: id(sender),
        revision: 1,
        draft: draft(key),
        send_at,
        created_at: 100,
        failure: None,
        content_hash,
    }
}

fn put(number: u32, sender: u32, key: &str, send_at: Timestamp) -> bool {
    committed(|tx| insert(tx, &scheduled(number, sender, key, send_at)))
}

fn one(sender: u32, number: u32) -> Option<Scheduled> {
    one_of(&Database, &id(sender), &id(number)).unwrap()
}

fn numbers(rows: Vec<Scheduled>) -> Vec<String> {
    rows.into_iter().map(|row| row.id).collect()
}

mod insert {
    use super::*;

    #[test]
    fn keeps_all_of_a_message() {
        let _store = store();
        let full = SendRequest {
            media_id: Some(id(5)),
            location: Some(Place { latitude: 51.5, longitude: -0.125, name: Some("London".into()), address: Some("Strand".into()) }),
            contact: Some(ContactCard { name: "Ada".into(), phones: vec!["+1".into(), "+2".into()], user_id: Some(id(6)) }),
            reply_to: Some(id(7)),
            thread_id: Some(id(8)),
            mentions: Some(ids([1, 2])),
            metadata: Some("{\"a\":1}".into()),
            ..draft("a")
        };
        let poll = SendRequest {
            type_: MessageType::Poll,
            content: None,
            poll: Some(NewPoll {
                question: "Which?".into(),
                options: vec!["a".into(), "b".into()],
                multiple: Some(true),
                closes_at: Some(900),
            }),
            ..draft("b")
        };
        for (number, draft) in [(1, full), (2, poll)] {
            let new = Scheduled { draft: draft.clone(), ..scheduled(number, 1, "", 500) };
            assert!(committed(|tx| super::super::insert(tx, &new)));
            let kept = one(1, number).unwrap();
            assert_eq!(format!("{:?}", kept.draft), format!("{draft:?}"));
            assert_eq!((kept.send_at, kept.created_at, kept.revision), (500, 100, 1));
            assert_eq!((kept.failure, kept.content_hash), (None, vec![1, 2, 3]));
        }
    }

    #[test]
    fn is_false_where_the_sender_used_the_client_id() {
        let _store = store();
        assert_eq!([put(1, 1, "a", 500), put(2, 1, "a", 600), put(3, 2, "a", 500)], [true, false, true]);
    }
}

mod of_client_id {
    use super::*;

    #[test]
    fn finds_the_senders_own() {
        let _store = store();
        put(1, 1, "a", 500);
        put(2, 2, "b", 500);
        let found = |sender, key| of_client_id(&id(sender), key).unwrap().map(|row| row.id);
        assert_eq!([found(1, "a"), found(2, "b"), found(1, "b")], [Some(id(1)), Some(id(2)), None]);
    }
}

mod one_of {
    use super::*;

    #[test]
    fn is_the_senders_own() {
        let _store = store();
        put(1, 1, "a", 500);
        assert!(one_of(&Database, &id(1), &id(1)).unwrap().is_some());
        assert!(one(2, 1).is_none() && one(1, 2).is_none());
    }
}

mod of_sender {
    use super::*;

    #[test]
    fn gives_the_one_to_be_sent_next_first_after_the_key() {
        let _store = store();
        for (number, sender, send_at) in [(1, 1, 700), (2, 1, 500), (3, 1, 500), (4, 2, 400)] {
            put(number, sender, &number.to_string(), send_at);
        }
        let page = |after: (u64, String), limit| numbers(of_sender(&id(1), &after, limit).unwrap());
        assert_eq!(page((0, NIL.to_owned()), 9), ids([2, 3, 1]));
        assert_eq!(page((0, NIL.to_owned()), 2), ids([2, 3]));
        assert_eq!(page((500, id(2)), 9), ids([3, 1]));
    }
}

mod count_of {
    use super::*;

    #[test]
    fn counts_those_of_one_person() {
        let _store = store();
        for (number, sender) in [(1, 1), (2, 1), (3, 2)] {
            put(number, sender, &number.to_string(), 500);
        }
        assert_eq!([1, 2, 3].map(|sender| committed(|tx| count_of(tx, &id(sender)))), [2, 1, 0]);
    }
}

mod update {
    use super::*;

    #[test]
    fn changes_what_is_given_and_tries_again() {
        let _store = store();
        put(1, 1, "a", 500);
        fail(&id(1), 1, "not_allowed").unwrap();
        let change = |sender, content, send_at| committed(|tx| update(tx, &id(sender), &id(1), content, send_at));
        let now = || one(1, 1).map(|row| (row.draft.content.unwrap(), row.send_at, row.failure, row.revision)).unwrap();
        assert!(!change(2, Some("x"), None), "another's");
        assert_eq!(now(), ("text a".to_owned(), 500, Some("not_allowed".to_owned()), 1));
        assert!(change(1, Some("other"), None));
        assert_eq!(now(), ("other".to_owned(), 500, None, 2));
        assert!(change(1, None, Some(700)));
        assert_eq!(now(), ("other".to_owned(), 700, None, 3));
    }
}

mod cancel {
    use super::*;

    #[test]
    fn takes_ones_own_once() {
        let _store = store();
        put(1, 1, "a", 500);
        assert_eq!([2, 1, 1].map(|sender| cancel(&id(sender), &id(1)).unwrap()), [false, true, false]);
    }
}

mod due {
    use super::*;

    #[test]
    fn gives_those_whose_time_has_come_but_for_what_failed() {
        let _store = store();
        for (number, send_at) in [(1, 500), (2, 400), (3, 501), (4, 300)] {
            put(number, 1, &number.to_string(), send_at);
        }
        fail(&id(4), 1, "not_allowed").unwrap();
        assert_eq!(numbers(due(500, 9).unwrap()), ids([2, 1]));
        assert_eq!((numbers(due(500, 1).unwrap()), numbers(due(399, 9).unwrap())), (ids([2]), vec![]));
    }
}

mod take {
    use super::*;

    #[test]
    fn takes_what_is_as_it_was_read_once() {
        let _store = store();
        put(1, 1, "a", 500);
        committed(|tx| update(tx, &id(1), &id(1), Some("other"), None));
        assert_eq!([1, 2, 2].map(|revision| committed(|tx| take(tx, &id(1), revision))), [false, true, false]);
    }
}

mod forget {
    use super::*;

    #[test]
    fn leaves_what_was_changed_meanwhile() {
        let _store = store();
        put(1, 1, "a", 500);
        committed(|tx| update(tx, &id(1), &id(1), None, Some(600)));
        forget(&id(1), 1).unwrap();
        assert!(one(1, 1).is_some());
        forget(&id(1), 2).unwrap();
        assert!(one(1, 1).is_none());
    }
}

mod fail {
    use super::*;

    #[test]
    fn says_why_unless_it_was_changed_meanwhile() {
        let _store = store();
        put(1, 1, "a", 500);
        let failure = |revision| {
            fail(&id(1), revision, "not_allowed").unwrap();
            one(1, 1).unwrap().failure
        };
        assert_eq!([failure(2), failure(1)], [None, Some("not_allowed".to_owned())]);
    }
}

mod fail_all_of {
    use super::*;

    #[test]
    fn leaves_what_failed_before_and_that_of_others() {
        let _store = store();
        for (number, sender, key) in [(1, 1, "a"), (2, 1, "b"), (3, 2, "a")] {
            assert!(put(number, sender, key, 500));
        }
        fail(&id(2), 1, "not_found").unwrap();
        committed(|tx| super::super::fail_all_of(tx, &id(1), "account_deleted"));
        let failures = [(1, 1), (1, 2), (2, 3)].map(|(sender, number)| one(sender, number).unwrap().failure);
        assert_eq!(failures, [Some("account_deleted".to_owned()), Some("not_found".to_owned()), None]);
        // What a run of the schedule has read meanwhile is not sent.
        assert!(!committed(|tx| take(tx, &id(1), 1)));
        assert_eq!(numbers(due(500, 10).unwrap()), [id(3)]);
    }
}

mod fail_those_to {
    use super::*;

    #[test]
    fn leaves_other_conversations_and_other_senders() {
        let _store = store();
        for (number, sender, key) in [(1, 1, "a"), (2, 2, "a")] {
            assert!(put(number, sender, key, 500));
        }
        committed(|tx| super::super::fail_those_to(tx, &id(92), &id(1), "not_found"));
        assert_eq!(numbers(due(500, 10).unwrap()), [id(1), id(2)]);
        committed(|tx| super::super::fail_those_to(tx, &id(91), &id(1), "not_found"));
        assert_eq!(numbers(due(500, 10).unwrap()), [id(2)]);
        assert_eq!(one(1, 1).unwrap().failure.as_deref(), Some("not_found"));
        assert!(!committed(|tx| take(tx, &id(1), 1)));
    }
}

mod cancel_those_to {
    use super::*;

    #[test]
    fn leaves_other_conversations_and_other_senders() {
        let _store = store();
        for (number, sender, key) in [(1, 1, "a"), (2, 2, "a")] {
            assert!(put(number, sender, key, 500));
        }
        committed(|tx| super::super::cancel_those_to(tx, &id(92), &id(1)));
        assert!(one(1, 1).is_some());
        committed(|tx| super::super::cancel_those_to(tx, &id(91), &id(1)));
        assert!(one(1, 1).is_none() && one(2, 2).is_some());
    }
}
