//! The secret that the operator gives to all hosts of one database. What they share besides is derived from it, so that there is one secret to hand out.

use ring::hkdf::{HKDF_SHA256, Prk, Salt};

/// At least this many characters: 32 of base64 are 192 bits.
const CHARS_MIN: usize = 32;

#[derive(Clone)]
pub struct MasterKey(Prk);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

impl MasterKey {
    /// Errors: too short to be a key.
    pub fn of_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.len() < CHARS_MIN {
            return Err(format!("it has {} characters, at least {CHARS_MIN} are wanted; `openssl rand -base64 32` makes one", text.len()));
        }
        Ok(Self(Salt::new(HKDF_SHA256, b"echo master key").extract(text.as_bytes())))
    }

    /// HKDF with SHA-256 (RFC 5869): the secret for one purpose says nothing of that for another.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut secret = [0; 32];
        let purposes = [purpose.as_bytes()];
        let filled = self.0.expand(&purposes, HKDF_SHA256).and_then(|output| output.fill(&mut secret));
        filled.expect("32 bytes are not more than HKDF gives");
        secret
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_two_purposes_or_keys_differ_and_those_of_one_are_the_same() {
        let key = || MasterKey::of_text("0123456789abcdef0123456789abcdef\n").unwrap();
        assert_eq!(key().derive("cursors"), key().derive("cursors"));
        assert_ne!(key().derive("cursors"), key().derive("fingerprints"));
        let other = MasterKey::of_text("0123456789abcdef0123456789abcdeF").unwrap();
        assert_ne!(key().derive("cursors"), other.derive("cursors"));
        let refused = MasterKey::of_text("short").unwrap_err();
        assert!(refused.contains("openssl rand") && !refused.contains("short"), "{refused}");
    }
}
