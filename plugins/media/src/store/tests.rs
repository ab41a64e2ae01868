//! Each store function by itself, in a module of its name, on a real database with the service's tables.

use echo_sdk::transaction;
use echo_testing::Store;

use super::*;

fn store() -> Store {
    Store::open("media")
}

fn id(number: u32) -> String {
    format!("01890000-0000-7000-8000-{number:012}")
}

fn row(number: u32, owner: u32, size: u64, created_at: Timestamp) -> Row {
    Row {
        id: id(number),
        owner_id: id(owner),
        blob: None,
        content_type: "application/octet-stream".to_owned(),
        kind: "document".to_owned(),
        file_name: Some("a.bin".to_owned()),
        size,
        uploaded: None,
        width: None,
        height: None,
        duration_ms: None,
        created_at,
    }
}

fn inserted(row: &Row) {
    transaction(|tx| insert(tx, row)).expect("commits");
}

fn ready(number: u32, owner: u32) -> Row {
    let row = Row {
        blob: Some("b".to_owned()),
        content_type: "image/png".to_owned(),
        kind: "image".to_owned(),
        width: Some(3),
        height: Some(4),
        duration_ms: Some(6),
        size: 9,
        uploaded: Some(12),
        ..row(number, owner, 10, 5)
    };
    inserted(&row);
    assert!(set_ready(&row).unwrap());
    row
}

mod media {
    use super::*;

    #[test]
    fn gives_all_of_one_or_none() {
        let _store = store();
        let row = ready(1, 9);
        assert_eq!(super::media(&id(1)).unwrap(), Some(row));
        assert_eq!(super::media(&id(2)).unwrap(), None);
    }
}

mod files_after {
    use super::*;

    #[test]
    fn gives_the_owners_own_of_until_then_after_an_id() {
        let _store = store();
        for (number, owner, at) in [(3, 1, 10), (1, 1, 10), (2, 2, 10), (4, 1, 20), (5, 1, 10)] {
            inserted(&row(number, owner, 7, at));
        }
        let found = |after: u32, until, limit| {
            let found = super::super::files_after(&id(1), &id(after), until, limit).unwrap();
            found.into_iter().map(|row| row.id).collect::<Vec<_>>()
        };
        assert_eq!(found(0, 19, 9), [1, 3, 5].map(id));
        assert_eq!(found(1, 20, 2), [3, 4].map(id));
        assert_eq!(super::super::files_after(&id(2), &id(0), 10, 9).unwrap(), [row(2, 2, 7, 10)]);
    }
}

mod usage_of {
    use super::*;

    #[test]
    fn counts_the_owners_files_whole_or_not() {
        let _store = store();
        assert_eq!(super::usage_of(&Database, &id(9)).unwrap(), (0, 0));
        inserted(&row(1, 9, 100, 1));
        ready(2, 9);
        inserted(&row(3, 8, 1_000, 1));
        assert_eq!(super::usage_of(&Database, &id(9)).unwrap(), (2, 109));
    }
}

mod insert {
    use super::*;

    #[test]
    fn keeps_what_is_said_of_a_file_that_comes() {
        let _store = store();
        let row = row(1, 9, 4_294_967_296, 7);
        transaction(|tx| super::insert(tx, &row)).unwrap();
        assert_eq!(super::super::media(&id(1)).unwrap(), Some(row.clone()));
        assert!(transaction(|tx| super::insert(tx, &row)).unwrap_err().is_unique_violation());
    }
}

mod set_ready {
    use super::*;

    #[test]
    fn says_whether_the_file_is_still_there() {
        let _store = store();
        let row = Row { blob: Some("b".to_owned()), ..row(1, 9, 10, 1) };
        assert!(!super::set_ready(&row).unwrap());
        inserted(&row);
        assert!(super::set_ready(&row).unwrap());
        assert_eq!(super::super::media(&id(1)).unwrap(), Some(row));
    }
}

mod delete {
    use super::*;

    #[test]
    fn takes_one_away_and_again_is_fine() {
        let _store = store();
        ready(1, 9);
        ready(2, 9);
        super::delete(&id(1)).unwrap();
        super::delete(&id(1)).unwrap();
        assert_eq!(super::super::media(&id(1)).unwrap(), None);
        assert!(super::super::media(&id(2)).unwrap().is_some());
    }
}

mod unfinished_since {
    use super::*;

    #[test]
    fn gives_old_uploads_that_are_not_whole_the_oldest_first() {
        let _store = store();
        ready(1, 9);
        inserted(&row(2, 9, 1, 30));
        inserted(&row(3, 9, 1, 20));
        inserted(&row(4, 9, 1, 40));
        assert_eq!(super::unfinished_since(&Database, 40, 10).unwrap(), [id(3), id(2)]);
        assert_eq!(super::unfinished_since(&Database, 40, 1).unwrap(), [id(3)]);
        assert!(super::unfinished_since(&Database, 20, 10).unwrap().is_empty());
    }
}

mod some_of {
    use super::*;

    #[test]
    fn gives_a_persons_own_and_no_more_than_asked_for() {
        let _store = store();
        inserted(&row(1, 9, 10, 5));
        ready(2, 9);
        ready(3, 8);
        let mut files = super::some_of(&id(9), 9).unwrap();
        files.sort();
        assert_eq!(files, [(id(1), None), (id(2), Some("b".to_owned()))]);
        assert_eq!(super::some_of(&id(9), 1).unwrap().len(), 1);
    }
}

mod take_thumbnail_try {
    use super::*;

    #[test]
    fn gives_so_many_and_another_when_the_last_was_long_ago() {
        let _store = store();
        ready(1, 9);
        ready(2, 9);
        let taken = |now, forgotten_before| super::take_thumbnail_try(&id(1), now, 2, forgotten_before).unwrap();
        assert_eq!([taken(100, 0), taken(101, 1), taken(102, 2)], [true, true, false]);
        assert!(!taken(201, 101), "the last was at that time");
        assert!(taken(202, 102));
        assert!(!taken(203, 103), "one more is one");
        assert!(super::take_thumbnail_try(&id(2), 103, 2, 3).unwrap(), "another file");
        assert!(!super::take_thumbnail_try(&id(3), 103, 2, 3).unwrap(), "no file");
    }
}

mod thumbnail_tried_at {
    use super::*;

    #[test]
    fn is_the_last_time() {
        let _store = store();
        ready(1, 9);
        assert_eq!(super::thumbnail_tried_at(&id(1)).unwrap(), None);
        for now in [100, 101] {
            take_thumbnail_try(&id(1), now, 2, 0).unwrap();
        }
        assert_eq!(super::thumbnail_tried_at(&id(1)).unwrap(), Some(101));
        assert_eq!(super::thumbnail_tried_at(&id(2)).unwrap(), None);
    }
}

mod forget_thumbnail_tries {
    use super::*;

    #[test]
    fn lets_them_begin_again() {
        let _store = store();
        ready(1, 9);
        assert!(take_thumbnail_try(&id(1), 100, 1, 0).unwrap());
        assert!(!take_thumbnail_try(&id(1), 101, 1, 1).unwrap());
        super::forget_thumbnail_tries(&id(1)).unwrap();
        assert_eq!(super::thumbnail_tried_at(&id(1)).unwrap(), None);
        assert!(take_thumbnail_try(&id(1), 102, 1, 2).unwrap());
    }
}
