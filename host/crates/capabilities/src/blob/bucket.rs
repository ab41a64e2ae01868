//! Blobs in a bucket that hosts share, by the S3 protocol. Of the server this asks for PUT, GET with a range, DELETE, ListObjectsV2, and PUT with
//! `If-None-Match: *`, which decides between two hosts; for no copies and no multipart uploads.
//!
//! `<service>/data/<upload>/<offset>-<id>/<part>` are the bytes of a piece of an upload, in parts of `BLOB_PART_BYTES`, the offset with leading zeros.
//! `<service>/uploads/<upload>/<offset>` is the claim of the piece that was first at this offset, and says its id: a piece without its claim is
//! nobody's. `<service>/objects/<key>` is the manifest of an object: its pieces in their order. So an upload becomes an object without a byte moved.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{BlobError, Blobs, ByteStream, Object, is_name};
use echo_base::limits;
use echo_base::names::ServiceName;

mod http_client;
mod s3;

pub use s3::OpenError;

pub struct BucketBlobs {
    store: Arc<dyn ObjectStore>,
    part_bytes: usize,
    /// Of one upload.
    pieces_max: usize,
}

/// One piece of an upload or object.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Piece {
    offset: u64,
    size: u64,
    id: Uuid,
    /// Of all its parts but the last.
    part_bytes: u64,
}

/// What stands under the name of an object. The first to write it decides.
#[derive(Serialize, Deserialize)]
enum Manifest {
    Object(Vec<Piece>),
    /// The upload of this name is being discarded, and becomes none.
    Discarded,
}

/// A range within one part.
struct Part {
    path: Path,
    range: Range<u64>,
}

