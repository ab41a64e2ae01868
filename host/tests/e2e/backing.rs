//! What the hosts of a test run on. Without anything said, one host on the embedded engines. `ECHO_TEST_SQL=postgres`: one host on PostgreSQL.
//! `ECHO_TEST_HOSTS=2` (or more): so many hosts on PostgreSQL, Redis and NATS, and every request and every socket of the test's client goes to another of
//! them, chosen at random by `ECHO_TEST_SEED` (1).
//!
//! A test that makes no sense there is named in `only.txt` with the reason. Asked for, it runs on what it is for; `cargo xtask test` prints the name and
//! the reason and leaves it out where it has run already.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Lines of a test's name or the beginning of it, the most that it runs on (`embedded` or `postgres`), and the reason.
const ONLY: &str = include_str!("only.txt");

/// From less to more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backing {
    Embedded,
    Postgres,
    Hosts,
}

impl Backing {
    /// What was asked for, within what makes sense for the test that runs on this thread.
    pub fn of_this_test() -> Self {
        let asked = Self::asked_for();
        if asked == Self::Embedded {
            return asked;
        }
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default();
        // The test harness names each test's thread after the test, unless there is one thread for all.
        assert!(test != "main", "give `--test-threads` 2 or more: a test is known here by the name of its thread");
        rule_of(test).map_or(asked, |rule| rule.most.min(asked))
    }

    fn asked_for() -> Self {
        if hosts() > 1 {
            return Self::Hosts;
        }
        match std::env::var("ECHO_TEST_SQL").as_deref() {
            Ok("postgres") => Self::Postgres,
            Err(_) | Ok("sqlite") => Self::Embedded,
            Ok(other) => panic!("ECHO_TEST_SQL: there is no engine {other:?}, only \"sqlite\" and \"postgres\""),
        }
    }
}

/// How many hosts a test has where it has several.
pub fn hosts() -> usize {
    std::env::var("ECHO_TEST_HOSTS").map_or(1, |count| count.parse().expect("ECHO_TEST_HOSTS: a number of hosts"))
}

/// Of each test: the servers that tests share set it aside at once.
pub const EVENTS_BYTES_MAX: &str = "67108864";

/// Settings that all hosts of one test have in common.
pub fn shared_by_hosts() -> Vec<(String, String)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let redis = echo_engines::redis::of_this_process().unwrap_or_else(|error| panic!("{error}"));
    let prefix = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let nats = echo_engines::nats::of_this_process().unwrap_or_else(|error| panic!("{error}"));
    let endpoint = echo_engines::s3::of_this_process().unwrap_or_else(|error| panic!("{error}"));
    let settings = [
        ("ECHO_CACHE__URL", redis.as_str()),
        ("ECHO_CACHE__PREFIX", &prefix),
        ("ECHO_EVENTS__URL", &nats),
        ("ECHO_EVENTS__PREFIX", &prefix),
        ("ECHO_EVENTS__BYTES_MAX", EVENTS_BYTES_MAX),
    ];
    settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().chain(on_bucket(&endpoint, &prefix)).collect()
}

/// Settings of a host whose uploaded files are in the bucket of this server.
pub fn on_bucket(endpoint: &str, prefix: &str) -> Vec<(String, String)> {
    let settings = [
        ("ECHO_BLOB__URL", format!("s3://{}/{prefix}", echo_engines::s3::BUCKET)),
        ("ECHO_BLOB__ENDPOINT", endpoint.to_owned()),
        ("ECHO_BLOB__ACCESS_KEY_ID", "env:ECHO_TEST_S3_ID".to_owned()),
        ("ECHO_TEST_S3_ID", echo_engines::s3::ACCESS_KEY_ID.to_owned()),
        ("ECHO_BLOB__SECRET_ACCESS_KEY", "env:ECHO_TEST_S3_SECRET".to_owned()),
        ("ECHO_TEST_S3_SECRET", echo_engines::s3::SECRET_ACCESS_KEY.to_owned()),
    ];
    settings.map(|(key, value)| (key.to_owned(), value)).to_vec()
}

/// Chooses hosts, the same ones in every run with the same seed.
pub struct Jumps {
    seed: u64,
    random: Mutex<StdRng>,
}

impl Jumps {
    pub fn new() -> Self {
        let seed = std::env::var("ECHO_TEST_SEED").map_or(1, |seed| seed.parse().expect("ECHO_TEST_SEED: a number"));
        Self { seed, random: Mutex::new(StdRng::seed_from_u64(seed)) }
    }

    /// Below `count`.
    pub fn next(&self, count: usize) -> usize {
        if count == 1 { 0 } else { self.random.lock().random_range(0..count) }
    }
}

impl fmt::Display for Jumps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}", self.seed)
    }
}

struct Rule {
    test: &'static str,
    most: Backing,
    reason: &'static str,
}

fn rule_of(test: &str) -> Option<Rule> {
    rules().find(|rule| test.starts_with(rule.test))
}

fn rules() -> impl Iterator<Item = Rule> {
    let lines = ONLY.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(|line| {
        let mut words = line.splitn(3, ' ').map(str::trim);
        let mut word = || words.next().unwrap_or_else(|| panic!("only.txt: {line}"));
        let (test, most, reason) = (word(), word(), word());
        let most = match most {
            "embedded" => Backing::Embedded,
            "postgres" => Backing::Postgres,
            other => panic!("only.txt: {other:?} is neither embedded nor postgres: {line}"),
        };
        Rule { test, most, reason }
    })
}

#[test]
fn every_rule_names_tests_that_are_there_and_has_a_reason() {
    let program = std::env::current_exe().expect("this program");
    let listed = std::process::Command::new(program).args(["--list", "--format", "terse"]).output().expect("the list of tests");
    let listed = String::from_utf8(listed.stdout).expect("names");
    for rule in rules() {
        assert!(listed.lines().any(|test| test.starts_with(rule.test)), "only.txt: there is no test {}", rule.test);
        assert!(rule.reason.split_whitespace().count() >= 3, "only.txt: why does {} run on {:?} alone?", rule.test, rule.most);
    }
}
