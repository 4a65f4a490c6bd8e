//! Requests that an app is given before its snapshot is taken, so that what first requests import, cache and specialise
//! is in it.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::block;
use crate::exchange::{BodyError, Failure, PeerGone, ReplyHead, ReplySink, Request, RequestBody};

/// How often each path is asked for: CPython specialises code that has run some times, and a copy that had to do that
/// again would be slower for it.
pub(crate) const ROUNDS: usize = 20;

/// How a warm-up request went, told by its reply.
#[derive(Default)]
pub(crate) struct Outcome(Arc<std::sync::Mutex<Option<String>>>);

impl Outcome {
    /// What was wrong with the reply, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take()
    }
}

/// A GET request for `path` whose reply goes nowhere.
pub(crate) fn request(path: &str) -> (Request, Outcome) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut environ = Vec::new();
    for (key, value) in [
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", path),
        ("QUERY_STRING", query),
        ("REQUEST_URI", path),
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_SCHEME", "http"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_PORT", "0"),
        ("HTTP_HOST", "localhost"),
    ] {
        block::push(&mut environ, key, value);
    }
    let outcome = Outcome::default();
    let reply = Box::new(Nowhere(outcome.0.clone()));
    (
        Request {
            environ,
            id: "warmup".into(),
            body: Box::new(Nothing),
            reply,
        },
        outcome,
    )
}

struct Nothing;

impl RequestBody for Nothing {
    fn poll_chunk(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        Poll::Ready(None)
    }
}

struct Nowhere(Arc<std::sync::Mutex<Option<String>>>);

impl Nowhere {
    fn problem(&self, words: String) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(words);
    }
}

impl ReplySink for Nowhere {
    fn head(&mut self, head: ReplyHead) {
        if head.status >= 400 {
            self.problem(format!("answered {}", head.status));
        }
    }

    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PeerGone>> {
        Poll::Ready(Ok(()))
    }

    fn chunk(&mut self, _: Bytes, _: bool) {}

    fn finish(&mut self) {}

    fn fail(&mut self, failure: Failure) {
        self.problem(failure.to_string());
    }
}
