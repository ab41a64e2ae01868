//! The client: HTTP/1.1 and HTTP/2 by ALPN over TLS (rustls, the system's roots), with connections that are kept. A name is looked up here, and only
//! its public addresses are connected to, so that no name leads to a host of the operator's network.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{io, vec};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::credentials::Credentials;
use super::{HostPattern, Http, HttpError, HttpGrants, HttpSettings, OutgoingRequest, OutgoingResponse, bare_ip, is_public};
use echo_base::limits;

type HttpsClient = Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>;

/// One for all services.
pub struct HttpClient {
    /// Connects to public addresses alone.
    public: HttpsClient,
    /// To the hosts that the operator lists, wherever they are.
    private: HttpsClient,
    private_hosts: Vec<HostPattern>,
    credentials: Credentials,
    /// Requests of all services at once.
    slots: Semaphore,
}

impl HttpClient {
    /// Errors: what of the settings cannot be used.
    pub fn new(settings: HttpSettings) -> Result<Self, String> {
        let tls = tls(settings.root_certificates.as_deref())?;
        Ok(Self {
            public: client(tls.clone(), Resolver { public_only: true }),
            private: client(tls, Resolver { public_only: false }),
            private_hosts: settings.private_hosts,
            credentials: Credentials::read(settings.credentials)?,
            slots: Semaphore::new(limits::HTTP_OUTGOING_MAX),
        })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, private: bool) -> Result<OutgoingResponse, HttpError> {
        let _slot = self.slots.acquire().await.map_err(|_| HttpError::Unreachable("the host ends".to_owned()))?;
        let client = if private { &self.private } else { &self.public };
        let answer = client.request(request).await.map_err(|error| HttpError::Unreachable(reason(&error)))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, limits::HTTP_BODY_BYTES_MAX).collect().await.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() { HttpError::TooLarge } else { HttpError::Unreachable(error.to_string()) }
        })?;
        // A value that is no text is of no use to a guest.
        let headers = parts.headers.iter().filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        Ok(OutgoingResponse { status: parts.status.as_u16(), headers: headers.collect(), body: body.to_bytes().to_vec() })
    }

    /// Whether the operator lists it: it may be at any address, and speak plain HTTP.
    fn is_private_host(&self, host: &str, port: u16) -> bool {
        self.private_hosts.iter().any(|pattern| pattern.covers(host, port))
    }

    /// Where the request goes, if it may be asked at all.
    fn target(&self, url: &str) -> Result<Target, HttpError> {
        let invalid = |what: &str| HttpError::Invalid(what.to_owned());
        let uri: Uri = url.parse().map_err(|_| invalid("its address is no URL"))?;
        let authority = uri.authority().ok_or_else(|| invalid("its address names no host"))?;
        if authority.as_str().contains('@') {
            return Err(invalid("its address has a user in it"));
        }
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(invalid("its address is neither https: nor http:")),
        };
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let host = authority.host().to_owned();
        let private = self.is_private_host(&host, port);
        if !private && !is_tls {
            return Err(HttpError::NotGranted(format!("plain HTTP to {host}:{port}")));
        }
        if !private && bare_ip(&host).is_some_and(|address| !is_public(address)) {
            return Err(HttpError::Unreachable(format!("{host} is no public address")));
        }
        Ok(Target { origin: format!("{}://{authority}", uri.scheme_str().unwrap_or_default()), host, port, uri, private })
    }
}

struct Target {
    uri: Uri,
    /// RFC 6454.
    origin: String,
    host: String,
    port: u16,
    private: bool,
}

