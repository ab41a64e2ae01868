//! The client against a host that records what it is asked and answers from a list.

use super::*;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;

/// A host that records requests and answers from a list.
struct Host {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn host(answers: Vec<(u16, Value)>) -> Host {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    let notes = asked.clone();
    let answer = move |request: Request| {
        let (notes, answers) = (notes.clone(), answers.clone());
        async move { respond(request, &notes, &answers).await }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
    Host { address, asked, task }
}

async fn respond(request: Request, notes: &Mutex<Vec<String>>, answers: &Mutex<std::vec::IntoIter<(u16, Value)>>) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 10_000).await.unwrap();
    let token = parts.headers["authorization"].to_str().unwrap().to_owned();
    notes.lock().push(format!("{} {} [{token}] {}", parts.method, parts.uri, String::from_utf8_lossy(&body)));
    let (status, document) = answers.lock().next().expect("no further request");
    (StatusCode::from_u16(status).unwrap(), document.to_string()).into_response()
}

fn message() -> ServiceName {
    ServiceName::parse("message").unwrap()
}

fn client(host: &Host) -> AdminClient {
    AdminClient::new(&format!("http://{}/", host.address), "secret").unwrap()
}

#[tokio::test]
async fn a_deployment_uploads_then_activates() {
    let uploaded = json!({ "version": "0.2.0", "sha256": "abc", "plan": ["1 migration", "2 new routes"] });
    let host = host(vec![(201, uploaded), (200, json!({}))]).await;
    let report = client(&host).deploy(&message(), b"packed".to_vec(), false, &[], &[]).await.unwrap();
    assert_eq!(report, "message 0.2.0 (sha256 abc)\n  1 migration\n  2 new routes\nmessage 0.2.0 is live");
    assert_eq!(
        *host.asked.lock(),
        [
            "POST /admin/v1/plugins/message/versions [Bearer secret] packed",
            "PUT /admin/v1/plugins/message/active [Bearer secret] {\"version\":\"0.2.0\"}",
        ]
    );
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let host = host(vec![(201, json!({ "version": "0.2.0", "plan": { "migrations": 1 } }))]).await;
    let report = client(&host).deploy(&message(), b"packed".to_vec(), true, &[], &[]).await.unwrap();
    assert_eq!(report, "message 0.2.0\n  migrations: 1\nnothing was changed");
    assert_eq!(*host.asked.lock(), ["POST /admin/v1/plugins/message/versions?dry_run=true [Bearer secret] packed"]);
}

#[tokio::test]
async fn changes_are_confirmed_by_their_names() {
    let change = |confirmed: bool| json!({ "name": "route-removed:GET /x", "detail": "it is gone", "confirmed": confirmed });
    let answer = |confirmed: bool| json!({ "version": "0.2.0", "plan": { "changes": [change(confirmed)] } });
    let host = host(vec![(200, answer(false)), (201, answer(true)), (200, json!({}))]).await;
    let error = client(&host).deploy(&message(), b"packed".to_vec(), true, &[], &[]).await.unwrap_err().to_string();
    assert!(error.contains("\n  wants --allow \"route-removed:GET /x\": it is gone\nnothing was changed\nit would be refused"), "{error}");
    let allow = ["route-removed:GET /x".to_owned()];
    let report = client(&host).deploy(&message(), b"packed".to_vec(), false, &allow, &[]).await.unwrap();
    assert_eq!(report, "message 0.2.0\n  allowed: route-removed:GET /x: it is gone\nmessage 0.2.0 is live");
    let asked = host.asked.lock();
    assert!(asked[1].starts_with("POST /admin/v1/plugins/message/versions?allow=route-removed%3AGET+%2Fx "), "{asked:?}");
    assert!(asked[2].starts_with("PUT /admin/v1/plugins/message/active?allow=route-removed%3AGET+%2Fx "), "{asked:?}");
}

