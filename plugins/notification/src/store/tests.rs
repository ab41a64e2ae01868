//! Each store function by itself, in a module of its name, on a real database with the service's tables.

use echo_sdk::sql::ErrorClass;
use echo_sdk::transaction;
use echo_testing::Store;

use super::*;

/// More than one statement lists.
const MANY: u32 = 2 * LIST_PARAMS_MAX as u32 + 1;
/// More than two statements insert.
const MANY_ROWS: u32 = 2 * INSERT_ROWS_MAX as u32 + 1;

pub(super) fn store() -> Store {
    Store::open("notification")
}

pub(super) fn id(number: u32) -> String {
    format!("01890000-0000-7000-8000-{number:012}")
}

pub(super) fn ids(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(id).collect()
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_unstable();
    ids
}

#[track_caller]
pub(super) fn committed<T>(work: impl Fn(&Transaction) -> Result<T, SqlError>) -> T {
    transaction(work).expect("commits")
}

fn count(table: &str) -> i64 {
    Database.one::<(i64,)>(&format!("SELECT COUNT(*) FROM {table}"), params![]).expect("counts").0
}

// --- Devices -----------------------------------------------------------------------------------------------------------------------

/// The token is `t<number>`, its hash `h<number>`.
pub(super) fn device(number: u32, user: u32, session: u32, at: Timestamp) {
    let device = Device { token: format!("t{number:02}"), provider: "fcm".to_owned(), platform: None, created_at: at };
    committed(|tx| put_device(tx, &format!("h{number:02}"), &id(user), &id(session), &device));
}

pub(super) fn tokens_of(user: u32) -> Vec<String> {
    devices_of(&id(user)).unwrap().into_iter().map(|device| device.token).collect()
}

/// As one that was registered before sessions were kept.
fn forget_session(number: u32) {
    let sql = "UPDATE devices SET session_id = NULL WHERE token_hash = $1";
    assert_eq!(Database.execute(sql, params![format!("h{number:02}")]).unwrap(), 1);
}

mod devices_of {
    use super::*;

    #[test]
    fn gives_the_users_own_newest_first() {
        let _store = store();
        device(1, 1, 1, 10);
        device(2, 1, 2, 30);
        device(3, 1, 3, 20);
        device(4, 2, 4, 40);
        assert_eq!(tokens_of(1), ["t02", "t03", "t01"]);
        assert!(tokens_of(3).is_empty());
    }

    #[test]
    fn gives_all_that_was_registered_of_a_device() {
        let _store = store();
        let device = Device { token: "t".into(), provider: "apns".into(), platform: Some("ios".into()), created_at: 7 };
        committed(|tx| put_device(tx, "h", &id(1), &id(9), &device));
        let found = devices_of(&id(1)).unwrap().remove(0);
        assert_eq!((found.token.as_str(), found.provider.as_str(), found.platform.as_deref()), ("t", "apns", Some("ios")));
        assert_eq!(found.created_at, 7);
    }
}

mod put_device {
    use super::*;

    #[test]
    fn gives_a_token_to_whoever_registered_it_last() {
        let _store = store();
        device(1, 1, 1, 10);
        let again = Device { token: "t01".into(), provider: "webpush".into(), platform: Some("web".into()), created_at: 20 };
        committed(|tx| put_device(tx, "h01", &id(2), &id(2), &again));
        assert!(tokens_of(1).is_empty());
        let found = devices_of(&id(2)).unwrap().remove(0);
        assert_eq!((found.provider.as_str(), found.platform.as_deref(), found.created_at), ("webpush", Some("web"), 20));
        committed(|tx| delete_devices_of_sessions(tx, &id(2), &ids([1])));
        assert_eq!(tokens_of(2), ["t01"], "it is of the new session");
    }

    #[test]
    fn keeps_the_newest_of_a_user_within_the_bound() {
        let _store = store();
        device(99, 2, 1, 1);
        for number in 0..DEVICES_PER_USER_MAX + 2 {
            device(number, 1, 1, u64::from(number) + 1);
        }
        let kept: Vec<String> = (2..DEVICES_PER_USER_MAX + 2).rev().map(|number| format!("t{number:02}")).collect();
        assert_eq!((tokens_of(1), tokens_of(2)), (kept, vec!["t99".to_owned()]));
        assert_eq!(count("devices"), i64::from(DEVICES_PER_USER_MAX) + 1);
    }

