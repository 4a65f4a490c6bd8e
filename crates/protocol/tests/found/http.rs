//! What the guard makes of the bytes of a connection, apart from how they came, and what holds of all of it.

use wasgi_protocol::environ;
use wasgi_protocol::http::{Connection, Guard, Head, Limits, Phase, Refusal, Step};

pub const CONNECTION: Connection<'_> = Connection {
    scheme: "http",
    remote: ("192.0.2.1", "40000"),
    server: Some(("127.0.0.1", "8000")),
    own_fields: &[],
    forwarded: None,
};

#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Request(Head),
    Body(Vec<u8>),
    Chunk(u64),
    End,
    Refused(Refusal),
    /// The bytes ended here.
    Waiting(Phase),
}

/// Feeds `pieces` one after the other, as a connection would. `longest` bounds a head.
pub fn found(longest: usize, pieces: &[&[u8]]) -> Vec<Found> {
    let mut guard = Guard::new(Limits { head: longest });
    let (mut input, mut found) = (Vec::new(), Vec::new());
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
                    check(&head);
                    found.push(Found::Request(head));
                    used
                }
                Step::Data { used } => {
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
                Step::ChunkEnd { used } | Step::Skip { used } => used,
                Step::End { used } => {
                    found.push(Found::End);
                    used
                }
            };
            assert!(used > 0 && used <= input.len(), "it gets on");
            input.drain(..used);
        }
        assert!(input.len() <= longest, "{} bytes are kept", input.len());
    }
    found.push(Found::Waiting(guard.phase()));
    found
}

/// What holds of every environ, whatever came.
fn check(head: &Head) {
    // Fields joined may be too long for it.
    let block = head.environ(&CONNECTION, "").unwrap_or_default();
    for pair in environ::iter(&block) {
        let (name, _) = pair.expect("the block is whole");
        let is_forbidden = name.is_empty()
            || name.starts_with(b"wsgi.")
            || matches!(
                name,
                b"HTTP_PROXY" | b"HTTP_CONTENT_LENGTH" | b"HTTP_CONTENT_TYPE"
            );
        assert!(!is_forbidden, "{} is left out", name.escape_ascii());
    }
}
