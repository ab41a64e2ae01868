//! `echo:hub/hub` for a guest, and its pushes: names and counts checked, durable ones into the outbox, ephemeral ones to the sockets.
//! Knows no backend.

use std::collections::HashSet;

use uuid::Uuid;
use wasmtime::component::{HasSelf, Linker};

use super::{Class, Push, Replacement};
use crate::guest::Guest;
use crate::sql::{Effect, ErrorClass, SqlError};
use echo_base::limits;
use echo_base::names::ServiceName;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        inline: "
            package echo:host-hub;
            world imports {
                import echo:hub/hub@0.1.0;
            }
        ",
        world: "echo:host-hub/imports",
        imports: { default: async | trappable },
    });
}

use bindings::echo::hub::hub as wit;

/// Links the interface for a store whose guest `get` finds.
pub fn add_to_linker<T: Send + 'static>(linker: &mut Linker<T>, get: fn(&mut T) -> &mut Guest) -> wasmtime::Result<()> {
    wit::add_to_linker::<T, HasSelf<Guest>>(linker, get)
}

type Answer<T> = wasmtime::Result<Result<T, wit::HubError>>;

/// Why a push or a replacement is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    #[error("the hub cannot be reached")]
    Unavailable,
    #[error("the push is larger than the hub takes")]
    TooLarge,
    #[error("a user is no identifier, or a name of the push is empty or too long")]
    Invalid,
    #[error("the caller has caused too many durable events in the feed of one of the users")]
    RateLimited,
}

impl Guest {
    /// Sends a frame of a type that this service may push: at once, or inside an open transaction with its commit. Receipt, subject and state are
    /// the service's own names.
    pub async fn push(&mut self, users: &[String], push: Push) -> Result<(), PushError> {
        let users = identifiers(users)?;
        let mut seen = HashSet::with_capacity(users.len());
        let users = users.into_iter().filter(|user| seen.insert(*user)).collect();
        let names = [&push.receipt, &push.subject, &push.state];
        if !names.into_iter().flatten().all(|name| is_name(name)) {
            return Err(PushError::Invalid);
        }
        let name = |name: Option<String>| name.map(|name| own(&self.service, &name));
        let push = Push { users, subject: name(push.subject), state: name(push.state), ..push };
        self.send(push).await
    }

    async fn send(&mut self, push: Push) -> Result<(), PushError> {
        if push.users.is_empty() {
            return Ok(());
        }
        // What is not tied to a transaction and not kept need not touch the disk.
        if push.class == Class::Ephemeral && self.transaction.is_none() {
            self.made.add(push.bytes(), push.users.len())?;
            self.capabilities.sockets.deliver_ephemeral(&push);
            self.keep_pace().await;
            return Ok(());
        }
        if push.class == Class::Durable && self.feed_share.take_of_service(&push.users).is_err() {
            metrics::counter!("echo_hub_pushes_refused_total").increment(1);
            tracing::warn!(service = %self.service, event = push.event, "a push beyond the service's share of a user's feed (feed_events_per_day)");
            return Err(PushError::RateLimited);
        }
        if push.class == Class::Durable
            && let Some(caller) = &self.context().caller
            && self.capabilities.senders.take(caller.user_id, &push.users).is_err()
        {
            metrics::counter!("echo_hub_pushes_refused_total").increment(1);
            return Err(PushError::RateLimited);
        }
        Ok(self.emit(Effect::Push(push)).await?)
    }

    /// What this service pushed about the subject says this from now on.
    pub async fn replace(&mut self, replacement: Replacement) -> Result<(), PushError> {
        if !is_name(&replacement.subject) {
            return Err(PushError::Invalid);
        }
        let subject = own(&self.service, &replacement.subject);
        Ok(self.emit(Effect::Replace(Replacement { subject, ..replacement })).await?)
    }
}

impl From<SqlError> for PushError {
    fn from(error: SqlError) -> Self {
        match error.class {
            ErrorClass::TooLarge => PushError::TooLarge,
            _ => PushError::Unavailable,
        }
    }
}

impl wit::Host for Guest {
    async fn online(&mut self, users: Vec<String>) -> Answer<Vec<String>> {
        let users = match identifiers(&users) {
            Ok(users) => users,
            Err(error) => return Ok(Err(error.into())),
        };
        let sockets = self.capabilities.sockets.clone();
        Ok(match sockets.online(&users).await {
            Ok(users) => Ok(texts(users)),
            Err(error) => {
                tracing::warn!(service = %self.service, %error, "it is not known who is connected");
                Err(wit::HubError::Unavailable)
            }
        })
    }

