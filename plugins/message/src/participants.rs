//! Who takes part in groups and channels, and in which role. Every change locks the conversation first, so that two at once see each other.

use echo_sdk::sql::{Database, Transaction, transaction};
use echo_sdk::{Error, Id, Page, caller, time};

use crate::bindings::echo::message::pushes;
use crate::bindings::exports::echo::message::api::{
    AddParticipantsRequest, AddedParticipants, ListParticipantsRequest, Membership, MembershipRequest, Participant, ParticipantRequest,
    Participants, Role, UpdateParticipantRequest,
};
use crate::bounds::PARTICIPANTS_MAX;
use crate::conversations::{addable, announce, roster};
use crate::store::conversations::{self as store, Roster};
use crate::store::scheduled;
use crate::{names, payload, rules};

/// Sorts before every user's id.
const FIRST_ID: &str = "00000000-0000-0000-0000-000000000000";

pub fn list(request: &ListParticipantsRequest) -> Result<Participants, Error> {
    let me = caller()?.user_id;
    let page = Page::<(u64, Id)>::new(request.limit, request.cursor.as_deref())?;
    store::membership(&Database, &request.id, &me)?.ok_or_else(rules::no_conversation)?;
    let after = page.after.clone().map_or_else(|| (0, FIRST_ID.to_owned()), |(at, Id(id))| (at, id));
    let items = store::participants_of(&request.id, &me, &after, page.fetch())?;
    let (items, next_cursor) = page.finish(items, |participant| (participant.joined_at, Id(participant.user_id.clone())));
    Ok(Participants { items, next_cursor })
}

/// For other services, which answer to somebody else who asks.
pub fn membership(request: &MembershipRequest) -> Result<Membership, Error> {
    let (kind, participant_count) = store::size_of(&request.conversation_id)?.ok_or_else(rules::no_conversation)?;
    let members = store::members_among(&request.conversation_id, &request.user_ids)?;
    Ok(Membership { type_: names::conversation(&kind), participant_count, members })
}

/// Answers with those who were named and take part, and with those who do not let the caller add them.
pub fn add(request: AddParticipantsRequest) -> Result<AddedParticipants, Error> {
    let me = caller()?.user_id;
    let place = store::membership(&Database, &request.id, &me)?.ok_or_else(rules::no_conversation)?;
    rules::may_manage(place.kind, place.role)?;
    let mut wanted = request.user_ids.clone();
    wanted.sort_unstable();
    wanted.dedup();
    // Who takes part already stays so, whatever their privacy.
    let present = store::participants_among(&request.id, &me, &wanted)?;
    let absent = wanted.iter().filter(|id| !present.iter().any(|participant| participant.user_id == **id)).cloned().collect();
    let (added, not_added) = addable("user_ids", &request.user_ids, absent)?;
    if added.is_empty() {
        return Ok(AddedParticipants { items: present, next_cursor: None, not_added });
    }
    transaction(|tx| {
        let (last_seq, before) = begin(tx, &request.id, &me)?;
        rules::may_manage(before.kind, role_in(&before, &me).ok_or_else(rules::no_conversation)?)?;
        store::forget_removed(tx, &request.id, &added)?;
        store::insert_participants(tx, &request.id, &added, Role::Member, last_seq, time::now_us())?;
        let roster = roster(tx, &request.id, &me)?;
        if roster.members.len() as u64 > PARTICIPANTS_MAX {
            return Err(Error::conflict("too_many_participants", format!("at most {PARTICIPANTS_MAX} participants")));
        }
        announce(tx, &request.id, &roster)
    })?;
    Ok(AddedParticipants { items: store::participants_among(&request.id, &me, &wanted)?, next_cursor: None, not_added })
}

pub fn update(request: &UpdateParticipantRequest) -> Result<Participant, Error> {
    let me = caller()?.user_id;
    transaction(|tx| {
        let (_, before) = begin(tx, &request.id, &me)?;
        let own_role = role_in(&before, &me).ok_or_else(rules::no_conversation)?;
        role_in(&before, &request.user_id).ok_or_else(no_participant)?;
        if let Some(own_role) = rules::may_change_role(before.kind, own_role, request.user_id == me, request.role)? {
            store::set_role(tx, &request.id, &me, own_role)?;
        }
        store::set_role(tx, &request.id, &request.user_id, request.role)?;
        announce(tx, &request.id, &roster(tx, &request.id, &me)?)
    })?;
    let found = store::participants_among(&request.id, &me, std::slice::from_ref(&request.user_id))?;
    found.into_iter().next().ok_or_else(no_participant)
}

/// Removes another, or oneself. A leaving owner is followed by the longest admin, else the longest member; the last to leave ends it.
pub fn remove(request: &ParticipantRequest) -> Result<(), Error> {
    let me = caller()?.user_id;
    transaction(|tx| {
        let (_, before) = begin(tx, &request.id, &me)?;
        let own_role = role_in(&before, &me).ok_or_else(rules::no_conversation)?;
        let role = role_in(&before, &request.user_id).ok_or_else(no_participant)?;
        rules::may_remove(before.kind, own_role, request.user_id == me, role)?;
        take_out(tx, &request.id, before, (&request.user_id, role), &me)
    })
}

/// Takes somebody out whose account is no more.
pub fn leave(tx: &Transaction, conversation_id: &str, user_id: &str) -> Result<(), Error> {
    let (_, before) = begin(tx, conversation_id, user_id)?;
    match role_in(&before, user_id) {
        Some(role) => take_out(tx, conversation_id, before, (user_id, role), user_id),
        None => Ok(()),
    }
}

fn take_out(tx: &Transaction, id: &str, before: Roster, (user_id, role): (&str, Role), by: &str) -> Result<(), Error> {
    store::delete_participant(tx, id, user_id)?;
    if by == user_id {
        scheduled::cancel_those_to(tx, id, user_id)?;
    } else {
        // As it would fail at its time, but at once: its sender finds it with the reason.
        scheduled::fail_those_to(tx, id, user_id, &rules::no_conversation().code)?;
        store::note_removed(tx, id, user_id, time::now_us())?;
    }
    let others = before.members.into_iter().filter(|member| member.user_id != user_id);
    let others: Vec<(String, Role)> = others.map(|member| (member.user_id, member.role)).collect();
    match rules::successor(&others) {
        Some(successor) if role == Role::Owner => store::set_role(tx, id, successor, Role::Owner)?,
        None if role == Role::Owner => store::end(tx, id, time::now_us())?,
        _ => {}
    }
    pushes::conversation_left(&[user_id.to_owned()], &payload::conversation_left(id))?;
    if others.is_empty() { Ok(()) } else { announce(tx, id, &roster(tx, id, by)?) }
}

/// The newest seq and the roster, locked against other changes until the transaction ends.
fn begin(tx: &Transaction, id: &str, me: &str) -> Result<(u64, Roster), Error> {
    let last_seq = store::begin_roster_change(tx, id, time::now_us())?.ok_or_else(rules::no_conversation)?;
    Ok((last_seq, roster(tx, id, me)?))
}

fn role_in(roster: &Roster, user_id: &str) -> Option<Role> {
    roster.members.iter().find(|member| member.user_id == user_id).map(|member| member.role)
}

fn no_participant() -> Error {
    Error::not_found("there is no such participant")
}
