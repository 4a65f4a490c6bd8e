//! Whatever strangers send or say, a line stays one line, and each value in it what it was.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use wasgi_config::{AccessFormat, Field, LogFormat, Piece};
use wasgi_protocol::Head;
use wasgi_protocol::http::{Guard, Limits, Step};

use super::*;
use crate::bill::Cost;

/// What forgers like, and a bit of everything else.
fn nasty(random: &mut StdRng, most: usize) -> Vec<u8> {
    const PARTS: &[&[u8]] = &[
        b"\n",
        b"\r\n",
        b"\" 200 0 \"",
        b"\\",
        b"\\\"",
        b"\\x22",
        b"\\u0022",
        b"\x1b[2J",
        b"\t",
        b"\0",
        b" ",
        b"|",
        b"]",
        b"\",\"status\":200,\"a\":\"",
        b"}",
        b"id=",
        b"app other [x]",
        b"\xe2\x80\xae",
        b"\xe2\x80\xa8",
        b"\xc2\x85",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"%(status)",
        b"%0a",
    ];
    let mut bytes = Vec::new();
    for _ in 0..random.random_range(0..=most) {
        match random.random_range(0..4) {
            0 => bytes.push(random.random()),
            1 => bytes.extend((0..random.random_range(0..200)).map(|_| b'a')),
            _ => bytes.extend_from_slice(PARTS[random.random_range(0..PARTS.len())]),
        }
    }
    bytes
}

/// A request as the guard lets it through, whose target and fields are as nasty as that allows.
fn head(random: &mut StdRng) -> Head {
    loop {
        let fit = |bytes: Vec<u8>, space: bool| -> Vec<u8> {
            let is_fit = |b: &u8| (*b > b' ' && *b != 0x7f) || (space && matches!(b, b' ' | b'\t'));
            bytes.into_iter().filter(is_fit).collect()
        };
        let target = fit(nasty(random, 8), false);
        let (referer, agent) = (fit(nasty(random, 8), true), fit(nasty(random, 30), true));
        let mut text = b"GET /".to_vec();
        text.extend(target);
        text.extend(b" HTTP/1.1\r\nHost: a\r\nReferer: ");
        text.extend(referer);
        text.extend(b"\r\nUser-Agent: ");
        text.extend(agent);
        text.extend(b"\r\n\r\n");
        if let Step::Head { head, .. } = Guard::new(Limits { head: 64 << 10 }).step(&text) {
            let head = Head::from(head);
            return head;
        }
    }
}

fn line(head: &Head, format: &AccessFormat, cost: &Cost) -> String {
    let access = Access {
        remote: "192.0.2.1",
        head: Some(head),
        app: Some("shop"),
        status: 404,
        bytes: 12,
        time: Duration::from_millis(3),
        worker: Some(3),
        cost: format.has_bill().then_some(cost),
        id: RequestId::random(),
        trace: None,
    };
    let (mut line, mut dates) = (String::new(), DateCache::default());
    access.write(format, &mut dates, &mut line);
    line
}

/// The bytes that were escaped, up to `end`, and what comes after.
fn unescape(line: &[u8], end: Option<u8>) -> (Vec<u8>, &[u8]) {
    let (mut bytes, mut rest) = (Vec::new(), line);
    loop {
        match rest {
            [] => return (bytes, rest),
            [first, ..] if Some(*first) == end => return (bytes, rest),
            [b'\\', b'x', digits @ ..] | [b'\\', b'u', b'0', b'0', digits @ ..] => {
                let digits = str::from_utf8(&digits[..2]).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = &rest[if rest[1] == b'x' { 4 } else { 6 }..];
            }
            [b'\\', escaped, after @ ..] => {
                bytes.push(*escaped);
                rest = after;
            }
            [plain, after @ ..] => {
                bytes.push(*plain);
                rest = after;
            }
        }
    }
}

fn field(head: &Head, name: &str) -> Vec<u8> {
    head.field(name).unwrap_or_default().to_vec()
}

