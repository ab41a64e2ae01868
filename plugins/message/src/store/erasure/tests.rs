//! Each store function by itself, in a module of its name, on a real database with the service's tables: people whose accounts were erased.

use super::*;
use crate::store::conversations::{delete_participant, note_removed};
use crate::store::fixtures::*;
use crate::store::marks::star;
use crate::store::messages::{take_expired, visible_to};

mod set_state {
    use super::*;

    #[test]
    fn knows_the_newest_change() {
        let _store = store();
        let set = |deleted, at| committed(|tx| super::super::set_state(tx, &id(1), deleted, at));
        assert!(set(true, 20));
        assert!(!set(false, 10), "late");
        assert!(!set(true, 20), "repeated");
        assert!(set(false, 30));
        assert_eq!(count("account_states"), 1);
    }
}

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
    use crate::bindings::exports::echo::message::api::{Invite, MessageType, SendRequest};
    use crate::store::invites;
    use crate::store::scheduled::{self, Scheduled};

    fn waiting(sender: u32) -> Scheduled {
        let draft = SendRequest {
            conversation_id: id(91),
            client_message_id: "later".to_owned(),
            type_: MessageType::Text,
            content: Some("not yet".to_owned()),
            media_id: None,
            location: None,
            contact: None,
            poll: None,
            reply_to: None,
            thread_id: None,
            mentions: None,
            metadata: None,
        };
        let (id, sender_id) = (id(700 + sender), id(sender));
        Scheduled { id, sender_id, revision: 1, draft, send_at: 900, created_at: 100, failure: None, content_hash: vec![1] }
    }

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
        let poll = asked(91, 2, false, None);
        for user in [1, 2] {
            voted(&poll, user, &[0]);
            let (code, created_by) = (format!("code {user}"), id(user));
            let invite = Invite { code, conversation_id: id(91), created_by, created_at: 100, expires_at: None, uses_max: None, uses: 0 };
            committed(|tx| invites::insert(tx, &invite));
            committed(|tx| scheduled::insert(tx, &waiting(user)));
            committed(|tx| super::super::set_state(tx, &id(user), true, 300));
            committed(|tx| note_removed(tx, &id(92), &id(user), 300));
            echo_sdk::exports::open(&Database, &id(user), 100, 900).unwrap();
        }
        let tables = [
            "reactions",
            "starred",
            "drafts",
            "blocks",
            "poll_votes",
            "invites",
            "scheduled",
            "account_states",
            "removed_participants",
            "open_exports",
        ];
        committed(|tx| forget_marks_of(tx, &id(1)));
        assert_eq!(tables.map(count), [1; 10]);
        committed(|tx| forget_marks_of(tx, &id(2)));
        assert_eq!(tables.map(count), [0; 10]);
    }
}
