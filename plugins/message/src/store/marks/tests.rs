//! Each store function by itself, in a module of its name, on a real database with the service's tables: reactions, stars, drafts, marks.

use super::*;
use crate::store::conversations::membership;
use crate::store::fixtures::*;
use crate::store::messages::delete_for_everyone;

/// A message of user 1 to user 2.
fn message() -> Message {
    group(91, [1, 2]);
    said(91, 1, 100, None)
}

/// As a viewer sees them: `(user, emoji)`.
fn reactions(viewer: u32, message: &Message) -> Vec<(String, String)> {
    let rows = reactions_seen_by(&Database, &id(viewer), &message.id, &Default::default(), 99).unwrap();
    rows.into_iter().map(|row| (row.user_id, row.spelling)).collect()
}

fn had(user: u32, emoji: &str) -> (String, String) {
    (id(user), emoji.to_owned())
}

mod add_reaction {
    use super::*;

    #[test]
    fn keeps_each_emoji_of_a_person_once_as_it_was_written_first() {
        let _store = store();
        let message = message();
        let add = |user, spelling: &str| committed(|tx| add_reaction(tx, &message.id, &id(user), "❤", spelling, 200));
        assert_eq!([add(1, "❤\u{FE0F}"), add(1, "❤"), add(2, "❤")], [true, false, true]);
        assert_eq!(reactions(1, &message), [had(1, "❤\u{FE0F}"), had(2, "❤")]);
        reacted(&message, 1, "👍", 201);
        assert_eq!(reactions(1, &message).len(), 3);
    }

    #[test]
    fn puts_none_under_a_message_that_is_not_there_or_is_deleted() {
        let _store = store();
        let message = message();
        committed(|tx| delete_for_everyone(tx, &message.id, 200));
        for message in [message.id, id(7)] {
            assert!(!committed(|tx| add_reaction(tx, &message, &id(1), "👍", "👍", 300)));
        }
        assert_eq!(count("reactions"), 0);
    }
}

mod reactions_of_one {
    use super::*;

    #[test]
    fn counts_those_of_one_person_under_one_message() {
        let _store = store();
        let message = message();
        let other = said(91, 1, 100, None);
        for emoji in ["👍", "👎"] {
            reacted(&message, 1, emoji, 200);
        }
        reacted(&message, 2, "👍", 200);
        reacted(&other, 1, "👍", 200);
        assert_eq!([1, 2, 3].map(|user| committed(|tx| reactions_of_one(tx, &message.id, &id(user)))), [2, 1, 0]);
    }
}

mod remove_reaction {
    use super::*;

    #[test]
    fn gives_what_it_removed_as_it_was_written() {
        let _store = store();
        let message = message();
        committed(|tx| add_reaction(tx, &message.id, &id(1), "❤", "❤\u{FE0F}", 200));
        reacted(&message, 1, "👍", 201);
        reacted(&message, 2, "❤", 202);
        let remove = || committed(|tx| remove_reaction(tx, &message.id, &id(1), "❤"));
        assert_eq!([remove(), remove()], [Some("❤\u{FE0F}".to_owned()), None]);
        assert_eq!(reactions(1, &message), [had(1, "👍"), had(2, "❤")]);
    }
}

mod reactions_seen_by {
    use super::*;

    #[test]
    fn gives_the_oldest_first_after_the_key() {
        let _store = store();
        let message = message();
        for (user, emoji, at) in [(2, "👎", 300), (1, "👍", 200), (1, "👎", 200), (2, "👍", 200)] {
            reacted(&message, user, emoji, at);
        }
        let page = |after: &(u64, String, String), limit| {
            let rows = reactions_seen_by(&Database, &id(1), &message.id, after, limit).unwrap();
            rows.into_iter().map(|row| (row.created_at, row.user_id, row.emoji)).collect::<Vec<_>>()
        };
        let all = page(&Default::default(), 9);
        let row = |at, user, emoji: &str| (at, id(user), emoji.to_owned());
        assert_eq!(all, [row(200, 1, "👍"), row(200, 1, "👎"), row(200, 2, "👍"), row(300, 2, "👎")]);
        assert_eq!((page(&all[0], 2), page(&all[3], 9)), (all[1..3].to_vec(), vec![]));
    }

