//! Connections of web servers in front that hand on variables instead of HTTP.
//!
//! ```text
//! socket -> plain.rs: head ----------------------> answer.rs
//!              | body: feed.rs, as the app reads ----^  |
//! socket <- reply.rs: head, body until the close <------+
//! ```

mod feed;
mod plain;
mod reply;

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::peer::Peer;
use crate::run::{Ending, Server};
use crate::runner::Runner;

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Uwsgi,
    Scgi,
}

impl Wire {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Wire::Uwsgi => "uwsgi",
            Wire::Scgi => "scgi",
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
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Runner,
{
    match wire {
        Wire::Uwsgi | Wire::Scgi => plain::serve(stream, wire, peer, server, stop).await,
    }
}
