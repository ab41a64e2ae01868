//! Events for people's devices. Inside an open transaction a push leaves with the commit.

use crate::Error;
use crate::wit::hub;
pub use crate::wit::hub::{Class, PushRequest, Replacement};

/// Kept in each user's feed and replayed on resume. `receipt` names it for `hub.acknowledged`. No users: nothing happens.
pub fn durable(users: &[String], event: &str, payload: String, receipt: Option<&str>) -> Result<(), Error> {
    send(PushRequest { receipt: receipt.map(str::to_owned), ..request(users, event, payload, Class::Durable) })
}

/// `durable`, about something that `replace` finds by this name.
pub fn durable_about(subject: &str, users: &[String], event: &str, payload: String, receipt: Option<&str>) -> Result<(), Error> {
    let request = request(users, event, payload, Class::Durable);
    send(PushRequest { subject: Some(subject.to_owned()), receipt: receipt.map(str::to_owned), ..request })
}

/// How something is now. Of those with one key that follow each other closely each user gets the last.
pub fn state(key: &str, users: &[String], event: &str, payload: String) -> Result<(), Error> {
    send(PushRequest { state: Some(key.to_owned()), ..request(users, event, payload, Class::Durable) })
}

/// For whoever is connected now.
pub fn ephemeral(users: &[String], event: &str, payload: String) -> Result<(), Error> {
    send(request(users, event, payload, Class::Ephemeral))
}

/// What was pushed about the subject says this from now on, as this event where one is named. Its former payload is kept nowhere.
pub fn replace(subject: &str, event: Option<&str>, payload: String) -> Result<(), Error> {
    Ok(hub::replace(&Replacement { subject: subject.to_owned(), event: event.map(str::to_owned), payload })?)
}

fn request(users: &[String], event: &str, payload: String, class: Class) -> PushRequest {
    PushRequest { users: users.to_vec(), event: event.to_owned(), payload, class, receipt: None, subject: None, state: None }
}

fn send(request: PushRequest) -> Result<(), Error> {
    if request.users.is_empty() {
        return Ok(());
    }
    Ok(hub::push(&request)?)
}
