//! TLS on a listener: certificates by the name that a client asks for, read anew while connections are served.

use std::fmt;
use std::fs;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::http2;
use crate::log::Log;

/// Longest that a client may take to agree on keys: it holds a connection of `limits.connections` meanwhile.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Between two looks at the files of certificates.
const LOOK: Duration = Duration::from_secs(5);

/// What a listener needs to speak TLS. Clones share it.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    certificates: Arc<Certificates>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it is to hold.
    #[error("{} {what}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The key is not the certificate's.
    #[error("{} is not the key of {}", key.display(), cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// TLS itself cannot be set up.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

impl Tls {
    /// Reads pairs of a certificate's file, with those that vouch for it after it, and its key's; both PEM.
    ///
    /// A client gets the first pair that is for the name it asks for, or else the first of all. TLS 1.2 and 1.3, with
    /// the ciphers that rustls takes to be safe.
    ///
    /// # Errors
    /// As [`TlsError`] lists.
    pub fn of(pairs: &[(PathBuf, PathBuf)]) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let certificates = Arc::new(Certificates {
            pairs: pairs.to_vec(),
            current: RwLock::new(Loaded::read(pairs, &provider)?),
            provider: Arc::clone(&provider),
        });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![http2::ALPN.to_vec(), b"http/1.1".to_vec()];
        config.ticketer = ring::Ticketer::new().map_err(TlsError::Setup)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            certificates,
        })
    }

    /// Reads the certificates anew. If that fails, those there are stay.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn reload(&self) -> Result<(), TlsError> {
        let Certificates {
            pairs,
            current,
            provider,
        } = &*self.certificates;
        let loaded = Loaded::read(pairs, provider)?;
        *current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// Reads the certificates anew on SIGHUP and whenever a file of theirs has changed, and tells the log.
    pub(crate) async fn watch(&self, log: &Log) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        let mut seen = self.stamps();
        loop {
            let asked = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => pending().await,
                }
            };
            let is_asked = tokio::select! {
                _ = asked => true,
                () = sleep(LOOK) => false,
            };
            let found = self.stamps();
            let has_changed = found != std::mem::replace(&mut seen, found.clone());
            if is_asked || has_changed {
                match self.reload() {
                    Ok(()) => log.note(format_args!("certificates of {self} read anew")),
                    Err(error) => log.error(format_args!(
                        "certificates of {self} have changed and cannot be used; those before stay: {}",
                        with_source(&error)
                    )),
                }
            }
        }
    }

    /// The keys agreed on; an error if the client is too slow or no TLS client.
    pub(crate) async fn handshake<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        timeout(HANDSHAKE_TIME, self.acceptor.accept(stream)).await?
    }

    fn stamps(&self) -> Vec<Option<(SystemTime, u64)>> {
        let files = self.certificates.pairs.iter().flat_map(|(cert, key)| [cert, key]);
        let stamp = |file: &PathBuf| {
            let found = fs::metadata(file).ok()?;
            Some((found.modified().ok()?, found.len()))
        };
        files.map(stamp).collect()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.certificates.pairs).finish()
    }
}

/// The certificates' files.
impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (cert, _)) in self.certificates.pairs.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{}", cert.display())?;
        }
        Ok(())
    }
}

fn with_source(error: &TlsError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

struct Certificates {
    /// Certificate and key.
    pairs: Vec<(PathBuf, PathBuf)>,
    current: RwLock<Loaded>,
    provider: Arc<CryptoProvider>,
}

/// The pairs, read, in their order.
struct Loaded(Vec<Arc<CertifiedKey>>);

impl Loaded {
    fn read(pairs: &[(PathBuf, PathBuf)], provider: &CryptoProvider) -> Result<Self, TlsError> {
        let read = |(cert, key): &(PathBuf, PathBuf)| pair(cert, key, provider).map(Arc::new);
        pairs.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let name = name
            .and_then(|name| DnsName::try_from(name).ok())
            .map(ServerName::DnsName);
        let fits = |pair: &&Arc<CertifiedKey>| {
            name.as_ref().is_some_and(|name| {
                let parsed = pair.end_entity_cert().and_then(ParsedCertificate::try_from);
                parsed.is_ok_and(|cert| rustls::client::verify_server_name(&cert, name).is_ok())
            })
        };
        self.0.iter().find(fits).or(self.0.first())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.find(hello.server_name()).cloned()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificates").field(&self.pairs).finish()
    }
}

fn pair(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let content = |file: &Path, what: String| TlsError::Content {
        file: file.to_owned(),
        what,
    };
    let chain = CertificateDer::pem_slice_iter(&read(cert)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(cert, format!("is not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(content(
            cert,
            "holds no certificate (BEGIN CERTIFICATE)".to_owned(),
        ));
    }
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| match error {
        pem::Error::NoItemsFound => content(
            key,
            "holds no private key that is not encrypted (BEGIN PRIVATE KEY)".to_owned(),
        ),
        error => content(key, format!("is not PEM: {error}")),
    })?;
    match CertifiedKey::from_der(chain, private, provider) {
        Ok(pair) => Ok(pair),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch {
            cert: cert.to_owned(),
            key: key.to_owned(),
        }),
        Err(rustls::Error::InvalidCertificate(error)) => {
            Err(content(cert, format!("is not a certificate: {error}")))
        }
        Err(error) => Err(content(key, format!("is not a key that can be used: {error}"))),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|source| TlsError::Read {
        file: file.to_owned(),
        source,
    })
}
