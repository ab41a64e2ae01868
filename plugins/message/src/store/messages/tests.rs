//! Each store function by itself, in a module of its name, on a real database with the service's tables: messages.

use echo_sdk::sql::ErrorClass;
use echo_sdk::transaction;

use super::*;
use crate::bindings::echo::message::model::PollOption;
use crate::bindings::exports::echo::message::api::{MessageType, Poll};
use crate::rules::Shown;
use crate::store::conversations::{begin_roster_change, hide, listed_for, one_for, roster_for};
use crate::store::fixtures::*;
use crate::store::marks::{pin, star};
use crate::store::receipts::{Step, note_undelivered, show_to};

/// Before every message's expiry but those that say so.
const NOW: Timestamp = 1_000;

fn seen(user: u32, message: &Message) -> Option<Message> {
    visible_to(&Database, &id(user), &message.id, NOW).expect("reads")
}

fn seqs(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.seq).collect()
}

/// `(number, content, at)`.
fn kept_edits(message: &Message) -> Vec<(u64, String, u64)> {
    let sql = "SELECT number, content, at FROM edits WHERE message_id = $1 ORDER BY number";
    Database.rows(sql, params![uuid(&message.id)]).expect("reads")
}

// --- Sending -------------------------------------------------------------------------------------------------------------------------

mod take_seq {
    use super::*;

    fn roster() -> Roster {
        roster_for(&Database, &id(91), &id(1)).unwrap().expect("a conversation")
    }

    #[test]
    fn gives_the_next_whether_or_not_somebody_wrote_since_the_roster_was_read() {
        let _store = store();
        group(91, [1]);
        group(92, [1]);
        let roster = roster();
        for (seq, at) in [(1, 100), (2, 200), (3, 300)] {
            assert_eq!(committed(|tx| take_seq(tx, &id(91), &roster, at)), Some(seq));
            assert_eq!(one_for(&id(1), &id(91), NOW).unwrap().unwrap().active_at, at);
        }
        assert_eq!(one_for(&id(1), &id(92), NOW).unwrap().unwrap().last_seq, 0);
    }

    #[test]
    fn gives_none_where_the_roster_is_another() {
        let _store = store();
        group(91, [1]);
        let before = roster();
        committed(|tx| begin_roster_change(tx, &id(91), 70));
        assert_eq!(committed(|tx| take_seq(tx, &id(91), &before, 100)), None);
        let after = roster();
        assert_eq!(committed(|tx| take_seq(tx, &id(91), &after, 100)), Some(1));
    }

    #[test]
    fn gives_a_seq_again_that_was_rolled_back() {
        let _store = store();
        group(91, [1]);
        let roster = roster();
        let undone: Result<(), SqlError> = transaction(|tx| {
            assert_eq!(take_seq(tx, &id(91), &roster, 100)?, Some(1));
            Err(undone())
        });
        undone.unwrap_err();
        assert_eq!(committed(|tx| take_seq(tx, &id(91), &roster, 100)), Some(1));
    }
}

mod insert {
    use super::*;

    #[test]
    fn keeps_all_of_a_message() {
        let _store = store();
        group(91, [1]);
        let whole = Message {
            type_: MessageType::Location,
            media_id: Some(id(5)),
            location: Some(Place { latitude: 51.5, longitude: -0.125, name: Some("London".into()), address: Some("Strand\n1".into()) }),
            contact: Some(ContactCard { name: "Ada".into(), phones: vec!["+1".into(), "+2".into()], user_id: Some(id(6)) }),
            reply_to: Some(id(7)),
            thread_id: Some(id(8)),
            mentions: ids([1, 2]),
            metadata: Some("{\"a\": 1}".into()),
            ..text(91, 1, 1, 100)
        };
        assert!(committed(|tx| insert(tx, &whole, vec![1], None)));
        let found = seen(1, &whole).unwrap();
        assert_eq!(format!("{found:?}"), format!("{whole:?}"));
    }

    #[test]
    fn keeps_a_message_of_each_kind() {
        let _store = store();
        group(91, [1]);
        let kinds = [
            MessageType::Text,
            MessageType::Image,
            MessageType::Video,
            MessageType::Audio,
            MessageType::Document,
            MessageType::Location,
            MessageType::Contact,
            MessageType::Poll,
        ];
        for (seq, type_) in (1..).zip(kinds) {
            let message = Message { type_, ..text(91, seq, 1, 100) };
            assert!(committed(|tx| insert(tx, &message, vec![1], None)));
            assert_eq!(seen(1, &message).unwrap().type_, type_);
        }
    }

    #[test]
    fn is_false_where_the_sender_used_the_client_id_in_whatever_conversation() {
        let _store = store();
        group(91, [1, 2]);
        group(92, [1]);
        all_said(91, [1]);
        let of = |conversation, seq, sender| Message { client_message_id: "91/1".into(), ..text(conversation, seq, sender, 100) };
        let inserted = |message: &Message| committed(|tx| insert(tx, message, vec![9], None));
        assert_eq!([of(91, 2, 1), of(92, 1, 1), of(91, 2, 2)].map(|message| inserted(&message)), [false, false, true]);
    }

