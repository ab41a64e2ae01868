//! What every list of hosts must do.

use super::*;

async fn suite(nodes: &dyn Nodes) {
    let of_this = |nodes: Vec<Node>| nodes.into_iter().find(|node| node.name == "this");
    let first = of_this(nodes.list().await.expect("lists")).expect("it is there from the start");
    assert_eq!((first.state, first.advertise.as_str(), first.version.as_str()), (NodeState::Starting, "here:1", "1.0.0"));
    assert!(first.started_at_us > 1_600_000_000_000_000, "{first:?}");

    let report = NodeReport { connections: 7, ..NodeReport::default() };
    nodes.beat(NodeState::Serving, &report).await.expect("beats");
    let serving = of_this(nodes.list().await.expect("lists")).expect("it is there");
    assert_eq!((serving.state, &serving.report, serving.boot), (NodeState::Serving, &report, first.boot));
    assert!(serving.seen_ms_ago < 5_000);

    nodes.beat(NodeState::Draining, &report).await.expect("beats");
    assert_eq!(of_this(nodes.list().await.expect("lists")).map(|node| node.state), Some(NodeState::Draining));
    nodes.leave().await.expect("leaves");
    assert_eq!(of_this(nodes.list().await.expect("lists")), None, "it ended in order");
}

fn identity() -> NodeIdentity {
    NodeIdentity { name: "this".to_owned(), advertise: "here:1".to_owned(), version: "1.0.0".to_owned(), engines: Engines::default() }
}

#[tokio::test]
async fn one_host_alone_passes() {
    suite(&single::SingleNode::new(identity())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_passes() {
    let server = crate::sql::postgres::fixture::Server::start().await;
    let backend = server.backend_of("this", "nodes", crate::sql::postgres::fixture::settings(8)).await;
    let folder = tempfile::tempdir().expect("a folder");
    suite(&postgres::PostgresNodes::open(&backend, identity(), folder.path()).await.expect("opens")).await;
}

#[test]
fn hosts_with_other_engines_are_told_apart() {
    let engines = |events: &str, prefix: &str, cache: &str| Engines {
        events: Engines::places(events),
        events_prefix: prefix.to_owned(),
        cache: Engines::places(cache),
        cache_prefix: "echo".to_owned(),
    };
    let own = engines("nats://user:secret@a:4222, tls://b:4222", "echo", "redis://:secret@c:6379/0");
    assert_eq!(own.events, ["a:4222".to_owned(), "b:4222".to_owned()].into());
    assert_eq!(own.cache, ["c:6379".to_owned()].into());
    // One server of a cluster is enough.
    assert_eq!(own.differences_from("other", &engines("nats://b:4222", "echo", "redis://c:6379")), []);
    for (other, expect) in
        [(engines("nats://b:4222", "test", "redis://c:6379"), "events.prefix"), (engines("nats://b:4222", "echo", ""), "cache.url")]
    {
        let differences = own.differences_from("other", &other);
        let [Difference::Wrong(reason)] = &differences[..] else { panic!("{differences:?}") };
        assert!(reason.contains(expect) && reason.contains("host other"), "{reason}");
    }
    let differences = own.differences_from("other", &engines("nats://z:4222", "echo", "redis://c:6379"));
    let [Difference::Doubtful(reason)] = &differences[..] else { panic!("{differences:?}") };
    assert!(reason.contains("z:4222") && !reason.contains("secret"), "{reason}");
}
