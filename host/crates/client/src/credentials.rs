//! The tokens of this device, and when they end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits;
use crate::types::Tokens;

/// Times are of this device's clock, taken when the answer arrived: the server's clock may differ.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Credentials {
    pub access_token: String,
    pub refresh_token: String,
    pub user_id: Uuid,
    pub device_id: String,
    pub session_id: Uuid,
    /// Milliseconds since 1970.
    pub renew_at_ms: u64,
    pub expires_at_ms: u64,
}

/// Without the tokens.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials of {} on {:?}", self.user_id, self.device_id)
    }
}

impl Credentials {
    pub fn of(tokens: Tokens) -> Self {
        let Tokens { access_token, refresh_token, user_id, device_id, session_id, expires_in, .. } = tokens;
        let (now, life_ms) = (now_ms(), expires_in.saturating_mul(1_000));
        let (renew_at_ms, expires_at_ms) = (now.saturating_add(life_ms / 100 * limits::RENEW_AFTER_PERCENT), now.saturating_add(life_ms));
        Self { access_token, refresh_token, user_id, device_id, session_id, renew_at_ms, expires_at_ms }
    }

    pub fn is_fresh(&self, refused: Option<&str>) -> bool {
        refused != Some(self.access_token.as_str()) && now_ms() < self.renew_at_ms
    }

    /// How long until the access token is to be renewed.
    pub fn renew_in(&self) -> Duration {
        Duration::from_millis(self.renew_at_ms.saturating_sub(now_ms()))
    }
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_when_four_fifths_of_its_life_are_over_or_it_was_refused() {
        let tokens = Tokens {
            access_token: "a".to_owned(),
            refresh_token: "r".to_owned(),
            token_type: "Bearer".to_owned(),
            expires_in: 900,
            refresh_expires_in: 9_000,
            user_id: Uuid::nil(),
            session_id: Uuid::nil(),
            device_id: String::new(),
        };
        let mut credentials = Credentials::of(tokens);
        let (least, most) = (Duration::from_secs(700), Duration::from_secs(720));
        assert!((least..=most).contains(&credentials.renew_in()), "{:?}", credentials.renew_in());
        assert!(credentials.is_fresh(None) && credentials.is_fresh(Some("b")) && !credentials.is_fresh(Some("a")));
        credentials.renew_at_ms = now_ms();
        assert!(!credentials.is_fresh(None));
        assert_eq!(format!("{credentials:?}").find("\"a\""), None, "no token is shown");
    }
}
