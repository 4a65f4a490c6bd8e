//! The socket as hyper sees it: checked, timed, and with heads of our own making.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use wasgi_config::Limits;
use wasgi_protocol::http::{Body, Guard, Head, Limits as GuardLimits, Phase, Step};

use super::turns::{Refused, Turns};
use crate::timer::Timer;

/// Size of the read buffer at first, and once much is read.
const BUFFER: (usize, usize) = (8 << 10, 64 << 10);

/// How long unread input is thrown away before a socket is closed. Closed at once, the system would answer it with a
/// reset, and the peer could lose the reply it has not read yet (RFC 9112 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// A connection between its socket and hyper.
///
/// A peer that has sent its last byte while a reply is due is taken to be gone, as nginx has it: a closed connection
/// and one that is shut down for sending only look alike until something is written.
pub(super) struct Wire<S> {
    stream: S,
    guard: Guard,
    turns: Arc<Turns>,
    times: Times,
    head_max: usize,

    /// What has been read: `start..end` of it has not been used.
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// That many bytes from `start` on are part of a body.
    body: usize,
    /// Framing of our own making for hyper, from `staged_at` on.
    staged: Vec<u8>,
    staged_at: usize,
    /// The peer has sent its last byte.
    eof: bool,
    /// Nothing more is taken from the peer.
    stopped: bool,

    waiting: Waiting,
    read_timer: Timer,
    writing_since: Option<Instant>,
    write_timer: Timer,
    closing: Closing,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    head: Duration,
    idle: Duration,
    write: Duration,
}

