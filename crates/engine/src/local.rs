//! Requests that come from no client: made of a path, their replies kept in memory.

use std::mem::take;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::block;
use crate::exchange::{BodyError, Failure, FilePart, PeerGone, ReplyHead, ReplySink, Request, RequestBody};

/// The reply to a [`Request::local`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// `None` if there was none.
    pub head: Option<ReplyHead>,
    /// The first bytes of the body.
    pub body: Vec<u8>,
    /// Bytes of the whole body.
    pub length: u64,
    /// SHA-256 of the whole body.
    pub digest: [u8; 32],
    /// Why the reply was not completed.
    pub failure: Option<Failure>,
}

/// Where the reply to a [`Request::local`] is kept.
#[derive(Debug, Default)]
pub struct Keeper(Arc<Mutex<Kept>>);

impl Keeper {
    /// What has come; all of the reply once the request has been handled.
    pub fn take(&self) -> Kept {
        take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Request {
    /// A GET for `target`, such as `/list?page=1`, of this host itself. Of the reply's body `most` bytes are kept.
    pub fn local(target: &str, id: &str, most: usize) -> (Self, Keeper) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut environ = Vec::new();
        for (key, value) in [
            ("REQUEST_METHOD", "GET".into()),
            ("SCRIPT_NAME", "".into()),
            ("PATH_INFO", decode(path)),
            ("QUERY_STRING", query.into()),
            ("REQUEST_URI", target.into()),
            ("SERVER_NAME", "localhost".into()),
            ("SERVER_PORT", "80".into()),
            ("SERVER_PROTOCOL", "HTTP/1.1".into()),
            ("REQUEST_SCHEME", "http".into()),
            ("REMOTE_ADDR", "127.0.0.1".into()),
            ("REMOTE_PORT", "0".into()),
            ("HTTP_HOST", "localhost".into()),
        ] {
            block::push(&mut environ, key, value);
        }
        let keeper = Keeper::default();
        let sink = Sink {
            kept: Arc::clone(&keeper.0),
            most,
            hash: Sha256::new(),
        };
        let request = Self::new(environ, id.to_owned(), Box::new(Nothing), Box::new(sink));
        (request, keeper)
    }
}

struct Nothing;

impl RequestBody for Nothing {
    fn poll_chunk(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        Poll::Ready(None)
    }
}

struct Sink {
    kept: Arc<Mutex<Kept>>,
    most: usize,
    hash: Sha256,
}

impl Sink {
    fn with(&self, change: impl FnOnce(&mut Kept)) {
        change(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl ReplySink for Sink {
    fn head(&mut self, head: ReplyHead) {
        self.with(|kept| kept.head = Some(head));
    }

    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PeerGone>> {
        Poll::Ready(Ok(()))
    }

    fn chunk(&mut self, data: Bytes, _: bool) {
        self.hash.update(&data);
        self.with(|kept| {
            let room = self.most - kept.body.len();
            kept.body.extend(&data[..data.len().min(room)]);
            kept.length += data.len() as u64;
        });
    }

    fn file(&mut self, part: FilePart) {
        let mut buffer = vec![0; 64 << 10];
        let (mut at, end) = (part.offset, part.offset.saturating_add(part.length));
        while at < end {
            let want = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            match part.file.read_at(&mut buffer[..want], at) {
                Ok(read @ 1..) => {
                    self.chunk(Bytes::copy_from_slice(&buffer[..read]), false);
                    at += read as u64;
                }
                Ok(0) | Err(_) => break,
            }
        }
    }

    fn finish(&mut self) {
        let digest = take(&mut self.hash).finalize().into();
        self.with(|kept| kept.digest = digest);
    }

    fn fail(&mut self, failure: Failure) {
        self.finish();
        self.with(|kept| kept.failure = Some(failure));
    }
}

/// A path's bytes, `%20` and the like decoded; a `%` without two digits behind it stays (RFC 3875 4.1.5).
fn decode(path: &str) -> Vec<u8> {
    let mut bytes = path.as_bytes();
    let mut decoded = Vec::new();
    while let Some((&first, rest)) = bytes.split_first() {
        let digits = rest.get(..2).filter(|it| it.iter().all(u8::is_ascii_hexdigit));
        let code = digits.and_then(|it| u8::from_str_radix(str::from_utf8(it).ok()?, 16).ok());
        decoded.push(code.filter(|_| first == b'%').unwrap_or(first));
        bytes = match code {
            Some(_) if first == b'%' => &rest[2..],
            _ => rest,
        };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once() {
        for (path, expected) in [
            ("/", &b"/"[..]),
            ("/a%20b%2520", b"/a b%20"),
            ("/caf%C3%A9%ff", b"/caf\xc3\xa9\xff"),
            ("/100%/%g0/1%2", b"/100%/%g0/1%2"),
        ] {
            assert_eq!(decode(path), expected, "{path}");
        }
    }

    #[test]
    fn a_long_body_is_kept_in_part_and_told_apart_as_a_whole() {
        let reply = |pieces: &[&'static str]| {
            let (mut request, keeper) = Request::local("/", "test", 4);
            for piece in pieces {
                request.reply.chunk(Bytes::from_static(piece.as_bytes()), false);
            }
            request.reply.finish();
            keeper.take()
        };
        let whole = reply(&["abcdef"]);
        assert_eq!((&whole.body[..], whole.length), (&b"abcd"[..], 6));
        assert_eq!(reply(&["a", "bcde", "f"]), whole);
        assert_ne!(reply(&["abcdeg"]), whole);
    }
}
