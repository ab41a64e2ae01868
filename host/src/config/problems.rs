//! What each setting alone cannot say: bounds, and settings that go together.

use std::time::Duration;

use echo_base::limits;
use echo_capabilities::http::HostPattern;
use echo_capabilities::tokens::MasterKey;

use super::address::{has_host, is_origin, is_prefix, password_of};
use super::{Config, Mode, PasswordCost, Synchronous};

/// Collects all of them, so that they come to light at once.
struct Problems<'c> {
    config: &'c Config,
    found: Vec<String>,
}

/// Each with its setting.
pub fn of(config: &Config) -> Vec<String> {
    let mut problems = Problems { config, found: Vec::new() };
    problems.server();
    problems.names();
    problems.gateway();
    problems.tokens_and_passwords();
    problems.http();
    problems.node();
    problems.cache_and_feed();
    problems.events();
    problems.blob();
    problems.sql();
    problems.connections();
    problems.plugins_and_queue();
    problems.log();
    problems.found
}

fn seconds(from: u64, to: u64) -> std::ops::RangeInclusive<Duration> {
    Duration::from_secs(from)..=Duration::from_secs(to)
}

impl Problems<'_> {
    fn must(&mut self, good: bool, problem: &str) {
        if !good {
            self.found.push(problem.to_owned());
        }
    }

    fn server(&mut self) {
        let (config, server) = (self.config, &self.config.server);
        self.must(seconds(1, 600).contains(&server.request_timeout), "server.request_timeout must be between 1s and 10m");
        self.must(seconds(0, 600).contains(&server.drain_timeout), "server.drain_timeout must be at most 10m");
        self.must(
            (1..=64 * limits::BODY_BYTES_MAX).contains(&server.body_bytes_max),
            "server.body_bytes_max must be between 1 byte and 64 MiB",
        );
        self.must(
            server.tls_cert.as_os_str().is_empty() == server.tls_key.as_os_str().is_empty(),
            "server.tls_cert and server.tls_key go together: the one is no good without the other",
        );
        self.must(server.connections_max > 0, "server.connections_max must be above 0");
        self.must(server.connections_per_address_max > 0, "server.connections_per_address_max must be above 0");
        self.must(
            server.listen.port() == 0 || server.listen != server.admin_listen,
            "server.listen and server.admin_listen must not be the same address",
        );
        for (setting, address) in [("server.listen", server.listen), ("server.admin_listen", server.admin_listen)] {
            let good = config.mode == Mode::Serve || config.expose_dev || address.ip().is_loopback();
            let why = "development mode shows one-time codes to everybody and limits nobody";
            self.must(
                good,
                &format!("{setting}: {why}, so it listens on this machine alone: {address} wants --expose-dev, or `echod serve`"),
            );
        }
    }

    /// Those that clients and operators call this host by.
    fn names(&mut self) {
        let server = &self.config.server;
        for origin in &server.allowed_origins {
            let good = origin == "*" || is_origin(origin);
            self.must(
                good,
                &format!("server.allowed_origins: {origin:?} is neither \"*\" nor an origin such as \"https://app.example.org\""),
            );
        }
        for name in &server.admin_names {
            let good = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
            self.must(good, &format!("server.admin_names: {name:?} is no host name such as \"echo-admin.internal\", without a port"));
        }
    }

    fn gateway(&mut self) {
        let (config, server) = (self.config, &self.config.server);
        self.must(config.gateway.rate_scale > 0, "gateway.rate_scale must be above 0");
        config.routes().problems(server.request_timeout).iter().for_each(|problem| self.must(false, problem));
    }

    fn tokens_and_passwords(&mut self) {
        let (config, tokens) = (self.config, &self.config.tokens);
        self.must(!tokens.issuer.is_empty() && !tokens.audience.is_empty(), "tokens.issuer and tokens.audience must not be empty");
        self.must(
            tokens.access_ttl.subsec_nanos() == 0 && seconds(1, limits::ACCESS_TOKEN_TTL_MAX_S).contains(&tokens.access_ttl),
            "tokens.access_ttl must be whole seconds between 1s and 1d",
        );
        self.must(tokens.rotate_every >= tokens.access_ttl, "tokens.rotate_every must not be shorter than tokens.access_ttl");
        self.must(
            config.passwords.cost == PasswordCost::Production || config.mode == Mode::Dev,
            "passwords.cost: \"light\" protects nobody and is for dev mode only",
        );
    }

    fn http(&mut self) {
        let config = self.config;
        for host in &config.http.private_hosts {
            self.must(HostPattern::parse(host).is_ok(), &format!("http.private_hosts: {host:?} is no host: write name:port"));
        }
        let subject = &config.http.vapid_subject;
        self.must(
            config.http.vapid_key.text().is_none() || subject.starts_with("mailto:") || subject.starts_with("https://"),
            "http.vapid_key wants http.vapid_subject, \"mailto:…\" or \"https://…\", where a push service can reach you",
        );
    }

    fn node(&mut self) {
        let config = self.config;
        self.must(
            config.node.name.len() <= 63 && config.node.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
            "node.name: at most 63 letters, digits, hyphens, dots and underscores",
        );
        self.must(
            config.node.advertise.len() <= 255 && config.node.advertise.bytes().all(|byte| byte.is_ascii_graphic()),
            "node.advertise must be an address such as 10.0.0.7:8080 or echo-1.internal:8080",
        );
    }

    fn cache_and_feed(&mut self) {
        let config = self.config;
        self.must(config.feed.cursors_kept >= Duration::from_secs(24 * 60 * 60), "feed.cursors_kept must be at least 1d");
        if let Some(url) = config.cache.url.text() {
            self.must(
                has_host(url, &["redis", "rediss"]),
                "cache.url must be such as \"redis://host:6379\", or \"rediss://user:password@host:6380\" with TLS",
            );
        }
        self.must(is_prefix(&config.cache.prefix), "cache.prefix must be letters, digits and hyphens, 1 to 32 of them");
        self.must(config.cache.bytes_max >= limits::MIB_BYTES, "cache.bytes_max must be at least 1048576");
    }

    fn events(&mut self) {
        let config = self.config;
        if let Some(urls) = config.events.url.text() {
            self.must(
                urls.split(',').all(|url| has_host(url.trim(), &["nats", "tls"])),
                "events.url must be such as \"nats://host:4222\", with TLS \"tls://host:4222\", or several of them separated by commas",
            );
            self.must(
                config.sql.url.text().is_some(),
                "events.url needs sql.url: events are kept in PostgreSQL until all subscribers are done with them, as NATS may lose them",
            );
        }
        self.must(is_prefix(&config.events.prefix), "events.prefix must be letters, digits and hyphens, 1 to 32 of them");
        self.must([1, 3, 5].contains(&config.events.replicas), "events.replicas must be 1, 3 or 5");
        self.must(config.events.bytes_max >= limits::JETSTREAM_BYTES_MIN, "events.bytes_max must be at least 16777216");
    }

    fn blob(&mut self) {
        let config = self.config;
        let blobs = config.blobs();
        self.must(blobs.is_ok(), blobs.as_ref().err().map_or("", String::as_str));
        let is_bucket = config.blob.url.starts_with("s3:");
        let has_key = config.blob.access_key_id.text().is_some() || config.blob.secret_access_key.text().is_some();
        self.must(is_bucket || !has_key, "blob.access_key_id and blob.secret_access_key are for a blob.url such as \"s3://bucket\"");
        self.must(is_bucket || config.blob.endpoint.is_empty(), "blob.endpoint is for a blob.url such as \"s3://bucket\"");
        self.must(
            config.blob.endpoint.is_empty() || has_host(&config.blob.endpoint, &["http", "https"]),
            "blob.endpoint must be such as \"https://s3.example.org\"",
        );
        self.must(!config.blob.region.is_empty(), "blob.region must not be empty: servers other than Amazon's mostly take \"us-east-1\"");
    }

    fn sql(&mut self) {
        let config = self.config;
        self.must(config.sql.service_bytes_max >= limits::SQL_SERVICE_BYTES_MIN, "sql.service_bytes_max must be at least 4194304");
        match config.sql.url.text() {
            Some(url) => {
                let (server, database) = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).unwrap_or_default();
                self.must(url.starts_with("postgres"), "sql.url begins with postgres://");
                self.must(
                    !database.split('?').next().unwrap_or_default().is_empty(),
                    "sql.url names no database: postgres://user@host/database",
                );
                self.must(!server.is_empty() || database.contains("host="), "sql.url names no server: postgres://user@host/database");
                self.must(
                    config.sql.password.text().is_none() || password_of(url).is_none(),
                    "sql.password: there is one in sql.url already",
                );
                match config.tokens.master_key.text().map(MasterKey::of_text) {
                    Some(Ok(_)) => {}
                    Some(Err(reason)) => self.must(false, &format!("tokens.master_key: {reason}")),
                    None => self.must(
                        false,
                        "tokens.master_key: sql.url wants one, the same on all hosts, as \"file:PATH\" or \"env:NAME\"; `openssl rand -base64 32` makes one",
                    ),
                }
                // Settings of SQLite alone, which would be passed over in silence.
                self.must(
                    config.sql.synchronous == Synchronous::Full,
                    "sql.synchronous is for SQLite: with sql.url every commit is flushed to the disk before it is answered",
                );
                self.must(
                    config.sql.service_bytes_max == limits::SQL_SERVICE_BYTES_MAX,
                    "sql.service_bytes_max is for SQLite: with sql.url the server's disk is PostgreSQL's to watch",
                );
            }
            None => {
                self.must(config.sql.password.text().is_none(), "sql.password is for sql.url, which is not set");
                self.must(config.tokens.master_key.text().is_none(), "tokens.master_key is for sql.url, which is not set");
            }
        }
    }

    fn connections(&mut self) {
        let config = self.config;
        self.must(
            (limits::POSTGRES_OPEN_MIN..=1_000).contains(&config.sql.max_open),
            "sql.max_open must be between 2 (one for services, one for the host) and 1000",
        );
        self.must(
            config.sql.max_lifetime >= Duration::from_secs(1) && config.sql.max_idle_time >= Duration::from_secs(1),
            "sql.max_lifetime and sql.max_idle_time must be at least 1s",
        );
    }

    fn plugins_and_queue(&mut self) {
        let config = self.config;
        self.must(
            (Duration::from_millis(100)..=Duration::from_millis(limits::SQL_MIGRATION_TIMEOUT_MS))
                .contains(&config.plugins.migration_timeout),
            "plugins.migration_timeout must be between 100ms and 1m",
        );
        self.must(
            (limits::VERSIONS_KEPT_MIN..=limits::VERSIONS_KEPT_MAX).contains(&config.plugins.versions_kept),
            "plugins.versions_kept must be between 3 and 100",
        );
        self.must(
            seconds(60, 10 * 365 * 24 * 60 * 60).contains(&config.queue.dead_letter_ttl),
            "queue.dead_letter_ttl must be between 1m and 3650d",
        );
        self.must((1..=1_000_000).contains(&config.queue.dead_letters_max), "queue.dead_letters_max must be between 1 and 1000000");
        self.must((1..=10_000_000).contains(&config.queue.waiting_max), "queue.waiting_max must be between 1 and 10000000");
        self.must(!config.data.dir.as_os_str().is_empty(), "data.dir must not be empty");
        if let (Mode::Serve, Some(folder)) = (config.mode, config.plugins_folder()) {
            self.must(folder.is_dir(), &format!("data.plugins: there is no folder {}", folder.display()));
        }
    }

    fn log(&mut self) {
        let config = self.config;
        let level = tracing_subscriber::EnvFilter::try_new(&config.log.level);
        // A word without a level would be taken for the name of a module, and everything else would be silent.
        let is_level = |word: &str| word.contains('=') || word.trim().parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
        let good = level.is_ok() && config.log.level.split(',').all(is_level);
        self.must(good, &format!("log.level: {:?} is no filter; write info, or info,service=debug", config.log.level));
    }
}
