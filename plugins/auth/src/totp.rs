//! The second factor: time-based one-time passwords (RFC 6238) and recovery codes.
//!
//! The secret is not stored: it is a keyed hash of a stored seed, under a key that only the host has. Recovery codes are stored as keyed hashes.

use data_encoding::BASE32_NOPAD;
use echo_sdk::sql::{Database, Sql, SqlError};
use echo_sdk::time::SECOND_US;
use echo_sdk::wit::passwords;
use echo_sdk::{Error, Transaction, caller, ids, time, transaction};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::bindings::exports::echo::auth::api::{RecoveryCodes, TotpSecret};
use crate::clients::{self, Client};
use crate::settings::Settings;
use crate::store::{self, Account, Factor};
use crate::{lockout, password};

/// Apps show six digits for 30 seconds each, whatever else they are told (RFC 6238 §5.2's recommendation).
const STEP_S: u64 = 30;
const DIGITS: usize = 6;
/// Steps before and after now whose codes are good: clocks differ, and typing takes a while (RFC 6238 §5.2).
const STEPS_ACCEPTED: u64 = 1;
/// As long as the output of SHA-1, in bytes (RFC 4226 §4, R6).
const SECRET_BYTES: usize = 20;
const SEED_BYTES: usize = 16;
const RECOVERY_CODES: usize = 10;
/// 80 random bits: 16 characters of base32.
const RECOVERY_BYTES: usize = 10;
/// Between two hyphens of a recovery code.
const RECOVERY_GROUP_CHARS: usize = 4;
/// In which a second factor has to be confirmed, in seconds.
pub const CONFIRM_S: u64 = 600;

pub fn start(given_password: &str) -> Result<TotpSecret, Error> {
    let caller = caller()?;
    let account = own_account(&caller.user_id)?;
    password::prove(&account, given_password, &caller.session_id)?;
    let seed = hex(&ids::random_bytes(SEED_BYTES));
    let started = transaction(|tx| store::start_factor(tx, &account.id, &seed, time::now_us()))?;
    if !started {
        return Err(Error::conflict("totp_active", "the account has a second factor; end it first"));
    }
    let secret = BASE32_NOPAD.encode(&secret_of(&account.id, &seed)?);
    let uri = uri(&account.phone, &secret);
    Ok(TotpSecret { secret, uri, expires_in: CONFIRM_S as u32 })
}

pub fn confirm(code: &str) -> Result<RecoveryCodes, Error> {
    let (settings, caller) = (Settings::load(), caller()?);
    let account = own_account(&caller.user_id)?;
    let counters = lockout::of_totp(&settings, &account.phone, &Client::Session(caller.session_id), &clients::address());
    let (user, now_us) = (account.id, time::now_us());
    transaction(|tx| lockout::admit(tx, &counters, now_us))??;
    let seed = store::unconfirmed_factor(&Database, &user, now_us.saturating_sub(CONFIRM_S * SECOND_US))?.ok_or_else(invalid)?;
    let step = step_of(&secret_of(&user, &seed)?, code, now_us).ok_or_else(invalid)?;
    let codes: Vec<String> = (0..RECOVERY_CODES).map(|_| recovery_code(&ids::random_bytes(RECOVERY_BYTES))).collect();
    let fingerprints: Vec<String> = codes.iter().map(|code| fingerprint(&user, code)).collect();
    transaction(|tx| {
        if !store::confirm_factor(tx, &user, &seed, step, now_us)? {
            return Err(invalid());
        }
        lockout::forgive(tx, &counters)?;
        Ok(store::put_recovery_codes(tx, &user, &fingerprints)?)
    })?;
    Ok(RecoveryCodes { recovery_codes: codes })
}

pub fn end(code: &str) -> Result<(), Error> {
    let settings = Settings::load();
    let caller = caller()?;
    let account = own_account(&caller.user_id)?;
    let factor = of(&Database, &account.id)?.ok_or_else(|| Error::not_found("the account has no second factor"))?;
    let counters = lockout::of_totp(&settings, &account.phone, &Client::Session(caller.session_id), &clients::address());
    transaction(|tx| lockout::admit(tx, &counters, time::now_us()))??;
    transaction(|tx| {
        if !factor.take(tx, code, time::now_us())? {
            return Err(invalid());
        }
        lockout::forgive(tx, &counters)?;
        Ok(store::end_factor(tx, &account.id)?)
    })
}

