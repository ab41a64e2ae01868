//! What access tokens of all backends have in common: what is signed, how a signature is checked, and the memory of tokens that were found good (JWT,
//! RFC 7519, signed by EdDSA, RFC 8037). Knows neither where keys are kept nor which tokens were revoked.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{AccessToken, Claims, TokenError, TokenSettings};
use crate::context::Caller;
use echo_base::limits;

/// An Ed25519 key and its public half.
pub struct KeyPair {
    pub kid: String,
    /// The public half, as base64url.
    pub x: String,
    signing: EncodingKey,
    verifying: DecodingKey,
}

impl KeyPair {
    /// Errors: why it is no key.
    pub fn of_seed(seed: &[u8; 32]) -> Result<Self, String> {
        let key = SigningKey::from_bytes(seed);
        let x = URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes());
        let der = key.to_pkcs8_der().map_err(|error| error.to_string())?;
        let verifying = DecodingKey::from_ed_components(&x).map_err(|error| error.to_string())?;
        Ok(Self { kid: thumbprint(&x), x, signing: EncodingKey::from_ed_der(der.as_bytes()), verifying })
    }

    /// RFC 7517, with the key type of RFC 8037.
    pub fn jwk(&self) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.kid, "x": self.x })
    }
}

/// RFC 7638: SHA-256 of the required members in their order.
pub fn thumbprint(x: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)))
}

/// A token whose signature is good.
pub struct Accepted {
    pub caller: Arc<Caller>,
    pub jti: Uuid,
}

/// Why a signature is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    Invalid,
    /// It names a key that is not known.
    UnknownKey,
}

impl From<Refused> for TokenError {
    fn from(_: Refused) -> Self {
        TokenError::Invalid
    }
}

/// Makes and checks tokens.
pub struct Signed {
    settings: TokenSettings,
    /// `iss` and `aud` of every token that is accepted; `exp` is compared with our own clock.
    validation: Validation,
    remembered: Remembered,
}

impl Signed {
    pub fn new(settings: TokenSettings) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.validate_exp = false;
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&settings.issuer]);
        validation.set_audience(&[&settings.audience]);
        Self { settings, validation, remembered: Remembered::default() }
    }

    pub fn settings(&self) -> &TokenSettings {
        &self.settings
    }

    pub fn ttl_s(&self) -> u64 {
        self.settings.access_ttl.as_secs()
    }

    /// `issued_at_us`: on which side of a revocation it is. Errors: `Unavailable`.
    pub fn sign(&self, key: &KeyPair, claims: &Claims, now_us: u64, issued_at_us: u64) -> Result<AccessToken, TokenError> {
        let now_s = now_us / 1_000_000;
        let payload = Payload {
            user_id: claims.user_id,
            device_id: claims.device_id.clone(),
            session_id: claims.session_id,
            roles: claims.roles.clone(),
            jti: Uuid::now_v7(),
            iat: now_s,
            iat_us: issued_at_us,
            exp: now_s + self.ttl_s(),
            iss: self.settings.issuer.clone(),
            aud: self.settings.audience.clone(),
        };
        let header = Header { kid: Some(key.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        let token = jsonwebtoken::encode(&header, &payload, &key.signing).map_err(|error| {
            tracing::error!(%error, "an access token could not be signed");
            TokenError::Unavailable
        })?;
        Ok(AccessToken { token, jti: payload.jti, expires_in_s: seconds(self.ttl_s()) })
    }

    /// Who opens a socket by a ticket.
    pub fn caller_of(&self, claims: &Claims, now_us: u64, issued_at_us: u64) -> Caller {
        Caller {
            user_id: claims.user_id,
            device_id: claims.device_id.clone(),
            session_id: claims.session_id,
            roles: claims.roles.clone(),
            issued_at_us,
            expires_at_us: now_us + self.ttl_s() * 1_000_000,
        }
    }

    /// The signature alone, once for each token: the same one again is answered from memory.
    pub fn check(&self, token: &str, find: impl FnOnce(&str) -> Option<Arc<KeyPair>>) -> Result<Arc<Accepted>, Refused> {
        if token.len() > limits::TOKEN_BYTES_MAX {
            return Err(Refused::Invalid);
        }
        let fingerprint = fingerprint(token);
        if let Some(accepted) = self.remembered.get(&fingerprint) {
            return Ok(accepted);
        }
        let accepted = Arc::new(self.check_signature(token, find)?);
        self.remembered.put(fingerprint, accepted.clone());
        Ok(accepted)
    }

    fn check_signature(&self, token: &str, find: impl FnOnce(&str) -> Option<Arc<KeyPair>>) -> Result<Accepted, Refused> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refused::Invalid)?;
        // RFC 7515 §4.1.11: who does not understand an extension that is marked critical must refuse it. We understand none.
        if header.alg != Algorithm::EdDSA || header.crit.is_some() {
            return Err(Refused::Invalid);
        }
        let kid = header.kid.ok_or(Refused::Invalid)?;
        let key = find(&kid).ok_or(Refused::UnknownKey)?;
        let decoded = jsonwebtoken::decode::<Payload>(token, &key.verifying, &self.validation).map_err(|_| Refused::Invalid)?;
        let payload = decoded.claims;
        let caller = Caller {
            user_id: payload.user_id,
            device_id: payload.device_id,
            session_id: payload.session_id,
            roles: payload.roles,
            issued_at_us: payload.iat_us,
            expires_at_us: payload.exp.saturating_mul(1_000_000),
        };
        Ok(Accepted { caller: Arc::new(caller), jti: payload.jti })
    }
}