#[tokio::test]
async fn a_refusal_says_every_reason_and_nothing_is_activated() {
    let problem = json!({
        "title": "Unprocessable", "status": 422, "code": "refused", "detail": "message 0.2.0 cannot go live",
        "errors": [{ "field": "imports", "code": "not_granted", "detail": "wasi:sockets is not granted" }, { "detail": "no probe" }],
    });
    let host = host(vec![(422, problem)]).await;
    let error = client(&host).deploy(&message(), Vec::new(), false, &[], &[]).await.unwrap_err();
    let expect = "refused (422 refused): message 0.2.0 cannot go live\n  - imports: wasi:sockets is not granted\n  - no probe";
    assert_eq!(error.to_string(), expect);
    assert_eq!(host.asked.lock().len(), 1);
}

#[tokio::test]
async fn lists_are_tables_of_what_is_known() {
    let host = host(vec![
        (200, json!({ "items": [{ "name": "auth", "active": "0.1.0", "traffic": { "errors": 0 } }, { "name": "message", "active": "0.10.0" }] })),
        (200, json!({ "items": [] })),
        (200, json!({ "items": [{ "at": "2026-01-31T12:00:00Z", "action": "deploy", "version": "0.1.0" }] })),
        (200, json!({ "version": "0.1.0", "loses": ["GET /x is not there any more"] })),
    ])
    .await;
    let client = client(&host);
    let list = client.list().await.unwrap();
    assert!(list.starts_with("\u{1b}[1mSERVICE"), "{list:?}");
    let plain = |text: &str| anstream::adapter::strip_str(text).to_string();
    assert_eq!(plain(&list), "SERVICE  VERSION  ERRORS\nauth     0.1.0    0\nmessage  0.10.0   -");
    assert_eq!(client.list().await.unwrap(), "no services");
    assert_eq!(client.history(&message()).await.unwrap().lines().nth(1), Some("2026-01-31T12:00:00Z  deploy  0.1.0"));
    let back = "message 0.1.0 is live again\n  lost: GET /x is not there any more";
    assert_eq!(client.rollback(&message(), true).await.unwrap(), back);
    assert_eq!(host.asked.lock().last().unwrap(), "POST /admin/v1/plugins/message/rollback?force=true [Bearer secret] ");
}

