//! Headers that the operator sets, removes and renames, and which of them are not the operator's to change. Knows no HTTP library.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use echo_base::limits;

/// In the order of what happens: removed, renamed, set. Names in any case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderChanges {
    pub remove: Vec<String>,
    /// From what comes to what goes on. Where the new name is there already, the renamed one takes its place.
    pub rename: BTreeMap<String, String>,
    pub set: BTreeMap<String, String>,
}

/// Whose headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadersOf<'a> {
    /// A request on its way to a function; and its route's method.
    ServiceRequest {
        method: &'a str,
    },
    ServiceResponse,
    OutsideRequest,
    OutsideResponse,
}

/// One thing that happens to a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Remove,
    RenameFrom,
    RenameTo,
    Set,
}

type Refusal = (&'static [&'static str], &'static str);

const HOP_BY_HOP: Refusal = (
    &[
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "expect",
    ],
    "it concerns one connection (RFC 9110 section 7.6.1)",
);
const OF_THE_BODY: Refusal = (
    &["content-length", "content-type", "content-encoding", "content-range", "content-digest", "repr-digest", "digest", "content-md5"],
    "it says what the body is, and is written by whoever makes that",
);
const OF_THE_GATEWAY: Refusal = (
    &["x-request-id", "x-correlation-id", "traceparent", "tracestate", "via", "date", "alt-svc", "strict-transport-security"],
    "the gateway writes it",
);
const OF_THE_CALLER: Refusal = (
    &[
        "host",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-prefix",
        "x-real-ip",
        "x-user-id",
        "x-device-id",
        "x-session-id",
        "x-user-roles",
        "signature",
        "signature-input",
    ],
    "it says who calls, which the gateway alone may say",
);
const CREDENTIALS: Refusal =
    (&["authorization", "www-authenticate"], "it is by this that callers are known; an outside service knows them by identity_key");
const CONDITIONS: Refusal = (
    &["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "range"],
    "the client asks by it for what it has not yet: changed, its answer would be another one's",
);
const VALIDATORS: Refusal = (&["etag", "last-modified", "accept-ranges", "vary"], "caches decide by it whether the body is still good");

impl HeaderChanges {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.rename.is_empty() && self.set.is_empty()
    }

    /// A sentence for everything that is wrong.
    pub fn problems(&self, of: HeadersOf<'_>) -> Vec<String> {
        let mut problems = Vec::new();
        if self.remove.len() + self.rename.len() + self.set.len() > limits::HEADER_CHANGES_MAX {
            problems.push(format!("at most {} headers", limits::HEADER_CHANGES_MAX));
        }
        let removed = self.remove.iter().map(|name| (Act::Remove, name));
        let renamed = self.rename.iter().flat_map(|(from, to)| [(Act::RenameFrom, from), (Act::RenameTo, to)]);
        let set = self.set.keys().map(|name| (Act::Set, name));
        // What a header comes as, and what goes on: each may be changed once.
        let (mut taken, mut made) = (BTreeSet::new(), BTreeSet::new());
        for (act, written) in removed.chain(renamed).chain(set) {
            let name = written.to_ascii_lowercase();
            if !is_token(&name) {
                problems.push(format!("{written:?} is no header's name"));
            } else if let Some(reason) = refusal(act, &name, of) {
                problems.push(format!("{} {written}: {reason}", act.verb()));
            } else {
                let (others, is_taken) = match act {
                    Act::Remove | Act::RenameFrom => (&mut taken, true),
                    Act::RenameTo | Act::Set => (&mut made, false),
                };
                if !others.insert(name) {
                    let what = if is_taken { "is removed or renamed twice" } else { "would come from two places" };
                    problems.push(format!("{written} {what}"));
                }
            }
        }
        for name in self.remove.iter().map(|name| name.to_ascii_lowercase()).filter(|name| made.contains(name)) {
            problems.push(format!("{name} is removed, and set or renamed to: setting it takes the place of what is there"));
        }
        for (from, to) in self.rename.iter().filter(|(from, to)| from.eq_ignore_ascii_case(to)) {
            problems.push(format!("rename {from}: {to} is the same name"));
        }
        for (name, value) in &self.set {
            let is_value = value.len() <= limits::HEADER_CHANGE_BYTES_MAX
                && value.trim() == value
                && value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
            if !is_value {
                let most = limits::HEADER_CHANGE_BYTES_MAX;
                problems.push(format!("set {name}: a value is printable ASCII of at most {most} bytes, without spaces around it"));
            }
        }
        problems
    }
}

