//! The operator API: a listener of its own, a bearer token, versions of the services, the queue, the connections. Knows no backends and
//! no wasmtime.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Json, Router};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::events::{Queue, QueueError};
use echo_capabilities::nodes::{Node, NodeReport, NodeState, Nodes, NodesError};
use echo_capabilities::operators::{OperatorsError, Scope};
use echo_edge::error_pages;
use echo_edge::problem::{self, ERROR_PAGES, Problem};
use echo_runtime::Runtime;
use echo_runtime::permissions::Grant;
use echo_runtime::swap::{Decisions, ServiceView, SwapError};
use echo_runtime::versions::HistoryEntry;

pub use access::Access;
use access::{Detail, Operator};
use body::Body;
use page::Page;

mod access;
mod body;
pub mod client;
mod console;
mod page;
mod tokens;

pub struct AdminState {
    pub runtime: Arc<Runtime>,
    pub queue: Arc<dyn Queue>,
    pub access: Access,
    /// Whether the service's circuit breaker is open.
    pub is_breaker_open: Box<dyn Fn(&ServiceName) -> bool + Send + Sync>,
    pub connections: Box<dyn Fn() -> Connections + Send + Sync>,
    pub nodes: Arc<dyn Nodes>,
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Copies all that the host keeps into this folder.
    pub back_up: BackUp,
    /// Reads the settings again and takes over those of routes.
    pub reload: ReloadSettings,
    /// The answer of the public listener to GET /ready.
    pub ready: Box<dyn Fn() -> BoxFuture<'static, Response> + Send + Sync>,
    /// Cancelled to begin the drain.
    pub shutdown: CancellationToken,
}

/// The sockets of this host.
pub struct Connections {
    pub count: u64,
    /// The first of them.
    pub items: Vec<serde_json::Value>,
}

/// What was copied, as it is answered; with the blobs or without.
pub type BackUp = Box<dyn Fn(PathBuf, bool) -> BoxFuture<'static, Result<serde_json::Value, BackupRefusal>> + Send + Sync>;

/// Why there is no backup, each with the reason in words.
#[derive(Debug)]
pub enum BackupRefusal {
    FolderNotEmpty(String),
    FolderInvalid(String),
    Failed(String),
}

/// Errors: all that is wrong with the settings, a sentence each; then nothing is changed.
pub type ReloadSettings = Box<dyn Fn() -> BoxFuture<'static, Result<Reloaded, Vec<String>>> + Send + Sync>;

/// What was taken over.
#[derive(Debug, Serialize)]
pub struct Reloaded {
    pub overrides: usize,
    pub prefixes: usize,
    /// Settings that differ from those that the host was started with, and are used after a restart.
    pub after_restart: Vec<String>,
}

