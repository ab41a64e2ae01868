//! The rules over a cache, a clock and a hub of the tests' own: what many people cause, counted.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};

use echo_sdk::time::{MINUTE_US, SECOND_US};
use echo_sdk::{Error, Timestamp};

use crate::bindings::echo::presence::events::Update;
use crate::bindings::echo::presence::pushes::{PresenceChange, ShownStatus};
use crate::bindings::exports::echo::presence::api::{Presence, SetStatusRequest, Status};
use crate::bounds::{SENT_PER_RUN, SOCKETS_CHECKED_US, WATCHED_MAX};
use crate::platform::{Audience, Platform, Question};
use crate::settings::Settings;
use crate::state::Times;
use crate::{changes, others, own, store};

const RUN_US: u64 = SECOND_US / 2;
const SETTINGS: Settings = Settings {
    times: Times { offline_after_us: 10 * SECOND_US, heartbeat_ttl_us: 90 * SECOND_US, away_after_us: 300 * SECOND_US },
    kept_us: 24 * 60 * MINUTE_US,
};

/// Time passes when a test says so; nothing expires.
#[derive(Default)]
struct Fake {
    now_us: Cell<Timestamp>,
    values: RefCell<HashMap<String, Vec<u8>>>,
    sets: RefCell<HashMap<String, BTreeSet<String>>>,
    sockets: RefCell<BTreeSet<String>>,
    /// Pairs of a user and a viewer who sees nothing of them, and pairs of those who do not see when they were there.
    hidden: RefCell<BTreeSet<(String, String)>>,
    without_last_seen: RefCell<BTreeSet<(String, String)>>,
    /// Each push with its users.
    pushed: RefCell<Vec<(Vec<String>, PresenceChange)>>,
    published: RefCell<Vec<Update>>,
    connections: Cell<u64>,
}

impl Platform for Fake {
    fn now_us(&self) -> Timestamp {
        self.now_us.get()
    }

    fn remaining_ms(&self) -> u64 {
        10_000
    }

    fn get(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        assert!(keys.len() <= 1_000, "the cache gives no more at once");
        Ok(keys.iter().map(|key| self.values.borrow().get(key).cloned()).collect())
    }

    fn swap(&self, key: &str, expected: Option<&[u8]>, value: &[u8], _ttl_us: u64) -> Result<bool, Error> {
        let mut values = self.values.borrow_mut();
        let holds = values.get(key).map(Vec::as_slice) == expected;
        if holds {
            values.insert(key.to_owned(), value.to_owned());
        }
        Ok(holds)
    }

    fn set_add(&self, key: &str, members: &[String], _ttl_us: u64) -> Result<bool, Error> {
        self.sets.borrow_mut().entry(key.to_owned()).or_default().extend(members.iter().cloned());
        Ok(true)
    }

    fn set_remove(&self, key: &str, members: &[String]) -> Result<(), Error> {
        if let Some(set) = self.sets.borrow_mut().get_mut(key) {
            for member in members {
                set.remove(member);
            }
        }
        Ok(())
    }

    fn set_members(&self, key: &str) -> Result<Vec<String>, Error> {
        Ok(self.sets.borrow().get(key).map(|set| set.iter().cloned().collect()).unwrap_or_default())
    }

    fn connected(&self, users: &[String]) -> Result<Vec<String>, Error> {
        Ok(users.iter().filter(|user| self.sockets.borrow().contains(*user)).cloned().collect())
    }

    fn audiences(&self, questions: Vec<Question>) -> Result<Vec<Audience>, Error> {
        let among = |question: &Question, kept_out: &BTreeSet<(String, String)>| -> Vec<String> {
            let pair = |viewer: &String| (question.user_id.clone(), viewer.clone());
            question.viewer_ids.iter().filter(|viewer| !kept_out.contains(&pair(viewer))).cloned().collect()
        };
        let audience = |question: Question| Audience {
            presence: among(&question, &self.hidden.borrow()),
            last_seen: among(&question, &self.without_last_seen.borrow()),
            user_id: question.user_id,
        };
        Ok(questions.into_iter().map(audience).collect())
    }

    fn push(&self, users: &[String], change: &PresenceChange) -> Result<(), Error> {
        if !users.is_empty() {
            self.pushed.borrow_mut().push((users.to_vec(), change.clone()));
        }
        Ok(())
    }

    fn publish(&self, updates: &[Update]) -> Result<(), Error> {
        self.published.borrow_mut().extend_from_slice(updates);
        Ok(())
    }
}

impl Fake {
    fn new() -> Self {
        let fake = Self::default();
        fake.now_us.set(1_700_000_000 * SECOND_US);
        fake
    }

    /// The user's one device opens a socket; its id.
    fn connect(&self, user: &str) -> String {
        let connection = format!("{:09}", self.connections.replace(self.connections.get() + 1));
        self.sockets.borrow_mut().insert(user.to_owned());
        own::connected(self, &SETTINGS, user, "phone", &connection).unwrap();
        connection
    }

    fn disconnect(&self, user: &str, connection: &str) {
        self.sockets.borrow_mut().remove(user);
        own::disconnected(self, &SETTINGS, user, "phone", connection).unwrap();
    }

