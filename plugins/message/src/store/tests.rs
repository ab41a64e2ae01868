//! Each store function by itself, in a module of its name, on a real database with the service's tables: who blocks whom.

use echo_sdk::sql::Database;

use super::fixtures::*;
use super::*;
use crate::rules::Shown;

/// Whether one is blocked, and by which revision.
fn known(user: u32, other: u32) -> Option<(bool, u64)> {
    let sql = "SELECT active, revision FROM blocks WHERE user_id = $1 AND blocked_user_id = $2";
    Database.row(sql, params![uuid(id(user)), uuid(id(other))]).unwrap()
}

mod record_block {
    use super::*;

    #[test]
    fn keeps_the_newest_revision_in_whatever_order_they_come() {
        let _store = store();
        for (active, revision, kept) in [(true, 2, (true, 2)), (false, 1, (true, 2)), (false, 2, (true, 2)), (false, 3, (false, 3))] {
            committed(|tx| record_block(tx, &id(1), &id(2), active, revision));
            assert_eq!(known(1, 2), Some(kept));
        }
        assert_eq!(known(2, 1), None);
    }
}

mod is_news {
    use super::*;

    #[test]
    fn is_what_is_newer_than_the_revision_that_is_known() {
        let _store = store();
        let news = |user, other, revision| committed(|tx| is_news(tx, &id(user), &id(other), revision));
        assert!(news(1, 2, 1));
        committed(|tx| record_block(tx, &id(1), &id(2), true, 2));
        assert_eq!([1, 2, 3].map(|revision| news(1, 2, revision)), [false, false, true]);
        assert!(news(2, 1, 1));
    }
}

mod withhold_receipts {
    use super::*;

    fn withheld() -> Vec<(String, String, String, u64, u64)> {
        let sql =
            "SELECT conversation_id, user_id, viewer_id, delivered_seq, read_seq FROM withheld_receipts ORDER BY conversation_id, user_id";
        Database.rows(sql, params![]).unwrap()
    }

    #[test]
    fn keeps_where_the_user_is_in_every_conversation_of_both() {
        let _store = store();
        group(91, [1, 2]);
        group(92, [1, 2]);
        group(93, [1, 3]);
        group(94, [2, 3]);
        all_said(91, [2, 2, 2]);
        delivered(91, 1, 3);
        read(91, 1, 2, Shown::Whole);
        committed(|tx| withhold_receipts(tx, &id(1), &id(2)));
        assert_eq!(withheld(), [(id(91), id(1), id(2), 3, 2), (id(92), id(1), id(2), 0, 0)]);
    }

    #[test]
    fn moves_to_where_the_user_is_at_another_block() {
        let _store = store();
        group(91, [1, 2]);
        all_said(91, [2, 2]);
        committed(|tx| withhold_receipts(tx, &id(1), &id(2)));
        read(91, 1, 2, Shown::Whole);
        committed(|tx| withhold_receipts(tx, &id(1), &id(2)));
        assert_eq!(withheld(), [(id(91), id(1), id(2), 2, 2)]);
    }

    #[test]
    fn keeps_no_reading_that_the_viewer_was_not_shown() {
        let _store = store();
        group(91, [1, 2, 3]);
        all_said(91, [2, 3, 2]);
        read(91, 1, 1, Shown::Whole);
        read(91, 1, 3, Shown::KeptBack);
        committed(|tx| crate::store::receipts::show_to(tx, &id(91), &id(1), &id(3), 3));
        committed(|tx| withhold_receipts(tx, &id(1), &id(2)));
        assert_eq!(withheld(), [(id(91), id(1), id(2), 3, 1)]);
        committed(|tx| withhold_receipts(tx, &id(1), &id(3)));
        assert!(withheld().contains(&(id(91), id(1), id(3), 3, 3)), "this one was shown it");
    }
}
