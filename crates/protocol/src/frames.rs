//! What the server and the process of a group of apps say to each other.
//!
//! A frame is a length (u32, little-endian), a kind (u8) and as many bytes as the length says. The process of a group may be in
//! the hands of an attacker: what does not follow these rules to the letter is an error, and the end of the conversation.

/// Length and kind.
const HEAD: usize = 5;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Who reads a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The process of a group.
    Group,
    /// The server.
    Server,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, to $reader:ident, at most $most:expr;)*) => {
        /// What a frame is for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $($(#[$doc])* $name = $code,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Kind] = &[$(Kind::$name),*];

            fn of(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Kind::$name),)*
                    _ => None,
                }
            }

            /// Who reads it.
            pub const fn reader(self) -> Reader {
                match self {
                    $(Kind::$name => Reader::$reader,)*
                }
            }

            /// The most bytes that it may hold.
            pub const fn most(self) -> usize {
                match self {
                    $(Kind::$name => $most,)*
                }
            }
        }
    };
}

kinds! {
    /// The first of all: what the process is to be. JSON; a descriptor of the machine code may come with it.
    Setup = 1, to Group, at most 16 * MIB;
    /// A conversation begins: its socket comes with it.
    Open = 2, to Group, at most 0;
    /// To be answered with `Pong`.
    Ping = 3, to Group, at most 0;
    /// The process is ready. JSON: what confines it.
    Ready = 4, to Server, at most 4 * KIB;
    /// The process cannot be what it is to be: text.
    Unfit = 5, to Server, at most 4 * KIB;
    /// The answer to `Ping`.
    Pong = 6, to Server, at most 0;

    /// A conversation about an app: its number (u64), then its spec as JSON. Lines of its log come back.
    App = 10, to Group, at most 16 * MIB;
    /// A conversation with an instance of the app of this number (u64).
    Start = 11, to Group, at most 8;
    /// A conversation in which the app of this number (u64) is made ready.
    Prepare = 12, to Group, at most 8;
    /// The request of this id, of the app that the conversation is about, is to end: text.
    Kill = 25, to Group, at most KIB;
    /// The app is known.
    Known = 13, to Server, at most 0;
    /// A line of the app's log: length of the request's id (u8), the id, the text.
    Line = 14, to Server, at most 16 * KIB;
    /// The instance is there. JSON.
    Started = 15, to Server, at most KIB;
    /// It, or the app, does not start: text.
    NotStarted = 16, to Server, at most 16 * KIB;
    /// The app is ready.
    Prepared = 17, to Server, at most 0;

    /// A request: length of its id (u8), the id, the environ block.
    Request = 20, to Group, at most 4 * MIB;
    /// A piece of the request's body, which `Pull` asked for; never empty.
    Body = 21, to Group, at most MIB;
    /// The body is complete.
    BodyEnd = 22, to Group, at most 0;
    /// The body cannot be read to its end. JSON.
    BodyFailed = 23, to Group, at most KIB;
    /// Nobody takes the reply any more.
    Gone = 24, to Group, at most 0;

    /// A piece of the body is wanted.
    Pull = 30, to Server, at most 0;
    /// The head of the reply, as a block.
    Head = 31, to Server, at most 512 * KIB;
    /// A piece of the reply's body.
    Piece = 32, to Server, at most MIB;
    /// The same, and the last.
    LastPiece = 33, to Server, at most MIB;
    /// A part of a file ends the reply: where it begins (u64), its length (u64); the descriptor comes with it.
    File = 34, to Server, at most 16;
    /// The reply is complete.
    End = 35, to Server, at most 0;
    /// There is no (complete) reply. JSON.
    Failed = 36, to Server, at most 16 * KIB;
    /// The request has been handled. JSON.
    Done = 37, to Server, at most 16 * KIB;
    /// The instance is ready for the next request, or will not be. JSON.
    Renewed = 38, to Server, at most 16 * KIB;
    /// Where a request is that takes its time. JSON.
    Place = 39, to Server, at most KIB;
}

/// A frame without its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is for.
    pub kind: Kind,
    /// What it holds.
    pub payload: Vec<u8>,
}

