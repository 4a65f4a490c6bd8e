//! A small HTTP/1.1 client on a raw socket, so that tests see framing as it is on the wire.
//!
//! It is strict: a reply that is not well-formed fails the test. Every read has a deadline and a size limit.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a reply may take unless a test says otherwise: long enough for a worker to be replaced on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
const LARGEST: usize = 64 << 20;

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One connection to the server.
pub struct Connection {
    stream: Stream,
    received: Vec<u8>,
    at_end: bool,
}

/// A reply's head, and where its body ends.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    pub reason: String,
    /// In the order of arrival; values are latin-1.
    pub headers: Vec<(String, String)>,
    pub framing: Framing,
}

/// How the end of a body is told (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Nothing,
    Length(usize),
    Chunked,
    Close,
}

/// A reply, read as far as it came.
#[derive(Clone, Debug)]
pub struct Reply {
    pub head: Head,
    pub body: Vec<u8>,
    /// False if the connection was cut before the body's end.
    pub complete: bool,
}

impl Connection {
    pub fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the server accepts connections");
        stream.set_nodelay(true).expect("a socket option");
        Self::new(Stream::Tcp(stream))
    }

    pub fn unix(path: &Path) -> Self {
        Self::new(Stream::Unix(
            UnixStream::connect(path).expect("the server accepts connections"),
        ))
    }

    fn new(stream: Stream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            at_end: false,
        }
    }

    /// Sends all of `bytes`. That the server has closed meanwhile is not an error: its reply tells more.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes.as_ref());
        self
    }

    /// As `send`, and tells whether everything could be handed over.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        let patience = Some(PATIENCE);
        let sent = match &mut self.stream {
            Stream::Tcp(stream) => stream
                .set_write_timeout(patience)
                .and_then(|()| stream.write_all(bytes)),
            Stream::Unix(stream) => stream
                .set_write_timeout(patience)
                .and_then(|()| stream.write_all(bytes)),
        };
        match sent {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => false,
            Err(error) => panic!("sending {} bytes: {error}", bytes.len()),
        }
    }

    /// Sends `bytes` from another thread, so that the reply can be read meanwhile.
    pub fn send_meanwhile(&mut self, bytes: Vec<u8>) -> JoinHandle<()> {
        let stream = match &self.stream {
            Stream::Tcp(stream) => stream.try_clone().map(Stream::Tcp),
            Stream::Unix(stream) => stream.try_clone().map(Stream::Unix),
        };
        let mut sender = Self::new(stream.expect("a second handle"));
        thread::spawn(move || {
            sender.try_send(&bytes);
        })
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) -> &mut Self {
        let _ = match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
        self
    }

    /// The reply to a GET or POST.
    pub fn reply(&mut self) -> Reply {
        self.reply_to("GET")
    }

    /// The reply to a request of this method; HEAD has no body.
    pub fn reply_to(&mut self, method: &str) -> Reply {
        let head = self.head_to(method);
        let mut body = Vec::new();
        let complete = match head.framing {
            Framing::Nothing => true,
            Framing::Length(length) => {
                let there = self.fill(length, Instant::now() + PATIENCE);
                body.extend(self.received.drain(..length.min(self.received.len())));
                there
            }
            Framing::Close => {
                while self.receive(Instant::now() + PATIENCE) {}
                body.append(&mut self.received);
                true
            }
            Framing::Chunked => loop {
                match self.chunk() {
                    Some(chunk) if chunk.is_empty() => break true,
                    Some(chunk) => body.extend(chunk),
                    None => break false,
                }
            },
        };
        Reply { head, body, complete }
    }

    /// The next reply, or `None` if the server closes the connection instead.
    pub fn reply_or_close(&mut self) -> Option<Reply> {
        while self.received.is_empty() {
            if !self.receive(Instant::now() + PATIENCE) {
                return None;
            }
        }
        Some(self.reply())
    }

    /// The head of the next reply. Interim replies (1xx) are heads of their own.
    pub fn head_to(&mut self, method: &str) -> Head {
        let deadline = Instant::now() + PATIENCE;
        let end = loop {
            if let Some(at) = find(&self.received, b"\r\n\r\n") {
                break at;
            }
            assert!(
                self.receive(deadline),
                "the connection was closed before a whole head: {:?}",
                String::from_utf8_lossy(&self.received)
            );
        };
        let text = latin1(&self.received[..end]);
        self.received.drain(..end + 4);
        Head::parse(&text, method)
    }

    /// The next chunk of a chunked body: empty is the last one, `None` a cut connection.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        let end = loop {
            if let Some(at) = find(&self.received, b"\r\n") {
                break at;
            }
            if !self.receive(deadline) {
                assert!(
                    self.received.len() < 20,
                    "not a chunk size: {:?}",
                    latin1(&self.received)
                );
                return None;
            }
        };
        let text = latin1(&self.received[..end]);
        let size = usize::from_str_radix(&text, 16).unwrap_or_else(|_| panic!("not a chunk size: {text:?}"));
        if !self.fill(end + 2 + size + 2, deadline) {
            return None;
        }
        let chunk = self.received[end + 2..end + 2 + size].to_vec();
        assert_eq!(
            &self.received[end + 2 + size..end + 4 + size],
            b"\r\n",
            "a chunk ends with CR LF"
        );
        self.received.drain(..end + 4 + size);
        Some(chunk)
    }

    /// Whether the server closes the connection without sending anything more.
    pub fn is_closed(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.received.is_empty() && self.receive(deadline) {}
        assert!(
            self.received.is_empty(),
            "more came: {:?}",
            latin1(&self.received)
        );
        true
    }

    /// What has come, waiting until something has.
    #[track_caller]
    pub fn some(&mut self) -> Vec<u8> {
        if self.received.is_empty() {
            assert!(
                self.receive(Instant::now() + PATIENCE),
                "the connection was closed"
            );
        }
        std::mem::take(&mut self.received)
    }

    /// Whatever comes until the connection ends.
    pub fn rest(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        while self.receive(deadline) {}
        std::mem::take(&mut self.received)
    }

    fn fill(&mut self, length: usize, deadline: Instant) -> bool {
        while self.received.len() < length {
            if !self.receive(deadline) {
                return false;
            }
        }
        true
    }

    /// Takes what has arrived; false at the end of the connection.
    fn receive(&mut self, deadline: Instant) -> bool {
        if self.at_end {
            return false;
        }
        let mut buffer = [0; 65536];
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        match self.read(&mut buffer, left) {
            Ok(0) => self.at_end = true,
            Ok(size) => self.received.extend_from_slice(&buffer[..size]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.at_end = true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                let start = &self.received[..self.received.len().min(500)];
                panic!(
                    "no reply within {:?} ({error}); so far: {:?}",
                    PATIENCE,
                    latin1(start)
                )
            }
        }
        assert!(
            self.received.len() <= LARGEST,
            "the reply is larger than {LARGEST} bytes"
        );
        !self.at_end
    }

    fn read(&mut self, buffer: &mut [u8], time: Duration) -> std::io::Result<usize> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream
                .set_read_timeout(Some(time))
                .and_then(|()| stream.read(buffer)),
            Stream::Unix(stream) => stream
                .set_read_timeout(Some(time))
                .and_then(|()| stream.read(buffer)),
        }
    }
}