    #[test]
    fn takes_a_seq_of_a_conversation_once() {
        let _store = store();
        group(91, [1]);
        all_said(91, [1]);
        let again = Message { id: id(5), client_message_id: "other".into(), ..text(91, 1, 1, 100) };
        let error = transaction(|tx| insert(tx, &again, vec![1], None)).unwrap_err();
        assert_eq!(error.class, ErrorClass::UniqueViolation);
    }
}

mod sent_before {
    use super::*;

    #[test]
    fn finds_what_became_of_the_senders_own_client_id() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [1]);
        let found = sent_before(&id(1), "91/1").unwrap().unwrap();
        assert_eq!((found.content_hash, found.id, found.seq, found.created_at), (vec![1, 2, 3], message_id(91, 1), 1, 100));
        assert!(sent_before(&id(2), "91/1").unwrap().is_none());
        assert!(sent_before(&id(1), "91/2").unwrap().is_none());
    }

    #[test]
    fn finds_it_when_the_message_is_deleted() {
        let _store = store();
        group(91, [1]);
        all_said(91, [1]);
        committed(|tx| delete_for_everyone(tx, &message_id(91, 1), 200));
        assert_eq!(sent_before(&id(1), "91/1").unwrap().unwrap().content_hash, [1, 2, 3]);
    }
}

mod keep_back {
    use super::*;

    fn kept(seq: u64) {
        committed(|tx| keep_back(tx, &id(91), &ids([1]), seq));
    }

    /// `(last_seq, active_at)` as the user sees them.
    fn head(user: u32) -> (u64, u64) {
        let seen = one_for(&id(user), &id(91), NOW).unwrap().expect("a participant");
        (seen.last_seq, seen.active_at)
    }

    fn is_listed(user: u32) -> bool {
        !listed_for(&id(user), &(FIRST.0, FIRST.1.to_owned()), 9, NOW).unwrap().is_empty()
    }

    #[test]
    fn leaves_the_conversation_where_the_user_last_saw_something() {
        let _store = store();
        group(91, [1, 2]);
        for (at, kept_back, expected) in
            [(100, true, (0, 50)), (200, false, (2, 200)), (300, true, (2, 200)), (400, true, (2, 200)), (500, false, (5, 500))]
        {
            let message = said(91, 2, at, None);
            if kept_back {
                kept(message.seq);
            }
            assert_eq!((head(1), seen(1, &message).is_some()), (expected, !kept_back));
            assert_eq!((head(2), seen(2, &message).is_some()), ((message.seq, at), true));
        }
    }

    #[test]
    fn leaves_it_off_the_list_where_it_is_off() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [2]);
        hide(&Database, &id(91), &id(1), 1).unwrap();
        for seq in [2, 3] {
            all_said(91, [2]);
            kept(seq);
            assert!(!is_listed(1));
        }
        all_said(91, [2]);
        assert!(is_listed(1));
    }

    #[test]
    fn leaves_it_on_the_list_where_something_newer_had_come() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [2]);
        hide(&Database, &id(91), &id(1), 1).unwrap();
        all_said(91, [2, 2]);
        kept(3);
        assert!(is_listed(1));
    }

    #[test]
    fn takes_none_and_more_than_a_statement_does() {
        let _store = store();
        let blocking = ids(2..=PARTICIPANT_ROWS_MAX as u32 + 2);
        group(91, 1..=PARTICIPANT_ROWS_MAX as u32 + 2);
        let message = said(91, 1, 100, None);
        committed(|tx| keep_back(tx, &id(91), &[], message.seq));
        assert_eq!(count("hidden_messages"), 0);
        committed(|tx| keep_back(tx, &id(91), &blocking, message.seq));
        assert_eq!(count("hidden_messages"), blocking.len() as i64);
        assert_eq!([1, 2, 500].map(|user| super::seen(user, &message).is_some()), [true, false, false]);
    }
}

// --- What a participant sees -----------------------------------------------------------------------------------------------------------

mod visible_to {
    use super::*;

    #[test]
    fn gives_a_participant_what_was_sent_since_they_joined() {
        let _store = store();
        group(91, [1]);
        let messages = [1, 1].map(|sender| said(91, sender, 100, None));
        joined(91, 2, 1);
        let sees = |user| messages.each_ref().map(|message| seen(user, message).is_some());
        assert_eq!([sees(1), sees(2), sees(3)], [[true, true], [false, true], [false, false]]);
        ended(91);
        assert_eq!(sees(1), [false, false]);
    }

