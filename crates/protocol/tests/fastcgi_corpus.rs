//! Runs `tests/corpus/fastcgi`, written as those of HTTP are (http_corpus.rs): the records of a connection as bytes, and
//! beside each what is made of them.

mod cases;
#[path = "found/fastcgi.rs"]
mod found;

use std::fmt::Write as _;

use found::{CONNECTION, Found};
use wasgi_protocol::environ;

/// Longest params.
const LONGEST: usize = 4096;

fn found(pieces: &[&[u8]]) -> Vec<Found> {
    found::found(LONGEST, pieces)
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
