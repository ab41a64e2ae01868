//! A host that stands still for longer than others wait for it, as a virtual machine that is moved does, and goes on.

use std::sync::atomic::Ordering;
use std::time::Duration;

use echo_base::limits;
use reqwest::{Method, StatusCode};
use tokio::sync::watch;

use super::hosts;
use crate::app::{TestApp, until};
use crate::kill::{self, people_write_while};

/// Until its devices have been released too.
const LONGER: Duration = Duration::from_millis(limits::DEVICE_HOSTS_LOST_MS - limits::NODE_AWAY_MS + limits::DEVICE_HOSTS_SWEEP_MS);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_stood_still_past_its_leases_loses_and_doubles_nothing_when_it_goes_on() {
    let (_database, mut hosts) = hosts(2, &kill::SETTINGS).await;
    let second = hosts.pop().expect("two");
    let mut first = hosts.pop().expect("two");
    let both = vec![first.url.clone(), second.url.clone()];
    let (addresses, _) = watch::channel(both.clone());
    let seen = people_write_while(&mut first, &addresses, async |first, workload| {
        workload.leave_unlisted.store(true, Ordering::Relaxed);
        // First the one that has most of the leases.
        for (stopped, other) in [(&*first, &second), (&second, &*first)] {
            tokio::time::sleep(Duration::from_secs(2)).await;
            addresses.send_replace(vec![other.url.clone()]);
            stopped.signal("STOP");
            until("the other host to have all leases", async || (node(other, stopped).await == ("away".to_owned(), 0)).then_some(())).await;
            tokio::time::sleep(LONGER).await;
            stopped.signal("CONT");
            addresses.send_replace(both.clone());
            until("it to be seen again", async || (node(other, stopped).await.0 == "serving").then_some(())).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
    })
    .await;
    println!("{} messages answered, {} sent again; longest silence {:.1?}", seen.answered, seen.retries, seen.longest_silence);
    assert!(seen.answered > 100, "only {} messages were answered", seen.answered);
}

/// How one host sees another, and the leases that this has.
async fn node(seen_by: &TestApp, host: &TestApp) -> (String, usize) {
    let nodes = seen_by.admin(Method::GET, "/admin/v1/nodes").send().await.expect(StatusCode::OK);
    let address = host.url.trim_start_matches("http://");
    let node = nodes["items"].as_array().expect("items").iter().find(|node| node["advertise"] == address).expect("it is listed");
    (node["state"].as_str().expect("a state").to_owned(), node["leases"].as_array().expect("a list").len())
}
