//! The HTTP/1.1 client towards outside services: hyper's, with rustls and the system's certificates. It follows no redirection and asks nobody for a proxy.

use std::sync::OnceLock;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::body::SentBody;
use echo_base::limits;

/// One for all outside services; made when the first request wants it.
#[derive(Default)]
pub struct OutsideClient(OnceLock<Result<Client<HttpsConnector<HttpConnector>, SentBody>, String>>);

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nothing was sent.
    Unreachable(String),
    /// Something may have been sent.
    Broken(String),
}

impl OutsideClient {
    pub async fn request(&self, request: Request<SentBody>) -> Result<Response<Incoming>, ClientError> {
        let client = self.0.get_or_init(open).as_ref().map_err(|reason| ClientError::Unreachable(reason.clone()))?;
        client.request(request).await.map_err(|error| {
            let reason = reasons(&error);
            if error.is_connect() { ClientError::Unreachable(reason) } else { ClientError::Broken(reason) }
        })
    }
}

fn open() -> Result<Client<HttpsConnector<HttpConnector>, SentBody>, String> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(Duration::from_millis(limits::OUTSIDE_CONNECT_MS)));
    let https = HttpsConnectorBuilder::new().with_native_roots().map_err(|error| format!("the system's certificates: {error}"))?;
    let connector = https.https_or_http().enable_http1().wrap_connector(tcp);
    let mut client = Client::builder(TokioExecutor::new());
    client.pool_timer(TokioTimer::new()).pool_idle_timeout(Duration::from_millis(limits::OUTSIDE_KEPT_MS));
    client.pool_max_idle_per_host(limits::OUTSIDE_KEPT_MAX);
    client.http1_max_buf_size(limits::OUTSIDE_HEAD_BYTES_MAX).http1_max_headers(limits::OUTSIDE_HEADERS_MAX);
    // `Host` is the target's, and written with the other headers.
    client.set_host(false);
    Ok(client.build(connector))
}

/// With what lies behind it: "connection refused" is no use without its cause.
fn reasons(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
