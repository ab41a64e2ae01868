//! Pushes as their providers get them: Web Push (RFC 8030), FCM (HTTP v1) and APNs (HTTP/2), against servers of the tests that answer as those do.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode as Status, Uri};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::app::{Person, TestApp, until};

const DEVICES: &str = "/api/v1/notifications/devices";
const SERVICES: [&str; 5] = ["auth", "location", "message", "notification", "user"];
/// Of RFC 8291, section 5.
const BROWSER_KEY: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const BROWSER_SECRET: &str = "BTBZMqHH6r4Tts7J_aSIgg";

/// A request that a provider got.
#[derive(Clone, Debug)]
struct Got {
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// What a provider answers: status, body, `Retry-After`.
type Answer = (u16, String, Option<&'static str>);

/// The answers that come next at each path; without one it is 200.
#[derive(Clone, Default)]
struct Provider {
    got: Arc<Mutex<Vec<Got>>>,
    answers: Arc<Mutex<HashMap<String, VecDeque<Answer>>>>,
}

impl Provider {
    fn will_answer(&self, path: &str, answers: &[Answer]) {
        self.answers.lock().expect("whole").entry(path.to_owned()).or_default().extend(answers.iter().cloned());
    }

    fn answer(&self, got: Got) -> Answer {
        let answer = self.answers.lock().expect("whole").get_mut(&got.path).and_then(VecDeque::pop_front);
        self.got.lock().expect("whole").push(got);
        answer.unwrap_or((200, "{}".to_owned(), None))
    }

    fn got(&self, path: &str) -> Vec<Got> {
        self.got.lock().expect("whole").iter().filter(|got| got.path == path).cloned().collect()
    }

    async fn gets(&self, path: &str, count: usize) -> Got {
        until(&format!("{count} requests at {path}"), async || self.got(path).get(count - 1).cloned()).await
    }

    /// Its address.
    async fn over_http(&self) -> String {
        async fn answer(State(provider): State<Provider>, uri: Uri, headers: HeaderMap, body: Bytes) -> (Status, HeaderMap, String) {
            let (status, text, retry_after) = provider.answer(Got { path: uri.path().to_owned(), headers, body: body.to_vec() });
            let headers = retry_after.map(|value| (axum::http::header::RETRY_AFTER, value.parse().expect("a value")));
            (Status::from_u16(status).expect("a status"), headers.into_iter().collect(), text)
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound").to_string();
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// Its address and its certificate. Whoever speaks no HTTP/2 is not let in, as at Apple's.
    async fn over_http2(&self) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).expect("a key");
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let mut config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).expect("fits");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = format!("localhost:{}", listener.local_addr().expect("bound").port());
        let provider = self.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (acceptor, provider) = (acceptor.clone(), provider.clone());
                tokio::spawn(async move {
                    let Ok(connection) = acceptor.accept(connection).await else { return };
                    let Ok(mut connection) = h2::server::handshake(connection).await else { return };
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let provider = provider.clone();
                        tokio::spawn(async move {
                            let (parts, mut stream) = request.into_parts();
                            let mut body = Vec::new();
                            while let Some(Ok(piece)) = stream.data().await {
                                let _ = stream.flow_control().release_capacity(piece.len());
                                body.extend_from_slice(&piece);
                            }
                            let got = Got { path: parts.uri.path().to_owned(), headers: parts.headers, body };
                            let (status, text, _) = provider.answer(got);
                            let head = axum::http::Response::builder().status(status).body(()).expect("a head");
                            if let Ok(mut stream) = respond.send_response(head, false) {
                                let _ = stream.send_data(text.into_bytes().into(), true);
                            }
                        });
                    }
                });
            }
        });
        (address, made.cert.pem())
    }
}

/// An operator's files: keys that were made for tests.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().expect("a folder"))
    }

    /// A setting that names the file.
    fn with(&self, name: &str, content: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).expect("writes");
        format!("file:{}", path.display())
    }

    fn key(&self) -> String {
        self.with("key.pem", &rcgen::KeyPair::generate().expect("a P-256 key").serialize_pem())
    }
}

