//! Each store function by itself, in a module of its name, on a real database with the service's tables: conversations and participants.

use echo_sdk::sql::ErrorClass;
use echo_sdk::transaction;

use super::*;
use crate::rules::Shown;
use crate::store::fixtures::*;
use crate::store::marks::set_unread;
use crate::store::messages::{delete_for, delete_for_everyone, keep_back, take_seq};
use crate::store::receipts::show_to;

fn direct(conversation: u32, pair_key: &str) -> bool {
    let id = id(conversation);
    let new = NewConversation {
        id: &id,
        kind: ConversationType::Direct,
        pair_key: Some(pair_key),
        title: None,
        description: None,
        created_by: NIL,
        at: 50,
    };
    committed(|tx| insert(tx, &new))
}

fn users_of(conversation: u32) -> Vec<String> {
    let roster = roster_for(&Database, &id(conversation), NIL).unwrap().expect("a conversation");
    roster.members.into_iter().map(|member| member.user_id).collect()
}

fn role_of(conversation: u32, user: u32) -> Role {
    membership(&Database, &id(conversation), &id(user)).unwrap().expect("a participant").role
}

fn version(conversation: u32) -> u64 {
    roster_for(&Database, &id(conversation), NIL).unwrap().expect("a conversation").version
}

fn one(conversation: u32, user: u32) -> Listed {
    one_for(&id(user), &id(conversation), 1_000).unwrap().expect("a participant")
}

// --- Looking at all of it ------------------------------------------------------------------------------------------------------------

mod roster_for {
    use super::*;

    #[test]
    fn gives_everybody_in_the_order_they_joined_and_who_blocks_the_user() {
        let _store = store();
        group(91, [3, 1, 2]);
        joined(91, 4, 0);
        committed(|tx| {
            set_role(tx, &id(91), &id(1), Role::Owner)?;
            set_disappearing(tx, &id(91), 60, 70)
        });
        let change = SettingsChange { muted_until: Some(Some(500)), archived: None, pinned: None };
        committed(|tx| update_settings(tx, &id(91), &id(2), &change));
        all_said(91, [1, 2]);
        blocked(2, 1);
        blocked(1, 3);
        blocked(4, 1);
        unblocked(4, 1);
        let roster = roster_for(&Database, &id(91), &id(1)).unwrap().unwrap();
        assert_eq!((roster.kind, roster.disappearing_after, roster.version, roster.last_seq), (ConversationType::Group, Some(60), 1, 2));
        let members: Vec<_> = roster.members.into_iter().map(|one| (one.user_id, one.role, one.muted_until, one.blocks)).collect();
        assert_eq!(
            members,
            [
                (id(1), Role::Owner, None, false),
                (id(2), Role::Member, Some(500), true),
                (id(3), Role::Member, None, false),
                (id(4), Role::Member, None, false),
            ]
        );
    }

    #[test]
    fn is_none_where_there_is_no_conversation_or_it_is_ended() {
        let _store = store();
        group(91, [1]);
        ended(91);
        for conversation in [91, 92] {
            assert!(roster_for(&Database, &id(conversation), &id(1)).unwrap().is_none());
        }
    }
}

mod who_may_see_typing {
    use super::*;

    #[test]
    fn leaves_out_those_between_whom_and_the_user_is_a_block() {
        let _store = store();
        group(91, [1, 2, 3, 4, 5]);
        blocked(2, 1);
        blocked(1, 3);
        blocked(4, 1);
        unblocked(4, 1);
        blocked(4, 5);
        let who = |user| sorted(who_may_see_typing(&id(91), &id(user)).unwrap());
        assert_eq!(who(1), ids([1, 4, 5]));
        assert_eq!(who(9), ids([1, 2, 3, 4, 5]), "the user is among them only as a participant");
    }

    #[test]
    fn is_nobody_where_there_is_no_conversation_or_it_is_ended() {
        let _store = store();
        group(91, [1, 2]);
        ended(91);
        for conversation in [91, 92] {
            assert!(who_may_see_typing(&id(conversation), &id(1)).unwrap().is_empty());
        }
    }
}

mod membership {
    use super::*;

