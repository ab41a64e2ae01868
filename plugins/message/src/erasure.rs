//! People whose accounts were erased: they take part in no group or channel, and what they wrote is emptied.
//!
//! Their messages are made to disappear now: the schedule that empties disappearing messages does the rest, as it does for those, in feeds, pushes and
//! other services too. Direct conversations stay the other's, with an id that is nobody's.

use echo_sdk::sql::transaction;
use echo_sdk::wit::context;
use echo_sdk::{Error, time};

use crate::bounds::{ERASED_AT_ONCE, EXPIRING_TIME_LEFT_MS};
use crate::participants;
use crate::store::erasure as store;

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