pub fn router(state: AdminState) -> Router {
    let state = Arc::new(state);
    let metrics_only = Router::new().route("/metrics", get(metrics)).route("/admin/v1/tokens/current", get(tokens::current));
    let read = Router::new()
        .route("/admin/v1/plugins", get(list_plugins))
        .route("/admin/v1/plugins/{name}", get(show_plugin))
        .route("/admin/v1/plugins/{name}/history", get(history))
        .route("/admin/v1/plugins/{name}/versions/{version}", get(packed_version))
        .route("/admin/v1/queue", get(queue_state))
        .route("/admin/v1/queue/dead-letters", get(dead_letters))
        .route("/admin/v1/nodes", get(list_nodes))
        .route("/admin/v1/connections", get(connections))
        .route("/admin/v1/audit", get(tokens::audit));
    let deploy = Router::new()
        .route("/admin/v1/plugins/{name}/versions", post(add_version).layer(DefaultBodyLimit::max(limits::PLUGIN_BYTES_MAX)))
        .route("/admin/v1/plugins/{name}/versions/{version}", delete(remove_version))
        .route("/admin/v1/plugins/{name}/active", put(activate))
        .route("/admin/v1/plugins/{name}/rollback", post(roll_back));
    let admin = Router::new()
        .route("/admin/v1/queue/dead-letters/{id}", delete(drop_dead_letter))
        .route("/admin/v1/queue/dead-letters/{id}/replay", post(replay_letter))
        .route("/admin/v1/backup", post(back_up))
        .route("/admin/v1/reload", post(reload))
        .route("/admin/v1/drain", post(drain))
        .route("/admin/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/admin/v1/tokens/{id}", delete(tokens::end));
    let of_scope = [(Scope::Metrics, metrics_only), (Scope::Read, read), (Scope::Deploy, deploy), (Scope::Admin, admin)];
    let guarded = of_scope.into_iter().fold(Router::new(), |all, (scope, routes)| {
        all.merge(routes.route_layer(middleware::from_fn_with_state((state.clone(), scope), access::admit)))
    });
    guarded
        .route("/ready", get(ready))
        // Where the `type` of this side's failures leads to; it says nothing of the host.
        .route(ERROR_PAGES, get(error_page))
        .route(&format!("{ERROR_PAGES}/{{code}}"), get(error_page))
        .route(error_pages::STYLE, get(error_page))
        .merge(console::routes())
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "not_found", "The operator API has no such path.") })
        .layer(middleware::from_fn_with_state(state.clone(), access::own_site_only))
        .layer(middleware::from_fn(finish))
        .with_state(state)
}

/// Every failure is a problem with the request's id.
async fn finish(request: Request, next: Next) -> Response {
    let request_id = Uuid::now_v7().to_string();
    let mut response = problem::finish(next.run(request).await, Some(&request_id));
    response.headers_mut().insert("x-request-id", HeaderValue::from_str(&request_id).expect("hexadecimal and hyphens"));
    // A browser keeps nothing of it: tokens, users' ids, contents of events.
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn error_page(uri: Uri) -> Response {
    error_pages::answer(uri.path())
}

/// Needs no token, as on the public listener.
async fn ready(State(state): State<Arc<AdminState>>) -> Response {
    (state.ready)().await
}

async fn list_plugins(State(state): State<Arc<AdminState>>) -> Response {
    let items: Vec<_> = state.runtime.views().into_iter().map(|view| shown(&state, view)).collect();
    Json(json!({ "items": items, "next_cursor": null })).into_response()
}

async fn show_plugin(State(state): State<Arc<AdminState>>, Path(name): Path<String>) -> Result<Response, AdminError> {
    let views = state.runtime.views();
    let view = views.into_iter().find(|view| view.name == name).ok_or(SwapError::NoSuchService(name))?;
    Ok(Json(shown(&state, view)).into_response())
}

/// With the breaker's state, and the last change as the history shows it.
fn shown(state: &AdminState, view: ServiceView) -> serde_json::Value {
    let is_open = ServiceName::parse(&view.name).is_ok_and(|service| (state.is_breaker_open)(&service));
    let last_change = view.last_change.as_ref().map(history_item);
    let mut shown = serde_json::to_value(view).expect("strings and numbers always serialise");
    shown["breaker"] = json!(if is_open { "open" } else { "closed" });
    shown["last_change"] = json!(last_change);
    shown
}

/// `dry_run`, `force`, and any number of `allow` and `grant`.
struct Options {
    dry_run: bool,
    decisions: Decisions,
}

impl Options {
    /// Errors: an option that does not exist, because ignoring a misspelt `dry_run` would deploy.
    /// An import beyond what the permission map grants is granted by whoever may do everything.
    fn read(query: Vec<(String, String)>, operator: &Operator) -> Result<Self, AdminError> {
        let decisions = Decisions { operator: Some(operator.name.clone()), ..Decisions::default() };
        let mut options = Self { dry_run: false, decisions };
        for (name, value) in query {
            match (name.as_str(), value.as_str()) {
                ("allow", _) => drop(options.decisions.allow.insert(value)),
                ("grant", _) => {
                    operator.require(Scope::Admin).map_err(AdminError)?;
                    let grant = Grant::parse(&value)
                        .map_err(|error| AdminError(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "grant_invalid", error.to_string())))?;
                    options.decisions.grants.insert(grant);
                }
                ("dry_run", "true" | "false") => options.dry_run = value == "true",
                ("force", "true" | "false") => options.decisions.force = value == "true",
                _ => {
                    let detail = format!("{name}={value} is no option; there are dry_run=true, force=true, allow=NAME and grant=NAME.");
                    return Err(AdminError(Problem::new(StatusCode::BAD_REQUEST, "unknown_option", detail)));
                }
            }
        }
        Ok(options)
    }
}

