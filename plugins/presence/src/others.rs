//! How others are, as far as they show it.

use std::collections::{HashMap, HashSet};

use echo_sdk::Error;

use crate::bindings::exports::echo::presence::api::{Presence, Presences};
use crate::changes::hidden_presence;
use crate::platform::{Platform, Question};
use crate::settings::Settings;
use crate::state::State;
use crate::store;

pub fn list(platform: &impl Platform, settings: &Settings, me: &str, mut users: Vec<String>) -> Result<Presences, Error> {
    let mut named = HashSet::new();
    users.retain(|user| named.insert(user.clone()));
    let others: Vec<String> = users.iter().filter(|user| *user != me).cloned().collect();

    let questions = others.iter().map(|user| Question { user_id: user.clone(), viewer_ids: vec![me.to_owned()] });
    let audiences = platform.audiences(questions.collect())?;
    let shown: HashMap<&str, (bool, bool)> = audiences
        .iter()
        .map(|audience| (audience.user_id.as_str(), (!audience.presence.is_empty(), !audience.last_seen.is_empty())))
        .collect();
    let is_shown = |user: &str| shown.get(user).copied().unwrap_or_default();

    // First: what changes from here on is sent.
    if !platform.connected(&[me.to_owned()])?.is_empty() {
        let watched: Vec<String> = others.iter().filter(|user| is_shown(user).0).cloned().collect();
        store::watch(platform, me, &watched)?;
    }
    let now = platform.now_us();
    let states = store::states(platform, &users)?;
    let items = users.iter().zip(&states).map(|(user, state)| {
        let real = presence(user, state, now, settings);
        if user == me {
            return real;
        }
        let (with_presence, with_last_seen) = is_shown(user);
        let shown = if with_presence { real.clone() } else { hidden_presence(user) };
        // Of whom hides only whether they are there it is known when they were there before.
        let last_seen = if with_presence { real.last_seen } else { state.last_seen_before(now, &settings.times) };
        Presence { last_seen: last_seen.filter(|_| with_last_seen), ..shown }
    });
    Ok(Presences { items: items.collect(), next_cursor: None })
}

/// As the person sees it.
pub fn presence(user: &str, state: &State, now: u64, settings: &Settings) -> Presence {
    Presence {
        user_id: user.to_owned(),
        status: state.status(now, &settings.times).into(),
        activity: state.activity(now, &settings.times).map(Into::into),
        last_seen: state.last_seen(now, &settings.times),
    }
}