    #[test]
    fn leaves_out_whom_the_viewer_blocks() {
        let _store = store();
        let message = message();
        reacted(&message, 1, "👍", 200);
        blocked(2, 1);
        assert_eq!((reactions(1, &message).len(), reactions(2, &message).len()), (1, 0));
        unblocked(2, 1);
        assert_eq!(reactions(2, &message).len(), 1);
    }
}

/// The messages of a person's list.
fn starred_of(user: u32) -> Vec<String> {
    starred(&id(user), &(FIRST.0, FIRST.1.to_owned()), 99).unwrap().into_iter().map(|(id, _)| id).collect()
}

mod star {
    use super::*;

    #[test]
    fn puts_a_message_on_ones_own_list_once() {
        let _store = store();
        let message = message();
        for at in [200, 300] {
            star(&id(2), &message.id, at).unwrap();
        }
        assert_eq!(starred(&id(2), &(FIRST.0, FIRST.1.to_owned()), 9).unwrap(), [(message.id, 200)]);
        assert!(starred_of(1).is_empty());
    }

    #[test]
    fn takes_none_that_is_not_there_or_is_deleted() {
        let _store = store();
        let message = message();
        committed(|tx| delete_for_everyone(tx, &message.id, 200));
        for message in [&message.id, &id(7)] {
            star(&id(2), message, 300).unwrap();
        }
        assert_eq!(count("starred"), 0);
    }
}

mod unstar {
    use super::*;

    #[test]
    fn takes_a_message_off_ones_own_list() {
        let _store = store();
        let message = message();
        for user in [1, 2] {
            star(&id(user), &message.id, 200).unwrap();
        }
        assert_eq!([1, 1].map(|user| unstar(&id(user), &message.id).unwrap()), [true, false]);
        assert_eq!((starred_of(1), starred_of(2)), (vec![], vec![message.id]));
    }
}

mod starred_count {
    use super::*;

    #[test]
    fn counts_ones_own_up_to_the_bound() {
        let _store = store();
        let message = message();
        for message in [&message, &said(91, 1, 100, None), &said(91, 2, 100, None)] {
            star(&id(2), &message.id, 200).unwrap();
        }
        assert_eq!([(2, 9), (2, 3), (2, 2), (1, 9)].map(|(user, max)| starred_count(&id(user), max).unwrap()), [3, 3, 2, 0]);
    }
}

mod starred {
    use super::*;

    #[test]
    fn gives_the_one_starred_last_first_before_the_key() {
        let _store = store();
        let first = message();
        let messages = [first, said(91, 1, 100, None), said(91, 2, 100, None)];
        for (message, at) in messages.iter().zip([300, 200, 300]) {
            star(&id(2), &message.id, at).unwrap();
        }
        let row = |seq, at| (message_id(91, seq), at);
        let page = |before: &(u64, String), limit| starred(&id(2), before, limit).unwrap();
        let first = (FIRST.0, FIRST.1.to_owned());
        assert_eq!(page(&first, 9), [row(3, 300), row(1, 300), row(2, 200)]);
        assert_eq!(page(&first, 1), [row(3, 300)]);
        assert_eq!(page(&(300, message_id(91, 3)), 9), [row(1, 300), row(2, 200)]);
    }
}

fn pinned(message: &Message, at: Timestamp) -> bool {
    committed(|tx| pin(tx, message, &id(1), at))
}

fn pins(conversation: u32) -> Vec<String> {
    committed(|tx| pins_of(tx, &id(conversation)))
}

mod pin {
    use super::*;

    #[test]
    fn pins_a_message_once() {
        let _store = store();
        let message = message();
        assert_eq!([200, 300].map(|at| pinned(&message, at)), [true, false]);
        assert_eq!(pins(91), [message.id]);
        let by: (String, Timestamp) = Database.one("SELECT pinned_by, pinned_at FROM pins", params![]).unwrap();
        assert_eq!(by, (id(1), 200));
    }

    #[test]
    fn pins_none_that_is_deleted_or_not_there() {
        let _store = store();
        let message = message();
        committed(|tx| delete_for_everyone(tx, &message.id, 200));
        assert!(!pinned(&message, 300) && !pinned(&text(91, 7, 1, 100), 300));
    }
}

mod unpin {
    use super::*;

