//! Cursors of lists: one that a list gave to somebody is good for that list and that person, and nothing else is.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{Person, TestApp};

const CONVERSATIONS: &str = "/api/v1/messages/conversations";

struct Lists {
    app: std::sync::Arc<TestApp>,
    ada: Person,
    paths: Vec<String>,
}

impl Lists {
    /// Somebody with at least two of everything that is listed in pages.
    async fn new() -> Self {
        let app = TestApp::shared().await;
        let (ada, bala) = app.two().await;
        let cleo = app.someone().await;
        let talk = app.conversation(&ada, &bala).await;
        let group = app.group(&ada, &[&bala, &cleo]).await;
        for content in ["one", "two", "three"] {
            app.say(&ada, &talk, content).await;
            app.say(&ada, &group, content).await;
        }
        for (person, name) in [(&bala, "Quillon Bala"), (&cleo, "Quillon Cleo")] {
            app.patch("/api/v1/users/me", json!({ "display_name": name })).by(person).send().await.expect(StatusCode::OK);
            app.post("/api/v1/users/contacts", json!({ "user_id": person.id })).by(&ada).send().await.expect(StatusCode::CREATED);
        }
        for _ in 0..2 {
            let stranger = app.someone().await;
            app.put(&format!("/api/v1/users/blocked/{}", stranger.id), json!({})).by(&ada).send().await;
        }
        app.log_in(&ada, "another device").await;
        let ada = app.log_in(&ada, "one more").await;
        let paths = vec![
            format!("{CONVERSATIONS}?limit=1"),
            format!("{CONVERSATIONS}/{group}/participants?limit=1"),
            format!("/api/v1/messages?conversation_id={talk}&limit=1"),
            format!("/api/v1/messages?conversation_id={group}&limit=1"),
            "/api/v1/users/contacts?limit=1".to_owned(),
            "/api/v1/users/blocked?limit=1".to_owned(),
            "/api/v1/users/search?q=quillon&limit=1".to_owned(),
            "/api/v1/auth/login-history?limit=1".to_owned(),
        ];
        Self { app, ada, paths }
    }

    async fn first(&self, path: &str) -> (Value, String) {
        let page = self.app.get(path).by(&self.ada).send().await.expect(StatusCode::OK);
        let cursor = page["next_cursor"].as_str().unwrap_or_else(|| panic!("{path} has another page: {page}")).to_owned();
        (page, cursor)
    }

    async fn refused(&self, what: &str, path: &str, cursor: &str, by: &Person) {
        let reply = self.app.get(&format!("{path}&cursor={cursor}")).by(by).send().await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{what} of {path}: {}", reply.body);
        let problem = reply.expect_problem(422, "cursor_invalid");
        assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!("cursor"), &json!("cursor_invalid")), "{what}");
    }
}

#[tokio::test]
async fn a_cursor_is_refused_when_a_letter_of_it_is_changed() {
    let lists = Lists::new().await;
    for path in &lists.paths {
        let (page, cursor) = lists.first(path).await;
        let next = lists.app.get(&format!("{path}&cursor={cursor}")).by(&lists.ada).send().await.expect(StatusCode::OK);
        assert_ne!(next["items"], page["items"], "{path}");
        assert_eq!(next["items"].as_array().map(Vec::len), Some(1), "{path}");
        for at in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            lists.refused("a changed letter", path, std::str::from_utf8(&changed).expect("ASCII"), &lists.ada).await;
        }
        for (what, changed) in [
            ("a shorter one", cursor[..cursor.len() - 1].to_owned()),
            ("a longer one", format!("{cursor}A")),
            ("the service's own", cursor[22..].to_owned()),
            ("a padded one", format!("{cursor}=")),
            ("no cursor", "a%20b".to_owned()),
        ] {
            lists.refused(what, path, &changed, &lists.ada).await;
        }
    }
}

#[tokio::test]
async fn a_cursor_is_good_for_its_list_and_its_person_alone() {
    let lists = Lists::new().await;
    let mut cursors = Vec::new();
    for path in &lists.paths {
        cursors.push(lists.first(path).await.1);
    }
    let other = lists.app.someone().await;
    for (path, cursor) in lists.paths.iter().zip(&cursors) {
        for foreign in cursors.iter().filter(|foreign| *foreign != cursor) {
            lists.refused("another list's", path, foreign, &lists.ada).await;
        }
        lists.refused("another person's", path, cursor, &other).await;
    }
    // The same person on another device goes on where the first one stopped, with pages of another size.
    let elsewhere = lists.app.log_in(&lists.ada, "a third device").await;
    for (path, cursor) in lists.paths.iter().zip(&cursors) {
        let path = path.replace("limit=1", "limit=7");
        lists.app.get(&format!("{path}&cursor={cursor}")).by(&elsewhere).send().await.expect(StatusCode::OK);
    }
}

#[tokio::test]
async fn a_cursor_outlives_the_host() {
    let mut app = TestApp::start().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    app.say(&ada, &talk, "one").await;
    app.say(&ada, &talk, "two").await;
    let path = format!("/api/v1/messages?conversation_id={talk}&limit=1");
    let page = app.get(&path).by(&ada).send().await.expect(StatusCode::OK);
    let cursor = page["next_cursor"].as_str().expect("another page").to_owned();
    app.kill();
    app.restart().await;
    let next = app.get(&format!("{path}&cursor={cursor}")).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!(next["items"][0]["content"], "one");
}
