//! Which headers pass between a client and an outside service (RFC 9110 section 7.6). What says who calls is the gateway's to write, and nobody else's.

use std::net::IpAddr;
use std::sync::LazyLock;

use http::header::{
    ALT_SVC, AUTHORIZATION, CONNECTION, COOKIE, HOST, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, request};

use crate::request::{X_CORRELATION_ID, X_REQUEST_ID, id_value};
use echo_capabilities::context::Caller;
use echo_runtime::route_settings::OutsidePrefix;

pub const X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");
pub const X_DEVICE_ID: HeaderName = HeaderName::from_static("x-device-id");
pub const X_SESSION_ID: HeaderName = HeaderName::from_static("x-session-id");
pub const X_USER_ROLES: HeaderName = HeaderName::from_static("x-user-roles");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// They concern one connection (section 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What a client may not say to a target; the gateway says some of it itself. `Expect` is answered by the gateway.
const OWN: [&str; 14] = [
    "x-user-id",
    "x-device-id",
    "x-session-id",
    "x-user-roles",
    "signature",
    "signature-input",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-prefix",
    "x-real-ip",
    "host",
    "expect",
];

/// This process, in `Via`.
static PSEUDONYM: LazyLock<String> = LazyLock::new(|| format!("echo-{:016x}", rand::random::<u64>()));

/// What is known of a client, besides what its request says.
pub struct Client<'a> {
    pub address: Option<IpAddr>,
    pub scheme: &'static str,
    pub request_id: &'a str,
    pub correlation_id: &'a str,
    pub caller: Option<&'a Caller>,
    /// Its `Authorization` is for the target.
    pub keeps_authorization: bool,
}

/// The headers of a request to the target.
pub fn for_target(own: &request::Parts, outside: &OutsidePrefix, client: &Client<'_>, upgrades: bool) -> HeaderMap {
    let mut headers = end_to_end(&own.headers);
    // Many servers take `X_User_Id` for `X-User-ID`: no header of a client may pass for one that is written here, or that the operator sets.
    let is_refused = |name: &HeaderName| OWN.contains(&name.as_str()) || name.as_str().contains('_');
    let refused: Vec<HeaderName> = headers.keys().filter(|name| is_refused(name)).cloned().collect();
    refused.iter().for_each(|name| drop(headers.remove(name)));
    if !client.keeps_authorization {
        headers.remove(AUTHORIZATION);
    }
    join_cookies(&mut headers);
    let mut write = |name: HeaderName, value: &str| {
        // What is no header's value is left out, and is then not signed either.
        headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
    };
    write(HOST, &outside.authority);
    client.address.iter().for_each(|address| write(X_FORWARDED_FOR, &address.to_string()));
    own.headers.get(HOST).and_then(|host| host.to_str().ok()).iter().for_each(|host| write(X_FORWARDED_HOST, host));
    write(X_FORWARDED_PROTO, client.scheme);
    if let Some(caller) = client.caller {
        write(X_USER_ID, &caller.user_id.to_string());
        write(X_DEVICE_ID, &caller.device_id);
        write(X_SESSION_ID, &caller.session_id.to_string());
        if !caller.roles.is_empty() {
            write(X_USER_ROLES, &caller.roles.join(","));
        }
    }
    headers.insert(X_REQUEST_ID, id_value(client.request_id));
    headers.insert(X_CORRELATION_ID, id_value(client.correlation_id));
    let version = if own.version == Version::HTTP_2 { "2.0" } else { "1.1" };
    headers.append(VIA, HeaderValue::from_str(&format!("{version} {}", *PSEUDONYM)).expect("digits, letters and a hyphen"));
    if upgrades {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, WEBSOCKET);
    }
    headers
}

