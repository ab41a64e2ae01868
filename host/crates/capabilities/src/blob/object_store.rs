//! Blobs in a folder, of this machine or of hosts that share it, through the crate `object_store`, which reaches S3 by the same calls.
//!
//! `<service>/objects/<last two characters>/<key>` are objects. `<service>/uploads/<upload>/<offset>` are the pieces of an upload, each as it
//! arrived, the offset with leading zeros: a piece appears whole under its name or not at all, and one name is taken once. So of two clients
//! that send the same piece one is refused, on one host or on many. `<service>/arriving/<id>` are pieces on their way; where hosts share the folder,
//! `<service>/arriving-<host>/<id>`, so that one that starts removes its own alone.

use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, WriteMultipart};
use uuid::Uuid;

use super::{BlobError, Blobs, ByteStream, Object, is_name};
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_base::private_file;

const ARRIVING: &str = "arriving";
/// In a shared folder: without it the folder is another one, as that below a mount that was lost.
const MARKER: &str = ".echo-files";

pub struct ObjectStoreBlobs {
    store: Arc<dyn ObjectStore>,
    /// Where there are folders to remove.
    folder: Option<PathBuf>,
    /// Looked for before anything is done, in a folder that may be taken away.
    marker: Option<PathBuf>,
    arriving: String,
    /// Handed to the store at once, in bytes.
    chunk_bytes: usize,
    /// Of one upload.
    pieces_max: usize,
}

/// One piece of an upload.
struct Piece {
    path: Path,
    offset: u64,
    size: u64,
}

impl ObjectStoreBlobs {
    /// In a folder, which is made. What is stored is flushed to the disk before it is answered.
    pub fn in_folder(folder: &FilePath) -> io::Result<Self> {
        private_file::create_folder(folder)?;
        Self::open(folder, ARRIVING.to_owned(), None)
    }

