//! Tokens that issuers sign, and those that others make to look like them.

use ed25519_dalek::{Signer, SigningKey};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, encode};
use serde_json::json;

use super::*;

/// Made by `openssl genpkey`, for tests.
const P256_PEM: &str = include_str!("../../http/suite/p256.pem");
const RSA_PEM: &str = include_str!("../../http/suite/rsa.pem");

fn signing(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(P256_PEM.as_bytes()).unwrap(),
        Algorithm::EdDSA => ed25519(7),
        _ => EncodingKey::from_rsa_pem(RSA_PEM.as_bytes()).unwrap(),
    }
}

/// In PKCS #8 without the public half (RFC 8410, section 7), which alone `Jwk::from_encoding_key` reads.
fn ed25519(seed: u8) -> EncodingKey {
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    EncodingKey::from_ed_der(&[head.as_slice(), &[seed; 32]].concat())
}

/// The public half, as an issuer publishes it.
fn published(key: &EncodingKey, algorithm: Algorithm, kid: &str) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, algorithm).unwrap()).unwrap();
    jwk["kid"] = json!(kid);
    jwk["use"] = json!("sig");
    jwk
}

/// One key for each algorithm, with the algorithm's name as its `kid`.
fn published_keys() -> Vec<Value> {
    ALGORITHMS.iter().map(|algorithm| published(&signing(*algorithm), *algorithm, &format!("{algorithm:?}"))).collect()
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn header(algorithm: Algorithm) -> Header {
    Header { kid: Some(format!("{algorithm:?}")), ..Header::new(algorithm) }
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example", "sub": "ada", "aud": "echo", "azp": "echo", "nonce": "n-1", "iat": 1_700_000_000, "exp": 1_700_003_600,
        "email": "ada@example.org", "email_verified": true,
    })
}

fn token(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    encode(header, claims, key).unwrap()
}

fn good(algorithm: Algorithm) -> String {
    token(&header(algorithm), &claims(), &signing(algorithm))
}

/// By hand, with this text as its header and this as its signature.
fn by_hand(header: &Value, signature: impl FnOnce(&str) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(&claims()));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature(&signed)))
}

#[test]
fn a_token_that_a_published_key_has_signed_is_read() {
    let keys = set(&published_keys());
    for algorithm in ALGORITHMS {
        let said = verify(&good(algorithm), &keys).unwrap();
        let expect = IdToken {
            issuer: "https://id.example".to_owned(),
            subject: "ada".to_owned(),
            audience: vec!["echo".to_owned()],
            authorized_party: Some("echo".to_owned()),
            nonce: Some("n-1".to_owned()),
            issued_at_us: 1_700_000_000_000_000,
            expires_at_us: 1_700_003_600_000_000,
            email: Some("ada@example.org".to_owned()),
            email_verified: true,
        };
        assert_eq!(said, expect, "{algorithm:?}");
    }
}

#[test]
fn a_token_that_nobody_signed_is_invalid() {
    let keys = set(&published_keys());
    for alg in ["none", "None", "NONE", ""] {
        for kid in [json!("RS256"), json!("none"), Value::Null] {
            let unsigned = by_hand(&json!({ "alg": alg, "kid": kid, "typ": "JWT" }), |_| Vec::new());
            assert_eq!(verify(&unsigned, &keys), Err(IdTokenError::Invalid), "{alg} {kid}");
        }
    }
    for nothing in ["", ".", "..", "a.b.c", "a.b", "ä.ö.ü"] {
        assert_eq!(verify(nothing, &keys), Err(IdTokenError::Invalid), "{nothing}");
    }
}

#[test]
fn a_public_key_is_no_secret_to_sign_with() {
    let published = published_keys();
    let rsa = &published[0];
    let modulus = URL_SAFE_NO_PAD.decode(rsa["n"].as_str().unwrap()).unwrap();
    let keys = set(&published);
    for secret in [rsa["n"].as_str().unwrap().as_bytes(), &modulus, rsa.to_string().as_bytes(), keys.as_bytes(), b""] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let header = Header { kid: Some("RS256".to_owned()), ..Header::new(algorithm) };
            let forged = token(&header, &claims(), &EncodingKey::from_secret(secret));
            assert_eq!(verify(&forged, &keys), Err(IdTokenError::Invalid), "{algorithm:?}");
        }
    }
    // Nor where the issuer publishes a secret.
    let oct = json!({ "kty": "oct", "kid": "HS256", "k": URL_SAFE_NO_PAD.encode("secret") });
    let header = Header { kid: Some("HS256".to_owned()), ..Header::new(Algorithm::HS256) };
    let forged = token(&header, &claims(), &EncodingKey::from_secret(b"secret"));
    assert_eq!(verify(&forged, &set(&[oct])), Err(IdTokenError::Invalid));
}

