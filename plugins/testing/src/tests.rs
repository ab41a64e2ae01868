//! That the database under a store test behaves as the host's does under a component.

use echo_sdk::sql::{Database, ErrorClass, Sql, SqlError, batch, transaction, uuid};
use echo_sdk::{ids, params};

use super::Store;

const USER: &str = "01890000-0000-7000-8000-000000000001";
const INSERT: &str = "INSERT INTO name_parts (part, user_id) VALUES ($1, $2)";

fn store() -> Store {
    let store = Store::open("user");
    let sql = "INSERT INTO profiles (id, display_name, created_at, updated_at) VALUES ($1, 'Ada', 1, 1)";
    Database.execute(sql, params![uuid(USER)]).expect("inserts");
    store
}

fn parts() -> Vec<(String,)> {
    Database.rows("SELECT part FROM name_parts ORDER BY part", params![]).expect("reads")
}

#[test]
fn each_test_has_a_database_of_its_own() {
    let first = store();
    Database.execute(INSERT, params!["a", uuid(USER)]).expect("inserts");
    assert_eq!(parts().len(), 1);
    drop(first);
    let _second = store();
    assert_eq!(parts().len(), 0);
}

#[test]
fn a_transaction_commits_with_ok_and_rolls_back_with_an_error() {
    let _store = store();
    transaction(|tx| tx.execute(INSERT, params!["a", uuid(USER)])).expect("commits");
    let failed: Result<(), SqlError> = transaction(|tx| {
        tx.execute(INSERT, params!["b", uuid(USER)])?;
        assert_eq!(tx.one::<(i64,)>("SELECT COUNT(*) FROM name_parts", params![])?, (2,));
        tx.execute(INSERT, params!["a", uuid(USER)])?;
        Ok(())
    });
    assert_eq!(failed.expect_err("the part is there already").class, ErrorClass::UniqueViolation);
    assert_eq!(parts(), [("a".to_owned(),)]);
}

#[test]
fn a_batch_is_all_or_nothing() {
    let _store = store();
    let row = |part: &str| (INSERT, params![part, uuid(USER)]);
    assert_eq!(batch(vec![row("a"), row("b")]).expect("inserts"), [1, 1]);
    batch(vec![row("c"), row("a")]).expect_err("the second is there already");
    assert_eq!(parts().len(), 2);
}

#[test]
fn nothing_is_asked_beside_an_open_transaction() {
    let _store = store();
    let outside: Result<u64, SqlError> = transaction(|_| Database.execute(INSERT, params!["a", uuid(USER)]));
    assert_eq!(outside.expect_err("refused").class, ErrorClass::Other);
    let second: Result<(), SqlError> = transaction(|_| transaction(|_| Ok(())));
    assert_eq!(second.expect_err("refused").class, ErrorClass::Other);
    transaction(|tx| tx.execute(INSERT, params!["a", uuid(USER)])).expect("both are over");
}

#[test]
fn what_a_component_may_not_ask_a_test_may_not_either() {
    let _store = store();
    for sql in ["SELECT name FROM sqlite_master", "DROP TABLE name_parts", "SELECT hex('a')", "PRAGMA page_count"] {
        assert_eq!(Database.execute(sql, params![]).expect_err(sql).class, ErrorClass::Other, "{sql}");
    }
}

#[test]
#[should_panic(expected = "PostgreSQL could not read this")]
fn a_statement_that_only_sqlite_reads_fails_its_test() {
    let _store = store();
    let _ = Database.execute("DELETE FROM name_parts WHERE part IN ()", params![]);
}

#[test]
fn identifiers_made_in_tests_differ() {
    let made: std::collections::BTreeSet<String> = (0..1_000).map(|_| ids::uuid_v7()).collect();
    assert_eq!(made.len(), 1_000);
}
