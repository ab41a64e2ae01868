//! The operator's settings: defaults, then `echo.toml`, then `ECHO_SECTION__KEY`, then the command line. The only reader of the
//! environment and of settings and secrets in files. Knows what the settings mean, and nothing of the code that uses them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::blob::BucketSettings;
use echo_capabilities::config::ServiceSettings;
use echo_capabilities::http::{CredentialSettings, HostPattern, HttpSettings};
use echo_capabilities::tokens::MasterKey;
use echo_runtime::manifest::duration;
use echo_runtime::route_settings::{AddedPrefix, RouteOverride, RouteSettings, ServiceOff};

mod address;
mod problems;
mod reading;
mod routes;
mod secret;

use address::with_password;
use reading::{Reading, as_text, environment, mentions, setting_names};
pub use secret::Secret;

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
    services_off: Vec<ServiceOff>,
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
        let (config, problems) = Self::read(mode, file, overrides);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
    }

    /// The settings, and all that is wrong with them; what is wrong is as by default. So that what else may be wrong can be looked for at once.
    pub fn read(mode: Mode, file: Option<&Path>, overrides: Overrides) -> (Self, Vec<String>) {
        let text = match file.map(|path| std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))) {
            Some(Ok(text)) => Some(text),
            Some(Err(problem)) => return (Self::defaults(mode), vec![problem]),
            None => None,
        };
        let name = file.map(|path| path.display().to_string()).unwrap_or_default();
        let file = text.as_deref().map(|text| (name.as_str(), text));
        let mut variables = environment();
        variables.extend(overrides.sql_url.clone().map(|url| ("ECHO_SQL__URL".to_owned(), url)));
        Self::read_sources(mode, file, variables, overrides)
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
            .map(|file| std::fs::read(file).map_err(|error| wrong(format!("http.root_certificates: {}: {error}", file.display()))));
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

    #[cfg(test)]
    fn from_sources(
        mode: Mode,
        file: Option<(&str, &str)>,
        environment: BTreeMap<String, String>,
        overrides: Overrides,
    ) -> Result<Self, ConfigError> {
        let (config, problems) = Self::read_sources(mode, file, environment, overrides);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
    }

    fn read_sources(
        mode: Mode,
        file: Option<(&str, &str)>,
        environment: BTreeMap<String, String>,
        overrides: Overrides,
    ) -> (Self, Vec<String>) {
        let mut reading = Reading::new(mode, environment);
        if let Some((name, text)) = file {
            reading.file(name, text);
        }
        reading.variables();
        let (mut config, mut problems) = reading.finish(mode);
        config.server.listen = overrides.listen.unwrap_or(config.server.listen);
        config.server.admin_listen = overrides.admin_listen.unwrap_or(config.server.admin_listen);
        config.expose_dev = overrides.expose_dev;
        config.data.dir = overrides.data.unwrap_or(config.data.dir);
        config.data.plugins = overrides.plugins.unwrap_or(config.data.plugins);
        // A setting that is wrong already, and is as by default here, would be said to be wrong again for that.
        let mentioned: Vec<String> =
            setting_names(mode).into_iter().filter(|name| problems.iter().any(|problem| mentions(problem, name))).collect();
        problems.extend(problems::of(&config).into_iter().filter(|problem| !mentioned.iter().any(|name| mentions(problem, name))));
        (config, problems)
    }
}

#[cfg(test)]
mod tests;
