//! One-time codes: made, sent, counted, confirmed. Only a keyed hash of a code is ever stored.

use echo_sdk::sql::{Database, SqlError, Transaction};
use echo_sdk::time::{DAY_US, SECOND_US};
use echo_sdk::wit::{passwords, random};
use echo_sdk::{Error, time, transaction};

use crate::bindings::echo::notification::events as notification;
use crate::bindings::exports::echo::auth::api::CodeSent;
use crate::settings::Settings;
use crate::store;

const DIGITS: usize = 6;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Confirms the number of a new account.
    Verify,
    /// Allows a new password.
    Reset,
}

impl Purpose {
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Verify => "verify",
            Purpose::Reset => "reset",
        }
    }
}

/// A code for one number and purpose; it fits no other.
pub struct Code<'a> {
    pub purpose: Purpose,
    pub phone: &'a str,
    pub fingerprint: String,
    digits: String,
}

impl<'a> Code<'a> {
    /// A new one.
    pub fn new(purpose: Purpose, phone: &'a str) -> Self {
        Self::of(purpose, phone, digits_of(random::get_random_u64()))
    }

    /// The one that a client gives. Errors: 422 `invalid_otp` for what cannot be a code.
    pub fn given(purpose: Purpose, phone: &'a str, digits: &str) -> Result<Self, Error> {
        if is_code(digits) { Ok(Self::of(purpose, phone, digits.to_owned())) } else { Err(invalid()) }
    }

    fn of(purpose: Purpose, phone: &'a str, digits: String) -> Self {
        let fingerprint = passwords::fingerprint(&format!("otp:{}:{phone}:{digits}", purpose.as_str()));
        Self { purpose, phone, fingerprint, digits }
    }
}

/// Counts a code that is about to be sent. Errors: 429 `too_soon` within the pause, `too_many_codes` over the day's number.
pub fn take_quota(tx: &Transaction, settings: &Settings, phone: &str, now_us: u64) -> Result<(), Error> {
    let pause_us = settings.otp_resend_s * SECOND_US;
    store::forget_code_quotas(tx, now_us.saturating_sub(2 * DAY_US))?;
    if store::count_code(tx, phone, now_us, pause_us, settings.otp_per_day)? {
        return Ok(());
    }
    let quota = store::code_quota(tx, phone)?.unwrap_or_default();
    let pause_ends_us = quota.sent_at + pause_us;
    if now_us < pause_ends_us {
        return Err(too_soon((pause_ends_us - now_us).div_ceil(1_000)));
    }
    let day_ends_us = quota.day_started_at + DAY_US;
    Err(Error::rate_limited("too_many_codes", "too many codes were sent today", day_ends_us.saturating_sub(now_us).div_ceil(1_000)))
}

/// Stores the code in place of the one before and has it sent when the transaction commits.
pub fn send(tx: &Transaction, settings: &Settings, code: &Code, now_us: u64) -> Result<(), Error> {
    store::forget_codes(tx, now_us.saturating_sub(DAY_US))?;
    store::put_code(tx, code, now_us + settings.otp_ttl_s * SECOND_US)?;
    let message = notification::TextMessage {
        to: code.phone.to_owned(),
        body: body(&code.digits, settings.otp_ttl_s),
        code: Some(code.digits.clone()),
        at: now_us,
    };
    notification::sms_requested(code.phone, &message)
}

/// Sends a code where one is due. Where none is, all goes the same way but for the sending, so that nobody learns who has an account.
pub fn send_if(due: bool, settings: &Settings, purpose: Purpose, phone: &str) -> Result<CodeSent, Error> {
    let code = Code::new(purpose, phone);
    let now_us = time::now_us();
    transaction(|tx| {
        take_quota(tx, settings, phone, now_us)?;
        if due { send(tx, settings, &code, now_us) } else { Ok(()) }
    })?;
    Ok(sent(settings))
}

/// Checks a given code, counting the try, and uses it up if it is the right one. The inner error is for the client and must not undo the count.
pub fn confirm(tx: &Transaction, settings: &Settings, given: &Code, now_us: u64) -> Result<Result<(), Error>, SqlError> {
    let verdict = try_code(tx, settings, given, now_us)?;
    if verdict.is_ok() {
        store::drop_code(tx, given)?;
    }
    Ok(verdict)
}

