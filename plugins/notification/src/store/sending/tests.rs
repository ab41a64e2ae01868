//! Each function by itself, in a module of its name, on a real database with the service's tables.

use echo_sdk::transaction;

use super::*;
use crate::store::tests::{committed, device, id, ids, recipients, row, store, tokens_of};
use crate::store::{Outgoing, delete_device, delete_outgoing, insert_outgoing, set_body};

fn to_send(number: u32, at: Timestamp) -> (String, Outgoing) {
    (id(number), Outgoing { send_at: Some(at), ..row(number, Some(91), at).1 })
}

fn due_push_ids(now: Timestamp) -> Vec<String> {
    due_pushes(now).unwrap().into_iter().map(|push| push.id).collect()
}

mod due_pushes {
    use super::*;

    #[test]
    fn are_those_whose_time_has_come_the_longest_waiting_first() {
        let _store = store();
        insert_outgoing(&Database, &[to_send(1, 30), to_send(2, 10), to_send(3, 31), row(4, Some(91), 5)]).unwrap();
        assert_eq!(due_push_ids(30), ids([2, 1]));
        let push = due_pushes(10).unwrap().remove(0);
        assert_eq!((push.provider.as_str(), push.token.as_str(), push.token_hash.as_str()), ("fcm", "t2", "h02"));
        assert_eq!((push.tries, push.send_at), (0, 10));
        assert_eq!((push.message_id, push.conversation_id), (id(91), id(70)));
    }

    #[test]
    fn are_as_many_as_are_sent_at_once() {
        let _store = store();
        insert_outgoing(&Database, &(1..=PUSHES_AT_ONCE + 1).map(|number| to_send(number, 1)).collect::<Vec<_>>()).unwrap();
        assert_eq!(due_push_ids(1).len(), PUSHES_AT_ONCE as usize);
    }
}

mod claim_push {
    use super::*;

    #[test]
    fn is_one_runs_alone_until_its_time() {
        let _store = store();
        device(1, 1, 1, 5);
        insert_outgoing(&Database, &[to_send(1, 10)]).unwrap();
        let push = due_pushes(10).unwrap().remove(0);
        let claim = || transaction(|tx| claim_push(tx, &push, 50)).unwrap();
        assert_eq!((claim(), claim()), (true, false));
        assert!(due_push_ids(49).is_empty());
        assert_eq!(due_pushes(50).unwrap()[0].tries, 1);
    }

    #[test]
    fn fails_where_the_push_was_deleted_or_says_something_else() {
        let _store = store();
        device(1, 1, 1, 5);
        device(2, 1, 1, 5);
        insert_outgoing(&Database, &[to_send(1, 10), (id(2), Outgoing { message_id: Some(id(92)), ..to_send(2, 10).1 })]).unwrap();
        let due = due_pushes(10).unwrap();
        committed(|tx| set_body(tx, &id(91), "Edited"));
        committed(|tx| delete_outgoing(tx, &ids([92])));
        assert!(due.iter().all(|push| !transaction(|tx| claim_push(tx, push, 50)).unwrap()));
        assert_eq!(recipients(), ["t1"]);
    }

    #[test]
    fn drops_a_push_whose_device_is_no_more_or_of_somebody_else() {
        let _store = store();
        device(1, 1, 1, 5);
        device(2, 2, 2, 5);
        device(3, 1, 1, 5);
        insert_outgoing(&Database, &[to_send(1, 10), to_send(2, 10), to_send(3, 10)]).unwrap();
        delete_device("h03", &id(1)).unwrap();
        let due = due_pushes(10).unwrap();
        let claimed = due.iter().filter(|push| transaction(|tx| claim_push(tx, push, 50)).unwrap());
        assert_eq!(claimed.map(|push| push.token.as_str()).collect::<Vec<_>>(), ["t1"]);
        assert_eq!(recipients(), ["t1"]);
    }
}

mod set_sent {
    use super::*;

    #[test]
    fn keeps_the_row_and_sends_it_no_more() {
        let _store = store();
        insert_outgoing(&Database, &[to_send(1, 10)]).unwrap();
        committed(|tx| set_sent(tx, &id(1)));
        assert_eq!((due_push_ids(99), recipients()), (vec![], vec!["t1".to_owned()]));
    }
}

mod set_send_at {
    use super::*;

    #[test]
    fn sends_it_then() {
        let _store = store();
        insert_outgoing(&Database, &[to_send(1, 10)]).unwrap();
        committed(|tx| set_send_at(tx, &id(1), 20));
        assert_eq!((due_push_ids(19), due_push_ids(20)), (vec![], ids([1])));
    }
}

mod delete_push {
    use super::*;

    #[test]
    fn deletes_this_one() {
        let _store = store();
        insert_outgoing(&Database, &[to_send(1, 10), to_send(2, 20)]).unwrap();
        committed(|tx| delete_push(tx, &id(1)));
        assert_eq!(recipients(), ["t2"]);
    }
}

mod forget_token {
    use super::*;

    #[test]
    fn takes_what_is_to_be_pushed_along_unless_it_was_registered_since() {
        let _store = store();
        device(1, 1, 1, 10);
        device(2, 1, 1, 30);
        insert_outgoing(&Database, &[to_send(1, 20), to_send(2, 20)]).unwrap();
        committed(|tx| forget_token(tx, "h01", 20));
        committed(|tx| forget_token(tx, "h02", 20));
        assert_eq!((tokens_of(1), recipients()), (vec!["t02".to_owned()], vec!["t2".to_owned()]));
    }
}
