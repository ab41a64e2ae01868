//! Changes are gathered and pushed by a schedule, a bounded number in each run: a person who reconnects within seconds causes no push, and when ten
//! thousand people connect at once, their watchers get the pushes over several runs. `user` decides before each push who may see it.

use std::collections::{HashMap, HashSet};

use echo_sdk::{Error, Timestamp};

use crate::bindings::echo::presence::events::{NewStatus, Update};
use crate::bindings::echo::presence::pushes::{PresenceChange, ShownActivity, ShownStatus};
use crate::bindings::exports::echo::presence::api::{Activity, Presence, Status};
use crate::bounds::{
    AUDIENCE_PAIRS_MAX, CHANGES_APART_US, LOOKED_AT_PER_RUN, SENT_PER_RUN, SENT_TO_PER_RUN, SOCKETS_CHECKED_US, TIME_LEFT_MS, VIEWERS_MAX,
};
use crate::platform::{Audience, Platform, Question};
use crate::settings::Settings;
use crate::state::{Published, Seen, Shown, State};
use crate::store;

/// A person whose status differs from what watchers were sent last.
struct Change<'a> {
    user: &'a str,
    state: &'a State,
    /// What is to be pushed.
    published: Published,
    viewers: Vec<String>,
}

/// One run of the schedule.
pub fn publish(platform: &impl Platform, settings: &Settings) -> Result<(), Error> {
    let due = store::take_due(platform, LOOKED_AT_PER_RUN)?;
    if due.is_empty() {
        return Ok(());
    }
    let mut states = store::states(platform, &due)?;
    ask_the_hub(platform, settings, &due, &mut states)?;
    let now = platform.now_us();
    let (mut changes, mut sent_to) = (Vec::new(), 0);
    for (user, state) in due.iter().zip(&states) {
        let published = seen(state, now, settings);
        if published.says_the_same(&state.published) {
            note_next_look(platform, settings, user, state, now)?;
            continue;
        }
        let earliest = state.published.at + CHANGES_APART_US;
        let is_full = changes.len() == SENT_PER_RUN || sent_to >= SENT_TO_PER_RUN || platform.remaining_ms() < TIME_LEFT_MS;
        if earliest > now || is_full {
            store::note_due(platform, user, earliest)?;
            continue;
        }
        let viewers = store::watchers(platform, user)?;
        sent_to += viewers.len().min(VIEWERS_MAX);
        changes.push(Change { user, state, published, viewers });
    }
    only_connected(platform, &mut changes)?;
    let questions = changes.iter().map(|change| question(change.user, &change.viewers)).filter(|question| !question.viewer_ids.is_empty());
    let audiences = match platform.audiences(questions.collect()) {
        Ok(audiences) => audiences,
        Err(error) => {
            // Without `user` it is not known who may see them: the next run tries again.
            changes.iter().try_for_each(|change| store::note_due(platform, change.user, now + CHANGES_APART_US))?;
            return Err(error);
        }
    };
    let audiences: HashMap<&str, &Audience> = audiences.iter().map(|audience| (audience.user_id.as_str(), audience)).collect();
    let mut updates = Vec::new();
    for change in &changes {
        let mut after = change.state.clone();
        after.published = change.published;
        if !store::replace(platform, change.user, change.state, &after, settings.kept_us)? {
            // Another request changed the state and has noted the user as due.
            continue;
        }
        note_next_look(platform, settings, change.user, &after, now)?;
        if let Some(audience) = audiences.get(change.user) {
            send(platform, settings, change, audience)?;
        }
        if change.published.status != change.state.published.status {
            updates.push(update(change));
        }
    }
    platform.publish(&updates)
}

/// The user may be seen by fewer people from now on: watchers who may no longer see the user are pushed `offline`.
pub fn audience_changed(platform: &impl Platform, settings: &Settings, user: &str) -> Result<(), Error> {
    let watchers = store::watchers(platform, user)?;
    for viewers in watchers.chunks(AUDIENCE_PAIRS_MAX) {
        let audience = platform.audiences(vec![question(user, viewers)])?.pop();
        let may_see: HashSet<String> = audience.map(|audience| audience.presence).unwrap_or_default().into_iter().collect();
        let hidden: Vec<String> = viewers.iter().filter(|viewer| !may_see.contains(*viewer)).cloned().collect();
        store::unwatch(platform, user, &hidden)?;
        let state = store::state(platform, user)?;
        // Watchers who saw the user offline already get no push: it would reveal the block.
        let were_shown = [state.published.status.0, state.status(platform.now_us(), &settings.times)];
        if were_shown.iter().any(|shown| *shown != Shown::Offline) {
            for hidden in platform.connected(&hidden)?.chunks(VIEWERS_MAX) {
                platform.push(hidden, &pushed(&hidden_presence(user)))?;
            }
        }
    }
    Ok(())
}

