//! The engines that the settings name: whether they answer, whether they are new enough, and whether they are set as a host needs them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Finding;
use crate::config::EventsConfig;
use echo_base::limits;
use echo_capabilities::blob::{Blobs, BucketBlobs, BucketSettings};
use echo_capabilities::cache;
use echo_capabilities::events::jetstream;
use echo_capabilities::sql::postgres;

const DATABASE: &str = "PostgreSQL";

/// `open_max`: connections that this host may want.
pub(super) async fn database(url: &str, open_max: usize) -> Vec<Finding> {
    let found = match postgres::inspect(url).await {
        Ok(found) => found,
        Err(error) => {
            return vec![Finding::failure(DATABASE, error.to_string(), "see sql.url and sql.password, pg_hba.conf, and whether it runs")];
        }
    };
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    of_database(&found, open_max, now_ms)
}

/// `now_ms`: by this machine's clock.
fn of_database(found: &postgres::Inspection, open_max: usize, now_ms: i64) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut must = |good: bool, says: String, advice: &str| {
        if !good {
            findings.push(Finding::failure(DATABASE, says, advice));
        }
    };
    must(found.is_new_enough, format!("version {} is too old", found.version), "use 15 or later");
    must(found.fsync == "on", "fsync is off: a power cut destroys the database".to_owned(), "fsync = on");
    must(found.full_page_writes == "on", "full_page_writes is off: a power cut may destroy pages".to_owned(), "full_page_writes = on");
    must(found.may_make_roles, "the role in sql.url may not make roles, one for each service".to_owned(), "ALTER ROLE … CREATEROLE");
    must(found.owns_database, "the role in sql.url does not own the database".to_owned(), "ALTER DATABASE … OWNER TO …");
    let ahead_ms = now_ms - found.now_ms;
    if ahead_ms.unsigned_abs() > limits::DOCTOR_CLOCK_MS_MAX {
        let says = format!(
            "this machine's clock is {:.1} s {} its clock",
            ahead_ms.unsigned_abs() as f64 / 1_000.0,
            if ahead_ms > 0 { "ahead of" } else { "behind" }
        );
        findings.push(Finding::warning(DATABASE, says, "let both follow the same time servers (chrony, systemd-timesyncd)"));
    }
    let room = found.connections_max - found.connections_open;
    if room < open_max as i64 {
        let says = format!(
            "{} of {} connections are open, and this host may want {open_max} (sql.max_open)",
            found.connections_open, found.connections_max
        );
        findings.push(Finding::warning(DATABASE, says, "raise max_connections there, or lower sql.max_open; each host has its own"));
    }
    if findings.is_empty() {
        findings.push(Finding::good(DATABASE, format!("version {}, durable, {room} connections to spare", found.version)));
    }
    findings
}

pub(super) async fn redis(url: &str) -> Finding {
    const WHAT: &str = "Redis";
    match cache::redis::inspect(url).await {
        Err(reason) => {
            Finding::warning(WHAT, reason, "see cache.url, and whether it runs; without it each host has its own cache and limits")
        }
        Ok(found) if found.major < 7 => Finding::failure(WHAT, format!("version {} is too old", found.version), "use 7 or later"),
        Ok(found) if found.memory_max > 0 && found.policy == "noeviction" => {
            let says = format!("version {}; when its {} MiB are full it refuses to keep more", found.version, found.memory_max >> 20);
            Finding::warning(WHAT, says, "maxmemory-policy volatile-lru: all that Echo keeps there may be forgotten")
        }
        Ok(found) => Finding::good(WHAT, format!("version {}", found.version)),
    }
}

pub(super) async fn nats(urls: &str, settings: &EventsConfig) -> Finding {
    const WHAT: &str = "NATS";
    match jetstream::inspect(urls).await {
        // A host starts without it.
        Err(reason) => {
            Finding::warning(WHAT, reason, "see events.url, and whether it runs; until it answers what services do on events waits")
        }
        Ok(found) if !found.is_new_enough && !settings.old_servers => Finding::failure(
            WHAT,
            format!("version {} loses acknowledged records", found.version),
            "use a newer nats-server; events.old_servers = true uses it nevertheless",
        ),
        Ok(found) if !found.has_jetstream => Finding::failure(
            WHAT,
            format!("version {}, without JetStream", found.version),
            "start nats-server with --jetstream, or jetstream {} in its settings",
        ),
        Ok(found) if !found.is_clustered && settings.replicas > 1 => Finding::warning(
            WHAT,
            format!(
                "version {}, one server alone: it keeps one copy of each event, and {} are wanted (events.replicas)",
                found.version, settings.replicas
            ),
            "run three servers as a cluster, or set events.replicas = 1",
        ),
        Ok(found) => Finding::good(WHAT, format!("version {} with JetStream", found.version)),
    }
}

