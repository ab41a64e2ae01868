//! One-time codes: made, sent, counted, confirmed. Only a keyed hash of a code is ever stored.

use echo_sdk::Error;
use echo_sdk::time::SECOND_US;
use echo_sdk::wit::{passwords, random};

use crate::bindings::echo::notification::events as notification;
use crate::bindings::exports::echo::auth::api::CodeSent;
use crate::settings::Settings;

const DIGITS: usize = 6;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Confirms the number of a registration.
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

/// A code; it fits nothing but what it was made for.
pub struct Code {
    pub fingerprint: String,
    digits: String,
}

impl Code {
    /// A new one for a registration (its fingerprint) or, to reset a password, for a number.
    pub fn new(purpose: Purpose, subject: &str) -> Self {
        Self::of(purpose, subject, digits_of(random::get_random_u64()))
    }

    /// The one that a client gives.
    pub fn given(purpose: Purpose, subject: &str, digits: &str) -> Self {
        Self::of(purpose, subject, digits.to_owned())
    }

    fn of(purpose: Purpose, subject: &str, digits: String) -> Self {
        let fingerprint = passwords::fingerprint(&format!("otp:{}:{subject}:{digits}", purpose.as_str()));
        Self { fingerprint, digits }
    }

    /// With a fingerprint that no keyed hash made.
    #[cfg(test)]
    pub fn for_tests(fingerprint: &str) -> Self {
        Self { fingerprint: fingerprint.to_owned(), digits: String::new() }
    }
}

/// When a code that is made now is no longer good.
pub fn ends_us(settings: &Settings, now_us: u64) -> u64 {
    now_us + settings.otp_ttl_s * SECOND_US
}

/// Has the code sent when the transaction commits.
pub fn send(settings: &Settings, phone: &str, code: &Code, now_us: u64) -> Result<(), Error> {
    let message = notification::TextMessage {
        to: phone.to_owned(),
        body: body(&code.digits, settings.otp_ttl_s),
        code: Some(code.digits.clone()),
        at: now_us,
    };
    notification::sms_requested(phone, &message)
}

pub fn sent(settings: &Settings) -> CodeSent {
    CodeSent { otp_expires_in: seconds(settings.otp_ttl_s * SECOND_US), resend_after: seconds(settings.otp_resend_s * SECOND_US) }
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

/// Errors: 422 `invalid_otp`, `otp_exhausted`, `otp_expired`.
pub fn judge(kept: Option<&KeptCode>, given: &Code, settings: &Settings, now_us: u64) -> Result<(), Error> {
    let Some(kept) = kept else { return Err(invalid()) };
    if kept.tries > settings.otp_tries {
        return Err(Error::invalid_field("otp", "otp_exhausted", "too many wrong tries; ask for a new code"));
    }
    if now_us >= kept.expires_at {
        return Err(Error::invalid_field("otp", "otp_expired", "the code is too old; ask for a new one"));
    }
    // Both are keyed hashes: how long the comparison takes says nothing about the code.
    if kept.fingerprint == given.fingerprint { Ok(()) } else { Err(invalid()) }
}

/// Six digits, each as likely as any other (the bias of 2^64 modulo 10^6 is below 10^-13).
fn digits_of(random: u64) -> String {
    format!("{:0DIGITS$}", random % 10_u64.pow(DIGITS as u32))
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
    }

    #[test]
    fn a_code_is_judged() {
        let kept = |tries, expires_at| KeptCode { fingerprint: "right".to_owned(), tries, expires_at };
        let settings = Settings { otp_tries: 5, ..Settings::for_tests() };
        let code_of = |kept: Option<KeptCode>, given: &str| {
            let given = Code::for_tests(given);
            judge(kept.as_ref(), &given, &settings, 1_000).err().map(|error| error.code)
        };
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
