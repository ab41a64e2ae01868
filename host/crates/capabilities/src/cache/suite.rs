//! The suite that every cache passes, alone or shared with others: it uses keys that nobody else has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::{Cache, CacheError};

pub async fn suite(cache: Arc<dyn Cache>) {
    cache.ping().await.unwrap();
    bytes_are_kept(&*cache).await;
    several_at_once(&*cache).await;
    numbers_add_up(&*cache).await;
    sets_hold_members(&*cache).await;
    a_value_has_one_kind(&*cache).await;
    values_end(&*cache).await;
    only_one_is_first(&cache).await;
    a_swap_loses_no_update(&cache).await;
    additions_lose_no_update(&cache).await;
}

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

fn key() -> String {
    format!("suite:{}", Uuid::new_v4())
}

fn value(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

async fn bytes_are_kept(cache: &dyn Cache) {
    let key = key();
    assert_eq!(cache.get(&key).await, Ok(None));
    cache.set(&key, value("one"), None).await.unwrap();
    assert_eq!(cache.get(&key).await, Ok(Some(value("one"))));
    cache.set(&key, value("two"), None).await.unwrap();
    assert_eq!(cache.get(&key).await, Ok(Some(value("two"))));
    assert_eq!(cache.delete(&key).await, Ok(true));
    assert_eq!(cache.delete(&key).await, Ok(false));
    assert_eq!(cache.get(&key).await, Ok(None));
    let raw = Bytes::from((0..=255).collect::<Vec<u8>>());
    cache.set(&key, raw.clone(), MINUTE).await.unwrap();
    assert_eq!(cache.get(&key).await, Ok(Some(raw)));
    cache.set(&key, Bytes::new(), MINUTE).await.unwrap();
    assert_eq!(cache.get(&key).await, Ok(Some(Bytes::new())), "an empty value is a value");
}

async fn several_at_once(cache: &dyn Cache) {
    let (a, b, c) = (key(), key(), key());
    cache.set_multi(vec![(a.clone(), value("A")), (c.clone(), value("C"))], MINUTE).await.unwrap();
    let found = cache.get_multi(&[c.clone(), b, a.clone(), c.clone()]).await.unwrap();
    assert_eq!(found, [Some(value("C")), None, Some(value("A")), Some(value("C"))], "one answer per key, in order");
    assert_eq!(cache.get_multi(&[]).await, Ok(Vec::new()));
    assert!(cache.ttl(&a).await.unwrap().is_some_and(|left| left <= Duration::from_secs(60)));
}

async fn numbers_add_up(cache: &dyn Cache) {
    let key = key();
    assert_eq!(cache.add(&key, 5, MINUTE).await, Ok(5));
    assert_eq!(cache.add(&key, -7, None).await, Ok(-2));
    assert!(cache.ttl(&key).await.unwrap().is_some(), "only a new number gets the ttl, an old one keeps its own");
    assert_eq!(cache.add(&key, i64::MIN, None).await, Err(CacheError::TooLarge), "no wrapping around");
    assert_eq!(cache.add(&key, 0, None).await, Ok(-2));
}

async fn sets_hold_members(cache: &dyn Cache) {
    let key = key();
    assert_eq!(cache.set_members(&key).await, Ok(Vec::new()));
    assert_eq!(cache.set_add(&key, &words(&["a", "b", "b"]), MINUTE).await, Ok(2));
    assert_eq!(cache.set_add(&key, &words(&["b", "c"]), None).await, Ok(1));
    assert_eq!(cache.set_contains(&key, "c").await, Ok(true));
    assert_eq!(cache.set_contains(&key, "d").await, Ok(false));
    let mut members = cache.set_members(&key).await.unwrap();
    members.sort();
    assert_eq!(members, ["a", "b", "c"]);
    assert!(cache.ttl(&key).await.unwrap().is_some(), "a set that grows keeps its ttl");
    assert_eq!(cache.set_remove(&key, &words(&["a", "x"])).await, Ok(1));
    assert_eq!(cache.set_remove(&key, &words(&["b", "c"])).await, Ok(2));
    assert_eq!(cache.delete(&key).await, Ok(false), "an empty set is gone");
    assert_eq!(cache.set_add(&key, &[], None).await, Ok(0));
    assert_eq!(cache.delete(&key).await, Ok(false));
}

async fn a_value_has_one_kind(cache: &dyn Cache) {
    let (bytes, number, set) = (key(), key(), key());
    cache.set(&bytes, value("5"), MINUTE).await.unwrap();
    cache.add(&number, 5, MINUTE).await.unwrap();
    cache.set_add(&set, &words(&["5"]), MINUTE).await.unwrap();
    for other in [&number, &set] {
        assert_eq!(cache.get(other).await, Err(CacheError::WrongKind));
        assert_eq!(cache.get_multi(std::slice::from_ref(other)).await, Err(CacheError::WrongKind));
        assert_eq!(cache.compare_and_swap(other, None, value("6"), None).await, Err(CacheError::WrongKind));
        assert_eq!(cache.set_if_absent(other, value("6"), None).await, Ok(false));
    }
    for other in [&bytes, &set] {
        assert_eq!(cache.add(other, 1, None).await, Err(CacheError::WrongKind));
    }
    for other in [&bytes, &number] {
        assert_eq!(cache.set_add(other, &words(&["6"]), None).await, Err(CacheError::WrongKind));
        assert_eq!(cache.set_remove(other, &words(&["5"])).await, Err(CacheError::WrongKind));
        assert_eq!(cache.set_members(other).await, Err(CacheError::WrongKind));
        assert_eq!(cache.set_contains(other, "5").await, Err(CacheError::WrongKind));
    }
    cache.set(&set, value("bytes now"), None).await.unwrap();
    assert_eq!(cache.get(&set).await, Ok(Some(value("bytes now"))), "set takes the place of any kind");
}

async fn values_end(cache: &dyn Cache) {
    let (short, long, endless) = (key(), key(), key());
    cache.set(&short, value("short"), Some(Duration::from_millis(40))).await.unwrap();
    cache.set(&long, value("long"), MINUTE).await.unwrap();
    cache.set(&endless, value("endless"), None).await.unwrap();
    assert_eq!(cache.ttl(&endless).await, Ok(None));
    assert_eq!(cache.ttl(&key()).await, Ok(None));
    let left = cache.ttl(&long).await.unwrap().expect("it has an end");
    assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(60));
    gone(cache, &short).await;
    assert_eq!(cache.ttl(&short).await, Ok(None));
    assert_eq!(cache.expire(&short, Duration::from_secs(1)).await, Ok(false));
    assert_eq!(cache.delete(&short).await, Ok(false));
    assert_eq!(cache.set_if_absent(&short, value("again"), None).await, Ok(true));

    assert_eq!(cache.expire(&endless, Duration::from_millis(20)).await, Ok(true));
    gone(cache, &endless).await;
    cache.set(&long, value("for ever"), None).await.unwrap();
    assert_eq!(cache.ttl(&long).await, Ok(None), "a new value brings its own end, or none");
    cache.set(&long, value("for ever"), Some(Duration::MAX)).await.unwrap();
    assert_eq!(cache.get(&long).await, Ok(Some(value("for ever"))));
}