impl Act {
    fn verb(self) -> &'static str {
        match self {
            Act::Remove => "remove",
            Act::RenameFrom | Act::RenameTo => "rename",
            Act::Set => "set",
        }
    }

    fn makes(self) -> bool {
        matches!(self, Act::RenameTo | Act::Set)
    }
}

/// Why this may not happen to this header.
fn refusal(act: Act, name: &str, of: HeadersOf<'_>) -> Option<String> {
    // Some servers take `X_User_Id` for `X-User-ID`.
    let name = &*name.replace('_', "-");
    let in_list = |(names, reason): Refusal| names.contains(&name).then(|| reason.to_owned());
    let is_request = matches!(of, HeadersOf::ServiceRequest { .. } | HeadersOf::OutsideRequest);
    let of_both = [HOP_BY_HOP, OF_THE_BODY, OF_THE_GATEWAY, CREDENTIALS].into_iter().find_map(in_list);
    if of_both.is_some() {
        return of_both;
    }
    if name.starts_with("sec-websocket-") {
        return Some(HOP_BY_HOP.1.to_owned());
    }
    if name == "idempotent-replayed"
        || (name == "idempotency-key" && !matches!((of, act), (HeadersOf::ServiceRequest { .. }, Act::RenameTo)))
    {
        return Some("a request that is repeated is known by it".to_owned());
    }
    if is_request {
        if let Some(reason) = [OF_THE_CALLER, CONDITIONS].into_iter().find_map(in_list) {
            return Some(reason);
        }
        if name == "cookie" && act != Act::Remove {
            return Some("a cookie is one person's: it can be removed".to_owned());
        }
        return match of {
            HeadersOf::ServiceRequest { method } => unseen(act, name, method),
            _ => None,
        };
    }
    if let Some(reason) = in_list(VALIDATORS) {
        return Some(reason);
    }
    if name == "set-cookie" && (act != Act::Remove) {
        return Some("a cookie is one person's, and this would be everybody's: it can be removed".to_owned());
    }
    if name.starts_with("access-control-") {
        return Some("server.allowed_origins decides which pages may read an answer".to_owned());
    }
    if matches!(name, "ratelimit" | "ratelimit-policy" | "retry-after") || name.starts_with("x-ratelimit-") {
        return act.makes().then(|| OF_THE_GATEWAY.1.to_owned());
    }
    if matches!(name, "location" | "allow") {
        return Some("clients follow it: the gateway writes it as it is found here".to_owned());
    }
    const PROTECTING: [&str; 7] = [
        "x-content-type-options",
        "x-frame-options",
        "referrer-policy",
        "cross-origin-resource-policy",
        "content-security-policy",
        "cache-control",
        "content-disposition",
    ];
    if PROTECTING.contains(&name) && matches!(act, Act::Remove | Act::RenameFrom) {
        return Some("it protects who reads the answer: it can be set, not taken away".to_owned());
    }
    if of == HeadersOf::ServiceResponse && matches!(name, "cache-control" | "content-disposition" | "x-content-type-options") {
        return Some("the gateway writes it: cache says how long an answer is good".to_owned());
    }
    if name == "x-content-type-options" {
        return Some(OF_THE_GATEWAY.1.to_owned());
    }
    None
}

