//! Each store function by itself, in a module of its name, on a real database with the service's tables.

use echo_sdk::transaction;
use echo_testing::Store;

use super::*;

/// More than one statement lists.
const MANY: u32 = 2 * LIST_PARAMS_MAX as u32 + 1;
const FIRST: (u64, &str) = (253_402_300_799_000_000, "ffffffff-ffff-ffff-ffff-ffffffffffff");

pub(super) fn store() -> Store {
    Store::open("user")
}

pub(super) fn id(number: u32) -> String {
    format!("01890000-0000-7000-8000-{number:012}")
}

pub(super) fn ids(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(id).collect()
}

pub(super) fn phone(number: u32) -> String {
    format!("+1415555{number:04}")
}

pub(super) fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[track_caller]
pub(super) fn committed<T>(work: impl Fn(&Transaction) -> Result<T, SqlError>) -> T {
    transaction(work).expect("commits")
}

fn new_profile<'a>(id: &'a str, phone: &'a str, at: Timestamp) -> NewProfile<'a> {
    NewProfile { id, phone, display_name: "Ada", country: Some("GB"), timezone: Some("Europe/London"), at }
}

/// With the id and number of each of these.
pub(super) fn profiles(numbers: impl IntoIterator<Item = u32>) {
    let numbers: Vec<u32> = numbers.into_iter().collect();
    committed(|tx| {
        for number in &numbers {
            assert!(insert_profile(tx, &new_profile(&id(*number), &phone(*number), 7))?);
        }
        Ok(())
    });
}

fn profile(number: u32) -> Profile {
    profile_seen_by(&id(number), &id(number)).expect("reads").expect("a profile").profile
}

pub(super) fn privacy(number: u32, change: PrivacyChange) {
    committed(|tx| update_privacy(tx, &id(number), &change, 8));
}

pub(super) const UNCHANGED: PrivacyChange = PrivacyChange {
    phone_visible: None,
    profile_visible: None,
    last_seen_visible: None,
    presence_visible: None,
    read_receipts: None,
    added_by: None,
};

pub(super) fn blocked(user: u32, other: u32) {
    committed(|tx| block(tx, &id(user), &id(other), 5));
}

fn unblocked(user: u32, other: u32) {
    committed(|tx| unblock(tx, &id(user), &id(other)));
}

pub(super) fn contact(owner: u32, user: u32) {
    put_contact(&id(owner), &id(user), None, 5).expect("adds");
}

/// By id: whether the viewer is a contact, and whether blocked.
fn relations(seen: &[Seen]) -> Vec<(String, bool, bool)> {
    let mut relations: Vec<_> = seen.iter().map(|seen| (seen.profile.id.clone(), seen.viewer_is_contact, seen.viewer_is_blocked)).collect();
    relations.sort_unstable();
    relations
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_unstable();
    ids
}

// --- Profiles ----------------------------------------------------------------------------------------------------------------------

mod profile_seen_by {
    use super::*;

    #[test]
    fn gives_the_whole_row_whatever_its_owner_hides() {
        let _store = store();
        profiles([1]);
        privacy(1, PrivacyChange { phone_visible: Some("nobody"), profile_visible: Some("nobody"), ..UNCHANGED });
        let seen = profile_seen_by(&id(2), &id(1)).unwrap().unwrap();
        assert_eq!(seen.profile.id, id(1));
        assert_eq!((seen.profile.phone, seen.profile.display_name.as_str()), (Some(phone(1)), "Ada"));
        assert_eq!((seen.profile.country.as_deref(), seen.profile.timezone.as_deref()), (Some("GB"), Some("Europe/London")));
        assert_eq!((seen.profile.created_at, seen.profile.updated_at), (7, 8));
        assert_eq!((seen.profile.phone_visible.as_str(), seen.profile.profile_visible.as_str()), ("nobody", "nobody"));
    }

    #[test]
    fn says_what_the_owner_has_to_do_with_the_viewer_and_not_the_reverse() {
        let _store = store();
        profiles([1, 2, 3]);
        let relation = |viewer, owner| {
            let seen = profile_seen_by(&id(viewer), &id(owner)).unwrap().unwrap();
            (seen.viewer_is_contact, seen.viewer_is_blocked)
        };
        assert_eq!(relation(2, 1), (false, false));
        contact(1, 2);
        blocked(1, 2);
        assert_eq!(relation(2, 1), (true, true));
        assert_eq!(relation(1, 2), (false, false));
        assert_eq!(relation(3, 1), (false, false));
        unblocked(1, 2);
        assert_eq!(relation(2, 1), (true, false));
    }

    #[test]
    fn finds_none_where_there_is_none() {
        let _store = store();
        profiles([1]);
        assert!(profile_seen_by(&id(1), &id(2)).unwrap().is_none());
    }
}

mod profiles_seen_by {
    use super::*;

