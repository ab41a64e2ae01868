//! The end of an account: deleted first, so that its owner can have it back by signing in, and erased after a while, here and in other services.

use echo_sdk::sql::Database;
use echo_sdk::time::SECOND_US;
use echo_sdk::wit::tokens;
use echo_sdk::{Error, Transaction, caller, time, transaction};

use crate::bindings::echo::user::events as user_events;
use crate::sessions;
use crate::settings::Settings;
use crate::store::{self, Ending};

/// Accounts that one run of the schedule erases; the next run goes on.
const ERASED_PER_RUN: u64 = 16;

pub fn delete() -> Result<(), Error> {
    let user = caller()?.user_id;
    let now_us = time::now_us();
    transaction(|tx| {
        if store::mark_deleted(tx, &user, now_us)? {
            state_changed(&user, true, now_us)?;
        }
        sessions::close(tx, &user, &Ending::All)
    })?;
    Ok(tokens::revoke_user(&user)?)
}

/// Whoever deleted the account and signs in before it is erased has it back.
pub fn take_back(tx: &Transaction, user: &str) -> Result<(), Error> {
    match store::unmark_deleted(tx, user)? {
        true => state_changed(user, false, time::now_us()),
        false => Ok(()),
    }
}

fn state_changed(user: &str, deleted: bool, at: u64) -> Result<(), Error> {
    user_events::state_changed(user, &user_events::StateChange { user_id: user.to_owned(), deleted, at })
}

/// One run of the schedule.
pub fn erase_due() -> Result<(), Error> {
    let now_us = time::now_us();
    let deleted_before_us = now_us.saturating_sub(Settings::load().erasure_delay_s * SECOND_US);
    for (id, phone) in store::accounts_to_erase(&Database, deleted_before_us, ERASED_PER_RUN)? {
        transaction(|tx| {
            // Its owner may have signed in meanwhile.
            if !store::erase_account(tx, &id, &phone, deleted_before_us)? {
                return Ok::<_, Error>(());
            }
            user_events::deleted(&id, &user_events::Deletion { user_id: id.clone(), phone: phone.clone(), at: now_us })
        })?;
    }
    Ok(())
}
