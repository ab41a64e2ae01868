//! Each store function by itself, in a module of its name, on a real database with the service's tables: account exports.

use echo_sdk::exports;

use super::*;
use crate::bindings::exports::echo::message::api::{ConversationType, MessageType, Role, SendRequest};
use crate::store::erasure::expire_messages_of;
use crate::store::fixtures::*;
use crate::store::messages::delete_for_everyone;
use crate::store::scheduled::{self, Scheduled};
use crate::store::{conversations, invites, marks};

/// Later than anything that a test does.
const EVER: Timestamp = 1_000;

mod conversations_of {
    use super::*;

    fn found(user: u32, after: u32, until: Timestamp, limit: i64) -> Vec<String> {
        let found = super::super::conversations_of(&id(user), &id(after), until, limit).unwrap();
        found.into_iter().map(|conversation| conversation.id).collect()
    }

    #[test]
    fn gives_those_that_go_on_and_that_the_user_was_in_by_then() {
        let _store = store();
        for conversation in [91, 92, 93, 94] {
            group(conversation, [1, 2]);
        }
        group(95, [2]);
        joined(95, 1, 0);
        ended(93);
        assert_eq!(found(1, 0, EVER, 9), ids([91, 92, 94, 95]));
        assert_eq!(found(1, 0, 59, 9), ids([91, 92, 94]), "joined later");
        assert_eq!(found(1, 91, EVER, 2), ids([92, 94]));
        assert_eq!(found(3, 0, EVER, 9), ids([]));
    }

    #[test]
    fn says_what_the_user_is_there_and_who_the_other_of_two_is() {
        let _store = store();
        group(91, [1, 2, 3]);
        let direct = conversations::NewConversation {
            id: &id(92),
            kind: ConversationType::Direct,
            pair_key: Some("1 2"),
            title: None,
            description: None,
            created_by: &id(1),
            at: 50,
        };
        committed(|tx| {
            assert!(conversations::insert(tx, &direct)?);
            conversations::insert_participants(tx, &id(92), &ids([1, 2]), Role::Owner, 0, 50)
        });
        let found = super::super::conversations_of(&id(1), NIL, EVER, 9).unwrap();
        let [group, direct] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((group.title.as_deref(), group.type_, group.role), (Some("Title"), ConversationType::Group, Role::Member));
        assert_eq!(group.other_id, None);
        assert_eq!((direct.type_, direct.role, direct.joined_at), (ConversationType::Direct, Role::Owner, 50));
        assert_eq!(direct.other_id.as_deref(), Some(id(2).as_str()));
    }
}

mod sent_by {
    use super::*;

    #[test]
    fn gives_all_of_the_senders_page_by_page_whatever_became_of_them() {
        let _store = store();
        group(91, [1, 2]);
        let sent: Vec<Message> = (0..7).map(|_| said(91, 1, 100, None)).collect();
        said(91, 2, 100, None);
        committed(|tx| delete_for_everyone(tx, &sent[2].id, 200).map(drop));
        let (mut all, mut after) = (Vec::new(), NIL.to_owned());
        loop {
            let page = super::super::sent_by(&id(1), &after, 3).unwrap();
            assert!(page.len() <= 3);
            let Some(last) = page.last() else { break };
            after = last.clone();
            all.extend(page);
        }
        assert_eq!(sorted(all), sorted(sent.into_iter().map(|message| message.id).collect()));
    }

    #[test]
    fn goes_on_after_no_message_of_anothers() {
        let _store = store();
        group(91, [1, 2]);
        let (own, other) = (said(91, 1, 100, None), said(91, 2, 100, None));
        assert_eq!(super::super::sent_by(&id(1), &other.id, 3).unwrap(), [own.id]);
    }
}

mod own_among {
    use super::*;

    fn found(user: u32, messages: &[&Message], until: Timestamp, now: Timestamp) -> Vec<String> {
        let ids: Vec<String> = messages.iter().map(|message| message.id.clone()).collect();
        sorted(super::super::own_among(&id(user), &ids, until, now).unwrap().into_iter().map(|message| message.id).collect())
    }

    #[test]
    fn gives_what_the_user_sent_by_then_and_says_something_still() {
        let _store = store();
        group(91, [1, 2]);
        group(92, [1, 2]);
        let (kept, deleted, over, later) =
            (said(91, 1, 100, None), said(91, 1, 100, None), said(91, 1, 100, Some(300)), said(91, 1, 150, None));
        let (others, of_ended) = (said(91, 2, 100, None), said(92, 1, 100, None));
        committed(|tx| delete_for_everyone(tx, &deleted.id, 200).map(drop));
        ended(92);
        let all = [&kept, &deleted, &over, &later, &others, &of_ended];
        assert_eq!(found(1, &all, 149, 299), [kept.id.clone(), over.id.clone()]);
        assert_eq!(found(1, &all, 150, 300), [kept.id.clone(), later.id.clone()]);
        assert_eq!(found(2, &all, 149, 300), std::slice::from_ref(&others.id));
        assert_eq!(found(1, &[], 149, 300), [] as [String; 0]);
    }

