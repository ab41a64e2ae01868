//! What every backend of `Blobs` does.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};

use super::*;

/// Of one upload, in these tests.
const PIECES_MAX: usize = 8;

fn media() -> ServiceName {
    ServiceName::parse("media").unwrap()
}

fn other() -> ServiceName {
    ServiceName::parse("other").unwrap()
}

fn pieces(pieces: &[&'static [u8]]) -> ByteStream {
    let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::from_static(piece))).collect();
    futures_util::stream::iter(pieces).boxed()
}

/// Ends with an error after these.
fn breaking(first: &'static [u8]) -> ByteStream {
    futures_util::stream::iter([Ok(Bytes::from_static(first)), Err(io::Error::other("the client is gone"))]).boxed()
}

async fn whole(blobs: &dyn Blobs, key: &str, range: Range<u64>) -> Vec<u8> {
    let stream = blobs.read(&media(), key, range).await.unwrap();
    stream
        .try_fold(Vec::new(), async |mut read, bytes| {
            read.extend_from_slice(&bytes);
            Ok(read)
        })
        .await
        .unwrap()
}

async fn an_upload_becomes_an_object_of_its_name(blobs: Arc<dyn Blobs>) {
    assert_eq!(blobs.upload_size(&media(), "u-1").await, Err(BlobError::NotFound));
    assert_eq!(blobs.append(&media(), "u-1", 0, 100, pieces(&[b"he", b"llo"])).await, Ok(5));
    assert_eq!(blobs.append(&media(), "u-1", 5, 100, pieces(&[b" world"])).await, Ok(11));
    assert_eq!(blobs.upload_size(&media(), "u-1").await, Ok(11));
    assert_eq!(blobs.read_upload(&media(), "u-1", 3..8).await.unwrap(), "lo wo");
    assert_eq!(blobs.read_upload(&media(), "u-1", 9..100).await.unwrap(), "ld");
    let object = blobs.finish(&media(), "u-1").await.unwrap();
    assert_eq!(object, Object { key: "u-1".to_owned(), size: 11 });
    assert_eq!(blobs.finish(&media(), "u-1").await, Ok(object), "asked again after a lost answer");
    assert_eq!(blobs.finish(&media(), "u-2").await, Err(BlobError::NotFound));
    assert_eq!(blobs.append(&media(), "u-1", 0, 100, pieces(&[b"other"])).await, Err(BlobError::Conflict { size: 11 }));
    assert_eq!(blobs.upload_size(&media(), "u-1").await, Err(BlobError::NotFound), "it is none any more");
    assert_eq!(whole(&*blobs, "u-1", 0..11).await, b"hello world");
    assert_eq!(whole(&*blobs, "u-1", 4..7).await, b"o w");
    assert_eq!(whole(&*blobs, "u-1", 4..4).await, b"");
    // In one piece.
    blobs.append(&media(), "u-2", 0, 100, pieces(&[b"hello world"])).await.unwrap();
    assert_eq!(blobs.finish(&media(), "u-2").await.unwrap().size, 11);
    assert_eq!(blobs.size(&media(), "u-2").await, Ok(11));
    assert_eq!(blobs.delete(&media(), "u-2").await, Ok(true));
    assert_eq!(blobs.delete(&media(), "u-2").await, Ok(false));
    assert_eq!(blobs.size(&media(), "u-2").await, Err(BlobError::NotFound));
    assert!(blobs.read(&media(), "u-2", 0..1).await.is_err());
}

async fn an_upload_goes_on_where_it_broke_off(blobs: Arc<dyn Blobs>) {
    assert_eq!(blobs.append(&media(), "u", 0, 100, breaking(b"hel")).await, Err(BlobError::BrokeOff { size: 3 }));
    assert_eq!(blobs.append(&media(), "u", 0, 100, pieces(&[b"hello"])).await, Err(BlobError::Conflict { size: 3 }));
    assert_eq!(blobs.append(&media(), "u", 3, 100, breaking(b"")).await, Err(BlobError::BrokeOff { size: 3 }));
    assert_eq!(blobs.append(&media(), "u", 3, 100, pieces(&[b"lo world"])).await, Ok(11));
    blobs.finish(&media(), "u").await.unwrap();
    assert_eq!(whole(&*blobs, "u", 0..11).await, b"hello world");
}

