//! Connections of web servers in front that hand on variables instead of HTTP.
//!
//! ```text
//! socket -> plain.rs, records.rs, cgi.rs: head ----------> answer.rs
//!              | body: feed.rs, as the app reads ----^  |
//! socket <- reply.rs: head, body <----------------------+
//! ```

mod cgi;
mod plain;
mod records;
mod reply;

use std::sync::Arc;
use std::time::Duration;

pub use cgi::answer_cgi;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use wasgi_protocol::gateway::Refusal;

use crate::answer::Refused;
use crate::peer::Peer;
use crate::run::{Ending, Server};
use crate::runner::Runner;

/// What is read at a time before a head is there.
const HEAD_PIECE: usize = 8 << 10;

/// How long what a peer still sends is thrown away before its socket is closed. Closed at once, the system would answer
/// it with a reset, and the peer could lose the reply it has not read yet.
const LINGER: Duration = Duration::from_secs(2);

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Plain(Plain),
    FastCgi,
}

/// Wires with one request to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plain {
    Uwsgi,
    Scgi,
}

impl Wire {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Wire::Plain(plain) => plain.name(),
            Wire::FastCgi => "fastcgi",
        }
    }
}

impl Plain {
    fn name(self) -> &'static str {
        match self {
            Plain::Uwsgi => "uwsgi",
            Plain::Scgi => "scgi",
        }
    }
}

/// Serves one connection until it ends. When `stop` has an ending the request that runs is finished, and none is taken
/// after what the ending has patience for.
pub(crate) async fn serve<S, R>(
    stream: S,
    wire: Wire,
    peer: Peer,
    server: Arc<Server<R>>,
    stop: watch::Receiver<Option<Ending>>,
) where
    S: AsyncRead + AsyncWrite + Reset + Unpin + Send + 'static,
    R: Runner,
{
    match wire {
        Wire::Plain(plain) => plain::serve(stream, plain, peer, server, stop).await,
        Wire::FastCgi => records::serve(stream, peer, server, stop).await,
    }
}

/// A connection that can end so that its peer does not take the end for a reply's.
pub(crate) trait Reset {
    /// Has the system reset the connection when it is closed, if it can.
    fn reset(&self);
}

impl Reset for TcpStream {
    fn reset(&self) {
        // Without it the connection ends all the same.
        let _ = self.set_zero_linger();
    }
}

impl Reset for UnixStream {
    /// There is no reset: Linux knows one only for bytes of the peer's that nobody has read.
    fn reset(&self) {}
}

/// Lets the peer read what has been sent to it.
async fn linger(reading: &mut (impl AsyncRead + Unpin)) {
    let mut unread = vec![0; HEAD_PIECE];
    let drained = async { while matches!(reading.read(&mut unread).await, Ok(1..)) {} };
    let _ = timeout(LINGER, drained).await;
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::invalid(refusal.status(), refusal)
    }
}
