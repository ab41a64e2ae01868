//! The operator's settings, over the defaults in `plugin.toml`.

use echo_sdk::config;
use echo_sdk::time::{DAY_US, SECOND_US};

use crate::state::Times;

pub struct Settings {
    pub times: Times,
    /// How long a person's state is kept after its last change.
    pub kept_us: u64,
}

impl Settings {
    pub fn load() -> Self {
        let seconds = |key: &str, fallback: u64| config::number(key, fallback).saturating_mul(SECOND_US);
        Self {
            times: Times {
                offline_after_us: seconds("offline_after_s", 10),
                heartbeat_ttl_us: seconds("heartbeat_ttl_s", 90),
                away_after_us: seconds("away_after_s", 300),
            },
            kept_us: config::number("kept_days", 30).saturating_mul(DAY_US),
        }
    }
}
