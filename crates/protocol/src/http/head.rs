//! A request head that has been checked: its request line, its fields, and how its body is framed.

mod http2;

use std::ops::Range;

use super::fields::{self, field_line, host_and_port, is_target, is_token};
use super::refusal::Refusal;

pub use http2::Http2;

/// Longest method taken; the longest registered one has 17 bytes.
const METHOD_MAX: usize = 32;

/// A checked request head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The head as it came, from the request line to the empty line.
    pub(super) raw: Vec<u8>,
    pub(super) method: Range<u32>,
    pub(super) target: Range<u32>,
    pub(super) form: Form,
    pub(super) fields: Vec<Field>,
    /// Index of the Host field.
    pub(super) host: Option<usize>,
    pub(super) content_type: Option<usize>,
    minor: u8,
    is_http2: bool,
    body: Body,
    keep_alive: bool,
    expects_continue: bool,
}

/// How a request's body is framed (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// No Content-Length and no Transfer-Encoding: there is none.
    Absent,
    /// This many bytes.
    Length(u64),
    /// Chunks, or what else ends by itself.
    Chunked,
}

/// The forms of a request target that are served (RFC 9112 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `/path?query`
    Origin,
    /// `http://authority/path?query`; where the authority and the path are in the target.
    Absolute { https: bool, authority: Range<u32> },
    /// `*`
    Asterisk,
}

/// Where one field is in the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: Range<u32>,
    pub(super) value: Range<u32>,
}

impl Head {
    /// The method: a token of at most 32 bytes, never CONNECT.
    pub fn method(&self) -> &[u8] {
        self.at(&self.method)
    }

    /// The request target as it came.
    pub fn target(&self) -> &[u8] {
        self.at(&self.target)
    }

    /// The minor version of HTTP/1: 0 or 1.
    pub fn minor_version(&self) -> u8 {
        self.minor
    }

    /// The version as it is written.
    pub fn protocol(&self) -> &[u8] {
        match self.minor {
            // RFC 3875 4.1.16 has a minor version, and so have nginx, Apache and Gunicorn.
            _ if self.is_http2 => b"HTTP/2.0",
            1 => b"HTTP/1.1",
            _ => b"HTTP/1.0",
        }
    }

    /// How the body is framed.
    pub fn body(&self) -> Body {
        self.body
    }

    /// Whether the peer wants the connection kept after the reply.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the peer waits for a 100 before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// The value of the first field of this name.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let field = self
            .fields
            .iter()
            .find(|field| self.at(&field.name).eq_ignore_ascii_case(name.as_bytes()))?;
        Some(self.at(&field.value))
    }

    /// The value of the field of this name, if there is one and no second.
    pub fn only_field(&self, name: &str) -> Option<&[u8]> {
        let is_same = |field: &&Field| self.at(&field.name).eq_ignore_ascii_case(name.as_bytes());
        let mut fields = self.fields.iter().filter(is_same);
        let field = fields.next()?;
        fields.next().is_none().then(|| self.at(&field.value))
    }

    /// The values of the fields of this name, in order.
    pub fn values<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let is_same = move |field: &&Field| self.at(&field.name).eq_ignore_ascii_case(name.as_bytes());
        self.fields
            .iter()
            .filter(is_same)
            .map(move |field| self.at(&field.value))
    }

    pub(super) fn at(&self, range: &Range<u32>) -> &[u8] {
        &self.raw[range.start as usize..range.end as usize]
    }
}

/// A head that is being read, a line at a time. Offsets count from the start of the head.
#[derive(Debug, Default)]
pub(super) struct Partial {
    method: Range<u32>,
    target: Range<u32>,
    form: Option<Form>,
    minor: u8,
    is_http2: bool,
    fields: Vec<Field>,
}

impl Partial {
    /// Whether the request line has been read.
    pub(super) fn has_request_line(&self) -> bool {
        self.form.is_some()
    }

    pub(super) fn field_count(&self) -> usize {
        self.fields.len()
    }

