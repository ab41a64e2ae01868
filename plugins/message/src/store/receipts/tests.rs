//! Each store function by itself, in a module of its name, on a real database with the service's tables: watermarks and their times.

use echo_sdk::sql::ErrorClass;
use echo_sdk::transaction;

use super::*;
use crate::store::fixtures::*;
use crate::store::messages::{delete_for, insert, keep_back};

fn step(conversation: u32, user: u32, from: u64, to: u64) -> Step {
    Step { conversation_id: id(conversation), user_id: id(user), from, to }
}

/// Whole, in order: `(kind, up_to_seq, at)`.
fn marks(conversation: u32, user: u32) -> Vec<(String, u64, u64)> {
    let sql = "SELECT kind, up_to_seq, at FROM receipt_marks WHERE conversation_id = $1 AND user_id = $2 ORDER BY kind, up_to_seq";
    Database.rows(sql, params![uuid(id(conversation)), uuid(id(user))]).unwrap()
}

fn undelivered(conversation: u32, user: u32) -> Vec<u64> {
    let sql = "SELECT seq FROM undelivered WHERE conversation_id = $1 AND user_id = $2 ORDER BY seq";
    Database.rows::<(u64,)>(sql, params![uuid(id(conversation)), uuid(id(user))]).unwrap().into_iter().map(|(seq,)| seq).collect()
}

fn left_out(conversation: u32, user: u32, from: u64, to: u64, but: &[u64]) {
    committed(|tx| note_undelivered(tx, &step(conversation, user, from, to), but));
}

mod undelivered_among {
    use super::*;

    /// `(user, message)` that reached a device, in: `(user, watermark, conversation, seq, withheld)`.
    fn found(reached: &[(u32, String)]) -> Vec<(String, u64, String, u64, bool)> {
        let users: Vec<String> = reached.iter().map(|(user, _)| id(*user)).collect();
        let reached: Vec<Reached<'_>> =
            reached.iter().zip(&users).map(|((_, message_id), user_id)| Reached { user_id, message_id, behind: false }).collect();
        let found = undelivered_among(&reached).unwrap();
        let row = |one: Undelivered| (one.user_id, one.delivered_seq, one.message.conversation_id, one.message.seq, one.message.withheld);
        found.into_iter().map(row).collect()
    }

    #[test]
    fn gives_those_of_others_beyond_the_watermark_by_user_conversation_and_seq() {
        let _store = store();
        group(91, [1, 2, 3]);
        group(92, [1, 2]);
        all_said(91, [3, 3, 1, 3]);
        all_said(92, [2]);
        delivered(91, 1, 1);
        let reached = [
            (2, message_id(91, 4)),
            (1, message_id(92, 1)),
            (1, message_id(91, 4)),
            (1, message_id(91, 1)),
            (1, message_id(91, 3)),
            (1, message_id(91, 2)),
        ];
        let row = |user, watermark, conversation, seq| (id(user), watermark, id(conversation), seq, false);
        assert_eq!(found(&reached), [row(1, 1, 91, 2), row(1, 1, 91, 4), row(1, 0, 92, 1), row(2, 0, 91, 4)]);
    }

    #[test]
    fn gives_what_was_left_out_below_the_watermark() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [2, 2, 2]);
        delivered(91, 1, 3);
        left_out(91, 1, 0, 3, &[2]);
        let reached: Vec<_> = (1..=3).map(|seq| (1, message_id(91, seq))).collect();
        assert_eq!(found(&reached), [(id(1), 3, id(91), 1, false)]);
    }

    #[test]
    fn gives_each_once_and_none_to_who_takes_no_part() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [2]);
        let reached = [(1, message_id(91, 1)), (3, message_id(91, 1)), (1, message_id(91, 1)), (1, message_id(91, 2))];
        assert_eq!(found(&reached), [(id(1), 0, id(91), 1, false)]);
    }

    #[test]
    fn says_which_are_to_be_withheld_from_a_sender_who_is_blocked() {
        let _store = store();
        group(91, [1, 2, 3]);
        all_said(91, [2, 3]);
        blocked(1, 2);
        blocked(3, 1);
        blocked(1, 3);
        unblocked(1, 3);
        let reached = [(1, message_id(91, 1)), (1, message_id(91, 2))];
        assert_eq!(found(&reached), [(id(1), 0, id(91), 1, true), (id(1), 0, id(91), 2, false)]);
    }

    #[test]
    fn takes_an_empty_list_and_as_many_as_are_worked_off_at_once() {
        let _store = store();
        assert_eq!(found(&[]), []);
        group(91, [1, 2]);
        let many = crate::bounds::RECEIPTS_AT_ONCE;
        all_said(91, std::iter::repeat_n(2, many));
        for some in [3, many] {
            let reached: Vec<_> = (1..=some as u64).map(|seq| (1, message_id(91, seq))).collect();
            assert_eq!(found(&reached).len(), some);
        }
    }
}