    #[test]
    fn gives_the_users_place() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [2, 2, 2]);
        delivered(91, 1, 3);
        read(91, 1, 2, Shown::KeptBack);
        committed(|tx| set_role(tx, &id(91), &id(1), Role::Admin));
        let place = membership(&Database, &id(91), &id(1)).unwrap().unwrap();
        assert_eq!((place.kind, place.role), (ConversationType::Group, Role::Admin));
        assert_eq!((place.last_seq, place.delivered_seq, place.read_seq, place.marked_unread), (3, 3, 2, false));
        committed(|tx| set_unread(tx, &id(91), &id(1), true));
        let marked = |user| membership(&Database, &id(91), &id(user)).unwrap().unwrap().marked_unread;
        assert_eq!([marked(1), marked(2)], [true, false]);
    }

    #[test]
    fn is_none_for_others_and_when_it_is_ended() {
        let _store = store();
        group(91, [1]);
        group(92, [1]);
        ended(92);
        for (conversation, user) in [(91, 2), (92, 1), (93, 1)] {
            assert!(membership(&Database, &id(conversation), &id(user)).unwrap().is_none());
        }
    }
}

// --- As a participant sees them ------------------------------------------------------------------------------------------------------

mod listed_for {
    use super::*;

    fn listed(user: u32, before: (u64, &str), limit: i64) -> Vec<(String, u64)> {
        let found = listed_for(&id(user), &(before.0, before.1.to_owned()), limit, 1_000).unwrap();
        found.into_iter().map(|one| (one.id, one.active_at)).collect()
    }

    #[test]
    fn gives_the_users_own_by_their_last_activity_page_by_page() {
        let _store = store();
        for conversation in 91..=94 {
            group(conversation, [1, 2]);
        }
        group(95, [2, 3]);
        group(96, [1, 2]);
        ended(96);
        said(91, 2, 200, None);
        said(92, 2, 100, None);
        said(93, 2, 200, None);
        assert_eq!(listed(1, FIRST, 2), [(id(93), 200), (id(91), 200)]);
        assert_eq!(listed(1, (200, &id(91)), 9), [(id(92), 100), (id(94), 50)]);
        assert_eq!(listed(3, FIRST, 9), [(id(95), 50)]);
    }

    #[test]
    fn leaves_out_what_is_hidden_until_something_newer_comes() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [2, 2]);
        hide(&Database, &id(91), &id(1), 2).unwrap();
        assert_eq!((listed(1, FIRST, 9), listed(2, FIRST, 9).len()), (vec![], 1));
        all_said(91, [2]);
        assert_eq!(listed(1, FIRST, 9).len(), 1);
    }

    #[test]
    fn stays_where_it_was_while_the_newest_messages_were_kept_from_the_user() {
        let _store = store();
        group(91, [1, 2]);
        group(92, [1, 2]);
        said(91, 2, 100, None);
        said(92, 2, 150, None);
        for at in [200, 300] {
            let message = said(91, 2, at, None);
            committed(|tx| keep_back(tx, &id(91), &ids([1]), message.seq));
        }
        assert_eq!(listed(1, FIRST, 9), [(id(92), 150), (id(91), 100)]);
        assert_eq!(listed(1, (150, &id(92)), 9), [(id(91), 100)], "the key goes by the same time");
        assert_eq!(listed(2, FIRST, 9), [(id(91), 300), (id(92), 150)]);
        said(91, 1, 400, None);
        assert_eq!(listed(1, FIRST, 9)[0], (id(91), 400));
    }

    #[test]
    fn counts_for_each_of_the_page_who_takes_part_and_what_is_unread() {
        let _store = store();
        group(91, [1, 2, 3]);
        group(92, [1, 2]);
        all_said(91, [2, 3, 1]);
        all_said(92, [2]);
        read(91, 1, 1, Shown::Whole);
        let found = listed_for(&id(1), &(FIRST.0, FIRST.1.to_owned()), 9, 1_000).unwrap();
        let counts: Vec<_> = found.into_iter().map(|one| (one.id, one.participant_count, one.unread_count, one.read_seq)).collect();
        assert_eq!(counts, [(id(92), 2, 1, 0), (id(91), 3, 1, 1)]);
    }
}

mod one_for {
    use super::*;

