//! Finds and checks the requests in the bytes of one connection.

use super::fields::{self, field_line, is_token_byte};
use super::head::{Body, Head, Partial};
use super::refusal::Refusal;

/// Longest request line, with its CRLF, where the whole head may be longer.
pub(super) const REQUEST_LINE_MAX: usize = 16 << 10;

/// Most fields of a head, and of a trailer section.
pub(super) const FIELDS_MAX: usize = 100;

/// Longest line with a chunk's size and extensions, with its CRLF.
const CHUNK_LINE_MAX: usize = 1 << 10;

/// Most bytes of chunk extensions in one body: they carry nothing, but cost reading.
const EXTENSIONS_MAX: usize = 16 << 10;

/// Longest trailer section.
const TRAILERS_MAX: usize = 8 << 10;

/// What [`Guard`] bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest head in bytes, from the request line to the empty line; at most 2^31.
    pub head: usize,
}

/// Follows the requests on one connection (RFC 9112), a step at a time.
///
/// The caller keeps what has arrived and not been used, and hands all of it to [`step`](Self::step) each time. How
/// the bytes are split up makes no difference to what is found in them.
#[derive(Debug)]
pub struct Guard {
    limits: Limits,
    state: State,
    /// Start of the line that is being read, in the caller's bytes.
    line: usize,
    /// How far that line has been searched for its end, so that a slow peer does not make it be searched again.
    scanned: usize,
}

#[derive(Debug)]
enum State {
    Head {
        partial: Partial,
        /// An empty line before the request line has been skipped; RFC 9112 2.2 asks for one to be.
        skipped: bool,
    },
    Length {
        left: u64,
    },
    ChunkSize {
        extensions: usize,
    },
    ChunkData {
        left: u64,
        extensions: usize,
    },
    ChunkEnd {
        extensions: usize,
    },
    Trailers {
        bytes: usize,
        count: usize,
    },
    Refused(Refusal),
}

/// What the next bytes are. `used` bytes have been dealt with and are not handed in again.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The rest is not complete: come again with more.
    More,
    /// A request head. Its body follows as the other steps, ending with [`Step::End`] if it is chunked and with the
    /// last of its bytes otherwise.
    Head {
        /// Length of the head.
        used: usize,
        /// What it says.
        head: Head,
    },
    /// Bytes of the body.
    Data {
        /// How many; at least one.
        used: usize,
    },
    /// A chunk starts.
    Chunk {
        /// Length of its size line.
        used: usize,
        /// Length of its data, at least one; the data and [`Step::ChunkEnd`] follow.
        size: u64,
    },
    /// The line end after a chunk's data.
    ChunkEnd {
        /// Length of the line end.
        used: usize,
    },
    /// Nothing that means anything: an empty line before a head, the last chunk's size line, a trailer field.
    Skip {
        /// How many bytes.
        used: usize,
    },
    /// The end of a chunked body.
    End {
        /// Length of the empty line that ends it.
        used: usize,
    },
    /// The rest is refused, now and for ever.
    Refused(Refusal),
}

/// Where in a request a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests: no byte of the next has been seen.
    Idle,
    /// Within a head.
    Head,
    /// Within a body.
    Body,
    /// Nothing more is taken.
    Refused,
}

