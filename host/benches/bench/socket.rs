//! One WebSocket of a client: opened with its identity, answered by `connection_ack`, kept awake.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue, protocol::WebSocketConfig},
};

use crate::{accounts::Account, native::Native, server::Server};

pub type Socket = WebSocketStream<TcpStream>;

/// Half of what a silent client has until it is closed.
pub const PING_EVERY: Duration = Duration::from_secs(25);
/// The kernel gives one address some 28,000 ports; beyond this many sockets the next loopback address is taken.
const SOCKETS_PER_ADDRESS: usize = 20_000;

/// How one client gets in.
#[derive(Clone)]
pub struct Door {
    address: SocketAddr,
    path: String,
    token: Option<String>,
}

impl Door {
    pub fn echo(server: &Server, account: &Account) -> Self {
        Self { address: server.public, path: "/ws".to_owned(), token: Some(account.access_token.clone()) }
    }

    pub fn relay(native: &Native, number: usize) -> Self {
        Self { address: native.address, path: format!("/ws?user={number}"), token: None }
    }

    pub async fn open(&self, number: usize) -> Result<Socket> {
        let from: SocketAddr = format!("127.0.0.{}:0", 1 + number / SOCKETS_PER_ADDRESS).parse().context("a loopback address")?;
        let socket = TcpSocket::new_v4()?;
        if number >= SOCKETS_PER_ADDRESS {
            socket.bind(from)?;
        }
        let stream = socket.connect(self.address).await.with_context(|| format!("socket {number}"))?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{}{}", self.address, self.path).into_client_request()?;
        if let Some(token) = &self.token {
            request.headers_mut().insert("authorization", HeaderValue::from_str(&format!("Bearer {token}"))?);
        }
        let config = WebSocketConfig::default().read_buffer_size(4 * 1024).write_buffer_size(0);
        let (mut socket, _) = client_async_with_config(request, stream, Some(config)).await.with_context(|| format!("socket {number}"))?;
        match tokio::time::timeout(Duration::from_secs(30), socket.next()).await {
            Ok(Some(Ok(Message::Text(text)))) if text.contains("connection_ack") => Ok(socket),
            Ok(Some(other)) => bail!("socket {number}: {other:?} where connection_ack should be"),
            Ok(None) => bail!("socket {number}: closed before connection_ack"),
            Err(_) => bail!("socket {number}: no connection_ack within 30 s"),
        }
    }
}

pub fn ping() -> Message {
    Message::text(r#"{"type":"ping"}"#)
}
