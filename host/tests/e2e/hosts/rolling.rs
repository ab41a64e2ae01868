//! Hosts that are ended in order and started again, one after the other, as an upgrade does.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use echo_base::limits;
use tokio::sync::watch;

use super::{hosts, urls};
use crate::kill::{self, people_write_while};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hosts_are_restarted_one_after_the_other_and_sockets_go_on_elsewhere() {
    let (_database, mut hosts) = hosts(3, &kill::SETTINGS).await;
    let mut first = hosts.remove(0);
    let (addresses, _) = watch::channel(urls(&hosts, &first));
    let seen = people_write_while(&mut first, &addresses, async |first, workload| {
        workload.expects_goodbyes.store(true, Ordering::Relaxed);
        for number in 0..3 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let all = urls(&hosts, first);
            let host = if number == 2 { &mut *first } else { &mut hosts[number] };
            // As a load balancer does.
            addresses.send_replace(all.into_iter().filter(|url| *url != host.url).collect());
            assert!(host.terminate().await.success(), "it ended in order");
            host.restart().await;
            addresses.send_replace(urls(&hosts, first));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    })
    .await;
    let delays = seen.goodbyes_ms;
    println!(
        "{} messages answered, {} sent again, {} goodbyes; longest silence {:.1?}",
        seen.answered,
        seen.retries,
        delays.len(),
        seen.longest_silence
    );
    assert!(seen.answered > 100, "only {} messages were answered", seen.answered);
    assert!(delays.len() > 10, "only {} sockets were told", delays.len());
    assert!(delays.iter().all(|delay| (limits::RECONNECT_FIRST_MS..=limits::RECONNECT_LAST_MS).contains(delay)), "{delays:?}");
    assert!(delays.iter().collect::<BTreeSet<_>>().len() > delays.len() / 2, "they come back at times of their own: {delays:?}");
}
