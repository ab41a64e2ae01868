//! An event is delivered at least once; this makes its handling count once. It needs a table in the service's own schema (see README.md).

use std::collections::HashSet;

use crate::sql::{Sql, SqlError, Transaction, row_placeholders, timestamp};
use crate::wit::context;
use crate::{Error, params, time};

/// Whether this event is new here; false means it was handled before and nothing is to be done. Ask first thing in the transaction that
/// handles it: a rollback forgets it again.
pub fn once(tx: &Transaction, event_id: &str) -> Result<bool, SqlError> {
    let sql = "INSERT INTO handled_events (event_id, handled_at) VALUES ($1, $2) ON CONFLICT (event_id) DO NOTHING";
    Ok(tx.execute(sql, params![event_id, timestamp(time::now_us())])? == 1)
}

/// Those of these identifiers that are new here, for a call that takes several events: give each thing that counts once an identifier of its
/// own, as such a call has none. At most 500, and none twice.
pub fn once_each(tx: &Transaction, ids: &[String]) -> Result<HashSet<String>, SqlError> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let at = time::now_us();
    let sql = format!(
        "INSERT INTO handled_events (event_id, handled_at) VALUES {} ON CONFLICT (event_id) DO NOTHING RETURNING event_id",
        row_placeholders(ids.len(), 2)
    );
    let params = ids.iter().flat_map(|id| params![id.as_str(), timestamp(at)]).collect();
    Ok(tx.rows::<(String,)>(&sql, params)?.into_iter().map(|(id,)| id).collect())
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