    #[test]
    fn takes_no_provider_that_there_is_not() {
        let _store = store();
        let device = Device { token: "t".into(), provider: "pigeon".into(), platform: None, created_at: 7 };
        let error = transaction(|tx| put_device(tx, "h", &id(1), &id(9), &device)).unwrap_err();
        assert_eq!(error.class, ErrorClass::Check);
    }
}

mod delete_device {
    use super::*;

    #[test]
    fn deletes_the_users_own_once() {
        let _store = store();
        device(1, 1, 1, 10);
        device(2, 1, 1, 10);
        assert!(!delete_device("h01", &id(2)).unwrap());
        assert_eq!([(); 2].map(|()| delete_device("h01", &id(1)).unwrap()), [true, false]);
        assert_eq!(tokens_of(1), ["t02"]);
    }
}

mod delete_devices_of_sessions {
    use super::*;

    #[test]
    fn forgets_those_of_the_sessions_and_those_without_one_of_this_user() {
        let _store = store();
        for (number, user, session) in [(1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 1, 4), (5, 2, 1), (6, 2, 6)] {
            device(number, user, session, 10);
        }
        forget_session(4);
        forget_session(6);
        for (number, token) in [(1, "t01"), (3, "t03"), (5, "t05")] {
            insert_outgoing(&Database, &[(id(number), Outgoing { recipient: token.to_owned(), ..row(number, Some(91), 10).1 })]).unwrap();
        }
        committed(|tx| delete_devices_of_sessions(tx, &id(1), &ids([1, 2, 9])));
        assert_eq!(sorted(recipients()), ["t03", "t05"], "what was to be pushed goes along");
        assert_eq!((tokens_of(1), sorted(tokens_of(2))), (vec!["t03".to_owned()], vec!["t05".to_owned(), "t06".to_owned()]));
    }

    #[test]
    fn takes_a_list_beyond_a_statement() {
        let _store = store();
        device(1, 1, 1, 10);
        device(2, 1, MANY, 10);
        device(3, 1, MANY + 1, 10);
        committed(|tx| delete_devices_of_sessions(tx, &id(1), &ids(1..=MANY)));
        assert_eq!(tokens_of(1), ["t03"]);
    }
}

mod drop_pushes_without_device {
    use super::*;

    #[test]
    fn leaves_those_to_devices_that_are_there() {
        let _store = store();
        device(1, 1, 1, 10);
        // Another account has registered it meanwhile.
        device(2, 2, 2, 10);
        insert_outgoing(&Database, &[row(1, Some(91), 10), row(2, Some(91), 10), row(3, Some(91), 10), row(4, Some(92), 10)]).unwrap();
        committed(|tx| drop_pushes_without_device(tx, &id(91)));
        assert_eq!(sorted(recipients()), ["t1", "t4"]);
    }
}

mod note_ended {
    use super::*;

    #[test]
    fn keeps_the_first_time() {
        let _store = store();
        committed(|tx| note_ended(tx, &ids([1, 2]), 10));
        committed(|tx| note_ended(tx, &ids([2, 3]), 20));
        let ended: Vec<(String, u64)> = Database.rows("SELECT session_id, at FROM ended_sessions ORDER BY session_id", params![]).unwrap();
        assert_eq!(ended, [(id(1), 10), (id(2), 10), (id(3), 20)]);
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        committed(|tx| note_ended(tx, &[], 10));
        assert_eq!(count("ended_sessions"), 0);
        committed(|tx| note_ended(tx, &ids(1..=MANY_ROWS), 10));
        assert_eq!(count("ended_sessions"), i64::from(MANY_ROWS));
    }
}

mod has_ended {
    use super::*;

    #[test]
    fn is_true_of_sessions_that_were_noted() {
        let _store = store();
        committed(|tx| note_ended(tx, &ids([1]), 10));
        assert_eq!([1, 2].map(|session| committed(|tx| has_ended(tx, &id(session)))), [true, false]);
    }
}

mod forget_ended {
    use super::*;

    #[test]
    fn forgets_those_of_before_and_keeps_that_moment() {
        let _store = store();
        for (session, at) in [(1, 9), (2, 10), (3, 11)] {
            committed(|tx| note_ended(tx, &ids([session]), at));
        }
        forget_ended(10).unwrap();
        assert_eq!([1, 2, 3].map(|session| committed(|tx| has_ended(tx, &id(session)))), [false, true, true]);
    }

    #[test]
    fn forgets_some_at_a_time_the_oldest_first() {
        let _store = store();
        committed(|tx| note_ended(tx, &ids(1..=CLEARED_PER_RUN), 5));
        committed(|tx| note_ended(tx, &ids([CLEARED_PER_RUN + 1]), 6));
        forget_ended(10).unwrap();
        assert!(committed(|tx| has_ended(tx, &id(CLEARED_PER_RUN + 1))));
        assert_eq!(count("ended_sessions"), 1);
    }
}

