//! The cache in Redis 7 or later, shared by all hosts. Each method is one atomic step there.
//!
//! A key `service:rest` is kept as `<prefix>:{service}:rest`: in a Redis Cluster the braces put all keys of a service on one node, so that scripts and
//! transactions reach them. Bytes are a string that begins with `b`, a number is a string of digits, so that the one is never taken for the other.

use std::time::Duration;

use ::redis::aio::ConnectionManager;
use ::redis::{Cmd, ErrorKind, FromRedisValue, RedisError, Script, ServerErrorKind, cmd, pipe};
use async_trait::async_trait;
use bytes::Bytes;

use super::{Cache, CacheError};
use crate::{certificates, redis_connection};
use echo_base::limits;

/// Beyond it a time to live is no end: Redis counts milliseconds since 1970 in 63 bits.
const TTL_MS_MAX: u128 = 1 << 60;
const BYTES: u8 = b'b';

/// What a Redis server says of itself, for an operator who sets a host up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    pub version: String,
    pub major: u32,
    /// Bytes; 0 for no bound.
    pub memory_max: u64,
    /// What it does when they are full.
    pub policy: String,
}

/// Errors: it does not answer within `DOCTOR_ANSWER_MS`, in words for the operator.
pub async fn inspect(url: &str) -> Result<Inspection, String> {
    let (_, mut connection) = redis_connection::open(url).map_err(|error| error.to_string())?;
    let info = cmd("INFO");
    let answer = tokio::time::timeout(Duration::from_millis(limits::DOCTOR_ANSWER_MS), info.query_async::<String>(&mut connection));
    let answer = answer.await.map_err(|_| format!("no answer within {} ms", limits::DOCTOR_ANSWER_MS))?;
    let text = answer.map_err(|error| certificates::refusal(&error).unwrap_or_else(|| error.to_string()))?;
    Ok(read_info(&text))
}

fn read_info(text: &str) -> Inspection {
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim().to_owned();
    let version = value("redis_version");
    Inspection {
        major: version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0),
        version,
        memory_max: value("maxmemory").parse().unwrap_or(0),
        policy: value("maxmemory_policy"),
    }
}

pub struct RedisCache {
    connection: ConnectionManager,
    prefix: String,
    swap: Script,
    delete_equal: Script,
    add_members: Script,
}

impl RedisCache {
    /// Errors: the server's certificate is not accepted, and what to do about it.
    pub async fn check_certificate(url: &str) -> Result<(), String> {
        redis_connection::check_certificate(url).await
    }

    /// `url`: `redis://` or, with TLS, `rediss://`. Connects when it is first asked, and again whenever the connection is lost.
    /// Errors: an address that cannot be read.
    pub fn open(url: &str, prefix: &str) -> Result<Self, String> {
        let (_, connection) = redis_connection::open(url).map_err(|error| error.to_string())?;
        Ok(Self {
            connection,
            prefix: prefix.to_owned(),
            swap: Script::new(SWAP),
            delete_equal: Script::new(DELETE_EQUAL),
            add_members: Script::new(ADD_MEMBERS),
        })
    }

    fn key(&self, key: &str) -> String {
        match key.split_once(':') {
            Some((service, rest)) => format!("{}:{{{service}}}:{rest}", self.prefix),
            None => format!("{}:{{}}:{key}", self.prefix),
        }
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CacheError> {
        command.query_async(&mut self.connection.clone()).await.map_err(error_of)
    }

    fn set_command(&self, key: &str, value: &[u8], ttl: Option<Duration>) -> Cmd {
        let mut command = cmd("SET");
        command.arg(self.key(key)).arg(marked(value));
        if let Some(ms) = ttl_ms(ttl) {
            command.arg("PX").arg(ms);
        }
        command
    }
}

/// `KEYS[1]`; the value that is expected, or empty for none; the new value; the time to live in ms, or 0.
const SWAP: &str = r"
    local value = redis.call('GET', KEYS[1])
    if value and string.sub(value, 1, 1) ~= 'b' then return redis.error_reply('WRONGTYPE a number') end
    if (value or '') ~= ARGV[1] then return 0 end
    if ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
    return 1";

const DELETE_EQUAL: &str = r"
    local value = redis.call('GET', KEYS[1])
    if value and string.sub(value, 1, 1) ~= 'b' then return redis.error_reply('WRONGTYPE a number') end
    if value ~= ARGV[1] then return 0 end
    return redis.call('DEL', KEYS[1])";

/// `KEYS[1]`; the time to live of a new set in ms, or 0; the bytes that a set may have, and those of a member beside its own; the longest member;
/// the members. What a set has is counted only where it could be too much.
const ADD_MEMBERS: &str = r"
    local kind = redis.call('TYPE', KEYS[1]).ok
    if kind ~= 'none' and kind ~= 'set' then return redis.error_reply('WRONGTYPE no set') end
    if #ARGV == 4 then return 0 end
    local most, beside, longest = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
    local bytes = 0
    for i = 5, #ARGV do bytes = bytes + #ARGV[i] + beside end
    if bytes + redis.call('SCARD', KEYS[1]) * (longest + beside) > most then
        bytes = 0
        local seen = {}
        for _, member in ipairs(redis.call('SMEMBERS', KEYS[1])) do seen[member] = true; bytes = bytes + #member + beside end
        for i = 5, #ARGV do
            if not seen[ARGV[i]] then seen[ARGV[i]] = true; bytes = bytes + #ARGV[i] + beside end
        end
        if bytes > most then return -1 end
    end
    local added = 0
    for i = 5, #ARGV do added = added + redis.call('SADD', KEYS[1], ARGV[i]) end
    if kind == 'none' and ARGV[1] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
    return added";

#[async_trait]
impl Cache for RedisCache {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, CacheError> {
        unmarked(self.ask(cmd("GET").arg(self.key(key))).await?)
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<(), CacheError> {
        self.ask(&self.set_command(key, &value, ttl)).await
    }

