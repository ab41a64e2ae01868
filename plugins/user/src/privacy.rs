//! Who sees what of a profile. A blocked viewer is in nobody's audience, so that a block cannot be told from a choice of privacy.

use echo_sdk::sql::transaction;
use echo_sdk::{Error, caller, time};

use crate::bindings::echo::user::events::{self, AudienceChange};
use crate::bindings::exports::echo::user::api::{AddableUsers, Audience, Privacy, Profile, ReceiptAudience, UpdatePrivacyRequest};
use crate::store::{self, Owner, PrivacyChange, Seen};
use crate::{profiles, store::Privacy as Row};

pub fn get() -> Result<Privacy, Error> {
    let me = caller()?.user_id;
    read(&me)
}

pub fn update(request: &UpdatePrivacyRequest) -> Result<Privacy, Error> {
    let me = caller()?.user_id;
    profiles::own(&me)?;
    let change = PrivacyChange {
        phone_visible: request.phone_visible.map(name),
        profile_visible: request.profile_visible.map(name),
        last_seen_visible: request.last_seen_visible.map(name),
        presence_visible: request.presence_visible.map(name),
        read_receipts: request.read_receipts.map(name),
        added_by: request.groups.map(name),
    };
    transaction(|tx| {
        store::update_privacy(tx, &me, &change, time::now_us())?;
        match change.presence_visible.or(change.last_seen_visible) {
            Some(_) => audience_changed(&me),
            None => Ok(()),
        }
    })?;
    read(&me)
}

fn read(me: &str) -> Result<Privacy, Error> {
    profiles::own(me)?;
    let Row { phone_visible, profile_visible, last_seen_visible, presence_visible, read_receipts, added_by } =
        store::privacy_of(me)?.ok_or_else(|| Error::internal("a profile that was just there has no privacy"))?;
    Ok(Privacy {
        phone_visible: audience(&phone_visible),
        profile_visible: audience(&profile_visible),
        last_seen_visible: audience(&last_seen_visible),
        presence_visible: audience(&presence_visible),
        read_receipts: audience(&read_receipts),
        groups: audience(&added_by),
    })
}

/// Whoever shows others something of the user is to ask again to whom. In the transaction that makes the change.
pub fn audience_changed(user_id: &str) -> Result<(), Error> {
    events::audience_changed(user_id, &AudienceChange { user_id: user_id.to_owned() })
}

/// Whom of these the caller may add to a group. A block and a choice of privacy keep out alike.
pub fn who_may_be_added(ids: Vec<String>) -> Result<AddableUsers, Error> {
    let me = caller()?.user_id;
    let known = profiles::known(ids)?.ids;
    let owners = store::owners_seen_by(&me, &known)?;
    let admitted = |owner: &&Owner| admits(audience(&owner.added_by), owner.viewer_is_contact, owner.viewer_is_blocked);
    let ids = owners.iter().filter(admitted).map(|owner| owner.id.clone()).collect();
    Ok(AddableUsers { known, ids })
}

pub fn read_receipts_for(ids: Vec<String>) -> Result<ReceiptAudience, Error> {
    let me = caller()?.user_id;
    // Who has no profile yet has chosen nothing and blocked nobody.
    let Some(chosen) = store::read_receipts_of(&me)? else { return Ok(ReceiptAudience { everyone: true, ids }) };
    let wanted = audience(&chosen.audience);
    let contacts = if wanted == Audience::Contacts { store::contacts_among(&me, &ids)? } else { Vec::new() };
    let blocked = if chosen.blocks_anybody { store::blocked_among(&me, &ids)? } else { Vec::new() };
    Ok(told(wanted, ids, &contacts, &blocked))
}

fn told(wanted: Audience, mut ids: Vec<String>, contacts: &[String], blocked: &[String]) -> ReceiptAudience {
    ids.retain(|id| admits(wanted, contacts.contains(id), blocked.contains(id)));
    ReceiptAudience { everyone: wanted == Audience::Everyone && blocked.is_empty(), ids }
}

