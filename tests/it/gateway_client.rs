//! What web servers send to an app, a byte at a time: uwsgi packets, FastCGI records and SCGI requests.

use std::net::SocketAddr;

use crate::client::{Connection, Reply, latin1};
use crate::server::Server;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Uwsgi,
    FastCgi,
    Scgi,
}

pub const DOORS: [Door; 3] = [Door::Uwsgi, Door::FastCgi, Door::Scgi];

/// Types of FastCGI records.
pub mod record {
    pub const BEGIN: u8 = 1;
    pub const ABORT: u8 = 2;
    pub const END: u8 = 3;
    pub const PARAMS: u8 = 4;
    pub const STDIN: u8 = 5;
    pub const STDOUT: u8 = 6;
    pub const GET_VALUES: u8 = 9;
    pub const VALUES: u8 = 10;
    pub const UNKNOWN: u8 = 11;

    /// A record with padding, of which there may be any.
    pub fn of(kind: u8, id: u8, content: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(content.len()).expect("fits").to_be_bytes();
        let padding = content.len() % 8;
        let mut record = vec![1, kind, 0, id, high, low, padding as u8, 0];
        record.extend_from_slice(content);
        record.resize(record.len() + padding, b'p');
        record
    }

    /// Takes a record off the front: its type, id and content.
    pub fn take(bytes: &mut Vec<u8>) -> Option<(u8, u8, Vec<u8>)> {
        let &[1, kind, 0, id, high, low, padding, _, ..] = bytes.as_slice() else {
            assert!(bytes.len() < 8, "not a record: {bytes:?}");
            return None;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let all = 8 + length + usize::from(padding);
        if bytes.len() < all {
            return None;
        }
        let content = bytes[8..8 + length].to_vec();
        bytes.drain(..all);
        Some((kind, id, content))
    }
}

/// A request as a web server has it.
#[derive(Clone, Debug)]
pub struct Asked {
    method: String,
    vars: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Asked {
    /// With what nginx sends by default.
    pub fn new(method: &str, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let vars = [
            ("QUERY_STRING", query),
            ("REQUEST_METHOD", method),
            ("CONTENT_TYPE", ""),
            ("CONTENT_LENGTH", ""),
            ("REQUEST_URI", target),
            ("PATH_INFO", path),
            ("DOCUMENT_ROOT", "/usr/share/nginx/html"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("REQUEST_SCHEME", "http"),
            ("REMOTE_ADDR", "192.0.2.7"),
            ("REMOTE_PORT", "40000"),
            ("SERVER_PORT", "80"),
            ("SERVER_NAME", ""),
            ("HTTP_HOST", "shop.example"),
            ("HTTP_ACCEPT", "*/*"),
        ];
        Self {
            method: method.to_owned(),
            vars: vars.map(|(name, value)| (name.to_owned(), value.into())).to_vec(),
            body: Vec::new(),
        }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// With a body, and what nginx says of it.
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut asked = Self::new("POST", target);
        asked.body = body.into();
        let length = asked.body.len().to_string();
        asked
            .with("CONTENT_TYPE", "text/plain")
            .with("HTTP_CONTENT_TYPE", "text/plain")
            .with("HTTP_CONTENT_LENGTH", &length)
            .with("CONTENT_LENGTH", &length)
    }

    /// Sets a variable.
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref().to_vec();
        match self.vars.iter_mut().find(|(other, _)| other == name) {
            Some(var) => var.1 = value,
            None => self.vars.push((name.to_owned(), value)),
        }
        self
    }

    /// Adds a variable that may be there already.
    pub fn and(mut self, name: &str, value: &str) -> Self {
        self.vars.push((name.to_owned(), value.into()));
        self
    }

    /// Leaves a variable out.
    pub fn without(mut self, name: &str) -> Self {
        self.vars.retain(|(other, _)| other != name);
        self
    }

    /// A uwsgi packet of another modifier than 0.
    pub fn packet(&self, modifier: u8) -> Vec<u8> {
        let mut vars = Vec::new();
        for (name, value) in &self.vars {
            for text in [name.as_bytes(), value] {
                vars.extend(u16::try_from(text.len()).expect("fits").to_le_bytes());
                vars.extend_from_slice(text);
            }
        }
        let mut packet = vec![modifier];
        packet.extend(u16::try_from(vars.len()).expect("fits").to_le_bytes());
        packet.push(0);
        packet.extend(vars);
        packet
    }

    fn netstring(&self) -> Vec<u8> {
        let is_length = |(name, _): &&(String, Vec<u8>)| name == "CONTENT_LENGTH";
        let length = self
            .vars
            .iter()
            .find(is_length)
            .map(|(_, value)| value.as_slice());
        let mut headers = b"CONTENT_LENGTH\0".to_vec();
        headers.extend_from_slice(length.filter(|length| !length.is_empty()).unwrap_or(b"0"));
        headers.extend_from_slice(b"\0SCGI\x001\0");
        for (name, value) in self.vars.iter().filter(|var| !is_length(var)) {
            headers.extend_from_slice(name.as_bytes());
            headers.push(0);
            headers.extend_from_slice(value);
            headers.push(0);
        }
        let mut string = format!("{}:", headers.len()).into_bytes();
        string.extend(headers);
        string.push(b',');
        string
    }

    /// A FastCGI request but for its body; `flags` 1 keeps the connection.
    pub fn records(&self, id: u8, flags: u8) -> Vec<u8> {
        let mut params = Vec::new();
        for (name, value) in &self.vars {
            for length in [name.len(), value.len()] {
                match u8::try_from(length) {
                    Ok(short @ 0..=127) => params.push(short),
                    _ => params.extend((length as u32 | 1 << 31).to_be_bytes()),
                }
            }
            params.extend_from_slice(name.as_bytes());
            params.extend_from_slice(value);
        }
        let mut records = record::of(record::BEGIN, id, &[0, 1, flags, 0, 0, 0, 0, 0]);
        // In pieces, as they may come.
        for piece in params.chunks(100) {
            records.extend(record::of(record::PARAMS, id, piece));
        }
        records.extend(record::of(record::PARAMS, id, b""));
        records
    }

    /// The request but for its body.
    pub fn head(&self, door: Door) -> Vec<u8> {
        match door {
            Door::Uwsgi => self.packet(0),
            Door::FastCgi => self.records(1, 0),
            Door::Scgi => self.netstring(),
        }
    }
}

impl Door {
    pub fn name(self) -> &'static str {
        match self {
            Door::Uwsgi => "uwsgi",
            Door::FastCgi => "fastcgi",
            Door::Scgi => "scgi",
        }
    }

