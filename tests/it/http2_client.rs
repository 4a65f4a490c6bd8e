//! Speaks HTTP/2 as it is on the wire, a frame at a time, so that a test can break each rule of it.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::client::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;

/// Error codes (RFC 9113 7).
pub const CANCEL: u32 = 8;
pub const CALM: u32 = 11;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The status of a head, from HPACK's static table.
    pub fn status(&self) -> Option<u16> {
        let known = [200, 204, 206, 304, 400, 404, 500];
        if self.kind != HEADERS {
            return None;
        }
        // Behind what the table's size is.
        let start = self.payload.iter().position(|byte| byte & 0xe0 != 0x20)?;
        let block = &self.payload[start..];
        match block[0] {
            first @ 0x88..=0x8e => known.get(usize::from(first - 0x88)).copied(),
            // A literal, its digits as they are or in Huffman's code.
            0x08 | 0x48 => {
                let (length, text) = (block.get(1)? & 0x7f, &block[2..]);
                let digits = &text[..usize::from(length)];
                match block[1] & 0x80 {
                    0 => str::from_utf8(digits).ok()?.parse().ok(),
                    _ => of_huffman(digits),
                }
            }
            _ => None,
        }
    }

    /// The error code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// Three digits in HPACK's Huffman code: 0 to 2 have five bits, the others six.
fn of_huffman(bytes: &[u8]) -> Option<u16> {
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut rest, mut number) = (&bits[..], 0);
    for _ in 0..3 {
        let five = u16::from_str_radix(rest.get(..5)?, 2).ok()?;
        if five <= 2 {
            (number, rest) = (number * 10 + five, &rest[5..]);
        } else {
            let six = u16::from_str_radix(rest.get(..6)?, 2).ok()?;
            (number, rest) = (number * 10 + six.checked_sub(22)?, &rest[6..]);
        }
    }
    Some(number)
}

/// A connection by prior knowledge.
pub struct Http2 {
    stream: TcpStream,
    next: u32,
}

/// What a stream was answered with.
#[derive(Debug, Default)]
pub struct Answer {
    /// Of each head, 100 and the like included.
    pub statuses: Vec<u16>,
    pub body: Vec<u8>,
    pub reset: Option<u32>,
}