/// The profile as the viewer may see it: all of it for its owner, the name alone for who is outside its audience.
pub fn shown(seen: Seen, viewer: &str) -> Profile {
    let Seen { profile, viewer_is_contact, viewer_is_blocked } = seen;
    let own = profile.id == viewer;
    let in_audience = |visible: &str| own || admits(audience(visible), viewer_is_contact, viewer_is_blocked);
    let (whole, with_phone) = (in_audience(&profile.profile_visible), in_audience(&profile.phone_visible));
    Profile {
        phone: profile.phone.filter(|_| with_phone),
        bio: profile.bio.filter(|_| whole),
        avatar_url: profile.avatar_url.filter(|_| whole),
        status: profile.status.filter(|_| whole),
        status_text: profile.status_text.filter(|_| whole),
        locale: profile.locale.filter(|_| whole),
        timezone: profile.timezone.filter(|_| whole),
        country: profile.country.filter(|_| whole),
        // When something changed that the viewer does not see is not theirs to know either.
        updated_at: if whole { profile.updated_at } else { profile.created_at },
        id: profile.id,
        display_name: profile.display_name,
        created_at: profile.created_at,
    }
}

pub fn admits(audience: Audience, viewer_is_contact: bool, viewer_is_blocked: bool) -> bool {
    !viewer_is_blocked
        && match audience {
            Audience::Everyone => true,
            Audience::Contacts => viewer_is_contact,
            Audience::Nobody => false,
        }
}

fn name(audience: Audience) -> &'static str {
    match audience {
        Audience::Everyone => "everyone",
        Audience::Contacts => "contacts",
        Audience::Nobody => "nobody",
    }
}

/// What the table's CHECK lets in; anything else shows nothing.
pub fn audience(name: &str) -> Audience {
    match name {
        "everyone" => Audience::Everyone,
        "contacts" => Audience::Contacts,
        _ => Audience::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(phone_visible: &str, profile_visible: &str, viewer_is_contact: bool, viewer_is_blocked: bool) -> Seen {
        let profile = store::Profile {
            id: "owner".into(),
            phone: Some("+12025550100".into()),
            display_name: "Ada".into(),
            bio: Some("numbers".into()),
            avatar_url: None,
            status: None,
            status_text: None,
            locale: None,
            timezone: Some("Europe/London".into()),
            country: Some("GB".into()),
            created_at: 1,
            updated_at: 9,
            phone_visible: phone_visible.into(),
            profile_visible: profile_visible.into(),
        };
        Seen { profile, viewer_is_contact, viewer_is_blocked }
    }

    /// Whether the phone and the rest are shown.
    fn check(phone: &str, profile: &str, contact: bool, blocked: bool, viewer: &str, expect: (bool, bool)) {
        let shown = shown(seen(phone, profile, contact, blocked), viewer);
        assert_eq!((shown.phone.is_some(), shown.bio.is_some()), expect, "{phone} {profile} {contact} {blocked} {viewer}");
        assert_eq!(shown.updated_at, if expect.1 { 9 } else { 1 });
        assert_eq!(shown.display_name, "Ada");
    }

    #[test]
    fn audiences_are_kept() {
        check("contacts", "everyone", false, false, "other", (false, true));
        check("contacts", "everyone", true, false, "other", (true, true));
        check("everyone", "contacts", false, false, "other", (true, false));
        check("nobody", "nobody", true, false, "other", (false, false));
        check("nobody", "nobody", false, false, "owner", (true, true));
    }

    #[test]
    fn who_may_know_what_one_has_read() {
        let ids = || ["friend", "stranger", "blocked"].map(str::to_owned).to_vec();
        let contacts = ["friend".to_owned(), "blocked".to_owned()];
        for (wanted, blocked, everyone, expect) in [
            (Audience::Everyone, &[][..], true, &["friend", "stranger", "blocked"][..]),
            (Audience::Everyone, &["blocked".to_owned()], false, &["friend", "stranger"]),
            (Audience::Contacts, &["blocked".to_owned()], false, &["friend"]),
            (Audience::Contacts, &[], false, &["friend", "blocked"]),
            (Audience::Nobody, &[], false, &[]),
        ] {
            let told = told(wanted, ids(), &contacts, blocked);
            assert_eq!((told.everyone, told.ids.iter().map(String::as_str).collect::<Vec<_>>()), (everyone, expect.to_vec()), "{wanted:?}");
        }
    }

    #[test]
    fn a_block_looks_like_privacy() {
        let blocked = shown(seen("everyone", "everyone", true, true), "other");
        let private = shown(seen("nobody", "nobody", false, false), "other");
        assert_eq!(format!("{blocked:?}"), format!("{private:?}"));
    }
}