    #[test]
    fn gives_the_conversation_as_the_user_has_it() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [2, 2]);
        committed(|tx| {
            update_texts(tx, &id(91), None, Some("About"), 70)?;
            set_disappearing(tx, &id(91), 60, 80)?;
            set_role(tx, &id(91), &id(1), Role::Owner)?;
            let change = SettingsChange { muted_until: Some(Some(500)), archived: Some(true), pinned: Some(true) };
            update_settings(tx, &id(91), &id(1), &change)
        });
        let seen = one(91, 1);
        assert_eq!((seen.id.as_str(), seen.kind.as_str(), seen.created_by.as_str()), (id(91).as_str(), "group", id(1).as_str()));
        assert_eq!((seen.title.as_deref(), seen.description.as_deref()), (Some("Title"), Some("About")));
        assert_eq!((seen.created_at, seen.updated_at, seen.active_at, seen.last_seq), (50, 80, 100, 2));
        assert_eq!((seen.disappearing_after, seen.role.as_str(), seen.muted_until), (Some(60), "owner", Some(500)));
        assert_eq!((seen.archived, seen.pinned, seen.participant_count, seen.unread_count), (true, true, 2, 2));
        let other = one(91, 2);
        assert_eq!((other.role.as_str(), other.muted_until, other.archived, other.pinned), ("member", None, false, false));
    }

    #[test]
    fn gives_a_hidden_one_and_none_to_others_or_when_it_is_ended() {
        let _store = store();
        group(91, [1]);
        hide(&Database, &id(91), &id(1), 0).unwrap();
        assert!(one_for(&id(1), &id(91), 1_000).unwrap().is_some());
        assert!(one_for(&id(2), &id(91), 1_000).unwrap().is_none());
        ended(91);
        assert!(one_for(&id(1), &id(91), 1_000).unwrap().is_none());
    }
}

mod unread_count {
    use super::*;

    fn unread(user: u32, now: Timestamp) -> u64 {
        unread_count(&id(user), &id(91), now).unwrap()
    }

    #[test]
    fn counts_what_others_sent_beyond_what_is_read() {
        let _store = store();
        group(91, [1, 2, 3]);
        all_said(91, [2, 1, 3, 2]);
        assert_eq!([1, 2, 3, 9].map(|user| unread(user, 1_000)), [3, 2, 3, 0]);
        read(91, 1, 3, Shown::KeptBack);
        assert_eq!(unread(1, 1_000), 1);
    }

    #[test]
    fn leaves_out_what_is_not_there_for_the_user() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [2, 2, 2, 2]);
        said(91, 2, 100, Some(500));
        delete_for(&id(1), &text(91, 1, 2, 100)).unwrap();
        committed(|tx| delete_for_everyone(tx, &message_id(91, 2), 200));
        committed(|tx| keep_back(tx, &id(91), &ids([1]), 3));
        assert_eq!([499, 500].map(|now| unread(1, now)), [2, 1]);
    }

    #[test]
    fn counts_up_to_its_bound() {
        let _store = store();
        group(91, [1]);
        let (all, rows) = (UNREAD_COUNT_MAX as u64 + 1, 200);
        committed(|tx| {
            for first in (1..=all).step_by(rows) {
                let seqs: Vec<u64> = (first..=all).take(rows).collect();
                let sql = format!(
                    "INSERT INTO messages (id, conversation_id, seq, sender_id, client_message_id, content_hash, kind, created_at) VALUES {}",
                    echo_sdk::sql::row_placeholders(seqs.len(), 8)
                );
                let row = |seq: &u64| {
                    let client_message_id = seq.to_string();
                    params![
                        uuid(message_id(91, *seq)),
                        uuid(id(91)),
                        *seq,
                        uuid(id(2)),
                        client_message_id,
                        vec![1_u8],
                        "text",
                        timestamp(5)
                    ]
                };
                tx.execute(&sql, seqs.iter().flat_map(row).collect())?;
            }
            Ok(())
        });
        assert_eq!(unread(1, 1_000), UNREAD_COUNT_MAX as u64);
    }
}

mod first_participants {
    use super::*;

