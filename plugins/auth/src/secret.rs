//! Secrets that a client holds: refresh tokens, registrations, requests for a new password. Only a keyed hash of one is ever stored.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use echo_sdk::ids;
use echo_sdk::wit::passwords;

const BYTES: usize = 32;
/// 32 bytes in base64url without padding.
const CHARS: usize = 43;

/// What a secret is good for; it fits nothing else.
#[derive(Clone, Copy)]
pub enum Kind {
    Refresh,
    Registration,
    Reset,
}

pub struct Secret {
    pub text: String,
    pub fingerprint: String,
}

impl Secret {
    pub fn new(kind: Kind) -> Self {
        Self::of(kind, URL_SAFE_NO_PAD.encode(ids::random_bytes(BYTES)))
    }

    /// None for what cannot be one.
    pub fn given(kind: Kind, text: &str) -> Option<Self> {
        let bytes = (text.len() == CHARS).then(|| URL_SAFE_NO_PAD.decode(text).ok())??;
        (bytes.len() == BYTES).then(|| Self::of(kind, text.to_owned()))
    }

    fn of(kind: Kind, text: String) -> Self {
        let kind = match kind {
            Kind::Refresh => "refresh",
            Kind::Registration => "registration",
            Kind::Reset => "reset",
        };
        let fingerprint = passwords::fingerprint(&format!("{kind}:{text}"));
        Self { text, fingerprint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_secret_is_not_looked_up() {
        let padded = format!("{}=", "A".repeat(42));
        for text in ["", "short", &"A".repeat(44), &"*".repeat(43), &padded] {
            assert!(Secret::given(Kind::Refresh, text).is_none(), "{text}");
        }
    }
}
