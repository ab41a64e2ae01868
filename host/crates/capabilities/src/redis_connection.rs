//! How Redis is connected to, for all that is kept there.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError};

use crate::certificates;
use echo_base::limits;

/// While Redis is away a host serves on; where its certificate is not accepted, it never would come. Errors: why, and what to do.
pub(crate) async fn check_certificate(url: &str) -> Result<(), String> {
    if !url.starts_with("rediss://") {
        return Ok(());
    }
    let client = Client::open(url).map_err(|error| error.to_string())?;
    let time = Duration::from_millis(limits::REDIS_CONNECT_MS);
    match tokio::time::timeout(time, client.get_multiplexed_async_connection()).await {
        Ok(Err(error)) => certificates::refusal(&error).map_or(Ok(()), Err),
        _ => Ok(()),
    }
}

/// One connection for all who ask; it is made when it is first used, and again whenever it is lost. `url`: `redis://` or, with TLS, `rediss://`. Whoever asks
/// while it is away is told so at once; the next one tries again. Errors: an address that cannot be read.
pub(crate) fn open(url: &str) -> Result<(Client, ConnectionManager), RedisError> {
    let client = Client::open(url)?;
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(Duration::from_millis(limits::REDIS_CONNECT_MS)))
        .set_response_timeout(Some(Duration::from_millis(limits::REDIS_ANSWER_MS)))
        .set_number_of_retries(0);
    let connection = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
    Ok((client, connection))
}