mod devices_among {
    use super::*;

    #[test]
    fn gives_each_token_with_its_user() {
        let _store = store();
        for (number, user) in [(1, 1), (2, 1), (3, 2), (4, 3)] {
            device(number, user, 1, 10);
        }
        let mut found = devices_among(&ids([1, 2, 9])).unwrap();
        found.sort_unstable();
        let expect =
            [(1, 1), (1, 2), (2, 3)].map(|(user, number)| (id(user), format!("t0{number}"), format!("h0{number}"), "fcm".to_owned()));
        assert_eq!(found, expect);
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        assert!(devices_among(&[]).unwrap().is_empty());
        device(1, 1, 1, 10);
        device(2, MANY, 1, 10);
        assert_eq!(devices_among(&ids(1..=MANY)).unwrap().len(), 2);
    }
}

// --- Messages whose acknowledgement is awaited -----------------------------------------------------------------------------------------

fn one(message: u32, due_at: Timestamp) -> Awaited {
    Awaited {
        message_id: id(message),
        conversation_id: id(70),
        sender_id: id(80),
        recipient_ids: format!("{} {}", id(81), id(82)),
        muted_ids: id(82),
        withheld_ids: id(83),
        mentioned_ids: id(81),
        sent_at: 5,
        due_at,
        decided_at: None,
        changes: 0,
    }
}

fn put(message: u32, due_at: Timestamp) {
    insert_awaited(&[one(message, due_at)]).unwrap();
}

fn decided_at(message: u32) -> Option<Timestamp> {
    awaited(&id(message)).unwrap().unwrap().decided_at
}

fn changes(message: u32) -> u64 {
    awaited(&id(message)).unwrap().unwrap().changes
}

fn due_ids(now: Timestamp) -> Vec<String> {
    due(now).unwrap().into_iter().map(|one| one.message_id).collect()
}

mod insert_awaited {
    use super::*;

    #[test]
    fn changes_nothing_the_second_time() {
        let _store = store();
        put(1, 10);
        insert_awaited(&[Awaited { recipient_ids: String::new(), ..one(1, 99) }, one(2, 20)]).unwrap();
        let kept = awaited(&id(1)).unwrap().unwrap();
        assert_eq!((kept.due_at, kept.recipient_ids), (10, one(1, 10).recipient_ids));
        assert_eq!(count("awaited_messages"), 2);
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_batch() {
        let _store = store();
        insert_awaited(&[]).unwrap();
        insert_awaited(&(1..=MANY_ROWS).map(|message| one(message, 10)).collect::<Vec<_>>()).unwrap();
        assert_eq!(count("awaited_messages"), i64::from(MANY_ROWS));
    }
}

mod due {
    use super::*;

    #[test]
    fn gives_those_whose_time_has_come_the_longest_waiting_first() {
        let _store = store();
        for (message, due_at) in [(1, 30), (2, 10), (3, 20), (4, 31)] {
            put(message, due_at);
        }
        assert_eq!(due_ids(30), ids([2, 3, 1]));
        assert!(due_ids(9).is_empty());
    }

    #[test]
    fn leaves_out_what_is_decided() {
        let _store = store();
        put(1, 10);
        put(2, 10);
        set_decided(&ids([1]), 15).unwrap();
        assert_eq!(due_ids(30), ids([2]));
    }

    #[test]
    fn gives_a_batch_at_most() {
        let _store = store();
        insert_awaited(&(0..=DUE_BATCH).map(|message| one(message, 10)).collect::<Vec<_>>()).unwrap();
        assert_eq!(due_ids(10).len(), DUE_BATCH as usize);
    }
}

mod awaited {
    use super::*;

    #[test]
    fn gives_what_was_put_in() {
        let _store = store();
        put(1, 10);
        let found = awaited(&id(1)).unwrap().unwrap();
        let put = one(1, 10);
        assert_eq!((found.conversation_id, found.sender_id), (put.conversation_id, put.sender_id));
        assert_eq!((found.recipient_ids, found.muted_ids, found.withheld_ids), (put.recipient_ids, put.muted_ids, put.withheld_ids));
        assert_eq!((found.sent_at, found.due_at, found.decided_at, found.changes), (5, 10, None, 0));
        assert!(awaited(&id(2)).unwrap().is_none());
    }
}

mod set_decided {
    use super::*;