async fn register(app: &TestApp, person: &Person, provider: &str, token: &str) {
    app.post(DEVICES, json!({ "token": token, "provider": provider })).by(person).send().await.expect(StatusCode::CREATED);
}

async fn devices(app: &TestApp, person: &Person) -> Value {
    app.get(DEVICES).by(person).send().await.expect(StatusCode::OK)
}

async fn has_no_device(app: &TestApp, person: &Person) {
    until("the token is forgotten", async || (devices(app, person).await["items"] == json!([])).then_some(())).await;
}

async fn is_not_in_the_outbox(app: &TestApp, text: &str) {
    until("the push is gone", async || {
        let outbox = app.get("/dev/outbox").send().await.expect(StatusCode::OK);
        (!outbox.to_string().contains(text)).then_some(())
    })
    .await;
}

fn subscription(endpoint: &str) -> String {
    json!({ "endpoint": endpoint, "expirationTime": null, "keys": { "p256dh": BROWSER_KEY, "auth": BROWSER_SECRET } }).to_string()
}

fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).expect("a token of three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64url")).expect("JSON")
}

#[tokio::test]
async fn a_browser_gets_encrypted_pushes_until_its_subscription_ends() {
    let (provider, files) = (Provider::default(), Files::new());
    let address = provider.over_http().await;
    let settings = [
        ("ECHO_SERVICES__NOTIFICATION__ACK_WAIT_S", "0"),
        ("ECHO_SERVICES__NOTIFICATION__PUSH_SERVICES", &format!("http://{address}")),
        ("ECHO_HTTP__PRIVATE_HOSTS", &address),
        ("ECHO_HTTP__VAPID_KEY", &files.key()),
        ("ECHO_HTTP__VAPID_SUBJECT", "mailto:ops@echo.example"),
    ];
    let app = TestApp::with(&SERVICES, &settings).await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    for wrong in [
        "a token",
        &subscription("ftp://push.example/"),
        &subscription("https://elsewhere.example/bala"),
        &subscription("http://fcm.googleapis.com/bala"),
    ] {
        let device = json!({ "token": wrong, "provider": "webpush" });
        app.post(DEVICES, device).by(&bala).send().await.expect_problem(422, "invalid_subscription");
    }
    register(&app, &bala, "webpush", &subscription(&format!("http://{address}/bala"))).await;

    // The first try meets a service that is busy.
    provider.will_answer("/bala", &[(503, String::new(), Some("1")), (201, String::new(), None)]);
    app.say(&ada, &talk, "a secret").await;
    let push = provider.gets("/bala", 2).await;
    assert_eq!((push.header("content-encoding"), push.header("urgency")), ("aes128gcm", "high"));
    assert!(push.header("ttl").parse::<u64>().is_ok_and(|ttl| ttl > 86_000 && ttl <= 86_400), "{push:?}");
    assert_eq!(push.header("topic"), talk.replace('-', ""));
    // RFC 8188: salt, record size, and the length of the key.
    assert_eq!(&push.body[16..21], [0, 0, 16, 0, 65]);
    assert!(!push.body.windows(8).any(|window| window == b"a secret"));
    let (token, key) = push.header("authorization").strip_prefix("vapid t=").and_then(|rest| rest.split_once(", k=")).expect("RFC 8292");
    assert_eq!(devices(&app, &bala).await["web_push_key"], key);
    assert_eq!(claims(token)["aud"], format!("http://{address}"));

    // What waits to be tried again goes with its message.
    provider.will_answer("/bala", &[(429, String::new(), Some("3600"))]);
    let message = app.say(&ada, &talk, "taken back").await;
    provider.gets("/bala", 3).await;
    let path = format!("/api/v1/messages/{}?for=everyone", message["id"].as_str().expect("id"));
    app.delete(&path).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    is_not_in_the_outbox(&app, "taken back").await;

    provider.will_answer("/bala", &[(410, String::new(), None)]);
    app.say(&ada, &talk, "to nobody").await;
    has_no_device(&app, &bala).await;
    assert_eq!(provider.got("/bala").len(), 4);
    // What waits for a device goes when another account registers it.
    let endpoint = subscription(&format!("http://{address}/bala"));
    register(&app, &bala, "webpush", &endpoint).await;
    provider.will_answer("/bala", &[(429, String::new(), Some("2"))]);
    app.say(&ada, &talk, "for Bala alone").await;
    provider.gets("/bala", 5).await;
    register(&app, &ada, "webpush", &endpoint).await;
    is_not_in_the_outbox(&app, "for Bala alone").await;
    assert_eq!(provider.got("/bala").len(), 5);
}

