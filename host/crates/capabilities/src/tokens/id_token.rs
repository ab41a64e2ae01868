//! ID Tokens of other issuers (OpenID Connect Core 1.0, section 2): the signature, by the keys that the issuer publishes (RFC 7517), and what is signed.
//! Knows no issuer and fetches nothing; whether what a token says is good is for the service to decide.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::{Number, Value};

use echo_base::limits;

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdToken {
    pub issuer: String,
    pub subject: String,
    pub audience: Vec<String>,
    pub authorized_party: Option<String>,
    pub nonce: Option<String>,
    pub issued_at_us: u64,
    pub expires_at_us: u64,
    pub email: Option<String>,
    pub email_verified: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdTokenError {
    /// Not an ID Token that these keys have signed.
    Invalid,
    /// None of the keys is the one that it names.
    UnknownKey,
}

/// By which tokens may be signed. Never `none`, and no HMAC: its key would be one that everybody can read.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// The last second of the year 9999: a later time is none.
const LAST_S: f64 = 253_402_300_799.0;

/// `keys`: a JWK Set. What it has besides keys that can verify is ignored, as RFC 7517 section 5 says.
pub fn verify(token: &str, keys: &str) -> Result<IdToken, IdTokenError> {
    if token.len() > limits::ID_TOKEN_BYTES_MAX {
        return Err(IdTokenError::Invalid);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| IdTokenError::Invalid)?;
    // RFC 7515 section 4.1.11: extensions that are marked critical and not understood make it invalid. None is understood.
    if !ALGORITHMS.contains(&header.alg) || header.crit.is_some() {
        return Err(IdTokenError::Invalid);
    }
    // RFC 8725 section 3.11: a token that says to be of another kind, an access token for one (RFC 9068), is none.
    if header.typ.as_ref().is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT")) {
        return Err(IdTokenError::Invalid);
    }
    let keys = verifying_keys(keys, &header)?;
    let mut validation = Validation::new(header.alg);
    validation.validate_exp = false;
    validation.validate_aud = false;
    // RFC 7519 section 4.1.5, with the library's minute for clocks that differ.
    validation.validate_nbf = true;
    validation.required_spec_claims.clear();
    let decoded = keys.iter().find_map(|key| jsonwebtoken::decode::<Payload>(token, key, &validation).ok());
    decoded.and_then(|decoded| decoded.claims.read()).ok_or(IdTokenError::Invalid)
}

/// Those that may have signed it. A key that the token brings along itself (`jwk`, `jku`, `x5c`) is none.
fn verifying_keys(set: &str, header: &Header) -> Result<Vec<DecodingKey>, IdTokenError> {
    if set.len() > limits::ID_TOKEN_KEYS_BYTES_MAX {
        return Err(IdTokenError::UnknownKey);
    }
    let set: KeySet = serde_json::from_str(set).map_err(|_| IdTokenError::UnknownKey)?;
    let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Key>(key).ok());
    let mut keys: Vec<Key> = keys.filter(|key| key.may_verify(header.alg)).collect();
    match &header.kid {
        Some(kid) => keys.retain(|key| key.kid.as_ref() == Some(kid)),
        // OpenID Connect Core 1.0, section 10.1: a token without `kid` is one of an issuer with a single key.
        None if keys.len() > 1 => return Err(IdTokenError::Invalid),
        None => {}
    }
    let keys: Vec<DecodingKey> = keys.iter().filter_map(Key::decoding).take(limits::ID_TOKEN_KEYS_TRIED_MAX).collect();
    if keys.is_empty() { Err(IdTokenError::UnknownKey) } else { Ok(keys) }
}

/// Each key is read by itself: one of a kind that is not known here is no reason to miss the others.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Key {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Key {
    /// Of the algorithm's own type, and for nothing else by its own word.
    fn may_verify(&self, algorithm: Algorithm) -> bool {
        let (kty, crv, name) = match algorithm {
            Algorithm::RS256 => ("RSA", None, "RS256"),
            Algorithm::ES256 => ("EC", Some("P-256"), "ES256"),
            Algorithm::EdDSA => ("OKP", Some("Ed25519"), "EdDSA"),
            _ => return false,
        };
        self.kty == kty
            && (crv.is_none() || self.crv.as_deref() == crv)
            // RFC 9864 has the same algorithm under the curve's name.
            && self.alg.as_deref().is_none_or(|alg| alg == name || (name == "EdDSA" && alg == "Ed25519"))
            && self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|operation| operation == "verify"))
    }

    fn decoding(&self) -> Option<DecodingKey> {
        let bytes = |part: &Option<String>| URL_SAFE_NO_PAD.decode(part.as_deref()?).ok();
        match self.kty.as_str() {
            "RSA" => {
                let (n, e) = (bytes(&self.n)?, bytes(&self.e)?);
                let length = n.iter().skip_while(|byte| **byte == 0).count();
                let fits = (limits::ID_TOKEN_RSA_BYTES_MIN..=limits::ID_TOKEN_RSA_BYTES_MAX).contains(&length);
                fits.then(|| DecodingKey::from_rsa_raw_components(&n, &e))
            }
            "EC" => DecodingKey::from_ec_components(self.x.as_deref()?, self.y.as_deref()?).ok(),
            "OKP" => DecodingKey::from_ed_components(self.x.as_deref()?).ok(),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Payload {
    iss: String,
    sub: String,
    aud: OneOrMore,
    azp: Option<String>,
    nonce: Option<String>,
    iat: Number,
    exp: Number,
    email: Option<Value>,
    email_verified: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Payload {
    /// None where a time is none.
    fn read(self) -> Option<IdToken> {
        Some(IdToken {
            issuer: self.iss,
            subject: self.sub,
            audience: match self.aud {
                OneOrMore::One(one) => vec![one],
                OneOrMore::More(more) => more,
            },
            authorized_party: self.azp,
            nonce: self.nonce,
            issued_at_us: microseconds(&self.iat)?,
            expires_at_us: microseconds(&self.exp)?,
            email: self.email.and_then(|email| email.as_str().map(str::to_owned)),
            // Apple writes it as a string at times.
            email_verified: self.email_verified.is_some_and(|verified| verified == Value::Bool(true) || verified == "true"),
        })
    }
}

/// Seconds since 1970, whole or not (RFC 7519, section 2).
fn microseconds(time: &Number) -> Option<u64> {
    let seconds = time.as_f64().filter(|seconds| (0.0..=LAST_S).contains(seconds))?;
    Some((seconds * 1_000_000.0) as u64)
}

#[cfg(test)]
mod tests;
