//! This service's part of an account export: what is kept of a person, to count them once. What was counted is nobody's.

use echo_sdk::exports;
use echo_sdk::sql::{Database, transaction};
use echo_sdk::{Error, caller, time};

use crate::bindings::echo::account_export::events::{self, PreparedPart};
use crate::bindings::exports::echo::account_export::events::Request;
use crate::bindings::exports::echo::analytics::api::ExportedData;
use crate::store;

/// This service's part.
const NAME: &str = "analytics";

pub fn requested(event: Request) -> Result<(), Error> {
    let Request { user_id, export_id, requested_at, expires_at } = event;
    let at = time::now_us();
    transaction(|tx| {
        exports::open(tx, &user_id, requested_at, expires_at)?;
        let part = PreparedPart { user_id: user_id.clone(), export_id: export_id.clone(), name: NAME.to_owned(), at };
        events::prepared(&user_id, &part)
    })
}

pub fn data() -> Result<ExportedData, Error> {
    let me = caller()?.user_id;
    exports::requested_at(&Database, &me, time::now_us())?;
    let person = transaction(|tx| store::people(tx, std::slice::from_ref(&me)))?.pop();
    Ok(ExportedData {
        registered_on: person.as_ref().and_then(|person| person.registered_on),
        active_at: person.map(|person| person.active_at),
        next_cursor: None,
    })
}