    #[test]
    fn gives_those_that_exist_with_their_relation_to_the_viewer() {
        let _store = store();
        profiles([1, 2, 3]);
        contact(1, 9);
        blocked(2, 9);
        contact(3, 8);
        let seen = profiles_seen_by(&id(9), &ids([1, 2, 3, 4])).unwrap();
        assert_eq!(relations(&seen), [(id(1), true, false), (id(2), false, true), (id(3), false, false)]);
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        assert!(profiles_seen_by(&id(9), &[]).unwrap().is_empty());
        profiles(1..=MANY);
        assert_eq!(profiles_seen_by(&id(9), &ids(0..=MANY)).unwrap().len(), MANY as usize);
    }
}

mod which_exist {
    use super::*;

    #[test]
    fn leaves_out_the_unknown() {
        let _store = store();
        profiles([1, 3]);
        assert_eq!(sorted(which_exist(&ids([1, 2, 3])).unwrap()), ids([1, 3]));
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        assert!(which_exist(&[]).unwrap().is_empty());
        profiles(1..=MANY);
        assert_eq!(sorted(which_exist(&ids(0..=MANY)).unwrap()), ids(1..=MANY));
    }
}

mod insert_profile {
    use super::*;

    #[test]
    fn leaves_a_profile_that_is_there_as_it_is() {
        let _store = store();
        assert!(committed(|tx| insert_profile(tx, &new_profile(&id(1), &phone(1), 7))));
        let id = id(1);
        let again = NewProfile { display_name: "Other", country: None, timezone: None, ..new_profile(&id, "+14155559999", 9) };
        assert!(!committed(|tx| insert_profile(tx, &again)));
        let kept = profile(1);
        assert_eq!((kept.display_name.as_str(), kept.phone, kept.created_at), ("Ada", Some(phone(1)), 7));
    }

    #[test]
    fn takes_the_number_from_an_older_profile_for_a_new_user() {
        let _store = store();
        profiles([1, 2]);
        assert!(committed(|tx| insert_profile(tx, &new_profile(&id(3), &phone(1), 9))));
        assert_eq!([1, 2, 3].map(|number| profile(number).phone), [None, Some(phone(2)), Some(phone(1))]);
    }

    #[test]
    fn takes_no_number_for_a_user_who_is_there_already() {
        let _store = store();
        profiles([1, 2]);
        assert!(!committed(|tx| insert_profile(tx, &new_profile(&id(2), &phone(1), 9))));
        assert_eq!([1, 2].map(|number| profile(number).phone), [Some(phone(1)), Some(phone(2))]);
    }

    #[test]
    fn begins_with_the_usual_privacy() {
        let _store = store();
        profiles([1]);
        let chosen = privacy_of(&id(1)).unwrap().unwrap();
        assert_eq!((chosen.phone_visible.as_str(), chosen.profile_visible.as_str()), ("contacts", "everyone"));
        assert_eq!((chosen.last_seen_visible.as_str(), chosen.presence_visible.as_str()), ("contacts", "contacts"));
        assert_eq!((chosen.read_receipts.as_str(), chosen.added_by.as_str()), ("everyone", "everyone"));
    }
}

mod replace_name_parts {
    use super::*;

    fn parts(number: u32) -> Vec<String> {
        let sql = "SELECT part FROM name_parts WHERE user_id = $1 ORDER BY part";
        Database.rows::<(String,)>(sql, params![uuid(id(number))]).unwrap().into_iter().map(|(part,)| part).collect()
    }

    #[test]
    fn replaces_those_of_this_user_alone() {
        let _store = store();
        profiles([1, 2]);
        committed(|tx| replace_name_parts(tx, &id(1), &texts(&["ada lovelace", "lovelace"])));
        committed(|tx| replace_name_parts(tx, &id(2), &texts(&["lovelace"])));
        committed(|tx| replace_name_parts(tx, &id(1), &texts(&["ada king", "king"])));
        assert_eq!((parts(1), parts(2)), (texts(&["ada king", "king"]), texts(&["lovelace"])));
    }

    #[test]
    fn leaves_none_for_an_empty_list() {
        let _store = store();
        profiles([1]);
        committed(|tx| replace_name_parts(tx, &id(1), &texts(&["ada"])));
        committed(|tx| replace_name_parts(tx, &id(1), &[]));
        assert!(parts(1).is_empty());
    }
}

mod update_profile {
    use super::*;

    const NOTHING: ProfileChange<'static> =
        ProfileChange { display_name: None, bio: None, avatar_url: None, status: None, status_text: None, locale: None, timezone: None };

    fn texts_of(number: u32) -> [Option<String>; 7] {
        let Profile { display_name, bio, avatar_url, status, status_text, locale, timezone, .. } = profile(number);
        [Some(display_name), bio, avatar_url, status, status_text, locale, timezone]
    }

