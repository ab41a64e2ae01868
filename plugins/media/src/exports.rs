//! This service's part of an account export: what a person's files are and where they are fetched, page by page as it is when it is read.

use echo_sdk::exports::{self, Pages, key};
use echo_sdk::sql::{Database, transaction};
use echo_sdk::{Error, caller, time};

use crate::bindings::echo::account_export::events::{self, PreparedPart};
use crate::bindings::exports::echo::account_export::events::Request;
use crate::bindings::exports::echo::media::api::{ExportPageRequest, ExportedData};
use crate::{reading, store};

/// This service's part.
const NAME: &str = "media";

pub fn requested(event: Request) -> Result<(), Error> {
    let Request { user_id, export_id, requested_at, expires_at } = event;
    let at = time::now_us();
    transaction(|tx| {
        exports::open(tx, &user_id, requested_at, expires_at)?;
        let part = PreparedPart { user_id: user_id.clone(), export_id: export_id.clone(), name: NAME.to_owned(), at };
        events::prepared(&user_id, &part)
    })
}

pub fn data(request: &ExportPageRequest) -> Result<ExportedData, Error> {
    let me = caller()?.user_id;
    let until = exports::requested_at(&Database, &me, time::now_us())?;
    let mut pages = Pages::new(request.limit, request.cursor.as_deref())?;
    let files = pages.section(|after, limit| store::files_after(&me, &after.0.0, until, limit), |row| key(&row.id))?;
    Ok(ExportedData { files: files.into_iter().map(reading::view).collect(), next_cursor: pages.next_cursor() })
}
