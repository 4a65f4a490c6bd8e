//! Runs `tests/corpus/http`: requests as bytes, and beside each what is made of them.
//!
//! In a `.http` file the line ends are only there to be read: the bytes of a request are spelled out, with `\r`, `\n`,
//! `\t`, `\0`, `\\` and `\xNN`, and `{text*count}` for repetition. The `.out` file beside it tells the requests found,
//! with their environ and body, and the refusal that ended them, if one did.
//!
//! With `BLESS=1` in the environment the `.out` files are written instead of compared.

mod cases;
#[path = "found/http.rs"]
mod found;

use std::fmt::Write as _;

use found::{CONNECTION, Found};
use wasgi_protocol::environ;
use wasgi_protocol::http::Phase;

/// Longest head.
const LONGEST: usize = 64 << 10;

fn found(pieces: &[&[u8]]) -> Vec<Found> {
    found::found(LONGEST, pieces)
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
    cases::compare("http", "valid", |input| told(&found(&[input])));
}

#[test]
fn invalid_requests_are_refused_as_is_written_beside_them() {
    cases::compare("http", "invalid", |input| told(&found(&[input])));
}

#[test]
fn it_makes_no_difference_where_the_input_is_split() {
    cases::split("http", found);
}

#[test]
fn nothing_that_comes_breaks_the_guard() {
    cases::mutate("http", found);
}