    #[test]
    fn keeps_what_is_none_and_removes_what_is_empty() {
        let _store = store();
        profiles([1, 2]);
        let all = ProfileChange {
            display_name: Some("Grace"),
            bio: Some("bio"),
            avatar_url: Some("https://a"),
            status: Some("busy"),
            status_text: Some("text"),
            locale: Some("en"),
            timezone: Some("UTC"),
        };
        committed(|tx| update_profile(tx, &id(1), &all, 20));
        let set = ["Grace", "bio", "https://a", "busy", "text", "en", "UTC"].map(|text| Some(text.to_owned()));
        assert_eq!(texts_of(1), set);
        committed(|tx| update_profile(tx, &id(1), &NOTHING, 21));
        assert_eq!(texts_of(1), set);
        let emptied = ProfileChange {
            display_name: None,
            bio: Some(""),
            avatar_url: Some(""),
            status: Some(""),
            status_text: Some(""),
            locale: Some(""),
            timezone: Some(""),
        };
        committed(|tx| update_profile(tx, &id(1), &emptied, 22));
        assert_eq!(texts_of(1), [Some("Grace".to_owned()), None, None, None, None, None, None]);
        assert_eq!((profile(1).created_at, profile(1).updated_at), (7, 22));
        assert_eq!((profile(2).display_name.as_str(), profile(2).updated_at), ("Ada", 7));
    }
}

// --- Search ------------------------------------------------------------------------------------------------------------------------

/// Named in each of these words.
fn named(number: u32, parts: &[&str]) {
    profiles([number]);
    committed(|tx| replace_name_parts(tx, &id(number), &texts(parts)));
}

mod found_by_name {
    use super::*;

    const NIL: &str = "00000000-0000-0000-0000-000000000000";

    fn found(viewer: u32, after: (&str, &str), limit: i64) -> Vec<(String, String)> {
        let range = ("lo".to_owned(), "lp".to_owned());
        let found = found_by_name(&id(viewer), &range, &(after.0.to_owned(), after.1.to_owned()), limit).unwrap();
        found.into_iter().map(|found| (found.part, found.seen.profile.id)).collect()
    }

    #[test]
    fn gives_each_user_once_by_the_first_part_in_the_range_its_end_left_out() {
        let _store = store();
        named(1, &["lovelace", "love"]);
        named(2, &["ada", "lp"]);
        named(3, &["lo"]);
        named(4, &["ln", "zlo"]);
        assert_eq!(found(9, ("", NIL), 10), [("lo".to_owned(), id(3)), ("love".to_owned(), id(1))]);
    }

    #[test]
    fn goes_on_after_the_key_in_order_of_part_and_id() {
        let _store = store();
        for (number, part) in [(1, "lob"), (2, "loa"), (3, "loa"), (4, "loc")] {
            named(number, &[part]);
        }
        assert_eq!(found(9, ("", NIL), 2), [("loa".to_owned(), id(2)), ("loa".to_owned(), id(3))]);
        assert_eq!(found(9, ("loa", &id(2)), 2), [("loa".to_owned(), id(3)), ("lob".to_owned(), id(1))]);
        assert_eq!(found(9, ("loc", &id(4)), 2), []);
    }

    #[test]
    fn leaves_out_the_viewer_and_whoever_does_not_let_the_viewer_find_them() {
        let _store = store();
        for number in 1..=6 {
            named(number, &["lo"]);
        }
        privacy(2, PrivacyChange { profile_visible: Some("nobody"), ..UNCHANGED });
        contact(2, 1);
        privacy(3, PrivacyChange { profile_visible: Some("contacts"), ..UNCHANGED });
        contact(1, 3);
        privacy(4, PrivacyChange { profile_visible: Some("contacts"), ..UNCHANGED });
        contact(4, 1);
        blocked(5, 1);
        blocked(6, 1);
        unblocked(6, 1);
        let seen: Vec<String> = found(1, ("", NIL), 10).into_iter().map(|(_, id)| id).collect();
        assert_eq!(seen, ids([4, 6]));
    }
}

mod found_by_phone {
    use super::*;

    fn found(viewer: u32, viewer_number: Option<&str>, numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
        let phones: Vec<String> = numbers.into_iter().map(phone).collect();
        sorted(found_by_phone(&id(viewer), viewer_number, &phones).unwrap().into_iter().map(|seen| seen.profile.id).collect())
    }

    fn visible_to(number: u32, audience: &'static str) {
        privacy(number, PrivacyChange { phone_visible: Some(audience), ..UNCHANGED });
    }

    #[test]
    fn finds_everybody_who_lets_everybody_and_the_viewer() {
        let _store = store();
        profiles(1..=4);
        visible_to(1, "nobody");
        visible_to(2, "everyone");
        visible_to(3, "nobody");
        assert_eq!(found(1, None, 1..=5), ids([1, 2]));
    }

    #[test]
    fn finds_for_contacts_those_who_have_the_viewer_as_one_or_in_the_address_book() {
        let _store = store();
        profiles(1..=6);
        contact(2, 1);
        contact(1, 3);
        committed(|tx| {
            for owner in [4, 5] {
                note_numbers(tx, &id(owner), &texts(&["hash of 1"]), 3)?;
            }
            put_numbers_in(tx, &id(4), &texts(&["hash of 1"]))
        });
        assert_eq!(found(1, Some("hash of 1"), 2..=6), ids([2, 4]));
        assert_eq!(found(1, Some("hash of 6"), 2..=6), ids([2]));
        assert_eq!(found(1, None, 2..=6), ids([2]));
    }

