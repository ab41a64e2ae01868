//! Each store function by itself, in a module of its name, on a real database with the service's tables: deleted and erased accounts.

use echo_sdk::sql::Database;

use super::*;
use crate::bindings::exports::echo::auth::api::{Device, LoginAttempt, LoginOutcome, Session};
use crate::lockout::Counter;
use crate::otp::Code;
use crate::store::fixtures::*;
use crate::store::*;

fn deleted(number: u32, at: u64) {
    mark_deleted(&Database, &id(number), at).unwrap();
}

/// Those that are due at this time.
fn due(before: u64) -> Vec<String> {
    accounts_to_erase(&Database, before, 10).unwrap().into_iter().map(|(id, _)| id).collect()
}

mod mark_deleted {
    use super::*;

    #[test]
    fn keeps_the_first_time() {
        let _store = store();
        account(1);
        account(2);
        assert!(super::super::mark_deleted(&Database, &id(1), 10).unwrap());
        assert!(!super::super::mark_deleted(&Database, &id(1), 20).unwrap());
        assert_eq!((due(9), due(10)), (ids([]), ids([1])));
    }
}

mod unmark_deleted {
    use super::*;

    #[test]
    fn gives_the_account_back() {
        let _store = store();
        account(1);
        account(2);
        deleted(1, 10);
        deleted(2, 10);
        assert!(super::super::unmark_deleted(&Database, &id(1)).unwrap());
        assert!(!super::super::unmark_deleted(&Database, &id(1)).unwrap());
        assert_eq!(due(100), ids([2]));
    }
}

mod is_deleted {
    use super::*;

    #[test]
    fn is_so_until_its_owner_has_it_back() {
        let _store = store();
        account(1);
        account(2);
        deleted(1, 10);
        let are = || [1, 2, 3].map(|number| super::super::is_deleted(&Database, &id(number)).unwrap());
        assert_eq!(are(), [true, false, false]);
        unmark_deleted(&Database, &id(1)).unwrap();
        assert_eq!(are(), [false; 3]);
    }
}

mod accounts_to_erase {
    use super::*;

    #[test]
    fn gives_so_many_with_their_numbers_the_longest_deleted_first() {
        let _store = store();
        for (number, at) in [(1, 30), (2, 10), (3, 20)] {
            account(number);
            deleted(number, at);
        }
        account(4);
        let found = accounts_to_erase(&Database, 30, 2).unwrap();
        assert_eq!(found, [(id(2), phone(2)), (id(3), phone(3))]);
    }
}

mod erase_account {
    use super::*;

    /// Something in every table.
    fn filled(number: u32) {
        account(number);
        let (account, phone) = (id(number), phone(number));
        remember_password(&Database, &account, "hash", 1).unwrap();
        let entry = LoginAttempt {
            at: 1,
            outcome: LoginOutcome::Succeeded,
            device_id: "a".into(),
            address: Some("192.0.2.7".into()),
            user_agent: None,
            provider: None,
        };
        add_attempt(&Database, &id(100 + number), &account, &entry).unwrap();
        note_device(&Database, &account, "a", "192.0.2.7", 1, 9).unwrap();
        let subject = format!("person {number}");
        let identity = NewIdentity { provider: "company", issuer: "https://id.example", subject: &subject, email: Some("a@example.org") };
        link_identity(&Database, &account, &identity, 1).unwrap();
        let device = Device { id: "a".into(), name: None, platform: None, model: None, os: None, app_version: None };
        let session = Session { id: id(200 + number), device, place: None, address: None, created_at: 1, last_used_at: 1, current: false };
        add_session(&Database, &account, &session, 100).unwrap();
        add_refresh_token(&Database, &format!("refresh {number}"), &session.id, None, 100).unwrap();
        start_factor(&Database, &account, "seed", 1).unwrap();
        put_recovery_codes(&Database, &account, &["code".to_owned()]).unwrap();
        add_reset(&Database, &format!("reset {number}"), &phone, Some(&Code::for_tests("c")), 100).unwrap();
        let export = Export { account_id: account.clone(), id: id(300 + number), requested_at: 1, expires_at: 9, ready_at: None };
        assert!(begin_export(&Database, &export, 0).unwrap());
        note_part(&Database, &account, &export.id, "user", 2).unwrap();
        for subject in ["password", "totp", "reset"] {
            let counter = Counter { subject: format!("{subject} {phone}"), client: String::new(), failures_max: 5, lock_us: 1 };
            count_guess(&Database, &counter, 1).unwrap();
        }
        for key in [
            format!("verify {phone}"),
            format!("verify {phone} 192.0.2.7"),
            format!("asked {phone} 192.0.2.7"),
            format!("reset {phone} known"),
        ] {
            count_code(&Database, &key, 1, 0).unwrap();
        }
    }

    const TABLES: [&str; 12] = [
        "accounts",
        "password_history",
        "login_attempts",
        "known_devices",
        "sessions",
        "refresh_tokens",
        "second_factors",
        "recovery_codes",
        "resets",
        "guesses",
        "account_exports",
        "account_export_parts",
    ];

    #[test]
    fn leaves_nothing_of_it_and_all_of_others() {
        let _store = store();
        filled(1);
        let of_one: Vec<i64> = TABLES.iter().chain(&["code_counts", "identities"]).map(|table| count(table)).collect();
        assert!(of_one.iter().all(|count| *count > 0), "{of_one:?}");
        filled(2);
        deleted(1, 10);
        assert!(erase_account(&Database, &id(1), &phone(1), 10).unwrap());
        let left_over: Vec<i64> = TABLES.iter().chain(&["code_counts", "identities"]).map(|table| count(table)).collect();
        assert_eq!(left_over, of_one);
        assert_eq!(left("accounts", "id"), ids([2]));
        assert!(left("code_counts", "key").iter().all(|key| key.contains(&phone(2))));
    }

    #[test]
    fn leaves_one_that_its_owner_has_back() {
        let _store = store();
        filled(1);
        assert!(!erase_account(&Database, &id(1), &phone(1), 100).unwrap());
        deleted(1, 10);
        assert!(!erase_account(&Database, &id(1), &phone(1), 9).unwrap());
        assert_eq!((count("accounts"), count("sessions")), (1, 1));
    }
}
