//! Which replies of an app are compressed, and what their heads then say.

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use wasgi_config::Compress;
use wasgi_protocol::Head;

use crate::coding::{Accepted, Coding};

/// Fields that tell of the very bytes of the content (RFC 9530), which would no longer be these.
const DIGESTS: [&str; 2] = ["content-digest", "repr-digest"];

/// Chooses how to compress the reply to `head`, and makes its `headers` tell so; `None`: it goes out as it is.
///
/// `length` is that of its content, if it is known. The reply to HEAD says what GET's would.
pub(super) fn choose(
    compress: &Compress,
    head: &Head,
    status: StatusCode,
    headers: &mut HeaderMap,
    length: Option<u64>,
) -> Option<Coding> {
    if status == StatusCode::NOT_MODIFIED {
        as_asked(head, headers);
        return None;
    }
    let is_short = length.is_some_and(|length| length < compress.min_size.max(1));
    if !has_whole_content(status) || is_short || !is_of_type(compress, headers) || is_fixed(headers) {
        return None;
    }
    // Caches have to know, whichever it is now.
    add_vary(headers);
    let accepted = Accepted::of(head.field("accept-encoding"));
    let coding = accepted.best(compress.encodings.iter().map(|&compressor| compressor.into()))?;
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    // Ranges would be of the bytes before.
    headers.remove(header::ACCEPT_RANGES);
    if let Some(weak) = headers.get(header::ETAG).and_then(weakened) {
        headers.insert(header::ETAG, weak);
    }
    Some(coding)
}

/// As nginx has it, and with what else tells of success: other replies are short, or parts, or have no content.
fn has_whole_content(status: StatusCode) -> bool {
    match status {
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT => false,
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => true,
        status => status.is_success(),
    }
}

fn is_of_type(compress: &Compress, headers: &HeaderMap) -> bool {
    let Some(found) = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes) else {
        return false;
    };
    let found = found.split(|&b| b == b';').next().unwrap_or_default();
    let found = str::from_utf8(found.trim_ascii()).unwrap_or_default();
    compress.types.iter().any(|one| one.is_it(found))
}

