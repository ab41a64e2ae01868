//! Several hosts on one PostgreSQL database, as an operator starts and sees them.

use std::process::Command;
use std::time::Duration;

use echo_engines::postgres::Database;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::app::{TestApp, new_database, on_postgres, until};
use crate::backing::shared_by_hosts;
use crate::candidate::repacked;
use crate::load::Lookups;

/// Of each client between two requests.
const PAUSE: Duration = Duration::from_millis(10);

/// A database, and what else its hosts share.
struct Common(Database, Vec<(String, String)>);

impl Common {
    async fn new() -> Self {
        Self(new_database(), tokio::task::spawn_blocking(shared_by_hosts).await.expect("no panic"))
    }

    fn settings(&self) -> Vec<(String, String)> {
        on_postgres(&self.0).into_iter().chain(self.1.clone()).collect()
    }
}

/// The host of this name, with the same data as all others of the database.
async fn host(common: &Common, name: &str, services: &[&str]) -> TestApp {
    let settings = common.settings();
    let mut settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    settings.push(("ECHO_NODE__NAME", name));
    TestApp::with(services, &settings).await
}

async fn nodes_of(app: &TestApp) -> Vec<Value> {
    let answer = app.admin(Method::GET, "/admin/v1/nodes").send().await.expect(StatusCode::OK);
    answer["items"].as_array().expect("items").clone()
}

fn states(nodes: &[Value]) -> Vec<(&str, &str)> {
    nodes.iter().map(|node| (node["name"].as_str().expect("a name"), node["state"].as_str().expect("a state"))).collect()
}

#[tokio::test]
async fn the_operator_sees_every_host_and_what_it_runs() {
    let common = Common::new().await;
    let one = host(&common, "one", &["location"]).await;
    let mut two = host(&common, "two", &["location"]).await;
    let nodes = until("both to serve", async || {
        let nodes = nodes_of(&one).await;
        (states(&nodes) == [("one", "serving"), ("two", "serving")]).then_some(nodes)
    })
    .await;
    for (node, app) in nodes.iter().zip([&one, &two]) {
        assert_eq!(format!("http://{}", node["advertise"].as_str().expect("an address")), app.url, "{node}");
        assert_eq!(node["services"][0]["name"], "location", "{node}");
        assert!(node["services"][0]["sha256"].as_str().is_some_and(|sha256| sha256.len() == 64), "{node}");
        assert!(node["started_at"].as_str().is_some_and(|at| at.starts_with("20")), "{node}");
    }
    assert_eq!((&nodes[0]["this"], &nodes[1]["this"]), (&true.into(), &false.into()));
    let leases: Vec<&Value> = nodes.iter().flat_map(|node| node["leases"].as_array().expect("a list")).collect();
    assert!(leases.iter().any(|lease| lease.as_str().is_some_and(|lease| lease.starts_with("relay:"))), "{nodes:?}");
    let connections = one.admin(Method::GET, "/admin/v1/connections").send().await.expect(StatusCode::OK);
    assert_eq!(connections["nodes"].as_array().expect("a list").len(), 2, "{connections}");

    let mut third = Command::new(env!("CARGO_BIN_EXE_echod"));
    third.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data"]).arg(one.data.path().join("other"));
    third.envs(common.settings()).env("ECHO_NODE__NAME", "one");
    let output = third.output().expect("echod runs");
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && says.contains("another host is running as one") && says.contains("node.name"), "{says}");

    // Its queue would be its own.
    let mut alone = Command::new(env!("CARGO_BIN_EXE_echod"));
    alone.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data"]).arg(one.data.path().join("alone"));
    let output = alone.envs(on_postgres(&common.0)).env("ECHO_NODE__NAME", "alone").output().expect("echod runs");
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && says.contains("several hosts need events.url"), "{says}");
    // Its files would be its own.
    let mut alone = Command::new(env!("CARGO_BIN_EXE_echod"));
    alone.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data"]).arg(one.data.path().join("alone"));
    let settings = common.settings().into_iter().filter(|(key, _)| !key.starts_with("ECHO_BLOB__"));
    let output = alone.envs(settings).env("ECHO_NODE__NAME", "alone").output().expect("echod runs");
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && says.contains("several hosts need blob.url"), "{says}");

    // Neither would see what the other keeps there.
    let mut apart = Command::new(env!("CARGO_BIN_EXE_echod"));
    apart.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data"]).arg(one.data.path().join("apart"));
    let output = apart.envs(common.settings()).env("ECHO_NODE__NAME", "apart").env("ECHO_EVENTS__PREFIX", "apart").output();
    let output = output.expect("echod runs");
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && says.contains("events.prefix"), "{says}");

    two.kill();
    until("the killed one to be away", async || (states(&nodes_of(&one).await) == [("one", "serving"), ("two", "away")]).then_some(()))
        .await;
    two.restart().await;
    until("it to be back", async || (states(&nodes_of(&one).await) == [("one", "serving"), ("two", "serving")]).then_some(())).await;
    assert!(two.terminate().await.success());
    assert_eq!(states(&nodes_of(&one).await), [("one", "serving")], "it ended in order");
}