    #[test]
    fn finds_nobody_who_blocks_the_viewer() {
        let _store = store();
        profiles([2, 3]);
        for owner in [2, 3] {
            visible_to(owner, "everyone");
            blocked(owner, 1);
        }
        unblocked(3, 1);
        assert_eq!(found(1, None, [2, 3]), ids([3]));
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        assert!(found(1, None, []).is_empty());
        profiles(1..=MANY);
        let sql = "UPDATE profiles SET phone_visible = 'everyone'";
        assert_eq!(Database.execute(sql, params![]).unwrap(), u64::from(MANY));
        assert_eq!(found(1, None, 1..=MANY).len(), MANY as usize);
    }
}

// --- Tested numbers ------------------------------------------------------------------------------------------------------------------

fn fingerprints(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("{number:06}")).collect()
}

/// In order: the fingerprint, and whether it is in the address book.
fn tested(owner: u32) -> Vec<(String, bool)> {
    let sql = "SELECT fingerprint, in_book FROM tested_numbers WHERE owner_id = $1 ORDER BY fingerprint";
    Database.rows(sql, params![uuid(id(owner))]).unwrap()
}

fn noted(owner: u32, fingerprints: &[String], at: Timestamp) -> u64 {
    committed(|tx| note_numbers(tx, &id(owner), fingerprints, at))
}

mod note_numbers {
    use super::*;

    #[test]
    fn counts_those_that_this_person_never_tested() {
        let _store = store();
        assert_eq!(noted(1, &texts(&["a", "b"]), 1), 2);
        assert_eq!(noted(1, &texts(&["b", "c"]), 2), 1);
        assert_eq!(noted(2, &texts(&["a"]), 2), 1);
        assert_eq!(noted(1, &[], 3), 0);
        assert_eq!(tested(1), ["a", "b", "c"].map(|text| (text.to_owned(), false)));
    }

    #[test]
    fn takes_the_same_twice_in_one_list() {
        let _store = store();
        assert_eq!(noted(1, &texts(&["a", "a"]), 1), 1);
    }

    #[test]
    fn takes_a_list_beyond_a_statement() {
        let _store = store();
        assert_eq!(noted(1, &fingerprints(0..MANY), 1), u64::from(MANY));
        assert_eq!(noted(1, &fingerprints(0..MANY + 1), 1), 1);
    }
}

mod count_numbers {
    use super::*;

    fn counted(owner: u32, new: u64, now: Timestamp) -> bool {
        committed(|tx| count_numbers(tx, &id(owner), new, now, now.saturating_sub(100), 10))
    }

    #[test]
    fn counts_up_to_the_days_number_and_not_beyond() {
        let _store = store();
        assert_eq!([6, 4, 1].map(|new| counted(1, new, 1_000)), [true, true, false]);
        assert!(counted(2, 10, 1_000), "another person has a number of their own");
    }

    #[test]
    fn refuses_more_than_the_rest_and_still_counts_less() {
        let _store = store();
        assert_eq!([8, 3, 2].map(|new| counted(1, new, 1_000)), [true, false, true]);
    }

    #[test]
    fn begins_again_when_the_day_is_over() {
        let _store = store();
        assert!(counted(1, 10, 1_000));
        assert!(!counted(1, 1, 1_099));
        assert!(counted(1, 10, 1_100));
        assert!(!counted(1, 1, 1_199));
    }

    #[test]
    fn refuses_more_than_a_days_number_at_once_on_the_first_day_and_on_another() {
        let _store = store();
        assert!(!counted(1, 11, 1_000));
        assert!(counted(1, 10, 1_000));
        assert!(!counted(1, 11, 2_000));
        assert!(counted(1, 10, 2_000));
    }
}

mod numbers_day {
    use super::*;

    #[test]
    fn is_when_the_first_of_the_day_was_counted() {
        let _store = store();
        let day = || committed(|tx| numbers_day(tx, &id(1)));
        assert_eq!(day(), None);
        for (now, begun) in [(1_000, 1_000), (1_050, 1_000), (1_100, 1_100)] {
            assert!(committed(|tx| count_numbers(tx, &id(1), 1, now, now - 100, 10)));
            assert_eq!(day(), Some(begun));
        }
        assert_eq!(committed(|tx| numbers_day(tx, &id(2))), None);
    }
}

mod trim_numbers {
    use super::*;

    #[test]
    fn keeps_the_newest_of_this_person() {
        let _store = store();
        for (at, fingerprint) in [(3, "c"), (1, "a"), (2, "b")] {
            noted(1, &texts(&[fingerprint]), at);
            noted(2, &texts(&[fingerprint]), at);
        }
        committed(|tx| trim_numbers(tx, &id(1), 2));
        assert_eq!(tested(1), ["b", "c"].map(|text| (text.to_owned(), false)));
        assert_eq!(tested(2).len(), 3);
        committed(|tx| trim_numbers(tx, &id(1), 2));
        assert_eq!(tested(1).len(), 2);
    }

