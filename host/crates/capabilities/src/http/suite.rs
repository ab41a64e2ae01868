//! The contract of outgoing HTTP, against servers of its own: what is granted, bounded and signed. One backend passes it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::client::HttpClient;
use super::{CredentialSettings, HostPattern, Http, HttpError, HttpGrants, HttpSettings, OutgoingRequest, OutgoingResponse};
use echo_base::limits;

/// Made by `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`.
const P256_PEM: &str = include_str!("suite/p256.pem");
/// Made by `openssl genpkey -algorithm RSA`.
const RSA_PEM: &str = include_str!("suite/rsa.pem");

/// Answers every request alike, and keeps what it got.
struct Server {
    port: u16,
    got: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answer: impl Fn(usize) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let got = Arc::new(Mutex::new(Vec::new()));
        let keep = got.clone();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut bytes = Vec::new();
                loop {
                    let mut piece = [0; 4096];
                    let count = connection.read(&mut piece).await.unwrap_or(0);
                    bytes.extend_from_slice(&piece[..count]);
                    let text = String::from_utf8_lossy(&bytes);
                    let length: usize = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
                    if count == 0 || text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.len() >= length) {
                        break;
                    }
                }
                let number = {
                    let mut got = keep.lock();
                    got.push(String::from_utf8_lossy(&bytes).into_owned());
                    got.len() - 1
                };
                let _ = connection.write_all(answer(number).as_bytes()).await;
            }
        });
        Self { port, got }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn url(&self) -> String {
        format!("http://{}/path?query", self.address())
    }

    fn header(&self, number: usize, name: &str) -> Option<String> {
        self.got.lock()[number].lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
    }
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\nretry-after: 7\r\n\r\n{body}", body.len())
}

fn client(private: &[&Server], credentials: CredentialSettings) -> HttpClient {
    let private_hosts = private.iter().map(|server| HostPattern::parse(&server.address()).expect("a host")).collect();
    HttpClient::new(HttpSettings { private_hosts, root_certificates: None, credentials }).expect("good settings")
}

fn request(url: &str, credential: Option<&str>) -> OutgoingRequest {
    OutgoingRequest {
        method: "POST".to_owned(),
        url: url.to_owned(),
        headers: vec![("x-mine".to_owned(), "1".to_owned())],
        body: b"hello".to_vec(),
        credential: credential.map(str::to_owned),
        timeout: Duration::from_secs(20),
    }
}

fn grants(hosts: &[&str], credentials: &[&str]) -> HttpGrants {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    HttpGrants::parse(&owned(hosts), &owned(credentials)).expect("good grants")
}

async fn sent(client: &HttpClient, grants: &HttpGrants, request: OutgoingRequest) -> Result<OutgoingResponse, HttpError> {
    client.send(grants, request).await
}

