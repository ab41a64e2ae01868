//! `echo:cache/cache` for a guest: bounds are checked and keys get the service's prefix here, so no service can name another's key.

use std::time::Duration;

use bytes::Bytes;
use wasmtime::component::{HasSelf, Linker};

use super::CacheError;
use crate::guest::Guest;
use bindings::echo::cache::cache::{CacheError as GuestError, Host};
use echo_base::limits;
use echo_base::names::ServiceName;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        inline: "package echo:host; world capability { import echo:cache/cache@0.1.0; }",
        imports: { default: async },
    });
}

/// Gives the interface to whatever is instantiated with this linker.
pub fn add_to_linker<T: Send + 'static>(linker: &mut Linker<T>, get: fn(&mut T) -> &mut Guest) -> wasmtime::Result<()> {
    bindings::echo::cache::cache::add_to_linker::<T, HasSelf<Guest>>(linker, get)
}

impl Host for Guest {
    async fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, GuestError> {
        let value = self.capabilities.cache.get(&own_key(&self.service, &key)?).await?;
        Ok(value.map(Vec::from))
    }

    async fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: Option<u64>) -> Result<(), GuestError> {
        let key = own_key(&self.service, &key)?;
        Ok(self.capabilities.cache.set(&key, checked_value(value)?, ttl(ttl_ms)).await?)
    }

    async fn delete(&mut self, key: String) -> Result<bool, GuestError> {
        Ok(self.capabilities.cache.delete(&own_key(&self.service, &key)?).await?)
    }

    async fn get_multi(&mut self, keys: Vec<String>) -> Result<Vec<Option<Vec<u8>>>, GuestError> {
        check_count(keys.len())?;
        let keys = keys.iter().map(|key| own_key(&self.service, key)).collect::<Result<Vec<_>, _>>()?;
        let values = self.capabilities.cache.get_multi(&keys).await?;
        // The same large value may be asked for a thousand times: count before copying.
        check_sum(values.iter().flatten().map(Bytes::len))?;
        Ok(values.into_iter().map(|value| value.map(Vec::from)).collect())
    }

    async fn set_multi(&mut self, entries: Vec<(String, Vec<u8>)>, ttl_ms: Option<u64>) -> Result<(), GuestError> {
        check_count(entries.len())?;
        check_sum(entries.iter().map(|(_, value)| value.len()))?;
        let mut checked = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            checked.push((own_key(&self.service, &key)?, checked_value(value)?));
        }
        Ok(self.capabilities.cache.set_multi(checked, ttl(ttl_ms)).await?)
    }

    async fn increment(&mut self, key: String, by: u64, ttl_ms: Option<u64>) -> Result<i64, GuestError> {
        let by = i64::try_from(by).map_err(|_| GuestError::TooLarge)?;
        Ok(self.capabilities.cache.add(&own_key(&self.service, &key)?, by, ttl(ttl_ms)).await?)
    }

    async fn decrement(&mut self, key: String, by: u64, ttl_ms: Option<u64>) -> Result<i64, GuestError> {
        let by = i64::try_from(by).map_err(|_| GuestError::TooLarge)?;
        Ok(self.capabilities.cache.add(&own_key(&self.service, &key)?, -by, ttl(ttl_ms)).await?)
    }

    async fn expire(&mut self, key: String, ttl_ms: u64) -> Result<bool, GuestError> {
        Ok(self.capabilities.cache.expire(&own_key(&self.service, &key)?, Duration::from_millis(ttl_ms)).await?)
    }

    async fn ttl(&mut self, key: String) -> Result<Option<u64>, GuestError> {
        let left = self.capabilities.cache.ttl(&own_key(&self.service, &key)?).await?;
        Ok(left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)))
    }

    async fn set_if_absent(&mut self, key: String, value: Vec<u8>, ttl_ms: Option<u64>) -> Result<bool, GuestError> {
        let key = own_key(&self.service, &key)?;
        Ok(self.capabilities.cache.set_if_absent(&key, checked_value(value)?, ttl(ttl_ms)).await?)
    }

    async fn compare_and_swap(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> Result<bool, GuestError> {
        let key = own_key(&self.service, &key)?;
        let expected = expected.map(checked_value).transpose()?;
        Ok(self.capabilities.cache.compare_and_swap(&key, expected, checked_value(value)?, ttl(ttl_ms)).await?)
    }

    async fn set_add(&mut self, key: String, members: Vec<String>, ttl_ms: Option<u64>) -> Result<u32, GuestError> {
        check_members(&members)?;
        Ok(self.capabilities.cache.set_add(&own_key(&self.service, &key)?, &members, ttl(ttl_ms)).await?)
    }

    async fn set_remove(&mut self, key: String, members: Vec<String>) -> Result<u32, GuestError> {
        check_members(&members)?;
        Ok(self.capabilities.cache.set_remove(&own_key(&self.service, &key)?, &members).await?)
    }

    async fn set_members(&mut self, key: String) -> Result<Vec<String>, GuestError> {
        Ok(self.capabilities.cache.set_members(&own_key(&self.service, &key)?).await?)
    }

    async fn set_contains(&mut self, key: String, member: String) -> Result<bool, GuestError> {
        check_members(std::slice::from_ref(&member))?;
        Ok(self.capabilities.cache.set_contains(&own_key(&self.service, &key)?, &member).await?)
    }
}

