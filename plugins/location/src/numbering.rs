//! What the public numbering plans say of a telephone number: country, kind, place, time zone, carrier. Pure; needs nothing of the host.

use crate::table::{CallingCode, Country, TABLE, Zone};

/// ITU-T E.164: calling code and national number together.
pub const DIGITS_MIN: usize = 7;
pub const DIGITS_MAX: usize = 15;
/// Longest text that is looked at, in bytes: 15 digits with room for separators.
pub const TEXT_BYTES_MAX: usize = 64;

/// The kinds in the order of `number-type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Mobile,
    FixedLine,
    FixedLineOrMobile,
    TollFree,
    PremiumRate,
    SharedCost,
    Voip,
    PersonalNumber,
    Pager,
    Uan,
    Voicemail,
    /// The plan has no such number.
    Unknown,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Number {
    /// E.164.
    pub phone: String,
    /// The calling code, with its plus sign.
    pub country_code: String,
    /// ISO 3166-1 alpha-2.
    pub country: Option<&'static str>,
    pub region: Option<String>,
    /// IANA.
    pub zone: Option<&'static str>,
    /// To which the number was first given; it may have been taken along to another since.
    pub carrier: Option<String>,
    pub kind: Kind,
}

/// Why a text is no telephone number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotANumber {
    Characters,
    Length,
    CallingCode,
}

/// Looks a number up, written in E.164 or with separators.
pub fn lookup(text: &str) -> Result<Number, NotANumber> {
    let mut digits = Digits::read(text)?;
    let code = TABLE.calling_code(&digits).ok_or(NotANumber::CallingCode)?;
    let (mut country, mut kind) = classify(&digits, &code);
    // `+44 (0)20 …` is how many people write it: the trunk prefix goes, where only that makes a number of it.
    if kind == Kind::Unknown
        && let Some(shorter) = digits.without_trunk_prefix(&code)
        && let (at_last, found) = classify(&shorter, &code)
        && found != Kind::Unknown
    {
        (digits, country, kind) = (shorter, at_last, found);
    }
    let geographic = match kind {
        Kind::FixedLine | Kind::FixedLineOrMobile => true,
        Kind::Mobile => code.geographic_mobile,
        _ => false,
    };
    Ok(Number {
        phone: with_plus(&digits),
        country_code: with_plus(&digits[..code.length()]),
        country: country.map(|country| TABLE.country_letters(country)),
        region: if geographic { place(&digits, &code) } else { None },
        zone: if kind == Kind::Unknown { None } else { zone(&digits, geographic, &code, country) },
        carrier: if may_have_a_carrier(kind) { carrier(&digits) } else { None },
        kind,
    })
}

/// The data has carriers of mobile numbers alone, and where these look like others, of both.
fn may_have_a_carrier(kind: Kind) -> bool {
    matches!(kind, Kind::Mobile | Kind::FixedLineOrMobile | Kind::Pager)
}

fn carrier(digits: &[u8]) -> Option<String> {
    TABLE.carrier(TABLE.carriers.walk(digits.iter().copied()).prefix?)
}

fn with_plus(digits: &[u8]) -> String {
    std::iter::once('+').chain(digits.iter().copied().map(char::from)).collect()
}

/// The country and kind by the plan; a number that no plan has still belongs to the calling code's only country.
fn classify(digits: &[u8], code: &CallingCode) -> (Option<Country>, Kind) {
    match TABLE.plans.walk(digits.iter().copied()).whole {
        None => (code.country, Kind::Unknown),
        Some(label) => {
            let (country, kind) = TABLE.label(label);
            (country, KINDS[usize::from(kind)])
        }
    }
}

fn place(digits: &[u8], code: &CallingCode) -> Option<String> {
    let (calling_code, national) = digits.split_at(code.length());
    // Argentine mobile numbers: the 9 before the area code is no part of it.
    let national = match code.mobile_token {
        Some(token) if national.first() == Some(&token) => &national[1..],
        _ => national,
    };
    TABLE.name(TABLE.places.walk(calling_code.iter().chain(national).copied()).prefix?)
}

/// The one zone: by the number, else the one of its zones that lies in its country, else the country's only one.
fn zone(digits: &[u8], geographic: bool, code: &CallingCode, country: Option<Country>) -> Option<&'static str> {
    let digits = if geographic { digits } else { &digits[..code.length()] };
    let zones = TABLE.zones_of(TABLE.zone_sets.walk(digits.iter().copied()).prefix?);
    let own = zones.clone().filter(|zone| TABLE.zone_country(*zone) == country);
    let zone = single(zones).or_else(|| single(own)).or_else(|| TABLE.only_zone_of(country?))?;
    Some(TABLE.zone_name(zone))
}

fn single(mut zones: impl Iterator<Item = Zone>) -> Option<Zone> {
    zones.next().filter(|_| zones.next().is_none())
}

/// The digits of a number, the calling code first.
#[derive(Clone, Copy)]
struct Digits {
    buffer: [u8; DIGITS_MAX],
    length: usize,
}