    #[test]
    fn takes_away_as_many_as_one_match_may_add() {
        let _store = store();
        noted(1, &texts(&["kept"]), 9);
        noted(1, &fingerprints(0..NUMBERS_TRIMMED as u32), 8);
        committed(|tx| trim_numbers(tx, &id(1), 1));
        assert_eq!(tested(1), [("kept".to_owned(), false)]);
    }
}

mod put_numbers_in {
    use super::*;

    #[test]
    fn changes_tested_ones_of_this_person_alone() {
        let _store = store();
        noted(1, &texts(&["a", "b"]), 1);
        noted(2, &texts(&["a"]), 1);
        committed(|tx| put_numbers_in(tx, &id(1), &texts(&["a", "untested"])));
        assert_eq!(tested(1), [("a".to_owned(), true), ("b".to_owned(), false)]);
        assert_eq!(tested(2), [("a".to_owned(), false)]);
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        noted(1, &fingerprints(0..MANY), 1);
        committed(|tx| put_numbers_in(tx, &id(1), &[]));
        assert!(tested(1).iter().all(|(_, in_book)| !in_book));
        committed(|tx| put_numbers_in(tx, &id(1), &fingerprints(0..MANY)));
        assert!(tested(1).iter().all(|(_, in_book)| *in_book));
    }
}

mod take_number_out {
    use super::*;

    #[test]
    fn leaves_it_tested_and_others_in() {
        let _store = store();
        for owner in [1, 2] {
            noted(owner, &texts(&["a", "b"]), 1);
            committed(|tx| put_numbers_in(tx, &id(owner), &texts(&["a", "b"])));
        }
        take_number_out(&id(1), "a").unwrap();
        take_number_out(&id(1), "untested").unwrap();
        assert_eq!(tested(1), [("a".to_owned(), false), ("b".to_owned(), true)]);
        assert_eq!(tested(2), [("a".to_owned(), true), ("b".to_owned(), true)]);
    }
}

// --- Privacy -----------------------------------------------------------------------------------------------------------------------

fn chosen(number: u32) -> [String; 6] {
    let Privacy { phone_visible, profile_visible, last_seen_visible, presence_visible, read_receipts, added_by } =
        privacy_of(&id(number)).unwrap().unwrap();
    [phone_visible, profile_visible, last_seen_visible, presence_visible, read_receipts, added_by]
}

mod privacy_of {
    use super::*;

    #[test]
    fn is_of_this_user_or_none() {
        let _store = store();
        profiles([1, 2]);
        privacy(1, PrivacyChange { added_by: Some("nobody"), ..UNCHANGED });
        assert_eq!([1, 2].map(|number| privacy_of(&id(number)).unwrap().unwrap().added_by), ["nobody", "everyone"]);
        assert!(privacy_of(&id(3)).unwrap().is_none());
    }
}

mod update_privacy {
    use super::*;

    #[test]
    fn sets_each_choice_by_itself_and_keeps_the_others() {
        let _store = store();
        profiles([1, 2]);
        let usual = chosen(2);
        let each = [
            PrivacyChange { phone_visible: Some("nobody"), ..UNCHANGED },
            PrivacyChange { profile_visible: Some("nobody"), ..UNCHANGED },
            PrivacyChange { last_seen_visible: Some("nobody"), ..UNCHANGED },
            PrivacyChange { presence_visible: Some("nobody"), ..UNCHANGED },
            PrivacyChange { read_receipts: Some("nobody"), ..UNCHANGED },
            PrivacyChange { added_by: Some("nobody"), ..UNCHANGED },
        ];
        let mut expected = usual.clone();
        for (at, change) in each.into_iter().enumerate() {
            privacy(1, change);
            expected[at] = "nobody".to_owned();
            assert_eq!(chosen(1), expected);
        }
        assert_eq!((chosen(2), profile(1).updated_at, profile(2).updated_at), (usual, 8, 7));
    }

    #[test]
    fn takes_no_audience_that_there_is_not() {
        let _store = store();
        profiles([1]);
        let change = PrivacyChange { added_by: Some("friends"), ..UNCHANGED };
        let error = transaction(|tx| update_privacy(tx, &id(1), &change, 8)).unwrap_err();
        assert_eq!(error.class, echo_sdk::sql::ErrorClass::Check);
    }
}

mod owners_seen_by {
    use super::*;

    #[test]
    fn gives_each_choice_with_the_relation_to_the_viewer() {
        let _store = store();
        profiles([1, 2, 3]);
        privacy(1, PrivacyChange { added_by: Some("contacts"), ..UNCHANGED });
        contact(1, 9);
        contact(9, 2);
        blocked(2, 9);
        blocked(3, 9);
        unblocked(3, 9);
        let mut owners: Vec<_> = owners_seen_by(&id(9), &ids(1..=4))
            .unwrap()
            .into_iter()
            .map(|owner| (owner.id, owner.added_by, owner.viewer_is_contact, owner.viewer_is_blocked))
            .collect();
        owners.sort_unstable();
        let row = |number, added_by: &str, contact, blocked| (id(number), added_by.to_owned(), contact, blocked);
        assert_eq!(owners, [row(1, "contacts", true, false), row(2, "everyone", false, true), row(3, "everyone", false, false)]);
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        assert!(owners_seen_by(&id(9), &[]).unwrap().is_empty());
        profiles(1..=MANY);
        assert_eq!(owners_seen_by(&id(9), &ids(1..=MANY)).unwrap().len(), MANY as usize);
    }
}

