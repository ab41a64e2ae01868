//! `Idempotency-Key`: the same request again is given the same answer, without being done again (draft-ietf-httpapi-idempotency-key-header).
//!
//! A key belongs to a user where the route requires one. A public route has no reliable identity: a phone's address changes with its network, and a token may
//! expire between two tries. There the key belongs to the request itself, by its fingerprint; another body under the same key is another request. An answer that holds a secret (`secret_answer` in the manifest) is never kept: its key keeps the same request from
//! running twice at once (409), and after it ended the service decides what a second one gets.
//!
//! Kept through the cache's trait alone, so that several hosts can share what they keep. Memory is bounded by the cache that it is given;
//! after an eviction a request can run again, and services that must never do something twice have ids of their own for it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, StatusCode};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::problem::Problem;
use echo_base::limits;
use echo_capabilities::cache::{Cache, CacheError};

pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// An answer as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

/// Whose a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    User(Uuid),
    /// Whoever sends this very request.
    Request,
}

/// How a request with a key goes on.
pub enum Begin {
    /// It is the first: do it, then `finish`.
    Run(Slot),
    /// It was done: this is what was answered.
    Replay(Answer),
    /// The cache cannot be reached: do it, nothing is kept.
    Unkept,
}

/// The right to do one request and to keep its answer. Dropped without `finish` or `release`, it lapses with the request's time-out.
#[derive(Debug)]
pub struct Slot {
    key: String,
    running: Bytes,
}

pub struct Idempotency {
    cache: Arc<dyn Cache>,
    lock_ttl: Duration,
}

/// The request's key, if it has one. Errors: 400 when it is empty, too long or not printable ASCII.
pub fn key_of(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=limits::REQUEST_ID_BYTES_MAX).contains(&key.len()));
    key.map(Some).ok_or_else(|| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "idempotency_key_invalid",
            format!("Idempotency-Key must be 1 to {} printable ASCII characters", limits::REQUEST_ID_BYTES_MAX),
        )
    })
}

/// What must be the same for two requests to be the same.
pub fn fingerprint(path: &str, query: Option<&str>, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [path.as_bytes(), query.unwrap_or("").as_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(body);
    hash.finalize().into()
}

/// Whether an answer is the last word: faults and "come back later" are not, and can be tried again under the same key.
pub fn is_final(status: StatusCode) -> bool {
    !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS && status != StatusCode::LOCKED
}

impl Idempotency {
    /// `request_timeout`: no request runs longer.
    pub fn new(cache: Arc<dyn Cache>, request_timeout: Duration) -> Self {
        Self { cache, lock_ttl: request_timeout + Duration::from_millis(limits::IDEMPOTENCY_LOCK_MARGIN_MS) }
    }

    /// Errors: 422 when the user's key was used for another request, 409 while its request is still running.
    pub async fn begin(&self, owner: Owner, route: &str, key: &str, fingerprint: [u8; 32]) -> Result<Begin, Problem> {
        let key = cache_key(owner, route, key, &fingerprint);
        let running = Entry::Running(rand::random()).encode(&fingerprint);
        // A second round for what ended between the two questions; a third time in a row it counts as in use.
        for _ in 0..2 {
            match self.cache.set_if_absent(&key, running.clone(), Some(self.lock_ttl)).await {
                Ok(true) => return Ok(Begin::Run(Slot { key, running })),
                Ok(false) => {}
                Err(error) => return Ok(unkept(error)),
            }
            let value = match self.cache.get(&key).await {
                Ok(Some(value)) => value,
                Ok(None) => continue,
                Err(error) => return Ok(unkept(error)),
            };
            return match Entry::decode(&value) {
                None => Ok(unkept(CacheError::WrongKind)),
                Some((other, _)) if other != fingerprint => Err(Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "idempotency_key_reused",
                    "this Idempotency-Key was used for another request",
                )),
                Some((_, Entry::Running(_))) => Err(in_use()),
                Some((_, Entry::Done(answer))) => Ok(Begin::Replay(answer)),
            };
        }
        Err(in_use())
    }

    /// Keeps a final answer; after any other the request can be done again.
    pub async fn finish(&self, slot: Slot, answer: &Answer, fingerprint: [u8; 32]) {
        let is_kept = StatusCode::from_u16(answer.status).is_ok_and(is_final) && answer.body.len() <= limits::IDEMPOTENCY_ANSWER_BYTES_MAX;
        if !is_kept {
            return self.release(slot).await;
        }
        let done = Entry::Done(answer.clone()).encode(&fingerprint);
        let ttl = Duration::from_secs(limits::IDEMPOTENCY_TTL_S);
        // Swapped, not set: should the slot have lapsed, another request may hold it by now.
        if let Err(error) = self.cache.compare_and_swap(&slot.key, Some(slot.running), done, Some(ttl)).await {
            tracing::warn!(%error, "the answer to a request with an Idempotency-Key is not kept");
        }
    }

    /// Keeps nothing: the request can be done again. Frees this slot alone; should it have lapsed, another request may hold the key by now.
    pub async fn release(&self, slot: Slot) {
        if let Err(error) = self.cache.compare_and_delete(&slot.key, &slot.running).await {
            tracing::warn!(%error, "an Idempotency-Key is in use until its request's time is over");
        }
    }
}

