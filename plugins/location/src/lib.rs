//! The location service: its one exported function. The numbering rules are in `numbering.rs`, the table's bytes in `table.rs`.

mod numbering;
mod table;

#[allow(clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "echo:services/location",
        generate_all,
        with: {
            "echo:types/types@0.1.0": echo_sdk::wit::types,
            "echo:log/log@0.1.0": echo_sdk::wit::log,
        },
    });
}

use bindings::exports::echo::location::api::{Guest, Location, LookupRequest, NumberType};
use echo_sdk::Error;
use numbering::{Kind, NotANumber};

struct Service;

impl Guest for Service {
    fn lookup(request: LookupRequest) -> Result<Location, Error> {
        let number = numbering::lookup(&request.phone).map_err(|reason| {
            let detail = match reason {
                NotANumber::Characters => "digits, with spaces, dots, hyphens and brackets between them, and a plus sign in front",
                NotANumber::Length => "7 to 15 digits, the calling code included",
                NotANumber::CallingCode => "no country has this calling code",
            };
            Error::invalid_field("phone", "invalid_phone", detail)
        })?;
        Ok(Location {
            phone: number.phone,
            country: number.country.map(str::to_owned),
            country_code: number.country_code,
            region: number.region,
            timezone: number.zone.map(str::to_owned),
            carrier: number.carrier,
            valid: number.kind != Kind::Unknown,
            type_: number.kind.into(),
        })
    }
}

impl From<Kind> for NumberType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Mobile => NumberType::Mobile,
            Kind::FixedLine => NumberType::FixedLine,
            Kind::FixedLineOrMobile => NumberType::FixedLineOrMobile,
            Kind::TollFree => NumberType::TollFree,
            Kind::PremiumRate => NumberType::PremiumRate,
            Kind::SharedCost => NumberType::SharedCost,
            Kind::Voip => NumberType::Voip,
            Kind::PersonalNumber => NumberType::PersonalNumber,
            Kind::Pager => NumberType::Pager,
            Kind::Uan => NumberType::Uan,
            Kind::Voicemail => NumberType::Voicemail,
            Kind::Unknown => NumberType::Unknown,
        }
    }
}

// Only in the component: the native build of the tests has no use for the exports.
#[cfg(target_arch = "wasm32")]
bindings::export!(Service with_types_in bindings);
