//! Checks the head of a reply as the app gave it, before any of it can reach a client.

use bytes::Bytes;

use crate::abi::refusal;
use crate::block;
use crate::exchange::ReplyHead;

/// Largest head an app may send, in bytes of its block.
const MAX_HEAD: usize = 256 << 10;

/// Fields that belong to the connection, not to the app: PEP 3333 "Other HTTP Features", RFC 9110 7.6.1.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Parses a head's block: (empty key, status line), then the fields.
///
/// # Errors
/// The refusal that `reply_head` answers with: `(index of the pair << 4) | reason`.
pub(crate) fn parse(bytes: &[u8]) -> Result<ReplyHead, i32> {
    if bytes.len() > MAX_HEAD {
        return Err(refusal::TOO_LARGE);
    }
    let mut rest = bytes;
    let mut pair = || Some((block::take(&mut rest)?, block::take(&mut rest)?));
    let (_, status_line) = pair().ok_or(refusal::BAD_STATUS)?;
    let (status, reason) = parse_status(status_line).ok_or(refusal::BAD_STATUS)?;
    let mut headers = Vec::with_capacity(8);
    let mut index = 0;
    while let Some((name, value)) = pair() {
        index += 1;
        let refuse = |reason: i32| Err((index << 4) | reason);
        if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
            return refuse(refusal::BAD_NAME);
        }
        if value.iter().any(|&byte| is_control(byte)) {
            return refuse(refusal::BAD_VALUE);
        }
        if HOP_BY_HOP
            .iter()
            .any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
        {
            return refuse(refusal::HOP_BY_HOP);
        }
        headers.push((
            Bytes::copy_from_slice(name),
            Bytes::copy_from_slice(value.trim_ascii()),
        ));
    }
    Ok(ReplyHead {
        status,
        reason: Bytes::copy_from_slice(reason),
        headers,
    })
}

impl ReplyHead {
    /// The block that [`Exchange::head`](crate::Exchange::head) reads the same head from.
    pub fn to_block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        let status = [self.status.to_string().as_bytes(), b" ", &self.reason].concat();
        block::push(&mut block, b"", status);
        for (name, value) in &self.headers {
            block::push(&mut block, name, value);
        }
        block
    }
}

/// `200 OK`: three digits from 200 to 599, a space, a reason. The reason and its space may be missing, as Gunicorn and
/// uWSGI take it.
fn parse_status(line: &[u8]) -> Option<(u16, &[u8])> {
    let (digits, rest) = line.split_first_chunk::<3>()?;
    let status: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let reason = match rest {
        [] => rest,
        [b' ', reason @ ..] => reason,
        _ => return None,
    };
    let valid = (200..600).contains(&status) && !reason.iter().any(|&byte| is_control(byte));
    valid.then_some((status, reason))
}

/// The `Content-Length` of a head, if the app gave one that is a number.
pub(crate) fn content_length(head: &ReplyHead) -> Option<u64> {
    let (_, value) = head
        .headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(b"content-length"))?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 5.5 allows visible characters, bytes from 0x80, space and tab.
fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: &str, fields: &[(&str, &str)]) -> Result<ReplyHead, i32> {
        let mut bytes = Vec::new();
        block::push(&mut bytes, "", status);
        for (name, value) in fields {
            block::push(&mut bytes, name, value);
        }
        parse(&bytes)
    }

    #[test]
    fn a_head_keeps_order_and_case() {
        let head = head("404 Not Found", &[("X-B", "1"), ("x-a", "2"), ("X-B", "3")]).expect("valid");
        assert_eq!((head.status, &head.reason[..]), (404, &b"Not Found"[..]));
        let names: Vec<_> = head.headers.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(names, [b"X-B", b"x-a", b"X-B"]);
    }

    #[test]
    fn a_head_is_the_same_after_its_block() {
        let fields = [("X-B", "1"), ("Set-Cookie", "a=b"), ("X-Empty", "")];
        for status in ["404 Not Found", "200", "299 \u{e9}"] {
            let head = head(status, &fields).expect("valid");
            assert_eq!(parse(&head.to_block()), Ok(head));
        }
    }

    #[test]
    fn status_must_be_three_digits_from_200_to_599() {
        for good in ["200 OK", "599 ", "204"] {
            assert!(head(good, &[]).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "20",
            "2000 OK",
            "100 Continue",
            "199 x",
            "600 x",
            "abc OK",
            "+20 OK",
            "200OK",
            "200 a\r\nX: y",
        ] {
            assert_eq!(head(bad, &[]), Err(refusal::BAD_STATUS), "{bad:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_field_by_its_index() {
        let good = ("Content-Type", "text/plain");
        for (name, value, reason) in [
            ("", "x", refusal::BAD_NAME),
            ("X Y", "x", refusal::BAD_NAME),
            ("X:", "x", refusal::BAD_NAME),
            ("X\r\nSet-Cookie", "x", refusal::BAD_NAME),
            ("X", "a\r\nSet-Cookie: b", refusal::BAD_VALUE),
            ("X", "a\nb", refusal::BAD_VALUE),
            ("X", "a\0", refusal::BAD_VALUE),
            ("X", "a\x7f", refusal::BAD_VALUE),
            ("Connection", "close", refusal::HOP_BY_HOP),
            ("TRANSFER-ENCODING", "chunked", refusal::HOP_BY_HOP),
        ] {
            assert_eq!(
                head("200 OK", &[good, (name, value)]),
                Err((2 << 4) | reason),
                "{name:?}: {value:?}"
            );
        }
    }

    #[test]
    fn a_head_larger_than_the_server_sends_is_refused() {
        let value = "x".repeat(60_000);
        let fields: Vec<_> = (0..5).map(|_| ("X-Long", value.as_str())).collect();
        assert_eq!(head("200 OK", &fields), Err(refusal::TOO_LARGE));
    }
}
