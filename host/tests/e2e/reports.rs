//! Reporting people and messages, and looking up one block.

use reqwest::StatusCode;
use serde_json::json;

use crate::app::TestApp;

const REPORTS: &str = "/api/v1/users/reports";

#[tokio::test]
async fn a_person_or_a_message_that_one_can_see_is_reported() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let stranger = app.someone().await;
    let talk = app.conversation(&ada, &bala).await;
    let message = app.say(&bala, &talk, "Buy this").await;

    let of_person = json!({ "user_id": bala.id, "reason": " spam " });
    let report = app.post(REPORTS, of_person).by(&ada).send().await.expect(StatusCode::CREATED);
    assert_eq!((&report["user_id"], &report["message_id"], &report["reason"]), (&json!(bala.id), &json!(null), &json!("spam")));
    let of_message = json!({ "message_id": message["id"], "reason": "advertising" });
    let report = app.post(REPORTS, of_message.clone()).by(&ada).send().await.expect(StatusCode::CREATED);
    assert_eq!((&report["user_id"], &report["message_id"]), (&json!(bala.id), &message["id"]));
    // The same again is the same report.
    let again = app.post(REPORTS, of_message.clone()).by(&ada).send().await.expect(StatusCode::CREATED);
    assert_eq!((&again["id"], &again["created_at"]), (&report["id"], &report["created_at"]));

    // What one cannot see does not exist, and there is no reporting oneself.
    app.post(REPORTS, of_message.clone()).by(&stranger).send().await.expect_problem(404, "not_found");
    let nobody = json!({ "user_id": "01890000-0000-7000-8000-000000000000", "reason": "spam" });
    app.post(REPORTS, nobody).by(&ada).send().await.expect_problem(404, "not_found");
    app.post(REPORTS, of_message).by(&bala).send().await.expect_problem(422, "own_user");
    for (wrong, code) in [
        (json!({ "reason": "spam" }), "one_of"),
        (json!({ "user_id": bala.id, "message_id": message["id"], "reason": "spam" }), "one_of"),
        (json!({ "user_id": bala.id, "reason": "   " }), "unreadable_text"),
        (json!({ "user_id": bala.id, "reason": "x".repeat(1_001) }), "invalid"),
    ] {
        app.post(REPORTS, wrong).by(&ada).send().await.expect_problem(422, code);
    }
}

#[tokio::test]
async fn one_block_can_be_looked_up_by_its_owner_alone() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let path = format!("/api/v1/users/blocked/{}", bala.id);
    app.get(&path).by(&ada).send().await.expect_problem(404, "not_found");
    app.put(&path, json!({})).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(app.get(&path).by(&ada).send().await.expect(StatusCode::OK)["user_id"], bala.id.as_str());
    app.get(&format!("/api/v1/users/blocked/{}", ada.id)).by(&bala).send().await.expect_problem(404, "not_found");
    app.delete(&path).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    app.get(&path).by(&ada).send().await.expect_problem(404, "not_found");
}
