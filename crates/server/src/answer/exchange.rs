//! One request between the connection that brought it and the worker that handles it.
//!
//! The connection's task and the worker's meet here: the worker puts down the reply a piece at a time and takes up
//! the body; the connection does the reverse. Either may leave early.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use wasgi_config::Limits;
use wasgi_engine::{BodyError, Failure, FilePart, PeerGone, ReplyHead, ReplySink, RequestBody};

use crate::content::{Content, Part};
use crate::timer::Timer;

/// The worker waits once this much of a reply waits for the peer.
const ROOM_BYTES: usize = 64 << 10;

/// ... or this many pieces, which cost more than their bytes.
const ROOM_PIECES: usize = 32;

/// What an app may send beyond what the peer is to get (the body of a reply to HEAD) before it is told that nobody takes
/// it: enough for one that does its work as it goes, bounded for one that never ends.
const DROPPED_BYTES: usize = 16 << 20;

/// Where a connection's task has the body of a request.
pub(crate) trait Source: fmt::Debug + Send + 'static {
    /// The next piece, or `None` at the end.
    ///
    /// # Errors
    /// When there is no more to come, and this is not the end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PeerGone>>>;
}

/// One request on its way.
#[derive(Debug)]
pub(crate) struct Exchange {
    reply: Mutex<Reply>,
    body: Mutex<Body>,
    /// Longest body of the reply, `reply-size`.
    longest: u64,
}

#[derive(Debug, Default)]
struct Body {
    /// Until the reply is out or the peer gone.
    source: Option<Box<dyn Source>>,
    /// The worker, when it waits for more.
    worker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Reply {
    head: Option<ReplyHead>,
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes that were put down so far.
    length: u64,
    /// What comes after the pieces, and is the last. It costs no memory.
    file: Option<FilePart>,
    /// The piece that is there is the whole body.
    whole: bool,
    end: Option<Result<(), Failure>>,
    /// What the connection thinks of further pieces.
    peer: PeerState,
    /// Bytes that came when the peer had been served.
    dropped: usize,
    connection: Option<Waker>,
    worker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum PeerState {
    #[default]
    Takes,
    /// It has all it is to get; the rest is dropped.
    Served,
    Gone,
}

/// How a reply starts.
#[derive(Debug)]
pub(crate) enum Start {
    /// With this head; `Some` body if that is all of it.
    Reply(ReplyHead, Option<Piece>),
    /// Not at all.
    Failed(Failure),
}

/// A piece of a reply's body.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    /// Bytes of a file that the app has the server send: the last piece.
    File(Content),
}

impl Piece {
    pub(super) fn len(&self) -> u64 {
        match self {
            Piece::Data(data) => data.len() as u64,
            Piece::File(content) => content.left(),
        }
    }

    fn of_file(part: FilePart) -> Self {
        Piece::File(Content::new([Part::Span {
            file: part.file,
            at: part.offset,
            end: part.offset.saturating_add(part.length),
        }]))
    }
}

impl Exchange {
    pub(crate) fn new(source: Option<Box<dyn Source>>, longest: u64) -> Arc<Self> {
        Arc::new(Self {
            longest,
            reply: Mutex::default(),
            body: Mutex::new(Body { source, worker: None }),
        })
    }

    fn reply(&self) -> MutexGuard<'_, Reply> {
        self.reply.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn body(&self) -> MutexGuard<'_, Body> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reply's start; ready once it is clear whether the whole reply is there.
    pub(crate) fn poll_start(&self, cx: &mut Context<'_>) -> Poll<Start> {
        let mut reply = self.reply();
        match &reply.end {
            Some(Err(failure)) if reply.is_empty() => {
                return Poll::Ready(Start::Failed(failure.clone()));
            }
            None if reply.is_empty() => {
                reply.wait(cx);
                return Poll::Pending;
            }
            Some(_) | None => {}
        }
        let Some(head) = reply.head.take() else {
            // The engine's mistake, not the app's: a reply without a head.
            return Poll::Ready(Start::Failed(Failure::BadReply("it has no head".to_owned())));
        };
        let all = if reply.pieces.is_empty() {
            let file = reply.file.take().map(Piece::of_file);
            Some(file.unwrap_or(Piece::Data(Bytes::new())))
        } else if reply.whole && reply.pieces.len() == 1 {
            reply.bytes = 0;
            reply.pieces.pop_front().map(Piece::Data)
        } else {
            None
        };
        Poll::Ready(Start::Reply(head, all))
    }

    /// The next piece of the reply's body; `None` at its end, an error if it has none.
    pub(super) fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Failure>>> {
        let mut reply = self.reply();
        if let Some(piece) = reply.pieces.pop_front() {
            reply.bytes -= piece.len();
            let worker = reply.worker.take();
            drop(reply);
            wake(worker);
            return Poll::Ready(Some(Ok(Piece::Data(piece))));
        }
        if let Some(part) = reply.file.take() {
            return Poll::Ready(Some(Ok(Piece::of_file(part))));
        }
        match &reply.end {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(failure)) => Poll::Ready(Some(Err(failure.clone()))),
            None => {
                reply.wait(cx);
                Poll::Pending
            }
        }
    }

    /// The connection is done with this request: the peer has the reply, or is gone. Gives up the body.
    pub(super) fn leave(&self, served: bool) {
        let worker = {
            let mut reply = self.reply();
            reply.peer = if served {
                PeerState::Served
            } else {
                PeerState::Gone
            };
            reply.pieces.clear();
            reply.file = None;
            reply.bytes = 0;
            reply.worker.take()
        };
        wake(worker);
        let body = std::mem::take(&mut *self.body());
        wake(body.worker);
    }
}

