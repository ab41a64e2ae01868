//! Objects of any size that never change, in a store of each service; and uploads, which become objects of the same name. Knows no HTTP.

use std::io;
use std::ops::Range;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use echo_base::names::ServiceName;

pub mod bucket;
pub mod host;
pub mod object_store;
#[cfg(test)]
mod suite;

pub use self::bucket::BucketBlobs;
pub use self::object_store::ObjectStoreBlobs;

/// What a client sends or is sent, piece by piece.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The name of the upload that it was.
    pub key: String,
    /// In bytes.
    pub size: u64,
}

/// Where a bucket is, and who asks.
#[derive(Clone)]
pub struct BucketSettings {
    pub bucket: String,
    /// Stands before every name, with `/` between its parts; may be empty.
    pub prefix: String,
    /// Empty: that of Amazon's region. `http://…` is not encrypted.
    pub endpoint: String,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    /// `endpoint/bucket/name`; else `bucket.endpoint/name`.
    pub is_path_style: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    #[error("the blob store cannot be reached: {0}")]
    Unavailable(String),
    #[error("no such upload or object")]
    NotFound,
    #[error("the upload has {size} bytes")]
    Conflict { size: u64 },
    #[error("more bytes than are allowed")]
    TooLarge,
    /// The stream that was to be stored broke off; what had arrived is kept.
    #[error("the bytes broke off after {size}")]
    BrokeOff { size: u64 },
    /// Sent in more pieces than an upload may have.
    #[error("an upload in too many pieces")]
    TooManyPieces,
    #[error("{0:?} names no upload and no object")]
    BadName(String),
}

/// All methods: `Unavailable` when the store cannot be reached. What is answered outlives the loss of power.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// What one `append` holds in memory at most, in bytes.
    fn append_bytes(&self) -> usize;
    /// Whether the store can be reached.
    async fn ping(&self) -> Result<(), BlobError>;
    /// Adds what comes to an upload that has `offset` bytes (0: a new one); the new size. Of several at one offset one succeeds.
    /// Errors: `Conflict` for another offset, or where it is an object already; `TooManyPieces` beyond `BLOB_PIECES_MAX`; `TooLarge` where the upload would have more than `size_max` bytes, nothing of this is kept then;
    /// `BrokeOff` with the new size where `body` ended with an error, what had arrived is kept.
    async fn append(&self, service: &ServiceName, upload: &str, offset: u64, size_max: u64, body: ByteStream) -> Result<u64, BlobError>;
    /// Bytes that have arrived. Errors: `NotFound` where none have.
    async fn upload_size(&self, service: &ServiceName, upload: &str) -> Result<u64, BlobError>;
    /// What there is of the range. Errors: `NotFound`.
    async fn read_upload(&self, service: &ServiceName, upload: &str, range: Range<u64>) -> Result<Bytes, BlobError>;
    /// Makes an object of an upload, which is gone then; asked again, the same answer. Errors: `NotFound`.
    async fn finish(&self, service: &ServiceName, upload: &str) -> Result<Object, BlobError>;
    /// Throws away what has arrived, if anything has.
    async fn discard(&self, service: &ServiceName, upload: &str) -> Result<(), BlobError>;
    /// In bytes. Errors: `NotFound`.
    async fn size(&self, service: &ServiceName, key: &str) -> Result<u64, BlobError>;
    /// The bytes of the range, which must lie within the object. Errors: `NotFound`.
    async fn read(&self, service: &ServiceName, key: &str, range: Range<u64>) -> Result<ByteStream, BlobError>;
    /// Whether it was there.
    async fn delete(&self, service: &ServiceName, key: &str) -> Result<bool, BlobError>;
}

/// 1 to 64 letters, digits and hyphens: nothing that could be a path.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
