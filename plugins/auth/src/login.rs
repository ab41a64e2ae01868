//! Signing in with number and password, and the history of it.

use echo_sdk::sql::Database;
use echo_sdk::time::DAY_US;
use echo_sdk::wit::context;
use echo_sdk::{Error, Id, Page, caller, ids, time, transaction};

use crate::bindings::exports::echo::auth::api::{LoginAttempt, LoginHistory, LoginHistoryRequest, LoginOutcome, LoginRequest, Tokens};
use crate::settings::Settings;
use crate::store::{self, Account};
use crate::{lockout, policy, sessions};

/// How long sign-ins are remembered, in days, and how many of an account.
const HISTORY_DAYS: u64 = 90;
const HISTORY_ENTRIES_MAX: u64 = 500;

pub fn login(request: LoginRequest) -> Result<Tokens, Error> {
    let settings = Settings::load();
    sessions::check_device(&request.device)?;
    let account = store::account_by_phone(&Database, &request.phone)?;
    let note = |outcome| Attempt { outcome, device_id: &request.device.id };
    if let Err(locked) = lockout::check(&Database, &request.phone, time::now_us()) {
        if let Some(account) = &account {
            transaction(|tx| remember(tx, account, &note(LoginOutcome::Locked), time::now_us()))?;
        }
        return Err(locked);
    }

    // Without an account the same work is done, so that an unknown number takes as long as a wrong password.
    let registered = match &account {
        Some(_) => None,
        None => store::password_of_registration(&Database, &request.phone, context::client_address().as_deref(), time::now_us())?,
    };
    let stored = account.as_ref().map(|account| account.password_hash.as_str()).or(registered.as_deref());
    let verdict = policy::matches(&request.password, stored)?;
    let now_us = time::now_us();
    if !verdict.matches {
        transaction(|tx| {
            lockout::count(tx, &settings, &request.phone, now_us)?;
            match &account {
                Some(account) => remember(tx, account, &note(LoginOutcome::WrongPassword), now_us),
                None => Ok(()),
            }
        })?;
        return Err(invalid_credentials());
    }
    let Some(account) = &account else {
        transaction(|tx| store::forget_failures_of(tx, &request.phone))?;
        return Err(Error::forbidden("phone_unverified", "confirm the number with the code that was sent to it"));
    };
    // Hashed before the transaction: it takes long, and the writer is one for all.
    let stronger = if verdict.needs_rehash { Some(policy::hash(&request.password)?) } else { None };

    let opened = transaction(|tx| {
        // Others may have failed, or the password may have changed, while this one was checked.
        lockout::check(tx, &request.phone, now_us)?;
        let hash_now = stronger.as_deref().unwrap_or(&account.password_hash);
        if !store::swap_password(tx, &account.id, &account.password_hash, hash_now)? {
            return Err(invalid_credentials());
        }
        store::forget_failures_of(tx, &request.phone)?;
        remember(tx, account, &note(LoginOutcome::Succeeded), now_us)?;
        sessions::open(tx, &settings, account, &request.device, now_us)
    })?;
    Ok(opened.finish())
}

pub fn history(request: LoginHistoryRequest) -> Result<LoginHistory, Error> {
    let user = caller()?.user_id;
    let page = Page::<(u64, Id)>::new(request.limit, request.cursor.as_deref())?;
    let found = store::attempts_of(&Database, &user, &page)?;
    let (found, next_cursor) = page.finish(found, |(id, attempt)| (attempt.at, Id(id.clone())));
    Ok(LoginHistory { items: found.into_iter().map(|(_, attempt)| attempt).collect(), next_cursor })
}

fn invalid_credentials() -> Error {
    Error::unauthenticated("invalid_credentials", "the number or the password is wrong")
}

struct Attempt<'a> {
    outcome: LoginOutcome,
    device_id: &'a str,
}

fn remember(tx: &echo_sdk::Transaction, account: &Account, attempt: &Attempt, now_us: u64) -> Result<(), Error> {
    let entry = LoginAttempt {
        at: now_us,
        outcome: attempt.outcome,
        device_id: attempt.device_id.to_owned(),
        address: context::client_address(),
        user_agent: context::user_agent(),
    };
    store::add_attempt(tx, &ids::uuid_v7(), &account.id, &entry)?;
    store::forget_attempts(tx, &account.id, now_us.saturating_sub(HISTORY_DAYS * DAY_US), HISTORY_ENTRIES_MAX)?;
    Ok(())
}