    #[test]
    fn hides_what_is_over_what_was_kept_back_and_what_one_deleted() {
        let _store = store();
        group(91, [1, 2]);
        let over = said(91, 2, 100, Some(NOW));
        let not_over = said(91, 2, 100, Some(NOW + 1));
        let [kept_back, deleted] = [2, 2].map(|sender| said(91, sender, 100, None));
        committed(|tx| keep_back(tx, &id(91), &ids([1]), kept_back.seq));
        delete_for(&id(1), &deleted).unwrap();
        assert_eq!([&over, &not_over, &kept_back, &deleted].map(|message| seen(1, message).is_some()), [false, true, false, false]);
        assert_eq!([&over, &not_over, &kept_back, &deleted].map(|message| seen(2, message).is_some()), [false, true, true, true]);
    }

    #[test]
    fn shows_an_edited_message_as_it_was_to_who_blocked_its_sender_before() {
        let _store = store();
        group(91, [1, 2, 3, 4]);
        let message = said(91, 1, 100, None);
        edited(&message, "second", 200, &[2]);
        edited(&message, "third", 300, &[2, 3]);
        let shown = |user| {
            let seen = seen(user, &message).unwrap();
            (seen.content.unwrap(), seen.edited_at)
        };
        assert_eq!(shown(1), ("third".to_owned(), Some(300)));
        assert_eq!(shown(2), ("text 1".to_owned(), None));
        assert_eq!(shown(3), ("second".to_owned(), Some(200)));
        assert_eq!(shown(4), ("third".to_owned(), Some(300)));
    }

    #[test]
    fn shows_a_deleted_message_without_what_it_said() {
        let _store = store();
        group(91, [1, 2]);
        let message = said(91, 1, 100, None);
        edited(&message, "second", 200, &[2]);
        committed(|tx| delete_for_everyone(tx, &message.id, 300));
        for user in [1, 2] {
            let seen = seen(user, &message).unwrap();
            assert_eq!((seen.content, seen.deleted_at), (None, Some(300)));
        }
    }
}

/// The status is computed where a message is read: the sender's alone, and the least of the recipients'.
mod visible_to_its_sender {
    use super::*;

    /// Message 1 of user 1 to 2 and 3, who joined before it.
    fn status(change: impl Fn()) -> MessageStatus {
        let _store = store();
        group(91, [1, 2, 3]);
        let message = said(91, 1, 100, None);
        said(91, 1, 100, None);
        change();
        seen(1, &message).unwrap().status
    }

    fn both(change: impl Fn(u32)) {
        [2, 3].into_iter().for_each(change);
    }

    #[test]
    fn is_the_least_of_the_recipients() {
        let whole = |user, to| read(91, user, to, Shown::Whole);
        assert_eq!(status(|| {}), MessageStatus::Sent);
        assert_eq!(status(|| delivered(91, 2, 1)), MessageStatus::Sent);
        assert_eq!(status(|| both(|user| delivered(91, user, 1))), MessageStatus::Delivered);
        assert_eq!(status(|| both(|user| delivered(91, user, 2))), MessageStatus::Delivered);
        let one_read = || {
            whole(2, 1);
            delivered(91, 3, 1);
        };
        assert_eq!(status(one_read), MessageStatus::Delivered);
        assert_eq!(status(|| both(|user| whole(user, 2))), MessageStatus::Read);
    }

    #[test]
    fn counts_nobody_who_joined_later_or_left() {
        let read_by_those_who_were_there = || {
            both(|user| read(91, user, 1, Shown::Whole));
            joined(91, 4, 1);
        };
        assert_eq!(status(read_by_those_who_were_there), MessageStatus::Read);
        let alone = || both(|user| committed(|tx| crate::store::conversations::delete_participant(tx, &id(91), &id(user))));
        assert_eq!(status(alone), MessageStatus::Sent);
    }

    #[test]
    fn tells_no_reading_that_is_kept_back_from_the_sender() {
        let kept_back = || both(|user| read(91, user, 1, Shown::KeptBack));
        assert_eq!(status(kept_back), MessageStatus::Delivered);
        let shown_to_the_sender = || {
            kept_back();
            both(|user| committed(|tx| show_to(tx, &id(91), &id(user), &id(1), 1)));
        };
        assert_eq!(status(shown_to_the_sender), MessageStatus::Read);
    }

    #[test]
    fn stays_where_it_was_for_who_blocks_the_sender() {
        let read_after_the_block = || {
            read(91, 3, 1, Shown::Whole);
            blocked(2, 1);
            read(91, 2, 1, Shown::Whole);
        };
        assert_eq!(status(read_after_the_block), MessageStatus::Sent);
        let read_before_the_block = || {
            both(|user| read(91, user, 1, Shown::Whole));
            blocked(2, 1);
        };
        assert_eq!(status(read_before_the_block), MessageStatus::Read);
        let unblocked_again = || {
            read_after_the_block();
            unblocked(2, 1);
        };
        assert_eq!(status(unblocked_again), MessageStatus::Read);
    }

