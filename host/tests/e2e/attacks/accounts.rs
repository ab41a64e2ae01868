//! Strangers who want other people's accounts, or want to keep them out of these.

use reqwest::StatusCode;
use serde_json::json;

use crate::app::{Ask, Person, TestApp, until, unused_phone};

const SERVICES: [&str; 4] = ["auth", "location", "notification", "user"];
/// So that a story need not wait between two codes.
const NO_PAUSE: (&str, &str) = ("ECHO_SERVICES__AUTH__OTP_RESEND_S", "0");
const OWNERS: &str = "the owner's password 7";
const STRANGERS: &str = "the stranger's password 7";

// --- Registering other people's numbers ----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_code_confirms_its_own_registration_and_no_strangers() {
    let app = TestApp::with(&SERVICES, &[NO_PAUSE]).await;
    let phone = unused_phone();
    let before = register(&app, &phone, STRANGERS, "Stranger").await;
    let owners = register(&app, &phone, OWNERS, "Owner").await;
    let after = register(&app, &phone, STRANGERS, "Stranger").await;
    let codes = codes_sent_to(&app, &phone, 3).await;
    let [after_code, owners_code, before_code] = &codes[..] else { panic!("{codes:?}") };

    // The owner is tricked into typing, or reads out, the wrong code; the stranger tries all that there are, and more than are allowed.
    for registration in [&before, &after] {
        verify(&app, registration, &phone, owners_code).send().await.expect_problem(422, "invalid_otp");
        for _ in 0..4 {
            verify(&app, registration, &phone, other_than(&codes)).send().await.expect_problem(422, "invalid_otp");
        }
        verify(&app, registration, &phone, owners_code).send().await.expect_problem(422, "otp_exhausted");
    }
    for code in [before_code, after_code] {
        verify(&app, &owners, &phone, code).send().await.expect_problem(422, "invalid_otp");
    }
    verify(&app, &"A".repeat(43), &phone, owners_code).send().await.expect_problem(422, "invalid_otp");

    let tokens = verify(&app, &owners, &phone, owners_code).send().await.expect(StatusCode::OK);
    let owner = Person::new(&phone, OWNERS, "phone", &tokens);
    let me = until("the profile", async || {
        let reply = app.get("/api/v1/users/me").by(&owner).send().await;
        (reply.status == StatusCode::OK).then_some(reply)
    })
    .await;
    assert_eq!(me["display_name"], "Owner");
    app.log_in(&owner, "tablet").await;
    log_in(&app, &phone, STRANGERS, "phone").send().await.expect_problem(401, "invalid_credentials");
    // The number is taken now: the stranger's registrations are over, their codes worth nothing.
    for (registration, code) in [(&before, before_code), (&after, after_code)] {
        verify(&app, registration, &phone, code).send().await.expect_problem(422, "invalid_otp");
        let resend = json!({ "registration_id": registration, "phone": phone });
        app.post("/api/v1/auth/resend-otp", resend).send().await.expect_problem(404, "registration_unknown");
    }
}

#[tokio::test]
async fn register_within_the_pause_answers_the_same_whatever_the_password() {
    let app = TestApp::shared().await;
    let phone = unused_phone();
    register(&app, &phone, OWNERS, "Owner").await;
    let mut answers = Vec::new();
    for password in [OWNERS, STRANGERS] {
        let register = json!({ "phone": phone, "password": password, "name": "Owner" });
        let mut answer = app.post("/api/v1/auth/register", register).send().await.expect_problem(429, "too_soon");
        answer.as_object_mut().expect("an object").remove("request_id");
        answers.push(answer);
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn open_registrations_of_a_number_are_bounded_and_those_that_are_open_stay() {
    let app = TestApp::with(&SERVICES, &[NO_PAUSE, ("ECHO_SERVICES__AUTH__REGISTRATIONS_PER_PHONE", "2")]).await;
    let phone = unused_phone();
    let owners = register(&app, &phone, OWNERS, "Owner").await;
    let code = app.code_sent_to(&phone).await;
    register(&app, &phone, STRANGERS, "Stranger").await;
    let third = app.post("/api/v1/auth/register", json!({ "phone": phone, "password": STRANGERS })).send().await;
    let wait: u64 = third.header("retry-after").parse().expect("seconds");
    assert!((1..=3_600).contains(&wait), "{wait}");
    third.expect_problem(429, "too_many_registrations");
    verify(&app, &owners, &phone, &code).send().await.expect(StatusCode::OK);
}

// --- What the stories ask --------------------------------------------------------------------------------------------------------------

/// The registration's id.
async fn register(app: &TestApp, phone: &str, password: &str, name: &str) -> String {
    let register = json!({ "phone": phone, "password": password, "name": name });
    let registered = app.post("/api/v1/auth/register", register).send().await.expect(StatusCode::CREATED);
    assert!(registered.get("user_id").is_none(), "{registered}");
    registered["registration_id"].as_str().expect("registration_id").to_owned()
}

fn verify(app: &TestApp, registration: &str, phone: &str, otp: &str) -> Ask {
    let verify = json!({ "registration_id": registration, "phone": phone, "otp": otp, "device": { "id": "phone" } });
    app.post("/api/v1/auth/verify-otp", verify)
}

fn log_in(app: &TestApp, phone: &str, password: &str, device: &str) -> Ask {
    app.post("/api/v1/auth/login", json!({ "phone": phone, "password": password, "device": { "id": device } }))
}

/// So many codes that were sent to the number, newest first.
async fn codes_sent_to(app: &TestApp, phone: &str, count: usize) -> Vec<String> {
    until("the codes are sent", async || {
        let outbox = app.get("/dev/outbox").send().await.expect(StatusCode::OK);
        let items = outbox["items"].as_array().expect("items").clone();
        let codes = items.iter().filter(|item| item["to"] == phone).filter_map(|item| item["code"].as_str().map(str::to_owned));
        Some(codes.collect::<Vec<_>>()).filter(|codes| codes.len() >= count)
    })
    .await
}

/// A code that is none of these.
fn other_than(codes: &[String]) -> &'static str {
    ["000001", "000002", "000003", "000004"].into_iter().find(|code| !codes.iter().any(|sent| sent == code)).expect("one of four")
}