mod raise_all_delivered {
    use super::*;

    #[test]
    fn moves_each_and_notes_when() {
        let _store = store();
        group(91, [1, 2, 3]);
        all_said(91, [3, 3, 3]);
        delivered(91, 2, 1);
        // Of three the last is repeated, to make four.
        let steps = [step(91, 1, 0, 2), step(91, 2, 1, 3), step(91, 3, 0, 1)];
        assert!(committed(|tx| raise_all_delivered(tx, &steps, 200)));
        assert_eq!([1, 2, 3].map(|user| watermarks(91, user)), [(2, 0), (3, 0), (1, 0)]);
        assert_eq!(marks(91, 1), [("delivered".to_owned(), 2, 200)]);
        assert_eq!(marks(91, 2), [("delivered".to_owned(), 3, 200)]);
    }

    #[test]
    fn is_false_where_one_stands_elsewhere_or_takes_no_part() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [2, 2]);
        delivered(91, 1, 1);
        for steps in [[step(91, 1, 0, 2), step(91, 2, 0, 2)], [step(91, 1, 1, 2), step(91, 9, 0, 2)]] {
            let refused = transaction(|tx| match raise_all_delivered(tx, &steps, 200)? {
                true => Ok(()),
                false => Err(undone()),
            });
            assert_eq!(refused.unwrap_err().message, undone().message);
        }
        assert_eq!((watermarks(91, 1), marks(91, 1)), ((1, 0), vec![]));
    }

    #[test]
    fn takes_an_empty_list() {
        let _store = store();
        assert!(committed(|tx| raise_all_delivered(tx, &[], 200)));
    }
}

mod note_undelivered {
    use super::*;

    #[test]
    fn notes_those_of_others_between_the_two_but_the_given() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [2, 2, 1, 2, 2, 2]);
        left_out(91, 1, 1, 6, &[4, 6]);
        assert_eq!((undelivered(91, 1), undelivered(91, 2)), (vec![2, 5], vec![]));
        left_out(91, 1, 1, 6, &[6]);
        assert_eq!(undelivered(91, 1), [2, 4, 5], "again changes nothing");
    }

    #[test]
    fn leaves_out_what_was_kept_from_the_user_and_not_what_the_user_deleted() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [2, 2, 2]);
        committed(|tx| keep_back(tx, &id(91), &ids([1]), 1));
        delete_for(&id(1), &text(91, 2, 2, 100)).unwrap();
        left_out(91, 1, 0, 3, &[3]);
        assert_eq!(undelivered(91, 1), [2]);
    }

    #[test]
    fn notes_all_where_none_is_given() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [2, 2, 2]);
        left_out(91, 1, 0, 3, &[]);
        assert_eq!(undelivered(91, 1), [1, 2]);
    }
}

mod forget_undelivered {
    use super::*;

    #[test]
    fn forgets_from_and_up_to_both_included_and_says_how_many() {
        let _store = store();
        group(91, [1, 2, 3]);
        all_said(91, [3, 3, 3, 3, 3]);
        for user in [1, 2] {
            left_out(91, user, 0, 5, &[3, 5]);
        }
        assert_eq!(committed(|tx| forget_undelivered(tx, &id(91), &id(1), 2, 4)), 2);
        assert_eq!((undelivered(91, 1), undelivered(91, 2)), (vec![1], vec![1, 2, 4]));
        assert_eq!(committed(|tx| forget_undelivered(tx, &id(91), &id(1), 2, 4)), 0);
    }
}

mod oldest_undelivered {
    use super::*;

    #[test]
    fn is_the_lowest_up_to_the_seq_of_this_user() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [2, 2, 2, 2, 2]);
        left_out(91, 1, 1, 5, &[3, 5]);
        let oldest = |user, up_to| oldest_undelivered(&Database, &id(91), &id(user), up_to).unwrap();
        assert_eq!([oldest(1, 1), oldest(1, 2), oldest(1, 9), oldest(2, 9)], [None, Some(2), Some(2), None]);
    }
}

mod newest_per_sender {
    use super::*;

    fn newest(user: u32, above: u64, up_to: u64) -> Vec<(String, u64, bool)> {
        let found = newest_per_sender(&Database, &id(91), &id(user), above, up_to).unwrap();
        found.into_iter().map(|one| (one.sender_id, one.seq, one.withheld)).collect()
    }

