//! Sockets that take connections.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use rustix::net::{AddressFamily, sockopt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream, lookup_host};
use wasgi_config::Address;

use crate::gateway::{Plain, Wire};
use crate::tls::Tls;

/// Connections the system holds until they are accepted.
const BACKLOG: u32 = 1024;

/// Who may connect to a unix socket: its user and group.
pub(crate) const SOCKET_MODE: u32 = 0o660;

/// ... or its user alone.
pub(crate) const PRIVATE_MODE: u32 = 0o600;

/// A bound socket. `Display` gives where it is: `http://127.0.0.1:8000` or `unix:/run/hello.sock`.
#[derive(Debug)]
pub struct Listener {
    /// As configured.
    address: String,
    kind: Arc<Kind>,
    speaks: Speaks,
    /// Whether a proxy says first whose each connection is.
    has_headers: bool,
}

/// What is spoken on a listener's connections.
#[derive(Clone, Debug)]
pub(crate) enum Speaks {
    Http,
    Https(Tls),
    /// HTTP, and each reply sends the client to https at this port.
    Redirect(u16),
    Gateway(Wire),
}

/// A listener's socket, for as long as it listens.
#[derive(Clone, Debug)]
pub(crate) struct Handle(Weak<Kind>);

#[derive(Debug)]
enum Kind {
    Tcp {
        listener: TcpListener,
        local: SocketAddr,
    },
    Unix {
        listener: UnixListener,
        path: PathBuf,
        file: Option<SocketFile>,
    },
}

/// A connection that was taken.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The host name has no address.
    #[error("cannot listen on {address}: the host name cannot be resolved")]
    Resolve {
        /// The address as configured.
        address: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The system refused.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address as configured.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// A server answers on the unix socket.
    #[error("cannot listen on unix:{}: another process is listening there", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Whoever started the server did not hand over such a socket.
    #[error("cannot listen on {address}: no such socket was handed over")]
    NotPassed {
        /// The address as configured.
        address: String,
    },
    /// There is a file, and it is no socket.
    #[error("cannot listen on unix:{}: there is a file that is not a socket", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
}