/// A service has no headers: of a request it knows the client's program, and the gateway a key for repeating it.
fn unseen(act: Act, name: &str, method: &str) -> Option<String> {
    match (name, act) {
        ("user-agent", _) | (_, Act::RenameFrom) => None,
        ("idempotency-key", Act::RenameTo) if method == "POST" => None,
        ("idempotency-key", Act::RenameTo) => Some("it is for POST".to_owned()),
        _ => Some("it has no effect: of a request's headers a service sees User-Agent alone".to_owned()),
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: HeadersOf<'static> = HeadersOf::ServiceRequest { method: "GET" };

    fn check(of: HeadersOf<'_>, text: &str, expect: &str) {
        let changes: HeaderChanges = toml::from_str(text).unwrap();
        let said = changes.problems(of).join("; ");
        assert!(if expect.is_empty() { said.is_empty() } else { said.contains(expect) }, "{of:?} {text}: {said:?}");
    }

    #[test]
    fn what_is_not_the_operators_to_change_is_refused_with_the_reason() {
        let requests = [HeadersOf::ServiceRequest { method: "POST" }, HeadersOf::OutsideRequest];
        let responses = [HeadersOf::ServiceResponse, HeadersOf::OutsideResponse];
        for of in requests.into_iter().chain(responses) {
            for (name, expect) in [
                ("Connection", "one connection"),
                ("transfer-encoding", "one connection"),
                ("Sec-WebSocket-Protocol", "one connection"),
                ("Content-Length", "what the body is"),
                ("Content-Type", "what the body is"),
                ("Authorization", "callers are known"),
                ("X-Request-ID", "the gateway writes it"),
                ("Idempotent-Replayed", "repeated"),
            ] {
                check(of, &format!("set = {{ \"{name}\" = \"x\" }}"), expect);
                check(of, &format!("remove = [\"{name}\"]"), expect);
                check(of, &format!("rename = {{ \"{name}\" = \"X-Other\" }}"), expect);
                check(of, &format!("rename = {{ \"X-Other\" = \"{name}\" }}"), expect);
            }
        }
        for of in requests {
            check(of, "set = { \"X-User-ID\" = \"x\" }", "who calls");
            check(of, "rename = { \"X-Mine\" = \"x_user_id\" }", "who calls");
            check(of, "remove = [\"X-Forwarded-For\"]", "who calls");
            check(of, "set = { If-None-Match = \"*\" }", "has not yet");
            check(of, "set = { Cookie = \"a=b\" }", "one person's");
            check(of, "set = { Idempotency-Key = \"a\" }", "repeated");
            check(of, "remove = [\"Idempotency-Key\"]", "repeated");
        }
        for of in responses {
            check(of, "set = { Set-Cookie = \"a=b\" }", "everybody's");
            check(of, "remove = [\"Set-Cookie\"]", "");
            check(of, "set = { Access-Control-Allow-Origin = \"*\" }", "server.allowed_origins");
            check(of, "set = { ETag = \"x\" }", "caches decide");
            check(of, "remove = [\"X-Frame-Options\"]", "it can be set");
            check(of, "set = { X-Frame-Options = \"SAMEORIGIN\" }", "");
            check(of, "set = { X-RateLimit-Limit = \"1\" }", "the gateway writes it");
            check(of, "rename = { X-RateLimit-Limit = \"X-Limit\" }", "");
        }
        check(HeadersOf::ServiceResponse, "set = { Cache-Control = \"public\" }", "cache says");
        check(HeadersOf::OutsideResponse, "set = { Cache-Control = \"no-store\" }", "");
    }

    #[test]
    fn of_a_service_only_that_is_changed_which_it_sees() {
        check(SERVICE, "set = { X-Team = \"a\" }", "no effect");
        check(SERVICE, "remove = [\"X-Team\"]", "no effect");
        check(SERVICE, "rename = { X-Client = \"X-Team\" }", "no effect");
        check(SERVICE, "rename = { X-Client = \"User-Agent\" }", "");
        check(SERVICE, "set = { User-Agent = \"a client\" }", "");
        check(SERVICE, "rename = { X-Once = \"Idempotency-Key\" }", "it is for POST");
        check(HeadersOf::ServiceRequest { method: "POST" }, "rename = { X-Once = \"Idempotency-Key\" }", "");
        check(HeadersOf::OutsideRequest, "set = { X-Team = \"a\" }", "");
    }

    #[test]
    fn a_header_comes_from_one_place_and_goes_to_one() {
        let of = HeadersOf::OutsideRequest;
        check(of, "rename = { X-A = \"X-C\", X-B = \"x-c\" }", "two places");
        check(of, "rename = { X-A = \"X-C\" }\nset = { X-C = \"1\" }", "two places");
        check(of, "rename = { X-A = \"X-B\" }\nremove = [\"x-a\"]", "twice");
        check(of, "set = { X-A = \"1\" }\nremove = [\"x-a\"]", "is removed, and set");
        check(of, "rename = { X-A = \"x-a\" }", "the same name");
        check(of, "rename = { X-A = \"X-B\", X-B = \"X-A\" }", "");
        check(of, "set = { \"X A\" = \"1\" }", "no header's name");
        check(of, "set = { X-A = \" 1\" }", "printable");
        check(of, "set = { X-A = \"1\\r\\nX-B: 2\" }", "printable");
    }
}