mod read_receipts_of {
    use super::*;

    #[test]
    fn says_the_audience_and_whether_anybody_is_blocked_now() {
        let _store = store();
        profiles([1]);
        let read = || read_receipts_of(&id(1)).unwrap().map(|chosen| (chosen.audience, chosen.blocks_anybody));
        assert_eq!(read(), Some(("everyone".to_owned(), false)));
        privacy(1, PrivacyChange { read_receipts: Some("contacts"), ..UNCHANGED });
        blocked(2, 1);
        assert_eq!(read(), Some(("contacts".to_owned(), false)));
        blocked(1, 2);
        assert_eq!(read(), Some(("contacts".to_owned(), true)));
        unblocked(1, 2);
        assert_eq!(read(), Some(("contacts".to_owned(), false)));
        assert!(read_receipts_of(&id(3)).unwrap().is_none());
    }
}

// --- Contacts ----------------------------------------------------------------------------------------------------------------------

mod contacts_of {
    use super::*;

    fn page(owner: u32, before: (u64, &str), limit: i64) -> Vec<(String, u64)> {
        let page = contacts_of(&id(owner), &(before.0, before.1.to_owned()), limit).unwrap();
        page.into_iter().map(|contact| (contact.seen.profile.id, contact.created_at)).collect()
    }

    #[test]
    fn gives_the_newest_first_page_by_page_where_times_are_equal_too() {
        let _store = store();
        profiles(1..=4);
        for (user, at) in [(1, 10), (2, 20), (3, 20), (4, 5)] {
            put_contact(&id(9), &id(user), None, at).unwrap();
        }
        put_contact(&id(8), &id(1), None, 30).unwrap();
        assert_eq!(page(9, FIRST, 2), [(id(3), 20), (id(2), 20)]);
        assert_eq!(page(9, (20, &id(3)), 2), [(id(2), 20), (id(1), 10)]);
        assert_eq!(page(9, (5, &id(4)), 2), []);
    }

    #[test]
    fn gives_the_owners_alias_and_what_the_contact_has_to_do_with_the_owner() {
        let _store = store();
        profiles([1]);
        put_contact(&id(9), &id(1), Some("Countess"), 10).unwrap();
        contact(1, 9);
        blocked(1, 9);
        let found = contacts_of(&id(9), &(FIRST.0, FIRST.1.to_owned()), 10).unwrap();
        assert_eq!(found[0].alias.as_deref(), Some("Countess"));
        assert_eq!((found[0].seen.viewer_is_contact, found[0].seen.viewer_is_blocked), (true, true));
    }
}

mod contact_of {
    use super::*;

    #[test]
    fn finds_one_of_the_owners_own() {
        let _store = store();
        profiles([1, 2]);
        put_contact(&id(9), &id(1), Some("Countess"), 10).unwrap();
        contact(8, 2);
        let found = contact_of(&id(9), &id(1)).unwrap().unwrap();
        assert_eq!((found.alias.as_deref(), found.created_at, found.seen.profile.id), (Some("Countess"), 10, id(1)));
        assert!(contact_of(&id(9), &id(2)).unwrap().is_none());
        assert!(contact_of(&id(1), &id(9)).unwrap().is_none());
    }
}

mod contacts_among {
    use super::*;

    #[test]
    fn gives_the_owners_own_and_no_reverse() {
        let _store = store();
        contact(9, 1);
        contact(8, 2);
        contact(3, 9);
        assert_eq!(contacts_among(&id(9), &ids(1..=4)).unwrap(), ids([1]));
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        assert!(contacts_among(&id(9), &[]).unwrap().is_empty());
        for user in [1, MANY] {
            contact(9, user);
        }
        assert_eq!(sorted(contacts_among(&id(9), &ids(1..=MANY)).unwrap()), ids([1, MANY]));
    }
}

mod contact_count_of {
    use super::*;

    #[test]
    fn counts_the_owners_own() {
        let _store = store();
        contact(9, 1);
        contact(9, 2);
        contact(8, 3);
        assert_eq!([9, 8, 7].map(|owner| contact_count_of(&id(owner)).unwrap()), [2, 1, 0]);
    }
}

mod put_contact {
    use super::*;

    #[test]
    fn changes_only_the_alias_of_one_that_is_there_and_only_to_another() {
        let _store = store();
        profiles([1]);
        for (alias, at, kept) in [(None, 10, None), (Some("A"), 20, Some("A")), (None, 30, Some("A")), (Some("B"), 40, Some("B"))] {
            put_contact(&id(9), &id(1), alias, at).unwrap();
            let found = contact_of(&id(9), &id(1)).unwrap().unwrap();
            assert_eq!((found.alias.as_deref(), found.created_at), (kept, 10));
        }
        assert_eq!(contact_count_of(&id(9)).unwrap(), 1);
    }
}

