//! Whatever a client gets wrong: each mistake has its status and its code, is answered at once, and changes nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use futures_util::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::app::{Ask, Person, TestApp, until, unused_phone};

const REGISTER: &str = "/api/v1/auth/register";
const MESSAGES: &str = "/api/v1/messages";
const CONVERSATIONS: &str = "/api/v1/messages/conversations";
const BODY_BYTES_MAX: usize = 1024 * 1024;
const PASSWORD: &str = "correct horse battery 7";

/// A problem with this status and code that names exactly these fields.
async fn check(what: &str, given: Ask, status: u16, code: &str, fields: &[&str]) {
    let reply = given.send().await;
    let found = (reply.status.as_u16(), reply["code"].as_str().unwrap_or_default());
    assert_eq!(found, (status, code), "{what}: {}", reply.body);
    let mut named: Vec<&str> = errors_of(&reply.body).filter_map(|error| error["field"].as_str()).collect();
    named.sort_unstable();
    assert_eq!(named, fields, "{what}: {}", reply.body);
    assert!(errors_of(&reply.body).all(|error| error["code"].is_string() && error["detail"].is_string()), "{what}: {}", reply.body);
    reply.expect_problem(status, code);
}

fn errors_of(problem: &Value) -> impl Iterator<Item = &Value> {
    problem["errors"].as_array().into_iter().flatten()
}

/// What a client says in JSON's stead.
fn raw(app: &TestApp, path: &str, body: impl Into<Vec<u8>>) -> Ask {
    app.request(Method::POST, path).header("content-type", "application/json").bytes(body.into())
}

