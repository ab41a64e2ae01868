//! Says to an outside service, in a way that it can check, that the gateway wrote who calls: HTTP Message Signatures (RFC 9421) by HMAC with SHA-256 and the
//! key that the operator gave to both.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use sha2::Sha256;

use super::headers::{X_DEVICE_ID, X_SESSION_ID, X_USER_ID, X_USER_ROLES};
use crate::request::X_REQUEST_ID;
use echo_base::limits;

/// Covered where they are there: a target that finds one uncovered has it from somebody else.
const FIELDS: [HeaderName; 5] = [X_USER_ID, X_DEVICE_ID, X_SESSION_ID, X_USER_ROLES, X_REQUEST_ID];

/// Adds `Signature-Input` and `Signature`. `path` and `query` are those of the target's request; `now_s` is in seconds since 1970.
pub fn sign(headers: &mut HeaderMap, key: &str, method: &Method, path: &str, query: Option<&str>, now_s: u64) {
    let mut covered = vec![("@method", method.as_str().to_owned()), ("@path", path.to_owned())];
    covered.push(("@query", format!("?{}", query.unwrap_or_default())));
    let texts: Vec<(HeaderName, String)> =
        FIELDS.into_iter().filter_map(|name| Some((name.clone(), headers.get(&name)?.to_str().ok()?.trim().to_owned()))).collect();
    covered.extend(texts.iter().map(|(name, text)| (name.as_str(), text.clone())));
    let names = covered.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(" ");
    let expires_s = now_s + limits::OUTSIDE_SIGNATURE_S;
    let parameters = format!("({names});created={now_s};expires={expires_s};keyid=\"echo\";alg=\"hmac-sha256\"");
    let mut base: String = covered.iter().map(|(name, text)| format!("\"{name}\": {text}\n")).collect();
    base.push_str(&format!("\"@signature-params\": {parameters}"));
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(base.as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let mut write = |name, text: String| headers.insert(name, HeaderValue::from_str(&text).expect("names, digits and base64"));
    write(HeaderName::from_static("signature-input"), format!("echo={parameters}"));
    write(HeaderName::from_static("signature"), format!("echo=:{signature}:"));
}