    #[test]
    fn is_sent_where_it_was_kept_from_one_or_reached_no_device_of_one() {
        let kept_from_one = || {
            committed(|tx| keep_back(tx, &id(91), &ids([2]), 1));
            both(|user| read(91, user, 2, Shown::Whole));
        };
        assert_eq!(status(kept_from_one), MessageStatus::Sent);
        let reached_no_device_of_one = || {
            both(|user| delivered(91, user, 2));
            let step = Step { conversation_id: id(91), user_id: id(2), from: 0, to: 2 };
            committed(|tx| note_undelivered(tx, &step, &[2]));
        };
        assert_eq!(status(reached_no_device_of_one), MessageStatus::Sent);
    }

    #[test]
    fn is_nobody_elses_to_see() {
        let _store = store();
        group(91, [1, 2]);
        let message = said(91, 1, 100, None);
        read(91, 2, 1, Shown::Whole);
        assert_eq!([1, 2].map(|user| seen(user, &message).unwrap().status), [MessageStatus::Read, MessageStatus::Sent]);
    }
}

fn span(conversation_id: &str, above: u64, below: u64, limit: i64) -> Span<'_> {
    Span { conversation_id, above, below, limit }
}

/// Five messages of 2 in 91 to 1, the third hidden from 1, and one in another conversation.
fn five() {
    group(91, [1, 2]);
    group(92, [1, 2]);
    all_said(91, [2; 5]);
    all_said(92, [2]);
    delete_for(&id(1), &text(91, 3, 2, 100)).unwrap();
}

mod visible_among {
    use super::*;

    #[test]
    fn gives_those_that_the_user_sees() {
        let _store = store();
        group(91, [1, 2]);
        group(92, [2]);
        let over = said(91, 2, 100, Some(NOW));
        let [one, other] = [1, 2].map(|sender| said(91, sender, 100, None));
        let elsewhere = said(92, 2, 100, None);
        let all: Vec<String> = [&other, &one, &over, &elsewhere].map(|message| message.id.clone()).into();
        let seen_by = |user| {
            let mut seqs = seqs(&visible_among(&id(user), &all, NOW).unwrap());
            seqs.sort_unstable();
            seqs
        };
        assert_eq!((seen_by(1), seen_by(2), seen_by(3)), (vec![2, 3], vec![1, 2, 3], vec![]));
        assert!(visible_among(&id(1), &[], NOW).unwrap().is_empty());
        assert_eq!(seqs(&visible_among(&id(1), &all[..1], NOW).unwrap()), [3]);
    }
}

mod newest_first {
    use super::*;

    #[test]
    fn gives_those_between_the_two_that_the_user_sees() {
        let _store = store();
        five();
        let of = |user, above, below, limit| seqs(&newest_first(&id(user), &span(&id(91), above, below, limit), NOW).unwrap());
        assert_eq!(of(1, 0, i64::MAX as u64, 9), [5, 4, 2, 1]);
        assert_eq!(of(1, 0, 5, 2), [4, 2]);
        assert_eq!(of(1, 1, 4, 9), [2]);
        assert_eq!(of(2, 1, 4, 9), [3, 2]);
        assert!(of(3, 0, 9, 9).is_empty());
    }
}

mod oldest_first {
    use super::*;

    #[test]
    fn gives_those_between_the_two_that_the_user_sees() {
        let _store = store();
        five();
        let of = |user, above, below, limit| seqs(&oldest_first(&id(user), &span(&id(91), above, below, limit), NOW).unwrap());
        assert_eq!(of(1, 0, i64::MAX as u64, 9), [1, 2, 4, 5]);
        assert_eq!(of(1, 1, 9, 2), [2, 4]);
        assert_eq!(of(2, 1, 4, 9), [2, 3]);
        assert!(of(3, 0, 9, 9).is_empty());
    }
}

mod thread_of {
    use super::*;

    #[test]
    fn gives_what_the_user_sees_of_it_oldest_first_above_the_seq() {
        let _store = store();
        group(91, [1, 2]);
        let first = said(91, 1, 100, None);
        said_in_thread(91, 2, &first, None);
        let other = said(91, 2, 100, None);
        said_in_thread(91, 2, &other, None);
        said_in_thread(91, 2, &first, Some(NOW));
        said_in_thread(91, 1, &first, None);
        let deleted = said_in_thread(91, 1, &first, None);
        delete_for(&id(2), &deleted).unwrap();
        let thread = |user, above, limit| seqs(&thread_of(&id(user), &first.id, above, limit, NOW).unwrap());
        assert_eq!((thread(1, 0, 9), thread(2, 0, 9), thread(3, 0, 9)), (vec![2, 6, 7], vec![2, 6], vec![]));
        assert_eq!((thread(1, 0, 2), thread(1, 6, 9)), (vec![2, 6], vec![7]));
    }
}

mod last_of_each {
    use super::*;