impl Listener {
    /// Binds a socket and starts to listen: connections wait in the backlog until [`run`](crate::run) takes them.
    ///
    /// A host name is bound at the first of its addresses that can be. The file of a unix socket whose server is gone
    /// is replaced; the new one may be connected to by its user and group (mode 0660), and is removed when the
    /// listener is dropped, if it still is this listener's.
    ///
    /// # Errors
    /// As [`BindError`] lists.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn bind(address: &Address) -> Result<Self, BindError> {
        Self::bind_with_mode(address, SOCKET_MODE).await
    }

    /// As [`bind`](Self::bind), with this mode for the file of a unix socket.
    pub(crate) async fn bind_with_mode(address: &Address, mode: u32) -> Result<Self, BindError> {
        match address {
            Address::Tcp { host, port } => bind_tcp(host, *port, address).await,
            Address::Unix(path) => bind_unix(path, address, mode),
            Address::Passed(_) => Err(BindError::NotPassed {
                address: address.to_string(),
            }),
        }
    }

    /// Listens on a socket that another process has bound, at `path` if it has a file that is to be this server's.
    ///
    /// The file is left alone when the listener is dropped, until [`Handle::own`].
    ///
    /// # Errors
    /// When it is not a socket for connections that listens.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(crate) fn of_socket(socket: OwnedFd, address: &Address, path: Option<&Path>) -> io::Result<Self> {
        let wrong = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if !sockopt::socket_acceptconn(&socket)? {
            return wrong("the socket does not listen");
        }
        let kind = match sockopt::socket_domain(&socket)? {
            AddressFamily::UNIX => {
                let listener = std::os::unix::net::UnixListener::from(socket);
                listener.set_nonblocking(true)?;
                let bound = listener.local_addr()?;
                let file = path.map(|path| SocketFile::of(path, false)).transpose()?;
                Kind::Unix {
                    listener: UnixListener::from_std(listener)?,
                    path: path.or(bound.as_pathname()).unwrap_or(Path::new("")).to_owned(),
                    file,
                }
            }
            AddressFamily::INET | AddressFamily::INET6 => {
                let listener = std::net::TcpListener::from(socket);
                listener.set_nonblocking(true)?;
                let local = listener.local_addr()?;
                Kind::Tcp {
                    listener: TcpListener::from_std(listener)?,
                    local,
                }
            }
            _ => return wrong("it is neither a TCP nor a unix socket"),
        };
        Ok(Self::new(address, kind))
    }

    fn new(address: &Address, kind: Kind) -> Self {
        Self {
            address: address.to_string(),
            kind: Arc::new(kind),
            speaks: Speaks::Http,
            has_headers: false,
        }
    }

    /// Takes connections of trusted proxies alone, each with a header of the PROXY protocol before its first byte.
    pub fn with_proxy_headers(mut self) -> Self {
        self.has_headers = true;
        self
    }

    pub(crate) fn has_proxy_headers(&self) -> bool {
        self.has_headers
    }

    /// Speaks HTTP over TLS.
    pub fn over_tls(mut self, tls: Tls) -> Self {
        self.speaks = Speaks::Https(tls);
        self
    }

    /// Serves nothing, and sends clients to https at this port.
    pub fn redirecting(mut self, port: u16) -> Self {
        self.speaks = Speaks::Redirect(port);
        self
    }

    /// Speaks uwsgi to a web server in front.
    pub fn speaking_uwsgi(mut self) -> Self {
        self.speaks = Speaks::Gateway(Wire::Plain(Plain::Uwsgi));
        self
    }

    /// ... or FastCGI.
    pub fn speaking_fastcgi(mut self) -> Self {
        self.speaks = Speaks::Gateway(Wire::FastCgi);
        self
    }

    /// ... or SCGI.
    pub fn speaking_scgi(mut self) -> Self {
        self.speaks = Speaks::Gateway(Wire::Plain(Plain::Scgi));
        self
    }

    /// The port that was bound, if TLS is spoken there.
    pub fn https_port(&self) -> Option<u16> {
        match self.speaks {
            Speaks::Https(_) => self.port(),
            Speaks::Http | Speaks::Redirect(_) | Speaks::Gateway(_) => None,
        }
    }

    pub(crate) fn speaks(&self) -> &Speaks {
        &self.speaks
    }

    /// The address as configured.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn handle(&self) -> Handle {
        Handle(Arc::downgrade(&self.kind))
    }

    /// The port that was bound, for TCP.
    pub fn port(&self) -> Option<u16> {
        match &*self.kind {
            Kind::Tcp { local, .. } => Some(local.port()),
            Kind::Unix { .. } => None,
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match &*self.kind {
            Kind::Tcp { listener, .. } => {
                let (stream, peer) = listener.accept().await?;
                // Replies are written whole: waiting for more to send with them only delays them.
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream, peer))
            }
            Kind::Unix { listener, .. } => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

impl Handle {
    /// A further descriptor of the socket; `None` once nothing listens on it here.
    pub(crate) fn socket(&self) -> Option<io::Result<OwnedFd>> {
        self.0.upgrade().map(|kind| kind.as_fd().try_clone_to_owned())
    }

    /// Whether the file of a unix socket goes with the listener: not if another process goes on listening there.
    pub(crate) fn own(&self, own: bool) {
        if let Some(Kind::Unix { file: Some(file), .. }) = self.0.upgrade().as_deref() {
            file.owned.store(own, Ordering::Relaxed);
        }
    }
}

impl AsFd for Kind {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Kind::Tcp { listener, .. } => listener.as_fd(),
            Kind::Unix { listener, .. } => listener.as_fd(),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.kind {
            Kind::Tcp { local, .. } => {
                let scheme = match self.speaks {
                    Speaks::Http | Speaks::Redirect(_) => "http",
                    Speaks::Https(_) => "https",
                    Speaks::Gateway(wire) => wire.name(),
                };
                write!(f, "{scheme}://{local}")?;
            }
            Kind::Unix { path, .. } => write!(f, "unix:{}", path.display())?,
        }
        match (self.speaks.clone(), &*self.kind) {
            (Speaks::Redirect(port), _) => write!(f, ", sending to https at port {port}"),
            (Speaks::Gateway(wire), Kind::Unix { .. }) => write!(f, ", speaking {}", wire.name()),
            _ => Ok(()),
        }?;
        if self.has_headers {
            f.write_str(", behind the PROXY protocol")?;
        }
        Ok(())
    }
}