impl std::ops::Deref for Digits {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Digits {
    /// Drops separators. The plus sign may be missing: in a query string it comes as a space.
    fn read(text: &str) -> Result<Self, NotANumber> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(NotANumber::Length);
        }
        let text = text.trim();
        let mut digits = Self { buffer: [0; DIGITS_MAX], length: 0 };
        for byte in text.strip_prefix('+').unwrap_or(text).bytes() {
            match byte {
                b'0'..=b'9' => {
                    *digits.buffer.get_mut(digits.length).ok_or(NotANumber::Length)? = byte;
                    digits.length += 1;
                }
                b' ' | b'.' | b'-' | b'(' | b')' | b'[' | b']' => {}
                _ => return Err(NotANumber::Characters),
            }
        }
        if digits.length < DIGITS_MIN { Err(NotANumber::Length) } else { Ok(digits) }
    }

    fn without_trunk_prefix(&self, code: &CallingCode) -> Option<Self> {
        let national = self[code.length()..].strip_prefix(code.trunk_prefix).filter(|_| !code.trunk_prefix.is_empty())?;
        let mut shorter = *self;
        shorter.buffer[code.length()..][..national.len()].copy_from_slice(national);
        shorter.length = code.length() + national.len();
        (shorter.length >= DIGITS_MIN).then_some(shorter)
    }
}

const KINDS: [Kind; 12] = [
    Kind::Mobile,
    Kind::FixedLine,
    Kind::FixedLineOrMobile,
    Kind::TollFree,
    Kind::PremiumRate,
    Kind::SharedCost,
    Kind::Voip,
    Kind::PersonalNumber,
    Kind::Pager,
    Kind::Uan,
    Kind::Voicemail,
    Kind::Unknown,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What the data set's own package says of thousands of numbers: all its examples of all countries, near misses, and numbers of all prefixes.
    #[test]
    fn agrees_with_the_data_set() {
        let text = std::env::var("ECHO_NUMBERING_EXPECTATIONS").map(|path| std::fs::read_to_string(path).expect("readable"));
        let text = text.unwrap_or_else(|_| include_str!("../data/expectations.tsv").to_owned());
        let mut wrong = Vec::new();
        let mut count = 0;
        for line in text.lines() {
            count += 1;
            let columns: Vec<&str> = line.split('\t').collect();
            let number = lookup(columns[0]).expect("a number");
            let kind = format!("{:?}", number.kind).chars().fold(String::new(), |mut name, letter| {
                if letter.is_uppercase() && !name.is_empty() {
                    name.push('_');
                }
                name.extend(letter.to_lowercase());
                name
            });
            let valid = (number.kind != Kind::Unknown).to_string();
            let found = [
                &number.phone,
                number.country.unwrap_or("-"),
                &kind,
                &valid,
                number.region.as_deref().unwrap_or("-"),
                number.zone.unwrap_or("-"),
                number.carrier.as_deref().unwrap_or("-"),
            ];
            if found.as_slice() != columns {
                wrong.push(format!("{found:?} where {line:?} is expected"));
            }
        }
        assert!(count > 5_000, "only {count} numbers");
        assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    }

    #[test]
    fn north_america_is_told_apart() {
        for (phone, country, region, zone) in [
            ("+14155552671", "US", Some("California"), Some("America/Los_Angeles")),
            ("+12125550123", "US", Some("New York"), Some("America/New_York")),
            ("+14165550123", "CA", Some("Ontario"), Some("America/Toronto")),
            ("+18765550123", "JM", None, Some("America/Jamaica")),
            ("+12423456789", "BS", Some("Exuma"), Some("America/Nassau")),
        ] {
            let number = lookup(phone).expect("a number");
            assert_eq!((number.country, number.region.as_deref(), number.zone), (Some(country), region, zone), "{phone}");
        }
    }

    #[test]
    fn zones_have_today_s_names_and_are_none_where_there_are_several() {
        for (phone, zone) in [
            ("+919876543210", Some("Asia/Kolkata")),
            // +44 is also Guernsey, Jersey and Man; the plan says it is none of these.
            ("+447400123456", Some("Europe/London")),
            ("+18005550199", None),
        ] {
            assert_eq!(lookup(phone).expect("a number").zone, zone, "{phone}");
        }
    }

    #[test]
    fn mobile_numbers_have_the_carrier_that_they_were_given_to() {
        for (phone, carrier) in [("+447400123456", Some("Three")), ("+14155552671", None), ("+442079460958", None)] {
            assert_eq!(lookup(phone).expect("a number").carrier.as_deref(), carrier, "{phone}");
        }
    }

    #[test]
    fn separators_and_trunk_prefixes_go() {
        for (text, phone) in [
            ("+44 (0)20 7946-0958", "+442079460958"),
            ("+1 (415) 555.2671", "+14155552671"),
            (" 14155552671", "+14155552671"),
            // Italian fixed lines keep their 0.
            ("+39 06 6982 0000", "+390669820000"),
        ] {
            let number = lookup(text).expect("a number");
            assert_eq!((number.phone.as_str(), number.kind != Kind::Unknown), (phone, true), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let long = " ".repeat(TEXT_BYTES_MAX + 1);
        for (text, reason) in [
            ("", NotANumber::Length),
            ("+", NotANumber::Length),
            ("+123456", NotANumber::Length),
            ("+1234567890123456", NotANumber::Length),
            (long.as_str(), NotANumber::Length),
            ("+1415555x671", NotANumber::Characters),
            ("++14155552671", NotANumber::Characters),
            ("+1415555٢٦٧١", NotANumber::Characters),
            ("+0123456789", NotANumber::CallingCode),
            ("+99912345678", NotANumber::CallingCode),
        ] {
            assert_eq!(lookup(text), Err(reason), "{text:?}");
        }
    }

    #[test]
    fn no_digits_at_all_make_it_panic() {
        // A walk through all lengths and a spread of digits (the multiplier of Knuth's linear congruential generator).
        let mut state = 1_u64;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let length = DIGITS_MIN + (state >> 60) as usize % (DIGITS_MAX - DIGITS_MIN + 1);
            let digits = format!("{:015}", (state >> 8) % 1_000_000_000_000_000);
            let _ = lookup(&digits[..length]);
        }
    }
}
