//! The service's settings. Defaults belong into `[config]` of plugin.toml; the fallbacks here are for what is missing or unreadable there.

use crate::wit::config;

pub use crate::wit::config::dev_mode;

pub fn text(key: &str) -> Option<String> {
    config::get(key)
}

/// A whole number; the fallback where the setting is missing or no number.
pub fn number(key: &str, fallback: u64) -> u64 {
    config::get(key).and_then(|text| text.trim().parse().ok()).unwrap_or(fallback)
}

/// `true` or `false`.
pub fn flag(key: &str, fallback: bool) -> bool {
    config::get(key).and_then(|text| text.trim().parse().ok()).unwrap_or(fallback)
}
