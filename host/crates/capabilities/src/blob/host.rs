//! `echo:blob/blob` for a guest: each service in its own store, and no more bytes at once than its memory should see.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use wasmtime::component::{HasSelf, Linker};

use super::BlobError;
use crate::guest::Guest;
use bindings::echo::blob::blob::{BlobError as GuestError, Host, Object};
use echo_base::limits;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        inline: "package echo:host; world capability { import echo:blob/blob@0.1.0; }",
        imports: { default: async },
    });
}

/// Gives the interface to whatever is instantiated with this linker.
pub fn add_to_linker<T: Send + 'static>(linker: &mut Linker<T>, get: fn(&mut T) -> &mut Guest) -> wasmtime::Result<()> {
    bindings::echo::blob::blob::add_to_linker::<T, HasSelf<Guest>>(linker, get)
}

impl Host for Guest {
    async fn upload_size(&mut self, upload: String) -> Result<u64, GuestError> {
        Ok(self.capabilities.blobs.upload_size(&self.service, &upload).await?)
    }

    async fn read_upload(&mut self, upload: String, offset: u64, length: u32) -> Result<Vec<u8>, GuestError> {
        let range = offset..offset.saturating_add(checked(length)?);
        Ok(self.capabilities.blobs.read_upload(&self.service, &upload, range).await?.into())
    }

    async fn append(&mut self, upload: String, offset: u64, bytes: Vec<u8>) -> Result<u64, GuestError> {
        checked(u32::try_from(bytes.len()).map_err(|_| GuestError::TooLarge)?)?;
        let body = futures_util::stream::iter([Ok(Bytes::from(bytes))]).boxed();
        Ok(self.capabilities.blobs.append(&self.service, &upload, offset, limits::BLOB_BYTES_MAX, body).await?)
    }

    async fn finish(&mut self, upload: String) -> Result<Object, GuestError> {
        let super::Object { key, size } = self.capabilities.blobs.finish(&self.service, &upload).await?;
        Ok(Object { key, size })
    }

    async fn discard(&mut self, upload: String) -> Result<(), GuestError> {
        Ok(self.capabilities.blobs.discard(&self.service, &upload).await?)
    }

    async fn read(&mut self, key: String, offset: u64, length: u32) -> Result<Vec<u8>, GuestError> {
        let length = checked(length)?;
        let size = self.capabilities.blobs.size(&self.service, &key).await?;
        let range = offset.min(size)..offset.saturating_add(length).min(size);
        let bytes = self.capabilities.blobs.read(&self.service, &key, range).await?;
        let unavailable = |_| GuestError::Unavailable;
        bytes
            .try_fold(Vec::new(), async |mut read, bytes| {
                read.extend_from_slice(&bytes);
                Ok(read)
            })
            .await
            .map_err(unavailable)
    }

    async fn delete(&mut self, key: String) -> Result<bool, GuestError> {
        Ok(self.capabilities.blobs.delete(&self.service, &key).await?)
    }
}

fn checked(length: u32) -> Result<u64, GuestError> {
    if length as usize > limits::BLOB_CALL_BYTES_MAX { Err(GuestError::TooLarge) } else { Ok(u64::from(length)) }
}

impl From<BlobError> for GuestError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Unavailable(reason) => {
                tracing::warn!(reason, "the blob store cannot be reached");
                GuestError::Unavailable
            }
            BlobError::BrokeOff { .. } => GuestError::Unavailable,
            BlobError::NotFound => GuestError::NotFound,
            BlobError::Conflict { .. } => GuestError::Conflict,
            BlobError::TooLarge | BlobError::TooManyPieces | BlobError::BadName(_) => GuestError::TooLarge,
        }
    }
}