fn in_use() -> Problem {
    Problem::new(StatusCode::CONFLICT, "idempotency_key_in_use", "the request with this Idempotency-Key is still running")
        .retry_after(Duration::from_secs(1))
}

fn unkept(error: CacheError) -> Begin {
    tracing::warn!(%error, "a request with an Idempotency-Key is done without keeping its answer");
    Begin::Unkept
}

/// Hashed: a client's text is no key of ours, and has no bound of ours.
fn cache_key(owner: Owner, route: &str, key: &str, fingerprint: &[u8; 32]) -> String {
    let mut hash = Sha256::new();
    match owner {
        Owner::User(user) => hash.update([&[0], &user.as_bytes()[..]].concat()),
        Owner::Request => hash.update([&[1], &fingerprint[..]].concat()),
    }
    hash.update((route.len() as u64).to_be_bytes());
    hash.update(route);
    hash.update(key);
    let mut text = String::from("gateway:idempotency:");
    URL_SAFE_NO_PAD.encode_string(hash.finalize(), &mut text);
    text
}

/// One value in the cache: the request's fingerprint, then what is known of it.
enum Entry {
    /// Running; the random number says which request holds the key.
    Running([u8; 16]),
    Done(Answer),
}

impl Entry {
    fn encode(&self, fingerprint: &[u8; 32]) -> Bytes {
        let mut value = BytesMut::with_capacity(64);
        value.put_slice(fingerprint);
        match self {
            Entry::Running(nonce) => {
                value.put_u16(0);
                value.put_slice(nonce);
            }
            Entry::Done(answer) => {
                value.put_u16(answer.status);
                value.put_slice(&answer.body);
            }
        }
        value.freeze()
    }

