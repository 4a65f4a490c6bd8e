//! Bytes of files on their way to a client.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};
use tokio::task::{JoinHandle, spawn_blocking};

/// Most bytes read at a time.
const PIECE: u64 = 128 << 10;

/// An open file.
pub(crate) type Open = Arc<dyn AsFd + Send + Sync>;

/// Parts of files, and texts between them, in the order in which they are sent.
pub(crate) struct Content {
    parts: VecDeque<Part>,
    left: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

/// One part.
pub(crate) enum Part {
    Text(Bytes),
    /// The bytes `at..end` of a file.
    Span {
        file: Open,
        at: u64,
        end: u64,
    },
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Part::Text(text) => text.len() as u64,
            Part::Span { at, end, .. } => end.saturating_sub(*at),
        }
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl Content {
    pub(crate) fn new(parts: impl IntoIterator<Item = Part>) -> Self {
        let parts: VecDeque<Part> = parts.into_iter().filter(|part| part.len() > 0).collect();
        Self {
            left: parts.iter().map(Part::len).sum(),
            parts,
            reading: None,
        }
    }

    /// Bytes still to come.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// The next bytes; `None` when all have been given.
    ///
    /// What the system has in memory is read here and now, what it has not by a thread that may wait for the disk.
    ///
    /// # Errors
    /// The system's; `UnexpectedEof` if a file has become shorter than it was. What is left is then of no use.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(reading) = &mut self.reading {
            let read = ready!(Pin::new(reading).poll(cx));
            self.reading = None;
            return Poll::Ready(Some(
                read.unwrap_or_else(|error| Err(io::Error::other(error)))
                    .and_then(|read| self.take(read)),
            ));
        }
        let Some(part) = self.parts.front_mut() else {
            return Poll::Ready(None);
        };
        let (file, at, want) = match part {
            Part::Text(text) => {
                let text = std::mem::take(text);
                return Poll::Ready(Some(self.take(text)));
            }
            Part::Span { file, at, end } => (file, *at, (*end - *at).min(PIECE) as usize),
        };
        match read_now(file, at, want) {
            Ok(Some(read)) => Poll::Ready(Some(self.take(read))),
            Ok(None) => {
                let file = Arc::clone(file);
                self.reading = Some(spawn_blocking(move || read_waiting(&file, at, want)));
                self.poll_piece(cx)
            }
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    /// All of it, if it is short, so that it can be sent in one piece with its head.
    ///
    /// # Errors
    /// As [`poll_piece`](Self::poll_piece).
    pub(crate) async fn whole(mut self) -> io::Result<Bytes> {
        let first = std::future::poll_fn(|cx| self.poll_piece(cx))
            .await
            .transpose()?
            .unwrap_or_default();
        if self.left == 0 {
            return Ok(first);
        }
        let mut all = first.to_vec();
        while let Some(piece) = std::future::poll_fn(|cx| self.poll_piece(cx)).await.transpose()? {
            all.extend_from_slice(&piece);
        }
        Ok(all.into())
    }

    /// Takes what was read off what is to come.
    fn take(&mut self, read: Bytes) -> io::Result<Bytes> {
        let length = read.len() as u64;
        let is_done = match self.parts.front_mut() {
            Some(Part::Span { at, end, .. }) => {
                if length == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *at += length;
                at >= end
            }
            Some(Part::Text(_)) | None => true,
        };
        if is_done {
            self.parts.pop_front();
        }
        self.left = self.left.saturating_sub(length);
        Ok(read)
    }
}

/// What of it is in memory, at least a byte; `None` if the disk has to be asked. Empty at the file's end.
fn read_now(file: &Open, at: u64, want: usize) -> io::Result<Option<Bytes>> {
    let mut buffer = vec![0; want];
    match preadv2(
        file,
        &mut [IoSliceMut::new(&mut buffer)],
        at,
        ReadWriteFlags::NOWAIT,
    ) {
        Ok(read) => {
            buffer.truncate(read);
            Ok(Some(buffer.into()))
        }
        // Not every file system can tell.
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read_waiting(file: &Open, at: u64, want: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; want];
    loop {
        match pread(file, &mut buffer[..], at) {
            Ok(read) => {
                buffer.truncate(read);
                return Ok(buffer.into());
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &[u8]) -> (std::fs::File, Open) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        let open = Arc::new(file.try_clone().unwrap());
        (file, open)
    }

    #[tokio::test]
    async fn parts_come_in_order_and_are_counted() {
        let text: Vec<u8> = (0..400_000u32).map(|n| (n % 251) as u8).collect();
        let (_, open) = file(&text);
        let span = |at, end| Part::Span {
            file: Arc::clone(&open),
            at,
            end,
        };
        let content = Content::new([
            Part::Text(Bytes::from_static(b"<")),
            span(1, 300_000),
            span(7, 7),
            Part::Text(Bytes::from_static(b"|")),
            span(399_999, 400_000),
        ]);
        assert_eq!(content.left(), 300_002);
        let all = content.whole().await.unwrap();
        assert_eq!(all, [b"<", &text[1..300_000], b"|", &text[399_999..]].concat());
    }

    #[tokio::test]
    async fn a_file_that_shrinks_is_an_error_and_not_other_bytes() {
        let (writer, open) = file(&[b'x'; 300_000]);
        let mut content = Content::new([Part::Span {
            file: open,
            at: 0,
            end: 300_000,
        }]);
        let first = std::future::poll_fn(|cx| content.poll_piece(cx))
            .await
            .unwrap()
            .unwrap();
        assert!(!first.is_empty());
        writer.set_len(10).unwrap();
        let next = std::future::poll_fn(|cx| content.poll_piece(cx)).await.unwrap();
        assert_eq!(next.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
