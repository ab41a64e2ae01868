//! Links by which people join a group or channel.

use echo_sdk::checks::Checks;
use echo_sdk::sql::{Database, transaction};
use echo_sdk::{Error, caller, ids, time};

use crate::bindings::exports::echo::message::api::{Conversation, DeleteInviteRequest, Invite, InviteRequest, Invites, Role};
use crate::bounds::{INVITE_CODE_BYTES, INVITES_MAX, PARTICIPANTS_MAX};
use crate::conversations::{announce, roster, view};
use crate::rules;
use crate::store::conversations::{begin_roster_change, insert_participants, lock, membership};
use crate::store::invites;

pub fn create(request: &InviteRequest) -> Result<Invite, Error> {
    let me = caller()?.user_id;
    manages(&me, &request.id)?;
    let now = time::now_us();
    let is_ahead = request.expires_at.is_none_or(|at| at > now);
    Checks::new().require(is_ahead, "expires_at", "out_of_range", "it is in the future").finish()?;
    let code: String = ids::random_bytes(INVITE_CODE_BYTES).iter().map(|byte| format!("{byte:02x}")).collect();
    let invite = Invite {
        code,
        conversation_id: request.id.clone(),
        created_by: me,
        created_at: now,
        expires_at: request.expires_at,
        uses_max: request.uses_max,
        uses: 0,
    };
    transaction(|tx| {
        // Locked, so that two at once keep the bound.
        if !lock(tx, &invite.conversation_id)? {
            return Err(rules::no_conversation());
        }
        invites::clear_away(tx, &invite.conversation_id, now)?;
        invites::insert(tx, &invite)?;
        if invites::of(tx, &invite.conversation_id)?.len() as u64 > INVITES_MAX {
            return Err(Error::conflict("too_many_invites", format!("at most {INVITES_MAX} links are open")));
        }
        Ok(())
    })?;
    Ok(invite)
}

pub fn list(conversation_id: &str) -> Result<Invites, Error> {
    manages(&caller()?.user_id, conversation_id)?;
    Ok(Invites { items: invites::of(&Database, conversation_id)?, next_cursor: None })
}

pub fn delete(request: &DeleteInviteRequest) -> Result<(), Error> {
    manages(&caller()?.user_id, &request.id)?;
    if invites::delete(&request.id, &request.code)? { Ok(()) } else { Err(no_invite()) }
}

/// Who takes part already is not counted.
pub fn join(code: &str) -> Result<Conversation, Error> {
    let me = caller()?.user_id;
    let id = invites::conversation_of(code)?.ok_or_else(no_invite)?;
    // By a link that is used up too: they may have been the last.
    if membership(&Database, &id, &me)?.is_some() {
        return view(&me, &id);
    }
    transaction(|tx| {
        let now = time::now_us();
        let last_seq = begin_roster_change(tx, &id, now)?.ok_or_else(no_invite)?;
        if membership(tx, &id, &me)?.is_some() {
            return Ok(());
        }
        if invites::keeps_out(tx, code, &me)? || !invites::use_once(tx, code, now)? {
            return Err(no_invite());
        }
        insert_participants(tx, &id, std::slice::from_ref(&me), Role::Member, last_seq, now)?;
        let roster = roster(tx, &id, &me)?;
        if roster.members.len() as u64 > PARTICIPANTS_MAX {
            return Err(Error::conflict("too_many_participants", format!("at most {PARTICIPANTS_MAX} participants")));
        }
        announce(tx, &id, &roster)
    })?;
    view(&me, &id)
}

fn manages(me: &str, conversation_id: &str) -> Result<(), Error> {
    let place = membership(&Database, conversation_id, me)?.ok_or_else(rules::no_conversation)?;
    rules::may_manage(place.kind, place.role)
}

/// One that there never was, one that is over, one that is used up and one that keeps the caller out look alike.
fn no_invite() -> Error {
    Error::not_found("there is no such link")
}
