//! The cache in this process: bounded by bytes. Where room is needed, the one that holds the most gives it, its least recently used entries first:
//! nobody who holds less than his share loses anything to others. Lost at restart, as a cache may be.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Cache, CacheError};
use echo_base::limits;

/// Keys are spread over shards, each with its own lock and its share of the bytes.
pub struct MemoryCache {
    shards: Box<[Mutex<Shard>]>,
    spread: RandomState,
}

impl MemoryCache {
    /// Holds at most `bytes_max` bytes of keys, values and their book-keeping. A value that is larger than one shard's share is refused.
    pub fn new(bytes_max: u64) -> Self {
        Self::with_owners(bytes_max, |_| "")
    }

    /// One for several owners, whose names stand before the first colon of their keys: none of them evicts what another has within his share.
    pub fn shared(bytes_max: u64) -> Self {
        Self::with_owners(bytes_max, |key| key.split_once(':').map_or("", |(owner, _)| owner))
    }

    fn with_owners(bytes_max: u64, owner_of: OwnerOf) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        // A shard must have room for several of the largest values, else one of them would sweep it empty.
        let count = (bytes_max / (4 * limits::CACHE_VALUE_BYTES_MAX)).clamp(1, SHARDS_MAX);
        let shards = (0..count).map(|_| Mutex::new(Shard::new(bytes_max / count, owner_of))).collect();
        Self { shards, spread: RandomState::new() }
    }

    /// What it holds now.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }

    fn with<R>(&self, key: &str, work: impl FnOnce(&mut Shard) -> R) -> R {
        let index = (self.spread.hash_one(key) as usize) % self.shards.len();
        work(&mut self.shards[index].lock())
    }
}

#[async_trait]
impl Cache for MemoryCache {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, CacheError> {
        self.with(key, |shard| shard.bytes_of(key))
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<(), CacheError> {
        self.with(key, |shard| shard.put(key, Value::Bytes(value), end_of(ttl)))
    }

    async fn delete(&self, key: &str) -> Result<bool, CacheError> {
        self.with(key, |shard| Ok(shard.touch(key).is_some() && shard.remove(key).is_some()))
    }