#[tokio::test]
async fn a_request_and_its_answer_of_any_status_go_through_whole() {
    let server = Server::start(|_| answer("503 Busy", "later")).await;
    let client = client(&[&server], CredentialSettings::default());
    let found = sent(&client, &HttpGrants::default(), request(&server.url(), None)).await.unwrap();
    assert_eq!((found.status, found.body.as_slice()), (503, b"later".as_slice()));
    assert!(found.headers.contains(&("retry-after".to_owned(), "7".to_owned())), "{:?}", found.headers);
    let got = server.got.lock()[0].clone();
    assert!(got.starts_with("POST /path?query HTTP/1.1\r\n") && got.ends_with("\r\n\r\nhello"), "{got}");
    assert_eq!(server.header(0, "x-mine").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let other = Server::start(|_| answer("200 OK", "")).await;
    let to = other.url();
    let server =
        Server::start(move |_| format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")).await;
    let client = client(&[&server, &other], CredentialSettings::default());
    assert_eq!(sent(&client, &HttpGrants::default(), request(&server.url(), None)).await.unwrap().status, 302);
    assert!(other.got.lock().is_empty());
}

#[tokio::test]
async fn what_is_not_granted_or_not_public_is_not_reached() {
    let server = Server::start(|_| answer("200 OK", "")).await;
    let client = client(&[], CredentialSettings::default());
    let local = server.address();
    let own = grants(&["a.example:443", &local, "localhost:443", "169.254.169.254:443"], &[]);
    let at_localhost = format!("https://localhost:{}/", server.port);
    for (url, expect) in [
        ("https://b.example/", "NotGranted"),
        ("https://a.example:444/", "NotGranted"),
        ("http://a.example/", "NotGranted"),
        (server.url().as_str(), "NotGranted"),
        (&format!("https://{local}/"), "Unreachable"),
        (&at_localhost, "NotGranted"),
        ("https://localhost/", "Unreachable"),
        ("https://169.254.169.254/", "Unreachable"),
        ("https://user@a.example/", "Invalid"),
        ("ftp://a.example/", "Invalid"),
        ("/path", "Invalid"),
    ] {
        let error = sent(&client, &own, request(url, None)).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(expect), "{url}: {error:?}");
    }
    assert!(server.got.lock().is_empty());
}

#[tokio::test]
async fn headers_that_are_the_hosts_are_refused() {
    let server = Server::start(|_| answer("200 OK", "")).await;
    let client = client(&[&server], CredentialSettings::default());
    for (name, value) in
        [("Host", "other.example"), ("content-length", "1"), ("transfer-encoding", "chunked"), ("x", "a\r\nb: c"), ("a b", "c")]
    {
        let mut request = request(&server.url(), None);
        request.headers.push((name.to_owned(), value.to_owned()));
        assert!(matches!(sent(&client, &HttpGrants::default(), request).await, Err(HttpError::Invalid(_))), "{name}");
    }
    assert!(server.got.lock().is_empty());
}

#[tokio::test]
async fn an_answer_beyond_the_bound_and_one_that_does_not_come_are_errors() {
    let large = Server::start(|_| answer("200 OK", &"x".repeat(limits::HTTP_BODY_BYTES_MAX + 1))).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let listening = silent.local_addr().unwrap();
    let private_hosts = [large.address(), listening.to_string(), closed.to_string()].map(|host| HostPattern::parse(&host).unwrap());
    let client = HttpClient::new(HttpSettings { private_hosts: private_hosts.into(), ..HttpSettings::default() }).unwrap();
    let none = HttpGrants::default();
    assert_eq!(sent(&client, &none, request(&large.url(), None)).await, Err(HttpError::TooLarge));
    let brief = OutgoingRequest { timeout: Duration::from_millis(50), ..request(&format!("http://{listening}/"), None) };
    assert_eq!(sent(&client, &none, brief).await, Err(HttpError::TimedOut));
    let refused = sent(&client, &none, request(&format!("http://{closed}/"), None)).await;
    assert!(matches!(refused, Err(HttpError::Unreachable(_))), "{refused:?}");
}

/// Header and claims of a token whose signature is good.
fn claims_of(token: &str, public_key: &[u8]) -> (Value, Value) {
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public_key).verify(signed.as_bytes(), &signature).expect("a good signature");
    let part = |text: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).expect("base64url")).expect("JSON");
    let (header, claims) = signed.split_once('.').expect("two parts");
    (part(header), part(claims))
}

#[tokio::test]
async fn web_push_is_signed_for_its_origin_as_rfc_8292_says() {
    let server = Server::start(|_| answer("201 Created", "")).await;
    let credentials =
        CredentialSettings { vapid_key: Some(P256_PEM.to_owned()), vapid_subject: "mailto:ops@a.example".to_owned(), ..Default::default() };
    let client = client(&[&server], credentials);
    let request = request(&server.url(), Some("webpush"));
    let refused = sent(&client, &HttpGrants::default(), request.clone()).await;
    assert!(matches!(refused, Err(HttpError::NotGranted(_))), "{refused:?}");
    sent(&client, &grants(&[], &["webpush"]), request).await.unwrap();
    let authorization = server.header(0, "authorization").expect("signed");
    let (token, key) = authorization.strip_prefix("vapid t=").and_then(|rest| rest.split_once(", k=")).expect("RFC 8292, section 3");
    assert_eq!(Some(key.to_owned()), client.public_key("webpush"));
    let (header, claims) = claims_of(token, &URL_SAFE_NO_PAD.decode(key).unwrap());
    assert_eq!((&header["alg"], &header["typ"]), (&"ES256".into(), &"JWT".into()));
    assert_eq!((&claims["aud"], &claims["sub"]), (&format!("http://{}", server.address()).into(), &"mailto:ops@a.example".into()));
    assert!(claims["exp"].as_u64().is_some_and(|exp| exp > super::credentials::now_s() && exp <= super::credentials::now_s() + 86_400));
}