    #[test]
    fn gives_those_who_joined_first_of_each_in_their_order() {
        let _store = store();
        group(91, [2, 1]);
        joined(91, 0, 0);
        group(92, [3]);
        let mut found = first_participants(&ids([92, 91, 93])).unwrap();
        let of = |conversation| -> Vec<String> {
            found.iter().filter(|(of, _)| *of == id(conversation)).map(|(_, user)| user.clone()).collect()
        };
        assert_eq!((of(91), of(92)), (ids([1, 2, 0]), ids([3])));
        found.dedup_by(|next, one| next.0 == one.0);
        assert_eq!(found.len(), 2, "those of one conversation stand together");
    }

    #[test]
    fn gives_so_many_of_each_at_most() {
        let _store = store();
        for conversation in [91, 92] {
            group(conversation, 0..=PARTICIPANTS_SHOWN);
        }
        assert_eq!(first_participants(&ids([91, 92])).unwrap().len(), 2 * PARTICIPANTS_SHOWN as usize);
        assert!(first_participants(&[]).unwrap().is_empty());
    }
}

// --- Opening and changing ------------------------------------------------------------------------------------------------------------

mod direct_of {
    use super::*;

    #[test]
    fn finds_that_of_the_pair() {
        let _store = store();
        direct(91, "1 2");
        direct(92, "1 3");
        assert_eq!(direct_of("1 3").unwrap(), Some(id(92)));
        assert_eq!(direct_of("2 3").unwrap(), None);
    }
}

mod insert {
    use super::*;

    #[test]
    fn is_false_where_the_pair_has_one() {
        let _store = store();
        assert_eq!([direct(91, "1 2"), direct(92, "1 2"), direct(93, "1 3")], [true, false, true]);
        assert_eq!(direct_of("1 2").unwrap(), Some(id(91)));
    }

    #[test]
    fn begins_with_no_message_at_the_time_it_was_made() {
        let _store = store();
        group(91, [1]);
        let seen = one(91, 1);
        assert_eq!((seen.created_at, seen.updated_at, seen.active_at, seen.last_seq), (50, 50, 50, 0));
        assert_eq!((version(91), seen.disappearing_after), (1, None));
    }

    #[test]
    fn takes_an_id_once() {
        let _store = store();
        group(91, [1]);
        let id = id(91);
        let new = NewConversation {
            id: &id,
            kind: ConversationType::Channel,
            pair_key: None,
            title: None,
            description: None,
            created_by: NIL,
            at: 60,
        };
        let error = transaction(|tx| insert(tx, &new)).unwrap_err();
        assert_eq!(error.class, ErrorClass::UniqueViolation);
    }
}

mod insert_participants {
    use super::*;

    #[test]
    fn begins_at_the_seq_and_leaves_who_is_there_as_they_are() {
        let _store = store();
        group(91, [1]);
        all_said(91, [1, 1]);
        committed(|tx| insert_participants(tx, &id(91), &ids([1, 2]), Role::Admin, 2, 60));
        assert_eq!([1, 2].map(|user| role_of(91, user)), [Role::Member, Role::Admin]);
        assert_eq!([1, 2].map(|user| watermarks(91, user)), [(0, 0), (2, 2)]);
        let joined: Vec<_> = members_among(&id(91), &ids([1, 2])).unwrap().into_iter().map(|one| one.joined_at).collect();
        assert_eq!(joined, [50, 60]);
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        group(91, []);
        assert_eq!(size_of(&id(91)).unwrap(), Some(("group".to_owned(), 0)));
        let many = 2 * PARTICIPANT_ROWS_MAX as u32 + 1;
        committed(|tx| insert_participants(tx, &id(91), &ids(0..many), Role::Member, 0, 60));
        assert_eq!(size_of(&id(91)).unwrap(), Some(("group".to_owned(), many)));
    }
}

mod begin_roster_change {
    use super::*;

    #[test]
    fn tells_the_newest_seq_and_makes_the_roster_another() {
        let _store = store();
        group(91, [1]);
        group(92, [1]);
        all_said(91, [1, 1]);
        let roster = roster_for(&Database, &id(91), &id(1)).unwrap().unwrap();
        assert_eq!(committed(|tx| begin_roster_change(tx, &id(91), 70)), Some(2));
        assert_eq!((version(91), one(91, 1).updated_at, version(92)), (2, 70, 1));
        assert_eq!(committed(|tx| take_seq(tx, &id(91), &roster, 80)), None);
    }

