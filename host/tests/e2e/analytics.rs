//! What happens, in numbers: for whoever has the operator's role, and at nobody's expense.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{ALL, Person, TestApp, until};
use crate::candidate::{Candidate, repacked};
use crate::stored::holding;

const ANALYTICS: &str = "/api/v1/analytics";
const ADMIN: &str = "+14155552671";
const ROLES: (&str, &str) = ("ECHO_SERVICES__AUTH__ROLES", "+14155552671=admin");

async fn report(app: &TestApp, admin: &Person, path: &str) -> Value {
    app.get(&format!("{ANALYTICS}/{path}")).by(admin).send().await.expect(StatusCode::OK)
}

/// The summary, once this holds of it.
async fn summary_when(app: &TestApp, admin: &Person, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    until(what, async || {
        let summary = report(app, admin, "summary").await;
        holds(&summary).then_some(summary)
    })
    .await
}

#[tokio::test]
async fn what_people_do_is_counted_and_the_operators_role_reads_it() {
    let app = TestApp::with(&ALL, &[ROLES]).await;
    let admin = app.sign_up(ADMIN, "desk").await;
    let (ada, bala) = app.two().await;

    // The role is in the token, after a refresh too; nobody else reads anything.
    for path in ["summary", "timeseries?metric=messages", "top?metric=messages"] {
        app.get(&format!("{ANALYTICS}/{path}")).send().await.expect_problem(401, "token_missing");
        app.get(&format!("{ANALYTICS}/{path}")).by(&ada).send().await.expect_problem(403, "role_required");
    }
    let refresh = json!({ "refresh_token": admin.refresh_token });
    let refreshed = app.post("/api/v1/auth/refresh", refresh).send().await.expect(StatusCode::OK);
    let admin = Person::new(ADMIN, &admin.password, "desk", &refreshed);

    let talk = app.conversation(&ada, &bala).await;
    let (mut of_ada, mut of_bala) = (app.socket(&ada, None).await, app.socket(&bala, None).await);
    for number in 0..3 {
        app.say(&ada, &talk, &format!("a secret text {number}")).await;
        of_ada.next_of("message").await;
        let message = of_bala.next_of("message").await;
        of_bala.ack(&message).await;
    }
    let place = json!({ "conversation_id": talk, "client_message_id": "place", "type": "location", "location": { "latitude": 1.0, "longitude": 2.0 } });
    let place = app.post("/api/v1/messages", place).by(&bala).send().await.expect(StatusCode::CREATED);
    let own = of_bala.next_of("message").await;
    of_bala.ack(&own).await;
    let path = format!("/api/v1/messages/{}?for=everyone", place["id"].as_str().expect("id"));
    app.delete(&path).by(&bala).send().await.expect(StatusCode::NO_CONTENT);

    // POST /events: names, times and numbers.
    let events =
        json!({ "events": [{ "name": "chat.opened", "value": 12 }, { "name": "chat.opened", "value": 30 }, { "name": "app.started" }] });
    let accepted = app.post(&format!("{ANALYTICS}/events"), events).by(&ada).send().await.expect(StatusCode::ACCEPTED);
    assert_eq!(accepted["accepted"], 3);
    for (events, code) in [
        (json!([{ "name": "What I said" }]), "invalid_name"),
        (json!([{ "name": "fine", "text": "what I said" }]), "invalid"),
        (json!([{ "name": "fine", "at": "2001-01-01T00:00:00Z" }]), "invalid"),
        (json!([]), "invalid"),
    ] {
        let refused = app.post(&format!("{ANALYTICS}/events"), json!({ "events": events })).by(&ada).send().await;
        refused.expect_problem(422, code);
    }

    let summary = summary_when(&app, &admin, "everything is counted", |summary| {
        summary["messages"] == 4 && summary["deliveries"]["count"] == 3 && summary["client_events"] == 3 && summary["messages_deleted"] == 1
    })
    .await;
    assert_eq!((&summary["registrations"], &summary["connections"]), (&json!(3), &json!(2)), "{summary}");
    assert_eq!(summary["active_users"], json!({ "daily": 3, "weekly": 3, "monthly": 3, "most_on_a_day": 3 }), "{summary}");
    let types = json!([{ "label": "text", "count": 3, "total": 0 }, { "label": "location", "count": 1, "total": 0 }]);
    assert_eq!(summary["messages_by_type"], types);
    let deliveries = &summary["deliveries"];
    assert!(deliveries["p50_ms"].as_u64() <= deliveries["p99_ms"].as_u64() && deliveries["mean_ms"].is_u64(), "{deliveries}");
    assert_eq!(summary["retention"][0], json!({ "day": 1, "people": 0, "active": 0 }), "nobody registered before today");

    // GET /timeseries: one point for each step; GET /top: the most frequent first.
    let series = report(&app, &admin, "timeseries?metric=messages&step=minute&label=text").await;
    let points = series["items"].as_array().expect("items");
    let total: u64 = points.iter().filter_map(|point| point["count"].as_u64()).sum();
    assert!((1_440..=1_441).contains(&points.len()) && total == 3, "{} points, {total} messages", points.len());
    let top = report(&app, &admin, "top?metric=client_events").await;
    let expect = json!([{ "label": "chat.opened", "count": 2, "total": 42 }, { "label": "app.started", "count": 1, "total": 0 }]);
    assert_eq!(top["items"], expect);
    for (path, code) in [
        ("timeseries?metric=messages&step=minute&from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z", "too_many_points"),
        ("timeseries?metric=deliveries&from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "unordered_range"),
        ("summary?from=1999-01-01T00:00:00Z", "invalid"),
        ("top?metric=connections", "no_labels"),
        ("top?metric=messages&limit=101", "invalid"),
        ("timeseries?metric=secrets", "invalid"),
    ] {
        app.get(&format!("{ANALYTICS}/{path}")).by(&admin).send().await.expect_problem(422, code);
    }

    // Neither what was said nor anybody's number is in what it keeps.
    let is_its_own = |place: &String| place.contains("/services/analytics.sqlite") || place.starts_with("echo_analytics.");
    for secret in ["a secret text", &ada.phone[1..], "Person +1"] {
        let own: Vec<String> = holding(&app, secret).into_iter().filter(is_its_own).collect();
        assert!(own.is_empty(), "{secret} is in {own:?}");
    }
    assert!(holding(&app, "messages").iter().any(is_its_own), "something is there, and found");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analytics_that_fails_slows_no_message_and_counts_them_when_it_is_back() {
    const MESSAGES: usize = 60;
    let app = TestApp::with(&ALL, &[ROLES]).await;
    let admin = app.sign_up(ADMIN, "desk").await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let mut of_bala = app.socket(&bala, None).await;
    let mut medians = Vec::new();
    for number in 0..2 {
        if number == 1 {
            // It has no code: whatever comes to it fails, again and again.
            let failing = Candidate::of("analytics").manifest("[[schedule]]\ncall = \"count-late\"\nevery = \"1s\"\n", "");
            app.deploy("analytics", failing.packed()).await.expect(StatusCode::OK);
        }
        let mut times = Vec::new();
        for number in 0..MESSAGES {
            let sent = Instant::now();
            app.say(&ada, &talk, &format!("message {number}")).await;
            of_bala.next_of("message").await;
            times.push(sent.elapsed());
        }
        times.sort_unstable();
        medians.push(times[MESSAGES / 2]);
    }
    let allowed = 3 * medians[0] + Duration::from_millis(20);
    assert!(medians[1] <= allowed, "{:?} to another device while analytics fails, {:?} before", medians[1], medians[0]);
    println!("sent to received, median: {:?} beside an analytics that works, {:?} beside one that fails", medians[0], medians[1]);

    // Taken back by itself or by the operator, and nothing is lost.
    let good = repacked("analytics", &[("version = \"0.1.0\"", "version = \"0.1.2\"")]);
    app.deploy_allowing("analytics", good, &[]).await.expect(StatusCode::OK);
    summary_when(&app, &admin, "all messages are counted", |summary| summary["messages"] == 2 * MESSAGES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn analytics_is_swapped_while_it_counts_and_counts_everything_once() {
    const MESSAGES: usize = 80;
    let app = TestApp::with(&ALL, &[ROLES]).await;
    let admin = app.sign_up(ADMIN, "desk").await;
    for version in ["0.1.1", "0.1.2"] {
        let file = repacked("analytics", &[("version = \"0.1.0\"", &format!("version = \"{version}\""))]);
        app.admin(reqwest::Method::POST, "/admin/v1/plugins/analytics/versions").bytes(file).send().await.expect(StatusCode::CREATED);
    }
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    for number in 0..MESSAGES {
        if number % 4 == 0 {
            let version = ["0.1.1", "0.1.2", "0.1.0"][number / 4 % 3];
            app.admin(reqwest::Method::PUT, "/admin/v1/plugins/analytics/active")
                .json(json!({ "version": version }))
                .send()
                .await
                .expect(StatusCode::OK);
        }
        app.say(&ada, &talk, "counted once").await;
        report(&app, &admin, "summary").await;
        let event = json!({ "events": [{ "name": "said" }] });
        app.post(&format!("{ANALYTICS}/events"), event).by(&ada).send().await.expect(StatusCode::ACCEPTED);
    }
    let all = MESSAGES as u64;
    let counted =
        |summary: &Value| (summary["messages"].as_u64().unwrap_or_default(), summary["client_events"].as_u64().unwrap_or_default());
    let summary = summary_when(&app, &admin, "everything is counted", |summary| {
        let (messages, events) = counted(summary);
        messages >= all && events >= all
    })
    .await;
    assert_eq!(counted(&summary), (all, all));
    let dead = app.admin(reqwest::Method::GET, "/admin/v1/queue/dead-letters").send().await.expect(StatusCode::OK);
    assert_eq!(dead["items"], json!([]));
}
