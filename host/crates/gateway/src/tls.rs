//! TLS by rustls: a certificate and its key from files, read again when they change. Connections that are open keep what they began with.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, InconsistentKeys, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use echo_base::limits;

/// Why the files are of no use, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("the key in {} is not the one of the certificate in {}", key.display(), certificate.display())]
    KeyOfAnother { certificate: PathBuf, key: PathBuf },
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// What connections are encrypted with.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

/// One certificate for all names: which names it is good for is the client's to check.
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a certificate")
    }
}

impl Tls {
    /// `certificate`: PEM, the host's own first, then those that lead to a root. `key`: PEM, PKCS#8, PKCS#1 or SEC1.
    pub fn open(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let current = Arc::new(Current(ArcSwap::from_pointee(read(certificate, key)?)));
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(TlsError::Setup)?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Session tickets: a client that returns within hours skips the full handshake, and the host keeps no state for it.
        config.ticketer = ring::Ticketer::new().map_err(TlsError::Setup)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Arc::new(Self { certificate: certificate.to_owned(), key: key.to_owned(), current, acceptor }))
    }

    /// The handshake. Errors: what the client did wrong, or `TimedOut`.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let handshake = self.acceptor.accept(stream);
        tokio::time::timeout(Duration::from_millis(limits::TLS_HANDSHAKE_TIMEOUT_MS), handshake).await?
    }

    /// Looks until `stop` whether the files have changed. A pair that is no good is not taken; it is looked at again until it is.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut interval = tokio::time::interval(Duration::from_millis(limits::TLS_LOOK_INTERVAL_MS));
        let mut taken = self.stamps();
        let mut refused = None;
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            let stamps = self.stamps();
            if stamps == taken {
                continue;
            }
            match read(&self.certificate, &self.key) {
                Ok(certified) => {
                    self.current.0.store(Arc::new(certified));
                    tracing::info!(certificate = %self.certificate.display(), "the certificate was read again");
                    (taken, refused) = (stamps, None);
                }
                // One of two files may be there before the other.
                Err(error) if refused != Some(stamps) => {
                    tracing::warn!(%error, "the certificate has changed and cannot be taken; the old one is used on");
                    refused = Some(stamps);
                }
                Err(_) => {}
            }
        }
    }

    /// Differs between a file and the one that it replaced.
    fn stamps(&self) -> [Option<(u64, u64, i64, i64)>; 2] {
        [&self.certificate, &self.key].map(|path| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
        })
    }
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let failed = |path: &Path, reason: &dyn fmt::Display| TlsError::File { path: path.to_owned(), reason: reason.to_string() };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect).map_err(|error| failed(certificate, &error))?;
    if chain.is_empty() {
        return Err(failed(certificate, &"there is no certificate in it (PEM is wanted)"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, &error))?;
    let private = ring::sign::any_supported_type(&private).map_err(|error| failed(key, &error))?;
    let certified = CertifiedKey::new(chain, private);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::KeyOfAnother { certificate: certificate.to_owned(), key: key.to_owned() }),
        Err(error) => Err(failed(certificate, &error)),
    }
}
