//! Files that go with a message or with their owner's account.

use echo_sdk::sql::Database;
use echo_sdk::wit::context;
use echo_sdk::{Error, exports};

use crate::bindings::echo::message::api as message;
use crate::bounds::{DELETED_AT_ONCE, DELETING_TIME_LEFT_MS};
use crate::{store, uploads};

/// Of messages that were deleted or have disappeared: those that no other message has, sent or to be sent.
pub fn of_messages<'a>(ids: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    for id in ids {
        let Some(row) = store::media(id)? else { continue };
        let request = message::MediaUseRequest { media_id: id.to_owned() };
        if !message::media_use(&request)?.used {
            uploads::remove(id, row.blob.as_deref())?;
        }
        in_time()?;
    }
    Ok(())
}

/// Does what it has time for; the event comes again until nothing is left to do.
pub fn of_person(owner_id: &str) -> Result<(), Error> {
    loop {
        let files = store::some_of(owner_id, DELETED_AT_ONCE)?;
        if files.is_empty() {
            return Ok(exports::close(&Database, owner_id)?);
        }
        for (id, blob) in files {
            uploads::remove(&id, blob.as_deref())?;
            in_time()?;
        }
    }
}

fn in_time() -> Result<(), Error> {
    if context::remaining_ms() < DELETING_TIME_LEFT_MS {
        return Err(Error::unavailable("there is more to delete than one call does"));
    }
    Ok(())
}
