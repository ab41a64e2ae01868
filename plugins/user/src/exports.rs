//! This service's part of an account export, page by page as it is when it is read: so of others no more than they show by then.

use echo_sdk::exports::{self, Pages, RowKey, key};
use echo_sdk::sql::{Database, transaction};
use echo_sdk::{Error, caller, time};

use crate::bindings::echo::account_export::events::{self, PreparedPart};
use crate::bindings::exports::echo::account_export::events::Request;
use crate::bindings::exports::echo::user::api::{Block, ExportedData, PageRequest, Report};
use crate::bounds::EXPORTS_CLEARED_PER_RUN;
use crate::{contacts, privacy, profiles, store};

/// This service's part.
const NAME: &str = "user";

pub fn requested(event: Request) -> Result<(), Error> {
    let Request { user_id, export_id, requested_at, expires_at } = event;
    let at = time::now_us();
    transaction(|tx| {
        exports::open(tx, &user_id, requested_at, expires_at)?;
        // There is no schedule here: whoever asks for an export clears others' away.
        exports::close_expired(tx, at, EXPORTS_CLEARED_PER_RUN)?;
        let part = PreparedPart { user_id: user_id.clone(), export_id: export_id.clone(), name: NAME.to_owned(), at };
        events::prepared(&user_id, &part)
    })
}

pub fn data(request: &PageRequest) -> Result<ExportedData, Error> {
    let me = caller()?.user_id;
    let until = exports::requested_at(&Database, &me, time::now_us())?;
    let mut pages = Pages::new(request.limit, request.cursor.as_deref())?;
    let (profile, privacy) = if pages.is_first() { (Some(profiles::me()?), Some(privacy::get()?)) } else { (None, None) };

    let contacts =
        pages.section(|after, limit| store::contacts_after(&me, id_of(after), until, limit), |contact| key(&contact.seen.profile.id))?;
    let blocked = pages.section(|after, limit| store::blocks_after(&me, id_of(after), until, limit), |block| key(&block.user_id))?;
    let reports = pages.section(|after, limit| store::reports_after(&me, id_of(after), until, limit), |report| key(report.subject_id()))?;
    Ok(ExportedData {
        profile,
        privacy,
        contacts: contacts.into_iter().map(|contact| contacts::view(contact, &me)).collect(),
        blocked: blocked.into_iter().map(|block| Block { user_id: block.user_id, created_at: block.created_at }).collect(),
        reports: reports
            .into_iter()
            .map(|store::Report { id, user_id, message_id, reason, created_at }| Report { id, user_id, message_id, reason, created_at })
            .collect(),
        next_cursor: pages.next_cursor(),
    })
}

fn id_of(after: &RowKey) -> &str {
    &after.0.0
}
