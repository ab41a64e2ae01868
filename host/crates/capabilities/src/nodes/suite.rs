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
    NodeIdentity { name: "this".to_owned(), advertise: "here:1".to_owned(), version: "1.0.0".to_owned() }
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