async fn what_is_too_large_is_not_kept(blobs: Arc<dyn Blobs>) {
    assert_eq!(blobs.append(&media(), "u", 0, 4, pieces(&[b"hel", b"lo"])).await, Err(BlobError::TooLarge));
    assert_eq!(blobs.upload_size(&media(), "u").await, Err(BlobError::NotFound));
    assert_eq!(blobs.append(&media(), "u", 0, 5, pieces(&[b"hello"])).await, Ok(5));
    assert_eq!(blobs.append(&media(), "u", 5, 5, pieces(&[b"!"])).await, Err(BlobError::TooLarge));
    assert_eq!(blobs.upload_size(&media(), "u").await, Ok(5));
}

async fn of_many_at_one_offset_one_succeeds(blobs: Arc<dyn Blobs>) {
    let appends = (0..16).map(|_| {
        let blobs = blobs.clone();
        tokio::spawn(async move { blobs.append(&media(), "u", 0, 100, pieces(&[b"hello", b" world"])).await })
    });
    let mut sizes = Vec::new();
    for append in appends.collect::<Vec<_>>() {
        match append.await.unwrap() {
            Ok(size) => sizes.push(size),
            Err(error) => assert_eq!(error, BlobError::Conflict { size: 11 }),
        }
    }
    assert_eq!(sizes, [11]);
    blobs.finish(&media(), "u").await.unwrap();
    assert_eq!(whole(&*blobs, "u", 0..11).await, b"hello world");
}

/// The first of two makes an object while the other is on its way.
async fn a_late_piece_of_what_is_an_object_is_refused(blobs: Arc<dyn Blobs>) {
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let late = futures_util::stream::once(async move {
        receiver.await.expect("the test sends");
        Ok(Bytes::from_static(b"hello world"))
    });
    let late = tokio::spawn({
        let blobs = blobs.clone();
        async move { blobs.append(&media(), "u", 0, 100, late.boxed()).await }
    });
    blobs.append(&media(), "u", 0, 100, pieces(&[b"hello"])).await.unwrap();
    blobs.finish(&media(), "u").await.unwrap();
    sender.send(()).unwrap();
    assert!(matches!(late.await.unwrap(), Err(BlobError::Conflict { size: 5 })));
    assert_eq!(blobs.upload_size(&media(), "u").await, Err(BlobError::NotFound));
    assert_eq!(whole(&*blobs, "u", 0..5).await, b"hello");
}

async fn an_upload_has_a_bounded_count_of_pieces(blobs: Arc<dyn Blobs>) {
    for at in 0..PIECES_MAX as u64 {
        assert_eq!(blobs.append(&media(), "u", at, 10_000, pieces(&[b"x"])).await, Ok(at + 1));
    }
    let at = PIECES_MAX as u64;
    assert_eq!(blobs.append(&media(), "u", at, 10_000, pieces(&[b"x"])).await, Err(BlobError::TooManyPieces));
    assert_eq!(blobs.finish(&media(), "u").await.unwrap().size, at);
    assert_eq!(whole(&*blobs, "u", 0..at).await, vec![b'x'; at as usize]);
}

/// A piece that was on its way when the host ended is nobody's; what was answered is there.
#[test]
fn what_was_arriving_is_gone_when_the_folder_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let arriving = folder.path().join("media/arriving");
    let object = folder.path().join("media/objects/-1/u-1");
    std::fs::create_dir_all(&arriving).unwrap();
    std::fs::create_dir_all(object.parent().unwrap()).unwrap();
    std::fs::write(arriving.join("half"), "hel").unwrap();
    std::fs::write(&object, "hello").unwrap();
    ObjectStoreBlobs::in_folder(folder.path()).unwrap();
    assert!(!arriving.exists());
    assert!(object.exists());
}

async fn no_service_reaches_what_is_anothers(blobs: Arc<dyn Blobs>) {
    blobs.append(&media(), "u", 0, 100, pieces(&[b"hello world"])).await.unwrap();
    assert_eq!(blobs.upload_size(&other(), "u").await, Err(BlobError::NotFound));
    let key = blobs.finish(&media(), "u").await.unwrap().key;
    assert_eq!(blobs.size(&other(), &key).await, Err(BlobError::NotFound));
    assert_eq!(blobs.delete(&other(), &key).await, Ok(false));
    for name in ["", "..", "a/b", "../media/uploads/u", "u\0", &"u".repeat(65)] {
        let refused = Err(BlobError::BadName(name.to_owned()));
        assert_eq!(blobs.upload_size(&other(), name).await, refused);
        assert_eq!(blobs.size(&other(), name).await, refused);
    }
}