    async fn unacknowledged(&mut self, receipt: String, users: Vec<String>) -> Answer<Vec<String>> {
        let users = match identifiers(&users) {
            Ok(users) if is_name(&receipt) => users,
            Ok(_) => return Ok(Err(wit::HubError::Invalid)),
            Err(error) => return Ok(Err(error.into())),
        };
        let feed = self.capabilities.feed.clone();
        Ok(match feed.unacknowledged(&receipt, &users).await {
            Ok(users) => Ok(texts(users)),
            Err(error) => {
                tracing::warn!(service = %self.service, %error, "the feed did not answer");
                Err(wit::HubError::Unavailable)
            }
        })
    }

    async fn disconnect(&mut self, session_id: String) -> Answer<()> {
        Ok(session_id.parse().map_err(|_| wit::HubError::Invalid).map(|session| self.capabilities.sockets.disconnect_session(session)))
    }
}

/// A name that no other service can say: none of theirs holds a colon.
fn own(service: &ServiceName, name: &str) -> String {
    format!("{service}:{name}")
}

/// A receipt, a subject or a state's key.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= limits::PUSH_NAME_BYTES_MAX
}

impl From<PushError> for wit::HubError {
    fn from(error: PushError) -> Self {
        match error {
            PushError::TooLarge => wit::HubError::TooLarge,
            PushError::Invalid => wit::HubError::Invalid,
            PushError::Unavailable | PushError::RateLimited => wit::HubError::Unavailable,
        }
    }
}

fn identifiers(texts: &[String]) -> Result<Vec<Uuid>, PushError> {
    if texts.len() > limits::PUSH_USERS_MAX {
        return Err(PushError::TooLarge);
    }
    texts.iter().map(|text| text.parse().map_err(|_| PushError::Invalid)).collect()
}

