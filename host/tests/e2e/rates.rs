//! What a frame and the route of the same function share (rate limit, role), rate limits as the manifests write them, and what the gate says of a manifest without.

use std::time::Instant;

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::app::TestApp;
use crate::candidate::repacked;

#[tokio::test]
async fn a_frame_wants_the_role_that_the_route_of_its_function_wants() {
    let app = TestApp::with(&["auth", "location", "message", "notification", "user"], &[]).await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let typing = json!({ "conversation_id": talk, "is_typing": true });
    let mut socket = app.socket(&ada, None).await;
    assert_eq!(socket.ask("typing", typing.clone()).await["type"], "reply");

    let route = "call = \"typing\"\naccess = \"user\"";
    let changed = repacked("message", &[("version = \"0.1.0\"", "version = \"0.1.1\""), (route, &route.replace("user", "role:support"))]);
    app.deploy_allowing("message", changed, &["route-access:POST /api/v1/messages/typing"]).await.expect(StatusCode::OK);
    app.post("/api/v1/messages/typing", typing.clone()).by(&ada).send().await.expect_problem(403, "role_required");
    let answer = socket.ask("typing", typing).await;
    assert_eq!((&answer["type"], &answer["payload"]["code"]), (&json!("error"), &json!("role_required")), "{answer}");
}

#[tokio::test]
async fn of_a_burst_of_typing_each_conversation_gets_a_few_frames() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let (one, other) = (app.conversation(&ada, &bala).await, app.group(&ada, &[&bala]).await);
    let typing = |talk: &str| json!({ "conversation_id": talk, "is_typing": true });
    let (mut of_ada, mut of_bala) = (app.socket(&ada, None).await, app.socket(&bala, None).await);
    for _ in 0..60 {
        of_ada.call("typing", typing(&one)).await;
    }
    // The bound is of one person in one conversation.
    of_ada.call("typing", typing(&other)).await;
    let mut frames = 0;
    loop {
        let frame = of_bala.next_of("typing").await;
        if frame["payload"]["conversation_id"] == *other {
            break;
        }
        frames += 1;
    }
    // Ten within ten seconds; a slow machine may have begun another ten.
    assert!((1..=30).contains(&frames), "{frames}");
    of_bala.call("typing", typing(&one)).await;
    assert_eq!(of_ada.next_of("typing").await["payload"]["user_id"], bala.id);
}

#[tokio::test]
async fn every_frame_counts_against_the_limit_of_its_route() {
    let services = ["auth", "location", "message", "notification", "presence", "user"];
    let app = TestApp::with(&services, &[("ECHO_GATEWAY__RATE_SCALE", "1")]).await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let text = |key: &str| json!({ "conversation_id": talk, "client_message_id": key, "type": "text", "content": "Hello" });
    let frames = [
        ("message", text("frame"), Method::POST, "/api/v1/messages", text("route")),
        ("presence", json!({ "status": "busy" }), Method::PUT, "/api/v1/presence", json!({ "status": "busy" })),
        (
            "read_receipt",
            json!({ "conversation_id": talk, "up_to_seq": 1 }),
            Method::POST,
            "/api/v1/messages/read",
            json!({ "conversation_id": talk, "up_to_seq": 1 }),
        ),
        (
            "typing",
            json!({ "conversation_id": talk, "is_typing": true }),
            Method::POST,
            "/api/v1/messages/typing",
            json!({ "conversation_id": talk, "is_typing": true }),
        ),
    ];
    let described = app.get("/asyncapi.json").send().await.body;
    let messages = described["components"]["messages"].as_object().expect("messages").clone();
    let taken = messages.iter().filter(|(name, _)| name.starts_with("client_")).filter_map(|(_, message)| message["name"].as_str());
    for name in taken.filter(|name| !["ack", "auth", "ping"].contains(name)) {
        assert!(frames.iter().any(|(frame, ..)| *frame == name), "nothing is asked here of the frame {name}");
    }
    let mut socket = app.socket(&ada, None).await;
    for (frame, payload, method, path, body) in frames {
        let (began_at, mut sent) = (Instant::now(), 0);
        // A bucket fills up meanwhile: until more were taken than can have come back.
        loop {
            for _ in 0..20 {
                socket.send(json!({ "type": frame, "payload": payload })).await;
                sent += 1;
            }
            assert_eq!(socket.ask(frame, payload.clone()).await["type"], "reply");
            let reply = app.request(method.clone(), path).json(body.clone()).by(&ada).send().await;
            let number = |name: &str| reply.header(name).parse::<u64>().expect("a number");
            let (limit, remaining) = (number("x-ratelimit-limit"), number("x-ratelimit-remaining"));
            let refilled = (began_at.elapsed().as_secs() + 1) * limit / 60;
            assert!(
                remaining + sent <= limit + refilled,
                "{frame}: {remaining} of {limit} are left after {sent}, and {refilled} came back"
            );
            if sent > refilled {
                break;
            }
        }
    }
}

#[tokio::test]
async fn frames_and_routes_share_one_limit() {
    let services = ["auth", "location", "message", "notification", "user"];
    let app = TestApp::with(&services, &[("ECHO_GATEWAY__RATE_SCALE", "1")]).await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let typing = json!({ "conversation_id": talk, "is_typing": true });
    let started_at = Instant::now();
    let mut socket = app.socket(&ada, None).await;
    for _ in 0..300 {
        socket.send(json!({ "type": "typing", "payload": typing })).await;
    }
    assert_eq!(socket.ask("typing", typing.clone()).await["type"], "reply");
    let reply = app.post("/api/v1/messages/typing", typing.clone()).by(&ada).send().await;
    let number = |name: &str| reply.header(name).parse::<u64>().expect("a number");
    let (limit, remaining) = (number("x-ratelimit-limit"), number("x-ratelimit-remaining"));
    let refilled = (started_at.elapsed().as_secs() + 1) * limit / 60;
    assert!(remaining <= limit - 302 + refilled, "{remaining} of {limit} are left after 302, and {refilled} came back");
    reply.expect(StatusCode::NO_CONTENT);

    // The other way round: the route's requests leave none for the frames.
    for _ in 0..2 * limit {
        if app.post("/api/v1/messages/typing", typing.clone()).by(&ada).send().await.status == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
    }
    // One or two may have come back meanwhile.
    let mut answer = json!(null);
    for _ in 0..50 {
        answer = socket.ask("typing", typing.clone()).await;
        if answer["type"] == "error" {
            break;
        }
    }
    assert_eq!((&answer["type"], &answer["payload"]["code"]), (&json!("error"), &json!("rate_limited")), "{answer}");
    assert!(answer["payload"]["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0), "{answer}");
    // Each function for itself, each person for themselves, and the socket stays.
    app.say(&ada, &talk, "still here").await;
    app.post("/api/v1/messages/typing", typing.clone()).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(socket.ask("read_receipt", json!({ "conversation_id": talk, "up_to_seq": 1 })).await["type"], "reply");
}