async fn what_is_discarded_is_gone(blobs: Arc<dyn Blobs>) {
    blobs.append(&media(), "u", 0, 100, pieces(&[b"hello"])).await.unwrap();
    assert_eq!(blobs.discard(&media(), "u").await, Ok(()));
    assert_eq!(blobs.upload_size(&media(), "u").await, Err(BlobError::NotFound));
    assert_eq!(blobs.discard(&media(), "u").await, Ok(()));
    // No byte at all is an object too.
    assert_eq!(blobs.append(&media(), "empty", 0, 100, pieces(&[])).await, Ok(0));
    assert_eq!(blobs.finish(&media(), "empty").await.unwrap().size, 0);
}

macro_rules! suite {
    ($backend:ident: $($test:ident),* $(,)?) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            let folder = tempfile::tempdir().unwrap();
            super::$test($backend(folder.path())).await;
        }
    )* };
}

/// All of the suite on one backend, opened anew for each of its tests.
macro_rules! passes {
    ($backend:ident) => {
        suite!($backend:
            an_upload_becomes_an_object_of_its_name,
            an_upload_goes_on_where_it_broke_off,
            what_is_too_large_is_not_kept,
            of_many_at_one_offset_one_succeeds,
            a_late_piece_of_what_is_an_object_is_refused,
            an_upload_has_a_bounded_count_of_pieces,
            no_service_reaches_what_is_anothers,
            what_is_discarded_is_gone,
        );
    };
}

mod in_a_folder {
    use super::*;

    fn open(folder: &std::path::Path) -> Arc<dyn Blobs> {
        Arc::new(ObjectStoreBlobs::in_folder(&folder.join("blobs")).unwrap().with_pieces_max(PIECES_MAX))
    }

    passes!(open);
}

mod in_a_shared_folder {
    use super::*;

    fn open(folder: &std::path::Path) -> Arc<dyn Blobs> {
        std::fs::create_dir_all(folder.join("blobs")).unwrap();
        Arc::new(ObjectStoreBlobs::in_shared_folder(&folder.join("blobs"), "host-1").unwrap().with_pieces_max(PIECES_MAX))
    }

    passes!(open);

    #[tokio::test]
    async fn a_folder_that_is_taken_away_is_unavailable_and_not_made_anew() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("mounted");
        assert!(ObjectStoreBlobs::in_shared_folder(&folder, "host-1").is_err_and(|error| error.to_string().contains("mount it")));
        std::fs::create_dir(&folder).unwrap();
        let blobs = ObjectStoreBlobs::in_shared_folder(&folder, "host-1").unwrap();
        let service = ServiceName::parse("media").unwrap();
        let body = || -> ByteStream { Box::pin(futures_util::stream::once(async { Ok(Bytes::from_static(b"text")) })) };
        blobs.append(&service, "one", 0, 100, body()).await.expect("appends");
        blobs.finish(&service, "one").await.expect("finishes");

        std::fs::rename(&folder, parent.path().join("away")).unwrap();
        let is_away = |error: BlobError| matches!(error, BlobError::Unavailable(_));
        assert!(blobs.ping().await.is_err_and(is_away));
        assert!(blobs.append(&service, "two", 0, 100, body()).await.is_err_and(is_away));
        assert!(blobs.size(&service, "one").await.is_err_and(is_away));
        assert!(blobs.read(&service, "one", 0..4).await.err().is_some_and(is_away));
        assert!(!folder.exists(), "nothing is written beside the mount");
        std::fs::rename(parent.path().join("away"), &folder).unwrap();
        assert_eq!(blobs.size(&service, "one").await, Ok(4));
    }
}

/// So small that each file of the suite has several.
const PART_BYTES: usize = 4;

mod in_a_bucket_in_memory {
    use super::*;

    fn open(_: &std::path::Path) -> Arc<dyn Blobs> {
        Arc::new(BucketBlobs::in_memory().with_bounds(PART_BYTES, PIECES_MAX))
    }

    passes!(open);
}

mod on_s3 {
    use super::*;

    fn open(folder: &std::path::Path) -> Arc<dyn Blobs> {
        let prefix = folder.file_name().unwrap().to_str().unwrap().replace('.', "-");
        let open = async move { BucketBlobs::on_s3(&settings(&prefix)).await.unwrap().with_bounds(PART_BYTES, PIECES_MAX) };
        Arc::new(tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(open)))
    }

    passes!(open);
}