#[tokio::test]
async fn a_body_that_is_no_json_is_unreadable() {
    let app = TestApp::shared().await;
    let nesting = |open: &str, bytes: usize| open.repeat(bytes / open.len());
    for (what, body) in [
        ("cut off", br#"{"phone":"#.to_vec()),
        ("a trailing comma", br#"{"phone":"+14155552671",}"#.to_vec()),
        ("single quotes", b"{'phone':1}".to_vec()),
        ("something behind", b"{} {}".to_vec()),
        ("not JSON at all", b"phone=%2B14155552671".to_vec()),
        ("a number that is none", br#"{"phone":01}"#.to_vec()),
        ("a raw control character", b"{\"phone\":\"\n\"}".to_vec()),
        ("half of a surrogate pair", br#"{"phone":"\ud800"}"#.to_vec()),
        ("invalid UTF-8 in a string", b"{\"phone\":\"\xff\xfe\"}".to_vec()),
        ("invalid UTF-8 before everything", b"\xff{}".to_vec()),
        ("an overlong encoding", b"{\"phone\":\"\xc0\xaf\"}".to_vec()),
        ("1 MiB of arrays", nesting("[", BODY_BYTES_MAX).into()),
        ("1 MiB of objects", nesting(r#"{"a":"#, BODY_BYTES_MAX).into()),
        ("1 MiB of arrays in a field", format!(r#"{{"phone":{}"#, nesting("[", BODY_BYTES_MAX - 10)).into()),
        ("33 arrays, closed again", format!("{}{}", nesting("[", 33), nesting("]", 33)).into()),
    ] {
        check(what, raw(&app, REGISTER, body), 400, "unreadable", &[]).await;
    }
    // A field that takes any JSON takes no more of it.
    let ada = app.someone().await;
    let deep = format!(r#"{{"metadata":{}{}}}"#, nesting("[", 40), nesting("]", 40));
    check("deep metadata", raw(&app, MESSAGES, deep).by(&ada), 400, "unreadable", &[]).await;
    let path = app.get("/api/v1/users/%ff%fe").by(&ada);
    check("a path that is no UTF-8", path, 400, "unreadable", &[]).await;
    let query = app.get("/api/v1/location/lookup?phone=%ff");
    check("a query that is no UTF-8", query, 400, "unreadable", &[]).await;
    check("a broken escape in the query", app.get("/api/v1/location/lookup?phone=%2"), 400, "unreadable", &[]).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_or_of_another_kind_is_refused() {
    let app = TestApp::shared().await;
    let large = |bytes: usize| format!(r#"{{"name":"{}"}}"#, "x".repeat(bytes - 11)).into_bytes();
    check("as large as may be", raw(&app, REGISTER, large(BODY_BYTES_MAX)), 422, "invalid", &["name", "password", "phone"]).await;
    check("one byte more", raw(&app, REGISTER, large(BODY_BYTES_MAX + 1)), 413, "too_large", &[]).await;
    check("four times as much", raw(&app, REGISTER, large(4 * BODY_BYTES_MAX)), 413, "too_large", &[]).await;
    // Of a length that nobody says beforehand.
    let answer = app.chunked("POST", REGISTER, &large(BODY_BYTES_MAX + 1)).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains(r#""code":"too_large""#), "{answer}");

    let body = || json!({ "phone": "+14155552671", "password": PASSWORD }).to_string();
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/xml", "multipart/form-data; boundary=x"] {
        let ask = app.request(Method::POST, REGISTER).header("content-type", content_type).bytes(body());
        check(content_type, ask, 415, "unsupported_media_type", &[]).await;
    }
    let compressed = raw(&app, REGISTER, body()).header("content-encoding", "gzip");
    check("a compressed body", compressed, 415, "unsupported_media_type", &[]).await;
}

#[tokio::test]
async fn every_wrong_field_is_named() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let register = |body: Value| app.post(REGISTER, body);
    let device = || json!({ "id": "phone" });
    let send = |body: Value| app.post(MESSAGES, body).by(&ada);
    let text = |content: &str| json!({ "conversation_id": talk, "client_message_id": "1", "type": "text", "content": content });
    let long_phone = "+1234567890123456";

    check("no body", app.request(Method::POST, REGISTER), 422, "invalid", &["password", "phone"]).await;
    check("no fields", register(json!({})), 422, "invalid", &["password", "phone"]).await;
    check("not an object", register(json!([])), 422, "invalid", &["", "password", "phone"]).await;
    let wrong = json!({ "phone": 5, "password": ["a"], "name": {} });
    check("wrong types", register(wrong), 422, "invalid", &["name", "password", "phone"]).await;
    let unknown = json!({ "phone": "+14155552671", "password": PASSWORD, "pasword": "x", "is_admin": true });
    check("unknown fields", register(unknown), 422, "invalid", &["is_admin", "pasword"]).await;
    let twice = format!(r#"{{"phone":"+14155552671","phone":"+14155552672","password":"{PASSWORD}"}}"#);
    check("a field twice", raw(&app, REGISTER, twice), 422, "invalid", &["phone"]).await;
    let inside = json!({ "registration_id": "x", "phone": "+14155552671", "otp": "123456", "device": { "name": 1, "colour": "red" } });
    let inside = app.post("/api/v1/auth/verify-otp", inside);
    check("inside a field", inside, 422, "invalid", &["device.colour", "device.id", "device.name"]).await;
    let list = json!({ "ids": [ada.id, "nobody", 7] });
    check("in a list", app.post("/api/v1/users/batch", list).by(&ada), 422, "invalid", &["ids[1]", "ids[2]"]).await;

    for phone in ["", "5", "4155552671", "+0415555267", "+1415555267x", "+1 415 555 2671", long_phone] {
        let given = register(json!({ "phone": phone, "password": PASSWORD }));
        check(&format!("the phone {phone:?}"), given, 422, "invalid", &["phone"]).await;
    }
    // Of the right form, and in no plan; or written so that it would be another account for the same telephone.
    for phone in ["+15555555555", "+19995550100", "+91123", "+4400000000", "+4402079460000"] {
        let given = register(json!({ "phone": phone, "password": PASSWORD })).send().await.expect(StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(given["errors"][0]["code"], "invalid_phone", "{phone}: {given}");
    }
    check("a lookup of what is no number", app.get("/api/v1/location/lookup?phone=hello"), 422, "invalid", &["phone"]).await;

    for password in ["short", "password1", "12345678", "abcdefgh", "+12015550000", &"aB3$".repeat(33)] {
        let given = register(json!({ "phone": "+12015550000", "password": password }));
        check(&format!("the password {password:?}"), given, 422, "weak_password", &["password"]).await;
    }
    let long_device = json!({ "phone": ada.phone, "password": PASSWORD, "device": { "id": "x".repeat(129) } });
    check("a device id too long", app.post("/api/v1/auth/login", long_device), 422, "invalid", &["device.id"]).await;
    let no_device = json!({ "phone": ada.phone, "password": PASSWORD });
    check("no device", app.post("/api/v1/auth/login", no_device), 422, "invalid", &["device"]).await;
    let verify = |otp: &str| {
        let verify = json!({ "registration_id": "A".repeat(43), "phone": ada.phone, "otp": otp, "device": device() });
        app.post("/api/v1/auth/verify-otp", verify)
    };
    for otp in ["", "12345", "abcdef", "١٢٣٤٥٦"] {
        check(&format!("the code {otp:?}"), verify(otp), 422, "invalid_otp", &["otp"]).await;
    }

    send(text(&"é".repeat(10_000))).send().await.expect(StatusCode::CREATED);
    check("10,001 characters", send(text(&"é".repeat(10_001))), 422, "invalid", &["content"]).await;
    check("a blank text", send(text(" \n")), 422, "invalid", &["content"]).await;
    check("a NUL", send(text("a\0b")), 422, "unreadable_text", &["content"]).await;
    let mut message = text("x");
    message["type"] = json!("telegram");
    message["client_message_id"] = json!(7);
    check("an unknown type", send(message), 422, "invalid", &["client_message_id", "type"]).await;
    let mut message = text("x");
    message["client_message_id"] = json!("x".repeat(129));
    message["metadata"] = json!("x".repeat(9_000));
    check("two too long", send(message), 422, "invalid", &["client_message_id", "metadata"]).await;
    let mut message = text("x");
    message["client_message_id"] = json!("not used before");
    message["reply_to"] = json!("01890000-0000-7000-8000-000000000000");
    message["mentions"] = json!([bala.id, "01890000-0000-7000-8000-000000000000"]);
    check("what is not there", send(message), 422, "invalid", &["mentions[1]", "reply_to"]).await;
    let place =
        json!({ "conversation_id": talk, "client_message_id": "p", "type": "location", "location": { "latitude": 91, "longitude": -181 } });
    check("nowhere on earth", send(place), 422, "invalid", &["location.latitude", "location.longitude"]).await;

    let open = |body: Value| app.post(CONVERSATIONS, body).by(&ada);
    let with_nobody = json!({ "type": "direct", "participant_ids": ["01890000-0000-7000-8000-000000000000"] });
    check("with nobody", open(with_nobody), 422, "unknown_participant", &["participant_ids[0]"]).await;
    let with_oneself = json!({ "type": "direct", "participant_ids": [ada.id] });
    check("with oneself", open(with_oneself), 422, "own_user", &["participant_ids"]).await;
    let with_two = json!({ "type": "direct", "participant_ids": [bala.id, ada.id], "title": "x" });
    check("with a title", open(with_two), 422, "invalid", &["participant_ids", "title"]).await;
    let profile = json!({ "display_name": "", "bio": "x".repeat(501), "avatar_url": "javascript:alert(1)", "timezone": "+1" });
    let profile = app.patch("/api/v1/users/me", profile).by(&ada);
    check("a profile", profile, 422, "invalid", &["avatar_url", "bio", "display_name", "timezone"]).await;
    for zone in ["Factory", "Mars/Olympus"] {
        let profile = app.patch("/api/v1/users/me", json!({ "timezone": zone })).by(&ada);
        check(zone, profile, 422, "invalid_timezone", &["timezone"]).await;
    }
    // As the database writes it, however it was written.
    let profile = app.patch("/api/v1/users/me", json!({ "timezone": "europe/berlin" })).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!(profile["timezone"], "Europe/Berlin");
    let privacy = app.put("/api/v1/users/me/privacy", json!({ "phone_visible": "friends" })).by(&ada);
    check("an unknown audience", privacy, 422, "invalid", &["phone_visible"]).await;
    let contact = app.post("/api/v1/users/contacts", json!({})).by(&ada).send().await;
    contact.expect_problem(422, "one_of");
}

#[tokio::test]
async fn pages_and_paths_are_checked() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let get = |path: &str| app.get(path).by(&ada);
    for list in [CONVERSATIONS, "/api/v1/users/contacts", "/api/v1/users/blocked", "/api/v1/auth/login-history"] {
        for limit in ["0", "101", "-1", "4294967296"] {
            check(&format!("{list} limit {limit}"), get(&format!("{list}?limit={limit}")), 422, "invalid", &["limit"]).await;
        }
        for limit in ["x", "1.5", ""] {
            check(&format!("{list} limit {limit}"), get(&format!("{list}?limit={limit}")), 422, "invalid", &["limit"]).await;
        }
        check(&format!("{list} cursor of another kind"), get(&format!("{list}?cursor=AAAA")), 422, "cursor_invalid", &["cursor"]).await;
        check(&format!("{list} no cursor"), get(&format!("{list}?cursor=a%20b")), 422, "cursor_invalid", &["cursor"]).await;
        check(&format!("{list} unknown parameter"), get(&format!("{list}?page=2")), 422, "invalid", &["page"]).await;
        for limit in ["1", "100"] {
            get(&format!("{list}?limit={limit}")).send().await.expect(StatusCode::OK);
        }
    }
    let negative = get(&format!("{CONVERSATIONS}?limit=-1")).send().await.expect(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(negative["errors"][0]["detail"], "1 to 100");
    let messages = format!("{MESSAGES}?conversation_id={talk}");
    check("messages limit 0", get(&format!("{messages}&limit=0")), 422, "invalid", &["limit"]).await;
    check("messages limit 101", get(&format!("{messages}&limit=101")), 422, "invalid", &["limit"]).await;
    check("messages of no conversation", get(MESSAGES), 422, "invalid", &["conversation_id"]).await;
    check("a parameter twice", get(&format!("{messages}&limit=1&limit=2")), 422, "invalid", &["limit"]).await;
    check("a search of one letter", get("/api/v1/users/search?q=a"), 422, "invalid", &["q"]).await;
    for (path, code, field) in [
        ("/api/v1/sync?since=-1", "invalid", "since"),
        ("/api/v1/sync?since=abc", "invalid", "since"),
        ("/api/v1/sync?since=99999999999999999999", "invalid", "since"),
        ("/api/v1/sync?limit=0", "invalid", "limit"),
        ("/api/v1/sync?limit=501", "invalid", "limit"),
    ] {
        check(path, get(path), 422, code, &[field]).await;
    }
    for id in ["7", "not-a-uuid", "01890000-0000-7000-8000-00000000000g", "01890000000070008000000000000000", "%00"] {
        check(&format!("the message {id}"), get(&format!("{MESSAGES}/{id}")), 422, "invalid", &["id"]).await;
        check(&format!("the conversation {id}"), get(&format!("{CONVERSATIONS}/{id}")), 422, "invalid", &["id"]).await;
        let status = get(&format!("{MESSAGES}/{id}/status"));
        check(&format!("the status of {id}"), status, 422, "invalid", &["id"]).await;
    }
    let given_twice = app.patch(&format!("{CONVERSATIONS}/{talk}"), json!({ "id": talk, "title": "x" })).by(&ada);
    check("a field of the path in the body", given_twice, 422, "invalid", &["id"]).await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_what_is_there_says_how_to_ask() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    for path in
        ["/api", "/api/v1", "/api/v1/auth", "/api/v1/nothing", "/api/v1/auth/register/more", "/API/V1/AUTH/REGISTER", "/../etc/passwd"]
    {
        check(path, app.get(path), 404, "not_found", &[]).await;
    }
    let nobody = "01890000-0000-7000-8000-000000000000";
    check("no such message", app.get(&format!("{MESSAGES}/{nobody}")).by(&ada), 404, "not_found", &[]).await;
    check("no such user", app.get(&format!("/api/v1/users/{nobody}")).by(&ada), 404, "not_found", &[]).await;
    for (method, path, allow) in [
        (Method::GET, REGISTER, "POST, OPTIONS"),
        (Method::DELETE, MESSAGES, "GET, HEAD, POST, OPTIONS"),
        (Method::PUT, "/api/v1/users/me", "GET, HEAD, PATCH, OPTIONS"),
        (Method::POST, "/api/v1/users/me/privacy", "GET, HEAD, PUT, OPTIONS"),
        (Method::TRACE, "/api/v1/location/lookup", "GET, HEAD, OPTIONS"),
    ] {
        let reply = app.request(method.clone(), path).by(&ada).send().await;
        let allowed: std::collections::BTreeSet<_> = reply.header("allow").split(", ").map(str::to_owned).collect();
        assert_eq!(allowed, allow.split(", ").map(str::to_owned).collect(), "{method} {path}");
        reply.expect_problem(405, "method_not_allowed");
    }
    let health = app.request(Method::POST, "/health").send().await;
    assert!(health.header("allow").contains("GET"));
    health.expect_problem(405, "method_not_allowed");
}

#[tokio::test]
async fn who_takes_no_part_finds_nothing() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let stranger = app.someone().await;
    let talk = app.conversation(&ada, &bala).await;
    let message = app.say(&ada, &talk, "between us").await;
    let message = format!("{MESSAGES}/{}", message["id"].as_str().expect("id"));
    let conversation = format!("{CONVERSATIONS}/{talk}");
    let participant = format!("{conversation}/participants/{}", stranger.id);
    let (get, delete) = (|path: &str| app.get(path), |path: &str| app.delete(path));
    for (what, ask) in [
        ("the conversation", get(&conversation)),
        ("its participants", get(&format!("{conversation}/participants"))),
        ("its messages", get(&format!("{MESSAGES}?conversation_id={talk}"))),
        ("a message", get(&message)),
        ("its edits", get(&format!("{message}/edits"))),
        ("its status", get(&format!("{message}/status"))),
        ("sending", app.post(MESSAGES, json!({ "conversation_id": talk, "client_message_id": "1", "type": "text", "content": "hi" }))),
        ("reading", app.post(&format!("{MESSAGES}/read"), json!({ "conversation_id": talk, "up_to_seq": 1 }))),
        ("having it", app.post(&format!("{MESSAGES}/delivered"), json!({ "conversation_id": talk, "up_to_seq": 1 }))),
        ("typing", app.post(&format!("{MESSAGES}/typing"), json!({ "conversation_id": talk, "is_typing": true }))),
        ("editing", app.patch(&message, json!({ "content": "x" }))),
        ("deleting", delete(&message)),
        ("deleting for everyone", delete(&format!("{message}?for=everyone"))),
        ("renaming", app.patch(&conversation, json!({ "title": "x" }))),
        ("ending", delete(&conversation)),
        ("muting", app.put(&format!("{conversation}/settings"), json!({ "pinned": true }))),
        ("joining", app.post(&format!("{conversation}/participants"), json!({ "user_ids": [stranger.id] }))),
        ("a role", app.patch(&participant, json!({ "role": "owner" }))),
        ("leaving", delete(&participant)),
    ] {
        check(what, ask.by(&stranger), 404, "not_found", &[]).await;
    }
    assert_eq!(app.get(&message).by(&bala).send().await.expect(StatusCode::OK)["content"], "between us");
}

#[tokio::test]
async fn a_token_that_is_not_ours_opens_nothing() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let mut parts = ada.access_token.split('.');
    let (header, payload, signature) = (parts.next().expect("header"), parts.next().expect("payload"), parts.next().expect("signature"));
    let decode = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON");
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let (header_json, payload_json) = (decode(header), decode(payload));
    assert_eq!((&header_json["alg"], &payload_json["user_id"]), (&json!("EdDSA"), &json!(ada.id)));
    for claim in ["device_id", "session_id", "roles", "jti", "iat", "exp", "iss", "aud"] {
        assert!(!payload_json[claim].is_null(), "{claim} is missing in {payload_json}");
    }
    assert_eq!(payload_json["exp"].as_i64().zip(payload_json["iat"].as_i64()).map(|(exp, iat)| exp - iat), Some(900));

    let with = |value: &Value, key: &str, other: Value| {
        let mut changed = value.clone();
        changed[key] = other;
        changed
    };
    // The public key as the secret of an HMAC: the oldest trick there is.
    let jwks = app.get("/.well-known/jwks.json").send().await.expect(StatusCode::OK);
    let key = jwks["keys"].as_array().expect("keys").iter().find(|key| key["kid"] == header_json["kid"]).expect("our key");
    let public_key = URL_SAFE_NO_PAD.decode(key["x"].as_str().expect("x")).expect("base64url");
    let hmac = |header: &Value| {
        let signed = format!("{}.{payload}", encode(header));
        let mut mac = Hmac::<Sha256>::new_from_slice(&public_key).expect("a key of any length");
        mac.update(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    };
    let foreign = SigningKey::from_bytes(&[7; 32]);
    let sign = |header: &Value, payload: &Value| {
        let signed = format!("{}.{}", encode(header), encode(payload));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(foreign.sign(signed.as_bytes()).to_bytes()))
    };
    let none = with(&header_json, "alg", json!("none"));
    let tokens = [
        ("no JWT", "hello".to_owned()),
        ("three dots", "a.b.c".to_owned()),
        ("without a signature", format!("{header}.{payload}.")),
        ("another's signature", format!("{header}.{payload}.{}", bala.access_token.split('.').next_back().expect("signature"))),
        ("a changed user", format!("{header}.{}.{signature}", encode(&with(&payload_json, "user_id", json!(bala.id))))),
        ("a changed role", format!("{header}.{}.{signature}", encode(&with(&payload_json, "roles", json!(["admin"]))))),
        ("another key under our kid", sign(&header_json, &payload_json)),
        ("another key under its own kid", sign(&with(&header_json, "kid", json!("mine")), &payload_json)),
        ("a key that it brings along", sign(&with(&header_json, "jwk", key.clone()), &payload_json)),
        ("alg none", format!("{}.{payload}.", encode(&none))),
        ("alg none with a signature", format!("{}.{payload}.{signature}", encode(&none))),
        ("alg None", format!("{}.{payload}.", encode(&with(&header_json, "alg", json!("None"))))),
        ("alg HS256", hmac(&with(&header_json, "alg", json!("HS256")))),
        ("an HMAC that says EdDSA", hmac(&header_json)),
        ("much too long", "x".repeat(5_000)),
        ("a refresh token", ada.refresh_token.clone()),
    ];
    for (what, token) in &tokens {
        check(what, app.get("/api/v1/users/me").token(token), 401, "token_invalid", &[]).await;
        check(what, app.get("/api/v1/sync").token(token), 401, "token_invalid", &[]).await;
    }
    let me = || app.get("/api/v1/users/me");
    check("none", me(), 401, "token_missing", &[]).await;
    check("an empty one", me().header("authorization", "Bearer "), 401, "token_missing", &[]).await;
    check("another scheme", me().header("authorization", "Basic YTpi"), 401, "token_missing", &[]).await;
    check("a name in a header", me().header("x-user-id", &ada.id), 401, "token_missing", &[]).await;
    check("in the query", app.get(&format!("/api/v1/users/me?access_token={}", ada.access_token)), 401, "token_missing", &[]).await;
    assert!(me().send().await.header("www-authenticate").starts_with("Bearer"));

    // What a client says of itself is not believed beside a good token either.
    let believed = me().by(&ada).header("x-user-id", &bala.id).header("x-user-roles", "admin").send().await.expect(StatusCode::OK);
    assert_eq!(believed["id"], ada.id.as_str());

    app.request(Method::POST, "/api/v1/auth/logout").by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    check("revoked", me().by(&ada), 401, "token_revoked", &[]).await;
    check("revoked, at the feed", app.get("/api/v1/sync").by(&ada), 401, "token_revoked", &[]).await;
    check("revoked, once more", app.request(Method::POST, "/api/v1/auth/logout").by(&ada), 401, "token_revoked", &[]).await;
}

#[tokio::test]
async fn a_token_ends() {
    let app = TestApp::with(&["auth", "location", "notification", "user"], &[("ECHO_TOKENS__ACCESS_TTL", "1s")]).await;
    let ada = app.someone().await;
    let ended = until("the end of the token", async || {
        let reply = app.get("/api/v1/users/me").by(&ada).send().await;
        (reply.status != StatusCode::OK).then_some(reply)
    })
    .await;
    ended.expect_problem(401, "token_expired");
    // An ended token does not stand in the way of a new one.
    let refresh = app.post("/api/v1/auth/refresh", json!({ "refresh_token": ada.refresh_token })).by(&ada);
    refresh.send().await.expect(StatusCode::OK);
    let nonsense = app.post("/api/v1/auth/refresh", json!({ "refresh_token": "A".repeat(43) }));
    check("nobody's refresh token", nonsense, 401, "refresh_invalid", &[]).await;
}

#[tokio::test]
async fn five_wrong_passwords_lock_a_number_whether_anybody_has_it_or_not() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    let login = |phone: &str, password: &str| {
        app.post("/api/v1/auth/login", json!({ "phone": phone, "password": password, "device": { "id": "phone" } }))
    };
    let without_id = |mut problem: Value| {
        problem.as_object_mut().expect("an object").remove("request_id");
        problem
    };
    // A right password in between begins anew.
    for _ in 0..4 {
        login(&ada.phone, "not the password").send().await.expect_problem(401, "invalid_credentials");
    }
    login(&ada.phone, &ada.password).send().await.expect(StatusCode::OK);

    let nobody = unused_phone();
    let mut answers = Vec::new();
    for phone in [&ada.phone, &nobody] {
        let mut answer = Vec::new();
        for _ in 0..5 {
            answer.push(without_id(login(phone, "not the password").send().await.expect_problem(401, "invalid_credentials")));
        }
        let locked = login(phone, "not the password").send().await;
        let wait: u64 = locked.header("retry-after").parse().expect("seconds");
        assert!((1..=900).contains(&wait), "{wait}");
        answer.push(without_id(locked.expect_problem(423, "account_locked")));
        answers.push(answer);
    }
    assert_eq!(answers[0], answers[1], "nobody learns who has an account");
    login(&ada.phone, &ada.password).send().await.expect_problem(423, "account_locked");
}

#[tokio::test]
async fn wrong_passwords_at_once_do_not_slip_past_the_lock() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    let tries = join_all((0..12).map(|n| {
        let login = json!({ "phone": ada.phone, "password": format!("guess number {n}"), "device": { "id": "phone" } });
        app.post("/api/v1/auth/login", login).send()
    }))
    .await;
    assert!(tries.iter().all(|reply| matches!(reply.status.as_u16(), 401 | 423 | 503)), "{tries:?}");
    let login = json!({ "phone": ada.phone, "password": ada.password, "device": { "id": "phone" } });
    app.post("/api/v1/auth/login", login).send().await.expect_problem(423, "account_locked");
}

#[tokio::test]
async fn a_code_stands_five_wrong_tries_and_then_a_new_one_is_needed() {
    let settings = [("ECHO_SERVICES__AUTH__OTP_RESEND_S", "0"), ("ECHO_SERVICES__AUTH__OTP_PER_DAY", "3")];
    let app = TestApp::with(&["auth", "location", "notification", "user"], &settings).await;
    let phone = unused_phone();
    let register = |password: &str| app.post(REGISTER, json!({ "phone": phone, "password": password }));
    let registered = register(PASSWORD).send().await.expect(StatusCode::CREATED);
    let registration = &registered["registration_id"];
    let code = app.code_sent_to(&phone).await;
    let wrong = if code == "123456" { "654321" } else { "123456" };
    let verify = |otp: &str| {
        let verify = json!({ "registration_id": registration, "phone": phone, "otp": otp, "device": { "id": "phone" } });
        app.post("/api/v1/auth/verify-otp", verify)
    };
    for _ in 0..5 {
        check("a wrong code", verify(wrong), 422, "invalid_otp", &["otp"]).await;
    }
    check("the right one, too late", verify(&code), 422, "otp_exhausted", &["otp"]).await;

    // A registration is one of a number; a number that has none gets no code.
    let resend = |phone: &str| app.post("/api/v1/auth/resend-otp", json!({ "registration_id": registration, "phone": phone }));
    resend(&phone).send().await.expect(StatusCode::ACCEPTED);
    resend(&unused_phone()).send().await.expect_problem(404, "registration_unknown");
    let next = until("a new code", async || Some(app.code_sent_to(&phone).await).filter(|next| *next != code)).await;
    check("the old code", verify(&code), 422, "invalid_otp", &["otp"]).await;
    let tokens = verify(&next).send().await.expect(StatusCode::OK);
    check("a code twice", verify(&next), 422, "invalid_otp", &["otp"]).await;
    resend(&phone).send().await.expect_problem(404, "registration_unknown");
    check("a number that is taken", register(PASSWORD), 409, "phone_taken", &[]).await;

    // Three in a day for each purpose, and no more.
    let forgot = || app.post("/api/v1/auth/password/forgot", json!({ "phone": phone }));
    for _ in 0..3 {
        forgot().send().await.expect(StatusCode::ACCEPTED);
    }
    let refused = forgot().send().await;
    assert!(refused.header("retry-after").parse::<u64>().expect("seconds") > 3_600);
    refused.expect_problem(429, "too_many_codes");
    let ada = Person::new(&phone, PASSWORD, "phone", &tokens);
    app.get("/api/v1/users/me").by(&ada).send().await.expect(StatusCode::OK);
}

#[tokio::test]
async fn codes_have_a_pause_between_them_and_an_end() {
    let settings = [("ECHO_SERVICES__AUTH__OTP_TTL_S", "1")];
    let app = TestApp::with(&["auth", "location", "notification", "user"], &settings).await;
    let phone = unused_phone();
    let register = |password: &str| app.post(REGISTER, json!({ "phone": phone, "password": password }));
    let first = register(PASSWORD).send().await.expect(StatusCode::CREATED);
    assert_eq!(first["otp_expires_in"], 1);
    for (what, ask) in [
        ("another code", app.post("/api/v1/auth/resend-otp", json!({ "registration_id": first["registration_id"], "phone": phone }))),
        ("another password", register("another password 7")),
        ("the same password", register(PASSWORD)),
    ] {
        let reply = ask.send().await;
        let wait: u64 = reply.header("retry-after").parse().expect("seconds");
        assert!((1..=60).contains(&wait), "{what}: {wait}");
        reply.expect_problem(429, "too_soon");
    }
    let code = app.code_sent_to(&phone).await;
    // Not asked again and again: a try in time would confirm the number.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let registration = &first["registration_id"];
    let verify = json!({ "registration_id": registration, "phone": phone, "otp": code, "device": { "id": "phone" } });
    check("a code that is too old", app.post("/api/v1/auth/verify-otp", verify), 422, "otp_expired", &["otp"]).await;
}

/// RFC 9112 section 6.3: else a proxy that goes by the other one takes a part of it for the next request.
#[tokio::test]
async fn a_request_that_says_twice_how_long_it_is_is_refused() {
    let app = TestApp::shared().await;
    let both = ["content-length: 4", "transfer-encoding: chunked"];
    for lines in [both.join("\r\n"), both.into_iter().rev().map(str::to_uppercase).collect::<Vec<_>>().join("\r\nx-other: 1\r\n")] {
        let mut stream = app.connect().await;
        let request = format!("POST /api/v1/auth/login HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{lines}\r\n\r\n");
        let next = "0\r\n\r\nGET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(format!("{request}{next}").as_bytes()).await.expect("it is taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("one answer, and an end");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"code\":\"unreadable\""), "{lines}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{lines}: {answer}");
    }
    // One of them is fine.
    let answer = app.chunked("POST", "/api/v1/auth/login", b"{}").await;
    assert!(answer.starts_with("HTTP/1.1 422 "), "{answer}");
}
