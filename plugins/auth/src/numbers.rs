//! Which numbers get codes, and where they belong. Codes to premium-rate, shared-cost and satellite numbers cost their sender money, which a part of
//! comes back to whoever asked for them.

use echo_sdk::{Error, ErrorKind};

use crate::bindings::echo::location::api::{self as location, Location, NumberType};
use crate::settings::Settings;

/// Calling codes of services that belong to no country, satellites among them (ITU-T E.164, list of assigned country codes).
const GLOBAL_CODES: [&str; 9] = ["+800", "+808", "+870", "+878", "+881", "+882", "+883", "+888", "+979"];

/// Where a number belongs, as far as anybody knows.
#[derive(Default)]
pub struct Place {
    pub country: Option<String>,
    pub region: Option<String>,
    pub timezone: Option<String>,
}

/// Errors: 422 `invalid_phone`, `phone_not_served`; 503 while nobody knows what kind of number it is.
pub fn served(phone: &str, settings: &Settings) -> Result<Place, Error> {
    let found = lookup(phone)?;
    check_kind(&found, settings)?;
    // Another form of the number (a trunk prefix in it) would be another account for the same telephone.
    if found.phone != phone || (settings.refuse_unassigned_numbers && !found.valid) {
        return Err(Error::invalid_field("phone", "invalid_phone", "no numbering plan has such a number"));
    }
    Ok(Place { country: found.country, region: found.region, timezone: found.timezone })
}

/// For a number that may have no account and is in no plan: then nothing is sent anyway. Errors: 422 `phone_not_served`; 503.
pub fn check_served(phone: &str, settings: &Settings) -> Result<(), Error> {
    match lookup(phone) {
        Ok(found) => check_kind(&found, settings),
        Err(error) if error.kind == ErrorKind::Invalid => Ok(()),
        Err(error) => Err(error),
    }
}

fn lookup(phone: &str) -> Result<Location, Error> {
    location::lookup(&location::LookupRequest { phone: phone.to_owned() })
}

fn check_kind(found: &Location, settings: &Settings) -> Result<(), Error> {
    let listed = |list: &str, name: &str| list.split(',').any(|entry| entry.trim() == name);
    let kind_is_served = match found.type_ {
        // In no plan: refused before, unless the operator does not mind.
        NumberType::Unknown => true,
        kind => listed(&settings.served_number_types, name(kind)),
    };
    let code_is_served = !GLOBAL_CODES.contains(&found.country_code.as_str()) || listed(&settings.served_global_codes, &found.country_code);
    if kind_is_served && code_is_served {
        return Ok(());
    }
    Err(Error::invalid_field("phone", "phone_not_served", "codes are not sent to numbers of this kind"))
}

fn name(kind: NumberType) -> &'static str {
    match kind {
        NumberType::Mobile => "mobile",
        NumberType::FixedLine => "fixed_line",
        NumberType::FixedLineOrMobile => "fixed_line_or_mobile",
        NumberType::TollFree => "toll_free",
        NumberType::PremiumRate => "premium_rate",
        NumberType::SharedCost => "shared_cost",
        NumberType::Voip => "voip",
        NumberType::PersonalNumber => "personal_number",
        NumberType::Pager => "pager",
        NumberType::Uan => "uan",
        NumberType::Voicemail => "voicemail",
        NumberType::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_says_which_numbers_are_served() {
        let found = |kind, country: Option<&str>, code: &str| Location {
            phone: "+14155552671".to_owned(),
            country: country.map(str::to_owned),
            country_code: code.to_owned(),
            region: None,
            timezone: None,
            carrier: None,
            valid: true,
            type_: kind,
        };
        let settings = Settings::for_tests();
        let allowing = Settings {
            served_number_types: "mobile,premium_rate".to_owned(),
            served_global_codes: "+881, +882".to_owned(),
            ..Settings::for_tests()
        };
        for (kind, country, code, by_default, allowed) in [
            (NumberType::Mobile, Some("IN"), "+91", true, true),
            (NumberType::FixedLineOrMobile, Some("US"), "+1", true, false),
            (NumberType::PremiumRate, Some("DE"), "+49", false, true),
            (NumberType::SharedCost, Some("DE"), "+49", false, false),
            (NumberType::PersonalNumber, Some("GB"), "+44", false, false),
            (NumberType::Mobile, None, "+881", false, true),
            (NumberType::Mobile, None, "+870", false, false),
            (NumberType::PremiumRate, None, "+979", false, false),
        ] {
            let found = found(kind, country, code);
            assert_eq!(check_kind(&found, &settings).is_ok(), by_default, "{code} {kind:?}");
            assert_eq!(check_kind(&found, &allowing).is_ok(), allowed, "{code} {kind:?}");
        }
    }
}