    /// Reads the request line `line`, which starts at `start` and is given without its CRLF.
    pub(super) fn request_line(&mut self, start: usize, line: &[u8]) -> Result<(), Refusal> {
        if line.iter().any(|&b| fields::is_control(b)) {
            return Err(Refusal::Control);
        }
        let mut words = line.split(|&b| b == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Refusal::RequestLine);
        };
        if !is_token(method) {
            return Err(Refusal::Method);
        }
        self.minor = match version {
            b"HTTP/1.1" => 1,
            b"HTTP/1.0" => 0,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(Refusal::Version);
            }
            _ => return Err(Refusal::RequestLine),
        };
        if method.len() > METHOD_MAX || method == b"CONNECT" {
            return Err(Refusal::MethodUnknown);
        }
        self.form = Some(form(method, target)?);
        self.method = span(start, 0..method.len());
        self.target = span(start, method.len() + 1..method.len() + 1 + target.len());
        Ok(())
    }

    /// Reads one field line.
    pub(super) fn field_line(&mut self, start: usize, line: &[u8]) -> Result<(), Refusal> {
        let field = field_line(line)?;
        if self.fields.is_empty() {
            self.fields.reserve_exact(16);
        }
        self.fields.push(Field {
            name: span(start, field.name),
            value: span(start, field.value),
        });
        Ok(())
    }

    /// Checks what depends on several fields. `raw` is the whole head, with the empty line at its end.
    pub(super) fn finish(self, raw: &[u8]) -> Result<Head, Refusal> {
        let mut head = Head {
            raw: raw.to_vec(),
            method: self.method,
            target: self.target,
            form: self.form.ok_or(Refusal::RequestLine)?,
            fields: self.fields,
            host: None,
            content_type: None,
            minor: self.minor,
            is_http2: self.is_http2,
            body: Body::Absent,
            keep_alive: self.minor == 1,
            expects_continue: false,
        };
        let mut length = None;
        let mut coding = None;
        let (mut close, mut keep) = (false, false);
        for (index, field) in head.fields.iter().enumerate() {
            let name = head.at(&field.name);
            let value = head.at(&field.value);
            // One comparison for most fields.
            match name.len() {
                4 if name.eq_ignore_ascii_case(b"host") => {
                    if head.host.is_some() {
                        return Err(Refusal::HostRepeated);
                    }
                    host_and_port(value).ok_or(Refusal::Host)?;
                    head.host = Some(index);
                }
                6 if name.eq_ignore_ascii_case(b"expect") => {
                    if !value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Refusal::Expectation);
                    }
                    // RFC 9110 10.1.1: an HTTP/1.0 client cannot expect it.
                    head.expects_continue = head.minor == 1;
                }
                10 if name.eq_ignore_ascii_case(b"connection") => {
                    for option in fields::list(value) {
                        close |= option.eq_ignore_ascii_case(b"close");
                        keep |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                12 if name.eq_ignore_ascii_case(b"content-type") => {
                    if head.content_type.is_some() {
                        return Err(Refusal::TypeRepeated);
                    }
                    head.content_type = Some(index);
                }
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    if length.is_some() {
                        return Err(Refusal::LengthRepeated);
                    }
                    length = Some(content_length(value)?);
                }
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                    if coding.is_some() {
                        return Err(Refusal::Coding);
                    }
                    coding = Some(index);
                }
                _ => {}
            }
        }
        head.keep_alive = !close && (head.minor == 1 || keep);
        head.body = match (length, coding) {
            (Some(_), Some(_)) => return Err(Refusal::LengthAndCoding),
            (Some(length), None) => Body::Length(length),
            (None, Some(index)) => {
                if head.minor == 0 {
                    return Err(Refusal::Coding);
                }
                transfer_coding(head.at(&head.fields[index].value))?;
                Body::Chunked
            }
            (None, None) => Body::Absent,
        };
        match (&head.form, head.host) {
            (_, None) if head.minor == 1 => return Err(Refusal::HostMissing),
            (Form::Absolute { https, authority }, Some(host)) => {
                let host = head.at(&head.fields[host].value);
                let target = head.target();
                let authority = &target[authority.start as usize..authority.end as usize];
                let default = if *https { 443 } else { 80 };
                let same = match (host_and_port(host), host_and_port(authority)) {
                    (Some((host, port)), Some((other, other_port))) => {
                        host.eq_ignore_ascii_case(other)
                            && port.unwrap_or(default) == other_port.unwrap_or(default)
                    }
                    _ => false,
                };
                if !same {
                    return Err(Refusal::HostDiffers);
                }
            }
            _ => {}
        }
        Ok(head)
    }
}

fn span(start: usize, range: Range<usize>) -> Range<u32> {
    // Heads are bounded by `Limits::head`, far below u32::MAX.
    (start + range.start) as u32..(start + range.end) as u32
}

/// Tells the form of a request target (RFC 9112 3.2); the authority-form is for CONNECT only.
fn form(method: &[u8], target: &[u8]) -> Result<Form, Refusal> {
    if !is_target(target) {
        return Err(Refusal::Target);
    }
    if target[0] == b'/' {
        return Ok(Form::Origin);
    }
    if target == b"*" && method == b"OPTIONS" {
        return Ok(Form::Asterisk);
    }
    let has_scheme =
        |scheme: &[u8]| target.len() > scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme);
    let (start, https) = if has_scheme(b"http://") {
        (7, false)
    } else if has_scheme(b"https://") {
        (8, true)
    } else {
        return Err(Refusal::Target);
    };
    let end = target[start..]
        .iter()
        .position(|&b| matches!(b, b'/' | b'?'))
        .map_or(target.len(), |at| start + at);
    match host_and_port(&target[start..end]) {
        Some((host, _)) if !host.is_empty() => Ok(Form::Absolute {
            https,
            authority: start as u32..end as u32,
        }),
        _ => Err(Refusal::Target),
    }
}

/// RFC 9110 8.6: one or more digits. Lists such as `5, 5` are refused though they could be read.
pub(crate) fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::Length);
    }
    value
        .iter()
        .try_fold(0u64, |length, digit| {
            length.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        })
        .filter(|&length| length <= i64::MAX as u64)
        .ok_or(Refusal::LengthTooLong)
}

/// RFC 9112 6.1: `chunked` must come last and once; codings before it are not implemented.
fn transfer_coding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let last = value
        .split(|&b| b == b',')
        .next_back()
        .unwrap_or_default()
        .trim_ascii();
    let count = fields::list(value).filter(|coding| is_chunked(coding)).count();
    let tokens = value
        .split(|&b| b == b',')
        .all(|coding| is_token(coding.trim_ascii()));
    if tokens && is_chunked(last) && count == 1 {
        Err(Refusal::CodingUnknown)
    } else {
        Err(Refusal::Coding)
    }
}
