//! The host's side of one instance: what its store holds.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::{AsContext, Memory, ResourceLimiter};
use wasmtime_wasi::p1::WasiP1Ctx;

use crate::clock::Clock;
use crate::cpu::Turns;
use crate::exchange::{BodyError, Failure, FilePart, PeerGone, ReplyHead, ReplySink, Request, RequestBody};
use crate::files::Files;
use crate::lines::InstanceLog;
use crate::locks;
use crate::python_stack::{Frame, PythonLayout};
use crate::reply;
use crate::ticks::Ticks;
use crate::time_limit::{InterruptWords, TimeLimit};
use crate::track::{At, Track};

/// Most table elements an instance may have; CPython's own table has some thousands and does not grow.
const MAX_TABLE: usize = 100_000;

/// What a store holds beside the instance.
pub(crate) struct Guest {
    pub(crate) wasi: WasiP1Ctx,
    /// Absent until the instance exists.
    pub(crate) memory: Option<Memory>,
    pub(crate) memory_limit: MemoryLimit,
    pub(crate) limit: TimeLimit,
    pub(crate) turns: Arc<Turns>,
    pub(crate) ticks: Arc<Ticks>,
    pub(crate) clock: Clock,
    /// Absent until Python has started.
    pub(crate) interrupt_words: Option<InterruptWords>,
    /// What the guest has named as `entropy` while it was sealed.
    pub(crate) entropy: Vec<(u32, u32)>,
    /// The block of the running call.
    pub(crate) block: Vec<u8>,
    /// The environ block of the running request, once the guest has read it.
    pub(crate) environ: Vec<u8>,
    /// Whether the log knows that the request is slow.
    pub(crate) told_slow: bool,
    /// Of the running request.
    pub(crate) track: Option<Arc<Track>>,
    /// Where Python's stack is; `None` if the guest is of another version.
    pub(crate) python: Option<Arc<PythonLayout>>,
    /// The running request.
    pub(crate) exchange: Option<Exchange>,
    pub(crate) locks: locks::Owner,
    pub(crate) log: InstanceLog,
    /// `/tmp` of the guest; removed with it.
    pub(crate) temp: tempfile::TempDir,
    /// After `wasi` and `temp`: room is given back when the files that took it are closed and removed.
    pub(crate) files: Files,
}

/// Refuses memory past the app's limit; Python then raises MemoryError.
pub(crate) struct MemoryLimit {
    pub(crate) bytes: u64,
    /// Whether growth was refused. Linear memory never shrinks, so the instance stays at its limit.
    pub(crate) refused: bool,
    /// Where Python was when that happened first.
    pub(crate) stack: Option<Vec<Frame>>,
    /// Absent until the instance can be looked into.
    pub(crate) view: Option<View>,
}

/// An instance's memory for who has no store to reach it by, and what finds Python's stack there.
pub(crate) struct View {
    base: usize,
    python: Arc<PythonLayout>,
}

impl View {
    pub(crate) fn new(memory: Memory, store: impl AsContext, python: Arc<PythonLayout>) -> Self {
        Self {
            base: memory.data_ptr(store).expose_provenance(),
            python,
        }
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let granted = desired as u64 <= self.bytes;
        if !granted && !std::mem::replace(&mut self.refused, true) {
            self.stack = self.view.as_ref().map(|view| {
                let base = std::ptr::with_exposed_provenance::<u8>(view.base);
                // SAFETY: the guest's one memory that can grow, of which `current` bytes are there: it never moves, lives as
                // long as its store, and with it this, and nobody writes to it while the guest waits for `memory.grow`.
                view.python
                    .stack(unsafe { std::slice::from_raw_parts(base, current) })
            });
        }
        Ok(granted)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE)
    }
}

/// One request on its way through the guest: what stands between an untrusted side and the [`ReplySink`]. The server's end of an
/// instance in another process goes through it as well.
pub struct Exchange {
    body: Box<dyn RequestBody>,
    /// What of the last piece of the body has not been read.
    rest: Bytes,
    /// The body has come to its end, or to nothing.
    body_end: Option<Result<(), BodyError>>,
    reply: Box<dyn ReplySink>,
    head: Head,
    /// What the app said of its length, while that is not yet sent.
    left: Option<u64>,
    /// That length, until more than it has come.
    length: Option<u64>,
    over: bool,
}

/// What became of a piece of the reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// It went out, as far as it was to.
    All,
    /// It is the first that goes past the Content-Length the app gave, which is told.
    TooLong(u64),
    /// There is no head to send it under.
    NoHead,
}

enum Head {
    Missing,
    Waits(ReplyHead),
    Sent,
}

