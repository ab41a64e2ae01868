//! The operator's settings: defaults, then `echo.toml`, then `ECHO_SECTION__KEY`, then the command line. The only reader of the
//! environment and of settings and secrets in files. Knows what the settings mean, and nothing of the code that uses them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, fs};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use toml::{Table, Value};

use echo_base::limits;
use echo_base::names::ServiceName;
use echo_base::private_file;
use echo_capabilities::blob::BucketSettings;
use echo_capabilities::config::ServiceSettings;
use echo_capabilities::http::{CredentialSettings, HostPattern, HttpSettings};
use echo_capabilities::tokens::MasterKey;
use echo_runtime::manifest::duration;
use echo_runtime::route_settings::{AddedPrefix, IdentityKey, RouteOverride, RouteSettings};

mod routes;

/// For whom the host runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Serve,
    /// On a developer's machine: this machine only, generous rate limits, readable logs.
    Dev,
}

/// Every setting, read and checked. Each is explained in `echo.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    #[serde(skip)]
    pub mode: Mode,
    /// Development mode for others than this machine, as the command line alone can say.
    #[serde(skip)]
    pub expose_dev: bool,
    pub node: NodeConfig,
    pub server: ServerConfig,
    pub data: DataConfig,
    pub gateway: GatewayConfig,
    pub tokens: TokensConfig,
    pub passwords: PasswordsConfig,
    pub http: HttpConfig,
    pub cache: CacheConfig,
    pub sql: SqlConfig,
    pub feed: FeedConfig,
    pub queue: QueueConfig,
    pub events: EventsConfig,
    pub blob: BlobConfig,
    pub plugins: PluginsConfig,
    pub log: LogConfig,
    /// By service: its settings as text.
    pub services: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeConfig {
    /// Empty: one that is made once. See `Config::node_name`.
    pub name: String,
    /// Empty: where it listens.
    pub advertise: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub admin_token: Secret,
    pub admin_names: Vec<String>,
    /// See `Config::cursor_key`.
    pub cursor_key: Secret,
    pub metrics_token: Secret,
    pub public_metrics: bool,
    pub docs: bool,
    pub allowed_origins: Vec<String>,
    pub trusted_proxies_count: usize,
    /// Empty: connections are not encrypted. See `Config::tls`.
    pub tls_cert: PathBuf,
    pub tls_key: PathBuf,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub body_bytes_max: usize,
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataConfig {
    pub dir: PathBuf,
    /// Empty: none; what was deployed is in `dir`. See `Config::plugins_folder`.
    pub plugins: PathBuf,
    /// Empty: the permission map that the host was built with alone. See `Config::permissions`.
    pub permissions: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GatewayConfig {
    pub rate_scale: u32,
    /// See `Config::routes`.
    routes: Vec<RouteOverride>,
    prefixes: Vec<AddedPrefix>,
    services_off: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokensConfig {
    pub issuer: String,
    pub audience: String,
    #[serde(with = "duration")]
    pub access_ttl: Duration,
    #[serde(with = "duration")]
    pub rotate_every: Duration,
    /// What hosts of one database share is sealed by it and derived from it. See `Config::master_key`.
    pub master_key: Secret,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PasswordsConfig {
    pub cost: PasswordCost,
    pub fingerprint_key: Secret,
}

/// What services send to others, and the credentials that it is signed with. See `Config::outgoing_http`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpConfig {
    pub private_hosts: Vec<String>,
    /// Empty: the system's alone.
    pub root_certificates: PathBuf,
    pub vapid_key: Secret,
    pub vapid_subject: String,
    pub fcm_service_account: Secret,
    pub apns_key: Secret,
    pub apns_key_id: String,
    pub apns_team_id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PasswordCost {
    Production,
    /// Gives no protection; for benches and tests in dev mode.
    Light,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheConfig {
    /// Nothing: the cache in this process.
    pub url: Secret,
    pub prefix: String,
    pub bytes_max: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SqlConfig {
    /// Nothing: SQLite files below `data.dir`. See `Config::postgres`.
    pub url: Secret,
    pub password: Secret,
    /// Connections to PostgreSQL, and those of them without work.
    pub max_open: usize,
    pub max_idle: usize,
    #[serde(with = "duration")]
    pub max_lifetime: Duration,
    #[serde(with = "duration")]
    pub max_idle_time: Duration,
    pub synchronous: Synchronous,
    /// Of each service's database, in bytes.
    pub service_bytes_max: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeedConfig {
    #[serde(with = "duration")]
    pub cursors_kept: Duration,
}

/// What a commit outlives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// The end of the process.
    Normal,
    /// Also the loss of power: every commit is flushed to the disk.
    Full,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueConfig {
    #[serde(with = "duration")]
    pub dead_letter_ttl: Duration,
    pub dead_letters_max: usize,
    /// Events of one service that wait for their subscribers, one for each subscriber.
    pub waiting_max: u64,
}

/// Where events are kept on their way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventsConfig {
    /// Nothing: a file below `data.dir`. Else NATS with JetStream.
    pub url: Secret,
    pub prefix: String,
    /// On how many servers of a cluster events are kept.
    pub replicas: usize,
    /// Of all events that are kept.
    pub bytes_max: u64,
    /// Whether servers are used that are known to lose records.
    pub old_servers: bool,
}

/// Where uploaded files are. See `Config::blobs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlobConfig {
    /// Empty: below `data.dir`.
    pub url: String,
    /// Of a server of the S3 protocol; empty: Amazon's.
    pub endpoint: String,
    pub region: String,
    pub access_key_id: Secret,
    pub secret_access_key: Secret,
    pub path_style: bool,
}

/// Where uploaded files are.
#[derive(Clone)]
pub enum BlobStore {
    /// This host's own.
    Embedded,
    /// A folder that hosts share.
    Folder(PathBuf),
    Bucket(BucketSettings),
}

/// How versions of services are deployed and kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginsConfig {
    #[serde(with = "duration")]
    pub migration_timeout: Duration,
    pub versions_kept: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogConfig {
    pub format: LogFormat,
    /// `info`, or a filter such as `info,service=debug`.
    pub level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Json,
    Text,
}

/// What the command line says; it has the last word.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub data: Option<PathBuf>,
    pub plugins: Option<PathBuf>,
    pub listen: Option<SocketAddr>,
    pub admin_listen: Option<SocketAddr>,
    pub expose_dev: bool,
    /// As it stands in the settings: with a password in it, `env:NAME` or `file:PATH`.
    pub sql_url: Option<String>,
}

/// Everything that is wrong, not only the first.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    pub fn load(mode: Mode, file: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        let text = match file {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| ConfigError(vec![format!("{}: {error}", path.display())]))?),
            None => None,
        };
        let name = file.map(|path| path.display().to_string()).unwrap_or_default();
        let file = text.as_deref().map(|text| (name.as_str(), text));
        let mut variables = environment();
        variables.extend(overrides.sql_url.clone().map(|url| ("ECHO_SQL__URL".to_owned(), url)));
        Self::from_sources(mode, file, variables, overrides)
    }

    /// What holds without any file or variable.
    pub fn defaults(mode: Mode) -> Self {
        let dev = mode == Mode::Dev;
        Self {
            mode,
            expose_dev: false,
            node: NodeConfig { name: String::new(), advertise: String::new() },
            server: ServerConfig {
                listen: if dev { SocketAddr::from(([127, 0, 0, 1], 8080)) } else { SocketAddr::from(([0, 0, 0, 0], 8080)) },
                admin_listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
                admin_token: Secret::default(),
                admin_names: Vec::new(),
                cursor_key: Secret::default(),
                metrics_token: Secret::default(),
                public_metrics: dev,
                docs: true,
                allowed_origins: Vec::new(),
                trusted_proxies_count: 0,
                tls_cert: PathBuf::new(),
                tls_key: PathBuf::new(),
                connections_max: limits::CONNECTIONS_MAX,
                connections_per_address_max: if dev { limits::CONNECTIONS_MAX } else { limits::CONNECTIONS_PER_ADDRESS_MAX },
                body_bytes_max: limits::BODY_BYTES_MAX,
                request_timeout: Duration::from_millis(limits::REQUEST_TIMEOUT_MS),
                drain_timeout: Duration::from_millis(limits::DRAIN_TIMEOUT_MS),
            },
            data: DataConfig {
                dir: PathBuf::from("./data"),
                plugins: if dev { PathBuf::from("target/plugins") } else { PathBuf::new() },
                permissions: PathBuf::new(),
            },
            gateway: GatewayConfig {
                rate_scale: if dev { 1_000 } else { 1 },
                routes: Vec::new(),
                prefixes: Vec::new(),
                services_off: Vec::new(),
            },
            tokens: TokensConfig {
                issuer: "echo".to_owned(),
                audience: "echo".to_owned(),
                access_ttl: Duration::from_secs(limits::ACCESS_TOKEN_TTL_S),
                rotate_every: Duration::from_secs(limits::TOKEN_KEY_ROTATION_S),
                master_key: Secret::default(),
            },
            passwords: PasswordsConfig { cost: PasswordCost::Production, fingerprint_key: Secret::default() },
            http: HttpConfig {
                private_hosts: Vec::new(),
                root_certificates: PathBuf::new(),
                vapid_key: Secret::default(),
                vapid_subject: String::new(),
                fcm_service_account: Secret::default(),
                apns_key: Secret::default(),
                apns_key_id: String::new(),
                apns_team_id: String::new(),
            },
            cache: CacheConfig { url: Secret::default(), prefix: "echo".to_owned(), bytes_max: limits::CACHE_BYTES_MAX },
            sql: SqlConfig {
                url: Secret::default(),
                password: Secret::default(),
                max_open: limits::POSTGRES_OPEN_MAX,
                max_idle: limits::POSTGRES_IDLE_MAX,
                max_lifetime: Duration::from_secs(limits::POSTGRES_LIFETIME_S),
                max_idle_time: Duration::from_secs(limits::POSTGRES_IDLE_TIME_S),
                synchronous: Synchronous::Full,
                service_bytes_max: limits::SQL_SERVICE_BYTES_MAX,
            },
            feed: FeedConfig { cursors_kept: Duration::from_secs(limits::FEED_CURSORS_KEPT_S) },
            queue: QueueConfig {
                dead_letter_ttl: Duration::from_secs(limits::DEAD_LETTER_TTL_S),
                dead_letters_max: limits::DEAD_LETTERS_MAX,
                waiting_max: limits::QUEUE_WAITING_MAX,
            },
            events: EventsConfig {
                url: Secret::default(),
                prefix: "echo".to_owned(),
                replicas: 3,
                bytes_max: limits::JETSTREAM_BYTES_MAX,
                old_servers: false,
            },
            blob: BlobConfig {
                url: String::new(),
                endpoint: String::new(),
                region: "us-east-1".to_owned(),
                access_key_id: Secret::default(),
                secret_access_key: Secret::default(),
                path_style: true,
            },
            plugins: PluginsConfig {
                migration_timeout: Duration::from_millis(limits::SQL_MIGRATION_LIVE_TIMEOUT_MS),
                versions_kept: limits::VERSIONS_KEPT,
            },
            log: LogConfig { format: if dev { LogFormat::Text } else { LogFormat::Json }, level: "info".to_owned() },
            services: BTreeMap::new(),
        }
    }

    /// The folder of packed services that are loaded at the start; none unless there is one.
    pub fn plugins_folder(&self) -> Option<&Path> {
        Some(self.data.plugins.as_path()).filter(|path| !path.as_os_str().is_empty())
    }

    /// A `services.wit` whose worlds are granted besides those that the host was built with.
    pub fn permissions(&self) -> Option<&Path> {
        Some(self.data.permissions.as_path()).filter(|path| !path.as_os_str().is_empty())
    }

    /// The files of the certificate and of its key.
    pub fn tls(&self) -> Option<(&Path, &Path)> {
        let (certificate, key) = (self.server.tls_cert.as_path(), self.server.tls_key.as_path());
        Some((certificate, key)).filter(|_| !certificate.as_os_str().is_empty())
    }

    /// The address of the PostgreSQL database that takes the place of SQLite, with its password.
    pub fn postgres(&self) -> Option<String> {
        let url = self.sql.url.text()?;
        Some(self.sql.password.text().map_or_else(|| url.to_owned(), |password| with_password(url, password)))
    }

    /// Where uploaded files are. Errors: what is wrong with `blob.url`.
    pub fn blobs(&self) -> Result<BlobStore, String> {
        let BlobConfig { url, endpoint, region, access_key_id, secret_access_key, path_style } = &self.blob;
        if url.is_empty() {
            return Ok(BlobStore::Embedded);
        }
        if let Some(folder) = url.strip_prefix("file:") {
            let folder = Path::new(folder.strip_prefix("//").unwrap_or(folder));
            let is_good = folder.is_absolute() && folder.components().all(|part| part != std::path::Component::ParentDir);
            return if is_good {
                Ok(BlobStore::Folder(folder.to_owned()))
            } else {
                Err("blob.url: \"file:\" wants a whole path, such as \"file:/srv/echo-files\"".to_owned())
            };
        }
        let wrong = || {
            "blob.url must be such as \"s3://bucket/prefix\" or \"file:/srv/echo-files\"; a bucket's name has 3 to 63 letters, digits, -, . and _, the prefix letters, digits, - and _".to_owned()
        };
        let (bucket, prefix) = url.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, ""))).ok_or_else(wrong)?;
        // Amazon's rules for names of buckets; those of others are no wider where it matters here.
        let is_bucket =
            (3..=63).contains(&bucket.len()) && bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let prefix = prefix.trim_end_matches('/');
        let is_prefix = prefix.is_empty()
            || prefix
                .split('/')
                .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        if !is_bucket || !is_prefix {
            return Err(wrong());
        }
        let (Some(access_key_id), Some(secret_access_key)) = (access_key_id.text(), secret_access_key.text()) else {
            return Err("blob.access_key_id, blob.secret_access_key: a bucket wants both".to_owned());
        };
        Ok(BlobStore::Bucket(BucketSettings {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: endpoint.clone(),
            region: region.clone(),
            access_key_id: access_key_id.to_owned(),
            secret_access_key: secret_access_key.to_owned(),
            is_path_style: *path_style,
        }))
    }

    /// What the operator changes of the services' routes.
    pub fn routes(&self) -> RouteSettings {
        let GatewayConfig { routes, prefixes, services_off, .. } = self.gateway.clone();
        RouteSettings { overrides: routes, prefixes, services_off }
    }

    /// The settings other than those of routes whose values differ, as `section.key`. Of secrets nothing is said.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let table = |config: &Self| {
            let mut others = config.clone();
            (others.gateway.routes, others.gateway.prefixes) = (Vec::new(), Vec::new());
            others.gateway.services_off = Vec::new();
            Table::try_from(others).expect("settings are a table")
        };
        let (own, others) = (table(self), table(other));
        let mut differences = Vec::new();
        for (section, keys) in &own {
            for (key, value) in keys.as_table().into_iter().flatten() {
                if others.get(section).and_then(|keys| keys.get(key)) != Some(value) {
                    differences.push(format!("{section}.{key}"));
                }
            }
        }
        differences
    }

    /// The operator's `[services.<name>]` over the manifest's defaults.
    pub fn service_settings(&self, service: &ServiceName, defaults: &BTreeMap<String, Value>) -> ServiceSettings {
        let mut values: BTreeMap<String, String> = defaults.iter().map(|(key, value)| (key.clone(), as_text(value))).collect();
        if let Some(own) = self.services.get(service.as_str()) {
            values.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        ServiceSettings { dev_mode: self.mode == Mode::Dev, values }
    }

    /// The secret that all hosts of one database have. None without `sql.url`: then there is one host.
    pub fn master_key(&self) -> Result<Option<MasterKey>, ConfigError> {
        let text = self.tokens.master_key.text();
        text.map(|text| MasterKey::of_text(text).map_err(|reason| ConfigError(vec![format!("tokens.master_key: {reason}")]))).transpose()
    }

    /// Errors: a file that cannot be read, or a host that is none.
    pub fn outgoing_http(&self) -> Result<HttpSettings, ConfigError> {
        let HttpConfig {
            private_hosts,
            root_certificates,
            vapid_key,
            vapid_subject,
            fcm_service_account,
            apns_key,
            apns_key_id,
            apns_team_id,
        } = &self.http;
        let wrong = |reason: String| ConfigError(vec![reason]);
        let private_hosts = private_hosts.iter().map(|host| HostPattern::parse(host)).collect::<Result<_, _>>();
        let root_certificates = Some(root_certificates)
            .filter(|file| !file.as_os_str().is_empty())
            .map(|file| fs::read(file).map_err(|error| wrong(format!("http.root_certificates: {}: {error}", file.display()))));
        let text = |secret: &Secret| secret.text().map(str::to_owned);
        Ok(HttpSettings {
            private_hosts: private_hosts.map_err(|reason| wrong(format!("http.private_hosts: {reason}")))?,
            root_certificates: root_certificates.transpose()?,
            credentials: CredentialSettings {
                vapid_key: text(vapid_key),
                vapid_subject: vapid_subject.clone(),
                fcm_service_account: text(fcm_service_account),
                apns_key: text(apns_key),
                apns_key_id: apns_key_id.clone(),
                apns_team_id: apns_team_id.clone(),
            },
        })
    }

    /// The key of fingerprints. See `shared_secret`.
    pub fn fingerprint_key(&self) -> Result<[u8; 32], ConfigError> {
        self.shared_secret(&self.passwords.fingerprint_key, "fingerprint.key", "fingerprints")
    }

    /// The key that cursors are sealed with. See `shared_secret`.
    pub fn cursor_key(&self) -> Result<[u8; 32], ConfigError> {
        self.shared_secret(&self.server.cursor_key, "cursor.key", "cursors")
    }

    /// The same on all hosts of a database and after a restart: the configured one, else derived from the master key, else (one host) made once and kept in
    /// the data folder.
    fn shared_secret(&self, configured: &Secret, file: &str, purpose: &str) -> Result<[u8; 32], ConfigError> {
        match self.master_key()? {
            Some(master_key) if configured.text().is_none() => Ok(master_key.derive(purpose)),
            _ => Ok(Sha256::digest(self.kept(configured, file)?.as_bytes()).into()),
        }
    }

    /// Which host this is among those that share a database: the configured name, else one made once and kept in the data folder.
    pub fn node_name(&self) -> Result<String, ConfigError> {
        if !self.node.name.is_empty() {
            return Ok(self.node.name.clone());
        }
        let text = self.kept(&Secret::default(), "node.name")?;
        Ok(format!("node-{}", &text[..text.len().min(12)]))
    }

    /// The operator's token: the configured one, else one made once and kept in the data folder.
    pub fn admin_token(&self) -> Result<String, ConfigError> {
        self.kept(&self.server.admin_token, "admin.token")
    }

    fn kept(&self, configured: &Secret, name: &str) -> Result<String, ConfigError> {
        if let Some(text) = configured.text() {
            return Ok(text.to_owned());
        }
        let folder = self.data.dir.join("secrets");
        let path = folder.join(name);
        let failed = |error: std::io::Error| ConfigError(vec![format!("{}: {error}", path.display())]);
        match std::fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            // Nothing there, or nothing in it.
            _ => {}
        }
        let made = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        private_file::create_folder(&folder).and_then(|()| private_file::write(&path, made.as_bytes())).map_err(failed)?;
        Ok(made)
    }

    fn from_sources(
        mode: Mode,
        file: Option<(&str, &str)>,
        environment: BTreeMap<String, String>,
        overrides: Overrides,
    ) -> Result<Self, ConfigError> {
        let mut reading = Reading::new(mode, environment);
        if let Some((name, text)) = file {
            reading.file(name, text);
        }
        reading.variables();
        let mut config = reading.finish(mode)?;
        config.server.listen = overrides.listen.unwrap_or(config.server.listen);
        config.server.admin_listen = overrides.admin_listen.unwrap_or(config.server.admin_listen);
        config.expose_dev = overrides.expose_dev;
        config.data.dir = overrides.data.unwrap_or(config.data.dir);
        config.data.plugins = overrides.plugins.unwrap_or(config.data.plugins);
        let problems = config.problems();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
    }

    /// What each setting alone cannot say.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut must = |good: bool, problem: &str| {
            if !good {
                problems.push(problem.to_owned());
            }
        };
        let Self { server, tokens, .. } = self;
        let seconds = |from: u64, to: u64| Duration::from_secs(from)..=Duration::from_secs(to);
        must(seconds(1, 600).contains(&server.request_timeout), "server.request_timeout must be between 1s and 10m");
        must(seconds(0, 600).contains(&server.drain_timeout), "server.drain_timeout must be at most 10m");
        must((1..=64 * limits::BODY_BYTES_MAX).contains(&server.body_bytes_max), "server.body_bytes_max must be between 1 byte and 64 MiB");
        must(
            server.tls_cert.as_os_str().is_empty() == server.tls_key.as_os_str().is_empty(),
            "server.tls_cert and server.tls_key go together: the one is no good without the other",
        );
        must(server.connections_max > 0, "server.connections_max must be above 0");
        must(server.connections_per_address_max > 0, "server.connections_per_address_max must be above 0");
        must(
            server.listen.port() == 0 || server.listen != server.admin_listen,
            "server.listen and server.admin_listen must not be the same address",
        );
        for (setting, address) in [("server.listen", server.listen), ("server.admin_listen", server.admin_listen)] {
            let good = self.mode == Mode::Serve || self.expose_dev || address.ip().is_loopback();
            let why = "development mode shows one-time codes to everybody and limits nobody";
            must(good, &format!("{setting}: {why}, so it listens on this machine alone: {address} wants --expose-dev, or `echod serve`"));
        }
        for origin in &server.allowed_origins {
            let good = origin == "*" || is_origin(origin);
            must(good, &format!("server.allowed_origins: {origin:?} is neither \"*\" nor an origin such as \"https://app.example.org\""));
        }
        for name in &server.admin_names {
            let good = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
            must(good, &format!("server.admin_names: {name:?} is no host name such as \"echo-admin.internal\", without a port"));
        }
        must(self.gateway.rate_scale > 0, "gateway.rate_scale must be above 0");
        self.routes().problems(server.request_timeout).iter().for_each(|problem| must(false, problem));
        must(!tokens.issuer.is_empty() && !tokens.audience.is_empty(), "tokens.issuer and tokens.audience must not be empty");
        must(
            tokens.access_ttl.subsec_nanos() == 0 && seconds(1, limits::ACCESS_TOKEN_TTL_MAX_S).contains(&tokens.access_ttl),
            "tokens.access_ttl must be whole seconds between 1s and 1d",
        );
        must(tokens.rotate_every >= tokens.access_ttl, "tokens.rotate_every must not be shorter than tokens.access_ttl");
        must(
            self.passwords.cost == PasswordCost::Production || self.mode == Mode::Dev,
            "passwords.cost: \"light\" protects nobody and is for dev mode only",
        );
        for host in &self.http.private_hosts {
            must(HostPattern::parse(host).is_ok(), &format!("http.private_hosts: {host:?} is no host: write name:port"));
        }
        let subject = &self.http.vapid_subject;
        must(
            self.http.vapid_key.text().is_none() || subject.starts_with("mailto:") || subject.starts_with("https://"),
            "http.vapid_key wants http.vapid_subject, \"mailto:…\" or \"https://…\", where a push service can reach you",
        );
        must(self.feed.cursors_kept >= Duration::from_secs(24 * 60 * 60), "feed.cursors_kept must be at least 1d");
        if let Some(url) = self.cache.url.text() {
            must(
                has_host(url, &["redis", "rediss"]),
                "cache.url must be such as \"redis://host:6379\", or \"rediss://user:password@host:6380\" with TLS",
            );
        }
        must(is_prefix(&self.cache.prefix), "cache.prefix must be letters, digits and hyphens, 1 to 32 of them");
        must(self.cache.bytes_max >= limits::MIB_BYTES, "cache.bytes_max must be at least 1048576");
        must(self.sql.service_bytes_max >= limits::SQL_SERVICE_BYTES_MIN, "sql.service_bytes_max must be at least 4194304");
        must(
            self.node.name.len() <= 63 && self.node.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
            "node.name: at most 63 letters, digits, hyphens, dots and underscores",
        );
        if let Some(urls) = self.events.url.text() {
            must(
                urls.split(',').all(|url| has_host(url.trim(), &["nats", "tls"])),
                "events.url must be such as \"nats://host:4222\", with TLS \"tls://host:4222\", or several of them separated by commas",
            );
            must(
                self.sql.url.text().is_some(),
                "events.url needs sql.url: events are kept in PostgreSQL until all subscribers are done with them, as NATS may lose them",
            );
        }
        let blobs = self.blobs();
        must(blobs.is_ok(), blobs.as_ref().err().map_or("", String::as_str));
        let is_bucket = self.blob.url.starts_with("s3:");
        let has_key = self.blob.access_key_id.text().is_some() || self.blob.secret_access_key.text().is_some();
        must(is_bucket || !has_key, "blob.access_key_id and blob.secret_access_key are for a blob.url such as \"s3://bucket\"");
        must(is_bucket || self.blob.endpoint.is_empty(), "blob.endpoint is for a blob.url such as \"s3://bucket\"");
        must(
            self.blob.endpoint.is_empty() || has_host(&self.blob.endpoint, &["http", "https"]),
            "blob.endpoint must be such as \"https://s3.example.org\"",
        );
        must(!self.blob.region.is_empty(), "blob.region must not be empty: servers other than Amazon's mostly take \"us-east-1\"");
        must(is_prefix(&self.events.prefix), "events.prefix must be letters, digits and hyphens, 1 to 32 of them");
        must([1, 3, 5].contains(&self.events.replicas), "events.replicas must be 1, 3 or 5");
        must(self.events.bytes_max >= limits::JETSTREAM_BYTES_MIN, "events.bytes_max must be at least 16777216");
        must(
            self.node.advertise.len() <= 255 && self.node.advertise.bytes().all(|byte| byte.is_ascii_graphic()),
            "node.advertise must be an address such as 10.0.0.7:8080 or echo-1.internal:8080",
        );
        match self.sql.url.text() {
            Some(url) => {
                let (server, database) = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).unwrap_or_default();
                must(url.starts_with("postgres"), "sql.url begins with postgres://");
                must(
                    !database.split('?').next().unwrap_or_default().is_empty(),
                    "sql.url names no database: postgres://user@host/database",
                );
                must(!server.is_empty() || database.contains("host="), "sql.url names no server: postgres://user@host/database");
                must(self.sql.password.text().is_none() || password_of(url).is_none(), "sql.password: there is one in sql.url already");
                match self.tokens.master_key.text().map(MasterKey::of_text) {
                    Some(Ok(_)) => {}
                    Some(Err(reason)) => must(false, &format!("tokens.master_key: {reason}")),
                    None => must(
                        false,
                        "tokens.master_key: sql.url wants one, the same on all hosts, as \"file:PATH\" or \"env:NAME\"; `openssl rand -base64 32` makes one",
                    ),
                }
                // Settings of SQLite alone, which would be passed over in silence.
                must(
                    self.sql.synchronous == Synchronous::Full,
                    "sql.synchronous is for SQLite: with sql.url every commit is flushed to the disk before it is answered",
                );
                must(
                    self.sql.service_bytes_max == limits::SQL_SERVICE_BYTES_MAX,
                    "sql.service_bytes_max is for SQLite: with sql.url the server's disk is PostgreSQL's to watch",
                );
            }
            None => {
                must(self.sql.password.text().is_none(), "sql.password is for sql.url, which is not set");
                must(self.tokens.master_key.text().is_none(), "tokens.master_key is for sql.url, which is not set");
            }
        }
        must(
            (limits::POSTGRES_OPEN_MIN..=1_000).contains(&self.sql.max_open),
            "sql.max_open must be between 2 (one for services, one for the host) and 1000",
        );
        must(
            self.sql.max_lifetime >= Duration::from_secs(1) && self.sql.max_idle_time >= Duration::from_secs(1),
            "sql.max_lifetime and sql.max_idle_time must be at least 1s",
        );
        must(
            (Duration::from_millis(100)..=Duration::from_millis(limits::SQL_MIGRATION_TIMEOUT_MS))
                .contains(&self.plugins.migration_timeout),
            "plugins.migration_timeout must be between 100ms and 1m",
        );
        must(
            (limits::VERSIONS_KEPT_MIN..=limits::VERSIONS_KEPT_MAX).contains(&self.plugins.versions_kept),
            "plugins.versions_kept must be between 3 and 100",
        );
        must(
            seconds(60, 10 * 365 * 24 * 60 * 60).contains(&self.queue.dead_letter_ttl),
            "queue.dead_letter_ttl must be between 1m and 3650d",
        );
        must((1..=1_000_000).contains(&self.queue.dead_letters_max), "queue.dead_letters_max must be between 1 and 1000000");
        must((1..=10_000_000).contains(&self.queue.waiting_max), "queue.waiting_max must be between 1 and 10000000");
        must(!self.data.dir.as_os_str().is_empty(), "data.dir must not be empty");
        let level = tracing_subscriber::EnvFilter::try_new(&self.log.level);
        // A word without a level would be taken for the name of a module, and everything else would be silent.
        let is_level = |word: &str| word.contains('=') || word.trim().parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
        let good = level.is_ok() && self.log.level.split(',').all(is_level);
        must(good, &format!("log.level: {:?} is no filter; write info, or info,service=debug", self.log.level));
        if let (Mode::Serve, Some(folder)) = (self.mode, self.plugins_folder()) {
            must(folder.is_dir(), &format!("data.plugins: there is no folder {}", folder.display()));
        }
        problems
    }
}