mod set_alias {
    use super::*;

    #[test]
    fn sets_and_removes_it_and_makes_no_contact() {
        let _store = store();
        profiles([1]);
        contact(9, 1);
        contact(8, 1);
        for alias in [Some("A"), None] {
            assert!(set_alias(&id(9), &id(1), alias).unwrap());
            assert_eq!(contact_of(&id(9), &id(1)).unwrap().unwrap().alias.as_deref(), alias);
        }
        assert!(set_alias(&id(9), &id(1), Some("B")).unwrap());
        assert_eq!(contact_of(&id(8), &id(1)).unwrap().unwrap().alias, None);
        assert!(!set_alias(&id(9), &id(2), Some("A")).unwrap());
        assert_eq!(contact_count_of(&id(9)).unwrap(), 1);
    }
}

mod delete_contact {
    use super::*;

    #[test]
    fn deletes_the_owners_own_once() {
        let _store = store();
        contact(9, 1);
        contact(8, 1);
        contact(1, 9);
        assert_eq!([(); 2].map(|()| committed(|tx| delete_contact(tx, &id(9), &id(1)))), [true, false]);
        assert_eq!([9, 8, 1].map(|owner| contact_count_of(&id(owner)).unwrap()), [0, 1, 1]);
    }
}

// --- Blocks ------------------------------------------------------------------------------------------------------------------------

mod blocks_of {
    use super::*;

    fn page(user: u32, before: (u64, &str), limit: i64) -> Vec<(String, u64)> {
        let page = blocks_of(&id(user), &(before.0, before.1.to_owned()), limit).unwrap();
        page.into_iter().map(|block| (block.user_id, block.created_at)).collect()
    }

    #[test]
    fn gives_those_of_now_newest_first_page_by_page() {
        let _store = store();
        committed(|tx| {
            for (user, at) in [(1, 10), (2, 20), (3, 20), (4, 30)] {
                block(tx, &id(9), &id(user), at)?;
            }
            block(tx, &id(8), &id(1), 40)
        });
        unblocked(9, 4);
        assert_eq!(page(9, FIRST, 2), [(id(3), 20), (id(2), 20)]);
        assert_eq!(page(9, (20, &id(2)), 2), [(id(1), 10)]);
    }
}

mod blocked_among {
    use super::*;

    #[test]
    fn gives_whom_the_user_blocks_now() {
        let _store = store();
        blocked(9, 1);
        blocked(9, 2);
        unblocked(9, 2);
        blocked(3, 9);
        assert_eq!(blocked_among(&id(9), &ids(1..=4)).unwrap(), ids([1]));
    }

    #[test]
    fn takes_an_empty_list_and_one_beyond_a_statement() {
        let _store = store();
        assert!(blocked_among(&id(9), &[]).unwrap().is_empty());
        blocked(9, 1);
        blocked(9, MANY);
        assert_eq!(sorted(blocked_among(&id(9), &ids(1..=MANY)).unwrap()), ids([1, MANY]));
    }
}

mod block_of {
    use super::*;

    #[test]
    fn is_of_a_pair_that_is_blocked_now() {
        let _store = store();
        blocked(9, 1);
        blocked(9, 2);
        unblocked(9, 2);
        let found = |user, other| block_of(&id(user), &id(other)).unwrap().map(|block| (block.user_id, block.created_at));
        assert_eq!(found(9, 1), Some((id(1), 5)));
        assert_eq!([found(9, 2), found(1, 9), found(9, 3)], [None, None, None]);
    }
}

mod block_count_of {
    use super::*;

    #[test]
    fn counts_the_rows_that_are_kept_those_of_before_included() {
        let _store = store();
        blocked(9, 1);
        blocked(9, 2);
        unblocked(9, 2);
        blocked(8, 1);
        assert_eq!([9, 8, 7].map(|user| block_count_of(&id(user)).unwrap()), [2, 1, 0]);
    }
}

mod block {
    use super::*;

    #[test]
    fn raises_the_revision_with_each_change_and_only_then() {
        let _store = store();
        let block = |at| committed(|tx| block(tx, &id(9), &id(1), at));
        let unblock = || committed(|tx| unblock(tx, &id(9), &id(1)));
        assert_eq!([block(10), block(20), unblock(), unblock(), block(30)], [Some(1), None, Some(2), None, Some(3)]);
        let blocks = blocks_of(&id(9), &(FIRST.0, FIRST.1.to_owned()), 10).unwrap();
        assert_eq!((blocks.len(), blocks[0].created_at), (1, 30));
    }

    #[test]
    fn is_of_this_pair_and_this_direction() {
        let _store = store();
        blocked(9, 1);
        for (user, other) in [(1, 9), (9, 2)] {
            assert_eq!(committed(|tx| block(tx, &id(user), &id(other), 10)), Some(1));
        }
    }
}