impl BucketBlobs {
    pub(super) fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, part_bytes: limits::BLOB_PART_BYTES, pieces_max: limits::BLOB_PIECES_MAX }
    }

    /// For tests: gone with the process.
    pub fn in_memory() -> Self {
        Self::over(Arc::new(object_store::memory::InMemory::new()))
    }

    #[cfg(test)]
    pub(super) fn with_bounds(self, part_bytes: usize, pieces_max: usize) -> Self {
        Self { part_bytes, pieces_max, ..self }
    }

    async fn list(&self, folder: &Path) -> Result<Vec<(Path, u64)>, BlobError> {
        self.store.list(Some(folder)).map_ok(|meta| (meta.location, meta.size)).try_collect().await.map_err(unavailable)
    }

    async fn delete_all(&self, paths: Vec<Path>) -> Result<(), BlobError> {
        if paths.is_empty() {
            return Ok(());
        }
        let mut deleted = self.store.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
        while let Some(one) = deleted.next().await {
            match one {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
        Ok(())
    }

    async fn get(&self, path: &Path) -> Result<Bytes, BlobError> {
        self.store.get(path).await.map_err(unavailable)?.bytes().await.map_err(unavailable)
    }

    /// Whether nothing was there before.
    async fn create(&self, path: &Path, bytes: Vec<u8>) -> Result<bool, BlobError> {
        match self.store.put_opts(path, PutPayload::from(bytes), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// In their order. Errors: `NotFound` where there is none.
    async fn pieces(&self, service: &ServiceName, upload: &str) -> Result<Vec<Piece>, BlobError> {
        // Data is there before its claim, so that each claim that is seen has its data in what is listed after it.
        let claims = self.list(&claims_folder(service, upload)?).await?;
        if claims.is_empty() {
            return Err(BlobError::NotFound);
        }
        let mut found: BTreeMap<u64, Vec<Piece>> = BTreeMap::new();
        for (path, size) in self.list(&data_folder(service, upload)?).await? {
            let Some((offset, id)) = piece_of(&path) else { return Err(foreign(&path)) };
            let same_offset = found.entry(offset).or_default();
            match same_offset.iter_mut().find(|piece| piece.id == id) {
                Some(piece) => (piece.size, piece.part_bytes) = (piece.size + size, piece.part_bytes.max(size)),
                None => same_offset.push(Piece { offset, size, id, part_bytes: size }),
            }
        }
        let mut pieces = Vec::with_capacity(claims.len());
        for (path, _) in claims {
            let offset = path.filename().and_then(|name| name.parse().ok()).ok_or_else(|| foreign(&path))?;
            let mut candidates = found.remove(&offset).unwrap_or_default();
            let piece = match candidates.len() {
                // An upload without a byte.
                0 => Piece { offset, size: 0, id: Uuid::nil(), part_bytes: 0 },
                1 => candidates.remove(0),
                // A piece that came too late is still to be removed.
                _ => {
                    let id = self.claimed(&path).await?;
                    candidates.into_iter().find(|piece| piece.id == id).ok_or_else(|| foreign(&path))?
                }
            };
            pieces.push(piece);
        }
        pieces.sort_by_key(|piece| piece.offset);
        Ok(pieces)
    }

    async fn claimed(&self, claim: &Path) -> Result<Uuid, BlobError> {
        let bytes = self.get(claim).await?;
        Uuid::try_parse_ascii(&bytes).map_err(|_| foreign(claim))
    }

    /// Errors: `NotFound` where there is no object of this name.
    async fn object(&self, service: &ServiceName, key: &str) -> Result<Vec<Piece>, BlobError> {
        match self.manifest(&object_path(service, key)?).await? {
            Manifest::Object(pieces) => Ok(pieces),
            Manifest::Discarded => Err(BlobError::NotFound),
        }
    }

    async fn manifest(&self, path: &Path) -> Result<Manifest, BlobError> {
        serde_json::from_slice(&self.get(path).await?).map_err(|_| foreign(path))
    }

    /// Stores a piece; its size, and whether its bytes came to their end. At most `bytes_max`.
    async fn receive(&self, folder: &Path, bytes_max: u64, body: &mut ByteStream) -> Result<(u64, bool), BlobError> {
        let (mut size, mut is_whole, mut number) = (0, true, 0_u32);
        let (mut part, mut part_size) = (Vec::new(), 0);
        let mut writing = JoinSet::new();
        while let Some(bytes) = body.next().await {
            let Ok(mut bytes) = bytes else {
                is_whole = false;
                break;
            };
            size += bytes.len() as u64;
            if size > bytes_max {
                // What was being written is to be there when it is removed.
                while writing.join_next().await.is_some() {}
                return Err(BlobError::TooLarge);
            }
            while !bytes.is_empty() {
                let piece = bytes.split_to(bytes.len().min(self.part_bytes - part_size));
                part_size += piece.len();
                part.push(piece);
                if part_size == self.part_bytes {
                    // No more than one part is written while another gathers: memory stays flat however fast the client is.
                    written(&mut writing).await?;
                    self.write(&mut writing, part_path(folder, number), std::mem::take(&mut part));
                    (part_size, number) = (0, number + 1);
                }
            }
        }
        written(&mut writing).await?;
        if part_size > 0 {
            self.write(&mut writing, part_path(folder, number), part);
            written(&mut writing).await?;
        }
        Ok((size, is_whole))
    }

    fn write(&self, writing: &mut JoinSet<object_store::Result<()>>, path: Path, part: Vec<Bytes>) {
        let store = self.store.clone();
        writing.spawn(async move { store.put(&path, PutPayload::from_iter(part)).await.map(|_| ()) });
    }

    /// Removes a piece that has no claim. What stays where the store is away goes with its upload.
    async fn remove_unclaimed(&self, folder: &Path) {
        let removed = match self.list(folder).await {
            Ok(parts) => self.delete_all(parts.into_iter().map(|(path, _)| path).collect()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::debug!(folder = %folder, %error, "a piece that is not used stays until its upload ends");
        }
    }

    /// Removes the claims, and the data that is in none of these pieces.
    async fn remove_all_but(&self, service: &ServiceName, upload: &str, kept: &[Piece]) -> Result<(), BlobError> {
        let claims = self.list(&claims_folder(service, upload)?).await?;
        self.delete_all(claims.into_iter().map(|(path, _)| path).collect()).await?;
        let data = self.list(&data_folder(service, upload)?).await?;
        let is_kept = |path: &Path| piece_of(path).is_some_and(|(_, id)| kept.iter().any(|piece| piece.id == id));
        self.delete_all(data.into_iter().map(|(path, _)| path).filter(|path| !is_kept(path)).collect()).await
    }
}

#[async_trait]
impl Blobs for BucketBlobs {
    fn append_bytes(&self) -> usize {
        2 * self.part_bytes
    }

    async fn ping(&self) -> Result<(), BlobError> {
        let path = Path::from_iter(["none"]);
        match self.store.head(&path).await {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn append(
        &self,
        service: &ServiceName,
        upload: &str,
        offset: u64,
        size_max: u64,
        mut body: ByteStream,
    ) -> Result<u64, BlobError> {
        let size = match self.pieces(service, upload).await {
            Ok(pieces) if pieces.len() >= self.pieces_max => return Err(BlobError::TooManyPieces),
            Ok(pieces) => end_of(&pieces),
            Err(BlobError::NotFound) => match self.size(service, upload).await {
                Err(BlobError::NotFound) => 0,
                other => other?,
            },
            Err(error) => return Err(error),
        };
        if size != offset {
            return Err(BlobError::Conflict { size });
        }
        let id = Uuid::now_v7();
        let folder = data_folder(service, upload)?.join(format!("{offset:020}-{id}"));
        let (added, is_whole) = match self.receive(&folder, size_max.saturating_sub(offset), &mut body).await {
            Ok(received) => received,
            Err(error) => {
                self.remove_unclaimed(&folder).await;
                return Err(error);
            }
        };
        // An empty piece would keep its place from the next one; an upload without a byte is one empty piece.
        if added > 0 || (offset == 0 && is_whole) {
            let claim = claims_folder(service, upload)?.join(format!("{offset:020}"));
            let first = match self.create(&claim, id.to_string().into_bytes()).await? {
                true => Ok(id),
                // One's own already, where the answer to the first try was lost; none any more, where the other's piece made it whole.
                false => self.claimed(&claim).await,
            };
            if let Err(BlobError::Unavailable(reason)) = first {
                return Err(BlobError::Unavailable(reason));
            }
            if first != Ok(id) {
                self.remove_unclaimed(&folder).await;
                let size = match self.upload_size(service, upload).await {
                    Err(BlobError::NotFound) => self.size(service, upload).await?,
                    size => size?,
                };
                return Err(BlobError::Conflict { size });
            }
            // It became an object while this was on its way.
            if let Ok(pieces) = self.object(service, upload).await {
                if !pieces.iter().any(|piece| piece.id == id) {
                    self.delete_all(vec![claim]).await?;
                    self.remove_unclaimed(&folder).await;
                }
                return Err(BlobError::Conflict { size: end_of(&pieces) });
            }
        }
        let size = offset + added;
        if is_whole { Ok(size) } else { Err(BlobError::BrokeOff { size }) }
    }

    async fn upload_size(&self, service: &ServiceName, upload: &str) -> Result<u64, BlobError> {
        Ok(end_of(&self.pieces(service, upload).await?))
    }

    async fn read_upload(&self, service: &ServiceName, upload: &str, range: Range<u64>) -> Result<Bytes, BlobError> {
        let pieces = self.pieces(service, upload).await?;
        let parts = parts_of(&data_folder(service, upload)?, &pieces, &range);
        let mut read = BytesMut::new();
        let mut found = stream::iter(parts).map(|part| get_range(self.store.clone(), part)).buffered(limits::BUCKET_CONCURRENCY);
        while let Some(bytes) = found.try_next().await.map_err(unavailable)? {
            read.extend_from_slice(&bytes);
        }
        Ok(read.freeze())
    }

    async fn finish(&self, service: &ServiceName, upload: &str) -> Result<Object, BlobError> {
        let path = object_path(service, upload)?;
        let pieces = match self.object(service, upload).await {
            // Asked again, perhaps after a crash between the object and the end of its claims.
            Ok(pieces) => pieces,
            Err(BlobError::NotFound) => {
                let pieces = self.pieces(service, upload).await?;
                let manifest = serde_json::to_vec(&Manifest::Object(pieces.clone())).expect("numbers and ids always serialise");
                if self.create(&path, manifest).await? { pieces } else { self.object(service, upload).await? }
            }
            Err(error) => return Err(error),
        };
        self.remove_all_but(service, upload, &pieces).await?;
        Ok(Object { key: upload.to_owned(), size: end_of(&pieces) })
    }

    async fn discard(&self, service: &ServiceName, upload: &str) -> Result<(), BlobError> {
        let is_empty = self.list(&claims_folder(service, upload)?).await?.is_empty();
        if is_empty && self.list(&data_folder(service, upload)?).await?.is_empty() {
            return Ok(());
        }
        // Whoever makes an object of it at the same time finds the name taken, or was first.
        let path = object_path(service, upload)?;
        let discarded = serde_json::to_vec(&Manifest::Discarded).expect("a word always serialises");
        let kept = match self.create(&path, discarded).await? {
            true => Manifest::Discarded,
            false => self.manifest(&path).await?,
        };
        match kept {
            Manifest::Object(pieces) => self.remove_all_but(service, upload, &pieces).await,
            Manifest::Discarded => {
                self.remove_all_but(service, upload, &[]).await?;
                self.delete_all(vec![path]).await
            }
        }
    }

    async fn size(&self, service: &ServiceName, key: &str) -> Result<u64, BlobError> {
        Ok(end_of(&self.object(service, key).await?))
    }

    async fn read(&self, service: &ServiceName, key: &str, range: Range<u64>) -> Result<ByteStream, BlobError> {
        let pieces = self.object(service, key).await?;
        let mut parts = parts_of(&data_folder(service, key)?, &pieces, &range).into_iter();
        // The first is opened at once: what cannot be read is said before the first byte of an answer.
        let Some(first) = parts.next() else { return Ok(stream::empty().boxed()) };
        let first = open(self.store.clone(), first).await.map_err(unavailable)?;
        let store = self.store.clone();
        // One after the other: nothing is read ahead for a client that is slow.
        let rest = stream::iter(parts).then(move |part| {
            let store = store.clone();
            async move { open(store, part).await.map_err(std::io::Error::other) }
        });
        Ok(first.chain(rest.try_flatten()).boxed())
    }

    async fn delete(&self, service: &ServiceName, key: &str) -> Result<bool, BlobError> {
        let path = object_path(service, key)?;
        let pieces = match self.manifest(&path).await {
            Ok(Manifest::Object(pieces)) => pieces,
            Ok(Manifest::Discarded) | Err(BlobError::NotFound) => return Ok(false),
            Err(error) => return Err(error),
        };
        // The manifest last: cut off before it, the object is found again.
        let size = end_of(&pieces);
        let parts = parts_of(&data_folder(service, key)?, &pieces, &(0..size));
        self.delete_all(parts.into_iter().map(|part| part.path).collect()).await?;
        self.delete_all(vec![path]).await?;
        Ok(true)
    }
}

async fn written(writing: &mut JoinSet<object_store::Result<()>>) -> Result<(), BlobError> {
    while let Some(part) = writing.join_next().await {
        part.map_err(|error| BlobError::Unavailable(error.to_string()))?.map_err(unavailable)?;
    }
    Ok(())
}

async fn get_range(store: Arc<dyn ObjectStore>, part: Part) -> object_store::Result<Bytes> {
    store.get_range(&part.path, part.range).await
}

async fn open(store: Arc<dyn ObjectStore>, part: Part) -> object_store::Result<ByteStream> {
    let options = object_store::GetOptions { range: Some(part.range.into()), ..Default::default() };
    let found = store.get_opts(&part.path, options).await?;
    Ok(found.into_stream().map_err(std::io::Error::other).boxed())
}

/// What of the range lies in which part.
fn parts_of(folder: &Path, pieces: &[Piece], range: &Range<u64>) -> Vec<Part> {
    let mut parts = Vec::new();
    for Piece { offset, size, id, part_bytes } in pieces {
        let mut at = range.start.max(*offset);
        let end = range.end.min(offset + size);
        while at < end {
            let number = (at - offset) / part_bytes;
            let (begin, part_end) = (offset + number * part_bytes, (offset + (number + 1) * part_bytes).min(end));
            let path = part_path(&folder.clone().join(format!("{offset:020}-{id}")), number as u32);
            parts.push(Part { path, range: at - begin..part_end - begin });
            at = part_end;
        }
    }
    parts
}

fn end_of(pieces: &[Piece]) -> u64 {
    pieces.last().map_or(0, |last| last.offset + last.size)
}

/// Offset and id of the piece that a part belongs to.
fn piece_of(part: &Path) -> Option<(u64, Uuid)> {
    let names: Vec<_> = part.parts().collect();
    let piece = names.get(names.len().checked_sub(2)?)?;
    let (offset, id) = piece.as_ref().split_once('-')?;
    Some((offset.parse().ok()?, id.parse().ok()?))
}

fn part_path(piece: &Path, number: u32) -> Path {
    piece.clone().join(format!("{number:05}"))
}

fn claims_folder(service: &ServiceName, upload: &str) -> Result<Path, BlobError> {
    Ok(Path::from_iter([service.as_str(), "uploads", checked(upload)?]))
}

fn data_folder(service: &ServiceName, upload: &str) -> Result<Path, BlobError> {
    Ok(Path::from_iter([service.as_str(), "data", checked(upload)?]))
}

fn object_path(service: &ServiceName, key: &str) -> Result<Path, BlobError> {
    Ok(Path::from_iter([service.as_str(), "objects", checked(key)?]))
}

fn checked(name: &str) -> Result<&str, BlobError> {
    if is_name(name) { Ok(name) } else { Err(BlobError::BadName(name.to_owned())) }
}

fn foreign(path: &Path) -> BlobError {
    BlobError::Unavailable(format!("{path} is none of what was stored here"))
}

fn unavailable(error: Error) -> BlobError {
    match error {
        Error::NotFound { .. } => BlobError::NotFound,
        error => BlobError::Unavailable(error.to_string()),
    }
}