    #[test]
    fn gives_them_also_to_who_takes_part_no_more_or_hid_them_from_themselves() {
        let _store = store();
        group(91, [1, 2]);
        let (one, other) = (said(91, 1, 100, None), said(91, 1, 100, None));
        crate::store::messages::delete_for(&id(1), &one).unwrap();
        committed(|tx| tx.execute("DELETE FROM participants WHERE user_id = $1", params![uuid(id(1))]));
        assert_eq!(found(1, &[&one, &other], EVER, EVER), [one.id.clone(), other.id.clone()]);
    }

    #[test]
    fn gives_nothing_of_an_erased_sender() {
        let _store = store();
        group(91, [1, 2]);
        let message = said(91, 1, 100, None);
        committed(|tx| expire_messages_of(tx, &id(1), 200, 9));
        assert_eq!(found(1, &[&message], EVER, 200), [] as [String; 0]);
    }

    #[test]
    fn gives_polls_with_what_was_chosen() {
        let _store = store();
        group(91, [1, 2]);
        let poll = asked(91, 1, false, None);
        voted(&poll, 1, &[2]);
        voted(&poll, 2, &[1]);
        let found = super::super::own_among(&id(1), std::slice::from_ref(&poll.id), EVER, EVER).unwrap();
        let found = found[0].poll.as_ref().expect("a poll");
        assert_eq!((found.voters, found.own_votes.as_slice()), (2, &[2][..]));
    }
}

mod scheduled_by {
    use super::*;

    fn waiting(number: u32, sender: u32, created_at: Timestamp) {
        let draft = SendRequest {
            conversation_id: id(91),
            client_message_id: format!("later {number}"),
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
        let (id, sender_id) = (id(number), id(sender));
        let new = Scheduled { id, sender_id, revision: 1, draft, send_at: 900, created_at, failure: None, content_hash: vec![1] };
        assert!(committed(|tx| scheduled::insert(tx, &new)));
    }

    #[test]
    fn gives_the_senders_own_of_until_then_after_an_id() {
        let _store = store();
        for (number, sender, at) in [(701, 1, 100), (702, 1, 100), (703, 2, 100), (704, 1, 200), (705, 1, 100)] {
            waiting(number, sender, at);
        }
        assert_eq!(super::super::scheduled_by(&id(1), NIL, 199, 9).unwrap(), ids([701, 702, 705]));
        assert_eq!(super::super::scheduled_by(&id(1), &id(701), 200, 2).unwrap(), ids([702, 704]));
    }
}

mod drafts_of {
    use super::*;

    #[test]
    fn gives_the_users_own_by_conversation() {
        let _store = store();
        for (conversation, user) in [(91, 1), (92, 1), (93, 1), (92, 2)] {
            drafted(conversation, user, &format!("{user} in {conversation}"));
        }
        let found = super::super::drafts_of(&id(1), &id(91), 9).unwrap();
        assert_eq!(found.into_iter().map(|draft| draft.content).collect::<Vec<_>>(), ["1 in 92", "1 in 93"]);
        assert_eq!(super::super::drafts_of(&id(1), NIL, 1).unwrap().len(), 1);
    }
}

mod stars_of {
    use super::*;

    #[test]
    fn gives_the_users_own_of_until_then_by_message() {
        let _store = store();
        group(91, [1, 2]);
        let messages: Vec<Message> = (0..4).map(|_| said(91, 2, 100, None)).collect();
        for (message, at) in messages.iter().zip([300, 200, 300, 400]) {
            marks::star(&id(1), &message.id, at).unwrap();
        }
        marks::star(&id(2), &messages[0].id, 200).unwrap();
        let found = |after: &str, until, limit| {
            let found = super::super::stars_of(&id(1), after, until, limit).unwrap();
            found.into_iter().map(|star| (star.message_id, star.starred_at)).collect::<Vec<_>>()
        };
        let of = |number: usize, at: Timestamp| (messages[number].id.clone(), at);
        assert_eq!(found(NIL, 300, 9), [of(0, 300), of(1, 200), of(2, 300)]);
        assert_eq!(found(&messages[0].id, 400, 2), [of(1, 200), of(2, 300)]);
    }
}

mod reactions_of {
    use super::*;