/// The password in an address: `postgres://user:password@host/database`.
fn password_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (user, _) = rest.split(['/', '?']).next()?.rsplit_once('@')?;
    user.split_once(':').map(|(_, password)| password)
}

fn with_password(url: &str, password: &str) -> String {
    let Some((user, rest)) = url.split_once("://").and_then(|(_, rest)| rest.split_once('@')) else { return url.to_owned() };
    let encoded: String = password
        .bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    format!("postgres://{user}:{encoded}@{rest}")
}

/// Whether it is an address with one of these schemes and a host.
fn has_host(url: &str, schemes: &[&str]) -> bool {
    let uri = url.parse::<http::Uri>();
    uri.is_ok_and(|uri| uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme)) && uri.host().is_some_and(|host| !host.is_empty()))
}

/// What may stand before Echo's names in an engine that others use too.
fn is_prefix(prefix: &str) -> bool {
    (1..=32).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A value that is never shown: `env:NAME` or `file:PATH` in the settings.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// None where nothing was configured.
    pub fn text(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|text| !text.is_empty())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "unset" } else { "…" })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// The settings while they are put together. A value that is wrong is noted and left out, so that all mistakes come to light at once.
struct Reading {
    known: Table,
    table: Table,
    environment: BTreeMap<String, String>,
    routes: RouteSettings,
    problems: Vec<String>,
}