    #[test]
    fn gives_one_of_each_other_sender_above_and_up_to_the_newest_first() {
        let _store = store();
        group(91, [1, 2, 3]);
        group(92, [1, 4]);
        all_said(91, [2, 3, 2, 1, 3]);
        all_said(92, [4, 4]);
        assert_eq!(newest(1, 0, 9), [(id(3), 5, false), (id(2), 3, false)]);
        assert_eq!(newest(1, 0, 3), [(id(2), 3, false), (id(3), 2, false)]);
        assert_eq!(newest(1, 3, 4), []);
        assert_eq!(newest(2, 2, 5), [(id(3), 5, false), (id(1), 4, false)]);
    }

    #[test]
    fn leaves_out_what_was_kept_from_the_user_and_marks_who_is_blocked() {
        let _store = store();
        group(91, [1, 2, 3]);
        all_said(91, [2, 2, 3]);
        blocked(1, 2);
        committed(|tx| keep_back(tx, &id(91), &ids([1]), 2));
        delete_for(&id(1), &text(91, 3, 3, 100)).unwrap();
        assert_eq!(newest(1, 0, 9), [(id(3), 3, false), (id(2), 1, true)]);
    }

    #[test]
    fn gives_so_many_senders_at_most() {
        let _store = store();
        group(91, [1]);
        let many = SENDERS_TOLD_MAX as u64 + 1;
        committed(|tx| (1..=many).try_for_each(|seq| insert(tx, &text(91, seq, 1_000 + seq as u32, 100), vec![1], None).map(drop)));
        let found = newest(1, 0, many);
        assert_eq!((found.len(), found[0].1), (SENDERS_TOLD_MAX as usize, many));
    }
}

mod raise_delivered {
    use super::*;

    #[test]
    fn moves_it_from_where_it_was_seen_and_from_nowhere_else() {
        let _store = store();
        group(91, [1, 2]);
        let raised = |from, to| committed(|tx| raise_delivered(tx, &id(91), &id(1), from, to));
        assert_eq!([raised(0, 2), raised(0, 3), raised(2, 4)], [true, false, true]);
        assert_eq!([1, 2].map(|user| watermarks(91, user)), [(4, 0), (0, 0)]);
        assert!(!committed(|tx| raise_delivered(tx, &id(91), &id(9), 0, 1)));
    }
}

mod raise_read {
    use super::*;

    fn shown_read(user: u32) -> Option<u64> {
        let sql = "SELECT shown_read_seq FROM participants WHERE conversation_id = $1 AND user_id = $2";
        Database.one::<(Option<u64>,)>(sql, params![uuid(id(91)), uuid(id(user))]).unwrap().0
    }

    #[test]
    fn delivers_what_is_read_and_takes_nothing_back() {
        let _store = store();
        group(91, [1, 2]);
        delivered(91, 1, 3);
        read(91, 1, 2, Shown::Whole);
        assert_eq!(watermarks(91, 1), (3, 2));
        read(91, 1, 5, Shown::Whole);
        assert_eq!((watermarks(91, 1), watermarks(91, 2)), ((5, 5), (0, 0)));
    }

    #[test]
    fn moves_it_from_where_it_was_seen_and_from_nowhere_else() {
        let _store = store();
        group(91, [1]);
        let raised = |from, to| committed(|tx| raise_read(tx, &id(91), &id(1), from, to, Shown::Whole));
        assert_eq!([raised(0, 2), raised(0, 3), raised(2, 3)], [true, false, true]);
        assert_eq!(watermarks(91, 1), (3, 3));
    }

    #[test]
    fn keeps_back_from_where_others_may_know_it_until_all_is_shown() {
        let _store = store();
        group(91, [1]);
        for (to, shown, expected) in [
            (1, Shown::Whole, None),
            (2, Shown::Unchanged, None),
            (3, Shown::KeptBack, Some(2)),
            (4, Shown::KeptBack, Some(2)),
            (5, Shown::Unchanged, Some(2)),
            (6, Shown::Whole, None),
        ] {
            read(91, 1, to, shown);
            assert_eq!(shown_read(1), expected, "read up to {to}");
        }
    }
}

mod show_to {
    use super::*;
    use crate::store::conversations::participants_among;

    fn seen(viewer: u32) -> u64 {
        participants_among(&id(91), &id(viewer), &ids([1])).unwrap()[0].read_seq
    }