    #[test]
    fn says_whether_it_was_pinned() {
        let _store = store();
        let message = message();
        pinned(&message, 200);
        assert_eq!([1, 2].map(|_| committed(|tx| unpin(tx, &message.id))), [true, false]);
        assert!(pins(91).is_empty());
    }
}

mod pins_of {
    use super::*;

    #[test]
    fn gives_those_of_the_conversation_the_one_pinned_last_first() {
        let _store = store();
        let first = message();
        let second = said(91, 1, 100, None);
        group(92, [1]);
        let elsewhere = said(92, 1, 100, None);
        for (message, at) in [(&second, 200), (&first, 300), (&elsewhere, 400)] {
            pinned(message, at);
        }
        assert_eq!((pins(91), pins(92), pins(93)), (vec![first.id, second.id], vec![elsewhere.id], vec![]));
    }
}

mod pins_seen_by {
    use super::*;

    #[test]
    fn gives_those_that_the_user_sees_of_each_conversation() {
        let _store = store();
        let first = message();
        joined(91, 3, 1);
        let over = said(91, 1, 100, Some(500));
        let second = said(91, 1, 100, None);
        group(92, [1, 3]);
        let elsewhere = said(92, 1, 100, None);
        for (message, at) in [(&first, 200), (&over, 300), (&second, 400), (&elsewhere, 500)] {
            pinned(message, at);
        }
        let pair = |conversation, message: &Message| (id(conversation), message.id.clone());
        let seen = |user, conversations: &[u32]| pins_seen_by(&id(user), &ids(conversations.iter().copied()), 500).unwrap();
        assert_eq!(seen(1, &[91, 92]), [pair(91, &second), pair(91, &first), pair(92, &elsewhere)]);
        assert_eq!(seen(3, &[91, 92]), [pair(91, &second), pair(92, &elsewhere)]);
        assert_eq!((seen(2, &[92]), seen(1, &[])), (vec![], vec![]));
        crate::store::messages::delete_for(&id(1), &second).unwrap();
        assert_eq!(seen(1, &[91]), [pair(91, &first)]);
    }
}

fn words(conversation: u32, user: u32) -> Option<String> {
    draft(&id(conversation), &id(user)).unwrap().map(|draft| draft.content)
}

mod draft {
    use super::*;

    #[test]
    fn is_ones_own_in_this_conversation() {
        let _store = store();
        drafted(91, 1, "words");
        assert_eq!([words(91, 1).as_deref(), words(91, 2).as_deref(), words(92, 1).as_deref()], [Some("words"), None, None]);
    }
}

mod set_draft {
    use super::*;

    #[test]
    fn takes_the_place_of_the_one_before() {
        let _store = store();
        drafted(91, 1, "before");
        let new = Draft { conversation_id: id(91), content: "after".to_owned(), reply_to: Some(id(5)), updated_at: 300 };
        set_draft(&id(1), &new).unwrap();
        let kept = draft(&id(91), &id(1)).unwrap().unwrap();
        assert_eq!((kept.content, kept.reply_to, kept.updated_at), (new.content, new.reply_to, 300));
        assert_eq!(count("drafts"), 1);
    }
}

mod delete_draft {
    use super::*;

    #[test]
    fn says_whether_there_was_one() {
        let _store = store();
        for conversation in [91, 92] {
            drafted(conversation, 1, "words");
        }
        assert_eq!([1, 1, 2].map(|user| delete_draft(&id(91), &id(user)).unwrap()), [true, false, false]);
        assert_eq!((words(91, 1), words(92, 1).as_deref()), (None, Some("words")));
    }
}

mod set_unread {
    use super::*;

    #[test]
    fn says_whether_it_was_otherwise_and_moves_no_watermark() {
        let _store = store();
        message();
        read(91, 2, 1, crate::rules::Shown::Whole);
        let set = |user, unread| committed(|tx| set_unread(tx, &id(91), &id(user), unread));
        assert_eq!([set(2, false), set(2, true), set(2, true), set(3, true)], [false, true, false, false]);
        let marked = |user| membership(&Database, &id(91), &id(user)).unwrap().unwrap().marked_unread;
        assert_eq!((marked(1), marked(2), watermarks(91, 2)), (false, true, (1, 1)));
        assert_eq!((set(2, false), marked(2)), (true, false));
    }
}
