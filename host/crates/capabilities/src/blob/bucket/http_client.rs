//! The HTTP/1.1 client of the crate `object_store`: hyper's, with rustls and `ring` as everywhere here, and the system's certificates.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::TokioExecutor;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use tower_http::timeout::TimeoutBody;

use echo_base::limits;

const TIMEOUT: Duration = Duration::from_millis(limits::BUCKET_TIMEOUT_MS);

#[derive(Debug)]
pub struct Connector;

#[derive(Debug)]
struct Service(Client<HttpsConnector<TcpConnector>, HttpRequestBody>);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(TIMEOUT));
        let https = HttpsConnectorBuilder::new().with_native_roots();
        let https = https.map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })?;
        let connector = https.https_or_http().enable_http1().wrap_connector(tcp);
        Ok(HttpClient::new(Service(Client::builder(TokioExecutor::new()).build(connector))))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answered = tokio::time::timeout(TIMEOUT, self.0.request(request)).await;
        let answered = answered.map_err(|_| HttpError::new(HttpErrorKind::Timeout, io::Error::from(io::ErrorKind::TimedOut)))?;
        let response = answered.map_err(|error| {
            // A request that was not sent whole, or has no answer: the kept connection had ended.
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new(kind, error)
        })?;
        let (head, body) = response.into_parts();
        let body = TimeoutBody::new(TIMEOUT, body).map_err(|error| {
            let is_late = (&*error as &(dyn StdError + 'static)).is::<tower_http::timeout::TimeoutError>();
            let kind = if is_late { HttpErrorKind::Timeout } else { HttpErrorKind::Interrupted };
            HttpError::new_boxed(kind, error)
        });
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }
}
