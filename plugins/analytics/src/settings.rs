//! The operator's settings, over the defaults in `plugin.toml`, and what they remove.

use echo_sdk::sql::Database;
use echo_sdk::time::DAY_US;
use echo_sdk::{Error, config, exports, time};

use crate::bindings::exports::echo::analytics::api::Step;
use crate::bounds::{CLEARED_PER_RUN, HANDLED_KEPT_US};
use crate::{steps, store};

/// How long things are kept, in microseconds.
pub struct Settings {
    pub minutes_kept_us: u64,
    pub hours_kept_us: u64,
    pub days_kept_us: u64,
    pub people_kept_us: u64,
}

impl Settings {
    pub fn load() -> Self {
        let days = |key: &str, fallback: u64| config::number(key, fallback).saturating_mul(DAY_US);
        Self {
            minutes_kept_us: days("minutes_kept_days", 2),
            hours_kept_us: days("hours_kept_days", 90),
            days_kept_us: days("days_kept_days", 800),
            people_kept_us: days("people_kept_days", 400),
        }
    }

    pub fn kept_us(&self, step: Step) -> u64 {
        match step {
            Step::Minute => self.minutes_kept_us,
            Step::Hour => self.hours_kept_us,
            Step::Day => self.days_kept_us,
        }
    }
}

/// One run of the schedule.
pub fn clear_away() -> Result<(), Error> {
    let (now, settings) = (time::now_us(), Settings::load());
    for step in steps::ALL {
        store::forget_rollups(step, now.saturating_sub(settings.kept_us(step)), CLEARED_PER_RUN)?;
    }
    store::forget_people(now.saturating_sub(settings.people_kept_us), CLEARED_PER_RUN)?;
    exports::close_expired(&Database, now, u64::from(CLEARED_PER_RUN))?;
    store::forget_cohorts(now.saturating_sub(settings.days_kept_us))?;
    Ok(store::forget_handled(now.saturating_sub(HANDLED_KEPT_US), CLEARED_PER_RUN)?)
}
