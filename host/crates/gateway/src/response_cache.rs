//! Answers kept for GET routes whose manifest says so, and ETags (RFC 9110 section 8.8.3). Bounded by the cache that it is given.
//!
//! An answer is kept when it is asked for the second time: most of what is asked once is never asked again, and keeping it would cost more than
//! it saves and push out what others want (the doorkeeper of Einziger, Friedman and Manes, "TinyLFU", ACM ToS 13, 2017).

use std::fmt::Write as _;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use echo_base::limits;
use echo_capabilities::cache::Cache;
use echo_runtime::manifest::{Access, CacheScope, Route};

/// A successful response as the cache has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    pub status: u16,
    pub body: Bytes,
}

pub struct ResponseCache {
    cache: Arc<dyn Cache>,
    doorkeeper: Doorkeeper,
}

impl ResponseCache {
    pub fn new(cache: Arc<dyn Cache>) -> Self {
        Self { cache, doorkeeper: Doorkeeper::default() }
    }

    /// The key under which the response is cached, or will be. None for a request that was not seen before: a response is cached from the second request on.
    pub fn key_of(&self, request: &RequestKey<'_>) -> Option<String> {
        self.doorkeeper.note_seen(request).then(|| request.key())
    }

    /// None also where the cache cannot be reached.
    pub async fn get(&self, key: &str) -> Option<StoredResponse> {
        let value = self.cache.get(key).await.ok()??;
        let (status, _) = value.split_first_chunk::<2>()?;
        Some(StoredResponse { status: u16::from_be_bytes(*status), body: value.slice(2..) })
    }

    /// A response that is too large, or for which the cache cannot be reached, is not stored: the next request calls the service again.
    pub async fn put(&self, key: &str, kept: &StoredResponse, ttl: Duration) {
        if kept.body.len() + 2 > limits::CACHE_VALUE_BYTES_MAX {
            return;
        }
        let mut value = BytesMut::with_capacity(kept.body.len() + 2);
        value.put_u16(kept.status);
        value.put_slice(&kept.body);
        if let Err(error) = self.cache.set(key, value.freeze(), Some(ttl)).await {
            tracing::debug!(%error, "an answer is not kept");
        }
    }
}

/// Which requests were seen not long ago, by one bit each (a Bloom filter with one hash function): it may take a new one for a known one.
struct Doorkeeper {
    /// A quick hash: a client that makes two requests collide only has one of them cached early.
    hasher: foldhash::fast::RandomState,
    bits: Box<[AtomicU64]>,
    known: AtomicUsize,
}

impl Default for Doorkeeper {
    fn default() -> Self {
        let words = limits::RESPONSE_DOORKEEPER_KEYS / 8;
        Self { hasher: Default::default(), bits: (0..words).map(|_| AtomicU64::new(0)).collect(), known: AtomicUsize::new(0) }
    }
}

impl Doorkeeper {
    /// Whether this request was seen before, and notes it.
    fn note_seen(&self, request: impl Hash) -> bool {
        let hash = self.hasher.hash_one(request) as usize;
        let (word, bit) = (&self.bits[(hash / 64) % self.bits.len()], 1 << (hash % 64));
        if word.fetch_or(bit, Relaxed) & bit != 0 {
            return true;
        }
        // An eighth of the bits is set: they are forgotten, so that no more than an eighth of what is new is taken for known.
        if self.known.fetch_add(1, Relaxed) + 1 >= limits::RESPONSE_DOORKEEPER_KEYS {
            self.known.store(0, Relaxed);
            self.bits.iter().for_each(|word| word.store(0, Relaxed));
        }
        false
    }
}

/// What an answer depends on: one per snapshot of the services (a swap forgets all), route, path, query and, where the scope says so, user.
#[derive(Clone, Copy, Hash)]
pub struct RequestKey<'a> {
    pub snapshot: u64,
    pub route: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub user: Option<Uuid>,
}

impl RequestKey<'_> {
    pub fn key(&self) -> String {
        let Self { snapshot, route, path, query, user } = *self;
        let query = query.unwrap_or("");
        let mut key = String::with_capacity(96 + route.len() + path.len() + query.len());
        // No part but the last contains a line's end.
        write!(key, "gateway:response:{snapshot}:{}\n{route}\n{path}\n{query}", user.unwrap_or_default().simple())
            .expect("writing to a string");
        if key.len() > limits::CACHE_KEY_BYTES_MAX {
            let hash = Sha256::digest(&key);
            key.clear();
            write!(key, "gateway:response:{snapshot}:").expect("writing to a string");
            URL_SAFE_NO_PAD.encode_string(hash, &mut key);
        }
        key
    }
}

/// Strong: other bytes, another tag.
pub fn etag_of(body: &[u8]) -> HeaderValue {
    let hash = Sha256::digest(body);
    let mut tag = String::with_capacity(24);
    tag.push('"');
    URL_SAFE_NO_PAD.encode_string(&hash[..16], &mut tag);
    tag.push('"');
    HeaderValue::from_str(&tag).expect("base64url in quotes")
}

