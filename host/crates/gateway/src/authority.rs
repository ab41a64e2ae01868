//! The host that a request is for (RFC 9112 section 3.2, RFC 9113 section 8.3.1): taken from the target or `:authority` into `Host`, where the rest of the
//! gateway finds it in every version of HTTP.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::header::{CONNECTION, HOST};
use http::uri::Authority;
use http::{HeaderValue, StatusCode, Version};

use super::Problem;
use super::framing::AmbiguousLength;
use super::request::fresh_id;

/// Puts the authority of the request's target into `Host`. Errors: 400 without a host (but in HTTP/1.0), with two, or with a malformed one, and for a request
/// with two lengths: its end is uncertain, so its connection is closed.
pub(super) fn resolve_host(request: &mut Request) -> Result<(), Problem> {
    if request.extensions().get::<AmbiguousLength>().is_some() {
        let detail = "Content-Length and Transfer-Encoding both say how long the request is";
        let problem = Problem::new(StatusCode::BAD_REQUEST, "unreadable", detail);
        return Err(problem.with(CONNECTION, HeaderValue::from_static("close")));
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(bad("the request has more than one Host"));
    }
    if host.is_some_and(|host| !is_authority(host.as_bytes())) {
        return Err(bad("Host is no host with an optional port"));
    }
    // HTTP/2's `:authority`, or the absolute form: it is what counts.
    if let Some(target) = request.uri().authority() {
        if !is_authority(target.as_str().as_bytes()) {
            return Err(bad("the request's target is no host with an optional port"));
        }
        let is_same = host.map(|host| host.as_bytes().eq_ignore_ascii_case(target.as_str().as_bytes()));
        if request.version() == Version::HTTP_2 && is_same == Some(false) {
            return Err(bad("Host and :authority are not the same"));
        }
        if is_same != Some(true) {
            let target = HeaderValue::from_str(target.as_str()).map_err(|_| bad("the request's target is no host"))?;
            request.headers_mut().insert(HOST, target);
        }
    } else if host.is_none() && request.version() > Version::HTTP_10 {
        return Err(bad("the request has no Host"));
    }
    Ok(())
}

/// For the operator's side, which has no edge of the gateway's.
pub async fn check_host(mut request: Request, next: Next) -> Response {
    match resolve_host(&mut request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_full_response(Some(&fresh_id())),
    }
}

fn bad(detail: &'static str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_host", detail)
}

/// `uri-host [":" port]`, which for http is never empty (RFC 9110, section 4.2.1).
fn is_authority(text: &[u8]) -> bool {
    // Almost all are a plain name, and need no parser.
    let (name, port) = text.iter().position(|byte| *byte == b':').map_or((text, &[][..]), |at| (&text[..at], &text[at + 1..]));
    let is_plain = name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    if !name.is_empty() && is_plain && port.len() < 5 && port.iter().all(u8::is_ascii_digit) {
        return true;
    }
    let Ok(authority) = Authority::try_from(text) else { return false };
    let Some(port) = authority.as_str().strip_prefix(authority.host()) else { return false };
    !authority.host().is_empty() && port.strip_prefix(':').map_or(port.is_empty(), |port| port.is_empty() || port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn request(version: Version, target: &str, hosts: &[&[u8]]) -> Request {
        let mut request = Request::builder().version(version).uri(target).body(Body::empty()).unwrap();
        for host in hosts {
            request.headers_mut().append(HOST, HeaderValue::from_bytes(host).unwrap());
        }
        request
    }

    /// What `Host` says then; none for a refusal.
    fn check(version: Version, target: &str, hosts: &[&[u8]], expect: Option<&str>) {
        let mut request = request(version, target, hosts);
        let resolved = resolve_host(&mut request).ok().map(|()| request.headers().get(HOST).map_or("", |host| host.to_str().unwrap()));
        assert_eq!(resolved, expect, "{version:?} {target} {hosts:?}");
    }

    #[test]
    fn a_request_is_for_one_host() {
        for good in ["a", "echo.example", "127.0.0.1:8080", "[::1]", "[2001:db8::1]:443", "a_b.example:", "xn--bcher-kva.example"] {
            check(Version::HTTP_11, "/", &[good.as_bytes()], Some(good));
        }
        for wrong in
            ["", ":80", "a b", "a/b", "u@a", "u:p@a", "a:b", "a:65536", "a:-1", "a:8 ", "[::1", "::1", "a, b", "a?b", "a#b", "a\\b"]
        {
            check(Version::HTTP_11, "/", &[wrong.as_bytes()], None);
        }
        check(Version::HTTP_11, "/", &[b"\xff"], None);
        check(Version::HTTP_11, "/", &[], None);
        check(Version::HTTP_10, "/", &[], Some(""));
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            check(version, "/", &[b"a", b"a"], None);
        }
    }

    #[test]
    fn the_target_counts_more_than_the_header() {
        check(Version::HTTP_11, "http://a:80/x", &[b"b"], Some("a:80"));
        check(Version::HTTP_11, "http://a/x", &[], Some("a"));
        check(Version::HTTP_11, "http://u@a/x", &[b"a"], None);
        check(Version::HTTP_2, "http://a/x", &[], Some("a"));
        check(Version::HTTP_2, "http://a/x", &[b"A"], Some("A"));
        check(Version::HTTP_2, "http://a/x", &[b"b"], None);
        check(Version::HTTP_2, "/x", &[b"b"], Some("b"));
        check(Version::HTTP_2, "/x", &[], None);
    }
}
