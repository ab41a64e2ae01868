//! A push token belongs to one account and one session: no push goes to a phone whose owner signed out of it, or where another signed in.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::app::{Person, TestApp, until};

const DEVICES: &str = "/api/v1/notifications/devices";
const SERVICES: [&str; 5] = ["auth", "location", "message", "notification", "user"];

async fn register(app: &TestApp, person: &Person, token: &str) {
    let device = json!({ "token": token, "provider": "fcm", "platform": "android" });
    app.post(DEVICES, device).by(person).send().await.expect(StatusCode::CREATED);
}

/// The push tokens of a person's sessions, sorted.
async fn tokens(app: &TestApp, person: &Person) -> Vec<String> {
    let listed = app.get(DEVICES).by(person).send().await.expect(StatusCode::OK);
    let items = listed["items"].as_array().expect("items").iter();
    let mut tokens: Vec<String> = items.map(|device| device["token"].as_str().expect("a token").to_owned()).collect();
    tokens.sort();
    tokens
}

/// `other` looks from a session that lives on.
async fn only_the_others_is_left(app: &TestApp, other: &Person, how: &str) {
    until(&format!("the token is gone: {how}"), async || (tokens(app, other).await == ["kept"]).then_some(())).await;
}

#[tokio::test]
async fn a_push_token_ends_with_its_session_however_that_ended() {
    let settings = [("ECHO_SERVICES__AUTH__SESSIONS_MAX", "2"), ("ECHO_SERVICES__AUTH__OTP_RESEND_S", "0")];
    let app = TestApp::with(&SERVICES, &settings).await;
    for how in ["logout", "ended from another", "refresh token used twice", "password changed", "replaced on its device", "evicted"] {
        let phone = app.someone().await;
        let other = app.log_in(&phone, "laptop").await;
        register(&app, &phone, &how.replace(' ', "-")).await;
        register(&app, &other, "kept").await;
        assert_eq!(tokens(&app, &other).await.len(), 2, "{how}");
        match how {
            "logout" => {
                app.request(Method::POST, "/api/v1/auth/logout").by(&phone).send().await.expect(StatusCode::NO_CONTENT);
            }
            "ended from another" => {
                let path = format!("/api/v1/auth/sessions/{}", phone.session_id);
                app.delete(&path).by(&other).send().await.expect(StatusCode::NO_CONTENT);
            }
            "refresh token used twice" => {
                let refresh = async |token: &str| app.post("/api/v1/auth/refresh", json!({ "refresh_token": token })).send().await;
                let second = refresh(&phone.refresh_token).await.expect(StatusCode::OK);
                refresh(second["refresh_token"].as_str().expect("a token")).await.expect(StatusCode::OK);
                assert_eq!(tokens(&app, &other).await.len(), 2, "a refresh keeps the session and its token");
                refresh(&phone.refresh_token).await.expect_problem(401, "refresh_reused");
            }
            "password changed" => {
                let change = json!({ "current_password": phone.password, "new_password": "another battery 8" });
                app.post("/api/v1/auth/password/change", change).by(&other).send().await.expect(StatusCode::NO_CONTENT);
            }
            "replaced on its device" => {
                app.log_in(&phone, "phone").await;
            }
            // The least recently used one of more than two.
            _ => {
                app.log_in(&phone, "tablet").await;
            }
        }
        only_the_others_is_left(&app, &other, how).await;
    }
}

#[tokio::test]
async fn push_tokens_end_with_all_sessions_and_with_a_reset_password() {
    let settings = [("ECHO_SERVICES__AUTH__OTP_RESEND_S", "0")];
    let app = TestApp::with(&SERVICES, &settings).await;
    for how in ["logout of all", "password reset"] {
        let mut phone = app.someone().await;
        register(&app, &phone, &how.replace(' ', "-")).await;
        if how == "logout of all" {
            app.request(Method::POST, "/api/v1/auth/logout-all").by(&phone).send().await.expect(StatusCode::NO_CONTENT);
        } else {
            let first = app.code_sent_to(&phone.phone).await;
            app.post("/api/v1/auth/password/forgot", json!({ "phone": phone.phone })).send().await.expect(StatusCode::ACCEPTED);
            let code = until("another code", async || Some(app.code_sent_to(&phone.phone).await).filter(|code| *code != first)).await;
            phone.password = "another battery 8".to_owned();
            let reset = json!({ "phone": phone.phone, "otp": code, "new_password": phone.password });
            app.post("/api/v1/auth/password/reset", reset).send().await.expect(StatusCode::NO_CONTENT);
        }
        let back = app.log_in(&phone, "laptop").await;
        until(how, async || tokens(&app, &back).await.is_empty().then_some(())).await;
    }
}

#[tokio::test]
async fn a_push_token_ends_when_its_session_is_too_old() {
    let app = TestApp::with(&SERVICES, &[("ECHO_SERVICES__AUTH__REFRESH_TTL_S", "4")]).await;
    let phone = app.someone().await;
    register(&app, &phone, "old").await;
    // The access token lives longer than the session here; nobody signs in or refreshes meanwhile.
    until("the token is gone", async || tokens(&app, &phone).await.is_empty().then_some(())).await;
    // Nor does a request that comes later than the end register one again.
    let device = json!({ "token": "late", "provider": "fcm" });
    app.post(DEVICES, device).by(&phone).send().await.expect_problem(401, "token_revoked");
}

#[tokio::test]
async fn a_push_token_that_the_next_session_of_a_device_registers_stays() {
    let app = TestApp::shared().await;
    let before = app.someone().await;
    let (old, kept) = (format!("old-{}", before.id), format!("kept-{}", before.id));
    register(&app, &before, &old).await;
    register(&app, &before, &kept).await;
    // As fast as a client can: the end of the session before may be heard of later.
    let now = app.log_in(&before, "phone").await;
    register(&app, &now, &kept).await;
    until("the old one is gone", async || (!tokens(&app, &now).await.contains(&old)).then_some(())).await;
    assert_eq!(tokens(&app, &now).await, [kept]);
}

#[tokio::test]
async fn a_push_token_moves_to_who_registers_it_and_tells_nothing_of_who_had_it() {
    let app = TestApp::with(&SERVICES, &[("ECHO_SERVICES__NOTIFICATION__ACK_WAIT_S", "0")]).await;
    let (ada, bala) = app.two().await;
    let friend = app.someone().await;
    register(&app, &ada, "one-phone").await;
    register(&app, &bala, "one-phone").await;
    assert_eq!((tokens(&app, &ada).await, tokens(&app, &bala).await), (vec![], vec!["one-phone".to_owned()]));

    // The end of the session that had it before takes nothing from the one that has it now.
    app.request(Method::POST, "/api/v1/auth/logout").by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let (to_ada, to_bala) = (app.conversation(&friend, &ada).await, app.conversation(&friend, &bala).await);
    app.say(&friend, &to_ada, "for Ada").await;
    app.say(&friend, &to_bala, "for Bala").await;
    let pushes = until("a push", async || {
        let items = app.outbox().await;
        let pushes: Vec<_> = items.iter().filter(|item| item["channel"] == "push").map(|item| item["body"].clone()).collect();
        (!pushes.is_empty()).then_some(pushes)
    })
    .await;
    assert_eq!(pushes, ["for Bala"]);
    assert_eq!(tokens(&app, &bala).await, ["one-phone"]);
}