#[test]
fn other_algorithms_than_the_three_are_invalid() {
    let keys = set(&published_keys());
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        let header = Header { kid: Some("RS256".to_owned()), ..Header::new(algorithm) };
        assert_eq!(verify(&token(&header, &claims(), &signing(algorithm)), &keys), Err(IdTokenError::Invalid), "{algorithm:?}");
    }
}

#[test]
fn a_changed_token_and_one_of_another_key_are_invalid() {
    let keys = set(&published_keys());
    for algorithm in ALGORITHMS {
        let good = good(algorithm);
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let (head, _) = signed.split_once('.').unwrap();
        let mut other = claims();
        other["sub"] = json!("bala");
        let changed = format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(other.to_string()));
        let cut = format!("{signed}.{}", &signature[..signature.len() - 4]);
        for forged in [changed, cut, format!("{signed}."), format!("{good}A"), format!("{good}.")] {
            assert_eq!(verify(&forged, &keys), Err(IdTokenError::Invalid), "{algorithm:?} {forged}");
        }
    }
    let forged = token(&header(Algorithm::EdDSA), &claims(), &ed25519(8));
    assert_eq!(verify(&forged, &keys), Err(IdTokenError::Invalid));
    // Nor does it help to bring the key along.
    let brought = Header { jwk: Some(Jwk::from_encoding_key(&ed25519(8), Algorithm::EdDSA).unwrap()), ..header(Algorithm::EdDSA) };
    assert_eq!(verify(&token(&brought, &claims(), &ed25519(8)), &keys), Err(IdTokenError::Invalid));
}

#[test]
fn a_critical_extension_that_nobody_understands_is_invalid() {
    let keys = set(&published_keys());
    let header = json!({ "alg": "EdDSA", "kid": "EdDSA", "crit": ["exp"], "exp": 1 });
    let signed = by_hand(&header, |text| SigningKey::from_bytes(&[7; 32]).sign(text.as_bytes()).to_bytes().to_vec());
    assert_eq!(verify(&signed, &keys), Err(IdTokenError::Invalid));
}

#[test]
fn a_key_is_found_by_its_name_and_serves_what_it_says() {
    let rsa = |change: &dyn Fn(&mut Value)| {
        let mut key = published_keys().remove(0);
        change(&mut key);
        set(&[key])
    };
    let token = good(Algorithm::RS256);
    assert!(verify(&token, &rsa(&|_| {})).is_ok());
    assert!(verify(&token, &rsa(&|key| key["key_ops"] = json!(["verify"]))).is_ok());
    let short = |key: &mut Value| {
        let n = URL_SAFE_NO_PAD.decode(key["n"].as_str().unwrap()).unwrap();
        key["n"] = json!(URL_SAFE_NO_PAD.encode(&n[..limits::ID_TOKEN_RSA_BYTES_MIN / 2]));
    };
    type Change<'c> = (&'static str, &'c dyn Fn(&mut Value));
    let cases: [Change<'_>; 7] = [
        ("another name", &|key| key["kid"] = json!("RS255")),
        ("no name", &|key| key["kid"] = Value::Null),
        ("for encryption", &|key| key["use"] = json!("enc")),
        ("for signing alone", &|key| key["key_ops"] = json!(["sign"])),
        ("of another algorithm", &|key| key["alg"] = json!("RS512")),
        ("of another type", &|key| key["kty"] = json!("EC")),
        ("too short", &short),
    ];
    for (what, change) in cases {
        assert_eq!(verify(&token, &rsa(change)), Err(IdTokenError::UnknownKey), "{what}");
    }
    for keys in ["", "no JSON", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#, r#"{"keys":[1,{"kty":1},{"kty":"RSA","kid":"RS256"}]}"#] {
        assert_eq!(verify(&token, keys), Err(IdTokenError::UnknownKey), "{keys}");
    }
}

