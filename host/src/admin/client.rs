//! The client of the operator API: finds a running host, sends requests, and prints the answers as text and tables.
//! Knows the API's paths and shapes, and nothing of how a host works.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use echo_base::limits;
use echo_base::names::ServiceName;

use table::{AUDIT_COLUMNS, HISTORY_COLUMNS, LIST_COLUMNS, TOKEN_COLUMNS, cell};
pub use table::{Column, table};

mod table;

/// All of them in one page.
const ALL_TOKENS: &str = "tokens?limit=100";
const _: () = assert!(limits::OPERATOR_TOKENS_MAX <= 100 && limits::OPERATOR_PAGE_MAX >= 100);

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
    #[error("{report}\nit would be refused without what is wanted above")]
    Unconfirmed { report: String, document: Value },
    /// The host refused.
    #[error("{0}")]
    Refused(Problem),
}

impl ClientError {
    /// Of the command: see `echod --help`.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Address(_) | Self::Name(_) | Self::NoToken(_) => 2,
            Self::Refused(_) | Self::Unconfirmed { .. } | Self::NoSuchToken(_) => 3,
            Self::NoHost(_) | Self::Unreachable { .. } | Self::NotReady { .. } => 4,
            Self::File { .. } => 1,
        }
    }
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

/// What is said of a token that was made.
pub struct NewToken {
    /// Its text alone, so that `$(echod token new …)` is the token; as JSON the host's answer.
    pub shown: String,
    /// For whoever reads along.
    pub hint: String,
}

/// One host's operator API.
pub struct AdminClient {
    base: String,
    token: String,
    http: reqwest::Client,
    /// Answers are given as the host's documents.
    is_json: bool,
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
        Ok(Self { base, token: token.to_owned(), http, is_json: false })
    }

    /// The same client, with answers as JSON or as text.
    pub fn with_json(self, is_json: bool) -> Self {
        Self { is_json, ..self }
    }

    fn shown(&self, answer: &Value, text: impl FnOnce() -> String) -> String {
        if self.is_json { format!("{answer:#}") } else { text() }
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
            if self.is_json && open.is_empty() {
                return Ok(format!("{uploaded:#}"));
            }
            return if open.is_empty() { Ok(report) } else { Err(ClientError::Unconfirmed { report, document: uploaded }) };
        }
        let activate = self.request(Method::PUT, &format!("plugins/{service}/active{}", query(""))).json(&json!({ "version": version }));
        let live = self.send(activate).await?;
        let both = json!({ "staged": uploaded, "live": live });
        Ok(self.shown(&both, || format!("{report}\n{service} {version} is live")))
    }

    /// The host writes it, into a folder on its own machine that is new or empty.
    pub async fn back_up(&self, folder: &Path) -> Result<String, ClientError> {
        let report = self.back_up_with(&json!({ "folder": folder })).await?;
        let number = |key: &str| report[key].as_u64().unwrap_or_default();
        Ok(self.shown(&report, || format!("{} files, {} bytes in {}", number("files"), number("bytes"), folder.display())))
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
        Ok(self.shown(&reloaded, || report))
    }

    pub async fn list(&self) -> Result<String, ClientError> {
        let services = self.send(self.request(Method::GET, "plugins")).await?;
        Ok(self.shown(&services, || table(&LIST_COLUMNS, &services).unwrap_or_else(|| "no services".to_owned())))
    }

    pub async fn history(&self, service: &ServiceName) -> Result<String, ClientError> {
        let history = self.send(self.request(Method::GET, &format!("plugins/{service}/history"))).await?;
        Ok(self.shown(&history, || table(&HISTORY_COLUMNS, &history).unwrap_or_else(|| format!("{service} has no history"))))
    }

    /// A kept version as it was packed, or the one that runs (`live`).
    pub async fn packed(&self, service: &ServiceName, version: &str) -> Result<Vec<u8>, ClientError> {
        let packed = self.bytes(self.request(Method::GET, &format!("plugins/{service}/versions/{version}"))).await?;
        Ok(packed.into())
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
        Ok(self.shown(&answer, || report))
    }

    pub async fn new_token(&self, name: &str, scopes: &[String], days: Option<u64>) -> Result<NewToken, ClientError> {
        let expires_in = days.map(|days| days * 24 * 60 * 60);
        let new = json!({ "name": name, "scopes": scopes, "expires_in": expires_in });
        let made = self.send(self.request(Method::POST, "tokens").json(&new)).await?;
        let until = made["expires_at"].as_str().map_or_else(|| "until it is ended".to_owned(), |at| format!("until {at}"));
        let hint = format!("keep it: it is not shown again. {name} has {}, {until}", cell(&made["scopes"]));
        Ok(NewToken { shown: self.shown(&made, || line(&made["token"])), hint })
    }

    pub async fn tokens(&self) -> Result<String, ClientError> {
        let tokens = self.send(self.request(Method::GET, ALL_TOKENS)).await?;
        Ok(self.shown(&tokens, || table(&TOKEN_COLUMNS, &tokens).unwrap_or_else(|| "no tokens but the host's own".to_owned())))
    }

    pub async fn end_token(&self, name: &str) -> Result<String, ClientError> {
        let tokens = self.send(self.request(Method::GET, ALL_TOKENS)).await?;
        let found = tokens["items"].as_array().into_iter().flatten().find(|token| token["name"] == name);
        let id = found.and_then(|token| token["id"].as_str()).ok_or_else(|| ClientError::NoSuchToken(name.to_owned()))?;
        self.send(self.request(Method::DELETE, &format!("tokens/{id}"))).await?;
        Ok(self.shown(&json!({ "ended": name }), || format!("{name} is ended")))
    }

    /// The newest `wanted` entries, page by page.
    pub async fn audit(&self, wanted: usize) -> Result<String, ClientError> {
        let (mut items, mut next) = (Vec::new(), Value::Null);
        while items.len() < wanted {
            let limit = (wanted - items.len()).min(limits::OPERATOR_PAGE_MAX);
            let cursor = next.as_str().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let mut page = self.send(self.request(Method::GET, &format!("audit?limit={limit}{cursor}"))).await?;
            items.extend(page["items"].as_array_mut().map(std::mem::take).unwrap_or_default());
            next = page["next_cursor"].take();
            if next.is_null() {
                break;
            }
        }
        let entries = json!({ "items": items, "next_cursor": next });
        Ok(self.shown(&entries, || table(&AUDIT_COLUMNS, &entries).unwrap_or_else(|| "nothing yet".to_owned())))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/admin/v1/{path}", self.base)).bearer_auth(&self.token)
    }

    /// The answer's document; null for none.
    async fn send(&self, request: RequestBuilder) -> Result<Value, ClientError> {
        Ok(serde_json::from_slice(&self.bytes(request).await?).unwrap_or(Value::Null))
    }

    async fn bytes(&self, request: RequestBuilder) -> Result<Bytes, ClientError> {
        let unreachable = |error: reqwest::Error| ClientError::Unreachable { address: self.base.clone(), reason: innermost(&error) };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        if !status.is_success() {
            return Err(ClientError::Refused(problem(status, &body)));
        }
        Ok(body)
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
mod tests;
