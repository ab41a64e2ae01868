//! Who may do what at the operator's address: the name that it is reached by, the page that asks, the scope of the token. What changes something is
//! noted, with who did it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::AdminState;
use echo_base::limits;
use echo_capabilities::operators::{AuditEntry, Operators, Scope, token_sha256};
use echo_edge::problem::Problem;

/// The name of whoever has the token of the settings or the data folder, and of whoever has `server.metrics_token`. No other token may have them.
pub(super) const OPERATOR: &str = "operator";
pub(super) const SCRAPER: &str = "metrics";

pub struct Access {
    pub operators: Arc<dyn Operators>,
    /// Of this host, for the record.
    pub node: String,
    /// SHA-256 of the operator's token, so that comparing takes the same time for every guess.
    token_sha256: String,
    /// Of the token that opens `/metrics` alone, where there is one.
    metrics_token_sha256: Option<String>,
    /// By which the operator's address is reached, besides localhost and IP addresses; in lower case.
    names: Vec<String>,
}

/// Whose token came with the request.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub name: String,
    pub scopes: Vec<Scope>,
}

impl Operator {
    pub(super) fn scope(&self) -> Scope {
        self.scopes.iter().copied().max().unwrap_or(Scope::Metrics)
    }

    /// Errors: 403.
    pub(super) fn require(&self, wanted: Scope) -> Result<(), Problem> {
        if self.scope() >= wanted {
            return Ok(());
        }
        let detail = format!("This wants a token of scope {}; {} has {}.", wanted.as_str(), self.name, self.scope().as_str());
        Err(Problem::new(StatusCode::FORBIDDEN, "scope_missing", detail))
    }
}

/// What was done, where the request's target does not say it. A handler puts it into its response's extensions.
#[derive(Clone, Debug)]
pub(super) struct Detail(pub String);

impl Access {
    pub fn new(operators: Arc<dyn Operators>, node: String, token: &str, metrics_token: Option<&str>, names: &[String]) -> Self {
        Self {
            operators,
            node,
            token_sha256: token_sha256(token),
            metrics_token_sha256: metrics_token.map(token_sha256),
            names: names.iter().map(|name| name.to_ascii_lowercase()).collect(),
        }
    }

    async fn operator_of(&self, token: &str) -> Result<Operator, Problem> {
        let sha256 = token_sha256(token);
        let operator = |name: &str, scope| Operator { name: name.to_owned(), scopes: vec![scope] };
        if sha256 == self.token_sha256 {
            return Ok(operator(OPERATOR, Scope::Admin));
        }
        if self.metrics_token_sha256.as_ref() == Some(&sha256) {
            return Ok(operator(SCRAPER, Scope::Metrics));
        }
        match self.operators.find(&sha256).await {
            Ok(Some(token)) => Ok(Operator { name: token.name, scopes: token.scopes }),
            Ok(None) => Err(Problem::unauthenticated("token_invalid", "This is no operator's token, or one that has ended.")),
            Err(error) => Err(super::AdminError::from(error).0),
        }
    }

    /// Errors: 421 for a name that is not ours, 403 for another site's page. A name that leads here only for a page of its owner's (DNS rebinding) is not
    /// ours; an address cannot be made to lead elsewhere.
    fn check_site(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let name = host.parse::<Authority>().map(|authority| authority.host().to_ascii_lowercase()).unwrap_or_default();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        let is_local = name == "localhost" || name.ends_with(".localhost");
        // A request without a host is of HTTP/1.0, which no browser speaks.
        if !(host.is_empty() || is_address || is_local || self.names.iter().any(|own| own == name)) {
            let detail = format!(
                "The operator's side answers to IP addresses, localhost and the names in server.admin_names; {name} is none of them."
            );
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "host_not_served", detail));
        }
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
        if authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host)) {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "origin_refused", "Only this host's own console may call the operator API from a browser."))
    }

    async fn note(&self, operator: &Operator, request: String, status: u16, detail: String) {
        tracing::info!(operator = operator.name, request, status, detail, "an operator's request");
        let entry = AuditEntry {
            id: 0,
            at_us: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64),
            operator: operator.name.clone(),
            node: self.node.clone(),
            request,
            status,
            detail: cut(detail),
        };
        if let Err(error) = self.operators.note(entry).await {
            tracing::warn!(%error, "this request is in the log alone");
        }
    }
}