    #[test]
    fn gives_the_newest_that_the_user_sees_in_each() {
        let _store = store();
        for conversation in 91..=94 {
            group(conversation, [1, 2]);
        }
        group(95, [2]);
        all_said(91, [2, 2, 2]);
        delete_for(&id(1), &text(91, 3, 2, 100)).unwrap();
        all_said(92, [2]);
        said(92, 2, 100, Some(NOW));
        all_said(93, [2]);
        committed(|tx| keep_back(tx, &id(93), &ids([1]), 1));
        all_said(95, [2]);
        let mut found: Vec<_> =
            last_of_each(&id(1), &ids(91..=95), NOW).unwrap().into_iter().map(|message| (message.conversation_id, message.seq)).collect();
        found.sort_unstable();
        assert_eq!(found, [(id(91), 2), (id(92), 1)]);
        assert!(last_of_each(&id(1), &[], NOW).unwrap().is_empty());
    }

    #[test]
    fn gives_nothing_of_before_the_user_joined() {
        let _store = store();
        group(91, [2]);
        all_said(91, [2]);
        joined(91, 1, 1);
        assert!(last_of_each(&id(1), &ids([91]), NOW).unwrap().is_empty());
    }

    #[test]
    fn gives_nothing_of_a_conversation_that_is_ended() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [2]);
        ended(91);
        assert!(last_of_each(&id(1), &ids([91]), NOW).unwrap().is_empty());
    }
}

// --- Changing --------------------------------------------------------------------------------------------------------------------------

mod begin_edit {
    use super::*;

    #[test]
    fn counts_and_gives_what_is_replaced_with_the_time_it_was_written() {
        let _store = store();
        group(91, [1]);
        let message = said(91, 1, 100, None);
        assert_eq!(committed(|tx| begin_edit(tx, &message.id)), Some((1, Some("text 1".to_owned()), 100)));
        committed(|tx| set_content(tx, &message.id, "second", 200));
        assert_eq!(committed(|tx| begin_edit(tx, &message.id)), Some((2, Some("second".to_owned()), 200)));
    }

    #[test]
    fn is_none_where_the_message_is_deleted_or_unknown() {
        let _store = store();
        group(91, [1]);
        let message = said(91, 1, 100, None);
        committed(|tx| delete_for_everyone(tx, &message.id, 200));
        assert_eq!(committed(|tx| begin_edit(tx, &message.id)), None);
        assert_eq!(committed(|tx| begin_edit(tx, &id(5))), None);
    }
}

mod keep_edit {
    use super::*;

    #[test]
    fn keeps_each_number_once() {
        let _store = store();
        group(91, [1]);
        let message = said(91, 1, 100, None);
        committed(|tx| keep_edit(tx, &message.id, 1, "first", 100));
        committed(|tx| keep_edit(tx, &message.id, 2, "second", 200));
        assert_eq!(kept_edits(&message), [(1, "first".to_owned(), 100), (2, "second".to_owned(), 200)]);
        let error = transaction(|tx| keep_edit(tx, &message.id, 2, "other", 300)).unwrap_err();
        assert_eq!(error.class, ErrorClass::UniqueViolation);
    }
}

mod set_content {
    use super::*;

    #[test]
    fn is_of_this_message_and_says_when() {
        let _store = store();
        group(91, [1]);
        let messages = [1, 1].map(|sender| said(91, sender, 100, None));
        committed(|tx| set_content(tx, &messages[0].id, "second", 200));
        let [first, other] = messages.each_ref().map(|message| seen(1, message).unwrap());
        assert_eq!((first.content.as_deref(), first.edited_at), (Some("second"), Some(200)));
        assert_eq!((other.content.as_deref(), other.edited_at), (Some("text 2"), None));
    }
}

mod withhold_edit {
    use super::*;

    fn withheld(message: &Message) -> Vec<(String, u64)> {
        let sql = "SELECT user_id, number FROM withheld_edits WHERE message_id = $1 ORDER BY user_id";
        Database.rows(sql, params![uuid(&message.id)]).unwrap()
    }

    #[test]
    fn keeps_the_first_edit_that_a_user_is_not_to_see() {
        let _store = store();
        group(91, [1]);
        let message = said(91, 1, 100, None);
        committed(|tx| withhold_edit(tx, &message.id, 1, &ids([2])));
        committed(|tx| withhold_edit(tx, &message.id, 2, &ids([2, 3])));
        assert_eq!(withheld(&message), [(id(2), 1), (id(3), 2)]);
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        group(91, [1]);
        let message = said(91, 1, 100, None);
        committed(|tx| withhold_edit(tx, &message.id, 1, &[]));
        assert_eq!(withheld(&message), []);
        let many = 2 * PARTICIPANT_ROWS_MAX as u32 + 1;
        committed(|tx| withhold_edit(tx, &message.id, 1, &ids(0..many)));
        assert_eq!(withheld(&message).len(), many as usize);
    }
}

mod edits_of {
    use super::*;