#[tokio::test]
async fn with_json_the_answer_is_the_hosts_document() {
    let items = json!({ "items": [{ "name": "auth", "active": "0.1.0" }], "next_cursor": null });
    let made = json!({ "id": "1", "name": "ci", "token": "echo_op_1", "scopes": ["read"] });
    let host = host(vec![(200, items.clone()), (201, made.clone()), (200, json!({ "items": [made.clone()] })), (204, Value::Null)]).await;
    let client = client(&host).with_json(true);
    let read = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    assert_eq!(read(client.list().await.unwrap()), items);
    assert_eq!(read(client.new_token("ci", &["read".to_owned()], Some(2)).await.unwrap().shown), made);
    client.end_token("ci").await.unwrap();
    let asked = host.asked.lock();
    assert!(asked[1].ends_with(r#"{"expires_in":172800,"name":"ci","scopes":["read"]}"#), "{asked:?}");
    assert!(asked[3].starts_with("DELETE /admin/v1/tokens/1 "), "{asked:?}");
}

#[tokio::test]
async fn the_record_is_read_page_by_page() {
    let entry = |at: &str| json!({ "at": at, "operator": "ci" });
    let page = |at: &str, next: Value| (200, json!({ "items": [entry(at)], "next_cursor": next }));
    let host = host(vec![page("c", json!("7")), page("b", json!("5")), page("a", Value::Null)]).await;
    let text = client(&host).audit(1_000).await.unwrap();
    let plain = anstream::adapter::strip_str(&text).to_string();
    assert_eq!(plain, "AT  OPERATOR\nc   ci\nb   ci\na   ci");
    let asked: Vec<_> = host.asked.lock().iter().map(|asked| asked.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(asked, ["/admin/v1/audit?limit=100", "/admin/v1/audit?limit=100&cursor=7", "/admin/v1/audit?limit=100&cursor=5"]);
}

#[test]
fn the_exit_status_says_who_failed() {
    let refused = ClientError::Refused(Problem::default());
    let silent = ClientError::Unreachable { address: String::new(), reason: String::new() };
    let statuses = [ClientError::Address(String::new()), refused, silent].map(|error| error.exit_status());
    assert_eq!(statuses, [2, 3, 4]);
}

#[tokio::test]
async fn a_host_is_found_by_its_data_folder() {
    let data = tempfile::tempdir().unwrap();
    let missing = AdminClient::find(None, None, data.path()).err().unwrap().to_string();
    assert!(missing.contains("run/addresses.json"), "{missing}");
    let host = host(vec![(200, json!([])), (200, json!([]))]).await;
    let addresses =
        Addresses { public: "127.0.0.1:1".to_owned(), tls: false, admin: host.address.clone(), admin_token: "kept".to_owned(), pid: 1 };
    std::fs::create_dir(data.path().join("run")).unwrap();
    std::fs::write(Addresses::path(data.path()), serde_json::to_vec(&addresses).unwrap()).unwrap();
    AdminClient::find(None, None, data.path()).unwrap().list().await.unwrap();
    AdminClient::find(Some(&format!("http://{}", host.address)), None, data.path()).unwrap().list().await.unwrap();
    assert!(host.asked.lock().iter().all(|asked| asked.contains("[Bearer kept]")));
    let other = AdminClient::find(Some("http://elsewhere.example:9090"), None, data.path());
    assert!(matches!(other, Err(ClientError::NoToken(_))), "the token is not sent to another host");
    assert!(matches!(AdminClient::find(Some("127.0.0.1:9090"), Some("t"), data.path()), Err(ClientError::Address(_))));
}

#[tokio::test]
async fn a_host_that_is_gone_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = listener.local_addr().unwrap();
    drop(listener);
    let error = AdminClient::new(&format!("http://{free}"), "t").unwrap().list().await.unwrap_err().to_string();
    assert!(error.contains(&free.to_string()) && error.contains("refused"), "{error}");
}

#[tokio::test]
async fn a_host_is_ready_when_it_says_so() {
    let answers = [(200, json!({ "status": "up" })), (200, json!({ "status": "degraded" })), (503, json!({ "status": "down" }))];
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    let answer = move || {
        let (status, report) = answers.lock().next().unwrap_or((404, json!("?")));
        async move { (StatusCode::from_u16(status).unwrap(), report.to_string()) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/ready", axum::routing::get(answer));
    let host = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let url = format!("http://{address}/");
    let ask = async || ready(Some(&url), Path::new("nowhere"), Duration::ZERO).await.map_err(|error| error.to_string());
    assert_eq!(ask().await, Ok("up".to_owned()));
    assert_eq!(ask().await, Ok("degraded".to_owned()));
    assert_eq!(ask().await, Err(format!("http://{address} is down")));
    assert_eq!(ask().await, Err(format!("http://{address} is no Echo")));
    host.abort();

    // It waits for a host that starts late: addresses are written when it serves.
    let data = tempfile::tempdir().unwrap();
    let none = ready(None, data.path(), Duration::from_millis(1)).await.unwrap_err();
    assert!(matches!(none, ClientError::NoHost(_)), "{none}");
}

#[test]
fn a_file_too_large_for_any_host_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.wasm");
    std::fs::File::create(&path).unwrap().set_len(limits::PLUGIN_BYTES_MAX as u64 + 1).unwrap();
    assert!(read_packed(&path).unwrap_err().to_string().contains("at most"));
    std::fs::write(&path, b"small").unwrap();
    assert_eq!(read_packed(&path).unwrap(), b"small");
    assert!(read_packed(&folder.path().join("none")).is_err());
}