async fn gone(cache: &dyn Cache, key: &str) {
    let begin = Instant::now();
    while cache.get(key).await.unwrap().is_some() {
        assert!(begin.elapsed() < Duration::from_secs(10), "it should have ended");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const TASKS: usize = 16;
const ROUNDS: usize = 50;

/// Runs the same work on many tasks and gives what each returned.
async fn race<F: Future<Output = u64> + Send + 'static>(work: impl Fn(usize) -> F) -> Vec<u64> {
    let tasks: Vec<_> = (0..TASKS).map(|n| tokio::spawn(work(n))).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

async fn only_one_is_first(cache: &Arc<dyn Cache>) {
    let keys: Vec<_> = (0..ROUNDS).map(|_| key()).collect();
    let wins = race(|_| {
        let (cache, keys) = (cache.clone(), keys.clone());
        async move {
            let mut wins = 0;
            for key in keys {
                wins += u64::from(cache.set_if_absent(&key, value("mine"), MINUTE).await.unwrap());
                tokio::task::yield_now().await;
            }
            wins
        }
    })
    .await;
    assert_eq!(wins.iter().sum::<u64>(), ROUNDS as u64, "each key was absent for exactly one");
}

async fn a_swap_loses_no_update(cache: &Arc<dyn Cache>) {
    let key = key();
    race(|_| {
        let (cache, key) = (cache.clone(), key.clone());
        async move {
            for _ in 0..ROUNDS {
                loop {
                    let old = cache.get(&key).await.unwrap();
                    let sum: u64 = old.as_ref().map_or(0, |old| std::str::from_utf8(old).unwrap().parse().unwrap());
                    let new = Bytes::from((sum + 1).to_string());
                    if cache.compare_and_swap(&key, old, new, MINUTE).await.unwrap() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            0
        }
    })
    .await;
    assert_eq!(cache.get(&key).await, Ok(Some(Bytes::from((TASKS * ROUNDS).to_string()))));
    assert_eq!(cache.compare_and_swap(&key, None, value("x"), None).await, Ok(false));
    assert_eq!(cache.compare_and_swap(&key, Some(value("other")), value("x"), None).await, Ok(false));
    let sum = (TASKS * ROUNDS).to_string();
    assert_eq!(cache.compare_and_delete(&key, b"other").await, Ok(false), "another's value stays");
    assert_eq!(cache.compare_and_delete(&key, sum.as_bytes()).await, Ok(true));
    assert_eq!(cache.get(&key).await, Ok(None));
    assert_eq!(cache.compare_and_delete(&key, sum.as_bytes()).await, Ok(false), "there is nothing to delete");
}

async fn additions_lose_no_update(cache: &Arc<dyn Cache>) {
    let key = key();
    race(|_| {
        let (cache, key) = (cache.clone(), key.clone());
        async move {
            for _ in 0..ROUNDS {
                cache.add(&key, 1, MINUTE).await.unwrap();
                tokio::task::yield_now().await;
            }
            0
        }
    })
    .await;
    assert_eq!(cache.add(&key, 0, None).await, Ok((TASKS * ROUNDS) as i64));
}