#[test]
fn keys_that_are_not_known_here_are_no_reason_to_miss_the_others() {
    let mut keys = vec![json!({ "kty": "EC", "crv": "secp256k1", "kid": "RS256" }), json!({ "kty": "AKP", "kid": "new" }), json!("a text")];
    keys.extend(published_keys());
    assert!(verify(&good(Algorithm::RS256), &set(&keys)).is_ok());
}

#[test]
fn a_token_without_a_name_of_its_key_is_of_an_issuer_with_one_key() {
    let unnamed = token(&Header::new(Algorithm::EdDSA), &claims(), &ed25519(7));
    let key = |seed| published(&ed25519(seed), Algorithm::EdDSA, &format!("{seed}"));
    assert!(verify(&unnamed, &set(&[key(7)])).is_ok());
    assert!(verify(&unnamed, &set(&published_keys())).is_ok(), "one of its algorithm");
    assert_eq!(verify(&unnamed, &set(&[key(7), key(8)])), Err(IdTokenError::Invalid));
    assert_eq!(verify(&unnamed, &set(&[])), Err(IdTokenError::UnknownKey));
}

#[test]
fn claims_are_read_in_every_form_that_they_may_have() {
    let keys = set(&published_keys());
    let read = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims();
        change(&mut claims);
        verify(&token(&header(Algorithm::EdDSA), &claims, &ed25519(7)), &keys)
    };
    assert_eq!(read(&|claims| claims["aud"] = json!(["echo", "other"])).unwrap().audience, ["echo", "other"]);
    assert_eq!(read(&|claims| claims["iat"] = json!(1_700_000_000.5)).unwrap().issued_at_us, 1_700_000_000_500_000);
    assert!(read(&|claims| claims["email_verified"] = json!("true")).unwrap().email_verified);
    for unverified in [json!("false"), json!(1), Value::Null, json!(false)] {
        assert!(!read(&|claims| claims["email_verified"] = unverified.clone()).unwrap().email_verified);
    }
    for name in ["iss", "sub", "aud", "iat", "exp"] {
        let without = |claims: &mut Value| {
            claims.as_object_mut().unwrap().remove(name);
        };
        assert_eq!(read(&without), Err(IdTokenError::Invalid), "{name}");
        for wrong in [Value::Null, json!({}), json!(-1)] {
            assert_eq!(read(&|claims| claims[name] = wrong.clone()), Err(IdTokenError::Invalid), "{name} {wrong}");
        }
    }
    assert_eq!(read(&|claims| claims["exp"] = json!(1e300)), Err(IdTokenError::Invalid));
    let now_s = i64::try_from(echo_base::clock::now_us() / 1_000_000).unwrap();
    assert!(read(&|claims| claims["nbf"] = json!(now_s - 5)).is_ok());
    assert_eq!(read(&|claims| claims["nbf"] = json!(now_s + 3_600)), Err(IdTokenError::Invalid));
}

#[test]
fn a_token_of_another_kind_is_invalid() {
    let keys = set(&published_keys());
    let of_kind = |typ: Option<&str>| {
        let header = Header { typ: typ.map(str::to_owned), ..header(Algorithm::EdDSA) };
        verify(&token(&header, &claims(), &ed25519(7)), &keys)
    };
    for typ in [None, Some("JWT"), Some("jwt")] {
        assert!(of_kind(typ).is_ok(), "{typ:?}");
    }
    for typ in ["at+jwt", "logout+jwt", "application/at+jwt", ""] {
        assert_eq!(of_kind(Some(typ)), Err(IdTokenError::Invalid), "{typ}");
    }
}

#[test]
fn what_is_too_large_is_not_looked_at() {
    let keys = published_keys();
    let mut large = claims();
    large["groups"] = json!("g".repeat(limits::ID_TOKEN_BYTES_MAX));
    assert_eq!(verify(&token(&header(Algorithm::EdDSA), &large, &ed25519(7)), &set(&keys)), Err(IdTokenError::Invalid));
    let mut many = keys;
    many.push(json!({ "kty": "RSA", "n": "n".repeat(limits::ID_TOKEN_KEYS_BYTES_MAX) }));
    assert_eq!(verify(&good(Algorithm::EdDSA), &set(&many)), Err(IdTokenError::UnknownKey));
}
