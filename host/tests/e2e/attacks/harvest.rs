//! Telephone numbers are few: whoever may test enough of them lists everybody. A number finds its owner only for whom the owner lets find it,
//! and how many numbers somebody tests in a day is bounded.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{Person, TestApp, unused_phone};

const MATCH: &str = "/api/v1/users/contacts/match";
const CONTACTS: &str = "/api/v1/users/contacts";

async fn matched(app: &TestApp, person: &Person, phones: &[&str]) -> Value {
    app.post(MATCH, json!({ "phones": phones })).by(person).send().await.expect(StatusCode::OK)["items"].clone()
}

async fn searched(app: &TestApp, person: &Person, phone: &str) -> Value {
    let path = format!("/api/v1/users/search?q={}", phone.replace('+', "%2B"));
    app.get(&path).by(person).send().await.expect(StatusCode::OK)["items"].clone()
}

/// What a problem says but for which request it is about.
fn said(mut problem: Value) -> Value {
    problem.as_object_mut().expect("a problem").remove("request_id");
    problem
}

#[tokio::test]
async fn a_number_alone_tells_a_stranger_nothing_of_who_has_it() {
    let app = TestApp::shared().await;
    let stranger = app.someone().await;
    let (private, blocking, nobody) = (app.someone().await, app.someone().await, unused_phone());
    let as_it_comes = app.someone().await;
    let hide = json!({ "phone_visible": "nobody" });
    app.put("/api/v1/users/me/privacy", hide).by(&private).send().await.expect(StatusCode::OK);
    let show = json!({ "phone_visible": "everyone" });
    app.put("/api/v1/users/me/privacy", show).by(&blocking).send().await.expect(StatusCode::OK);
    app.put(&format!("/api/v1/users/blocked/{}", stranger.id), json!({})).by(&blocking).send().await.expect(StatusCode::NO_CONTENT);

    // Of nobody, of who hides it, of who blocks the stranger, of who has chosen nothing: the same answers.
    let mut refusals = Vec::new();
    for phone in [&nobody, &private.phone, &blocking.phone, &as_it_comes.phone] {
        assert_eq!(searched(&app, &stranger, phone).await, json!([]), "{phone}");
        assert_eq!(matched(&app, &stranger, &[phone]).await, json!([]), "{phone}");
        let add = app.post(CONTACTS, json!({ "phone": phone })).by(&stranger).send().await;
        refusals.push(said(add.expect_problem(404, "not_found")));
    }
    assert!(refusals.iter().all(|refusal| *refusal == refusals[0]), "{refusals:?}");

    // Who says so is found by everybody else.
    let other = app.someone().await;
    assert_eq!(matched(&app, &other, &[&blocking.phone]).await[0]["user_id"], blocking.id.as_str());
}

#[tokio::test]
async fn two_who_have_each_others_numbers_find_each_other() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    assert_eq!(matched(&app, &ada, &[&bala.phone]).await, json!([]), "Bala does not know Ada's number yet");
    // Ada has Bala's number, so Bala may find her by hers; and then she him.
    assert_eq!(matched(&app, &bala, &[&ada.phone]).await, json!([{ "phone": ada.phone, "user_id": ada.id }]));
    assert_eq!(matched(&app, &ada, &[&bala.phone]).await, json!([{ "phone": bala.phone, "user_id": bala.id }]));
    app.post(CONTACTS, json!({ "phone": bala.phone })).by(&ada).send().await.expect(StatusCode::CREATED);

    // A number that was only searched for opens nothing to its owner, and one that is taken out again does not either.
    let (carl, dana) = app.two().await;
    searched(&app, &carl, &dana.phone).await;
    assert_eq!(searched(&app, &dana, &carl.phone).await, json!([]));
    app.delete(&format!("{CONTACTS}/{}", bala.id)).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(matched(&app, &bala, &[&ada.phone]).await, json!([]));
}

#[tokio::test]
async fn the_numbers_of_strangers_that_a_person_tests_in_a_day_are_bounded() {
    let app =
        TestApp::with(&["auth", "location", "message", "notification", "user"], &[("ECHO_SERVICES__USER__NUMBERS_PER_DAY", "5")]).await;
    let (ada, findable) = app.two().await;
    let show = json!({ "phone_visible": "everyone" });
    app.put("/api/v1/users/me/privacy", show).by(&findable).send().await.expect(StatusCode::OK);
    let unknown: Vec<String> = (0..8).map(|_| unused_phone()).collect();
    let unknown: Vec<&str> = unknown.iter().map(String::as_str).collect();

    // Three by matching, one by adding, one by searching, in whatever form: one count for all.
    assert_eq!(matched(&app, &ada, &[unknown[0], unknown[1], unknown[2], unknown[0]]).await, json!([]));
    app.post(CONTACTS, json!({ "phone": unknown[3] })).by(&ada).send().await.expect_problem(404, "not_found");
    assert_eq!(searched(&app, &ada, unknown[4]).await, json!([]));

    // The sixth is refused, known or not, and so is a list with one new number in it: nothing of it is answered.
    for phone in [unknown[5], &findable.phone] {
        let path = format!("/api/v1/users/search?q={}", phone.replace('+', "%2B"));
        let refused = app.get(&path).by(&ada).send().await;
        assert!(refused.header("retry-after").parse::<u64>().expect("seconds") > 86_000, "a day from the first one");
        refused.expect_problem(429, "too_many_numbers");
        app.post(CONTACTS, json!({ "phone": phone })).by(&ada).send().await.expect_problem(429, "too_many_numbers");
        let list = json!({ "phones": [unknown[0], phone] });
        app.post(MATCH, list).by(&ada).send().await.expect_problem(429, "too_many_numbers");
    }
    // More than a day's at once too.
    let another = app.someone().await;
    app.post(MATCH, json!({ "phones": unknown })).by(&another).send().await.expect_problem(429, "too_many_numbers");

    // What was tested before costs nothing, one's own number and names neither.
    assert_eq!(matched(&app, &ada, &unknown[..5]).await, json!([]));
    assert_eq!(searched(&app, &ada, &ada.phone).await[0]["id"], ada.id.as_str());
    let by_name = app.get("/api/v1/users/search?q=Person").by(&ada).send().await.expect(StatusCode::OK);
    assert!(!by_name["items"].as_array().expect("items").is_empty());
    assert_eq!(matched(&app, &another, &[&findable.phone]).await[0]["user_id"], findable.id.as_str(), "a refused list was not counted");
}
