//! A service's settings: the operator's `[services.<name>]` over the defaults in the manifest.

use std::collections::BTreeMap;

pub mod host;

#[derive(Clone, Debug, Default)]
pub struct ServiceSettings {
    pub dev_mode: bool,
    /// Values as text.
    pub values: BTreeMap<String, String>,
}