/// At most `OPERATOR_AUDIT_BYTES_MAX`.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(limits::OPERATOR_AUDIT_BYTES_MAX));
    text
}

pub(super) async fn own_site_only(State(state): State<Arc<AdminState>>, request: Request, next: Next) -> Response {
    match state.access.check_site(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Lets whoever has the scope through, and notes what changes something.
pub(super) async fn admit(State((state, wanted)): State<(Arc<AdminState>, Scope)>, mut request: Request, next: Next) -> Response {
    // The scheme's letters in any case (RFC 9110, section 11.1).
    let given = request.headers().get(AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let Some(token) = given else {
        return Problem::unauthenticated(
            "token_missing",
            "An operator's token is wanted as a bearer token. The host's own is in run/addresses.json of the data folder; `echod token new` makes others.",
        )
        .into_response();
    };
    let operator = match state.access.operator_of(token).await {
        Ok(operator) => operator,
        Err(problem) => return problem.into_response(),
    };
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    let asked = cut(format!("{} {}", request.method(), request.uri().path_and_query().map_or("", |target| target.as_str())));
    if let Err(problem) = operator.require(wanted) {
        // In the log alone: a token that opens nothing must not push what was done out of the record.
        tracing::warn!(operator = operator.name, request = asked, wanted = wanted.as_str(), "an operator's request was refused");
        return problem.into_response();
    }
    request.extensions_mut().insert(operator.clone());
    let response = next.run(request).await;
    if changes {
        let detail = response.extensions().get::<Detail>().map(|detail| detail.0.clone()).unwrap_or_default();
        state.access.note(&operator, asked, response.status().as_u16(), detail).await;
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use echo_capabilities::operators::files::FileOperators;

    #[test]
    fn a_name_that_is_not_ours_and_another_sites_page_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let operators = Arc::new(FileOperators::open(&folder.path().join("operators.json")).unwrap());
        let access = Access::new(operators, "one".to_owned(), "t", None, &["Echo-Admin.internal".to_owned()]);
        let check = |host: &str, origin: Option<&str>, expect: Result<(), u16>| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_str(host).unwrap());
            if let Some(origin) = origin {
                headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
            }
            let outcome = access.check_site(&headers).map_err(|problem| problem.status.as_u16());
            assert_eq!(outcome, expect, "{host} {origin:?}");
        };
        for own in
            ["127.0.0.1:9090", "[::1]:9090", "10.0.0.7:9090", "localhost:9090", "LOCALHOST.", "echo.localhost", "echo-admin.INTERNAL:9090"]
        {
            check(own, None, Ok(()));
            check(own, Some(&format!("http://{own}")), Ok(()));
            check(own, Some("https://evil.example"), Err(403));
        }
        check("127.0.0.1:9090", Some("null"), Err(403));
        check("127.0.0.1:9090", Some("http://127.0.0.1:8080"), Err(403));
        for foreign in ["evil.example:9090", "127.0.0.1.nip.io", "localhost.evil.example", "echo-admin.internal.evil.example"] {
            check(foreign, None, Err(421));
            check(foreign, Some(&format!("http://{foreign}")), Err(421));
        }
    }

    #[test]
    fn what_is_noted_is_bounded() {
        assert_eq!(cut("ä".repeat(limits::OPERATOR_AUDIT_BYTES_MAX)).len(), limits::OPERATOR_AUDIT_BYTES_MAX);
        assert_eq!(cut("short".to_owned()), "short");
    }
}
