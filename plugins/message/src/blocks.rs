//! This service's copy of who blocks whom: looked at for every message, and so kept at hand.

use echo_sdk::Error;

use crate::bindings::exports::echo::user::events::BlockChange;
use crate::store;

/// Late and repeated events change nothing: the revision says which is the newer.
pub fn record(event: &BlockChange, active: bool) -> Result<(), Error> {
    Ok(store::record_block(&event.user_id, &event.blocked_user_id, active, event.revision)?)
}
