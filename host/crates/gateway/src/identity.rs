//! Authentication and access: the bearer token of a request, checked, and the route's access rule. No other header identifies a caller.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};

use super::problem::Problem;
use echo_capabilities::context::Caller;
use echo_capabilities::tokens::Tokens;
use echo_runtime::manifest::Access;

/// The caller, if the access rule lets one through.
///
/// A public route passes the owner of a valid token on to the service, and ignores an invalid one: a client that renews an expired token still sends it.
pub async fn caller(access: &Access, tokens: &dyn Tokens, headers: &HeaderMap) -> Result<Option<Arc<Caller>>, Problem> {
    match access {
        Access::Public => match bearer(headers) {
            Some(token) => Ok(tokens.verify(token).await.ok()),
            None => Ok(None),
        },
        Access::User => required(tokens, headers).await.map(Some),
        Access::Role(role) => {
            let caller = required(tokens, headers).await?;
            if caller.roles.contains(role) {
                Ok(Some(caller))
            } else {
                Err(Problem::new(StatusCode::FORBIDDEN, "role_required", format!("this wants the role {role}")))
            }
        }
    }
}

/// The owner of the request's token, or 401 with what is wrong with it.
pub async fn required(tokens: &dyn Tokens, headers: &HeaderMap) -> Result<Arc<Caller>, Problem> {
    let token = bearer(headers).ok_or_else(Problem::token_missing)?;
    tokens.verify(token).await.map_err(Problem::from)
}

/// The token of `Authorization: Bearer <token>` (RFC 6750; the scheme's letters in any case).
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::FakeTokens;

    async fn check(access: &str, authorization: Option<&str>, expect: &str) {
        let access: Access = serde_json::from_value(access.into()).unwrap();
        let mut headers = HeaderMap::new();
        // Only a token identifies a caller.
        headers.insert("x-user-id", "00000000-0000-0000-0000-000000000001".parse().unwrap());
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        let found = match caller(&access, &FakeTokens, &headers).await {
            Ok(Some(caller)) => caller.device_id.clone(),
            Ok(None) => "nobody".to_owned(),
            Err(problem) => format!("{} {}", problem.status.as_u16(), problem.code),
        };
        assert_eq!(found, expect, "{access} {authorization:?}");
    }

    #[tokio::test]
    async fn the_access_rule_decides() {
        check("public", None, "nobody").await;
        check("public", Some("Bearer alice"), "alice-phone").await;
        check("public", Some("Bearer expired"), "nobody").await;
        check("user", Some("bearer alice"), "alice-phone").await;
        check("user", None, "401 token_missing").await;
        check("user", Some("Basic YWxpY2U6cHc="), "401 token_missing").await;
        check("user", Some("Bearer "), "401 token_missing").await;
        check("user", Some("Bearer nonsense"), "401 token_invalid").await;
        check("user", Some("Bearer expired"), "401 token_expired").await;
        check("user", Some("Bearer revoked"), "401 token_revoked").await;
        check("user", Some("Bearer unavailable"), "503 tokens_unavailable").await;
        check("role:admin", Some("Bearer alice"), "403 role_required").await;
        check("role:admin", Some("Bearer admin"), "admin-phone").await;
        check("role:admin", None, "401 token_missing").await;
    }
}