    #[test]
    fn lets_one_viewer_know_and_nobody_else() {
        let _store = store();
        group(91, [1, 2, 3]);
        read(91, 1, 1, Shown::Whole);
        read(91, 1, 4, Shown::KeptBack);
        committed(|tx| show_to(tx, &id(91), &id(1), &id(2), 3));
        assert_eq!([1, 2, 3].map(seen), [4, 3, 1]);
        committed(|tx| show_to(tx, &id(91), &id(1), &id(2), 4));
        assert_eq!([1, 2, 3].map(seen), [4, 4, 1]);
    }
}

mod mark {
    use super::*;

    #[test]
    fn keeps_the_first_time_of_each_seq_and_kind() {
        let _store = store();
        for (kind, seq, at) in [("read", 2, 10), ("read", 2, 20), ("delivered", 2, 30), ("read", 3, 40)] {
            committed(|tx| mark(tx, &id(91), &id(1), kind, seq, at));
        }
        let row = |kind: &str, seq, at| (kind.to_owned(), seq, at);
        assert_eq!(marks(91, 1), [row("delivered", 2, 30), row("read", 2, 10), row("read", 3, 40)]);
        let error = transaction(|tx| mark(tx, &id(91), &id(1), "seen", 2, 10)).unwrap_err();
        assert_eq!(error.class, ErrorClass::Check);
    }
}

mod drop_marks {
    use super::*;

    #[test]
    fn drops_those_of_before_some_at_a_time_the_oldest_first() {
        let _store = store();
        for (seq, at) in [(1, 8), (2, 7), (3, 9), (4, 10)] {
            committed(|tx| mark(tx, &id(91), &id(1), "read", seq, at));
        }
        drop_marks(10, 2).unwrap();
        assert_eq!(marks(91, 1), [("read".to_owned(), 3, 9), ("read".to_owned(), 4, 10)]);
        drop_marks(10, 2).unwrap();
        assert_eq!(marks(91, 1), [("read".to_owned(), 4, 10)]);
    }
}

mod recipients_of {
    use super::*;

    fn of(seq: u64, sender: u32) -> Vec<Recipient> {
        recipients_of(&id(91), seq, &id(sender)).unwrap()
    }

    #[test]
    fn gives_those_who_were_there_in_the_order_they_joined() {
        let _store = store();
        group(91, [3, 1, 2]);
        all_said(91, [1, 1]);
        joined(91, 4, 1);
        joined(91, 5, 2);
        let users = |seq| of(seq, 1).into_iter().map(|one| one.user_id).collect::<Vec<_>>();
        assert_eq!((users(1), users(2)), (ids([2, 3]), ids([2, 3, 4])));
    }

    #[test]
    fn gives_watermarks_as_the_sender_may_know_them() {
        let _store = store();
        group(91, [1, 2, 3, 4, 5]);
        all_said(91, [1, 1, 1, 1]);
        let marks = |seq| -> Vec<(u64, u64)> { of(seq, 1).iter().map(|one| (one.delivered_seq, one.shown_read_seq)).collect() };
        for user in 2..=5 {
            delivered(91, user, 2);
            read(91, user, 1, Shown::Whole);
        }
        assert_eq!(marks(1), [(2, 1); 4]);
        read(91, 3, 3, Shown::KeptBack);
        blocked(4, 1);
        read(91, 4, 4, Shown::Whole);
        left_out(91, 5, 0, 2, &[2]);
        assert_eq!(marks(1), [(2, 1), (3, 1), (2, 1), (0, 1)], "3 keeps it back, 4 blocks the sender, 5 has no device with it");
        assert_eq!(marks(2), [(2, 1), (3, 1), (2, 1), (2, 1)]);
    }

    #[test]
    fn says_where_it_was_kept_from_one_and_not_where_one_deleted_it() {
        let _store = store();
        group(91, [1, 2, 3]);
        all_said(91, [1]);
        committed(|tx| keep_back(tx, &id(91), &ids([2]), 1));
        delete_for(&id(3), &text(91, 1, 1, 100)).unwrap();
        assert_eq!(of(1, 1).iter().map(|one| one.kept_back).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn gives_the_time_of_the_lowest_mark_at_or_above() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [1, 1, 1, 1]);
        for (kind, seq, at) in [("delivered", 1, 10), ("delivered", 3, 30), ("delivered", 4, 40), ("read", 3, 35)] {
            committed(|tx| mark(tx, &id(91), &id(2), kind, seq, at));
        }
        let times: Vec<_> = (1..=4).map(|seq| of(seq, 1).remove(0)).map(|one| (one.delivered_at, one.read_at)).collect();
        assert_eq!(times, [(Some(10), Some(35)), (Some(30), Some(35)), (Some(30), Some(35)), (Some(40), None)]);
    }
}