/// Whether the client has this already (weak comparison, as RFC 9110 section 13.1.2 wants for If-None-Match).
pub fn matches(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.trim() == "*" || value.split(',').any(|tag| strong(tag).as_bytes() == etag.as_bytes()))
}

/// How a route's successes may be kept by others, as headers. Without a word in the manifest: not at all (the edge says so).
pub struct Sharing {
    cache_control: Option<HeaderValue>,
    is_of_its_caller: bool,
}

impl Sharing {
    pub fn of(route: &Route) -> Self {
        let shared = route.access == Access::Public;
        let cache_control = match &route.cache {
            Some(cache) => {
                let scope = if shared && cache.per == CacheScope::Public { "public" } else { "private" };
                Some(HeaderValue::from_str(&format!("{scope}, max-age={}", cache.ttl.as_secs())).expect("ASCII"))
            }
            None => route.etag.then(|| HeaderValue::from_static(if shared { "no-cache" } else { "private, no-cache" })),
        };
        let is_of_its_caller = !shared || route.cache.as_ref().is_some_and(|cache| cache.per == CacheScope::User);
        Self { cache_control, is_of_its_caller }
    }

    pub fn write_headers(&self, headers: &mut HeaderMap, etag: HeaderValue) {
        if let Some(value) = &self.cache_control {
            headers.insert(CACHE_CONTROL, value.clone());
        }
        if self.is_of_its_caller {
            headers.append(VARY, HeaderValue::from_static("authorization"));
        }
        headers.insert(ETAG, etag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::FakeCache;

    #[test]
    fn the_same_bytes_have_the_same_tag() {
        assert_eq!(etag_of(b"{}"), etag_of(b"{}"));
        assert_ne!(etag_of(b"{}"), etag_of(b"{ }"));
        let tag = etag_of(b"{}");
        let text = tag.to_str().unwrap();
        assert!(text.starts_with('"') && text.ends_with('"') && text.len() == 24, "{text}");
    }

    #[test]
    fn if_none_match_takes_lists_weak_tags_and_the_star() {
        let etag = HeaderValue::from_static("\"a\"");
        let check = |given: &str, expect: bool| {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_str(given).unwrap())]);
            assert_eq!(matches(&headers, &etag), expect, "{given}");
        };
        check("\"a\"", true);
        check("\"b\", W/\"a\"", true);
        check("*", true);
        check("\"b\"", false);
        check("a", false);
        assert!(!matches(&HeaderMap::new(), &etag));
    }

    #[test]
    fn a_key_tells_apart_what_is_different() {
        let plain = RequestKey { snapshot: 1, route: "GET /a", path: "/a", query: None, user: None };
        let (long, longer) = ("q".repeat(limits::CACHE_KEY_BYTES_MAX), "q".repeat(limits::CACHE_KEY_BYTES_MAX + 1));
        let asked = [
            plain,
            RequestKey { snapshot: 2, ..plain },
            RequestKey { user: Some(Uuid::from_u128(1)), ..plain },
            RequestKey { query: Some("q=1"), ..plain },
            RequestKey { path: "/aq=1", ..plain },
            RequestKey { query: Some(&long), ..plain },
            RequestKey { query: Some(&longer), ..plain },
        ];
        let keys = asked.map(|asked| asked.key());
        for (i, key) in keys.iter().enumerate() {
            assert!(key.len() <= limits::CACHE_KEY_BYTES_MAX);
            assert!(!keys[..i].contains(key));
        }
        let cache = ResponseCache::new(Arc::new(FakeCache::default()));
        for (asked, key) in asked.iter().zip(keys) {
            assert_eq!(cache.key_of(asked), None, "asked for once");
            assert_eq!(cache.key_of(asked), Some(key));
        }
    }

    #[test]
    fn the_doorkeeper_forgets_before_it_takes_too_much_for_known() {
        let doorkeeper = Doorkeeper::default();
        assert!(!doorkeeper.note_seen("a") && doorkeeper.note_seen("a"));
        let new = 4 * limits::RESPONSE_DOORKEEPER_KEYS;
        let mistaken = (0..new).filter(|number| doorkeeper.note_seen(number.to_string())).count();
        assert!(mistaken < new / 8, "{mistaken} of {new}");
    }

    #[tokio::test]
    async fn an_answer_is_kept_for_its_time() {
        let fake = Arc::new(FakeCache::default());
        let cache = ResponseCache::new(fake.clone());
        let kept = StoredResponse { status: 200, body: Bytes::from_static(b"{\"a\":1}") };
        cache.put("k", &kept, Duration::from_secs(60)).await;
        assert_eq!(cache.get("k").await, Some(kept.clone()));
        fake.advance(Duration::from_secs(60));
        assert_eq!(cache.get("k").await, None);

        let large = StoredResponse { status: 200, body: vec![b'x'; limits::CACHE_VALUE_BYTES_MAX].into() };
        cache.put("large", &large, Duration::from_secs(60)).await;
        assert_eq!(cache.get("large").await, None);

        fake.break_down();
        cache.put("k", &kept, Duration::from_secs(60)).await;
        assert_eq!(cache.get("k").await, None);
    }
}