    #[test]
    fn keeps_the_time_of_what_is_decided_already() {
        let _store = store();
        for message in 1..=3 {
            put(message, 10);
        }
        set_decided(&ids([1]), 20).unwrap();
        set_decided(&ids([1, 2]), 30).unwrap();
        assert_eq!([1, 2, 3].map(decided_at), [Some(20), Some(30), None]);
    }

    #[test]
    fn takes_an_empty_list_and_a_whole_batch() {
        let _store = store();
        set_decided(&[], 20).unwrap();
        insert_awaited(&(0..DUE_BATCH).map(|message| one(message, 10)).collect::<Vec<_>>()).unwrap();
        set_decided(&ids(0..DUE_BATCH), 20).unwrap();
        assert!(due_ids(30).is_empty());
    }
}

mod decide {
    use super::*;

    #[test]
    fn decides_once() {
        let _store = store();
        put(1, 10);
        put(2, 10);
        let read = awaited(&id(1)).unwrap().unwrap();
        assert_eq!([20, 30].map(|at| committed(|tx| decide(tx, &read, at))), [true, false]);
        assert_eq!([1, 2].map(decided_at), [Some(20), None]);
    }

    #[test]
    fn does_not_decide_on_a_message_that_was_changed_since_it_was_read() {
        let _store = store();
        put(1, 10);
        let read = awaited(&id(1)).unwrap().unwrap();
        note_change(&Database, &ids([1])).unwrap();
        assert!(!committed(|tx| decide(tx, &read, 20)));
        let read = awaited(&id(1)).unwrap().unwrap();
        assert!(committed(|tx| decide(tx, &read, 20)));
    }
}

mod note_change {
    use super::*;

    #[test]
    fn counts_changes_of_these_while_they_are_not_decided() {
        let _store = store();
        for message in 1..=3 {
            put(message, 10);
        }
        note_change(&Database, &ids([1, 2])).unwrap();
        set_decided(&ids([2]), 20).unwrap();
        committed(|tx| note_change(tx, &ids([1, 2, 9])));
        assert_eq!([1, 2, 3].map(changes), [2, 1, 0]);
    }

    #[test]
    fn takes_an_empty_list() {
        let _store = store();
        put(1, 10);
        note_change(&Database, &[]).unwrap();
        assert_eq!(changes(1), 0);
    }
}

mod deleted_at {
    use super::*;

    #[test]
    fn is_when_the_message_was_deleted_first() {
        let _store = store();
        for message in 1..=2 {
            put(message, 10);
        }
        committed(|tx| forget_awaited(tx, &ids([1]), 20));
        committed(|tx| forget_awaited(tx, &ids([1]), 30));
        let at = |number| super::super::deleted_at(&id(number)).unwrap();
        assert_eq!([1, 2, 3].map(at), [Some(20), None, None]);
    }
}

mod forget_awaited {
    use super::*;

    #[test]
    fn leaves_nothing_to_decide_and_no_preview() {
        let _store = store();
        for message in 1..=3 {
            put(message, 10);
        }
        Database.execute("UPDATE awaited_messages SET preview = 'text'", params![]).unwrap();
        set_decided(&ids([2]), 15).unwrap();
        committed(|tx| forget_awaited(tx, &ids([1, 2]), 20));
        assert_eq!([1, 2, 3].map(decided_at), [Some(20), Some(15), None]);
        let sql = "SELECT message_id FROM awaited_messages WHERE preview IS NOT NULL";
        assert_eq!(Database.rows::<(String,)>(sql, params![]).unwrap(), [(id(3),)]);
    }

    #[test]
    fn takes_an_empty_list() {
        let _store = store();
        put(1, 10);
        committed(|tx| forget_awaited(tx, &[], 20));
        assert_eq!(decided_at(1), None);
    }
}

mod insert_traces {
    use super::*;

    #[test]
    fn writes_one_line_for_each_user() {
        let _store = store();
        committed(|tx| {
            insert_traces(tx, &id(1), &ids([81, 82]), "pushed", 20)?;
            insert_traces(tx, &id(1), &ids([83]), "acknowledged", 20)
        });
        let mut lines = traces_of(&id(1)).unwrap();
        lines.sort_unstable();
        let line = |user, decision: &str| (id(user), decision.to_owned(), 20);
        assert_eq!(lines, [line(81, "pushed"), line(82, "pushed"), line(83, "acknowledged")]);
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        committed(|tx| insert_traces(tx, &id(1), &[], "pushed", 20));
        assert_eq!(count("traces"), 0);
        committed(|tx| insert_traces(tx, &id(1), &ids(1..=MANY_ROWS), "pushed", 20));
        assert_eq!(count("traces"), i64::from(MANY_ROWS));
    }

