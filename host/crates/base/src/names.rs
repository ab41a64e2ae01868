//! Names that several layers share, parsed once at the edge.

use std::fmt;
use std::sync::Arc;

/// A service's name: lower-case letters, digits and hyphens, first a letter, at most 32 characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(Arc<str>);

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no service name: lower-case letters, digits and hyphens, first a letter, at most 32 characters")]
pub struct BadServiceName(String);

impl ServiceName {
    pub fn parse(name: &str) -> Result<Self, BadServiceName> {
        let good = name.len() <= 32
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if good { Ok(Self(name.into())) } else { Err(BadServiceName(name.to_owned())) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}