    /// In a folder that is there. `host`: its name among those that share the folder. Errors: a folder that is not there or not writable.
    pub fn in_shared_folder(folder: &FilePath, host: &str) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
        if !folder.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} is no folder: make it, or mount it", folder.display())));
        }
        let marker = folder.join(MARKER);
        std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&marker).map_err(named)?;
        Self::open(folder, format!("{ARRIVING}-{host}"), Some(marker)).map_err(named)
    }

    fn open(folder: &FilePath, arriving: String, marker: Option<PathBuf>) -> io::Result<Self> {
        remove_arriving(folder, &arriving)?;
        // The store's own clean-up removes a folder that has just become empty while another upload is about to write there.
        let store = LocalFileSystem::new_with_prefix(folder).map_err(io::Error::other)?.with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            folder: Some(folder.to_owned()),
            marker,
            arriving,
            chunk_bytes: limits::BLOB_CHUNK_BYTES,
            pieces_max: limits::BLOB_PIECES_MAX,
        })
    }

    /// For tests: gone with the process.
    pub fn in_memory() -> Self {
        let (store, arriving) = (Arc::new(object_store::memory::InMemory::new()), ARRIVING.to_owned());
        Self { store, folder: None, marker: None, arriving, chunk_bytes: limits::BLOB_CHUNK_BYTES, pieces_max: limits::BLOB_PIECES_MAX }
    }

    #[cfg(test)]
    pub(super) fn with_pieces_max(self, pieces_max: usize) -> Self {
        Self { pieces_max, ..self }
    }

    fn arriving_path(&self, service: &ServiceName) -> Path {
        Path::from_iter([service.as_str(), &self.arriving, &Uuid::now_v7().to_string()])
    }

    /// Errors: `Unavailable` where the folder is gone; the store would make it anew.
    async fn check_folder(&self) -> Result<(), BlobError> {
        let Some(marker) = &self.marker else { return Ok(()) };
        tokio::fs::metadata(marker).await.map(drop).map_err(|error| BlobError::Unavailable(format!("{}: {error}", marker.display())))
    }

    /// In their order. Errors: `NotFound` where there is none.
    async fn pieces(&self, service: &ServiceName, upload: &str) -> Result<Vec<Piece>, BlobError> {
        self.check_folder().await?;
        let folder = upload_folder(service, upload)?;
        let listed: Vec<_> = self.store.list(Some(&folder)).try_collect().await.map_err(unavailable)?;
        let mut pieces = Vec::with_capacity(listed.len());
        for meta in listed {
            let offset = meta.location.filename().and_then(|name| name.parse().ok());
            let offset = offset.ok_or_else(|| BlobError::Unavailable(format!("{} is no piece of an upload", meta.location)))?;
            pieces.push(Piece { path: meta.location, offset, size: meta.size });
        }
        pieces.sort_by_key(|piece| piece.offset);
        if pieces.is_empty() { Err(BlobError::NotFound) } else { Ok(pieces) }
    }

    /// Stores what comes; its size, and whether it came to its end. At most `bytes_max`.
    async fn store(&self, to: &Path, bytes_max: u64, body: &mut ByteStream) -> Result<(u64, bool), BlobError> {
        let upload = self.store.put_multipart(to).await.map_err(unavailable)?;
        let mut writing = WriteMultipart::new_with_chunk_size(upload, self.chunk_bytes);
        let (mut size, mut is_whole) = (0, true);
        while let Some(piece) = body.next().await {
            let Ok(piece) = piece else {
                is_whole = false;
                break;
            };
            size += piece.len() as u64;
            if size > bytes_max {
                let _ = writing.abort().await;
                return Err(BlobError::TooLarge);
            }
            // No more than one chunk is written while another gathers: memory stays flat however fast the client is.
            writing.wait_for_capacity(1).await.map_err(unavailable)?;
            writing.put(piece);
        }
        writing.finish().await.map_err(unavailable)?;
        Ok((size, is_whole))
    }

    /// The folder of an upload that is over. Nobody but its own requests writes there.
    async fn remove_upload_folder(&self, service: &ServiceName, upload: &str) {
        if let Some(folder) = &self.folder {
            // Where a late piece is still there, it goes with the next discard.
            let _ = tokio::fs::remove_dir(folder.join(service.as_str()).join("uploads").join(upload)).await;
        }
    }

    async fn delete_pieces(&self, pieces: &[Piece]) -> Result<(), BlobError> {
        for piece in pieces {
            match self.store.delete(&piece.path).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Blobs for ObjectStoreBlobs {
    fn append_bytes(&self) -> usize {
        2 * self.chunk_bytes
    }

    async fn ping(&self) -> Result<(), BlobError> {
        self.check_folder().await?;
        let Some(folder) = &self.folder else { return Ok(()) };
        tokio::fs::metadata(folder).await.map(|_| ()).map_err(|error| BlobError::Unavailable(error.to_string()))
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
            Err(BlobError::NotFound) => self.size(service, upload).await.or_else(none_yet)?,
            Err(error) => return Err(error),
        };
        if size != offset {
            return Err(BlobError::Conflict { size });
        }
        let arriving = self.arriving_path(service);
        let (added, is_whole) = self.store(&arriving, size_max.saturating_sub(offset), &mut body).await?;
        // An empty piece would keep its place from the next one; an upload without a byte is one empty piece.
        if added > 0 || (offset == 0 && is_whole) {
            let piece = upload_folder(service, upload)?.join(format!("{offset:020}"));
            if let Err(error) = self.store.rename_if_not_exists(&arriving, &piece).await {
                let _ = self.store.delete(&arriving).await;
                return match error {
                    Error::AlreadyExists { .. } => {
                        let size = match self.upload_size(service, upload).await {
                            // The other's piece made it whole.
                            Err(BlobError::NotFound) => self.size(service, upload).await?,
                            size => size?,
                        };
                        Err(BlobError::Conflict { size })
                    }
                    other => Err(unavailable(other)),
                };
            }
            // It became an object while this was on its way.
            if let Ok(size) = self.size(service, upload).await {
                let _ = self.store.delete(&piece).await;
                return Err(BlobError::Conflict { size });
            }
        } else {
            let _ = self.store.delete(&arriving).await;
        }
        let size = offset + added;
        if is_whole { Ok(size) } else { Err(BlobError::BrokeOff { size }) }
    }

    async fn upload_size(&self, service: &ServiceName, upload: &str) -> Result<u64, BlobError> {
        Ok(end_of(&self.pieces(service, upload).await?))
    }

    async fn read_upload(&self, service: &ServiceName, upload: &str, range: Range<u64>) -> Result<Bytes, BlobError> {
        let mut read = BytesMut::new();
        for piece in self.pieces(service, upload).await? {
            let wanted = range.start.max(piece.offset)..range.end.min(piece.offset + piece.size);
            if wanted.start < wanted.end {
                let within = wanted.start - piece.offset..wanted.end - piece.offset;
                read.extend_from_slice(&self.store.get_range(&piece.path, within).await.map_err(unavailable)?);
            }
        }
        Ok(read.freeze())
    }

    async fn finish(&self, service: &ServiceName, upload: &str) -> Result<Object, BlobError> {
        let path = object_path(service, upload)?;
        let key = upload.to_owned();
        // Asked again, perhaps after a crash between the object and the end of its pieces.
        match self.size(service, upload).await {
            Ok(size) => {
                self.discard(service, upload).await?;
                return Ok(Object { key, size });
            }
            Err(BlobError::NotFound) => {}
            Err(error) => return Err(error),
        }
        let pieces = self.pieces(service, upload).await?;
        let size = end_of(&pieces);
        if let [piece] = &*pieces {
            self.store.rename(&piece.path, &path).await.map_err(unavailable)?;
            self.remove_upload_folder(service, upload).await;
            return Ok(Object { key, size });
        }
        // One after the other: as many files open at once as an upload has pieces would be too many.
        let (store, paths) = (self.store.clone(), pieces.iter().map(|piece| piece.path.clone()).collect::<Vec<_>>());
        let opened = futures_util::stream::iter(paths).then(move |path| {
            let store = store.clone();
            async move { store.get(&path).await.map(|found| found.into_stream().map_err(io::Error::other)).map_err(io::Error::other) }
        });
        let mut whole: ByteStream = opened.try_flatten().boxed();
        let arriving = self.arriving_path(service);
        if self.store(&arriving, size, &mut whole).await? != (size, true) {
            let _ = self.store.delete(&arriving).await;
            return Err(BlobError::Unavailable("the pieces of an upload cannot be read".to_owned()));
        }
        self.store.rename(&arriving, &path).await.map_err(unavailable)?;
        self.delete_pieces(&pieces).await?;
        self.remove_upload_folder(service, upload).await;
        Ok(Object { key, size })
    }

    async fn discard(&self, service: &ServiceName, upload: &str) -> Result<(), BlobError> {
        match self.pieces(service, upload).await {
            Ok(pieces) => self.delete_pieces(&pieces).await?,
            Err(BlobError::NotFound) => {}
            Err(error) => return Err(error),
        }
        self.remove_upload_folder(service, upload).await;
        Ok(())
    }

    async fn size(&self, service: &ServiceName, key: &str) -> Result<u64, BlobError> {
        self.check_folder().await?;
        Ok(self.store.head(&object_path(service, key)?).await.map_err(unavailable)?.size)
    }

    async fn read(&self, service: &ServiceName, key: &str, range: Range<u64>) -> Result<ByteStream, BlobError> {
        self.check_folder().await?;
        let path = object_path(service, key)?;
        if range.is_empty() {
            self.store.head(&path).await.map_err(unavailable)?;
            return Ok(futures_util::stream::empty().boxed());
        }
        let options = object_store::GetOptions { range: Some(range.into()), ..Default::default() };
        let found = self.store.get_opts(&path, options).await.map_err(unavailable)?;
        Ok(found.into_stream().map_err(io::Error::other).boxed())
    }

    async fn delete(&self, service: &ServiceName, key: &str) -> Result<bool, BlobError> {
        self.check_folder().await?;
        match self.store.delete(&object_path(service, key)?).await {
            Ok(()) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(unavailable(error)),
        }
    }
}

/// What was on its way when the host ended belongs to nobody.
fn remove_arriving(folder: &FilePath, arriving: &str) -> io::Result<()> {
    for service in std::fs::read_dir(folder)? {
        match std::fs::remove_dir_all(service?.path().join(arriving)) {
            // What else lies there is none of ours.
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// An upload's size.
fn end_of(pieces: &[Piece]) -> u64 {
    pieces.last().map_or(0, |last| last.offset + last.size)
}

fn none_yet(error: BlobError) -> Result<u64, BlobError> {
    if error == BlobError::NotFound { Ok(0) } else { Err(error) }
}

fn upload_folder(service: &ServiceName, upload: &str) -> Result<Path, BlobError> {
    checked(upload)?;
    Ok(Path::from_iter([service.as_str(), "uploads", upload]))
}

fn object_path(service: &ServiceName, key: &str) -> Result<Path, BlobError> {
    checked(key)?;
    // Names that begin with a time end with chance: so folders fill evenly.
    Ok(Path::from_iter([service.as_str(), "objects", &key[key.len().saturating_sub(2)..], key]))
}

fn checked(name: &str) -> Result<(), BlobError> {
    if is_name(name) { Ok(()) } else { Err(BlobError::BadName(name.to_owned())) }
}

fn unavailable(error: Error) -> BlobError {
    match error {
        Error::NotFound { .. } => BlobError::NotFound,
        error => BlobError::Unavailable(error.to_string()),
    }
}