/// What is shown of a person to whom they do not show it.
pub fn hidden_presence(user: &str) -> Presence {
    Presence { user_id: user.to_owned(), status: Shown::Offline.into(), activity: None, last_seen: None }
}

pub fn pushed(presence: &Presence) -> PresenceChange {
    PresenceChange {
        user_id: presence.user_id.clone(),
        status: match presence.status {
            Status::Online => ShownStatus::Online,
            Status::Away => ShownStatus::Away,
            Status::Busy => ShownStatus::Busy,
            Status::Offline => ShownStatus::Offline,
        },
        activity: presence.activity.map(|activity| match activity {
            Activity::Typing => ShownActivity::Typing,
            Activity::Recording => ShownActivity::Recording,
        }),
        last_seen: presence.last_seen,
    }
}

/// Asks the hub about people who count as connected: a killed host publishes no `hub.disconnected`.
fn ask_the_hub(platform: &impl Platform, settings: &Settings, users: &[String], states: &mut [State]) -> Result<(), Error> {
    let now = platform.now_us();
    let to_check = |state: &State| state.is_connected() && state.checked_at + SOCKETS_CHECKED_US <= now;
    let asked: Vec<String> = users.iter().zip(&*states).filter(|(_, state)| to_check(state)).map(|(user, _)| user.clone()).collect();
    let connected: HashSet<String> = platform.connected(&asked)?.into_iter().collect();
    for (user, state) in users.iter().zip(states).filter(|(_, state)| to_check(state)) {
        *state = store::change(platform, user, settings.kept_us, |state| {
            if connected.contains(user) {
                state.checked_at = now;
            } else {
                state.nobody_is_connected();
            }
        })?;
    }
    Ok(())
}

fn seen(state: &State, now: Timestamp, settings: &Settings) -> Published {
    Published { status: Seen(state.status(now, &settings.times)), activity: state.activity(now, &settings.times), at: now }
}

fn note_next_look(platform: &impl Platform, settings: &Settings, user: &str, state: &State, now: Timestamp) -> Result<(), Error> {
    state.next_look(now, &settings.times).map_or(Ok(()), |at| store::note_due(platform, user, at))
}

/// Watchers without a socket are removed.
fn only_connected(platform: &impl Platform, changes: &mut [Change<'_>]) -> Result<(), Error> {
    let viewers: HashSet<&String> = changes.iter().flat_map(|change| &change.viewers).collect();
    let viewers: Vec<String> = viewers.into_iter().cloned().collect();
    let mut connected: HashSet<String> = HashSet::new();
    // One person may have many more watchers than get pushes, most of them not connected.
    for viewers in viewers.chunks(AUDIENCE_PAIRS_MAX) {
        connected.extend(platform.connected(viewers)?);
    }
    for change in changes {
        let (here, gone): (Vec<String>, Vec<String>) =
            std::mem::take(&mut change.viewers).into_iter().partition(|viewer| connected.contains(viewer));
        store::unwatch(platform, change.user, &gone)?;
        change.viewers = here;
        change.viewers.truncate(VIEWERS_MAX);
    }
    Ok(())
}

fn question(user: &str, viewers: &[String]) -> Question {
    Question { user_id: user.to_owned(), viewer_ids: viewers.to_vec() }
}

fn send(platform: &impl Platform, settings: &Settings, change: &Change<'_>, audience: &Audience) -> Result<(), Error> {
    let last_seen: HashSet<&String> = audience.last_seen.iter().collect();
    let (with, without): (Vec<String>, Vec<String>) = audience.presence.iter().cloned().partition(|viewer| last_seen.contains(viewer));
    let presence = Presence {
        user_id: change.user.to_owned(),
        status: change.published.status.0.into(),
        activity: change.published.activity.map(Into::into),
        last_seen: change.state.last_seen(change.published.at, &settings.times),
    };
    match presence.last_seen {
        None => platform.push(&audience.presence, &pushed(&presence)),
        Some(_) => {
            platform.push(&with, &pushed(&presence))?;
            platform.push(&without, &pushed(&Presence { last_seen: None, ..presence }))
        }
    }
}

fn update(change: &Change<'_>) -> Update {
    Update { user_id: change.user.to_owned(), status: new_status(change.published.status.0), at: change.published.at }
}

fn new_status(shown: Shown) -> NewStatus {
    match shown {
        Shown::Online => NewStatus::Online,
        Shown::Away => NewStatus::Away,
        Shown::Busy => NewStatus::Busy,
        Shown::Offline => NewStatus::Offline,
    }
}
