//! Hosts of one PostgreSQL database in one process.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use echo_engines::postgres::Database;

use super::*;
use crate::artifact::pack;
use crate::engine::Engine;
use crate::permissions::Permissions;
use crate::{CapabilitySource, RuntimeSettings};
use echo_capabilities::blob::ObjectStoreBlobs;
use echo_capabilities::cache::memory::MemoryCache;
use echo_capabilities::config::ServiceSettings;
use echo_capabilities::context::CallContext;
use echo_capabilities::events::embedded::EmbeddedQueue;
use echo_capabilities::guest::Capabilities;
use echo_capabilities::http::HttpSettings;
use echo_capabilities::http::client::HttpClient;
use echo_capabilities::hub::embedded::EmbeddedFeed;
use echo_capabilities::hub::{FeedEntry, FeedError, Push, Sockets};
use echo_capabilities::nodes::postgres::PostgresNodes;
use echo_capabilities::nodes::{Engines, NodeIdentity, NodeReport, NodeState, Nodes};
use echo_capabilities::pace::Pace;
use echo_capabilities::passwords::native::{Cost, NativePasswords};
use echo_capabilities::senders::Senders;
use echo_capabilities::sql::postgres::{PoolSettings, PostgresBackend};
use echo_capabilities::sql::sqlite::Durability;
use echo_capabilities::sql::{Migration, SqlBackend};
use echo_capabilities::tokens::TokenSettings;
use echo_capabilities::tokens::embedded::EmbeddedTokens;
use echo_capabilities::versions::postgres::PostgresVersions;

const PATIENCE: Duration = Duration::from_secs(60);

struct NoSockets;

#[async_trait]
impl Sockets for NoSockets {
    fn deliver(&self, _: &[FeedEntry]) {}
    fn deliver_ephemeral(&self, _: &Push) {}
    async fn online(&self, _: &[Uuid]) -> Result<Vec<Uuid>, FeedError> {
        Ok(Vec::new())
    }
    fn disconnect_session(&self, _: Uuid) {}
    fn disconnect_user(&self, _: Uuid) {}
}

struct Backends {
    capabilities: Arc<Capabilities>,
    /// Nothing can be made here any more.
    is_broken: Arc<AtomicBool>,
}

#[async_trait]
impl CapabilitySource for Backends {
    async fn capabilities_of(&self, _: &ServiceName, _: &BTreeMap<String, toml::Value>) -> Result<Arc<Capabilities>, String> {
        if self.is_broken.load(Ordering::Relaxed) { Err("its disk is full".to_owned()) } else { Ok(self.capabilities.clone()) }
    }
    fn dialect(&self) -> &'static str {
        "postgres"
    }
}

/// A host with a folder of its own.
struct Host {
    runtime: Arc<Runtime>,
    is_broken: Arc<AtomicBool>,
    /// Ends it as kill -9 does: nothing is said to the others.
    stop: CancellationToken,
    beating: tokio::task::JoinHandle<Option<()>>,
    folder: tempfile::TempDir,
}

impl Host {
    async fn start(database: &Database, name: &str, files: &[Vec<u8>]) -> Self {
        Self::start_on(tempfile::tempdir().expect("a folder"), database, name, files).await
    }

