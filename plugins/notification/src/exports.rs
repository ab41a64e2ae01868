//! This service's part of an account export, page by page as it is when it is read.

use echo_sdk::exports::{self, Pages, key};
use echo_sdk::sql::{Database, transaction};
use echo_sdk::{Error, caller, time};

use crate::bindings::echo::account_export::events::{self, PreparedPart};
use crate::bindings::exports::echo::account_export::events::Request;
use crate::bindings::exports::echo::notification::api::{ExportedData, ListRequest};
use crate::{devices, list, preferences, store};

/// This service's part.
const NAME: &str = "notification";

pub fn requested(event: Request) -> Result<(), Error> {
    let Request { user_id, export_id, requested_at, expires_at } = event;
    let at = time::now_us();
    transaction(|tx| {
        exports::open(tx, &user_id, requested_at, expires_at)?;
        let part = PreparedPart { user_id: user_id.clone(), export_id: export_id.clone(), name: NAME.to_owned(), at };
        events::prepared(&user_id, &part)
    })
}

pub fn data(request: &ListRequest) -> Result<ExportedData, Error> {
    let me = caller()?.user_id;
    let until = exports::requested_at(&Database, &me, time::now_us())?;
    let mut pages = Pages::new(request.limit, request.cursor.as_deref())?;
    let (preferences, devices) = if pages.is_first() { (Some(preferences::get()?), devices::list()?.items) } else { (None, Vec::new()) };
    let entries = pages.section(|after, limit| store::entries_after(&me, &after.0.0, until, limit), |entry| key(&entry.id))?;
    let notifications = entries.into_iter().map(list::view).collect();
    Ok(ExportedData { preferences, devices, notifications, next_cursor: pages.next_cursor() })
}
