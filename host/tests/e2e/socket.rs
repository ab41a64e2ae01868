//! The socket's own rules: who gets one, what becomes of bad frames, and why it is closed.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::app::{Ask, Person, Socket, TestApp, until};

/// The opening handshake as a plain request, so that a refusal can be read like any other.
fn handshake(app: &TestApp, query: &str) -> Ask {
    app.get(&format!("/ws{query}"))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

/// The next frame is an error of this status and code, and the socket goes on.
async fn refused(socket: &mut Socket, status: u16, code: &str) -> Value {
    let frame = socket.next_of("error").await;
    assert_eq!((&frame["payload"]["status"], &frame["payload"]["code"]), (&json!(status), &json!(code)), "{frame}");
    assert!(frame["payload"]["request_id"].is_string() && frame["payload"]["title"].is_string(), "{frame}");
    assert_eq!(socket.call("ping", json!({})).await, json!({}));
    frame
}

#[tokio::test]
async fn there_are_three_ways_to_say_who_one_is() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    let of_ada = |hello: Value| assert_eq!(hello["payload"]["user_id"], ada.id.as_str(), "{hello}");

    let mut by_header = app.open_socket("", &[("authorization", &format!("Bearer {}", ada.access_token))]).await.expect("a socket");
    of_ada(by_header.next_of("connection_ack").await);
    assert_eq!(by_header.protocol, None);

    let protocols = format!("echo.v1, bearer.{}", ada.access_token);
    let mut by_protocol = app.open_socket("", &[("sec-websocket-protocol", &protocols)]).await.expect("a socket");
    of_ada(by_protocol.next_of("connection_ack").await);
    assert_eq!(by_protocol.protocol.as_deref(), Some("echo.v1"));

    let ticket = app.request(Method::POST, "/api/v1/auth/ws-ticket").by(&ada).send().await.expect(StatusCode::CREATED);
    assert_eq!(ticket["expires_in"], 30);
    let query = format!("?ticket={}", ticket["ticket"].as_str().expect("ticket"));
    let mut by_ticket = app.open_socket(&query, &[]).await.expect("a socket");
    of_ada(by_ticket.next_of("connection_ack").await);
    // A ticket opens one socket.
    handshake(&app, &query).send().await.expect_problem(401, "token_invalid");
}

#[tokio::test]
async fn nobody_gets_a_socket_without_a_reason() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    handshake(&app, "").send().await.expect_problem(401, "token_missing");
    handshake(&app, "").token("nonsense").send().await.expect_problem(401, "token_invalid");
    handshake(&app, "?ticket=nonsense").send().await.expect_problem(401, "token_invalid");
    handshake(&app, "").header("sec-websocket-protocol", "echo.v1, bearer.a.b.c").send().await.expect_problem(401, "token_invalid");
    for since in ["-1", "x", "1.5", "99999999999999999999"] {
        handshake(&app, &format!("?since={since}")).by(&ada).send().await.expect_problem(422, "invalid");
    }
    // Not asking for a socket at all.
    let plain = app.get("/ws").by(&ada).send().await;
    assert_eq!(plain.header("upgrade"), "websocket");
    plain.expect_problem(426, "upgrade_required");

    app.request(Method::POST, "/api/v1/auth/logout").by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    handshake(&app, "").by(&ada).send().await.expect_problem(401, "token_revoked");
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_but_those_allowed() {
    let services = ["auth", "location", "notification"];
    let app = TestApp::with(&services, &[("ECHO_SERVER__ALLOWED_ORIGINS", "https://app.example.org")]).await;
    let ada = app.someone().await;
    for origin in ["https://evil.example", "http://app.example.org", "https://app.example.org.evil.example", "null"] {
        handshake(&app, "").by(&ada).header("origin", origin).send().await.expect_problem(403, "origin_refused");
    }
    let bearer = format!("Bearer {}", ada.access_token);
    // The host's own pages and the ones that the operator named.
    for origin in [app.url.as_str(), "https://app.example.org"] {
        let mut socket = app.open_socket("", &[("authorization", &bearer), ("origin", origin)]).await.expect(origin);
        socket.next_of("connection_ack").await;
    }
}