/// Of the server of this process.
fn settings(prefix: &str) -> BucketSettings {
    BucketSettings {
        bucket: echo_engines::s3::BUCKET.to_owned(),
        prefix: prefix.to_owned(),
        endpoint: echo_engines::s3::of_this_process().unwrap_or_else(|error| panic!("{error}")),
        region: "us-east-1".to_owned(),
        access_key_id: echo_engines::s3::ACCESS_KEY_ID.to_owned(),
        secret_access_key: echo_engines::s3::SECRET_ACCESS_KEY.to_owned(),
        is_path_style: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_said_at_once() {
    let none = tokio::task::block_in_place(|| BucketSettings { bucket: "nowhere".to_owned(), ..settings("") });
    assert!(matches!(BucketBlobs::on_s3(&none).await, Err(bucket::OpenError::NoBucket(bucket)) if bucket == "nowhere"));
}

/// As where a host died between the bytes of a piece and its claim.
#[tokio::test]
async fn a_piece_without_a_claim_is_nobodys_and_goes_with_its_upload() {
    let folder = tempfile::tempdir().unwrap();
    for finished in [false, true] {
        let store: Arc<dyn ::object_store::ObjectStore> = Arc::new(::object_store::memory::InMemory::new());
        let blobs = BucketBlobs::over(store.clone()).with_bounds(PART_BYTES, PIECES_MAX);
        blobs.append(&media(), "u", 0, 100, pieces(&[b"hello"])).await.unwrap();
        for (offset, bytes) in [("00000000000000000000", "other!"), ("00000000000000000005", "later")] {
            let path = format!("media/data/u/{offset}-{}/00000", uuid::Uuid::now_v7());
            ::object_store::ObjectStoreExt::put(&store, &path.into(), bytes.into()).await.unwrap();
        }
        assert_eq!(blobs.upload_size(&media(), "u").await, Ok(5));
        assert_eq!(blobs.read_upload(&media(), "u", 0..100).await.unwrap(), "hello");
        if finished {
            blobs.finish(&media(), "u").await.unwrap();
            assert_eq!(whole(&blobs, "u", 0..5).await, b"hello");
            blobs.discard(&media(), "u").await.unwrap();
            assert_eq!(whole(&blobs, "u", 0..5).await, b"hello", "what is an object is none of an upload's");
            assert_eq!(blobs.delete(&media(), "u").await, Ok(true));
        } else {
            blobs.discard(&media(), "u").await.unwrap();
            assert_eq!(blobs.append(&media(), "u", 0, 100, pieces(&[b"anew"])).await, Ok(4));
            blobs.discard(&media(), "u").await.unwrap();
        }
        let left: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
    drop(folder);
}

/// The server hangs, and comes back with what it had.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_whose_server_is_away_is_unavailable_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = tokio::task::block_in_place(|| echo_engines::s3::S3::start(folder.path())).unwrap();
    let own = tokio::task::block_in_place(|| BucketSettings { endpoint: server.endpoint(), ..settings("a/b") });
    let blobs = BucketBlobs::on_s3(&own).await.unwrap();
    blobs.append(&media(), "u", 0, 100, pieces(&[b"hello"])).await.unwrap();
    assert_eq!(blobs.ping().await, Ok(()));
    server.signal("STOP").unwrap();
    let service = media();
    let (ping, append) = tokio::join!(blobs.ping(), blobs.append(&service, "u", 5, 100, pieces(&[b" world"])));
    assert!(matches!(ping, Err(BlobError::Unavailable(_))), "{ping:?}");
    assert!(matches!(append, Err(BlobError::Unavailable(_))), "{append:?}");
    server.signal("CONT").unwrap();
    assert_eq!(blobs.append(&media(), "u", 5, 100, pieces(&[b" world"])).await, Ok(11));
    blobs.finish(&media(), "u").await.unwrap();
    assert_eq!(whole(&blobs, "u", 0..11).await, b"hello world");
}

/// Many at a time, each in pieces: none takes the ground from under another.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uploads_side_by_side_all_become_whole() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Arc::new(ObjectStoreBlobs::in_folder(folder.path()).unwrap());
    let clients = (0..4).map(|client| {
        let blobs = blobs.clone();
        tokio::spawn(async move {
            for number in 0..40 {
                let upload = format!("u-{client}-{number}");
                for at in 0..3 {
                    assert_eq!(blobs.append(&media(), &upload, at * 5, 100, pieces(&[b"hello"])).await, Ok(at * 5 + 5), "{upload}");
                }
                assert_eq!(blobs.finish(&media(), &upload).await.map(|object| object.size), Ok(15), "{upload}");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!(std::fs::read_dir(folder.path().join("media/uploads")).unwrap().count(), 0, "no folder stays");
}
