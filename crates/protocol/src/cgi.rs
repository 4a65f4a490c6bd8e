//! Requests as CGI programs get them: variables in the process's environment, a body on standard input.
//!
//! Source: RFC 3875.

use crate::environ::EnvironBlock;
use crate::gateway::{Head, Paths, Refusal, Rules};

/// Beginnings of what web servers tell of a request: fields, and what mod_ssl knows of the connection. SSL_CERT_FILE is
/// OpenSSL's, and the process's own.
const BEGINNINGS: [&[u8]; 7] = [
    b"HTTP_",
    b"SSL_CIPHER",
    b"SSL_CLIENT_",
    b"SSL_PROTOCOL",
    b"SSL_SERVER_",
    b"SSL_SESSION_",
    b"SSL_TLS_SNI",
];

/// What else they tell: RFC 3875 4.1, then what is usual.
const NAMES: [&[u8]; 31] = [
    b"AUTH_TYPE",
    b"CONTENT_LENGTH",
    b"CONTENT_TYPE",
    b"GATEWAY_INTERFACE",
    b"PATH_INFO",
    b"PATH_TRANSLATED",
    b"QUERY_STRING",
    b"REMOTE_ADDR",
    b"REMOTE_HOST",
    b"REMOTE_IDENT",
    b"REMOTE_USER",
    b"REQUEST_METHOD",
    b"SCRIPT_NAME",
    b"SERVER_NAME",
    b"SERVER_PORT",
    b"SERVER_PROTOCOL",
    b"SERVER_SOFTWARE",
    b"CONTEXT_DOCUMENT_ROOT",
    b"CONTEXT_PREFIX",
    b"DOCUMENT_ROOT",
    b"HTTPS",
    b"REDIRECT_QUERY_STRING",
    b"REDIRECT_STATUS",
    b"REDIRECT_URL",
    b"REMOTE_PORT",
    b"REQUEST_SCHEME",
    b"REQUEST_URI",
    b"SCRIPT_FILENAME",
    b"SERVER_ADDR",
    b"SERVER_ADMIN",
    b"UNIQUE_ID",
];

/// Whether a variable of the process's environment tells of the request. The others are the process's own, and no app's
/// business; of these nothing may be taken for the process's own, since the client has a hand in them.
pub fn is_of_request(name: &[u8]) -> bool {
    BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) || NAMES.contains(&name)
}

/// Checks the variables of a request, and passes over the process's own. `longest` bounds names and values together.
///
/// The body is as long as CONTENT_LENGTH says (RFC 3875 4.2). Where Apache has taken the chunks of one apart it cannot
/// say, and closes standard input at the body's end.
///
/// # Errors
/// [`Refusal`], for the first thing that is wrong.
pub fn head<'a>(
    variables: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    longest: usize,
) -> Result<Head, Refusal> {
    let mut block = EnvironBlock::with_capacity(4096);
    let mut is_chunked = false;
    for (name, value) in variables {
        if !is_of_request(name) {
            continue;
        }
        is_chunked |= name == b"HTTP_TRANSFER_ENCODING";
        block.push(name, value).map_err(|_| Refusal::TooLong)?;
        if block.as_bytes().len() > longest {
            return Err(Refusal::TooLong);
        }
    }
    let rules = Rules {
        body_ends: is_chunked,
        ..Rules::of(Paths::Split)
    };
    Head::new(block.into_bytes(), rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environ;
    use crate::http::{Body, Connection};

    /// As Apache's mod_cgi has it for `ScriptAlias /em /usr/lib/cgi-bin/app.cgi`.
    const APACHE: [(&str, &str); 12] = [
        ("PATH", "/usr/bin:/bin"),
        ("HTTP_HOST", "front.example:8080"),
        ("HTTP_PROXY", "http://evil.example/"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_METHOD", "GET"),
        ("QUERY_STRING", "q=1"),
        ("REQUEST_URI", "/em/caf%C3%A9?q=1"),
        ("SCRIPT_NAME", "/em"),
        ("PATH_INFO", "/caf\u{e9}"),
        ("REMOTE_ADDR", "192.0.2.1"),
        ("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"),
    ];

    fn read(more: &[(&str, &str)]) -> Result<Head, Refusal> {
        let all = APACHE.iter().chain(more);
        head(
            all.map(|(name, value)| (name.as_bytes(), value.as_bytes())),
            65_536,
        )
    }

    fn environ(head: &Head) -> Vec<(String, String)> {
        let connection = Connection {
            scheme: "http",
            remote: ("", ""),
            server: None,
            own_fields: &[],
            forwarded: None,
        };
        let block = head.environ(&connection, "").unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        environ::iter(&block)
            .map(|pair| pair.unwrap())
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    #[test]
    fn the_request_is_told_and_nothing_of_the_process() {
        let head = read(&[]).unwrap();
        assert_eq!(
            (head.path(), head.body()),
            ("/em/caf\u{e9}".as_bytes(), Body::Absent)
        );
        let environ = environ(&head);
        let get = |name: &str| {
            environ
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| &**value)
        };
        assert_eq!(
            (get("SCRIPT_NAME"), get("PATH_INFO")),
            (Some("/em"), Some("/caf\u{e9}"))
        );
        assert_eq!(
            (get("SERVER_NAME"), get("SERVER_PORT")),
            (Some("front.example"), Some("8080"))
        );
        for name in ["PATH", "SSL_CERT_FILE", "HTTP_PROXY"] {
            assert_eq!(get(name), None, "{name}");
        }
    }

    #[test]
    fn the_body_is_as_long_as_is_said_or_until_the_end_if_it_came_in_chunks() {
        let body = |more: &[(&str, &str)]| read(more).map(|head| head.body());
        assert_eq!(body(&[("CONTENT_LENGTH", "5")]), Ok(Body::Length(5)));
        assert_eq!(body(&[("CONTENT_LENGTH", "")]), Ok(Body::Absent));
        assert_eq!(body(&[("HTTP_TRANSFER_ENCODING", "chunked")]), Ok(Body::Chunked));
        assert_eq!(body(&[("CONTENT_LENGTH", "+5")]), Err(Refusal::Length));
    }

    #[test]
    fn variables_are_bounded() {
        let long = "x".repeat(70_000);
        assert_eq!(read(&[("HTTP_COOKIE", &long)]), Err(Refusal::TooLong));
        assert_eq!(
            read(&[("OTHER", &long)]).map(|_| ()),
            Ok(()),
            "the process's own count nothing"
        );
        let most = "x".repeat(65_535);
        assert_eq!(read(&[("HTTP_COOKIE", &most)]), Err(Refusal::TooLong));
    }
}
