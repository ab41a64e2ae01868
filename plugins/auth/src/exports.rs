//! Account exports (GDPR, articles 15 and 20): a person asks for all that is kept of them, and reads it for a while.
//!
//! Nothing of an export is kept. A request is a row, here and in each service that takes part; a page is read from the services' tables when it is asked
//! for. So what was deleted, has disappeared or was erased is in no export from that moment on, and none has to be looked for and rewritten. Which
//! services take part, and where their parts are read, are settings: nothing of what they keep is known here.

use echo_sdk::sql::{Database, Transaction};
use echo_sdk::time::SECOND_US;
use echo_sdk::{Error, Id, Page, caller, ids, time, transaction};

use crate::bindings::echo::account_export::events::{self, Request};
use crate::bindings::exports::echo::account_export::events::PreparedPart;
use crate::bindings::exports::echo::auth::api::{AccountExport, AccountRequest, ExportPageRequest, ExportPart, ExportState, ExportStatus};
use crate::settings::Settings;
use crate::store::{self, Export};
use crate::{accounts, sessions};

/// Exports for which one run of the schedule asks again; the next run goes on.
const RENEWED_PER_RUN: u64 = 16;

pub fn request() -> Result<ExportStatus, Error> {
    let user = caller()?.user_id;
    let settings = Settings::load();
    let now_us = time::now_us();
    let new = Export {
        account_id: user.clone(),
        id: ids::uuid_v7(),
        requested_at: now_us,
        expires_at: now_us + settings.export_ttl_s * SECOND_US,
        ready_at: None,
    };
    let export = transaction(|tx| {
        if store::begin_export(tx, &new, now_us.saturating_sub(settings.export_pause_s * SECOND_US))? {
            publish(&new)?;
            return Ok(new.clone());
        }
        let before = store::export_of(tx, &user, now_us)?.ok_or_else(none)?;
        match before.ready_at {
            // It is asked for again while it is being prepared, by another device or after a lost answer.
            None => Ok(before),
            Some(_) => {
                let pause_ends_us = before.requested_at + settings.export_pause_s * SECOND_US;
                let wait_ms = pause_ends_us.saturating_sub(now_us).div_ceil(1_000);
                Err(Error::rate_limited(
                    "too_soon",
                    "the last export was asked for too short a time ago; Retry-After says when another can be",
                    wait_ms,
                ))
            }
        }
    })?;
    status(&settings, &export)
}

pub fn read(request: &ExportPageRequest) -> Result<AccountExport, Error> {
    let user = caller()?.user_id;
    let settings = Settings::load();
    let page = Page::<(u64, Id)>::new(request.limit, request.cursor.as_deref())?;
    let now_us = time::now_us();
    let export = store::export_of(&Database, &user, now_us)?.ok_or_else(none)?;
    let ExportStatus { id, state, requested_at, expires_at, parts, missing } = status(&settings, &export)?;
    let (account, has_second_factor, sessions, identities) = match page.after {
        Some(_) => (None, None, Vec::new(), Vec::new()),
        None => (
            Some(accounts::get(AccountRequest { user_id: user.clone() })?),
            Some(store::factor_of(&Database, &user)?.is_some()),
            sessions::of_caller(now_us)?,
            store::identities_of(&Database, &user)?,
        ),
    };
    // A sign-in that came later is before the first of them: the newest come first.
    let first = page.after.clone().unwrap_or_else(|| (export.requested_at, Id(store::LAST_ID.to_owned())));
    let found = store::attempts_of(&Database, &user, &Page { limit: page.limit, after: Some(first) })?;
    let (found, next_cursor) = page.finish(found, |(id, attempt)| (attempt.at, Id(id.clone())));
    let logins = found.into_iter().map(|(_, attempt)| attempt).collect();
    Ok(AccountExport {
        id,
        state,
        requested_at,
        expires_at,
        parts,
        missing,
        account,
        has_second_factor,
        sessions,
        identities,
        logins,
        next_cursor,
    })
}

/// A service says that its part can be read; again changes nothing, and of an export that is over nothing is noted.
pub fn prepared(event: &PreparedPart) -> Result<(), Error> {
    let settings = Settings::load();
    if !settings.export_parts.iter().any(|(name, _)| *name == event.name) {
        return Ok(());
    }
    transaction(|tx| {
        store::note_part(tx, &event.user_id, &event.export_id, &event.name, event.at)?;
        close_if_whole(tx, &settings, &event.user_id)
    })
}

/// One run of the schedule: a service that was away, or that lost what it knew, is asked again.
pub fn renew() -> Result<(), Error> {
    let settings = Settings::load();
    let now_us = time::now_us();
    let asked_before_us = now_us.saturating_sub(settings.export_retry_s * SECOND_US);
    for export in store::exports_to_renew(&Database, asked_before_us, now_us, RENEWED_PER_RUN)? {
        transaction(|tx| {
            store::note_asked(tx, &export.account_id, &export.id, now_us)?;
            // The operator may have taken a part out of the settings.
            close_if_whole(tx, &settings, &export.account_id)?;
            publish(&export)
        })?;
    }
    Ok(())
}

fn publish(export: &Export) -> Result<(), Error> {
    let request = Request {
        user_id: export.account_id.clone(),
        export_id: export.id.clone(),
        requested_at: export.requested_at,
        expires_at: export.expires_at,
    };
    events::requested(&export.account_id, &request)
}

fn close_if_whole(tx: &Transaction, settings: &Settings, account: &str) -> Result<(), Error> {
    let prepared = store::parts_of(tx, account)?;
    if settings.export_parts.iter().all(|(name, _)| prepared.iter().any(|(part, _)| part == name)) {
        store::set_export_ready(tx, account, time::now_us())?;
    }
    Ok(())
}

fn status(settings: &Settings, export: &Export) -> Result<ExportStatus, Error> {
    let prepared = store::parts_of(&Database, &export.account_id)?;
    let parts = parts(&settings.export_parts, &prepared);
    let missing: Vec<String> = parts.iter().filter(|part| part.prepared_at.is_none()).map(|part| part.name.clone()).collect();
    let Export { id, requested_at, expires_at, .. } = export.clone();
    let state = if missing.is_empty() { ExportState::Ready } else { ExportState::Preparing };
    Ok(ExportStatus { id, state, requested_at, expires_at, parts, missing })
}

fn parts(wanted: &[(String, String)], prepared: &[(String, u64)]) -> Vec<ExportPart> {
    let prepared_at = |name: &str| prepared.iter().find(|(part, _)| part == name).map(|(_, at)| *at);
    wanted
        .iter()
        .map(|(name, address)| ExportPart { name: name.clone(), address: address.clone(), prepared_at: prepared_at(name) })
        .collect()
}

fn none() -> Error {
    Error::not_found("no export was asked for, or it has expired")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_those_of_the_settings_and_what_is_not_prepared_has_no_time() {
        let wanted = [("user".to_owned(), "/users/export".to_owned()), ("polls".to_owned(), "/polls/export".to_owned())];
        let prepared = [("polls".to_owned(), 7), ("gone".to_owned(), 8)];
        let found: Vec<_> = parts(&wanted, &prepared).into_iter().map(|part| (part.name, part.address, part.prepared_at)).collect();
        let expect = [("user", "/users/export", None), ("polls", "/polls/export", Some(7))];
        assert_eq!(found, expect.map(|(name, address, at)| (name.to_owned(), address.to_owned(), at)));
    }
}
