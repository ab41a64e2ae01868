//! A bad network: a TCP proxy that cuts connections, holds bytes back, loses WebSocket frames and sends them twice, in both directions. The twin of
//! `host/web/client/test/proxy.mjs`.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Chances per frame, and the longest delay.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Faults {
    pub cut: f64,
    pub double: f64,
    pub drop: f64,
    pub delay_ms: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub cuts: u64,
    pub doubled: u64,
    pub dropped: u64,
    /// WebSockets that were asked for.
    pub sockets: u64,
    /// Requests for new tokens.
    pub renewals: u64,
}

pub struct Proxy {
    pub url: String,
    network: Arc<Network>,
    accepting: JoinSet<()>,
}

struct Network {
    /// `127.0.0.1:8080`.
    target: Mutex<String>,
    faults: Mutex<Faults>,
    counts: Mutex<Counts>,
    random: Mutex<StdRng>,
    /// Ends all connections; none where the cable is out.
    connected: Mutex<Option<CancellationToken>>,
}

impl Proxy {
    pub async fn start(target: &str, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let network = Arc::new(Network {
            target: Mutex::new(target.to_owned()),
            faults: Mutex::default(),
            counts: Mutex::default(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            connected: Mutex::new(Some(CancellationToken::new())),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, network.clone()));
        Self { url, network, accepting }
    }

    /// The host is at another address now.
    pub fn lead_to(&self, target: &str) {
        target.clone_into(&mut self.network.target.lock());
    }

    pub fn set_faults(&self, faults: Faults) {
        *self.network.faults.lock() = faults;
    }

    pub fn counts(&self) -> Counts {
        *self.network.counts.lock()
    }

    /// Nothing stays open, and what is opened is closed at once.
    pub fn unplug(&self) {
        if let Some(connected) = self.network.connected.lock().take() {
            connected.cancel();
        }
    }

    pub fn plug(&self) {
        *self.network.connected.lock() = Some(CancellationToken::new());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.unplug();
        self.accepting.abort_all();
    }
}

async fn accept(listener: TcpListener, network: Arc<Network>) {
    while let Ok((client, _)) = listener.accept().await {
        let Some(cut) = network.connected.lock().as_ref().map(CancellationToken::child_token) else { continue };
        tokio::spawn(join(client, network.clone(), cut));
    }
}

async fn join(client: TcpStream, network: Arc<Network>, cut: CancellationToken) {
    let target = network.target.lock().clone();
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let ways = async {
        tokio::select! {
            () = pipe(from_client, to_server, &network, &cut, true) => {}
            () = pipe(from_server, to_client, &network, &cut, false) => {}
        }
    };
    cut.run_until_cancelled(ways).await;
}

/// Until either side is closed.
async fn pipe(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, network: &Network, cut: &CancellationToken, is_client: bool) {
    let (mut splitter, mut buffer) = (Splitter::default(), vec![0; 64 * 1024]);
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if is_client {
            network.note_request(&buffer[..read]);
        }
        for (bytes, is_frame) in splitter.take(&buffer[..read]) {
            let times = if is_frame { network.fate().await } else { Some(1) };
            let Some(times) = times else { return cut.cancel() };
            for _ in 0..times {
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl Network {
    /// How often a frame is passed on; none: the connection is cut in its place.
    async fn fate(&self) -> Option<u32> {
        let faults = *self.faults.lock();
        let delay = Duration::from_micros(self.random.lock().random_range(0..=faults.delay_ms * 1_000));
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let [cut, drop, double] = [faults.cut, faults.drop, faults.double].map(|chance| self.random.lock().random_bool(chance));
        let mut counts = self.counts.lock();
        if cut {
            counts.cuts += 1;
            return None;
        }
        if drop {
            counts.dropped += 1;
            return Some(0);
        }
        counts.doubled += u64::from(double);
        Some(1 + u32::from(double))
    }

    /// A head comes in one piece from the clients that are tested.
    fn note_request(&self, bytes: &[u8]) {
        let begins = |line: &[u8]| bytes.starts_with(line);
        let mut counts = self.counts.lock();
        counts.renewals += u64::from(begins(b"POST /api/v1/auth/refresh "));
        counts.sockets += u64::from(begins(b"GET /ws"));
    }
}

/// Bytes as they come until a head with `Upgrade: websocket` is over; from there on whole frames (RFC 6455, section 5.2).
#[derive(Default)]
struct Splitter {
    waiting: Vec<u8>,
    frames: bool,
}

impl Splitter {
    /// Each piece, and whether it is a text frame.
    fn take(&mut self, mut bytes: &[u8]) -> Vec<(Vec<u8>, bool)> {
        let mut pieces = Vec::new();
        if !self.frames {
            let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|end| end + 4);
            let upgrades = |head: &[u8]| String::from_utf8_lossy(head).to_ascii_lowercase().contains("upgrade: websocket");
            match head.filter(|end| upgrades(&bytes[..*end])) {
                Some(end) => {
                    self.frames = true;
                    pieces.push((bytes[..end].to_vec(), false));
                    bytes = &bytes[end..];
                }
                None => return vec![(bytes.to_vec(), false)],
            }
        }
        self.waiting.extend_from_slice(bytes);
        while let Some(size) = self.whole() {
            let frame: Vec<u8> = self.waiting.drain(..size).collect();
            let is_text = frame[0] & 0x0f == 1;
            pieces.push((frame, is_text));
        }
        pieces
    }

    /// The size of the first frame, once it is there.
    fn whole(&self) -> Option<usize> {
        let waiting = self.waiting.as_slice();
        let (head, size) = match *waiting.get(1)? & 0x7f {
            126 => (4, usize::from(u16::from_be_bytes(waiting.get(2..4)?.try_into().ok()?))),
            127 => (10, usize::try_from(u64::from_be_bytes(waiting.get(2..10)?.try_into().ok()?)).ok()?),
            size => (2, usize::from(size)),
        };
        let mask = if waiting[1] & 0x80 == 0 { 0 } else { 4 };
        let whole = head + mask + size;
        (waiting.len() >= whole).then_some(whole)
    }
}
