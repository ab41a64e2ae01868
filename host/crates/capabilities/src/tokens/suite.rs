//! The suite that every token backend passes. `open` opens the store of that name with these settings; a second time it finds what the
//! first one left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Claims, Clock, Revocation, RevocationEvent, TokenError, TokenSettings, Tokens};
use echo_base::limits;

pub async fn suite<Open>(open: Open)
where
    Open: AsyncFn(&str, TokenSettings, Clock) -> Arc<dyn Tokens>,
{
    a_token_says_what_it_was_signed_for(&open).await;
    a_token_ends(&open).await;
    a_forged_token_is_refused(&open).await;
    issuer_and_audience_are_checked(&open).await;
    a_revoked_session_ends_at_once_and_for_good(&open).await;
    a_revoked_user_can_come_back(&open).await;
    an_old_key_is_accepted_until_its_last_token_ends(&open).await;
    a_ticket_opens_one_socket(&open).await;
}

/// A clock that stands still until it is moved.
#[derive(Clone)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    pub fn start() -> Self {
        Self(Arc::new(AtomicU64::new(1_800_000_000_123_456)))
    }

    pub fn forward(&self, by: Duration) {
        self.0.fetch_add(by.as_micros() as u64, Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        let time = self.0.clone();
        Arc::new(move || time.load(Ordering::SeqCst))
    }
}

