//! One's own presence: devices that come and go, heartbeats, what one chooses.

use std::cmp::Reverse;

use echo_sdk::Error;

use crate::bindings::exports::echo::presence::api::{Alive, Device, Devices, ExportedData, Presence, SetStatusRequest};
use crate::changes::pushed;
use crate::others::presence;
use crate::platform::Platform;
use crate::settings::Settings;
use crate::state::State;
use crate::store;

pub fn connected(platform: &impl Platform, settings: &Settings, user: &str, device: &str, connection: &str) -> Result<(), Error> {
    let now = platform.now_us();
    change(platform, settings, user, |state| state.connected(device, connection, now))?;
    Ok(())
}

pub fn disconnected(platform: &impl Platform, settings: &Settings, user: &str, device: &str, connection: &str) -> Result<(), Error> {
    let now = platform.now_us();
    change(platform, settings, user, |state| state.disconnected(device, connection, now))?;
    Ok(())
}

pub fn heartbeat(platform: &impl Platform, settings: &Settings, user: &str, device: &str) -> Result<Alive, Error> {
    let now = platform.now_us();
    let state = change(platform, settings, user, |state| state.heartbeat(device, now))?;
    let expires_in = u32::try_from(settings.times.heartbeat_ttl_us / 1_000_000).unwrap_or(u32::MAX);
    Ok(Alive { status: state.status(now, &settings.times).into(), expires_in })
}

/// The person's other devices see what was chosen here, also that they hide.
pub fn set_status(
    platform: &impl Platform,
    settings: &Settings,
    user: &str,
    device: &str,
    request: SetStatusRequest,
) -> Result<Presence, Error> {
    let now = platform.now_us();
    let state = change(platform, settings, user, |state| {
        state.used(device, now);
        state.choose(request.status, request.activity, now);
    })?;
    let presence = as_the_person_sees_it(user, &state, request);
    platform.push(&[user.to_owned()], &pushed(&presence))?;
    Ok(presence)
}

pub fn devices(platform: &impl Platform, settings: &Settings, user: &str, current: &str) -> Result<Devices, Error> {
    let now = platform.now_us();
    let mut devices = store::state(platform, user)?.devices;
    devices.sort_by_key(|device| Reverse(device.last_seen()));
    let items = devices.into_iter().map(|device| Device {
        connected: device.connected,
        present: device.is_present(now, &settings.times),
        last_seen: device.last_seen(),
        current: device.id == current,
        device_id: device.id,
    });
    Ok(Devices { items: items.collect(), next_cursor: None })
}

/// What there is to export: it is the person's to see at any time, so there is no need to know whether an export was asked for.
pub fn exported(platform: &impl Platform, settings: &Settings, user: &str, current: &str) -> Result<ExportedData, Error> {
    let presence = presence(user, &store::state(platform, user)?, platform.now_us(), settings);
    Ok(ExportedData { presence, devices: devices(platform, settings, user, current)?.items, next_cursor: None })
}

fn as_the_person_sees_it(user: &str, state: &State, request: SetStatusRequest) -> Presence {
    Presence { user_id: user.to_owned(), status: state.chosen.into(), activity: request.activity, last_seen: None }
}

/// Whatever changes a state has it looked at.
fn change(platform: &impl Platform, settings: &Settings, user: &str, change: impl Fn(&mut State)) -> Result<State, Error> {
    let now = platform.now_us();
    let state = store::change(platform, user, settings.kept_us, |state| {
        let before = state.clone();
        change(state);
        state.note_left(&before, now, &settings.times);
    })?;
    store::note_due(platform, user, 0)?;
    Ok(state)
}
