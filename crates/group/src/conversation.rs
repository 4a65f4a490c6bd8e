//! One unix stream socket, as frames.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use serde::Serialize;
use tokio::io::Interest;
use tokio::net::UnixStream;
use wasgi_protocol::frames::{Decoder, Frame, FrameError, Kind, Reader, encode};

use crate::descriptors::{receive, send_with};

/// Read at a time.
const PIECE: usize = 16 << 10;

/// How a conversation ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    /// The other side has ended it.
    #[error("the conversation was ended")]
    Ended,
    /// The other side does not keep to the protocol.
    #[error("{0}")]
    Broken(String),
    /// The socket does not work.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<FrameError> for Lost {
    fn from(error: FrameError) -> Self {
        Lost::Broken(error.to_string())
    }
}

impl From<serde_json::Error> for Lost {
    fn from(error: serde_json::Error) -> Self {
        Lost::Broken(error.to_string())
    }
}

/// What the other side must not have said.
pub(crate) fn unexpected(frame: &Frame) -> Lost {
    Lost::Broken(format!("a frame {:?} that is out of place", frame.kind))
}

/// One end of a conversation.
#[derive(Debug)]
pub(crate) struct Conversation {
    stream: Arc<UnixStream>,
    decoder: Decoder,
    /// The last that came.
    descriptor: Option<OwnedFd>,
    /// Frames on their way out, and how many bytes of them are out.
    out: Vec<u8>,
    sent: usize,
    /// A descriptor that goes out with the byte at this place of `out`.
    file: Option<(usize, Arc<File>)>,
}

impl Conversation {
    /// To be called where tokio's sockets are at hand.
    pub(crate) fn new(stream: BlockingUnixStream, reader: Reader) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: Arc::new(UnixStream::from_std(stream)?),
            decoder: Decoder::new(reader),
            descriptor: None,
            out: Vec::new(),
            sent: 0,
            file: None,
        })
    }

    pub(crate) fn stream(&self) -> Arc<UnixStream> {
        Arc::clone(&self.stream)
    }

    /// The descriptor that came with the last frame.
    pub(crate) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// Ready with the next frame.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Lost>> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Poll::Ready(Ok(frame));
            }
            ready!(self.stream.poll_read_ready(cx))?;
            match self.read() {
                Ok(()) => {}
                Err(Lost::System(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(lost) => return Poll::Ready(Err(lost)),
            }
        }
    }

    fn read(&mut self) -> Result<(), Lost> {
        let mut buffer = [0; PIECE];
        let socket = self.stream.as_fd();
        let read = self
            .stream
            .try_io(Interest::READABLE, || receive(socket, &mut buffer));
        let (length, descriptor) = match read {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => (0, None),
            read => read?,
        };
        if length == 0 {
            self.decoder.end()?;
            return Err(Lost::Ended);
        }
        self.descriptor = descriptor.or(self.descriptor.take());
        self.decoder.push(&buffer[..length]);
        Ok(())
    }

    /// Waits for the next frame.
    pub(crate) async fn frame(&mut self) -> Result<Frame, Lost> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }

    /// Whether the other side is still there and silent, as it is to be when nothing was asked.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0; 1];
        let peeked = rustix::net::recv(
            &*self.stream,
            &mut byte[..],
            rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT,
        );
        peeked.is_err_and(|error| error == rustix::io::Errno::WOULDBLOCK) && self.decoder.end().is_ok()
    }

    /// Puts a frame among those that go out.
    pub(crate) fn put(&mut self, kind: Kind, parts: &[&[u8]]) -> Result<(), Lost> {
        Ok(encode(kind, parts, &mut self.out)?)
    }

    pub(crate) fn put_json(&mut self, kind: Kind, value: &impl Serialize) -> Result<(), Lost> {
        self.put(kind, &[&serde_json::to_vec(value)?])
    }

    /// Puts a frame with a descriptor among those that go out. The one before must be out.
    pub(crate) fn put_file(&mut self, kind: Kind, parts: &[&[u8]], file: Arc<File>) -> Result<(), Lost> {
        let at = self.out.len();
        self.put(kind, parts)?;
        self.file = Some((at, file));
        Ok(())
    }

    /// Has the other side read the end once all is out that was put in; it may go on to speak.
    pub(crate) fn say_no_more(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(
            &*self.stream,
            rustix::net::Shutdown::Write,
        )?)
    }

    /// Bytes that have not gone out.
    pub(crate) fn waiting(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Sends what the socket takes now.
    pub(crate) fn try_flush(&mut self) -> Result<(), Lost> {
        while self.sent < self.out.len() {
            let rest = &self.out[self.sent..];
            let gone = match &self.file {
                Some((at, file)) if *at == self.sent => {
                    let socket = self.stream.as_fd();
                    let sent = self.stream.try_io(Interest::WRITABLE, || {
                        send_with(socket, rest, file.as_fd(), false)
                    });
                    if sent.is_ok() {
                        self.file = None;
                    }
                    sent
                }
                Some((at, _)) => self.stream.try_write(&rest[..at - self.sent]),
                None => self.stream.try_write(rest),
            };
            match gone {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(Lost::Ended),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.out.shrink_to(PIECE);
        self.sent = 0;
        Ok(())
    }

    /// Ready when at most `left` bytes wait to go out.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>, left: usize) -> Poll<Result<(), Lost>> {
        loop {
            self.try_flush()?;
            if self.waiting() <= left {
                return Poll::Ready(Ok(()));
            }
            ready!(self.stream.poll_write_ready(cx))?;
        }
    }

    /// Waits until all is out.
    pub(crate) async fn flush(&mut self) -> Result<(), Lost> {
        poll_fn(|cx| self.poll_flush(cx, 0)).await
    }
}
