//! A shared cache, and this process's own while the shared one is away: less is kept then, and by this host alone, but calls go on.
//!
//! What is written meanwhile is out of date in the shared cache; it is deleted there before the shared one is asked again, and what was written here is
//! forgotten. A cache may forget at any time, but it must not say what is no longer so.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::memory::MemoryCache;
use super::{Cache, CacheError};
use echo_base::limits;

pub struct FallbackCache {
    state: Arc<State>,
    /// Ends the task that waits for the shared cache.
    _end: DropGuard,
}

struct State {
    shared: Arc<dyn Cache>,
    local_bytes_max: u64,
    /// None while the shared one answers.
    local: Mutex<Option<Away>>,
    is_away: AtomicBool,
}

struct Away {
    cache: Arc<MemoryCache>,
    /// Keys to delete in the shared cache when it is back; bounded by `CACHE_AWAY_KEYS_MAX`, beyond which writes are refused.
    written: HashSet<String>,
}

impl FallbackCache {
    pub fn new(shared: Arc<dyn Cache>, local_bytes_max: u64) -> Self {
        let state = Arc::new(State { shared, local_bytes_max, local: Mutex::default(), is_away: AtomicBool::new(false) });
        let end = CancellationToken::new();
        tokio::spawn(end.clone().run_until_cancelled_owned(find_again(state.clone())));
        Self { state, _end: end.drop_guard() }
    }
}

impl State {
    /// The local one while the shared one is away.
    fn local(&self, written: &[&str]) -> Result<Option<Arc<MemoryCache>>, CacheError> {
        if !self.is_away.load(Ordering::Acquire) {
            return Ok(None);
        }
        let mut local = self.local.lock();
        let Some(away) = local.as_mut() else { return Ok(None) };
        for key in written {
            if away.written.len() >= limits::CACHE_AWAY_KEYS_MAX && !away.written.contains(*key) {
                return Err(CacheError::Unavailable);
            }
            away.written.insert((*key).to_owned());
        }
        Ok(Some(away.cache.clone()))
    }

    fn begin_away(&self) {
        let mut local = self.local.lock();
        if local.is_none() {
            tracing::warn!("the shared cache is away; this host keeps its own until it is back");
            *local = Some(Away { cache: Arc::new(MemoryCache::shared(self.local_bytes_max)), written: HashSet::new() });
            self.is_away.store(true, Ordering::Release);
        }
    }
}

async fn find_again(state: Arc<State>) {
    let mut interval = tokio::time::interval(Duration::from_millis(limits::CACHE_AWAY_POLL_MS));
    loop {
        interval.tick().await;
        if !state.is_away.load(Ordering::Acquire) || state.shared.ping().await.is_err() {
            continue;
        }
        loop {
            // Some at a time, as more are written meanwhile; with the last of them the shared one is asked again.
            let some: Vec<String> = {
                let mut local = state.local.lock();
                let written =
                    local.iter().flat_map(|away| away.written.iter()).take(limits::CACHE_KEYS_PER_CALL_MAX).cloned().collect::<Vec<_>>();
                if written.is_empty() {
                    state.is_away.store(false, Ordering::Release);
                    *local = None;
                    tracing::info!("the shared cache is back");
                    break;
                }
                written
            };
            let mut is_away = false;
            for key in &some {
                is_away |= state.shared.delete(key).await == Err(CacheError::Unavailable);
                if is_away {
                    break;
                }
                if let Some(away) = state.local.lock().as_mut() {
                    away.written.remove(key);
                }
            }
            if is_away {
                break;
            }
        }
    }
}

/// `$method` of the shared cache, or of the local one where the shared one is away.
macro_rules! either {
    ($self:ident, $written:expr, $cache:ident => $call:expr) => {{
        let written: &[&str] = $written;
        if let Some($cache) = $self.state.local(written)? {
            return $call;
        }
        let outcome = {
            let $cache = &$self.state.shared;
            $call
        };
        if !matches!(outcome, Err(CacheError::Unavailable)) {
            return outcome;
        }
        $self.state.begin_away();
        match $self.state.local(written)? {
            Some($cache) => $call,
            // It has come back in this moment.
            None => outcome,
        }
    }};
}

#[async_trait]
impl Cache for FallbackCache {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, CacheError> {
        either!(self, &[], cache => cache.get(key).await)
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<(), CacheError> {
        either!(self, &[key], cache => cache.set(key, value.clone(), ttl).await)
    }

    async fn delete(&self, key: &str) -> Result<bool, CacheError> {
        either!(self, &[key], cache => cache.delete(key).await)
    }