/// What the peer is waited for, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Nothing,
    /// A connection's first request.
    First(Instant),
    /// A further request.
    Idle(Instant),
    /// The rest of a head.
    Head(Instant),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    Shutdown,
    Linger(Instant),
    Done,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S, turns: Arc<Turns>, limits: &Limits) -> Self {
        let times = Times {
            head: limits.head_time,
            idle: limits.idle_time,
            write: limits.write_time,
        };
        Self {
            stream,
            guard: Guard::new(GuardLimits {
                head: limits.request_head,
            }),
            turns,
            times,
            head_max: limits.request_head,
            input: vec![0; BUFFER.0],
            start: 0,
            end: 0,
            body: 0,
            staged: Vec::new(),
            staged_at: 0,
            eof: false,
            stopped: false,
            waiting: Waiting::First(Instant::now() + times.head),
            read_timer: Timer::default(),
            writing_since: None,
            write_timer: Timer::default(),
            closing: Closing::No,
        }
    }

    /// Hands hyper what has been checked; false when there is nothing.
    fn hand_over(&mut self, to: &mut ReadBufCursor<'_>) -> bool {
        if self.staged_at < self.staged.len() {
            let staged = &self.staged[self.staged_at..];
            let some = staged.len().min(to.remaining());
            to.put_slice(&staged[..some]);
            self.staged_at += some;
        } else if self.body > 0 {
            let some = self.body.min(to.remaining());
            to.put_slice(&self.input[self.start..self.start + some]);
            self.start += some;
            self.body -= some;
        } else {
            return false;
        }
        true
    }

    /// Makes `text` the next bytes for hyper.
    fn stage(&mut self, text: std::fmt::Arguments<'_>) {
        self.staged.clear();
        self.staged_at = 0;
        // Writing to a `Vec` does not fail.
        let _ = self.staged.write_fmt(text);
    }

    /// A head for hyper that says what `head` says about framing, and nothing else.
    fn stage_head(&mut self, head: &Head) {
        // hyper has to know HEAD from the others, no more.
        let method = if head.method() == b"HEAD" { "HEAD" } else { "GET" };
        let minor = head.minor_version();
        let connection = match (head.keep_alive(), minor) {
            (true, 0) => "connection: keep-alive\r\n",
            (false, 1) => "connection: close\r\n",
            _ => "",
        };
        let expect = if head.expects_continue() {
            "expect: 100-continue\r\n"
        } else {
            ""
        };
        match head.body() {
            Body::Absent | Body::Length(0) => {
                self.stage(format_args!("{method} / HTTP/1.{minor}\r\n{connection}\r\n"))
            }
            Body::Length(length) => self.stage(format_args!(
                "{method} / HTTP/1.{minor}\r\n{connection}{expect}content-length: {length}\r\n\r\n"
            )),
            Body::Chunked => self.stage(format_args!(
                "{method} / HTTP/1.{minor}\r\n{connection}{expect}transfer-encoding: chunked\r\n\r\n"
            )),
        }
    }

    /// Has the service answer in place of a request that is refused. Nothing after it is taken.
    fn refuse(&mut self, refused: Refused) {
        self.turns.begin(Err(refused));
        self.stage(format_args!("GET / HTTP/1.1\r\nconnection: close\r\n\r\n"));
        self.stopped = true;
    }

    /// Reads more from the socket; `Ready` when something has come, or the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.input.len() && self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.input.len() {
            // A head has at most `head_max` bytes, and the guard refuses it then.
            let length = (self.input.len() * 2).min(self.head_max.max(BUFFER.1) + 1);
            self.input.resize(length, 0);
        }
        let mut free = ReadBuf::new(&mut self.input[self.end..]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut free))?;
        let read = free.filled().len();
        self.end += read;
        self.eof = read == 0;
        if self.end == self.input.len() && self.guard.phase() == Phase::Body && self.input.len() < BUFFER.1 {
            self.input.resize(BUFFER.1, 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads while a reply is under way, to see the peer leave. What comes is kept until the turn has ended, and no
    /// more of it than fits the buffer.
    fn poll_while_busy(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waiting = Waiting::Nothing;
        loop {
            if self.eof {
                return Poll::Ready(Ok(()));
            }
            if self.start != self.end && !self.turns.wait(cx.waker()) {
                // The turn has ended meanwhile: hyper reads again.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.end - self.start == self.input.len() {
                return Poll::Pending;
            }
            ready!(self.poll_fill(cx))?;
        }
    }

    /// Notes what the peer is waited for; `Ready` when it has been for too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let times = self.times;
        let until = |time: Duration| Instant::now() + time;
        self.waiting = match (self.guard.phase(), self.waiting) {
            (Phase::Idle, same @ (Waiting::First(_) | Waiting::Idle(_))) => same,
            (Phase::Idle, _) => Waiting::Idle(until(times.idle)),
            // The clock for a connection's first head runs from the connection on.
            (Phase::Head, Waiting::First(end)) => Waiting::Head(end),
            (Phase::Head, same @ Waiting::Head(_)) => same,
            (Phase::Head, _) => Waiting::Head(until(times.head)),
            // Whoever reads a body has a clock for it: it need not come before it is wanted.
            (Phase::Body | Phase::Refused, _) => Waiting::Nothing,
        };
        match self.waiting {
            Waiting::Nothing => Poll::Pending,
            Waiting::First(end) | Waiting::Idle(end) | Waiting::Head(end) => self.read_timer.poll(end, cx),
        }
    }

    fn poll_read_checked(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let room = to.remaining();
        loop {
            while to.remaining() > 0 && self.hand_over(to) {}
            if to.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if self.stopped {
                // Not the end: hyper would take it for the peer's leaving and not send the reply.
                return if to.remaining() < room {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                };
            }
            let phase = self.guard.phase();
            let at_head = matches!(phase, Phase::Idle | Phase::Head);
            if at_head && self.turns.is_busy() {
                // One request at a time: what hyper had of the next ones would be unbounded.
                return if to.remaining() < room {
                    Poll::Ready(Ok(()))
                } else {
                    self.poll_while_busy(cx)
                };
            }
            match self.guard.step(&self.input[self.start..self.end]) {
                Step::More => {
                    if to.remaining() < room || self.eof {
                        return Poll::Ready(Ok(()));
                    }
                    match self.poll_fill(cx) {
                        Poll::Ready(read) => read?,
                        Poll::Pending => {
                            ready!(self.poll_late(cx));
                            if let Waiting::Head(_) = self.waiting {
                                self.refuse(Refused::TimedOut);
                            } else {
                                self.eof = true;
                                return Poll::Ready(Ok(()));
                            }
                        }
                    }
                }
                Step::Head { used, head } => {
                    self.start += used;
                    self.waiting = Waiting::Nothing;
                    self.stage_head(&head);
                    self.turns.begin(Ok(head));
                }
                Step::Data { used } => self.body = used,
                Step::Chunk { used, size } => {
                    self.start += used;
                    self.stage(format_args!("{size:x}\r\n"));
                }
                Step::ChunkEnd { used } => {
                    self.start += used;
                    self.stage(format_args!("\r\n"));
                }
                Step::End { used } => {
                    self.start += used;
                    self.stage(format_args!("0\r\n\r\n"));
                }
                Step::Skip { used } => self.start += used,
                Step::Refused(refusal) if at_head => self.refuse(Refused::Invalid(refusal)),
                // First what was good. The guard will say it again.
                Step::Refused(_) if to.remaining() < room => return Poll::Ready(Ok(())),
                Step::Refused(refusal) => {
                    self.turns.set_broken(refusal);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal)));
                }
            }
        }
    }

    /// Takes note of a write's outcome; an error when the peer has taken nothing for `write-time`.
    fn written<T>(&mut self, outcome: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.writing_since = None;
            return outcome;
        }
        let since = *self.writing_since.get_or_insert_with(Instant::now);
        ready!(self.write_timer.poll(since + self.times.write, cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Read for Wire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().poll_read_checked(cx, &mut to)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Write for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.written(outcome, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, pieces);
        this.written(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_flush(cx);
        ready!(this.written(outcome, cx))?;
        // hyper does not read again after a reply until the socket tells it to, so the wait for the next request
        // starts here. When it is over, hyper reads, and is told.
        if this.guard.phase() == Phase::Idle
            && this.start == this.end
            && !this.stopped
            && !this.turns.is_busy()
        {
            let _ = this.poll_late(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.closing {
                Closing::No => {
                    // Never more than the peer can be waited for.
                    this.closing = Closing::Shutdown;
                    this.writing_since = None;
                }
                Closing::Shutdown => {
                    let outcome = Pin::new(&mut this.stream).poll_shutdown(cx);
                    ready!(this.written(outcome, cx))?;
                    let unread = this.start != this.end || this.guard.phase() != Phase::Idle;
                    this.closing = if unread && !this.eof {
                        Closing::Linger(Instant::now() + LINGER)
                    } else {
                        Closing::Done
                    };
                }
                Closing::Linger(end) => {
                    (this.start, this.end) = (0, 0);
                    match this.poll_fill(cx) {
                        Poll::Ready(Ok(())) if !this.eof && Instant::now() < end => {}
                        Poll::Ready(_) => this.closing = Closing::Done,
                        Poll::Pending => {
                            ready!(this.read_timer.poll(end, cx));
                            this.closing = Closing::Done;
                        }
                    }
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}