    async fn delete(&self, key: &str) -> Result<bool, CacheError> {
        self.ask(cmd("DEL").arg(self.key(key))).await
    }

    async fn get_multi(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, CacheError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        // MGET would take a set for nothing.
        let mut pipeline = pipe();
        for key in keys {
            pipeline.cmd("GET").arg(self.key(key));
        }
        let values: Vec<Option<Vec<u8>>> = pipeline.query_async(&mut self.connection.clone()).await.map_err(error_of)?;
        values.into_iter().map(unmarked).collect()
    }

    async fn set_multi(&self, entries: Vec<(String, Bytes)>, ttl: Option<Duration>) -> Result<(), CacheError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut pipeline = pipe();
        for (key, value) in &entries {
            pipeline.add_command(self.set_command(key, value, ttl)).ignore();
        }
        pipeline.query_async(&mut self.connection.clone()).await.map_err(error_of)
    }

    async fn add(&self, key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, CacheError> {
        // Not a script: Lua's numbers have 53 bits.
        let key = self.key(key);
        let mut transaction = pipe();
        transaction.atomic().cmd("SET").arg(&key).arg(0).arg("NX");
        if let Some(ms) = ttl_ms(ttl) {
            transaction.arg("PX").arg(ms);
        }
        transaction.ignore().cmd("INCRBY").arg(&key).arg(by);
        let (sum,): (i64,) = transaction.query_async(&mut self.connection.clone()).await.map_err(error_of)?;
        Ok(sum)
    }

    async fn expire(&self, key: &str, ttl: Duration) -> Result<bool, CacheError> {
        let key = self.key(key);
        match u64::try_from(ttl.as_millis()) {
            Ok(ms) if u128::from(ms) < TTL_MS_MAX => self.ask(cmd("PEXPIRE").arg(key).arg(ms)).await,
            _ => {
                let (exists, _): (bool, bool) = pipe()
                    .atomic()
                    .cmd("EXISTS")
                    .arg(&key)
                    .cmd("PERSIST")
                    .arg(&key)
                    .query_async(&mut self.connection.clone())
                    .await
                    .map_err(error_of)?;
                Ok(exists)
            }
        }
    }

    async fn ttl(&self, key: &str) -> Result<Option<Duration>, CacheError> {
        let ms: i64 = self.ask(cmd("PTTL").arg(self.key(key))).await?;
        Ok(u64::try_from(ms).ok().map(Duration::from_millis))
    }

    async fn set_if_absent(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<bool, CacheError> {
        let mut command = self.set_command(key, &value, ttl);
        let set: Option<String> = self.ask(command.arg("NX")).await?;
        Ok(set.is_some())
    }

    async fn compare_and_swap(&self, key: &str, expected: Option<Bytes>, value: Bytes, ttl: Option<Duration>) -> Result<bool, CacheError> {
        let expected = expected.map(|expected| marked(&expected)).unwrap_or_default();
        let mut swap = self.swap.prepare_invoke();
        swap.key(self.key(key)).arg(expected).arg(marked(&value)).arg(ttl_ms(ttl).unwrap_or(0));
        swap.invoke_async(&mut self.connection.clone()).await.map_err(error_of)
    }

    async fn compare_and_delete(&self, key: &str, expected: &[u8]) -> Result<bool, CacheError> {
        let mut delete = self.delete_equal.prepare_invoke();
        delete.key(self.key(key)).arg(marked(expected));
        delete.invoke_async(&mut self.connection.clone()).await.map_err(error_of)
    }

    async fn set_add(&self, key: &str, members: &[String], ttl: Option<Duration>) -> Result<u32, CacheError> {
        let mut add = self.add_members.prepare_invoke();
        add.key(self.key(key)).arg(ttl_ms(ttl).unwrap_or(0)).arg(limits::CACHE_VALUE_BYTES_MAX);
        add.arg(limits::CACHE_MEMBER_OVERHEAD_BYTES).arg(limits::CACHE_KEY_BYTES_MAX).arg(members);
        let added: i64 = add.invoke_async(&mut self.connection.clone()).await.map_err(error_of)?;
        u32::try_from(added).map_err(|_| CacheError::TooLarge)
    }

    async fn set_remove(&self, key: &str, members: &[String]) -> Result<u32, CacheError> {
        if members.is_empty() {
            return Ok(0);
        }
        self.ask(cmd("SREM").arg(self.key(key)).arg(members)).await
    }

    async fn set_members(&self, key: &str) -> Result<Vec<String>, CacheError> {
        self.ask(cmd("SMEMBERS").arg(self.key(key))).await
    }

    async fn set_contains(&self, key: &str, member: &str) -> Result<bool, CacheError> {
        self.ask(cmd("SISMEMBER").arg(self.key(key)).arg(member)).await
    }

    async fn ping(&self) -> Result<(), CacheError> {
        self.ask(&cmd("PING")).await
    }
}

/// None for no end. At least a millisecond, as Redis knows no time to live of none.
fn ttl_ms(ttl: Option<Duration>) -> Option<u64> {
    let ms = ttl?.as_millis();
    if ms >= TTL_MS_MAX { None } else { u64::try_from(ms.max(1)).ok() }
}

fn marked(value: &[u8]) -> Vec<u8> {
    let mut marked = Vec::with_capacity(value.len() + 1);
    marked.push(BYTES);
    marked.extend_from_slice(value);
    marked
}

fn unmarked(value: Option<Vec<u8>>) -> Result<Option<Bytes>, CacheError> {
    match value {
        None => Ok(None),
        Some(value) if value.first() == Some(&BYTES) => Ok(Some(Bytes::from(value).slice(1..))),
        Some(_) => Err(CacheError::WrongKind),
    }
}

fn error_of(error: RedisError) -> CacheError {
    let text = error.to_string();
    if error.code() == Some("WRONGTYPE") || text.contains("WRONGTYPE") || text.contains("not an integer") {
        return CacheError::WrongKind;
    }
    if text.contains("overflow") {
        return CacheError::TooLarge;
    }
    if matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ResponseError)) {
        // What the server refuses is a mistake here, or its memory is full: it is of no use either way.
        tracing::warn!(%error, "Redis refuses a command");
    }
    CacheError::Unavailable
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::cache::suite;

