//! Named tokens of operators: made, listed, ended; and the record of what was done with them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{Detail, OPERATOR, Operator, SCRAPER};
use super::body::Body;
use super::page::Page;
use super::{AdminError, AdminState, shown_at};
use echo_base::limits;
use echo_capabilities::operators::{OperatorToken, OperatorsError, Scope, token_sha256};
use echo_edge::problem::Problem;

/// So that a token is known for one wherever it turns up.
const PREFIX: &str = "echo_op_";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    name: String,
    scopes: Vec<String>,
    /// Seconds; none for a token that is good until it is ended.
    expires_in: Option<u64>,
}

/// The only answer with the token in it.
pub(super) async fn create(
    State(state): State<Arc<AdminState>>,
    Extension(operator): Extension<Operator>,
    Body(new): Body<NewToken>,
) -> Result<Response, AdminError> {
    let name = checked_name(&new.name)?;
    let scopes = checked_scopes(&new.scopes)?;
    if new.expires_in.is_some_and(|seconds| seconds == 0 || seconds > limits::OPERATOR_TOKEN_TTL_MAX_S) {
        let detail = format!("1 to {} seconds", limits::OPERATOR_TOKEN_TTL_MAX_S);
        return Err(AdminError(Problem::invalid("expires_in", "out_of_range", detail)));
    }
    let text = format!("{PREFIX}{}", rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
    let token = OperatorToken {
        id: Uuid::now_v7(),
        name: name.to_owned(),
        scopes,
        sha256: token_sha256(&text),
        created_by: operator.name,
        created_at_us: now_us,
        expires_at_us: new.expires_in.map(|seconds| now_us + seconds * 1_000_000),
        used_at_us: None,
    };
    let mut made = item(&token);
    state.access.operators.create(token).await?;
    let detail = Detail(format!("made {name} with {}", new.scopes.join(", ")));
    made["token"] = json!(text);
    Ok((StatusCode::CREATED, Extension(detail), Json(made)).into_response())
}

/// The oldest first.
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
    Extension(operator): Extension<Operator>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, AdminError> {
    let page = Page::read(&query, &["cursor"])?;
    let scope = state.runtime.cursors().list("tokens", &operator.name);
    let after = page.cursor::<Uuid>(&scope)?;
    let mut tokens = state.access.operators.list().await?;
    // Identifiers are in the order of their making.
    tokens.sort_unstable_by_key(|token| token.id);
    tokens.retain(|token| after.is_none_or(|after| token.id > after));
    let has_more = tokens.len() > page.limit;
    tokens.truncate(page.limit);
    let next_cursor = tokens.last().filter(|_| has_more).map(|token| scope.seal(&token.id.to_string()));
    let items: Vec<_> = tokens.iter().map(item).collect();
    Ok(Json(json!({ "items": items, "next_cursor": next_cursor })).into_response())
}

/// Whose token this is, for the console and for whoever has several.
pub(super) async fn current(Extension(operator): Extension<Operator>) -> Response {
    Json(json!({ "name": operator.name, "scopes": operator.scopes })).into_response()
}

pub(super) async fn end(State(state): State<Arc<AdminState>>, Path(id): Path<String>) -> Result<Response, AdminError> {
    let unknown = |_| AdminError(Problem::new(StatusCode::NOT_FOUND, "no_such_token", "There is no token with this id."));
    let ended = state.access.operators.end(id.parse().map_err(unknown)?).await?;
    Ok((StatusCode::NO_CONTENT, Extension(Detail(format!("ended {}", ended.name)))).into_response())
}

/// Newest first.
pub(super) async fn audit(
    State(state): State<Arc<AdminState>>,
    Extension(operator): Extension<Operator>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, AdminError> {
    let page = Page::read(&query, &["cursor"])?;
    let scope = state.runtime.cursors().list("audit", &operator.name);
    let before = page.cursor::<u64>(&scope)?;
    // One more says whether there is a further page.
    let mut entries = state.access.operators.audit(before, page.limit + 1).await?;
    let has_more = entries.len() > page.limit;
    entries.truncate(page.limit);
    let next_cursor = entries.last().filter(|_| has_more).map(|entry| scope.seal(&entry.id.to_string()));
    let items = entries.iter().map(|entry| {
        json!({
            "at": shown_at(entry.at_us),
            "operator": entry.operator,
            "node": entry.node,
            "request": entry.request,
            "status": entry.status,
            "detail": entry.detail,
        })
    });
    Ok(Json(json!({ "items": items.collect::<Vec<_>>(), "next_cursor": next_cursor })).into_response())
}

fn item(token: &OperatorToken) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "scopes": token.scopes,
        "created_by": token.created_by,
        "created_at": shown_at(token.created_at_us),
        "expires_at": token.expires_at_us.map(shown_at),
        "used_at": token.used_at_us.map(shown_at),
    })
}

fn checked_name(name: &str) -> Result<&str, AdminError> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let begins_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if !begins_well || name.len() > limits::OPERATOR_NAME_BYTES_MAX || !name.bytes().all(is_good) {
        let detail =
            format!("1 to {} letters, digits, hyphens, dots and underscores, first a letter or a digit", limits::OPERATOR_NAME_BYTES_MAX);
        return Err(AdminError(Problem::invalid("name", "invalid_name", detail)));
    }
    // Whoever reads the record takes `Operator` for the host's own.
    if [OPERATOR, SCRAPER].iter().any(|own| own.eq_ignore_ascii_case(name)) {
        return Err(OperatorsError::NameTaken(name.to_owned()).into());
    }
    Ok(name)
}

/// Sorted, each once.
fn checked_scopes(scopes: &[String]) -> Result<Vec<Scope>, AdminError> {
    let known = format!("one or more of {}", Scope::ALL.map(Scope::as_str).join(", "));
    if scopes.is_empty() {
        return Err(AdminError(Problem::invalid("scopes", "required", known)));
    }
    let Some(mut found) = scopes.iter().map(|scope| Scope::parse(scope)).collect::<Option<Vec<_>>>() else {
        return Err(AdminError(Problem::invalid("scopes", "unknown_value", known)));
    };
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
