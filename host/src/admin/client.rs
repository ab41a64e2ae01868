//! The client of the operator API: finds a running host, sends requests, and prints the answers as text and tables.
//! Knows the API's paths and shapes, and nothing of how a host works.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use echo_base::limits;
use echo_base::names::ServiceName;

use table::{AUDIT_COLUMNS, HISTORY_COLUMNS, LIST_COLUMNS, TOKEN_COLUMNS, cell, table};

mod table;

/// `<data>/run/addresses.json`: written when the host serves, gone after a clean end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    pub public: String,
    /// The public listener speaks TLS.
    #[serde(default)]
    pub tls: bool,
    pub admin: String,
    pub admin_token: String,
    pub pid: u32,
}

impl Addresses {
    pub fn path(data: &Path) -> PathBuf {
        data.join("run/addresses.json")
    }

    pub fn read(data: &Path) -> Result<Self, ClientError> {
        let path = Self::path(data);
        let text = std::fs::read(&path).map_err(|_| ClientError::NoHost(path.clone()))?;
        serde_json::from_slice(&text).map_err(|_| ClientError::NoHost(path))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no host was found: {} cannot be read. Is echod running on that data folder (--data)? Else give --admin and --token.", .0.display())]
    NoHost(PathBuf),
    #[error("--token (or ECHO_ADMIN_TOKEN) is missing: the token in the data folder belongs to {0}")]
    NoToken(String),
    #[error("{0:?} is no address of an operator API; write http://127.0.0.1:9090")]
    Address(String),
    #[error("{address} does not answer: {reason}")]
    Unreachable { address: String, reason: String },
    #[error("{address} is {status}")]
    NotReady { address: String, status: String },
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("there is no token named {0}; `echod token list` shows what there is")]
    NoSuchToken(String),
    #[error("{0}")]
    Name(#[from] echo_base::names::BadServiceName),
    /// A dry run showed what the host would refuse.
    #[error("{0}\nit would be refused without what is wanted above")]
    Unconfirmed(String),
    /// The host refused.
    #[error("{0}")]
    Refused(Problem),
}

/// RFC 9457, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    pub title: String,
    pub status: u16,
    pub code: String,
    pub detail: String,
    pub errors: Vec<Reason>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Reason {
    pub field: String,
    pub code: String,
    pub detail: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.detail.is_empty() { &self.title } else { &self.detail };
        write!(f, "refused ({} {}): {what}", self.status, self.code)?;
        for Reason { field, code, detail } in &self.errors {
            let what = if detail.is_empty() { code } else { detail };
            if field.is_empty() { write!(f, "\n  - {what}")? } else { write!(f, "\n  - {field}: {what}")? }
        }
        Ok(())
    }
}

/// One host's operator API.
pub struct NewToken {
    pub token: String,
    pub hint: String,
}

pub struct AdminClient {
    base: String,
    token: String,
    http: reqwest::Client,
}

impl AdminClient {
    /// Values that are not given are read from the host that runs on the data folder.
    pub fn find(admin: Option<&str>, token: Option<&str>, data: &Path) -> Result<Self, ClientError> {
        match (admin, token) {
            (Some(admin), Some(token)) => Self::new(admin, token),
            (None, token) => {
                let found = Addresses::read(data)?;
                Self::new(&format!("http://{}", found.admin), token.unwrap_or(&found.admin_token))
            }
            (Some(admin), None) => {
                let found = Addresses::read(data)?;
                // One host's token is not sent to another.
                let same = admin.trim_end_matches('/').trim_start_matches("http://") == found.admin;
                if same { Self::new(admin, &found.admin_token) } else { Err(ClientError::NoToken(found.admin)) }
            }
        }
    }