pub fn claims() -> Claims {
    Claims {
        user_id: Uuid::now_v7(),
        device_id: "phone \"1\" ☎".to_owned(),
        session_id: Uuid::now_v7(),
        roles: vec!["user".to_owned(), "admin".to_owned()],
    }
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

const TTL: Duration = Duration::from_secs(limits::ACCESS_TOKEN_TTL_S);

async fn a_token_says_what_it_was_signed_for<Open>(open: &Open)
where
    Open: AsyncFn(&str, TokenSettings, Clock) -> Arc<dyn Tokens>,
{
    let tokens = open("says", TokenSettings::default(), ManualClock::start().clock()).await;
    let claims = claims();
    let signed = tokens.sign(&claims).unwrap();
    assert_eq!(u64::from(signed.expires_in_s), TTL.as_secs());
    for _ in 0..2 {
        let caller = tokens.verify(&signed.token).await.unwrap();
        assert_eq!((caller.user_id, caller.session_id), (claims.user_id, claims.session_id));
        assert_eq!((&caller.device_id, &caller.roles), (&claims.device_id, &claims.roles));
        assert_eq!(caller.issued_at_us, 1_800_000_000_123_456);
        assert_eq!(caller.expires_at_us, (1_800_000_000 + TTL.as_secs()) * 1_000_000);
        assert_eq!(tokens.jti(&signed.token), Ok(signed.jti));
    }
    let payload = part(&signed.token, 1);
    for name in ["user_id", "device_id", "session_id", "roles", "jti", "iat", "exp", "iss", "aud"] {
        assert!(payload.get(name).is_some(), "{name} is missing");
    }
    assert_eq!(payload["exp"].as_u64().unwrap() - payload["iat"].as_u64().unwrap(), TTL.as_secs());

    let header = part(&signed.token, 0);
    let jwks = tokens.jwks();
    let key = &jwks["keys"][0];
    assert_eq!((&header["alg"], &header["kid"]), (&json!("EdDSA"), &key["kid"]));
    assert_eq!((&key["kty"], &key["crv"], &key["alg"], &key["use"]), (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA"), &json!("sig")));
    assert!(key.get("d").is_none(), "the private half stays here");
    // What anyone else would do with the JWKS.
    let public: [u8; 32] = URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap().try_into().unwrap();
    let (message, signature) = signed.token.rsplit_once('.').unwrap();
    let signature = ed25519_dalek::Signature::from_slice(&URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    ed25519_dalek::VerifyingKey::from_bytes(&public).unwrap().verify_strict(message.as_bytes(), &signature).unwrap();

    let again = open("says", TokenSettings::default(), ManualClock::start().clock()).await;
    assert!(again.verify(&signed.token).await.is_ok(), "the keys outlive the host");
    assert_ne!(again.sign(&claims).unwrap().jti, signed.jti);
}

async fn a_token_ends<Open>(open: &Open)
where
    Open: AsyncFn(&str, TokenSettings, Clock) -> Arc<dyn Tokens>,
{
    let clock = ManualClock::start();
    let settings = TokenSettings { access_ttl: Duration::from_secs(60), ..TokenSettings::default() };
    let tokens = open("ends", settings.clone(), clock.clock()).await;
    let (asked_before, never_asked) = (tokens.sign(&claims()).unwrap().token, tokens.sign(&claims()).unwrap().token);
    clock.forward(Duration::from_secs(59));
    assert!(tokens.verify(&asked_before).await.is_ok());
    clock.forward(Duration::from_secs(1));
    for token in [&asked_before, &never_asked] {
        assert_eq!(tokens.verify(token).await, Err(TokenError::Expired));
        assert_eq!(tokens.jti(token), Err(TokenError::Expired));
    }
}

async fn a_forged_token_is_refused<Open>(open: &Open)
where
    Open: AsyncFn(&str, TokenSettings, Clock) -> Arc<dyn Tokens>,
{
    let tokens = open("forged", TokenSettings::default(), ManualClock::start().clock()).await;
    let good = tokens.sign(&claims()).unwrap().token;
    tokens.verify(&good).await.unwrap();
    let parts: Vec<&str> = good.split('.').collect();
    let kid = part(&good, 0)["kid"].as_str().unwrap().to_owned();
    let payload = part(&good, 1);
    let mut richer = payload.clone();
    richer["roles"] = json!(["admin", "owner"]);
    let mut endless = payload.clone();
    endless["exp"] = json!(u64::MAX);

    let jwks = tokens.jwks();
    let x = jwks["keys"][0]["x"].as_str().unwrap();
    let public = URL_SAFE_NO_PAD.decode(x).unwrap();
    let hs256 = |secret: &[u8]| {
        let header = Header { kid: Some(kid.clone()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &payload, &EncodingKey::from_secret(secret)).unwrap()
    };
    let own_key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]).to_pkcs8_der().unwrap();
    let own_key = EncodingKey::from_ed_der(own_key.as_bytes());
    let signed_by_another = |kid: Option<&str>| {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &payload, &own_key).unwrap()
    };
    let none = |alg: &str| encoded(&json!({ "alg": alg, "typ": "JWT", "kid": kid }));
    let mut signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    signature[10] ^= 1;

    for (what, token) in [
        ("another payload under the same signature", format!("{}.{}.{}", parts[0], encoded(&richer), parts[2])),
        ("no end", format!("{}.{}.{}", parts[0], encoded(&endless), parts[2])),
        ("one bit of the signature", format!("{}.{}.{}", parts[0], parts[1], URL_SAFE_NO_PAD.encode(signature))),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("four parts", format!("{good}.{}", parts[2])),
        ("alg none", format!("{}.{}.", none("none"), parts[1])),
        ("alg None with a signature", format!("{}.{}.{}", none("None"), parts[1], parts[2])),
        ("HS256 with the public key as the secret", hs256(&public)),
        ("HS256 with the public key's text as the secret", hs256(x.as_bytes())),
        ("another's key under our kid", signed_by_another(Some(&kid))),
        ("another's key under its kid", signed_by_another(Some("someone-else"))),
        ("another's key without a kid", signed_by_another(None)),
        ("a kid that climbs out of its folder", signed_by_another(Some("../../etc/passwd"))),
        ("a critical extension", {
            let header = encoded(&json!({ "alg": "EdDSA", "typ": "JWT", "kid": kid, "crit": ["b64"], "b64": false }));
            format!("{header}.{}.{}", parts[1], parts[2])
        }),
        ("nothing", String::new()),
        ("dots", "..".to_owned()),
        ("white space", format!(" {good}")),
        ("not ASCII", "ä.ö.ü".to_owned()),
        ("too long", format!("{good}{}", "A".repeat(limits::TOKEN_BYTES_MAX))),
    ] {
        assert_eq!(tokens.verify(&token).await, Err(TokenError::Invalid), "{what}");
        assert_eq!(tokens.jti(&token), Err(TokenError::Invalid), "{what}");
    }
    assert!(tokens.verify(&good).await.is_ok());
}

async fn issuer_and_audience_are_checked<Open>(open: &Open)
where
    Open: AsyncFn(&str, TokenSettings, Clock) -> Arc<dyn Tokens>,
{
    let clock = ManualClock::start();
    let settings = TokenSettings { issuer: "echo".to_owned(), audience: "echo".to_owned(), ..TokenSettings::default() };
    let tokens = open("origin", settings.clone(), clock.clock()).await;
    // The same keys, so that nothing but the origin differs.
    let other_issuer = open("origin", TokenSettings { issuer: "staging".to_owned(), ..settings.clone() }, clock.clock()).await;
    let other_audience = open("origin", TokenSettings { audience: "billing".to_owned(), ..settings }, clock.clock()).await;
    for other in [&other_issuer, &other_audience] {
        let token = other.sign(&claims()).unwrap().token;
        assert!(other.verify(&token).await.is_ok());
        assert_eq!(tokens.verify(&token).await, Err(TokenError::Invalid));
    }
}

async fn a_revoked_session_ends_at_once_and_for_good<Open>(open: &Open)
where
    Open: AsyncFn(&str, TokenSettings, Clock) -> Arc<dyn Tokens>,
{
    let clock = ManualClock::start();
    let tokens = open("session", TokenSettings::default(), clock.clock()).await;
    let mut revocations = tokens.revocations();
    let ended = claims();
    let other = Claims { session_id: Uuid::now_v7(), ..ended.clone() };
    let (token, never_asked) = (tokens.sign(&ended).unwrap().token, tokens.sign(&ended).unwrap().token);
    let spared = tokens.sign(&other).unwrap().token;
    let (ticket, _) = tokens.issue_ticket(&ended).await.unwrap();
    tokens.verify(&token).await.unwrap();
    tokens.revoke_session(ended.session_id).await.unwrap();
    assert_eq!(revocations.try_next(), Some(RevocationEvent::Revoked(Revocation::Session(ended.session_id))));
    for token in [&token, &never_asked] {
        assert_eq!(tokens.verify(token).await, Err(TokenError::Revoked));
        assert_eq!(tokens.jti(token), Err(TokenError::Revoked));
    }
    assert_eq!(tokens.redeem_ticket(&ticket).await, Err(TokenError::Revoked));
    assert!(tokens.sign(&ended).is_err(), "nothing brings a session back");
    assert!(tokens.issue_ticket(&ended).await.is_err());
    assert!(tokens.verify(&spared).await.is_ok(), "the user's other session goes on");

    let again = open("session", TokenSettings::default(), clock.clock()).await;
    assert_eq!(again.verify(&token).await, Err(TokenError::Revoked), "a restart forgets nothing");
    assert!(again.verify(&spared).await.is_ok());
    clock.forward(TTL - Duration::from_secs(1));
    let again = open("session", TokenSettings::default(), clock.clock()).await;
    assert_eq!(again.verify(&token).await, Err(TokenError::Revoked));
}

async fn a_revoked_user_can_come_back<Open>(open: &Open)
where
    Open: AsyncFn(&str, TokenSettings, Clock) -> Arc<dyn Tokens>,
{
    // The clock stands still: all of this is in one microsecond.
    let clock = ManualClock::start();
    let tokens = open("user", TokenSettings::default(), clock.clock()).await;
    let mut revocations = tokens.revocations();
    let phone = claims();
    let laptop = Claims { session_id: Uuid::now_v7(), ..phone.clone() };
    let old = [tokens.sign(&phone).unwrap().token, tokens.sign(&laptop).unwrap().token];
    let bystander = tokens.sign(&claims()).unwrap().token;
    let (ticket, _) = tokens.issue_ticket(&laptop).await.unwrap();
    tokens.revoke_user(phone.user_id).await.unwrap();
    assert_eq!(revocations.try_next(), Some(RevocationEvent::Revoked(Revocation::User(phone.user_id))));
    let new = tokens.sign(&Claims { session_id: Uuid::now_v7(), ..phone.clone() }).unwrap().token;
    let again = open("user", TokenSettings::default(), clock.clock()).await;
    let after_restart = again.sign(&Claims { session_id: Uuid::now_v7(), ..phone.clone() }).unwrap().token;
    for tokens in [&tokens, &again] {
        for old in &old {
            assert_eq!(tokens.verify(old).await, Err(TokenError::Revoked));
        }
        assert!(tokens.verify(&new).await.is_ok(), "issued right after the revocation");
        assert!(tokens.verify(&after_restart).await.is_ok());
        assert!(tokens.verify(&bystander).await.is_ok());
    }
    assert_eq!(tokens.redeem_ticket(&ticket).await, Err(TokenError::Revoked));
}

async fn an_old_key_is_accepted_until_its_last_token_ends<Open>(open: &Open)
where
    Open: AsyncFn(&str, TokenSettings, Clock) -> Arc<dyn Tokens>,
{
    let clock = ManualClock::start();
    let tokens = open("rotation", TokenSettings::default(), clock.clock()).await;
    let before = tokens.sign(&claims()).unwrap().token;
    tokens.rotate().await.unwrap();
    assert_eq!(tokens.jwks()["keys"].as_array().unwrap().len(), 2, "both are published");
    let published = Duration::from_millis(limits::TOKEN_KEY_PUBLISHED_MS);
    clock.forward(published);
    let after = tokens.sign(&claims()).unwrap().token;
    assert_ne!(part(&before, 0)["kid"], part(&after, 0)["kid"]);
    clock.forward(TTL - published - Duration::from_secs(1));
    let again = open("rotation", TokenSettings::default(), clock.clock()).await;
    for tokens in [&tokens, &again] {
        assert!(tokens.verify(&before).await.is_ok());
        assert!(tokens.verify(&after).await.is_ok());
    }
    assert_eq!(part(&again.sign(&claims()).unwrap().token, 0)["kid"], part(&after, 0)["kid"], "a restart does not rotate");
    clock.forward(published + Duration::from_secs(3));
    let again = open("rotation", TokenSettings::default(), clock.clock()).await;
    assert_eq!(again.jwks()["keys"].as_array().unwrap().len(), 1, "nothing is left for the old one to verify");
    assert!(again.verify(&before).await.is_err());
}

async fn a_ticket_opens_one_socket<Open>(open: &Open)
where
    Open: AsyncFn(&str, TokenSettings, Clock) -> Arc<dyn Tokens>,
{
    let clock = ManualClock::start();
    let tokens = open("ticket", TokenSettings::default(), clock.clock()).await;
    let claims = claims();
    let (ticket, expires_in_s) = tokens.issue_ticket(&claims).await.unwrap();
    assert_eq!(u64::from(expires_in_s), limits::TICKET_TTL_S);
    assert!(tokens.verify(&ticket).await.is_err(), "a ticket is no token");
    let caller = tokens.redeem_ticket(&ticket).await.unwrap();
    assert_eq!((caller.user_id, &caller.device_id, caller.session_id), (claims.user_id, &claims.device_id, claims.session_id));
    assert_eq!(caller.roles, claims.roles);
    assert_eq!(tokens.redeem_ticket(&ticket).await, Err(TokenError::Invalid), "once");
    tokens.return_ticket(&ticket).await;
    assert_eq!(tokens.redeem_ticket(&ticket).await, Ok(caller), "returned, it is as it was");
    assert_eq!(tokens.redeem_ticket(&ticket).await, Err(TokenError::Invalid));
    tokens.return_ticket("of nobody").await;
    let (late, _) = tokens.issue_ticket(&claims).await.unwrap();
    assert_ne!(late, ticket);
    clock.forward(Duration::from_secs(limits::TICKET_TTL_S));
    assert_eq!(tokens.redeem_ticket(&late).await, Err(TokenError::Expired));
    tokens.return_ticket(&ticket).await;
    assert_eq!(tokens.redeem_ticket(&ticket).await, Err(TokenError::Expired), "no longer than it would have been");
    let token = tokens.sign(&claims).unwrap().token;
    for wrong in ["", "x", &token, &"A".repeat(100_000)] {
        assert_eq!(tokens.redeem_ticket(wrong).await, Err(TokenError::Invalid));
    }
}