    #[test]
    fn gives_the_users_own_of_until_then_by_message_and_emoji() {
        let _store = store();
        group(91, [1, 2]);
        let (one, other) = (said(91, 2, 100, None), said(91, 2, 100, None));
        for (message, user, emoji, at) in
            [(&one, 1, "\u{1f44d}", 200), (&one, 1, "\u{1f600}", 200), (&other, 1, "\u{1f44d}", 300), (&one, 2, "\u{1f44d}", 200)]
        {
            reacted(message, user, emoji, at);
        }
        let found = |after: (&str, &str), until, limit| {
            let found = super::super::reactions_of(&id(1), after, until, limit).unwrap();
            found.into_iter().map(|row| (row.reaction.message_id, row.canonical)).collect::<Vec<_>>()
        };
        let of = |message: &Message, emoji: &str| (message.id.clone(), emoji.to_owned());
        assert_eq!(found((NIL, ""), 200, 9), [of(&one, "\u{1f44d}"), of(&one, "\u{1f600}")]);
        assert_eq!(found((&one.id, "\u{1f44d}"), 300, 9), [of(&one, "\u{1f600}"), of(&other, "\u{1f44d}")]);
        assert_eq!(found((NIL, ""), 300, 1), [of(&one, "\u{1f44d}")]);
    }
}

mod votes_of {
    use super::*;

    #[test]
    fn gives_the_users_own_by_message_and_choice() {
        let _store = store();
        group(91, [1, 2]);
        let (one, other) = (asked(91, 2, true, None), asked(91, 2, true, None));
        voted(&one, 1, &[0, 2]);
        voted(&one, 2, &[1]);
        voted(&other, 1, &[1]);
        let found = |after: &str, choice, limit| {
            let found = super::super::votes_of(&id(1), after, choice, limit).unwrap();
            found.into_iter().map(|vote| (vote.message_id, vote.choice)).collect::<Vec<_>>()
        };
        let of = |message: &Message, choice: u32| (message.id.clone(), choice);
        assert_eq!(found(NIL, -1, 9), [of(&one, 0), of(&one, 2), of(&other, 1)]);
        assert_eq!(found(&one.id, 0, 1), [of(&one, 2)]);
    }
}

mod invites_by {
    use super::*;

    #[test]
    fn gives_the_users_own_of_until_then_by_code() {
        let _store = store();
        group(91, [1, 2]);
        for (code, user, at) in [("a", 1, 100), ("b", 2, 100), ("c", 1, 200), ("d", 1, 100)] {
            let (code, created_by) = (code.to_owned(), id(user));
            let invite = Invite { code, conversation_id: id(91), created_by, created_at: at, expires_at: None, uses_max: None, uses: 0 };
            committed(|tx| invites::insert(tx, &invite));
        }
        let found = |after: &str, until, limit| {
            let found = super::super::invites_by(&id(1), after, until, limit).unwrap();
            found.into_iter().map(|invite| invite.code).collect::<Vec<_>>()
        };
        assert_eq!(found("", 199, 9), ["a", "d"]);
        assert_eq!(found("a", 200, 1), ["c"]);
    }
}

/// The SDK's functions, on this service's table.
mod open_exports {
    use super::*;

    #[test]
    fn an_export_is_read_until_it_expires_and_a_newer_one_takes_its_place() {
        let _store = store();
        let asked = |now| exports::requested_at(&Database, &id(1), now).ok();
        exports::open(&Database, &id(1), 100, 200).unwrap();
        exports::open(&Database, &id(1), 100, 900).unwrap();
        assert_eq!([asked(199), asked(200)], [Some(100), None], "the same again changes nothing");
        exports::open(&Database, &id(1), 300, 400).unwrap();
        exports::open(&Database, &id(1), 100, 900).unwrap();
        assert_eq!([asked(399), asked(400)], [Some(300), None]);
        assert_eq!(exports::requested_at(&Database, &id(2), 1).unwrap_err().code, "not_found");
    }

    #[test]
    fn what_has_expired_or_is_closed_is_forgotten() {
        let _store = store();
        for (user, end) in [(1, 200), (2, 100), (3, 300), (4, 150)] {
            exports::open(&Database, &id(user), 50, end).unwrap();
        }
        exports::close_expired(&Database, 200, 2).unwrap();
        assert_eq!(count("open_exports"), 2, "the longest expired first, so many");
        assert!(exports::requested_at(&Database, &id(1), 60).is_ok());
        exports::close_expired(&Database, 200, 2).unwrap();
        exports::close(&Database, &id(3)).unwrap();
        assert_eq!(count("open_exports"), 0);
    }
}
