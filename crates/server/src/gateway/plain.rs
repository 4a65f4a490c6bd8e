//! uwsgi and SCGI: a head, a body by its length, a reply until the close.

use std::future::poll_fn;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf, split};
use tokio::sync::watch;
use tokio::time::timeout;
use wasgi_engine::PeerGone;
use wasgi_protocol::gateway::Refusal;
use wasgi_protocol::http::Body as BodyLength;
use wasgi_protocol::{Head, scgi, uwsgi};

use super::reply::{Framing, Output, StatusLine};
use super::{HEAD_PIECE, Plain, Reset, linger};
use crate::answer::{Connection, Cut, Refused, answer};
use crate::feed::{Body, Feed};
use crate::peer::Peer;
use crate::run::{Ending, Server};
use crate::runner::Runner;

/// Serves the one request of a connection.
pub(super) async fn serve<S, R>(
    stream: S,
    wire: Plain,
    peer: Peer,
    server: Arc<Server<R>>,
    stop: watch::Receiver<Option<Ending>>,
) where
    S: AsyncRead + AsyncWrite + Reset + Unpin + Send + 'static,
    R: Runner,
{
    let (mut reading, writing) = split(stream);
    let mut input = Vec::new();
    let read = tokio::select! {
        biased;
        read = read_head(&mut reading, wire, &server, &mut input) => read,
        // It has no request yet.
        () = Ending::left(stop) => return,
    };
    let line = match (wire, &read) {
        // Who speaks HTTP is answered so.
        (_, Err(NoHead::Refused(Refusal::Http(_)))) | (Plain::Uwsgi, _) => StatusLine::Http,
        (Plain::Scgi, _) => StatusLine::Cgi,
    };
    let verdict = match read {
        // A connection without a request: there is nothing to answer.
        Err(NoHead::Gone) => return,
        Ok(head) => Ok(head),
        Err(NoHead::Late) => Err(Refused::late()),
        Err(NoHead::Refused(refusal)) => Err(refusal.into()),
    };
    if let Err(Refused { what, .. }) = &verdict {
        let log = &server.log;
        log.warn(format_args!("{} from {peer}: {what}", wire.name()));
    }
    let is_head = verdict.as_ref().is_ok_and(|head: &Head| head.method() == b"HEAD");
    let length = match verdict.as_ref().map(Head::body) {
        Ok(BodyLength::Length(length)) => length,
        _ => 0,
    };
    let connection = Arc::new(Connection {
        peer,
        log: server.log.clone(),
        turns: None,
    });
    let feed = Arc::new(Feed::default());
    let mut body = Incoming {
        feed: Arc::clone(&feed),
        left: length,
        // Of who is refused there may be more than has been looked at.
        is_more: verdict.is_err(),
    };
    let output = Output::new(writing, server.limits.write_time);
    let served = async {
        let response = answer(&server, connection, verdict, Body(feed)).await?;
        output.send(response, is_head, line, Framing::Close).await
    };
    let outcome = tokio::select! {
        // The request is known before its peer may be gone: it has its line in the log.
        biased;
        outcome = served => outcome,
        // Dropping what answers tells the app.
        PeerGone = body.read(&mut reading, &input) => return,
    };
    match outcome {
        // Where nothing is left unread the end needs no ceremony, and the peer is not waited for.
        Ok(()) if !body.is_unread() => {}
        Ok(()) => {
            if output.end().await.is_ok() {
                linger(&mut reading).await;
            }
        }
        // A reply without a length would seem to be whole.
        Err(Cut) => reading.unsplit(output.into_inner()).reset(),
    }
}

/// Why there is no head.
enum NoHead {
    /// The peer has gone, or said nothing for as long as it is waited for.
    Gone,
    Late,
    Refused(Refusal),
}

/// Reads a request's head; what has come after it stays in `input`.
async fn read_head<S, R>(
    reading: &mut ReadHalf<S>,
    wire: Plain,
    server: &Server<R>,
    input: &mut Vec<u8>,
) -> Result<Head, NoHead>
where
    S: AsyncRead + AsyncWrite + Unpin,
    R: Runner,
{
    let longest = server.limits.request_head;
    let read = async {
        loop {
            let found = match wire {
                Plain::Uwsgi => uwsgi::head(input, longest),
                Plain::Scgi => scgi::head(input, longest),
            };
            if let Some((head, used)) = found.map_err(NoHead::Refused)? {
                input.drain(..used);
                return Ok(Head::from(head));
            }
            input.reserve(HEAD_PIECE);
            match reading.read_buf(input).await {
                Ok(0) | Err(_) => return Err(NoHead::Gone),
                Ok(_) => {}
            }
        }
    };
    match timeout(server.limits.head_time, read).await {
        Ok(read) => read,
        Err(_) if input.is_empty() => Err(NoHead::Gone),
        Err(_) => Err(NoHead::Late),
    }
}

/// The rest of a request, as it comes.
struct Incoming {
    feed: Arc<Feed>,
    /// Bytes of the body to come.
    left: u64,
    /// What has come after the body, or may have.
    is_more: bool,
}

impl Incoming {
    /// Reads the body as the app takes it, and then waits for the peer to go. A peer that has sent its last byte while a
    /// reply is due is taken to be gone, as nginx has it: one that has closed looks the same.
    async fn read<S>(&mut self, reading: &mut ReadHalf<S>, early: &[u8]) -> PeerGone
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let first = early.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        // What came with the head is less than a piece.
        self.put(&early[..first]);
        self.is_more |= first < early.len();
        let mut buffer = Vec::new();
        loop {
            let room = match self.left {
                // What comes after the body means nothing.
                0 => 1,
                left => {
                    let room = poll_fn(|cx| self.feed.poll_room(cx)).await;
                    room.min(usize::try_from(left).unwrap_or(usize::MAX))
                }
            };
            buffer.resize(room, 0);
            match reading.read(&mut buffer).await {
                Ok(0) | Err(_) => {
                    self.feed.end(Err(PeerGone));
                    return PeerGone;
                }
                Ok(_) if self.left == 0 => {
                    self.is_more = true;
                    std::future::pending().await
                }
                Ok(length) => self.put(&buffer[..length]),
            }
        }
    }

    /// Whether the socket may hold something that was not read: closed then, it would be reset.
    fn is_unread(&self) -> bool {
        self.left > 0 || self.is_more
    }

    fn put(&mut self, data: &[u8]) {
        self.left -= data.len() as u64;
        if !data.is_empty() {
            self.feed.put(data);
        }
        if self.left == 0 {
            self.feed.end(Ok(()));
        }
    }
}
