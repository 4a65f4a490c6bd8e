//! How the input is split makes no difference to what the guard finds in it, every head found makes a well-formed
//! environ block, and the guard always gets on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wasgi_protocol::environ;
use wasgi_protocol::http::{Connection, Guard, Head, Limits, Refusal, Step};

const CONNECTION: Connection<'_> =
    Connection { scheme: "http", remote: ("192.0.2.1", "40000"), server: None, own_fields: &[], forwarded: None };

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Request(Head),
    Body(Vec<u8>),
    Chunk(u64),
    End,
    Refused(Refusal),
}

fn found<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Found> {
    let (mut guard, mut input, mut found) = (Guard::new(Limits { head: 4096 }), Vec::new(), Vec::new());
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
                    if let Ok(block) = head.environ(&CONNECTION, "") {
                        for pair in environ::iter(&block) {
                            let (key, _) = pair.expect("the block is whole");
                            assert!(!key.is_empty() && key != b"HTTP_PROXY" && key != b"HTTP_CONTENT_LENGTH");
                        }
                    }
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
            assert!(used > 0 && used <= input.len());
            input.drain(..used);
        }
    }
    found
}

fuzz_target!(|data: &[u8]| {
    // The first byte says where to split.
    let Some((&at, data)) = data.split_first() else { return };
    let at = usize::from(at) % (data.len() + 1);
    let whole = found([data]);
    assert_eq!(found([&data[..at], &data[at..]]), whole);
    assert_eq!(found(data.chunks(1)), whole);
});