    #[test]
    fn is_none_where_it_is_gone() {
        let _store = store();
        group(91, [1]);
        ended(91);
        for conversation in [91, 92] {
            assert_eq!(committed(|tx| begin_roster_change(tx, &id(conversation), 70)), None);
        }
    }
}

mod lock {
    use super::*;

    #[test]
    fn is_false_where_the_conversation_is_gone() {
        let _store = store();
        group(91, [1]);
        group(92, [1]);
        ended(92);
        assert_eq!([91, 92, 93].map(|conversation| committed(|tx| lock(tx, &id(conversation)))), [true, false, false]);
        assert_eq!(committed(|tx| head(tx, &id(91))).updated_at, 50, "it changes nothing");
    }
}

mod update_texts {
    use super::*;

    #[test]
    fn keeps_what_is_none_and_removes_what_is_empty() {
        let _store = store();
        group(91, [1]);
        group(92, [1]);
        for (title, description, at, expected) in [
            (None, Some("About"), 70, (Some("Title"), Some("About"))),
            (Some("Other"), None, 80, (Some("Other"), Some("About"))),
            (Some(""), Some(""), 90, (None, None)),
        ] {
            committed(|tx| update_texts(tx, &id(91), title, description, at));
            let seen = one(91, 1);
            assert_eq!(((seen.title.as_deref(), seen.description.as_deref()), seen.updated_at), (expected, at));
        }
        assert_eq!((one(92, 1).title.as_deref(), one(92, 1).updated_at), (Some("Title"), 50));
    }
}

mod set_disappearing {
    use super::*;

    #[test]
    fn ends_it_with_no_seconds() {
        let _store = store();
        group(91, [1]);
        for (seconds, expected) in [(60, Some(60)), (0, None)] {
            committed(|tx| set_disappearing(tx, &id(91), seconds, 70));
            assert_eq!((one(91, 1).disappearing_after, one(91, 1).updated_at), (expected, 70));
        }
    }
}

mod end {
    use super::*;

    #[test]
    fn takes_it_from_everybody_and_lets_nothing_more_be_sent() {
        let _store = store();
        group(91, [1]);
        group(92, [1]);
        let roster = roster_for(&Database, &id(91), &id(1)).unwrap().unwrap();
        committed(|tx| end(tx, &id(91), 70));
        assert!(one_for(&id(1), &id(91), 1_000).unwrap().is_none());
        assert_eq!(committed(|tx| take_seq(tx, &id(91), &roster, 80)), None);
        assert!(one_for(&id(1), &id(92), 1_000).unwrap().is_some());
    }
}

mod set_role {
    use super::*;

    #[test]
    fn is_of_this_participant_in_this_conversation() {
        let _store = store();
        for conversation in [91, 92] {
            group(conversation, [1, 2]);
        }
        for role in [Role::Owner, Role::Admin, Role::Member, Role::Admin] {
            committed(|tx| set_role(tx, &id(91), &id(1), role));
            assert_eq!(role_of(91, 1), role);
        }
        assert_eq!((role_of(91, 2), role_of(92, 1)), (Role::Member, Role::Member));
    }
}

mod note_removed {
    use super::*;

    #[test]
    fn is_kept_once_until_it_is_forgotten() {
        let _store = store();
        for user in [1, 1, 2] {
            committed(|tx| note_removed(tx, &id(91), &id(user), 100));
        }
        committed(|tx| note_removed(tx, &id(92), &id(1), 100));
        assert_eq!(count("removed_participants"), 3);
    }
}

mod forget_removed {
    use super::*;

    #[test]
    fn forgets_these_people_in_this_conversation() {
        let _store = store();
        for (conversation, user) in [(91, 1), (91, 2), (91, 3), (92, 1)] {
            committed(|tx| note_removed(tx, &id(conversation), &id(user), 100));
        }
        committed(|tx| forget_removed(tx, &id(91), &ids([1, 2, 4])));
        assert_eq!(count("removed_participants"), 2);
        committed(|tx| forget_removed(tx, &id(91), &[]));
        assert_eq!(count("removed_participants"), 2);
    }
}

