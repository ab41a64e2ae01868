//! Messages that a person has starred: one's own list, which nobody else learns of.

use echo_sdk::{Error, Id, Page, caller, time};

use crate::bindings::exports::echo::message::api::{Messages, PageRequest};
use crate::bounds::STARRED_MAX;
use crate::changes;
use crate::history::seen_by;
use crate::store::{marks, messages};

/// Sorts after everything that has a time and an id: the beginning of a list of the newest first.
const LAST_KEY: (u64, &str) = (253_402_300_799_000_000, "ffffffff-ffff-ffff-ffff-ffffffffffff");

pub fn star(id: &str) -> Result<(), Error> {
    let me = caller()?.user_id;
    let message = seen_by(&me, id)?;
    if message.deleted_at.is_some() {
        return Err(changes::deleted());
    }
    if marks::starred_count(&me, STARRED_MAX)? >= STARRED_MAX {
        return Err(Error::conflict("too_many_starred", format!("at most {STARRED_MAX} starred messages")));
    }
    Ok(marks::star(&me, &message.id, time::now_us())?)
}

/// Also of a message that is not to be seen any more; of one that is neither seen nor starred nothing is known.
pub fn unstar(id: &str) -> Result<(), Error> {
    let me = caller()?.user_id;
    if !marks::unstar(&me, id)? {
        seen_by(&me, id)?;
    }
    Ok(())
}

/// The one starred last first. A page leaves out what the caller does not see any more, and may be short for that.
pub fn list(request: &PageRequest) -> Result<Messages, Error> {
    let me = caller()?.user_id;
    let page = Page::<(u64, Id)>::new(request.limit, request.cursor.as_deref())?;
    let before = page.after.clone().map_or_else(|| (LAST_KEY.0, LAST_KEY.1.to_owned()), |(at, Id(id))| (at, id));
    let (rows, next_cursor) = page.finish(marks::starred(&me, &before, page.fetch())?, |(id, at)| (*at, Id(id.clone())));
    let ids: Vec<String> = rows.into_iter().map(|(id, _)| id).collect();
    let mut seen = messages::visible_among(&me, &ids, time::now_us())?;
    seen.retain(|message| message.deleted_at.is_none());
    seen.sort_by_key(|message| ids.iter().position(|id| *id == message.id));
    Ok(Messages { items: seen, next_cursor })
}