    async fn start_on(folder: tempfile::TempDir, database: &Database, name: &str, files: &[Vec<u8>]) -> Self {
        let path = folder.path();
        let settings = PoolSettings { open_max: 8, idle_max: 8, lifetime: Duration::from_secs(300), idle_time: Duration::from_secs(600) };
        let sql = PostgresBackend::connect(database.url(), name, settings).await.expect("connects");
        let identity =
            NodeIdentity { name: name.to_owned(), advertise: String::new(), version: String::new(), engines: Engines::default() };
        let nodes = PostgresNodes::open(&sql, identity, path).await.expect("opens");
        let versions = Arc::new(PostgresVersions::open(&sql, None).await.expect("opens"));
        // Of no interest here: what a host does not share.
        let own = path.join(Uuid::new_v4().simple().to_string());
        let capabilities = Capabilities {
            database: sql.open(&listener()).await.expect("opens"),
            cache: Arc::new(MemoryCache::new(limits::MIB_BYTES)),
            blobs: Arc::new(ObjectStoreBlobs::in_folder(&own.join("blobs")).expect("opens")),
            feed: Arc::new(EmbeddedFeed::open(&own, Durability::default()).await.expect("opens")),
            sockets: Arc::new(NoSockets),
            passwords: Arc::new(NativePasswords::new([0; 32], Cost::light())),
            tokens: EmbeddedTokens::open(&own, TokenSettings::default()).await.expect("opens"),
            http: Arc::new(HttpClient::new(HttpSettings::default()).expect("opens")),
            settings: ServiceSettings::default(),
            pace: Pace::default(),
            senders: Arc::new(Senders::new(1)),
        };
        let is_broken = Arc::new(AtomicBool::new(false));
        let backends = Arc::new(Backends { capabilities: Arc::new(capabilities), is_broken: is_broken.clone() });
        let queue = Arc::new(EmbeddedQueue::open(&own, Durability::default()).await.expect("opens"));
        let settings = RuntimeSettings {
            node: name.to_owned(),
            versions,
            versions_kept: limits::VERSIONS_KEPT,
            permissions: Permissions::new(None),
            cursor_key: [0; 32],
            migration_timeout: Duration::from_secs(10),
            dev_mode: false,
            routes: Default::default(),
        };
        let engine = Engine::start(&path.join("code")).expect("starts");
        let runtime = Runtime::new(engine, backends, queue, settings).await.expect("opens");
        let packed = path.join("packed");
        let _ = std::fs::create_dir(&packed);
        for (number, file) in files.iter().enumerate() {
            std::fs::write(packed.join(format!("{number}.wasm")), file).expect("writes");
        }
        let refused = runtime.start_services(&packed).await.expect("starts");
        assert!(refused.is_empty(), "{refused:?}");
        let stop = CancellationToken::new();
        nodes.beat(NodeState::Serving, &report(&runtime)).await.expect("beats");
        let beating = tokio::spawn(stop.clone().run_until_cancelled_owned({
            let runtime = runtime.clone();
            async move {
                loop {
                    let _ = tokio::time::timeout(Duration::from_millis(200), runtime.switched().notified()).await;
                    let _ = nodes.beat(NodeState::Serving, &report(&runtime)).await;
                }
            }
        }));
        tokio::spawn(runtime.clone().run_rollouts(stop.clone()));
        Self { runtime, is_broken, stop, beating, folder }
    }