    #[test]
    fn gives_those_that_the_user_may_know_of_oldest_first() {
        let _store = store();
        group(91, [1, 2, 3]);
        let message = said(91, 1, 100, None);
        let other = said(91, 1, 100, None);
        edited(&message, "second", 200, &[2]);
        edited(&message, "third", 300, &[2, 3]);
        let of = |user, message: &Message| -> Vec<(String, u64)> {
            edits_of(&id(user), &message.id).unwrap().into_iter().map(|edit| (edit.content, edit.at)).collect()
        };
        let (first, second) = (("text 1".to_owned(), 100), ("second".to_owned(), 200));
        assert_eq!(of(1, &message), [first.clone(), second]);
        assert_eq!(of(2, &message), []);
        assert_eq!(of(3, &message), [first]);
        assert_eq!(of(1, &other), []);
    }
}

/// Everything that the row still says of what was sent, but for what tells a repetition.
fn what_it_says(message: &Message) -> Vec<echo_sdk::sql::Value> {
    let columns = "content, media_id, latitude, longitude, place_name, place_address, contact_name, contact_phones, contact_user_id, mentions, metadata";
    let sql = format!("SELECT {columns} FROM messages WHERE id = $1");
    let Everything(values) = Database.one(&sql, params![uuid(&message.id)]).unwrap();
    values.into_iter().filter(|value| *value != Value::Null).collect()
}

struct Everything(Vec<Value>);

impl FromRow for Everything {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        Ok(Self((0..11).map(|_| row.take()).collect::<Result<_, _>>()?))
    }
}

/// Says something in every column, and is edited once, which 2 does not see.
fn full(seq: u64, expires_at: Option<Timestamp>) -> Message {
    let message = Message {
        media_id: Some(id(5)),
        location: Some(Place { latitude: 51.5, longitude: -0.125, name: Some("London".into()), address: Some("Strand".into()) }),
        contact: Some(ContactCard { name: "Ada".into(), phones: vec!["+1".into()], user_id: Some(id(6)) }),
        mentions: ids([1]),
        metadata: Some("{}".into()),
        ..text(91, seq, 1, 100)
    };
    assert!(committed(|tx| insert(tx, &message, vec![1], expires_at)));
    edited(&message, "second", 200, &[2]);
    reacted(&message, 2, "👍", 200);
    star(&id(2), &message.id, 200).unwrap();
    committed(|tx| pin(tx, &message, &id(1), 200));
    let poll = Poll {
        question: String::new(),
        options: vec![PollOption { text: "a".into(), votes: 0 }],
        multiple: false,
        closes_at: None,
        closed: false,
        voters: 0,
        own_votes: vec![],
    };
    committed(|tx| crate::store::polls::insert(tx, &message.id, &poll));
    voted(&message, 2, &[0]);
    committed(|tx| crate::store::words::insert(tx, &id(91), &message.id, &["second".to_owned()]));
    assert_eq!((what_it_says(&message).len(), rows_beside(&message)), (11, 9));
    message
}

/// In the tables of what belongs to a message.
fn rows_beside(message: &Message) -> i64 {
    let count = |table: &str| {
        let sql = format!("SELECT COUNT(*) FROM {table} WHERE message_id = $1");
        Database.one::<(i64,)>(&sql, params![uuid(&message.id)]).unwrap().0
    };
    GOES_WITH_A_MESSAGE.into_iter().map(count).sum()
}

mod delete_for_everyone {
    use super::*;

    #[test]
    fn leaves_nothing_of_what_it_said_or_said_before() {
        let _store = store();
        group(91, [1, 2]);
        let [message, other] = [1, 2].map(|seq| full(seq, None));
        assert!(committed(|tx| delete_for_everyone(tx, &message.id, 300)));
        assert_eq!((what_it_says(&message), rows_beside(&message)), (vec![], 0));
        assert_eq!((what_it_says(&other).len(), rows_beside(&other)), (11, 9));
    }

    #[test]
    fn deletes_once() {
        let _store = store();
        group(91, [1]);
        let message = said(91, 1, 100, None);
        assert_eq!([300, 400].map(|at| committed(|tx| delete_for_everyone(tx, &message.id, at))), [true, false]);
        assert_eq!(seen(1, &message).unwrap().deleted_at, Some(300));
        assert!(!committed(|tx| delete_for_everyone(tx, &id(5), 300)));
    }
}

mod take_expired {
    use super::*;

    fn taken(now: Timestamp, limit: i64) -> Vec<(String, u64)> {
        committed(|tx| take_expired(tx, now, limit)).into_iter().map(|one| (one.conversation_id, one.seq)).collect()
    }

    #[test]
    fn takes_those_whose_time_is_over_once_by_conversation_and_seq() {
        let _store = store();
        group(91, [1]);
        group(92, [1]);
        said(92, 1, 100, Some(400));
        said(91, 1, 100, Some(500));
        said(91, 1, 100, Some(300));
        said(91, 1, 100, Some(501));
        said(91, 1, 100, None);
        assert_eq!(taken(299, 9), []);
        assert_eq!(taken(500, 9), [(id(91), 1), (id(91), 2), (id(92), 1)]);
        assert_eq!(taken(500, 9), []);
    }

