//! What JetStream keeps for the queue, and how it is asked: a stream of events, and a bucket with how far consumers and sources have come. Both are made anew,
//! under another name, for each life (`Records::life`): so a host that does not know yet that a life has ended cannot write into the next one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State as ConnectionState;
use async_nats::header::{NATS_EXPECTED_STREAM, NATS_MESSAGE_ID};
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind, PublishError};
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::stream::{Config, DiscardPolicy, LastRawMessageError, LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, ConnectOptions, HeaderMap};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};

use super::super::QueueError;
use super::JetStreamSettings;
use crate::certificates;
use echo_base::limits;

/// Older servers lost acknowledged records in cases that were repaired since.
const SERVER_MIN: (i64, i64, i64) = (2, 12, 3);
/// For one consumer alone: a dead letter that is replayed.
const ONLY: &str = "Echo-Only";

pub struct Streams {
    client: Client,
    context: Context,
    prefix: String,
    replicas: usize,
    bytes_max: i64,
    old_servers: bool,
}

/// What is kept between one loss and the next.
pub struct Life {
    pub number: u64,
    pub bucket: Store,
    events: Stream<()>,
    name: String,
    /// The highest number that the stream has given, as far as this host knows.
    highest: AtomicU64,
}

impl Life {
    pub fn highest(&self) -> u64 {
        self.highest.load(Ordering::Acquire)
    }

    pub fn has_given(&self, seq: u64) {
        self.highest.fetch_max(seq, Ordering::AcqRel);
    }
}

pub struct Outgoing {
    pub subject: String,
    /// What comes a second time under the same within the duplicate window is dropped by the server.
    pub message_id: String,
    pub only: Option<String>,
    pub payload: Bytes,
}

pub struct Message {
    pub seq: u64,
    pub only: Option<String>,
    pub payload: Bytes,
}

/// An event was published there.
pub struct Woken {
    pub life: u64,
    pub topic: String,
    pub partition: usize,
    pub seq: u64,
}

pub struct Page {
    pub messages: Vec<Message>,
    /// How many more there are behind them.
    pub further: u64,
}

/// A single server says the one, a cluster the other.
fn has_no_room(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::STORAGE_RESOURCES_EXCEEDED | ErrorCode::CLUSTER_NO_PEERS)
}

pub fn away(error: impl std::fmt::Display) -> QueueError {
    QueueError::Unavailable(error.to_string())
}

/// What a NATS server says of itself, for an operator who sets a host up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    pub version: String,
    /// It keeps what it has acknowledged.
    pub is_new_enough: bool,
    pub has_jetstream: bool,
    /// One of several: an event can be kept on more than one.
    pub is_clustered: bool,
}

/// Errors: none of them can be reached within `DOCTOR_ANSWER_MS`, in words for the operator.
pub async fn inspect(urls: &str) -> Result<Inspection, String> {
    let addresses: Vec<&str> = urls.split(',').map(str::trim).collect();
    let wait = Duration::from_millis(limits::DOCTOR_ANSWER_MS);
    let failed = |error: async_nats::ConnectError| certificates::refusal(&error).unwrap_or_else(|| error.to_string());
    let work = async {
        let options = ConnectOptions::new().name("echo-doctor").connection_timeout(wait).request_timeout(Some(wait / 2));
        let client = options.connect(addresses).await.map_err(failed)?;
        let (major, minor, patch) = SERVER_MIN;
        let server = client.server_info();
        Ok(Inspection {
            is_new_enough: client.is_server_compatible(major, minor, patch),
            is_clustered: server.cluster.is_some() || !server.connect_urls.is_empty(),
            version: server.version,
            has_jetstream: jetstream::new(client).query_account().await.is_ok(),
        })
    };
    tokio::time::timeout(wait, work).await.unwrap_or_else(|_| Err(format!("no answer within {} ms", limits::DOCTOR_ANSWER_MS)))
}

