//! Signing in with a second factor: codes of an app (RFC 6238) and recovery codes.

use std::time::SystemTime;

use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha1::Sha1;

use crate::app::{Ask, Person, TestApp, until};

const TOTP: &str = "/api/v1/auth/totp";
const CONFIRM: &str = "/api/v1/auth/totp/confirm";
const STEP_S: u64 = 30;

fn step_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs() / STEP_S
}

/// As an app makes it of the secret that it was shown.
fn code(secret: &str, step: u64) -> String {
    let secret = BASE32_NOPAD.decode(secret.as_bytes()).expect("base32");
    let mut mac = Hmac::<Sha1>::new_from_slice(&secret).expect("a key");
    mac.update(&step.to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let at = usize::from(digest[19] & 0xf);
    let number = u32::from_be_bytes(digest[at..at + 4].try_into().expect("four bytes")) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

/// One that is none of those around now.
fn wrong_code(secret: &str) -> String {
    let good: Vec<String> = (step_now() - 2..step_now() + 4).map(|step| code(secret, step)).collect();
    (0..100).map(|number| format!("{number:06}")).find(|code| !good.contains(code)).expect("most codes are wrong")
}

fn login(app: &TestApp, person: &Person, device: &str, password: &str, totp: Option<&str>) -> Ask {
    let mut body = json!({ "phone": person.phone, "password": password, "device": { "id": device } });
    if let Some(totp) = totp {
        body["totp"] = json!(totp);
    }
    app.post("/api/v1/auth/login", body)
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The secret, the recovery codes, and the step whose code was used.
async fn set_up(app: &TestApp, person: &Person) -> (String, Vec<String>, u64) {
    let started = app.post(TOTP, json!({ "password": person.password })).by(person).send().await.expect(StatusCode::CREATED);
    let (secret, step) = (text(&started["secret"]), step_now());
    assert!(text(&started["uri"]).starts_with("otpauth://totp/Echo:%2B"), "{started}");
    app.post(CONFIRM, json!({ "code": wrong_code(&secret) })).by(person).send().await.expect_problem(422, "invalid_totp");
    let confirmed = app.post(CONFIRM, json!({ "code": code(&secret, step) })).by(person).send().await.expect(StatusCode::OK);
    let recovery: Vec<String> = confirmed["recovery_codes"].as_array().expect("codes").iter().map(text).collect();
    assert_eq!(recovery.len(), 10);
    (secret, recovery, step)
}

/// The recovery codes of a factor that is set up.
pub async fn recovery_codes(app: &TestApp, person: &Person) -> Vec<String> {
    set_up(app, person).await.1
}

#[tokio::test]
async fn with_a_second_factor_the_password_alone_signs_nobody_in() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    // An access token alone sets up nothing.
    app.post(TOTP, json!({ "password": "not the password 1" })).by(&ada).send().await.expect_problem(403, "wrong_password");
    app.post(CONFIRM, json!({ "code": "123456" })).by(&ada).send().await.expect_problem(422, "invalid_totp");
    let (secret, recovery, step) = set_up(&app, &ada).await;
    app.post(TOTP, json!({ "password": ada.password })).by(&ada).send().await.expect_problem(409, "totp_active");

    login(&app, &ada, "laptop", &ada.password, None).send().await.expect_problem(401, "totp_required");
    // A wrong password says nothing of it, with a code or without.
    for totp in [None, Some(code(&secret, step + 1))] {
        let refused = login(&app, &ada, "laptop", "not the password 1", totp.as_deref()).send().await;
        refused.expect_problem(401, "invalid_credentials");
    }
    // The code that confirmed it is used; the next one is good once.
    login(&app, &ada, "laptop", &ada.password, Some(&code(&secret, step))).send().await.expect_problem(401, "invalid_totp");
    let next = code(&secret, step + 1);
    login(&app, &ada, "laptop", &ada.password, Some(&next)).send().await.expect(StatusCode::OK);
    login(&app, &ada, "laptop", &ada.password, Some(&next)).send().await.expect_problem(401, "invalid_totp");

    // A recovery code too, however it is written.
    let written = recovery[0].to_lowercase().replace('-', " ");
    login(&app, &ada, "tablet", &ada.password, Some(&written)).send().await.expect(StatusCode::OK);
    login(&app, &ada, "tablet", &ada.password, Some(&recovery[0])).send().await.expect_problem(401, "invalid_totp");

    let history = app.get("/api/v1/auth/login-history").by(&ada).send().await.expect(StatusCode::OK);
    let outcomes: Vec<String> = history["items"].as_array().expect("items").iter().map(|entry| text(&entry["outcome"])).collect();
    assert_eq!(
        outcomes,
        ["wrong_totp", "succeeded", "wrong_totp", "succeeded", "wrong_totp", "wrong_password", "wrong_password", "totp_required"]
    );

    // It ends with a code alone, and then the password is enough.
    app.delete(&format!("{TOTP}?code={}", wrong_code(&secret))).by(&ada).send().await.expect_problem(422, "invalid_totp");
    app.delete(&format!("{TOTP}?code={}", recovery[1])).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    app.delete(&format!("{TOTP}?code={}", recovery[2])).by(&ada).send().await.expect_problem(404, "not_found");
    login(&app, &ada, "watch", &ada.password, None).send().await.expect(StatusCode::OK);
}

#[tokio::test]
async fn of_many_codes_of_a_second_factor_five_are_looked_at() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    let (secret, recovery, _) = set_up(&app, &ada).await;
    for _ in 0..5 {
        login(&app, &ada, "strange", &ada.password, Some(&wrong_code(&secret))).send().await.expect_problem(401, "invalid_totp");
    }
    // A right one is not told from the others, and a device that signed in before is counted apart.
    login(&app, &ada, "strange", &ada.password, Some(&recovery[0])).send().await.expect_problem(423, "account_locked");
    login(&app, &ada, &ada.device, &ada.password, Some(&recovery[0])).send().await.expect(StatusCode::OK);
}

#[tokio::test]
async fn of_many_codes_that_confirm_a_second_factor_five_are_looked_at() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    let other = app.log_in(&ada, "tablet").await;
    let started = app.post(TOTP, json!({ "password": ada.password })).by(&ada).send().await.expect(StatusCode::CREATED);
    let secret = text(&started["secret"]);
    for _ in 0..5 {
        app.post(CONFIRM, json!({ "code": wrong_code(&secret) })).by(&ada).send().await.expect_problem(422, "invalid_totp");
    }
    let right = json!({ "code": code(&secret, step_now()) });
    app.post(CONFIRM, right.clone()).by(&ada).send().await.expect_problem(423, "account_locked");
    // Each session is counted apart.
    app.post(CONFIRM, right).by(&other).send().await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_new_password_by_text_message_leaves_the_second_factor() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    let (_, recovery, _) = set_up(&app, &ada).await;
    let before = app.code_sent_to(&ada.phone).await;
    let sent = app.post("/api/v1/auth/password/forgot", json!({ "phone": ada.phone })).send().await.expect(StatusCode::ACCEPTED);
    let otp = until("another code", async || Some(app.code_sent_to(&ada.phone).await).filter(|code| *code != before)).await;
    let password = "another horse 8";
    let reset = json!({ "reset_id": sent["reset_id"], "phone": ada.phone, "otp": otp, "new_password": password });
    app.post("/api/v1/auth/password/reset", reset).send().await.expect(StatusCode::NO_CONTENT);
    login(&app, &ada, "laptop", password, None).send().await.expect_problem(401, "totp_required");
    login(&app, &ada, "laptop", password, Some(&recovery[0])).send().await.expect(StatusCode::OK);
}