impl Exchange {
    /// A request of which nothing has been read and that nothing has been replied to.
    pub fn new(body: Box<dyn RequestBody>, reply: Box<dyn ReplySink>) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            body_end: None,
            reply,
            head: Head::Missing,
            left: None,
            length: None,
            over: false,
        }
    }

    /// Some of the body, at most `most` bytes, waiting until there is some; empty at its end.
    ///
    /// Dropping the future loses nothing: bytes are taken only when it completes.
    ///
    /// # Errors
    /// As the body; the reply has failed by then.
    pub async fn read(&mut self, most: usize) -> Result<Bytes, BodyError> {
        if self.rest.is_empty() {
            if let Some(end) = self.body_end {
                return end.map(|()| Bytes::new());
            }
            match std::future::poll_fn(|cx| self.body.poll_chunk(cx)).await {
                Some(Ok(piece)) => self.rest = piece,
                end => {
                    let end = end.map_or(Ok(()), |piece| piece.map(drop));
                    self.body_end = Some(end);
                    if let Err(error) = end {
                        self.fail(Failure::Body(error));
                    }
                    return end.map(|()| Bytes::new());
                }
            }
        }
        Ok(self.rest.split_to(most.min(self.rest.len())))
    }

    /// Keeps a head until the first bytes of the body; an earlier one that still waits is replaced.
    ///
    /// # Errors
    /// The refusal, as `reply_head` answers it.
    pub fn head(&mut self, block: &[u8]) -> Result<(), i32> {
        if matches!(self.head, Head::Sent) {
            return Err(crate::abi::refusal::ALREADY_SENT);
        }
        let head = reply::parse(block)?;
        self.length = reply::content_length(&head);
        self.left = self.length;
        self.head = Head::Waits(head);
        Ok(())
    }

    /// Waits until the client takes more. To be called before each piece.
    ///
    /// # Errors
    /// [`PeerGone`] when nobody takes more, or the reply is complete.
    pub async fn room(&mut self) -> Result<(), PeerGone> {
        if self.over {
            return Err(PeerGone);
        }
        let room = std::future::poll_fn(|cx| self.reply.poll_room(cx)).await;
        if room.is_err() {
            self.over = true;
        }
        room
    }

    /// Sends the head if it still waits, then a part of a file, but no more than the Content-Length that the app gave.
    /// Nothing follows.
    pub fn send_file(&mut self, mut part: FilePart) -> Sent {
        match std::mem::replace(&mut self.head, Head::Sent) {
            Head::Missing => {
                self.head = Head::Missing;
                return Sent::NoHead;
            }
            Head::Waits(head) => self.reply.head(head),
            Head::Sent => {}
        }
        let mut sent = Sent::All;
        if let Some(left) = self.left.replace(0)
            && part.length > left
        {
            part.length = left;
            sent = self.length.take().map_or(Sent::All, Sent::TooLong);
        }
        if part.length > 0 {
            self.reply.file(part);
        }
        self.over = true;
        self.reply.finish();
        sent
    }

    /// Sends the head if it still waits, then `data`, but no more than the Content-Length that the app gave.
    pub fn send(&mut self, mut data: Bytes, last: bool) -> Sent {
        match std::mem::replace(&mut self.head, Head::Sent) {
            Head::Missing => {
                self.head = Head::Missing;
                return Sent::NoHead;
            }
            // An app may send empty strings before it has something to say.
            Head::Waits(head) if data.is_empty() && !last => {
                self.head = Head::Waits(head);
                return Sent::All;
            }
            Head::Waits(head) => self.reply.head(head),
            Head::Sent => {}
        }
        let mut sent = Sent::All;
        if let Some(left) = &mut self.left {
            if data.len() as u64 > *left {
                data.truncate(*left as usize);
                sent = self.length.take().map_or(Sent::All, Sent::TooLong);
            }
            *left -= data.len() as u64;
        }
        if !data.is_empty() {
            self.reply.chunk(data, last || self.left == Some(0));
        }
        if last {
            self.over = true;
            self.reply.finish();
        }
        sent
    }

    /// Ends the exchange with a failure, unless it is over.
    pub fn fail(&mut self, failure: Failure) {
        if !self.over {
            self.over = true;
            self.reply.fail(failure);
        }
    }
}

/// Splits a request into what the guest pulls as a block and what it reads and answers.
pub(crate) fn begin(guest: &mut Guest, request: Request, limit: TimeLimit) -> usize {
    guest.log.mark(Some(request.id));
    guest.block = request.environ;
    guest.environ.clear();
    guest.told_slow = false;
    request.track.set_at(At::Runs);
    guest.track = Some(request.track);
    guest.exchange = Some(Exchange::new(request.body, request.reply));
    guest.limit = limit;
    guest.memory_limit.refused = false;
    guest.memory_limit.stack = None;
    guest.block.len()
}
