//! Counters in Redis 7 or later, shared by all hosts: one script counts a request, by Redis's clock. A counter is a hash of its own, under a key of its own
//! hash slot, and goes when it has not been asked for in two windows.

use std::time::Duration;

use ::redis::Script;
use ::redis::aio::ConnectionManager;
use async_trait::async_trait;

use super::{Allowance, Key, Limit, Rates, RatesError, Strategy, Subject};
use crate::redis_connection;
use echo_base::limits;

pub struct RedisRates {
    connection: ConnectionManager,
    prefix: String,
    count: Script,
}

impl RedisRates {
    /// `url`: `redis://` or, with TLS, `rediss://`. Connects when it is first asked, and again whenever the connection is lost.
    /// Errors: an address that cannot be read.
    pub fn open(url: &str, prefix: &str) -> Result<Self, String> {
        let (_, connection) = redis_connection::open(url).map_err(|error| error.to_string())?;
        Ok(Self { connection, prefix: prefix.to_owned(), count: Script::new(COUNT) })
    }

    fn key(&self, Key { counter, subject }: Key) -> String {
        let prefix = &self.prefix;
        match subject {
            Subject::Address(address) => format!("{prefix}:{{rate:{counter:x}:a{address:x}}}"),
            Subject::User(user) => format!("{prefix}:{{rate:{counter:x}:u{}}}", user.simple()),
            Subject::Everybody => format!("{prefix}:{{rate:{counter:x}:all}}"),
        }
    }

    /// `now_us`: None for Redis's own clock.
    async fn count_at(&self, limit: &Limit, key: Key, now_us: Option<u64>) -> Result<Allowance, RatesError> {
        let strategy = match limit.strategy {
            Strategy::FixedWindow => "fixed",
            Strategy::SlidingWindow => "sliding",
            Strategy::TokenBucket => "bucket",
        };
        let mut count = self.count.prepare_invoke();
        count.key(self.key(key)).arg(strategy).arg(limit.requests).arg(limit.window_ms);
        count.arg(now_us.map(|now_us| now_us.to_string()).unwrap_or_default());
        let mut connection = self.connection.clone();
        // Connecting is within it: a request is not to wait for a server that does not even refuse.
        let time = Duration::from_millis(limits::RATE_ANSWER_MS);
        let answer = tokio::time::timeout(time, count.invoke_async::<(bool, u32, u64)>(&mut connection)).await;
        let answer = answer.map_err(|_| RatesError("it does not answer".to_owned()))?;
        let (is_allowed, remaining, reset_us) = answer.map_err(|error| RatesError(error.to_string()))?;
        Ok(Allowance { is_allowed, remaining, reset: Duration::from_micros(reset_us) })
    }
}

#[async_trait]
impl Rates for RedisRates {
    async fn count(&self, limit: &Limit, key: Key) -> Result<Allowance, RatesError> {
        self.count_at(limit, key, None).await
    }
}

