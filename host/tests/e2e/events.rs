//! Events on NATS JetStream, with the services' data in PostgreSQL.

use echo_engines::nats::Nats;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::app::{ALL, Person, TestApp, until};
use crate::backing::EVENTS_BYTES_MAX;

const ADMIN: &str = "+14155552671";
const ROLES: (&str, &str) = ("ECHO_SERVICES__AUTH__ROLES", "+14155552671=admin");

async fn messages_counted(app: &TestApp, admin: &Person, expect: u64) -> Value {
    until("analytics counts every message", async || {
        let summary = app.get("/api/v1/analytics/summary").by(admin).send().await.expect(StatusCode::OK);
        (summary["messages"] == expect).then_some(summary)
    })
    .await
}

async fn queue_is(app: &TestApp, expect: &str) {
    until("the queue's state is said", async || {
        let ready = app.get("/ready").send().await;
        (ready.status == StatusCode::OK && ready.body["checks"]["queue"]["status"] == expect).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nats_messages_arrive_and_their_events_reach_other_services_when_it_is_back() {
    let mut nats = tokio::task::spawn_blocking(|| Nats::start(&std::env::temp_dir(), 1).expect("a server")).await.expect("no panic");
    let urls = nats.urls().join(",");
    let app = TestApp::with_postgres(&ALL, &[ROLES, ("ECHO_EVENTS__URL", &urls), ("ECHO_EVENTS__BYTES_MAX", EVENTS_BYTES_MAX)]).await;
    let admin = app.sign_up(ADMIN, "desk").await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let mut socket = app.socket(&bala, None).await;
    queue_is(&app, "up").await;
    for number in 0..3 {
        app.say(&ada, &talk, &format!("by NATS {number}")).await;
        let message = socket.next_of("message").await;
        socket.ack(&message).await;
    }
    messages_counted(&app, &admin, 3).await;

    // With everything that it keeps.
    nats.end_with_all_they_store();
    for number in 0..3 {
        app.say(&ada, &talk, &format!("without NATS {number}")).await;
        let message = socket.next_of("message").await;
        assert_eq!(message["payload"]["content"], format!("without NATS {number}"));
    }
    queue_is(&app, "down").await;
    assert_eq!(app.get("/ready").send().await.body["status"], "degraded", "the host serves on with less");

    let _nats = tokio::task::spawn_blocking(move || {
        nats.start_empty().expect("starts");
        nats
    })
    .await
    .expect("no panic");
    queue_is(&app, "up").await;
    app.say(&ada, &talk, "with NATS again").await;
    messages_counted(&app, &admin, 7).await;
    let dead = app.admin(Method::GET, "/admin/v1/queue/dead-letters").send().await.expect(StatusCode::OK);
    assert_eq!(dead["items"], serde_json::json!([]), "an event was not understood");
}
