//! The operator's credentials for outgoing requests, and what the host writes into `Authorization` for them: Web Push (VAPID, RFC 8292), FCM (an
//! OAuth 2.0 access token for a service account's assertion, RFC 7523) and APNs (a provider's token). No key and no assertion leaves the host to a guest.

use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::header::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::{APNS, CredentialSettings, FCM, HttpError, OutgoingRequest, OutgoingResponse, WEBPUSH};
use echo_base::limits;

/// Keys that were read.
pub struct Credentials {
    vapid: Option<Vapid>,
    fcm: Option<ServiceAccount>,
    apns: Option<ProviderKey>,
}

impl Credentials {
    /// Errors: which setting holds no key.
    pub fn read(settings: CredentialSettings) -> Result<Self, String> {
        let CredentialSettings { vapid_key, vapid_subject, fcm_service_account, apns_key, apns_key_id, apns_team_id } = settings;
        Ok(Self {
            vapid: vapid_key.map(|pem| Vapid::read(&pem, vapid_subject)).transpose()?,
            fcm: fcm_service_account.map(|text| ServiceAccount::read(&text)).transpose()?,
            apns: apns_key.map(|pem| ProviderKey::read(&pem, apns_key_id, apns_team_id)).transpose()?,
        })
    }

    pub fn public_key(&self, name: &str) -> Option<String> {
        match name {
            WEBPUSH => self.vapid.as_ref().map(|vapid| vapid.public_key.clone()),
            FCM => self.fcm.as_ref().map(|_| String::new()),
            APNS => self.apns.as_ref().map(|_| String::new()),
            _ => None,
        }
    }

    /// For a request to this origin. `exchange` sends what a token is asked for with.
    pub async fn authorization<F>(
        &self,
        name: &str,
        origin: &str,
        exchange: impl FnOnce(OutgoingRequest) -> F,
    ) -> Result<HeaderValue, HttpError>
    where
        F: Future<Output = Result<OutgoingResponse, HttpError>>,
    {
        let missing = || HttpError::NoCredential(name.to_owned());
        match name {
            WEBPUSH => self.vapid.as_ref().ok_or_else(missing)?.authorization(origin),
            FCM => self.fcm.as_ref().ok_or_else(missing)?.authorization(exchange).await,
            APNS => self.apns.as_ref().ok_or_else(missing)?.authorization(now_s()),
            _ => Err(missing()),
        }
    }

    /// It was not accepted: another one is made for the next request. Those of Web Push are made for each, and Apple refuses new ones that follow
    /// each other closely.
    pub fn forget(&self, name: &str, refused: &HeaderValue) {
        let fcm = self.fcm.as_ref().filter(|_| name == FCM);
        // Whoever holds it is asking for another one.
        if let Some(mut asked) = fcm.and_then(|fcm| fcm.asked.try_lock().ok())
            && asked.as_ref().is_some_and(|asked| asked.value.as_ref() == Some(refused))
        {
            *asked = None;
        }
    }
}

pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// For `Authorization`, and for no log. Errors: it has characters that no header may have.
fn secret_value(text: &str, name: &str) -> Result<HeaderValue, HttpError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| HttpError::NoCredential(name.to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn signed(header: &Header, claims: &Value, key: &EncodingKey, name: &str) -> Result<String, HttpError> {
    jsonwebtoken::encode(header, claims, key).map_err(|error| {
        tracing::error!(%error, credential = name, "a credential could not sign");
        HttpError::NoCredential(name.to_owned())
    })
}

/// A key for Web Push that was made now: PEM (PKCS #8).
pub fn new_vapid_key() -> String {
    let random = ring::rand::SystemRandom::new();
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("the system has random numbers");
    let text = STANDARD.encode(made.as_ref());
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

struct Vapid {
    key: EncodingKey,
    /// Uncompressed (SEC 1), in base64url.
    public_key: String,
    subject: String,
}

impl Vapid {
    fn read(pem: &str, subject: String) -> Result<Self, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("http.vapid_key is no P-256 key in PEM (PKCS #8): {error}");
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| wrong(&error))?;
        let random = ring::rand::SystemRandom::new();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random).map_err(|error| wrong(&error))?;
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).map_err(|error| wrong(&error))?;
        Ok(Self { key, public_key: URL_SAFE_NO_PAD.encode(pair.public_key()), subject })
    }

    fn authorization(&self, origin: &str) -> Result<HeaderValue, HttpError> {
        // RFC 8292, section 2: at most a day.
        let claims = json!({ "aud": origin, "exp": now_s() + limits::VAPID_TOKEN_S, "sub": self.subject });
        let token = signed(&Header::new(Algorithm::ES256), &claims, &self.key, WEBPUSH)?;
        secret_value(&format!("vapid t={token}, k={}", self.public_key), WEBPUSH)
    }
}

/// The file as Google gives it out; other members are of no interest.
#[derive(Deserialize)]
struct AccountFile {
    client_email: String,
    private_key: String,
    token_uri: String,
}