const SERVICES: &str = "services";
const GATEWAY: &str = "gateway";
const SECRETS: [(&str, &str); 12] = [
    ("server", "admin_token"),
    ("server", "cursor_key"),
    ("server", "metrics_token"),
    ("passwords", "fingerprint_key"),
    ("tokens", "master_key"),
    ("http", "vapid_key"),
    ("http", "fcm_service_account"),
    ("http", "apns_key"),
    ("sql", "url"),
    ("sql", "password"),
    ("blob", "access_key_id"),
    ("blob", "secret_access_key"),
];

/// Addresses, which may have a password in them: then they are secrets.
const ADDRESSES: [(&str, &str); 2] = [("cache", "url"), ("events", "url")];

impl Reading {
    fn new(mode: Mode, environment: BTreeMap<String, String>) -> Self {
        let known = Table::try_from(Config::defaults(mode)).expect("settings are a table");
        Self { table: known.clone(), known, environment, routes: RouteSettings::default(), problems: Vec::new() }
    }

    fn file(&mut self, name: &str, text: &str) {
        let sections: Table = match text.parse() {
            Ok(sections) => sections,
            Err(error) => return self.problems.push(format!("{name}: {error}")),
        };
        match routes::read(name, text) {
            Ok(mut routes) => {
                self.identity_keys(&mut routes);
                self.routes = routes;
            }
            Err(problems) => self.problems.extend(problems),
        }
        for (section, content) in sections {
            if !self.known.contains_key(&section) {
                self.unknown(name, &section);
                continue;
            }
            let Value::Table(entries) = content else {
                self.problems.push(format!("{name}: {section} is a section: write [{section}]"));
                continue;
            };
            for (key, value) in entries {
                match value {
                    Value::Table(settings) if section == SERVICES => {
                        settings.into_iter().for_each(|(setting, value)| self.set_service(name, &key, setting, &value));
                    }
                    _ if section == SERVICES => self.problems.push(format!("{name}: write [services.{key}] and the settings below it")),
                    // Read above.
                    _ if section == GATEWAY && routes::KEYS.contains(&key.as_str()) => {}
                    value => self.set(name, &section, &key, value),
                }
            }
        }
    }

