//! Searching messages: what is found, by whom, and what never is.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{Person, TestApp, until};

const MESSAGES: &str = "/api/v1/messages";

/// Percent-encoded (RFC 3986).
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// The contents of what is found, the newest first.
async fn found(app: &TestApp, person: &Person, text: &str, conversation: Option<&str>) -> Vec<String> {
    let within = conversation.map_or_else(String::new, |id| format!("&conversation_id={id}"));
    let path = format!("{MESSAGES}/search?q={}{within}", encoded(text));
    let list = app.get(&path).by(person).send().await.expect(StatusCode::OK);
    assert_eq!(list["next_cursor"], Value::Null);
    list["items"].as_array().expect("items").iter().map(|message| message["content"].as_str().expect("content").to_owned()).collect()
}

/// The index follows within a moment.
async fn until_found(app: &TestApp, person: &Person, text: &str) {
    until("it is in the index", async || (!found(app, person, text, None).await.is_empty()).then_some(())).await;
}

#[tokio::test]
async fn messages_are_found_by_their_words_and_everything_is_text() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let group = app.group(&bala, &[&ada]).await;
    let contents = ["At the Café by the old bridge", "it is \"over\" there", "100% of NEAR(a b)", "1000 per cent", "你好吗"];
    for content in contents {
        app.say(&ada, &talk, content).await;
    }
    app.say(&bala, &group, "another bridge").await;
    until_found(&app, &ada, "another").await;
    until_found(&app, &ada, "你").await;
    for (text, expect) in [
        ("bridge", vec!["another bridge", contents[0]]),
        ("CAFE brid", vec![contents[0]]),
        ("ridge", vec![]),
        ("\"over\"", vec![contents[1]]),
        ("\"", vec![contents[1]]),
        ("%", vec![contents[2]]),
        ("100%", vec![contents[2]]),
        ("100", vec![contents[3], contents[2]]),
        ("NEAR(", vec![contents[2]]),
        ("near(a b)", vec![contents[2]]),
        ("bridge OR over", vec![]),
        ("bridge -old", vec![]),
        ("_", vec![]),
        ("*", vec![]),
        ("'; DROP TABLE messages; --", vec![]),
        ("好吗", vec![contents[4]]),
    ] {
        assert_eq!(found(&app, &bala, text, None).await, expect, "{text}");
    }
    assert_eq!(found(&app, &bala, "bridge", Some(&talk)).await, [contents[0]]);
    assert_eq!(found(&app, &bala, "bridge", Some(&group)).await, ["another bridge"]);

    // Page by page.
    let page = app.get(&format!("{MESSAGES}/search?q=bridge&limit=1")).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!(page["items"][0]["content"], "another bridge");
    let next = format!("{MESSAGES}/search?q=bridge&limit=1&cursor={}", page["next_cursor"].as_str().expect("a further page"));
    let rest = app.get(&next).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!((&rest["items"][0]["content"], &rest["next_cursor"]), (&json!(contents[0]), &Value::Null));
    app.get(&next.replace("bridge", "over")).by(&ada).send().await.expect_problem(422, "cursor_invalid");

    app.get(&format!("{MESSAGES}/search?q=%20")).by(&ada).send().await.expect_problem(422, "invalid");
    app.get(&format!("{MESSAGES}/search")).by(&ada).send().await.expect_problem(422, "invalid");
    app.get(&format!("{MESSAGES}/search?q={}", "x".repeat(201))).by(&ada).send().await.expect_problem(422, "invalid");
}

#[tokio::test]
async fn nobody_finds_what_they_do_not_see() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let chen = app.someone().await;
    let group = app.group(&ada, &[&bala]).await;
    let early = app.say(&ada, &group, "marigold early").await;
    until_found(&app, &bala, "marigold").await;
    let path = format!("{MESSAGES}/conversations/{group}/participants");
    app.post(&path, json!({ "user_ids": [chen.id] })).by(&ada).send().await.expect(StatusCode::CREATED);
    app.say(&ada, &group, "marigold late").await;
    until_found(&app, &chen, "marigold").await;
    // Who joined later, who takes no part, who has left.
    assert_eq!(found(&app, &chen, "marigold", None).await, ["marigold late"]);
    let stranger = app.someone().await;
    assert_eq!(found(&app, &stranger, "marigold", None).await, [""; 0]);
    let within = format!("{MESSAGES}/search?q=marigold&conversation_id={group}");
    app.get(&within).by(&stranger).send().await.expect_problem(404, "not_found");
    app.delete(&format!("{path}/{}", chen.id)).by(&chen).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(found(&app, &chen, "marigold", None).await, [""; 0]);

    // What one has deleted for oneself, what a blocked person says, and what they made of an older message.
    app.delete(&format!("{MESSAGES}/{}", early["id"].as_str().expect("id"))).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(found(&app, &bala, "marigold", None).await, ["marigold late"]);
    let before = app.say(&ada, &group, "marigold before").await;
    app.request(Method::PUT, &format!("/api/v1/users/blocked/{}", ada.id)).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    until("the block is known", async || {
        let probe = app.say(&ada, &group, "are you there?").await;
        let seen = app.get(&format!("{MESSAGES}/{}", probe["id"].as_str().expect("id"))).by(&bala).send().await;
        (seen.status == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    app.say(&ada, &group, "marigold unseen").await;
    let change = json!({ "content": "tulip" });
    app.patch(&format!("{MESSAGES}/{}", before["id"].as_str().expect("id")), change).by(&ada).send().await.expect(StatusCode::OK);
    until_found(&app, &ada, "tulip").await;
    until_found(&app, &ada, "unseen").await;
    assert_eq!(found(&app, &bala, "tulip", None).await, [""; 0]);
    assert_eq!(found(&app, &bala, "unseen", None).await, [""; 0]);
}