    #[test]
    fn refuses_a_second_line_for_a_user_and_an_unknown_decision() {
        let _store = store();
        let written = |decision: &str| transaction(|tx| insert_traces(tx, &id(1), &ids([81]), decision, 20));
        written("pushed").unwrap();
        assert_eq!(written("acknowledged").unwrap_err().class, ErrorClass::UniqueViolation);
        assert_eq!(written("dreamt").unwrap_err().class, ErrorClass::Check);
    }
}

mod traces_of {
    use super::*;

    #[test]
    fn gives_those_of_this_message() {
        let _store = store();
        committed(|tx| {
            insert_traces(tx, &id(1), &ids([81]), "pushed", 20)?;
            insert_traces(tx, &id(2), &ids([82]), "pushed", 30)
        });
        assert_eq!(traces_of(&id(2)).unwrap(), [(id(82), "pushed".to_owned(), 30)]);
        assert!(traces_of(&id(3)).unwrap().is_empty());
    }
}

mod forget_before {
    use super::*;

    #[test]
    fn drops_traces_and_decided_messages_of_before_and_keeps_what_is_to_be_decided() {
        let _store = store();
        for message in 1..=4 {
            put(message, 10);
            committed(|tx| insert_traces(tx, &id(message), &ids([81]), "pushed", 20));
        }
        set_decided(&ids([1, 3, 4]), 20).unwrap();
        forget_before(&id(3)).unwrap();
        let left = |table: &str| -> Vec<(String,)> {
            Database.rows(&format!("SELECT message_id FROM {table} ORDER BY message_id"), params![]).unwrap()
        };
        assert_eq!(left("traces"), [(id(3),), (id(4),)]);
        assert_eq!(left("awaited_messages"), [(id(2),), (id(3),), (id(4),)]);
    }

    #[test]
    fn drops_some_at_a_time() {
        let _store = store();
        committed(|tx| insert_traces(tx, &id(1), &ids(0..CLEARED_PER_RUN + 1), "pushed", 20));
        forget_before(&id(2)).unwrap();
        assert_eq!(count("traces"), 1);
        forget_before(&id(2)).unwrap();
        assert_eq!(count("traces"), 0);
    }
}

mod note_reasons {
    use super::*;

    #[test]
    fn is_of_these_users_of_this_message() {
        let _store = store();
        committed(|tx| {
            insert_traces(tx, &id(1), &ids([81, 82]), "pushed", 20)?;
            insert_traces(tx, &id(2), &ids([81]), "pushed", 20)?;
            note_reasons(tx, &id(1), &ids([81]), "quiet")?;
            note_reasons(tx, &id(1), &[], "unwanted")
        });
        let reasons = [(1, 81), (1, 82), (2, 81)].map(|(message, user)| reason_of(&id(message), &id(user)).unwrap());
        assert_eq!(reasons, [Some("quiet".to_owned()), None, None]);
    }
}

mod reason_of {
    use super::*;

    #[test]
    fn is_none_where_nobody_was_asked_about() {
        let _store = store();
        assert_eq!(reason_of(&id(1), &id(81)).unwrap(), None);
    }
}

// --- Preferences -------------------------------------------------------------------------------------------------------------------------

fn stored(user: u32, messages: &str, quiet: Option<(u64, u64)>) -> Stored {
    Stored {
        user_id: id(user),
        messages: messages.to_owned(),
        previews: user.is_multiple_of(2),
        quiet_from_minute: quiet.map(|(from, _)| from),
        quiet_to_minute: quiet.map(|(_, to)| to),
        timezone: quiet.map(|_| "Europe/Berlin".to_owned()),
    }
}

mod preferences_among {
    use super::*;

    #[test]
    fn gives_those_of_these_users_who_chose_something() {
        let _store = store();
        let all = [stored(1, "mentions", Some((1_320, 420))), stored(2, "none", None)];
        for stored in &all {
            put_preferences(stored, 5).unwrap();
        }
        put_preferences(&stored(3, "all", None), 5).unwrap();
        let mut found = preferences_among(&ids([2, 1, 9])).unwrap();
        found.sort_unstable_by(|one, other| one.user_id.cmp(&other.user_id));
        assert_eq!(found, all);
        assert_eq!(preferences_among(&ids(0..MANY)).unwrap().len(), 3);
        assert!(preferences_among(&[]).unwrap().is_empty());
    }
}

mod put_preferences {
    use super::*;

