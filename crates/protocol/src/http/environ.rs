//! The environ of an HTTP request: PEP 3333 "environ Variables", after RFC 3875 4.1.

use std::borrow::Cow;

use super::fields::host_and_port;
use super::head::{Body, Form, Head};
use crate::environ::{EnvironBlock, TooLong};
use crate::forwarded::{Forwarded, Withheld};

/// What the environ says of the connection. Texts, so that they are made once per connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection<'a> {
    /// `http` or `https`, the guest's `wsgi.url_scheme`.
    pub scheme: &'a str,
    /// The peer's IP address and port; empty on a unix socket.
    pub remote: (&'a str, &'a str),
    /// Address and port the peer connected to; `None` on a unix socket, where the Host field has to tell.
    pub server: Option<(&'a str, &'a str)>,
    /// Fields that the server itself sets, by names in lower case; the peer's own of these names are dropped.
    pub own_fields: &'a [(&'a str, &'a [u8])],
    /// What a proxy in front says, if any are trusted; it counts before the rest.
    pub forwarded: Option<&'a Forwarded>,
}

impl Head {
    /// Makes the environ block of this request.
    ///
    /// - `PATH_INFO` is percent-decoded once, to raw bytes; `QUERY_STRING` and `REQUEST_URI` are as they came. A `%`
    ///   that no two hex digits follow stays, as `urllib.parse.unquote` has it. If the path begins with `mount`, that
    ///   part of it is `SCRIPT_NAME` instead; give `""` for an app at the root.
    /// - `CONTENT_LENGTH` and `CONTENT_TYPE` are there if the request has them, and never as `HTTP_*`.
    /// - Fields of one name are joined with `,`, or `; ` for Cookie (RFC 9110 5.3, RFC 6265 5.4).
    /// - Names with `_` are dropped, since `X_A` and `X-A` would become one key, and so is `Proxy` (CVE-2016-5388).
    /// - `REQUEST_SCHEME` is the scheme; `wsgi.*` keys are the guest's own.
    /// - What a trusted proxy says sets `REMOTE_ADDR`, `REMOTE_PORT`, `REQUEST_SCHEME`, `HTTP_HOST`, `SERVER_NAME` and
    ///   `SERVER_PORT`, and `SCRIPT_NAME` begins with what it took off the path.
    ///
    /// # Errors
    /// [`TooLong`] when fields joined do not fit a value; the head's limit keeps all else short enough.
    pub fn environ(&self, connection: &Connection<'_>, mount: &str) -> Result<Vec<u8>, TooLong> {
        let mut block = EnvironBlock::with_capacity(self.raw.len() + self.raw.len() / 2 + 384);
        let (path, query) = self.path_and_query();
        block.push(b"REQUEST_METHOD", self.method())?;
        let prefix = connection.forwarded.map_or("", |told| &told.prefix);
        block.push_parts(&[b"SCRIPT_NAME"], &[prefix.as_bytes(), mount.as_bytes()])?;
        block.push_with(&[b"PATH_INFO"], |value| {
            let start = value.len();
            percent_decode(path, value);
            if value[start..].starts_with(mount.as_bytes()) {
                value.drain(start..start + mount.len());
            }
        })?;
        block.push(b"QUERY_STRING", query)?;
        block.push(b"REQUEST_URI", self.target())?;
        block.push(b"SERVER_PROTOCOL", self.protocol())?;
        let told = connection.forwarded.map(|told| told.vars(self.authority_field()));
        let told = told.unwrap_or_default();
        let scheme = told
            .get(b"REQUEST_SCHEME")
            .unwrap_or(connection.scheme.as_bytes());
        let (name, port) = match connection.server {
            Some((name, port)) => (name.as_bytes(), Cow::Borrowed(port)),
            None => {
                let (name, port) = self.authority();
                let port = port.unwrap_or(if scheme == b"https" { 443 } else { 80 });
                (name, Cow::Owned(port.to_string()))
            }
        };
        for (key, value) in [
            (&b"REQUEST_SCHEME"[..], scheme),
            (b"REMOTE_ADDR", connection.remote.0.as_bytes()),
            (b"REMOTE_PORT", connection.remote.1.as_bytes()),
            (b"SERVER_NAME", name),
            (b"SERVER_PORT", port.as_bytes()),
        ] {
            block.push(key, told.get(key).unwrap_or(value))?;
        }
        let host = told.get(b"HTTP_HOST");
        if let Some(host) = host {
            block.push(b"HTTP_HOST", host)?;
        }
        if let Body::Length(length) = self.body() {
            block.push(b"CONTENT_LENGTH", length.to_string().as_bytes())?;
        }
        if let Some(field) = self.content_type {
            block.push(b"CONTENT_TYPE", self.at(&self.fields[field].value))?;
        }
        self.push_fields(&mut block, connection, host.is_some())?;
        for (name, value) in connection.own_fields {
            let mut key = name.as_bytes().to_vec();
            as_key(&mut key);
            block.push_parts(&[b"HTTP_", &key], &[value])?;
        }
        Ok(block.into_bytes())
    }

