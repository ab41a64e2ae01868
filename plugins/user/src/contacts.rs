//! A user's contacts: people with an alias of one's own, and which numbers of an address book are users.

use echo_sdk::sql::transaction;
use echo_sdk::{Error, Id, Page, caller, time};

use crate::bindings::exports::echo::user::api::{
    AddContactRequest, Contact, Contacts, Matches, PageRequest, PhoneMatch, UpdateContactRequest,
};
use crate::bounds::CONTACTS_MAX;
use crate::numbers::{self, Purpose};
use crate::privacy::{audience_changed, shown};
use crate::{profiles, store};

/// Sorts after everything that has a time and an id: the beginning of a list of the newest first.
pub const LAST_KEY: (u64, &str) = (253_402_300_799_000_000, "ffffffff-ffff-ffff-ffff-ffffffffffff");

pub fn list(request: PageRequest) -> Result<Contacts, Error> {
    let me = caller()?.user_id;
    let page = Page::<(u64, Id)>::new(request.limit, request.cursor.as_deref())?;
    let before = page.after.clone().map_or_else(|| (LAST_KEY.0, LAST_KEY.1.to_owned()), |(at, Id(id))| (at, id));
    let rows = store::contacts_of(&me, &before, page.fetch())?;
    let (rows, next_cursor) = page.finish(rows, |row| (row.created_at, Id(row.seen.profile.id.clone())));
    Ok(Contacts { items: rows.into_iter().map(|row| view(row, &me)).collect(), next_cursor })
}

pub fn add(request: AddContactRequest) -> Result<Contact, Error> {
    let me = caller()?.user_id;
    let alias = trimmed(request.alias.as_deref());
    let user_id = match (request.user_id, request.phone) {
        (Some(user_id), None) => profiles::seen_by(&me, &user_id)?.profile.id,
        (None, Some(phone)) => match numbers::find(&me, &[phone], Purpose::AddressBook)?.into_iter().next() {
            Some(found) => found.profile.id,
            None => return Err(Error::not_found("nobody is to be found under this number")),
        },
        _ => return Err(Error::invalid_field("user_id", "one_of", "give either user_id or phone")),
    };
    if user_id == me {
        return Err(Error::invalid_field("user_id", "own_user", "nobody is their own contact"));
    }
    if store::contact_count_of(&me)? >= CONTACTS_MAX {
        return Err(Error::conflict("too_many_contacts", format!("at most {CONTACTS_MAX} contacts")));
    }
    store::put_contact(&me, &user_id, alias, time::now_us())?;
    one(&me, &user_id)
}

pub fn update(request: UpdateContactRequest) -> Result<Contact, Error> {
    let me = caller()?.user_id;
    let alias = trimmed(request.alias.as_deref());
    if !store::set_alias(&me, &request.user_id, alias)? {
        return Err(no_contact());
    }
    one(&me, &request.user_id)
}

pub fn remove(user_id: &str) -> Result<(), Error> {
    let me = caller()?.user_id;
    // Of their row, not of what is shown of it: a number that the caller may not see any more leaves the address book too.
    let phone = store::profile_seen_by(&me, user_id)?.and_then(|seen| seen.profile.phone);
    transaction(|tx| match store::delete_contact(tx, &me, user_id)? {
        true => audience_changed(&me),
        false => Err(no_contact()),
    })?;
    phone.map_or(Ok(()), |phone| numbers::take_out(&me, &phone))
}

pub fn match_phones(mut phones: Vec<String>) -> Result<Matches, Error> {
    let me = caller()?.user_id;
    phones.sort_unstable();
    phones.dedup();
    let found = numbers::find(&me, &phones, Purpose::AddressBook)?.into_iter().map(|seen| seen.profile).filter(|profile| profile.id != me);
    let items = found.filter_map(|profile| profile.phone.map(|phone| PhoneMatch { phone, user_id: profile.id })).collect();
    Ok(Matches { items })
}

fn one(me: &str, user_id: &str) -> Result<Contact, Error> {
    store::contact_of(me, user_id)?.map(|row| view(row, me)).ok_or_else(no_contact)
}

fn no_contact() -> Error {
    Error::not_found("there is no such contact")
}

pub fn view(row: store::Contact, me: &str) -> Contact {
    Contact { user_id: row.seen.profile.id.clone(), alias: row.alias, created_at: row.created_at, profile: shown(row.seen, me) }
}

/// An empty alias is none.
fn trimmed(alias: Option<&str>) -> Option<&str> {
    alias.map(str::trim).filter(|alias| !alias.is_empty())
}
