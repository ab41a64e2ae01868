//! The rate-limit headers of an answer. The counting is in `echo_edge::rates`.

use std::fmt::{self, Write};

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::problem::whole_seconds;
use echo_edge::rates::{Allowance, Limit};
use echo_runtime::manifest::{Rate, RateSubject};

pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
pub const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// A limit with its headers made ready.
pub struct Rule {
    pub limit: Limit,
    policy: String,
    /// `"name";r=`
    state_begin: String,
}

impl Rule {
    pub fn new(rate: &Rate, scale: u32) -> Self {
        let limit = Limit::new(rate, scale);
        let name = match limit.subject {
            RateSubject::Ip => "ip",
            RateSubject::User => "user",
            RateSubject::Route => "route",
        };
        let policy = format!("\"{name}\";q={};w={}", limit.requests(), whole_seconds(limit.window()));
        Self { limit, policy, state_begin: format!("\"{name}\";r=") }
    }

    /// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers), and the older `X-RateLimit-*`.
    pub fn write_headers(&self, allowance: &Allowance, headers: &mut HeaderMap) {
        // A sliding window forgets nothing at once: all is there again after two of them at the latest, most of it after one, and no client expects
        // more than the window that the policy names. How long a refused one waits is exact.
        let reset = if allowance.is_allowed { allowance.reset.min(self.limit.window()) } else { allowance.reset };
        let (remaining, reset) = (allowance.remaining, whole_seconds(reset));
        // Most answers have them: all in one piece of memory, and none of it the rule's, whose handles all threads would count up and down.
        let mut texts = BytesMut::with_capacity(128);
        let mut insert = |name, value: fmt::Arguments<'_>| {
            texts.write_fmt(value).expect("it grows");
            headers.insert(name, HeaderValue::from_maybe_shared(texts.split().freeze()).expect("digits and a fixed name"));
        };
        insert(RATELIMIT_POLICY, format_args!("{}", self.policy));
        insert(RATELIMIT, format_args!("{}{remaining};t={reset}", self.state_begin));
        insert(X_RATELIMIT_LIMIT, format_args!("{}", self.limit.requests()));
        insert(X_RATELIMIT_REMAINING, format_args!("{remaining}"));
        insert(X_RATELIMIT_RESET, format_args!("{reset}"));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use echo_runtime::manifest::RateStrategy;

    #[test]
    fn the_policy_says_the_scaled_limit() {
        let rate = Rate { per: RateSubject::User, strategy: RateStrategy::FixedWindow, limit: 5, window: Duration::from_secs(60) };
        assert_eq!(Rule::new(&rate, 1_000).policy, "\"user\";q=5000;w=60");
    }

    #[test]
    fn what_is_left_is_said_for_one_window_at_most() {
        let rate = Rate { per: RateSubject::User, strategy: RateStrategy::SlidingWindow, limit: 5, window: Duration::from_secs(60) };
        let said = |is_allowed: bool, reset_s: u64| {
            let mut headers = HeaderMap::new();
            let allowance = Allowance { is_allowed, remaining: 4, reset: Duration::from_secs(reset_s) };
            Rule::new(&rate, 1).write_headers(&allowance, &mut headers);
            [RATELIMIT, X_RATELIMIT_RESET].map(|name| headers[name].to_str().unwrap().to_owned())
        };
        assert_eq!(said(true, 120), ["\"user\";r=4;t=60", "60"]);
        assert_eq!(said(true, 30), ["\"user\";r=4;t=30", "30"]);
        assert_eq!(said(false, 72), ["\"user\";r=4;t=72", "72"]);
    }
}