#[tokio::test]
async fn fcm_gets_messages_with_an_access_token_and_says_which_tokens_are_no_more() {
    const SEND: &str = "/v1/projects/echo-test/messages:send";
    let (provider, files) = (Provider::default(), Files::new());
    let address = provider.over_http().await;
    let account = json!({
        "client_email": "echo@echo-test.example",
        "private_key": include_str!("../../crates/capabilities/src/http/suite/rsa.pem"),
        "token_uri": format!("http://{address}/token"),
    });
    let settings = [
        ("ECHO_SERVICES__NOTIFICATION__ACK_WAIT_S", "0"),
        ("ECHO_SERVICES__NOTIFICATION__FCM_PROJECT", "echo-test"),
        ("ECHO_SERVICES__NOTIFICATION__FCM_URL", &format!("http://{address}")),
        ("ECHO_HTTP__PRIVATE_HOSTS", &address),
        ("ECHO_HTTP__FCM_SERVICE_ACCOUNT", &files.with("account.json", &account.to_string())),
    ];
    let app = TestApp::with(&SERVICES, &settings).await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    register(&app, &bala, "fcm", "token-of-bala").await;
    let token = |text: &str| (200, json!({ "access_token": text, "expires_in": 3600, "token_type": "Bearer" }).to_string(), None);
    provider.will_answer("/token", &[token("first"), token("second")]);

    // An access token that is refused is asked for anew.
    provider.will_answer(SEND, &[(401, "{}".to_owned(), None)]);
    let message = app.say(&ada, &talk, "Hello").await;
    let push = provider.gets(SEND, 2).await;
    assert_eq!(provider.got(SEND)[0].header("authorization"), "Bearer first");
    assert_eq!(push.header("authorization"), "Bearer second");
    let sent = &push.json()["message"];
    assert_eq!((&sent["token"], &sent["notification"]["body"]), (&json!("token-of-bala"), &json!("Hello")));
    assert_eq!((&sent["data"]["message_id"], &sent["android"]["collapse_key"]), (&message["id"], &json!(talk)));

    // The longest text is cut between graphemes, and not dropped.
    let family = "👨‍👩‍👧‍👦";
    app.say(&ada, &talk, &family.repeat(400)).await;
    let long = provider.gets(SEND, 3).await;
    let text = long.json()["message"]["notification"]["body"].as_str().expect("a text").to_owned();
    assert!(long.body.len() <= 4_096 && text.starts_with(family) && text.replace(family, "").is_empty(), "{text}");

    // What FCM will never take is dropped and counted; the token stays.
    let refused = json!({ "error": { "code": 400, "status": "INVALID_ARGUMENT" } });
    provider.will_answer(SEND, &[(400, refused.to_string(), None)]);
    app.say(&ada, &talk, "refused").await;
    provider.gets(SEND, 4).await;
    is_not_in_the_outbox(&app, "refused").await;
    assert_eq!(devices(&app, &bala).await["items"].as_array().map(Vec::len), Some(1));
    let metrics = app.admin(Method::GET, "/metrics").send().await;
    let counted =
        metrics.body.as_str().expect("text").lines().find(|line| line.contains("echo_service_requests_total") && line.contains("4xx"));
    assert!(counted.is_some_and(|line| line.ends_with(" 2")), "the refused access token and this: {counted:?}");
    assert!(app.log().contains("pushes were given up"));

    // What waits to be tried again ends with the session.
    let phone = app.log_in(&bala, "another phone").await;
    register(&app, &phone, "fcm", "another-token-of-bala").await;
    provider.will_answer(SEND, &[(503, "{}".to_owned(), Some("3600")), (503, "{}".to_owned(), Some("3600"))]);
    app.say(&ada, &talk, "one of two").await;
    provider.gets(SEND, 6).await;
    app.request(Method::POST, "/api/v1/auth/logout").by(&phone).send().await.expect(StatusCode::NO_CONTENT);
    until("only the other session's is left", async || {
        let items = app.get("/dev/outbox").send().await.expect(StatusCode::OK)["items"].take();
        let waiting: Vec<Value> = items.as_array().expect("items").iter().filter(|item| item["body"] == "one of two").cloned().collect();
        (waiting.len() == 1 && waiting[0]["to"] == "token-of-bala").then_some(())
    })
    .await;

    let gone = json!({ "error": { "code": 404, "status": "NOT_FOUND", "details": [{ "errorCode": "UNREGISTERED" }] } });
    provider.will_answer(SEND, &[(404, gone.to_string(), None)]);
    app.say(&ada, &talk, "to nobody").await;
    has_no_device(&app, &bala).await;
    assert_eq!(provider.got("/token").len(), 2);
}

