//! Heads of HTTP/2: the same checks, of fields that come without the lines around them.

use std::ops::Range;

use super::{METHOD_MAX, Partial, form, span};
use crate::http::fields::{host_and_port, is_token};
use crate::http::guard::{FIELDS_MAX, REQUEST_LINE_MAX};
use crate::http::{Body, Head, Refusal};

/// The control data of a request (RFC 9113 8.3.1). `:scheme` is not among them: which one it is, the connection tells.
#[derive(Clone, Copy, Debug)]
pub struct Http2<'a> {
    /// `:method`.
    pub method: &'a [u8],
    /// `:authority`, if it is there.
    pub authority: Option<&'a [u8]>,
    /// `:path`; CONNECT has none.
    pub path: &'a [u8],
    /// Whether the request ends with its head.
    pub ends: bool,
}

impl Head {
    /// A head of HTTP/2, as if it had come in lines: `:authority` is its Host field, and the Cookie fields that a client
    /// may send apart are one (RFC 9113 8.2.3). `fields` have names in lower case.
    ///
    /// # Errors
    /// What the other versions are refused for; and fields that are about a connection (8.2.2), or a Host field that is
    /// not what `:authority` says.
    pub fn of_http2<'a>(
        request: &Http2<'a>,
        fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        longest: usize,
    ) -> Result<Self, Refusal> {
        let Http2 { method, path, .. } = *request;
        if !is_token(method) {
            return Err(Refusal::Method);
        }
        if method.len() > METHOD_MAX || method == b"CONNECT" {
            return Err(Refusal::MethodUnknown);
        }
        if !path.starts_with(b"/") && path != b"*" {
            return Err(Refusal::Target);
        }
        let mut raw = [method, b" ", path, b" HTTP/2.0\r\n"].concat();
        if raw.len() > REQUEST_LINE_MAX.min(longest) {
            return Err(Refusal::TargetTooLong);
        }
        let mut partial = Partial {
            form: Some(form(method, path)?),
            method: span(0, 0..method.len()),
            target: span(0, method.len() + 1..method.len() + 1 + path.len()),
            minor: 1,
            is_http2: true,
            fields: Vec::new(),
        };
        if let Some(authority) = request.authority {
            partial.add(&mut raw, b"host", authority)?;
        }
        let mut cookies: Option<Vec<u8>> = None;
        for (name, value) in fields {
            match (name, request.authority) {
                (b"host", Some(authority)) => {
                    if !is_same_host(value, authority) {
                        return Err(Refusal::HostDiffers);
                    }
                }
                (b"cookie", _) => match &mut cookies {
                    Some(cookies) => {
                        cookies.extend_from_slice(b"; ");
                        cookies.extend_from_slice(value);
                    }
                    None => cookies = Some(value.to_vec()),
                },
                (
                    b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade",
                    _,
                ) => return Err(Refusal::ConnectionField),
                (b"te", _) if value != b"trailers" => return Err(Refusal::ConnectionField),
                _ => partial.add(&mut raw, name, value)?,
            }
            if raw.len() + cookies.as_ref().map_or(0, Vec::len) > longest {
                return Err(Refusal::HeadTooLong);
            }
        }
        if let Some(cookies) = cookies {
            partial.add(&mut raw, b"cookie", &cookies)?;
        }
        raw.extend_from_slice(b"\r\n");
        if raw.len() > longest {
            return Err(Refusal::HeadTooLong);
        }
        let mut head = partial.finish(&raw)?;
        head.body = match (head.body, request.ends) {
            (Body::Length(1..), true) => return Err(Refusal::Length),
            (Body::Absent, false) => Body::Chunked,
            (body, _) => body,
        };
        Ok(head)
    }
}

impl Partial {
    /// Writes a field's line and reads it as any other.
    fn add(&mut self, raw: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        // A colon in it would make it another.
        if !is_token(name) {
            return Err(Refusal::FieldName);
        }
        if self.field_count() == FIELDS_MAX {
            return Err(Refusal::TooManyFields);
        }
        let start = raw.len();
        for part in [name, b": ", value] {
            raw.extend_from_slice(part);
        }
        let line: Range<usize> = start..raw.len();
        raw.extend_from_slice(b"\r\n");
        self.field_line(start, &raw[line])
    }
}