struct ServiceAccount {
    key: EncodingKey,
    email: String,
    token_uri: String,
    /// Held while one is asked for, so that the others wait for its answer.
    asked: tokio::sync::Mutex<Option<Asked>>,
}

/// An access token that is used until it is too old; none: nobody is asked again before that time.
struct Asked {
    value: Option<HeaderValue>,
    until: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: u64,
}

impl ServiceAccount {
    fn read(text: &str) -> Result<Self, String> {
        let file: AccountFile =
            serde_json::from_str(text).map_err(|error| format!("http.fcm_service_account is no service account: {error}"))?;
        let key = EncodingKey::from_rsa_pem(file.private_key.as_bytes())
            .map_err(|error| format!("http.fcm_service_account: its private_key is no RSA key: {error}"))?;
        Ok(Self { key, email: file.client_email, token_uri: file.token_uri, asked: tokio::sync::Mutex::default() })
    }

    async fn authorization<F>(&self, exchange: impl FnOnce(OutgoingRequest) -> F) -> Result<HeaderValue, HttpError>
    where
        F: Future<Output = Result<OutgoingResponse, HttpError>>,
    {
        let mut asked = self.asked.lock().await;
        let known = asked.as_ref().filter(|asked| Instant::now() < asked.until).map(|asked| asked.value.clone());
        let value = match known {
            Some(value) => value,
            None => {
                let (value, ttl) = match exchange(self.token_request()?).await.and_then(|answer| access_token(&answer)) {
                    Ok((value, ttl)) => (Some(value), ttl),
                    Err(error) => {
                        tracing::warn!(%error, credential = FCM, "a service account got no access token");
                        (None, Duration::from_millis(limits::HTTP_TOKEN_RETRY_MS))
                    }
                };
                *asked = Some(Asked { value: value.clone(), until: Instant::now() + ttl });
                value
            }
        };
        value.ok_or_else(|| HttpError::NoCredential(FCM.to_owned()))
    }

    fn token_request(&self) -> Result<OutgoingRequest, HttpError> {
        let now_s = now_s();
        let claims = json!({
            "iss": self.email, "scope": "https://www.googleapis.com/auth/firebase.messaging", "aud": self.token_uri, "iat": now_s, "exp": now_s + 3_600,
        });
        let assertion = signed(&Header::new(Algorithm::RS256), &claims, &self.key, FCM)?;
        Ok(OutgoingRequest {
            method: "POST".to_owned(),
            url: self.token_uri.clone(),
            headers: vec![("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned())],
            body: format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}").into_bytes(),
            credential: None,
            timeout: Duration::from_millis(limits::HTTP_TIMEOUT_MS),
        })
    }
}

/// For how long the answer's token is used, and what is sent with it (RFC 6749, section 5.1).
fn access_token(answer: &OutgoingResponse) -> Result<(HeaderValue, Duration), HttpError> {
    let TokenAnswer { access_token, expires_in } = serde_json::from_slice(&answer.body)
        .map_err(|_| HttpError::Invalid(format!("the exchange for an access token was answered {}", answer.status)))?;
    let ttl_s = expires_in.min(limits::HTTP_TOKEN_KEPT_S).saturating_sub(limits::HTTP_TOKEN_MARGIN_S);
    Ok((secret_value(&format!("Bearer {access_token}"), FCM)?, Duration::from_secs(ttl_s)))
}

struct ProviderKey {
    key: EncodingKey,
    key_id: String,
    team_id: String,
    /// The last one, and when it was made, in seconds since 1970: Apple goes by the time of day, as the token does.
    made: Mutex<Option<(HeaderValue, u64)>>,
}

impl ProviderKey {
    fn read(pem: &str, key_id: String, team_id: String) -> Result<Self, String> {
        if key_id.is_empty() || team_id.is_empty() {
            return Err("http.apns_key wants http.apns_key_id and http.apns_team_id".to_owned());
        }
        let key =
            EncodingKey::from_ec_pem(pem.as_bytes()).map_err(|error| format!("http.apns_key is no P-256 key in PEM (PKCS #8): {error}"))?;
        Ok(Self { key, key_id, team_id, made: Mutex::default() })
    }

    /// Apple refuses one that is older than an hour, and new ones more often than every 20 minutes.
    fn authorization(&self, now_s: u64) -> Result<HeaderValue, HttpError> {
        let mut made = self.made.lock();
        if let Some((value, made_s)) = made.as_ref()
            && (*made_s..made_s + limits::APNS_TOKEN_S).contains(&now_s)
        {
            return Ok(value.clone());
        }
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        let token = signed(&header, &json!({ "iss": self.team_id, "iat": now_s }), &self.key, APNS)?;
        let value = secret_value(&format!("bearer {token}"), APNS)?;
        *made = Some((value.clone(), now_s));
        Ok(value)
    }
}