    /// Puts the keys in the place of where they stand.
    fn identity_keys(&mut self, routes: &mut RouteSettings) {
        for prefix in &mut routes.prefixes {
            let Some(key) = &mut prefix.identity_key else { continue };
            match self.secret(key.text()) {
                Ok(secret) => *key = IdentityKey::new(secret),
                Err(reason) => {
                    self.problems.push(format!("{}: gateway.prefixes {:?}: identity_key: {reason}", prefix.origin, prefix.prefix))
                }
            }
        }
    }

    /// `ECHO_SECTION__KEY`, and `ECHO_SERVICES__NAME__KEY`. Variables without the double underscore are others' business.
    fn variables(&mut self) {
        for (variable, text) in self.environment.clone() {
            let path = variable.strip_prefix("ECHO_").unwrap_or(&variable).to_lowercase();
            match path.split("__").collect::<Vec<_>>()[..] {
                [SERVICES, service, key] => self.set_service(&variable, service, key.to_owned(), &Value::String(text)),
                [section, key] => match self.known.get(section).and_then(|section| section.get(key)) {
                    None => self.unknown(&variable, &format!("{section}.{key}")),
                    Some(default) => match from_text(default, &text) {
                        Some(value) => self.set(&variable, section, key, value),
                        None => self.problems.push(format!("{variable}: {text:?} is no {}", default.type_str())),
                    },
                },
                _ => self.unknown(&variable, &path.replace("__", ".")),
            }
        }
    }