    /// Nothing of it is left but its folder.
    async fn kill(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.beating.await.expect("no panic");
        let weak = Arc::downgrade(&self.runtime);
        drop(self.runtime);
        let until = Instant::now() + PATIENCE;
        while weak.strong_count() > 0 {
            assert!(Instant::now() < until, "something of it still runs");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.folder
    }

    fn live(&self) -> Option<String> {
        self.runtime.pin().generation("listener").map(|live| live.version.clone())
    }

    async fn until_live(&self, version: &str) {
        until(version, || self.live().as_deref() == Some(version)).await;
    }

    async fn deploy(&self, file: Vec<u8>) -> Result<(), SwapError> {
        self.runtime.deploy(file, &Decisions::default()).await.map(drop)
    }

    fn history(&self) -> Vec<(String, String, String)> {
        let history = self.runtime.history(&listener()).expect("it is known");
        history.into_iter().map(|entry| (entry.action, entry.version, entry.node.unwrap_or_default())).collect()
    }

    /// Every call traps.
    async fn call(&self) {
        let catalogue = self.runtime.pin();
        let Some(route) = catalogue.routes().first() else { return };
        let context =
            CallContext { deadline: Instant::now() + Duration::from_secs(5), ..crate::internal_context("test", Duration::from_secs(5)) };
        let _ = self.runtime.call(&catalogue, &route.target, crate::Input::Json(b"{}"), context.into()).await;
    }
}

fn report(runtime: &Runtime) -> NodeReport {
    NodeReport { connections: 0, services: runtime.live_versions() }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn listener() -> ServiceName {
    ServiceName::parse("listener").expect("a name")
}

fn packed(version: &str) -> Vec<u8> {
    packed_with(version, &[])
}

fn packed_with(version: &str, migrations: &[Migration]) -> Vec<u8> {
    let wit = "world listener { export echo:listener/api@0.1.0; }
        package echo:listener@0.1.0 { interface api { use echo:types/types@0.1.0.{error}; go: func() -> result<_, error>; } }";
    let route = "[[route]]\nhttp = \"POST /go\"\ncall = \"go\"\naccess = \"public\"\nrate = { per = \"ip\", strategy = \"sliding-window\", limit = 1000, window = \"1m\" }\n";
    let manifest = format!("name = \"listener\"\nversion = \"{version}\"\nprefix = \"/api/v1/listener\"\n{route}");
    pack(&echo_fixture::component_of(wit, "listener"), &manifest, "", migrations).expect("packs")
}

/// Twins, as every migration is.
fn table(name: &str) -> Vec<Migration> {
    let of = |dialect: &str| Migration {
        name: format!("0001_{name}"),
        dialect: dialect.to_owned(),
        sql: format!("CREATE TABLE {name} (id TEXT PRIMARY KEY)"),
    };
    vec![of("postgres"), of("sqlite")]
}

async fn two_hosts(database: &Database) -> [Host; 2] {
    let a = Host::start(database, "a", &[packed("1.0.0")]).await;
    let b = Host::start(database, "b", &[packed("1.0.0")]).await;
    assert_eq!((a.live().as_deref(), b.live().as_deref()), (Some("1.0.0"), Some("1.0.0")));
    [a, b]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_on_one_host_is_live_on_all() {
    let database = Database::new().expect("a server");
    let [a, b] = two_hosts(&database).await;
    a.deploy(packed_with("1.1.0", &table("things"))).await.expect("both can run it");
    // The one that deploys waits until the others have switched.
    assert_eq!((a.live().as_deref(), b.live().as_deref()), (Some("1.1.0"), Some("1.1.0")));
    b.runtime.rollback(&listener(), &Decisions::default()).await.expect("there is a version before");
    assert_eq!(b.live().as_deref(), Some("1.0.0"));
    a.until_live("1.0.0").await;
    let expect = [("start", "1.0.0", "a"), ("activate", "1.1.0", "a"), ("rollback", "1.0.0", "b")];
    let expect = expect.map(|(action, version, node)| (action.to_owned(), version.to_owned(), node.to_owned()));
    assert_eq!((a.history(), b.history()), (expect.to_vec(), expect.to_vec()), "one history, with who");

    // A version that one of them runs is not removed by the other; any other is, for both.
    let live = a.runtime.remove_version(&listener(), "1.0.0").await;
    assert!(matches!(live, Err(SwapError::VersionIsLive(_))), "{live:?}");
    a.runtime.remove_version(&listener(), "1.1.0").await.expect("nobody runs it");
    until("it to be gone on the other host", || b.runtime.versions.of(&listener()).names() == ["1.0.0"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_one_host_cannot_run_goes_live_on_none() {
    let database = Database::new().expect("a server");
    let [a, b] = two_hosts(&database).await;
    b.is_broken.store(true, Ordering::Relaxed);
    let version = packed_with("1.1.0", &table("things"));
    let refused = a.deploy(version.clone()).await.expect_err("b cannot").to_string();
    assert!(refused.contains("on host b: its disk is full"), "{refused}");
    assert_eq!((a.live().as_deref(), b.live().as_deref()), (Some("1.0.0"), Some("1.0.0")));
    assert_eq!(a.runtime.versions.of(&listener()).names(), ["1.0.0"], "its number can be used again");
    let tables = a.runtime.capabilities.capabilities_of(&listener(), &BTreeMap::new()).await.expect("a's are good");
    assert!(tables.database.query("SELECT id FROM things", vec![]).await.is_err(), "its migrations were not applied");

    b.is_broken.store(false, Ordering::Relaxed);
    a.deploy(version).await.expect("both can run it now");
    assert_eq!(b.live().as_deref(), Some("1.1.0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_dies_after_it_prepared_comes_back_with_what_was_decided() {
    let database = Database::new().expect("a server");
    let [a, b] = two_hosts(&database).await;
    let c = Host::start(&database, "c", &[packed("1.0.0")]).await;
    // As a deployment goes, up to where it is decided.
    let staged = a.runtime.stage(packed("1.1.0"), &Decisions::default()).await.expect("it can be run");
    let rollout = a.runtime.begin_rollout(&listener()).await.expect("begins");
    a.runtime.prepare_elsewhere(&listener(), &staged.version, rollout, &Decisions::default()).await.expect("all prepare");
    until("b to hold it ready", || b.runtime.rollouts.prepared.lock().contains_key(&listener())).await;
    let folder = b.kill().await;
    let entry = entry("1.1.0", "activate", None);
    a.runtime.activate_within(rollout, &listener(), entry, &Decisions::default()).await.expect("nobody waits for b for long");
    a.runtime.end_rollout(&listener(), rollout).await;
    c.until_live("1.1.0").await;

    // In its folder is still what it was started with first.
    let b = Host::start_on(folder, &database, "b", &[packed("1.0.0")]).await;
    assert_eq!(b.live().as_deref(), Some("1.1.0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_whose_host_dies_before_it_is_decided_comes_to_nothing() {
    let database = Database::new().expect("a server");
    let [a, b] = two_hosts(&database).await;
    let version = packed_with("1.1.0", &table("things"));
    let staged = a.runtime.stage(version.clone(), &Decisions::default()).await.expect("it can be run");
    let rollout = a.runtime.begin_rollout(&listener()).await.expect("begins");
    a.runtime.prepare_elsewhere(&listener(), &staged.version, rollout, &Decisions::default()).await.expect("b prepares");
    let artifact = a.runtime.versions.of(&listener()).artifact("1.1.0").cloned().expect("it is staged");
    let own = a.runtime.capabilities.capabilities_of(&listener(), &BTreeMap::new()).await.expect("they are good");
    own.database.apply_migrations(&a.runtime.migrations_of(&artifact), Duration::from_secs(10)).await.expect("applies");
    drop((own, artifact));
    let folder = a.kill().await;

    assert_eq!(b.live().as_deref(), Some("1.0.0"));
    let a = Host::start_on(folder, &database, "a", &[packed("1.0.0")]).await;
    assert_eq!((a.live().as_deref(), b.live().as_deref()), (Some("1.0.0"), Some("1.0.0")));
    let own = a.runtime.capabilities.capabilities_of(&listener(), &BTreeMap::new()).await.expect("they are good");
    assert!(own.database.query("SELECT id FROM things", vec![]).await.is_err(), "what its migrations added is taken away");
    // And the other host can deploy it.
    b.runtime.activate(&listener(), "1.1.0", &Decisions::default()).await.expect("both can run it");
    assert_eq!((a.live().as_deref(), b.live().as_deref()), (Some("1.1.0"), Some("1.1.0")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_died_with_migrations_that_are_not_final_holds_up_no_other() {
    let database = Database::new().expect("a server");
    let [a, b] = two_hosts(&database).await;
    let staged = a.runtime.stage(packed_with("1.1.0", &table("things")), &Decisions::default()).await.expect("it can be run");
    let rollout = a.runtime.begin_rollout(&listener()).await.expect("begins");
    a.runtime.prepare_elsewhere(&listener(), &staged.version, rollout, &Decisions::default()).await.expect("b prepares");
    let artifact = a.runtime.versions.of(&listener()).artifact("1.1.0").cloned().expect("it is staged");
    let own = a.runtime.capabilities.capabilities_of(&listener(), &BTreeMap::new()).await.expect("they are good");
    own.database.apply_migrations(&a.runtime.migrations_of(&artifact), Duration::from_secs(10)).await.expect("applies");
    drop((own, artifact));
    let _gone = a.kill().await;

    // A host that starts meanwhile neither waits for that deployment nor undoes it: nobody has said yet that it is over.
    let c = Host::start(&database, "c", &[packed("1.0.0")]).await;
    assert_eq!(c.live().as_deref(), Some("1.0.0"));
    // Another deployment waits until that host is away, not until its time is over.
    b.runtime.activate(&listener(), "1.1.0", &Decisions::default()).await.expect("all that are left can run it");
    assert_eq!(b.live().as_deref(), Some("1.1.0"));
    let own = b.runtime.capabilities.capabilities_of(&listener(), &BTreeMap::new()).await.expect("they are good");
    own.database.query("SELECT id FROM things", vec![]).await.expect("its tables are there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_fails_on_one_host_is_rolled_back_once_on_all() {
    let database = Database::new().expect("a server");
    let [a, b] = two_hosts(&database).await;
    a.deploy(packed("1.1.0")).await.expect("both can run it");
    for host in [&a, &b] {
        tokio::spawn(host.runtime.clone().run_probation(host.stop.clone()));
    }
    while [&a, &b].iter().any(|host| host.live().as_deref() == Some("1.1.0")) {
        tokio::join!(a.call(), b.call());
    }
    a.until_live("1.0.0").await;
    b.until_live("1.0.0").await;
    let rolled_back = a.history().into_iter().filter(|(action, ..)| action == "automatic-rollback").count();
    assert_eq!((rolled_back, a.history()), (1, b.history()));
    assert_eq!(b.runtime.versions.of(&listener()).bad(), ["1.1.0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_hosts_start_with_are_deployed_for_all_and_never_back_to_an_older_one() {
    let database = Database::new().expect("a server");
    // At the same time, on an empty database.
    let files = [packed("1.0.0")];
    let (first, second) = tokio::join!(Host::start(&database, "a", &files), Host::start(&database, "b", &files));
    assert_eq!((first.live().as_deref(), second.live().as_deref()), (Some("1.0.0"), Some("1.0.0")));
    first.runtime.refresh(&listener()).await.expect("reads");
    assert_eq!(first.history().len(), 1, "one of them deployed it: {:?}", first.history());

    // A host of the next release.
    let next = Host::start(&database, "c", &[packed("1.2.0")]).await;
    assert_eq!(next.live().as_deref(), Some("1.2.0"));
    first.until_live("1.2.0").await;
    second.until_live("1.2.0").await;
    // A host of the release before starts again, and one of an older one for the first time.
    let folder = second.kill().await;
    let second = Host::start_on(folder, &database, "b", &[packed("1.0.0")]).await;
    let older = Host::start(&database, "d", &[packed("1.1.0")]).await;
    assert_eq!((second.live().as_deref(), older.live().as_deref(), first.live().as_deref()), (Some("1.2.0"), Some("1.2.0"), Some("1.2.0")));
    // What was rolled away from does not come back with a start either.
    older.runtime.rollback(&listener(), &Decisions::default()).await.expect("there is a version before");
    first.until_live("1.0.0").await;
    let folder = next.kill().await;
    let next = Host::start_on(folder, &database, "c", &[packed("1.2.0")]).await;
    assert_eq!(next.live().as_deref(), Some("1.0.0"));
}