impl Http2 {
    /// Begins a connection with the client's preface and settings.
    pub fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &[])
    }

    /// ... with these settings as well.
    pub fn connect_with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut this = Self::silent(address);
        this.send_raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        // No table: each head of the server's says in itself what it means.
        let mut payload = vec![0, 1, 0, 0, 0, 0];
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        this.send(SETTINGS, 0, 0, &payload);
        this
    }

    /// A connection on which nothing is said.
    pub fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the server accepts connections");
        stream.set_nodelay(true).expect("an option");
        stream.set_write_timeout(Some(PATIENCE)).expect("an option");
        Self { stream, next: 1 }
    }

    /// Sends bytes; false if the server has closed.
    pub fn send_raw(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => false,
            Err(error) => panic!("sending {} bytes: {error}", bytes.len()),
        }
    }

    /// Sends `bytes` up to so many times, and reads nothing. Stops when the server takes no more, or has closed.
    pub fn flood(&mut self, bytes: &[u8], times: usize) {
        let pause = Some(Duration::from_millis(500));
        self.stream.set_write_timeout(pause).expect("an option");
        for _ in 0..times {
            if self.stream.write_all(bytes).is_err() {
                return;
            }
        }
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.send_raw(&frame(kind, flags, stream, payload))
    }

    /// Asks, with nothing after the head if `flags` has [`END_STREAM`]. Gives the stream's number.
    pub fn ask(&mut self, flags: u8, method: &str, path: &str, fields: &[(&str, &str)]) -> u32 {
        let stream = self.next_stream();
        self.send(HEADERS, flags | END_HEADERS, stream, &head(method, path, fields));
        stream
    }

    pub fn get(&mut self, path: &str) -> u32 {
        self.ask(END_STREAM, "GET", path, &[])
    }

    pub fn next_stream(&mut self) -> u32 {
        let stream = self.next;
        self.next += 2;
        stream
    }

    /// The next frame; `None` at the end of the connection.
    pub fn frame(&mut self) -> Option<Frame> {
        self.frame_within(PATIENCE).expect("a frame or the end")
    }

    /// ... an error if there is none within a time.
    pub fn frame_within(&mut self, time: Duration) -> Result<Option<Frame>, ErrorKind> {
        let mut head = [0; 9];
        let end = Instant::now() + time;
        let mut read = |to: &mut [u8]| -> Result<bool, ErrorKind> {
            let mut have = 0;
            while have < to.len() {
                let left = end.saturating_duration_since(Instant::now());
                let left = left.max(Duration::from_millis(1));
                self.stream.set_read_timeout(Some(left)).expect("an option");
                match self.stream.read(&mut to[have..]) {
                    Ok(0) => return Ok(false),
                    Ok(some) => have += some,
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
                    Err(error) => return Err(error.kind()),
                }
            }
            Ok(true)
        };
        if !read(&mut head)? {
            return Ok(None);
        }
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        if !read(&mut payload)? {
            return Ok(None);
        }
        Ok(Some(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
            payload,
        }))
    }

    /// Reads until a frame fits; `None` at the end of the connection.
    pub fn until(&mut self, fits: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.frame()?;
            self.answer_to(&frame);
            if fits(&frame) {
                return Some(frame);
            }
        }
    }

    /// What a decent client does with a frame.
    fn answer_to(&mut self, frame: &Frame) {
        match frame.kind {
            SETTINGS | PING if frame.flags & ACK == 0 => {
                let payload = if frame.kind == PING {
                    &frame.payload[..]
                } else {
                    &[]
                };
                self.send(frame.kind, ACK, 0, payload);
            }
            DATA if !frame.payload.is_empty() => {
                let more = u32::try_from(frame.payload.len())
                    .expect("is short")
                    .to_be_bytes();
                self.send(WINDOW, 0, 0, &more);
                if frame.flags & END_STREAM == 0 {
                    self.send(WINDOW, 0, frame.stream, &more);
                }
            }
            _ => {}
        }
    }

    /// Reads until each of these streams is answered, or the connection ends.
    pub fn answers(&mut self, streams: &[u32]) -> HashMap<u32, Answer> {
        let mut answers: HashMap<u32, Answer> = HashMap::new();
        let mut left = streams.to_vec();
        while !left.is_empty() {
            let Some(frame) = self.frame() else { break };
            self.answer_to(&frame);
            let answer = answers.entry(frame.stream).or_default();
            match frame.kind {
                HEADERS => answer.statuses.extend(frame.status()),
                DATA => answer.body.extend_from_slice(&frame.payload),
                RESET => answer.reset = Some(frame.code()),
                _ => continue,
            }
            if frame.kind == RESET || frame.flags & END_STREAM != 0 {
                left.retain(|stream| *stream != frame.stream);
            }
        }
        answers.remove(&0);
        answers
    }

    pub fn answer(&mut self, stream: u32) -> Answer {
        self.answers(&[stream])
            .remove(&stream)
            .expect("the stream is answered")
    }

    /// The error code of the GOAWAY that ends the connection; `None` if it ends without one.
    pub fn last_goaway(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.frame() {
            if frame.kind == GOAWAY {
                code = Some(frame.code());
            }
        }
        code
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("is short").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block of literals, `:scheme http` and `:authority test`.
pub fn head(method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x86];
    for (name, value) in [(":method", method), (":path", path), (":authority", "test")] {
        literal(&mut block, name, value);
    }
    for (name, value) in fields {
        literal(&mut block, name, value);
    }
    block
}

/// A literal field that is not indexed (RFC 7541 6.2.2).
pub fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        // A prefix of seven bits, and what is beyond it in sevens.
        match text.len() {
            short @ 0..127 => block.push(short as u8),
            mut rest => {
                block.push(127);
                rest -= 127;
                while rest >= 128 {
                    block.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                block.push(rest as u8);
            }
        }
        block.extend_from_slice(text.as_bytes());
    }
}
