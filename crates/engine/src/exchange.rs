//! One request as it passes between the server and the guest: what comes in, and where the reply goes.

use std::fs::File;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::track::Track;

/// One request, ready for an instance.
#[non_exhaustive]
pub struct Request {
    /// The environ block: (u16 little-endian length, bytes) key, value, key, value... as in a uwsgi packet's vars.
    /// Values are raw bytes; the guest makes latin-1 native strings of them (PEP 3333, "Unicode Issues").
    pub environ: Vec<u8>,
    /// Marks the request's lines in the log, and what a client is told to quote.
    pub id: String,
    /// Where `wsgi.input` reads from.
    pub body: Box<dyn RequestBody>,
    /// Where the reply goes.
    pub reply: Box<dyn ReplySink>,
    /// What others see of it, and end it by.
    pub track: Arc<Track>,
}

impl Request {
    /// A request of this environ block.
    pub fn new(environ: Vec<u8>, id: String, body: Box<dyn RequestBody>, reply: Box<dyn ReplySink>) -> Self {
        Self {
            track: Track::of(&environ),
            environ,
            id,
            body,
            reply,
        }
    }
}

/// The body of a request, pulled by `wsgi.input` as the app reads.
pub trait RequestBody: Send {
    /// The next piece of the body (never empty), or `None` at its end.
    ///
    /// While this is pending the instance's fiber sleeps; no thread waits.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>>;
}

/// Why a request's body cannot be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Deserialize, Serialize)]
pub enum BodyError {
    /// The body grew past the app's `request-body` limit.
    #[error("the request body is larger than allowed")]
    TooLarge,
    /// The client sent nothing for as long as the server waits.
    #[error("the client stopped sending the request body")]
    TimedOut,
    /// The connection was lost, or what came was not a body.
    #[error("the client went away while sending the request body")]
    PeerGone,
}

/// The client is no longer there to take a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client went away")]
pub struct PeerGone;

/// The start of a reply, checked: the status has three digits from 200 to 599, names are RFC 9110 tokens, values hold
/// neither control characters nor line breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyHead {
    /// Status code, 200 to 599.
    pub status: u16,
    /// Reason phrase as the app gave it, latin-1 bytes; may be empty.
    pub reason: Bytes,
    /// Fields in the app's order; hop-by-hop fields have been refused (PEP 3333, "Other HTTP Features").
    pub headers: Vec<(Bytes, Bytes)>,
}

/// A part of a file that an instance has open for reading, which the server sends in the app's stead.
#[derive(Clone, Debug)]
pub struct FilePart {
    /// The file; its cursor is the instance's business.
    pub file: Arc<File>,
    /// Where the part begins, in bytes.
    pub offset: u64,
    /// Its length in bytes; never 0. The file may be shorter by the time it is sent.
    pub length: u64,
}

/// Where a reply goes. The engine calls `poll_room` before each `chunk`; `finish` or `fail` comes last, and once.
pub trait ReplySink: Send {
    /// Sends the head. Comes once, before any chunk.
    fn head(&mut self, head: ReplyHead);

    /// Ready when another chunk may be sent; pending while the client is slow.
    ///
    /// # Errors
    /// [`PeerGone`] when nobody takes the reply any more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PeerGone>>;

    /// Sends one piece of the body, as the app produced it; never empty.
    ///
    /// `last` says that nothing follows (`finish` still comes), so that a reply of one piece can have its length told.
    fn chunk(&mut self, data: Bytes, last: bool);

    /// Sends a part of a file; nothing follows (`finish` still comes). Comes after `poll_room`, as `chunk` does.
    fn file(&mut self, part: FilePart);

    /// The reply is complete. May come while the app still runs its `close()`.
    fn finish(&mut self);

    /// The reply will not be completed: answer with the failure's status if no head was sent, else cut the connection.
    fn fail(&mut self, failure: Failure);
}

/// Why the app gave no (complete) reply. The server turns each into a status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Deserialize, Serialize)]
pub enum Failure {
    /// An exception left the app; its traceback is in the log.
    #[error("the app raised an exception")]
    App,
    /// The app broke PEP 3333; the text says how.
    #[error("the app's reply is not valid: {0}")]
    BadReply(String),
    /// The request ran into `limits.time`.
    #[error("time limit reached")]
    TimeLimit,
    /// The request ran into `limits.cpu`.
    #[error("limit of CPU time reached")]
    CpuLimit,
    /// The operator has ended it.
    #[error("the operator has ended the request")]
    Killed,
    /// The body could not be read to its end.
    #[error("{0}")]
    Body(BodyError),
    /// The app ended its interpreter, as `os._exit()` does, with this exit code.
    #[error("the app ended its interpreter with exit code {0}")]
    Exited(i32),
    /// WebAssembly stopped the instance: stack overflow, out-of-bounds access, abort.
    #[error("the instance crashed: {0}")]
    Crashed(String),
    /// The process with the instance has ended, or was ended.
    #[error("{0}")]
    Lost(String),
    /// There is no instance for it, and none could be started.
    #[error("the app does not start: {0}")]
    NotStarted(String),
}

/// Takes the lines an app writes: `print`, `logging`, `wsgi.errors`, tracebacks, and the engine's own about it.
pub trait AppLog: Send + Sync {
    /// One line without its line end, at most 8 KiB, as UTF-8 with invalid bytes replaced.
    /// `request` is the running request's id; `None` at start-up. The text is the app's: escape it before printing.
    fn line(&self, request: Option<&str>, text: &str);

    /// Whether a failure is to be told with its traceback or stack. If not, it is counted: one of the same name, which
    /// tells kind and place, was told a short while ago. The name may be the app's word.
    fn is_news(&self, _request: Option<&str>, _failure: &str) -> bool {
        true
    }
}
