//! What is known of one person, and what follows from it at a given time. Pure: no clock, no cache, no other person.

use echo_sdk::Timestamp;
use serde::{Deserialize, Serialize};

use crate::bindings::exports::echo::presence::api::{Activity, Status};
use crate::bounds::{ACTIVITY_US, DEVICES_MAX, SOCKETS_CHECKED_US};

/// How long somebody counts as there, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// After the last socket was closed.
    pub offline_after_us: u64,
    /// After a heartbeat.
    pub heartbeat_ttl_us: u64,
    /// After the last heartbeat of a device with a socket; then the person is away.
    pub away_after_us: u64,
}

/// Kept in the cache as JSON: another version of this service, before or after, reads it too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub chosen: Shown,
    /// Since when the person hides; what happened later is nobody's to see.
    pub hidden_since: Option<Timestamp>,
    /// When the person was there last before they came; for those who may see this and not that they are there.
    left_at: Option<Timestamp>,
    activity: Option<Doing>,
    pub devices: Vec<Device>,
    /// When the hub was last asked who is connected.
    pub checked_at: Timestamp,
    pub published: Published,
}

/// What was last sent to those who watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Published {
    pub status: Seen,
    pub activity: Option<Kind>,
    pub at: Timestamp,
}

impl Published {
    pub fn says_the_same(&self, other: &Self) -> bool {
        (self.status, self.activity) == (other.status, other.activity)
    }
}

/// A status as it is kept. A person who has chosen nothing is online where a device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    #[default]
    Online,
    Away,
    Busy,
    Offline,
}

/// The same of what was seen: nobody was, to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seen(pub Shown);

