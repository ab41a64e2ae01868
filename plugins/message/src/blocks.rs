//! This service's copy of who blocks whom: looked at for every message, and so kept at hand.

use echo_sdk::{Error, transaction};

use crate::bindings::exports::echo::user::events::BlockChange;
use crate::store;

/// Late and repeated events change nothing: the revision says which is the newer.
pub fn record(event: &BlockChange, active: bool) -> Result<(), Error> {
    let BlockChange { user_id, blocked_user_id, revision } = event;
    transaction(|tx| {
        if !store::is_news(tx, user_id, blocked_user_id, *revision)? {
            return Ok(());
        }
        // Before the block counts: from then on the blocked one sees this and no more.
        if active {
            store::withhold_receipts(tx, user_id, blocked_user_id)?;
        }
        Ok(store::record_block(tx, user_id, blocked_user_id, active, *revision)?)
    })
}
