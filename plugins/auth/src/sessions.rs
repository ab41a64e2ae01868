//! Sessions of devices, their refresh tokens, and the ways to end them.
//!
//! A session is a family of refresh tokens: each use makes the next one and uses up its own; a second use of one means that a copy is about, and
//! ends the session (RFC 9700 §4.14.2). But within some seconds, and while the next one is unused, it means two tabs or a lost answer, and is exchanged again. What ends a session is committed first and the access tokens are revoked then: a revocation cannot be taken back,
//! and one that fails can be asked for again.

use echo_sdk::sql::{Database, SqlError, Transaction};
use echo_sdk::time::SECOND_US;
use echo_sdk::wit::context;
use echo_sdk::wit::tokens::{self, Claims};
use echo_sdk::{Error, caller, ids, log, time, transaction};

use crate::bindings::echo::auth::events::{self, SessionEnd};
use crate::bindings::exports::echo::auth::api::{Device, RefreshRequest, Session, SessionRequest, Sessions, Tokens, WsTicket};
use crate::secret::{Kind, Secret};
use crate::settings::Settings;
use crate::store::{self, Account, Ending};
use crate::{clients, roles};

/// Of an account: devices, each with an address, that are known to have signed in.
const DEVICES_REMEMBERED: u64 = 100;
/// Sessions that one run of the schedule ends: each account's end is one event, and so many leave a call without waiting.
const EXPIRED_PER_RUN: u64 = 64;

/// What a sign-in left to do after its commit.
pub struct Opened {
    tokens: Tokens,
    /// Sessions that had to go for it.
    replaced: Vec<String>,
}

impl Opened {
    pub fn finish(self) -> Tokens {
        for session in &self.replaced {
            // The sign-in is done; the replaced session has no refresh token any more and its access token ends by itself.
            if let Err(error) = revoke(session) {
                log::warn("a replaced session could not be revoked", &[("session", session), ("reason", &error.code)]);
            }
        }
        self.tokens
    }
}

/// Signs a device in: its old session goes, and the least recently used ones beyond the bound.
pub fn open(tx: &Transaction, settings: &Settings, account: &Account, device: &Device, now_us: u64) -> Result<Opened, Error> {
    let mut replaced = close(tx, &account.id, &Ending::OfDevice(&device.id))?;
    replaced.extend(close(tx, &account.id, &Ending::Expired(now_us))?);
    replaced.extend(close(tx, &account.id, &Ending::AllButNewest(settings.sessions_max.saturating_sub(1)))?);

    let session = Session {
        id: ids::uuid_v7(),
        device: device.clone(),
        place: place(account.region.as_deref(), account.country.as_deref()),
        address: context::client_address(),
        created_at: now_us,
        last_used_at: now_us,
        current: false,
    };
    let refresh = Secret::new(Kind::Refresh);
    let ends_us = now_us + settings.refresh_ttl_s * SECOND_US;
    store::add_session(tx, &account.id, &session, ends_us)?;
    store::add_refresh_token(tx, &refresh.fingerprint, &session.id, None, ends_us)?;
    store::note_device(tx, &account.id, &device.id, &clients::address(), now_us, DEVICES_REMEMBERED)?;
    let tokens = issue(settings, account, &session.id, &device.id, refresh)?;
    Ok(Opened { tokens, replaced })
}

/// A further pair of tokens for a session of the account, whose other refresh token stays good: a client that misses the answer is not signed out.
pub fn renew(tx: &Transaction, settings: &Settings, account: &Account, session: &str, device: &str, now_us: u64) -> Result<Tokens, Error> {
    let next = Secret::new(Kind::Refresh);
    let ends_us = now_us + settings.refresh_ttl_s * SECOND_US;
    if !store::touch_session(tx, session, context::client_address(), now_us, ends_us)? {
        return Err(Error::unauthenticated("token_revoked", "the session has ended"));
    }
    // It comes of the session itself and of no token: of those that nobody uses there is one.
    store::end_unused_successor(tx, session)?;
    store::add_refresh_token(tx, &next.fingerprint, session, Some(session), ends_us)?;
    issue(settings, account, session, device, next)
}

pub fn refresh(request: RefreshRequest) -> Result<Tokens, Error> {
    let settings = Settings::load();
    let given = Secret::given(Kind::Refresh, &request.refresh_token).ok_or_else(refresh_invalid)?;
    let now_us = time::now_us();
    let outcome = transaction(|tx| {
        let Some(kept) = store::refresh_token(tx, &given.fingerprint)? else { return Err(refresh_invalid()) };
        // Used before, or by another request in this very moment: by another tab, or by this client itself, which never got the answer. Its successor
        // then takes the other's place, but only for a moment and while nobody has used that.
        if !store::use_refresh_token(tx, &given.fingerprint, now_us)? && !again(tx, &settings, &given, now_us)? {
            close(tx, &kept.account_id, &Ending::One(&kept.session_id))?;
            return Ok(Refreshed::Reused(kept.session_id));
        }
        if now_us >= kept.expires_at {
            return Err(Error::unauthenticated("refresh_expired", "the session is over; sign in again"));
        }
        let next = Secret::new(Kind::Refresh);
        let ends_us = now_us + settings.refresh_ttl_s * SECOND_US;
        store::forget_refresh_tokens(tx, &kept.session_id, now_us)?;
        store::add_refresh_token(tx, &next.fingerprint, &kept.session_id, Some(&given.fingerprint), ends_us)?;
        store::note_device(tx, &kept.account_id, &kept.device_id, &clients::address(), now_us, DEVICES_REMEMBERED)?;
        store::touch_session(tx, &kept.session_id, context::client_address(), now_us, ends_us)?;
        let account = store::account_by_id(tx, &kept.account_id)?.ok_or_else(refresh_invalid)?;
        Ok(Refreshed::Anew(issue(&settings, &account, &kept.session_id, &kept.device_id, next)?))
    })?;
    match outcome {
        Refreshed::Anew(tokens) => Ok(tokens),
        Refreshed::Reused(session) => {
            log::warn("a refresh token was used twice; its session was ended", &[("session", &session)]);
            revoke(&session)?;
            Err(Error::unauthenticated("refresh_reused", "this refresh token was used before; the session was ended"))
        }
    }
}

