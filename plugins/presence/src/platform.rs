//! What this service needs of the world outside: the cache, the clock, the hub, `user`, and its own events. The rules are written over this trait, so
//! that their tests can count what thousands of people cause.

use echo_sdk::wit::{cache, hub};
use echo_sdk::{Error, Timestamp, time};

use crate::bindings::echo::presence::events::{self, Update};
use crate::bindings::echo::presence::pushes::{self, PresenceChange};
use crate::bindings::echo::user::api as users;
pub use crate::bindings::echo::user::api::{PresenceAudience as Audience, PresenceQuestion as Question};

pub trait Platform {
    fn now_us(&self) -> Timestamp;
    /// Milliseconds left of the call.
    fn remaining_ms(&self) -> u64;

    fn get(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error>;
    /// Whether the old value was the expected one and the new one is set.
    fn swap(&self, key: &str, expected: Option<&[u8]>, value: &[u8], ttl_us: u64) -> Result<bool, Error>;
    /// Whether there was room. The set lives on for `ttl_us` from now.
    fn set_add(&self, key: &str, members: &[String], ttl_us: u64) -> Result<bool, Error>;
    fn set_remove(&self, key: &str, members: &[String]) -> Result<(), Error>;
    fn set_members(&self, key: &str) -> Result<Vec<String>, Error>;

    /// Which of these users have an open socket.
    fn connected(&self, users: &[String]) -> Result<Vec<String>, Error>;
    /// Who may see whose presence; one answer for each question.
    fn audiences(&self, questions: Vec<Question>) -> Result<Vec<Audience>, Error>;
    /// To those who are connected.
    fn push(&self, users: &[String], change: &PresenceChange) -> Result<(), Error>;
    fn publish(&self, updates: &[Update]) -> Result<(), Error>;
}

/// The capabilities.
pub struct Live;

impl Platform for Live {
    fn now_us(&self) -> Timestamp {
        time::now_us()
    }

    fn remaining_ms(&self) -> u64 {
        echo_sdk::wit::context::remaining_ms()
    }

    fn get(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        if keys.is_empty() { Ok(Vec::new()) } else { Ok(cache::get_multi(keys)?) }
    }

    fn swap(&self, key: &str, expected: Option<&[u8]>, value: &[u8], ttl_us: u64) -> Result<bool, Error> {
        Ok(cache::compare_and_swap(key, expected, value, Some(ttl_us / 1_000))?)
    }

    fn set_add(&self, key: &str, members: &[String], ttl_us: u64) -> Result<bool, Error> {
        match cache::set_add(key, members, Some(ttl_us / 1_000)) {
            Err(cache::CacheError::TooLarge) => return Ok(false),
            other => other?,
        };
        cache::expire(key, ttl_us / 1_000)?;
        Ok(true)
    }

    fn set_remove(&self, key: &str, members: &[String]) -> Result<(), Error> {
        if !members.is_empty() {
            cache::set_remove(key, members)?;
        }
        Ok(())
    }

    fn set_members(&self, key: &str) -> Result<Vec<String>, Error> {
        Ok(cache::set_members(key)?)
    }

    fn connected(&self, users: &[String]) -> Result<Vec<String>, Error> {
        if users.is_empty() { Ok(Vec::new()) } else { Ok(hub::online(users)?) }
    }

    fn audiences(&self, items: Vec<Question>) -> Result<Vec<Audience>, Error> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        Ok(users::who_sees_presence(&users::PresenceAudienceRequest { items })?.items)
    }

    fn push(&self, users: &[String], change: &PresenceChange) -> Result<(), Error> {
        if users.is_empty() { Ok(()) } else { pushes::presence(users, change) }
    }

    fn publish(&self, updates: &[Update]) -> Result<(), Error> {
        updates.iter().try_for_each(|update| events::updated(&update.user_id, update))
    }
}
