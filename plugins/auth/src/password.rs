//! Forgotten, reset and changed passwords.

use echo_sdk::sql::Database;
use echo_sdk::wit::tokens;
use echo_sdk::{Error, Transaction, caller, time, transaction};

use crate::bindings::echo::auth::events;
use crate::bindings::exports::echo::auth::api::{ChangePasswordRequest, CodeSent, PhoneRequest, ResetPasswordRequest};
use crate::otp::{self, Code, Purpose};
use crate::settings::Settings;
use crate::store::{self, Account, Ending};
use crate::{lockout, policy, sessions};

pub fn forgot(request: PhoneRequest) -> Result<CodeSent, Error> {
    let settings = Settings::load();
    let known = store::account_by_phone(&Database, &request.phone)?.is_some();
    otp::send_if(known, &settings, &request.phone)
}

pub fn reset(request: ResetPasswordRequest) -> Result<(), Error> {
    let settings = Settings::load();
    policy::check("new_password", &request.new_password, &request.phone)?;
    let code = Code::given(Purpose::Reset, &request.phone, &request.otp)?;
    // Judged first and used up last: between the two, passwords are compared, which takes long and may end in a refusal.
    transaction(|tx| Ok::<_, Error>(otp::try_code(tx, &settings, &request.phone, &code, time::now_us())?))??;
    let account = store::account_by_phone(&Database, &request.phone)?.ok_or_else(otp::invalid)?;
    let new_hash = new_hash(&account, &request.new_password)?;

    let now_us = time::now_us();
    transaction(|tx| {
        if !store::drop_code(tx, Purpose::Reset, &request.phone, &code)? {
            return Err(otp::invalid());
        }
        replace(tx, &account, &new_hash, now_us)?;
        store::forget_failures_of(tx, &account.phone)?;
        sessions::close(tx, &account.id, &Ending::All)?;
        Ok(())
    })?;
    Ok(tokens::revoke_user(&account.id)?)
}

pub fn change(request: ChangePasswordRequest) -> Result<(), Error> {
    let settings = Settings::load();
    let caller = caller()?;
    let account = store::account_by_id(&Database, &caller.user_id)?.ok_or_else(|| Error::not_found("no such account"))?;
    policy::check("new_password", &request.new_password, &account.phone)?;
    // Whoever holds a stolen access token must not have more tries than at the front door.
    lockout::check(&Database, &account.phone, time::now_us())?;
    if !policy::matches(&request.current_password, Some(&account.password_hash))?.matches {
        transaction(|tx| lockout::count(tx, &settings, &account.phone, time::now_us()))?;
        return Err(Error::forbidden("wrong_password", "the current password is wrong"));
    }
    let new_hash = new_hash(&account, &request.new_password)?;

    let now_us = time::now_us();
    let ended = transaction(|tx| {
        replace(tx, &account, &new_hash, now_us)?;
        store::forget_failures_of(tx, &account.phone)?;
        sessions::close(tx, &account.id, &Ending::AllBut(&caller.session_id))
    })?;
    for session in &ended {
        sessions::revoke(session)?;
    }
    Ok(())
}

/// The hash of a new password. Errors: 422 `password_reused` for the current one and those before it.
fn new_hash(account: &Account, new_password: &str) -> Result<String, Error> {
    for old in store::passwords_of(&Database, &account.id, policy::PASSWORDS_REMEMBERED)? {
        if policy::matches(new_password, Some(&old))?.matches {
            return Err(Error::invalid_field("new_password", "password_reused", "one of the last passwords"));
        }
    }
    policy::hash(new_password)
}

fn replace(tx: &Transaction, account: &Account, new_hash: &str, now_us: u64) -> Result<(), Error> {
    if !store::set_password(tx, &account.id, &account.password_hash, new_hash)? {
        return Err(Error::conflict("password_changed", "the password was changed meanwhile"));
    }
    store::remember_password(tx, &account.id, new_hash, now_us)?;
    store::trim_passwords(tx, &account.id, policy::PASSWORDS_REMEMBERED)?;
    events::password_changed(&account.id, &events::PasswordChange { user_id: account.id.clone(), phone: account.phone.clone(), at: now_us })
}