#[tokio::test]
async fn a_bad_frame_is_answered_and_the_socket_stays() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let mut socket = app.socket(&ada, None).await;

    for text in [
        "",
        "{",
        "hello",
        "[]",
        "7",
        "null",
        r#"{"type":7}"#,
        r#"{"payload":{}}"#,
        r#"{"type":"ping","more":1}"#,
        r#"{"type":"ping","id":{}}"#,
    ] {
        socket.send_raw(Message::text(text)).await;
        let frame = refused(&mut socket, 400, "bad_frame").await;
        assert!(frame.get("id").is_none(), "{text}: {frame}");
    }
    let deep = "[".repeat(60_000);
    socket.send_raw(Message::text(deep.as_str())).await;
    refused(&mut socket, 400, "bad_frame").await;
    socket.send_raw(Message::text(format!(r#"{{"type":"message","payload":{}}}"#, "[".repeat(500) + &"]".repeat(500)))).await;
    let frame = socket.next_of("error").await;
    assert_eq!(frame["payload"]["status"], 400, "{frame}");
    socket.send_raw(Message::binary(vec![1, 2, 3])).await;
    refused(&mut socket, 400, "binary_frame").await;

    // With an id the answer has it too, as it was written.
    for (id, kind, payload, status, code) in [
        (json!("a"), "teleport", json!({}), 404, "unknown_type"),
        (json!(7), "message", json!({}), 422, "invalid"),
        (json!("c"), "message", json!([]), 422, "invalid"),
        (json!("d"), "ack", json!({ "seq": "all" }), 422, "invalid"),
        (json!("e"), "ack", json!({ "seq": -1 }), 422, "invalid"),
        (json!("f"), "auth", json!({ "token": "x" }), 422, "invalid"),
        (json!("g"), "auth", json!({ "access_token": "x" }), 401, "token_invalid"),
        (json!("h"), "auth", json!({ "access_token": bala.access_token }), 403, "identity_mismatch"),
        (json!("i"), "typing", json!({ "conversation_id": talk, "is_typing": "yes" }), 422, "invalid"),
        (json!("j"), "read_receipt", json!({ "conversation_id": ada.id, "up_to_seq": 1 }), 404, "not_found"),
    ] {
        socket.send(json!({ "type": kind, "id": id, "payload": payload })).await;
        let frame = refused(&mut socket, status, code).await;
        assert_eq!(frame["id"], id);
    }
    let wrong = json!({ "conversation_id": "x", "client_message_id": 1, "type": "fax", "colour": "red" });
    let answer = socket.ask("message", wrong).await;
    let mut fields: Vec<_> = answer["payload"]["errors"].as_array().expect("errors").iter().map(|error| error["field"].clone()).collect();
    fields.sort_by_key(Value::to_string);
    assert_eq!(fields, ["client_message_id", "colour", "conversation_id", "type"]);
    let long = json!({ "conversation_id": talk, "client_message_id": "1", "type": "text", "content": "é".repeat(10_001) });
    let answer = socket.ask("message", long).await["payload"].clone();
    assert_eq!((&answer["code"], &answer["errors"][0]["code"]), (&json!("invalid"), &json!("too_long")), "{answer}");

    // Failures are told without an id too; successes are not.
    socket.send(json!({ "type": "message", "payload": {} })).await;
    let frame = refused(&mut socket, 422, "invalid").await;
    assert!(frame.get("id").is_none(), "{frame}");
    socket.send(json!({ "type": "typing", "payload": { "conversation_id": talk, "is_typing": true } })).await;
    socket.send(json!({ "type": "ack", "payload": { "seq": 0 } })).await;
    socket.send(json!({ "type": "ping" })).await;
    loop {
        let frame = socket.next().await;
        match frame["type"].as_str().expect("a type") {
            "pong" => break,
            kind => assert!(!matches!(kind, "reply" | "error"), "{frame}"),
        }
    }
}

#[tokio::test]
async fn frames_that_break_the_protocol_close_the_socket() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    let check = async |what: &str, message: Message, code: u16| {
        let mut socket = app.socket(&ada, None).await;
        socket.next_of("connection_ack").await;
        socket.send_raw(message).await;
        assert_eq!(socket.closed().await, Some(code), "{what}");
    };
    let of_length = |length: usize| format!(r#"{{"type":"ping","payload":"{}"}}"#, "x".repeat(length - 28));
    let mut socket = app.socket(&ada, None).await;
    socket.next_of("connection_ack").await;
    socket.send_raw(Message::text(of_length(64 * 1024))).await;
    socket.next_of("pong").await;
    check("a byte too many", Message::text(of_length(64 * 1024 + 1)), 4413).await;
    check("far too much", Message::text(of_length(1024 * 1024)), 4413).await;
    check("far too much, binary", Message::binary(vec![0; 200_000]), 4413).await;
    check("no UTF-8", Message::Frame(Frame::message(vec![0xff, 0xfe], OpCode::Data(Data::Text), true)), 1007).await;
    check("a reserved opcode", Message::Frame(Frame::message(vec![], OpCode::Data(Data::Reserved(3)), true)), 1002).await;
    check("a continuation of nothing", Message::Frame(Frame::message(vec![], OpCode::Data(Data::Continue), true)), 1002).await;
}

#[tokio::test]
async fn who_sends_too_fast_is_closed() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    let mut socket = app.socket(&ada, None).await;
    socket.next_of("connection_ack").await;
    // Acknowledgements without an id have no answer, so that nothing but the pace decides.
    let ack = Message::text(r#"{"type":"ack","payload":{"seq":0}}"#);
    for _ in 0..10_000 {
        if socket.try_send_raw(ack.clone()).await.is_err() {
            break;
        }
    }
    assert_eq!(socket.closed().await, Some(4429));
    // The next connection begins anew.
    let mut socket = app.socket(&ada, None).await;
    socket.next_of("connection_ack").await;
    assert_eq!(socket.call("ping", json!({})).await, json!({}));
}

#[tokio::test]
async fn a_newer_connection_of_a_device_replaces_the_older() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    let laptop = app.log_in(&ada, "laptop").await;
    let (mut older, mut of_laptop) = (app.socket(&ada, None).await, app.socket(&laptop, None).await);
    older.next_of("connection_ack").await;
    let mut newer = app.socket(&ada, None).await;
    newer.next_of("connection_ack").await;
    assert_eq!(older.closed().await, Some(4409));
    assert_eq!(newer.call("ping", json!({})).await, json!({}));
    assert_eq!(of_laptop.call("ping", json!({})).await, json!({}));
}

#[tokio::test]
async fn a_socket_ends_with_its_token_unless_that_is_renewed() {
    let services = ["auth", "location", "notification"];
    let app = TestApp::with(&services, &[("ECHO_TOKENS__ACCESS_TTL", "5s")]).await;
    let ada = app.someone().await;
    let laptop = app.log_in(&ada, "laptop").await;
    let mut renewed = app.socket(&ada, None).await;
    let mut left = app.socket(&laptop, None).await;
    left.next_of("connection_ack").await;

    let renewing = async {
        let mut refresh_token = ada.refresh_token.clone();
        let mut pause = tokio::time::interval(std::time::Duration::from_millis(500));
        loop {
            pause.tick().await;
            let refresh = app.post("/api/v1/auth/refresh", json!({ "refresh_token": refresh_token }));
            let tokens = refresh.send().await.expect(StatusCode::OK);
            refresh_token = Person::new(&ada.phone, "", "phone", &tokens).refresh_token;
            let answer = renewed.call("auth", json!({ "access_token": tokens["access_token"] })).await;
            assert!(answer["expires_at"].is_string(), "{answer}");
        }
    };
    tokio::select! {
        code = left.closed() => assert_eq!(code, Some(4401)),
        () = renewing => unreachable!("it goes on for ever"),
    }
    assert_eq!(renewed.call("ping", json!({})).await, json!({}));
}

#[tokio::test]
async fn requests_of_one_socket_are_answered_in_their_order() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let mut socket = app.socket(&ada, None).await;
    // More than are served at once: the rest waits unread, and nothing is lost.
    for n in 0..60 {
        let payload = json!({ "conversation_id": talk, "client_message_id": format!("n-{n}"), "type": "text", "content": n.to_string() });
        socket.send(json!({ "type": "message", "id": n, "payload": payload })).await;
    }
    let mut answered = 0;
    while answered < 60 {
        let frame = socket.next().await;
        if frame["type"] == "reply" {
            assert_eq!(frame["id"], answered);
            answered += 1;
            assert_eq!(frame["payload"]["seq"], answered);
        }
    }
}