/// Whether the app has said that these bytes are to arrive.
fn is_fixed(headers: &HeaderMap) -> bool {
    let told = [header::CONTENT_ENCODING, header::CONTENT_RANGE];
    let digests = DIGESTS.map(HeaderName::from_static);
    told.iter().chain(&digests).any(|name| headers.contains_key(name))
        || members(headers, header::CACHE_CONTROL)
            .any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

/// Adds `Vary: accept-encoding`, if it is not there.
fn add_vary(headers: &mut HeaderMap) {
    let is_there = members(headers, header::VARY)
        .any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"));
    if !is_there {
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
}

fn members(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
    values.flat_map(|value| value.split(|&b| b == b',').map(<[u8]>::trim_ascii))
}

/// A strong tag promises the same bytes (RFC 9110 8.8.1).
fn weakened(tag: &HeaderValue) -> Option<HeaderValue> {
    let tag = tag.as_bytes();
    if tag.starts_with(b"W/") {
        return None;
    }
    HeaderValue::from_bytes(&[b"W/", tag].concat()).ok()
}

/// Gives a 304 the tag that the client has asked with, if it is the reply's but for its strength: what the client holds was
/// compressed, and a cache takes a strong tag for another's (RFC 9111 4.3.4).
fn as_asked(head: &Head, headers: &mut HeaderMap) {
    let Some(weak) = headers.get(header::ETAG).and_then(weakened) else {
        return;
    };
    let asked = head.field("if-none-match").unwrap_or_default();
    if asked.windows(weak.len()).any(|part| part == weak.as_bytes()) {
        headers.insert(header::ETAG, weak);
        add_vary(headers);
    }
}

#[cfg(test)]
mod tests {
    use wasgi_config::{Compressor, MediaType};
    use wasgi_protocol::http::{Guard, Limits, Step};

    use super::*;

    /// What becomes of the fields of a reply to a client that takes gzip and brotli.
    fn chosen(asked: &str, status: u16, fields: &str, length: Option<u64>) -> (Option<Coding>, String) {
        let compress = Compress {
            encodings: vec![Compressor::Gzip, Compressor::Brotli],
            types: vec![
                MediaType::One("text/html".into()),
                MediaType::Main("image".into()),
            ],
            min_size: 100,
            level: 4,
        };
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{asked}\r\n");
        let Step::Head { head, .. } = Guard::new(Limits { head: 1 << 16 }).step(text.as_bytes()) else {
            panic!("{text}");
        };
        let mut headers = HeaderMap::new();
        for line in fields.split_terminator("; ") {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        let coding = choose(&compress, &head.into(), status, &mut headers, length);
        let mut told: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        told.sort();
        (coding, told.join("; "))
    }

    const ASKED: &str = "Accept-Encoding: br, gzip\r\n";
    const HTML: &str = "content-type: text/html";

    #[test]
    fn the_first_that_a_client_likes_best_is_taken() {
        for (accepts, expected) in [
            ("br, gzip", Some(Coding::Gzip)),
            ("br, gzip;q=0.9", Some(Coding::Brotli)),
            ("zstd, br", Some(Coding::Brotli)),
            ("zstd", None),
            ("gzip;q=0, br;q=0", None),
        ] {
            let asked = format!("Accept-Encoding: {accepts}\r\n");
            let (coding, told) = chosen(&asked, 200, HTML, None);
            assert_eq!(coding, expected, "{accepts}");
            assert!(told.contains("vary: accept-encoding"), "{told}");
            assert_eq!(told.contains("content-encoding"), coding.is_some(), "{told}");
        }
    }

    #[test]
    fn what_is_not_to_be_compressed_goes_out_as_it_is() {
        for (status, fields, length) in [
            (200, HTML, Some(99)),
            (200, "", None),
            (200, "content-type: text/plain", None),
            (200, "content-type: text/html-not", None),
            (200, "content-encoding: br; content-type: text/html", None),
            (
                200,
                "cache-control: private, No-Transform; content-type: text/html",
                None,
            ),
            (
                200,
                "content-digest: sha-256=:AA==:; content-type: text/html",
                None,
            ),
            (
                206,
                "content-range: bytes 0-99/200; content-type: text/html",
                None,
            ),
            (206, HTML, None),
            (204, HTML, None),
            (500, HTML, None),
            (301, HTML, None),
        ] {
            let (coding, told) = chosen(ASKED, status, fields, length);
            assert_eq!((coding, told.as_str()), (None, fields), "{status}");
        }
        for (status, fields, length) in [
            (200, HTML, Some(100)),
            (201, "content-type: TEXT/HTML;charset=utf-8", None),
            (404, "content-type: image/svg+xml", Some(1000)),
        ] {
            assert!(chosen(ASKED, status, fields, length).0.is_some(), "{fields}");
        }
    }

    #[test]
    fn the_head_tells_of_other_bytes() {
        let fields = "accept-ranges: bytes; content-type: text/html; etag: \"a\"";
        let (_, told) = chosen(ASKED, 200, fields, None);
        let expected =
            "content-encoding: gzip; content-type: text/html; etag: W/\"a\"; vary: accept-encoding";
        assert_eq!(told, expected);
        // As it is, it is what it was.
        let (_, told) = chosen("", 200, fields, None);
        assert_eq!(told, format!("{fields}; vary: accept-encoding"));
        for vary in ["*", "cookie, Accept-Encoding"] {
            let fields = format!("content-type: text/html; etag: W/\"a\"; vary: {vary}");
            let (_, told) = chosen(ASKED, 200, &fields, None);
            assert_eq!(told, format!("content-encoding: gzip; {fields}"));
        }
    }

    #[test]
    fn a_304_has_the_tag_that_the_client_asked_with() {
        let asked = "If-None-Match: \"b\", W/\"a\"\r\n";
        let (_, told) = chosen(asked, 304, "etag: \"a\"", None);
        assert_eq!(told, "etag: W/\"a\"; vary: accept-encoding");
        let (_, told) = chosen("If-None-Match: \"a\"\r\n", 304, "etag: \"a\"", None);
        assert_eq!(told, "etag: \"a\"");
    }
}
