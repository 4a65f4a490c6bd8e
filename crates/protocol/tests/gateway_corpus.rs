//! Runs `tests/corpus/uwsgi` and `tests/corpus/scgi`, written as those of HTTP are (http_corpus.rs): packets as bytes, and
//! beside each what is made of them.

mod cases;

use std::collections::HashSet;
use std::fmt::Write as _;

use wasgi_protocol::environ;
use wasgi_protocol::gateway::{Head, Refusal};
use wasgi_protocol::http::{Body, Connection};
use wasgi_protocol::{scgi, uwsgi};

const CONNECTION: Connection<'_> = Connection {
    scheme: "http",
    remote: ("192.0.2.1", "40000"),
    server: None,
    own_fields: &[],
    forwarded: None,
};

/// What a wire makes of the bytes of one connection.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// A head, and what comes after it.
    Request(Box<Head>, Vec<u8>),
    Refused(Refusal),
    Incomplete,
}

type Wire = fn(&[u8], usize) -> Result<Option<(Head, usize)>, Refusal>;

fn found(wire: Wire, pieces: &[&[u8]]) -> Found {
    let mut input = Vec::new();
    let mut pieces = pieces.iter();
    for piece in &mut pieces {
        input.extend_from_slice(piece);
        match wire(&input, 60_000) {
            Ok(None) => {}
            Ok(Some((head, used))) => {
                check(&head);
                let mut rest = input[used..].to_vec();
                pieces.for_each(|piece| rest.extend_from_slice(piece));
                return Found::Request(Box::new(head), rest);
            }
            Err(refusal) => return Found::Refused(refusal),
        }
    }
    Found::Incomplete
}

/// What holds of every environ, whatever came.
fn check(head: &Head) {
    let block = head.environ(&CONNECTION, "").unwrap_or_default();
    let mut names = HashSet::new();
    for pair in environ::iter(&block) {
        let (name, _) = pair.expect("the block is whole");
        assert!(names.insert(name), "{} is there once", cases::shown(name));
        let is_forbidden = name.starts_with(b"wsgi.") || name.starts_with(b"UWSGI_");
        assert!(!is_forbidden, "{} is left out", cases::shown(name));
    }
    for name in [
        "SCRIPT_NAME",
        "PATH_INFO",
        "QUERY_STRING",
        "SERVER_NAME",
        "SERVER_PORT",
    ] {
        assert!(
            block.is_empty() || names.contains(name.as_bytes()),
            "{name} is there"
        );
    }
}

fn told(found: &Found) -> String {
    let mut text = String::new();
    let _ = match found {
        Found::Request(head, rest) => {
            let _ = writeln!(
                text,
                "request: {:?}, target {}",
                head.body(),
                cases::shown(head.target())
            );
            for pair in environ::iter(&head.environ(&CONNECTION, "").unwrap()) {
                let (name, value) = pair.unwrap();
                let _ = writeln!(text, "  {}={}", cases::shown(name), cases::shown(value));
            }
            match head.body() {
                Body::Absent if rest.is_empty() => Ok(()),
                _ => writeln!(text, "then: {}", cases::shown(rest)),
            }
        }
        Found::Refused(refusal) => writeln!(text, "refused: {} {refusal}", refusal.status()),
        Found::Incomplete => writeln!(text, "incomplete"),
    };
    text
}

const WIRES: [(&str, Wire); 2] = [("uwsgi", uwsgi::head), ("scgi", scgi::head)];

#[test]
fn valid_packets_become_what_is_written_beside_them() {
    for (name, wire) in WIRES {
        cases::compare(name, "valid", |input| told(&found(wire, &[input])));
    }
}

#[test]
fn invalid_packets_are_refused_as_is_written_beside_them() {
    for (name, wire) in WIRES {
        cases::compare(name, "invalid", |input| told(&found(wire, &[input])));
    }
}

#[test]
fn it_makes_no_difference_where_packets_are_split() {
    for (name, wire) in WIRES {
        cases::split(name, |pieces| found(wire, pieces));
    }
}

#[test]
fn nothing_that_comes_breaks_a_wire() {
    for (name, wire) in WIRES {
        cases::mutate(name, |pieces| found(wire, pieces));
    }
}
