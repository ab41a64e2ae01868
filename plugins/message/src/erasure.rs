//! People whose accounts were erased: they take part in no group or channel, and what they wrote is emptied.
//!
//! Their messages are made to disappear now: the schedule that empties disappearing messages does the rest, as it does for those, in feeds, pushes and
//! other services too. Direct conversations stay the other's, with an id that is nobody's.

use echo_sdk::sql::transaction;
use echo_sdk::wit::context;
use echo_sdk::{Error, time};

use crate::bindings::exports::echo::user::events::StateChange;
use crate::bounds::{ERASED_AT_ONCE, EXPIRING_TIME_LEFT_MS};
use crate::participants;
use crate::store::{erasure as store, scheduled};

/// The failure of what was to be sent by somebody who deleted the account.
const ACCOUNT_DELETED: &str = "account_deleted";

/// While an account is deleted nothing is sent in its name and nobody joins by its links. Who has it back finds what was to be sent as failed.
pub fn state_changed(event: &StateChange) -> Result<(), Error> {
    let StateChange { user_id, deleted, at } = event;
    transaction(|tx| {
        if store::set_state(tx, user_id, *deleted, *at)? && *deleted {
            scheduled::fail_all_of(tx, user_id, ACCOUNT_DELETED)?;
        }
        Ok(())
    })
}

/// Does what it has time for; the event comes again until nothing is left to do.
pub fn erase(user_id: &str) -> Result<(), Error> {
    // First of all: what they wrote is seen by nobody from then on.
    loop {
        let expired = transaction(|tx| store::expire_messages_of(tx, user_id, time::now_us(), ERASED_AT_ONCE))?;
        if expired < ERASED_AT_ONCE {
            break;
        }
        in_time()?;
    }
    while let Some(conversation_id) = store::group_of(user_id)? {
        transaction(|tx| participants::leave(tx, &conversation_id, user_id))?;
        in_time()?;
    }
    Ok(transaction(|tx| store::forget_marks_of(tx, user_id))?)
}

fn in_time() -> Result<(), Error> {
    if context::remaining_ms() < EXPIRING_TIME_LEFT_MS / 2 {
        return Err(Error::unavailable("there is more to erase than one call does"));
    }
    Ok(())
}