    async fn get_multi(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, CacheError> {
        keys.iter().map(|key| self.with(key, |shard| shard.bytes_of(key))).collect()
    }

    async fn set_multi(&self, entries: Vec<(String, Bytes)>, ttl: Option<Duration>) -> Result<(), CacheError> {
        let end = end_of(ttl);
        for (key, value) in entries {
            self.with(&key, |shard| shard.put(&key, Value::Bytes(value), end))?;
        }
        Ok(())
    }

    async fn add(&self, key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, CacheError> {
        self.with(key, |shard| match shard.touch(key) {
            None => shard.put(key, Value::Number(by), end_of(ttl)).map(|()| by),
            Some(Entry { value: Value::Number(number), .. }) => {
                *number = number.checked_add(by).ok_or(CacheError::TooLarge)?;
                Ok(*number)
            }
            Some(_) => Err(CacheError::WrongKind),
        })
    }

    async fn expire(&self, key: &str, ttl: Duration) -> Result<bool, CacheError> {
        self.with(key, |shard| Ok(shard.set_end(key, end_of(Some(ttl)))))
    }

    async fn ttl(&self, key: &str) -> Result<Option<Duration>, CacheError> {
        self.with(key, |shard| {
            let end = shard.touch(key).and_then(|entry| entry.end);
            Ok(end.map(|end| end.saturating_duration_since(Instant::now())))
        })
    }

    async fn set_if_absent(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<bool, CacheError> {
        self.with(key, |shard| match shard.touch(key) {
            Some(_) => Ok(false),
            None => shard.put(key, Value::Bytes(value), end_of(ttl)).map(|()| true),
        })
    }

    async fn compare_and_swap(&self, key: &str, expected: Option<Bytes>, value: Bytes, ttl: Option<Duration>) -> Result<bool, CacheError> {
        self.with(key, |shard| {
            if shard.bytes_of(key)? != expected {
                return Ok(false);
            }
            shard.put(key, Value::Bytes(value), end_of(ttl)).map(|()| true)
        })
    }

    async fn compare_and_delete(&self, key: &str, expected: &[u8]) -> Result<bool, CacheError> {
        self.with(key, |shard| {
            let is_expected = shard.bytes_of(key)?.is_some_and(|value| value == expected);
            Ok(is_expected && shard.remove(key).is_some())
        })
    }

    async fn set_add(&self, key: &str, members: &[String], ttl: Option<Duration>) -> Result<u32, CacheError> {
        self.with(key, |shard| {
            let (mut set, end) = match shard.take_set(key)? {
                Some(found) => found,
                None if members.is_empty() => return Ok(0),
                None => (HashSet::new(), end_of(ttl)),
            };
            let new: HashSet<&str> = members.iter().map(String::as_str).filter(|member| !set.contains(*member)).collect();
            let fits = set_bytes(&set) + new.iter().map(|member| member_bytes(member)).sum::<usize>() <= limits::CACHE_VALUE_BYTES_MAX;
            if fits {
                set.extend(new.iter().map(|member| Box::from(*member)));
            }
            if !set.is_empty() {
                shard.put(key, Value::Set(set), end)?;
            }
            if fits { Ok(count(new.len())) } else { Err(CacheError::TooLarge) }
        })
    }

    async fn set_remove(&self, key: &str, members: &[String]) -> Result<u32, CacheError> {
        self.with(key, |shard| {
            let Some((mut set, end)) = shard.take_set(key)? else { return Ok(0) };
            let gone = members.iter().filter(|member| set.remove(member.as_str())).count();
            // An empty set is no set: its key is gone.
            if !set.is_empty() {
                shard.put(key, Value::Set(set), end)?;
            }
            Ok(count(gone))
        })
    }

    async fn set_members(&self, key: &str) -> Result<Vec<String>, CacheError> {
        self.with(key, |shard| match shard.touch(key) {
            None => Ok(Vec::new()),
            Some(Entry { value: Value::Set(set), .. }) => Ok(set.iter().map(|member| member.to_string()).collect()),
            Some(_) => Err(CacheError::WrongKind),
        })
    }

    async fn set_contains(&self, key: &str, member: &str) -> Result<bool, CacheError> {
        self.with(key, |shard| match shard.touch(key) {
            None => Ok(false),
            Some(Entry { value: Value::Set(set), .. }) => Ok(set.contains(member)),
            Some(_) => Err(CacheError::WrongKind),
        })
    }

    async fn ping(&self) -> Result<(), CacheError> {
        Ok(())
    }
}

const SHARDS_MAX: usize = 16;
/// What an entry costs beside its key and value: the maps' nodes, the shared key's counts.
const ENTRY_OVERHEAD_BYTES: usize = 160;

type Members = HashSet<Box<str>>;

enum Value {
    Bytes(Bytes),
    Number(i64),
    Set(Members),
}

impl Value {
    fn bytes(&self) -> usize {
        match self {
            Value::Bytes(bytes) => bytes.len(),
            Value::Number(_) => size_of::<i64>(),
            Value::Set(set) => set_bytes(set),
        }
    }
}

fn set_bytes(set: &Members) -> usize {
    set.iter().map(|member| member_bytes(member)).sum()
}

fn member_bytes(member: &str) -> usize {
    member.len() + limits::CACHE_MEMBER_OVERHEAD_BYTES
}

fn count(members: usize) -> u32 {
    u32::try_from(members).unwrap_or(u32::MAX)
}

/// A time so far away that the clock cannot say it is no end.
fn end_of(ttl: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(ttl?)
}

struct Entry {
    value: Value,
    end: Option<Instant>,
    /// Its place in its owner's `recency`.
    used: u64,
    bytes: usize,
}

/// Whose entry it is, by its key.
type OwnerOf = fn(&str) -> &str;

/// A service, or a part of the host.
#[derive(Default)]
struct Owner {
    /// The least recently used first.
    recency: BTreeMap<u64, Arc<str>>,
    bytes: usize,
}

/// Every entry is in `entries` and its owner's `recency`, and in `ends` if it has one; `bytes` is their sum and never above `bytes_max`.
struct Shard {
    entries: HashMap<Arc<str>, Entry>,
    /// Only those that have entries.
    owners: HashMap<Box<str>, Owner>,
    owner_of: OwnerOf,
    /// The first to expire first.
    ends: BTreeSet<(Instant, Arc<str>)>,
    uses: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Shard {
    fn new(bytes_max: usize, owner_of: OwnerOf) -> Self {
        Self { entries: HashMap::new(), owners: HashMap::new(), owner_of, ends: BTreeSet::new(), uses: 0, bytes: 0, bytes_max }
    }

    /// The live entry, which now is the most recently used one.
    fn touch(&mut self, key: &str) -> Option<&mut Entry> {
        if self.entries.get(key)?.end.is_some_and(|end| end <= Instant::now()) {
            self.remove(key);
            return None;
        }
        let entry = self.entries.get_mut(key)?;
        self.uses += 1;
        let recency = &mut self.owners.get_mut((self.owner_of)(key)).expect("every entry has its owner").recency;
        let name = recency.remove(&entry.used).expect("every entry has its place");
        recency.insert(self.uses, name);
        entry.used = self.uses;
        Some(entry)
    }

    fn bytes_of(&mut self, key: &str) -> Result<Option<Bytes>, CacheError> {
        match self.touch(key) {
            None => Ok(None),
            Some(Entry { value: Value::Bytes(bytes), .. }) => Ok(Some(bytes.clone())),
            Some(_) => Err(CacheError::WrongKind),
        }
    }

    fn take_set(&mut self, key: &str) -> Result<Option<(Members, Option<Instant>)>, CacheError> {
        match self.touch(key) {
            None => Ok(None),
            Some(Entry { value: Value::Set(_), .. }) => match self.remove(key) {
                Some(Entry { value: Value::Set(set), end, .. }) => Ok(Some((set, end))),
                _ => Ok(None),
            },
            Some(_) => Err(CacheError::WrongKind),
        }
    }

    /// In place of whatever was there; makes room first.
    fn put(&mut self, key: &str, value: Value, end: Option<Instant>) -> Result<(), CacheError> {
        let bytes = key.len() + value.bytes() + ENTRY_OVERHEAD_BYTES;
        if bytes > self.bytes_max {
            return Err(CacheError::TooLarge);
        }
        self.remove(key);
        self.purge_expired();
        while self.bytes + bytes > self.bytes_max {
            let largest = self.owners.values().max_by_key(|owner| owner.bytes).expect("bytes are held by entries");
            let (_, oldest) = largest.recency.first_key_value().expect("owners have entries");
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
        let name: Arc<str> = key.into();
        self.uses += 1;
        if !self.owners.contains_key((self.owner_of)(key)) {
            self.owners.insert((self.owner_of)(key).into(), Owner::default());
        }
        let owner = self.owners.get_mut((self.owner_of)(key)).expect("made above");
        owner.recency.insert(self.uses, name.clone());
        owner.bytes += bytes;
        if let Some(end) = end {
            self.ends.insert((end, name.clone()));
        }
        self.bytes += bytes;
        self.entries.insert(name, Entry { value, end, used: self.uses, bytes });
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Option<Entry> {
        let (name, entry) = self.entries.remove_entry(key)?;
        let owner = self.owners.get_mut((self.owner_of)(key)).expect("every entry has its owner");
        owner.recency.remove(&entry.used);
        owner.bytes -= entry.bytes;
        if owner.recency.is_empty() {
            self.owners.remove((self.owner_of)(key));
        }
        if let Some(end) = entry.end {
            self.ends.remove(&(end, name));
        }
        self.bytes -= entry.bytes;
        Some(entry)
    }

    fn set_end(&mut self, key: &str, end: Option<Instant>) -> bool {
        let Some(entry) = self.touch(key) else { return false };
        let (used, old) = (entry.used, std::mem::replace(&mut entry.end, end));
        let name = self.owners[(self.owner_of)(key)].recency[&used].clone();
        if let Some(old) = old {
            self.ends.remove(&(old, name.clone()));
        }
        if let Some(end) = end {
            self.ends.insert((end, name));
        }
        true
    }

    fn purge_expired(&mut self) {
        let now = Instant::now();
        while let Some((end, name)) = self.ends.first() {
            if *end > now {
                break;
            }
            let name = name.clone();
            self.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::suite;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn it_passes_the_suite() {
        suite::suite(Arc::new(MemoryCache::shared(limits::CACHE_BYTES_MAX))).await;
    }

    #[tokio::test]
    async fn the_least_recently_used_go_first_and_the_bytes_stay_below_the_bound() {
        let bytes_max = 64 * 1024;
        let cache = MemoryCache::new(bytes_max);
        for n in 0..1_000 {
            cache.set(&format!("key{n}"), Bytes::from(vec![0; 1_000]), None).await.unwrap();
            // Used again and again, so never the oldest.
            assert!(cache.get("key0").await.unwrap().is_some(), "key0 is gone after {n}");
            assert!(cache.bytes() as u64 <= bytes_max);
        }
        assert_eq!(cache.get("key1").await.unwrap(), None);
        assert!(cache.get("key999").await.unwrap().is_some());
        assert_eq!(cache.set("huge", Bytes::from(vec![0; 65 * 1024]), None).await, Err(CacheError::TooLarge));
    }

    #[tokio::test]
    async fn one_service_cannot_evict_what_others_have() {
        let cache = MemoryCache::shared(64 * 1024);
        for n in 0..10 {
            cache.set(&format!("modest:{n}"), Bytes::from(vec![0; 1_000]), None).await.unwrap();
        }
        for n in 0..1_000 {
            cache.set(&format!("greedy:{n}"), Bytes::from(vec![0; 1_000]), None).await.unwrap();
        }
        for n in 0..10 {
            assert!(cache.get(&format!("modest:{n}")).await.unwrap().is_some(), "{n}");
        }
        assert!(cache.get("greedy:999").await.unwrap().is_some(), "what nobody else needs may be used");
        // Whoever comes later gets his share.
        for n in 0..20 {
            cache.set(&format!("late:{n}"), Bytes::from(vec![0; 1_000]), None).await.unwrap();
        }
        for n in 0..20 {
            assert!(cache.get(&format!("late:{n}")).await.unwrap().is_some(), "{n}");
        }
        assert!(cache.bytes() <= 64 * 1024);
    }

    #[tokio::test]
    async fn expired_values_make_room_before_live_ones() {
        let cache = MemoryCache::new(8 * 1024);
        cache.set("old but living", Bytes::from(vec![0; 3_000]), None).await.unwrap();
        cache.set("dead", Bytes::from(vec![0; 3_000]), Some(Duration::ZERO)).await.unwrap();
        cache.set("new", Bytes::from(vec![0; 3_000]), None).await.unwrap();
        assert!(cache.get("old but living").await.unwrap().is_some());
        assert!(cache.get("new").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn nothing_is_left_behind() {
        let cache = MemoryCache::new(limits::CACHE_BYTES_MAX);
        for n in 0..100 {
            let key = format!("key{n}");
            cache.set(&key, Bytes::from_static(b"value"), Some(Duration::from_secs(60))).await.unwrap();
            cache.expire(&key, Duration::from_secs(90)).await.unwrap();
            cache.set(&key, Bytes::from_static(b"other"), Some(Duration::from_secs(30))).await.unwrap();
            assert!(cache.delete(&key).await.unwrap());
        }
        assert_eq!(cache.bytes(), 0);
        for shard in &cache.shards {
            let shard = shard.lock();
            assert!(shard.entries.is_empty() && shard.owners.is_empty() && shard.ends.is_empty());
        }
    }

    #[tokio::test]
    async fn a_set_that_cannot_grow_stays_as_it_was() {
        let cache = MemoryCache::new(limits::CACHE_BYTES_MAX);
        cache.set_add("set", &["first".to_owned()], None).await.unwrap();
        let many: Vec<_> = (0..5_000).map(|n| format!("{n:0300}")).collect();
        assert_eq!(cache.set_add("set", &many, None).await, Err(CacheError::TooLarge));
        assert_eq!(cache.set_members("set").await.unwrap(), ["first"]);
    }
}
