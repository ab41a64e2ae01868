//! Guesses at passwords and codes are counted before they are looked at, all that come at once included, and given back where the guess was right or
//! nobody looked. Counted by number and not by account, so that an unknown number behaves the same. While a counter is full nobody looks at
//! anything: right and wrong have one answer and one cost.

use echo_sdk::sql::{Sql, SqlError};
use echo_sdk::time::SECOND_US;
use echo_sdk::{Error, Transaction};

use crate::clients::Client;
use crate::settings::Settings;
use crate::store;

/// One counter of failures in a row.
pub struct Counter {
    pub subject: String,
    pub client: String,
    pub failures_max: u64,
    pub lock_us: u64,
}

/// Guesses at the password of a number: the client's own, and for strangers also all that come from their address, whichever numbers they are for.
pub fn of_password(settings: &Settings, phone: &str, client: &Client, address: &str) -> Vec<Counter> {
    let mut counters = vec![counter(settings, format!("password {phone}"), client.key(), settings.lockout_failures)];
    if *client == Client::Stranger {
        counters.push(of_address(settings, address));
    }
    counters
}

/// Guesses at a code of the second factor, by somebody who has the password.
pub fn of_totp(settings: &Settings, phone: &str, client: &Client, address: &str) -> Vec<Counter> {
    let mut counters = vec![counter(settings, format!("totp {phone}"), client.key(), settings.lockout_failures)];
    if *client == Client::Stranger {
        counters.push(of_address(settings, address));
    }
    counters
}

/// Guesses at a code for a new password by somebody who holds no secret of a request: an address where the owner signed in before is counted by itself,
/// others each and all together, so that many of them have not many times the tries.
pub fn of_reset(settings: &Settings, phone: &str, address: &str, address_known: bool) -> Vec<Counter> {
    let subject = format!("reset {phone}");
    let own = counter(settings, subject.clone(), format!("address {address}"), settings.otp_tries);
    if address_known {
        return vec![own];
    }
    vec![own, counter(settings, subject, String::new(), settings.otp_tries * STRANGERS_TRIES), of_address(settings, address)]
}

/// So many times the tries of one address have all of them together.
const STRANGERS_TRIES: u64 = 4;

fn of_address(settings: &Settings, address: &str) -> Counter {
    Counter {
        subject: "address".to_owned(),
        client: address.to_owned(),
        failures_max: settings.failures_per_address,
        lock_us: settings.lockout_s * SECOND_US,
    }
}

fn counter(settings: &Settings, subject: String, client: String, failures_max: u64) -> Counter {
    Counter { subject, client, failures_max, lock_us: settings.lockout_s * SECOND_US }
}

/// Counts a guess as wrong before anybody looks at it. Where one counter is full, none is changed. The inner error, 423 `account_locked` with the time
/// left, is for the client.
pub fn admit(tx: &Transaction, counters: &[Counter], now_us: u64) -> Result<Result<(), Error>, SqlError> {
    for counter in counters {
        if let Some(until_us) = store::locked_until(tx, counter, now_us)? {
            return Ok(Err(locked(until_us, now_us)));
        }
    }
    for counter in counters {
        if !store::count_guess(tx, counter, now_us)? {
            // Filled by another transaction meanwhile.
            return Ok(Err(locked(now_us + counter.lock_us, now_us)));
        }
    }
    Ok(Ok(()))
}

/// The guess was right: what the client had wrong before is forgotten, and its address has one less.
pub fn forgive(db: &impl Sql, counters: &[Counter]) -> Result<(), SqlError> {
    let Some((own, others)) = counters.split_first() else { return Ok(()) };
    store::drop_guesses(db, own)?;
    give_back(db, others)
}

/// Nobody looked at the guess.
pub fn give_back(db: &impl Sql, counters: &[Counter]) -> Result<(), SqlError> {
    counters.iter().try_for_each(|counter| store::uncount_guess(db, counter))
}

/// A new password was set with a code: whatever was guessed before is over, for everybody.
pub fn forget(db: &impl Sql, phone: &str) -> Result<(), SqlError> {
    ["password", "reset"].iter().try_for_each(|what| store::drop_guesses_of(db, &format!("{what} {phone}")))
}

fn locked(until_us: u64, now_us: u64) -> Error {
    Error::locked("account_locked", "too many wrong tries in a row", until_us.saturating_sub(now_us).div_ceil(1_000))
}
