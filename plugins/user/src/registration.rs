//! How a profile comes to be, and goes: by the event of a verified number, or, where a client is faster than the event, by asking auth for the
//! account. Both give the same profile, once.

use echo_sdk::sql::{SqlError, transaction};
use echo_sdk::{Error, ErrorKind, Timestamp};

use crate::bindings::echo::auth::api as auth;
use crate::bindings::exports::echo::user::events::{Registration, StateChange};
use crate::bounds::HEALED_MAX;
use crate::fold::name_parts;
use crate::privacy::audience_changed;
use crate::store::{self, NewProfile};

/// Shown until a name is chosen.
const NAMELESS: &str = "New user";

pub fn registered(event: Registration) -> Result<(), Error> {
    let Registration { user_id, phone, name, country, timezone, at } = event;
    Ok(create(&user_id, &phone, name.as_deref(), country.as_deref(), timezone.as_deref(), at)?)
}

/// A deleted account is to others as if there were none, and what is shown of it elsewhere goes.
pub fn state_changed(event: &StateChange) -> Result<(), Error> {
    let StateChange { user_id, deleted, at } = event;
    transaction(|tx| match store::set_state(tx, user_id, *deleted, *at)? {
        true if *deleted => audience_changed(user_id),
        _ => Ok(()),
    })
}

/// What is kept of a person whose account was erased, by them and by others: their names for them too.
pub fn deleted(user_id: &str) -> Result<(), Error> {
    Ok(transaction(|tx| store::erase_person(tx, user_id))?)
}

/// Makes the profile that is missing. False: there is no such user, or the number is not verified.
pub fn heal(user_id: &str) -> Result<bool, Error> {
    let account = match auth::get_account(&auth::AccountRequest { user_id: user_id.to_owned() }) {
        Ok(account) if account.verified => account,
        Ok(_) => return Ok(false),
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let auth::Account { phone, name, country, timezone, created_at, .. } = account;
    create(user_id, &phone, name.as_deref(), country.as_deref(), timezone.as_deref(), created_at)?;
    Ok(true)
}

/// Those of the ids whose profile could be made; at most `HEALED_MAX` are asked for.
pub fn heal_all(ids: &[String]) -> Result<Vec<String>, Error> {
    let mut healed = Vec::new();
    for id in ids.iter().take(HEALED_MAX) {
        if heal(id)? {
            healed.push(id.clone());
        }
    }
    Ok(healed)
}

fn create(id: &str, phone: &str, name: Option<&str>, country: Option<&str>, timezone: Option<&str>, at: Timestamp) -> Result<(), SqlError> {
    let display_name = display_name(name);
    transaction(|tx| {
        if store::insert_profile(tx, &NewProfile { id, phone, display_name: &display_name, country, timezone, at })? {
            store::replace_name_parts(tx, id, &name_parts(&display_name))?;
        }
        Ok(())
    })
}

fn display_name(name: Option<&str>) -> String {
    match name.map(str::trim) {
        None | Some("") => NAMELESS.to_owned(),
        Some(name) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_always_there() {
        assert_eq!(display_name(None), NAMELESS);
        assert_eq!(display_name(Some("  ")), NAMELESS);
        assert_eq!(display_name(Some(" Ada ")), "Ada");
    }
}