#[tokio::test]
async fn apns_gets_messages_over_http2_and_says_which_tokens_are_no_more() {
    const TOKEN: &str = "00aaff00aaff00aaff00aaff00aaff00aaff00aaff00aaff00aaff00aaff00aa";
    const DEVICE: &str = "/3/device/00aaff00aaff00aaff00aaff00aaff00aaff00aaff00aaff00aaff00aaff00aa";
    let (provider, files) = (Provider::default(), Files::new());
    let (address, certificate) = provider.over_http2().await;
    let certificate = files.with("root.pem", &certificate);
    let settings = [
        ("ECHO_SERVICES__NOTIFICATION__ACK_WAIT_S", "0"),
        ("ECHO_SERVICES__NOTIFICATION__APNS_TOPIC", "org.echo.app"),
        ("ECHO_SERVICES__NOTIFICATION__APNS_URL", &format!("https://{address}")),
        ("ECHO_HTTP__PRIVATE_HOSTS", &address),
        ("ECHO_HTTP__ROOT_CERTIFICATES", certificate.strip_prefix("file:").expect("a file")),
        ("ECHO_HTTP__APNS_KEY", &files.key()),
        ("ECHO_HTTP__APNS_KEY_ID", "KEY1234567"),
        ("ECHO_HTTP__APNS_TEAM_ID", "TEAM123456"),
    ];
    let app = TestApp::with(&SERVICES, &settings).await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let wrong = app.post("/api/v1/notifications/devices", json!({ "token": "zz", "provider": "apns" })).by(&bala).send().await;
    wrong.expect_problem(422, "invalid_token");
    register(&app, &bala, "apns", TOKEN).await;
    provider.will_answer(DEVICE, &[(500, json!({ "reason": "InternalServerError" }).to_string(), None)]);
    let message = app.say(&ada, &talk, "Hello").await;
    let push = provider.gets(DEVICE, 2).await;
    assert_eq!((push.header("apns-topic"), push.header("apns-push-type")), ("org.echo.app", "alert"));
    assert_eq!(push.header("apns-collapse-id"), talk);
    let token = push.header("authorization").strip_prefix("bearer ").expect("a provider's token");
    assert_eq!(claims(token)["iss"], "TEAM123456");
    let payload = push.json();
    assert_eq!((&payload["aps"]["alert"]["body"], &payload["message_id"]), (&json!("Hello"), &message["id"]));

    provider.will_answer(DEVICE, &[(410, json!({ "reason": "Unregistered", "timestamp": 1 }).to_string(), None)]);
    app.say(&ada, &talk, "to nobody").await;
    has_no_device(&app, &bala).await;
}
