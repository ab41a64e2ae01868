//! The host name of a request. In development mode only this machine's own names are served, against DNS rebinding: another site's page could else reach the
//! host by a name of its own that resolves to this machine, and the browser would take both for the same site.

use std::net::IpAddr;

use http::Request;
use http::header::HOST;
use http::uri::Authority;

/// Whether the request is for `localhost`, a name below it (RFC 6761), or a loopback address.
pub fn is_loopback<B>(request: &Request<B>) -> bool {
    // Of HTTP/2, or in the request line: it goes before the header (RFC 9112, section 3.2.2).
    if let Some(authority) = request.uri().authority() {
        return is_loopback_name(authority.host());
    }
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    header.and_then(|host| host.parse::<Authority>().ok()).is_some_and(|authority| is_loopback_name(authority.host()))
}

fn is_loopback_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name == "localhost" || name.ends_with(".localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_names_are_its_own() {
        let check = |host: &str, expect: bool| {
            let request = Request::builder().uri("/").header(HOST, host).body(()).unwrap();
            assert_eq!(is_loopback(&request), expect, "{host}");
        };
        for own in ["localhost", "LOCALHOST:8080", "localhost.", "echo.localhost:80", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "[::1]"]
        {
            check(own, true);
        }
        for foreign in
            ["evil.example", "localhost.evil.example", "evillocalhost", "192.168.0.7:8080", "[2001:db8::1]", "127.0.0.1.nip.io", ""]
        {
            check(foreign, false);
        }
        let with = |uri: &str, host: &str| is_loopback(&Request::builder().uri(uri).header(HOST, host).body(()).unwrap());
        assert!(with("http://localhost/", "evil.example") && !with("http://evil.example/", "localhost"), "the request line goes first");
        assert!(!is_loopback(&Request::new(())), "who says nothing is not known to be here");
    }
}
