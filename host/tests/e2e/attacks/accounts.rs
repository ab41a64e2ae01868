//! Strangers who want other people's accounts, or want to keep them out of these.

use std::sync::atomic::{AtomicUsize, Ordering};

use echo_base::limits;
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{Ask, Person, Reply, TestApp, until, unused_phone};
use crate::stored;

const SERVICES: [&str; 4] = ["auth", "location", "notification", "user"];
/// So that a story need not wait between two codes.
const NO_PAUSE: (&str, &str) = ("ECHO_SERVICES__AUTH__OTP_RESEND_S", "0");
/// So that a story can tell several addresses.
const PROXY: (&str, &str) = ("ECHO_SERVER__TRUSTED_PROXIES_COUNT", "1");
const FROM: &str = "x-forwarded-for";
const HOME: &str = "203.0.113.1";
const AWAY: &str = "198.51.100.99";
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
        answers.push(without_id(app.post("/api/v1/auth/register", register).send().await.expect_problem(429, "too_soon")));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn a_strangers_registration_makes_the_owner_wait_for_nothing() {
    let app = TestApp::with(&SERVICES, &[PROXY]).await;
    let phone = unused_phone();
    let register = |address: &str| {
        let body = json!({ "phone": phone, "password": OWNERS, "name": "Ada" });
        app.post("/api/v1/auth/register", body).header(FROM, address)
    };
    register(AWAY).send().await.expect(StatusCode::CREATED);
    register(AWAY).send().await.expect_problem(429, "too_soon");
    let owners = register(HOME).send().await.expect(StatusCode::CREATED);
    register(HOME).send().await.expect_problem(429, "too_soon");
    let again = json!({ "registration_id": owners["registration_id"], "phone": phone });
    app.post("/api/v1/auth/resend-otp", again).header(FROM, HOME).send().await.expect_problem(429, "too_soon");
}

#[tokio::test]
async fn a_name_of_white_space_is_refused_and_an_empty_one_is_none() {
    let app = TestApp::shared().await;
    let register = |name: &str| app.post("/api/v1/auth/register", json!({ "phone": unused_phone(), "password": OWNERS, "name": name }));
    for name in [" ", "\u{3000}", "\u{a0} "] {
        register(name).send().await.expect_problem(422, "unreadable_text");
    }
    register("").send().await.expect(StatusCode::CREATED);
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

// --- Guessing passwords ------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn of_forty_passwords_at_once_five_are_looked_at_and_the_right_one_is_not_told_from_the_others() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    let guesses = |count: usize| (0..count).map(|n| log_in(&app, &ada.phone, &format!("guess number {n}"), "strange").send());
    let answers = join_all(guesses(40)).await;
    assert_eq!(with_status(&answers, 401), 5, "{answers:?}");
    assert_eq!(with_status(&answers, 423), 35, "{answers:?}");

    let right = log_in(&app, &ada.phone, &ada.password, "strange").send();
    let (wrong, right) = futures_util::join!(join_all(guesses(20)), right);
    let right = without_id(right.expect_problem(423, "account_locked"));
    for wrong in wrong {
        assert!(wrong.header("retry-after").parse::<u64>().is_ok_and(|seconds| (1..=900).contains(&seconds)));
        assert_eq!(without_id(wrong.expect_problem(423, "account_locked")), right);
    }
}

