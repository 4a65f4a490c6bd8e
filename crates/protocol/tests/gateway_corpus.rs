//! Runs `tests/corpus/uwsgi` and `tests/corpus/scgi`, written as those of HTTP are (http_corpus.rs): packets as bytes, and
//! beside each what is made of them.

mod cases;
#[path = "found/gateway.rs"]
mod found;

use std::fmt::Write as _;

use found::{CONNECTION, Found, Wire};
use wasgi_protocol::environ;
use wasgi_protocol::http::Body;
use wasgi_protocol::{scgi, uwsgi};

/// Longest block of variables.
const LONGEST: usize = 60_000;

fn found(wire: Wire, pieces: &[&[u8]]) -> Found {
    found::found(wire, LONGEST, pieces)
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