/// What a sign-in to the account wants besides the password; none where nothing is confirmed.
pub fn of(db: &impl Sql, account: &str) -> Result<Option<SecondFactor>, Error> {
    let Some(Factor { seed }) = store::factor_of(db, account)? else { return Ok(None) };
    Ok(Some(SecondFactor { account: account.to_owned(), secret: secret_of(account, &seed)?, seed }))
}

pub struct SecondFactor {
    account: String,
    seed: String,
    secret: Vec<u8>,
}

impl SecondFactor {
    /// Uses up the code; false for one that is wrong or was used (RFC 6238 §5.2: once).
    pub fn take(&self, tx: &Transaction, code: &str, now_us: u64) -> Result<bool, SqlError> {
        match step_of(&self.secret, code, now_us) {
            Some(step) => store::take_step(tx, &self.account, &self.seed, step),
            None => store::take_recovery_code(tx, &self.account, &fingerprint(&self.account, code)),
        }
    }
}

fn own_account(user: &str) -> Result<Account, Error> {
    store::account_by_id(&Database, user)?.ok_or_else(|| Error::not_found("no such account"))
}

fn invalid() -> Error {
    Error::invalid_field("code", "invalid_totp", "not a code that is good now")
}

fn secret_of(account: &str, seed: &str) -> Result<Vec<u8>, Error> {
    let keyed = passwords::fingerprint(&format!("totp:{account}:{seed}"));
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(keyed.as_bytes()).map_err(|_| Error::internal("a fingerprint is no hex"))?;
    bytes.get(..SECRET_BYTES).map(<[u8]>::to_vec).ok_or_else(|| Error::internal("a fingerprint is shorter than a secret"))
}

/// Of a recovery code, however it is written.
fn fingerprint(account: &str, code: &str) -> String {
    let plain: String = code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
    passwords::fingerprint(&format!("recovery:{account}:{plain}"))
}

fn recovery_code(bytes: &[u8]) -> String {
    let text = BASE32_NOPAD.encode(bytes);
    let groups: Vec<String> =
        text.as_bytes().chunks(RECOVERY_GROUP_CHARS).map(|group| String::from_utf8_lossy(group).into_owned()).collect();
    groups.join("-")
}

/// The step whose code this is, now or a step away.
fn step_of(secret: &[u8], code: &str, now_us: u64) -> Option<u64> {
    let now = now_us / SECOND_US / STEP_S;
    (now.saturating_sub(STEPS_ACCEPTED)..=now + STEPS_ACCEPTED).find(|step| code_of(secret, *step) == code)
}

/// RFC 4226 §5.3, with the step as the counter.
fn code_of(secret: &[u8], step: u64) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(&step.to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let offset = usize::from(digest[digest.len() - 1] & 0xf);
    let number = digest[offset..offset + 4].iter().fold(0_u32, |number, byte| (number << 8) | u32::from(*byte)) & 0x7fff_ffff;
    format!("{:0DIGITS$}", number % 10_u32.pow(DIGITS as u32))
}

/// The format that apps read (github.com/google/google-authenticator/wiki/Key-Uri-Format).
fn uri(phone: &str, secret: &str) -> String {
    let account = phone.replace('+', "%2B");
    format!("otpauth://totp/Echo:{account}?secret={secret}&issuer=Echo&algorithm=SHA1&digits={DIGITS}&period={STEP_S}")
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"12345678901234567890";

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 6238 appendix B, of whose eight digits six are shown.
        for (at_s, expect) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(code_of(SECRET, at_s / STEP_S), expect, "{at_s}");
        }
    }

    #[test]
    fn a_code_is_good_in_its_step_and_the_ones_beside_it() {
        let code = code_of(SECRET, 100);
        let good = |step: u64| step_of(SECRET, &code, step * STEP_S * SECOND_US);
        assert_eq!([98, 99, 100, 101, 102].map(good), [None, Some(100), Some(100), Some(100), None]);
        assert_eq!(step_of(SECRET, "", 0), None);
    }

    #[test]
    fn a_recovery_code_is_written_in_groups() {
        assert_eq!(recovery_code(&[0; RECOVERY_BYTES]), "AAAA-AAAA-AAAA-AAAA");
    }

    #[test]
    fn apps_are_told_what_they_need() {
        let expect = "otpauth://totp/Echo:%2B14155550101?secret=ABC&issuer=Echo&algorithm=SHA1&digits=6&period=30";
        assert_eq!(uri("+14155550101", "ABC"), expect);
    }
}