/// What is not a frame, or not one for this reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No such kind.
    #[error("a frame of the unknown kind {0}")]
    Unknown(u8),
    /// A kind that the other side reads.
    #[error("a frame that is not for this side: {0:?}")]
    Misdirected(Kind),
    /// Longer than its kind may be.
    #[error("a frame {kind:?} of {length} bytes; at most {} are allowed", .kind.most())]
    TooLong {
        /// Its kind.
        kind: Kind,
        /// Its length.
        length: usize,
    },
    /// The stream ended within a frame.
    #[error("the stream ends within a frame")]
    Truncated,
}

/// Appends a frame that holds `parts` one after the other.
///
/// # Errors
/// [`FrameError::TooLong`]; nothing is appended then.
pub fn encode(kind: Kind, parts: &[&[u8]], to: &mut Vec<u8>) -> Result<(), FrameError> {
    let length = parts.iter().map(|part| part.len()).sum();
    match u32::try_from(length) {
        Ok(told) if length <= kind.most() => {
            to.reserve(HEAD + length);
            to.extend_from_slice(&told.to_le_bytes());
            to.push(kind as u8);
            parts.iter().for_each(|part| to.extend_from_slice(part));
            Ok(())
        }
        _ => Err(FrameError::TooLong { kind, length }),
    }
}

/// Takes frames out of a stream of bytes, however it is cut.
#[derive(Debug)]
pub struct Decoder {
    reader: Reader,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that have been taken out.
    taken: usize,
}

impl Decoder {
    /// For one who reads as `reader`.
    pub fn new(reader: Reader) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
            taken: 0,
        }
    }

    /// Takes bytes as they come. All frames are to be taken out before more are given.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame; `None` if it is not there yet as a whole.
    ///
    /// # Errors
    /// [`FrameError`], again at each further call.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = &self.buffer[self.taken..];
        let Some((&[a, b, c, d, code], rest)) = rest.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let kind = Kind::of(code).ok_or(FrameError::Unknown(code))?;
        if kind.reader() != self.reader {
            return Err(FrameError::Misdirected(kind));
        }
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > kind.most() {
            return Err(FrameError::TooLong { kind, length });
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        self.taken += HEAD + length;
        if self.taken == self.buffer.len() {
            self.taken = 0;
            self.buffer.clear();
            // A large frame is no reason to keep as much for all that follow.
            self.buffer.shrink_to(64 * KIB);
        }
        Ok(Some(Frame { kind, payload }))
    }

    /// To be asked when the stream has ended.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] if a part of a frame is left.
    pub fn end(&self) -> Result<(), FrameError> {
        match self.taken == self.buffer.len() {
            true => Ok(()),
            false => Err(FrameError::Truncated),
        }
    }
}

/// Takes a text behind its length (u8) off the front; `None` if it is cut short or no UTF-8.
pub fn take_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(length.into())?;
    Some((str::from_utf8(text).ok()?, rest))
}