    pub fn new(admin: &str, token: &str) -> Result<Self, ClientError> {
        let base = admin.trim_end_matches('/').to_owned();
        let good = reqwest::Url::parse(&base).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !good {
            return Err(ClientError::Address(admin.to_owned()));
        }
        // The environment's proxy is for the internet, not for one's own hosts.
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(limits::ADMIN_CLIENT_TIMEOUT_MS)).build();
        let http = http.map_err(|error| ClientError::Unreachable { address: base.clone(), reason: error.to_string() })?;
        Ok(Self { base, token: token.to_owned(), http })
    }

    /// Uploads a packed file and makes it the live version; with `dry_run` it only reports what would happen. `allow`: the names of changes that are
    /// confirmed; `grants`: imports that the service is granted from now on.
    pub async fn deploy(
        &self,
        service: &ServiceName,
        packed: Vec<u8>,
        dry_run: bool,
        allow: &[String],
        grants: &[String],
    ) -> Result<String, ClientError> {
        let mut encoded = reqwest::Url::parse("http://any").expect("an address");
        encoded
            .query_pairs_mut()
            .extend_pairs(allow.iter().map(|name| ("allow", name)))
            .extend_pairs(grants.iter().map(|name| ("grant", name)));
        let allowed = encoded.query().unwrap_or_default();
        let query = |more: &str| match [more, allowed].join("&").trim_matches('&') {
            "" => String::new(),
            options => format!("?{options}"),
        };
        let upload = self.request(Method::POST, &format!("plugins/{service}/versions{}", query(if dry_run { "dry_run=true" } else { "" })));
        let uploaded = self.send(upload.header("content-type", "application/wasm").body(packed)).await?;
        let version = uploaded["version"].as_str().unwrap_or_default();
        let mut report = format!("{service} {version}");
        if let Some(sha256) = uploaded["sha256"].as_str() {
            write!(report, " (sha256 {sha256})").expect("a string takes all");
        }
        report += &plan(&uploaded["plan"]);
        let changes = uploaded["plan"]["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let (confirmed, open): (Vec<&Value>, Vec<&Value>) = changes.iter().partition(|change| change["confirmed"] == true);
        for change in &confirmed {
            write!(report, "\n  allowed: {}: {}", line(&change["name"]), line(&change["detail"])).expect("a string takes all");
        }
        for change in &open {
            write!(report, "\n  wants --allow {:?}: {}", line(&change["name"]), line(&change["detail"])).expect("a string takes all");
        }
        if dry_run {
            report += "\nnothing was changed";
            return if open.is_empty() { Ok(report) } else { Err(ClientError::Unconfirmed(report)) };
        }
        let activate = self.request(Method::PUT, &format!("plugins/{service}/active{}", query(""))).json(&json!({ "version": version }));
        self.send(activate).await?;
        Ok(format!("{report}\n{service} {version} is live"))
    }

    /// The host writes it, into a folder on its own machine that is new or empty.
    pub async fn back_up(&self, folder: &Path) -> Result<String, ClientError> {
        let report = self.back_up_with(&json!({ "folder": folder })).await?;
        let number = |key: &str| report[key].as_u64().unwrap_or_default();
        Ok(format!("{} files, {} bytes in {}", number("files"), number("bytes"), folder.display()))
    }

    /// The databases alone, for a move to another engine.
    pub async fn back_up_databases(&self, folder: &Path) -> Result<(), ClientError> {
        self.back_up_with(&json!({ "folder": folder, "blobs": false })).await.map(drop)
    }

    async fn back_up_with(&self, request: &Value) -> Result<Value, ClientError> {
        // Gigabytes may take longer than an answer otherwise does.
        let time = Duration::from_secs(limits::BACKUP_FILE_S_MAX);
        self.send(self.request(Method::POST, "backup").timeout(time).json(request)).await
    }

    /// Begins the host's end.
    pub async fn drain(&self) -> Result<(), ClientError> {
        self.send(self.request(Method::POST, "drain")).await.map(drop)
    }

    /// The host reads its settings again and takes over those of routes.
    pub async fn reload(&self) -> Result<String, ClientError> {
        let reloaded = self.send(self.request(Method::POST, "reload")).await?;
        let number = |key: &str| reloaded[key].as_u64().unwrap_or_default();
        let mut report = format!("{} routes changed, {} prefixes added", number("overrides"), number("prefixes"));
        for setting in reloaded["after_restart"].as_array().into_iter().flatten() {
            write!(report, "\n  used after a restart: {}", line(setting)).expect("a string takes all");
        }
        Ok(report)
    }

    pub async fn list(&self) -> Result<String, ClientError> {
        let services = self.send(self.request(Method::GET, "plugins")).await?;
        Ok(table(&LIST_COLUMNS, &services).unwrap_or_else(|| "no services".to_owned()))
    }

    pub async fn history(&self, service: &ServiceName) -> Result<String, ClientError> {
        let history = self.send(self.request(Method::GET, &format!("plugins/{service}/history"))).await?;
        Ok(table(&HISTORY_COLUMNS, &history).unwrap_or_else(|| format!("{service} has no history")))
    }

    /// `force`: even if live dependents need what the version before does not have.
    pub async fn rollback(&self, service: &ServiceName, force: bool) -> Result<String, ClientError> {
        let query = if force { "?force=true" } else { "" };
        let answer = self.send(self.request(Method::POST, &format!("plugins/{service}/rollback{query}"))).await?;
        let mut report = match answer["version"].as_str() {
            Some(version) => format!("{service} {version} is live again"),
            None => format!("{service} is rolled back"),
        };
        for lost in answer["loses"].as_array().into_iter().flatten() {
            write!(report, "\n  lost: {}", line(lost)).expect("a string takes all");
        }
        Ok(report)
    }

    /// The text of the token stands alone on the first line, for whoever reads it with a program.
    pub async fn new_token(&self, name: &str, scopes: &[String], days: Option<u64>) -> Result<NewToken, ClientError> {
        let expires_in = days.map(|days| days * 24 * 60 * 60);
        let new = json!({ "name": name, "scopes": scopes, "expires_in": expires_in });
        let made = self.send(self.request(Method::POST, "tokens").json(&new)).await?;
        let until = made["expires_at"].as_str().map_or_else(|| "until it is ended".to_owned(), |at| format!("until {at}"));
        let hint = format!("keep it: it is not shown again. {name} has {}, {until}", cell(&made["scopes"]));
        Ok(NewToken { token: line(&made["token"]), hint })
    }

    pub async fn tokens(&self) -> Result<String, ClientError> {
        let tokens = self.send(self.request(Method::GET, "tokens")).await?;
        Ok(table(&TOKEN_COLUMNS, &tokens).unwrap_or_else(|| "no tokens but the host's own".to_owned()))
    }

    pub async fn end_token(&self, name: &str) -> Result<String, ClientError> {
        let tokens = self.send(self.request(Method::GET, "tokens")).await?;
        let found = tokens["items"].as_array().into_iter().flatten().find(|token| token["name"] == name);
        let id = found.and_then(|token| token["id"].as_str()).ok_or_else(|| ClientError::NoSuchToken(name.to_owned()))?;
        self.send(self.request(Method::DELETE, &format!("tokens/{id}"))).await?;
        Ok(format!("{name} is ended"))
    }

    pub async fn audit(&self) -> Result<String, ClientError> {
        let entries = self.send(self.request(Method::GET, "audit?limit=200")).await?;
        Ok(table(&AUDIT_COLUMNS, &entries).unwrap_or_else(|| "nothing yet".to_owned()))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/admin/v1/{path}", self.base)).bearer_auth(&self.token)
    }

    /// The answer's document; null for none.
    async fn send(&self, request: RequestBuilder) -> Result<Value, ClientError> {
        let unreachable = |error: reqwest::Error| ClientError::Unreachable { address: self.base.clone(), reason: innermost(&error) };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        if !status.is_success() {
            return Err(ClientError::Refused(problem(status, &body)));
        }
        Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

/// A host's readiness: `up` or `degraded`. The host is asked at `url`, or found by its data folder.
/// Errors: it does not answer or is down until `wait` is over.
pub async fn ready(url: Option<&str>, data: &Path, wait: Duration) -> Result<String, ClientError> {
    let until = Instant::now() + wait;
    loop {
        let answer = ask_ready(url, data).await;
        if answer.is_ok() || Instant::now() >= until {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(limits::READY_PAUSE_MS)).await;
    }
}

async fn ask_ready(url: Option<&str>, data: &Path) -> Result<String, ClientError> {
    let url = match url {
        Some(url) => url.to_owned(),
        None => {
            let addresses = Addresses::read(data)?;
            // The certificate is for the name that clients use, which a request from this machine does not have.
            format!("http://{}", if addresses.tls { addresses.admin } else { addresses.public })
        }
    };
    // Readiness is public, so no token is sent.
    let AdminClient { base: address, http, .. } = AdminClient::new(&url, "")?;
    let request = http.get(format!("{address}/ready")).timeout(Duration::from_millis(limits::READY_ANSWER_MS));
    let unreachable = |error: reqwest::Error| ClientError::Unreachable { address: address.clone(), reason: innermost(&error) };
    let response = request.send().await.map_err(unreachable)?;
    let is_good = response.status().is_success();
    let report: Value = serde_json::from_slice(&response.bytes().await.map_err(unreachable)?).unwrap_or_default();
    match report["status"].as_str() {
        Some(status) if is_good => Ok(status.to_owned()),
        status => Err(ClientError::NotReady { status: status.unwrap_or("no Echo").to_owned(), address }),
    }
}

/// Reads a packed file. Errors: it is larger than a host accepts.
pub fn read_packed(path: &Path) -> Result<Vec<u8>, ClientError> {
    let failed = |reason: String| ClientError::File { path: path.to_owned(), reason };
    let length = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if length > limits::PLUGIN_BYTES_MAX as u64 {
        return Err(failed(format!("{length} bytes; at most {} are taken", limits::PLUGIN_BYTES_MAX)));
    }
    std::fs::read(path).map_err(|error| failed(error.to_string()))
}

fn problem(status: StatusCode, body: &[u8]) -> Problem {
    let problem = serde_json::from_slice::<Problem>(body).unwrap_or_default();
    let title = if problem.title.is_empty() { status.canonical_reason().unwrap_or_default().to_owned() } else { problem.title };
    Problem { status: status.as_u16(), title, ..problem }
}

/// The innermost cause ("Connection refused"); the outer ones only repeat the address.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Text as it is, anything else as JSON.
fn line(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The plan, one line each, whether the host sends sentences or a document.
fn plan(plan: &Value) -> String {
    let lines: Vec<String> = match plan {
        Value::Null => Vec::new(),
        Value::Array(steps) => steps.iter().map(line).collect(),
        // Its changes have lines of their own.
        Value::Object(parts) => {
            parts.iter().filter(|(name, _)| *name != "changes").map(|(name, value)| format!("{name}: {}", line(value))).collect()
        }
        other => vec![line(other)],
    };
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

#[cfg(test)]
mod tests {
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
        assert!(
            error.contains("\n  wants --allow \"route-removed:GET /x\": it is gone\nnothing was changed\nit would be refused"),
            "{error}"
        );
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
        assert_eq!(client.list().await.unwrap(), "SERVICE  VERSION  ERRORS\nauth     0.1.0    0\nmessage  0.10.0   -");
        assert_eq!(client.list().await.unwrap(), "no services");
        assert_eq!(client.history(&message()).await.unwrap().lines().nth(1), Some("2026-01-31T12:00:00Z  deploy  0.1.0"));
        let back = "message 0.1.0 is live again\n  lost: GET /x is not there any more";
        assert_eq!(client.rollback(&message(), true).await.unwrap(), back);
        assert_eq!(host.asked.lock().last().unwrap(), "POST /admin/v1/plugins/message/rollback?force=true [Bearer secret] ");
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
}
