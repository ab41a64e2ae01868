//! Signing in by an identity provider (OpenID Connect), and the identities that are linked to an account.
//!
//! An account is made by a phone number alone: an identity only opens one that it was linked to before, and number and password always open it too.

mod claims;
mod keys;
mod providers;

use echo_sdk::sql::Database;
use echo_sdk::wit::context::Identity as Caller;
use echo_sdk::wit::{context, passwords};
use echo_sdk::{Error, Transaction, caller, time, transaction};

use crate::bindings::exports::echo::auth::api::{Identities, LoginOutcome, OauthRequest, Tokens};
use crate::clients::{self, Client};
use crate::login::{self, Attempt};
use crate::settings::Settings;
use crate::store::{self, Account, Linked};
use crate::{erasure, lockout, password, sessions, totp};
use claims::Identity;
use providers::Provider;

pub fn sign_in_or_link(request: OauthRequest) -> Result<Tokens, Error> {
    let provider = providers::of_request(&request)?;
    let said = keys::verify(&provider, &request.id_token)?;
    let identity = claims::check(said, &provider, &request.nonce, time::now_us())?;
    match context::caller() {
        Some(caller) => link(&request, &provider, &identity, caller),
        // A client that links with an expired access token must not find itself signed in, and be it to another account.
        None if request.password.is_some() => Err(Error::unauthenticated("unauthenticated", "linking wants an access token that is good")),
        None => sign_in(&request, &provider, &identity),
    }
}

fn sign_in(request: &OauthRequest, provider: &Provider, identity: &Identity) -> Result<Tokens, Error> {
    let settings = Settings::load();
    // Nothing is used up: the person signs in by number and links the identity with this token.
    let account = store::account_of_identity(&Database, &identity.issuer, &identity.subject)?.ok_or_else(not_linked)?;
    let attempt = Attempt::new(&request.device.id, Some(&provider.name));
    let factor = totp::of(&Database, &account.id)?;
    let address = clients::address();
    let counters = match &factor {
        Some(_) => {
            let client = Client::of_device(Some(&account), &request.device.id, &address)?;
            lockout::of_totp(&settings, &account.phone, &client, &address)
        }
        None => Vec::new(),
    };
    if factor.is_some() {
        transaction(|tx| {
            if request.totp.is_none() {
                login::remember(tx, &settings, &account, &attempt, LoginOutcome::TotpRequired)?;
                return Ok(Err(login::totp_required()));
            }
            let admitted = lockout::admit(tx, &counters, attempt.at)?;
            let outcome = if admitted.is_ok() { LoginOutcome::WrongTotp } else { LoginOutcome::Locked };
            login::remember(tx, &settings, &account, &attempt, outcome)?;
            Ok::<_, Error>(admitted)
        })??;
    }
    let opened = transaction(|tx| {
        let now_us = time::now_us();
        take_token(tx, &request.id_token, identity)?;
        // It may have been unlinked meanwhile.
        if !store::use_identity(tx, &account.id, &identity.issuer, &identity.subject, now_us)? {
            return Err(not_linked());
        }
        match (&factor, &request.totp) {
            (Some(factor), Some(code)) => {
                if !factor.take(tx, code, now_us)? {
                    return Err(login::invalid_totp());
                }
                lockout::forgive(tx, &counters)?;
                store::settle_attempt(tx, &attempt.id, LoginOutcome::Succeeded)?;
            }
            _ => login::remember(tx, &settings, &account, &attempt, LoginOutcome::Succeeded)?,
        }
        erasure::take_back(tx, &account.id)?;
        sessions::open(tx, &settings, &account, &request.device, now_us)
    })?;
    Ok(opened.finish())
}

/// Whoever has stolen an access token must not make themselves a way in that outlasts it: the password is wanted.
fn link(request: &OauthRequest, provider: &Provider, identity: &Identity, caller: Caller) -> Result<Tokens, Error> {
    let settings = Settings::load();
    let account = own_account(&caller)?;
    let Some(given) = &request.password else {
        return Err(Error::invalid_field("password", "required", "a signed-in caller links the identity, with the account's password"));
    };
    password::prove(&account, given, &caller.session_id)?;
    transaction(|tx| {
        let now_us = time::now_us();
        take_token(tx, &request.id_token, identity)?;
        let new = store::NewIdentity {
            provider: &provider.name,
            issuer: &identity.issuer,
            subject: &identity.subject,
            email: identity.email.as_deref(),
        };
        match store::link_identity(tx, &account.id, &new, now_us)? {
            Linked::Done => sessions::renew(tx, &settings, &account, &caller.session_id, &caller.device_id, now_us),
            Linked::OfAnother => Err(Error::conflict("identity_taken", "this identity is linked to another account")),
            Linked::Occupied => Err(Error::conflict("provider_linked", "another identity of this provider is linked; unlink it first")),
        }
    })
}

pub fn list() -> Result<Identities, Error> {
    Ok(Identities { items: store::identities_of(&Database, &caller()?.user_id)?, next_cursor: None })
}

/// Locks nobody out: every account has a confirmed number and a password.
pub fn unlink(provider: &str) -> Result<(), Error> {
    let user = caller()?.user_id;
    match transaction(|tx| store::unlink_identity(tx, &user, provider))? {
        true => Ok(()),
        false => Err(Error::not_found("no identity of this provider is linked")),
    }
}

/// Uses up the token. What is signed counts and not the signature: of ES256 there are two for one text.
fn take_token(tx: &Transaction, token: &str, identity: &Identity) -> Result<(), Error> {
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    let fingerprint = passwords::fingerprint(&format!("id-token:{signed}"));
    match store::take_id_token(tx, &fingerprint, identity.refused_from_us)? {
        true => Ok(()),
        false => Err(Error::unauthenticated("id_token_used", "the provider's token was used before: get another one")),
    }
}

fn own_account(caller: &Caller) -> Result<Account, Error> {
    store::account_by_id(&Database, &caller.user_id)?.ok_or_else(|| Error::not_found("no such account"))
}

fn not_linked() -> Error {
    Error::forbidden("oauth_not_linked", "no account is linked to this identity: sign in by number and link it")
}
