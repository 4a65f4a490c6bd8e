//! Makes lines of what a guest writes to its standard output and error.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::exchange::AppLog;

/// Longest line; what is longer goes on in the next.
const MAX_LINE: usize = 8 << 10;

/// Which request an instance's lines belong to, and the last of them, for messages about a failed start.
#[derive(Default)]
struct State {
    request: Option<String>,
    last: String,
}

/// The log of one instance.
#[derive(Clone)]
pub(crate) struct InstanceLog {
    log: Arc<dyn AppLog>,
    state: Arc<Mutex<State>>,
    streams: [Arc<Mutex<Vec<u8>>>; 2],
}

impl InstanceLog {
    pub(crate) fn new(log: Arc<dyn AppLog>) -> Self {
        Self {
            log,
            state: Arc::default(),
            streams: Default::default(),
        }
    }

    /// A new request begins, or with `None`, none runs: what is left of unfinished lines goes out under the old mark.
    pub(crate) fn mark(&self, request: Option<String>) {
        for stream in &self.streams {
            let rest = std::mem::take(&mut *lock(stream));
            if !rest.is_empty() {
                self.line(&rest);
            }
        }
        lock(&self.state).request = request;
    }

    /// A line of the host's own about what the app does.
    pub(crate) fn note(&self, text: &str) {
        let request = lock(&self.state).request.clone();
        self.log.line(request.as_deref(), text);
    }

    /// Whether a failure of the running request is to be told whole.
    pub(crate) fn is_news(&self, failure: &str) -> bool {
        let request = lock(&self.state).request.clone();
        self.log.is_news(request.as_deref(), failure)
    }

    /// The last line that was written.
    pub(crate) fn last_line(&self) -> String {
        lock(&self.state).last.clone()
    }

    /// Standard output (0) or error (1), as WASI wants it.
    pub(crate) fn stream(&self, number: usize) -> Stream {
        Stream {
            log: self.clone(),
            pending: self.streams[number].clone(),
        }
    }

    fn line(&self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let request = {
            let mut state = lock(&self.state);
            state.last.clear();
            state.last.push_str(&text);
            state.request.clone()
        };
        self.log.line(request.as_deref(), &text);
    }
}

/// One output stream of an instance. Writing never waits: the log takes what it is given, or drops it.
pub(crate) struct Stream {
    log: InstanceLog,
    pending: Arc<Mutex<Vec<u8>>>,
}

impl Stream {
    fn take(&self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text.strip_suffix(b"\r").unwrap_or(text), true),
                None => (piece, false),
            };
            let mut pending = lock(&self.pending);
            pending.extend_from_slice(text);
            while pending.len() > MAX_LINE {
                let rest = pending.split_off(MAX_LINE);
                self.log.line(&pending);
                *pending = rest;
            }
            if ended {
                let line = std::mem::take(&mut *pending);
                self.log.line(&line);
            }
        }
    }
}

impl IsTerminal for Stream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Self {
            log: self.log.clone(),
            pending: self.pending.clone(),
        })
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Self {
            log: self.log.clone(),
            pending: self.pending.clone(),
        })
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {}
}

impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Collected(Mutex<Vec<(Option<String>, String)>>);

    impl AppLog for Collected {
        fn line(&self, request: Option<&str>, text: &str) {
            lock(&self.0).push((request.map(str::to_owned), text.to_owned()));
        }
    }

    #[test]
    fn lines_are_whole_whatever_the_writes_and_carry_the_request_they_began_in() {
        let collected = Arc::new(Collected::default());
        let log = InstanceLog::new(collected.clone());
        let (out, err) = (log.stream(0), log.stream(1));
        out.take(b"start");
        err.take(b"warning\n");
        out.take(b"ed\r\n\nfirst");
        log.mark(Some("r1".into()));
        out.take(b"se\xffcond\n");
        log.mark(None);
        let lines: Vec<_> = lock(&collected.0).clone();
        let r1 = Some("r1".to_owned());
        let expected = [
            (None, "warning"),
            (None, "started"),
            (None, ""),
            (None, "first"),
            (r1, "se\u{fffd}cond"),
        ];
        assert_eq!(lines, expected.map(|(request, text)| (request, text.to_owned())));
        assert_eq!(log.last_line(), "se\u{fffd}cond");
    }

    #[test]
    fn a_line_without_end_is_cut_and_kept_in_bounds() {
        let collected = Arc::new(Collected::default());
        let log = InstanceLog::new(collected.clone());
        let out = log.stream(0);
        for _ in 0..5 {
            out.take(&vec![b'x'; MAX_LINE - 1]);
        }
        let lengths: Vec<_> = lock(&collected.0).iter().map(|(_, line)| line.len()).collect();
        assert_eq!(lengths, [MAX_LINE; 4]);
        assert!(lock(&out.pending).len() <= MAX_LINE);
    }
}
