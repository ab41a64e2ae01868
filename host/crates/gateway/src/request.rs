//! What is known of a request from its first byte on: its ids, when it arrived, the client's address, and, once found, the route that serves it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::outside::{OUTSIDE, Outside};
use super::routes::CompiledRoute;
use echo_base::limits;

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const X_CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of the TCP connection; an extension of every request that came over one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// An extension (`Arc<RequestInfo>`) of every request, also of those for the host's own routes.
pub struct RequestInfo {
    pub request_id: Arc<str>,
    pub correlation_id: Arc<str>,
    pub received_at: Instant,
    /// The client, seen through as many proxies as the settings trust.
    pub client_address: Option<IpAddr>,
    /// It came as HEAD; the layers within see a GET.
    pub is_head: bool,
    /// Its path came with a slash at its end; the layers within see it without.
    pub ends_with_slash: bool,
    served: OnceLock<Served>,
    /// Its body is waited for.
    is_receiving: AtomicBool,
    /// Its body is a file, which has no end in time.
    is_streaming: AtomicBool,
}

/// What answers the request.
pub(super) enum Served {
    Service(Arc<CompiledRoute>),
    /// A route of the host, by its pattern.
    Host(&'static str),
    Outside(Arc<Outside>),
}

impl RequestInfo {
    pub(super) fn new(headers: &HeaderMap, peer: Option<PeerAddress>, trusted_proxies_count: usize) -> Self {
        let request_id = taken(headers, &X_REQUEST_ID).unwrap_or_else(fresh_id);
        let correlation_id = taken(headers, &X_CORRELATION_ID).unwrap_or_else(|| request_id.clone());
        Self {
            request_id,
            correlation_id,
            received_at: Instant::now(),
            client_address: client_address(headers, peer, trusted_proxies_count),
            is_head: false,
            ends_with_slash: false,
            served: OnceLock::new(),
            is_receiving: AtomicBool::new(false),
            is_streaming: AtomicBool::new(false),
        }
    }

    /// Called once per request, when its route is found.
    pub(super) fn serve(&self, served: Served) {
        let _ = self.served.set(served);
    }

    pub(super) fn receives(&self, is_receiving: bool) {
        self.is_receiving.store(is_receiving, Ordering::Relaxed);
    }

    pub(super) fn is_receiving(&self) -> bool {
        self.is_receiving.load(Ordering::Relaxed)
    }

    /// From now on the request has no time-out of its own: its body must make progress, and the call after it has its own time.
    pub(super) fn streams(&self) {
        self.is_streaming.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_streaming(&self) -> bool {
        self.is_streaming.load(Ordering::Relaxed)
    }

    pub(super) fn served(&self) -> Option<&Served> {
        self.served.get()
    }

    /// The answering route's pattern and service, for logs and metrics.
    pub(super) fn labels(&self) -> (&str, &str) {
        match self.served.get() {
            Some(Served::Service(route)) => (&route.pattern, route.target.service.as_str()),
            Some(Served::Host(pattern)) => (pattern, "host"),
            Some(Served::Outside(outside)) => (&outside.settings.prefix, OUTSIDE),
            None => ("", ""),
        }
    }
}

pub(super) fn id_value(id: &str) -> HeaderValue {
    HeaderValue::from_str(id).expect("an id is made of ASCII letters, digits and a few signs")
}

/// A client's id, if it can do no harm in a log, a header or a metric.
fn taken(headers: &HeaderMap, name: &HeaderName) -> Option<Arc<str>> {
    let text = headers.get(name)?.to_str().ok()?;
    let sane = (1..=limits::REQUEST_ID_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&b));
    sane.then(|| text.into())
}

/// UUIDv7 from the thread's own generator: no lock, no system call but the clock.
pub(super) fn fresh_id() -> Arc<str> {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let id = uuid::Builder::from_unix_timestamp_millis(since_1970.as_millis() as u64, &rand::random()).into_uuid();
    let mut text = uuid::Uuid::encode_buffer();
    Arc::from(&*id.hyphenated().encode_lower(&mut text))
}

/// Each trusted proxy appends the address it saw, so the client's is that many places from the right; what stands left of it anyone can write.
fn client_address(headers: &HeaderMap, peer: Option<PeerAddress>, trusted_proxies_count: usize) -> Option<IpAddr> {
    let direct = peer.map(|PeerAddress(address)| address.ip().to_canonical());
    if trusted_proxies_count == 0 {
        return direct;
    }
    let mut hops = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).rev();
    let forwarded = hops.nth(trusted_proxies_count - 1).and_then(|hop| hop.trim().parse::<IpAddr>().ok());
    forwarded.map(|address| address.to_canonical()).or(direct)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn peer() -> Option<PeerAddress> {
        Some(PeerAddress("192.0.2.1:5".parse().unwrap()))
    }

    #[test]
    fn a_sane_id_is_taken_and_another_is_made() {
        let check = |given: &str, is_taken: bool| {
            let info = RequestInfo::new(&headers(&[("x-request-id", given)]), None, 0);
            assert_eq!(&*info.request_id == given, is_taken, "{given:?} gave {:?}", info.request_id);
            assert_eq!(info.correlation_id, info.request_id);
        };
        check("abc-123_4.5:6", true);
        check(&"a".repeat(limits::REQUEST_ID_BYTES_MAX), true);
        check(&"a".repeat(limits::REQUEST_ID_BYTES_MAX + 1), false);
        check("", false);
        check("two words", false);
        check("<script>", false);
    }

    #[test]
    fn a_made_id_is_a_uuid_of_version_7_and_never_the_same() {
        let (one, other) = (fresh_id(), fresh_id());
        assert_eq!(uuid::Uuid::parse_str(&one).unwrap().get_version_num(), 7);
        assert_ne!(one, other);
    }

    #[test]
    fn the_client_address_is_seen_through_trusted_proxies_only() {
        let forged = headers(&[("x-forwarded-for", "10.9.9.9, 198.51.100.7, 203.0.113.4")]);
        let check = |trusted, expect: &str| {
            assert_eq!(client_address(&forged, peer(), trusted), Some(expect.parse().unwrap()), "{trusted} trusted");
        };
        check(0, "192.0.2.1");
        check(1, "203.0.113.4");
        check(2, "198.51.100.7");
        check(9, "192.0.2.1");
        assert_eq!(client_address(&headers(&[("x-forwarded-for", "nonsense")]), peer(), 1), Some("192.0.2.1".parse().unwrap()));
    }
}