#[test]
fn no_access_line_can_be_forged_or_broken() {
    let mut random = StdRng::seed_from_u64(7);
    let cost = Cost::default();
    for _ in 0..2000 {
        let head = head(&mut random);
        for name in AccessFormat::NAMES {
            let format: AccessFormat = name.parse().unwrap();
            let line = line(&head, &format, &cost);
            assert!(line.bytes().all(|b| matches!(b, b' '..=b'~')), "{line:?}");
            if name.starts_with("json") {
                let json: serde_json::Value = serde_json::from_str(&line).unwrap();
                assert_eq!((&json["status"], &json["bytes"]), (&404.into(), &12.into()));
                let latin: String = head.target().iter().map(|&b| char::from(b)).collect();
                assert_eq!(json["target"], latin);
            }
            if name.starts_with("combined") {
                let quoted = |line: &mut &[u8]| {
                    let start = line.iter().position(|&b| b == b'"').unwrap() + 1;
                    let (value, rest) = unescape(&line[start..], Some(b'"'));
                    *line = &rest[1..];
                    value
                };
                let mut rest = line.as_bytes();
                let request = [b"GET ", head.target(), b" HTTP/1.1"].concat();
                assert_eq!(quoted(&mut rest), request);
                assert!(rest.starts_with(b" 404 12 \""), "{line}");
                assert!(
                    matches!(quoted(&mut rest), value if value == field(&head, "referer") || value == b"-")
                );
                assert!(
                    matches!(quoted(&mut rest), value if value == field(&head, "user-agent") || value == b"-")
                );
                assert!(!rest.contains(&b'"'), "{line}");
            }
        }
    }
}

#[test]
fn no_line_of_an_operators_format_can_be_forged_or_broken() {
    const NAMES: &[&str] = &[
        "method",
        "uri",
        "proto",
        "addr",
        "host",
        "uagent",
        "referer",
        "status",
        "rsize",
        "msecs",
        "ltime",
        "var.QUERY_STRING",
        "var.HTTP_USER_AGENT",
        "id",
        "app",
        "vszM",
        "ctime",
        "user",
    ];
    const TEXTS: &[&str] = &[" ", "|", "\" \"", "] [", " => ", "\t", ";", "{", "'", ", "];
    let mut random = StdRng::seed_from_u64(8);
    for round in 0..5000 {
        let mut text = if round % 3 == 0 { "{" } else { "" }.to_owned();
        for _ in 0..random.random_range(1..8) {
            let name = NAMES[random.random_range(0..NAMES.len())];
            text.push_str(&format!(
                "%({name}){}",
                TEXTS[random.random_range(0..TEXTS.len())]
            ));
        }
        let format: LogFormat = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        let head = head(&mut random);
        let line = line(&head, &AccessFormat::Custom(format.clone()), &Cost::default());
        assert!(
            line.bytes().all(|b| matches!(b, b' '..=b'~') || b == b'\t'),
            "{line:?}"
        );
        let mut rest = line.as_bytes();
        for piece in format.pieces() {
            match piece {
                Piece::Text(text) => {
                    rest = rest
                        .strip_prefix(text.as_bytes())
                        .unwrap_or_else(|| panic!("{text:?} in {line:?}"));
                }
                Piece::Value(field, end) => {
                    let told = match field {
                        Field::Uri => head.target().to_vec(),
                        Field::Header(name) => self::field(&head, name),
                        Field::Query => {
                            let mut parts = head.target().splitn(2, |&b| b == b'?');
                            parts.nth(1).unwrap_or_default().to_vec()
                        }
                        Field::CommonDate | Field::CTime => {
                            // The server's own, of a known length, whatever ends it.
                            rest = &rest[if *field == Field::CTime { 24 } else { 26 }..];
                            continue;
                        }
                        _ => {
                            rest = unescape(rest, *end).1;
                            continue;
                        }
                    };
                    let (value, after) = unescape(rest, *end);
                    assert!(
                        value == told || (told.is_empty() && value == b"-"),
                        "{field:?} of {line:?}"
                    );
                    rest = after;
                }
            }
        }
        assert_eq!(rest, b"");
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_line_of_an_app_can_be_forged_or_broken() {
    let lines = Lines::default();
    let log = Log::to(Box::new(lines.clone()), AccessFormat::Combined, false).unwrap();
    let app = log.app("shop");
    let mut random = StdRng::seed_from_u64(9);
    for number in 0..2000 {
        let text = String::from_utf8_lossy(&nasty(&mut random, 60)).into_owned();
        app.line(Some("abc"), &text);
        log.warn_of("shop", RequestId::random(), format_args!("{number} {text}"));
        // So that nothing finds its share of the room taken.
        log.flush(Duration::from_secs(10));
    }
    let told = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert_eq!(told.lines().count(), 4000);
    for (number, line) in told.split_terminator('\n').enumerate() {
        let start = if number % 2 == 0 {
            "app shop [abc] "
        } else {
            "warning: app shop ["
        };
        assert!(line.starts_with(start), "{line:?}");
        let is_harmless = |c: char| c == '\t' || !(c.is_control() || matches!(c, '\u{2028}'..='\u{202e}'));
        assert!(line.chars().all(is_harmless), "{line:?}");
    }
}
