//! How a bucket is reached: its address, its credentials, and whether its server does what is asked of it.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig};
use uuid::Uuid;

use super::BucketBlobs;
use super::http_client::Connector;
use crate::blob::BucketSettings;
use echo_base::limits;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Settings(String),
    #[error("there is no bucket {0}")]
    NoBucket(String),
    #[error("the credentials are not accepted: {0}")]
    Refused(String),
    #[error("its server does not honour If-None-Match: * (a conditional PUT), by which two hosts are kept from taking each other's place")]
    Unconditional,
}

impl BucketBlobs {
    /// A server that is away is no error: what is stored there cannot be used until it comes back.
    pub async fn on_s3(settings: &BucketSettings) -> Result<Self, OpenError> {
        let retry = RetryConfig {
            backoff: BackoffConfig { init_backoff: Duration::from_millis(50), max_backoff: Duration::from_millis(500), base: 2.0 },
            max_retries: limits::BUCKET_RETRIES_MAX,
            retry_timeout: Duration::from_millis(limits::BUCKET_RETRY_MS),
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_access_key_id(&settings.access_key_id)
            .with_secret_access_key(&settings.secret_access_key)
            .with_virtual_hosted_style_request(!settings.is_path_style)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            // DELETE of one object each: not every server knows DeleteObjects.
            .with_disable_bulk_delete(true)
            .with_allow_http(settings.endpoint.starts_with("http://"))
            .with_http_connector(Connector)
            .with_retry(retry);
        if let Some(endpoint) = endpoint_of(settings) {
            builder = builder.with_endpoint(endpoint);
        }
        let store = builder.build().map_err(|error| OpenError::Settings(error.to_string()))?;
        let prefix = Path::parse(&settings.prefix).map_err(|error| OpenError::Settings(error.to_string()))?;
        let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(store, prefix));
        try_out(&*store, &settings.bucket).await?;
        Ok(Self::over(store))
    }
}

fn endpoint_of(settings: &BucketSettings) -> Option<String> {
    let (scheme, host) = settings.endpoint.split_once("://")?;
    let host = host.trim_end_matches('/');
    Some(if settings.is_path_style { format!("{scheme}://{host}") } else { format!("{scheme}://{}.{host}", settings.bucket) })
}

/// Whether what is asked of the server can be done there.
async fn try_out(store: &dyn ObjectStore, bucket: &str) -> Result<(), OpenError> {
    let path = Path::from_iter(["tried".to_owned(), Uuid::now_v7().to_string()]);
    let create = || store.put_opts(&path, PutPayload::from_static(b"may be deleted"), PutMode::Create.into());
    let outcome = match create().await {
        Ok(_) => create().await,
        failed => failed,
    };
    let outcome = match outcome {
        Ok(_) => Err(OpenError::Unconditional),
        Err(Error::AlreadyExists { .. }) => Ok(()),
        Err(Error::NotFound { .. }) => Err(OpenError::NoBucket(bucket.to_owned())),
        Err(error @ (Error::PermissionDenied { .. } | Error::Unauthenticated { .. })) => Err(OpenError::Refused(error.to_string())),
        Err(error) => {
            tracing::warn!(%error, "the bucket of blobs cannot be reached: files cannot be stored or read until it can");
            return Ok(());
        }
    };
    let _ = store.delete(&path).await;
    outcome
}