mod delete_participant {
    use super::*;

    #[test]
    fn takes_one_out_of_this_conversation() {
        let _store = store();
        for conversation in [91, 92] {
            group(conversation, [1, 2]);
        }
        for user in [1, 3] {
            committed(|tx| delete_participant(tx, &id(91), &id(user)));
        }
        assert_eq!((users_of(91), users_of(92)), (ids([2]), ids([1, 2])));
    }

    #[test]
    fn takes_what_the_user_had_begun_to_write_along() {
        let _store = store();
        group(91, [1, 2]);
        group(92, [1]);
        for (conversation, user) in [(91, 1), (91, 2), (92, 1)] {
            drafted(conversation, user, "words");
        }
        committed(|tx| delete_participant(tx, &id(91), &id(1)));
        let has = |(conversation, user)| crate::store::marks::draft(&id(conversation), &id(user)).unwrap().is_some();
        assert_eq!([(91, 1), (91, 2), (92, 1)].map(has), [false, true, true]);
    }
}

fn hidden(conversation: u32, user: u32) -> Option<u64> {
    let sql = "SELECT hidden_seq FROM participants WHERE conversation_id = $1 AND user_id = $2";
    Database.one::<(Option<u64>,)>(sql, params![uuid(id(conversation)), uuid(id(user))]).unwrap().0
}

mod hide {
    use super::*;

    #[test]
    fn is_for_this_user_and_moves_on() {
        let _store = store();
        group(91, [1, 2]);
        for seq in [2, 3] {
            hide(&Database, &id(91), &id(1), seq).unwrap();
            assert_eq!((hidden(91, 1), hidden(91, 2)), (Some(seq), None));
        }
    }
}

mod unhide {
    use super::*;

    #[test]
    fn is_for_this_user() {
        let _store = store();
        group(91, [1, 2]);
        for user in [1, 2] {
            hide(&Database, &id(91), &id(user), 2).unwrap();
        }
        for _ in 0..2 {
            unhide(&id(91), &id(1)).unwrap();
            assert_eq!((hidden(91, 1), hidden(91, 2)), (None, Some(2)));
        }
    }
}

mod update_settings {
    use super::*;

    #[test]
    fn keeps_what_is_none_and_ends_a_mute() {
        let _store = store();
        group(91, [1, 2]);
        let change = |muted_until, archived, pinned| SettingsChange { muted_until, archived, pinned };
        for (change, expected) in [
            (change(Some(Some(500)), None, None), (Some(500), false, false)),
            (change(None, Some(true), None), (Some(500), true, false)),
            (change(None, None, Some(true)), (Some(500), true, true)),
            (change(Some(None), Some(false), None), (None, false, true)),
        ] {
            committed(|tx| update_settings(tx, &id(91), &id(1), &change));
            let seen = one(91, 1);
            assert_eq!((seen.muted_until, seen.archived, seen.pinned), expected);
        }
        let other = one(91, 2);
        assert_eq!((other.muted_until, other.archived, other.pinned), (None, false, false));
    }
}

mod head {
    use super::*;

    #[test]
    fn is_what_all_see_alike() {
        let _store = store();
        group(91, [1]);
        all_said(91, [1]);
        committed(|tx| {
            update_texts(tx, &id(91), None, Some("About"), 70)?;
            set_disappearing(tx, &id(91), 60, 80)
        });
        let found = committed(|tx| head(tx, &id(91)));
        assert_eq!((found.kind.as_str(), found.title.as_deref(), found.description.as_deref()), ("group", Some("Title"), Some("About")));
        assert_eq!((found.created_by, found.created_at, found.updated_at), (id(1), 50, 80));
        assert_eq!((found.last_seq, found.disappearing_after), (1, Some(60)));
        assert!(transaction(|tx| head(tx, &id(92))).is_err());
    }
}

// --- Participants --------------------------------------------------------------------------------------------------------------------

mod participants_of {
    use super::*;

    fn page(viewer: u32, after: (u64, &str), limit: i64) -> Vec<(String, u64)> {
        let found = participants_of(&id(91), &id(viewer), &(after.0, after.1.to_owned()), limit).unwrap();
        found.into_iter().map(|one| (one.user_id, one.read_seq)).collect()
    }

