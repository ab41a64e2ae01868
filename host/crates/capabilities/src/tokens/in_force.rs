//! Which sessions and users had their tokens ended, in memory: asked for every request. Knows nothing of where it is kept.

use std::collections::HashMap;

use parking_lot::RwLock;
use uuid::Uuid;

use super::{Revocation, TokenError};
use crate::context::Caller;
use echo_base::limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    pub at_us: u64,
    /// After this no token is left that it could concern.
    pub until_us: u64,
}

/// `margin_us`: by how much the clocks of two hosts that sign may differ. A token that bears a time up to so much after a revocation may have been signed
/// before it, by a host whose clock is ahead, and is taken for that. A host that knows of the revocation gives later ones a time beyond the margin.
pub struct InForce {
    revocations: RwLock<HashMap<Revocation, Revoked>>,
    margin_us: u64,
}

impl InForce {
    pub fn new(margin_us: u64) -> Self {
        Self { revocations: RwLock::default(), margin_us }
    }

    /// Errors: `Unavailable` where there are `REVOCATIONS_MAX` and this is none of them.
    pub fn has_room(&self, revocation: Revocation) -> Result<(), TokenError> {
        let revocations = self.revocations.read();
        if revocations.len() >= limits::REVOCATIONS_MAX && !revocations.contains_key(&revocation) {
            return Err(TokenError::Unavailable);
        }
        Ok(())
    }

    /// Holds from now on. Whether that is new.
    pub fn insert(&self, revocation: Revocation, revoked: Revoked) -> bool {
        let mut revocations = self.revocations.write();
        let known = revocations.entry(revocation).or_insert(Revoked { at_us: 0, until_us: 0 });
        let is_new = revoked.at_us > known.at_us;
        known.at_us = known.at_us.max(revoked.at_us);
        known.until_us = known.until_us.max(revoked.until_us);
        is_new
    }

    pub fn session_is_revoked(&self, session: Uuid) -> bool {
        self.revocations.read().contains_key(&Revocation::Session(session))
    }

    /// The least time that a token of this user has to bear in order to count as issued after what is known here.
    pub fn earliest_issue_us(&self, user: Uuid) -> u64 {
        self.revocations.read().get(&Revocation::User(user)).map_or(0, |revoked| revoked.at_us + self.margin_us + 1)
    }

    /// Whether what was issued so has been ended.
    pub fn concerns(&self, caller: &Caller) -> bool {
        let revocations = self.revocations.read();
        revocations.contains_key(&Revocation::Session(caller.session_id))
            || revocations
                .get(&Revocation::User(caller.user_id))
                .is_some_and(|revoked| caller.issued_at_us <= revoked.at_us + self.margin_us)
    }

    /// The moment of the latest one; 0 without any.
    pub fn latest_at_us(&self) -> u64 {
        self.revocations.read().values().map(|revoked| revoked.at_us).max().unwrap_or(0)
    }

    /// Forgets those that no living token could fall under.
    pub fn purge(&self, now_us: u64) {
        self.revocations.write().retain(|_, revoked| revoked.until_us > now_us);
    }
}
