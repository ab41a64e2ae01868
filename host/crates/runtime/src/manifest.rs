//! `plugin.toml`: which routes, frames, topics and schedules a component's functions are bound to, and what it may use. Knows no wasmtime and no HTTP server.

mod bytes;
pub mod duration;
mod push;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::push::{PushClass, PushFrame};
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::http::HttpGrants;

/// A whole manifest. Unknown keys are errors that name them.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The service's name: lower-case letters, digits and hyphens. It names its tables, cache, settings and topics.
    pub name: String,
    /// Semantic version (semver.org 2.0.0): `MAJOR.MINOR.PATCH`.
    pub version: String,
    /// The prefix of all routes' paths, e.g. `/api/v1/auth`.
    #[serde(default)]
    pub prefix: String,
    /// HTTP routes, each bound to a function.
    #[serde(default, rename = "route")]
    pub routes: Vec<Route>,
    /// Types of WebSocket frames, each bound to a function.
    #[serde(default, rename = "socket")]
    pub sockets: Vec<Socket>,
    /// Functions that the host calls at intervals.
    #[serde(default, rename = "schedule")]
    pub schedules: Vec<Schedule>,
    /// Which topics the service subscribes to.
    #[serde(default)]
    pub events: Events,
    /// How the functions of the service's `pushes` interface send their frames, one each. Two services cannot push frames of one type.
    #[serde(default, rename = "push")]
    pub frames: Vec<PushFrame>,
    /// What one call and one instance may use.
    #[serde(default)]
    pub limits: Limits,
    /// Access to the network that the service asks for; its imports are in its world.
    #[serde(default)]
    pub grants: Grants,
    /// A function without parameters that has to succeed before the version goes live.
    #[serde(default)]
    pub probe: Option<String>,
    /// Defaults of the service's settings; the operator's `[services.<name>]` overrides them.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub config: BTreeMap<String, toml::Value>,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `METHOD /path/{variable}`, below the prefix; `/` is the prefix itself.
    pub http: String,
    /// The function of the service's `api`, kebab-case.
    pub call: String,
    /// Who may call: `public`, `user` or `role:NAME`.
    pub access: Access,
    /// The status of a success; 204 needs a function without a result.
    #[serde(default = "status_ok")]
    pub status: u16,
    /// Another status where a boolean field of the reply is false, e.g. `{ field = "created", status = 200 }`. The field is not sent.
    #[serde(default)]
    pub status_unless: Option<StatusUnless>,
    /// How often it may be called; every route has one. Routes that call the same function have the same rate and are counted together.
    #[serde(default)]
    rate: Option<Rate>,
    /// Answer with an ETag and honour If-None-Match (GET only).
    #[serde(default)]
    pub etag: bool,
    /// Cache answers (GET only).
    #[serde(default)]
    pub cache: Option<ResponseCache>,
    /// Whether the reply holds a secret, such as a token, and is never stored. Required for a POST whose reply has a field named like one.
    #[serde(default)]
    pub secret_answer: Option<bool>,
    /// A request that is repeated under its `Idempotency-Key` calls the function again, instead of being given what was answered then: for a
    /// function that does nothing twice (its request has a client's id) and whose answer may have to be forgotten, such as a message's text.
    #[serde(default)]
    pub replay_calls: bool,
    /// The request's or the answer's body is a file, which the host streams into or out of the service's blobs; the function decides beside it.
    #[serde(default)]
    pub stream: Option<Stream>,
    /// The path is used as written, without the prefix.
    #[serde(default)]
    pub absolute: bool,
    /// Served in development mode only.
    #[serde(default)]
    pub dev_only: bool,
}

/// How the file of a route is streamed. The function gets and gives records with the fields that are named at `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// `upload`: a form's field `file` becomes an upload, then the function is called with `upload`, `size`, `file_name` and `content_type`.
    /// `download`: the function answers with `blob`, `content_type`, `file_name`, `is_inline` and `public_max_age_s`.
    /// `tus-create`: called with `length`, `file_name` and `content_type`; its reply's `id` is the upload's name and the last part of its address.
    /// `tus-state`: its reply has `upload_length` while the upload of its `id` is not whole.
    /// `tus-append`: called before the bytes, and after them with `size`; its reply has the upload's `id` and `upload_length`.
    pub kind: StreamKind,
    /// The largest file, in bytes.
    #[serde(with = "bytes", default = "largest_blob")]
    #[schemars(with = "bytes::Text")]
    pub bytes_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StreamKind {
    Upload,
    Download,
    TusCreate,
    TusState,
    TusAppend,
}

