//! Runs `tests/corpus/fastcgi`, written as those of HTTP are (http_corpus.rs): the records of a connection as bytes, and
//! beside each what is made of them.

mod cases;

use std::fmt::Write as _;

use wasgi_protocol::environ;
use wasgi_protocol::fastcgi::{Records, Step};
use wasgi_protocol::gateway::{Head, Refusal};
use wasgi_protocol::http::Connection;

const CONNECTION: Connection<'_> = Connection {
    scheme: "http",
    remote: ("192.0.2.1", "40000"),
    server: None,
    own_fields: &[],
    forwarded: None,
};

/// Longest params.
const LONGEST: usize = 4096;

/// What is made of bytes, apart from how they came.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Request {
        head: Box<Head>,
        id: u16,
        keep: bool,
    },
    Body(Vec<u8>),
    End,
    Abort,
    Answer(Vec<u8>),
    Refused(Refusal),
    /// The bytes ended here.
    Waiting {
        is_idle: bool,
    },
}

/// Feeds `pieces` one after the other, as a connection would. A request is over when its body or itself has ended.
fn found(pieces: &[&[u8]]) -> Vec<Found> {
    let (mut records, mut input, mut found) = (Records::new(LONGEST), Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let step = records.step(&input);
            let used = match step {
                Step::More => break,
                Step::Head { used, head, id, keep } => {
                    for pair in environ::iter(&head.environ(&CONNECTION, "").unwrap_or_default()) {
                        pair.expect("the block is whole");
                    }
                    found.push(Found::Request { head, id, keep });
                    used
                }
                Step::Data { used } => {
                    assert!(used > 0);
                    match found.last_mut() {
                        Some(Found::Body(body)) => body.extend_from_slice(&input[..used]),
                        _ => found.push(Found::Body(input[..used].to_vec())),
                    }
                    used
                }
                Step::End { used } => {
                    records.finish();
                    found.push(Found::End);
                    used
                }
                Step::Abort { used } => {
                    records.finish();
                    found.push(Found::Abort);
                    used
                }
                Step::Answer { used, record } => {
                    found.push(Found::Answer(record));
                    used
                }
                Step::Skip { used } => used,
                Step::Refused(refusal) => {
                    found.push(Found::Refused(refusal));
                    return found;
                }
            };
            input.drain(..used);
        }
        // A record that is read whole has at most a KiB.
        assert!(input.len() <= 1024, "{} bytes are kept", input.len());
    }
    let is_idle = records.is_idle() && input.is_empty();
    found.push(Found::Waiting { is_idle });
    found
}

fn told(found: &[Found]) -> String {
    let mut text = String::new();
    for one in found {
        let _ = match one {
            Found::Request { head, id, keep } => {
                let keep = if *keep { ", keep" } else { "" };
                let _ = writeln!(text, "request {id}: {:?}{keep}", head.body());
                for pair in environ::iter(&head.environ(&CONNECTION, "").unwrap()) {
                    let (name, value) = pair.unwrap();
                    let _ = writeln!(text, "  {}={}", cases::shown(name), cases::shown(value));
                }
                Ok(())
            }
            Found::Body(body) => writeln!(text, "body: {}", cases::shown(body)),
            Found::End => writeln!(text, "end of the body"),
            Found::Abort => writeln!(text, "abort"),
            Found::Answer(record) => writeln!(text, "answer: {}", cases::shown(record)),
            Found::Refused(refusal) => writeln!(text, "refused: {} {refusal}", refusal.status()),
            Found::Waiting { is_idle: true } => Ok(()),
            Found::Waiting { is_idle: false } => writeln!(text, "incomplete"),
        };
    }
    text
}

#[test]
fn valid_records_become_what_is_written_beside_them() {
    cases::compare("fastcgi", "valid", |input| told(&found(&[input])));
}

#[test]
fn invalid_records_are_refused_as_is_written_beside_them() {
    cases::compare("fastcgi", "invalid", |input| told(&found(&[input])));
}

#[test]
fn it_makes_no_difference_where_records_are_split() {
    cases::split("fastcgi", found);
}

#[test]
fn nothing_that_comes_breaks_the_records() {
    cases::mutate("fastcgi", found);
}