fn own_key(service: &ServiceName, key: &str) -> Result<String, GuestError> {
    if key.len() > limits::CACHE_KEY_BYTES_MAX {
        return Err(GuestError::TooLarge);
    }
    // No service name holds a colon, so no two services' keys can meet.
    Ok(format!("{service}:{key}"))
}

fn checked_value(value: Vec<u8>) -> Result<Bytes, GuestError> {
    if value.len() > limits::CACHE_VALUE_BYTES_MAX {
        return Err(GuestError::TooLarge);
    }
    Ok(Bytes::from(value))
}

fn check_count(count: usize) -> Result<(), GuestError> {
    if count > limits::CACHE_KEYS_PER_CALL_MAX { Err(GuestError::TooLarge) } else { Ok(()) }
}

fn check_sum(lengths: impl Iterator<Item = usize>) -> Result<(), GuestError> {
    if lengths.sum::<usize>() > limits::CACHE_CALL_BYTES_MAX { Err(GuestError::TooLarge) } else { Ok(()) }
}

fn check_members(members: &[String]) -> Result<(), GuestError> {
    check_count(members.len())?;
    if members.iter().any(|member| member.len() > limits::CACHE_KEY_BYTES_MAX) { Err(GuestError::TooLarge) } else { Ok(()) }
}

fn ttl(ttl_ms: Option<u64>) -> Option<Duration> {
    ttl_ms.map(Duration::from_millis)
}

impl From<CacheError> for GuestError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Unavailable => GuestError::Unavailable,
            CacheError::TooLarge => GuestError::TooLarge,
            CacheError::WrongKind => GuestError::WrongKind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> ServiceName {
        ServiceName::parse(name).unwrap()
    }

    #[test]
    fn no_key_of_one_service_is_a_key_of_another() {
        assert_eq!(own_key(&service("auth"), "otp:1").unwrap(), "auth:otp:1");
        assert!(ServiceName::parse("auth:otp").is_err(), "else auth could write its keys");
        assert!(own_key(&service("auth"), &"k".repeat(limits::CACHE_KEY_BYTES_MAX)).is_ok());
        assert!(matches!(own_key(&service("auth"), &"k".repeat(limits::CACHE_KEY_BYTES_MAX + 1)), Err(GuestError::TooLarge)));
    }

    #[test]
    fn lengths_and_counts_are_bounded() {
        assert!(checked_value(vec![0; limits::CACHE_VALUE_BYTES_MAX]).is_ok());
        assert!(checked_value(vec![0; limits::CACHE_VALUE_BYTES_MAX + 1]).is_err());
        assert!(check_members(&vec![String::new(); limits::CACHE_KEYS_PER_CALL_MAX]).is_ok());
        assert!(check_members(&vec![String::new(); limits::CACHE_KEYS_PER_CALL_MAX + 1]).is_err());
        assert!(check_members(&["m".repeat(limits::CACHE_KEY_BYTES_MAX + 1)]).is_err());
        let large = std::iter::repeat_n(limits::CACHE_VALUE_BYTES_MAX, limits::CACHE_CALL_BYTES_MAX / limits::CACHE_VALUE_BYTES_MAX);
        assert!(check_sum(large.clone()).is_ok());
        assert!(check_sum(large.chain([1])).is_err());
    }
}
