//! Hands the listening sockets to a new process of this program, and tells when it serves.
//!
//! How they get there is told in `inherited.rs`.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, send,
    sendmsg, socketpair,
};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::inherited::{LAST, READY, UPGRADE};
use crate::listener::{Handle, Listener};

/// The listeners of this process, for one that is to take its place.
#[derive(Debug)]
pub struct Upgrade {
    /// With their addresses as configured.
    listeners: Vec<(String, Handle)>,
}

/// Why the new process does not take over; this one goes on.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The program cannot be started.
    #[error("the new process cannot be started")]
    Start(#[source] io::Error),
    /// The sockets did not get there.
    #[error("the sockets cannot be handed over")]
    HandOver(#[source] io::Error),
    /// It ended; its own lines in the log say why.
    #[error("the new process ended before it served ({0})")]
    Ended(String),
    /// It takes too long.
    #[error("the new process does not serve after {0:?} and was ended")]
    Late(Duration),
}

impl Upgrade {
    /// To be made before the listeners are given away.
    pub fn of<'l>(listeners: impl IntoIterator<Item = &'l Listener>) -> Self {
        let named = |listener: &Listener| (listener.address().to_owned(), listener.handle());
        Self {
            listeners: listeners.into_iter().map(named).collect(),
        }
    }

    /// Starts `command` and gives it the sockets; returns its process id once it serves. From then on the files of unix
    /// sockets are its.
    ///
    /// When this future is dropped before, the new process is ended.
    ///
    /// # Errors
    /// As [`UpgradeError`] lists; the new process is gone by then.
    pub async fn start(&self, mut command: Command, patience: Duration) -> Result<u32, UpgradeError> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| UpgradeError::Start(error.into()))?;
        let child = command
            .env(UPGRADE, "1")
            .stdin(Stdio::from(theirs))
            .spawn()
            .map_err(UpgradeError::Start)?;
        // It holds the other side, whose end tells of the new process's.
        drop(command);
        let mut next = Next(Some(child));
        self.hand_over(&ours).map_err(UpgradeError::HandOver)?;
        match timeout(patience, is_ready(ours)).await {
            Ok(Ok(true)) => {
                for (_, handle) in &self.listeners {
                    handle.own(false);
                }
                Ok(next.leave())
            }
            Ok(Ok(false)) => Err(UpgradeError::Ended(next.end())),
            Ok(Err(error)) => Err(UpgradeError::HandOver(error)),
            Err(_) => Err(UpgradeError::Late(patience)),
        }
    }

    fn hand_over(&self, to: &OwnedFd) -> io::Result<()> {
        for (address, handle) in &self.listeners {
            let Some(socket) = handle.socket().transpose()? else {
                continue;
            };
            let sockets = [socket.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&sockets));
            let text = [IoSlice::new(address.as_bytes())];
            sendmsg(to, &text, &mut control, SendFlags::NOSIGNAL)?;
        }
        send(to, LAST, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// Whether the new process says that it serves; false if it ends instead.
async fn is_ready(from: OwnedFd) -> io::Result<bool> {
    let from = BlockingUnixStream::from(from);
    from.set_nonblocking(true)?;
    let from = UnixStream::from_std(from)?;
    let mut said = [0; READY.len()];
    loop {
        from.readable().await?;
        match from.try_read(&mut said) {
            Ok(length) => return Ok(said[..length] == *READY),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// The new process; ended when dropped.
struct Next(Option<Child>);

impl Next {
    fn leave(&mut self) -> u32 {
        self.0.take().map_or(0, |child| child.id())
    }

    /// How it ended, or is ended now.
    fn end(&mut self) -> String {
        let Some(mut child) = self.0.take() else {
            return String::new();
        };
        // It has closed its side as its last act but one; killing it makes sure that the wait is short.
        let _ = child.kill();
        child
            .wait()
            .map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        self.end();
    }
}
