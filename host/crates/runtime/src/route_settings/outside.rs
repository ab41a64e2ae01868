//! Prefixes whose requests go to an outside service: the `target` of a `[[gateway.prefixes]]`. Says what is wrong with one. Knows no HTTP client.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Access, AddedPrefix, HeaderChanges, HeadersOf, Rate, Span, named};
use echo_base::limits;
use echo_contract::changes::FieldChanges;

/// A prefix with a target, with all that has a default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct OutsidePrefix {
    /// `/first/second`, without a slash at its end.
    pub prefix: String,
    /// `https` or `http`.
    pub scheme: &'static str,
    /// Host, and port where one is written.
    pub authority: String,
    /// What the target's paths begin with; empty or `/first/second`.
    pub base: String,
    pub access: Access,
    pub rate: Rate,
    /// Until the answer's head, from the last byte of the request that was sent on.
    pub timeout: Duration,
    /// How long the target may send nothing of an answer, and both sides nothing on an upgraded connection.
    pub idle_timeout: Duration,
    /// The target is asked without the prefix.
    pub strips_prefix: bool,
    /// After the first attempt.
    pub retries: u32,
    pub identity_key: Option<IdentityKey>,
    /// A path of the target that answers GET with success while it is well.
    pub health: Option<String>,
    pub request_headers: HeaderChanges,
    pub response_headers: HeaderChanges,
    /// Of JSON bodies alone.
    pub request_fields: FieldChanges,
    pub response_fields: FieldChanges,
}

/// The key that signs who calls (RFC 9421). Neither shown nor written out.
#[derive(Clone, PartialEq, Eq)]
pub struct IdentityKey(String);

impl IdentityKey {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// While settings are read: where it stands, such as `env:NAME`. After that: the key.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Serialize for IdentityKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("")
    }
}

impl<'de> Deserialize<'de> for IdentityKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl AddedPrefix {
    /// None for a prefix of a service. Errors: what is wrong with it.
    pub fn outside(&self) -> Result<Option<OutsidePrefix>, String> {
        let Some(target) = &self.target else {
            return match (&self.service, self.first_of_outside()) {
                (None, _) => Err("give the service or the target that is found there".to_owned()),
                (Some(_), Some(option)) => Err(format!("{option} is for a prefix with a target")),
                (Some(_), None) => Ok(None),
            };
        };
        if self.service.is_some() {
            return Err("give service or target, not both".to_owned());
        }
        let (scheme, authority, base) = parts_of(target)?;
        let access = self.access.clone().ok_or("a target wants an access: public, user or role:NAME")?;
        let rate = self.rate.ok_or("a target wants a rate")?;
        rate.check()?;
        if access != Access::Public && self.identity_key.is_none() {
            return Err("a target that is not public wants an identity_key, by which it knows that the gateway says who calls".to_owned());
        }
        if self.identity_key.as_ref().is_some_and(|key| key.0.len() < limits::OUTSIDE_KEY_BYTES_MIN) {
            return Err(format!("identity_key must have {} bytes at least", limits::OUTSIDE_KEY_BYTES_MIN));
        }
        let within = |name: &str, span: Option<Span>, default_ms: u64| {
            let wanted = span.map_or(Duration::from_millis(default_ms), |Span(wanted)| wanted);
            let most = Duration::from_millis(limits::OUTSIDE_TIMEOUT_MS_MAX);
            let is_good = !wanted.is_zero() && wanted <= most;
            is_good.then_some(wanted).ok_or_else(|| format!("{name} must be above 0 and at most {}s", most.as_secs()))
        };
        let retries = self.retries.unwrap_or(limits::OUTSIDE_RETRIES);
        if retries > limits::OUTSIDE_RETRIES_MAX {
            return Err(format!("retries must be at most {}", limits::OUTSIDE_RETRIES_MAX));
        }
        if self.health.as_ref().is_some_and(|path| !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err("health must be a path of the target, such as /healthz".to_owned());
        }
        Ok(Some(OutsidePrefix {
            prefix: self.prefix.clone(),
            scheme,
            authority,
            base,
            access,
            rate,
            timeout: within("timeout", self.timeout, limits::OUTSIDE_TIMEOUT_MS)?,
            idle_timeout: within("idle_timeout", self.idle_timeout, limits::OUTSIDE_IDLE_MS)?,
            strips_prefix: self.strip_prefix.unwrap_or(true),
            retries,
            identity_key: self.identity_key.clone(),
            health: self.health.clone(),
            request_headers: self.request_headers.clone(),
            response_headers: self.response_headers.clone(),
            request_fields: self.request_fields.clone(),
            response_fields: self.response_fields.clone(),
        }))
    }

    pub(super) fn transformation_problems(&self) -> Vec<String> {
        let request = self.request_headers.problems(HeadersOf::OutsideRequest);
        let response = self.response_headers.problems(HeadersOf::OutsideResponse);
        named([request, response, self.request_fields.problems(), self.response_fields.problems()])
    }

    /// An option that only a target has.
    fn first_of_outside(&self) -> Option<&'static str> {
        let given = [
            ("rate", self.rate.is_some()),
            ("timeout", self.timeout.is_some()),
            ("idle_timeout", self.idle_timeout.is_some()),
            ("strip_prefix", self.strip_prefix.is_some()),
            ("retries", self.retries.is_some()),
            ("identity_key", self.identity_key.is_some()),
            ("health", self.health.is_some()),
            ("request_headers", !self.request_headers.is_empty()),
            ("response_headers", !self.response_headers.is_empty()),
            ("request_fields", !self.request_fields.is_empty()),
            ("response_fields", !self.response_fields.is_empty()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(name, _)| name)
    }
}

/// Scheme, authority and path. No user, no query, no fragment; the path without a slash at its end.
fn parts_of(target: &str) -> Result<(&'static str, String, String), String> {
    let wrong = || {
        format!(
            "target {target:?} must be such as \"http://10.0.0.5:8080\" or \"https://billing.internal/base\", without user, query and fragment"
        )
    };
    let (scheme, rest) = match target.split_once("://") {
        Some(("http", rest)) => ("http", rest),
        Some(("https", rest)) => ("https", rest),
        _ => return Err(wrong()),
    };
    let (authority, base) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (host, port) = match authority.rsplit_once(':') {
        // The last part of an IPv6 address, which ends in a bracket.
        Some((_, port)) if port.ends_with(']') => (authority, None),
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let is_name = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    let is_ipv6 =
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    let is_port = port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0));
    let base = base.trim_end_matches('/');
    let is_path = base.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte));
    let has_dots = base.split('/').any(|part| matches!(part, "." | ".."));
    if !(is_name || is_ipv6) || !is_port || !is_path || has_dots || base.contains("//") {
        return Err(wrong());
    }
    Ok((scheme, authority.to_owned(), base.to_owned()))
}