/// Whether a used token may be exchanged once more; its unused successor ends with it.
fn again(tx: &Transaction, settings: &Settings, used: &Secret, now_us: u64) -> Result<bool, SqlError> {
    let used_at = store::refresh_token_used_at(tx, &used.fingerprint)?.unwrap_or_default();
    Ok(now_us < used_at + settings.refresh_grace_s * SECOND_US && store::end_unused_successor(tx, &used.fingerprint)?)
}

pub fn logout() -> Result<(), Error> {
    let caller = caller()?;
    transaction(|tx| close(tx, &caller.user_id, &Ending::One(&caller.session_id)))?;
    revoke(&caller.session_id)
}

pub fn logout_all() -> Result<(), Error> {
    let caller = caller()?;
    transaction(|tx| close(tx, &caller.user_id, &Ending::All))?;
    Ok(tokens::revoke_user(&caller.user_id)?)
}

pub fn list() -> Result<Sessions, Error> {
    Ok(Sessions { items: of_caller(time::now_us())?, next_cursor: None })
}

/// The live ones, with the caller's own marked.
pub fn of_caller(now_us: u64) -> Result<Vec<Session>, Error> {
    let caller = caller()?;
    let mut sessions = store::sessions_of(&Database, &caller.user_id, now_us)?;
    for session in &mut sessions {
        session.current = session.id == caller.session_id;
    }
    Ok(sessions)
}

pub fn end(request: SessionRequest) -> Result<(), Error> {
    let caller = caller()?;
    if transaction(|tx| close(tx, &caller.user_id, &Ending::One(&request.id)))?.is_empty() {
        return Err(Error::not_found("no such session"));
    }
    revoke(&request.id)
}

pub fn issue_ws_ticket() -> Result<WsTicket, Error> {
    let caller = caller()?;
    let claims = Claims { user_id: caller.user_id, device_id: caller.device_id, session_id: caller.session_id, roles: caller.roles };
    let ticket = tokens::socket_ticket(&claims)?;
    Ok(WsTicket { ticket: ticket.ticket, expires_in: ticket.expires_in })
}

/// One run of the schedule. Their access tokens ended long before.
pub fn end_expired() -> Result<(), Error> {
    let now_us = time::now_us();
    for account in store::accounts_with_expired_sessions(&Database, now_us, EXPIRED_PER_RUN)? {
        transaction(|tx| close(tx, &account, &Ending::Expired(now_us)))?;
    }
    Ok(())
}

/// Ends sessions and announces it in the same transaction: whatever belongs to a session ends with it. Every ending goes through here.
pub fn close(tx: &Transaction, account: &str, which: &Ending) -> Result<Vec<String>, Error> {
    let ended = store::end_sessions(tx, account, which)?;
    if !ended.is_empty() {
        events::session_ended(account, &SessionEnd { user_id: account.to_owned(), session_ids: ended.clone() })?;
    }
    Ok(ended)
}

/// Ends access tokens and sockets of a session that is no more.
pub fn revoke(session: &str) -> Result<(), Error> {
    Ok(tokens::revoke_session(session)?)
}

enum Refreshed {
    Anew(Tokens),
    Reused(String),
}

fn issue(settings: &Settings, account: &Account, session: &str, device: &str, refresh: Secret) -> Result<Tokens, Error> {
    let claims = Claims {
        user_id: account.id.clone(),
        device_id: device.to_owned(),
        session_id: session.to_owned(),
        roles: roles::of_number(&settings.roles, &account.phone),
    };
    let access = tokens::sign(&claims)?;
    Ok(Tokens {
        access_token: access.token,
        refresh_token: refresh.text,
        token_type: "Bearer".to_owned(),
        expires_in: access.expires_in,
        refresh_expires_in: u32::try_from(settings.refresh_ttl_s).unwrap_or(u32::MAX),
        user_id: account.id.clone(),
        session_id: session.to_owned(),
        device_id: device.to_owned(),
    })
}

fn refresh_invalid() -> Error {
    Error::unauthenticated("refresh_invalid", "not a refresh token of a live session")
}

/// As far as the number says it.
fn place(region: Option<&str>, country: Option<&str>) -> Option<String> {
    match (region, country) {
        (Some(region), Some(country)) => Some(format!("{region}, {country}")),
        (region, country) => region.or(country).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_as_far_as_it_is_known() {
        assert_eq!(place(Some("California"), Some("US")).as_deref(), Some("California, US"));
        assert_eq!(place(None, Some("IN")).as_deref(), Some("IN"));
        assert_eq!(place(None, None), None);
    }
}
