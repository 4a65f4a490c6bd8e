//! A body on its way through a compressor, a portion at a time.

use std::future::Future;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};
use std::thread::available_parallelism;

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::coding::Coding;

/// Most bytes compressed at a time: a few milliseconds, after which another body has its turn.
const PORTION: usize = 64 << 10;

/// As many take less time than the way to another thread and back is worth. More would hold up the other connections of
/// the thread that looks after this one.
const IN_PLACE: usize = 8 << 10;

/// After that much in place the other connections have their turn.
const TURN: usize = 32 << 10;

/// Brotli's window, as a power of two: of a compressor's memory it is the larger part.
const BROTLI_WINDOW: i32 = 18;

/// Places of the threads that compress: as many as cores, however many replies there are.
static PLACES: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, |count| count.get())));

/// Compresses one body. What it holds is bounded: a compressor, and a piece of the body before and after it.
pub(super) struct Coder {
    state: State,
    /// What has been put in and not yet been compressed.
    input: Bytes,
    /// Whether the compressor keeps bytes that it has been given.
    keeps: bool,
    then: Then,
    /// Bytes compressed in place since others had their turn.
    turn: usize,
}

enum State {
    Idle(Encoder),
    Away(Pin<Box<dyn Future<Output = io::Result<Done>> + Send>>),
    /// All is out, or lost.
    Ended,
}

/// What happens once the input is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    More,
    Flush,
    Finish,
}

/// A compressor after a portion, or none after the last, and what it gave.
type Done = (Option<Encoder>, Vec<u8>);

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
}

impl std::fmt::Debug for Coder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coder").finish_non_exhaustive()
    }
}

impl Coder {
    /// `None` for a coding that nothing here compresses with.
    pub(super) fn new(coding: Coding, level: u32) -> Option<Self> {
        Some(Self {
            state: State::Idle(Encoder::new(coding, level)?),
            input: Bytes::new(),
            keeps: false,
            then: Then::More,
            turn: 0,
        })
    }

    /// Takes the next piece. Only when [`poll`](Self::poll) has given all of the one before.
    pub(super) fn put(&mut self, piece: Bytes) {
        self.input = piece;
    }

    /// Gives out what the compressor keeps; false if that is nothing.
    pub(super) fn flush(&mut self) -> bool {
        if self.keeps {
            self.then = Then::Flush;
        }
        self.keeps
    }

    /// Says that no further piece comes.
    pub(super) fn finish(&mut self) {
        self.then = Then::Finish;
    }

    /// Whether all has been given.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// What came of what was put in; empty when there is nothing more to do for it.
    ///
    /// # Errors
    /// Only if a compressor fails, which is a fault of its own.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        loop {
            if let State::Away(away) = &mut self.state {
                let done = ready!(away.as_mut().poll(cx));
                self.state = State::Ended;
                let (encoder, output) = done?;
                if let Some(encoder) = encoder {
                    self.state = State::Idle(encoder);
                }
                if !output.is_empty() {
                    return Poll::Ready(Ok(output.into()));
                }
            }
            if self.input.is_empty() && self.then == Then::More || self.is_ended() {
                return Poll::Ready(Ok(Bytes::new()));
            }
            if self.turn > TURN {
                self.turn = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let State::Idle(encoder) = std::mem::replace(&mut self.state, State::Ended) else {
                return Poll::Ready(Ok(Bytes::new()));
            };
            let portion = self.input.split_to(self.input.len().min(PORTION));
            let then = match self.input.is_empty() {
                true => std::mem::replace(&mut self.then, Then::More),
                false => Then::More,
            };
            self.keeps = then == Then::More;
            if portion.len() > IN_PLACE {
                self.state = State::Away(Box::pin(elsewhere(encoder, portion, then)));
                continue;
            }
            self.turn += portion.len().max(1);
            let (encoder, output) = encoder.step(&portion, then)?;
            if let Some(encoder) = encoder {
                self.state = State::Idle(encoder);
            }
            if !output.is_empty() {
                return Poll::Ready(Ok(output.into()));
            }
        }
    }
}

/// Compresses a portion on a thread that may take its time.
async fn elsewhere(encoder: Encoder, portion: Bytes, then: Then) -> io::Result<Done> {
    let _place = PLACES.acquire().await.map_err(io::Error::other)?;
    spawn_blocking(move || encoder.step(&portion, then))
        .await
        .map_err(io::Error::other)?
}

