//! Replies as web servers in front take them: a head as HTTP has it, then the body.

use std::future::poll_fn;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{Response, StatusCode, header};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::time::timeout;
use wasgi_protocol::fastcgi;

use crate::answer::{Cut, ReplyBody};

/// Pieces of a reply that are there at the same time are written together up to this.
const TOGETHER: usize = 64 << 10;

/// How the first line of a reply is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatusLine {
    /// `HTTP/1.1 200 OK`
    Http,
    /// `Status: 200 OK` (RFC 3875 6.3.3)
    Cgi,
}

impl StatusLine {
    /// A reply's head with the empty line at its end. `is_head` if it is one to HEAD, whose length is not that of its
    /// body.
    fn head(self, parts: &Parts, body: &ReplyBody, is_head: bool) -> Vec<u8> {
        let status = parts.status;
        let mut head = Vec::with_capacity(512);
        if self == StatusLine::Http {
            push_status(b"HTTP/1.1 ", parts, &mut head);
        }
        for (name, value) in &parts.headers {
            // The connection is the web server's to keep.
            if name == header::CONNECTION {
                continue;
            }
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        let has_none = is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if !has_none
            && !parts.headers.contains_key(header::CONTENT_LENGTH)
            && let Some(length) = body.size_hint().exact()
        {
            // Writing to a `Vec` does not fail.
            let _ = write!(head, "content-length: {length}\r\n");
        }
        if self == StatusLine::Cgi {
            // Behind the fields: HAProxy makes a 302 of whatever status is before Location.
            push_status(b"Status: ", parts, &mut head);
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

fn push_status(before: &[u8], parts: &Parts, head: &mut Vec<u8>) {
    let status = parts.status;
    head.extend_from_slice(before);
    head.extend_from_slice(status.as_str().as_bytes());
    head.push(b' ');
    match parts.extensions.get::<ReasonPhrase>() {
        Some(reason) => head.extend_from_slice(reason.as_bytes()),
        None => head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes()),
    }
    head.extend_from_slice(b"\r\n");
}

/// The next piece of a reply's body.
fn poll_piece(body: &mut ReplyBody, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
    let frame = Pin::new(body).poll_frame(cx);
    frame.map(|frame| frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default())))
}

/// The connection's end that replies go to. What answers to records of the web server's comes in between.
pub(super) struct Output<W> {
    to: Mutex<W>,
    /// Longest pause in taking it, `write-time`.
    patience: Duration,
}

/// How a reply is told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Its end is the connection's.
    Close,
    /// In FastCGI records of this request id.
    Records(u16),
}

impl<W: AsyncWrite + Unpin> Output<W> {
    pub(super) fn new(to: W, patience: Duration) -> Self {
        Self {
            to: Mutex::new(to),
            patience,
        }
    }

    /// The connection's end.
    pub(super) fn into_inner(self) -> W {
        self.to.into_inner()
    }

    /// Writes a reply to its end. `is_head` if it is one to HEAD.
    ///
    /// # Errors
    /// When the reply is cut, or its peer does not take it.
    pub(super) async fn send(
        &self,
        response: Response<ReplyBody>,
        is_head: bool,
        line: StatusLine,
        framing: Framing,
    ) -> Result<(), Cut> {
        let (parts, mut body) = response.into_parts();
        let mut out = Vec::new();
        framing.push(&line.head(&parts, &body, is_head), &mut out);
        loop {
            // What is there goes out together; the head does not wait for what is not.
            let next = match poll_fn(|cx| Poll::Ready(poll_piece(&mut body, cx))).await {
                Poll::Ready(next) => next,
                Poll::Pending => {
                    self.write(&mut out).await?;
                    poll_fn(|cx| poll_piece(&mut body, cx)).await
                }
            };
            let Some(piece) = next.transpose()? else { break };
            if out.len() + piece.len() > TOGETHER {
                self.write(&mut out).await?;
            }
            match framing {
                Framing::Close if piece.len() > TOGETHER => self.write_bytes(&piece).await?,
                _ => framing.push(&piece, &mut out),
            }
        }
        if let Framing::Records(id) = framing {
            fastcgi::push_end(id, &mut out);
        }
        self.write(&mut out).await
    }

    /// Writes all of `bytes`, with nothing in between, and leaves none.
    pub(super) async fn write(&self, bytes: &mut Vec<u8>) -> Result<(), Cut> {
        // Whoever is dropped while it waits for its turn has written nothing.
        let mut to = self.to.lock().await;
        let bytes = std::mem::take(bytes);
        write_all(&mut *to, &bytes, self.patience).await.map_err(|_| Cut)
    }

    async fn write_bytes(&self, bytes: &[u8]) -> Result<(), Cut> {
        let mut to = self.to.lock().await;
        write_all(&mut *to, bytes, self.patience).await.map_err(|_| Cut)
    }

    /// Says that nothing more will come.
    ///
    /// # Errors
    /// When the peer is gone.
    pub(super) async fn end(&self) -> io::Result<()> {
        self.to.lock().await.shutdown().await
    }
}

impl Framing {
    fn push(self, bytes: &[u8], to: &mut Vec<u8>) {
        match self {
            Framing::Close => to.extend_from_slice(bytes),
            Framing::Records(id) => fastcgi::push_stdout(id, bytes, to),
        }
    }
}

/// Writes all of `bytes`; fails when the peer takes nothing for `patience`.
async fn write_all(
    to: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    patience: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = timeout(patience, to.write(bytes)).await??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
    }
    // Standard output keeps what is no whole line; sockets keep nothing.
    timeout(patience, to.flush()).await?
}
