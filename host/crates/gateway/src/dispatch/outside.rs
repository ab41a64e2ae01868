//! A request below a prefix of an outside service: who calls, whether it may, and what a client learns where the target gives no answer.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, StatusCode, Version, request};

use super::body::{body_late, limited, too_large};
use super::changed_body::{self, Unchanged};
use super::{Gateway, refused};
use crate::identity;
use crate::outside::{Arrived, Failure, Outside, headers};
use crate::problem::Problem;
use crate::request::{RequestInfo, Served};
use crate::services::Services;
use echo_base::limits;
use echo_capabilities::tokens::TokenError;
use echo_edge::rates::Subject;
use echo_runtime::manifest::Access;

const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

impl<S: Services> Gateway<S> {
    pub(super) async fn answer_by_outside(
        &self,
        outside: Arc<Outside>,
        mut head: request::Parts,
        body: Body,
        info: Arc<RequestInfo>,
    ) -> Result<Response, Problem> {
        info.serve(Served::Outside(outside.clone()));
        headers::take_token_of_websocket(&mut head);
        let caller = self.caller(&outside.settings.access, &head.headers, &info).await?;
        let token = identity::bearer(&head.headers).map(str::to_owned);
        // A token of ours would let the target act as the caller, also one that cannot be looked at now.
        let keeps_authorization = outside.settings.access == Access::Public && self.holds_no_token(&head.headers).await;
        let limit = &outside.rate.limit;
        let user = caller.as_ref().map(|caller| caller.user_id);
        let subject = limit.subject_of(user, info.client_address);
        let allowance = self.rates.check(limit, outside.rate_counter, subject, info.received_at).await;
        if !allowance.is_allowed {
            return Ok(refused(&outside.settings.prefix, &outside.rate, allowance));
        }
        // From here on the prefix's own times hold.
        info.streams();
        let version = head.version;
        let client = user.map_or_else(|| Subject::of_address(info.client_address), Subject::User);
        let mut body = limited(&head.headers, body, limits::OUTSIDE_BODY_BYTES_MAX)?;
        let mut held = self.in_flight.hold(Subject::of_address(info.client_address), user.map(Subject::User));
        if let Some(changes) = &outside.request_fields {
            let changed = changed_body::request(&mut head.headers, body, changes, &mut held);
            body = tokio::time::timeout(outside.settings.timeout, changed).await.map_err(|_| body_late(version))??;
        }
        if outside.response_fields.is_some() && !headers::wants_websocket(&head) {
            changed_body::ask_for_whole(&mut head.headers);
        }
        let arrived = Arrived {
            body,
            head,
            request_id: info.request_id.clone(),
            correlation_id: info.correlation_id.clone(),
            address: info.client_address,
            scheme: if self.live.settings.is_encrypted { "https" } else { "http" },
            is_head: info.is_head,
            ends_with_slash: info.ends_with_slash,
            caller,
            token,
            keeps_authorization,
            client_number: self.hasher.hash_one(client),
        };
        let answered = outside.forward(&self.live.outside_client, &self.tokens, &self.ending, arrived).await;
        let answered = match (answered, &outside.response_fields) {
            (Ok(answer), Some(changes)) => {
                let changed = changed_body::answer(answer, changes, info.is_head, outside.settings.timeout, &mut held).await;
                changed.map_err(|unchanged| {
                    let (prefix, request_id) = (&*outside.settings.prefix, &*info.request_id);
                    tracing::warn!(prefix, request_id, reason = ?unchanged, "an outside service's answer could not be given its fields");
                    problem_of_unchanged(unchanged, version)
                })
            }
            (answered, _) => answered.map_err(|failure| problem_of(failure, version)),
        };
        let mut response = answered.unwrap_or_else(Problem::into_response);
        outside.rate.write_headers(&allowance, response.headers_mut());
        Ok(response)
    }

    /// No word of `Authorization` is a token of this host's, whatever stands around it. Where there are more words than anybody writes, nobody looks.
    async fn holds_no_token(&self, headers: &HeaderMap) -> bool {
        let mut words_left = limits::OUTSIDE_AUTHORIZATION_WORDS_MAX;
        for value in headers.get_all(AUTHORIZATION) {
            let Ok(text) = value.to_str() else { return false };
            for word in text.split(|c: char| c.is_whitespace() || ",;=\"'".contains(c)).filter(|word| !word.is_empty()) {
                if words_left == 0 || !matches!(self.tokens.verify(word).await, Err(TokenError::Invalid)) {
                    return false;
                }
                words_left -= 1;
            }
        }
        true
    }
}

fn problem_of_unchanged(unchanged: Unchanged, version: Version) -> Problem {
    let unreadable = |detail: String| Problem::new(StatusCode::BAD_GATEWAY, "outside_unreadable", detail);
    match unchanged {
        Unchanged::TooLarge => {
            let most = limits::OUTSIDE_CHANGED_BODY_BYTES_MAX;
            unreadable(format!("the answer of the service behind this path is larger than {most} bytes, and its fields cannot be changed"))
        }
        Unchanged::Encoded => unreadable("the answer of the service behind this path is not whole or compressed".to_owned()),
        Unchanged::Unreadable => unreadable("the answer of the service behind this path is not the JSON that is expected".to_owned()),
        Unchanged::Broken => problem_of(Failure::Broken, version),
        Unchanged::TimedOut => problem_of(Failure::TimedOut, version),
        Unchanged::NoRoom(full) => full.into(),
    }
}

fn problem_of(failure: Failure, version: Version) -> Problem {
    let again = Duration::from_secs(1);
    match failure {
        Failure::MethodNotAllowed => Problem::method_not_allowed(&ALLOW),
        Failure::PathRefused => Problem::new(StatusCode::BAD_REQUEST, "unreadable", "the path has parts that lead out of it"),
        Failure::Loop => Problem::new(StatusCode::LOOP_DETECTED, "outside_loop", ""),
        Failure::Busy => Problem::unavailable("outside_busy", "as many requests as may are with the service behind this path", again),
        Failure::CircuitOpen(wait) => {
            Problem::unavailable("circuit_open", "the circuit breaker is open: too many requests to this service failed", wait)
        }
        Failure::Unreachable => Problem::unavailable("outside_unreachable", "the service behind this path cannot be reached now", again),
        Failure::Broken => Problem::new(StatusCode::BAD_GATEWAY, "outside_failed", ""),
        Failure::TimedOut => {
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "outside_timed_out", "the service behind this path did not answer in time")
        }
        Failure::ClientLate => body_late(version),
        Failure::ClientBroken => Problem::new(StatusCode::BAD_REQUEST, "unreadable", "the request's body broke off"),
        Failure::TooLarge => too_large(),
    }
}
