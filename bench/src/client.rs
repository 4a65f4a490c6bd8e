//! A small HTTP client: one request, one connection. For checks; wrk makes the load.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Body, chunks put together.
    pub body: Vec<u8>,
}

/// The bytes of a request: GET, or POST if there is a body.
pub fn request(path: &str, body: Option<&[u8]>) -> Vec<u8> {
    request_to("127.0.0.1", path, body)
}

/// As [`request`], to a host of that name.
fn request_to(host: &str, path: &str, body: Option<&[u8]>) -> Vec<u8> {
    let (method, length) = match body {
        Some(body) => ("POST", format!("Content-Length: {}\r\n", body.len())),
        None => ("GET", String::new()),
    };
    let mut bytes =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{length}\r\n").into_bytes();
    bytes.extend_from_slice(body.unwrap_or_default());
    bytes
}

/// Sends a request and reads the reply.
///
/// # Errors
/// The socket's, or `InvalidData` if the reply is not whole.
pub fn ask(port: u16, path: &str, body: Option<&[u8]>, patience: Duration) -> io::Result<Reply> {
    send(port, &request(path, body), patience)
}

/// As [`ask`], for the page of one host of many.
///
/// # Errors
/// As of [`ask`].
pub fn ask_host(port: u16, host: &str, patience: Duration) -> io::Result<Reply> {
    send(port, &request_to(host, "/", None), patience)
}

fn send(port: u16, request: &[u8], patience: Duration) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| {
        let what = format!("a reply of {} bytes that is not whole", bytes.len());
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// Reads a reply that the end of its connection has ended; `None` if it is not whole.
pub fn parse(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let rest = &bytes[end + 4..];
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    };
    let body = match field("content-length") {
        Some(length) => rest.get(..length.parse().ok()?)?.to_vec(),
        None if field("transfer-encoding") == Some("chunked") => chunks(rest)?,
        None => rest.to_vec(),
    };
    Some(Reply { status, body })
}

fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(line + 2..line + 2 + size)?);
        rest = rest.get(line + 2 + size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_whole_or_none() {
        let whole = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").expect("whole");
        assert_eq!((whole.status, &whole.body[..]), (200, &b"hi"[..]));
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi").is_none());
        let chunked =
            b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1;x\r\n!\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).expect("whole").body, b"hi!");
        assert!(parse(&chunked[..chunked.len() - 8]).is_none());
    }
}
