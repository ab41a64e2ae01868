//! Events for people's devices. Inside an open transaction a push leaves with the commit.

use crate::Error;
use crate::wit::hub;
pub use crate::wit::hub::{Class, PushRequest};

/// Kept in each user's feed and replayed on resume. `receipt` names it for `hub.acknowledged`. No users: nothing happens.
pub fn durable(users: &[String], event: &str, payload: String, receipt: Option<&str>) -> Result<(), Error> {
    send(users, event, payload, Class::Durable, receipt)
}

/// For whoever is connected now.
pub fn ephemeral(users: &[String], event: &str, payload: String) -> Result<(), Error> {
    send(users, event, payload, Class::Ephemeral, None)
}

fn send(users: &[String], event: &str, payload: String, class: Class, receipt: Option<&str>) -> Result<(), Error> {
    if users.is_empty() {
        return Ok(());
    }
    let request = PushRequest { users: users.to_vec(), event: event.to_owned(), payload, class, receipt: receipt.map(str::to_owned) };
    Ok(hub::push(&request)?)
}