    #[test]
    fn goes_on_after_the_key_in_the_order_they_joined() {
        let _store = store();
        group(91, [3, 2]);
        joined(91, 1, 0);
        group(92, [4]);
        assert_eq!(page(2, (0, NIL), 2), [(id(2), 0), (id(3), 0)]);
        assert_eq!(page(2, (50, &id(2)), 2), [(id(3), 0), (id(1), 0)]);
        assert_eq!(page(2, (60, &id(1)), 2), []);
    }

    #[test]
    fn shows_where_each_has_read_as_far_as_the_viewer_may_know() {
        let _store = store();
        group(91, [1, 2, 3, 4, 5]);
        for user in 1..=5 {
            read(91, user, 2, Shown::Whole);
        }
        read(91, 2, 4, Shown::KeptBack);
        read(91, 3, 4, Shown::KeptBack);
        committed(|tx| show_to(tx, &id(91), &id(3), &id(1), 3));
        blocked(4, 1);
        read(91, 4, 4, Shown::Whole);
        blocked(5, 1);
        unblocked(5, 1);
        read(91, 5, 4, Shown::Whole);
        let reads = |viewer| page(viewer, (0, NIL), 9).into_iter().map(|(_, read_seq)| read_seq).collect::<Vec<_>>();
        assert_eq!(reads(1), [2, 2, 3, 2, 4]);
        assert_eq!(reads(2), [2, 4, 2, 4, 4], "one's own is seen whole");
    }

    #[test]
    fn shows_who_joined_after_blocking_the_viewer_where_they_joined() {
        let _store = store();
        group(91, [1]);
        all_said(91, [1, 1]);
        blocked(2, 1);
        joined(91, 2, 1);
        read(91, 2, 2, Shown::Whole);
        assert_eq!(page(1, (0, NIL), 9), [(id(1), 0), (id(2), 1)]);
    }
}

mod size_of {
    use super::*;

    #[test]
    fn says_the_kind_and_how_many_or_none_where_it_is_gone() {
        let _store = store();
        group(91, [1, 2]);
        group(92, [1]);
        assert_eq!(size_of(&id(91)).unwrap(), Some(("group".to_owned(), 2)));
        ended(91);
        assert_eq!([91, 93].map(|conversation| size_of(&id(conversation)).unwrap()), [None, None]);
    }
}

mod members_among {
    use super::*;

    #[test]
    fn gives_those_who_take_part_in_the_order_they_joined() {
        let _store = store();
        group(91, [3, 2]);
        joined(91, 1, 0);
        group(92, [4]);
        committed(|tx| set_role(tx, &id(91), &id(3), Role::Admin));
        let found = members_among(&id(91), &ids([1, 3, 4, 5])).unwrap();
        let found: Vec<_> = found.into_iter().map(|one| (one.user_id, one.role, one.joined_at)).collect();
        assert_eq!(found, [(id(3), Role::Admin, 50), (id(1), Role::Member, 60)]);
        assert!(members_among(&id(91), &[]).unwrap().is_empty());
    }
}

mod participants_among {
    use super::*;

    #[test]
    fn shows_those_who_take_part_as_the_viewer_may_see_them() {
        let _store = store();
        group(91, [1, 2, 3]);
        read(91, 2, 2, Shown::KeptBack);
        read(91, 3, 2, Shown::Whole);
        let found = |viewer| -> Vec<(String, u64)> {
            let found = participants_among(&id(91), &id(viewer), &ids([2, 3, 4])).unwrap();
            found.into_iter().map(|one| (one.user_id, one.read_seq)).collect()
        };
        assert_eq!(found(1), [(id(2), 0), (id(3), 2)]);
        assert_eq!(found(2), [(id(2), 2), (id(3), 2)]);
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        assert!(participants_among(&id(91), &id(1), &[]).unwrap().is_empty());
        let many = 2 * PARTICIPANT_ROWS_MAX as u32 + 1;
        group(91, 0..many);
        assert_eq!(participants_among(&id(91), &id(1), &ids(0..many)).unwrap().len(), many as usize);
    }
}
