//! People and messages that are reported to the operator. Kept with who and why, never with what a message says: that stays with the message service.

use echo_sdk::sql::transaction;
use echo_sdk::{Error, caller, ids, time};

use crate::bindings::echo::message::api as messages;
use crate::bindings::exports::echo::user::api::{Report, ReportRequest};
use crate::bounds::REPORTS_KEPT_MAX;
use crate::profiles;
use crate::store::{self, NewReport};

pub fn report(request: ReportRequest) -> Result<Report, Error> {
    let me = caller()?.user_id;
    let reason = request.reason.trim();
    let (field, user_id, message_id) = match (request.user_id, request.message_id) {
        (Some(user_id), None) => ("user_id", profiles::seen_by(&me, &user_id)?.profile.id, None),
        (None, Some(message_id)) => ("message_id", sender_of(&message_id)?, Some(message_id)),
        _ => return Err(Error::invalid_field("user_id", "one_of", "give either user_id or message_id")),
    };
    if user_id == me {
        return Err(Error::invalid_field(field, "own_user", "nobody can report themselves"));
    }
    let id = ids::uuid_v7();
    let new = NewReport { id: &id, reporter: &me, user_id: &user_id, message_id: message_id.as_deref(), reason, at: time::now_us() };
    let (id, created_at) = transaction(|tx| {
        let kept = store::put_report(tx, &new)?;
        store::trim_reports(tx, &me, REPORTS_KEPT_MAX)?;
        Ok::<_, Error>(kept)
    })?;
    Ok(Report { id, user_id, message_id, reason: reason.to_owned(), created_at })
}

/// Asked as the caller: to whoever cannot see the message it does not exist.
fn sender_of(message_id: &str) -> Result<String, Error> {
    Ok(messages::get_message(&messages::MessageRequest { id: message_id.to_owned() })?.sender_id)
}