    fn decode(value: &Bytes) -> Option<([u8; 32], Self)> {
        let (fingerprint, rest) = value.split_first_chunk::<32>()?;
        let (status, rest) = rest.split_first_chunk::<2>()?;
        let entry = match u16::from_be_bytes(*status) {
            0 => Entry::Running(rest.try_into().ok()?),
            status => Entry::Done(Answer { status, body: value.slice(34..) }),
        };
        Some((*fingerprint, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::FakeCache;
    use http::HeaderValue;

    const OWNER: Owner = Owner::User(Uuid::from_u128(1));
    const TIMEOUT: Duration = Duration::from_secs(30);

    struct Setup {
        cache: Arc<FakeCache>,
        idempotency: Idempotency,
    }

    impl Setup {
        fn new() -> Self {
            let cache = Arc::new(FakeCache::default());
            Self { idempotency: Idempotency::new(cache.clone(), TIMEOUT), cache }
        }

        async fn begin(&self, owner: Owner, key: &str, body: &str) -> Result<Begin, Problem> {
            self.idempotency.begin(owner, "POST /x", key, fingerprint("/x", None, body.as_bytes())).await
        }

        /// What a request finds.
        async fn finds(&self, owner: Owner, key: &str, body: &str) -> String {
            match self.begin(owner, key, body).await {
                Ok(Begin::Run(_)) => "run".to_owned(),
                Ok(Begin::Unkept) => "unkept".to_owned(),
                Ok(Begin::Replay(answer)) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
                Err(problem) => problem.code.into_owned(),
            }
        }

        async fn done(&self, key: &str, body: &str, status: u16, answer: impl Into<Bytes>) {
            let Ok(Begin::Run(slot)) = self.begin(OWNER, key, body).await else { panic!("{key} cannot run") };
            let answer = Answer { status, body: answer.into() };
            self.idempotency.finish(slot, &answer, fingerprint("/x", None, body.as_bytes())).await;
        }
    }

    #[tokio::test]
    async fn the_same_request_is_done_once() {
        let setup = Setup::new();
        setup.done("k", "a", 201, "made").await;
        assert_eq!(setup.finds(OWNER, "k", "a").await, "201 made");
        assert_eq!(setup.finds(OWNER, "k", "b").await, "idempotency_key_reused");
        assert_eq!(setup.finds(Owner::User(Uuid::from_u128(2)), "k", "b").await, "run", "another user's key");
        setup.cache.advance(Duration::from_secs(limits::IDEMPOTENCY_TTL_S));
        assert_eq!(setup.finds(OWNER, "k", "b").await, "run");
    }

    #[tokio::test]
    async fn where_nobody_is_known_a_key_belongs_to_its_request() {
        let setup = Setup::new();
        let Ok(Begin::Run(slot)) = setup.begin(Owner::Request, "k", "a").await else { panic!("cannot run") };
        assert_eq!(setup.finds(Owner::Request, "k", "a").await, "idempotency_key_in_use");
        setup.idempotency.finish(slot, &Answer { status: 201, body: "made".into() }, fingerprint("/x", None, b"a")).await;
        assert_eq!(setup.finds(Owner::Request, "k", "a").await, "201 made");
        assert_eq!(setup.finds(Owner::Request, "k", "b").await, "run", "another body is another request");
        assert_eq!(setup.finds(Owner::Request, "l", "a").await, "run");
        assert_eq!(setup.finds(OWNER, "k", "a").await, "run", "and nothing of a user's");
    }

    #[tokio::test]
    async fn a_released_key_is_free_at_once_and_another_holders_is_not() {
        let setup = Setup::new();
        let Ok(Begin::Run(first)) = setup.begin(OWNER, "k", "a").await else { panic!("cannot run") };
        setup.idempotency.release(first).await;
        let Ok(Begin::Run(second)) = setup.begin(OWNER, "k", "a").await else { panic!("it was not released") };
        setup.cache.advance(Duration::from_secs(60));
        let Ok(Begin::Run(_third)) = setup.begin(OWNER, "k", "a").await else { panic!("it has not lapsed") };
        // The second one comes to its end late, and without an answer to keep.
        setup.idempotency.finish(second, &Answer { status: 503, body: Bytes::new() }, fingerprint("/x", None, b"a")).await;
        assert_eq!(setup.finds(OWNER, "k", "a").await, "idempotency_key_in_use", "the third runs");
    }

    #[tokio::test]
    async fn a_running_request_holds_its_key_until_its_time_out() {
        let setup = Setup::new();
        let running = setup.begin(OWNER, "k", "a").await;
        assert!(matches!(running, Ok(Begin::Run(_))));
        assert_eq!(setup.finds(OWNER, "k", "a").await, "idempotency_key_in_use");
        assert_eq!(setup.finds(OWNER, "k", "b").await, "idempotency_key_reused");
        setup.cache.advance(TIMEOUT + Duration::from_millis(limits::IDEMPOTENCY_LOCK_MARGIN_MS));
        assert_eq!(setup.finds(OWNER, "k", "a").await, "run");
    }

    #[tokio::test]
    async fn what_is_not_final_is_done_again() {
        let setup = Setup::new();
        for status in [500, 503, 504, 429, 423] {
            setup.done("k", "a", status, "").await;
            assert_eq!(setup.finds(OWNER, &format!("other {status}"), "a").await, "run");
        }
        setup.done("k", "a", 422, "no").await;
        assert_eq!(setup.finds(OWNER, "k", "a").await, "422 no");
        setup.done("large", "a", 200, vec![b'x'; limits::IDEMPOTENCY_ANSWER_BYTES_MAX + 1]).await;
        assert_eq!(setup.finds(OWNER, "large", "a").await, "run");
    }

    #[tokio::test]
    async fn a_lapsed_slot_does_not_overwrite_its_successor() {
        let setup = Setup::new();
        let Ok(Begin::Run(first)) = setup.begin(OWNER, "k", "a").await else { panic!("cannot run") };
        setup.cache.advance(Duration::from_secs(60));
        assert_eq!(setup.finds(OWNER, "k", "a").await, "run");
        let answer = Answer { status: 200, body: Bytes::from_static(b"late") };
        setup.idempotency.finish(first, &answer, fingerprint("/x", None, b"a")).await;
        assert_eq!(setup.finds(OWNER, "k", "a").await, "idempotency_key_in_use");
    }

    #[tokio::test]
    async fn without_a_cache_requests_are_served() {
        let setup = Setup::new();
        setup.cache.break_down();
        assert_eq!(setup.finds(OWNER, "k", "a").await, "unkept");
    }

    #[test]
    fn a_key_is_short_printable_ascii() {
        let check = |given: &[u8], is_good: bool| {
            let headers = HeaderMap::from_iter([(IDEMPOTENCY_KEY, HeaderValue::from_bytes(given).unwrap())]);
            assert_eq!(key_of(&headers).is_ok(), is_good, "{given:?}");
        };
        check(b"6f1c", true);
        check(b"", false);
        check("ä".as_bytes(), false);
        check(&[b'a'; limits::REQUEST_ID_BYTES_MAX + 1], false);
        assert!(key_of(&HeaderMap::new()).unwrap().is_none());
    }
}