/// A browser cannot write `Authorization` on a WebSocket: it offers the subprotocol `bearer.TOKEN`, which takes its place here. No offer of that form goes on,
/// also where there is another token.
pub fn take_token_of_websocket(head: &mut request::Parts) {
    let offers = head.headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok());
    let offers: Vec<String> = offers.flat_map(|line| line.split(',')).map(|offer| offer.trim().to_owned()).collect();
    let (tokens, others): (Vec<&String>, Vec<&String>) = offers.iter().partition(|offer| bearer_of(offer).is_some());
    let Some(token) = tokens.first().and_then(|offer| bearer_of(offer)) else { return };
    if !head.headers.contains_key(AUTHORIZATION) && wants_websocket(head) {
        head.headers.extend(HeaderValue::from_str(&format!("Bearer {token}")).ok().map(|value| (AUTHORIZATION, value)));
    }
    head.headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if !others.is_empty() {
        let others = others.iter().map(|offer| offer.as_str()).collect::<Vec<_>>().join(", ");
        head.headers.extend(HeaderValue::from_str(&others).ok().map(|value| (SEC_WEBSOCKET_PROTOCOL, value)));
    }
}

fn bearer_of(offer: &str) -> Option<&str> {
    let (prefix, token) = offer.split_at_checked("bearer.".len())?;
    prefix.eq_ignore_ascii_case("bearer.").then_some(token)
}

/// The query without `ticket`. None where nothing is left of it.
pub fn without_ticket(query: &str) -> Option<String> {
    let kept: Vec<&str> = query.split('&').filter(|pair| *pair != "ticket" && !pair.starts_with("ticket=")).collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

/// The headers of an answer to the client.
pub fn for_client(answer: &HeaderMap, outside: &OutsidePrefix) -> HeaderMap {
    let mut headers = end_to_end(answer);
    // It speaks for the target's own address.
    headers.remove(ALT_SVC);
    if let Some(location) = headers.get(LOCATION).and_then(|location| location.to_str().ok()).and_then(|location| here(location, outside))
        && let Ok(location) = HeaderValue::from_str(&location)
    {
        headers.insert(LOCATION, location);
    }
    headers
}

/// The request has passed this process before.
pub fn has_passed(headers: &HeaderMap) -> bool {
    headers.get_all(VIA).iter().any(|via| via.to_str().is_ok_and(|via| via.contains(&**PSEUDONYM)))
}

/// The request wants to go on as a WebSocket (RFC 6455 section 4.1).
pub fn wants_websocket(head: &request::Parts) -> bool {
    head.version == Version::HTTP_11 && head.method == Method::GET && names_upgrade(&head.headers)
}

/// `Upgrade: websocket`, and `Connection` names it.
pub fn names_upgrade(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
        && named_by_connection(headers).any(|name| name.eq_ignore_ascii_case("upgrade"))
}

/// The headers of the answer that makes a WebSocket of a connection.
pub fn upgraded(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, WEBSOCKET);
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<&str> = named_by_connection(headers).collect();
    let mut kept = HeaderMap::with_capacity(headers.len() + 12);
    for (name, value) in headers {
        if !HOP_BY_HOP.contains(name) && !named.iter().any(|named| named.eq_ignore_ascii_case(name.as_str())) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

fn named_by_connection(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim)
}

/// HTTP/2 may split them, HTTP/1.1 may not (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let all = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
        headers.remove(COOKIE);
        headers.extend(HeaderValue::from_bytes(&all).ok().map(|all| (COOKIE, all)));
    }
}

/// The target's own address as it is found behind the gateway. None for other places.
fn here(location: &str, outside: &OutsidePrefix) -> Option<String> {
    let origin = format!("{}://{}", outside.scheme, outside.authority);
    let path = match location.strip_prefix(&origin) {
        Some(path) => path,
        None if location.starts_with('/') && !location.starts_with("//") => location,
        None => return None,
    };
    let below = path.strip_prefix(&outside.base).filter(|below| below.is_empty() || below.starts_with(['/', '?', '#']))?;
    Some(if outside.strips_prefix { format!("{}{below}", outside.prefix) } else { below.to_owned() })
}