#[tokio::test]
async fn a_service_hears_which_devices_come_and_go() {
    let mut app = TestApp::with(&["auth", "hostile", "location", "notification", "user"], &[]).await;
    let ada = app.someone().await;
    let tablet = app.log_in(&ada, "tablet").await;
    let mut of_phone = app.socket(&ada, None).await;
    of_phone.next_of("connection_ack").await;
    let mut of_tablet = app.socket(&tablet, None).await;
    of_tablet.next_of("connection_ack").await;
    hears(&app, ["phone", "tablet"]).await;

    // A newer socket of the same device takes the older one's place: it did not go.
    let mut again = app.socket(&ada, None).await;
    again.next_of("connection_ack").await;
    assert_eq!(of_phone.closed().await, Some(4409));
    of_tablet.cut();
    hears(&app, ["phone", "-tablet"]).await;
    for _ in 0..10 {
        app.socket(&tablet, None).await.next_of("connection_ack").await;
    }
    let mut of_tablet = app.socket(&tablet, None).await;
    of_tablet.next_of("connection_ack").await;
    hears(&app, ["phone", "tablet"]).await;

    // The end of the host closes every socket; what it said then is heard when it is back.
    app.terminate().await;
    app.restart().await;
    hears(&app, ["-phone", "-tablet"]).await;
}

