//! The service's settings. What they mean and their defaults are in plugin.toml; the fallbacks here are the same.

use echo_sdk::config;

pub struct Settings {
    pub otp_ttl_s: u64,
    pub otp_tries: u64,
    pub otp_resend_s: u64,
    pub otp_per_day: u64,
    pub otp_per_client_day: u64,
    pub otp_per_address_day: u64,
    pub otp_per_host_day: u64,
    /// Names of kinds, and calling codes, separated by commas.
    pub served_number_types: String,
    pub served_global_codes: String,
    pub registration_ttl_s: u64,
    pub registrations_per_phone: u64,
    pub lockout_failures: u64,
    pub lockout_s: u64,
    pub failures_per_address: u64,
    pub login_history_s: u64,
    pub known_devices_s: u64,
    pub unverified_accounts_s: u64,
    pub erasure_delay_s: u64,
    pub export_ttl_s: u64,
    pub export_pause_s: u64,
    pub export_retry_s: u64,
    /// Services, each with the path where its part of an export is read.
    pub export_parts: Vec<(String, String)>,
    pub refresh_ttl_s: u64,
    pub refresh_grace_s: u64,
    pub sessions_max: u64,
    pub refuse_unassigned_numbers: bool,
    /// `NUMBER=ROLE`, separated by commas.
    pub roles: String,
}

/// What a year has in seconds, the bound of every time here.
const YEAR_S: u64 = 366 * 24 * 60 * 60;

/// What bounds of an address and of the host are multiplied by in development mode, as `gateway.rate_scale` is.
const DEV_ADDRESS_SCALE: u64 = 1_000;

/// For longer than this a used token is none of a lost answer.
const REFRESH_GRACE_S_MAX: u64 = 60;
const EXPORT_PARTS: &str = "user=/api/v1/users/export message=/api/v1/messages/export media=/api/v1/media/export notification=/api/v1/notifications/export presence=/api/v1/presence/export analytics=/api/v1/analytics/export";
const SERVED_NUMBER_TYPES: &str = "mobile,fixed_line,fixed_line_or_mobile,voip";

impl Settings {
    pub fn load() -> Self {
        let seconds = |key, fallback| config::number(key, fallback).min(YEAR_S);
        // In development mode everybody has one address.
        let scale = if config::dev_mode() { DEV_ADDRESS_SCALE } else { 1 };
        let scaled = |key, fallback| config::number(key, fallback).max(1).saturating_mul(scale);
        Self {
            otp_ttl_s: seconds("otp_ttl_s", 300).max(1),
            otp_tries: config::number("otp_tries", 5).max(1),
            otp_resend_s: seconds("otp_resend_s", 60),
            otp_per_day: config::number("otp_per_day", 10).max(1),
            otp_per_client_day: config::number("otp_per_client_day", 5).max(1),
            otp_per_address_day: scaled("otp_per_address_day", 200),
            otp_per_host_day: scaled("otp_per_host_day", 20_000),
            served_number_types: config::text("served_number_types").unwrap_or_else(|| SERVED_NUMBER_TYPES.to_owned()),
            served_global_codes: config::text("served_global_codes").unwrap_or_default(),
            registration_ttl_s: seconds("registration_ttl_s", 60 * 60).max(1),
            registrations_per_phone: config::number("registrations_per_phone", 10).max(1),
            lockout_failures: config::number("lockout_failures", 5).max(1),
            lockout_s: seconds("lockout_s", 900).max(1),
            failures_per_address: scaled("failures_per_address", 200),
            login_history_s: seconds("login_history_s", 90 * 24 * 60 * 60).max(1),
            known_devices_s: seconds("known_devices_s", 180 * 24 * 60 * 60).max(1),
            unverified_accounts_s: seconds("unverified_accounts_s", 7 * 24 * 60 * 60).max(1),
            erasure_delay_s: seconds("erasure_delay_s", 7 * 24 * 60 * 60),
            export_ttl_s: seconds("export_ttl_s", 7 * 24 * 60 * 60).max(1),
            export_pause_s: seconds("export_pause_s", 24 * 60 * 60),
            export_retry_s: seconds("export_retry_s", 60).max(1),
            export_parts: parts_of(&config::text("export_parts").unwrap_or_else(|| EXPORT_PARTS.to_owned())),
            refresh_ttl_s: seconds("refresh_ttl_s", 30 * 24 * 60 * 60).max(1),
            refresh_grace_s: seconds("refresh_grace_s", 10).min(REFRESH_GRACE_S_MAX),
            sessions_max: config::number("sessions_max", 20).clamp(1, 1_000),
            refuse_unassigned_numbers: config::flag("refuse_unassigned_numbers", true),
            roles: config::text("roles").unwrap_or_default(),
        }
    }

    #[cfg(test)]
    pub fn for_tests() -> Self {
        Self {
            otp_ttl_s: 300,
            otp_tries: 5,
            otp_resend_s: 60,
            otp_per_day: 10,
            otp_per_client_day: 5,
            otp_per_address_day: 200,
            otp_per_host_day: 20_000,
            served_number_types: SERVED_NUMBER_TYPES.to_owned(),
            served_global_codes: String::new(),
            registration_ttl_s: 3_600,
            registrations_per_phone: 10,
            lockout_failures: 5,
            lockout_s: 900,
            failures_per_address: 200,
            login_history_s: 90 * 24 * 60 * 60,
            known_devices_s: 180 * 24 * 60 * 60,
            unverified_accounts_s: 7 * 24 * 60 * 60,
            erasure_delay_s: 7 * 24 * 60 * 60,
            export_ttl_s: 7 * 24 * 60 * 60,
            export_pause_s: 24 * 60 * 60,
            export_retry_s: 60,
            export_parts: parts_of(EXPORT_PARTS),
            refresh_ttl_s: 30 * 24 * 60 * 60,
            refresh_grace_s: 10,
            sessions_max: 20,
            refuse_unassigned_numbers: true,
            roles: String::new(),
        }
    }
}

/// `NAME=PATH`, separated by spaces.
fn parts_of(text: &str) -> Vec<(String, String)> {
    text.split_whitespace().filter_map(|part| part.split_once('=')).map(|(name, path)| (name.to_owned(), path.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_names_with_paths() {
        let expect = [("user", "/a"), ("polls", "/b=c")].map(|(name, path)| (name.to_owned(), path.to_owned()));
        assert_eq!(parts_of(" user=/a  polls=/b=c nothing "), expect);
        assert_eq!(parts_of(""), []);
    }
}