#[tokio::test]
async fn a_lock_made_by_strangers_keeps_no_owner_out() {
    let app = TestApp::with(&SERVICES, &[PROXY]).await;
    let ada = app.sign_up_from(&unused_phone(), "phone", HOME).await;
    let log_in = |password: &str, device: &str, address: &str| log_in(&app, &ada.phone, password, device).header(FROM, address);
    for _ in 0..5 {
        log_in("a guess of a stranger", "strange", AWAY).send().await.expect_problem(401, "invalid_credentials");
    }
    for (device, address) in [("strange", AWAY), ("strange", HOME), ("another", "203.0.113.9")] {
        log_in(&ada.password, device, address).send().await.expect_problem(423, "account_locked");
    }
    // A device that signed in before is counted apart, also where it is on the move.
    log_in(&ada.password, "phone", HOME).send().await.expect(StatusCode::OK);
    let tokens = log_in(&ada.password, "phone", "203.0.113.10").send().await.expect(StatusCode::OK);
    let ada = Person::new(&ada.phone, &ada.password, "phone", &tokens);

    // A stranger who knows the device's id locks it for the places where it never was, and not for its owner's.
    for _ in 0..5 {
        log_in("a guess of a stranger", "phone", AWAY).send().await.expect_problem(401, "invalid_credentials");
    }
    log_in(&ada.password, "phone", AWAY).send().await.expect_problem(423, "account_locked");
    let tokens = log_in(&ada.password, "phone", HOME).send().await.expect(StatusCode::OK);
    let ada = Person::new(&ada.phone, &ada.password, "phone", &tokens);

    // Nor does any of it concern a live session.
    change(&app, &ada, &ada.password, "a new password 1").send().await.expect(StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_session_has_five_tries_at_its_password_and_other_sessions_have_theirs() {
    let app = TestApp::shared().await;
    let thief = app.someone().await;
    let owner = app.log_in(&thief, "laptop").await;
    let answers = join_all((0..20).map(|n| change(&app, &thief, &format!("guess number {n}"), "a new password 1").send())).await;
    assert_eq!((with_status(&answers, 403), with_status(&answers, 423)), (5, 15), "{answers:?}");
    change(&app, &thief, &thief.password, "a new password 1").send().await.expect_problem(423, "account_locked");
    change(&app, &owner, &owner.password, "a new password 2").send().await.expect(StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn an_address_that_fails_at_many_numbers_is_locked() {
    // Not development mode, where bounds of an address are a thousand times as high; so without codes, on numbers that nobody has.
    let settings = [("ECHO_PASSWORDS__COST", "production"), ("ECHO_SERVICES__AUTH__FAILURES_PER_ADDRESS", "3"), PROXY];
    let app = TestApp::launch("serve", &SERVICES, &settings).await;
    let log_in = |address: &str| log_in(&app, &unused_phone(), "a guess of a stranger", "strange").header(FROM, address);
    for _ in 0..3 {
        log_in(AWAY).send().await.expect_problem(401, "invalid_credentials");
    }
    log_in(AWAY).send().await.expect_problem(423, "account_locked");
    log_in(HOME).send().await.expect_problem(401, "invalid_credentials");
}

#[tokio::test]
async fn a_known_device_signs_in_from_an_address_that_strangers_have_locked() {
    // The routes' rates are not what is asked about.
    let settings = [("ECHO_SERVICES__AUTH__FAILURES_PER_ADDRESS", "3"), ("ECHO_GATEWAY__RATE_SCALE", "1000"), PROXY];
    let mut app = TestApp::with(&SERVICES, &settings).await;
    let ada = app.sign_up_from(&unused_phone(), "phone", HOME).await;
    // Bounds of an address are a thousand times as high in development mode.
    app.restart_in("serve").await;
    let guess = || log_in(&app, &unused_phone(), "a guess of a stranger", "strange").header(FROM, HOME);
    for _ in 0..3 {
        guess().send().await.expect_problem(401, "invalid_credentials");
    }
    guess().send().await.expect_problem(423, "account_locked");
    log_in(&app, &ada.phone, &ada.password, "strange").header(FROM, HOME).send().await.expect_problem(423, "account_locked");
    log_in(&app, &ada.phone, &ada.password, "phone").header(FROM, HOME).send().await.expect(StatusCode::OK);
}

// --- Guessing codes, and having them sent --------------------------------------------------------------------------------------------------

#[tokio::test]
async fn wrong_codes_of_strangers_do_not_end_the_owners() {
    let app = TestApp::with(&SERVICES, &[PROXY]).await;
    let ada = app.sign_up_from(&unused_phone(), "phone", HOME).await;
    let sent = codes_sent_to(&app, &ada.phone, 1).await.len();
    let request = app.post("/api/v1/auth/password/forgot", json!({ "phone": ada.phone })).header(FROM, "203.0.113.10");
    let request = request.send().await.expect(StatusCode::ACCEPTED);
    let codes = codes_sent_to(&app, &ada.phone, sent + 1).await;
    let reset = |request: Option<&str>, otp: &str, address: &str| {
        let reset = json!({ "reset_id": request, "phone": ada.phone, "otp": otp, "new_password": "a new password 1" });
        app.post("/api/v1/auth/password/reset", reset).header(FROM, address)
    };
    for address in ["198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4"] {
        let answers = join_all((0..8).map(|_| reset(None, other_than(&codes), address).send())).await;
        assert_eq!((with_status(&answers, 422), with_status(&answers, 423)), (5, 3), "{answers:?}");
        // While locked, the right one is answered as any.
        reset(None, &codes[0], address).send().await.expect_problem(423, "account_locked");
    }
    // All strangers together have had their tries.
    reset(None, &codes[0], "198.51.100.5").send().await.expect_problem(423, "account_locked");
    // Other requests than the owner's have no part in its code.
    reset(Some(&"A".repeat(43)), &codes[0], AWAY).send().await.expect_problem(422, "invalid_otp");
    let own = request["reset_id"].as_str().expect("reset_id");
    reset(Some(own), other_than(&codes), "203.0.113.10").send().await.expect_problem(422, "invalid_otp");
    reset(Some(own), &codes[0], "203.0.113.10").send().await.expect(StatusCode::NO_CONTENT);
    // A new password ends what was counted against the old one's.
    log_in(&app, &ada.phone, "a new password 1", "tablet").header(FROM, AWAY).send().await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_number_that_nobody_has_is_answered_as_any_when_its_password_is_reset() {
    let app = TestApp::with(&SERVICES, &[NO_PAUSE, PROXY, ("ECHO_SERVICES__AUTH__OTP_PER_DAY", "2")]).await;
    let ada = app.sign_up_from(&unused_phone(), "phone", HOME).await;
    let mut stories = Vec::new();
    for phone in [ada.phone.clone(), unused_phone()] {
        let mut story = Vec::new();
        let forgot = |address: &str| app.post("/api/v1/auth/password/forgot", json!({ "phone": phone })).header(FROM, address).send();
        let reset = |request: Option<&str>| {
            let reset = json!({ "reset_id": request, "phone": phone, "otp": "000001", "new_password": "a new password 1" });
            app.post("/api/v1/auth/password/reset", reset).header(FROM, AWAY).send()
        };
        // Others have asked for all the codes that strangers get for it in a day.
        for stranger in 1..=3 {
            story.push(forgot(&format!("198.51.100.{stranger}")).await);
        }
        let request = forgot(AWAY).await;
        let secret = request["reset_id"].as_str().expect("reset_id").to_owned();
        story.push(request);
        story.push(forgot(AWAY).await);
        story.push(forgot(AWAY).await);
        for _ in 0..6 {
            story.push(reset(Some(&secret)).await);
        }
        for _ in 0..6 {
            story.push(reset(None).await);
        }
        let told = story.into_iter().map(|mut reply| {
            let body = reply.body.as_object_mut().expect("an object");
            body.remove("request_id");
            body.remove("reset_id");
            // How long to wait is counted from the first.
            (reply.status, reply.body, reply.headers.contains_key("retry-after"))
        });
        stories.push(told.collect::<Vec<_>>());
    }
    let codes: Vec<u16> = stories[0].iter().map(|(status, ..)| status.as_u16()).collect();
    assert_eq!(codes, [202, 202, 202, 202, 202, 429, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 423]);
    assert_eq!(stories[0], stories[1]);
}

#[tokio::test]
async fn what_strangers_ask_for_is_not_taken_from_the_owner() {
    let app = TestApp::with(&SERVICES, &[NO_PAUSE, PROXY, ("ECHO_SERVICES__AUTH__OTP_PER_DAY", "3")]).await;
    let forgot = |phone: &str, address: &str| app.post("/api/v1/auth/password/forgot", json!({ "phone": phone })).header(FROM, address);

    // Nothing leaves for a number that nobody has, and nothing is counted: it can be registered.
    let phone = unused_phone();
    for stranger in 1..=5 {
        forgot(&phone, &format!("198.51.100.{stranger}")).send().await.expect(StatusCode::ACCEPTED);
    }
    let ada = app.sign_up_from(&phone, "phone", HOME).await;
    assert_eq!(codes_sent_to(&app, &phone, 1).await.len(), 1);

    // Many strangers: three codes leave, and the owner at home still gets one.
    for stranger in 1..=5 {
        forgot(&phone, &format!("198.51.100.{stranger}")).send().await.expect(StatusCode::ACCEPTED);
    }
    let codes = codes_sent_to(&app, &phone, 4).await;
    assert_eq!(codes.len(), 4);
    forgot(&ada.phone, HOME).send().await.expect(StatusCode::ACCEPTED);
    codes_sent_to(&app, &phone, 5).await;
}

#[tokio::test]
async fn one_address_has_its_own_share_of_a_numbers_codes_and_of_all_codes_and_the_host_a_bound() {
    let settings = [
        ("ECHO_PASSWORDS__COST", "production"),
        ("ECHO_SERVICES__AUTH__OTP_PER_CLIENT_DAY", "2"),
        ("ECHO_SERVICES__AUTH__OTP_PER_ADDRESS_DAY", "3"),
        ("ECHO_SERVICES__AUTH__OTP_PER_HOST_DAY", "5"),
        NO_PAUSE,
        PROXY,
    ];
    let app = TestApp::launch("serve", &SERVICES, &settings).await;
    let register =
        |phone: &str, address: &str| app.post("/api/v1/auth/register", json!({ "phone": phone, "password": OWNERS })).header(FROM, address);
    let (one, other) = (unused_phone(), unused_phone());
    register(&one, AWAY).send().await.expect(StatusCode::CREATED);
    register(&one, AWAY).send().await.expect(StatusCode::CREATED);
    register(&one, AWAY).send().await.expect_problem(429, "too_many_codes");
    register(&one, HOME).send().await.expect(StatusCode::CREATED);
    register(&other, AWAY).send().await.expect(StatusCode::CREATED);
    register(&unused_phone(), AWAY).send().await.expect_problem(429, "too_many_codes");
    register(&unused_phone(), HOME).send().await.expect(StatusCode::CREATED);
    let refused = register(&unused_phone(), "203.0.113.10").send().await;
    assert!(refused.header("retry-after").parse::<u64>().expect("seconds") > 3_600);
    refused.expect_problem(429, "too_many_codes");
}

#[tokio::test]
async fn numbers_that_cost_their_caller_money_get_no_codes_unless_the_operator_says_so() {
    let app = TestApp::shared().await;
    let register = |phone: &str| json!({ "phone": phone, "password": OWNERS });
    for phone in [
        "+449098790123",
        "+979123456789",
        "+19002345678",
        "+882131234567",
        "+881612345678",
        "+870773111632",
        "+80812345678",
        "+491801123456",
    ] {
        for (path, body) in [("register", register(phone)), ("password/forgot", json!({ "phone": phone }))] {
            let refused = app.post(&format!("/api/v1/auth/{path}"), body).send().await.expect_problem(422, "phone_not_served");
            assert_eq!(refused["errors"][0]["field"], "phone", "{path} {phone}: {refused}");
        }
    }
    let settings =
        [("ECHO_SERVICES__AUTH__SERVED_NUMBER_TYPES", "mobile,premium_rate"), ("ECHO_SERVICES__AUTH__SERVED_GLOBAL_CODES", "+881")];
    let app = TestApp::with(&SERVICES, &settings).await;
    for phone in ["+449098790123", "+881612345678"] {
        app.post("/api/v1/auth/register", register(phone)).send().await.expect(StatusCode::CREATED);
        app.code_sent_to(phone).await;
    }
}

// --- Keeping the workers busy ----------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_known_device_and_a_live_session_do_not_wait_behind_a_flood_of_wrong_passwords() {
    let app = TestApp::with(&SERVICES, &[("ECHO_PASSWORDS__COST", "production"), PROXY]).await;
    let ada = app.sign_up_from(&unused_phone(), "phone", HOME).await;
    let tablet = log_in(&app, &ada.phone, &ada.password, "tablet").header(FROM, HOME).send().await.expect(StatusCode::OK);
    let tablet = Person::new(&ada.phone, &ada.password, "tablet", &tablet);
    let answered = AtomicUsize::new(0);
    // Against as many numbers, or the lock would turn them away before any work.
    let flood = join_all((0..60).map(|_| async {
        log_in(&app, &unused_phone(), "a guess of a stranger", "strange").header(FROM, AWAY).send().await;
        answered.fetch_add(1, Ordering::Relaxed)
    }));
    let owner = async {
        // Those for whom there is no room are answered at once; the others wait and are served.
        let turned_away = 60 - limits::PASSWORD_STRANGERS_WAITING_MAX - limits::PASSWORD_WORKERS;
        until("the flood is there and is served", async || (answered.load(Ordering::Relaxed) >= turned_away + 2).then_some(())).await;
        let before = answered.load(Ordering::Relaxed);
        log_in(&app, &ada.phone, &ada.password, "phone").header(FROM, HOME).send().await.expect(StatusCode::OK);
        change(&app, &tablet, "not the password", "a new password 1").send().await.expect_problem(403, "wrong_password");
        answered.load(Ordering::Relaxed) - before
    };
    let (_, overtaken) = futures_util::join!(flood, owner);
    assert!(overtaken <= 12, "{overtaken} guesses were served while the owner waited");
}

// --- Tokens -------------------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn two_tabs_or_a_lost_answer_sign_nobody_out_and_a_stolen_token_ends_with_its_session() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    let refresh = |token: &str| app.post("/api/v1/auth/refresh", json!({ "refresh_token": token }));
    let next = async |token: &str| Person::new(&ada.phone, "", "phone", &refresh(token).send().await.expect(StatusCode::OK));

    // Two tabs at once, and an answer that was lost: each gets a pair, and the last is the one that goes on.
    let tabs = join_all([refresh(&ada.refresh_token).send(), refresh(&ada.refresh_token).send()]).await;
    assert_eq!(with_status(&tabs, 200), 2, "{tabs:?}");
    let last = next(&ada.refresh_token).await;
    assert_eq!(last.session_id, ada.session_id);
    for tab in &tabs {
        let ended = tab["refresh_token"].as_str().expect("refresh_token");
        refresh(ended).send().await.expect_problem(401, "refresh_invalid");
    }
    let after = next(&last.refresh_token).await;
    app.get("/api/v1/users/me").by(&after).send().await.expect(StatusCode::OK);

    // The successor was used: whoever has the old one now has it from somewhere else.
    refresh(&ada.refresh_token).send().await.expect_problem(401, "refresh_reused");
    refresh(&after.refresh_token).send().await.expect_problem(401, "refresh_invalid");
    app.get("/api/v1/users/me").by(&after).send().await.expect_problem(401, "token_revoked");
}

#[tokio::test]
async fn after_its_time_a_used_refresh_token_ends_the_session() {
    let app = TestApp::with(&SERVICES, &[("ECHO_SERVICES__AUTH__REFRESH_GRACE_S", "0")]).await;
    let ada = app.someone().await;
    let refresh = || app.post("/api/v1/auth/refresh", json!({ "refresh_token": ada.refresh_token }));
    refresh().send().await.expect(StatusCode::OK);
    refresh().send().await.expect_problem(401, "refresh_reused");
}

// --- Filling the tables ----------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn what_is_over_is_removed() {
    let mut app = TestApp::with(&SERVICES, &[NO_PAUSE]).await;
    let ada = app.someone().await;
    app.log_in(&ada, "tablet").await;
    log_in(&app, &ada.phone, "not the password", "strange").send().await.expect_problem(401, "invalid_credentials");
    register(&app, &unused_phone(), STRANGERS, "Stranger").await;
    app.post("/api/v1/auth/password/forgot", json!({ "phone": ada.phone })).send().await.expect(StatusCode::ACCEPTED);

    // A year passes.
    const TIMES: [(&str, &str); 7] = [
        ("registrations", "expires_at"),
        ("resets", "expires_at"),
        ("guesses", "failed_at"),
        ("code_counts", "sent_at"),
        ("known_devices", "seen_at"),
        ("login_attempts", "at"),
        ("accounts", "created_at"),
    ];
    assert!(app.terminate().await.success());
    let (now, a_year) = match app.database() {
        Some(_) => ("now()", "INTERVAL '366 days'"),
        None => ("1", "31622400000000"),
    };
    let unconfirmed = format!(
        "INSERT INTO accounts (id, phone, password_hash, created_at) VALUES ('018f4c5e-7b1a-7c3d-8e9f-0123456789ab', '+12015559999', 'x', {now})"
    );
    stored::execute(&app, "auth", &unconfirmed);
    let count = |app: &TestApp, table: &str| stored::number(app, "auth", &format!("SELECT COUNT(*) FROM {table}")).expect("a count");
    for (table, time) in TIMES {
        assert!(count(&app, table) > 0, "{table}");
        stored::execute(&app, "auth", &format!("UPDATE {table} SET {time} = {time} - {a_year}"));
    }
    app.restart().await;
    // The history is removed last.
    until("the history has nothing of before", async || {
        let history = app.get("/api/v1/auth/login-history").by(&ada).send().await.expect(StatusCode::OK);
        history["items"].as_array().is_some_and(Vec::is_empty).then_some(())
    })
    .await;
    assert!(app.terminate().await.success());
    let kept: Vec<(&str, i64)> = TIMES.iter().map(|(table, _)| (*table, count(&app, table))).collect();
    let expected = TIMES.map(|(table, _)| (table, if table == "accounts" { 1 } else { 0 }));
    assert_eq!(kept, expected);
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
        let items = app.outbox().await;
        let codes = items.iter().filter(|item| item["to"] == phone).filter_map(|item| item["code"].as_str().map(str::to_owned));
        Some(codes.collect::<Vec<_>>()).filter(|codes| codes.len() >= count)
    })
    .await
}

fn change(app: &TestApp, person: &Person, current: &str, new: &str) -> Ask {
    app.post("/api/v1/auth/password/change", json!({ "current_password": current, "new_password": new })).by(person)
}

fn with_status(answers: &[Reply], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

fn without_id(mut problem: Value) -> Value {
    problem.as_object_mut().expect("an object").remove("request_id");
    problem
}

/// A code that is none of these.
fn other_than(codes: &[String]) -> &'static str {
    ["000001", "000002", "000003", "000004"].into_iter().find(|code| !codes.iter().any(|sent| sent == code)).expect("one of four")
}
