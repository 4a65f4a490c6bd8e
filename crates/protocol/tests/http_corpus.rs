//! Runs `tests/corpus/http`: requests as bytes, and beside each what is made of them.
//!
//! In a `.http` file the line ends are only there to be read: the bytes of a request are spelled out, with `\r`, `\n`,
//! `\t`, `\0`, `\\` and `\xNN`, and `{text*count}` for repetition. The `.out` file beside it tells the requests found,
//! with their environ and body, and the refusal that ended them, if one did.
//!
//! With `BLESS=1` in the environment the `.out` files are written instead of compared.

mod cases;

use std::fmt::Write as _;

use wasgi_protocol::environ;
use wasgi_protocol::http::{Connection, Guard, Head, Limits, Phase, Step};

const CONNECTION: Connection<'_> = Connection {
    scheme: "http",
    remote: ("192.0.2.1", "40000"),
    server: Some(("127.0.0.1", "8000")),
    own_fields: &[],
    forwarded: None,
};

fn guard() -> Guard {
    Guard::new(Limits { head: 64 << 10 })
}

/// What a guard makes of bytes, apart from how they came.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Request(Head),
    Body(Vec<u8>),
    Chunk(u64),
    End,
    Refused(wasgi_protocol::http::Refusal),
    /// The bytes ended here.
    Waiting(Phase),
}

/// Feeds `pieces` one after the other, as a connection would.
fn found<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Found> {
    let (mut guard, mut input, mut found) = (guard(), Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let used = match guard.step(&input) {
                Step::More => break,
                Step::Refused(refusal) => {
                    found.push(Found::Refused(refusal));
                    return found;
                }
                Step::Head { used, head } => {
                    found.push(Found::Request(head));
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
                Step::Chunk { used, size } => {
                    found.push(Found::Chunk(size));
                    used
                }
                Step::ChunkEnd { used } | Step::Skip { used } => {
                    assert!(used > 0);
                    used
                }
                Step::End { used } => {
                    found.push(Found::End);
                    used
                }
            };
            input.drain(..used);
        }
    }
    found.push(Found::Waiting(guard.phase()));
    found
}

fn told(found: &[Found]) -> String {
    let mut text = String::new();
    for one in found {
        let _ = match one {
            Found::Request(head) => {
                let _ = writeln!(
                    text,
                    "request: {:?}{}{}",
                    head.body(),
                    if head.keep_alive() { "" } else { ", close" },
                    if head.expects_continue() {
                        ", expects 100"
                    } else {
                        ""
                    }
                );
                let block = head.environ(&CONNECTION, "").unwrap();
                for pair in environ::iter(&block) {
                    let (key, value) = pair.unwrap();
                    // What depends on the connection alone is the same for all.
                    if !key.starts_with(b"REMOTE_") && !key.starts_with(b"SERVER_N") && key != b"SERVER_PORT"
                    {
                        let _ = writeln!(text, "  {}={}", cases::shown(key), cases::shown(value));
                    }
                }
                Ok(())
            }
            Found::Body(body) => writeln!(text, "body: {}", cases::shown(body)),
            Found::Chunk(_) => Ok(()),
            Found::End => writeln!(text, "end of chunks"),
            Found::Refused(refusal) => writeln!(text, "refused: {} {refusal:?}", refusal.status()),
            Found::Waiting(Phase::Idle) => Ok(()),
            Found::Waiting(phase) => writeln!(text, "incomplete: {phase:?}"),
        };
    }
    text
}

#[test]
fn valid_requests_become_what_is_written_beside_them() {
    cases::compare("http", "valid", |input| told(&found([input])));
}

#[test]
fn invalid_requests_are_refused_as_is_written_beside_them() {
    cases::compare("http", "invalid", |input| told(&found([input])));
}

#[test]
fn it_makes_no_difference_where_the_input_is_split() {
    cases::split("http", |pieces| found(pieces.iter().copied()));
}

#[test]
fn nothing_that_comes_breaks_the_guard() {
    cases::mutate("http", |pieces| found(pieces.iter().copied()));
}