mod unblock {
    use super::*;

    #[test]
    fn does_nothing_where_nobody_is_blocked() {
        let _store = store();
        blocked(1, 9);
        assert_eq!(committed(|tx| unblock(tx, &id(9), &id(1))), None);
        assert_eq!(blocked_among(&id(1), &ids([9])).unwrap(), ids([9]));
        assert_eq!(block_count_of(&id(9)).unwrap(), 0);
    }

    #[test]
    fn keeps_the_revision_for_what_comes_after() {
        let _store = store();
        blocked(9, 1);
        assert_eq!(committed(|tx| unblock(tx, &id(9), &id(1))), Some(2));
        assert!(blocked_among(&id(9), &ids([1])).unwrap().is_empty());
        assert_eq!(committed(|tx| block(tx, &id(9), &id(1), 10)), Some(3));
    }
}

// --- Reports -------------------------------------------------------------------------------------------------------------------------

pub(super) fn reported(number: u32, user: u32, message: Option<u32>, reason: &str, at: Timestamp) -> (String, Timestamp) {
    let (report, message) = (id(number), message.map(id));
    let new = NewReport { id: &report, reporter: &id(9), user_id: &id(user), message_id: message.as_deref(), reason, at };
    committed(|tx| put_report(tx, &new))
}

/// Reports of the reporter 9: what is reported and why, oldest first.
fn reports() -> Vec<(String, String)> {
    let sql = "SELECT subject_id, reason FROM reports WHERE reporter_id = $1 ORDER BY created_at, subject_id";
    Database.rows(sql, params![uuid(id(9))]).unwrap()
}

mod put_report {
    use super::*;

    #[test]
    fn is_one_of_each_subject_and_takes_the_newer_reason() {
        let _store = store();
        assert_eq!(reported(101, 1, None, "spam", 10), (id(101), 10));
        assert_eq!(reported(102, 1, Some(50), "threats", 20), (id(102), 20));
        assert_eq!(reported(103, 1, None, "much spam", 30), (id(101), 10));
        assert_eq!(reports(), [(id(1), "much spam".to_owned()), (id(50), "threats".to_owned())]);
    }
}

mod trim_reports {
    use super::*;

    #[test]
    fn keeps_the_newest_of_this_reporter() {
        let _store = store();
        for number in 1..=4 {
            reported(100 + number, number, None, "spam", u64::from(number));
        }
        committed(|tx| trim_reports(tx, &id(8), 0));
        committed(|tx| trim_reports(tx, &id(9), 3));
        let kept: Vec<String> = reports().into_iter().map(|(subject, _)| subject).collect();
        assert_eq!(kept, ids(2..=4));
    }
}

// --- Presence ------------------------------------------------------------------------------------------------------------------------

mod sights_of {
    use super::*;

    fn sights(pairs: &[(u32, u32)]) -> Vec<(String, String, bool, bool)> {
        let ids: Vec<(String, String)> = pairs.iter().map(|(user, viewer)| (id(*user), id(*viewer))).collect();
        let pairs: Vec<(&str, &str)> = ids.iter().map(|(user, viewer)| (user.as_str(), viewer.as_str())).collect();
        let mut sights = sights_of(&pairs).unwrap();
        sights.sort_by(|one, other| (&one.user_id, &one.viewer_id).cmp(&(&other.user_id, &other.viewer_id)));
        sights.into_iter().map(|sight| (sight.user_id, sight.viewer_id, sight.viewer_is_contact, sight.viewer_is_blocked)).collect()
    }

    #[test]
    fn says_of_each_pair_what_they_have_to_do_with_each_other() {
        let _store = store();
        profiles([1, 2]);
        contact(1, 8);
        contact(8, 2);
        blocked(1, 9);
        blocked(2, 8);
        unblocked(2, 8);
        let expect = [(1, 8, true, false), (1, 9, false, true), (2, 8, false, false)];
        let expect: Vec<_> = expect.into_iter().map(|(user, viewer, contact, blocked)| (id(user), id(viewer), contact, blocked)).collect();
        // Of a user whom nobody knows nothing is said.
        assert_eq!(sights(&[(1, 8), (1, 9), (2, 8), (3, 8)]), expect);
        assert_eq!(sights(&[]), []);
    }

    #[test]
    fn gives_the_owners_choices() {
        let _store = store();
        profiles([1]);
        privacy(1, PrivacyChange { presence_visible: Some("nobody"), last_seen_visible: Some("everyone"), ..UNCHANGED });
        let sight = sights_of(&[(&id(1), &id(2))]).unwrap().remove(0);
        assert_eq!((sight.presence_visible.as_str(), sight.last_seen_visible.as_str()), ("nobody", "everyone"));
    }

    #[test]
    fn takes_more_pairs_than_one_statement_lists() {
        let _store = store();
        profiles([1]);
        let pairs: Vec<(u32, u32)> = (0..MANY).map(|viewer| (1, viewer)).collect();
        assert_eq!(sights(&pairs).len(), MANY as usize);
    }
}