/// As `memory.rs`, in microseconds: Lua's numbers hold those since 1970 exactly. `KEYS[1]`; the strategy, the requests, the window in milliseconds, the time or
/// nothing. `m`: when the window began, or the bucket is full; `c`, `b`: the requests of this window and of the one before.
const COUNT: &str = r"
    local now = tonumber(ARGV[4])
    if not now then
        local time = redis.call('TIME')
        now = time[1] * 1000000 + time[2]
    end
    local requests, window = tonumber(ARGV[2]), tonumber(ARGV[3]) * 1000
    local kept = redis.call('HMGET', KEYS[1], 'm', 'c', 'b')
    local mark, count, before = tonumber(kept[1] or ''), tonumber(kept[2] or '') or 0, tonumber(kept[3] or '') or 0
    -- Another server's clock may be behind that of the one before it.
    if mark and mark - now > window then mark = nil end
    local allowed, remaining, reset
    if ARGV[1] == 'fixed' then
        if not mark or now - mark >= window then mark, count = now, 0 end
        allowed = count < requests
        if allowed then count = count + 1 end
        remaining, reset = math.max(requests - count, 0), window - (now - mark)
    elseif ARGV[1] == 'sliding' then
        if not mark then mark, count, before = now, 0, 0 end
        local windows = math.floor((now - mark) / window)
        if windows > 0 then
            if windows == 1 then before = count else before = 0 end
            mark, count = mark + windows * window, 0
        end
        local left = window - (now - mark)
        local used = count + math.ceil(before * left / window)
        allowed = used < requests
        if allowed then
            count, remaining, reset = count + 1, requests - used - 1, left + window
        elseif count < requests then
            local covered = math.floor((requests - 1 - count) * window / math.max(before, 1))
            remaining, reset = 0, math.max(left - covered, 1)
        else
            remaining, reset = 0, left + math.ceil(window / count)
        end
    else
        local token = math.max(math.floor(window / requests), 1)
        local full = math.max(mark or 0, now) + token
        allowed = full - now <= window
        if allowed then mark = full end
        local missing = math.max((mark or 0) - now, 0)
        if allowed then reset = missing else reset = full - now - window end
        remaining = math.min(math.max(math.floor((window - missing) / token), 0), requests)
    end
    redis.call('HSET', KEYS[1], 'm', string.format('%.0f', mark), 'c', string.format('%.0f', count), 'b', string.format('%.0f', before))
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.min(2 * window / 1000 + 10000, 1e15)))
    return { allowed and 1 or 0, remaining, math.min(reset, 1e15) }";

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use uuid::Uuid;

    use super::*;
    use crate::rates::suite::{self, ALICE, Counted, rule};

    fn opened(prefix: &str) -> RedisRates {
        let url = echo_engines::redis::of_this_process().unwrap_or_else(|error| panic!("{error}"));
        RedisRates::open(&url, prefix).unwrap()
    }

    /// The store under a name that nobody else has, with a clock that it is given.
    struct Shared(RedisRates);

    impl Counted for Shared {
        async fn count(&mut self, limit: &Limit, key: Key, now_ms: u64) -> Allowance {
            self.0.count_at(limit, key, Some(1_800_000_000_000_000 + now_ms * 1_000)).await.unwrap()
        }

        async fn clear(&mut self) {
            self.0 = opened(&format!("test-{}", Uuid::now_v7()));
        }
    }

    #[tokio::test]
    async fn it_passes_the_suite() {
        suite::suite(&mut Shared(opened(&format!("test-{}", Uuid::now_v7())))).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_hosts_let_through_as_many_as_one_would() {
        for strategy in [Strategy::FixedWindow, Strategy::SlidingWindow, Strategy::TokenBucket] {
            let prefix = format!("test-{}", Uuid::now_v7());
            let rule = rule(strategy, 20, 3_600_000);
            let hosts = (0..3).map(|_| {
                let rates = opened(&prefix);
                tokio::spawn(async move {
                    let mut allowed = 0;
                    for _ in 0..20 {
                        allowed += u32::from(rates.count(&rule, Key { counter: 7, subject: ALICE }).await.unwrap().is_allowed);
                    }
                    allowed
                })
            });
            let mut allowed = 0;
            for host in hosts.collect::<Vec<_>>() {
                allowed += host.await.unwrap();
            }
            assert_eq!(allowed, 20, "{strategy:?}");
        }
    }

    #[tokio::test]
    async fn a_counter_goes_by_itself_and_is_one_key_of_one_slot() {
        let rates = opened(&format!("test-{}", Uuid::now_v7()));
        let key = Key { counter: 0xab, subject: Subject::User(Uuid::from_u128(5)) };
        rates.count(&rule(Strategy::FixedWindow, 1, 60_000), key).await.unwrap();
        let name = rates.key(key);
        assert!(name.ends_with(":{rate:ab:u00000000000000000000000000000005}"), "{name}");
        let left: i64 = ::redis::cmd("PTTL").arg(&name).query_async(&mut rates.connection.clone()).await.unwrap();
        assert!((60_000..=130_000).contains(&left), "{left} ms");
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_an_error_within_its_time() {
        let server = echo_engines::redis::Redis::start(&std::env::temp_dir()).unwrap();
        let rates = RedisRates::open(&server.url(), "test").unwrap();
        let rule = rule(Strategy::FixedWindow, 5, 1_000);
        rates.count(&rule, Key { counter: 7, subject: ALICE }).await.unwrap();
        drop(server);
        let began = Instant::now();
        assert!(rates.count(&rule, Key { counter: 7, subject: ALICE }).await.is_err());
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}