/// Whether a Host field names what `:authority` does.
fn is_same_host(field: &[u8], authority: &[u8]) -> bool {
    match (host_and_port(field), host_and_port(authority)) {
        (Some((host, port)), Some((other, other_port))) => {
            host.eq_ignore_ascii_case(other) && port == other_port
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environ::iter;
    use crate::http::Connection;

    const GET: Http2<'_> = Http2 {
        method: b"GET",
        authority: Some(b"shop.example:8443"),
        path: b"/a%20b?q=1",
        ends: true,
    };

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn head(request: &Http2<'_>, fields: Fields<'_>) -> Result<Head, Refusal> {
        let fields = fields
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Head::of_http2(request, fields, 64 << 10)
    }

    fn environ(request: &Http2<'_>, fields: Fields<'_>) -> Vec<(String, String)> {
        let connection = Connection {
            scheme: "https",
            remote: ("192.0.2.1", "40000"),
            server: None,
            own_fields: &[],
            forwarded: None,
        };
        let block = head(request, fields).unwrap().environ(&connection, "").unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        iter(&block)
            .map(Result::unwrap)
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    fn get(environ: &[(String, String)], key: &str) -> Option<String> {
        let mut found = environ.iter().filter(|(name, _)| name == key);
        let value = found.next().map(|(_, value)| value.clone());
        assert_eq!(found.next(), None, "{key} is there once");
        value
    }

    #[test]
    fn the_environ_is_that_of_a_request_in_lines() {
        let fields: Fields<'_> = &[
            ("cookie", "a=1"),
            ("accept", "x"),
            ("cookie", "b=2"),
            ("te", "trailers"),
            ("accept", "y"),
            ("x_a", "no"),
            ("proxy", "no"),
            ("cookie", "c=3"),
        ];
        let environ = environ(&GET, fields);
        for (key, value) in [
            ("REQUEST_METHOD", "GET"),
            ("PATH_INFO", "/a b"),
            ("QUERY_STRING", "q=1"),
            ("REQUEST_URI", "/a%20b?q=1"),
            ("SERVER_PROTOCOL", "HTTP/2.0"),
            ("HTTP_HOST", "shop.example:8443"),
            ("SERVER_NAME", "shop.example"),
            ("SERVER_PORT", "8443"),
            ("HTTP_COOKIE", "a=1; b=2; c=3"),
            ("HTTP_ACCEPT", "x,y"),
            ("HTTP_TE", "trailers"),
        ] {
            assert_eq!(get(&environ, key).as_deref(), Some(value), "{key}");
        }
        for key in ["HTTP_X_A", "HTTP_PROXY", "CONTENT_LENGTH"] {
            assert_eq!(get(&environ, key), None, "{key}");
        }
    }

    #[test]
    fn a_body_is_as_long_as_told_or_ends_by_itself() {
        let of = |ends, fields: Fields<'_>| head(&Http2 { ends, ..GET }, fields).map(|head| head.body());
        assert_eq!(of(true, &[]), Ok(Body::Absent));
        assert_eq!(of(false, &[]), Ok(Body::Chunked));
        assert_eq!(of(false, &[("content-length", "7")]), Ok(Body::Length(7)));
        assert_eq!(of(true, &[("content-length", "0")]), Ok(Body::Length(0)));
        assert_eq!(of(true, &[("content-length", "7")]), Err(Refusal::Length));
    }

    #[test]
    fn a_host_field_may_repeat_the_authority_or_stand_for_it() {
        let host = |authority, host| {
            let head = head(&Http2 { authority, ..GET }, &[("host", host)])?;
            Ok(head.field("host").unwrap().to_vec())
        };
        assert_eq!(host(Some(b"a.example"), "A.example"), Ok(b"a.example".to_vec()));
        assert_eq!(host(None, "b.example"), Ok(b"b.example".to_vec()));
        assert_eq!(host(Some(b"a.example"), "b.example"), Err(Refusal::HostDiffers));
        assert_eq!(host(Some(b"a.example"), "a.example:1"), Err(Refusal::HostDiffers));
        let neither = Http2 {
            authority: None,
            ..GET
        };
        assert_eq!(head(&neither, &[]), Err(Refusal::HostMissing));
        assert_eq!(
            head(&neither, &[("host", "a"), ("host", "a")]),
            Err(Refusal::HostRepeated)
        );
    }

    #[test]
    fn what_has_no_place_in_it_is_refused() {
        let with = |request: Http2<'static>| head(&request, &[]).unwrap_err();
        for method in [&b"CONNECT"[..], &[b'A'; 33]] {
            assert_eq!(with(Http2 { method, ..GET }), Refusal::MethodUnknown);
        }
        assert_eq!(
            with(Http2 {
                method: b"GET /x",
                ..GET
            }),
            Refusal::Method
        );
        for path in [&b""[..], b"*", b"http://a/", b"a", b"/a b", b"/a\r\nb"] {
            assert_eq!(with(Http2 { path, ..GET }), Refusal::Target, "{path:?}");
        }
        let options = Http2 {
            method: b"OPTIONS",
            path: b"*",
            ..GET
        };
        assert!(head(&options, &[]).is_ok());
        for authority in [&b"u@a"[..], b"a b", b"a\r\nx: y"] {
            let refused = head(
                &Http2 {
                    authority: Some(authority),
                    ..GET
                },
                &[],
            );
            assert!(
                matches!(refused, Err(Refusal::Host | Refusal::Control)),
                "{refused:?}"
            );
        }
        for (name, value, refusal) in [
            ("connection", "close", Refusal::ConnectionField),
            ("keep-alive", "1", Refusal::ConnectionField),
            ("proxy-connection", "close", Refusal::ConnectionField),
            ("transfer-encoding", "chunked", Refusal::ConnectionField),
            ("upgrade", "h2c", Refusal::ConnectionField),
            ("te", "gzip", Refusal::ConnectionField),
            ("a:b", "c", Refusal::FieldName),
            ("a b", "c", Refusal::FieldName),
            (":path", "/", Refusal::FieldName),
            ("", "c", Refusal::FieldName),
            ("a", "b\r\nc: d", Refusal::Control),
            ("a", "b\0", Refusal::Control),
            ("expect", "magic", Refusal::Expectation),
            ("content-length", "5, 5", Refusal::Length),
        ] {
            assert_eq!(head(&GET, &[(name, value)]), Err(refusal), "{name}: {value:?}");
        }
    }

    #[test]
    fn a_head_is_bounded_as_one_in_lines() {
        let long = "x".repeat(16 << 10);
        let path = format!("/{long}");
        let request = Http2 {
            path: path.as_bytes(),
            ..GET
        };
        assert_eq!(head(&request, &[]), Err(Refusal::TargetTooLong));
        assert_eq!(head(&GET, &[("a", &*long); 4]), Err(Refusal::HeadTooLong));
        assert_eq!(head(&GET, &[("cookie", &*long); 4]), Err(Refusal::HeadTooLong));
        assert_eq!(head(&GET, &[("a", "b"); 100]), Err(Refusal::TooManyFields));
        // Crumbs are one field.
        assert!(head(&GET, &[("cookie", "b"); 300]).is_ok());
    }
}