impl Guard {
    /// A guard for a new connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::start(),
            line: 0,
            scanned: 0,
        }
    }

    /// Where in a request the connection is.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Head { .. } if self.scanned == 0 => Phase::Idle,
            State::Head { .. } => Phase::Head,
            State::Length { .. }
            | State::ChunkSize { .. }
            | State::ChunkData { .. }
            | State::ChunkEnd { .. }
            | State::Trailers { .. } => Phase::Body,
            State::Refused(_) => Phase::Refused,
        }
    }

    /// Tells what the bytes in `input` start with.
    ///
    /// `input` is all that has arrived since the last byte used. After [`Step::More`] it must start with the bytes it
    /// had then.
    pub fn step(&mut self, input: &[u8]) -> Step {
        let step = self.try_step(input).unwrap_or_else(|refusal| {
            self.state = State::Refused(refusal);
            Step::Refused(refusal)
        });
        if step != Step::More {
            (self.line, self.scanned) = (0, 0);
        }
        step
    }

    fn try_step(&mut self, input: &[u8]) -> Result<Step, Refusal> {
        if let State::Refused(refusal) = self.state {
            return Err(refusal);
        }
        if input.is_empty() {
            return Ok(Step::More);
        }
        match self.state {
            State::Head { .. } => self.head(input),
            State::Length { left } => {
                let used = most(left, input);
                self.state = match left - used as u64 {
                    0 => State::start(),
                    left => State::Length { left },
                };
                Ok(Step::Data { used })
            }
            State::ChunkSize { extensions } => self.chunk_size(input, extensions),
            State::ChunkData { left, extensions } => {
                let used = most(left, input);
                self.state = match left - used as u64 {
                    0 => State::ChunkEnd { extensions },
                    left => State::ChunkData { left, extensions },
                };
                Ok(Step::Data { used })
            }
            State::ChunkEnd { extensions } => match input {
                [b'\r'] => Ok(Step::More),
                [b'\r', b'\n', ..] => {
                    self.state = State::ChunkSize { extensions };
                    Ok(Step::ChunkEnd { used: 2 })
                }
                _ => Err(Refusal::ChunkEnd),
            },
            State::Trailers { bytes, count } => self.trailer(input, bytes, count),
            State::Refused(refusal) => Err(refusal),
        }
    }

    fn head(&mut self, input: &[u8]) -> Result<Step, Refusal> {
        let State::Head { partial, skipped } = &mut self.state else {
            unreachable!("the caller looked")
        };
        if self.line == 0 && !partial.has_request_line() {
            match input {
                [b'\r'] => {
                    self.scanned = 1;
                    return Ok(Step::More);
                }
                [b'\r', b'\n', ..] if !*skipped => {
                    *skipped = true;
                    return Ok(Step::Skip { used: 2 });
                }
                [b'\r', b'\n', ..] => return Err(Refusal::RequestLine),
                [b'\n', ..] => return Err(Refusal::BareLf),
                // Another protocol: told at once, instead of after a line that never ends.
                [0 | 30, ..] => return Err(Refusal::Wire("uwsgi")),
                [1, ..] => return Err(Refusal::Wire("FastCGI")),
                [0x16, ..] => return Err(Refusal::Wire("TLS")),
                [first, ..] if fields::is_control(*first) => return Err(Refusal::Control),
                [first, ..] if !is_token_byte(*first) => return Err(Refusal::Method),
                _ => {}
            }
        }
        loop {
            let left = self.limits.head - self.line.min(self.limits.head);
            let (longest, too_long) = if partial.has_request_line() || left < REQUEST_LINE_MAX {
                (
                    left,
                    if partial.has_request_line() {
                        Refusal::HeadTooLong
                    } else {
                        Refusal::TargetTooLong
                    },
                )
            } else {
                (REQUEST_LINE_MAX, Refusal::TargetTooLong)
            };
            let start = self.line;
            let Some(line) = next_line(input, &mut self.line, &mut self.scanned, longest, too_long)? else {
                return Ok(Step::More);
            };
            if !partial.has_request_line() {
                partial.request_line(start, line)?;
            } else if !line.is_empty() {
                if partial.field_count() == FIELDS_MAX {
                    return Err(Refusal::TooManyFields);
                }
                partial.field_line(start, line)?;
            } else {
                let used = self.line;
                let head = std::mem::take(partial).finish(&input[..used])?;
                self.state = match head.body() {
                    Body::Absent | Body::Length(0) => State::start(),
                    Body::Length(left) => State::Length { left },
                    Body::Chunked => State::ChunkSize { extensions: 0 },
                };
                return Ok(Step::Head { used, head });
            }
        }
    }

    /// RFC 9112 7.1: `chunk-size [ chunk-ext ] CRLF`.
    fn chunk_size(&mut self, input: &[u8], extensions: usize) -> Result<Step, Refusal> {
        let line = next_line(
            input,
            &mut self.line,
            &mut self.scanned,
            CHUNK_LINE_MAX,
            Refusal::ChunkSize,
        )?;
        let Some(line) = line else { return Ok(Step::More) };
        let used = line.len() + 2;
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let rest = &line[digits..];
        // No space before the extensions: RFC 9112 7.1.1 has senders leave it out, and readers differ over it.
        let valid = (1..=16).contains(&digits) && matches!(rest.first(), None | Some(b';'));
        if !valid || rest.iter().any(|&b| fields::is_control(b)) {
            return Err(Refusal::ChunkSize);
        }
        let extensions = extensions + rest.len();
        let size = line[..digits].iter().fold(0u64, |size, digit| {
            // At most 16 digits, so that nothing is shifted out.
            size << 4 | u64::from((*digit as char).to_digit(16).unwrap_or_default())
        });
        if extensions > EXTENSIONS_MAX || size > i64::MAX as u64 {
            return Err(Refusal::ChunkSize);
        }
        if size == 0 {
            self.state = State::Trailers { bytes: 0, count: 0 };
            return Ok(Step::Skip { used });
        }
        self.state = State::ChunkData {
            left: size,
            extensions,
        };
        Ok(Step::Chunk { used, size })
    }

    /// Trailer fields are checked and dropped: WSGI has no place for them (RFC 9110 6.5.1 lets a server do so).
    fn trailer(&mut self, input: &[u8], bytes: usize, count: usize) -> Result<Step, Refusal> {
        let longest = TRAILERS_MAX - bytes;
        let line = next_line(
            input,
            &mut self.line,
            &mut self.scanned,
            longest,
            Refusal::HeadTooLong,
        )?;
        let Some(line) = line else { return Ok(Step::More) };
        let used = line.len() + 2;
        if line.is_empty() {
            self.state = State::start();
            return Ok(Step::End { used });
        }
        if count == FIELDS_MAX {
            return Err(Refusal::TooManyFields);
        }
        let name = &line[field_line(line)?.name];
        for forbidden in [
            "content-length",
            "transfer-encoding",
            "host",
            "trailer",
            "content-type",
            "authorization",
        ] {
            if name.eq_ignore_ascii_case(forbidden.as_bytes()) {
                return Err(Refusal::Trailer);
            }
        }
        self.state = State::Trailers {
            bytes: bytes + used,
            count: count + 1,
        };
        Ok(Step::Skip { used })
    }
}