    fn choose(&self, user: &str, status: Status) {
        own::set_status(self, &SETTINGS, user, "phone", SetStatusRequest { status, activity: None }).unwrap();
    }

    fn sees(&self, viewer: &str, user: &str) -> Presence {
        others::list(self, &SETTINGS, viewer, vec![user.to_owned()]).unwrap().items.remove(0)
    }

    /// Runs of the schedule for so long; the most pushes of one run.
    fn pass(&self, time_us: u64) -> usize {
        let mut most = 0;
        for _ in 0..time_us / RUN_US {
            self.now_us.set(self.now_us.get() + RUN_US);
            let before = self.pushed.borrow().len();
            changes::publish(self, &SETTINGS).unwrap();
            most = most.max(self.pushed.borrow().len() - before);
        }
        most
    }

    /// What was pushed since, as viewers and what they got.
    fn pushed(&self) -> Vec<(Vec<String>, PresenceChange)> {
        std::mem::take(&mut self.pushed.borrow_mut())
    }
}

fn statuses_of(pushed: &[(Vec<String>, PresenceChange)]) -> Vec<&str> {
    let name = |status| match status {
        ShownStatus::Online => "online",
        ShownStatus::Away => "away",
        ShownStatus::Busy => "busy",
        ShownStatus::Offline => "offline",
    };
    pushed.iter().map(|(_, change)| name(change.status)).collect()
}

#[test]
fn ten_thousand_people_who_come_back_within_a_moment_cause_no_push() {
    let fake = Fake::new();
    let people: Vec<String> = (0..10_000).map(|number| format!("person {number:05}")).collect();
    fake.connect("viewer");
    let mut connections: Vec<String> = people.iter().map(|person| fake.connect(person)).collect();
    for people in people.chunks(100) {
        others::list(&fake, &SETTINGS, "viewer", people.to_vec()).unwrap();
    }
    // As they come: bit by bit, never more at a time than the bound, and of those asked about a moment ago alone.
    let most = fake.pass(2 * MINUTE_US);
    assert!(most <= SENT_PER_RUN, "{most} pushes in one run");
    assert_eq!(fake.pushed().len(), WATCHED_MAX);
    assert_eq!(fake.published.take().len(), people.len() + 1);

    // The host is gone for a moment; everybody comes back, twice.
    for _ in 0..2 {
        for (person, connection) in people.iter().zip(&mut connections) {
            fake.disconnect(person, connection);
            *connection = fake.connect(person);
        }
        fake.pass(5 * SECOND_US);
    }
    fake.pass(2 * MINUTE_US);
    assert_eq!((fake.pushed().len(), fake.published.take().len()), (0, 0));

    // Those who do not come back are offline once.
    for (person, connection) in people.iter().zip(&connections) {
        fake.disconnect(person, connection);
    }
    let most = fake.pass(2 * MINUTE_US);
    let pushed = fake.pushed();
    assert!(most <= SENT_PER_RUN, "{most} pushes in one run");
    assert_eq!(pushed.len(), WATCHED_MAX);
    assert!(statuses_of(&pushed).iter().all(|status| *status == "offline"));
    assert_eq!(fake.published.take().len(), people.len());
}

#[test]
fn what_changes_again_and_again_is_sent_once_a_second() {
    let fake = Fake::new();
    fake.connect("viewer");
    fake.connect("ada");
    fake.sees("viewer", "ada");
    fake.pass(5 * SECOND_US);
    fake.pushed();
    for number in 0..600 {
        fake.choose("ada", if number % 2 == 0 { Status::Busy } else { Status::Online });
        if number % 10 == 0 {
            fake.pass(RUN_US);
        }
    }
    fake.pass(5 * SECOND_US);
    let pushed: Vec<_> = fake.pushed().into_iter().filter(|(viewers, _)| *viewers == ["viewer"]).collect();
    assert!((2..=31).contains(&pushed.len()), "{} pushes in 30 seconds", pushed.len());
    assert_eq!(statuses_of(&pushed).last(), Some(&"online"));
}

#[test]
fn whoever_is_kept_out_sees_the_other_leave_at_once_and_nothing_after_that() {
    let fake = Fake::new();
    for person in ["ada", "bala", "chen"] {
        fake.connect(person);
    }
    let kept_out = ("ada".to_owned(), "bala".to_owned());
    for viewer in ["bala", "chen"] {
        assert_eq!(fake.sees(viewer, "ada").status, Status::Online);
    }
    fake.pass(5 * SECOND_US);
    fake.pushed();

    fake.hidden.borrow_mut().insert(kept_out.clone());
    fake.without_last_seen.borrow_mut().insert(kept_out.clone());
    changes::audience_changed(&fake, &SETTINGS, "ada").unwrap();
    let pushed = fake.pushed();
    assert_eq!(pushed.len(), 1);
    assert_eq!(pushed[0].0, ["bala"]);
    let change = &pushed[0].1;
    assert_eq!((change.user_id.as_str(), change.status, change.activity, change.last_seen), ("ada", ShownStatus::Offline, None, None));
    // As somebody whom nobody knows, and not a word of what follows.
    let unknown = fake.sees("bala", "nobody");
    let ada = fake.sees("bala", "ada");
    assert_eq!((ada.status, ada.activity, ada.last_seen), (unknown.status, unknown.activity, unknown.last_seen));
    fake.choose("ada", Status::Busy);
    fake.pass(5 * SECOND_US);
    assert!(fake.pushed().iter().all(|(viewers, _)| !viewers.contains(&"bala".to_owned())));

    // To whom she was offline already, nothing is said of it.
    fake.hidden.borrow_mut().clear();
    fake.choose("ada", Status::Offline);
    fake.pass(5 * SECOND_US);
    fake.sees("bala", "ada");
    fake.pushed();
    fake.hidden.borrow_mut().insert(kept_out);
    changes::audience_changed(&fake, &SETTINGS, "ada").unwrap();
    assert!(fake.pushed().is_empty());
}

