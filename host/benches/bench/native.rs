//! The plain things that Echo is held against, in a process of their own: an axum handler that does the same JSON work, and a bare relay
//! of WebSocket messages without accounts, storage or receipts. They keep the ratios true on a machine of any speed.

use std::{
    collections::HashMap,
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::Bytes,
    extract::{
        Query, State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    sync::mpsc,
};

use crate::server::{Process, Server};

/// First argument of the process that serves them.
pub const ROLE: &str = "native";
pub const LOOKUP: &str = "/lookup";

const ANSWER: &str = "NATIVE_ANSWER";
/// Frames that wait for one slow reader of the relay; more are dropped.
const RELAY_DEPTH: usize = 1_024;

pub struct Native {
    pub address: SocketAddr,
    pub process: Process,
    _child: Child,
}

impl Native {
    /// Its answers have the shape and the size of Echo's own.
    pub async fn start(server: &Server) -> Result<Self> {
        let answer = server.client.get(server.url("/api/v1/location/lookup?phone=%2B14152000000")).send().await?;
        let answer = answer.error_for_status().context("location's lookup")?.text().await?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ROLE).env(ANSWER, answer).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("the native process")?;
        let mut lines = BufReader::new(child.stdout.take().expect("piped above")).lines();
        let address = lines.next_line().await?.context("the native process said no address")?.parse()?;
        let pid = child.id().context("the native process ended at once")?;
        Ok(Self { address, process: Process { pid }, _child: child })
    }
}

/// The process itself; ends when it is killed.
pub async fn serve() -> Result<()> {
    let template: Location =
        serde_json::from_str(&std::env::var(ANSWER)?).context("location's answer has another shape than the API page says")?;
    let state = Arc::new(Plain { template, sockets: Mutex::default() });
    let router = Router::new().route(LOOKUP, get(get_lookup).post(post_lookup)).route("/ws", get(relay)).with_state(state);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, router).await.context("the native server")
}

struct Plain {
    template: Location,
    sockets: Mutex<HashMap<String, mpsc::Sender<Message>>>,
}

#[derive(Deserialize)]
struct Lookup {
    phone: String,
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Location {
    phone: String,
    country: Option<String>,
    country_code: String,
    region: Option<String>,
    timezone: Option<String>,
    carrier: Option<String>,
    valid: bool,
    #[serde(rename = "type")]
    kind: String,
}

async fn get_lookup(State(plain): State<Arc<Plain>>, Query(request): Query<Lookup>) -> Response {
    lookup(&plain, request)
}

async fn post_lookup(State(plain): State<Arc<Plain>>, body: Bytes) -> Response {
    match serde_json::from_slice(&body) {
        Ok(request) => lookup(&plain, request),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

fn lookup(plain: &Plain, request: Lookup) -> Response {
    let digits = request.phone.strip_prefix('+').unwrap_or_default();
    if !(7..=15).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    }
    let location = Location { phone: request.phone, ..plain.template.clone() };
    match serde_json::to_vec(&location) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[derive(Deserialize)]
struct Who {
    user: String,
}

async fn relay(State(plain): State<Arc<Plain>>, Query(who): Query<Who>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.read_buffer_size(4 * 1024).write_buffer_size(0).on_upgrade(move |socket| relay_socket(plain, who.user, socket))
}

#[derive(Deserialize)]
struct Incoming {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    payload: serde_json::Value,
}

async fn relay_socket(plain: Arc<Plain>, user: String, socket: WebSocket) {
    let (mut sink, mut stream) = socket.split();
    let (sender, mut outgoing) = mpsc::channel::<Message>(RELAY_DEPTH);
    plain.sockets.lock().expect("nobody panics with it").insert(user.clone(), sender);
    let writer = tokio::spawn(async move {
        let hello = json!({"type": "connection_ack", "payload": {"user_id": user, "cursor": 0}});
        let mut next = Some(Message::text(hello.to_string()));
        while let Some(message) = next {
            if sink.send(message).await.is_err() {
                return;
            }
            next = outgoing.recv().await;
        }
    });
    let mut seq = 0_u64;
    while let Some(Ok(Message::Text(text))) = stream.next().await {
        let Ok(mut frame) = serde_json::from_str::<Incoming>(&text) else { continue };
        if frame.kind != "message" {
            continue;
        }
        // The relay knows no conversations: their name is the other's.
        let to = frame.payload["conversation_id"].as_str().unwrap_or_default().to_owned();
        frame.payload["sender_id"] = "another".into();
        seq += 1;
        let event = json!({"type": "message", "seq": seq, "payload": frame.payload}).to_string();
        let socket = plain.sockets.lock().expect("nobody panics with it").get(&to).cloned();
        if let Some(socket) = socket {
            // A full queue drops: a bare relay promises nothing.
            let _ = socket.try_send(Message::text(event));
        }
    }
    writer.abort();
}
