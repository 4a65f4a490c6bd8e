//! Runs `tests/corpus/proxy`, written as those of HTTP are (http_corpus.rs): the first bytes of a connection, and beside
//! each what a proxy says with them.

mod cases;
#[path = "found/proxy.rs"]
mod found;

use found::{Found, found};
use wasgi_protocol::proxy_protocol::Origin;

fn told(found: &Found) -> String {
    match found {
        Found::Header(origin, rest) => {
            let rest = cases::shown(rest);
            match origin {
                Origin::Proxy => format!("the proxy's own\nthen {rest}\n"),
                Origin::Unix { tls } => format!("over a unix socket, tls: {tls}\nthen {rest}\n"),
                Origin::Client { from, to, tls } => {
                    format!("from {from} to {to}, tls: {tls}\nthen {rest}\n")
                }
            }
        }
        Found::Refused(refusal) => format!("refused: {refusal}\n"),
        Found::Incomplete => "incomplete\n".to_owned(),
    }
}

#[test]
fn valid_headers_say_what_is_written_beside_them() {
    cases::compare("proxy", "valid", |input| told(&found(&[input])));
}

#[test]
fn invalid_headers_are_refused_as_is_written_beside_them() {
    cases::compare("proxy", "invalid", |input| told(&found(&[input])));
}

#[test]
fn it_makes_no_difference_where_a_header_is_split() {
    cases::split("proxy", found);
}

#[test]
fn nothing_that_comes_breaks_the_reading() {
    cases::mutate("proxy", found);
}