impl Streams {
    /// Connects in the background where nobody answers now, and again whenever the connection is lost. Errors: addresses that cannot be read; a server that is
    /// too old.
    pub async fn connect(settings: &JetStreamSettings) -> Result<Self, QueueError> {
        let addresses: Vec<&str> = settings.urls.split(',').map(str::trim).collect();
        if settings.urls.contains("tls://") {
            // While NATS is away a host serves on; where its certificate is not accepted, it never would come.
            let once = ConnectOptions::new().connection_timeout(Duration::from_millis(limits::JETSTREAM_CONNECT_MS));
            if let Err(error) = once.connect(addresses.clone()).await
                && let Some(refusal) = certificates::refusal(&error)
            {
                return Err(QueueError::Unavailable(refusal));
            }
        }
        let options = ConnectOptions::new()
            .name("echo")
            .retry_on_initial_connect()
            .connection_timeout(Duration::from_millis(limits::JETSTREAM_CONNECT_MS))
            .request_timeout(Some(Duration::from_millis(limits::JETSTREAM_ANSWER_MS)))
            .ping_interval(Duration::from_millis(limits::JETSTREAM_PING_MS))
            .reconnect_delay_callback(|attempts| {
                let doubled = limits::JETSTREAM_RECONNECT_FIRST_MS << attempts.min(10);
                Duration::from_millis(doubled.min(limits::JETSTREAM_RECONNECT_LAST_MS))
            });
        let client = options.connect(addresses).await.map_err(away)?;
        let context = jetstream::context::ContextBuilder::new()
            .timeout(Duration::from_millis(limits::JETSTREAM_ANSWER_MS))
            .ack_timeout(Duration::from_millis(limits::JETSTREAM_ANSWER_MS))
            .backpressure_on_inflight(true)
            .build(client.clone());
        let JetStreamSettings { prefix, replicas, bytes_max, old_servers, .. } = settings.clone();
        let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let streams = Self { client, context, prefix, replicas, bytes_max, old_servers };
        let until = tokio::time::Instant::now() + Duration::from_millis(limits::JETSTREAM_CONNECT_MS);
        while !streams.is_connected() && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(limits::JETSTREAM_RECONNECT_FIRST_MS)).await;
        }
        if streams.is_connected() {
            streams.check_server()?;
        }
        Ok(streams)
    }

    pub fn is_connected(&self) -> bool {
        // The client says that it is connected a moment before it knows what server that is.
        self.client.connection_state() == ConnectionState::Connected
            && self.client.try_server_info().is_some_and(|info| !info.version.is_empty())
    }

    /// Errors: the server is too old, in words for the operator.
    pub fn check_server(&self) -> Result<(), QueueError> {
        let (major, minor, patch) = SERVER_MIN;
        if self.old_servers || self.client.is_server_compatible(major, minor, patch) {
            return Ok(());
        }
        let version = self.client.server_info().version;
        Err(away(format!(
            "nats-server {version} is too old: before {major}.{minor}.{patch} it loses acknowledged records (events.old_servers = true uses it nevertheless)"
        )))
    }

    pub fn subject(&self, topic: &str, partition: usize) -> String {
        format!("{}.events.{topic}.{partition}", self.prefix)
    }

    /// The topic and the partition of a subject of events.
    pub fn parse_subject<'a>(&self, subject: &'a str) -> Option<(&'a str, usize)> {
        let (topic, partition) = subject.strip_prefix(&self.prefix)?.strip_prefix(".events.")?.rsplit_once('.')?;
        Some((topic, partition.parse().ok()?))
    }

    fn events_name(&self, life: u64) -> String {
        format!("{}-events-{life}", self.prefix)
    }

    fn bucket_name(&self, life: u64) -> String {
        format!("{}-progress-{life}", self.prefix)
    }

    /// Makes both of this life, where they are missing, after removing those of earlier lives.
    pub async fn make(&self, life: u64) -> Result<(), QueueError> {
        let mut names = self.context.stream_names();
        let mut earlier = Vec::new();
        while let Some(name) = names.try_next().await.map_err(away)? {
            let number = |prefix: &str| name.strip_prefix(prefix).and_then(|number| number.parse::<u64>().ok());
            let (events, bucket) = (format!("{}-events-", self.prefix), format!("KV_{}-progress-", self.prefix));
            if number(&events).or_else(|| number(&bucket)).is_some_and(|number| number < life) {
                earlier.push(name);
            }
        }
        for name in earlier {
            self.context.delete_stream(&name).await.map_err(away)?;
        }
        // As `Context::create_key_value` makes it, but for the number of replicas where there are not as many servers.
        let bucket = self.bucket_name(life);
        self.make_stream(Config {
            name: format!("KV_{bucket}"),
            subjects: vec![format!("$KV.{bucket}.>")],
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            ..Config::default()
        })
        .await?;
        self.make_stream(Config {
            name: self.events_name(life),
            subjects: vec![format!("{}.events.>", self.prefix)],
            max_bytes: self.bytes_max,
            // What was not handled is not pushed out by what comes later.
            discard: DiscardPolicy::New,
            duplicate_window: Duration::from_secs(limits::JETSTREAM_DUPLICATES_S),
            allow_direct: true,
            ..Config::default()
        })
        .await
    }

    async fn make_stream(&self, config: Config) -> Result<(), QueueError> {
        let (mut num_replicas, mut max_bytes) = (self.replicas, config.max_bytes);
        loop {
            let Err(error) = self.context.create_stream(Config { num_replicas, max_bytes, ..config.clone() }).await else {
                if max_bytes < config.max_bytes {
                    let (stream, wanted) = (config.name, config.max_bytes);
                    tracing::warn!(stream, max_bytes, wanted, "NATS has not the room that events.bytes_max says; this much is set aside");
                }
                return Ok(());
            };
            match error.kind() {
                CreateStreamErrorKind::JetStream(reason) if reason.error_code() == ErrorCode::STREAM_NAME_EXIST => return Ok(()),
                CreateStreamErrorKind::JetStream(reason)
                    if num_replicas > 1 && reason.error_code() == ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED =>
                {
                    tracing::warn!(stream = config.name, num_replicas, "NATS is a single server: events are kept once");
                    num_replicas = 1;
                }
                CreateStreamErrorKind::JetStream(reason) if has_no_room(reason.error_code()) => {
                    if max_bytes / 2 < limits::JETSTREAM_BYTES_MIN as i64 {
                        return Err(away(format!(
                            "NATS has no room for {max_bytes} bytes of events: raise max_file_store there ({error})"
                        )));
                    }
                    max_bytes /= 2;
                }
                _ => return Err(away(error)),
            }
        }
    }

    /// None where one of both is missing.
    pub async fn open(&self, life: u64) -> Result<Option<Life>, QueueError> {
        let Some(last) = self.last(life).await? else { return Ok(None) };
        let bucket = self.context.get_key_value(self.bucket_name(life)).await.map_err(away)?;
        let name = self.events_name(life);
        let events = self.context.get_stream_no_info(&name).await.map_err(away)?;
        Ok(Some(Life { number: life, bucket, events, name, highest: AtomicU64::new(last) }))
    }

    /// The highest number that the stream of events has given; None where it, or the bucket, is missing.
    pub async fn last(&self, life: u64) -> Result<Option<u64>, QueueError> {
        let mut last = 0;
        for name in [format!("KV_{}", self.bucket_name(life)), self.events_name(life)] {
            match self.context.get_stream(name).await {
                Ok(stream) => last = stream.cached_info().state.last_sequence,
                Err(error) => match error.kind() {
                    GetStreamErrorKind::JetStream(reason) if reason.error_code() == ErrorCode::STREAM_NOT_FOUND => return Ok(None),
                    _ => return Err(away(error)),
                },
            }
        }
        Ok(Some(last))
    }

    /// All at once; in which order they are kept is not said. Errors: `Full`, or some may have been taken and come to nothing when they are published again.
    pub async fn publish(&self, life: &Life, outgoing: Vec<Outgoing>) -> Result<Vec<PublishAck>, QueueError> {
        // The client would keep them and send them later, when others have been published.
        if !self.is_connected() {
            return Err(away("no connection to NATS"));
        }
        let mut waiting = Vec::with_capacity(outgoing.len());
        for message in outgoing {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_MESSAGE_ID, message.message_id.as_str());
            headers.insert(NATS_EXPECTED_STREAM, life.name.as_str());
            if let Some(only) = &message.only {
                headers.insert(ONLY, only.as_str());
            }
            waiting.push(self.context.publish_with_headers(message.subject, headers, message.payload).await.map_err(not_taken)?);
        }
        let mut acks = Vec::with_capacity(waiting.len());
        for ack in waiting {
            acks.push(ack.await.map_err(not_taken)?);
        }
        Ok(acks)
    }

    /// Tells the hosts' partitions that there is something to read. It may be lost.
    pub async fn wake(&self, life: &Life, topic: &str, partition: usize, seq: u64) {
        let payload = Bytes::from(format!("{} {seq}", life.number));
        let published = self.client.publish(format!("{}.wake.{topic}.{partition}", self.prefix), payload).await;
        if let Err(error) = published {
            tracing::debug!(%error, "partitions will find it by themselves");
        }
    }

    /// What hosts have published.
    pub async fn wakes(&self) -> Result<BoxStream<'static, Woken>, QueueError> {
        let prefix = format!("{}.wake.", self.prefix);
        let wakes = self.client.subscribe(format!("{prefix}>")).await.map_err(away)?;
        let read = move |wake: async_nats::Message| {
            let (topic, partition) = wake.subject.strip_prefix(&prefix)?.rsplit_once('.')?;
            let (life, seq) = std::str::from_utf8(&wake.payload).ok()?.split_once(' ')?;
            Some(Woken { life: life.parse().ok()?, topic: topic.to_owned(), partition: partition.parse().ok()?, seq: seq.parse().ok()? })
        };
        Ok(wakes.filter_map(move |wake| std::future::ready(read(wake))).boxed())
    }

    /// A batched direct get (ADR-31 of NATS): no consumer stays on the server for it. What a replica does not have yet is not in it.
    pub async fn events_after(&self, life: &Life, subject: &str, after: u64, most: usize) -> Result<Page, QueueError> {
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(away)?;
        let bytes = limits::QUEUE_PARTITION_BYTES_MAX;
        let ask = serde_json::json!({ "seq": after + 1, "next_by_subj": subject, "batch": most, "max_bytes": bytes }).to_string();
        self.client.publish_with_reply(format!("$JS.API.DIRECT.GET.{}", life.name), inbox, ask.into()).await.map_err(away)?;
        let mut messages = Vec::new();
        loop {
            let answer = tokio::time::timeout(Duration::from_millis(limits::JETSTREAM_ANSWER_MS), answers.next()).await;
            let answer = answer.map_err(|_| away("no answer in time"))?.ok_or_else(|| away("the connection has ended"))?;
            let headers = answer.headers.unwrap_or_default();
            let number = |name: &str| headers.get(name).and_then(|value| value.as_str().parse::<u64>().ok());
            match answer.status.map(|status| status.as_u16()) {
                Some(204) => return Ok(Page { messages, further: number("Nats-Num-Pending").unwrap_or(0) }),
                Some(404) => return Ok(Page { messages, further: 0 }),
                Some(other) => return Err(away(format!("{}: status {other}", life.name))),
                None => {
                    let seq = number("Nats-Sequence").ok_or_else(|| away("an answer without a number"))?;
                    let only = headers.get(ONLY).map(|value| value.as_str().to_owned());
                    messages.push(Message { seq, only, payload: answer.payload });
                }
            }
        }
    }

    /// None where it is gone.
    pub async fn event(&self, life: &Life, seq: u64) -> Result<Option<Message>, QueueError> {
        let found = found(life.events.get_raw_message(seq).await)?;
        Ok(found.map(|message| Message {
            seq,
            only: message.headers.get(ONLY).map(|value| value.as_str().to_owned()),
            payload: message.payload,
        }))
    }

    /// The number of the subject's last event; 0 where there is none.
    pub async fn last_of(&self, life: &Life, subject: &str) -> Result<u64, QueueError> {
        let found = found(life.events.get_last_raw_message_by_subject(subject).await)?;
        Ok(found.map_or(0, |message| message.sequence))
    }

    /// Subjects of which there are events.
    pub async fn subjects(&self, life: &Life) -> Result<Vec<String>, QueueError> {
        let counts = life.events.info_with_subjects(format!("{}.events.>", self.prefix)).await.map_err(away)?;
        counts.map_ok(|(subject, _)| subject).try_collect().await.map_err(away)
    }

    /// Events of the subject up to this number are no longer needed.
    pub async fn forget_up_to(&self, life: &Life, subject: &str, seq: u64) -> Result<(), QueueError> {
        life.events.purge().filter(subject).sequence(seq + 1).await.map(drop).map_err(away)
    }
}

fn found<T>(outcome: Result<T, LastRawMessageError>) -> Result<Option<T>, QueueError> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.kind() {
            LastRawMessageErrorKind::NoMessageFound => Ok(None),
            LastRawMessageErrorKind::JetStream(reason) if reason.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(None),
            _ => Err(away(error)),
        },
    }
}

fn not_taken(error: PublishError) -> QueueError {
    let text = error.to_string();
    // The library hands this one on as its text alone.
    if text.contains("maximum bytes exceeded") { QueueError::Full { publisher: "all services".to_owned() } } else { away(text) }
}