#[tokio::test]
async fn one_host_alone_is_a_list_of_one() {
    let app = TestApp::with(&["location"], &[("ECHO_NODE__NAME", "alone"), ("ECHO_NODE__ADVERTISE", "echo.internal:8080")]).await;
    let nodes = until("it to have said that it serves", async || {
        let nodes = nodes_of(&app).await;
        (states(&nodes) == [("alone", "serving")]).then_some(nodes)
    })
    .await;
    assert_eq!((&nodes[0]["advertise"], &nodes[0]["services"][0]["name"]), (&"echo.internal:8080".into(), &"location".into()));
}

fn location(version: &str) -> Vec<u8> {
    repacked("location", &[("version = \"0.1.0\"", &format!("version = \"{version}\""))])
}

/// The version of the service that each host says it runs.
async fn running(app: &TestApp) -> Vec<String> {
    let nodes = nodes_of(app).await;
    nodes.iter().map(|node| node["services"][0]["version"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_service_is_replaced_on_all_hosts_while_all_serve() {
    let common = Common::new().await;
    let one = host(&common, "one", &["location"]).await;
    let mut two = host(&common, "two", &["location"]).await;
    until("both to serve", async || (states(&nodes_of(&one).await) == [("one", "serving"), ("two", "serving")]).then_some(())).await;
    let load = [Lookups::start(&one, 4, PAUSE), Lookups::start(&two, 4, PAUSE)];
    for (number, app) in [&one, &two, &one, &two].into_iter().enumerate() {
        let version = format!("0.1.{}", number + 1);
        app.deploy("location", location(&version)).await.expect(StatusCode::OK);
        assert_eq!(running(app).await, [version.as_str(); 2], "whoever deploys answers when all have switched");
        for load in &load {
            load.answer_more(20).await;
        }
    }
    one.admin(Method::POST, "/admin/v1/plugins/location/rollback").send().await.expect(StatusCode::OK);
    until("both to be back", async || (running(&two).await == ["0.1.3"; 2]).then_some(())).await;
    for load in load {
        assert!(load.stop().await > 80, "every request was answered");
    }
    let history = |app: &TestApp| app.admin(Method::GET, "/admin/v1/plugins/location/history").send();
    let (of_one, of_two) = (history(&one).await.expect(StatusCode::OK), history(&two).await.expect(StatusCode::OK));
    assert_eq!(of_one, of_two, "one history for all");
    let items = of_one["items"].as_array().expect("items");
    assert_eq!((&items[0]["action"], &items[0]["node"], &items[1]["node"]), (&"rollback".into(), &"one".into(), &"two".into()), "{of_one}");

    // In its folder of packed files is still the first version.
    assert!(two.terminate().await.success());
    two.restart().await;
    until("it to run what all run", async || (running(&one).await == ["0.1.3"; 2]).then_some(())).await;
}
