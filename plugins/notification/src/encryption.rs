//! Encryption of a push for one browser: RFC 8291 over the content coding `aes128gcm` (RFC 8188), one record. Only the browser can read it, not its push
//! service.

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes128Gcm, Key, Nonce};
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use echo_sdk::wit::random;
use hkdf::Hkdf;
use p256::ecdh::diffie_hellman;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::{PublicKey, SecretKey};
use serde::Deserialize;
use sha2::Sha256;

/// What it adds: the header with salt, record size and key, the delimiter, and the tag.
const OVERHEAD_BYTES: usize = 16 + 4 + 1 + 65 + 1 + 16;
/// RFC 8291, section 4: a push service has to take so many bytes.
const MESSAGE_BYTES_MAX: usize = 4_096;
/// The longest text that fits, in bytes.
pub const PLAINTEXT_BYTES_MAX: usize = MESSAGE_BYTES_MAX - OVERHEAD_BYTES;

/// A browser's `PushSubscription` as JSON, which is what it registers as its token.
pub struct Subscription {
    pub endpoint: String,
    key: PublicKey,
    secret: Vec<u8>,
}

#[derive(Deserialize)]
struct SubscriptionJson {
    endpoint: String,
    keys: KeysJson,
}

#[derive(Deserialize)]
struct KeysJson {
    p256dh: String,
    auth: String,
}

impl Subscription {
    pub fn parse(token: &str) -> Option<Self> {
        let SubscriptionJson { endpoint, keys } = serde_json::from_str(token).ok()?;
        let key = PublicKey::from_sec1_bytes(&decoded(&keys.p256dh)?).ok()?;
        let secret = decoded(&keys.auth).filter(|secret| secret.len() == 16)?;
        let is_address = endpoint.starts_with("https://") || endpoint.starts_with("http://");
        is_address.then_some(Self { endpoint, key, secret })
    }

    /// None: nothing but a mistake of ours.
    pub fn encrypt(&self, plaintext: &[u8]) -> Option<Vec<u8>> {
        let salt = random_bytes();
        let own = loop {
            // Not every number is a key, almost every one is.
            let number: [u8; 32] = random_bytes();
            if let Ok(own) = SecretKey::from_slice(&number) {
                break own;
            }
        };
        self.encrypt_with(plaintext, &own, &salt)
    }

    fn encrypt_with(&self, plaintext: &[u8], own: &SecretKey, salt: &[u8; 16]) -> Option<Vec<u8>> {
        let (theirs, ours) = (self.key.to_encoded_point(false), own.public_key().to_encoded_point(false));
        let shared = diffie_hellman(own.to_nonzero_scalar(), self.key.as_affine());
        let info = [b"WebPush: info\0", theirs.as_bytes(), ours.as_bytes()].concat();
        let ikm: [u8; 32] = expanded(&self.secret, shared.raw_secret_bytes(), &info)?;
        let key: [u8; 16] = expanded(salt, &ikm, b"Content-Encoding: aes128gcm\0")?;
        let nonce: [u8; 12] = expanded(salt, &ikm, b"Content-Encoding: nonce\0")?;
        let record = [plaintext, &[2]].concat();
        let cipher = Aes128Gcm::new(&Key::<Aes128Gcm>::from(key));
        let sealed = cipher.encrypt(&Nonce::from(nonce), record.as_slice()).ok()?;
        let record_size = u32::try_from(MESSAGE_BYTES_MAX).ok()?.to_be_bytes();
        Some([salt.as_slice(), &record_size, &[65], ours.as_bytes(), &sealed].concat())
    }
}

/// HKDF with SHA-256 (RFC 5869).
fn expanded<const N: usize>(salt: &[u8], ikm: &[u8], info: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    Hkdf::<Sha256>::new(Some(salt), ikm).expand(info, &mut bytes).ok()?;
    Some(bytes)
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    for piece in bytes.chunks_mut(8) {
        piece.copy_from_slice(&random::get_random_u64().to_be_bytes()[..piece.len()]);
    }
    bytes
}

/// Base64url; some libraries pad it.
fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// RFC 8291, section 5 and appendix A.
    pub const SUBSCRIPTION: &str = r#"{"endpoint":"https://push.example.net/push/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV","expirationTime":null,"keys":{
        "p256dh":"BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4","auth":"BTBZMqHH6r4Tts7J_aSIgg"}}"#;
    const BODY: &str = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";

    #[test]
    fn a_push_is_encrypted_as_in_the_example_of_rfc_8291() {
        let subscription = Subscription::parse(SUBSCRIPTION).expect("a subscription");
        let own = SecretKey::from_slice(&decoded("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw").unwrap()).unwrap();
        let salt = decoded("DGv6ra1nlYgDCS1FRnbzlw").unwrap().try_into().unwrap();
        let plaintext = b"When I grow up, I want to be a watermelon";
        assert_eq!(URL_SAFE_NO_PAD.encode(subscription.encrypt_with(plaintext, &own, &salt).unwrap()), BODY);
    }

    #[test]
    fn the_longest_plaintext_fills_what_a_push_service_takes() {
        let subscription = Subscription::parse(SUBSCRIPTION).expect("a subscription");
        assert_eq!(subscription.encrypt(&[b'x'; PLAINTEXT_BYTES_MAX]).unwrap().len(), MESSAGE_BYTES_MAX);
    }

    #[test]
    fn what_is_no_subscription_is_refused() {
        for (from, to) in
            [("https://", "ftp://"), ("BCVx", "BCVy"), ("BTBZMqHH6r4Tts7J_aSIgg", "BTBZ"), ("\"auth\"", "\"other\""), ("{", "[")]
        {
            assert!(SUBSCRIPTION.contains(from) && Subscription::parse(&SUBSCRIPTION.replace(from, to)).is_none(), "{from}");
        }
    }
}
