//! An event is delivered at least once; this makes its handling count once. It needs a table in the service's own schema (see README.md).

use crate::sql::{Sql, SqlError, Transaction, timestamp};
use crate::wit::context;
use crate::{Error, params, time};

/// Whether this event is new here; false means it was handled before and nothing is to be done. Ask first thing in the transaction that
/// handles it: a rollback forgets it again.
pub fn once(tx: &Transaction, event_id: &str) -> Result<bool, SqlError> {
    let sql = "INSERT INTO handled_events (event_id, handled_at) VALUES ($1, $2) ON CONFLICT (event_id) DO NOTHING";
    Ok(tx.execute(sql, params![event_id, timestamp(time::now_us())])? == 1)
}

/// The identifier of the event being handled; internal error where no event is.
pub fn event_id() -> Result<String, Error> {
    context::event_id().ok_or_else(|| Error::internal("not called by an event"))
}

/// Forgets events handled before this time, so that the table stays small; how many. Call it from a schedule, with weeks of distance: a
/// dead letter can be replayed late.
pub fn forget_handled(db: &impl Sql, before_us: u64) -> Result<u64, SqlError> {
    db.execute("DELETE FROM handled_events WHERE handled_at < $1", params![timestamp(before_us)])
}