#[async_trait]
impl Http for HttpClient {
    async fn send(&self, grants: &HttpGrants, request: OutgoingRequest) -> Result<OutgoingResponse, HttpError> {
        let target = self.target(&request.url)?;
        // What the operator lists is granted by that.
        if !target.private && !grants.covers(&target.host, target.port) {
            return Err(HttpError::NotGranted(format!("{}:{}", target.host, target.port)));
        }
        if let Some(credential) = request.credential.as_deref().filter(|credential| !grants.has_credential(credential)) {
            return Err(HttpError::NotGranted(format!("the credential {credential}")));
        }
        let mut outgoing = built(&request, &target.uri)?;
        let exchange = async {
            let Some(name) = &request.credential else { return self.exchange(outgoing, target.private).await };
            let authorization = self.credentials.authorization(name, &target.origin, |asked| self.token_request(asked)).await?;
            outgoing.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
            let answer = self.exchange(outgoing, target.private).await?;
            if matches!(answer.status, 401 | 403) {
                self.credentials.forget(name, &authorization);
            }
            Ok(answer)
        };
        tokio::time::timeout(request.timeout, exchange).await.unwrap_or(Err(HttpError::TimedOut))
    }

    fn public_key(&self, credential: &str) -> Option<String> {
        self.credentials.public_key(credential)
    }
}

impl HttpClient {
    /// A credential is exchanged for a token at the address that stands in it: the operator's word, and no service's.
    async fn token_request(&self, request: OutgoingRequest) -> Result<OutgoingResponse, HttpError> {
        let target = self.target(&request.url)?;
        self.exchange(built(&request, &target.uri)?, target.private).await
    }
}

/// Headers that are the host's to write, or would change what is read as the request (RFC 9110, section 7.6.1).
const OWN_HEADERS: [&str; 10] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
];

fn built(request: &OutgoingRequest, uri: &Uri) -> Result<Request<Full<Bytes>>, HttpError> {
    let invalid = |what: String| HttpError::Invalid(what);
    let method = Method::from_bytes(request.method.as_bytes()).ok().filter(|method| *method != Method::CONNECT);
    let method = method.ok_or_else(|| invalid(format!("the method {:?}", request.method)))?;
    let mut built = Request::new(Full::new(Bytes::from(request.body.clone())));
    *built.method_mut() = method;
    *built.uri_mut() = uri.clone();
    for (name, value) in &request.headers {
        let wrong = || invalid(format!("the header {name:?}"));
        let (name, value) =
            (HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?, HeaderValue::from_str(value).map_err(|_| wrong())?);
        if OWN_HEADERS.contains(&name.as_str()) {
            return Err(wrong());
        }
        built.headers_mut().append(name, value);
    }
    Ok(built)
}

fn client(tls: ClientConfig, resolver: Resolver) -> HttpsClient {
    let mut connector = HttpConnector::new_with_resolver(resolver);
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_millis(limits::HTTP_TIMEOUT_MS)));
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions().wrap_connector(connector);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_millis(limits::HTTP_IDLE_MS))
        .pool_max_idle_per_host(limits::HTTP_IDLE_PER_HOST_MAX)
        .http1_max_buf_size(limits::HTTP_ANSWER_HEAD_BYTES_MAX)
        .http2_max_header_list_size(limits::HTTP_ANSWER_HEAD_BYTES_MAX as u32)
        .http2_keep_alive_interval(Some(Duration::from_millis(limits::HTTP_TIMEOUT_MS)))
        .build(connector)
}

fn tls(more_roots: Option<&[u8]>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    // A system without any has nobody to speak to; that is said when somebody is spoken to.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in more_roots.map(CertificateDer::pem_slice_iter).into_iter().flatten() {
        let certificate = certificate.map_err(|error| format!("http.root_certificates: {error}"))?;
        roots.add(certificate).map_err(|error| format!("http.root_certificates: {error}"))?;
    }
    ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())
        .map(|builder| builder.with_root_certificates(roots).with_no_client_auth())
}

/// The innermost reason says most.
fn reason(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Looks names up.
#[derive(Clone)]
struct Resolver {
    /// Leaves out addresses that are not public.
    public_only: bool,
}

impl tower_service::Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let public_only = self.public_only;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> = found.filter(|address| !public_only || is_public(address.ip())).collect();
            if addresses.is_empty() {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the name has no public address"));
            }
            Ok(addresses.into_iter())
        })
    }
}