    #[test]
    fn replaces_all_of_what_was_chosen_before() {
        let _store = store();
        put_preferences(&stored(1, "mentions", Some((1_320, 420))), 5).unwrap();
        put_preferences(&stored(1, "all", None), 6).unwrap();
        assert_eq!(preferences_among(&ids([1])).unwrap(), [stored(1, "all", None)]);
    }
}

// --- The list in the app ---------------------------------------------------------------------------------------------------------------

fn entry(number: u32, user: u32, about: u32) -> Entry {
    Entry {
        id: id(number),
        user_id: id(user),
        kind: "mention".to_owned(),
        about: id(about),
        conversation_id: Some(id(70)),
        sender_id: Some(id(80)),
        at: u64::from(number),
        read: false,
    }
}

fn listed(user: u32) -> Vec<String> {
    entries_of(&id(user), &id(999_999), 100).unwrap().into_iter().map(|entry| entry.id).collect()
}

fn entered(entries: &[Entry]) {
    insert_entries(&Database, entries).unwrap();
}

mod insert_entries {
    use super::*;

    #[test]
    fn is_one_of_each_user_and_subject() {
        let _store = store();
        entered(&[entry(1, 81, 1), entry(2, 82, 1), entry(3, 81, 2)]);
        entered(&[entry(4, 81, 1)]);
        assert_eq!((listed(81), listed(82)), (ids([3, 1]), ids([2])));
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        entered(&[]);
        entered(&(0..MANY_ROWS).map(|number| entry(number, number, number)).collect::<Vec<_>>());
        assert_eq!(count("entries"), i64::from(MANY_ROWS));
    }
}

mod entries_of {
    use super::*;

    #[test]
    fn gives_the_newest_before_the_id_whole() {
        let _store = store();
        entered(&[entry(1, 81, 1), entry(2, 81, 2), entry(3, 81, 3), entry(4, 82, 4)]);
        assert_eq!(entries_of(&id(81), &id(3), 1).unwrap(), [entry(2, 81, 2)]);
        assert_eq!(listed(81), ids([3, 2, 1]));
    }
}

mod entries_after {
    use super::*;

    #[test]
    fn gives_the_oldest_after_the_id_of_until_then() {
        let _store = store();
        let at = |number: u32, user: u32, at: Timestamp| Entry { at, ..entry(number, user, number) };
        entered(&[at(1, 81, 10), at(2, 81, 10), at(3, 81, 20), at(4, 82, 10), at(5, 81, 10)]);
        let found = |after: u32, until, limit| {
            let found = super::super::entries_after(&id(81), &id(after), until, limit).unwrap();
            found.into_iter().map(|entry| entry.id).collect::<Vec<_>>()
        };
        assert_eq!(found(0, 19, 9), ids([1, 2, 5]));
        assert_eq!(found(1, 20, 2), ids([2, 3]));
    }
}

mod unread_entries_of {
    use super::*;

    #[test]
    fn counts_the_users_own_that_are_not_read() {
        let _store = store();
        entered(&[entry(1, 81, 1), entry(2, 81, 2), entry(3, 82, 3)]);
        set_entries_read(&id(81), &id(1)).unwrap();
        assert_eq!([81, 82, 83].map(|user| unread_entries_of(&id(user)).unwrap()), [1, 1, 0]);
    }
}

mod set_entries_read {
    use super::*;

    #[test]
    fn reads_the_users_own_up_to_this_one() {
        let _store = store();
        entered(&[entry(1, 81, 1), entry(2, 81, 2), entry(3, 81, 3), entry(4, 82, 4)]);
        assert!(set_entries_read(&id(81), &id(2)).unwrap());
        assert!(set_entries_read(&id(81), &id(1)).unwrap());
        let read: Vec<bool> = entries_of(&id(81), &id(9), 9).unwrap().into_iter().map(|entry| entry.read).collect();
        assert_eq!((read, unread_entries_of(&id(82)).unwrap()), (vec![false, true, true], 1));
    }

    #[test]
    fn reads_nothing_up_to_what_is_none_of_the_users() {
        let _store = store();
        entered(&[entry(1, 81, 1), entry(2, 82, 2)]);
        for up_to in [2, 3] {
            assert!(!set_entries_read(&id(81), &id(up_to)).unwrap());
        }
        assert_eq!(unread_entries_of(&id(81)).unwrap(), 1);
    }
}

mod forget_entries_about {
    use super::*;