impl Reply {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.file.is_none()
    }

    fn wait(&mut self, cx: &mut Context<'_>) {
        match &mut self.connection {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.connection = Some(cx.waker().clone()),
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The worker's end of the reply.
#[derive(Debug)]
pub(crate) struct Sink(pub(crate) Arc<Exchange>);

impl Sink {
    /// Fails a reply that is longer than one may be.
    fn too_long(&self) {
        let longest = self.0.longest;
        let what = format!("it is longer than limits.reply-size ({longest} bytes)");
        self.end(Err(Failure::BadReply(what)));
    }

    fn end(&self, end: Result<(), Failure>) {
        let connection = {
            let mut reply = self.0.reply();
            if reply.end.is_some() {
                return;
            }
            reply.end = Some(end);
            reply.connection.take()
        };
        wake(connection);
    }
}

impl ReplySink for Sink {
    fn head(&mut self, head: ReplyHead) {
        // Told with the first piece: PEP 3333 has the head wait for it, and one wake-up serves both.
        self.0.reply().head = Some(head);
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PeerGone>> {
        let mut reply = self.0.reply();
        if let Some(Err(_)) = reply.end {
            return Poll::Ready(Err(PeerGone));
        }
        match reply.peer {
            PeerState::Gone => Poll::Ready(Err(PeerGone)),
            PeerState::Served if reply.dropped > DROPPED_BYTES => Poll::Ready(Err(PeerGone)),
            PeerState::Served => Poll::Ready(Ok(())),
            PeerState::Takes if reply.bytes < ROOM_BYTES && reply.pieces.len() < ROOM_PIECES => {
                Poll::Ready(Ok(()))
            }
            PeerState::Takes => {
                reply.worker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn chunk(&mut self, data: Bytes, last: bool) {
        let connection = {
            let mut reply = self.0.reply();
            if reply.peer != PeerState::Takes {
                reply.dropped += data.len();
                return;
            }
            reply.length += data.len() as u64;
            if reply.length > self.0.longest {
                drop(reply);
                return self.too_long();
            }
            reply.whole = last && reply.pieces.is_empty();
            reply.bytes += data.len();
            reply.pieces.push_back(data);
            reply.connection.take()
        };
        wake(connection);
    }

    fn file(&mut self, part: FilePart) {
        let connection = {
            let mut reply = self.0.reply();
            if reply.peer != PeerState::Takes {
                return;
            }
            reply.length = reply.length.saturating_add(part.length);
            if reply.length > self.0.longest {
                drop(reply);
                return self.too_long();
            }
            reply.whole = false;
            reply.file = Some(part);
            reply.connection.take()
        };
        wake(connection);
    }

    fn finish(&mut self) {
        self.end(Ok(()));
    }

    fn fail(&mut self, failure: Failure) {
        self.end(Err(failure));
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Only if the worker's task was ended or panicked.
        self.end(Err(Failure::Crashed("the worker was stopped".to_owned())));
    }
}

/// The worker's end of the body.
#[derive(Debug)]
pub(crate) struct Input {
    exchange: Arc<Exchange>,
    /// Bytes until the `request-body` limit.
    left: u64,
    /// Longest wait for a piece, `body-time`.
    patience: Duration,
    waiting_since: Option<Instant>,
    timer: Timer,
    /// What has been told and is told again.
    ended: Option<Result<(), BodyError>>,
}

impl Input {
    pub(super) fn new(exchange: Arc<Exchange>, limits: &Limits) -> Self {
        Self {
            exchange,
            left: limits.request_body,
            patience: limits.body_time,
            waiting_since: None,
            timer: Timer::default(),
            ended: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut body = self.exchange.body();
        let Some(source) = &mut body.source else {
            return Poll::Ready(Some(Err(BodyError::PeerGone)));
        };
        loop {
            let data = match source.poll_data(cx) {
                Poll::Pending => {
                    // `leave` takes the body away, and with it the source's means to wake this task.
                    body.worker = Some(cx.waker().clone());
                    let since = *self.waiting_since.get_or_insert_with(Instant::now);
                    ready!(self.timer.poll(since + self.patience, cx));
                    return Poll::Ready(Some(Err(BodyError::TimedOut)));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(PeerGone))) => return Poll::Ready(Some(Err(BodyError::PeerGone))),
                Poll::Ready(Some(Ok(data))) => data,
            };
            self.waiting_since = None;
            if data.is_empty() {
                continue;
            }
            let Some(left) = self.left.checked_sub(data.len() as u64) else {
                return Poll::Ready(Some(Err(BodyError::TooLarge)));
            };
            self.left = left;
            return Poll::Ready(Some(Ok(data)));
        }
    }
}

impl RequestBody for Input {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.ended.is_none() {
            match self.poll(cx) {
                Poll::Ready(None) => self.ended = Some(Ok(())),
                Poll::Ready(Some(Err(error))) => self.ended = Some(Err(error)),
                other => return other,
            }
        }
        Poll::Ready(match self.ended {
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(())) | None => None,
        })
    }
}

/// A request that has no body.
#[derive(Debug)]
pub(crate) struct NoInput;

impl RequestBody for NoInput {
    fn poll_chunk(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        Poll::Ready(None)
    }
}
