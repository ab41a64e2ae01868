//! The providers' public keys: fetched when they are first needed, kept in the cache, fetched again when they are old and when a token names one that is
//! not among them. However many tokens with made-up names of keys come, a provider is asked a few times in half a minute.

use echo_sdk::time::SECOND_US;
use echo_sdk::wit::cache;
use echo_sdk::wit::http::{self, Header, Request};
use echo_sdk::wit::tokens::{self, IdToken, IdTokenError};
use echo_sdk::{Error, ErrorKind, config, log, time};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::claims::invalid;
use super::providers::{KeysAt, Provider};

/// How often a provider is asked for its keys, by all hosts together, in so many milliseconds.
const FETCHES_MAX: i64 = 5;
const FETCHES_WINDOW_MS: u64 = 30_000;
/// Of one request to a provider, in milliseconds.
const TIMEOUT_MS: u32 = 3_000;
/// After this a sign-in is worth another try while a provider does not answer, in milliseconds.
const RETRY_MS: u64 = 5_000;
/// What the host reads of keys.
const KEYS_BYTES_MAX: usize = 64 * 1024;
const KEYS_TTL_S: u64 = 60 * 60;
/// A day.
const KEYS_TTL_S_MAX: u64 = 24 * 60 * 60;

/// What the token says, if the provider signed it. Errors: 401 `id_token_invalid`; 503 `provider_unavailable`.
pub fn verify(provider: &Provider, token: &str) -> Result<IdToken, Error> {
    let keys = match kept(provider)? {
        Some(keys) => keys,
        None => fetch_within_bounds(provider)?.ok_or_else(unavailable)?,
    };
    let not_signed = || invalid("the provider has not signed it");
    match tokens::verify_id_token(token, &keys) {
        Ok(said) => Ok(said),
        Err(IdTokenError::Invalid) => Err(not_signed()),
        // The provider may have a new key. Where it was asked often enough just now, it has none.
        Err(IdTokenError::UnknownKey) => match fetch_within_bounds(provider)? {
            Some(keys) => tokens::verify_id_token(token, &keys).map_err(|_| not_signed()),
            None => Err(not_signed()),
        },
    }
}

/// The keys in the cache. Old ones are fetched again; while that is not possible they are good for their time once more.
fn kept(provider: &Provider) -> Result<Option<String>, Error> {
    let Some((fetched_at_us, keys)) = cache::get(&key(provider))?.as_deref().and_then(unpack) else { return Ok(None) };
    if time::now_us() < fetched_at_us.saturating_add(ttl_us()) {
        return Ok(Some(keys));
    }
    Ok(Some(match fetch_within_bounds(provider) {
        Ok(Some(newer)) => newer,
        Ok(None) | Err(_) => keys,
    }))
}

/// None where the provider was asked often enough just now.
fn fetch_within_bounds(provider: &Provider) -> Result<Option<String>, Error> {
    if cache::increment(&format!("oauth-fetches {}", provider.issuer), 1, Some(FETCHES_WINDOW_MS))? > FETCHES_MAX {
        return Ok(None);
    }
    let keys = fetch(provider).map_err(|why| {
        log::warn("the keys of an identity provider cannot be fetched", &[("provider", &provider.name), ("reason", &why)]);
        unavailable()
    })?;
    cache::set(&key(provider), &pack(time::now_us(), &keys), Some(2 * ttl_us() / 1_000))?;
    Ok(Some(keys))
}

/// Errors: why not, for the operator.
fn fetch(provider: &Provider) -> Result<String, String> {
    let url = match &provider.keys {
        KeysAt::Url(url) => url.clone(),
        KeysAt::DiscoveredBy(url) => keys_url(&get(url)?, &provider.issuer).map_err(|why| format!("{url}: {why}"))?,
    };
    let keys = get(&url)?;
    key_set(keys).map_err(|why| format!("{url}: {why}"))
}

/// The body of a 200, and nothing else. A redirect is none.
fn get(url: &str) -> Result<Vec<u8>, String> {
    let request = Request {
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: vec![Header { name: "accept".to_owned(), value: "application/json".to_owned() }],
        body: Vec::new(),
        credential: None,
        timeout_ms: TIMEOUT_MS,
    };
    match http::send(&[request]).pop() {
        Some(Ok(answer)) if answer.status == 200 => Ok(answer.body),
        Some(Ok(answer)) => Err(format!("{url} answers {}", answer.status)),
        Some(Err(error)) => Err(format!("{url}: {error:?}")),
        None => Err(format!("{url}: nothing was sent")),
    }
}

/// What is needed of the provider's metadata (OpenID Connect Discovery 1.0, section 3).
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    #[serde(rename = "keys")]
    _keys: Vec<IgnoredAny>,
}

/// Section 4.3: the document's issuer is exactly the one that was asked.
fn keys_url(document: &[u8], issuer: &str) -> Result<String, String> {
    let metadata: Metadata = read(document)?;
    if metadata.issuer != issuer {
        return Err(format!("it is of the issuer {:?}", metadata.issuer));
    }
    Ok(metadata.jwks_uri)
}

fn key_set(text: Vec<u8>) -> Result<String, String> {
    if text.len() > KEYS_BYTES_MAX {
        return Err(format!("{} bytes are too many", text.len()));
    }
    read::<KeySet>(&text)?;
    String::from_utf8(text).map_err(|_| "no UTF-8".to_owned())
}

fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| format!("not what was asked for: {error}"))
}

/// By the issuer: an operator may give another one the same name.
fn key(provider: &Provider) -> String {
    format!("oauth-keys {}", provider.issuer)
}

fn ttl_us() -> u64 {
    config::number("oauth_keys_ttl_s", KEYS_TTL_S).clamp(1, KEYS_TTL_S_MAX) * SECOND_US
}

/// With the time at which they were fetched before them.
fn pack(fetched_at_us: u64, keys: &str) -> Vec<u8> {
    [&fetched_at_us.to_le_bytes(), keys.as_bytes()].concat()
}

fn unpack(bytes: &[u8]) -> Option<(u64, String)> {
    let (time, keys) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*time), String::from_utf8(keys.to_vec()).ok()?))
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "provider_unavailable", "the identity provider does not answer").retry_after(RETRY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_the_keys_is_the_issuers_own_word() {
        let document = |issuer: &str| format!(r#"{{"issuer":"{issuer}","jwks_uri":"https://id.example/keys","other":[1]}}"#);
        let found = |text: &str| keys_url(text.as_bytes(), "https://id.example").ok();
        assert_eq!(found(&document("https://id.example")).as_deref(), Some("https://id.example/keys"));
        for wrong in
            [&document("https://id.example/"), &document("https://evil.example"), "", "<html>", "[]", r#"{"issuer":"https://id.example"}"#]
        {
            assert_eq!(found(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn keys_are_a_key_set_of_a_bounded_size() {
        let good = r#"{"keys":[{"kty":"RSA"}]}"#;
        assert_eq!(key_set(good.as_bytes().to_vec()).as_deref(), Ok(good));
        let large = format!(r#"{{"keys":["{}"]}}"#, "k".repeat(KEYS_BYTES_MAX));
        for wrong in ["", "no JSON", "[]", "{}", r#"{"keys":"none"}"#, r#"{"error":"busy"}"#, &large] {
            assert!(key_set(wrong.as_bytes().to_vec()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_kept_is_found_again() {
        assert_eq!(unpack(&pack(7, "{}")), Some((7, "{}".to_owned())));
        assert_eq!(unpack(b"short"), None);
    }
}
