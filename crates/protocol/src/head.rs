//! A checked request head, whichever wire has brought it.

use std::borrow::Cow;

use crate::environ::TooLong;
use crate::gateway;
use crate::http::{self, Body, Connection};

/// What a request says before its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// Of an HTTP request.
    Http(http::Head),
    /// Of a web server's variables: uwsgi, FastCGI, SCGI or CGI.
    Gateway(gateway::Head),
}

impl From<http::Head> for Head {
    fn from(head: http::Head) -> Self {
        Head::Http(head)
    }
}

impl From<gateway::Head> for Head {
    fn from(head: gateway::Head) -> Self {
        Head::Gateway(head)
    }
}

/// Calls the same method of either.
macro_rules! either {
    ($self:ident, $head:ident => $call:expr) => {
        match $self {
            Head::Http($head) => $call,
            Head::Gateway($head) => $call,
        }
    };
}

impl Head {
    /// The method: a token of at most 32 bytes, never CONNECT.
    pub fn method(&self) -> &[u8] {
        either!(self, head => head.method())
    }

    /// What the client asked for, as it came.
    pub fn target(&self) -> &[u8] {
        either!(self, head => head.target())
    }

    /// The protocol that the client speaks: `HTTP/1.1`.
    pub fn protocol(&self) -> &[u8] {
        either!(self, head => head.protocol())
    }

    /// How long the body is.
    pub fn body(&self) -> Body {
        either!(self, head => head.body())
    }

    /// The value of the first field of this name.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        either!(self, head => head.field(name))
    }

    /// The value of the field of this name, if there is one and no second.
    pub fn only_field(&self, name: &str) -> Option<&[u8]> {
        either!(self, head => head.only_field(name))
    }

    /// The values of the fields of this name, given in lower case, in order.
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        either!(self, head => head.values(name).collect())
    }

    /// The name of the host asked for, as it came, without a port; `localhost` if none was.
    pub fn host(&self) -> &[u8] {
        either!(self, head => head.host())
    }

    /// The path asked for, percent-decoded once; what `SCRIPT_NAME` and `PATH_INFO` have between them.
    pub fn path(&self) -> Cow<'_, [u8]> {
        match self {
            Head::Http(head) => head.path(),
            Head::Gateway(head) => Cow::Borrowed(head.path()),
        }
    }

    /// How much of the path is `SCRIPT_NAME` for an app that is mounted there: the mount, or what a web server in front
    /// has split off if that is more.
    pub fn script_length(&self, mount: &str) -> usize {
        match self {
            Head::Http(_) => mount.len(),
            Head::Gateway(head) => head.script_length(mount),
        }
    }

    /// The path as it came, and what follows its `?`.
    pub fn raw_path_and_query(&self) -> (&[u8], Option<&[u8]>) {
        either!(self, head => head.raw_path_and_query())
    }

    /// The client's address, if the wire tells of another than its peer's.
    pub fn remote(&self) -> Option<&str> {
        match self {
            Head::Http(_) => None,
            Head::Gateway(head) => head.remote(),
        }
    }

    /// The environ block of this request, for an app that is mounted at `mount`.
    ///
    /// # Errors
    /// [`TooLong`] when fields joined do not fit a value.
    pub fn environ(&self, connection: &Connection<'_>, mount: &str) -> Result<Vec<u8>, TooLong> {
        either!(self, head => head.environ(connection, mount))
    }
}
