//! Telephone numbers that a person tests, and whom they find by them.
//!
//! Numbers are few and dense, so whoever may test enough of them can list everybody. Therefore a number finds its owner only for those whom the
//! owner lets find it, an unknown number is answered as a hidden one, and the numbers that somebody never tested before are counted per day.
//! What was tested is kept as a keyed hash, never as the number: most numbers of an address book belong to people who never heard of Echo.

use echo_sdk::sql::transaction;
use echo_sdk::time::DAY_US;
use echo_sdk::wit::passwords;
use echo_sdk::{Error, config, time};

use crate::bounds::NUMBERS_KEPT_MAX;
use crate::profiles;
use crate::store::{self, Seen};

/// Where the setting is missing.
const NUMBERS_PER_DAY: u64 = 1_000;

/// What a number is tested for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It is in the person's address book: its owner may find the person by number too, as one of their contacts may.
    AddressBook,
    Search,
}

/// Who of the owners of these numbers lets this person find them.
pub fn find(me: &str, phones: &[String], purpose: Purpose) -> Result<Vec<Seen>, Error> {
    let own = profiles::own(me)?.profile.phone;
    let tested: Vec<String> = phones.iter().filter(|phone| own.as_ref() != Some(*phone)).map(|phone| fingerprint(phone)).collect();
    admit(me, &tested, purpose)?;
    Ok(store::found_by_phone(me, own.as_deref().map(fingerprint).as_deref(), phones)?)
}

/// Takes a number out of the person's address book; that it was tested stays known.
pub fn take_out(me: &str, phone: &str) -> Result<(), Error> {
    Ok(store::take_number_out(me, &fingerprint(phone))?)
}

/// Counts those that were never tested before, and remembers them all. Errors: 429 `too_many_numbers`; then none is remembered, and which of
/// them are users is not said either.
fn admit(me: &str, tested: &[String], purpose: Purpose) -> Result<(), Error> {
    if tested.is_empty() {
        return Ok(());
    }
    let (now, per_day) = (time::now_us(), config::number("numbers_per_day", NUMBERS_PER_DAY));
    transaction(|tx| {
        let new = store::note_numbers(tx, me, tested, now)?;
        if new > 0 {
            if !store::count_numbers(tx, me, new, now, now.saturating_sub(DAY_US), per_day)? {
                let day_started_at = store::numbers_day(tx, me)?.unwrap_or(now);
                let retry_ms = (day_started_at + DAY_US).saturating_sub(now).div_ceil(1_000);
                let message = format!("at most {per_day} numbers that were never tested before in 24 hours");
                return Err(Error::rate_limited("too_many_numbers", message, retry_ms));
            }
            store::trim_numbers(tx, me, NUMBERS_KEPT_MAX)?;
        }
        if purpose == Purpose::AddressBook {
            store::put_numbers_in(tx, me, tested)?;
        }
        Ok(())
    })
}

fn fingerprint(phone: &str) -> String {
    passwords::fingerprint(&format!("number:{phone}"))
}