async fn add_version(
    State(state): State<Arc<AdminState>>,
    Extension(operator): Extension<Operator>,
    Path(name): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    body: Bytes,
) -> Result<Response, AdminError> {
    let options = Options::read(query, &operator)?;
    let service = service_name(&name)?;
    let found = state.runtime.service_of(body.to_vec()).await?;
    if found != service {
        return Err(AdminError(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "wrong_service",
            format!("This file is a version of {found}, not of {service}."),
        )));
    }
    let staged = match options.dry_run {
        true => state.runtime.dry_run(body.to_vec(), &options.decisions).await?,
        false => state.runtime.stage(body.to_vec(), &options.decisions).await?,
    };
    let status = if options.dry_run { StatusCode::OK } else { StatusCode::CREATED };
    let detail = Detail(format!("{} {}", staged.version, staged.sha256));
    Ok((status, Extension(detail), Json(staged)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Activate {
    version: String,
}

async fn activate(
    State(state): State<Arc<AdminState>>,
    Extension(operator): Extension<Operator>,
    Path(name): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    Body(wanted): Body<Activate>,
) -> Result<Response, AdminError> {
    let decisions = Options::read(query, &operator)?.decisions;
    let activation = state.runtime.activate(&service_name(&name)?, &wanted.version, &decisions).await?;
    Ok((Extension(Detail(activation.version.clone())), Json(activation)).into_response())
}

async fn roll_back(
    State(state): State<Arc<AdminState>>,
    Extension(operator): Extension<Operator>,
    Path(name): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, AdminError> {
    let activation = state.runtime.rollback(&service_name(&name)?, &Options::read(query, &operator)?.decisions).await?;
    Ok((Extension(Detail(activation.version.clone())), Json(activation)).into_response())
}

async fn history(State(state): State<Arc<AdminState>>, Path(name): Path<String>) -> Result<Response, AdminError> {
    let entries = state.runtime.history(&service_name(&name)?)?;
    let items: Vec<_> = entries.iter().rev().map(history_item).collect();
    Ok(Json(json!({ "items": items, "next_cursor": null })).into_response())
}

fn history_item(entry: &HistoryEntry) -> serde_json::Value {
    json!({
        "at": shown_at(entry.at_us),
        "action": entry.action,
        "node": entry.node,
        "operator": entry.operator,
        "version": entry.version,
        "sha256": entry.sha256,
        "replaced": entry.replaced,
        "reason": entry.reason,
        "allowed": entry.allowed,
        "granted": entry.granted,
        "forced": entry.forced,
    })
}

/// RFC 3339. `at_us`: microseconds since 1970.
fn shown_at(at_us: u64) -> String {
    let at = jiff::Timestamp::from_microsecond(i64::try_from(at_us).unwrap_or(i64::MAX)).unwrap_or(jiff::Timestamp::MAX);
    format!("{at:.6}")
}

/// The packed file; `live` names the version that runs.
async fn packed_version(
    State(state): State<Arc<AdminState>>,
    Path((name, version)): Path<(String, String)>,
) -> Result<Response, AdminError> {
    let artifact = state.runtime.packed(&service_name(&name)?, &version).await?;
    Ok(([(header::CONTENT_TYPE, "application/wasm")], artifact.bytes.clone()).into_response())
}

async fn remove_version(
    State(state): State<Arc<AdminState>>,
    Path((name, version)): Path<(String, String)>,
) -> Result<Response, AdminError> {
    state.runtime.remove_version(&service_name(&name)?, &version).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn queue_state(State(state): State<Arc<AdminState>>) -> Result<Response, AdminError> {
    Ok(Json(json!({ "consumers": state.queue.state().await? })).into_response())
}

/// What the events say, texts of messages too, is shown to whoever may do everything; to others without it.
async fn dead_letters(
    State(state): State<Arc<AdminState>>,
    Extension(operator): Extension<Operator>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, AdminError> {
    let page = Page::read(&query, &["consumer"])?;
    let letters = state.queue.dead_letters(page.others.get("consumer").copied(), page.limit).await?;
    let may_see = operator.require(Scope::Admin).is_ok();
    let items: Vec<_> = letters
        .into_iter()
        .map(|letter| {
            let at = shown_at(letter.at_us);
            let mut item = serde_json::to_value(letter).expect("strings and numbers always serialise");
            item["at"] = json!(at);
            if !may_see {
                item["event"]["payload"] = json!(null);
            }
            item
        })
        .collect();
    Ok(Json(json!({ "items": items, "next_cursor": null })).into_response())
}

async fn replay_letter(State(state): State<Arc<AdminState>>, Path(id): Path<String>) -> Result<Response, AdminError> {
    state.queue.replay(&id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn drop_dead_letter(State(state): State<Arc<AdminState>>, Path(id): Path<String>) -> Result<Response, AdminError> {
    state.queue.drop_dead_letter(&id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn list_nodes(State(state): State<Arc<AdminState>>) -> Result<Response, AdminError> {
    let mut nodes = state.nodes.list().await?;
    if let Some(this) = nodes.iter_mut().find(|node| node.name == state.nodes.name()) {
        // As it is now, and not as it was said last.
        this.report = NodeReport { connections: (state.connections)().count, services: state.runtime.live_versions() };
    }
    let items: Vec<_> = nodes.iter().map(|node| node_item(node, state.nodes.name())).collect();
    Ok(Json(json!({ "items": items, "next_cursor": null })).into_response())
}

fn node_item(node: &Node, this: &str) -> serde_json::Value {
    let services = node.report.services.iter().map(|(name, live)| json!({ "name": name, "version": live.version, "sha256": live.sha256 }));
    json!({
        "name": node.name,
        "this": node.name == this,
        "state": node.state,
        "version": node.version,
        "advertise": node.advertise,
        "started_at": shown_at(node.started_at_us),
        "seen_ms_ago": node.seen_ms_ago,
        "connections": node.report.connections,
        "services": services.collect::<Vec<_>>(),
        "leases": node.leases,
    })
}

/// How many sockets each host has, and those of this one.
async fn connections(State(state): State<Arc<AdminState>>) -> Result<Response, AdminError> {
    let own = (state.connections)();
    let nodes = state.nodes.list().await?;
    let there = nodes.iter().filter(|node| node.state != NodeState::Away);
    let counts: Vec<_> = there
        .map(|node| {
            let count = if node.name == state.nodes.name() { own.count } else { node.report.connections };
            json!({ "node": node.name, "count": count })
        })
        .collect();
    Ok(Json(json!({ "nodes": counts, "items": own.items, "next_cursor": null })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupRequest {
    /// On the host's machine, from its root.
    folder: PathBuf,
    /// False: the databases, for a move to another engine.
    #[serde(default = "yes")]
    blobs: bool,
}

fn yes() -> bool {
    true
}

async fn back_up(State(state): State<Arc<AdminState>>, Body(request): Body<BackupRequest>) -> Result<Response, AdminError> {
    let report = (state.back_up)(request.folder, request.blobs).await.map_err(|refusal| {
        let (status, code, detail) = match refusal {
            BackupRefusal::FolderNotEmpty(detail) => (StatusCode::CONFLICT, "folder_not_empty", detail),
            BackupRefusal::FolderInvalid(detail) => (StatusCode::UNPROCESSABLE_ENTITY, "folder_invalid", detail),
            BackupRefusal::Failed(detail) => (StatusCode::SERVICE_UNAVAILABLE, "backup_failed", detail),
        };
        AdminError(Problem::new(status, code, detail))
    })?;
    Ok((StatusCode::CREATED, Json(report)).into_response())
}

async fn reload(State(state): State<Arc<AdminState>>) -> Result<Response, AdminError> {
    let reloaded = (state.reload)().await.map_err(|problems| {
        let detail = "The settings are not taken over, and nothing has changed.";
        let mut problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "settings_refused", detail);
        let refused = |detail| echo_contract::FieldError { field: "settings".to_owned(), code: "refused".to_owned(), detail };
        problem.errors = problems.into_iter().map(refused).collect();
        AdminError(problem)
    })?;
    Ok(Json(reloaded).into_response())
}

async fn drain(State(state): State<Arc<AdminState>>) -> Response {
    state.shutdown.cancel();
    (StatusCode::ACCEPTED, Json(json!({ "draining": true }))).into_response()
}

async fn metrics(State(state): State<Arc<AdminState>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (state.metrics)()).into_response()
}

fn service_name(name: &str) -> Result<ServiceName, AdminError> {
    ServiceName::parse(name).map_err(|_| SwapError::NoSuchService(name.to_owned()).into())
}

struct AdminError(Problem);

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl From<SwapError> for AdminError {
    fn from(error: SwapError) -> Self {
        let detail = error.to_string();
        let (status, code) = match &error {
            SwapError::Refused(refusal) => {
                // The reasons are in the problem's errors, so the detail does not repeat them.
                let detail = format!("The activation gate refuses it at its step {}.", refusal.gate.as_str());
                let mut problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "plugin_refused", detail);
                problem.errors = refusal
                    .reasons
                    .iter()
                    .map(|reason| echo_contract::FieldError {
                        field: refusal.gate.as_str().to_owned(),
                        code: "refused".to_owned(),
                        detail: reason.clone(),
                    })
                    .collect();
                return Self(problem);
            }
            SwapError::NoSuchService(_) => (StatusCode::NOT_FOUND, "no_such_service"),
            SwapError::NoSuchVersion { .. } => (StatusCode::NOT_FOUND, "no_such_version"),
            SwapError::NothingToRollBack(_) => (StatusCode::CONFLICT, "nothing_to_roll_back"),
            SwapError::GateHeld(_) => (StatusCode::CONFLICT, "deployment_under_way"),
            SwapError::Overtaken(_) => (StatusCode::CONFLICT, "overtaken"),
            SwapError::VersionIsLive(_) => (StatusCode::CONFLICT, "version_is_live"),
            SwapError::Unknown(_) => (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown"),
            SwapError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "version_store_failed"),
        };
        Self(Problem::new(status, code, detail))
    }
}

impl From<NodesError> for AdminError {
    fn from(error: NodesError) -> Self {
        Self(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "nodes_unavailable", error.to_string()))
    }
}

impl From<OperatorsError> for AdminError {
    fn from(error: OperatorsError) -> Self {
        let (status, code) = match error {
            OperatorsError::NameTaken(_) => (StatusCode::CONFLICT, "name_taken"),
            OperatorsError::Full(_) => (StatusCode::CONFLICT, "too_many_tokens"),
            OperatorsError::NoSuchToken(_) => (StatusCode::NOT_FOUND, "no_such_token"),
            OperatorsError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "operators_unavailable"),
        };
        Self(Problem::new(status, code, error.to_string()))
    }
}

impl From<QueueError> for AdminError {
    fn from(error: QueueError) -> Self {
        let (status, code) = match error {
            QueueError::Unavailable(_) | QueueError::Lost => (StatusCode::SERVICE_UNAVAILABLE, "queue_unavailable"),
            QueueError::Full { .. } => (StatusCode::SERVICE_UNAVAILABLE, "queue_full"),
            QueueError::NoSuchDeadLetter(_) => (StatusCode::NOT_FOUND, "no_such_dead_letter"),
        };
        Self(Problem::new(status, code, error.to_string()))
    }
}