/// Takes a u64, little-endian, off the front.
pub fn take_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator good enough to cut a stream in many ways, the same in each run.
    struct Cuts(u64);

    impl Cuts {
        fn below(&mut self, most: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) as usize % most
        }
    }

    /// Everything that comes out of `stream` when it comes in pieces that end at `cuts`, and how it ends.
    fn read(
        reader: Reader,
        stream: &[u8],
        mut next: impl FnMut(usize) -> usize,
    ) -> (Vec<Frame>, Result<(), FrameError>) {
        let mut decoder = Decoder::new(reader);
        let (mut frames, mut at) = (Vec::new(), 0);
        while at < stream.len() {
            let length = next(stream.len() - at);
            decoder.push(&stream[at..at + length]);
            at += length;
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Err(error)),
                }
            }
        }
        (frames, decoder.end())
    }

    fn whole(reader: Reader, stream: &[u8]) -> (Vec<Frame>, Result<(), FrameError>) {
        read(reader, stream, |left| left)
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        for reader in [Reader::Group, Reader::Server] {
            let mut cuts = Cuts(7);
            let kinds: Vec<Kind> = Kind::ALL
                .iter()
                .copied()
                .filter(|kind| kind.reader() == reader)
                .collect();
            let (mut stream, mut expected) = (Vec::new(), Vec::new());
            for round in 0..200 {
                let kind = kinds[round % kinds.len()];
                let payload: Vec<u8> = (0..cuts.below(300).min(kind.most()))
                    .map(|byte| byte as u8)
                    .collect();
                let (a, b) = payload.split_at(payload.len() / 3);
                encode(kind, &[a, b], &mut stream).expect("short enough");
                expected.push(Frame { kind, payload });
            }
            let expected = (expected, Ok(()));
            assert_eq!(whole(reader, &stream), expected);
            assert_eq!(read(reader, &stream, |_| 1), expected);
            for seed in 0..50 {
                let mut cuts = Cuts(seed);
                assert_eq!(
                    read(reader, &stream, |left| 1 + cuts.below(left.min(900))),
                    expected
                );
            }
        }
    }

    #[test]
    fn noise_is_an_error_or_nothing_and_the_same_however_it_is_cut() {
        for seed in 0..2000 {
            let mut cuts = Cuts(seed);
            let mut noise: Vec<u8> = (0..cuts.below(40)).map(|_| cuts.below(256) as u8).collect();
            // Lengths that are short enough to be believed, in half of the cases.
            if seed % 2 == 0 {
                noise.iter_mut().skip(1).step_by(5).for_each(|byte| *byte = 0);
                noise.iter_mut().skip(2).step_by(5).for_each(|byte| *byte = 0);
                noise.iter_mut().skip(3).step_by(5).for_each(|byte| *byte = 0);
            }
            for reader in [Reader::Group, Reader::Server] {
                let at_once = whole(reader, &noise);
                assert_eq!(
                    read(reader, &noise, |left| 1 + cuts.below(left)),
                    at_once,
                    "{noise:?}"
                );
            }
        }
    }

    #[test]
    fn what_breaks_a_rule_is_an_error_before_its_bytes_are_there() {
        let head = |length: u32, code: u8| [&length.to_le_bytes()[..], &[code]].concat();
        let error = |reader, bytes: &[u8]| whole(reader, bytes).1.expect_err("an error");
        for code in (0..=255).filter(|code| Kind::of(*code).is_none()) {
            assert_eq!(error(Reader::Server, &head(0, code)), FrameError::Unknown(code));
        }
        for &kind in Kind::ALL {
            let other = match kind.reader() {
                Reader::Group => Reader::Server,
                Reader::Server => Reader::Group,
            };
            assert_eq!(error(other, &head(0, kind as u8)), FrameError::Misdirected(kind));
            for length in [kind.most() + 1, u32::MAX as usize] {
                let told = error(kind.reader(), &head(length as u32, kind as u8));
                assert_eq!(told, FrameError::TooLong { kind, length });
                let too_long = vec![0; kind.most() + 1];
                let mut stream = vec![1];
                assert!(encode(kind, &[&too_long], &mut stream).is_err() && stream == [1]);
            }
        }
    }

    #[test]
    fn a_frame_that_is_cut_short_is_truncated() {
        let mut stream = Vec::new();
        encode(Kind::Piece, &[b"abc"], &mut stream).expect("short enough");
        for end in 1..stream.len() {
            let (frames, outcome) = whole(Reader::Server, &stream[..end]);
            assert_eq!(
                (frames.len(), outcome),
                (0, Err(FrameError::Truncated)),
                "cut at {end}"
            );
        }
    }

    #[test]
    fn texts_and_numbers_end_where_they_say() {
        assert_eq!(take_text(b"\x02abc"), Some(("ab", &b"c"[..])));
        assert_eq!(take_text(b"\0"), Some(("", &b""[..])));
        for cut in [&b""[..], b"\x01", b"\x03ab", b"\x01\xff"] {
            assert_eq!(take_text(cut), None, "{cut:?}");
        }
        assert_eq!(take_number(&[1, 1, 0, 0, 0, 0, 0, 0, 9]), Some((257, &[9][..])));
        assert_eq!(take_number(&[0; 7]), None);
    }
}
