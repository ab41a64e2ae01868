//! What the tests of the store functions have in common.

use echo_sdk::params;
use echo_sdk::sql::{Database, Sql, timestamp, uuid};
use echo_testing::Store;

use super::Registration;
use crate::otp::KeptCode;

pub fn store() -> Store {
    Store::open("auth")
}

pub fn id(number: u32) -> String {
    format!("01890000-0000-7000-8000-{number:012}")
}

pub fn ids(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(id).collect()
}

pub fn phone(number: u32) -> String {
    format!("+1415555{number:04}")
}

pub fn count(table: &str) -> i64 {
    Database.one::<(i64,)>(&format!("SELECT COUNT(*) FROM {table}"), params![]).expect("counts").0
}

/// The column of the rows that are left, in order.
pub fn left(table: &str, column: &str) -> Vec<String> {
    let sql = format!("SELECT {column} FROM {table} ORDER BY {column}");
    Database.rows::<(String,)>(&sql, params![]).expect("reads").into_iter().map(|(value,)| value).collect()
}

pub fn registration(password_hash: &str) -> Registration {
    Registration {
        password_hash: password_hash.to_owned(),
        name: Some("Ada".to_owned()),
        country: Some("GB".to_owned()),
        region: Some("London".to_owned()),
        timezone: Some("Europe/London".to_owned()),
        code: KeptCode { fingerprint: String::new(), tries: 0, expires_at: 0 },
    }
}

/// A confirmed one with the id and number, opened at 7.
pub fn account(number: u32) {
    let opened = super::open_account(&Database, &id(number), &phone(number), &registration("hash"), 7).expect("opens");
    assert!(opened.is_some(), "the number is taken");
}

/// As registrations left them before they were kept by themselves.
pub fn unverified_account(number: u32, created_at: u64) {
    let sql = "INSERT INTO accounts (id, phone, password_hash, created_at) VALUES ($1, $2, 'old hash', $3)";
    Database.execute(sql, params![uuid(id(number)), phone(number), timestamp(created_at)]).expect("inserts");
}