    #[test]
    fn takes_so_many_at_most_the_longest_over_first() {
        let _store = store();
        group(91, [1]);
        for expires_at in [500, 300, 400] {
            said(91, 1, 100, Some(expires_at));
        }
        assert_eq!([taken(900, 2), taken(900, 2)], [vec![(id(91), 2), (id(91), 3)], vec![(id(91), 1)]]);
    }

    #[test]
    fn leaves_what_was_deleted_before() {
        let _store = store();
        group(91, [1]);
        let message = said(91, 1, 100, Some(500));
        committed(|tx| delete_for_everyone(tx, &message.id, 300));
        assert_eq!(taken(900, 9), []);
    }

    #[test]
    fn leaves_nothing_of_what_they_said_or_said_before() {
        let _store = store();
        group(91, [1, 2]);
        let [message, other] = [(1, Some(500)), (2, None)].map(|(seq, expires_at)| full(seq, expires_at));
        let expired = committed(|tx| take_expired(tx, 900, 9));
        assert_eq!((expired.len(), &expired[0].id, &expired[0].sender_id), (1, &message.id, &id(1)));
        assert_eq!((what_it_says(&message), rows_beside(&message)), (vec![], 0));
        assert_eq!((what_it_says(&other).len(), rows_beside(&other)), (11, 9));
    }
}

mod take_ended {
    use super::*;

    fn taken(limit: i64) -> Option<Vec<u64>> {
        committed(|tx| take_ended(tx, 900, limit)).map(|ended| ended.into_iter().map(|one| one.seq).collect())
    }

    #[test]
    fn takes_those_of_an_ended_conversation_by_seq_and_each_once() {
        let _store = store();
        group(91, [1]);
        group(92, [1]);
        for conversation in [91, 91, 91, 92] {
            said(conversation, 1, 100, None);
        }
        assert_eq!(taken(2), None, "none is ended");
        ended(91);
        assert_eq!([taken(2), taken(2), taken(2), taken(2)], [Some(vec![1, 2]), Some(vec![3]), Some(vec![]), None]);
    }

    #[test]
    fn leaves_nothing_of_what_they_said() {
        let _store = store();
        group(91, [1, 2]);
        let message = full(1, None);
        ended(91);
        assert_eq!(taken(9), Some(vec![1]));
        assert_eq!((what_it_says(&message), rows_beside(&message)), (vec![], 0));
    }

    #[test]
    fn leaves_nothing_of_what_was_begun_to_be_written() {
        let _store = store();
        group(91, [1]);
        group(92, [1]);
        for conversation in [91, 92] {
            drafted(conversation, 1, "words");
        }
        for conversation in [91, 92] {
            let insert = "INSERT INTO invites (code, conversation_id, created_by, created_at) VALUES ($1, $2, $3, $4)";
            Database.execute(insert, params![conversation.to_string(), uuid(id(conversation)), uuid(id(1)), timestamp(100)]).unwrap();
            let insert = "INSERT INTO scheduled (id, sender_id, conversation_id, client_message_id, content_hash, kind, content, send_at, created_at) \
                VALUES ($1, $2, $1, $3, $4, 'text', 'words', $5, $5)";
            let values = params![uuid(id(conversation)), uuid(id(1)), conversation.to_string(), vec![1], timestamp(100)];
            Database.execute(insert, values).unwrap();
        }
        ended(91);
        assert_eq!((taken(9), ["drafts", "invites", "scheduled"].map(count)), (Some(vec![]), [1, 1, 1]));
    }
}

mod contents_of {
    use super::*;

    #[test]
    fn gives_those_that_are_there() {
        let _store = store();
        group(91, [1]);
        group(92, [1]);
        let [plain, deleted] = [1, 1].map(|sender| said(91, sender, 100, None));
        let over = said(91, 1, 100, Some(NOW));
        let without_text = Message { content: None, ..text(91, 4, 1, 100) };
        committed(|tx| insert(tx, &without_text, vec![1], None));
        let of_an_ended_one = said(92, 1, 100, None);
        ended(92);
        committed(|tx| delete_for_everyone(tx, &deleted.id, 200));
        let asked = [&plain, &deleted, &over, &without_text, &of_an_ended_one].map(|message| message.id.clone());
        let mut found = contents_of(&asked, NOW).unwrap();
        found.sort_unstable();
        assert_eq!(found, [(plain.id, Some("text 1".to_owned())), (without_text.id, None)]);
        assert!(contents_of(&[], NOW).unwrap().is_empty());
    }
}

mod delete_for {
    use super::*;

