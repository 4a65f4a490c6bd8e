//! Sockets that take connections.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream, lookup_host};
use wasgi_config::{Address, Owner, Sockets};

use crate::gateway::{Plain, Wire};
use crate::tls::Tls;

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
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
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
    #[error("cannot listen on unix:{}: {} is listening there", path.display(), shown(*pid))]
    InUse {
        /// The socket.
        path: PathBuf,
        /// The process, if it can be told.
        pid: Option<i32>,
    },
    /// The system does not let this user give the socket's file away.
    #[error("cannot give the socket {} to {owner}", path.display())]
    Owner {
        /// The socket.
        path: PathBuf,
        /// As configured.
        owner: String,
        /// What the system said.
        source: io::Error,
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
    /// is replaced; the new one has the mode and the owner of `sockets` from its first connection on, and is removed when
    /// the listener is dropped, if it still is this listener's.
    ///
    /// # Errors
    /// As [`BindError`] lists.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn bind(address: &Address, sockets: &Sockets) -> Result<Self, BindError> {
        match address {
            Address::Tcp { host, port } => bind_tcp(host, *port, address, sockets).await,
            Address::Unix(path) => bind_unix(path, address, sockets),
            Address::Abstract(name) => bind_abstract(name, address, sockets),
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
                let path = match address {
                    Address::Abstract(name) => named(name),
                    _ => path.or(bound.as_pathname()).unwrap_or(Path::new("")).to_owned(),
                };
                Kind::Unix {
                    listener: UnixListener::from_std(listener)?,
                    path,
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

    /// Speaks HTTP/2 to clients that know it beforehand, and nothing else.
    pub fn speaking_h2c(mut self) -> Self {
        self.speaks = Speaks::H2c;
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
            Speaks::Http | Speaks::H2c | Speaks::Redirect(_) | Speaks::Gateway(_) => None,
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
                    Speaks::H2c => "h2c",
                    Speaks::Gateway(wire) => wire.name(),
                };
                write!(f, "{scheme}://{local}")?;
            }
            Kind::Unix { path, .. } => write!(f, "unix:{}", path.display())?,
        }
        match (self.speaks.clone(), &*self.kind) {
            (Speaks::Redirect(port), _) => write!(f, ", sending to https at port {port}"),
            (Speaks::H2c, Kind::Unix { .. }) => f.write_str(", speaking h2c"),
            (Speaks::Gateway(wire), Kind::Unix { .. }) => write!(f, ", speaking {}", wire.name()),
            _ => Ok(()),
        }?;
        if self.has_headers {
            f.write_str(", behind the PROXY protocol")?;
        }
        Ok(())
    }
}

/// Who listens.
fn shown(pid: Option<i32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

async fn bind_tcp(
    host: &str,
    port: u16,
    address: &Address,
    sockets: &Sockets,
) -> Result<Listener, BindError> {
    let found = lookup_host((host, port))
        .await
        .map_err(|source| BindError::Resolve {
            address: address.to_string(),
            source,
        })?;
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host name has no address");
    for one in found {
        match listen_tcp(one, sockets) {
            Ok(kind) => return Ok(Listener::new(address, kind)),
            Err(error) => last = error,
        }
    }
    Err(BindError::Bind {
        address: address.to_string(),
        source: last,
    })
}

fn listen_tcp(address: SocketAddr, sockets: &Sockets) -> io::Result<Kind> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restarted server must not wait for the old one's connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(sockets.reuse_port)?;
    socket.bind(address)?;
    let listener = socket.listen(sockets.backlog)?;
    let local = listener.local_addr()?;
    Ok(Kind::Tcp { listener, local })
}

fn bind_unix(path: &Path, address: &Address, sockets: &Sockets) -> Result<Listener, BindError> {
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
            Ok(stream) => {
                return Err(BindError::InUse {
                    path: path.to_owned(),
                    pid: listening(stream),
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
                    pid: None,
                });
            }
            Err(error) => return Err(failed(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let at = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
    let socket = bound(&at).map_err(failed)?;
    let file = SocketFile::of(path, true).map_err(failed)?;
    if let Some(Owner { shown, uid, gid }) = &sockets.owner {
        lchown(path, *uid, *gid).map_err(|source| BindError::Owner {
            path: path.to_owned(),
            owner: shown.clone(),
            source,
        })?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(sockets.mode)).map_err(failed)?;
    // Not before: until here nobody could connect, whatever the file allowed.
    let kind = Kind::Unix {
        listener: listening_at(socket, sockets).map_err(failed)?,
        path: path.to_owned(),
        file: Some(file),
    };
    Ok(Listener::new(address, kind))
}

fn bind_abstract(name: &str, address: &Address, sockets: &Sockets) -> Result<Listener, BindError> {
    let listen = || {
        let at = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
        listening_at(bound(&at)?, sockets)
    };
    let kind = Kind::Unix {
        listener: listen().map_err(|source| BindError::Bind {
            address: address.to_string(),
            source,
        })?,
        path: named(name),
        file: None,
    };
    Ok(Listener::new(address, kind))
}

/// How a name that is no file's is shown.
fn named(name: &str) -> PathBuf {
    PathBuf::from(format!("@{name}"))
}

fn bound(at: &SocketAddrUnix) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, at)?;
    Ok(socket)
}

