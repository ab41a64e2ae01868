//! What every store of versions must do.

use std::sync::Arc;

use super::*;
use echo_base::limits;

async fn suite<Made: Future<Output = Arc<dyn VersionStore>>>(open: impl Fn() -> Made) {
    let (alpha, beta) = (ServiceName::parse("alpha").expect("a name"), ServiceName::parse("beta").expect("a name"));
    let store = open().await;
    assert_eq!(store.services().await.expect("lists").len(), 0);
    assert_eq!(store.read(&alpha).await.expect("reads"), Kept::default());
    assert_eq!(store.file(&alpha, "1.0.0").await.expect("reads"), None);

    // Of no whole number of pieces.
    let large: Vec<u8> = (0..2 * limits::VERSION_PIECE_BYTES + 3).map(|at| (at % 251) as u8).collect();
    store.keep(&alpha, "1.0.0", "aa", &large).await.expect("keeps");
    store.keep(&alpha, "1.0.0", "aa", &large).await.expect("keeps it again");
    store.keep(&alpha, "1.1.0", "bb", b"small").await.expect("keeps");
    store.keep(&beta, "1.0.0", "bb", b"small").await.expect("keeps");
    assert_eq!(store.file(&alpha, "1.0.0").await.expect("reads").expect("it is there"), large);

    let read = store.read(&alpha).await.expect("reads").state_revision;
    let read = store.put_state(&alpha, read, "first", None).await.expect("puts");
    store.put_state(&alpha, read, "second", None).await.expect("puts");

    store.remove(&beta, "1.0.0").await.expect("removes");
    assert_eq!(store.file(&beta, "1.0.0").await.expect("reads"), None);
    assert_eq!(
        store.file(&alpha, "1.1.0").await.expect("reads").as_deref(),
        Some(b"small".as_slice()),
        "the same bytes of another service"
    );

    drop(store);
    let store = open().await;
    let kept = store.read(&alpha).await.expect("reads");
    assert_eq!(kept.state.as_deref(), Some("second"));
    assert_eq!(kept.files.into_keys().collect::<Vec<_>>(), ["1.0.0", "1.1.0"]);
    assert_eq!(store.file(&alpha, "1.0.0").await.expect("reads").expect("it is there"), large);
}

#[tokio::test]
async fn files_pass() {
    let folder = tempfile::tempdir().expect("a folder");
    suite(|| async { Arc::new(files::FileVersions::open(folder.path()).expect("opens")) as Arc<dyn VersionStore> }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_passes() {
    use crate::sql::postgres::fixture::{Server, settings};

    let server = Server::start().await;
    let open = || async {
        let backend = server.backend_of("this", "versions", settings(8)).await;
        Arc::new(postgres::PostgresVersions::open(&backend, None).await.expect("opens")) as Arc<dyn VersionStore>
    };
    suite(&open).await;

    // What is shared says of every change that there was one, and is changed by who read the newest.
    let service = ServiceName::parse("gamma").expect("a name");
    let store = open().await;
    let revision = async || store.services().await.expect("lists").get(&service).copied();
    let mut before = revision().await;
    store.keep(&service, "1.0.0", "cc", b"some").await.expect("keeps");
    for step in 0..3 {
        let now = revision().await;
        assert_ne!(now, before, "{step}");
        before = now;
        match step {
            0 => drop(store.put_state(&service, 0, "first", None).await.expect("puts")),
            1 => store.remove(&service, "1.0.0").await.expect("removes"),
            _ => {}
        }
    }
    assert!(matches!(store.put_state(&service, 0, "stale", None).await, Err(StoreError::Overtaken)));
    assert_eq!(store.read(&service).await.expect("reads").state.as_deref(), Some("first"));
    store.keep(&service, "1.0.0", "cc", b"some").await.expect("keeps");
    assert!(matches!(store.keep(&service, "1.0.0", "dd", b"others").await, Err(StoreError::OtherBytes)));
}
