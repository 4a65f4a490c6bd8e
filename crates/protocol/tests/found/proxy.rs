//! What the first bytes of a connection say by the PROXY protocol, apart from how they came, and what holds of all of it.

use wasgi_protocol::proxy_protocol::{Origin, Refusal, Step, step};

#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A header, and what comes after it.
    Header(Origin, Vec<u8>),
    Refused(Refusal),
    Incomplete,
}

/// Longest header: 16 bytes, and 8 KiB.
const LONGEST: usize = 16 + (8 << 10);

/// Feeds `pieces` one after the other, as a connection would.
pub fn found(pieces: &[&[u8]]) -> Found {
    let mut input = Vec::new();
    let mut pieces = pieces.iter();
    for piece in &mut pieces {
        input.extend_from_slice(piece);
        match step(&input) {
            Ok(Step::More(more)) => assert!(more > 0 && input.len() + more <= LONGEST, "bounded"),
            Ok(Step::Header { used, origin }) => {
                check(&input, used);
                let mut rest = input[used..].to_vec();
                pieces.for_each(|piece| rest.extend_from_slice(piece));
                return Found::Header(origin, rest);
            }
            Err(refusal) => return Found::Refused(refusal),
        }
    }
    Found::Incomplete
}

/// Who reads no more than it is told stops where the header does.
fn check(input: &[u8], used: usize) {
    let mut have = 0;
    while let Ok(Step::More(more)) = step(&input[..have]) {
        have += more;
        assert!(have <= used, "{have} bytes are read of {used}");
    }
    assert_eq!(have, used);
}
