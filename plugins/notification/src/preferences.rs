//! What a person wants pushes of, and when.

use echo_sdk::{Error, Timestamp, caller, time};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::bindings::exports::echo::notification::api::{Preferences, QuietHours, Wanted};
use crate::store::{self, Stored};

pub fn get() -> Result<Preferences, Error> {
    let me = caller()?.user_id;
    Ok(store::preferences_among(std::slice::from_ref(&me))?.pop().map_or_else(by_default, view))
}

pub fn set(wanted: Preferences) -> Result<Preferences, Error> {
    let me = caller()?.user_id;
    let quiet = wanted.quiet_hours.as_ref();
    let timezone = quiet.map(|quiet| {
        let name = zone(&quiet.timezone).and_then(|zone| zone.iana_name().map(str::to_owned));
        name.ok_or_else(|| Error::invalid_field("quiet_hours.timezone", "invalid_timezone", "no zone of the IANA database"))
    });
    let stored = Stored {
        user_id: me,
        messages: name(wanted.messages).to_owned(),
        previews: wanted.previews,
        quiet_from_minute: quiet.map(|quiet| minute_of(&quiet.start)),
        quiet_to_minute: quiet.map(|quiet| minute_of(&quiet.end)),
        // As the database writes it.
        timezone: timezone.transpose()?,
    };
    store::put_preferences(&stored, time::now_us())?;
    Ok(view(stored))
}

/// Why no push is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    Unwanted,
    Quiet,
}

/// None: a push is sent.
pub fn reason_against(stored: &Stored, mentioned: bool, now: Timestamp) -> Option<Reason> {
    let wanted = match wanted(&stored.messages) {
        Wanted::All => true,
        Wanted::Mentions => mentioned,
        Wanted::None => false,
    };
    if !wanted {
        return Some(Reason::Unwanted);
    }
    is_quiet(stored, now).then_some(Reason::Quiet)
}

fn is_quiet(stored: &Stored, now: Timestamp) -> bool {
    let (Some(from), Some(to), Some(name)) = (stored.quiet_from_minute, stored.quiet_to_minute, &stored.timezone) else { return false };
    // A zone that was known when it was chosen may have gone from the database: then it is never quiet.
    let Some(zone) = zone(name) else { return false };
    let Ok(now) = i64::try_from(now).map_err(drop).and_then(|now| jiff::Timestamp::from_microsecond(now).map_err(drop)) else {
        return false;
    };
    let local = zone.to_datetime(now);
    let minute = u64::from(local.hour().unsigned_abs()) * 60 + u64::from(local.minute().unsigned_abs());
    if from < to { (from..to).contains(&minute) } else { minute >= from || minute < to }
}

/// Of the database that is built in; a component has no files. `Factory` stands in it for a clock that nobody has set.
fn zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok().filter(|_| !name.eq_ignore_ascii_case("Factory"))
}

/// Of `HH:MM`, as the contract's pattern has it.
fn minute_of(text: &str) -> u64 {
    let number = |text: &str| text.parse::<u64>().unwrap_or_default();
    text.split_once(':').map_or(0, |(hour, minute)| number(hour) * 60 + number(minute))
}

fn clock(minute: u64) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

fn by_default() -> Preferences {
    Preferences { messages: Wanted::All, previews: true, quiet_hours: None }
}

fn view(stored: Stored) -> Preferences {
    let quiet_hours = match (stored.quiet_from_minute, stored.quiet_to_minute, stored.timezone) {
        (Some(from), Some(to), Some(timezone)) => Some(QuietHours { start: clock(from), end: clock(to), timezone }),
        _ => None,
    };
    Preferences { messages: wanted(&stored.messages), previews: stored.previews, quiet_hours }
}

fn name(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::All => "all",
        Wanted::Mentions => "mentions",
        Wanted::None => "none",
    }
}

/// What the table's CHECK lets in.
fn wanted(name: &str) -> Wanted {
    match name {
        "mentions" => Wanted::Mentions,
        "none" => Wanted::None,
        _ => Wanted::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(messages: &str, quiet: Option<(&str, &str, &str)>) -> Stored {
        Stored {
            user_id: "a".into(),
            messages: messages.into(),
            previews: true,
            quiet_from_minute: quiet.map(|(from, _, _)| minute_of(from)),
            quiet_to_minute: quiet.map(|(_, to, _)| minute_of(to)),
            timezone: quiet.map(|(_, _, zone)| zone.to_owned()),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse::<jiff::Timestamp>().expect("RFC 3339").as_microsecond().unsigned_abs()
    }

    #[test]
    fn of_messages_those_are_pushed_that_are_wanted() {
        for (messages, mentioned, expect) in [
            ("all", false, None),
            ("mentions", false, Some(Reason::Unwanted)),
            ("mentions", true, None),
            ("none", true, Some(Reason::Unwanted)),
        ] {
            assert_eq!(reason_against(&stored(messages, None), mentioned, 0), expect, "{messages} {mentioned}");
        }
    }

    #[test]
    fn quiet_hours_are_of_the_zone_over_midnight_and_over_the_change_of_clocks() {
        let night = ("22:00", "07:00", "Europe/Berlin");
        for (hours, now, quiet) in [
            (night, "2026-01-15T20:59:00Z", false),
            (night, "2026-01-15T21:00:00Z", true),
            (night, "2026-01-16T05:59:00Z", true),
            (night, "2026-01-16T06:00:00Z", false),
            // In summer it is an hour earlier in UTC; clocks change in the night to 29 March 2026.
            (night, "2026-03-28T20:59:00Z", false),
            (night, "2026-03-29T04:59:00Z", true),
            (night, "2026-03-29T05:00:00Z", false),
            (night, "2026-07-15T20:00:00Z", true),
            (("12:00", "13:00", "Asia/Kolkata"), "2026-01-15T06:30:00Z", true),
            (("12:00", "13:00", "Asia/Kolkata"), "2026-01-15T07:30:00Z", false),
            (("00:00", "00:00", "UTC"), "2026-01-15T07:30:00Z", true),
            (("00:00", "00:00", "Mars/Olympus"), "2026-01-15T07:30:00Z", false),
        ] {
            let expect = quiet.then_some(Reason::Quiet);
            assert_eq!(reason_against(&stored("all", Some(hours)), false, at(now)), expect, "{hours:?} {now}");
        }
    }

    #[test]
    fn a_zone_is_one_of_a_place_or_of_a_fixed_time() {
        for (name, expect) in [
            ("Europe/Berlin", true),
            ("UTC", true),
            ("Etc/GMT+5", true),
            ("Factory", false),
            ("factory", false),
            ("posixrules", false),
            ("localtime", false),
            ("Mars/Olympus", false),
            ("", false),
        ] {
            assert_eq!(zone(name).is_some(), expect, "{name}");
        }
    }

    #[test]
    fn a_time_is_given_back_as_it_was_taken() {
        for time in ["00:00", "07:05", "23:59"] {
            assert_eq!(clock(minute_of(time)), time);
        }
    }
}