impl Head {
    fn parse(text: &str, method: &str) -> Self {
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let mut words = line.splitn(3, ' ');
        let version = words.next().unwrap_or_default();
        assert!(
            version == "HTTP/1.1" || version == "HTTP/1.0",
            "not a status line: {line:?}"
        );
        let code = words.next().unwrap_or_default();
        assert!(code.len() == 3, "not a status line: {line:?}");
        let status = code
            .parse()
            .unwrap_or_else(|_| panic!("not a status line: {line:?}"));
        let reason = words.next().unwrap_or_default().to_owned();
        let headers: Vec<_> = lines
            .map(|line| {
                let (name, value) = line
                    .split_once(':')
                    .unwrap_or_else(|| panic!("not a field: {line:?}"));
                assert!(
                    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()),
                    "not a field name: {name:?}"
                );
                assert!(
                    !value.contains(['\r', '\n', '\0']),
                    "not a field value: {value:?}"
                );
                (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
            })
            .collect();
        let lengths = values(&headers, "content-length");
        let codings = values(&headers, "transfer-encoding");
        assert!(lengths.len() + codings.len() <= 1, "framed twice: {text:?}");
        let bodyless = status < 200 || status == 204 || status == 304;
        let framing = if bodyless {
            assert!(
                codings.is_empty() && (status == 304 || lengths.is_empty()),
                "framing without a body: {text:?}"
            );
            Framing::Nothing
        } else if method == "HEAD" {
            Framing::Nothing
        } else if let Some(coding) = codings.first() {
            assert_eq!(*coding, "chunked");
            Framing::Chunked
        } else if let Some(length) = lengths.first() {
            Framing::Length(
                length
                    .parse()
                    .unwrap_or_else(|_| panic!("not a length: {length:?}")),
            )
        } else {
            Framing::Close
        };
        Self {
            status,
            reason,
            headers,
            framing,
        }
    }

    /// The value of a field; fails if it is there twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} is there {} times: {all:?}", all.len());
        all.first().copied()
    }

    /// The values of every field of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        values(&self.headers, name)
    }
}

impl Reply {
    /// Of all that has come on a connection that is closed now.
    #[track_caller]
    pub fn parse(came: Vec<u8>, method: &str) -> Self {
        let end = find(&came, b"\r\n\r\n")
            .unwrap_or_else(|| panic!("not a whole head: {:?}", latin1(&came[..came.len().min(500)])));
        let head = Head::parse(&latin1(&came[..end]), method);
        let body = came[end + 4..].to_vec();
        let complete = match head.framing {
            Framing::Nothing => body.is_empty(),
            Framing::Length(length) => body.len() == length,
            Framing::Close => true,
            Framing::Chunked => panic!("chunks are for HTTP"),
        };
        Self { head, body, complete }
    }

    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body as text, bytes that are not UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// Fails unless the reply has this status and came whole.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert!(
            self.status() == status && self.complete,
            "expected a whole {status}, got {} (complete: {}): {:?}",
            self.status(),
            self.complete,
            self.text().chars().take(2000).collect::<String>()
        );
        self
    }
}

fn values<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    headers
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
        .collect()
}

/// One character per byte.
pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
