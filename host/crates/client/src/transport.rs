//! The one way to the host: requests over HTTP/1.1 with connections that are kept, and the opening of a WebSocket, both over TLS where the address says
//! `https` (rustls, the system's certificates and those that were given).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as StreamError, error::UrlError};
use tower_service::Service;

use crate::error::{Error, Problem};
use crate::limits;

pub(crate) type SocketStream = WebSocketStream<TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>>;

pub(crate) struct Http {
    /// Without a path: `https://echo.example:8443`.
    base: String,
    connector: HttpsConnector<HttpConnector>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Http {
    /// `certificates`: PEM, trusted besides the system's.
    pub fn new(url: &str, certificates: Option<&[u8]>) -> Result<Self, Error> {
        let settings = |reason: String| Error::Settings(reason);
        let uri: Uri = url.parse().map_err(|error| settings(format!("{url:?} is no address of a host: {error}")))?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(settings(format!("{url:?} is no address of a host; write http://127.0.0.1:8080")));
        };
        let mut roots = RootCertStore::empty();
        if scheme == "https" {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        for certificate in certificates.into_iter().flat_map(CertificateDer::pem_slice_iter) {
            let certificate = certificate.map_err(|error| settings(format!("a certificate: {error:?}")))?;
            roots.add(certificate).map_err(|error| settings(format!("a certificate: {error}")))?;
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| settings(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(Duration::from_millis(limits::CONNECT_WAIT_MS)));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(Duration::from_millis(limits::CONNECTION_KEPT_MS));
        Ok(Self { base: format!("{scheme}://{authority}"), client: client.build(connector.clone()), connector })
    }

    pub async fn request(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
        token: Option<&str>,
    ) -> Result<Answer, Error> {
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, bearer(token)?);
        }
        let request = request.body(Full::new(body)).map_err(|error| Error::Settings(format!("{method} {path}: {error}")))?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| Error::Unreachable(reasons(&error)))?;
            let (head, body) = answer.into_parts();
            let body =
                Limited::new(body, limits::ANSWER_BYTES_MAX).collect().await.map_err(|error| Error::Unreachable(error.to_string()))?;
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
        };
        let in_time = tokio::time::timeout(Duration::from_millis(limits::REQUEST_WAIT_MS), exchange).await;
        in_time.unwrap_or_else(|_| Err(Error::Unreachable("no answer in time".to_owned())))
    }

    /// Opens `/ws`, to go on after `since`. Errors: the problem with which the opening was refused.
    pub async fn socket(&self, token: &str, since: Option<u64>) -> Result<SocketStream, Error> {
        let query = since.map_or_else(String::new, |since| format!("?since={since}"));
        // `ws://…` for `http://…`, and `wss` for `https`.
        let mut request = format!("{}/ws{query}", self.base.replacen("http", "ws", 1)).into_client_request().map_err(unopened)?;
        request.headers_mut().insert(AUTHORIZATION, bearer(token)?);
        let to: Uri = self.base.parse().map_err(|_| unopened(UrlError::UnableToConnect(self.base.clone()).into()))?;
        let mut connector = self.connector.clone();
        let opening = async {
            std::future::poll_fn(|context| connector.poll_ready(context)).await.map_err(|error| Error::Unreachable(error.to_string()))?;
            let stream = connector.call(to).await.map_err(|error| Error::Unreachable(reasons(&*error)))?;
            let config = WebSocketConfig::default().read_buffer_size(limits::READ_BUFFER_BYTES);
            let opened = tokio_tungstenite::client_async_with_config(request, TokioIo::new(stream), Some(config)).await;
            opened.map(|(stream, _)| stream).map_err(unopened)
        };
        let in_time = tokio::time::timeout(Duration::from_millis(limits::OPEN_WAIT_MS), opening).await;
        in_time.unwrap_or_else(|_| Err(Error::Unreachable("the socket does not open in time".to_owned())))
    }
}

impl Answer {
    /// The answer, or the problem that it is.
    pub(crate) fn successful(self) -> Result<Self, Error> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        Err(Problem::of_answer(self.status, retry_after(&self.headers), &self.body).into())
    }
}

fn unopened(error: StreamError) -> Error {
    match error {
        StreamError::Http(answer) => {
            let retry_after = retry_after(answer.headers());
            Problem::of_answer(answer.status().as_u16(), retry_after, answer.body().as_deref().unwrap_or_default()).into()
        }
        other => Error::Unreachable(other.to_string()),
    }
}

/// Seconds (RFC 9110, section 10.2.3); the other form, a date, is not sent by hosts.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn bearer(token: &str) -> Result<HeaderValue, Error> {
    let mut value =
        HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Error::Settings("the access token cannot be sent".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// With what lies behind it: "connection refused" is no use without its cause.
fn reasons(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_address_of_a_host_is_refused() {
        for url in ["", "127.0.0.1:8080", "ftp://a", "/api", "http://"] {
            assert!(matches!(Http::new(url, None), Err(Error::Settings(_))), "{url}");
        }
        assert_eq!(Http::new("http://localhost:80/path", None).ok().map(|http| http.base), Some("http://localhost:80".to_owned()));
    }
}
