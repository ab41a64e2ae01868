//! How many codes may be sent: to a number for each purpose, by what one address asks for, and by the whole host. Counted is what leaves, and what a client
//! asks for; what a stranger asks for is not counted against the owner of a number that gets nothing.

use echo_sdk::sql::{Sql, SqlError};
use echo_sdk::time::{DAY_US, SECOND_US};
use echo_sdk::{Error, Transaction};

use crate::settings::Settings;
use crate::store::{self, CodeCount};

pub struct Quota {
    pub key: String,
    pub pause_us: u64,
    pub per_day: u64,
}

/// A code that confirms a registration of this number.
pub fn of_registration(settings: &Settings, phone: &str, address: &str) -> Vec<Quota> {
    vec![
        // The pause is between codes that this client asks for: what a stranger asks for does not make the owner wait.
        quota(format!("verify {phone}"), 0, settings.otp_per_day),
        Quota {
            per_day: settings.otp_per_client_day.min(settings.otp_per_day),
            ..of_number(settings, format!("verify {phone} {address}"))
        },
        of_address(settings, address),
        of_host(settings),
    ]
}

/// A request for a new password, whether anything leaves for it or not: it is the client's own, and the same for every number.
pub fn of_reset_request(settings: &Settings, phone: &str, address: &str) -> Vec<Quota> {
    vec![
        Quota { per_day: settings.otp_per_client_day.min(settings.otp_per_day), ..of_number(settings, format!("asked {phone} {address}")) },
        quota(format!("asked {address}"), 0, settings.otp_per_address_day),
    ]
}

/// A code for a new password. What strangers ask for leaves the owner, at an address where he signed in before, his own.
pub fn of_reset_code(settings: &Settings, phone: &str, address: &str, address_known: bool) -> Vec<Quota> {
    let who = if address_known { "known" } else { "strangers" };
    vec![of_number(settings, format!("reset {phone} {who}")), of_address(settings, address), of_host(settings)]
}

fn of_number(settings: &Settings, key: String) -> Quota {
    quota(key, settings.otp_resend_s * SECOND_US, settings.otp_per_day)
}

fn of_address(settings: &Settings, address: &str) -> Quota {
    quota(format!("address {address}"), 0, settings.otp_per_address_day)
}

fn of_host(settings: &Settings) -> Quota {
    quota("host".to_owned(), 0, settings.otp_per_host_day)
}

fn quota(key: String, pause_us: u64, per_day: u64) -> Quota {
    Quota { key, pause_us, per_day }
}

/// Whether all of them leave room, counting nothing. The inner error is 429 `too_soon` within the pause, `too_many_codes` over the day's number.
pub fn check(db: &impl Sql, quotas: &[Quota], now_us: u64) -> Result<Result<(), Error>, SqlError> {
    for quota in quotas {
        if let Some(count) = store::code_count(db, &quota.key)?
            && let Some(refusal) = refusal(quota, &count, now_us)
        {
            return Ok(Err(refusal));
        }
    }
    Ok(Ok(()))
}

/// Counts in all of them, or, with the inner error, in none.
pub fn take(tx: &Transaction, quotas: &[Quota], now_us: u64) -> Result<Result<(), Error>, SqlError> {
    let verdict = check(tx, quotas, now_us)?;
    if verdict.is_ok() {
        for quota in quotas {
            store::count_code(tx, &quota.key, now_us, now_us.saturating_sub(DAY_US))?;
        }
    }
    Ok(verdict)
}

fn refusal(quota: &Quota, count: &CodeCount, now_us: u64) -> Option<Error> {
    let pause_ends_us = count.sent_at + quota.pause_us;
    // Of two requests at once the one that began first may be counted last: without a pause its time is no reason.
    if quota.pause_us > 0 && now_us < pause_ends_us {
        return Some(Error::rate_limited("too_soon", "a code was sent just now", (pause_ends_us - now_us).div_ceil(1_000)));
    }
    let day_ends_us = count.day_started_at + DAY_US;
    if now_us < day_ends_us && count.sent_count >= quota.per_day {
        return Some(Error::rate_limited("too_many_codes", "too many codes were sent today", (day_ends_us - now_us).div_ceil(1_000)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_has_a_pause_and_a_day() {
        let quota = Quota { key: String::new(), pause_us: 60 * SECOND_US, per_day: 2 };
        let now_us = 10 * DAY_US;
        let code_of = |sent_ago_us: u64, day_ago_us: u64, sent_count: u64| {
            let count = CodeCount { sent_at: now_us - sent_ago_us, day_started_at: now_us - day_ago_us, sent_count };
            refusal(&quota, &count, now_us).map(|error| error.code)
        };
        assert_eq!(code_of(59 * SECOND_US, 59 * SECOND_US, 1).as_deref(), Some("too_soon"));
        assert_eq!(code_of(60 * SECOND_US, 60 * SECOND_US, 1), None);
        assert_eq!(code_of(60 * SECOND_US, DAY_US - 1, 2).as_deref(), Some("too_many_codes"));
        assert_eq!(code_of(60 * SECOND_US, DAY_US, 2), None);
    }

    #[test]
    fn without_a_pause_requests_at_once_are_all_counted() {
        let quota = Quota { key: String::new(), pause_us: 0, per_day: 2 };
        let later = CodeCount { sent_at: 10 * DAY_US + 5, day_started_at: 10 * DAY_US, sent_count: 1 };
        assert!(refusal(&quota, &later, 10 * DAY_US).is_none());
    }

    #[test]
    fn a_pause_is_one_clients_own() {
        let settings = Settings::for_tests();
        let paused = |address| {
            let quotas = of_registration(&settings, "+14155552671", address);
            let paused: Vec<String> = quotas.into_iter().filter(|quota| quota.pause_us > 0).map(|quota| quota.key).collect();
            paused
        };
        let (here, there) = (paused("192.0.2.7"), paused("192.0.2.8"));
        assert!(here.len() == 1 && there.len() == 1 && here != there, "{here:?} {there:?}");
    }

    #[test]
    fn purposes_are_counted_apart() {
        let settings = Settings::for_tests();
        let registration = of_registration(&settings, "+14155552671", "192.0.2.7");
        let reset = of_reset_code(&settings, "+14155552671", "192.0.2.7", false);
        let known = of_reset_code(&settings, "+14155552671", "192.0.2.8", true);
        let keys: std::collections::HashSet<_> = [&registration[0], &reset[0], &known[0]].map(|quota| quota.key.clone()).into();
        assert_eq!(keys.len(), 3, "{keys:?}");
    }
}
