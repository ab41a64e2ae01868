//! Forgotten, reset and changed passwords.

use echo_sdk::sql::Database;
use echo_sdk::wit::passwords::Standing;
use echo_sdk::wit::tokens;
use echo_sdk::{Error, Transaction, caller, time, transaction};

use crate::bindings::echo::auth::events;
use crate::bindings::exports::echo::auth::api::{ChangePasswordRequest, PhoneRequest, ResetPasswordRequest, ResetSent};
use crate::clients::{self, Client};
use crate::otp::{self, Code, Purpose};
use crate::secret::{Kind, Secret};
use crate::settings::Settings;
use crate::store::{self, Account, Ending};
use crate::{lockout, numbers, policy, quotas, sessions};

pub fn forgot(request: PhoneRequest) -> Result<ResetSent, Error> {
    let settings = Settings::load();
    numbers::check_served(&request.phone, &settings)?;
    let account = store::account_by_phone(&Database, &request.phone)?;
    let address = clients::address();
    let secret = Secret::new(Kind::Reset);
    let code = Code::new(Purpose::Reset, &request.phone);
    let now_us = time::now_us();
    // What this client asks too often it is told, for every number alike. Where nothing is sent, as nobody has the number or others have asked for too
    // many codes, it looks the same: the request is there, is tried and ends as any, and no code fits it.
    transaction(|tx| {
        quotas::take(tx, &quotas::of_reset_request(&settings, &request.phone, &address), now_us)??;
        let sends = match &account {
            Some(account) => {
                let address_known = store::address_known(tx, &account.id, &address)?;
                quotas::take(tx, &quotas::of_reset_code(&settings, &request.phone, &address, address_known), now_us)?.is_ok()
            }
            None => false,
        };
        store::add_reset(tx, &secret.fingerprint, &request.phone, sends.then_some(&code), otp::ends_us(&settings, now_us))?;
        if sends { otp::send(&settings, &request.phone, &code, now_us) } else { Ok::<_, Error>(()) }
    })?;
    let sent = otp::sent(&settings);
    Ok(ResetSent { reset_id: secret.text, otp_expires_in: sent.otp_expires_in, resend_after: sent.resend_after })
}

pub fn reset(request: ResetPasswordRequest) -> Result<(), Error> {
    let settings = Settings::load();
    policy::check("new_password", &request.new_password, &request.phone)?;
    let code = Code::given(Purpose::Reset, &request.phone, &request.otp);
    let account = store::account_by_phone(&Database, &request.phone)?;
    // Judged first and used up last: between the two, passwords are compared, which takes long and may end in a refusal.
    transaction(|tx| match request.reset_id.as_deref() {
        Some(secret) => try_own_code(tx, &settings, &request.phone, secret, &code),
        None => try_any_code(tx, &settings, &request.phone, account.as_ref(), &code),
    })??;
    let account = account.ok_or_else(otp::invalid)?;
    let new_hash = new_hash(&account, &request.new_password)?;

    let now_us = time::now_us();
    transaction(|tx| {
        if !store::end_resets(tx, &request.phone, &code)? {
            return Err(otp::invalid());
        }
        replace(tx, &account, &new_hash, now_us)?;
        lockout::forget(tx, &account.phone)?;
        sessions::close(tx, &account.id, &Ending::All)?;
        Ok(())
    })?;
    Ok(tokens::revoke_user(&account.id)?)
}

/// The code of the client's own request, which has tries of its own. The inner error is for the client and must not undo the count.
fn try_own_code(tx: &Transaction, settings: &Settings, phone: &str, secret: &str, code: &Code) -> Result<Result<(), Error>, Error> {
    let Some(secret) = Secret::given(Kind::Reset, secret) else { return Ok(Err(otp::invalid())) };
    let kept = store::try_reset(tx, &secret.fingerprint, phone)?;
    Ok(otp::judge(kept.as_ref(), code, settings, time::now_us()))
}

/// Any code that was sent to the number, by a client that does not say which request is its own.
fn try_any_code(
    tx: &Transaction,
    settings: &Settings,
    phone: &str,
    account: Option<&Account>,
    code: &Code,
) -> Result<Result<(), Error>, Error> {
    let (address, now_us) = (clients::address(), time::now_us());
    let address_known = match account {
        Some(account) => store::address_known(tx, &account.id, &address)?,
        None => false,
    };
    let counters = lockout::of_reset(settings, phone, &address, address_known);
    if let Err(locked) = lockout::admit(tx, &counters, now_us)? {
        return Ok(Err(locked));
    }
    let kept = store::reset_code(tx, phone, code)?;
    let verdict = otp::judge(kept.as_ref(), code, settings, now_us);
    if verdict.is_ok() {
        lockout::forgive(tx, &counters)?;
    }
    Ok(verdict)
}

pub fn change(request: ChangePasswordRequest) -> Result<(), Error> {
    let caller = caller()?;
    let account = store::account_by_id(&Database, &caller.user_id)?.ok_or_else(|| Error::not_found("no such account"))?;
    policy::check("new_password", &request.new_password, &account.phone)?;
    prove(&account, &request.current_password, &caller.session_id)?;
    let new_hash = new_hash(&account, &request.new_password)?;

    let now_us = time::now_us();
    let ended = transaction(|tx| {
        replace(tx, &account, &new_hash, now_us)?;
        sessions::close(tx, &account.id, &Ending::AllBut(&caller.session_id))
    })?;
    for session in &ended {
        sessions::revoke(session)?;
    }
    Ok(())
}

/// Whoever holds a stolen access token must not have more tries than at the front door; and no stranger there takes them from the owner's sessions.
/// Errors: 403 `wrong_password`, 423 `account_locked` after some in this session.
pub fn prove(account: &Account, given: &str, session: &str) -> Result<(), Error> {
    let client = Client::Session(session.to_owned());
    let counters = lockout::of_password(&Settings::load(), &account.phone, &client, &clients::address());
    transaction(|tx| lockout::admit(tx, &counters, time::now_us()))??;
    match policy::matches(given, Some(&account.password_hash), client.standing()) {
        Ok(verdict) if verdict.matches => Ok(transaction(|tx| lockout::forgive(tx, &counters))?),
        Ok(_) => Err(Error::forbidden("wrong_password", "the current password is wrong")),
        Err(error) => {
            transaction(|tx| lockout::give_back(tx, &counters))?;
            Err(error)
        }
    }
}

/// The hash of a new password. Errors: 422 `password_reused` for the current one and those before it.
fn new_hash(account: &Account, new_password: &str) -> Result<String, Error> {
    for old in store::passwords_of(&Database, &account.id, policy::PASSWORDS_REMEMBERED)? {
        if policy::matches(new_password, Some(&old), Standing::Known)?.matches {
            return Err(Error::invalid_field("new_password", "password_reused", "one of the last passwords"));
        }
    }
    policy::hash(new_password, Standing::Known)
}

fn replace(tx: &Transaction, account: &Account, new_hash: &str, now_us: u64) -> Result<(), Error> {
    if !store::set_password(tx, &account.id, &account.password_hash, new_hash)? {
        return Err(Error::conflict("password_changed", "the password was changed meanwhile"));
    }
    store::remember_password(tx, &account.id, new_hash, now_us)?;
    store::trim_passwords(tx, &account.id, policy::PASSWORDS_REMEMBERED)?;
    events::password_changed(&account.id, &events::PasswordChange { user_id: account.id.clone(), phone: account.phone.clone(), at: now_us })
}
