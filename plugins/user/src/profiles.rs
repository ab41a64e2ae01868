//! Profiles: one's own, another's as far as it is shown, several at once, and for other services which ids are users.

use std::collections::HashMap;

use echo_sdk::checks::Checks;
use echo_sdk::sql::transaction;
use echo_sdk::{Error, caller, time};

use crate::bindings::exports::echo::user::api::{KnownUsers, Profile, Profiles, UpdateMeRequest};
use crate::bounds::{
    AVATAR_URL_CHARS_MAX, BATCH_IDS_MAX, BIO_CHARS_MAX, DISPLAY_NAME_CHARS, KNOWN_IDS_MAX, LOCALE_CHARS_MAX, STATUS_TEXT_CHARS_MAX,
    TIMEZONE_CHARS_MAX,
};
use crate::fold::name_parts;
use crate::privacy::shown;
use crate::registration::{heal, heal_all};
use crate::store::{self, ProfileChange, Seen};

const STATUSES: [&str; 4] = ["online", "away", "busy", "offline"];

pub fn me() -> Result<Profile, Error> {
    let me = caller()?.user_id;
    Ok(shown(own(&me)?, &me))
}

/// The caller's own row; made where the event of the registration is not handled yet.
pub fn own(me: &str) -> Result<Seen, Error> {
    seen_by(me, me)
}

/// Another's row with what it has to do with the viewer. `not-found` for who is no user.
pub fn seen_by(viewer: &str, id: &str) -> Result<Seen, Error> {
    if let Some(seen) = store::profile_seen_by(viewer, id)? {
        return Ok(seen);
    }
    let made = if heal(id)? { store::profile_seen_by(viewer, id)? } else { None };
    made.ok_or_else(|| Error::not_found("there is no such user"))
}

pub fn get(id: &str) -> Result<Profile, Error> {
    let viewer = caller()?.user_id;
    Ok(shown(seen_by(&viewer, id)?, &viewer))
}

pub fn update_me(request: UpdateMeRequest) -> Result<Profile, Error> {
    let me = caller()?.user_id;
    let display_name = request.display_name.as_deref().map(str::trim);
    check(&request, display_name)?;
    own(&me)?;
    let change = ProfileChange {
        display_name,
        bio: request.bio.as_deref(),
        avatar_url: request.avatar_url.as_deref(),
        status: request.status.as_deref(),
        status_text: request.status_text.as_deref(),
        locale: request.locale.as_deref(),
        timezone: request.timezone.as_deref(),
    };
    transaction(|tx| {
        store::update_profile(tx, &me, &change, time::now_us())?;
        match display_name {
            Some(name) => store::replace_name_parts(tx, &me, &name_parts(name)),
            None => Ok(()),
        }
    })?;
    Ok(shown(own(&me)?, &me))
}

pub fn batch(ids: &[String]) -> Result<Profiles, Error> {
    let viewer = caller()?.user_id;
    Checks::new().count("ids", ids.len(), 0..=BATCH_IDS_MAX).finish()?;
    let mut found = by_id(store::profiles_seen_by(&viewer, ids)?);
    let missing: Vec<String> = ids.iter().filter(|id| !found.contains_key(*id)).cloned().collect();
    let healed = heal_all(&missing)?;
    if !healed.is_empty() {
        found.extend(by_id(store::profiles_seen_by(&viewer, &healed)?));
    }
    // In the order asked for; an id named twice is answered once.
    let items = ids.iter().filter_map(|id| found.remove(id)).map(|seen| shown(seen, &viewer)).collect();
    Ok(Profiles { items, next_cursor: None })
}

pub fn known(ids: Vec<String>) -> Result<KnownUsers, Error> {
    Checks::new().count("ids", ids.len(), 0..=KNOWN_IDS_MAX).finish()?;
    let mut known = store::which_exist(&ids)?;
    if known.len() < ids.len() {
        let missing: Vec<String> = ids.into_iter().filter(|id| !known.contains(id)).collect();
        known.extend(heal_all(&missing)?);
    }
    Ok(KnownUsers { ids: known })
}

fn by_id(seen: Vec<Seen>) -> HashMap<String, Seen> {
    seen.into_iter().map(|seen| (seen.profile.id.clone(), seen)).collect()
}

fn check(request: &UpdateMeRequest, display_name: Option<&str>) -> Result<(), Error> {
    let given = |text: &Option<String>, fits: fn(&str) -> bool| text.as_deref().is_none_or(|text| text.is_empty() || fits(text));
    Checks::new()
        .name("display_name", display_name, DISPLAY_NAME_CHARS)
        .prose("bio", request.bio.as_deref(), 0..=BIO_CHARS_MAX)
        .name("avatar_url", request.avatar_url.as_deref(), 0..=AVATAR_URL_CHARS_MAX)
        .require(given(&request.avatar_url, is_web_address), "avatar_url", "invalid_url", "an http or https address")
        .require(
            given(&request.status, |status| STATUSES.contains(&status)),
            "status",
            "unknown_status",
            "one of online, away, busy, offline",
        )
        .name("status_text", request.status_text.as_deref(), 0..=STATUS_TEXT_CHARS_MAX)
        .require(given(&request.locale, is_locale), "locale", "invalid_locale", "a BCP 47 tag, e.g. en-GB")
        .require(given(&request.timezone, is_timezone), "timezone", "invalid_timezone", "an IANA zone, e.g. Europe/Berlin")
        .finish()
}

fn is_web_address(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && !text.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '"' | '<' | '>'))
    })
}

/// The shape of RFC 5646 §2.1: subtags of 1 to 8 letters and digits, a language of letters first.
fn is_locale(text: &str) -> bool {
    let mut subtags = text.split('-');
    text.len() <= LOCALE_CHARS_MAX
        && subtags.next().is_some_and(|language| (2..=8).contains(&language.len()) && language.bytes().all(|b| b.is_ascii_alphabetic()))
        && subtags.all(|subtag| (1..=8).contains(&subtag.len()) && subtag.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// The shape of a name in the IANA database; whether there is such a zone is for the client to know.
fn is_timezone(text: &str) -> bool {
    text.len() <= TIMEZONE_CHARS_MAX
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .split('/')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_shapes() {
        for (shape, text, expect) in [
            (is_web_address as fn(&str) -> bool, "https://a.example/b.png", true),
            (is_web_address, "ftp://a.example", false),
            (is_web_address, "https://", false),
            (is_web_address, "https://a b", false),
            (is_web_address, "javascript:alert(1)", false),
            (is_locale, "en-GB", true),
            (is_locale, "zh-Hant-TW", true),
            (is_locale, "e", false),
            (is_locale, "en_GB", false),
            (is_locale, "en-", false),
            (is_timezone, "Europe/Berlin", true),
            (is_timezone, "Etc/GMT+3", true),
            (is_timezone, "UTC", true),
            (is_timezone, "Europe/", false),
            (is_timezone, "+1", false),
        ] {
            assert_eq!(shape(text), expect, "{text}");
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let request = UpdateMeRequest {
            display_name: Some(String::new()),
            bio: Some("x".repeat(501)),
            avatar_url: Some("nowhere".into()),
            status: Some("asleep".into()),
            status_text: Some(String::new()),
            locale: Some("?".into()),
            timezone: None,
        };
        let error = check(&request, request.display_name.as_deref()).expect_err("wrong");
        let fields: Vec<_> = error.fields.iter().map(|field| field.field.as_str()).collect();
        assert_eq!(fields, ["display_name", "bio", "avatar_url", "status", "locale"]);
    }
}