#[test]
fn a_change_is_not_sent_to_those_who_were_kept_out_before_the_event_came() {
    let fake = Fake::new();
    fake.connect("bala");
    fake.sees("bala", "ada");
    fake.hidden.borrow_mut().insert(("ada".to_owned(), "bala".to_owned()));
    fake.connect("ada");
    fake.pass(5 * SECOND_US);
    assert!(fake.pushed().is_empty());
}

#[test]
fn when_somebody_was_there_last_goes_to_those_alone_who_may_see_it() {
    let fake = Fake::new();
    for viewer in ["bala", "chen"] {
        fake.connect(viewer);
    }
    fake.without_last_seen.borrow_mut().insert(("ada".to_owned(), "chen".to_owned()));
    let connection = fake.connect("ada");
    for viewer in ["bala", "chen"] {
        fake.sees(viewer, "ada");
    }
    fake.pass(5 * SECOND_US);
    fake.pushed();
    fake.disconnect("ada", &connection);
    fake.pass(20 * SECOND_US);
    let pushed = fake.pushed();
    assert_eq!(pushed.iter().map(|(viewers, _)| viewers.join(" ")).collect::<Vec<_>>(), ["bala", "chen"]);
    assert!(pushed[0].1.last_seen.is_some() && pushed[1].1.last_seen.is_none(), "{pushed:?}");
    assert!(fake.sees("bala", "ada").last_seen.is_some() && fake.sees("chen", "ada").last_seen.is_none());
}

#[test]
fn whoever_has_no_socket_watches_nobody() {
    let fake = Fake::new();
    fake.sees("viewer", "ada");
    fake.connect("ada");
    fake.pass(5 * SECOND_US);
    assert!(fake.pushed().is_empty());
    // And whoever loses it has to ask again.
    let connection = fake.connect("viewer");
    fake.sees("viewer", "ada");
    fake.disconnect("viewer", &connection);
    fake.choose("ada", Status::Busy);
    fake.pass(5 * SECOND_US);
    fake.connect("viewer");
    fake.choose("ada", Status::Online);
    fake.pass(5 * SECOND_US);
    assert!(fake.pushed().iter().all(|(viewers, _)| viewers == &["ada"]));
}

#[test]
fn a_host_that_was_killed_leaves_nobody_online_for_ever() {
    let fake = Fake::new();
    fake.connect("viewer");
    fake.connect("ada");
    fake.sees("viewer", "ada");
    fake.pass(5 * SECOND_US);
    fake.sockets.borrow_mut().remove("ada");
    fake.pass(SOCKETS_CHECKED_US + MINUTE_US);
    let last = fake.sees("viewer", "ada");
    assert_eq!(last.status, Status::Offline);
    assert_eq!(statuses_of(&fake.pushed()), ["online", "offline"]);
}

#[test]
fn a_heartbeat_that_does_not_come_makes_offline() {
    let fake = Fake::new();
    fake.connect("viewer");
    fake.sees("viewer", "ada");
    let alive = own::heartbeat(&fake, &SETTINGS, "ada", "web").unwrap();
    assert_eq!((alive.status, alive.expires_in), (Status::Online, 90));
    fake.pass(3 * MINUTE_US);
    assert_eq!(statuses_of(&fake.pushed()), ["online", "offline"]);
}

#[test]
fn each_is_answered_once() {
    let fake = Fake::new();
    let list = |users: &[&str]| others::list(&fake, &SETTINGS, "me", users.iter().map(|user| (*user).to_owned()).collect());
    let answered = list(&["b", "a", "b"]).unwrap().items;
    assert_eq!(answered.iter().map(|presence| presence.user_id.as_str()).collect::<Vec<_>>(), ["b", "a"]);
}

#[test]
fn of_a_person_who_was_erased_nothing_is_known() {
    let fake = Fake::new();
    fake.connect("ada");
    fake.choose("ada", Status::Busy);
    assert_ne!(store::state(&fake, "ada").unwrap(), store::state(&fake, "nobody").unwrap());
    store::forget(&fake, "ada").unwrap();
    assert_eq!(store::state(&fake, "ada").unwrap(), store::state(&fake, "nobody").unwrap());
}