impl State {
    fn start() -> Self {
        State::Head {
            partial: Partial::default(),
            skipped: false,
        }
    }
}

fn most(left: u64, input: &[u8]) -> usize {
    usize::try_from(left).map_or(input.len(), |left| left.min(input.len()))
}

/// The line that starts at `line`, without its CRLF, or `None` while it is not complete. Moves `line` past it, and
/// `scanned` to where the search for its end has come. `longest` counts the CRLF, and must not change within a line:
/// the outcome may not depend on how much of the line is there yet.
fn next_line<'a>(
    input: &'a [u8],
    line: &mut usize,
    scanned: &mut usize,
    longest: usize,
    too_long: Refusal,
) -> Result<Option<&'a [u8]>, Refusal> {
    let start = *line;
    let end = input.len().min(start + longest);
    let Some(at) = input[*scanned..end].iter().position(|&b| b == b'\n') else {
        *scanned = end;
        return if end - start == longest {
            Err(too_long)
        } else {
            Ok(None)
        };
    };
    let lf = *scanned + at;
    (*line, *scanned) = (lf + 1, lf + 1);
    input[start..lf]
        .strip_suffix(b"\r")
        .map(Some)
        .ok_or(Refusal::BareLf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard::new(Limits { head: 64 << 10 })
    }

    fn verdict(limit: usize, input: &[u8]) -> Step {
        Guard::new(Limits { head: limit }).step(input)
    }

    #[test]
    fn pipelined_requests_are_found_one_by_one() {
        let mut input =
            &b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: a\r\n\r\n"
                [..];
        let mut guard = guard();
        let Step::Head { used, head } = guard.step(input) else {
            panic!()
        };
        assert_eq!(
            (head.method(), head.target(), head.body()),
            (&b"POST"[..], &b"/a"[..], Body::Length(3))
        );
        assert_eq!(guard.phase(), Phase::Body);
        input = &input[used..];
        assert_eq!(guard.step(input), Step::Data { used: 3 });
        assert_eq!(guard.phase(), Phase::Idle);
        let Step::Head { used, head } = guard.step(&input[3..]) else {
            panic!()
        };
        assert_eq!((head.target(), used), (&b"/b"[..], input.len() - 3));
    }

    #[test]
    fn the_phase_tells_an_idle_connection_from_a_started_head() {
        let mut guard = guard();
        assert_eq!(guard.phase(), Phase::Idle);
        assert_eq!(guard.step(b"G"), Step::More);
        assert_eq!(guard.phase(), Phase::Head);
    }

    #[test]
    fn limits_hold_at_the_byte() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert!(matches!(verdict(head.len(), head), Step::Head { .. }));
        assert_eq!(verdict(head.len() - 1, head), Step::Refused(Refusal::HeadTooLong));
        assert_eq!(
            verdict(head.len() - 3, &head[..head.len() - 3]),
            Step::Refused(Refusal::HeadTooLong)
        );
        assert_eq!(verdict(15, head), Step::Refused(Refusal::TargetTooLong));

        let line = |length: usize| [b"GET /", &vec![b'a'; length - 16][..], b" HTTP/1.1\r\n"].concat();
        assert_eq!(verdict(64 << 10, &line(REQUEST_LINE_MAX)), Step::More);
        assert_eq!(
            verdict(64 << 10, &line(REQUEST_LINE_MAX + 1)),
            Step::Refused(Refusal::TargetTooLong)
        );
    }

    #[test]
    fn the_hundredth_field_is_the_last() {
        let head = |count: usize| {
            format!(
                "GET / HTTP/1.1\r\n{}\r\n",
                "Host: a\r\n".replace("Host", "X").repeat(count)
            )
        };
        assert_eq!(
            verdict(64 << 10, head(101).as_bytes()),
            Step::Refused(Refusal::TooManyFields)
        );
        assert_eq!(
            verdict(64 << 10, head(100).as_bytes()),
            Step::Refused(Refusal::HostMissing)
        );
    }

    #[test]
    fn chunk_lines_and_trailers_are_bounded() {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let after_head = |rest: &[u8]| {
            let mut guard = guard();
            assert!(matches!(guard.step(head), Step::Head { .. }));
            let (mut at, mut steps) = (0, 0);
            loop {
                steps += 1;
                assert!(steps < 200_000);
                match guard.step(&rest[at..]) {
                    Step::Refused(refusal) => return Err(refusal),
                    Step::More => return Ok(()),
                    Step::End { .. } => return Ok(()),
                    Step::Data { used }
                    | Step::Chunk { used, .. }
                    | Step::ChunkEnd { used }
                    | Step::Skip { used } => at += used,
                    Step::Head { .. } => panic!(),
                }
            }
        };
        assert_eq!(
            after_head(format!("1;{}\r\n", "a".repeat(1020)).as_bytes()),
            Ok(())
        );
        assert_eq!(after_head("1".repeat(2000).as_bytes()), Err(Refusal::ChunkSize));
        assert_eq!(
            after_head(format!("1;{}\r\n", "a".repeat(1021)).as_bytes()),
            Err(Refusal::ChunkSize)
        );
        assert_eq!(after_head("1;extension\r\na\r\n".repeat(1000).as_bytes()), Ok(()));
        assert_eq!(
            after_head("1;extension\r\na\r\n".repeat(2000).as_bytes()),
            Err(Refusal::ChunkSize)
        );
        assert_eq!(
            after_head(format!("0\r\nx: {}\r\n", "a".repeat(8000)).as_bytes()),
            Ok(())
        );
        assert_eq!(
            after_head(format!("0\r\nx: {}\r\n", "a".repeat(9000)).as_bytes()),
            Err(Refusal::HeadTooLong)
        );
        assert_eq!(
            after_head(format!("0\r\n{}", "x: y\r\n".repeat(101)).as_bytes()),
            Err(Refusal::TooManyFields)
        );
    }

    #[test]
    fn a_slow_head_is_searched_once() {
        let mut guard = guard();
        let head = [b"GET / HTTP/1.1\r\nX: ", &[b'a'; 40_000][..]].concat();
        for end in 1..head.len() {
            assert_eq!(guard.step(&head[..end]), Step::More);
            assert_eq!(guard.scanned, end);
        }
    }

    #[test]
    fn nothing_comes_after_a_refusal() {
        let mut guard = guard();
        assert_eq!(guard.step(b"GET / HTTP/1.1\n"), Step::Refused(Refusal::BareLf));
        assert_eq!(
            guard.step(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            Step::Refused(Refusal::BareLf)
        );
        assert_eq!(guard.phase(), Phase::Refused);
    }
}