/// Checks a given code, counting the try, and leaves it for `confirm`.
pub fn try_code(tx: &Transaction, settings: &Settings, given: &Code, now_us: u64) -> Result<Result<(), Error>, SqlError> {
    let kept = store::try_code(tx, given)?;
    Ok(judge(kept.as_ref(), &given.fingerprint, settings.otp_tries, now_us))
}

/// What is left of a code that was sent within the pause, if one was.
pub fn just_sent(settings: &Settings, purpose: Purpose, phone: &str) -> Result<Option<CodeSent>, Error> {
    let now_us = time::now_us();
    let (Some(quota), Some(expires_at)) = (store::code_quota(&Database, phone)?, store::code_expiry(&Database, purpose, phone)?) else {
        return Ok(None);
    };
    let pause_ends_us = quota.sent_at + settings.otp_resend_s * SECOND_US;
    if now_us >= pause_ends_us || now_us >= expires_at {
        return Ok(None);
    }
    Ok(Some(CodeSent { otp_expires_in: seconds(expires_at - now_us), resend_after: seconds(pause_ends_us - now_us) }))
}

pub fn sent(settings: &Settings) -> CodeSent {
    CodeSent { otp_expires_in: seconds(settings.otp_ttl_s * SECOND_US), resend_after: seconds(settings.otp_resend_s * SECOND_US) }
}

pub fn too_soon(retry_after_ms: u64) -> Error {
    Error::rate_limited("too_soon", "a code was sent just now", retry_after_ms)
}

pub fn invalid() -> Error {
    Error::invalid_field("otp", "invalid_otp", "not the code that was sent")
}

/// A stored code after this try was counted.
pub struct KeptCode {
    pub fingerprint: String,
    pub tries: u64,
    pub expires_at: u64,
}

fn judge(kept: Option<&KeptCode>, given_fingerprint: &str, tries_max: u64, now_us: u64) -> Result<(), Error> {
    let Some(kept) = kept else { return Err(invalid()) };
    if kept.tries > tries_max {
        return Err(Error::invalid_field("otp", "otp_exhausted", "too many wrong tries; ask for a new code"));
    }
    if now_us >= kept.expires_at {
        return Err(Error::invalid_field("otp", "otp_expired", "the code is too old; ask for a new one"));
    }
    // Both are keyed hashes: how long the comparison takes says nothing about the code.
    if kept.fingerprint == given_fingerprint { Ok(()) } else { Err(invalid()) }
}

/// Six digits, each as likely as any other (the bias of 2^64 modulo 10^6 is below 10^-13).
fn digits_of(random: u64) -> String {
    format!("{:0DIGITS$}", random % 10_u64.pow(DIGITS as u32))
}

fn is_code(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn body(digits: &str, ttl_s: u64) -> String {
    format!("{digits} is your Echo code. It is good for {} minutes. Give it to nobody.", ttl_s.div_ceil(60))
}

fn seconds(us: u64) -> u32 {
    u32::try_from(us.div_ceil(SECOND_US)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_six_digits() {
        assert_eq!(digits_of(7), "000007");
        assert_eq!(digits_of(1_234_567_890), "567890");
        assert!(is_code("000007"));
        for text in ["", "12345", "1234567", "12345a", "١٢٣٤٥٦", "12 456"] {
            assert!(!is_code(text), "{text}");
        }
    }

    #[test]
    fn a_code_is_judged() {
        let kept = |tries, expires_at| KeptCode { fingerprint: "right".to_owned(), tries, expires_at };
        let code_of = |kept: Option<KeptCode>, given: &str| judge(kept.as_ref(), given, 5, 1_000).err().map(|error| error.code);
        assert_eq!(code_of(Some(kept(1, 2_000)), "right"), None);
        assert_eq!(code_of(Some(kept(5, 2_000)), "right"), None);
        assert_eq!(code_of(Some(kept(5, 2_000)), "wrong").as_deref(), Some("invalid_otp"));
        assert_eq!(code_of(Some(kept(6, 2_000)), "right").as_deref(), Some("otp_exhausted"));
        assert_eq!(code_of(Some(kept(1, 1_000)), "right").as_deref(), Some("otp_expired"));
        assert_eq!(code_of(None, "right").as_deref(), Some("invalid_otp"));
    }

    #[test]
    fn what_is_left_is_rounded_up() {
        assert_eq!(seconds(1), 1);
        assert_eq!(seconds(60 * SECOND_US), 60);
        assert!(body("123456", 300).starts_with("123456 is your Echo code. It is good for 5 minutes."));
    }
}
