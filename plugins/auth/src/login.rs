//! Signing in with number and password, and the history of it.

use echo_sdk::sql::Database;
use echo_sdk::time::SECOND_US;
use echo_sdk::wit::context;
use echo_sdk::wit::passwords::Standing;
use echo_sdk::{Error, Id, Page, Transaction, caller, ids, time, transaction};

use crate::bindings::exports::echo::auth::api::{LoginAttempt, LoginHistory, LoginHistoryRequest, LoginOutcome, LoginRequest, Tokens};
use crate::clients::{self, Client};
use crate::lockout::Counter;
use crate::settings::Settings;
use crate::store::{self, Account};
use crate::{erasure, lockout, policy, sessions, totp};

/// How many sign-ins of an account are remembered: so many that succeeded, and so many that did not, as strangers can make any number of these.
const HISTORY_ENTRIES_MAX: u64 = 250;

pub fn login(request: LoginRequest) -> Result<Tokens, Error> {
    let settings = Settings::load();
    let address = clients::address();
    let account = store::account_by_phone(&Database, &request.phone)?;
    let client = Client::of_device(account.as_ref(), &request.device.id, &address)?;
    let counters = lockout::of_password(&settings, &request.phone, &client, &address);
    let attempt = Attempt::new(&request.device.id, None);
    // Counted and noted as wrong before anybody looks: many at once are not all looked at, and a wrong one costs no second commit, which an unknown
    // number would not have.
    transaction(|tx| {
        let admitted = lockout::admit(tx, &counters, attempt.at)?;
        if let Some(account) = &account {
            let outcome = if admitted.is_ok() { LoginOutcome::WrongPassword } else { LoginOutcome::Locked };
            remember(tx, &settings, account, &attempt, outcome)?;
        }
        Ok::<_, Error>(admitted)
    })??;

    // Without an account the same work is done, so that an unknown number takes as long as a wrong password.
    let registered = match &account {
        Some(_) => None,
        None => store::password_of_registration(&Database, &request.phone, context::client_address().as_deref(), time::now_us())?,
    };
    let stored = account.as_ref().map(|account| account.password_hash.as_str()).or(registered.as_deref());
    let verdict = match policy::matches(&request.password, stored, client.standing()) {
        Ok(verdict) => verdict,
        Err(error) => {
            transaction(|tx| {
                store::forget_attempt(tx, &attempt.id)?;
                lockout::give_back(tx, &counters)
            })?;
            return Err(error);
        }
    };
    if !verdict.matches {
        return Err(invalid_credentials());
    }
    let Some(account) = &account else {
        transaction(|tx| lockout::forgive(tx, &counters))?;
        return Err(Error::forbidden("phone_unverified", "confirm the number with the code that was sent to it"));
    };
    let factor = totp::of(&Database, &account.id)?;
    if factor.is_some() {
        try_second_factor(&settings, account, &client, &address, &attempt, &counters, request.totp.is_some())?;
    }
    // Hashed before the transaction: it takes long, and the writer is one for all. It can wait for another sign-in.
    let stronger = if verdict.needs_rehash { policy::hash(&request.password, Standing::Known).ok() } else { None };

    let opened = transaction(|tx| {
        // The password may have changed while this one was checked.
        let hash_now = stronger.as_deref().unwrap_or(&account.password_hash);
        if !store::swap_password(tx, &account.id, &account.password_hash, hash_now)? {
            return Err(invalid_credentials());
        }
        if let (Some(factor), Some(code)) = (&factor, &request.totp) {
            // Used up with the sign-in alone.
            if !factor.take(tx, code, time::now_us())? {
                return Err(invalid_totp());
            }
            lockout::forgive(tx, &lockout::of_totp(&settings, &account.phone, &client, &address))?;
        } else {
            lockout::forgive(tx, &counters)?;
        }
        store::settle_attempt(tx, &attempt.id, LoginOutcome::Succeeded)?;
        erasure::take_back(tx, &account.id)?;
        sessions::open(tx, &settings, account, &request.device, time::now_us())
    })?;
    Ok(opened.finish())
}

/// After the right password: a code is wanted, and a try at it is counted as wrong before anybody looks. Errors: 401 `totp_required`, 423
/// `account_locked`.
fn try_second_factor(
    settings: &Settings,
    account: &Account,
    client: &Client,
    address: &str,
    attempt: &Attempt,
    passwords: &[Counter],
    code_given: bool,
) -> Result<(), Error> {
    let codes = lockout::of_totp(settings, &account.phone, client, address);
    transaction(|tx| {
        // The password was right.
        lockout::forgive(tx, passwords)?;
        if !code_given {
            store::settle_attempt(tx, &attempt.id, LoginOutcome::TotpRequired)?;
            return Ok(Err(totp_required()));
        }
        store::settle_attempt(tx, &attempt.id, LoginOutcome::WrongTotp)?;
        Ok::<_, Error>(lockout::admit(tx, &codes, attempt.at)?)
    })?
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

pub fn totp_required() -> Error {
    Error::unauthenticated("totp_required", "the account has a second factor: send a code of it as `totp`")
}

pub fn invalid_totp() -> Error {
    Error::unauthenticated("invalid_totp", "not a code of the second factor that is good now")
}

/// A sign-in that is tried now.
pub struct Attempt<'a> {
    pub id: String,
    device_id: &'a str,
    /// The identity provider that vouches; none where a password is given.
    provider: Option<&'a str>,
    pub at: u64,
}

impl<'a> Attempt<'a> {
    pub fn new(device_id: &'a str, provider: Option<&'a str>) -> Self {
        Self { id: ids::uuid_v7(), device_id, provider, at: time::now_us() }
    }
}

/// Of those that a lock turned away one stands for all, or they would push everything else out.
pub fn remember(tx: &Transaction, settings: &Settings, account: &Account, attempt: &Attempt, outcome: LoginOutcome) -> Result<(), Error> {
    let lock_began_us = attempt.at.saturating_sub(settings.lockout_s * SECOND_US);
    if outcome == LoginOutcome::Locked && store::locked_attempts_since(tx, &account.id, lock_began_us)? > 0 {
        return Ok(());
    }
    let entry = LoginAttempt {
        at: attempt.at,
        outcome,
        device_id: attempt.device_id.to_owned(),
        address: context::client_address(),
        user_agent: context::user_agent(),
        provider: attempt.provider.map(str::to_owned),
    };
    store::add_attempt(tx, &attempt.id, &account.id, &entry)?;
    let before_us = attempt.at.saturating_sub(settings.login_history_s * SECOND_US);
    store::forget_attempts(tx, &account.id, before_us, HISTORY_ENTRIES_MAX)?;
    Ok(())
}