    /// Where a server speaks it over TCP.
    #[track_caller]
    pub fn address(self, server: &Server) -> SocketAddr {
        let line = server
            .log
            .wait_for(0, &format!("listening on {}://", self.name()));
        let (_, address) = line.split_once("://").expect("an address");
        address.parse().expect("an address")
    }

    #[track_caller]
    pub fn connect(self, server: &Server) -> Connection {
        Connection::tcp(self.address(server))
    }

    /// Sends a request on a connection of its own and reads the reply.
    #[track_caller]
    pub fn ask(self, server: &Server, asked: &Asked) -> Reply {
        self.ask_on(self.connect(server), asked)
    }

    #[track_caller]
    pub fn ask_on(self, mut connection: Connection, asked: &Asked) -> Reply {
        connection.send(asked.head(self));
        let sending = connection.send_meanwhile([self.body(&asked.body), self.end()].concat());
        let reply = self.reply(&mut connection, &asked.method);
        sending.join().expect("sends the body");
        reply
    }

    /// A part of a body.
    pub fn body(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Door::FastCgi => bytes
                .chunks(60_000)
                .flat_map(|piece| record::of(record::STDIN, 1, piece))
                .collect(),
            Door::Uwsgi | Door::Scgi => bytes.to_vec(),
        }
    }

    /// What tells that a body has ended.
    pub fn end(self) -> Vec<u8> {
        match self {
            Door::FastCgi => record::of(record::STDIN, 1, b""),
            Door::Uwsgi | Door::Scgi => Vec::new(),
        }
    }

    /// The reply on a connection, which ends with it.
    #[track_caller]
    pub fn reply(self, connection: &mut Connection, method: &str) -> Reply {
        let (came, has_ended) = self.taken(connection.rest());
        let mut reply = Reply::parse(self.as_http(&came), method);
        reply.complete &= has_ended;
        reply
    }

    /// What of a reply has come, and whether its end has as far as the wire can tell.
    pub fn taken(self, mut came: Vec<u8>) -> (Vec<u8>, bool) {
        // HTTP is answered in HTTP.
        if self != Door::FastCgi || came.starts_with(b"HTTP/") {
            return (came, true);
        }
        let mut reply = Vec::new();
        while let Some((kind, id, content)) = record::take(&mut came) {
            assert_eq!(id, 1);
            match kind {
                record::STDOUT => reply.extend(content),
                record::END => {
                    assert!(came.is_empty(), "more came: {came:?}");
                    return (reply, true);
                }
                _ => panic!("a record of type {kind}"),
            }
        }
        (reply, false)
    }

    /// A reply's head as HTTP has it.
    fn as_http(self, came: &[u8]) -> Vec<u8> {
        match self {
            Door::Scgi | Door::FastCgi if !came.starts_with(b"HTTP/") => cgi_as_http(came),
            _ => came.to_vec(),
        }
    }
}

/// A reply as CGI has it, with a status line in the place of its field Status.
#[track_caller]
pub fn cgi_as_http(came: &[u8]) -> Vec<u8> {
    let text = latin1(came);
    let (head, _) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.split("\r\n").find(|line| line.starts_with("Status: "));
    let status = status.unwrap_or_else(|| panic!("no status: {head:?}"));
    let (before, after) = head.split_once(status).expect("it is there");
    let fields = [before, after.strip_prefix("\r\n").unwrap_or(after)].concat();
    let fields = fields.strip_suffix("\r\n").unwrap_or(&fields);
    let line = status.replace("Status:", "HTTP/1.1");
    let mut reply = format!("{line}\r\n{fields}").into_bytes();
    reply.extend_from_slice(&came[head.len()..]);
    reply
}