async fn bind_tcp(host: &str, port: u16, address: &Address) -> Result<Listener, BindError> {
    let found = lookup_host((host, port))
        .await
        .map_err(|source| BindError::Resolve {
            address: address.to_string(),
            source,
        })?;
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host name has no address");
    for one in found {
        match listen_tcp(one) {
            Ok(kind) => return Ok(Listener::new(address, kind)),
            Err(error) => last = error,
        }
    }
    Err(BindError::Bind {
        address: address.to_string(),
        source: last,
    })
}

fn listen_tcp(address: SocketAddr) -> io::Result<Kind> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restarted server must not wait for the old one's connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let local = listener.local_addr()?;
    Ok(Kind::Tcp { listener, local })
}

fn bind_unix(path: &Path, address: &Address, mode: u32) -> Result<Listener, BindError> {
    let failed = |source| BindError::Bind {
        address: address.to_string(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => match BlockingUnixStream::connect(path) {
            Ok(_) => {
                return Err(BindError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed)?;
            }
            // Gone meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A full backlog, say: somebody is there.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(BindError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(error) => return Err(failed(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let file = SocketFile::of(path, true).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    let kind = Kind::Unix {
        listener,
        path: path.to_owned(),
        file: Some(file),
    };
    Ok(Listener::new(address, kind))
}

/// The file of a unix socket; removed when dropped, if it is owned and no other has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    owned: AtomicBool,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path, owned: bool) -> io::Result<Self> {
        let (device, inode) = identity(path)?;
        Ok(Self {
            path: path.to_owned(),
            owned: AtomicBool::new(owned),
            device,
            inode,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let owned = self.owned.load(Ordering::Relaxed);
        if owned && identity(&self.path).is_ok_and(|found| found == (self.device, self.inode)) {
            // Too late to tell anybody.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &Path) -> Address {
        Address::Unix(path.to_owned())
    }

    #[tokio::test]
    async fn port_0_becomes_a_real_port() {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = listener.port().unwrap();
        assert_ne!(port, 0);
        assert_eq!(listener.to_string(), format!("http://127.0.0.1:{port}"));
        let error = Listener::bind(&format!("127.0.0.1:{port}").parse().unwrap())
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on 127.0.0.1:{port}"));
    }

    #[tokio::test]
    async fn a_live_unix_socket_is_refused_and_a_stale_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listener = Listener::bind(&unix(&path)).await.unwrap();
        assert_eq!(listener.to_string(), format!("unix:{}", path.display()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        assert!(matches!(
            Listener::bind(&unix(&path)).await,
            Err(BindError::InUse { .. })
        ));
        drop(listener);
        assert!(!path.exists());

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file of a closed socket");
        let listener = Listener::bind(&unix(&path)).await.unwrap();
        assert!(BlockingUnixStream::connect(&path).is_ok());
        drop(listener);
    }

    #[tokio::test]
    async fn a_file_of_somebody_else_is_neither_replaced_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(
            Listener::bind(&unix(&path)).await,
            Err(BindError::NotASocket { .. })
        ));
        fs::remove_file(&path).unwrap();

        let listener = Listener::bind(&unix(&path)).await.unwrap();
        fs::remove_file(&path).unwrap();
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
        drop(other);
    }
}