    fn set(&mut self, origin: &str, section: &str, key: &str, value: Value) {
        if self.known[section].get(key).is_none() {
            return self.unknown(origin, &format!("{section}.{key}"));
        }
        let value = match (&value, SECRETS.contains(&(section, key))) {
            // An address without a password is none.
            (Value::String(text), true)
                if (section, key) == ("sql", "url") && text.starts_with("postgres") && password_of(text).is_none() =>
            {
                value
            }
            (Value::String(text), _) if ADDRESSES.contains(&(section, key)) && !text.is_empty() => match self.address(text) {
                Ok(address) => Value::String(address),
                Err(reason) => return self.problems.push(format!("{origin}: {section}.{key}: {reason}")),
            },
            (Value::String(text), true) if !text.is_empty() => match self.secret(text) {
                Ok(secret) => Value::String(secret),
                Err(reason) => return self.problems.push(format!("{origin}: {section}.{key}: {reason}")),
            },
            _ => value,
        };
        // Alone among defaults, so that whatever is wrong is this value's.
        let mut probe = self.known.clone();
        let entries = probe[section].as_table_mut().expect("every section is a table");
        entries.insert(key.to_owned(), value.clone());
        match probe.try_into::<Config>() {
            Ok(_) => {
                let entries = self.table[section].as_table_mut().expect("every section is a table");
                entries.insert(key.to_owned(), value);
            }
            Err(error) => self.problems.push(format!("{origin}: {section}.{key}: {}", error.message())),
        }
    }

    fn set_service(&mut self, origin: &str, service: &str, key: String, value: &Value) {
        if let Err(error) = ServiceName::parse(service) {
            return self.problems.push(format!("{origin}: {error}"));
        }
        let mut text = as_text(value);
        if text.starts_with("env:") || text.starts_with("file:") {
            text = match self.secret(&text) {
                Ok(secret) => secret,
                Err(reason) => return self.problems.push(format!("{origin}: services.{service}.{key}: {reason}")),
            };
        }
        let services = self.table[SERVICES].as_table_mut().expect("every section is a table");
        let settings = services.entry(service).or_insert_with(|| Value::Table(Table::new()));
        settings.as_table_mut().expect("only tables are put here").insert(key, Value::String(text));
    }