/// What is signed. `iat_us` is finer than `iat`, so that a token issued in the second of a revocation is on the right side of it.
#[derive(Serialize, Deserialize)]
struct Payload {
    user_id: Uuid,
    device_id: String,
    session_id: Uuid,
    roles: Vec<String>,
    jti: Uuid,
    iat: u64,
    iat_us: u64,
    exp: u64,
    iss: String,
    aud: String,
}

/// SHA-256 of a token or ticket: memory that leaks gives nobody a working one, and it is a tenth of the size.
pub type Fingerprint = [u8; 32];

pub fn fingerprint(token: &str) -> Fingerprint {
    Sha256::digest(token).into()
}

pub fn seconds(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Tokens whose signature was found good. Two generations: when the young one is full it becomes the old one, and what nobody asked for
/// in the meantime is forgotten.
#[derive(Default)]
struct Remembered {
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Fingerprint, Arc<Accepted>>,
    old: HashMap<Fingerprint, Arc<Accepted>>,
}

impl Remembered {
    fn get(&self, fingerprint: &Fingerprint) -> Option<Arc<Accepted>> {
        let mut generations = self.generations.lock();
        if let Some(accepted) = generations.young.get(fingerprint) {
            return Some(accepted.clone());
        }
        let accepted = generations.old.remove(fingerprint)?;
        generations.put(*fingerprint, accepted.clone());
        Some(accepted)
    }

    fn put(&self, fingerprint: Fingerprint, accepted: Arc<Accepted>) {
        self.generations.lock().put(fingerprint, accepted);
    }
}

impl Generations {
    fn put(&mut self, fingerprint: Fingerprint, accepted: Arc<Accepted>) {
        if self.young.len() >= limits::TOKEN_MEMORY_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(fingerprint, accepted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::suite::claims;

    #[test]
    fn a_signature_is_checked_once_and_the_memory_is_bounded() {
        let (signed, key) = (Signed::new(TokenSettings::default()), Arc::new(KeyPair::of_seed(&[7; 32]).unwrap()));
        let token = signed.sign(&key, &claims(), 1_000_000, 1_000_000).unwrap().token;
        let first = signed.check(&token, |_| Some(key.clone())).unwrap();
        let second = signed.check(&token, |_| panic!("asked again")).unwrap();
        assert!(Arc::ptr_eq(&first, &second), "the second time it comes from memory");
        for n in 0..limits::TOKEN_MEMORY_MAX as u64 * 2 {
            let mut other = [0; 32];
            other[..8].copy_from_slice(&n.to_le_bytes());
            signed.remembered.put(other, first.clone());
        }
        let generations = signed.remembered.generations.lock();
        assert!(generations.young.len() + generations.old.len() <= limits::TOKEN_MEMORY_MAX);
    }
}
