//! What web servers send to an app, a byte at a time: uwsgi packets and SCGI requests.

use std::net::SocketAddr;

use crate::client::{Connection, Reply};
use crate::server::Server;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Uwsgi,
    Scgi,
}

pub const DOORS: [Door; 2] = [Door::Uwsgi, Door::Scgi];

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

    /// The request but for its body.
    pub fn head(&self, door: Door) -> Vec<u8> {
        match door {
            Door::Uwsgi => self.packet(0),
            Door::Scgi => self.netstring(),
        }
    }
}

impl Door {
    pub fn name(self) -> &'static str {
        match self {
            Door::Uwsgi => "uwsgi",
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
        let sending = connection.send_meanwhile(asked.body.clone());
        let reply = self.reply(&mut connection, &asked.method);
        sending.join().expect("sends the body");
        reply
    }

    /// The reply on a connection, which ends with it.
    #[track_caller]
    pub fn reply(self, connection: &mut Connection, method: &str) -> Reply {
        let came = connection.rest();
        Reply::parse(self.as_http(&came), method)
    }

    /// A reply's head as HTTP has it.
    fn as_http(self, came: &[u8]) -> Vec<u8> {
        match (self, came.strip_prefix(b"Status: ")) {
            (Door::Scgi, Some(rest)) => [b"HTTP/1.1 ", rest].concat(),
            _ => came.to_vec(),
        }
    }
}