    fn secret(&self, reference: &str) -> Result<String, String> {
        let text = if let Some(name) = reference.strip_prefix("env:") {
            // Looked up here and not among the overrides: any variable may hold a secret.
            std::env::var(name).map_err(|_| format!("the variable {name} is not set"))?
        } else if let Some(path) = reference.strip_prefix("file:") {
            std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?
        } else {
            return Err("a secret does not stand in the settings; write \"env:NAME\" or \"file:PATH\"".to_owned());
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() { Err(format!("{reference} is empty")) } else { Ok(text.to_owned()) }
    }

    fn address(&self, text: &str) -> Result<String, String> {
        if text.starts_with("env:") || text.starts_with("file:") {
            return self.secret(text);
        }
        // A user without a password is none: `redis://user@host`.
        let has_password = text.split(',').any(|address| {
            let authority = address.split_once("://").map_or(address, |(_, rest)| rest).split(['/', '?']).next().unwrap_or_default();
            authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
        });
        if has_password {
            Err("an address with a password in it does not stand in the settings; write \"env:NAME\" or \"file:PATH\"".to_owned())
        } else {
            Ok(text.to_owned())
        }
    }

    fn unknown(&mut self, origin: &str, path: &str) {
        let nearest = self.nearest(path).map(|known| format!("; did you mean {known}?")).unwrap_or_default();
        self.problems.push(format!("{origin}: there is no setting {path}{nearest}"));
    }

    fn nearest(&self, path: &str) -> Option<String> {
        let leaf = path.rsplit('.').next().unwrap_or(path);
        let likeness = |known: &str, known_leaf: &str| {
            // A right name in the wrong section is nearer than a wrong name in the right one.
            if known_leaf == leaf { 1.0 } else { strsim::normalized_damerau_levenshtein(known, path) }
        };
        let sections = self.known.keys().map(|section| (section.clone(), section.clone()));
        let keys = self.known.iter().flat_map(|(section, keys)| {
            keys.as_table().into_iter().flat_map(Table::keys).map(move |key| (format!("{section}.{key}"), key.clone()))
        });
        let candidates: Box<dyn Iterator<Item = (String, String)>> = if path.contains('.') { Box::new(keys) } else { Box::new(sections) };
        let best = candidates.map(|(known, leaf)| (likeness(&known, &leaf), known)).max_by(|a, b| a.0.total_cmp(&b.0));
        best.filter(|(likeness, _)| *likeness > 0.5).map(|(_, known)| known)
    }

    fn finish(self, mode: Mode) -> Result<Config, ConfigError> {
        if !self.problems.is_empty() {
            return Err(ConfigError(self.problems));
        }
        let config = self.table.try_into::<Config>().map_err(|error| ConfigError(vec![error.message().to_owned()]))?;
        let RouteSettings { overrides: routes, prefixes, services_off } = self.routes;
        Ok(Config { mode, gateway: GatewayConfig { routes, prefixes, services_off, ..config.gateway }, ..config })
    }
}

fn environment() -> BTreeMap<String, String> {
    let text = |text: OsString| text.into_string().ok();
    std::env::vars_os()
        .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
        .filter(|(name, _)| name.starts_with("ECHO_") && name.contains("__"))
        .collect()
}

/// A variable's text as a value of the default's type; a list is separated by commas.
fn from_text(default: &Value, text: &str) -> Option<Value> {
    match default {
        Value::Integer(_) => text.parse().ok().map(Value::Integer),
        Value::Float(_) => text.parse().ok().map(Value::Float),
        Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        _ => Some(Value::String(text.to_owned())),
    }
}

/// A string as it is, anything else as TOML writes it.
fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// RFC 6454: scheme, host and port, and nothing after.
fn is_origin(text: &str) -> bool {
    match text.parse::<http::Uri>() {
        Ok(uri) => {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
                && uri.path_and_query().is_none_or(|path| path == "/")
                && !text.ends_with('/')
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const ECHO_TOML: &str = include_str!("../../echo.toml");

    fn read(mode: Mode, text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Config::from_sources(mode, Some(("echo.toml", text)), environment, Overrides::default())
    }

    fn refused(text: &str, variables: &[(&str, &str)], expect: &[&str]) {
        let message = read(Mode::Serve, text, variables).expect_err(text).to_string();
        for expect in expect {
            assert!(message.contains(expect), "{message:?} does not say {expect:?}");
        }
        assert_eq!(message.lines().count(), expect.len(), "one line for each mistake: {message}");
    }

    /// `echo.toml` with its settings no longer commented out.
    fn uncommented() -> String {
        let is_setting = |line: &str| {
            let name = line.strip_prefix("# ").and_then(|rest| rest.split_once(" = ")).map(|(name, _)| name);
            name.is_some_and(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        };
        ECHO_TOML.lines().map(|line| if is_setting(line) { &line[2..] } else { line }).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn echo_toml_as_it_comes_changes_nothing() {
        for mode in [Mode::Serve, Mode::Dev] {
            assert_eq!(read(mode, ECHO_TOML, &[]).unwrap(), Config::defaults(mode));
        }
    }

    #[test]
    fn echo_toml_names_every_setting_with_its_default() {
        assert_eq!(read(Mode::Serve, &uncommented(), &[]).unwrap(), Config::defaults(Mode::Serve));
        let written: Table = uncommented().parse().unwrap();
        for (section, keys) in Table::try_from(Config::defaults(Mode::Serve)).unwrap() {
            for key in keys.as_table().unwrap().keys() {
                assert!(written.get(&section).and_then(|section| section.get(key)).is_some(), "{section}.{key} is missing");
            }
        }
    }

    #[test]
    fn echo_toml_says_what_is_different_in_dev() {
        let (serve, dev) = (Table::try_from(Config::defaults(Mode::Serve)).unwrap(), Table::try_from(Config::defaults(Mode::Dev)).unwrap());
        for (section, keys) in &dev {
            for (key, value) in keys.as_table().unwrap() {
                if serve[section][key] != *value {
                    let begin = ECHO_TOML.find(&format!("# {key} = ")).unwrap();
                    let line = ECHO_TOML[begin..].lines().next().unwrap();
                    assert!(line.ends_with(&format!("# dev: {value}")), "{line:?} does not end with the default in dev, {value}");
                }
            }
        }
    }

    #[test]
    fn later_sources_go_over_earlier_ones() {
        let text =
            "[server]\nlisten = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:2\"\n[tokens]\naccess_ttl = \"5m\"\n[log]\nlevel = \"warn\"\n";
        let variables = [("ECHO_SERVER__LISTEN", "127.0.0.1:3"), ("ECHO_LOG__LEVEL", "debug"), ("ECHO_GATEWAY__RATE_SCALE", "7")];
        let environment = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let overrides = Overrides { listen: Some("127.0.0.1:4".parse().unwrap()), data: Some("elsewhere".into()), ..Overrides::default() };
        let config = Config::from_sources(Mode::Dev, Some(("echo.toml", text)), environment, overrides).unwrap();
        assert_eq!(config.server.listen.port(), 4);
        assert_eq!(config.server.admin_listen.port(), 2);
        assert_eq!(config.log.level, "debug");
        assert_eq!(config.gateway.rate_scale, 7);
        assert_eq!(config.tokens.access_ttl, Duration::from_secs(300));
        assert_eq!(config.data.dir, Path::new("elsewhere"));
        assert_eq!(config.plugins_folder(), Some(Path::new("target/plugins")));
        assert_eq!(Config::defaults(Mode::Serve).plugins_folder(), None);
    }

    #[test]
    fn a_certificate_and_its_key_go_together() {
        assert_eq!(Config::defaults(Mode::Serve).tls(), None);
        let both = read(Mode::Serve, "[server]\ntls_cert = \"a.pem\"\ntls_key = \"b.pem\"\n", &[]).unwrap();
        assert_eq!(both.tls(), Some((Path::new("a.pem"), Path::new("b.pem"))));
        refused("[server]\ntls_cert = \"a.pem\"\n", &[], &["server.tls_cert and server.tls_key go together"]);
        refused("[server]\nconnections_max = 0\n", &[], &["server.connections_max must be above 0"]);
    }

    #[test]
    fn variables_have_the_type_of_their_setting() {
        let variables = [
            ("ECHO_SERVER__PUBLIC_METRICS", "false"),
            ("ECHO_SERVER__ALLOWED_ORIGINS", "https://a.example, https://b.example"),
            ("ECHO_SERVICES__MESSAGE__EDIT_WINDOW_S", "60"),
        ];
        let config = read(Mode::Serve, "", &variables).unwrap();
        assert!(!config.server.public_metrics);
        assert_eq!(config.server.allowed_origins, ["https://a.example", "https://b.example"]);
        assert_eq!(config.services["message"]["edit_window_s"], "60");
        refused("", &[("ECHO_SERVER__PUBLIC_METRICS", "maybe")], &["ECHO_SERVER__PUBLIC_METRICS: \"maybe\" is no boolean"]);
        refused("", &[("ECHO_SERVER__LISTN", "x")], &["did you mean server.listen?"]);
    }

    #[test]
    fn an_unknown_setting_is_refused_with_the_nearest_right_one() {
        refused(
            "[server]\nlisten_addr = \"x\"\n",
            &[],
            &["echo.toml: there is no setting server.listen_addr; did you mean server.listen?"],
        );
        refused("[server]\nrate_scale = 3\n", &[], &["did you mean gateway.rate_scale?"]);
        refused("[tokens]\nacess_ttl = \"1m\"\n", &[], &["did you mean tokens.access_ttl?"]);
        refused("[servr]\nlisten = \"x\"\n", &[], &["there is no setting servr; did you mean server?"]);
        refused("[zzzzzzzzzz]\n", &[], &["echo.toml: there is no setting zzzzzzzzzz"]);
    }

    #[test]
    fn all_mistakes_are_told_at_once_each_with_its_setting() {
        refused(
            "log = 3\n[server]\nlisten = \"here\"\npublic_metrics = 1\n[sql]\nsynchronous = \"sometimes\"\n[tokens]\naccess_ttl = \"soon\"\n",
            &[],
            &["log is a section", "server.listen: ", "server.public_metrics: ", "sql.synchronous: ", "tokens.access_ttl: "],
        );
        let message = read(Mode::Serve, "[server\n", &[]).unwrap_err().to_string();
        assert!(message.contains("echo.toml: ") && message.contains("line 1"), "{message}");
    }

    #[test]
    fn development_mode_is_for_this_machine() {
        for key in ["listen", "admin_listen"] {
            let text = format!("[server]\n{key} = \"0.0.0.0:7000\"\n");
            let refused = read(Mode::Dev, &text, &[]).expect_err("refused").to_string();
            assert!(refused.contains(&format!("server.{key}: ")) && refused.contains("--expose-dev"), "{refused}");
            assert!(read(Mode::Serve, &text, &[]).is_ok());
            let exposed = Overrides { expose_dev: true, ..Overrides::default() };
            assert!(Config::from_sources(Mode::Dev, Some(("echo.toml", &text)), BTreeMap::new(), exposed).is_ok());
        }
        for address in ["127.0.0.1:7000", "127.8.8.8:7000", "[::1]:7000"] {
            assert!(read(Mode::Dev, &format!("[server]\nlisten = \"{address}\"\n"), &[]).is_ok(), "{address}");
        }
    }

    #[test]
    fn values_are_checked() {
        for (text, expect) in [
            ("[tokens]\naccess_ttl = \"2d\"\n", "tokens.access_ttl"),
            ("[tokens]\naccess_ttl = \"1500ms\"\n", "whole seconds"),
            ("[tokens]\nrotate_every = \"1m\"\n", "tokens.rotate_every"),
            ("[server]\nallowed_origins = [\"app.example.org\"]\n", "app.example.org"),
            ("[server]\nadmin_names = [\"http://admin.example.org\"]\n", "server.admin_names"),
            ("[server]\nallowed_origins = [\"https://app.example.org/path\"]\n", "/path"),
            ("[server]\nrequest_timeout = \"0s\"\n", "server.request_timeout"),
            ("[server]\nadmin_listen = \"0.0.0.0:8080\"\n", "the same address"),
            ("[gateway]\nrate_scale = 0\n", "gateway.rate_scale"),
            ("[passwords]\ncost = \"light\"\n", "dev mode only"),
            ("[log]\nlevel = \"info,=,\"\n", "log.level"),
            ("[log]\nlevel = \"loud\"\n", "log.level"),
            ("[log]\nlevel = \"info,loud\"\n", "log.level"),
            ("[data]\nplugins = \"/no/such/folder\"\n", "there is no folder /no/such/folder"),
            ("[data]\ndir = \"\"\n", "data.dir"),
            ("[plugins]\nmigration_timeout = \"5m\"\n", "plugins.migration_timeout"),
            ("[plugins]\nversions_kept = 1\n", "plugins.versions_kept"),
            ("[queue]\ndead_letter_ttl = \"1s\"\n", "queue.dead_letter_ttl"),
            ("[queue]\ndead_letters_max = 0\n", "queue.dead_letters_max"),
            ("[queue]\nwaiting_max = 0\n", "queue.waiting_max"),
            ("[services]\nauth = 1\n", "[services.auth]"),
            ("[services.Auth]\na = 1\n", "Auth"),
        ] {
            refused(text, &[], &[expect]);
        }
        assert_eq!(read(Mode::Dev, "[passwords]\ncost = \"light\"\n", &[]).unwrap().passwords.cost, PasswordCost::Light);
        assert!(read(Mode::Serve, "[server]\nallowed_origins = [\"*\", \"http://localhost:3000\"]\n", &[]).is_ok());
    }

    #[test]
    fn secrets_come_from_elsewhere_and_are_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "the operator's token\n").unwrap();
        let text = format!("[server]\nadmin_token = \"file:{0}\"\n[services.auth]\nkey = \"file:{0}\"\n", path.display());
        let config = read(Mode::Serve, &text, &[]).unwrap();
        assert_eq!(config.admin_token().unwrap(), "the operator's token");
        assert_eq!(config.services["auth"]["key"], "the operator's token");
        assert!(!format!("{:?}", config.server).contains("the operator's token"));
        let home = std::env::var("PATH").unwrap();
        assert_eq!(read(Mode::Serve, "[server]\nadmin_token = \"env:PATH\"\n", &[]).unwrap().admin_token().unwrap(), home);
        refused("[server]\nadmin_token = \"secret\"\n", &[], &["env:NAME"]);
        refused("[server]\nadmin_token = \"env:ECHO_NO_SUCH_VARIABLE\"\n", &[], &["ECHO_NO_SUCH_VARIABLE is not set"]);
        refused("[services.auth]\nkey = \"file:/no/such/file\"\n", &[], &["services.auth.key: /no/such/file"]);
    }

    #[test]
    fn addresses_of_engines_are_checked_and_hold_no_password_in_the_open() {
        let config = read(Mode::Serve, "[cache]\nurl = \"redis://cache.example:6379\"\nprefix = \"echo-1\"\n", &[]).unwrap();
        assert_eq!(config.cache.url.text(), Some("redis://cache.example:6379"));
        refused("[cache]\nurl = \"redis://:word@cache.example\"\n", &[], &["an address with a password in it"]);
        refused("[cache]\nurl = \"http://cache.example\"\n", &[], &["cache.url must be such as"]);
        refused("[cache]\nurl = \"redis://\"\n", &[], &["cache.url"]);
        refused("[cache]\nprefix = \"a:{b}\"\n", &[], &["cache.prefix"]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("address");
        std::fs::write(&path, "rediss://user:word@cache.example\n").unwrap();
        let config = read(Mode::Serve, &format!("[cache]\nurl = \"file:{}\"\n", path.display()), &[]).unwrap();
        assert_eq!(config.cache.url.text(), Some("rediss://user:word@cache.example"));
        assert!(!format!("{:?}", config.cache).contains("word"));
    }

    #[test]
    fn events_go_by_nats_where_postgresql_keeps_them_too() {
        let sql = "[sql]\nurl = \"postgres://echo@db.example/echo\"\n[tokens]\nmaster_key = \"env:PATH\"\n";
        let settings = format!("{sql}[events]\nurl = \"nats://a.example:4222, tls://b.example:4222\"\nreplicas = 1\n");
        let config = read(Mode::Serve, &settings, &[]).unwrap();
        assert_eq!(config.events.url.text(), Some("nats://a.example:4222, tls://b.example:4222"));
        assert_eq!((config.events.prefix.as_str(), config.events.replicas, config.events.old_servers), ("echo", 1, false));
        refused("[events]\nurl = \"nats://a.example\"\n", &[], &["events.url needs sql.url"]);
        refused("[events]\nurl = \"nats://echo:word@a.example\"\n", &[], &["events.url: an address with a password in it"]);
        refused(
            "[events]\nurl = \"nats://a.example,http://b.example\"\n",
            &[],
            &["events.url must be such as", "events.url needs sql.url"],
        );
        refused("[events]\nreplicas = 2\n", &[], &["events.replicas"]);
        refused("[events]\nprefix = \"a.b\"\n", &[], &["events.prefix"]);
        refused("[events]\nbytes_max = 1\n", &[], &["events.bytes_max"]);
    }

    #[test]
    fn files_are_in_the_data_folder_in_a_shared_one_or_in_a_bucket() {
        assert!(matches!(read(Mode::Serve, "", &[]).unwrap().blobs(), Ok(BlobStore::Embedded)));
        for (url, path) in [("file:/srv/files", "/srv/files"), ("file:///srv/files", "/srv/files")] {
            let config = read(Mode::Serve, &format!("[blob]\nurl = \"{url}\"\n"), &[]).unwrap();
            assert!(matches!(config.blobs(), Ok(BlobStore::Folder(folder)) if folder == Path::new(path)), "{url}");
        }
        let keys = "access_key_id = \"env:PATH\"\nsecret_access_key = \"env:PATH\"\n";
        let config = read(Mode::Serve, &format!("[blob]\nurl = \"s3://files.example/echo/a/\"\n{keys}"), &[]).unwrap();
        let Ok(BlobStore::Bucket(settings)) = config.blobs() else { panic!("no bucket") };
        assert_eq!(
            (settings.bucket.as_str(), settings.prefix.as_str(), settings.region.as_str()),
            ("files.example", "echo/a", "us-east-1")
        );
        for url in ["s3://", "s3://a", "s3://bucket//a", "s3://bucket/a b", "http://bucket", "files"] {
            refused(
                &format!("[blob]\nurl = \"{url}\"\n{}", if url.starts_with("s3:") { keys } else { "" }),
                &[],
                &["blob.url must be such as"],
            );
        }
        refused("[blob]\nurl = \"file:files\"\n", &[], &["wants a whole path"]);
        refused("[blob]\nurl = \"file:/srv/../files\"\n", &[], &["wants a whole path"]);
        refused("[blob]\nurl = \"s3://bucket\"\n", &[], &["a bucket wants both"]);
        refused(&format!("[blob]\n{keys}"), &[], &["are for a blob.url such as"]);
        refused("[blob]\nendpoint = \"https://s3.example.org\"\n", &[], &["blob.endpoint is for"]);
        refused(&format!("[blob]\nurl = \"s3://bucket\"\nendpoint = \"s3.example.org\"\n{keys}"), &[], &["blob.endpoint must be such as"]);
        refused("[blob]\nsecret_access_key = \"in the open\"\n", &[], &["env:NAME"]);
    }

    #[test]
    fn a_secret_that_is_not_configured_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let overrides = Overrides { data: Some(folder.path().join("data")), ..Overrides::default() };
        let config = Config::from_sources(Mode::Dev, None, BTreeMap::new(), overrides).unwrap();
        let (token, key) = (config.admin_token().unwrap(), config.fingerprint_key().unwrap());
        assert_eq!(token.len(), 64);
        assert_eq!((config.admin_token().unwrap(), config.fingerprint_key().unwrap()), (token.clone(), key));
        let cursor_key = config.cursor_key().unwrap();
        let given = read(Mode::Serve, "[server]\ncursor_key = \"env:PATH\"\n", &[]).unwrap().cursor_key().unwrap();
        assert_ne!(given, cursor_key);
        refused("[server]\ncursor_key = \"secret\"\n", &[], &["env:NAME"]);
        assert_eq!(config.cursor_key().unwrap(), cursor_key);
        assert_ne!(cursor_key, key);
        let path = folder.path().join("data/secrets/admin.token");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "").unwrap();
        assert_ne!(config.admin_token().unwrap(), token, "an empty file is no token");
    }

    #[test]
    fn hosts_of_one_database_derive_what_they_share_from_the_master_key() {
        let [folder, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let key = folder.path().join("key");
        std::fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
        let sql = "[sql]\nurl = \"postgres://echo@db.example.org/echo\"\n";
        let host = |data: &Path, more: &str| {
            let text = format!("{sql}[tokens]\nmaster_key = \"file:{}\"\n[data]\ndir = \"{}\"\n{more}", key.display(), data.display());
            read(Mode::Serve, &text, &[]).unwrap()
        };
        let [a, b] = [host(folder.path(), ""), host(other.path(), "")];
        assert_eq!((a.cursor_key().unwrap(), a.fingerprint_key().unwrap()), (b.cursor_key().unwrap(), b.fingerprint_key().unwrap()));
        assert_ne!(a.cursor_key().unwrap(), a.fingerprint_key().unwrap());
        let set = host(folder.path(), "[server]\ncursor_key = \"env:PATH\"\n");
        assert_ne!(set.cursor_key().unwrap(), a.cursor_key().unwrap(), "what is set has the last word");
        assert_eq!(set.fingerprint_key().unwrap(), a.fingerprint_key().unwrap());
        assert!(!format!("{:?}", a.tokens).contains("0123456789abcdef"));

        refused(sql, &[], &["tokens.master_key: sql.url wants one"]);
        refused(sql, &[], &["openssl rand -base64 32"]);
        std::fs::write(&key, "short\n").unwrap();
        let short = format!("{sql}[tokens]\nmaster_key = \"file:{}\"\n", key.display());
        refused(&short, &[], &["tokens.master_key: it has 5 characters"]);
        refused("[tokens]\nmaster_key = \"env:PATH\"\n", &[], &["tokens.master_key is for sql.url"]);
        refused("[tokens]\nmaster_key = \"in the open\"\n", &[], &["env:NAME"]);
    }

    #[test]
    fn a_service_gets_its_own_settings_over_its_manifest() {
        let config =
            read(Mode::Dev, "[services.message]\nedit_window_s = 60\nnames = [\"a\", \"b\"]\n[services.user]\nx = true\n", &[]).unwrap();
        let defaults = BTreeMap::from([
            ("edit_window_s".to_owned(), Value::Integer(900)),
            ("delete_window_s".to_owned(), Value::Integer(172_800)),
            ("greeting".to_owned(), Value::String("hello".to_owned())),
        ]);
        let settings = config.service_settings(&ServiceName::parse("message").unwrap(), &defaults);
        assert!(settings.dev_mode);
        let expect = [("delete_window_s", "172800"), ("edit_window_s", "60"), ("greeting", "hello"), ("names", "[\"a\", \"b\"]")];
        assert_eq!(settings.values, expect.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect());
    }
}
