//! A small HTTP/1.1 client for load: one connection kept alive, requests as bytes, nothing but the status taken from the answers.

use std::{
    io::Write,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

pub struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

/// Larger than any answer that the bench asks for.
const RESPONSE_BYTES_MAX: usize = 1024 * 1024;
const RESPONSE_HEADERS_MAX: usize = 48;

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| address.to_string())?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Vec::with_capacity(256), buffer: Vec::with_capacity(4 * 1024) })
    }

    /// One request, one answer, read whole; gives its status.
    pub async fn look_up(&mut self, route: &Route, number: u64) -> Result<u16> {
        route.write(&mut self.request, number);
        self.stream.write_all(&self.request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the server closed the connection");
            }
            if let Some(head) = head(&self.buffer)? {
                let end = head.bytes + head.body_bytes;
                while self.buffer.len() < end {
                    if self.stream.read_buf(&mut self.buffer).await? == 0 {
                        bail!("the server closed the connection within an answer");
                    }
                }
                return Ok(head.status);
            }
            if self.buffer.len() > RESPONSE_BYTES_MAX {
                bail!("an answer of more than {RESPONSE_BYTES_MAX} bytes");
            }
        }
    }
}

struct Head {
    status: u16,
    bytes: usize,
    body_bytes: usize,
}

fn head(buffer: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; RESPONSE_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(bytes) = response.parse(buffer)? else { return Ok(None) };
    let status = response.code.context("an answer without a status")?;
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body_bytes = match length {
        Some(header) => {
            let value = std::str::from_utf8(header.value)?;
            value.parse().with_context(|| format!("Content-Length {value:?}"))?
        }
        None if status == 204 || status == 304 => 0,
        None => bail!("an answer without Content-Length"),
    };
    Ok(Some(Head { status, bytes, body_bytes }))
}

/// A lookup, as one route or another takes it.
#[derive(Clone, Copy)]
pub struct Route {
    pub address: SocketAddr,
    pub method: Method,
    pub path: &'static str,
}

#[derive(Clone, Copy)]
pub enum Method {
    /// The number stands in the query.
    Get,
    /// The number stands in a JSON body.
    Post,
}

impl Route {
    /// The request with what a plain client sends.
    fn write(&self, request: &mut Vec<u8>, number: u64) {
        let (path, phone) = (self.path, phone(number));
        request.clear();
        match self.method {
            Method::Get => write!(request, "GET {path}?phone=%2B{phone} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"),
            Method::Post => {
                let body = format!("{{\"phone\":\"+{phone}\"}}");
                let bytes = body.len();
                write!(
                    request,
                    "POST {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n{body}"
                )
            }
        }
        .expect("a Vec takes everything");
    }
}

/// A number to look up that nobody has asked for before, so that no cache of answers is measured.
fn phone(number: u64) -> String {
    format!("1415{:07}", 2_000_000 + number % 8_000_000)
}

/// What a load came to.
pub struct Load {
    pub answered: u64,
    pub errors: u64,
    /// The first error, in words.
    pub error: Option<String>,
    pub elapsed: Duration,
    /// Microseconds.
    pub latency: Histogram<u64>,
}

impl Load {
    pub fn empty() -> Self {
        Self { answered: 0, errors: 0, error: None, elapsed: Duration::ZERO, latency: latency_histogram() }
    }

    pub fn per_second(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }

    pub fn add(&mut self, other: Load) {
        self.answered += other.answered;
        self.errors += other.errors;
        self.error = self.error.take().or(other.error);
        self.latency.add(&other.latency).expect("made with the same bounds");
    }

    pub fn record(&mut self, outcome: Result<u16>, latency: Duration) {
        match outcome {
            Ok(200) => {
                self.answered += 1;
                self.latency.saturating_record(latency.as_micros() as u64);
            }
            Ok(status) => self.fail(format!("status {status}")),
            Err(error) => self.fail(format!("{error:#}")),
        }
    }

    fn fail(&mut self, error: String) {
        self.errors += 1;
        self.error.get_or_insert(error);
    }
}

/// Three digits of what lies between a microsecond and a minute.
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds that fit each other")
}

/// Closed loop: every connection asks again as soon as it has its answer. Says how much the server can do, not how long a client waits.
pub async fn saturate(route: Route, connections: usize, duration: Duration, round: u64) -> Result<Load> {
    let mut tasks = JoinSet::new();
    let begin = Instant::now();
    for index in 0..connections as u64 {
        tasks.spawn(async move {
            let mut connection = Connection::open(route.address).await?;
            let mut load = Load::empty();
            // Every connection has numbers of its own.
            let mut number = (round * connections as u64 + index) * 20_011;
            while begin.elapsed() < duration {
                number += 1;
                let sent = Instant::now();
                let outcome = connection.look_up(&route, number).await;
                let broken = outcome.is_err();
                load.record(outcome, sent.elapsed());
                if broken {
                    connection = Connection::open(route.address).await?;
                }
            }
            anyhow::Ok(load)
        });
    }
    let mut sum = Load::empty();
    while let Some(load) = tasks.join_next().await {
        sum.add(load.context("a load task ended badly")??);
    }
    sum.elapsed = begin.elapsed();
    Ok(sum)
}
