//! What is kept in the cache, and under which keys: one function per question.
//!
//! `presence:{user}` is a person's state, `watchers:{user}` who gets word of their changes, `watched:{user}` of whose changes they get word, `due:{step}`
//! who is to be looked at then, `looked` up to which step that was done.

use echo_sdk::{Error, Timestamp};
use serde::de::DeserializeOwned;

use crate::bounds::{FORGOTTEN_KEPT_US, STEP_KEPT_US, STEP_US, STEPS_AGAIN, STEPS_MISSED_MAX, TRIES_MAX, WATCHED_KEPT_US, WATCHED_MAX};
use crate::platform::Platform;
use crate::state::State;

// --- States --------------------------------------------------------------------------------------------------------------------------

/// One for each user; the empty one of whom nothing is known.
pub fn states(platform: &impl Platform, users: &[String]) -> Result<Vec<State>, Error> {
    let keys: Vec<String> = users.iter().map(|user| state_key(user)).collect();
    Ok(platform.get(&keys)?.iter().map(|bytes| read(bytes.as_deref())).collect())
}

pub fn state(platform: &impl Platform, user: &str) -> Result<State, Error> {
    Ok(states(platform, &[user.to_owned()])?.pop().unwrap_or_default())
}

/// Changes a state, whoever else changes it too; the new one. `change` may be called several times.
pub fn change(platform: &impl Platform, user: &str, kept_us: u64, change: impl Fn(&mut State)) -> Result<State, Error> {
    let key = state_key(user);
    for _ in 0..TRIES_MAX {
        let before = platform.get(std::slice::from_ref(&key))?.pop().flatten();
        let mut state: State = read(before.as_deref());
        change(&mut state);
        if platform.swap(&key, before.as_deref(), &written(&state)?, kept_us)? {
            return Ok(state);
        }
    }
    Err(busy())
}

/// Puts the new state in the old one's place; false where that is another by now.
pub fn replace(platform: &impl Platform, user: &str, old: &State, new: &State, kept_us: u64) -> Result<bool, Error> {
    let key = state_key(user);
    let before = platform.get(std::slice::from_ref(&key))?.pop().flatten();
    Ok(read::<State>(before.as_deref()) == *old && platform.swap(&key, before.as_deref(), &written(new)?, kept_us)?)
}

/// Nothing is known of the user any more.
pub fn forget(platform: &impl Platform, user: &str) -> Result<(), Error> {
    change(platform, user, FORGOTTEN_KEPT_US, |state| *state = State::default())?;
    Ok(())
}

fn state_key(user: &str) -> String {
    format!("presence:{user}")
}

// --- Who watches whom ------------------------------------------------------------------------------------------------------------------

/// The viewer gets word of these users' changes. Where one has too many watchers, the viewer has to ask about that one.
pub fn watch(platform: &impl Platform, viewer: &str, users: &[String]) -> Result<(), Error> {
    for user in users {
        platform.set_add(&watchers_key(user), std::slice::from_ref(&viewer.to_owned()), WATCHED_KEPT_US)?;
    }
    for gone in note_watched(platform, viewer, users)? {
        unwatch(platform, &gone, std::slice::from_ref(&viewer.to_owned()))?;
    }
    Ok(())
}

/// Who gets word of the user's changes.
pub fn watchers(platform: &impl Platform, user: &str) -> Result<Vec<String>, Error> {
    platform.set_members(&watchers_key(user))
}

pub fn unwatch(platform: &impl Platform, user: &str, viewers: &[String]) -> Result<(), Error> {
    platform.set_remove(&watchers_key(user), viewers)
}

/// Those who have to go for them.
fn note_watched(platform: &impl Platform, viewer: &str, users: &[String]) -> Result<Vec<String>, Error> {
    let key = format!("watched:{viewer}");
    for _ in 0..TRIES_MAX {
        let before = platform.get(std::slice::from_ref(&key))?.pop().flatten();
        let mut watched: Vec<String> = read(before.as_deref());
        watched.retain(|user| !users.contains(user));
        watched.extend_from_slice(users);
        let gone: Vec<String> = watched.drain(..watched.len().saturating_sub(WATCHED_MAX)).collect();
        if platform.swap(&key, before.as_deref(), &written(&watched)?, WATCHED_KEPT_US)? {
            return Ok(gone);
        }
    }
    Err(busy())
}

fn watchers_key(user: &str) -> String {
    format!("watchers:{user}")
}

// --- Who is to be looked at, and when ------------------------------------------------------------------------------------------------------

/// The user is looked at when it is that time; now, where it is over. Where there are too many for one step, that user's change is not sent.
pub fn note_due(platform: &impl Platform, user: &str, at: Timestamp) -> Result<(), Error> {
    let now = platform.now_us();
    // Rounded up, so that it is that time when the step is looked at.
    let step = if at <= now { now / STEP_US } else { at.div_ceil(STEP_US) };
    let ttl_us = (step * STEP_US).saturating_sub(now) + STEP_KEPT_US;
    platform.set_add(&due_key(step), std::slice::from_ref(&user.to_owned()), ttl_us)?;
    Ok(())
}

/// Takes out at most so many of those who are due, the longest due first.
pub fn take_due(platform: &impl Platform, count: usize) -> Result<Vec<String>, Error> {
    let key = "looked".to_owned();
    let now = platform.now_us() / STEP_US;
    let before = platform.get(std::slice::from_ref(&key))?.pop().flatten();
    let looked: u64 = read(before.as_deref());
    let first = looked.max(now.saturating_sub(STEPS_MISSED_MAX)).min(now.saturating_sub(STEPS_AGAIN));
    let mut taken: Vec<String> = Vec::new();
    let mut empty_to = first;
    for step in first..=now {
        let mut due = platform.set_members(&due_key(step))?;
        let room = count - taken.len();
        if due.len() <= room && empty_to == step {
            empty_to = step + 1;
        }
        due.truncate(room);
        platform.set_remove(&due_key(step), &due)?;
        taken.extend(due);
        if taken.len() == count {
            break;
        }
    }
    // Whoever is noted by a slow request just now is noted in one of the last steps: those are looked at again.
    let empty_to = empty_to.min(now.saturating_sub(STEPS_AGAIN));
    if empty_to > looked {
        platform.swap(&key, before.as_deref(), &written(&empty_to)?, STEP_KEPT_US)?;
    }
    taken.sort_unstable();
    taken.dedup();
    Ok(taken)
}

fn due_key(step: u64) -> String {
    format!("due:{step}")
}

// --- As it is kept -------------------------------------------------------------------------------------------------------------------------

/// What cannot be read is as good as forgotten.
fn read<T: DeserializeOwned + Default>(bytes: Option<&[u8]>) -> T {
    bytes.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
}

fn written(value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::internal(format!("a value that is no JSON: {error}")))
}

fn busy() -> Error {
    Error::unavailable("too many changes at once")
}
