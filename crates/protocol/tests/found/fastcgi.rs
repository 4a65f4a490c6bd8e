//! What FastCGI makes of the bytes of a connection, apart from how they came, and what holds of all of it.

use wasgi_protocol::environ;
use wasgi_protocol::fastcgi::{Records, Step};
use wasgi_protocol::gateway::{Head, Refusal};
use wasgi_protocol::http::Connection;

pub const CONNECTION: Connection<'_> = Connection {
    scheme: "http",
    remote: ("192.0.2.1", "40000"),
    server: None,
    own_fields: &[],
    forwarded: None,
};

#[derive(Debug, PartialEq, Eq)]
pub enum Found {
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
/// `longest` bounds the params.
pub fn found(longest: usize, pieces: &[&[u8]]) -> Vec<Found> {
    let (mut records, mut input, mut found) = (Records::new(longest), Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let used = match records.step(&input) {
                Step::More => break,
                Step::Head { used, head, id, keep } => {
                    check(&head);
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
                    assert!(record.len() <= 64, "{} bytes are answered", record.len());
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

/// What holds of every environ, whatever came.
fn check(head: &Head) {
    // Fields joined may be too long for it.
    let block = head.environ(&CONNECTION, "").unwrap_or_default();
    for pair in environ::iter(&block) {
        let (name, _) = pair.expect("the block is whole");
        let is_forbidden = name.starts_with(b"wsgi.") || name.starts_with(b"UWSGI_") || name == b"HTTP_PROXY";
        assert!(!is_forbidden, "{} is left out", name.escape_ascii());
    }
}