    /// The path asked for, percent-decoded once; what `SCRIPT_NAME` and `PATH_INFO` have between them.
    pub fn path(&self) -> Cow<'_, [u8]> {
        let (path, _) = self.path_and_query();
        if !path.contains(&b'%') {
            return Cow::Borrowed(path);
        }
        let mut decoded = Vec::with_capacity(path.len());
        percent_decode(path, &mut decoded);
        Cow::Owned(decoded)
    }

    /// The path as it came, and what follows its `?`.
    pub fn raw_path_and_query(&self) -> (&[u8], Option<&[u8]>) {
        let (path, query) = self.path_and_query();
        let has_query = !query.is_empty() || self.target().ends_with(b"?");
        (path, has_query.then_some(query))
    }

    /// The name of the host asked for, as it came, without a port; `localhost` if none was.
    pub fn host(&self) -> &[u8] {
        self.authority().0
    }

    fn push_fields(
        &self,
        block: &mut EnvironBlock,
        connection: &Connection<'_>,
        has_host: bool,
    ) -> Result<(), TooLong> {
        let withheld = connection
            .forwarded
            .map_or(Withheld::default(), |told| told.withheld);
        let is_own = |name: &[u8]| {
            let mut own = connection.own_fields.iter();
            own.any(|(own, _)| name.eq_ignore_ascii_case(own.as_bytes()))
                || withheld.has(name)
                || has_host && name.eq_ignore_ascii_case(b"host")
        };
        // A bit per field that an earlier one of its name has taken along; heads have at most 100.
        let mut taken = 0u128;
        let mut key = [0; 64];
        for (index, field) in self.fields.iter().enumerate() {
            let name = self.at(&field.name);
            if taken & (1 << index) != 0 || !is_passed(name) || is_own(name) {
                continue;
            }
            let is_same = |other: &[u8]| other.len() == name.len() && other.eq_ignore_ascii_case(name);
            let separator: &[u8] = if name.eq_ignore_ascii_case(b"cookie") {
                b"; "
            } else {
                b","
            };
            let write = |value: &mut Vec<u8>| {
                value.extend_from_slice(self.at(&field.value));
                for (index, other) in self.fields.iter().enumerate().skip(index + 1) {
                    if is_same(self.at(&other.name)) {
                        taken |= 1 << index;
                        value.extend_from_slice(separator);
                        value.extend_from_slice(self.at(&other.value));
                    }
                }
            };
            match key.get_mut(..name.len()) {
                Some(key) => {
                    key.copy_from_slice(name);
                    as_key(key);
                    block.push_with(&[b"HTTP_", key], write)?;
                }
                None => {
                    let mut key = name.to_vec();
                    as_key(&mut key);
                    block.push_with(&[b"HTTP_", &key], write)?;
                }
            }
        }
        Ok(())
    }

    fn path_and_query(&self) -> (&[u8], &[u8]) {
        let target = self.target();
        let rest = match &self.form {
            Form::Origin => target,
            Form::Absolute { authority, .. } => &target[authority.end as usize..],
            // RFC 3875 4.1.5: a path starts with a slash or is empty.
            Form::Asterisk => b"",
        };
        let (path, query) = match rest.iter().position(|&b| b == b'?') {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (rest, &b""[..]),
        };
        // RFC 9112 3.2.2: an absolute-form target without a path means the root.
        if path.is_empty() && matches!(self.form, Form::Absolute { .. }) {
            (b"/", query)
        } else {
            (path, query)
        }
    }

    /// What the peer asked for, as it came; empty if it named no host.
    fn authority_field(&self) -> &[u8] {
        match (&self.form, self.host) {
            (Form::Absolute { authority, .. }, _) => {
                &self.target()[authority.start as usize..authority.end as usize]
            }
            (_, Some(host)) => self.at(&self.fields[host].value),
            (_, None) => b"",
        }
    }

    /// The host and port the peer asked for.
    fn authority(&self) -> (&[u8], Option<u16>) {
        match host_and_port(self.authority_field()) {
            Some((host, port)) if !host.is_empty() => (host, port),
            // RFC 3875 4.1.14: SERVER_NAME may not be empty.
            _ => (b"localhost", None),
        }
    }
}