#[tokio::test]
async fn apns_gets_one_token_for_many_requests() {
    let server = Server::start(|number| answer(if number == 1 { "403 Forbidden" } else { "200 OK" }, "")).await;
    let credentials = CredentialSettings {
        apns_key: Some(P256_PEM.to_owned()),
        apns_key_id: "KEY".to_owned(),
        apns_team_id: "TEAM".to_owned(),
        vapid_key: Some(P256_PEM.to_owned()),
        ..Default::default()
    };
    let client = client(&[&server], credentials);
    for _ in 0..3 {
        sent(&client, &grants(&[], &["apns"]), request(&server.url(), Some("apns"))).await.unwrap();
    }
    let tokens = [0, 1, 2].map(|number| server.header(number, "authorization").expect("signed"));
    assert!(tokens[0] == tokens[1] && tokens[1] == tokens[2]);
    let key = URL_SAFE_NO_PAD.decode(client.public_key("webpush").expect("the same key")).unwrap();
    let (header, claims) = claims_of(tokens[0].strip_prefix("bearer ").expect("a bearer"), &key);
    assert_eq!((&header["kid"], &claims["iss"]), (&"KEY".into(), &"TEAM".into()));
}

#[tokio::test]
async fn a_service_account_gets_one_access_token_until_it_is_refused() {
    let tokens =
        Server::start(|number| answer("200 OK", &format!(r#"{{"access_token":"t{number}","expires_in":3600,"token_type":"Bearer"}}"#)))
            .await;
    let server = Server::start(|number| answer(if number == 1 { "401 Unauthorized" } else { "200 OK" }, "")).await;
    let account = serde_json::json!({ "client_email": "echo@a.example", "private_key": RSA_PEM, "token_uri": tokens.url(), "type": "service_account" });
    let client = client(&[&server, &tokens], CredentialSettings { fcm_service_account: Some(account.to_string()), ..Default::default() });
    for _ in 0..3 {
        sent(&client, &grants(&[], &["fcm"]), request(&server.url(), Some("fcm"))).await.unwrap();
    }
    let used = [0, 1, 2].map(|number| server.header(number, "authorization").expect("signed"));
    assert_eq!(used, ["Bearer t0", "Bearer t0", "Bearer t1"]);
    let asked = tokens.got.lock()[0].clone();
    let assertion = asked.rsplit_once("&assertion=").expect("RFC 7523").1;
    let claims = assertion.split('.').nth(1).expect("claims");
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!((&claims["iss"], &claims["aud"]), (&"echo@a.example".into(), &tokens.url().into()));
}

#[tokio::test]
async fn without_an_access_token_nothing_is_sent_and_it_is_not_asked_for_at_once_again() {
    let tokens = Server::start(|_| answer("500 Oops", "no")).await;
    let server = Server::start(|_| answer("200 OK", "")).await;
    let account = serde_json::json!({ "client_email": "echo@a.example", "private_key": RSA_PEM, "token_uri": tokens.url() });
    let client = client(&[&server, &tokens], CredentialSettings { fcm_service_account: Some(account.to_string()), ..Default::default() });
    for _ in 0..2 {
        let refused = sent(&client, &grants(&[], &["fcm"]), request(&server.url(), Some("fcm"))).await;
        assert_eq!(refused, Err(HttpError::NoCredential("fcm".to_owned())));
    }
    assert_eq!((tokens.got.lock().len(), server.got.lock().len()), (1, 0));
    assert_eq!(client.public_key("webpush"), None, "it is not configured");
}

#[tokio::test]
async fn a_key_that_was_made_signs_web_push() {
    let server = Server::start(|_| answer("201 Created", "")).await;
    let credentials = CredentialSettings {
        vapid_key: Some(super::credentials::new_vapid_key()),
        vapid_subject: "mailto:ops@a.example".to_owned(),
        ..Default::default()
    };
    let client = client(&[&server], credentials);
    sent(&client, &grants(&[], &["webpush"]), request(&server.url(), Some("webpush"))).await.unwrap();
    let authorization = server.header(0, "authorization").expect("signed");
    let (token, key) = authorization.strip_prefix("vapid t=").and_then(|rest| rest.split_once(", k=")).expect("RFC 8292, section 3");
    let (_, claims) = claims_of(token, &URL_SAFE_NO_PAD.decode(key).unwrap());
    assert_eq!(claims["aud"], format!("http://{}", server.address()));
}

#[test]
fn a_key_that_is_none_is_named() {
    let wrong = |credentials| HttpClient::new(HttpSettings { credentials, ..HttpSettings::default() }).err().unwrap_or_default();
    let pem = || Some("nonsense".to_owned());
    assert!(wrong(CredentialSettings { vapid_key: pem(), ..Default::default() }).contains("http.vapid_key"));
    assert!(wrong(CredentialSettings { fcm_service_account: pem(), ..Default::default() }).contains("http.fcm_service_account"));
    let apns = CredentialSettings { apns_key: pem(), apns_key_id: "a".into(), apns_team_id: "b".into(), ..Default::default() };
    assert!(wrong(apns).contains("http.apns_key"));
}