    #[test]
    fn forgets_them_for_everybody() {
        let _store = store();
        entered(&[entry(1, 81, 1), entry(2, 82, 1), entry(3, 81, 2)]);
        committed(|tx| forget_entries_about(tx, &ids([1, 9])));
        committed(|tx| forget_entries_about(tx, &[]));
        assert_eq!((listed(81), listed(82)), (ids([3]), ids([])));
    }
}

mod trim_entries_of {
    use super::*;

    #[test]
    fn leaves_the_newest_of_this_user() {
        let _store = store();
        let many = ENTRIES_PER_USER_MAX + 2;
        entered(&(1..=many).map(|number| entry(number, 81, number)).collect::<Vec<_>>());
        entered(&[entry(many + 1, 82, 1)]);
        trim_entries_of(&id(82)).unwrap();
        assert_eq!(count("entries"), i64::from(many + 1));
        trim_entries_of(&id(81)).unwrap();
        assert_eq!(count("entries"), i64::from(many - 1));
        assert_eq!(entries_of(&id(81), &id(4), 9).unwrap(), [entry(3, 81, 3)]);
    }
}

mod forget_old_entries {
    use super::*;

    #[test]
    fn forgets_those_below_the_id() {
        let _store = store();
        entered(&[entry(1, 81, 1), entry(2, 82, 2), entry(3, 81, 3)]);
        forget_old_entries(&id(3)).unwrap();
        assert_eq!((listed(81), listed(82)), (ids([3]), ids([])));
    }
}

// --- What is to leave --------------------------------------------------------------------------------------------------------------------

pub(super) fn row(number: u32, message: Option<u32>, at: Timestamp) -> (String, Outgoing) {
    let outgoing = Outgoing {
        channel: "push".into(),
        recipient: format!("t{number}"),
        title: Some("New message".into()),
        body: "Hello".into(),
        code: None,
        at,
        message_id: message.map(id),
        shows_text: true,
        provider: Some("fcm".into()),
        conversation_id: message.map(|_| id(70)),
        user_id: Some(id(1)),
        token_hash: Some(format!("h{number:02}")),
        send_at: None,
    };
    (id(number), outgoing)
}

/// The newest first.
pub(super) fn recipients() -> Vec<String> {
    newest_outgoing().unwrap().into_iter().map(|row| row.recipient).collect()
}

mod insert_outgoing {
    use super::*;

    #[test]
    fn leaves_what_is_there_under_its_id_as_it_is() {
        let _store = store();
        insert_outgoing(&Database, &[row(1, Some(9), 10)]).unwrap();
        let again = (id(1), Outgoing { body: "Other".into(), ..row(1, None, 20).1 });
        insert_outgoing(&Database, &[again, row(2, None, 5)]).unwrap();
        let rows = newest_outgoing().unwrap();
        assert_eq!(rows.iter().map(|row| (row.body.as_str(), row.at)).collect::<Vec<_>>(), [("Hello", 10), ("Hello", 5)]);
    }

    #[test]
    fn goes_with_its_transaction() {
        let _store = store();
        let undone: Result<(), SqlError> = transaction(|tx| {
            insert_outgoing(tx, &[row(1, None, 10)])?;
            tx.execute("INSERT INTO outbox (id) VALUES ($1)", params![uuid(id(2))]).map(drop)
        });
        undone.unwrap_err();
        assert!(recipients().is_empty());
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        insert_outgoing(&Database, &[]).unwrap();
        insert_outgoing(&Database, &(0..MANY_ROWS).map(|number| row(number, None, 10)).collect::<Vec<_>>()).unwrap();
        assert_eq!(count("outbox"), i64::from(MANY_ROWS));
    }
}

mod newest_outgoing {
    use super::*;

    #[test]
    fn gives_the_newest_first_with_all_that_is_to_leave() {
        let _store = store();
        let sms = Outgoing {
            channel: "sms".into(),
            recipient: "+14155550101".into(),
            title: None,
            body: "Your code is 123456".into(),
            code: Some("123456".into()),
            at: 30,
            message_id: None,
            shows_text: true,
            provider: None,
            conversation_id: None,
            user_id: None,
            token_hash: None,
            send_at: None,
        };
        insert_outgoing(&Database, &[row(1, Some(9), 20), (id(2), sms), row(3, None, 20)]).unwrap();
        let rows = newest_outgoing().unwrap();
        assert_eq!(rows.iter().map(|row| row.recipient.as_str()).collect::<Vec<_>>(), ["+14155550101", "t3", "t1"]);
        let fields = |row: &Outgoing| (row.channel.clone(), row.title.clone(), row.code.clone(), row.message_id.clone());
        assert_eq!(fields(&rows[0]), ("sms".into(), None, Some("123456".into()), None));
        assert_eq!(fields(&rows[2]), ("push".into(), Some("New message".into()), None, Some(id(9))));
    }