/// Waits until the service knows this of the devices; what has gone has a `-` before it.
async fn hears(app: &TestApp, devices: [&str; 2]) {
    until(&format!("{devices:?}"), async || {
        let known = app.get("/api/v1/hostile/devices").send().await.expect(StatusCode::OK);
        (known["items"] == json!(devices)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_frame_of_the_socket_is_described() {
    let app = TestApp::shared().await;
    let described = app.get("/asyncapi.json").send().await.expect(StatusCode::OK);
    assert_eq!(described["asyncapi"], "3.0.0");
    let messages = described["components"]["messages"].as_object().expect("messages");
    for name in [
        "client_message",
        "client_ack",
        "reply_message",
        "message",
        "message_status",
        "reaction",
        "poll",
        "conversation",
        "unread",
        "typing",
        "draft",
        "connection_ack",
        "error",
    ] {
        assert!(messages.contains_key(name), "{name} is not in {:?}", messages.keys().collect::<Vec<_>>());
    }
    let mut todo: Vec<&Value> = vec![&described];
    while let Some(value) = todo.pop() {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            assert!(described.pointer(&reference[1..]).is_some(), "{reference} leads nowhere");
        }
        match value {
            Value::Object(fields) => todo.extend(fields.values()),
            Value::Array(items) => todo.extend(items),
            _ => {}
        }
    }
}