impl Encoder {
    fn new(coding: Coding, level: u32) -> Option<Self> {
        match coding {
            Coding::Gzip => Some(Self::Gzip(GzEncoder::new(Vec::new(), Compression::new(level)))),
            Coding::Brotli => {
                let params = BrotliEncoderParams {
                    quality: level as i32,
                    lgwin: BROTLI_WINDOW,
                    ..BrotliEncoderParams::default()
                };
                let writer = CompressorWriter::with_params(Vec::new(), IN_PLACE, &params);
                Some(Self::Brotli(Box::new(writer)))
            }
            Coding::Zstd => None,
        }
    }

    fn step(mut self, portion: &[u8], then: Then) -> io::Result<Done> {
        match &mut self {
            Encoder::Gzip(encoder) => encoder.write_all(portion)?,
            Encoder::Brotli(encoder) => encoder.write_all(portion)?,
        }
        match then {
            Then::More => {}
            Then::Flush => match &mut self {
                Encoder::Gzip(encoder) => encoder.flush()?,
                Encoder::Brotli(encoder) => encoder.flush()?,
            },
            Then::Finish => {
                let output = match self {
                    Encoder::Gzip(encoder) => encoder.finish()?,
                    Encoder::Brotli(encoder) => encoder.into_inner(),
                };
                return Ok((None, output));
            }
        }
        let output = match &mut self {
            Encoder::Gzip(encoder) => std::mem::take(encoder.get_mut()),
            Encoder::Brotli(encoder) => std::mem::take(encoder.get_mut()),
        };
        Ok((Some(self), output))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read;

    use super::*;

    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out),
            _ => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out),
        }
        .unwrap();
        out
    }

    /// As much as the bytes tell, of a body that goes on.
    fn decoded_so_far(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut decoder: Box<dyn Read> = match coding {
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            _ => Box::new(brotli::Decompressor::new(bytes, 4096)),
        };
        let mut byte = [0];
        while let Ok(1) = decoder.read(&mut byte) {
            out.push(byte[0]);
        }
        out
    }

    async fn all(coder: &mut Coder) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let some = poll_fn(|cx| coder.poll(cx)).await.unwrap();
            if some.is_empty() {
                return out;
            }
            out.extend_from_slice(&some);
        }
    }

    fn pieces() -> Vec<Vec<u8>> {
        let mut state = 7u32;
        [0, 1, 100, IN_PLACE, IN_PLACE + 1, 1, PORTION * 3 + 5, 17]
            .map(|size| {
                let mut byte = || {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    b"abcdefgh \n"[(state >> 28) as usize % 10]
                };
                (0..size).map(|_| byte()).collect()
            })
            .to_vec()
    }

    #[tokio::test]
    async fn each_level_gives_back_what_was_put_in() {
        for coding in [Coding::Gzip, Coding::Brotli] {
            for level in 1..=6 {
                let mut coder = Coder::new(coding, level).unwrap();
                let mut out = Vec::new();
                for piece in pieces() {
                    coder.put(piece.into());
                    out.extend(all(&mut coder).await);
                }
                coder.finish();
                out.extend(all(&mut coder).await);
                assert!(coder.is_ended());
                assert!(decoded(coding, &out) == pieces().concat(), "{coding:?} {level}");
                assert!(out.len() < pieces().concat().len() * 3 / 4, "{coding:?} {level}");
            }
        }
    }

    #[tokio::test]
    async fn what_was_put_in_is_out_after_a_flush() {
        for coding in [Coding::Gzip, Coding::Brotli] {
            let mut coder = Coder::new(coding, 4).unwrap();
            let (mut put, mut out) = (Vec::new(), Vec::new());
            for piece in pieces() {
                put.extend_from_slice(&piece);
                coder.put(piece.into());
                out.extend(all(&mut coder).await);
                if coder.flush() {
                    out.extend(all(&mut coder).await);
                }
                assert!(decoded_so_far(coding, &out) == put, "{coding:?} {}", put.len());
                assert!(!coder.flush());
            }
        }
    }

    #[tokio::test]
    async fn an_empty_body_is_one_compressed() {
        for coding in [Coding::Gzip, Coding::Brotli] {
            let mut coder = Coder::new(coding, 4).unwrap();
            coder.finish();
            let out = all(&mut coder).await;
            assert_eq!(decoded(coding, &out), b"");
        }
    }
}
