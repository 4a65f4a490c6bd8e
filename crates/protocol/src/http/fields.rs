//! Field lines: `name ":" OWS value OWS` (RFC 9112 5), and the character classes they are made of.

use std::ops::Range;

use super::refusal::Refusal;

/// Where a field's name and value are, from the start of its line.
pub(super) struct FieldLine {
    pub(super) name: Range<usize>,
    pub(super) value: Range<usize>,
}

const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const TARGET: u8 = 4;
const HOST: u8 = 8;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        let alnum = b.is_ascii_alphanumeric();
        let mut class = 0;
        // RFC 9110 5.6.2.
        if alnum || is_one_of(b, b"!#$%&'*+-.^_`|~") {
            class |= TOKEN;
        }
        // RFC 9110 5.5: VCHAR, obs-text, SP and HTAB.
        if b == b'\t' || (b >= b' ' && b != 0x7f) {
            class |= VALUE;
        }
        // RFC 3986 allows less; browsers send `|`, `"` and raw UTF-8, and apps have always been given it. A fragment
        // is no part of a request target.
        if b > b' ' && b != 0x7f && b != b'#' {
            class |= TARGET;
        }
        // RFC 3986 3.2.2, reg-name.
        if alnum || is_one_of(b, b"-._~%!$&'()*+,;=") {
            class |= HOST;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}

const fn is_one_of(b: u8, set: &[u8]) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == b {
            return true;
        }
        i += 1;
    }
    false
}

fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().all(|&b| CLASSES[usize::from(b)] & class != 0)
}

/// Whether `bytes` is a token (RFC 9110 5.6.2).
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

pub(super) fn is_token_byte(b: u8) -> bool {
    CLASSES[usize::from(b)] & TOKEN != 0
}

/// Whether every byte may stand in a request target.
pub(crate) fn is_target(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TARGET)
}

pub(super) fn is_control(b: u8) -> bool {
    CLASSES[usize::from(b)] & VALUE == 0
}

/// Reads one field line, given without its CRLF.
pub(super) fn field_line(line: &[u8]) -> Result<FieldLine, Refusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::Folded);
    }
    if !all(line, VALUE) {
        return Err(Refusal::Control);
    }
    let colon = line.iter().position(|&b| b == b':').ok_or(Refusal::FieldName)?;
    if !is_token(&line[..colon]) {
        return Err(Refusal::FieldName);
    }
    let value = &line[colon + 1..];
    let is_space = |b: &u8| matches!(b, b' ' | b'\t');
    let start = colon + 1 + value.iter().position(|b| !is_space(b)).unwrap_or(value.len());
    let end = line
        .iter()
        .rposition(|b| !is_space(b))
        .map_or(start, |last| last + 1)
        .max(start);
    Ok(FieldLine {
        name: 0..colon,
        value: start..end,
    })
}

/// Takes a Host value or an authority apart: host (an IPv6 address keeps its brackets) and port, `None` if absent or
/// empty. `None` when it is no `uri-host [":" port]` (RFC 9110 7.2); an empty host is one.
pub(crate) fn host_and_port(value: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let (host, rest) = if value.first() == Some(&b'[') {
        let end = value.iter().position(|&b| b == b']')?;
        let inner = &value[1..end];
        let valid = !inner.is_empty()
            && inner
                .iter()
                .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
        if !valid {
            return None;
        }
        value.split_at(end + 1)
    } else {
        let end = value.iter().position(|&b| b == b':').unwrap_or(value.len());
        value.split_at(end)
    };
    if host.first() != Some(&b'[') && !all(host, HOST) {
        return None;
    }
    match rest {
        [] | [b':'] => Some((host, None)),
        [b':', digits @ ..] if digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) => {
            let port = digits
                .iter()
                .fold(0u32, |port, digit| port * 10 + u32::from(digit - b'0'));
            Some((host, Some(u16::try_from(port).ok()?)))
        }
        _ => None,
    }
}

/// The members of a comma-separated list, trimmed; empty ones are skipped (RFC 9110 5.6.1).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&b| b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
        field_line(line).map(|field| (&line[field.name], &line[field.value]))
    }

    #[test]
    fn field_lines_are_trimmed() {
        assert_eq!(parts(b"a:b"), Ok((&b"a"[..], &b"b"[..])));
        assert_eq!(parts(b"a: \t b c \t"), Ok((&b"a"[..], &b"b c"[..])));
        assert_eq!(parts(b"a:"), Ok((&b"a"[..], &b""[..])));
        assert_eq!(parts(b"a:   "), Ok((&b"a"[..], &b""[..])));
        assert_eq!(parts(b"a: x:y"), Ok((&b"a"[..], &b"x:y"[..])));
        assert_eq!(parts(b"a: caf\xe9"), Ok((&b"a"[..], &b"caf\xe9"[..])));
    }

    #[test]
    fn bad_field_lines_are_refused() {
        for (line, refusal) in [
            (&b" a: b"[..], Refusal::Folded),
            (b"\ta: b", Refusal::Folded),
            (b"a : b", Refusal::FieldName),
            (b"a", Refusal::FieldName),
            (b": b", Refusal::FieldName),
            (b"a(b): c", Refusal::FieldName),
            (b"caf\xe9: b", Refusal::FieldName),
            (b"a: b\0", Refusal::Control),
            (b"a: b\rc", Refusal::Control),
            (b"a: \x7f", Refusal::Control),
        ] {
            assert_eq!(parts(line), Err(refusal), "{line:?}");
        }
    }

    #[test]
    fn hosts() {
        for (value, expected) in [
            (&b"a.example"[..], Some((&b"a.example"[..], None))),
            (b"a_b:80", Some((b"a_b", Some(80)))),
            (b"a:", Some((b"a", None))),
            (b"", Some((b"", None))),
            (b"[::1]:8000", Some((b"[::1]", Some(8000)))),
            (b"[::1]", Some((b"[::1]", None))),
            (b"[::1", None),
            (b"[]", None),
            (b"[::g]", None),
            (b"[::1]x", None),
            (b"a:65536", None),
            (b"a:000080", None),
            (b"a:+80", None),
            (b"a:b", None),
            (b"a b", None),
            (b"a/b", None),
            (b"u@a", None),
            (b"a\\b", None),
        ] {
            assert_eq!(host_and_port(value), expected, "{value:?}");
        }
    }
}