    #[test]
    fn hides_it_from_this_user_and_leaves_why_it_was_hidden_before() {
        let _store = store();
        group(91, [1, 2]);
        let [message, kept_back] = [2, 2].map(|sender| said(91, sender, 100, None));
        committed(|tx| keep_back(tx, &id(91), &ids([1]), kept_back.seq));
        for _ in 0..2 {
            delete_for(&id(1), &message).unwrap();
            delete_for(&id(1), &kept_back).unwrap();
        }
        assert_eq!([1, 2].map(|user| seen(user, &message).is_some()), [false, true]);
        let reasons: Vec<(String, u64, String)> =
            Database.rows("SELECT user_id, seq, reason FROM hidden_messages ORDER BY seq", params![]).unwrap();
        assert_eq!(reasons, [(id(1), 1, "deleted".to_owned()), (id(1), 2, "blocked".to_owned())]);
    }
}

mod audience_of {
    use super::*;

    #[test]
    fn is_those_who_were_there_and_from_whom_it_is_not_hidden() {
        let _store = store();
        group(91, [1, 2, 3, 4]);
        group(92, [5]);
        let message = said(91, 1, 100, None);
        joined(91, 6, 1);
        joined(91, 7, 0);
        committed(|tx| keep_back(tx, &id(91), &ids([2]), 1));
        delete_for(&id(3), &message).unwrap();
        assert_eq!(sorted(committed(|tx| audience_of(tx, &id(91), 1))), ids([1, 4, 7]));
    }
}

fn said_with_file(conversation: u32, expires_at: Option<Timestamp>) -> Message {
    let message = said(conversation, 1, 100, expires_at);
    committed(|tx| tx.execute("UPDATE messages SET media_id = $2 WHERE id = $1", params![uuid(&message.id), uuid(id(5))]));
    message
}

mod media_kinds_seen_by {
    use super::*;

    #[test]
    fn are_those_of_the_messages_that_the_user_sees() {
        let _store = store();
        group(91, [1, 2]);
        let kinds = |user: u32| media_kinds_seen_by(&id(user), &id(5), NOW).unwrap();
        assert_eq!(kinds(1), [""; 0]);
        let message = said_with_file(91, None);
        committed(|tx| tx.execute("UPDATE messages SET kind = 'image' WHERE id = $1", params![uuid(&message.id)]));
        assert_eq!((kinds(1), kinds(2), kinds(4)), (vec!["image".to_owned()], vec!["image".to_owned()], vec![]));
        committed(|tx| delete_for_everyone(tx, &message.id, 300));
        assert_eq!(kinds(1), [""; 0]);
    }
}

mod media_seen_by {
    use super::*;

    fn seen_by(users: [u32; 4], now: Timestamp) -> [bool; 4] {
        users.map(|user| media_seen_by(&id(user), &id(5), now).unwrap())
    }

    /// 1 writes, 2 reads, 3 came later, 4 is nobody here.
    #[test]
    fn is_who_sees_a_message_with_it() {
        let _store = store();
        group(91, [1, 2]);
        assert_eq!(seen_by([1, 2, 3, 4], NOW), [false; 4]);
        let message = said_with_file(91, Some(NOW + 100));
        joined(91, 3, message.seq);
        assert_eq!(seen_by([1, 2, 3, 4], NOW), [true, true, false, false]);
        assert_eq!(seen_by([1, 2, 3, 4], NOW + 100), [false; 4], "it has disappeared");
        assert!(!media_seen_by(&id(2), &id(6), NOW).unwrap(), "another file");
        delete_for(&id(2), &message).unwrap();
        assert_eq!(seen_by([1, 2, 3, 4], NOW), [true, false, false, false]);
        committed(|tx| delete_for_everyone(tx, &message.id, 300));
        assert_eq!(seen_by([1, 2, 3, 4], NOW), [false; 4]);
    }

    #[test]
    fn is_nobody_of_a_conversation_that_has_ended() {
        let _store = store();
        group(91, [1, 2]);
        said_with_file(91, None);
        ended(91);
        assert_eq!(seen_by([1, 2, 3, 4], NOW), [false; 4]);
    }
}

mod media_is_used {
    use super::*;

    fn used(now: Timestamp) -> bool {
        media_is_used(&id(5), now).unwrap()
    }

    #[test]
    fn is_true_as_long_as_one_message_has_it() {
        let _store = store();
        group(91, [1]);
        group(92, [1]);
        assert!(!used(NOW));
        let message = said_with_file(91, None);
        said_with_file(92, Some(NOW + 100));
        committed(|tx| delete_for_everyone(tx, &message.id, 300));
        assert_eq!([NOW, NOW + 100].map(used), [true, false]);
    }

    #[test]
    fn is_true_where_one_is_to_be_sent() {
        let _store = store();
        committed(|tx| {
            tx.execute(
                "INSERT INTO scheduled (id, sender_id, conversation_id, client_message_id, content_hash, kind, media_id, send_at, created_at, revision) \
                 VALUES ($1, $2, $3, 'a', $4, 'image', $5, $6, $7, 1)",
                params![uuid(id(7)), uuid(id(1)), uuid(id(91)), vec![1_u8], uuid(id(5)), timestamp(500), timestamp(100)],
            )
        });
        assert!(used(NOW));
    }
}
