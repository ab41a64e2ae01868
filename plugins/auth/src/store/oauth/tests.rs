//! Each store function by itself, in a module of its name, on a real database with the service's tables: identities and used ID Tokens.

use echo_sdk::sql::Database;

use super::*;
use crate::store::fixtures::*;

const ISSUER: &str = "https://id.example";

fn identity<'a>(provider: &'a str, issuer: &'a str, subject: &'a str) -> NewIdentity<'a> {
    NewIdentity { provider, issuer, subject, email: Some("ada@example.org") }
}

fn linked(number: u32, provider: &str, issuer: &str, subject: &str) -> Linked {
    link_identity(&Database, &id(number), &identity(provider, issuer, subject), 5).unwrap()
}

fn owner(issuer: &str, subject: &str) -> Option<String> {
    account_of_identity(&Database, issuer, subject).unwrap().map(|account| account.id)
}

mod link_identity {
    use super::*;

    #[test]
    fn is_one_accounts_alone_and_one_for_each_provider() {
        let _store = store();
        account(1);
        account(2);
        assert_eq!(linked(1, "company", ISSUER, "ada"), Linked::Done);
        assert_eq!(linked(1, "company", ISSUER, "ada"), Linked::Done);
        assert_eq!(linked(2, "company", ISSUER, "ada"), Linked::OfAnother);
        assert_eq!(linked(2, "by another name", ISSUER, "ada"), Linked::OfAnother);
        assert_eq!(linked(1, "company", ISSUER, "bala"), Linked::Occupied);
        assert_eq!(linked(1, "google", "https://accounts.google.com", "ada"), Linked::Done);
        assert_eq!(linked(2, "company", ISSUER, "bala"), Linked::Done);
        assert_eq!(count("identities"), 3);
    }
}

mod account_of_identity {
    use super::*;

    #[test]
    fn is_found_by_issuer_and_subject_together() {
        let _store = store();
        account(1);
        account(2);
        linked(1, "company", ISSUER, "ada");
        linked(2, "other", "https://other.example", "ada");
        assert_eq!(owner(ISSUER, "ada"), Some(id(1)));
        assert_eq!(owner("https://other.example", "ada"), Some(id(2)));
        assert_eq!([owner(ISSUER, "Ada"), owner("", "ada"), owner("company", "ada")], [None, None, None]);
        let found = account_of_identity(&Database, ISSUER, "ada").unwrap().unwrap();
        assert_eq!((found.phone, found.password_hash.as_str(), found.verified), (phone(1), "hash", true));
    }
}

mod use_identity {
    use super::*;

    #[test]
    fn notes_when_and_only_for_its_account() {
        let _store = store();
        account(1);
        account(2);
        linked(1, "company", ISSUER, "ada");
        assert!(!use_identity(&Database, &id(2), ISSUER, "ada", 9).unwrap());
        assert!(!use_identity(&Database, &id(1), ISSUER, "bala", 9).unwrap());
        assert_eq!(identities_of(&Database, &id(1)).unwrap()[0].last_used_at, None);
        assert!(use_identity(&Database, &id(1), ISSUER, "ada", 9).unwrap());
        assert_eq!(identities_of(&Database, &id(1)).unwrap()[0].last_used_at, Some(9));
    }
}

mod identities_of {
    use super::*;

    #[test]
    fn are_the_accounts_own_by_provider() {
        let _store = store();
        account(1);
        account(2);
        linked(1, "google", "https://accounts.google.com", "a");
        let bare = NewIdentity { email: None, ..identity("company", ISSUER, "ada") };
        super::super::link_identity(&Database, &id(1), &bare, 7).unwrap();
        linked(2, "apple", "https://appleid.apple.com", "b");
        let found = identities_of(&Database, &id(1)).unwrap();
        let found: Vec<_> = found.iter().map(|found| (found.provider.as_str(), found.email.as_deref(), found.linked_at)).collect();
        assert_eq!(found, [("company", None, 7), ("google", Some("ada@example.org"), 5)]);
    }
}

mod unlink_identity {
    use super::*;

    #[test]
    fn takes_the_accounts_own_once_and_leaves_it_to_others() {
        let _store = store();
        account(1);
        account(2);
        linked(1, "company", ISSUER, "ada");
        let unlinked = |number| super::super::unlink_identity(&Database, &id(number), "company").unwrap();
        assert_eq!([unlinked(2), unlinked(1), unlinked(1)], [false, true, false]);
        assert_eq!(owner(ISSUER, "ada"), None);
        assert_eq!(linked(2, "company", ISSUER, "ada"), Linked::Done);
    }
}

mod take_id_token {
    use super::*;

    #[test]
    fn is_good_once() {
        let _store = store();
        let taken = |fingerprint| super::super::take_id_token(&Database, fingerprint, 10).unwrap();
        assert_eq!([taken("one"), taken("one"), taken("two")], [true, false, true]);
    }
}

mod forget_id_tokens {
    use super::*;

    #[test]
    fn forgets_so_many_that_are_too_old_now() {
        let _store = store();
        for (fingerprint, refused_from) in [("a", 10), ("b", 11), ("c", 12), ("d", 13)] {
            take_id_token(&Database, fingerprint, refused_from).unwrap();
        }
        super::super::forget_id_tokens(&Database, 12, 2).unwrap();
        assert_eq!(left("used_id_tokens", "fingerprint"), ["c", "d"]);
        super::super::forget_id_tokens(&Database, 12, 2).unwrap();
        assert_eq!(left("used_id_tokens", "fingerprint"), ["d"]);
    }
}