fn listening_at(socket: OwnedFd, sockets: &Sockets) -> io::Result<UnixListener> {
    rustix::net::listen(&socket, i32::try_from(sockets.backlog).unwrap_or(i32::MAX))?;
    UnixListener::from_std(socket.into())
}

/// The process on the other side of a connection: that which listens, before the connection is accepted.
fn listening(stream: BlockingUnixStream) -> Option<i32> {
    stream.set_nonblocking(true).ok()?;
    let peer = UnixStream::from_std(stream).ok()?.peer_cred().ok()?;
    // 0 for one that this process's namespace has no number for.
    peer.pid().filter(|pid| *pid > 0)
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

    async fn bind(address: &Address) -> Result<Listener, BindError> {
        Listener::bind(address, &Sockets::default()).await
    }

    fn unix(path: &Path) -> Address {
        Address::Unix(path.to_owned())
    }

    #[tokio::test]
    async fn port_0_becomes_a_real_port() {
        let listener = bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = listener.port().unwrap();
        assert_ne!(port, 0);
        assert_eq!(listener.to_string(), format!("http://127.0.0.1:{port}"));
        let error = bind(&format!("127.0.0.1:{port}").parse().unwrap())
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on 127.0.0.1:{port}"));
    }

    #[tokio::test]
    async fn a_live_unix_socket_is_refused_and_a_stale_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listener = bind(&unix(&path)).await.unwrap();
        assert_eq!(listener.to_string(), format!("unix:{}", path.display()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        let error = bind(&unix(&path)).await.unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {} is listening", std::process::id())),
            "{error}"
        );
        drop(listener);
        assert!(!path.exists());

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file of a closed socket");
        let listener = bind(&unix(&path)).await.unwrap();
        assert!(BlockingUnixStream::connect(&path).is_ok());
        drop(listener);
    }

    #[tokio::test]
    async fn a_file_of_somebody_else_is_neither_replaced_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(
            bind(&unix(&path)).await,
            Err(BindError::NotASocket { .. })
        ));
        fs::remove_file(&path).unwrap();

        let listener = bind(&unix(&path)).await.unwrap();
        fs::remove_file(&path).unwrap();
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
        drop(other);
    }

    #[tokio::test]
    async fn a_socket_is_whose_and_for_whom_it_is_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let mut sockets = Sockets {
            mode: 0o606,
            ..Sockets::default()
        };
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        sockets.owner = Some(Owner {
            shown: "other".to_owned(),
            uid: Some(uid.as_raw() + 33),
            gid: Some(gid.as_raw() + 44),
        });
        let listener = Listener::bind(&unix(&path), &sockets).await;
        if !uid.is_root() {
            let error = listener.unwrap_err().to_string();
            assert!(error.ends_with("a.sock to other"), "{error}");
            assert!(!path.exists(), "nothing is left of what failed");
            return;
        }
        let found = fs::metadata(&path).unwrap();
        assert_eq!(found.mode() & 0o777, 0o606);
        assert_eq!((found.uid(), found.gid()), (33, 44));
        drop(listener.unwrap());
    }

    #[tokio::test]
    async fn a_name_without_a_file_is_listened_at() {
        let name = format!("wasgi-test-{}", std::process::id());
        let address: Address = format!("unix:@{name}").parse().unwrap();
        let listener = bind(&address).await.unwrap();
        assert_eq!(listener.to_string(), format!("unix:@{name}"));
        let at =
            <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
        let client = BlockingUnixStream::connect_addr(&at.unwrap()).unwrap();
        assert!(matches!(listener.accept().await.unwrap(), Accepted::Unix(_)));
        drop(client);
        assert!(matches!(bind(&address).await, Err(BindError::Bind { .. })));
    }

    #[tokio::test]
    async fn a_port_is_shared_by_those_who_all_say_so() {
        let sockets = Sockets {
            reuse_port: true,
            ..Sockets::default()
        };
        let first = Listener::bind(&"127.0.0.1:0".parse().unwrap(), &sockets)
            .await
            .unwrap();
        let again: Address = format!("127.0.0.1:{}", first.port().unwrap()).parse().unwrap();
        assert!(bind(&again).await.is_err());
        assert!(Listener::bind(&again, &sockets).await.is_ok());
    }

    #[tokio::test]
    async fn the_backlog_is_as_long_as_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let sockets = Sockets {
            backlog: 3,
            ..Sockets::default()
        };
        let _listener = Listener::bind(&unix(&path), &sockets).await.unwrap();
        let at = SocketAddrUnix::new(&path).unwrap();
        let connect = || {
            let socket = rustix::net::socket_with(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::NONBLOCK,
                None,
            )
            .unwrap();
            rustix::net::connect(&socket, &at).map(|()| socket)
        };
        // Linux lets one more wait than is said.
        let waiting: Vec<_> = (0..4).map(|_| connect().unwrap()).collect();
        assert!(connect().is_err());
        drop(waiting);
    }
}
