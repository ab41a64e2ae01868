//! Signing in by an identity provider that does what it should not, or does not answer: an issuer of the tests. A real one is in `identity_provider`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode as Status, Uri};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use futures_util::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;

use crate::app::{Person, TestApp, until};
use crate::stored::holding;

const OAUTH: &str = "/api/v1/auth/oauth";
const SERVICES: [&str; 5] = ["auth", "location", "message", "notification", "user"];
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// How long something may be found in a file afterwards.
const A_MINUTE: Duration = Duration::from_secs(60);

/// Status, body and `Location`.
type Answer = (u16, String, Option<String>);

/// One server with as many issuers as it is asked for: each below a path of its own.
#[derive(Clone)]
struct Issuer {
    address: String,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Issuer {
    async fn start() -> Self {
        async fn answer(State(issuer): State<Issuer>, uri: Uri) -> (Status, HeaderMap, String) {
            let path = uri.path().to_owned();
            let (status, text, location) =
                issuer.answers.lock().expect("whole").get(&path).cloned().unwrap_or((404, "{}".to_owned(), None));
            issuer.asked.lock().expect("whole").push(path);
            let location = location.map(|place| (axum::http::header::LOCATION, place.parse().expect("a value")));
            (Status::from_u16(status).expect("a status"), location.into_iter().collect(), text)
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound").to_string();
        let issuer = Self { address, answers: Arc::default(), asked: Arc::default() };
        let router = Router::new().fallback(answer).with_state(issuer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    /// Its URL.
    fn named(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    fn answers(&self, path: &str, answer: Answer) {
        self.answers.lock().expect("whole").insert(path.to_owned(), answer);
    }

    /// The document and the keys of a good one.
    fn publishes(&self, name: &str, keys: &[u8]) {
        let metadata = json!({ "issuer": self.named(name), "jwks_uri": self.named(&format!("{name}/keys")) });
        self.answers(&format!("/{name}{DISCOVERY}"), (200, metadata.to_string(), None));
        let keys: Vec<Value> = keys.iter().map(|seed| published(*seed)).collect();
        self.answers(&format!("/{name}/keys"), (200, json!({ "keys": keys }).to_string(), None));
    }

    fn asked(&self, path: &str) -> usize {
        self.asked.lock().expect("whole").iter().filter(|asked| *asked == path).count()
    }

    /// Of somebody at the issuer of this name, good now, for the client `echo`; no two are alike.
    fn claims(&self, name: &str, subject: &str) -> Value {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (now, number) = (now_s(), NEXT.fetch_add(1, Ordering::Relaxed));
        json!({
            "iss": self.named(name), "sub": subject, "aud": "echo", "nonce": "n", "iat": now, "exp": now + 600, "jti": number.to_string(),
            "email": format!("{subject}@mail.example"), "email_verified": true,
        })
    }

    fn token(&self, name: &str, subject: &str) -> String {
        token(1, &self.claims(name, subject))
    }

    /// A host that knows the issuers of these names.
    async fn app(&self, names: &[&str], settings: &[(&str, &str)]) -> TestApp {
        let issuers: Vec<String> = names.iter().map(|name| format!("{name}={} echo echo-ios", self.named(name))).collect();
        let issuers = issuers.join(", ");
        let own = [("ECHO_SERVICES__AUTH__OAUTH_ISSUERS", &*issuers), ("ECHO_HTTP__PRIVATE_HOSTS", &*self.address)];
        TestApp::with(&SERVICES, &[own.as_slice(), settings].concat()).await
    }
}

fn now_s() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn signing(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn published(seed: u8) -> Value {
    let x = URL_SAFE_NO_PAD.encode(signing(seed).verifying_key().as_bytes());
    json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": seed.to_string(), "x": x })
}

fn token_with(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn token(seed: u8, claims: &Value) -> String {
    let header = json!({ "alg": "EdDSA", "kid": seed.to_string() });
    token_with(&header, claims, |signed| signing(seed).sign(signed).to_bytes().to_vec())
}

fn request(id_token: &str, device: &str) -> Value {
    json!({ "id_token": id_token, "nonce": "n", "device": { "id": device } })
}

fn place(name: &str) -> String {
    format!("{OAUTH}/{name}")
}

async fn link(app: &TestApp, person: &Person, name: &str, id_token: &str) {
    let mut body = request(id_token, &person.device);
    body["password"] = json!(person.password);
    app.post(&place(name), body).by(person).send().await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_token_that_is_not_good_here_signs_nobody_in() {
    let issuer = Issuer::start().await;
    issuer.publishes("company", &[1]);
    issuer.publishes("other", &[2]);
    let app = issuer.app(&["company", "other"], &[]).await;
    let ada = app.someone().await;
    link(&app, &ada, "company", &issuer.token("company", "ada")).await;

    let with = |name: &str, value: Value| {
        let mut claims = issuer.claims("company", "ada");
        claims[name] = value;
        token(1, &claims)
    };
    let good = issuer.claims("company", "ada");
    let now = now_s();
    let public = signing(1).verifying_key().to_bytes();
    let hmac = |signed: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(&public).expect("a key");
        mac.update(signed);
        mac.finalize().into_bytes().to_vec()
    };
    let (head, rest) =
        issuer.token("company", "bala").split_once('.').map(|(head, rest)| (head.to_owned(), rest.to_owned())).expect("parts");
    let changed = format!("{head}.{}.{}", URL_SAFE_NO_PAD.encode(good.to_string()), rest.rsplit_once('.').expect("parts").1);
    for (what, token, code) in [
        ("no token", "none".to_owned(), "id_token_invalid"),
        ("not signed", token_with(&json!({ "alg": "none" }), &good, |_| Vec::new()), "id_token_invalid"),
        ("not signed, with a key's name", token_with(&json!({ "alg": "none", "kid": "1" }), &good, |_| Vec::new()), "id_token_invalid"),
        ("signed by the public key", token_with(&json!({ "alg": "HS256", "kid": "1" }), &good, hmac), "id_token_invalid"),
        ("changed", changed, "id_token_invalid"),
        (
            "of another key",
            token_with(&json!({ "alg": "EdDSA", "kid": "1" }), &good, |text| signing(2).sign(text).to_bytes().to_vec()),
            "id_token_invalid",
        ),
        ("of a key that nobody published", token(9, &good), "id_token_invalid"),
        ("of another issuer", with("iss", json!(issuer.named("other"))), "id_token_invalid"),
        ("for another audience", with("aud", json!("others")), "id_token_invalid"),
        ("for others too", with("aud", json!(["echo", "others"])), "id_token_invalid"),
        ("for two, issued to nobody", with("aud", json!(["echo", "echo-ios"])), "id_token_invalid"),
        ("issued to another", with("azp", json!("others")), "id_token_invalid"),
        ("with another nonce", with("nonce", json!("m")), "id_token_invalid"),
        ("without a nonce", with("nonce", Value::Null), "id_token_invalid"),
        ("without a subject", with("sub", json!("")), "id_token_invalid"),
        ("of tomorrow", with("iat", json!(now + 86_400)), "id_token_invalid"),
        ("expired", with("exp", json!(now - 86_400)), "id_token_invalid"),
        ("too old", with("iat", json!(now - 86_400)), "id_token_expired"),
    ] {
        let reply = app.post(&place("company"), request(&token, "laptop")).send().await;
        assert_eq!((reply.status.as_u16(), reply["code"].as_str()), (401, Some(code)), "{what}: {}", reply.body);
    }
    let expired = json!({ "iat": now - 1_200, "exp": now - 600 });
    let mut claims = good.clone();
    claims.as_object_mut().expect("an object").extend(expired.as_object().expect("an object").clone());
    app.post(&place("company"), request(&token(1, &claims), "laptop")).send().await.expect_problem(401, "id_token_expired");
    // The same subject at another issuer is somebody else, and a name that nobody set up is no provider.
    let elsewhere = token(2, &issuer.claims("other", "ada"));
    app.post(&place("company"), request(&elsewhere, "laptop")).send().await.expect_problem(401, "id_token_invalid");
    app.post(&place("other"), request(&elsewhere, "laptop")).send().await.expect_problem(403, "oauth_not_linked");
    for name in ["google", "apple", "Company", "companies"] {
        app.post(&place(name), request(&elsewhere, "laptop")).send().await.expect_problem(404, "provider_unknown");
    }
    // None of it is due to this test: what is good signs in.
    app.post(&place("company"), request(&token(1, &good), "laptop")).send().await.expect(StatusCode::OK);
}

#[tokio::test]
async fn of_one_token_used_by_many_at_once_one_signs_in() {
    let issuer = Issuer::start().await;
    issuer.publishes("company", &[1]);
    let app = issuer.app(&["company"], &[]).await;
    let ada = app.someone().await;
    let first = issuer.token("company", "ada");
    link(&app, &ada, "company", &first).await;
    app.post(&place("company"), request(&first, "laptop")).send().await.expect_problem(401, "id_token_used");
    let (token, app) = (issuer.token("company", "ada"), &app);
    let replies = join_all((0..8).map(|number| {
        let body = request(&token, &format!("device {number}"));
        async move { app.post(&place("company"), body).send().await }
    }))
    .await;
    let mut codes: Vec<String> = replies.iter().map(|reply| reply["code"].as_str().unwrap_or("in").to_owned()).collect();
    codes.sort_unstable();
    let mut expect = vec!["id_token_used"; 7];
    expect.push("in");
    assert_eq!(codes, expect, "{replies:?}");
}

#[tokio::test]
async fn made_up_names_of_keys_do_not_flood_the_issuer() {
    let issuer = Issuer::start().await;
    issuer.publishes("company", &[1]);
    let app = issuer.app(&["company"], &[]).await;
    let began = Instant::now();
    for number in 0..60 {
        let header = json!({ "alg": "EdDSA", "kid": format!("made up {number}") });
        let forged = token_with(&header, &issuer.claims("company", "ada"), |_| vec![0; 64]);
        app.post(&place("company"), request(&forged, "laptop")).send().await.expect_problem(401, "id_token_invalid");
    }
    // Five in each half minute that it took.
    let windows = began.elapsed().as_secs() as usize / 30 + 2;
    assert!(issuer.asked("/company/keys") <= 5 * windows, "asked {} times", issuer.asked("/company/keys"));
    assert!(issuer.asked("/company/keys") < 60);
    // Others sign in meanwhile.
    app.post(&place("company"), request(&issuer.token("company", "ada"), "laptop")).send().await.expect_problem(403, "oauth_not_linked");
}

#[tokio::test]
async fn keys_are_kept_and_new_ones_found_when_a_token_names_them() {
    let issuer = Issuer::start().await;
    issuer.publishes("company", &[1]);
    let app = issuer.app(&["company"], &[]).await;
    let sign_in = async |seed: u8| {
        let token = token(seed, &issuer.claims("company", "ada"));
        app.post(&place("company"), request(&token, "laptop")).send().await["code"].as_str().map(str::to_owned)
    };
    let (in_order, refused) = (Some("oauth_not_linked".to_owned()), Some("id_token_invalid".to_owned()));
    for _ in 0..5 {
        assert_eq!(sign_in(1).await, in_order);
    }
    assert_eq!((issuer.asked(&format!("/company{DISCOVERY}")), issuer.asked("/company/keys")), (1, 1));
    issuer.publishes("company", &[1, 2]);
    assert_eq!(sign_in(2).await, in_order);
    assert_eq!(sign_in(1).await, in_order);
    // A key that is withdrawn is good for nothing once the others are known.
    issuer.publishes("company", &[3]);
    assert_eq!(sign_in(3).await, in_order);
    assert_eq!(sign_in(2).await, refused);
}

#[tokio::test]
async fn while_a_provider_does_not_answer_as_it_should_signing_in_by_it_is_unavailable() {
    let issuer = Issuer::start().await;
    let names = ["refuses", "redirects", "huge", "large", "page", "keyless", "misnamed", "inside", "gone"];
    for name in names {
        issuer.publishes(name, &[1]);
    }
    let document = |name: &str| format!("/{name}{DISCOVERY}");
    let keys_of = |name: &str, answer: Answer| issuer.answers(&format!("/{name}/keys"), answer);
    issuer.answers(&document("refuses"), (500, "{}".to_owned(), None));
    issuer.publishes("hidden", &[1]);
    keys_of("redirects", (302, String::new(), Some("/hidden/keys".to_owned())));
    keys_of("huge", (200, format!("{{\"keys\":[{}]}}", " ".repeat(4 * 1024 * 1024)), None));
    keys_of("large", (200, json!({ "keys": [published(1), { "kty": "x".repeat(100 * 1024) }] }).to_string(), None));
    keys_of("page", (200, "<!doctype html><title>Sign in</title>".to_owned(), None));
    keys_of("keyless", (200, json!({ "error": "busy" }).to_string(), None));
    let metadata = json!({ "issuer": issuer.named("hidden"), "jwks_uri": issuer.named("hidden/keys") });
    issuer.answers(&document("misnamed"), (200, metadata.to_string(), None));
    // The metadata leads to a host that nobody granted.
    let metadata = json!({ "issuer": issuer.named("inside"), "jwks_uri": "http://127.0.0.1:9/keys" });
    issuer.answers(&document("inside"), (200, metadata.to_string(), None));
    issuer.answers(&document("gone"), (404, String::new(), None));
    let app = issuer.app(&names, &[]).await;
    let ada = app.someone().await;
    for name in names {
        for _ in 0..2 {
            let reply = app.post(&place(name), request(&issuer.token(name, "ada"), "laptop")).send().await;
            assert!(reply.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{name}");
            reply.expect_problem(503, "provider_unavailable");
        }
    }
    assert_eq!(issuer.asked("/hidden/keys"), 0, "a redirect was followed, or another issuer's document believed");
    // Nobody else has to wait for it, and it is there again as soon as it answers.
    app.log_in(&ada, "laptop").await;
    for name in names {
        issuer.publishes(name, &[1]);
        let reply = app.post(&place(name), request(&issuer.token(name, "ada"), "laptop")).send().await;
        reply.expect_problem(403, "oauth_not_linked");
    }
}

#[tokio::test]
async fn keys_of_a_provider_that_is_away_are_good_for_a_while() {
    let issuer = Issuer::start().await;
    issuer.publishes("company", &[1]);
    let app = issuer.app(&["company"], &[("ECHO_SERVICES__AUTH__OAUTH_KEYS_TTL_S", "1")]).await;
    let ask = async || app.post(&place("company"), request(&issuer.token("company", "ada"), "laptop")).send().await;
    ask().await.expect_problem(403, "oauth_not_linked");
    issuer.answers(&format!("/company{DISCOVERY}"), (500, String::new(), None));
    until("the keys are too old", async || {
        let reply = ask().await;
        assert!([403, 503].contains(&reply.status.as_u16()), "{}", reply.body);
        (reply["code"] == "provider_unavailable").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_second_factor_is_wanted_besides_an_identity() {
    let issuer = Issuer::start().await;
    issuer.publishes("company", &[1]);
    let app = issuer.app(&["company"], &[]).await;
    let ada = app.someone().await;
    link(&app, &ada, "company", &issuer.token("company", "ada")).await;
    let recovery = crate::second_factor::recovery_codes(&app, &ada).await;

    let mut body = request(&issuer.token("company", "ada"), "laptop");
    app.post(&place("company"), body.clone()).send().await.expect_problem(401, "totp_required");
    body["totp"] = json!("000000 is wrong");
    app.post(&place("company"), body.clone()).send().await.expect_problem(401, "invalid_totp");
    // The token was not used up by that.
    body["totp"] = json!(recovery[0]);
    app.post(&place("company"), body.clone()).send().await.expect(StatusCode::OK);
    body["totp"] = json!(recovery[1]);
    app.post(&place("company"), body).send().await.expect_problem(401, "id_token_used");

    let history = app.get("/api/v1/auth/login-history").by(&ada).send().await.expect(StatusCode::OK);
    let entries: Vec<_> = history["items"].as_array().expect("items").iter().map(|entry| (&entry["outcome"], &entry["provider"])).collect();
    let company = &json!("company");
    let expect = ["wrong_totp", "succeeded", "wrong_totp", "totp_required"].map(|outcome| json!(outcome));
    assert_eq!(entries, expect.iter().map(|outcome| (outcome, company)).collect::<Vec<_>>());
}

#[tokio::test]
async fn of_many_codes_with_an_identity_five_are_looked_at() {
    let issuer = Issuer::start().await;
    issuer.publishes("company", &[1]);
    let app = issuer.app(&["company"], &[]).await;
    let ada = app.someone().await;
    link(&app, &ada, "company", &issuer.token("company", "ada")).await;
    let recovery = crate::second_factor::recovery_codes(&app, &ada).await;
    let mut body = request(&issuer.token("company", "ada"), "strange");
    for number in 0..5 {
        body["totp"] = json!(format!("wrong {number}"));
        app.post(&place("company"), body.clone()).send().await.expect_problem(401, "invalid_totp");
    }
    body["totp"] = json!(recovery[0]);
    app.post(&place("company"), body).send().await.expect_problem(423, "account_locked");
}

#[tokio::test]
async fn an_identity_brings_a_deleted_account_back_and_goes_with_an_erased_one() {
    let issuer = Issuer::start().await;
    issuer.publishes("company", &[1]);
    let (subject, email) = ("adasubjectc0ffee", "adasubjectc0ffee@mail.example");
    let token = || issuer.token("company", subject);
    let app = issuer.app(&["company"], &[]).await;
    let ada = app.someone().await;
    link(&app, &ada, "company", &token()).await;
    app.delete("/api/v1/auth/account").by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let back = app.post(&place("company"), request(&token(), "laptop")).send().await.expect(StatusCode::OK);
    assert_eq!(back["user_id"], json!(ada.id));
    let back = Person::new(&ada.phone, &ada.password, "laptop", &back);
    app.get("/api/v1/auth/oauth").by(&back).send().await.expect(StatusCode::OK);
    drop(app);

    let app = issuer.app(&["company"], &[("ECHO_SERVICES__AUTH__ERASURE_DELAY_S", "0")]).await;
    let (ada, bala) = app.two().await;
    link(&app, &ada, "company", &token()).await;
    for text in [subject, email] {
        until("it is in a file", async || (!holding(&app, text).is_empty()).then_some(())).await;
    }
    app.delete("/api/v1/auth/account").by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let deleted_at = Instant::now();
    for text in [subject, email] {
        while let Some(found) = holding(&app, text).first() {
            assert!(deleted_at.elapsed() < A_MINUTE, "{text} is still in {found}");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
    // Whoever it belongs to at the provider may link it to another account.
    link(&app, &bala, "company", &token()).await;
}

#[tokio::test]
async fn a_linked_identity_is_in_the_accounts_export() {
    let issuer = Issuer::start().await;
    issuer.publishes("company", &[1]);
    let app = issuer.app(&["company"], &[]).await;
    let ada = app.someone().await;
    link(&app, &ada, "company", &issuer.token("company", "ada")).await;
    let export = "/api/v1/auth/account/export";
    app.request(Method::POST, export).by(&ada).send().await.expect(StatusCode::ACCEPTED);
    let page = app.get(export).by(&ada).send().await.expect(StatusCode::OK);
    let identity = &page["identities"][0];
    assert_eq!((&identity["provider"], &identity["email"]), (&json!("company"), &json!("ada@mail.example")));
}