/// Whether a field reaches the environ as `HTTP_*`.
fn is_passed(name: &[u8]) -> bool {
    let dropped = match name.len() {
        5 => name.eq_ignore_ascii_case(b"proxy"),
        12 => name.eq_ignore_ascii_case(b"content-type"),
        14 => name.eq_ignore_ascii_case(b"content-length"),
        _ => false,
    };
    !dropped && !name.contains(&b'_')
}

fn as_key(name: &mut [u8]) {
    for b in name {
        *b = if *b == b'-' { b'_' } else { b.to_ascii_uppercase() };
    }
}

/// Appends `path` to `out` with each `%XX` made a byte.
pub(crate) fn percent_decode(path: &[u8], out: &mut Vec<u8>) {
    let digit = |b: u8| (b as char).to_digit(16).map(|digit| digit as u8);
    let mut rest = path;
    while let Some(at) = rest.iter().position(|&b| b == b'%') {
        out.extend_from_slice(&rest[..at]);
        let byte = match rest[at..] {
            [_, high, low, ..] => digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        out.push(byte.unwrap_or(b'%'));
        rest = &rest[at + if byte.is_some() { 3 } else { 1 }..];
    }
    out.extend_from_slice(rest);
}

/// Appends `path` to `out` with each byte that has no place in a request target made `%XX`.
pub(crate) fn percent_encode(path: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &b in path {
        // RFC 3986 3.3, pchar and the slash.
        match b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&b) {
            true => out.push(b),
            false => out.extend([b'%', DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environ::iter;
    use crate::http::{Guard, Limits, Step};

    const TCP: Connection<'_> = Connection {
        scheme: "http",
        remote: ("192.0.2.1", "40000"),
        server: Some(("127.0.0.1", "8000")),
        own_fields: &[],
        forwarded: None,
    };
    const UNIX: Connection<'_> = Connection {
        scheme: "http",
        remote: ("", ""),
        server: None,
        own_fields: &[],
        forwarded: None,
    };

    fn head(text: &str) -> Head {
        match Guard::new(Limits { head: 1 << 20 }).step(text.as_bytes()) {
            Step::Head { head, .. } => head,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn get(text: &str, connection: &Connection<'_>, key: &str) -> Option<String> {
        get_mounted(text, connection, "", key)
    }

    fn get_mounted(text: &str, connection: &Connection<'_>, mount: &str, key: &str) -> Option<String> {
        let block = head(text).environ(connection, mount).unwrap();
        let mut found = iter(&block)
            .map(Result::unwrap)
            .filter(|pair| pair.0 == key.as_bytes());
        let value = found
            .next()
            .map(|pair| String::from_utf8_lossy(pair.1).into_owned());
        assert_eq!(found.next(), None, "{key} is there once");
        value
    }

    #[test]
    fn paths_are_decoded_once_and_queries_not() {
        let head = "GET /a%20b%252F%zz%4?x=%20 HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(get(head, &TCP, "PATH_INFO").unwrap(), "/a b%2F%zz%4");
        assert_eq!(get(head, &TCP, "QUERY_STRING").unwrap(), "x=%20");
        assert_eq!(get(head, &TCP, "REQUEST_URI").unwrap(), "/a%20b%252F%zz%4?x=%20");
        let mut out = Vec::new();
        percent_decode(b"/%c3%A9%00%", &mut out);
        assert_eq!(out, b"/\xc3\xa9\0%");
    }

    #[test]
    fn a_mount_is_taken_off_the_decoded_path() {
        for (target, path) in [("/em/a%20b?x", "/a b"), ("/%65m/", "/"), ("/em", "")] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let get = |key| get_mounted(&head, &TCP, "/em", key).unwrap();
            assert_eq!(
                (get("SCRIPT_NAME"), get("PATH_INFO")),
                ("/em".into(), path.into())
            );
            assert_eq!(get("REQUEST_URI"), target);
        }
    }

    #[test]
    fn a_query_is_told_from_none() {
        for (target, query) in [("/a", None), ("/a?", Some(&b""[..])), ("/a?b?", Some(b"b?"))] {
            let head = head(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(head.raw_path_and_query(), (&b"/a"[..], query), "{target}");
        }
    }

    #[test]
    fn fields_are_joined_and_ambiguous_ones_dropped() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nCookie: a=1\r\nX_A: 2\r\nx-a: 3\r\nProxy: evil\r\n\
                    cookie: b=2\r\nContent-Type: t\r\nContent-Length: 007\r\nContent_Length: 9\r\n\r\n";
        assert_eq!(get(head, &TCP, "HTTP_X_A").unwrap(), "1,3");
        assert_eq!(get(head, &TCP, "HTTP_COOKIE").unwrap(), "a=1; b=2");
        assert_eq!(get(head, &TCP, "HTTP_PROXY"), None);
        assert_eq!(get(head, &TCP, "HTTP_CONTENT_TYPE"), None);
        assert_eq!(get(head, &TCP, "HTTP_CONTENT_LENGTH"), None);
        assert_eq!(get(head, &TCP, "CONTENT_TYPE").unwrap(), "t");
        assert_eq!(get(head, &TCP, "CONTENT_LENGTH").unwrap(), "7");
    }

    #[test]
    fn what_the_server_sets_no_peer_can() {
        let own_fields: &[(&str, &[u8])] = &[("x-request-id", b"ours")];
        let connection = Connection { own_fields, ..TCP };
        let head =
            "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\r\nX-REQUEST-ID: b\r\nx_request_id: c\r\n\r\n";
        assert_eq!(get(head, &connection, "HTTP_X_REQUEST_ID").unwrap(), "ours");
        assert_eq!(get(head, &TCP, "HTTP_X_REQUEST_ID").unwrap(), "a,b");
    }

    #[test]
    fn a_name_longer_than_the_stack_buffer_is_passed() {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-{}: y\r\n\r\n", "a".repeat(80));
        assert_eq!(
            get(&head, &TCP, &format!("HTTP_X_{}", "A".repeat(80))).unwrap(),
            "y"
        );
    }

    #[test]
    fn the_server_is_the_listener_or_on_a_unix_socket_the_host_field() {
        let head = "GET / HTTP/1.1\r\nHost: shop.example:8080\r\n\r\n";
        assert_eq!(get(head, &TCP, "SERVER_NAME").unwrap(), "127.0.0.1");
        assert_eq!(get(head, &TCP, "SERVER_PORT").unwrap(), "8000");
        assert_eq!(get(head, &UNIX, "SERVER_NAME").unwrap(), "shop.example");
        assert_eq!(get(head, &UNIX, "SERVER_PORT").unwrap(), "8080");
        assert_eq!(
            get("GET / HTTP/1.0\r\n\r\n", &UNIX, "SERVER_NAME").unwrap(),
            "localhost"
        );
        assert_eq!(get("GET / HTTP/1.0\r\n\r\n", &UNIX, "SERVER_PORT").unwrap(), "80");
        assert_eq!(get(head, &UNIX, "REMOTE_ADDR").unwrap(), "");
    }

    #[test]
    fn what_a_proxy_says_counts_before_the_connection() {
        let told = Forwarded {
            scheme: Some("https"),
            prefix: "/shop".to_owned(),
            ..Forwarded::default()
        };
        let unix = Connection {
            forwarded: Some(&told),
            ..UNIX
        };
        let head = "GET /em/a HTTP/1.1\r\nHost: shop.example\r\n\r\n";
        let get = |key| get_mounted(head, &unix, "/em", key).unwrap();
        assert_eq!(
            (get("SCRIPT_NAME"), get("PATH_INFO")),
            ("/shop/em".into(), "/a".into())
        );
        assert_eq!(
            (get("REQUEST_SCHEME"), get("SERVER_PORT")),
            ("https".into(), "443".into())
        );
        assert_eq!(
            (get("HTTP_HOST"), get("REMOTE_ADDR")),
            ("shop.example".into(), String::new())
        );
    }

    #[test]
    fn other_forms_of_target() {
        let head = "GET HTTP://a:80?q HTTP/1.1\r\nHost: A\r\n\r\n";
        assert_eq!(get(head, &TCP, "PATH_INFO").unwrap(), "/");
        assert_eq!(get(head, &TCP, "QUERY_STRING").unwrap(), "q");
        assert_eq!(
            get("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &TCP, "PATH_INFO").unwrap(),
            ""
        );
    }

    #[test]
    fn joined_fields_that_do_not_fit_a_value_are_an_error() {
        let field = format!("X-A: {}\r\n", "a".repeat(40_000));
        let head = head(&format!("GET / HTTP/1.1\r\nHost: a\r\n{field}{field}\r\n"));
        assert_eq!(head.environ(&TCP, "").unwrap_err().key, "HTTP_X_A");
    }
}