    #[test]
    fn gives_so_many_at_most() {
        let _store = store();
        insert_outgoing(&Database, &(0..=OUTBOX_SHOWN).map(|number| row(number, None, u64::from(number))).collect::<Vec<_>>()).unwrap();
        let shown = recipients();
        assert_eq!((shown.len(), shown[0].clone()), (OUTBOX_SHOWN as usize, format!("t{OUTBOX_SHOWN}")));
    }
}

mod messages_in_outbox {
    use super::*;

    #[test]
    fn names_each_of_the_messages_once() {
        let _store = store();
        insert_outgoing(&Database, &[row(1, Some(91), 10), row(2, Some(91), 10), row(3, Some(92), 10), row(4, None, 10)]).unwrap();
        assert_eq!(messages_in_outbox(&ids([91, 93])).unwrap(), ids([91]));
    }

    #[test]
    fn takes_an_empty_list() {
        let _store = store();
        insert_outgoing(&Database, &[row(1, Some(91), 10)]).unwrap();
        assert!(messages_in_outbox(&[]).unwrap().is_empty());
    }
}

mod set_body {
    use super::*;

    #[test]
    fn changes_all_that_says_what_the_message_says() {
        let _store = store();
        let without_text = (id(4), Outgoing { shows_text: false, ..row(4, Some(91), 5).1 });
        insert_outgoing(&Database, &[row(1, Some(91), 30), row(2, Some(91), 20), row(3, Some(92), 10), without_text]).unwrap();
        committed(|tx| set_body(tx, &id(91), "Edited"));
        assert_eq!(newest_outgoing().unwrap().into_iter().map(|row| row.body).collect::<Vec<_>>(), ["Edited", "Edited", "Hello", "Hello"]);
    }
}

mod delete_outgoing {
    use super::*;

    #[test]
    fn deletes_all_that_is_about_the_messages() {
        let _store = store();
        insert_outgoing(&Database, &[row(1, Some(91), 40), row(2, Some(91), 30), row(3, Some(92), 20), row(4, None, 10)]).unwrap();
        committed(|tx| delete_outgoing(tx, &ids([91, 93])));
        assert_eq!(recipients(), ["t3", "t4"]);
    }

    #[test]
    fn takes_an_empty_list() {
        let _store = store();
        insert_outgoing(&Database, &[row(1, Some(91), 10)]).unwrap();
        committed(|tx| delete_outgoing(tx, &[]));
        assert_eq!(count("outbox"), 1);
    }
}

mod trim_outbox {
    use super::*;

    #[test]
    fn keeps_the_newest() {
        let _store = store();
        insert_outgoing(&Database, &(0..OUTBOX_KEPT + 5).map(|number| row(number, None, u64::from(number))).collect::<Vec<_>>()).unwrap();
        trim_outbox().unwrap();
        assert_eq!(Database.one::<(i64, u64)>("SELECT COUNT(*), MIN(at) FROM outbox", params![]).unwrap(), (i64::from(OUTBOX_KEPT), 5));
        trim_outbox().unwrap();
        assert_eq!(count("outbox"), i64::from(OUTBOX_KEPT));
    }
}

mod erase_person {
    use super::*;

    #[test]
    fn leaves_nothing_that_is_to_leave_to_the_person() {
        let _store = store();
        device(1, 1, 1, 10);
        device(2, 2, 2, 10);
        let to = |number: u32, recipient: &str| {
            let (id, outgoing) = row(number, None, u64::from(number));
            (id, Outgoing { recipient: recipient.to_owned(), ..outgoing })
        };
        let rows = [to(1, "+14155550101"), to(2, "t01"), to(3, "+14155550102"), to(4, "t02")];
        insert_outgoing(&Database, &rows).unwrap();
        for user in [1, 2] {
            echo_sdk::exports::open(&Database, &id(user), 1, 9).unwrap();
        }
        committed(|tx| erase_person(tx, &id(1), "+14155550101"));
        assert_eq!(count("open_exports"), 1);
        let left: Vec<(String,)> = Database.rows("SELECT recipient FROM outbox ORDER BY recipient", params![]).unwrap();
        assert_eq!(left, [("+14155550102".to_owned(),), ("t02".to_owned(),)]);
        assert_eq!((tokens_of(1).len(), tokens_of(2).len()), (0, 1));
    }
}