    async fn get_multi(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, CacheError> {
        either!(self, &[], cache => cache.get_multi(keys).await)
    }

    async fn set_multi(&self, entries: Vec<(String, Bytes)>, ttl: Option<Duration>) -> Result<(), CacheError> {
        let written: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
        either!(self, &written, cache => cache.set_multi(entries.clone(), ttl).await)
    }

    async fn add(&self, key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, CacheError> {
        either!(self, &[key], cache => cache.add(key, by, ttl).await)
    }

    async fn expire(&self, key: &str, ttl: Duration) -> Result<bool, CacheError> {
        either!(self, &[key], cache => cache.expire(key, ttl).await)
    }

    async fn ttl(&self, key: &str) -> Result<Option<Duration>, CacheError> {
        either!(self, &[], cache => cache.ttl(key).await)
    }

    async fn set_if_absent(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<bool, CacheError> {
        either!(self, &[key], cache => cache.set_if_absent(key, value.clone(), ttl).await)
    }

    async fn compare_and_swap(&self, key: &str, expected: Option<Bytes>, value: Bytes, ttl: Option<Duration>) -> Result<bool, CacheError> {
        either!(self, &[key], cache => cache.compare_and_swap(key, expected.clone(), value.clone(), ttl).await)
    }

    async fn compare_and_delete(&self, key: &str, expected: &[u8]) -> Result<bool, CacheError> {
        either!(self, &[key], cache => cache.compare_and_delete(key, expected).await)
    }

    async fn set_add(&self, key: &str, members: &[String], ttl: Option<Duration>) -> Result<u32, CacheError> {
        either!(self, &[key], cache => cache.set_add(key, members, ttl).await)
    }

    async fn set_remove(&self, key: &str, members: &[String]) -> Result<u32, CacheError> {
        either!(self, &[key], cache => cache.set_remove(key, members).await)
    }

    async fn set_members(&self, key: &str) -> Result<Vec<String>, CacheError> {
        either!(self, &[], cache => cache.set_members(key).await)
    }

    async fn set_contains(&self, key: &str, member: &str) -> Result<bool, CacheError> {
        either!(self, &[], cache => cache.set_contains(key, member).await)
    }

    /// Errors: `Unavailable` while the shared cache is away.
    async fn ping(&self) -> Result<(), CacheError> {
        if self.state.is_away.load(Ordering::Acquire) {
            return Err(CacheError::Unavailable);
        }
        let outcome = self.state.shared.ping().await;
        if outcome.is_err() {
            self.state.begin_away();
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use echo_engines::redis::Redis;

    use super::*;
    use crate::cache::redis::RedisCache;
    use crate::cache::suite;

    fn over(url: &str) -> FallbackCache {
        let shared = RedisCache::open(url, &format!("test-{}", uuid::Uuid::now_v7())).unwrap();
        FallbackCache::new(Arc::new(shared), 16 * limits::MIB_BYTES)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn it_passes_the_suite_with_redis_there_and_away() {
        let url = echo_engines::redis::of_this_process().unwrap_or_else(|error| panic!("{error}"));
        suite::suite(Arc::new(over(&url))).await;
        let away = over("redis://127.0.0.1:1");
        assert_eq!(away.get("a:b").await, Ok(None));
        assert_eq!(away.ping().await, Err(CacheError::Unavailable));
        assert_eq!(away.add("a:n", 2, None).await, Ok(2));
        assert_eq!(away.add("a:n", 2, None).await, Ok(4));
    }

    /// Redis hangs and keeps what it has: the hard case, as its keys are there again afterwards.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_written_while_redis_was_away_is_not_contradicted_afterwards() {
        let server = Redis::start(&std::env::temp_dir()).unwrap();
        let cache = over(&server.url());
        cache.set("a:changed", Bytes::from_static(b"old"), None).await.unwrap();
        cache.set("a:kept", Bytes::from_static(b"kept"), None).await.unwrap();
        let signal = |name: &str| {
            let status = std::process::Command::new("kill").args([name, &server.pid().to_string()]).status().unwrap();
            assert!(status.success());
        };
        signal("-STOP");
        cache.set("a:changed", Bytes::from_static(b"new"), None).await.unwrap();
        assert_eq!(cache.get("a:changed").await, Ok(Some(Bytes::from_static(b"new"))));
        assert_eq!(cache.get("a:kept").await, Ok(None), "away");
        assert_eq!(cache.ping().await, Err(CacheError::Unavailable));
        signal("-CONT");
        let begin = Instant::now();
        while cache.ping().await.is_err() {
            assert!(begin.elapsed() < Duration::from_secs(10), "it was not found again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(cache.get("a:changed").await, Ok(None), "neither the old value nor this host's own");
        assert_eq!(cache.get("a:kept").await, Ok(Some(Bytes::from_static(b"kept"))));
    }
}
