//! What is over is removed, a bounded number of rows in each run of the schedule: registrations, codes, counters, used ID Tokens,
//! second factors and accounts that nobody confirmed, exports, the history of sign-ins, devices that were not seen for long.

use echo_sdk::sql::SqlError;
use echo_sdk::time::{DAY_US, SECOND_US};
use echo_sdk::{Error, Transaction, time, transaction};

use crate::settings::Settings;
use crate::{store, totp};

/// Rows of a table that one run removes; the next run goes on.
const ROWS_PER_RUN: u64 = 500;

/// One run of the schedule.
pub fn clear_away() -> Result<(), Error> {
    let settings = Settings::load();
    let now_us = time::now_us();
    let ago_us = |seconds: u64| now_us.saturating_sub(seconds * SECOND_US);
    // A transaction each: nobody who signs in waits for all of them.
    let run = |work: &dyn Fn(&Transaction) -> Result<(), SqlError>| transaction(|tx| work(tx));
    run(&|tx| store::forget_registrations(tx, now_us, ROWS_PER_RUN))?;
    // A code that has just ended is still answered as one that is too old.
    run(&|tx| store::forget_resets(tx, ago_us(settings.otp_ttl_s), ROWS_PER_RUN))?;
    run(&|tx| store::forget_id_tokens(tx, now_us, ROWS_PER_RUN))?;
    run(&|tx| store::forget_guesses(tx, now_us.saturating_sub(DAY_US), now_us, ROWS_PER_RUN))?;
    run(&|tx| store::forget_code_counts(tx, now_us.saturating_sub(2 * DAY_US), ROWS_PER_RUN))?;
    run(&|tx| store::forget_devices(tx, ago_us(settings.known_devices_s), ROWS_PER_RUN))?;
    run(&|tx| store::forget_unverified_accounts(tx, ago_us(settings.unverified_accounts_s), ROWS_PER_RUN))?;
    run(&|tx| store::forget_unconfirmed_factors(tx, ago_us(totp::CONFIRM_S), ROWS_PER_RUN))?;
    run(&|tx| store::forget_what_is_counted_no_more(tx, now_us.saturating_sub(2 * DAY_US)))?;
    run(&|tx| store::forget_exports(tx, now_us, ROWS_PER_RUN))?;
    run(&|tx| store::forget_old_attempts(tx, ago_us(settings.login_history_s), ROWS_PER_RUN))?;
    Ok(())
}