impl StreamKind {
    pub fn method(self) -> &'static str {
        match self {
            StreamKind::Upload | StreamKind::TusCreate => "POST",
            StreamKind::Download | StreamKind::TusState => "GET",
            StreamKind::TusAppend => "PATCH",
        }
    }

    /// One of the resumable uploads of tus 1.0.
    pub fn is_tus(self) -> bool {
        matches!(self, StreamKind::TusCreate | StreamKind::TusState | StreamKind::TusAppend)
    }
}

fn largest_blob() -> u64 {
    limits::BLOB_BYTES_MAX
}

fn status_ok() -> u16 {
    200
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusUnless {
    /// A boolean field of the reply, snake_case.
    pub field: String,
    /// The status where it is false.
    pub status: u16,
}

/// Who may call: `public`, `user` or `role:NAME`. A role's name is 1 to 64 of a-z, 0-9, - and _, a letter first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    Public,
    User,
    Role(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// What is counted together: the requests of an address (`ip`), of a user, or all of the route.
    pub per: RateSubject,
    /// `fixed-window`, `sliding-window` (no double burst at a window's border) or `token-bucket` (a burst, then an even refill).
    pub strategy: RateStrategy,
    /// Requests per window; the bucket's size for `token-bucket`.
    pub limit: u32,
    /// The length of the window, e.g. `1m`.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub window: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RateSubject {
    Ip,
    User,
    Route,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RateStrategy {
    FixedWindow,
    SlidingWindow,
    TokenBucket,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseCache {
    /// How long an answer is kept, e.g. `1h`.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub ttl: Duration,
    /// `public` for one answer for all, `user` for one per user.
    pub per: CacheScope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CacheScope {
    Public,
    User,
}

/// A WebSocket frame's type, bound to a function. Sockets always have a user.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Socket {
    /// The frame's `type`, snake_case.
    pub event: String,
    /// The function of the service's `api`, kebab-case.
    pub call: String,
    /// How often it may be sent. Only where no route calls the function: else a frame counts against the route's rate.
    #[serde(default)]
    rate: Option<Rate>,
}

/// A function without parameters that the host calls at intervals.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The function of the service's `api`, kebab-case, without parameters.
    pub call: String,
    /// How often, e.g. `10s`.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub every: Duration,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// Topics to subscribe to, of the exported `events` interfaces, e.g. `message.sent`; without the key, all their functions.
    #[serde(default)]
    pub subscribe: Option<Vec<String>>,
    /// Topics of which one call may take several events that follow each other: their record is a list named `items` and nothing else, and the call gets the
    /// items of all, with the key of the first and without an event's identifier. Where such a call fails, each event comes alone.
    #[serde(default)]
    pub gather: Vec<String>,
}

/// What one call and one instance may use.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Linear memory of an instance.
    #[serde(with = "bytes")]
    #[schemars(with = "bytes::Text")]
    pub memory: u64,
    /// Guest CPU of one call.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub cpu: Duration,
    /// Wall time of one call.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub wall: Duration,
    /// Concurrent calls; others wait up to a second, then 503 `service_busy`.
    pub concurrency: u32,
    /// `reuse` (pooled instances) or `call` (a new instance for each call).
    pub isolation: Isolation,
    /// Durable pushes of the service in one user's feed in a day; a tenth of them at once. A feed keeps 10,000 events of all services together.
    pub feed_events_per_day: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    Reuse,
    Call,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 * limits::MIB_BYTES,
            cpu: Duration::from_millis(50),
            wall: Duration::from_secs(5),
            concurrency: 64,
            isolation: Isolation::Reuse,
            feed_events_per_day: limits::FEED_SERVICE_EVENTS_PER_DAY,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// Hosts for outgoing HTTP, `name:port`, or `*.name:port` for all below a name.
    #[serde(default)]
    pub http: Vec<String>,
    /// The operator's credentials that the host signs its requests with: `webpush`, `fcm`, `apns`.
    #[serde(default)]
    pub credentials: Vec<String>,
}

impl Grants {
    pub fn for_http(&self) -> HttpGrants {
        HttpGrants::parse(&self.http, &self.credentials).expect("checked by parse")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("plugin.toml cannot be read: {0}")]
    Toml(#[from] toml::de::Error),
    #[error("plugin.toml: {0}")]
    Invalid(String),
}

const RATE_EXAMPLE: &str =
    r#"write how often it may be called, such as rate = { per = "user", strategy = "token-bucket", limit = 600, window = "1m" }"#;

/// HTTP methods that a route may have.
pub const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

impl Manifest {
    /// Reads and checks a manifest: names, versions, methods, paths, bounds. Whether the functions exist is checked by the activation gate.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let manifest: Manifest = toml::from_str(text)?;
        manifest.check().map_err(ManifestError::Invalid)?;
        Ok(manifest)
    }

    pub fn service(&self) -> ServiceName {
        ServiceName::parse(&self.name).expect("checked by parse")
    }

    /// The rate that a frame counts against: that of the route which calls the same function, else its own.
    pub fn rate_of(&self, socket: &Socket) -> Rate {
        self.rate_of_function(&socket.call).or(socket.rate).expect("checked by parse")
    }

    fn rate_of_function(&self, function: &str) -> Option<Rate> {
        self.routes.iter().find(|route| route.call == function)?.rate
    }

    /// Every route and every frame has a rate, and all that call one function have the same.
    fn check_rates(&self) -> Result<(), String> {
        let mut wrong = Vec::new();
        for route in &self.routes {
            match (route.rate, self.rate_of_function(&route.call)) {
                (None, _) => wrong.push(format!("route {:?} has no rate; {RATE_EXAMPLE}", route.http)),
                (Some(rate), Some(first)) if rate != first => {
                    wrong.push(format!(
                        "route {:?}: all routes that call {} are counted together: give them the same rate",
                        route.http, route.call
                    ));
                }
                (Some(_), _) => {}
            }
        }
        for Socket { event, call, rate } in &self.sockets {
            let has_route = self.routes.iter().any(|route| route.call == *call);
            match rate {
                None if !has_route => wrong.push(format!("socket {event:?} has no rate, and no route calls {call}; {RATE_EXAMPLE}")),
                Some(_) if has_route => {
                    wrong.push(format!("socket {event:?} counts against the rate of the route that calls {call}: take its own rate away"));
                }
                Some(rate) => rate.check().map_err(|reason| format!("socket {event:?}: {reason}"))?,
                None => {}
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    fn check(&self) -> Result<(), String> {
        ServiceName::parse(&self.name).map_err(|error| error.to_string())?;
        if parse_version(&self.version).is_none() {
            return Err(format!("version {:?} is not MAJOR.MINOR.PATCH", self.version));
        }
        if !self.prefix.is_empty() && (!self.prefix.starts_with('/') || self.prefix.ends_with('/')) {
            return Err(format!("prefix {:?} must start with a slash and not end with one", self.prefix));
        }
        for route in &self.routes {
            route.check().map_err(|reason| format!("route {:?}: {reason}", route.http))?;
        }
        for socket in &self.sockets {
            if socket.event.is_empty() || !socket.event.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
                return Err(format!("socket event {:?} is no snake_case name", socket.event));
            }
        }
        self.check_rates()?;
        HttpGrants::parse(&self.grants.http, &self.grants.credentials).map_err(|reason| format!("grants: {reason}"))?;
        for frame in &self.frames {
            frame.check().map_err(|reason| format!("push {:?}: {reason}", frame.call))?;
        }
        for schedule in &self.schedules {
            if schedule.every < Duration::from_millis(100) {
                return Err(format!("schedule of {:?}: every must be at least 100ms", schedule.call));
            }
        }
        let Limits { memory, cpu, wall, concurrency, .. } = &self.limits;
        if *memory == 0 || *memory > limits::GUEST_MEMORY_BYTES_MAX {
            return Err(format!("limits.memory must be between 1 and {} bytes", limits::GUEST_MEMORY_BYTES_MAX));
        }
        if cpu.is_zero() || wall.is_zero() || *wall > Duration::from_millis(limits::REQUEST_TIMEOUT_MS) {
            return Err(format!("limits.cpu and limits.wall must be above 0 and at most {} ms", limits::REQUEST_TIMEOUT_MS));
        }
        if *concurrency == 0 || *concurrency > limits::INSTANCES_MAX {
            return Err(format!("limits.concurrency must be between 1 and {}", limits::INSTANCES_MAX));
        }
        Ok(())
    }
}

/// The counter's key of a function: the same for its routes and its frames, in every version, and on every host.
pub fn rate_counter(service: &ServiceName, function: &str) -> u64 {
    let hash = Sha256::digest(format!("{service}.{function}"));
    u64::from_be_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
}

/// `(major, minor, patch)`.
pub fn parse_version(version: &str) -> Option<(u64, u64, u64)> {
    let mut parts = version.split('.').map(|part| part.parse::<u64>().ok());
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => Some((major, minor, patch)),
        _ => None,
    }
}

impl Rate {
    /// A burst of `limit`, and as many per minute.
    pub const fn per_minute(per: RateSubject, limit: u32) -> Self {
        Self { per, strategy: RateStrategy::TokenBucket, limit, window: Duration::from_secs(60) }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.limit == 0 || self.window.is_zero() {
            return Err("rate needs a limit and a window above 0".to_owned());
        }
        Ok(())
    }
}

impl Route {
    pub fn rate(&self) -> Rate {
        self.rate.expect("checked by parse")
    }

    /// For the operator's override; see `route_settings`.
    pub(super) fn set_rate(&mut self, rate: Rate) {
        self.rate = Some(rate);
    }

    /// `METHOD /whole/path/{variable}`.
    pub fn name(&self, prefix: &str) -> String {
        format!("{} {}", self.method(), self.full_path(prefix))
    }

    pub fn method(&self) -> &str {
        self.http.split_once(' ').map_or("", |(method, _)| method)
    }

    pub fn has_secret_answer(&self) -> bool {
        self.secret_answer == Some(true)
    }

    /// Whether the host may keep the answer, for an `Idempotency-Key` or in its cache.
    pub fn keeps_answers(&self) -> bool {
        self.method() == "POST" || self.cache.is_some()
    }

    /// The path below the prefix, as written.
    pub fn path(&self) -> &str {
        self.http.split_once(' ').map_or("", |(_, path)| path)
    }

    /// The whole path without a trailing slash.
    pub fn full_path(&self, prefix: &str) -> String {
        let path = if self.absolute { self.path().to_owned() } else { format!("{prefix}{}", self.path()) };
        let trimmed = path.trim_end_matches('/');
        if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() }
    }

    /// Names in braces, in their order.
    pub fn variables(&self) -> Vec<&str> {
        self.path().split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect()
    }

    fn check(&self) -> Result<(), String> {
        if !METHODS.contains(&self.method()) {
            return Err(format!("write it as \"METHOD /path\", the method one of {}", METHODS.join(", ")));
        }
        if !self.path().starts_with('/') {
            return Err("the path must start with a slash".to_owned());
        }
        for part in self.path().split('/') {
            if (part.contains('{') || part.contains('}')) && !(part.starts_with('{') && part.ends_with('}') && part.len() > 2) {
                return Err(format!("{part:?}: a variable takes a whole part of the path, as {{name}}"));
            }
        }
        if !(200..300).contains(&self.status) || self.status_unless.as_ref().is_some_and(|unless| !(200..300).contains(&unless.status)) {
            return Err("the success status must be between 200 and 299".to_owned());
        }
        if (self.etag || self.cache.is_some()) && self.method() != "GET" {
            return Err("etag and cache are for GET".to_owned());
        }
        if let Some(stream) = &self.stream {
            if self.method() != stream.kind.method() {
                return Err(format!("a stream of this kind is for {}", stream.kind.method()));
            }
            if self.etag || self.cache.is_some() || self.replay_calls || self.status_unless.is_some() {
                return Err("a stream has no etag, cache, replay_calls and status_unless".to_owned());
            }
            if stream.bytes_max > limits::BLOB_BYTES_MAX {
                return Err(format!("stream.bytes_max is at most {}", limits::BLOB_BYTES_MAX));
            }
        }
        if self.replay_calls && self.method() != "POST" {
            return Err("replay_calls is for POST, which alone takes an Idempotency-Key".to_owned());
        }
        if self.has_secret_answer() && self.cache.is_some() {
            return Err("a secret answer is kept in no cache".to_owned());
        }
        self.rate.as_ref().map_or(Ok(()), Rate::check)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Access::Public => f.write_str("public"),
            Access::User => f.write_str("user"),
            Access::Role(role) => write!(f, "role:{role}"),
        }
    }
}

/// As the service `auth` grants them.
fn is_role(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'))
}

impl JsonSchema for Access {
    fn schema_name() -> Cow<'static, str> {
        "Access".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "access", "pattern": "^(public|user|role:[a-z][a-z0-9_-]{0,63})$" })
    }
}

impl Serialize for Access {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Access {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "public" => Ok(Access::Public),
            "user" => Ok(Access::User),
            other => match other.strip_prefix("role:") {
                Some(role) if is_role(role) => Ok(Access::Role(role.to_owned())),
                Some(role) => Err(de::Error::custom(format!(
                    "access: {role:?} is no role that anybody can have: 1 to 64 of a-z, 0-9, - and _, a letter first"
                ))),
                _ => Err(de::Error::custom(format!("access {other:?} is none of public, user, role:NAME"))),
            },
        }
    }
}
