//! Messages that disappear, and those of conversations that were ended: emptied at their time by a schedule, with all that was pushed of them.

use echo_sdk::sql::transaction;
use echo_sdk::wit::context;
use echo_sdk::{Error, Timestamp, time};

use crate::bounds::{EXPIRED_AT_ONCE, EXPIRING_TIME_LEFT_MS};
use crate::changes::{announce_deleted, announce_ended};
use crate::store::messages;

/// One run of the schedule. What it does not manage, the next one does.
pub fn expire() -> Result<(), Error> {
    loop {
        let now = time::now_us();
        let emptied = transaction(|tx| {
            let expired = messages::take_expired(tx, now, EXPIRED_AT_ONCE)?;
            announce_deleted(tx, &expired, &[], now)?;
            Ok::<_, Error>(expired.len())
        })?;
        if context::remaining_ms() < EXPIRING_TIME_LEFT_MS {
            return Ok(());
        }
        if (emptied as i64) < EXPIRED_AT_ONCE {
            break;
        }
    }
    while context::remaining_ms() >= EXPIRING_TIME_LEFT_MS {
        let now = time::now_us();
        let is_over = transaction(|tx| {
            let Some(ended) = messages::take_ended(tx, now, EXPIRED_AT_ONCE)? else { return Ok::<_, Error>(true) };
            announce_ended(tx, &ended, now)?;
            Ok(false)
        })?;
        if is_over {
            break;
        }
    }
    Ok(())
}

/// When a message sent at this time disappears.
pub fn time_after(seconds: Option<u32>, sent_at: Timestamp) -> Option<Timestamp> {
    seconds.map(|seconds| sent_at + u64::from(seconds) * time::SECOND_US)
}
