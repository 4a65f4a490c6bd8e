//! Replies as web servers in front take them: a head as HTTP has it, then the body.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{StatusCode, header};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::answer::{Cut, ReplyBody};

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
    pub(super) fn head(self, parts: &Parts, body: &ReplyBody, is_head: bool) -> Vec<u8> {
        let status = parts.status;
        let mut head = Vec::with_capacity(512);
        head.extend_from_slice(match self {
            StatusLine::Http => b"HTTP/1.1 ",
            StatusLine::Cgi => b"Status: ",
        });
        head.extend_from_slice(status.as_str().as_bytes());
        head.push(b' ');
        match parts.extensions.get::<ReasonPhrase>() {
            Some(reason) => head.extend_from_slice(reason.as_bytes()),
            None => head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes()),
        }
        head.extend_from_slice(b"\r\n");
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
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// The next piece of a reply's body.
pub(super) fn poll_piece(body: &mut ReplyBody, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
    let frame = Pin::new(body).poll_frame(cx);
    frame.map(|frame| frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default())))
}

/// Writes all of `bytes`; fails when the peer takes nothing for `patience`.
pub(super) async fn write_all(
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
    Ok(())
}
