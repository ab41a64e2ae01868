//! Who calls: the bearer token of a request, and what a route's access rule says of its owner. No other header says who somebody is.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};

use super::problem::Problem;
use echo_capabilities::context::Caller;
use echo_capabilities::tokens::Tokens;
use echo_runtime::manifest::Access;

/// The caller, if the access rule lets one through.
///
/// A public route takes a good token's owner along and overlooks a bad one: who renews an expired token still sends it.
pub fn caller(access: &Access, tokens: &dyn Tokens, headers: &HeaderMap) -> Result<Option<Arc<Caller>>, Problem> {
    match access {
        Access::Public => Ok(bearer(headers).and_then(|token| tokens.verify(token).ok())),
        Access::User => required(tokens, headers).map(Some),
        Access::Role(role) => {
            let caller = required(tokens, headers)?;
            if caller.roles.contains(role) {
                Ok(Some(caller))
            } else {
                Err(Problem::new(StatusCode::FORBIDDEN, "role_required", format!("this wants the role {role}")))
            }
        }
    }
}

/// The owner of the request's token, or 401 with what is wrong with it.
pub fn required(tokens: &dyn Tokens, headers: &HeaderMap) -> Result<Arc<Caller>, Problem> {
    let token = bearer(headers).ok_or_else(Problem::token_missing)?;
    tokens.verify(token).map_err(Problem::from)
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

    fn check(access: &str, authorization: Option<&str>, expect: &str) {
        let access: Access = serde_json::from_value(access.into()).unwrap();
        let mut headers = HeaderMap::new();
        // Nothing but a token says who somebody is.
        headers.insert("x-user-id", "00000000-0000-0000-0000-000000000001".parse().unwrap());
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        let found = match caller(&access, &FakeTokens, &headers) {
            Ok(Some(caller)) => caller.device_id.clone(),
            Ok(None) => "nobody".to_owned(),
            Err(problem) => format!("{} {}", problem.status.as_u16(), problem.code),
        };
        assert_eq!(found, expect, "{access} {authorization:?}");
    }

    #[test]
    fn the_access_rule_decides() {
        check("public", None, "nobody");
        check("public", Some("Bearer alice"), "alice-phone");
        check("public", Some("Bearer expired"), "nobody");
        check("user", Some("bearer alice"), "alice-phone");
        check("user", None, "401 token_missing");
        check("user", Some("Basic YWxpY2U6cHc="), "401 token_missing");
        check("user", Some("Bearer "), "401 token_missing");
        check("user", Some("Bearer nonsense"), "401 token_invalid");
        check("user", Some("Bearer expired"), "401 token_expired");
        check("user", Some("Bearer revoked"), "401 token_revoked");
        check("user", Some("Bearer unavailable"), "503 tokens_unavailable");
        check("role:admin", Some("Bearer alice"), "403 role_required");
        check("role:admin", Some("Bearer admin"), "admin-phone");
        check("role:admin", None, "401 token_missing");
    }
}