impl Default for Seen {
    fn default() -> Self {
        Self(Shown::Offline)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Typing,
    Recording,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Doing {
    kind: Kind,
    until: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    pub id: String,
    /// The newest socket known of it; it rises with time.
    #[serde(default)]
    connection_id: Option<String>,
    #[serde(default)]
    pub connected: bool,
    /// When a socket of it was last opened or closed.
    #[serde(default)]
    changed_at: Timestamp,
    #[serde(default)]
    heartbeat_at: Option<Timestamp>,
}

impl Device {
    pub fn last_seen(&self) -> Timestamp {
        self.heartbeat_at.unwrap_or_default().max(self.changed_at)
    }

    /// Until when it counts as there; without end while it has a socket.
    fn present_until(&self, times: &Times) -> Timestamp {
        if self.connected {
            return Timestamp::MAX;
        }
        let socket = self.connection_id.as_ref().map_or(0, |_| self.changed_at + times.offline_after_us);
        // A heartbeat from before the socket was closed says nothing beyond it.
        let heartbeat = self.heartbeat_at.filter(|at| self.connection_id.is_none() || *at > self.changed_at);
        socket.max(heartbeat.map_or(0, |at| at + times.heartbeat_ttl_us))
    }

    pub fn is_present(&self, now: Timestamp, times: &Times) -> bool {
        now < self.present_until(times)
    }

    /// From when on nobody is at it any more, though its socket is open; never without heartbeats.
    fn idle_from(&self, times: &Times) -> Timestamp {
        match self.heartbeat_at {
            // One from before the socket was opened was sent for want of it.
            Some(at) if self.connected && at > self.changed_at => at + times.away_after_us,
            _ => Timestamp::MAX,
        }
    }
}

impl State {
    /// A socket was opened. Late words of an older socket change nothing, nor does a word of one that is closed already.
    pub fn connected(&mut self, device_id: &str, connection_id: &str, now: Timestamp) {
        let device = self.device(device_id);
        if device.connection_id.as_deref().is_none_or(|known| known < connection_id) {
            device.connection_id = Some(connection_id.to_owned());
            device.connected = true;
            device.changed_at = now;
            self.checked_at = now;
            self.forget_devices();
        }
    }

    /// A socket was closed: the last word of this one.
    pub fn disconnected(&mut self, device_id: &str, connection_id: &str, now: Timestamp) {
        let device = self.device(device_id);
        let is_newer = device.connection_id.as_deref().is_none_or(|known| known < connection_id);
        let is_open = device.connected && device.connection_id.as_deref() == Some(connection_id);
        if is_newer || is_open {
            device.connection_id = Some(connection_id.to_owned());
            device.connected = false;
            device.changed_at = now;
            self.forget_devices();
        }
    }

    pub fn heartbeat(&mut self, device_id: &str, now: Timestamp) {
        self.device(device_id).heartbeat_at = Some(now);
        self.forget_devices();
    }

    /// The person has done something at this device. Where it has a socket that says so already, and `away` is not to follow from it.
    pub fn used(&mut self, device_id: &str, now: Timestamp) {
        let device = self.device(device_id);
        if !device.connected || device.heartbeat_at.is_some_and(|at| at > device.changed_at) {
            self.heartbeat(device_id, now);
        }
    }

    pub fn choose(&mut self, status: Status, activity: Option<Activity>, now: Timestamp) {
        let chosen = Shown::from(status);
        self.hidden_since = match chosen {
            Shown::Offline => self.hidden_since.or(Some(now)),
            _ => None,
        };
        self.chosen = chosen;
        self.activity = activity.map(|activity| Doing { kind: activity.into(), until: now + ACTIVITY_US });
    }

    /// The hub knows of no socket of the person's: whoever should have said so is gone.
    pub fn nobody_is_connected(&mut self) {
        let last_known = self.checked_at;
        for device in self.devices.iter_mut().filter(|device| device.connected) {
            device.connected = false;
            device.changed_at = device.changed_at.max(last_known);
        }
    }

    pub fn is_connected(&self) -> bool {
        self.devices.iter().any(|device| device.connected)
    }

    /// What others see.
    pub fn status(&self, now: Timestamp, times: &Times) -> Shown {
        let mut present = self.devices.iter().filter(|device| device.is_present(now, times)).peekable();
        if present.peek().is_none() {
            return Shown::Offline;
        }
        match self.chosen {
            Shown::Online if present.all(|device| device.idle_from(times) <= now) => Shown::Away,
            chosen => chosen,
        }
    }

    pub fn activity(&self, now: Timestamp, times: &Times) -> Option<Kind> {
        let activity = self.activity.filter(|activity| now < activity.until)?;
        (self.status(now, times) != Shown::Offline).then_some(activity.kind)
    }

    /// When the person was there last, as far as they did not hide; none while they are there.
    pub fn last_seen(&self, now: Timestamp, times: &Times) -> Option<Timestamp> {
        if self.status(now, times) != Shown::Offline {
            return None;
        }
        // Whoever hides with an open socket was there up to then.
        let last = if self.is_connected() { now } else { self.devices.iter().map(Device::last_seen).max()? };
        Some(self.hidden_since.map_or(last, |hidden| hidden.min(last)))
    }

    /// When it is to be looked at again, though nobody says anything: the first time at which something ends by itself.
    pub fn next_look(&self, now: Timestamp, times: &Times) -> Option<Timestamp> {
        let of_devices = self.devices.iter().flat_map(|device| [device.present_until(times), device.idle_from(times)]);
        let of_activity = self.activity.map(|activity| activity.until);
        let of_sockets = self.is_connected().then_some(self.checked_at + SOCKETS_CHECKED_US);
        of_devices.chain(of_activity).chain(of_sockets).filter(|at| *at > now && *at != Timestamp::MAX).min()
    }

    /// The same for whoever must not see that the person is there: it does not change before they leave.
    pub fn last_seen_before(&self, now: Timestamp, times: &Times) -> Option<Timestamp> {
        if self.status(now, times) == Shown::Offline { self.last_seen(now, times) } else { self.left_at }
    }

    /// What was true before a change that may have brought the person back.
    pub fn note_left(&mut self, before: &State, now: Timestamp, times: &Times) {
        if before.status(now, times) == Shown::Offline {
            self.left_at = before.last_seen(now, times);
        }
    }

    fn device(&mut self, id: &str) -> &mut Device {
        let at = match self.devices.iter().position(|device| device.id == id) {
            Some(at) => at,
            None => {
                let new = Device { id: id.to_owned(), connection_id: None, connected: false, changed_at: 0, heartbeat_at: None };
                self.devices.push(new);
                self.devices.len() - 1
            }
        };
        &mut self.devices[at]
    }

    fn forget_devices(&mut self) {
        self.devices.sort_by_key(|device| std::cmp::Reverse((device.connected, device.last_seen())));
        self.devices.truncate(DEVICES_MAX);
    }
}

impl From<Status> for Shown {
    fn from(status: Status) -> Self {
        match status {
            Status::Online => Self::Online,
            Status::Away => Self::Away,
            Status::Busy => Self::Busy,
            Status::Offline => Self::Offline,
        }
    }
}

impl From<Shown> for Status {
    fn from(shown: Shown) -> Self {
        match shown {
            Shown::Online => Self::Online,
            Shown::Away => Self::Away,
            Shown::Busy => Self::Busy,
            Shown::Offline => Self::Offline,
        }
    }
}

impl From<Activity> for Kind {
    fn from(activity: Activity) -> Self {
        match activity {
            Activity::Typing => Self::Typing,
            Activity::Recording => Self::Recording,
        }
    }
}

impl From<Kind> for Activity {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Typing => Self::Typing,
            Kind::Recording => Self::Recording,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { offline_after_us: 10, heartbeat_ttl_us: 90, away_after_us: 300 };

    fn check(state: &State, now: Timestamp, status: Shown, last_seen: Option<Timestamp>) {
        assert_eq!((state.status(now, &TIMES), state.last_seen(now, &TIMES)), (status, last_seen), "at {now}: {state:?}");
    }

    #[test]
    fn one_of_several_devices_is_enough_and_the_last_one_counts_for_a_while_after_it_has_gone() {
        let mut state = State::default();
        check(&state, 0, Shown::Offline, None);
        state.connected("phone", "1", 100);
        state.connected("tablet", "2", 200);
        state.disconnected("phone", "1", 300);
        check(&state, 1_000, Shown::Online, None);
        state.disconnected("tablet", "2", 400);
        check(&state, 409, Shown::Online, None);
        check(&state, 410, Shown::Offline, Some(400));
        assert_eq!(state.next_look(400, &TIMES), Some(410));
    }

    #[test]
    fn words_about_sockets_may_come_late_and_in_any_order() {
        for order in [["+1", "-1", "+2"], ["-1", "+1", "+2"], ["+2", "-1", "+1"], ["-1", "+2", "+1"], ["+2", "+1", "-1"]] {
            let mut state = State::default();
            for word in order {
                match word.split_at(1) {
                    ("+", id) => state.connected("phone", id, 100),
                    (_, id) => state.disconnected("phone", id, 100),
                }
            }
            assert!(state.is_connected(), "{order:?}");
            state.disconnected("phone", "2", 200);
            assert!(!state.is_connected(), "{order:?}");
        }
    }

    #[test]
    fn a_heartbeat_counts_for_its_time_and_its_absence_makes_away() {
        let mut state = State::default();
        state.heartbeat("web", 100);
        check(&state, 189, Shown::Online, None);
        check(&state, 190, Shown::Offline, Some(100));
        state.connected("phone", "1", 200);
        check(&state, 10_000, Shown::Online, None);
        state.used("phone", 900);
        check(&state, 10_000, Shown::Online, None);
        state.heartbeat("phone", 1_000);
        check(&state, 1_299, Shown::Online, None);
        check(&state, 1_300, Shown::Away, None);
        state.connected("tablet", "2", 1_300);
        check(&state, 2_000, Shown::Online, None);
        // The socket's end ends it, whatever a heartbeat said before.
        state.disconnected("tablet", "2", 2_000);
        state.heartbeat("phone", 2_001);
        state.disconnected("phone", "1", 2_002);
        check(&state, 2_012, Shown::Offline, Some(2_002));
        state.heartbeat("phone", 2_100);
        check(&state, 2_189, Shown::Online, None);
    }

    #[test]
    fn a_choice_holds_on_all_devices_and_whoever_hides_was_last_seen_before() {
        let mut state = State::default();
        state.connected("phone", "1", 100);
        state.choose(Status::Busy, Some(Activity::Typing), 200);
        check(&state, 200, Shown::Busy, None);
        assert_eq!(state.activity(200 + ACTIVITY_US - 1, &TIMES), Some(Kind::Typing));
        assert_eq!(state.activity(200 + ACTIVITY_US, &TIMES), None);
        state.choose(Status::Offline, Some(Activity::Recording), 300);
        state.connected("tablet", "2", 400);
        state.choose(Status::Offline, None, 500);
        check(&state, 600, Shown::Offline, Some(300));
        state.disconnected("phone", "1", 700);
        state.disconnected("tablet", "2", 700);
        check(&state, 10_000, Shown::Offline, Some(300));
        assert_eq!(state.activity(301, &TIMES), None);
        state.choose(Status::Online, None, 10_000);
        check(&state, 10_000, Shown::Offline, Some(700));
    }

    #[test]
    fn when_somebody_was_there_last_says_nothing_of_whether_they_are() {
        let mut state = State::default();
        let mut step = |now, change: fn(&mut State, Timestamp)| {
            let before = state.clone();
            change(&mut state, now);
            state.note_left(&before, now, &TIMES);
            state.last_seen_before(now, &TIMES)
        };
        assert_eq!(step(100, |state, now| state.connected("phone", "1", now)), None);
        step(200, |state, now| state.disconnected("phone", "1", now));
        assert_eq!(step(300, |state, now| state.connected("phone", "2", now)), Some(200));
        assert_eq!(step(400, |state, now| state.heartbeat("phone", now)), Some(200));
        assert_eq!(step(500, |state, now| state.choose(Status::Offline, None, now)), Some(500));
        assert_eq!(step(600, |state, now| state.choose(Status::Online, None, now)), Some(500));
        assert_eq!(step(700, |state, now| state.disconnected("phone", "2", now)), Some(500));
        assert_eq!(state.last_seen_before(710, &TIMES), Some(700));
    }

    #[test]
    fn a_host_that_was_killed_is_noticed() {
        let mut state = State::default();
        state.connected("phone", "1", 100);
        assert_eq!(state.next_look(100, &TIMES), Some(100 + SOCKETS_CHECKED_US));
        state.checked_at = 5_000;
        state.nobody_is_connected();
        check(&state, 5_010, Shown::Offline, Some(5_000));
    }

    #[test]
    fn devices_are_bounded_and_those_with_a_socket_stay() {
        let mut state = State::default();
        state.connected("phone", "1", 1);
        for number in 0..2 * DEVICES_MAX as u64 {
            state.heartbeat(&format!("web {number}"), 10 + number);
        }
        assert_eq!(state.devices.len(), DEVICES_MAX);
        assert_eq!((state.devices[0].id.as_str(), state.devices[1].id.as_str()), ("phone", "web 39"));
    }

    #[test]
    fn what_is_kept_is_read_by_other_versions() {
        let mut state = State::default();
        state.connected("phone", "1", 1);
        state.choose(Status::Busy, Some(Activity::Recording), 5);
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
        let later = r#"{"chosen":"away","devices":[{"id":"phone","new":1}],"newer":{}}"#;
        assert_eq!(serde_json::from_str::<State>(later).unwrap().chosen, Shown::Away);
    }
}