    #[test]
    fn what_a_server_says_of_itself_is_read() {
        let text = "# Server\r\nredis_version:7.2.4\r\nmaxmemory:1048576\r\nmaxmemory_human:1.00M\r\nmaxmemory_policy:noeviction\r\n";
        let expect = Inspection { version: "7.2.4".to_owned(), major: 7, memory_max: 1_048_576, policy: "noeviction".to_owned() };
        assert_eq!(read_info(text), expect);
        assert_eq!(read_info("").major, 0);
    }

    fn opened() -> RedisCache {
        let url = echo_engines::redis::of_this_process().unwrap_or_else(|error| panic!("{error}"));
        RedisCache::open(&url, &format!("test-{}", Uuid::now_v7())).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn it_passes_the_suite() {
        suite::suite(Arc::new(opened())).await;
    }

    #[tokio::test]
    async fn a_service_has_its_keys_on_one_node_of_a_cluster_and_prefixes_do_not_meet() {
        let cache = opened();
        assert_eq!(cache.key("auth:otp:1"), format!("{}:{{auth}}:otp:1", cache.prefix));
        let other = opened();
        cache.set("auth:a", Bytes::from_static(b"1"), None).await.unwrap();
        assert_eq!(other.get("auth:a").await, Ok(None));
    }

    #[tokio::test]
    async fn a_set_that_cannot_grow_stays_as_it_was() {
        let cache = opened();
        cache.set_add("s:set", &["first".to_owned()], None).await.unwrap();
        let many: Vec<_> = (0..5_000).map(|n| format!("{n:0300}")).collect();
        assert_eq!(cache.set_add("s:set", &many, None).await, Err(CacheError::TooLarge));
        assert_eq!(cache.set_members("s:set").await.unwrap(), ["first"]);
        // Many short ones are counted exactly, and fit.
        let short: Vec<_> = (0..5_000).map(|n| n.to_string()).collect();
        assert_eq!(cache.set_add("s:set", &short, None).await, Ok(5_000));
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_unavailable_at_once_and_found_again() {
        let below = std::env::temp_dir();
        let server = echo_engines::redis::Redis::start(&below).unwrap();
        let (url, port) = (server.url(), server.port());
        let cache = RedisCache::open(&url, "test").unwrap();
        cache.ping().await.unwrap();
        drop(server);
        let begin = std::time::Instant::now();
        assert_eq!(cache.get("a:b").await, Err(CacheError::Unavailable));
        assert_eq!(cache.ping().await, Err(CacheError::Unavailable));
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
        let _server = echo_engines::redis::Redis::start_on(&below, port).unwrap();
        let begin = std::time::Instant::now();
        while cache.ping().await.is_err() {
            assert!(begin.elapsed() < Duration::from_secs(10), "it was not found again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
