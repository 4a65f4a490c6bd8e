//! Listening sockets from outside: of systemd, or of the server that this one takes the place of.
//!
//! A server that replaces itself starts the new one with a socket as standard input, and [`UPGRADE`] in the environment
//! to say so. It sends a message for each listener, the address as configured with the socket beside it (SCM_RIGHTS), and
//! an empty line after the last. The new one answers [`READY`] once it serves, and the old one leaves.

use std::collections::VecDeque;
use std::env;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use listenfd::ListenFd;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};
use wasgi_config::{Address, Passed, Sockets};

use crate::listener::{BindError, Handle, Listener};

/// Set in the environment of a server whose standard input is a socket to the server that it replaces.
pub(crate) const UPGRADE: &str = "WASGI_UPGRADE";

/// What a new server says when it serves.
pub(crate) const READY: &[u8] = b"ready\n";

/// After the last of the sockets.
pub(crate) const LAST: &[u8] = b"\n";

/// Longer than any address: a path of a unix socket, or a host name and a port.
const ADDRESS_MAX: usize = 1024;

/// Number of the first socket that systemd hands over.
const FIRST: u32 = 3;

/// The sockets that this process was started with and has not asked for yet.
#[derive(Debug, Default)]
pub struct Inherited {
    /// By the address that the old server had them by.
    before: VecDeque<(String, OwnedFd)>,
    passed: Vec<PassedSocket>,
    replaces: bool,
    /// Of listeners that were the old server's.
    taken: Vec<Handle>,
}

#[derive(Debug)]
struct PassedSocket {
    number: u32,
    name: String,
    socket: OwnedFd,
}

impl Inherited {
    /// Takes what there is over. To be called once, before there are threads: it takes variables out of the environment.
    ///
    /// # Errors
    /// When the old server is gone, or a socket is not one that listens.
    pub fn take() -> io::Result<Self> {
        let replaces = Self::is_expected();
        Ok(Self {
            before: if replaces { from_before()? } else { VecDeque::new() },
            passed: if replaces { Vec::new() } else { from_systemd()? },
            replaces,
            taken: Vec::new(),
        })
    }

    /// Whether this process was started by a server before it.
    pub fn is_expected() -> bool {
        env::var_os(UPGRADE).is_some()
    }

    /// Listens at an address: on the old server's socket if it had one there, on those of systemd, or on a new one.
    ///
    /// # Errors
    /// As [`BindError`] lists.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn listen(&mut self, address: &Address, sockets: &Sockets) -> Result<Vec<Listener>, BindError> {
        let text = address.to_string();
        let file = match address {
            Address::Unix(path) => Some(path.as_path()),
            _ => None,
        };
        let failed = |source| BindError::Bind {
            address: address.to_string(),
            source,
        };
        let mut listeners = Vec::new();
        // Port 0 may be given several times, and stands for one socket each time; a name stands for all of its.
        while let Some(at) = self.before.iter().position(|(of, _)| *of == text)
            && (listeners.is_empty() || matches!(address, Address::Passed(_)))
        {
            if let Some((_, socket)) = self.before.remove(at) {
                let listener = of_before(socket, address, file).map_err(failed)?;
                self.taken.push(listener.handle());
                listeners.push(listener);
            }
        }
        if !listeners.is_empty() {
            return Ok(listeners);
        }
        let Address::Passed(which) = address else {
            return Ok(vec![Listener::bind(address, sockets).await?]);
        };
        let meant = |socket: &mut PassedSocket| match which {
            Passed::All => true,
            Passed::Named(name) => socket.name == *name,
            Passed::Number(number) => socket.number == *number,
        };
        for passed in self.passed.extract_if(.., meant) {
            listeners.push(Listener::of_socket(passed.socket, address, None).map_err(failed)?);
        }
        match listeners.is_empty() {
            true => Err(BindError::NotPassed { address: text }),
            false => Ok(listeners),
        }
    }

    /// Tells the old server, if there is one, that this one serves now. Its sockets that were not asked for are closed.
    pub fn ready(self) {
        if self.replaces {
            for handle in &self.taken {
                handle.own(true);
            }
            // If it is gone, nobody waits.
            let _ = send(io::stdin().as_fd(), READY, SendFlags::NOSIGNAL);
        }
    }
}

/// The file of a unix socket that was removed meanwhile is not this server's to remove.
fn of_before(socket: OwnedFd, address: &Address, file: Option<&Path>) -> io::Result<Listener> {
    Listener::of_socket(socket, address, file.filter(|file| file.exists()))
}

fn from_before() -> io::Result<VecDeque<(String, OwnedFd)>> {
    let stdin = io::stdin();
    let mut sockets = VecDeque::new();
    loop {
        let mut text = [0; ADDRESS_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(
            stdin.as_fd(),
            &mut [IoSliceMut::new(&mut text)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let socket = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
            _ => None,
        });
        match (&text[..got.bytes], socket) {
            (LAST, _) => return Ok(sockets),
            (address, Some(socket)) => {
                sockets.push_back((String::from_utf8_lossy(address).into_owned(), socket));
            }
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the server that is to be replaced has not handed over its sockets",
                ));
            }
        }
    }
}

fn from_systemd() -> io::Result<Vec<PassedSocket>> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut found = ListenFd::from_env();
    let mut passed = Vec::new();
    for (index, number) in (0..found.len()).zip(FIRST..) {
        // Each kind of socket is left in its place by whoever asks for the other.
        let socket = match found.take_tcp_listener(index) {
            Ok(socket) => socket.map(OwnedFd::from),
            Err(_) => found.take_unix_listener(index)?.map(OwnedFd::from),
        };
        let name = names.next().unwrap_or_default().to_owned();
        passed.extend(socket.map(|socket| PassedSocket { number, name, socket }));
    }
    Ok(passed)
}