fn texts(users: Vec<Uuid>) -> Vec<String> {
    users.into_iter().map(|user| user.hyphenated().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::context::{CallContext, Caller};
    use crate::senders::Senders;
    use crate::sql::host::tests::{Screen, context, two_guests};

    const USER: &str = "018f2b1e-0000-7000-8000-000000000001";

    /// To nobody yet.
    fn durable() -> Push {
        Push {
            users: Vec::new(),
            event: "message_status".to_owned(),
            payload: r#"{"a": [1, "ä"]}"#.to_owned(),
            class: Class::Durable,
            receipt: Some("r".to_owned()),
            subject: Some("s".to_owned()),
            state: None,
        }
    }

    fn ephemeral() -> Push {
        Push { class: Class::Ephemeral, payload: "\"e\"".to_owned(), ..durable() }
    }

    async fn sent(guest: &mut Guest, push: Push) -> Result<(), PushError> {
        guest.push(&[USER.to_owned()], push).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn users_and_names_of_pushes_are_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        let [mut guest, _] = two_guests(folder.path(), Arc::new(Screen::default())).await;
        for good in [durable(), Push { receipt: None, ..durable() }, ephemeral()] {
            assert_eq!(sent(&mut guest, good).await, Ok(()));
        }
        let long = || Some("n".repeat(limits::PUSH_NAME_BYTES_MAX + 1));
        for bad in [
            Push { receipt: Some(String::new()), ..durable() },
            Push { receipt: long(), ..durable() },
            Push { subject: Some(String::new()), ..durable() },
            Push { state: long(), ..durable() },
        ] {
            assert_eq!(sent(&mut guest, bad).await, Err(PushError::Invalid));
        }
        assert_eq!(guest.push(&["somebody".to_owned()], durable()).await, Err(PushError::Invalid));
        assert_eq!(guest.push(&vec![USER.to_owned(); limits::PUSH_USERS_MAX + 1], durable()).await, Err(PushError::TooLarge));
        let replacement = |subject: &str| Replacement { subject: subject.to_owned(), event: None, payload: "{}".to_owned() };
        assert_eq!(guest.replace(replacement("")).await, Err(PushError::Invalid));
        assert_eq!(guest.replace(replacement("s")).await, Ok(()));
        let twice = [USER.to_owned(), USER.to_owned()];
        assert_eq!(guest.push(&twice, durable()).await, Ok(()));
        let kept = guest.capabilities.database.peek(i64::MIN, 10).await.expect("peeks");
        let Some((_, Effect::Push(last))) = kept.last() else { panic!("{kept:?}") };
        assert_eq!(last.users.len(), 1, "nobody is pushed to twice");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn pushes_wait_for_the_commit_and_ephemeral_ones_only_in_a_transaction() {
        let folder = tempfile::tempdir().expect("a folder");
        let screen = Arc::new(Screen::default());
        let [mut guest, _] = two_guests(folder.path(), screen.clone()).await;
        let database = guest.capabilities.database.clone();
        let shown = || screen.shown.lock().len();
        let waiting = || async { database.peek(i64::MIN, 10).await.expect("peeks").len() };

        sent(&mut guest, ephemeral()).await.expect("pushes");
        assert_eq!((shown(), waiting().await), (1, 0), "outside a transaction it goes at once");
        sent(&mut guest, durable()).await.expect("pushes");
        assert_eq!((shown(), waiting().await), (1, 1), "a durable one goes through the outbox");

        guest.transaction = Some(database.begin().await.expect("begins"));
        sent(&mut guest, ephemeral()).await.expect("pushes");
        sent(&mut guest, durable()).await.expect("pushes");
        assert_eq!((shown(), waiting().await), (1, 1), "inside a transaction nothing leaves");
        guest.transaction = None;
        assert_eq!(waiting().await, 1, "what was rolled back leaves never");
        guest.transaction = Some(database.begin().await.expect("begins"));
        sent(&mut guest, ephemeral()).await.expect("pushes");
        guest.transaction.take().expect("open").commit().await.expect("commits");
        assert_eq!((shown(), waiting().await), (1, 2));

        while guest.made.add(1, 1).is_ok() {}
        for flood in [ephemeral(), durable()] {
            assert_eq!(sent(&mut guest, flood).await, Err(PushError::TooLarge));
        }
        let session = Uuid::now_v7();
        wit::Host::disconnect(&mut guest, session.to_string()).await.expect("no trap").expect("disconnects");
        assert_eq!(screen.shown.lock().last(), Some(&format!("bye {session}")));
        let users = vec![USER.to_owned()];
        assert_eq!(wit::Host::online(&mut guest, users.clone()).await.expect("no trap").expect("answers"), users);
        let asked = wit::Host::unacknowledged(&mut guest, "r".to_owned(), users.clone()).await.expect("no trap");
        assert_eq!(asked.expect("answers"), users);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_fills_anothers_feed_is_refused_before_the_commit() {
        let folder = tempfile::tempdir().expect("a folder");
        let [mut guest, _] = two_guests(folder.path(), Arc::new(Screen::default())).await;
        let mut said_by = async |caller: Option<Uuid>, count: u64| {
            let caller = caller.map(|user_id| {
                let (device_id, session_id, roles) = ("phone".to_owned(), Uuid::nil(), Vec::new());
                Arc::new(Caller { user_id, device_id, session_id, roles, issued_at_us: 0, expires_at_us: 0 })
            });
            let mut refused = 0;
            for _ in 0..count {
                guest.begin_call(CallContext { caller: caller.clone(), ..context(Duration::from_secs(5)) }.into());
                refused += u64::from(sent(&mut guest, durable()).await == Err(PushError::RateLimited));
            }
            refused
        };
        let flood = limits::FEED_SENDER_EVENTS_BURST + 10;
        assert_eq!(said_by(Some(Uuid::now_v7()), flood).await, 10);
        assert_eq!(said_by(Some(Uuid::now_v7()), 1).await, 0, "another sender");
        assert_eq!(said_by(None, 1).await, 0, "a service of its own accord");
        let recipient = USER.parse().expect("an id");
        assert_eq!(said_by(Some(recipient), flood).await, 0, "one's own feed");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_service_has_its_share_of_a_users_feed_and_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let [mut noisy, mut quiet] = two_guests(folder.path(), Arc::new(Screen::default())).await;
        let share = |per_day| Arc::new(Senders::of_service(per_day, &Senders::new(1)));
        (noisy.feed_share, quiet.feed_share) = (share(100), share(100));
        let mut pushed = 0;
        for _ in 0..20 {
            // Of its own accord: nobody's own share is used up by it.
            noisy.begin_call(context(Duration::from_secs(5)).into());
            match sent(&mut noisy, durable()).await {
                Ok(()) => pushed += 1,
                Err(error) => assert_eq!(error, PushError::RateLimited),
            }
        }
        assert_eq!(pushed, 100 / limits::FEED_SERVICE_BURST_SHARE);
        let other = ["018f2b1e-0000-7000-8000-000000000002".to_owned()];
        noisy.push(&other, durable()).await.expect("another user's feed");
        sent(&mut noisy, ephemeral()).await.expect("what is not kept has no share");
        quiet.begin_call(context(Duration::from_secs(5)).into());
        sent(&mut quiet, durable()).await.expect("another service has its own");
    }
}