/// Writes an object and removes it.
pub(super) async fn bucket(settings: &BucketSettings) -> Finding {
    const WHAT: &str = "bucket of files";
    let work = async {
        let bucket = BucketBlobs::on_s3(settings).await.map_err(|error| (true, error.to_string()))?;
        bucket.ping().await.map_err(|error| (false, error.to_string()))
    };
    let wait = Duration::from_millis(limits::DOCTOR_BUCKET_MS);
    match tokio::time::timeout(wait, work)
        .await
        .unwrap_or_else(|_| Err((false, format!("no answer within {} ms", limits::DOCTOR_BUCKET_MS))))
    {
        Ok(()) => Finding::good(WHAT, format!("{} can be written to", settings.bucket)),
        Err((true, reason)) => Finding::failure(WHAT, reason, "see blob.url, blob.endpoint, blob.region and the credentials"),
        // A host starts without it.
        Err((false, reason)) => {
            Finding::warning(WHAT, reason, "see blob.endpoint, and whether it runs; until it answers no file is stored or read")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::doctor::Verdict;
    use crate::config::{Config, Mode};

    #[tokio::test]
    async fn engines_that_do_not_answer_are_said() {
        let events = Config::defaults(Mode::Serve).events;
        let settings = BucketSettings {
            bucket: "echo-files".to_owned(),
            prefix: String::new(),
            endpoint: "http://127.0.0.1:1".to_owned(),
            region: "us-east-1".to_owned(),
            access_key_id: "a".to_owned(),
            secret_access_key: "b".to_owned(),
            is_path_style: true,
        };
        let found = [
            database("postgres://a:b@127.0.0.1:1/c", 25).await.remove(0),
            redis("redis://127.0.0.1:1").await,
            nats("nats://127.0.0.1:1", &events).await,
            bucket(&settings).await,
        ];
        let verdicts: Vec<_> = found.iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Failure, Verdict::Warning, Verdict::Warning, Verdict::Warning], "{found:?}");
        assert!(found.iter().all(|finding| !finding.advice.is_empty() && !finding.says.is_empty()));
    }

    #[test]
    fn settings_of_postgresql_that_lose_or_refuse_are_said() {
        let good = postgres::Inspection {
            version: "15.6".to_owned(),
            is_new_enough: true,
            fsync: "on".to_owned(),
            full_page_writes: "on".to_owned(),
            connections_max: 100,
            connections_open: 10,
            may_make_roles: true,
            owns_database: true,
            now_ms: 1_000_000,
        };
        let check = |change: &dyn Fn(&mut postgres::Inspection), expect: Verdict, says: &str| {
            let mut found = good.clone();
            change(&mut found);
            let findings = of_database(&found, 25, 1_000_100);
            assert!(findings.len() == 1 && findings[0].verdict == expect && findings[0].says.contains(says), "{findings:?}");
            assert_eq!(findings[0].advice.is_empty(), expect == Verdict::Good);
        };
        check(&|_| {}, Verdict::Good, "15.6");
        check(&|found| found.is_new_enough = false, Verdict::Failure, "too old");
        check(&|found| found.fsync = "off".to_owned(), Verdict::Failure, "fsync");
        check(&|found| found.full_page_writes = "off".to_owned(), Verdict::Failure, "full_page_writes");
        check(&|found| found.may_make_roles = false, Verdict::Failure, "roles");
        check(&|found| found.owns_database = false, Verdict::Failure, "own the database");
        check(&|found| found.now_ms += 5_000, Verdict::Warning, "behind");
        check(&|found| found.now_ms -= 5_000, Verdict::Warning, "ahead of");
        check(&|found| found.connections_open = 90, Verdict::Warning, "90 of 100");
    }
}
